//! Tokens: what lets a node in without an operator at its side.
//!
//! A token is a secret that an administrator hands to a machine, with what the machine may become by it. The
//! secret itself is never here, only its hash. What a token does when it is used is in [`crate::enrol`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::id::{NodeId, NodeName, TokenId};
use crate::node::NodeAddr;

/// The most tokens that are kept at a time, used ones included: more than one operator has machines to set up at
/// once, and a bound on what every use looks through.
pub const MOST_TOKENS: usize = 1000;

/// The most uses of one token: a large fleet that is set up from one image.
pub const MOST_USES: u32 = 10_000;

/// How long a token lives at most. A secret that lies about for longer is found by somebody.
pub const LONGEST_LIFE: Duration = Duration::days(7);

/// How long it lives where nothing is said.
pub const USUAL_LIFE: Duration = Duration::hours(1);

/// How long a token is kept after its end: so long whoever comes late is told that it is over.
pub const KEPT_AFTER: Duration = Duration::hours(1);

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// A machine becomes a node.
    Node,
}

impl TokenKind {
    /// The word in a document, an option and the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
        }
    }
}

impl fmt::Display for TokenKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A token, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What `tokens rm` takes. It opens nothing.
    pub id: TokenId,
    /// What it is for.
    pub kind: TokenKind,
    /// The one name that a node may take by it; without it nodes name themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The one address that a node gets by it; without it a node is where it comes from, or where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<NodeAddr>,
    /// Labels of what comes in by it. They win over what the node says.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How often it may be used in all.
    pub uses: u32,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// Who made it.
    pub created_by: String,
    /// When it ends (exclusive).
    #[serde(with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
    /// Lower-case hexadecimal SHA-256 of the secret.
    #[serde(skip)]
    pub secret_sha256: String,
    /// How often it may still be used.
    #[serde(skip)]
    pub uses_left: u32,
    /// Which nodes came in by it.
    #[serde(skip)]
    pub enrolled: Vec<NodeId>,
}

impl Token {
    /// Whether its time is not over.
    #[must_use]
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        now < self.expires
    }

    /// The same after `node` has come in by it.
    #[must_use]
    pub fn used_by(&self, node: NodeId) -> Self {
        let mut used = self.clone();
        used.uses_left = used.uses_left.saturating_sub(1);
        used.enrolled.push(node);
        used
    }
}
