//! The terms of an approval: never more than was asked, and what is left when several narrow it.

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use crate::duration::{format as format_duration, format_instant};
use crate::id::{Compared, ResourceId, RoleName};

use super::life::resolved;
use super::{AccessRequest, Actor, DurationFrom, Granted, Reach, State, Terms};

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

/// How far ahead a reviewer may move the start (REQUESTS section 4). Where access is counted from
/// the approval nothing else would keep a grant from being put off for years.
const START_AHEAD: Duration = Duration::days(7);

/// Checks that `terms` give no more than `request` asks for.
pub(super) fn check_terms(
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

/// The terms that both allow.
pub(super) fn narrow(sum: Terms, more: &Terms) -> Result<Terms, TermsError> {
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
        until: sum.until.into_iter().chain(more.until).min(),
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
    let end = terms.until.map_or(end, |until| end.min(until));
    if start >= end {
        return Err(TermsError::StartsAfterEnd { start, end });
    }
    Ok((assume_start, end))
}

pub(super) fn granted(
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
