//! Every pair of state and action, and invariants over sequences of acts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use anteroom_core::allowance::{Allowance, Covers};
use anteroom_core::id::{AllowanceId, KeyFingerprint};
use anteroom_core::policy::{Decision, Identity, decide};
use anteroom_core::request::{
    AccessRequest, Action, Actor, State, Terms, Verdict, apply, automatic_reviews, review,
};
use anteroom_core::view::View;
use time::{Duration, OffsetDateTime};

use crate::world::*;
use crate::{approve, golden, ids, on, terms, with};

/// Every action that anybody may try.
fn actions() -> Vec<(&'static str, Action, Actor)> {
    let alice = Actor::User(user("alice"));
    let bob = Actor::User(user("bob"));
    let reason = String::new;
    vec![
        (
            "approve by admin",
            Action::Approve {
                terms: Terms::default(),
                reason: reason(),
            },
            bob.clone(),
        ),
        (
            "approve by self",
            Action::Approve {
                terms: Terms::default(),
                reason: reason(),
            },
            alice.clone(),
        ),
        (
            "approve with other roles by admin",
            Action::Override {
                roles: roles(&["editor"]),
                terms: Terms::default(),
                reason: reason(),
            },
            bob.clone(),
        ),
        (
            "approve with other roles by self",
            Action::Override {
                roles: roles(&["editor"]),
                terms: Terms::default(),
                reason: reason(),
            },
            alice.clone(),
        ),
        (
            "approve by a rule",
            Action::Approve {
                terms: Terms::default(),
                reason: reason(),
            },
            Actor::Rule("night".parse().unwrap()),
        ),
        (
            "deny by admin",
            Action::Deny { reason: reason() },
            bob.clone(),
        ),
        (
            "deny by self",
            Action::Deny { reason: reason() },
            alice.clone(),
        ),
        (
            "revoke by admin",
            Action::Revoke { reason: reason() },
            bob.clone(),
        ),
        ("cancel by self", Action::Cancel, alice.clone()),
        ("cancel by other", Action::Cancel, bob.clone()),
        ("expire by clock", Action::Expire, Actor::Clock),
        ("expire by admin", Action::Expire, Actor::LocalAdministrator),
        (
            "deny by clock",
            Action::Deny { reason: reason() },
            Actor::Clock,
        ),
        ("drop own key", Action::Drop { key: key(0) }, alice.clone()),
        (
            "drop other key",
            Action::Drop { key: key(1) },
            alice.clone(),
        ),
        ("drop by other", Action::Drop { key: key(0) }, bob.clone()),
        (
            "assume own key",
            Action::Assume { key: key(0) },
            alice.clone(),
        ),
        (
            "assume other key",
            Action::Assume { key: key(1) },
            alice.clone(),
        ),
        (
            "assume by other",
            Action::Assume { key: key(2) },
            bob.clone(),
        ),
        ("end by self", Action::End, alice),
        ("end by other", Action::End, bob),
    ]
}

#[test]
fn every_pair_of_state_and_action_has_the_answer_of_the_reviewed_table() {
    let view = small();
    let pending = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let open = approved(&view, &pending, at(1));
    let bob = Actor::User(user("bob"));
    let to =
        |request: &AccessRequest, action, by: &Actor| apply(request, &action, by, at(2)).unwrap();
    let reason = String::new;
    let subjects = [
        ("PENDING", pending.clone(), at(3)),
        ("PENDING past its end", pending.clone(), at(12 * 60)),
        ("APPROVED", open.clone(), at(3)),
        (
            "APPROVED, dropped",
            to(
                &open,
                Action::Drop { key: key(0) },
                &Actor::User(user("alice")),
            ),
            at(3),
        ),
        ("APPROVED past its end", open.clone(), at(12 * 60)),
        (
            "DENIED",
            to(&pending, Action::Deny { reason: reason() }, &bob),
            at(3),
        ),
        (
            "EXPIRED",
            apply(&pending, &Action::Expire, &Actor::Clock, at(720)).unwrap(),
            at(721),
        ),
        (
            "CANCELED",
            to(&pending, Action::Cancel, &Actor::User(user("alice"))),
            at(3),
        ),
        (
            "REVOKED",
            to(&open, Action::Revoke { reason: reason() }, &bob),
            at(3),
        ),
    ];
    let mut out = String::from("# state × action\n");
    for (name, request, now) in subjects {
        writeln!(out, "\n[{name}]").unwrap();
        for (action_name, action, by) in actions() {
            let answer = match apply(&request, &action, &by, now) {
                Ok(next) if next.state == request.state && next == request => {
                    "unchanged".to_owned()
                }
                Ok(next) if next.state == request.state => {
                    let held: Vec<&str> = [(key(0), "own"), (key(1), "other")]
                        .into_iter()
                        .filter(|(key, _)| next.is_held_by(key))
                        .map(|(_, name)| name)
                        .collect();
                    format!("{}, held by [{}]", next.state, held.join(", "))
                }
                Ok(next) => next.state.to_string(),
                Err(error) => format!("refused: {error}"),
            };
            writeln!(out, "{action_name:<17} {answer}").unwrap();
        }
    }
    golden::compare("transitions.txt", &out);
}

/// What must hold of every request that can come about.
fn check_invariants(before: &AccessRequest, after: &AccessRequest, path: &str) {
    let ends = [
        State::Denied,
        State::Expired,
        State::Canceled,
        State::Revoked,
    ];
    assert!(
        !ends.contains(&before.state),
        "{path}: what is over stays over"
    );
    assert!(
        after.access_expires <= before.access_expires,
        "{path}: expiry never grows"
    );
    assert!(
        after.request_expires <= before.request_expires,
        "{path}: it is never pending for longer"
    );
    let was_open = matches!(after.state, State::Approved | State::Revoked);
    assert!(
        after.granted.is_some() || !was_open,
        "{path}: open without a grant"
    );
    let still_open = matches!(
        after.state,
        State::Pending | State::Denied | State::Canceled
    );
    assert!(
        after.granted.is_none() || !still_open,
        "{path}: a grant without an approval"
    );
    let only_forward = match (before.state, after.state) {
        (State::Pending, State::Pending | State::Approved | State::Denied) => true,
        (State::Pending, State::Expired | State::Canceled) => true,
        (State::Approved, State::Approved | State::Expired | State::Revoked) => true,
        (_, _) => false,
    };
    assert!(
        only_forward,
        "{path}: {} became {}",
        before.state, after.state
    );
    if let Some(granted) = &after.granted {
        assert!(
            granted
                .roles
                .iter()
                .all(|role| after.roles.contains(role) || granted.overridden.contains(role)),
            "{path}: more roles than asked"
        );
        for id in granted.reach.resources() {
            assert!(
                after.reach.resources().any(|asked| asked.covers(id)),
                "{path}: more than asked"
            );
        }
    }
    let authors: BTreeSet<_> = after.reviews.iter().map(|review| &review.author).collect();
    assert_eq!(
        authors.len(),
        after.reviews.len(),
        "{path}: a person counts once"
    );
    assert!(
        !authors.iter().any(|author| author.is_user(&after.user)),
        "{path}: nobody reviews a request of their own"
    );
}

/// The same people beside a rule that approves, one that denies, and a pre-approval of dan's.
fn automatic(view: &View) -> Vec<(&'static str, View)> {
    let rule = |decision: &str| {
        let text = format!(
            "kind: access_monitoring_rule\nversion: v1\nmetadata: {{name: {}}}\nspec: {{subjects: [access_request], condition: 'true', desired_state: reviewed, automatic_review: {{integration: builtin, decision: {decision}}}}}\n",
            decision.to_lowercase()
        );
        anteroom_core::documents::parse_monitoring_rule(&text).unwrap()
    };
    let allowance = Allowance {
        id: AllowanceId::from_uuid(uuid::Uuid::from_u128(1)),
        author: user("dan"),
        key: key(6),
        certificate: None,
        user: user("alice"),
        covers: Covers::Nodes {
            labels: BTreeMap::from([("env".to_owned(), "staging".to_owned())]),
            logins: None,
            roles: None,
        },
        reason: String::new(),
        created: at(0),
        ends: at(90),
    };
    vec![
        (
            "a rule approves",
            view.clone().with_monitoring_rules([rule("APPROVED")]),
        ),
        (
            "a rule denies",
            view.clone().with_monitoring_rules([rule("DENIED")]),
        ),
        ("a pre-approval", view.clone().with_allowances([allowance])),
    ]
}

/// Breadth first over everything that anybody may do at any of a few instants, to the end.
#[test]
fn no_sequence_of_acts_breaks_an_invariant() {
    let text = "kind: role\nmetadata: {name: two}\nspec: {allow: {request: {search_as_roles: [access], thresholds: [{approve: 2, deny: 2}]}}}\n";
    let view = with(text, &["two", "reviewer"]).with_user(a_user("dan", &[6], &["reviewer"], &[]));
    let first = filed(&view, &alice(), &on(&view, 1, ""), 1, at(0));
    // Before and after a start that a reviewer sets, and at the very end.
    let instants = [at(1), at(100), at(12 * 60)];
    let automatic = automatic(&view);
    let one_login = ids(&view, &[&format!("{}?logins=root", node_id(1))]);
    let verdicts = [
        approve(),
        terms(|t| {
            t.resources = Some(one_login.clone());
            t.max_duration = Some(Duration::hours(1));
        }),
        terms(|t| t.assume_start = Some(at(90))),
        Verdict::Deny,
    ];
    let mut seen: BTreeMap<String, State> = BTreeMap::new();
    let mut queue = VecDeque::from([(first, 0_usize, String::new())]);
    while let Some((request, instant, path)) = queue.pop_front() {
        for (later, now) in instants.iter().enumerate().skip(instant) {
            let mut next: Vec<(String, AccessRequest)> = Vec::new();
            for (name, action, by) in actions() {
                if let Ok(after) = apply(&request, &action, &by, *now) {
                    next.push((format!("{path} > {name}@{later}"), after));
                }
            }
            for reviewer in ["alice", "bob", "carol", "dan"] {
                for (n, verdict) in verdicts.iter().enumerate() {
                    let done = review(&view, &user(reviewer), &request, verdict.clone(), "", *now);
                    if let Ok(done) = done {
                        next.push((
                            format!("{path} > {reviewer} says {n}@{later}"),
                            done.request,
                        ));
                    }
                }
            }
            // At the first instant only: what comes later differs in nothing but the number of states.
            for (name, view) in automatic.iter().filter(|_| later == 0) {
                let reviews = automatic_reviews(view, &request, *now);
                for after in reviews.into_iter().filter_map(|given| given.outcome.ok()) {
                    next.push((format!("{path} > {name}@{later}"), after));
                }
            }
            for (path, after) in next {
                check_invariants(&request, &after, &path);
                // When something was done does not matter to what can follow, only the instant.
                let fingerprint = format!("{later} {after:?}");
                if seen.insert(fingerprint, after.state).is_none() {
                    check_access(&view, &after, &instants, &path);
                    queue.push_back((after, later, path));
                }
            }
        }
    }
    let reached: BTreeSet<State> = seen.values().copied().collect();
    assert_eq!(
        reached,
        State::ALL.into_iter().collect(),
        "every state is reached"
    );
    assert!(seen.len() > 500, "only {} states were explored", seen.len());
}

/// Access is open exactly for a key that holds an approved request inside its window.
fn check_access(view: &View, request: &AccessRequest, instants: &[OffsetDateTime], path: &str) {
    let view = view.clone().with_request(request.clone());
    for now in instants {
        for holder in [0, 1, 2] {
            let holder: KeyFingerprint = key(holder);
            let identity = Identity::from_proven_key(user("alice"), holder.clone());
            let permitted = match decide(&view, &identity, &access("root", 1), *now) {
                Decision::Permit(permit) => {
                    assert_eq!(permit.ends(), Some(request.access_expires), "{path}");
                    true
                }
                Decision::Ask(_) | Decision::Deny(_) => false,
            };
            let own_key = holder != key(2);
            // An administrator may have put in roles that don't open this.
            let opens = request
                .granted
                .as_ref()
                .is_some_and(|granted| granted.roles.contains(&role("access")));
            let expected = own_key && opens && request.is_held_by(&holder) && request.is_open(*now);
            assert_eq!(permitted, expected, "{path} at {now}");
        }
    }
}
