//! The script that sets a machine's sshd up. Its text is `script.sh`, with places that are filled in here.

use base64ct::{Base64, Encoding};

const TEMPLATE: &str = include_str!("script.sh");

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
        let values = [
            ("@CLUSTER@", quoted(&self.cluster)),
            ("@NODE_NAME@", quoted(&self.node_name)),
            ("@NODE_ID@", quoted(&self.node_id)),
            ("@NODE_CA@", quoted(&self.node_ca.join("\n"))),
            ("@REVOKED@", quoted(&Base64::encode_string(&self.krl))),
            ("@PROXY_ADDR@", quoted(&self.proxy_addr)),
            ("@LOG_IN@", quoted(&self.log_in)),
            ("@TUNNEL_UNIT@", quoted(unit.trim_end())),
            ("@TUNNEL_COMMAND@", quoted(&command)),
            (
                "@CERTIFICATES@",
                certificates.collect::<Vec<_>>().join("\n"),
            ),
        ];
        // One walk: what a value says is never taken for a place.
        let mut text = String::with_capacity(TEMPLATE.len() * 2);
        let mut rest = TEMPLATE;
        while let Some((before, after)) = rest.split_once('@') {
            text.push_str(before);
            let value = after.split_once('@').and_then(|(name, after)| {
                let place = values
                    .iter()
                    .find(|(place, _)| place.trim_matches('@') == name);
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
}

/// A word that a POSIX shell reads as `text` and as nothing else (POSIX 2.2.2).
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

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
        for place in ["@CLUSTER@", "@CERTIFICATES@", "@TUNNEL_UNIT@", "@NODE_CA@"] {
            assert!(TEMPLATE.contains(place) && !text.contains(place), "{place}");
        }
        assert!(text.ends_with("\n}\n\nenrol\n"), "{text}");
        let calls = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with([' ', '#', '\t']));
        let calls: Vec<_> = calls.filter(|line| *line == "enrol").collect();
        assert_eq!(calls.len(), 1);
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
