//! What an identity certificate says of its holder, in the words of the domain.
//!
//! Values only: reading them out of a certificate, and knowing that it is genuine, is `ca::user`'s part. A
//! credential limits its holder and never gives her more than she has: every decision takes it together with
//! what is stored now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use time::OffsetDateTime;

use crate::id::{ClusterName, KeyFingerprint, Login, RequestId, ResourceId, RoleName, UserName};

/// Which resources a certificate opens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AllowedResources {
    /// Whatever its roles open.
    Unrestricted,
    /// Of that only these. An empty set is nothing at all.
    Only(BTreeSet<ResourceId>),
}

impl AllowedResources {
    /// Whether `login` on the node with the UUID `node`, canonically written, is not left out.
    pub(crate) fn includes(&self, cluster: &ClusterName, node: &str, login: &Login) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Only(ids) => ids.iter().any(|id| id.includes(cluster, node, login)),
        }
    }

    /// Whether a resource that is no node is not left out.
    #[must_use]
    pub fn covers(&self, id: &ResourceId) -> bool {
        match self {
            Self::Unrestricted => true,
            Self::Only(ids) => ids.iter().any(|listed| listed.covers(id)),
        }
    }
}

/// What an identity certificate carries in extensions of Anteroom's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claims {
    /// The roles, standing ones and those of the requests.
    pub roles: BTreeSet<RoleName>,
    /// The traits at the login, for people and other programs; decisions take the stored ones.
    pub traits: BTreeMap<String, BTreeSet<String>>,
    /// The access requests in effect.
    pub requests: BTreeSet<RequestId>,
    /// What of it all may be opened.
    pub allowed: AllowedResources,
    /// The one address it may be used from, if it is pinned.
    pub pinned: Option<IpAddr>,
    /// When the login ends: no later certificate of the same login outlives it. Whole seconds.
    pub session_ends: OffsetDateTime,
}

/// An identity certificate as decisions see it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Credential {
    /// Its serial number.
    pub serial: u64,
    /// The certified key, as an OpenSSH line without comment.
    pub subject: String,
    /// Its fingerprint.
    pub key: KeyFingerprint,
    /// When it ends; at that second it is over.
    pub valid_before: OffsetDateTime,
    /// What it says.
    pub claims: Claims,
    /// OpenSSH's own extensions that it has, like `permit-pty`: for people. What a session may do is decided
    /// from the stored roles.
    pub permits: BTreeSet<String>,
}

/// What is remembered of an identity certificate from its issuance to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedCredential {
    /// Its serial number.
    pub serial: u64,
    /// SHA-256 of its binary form.
    pub sha256: [u8; 32],
    /// Whose it is.
    pub user: UserName,
    /// The registered key that the login was made with. What the certificate gives belongs to this key, and
    /// ends with it.
    pub login_key: KeyFingerprint,
    /// The certified key: the login key, or one that was made for an agent.
    pub subject: KeyFingerprint,
    /// When it ends.
    pub valid_before: OffsetDateTime,
    /// Why it counts no more, once it was revoked.
    pub revoked: Option<String>,
}

impl IssuedCredential {
    /// Whether it may count at `now`, as far as it itself says.
    #[must_use]
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        self.revoked.is_none() && now < self.valid_before
    }
}
