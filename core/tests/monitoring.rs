//! Which access monitoring rule reviews a request, and what comes of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use anteroom_core::documents;
use anteroom_core::id::UserName;
use anteroom_core::monitoring::{MonitoringRule, next_opening, reviewing_rule};
use anteroom_core::request::{AccessRequest, Author, State, Terms, Verdict, review_automatically};
use anteroom_core::view::View;
use time::macros::datetime;
use world::*;

const STAGING: &str =
    r#"access_request.spec.resource_labels_intersection["env"].contains("staging")"#;

fn rule(name: &str, condition: &str, decision: &str, rest: &str) -> MonitoringRule {
    let text = format!(
        "kind: access_monitoring_rule\nversion: v1\nmetadata: {{name: {name}}}\nspec:\n  \
         subjects: [access_request]\n  condition: '{condition}'\n  desired_state: reviewed\n  \
         automatic_review: {{integration: builtin, decision: {decision}}}\n{rest}"
    );
    documents::parse_monitoring_rule(&text).unwrap_or_else(|error| panic!("{error}"))
}

fn by(author: &str, rule: MonitoringRule) -> MonitoringRule {
    MonitoringRule {
        authors: [user(author)].into(),
        ..rule
    }
}

fn asked(view: &View) -> AccessRequest {
    filed(view, &alice(), &wants_root_on_iot(view), 1, T0)
}

/// The rule that reviews alice's request for root on iot.
fn speaking(rules: impl IntoIterator<Item = MonitoringRule>) -> Option<String> {
    let view = small().with_monitoring_rules(rules);
    let request = asked(&view);
    reviewing_rule(&view, &request, T0).map(|rule| rule.name.to_string())
}

fn given(view: &View, request: &AccessRequest) -> Option<AccessRequest> {
    let rule = reviewing_rule(view, request, T0)?;
    let verdict = match rule.decision {
        anteroom_core::monitoring::Decision::Approved => Verdict::Approve(Terms::default()),
        anteroom_core::monitoring::Decision::Denied => Verdict::Deny,
    };
    let reviewed = review_automatically(view, rule, request, verdict, "", T0);
    Some(reviewed.unwrap().request)
}

#[test]
fn a_rule_reviews_what_its_condition_says_and_nothing_else() {
    assert_eq!(
        speaking([rule("a", STAGING, "APPROVED", "")]).as_deref(),
        Some("a")
    );
    let production = STAGING.replace("staging", "production");
    assert_eq!(speaking([rule("a", &production, "APPROVED", "")]), None);
    assert_eq!(speaking([rule("a", &production, "DENIED", "")]), None);
    assert_eq!(speaking([]), None);
}

#[test]
fn an_approving_rule_grants_and_is_named_as_the_one_who_did() {
    let view = small().with_monitoring_rules([rule("a", STAGING, "APPROVED", "")]);
    let request = given(&view, &asked(&view)).unwrap();
    assert_eq!(request.state, State::Approved);
    assert_eq!(
        request.reviews[0].author,
        Author::Rule("a".parse().unwrap())
    );
    assert_eq!(request.reviews[0].author.to_string(), "@a");
}

#[test]
fn a_denying_rule_wins_whatever_its_name() {
    for (yes, no) in [("a", "b"), ("b", "a")] {
        let rules = [
            rule(yes, "true", "APPROVED", ""),
            rule(no, STAGING, "DENIED", ""),
        ];
        let view = small().with_monitoring_rules(rules);
        let request = given(&view, &asked(&view)).unwrap();
        assert_eq!(request.state, State::Denied);
        assert_eq!(request.reviews.len(), 1);
    }
}

#[test]
fn a_rule_never_reviews_a_request_of_one_who_wrote_it() {
    let own = by("alice", rule("a", "true", "APPROVED", ""));
    assert_eq!(speaking([own.clone()]), None);
    // Another's still does.
    let other = by("carol", rule("b", "true", "APPROVED", ""));
    assert_eq!(speaking([own.clone(), other]).as_deref(), Some("b"));
    let view = small().with_monitoring_rules([own.clone()]);
    let verdict = Verdict::Approve(Terms::default());
    review_automatically(&view, &own, &asked(&view), verdict, "", T0).unwrap_err();
    let both = MonitoringRule {
        authors: ["carol", "alice"]
            .map(|name| name.parse::<UserName>().unwrap())
            .into(),
        ..own
    };
    assert_eq!(speaking([both]), None);
}

#[test]
fn all_rules_together_approve_once_and_a_denying_one_is_still_heard() {
    const TWO: &str = "kind: role\nmetadata: {name: requester}\nspec:\n  allow:\n    request:\n      search_as_roles: [access]\n      thresholds: [{approve: 2, deny: 1}]\n";
    let view = with_roles(small(), TWO);
    let approving = [
        rule("a", "true", "APPROVED", ""),
        rule("b", "true", "APPROVED", ""),
    ];
    let view = view.with_monitoring_rules(approving);
    let once = given(&view, &asked(&view)).unwrap();
    assert_eq!((once.state, once.reviews.len()), (State::Pending, 1));
    assert!(reviewing_rule(&view, &once, T0).is_none());
    let view = view.with_monitoring_rules([rule("c", "true", "DENIED", "")]);
    let denied = given(&view, &once).unwrap();
    assert_eq!(denied.state, State::Denied);
    assert!(given(&view, &denied).is_none());
}

#[test]
fn outside_its_hours_a_rule_says_nothing() {
    // T0 is a Friday, 10:00 UTC and 11:00 in Berlin.
    let hours = |zone: &str, start: &str, end: &str| {
        format!(
            "  schedules:\n    office:\n      time:\n        timezone: {zone}\n        \
             shifts: [{{weekday: Friday, start: \"{start}\", end: \"{end}\"}}]\n"
        )
    };
    let at = |zone: &str, start: &str, end: &str| {
        speaking([rule("a", "true", "APPROVED", &hours(zone, start, end))]).is_some()
    };
    assert!(at("UTC", "10:00", "10:01"));
    assert!(!at("UTC", "09:00", "10:00"));
    assert!(at("Europe/Berlin", "11:00", "12:00"));
    assert!(!at("Europe/Berlin", "10:00", "11:00"));
    let view = small().with_monitoring_rules([rule(
        "a",
        "true",
        "APPROVED",
        &hours("Europe/Berlin", "12:30", "13:00"),
    )]);
    assert_eq!(
        next_opening(&view, T0),
        Some(datetime!(2026-11-20 11:30 UTC))
    );
    assert_eq!(next_opening(&small(), T0), None);
}

#[test]
fn while_a_rule_cannot_be_read_no_rule_approves_and_others_still_deny() {
    let broken = MonitoringRule::unreadable(
        "z".parse().unwrap(),
        serde_json::Value::Null,
        [].into(),
        "no such function".to_owned(),
    );
    let yes = rule("a", "true", "APPROVED", "");
    assert_eq!(speaking([broken.clone(), yes.clone()]), None);
    let no = rule("b", "true", "DENIED", "");
    assert_eq!(speaking([broken, yes, no]).as_deref(), Some("b"));
}
