//! The certificate authorities: where their keys are, which one signs, and which ones are trusted.
//!
//! ```text
//!  Keyring ── files, passphrase, ssh-agent ──► Authorities ──► State: signs inside its transactions
//!     ▲                                            ▲
//!     └────────────── Rotator: announce, sign, retire, rollback
//! ```
//!
//! Each authority is in a [`Stage`]. One key signs; during a rotation a second one is trusted beside it. The
//! database holds the stage and the public halves; the files follow it (see `files`).

mod agent;
mod files;
mod keyring;
mod passphrase;
mod rotate;

use std::fmt;
use std::sync::Arc;

use anteroom_ca::authority::Authority as Kind;
use anteroom_ca::key::{HostCa, NodeCa, UserCa, fingerprint};
use ssh_key::PublicKey;
use thiserror::Error;
use time::OffsetDateTime;

pub use agent::{CaAgent, CaAgentError};
pub use files::FilesError;
pub use keyring::{Keyring, KeyringError, Place, Places};
pub use passphrase::{PassphraseSource, PassphraseUnavailable};
pub(crate) use rotate::Turn;
pub use rotate::{RotateError, Rotated, Rotator, Step, Wish};

/// Which authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorityKind {
    /// Signs identity certificates.
    User,
    /// Signs access certificates.
    Node,
    /// Signs host certificates.
    Host,
}

impl AuthorityKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::User, Self::Node, Self::Host];

    /// As commands, files and the database have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Node => "node",
            Self::Host => "host",
        }
    }

    /// What [`AuthorityKind::as_str`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far the rotation of an authority is, with the key that is trusted beside the one that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// None is under way.
    Stable,
    /// The next key is there to be learnt by whoever has to trust it; the old one signs.
    Announced {
        /// The next key.
        next: PublicKey,
    },
    /// The new key signs; what the old one has signed is still good.
    Signing {
        /// The old key.
        previous: PublicKey,
    },
}

impl Stage {
    /// As `auth status` and the database have it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Announced { .. } => "announce",
            Self::Signing { .. } => "sign",
        }
    }

    /// The key beside the one that signs.
    #[must_use]
    pub fn other(&self) -> Option<&PublicKey> {
        match self {
            Self::Stable => None,
            Self::Announced { next } => Some(next),
            Self::Signing { previous } => Some(previous),
        }
    }
}

/// What the database remembers of an authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which one.
    pub kind: AuthorityKind,
    /// The key that signs.
    pub signing: PublicKey,
    /// How far its rotation is.
    pub stage: Stage,
    /// Since when.
    pub since: OffsetDateTime,
}

impl Record {
    /// Every key that is trusted now, the one that signs first.
    #[must_use]
    pub fn trusted(&self) -> Vec<PublicKey> {
        let other = self.stage.other();
        std::iter::once(&self.signing)
            .chain(other)
            .cloned()
            .collect()
    }

    /// The key that nodes and people have to learn during a rotation.
    #[must_use]
    pub fn newest(&self) -> &PublicKey {
        match &self.stage {
            Stage::Announced { next } => next,
            Stage::Stable | Stage::Signing { .. } => &self.signing,
        }
    }
}

/// A key that was an authority's and is trusted no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retired {
    /// Whose it was.
    pub kind: AuthorityKind,
    /// The key.
    pub key: PublicKey,
    /// Since when.
    pub at: OffsetDateTime,
}

/// An authority at work.
#[derive(Debug)]
pub struct Authority<C> {
    /// What the database has of it.
    pub record: Record,
    signer: Signer<C>,
    next: Option<Signer<C>>,
}

// Not derived: that would want `C: Clone`, and a key is never copied.
impl<C> Clone for Authority<C> {
    fn clone(&self) -> Self {
        Self {
            record: self.record.clone(),
            signer: self.signer.clone(),
            next: self.next.clone(),
        }
    }
}

impl<C: Kind> Authority<C> {
    /// An authority whose key is here, in no rotation.
    pub fn stable(kind: AuthorityKind, ca: C, since: OffsetDateTime) -> Self {
        let record = Record {
            kind,
            signing: ca.public().clone(),
            stage: Stage::Stable,
            since,
        };
        Self {
            record,
            signer: Signer::Here(Arc::new(ca)),
            next: None,
        }
    }

    /// Has an agent sign with this key.
    #[cfg(test)]
    pub(crate) fn sign_in_agent(&mut self, key: PublicKey) {
        self.record.signing = key.clone();
        self.signer = Signer::Agent(key);
    }

    /// Who signs.
    pub(crate) fn signer(&self) -> &Signer<C> {
        &self.signer
    }

    /// Who is going to, while it is announced.
    pub(crate) fn next(&self) -> Option<&Signer<C>> {
        self.next.as_ref()
    }
}

/// Who signs for an authority.
#[derive(Debug)]
pub(crate) enum Signer<C> {
    /// The key is in this process.
    Here(Arc<C>),
    /// An ssh-agent has it.
    Agent(PublicKey),
}

impl<C> Clone for Signer<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Here(ca) => Self::Here(Arc::clone(ca)),
            Self::Agent(key) => Self::Agent(key.clone()),
        }
    }
}

/// All authorities, as of the last commit.
#[derive(Debug, Clone)]
pub struct Authorities {
    /// Signs identity certificates.
    pub user: Authority<UserCa>,
    /// Signs access certificates.
    pub node: Authority<NodeCa>,
    /// Signs host certificates.
    pub host: Authority<HostCa>,
    /// What is trusted no more.
    pub retired: Vec<Retired>,
    /// Signs where the key is not here.
    pub agent: Option<Arc<CaAgent>>,
}

impl Authorities {
    /// Authorities whose keys are here, in no rotation.
    #[must_use]
    pub fn stable(user: UserCa, node: NodeCa, host: HostCa, since: OffsetDateTime) -> Self {
        Self {
            user: Authority::stable(AuthorityKind::User, user, since),
            node: Authority::stable(AuthorityKind::Node, node, since),
            host: Authority::stable(AuthorityKind::Host, host, since),
            retired: Vec::new(),
            agent: None,
        }
    }

    /// What the database has of one.
    #[must_use]
    pub fn record(&self, kind: AuthorityKind) -> &Record {
        match kind {
            AuthorityKind::User => &self.user.record,
            AuthorityKind::Node => &self.node.record,
            AuthorityKind::Host => &self.host.record,
        }
    }

    /// The keys of an authority that are trusted no more.
    #[must_use]
    pub fn retired_of(&self, kind: AuthorityKind) -> Vec<PublicKey> {
        let of = self.retired.iter().filter(|retired| retired.kind == kind);
        of.map(|retired| retired.key.clone()).collect()
    }

    /// Whether a key was an authority's and is trusted no more.
    #[must_use]
    pub fn is_retired(&self, key: &PublicKey) -> bool {
        is_retired(&self.retired, key)
    }
}

pub(crate) fn is_retired(retired: &[Retired], key: &PublicKey) -> bool {
    let same = |retired: &Retired| retired.key.key_data() == key.key_data();
    retired.iter().any(same)
}

/// `SHA256:…`, as the database and people have it.
pub(crate) fn print(key: &PublicKey) -> String {
    fingerprint(key).to_string()
}

/// No certificate can be signed now. For whoever connects; why is in the proxy's log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "certificate authority unavailable: the key of the {0} CA does not sign at the moment; try again, and tell an administrator, who finds the reason in the proxy's log"
)]
pub struct Unavailable(pub AuthorityKind);
