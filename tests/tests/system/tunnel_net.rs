//! Tunnels from a network namespace with an address of its own, from where the proxy can be reached and which nobody
//! can dial: its sshd listens on its loopback address alone, as behind NAT. Needs root, as making namespaces does.

use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{Net, NodeConfig, PATIENCE, Way, World, login};
use nix::sys::signal::Signal;

fn target() -> String {
    format!("{}@iot", login())
}

fn world(net: &Net, config: &str) -> World {
    World::builder()
        .listen(net.proxy)
        .config(config)
        .node(NodeConfig::new("iot").by_tunnel().namespace(&net.name))
        .user("alice", "requester")
        .user("bob", "reviewer")
        .user("carol", "access")
        .start()
}

#[test]
fn a_node_that_nobody_can_dial_is_reached_through_its_tunnel() {
    let Some(net) = Net::new() else { return };
    let world = world(&net, "");
    let sshd = world.node("iot").port;
    assert!(
        std::net::TcpStream::connect_timeout(&(net.node, sshd).into(), Duration::from_secs(2))
            .is_err(),
        "the node can be dialled"
    );
    let _tunnel = world.open_tunnel("iot");
    let carol = world.person("carol");
    let words = ["ip -o addr show; echo $SSH_CONNECTION"];
    let shown = carol.ssh(Way::Jump, &[], &target(), &words).run();
    shown.exits(0).prints_part(&net.node.to_string());
    let json = world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .json();
    assert_eq!(json["tunnel"]["from"], net.node.to_string());
}

#[test]
fn a_pulled_cable_keeps_a_node_out_for_no_longer_than_the_takeover_takes() {
    let Some(net) = Net::new() else { return };
    let world = world(&net, "");
    let first = world.open_tunnel("iot");
    net.plug("down");
    // It ends without being able to say so.
    first.signal(Signal::SIGKILL);
    drop(first);
    net.plug("up");
    assert!(world.is_connected("iot"), "the proxy can't know yet");
    let began = Instant::now();
    let second = world.tunnel("iot").start();
    let carol = world.person("carol");
    let mut tries = 0;
    loop {
        tries += 1;
        let run = carol
            .ssh(
                Way::OneHop,
                &["-o", "ConnectTimeout=20"],
                &target(),
                &["true"],
            )
            .run();
        if run.code() == Some(0) {
            break;
        }
        assert!(
            tries < 5 && second.is_running(),
            "{run:?} {}",
            second.err.text()
        );
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(25), "{took:?}");
}

#[test]
fn a_dead_line_shows_within_a_minute_and_its_sessions_end_with_a_sentence() {
    let Some(net) = Net::new() else { return };
    let world = world(&net, "");
    let _first = world.open_tunnel("iot");
    let carol = world.person("carol");
    let lived = carol
        .ssh(Way::OneHop, &[], &target(), &["echo there; sleep 200"])
        .start();
    lived.expect_out("there");
    net.plug("down");
    lived
        .finish(Duration::from_secs(70))
        .exits(69)
        .says("broke");
    let until = Instant::now() + PATIENCE;
    while world.is_connected("iot") {
        assert!(Instant::now() < until, "it still shows as connected");
        thread::sleep(Duration::from_millis(100));
    }
    net.plug("up");
}

#[test]
fn a_review_from_where_a_tunnel_comes_from_is_refused_unless_the_operator_says_people_are_there() {
    for shared in [false, true] {
        let Some(net) = Net::new() else { return };
        let config = format!("shared_addresses: [{}]", net.node);
        let world = world(&net, if shared { &config } else { "" });
        let (alice, bob) = (world.person("alice"), world.person("bob"));
        let ask = |number: u8| {
            let reason = format!("--reason=r{number}");
            let words = [
                "request",
                "create",
                "--nowait",
                &reason,
                "--resource",
                "iot",
            ];
            let created = alice.access(&words).run();
            anteroom_tests::request_id(&(created.text() + &created.stderr))
        };
        // Nobody is connected from there yet.
        let review = |id: &str| {
            let words = ["access", "request", "review", "--deny", id];
            net.client(bob).args(words).run()
        };
        review(&ask(1)).exits(0);
        let tunnel = world.open_tunnel("iot");
        let id = ask(2);
        if shared {
            review(&id).exits(0);
            continue;
        }
        review(&id)
            .exits(77)
            .says("where node `iot` is or was connected from");
        drop(tunnel);
        let until = Instant::now() + PATIENCE;
        while world.is_connected("iot") {
            assert!(Instant::now() < until);
            thread::sleep(Duration::from_millis(50));
        }
        // It may come back at any moment, and what it was lent may be used until then.
        review(&id).exits(77).says("is or was connected from");
    }
}
