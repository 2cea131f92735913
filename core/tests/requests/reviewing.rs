//! Who may review, whose word counts, and what an approval gives.

use std::collections::BTreeSet;

use anteroom_core::credential::AllowedResources;
use anteroom_core::policy::{Decision, Identity, decide};
use anteroom_core::request::{
    Action, Actor, Effect, FilingError, Reach, ReviewError, State, Terms, TermsError,
    TransitionError, Verdict, Wanted, apply, file, may_review, review, reviewers,
};
use time::Duration;

use crate::world::*;
use crate::{approve, ids, terms, with};

#[test]
fn approval_by_the_requester_is_refused_by_whatever_role_and_path() {
    let all =
        "kind: role\nmetadata: {name: all}\nspec: {allow: {review_requests: {roles: ['*']}}}\n";
    let view = with(all, &["requester", "reviewer", "editor", "all"]);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let own = ReviewError::OwnRequest(request.id);
    assert_eq!(
        review(&view, &user("alice"), &request, approve(), "", at(1)),
        Err(own.clone())
    );
    assert_eq!(
        review(&view, &user("alice"), &request, Verdict::Deny, "", at(1)),
        Err(own)
    );
    let by = Actor::User(user("alice"));
    let action = Action::Approve {
        terms: Terms::default(),
        reason: String::new(),
    };
    let refused = Err(TransitionError::OwnRequest(request.id));
    assert_eq!(apply(&request, &action, &by, at(1)), refused);
    let action = Action::Deny {
        reason: String::new(),
    };
    assert_eq!(apply(&request, &action, &by, at(1)), refused);
    assert!(!reviewers(&view, &request).contains(&user("alice")));
}

#[test]
fn a_reviewer_needs_every_role_of_the_request_and_stored_roles_alone_count() {
    let text = "kind: role\nmetadata: {name: dba}\nspec: {}\n---\nkind: role\nmetadata: {name: asks}\nspec: {allow: {request: {roles: [dba, access]}}}\n---\nkind: role\nmetadata: {name: not-dba}\nspec: {deny: {review_requests: {roles: ['d*']}}}\n---\nkind: role\nmetadata: {name: wide}\nspec: {allow: {review_requests: {roles: ['^(dba|access)$']}}}\n";
    let view = with(text, &["asks"]);
    let wanted = Wanted::roles(roles(&["access", "dba"]));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    let refused = Err(ReviewError::NotAllowed(role("dba")));
    assert_eq!(may_review(&view, &user("bob"), &request), refused);
    let bob = |held: &[&str]| view.clone().with_user(a_user("bob", &[2], held, &[]));
    assert_eq!(may_review(&bob(&["wide"]), &user("bob"), &request), Ok(()));
    assert_eq!(
        may_review(&bob(&["wide", "not-dba"]), &user("bob"), &request),
        refused
    );
    // A role that bob only has by an approved request does not make him a reviewer.
    let view = bob(&["asks-wide"]);
    let view = with_roles(
        view,
        "kind: role\nmetadata: {name: asks-wide}\nspec: {allow: {request: {roles: [wide]}}}\n",
    );
    let bob_ = Identity::from_proven_key(user("bob"), key(2));
    let elevated = filed(&view, &bob_, &Wanted::roles(roles(&["wide"])), 2, at(0));
    let action = Action::Approve {
        terms: Terms::default(),
        reason: String::new(),
    };
    let elevated = apply(&elevated, &action, &Actor::LocalAdministrator, at(1)).unwrap();
    let view = view.with_request(elevated);
    assert_eq!(
        may_review(&view, &user("bob"), &request),
        Err(ReviewError::NotAllowed(role("access")))
    );
}

#[test]
fn a_locked_or_unknown_reviewer_does_not_count() {
    let view = small();
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let mut bob = view.user(&user("bob")).unwrap().as_ref().clone();
    bob.locked = Some(String::new());
    let locked = view.clone().with_user(bob);
    let refused = Err(ReviewError::NoReviewer(user("bob")));
    assert_eq!(
        review(&locked, &user("bob"), &request, approve(), "", at(1)),
        refused
    );
    let gone = view.without_user(&user("bob"));
    assert_eq!(
        review(&gone, &user("bob"), &request, approve(), "", at(1)),
        refused
    );
}

#[test]
fn a_person_counts_once_and_two_are_needed_where_the_role_says_so() {
    let text = "kind: role\nmetadata: {name: two}\nspec: {allow: {request: {search_as_roles: [access], thresholds: [{approve: 2, deny: 1}]}}}\n";
    let view = with(text, &["two", "requester"]).with_user(a_user("dan", &[6], &["reviewer"], &[]));
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let first = review(&view, &user("bob"), &request, approve(), "", at(1)).unwrap();
    assert_eq!(
        first.request.state,
        State::Pending,
        "one set passed, the other did not"
    );
    let again = review(&view, &user("bob"), &first.request, approve(), "", at(2));
    assert_eq!(again, Err(ReviewError::AlreadyReviewed(request.id)));
    let second = review(&view, &user("dan"), &first.request, approve(), "", at(2)).unwrap();
    assert_eq!(second.request.state, State::Approved);
    let denied = review(
        &view,
        &user("dan"),
        &first.request,
        Verdict::Deny,
        "no",
        at(2),
    )
    .unwrap();
    assert_eq!(denied.request.state, State::Denied, "one denial ends it");
    let late = review(&view, &user("bob"), &denied.request, approve(), "", at(3));
    assert_eq!(
        late,
        Err(ReviewError::NotPending {
            id: request.id,
            state: State::Denied
        })
    );
}

#[test]
fn a_count_of_zero_is_never_reached_and_such_a_review_is_said_to_be_ineffectual() {
    let text = "kind: role\nmetadata: {name: zero}\nspec: {allow: {request: {search_as_roles: [access], thresholds: [{approve: 0, deny: 1}]}}}\n---\nkind: role\nmetadata: {name: nodeny}\nspec: {allow: {request: {search_as_roles: [access], thresholds: [{approve: 1}]}}}\n";
    let view = with(text, &["zero"]);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let said = review(&view, &user("bob"), &request, approve(), "", at(1)).unwrap();
    assert_eq!(
        (said.effect, said.request.state),
        (Effect::Ineffectual, State::Pending)
    );
    let view = with(text, &["nodeny"]);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let said = review(&view, &user("bob"), &request, Verdict::Deny, "", at(1)).unwrap();
    assert_eq!(
        (said.effect, said.request.state),
        (Effect::Ineffectual, State::Pending)
    );
}

#[test]
fn an_approval_gives_a_part_and_never_more_than_was_asked() {
    let view = small().with_node(a_node(2, "db", &[]));
    let (iot, db) = (node_id(1).to_string(), node_id(2).to_string());
    let wanted = Wanted::resources(ids(&view, &[&iot, &format!("{db}?logins=root")]));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    let say = |verdict| review(&view, &user("bob"), &request, verdict, "", at(30));
    let refuse = |verdict| match say(verdict) {
        Err(ReviewError::Terms(error)) => error,
        other => panic!("expected wider terms to be refused: {other:?}"),
    };
    let whole_db = ids(&view, &[&db]);
    let more = whole_db.first().unwrap().clone();
    assert_eq!(
        refuse(terms(|t| t.resources = Some(whole_db))),
        TermsError::Resource(more)
    );
    let other_role = terms(|t| t.roles = Some(roles(&["editor"])));
    assert_eq!(refuse(other_role), TermsError::Role(role("editor")));
    assert_eq!(
        refuse(terms(|t| t.resources = Some(BTreeSet::new()))),
        TermsError::NothingLeft
    );
    assert_eq!(
        refuse(terms(|t| t.roles = Some(BTreeSet::new()))),
        TermsError::NothingLeft
    );
    let (given, asked) = (Duration::hours(13), Duration::hours(12));
    let longer = terms(|t| t.max_duration = Some(given));
    assert_eq!(refuse(longer), TermsError::Longer { given, asked });
    let never = terms(|t| t.assume_start = Some(at(12 * 60)));
    let (start, end) = (at(12 * 60), at(12 * 60));
    assert_eq!(refuse(never), TermsError::StartsAfterEnd { start, end });

    let part = ids(&view, &[&format!("{iot}?logins=alice")]);
    let given = say(terms(|t| {
        t.resources = Some(part.clone());
        t.max_duration = Some(Duration::hours(1));
    }));
    let request = given.unwrap().request;
    assert_eq!(
        request.granted.as_ref().unwrap().reach,
        Reach::Resources(part)
    );
    assert_eq!(request.access_expires, at(90), "an hour from the approval");
    let view = view.with_request(request);
    let gets = |login, node| {
        matches!(
            decide(&view, &alice(), &access(login, node), at(31)),
            Decision::Permit(_)
        )
    };
    assert!(gets("alice", 1));
    assert!(!gets("root", 1) && !gets("root", 2) && !gets("alice", 2));
}

#[test]
fn a_shorter_duration_never_moves_the_end_past_what_was_asked() {
    let view = small();
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let verdict = terms(|t| t.max_duration = Some(Duration::hours(11)));
    let late = review(&view, &user("bob"), &request, verdict, "", at(10 * 60)).unwrap();
    assert_eq!(late.request.access_expires, at(12 * 60));
}

#[test]
fn a_reviewer_moves_the_start_a_week_ahead_and_no_further() {
    let text = "kind: role\nmetadata: {name: late}\nspec: {allow: {request: {search_as_roles: [access], max_duration: 2h, duration_from: approval}}}\n";
    let view = with(text, &["late"]);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let start = |start| {
        let verdict = terms(|t| {
            t.assume_start = Some(start);
            t.max_duration = Some(Duration::hours(1));
        });
        review(&view, &user("bob"), &request, verdict, "", at(1))
    };
    let latest = at(1) + Duration::days(7);
    let moved = start(latest).unwrap().request;
    assert_eq!(moved.access_expires, latest + Duration::hours(1));
    let last_of_all = time::PrimitiveDateTime::MAX.assume_utc();
    for given in [latest + Duration::SECOND, last_of_all] {
        let refused = Err(ReviewError::Terms(TermsError::TooFarAhead {
            given,
            latest,
        }));
        assert_eq!(start(given), refused);
    }
}

/// A role that she was given after the login has its say although her certificate does not name
/// it.
#[test]
fn an_old_certificate_leaves_no_terms_behind() {
    let text = "kind: role\nmetadata: {name: strict}\nspec: {allow: {request: {search_as_roles: [access], max_duration: 1h, reason: {mode: required}, thresholds: [{approve: 2, deny: 1}]}}}\n";
    let view = with(text, &["requester", "strict"]);
    let (view, identity) = certified(view, &["requester"], AllowedResources::Unrestricted);
    let mut wanted = wants_root_on_iot(&view);
    wanted.reason = String::new();
    let unfounded = file(&view, &identity, &wanted, request_id(1), at(0));
    assert!(
        matches!(unfounded, Err(FilingError::ReasonRequired { .. })),
        "{unfounded:?}"
    );
    wanted.reason = "ticket 12".to_owned();
    let request = filed(&view, &identity, &wanted, 1, at(0));
    assert_eq!(request.access_expires, at(60));
    let once = review(&view, &user("bob"), &request, approve(), "", at(1)).unwrap();
    assert_eq!(once.request.state, State::Pending);
}

#[test]
fn several_reviewers_give_what_all_of_them_approved() {
    let text = "kind: role\nmetadata: {name: two}\nspec: {allow: {request: {search_as_roles: [access], thresholds: [{approve: 2, deny: 1}]}}}\n";
    let view = with(text, &["two"])
        .with_node(a_node(2, "db", &[]))
        .with_user(a_user("dan", &[6], &["reviewer"], &[]));
    let (iot, db) = (node_id(1).to_string(), node_id(2).to_string());
    let wanted = Wanted::resources(ids(&view, &[&iot, &db]));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    let only = |texts: &[&str]| {
        let part = ids(&view, texts);
        terms(|t| t.resources = Some(part))
    };
    let first = only(&[&format!("{iot}?logins=alice,root"), &db]);
    let first = review(&view, &user("bob"), &request, first, "", at(1))
        .unwrap()
        .request;
    let second = only(&[&format!("{iot}?logins=root")]);
    let both = review(&view, &user("dan"), &first, second, "", at(2))
        .unwrap()
        .request;
    let left = ids(&view, &[&format!("{iot}?logins=root")]);
    assert_eq!(both.granted.unwrap().reach, Reach::Resources(left));
    let first = review(&view, &user("bob"), &request, only(&[&db]), "", at(1))
        .unwrap()
        .request;
    let disjoint = review(&view, &user("dan"), &first, only(&[&iot]), "", at(2));
    assert_eq!(disjoint, Err(ReviewError::Terms(TermsError::NothingLeft)));
}
