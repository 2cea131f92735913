//! Reviews that nobody sits at a keyboard for: those of access monitoring rules and of
//! pre-approvals. What files a request and what only foretells it ask here, so that a dry run says
//! what would happen.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::allowance::{self, Allowance};
use crate::monitoring::{Decision, MonitoringRule, reviewing_rule};
use crate::view::View;

use super::review::{ReviewError, review_automatically, review_by_allowance};
use super::{AccessRequest, Effect, Terms, Verdict};

/// A review that is given by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct AutomaticReview {
    /// What gives it.
    pub by: Automatic,
    /// What it says.
    pub verdict: Verdict,
    /// Why; may be empty.
    pub reason: String,
    /// The request with it, or why it was not taken: then the request waits for a person.
    pub outcome: Result<AccessRequest, ReviewError>,
}

/// What reviews by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Automatic {
    /// An access monitoring rule, in its own name.
    Rule(Arc<MonitoringRule>),
    /// A pre-approval, in the name of its author.
    Allowance(Arc<Allowance>),
}

/// All that is said of `request` at once when it is filed at `now`: by a rule first, which may deny
/// it for good, and by pre-approvals while it is pending.
#[must_use]
pub fn automatic_reviews(
    view: &View,
    request: &AccessRequest,
    now: OffsetDateTime,
) -> Vec<AutomaticReview> {
    let mut given = Vec::from_iter(rule_review(view, request, now));
    let ruled = given.iter().find_map(|review| review.outcome.clone().ok());
    let more = allowance_reviews(view, ruled.as_ref().unwrap_or(request), now);
    given.extend(more);
    given
}

/// The review that the access monitoring rules give `request` at `now`, if they give one.
#[must_use]
pub fn rule_review(
    view: &View,
    request: &AccessRequest,
    now: OffsetDateTime,
) -> Option<AutomaticReview> {
    let rule = reviewing_rule(view, request, now)?;
    let verdict = match rule.decision {
        Decision::Approved => Verdict::Approve(Terms::default()),
        Decision::Denied => Verdict::Deny,
    };
    let reason = reason(view, rule.description.as_deref().unwrap_or_default());
    let outcome = review_automatically(view, rule, request, verdict.clone(), &reason, now);
    Some(AutomaticReview {
        by: Automatic::Rule(Arc::clone(rule)),
        verdict,
        reason,
        outcome: outcome.map(|reviewed| reviewed.request),
    })
}

/// The reviews that pre-approvals give `request` at `now`, until it is decided. Of several of one
/// author one counts, and one that no threshold counts is not given.
#[must_use]
pub fn allowance_reviews(
    view: &View,
    request: &AccessRequest,
    now: OffsetDateTime,
) -> Vec<AutomaticReview> {
    let mut given: Vec<AutomaticReview> = Vec::new();
    let mut current = request.clone();
    for allowance in allowance::speaking(view, request, now) {
        // Asked again: an earlier one may have decided it, or have been of the same author.
        if !allowance.speaks(view, &current, now) {
            continue;
        }
        let reason = reason(view, &allowance.reason);
        let outcome = review_by_allowance(view, &allowance, &current, &reason, now);
        let outcome = match outcome {
            Ok(reviewed) if reviewed.effect == Effect::Ineffectual => continue,
            Ok(reviewed) => Ok(reviewed.request),
            Err(error) => Err(error),
        };
        if let Ok(reviewed) = &outcome {
            current = reviewed.clone();
        }
        given.push(AutomaticReview {
            verdict: Verdict::Approve(allowance_terms(&allowance)),
            by: Automatic::Allowance(allowance),
            reason,
            outcome,
        });
    }
    given
}

/// On which terms a pre-approval approves: what it opens ends with it.
pub(super) fn allowance_terms(allowance: &Allowance) -> Terms {
    Terms {
        until: Some(allowance.ends),
        ..Terms::default()
    }
}

/// Left out where it is longer than a reason may be by now: that is for those who keep it.
fn reason(view: &View, text: &str) -> String {
    let limit = view.settings().reason_bytes;
    let fits = Some(text).filter(|text| text.len() <= limit);
    fits.unwrap_or_default().to_owned()
}
