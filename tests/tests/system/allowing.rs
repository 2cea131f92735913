//! Pre-approvals with the real ssh and a stock sshd.

use std::fs;
use std::time::{Duration, Instant};

use anteroom_tests::{KeyType, PATIENCE, Way, World, login, request_id};

const NOT_WAITING: [&str; 2] = ["-o", "SetEnv=ANTEROOM_WAIT=0"];

fn target(node: &str) -> String {
    format!("{}@{node}", login())
}

/// bob approves in advance what alice will ask for.
#[track_caller]
fn allow(world: &World, options: &[&str]) -> String {
    let mut words = vec!["request", "allow", "--user", "alice", "--format", "json"];
    words.extend(options);
    let given = world.person("bob").access(&words).run();
    given.exits(0);
    given.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_connection_that_was_approved_in_advance_goes_on_at_once_and_no_other_does() {
    let world = World::usual();
    let alice = world.person("alice");
    let ssh = |way, target: &str| alice.ssh(way, &NOT_WAITING, target, &["echo in"]).run();
    let only = login();
    let options = ["--labels=env=staging", "--for=1h", "--logins", &only];
    let id = allow(&world, &options);
    for way in Way::BOTH {
        ssh(way, &target("iot")).exits(0).prints("in\n");
    }
    // The other node has another label, and another login was not spoken of.
    ssh(Way::OneHop, &target("n2")).exits(75).prints("");
    ssh(Way::OneHop, "deploy@iot").exits(75).prints("");
    let request = world
        .requests()
        .into_iter()
        .find(|request| request["state"] == "APPROVED");
    let request = request.expect("one is approved");
    assert_eq!(request["reviews"][0]["author"], "bob");
    assert_eq!(request["reviews"][0]["pre_approval"], id.as_str());
    // Taken back, it opens nothing new, and what it opened stays.
    let removed = world
        .person("bob")
        .access(&["request", "allows", "rm", &id])
        .run();
    removed.exits(0).says("stays approved until");
    ssh(Way::OneHop, &target("iot")).exits(0).prints("in\n");
    let request = request["id"].as_str().unwrap();
    world.ctl(&["requests", "deny", request]).exits(0);
    ssh(Way::OneHop, &target("iot")).exits(75).prints("");
}

#[test]
fn a_connection_that_waits_goes_on_when_it_is_approved_in_advance_for_others_to_come() {
    let world = World::usual();
    let alice = world.person("alice");
    let waiting = alice
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .start();
    let id = request_id(&waiting.expect_err("Waiting for request approval..."));
    allow(
        &world,
        &["--labels=env=staging", "--for=1h", "--reason=okay"],
    );
    let ended = waiting.finish(PATIENCE);
    ended
        .exits(0)
        .prints("in\n")
        .says("Approval received from bob (pre-approved), reason=\"okay\"");
    assert_eq!(world.state(&id), "APPROVED");
}

#[test]
fn a_session_ends_when_the_pre_approval_does() {
    let world = World::usual();
    let alice = world.person("alice");
    allow(&world, &["--labels=env=staging", "--for=4s"]);
    let began = Instant::now();
    let ended = alice
        .ssh(Way::OneHop, &[], &target("iot"), &["sleep 60"])
        .run();
    ended.exits(77);
    assert!(began.elapsed() < Duration::from_secs(20), "{ended}");
    let again = alice
        .ssh(Way::OneHop, &NOT_WAITING, &target("iot"), &["true"])
        .run();
    again.exits(75);
}

#[test]
fn a_restricted_certificate_is_not_widened_by_it() {
    let world = World::usual();
    let alice = world.person("alice").clone();
    let id = world.granted("iot");
    let printed = alice.access(&["login", "--request-id", &id]).run();
    printed.exits(0);
    let file = alice.dir.join("anteroom-cert.pub");
    fs::write(&file, printed.text()).unwrap();
    let config = fs::read_to_string(alice.config()).unwrap();
    let line = format!("  CertificateFile {}\n", file.display());
    fs::write(alice.config(), config + &line).unwrap();
    allow(&world, &["--labels=env=prod", "--for=1h"]);
    for way in Way::BOTH {
        let refused = alice
            .ssh(way, &NOT_WAITING, &target("n2"), &["echo in"])
            .run();
        refused.exits(77).prints("");
        refused.says("not in the allowed resources of your certificate");
    }
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn who_may_not_review_gives_nothing_in_advance_and_an_elevated_reviewer_neither() {
    let mut world = World::usual();
    world
        .create(
            "{kind: role, version: v8, metadata: {name: may-ask}, spec: {allow: {request: {roles: [reviewer]}}}}",
        )
        .exits(0);
    let dora = world.add_user("dora", "may-ask", KeyType::Ed25519);
    let words = [
        "request",
        "allow",
        "--user=alice",
        "--labels=env=staging",
        "--for=1h",
    ];
    dora.access(&words).run().exits(77);
    let asked = dora
        .access(&["request", "create", "--roles=reviewer", "--nowait"])
        .run();
    let id = request_id(&asked.text());
    world.ctl(&["requests", "approve", &id]).exits(0);
    // The role is hers now, but by a request.
    dora.access(&words).run().exits(77);
    world.person("alice").access(&words).run().exits(77);
    let listed = world.ctl(&["request", "allows", "ls", "--format=json"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(0));
}
