//! What somebody with a hostile mind found: each case was a hole once.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{PATIENCE, Way, World, login, request_id};

fn target() -> String {
    format!("{}@iot", login())
}

/// How many files the proxy has open.
fn open_files(world: &World) -> usize {
    let dir = format!("/proc/{}/fd", world.proxy().id());
    fs::read_dir(dir).map_or(0, Iterator::count)
}

/// Waits until the proxy has no more files open than `before`.
#[track_caller]
fn comes_back_to(world: &World, before: usize) {
    let until = Instant::now() + PATIENCE;
    while open_files(world) > before {
        assert!(
            Instant::now() < until,
            "{} files are open, {before} were",
            open_files(world)
        );
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_reason_given_for_a_wider_request_does_not_serve_another_one() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nmetadata: {name: strict}\nspec:\n  allow:\n    request:\n      \
             search_as_roles: [access]\n      reason: {mode: required}\n",
        )
        .user("erin", "strict")
        .start();
    let erin = world.person("erin");
    let resource = &world.node("iot").resource_id;
    let wider = erin
        .access(&[
            "request",
            "create",
            "--nowait",
            "--reason=work",
            "--resource",
            resource,
        ])
        .run();
    request_id(&(wider.text() + &wider.stderr));
    let refused = erin.ssh(Way::OneHop, &[], &target(), &["true"]).run();
    refused.exits(64).says("ANTEROOM_REASON");
    assert_eq!(
        world.requests().len(),
        1,
        "nothing was filed without a reason"
    );
}

#[test]
fn a_client_that_leaves_while_a_silent_node_is_dialled_leaves_nothing_behind() {
    let world = World::usual();
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let key = world.node("iot").host_key(anteroom_tests::KeyType::Ed25519);
    let key = key.with_extension("pub").display().to_string();
    world
        .ctl(&[
            "nodes",
            "add",
            "mute",
            "--addr",
            &address,
            "--host-key",
            &key,
        ])
        .exits(0);
    let before = open_files(&world);
    let mute = format!("{}@mute", login());
    let client = world
        .person("carol")
        .ssh(Way::OneHop, &[], &mute, &["true"])
        .start();
    let dialled = silent.accept().unwrap();
    drop(client);
    // Well before the ten seconds that a login at a node may take.
    let left = Instant::now();
    comes_back_to(&world, before);
    assert!(
        left.elapsed() < Duration::from_secs(5),
        "{:?}",
        left.elapsed()
    );
    drop(dialled);
}
