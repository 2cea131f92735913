//! SSH servers, as they are stored.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
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
    /// Where it is dialled, as the operator registered it, or that it dials us.
    pub addr: NodeAddr,
    /// What roles select by: what an operator or a token set, and beside it what the node says of
    /// itself.
    pub labels: BTreeMap<String, String>,
    /// The keys of those labels that stand on the node's word alone. Changed by
    /// [`set_labels`](Self::set_labels) and [`say_labels`](Self::say_labels).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub said_labels: BTreeSet<String>,
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
    /// Takes what an operator or a token says; it wins over what the node said under the same key.
    pub fn set_labels(&mut self, labels: BTreeMap<String, String>) {
        let mut said = std::mem::take(&mut self.labels);
        let keys = std::mem::take(&mut self.said_labels);
        said.retain(|key, _| keys.contains(key));
        self.labels = labels;
        self.say_labels(said);
    }

    /// Takes what the node says of itself, in the place of what it said before. Where an operator or a
    /// token has spoken, the node is not heard.
    pub fn say_labels(&mut self, said: BTreeMap<String, String>) {
        for key in std::mem::take(&mut self.said_labels) {
            self.labels.remove(&key);
        }
        for (key, value) in said {
            if !self.labels.contains_key(&key) {
                self.said_labels.insert(key.clone());
                self.labels.insert(key, value);
            }
        }
    }

    /// The labels that an operator or a token set.
    pub fn labels_set(&self) -> impl Iterator<Item = (&String, &String)> {
        self.labels
            .iter()
            .filter(|(key, _)| !self.said_labels.contains(*key))
    }

    /// The host keys that it is known by, each as type and key without its comment.
    pub fn pinned_keys(&self) -> impl Iterator<Item = &str> {
        let lines: &[String] = match &self.host_proof {
            HostProof::Pinned(keys) => keys,
            HostProof::HostCa => &[],
        };
        lines.iter().map(|line| without_comment(line))
    }
}

/// Labels that a node may say of itself.
pub const MOST_SAID_LABELS: usize = 64;

/// Bytes of a key or a value that a node says of itself.
pub const LONGEST_SAID_LABEL: usize = 256;

/// Why what a node says of itself is not taken. What it said is not repeated but where it can do no harm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaidLabelError {
    /// More than there may be.
    #[error("a node says at most {MOST_SAID_LABELS} labels of itself; leave some out")]
    TooMany,
    /// A key or value is too long, or a key is empty.
    #[error(
        "a label has a key of 1 to {LONGEST_SAID_LABEL} bytes and a value of at most as many; shorten it"
    )]
    Size,
    /// A character that people would not see.
    #[error("labels are plain text; leave control characters out")]
    Control,
    /// A label of Anteroom's own.
    #[error("labels that start with `anteroom/` are reserved; choose another key")]
    Reserved,
    /// The same key twice.
    #[error("the label `{0}` is there twice; leave one out")]
    Twice(String),
}

/// What a node says of itself, held to what a node may say.
///
/// # Errors
/// [`SaidLabelError`] names the first mistake.
pub fn said_labels(
    said: impl IntoIterator<Item = (String, String)>,
) -> Result<BTreeMap<String, String>, SaidLabelError> {
    let mut labels = BTreeMap::new();
    for (key, value) in said {
        if labels.len() == MOST_SAID_LABELS {
            return Err(SaidLabelError::TooMany);
        }
        if key.is_empty() || key.len().max(value.len()) > LONGEST_SAID_LABEL {
            return Err(SaidLabelError::Size);
        }
        if !key.chars().chain(value.chars()).all(crate::id::is_plain) {
            return Err(SaidLabelError::Control);
        }
        if key.starts_with("anteroom/") {
            return Err(SaidLabelError::Reserved);
        }
        if let Some(_before) = labels.insert(key.clone(), value) {
            return Err(SaidLabelError::Twice(key));
        }
    }
    Ok(labels)
}

/// Why labels that an operator, a token or a document sets are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetLabelError {
    /// More than there may be.
    #[error("there are {0} labels, and the limit is {MOST_SAID_LABELS}; leave some out")]
    TooMany(usize),
    /// A key or value is too long.
    #[error(
        "a label has a key and a value of at most {LONGEST_SAID_LABEL} bytes each, and one here has {0}; shorten it"
    )]
    TooLong(usize),
}

/// Holds what is set to the bounds of what nodes say: every decision compares labels, and every listing shows them.
///
/// # Errors
/// [`SetLabelError`].
pub fn bounded_labels<'l>(
    set: impl IntoIterator<Item = (&'l String, &'l String)>,
) -> Result<(), SetLabelError> {
    let mut count = 0;
    for (key, value) in set {
        count += 1;
        let longest = key.len().max(value.len());
        if longest > LONGEST_SAID_LABEL {
            return Err(SetLabelError::TooLong(longest));
        }
    }
    if count > MOST_SAID_LABELS {
        return Err(SetLabelError::TooMany(count));
    }
    Ok(())
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

/// The address, or of an IPv6 address the network that one host or subscriber usually has (a /64, RFC 4291 section
/// 2.5.1): a machine there has as many addresses as it likes. IPv4 addresses inside IPv6 ones are IPv4.
#[must_use]
pub fn source_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

/// `HOST:PORT`, where HOST is a host name, an IPv4 address or an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text is not [`HostPort`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not an address; write HOST:PORT, with an IPv6 address in brackets, as in 192.0.2.7:22 or [2001:db8::7]:22"
)]
pub struct HostPortError(String);

impl HostPort {
    /// Parses `HOST:PORT`; the port is never 0.
    ///
    /// # Errors
    /// [`HostPortError`] names the text and the form.
    pub fn parse(text: &str) -> Result<Self, HostPortError> {
        let malformed = || HostPortError(crate::id::printable(text));
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

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            f.pad(&format!("[{}]:{}", self.host, self.port))
        } else {
            f.pad(&format!("{}:{}", self.host, self.port))
        }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for HostPort {
    type Error = HostPortError;

    fn try_from(text: String) -> Result<Self, HostPortError> {
        Self::parse(&text)
    }
}

impl From<HostPort> for String {
    fn from(addr: HostPort) -> Self {
        addr.to_string()
    }
}

/// Where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum NodeAddr {
    /// It is dialled there.
    At(HostPort),
    /// It is never dialled, and keeps a connection to the proxy instead. Written `tunnel`, which no
    /// [`HostPort`] is.
    Tunnel,
}

/// Why a text is not a node's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}; `tunnel` is for a node that connects to the proxy by itself")]
pub struct NodeAddrError(#[from] HostPortError);

/// How an address says that there is none.
const TUNNEL: &str = "tunnel";

impl NodeAddr {
    /// Parses `HOST:PORT` or `tunnel`.
    ///
    /// # Errors
    /// [`NodeAddrError`] names the text and the forms.
    pub fn parse(text: &str) -> Result<Self, NodeAddrError> {
        if text == TUNNEL {
            return Ok(Self::Tunnel);
        }
        Ok(Self::At(HostPort::parse(text)?))
    }

    /// Host name or address (an IPv6 address without brackets) and TCP port; `None` where the node is
    /// never dialled.
    #[must_use]
    pub fn dialled(&self) -> Option<(&str, u16)> {
        match self {
            Self::At(at) => Some((&at.host, at.port)),
            Self::Tunnel => None,
        }
    }

    /// The host name or address, where the node is dialled.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        self.dialled().map(|(host, _)| host)
    }
}

impl fmt::Display for NodeAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::Tunnel => f.pad(TUNNEL),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    fn node(set: &[(&str, &str)]) -> Node {
        Node {
            id: NodeId::parse("b1168402-9340-421a-a344-af66a6675738").unwrap(),
            name: NodeName::parse("iot").unwrap(),
            addr: NodeAddr::Tunnel,
            labels: labels(set),
            said_labels: BTreeSet::new(),
            host_proof: HostProof::HostCa,
            egress_addresses: Vec::new(),
        }
    }

    #[test]
    fn labels_that_are_set_are_bounded_as_those_that_nodes_say() {
        let many = |count: usize| -> BTreeMap<String, String> {
            let all = (0..count).map(|n| (format!("k{n}"), String::new()));
            all.collect()
        };
        assert_eq!(bounded_labels(&many(MOST_SAID_LABELS)), Ok(()));
        let refused = bounded_labels(&many(MOST_SAID_LABELS + 1));
        assert_eq!(refused, Err(SetLabelError::TooMany(65)));
        let (fits, long) = ("x".repeat(LONGEST_SAID_LABEL), "x".repeat(257));
        assert_eq!(bounded_labels(&labels(&[(&fits, &fits)])), Ok(()));
        for pair in [(long.as_str(), ""), ("k", long.as_str())] {
            let refused = bounded_labels(&labels(&[pair]));
            assert_eq!(refused, Err(SetLabelError::TooLong(257)));
        }
    }

    #[test]
    fn what_an_operator_set_wins_over_what_a_node_says() {
        let mut node = node(&[("env", "staging")]);
        node.say_labels(labels(&[("env", "prod"), ("kernel", "6.1")]));
        assert_eq!(
            node.labels,
            labels(&[("env", "staging"), ("kernel", "6.1")])
        );
        node.set_labels(labels(&[("kernel", "any"), ("team", "a")]));
        assert_eq!(node.labels, labels(&[("kernel", "any"), ("team", "a")]));
        node.say_labels(labels(&[("kernel", "6.1")]));
        assert_eq!(node.labels, labels(&[("kernel", "any"), ("team", "a")]));
    }

    #[test]
    fn what_a_node_no_longer_says_is_gone_and_the_operators_labels_stay() {
        let mut node = node(&[("env", "staging")]);
        node.say_labels(labels(&[("kernel", "6.1")]));
        node.say_labels(labels(&[]));
        assert_eq!(node.labels, labels(&[("env", "staging")]));
        assert_eq!(node.labels_set().count(), 1);
    }

    #[test]
    fn a_tunnel_is_an_address_without_host_and_port() {
        let addr = NodeAddr::parse("tunnel").unwrap();
        assert_eq!(
            (addr.dialled(), addr.to_string().as_str()),
            (None, "tunnel")
        );
        assert_eq!(NodeAddr::parse("tunnel:22").unwrap().host(), Some("tunnel"));
    }
}
