//! The preset roles, who administers what, and the indices of the view.
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
use anteroom_core::preset::presets;
use anteroom_core::role::Options;
use anteroom_core::view::View;
use world::*;

#[test]
fn the_presets_mean_what_teleports_do() {
    let presets = presets();
    let names: Vec<&str> = presets.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(
        names,
        ["access", "auditor", "editor", "requester", "reviewer"]
    );
    let find = |name: &str| {
        presets
            .iter()
            .find(|role| role.name.as_str() == name)
            .unwrap()
    };
    let access = &find("access").allow;
    assert_eq!(
        access.logins.iter().map(|l| l.as_str()).collect::<Vec<_>>(),
        ["{{internal.logins}}"]
    );
    assert_eq!(
        access.node_labels,
        anteroom_core::selector::LabelSelector::everything()
    );
    assert_eq!(
        find("requester").allow.request.search_as_roles,
        [role("access")]
    );
    let review = &find("reviewer").allow.review_requests;
    assert_eq!(
        review.roles.iter().map(|p| p.as_str()).collect::<Vec<_>>(),
        ["access"]
    );
    assert_eq!(review.preview_as_roles, [role("access")]);
    for preset in &presets {
        assert_eq!(preset.deny, Default::default(), "{}", preset.name);
        assert_eq!(preset.options, Options::default(), "{}", preset.name);
        assert!(preset.description.is_some(), "{}", preset.name);
    }
}

#[test]
fn only_the_editor_administers_and_the_auditor_reads_what_happened() {
    let view = small().with_users([
        a_user("ed", &[], &["editor"], &[]),
        a_user("al", &[], &["auditor"], &[]),
        a_user("no", &[], &["access", "requester", "reviewer"], &[]),
    ]);
    for resource in AdminResource::ALL {
        for verb in AdminVerb::ALL {
            let may = |name: &str| Rights::new(&view, &user(name), verb, resource).exist();
            let reads = matches!(verb, AdminVerb::List | AdminVerb::Read);
            let history = matches!(resource, AdminResource::Event | AdminResource::Session);
            assert!(may("ed"), "{verb:?} {resource:?}");
            assert_eq!(may("al"), reads && history, "{verb:?} {resource:?}");
            assert!(!may("no") && !may("nobody"), "{verb:?} {resource:?}");
        }
    }
}

#[test]
fn a_denied_rule_wins_and_a_locked_administrator_is_none() {
    let text = "kind: role\nmetadata: {name: no-users}\nspec: {deny: {rules: [{resources: [user], verbs: ['*']}]}}\n";
    let mut locked = a_user("locked", &[], &["editor"], &[]);
    locked.locked = Some(String::new());
    let view = with_roles(small(), text)
        .with_users([a_user("ed", &[], &["editor", "no-users"], &[]), locked]);
    assert!(!Rights::new(&view, &user("ed"), AdminVerb::Read, AdminResource::User).exist());
    assert!(Rights::new(&view, &user("ed"), AdminVerb::Read, AdminResource::Role).exist());
    assert!(!Rights::new(&view, &user("locked"), AdminVerb::Read, AdminResource::Role).exist());
}

#[test]
fn an_administrator_of_requests_is_no_administrator_of_roles() {
    let text = "kind: role\nmetadata: {name: requests}\nspec: {allow: {rules: [{resources: [access_request], verbs: [list, read, update]}]}}\n";
    let view = with_roles(small(), text).with_user(a_user("ada", &[], &["requests"], &[]));
    let may = |verb, resource| Rights::new(&view, &user("ada"), verb, resource).exist();
    assert!(may(AdminVerb::Update, AdminResource::AccessRequest));
    assert!(!may(AdminVerb::Delete, AdminResource::AccessRequest));
    assert!(!may(AdminVerb::Update, AdminResource::Role));
}

/// What the indices of a view say, as text.
fn indices(view: &View) -> String {
    let keys: Vec<_> = (0..8)
        .map(|n| view.user_by_key(&key(n)).map(|u| u.name.to_string()))
        .collect();
    let names = ["iot", "db"].map(|name| {
        view.nodes_named(&name.parse().unwrap())
            .map(|node| node.id)
            .collect::<Vec<_>>()
    });
    let live: Vec<_> = view
        .live_requests_of(&user("alice"))
        .map(|r| r.id)
        .collect();
    format!("{keys:?} {names:?} {live:?}")
}

#[test]
fn the_indices_follow_every_change() {
    let view = small();
    let before = indices(&view);
    // Renamed, given another key, and back.
    let changed = view
        .clone()
        .with_node(a_node(1, "db", &[]))
        .with_user(a_user("alice", &[7], &["requester"], &["root"]));
    assert_ne!(indices(&changed), before);
    assert_eq!(changed.user_by_key(&key(0)).map(|u| u.name.clone()), None);
    let back = changed
        .with_node(a_node(1, "iot", &[("env", "staging")]))
        .with_user(view.user(&user("alice")).unwrap().as_ref().clone());
    assert_eq!(indices(&back), before);
    // Added and removed.
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let more = view
        .clone()
        .with_node(a_node(2, "iot", &[]))
        .with_user(a_user("eve", &[6], &[], &[]))
        .with_request(request.clone());
    assert_eq!(more.live_requests_of(&user("alice")).count(), 1);
    let less = more
        .without_node(&node_id(2))
        .without_user(&user("eve"))
        .without_request(&request_id(1));
    assert_eq!(indices(&less), before);
    // A request that is over is found by its ID and costs no decision anything.
    let over = anteroom_core::request::State::Canceled;
    let over = view.with_request(anteroom_core::request::AccessRequest {
        state: over,
        ..request
    });
    assert_eq!(over.live_requests_of(&user("alice")).count(), 0);
    assert!(over.request(&request_id(1)).is_some());
}

#[test]
fn a_key_that_two_users_registered_is_nobodys() {
    let view = small().with_user(a_user("eve", &[0], &["access"], &["root"]));
    assert!(view.user_by_key(&key(0)).is_none());
    assert!(
        view.without_user(&user("eve"))
            .user_by_key(&key(0))
            .is_some()
    );
}

#[test]
fn a_threshold_that_decides_nothing_is_refused_when_it_is_saved() {
    for threshold in ["{}", "{name: a, filter: 'true'}", "{approve: 0, deny: 0}"] {
        let text = format!(
            "kind: role\nmetadata: {{name: a}}\nspec:\n  allow:\n    request:\n      roles: [b]\n      thresholds: [{threshold}]\n"
        );
        let error = anteroom_core::documents::parse(&text)
            .unwrap_err()
            .to_string();
        assert!(error.contains("decides nothing"), "{threshold}: {error}");
    }
}
