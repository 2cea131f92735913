//! Public halves as their readers want them: authorized_keys, known_hosts and sshd_config lines.

use anteroom_core::id::NodeId;
use ssh_key::PublicKey;

use crate::names::HostNames;

/// `TYPE BASE64 COMMENT`, as in `authorized_keys` and `TrustedUserCAKeys`, without line end. The comment is
/// the given one (control characters left out), not the key's own.
///
/// # Errors
/// A key that cannot be encoded; none of the types served here.
pub fn authorized_keys_line(key: &PublicKey, comment: &str) -> Result<String, ssh_key::Error> {
    let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
    let bare = PublicKey::from(key.key_data().clone()).to_openssh()?;
    Ok(format!("{bare} {comment}").trim_end().to_owned())
}

/// `@cert-authority PATTERNS TYPE BASE64` lines of `known_hosts` for every trusted host authority.
///
/// The patterns match no more than what is certified: the proxy's names; single labels (`*`, but nothing with
/// a dot, and no `[name]:port` or IPv6 address); names under each host domain. A plain `*` would override what
/// users have pinned for other people's hosts.
///
/// # Errors
/// A key that cannot be encoded; none of the types served here.
pub fn known_hosts_lines(
    names: &HostNames,
    authorities: &[PublicKey],
) -> Result<Vec<String>, ssh_key::Error> {
    let proxy = names
        .proxy()
        .map(|name| name.as_str())
        .collect::<Vec<_>>()
        .join(",");
    let mut patterns = vec![proxy, SINGLE_LABELS.to_owned()];
    patterns.extend(names.domains().map(|domain| format!("*.{domain}")));
    let mut lines = Vec::new();
    for authority in authorities {
        let key = authorized_keys_line(authority, "")?;
        lines.extend(
            patterns
                .iter()
                .map(|patterns| format!("@cert-authority {patterns} {key}")),
        );
    }
    Ok(lines)
}

/// What a node's sshd does besides trusting the node authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherDoors {
    /// The operator's other ways in stay as they are.
    Keep,
    /// Every other way in is closed: our certificates alone open it.
    Close,
}

/// The lines of `sshd_config` for `node`, ready to append, each with its line end.
///
/// They expect the node authority's line ([`authorized_keys_line`]) in [`NODE_CA_FILE`].
pub fn sshd_config_lines(node: &NodeId, others: OtherDoors) -> String {
    let trust = format!(
        "TrustedUserCAKeys {NODE_CA_FILE}\n\
         AuthorizedPrincipalsCommand /bin/echo %u@{node}\n\
         AuthorizedPrincipalsCommandUser nobody\n"
    );
    match others {
        OtherDoors::Keep => trust,
        OtherDoors::Close => trust + EXCLUSIVE,
    }
}

/// Where the node's sshd looks for the node authority's public key.
pub const NODE_CA_FILE: &str = "/etc/ssh/anteroom_node_ca.pub";

const SINGLE_LABELS: &str = "*,!*.*,!*:*";

/// `AuthenticationMethods` closes what this list does not name, GSSAPI for one, in every sshd since 6.2.
const EXCLUSIVE: &str = "\
AuthenticationMethods publickey
AuthorizedKeysFile none
AuthorizedKeysCommand none
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn key(byte: u8) -> PublicKey {
        Key::from_seed("a comment", &[byte; 32])
            .public_key()
            .clone()
    }

    fn node() -> NodeId {
        NodeId::parse("b1168402-9340-421a-a344-af66a6675738").unwrap()
    }

    #[test]
    fn an_authorized_keys_line_is_type_key_and_comment() {
        let line = authorized_keys_line(&key(1), "anteroom node CA\nssh-ed25519 evil").unwrap();
        let fields: Vec<_> = line.split(' ').collect();
        assert_eq!(fields[0], "ssh-ed25519");
        assert_eq!(
            PublicKey::from_openssh(&line).unwrap().key_data(),
            key(1).key_data()
        );
        assert_eq!(line.lines().count(), 1);
        assert_eq!(
            authorized_keys_line(&key(1), "")
                .unwrap()
                .split(' ')
                .count(),
            2
        );
    }

    #[test]
    fn known_hosts_patterns_match_no_more_than_what_is_certified() {
        let names =
            HostNames::new(["example.com", "access"], ["nodes.example.com", "lan"]).unwrap();
        let lines = known_hosts_lines(&names, &[key(1), key(2)]).unwrap();
        let patterns: Vec<_> = lines
            .iter()
            .map(|line| line.split(' ').nth(1).unwrap())
            .collect();
        let expected = [
            "access,example.com",
            "*,!*.*,!*:*",
            "*.lan",
            "*.nodes.example.com",
        ];
        assert_eq!(patterns, [expected, expected].concat());
        for line in &lines {
            assert!(line.starts_with("@cert-authority "));
            assert_eq!(line.split(' ').count(), 4);
        }
        assert_eq!(
            known_hosts_lines(&names, &[]).unwrap(),
            Vec::<String>::new()
        );
    }

    #[test]
    fn sshd_config_has_the_three_lines_and_closes_other_doors_when_told() {
        let three = "TrustedUserCAKeys /etc/ssh/anteroom_node_ca.pub\n\
             AuthorizedPrincipalsCommand /bin/echo %u@b1168402-9340-421a-a344-af66a6675738\n\
             AuthorizedPrincipalsCommandUser nobody\n";
        assert_eq!(sshd_config_lines(&node(), OtherDoors::Keep), three);
        let closed = sshd_config_lines(&node(), OtherDoors::Close);
        assert!(closed.starts_with(three));
        for line in [
            "AuthorizedKeysFile none\n",
            "PasswordAuthentication no\n",
            "KbdInteractiveAuthentication no\n",
        ] {
            assert!(closed.contains(line));
        }
    }
}
