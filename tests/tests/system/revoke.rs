//! What ends a live session ends it within a second and says why on stderr.

use std::time::{Duration, Instant};

use anteroom_tests::{KeyType, PATIENCE, PROMPTLY, Proc, Way, World, login};

pub(crate) fn target() -> String {
    format!("{}@iot", login())
}

/// A session of `name` on iot that would go on for ever, once it runs.
pub(crate) fn live(world: &World, name: &str, way: Way) -> Proc {
    let session = world
        .person(name)
        .ssh(way, &[], &target(), &["echo in; exec sleep 600"])
        .start();
    session.expect_out("in\n");
    session
}

/// Asserts that the session ends promptly after `act`, by ours and with a word of why.
#[track_caller]
pub(crate) fn ends_when(session: Proc, act: impl FnOnce(), why: &[&str]) {
    assert!(session.is_running(), "{}", session.err.text());
    act();
    let acted = Instant::now();
    let finished = session.finish(PATIENCE);
    let took = acted.elapsed();
    assert!(took < PROMPTLY, "it took {took:?}: {finished}");
    finished.exits(77).prints("in\n");
    let said = finished.stderr.to_lowercase();
    assert!(
        why.iter().any(|word| said.contains(word)),
        "none of {why:?} is said in {finished}"
    );
}

#[test]
fn a_session_that_is_killed_ends_alone_with_who_did_it() {
    let world = World::usual();
    world.granted("iot");
    let other = live(&world, "carol", Way::Jump);
    let session = live(&world, "alice", Way::OneHop);
    let alice = world.person("alice");
    let listed = alice.access(&["sessions", "ls", "--format", "json"]).run();
    listed.exits(0);
    let listed = listed.json();
    assert_eq!(listed.as_array().unwrap().len(), 1, "her own: {listed}");
    assert_eq!(listed[0]["what"], "exec: echo in; exec sleep 600");
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    let carol = world.person("carol");
    let refused = carol.access(&["sessions", "kill", &id]).run();
    refused.exits(66).says("no live session");
    ends_when(
        session,
        || {
            let killed = world.ctl(&["sessions", "kill", &id[..8]]);
            killed.exits(0);
        },
        &["ended: killed by an administrator"],
    );
    assert!(other.is_running(), "{}", other.err.text());
    let killed = world.events("session.kill");
    assert_eq!(killed.len(), 1, "{killed:?}");
    assert_eq!(killed[0]["session_id"], id.as_str());
    assert_eq!(killed[0]["name"], "alice");
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn dropping_the_request_ends_its_sessions() {
    for way in Way::BOTH {
        let world = World::usual();
        let id = world.granted("iot");
        let session = live(&world, "alice", way);
        ends_when(
            session,
            || {
                let dropped = world.person("alice").access(&["request", "drop"]).run();
                dropped
                    .exits(0)
                    .says("Dropping all active access requests...");
            },
            &["drop", "set aside", &id],
        );
        // Set aside, not gone: the next attempt asks again or takes it up by name.
        world
            .person("alice")
            .access(&["request", "assume", &id])
            .run()
            .exits(0);
        world
            .person("alice")
            .ssh(way, &[], &target(), &["echo back"])
            .run()
            .exits(0)
            .prints("back\n");
    }
}

#[test]
fn ending_the_request_for_good_ends_its_sessions_and_it_cannot_be_taken_up_again() {
    let world = World::usual();
    let id = world.granted("iot");
    let session = live(&world, "alice", Way::Jump);
    ends_when(
        session,
        || {
            world
                .person("alice")
                .access(&["request", "drop", "--end", &id])
                .run()
                .exits(0);
        },
        &["end", "revok", "drop", &id],
    );
    let again = world
        .person("alice")
        .access(&["request", "assume", &id])
        .run();
    assert_ne!(again.code(), Some(0), "{again}");
}

#[test]
fn an_approval_turned_into_a_denial_ends_its_sessions() {
    let world = World::usual();
    let id = world.granted("iot");
    let session = live(&world, "alice", Way::OneHop);
    ends_when(
        session,
        || {
            world.ctl(&["requests", "rm", &id]).exits(0);
        },
        &["revok", &id],
    );
    let again = world
        .person("alice")
        .ssh(
            Way::Jump,
            &["-o", "SetEnv=ANTEROOM_WAIT=0"],
            &target(),
            &["true"],
        )
        .run();
    again.exits(75);
}

#[test]
fn the_end_of_the_access_ends_its_sessions() {
    let world = World::usual();
    world.granted_for("iot", &["--session-ttl=10s"]);
    let session = live(&world, "alice", Way::Jump);
    let finished = session.finish(PATIENCE);
    finished.exits(77).prints("in\n");
    assert!(
        finished.stderr.to_lowercase().contains("expire") || finished.stderr.contains("ended"),
        "{finished}"
    );
    let until = Instant::now() + PROMPTLY;
    while world.requests()[0]["state"] != "EXPIRED" {
        assert!(Instant::now() < until, "{:?}", world.requests());
    }
}

#[test]
fn taking_the_role_from_the_user_ends_her_sessions() {
    let world = World::usual();
    let session = live(&world, "carol", Way::Jump);
    ends_when(
        session,
        || {
            world
                .ctl(&["users", "update", "carol", "--roles", "requester"])
                .exits(0);
        },
        &["no longer", "role", "access"],
    );
}

#[test]
fn a_change_of_a_role_that_leaves_the_access_in_place_leaves_the_session_alone() {
    let world = World::usual();
    let role = |logins: &str| {
        format!(
            "kind: role\nversion: v7\nmetadata: {{name: ops}}\nspec:\n  allow:\n    logins: [{logins}]\n    \
             node_labels: {{'*': '*'}}\n"
        )
    };
    let me = login();
    world.create(&role(&me)).exits(0);
    world
        .ctl(&["users", "update", "carol", "--roles", "ops"])
        .exits(0);
    let session = live(&world, "carol", Way::OneHop);
    world.replace(&role(&format!("{me}, deploy"))).exits(0);
    // A second command of hers goes the whole way meanwhile.
    world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
    assert!(session.is_running(), "{}", session.err.text());
    ends_when(
        session,
        || {
            world.replace(&role("deploy")).exits(0);
        },
        &["no longer", "role", "access"],
    );
}

#[test]
fn the_change_of_a_nodes_labels_is_a_change_of_access() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nversion: v7\nmetadata: {name: staging}\nspec:\n  allow:\n    logins: ['{{internal.logins}}']\n    \
             node_labels: {env: staging}\n",
        )
        .user("carol", "staging")
        .start();
    let session = live(&world, "carol", Way::Jump);
    ends_when(
        session,
        || {
            world
                .ctl(&["nodes", "update", "iot", "--labels", "env=prod"])
                .exits(0);
        },
        &["no longer", "access"],
    );
}

#[test]
fn removing_the_user_ends_her_sessions_and_her_key_opens_nothing() {
    let world = World::usual();
    let session = live(&world, "carol", Way::OneHop);
    ends_when(
        session,
        || {
            world.ctl(&["users", "rm", "carol"]).exits(0);
        },
        &["removed", "no longer", "user"],
    );
    world
        .person("carol")
        .access(&["whoami"])
        .run()
        .exits(255)
        .says("Permission denied");
}

#[test]
fn locking_the_user_ends_her_sessions() {
    let world = World::usual();
    let session = live(&world, "carol", Way::Jump);
    ends_when(
        session,
        || {
            world.ctl(&["users", "lock", "carol"]).exits(0);
        },
        &["lock"],
    );
    let refused = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run();
    assert_ne!(refused.code(), Some(0), "{refused}");
    world.ctl(&["users", "unlock", "carol"]).exits(0);
    world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
}

#[test]
fn removing_the_node_ends_its_sessions() {
    let world = World::usual();
    let session = live(&world, "carol", Way::Jump);
    ends_when(
        session,
        || {
            world.ctl(&["nodes", "rm", "iot"]).exits(0);
        },
        &["removed", "no longer", "node"],
    );
}

#[test]
fn taking_away_the_key_ends_the_sessions_it_opened() {
    let world = World::usual();
    let session = live(&world, "carol", Way::Jump);
    let other = world
        .person("carol")
        .with_new_key("other", KeyType::Ed25519);
    ends_when(
        session,
        || {
            world
                .ctl_cmd(&["users", "update", "carol", "--key"])
                .arg(other.public_key())
                .run()
                .exits(0);
        },
        &["the key you came with"],
    );
    world.person("carol").access(&["whoami"]).run().exits(255);
}

#[test]
fn somebody_elses_change_ends_nothing() {
    let world = World::usual();
    let session = live(&world, "carol", Way::Jump);
    let id = world.granted("iot");
    world.ctl(&["requests", "rm", &id]).exits(0);
    world.ctl(&["users", "rm", "alice"]).exits(0);
    world.ctl(&["nodes", "rm", "n2"]).exits(0);
    assert!(
        !session.out.wait_for_end(Duration::from_secs(2)),
        "{}",
        session.err.text()
    );
    assert!(session.is_running());
}

#[test]
fn a_dropped_request_ends_forwards_without_a_session_too() {
    let world = World::usual();
    world.granted("iot");
    let port = anteroom_tests::free_port();
    let forward = format!("{port}:127.0.0.1:{}", world.node("iot").port);
    let tunnel = world
        .person("alice")
        .ssh(Way::Jump, &["-N", "-L", &forward], &target(), &[])
        .start();
    let mut stream = crate::forward::connect(port);
    let banner = crate::forward::read_line(&mut stream);
    assert!(banner.starts_with("SSH-2.0-"), "{banner}");
    world
        .person("alice")
        .access(&["request", "drop"])
        .run()
        .exits(0);
    let dropped = Instant::now();
    assert!(
        crate::forward::ends(&mut stream),
        "the forwarded connection goes on: {}",
        tunnel.err.text()
    );
    assert!(dropped.elapsed() < PROMPTLY, "{:?}", dropped.elapsed());
}

#[test]
fn every_session_start_has_an_end_in_the_audit_log() {
    let world = World::usual();
    let session = live(&world, "carol", Way::Jump);
    world
        .person("carol")
        .ssh(Way::OneHop, &[], &target(), &["true"])
        .run()
        .exits(0);
    ends_when(
        session,
        || {
            world.ctl(&["users", "rm", "carol"]).exits(0);
        },
        &["removed", "no longer", "user"],
    );
    let ids = |event: &str| {
        world
            .events(event)
            .iter()
            .map(|entry| {
                entry["session_id"]
                    .as_str()
                    .expect("a session has an ID")
                    .to_owned()
            })
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(ids("session.start").len(), 2);
    let until = Instant::now() + PATIENCE;
    while ids("session.end") != ids("session.start") {
        assert!(Instant::now() < until, "{:#?}", world.audit());
    }
}
