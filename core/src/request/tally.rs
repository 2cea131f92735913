//! Counting: which thresholds a review counts for, and whether they are reached.

use std::collections::BTreeSet;

use crate::predicate::ReviewEnv;
use crate::role::Threshold;
use crate::user::User;

use super::{AccessRequest, Effect, Review, ThresholdIndex, Verdict};

/// The thresholds with a filter that count a review by `reviewer`, judged by her stored roles and
/// traits at this moment. A filter that can't be evaluated, or that no longer parses, counts no
/// approval and every denial.
pub(super) fn matching_filters(
    request: &AccessRequest,
    reviewer: &User,
    verdict: &Verdict,
    reason: &str,
) -> BTreeSet<ThresholdIndex> {
    let env = ReviewEnv {
        reviewer,
        roles: &request.roles,
        reason: &request.reason,
        annotations: &request.system_annotations,
        review_reason: reason,
    };
    let matches = |threshold: &Threshold| match (&threshold.filter, verdict) {
        (None, _) => false,
        (Some(filter), Verdict::Approve(_)) => filter.allows(&env),
        (Some(filter), Verdict::Deny) => filter.denies(&env),
    };
    thresholds(request)
        .filter(|(_, threshold)| matches(threshold))
        .map(|(index, _)| index)
        .collect()
}

/// Whether a review that matches `filters` can move any count: a count of 0 is never reached.
pub(super) fn effect_of(
    request: &AccessRequest,
    verdict: &Verdict,
    filters: &BTreeSet<ThresholdIndex>,
) -> Effect {
    let moves = |(index, threshold): (ThresholdIndex, &Threshold)| {
        let needed = match verdict {
            Verdict::Approve(_) => threshold.approve,
            Verdict::Deny => threshold.deny,
        };
        needed > 0 && counts(threshold, index, filters)
    };
    if thresholds(request).any(moves) {
        Effect::Counted
    } else {
        Effect::Ineffectual
    }
}

/// What the reviews amount to.
pub(super) enum Tally {
    Open,
    Approved,
    Denied,
}

/// Counts: one denial threshold ends it; approval needs one threshold of every set.
pub(super) fn tally(request: &AccessRequest) -> Tally {
    // INVARIANT: no two reviews have one author, so reviews count persons.
    let count = |index: ThresholdIndex, threshold: &Threshold, like: fn(&Verdict) -> bool| {
        let counted =
            |review: &&Review| like(&review.verdict) && counts(threshold, index, &review.filters);
        request.reviews.iter().filter(counted).count()
    };
    let approved = |(index, threshold): (ThresholdIndex, &Threshold)| {
        let count = count(index, threshold, |v| matches!(v, Verdict::Approve(_)));
        reached(threshold.approve, count)
    };
    let denied = |(index, threshold): (ThresholdIndex, &Threshold)| {
        let count = count(index, threshold, |v| matches!(v, Verdict::Deny));
        reached(threshold.deny, count)
    };
    if thresholds(request).any(denied) {
        return Tally::Denied;
    }
    let passed = |set| thresholds(request).any(|found| found.0.0 == set && approved(found));
    // Without any set nobody's role allows the request, so nothing approves it.
    if !request.thresholds.is_empty() && (0..request.thresholds.len()).all(passed) {
        Tally::Approved
    } else {
        Tally::Open
    }
}

/// Every threshold with its place.
fn thresholds(request: &AccessRequest) -> impl Iterator<Item = (ThresholdIndex, &Threshold)> {
    request.thresholds.iter().enumerate().flat_map(|(s, set)| {
        let inside = set.thresholds.iter().enumerate();
        inside.map(move |(t, threshold)| (ThresholdIndex(s, t), threshold))
    })
}

/// Whether `threshold` counts a review that matches `filters`.
fn counts(
    threshold: &Threshold,
    index: ThresholdIndex,
    filters: &BTreeSet<ThresholdIndex>,
) -> bool {
    threshold.filter.is_none() || filters.contains(&index)
}

/// A count of 0 is never reached.
fn reached(needed: u32, count: usize) -> bool {
    needed > 0 && usize::try_from(needed).is_ok_and(|needed| count >= needed)
}
