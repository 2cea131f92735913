//! Why access is denied, and to whom that may be said.

use std::collections::BTreeSet;

use crate::id::{Login, RequestId, RoleName};
use crate::lock::LockTarget;

/// Why not, and whether the user may know that the node exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Each on its own is enough. Never empty.
    pub reasons: Vec<Reason>,
    /// Whether the node may be spoken of.
    pub visibility: Visibility,
}

/// Whether the user may know that a node exists: if she can reach it or could ask for it, with
/// any login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Speak of it.
    Visible,
    /// Answer as if it did not exist.
    Hidden,
}

impl Visibility {
    pub(super) const fn from_rule(visible: bool) -> Self {
        if visible { Self::Visible } else { Self::Hidden }
    }
}

impl Denial {
    /// A denial that must not tell whether anything exists.
    pub(super) fn hidden(reason: Reason) -> Self {
        Self {
            reasons: vec![reason],
            visibility: Visibility::Hidden,
        }
    }
}

/// Why access was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is no such user (any more).
    UnknownUser,
    /// The key is not registered for the user (any more).
    UnknownKey,
    /// The user is locked out.
    Locked {
        /// Why, as the administrator wrote.
        message: String,
    },
    /// Something else that the access needs is locked.
    TargetLocked {
        /// What.
        target: LockTarget,
        /// Why, as the administrator wrote.
        message: String,
    },
    /// The identity certificate has ended.
    CertificateEnded,
    /// The identity certificate was revoked, or is none of those that were issued.
    CertificateRevoked {
        /// Why.
        message: String,
    },
    /// The certificate is restricted to resources, and this is not among them.
    NotAllowedByCertificate {
        /// The request in it that restricts it.
        request: Option<RequestId>,
    },
    /// A role demands a certificate, and she came with a plain key.
    CertificateDemanded {
        /// The role.
        role: RoleName,
    },
    /// A role demands a certificate that is pinned to an address, and hers is not.
    PinDemanded {
        /// The role.
        role: RoleName,
    },
    /// A role demands a second factor, and she has not given one.
    SecondFactorDemanded {
        /// The role.
        role: RoleName,
    },
    /// There is no such node.
    UnknownNode,
    /// A role denies the login, everywhere.
    LoginDenied {
        /// The role.
        role: RoleName,
    },
    /// A role denies the node, for every login.
    NodeDenied {
        /// The role.
        role: RoleName,
    },
    /// A role of hers is stored in a form that this version can't read: it denies everything.
    RoleUnreadable {
        /// The role.
        role: RoleName,
    },
    /// No role of the user, and none that she may ask for, grants the node.
    NotGranted,
    /// She has the node or may ask for it, but not with this login.
    LoginNotGranted {
        /// The logins she has there or may ask for. Never empty.
        logins: BTreeSet<Login>,
    },
    /// A standing role would grant it, but the user's roles demand an approved request
    /// (`request_access`), and no role that she may ask for grants it.
    RequestDemanded {
        /// The role that demands it.
        role: RoleName,
    },
    /// An approved request would grant it, but the user may no longer ask for its role.
    NoLongerRequestable {
        /// The request.
        request: RequestId,
        /// The role that may no longer be asked for.
        role: RoleName,
    },
}

/// What people type for a certificate; a plain `>` would empty the old file before ssh has read it.
const GET_CERTIFICATE: &str =
    "c=$(ssh access login) && printf '%s\\n' \"$c\" > ~/.ssh/anteroom-cert.pub";

impl Reason {
    /// One sentence for whoever may know the whole truth: an auditor, an administrator, the log.
    /// What a person without access is told is chosen by [`Denial::visibility`].
    #[must_use]
    pub fn as_sentence(&self) -> String {
        match self {
            Self::UnknownUser => "there is no such user".to_owned(),
            Self::UnknownKey => "the key is not registered for the user".to_owned(),
            Self::Locked { message } if message.is_empty() => "the user is locked".to_owned(),
            Self::Locked { message } => format!("the user is locked: {message}"),
            Self::TargetLocked { target, message } if message.is_empty() => {
                format!("{target} is locked")
            }
            Self::TargetLocked { target, message } => format!("{target} is locked: {message}"),
            Self::CertificateEnded => {
                "your certificate has ended; get another one with `ssh access login`".to_owned()
            }
            Self::CertificateRevoked { message } => format!(
                "your certificate is revoked: {message}; get another one with `ssh access login`"
            ),
            Self::NotAllowedByCertificate { request } => {
                let id = request.map(|id| format!(" {id}")).unwrap_or_default();
                format!(
                    "not in the allowed resources of your certificate; drop the request with \
                     `ssh access request drop{id}`"
                )
            }
            Self::CertificateDemanded { role } => format!(
                "role `{role}` demands a certificate, and you came with a plain key, to which ssh falls back when a \
                 certificate has ended or is refused; log in with `{GET_CERTIFICATE}`"
            ),
            Self::PinDemanded { role } => format!(
                "role `{role}` demands a certificate that is pinned to your address, and yours is not; \
                 log in again with `{GET_CERTIFICATE}`"
            ),
            Self::SecondFactorDemanded { role } => format!(
                "role `{role}` demands a second factor, and this connection has not given one; set one up with \
                 `ssh -t access mfa add` if you have none, then connect again: ssh asks for the code"
            ),
            Self::UnknownNode => "there is no such node".to_owned(),
            Self::LoginDenied { role } => format!("role `{role}` denies the login on every node"),
            Self::RoleUnreadable { role } => format!(
                "role `{role}` can't be read by this version, and denies everything until it is replaced"
            ),
            Self::NodeDenied { role } => format!("role `{role}` denies the node for every login"),
            Self::NotGranted => {
                "no role that the user has or may ask for grants the node".to_owned()
            }
            Self::LoginNotGranted { logins } => {
                let logins: Vec<String> = logins.iter().map(|login| format!("`{login}`")).collect();
                let logins = logins.join(", ");
                format!("no role grants the login there; the logins that can be had are: {logins}")
            }
            Self::RequestDemanded { role } => {
                format!(
                    "role `{role}` demands an approved request (request_access), and no role that the user may ask for grants the node"
                )
            }
            Self::NoLongerRequestable { request, role } => {
                format!(
                    "request {request} is approved, but the user may no longer ask for role `{role}`"
                )
            }
        }
    }
}
