//! Reviews: who may give one, and what it does.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::allowance::Allowance;
use crate::duration::format_instant;
use crate::id::{AllowanceId, RequestId, RoleName, UserName};
use crate::monitoring::MonitoringRule;
use crate::predicate::ReviewEnv;
use crate::user::User;
use crate::view::View;

use super::automatic::allowance_terms;
use super::life::resolved;
use super::tally::{Tally, effect_of, matching_filters, tally};
use super::terms::{TermsError, check_terms, granted, narrow};
use super::{AccessRequest, Actor, Annotations, Author, Effect, Review, State, Terms, Verdict};

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

/// Whether there could be a request for `role` that `reviewer`'s stored roles let him review: what
/// conditions (`where`) say is left to the request.
#[must_use]
pub fn may_review_some(view: &View, reviewer: &UserName, role: &RoleName) -> bool {
    let Some(user) = view.user(reviewer).filter(|user| !view.is_locked_out(user)) else {
        return false;
    };
    let roles: Vec<_> = user
        .roles
        .iter()
        .filter_map(|name| view.role(name))
        .collect();
    let allowed = roles
        .iter()
        .any(|held| held.allow.review_requests.names_role(user, role));
    let denied = roles.iter().any(|held| {
        let deny = &held.deny.review_requests;
        deny.condition.is_none() && deny.names_role(user, role)
    });
    allowed && !denied
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
    let author = (Author::User(reviewer.clone()), None);
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
    let author = (Author::Rule(rule.name.clone()), None);
    count(view, author, request, verdict, reason, now)
}

/// Counts the approval that a pre-approval gives as the one review of its author, who has to be able
/// to give it himself at this moment. What it opens ends when the pre-approval does.
///
/// # Errors
/// As [`review`].
pub fn review_by_allowance(
    view: &View,
    allowance: &Allowance,
    request: &AccessRequest,
    reason: &str,
    now: OffsetDateTime,
) -> Result<Reviewed, ReviewError> {
    may_review(view, &allowance.author, request)?;
    let author = (Author::User(allowance.author.clone()), Some(allowance.id));
    let verdict = Verdict::Approve(allowance_terms(allowance));
    count(view, author, request, verdict, reason, now)
}

/// Counts a review by somebody who may give it.
fn count(
    view: &View,
    (author, allowance): (Author, Option<AllowanceId>),
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
        allowance,
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
        Tally::Open => AccessRequest {
            // A pending request lapses no later than its access would end.
            request_expires: together.until.map_or(request.request_expires, |end| {
                request.request_expires.min(end)
            }),
            ..request
        },
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
