//! The systemd unit that keeps a node's tunnel up with a stock ssh.
//!
//! Promises: no secret is in it, nothing on the node is read but the host key, the proxy is known by its
//! host key alone, and it takes no port on either side. Written for systemd 252 (Debian 12) and OpenSSH 8.4,
//! which has `KnownHostsCommand`.

use anteroom_core::id::NodeId;
use anteroom_core::node::{HostProof, Node};
use ssh_key::PublicKey;

use crate::admin::Place;

/// Where it is written on the node.
pub const TUNNEL_UNIT_FILE: &str = "/etc/systemd/system/anteroom-tunnel.service";

/// The port of a stock sshd.
pub const SSHD_PORT: u16 = 22;

/// What a unit is made of.
#[derive(Debug, Clone, Copy)]
pub struct TunnelUnit<'a> {
    /// The node's UUID, under which the tunnel logs in: names change.
    pub node: NodeId,
    /// The node's name, for people.
    pub name: &'a str,
    /// The path of the node's private host key.
    pub identity: &'static str,
    /// Where sshd listens on the node's loopback address.
    pub sshd_port: u16,
    /// How the proxy is reached, and by which key it is known.
    pub proxy: &'a Place,
}

impl<'a> TunnelUnit<'a> {
    /// The unit of a registered node, which logs in with a host key of a kind that is pinned.
    #[must_use]
    pub fn of(node: &'a Node, proxy: &'a Place, sshd_port: u16) -> Self {
        let pinned: &[String] = match &node.host_proof {
            HostProof::Pinned(keys) => keys,
            HostProof::HostCa => &[],
        };
        Self {
            node: node.id,
            name: node.name.as_str(),
            identity: identity(pinned),
            sshd_port,
            proxy,
        }
    }

    /// The words of the command line, as a shell or `exec` would have them. The last one is the host.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut say = |new: &[&str]| words.extend(new.iter().map(|word| (*word).to_owned()));
        // Nothing of what the host is configured for otherwise may change this connection.
        say(&["/usr/bin/ssh", "-F", "none", "-N", "-T"]);
        say(&["-i", self.identity]);
        say(&["-l", &format!("node+{}", self.node)]);
        say(&["-p", &self.proxy.port.to_string()]);
        say(&["-R", &format!("0:localhost:{}", self.sshd_port)]);
        for option in options(self.proxy) {
            say(&["-o", &option]);
        }
        // Without its forward the connection is of no use: the next one may get it.
        say(&["-o", "ExitOnForwardFailure=yes"]);
        say(&["--", &self.proxy.host]);
        words
    }

    /// The whole unit.
    #[must_use]
    pub fn text(&self) -> String {
        let command: Vec<String> = self.command().iter().map(|word| quoted(word)).collect();
        // One option a line.
        let command = command
            .join(" ")
            .replace(" -o ", " \\\n    -o ")
            .replace(" -- ", " \\\n    -- ");
        let (name, host) = (escaped(self.name), escaped(&self.proxy.host));
        format!(
            "\
[Unit]
Description=Tunnel of node {name} to the Anteroom proxy {host}
Wants=network-online.target
After=network-online.target
# It is tried again for as long as it takes.
StartLimitIntervalSec=0

[Service]
Type=exec
# Nodes that lost one proxy at the same moment don't come back at the same moment.
ExecStartPre=/bin/sh -c 'sleep \"$$(shuf -i 0-19 -n 1)\"'
ExecStart={command}
Restart=always
RestartSec=3
# Root without its powers: it owns the host key, and may do nothing else.
CapabilityBoundingSet=
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=multi-user.target
"
        )
    }
}

/// The options of ssh for every connection of a node to the proxy: with a host key alone, to this proxy alone, and
/// nobody is asked.
#[must_use]
pub fn options(proxy: &Place) -> Vec<String> {
    let known = known_hosts_command(&proxy.host_key);
    let options = [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "PreferredAuthentications=publickey",
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=none",
        "GlobalKnownHostsFile=none",
        "UpdateHostKeys=no",
        &known,
        "ConnectTimeout=15",
        // A proxy that is gone is noticed within a minute.
        "ServerAliveInterval=15",
        "ServerAliveCountMax=3",
    ];
    options.map(str::to_owned).to_vec()
}

/// The option by which ssh knows one host by one key, and by no file. ssh puts the name that it looks up in
/// the place of `%H`.
#[must_use]
pub fn known_hosts_command(key: &PublicKey) -> String {
    format!("KnownHostsCommand=/bin/echo %H {}", without_comment(key))
}

/// Type and key, as `known_hosts` has them.
fn without_comment(key: &PublicKey) -> String {
    let mut key = key.clone();
    key.set_comment("");
    key.to_openssh().unwrap_or_default().trim().to_owned()
}

/// Which of sshd's host keys is of a type that is pinned.
fn identity(pinned: &[String]) -> &'static str {
    const ED25519: &str = "/etc/ssh/ssh_host_ed25519_key";
    let has = |kind: &str| pinned.iter().any(|line| line.starts_with(kind));
    if pinned.is_empty() || has("ssh-ed25519 ") {
        ED25519
    } else if has("ecdsa-") {
        "/etc/ssh/ssh_host_ecdsa_key"
    } else if has("ssh-rsa ") {
        "/etc/ssh/ssh_host_rsa_key"
    } else {
        ED25519
    }
}

/// A word of a command line in a unit (systemd.service(5), systemd.syntax(7)): `%` and `$` mean something there.
fn quoted(word: &str) -> String {
    let word = escaped(word).replace('$', "$$");
    if word.contains([' ', '"', '\'', '\\', ';']) {
        format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        word
    }
}

/// Without the specifiers of systemd.unit(5).
fn escaped(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use anteroom_ca::names::HostNames;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMvW9XwzAFm2hjtYgRU1CFmZGfS3zvZbn6lMfTEBQbE a comment";

    fn place() -> Place {
        Place {
            host: "access.example.com".to_owned(),
            port: 2222,
            names: HostNames::new(["example.com"], [] as [&str; 0]).unwrap(),
            host_key: PublicKey::from_openssh(KEY).unwrap(),
        }
    }

    fn unit(place: &Place) -> TunnelUnit<'_> {
        TunnelUnit {
            node: "b1168402-9340-421a-a344-af66a6675738".parse().unwrap(),
            name: "iot",
            identity: identity(&[]),
            sshd_port: SSHD_PORT,
            proxy: place,
        }
    }

    #[test]
    fn the_unit_pins_the_proxy_and_asks_for_one_forward() {
        let place = place();
        let text = unit(&place).text();
        for part in [
            "-l node+b1168402-9340-421a-a344-af66a6675738 -p 2222 -R 0:localhost:22",
            "-o \"KnownHostsCommand=/bin/echo %%H ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGMvW9XwzAFm2hjtYgRU1CFmZGfS3zvZbn6lMfTEBQbE\"",
            "-o StrictHostKeyChecking=yes",
            "-o ExitOnForwardFailure=yes",
            "Restart=always",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("comment"), "{text}");
    }

    #[test]
    fn the_key_that_logs_in_is_of_a_kind_that_is_pinned() {
        let of = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            identity(&lines)
        };
        assert_eq!(of(&["ssh-rsa AAAA"]), "/etc/ssh/ssh_host_rsa_key");
        assert_eq!(
            of(&["ssh-rsa AAAA", "ssh-ed25519 AAAA"]),
            "/etc/ssh/ssh_host_ed25519_key"
        );
        assert_eq!(
            of(&["ecdsa-sha2-nistp256 AAAA"]),
            "/etc/ssh/ssh_host_ecdsa_key"
        );
    }

    #[test]
    fn what_systemd_would_read_otherwise_is_escaped() {
        assert_eq!(quoted("a%b"), "a%%b");
        assert_eq!(quoted("a \"b\" $c"), "\"a \\\"b\\\" $$c\"");
    }
}
