//! What traits do: claims that let a person ask or review, annotations, and templates.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use anteroom_core::policy::{Decision, decide, requestable_roles};
use anteroom_core::request::{Actor, Filed, FilingError, Wanted, file, file_for, may_review};
use anteroom_core::view::View;
use world::*;

const ROLES: &str = r"
kind: role
metadata: {name: asks-by-claim}
spec:
  allow:
    request:
      claims_to_roles:
        - {claim: groups, value: '^team-(.*)$', roles: ['$1-admin']}
        - {claim: groups, value: 'lead', roles: ['*-admin']}
      annotations:
        pager: ['{{external.groups}}', always]
        who: ['{{email.local(external.mail)}}']
---
kind: role
metadata: {name: not-blue}
spec:
  deny:
    request:
      claims_to_roles: [{claim: groups, value: intern, roles: [blue-admin]}]
      annotations:
        pager: [always, '{{external.muted}}']
---
kind: role
metadata: {name: reviews-by-claim}
spec:
  allow: {review_requests: {claims_to_roles: [{claim: groups, value: 'team-*', roles: ['$1-admin']}]}}
---
kind: role
metadata: {name: reviews-nothing-of-interns}
spec:
  deny: {review_requests: {claims_to_roles: [{claim: groups, value: intern, roles: ['*']}]}}
---
kind: role
metadata: {name: red-admin}
spec: {allow: {logins: [root], node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: blue-admin}
spec: {allow: {logins: [root], node_labels: {'*': '*'}}}
";

/// alice and bob with these traits, of `groups` if no name is said.
fn view(held: &[&str], alice_is: &[(&str, &[&str])], bob_is: &[&str]) -> View {
    let traits = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    let mut alice = a_user("alice", &[0, 1], held, &["alice"]);
    for (name, values) in alice_is {
        alice.traits.insert((*name).to_owned(), traits(values));
    }
    let reviews = ["reviews-by-claim", "reviews-nothing-of-interns"];
    let mut bob = a_user("bob", &[2], &reviews, &["bob"]);
    bob.traits.insert("groups".to_owned(), traits(bob_is));
    with_roles(small(), ROLES).with_users([alice, bob])
}

fn requestable(view: &View) -> Vec<String> {
    let roles = requestable_roles(view, &alice(), at(0));
    roles.iter().map(|role| role.name.to_string()).collect()
}

#[test]
fn a_claim_lets_its_holder_ask_for_the_roles_it_gives_and_no_others() {
    let asks = ["asks-by-claim"];
    assert_eq!(requestable(&view(&asks, &[], &[])), [""; 0]);
    let red = view(&asks, &[("groups", &["team-red"])], &[]);
    assert_eq!(requestable(&red), ["red-admin"]);
    let lead = view(&asks, &[("groups", &["lead"])], &[]);
    assert_eq!(requestable(&lead), ["blue-admin", "red-admin"]);
    let wanted = Wanted::roles(roles(&["blue-admin"]));
    let refused = file(&red, &alice(), &wanted, request_id(1), at(0));
    assert_eq!(
        refused,
        Err(FilingError::RoleNotRequestable(role("blue-admin")))
    );
}

#[test]
fn a_denied_claim_wins() {
    let held = ["asks-by-claim", "not-blue"];
    let lead = view(&held, &[("groups", &["lead", "intern"])], &[]);
    assert_eq!(requestable(&lead), ["red-admin"]);
}

#[test]
fn a_request_dies_with_the_trait_it_was_filed_by() {
    let asks = ["asks-by-claim"];
    let red = view(&asks, &[("groups", &["team-red"])], &["team-red"]);
    let request = filed(
        &red,
        &alice(),
        &Wanted::roles(roles(&["red-admin"])),
        1,
        at(0),
    );
    let request = approved(&red, &request, at(1));
    let with = |view: View| view.with_request(request.clone());
    let root = access("root", 1);
    let now = decide(&with(red), &alice(), &root, at(2));
    assert!(matches!(now, Decision::Permit(_)));
    let blue = with(view(&asks, &[("groups", &["team-blue"])], &[]));
    assert!(matches!(
        decide(&blue, &alice(), &root, at(2)),
        Decision::Deny(_)
    ));
}

#[test]
fn a_reviewers_claims_are_hers_and_a_denied_one_wins() {
    let asks = ["asks-by-claim"];
    let traits: &[(&str, &[&str])] = &[("groups", &["team-red"])];
    let may = |bob_is: &[&str]| {
        let view = view(&asks, traits, bob_is);
        let wanted = Wanted::roles(roles(&["red-admin"]));
        let request = filed(&view, &alice(), &wanted, 1, at(0));
        may_review(&view, &user("bob"), &request).is_ok()
    };
    assert!(may(&["team-red"]));
    assert!(!may(&["team-blue"]));
    assert!(!may(&[]));
    assert!(!may(&["team-red", "intern"]));
}

#[test]
fn annotations_carry_the_requesters_traits_and_lose_what_is_denied() {
    let traits: &[(&str, &[&str])] = &[
        ("groups", &["team-red", "lead"]),
        ("mail", &["al@example.com", "no address"]),
        ("muted", &["lead"]),
    ];
    let shown = |held: &[&str]| {
        let view = view(held, traits, &[]);
        let wanted = Wanted::roles(roles(&["red-admin"]));
        let request = filed(&view, &alice(), &wanted, 1, at(0));
        serde_json::to_string(&request.system_annotations).unwrap()
    };
    assert_eq!(
        shown(&["asks-by-claim"]),
        r#"{"pager":["always","lead","team-red"],"who":["al"]}"#
    );
    assert_eq!(
        shown(&["asks-by-claim", "not-blue"]),
        r#"{"pager":["team-red"],"who":["al"]}"#
    );
}

#[test]
fn a_role_that_has_no_say_in_a_request_writes_nothing_on_it() {
    let text = "kind: role\nmetadata: {name: other}\nspec: {allow: {request: {roles: [red-admin], annotations: {a: [b]}}}}\n";
    let traits: &[(&str, &[&str])] = &[("groups", &["team-blue"])];
    let view = with_roles(view(&["asks-by-claim", "other"], traits, &[]), text);
    let request = filed(
        &view,
        &alice(),
        &Wanted::roles(roles(&["red-admin"])),
        1,
        at(0),
    );
    let written: Vec<_> = request.system_annotations.into_iter().collect();
    assert_eq!(written, [("a".to_owned(), ["b".to_owned()].into())]);
}

#[test]
fn what_is_denied_is_not_written_by_an_administrator_either() {
    let traits: &[(&str, &[&str])] = &[("groups", &["team-red", "lead"]), ("muted", &["lead"])];
    let written = |held: &[&str]| {
        let view = view(held, traits, &[]);
        let mut wanted = Wanted::roles(roles(&["red-admin"]));
        let pager = ["always", "lead", "night"].map(str::to_owned).into();
        wanted.annotations.insert("pager".to_owned(), pager);
        let by = Actor::LocalAdministrator;
        let filed = file_for(&view, &user("alice"), &by, &wanted, request_id(1), at(0));
        let Ok(Filed::New(new)) = filed else {
            panic!("{filed:?}");
        };
        new.request.system_annotations["pager"].clone()
    };
    let all = ["always", "lead", "night", "team-red"].map(str::to_owned);
    assert_eq!(written(&["asks-by-claim"]), all.into());
    let left = ["night", "team-red"].map(str::to_owned);
    assert_eq!(written(&["asks-by-claim", "not-blue"]), left.into());
}

#[test]
fn annotations_beyond_the_limit_are_refused_when_filed() {
    let many: Vec<String> = (0..4000).map(|n| format!("team-{n:08}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["lead"]).collect();
    let view = view(&["asks-by-claim"], &[("groups", &many)], &[]);
    let wanted = Wanted::roles(roles(&["red-admin"]));
    let refused = file(&view, &alice(), &wanted, request_id(1), at(0)).unwrap_err();
    assert!(
        matches!(refused, FilingError::AnnotationsTooLong { .. }),
        "{refused}"
    );
}

#[test]
fn a_request_stored_before_there_were_annotations_has_none() {
    let view = view(&["asks-by-claim"], &[("groups", &["lead"])], &[]);
    let request = filed(
        &view,
        &alice(),
        &Wanted::roles(roles(&["red-admin"])),
        1,
        at(0),
    );
    let mut json = serde_json::to_value(&request).unwrap();
    json.as_object_mut().unwrap().remove("system_annotations");
    let old: anteroom_core::request::AccessRequest = serde_json::from_value(json).unwrap();
    assert!(old.system_annotations.is_empty());
}
