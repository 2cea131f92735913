//! Label expressions of roles for what is no node: the same words and the same order as
//! `node_labels_expression`, for each kind, wherever the kind is searched, asked for, reviewed
//! and used.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use anteroom_core::documents::{self, Document};
use anteroom_core::id::ResourceId;
use anteroom_core::policy::{requestable_resources, visible_nodes};
use anteroom_core::request::{Filed, FilingError, Terms, Verdict, Wanted, file, review};
use anteroom_core::resource::Kind;
use anteroom_core::view::View;
use world::*;

/// The field of a role, a resource's document without its name and labels, and the kind.
const KINDS: [(&str, &str, Kind); 4] = [
    ("app", "spec: {uri: 'http://10.0.0.5:3000'}", Kind::App),
    (
        "db",
        "spec: {protocol: mysql, uri: '10.0.0.6:3306'}",
        Kind::Db,
    ),
    ("kubernetes", "spec: {}", Kind::KubeCluster),
    (
        "windows_desktop",
        "spec: {addr: '10.0.0.7:3389'}",
        Kind::WindowsDesktop,
    ),
];

const RESOURCES: [(&str, &str); 5] = [
    ("dev-red", "{env: dev, team: red}"),
    ("dev-blue", "{env: dev, team: blue}"),
    ("prod-red", "{env: prod, team: red}"),
    ("none", "{}"),
    ("mail", "{env: dev, owner: alice@example.com}"),
];

/// alice of team red, who may ask for what `sought` gives, with bob who reviews.
fn view(kind: Kind, spec: &str, sought: &str, held: &str) -> View {
    let mut text = String::new();
    for (name, labels) in RESOURCES {
        text.push_str(&format!(
            "kind: {kind}\nversion: v3\nmetadata: {{name: {name}, labels: {labels}}}\n{spec}\n---\n"
        ));
    }
    let documents = documents::parse(&text).unwrap();
    let resources = documents.into_iter().map(|document| match document {
        Document::Resource(resource) => resource,
        other @ (Document::Role(_)
        | Document::User(_)
        | Document::Node(_)
        | Document::Lock(_)
        | Document::MonitoringRule(_)
        | Document::Token(_)) => panic!("{other:?}"),
    });
    let roles = format!(
        "kind: role\nmetadata: {{name: sought}}\nspec:\n{sought}\n---\n\
         kind: role\nmetadata: {{name: held}}\nspec:\n  allow: {{request: {{search_as_roles: [sought]}}}}\n{held}\n---\n\
         kind: role\nmetadata: {{name: reviews}}\nspec: {{allow: {{review_requests: {{roles: ['*']}}}}}}\n"
    );
    let mut alice = a_user("alice", &[0], &["held"], &["alice"]);
    alice
        .traits
        .insert("team".to_owned(), vec!["red".to_owned()]);
    with_roles(small(), &roles)
        .with_resources(resources)
        .with_users([alice, a_user("bob", &[2], &["reviews"], &[])])
}

fn listed(view: &View, kind: Kind) -> Vec<String> {
    let found = requestable_resources(view, &alice(), kind, T0);
    found
        .iter()
        .map(|found| found.resource.name.to_string())
        .collect()
}

fn id(kind: Kind, name: &str) -> ResourceId {
    format!("/example.com/{kind}/{name}").parse().unwrap()
}

/// Those that can be asked for one by one, which has to be what the search lists.
fn askable(view: &View, kind: Kind) -> Vec<String> {
    let mut found = Vec::new();
    for (name, _) in RESOURCES {
        let wanted = Wanted::resources([id(kind, name)].into());
        match file(view, &alice(), &wanted, request_id(1), T0) {
            Ok(Filed::New(_)) => found.push(name.to_owned()),
            Err(FilingError::UnknownResource(_)) => {}
            other => panic!("{kind} {name}: {other:?}"),
        }
    }
    found.sort_unstable();
    assert_eq!(found, listed(view, kind), "{kind}");
    found
}

#[test]
fn an_expression_narrows_what_the_labels_of_its_kind_allow() {
    for (field, spec, kind) in KINDS {
        let with = |conditions: &str| {
            let sought = format!("  allow: {{{}}}", conditions.replace('@', field));
            askable(&view(kind, spec, &sought, ""), kind)
        };
        let alone = "@_labels_expression: 'contains(user.spec.traits[\"team\"], labels[\"team\"])'";
        assert_eq!(with(alone), ["dev-red", "prod-red"], "{kind}");
        assert_eq!(
            with(&format!("@_labels: {{env: dev}}, {alone}")),
            ["dev-red"],
            "{kind}: both must hold"
        );
        // What can't be evaluated gives nothing, and so does no expression at all.
        let fault = "@_labels: {'*': '*'}, @_labels_expression: 'email.local(labels[\"owner\"]) == \"alice\" || email.local(labels[\"team\"]) == \"x\"'";
        assert_eq!(with(fault), ["mail"], "{kind}");
        assert_eq!(with("@_labels_expression: ''"), [""; 0], "{kind}");
        // An expression of another kind says nothing about this one.
        let other = if field == "db" { "app" } else { "db" };
        assert_eq!(
            with(&format!("{other}_labels_expression: 'true'")),
            [""; 0],
            "{kind}"
        );
        assert_eq!(with("node_labels_expression: 'true'"), [""; 0], "{kind}");
    }
}

#[test]
fn under_deny_labels_or_expression_suffice_and_a_fault_denies() {
    for (field, spec, kind) in KINDS {
        let with = |side: &str, conditions: &str| {
            let everything = format!("{field}_labels: {{'*': '*'}}");
            let deny = format!("\n  deny: {{{}}}", conditions.replace('@', field));
            let (sought, held) = match side {
                "sought" => (format!("  allow: {{{everything}}}{deny}"), String::new()),
                _ => (format!("  allow: {{{everything}}}"), deny),
            };
            askable(&view(kind, spec, &sought, &held), kind)
        };
        for side in ["sought", "held"] {
            assert_eq!(
                with(
                    side,
                    "@_labels: {env: prod}, @_labels_expression: 'labels.team == \"blue\"'"
                ),
                ["dev-red", "mail", "none"],
                "{kind} {side}"
            );
            assert_eq!(
                with(
                    side,
                    "@_labels_expression: 'email.local(labels[\"team\"]) == \"x\"'"
                ),
                ["mail", "none"],
                "{kind} {side}: what has no team is no fault"
            );
        }
    }
}

#[test]
fn what_was_approved_works_while_the_expression_holds() {
    for (field, spec, kind) in KINDS {
        let sought = |env: &str| {
            format!("  allow: {{{field}_labels_expression: 'labels.env == \"{env}\"'}}")
        };
        let before = view(kind, spec, &sought("dev"), "");
        let both = Wanted::resources([id(kind, "dev-red"), id(kind, "dev-blue")].into());
        let request = filed(&before, &alice(), &both, 1, T0);
        // A reviewer gives one of the two.
        let part = Verdict::Approve(Terms {
            resources: Some([id(kind, "dev-red")].into()),
            ..Terms::default()
        });
        let reviewed = review(&before, &user("bob"), &request, part, "", T0).unwrap();
        let covered = |view: &View, name: &str| {
            let wanted = Wanted::resources([id(kind, name)].into());
            let filed = file(view, &alice(), &wanted, request_id(2), T0);
            matches!(filed, Ok(Filed::Covered(_)))
        };
        let after = before.with_request(reviewed.request.clone());
        assert!(
            covered(&after, "dev-red") && !covered(&after, "dev-blue"),
            "{kind}"
        );
        // The role is written anew, and what it gave is over.
        let changed = view(kind, spec, &sought("prod"), "").with_request(reviewed.request);
        assert!(!covered(&changed, "dev-red"), "{kind}");
    }
}

#[test]
fn a_v3_role_with_an_expression_is_not_a_role_without_a_selector() {
    for (field, _, kind) in KINDS {
        let role = |conditions: &str| {
            let text = format!(
                "kind: role\nversion: v3\nmetadata: {{name: x}}\nspec: {{allow: {{logins: [root], {conditions}}}}}\n"
            );
            documents::parse_role(&text).unwrap()
        };
        let everything = anteroom_core::selector::LabelSelector::everything();
        let narrowed = role(&format!(
            "{field}_labels_expression: 'labels.env == \"dev\"'"
        ));
        assert_ne!(*narrowed.allow.resources.labels(kind), everything);
        assert_eq!(*role("").allow.resources.labels(kind), everything);
    }
    let view = view(
        Kind::Db,
        KINDS[1].1,
        "  allow: {db_labels_expression: 'true'}",
        "",
    );
    assert!(visible_nodes(&view, &alice(), T0).is_empty());
}
