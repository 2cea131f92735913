//! Filing: what becomes a request, what joins or is covered, and what is refused in which words.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anteroom_core::id::ResourceId;
use anteroom_core::policy::{Ask, Decision, Identity, decide};
use anteroom_core::request::{Filed, FilingError, Reach, State, Wanted, file};
use anteroom_core::role::ReasonMode;
use anteroom_core::view::Settings;
use time::Duration;

use crate::world::*;
use crate::{golden, ids, on, refuse, with};

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
