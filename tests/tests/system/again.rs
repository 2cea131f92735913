//! Waiting again after a connection was cut or did not wait, and access that begins later.

use std::time::Duration;

use anteroom_tests::{Finished, KeyType, PATIENCE, Person, Way, World, login, request_id};
use nix::sys::signal::Signal;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const NOT_WAITING: [&str; 2] = ["-o", "SetEnv=ANTEROOM_WAIT=0"];

fn target(node: &str) -> String {
    format!("{}@{node}", login())
}

/// Alice's `ssh` to iot, cut while it waits; the ID of its request, which stays.
fn cut(alice: &Person, way: Way) -> String {
    let held = alice.ssh(way, &[], &target("iot"), &["echo in"]).start();
    let id = request_id(&held.expect_err("Waiting for request approval..."));
    held.signal(Signal::SIGKILL);
    id
}

fn not_waiting(alice: &Person) -> Finished {
    alice
        .ssh(Way::OneHop, &NOT_WAITING, &target("iot"), &["echo in"])
        .run()
}

/// So many seconds from now, as options take it.
fn in_seconds(seconds: i64) -> String {
    let at = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    at.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap()
}

#[test]
fn who_was_cut_joins_her_request_and_goes_on() {
    let world = World::usual();
    let alice = world.person("alice");
    for way in Way::BOTH {
        let id = cut(alice, way);
        let next = alice.ssh(way, &[], &target("iot"), &["echo in"]).start();
        let said = next.expect_err("Waiting for request approval...");
        let joining = format!("Joining request {id}, which is already pending.");
        assert!(said.contains(&joining), "{said}");
        assert!(!said.contains("Creating request"), "{said}");
        world.approve(&id);
        next.finish(PATIENCE).exits(0).prints("in\n");
        world.ctl(&["requests", "deny", &id]).exits(0);
    }
}

#[test]
fn who_was_cut_and_approved_meanwhile_connects_at_once() {
    let world = World::usual();
    let alice = world.person("alice");
    let id = cut(alice, Way::Jump);
    world.approve(&id);
    for way in Way::BOTH {
        let next = alice
            .ssh(way, &NOT_WAITING, &target("iot"), &["echo in"])
            .run();
        next.exits(0).prints("in\n");
    }
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn who_was_cut_and_denied_meanwhile_is_told_so_once_and_asks_anew_after_that() {
    let mut world = World::usual();
    let alice = world.person("alice").clone();
    for way in Way::BOTH {
        let id = cut(&alice, way);
        world.deny(&id, "not now");
        let told = alice.ssh(way, &[], &target("iot"), &["echo in"]).run();
        told.exits(77).prints("");
        told.says("Request denied by bob, reason=\"not now\"");
        told.says(&format!("That was request {id}, while nobody waited"));
        let anew = not_waiting(&alice);
        anew.exits(75).says("Creating request...");
        let new = request_id(&anew.stderr);
        assert_ne!(new, id);
        alice.access(&["request", "cancel", &new]).run().exits(0);
    }
    // A restart cuts everybody, and the answer comes after it.
    let held = alice
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .start();
    let id = request_id(&held.expect_err("Waiting for request approval..."));
    world.kill_proxy();
    held.finish(PATIENCE);
    world.start_proxy();
    world.deny(&id, "still not");
    not_waiting(&alice).exits(77).says("still not");
}

#[test]
fn a_script_that_does_not_wait_hears_no_as_77() {
    let world = World::usual();
    let alice = world.person("alice");
    let first = not_waiting(alice);
    first.exits(75).says("connect again to go on waiting");
    let id = request_id(&first.stderr);
    let second = not_waiting(alice);
    second.exits(75).says(&format!("Joining request {id}"));
    world.deny(&id, "no");
    not_waiting(alice).exits(77).says("Request denied by bob");
    not_waiting(alice).exits(75).says("Creating request...");
}

#[test]
fn who_heard_the_denial_or_has_another_key_asks_anew_at_once() {
    let world = World::usual();
    let alice = world.person("alice");
    let other_key = alice.with_new_key("id2", KeyType::Ecdsa256);
    world
        .ctl_cmd(&["users", "update", "alice", "--add-key"])
        .arg(other_key.public_key())
        .run()
        .exits(0);
    let held = alice
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .start();
    let id = request_id(&held.expect_err("Waiting for request approval..."));
    world.deny(&id, "no");
    held.finish(PATIENCE).exits(77);
    let anew = not_waiting(alice);
    anew.exits(75).says("Creating request...");
    let id = request_id(&anew.stderr);
    world.deny(&id, "no");
    not_waiting(&other_key)
        .exits(75)
        .says("Creating request...");
    // Who has looked at it has heard it, too.
    alice.access(&["request", "show", &id]).run().exits(0);
    not_waiting(alice).exits(75).says("Creating request...");
}

#[test]
fn what_is_filed_and_left_says_what_to_type() {
    let world = World::usual();
    let alice = world.person("alice");
    let filed = alice
        .access(&["request", "create", "--nowait", "--resource", "iot"])
        .run();
    let id = request_id(&filed.text());
    filed.exits(0).says(&format!(
        "`ssh access request show {id}` shows what becomes of it"
    ));
}

#[test]
fn what_is_approved_for_later_says_when_and_is_used_as_soon_as_it_begins() {
    let world = World::usual();
    let alice = world.person("alice");
    let later = in_seconds(25);
    let id = world.granted_for("iot", &["--assume-start-time", &later]);
    let not_before = format!("Request {id} is approved, but not before");
    for way in Way::BOTH {
        let left = alice
            .ssh(way, &NOT_WAITING, &target("iot"), &["echo in"])
            .run();
        left.exits(75).prints("").says(&not_before);
        left.says("To have it before then, ask for it with `ssh access request create");
    }
    // Nobody was asked once more.
    assert_eq!(world.requests().len(), 1);
    let status = alice.access(&["status"]).run();
    status.exits(0).prints_part(&format!("{id} opens "));
    assert!(
        !status.text().contains("Active requests") && !status.text().contains("Allowed Resources"),
        "{status}"
    );
    let shown = alice.access(&["request", "show", &id]).run();
    shown.exits(0).prints_part("Starts:      ");
    let refused = alice.access(&["login", "--request-id", &id]).run();
    assert_ne!(refused.code(), Some(0), "{refused}");
    refused.prints("").says(&format!("request {id} opens at "));
    // What is set aside as active is not what begins later.
    let dropped = alice.access(&["request", "drop"]).run();
    dropped.exits(0).says("No access request is active");
    let held = alice
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .start();
    held.expect_err("; waiting until then");
    let ended = held.finish(PATIENCE.max(Duration::from_secs(60)));
    ended.exits(0).prints("in\n");
    let status = alice.access(&["status"]).run();
    status.exits(0).prints_part("Active requests:");
}

#[test]
fn a_reviewer_who_moves_the_start_is_heard_by_who_waits() {
    let world = World::usual();
    let alice = world.person("alice");
    let held = alice
        .ssh(Way::OneHop, &[], &target("iot"), &["echo in"])
        .start();
    let id = request_id(&held.expect_err("Waiting for request approval..."));
    let start = in_seconds(12);
    world
        .review(&id, &["--approve", "--assume-start-time", &start])
        .exits(0);
    held.expect_err(&format!("Request {id} is approved and opens at "));
    held.finish(PATIENCE.max(Duration::from_secs(60)))
        .exits(0)
        .prints("in\n");
}

#[test]
fn what_is_revoked_before_it_begins_ends_the_wait() {
    let world = World::usual();
    let alice = world.person("alice");
    let later = in_seconds(600);
    let id = world.granted_for("iot", &["--assume-start-time", &later]);
    let held = alice
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .start();
    held.expect_err("; waiting until then");
    world
        .ctl(&["requests", "deny", &id, "--reason=moved"])
        .exits(0);
    held.finish(PATIENCE).exits(77).prints("").says("moved");
}

#[test]
fn a_request_for_a_node_through_a_named_role_opens_by_every_way() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nversion: v8\nmetadata: {name: narrow}\nspec:\n  allow:\n    logins: ['{{internal.logins}}']\n    \
             node_labels: {'*': '*'}\n---\nkind: role\nversion: v8\nmetadata: {name: both}\nspec:\n  allow:\n    \
             request: {search_as_roles: [access, narrow]}\n---\nkind: role\nversion: v8\nmetadata: {name: judge}\n\
             spec:\n  allow:\n    review_requests: {roles: [narrow]}\n",
        )
        .user("dora", "both")
        .user("judith", "judge")
        .start();
    let dora = world.person("dora");
    let words = [
        "request",
        "create",
        "--nowait",
        "--reason=work",
        "--roles=narrow",
        "--resource=iot",
    ];
    let created = dora.access(&words).run();
    created.exits(0).prints_part("Roles:       narrow\n");
    let id = request_id(&created.text());
    let approved = world
        .person("judith")
        .access(&["request", "review", &id, "--approve"])
        .run();
    approved.exits(0);
    for way in Way::BOTH {
        let inside = dora.ssh(way, &[], &target("iot"), &["echo in"]).run();
        inside.exits(0).prints("in\n");
        let outside = dora
            .ssh(way, &NOT_WAITING, &target("n2"), &["echo in"])
            .run();
        outside.exits(75).prints("");
    }
    let status = dora.access(&["status"]).run();
    status.exits(0).prints_part("narrow").prints_part(&id);
    let resource = &world.node("iot").resource_id;
    status.prints_part(resource);
    let certificate = dora.access(&["login", "--request-id", &id]).run();
    certificate.exits(0).says("narrow");
    certificate.says(resource);
    dora.access(&["request", "drop", &id]).run().exits(0);
    let dropped = dora
        .ssh(Way::Jump, &NOT_WAITING, &target("iot"), &["echo in"])
        .run();
    dropped.exits(75).prints("");
    dropped.says(&format!("`ssh access request assume {id}` takes it up"));
}
