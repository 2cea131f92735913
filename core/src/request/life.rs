//! Reviews and transitions: every pair of state and action has an answer.

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use crate::admin::{AdminResource, AdminVerb, allowed};
use crate::duration::{format as format_duration, format_instant};
use crate::id::{Compared, KeyFingerprint, RequestId, ResourceId, RoleName, UserName};
use crate::monitoring::MonitoringRule;
use crate::predicate::ReviewEnv;
use crate::user::User;
use crate::view::View;

use super::tally::{Tally, effect_of, matching_filters, tally};
use super::{
    AccessRequest, Actor, Annotations, Author, DurationFrom, Effect, Granted, Reach, Resolution,
    Review, State, Terms, Verdict,
};

/// What a review did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviewed {
    /// The request with the review, in its new state.
    pub request: AccessRequest,
    /// Whether the review counted.
    pub effect: Effect,
}

/// Why a review was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// There is no such reviewer, or she is locked out.
    #[error("`{0}` may not review: there is no such user, or the user is locked")]
    NoReviewer(UserName),
    /// The reviewer filed it, for herself or for somebody else.
    #[error("nobody reviews a request of their own; ask a colleague to review {0}")]
    OwnRequest(RequestId),
    /// The reviewer's stored roles do not cover one of the requested roles.
    #[error(
        "your roles don't let you review requests for role `{0}`; `request ls --reviewable` shows what you may review"
    )]
    NotAllowed(RoleName),
    /// It is decided already.
    #[error("request {id} is {state}; only a pending request can be reviewed")]
    NotPending {
        /// The request.
        id: RequestId,
        /// Its state.
        state: State,
    },
    /// It lapsed.
    #[error("request {id} expired at {}; the requester can file a new one", format_instant(*.at))]
    Lapsed {
        /// The request.
        id: RequestId,
        /// When.
        at: OffsetDateTime,
    },
    /// A person counts once.
    #[error("you reviewed request {0} already; a person counts once")]
    AlreadyReviewed(RequestId),
    /// The reason is too long.
    #[error("the reason is {bytes} bytes long; the limit is {limit}")]
    ReasonTooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The terms are not narrower than the request.
    #[error(transparent)]
    Terms(#[from] TermsError),
}

/// Why the terms of an approval were refused: an approval never gives more than was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermsError {
    /// A role that was not asked for.
    #[error("role `{0}` is not in the request; approve some of the roles that are")]
    Role(RoleName),
    /// A resource, or a login on it, that was not asked for.
    #[error("resource `{0}` is not in the request; approve some of the resources that are")]
    Resource(ResourceId),
    /// Resources where roles were asked for.
    #[error("the request asks for roles as a whole; approve roles, not resources")]
    NoResources,
    /// Longer than was asked.
    #[error("{} is longer than the {} that the request asks for", format_duration(*.given), format_duration(*.asked))]
    Longer {
        /// The reviewer's.
        given: Duration,
        /// The request's.
        asked: Duration,
    },
    /// Earlier than was asked.
    #[error("the start {} is before the start {} that the request asks for", format_instant(*.given), format_instant(*.asked))]
    Earlier {
        /// The reviewer's.
        given: OffsetDateTime,
        /// The request's.
        asked: OffsetDateTime,
    },
    /// Later than a reviewer may move it.
    #[error("the start {} is too far ahead; the latest that can be set now is {}", format_instant(*.given), format_instant(*.latest))]
    TooFarAhead {
        /// The reviewer's.
        given: OffsetDateTime,
        /// The latest.
        latest: OffsetDateTime,
    },
    /// The access would be over before it starts.
    #[error("the access would end at {}, not after its start at {}", format_instant(*.end), format_instant(*.start))]
    StartsAfterEnd {
        /// The start.
        start: OffsetDateTime,
        /// The end.
        end: OffsetDateTime,
    },
    /// Together with the other approvals nothing is left to give.
    #[error(
        "nothing is left that every reviewer approved; approve what the others approved, or deny"
    )]
    NothingLeft,
}

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
    /// may is for [`check_override`] to say.
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

/// Whether `reviewer`'s stored roles let her review `request`: each requested role allowed, none
/// denied, and not her own. Says nothing about the request's state.
///
/// # Errors
/// [`ReviewError`] names the rule that forbids it.
pub fn may_review(
    view: &View,
    reviewer: &UserName,
    request: &AccessRequest,
) -> Result<(), ReviewError> {
    let user = view
        .user(reviewer)
        .filter(|user| !view.is_locked_out(user))
        .ok_or_else(|| ReviewError::NoReviewer(reviewer.clone()))?;
    // Who files for somebody is no second person.
    if request.user == *reviewer || request.filed_by == Some(Actor::User(reviewer.clone())) {
        return Err(ReviewError::OwnRequest(request.id));
    }
    let env = ReviewEnv {
        reviewer: user,
        roles: &request.roles,
        reason: &request.reason,
        annotations: &request.system_annotations,
        review_reason: "",
    };
    match forbidden_role(view, &env) {
        Some(role) => Err(ReviewError::NotAllowed(role.clone())),
        None => Ok(()),
    }
}

/// The first of the wanted roles that the reviewer's standing roles do not let her review. The
/// condition (`where`) of a role belongs to the roles that the same role names.
fn forbidden_role<'r>(view: &View, env: &ReviewEnv<'r>) -> Option<&'r RoleName> {
    let roles: Vec<_> = env
        .reviewer
        .roles
        .iter()
        .filter_map(|name| view.role(name))
        .collect();
    env.roles.iter().find(|wanted| {
        let allowed = roles
            .iter()
            .any(|role| role.allow.review_requests.allows(wanted, env));
        let denied = roles
            .iter()
            .any(|role| role.deny.review_requests.denies(wanted, env));
        !allowed || denied
    })
}

/// The users who may review `request`, by name.
#[must_use]
pub fn reviewers(view: &View, request: &AccessRequest) -> Vec<UserName> {
    able(view, &request.user, |reviewer| ReviewEnv {
        reviewer,
        roles: &request.roles,
        reason: &request.reason,
        annotations: &request.system_annotations,
        review_reason: "",
    })
}

/// The users who could review a request of `requester` for `roles`, by name, as far as that is
/// known before it has a reason and annotations: a condition finds them empty.
#[must_use]
pub fn reviewers_of<'r>(
    view: &View,
    requester: &UserName,
    roles: impl Iterator<Item = &'r RoleName> + Clone,
) -> Vec<UserName> {
    let (roles, annotations) = (roles.cloned().collect(), Annotations::new());
    able(view, requester, |reviewer| ReviewEnv {
        reviewer,
        roles: &roles,
        reason: "",
        annotations: &annotations,
        review_reason: "",
    })
}

/// The users who may review what `env` describes, filed by `requester`.
fn able<'v>(
    view: &'v View,
    requester: &UserName,
    env: impl Fn(&'v User) -> ReviewEnv<'v>,
) -> Vec<UserName> {
    let able = view.users().filter(|user| {
        !view.is_locked_out(user)
            && user.name != *requester
            && forbidden_role(view, &env(user)).is_none()
    });
    let mut names: Vec<UserName> = able.map(|user| user.name.clone()).collect();
    names.sort_unstable();
    names
}

/// Counts `reviewer`'s verdict. The new request is to be stored only if the old one is still what
/// is stored.
///
/// # Errors
/// [`ReviewError`] if she may not review it, or not like this.
pub fn review(
    view: &View,
    reviewer: &UserName,
    request: &AccessRequest,
    verdict: Verdict,
    reason: &str,
    now: OffsetDateTime,
) -> Result<Reviewed, ReviewError> {
    may_review(view, reviewer, request)?;
    let author = Author::User(reviewer.clone());
    count(view, author, request, verdict, reason, now)
}

/// Counts the verdict of an access monitoring rule as one review by one person. It reviews
/// everything that was not filed for one of those who wrote it.
///
/// # Errors
/// As [`review`].
pub fn review_automatically(
    view: &View,
    rule: &MonitoringRule,
    request: &AccessRequest,
    verdict: Verdict,
    reason: &str,
    now: OffsetDateTime,
) -> Result<Reviewed, ReviewError> {
    if rule.authors.contains(&request.user) {
        return Err(ReviewError::OwnRequest(request.id));
    }
    let author = Author::Rule(rule.name.clone());
    count(view, author, request, verdict, reason, now)
}

/// Counts a review by somebody who may give it.
fn count(
    view: &View,
    author: Author,
    request: &AccessRequest,
    verdict: Verdict,
    reason: &str,
    now: OffsetDateTime,
) -> Result<Reviewed, ReviewError> {
    if request.state != State::Pending {
        return Err(ReviewError::NotPending {
            id: request.id,
            state: request.state,
        });
    }
    if now >= request.request_expires {
        return Err(ReviewError::Lapsed {
            id: request.id,
            at: request.request_expires,
        });
    }
    if request.reviews.iter().any(|review| review.author == author) {
        return Err(ReviewError::AlreadyReviewed(request.id));
    }
    let limit = view.settings().reason_bytes;
    if reason.len() > limit {
        return Err(ReviewError::ReasonTooLong {
            bytes: reason.len(),
            limit,
        });
    }
    if let Verdict::Approve(terms) = &verdict {
        check_terms(request, terms, now)?;
    }
    // What filters ask about is a person; a threshold with one counts no rule.
    let person = match &author {
        Author::User(name) => view.user(name),
        Author::Rule(_) => None,
    };
    let filters = match person {
        Some(user) => matching_filters(request, user, &verdict, reason),
        None => BTreeSet::new(),
    };
    let effect = effect_of(request, &verdict, &filters);
    let mut request = request.clone();
    request.reviews.push(Review {
        author: author.clone(),
        verdict,
        reason: reason.to_owned(),
        created: now,
        effect,
        filters,
    });
    // Even where the count is not reached yet, what is approved together must leave something.
    let together = approvals(&request).try_fold(Terms::default(), narrow)?;
    let by = Actor::from(author);
    let request = match tally(&request) {
        Tally::Open => request,
        Tally::Denied => resolved(request, State::Denied, by, reason, now),
        Tally::Approved => granted(request, &together, BTreeSet::new(), by, reason, now)?,
    };
    Ok(Reviewed { request, effect })
}

/// The terms of the approvals that count; one that does not narrows nothing.
fn approvals(request: &AccessRequest) -> impl Iterator<Item = &Terms> {
    request
        .reviews
        .iter()
        .filter(|review| review.effect == Effect::Counted)
        .filter_map(|review| match &review.verdict {
            Verdict::Approve(terms) => Some(terms),
            Verdict::Deny => None,
        })
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

fn resolved(
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

/// How far ahead a reviewer may move the start (REQUESTS section 4). Where access is counted from
/// the approval nothing else would keep a grant from being put off for years.
const START_AHEAD: Duration = Duration::days(7);

/// Checks that `terms` give no more than `request` asks for.
fn check_terms(
    request: &AccessRequest,
    terms: &Terms,
    now: OffsetDateTime,
) -> Result<(), TermsError> {
    if let Some(role) = terms
        .roles
        .iter()
        .flatten()
        .find(|role| !request.roles.contains(*role))
    {
        return Err(TermsError::Role(role.clone()));
    }
    match (&request.reach, &terms.resources) {
        (Reach::Roles, Some(_)) => return Err(TermsError::NoResources),
        (Reach::Resources(asked), Some(given)) => {
            let asked = Compared::all(asked);
            if let Some(more) = Compared::all(given)
                .iter()
                .find(|id| !asked.iter().any(|asked| asked.covers(id)))
            {
                return Err(TermsError::Resource(more.id().clone()));
            }
        }
        (Reach::Roles | Reach::Resources(_), None) => {}
    }
    if let Some(given) = terms.max_duration.filter(|given| *given > request.duration) {
        return Err(TermsError::Longer {
            given,
            asked: request.duration,
        });
    }
    if let (Some(given), Some(asked)) = (terms.assume_start, request.assume_start)
        && given < asked
    {
        return Err(TermsError::Earlier { given, asked });
    }
    let latest = now.saturating_add(START_AHEAD);
    let latest = request
        .assume_start
        .map_or(latest, |asked| asked.max(latest));
    if let Some(given) = terms.assume_start.filter(|given| *given > latest) {
        return Err(TermsError::TooFarAhead { given, latest });
    }
    window(request, terms, now).map(|_| ())
}

/// Approves with `roles`, some of which were not asked for. Everything else of the terms stays
/// within what was asked.
fn overridden(
    request: AccessRequest,
    roles: &BTreeSet<RoleName>,
    terms: &Terms,
    by: Actor,
    reason: &str,
    now: OffsetDateTime,
) -> Result<AccessRequest, TermsError> {
    if roles.is_empty() {
        return Err(TermsError::NothingLeft);
    }
    let rest = Terms {
        roles: None,
        ..terms.clone()
    };
    check_terms(&request, &rest, now)?;
    let foreign = roles.difference(&request.roles).cloned().collect();
    let terms = Terms {
        roles: Some(roles.clone()),
        ..rest
    };
    granted(request, &terms, foreign, by, reason, now)
}

/// Why an approval may not put in roles that were not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// It takes the right to write roles.
    #[error(
        "role `{0}` is not in the request; approving with it takes `create` and `update` on `role`, which none of your roles allows"
    )]
    NotAllowed(RoleName),
    /// There is no such role.
    #[error("there is no role `{0}` to approve with")]
    NoSuchRole(RoleName),
    /// A role of the requester denies asking for it, and deny wins.
    #[error("role `{role}` can't be given to `{user}` by a request: a role of theirs denies it")]
    Denied {
        /// The role.
        role: RoleName,
        /// The requester.
        user: UserName,
    },
}

/// Whether `by` may approve `request` with roles that are not in it: an administrator who could as
/// well write a role that the requester may ask for.
///
/// # Errors
/// [`OverrideError`] names the role and what is in the way.
pub fn check_override(
    view: &View,
    by: &Actor,
    request: &AccessRequest,
    roles: &BTreeSet<RoleName>,
) -> Result<(), OverrideError> {
    let writes_roles = match by {
        Actor::User(name) => [AdminVerb::Create, AdminVerb::Update]
            .into_iter()
            .all(|verb| allowed(view, name, verb, AdminResource::Role)),
        Actor::LocalAdministrator => true,
        Actor::Rule(_) | Actor::Clock => false,
    };
    for role in roles.difference(&request.roles) {
        if !writes_roles {
            return Err(OverrideError::NotAllowed(role.clone()));
        }
        if view.role(role).is_none() {
            return Err(OverrideError::NoSuchRole(role.clone()));
        }
        if crate::policy::denies_request(view, &request.user, &request.reach, role) {
            return Err(OverrideError::Denied {
                role: role.clone(),
                user: request.user.clone(),
            });
        }
    }
    Ok(())
}

/// The terms that both allow.
fn narrow(sum: Terms, more: &Terms) -> Result<Terms, TermsError> {
    let roles = match (sum.roles, &more.roles) {
        (Some(a), Some(b)) => Some(a.intersection(b).cloned().collect::<BTreeSet<_>>()),
        (a, b) => a.or_else(|| b.clone()),
    };
    let resources = match (sum.resources, &more.resources) {
        (Some(a), Some(b)) => Some(intersect(&a, b)),
        (a, b) => a.or_else(|| b.clone()),
    };
    let empty = roles.as_ref().is_some_and(BTreeSet::is_empty)
        || resources.as_ref().is_some_and(BTreeSet::is_empty);
    if empty {
        return Err(TermsError::NothingLeft);
    }
    Ok(Terms {
        roles,
        resources,
        max_duration: sum.max_duration.into_iter().chain(more.max_duration).min(),
        assume_start: sum.assume_start.into_iter().chain(more.assume_start).max(),
    })
}

/// The resources that both sets cover, narrowed to the logins that both allow.
fn intersect(a: &BTreeSet<ResourceId>, b: &BTreeSet<ResourceId>) -> BTreeSet<ResourceId> {
    let (a, b) = (Compared::all(a), Compared::all(b));
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let both = pairs.filter_map(|(a, b)| match (a.id().logins(), b.id().logins()) {
        // One of them may be inside the other: a namespace of a cluster, a login of a node.
        _ if a.covers(b) => Some(b.id().clone()),
        _ if b.covers(a) => Some(a.id().clone()),
        (Some(x), Some(y))
            if a.id().clone().without_logins() == b.id().clone().without_logins() =>
        {
            a.id()
                .clone()
                .with_logins(x.intersection(y).cloned().collect())
        }
        (Some(_) | None, _) => None,
    });
    both.collect()
}

/// When access approved at `now` on these terms starts and ends.
///
/// A reviewer's shorter duration is counted from the approval or the start, whichever is later,
/// and never moves the end past what was asked.
fn window(
    request: &AccessRequest,
    terms: &Terms,
    now: OffsetDateTime,
) -> Result<(Option<OffsetDateTime>, OffsetDateTime), TermsError> {
    let assume_start = request
        .assume_start
        .into_iter()
        .chain(terms.assume_start)
        .max();
    let start = assume_start.map_or(now, |start| start.max(now));
    let asked = match request.duration_from {
        DurationFrom::Creation => request.access_expires,
        DurationFrom::Approval => start.saturating_add(request.duration),
    };
    let end = terms
        .max_duration
        .map_or(asked, |limit| asked.min(start.saturating_add(limit)));
    if start >= end {
        return Err(TermsError::StartsAfterEnd { start, end });
    }
    Ok((assume_start, end))
}

fn granted(
    mut request: AccessRequest,
    terms: &Terms,
    overridden: BTreeSet<RoleName>,
    by: Actor,
    reason: &str,
    now: OffsetDateTime,
) -> Result<AccessRequest, TermsError> {
    // Checked again, because the clock moved since earlier reviews and the sum is narrower.
    let (assume_start, end) = window(&request, terms, now)?;
    let roles = terms.roles.clone().unwrap_or_else(|| request.roles.clone());
    let reach = match (&request.reach, &terms.resources) {
        (Reach::Resources(_), Some(ids)) => Reach::Resources(ids.clone()),
        (Reach::Roles | Reach::Resources(_), _) => request.reach.clone(),
    };
    let empty = match &reach {
        Reach::Roles => false,
        Reach::Resources(ids) => ids.is_empty(),
    };
    if roles.is_empty() || empty {
        return Err(TermsError::NothingLeft);
    }
    request.assume_start = assume_start;
    request.access_expires = end;
    request.granted = Some(Granted {
        roles,
        reach,
        overridden,
        at: now,
    });
    Ok(resolved(request, State::Approved, by, reason, now))
}
