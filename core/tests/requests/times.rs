//! How long requests pend, accesses last and sessions under them, and when an access starts.

use anteroom_core::policy::{Decision, decide};
use anteroom_core::request::{Filed, ReviewError, file, review};
use anteroom_core::role::DurationFrom;
use time::Duration;

use crate::world::*;
use crate::{approve, with};

#[test]
fn the_least_of_all_durations_counts_whatever_their_order() {
    let text = |a: &str, b: &str| {
        format!(
            "kind: role\nmetadata: {{name: a}}\nspec: {{allow: {{request: {{search_as_roles: [access], max_duration: {a}}}}}}}\n---\nkind: role\nmetadata: {{name: b}}\nspec: {{allow: {{request: {{search_as_roles: [access], max_duration: {b}}}}}}}\n"
        )
    };
    for (a, b) in [("3d", "2d"), ("2d", "3d")] {
        let view = with(&text(a, b), &["a", "b", "requester"]);
        let mut wanted = wants_root_on_iot(&view);
        assert_eq!(
            filed(&view, &alice(), &wanted, 1, at(0)).duration,
            Duration::days(2)
        );
        // --max-duration only shortens.
        wanted.max_duration = Some(Duration::days(9));
        assert_eq!(
            filed(&view, &alice(), &wanted, 1, at(0)).duration,
            Duration::days(2)
        );
        wanted.max_duration = Some(Duration::hours(1));
        let short = filed(&view, &alice(), &wanted, 1, at(0));
        assert_eq!(
            (short.duration, short.access_expires),
            (Duration::hours(1), at(60))
        );
        assert_eq!(
            short.request_expires,
            at(60),
            "never pending past the end of the access"
        );
    }
}

#[test]
fn without_a_role_that_sets_a_duration_the_access_lasts_one_session() {
    let ttl = "kind: role\nmetadata: {name: access}\nspec: {options: {max_session_ttl: 1h}, allow: {logins: [root], node_labels: {'*': '*'}}}\n";
    let view = with(ttl, &["requester"]);
    let mut wanted = wants_root_on_iot(&view);
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    assert_eq!(
        (request.session_ttl, request.access_expires),
        (Duration::hours(1), at(60))
    );
    wanted.session_ttl = Some(Duration::minutes(10));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    assert_eq!(
        (request.session_ttl, request.access_expires),
        (Duration::minutes(10), at(10))
    );
    wanted.session_ttl = Some(Duration::hours(99));
    wanted.max_duration = Some(Duration::hours(99));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    assert_eq!(
        (request.session_ttl, request.access_expires),
        (Duration::hours(1), at(60))
    );
}

#[test]
fn a_pending_request_lapses_after_its_ttl_and_at_most_seven_days() {
    let text = "kind: role\nmetadata: {name: long}\nspec: {allow: {request: {search_as_roles: [access], max_duration: 14d}}}\n";
    let view = with(text, &["long"]);
    let mut wanted = wants_root_on_iot(&view);
    assert_eq!(
        filed(&view, &alice(), &wanted, 1, at(0)).request_expires,
        at(7 * 24 * 60)
    );
    wanted.request_ttl = Some(Duration::days(30));
    assert_eq!(
        filed(&view, &alice(), &wanted, 1, at(0)).request_expires,
        at(7 * 24 * 60)
    );
    wanted.request_ttl = Some(Duration::minutes(5));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    assert_eq!(request.request_expires, at(5));
    let late = review(&view, &user("bob"), &request, approve(), "", at(5));
    assert_eq!(
        late,
        Err(ReviewError::Lapsed {
            id: request.id,
            at: at(5)
        })
    );
    let just = at(5) - Duration::NANOSECOND;
    review(&view, &user("bob"), &request, approve(), "", just).unwrap();
}

#[test]
fn a_duration_from_the_approval_starts_there() {
    let text = "kind: role\nmetadata: {name: late}\nspec: {allow: {request: {search_as_roles: [access], max_duration: 2h, duration_from: approval}}}\n";
    let view = with(text, &["late"]);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    assert_eq!(request.duration_from, DurationFrom::Approval);
    assert_eq!(
        request.request_expires,
        at(7 * 24 * 60),
        "waiting costs nothing of the access"
    );
    let request = approved(&view, &request, at(600));
    assert_eq!(request.access_expires, at(600 + 120));
}

#[test]
fn a_scheduled_access_opens_at_its_start_and_not_before() {
    let view = small();
    let mut wanted = wants_root_on_iot(&view);
    wanted.assume_start = Some(at(60));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    let request = approved(&view, &request, at(1));
    assert_eq!(request.deadline(at(1)), Some(at(60)));
    assert_eq!(request.deadline(at(60)), Some(at(12 * 60)));
    let view = view.with_request(request);
    let root = access("root", 1);
    let Decision::Ask(ask) = decide(&view, &alice(), &root, at(60) - Duration::NANOSECOND) else {
        panic!("not open yet")
    };
    assert_eq!(ask.opens, Some((request_id(1), at(60))));
    assert!(matches!(
        decide(&view, &alice(), &root, at(60)),
        Decision::Permit(_)
    ));
    // What is wanted for then is covered; what is wanted now is not.
    let then = file(&view, &alice(), &wanted, request_id(2), at(2)).unwrap();
    assert_eq!(then, Filed::Covered(request_id(1)));
    wanted.assume_start = None;
    filed(&view, &alice(), &wanted, 2, at(2));
}
