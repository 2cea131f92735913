//! Conditions where they decide: who may review, and which reviews count.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use anteroom_core::policy::{Decision, decide, requestable_nodes, visible_nodes};
use anteroom_core::request::{
    AccessRequest, Effect, ReviewError, Reviewed, State, Terms, Verdict, Wanted, may_review,
    review, reviewers,
};
use anteroom_core::view::View;
use time::Duration;
use world::*;

const ROLES: &str = r#"
kind: role
metadata: {name: dba}
---
kind: role
metadata: {name: asker}
spec:
  allow:
    request:
      roles: [dba]
      thresholds:
        - name: one of the database people
          filter: contains(reviewer.roles, "db-lead") && review.reason != ""
          approve: 1
          deny: 1
        - name: two of red
          filter: contains(reviewer.traits["team"], "red")
          approve: 2
---
kind: role
metadata: {name: db-lead}
---
kind: role
metadata: {name: reviews}
spec: {allow: {review_requests: {roles: [dba]}}}
---
kind: role
metadata: {name: reviews-if-red}
spec:
  allow:
    review_requests:
      roles: [dba]
      where: contains(reviewer.traits["team"], "red") && request.reason != ""
---
kind: role
metadata: {name: reviews-at-fault}
spec:
  allow:
    review_requests:
      roles: [dba]
      where: email.local(request.reason) == "x" || true
---
kind: role
metadata: {name: not-in-a-hurry}
spec:
  deny:
    review_requests:
      roles: ['*']
      where: regexp.match(request.reason, "*hurry*")
---
kind: role
metadata: {name: not-at-fault}
spec:
  deny:
    review_requests:
      roles: ['*']
      where: email.local("nobody") == "x"
"#;

fn person(view: View, name: &str, n: u8, roles: &[&str], team: &str) -> View {
    let mut user = a_user(name, &[n], roles, &[]);
    user.traits.insert("team".to_owned(), vec![team.to_owned()]);
    view.with_user(user)
}

fn people() -> View {
    let view = with_roles(small(), ROLES);
    let view = person(view, "alice", 0, &["asker", "reviews"], "red");
    let view = person(view, "lead", 2, &["reviews", "db-lead"], "blue");
    let view = person(view, "red1", 3, &["reviews"], "red");
    let view = person(view, "red2", 4, &["reviews"], "red");
    person(view, "other", 5, &["reviews"], "blue")
}

fn asked(view: &View, reason: &str) -> AccessRequest {
    let mut wanted = Wanted::roles(roles(&["dba"]));
    wanted.reason = reason.to_owned();
    filed(view, &alice(), &wanted, 7, T0)
}

fn says(
    view: &View,
    request: &AccessRequest,
    who: &str,
    verdict: Verdict,
    reason: &str,
) -> Reviewed {
    review(view, &user(who), request, verdict, reason, at(1)).unwrap()
}

fn yes() -> Verdict {
    Verdict::Approve(Terms::default())
}

#[test]
fn a_threshold_counts_only_the_reviews_its_filter_matches() {
    let view = people();
    let request = asked(&view, "work");
    let lead = says(&view, &request, "lead", yes(), "fine");
    assert_eq!(
        (lead.effect, lead.request.state),
        (Effect::Counted, State::Approved)
    );
    // The filter reads the review too: without a reason hers is one that nothing counts.
    let lead = says(&view, &request, "lead", yes(), "");
    assert_eq!(
        (lead.effect, lead.request.state),
        (Effect::Ineffectual, State::Pending)
    );
    let first = says(&view, &request, "red1", yes(), "");
    assert_eq!(
        (first.effect, first.request.state),
        (Effect::Counted, State::Pending)
    );
    // An outsider and one of red are two reviews, and not two of red.
    let other = says(&view, &first.request, "other", yes(), "me too");
    assert_eq!(
        (other.effect, other.request.state),
        (Effect::Ineffectual, State::Pending)
    );
    let second = says(&view, &other.request, "red2", yes(), "");
    assert_eq!(
        (second.effect, second.request.state),
        (Effect::Counted, State::Approved)
    );
}

#[test]
fn a_denial_that_no_filter_matches_ends_nothing() {
    let view = people();
    let request = asked(&view, "work");
    for who in ["other", "red1"] {
        let denied = says(&view, &request, who, Verdict::Deny, "no");
        assert_eq!(
            (denied.effect, denied.request.state),
            (Effect::Ineffectual, State::Pending)
        );
    }
    let denied = says(&view, &request, "lead", Verdict::Deny, "no");
    assert_eq!(denied.request.state, State::Denied);
}

#[test]
fn an_ineffectual_approval_narrows_nothing() {
    let view = people();
    let request = asked(&view, "work");
    let short = Terms {
        max_duration: Some(Duration::minutes(5)),
        ..Terms::default()
    };
    let other = says(&view, &request, "other", Verdict::Approve(short), "");
    let lead = says(&view, &other.request, "lead", yes(), "fine");
    assert_eq!(lead.request.access_expires, request.access_expires);
}

#[test]
fn what_a_review_counted_for_stays_when_its_author_changes() {
    let view = people();
    let request = asked(&view, "work");
    let first = says(&view, &request, "red1", yes(), "").request;
    // Stored and read again, as the proxy does.
    let first: AccessRequest =
        serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
    let view = person(view, "red1", 3, &["reviews"], "blue");
    let view = person(view, "other", 5, &["reviews"], "red");
    let second = says(&view, &first, "other", yes(), "");
    assert_eq!(second.request.state, State::Approved);
}

#[test]
fn a_stored_filter_that_no_longer_parses_never_grants() {
    let view = people();
    let request = asked(&view, "work");
    let text = serde_json::to_string(&request).unwrap();
    let filter = r#"contains(reviewer.roles, \"db-lead\") && review.reason != \"\""#;
    assert!(text.contains(filter), "{text}");
    for broken in ["true &&", "gone(reviewer)", ""] {
        let request: AccessRequest = serde_json::from_str(&text.replace(filter, broken)).unwrap();
        let lead = says(&view, &request, "lead", yes(), "fine");
        assert_eq!(
            (lead.effect, lead.request.state),
            (Effect::Ineffectual, State::Pending)
        );
        let denied = says(&view, &request, "other", Verdict::Deny, "");
        assert_eq!(denied.request.state, State::Denied);
        assert!(serde_json::to_string(&request).unwrap().contains(broken));
    }
}

/// A listing answers for nodes of a kind at once; what tells these nodes apart is seen by
/// expressions only.
#[test]
fn listings_agree_with_decisions_where_expressions_decide() {
    let text = r#"
kind: role
metadata: {name: by-rack}
spec:
  allow: {logins: [alice], node_labels: {env: dev}, node_labels_expression: 'labels.rack != "a"'}
  deny: {node_labels_expression: 'hasPrefix(labels.row, "off")'}
---
kind: role
metadata: {name: sought}
spec: {allow: {logins: [root], node_labels_expression: labels.rack == "a"}}
---
kind: role
metadata: {name: seeker}
spec: {allow: {request: {search_as_roles: [sought]}}}
"#;
    let view =
        with_roles(small(), text).with_user(a_user("alice", &[0], &["by-rack", "seeker"], &[]));
    let labels: [&[(&str, &str)]; 6] = [
        &[("env", "dev"), ("rack", "a")],
        &[("env", "dev"), ("rack", "b")],
        &[("env", "dev"), ("rack", "c"), ("row", "off-1")],
        &[("env", "dev"), ("rack", "a"), ("row", "off-2")],
        &[("env", "dev")],
        &[("env", "prod"), ("rack", "b")],
    ];
    let nodes = (100..)
        .zip(labels)
        .map(|(n, labels)| a_node(n, &format!("n{n}"), labels));
    let view = view.with_nodes(nodes);
    let usable: Vec<_> = visible_nodes(&view, &alice(), T0)
        .iter()
        .map(|n| n.node.id)
        .collect();
    let askable: Vec<_> = requestable_nodes(&view, &alice(), T0)
        .iter()
        .map(|n| n.node.id)
        .collect();
    let now = T0;
    for n in 100..106 {
        let may = |login: &str| decide(&view, &alice(), &access(login, n), now);
        let listed = usable.contains(&node_id(n));
        assert_eq!(matches!(may("alice"), Decision::Permit(_)), listed, "{n}");
        let listed = askable.contains(&node_id(n));
        assert_eq!(matches!(may("root"), Decision::Ask(_)), listed, "{n}");
    }
    assert_eq!(usable, [node_id(101), node_id(104)]);
    assert_eq!(askable, [node_id(100)]);
}

#[test]
fn a_condition_narrows_who_may_review() {
    let view = |roles: &[&str], team: &str| person(people(), "bob", 2, roles, team);
    let may = |view: &View, reason: &str| {
        let request = asked(view, reason);
        let may = may_review(view, &user("bob"), &request);
        // The list of reviewers says the same.
        assert_eq!(
            may.is_ok(),
            reviewers(view, &request).contains(&user("bob"))
        );
        may
    };
    let refused = Err(ReviewError::NotAllowed(role("dba")));
    assert_eq!(may(&view(&["reviews-if-red"], "red"), "work"), Ok(()));
    assert_eq!(may(&view(&["reviews-if-red"], "blue"), "work"), refused);
    assert_eq!(may(&view(&["reviews-if-red"], "red"), ""), refused);
    // The condition belongs to its own role: another that allows without one suffices.
    assert_eq!(
        may(&view(&["reviews-if-red", "reviews"], "blue"), "work"),
        Ok(())
    );
    assert_eq!(may(&view(&["reviews-at-fault"], "red"), "nobody"), refused);
    assert_eq!(
        may(&view(&["reviews", "not-in-a-hurry"], "red"), "work"),
        Ok(())
    );
    assert_eq!(
        may(&view(&["reviews", "not-in-a-hurry"], "red"), "hurry up"),
        refused
    );
    assert_eq!(
        may(&view(&["reviews", "not-at-fault"], "red"), "work"),
        refused
    );
}
