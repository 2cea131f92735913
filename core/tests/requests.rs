//! The life of a request: filing, reviewing, every pair of state and action, and time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod golden;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use anteroom_core::allowance::{Allowance, Covers};
use anteroom_core::credential::AllowedResources;
use anteroom_core::id::{AllowanceId, KeyFingerprint, ResourceId};
use anteroom_core::policy::{Ask, Decision, Identity, decide};
use anteroom_core::request::{
    AccessRequest, Action, Actor, Effect, Filed, FilingError, Reach, ReviewError, State, Terms,
    TermsError, TransitionError, Verdict, Wanted, apply, automatic_reviews, file, may_review,
    review, reviewers,
};
use anteroom_core::role::{DurationFrom, ReasonMode};
use anteroom_core::view::{FindRequestError, Settings, View};
use time::{Duration, OffsetDateTime};
use world::*;

fn approve() -> Verdict {
    Verdict::Approve(Terms::default())
}

fn terms(change: impl FnOnce(&mut Terms)) -> Verdict {
    let mut terms = Terms::default();
    change(&mut terms);
    Verdict::Approve(terms)
}

fn ids(view: &View, texts: &[&str]) -> BTreeSet<ResourceId> {
    let id = |text: &&str| format!("/{}/node/{text}", view.cluster()).parse().unwrap();
    texts.iter().map(id).collect()
}

fn on(view: &View, node: u128, logins: &str) -> Wanted {
    Wanted::resources(ids(view, &[&format!("{}{logins}", node_id(node))]))
}

fn refuse(view: &View, wanted: &Wanted, now: OffsetDateTime) -> FilingError {
    file(view, &alice(), wanted, request_id(9), now).expect_err("it must be refused")
}

/// `small()` with further roles, and alice holding `held`.
fn with(text: &str, held: &[&str]) -> View {
    with_roles(small(), text).with_user(a_user("alice", &[0, 1], held, &["alice", "root"]))
}

// ---------------------------------------------------------------- filing

#[test]
fn a_denied_connection_files_the_login_it_wanted_and_no_other() {
    let view = small();
    let Decision::Ask(ask) = decide(&view, &alice(), &access("root", 1), at(0)) else {
        panic!()
    };
    let request = filed(&view, &alice(), &Wanted::from_ask(&ask), 1, at(0));
    assert_eq!(request.roles, roles(&["access"]));
    let id = format!("{}?logins=root", node_id(1));
    assert_eq!(request.reach, Reach::Resources(ids(&view, &[&id])));
    assert_eq!(request.state, State::Pending);
    assert_eq!(request.key, Some(key(0)));
    assert_eq!(request.access_expires, at(12 * 60));
    assert_eq!(request.request_expires, at(12 * 60));
    assert_eq!(request.session_ttl, Duration::hours(12));
}

#[test]
fn an_equal_pending_request_of_the_same_key_is_joined() {
    let view = small();
    let wanted = wants_root_on_iot(&view);
    let first = filed(&view, &alice(), &wanted, 1, at(0));
    let view = view.with_request(first);
    let again = file(&view, &alice(), &wanted, request_id(2), at(5)).unwrap();
    assert_eq!(again, Filed::Joined(request_id(1)));
    let ask: Ask = match decide(&view, &alice(), &access("root", 1), at(5)) {
        Decision::Ask(ask) => ask,
        Decision::Permit(_) | Decision::Deny(_) => panic!("it can be asked for"),
    };
    assert_eq!(ask.joins, Some(request_id(1)));
}

#[test]
fn a_wider_pending_request_is_not_joined_and_no_decision_says_so() {
    let view = small();
    let wanted = wants_root_on_iot(&view);
    let whole_node = Wanted {
        reach: Reach::Resources(ids(&view, &[&node_id(1).to_string()])),
        ..wanted.clone()
    };
    let view = view
        .clone()
        .with_request(filed(&view, &alice(), &whole_node, 1, at(0)));
    let Decision::Ask(ask) = decide(&view, &alice(), &access("root", 1), at(5)) else {
        panic!("it can be asked for")
    };
    assert_eq!(ask.joins, None);
    let filed = file(&view, &alice(), &wanted, request_id(2), at(5)).unwrap();
    assert!(matches!(filed, Filed::New(_)));
}

#[test]
fn another_key_another_login_another_person_and_a_lapsed_one_do_not_join() {
    let view = small().with_user(a_user("dave", &[5], &["requester"], &["root"]));
    let wanted = wants_root_on_iot(&view);
    let view = view
        .clone()
        .with_request(filed(&view, &alice(), &wanted, 1, at(0)));
    let other_key = Identity::from_proven_key(user("alice"), key(1));
    let dave = Identity::from_proven_key(user("dave"), key(5));
    filed(&view, &other_key, &wanted, 2, at(1));
    filed(&view, &dave, &wanted, 2, at(1));
    filed(&view, &alice(), &on(&view, 1, "?logins=alice"), 2, at(1));
    filed(&view, &alice(), &on(&view, 1, ""), 2, at(1));
    let mut shorter = wanted.clone();
    shorter.max_duration = Some(Duration::hours(1));
    filed(&view, &alice(), &shorter, 2, at(1));
    filed(&view, &alice(), &wanted, 2, at(12 * 60));
}

#[test]
fn what_an_approved_request_of_this_key_covers_is_not_asked_for_again() {
    let view = small();
    let request = filed(&view, &alice(), &on(&view, 1, ""), 1, at(0));
    let view = view.clone().with_request(approved(&view, &request, at(1)));
    let wanted = wants_root_on_iot(&view);
    let covered = file(&view, &alice(), &wanted, request_id(2), at(2)).unwrap();
    assert_eq!(covered, Filed::Covered(request_id(1)));
    let other_key = Identity::from_proven_key(user("alice"), key(1));
    filed(&view, &other_key, &wanted, 2, at(2));
    filed(&view, &alice(), &wanted, 2, at(12 * 60));
}

#[test]
fn what_works_already_is_left_out_and_said() {
    let view = small().with_node(a_node(2, "db", &[])).with_user(a_user(
        "alice",
        &[0],
        &["requester", "staging"],
        &["alice", "root"],
    ));
    let text = "kind: role\nmetadata: {name: staging}\nspec: {allow: {logins: [alice], node_labels: {env: staging}}}\n";
    let view = with_roles(view, text);
    let (iot, db) = (node_id(1), node_id(2));
    let both = Wanted::resources(ids(
        &view,
        &[
            &format!("{iot}?logins=alice,root"),
            &format!("{db}?logins=alice"),
        ],
    ));
    let Filed::New(new) = file(&view, &alice(), &both, request_id(1), at(0)).unwrap() else {
        panic!("something is left to ask for")
    };
    let asked = ids(
        &view,
        &[&format!("{iot}?logins=root"), &format!("{db}?logins=alice")],
    );
    assert_eq!(new.request.reach, Reach::Resources(asked));
    let works: Vec<ResourceId> = ids(&view, &[&format!("{iot}?logins=alice")])
        .into_iter()
        .collect();
    assert_eq!(new.reachable, works);
    let nothing = on(&view, 1, "?logins=alice");
    assert_eq!(
        refuse(&view, &nothing, at(0)),
        FilingError::Reachable(works)
    );
}

#[test]
fn what_may_not_be_known_is_refused_in_the_same_words_as_what_is_not_there() {
    let narrow = "kind: role\nmetadata: {name: access}\nspec: {allow: {logins: [root], node_labels: {env: staging}}}\n";
    let view = with_roles(small(), narrow).with_node(a_node(2, "secret", &[("env", "prod")]));
    let text =
        |error: FilingError, n: u128| error.to_string().replace(&node_id(n).to_string(), "ID");
    let hidden = text(refuse(&view, &on(&view, 2, ""), at(0)), 2);
    let absent = text(refuse(&view, &on(&view, 9, ""), at(0)), 9);
    assert_eq!(hidden, absent);
    let role_ = |name: &str| {
        let error = refuse(&view, &Wanted::roles(roles(&[name])), at(0)).to_string();
        error.replace(name, "ROLE")
    };
    assert_eq!(role_("editor"), role_("no-such-role"));
}

#[test]
fn wishes_that_make_no_request_say_what_to_do() {
    let view = small();
    let mut out = String::new();
    let mut say = |what: &str, wanted: &Wanted| {
        let error = refuse(&view, wanted, at(0));
        writeln!(out, "{what}\n    {error}").unwrap();
    };
    say("nothing", &Wanted::roles(BTreeSet::new()));
    say("no resource", &Wanted::resources(BTreeSet::new()));
    say(
        "a login that no role grants",
        &on(&view, 1, "?logins=deploy"),
    );
    let db = "/example.com/db/orders".parse().unwrap();
    say("a database", &Wanted::resources(BTreeSet::from([db])));
    let far = format!("/other.com/node/{}", node_id(1)).parse().unwrap();
    say(
        "another cluster's node",
        &Wanted::resources(BTreeSet::from([far])),
    );
    let mut through = wants_root_on_iot(&view);
    through.roles = roles(&["editor"]);
    say("through a role that can't be searched as", &through);
    let many = (1..=301).map(|n| format!("/example.com/node/{}", node_id(n)).parse().unwrap());
    say("too many", &Wanted::resources(many.collect()));
    let long = (1..=40).map(|n| {
        format!("/example.com/db/{n}{}", "x".repeat(1000))
            .parse()
            .unwrap()
    });
    say("too long together", &Wanted::resources(long.collect()));
    let with = |change: fn(&mut Wanted)| {
        let mut wanted = wants_root_on_iot(&view);
        change(&mut wanted);
        wanted
    };
    say(
        "a reason of 4097 bytes",
        &with(|w| w.reason = "x".repeat(4097)),
    );
    say(
        "too many reviewers",
        &with(|w| {
            w.reviewers = (0..21).map(|n| user(&format!("u{n}"))).collect();
        }),
    );
    say(
        "a start in the past",
        &with(|w| w.assume_start = Some(at(-1))),
    );
    say(
        "a start too far ahead",
        &with(|w| w.assume_start = Some(at(7 * 24 * 60 + 1))),
    );
    say(
        "a start after the end",
        &with(|w| w.assume_start = Some(at(12 * 60))),
    );
    golden::compare("filing_refusals.txt", &out);
    // The nearest things that must work.
    filed(
        &view,
        &alice(),
        &with(|w| w.reason = "x".repeat(4096)),
        1,
        at(0),
    );
    filed(
        &view,
        &alice(),
        &with(|w| w.assume_start = Some(at(12 * 60 - 1))),
        1,
        at(0),
    );
    filed(
        &view,
        &alice(),
        &with(|w| w.assume_start = Some(at(0))),
        1,
        at(0),
    );
}

#[test]
fn a_user_has_fifty_pending_requests_and_no_more() {
    let mut view = small().with_nodes((10..=60).map(|n| a_node(n, &format!("n{n}"), &[])));
    for n in 10..60 {
        let request = filed(&view, &alice(), &on(&view, n, ""), n, at(0));
        view = view.with_request(request);
    }
    let error = refuse(&view, &on(&view, 60, ""), at(1));
    assert_eq!(error, FilingError::TooManyPending { limit: 50 });
    // Joining one of the fifty is no new request.
    let joined = file(&view, &alice(), &on(&view, 10, ""), request_id(99), at(1)).unwrap();
    assert_eq!(joined, Filed::Joined(request_id(10)));
    let settings = Settings {
        pending_per_user: 51,
        ..Settings::default()
    };
    filed(
        &view.clone().with_settings(settings),
        &alice(),
        &on(&view, 60, ""),
        99,
        at(1),
    );
    // Those that lapsed do not count, whether the clock's sweep has seen them or not.
    filed(&view, &alice(), &on(&view, 60, ""), 99, at(12 * 60));
}

#[test]
fn a_required_reason_must_be_given_and_blanks_are_none() {
    let text = "kind: role\nmetadata: {name: strict}\nspec: {allow: {request: {search_as_roles: [access], reason: {mode: required, prompt: 'Ticket?'}}}}\n";
    let view = with(text, &["requester", "strict"]);
    let Decision::Ask(ask) = decide(&view, &alice(), &access("root", 1), at(0)) else {
        panic!()
    };
    assert_eq!(
        (ask.reason_mode, ask.reason_prompt.as_deref()),
        (ReasonMode::Required, Some("Ticket?"))
    );
    let mut wanted = Wanted::from_ask(&ask);
    wanted.reason = "  \n".to_owned();
    let prompt = Some("Ticket?".to_owned());
    assert_eq!(
        refuse(&view, &wanted, at(0)),
        FilingError::ReasonRequired { prompt }
    );
    wanted.reason = "T-1".to_owned();
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    // Whoever joins needs none: the request has one.
    wanted.reason.clear();
    let joined = file(
        &view.with_request(request),
        &alice(),
        &wanted,
        request_id(2),
        at(0),
    );
    assert_eq!(joined, Ok(Filed::Joined(request_id(1))));
}

#[test]
fn reviewers_are_those_named_or_else_those_of_the_roles_and_never_oneself() {
    let text = "kind: role\nmetadata: {name: asks}\nspec: {allow: {request: {search_as_roles: [access], suggested_reviewers: [bob, alice]}}}\n";
    let view = with(text, &["asks"]);
    let mut wanted = wants_root_on_iot(&view);
    assert_eq!(
        filed(&view, &alice(), &wanted, 1, at(0)).suggested_reviewers,
        [user("bob")].into()
    );
    wanted.reviewers = [user("carol"), user("alice")].into();
    assert_eq!(
        filed(&view, &alice(), &wanted, 1, at(0)).suggested_reviewers,
        [user("carol")].into()
    );
}

#[test]
fn a_command_too_long_for_a_list_is_cut_at_a_whole_character() {
    let view = small();
    let mut wanted = wants_root_on_iot(&view);
    wanted.command = Some("é".repeat(3000));
    let command = filed(&view, &alice(), &wanted, 1, at(0)).command.unwrap();
    assert!(
        command.len() <= 4096 && command.ends_with("é…"),
        "{} bytes",
        command.len()
    );
}

// ---------------------------------------------------------------- times

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

// ---------------------------------------------------------------- reviewing

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

// ---------------------------------------------------------------- the machine

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

// ---------------------------------------------------------------- storing and finding

#[test]
fn a_request_goes_through_json_unchanged() {
    let view = small();
    let mut wanted = wants_root_on_iot(&view);
    wanted.assume_start = Some(at(30));
    wanted.max_duration = Some(Duration::minutes(90));
    let request = approved(&view, &filed(&view, &alice(), &wanted, 1, at(0)), at(1));
    let text = serde_json::to_string(&request).unwrap();
    assert_eq!(
        serde_json::from_str::<AccessRequest>(&text).unwrap(),
        request,
        "{text}"
    );
}

#[test]
fn a_short_id_finds_one_request_of_those_that_may_be_seen() {
    let view = small();
    let request = |n| filed(&view, &alice(), &wants_root_on_iot(&view), n, at(0));
    let (a, b) = (0xab43_fc70_u128 << 96, 0xab43_0000_u128 << 96);
    let all = view.clone().with_requests([request(a), request(b)]);
    let find = |prefix: &str| all.find_request(prefix, |_| true).map(|found| found.id);
    assert_eq!(find("ab43f"), Ok(request_id(a)));
    assert_eq!(find(&request_id(b).to_string()), Ok(request_id(b)));
    assert!(matches!(
        find("ab43"),
        Err(FindRequestError::Ambiguous { count: 2, .. })
    ));
    assert!(matches!(find("ab4"), Err(FindRequestError::Malformed(_))));
    assert!(matches!(find("wxyz"), Err(FindRequestError::Malformed(_))));
    assert!(matches!(find("ffff"), Err(FindRequestError::Unknown(_))));
    let mine = all.find_request("ab43", |request| request.id == request_id(b));
    assert_eq!(mine.map(|found| found.id), Ok(request_id(b)));
}
