//! Roles that bound sessions: how long, how silent, how many; and roles that demand a request.

use std::time::{Duration, Instant};

use anteroom_tests::{PATIENCE, Proc, Way, World, login};

fn target() -> String {
    format!("{}@iot", login())
}

/// dave, who stands with `access` and with a role of these options.
fn dave(options: &str) -> World {
    let roles =
        format!("kind: role\nmetadata: {{name: bounded}}\nspec: {{options: {{{options}}}}}\n");
    World::with_nodes()
        .documents(&roles)
        .user("dave", "access,bounded")
        .start()
}

fn session(world: &World, way: Way, command: &str) -> Proc {
    let dave = world.person("dave");
    let session = dave.ssh(way, &[], &target(), &[command]).start();
    session.expect_out("in\n");
    session
}

/// The reasons with which sessions ended, as the audit log has them.
fn reasons(world: &World, event: &str) -> Vec<String> {
    let listed = world.ctl(&["audit", "ls", "--event", event, "--format", "json"]);
    listed.exits(0);
    let entries = listed.json();
    let reason =
        |entry: &serde_json::Value| entry["reason"].as_str().unwrap_or_default().to_owned();
    entries
        .as_array()
        .expect("a list")
        .iter()
        .map(reason)
        .collect()
}

#[test]
fn a_session_through_which_nothing_goes_ends_and_says_so() {
    for way in Way::BOTH {
        let world = dave("client_idle_timeout: 2s");
        let began = Instant::now();
        let silent = session(&world, way, "echo in; exec sleep 600");
        let busy = session(
            &world,
            way,
            "echo in; for n in 1 2 3 4 5 6 7 8; do sleep 0.5; echo $n; done",
        );
        let finished = silent.finish(PATIENCE);
        let took = began.elapsed();
        finished.exits(77).prints("in\n").says(&format!(
            "ERROR: session to {} ended: nothing was sent or received for 2s (client_idle_timeout)",
            target()
        ));
        assert!(took >= Duration::from_secs(2), "{took:?}");
        // What goes on for longer than that, with something every now and then, is not silent.
        busy.finish(PATIENCE)
            .exits(0)
            .prints("in\n1\n2\n3\n4\n5\n6\n7\n8\n");
        let ended = reasons(&world, "session.end");
        assert!(
            ended.iter().any(|why| why.contains("client_idle_timeout")),
            "{ended:?}"
        );
    }
}

#[test]
fn a_user_has_as_many_connections_to_nodes_as_her_roles_allow() {
    let world = dave("max_connections: 2");
    let first = session(&world, Way::OneHop, "echo in; exec sleep 600");
    let second = session(&world, Way::Jump, "echo in; exec sleep 600");
    for way in Way::BOTH {
        let dave = world.person("dave");
        let third = dave.ssh(way, &[], &target(), &["echo in"]).run();
        third
            .exits(77)
            .prints("")
            .says("(max_connections); end one of them first");
    }
    // Commands are no connections to nodes, and another user has her own.
    world.person("dave").access(&["status"]).run().exits(0);
    let refused = reasons(&world, "session.rejected");
    assert_eq!(refused.len(), 2, "{refused:?}");
    // A place is free again once a connection has ended.
    drop(first);
    let until = Instant::now() + PATIENCE;
    loop {
        let dave = world.person("dave");
        let again = dave.ssh(Way::OneHop, &[], &target(), &["echo in"]).run();
        if again.code() == Some(0) {
            break;
        }
        assert!(Instant::now() < until, "{again}");
    }
    drop(second);
}

#[test]
fn a_session_under_standing_roles_ends_with_their_max_session_ttl() {
    for way in Way::BOTH {
        let world = dave("max_session_ttl: 3s");
        let began = Instant::now();
        let long = session(&world, way, "echo in; while sleep 0.2; do echo; done");
        let finished = long.finish(PATIENCE);
        let took = began.elapsed();
        finished.exits(77).says(&format!(
            "ERROR: session to {} ended: a session may last 3s (max_session_ttl); connect again",
            target()
        ));
        assert!(took >= Duration::from_secs(2), "{took:?}");
        // A new connection proves the key anew, and has its own three seconds.
        let dave = world.person("dave");
        dave.ssh(way, &[], &target(), &["echo in"])
            .run()
            .exits(0)
            .prints("in\n");
    }
}

#[test]
fn a_connection_has_as_many_sessions_as_the_roles_allow() {
    let world = dave("max_sessions: 2");
    let dave = world.person("dave");
    let path = world.path("cm");
    let control = format!("ControlPath={}", path.display());
    let master = dave
        .ssh(Way::Jump, &["-M", "-N", "-o", &control], &target(), &[])
        .start();
    let until = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(
            master.is_running() && Instant::now() < until,
            "{}",
            master.err.text()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let through = ["-o", &control, "-o", "ControlMaster=no"];
    let one = |command: &str| dave.ssh(Way::Jump, &through, &target(), &[command]).start();
    let live = [
        one("echo in; exec sleep 600"),
        one("echo in; exec sleep 601"),
    ];
    live.iter().for_each(|session| {
        session.expect_out("in\n");
    });
    let third = one("echo in").finish(PATIENCE);
    third
        .exits(77)
        .prints("")
        .says("(max_sessions); end one of them first, or connect anew");
    // Another connection has its own.
    let elsewhere = dave.ssh(Way::OneHop, &[], &target(), &["echo in"]).run();
    elsewhere.exits(0).prints("in\n");
    drop(live);
}

#[test]
fn where_a_role_demands_a_request_standing_access_waits_for_one() {
    let roles = "
kind: role
metadata: {name: bounded}
spec:
  allow: {request: {roles: [unlock], search_as_roles: [access]}}
  options: {request_access: reason, request_prompt: Which ticket?}
---
kind: role
metadata: {name: unlock}
---
kind: role
metadata: {name: judge}
spec: {allow: {review_requests: {roles: ['*']}}}
";
    let world = World::with_nodes()
        .documents(roles)
        .user("dave", "access,bounded")
        .user("judy", "judge")
        .start();
    let dave = world.person("dave");
    // Without a terminal and a reason there is nothing to file.
    let ssh = |options: &[&str]| dave.ssh(Way::Jump, options, &target(), &["echo in"]).run();
    let asked = ssh(&["-o", "SetEnv=ANTEROOM_WAIT=0"]);
    asked.exits(64);
    let asked = ssh(&["-o", "SetEnv=ANTEROOM_WAIT=0 ANTEROOM_REASON=T-1"]);
    asked.exits(75);
    let create = [
        "request",
        "create",
        "--roles=unlock",
        "--reason=T-1",
        "--nowait",
    ];
    let created = dave.access(&create).run();
    created.exits(0);
    let id = anteroom_tests::request_id(&String::from_utf8_lossy(&created.stdout));
    let judy = world.person("judy");
    judy.access(&["request", "review", &id, "--approve"])
        .run()
        .exits(0);
    ssh(&[]).exits(0).prints("in\n");
    dave.access(&["request", "drop", "--end", &id])
        .run()
        .exits(0);
    ssh(&["-o", "SetEnv=ANTEROOM_WAIT=0 ANTEROOM_REASON=T-1"]).exits(75);
}
