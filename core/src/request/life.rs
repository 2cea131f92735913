//! Transitions: every pair of state and action has an answer.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::duration::format_instant;
use crate::id::{KeyFingerprint, RequestId, RoleName, UserName};

use super::overriding::overridden;
use super::terms::{TermsError, check_terms, granted};
use super::{AccessRequest, Actor, Annotations, Resolution, State, Terms};

/// Something done to a request, besides a review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// An administrator approves without counting reviews.
    Approve {
        /// On these terms.
        terms: Terms,
        /// Why.
        reason: String,
    },
    /// An administrator who may write roles approves with roles that were not asked for. That he
    /// may is for [`super::check_override`] to say.
    Override {
        /// Through these roles instead.
        roles: BTreeSet<RoleName>,
        /// On these terms, which name no roles.
        terms: Terms,
        /// Why.
        reason: String,
    },
    /// An administrator denies; an approved request is revoked by it.
    Deny {
        /// Why.
        reason: String,
    },
    /// The requester withdraws it while it is pending.
    Cancel,
    /// An administrator takes back what it granted.
    Revoke {
        /// Why.
        reason: String,
    },
    /// Its time is over.
    Expire,
    /// The requester sets it aside for one key.
    Drop {
        /// The key.
        key: KeyFingerprint,
    },
    /// The requester takes it up with a key of hers, new to it or one that set it aside.
    Assume {
        /// The key, registered for the requester: the caller has proof of that.
        key: KeyFingerprint,
    },
    /// The requester gives up for good what it granted.
    End,
}

impl Action {
    /// What the action is called, in the participle.
    #[must_use]
    pub const fn as_participle(&self) -> &'static str {
        match self {
            Self::Approve { .. } => "approved",
            Self::Override { .. } => "approved with other roles",
            Self::Deny { .. } => "denied",
            Self::Cancel => "canceled",
            Self::Revoke { .. } => "revoked",
            Self::Expire => "expired",
            Self::Drop { .. } => "dropped",
            Self::Assume { .. } => "assumed",
            Self::End => "ended",
        }
    }
}

/// Why an action was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransitionError {
    /// The state has no such way out.
    #[error("request {id} is {state} and can't be {action}{}", next_step(*.state, .action))]
    NotPossible {
        /// The request.
        id: RequestId,
        /// Its state.
        state: State,
        /// What was tried, in the participle.
        action: &'static str,
    },
    /// Only the requester does this.
    #[error("request {id} was filed by {user}; only its requester can have it {action}")]
    NotYours {
        /// The request.
        id: RequestId,
        /// Who filed it.
        user: UserName,
        /// What was tried, in the participle.
        action: &'static str,
    },
    /// The requester tried to decide it.
    #[error("nobody decides a request of their own; ask a colleague to review {0}")]
    OwnRequest(RequestId),
    /// Somebody was to decide it on the requester's behalf.
    #[error(
        "nobody decides a request of their own, and nobody else does it on their behalf: {0} is `{1}`'s"
    )]
    OwnDelegator(RequestId, UserName),
    /// Only the clock expires requests, and the clock does nothing else.
    #[error("{actor} can't have request {id} {action}")]
    WrongActor {
        /// The request.
        id: RequestId,
        /// Who tried.
        actor: String,
        /// What was tried, in the participle.
        action: &'static str,
    },
    /// Its time ran out; nothing but expiry can follow.
    #[error("request {id} expired at {}; file a new one", format_instant(*.at))]
    Over {
        /// The request.
        id: RequestId,
        /// When.
        at: OffsetDateTime,
    },
    /// Its time has not run out.
    #[error("request {id} does not expire before {}", format_instant(*.at))]
    NotYet {
        /// The request.
        id: RequestId,
        /// When.
        at: OffsetDateTime,
    },
    /// The key does not hold it.
    #[error("request {0} is not in effect for this key; there is nothing to drop")]
    NotHeld(RequestId),
    /// The key holds it already.
    #[error("request {0} is in effect for this key already")]
    AlreadyHeld(RequestId),
    /// The terms of an approval are wider than the request.
    #[error(transparent)]
    Terms(#[from] TermsError),
}

/// What to do instead, where there is something.
fn next_step(state: State, action: &str) -> &'static str {
    match (state, action) {
        (State::Pending, "revoked") => "; deny it instead",
        (State::Pending, "dropped" | "ended") => "; cancel it with `request cancel ID`",
        (State::Pending, "assumed") => "; it has to be approved first",
        (State::Approved, "canceled") => "; give it up with `request drop ID --end`",
        (
            State::Denied | State::Expired | State::Canceled | State::Revoked,
            "approved" | "approved with other roles" | "assumed" | "dropped",
        ) => "; what it was for can be asked for anew with `request create`",
        (
            State::Pending
            | State::Approved
            | State::Denied
            | State::Expired
            | State::Canceled
            | State::Revoked,
            _,
        ) => "",
    }
}

/// Does `action` to `request`, by `by`.
///
/// That `by` may act as an administrator (`Approve`, `Deny`, `Revoke`) is the caller's to check,
/// with [`crate::admin::allowed`]; that nobody decides his own request is checked here.
///
/// # Errors
/// [`TransitionError`] if the state, the time or the person forbids it.
pub fn apply(
    request: &AccessRequest,
    action: &Action,
    by: &Actor,
    now: OffsetDateTime,
) -> Result<AccessRequest, TransitionError> {
    apply_for(request, action, by, &Mandate::default(), now)
}

/// What an administrator says about a decision beside the decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mandate {
    /// On whose behalf, who is never the requester. It is a record; it gives no right.
    pub delegator: Option<UserName>,
    /// Attributes to keep with the decision.
    pub annotations: Annotations,
}

/// Does `action` as [`apply`] does, and records the `mandate` with the decision.
///
/// # Errors
/// As [`apply`], and [`TransitionError::OwnDelegator`].
pub fn apply_for(
    request: &AccessRequest,
    action: &Action,
    by: &Actor,
    mandate: &Mandate,
    now: OffsetDateTime,
) -> Result<AccessRequest, TransitionError> {
    if let Some(delegator) = &mandate.delegator
        && delegator
            .as_str()
            .eq_ignore_ascii_case(request.user.as_str())
    {
        return Err(TransitionError::OwnDelegator(
            request.id,
            request.user.clone(),
        ));
    }
    let mut next = transition(request, action, by, now)?;
    if let Some(resolved) = &mut next.resolved {
        match action {
            Action::Approve { .. }
            | Action::Override { .. }
            | Action::Deny { .. }
            | Action::Revoke { .. } => {
                resolved.delegator.clone_from(&mandate.delegator);
                resolved.annotations.clone_from(&mandate.annotations);
            }
            Action::Cancel
            | Action::Expire
            | Action::Drop { .. }
            | Action::Assume { .. }
            | Action::End => {}
        }
    }
    Ok(next)
}

fn transition(
    request: &AccessRequest,
    action: &Action,
    by: &Actor,
    now: OffsetDateTime,
) -> Result<AccessRequest, TransitionError> {
    check_actor(request, action, by)?;
    let id = request.id;
    let not_possible = || TransitionError::NotPossible {
        id,
        state: request.state,
        action: action.as_participle(),
    };
    let next = request.clone();
    match (request.state, action) {
        // Time comes first: at its deadline a request is over, whoever wants what of it.
        (State::Pending, Action::Expire) => expire(next, request.request_expires, by, now),
        (State::Approved, Action::Expire) => expire(next, request.access_expires, by, now),
        (State::Pending, _) if now >= request.request_expires => Err(TransitionError::Over {
            id,
            at: request.request_expires,
        }),
        (State::Approved, _) if now >= request.access_expires => Err(TransitionError::Over {
            id,
            at: request.access_expires,
        }),

        (State::Pending, Action::Approve { terms, reason }) => {
            check_terms(request, terms, now)?;
            Ok(granted(
                next,
                terms,
                BTreeSet::new(),
                by.clone(),
                reason,
                now,
            )?)
        }
        (
            State::Pending,
            Action::Override {
                roles,
                terms,
                reason,
            },
        ) => Ok(overridden(next, roles, terms, by.clone(), reason, now)?),
        (State::Pending, Action::Deny { reason }) => {
            Ok(resolved(next, State::Denied, by.clone(), reason, now))
        }
        (State::Pending, Action::Cancel) => {
            Ok(resolved(next, State::Canceled, by.clone(), "", now))
        }
        // Nothing was granted that could be taken back, set aside, taken up or given up.
        (
            State::Pending,
            Action::Revoke { .. } | Action::Drop { .. } | Action::Assume { .. } | Action::End,
        ) => Err(not_possible()),

        // Turning an approval into a denial is a revocation: live sessions end.
        (State::Approved, Action::Deny { reason } | Action::Revoke { reason }) => {
            Ok(resolved(next, State::Revoked, by.clone(), reason, now))
        }
        (State::Approved, Action::End) => Ok(resolved(next, State::Revoked, by.clone(), "", now)),
        (State::Approved, Action::Drop { key }) => set_aside(next, key),
        (State::Approved, Action::Assume { key }) => assume(next, key),
        // An approval is not approved again, and there is no pending request left to withdraw.
        (State::Approved, Action::Approve { .. } | Action::Override { .. } | Action::Cancel) => {
            Err(not_possible())
        }

        // Final: nothing revives what is over.
        (
            State::Denied | State::Expired | State::Canceled | State::Revoked,
            Action::Approve { .. }
            | Action::Override { .. }
            | Action::Deny { .. }
            | Action::Cancel
            | Action::Revoke { .. }
            | Action::Expire
            | Action::Drop { .. }
            | Action::Assume { .. }
            | Action::End,
        ) => Err(not_possible()),
    }
}

fn check_actor(
    request: &AccessRequest,
    action: &Action,
    by: &Actor,
) -> Result<(), TransitionError> {
    let id = request.id;
    let own = *by == Actor::User(request.user.clone());
    let wrong = || TransitionError::WrongActor {
        id,
        actor: by.to_string(),
        action: action.as_participle(),
    };
    match action {
        Action::Expire => match by {
            Actor::Clock => Ok(()),
            Actor::User(_) | Actor::LocalAdministrator | Actor::Rule(_) => Err(wrong()),
        },
        Action::Approve { .. } | Action::Override { .. } | Action::Deny { .. } if own => {
            Err(TransitionError::OwnRequest(id))
        }
        Action::Approve { .. }
        | Action::Override { .. }
        | Action::Deny { .. }
        | Action::Revoke { .. } => match by {
            Actor::User(_) | Actor::LocalAdministrator => Ok(()),
            // A rule gives reviews, which are counted.
            Actor::Rule(_) | Actor::Clock => Err(wrong()),
        },
        Action::Cancel | Action::Drop { .. } | Action::Assume { .. } | Action::End if own => Ok(()),
        Action::Cancel | Action::Drop { .. } | Action::Assume { .. } | Action::End => {
            Err(TransitionError::NotYours {
                id,
                user: request.user.clone(),
                action: action.as_participle(),
            })
        }
    }
}

fn expire(
    request: AccessRequest,
    at: OffsetDateTime,
    by: &Actor,
    now: OffsetDateTime,
) -> Result<AccessRequest, TransitionError> {
    if now < at {
        return Err(TransitionError::NotYet { id: request.id, at });
    }
    Ok(resolved(request, State::Expired, by.clone(), "", now))
}

fn set_aside(
    mut request: AccessRequest,
    key: &KeyFingerprint,
) -> Result<AccessRequest, TransitionError> {
    if !request.is_held_by(key) {
        return Err(TransitionError::NotHeld(request.id));
    }
    request.set_aside.insert(key.clone());
    Ok(request)
}

fn assume(
    mut request: AccessRequest,
    key: &KeyFingerprint,
) -> Result<AccessRequest, TransitionError> {
    if request.is_held_by(key) {
        return Err(TransitionError::AlreadyHeld(request.id));
    }
    request.set_aside.remove(key);
    if request.key.as_ref() != Some(key) {
        request.assumed_by.insert(key.clone());
    }
    Ok(request)
}

pub(super) fn resolved(
    mut request: AccessRequest,
    state: State,
    by: Actor,
    reason: &str,
    now: OffsetDateTime,
) -> AccessRequest {
    request.state = state;
    request.resolved = Some(Resolution {
        at: now,
        by,
        reason: reason.to_owned(),
        delegator: None,
        annotations: Annotations::new(),
    });
    request
}
