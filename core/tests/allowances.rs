//! Pre-approvals: which requests they review, how long what they open lasts, and who may give them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use anteroom_core::allowance::{
    AllowError, Allowance, Covers, GivenBy, LONGEST, MOST_FOR_USER, MOST_NAMES, MOST_OF_AUTHOR,
};
use anteroom_core::id::{AllowanceId, Login, ResourceId};
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::policy::{Decision, decide};
use anteroom_core::request::{
    AccessRequest, Action, Actor, Filed, Reach, ReviewError, State, Terms, Verdict, Wanted,
    allowance_reviews, apply, automatic_reviews, file_for, review,
};
use anteroom_core::view::View;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;
use world::*;

fn staging() -> Covers {
    nodes(&[("env", "staging")])
}

fn nodes(labels: &[(&str, &str)]) -> Covers {
    Covers::Nodes {
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        logins: None,
        roles: None,
    }
}

/// bob's yes to alice, for two hours from the start.
fn allowance(covers: Covers) -> Allowance {
    Allowance {
        id: AllowanceId::from_uuid(Uuid::from_u128(7)),
        author: user("bob"),
        key: key(2),
        certificate: None,
        user: user("alice"),
        covers,
        reason: "on call".to_owned(),
        created: T0,
        ends: at(120),
    }
}

fn asked(view: &View, now: OffsetDateTime) -> AccessRequest {
    filed(view, &alice(), &wants_root_on_iot(view), 1, now)
}

/// alice's request after whatever is said of it at once.
fn then(view: &View, request: &AccessRequest, now: OffsetDateTime) -> AccessRequest {
    let reviews = automatic_reviews(view, request, now);
    let mut taken = reviews.into_iter().filter_map(|review| review.outcome.ok());
    taken.next_back().unwrap_or_else(|| request.clone())
}

/// What becomes of alice's request for root on iot, filed at `now`.
fn becomes(view: &View, now: OffsetDateTime) -> State {
    then(view, &asked(view, now), now).state
}

fn logins(names: &[&str]) -> Option<BTreeSet<Login>> {
    Some(names.iter().map(|name| name.parse().unwrap()).collect())
}

#[test]
fn what_it_covers_is_approved_in_the_authors_name_and_ends_with_it() {
    let view = small().with_allowances([allowance(staging())]);
    let request = then(&view, &asked(&view, at(30)), at(30));
    assert_eq!(request.state, State::Approved);
    assert_eq!(request.access_expires, at(120));
    let review = &request.reviews[0];
    assert!(review.author.is_user(&user("bob")));
    assert_eq!(review.allowance, Some(allowance(staging()).id));
    assert_eq!(review.reason, "on call");
    let resolved = request.resolved.clone().unwrap();
    assert_eq!(resolved.by, Actor::User(user("bob")));
    let view = view.with_request(request);
    let open = |now| decide(&view, &alice(), &access("root", 1), now);
    assert!(matches!(open(at(119)), Decision::Permit(_)));
    assert!(!matches!(open(at(120)), Decision::Permit(_)));
}

#[test]
fn what_it_does_not_cover_waits() {
    let of_iot = |covers: Covers| becomes(&small().with_allowances([allowance(covers)]), T0);
    assert_eq!(of_iot(nodes(&[("env", "staging")])), State::Approved);
    for labels in [
        &[("env", "prod")][..],
        &[("env", "staging"), ("os", "linux")],
        &[("env", "stag*")],
        &[("env", "*")],
        &[("*", "*")],
        &[("ENV", "staging")],
        &[("env", "")],
        &[],
    ] {
        assert_eq!(of_iot(nodes(labels)), State::Pending, "{labels:?}");
    }
    for (given, verdict) in [
        (&["root"][..], State::Approved),
        (&["deploy", "root"], State::Approved),
        (&["deploy"], State::Pending),
        (&[], State::Pending),
    ] {
        let Covers::Nodes { labels, .. } = staging() else {
            unreachable!()
        };
        let covers = Covers::Nodes {
            labels,
            logins: logins(given),
            roles: None,
        };
        assert_eq!(of_iot(covers), verdict, "{given:?}");
    }
    for (given, verdict) in [("access", State::Approved), ("editor", State::Pending)] {
        let Covers::Nodes { labels, .. } = staging() else {
            unreachable!()
        };
        let covers = Covers::Nodes {
            labels,
            logins: None,
            roles: Some(roles(&[given])),
        };
        assert_eq!(of_iot(covers), verdict, "{given}");
    }
    // A role as a whole is another thing than nodes through it.
    assert_eq!(of_iot(Covers::Roles(roles(&["access"]))), State::Pending);
}

#[test]
fn every_resource_of_the_request_has_to_match_and_none_may_be_gone() {
    let view = small()
        .with_node(a_node(2, "twin", &[("env", "staging")]))
        .with_node(a_node(3, "core", &[("env", "prod")]))
        .with_allowances([allowance(staging())]);
    let of = |ids: &[u128]| {
        let id = |n: &u128| ResourceId::node(view.cluster().clone(), node_id(*n));
        let wanted = Wanted::resources(ids.iter().map(id).collect());
        filed(&view, &alice(), &wanted, 1, T0)
    };
    assert_eq!(then(&view, &of(&[1, 2]), T0).state, State::Approved);
    assert_eq!(then(&view, &of(&[1, 3]), T0).state, State::Pending);
    let request = of(&[1, 2]);
    let less = view.without_node(&node_id(2));
    assert_eq!(then(&less, &request, T0).state, State::Pending);
    // A node that is given another label is another case.
    let relabelled = small()
        .with_node(a_node(1, "iot", &[("env", "prod")]))
        .with_allowances([allowance(staging())]);
    assert_eq!(becomes(&relabelled, T0), State::Pending);
}

#[test]
fn all_logins_of_a_role_are_more_than_those_that_are_named() {
    let Covers::Nodes { labels, .. } = staging() else {
        unreachable!()
    };
    let covers = Covers::Nodes {
        labels,
        logins: logins(&["root", "alice"]),
        roles: None,
    };
    let view = small().with_allowances([allowance(covers)]);
    let id = ResourceId::node(view.cluster().clone(), node_id(1));
    let wanted = Wanted::resources([id].into());
    let request = filed(&view, &alice(), &wanted, 1, T0);
    assert_eq!(then(&view, &request, T0).state, State::Pending);
}

#[test]
fn a_resource_of_another_cluster_is_never_covered() {
    let view = small().with_allowances([allowance(staging())]);
    let mut request = asked(&view, T0);
    let foreign = ResourceId::node("other.example".parse().unwrap(), node_id(1));
    request.reach = Reach::Resources([foreign].into());
    assert_eq!(then(&view, &request, T0).state, State::Pending);
}

#[test]
fn only_its_user_is_reviewed_and_only_until_it_ends() {
    let view = small()
        .with_user(a_user("dora", &[5], &["requester"], &["root"]))
        .with_allowances([allowance(staging())]);
    let dora = anteroom_core::policy::Identity::from_proven_key(user("dora"), key(5));
    let request = filed(&view, &dora, &wants_root_on_iot(&view), 1, T0);
    assert_eq!(then(&view, &request, T0).state, State::Pending);
    assert_eq!(becomes(&view, at(119)), State::Approved);
    assert_eq!(becomes(&view, at(120)), State::Pending);
    let gone = view.without_allowance(&allowance(staging()).id);
    assert_eq!(becomes(&gone, T0), State::Pending);
}

#[test]
fn an_author_who_may_not_review_any_more_is_not_heard() {
    let view = || small().with_allowances([allowance(staging())]);
    assert_eq!(becomes(&view(), T0), State::Approved);
    let bob = |roles: &[&str]| a_user("bob", &[2], roles, &["bob"]);
    assert_eq!(becomes(&view().with_user(bob(&[])), T0), State::Pending);
    let mut flagged = bob(&["reviewer"]);
    flagged.locked = Some("left".to_owned());
    assert_eq!(becomes(&view().with_user(flagged), T0), State::Pending);
    assert_eq!(
        becomes(&view().without_user(&user("bob")), T0),
        State::Pending
    );
    // The key that it was given with is not his any more.
    let rekeyed = a_user("bob", &[4], &["reviewer"], &["bob"]);
    assert_eq!(becomes(&view().with_user(rekeyed), T0), State::Pending);
    let more = a_user("bob", &[2, 4], &["reviewer"], &["bob"]);
    assert_eq!(becomes(&view().with_user(more), T0), State::Approved);
    for target in [
        LockTarget::Key(key(2)),
        LockTarget::User(user("bob")),
        LockTarget::Role(role("reviewer")),
    ] {
        let lock = Lock {
            id: anteroom_core::id::LockId::from_uuid(Uuid::from_u128(9)),
            target: target.clone(),
            message: String::new(),
            created: T0,
            created_by: "erin".to_owned(),
            expires: None,
        };
        assert_eq!(
            becomes(&view().with_lock(lock), T0),
            State::Pending,
            "{target}"
        );
    }
    // Of the certificate that it was given with as well.
    let certified = || {
        view().with_allowances([Allowance {
            certificate: Some(GivenBy {
                serial: 77,
                key: key(8),
            }),
            ..allowance(staging())
        }])
    };
    assert_eq!(becomes(&certified(), T0), State::Approved);
    for target in [LockTarget::Serial(77), LockTarget::Key(key(8))] {
        let lock = Lock {
            id: anteroom_core::id::LockId::from_uuid(Uuid::from_u128(9)),
            target: target.clone(),
            message: String::new(),
            created: T0,
            created_by: "erin".to_owned(),
            expires: None,
        };
        let state = becomes(&certified().with_lock(lock), T0);
        assert_eq!(state, State::Pending, "{target}");
    }
    let denied = with_roles(
        view(),
        "{kind: role, version: v8, metadata: {name: mute}, spec: {deny: {review_requests: {roles: ['*']}}}}",
    );
    let denied = denied.with_user(bob(&["reviewer", "mute"]));
    assert_eq!(becomes(&denied, T0), State::Pending);
}

#[test]
fn conditions_of_the_author_are_asked_of_each_request() {
    let view = with_roles(
        small(),
        "{kind: role, version: v8, metadata: {name: careful}, spec: {allow: {review_requests: \
         {roles: [access], where: 'request.reason == \"incident\"'}}}}",
    );
    let view = view.with_user(a_user("bob", &[2], &["careful"], &["bob"]));
    // Whether a condition will hold is not known when it is given.
    allowance(staging()).check(&view, T0).unwrap();
    let view = view.with_allowances([allowance(staging())]);
    for (reason, state) in [("incident", State::Approved), ("why not", State::Pending)] {
        let wanted = Wanted {
            reason: reason.to_owned(),
            ..wants_root_on_iot(&view)
        };
        let request = filed(&view, &alice(), &wanted, 1, T0);
        assert_eq!(then(&view, &request, T0).state, state);
    }
}

#[test]
fn nobody_is_reviewed_by_an_allowance_of_their_own_nor_by_who_files_for_them() {
    let own = Allowance {
        author: user("alice"),
        ..allowance(staging())
    };
    let view = small().with_user(a_user("alice", &[0], &["requester", "reviewer"], &["root"]));
    assert_eq!(own.check(&view, T0), Err(AllowError::Own));
    assert_eq!(becomes(&view.with_allowances([own]), T0), State::Pending);
    let view = small()
        .with_user(a_user("bob", &[2], &["reviewer", "editor"], &[]))
        .with_allowances([allowance(staging())]);
    let wanted = wants_root_on_iot(&view);
    let bob = Actor::User(user("bob"));
    let filed = file_for(&view, &user("alice"), &bob, &wanted, request_id(1), T0).unwrap();
    let Filed::New(new) = filed else {
        panic!("{filed:?}")
    };
    assert_eq!(then(&view, &new.request, T0).state, State::Pending);
}

#[test]
fn roles_as_a_whole_are_covered_by_name_and_only_all_of_them() {
    let view = with_roles(
        small(),
        "
kind: role
version: v8
metadata: {name: asks}
spec: {allow: {request: {roles: [dba, ops]}}}
---
kind: role
version: v8
metadata: {name: judges}
spec: {allow: {review_requests: {roles: [dba, ops]}}}
---
{kind: role, version: v8, metadata: {name: dba}, spec: {}}
---
{kind: role, version: v8, metadata: {name: ops}, spec: {}}",
    );
    let view = view.with_users([
        a_user("alice", &[0], &["asks"], &[]),
        a_user("bob", &[2], &["judges"], &[]),
    ]);
    let dba = allowance(Covers::Roles(roles(&["dba"])));
    dba.check(&view, T0).unwrap();
    let view = view.with_allowances([dba]);
    for (names, state) in [
        (&["dba"][..], State::Approved),
        (&["ops"], State::Pending),
        (&["dba", "ops"], State::Pending),
    ] {
        let request = filed(&view, &alice(), &Wanted::roles(roles(names)), 1, T0);
        assert_eq!(then(&view, &request, T0).state, state, "{names:?}");
    }
}

/// A role of the requester that wants two approvals.
fn two_needed(view: View) -> View {
    let view = with_roles(
        view,
        "{kind: role, version: v8, metadata: {name: twice}, spec: {allow: {request: \
         {search_as_roles: [access], thresholds: [{approve: 2, deny: 1}]}}}}",
    );
    view.with_users([
        a_user("alice", &[0, 1], &["twice"], &["root"]),
        a_user("bea", &[6], &["reviewer"], &[]),
        a_user("carol", &[3], &["reviewer"], &[]),
    ])
}

#[test]
fn it_counts_as_one_review_and_bounds_the_sum_of_them() {
    let view = two_needed(small()).with_allowances([allowance(staging())]);
    let request = then(&view, &asked(&view, T0), T0);
    assert_eq!((request.state, request.reviews.len()), (State::Pending, 1));
    // A pending request lapses no later than its access would end.
    assert_eq!(request.request_expires, at(120));
    let approve = Verdict::Approve(Terms::default());
    let again = review(&view, &user("bob"), &request, approve.clone(), "", T0);
    assert_eq!(again, Err(ReviewError::AlreadyReviewed(request.id)));
    let late = at(100);
    let by_bea = review(&view, &user("bea"), &request, approve, "", late).unwrap();
    assert_eq!(by_bea.request.state, State::Approved);
    // What a second reviewer says on top never makes it longer.
    assert_eq!(by_bea.request.access_expires, at(120));
    let moved = Verdict::Approve(Terms {
        assume_start: Some(at(120)),
        ..Terms::default()
    });
    review(&view, &user("bea"), &request, moved, "", late).unwrap_err();
}

#[test]
fn two_of_one_author_are_one_review_and_two_of_two_are_two() {
    let second = |author: &str, minutes| Allowance {
        id: AllowanceId::from_uuid(Uuid::from_u128(8)),
        author: user(author),
        key: key(if author == "bea" { 6 } else { 2 }),
        ends: at(minutes),
        ..allowance(staging())
    };
    let of = |more: Allowance| {
        let view = two_needed(small()).with_allowances([allowance(staging()), more]);
        then(&view, &asked(&view, T0), T0)
    };
    let once = of(second("bob", 240));
    assert_eq!((once.state, once.reviews.len()), (State::Pending, 1));
    let both = of(second("bea", 240));
    assert_eq!((both.state, both.reviews.len()), (State::Approved, 2));
    assert_eq!(both.access_expires, at(120));
    // Where one suffices, the one that lasts longest gives most.
    let view = small()
        .with_user(a_user("bea", &[6], &["reviewer"], &[]))
        .with_allowances([allowance(staging()), second("bea", 240)]);
    let request = then(&view, &asked(&view, T0), T0);
    assert_eq!(request.reviews.len(), 1);
    assert_eq!(request.access_expires, at(240));
}

#[test]
fn a_review_that_no_threshold_counts_is_not_given() {
    let view = with_roles(
        small(),
        "{kind: role, version: v8, metadata: {name: filtered}, spec: {allow: {request: \
         {search_as_roles: [access], thresholds: [{filter: 'contains(reviewer.roles, \"editor\")', \
         approve: 1, deny: 1}]}}}}",
    );
    let view = view
        .with_user(a_user("alice", &[0], &["filtered"], &["root"]))
        .with_allowances([allowance(staging())]);
    let request = asked(&view, T0);
    assert!(allowance_reviews(&view, &request, T0).is_empty());
}

#[test]
fn no_later_act_stretches_what_it_opened() {
    let view = small().with_allowances([allowance(staging())]);
    let request = then(&view, &asked(&view, at(10)), at(10));
    let me = Actor::User(user("alice"));
    let act = |request: &AccessRequest, action: Action, minutes| {
        let next = apply(request, &action, &me, at(minutes)).unwrap();
        assert_eq!(next.access_expires, at(120), "{action:?}");
        next
    };
    let dropped = act(&request, Action::Drop { key: key(0) }, 20);
    let assumed = act(&dropped, Action::Assume { key: key(0) }, 30);
    act(&assumed, Action::Assume { key: key(1) }, 40);
    // Asked again, it ends at the same instant.
    let view = view.with_request(request);
    let other =
        ResourceId::node_login(view.cluster().clone(), node_id(1), "alice".parse().unwrap());
    let renewed = filed(
        &view,
        &alice(),
        &Wanted::resources([other].into()),
        2,
        at(110),
    );
    let renewed = then(&view, &renewed, at(110));
    assert_eq!(
        (renewed.state, renewed.access_expires),
        (State::Approved, at(120))
    );
}

#[test]
fn an_access_that_would_start_after_its_end_is_not_covered() {
    let view = small().with_allowances([allowance(staging())]);
    for (minutes, state) in [(119, State::Approved), (120, State::Pending)] {
        let wanted = Wanted {
            assume_start: Some(at(minutes)),
            ..wants_root_on_iot(&view)
        };
        let request = filed(&view, &alice(), &wanted, 1, T0);
        let request = then(&view, &request, T0);
        assert_eq!(request.state, state, "{minutes}");
    }
}

#[test]
fn a_shorter_wish_stays_shorter() {
    let view = small().with_allowances([allowance(staging())]);
    let wanted = Wanted {
        max_duration: Some(Duration::minutes(15)),
        ..wants_root_on_iot(&view)
    };
    let request = filed(&view, &alice(), &wanted, 1, T0);
    assert_eq!(then(&view, &request, T0).access_expires, at(15));
}

#[test]
fn a_denying_rule_is_heard_before_it() {
    let rule = anteroom_core::documents::parse_monitoring_rule(
        "{kind: access_monitoring_rule, version: v1, metadata: {name: never}, spec: {subjects: \
         [access_request], condition: 'true', desired_state: reviewed, automatic_review: \
         {integration: builtin, decision: DENIED}}}",
    );
    let view = small()
        .with_monitoring_rules([rule.unwrap()])
        .with_allowances([allowance(staging())]);
    assert_eq!(becomes(&view, T0), State::Denied);
}

#[test]
fn only_what_the_author_could_review_can_be_given_in_advance() {
    let view = small();
    let check = |allowance: Allowance| allowance.check(&view, T0);
    check(allowance(staging())).unwrap();
    let by = |author: &str| Allowance {
        author: user(author),
        ..allowance(staging())
    };
    let unknown = |result: Result<(), AllowError>, who: &str| {
        assert_eq!(result, Err(AllowError::NotNodes(user(who), None)));
    };
    unknown(check(by("carol")), "alice");
    unknown(check(by("nobody")), "alice");
    // Somebody who does not exist is refused like somebody who asks for nothing.
    for who in ["nobody", "carol"] {
        unknown(
            check(Allowance {
                user: user(who),
                ..allowance(staging())
            }),
            who,
        );
    }
    let through = |name: &str| {
        let Covers::Nodes { labels, .. } = staging() else {
            unreachable!()
        };
        let roles = Some(roles(&[name]));
        check(allowance(Covers::Nodes {
            labels,
            logins: None,
            roles,
        }))
    };
    through("access").unwrap();
    assert_eq!(
        through("editor"),
        Err(AllowError::NotNodes(user("alice"), Some(role("editor"))))
    );
    assert_eq!(
        check(allowance(Covers::Roles(roles(&["access"])))),
        Err(AllowError::NotRole {
            user: user("alice"),
            role: role("access")
        })
    );
}

#[test]
fn the_limits_of_an_allowance() {
    let view = small();
    let lasting = |lasts: Duration| Allowance {
        ends: T0 + lasts,
        ..allowance(staging())
    };
    lasting(LONGEST).check(&view, T0).unwrap();
    for (lasts, error) in [
        (
            LONGEST + Duration::SECOND,
            AllowError::TooLong(LONGEST + Duration::SECOND),
        ),
        (Duration::ZERO, AllowError::TooShort),
        (-Duration::HOUR, AllowError::TooShort),
    ] {
        assert_eq!(lasting(lasts).check(&view, T0), Err(error));
    }
    assert_eq!(
        allowance(nodes(&[])).check(&view, T0),
        Err(AllowError::Nothing)
    );
    let many: BTreeMap<String, String> = (0..=MOST_NAMES)
        .map(|n| (n.to_string(), String::new()))
        .collect();
    let count = many.len();
    let covers = Covers::Nodes {
        labels: many,
        logins: None,
        roles: None,
    };
    assert_eq!(
        allowance(covers).check(&view, T0),
        Err(AllowError::TooManyNames {
            what: "labels",
            count
        })
    );
    let wordy = Allowance {
        reason: "x".repeat(4097),
        ..allowance(staging())
    };
    assert!(matches!(
        wordy.check(&view, T0),
        Err(AllowError::ReasonTooLong { .. })
    ));
    let given = |count: usize, to: &dyn Fn(usize) -> &'static str| {
        let each = (0..count).map(|n| Allowance {
            id: AllowanceId::from_uuid(Uuid::from_u128(1000 + u128::try_from(n).unwrap())),
            user: user(to(n)),
            ..allowance(staging())
        });
        view.clone().with_allowances(each)
    };
    let full = given(MOST_FOR_USER, &|_| "alice");
    assert_eq!(
        allowance(staging()).check(&full, T0),
        Err(AllowError::TooManyFor(user("alice")))
    );
    let full = given(MOST_OF_AUTHOR, &|_| "carol");
    assert_eq!(
        allowance(staging()).check(&full, T0),
        Err(AllowError::TooManyOf)
    );
}
