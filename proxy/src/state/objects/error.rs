//! Why nothing was written, changed or removed, in sentences that say what to do.

use anteroom_core::admin::{AdminResource, AdminVerb};
use anteroom_core::id::{KeyFingerprint, NodeName, RoleName, UserName};
use anteroom_core::node::SetLabelError;
use thiserror::Error;

use super::ObjectId;
use crate::state::locks::LockError;
use crate::state::monitoring::TooManyRules;
use crate::state::tokens::TokenError;
use crate::state::{FromNode, NotAdmitted};
use crate::store::StoreError;

/// Why somebody may not change what administrators keep.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("your roles don't allow `{}` on `{}`; an administrator can do it", verb.as_str(), resource.as_str())]
pub struct NotAllowed {
    /// What was to be done.
    pub verb: AdminVerb,
    /// With what.
    pub resource: AdminResource,
}

/// Why nothing was written.
#[derive(Debug, Error)]
pub enum PutError {
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// The administrator's roles don't allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// It is there already.
    #[error("{id} already exists; replace it with --force{more}", id = .0, more = or_update(.0))]
    Exists(ObjectId),
    /// A user is to have a role that there is none of.
    #[error(
        "user `{user}` cannot have role `{role}`: there is no such role; create it first, or see `get role`"
    )]
    UnknownRole {
        /// The user.
        user: UserName,
        /// The role.
        role: RoleName,
    },
    /// A key belongs to one user.
    #[error(
        "key {key} belongs to user `{owner}` already, and cannot be `{user}`'s as well; use another key"
    )]
    KeyTaken {
        /// The key.
        key: KeyFingerprint,
        /// Whose it is to be.
        user: UserName,
        /// Whose it is.
        owner: UserName,
    },
    /// A key is listed twice.
    #[error("key {key} is listed twice for user `{user}`")]
    KeyTwice {
        /// The key.
        key: KeyFingerprint,
        /// The user.
        user: UserName,
    },
    /// Nobody may be called so.
    #[error("user name `{user}` is reserved: {why}; choose another name")]
    ReservedName {
        /// The user.
        user: UserName,
        /// What the name is for.
        why: &'static str,
    },
    /// The name would be read as a target.
    #[error(
        "user name `{user}` would read as a login on node `{node}`; choose another name for one of them"
    )]
    ReadsAsTarget {
        /// The user.
        user: UserName,
        /// The node.
        node: NodeName,
    },
    /// Too many labels, or too long ones.
    #[error("{id}: {why}")]
    Labels {
        /// What was to have them.
        id: ObjectId,
        /// What is wrong.
        why: SetLabelError,
    },
    /// The lock cannot be.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The token cannot be.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There are too many access monitoring rules.
    #[error(transparent)]
    TooManyRules(#[from] TooManyRules),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an object was not changed.
#[derive(Debug, Error)]
pub enum UpdateError<E> {
    /// There is none of that name.
    #[error("there is no {0}")]
    NoSuch(ObjectId),
    /// What was to be done with it is not possible.
    #[error("{0}")]
    Refused(E),
    /// What came out cannot be stored.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl<E> From<StoreError> for UpdateError<E> {
    fn from(error: StoreError) -> Self {
        Self::Put(PutError::Store(error))
    }
}

/// Why an object was not removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// The administrator's roles don't allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// There is none of that name.
    #[error("there is no {0}")]
    NoSuch(ObjectId),
    /// Users have the role.
    #[error("role `{role}` is in use by {}; take it from them with `users update --roles` first", listed(.users))]
    RoleInUse {
        /// The role.
        role: RoleName,
        /// Who has it.
        users: Vec<UserName>,
    },
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names in an error; a few say enough.
fn listed(users: &[UserName]) -> String {
    const SHOWN: usize = 8;
    let mut text = users
        .iter()
        .take(SHOWN)
        .map(|user| format!("`{user}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if users.len() > SHOWN {
        text.push_str(&format!(" and {} more", users.len() - SHOWN));
    }
    text
}

/// The other way to change what is there, where there is one.
fn or_update(id: &ObjectId) -> &'static str {
    match id {
        ObjectId::User(_) => ", or change it with `users update`",
        ObjectId::Node(_) => ", or change it with `nodes update`",
        ObjectId::Role(_)
        | ObjectId::Lock(_)
        | ObjectId::Token(_)
        | ObjectId::MonitoringRule(_)
        | ObjectId::Resource(..) => "",
    }
}
