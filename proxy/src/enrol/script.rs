//! The script that sets a machine's sshd up, and the one that it leaves there to renew what it has installed. Their
//! texts are `script.sh` and `renew.sh`, with places that are filled in here; what both do with sshd is in `sshd.sh`.

use anteroom_core::id::NodeId;
use base64ct::{Base64, Encoding};

use crate::admin::Place;
use crate::tunnel_unit;

const TEMPLATE: &str = include_str!("script.sh");
const RENEWAL: &str = include_str!("renew.sh");
const SSHD: &str = include_str!("sshd.sh");

/// Where the script is written on the node that renews it all.
pub(crate) const RENEWAL_FILE: &str = "/usr/local/sbin/anteroom-renew";

/// The script by which a node with a stock sshd renews what it has of the cluster.
pub(crate) fn renewal(node: &NodeId, proxy: &Place) -> String {
    let mut words: Vec<String> = ["/usr/bin/ssh", "-F", "none", "-T"]
        .map(str::to_owned)
        .to_vec();
    words.extend(["-l".to_owned(), format!("node+{node}")]);
    words.extend(["-p".to_owned(), proxy.port.to_string()]);
    let mut options = tunnel_unit::options(proxy);
    // A host certificate beside a host key logs nobody in, and would be offered first.
    options.push("PubkeyAcceptedAlgorithms=-*-cert-v01@openssh.com".to_owned());
    let words = words.iter().map(|word| quoted_if_needed(word));
    let options = options
        .iter()
        .map(|option| format!("\\\n        -o {}", quoted_if_needed(option)));
    let ssh: Vec<String> = words.chain(options).collect();
    fill(
        RENEWAL,
        &[
            ("NODE_ID", quoted(&node.to_string())),
            ("SSH", ssh.join(" ")),
            ("HOST", quoted(&proxy.host)),
            ("SSHD", SSHD.trim_end().to_owned()),
        ],
    )
}

/// What the script is to know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The node's name.
    pub(crate) node_name: String,
    /// The node's UUID.
    pub(crate) node_id: String,
    /// The node CAs, a line each.
    pub(crate) node_ca: Vec<String>,
    /// The revocation list.
    pub(crate) krl: Vec<u8>,
    /// From where the proxy comes.
    pub(crate) proxy_addr: String,
    /// To where it comes: an address and a port of the node.
    pub(crate) node_addr: (String, u16),
    /// The script that renews it all.
    pub(crate) renewal: String,
    /// The command that logs in.
    pub(crate) log_in: String,
    /// For each host key the key and its certificate, both as lines of OpenSSH's formats.
    pub(crate) certificates: Vec<(String, String)>,
    /// For a node that keeps a tunnel, the unit that does so and its command.
    pub(crate) tunnel: Option<(String, String)>,
}

impl Script {
    /// The whole text.
    pub(crate) fn text(&self) -> String {
        let (unit, command) = self.tunnel.clone().unwrap_or_default();
        let certificates = self.certificates.iter();
        let certificates = certificates.map(|(key, certificate)| format!("{key} {certificate}"));
        let (node_addr, node_port) = &self.node_addr;
        fill(
            TEMPLATE,
            &[
                ("CLUSTER", quoted(&self.cluster)),
                ("NODE_NAME", quoted(&self.node_name)),
                ("NODE_ID", quoted(&self.node_id)),
                ("NODE_CA", quoted(&self.node_ca.join("\n"))),
                ("REVOKED", quoted(&Base64::encode_string(&self.krl))),
                ("PROXY_ADDR", quoted(&self.proxy_addr)),
                ("NODE_ADDR", quoted(node_addr)),
                ("NODE_PORT", node_port.to_string()),
                ("LOG_IN", quoted(&self.log_in)),
                ("TUNNEL_UNIT", quoted(unit.trim_end())),
                ("TUNNEL_COMMAND", quoted(&command)),
                ("CERTIFICATES", certificates.collect::<Vec<_>>().join("\n")),
                ("RENEWAL", self.renewal.trim_end().to_owned()),
                ("SSHD", SSHD.trim_end().to_owned()),
            ],
        )
    }
}

/// The text with each `@PLACE@` filled in. One walk: what a value says is never taken for a place.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let mut text = String::with_capacity(template.len() * 2);
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('@') {
        text.push_str(before);
        let value = after.split_once('@').and_then(|(name, after)| {
            let place = values.iter().find(|(place, _)| *place == name);
            place.map(|(_, value)| (value, after))
        });
        rest = match value {
            Some((value, after)) => {
                text.push_str(value);
                after
            }
            None => {
                text.push('@');
                after
            }
        };
    }
    text.push_str(rest);
    text
}

/// The same as [`quoted`], without quotes where a shell needs none.
fn quoted_if_needed(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+/.,:".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    quoted(text)
}

/// A word that a POSIX shell reads as `text` and as nothing else (POSIX 2.2.2).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use anteroom_ca::names::HostNames;
    use ssh_key::PublicKey;

    use super::*;

    fn script() -> Script {
        Script {
            cluster: "example.com".to_owned(),
            node_name: "iot".to_owned(),
            node_id: "b1168402-9340-421a-a344-af66a6675738".to_owned(),
            node_ca: vec![
                "ssh-ed25519 AAAA one".to_owned(),
                "ssh-ed25519 BBBB two".to_owned(),
            ],
            krl: b"SSHKRL\n\0".to_vec(),
            proxy_addr: "192.0.2.1".to_owned(),
            log_in: "ssh root@iot@access".to_owned(),
            certificates: vec![(
                "ssh-ed25519 AAAA".to_owned(),
                "ssh-ed25519-cert-v01@openssh.com CCCC it".to_owned(),
            )],
            tunnel: None,
            node_addr: ("192.0.2.7".to_owned(), 22),
            renewal: renewal(&ID.parse().unwrap(), &place()),
        }
    }

    const ID: &str = "b1168402-9340-421a-a344-af66a6675738";

    fn place() -> Place {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMvW9XwzAFm2hjtYgRU1CFmZGfS3zvZbn6lMfTEBQbE";
        Place {
            host: "access.example.com".to_owned(),
            port: 2222,
            names: HostNames::new(["example.com"], [] as [&str; 0]).unwrap(),
            host_key: PublicKey::from_openssh(key).unwrap(),
        }
    }

    /// What `sh` says to a text.
    fn said(text: &str) -> String {
        let mut sh = Command::new("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        sh.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let out = sh.wait_with_output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    #[test]
    fn every_place_is_filled_in_and_one_call_is_on_the_last_line() {
        let text = script().text();
        let is_place = |word: &&str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        let places = TEMPLATE.split('@').filter(is_place);
        let places: Vec<_> = places.map(|place| format!("@{place}@")).collect();
        assert_eq!(places.len(), 14, "{places:?}");
        for place in &places {
            assert!(!text.contains(place), "{place}");
        }
        assert!(text.ends_with("\n}\n\nenrol\n"), "{text}");
        let calls = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with([' ', '#', '\t']));
        let calls: Vec<_> = calls.filter(|line| *line == "enrol").collect();
        assert_eq!(calls.len(), 1);
    }

    #[test]
    fn the_renewal_stands_in_the_script_as_it_will_stand_on_the_machine() {
        let renewal = renewal(&ID.parse().unwrap(), &place());
        assert!(
            script()
                .text()
                .contains(&format!("<<'RENEWAL'\n{renewal}RENEWAL\n"))
        );
        assert_eq!(renewal.lines().filter(|line| *line == "RENEWAL").count(), 0);
        for part in [
            "/usr/bin/ssh -F none -T -l node+b1168402-9340-421a-a344-af66a6675738 -p 2222 \\\n",
            "-o 'KnownHostsCommand=/bin/echo %H ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMvW9XwzAFm2hjtYgRU1CFmZGfS3zvZbn6lMfTEBQbE' \\\n",
            "-o StrictHostKeyChecking=yes",
            "-- 'access.example.com' \"$command\" </dev/null",
        ] {
            assert!(renewal.contains(part), "{part} is not in\n{renewal}");
        }
        assert!(renewal.ends_with("\n}\n\nrenew\n"), "{renewal}");
        assert!(!renewal.contains("@SSH"), "{renewal}");
    }

    #[test]
    fn values_cannot_leave_their_quotes() {
        let hostile = "'; echo broken; $(echo broken) `echo broken` \\ @NODE_ID@ '\n\"x";
        let text = Script {
            cluster: hostile.to_owned(),
            ..script()
        }
        .text();
        let shown = text.replace("\nenrol\n", "\nvalues; printf '%s' \"$cluster\"\n");
        assert_eq!(said(&shown), hostile);
    }

    #[test]
    fn a_script_that_was_cut_off_does_nothing() {
        let text = script().text();
        let end = text.len() - "enrol\n".len();
        // All that a cut can do is to leave functions that nobody calls, or half of one.
        for cut in (0..end).step_by(97).chain([end]) {
            let said = said(&text[..cut]);
            assert!(!said.contains("anteroom:"), "cut at {cut}: {said}");
        }
    }
}
