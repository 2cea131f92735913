//! Access monitoring rules: keeping them, and giving the reviews that they give.
//!
//! A rule reviews in the transaction that files the request, and what is pending is looked at again
//! in the one that makes or changes a rule, and when a shift of a schedule begins. They are kept
//! and removed like everything that administrators keep; see [`super::objects`].

use anteroom_core::id::RequestId;
use anteroom_core::monitoring::{MOST_RULES, MonitoringRule};
use anteroom_core::request::{self, AccessRequest, Actor, State as RequestState};
use thiserror::Error;

use super::By;
use super::allowances::keep;
use super::draft::Draft;

/// There are as many rules as there may be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "there are {MOST_RULES} access monitoring rules already; remove some with `rm access_monitoring_rule/NAME` first"
)]
pub struct TooManyRules;

/// Writes the rule. Who wrote it before stays its author: whoever had a hand in it has none of
/// their own requests reviewed by it.
pub(super) fn put_rule(
    draft: &mut Draft,
    by: &By,
    mut rule: MonitoringRule,
) -> Result<(), TooManyRules> {
    let view = draft.view();
    let before = view.monitoring_rule(&rule.name);
    if before.is_none() && view.monitoring_rules().count() >= MOST_RULES {
        return Err(TooManyRules);
    }
    rule.authors = before.map(|rule| rule.authors.clone()).unwrap_or_default();
    match &by.actor {
        Actor::User(name) => {
            rule.authors.insert(name.clone());
        }
        Actor::LocalAdministrator | Actor::Rule(_) | Actor::Clock => {}
    }
    draft.put_monitoring_rule(rule);
    Ok(())
}

/// Gives the review that the rules give this request now, if they give one; the request as it is
/// then. The draft has it already.
pub(super) fn review_by_rule(draft: &mut Draft, request: AccessRequest) -> AccessRequest {
    match request::rule_review(draft.view(), &request, draft.now()) {
        Some(review) => keep(draft, request, review),
        None => request,
    }
}

/// Looks at everything pending again, after the rules or the time have changed.
pub(super) fn review_pending_by_rules(draft: &mut Draft) {
    let pending = |request: &AccessRequest| request.state == RequestState::Pending;
    let pending: Vec<RequestId> = draft
        .view()
        .requests()
        .filter(|request| pending(request))
        .map(|request| request.id)
        .collect();
    for id in pending {
        if let Some(request) = draft.view().request(&id).cloned() {
            review_by_rule(draft, AccessRequest::clone(&request));
        }
    }
}
