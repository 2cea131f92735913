//! Certificates that carry a request: what else may have been decided about the request limits them as well.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use std::collections::BTreeSet;

use anteroom_core::credential::{AllowedResources, Credential, IssuedCredential};
use anteroom_core::id::{RequestId, ResourceId};
use anteroom_core::policy::{Decision, Identity, LoginWanted, Reason, decide_for, login};
use anteroom_core::request::{AccessRequest, Action, Actor, Scope, Terms, Wanted, apply};
use anteroom_core::view::View;
use world::*;

/// What `login --request-id` gives alice, and the view that knows it.
fn logged_in(view: View, id: RequestId) -> (View, Identity) {
    let wanted = LoginWanted {
        requests: BTreeSet::from([id]),
        ..LoginWanted::default()
    };
    let permit = login(&view, &alice(), &wanted, at(2)).unwrap();
    let issued = IssuedCredential {
        serial: 7,
        sha256: [0; 32],
        user: user("alice"),
        login_key: key(0),
        subject: key(0),
        valid_before: permit.valid_before(),
        revoked: None,
    };
    let credential = Credential {
        serial: 7,
        subject: String::new(),
        key: key(0),
        valid_before: permit.valid_before(),
        claims: permit.claims().clone(),
        permits: BTreeSet::new(),
    };
    let identity = Identity::from_verified_certificate(user("alice"), key(0), credential);
    (view.with_credentials([issued]), identity)
}

fn runs(view: &View, who: &Identity, node: u128, command: Option<&str>) -> Decision {
    let command = command.map(str::as_bytes);
    decide_for(view, who, &access("root", node), command, at(3))
}

fn refused(decision: &Decision) -> bool {
    match decision {
        Decision::Deny(denial) => {
            let mut reasons = denial.reasons.iter();
            reasons.any(|reason| matches!(reason, Reason::NotAllowedByCertificate { .. }))
        }
        Decision::Permit(_) | Decision::Ask(_) => false,
    }
}

fn permitted(decision: &Decision) -> bool {
    matches!(decision, Decision::Permit(_))
}

/// Two nodes; alice may ask for both as root.
fn two_nodes() -> View {
    small().with_node(a_node(2, "n2", &[]))
}

#[test]
fn a_grant_for_one_command_opens_that_command_on_its_node_and_nothing_more() {
    let view = two_nodes();
    let wanted = Wanted {
        scope: Scope::Command("uptime".to_owned()),
        ..wants_root_on_iot(&view)
    };
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    let view = view.clone().with_request(approved(&view, &request, at(1)));
    let (view, restricted) = logged_in(view, request.id);
    assert!(permitted(&runs(&view, &restricted, 1, Some("uptime"))));
    for other in [Some("id"), Some("uptime "), None] {
        let there = runs(&view, &restricted, 1, other);
        assert!(matches!(there, Decision::Ask(_)), "{other:?}: {there:?}");
        assert!(refused(&runs(&view, &restricted, 2, other)), "{other:?}");
    }
    assert!(refused(&runs(&view, &restricted, 2, Some("uptime"))));
}

const SUPPORT: &str = r"
kind: role
metadata: {name: db-support}
spec: {allow: {logins: [root], node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: dba}
spec: {allow: {logins: [dba], node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: asks-dba}
spec: {allow: {request: {roles: [dba]}}}
";

fn overridden(request: &AccessRequest) -> AccessRequest {
    let action = Action::Override {
        roles: roles(&["db-support"]),
        terms: Terms::default(),
        reason: String::new(),
    };
    apply(request, &action, &Actor::User(user("erin")), at(1)).unwrap()
}

fn with_support(held: &[&str]) -> View {
    with_roles(two_nodes(), SUPPORT)
        .with_user(a_user("alice", &[0], held, &["alice", "root"]))
        .with_user(a_user("erin", &[4], &["editor"], &[]))
}

#[test]
fn a_login_takes_the_roles_that_were_given_and_not_those_that_were_asked_for() {
    let view = with_support(&["asks-dba"]);
    let request = filed(&view, &alice(), &Wanted::roles(roles(&["dba"])), 1, at(0));
    let view = view.with_request(overridden(&request));
    let (view, identity) = logged_in(view, request.id);
    let claims = &identity.credential().unwrap().claims;
    assert_eq!(claims.roles, roles(&["asks-dba", "db-support"]));
    assert_eq!(claims.allowed, AllowedResources::Unrestricted);
    assert!(permitted(&runs(&view, &identity, 1, None)));
    // Nor does it outlive the right to have it.
    let later = view.with_user(a_user("alice", &[0], &[], &["alice"]));
    let nobody = with_roles(
        later,
        "kind: role\nmetadata: {name: never}\nspec: {deny: {request: {roles: [db-support]}}}\n",
    );
    let nobody = nobody.with_user(a_user("alice", &[0], &["never"], &["alice"]));
    assert!(!permitted(&runs(&nobody, &identity, 1, None)));
}

#[test]
fn another_role_given_for_resources_opens_those_resources_alone() {
    let view = with_support(&["requester"]);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let view = view.with_request(overridden(&request));
    let (view, restricted) = logged_in(view, request.id);
    let claims = &restricted.credential().unwrap().claims;
    assert!(claims.roles.contains("db-support"), "{:?}", claims.roles);
    assert!(matches!(claims.allowed, AllowedResources::Only(_)));
    assert!(permitted(&runs(&view, &restricted, 1, None)));
    assert!(refused(&runs(&view, &restricted, 2, None)));
    let mine = decide_for(&view, &restricted, &access("alice", 1), None, at(3));
    assert!(refused(&mine), "{mine:?}");
}

#[test]
fn a_certificate_for_a_database_or_application_opens_no_node_and_no_other_of_its_kind() {
    let text = "kind: db\nversion: v3\nmetadata: {name: orders}\nspec: {protocol: postgres, uri: '127.0.0.1:5432'}\n---\n\
                kind: db\nversion: v3\nmetadata: {name: bills}\nspec: {protocol: postgres, uri: '127.0.0.1:5433'}\n---\n\
                kind: app\nversion: v3\nmetadata: {name: orders}\nspec: {uri: 'http://127.0.0.1:1'}\n";
    let documents = anteroom_core::documents::parse(text).unwrap();
    let resources = documents.into_iter().map(|document| {
        let anteroom_core::documents::Document::Resource(resource) = document else {
            panic!("{document:?}");
        };
        resource
    });
    let view = two_nodes().with_resources(resources);
    let id: ResourceId = "/example.com/db/orders".parse().unwrap();
    let wanted = Wanted::resources(BTreeSet::from([id]));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    let view = view.clone().with_request(approved(&view, &request, at(1)));
    let (view, restricted) = logged_in(view, request.id);
    for node in [1, 2] {
        assert!(refused(&runs(&view, &restricted, node, None)), "{node}");
    }
    let allowed = &restricted.credential().unwrap().claims.allowed;
    let covers = |id: &str| allowed.covers(&id.parse().unwrap());
    assert!(covers("/example.com/db/orders"));
    assert!(!covers("/example.com/db/bills") && !covers("/example.com/app/orders"));
}
