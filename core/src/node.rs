//! SSH servers, as they are stored.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{NodeId, NodeName};

/// A registered SSH server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What approvals and certificates are bound to; never reused.
    pub id: NodeId,
    /// What people call it. Two nodes may share a name; then it is ambiguous.
    pub name: NodeName,
    /// Where it is dialled, as the operator registered it.
    pub addr: NodeAddr,
    /// What roles select by.
    pub labels: BTreeMap<String, String>,
    /// How the node proves that it is the node.
    pub host_proof: HostProof,
    /// The addresses (CIDR) as which the node sees the proxy, for `source-address`; empty means
    /// the local address of the dialled connection.
    pub egress_addresses: Vec<String>,
}

/// How a node proves itself before anything is sent to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostProof {
    /// By one of these host keys, each one OpenSSH line. Never empty.
    Pinned(Vec<String>),
    /// By a host certificate of the cluster's host CA that names the node's UUID.
    HostCa,
}

impl Node {
    /// The host keys that it is known by, each as type and key without its comment.
    pub fn pinned_keys(&self) -> impl Iterator<Item = &str> {
        let lines: &[String] = match &self.host_proof {
            HostProof::Pinned(keys) => keys,
            HostProof::HostCa => &[],
        };
        lines.iter().map(|line| without_comment(line))
    }
}

/// Type and key of an OpenSSH public key line.
fn without_comment(line: &str) -> &str {
    line.match_indices(' ')
        .nth(1)
        .and_then(|(end, _)| line.get(..end))
        .unwrap_or(line)
}

/// Whether two hosts are one: the same name, or two spellings of one IP address.
#[must_use]
pub fn same_host(a: &str, b: &str) -> bool {
    let address = |host: &str| host.parse::<IpAddr>().map(|ip| ip.to_canonical());
    match (address(a), address(b)) {
        (Ok(a), Ok(b)) => a == b,
        (Ok(_) | Err(_), _) => a == b,
    }
}

/// `HOST:PORT`, where HOST is a host name, an IPv4 address or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeAddr {
    host: String,
    port: u16,
}

/// Why a text is not a node's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address; write HOST:PORT, with an IPv6 address in brackets, as in 192.0.2.7:22 or [2001:db8::7]:22"
)]
pub struct NodeAddrError(String);

impl NodeAddr {
    /// Parses `HOST:PORT`; the port is never 0.
    ///
    /// # Errors
    /// [`NodeAddrError`] names the text and the form.
    pub fn parse(text: &str) -> Result<Self, NodeAddrError> {
        let malformed = || NodeAddrError(crate::id::printable(text));
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse::<u16>().ok().filter(|port| digits && *port != 0);
        let host = match host.strip_prefix('[') {
            Some(rest) => rest
                .strip_suffix(']')
                .filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
            None => Some(host).filter(|host| is_host(host)),
        };
        match (host, port) {
            (Some(host), Some(port)) => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            (Some(_) | None, _) => Err(malformed()),
        }
    }

    /// The host name or address, an IPv6 address without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn is_host(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        })
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            f.pad(&format!("[{}]:{}", self.host, self.port))
        } else {
            f.pad(&format!("{}:{}", self.host, self.port))
        }
    }
}

impl FromStr for NodeAddr {
    type Err = NodeAddrError;

    fn from_str(text: &str) -> Result<Self, NodeAddrError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for NodeAddr {
    type Error = NodeAddrError;

    fn try_from(text: String) -> Result<Self, NodeAddrError> {
        Self::parse(&text)
    }
}

impl From<NodeAddr> for String {
    fn from(addr: NodeAddr) -> Self {
        addr.to_string()
    }
}
