//! What the node agent and the proxy say to each other beside SSH.
//!
//! The agent connects as `node+NAME` with its host key and asks for its one remote forward, as a plain
//! `ssh -N -R 0:localhost:22` does. Sessions for the node then come as `forwarded-tcpip` channels, each of
//! which is an SSH connection of its own. Beside it the agent opens one session channel with the subsystem
//! [`SUBSYSTEM`], and both sides write messages on it: JSON objects, one a line, of at most
//! [`LONGEST_LINE`] bytes. A message of an unknown kind is skipped, so that either side may be newer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The subsystem of the control channel.
pub const SUBSYSTEM: &str = "anteroom-node";

/// Bytes of one message with its line's end. A revocation list is the longest thing that is said.
pub const LONGEST_LINE: usize = 4 << 20;

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum FromNode {
    /// First, once: who is there.
    Hello {
        /// The agent's version.
        version: String,
        /// What the node says of itself.
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    /// Every [`Welcome::heartbeat_seconds`](FromProxy::Welcome): still there.
    Heartbeat {
        /// All labels, in the place of those that were said before.
        #[serde(default)]
        labels: BTreeMap<String, String>,
    },
    /// A host certificate is wanted for this public key, a line of OpenSSH's format. It is the key that the
    /// connection was made with, or one that takes its place as soon as the answer has been sent.
    Renew {
        /// The key.
        key: String,
    },
    /// Something this side does not know.
    #[serde(other)]
    Unknown,
}

/// What the proxy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "say")]
pub enum FromProxy {
    /// The answer to [`FromNode::Hello`].
    Welcome {
        /// The node's UUID.
        node_id: String,
        /// The cluster's name.
        cluster: String,
        /// How often a heartbeat is wanted.
        heartbeat_seconds: u64,
    },
    /// Whom to trust from now on; said after the welcome and whenever it changes.
    Authorities {
        /// Node CAs: what they sign opens sessions. Lines of OpenSSH's public format, never empty.
        node_ca: Vec<String>,
        /// Host CAs: what they sign is a proxy of this cluster.
        host_ca: Vec<String>,
    },
    /// The revocation list, as `auth export --type krl` writes it, in base64.
    Revoked {
        /// The list.
        krl: String,
    },
    /// The answer to [`FromNode::Renew`].
    HostCertificate {
        /// A line of OpenSSH's certificate format.
        certificate: String,
    },
    /// What was asked for is refused. The connection goes on.
    Refused {
        /// Why, in a sentence.
        why: String,
    },
    /// Something this side does not know.
    #[serde(other)]
    Unknown,
}

/// What `node join` gets for its token: the answer, on standard output, to the command
/// `join NAME [KEY=VALUE …]` of user `enroll`, whose standard input is the token and the public host key, a
/// line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The node's UUID.
    pub node_id: String,
    /// The name it was registered by.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// Node CAs, as in [`FromProxy::Authorities`].
    pub node_ca: Vec<String>,
    /// Host CAs, as there.
    pub host_ca: Vec<String>,
    /// The certificate for the host key that was sent.
    pub host_certificate: String,
    /// The revocation list, as in [`FromProxy::Revoked`].
    pub krl: String,
}
