//! What locks do to decisions, listings, requests and administration: each kind, and what it leaves alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use anteroom_core::admin::{AdminResource, AdminVerb, Rights};
use anteroom_core::id::LockId;
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::policy::{
    Decision, Identity, Reason, Visibility, decide, requestable_nodes, visible_nodes,
};
use anteroom_core::request::{FilingError, file, may_review};
use anteroom_core::view::View;
use proptest::prelude::*;
use time::OffsetDateTime;
use world::*;

fn lock(number: u128, target: LockTarget) -> Lock {
    Lock {
        id: LockId::from_uuid(uuid::Uuid::from_u128(number)),
        target,
        message: "stolen laptop".to_owned(),
        created: T0,
        created_by: "erin".to_owned(),
        expires: None,
    }
}

fn carol() -> Identity {
    Identity::from_proven_key(user("carol"), key(3))
}

/// Why `login` on iot is refused; panics where it is not.
fn refused(view: &View, who: &Identity, login: &str, now: OffsetDateTime) -> (Reason, Visibility) {
    match decide(view, who, &access(login, 1), now) {
        Decision::Deny(denial) => (denial.reasons[0].clone(), denial.visibility),
        other @ (Decision::Permit(_) | Decision::Ask(_)) => {
            panic!("expected a denial, got {other:?}")
        }
    }
}

fn permits(view: &View, who: &Identity, login: &str, now: OffsetDateTime) -> bool {
    matches!(
        decide(view, who, &access(login, 1), now),
        Decision::Permit(_)
    )
}

fn asks(view: &View, who: &Identity, login: &str, now: OffsetDateTime) -> bool {
    matches!(decide(view, who, &access(login, 1), now), Decision::Ask(_))
}

fn locked(target: LockTarget) -> Reason {
    Reason::TargetLocked {
        target,
        message: "stolen laptop".to_owned(),
    }
}

/// [`small`] with alice's approved request for root on iot.
fn granted() -> (View, anteroom_core::request::AccessRequest) {
    let view = small();
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 9, at(0));
    let request = approved(&view, &request, at(1));
    (view.with_request(request.clone()), request)
}

#[test]
fn a_locked_user_may_nothing_and_is_told_why() {
    let view = small().with_lock(lock(1, LockTarget::User(user("carol"))));
    let (reason, _) = refused(&view, &carol(), "carol", at(0));
    let message = "stolen laptop".to_owned();
    assert_eq!(reason, Reason::Locked { message });
    assert!(visible_nodes(&view, &carol(), at(0)).is_empty());
    assert!(asks(&view, &alice(), "root", at(0)), "others go on");
}

#[test]
fn a_locked_key_shuts_out_that_key_only() {
    let (view, _) = granted();
    let target = LockTarget::Key(key(1));
    let view = view.with_lock(lock(1, target.clone()));
    assert!(permits(&view, &alice(), "root", at(2)));
    let other_key = Identity::from_proven_key(user("alice"), key(1));
    assert_eq!(refused(&view, &other_key, "root", at(2)).0, locked(target));
}

#[test]
fn a_locked_role_shuts_out_everybody_who_has_it_and_every_request_that_gives_it() {
    let (view, _) = granted();
    let target = LockTarget::Role(role("access"));
    let view = view.with_lock(lock(1, target.clone()));
    // carol has it.
    assert_eq!(
        refused(&view, &carol(), "carol", at(2)).0,
        locked(target.clone())
    );
    // alice's request gives it.
    assert_eq!(
        refused(&view, &alice(), "root", at(2)).0,
        locked(target.clone())
    );
    // She could ask for other logins through it: not now.
    let (reason, visibility) = refused(&view, &alice(), "alice", at(2));
    assert_eq!((reason, visibility), (locked(target), Visibility::Visible));
    assert!(requestable_nodes(&view, &alice(), at(2)).is_empty());
    assert!(may_review(&view, &user("bob"), &granted().1).is_ok());
}

#[test]
fn a_locked_request_gives_nothing_and_is_not_asked_for_again() {
    let (view, request) = granted();
    let target = LockTarget::Request(request.id);
    let shut = view.clone().with_lock(lock(1, target.clone()));
    assert_eq!(refused(&shut, &alice(), "root", at(2)).0, locked(target));
    assert!(permits(&view, &alice(), "root", at(2)));
    assert!(
        asks(&shut, &alice(), "alice", at(2)),
        "another login is another request"
    );
}

#[test]
fn a_locked_pending_request_is_not_waited_for() {
    let view = small();
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 9, at(0));
    let target = LockTarget::Request(request.id);
    let view = view.with_request(request);
    assert!(asks(&view, &alice(), "root", at(1)));
    let view = view.with_lock(lock(1, target.clone()));
    assert_eq!(refused(&view, &alice(), "root", at(1)).0, locked(target));
}

#[test]
fn a_locked_login_is_shut_on_every_node_and_others_stay_open() {
    let view = small().with_user(a_user("carol", &[3], &["access"], &["carol", "root"]));
    let target = LockTarget::Login("root".parse().unwrap());
    let view = view.with_lock(lock(1, target.clone()));
    assert_eq!(
        refused(&view, &carol(), "root", at(0)).0,
        locked(target.clone())
    );
    assert!(permits(&view, &carol(), "carol", at(0)));
    assert_eq!(refused(&view, &alice(), "root", at(0)).0, locked(target));
    let usable = visible_nodes(&view, &carol(), at(0));
    assert_eq!(usable[0].logins.len(), 1);
}

#[test]
fn a_locked_node_is_shut_for_everybody_and_hidden_from_nobody_who_knew_it() {
    let target = LockTarget::Node(node_id(1));
    let view = small()
        .with_user(a_user("dave", &[4], &[], &["dave"]))
        .with_lock(lock(1, target.clone()));
    let shown = (locked(target.clone()), Visibility::Visible);
    assert_eq!(refused(&view, &carol(), "carol", at(0)), shown);
    assert_eq!(refused(&view, &alice(), "root", at(0)), shown);
    assert!(visible_nodes(&view, &carol(), at(0)).is_empty());
    assert!(requestable_nodes(&view, &alice(), at(0)).is_empty());
    let dave = Identity::from_proven_key(user("dave"), key(4));
    let (_, visibility) = refused(&view, &dave, "dave", at(0));
    assert_eq!(visibility, Visibility::Hidden);
}

#[test]
fn a_lock_on_something_else_changes_nothing() {
    let view = small()
        .with_lock(lock(1, LockTarget::User(user("bob"))))
        .with_lock(lock(2, LockTarget::Key(key(0))))
        .with_lock(lock(3, LockTarget::Role(role("editor"))))
        .with_lock(lock(4, LockTarget::Request(request_id(77))))
        .with_lock(lock(5, LockTarget::Login("root".parse().unwrap())))
        .with_lock(lock(6, LockTarget::Node(node_id(2))))
        .with_lock(lock(7, LockTarget::Serial(7)));
    assert!(permits(&view, &carol(), "carol", at(0)));
}

#[test]
fn a_lock_ends_by_itself_at_its_instant() {
    let ends = Lock {
        expires: Some(at(5)),
        ..lock(1, LockTarget::User(user("carol")))
    };
    let view = small().with_lock(ends);
    let before = at(5) - time::Duration::MICROSECOND;
    refused(&view, &carol(), "carol", before);
    assert!(permits(&view, &carol(), "carol", at(5)));
}

#[test]
fn who_is_locked_asks_for_nothing_also_not_for_when_the_lock_has_ended() {
    let ends = Lock {
        expires: Some(at(5)),
        ..lock(1, LockTarget::Key(key(0)))
    };
    let view = small().with_lock(ends);
    let mut wanted = wants_root_on_iot(&view);
    wanted.assume_start = Some(at(60));
    let outcome = file(&view, &alice(), &wanted, request_id(9), at(0));
    assert!(
        matches!(outcome, Err(FilingError::Refused(_))),
        "{outcome:?}"
    );
    assert!(file(&view, &alice(), &wanted, request_id(9), at(5)).is_ok());
}

#[test]
fn who_is_locked_neither_reviews_nor_administers() {
    let view = small().with_user(a_user("erin", &[5], &["editor"], &[]));
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 9, at(0));
    let may = |view: &View| {
        Rights::new(view, &user("erin"), AdminVerb::Create, AdminResource::Lock).exist()
    };
    assert!(may(&view) && may_review(&view, &user("bob"), &request).is_ok());
    for target in [
        LockTarget::User(user("erin")),
        LockTarget::Role(role("editor")),
    ] {
        assert!(!may(&view.clone().with_lock(lock(1, target))));
    }
    for target in [
        LockTarget::User(user("bob")),
        LockTarget::Role(role("reviewer")),
    ] {
        let view = view.clone().with_lock(lock(1, target));
        assert!(may_review(&view, &user("bob"), &request).is_err());
    }
}

#[test]
fn what_a_locked_request_denies_stays_denied() {
    let view = with_roles(
        small().with_user(a_user("alice", &[0], &["asks"], &["root"])),
        r"
kind: role
metadata: {name: asks}
spec: {allow: {logins: [root], node_labels: {'*': '*'}, request: {roles: [no-root]}}}
---
kind: role
metadata: {name: no-root}
spec: {deny: {logins: [root]}}
---
kind: role
metadata: {name: reviews}
spec: {allow: {review_requests: {roles: [no-root]}}}
",
    )
    .with_user(a_user("bob", &[2], &["reviews"], &[]));
    let wanted = anteroom_core::request::Wanted::roles(roles(&["no-root"]));
    let request = filed(&view, &alice(), &wanted, 9, at(0));
    let request = approved(&view, &request, at(1));
    assert!(permits(&view, &alice(), "root", at(2)));
    let target = LockTarget::Request(request.id);
    let view = view.with_request(request).with_lock(lock(1, target));
    let (reason, _) = refused(&view, &alice(), "root", at(2));
    assert_eq!(
        reason,
        Reason::LoginDenied {
            role: role("no-root")
        }
    );
}

fn target() -> impl Strategy<Value = LockTarget> {
    prop_oneof![
        prop_oneof!["alice", "bob", "carol"].prop_map(|n| LockTarget::User(user(&n))),
        (0_u8..4).prop_map(|n| LockTarget::Key(key(n))),
        prop_oneof!["access", "requester"].prop_map(|n| LockTarget::Role(role(&n))),
        (8_u128..11).prop_map(|n| LockTarget::Request(request_id(n))),
        prop_oneof!["root", "alice", "carol"].prop_map(|n| LockTarget::Login(n.parse().unwrap())),
        (1_u128..3).prop_map(|n| LockTarget::Node(node_id(n))),
        (1_u64..3).prop_map(LockTarget::Serial),
    ]
}

proptest! {
    /// Whatever is locked: nothing becomes possible that was not, what is listed as usable is what
    /// is permitted, and nobody learns of a node by a lock.
    #[test]
    fn locks_only_take_away(targets in proptest::collection::vec((target(), -1_i64..3), 0..4)) {
        let (free, _) = granted();
        let locks = targets.into_iter().zip(1..).map(|((target, minutes), number)| Lock {
            expires: (minutes > 0).then(|| at(minutes)),
            ..lock(number, target)
        });
        let view = free.clone().with_locks(locks);
        let now = at(2);
        for who in [alice(), carol(), Identity::from_proven_key(user("bob"), key(2))] {
            let usable = visible_nodes(&view, &who, now);
            let askable = requestable_nodes(&view, &who, now);
            for login in ["root", "alice", "carol"] {
                let permitted = permits(&view, &who, login, now);
                prop_assert!(!permitted || permits(&free, &who, login, now));
                let login: anteroom_core::id::Login = login.parse().unwrap();
                prop_assert_eq!(permitted, usable.iter().any(|node| node.logins.contains(&login)));
                let listed = askable.iter().any(|node| node.logins.contains_key(&login));
                let asked = asks(&view, &who, login.as_str(), now);
                // A request of hers that is locked is not asked for again; the list shows it all the same.
                prop_assert!(!asked || listed);
                prop_assert!(!asked || !permits(&free, &who, login.as_str(), now)
                    && asks(&free, &who, login.as_str(), now));
                if let Decision::Deny(denial) = decide(&view, &who, &access(login.as_str(), 1), now) {
                    let known = visible_nodes(&free, &who, now).len()
                        + requestable_nodes(&free, &who, now).len() > 0;
                    prop_assert!(denial.visibility == Visibility::Hidden || known);
                }
            }
        }
    }
}
