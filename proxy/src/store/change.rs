//! What can be written: one value for each kind of change, decided elsewhere. How each is written is for
//! the statements of `write` to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_core::allowance::Allowance;
use anteroom_core::id::{
    AllowanceId, DeviceName, KeyFingerprint, LockId, NodeId, RequestId, ResourceName, RoleName,
    RuleName, SessionId, TokenId, UserName,
};
use anteroom_core::lock::Lock;
use anteroom_core::mfa::{Device, Failures};
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::Node;
use anteroom_core::request::{AccessRequest, State as RequestState};
use anteroom_core::resource::{Kind as ResourceKind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use time::OffsetDateTime;

use super::{Learnt, NodeSource, SeenNode};
use crate::audit::Entry;
use crate::authority::{AuthorityKind, Record, Retired};

/// One thing to write. What is decided in `core` arrives here as values.
#[derive(Debug, Clone)]
pub enum Change {
    /// Creates the role or replaces it.
    PutRole(Arc<Role>),
    /// Removes the role; the database refuses while a user has it.
    RemoveRole(RoleName),
    /// Creates the user or replaces it, roles and keys included.
    PutUser(Arc<User>),
    /// Takes the user's keys away, ahead of a `PutUser` of the same transaction: a key that moves
    /// from one user to another may be written to its new owner first.
    ReleaseKeys(UserName),
    /// Removes the user.
    RemoveUser(UserName),
    /// Registers the node or replaces it.
    PutNode(Arc<Node>),
    /// Removes the node.
    RemoveNode(NodeId),
    /// Makes the lock or replaces it.
    PutLock(Arc<Lock>),
    /// Removes the lock.
    RemoveLock(LockId),
    /// Registers the resource or replaces it.
    PutResource(Arc<Resource>),
    /// Removes the resource.
    RemoveResource(ResourceKind, ResourceName),
    /// Makes the access monitoring rule or replaces it.
    PutMonitoringRule(Arc<MonitoringRule>),
    /// Removes the access monitoring rule.
    RemoveMonitoringRule(RuleName),
    /// Writes a token.
    AddToken(Arc<Token>),
    /// Removes the token.
    RemoveToken(TokenId),
    /// Takes one use of a token that has one left and has not ended, for a node.
    UseToken {
        /// The token.
        token: TokenId,
        /// The node that came in by it.
        node: NodeId,
        /// Where it came from.
        from: SocketAddr,
    },
    /// Writes a pre-approval.
    PutAllowance(Arc<Allowance>),
    /// Removes the pre-approval.
    RemoveAllowance(AllowanceId),
    /// Writes a request that was just filed.
    FileRequest(Arc<AccessRequest>),
    /// Replaces a request, if it still is as it was when the decision was made.
    UpdateRequest {
        /// The request as it is to be.
        request: Arc<AccessRequest>,
        /// The state it was in.
        from: RequestState,
        /// The revision that the decision was made on.
        revision: i64,
    },
    /// Records a certificate, together with its `cert.create` entry.
    Issue(Box<Issuance>, Box<Entry>),
    /// Takes back an identity certificate, which counted until now.
    RevokeIdentity {
        /// Its serial number.
        serial: u64,
        /// Why.
        why: String,
    },
    /// Revokes host certificates of a node. Which, is known when it is done: then they are added to
    /// the entry's reason, and it is logged. Where there are none nothing is.
    RevokeHosts(Box<HostRevocation>, Box<Entry>),
    /// Adds a device that makes codes.
    AddDevice(UserName, Box<Device>),
    /// Spends the codes of a device up to a time step, if it is as it was when the decision was made.
    SpendStep {
        /// Whose it is.
        user: UserName,
        /// The device as it is to be.
        device: Box<Device>,
        /// The last step that was spent before.
        from: u64,
    },
    /// Removes a device.
    RemoveDevice(UserName, DeviceName),
    /// Writes down how often a user has guessed wrong; `None` forgets it.
    SetFailures(UserName, Option<Failures>),
    /// Records that a session began, together with its `session.start` entry.
    StartSession(Box<SessionStart>, Box<Entry>),
    /// Records that a session ended, together with its `session.end` entry. A session that has
    /// ended already stays as it is, and nothing is logged twice.
    EndSession(SessionEnd, Box<Entry>),
    /// Writes down how an authority is now.
    PutAuthority(Box<Record>),
    /// Forgets how an authority was, ahead of a `PutAuthority` that does not follow from it.
    ForgetAuthority(AuthorityKind),
    /// A key is no authority any more.
    RetireAuthority(Box<Retired>),
    /// A node is known to go by a key.
    NoteLearnt(Box<Learnt>),
    /// Writes down when nodes were last there, and from where they were connected.
    NotePresence(Vec<SeenNode>, Vec<NodeSource>),
    /// Logs something that changes nothing else.
    Log(Box<Entry>),
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One login on one node, by the node CA.
    Node,
    /// A host's name, by the host CA.
    Host,
    /// A person, by the user CA.
    User,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Host => "host",
            Self::User => "user",
        }
    }
}

/// A certificate as it is remembered.
#[derive(Debug, Clone)]
pub struct Issuance {
    /// Its serial number, never 0.
    pub serial: u64,
    /// What it is for.
    pub kind: Kind,
    /// Whose it is; `None` for a host.
    pub user: Option<UserName>,
    /// Its key id.
    pub key_id: String,
    /// Its principals.
    pub principals: Vec<String>,
    /// The fingerprint of the key it certifies.
    pub subject: String,
    /// The fingerprint of the authority that signed it.
    pub authority: String,
    /// The request under which it was issued.
    pub request: Option<RequestId>,
    /// The session it is for.
    pub session: Option<SessionId>,
    /// The node it opens.
    pub node: Option<NodeId>,
    /// The login it opens.
    pub login: Option<String>,
    /// Lower-case hexadecimal SHA-256 of the certificate's binary form.
    pub sha256: String,
    /// From when it is valid.
    pub valid_after: OffsetDateTime,
    /// Until when it is valid (exclusive).
    pub valid_before: OffsetDateTime,
    /// The key that the user came with, where a node's certificate is for another one.
    pub login_key: Option<KeyFingerprint>,
    /// The type of a node's host key, as in `ssh-ed25519`.
    pub host_key_type: Option<String>,
    /// What is remembered besides of an identity certificate.
    pub identity: Option<IdentityIssuance>,
}

/// Why host certificates count no more of a node that has another name now. What they say it is called is not
/// certified again.
pub const RENAMED: &str = "the node was renamed";

/// Which host certificates of a node count no more, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRevocation {
    /// The node.
    pub node: NodeId,
    /// Those for a key that is not among these, as fingerprints.
    pub but_for: Vec<String>,
    /// Of the keys, those of this type; `None` for any. One of unknown type is of every type.
    pub key_type: Option<String>,
    /// Why.
    pub why: String,
}

/// What is remembered of an identity certificate and of no other.
#[derive(Debug, Clone)]
pub struct IdentityIssuance {
    /// The registered key that the login was made with.
    pub login_key: KeyFingerprint,
    /// The serial number of the certificate that was presented.
    pub presented: Option<u64>,
    /// The certificates that count no more because of it, by their serial numbers, and why.
    pub revokes: BTreeMap<u64, String>,
}

/// A session as it is remembered from its start.
#[derive(Debug, Clone)]
pub struct SessionStart {
    /// Its ID.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserName,
    /// Where it goes.
    pub node: NodeId,
    /// As whom.
    pub login: String,
    /// Under which request, if not under standing access.
    pub request: Option<RequestId>,
    /// What else `sessions ls` shows.
    pub about: serde_json::Value,
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnd {
    /// Which session.
    pub id: SessionId,
    /// When; `None` for now.
    pub at: Option<OffsetDateTime>,
}
