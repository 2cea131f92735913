//! Nodes that connect by themselves, with the real ssh at their end.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, HostProof, KeyType, NodeConfig, PATIENCE, Proc, Way, World, login};
use nix::sys::signal::Signal;

fn target() -> String {
    format!("{}@iot", login())
}

fn world() -> World {
    World::builder()
        .node(NodeConfig::new("iot").labels("env=staging").by_tunnel())
        .node(NodeConfig::new("n2").labels("env=prod"))
        .user("alice", "requester")
        .user("bob", "reviewer")
        .user("carol", "access")
        .start()
}

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The TCP ports that the proxy listens on.
fn listening(world: &World) -> BTreeSet<String> {
    let sockets = Cmd::new("ss").args(["-Hltnp"]).run();
    let text = sockets.text();
    let own = format!("pid={},", world.proxy().id());
    let lines = text.lines().filter(|line| line.contains(&own));
    lines
        .filter_map(|line| line.split_whitespace().nth(3).map(str::to_owned))
        .collect()
}

/// The node's side of a tunnel with other options.
fn by_hand(world: &World, options: &[&str]) -> Cmd {
    let key = world.node("iot").host_key(KeyType::Ed25519);
    with_key(world.port, "node+iot", &key.display().to_string(), options)
}

pub(super) fn with_key(port: u16, user: &str, key: &str, options: &[&str]) -> Cmd {
    Cmd::new("ssh")
        .args([
            "-F",
            "none",
            "-T",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args(["-o", "LogLevel=INFO", "-i", key, "-l", user, "-p"])
        .arg(port.to_string())
        .args(options)
}

const FORWARD: [&str; 4] = ["-N", "-o", "ExitOnForwardFailure=yes", "-R"];

#[test]
fn a_node_behind_its_tunnel_is_used_as_any_other_and_nothing_is_listened_on() {
    let world = world();
    let carol = world.person("carol");
    let before = listening(&world);
    assert_eq!(before.len(), 1, "{before:?}");
    let tunnel = world.open_tunnel("iot");
    assert_eq!(listening(&world), before);
    for way in Way::BOTH {
        carol
            .ssh(way, &[], &target(), &["echo out; echo err >&2; exit 7"])
            .run()
            .exits(7)
            .prints("out\n")
            .says("err");
    }
    // The node sees a connection from itself.
    let log = world.node("iot").expect_log("Accepted publickey for");
    assert!(log.contains("127.0.0.1") || log.contains("::1"), "{log}");
    let file = world.path("file");
    fs::write(&file, vec![b'x'; 3 << 20]).unwrap();
    let there = world.path("there");
    carol
        .client("scp")
        .args(["-J", "access"])
        .arg(&file)
        .arg(format!("{}:{}", target(), there.display()))
        .run()
        .exits(0);
    assert_eq!(fs::read(&there).unwrap().len(), 3 << 20);
    carol
        .client("sftp")
        .args(["-J", "access", "-b", "-"])
        .arg(target())
        .stdin(format!(
            "get {} {}\n",
            there.display(),
            world.path("back").display()
        ))
        .run()
        .exits(0);
    Cmd::new("rsync")
        .args(["-a", "-e", &carol.ssh_command(Way::Jump)])
        .arg(&file)
        .arg(format!("{}:{}", target(), world.path("synced").display()))
        .run()
        .exits(0);
    let listed = carol.access(&["ls"]).run();
    listed.exits(0).prints_part("⟵ Tunnel");
    let shown = world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .json();
    assert_eq!(shown["addr"], "tunnel");
    assert_eq!(shown["tunnel"]["from"], "127.0.0.1");
    for field in ["last_heartbeat", "last_dial"] {
        assert!(shown[field].is_string(), "{field}: {shown}");
    }
    assert!(shown["tunnel"]["since"].is_string(), "{shown}");
    let status = world
        .ctl(&["status", "--server", "--format", "json"])
        .json();
    let of_nodes = &status["node_connections"];
    assert_eq!(
        (&of_nodes["used"], &of_nodes["limit"]),
        (&1.into(), &10_000.into())
    );
    // Who only uses it is not told from where it comes.
    let own = carol.access(&["ls", "--format", "json"]).run().json();
    let own = own
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["name"] == "iot")
        .unwrap()
        .clone();
    assert!(
        own.get("tunnel").is_none() && own.get("last_dial").is_none(),
        "{own}"
    );
    drop(tunnel);
    let events = || world.events("node.tunnel");
    until("the end is in the log", || events().len() == 2);
    assert_eq!(
        (&events()[0]["state"], &events()[1]["state"]),
        (&"open".into(), &"closed".into())
    );
}

#[test]
fn without_its_tunnel_a_node_is_unavailable_and_was_last_there_then() {
    let world = world();
    let carol = world.person("carol");
    let first = carol.ssh(Way::OneHop, &[], &target(), &["true"]).run();
    first
        .exits(69)
        .says("none is open; it has not been there yet");
    drop(world.open_tunnel("iot"));
    until("the tunnel is gone", || !world.is_connected("iot"));
    let then = carol.ssh(Way::Jump, &[], &target(), &["true"]).run();
    then.exits(69).says("none is open; it was last there at ");
}

#[test]
fn a_second_connection_is_refused_while_the_first_one_answers() {
    let world = world();
    let carol = world.person("carol");
    let _tunnel = world.open_tunnel("iot");
    for _ in 0..2 {
        let second = by_hand(&world, &FORWARD)
            .args(["0:localhost:1", "127.0.0.1"])
            .run();
        second
            .exits(255)
            .says("node `iot` is connected already, from 127.0.0.1 since");
    }
    carol
        .ssh(Way::OneHop, &[], &target(), &["true"])
        .run()
        .exits(0);
    let refused: Vec<_> = world
        .events("node.tunnel")
        .into_iter()
        .filter(|entry| entry["state"] == "refused")
        .collect();
    assert_eq!(refused.len(), 1, "once a minute: {refused:?}");
    assert_eq!(refused[0]["success"], false);
    assert_eq!(refused[0]["node"], "iot");
}

#[test]
fn a_second_connection_takes_over_from_one_that_does_not_answer_within_five_seconds() {
    let world = world();
    let carol = world.person("carol");
    let first = world.open_tunnel("iot");
    let lived = carol
        .ssh(Way::OneHop, &[], &target(), &["echo there; sleep 100"])
        .start();
    lived.expect_out("there");
    first.signal(Signal::SIGSTOP);
    let began = Instant::now();
    let second = world.tunnel("iot").start();
    // What went through the first one ends with a sentence.
    let ended = lived.finish(Duration::from_secs(15));
    ended.exits(69).says("broke");
    assert!(
        began.elapsed() < Duration::from_secs(12),
        "{:?}",
        began.elapsed()
    );
    carol
        .ssh(Way::OneHop, &[], &target(), &["echo again"])
        .run()
        .exits(0)
        .prints("again\n");
    assert!(second.is_running());
    let reasons: Vec<_> = world.events("node.tunnel");
    assert!(
        reasons
            .iter()
            .any(|entry| entry["reason"] == "another connection of the node took its place"),
        "{reasons:?}"
    );
    first.signal(Signal::SIGKILL);
}

#[test]
fn only_the_nodes_own_key_opens_its_tunnel_and_only_for_a_node_by_tunnel() {
    let mut world = world();
    let other = world
        .node("n2")
        .host_key(KeyType::Ed25519)
        .display()
        .to_string();
    let own = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .display()
        .to_string();
    let carol = world.person("carol").key.display().to_string();
    let port = world.port;
    let forward = |user: &str, key: &str| {
        with_key(port, user, key, &FORWARD)
            .args(["0:localhost:1", "127.0.0.1"])
            .run()
    };
    for (user, key) in [
        ("node+iot", &other),
        ("node+iot", &carol),
        ("node+nosuch", &own),
        ("node+", &own),
        ("node+*", &own),
        ("iot", &own),
    ] {
        forward(user, key)
            .exits(255)
            .says("Permission denied (publickey)");
    }
    // It has an address, where it is dialled: who stole its key attracts nothing.
    forward("node+n2", &other)
        .exits(255)
        .says("this node is dialled at its address, so that it gets no forward");
    assert!(!world.is_connected("n2"));
    // As for users, a refusal does not tell why.
    let by_uuid = format!("node+{}", world.node("iot").uuid);
    let tunnel = with_key(port, &by_uuid, &own, &FORWARD)
        .args(["0:localhost:1", "127.0.0.1"])
        .start();
    until("it is known by its UUID too", || world.is_connected("iot"));
    drop(tunnel);
    // A key that was taken from the node, and a lock, shut it out.
    let public = format!("{other}.pub");
    world
        .ctl(&["nodes", "update", "iot", "--host-key", &public])
        .exits(0);
    forward("node+iot", &own)
        .exits(255)
        .says("Permission denied");
    let public = format!("{own}.pub");
    world
        .ctl(&["nodes", "update", "iot", "--host-key", &public])
        .exits(0);
    world.ctl(&["lock", "--node", "iot"]).exits(0);
    forward("node+iot", &own)
        .exits(255)
        .says("Permission denied");
    world.stop_proxy();
    world.start_proxy();
    forward("node+iot", &own)
        .exits(255)
        .says("Permission denied");
}

#[test]
fn a_tunnel_ends_when_its_key_is_the_nodes_no_more() {
    let world = world();
    let own = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .display()
        .to_string();
    let fingerprint = Cmd::new("ssh-keygen").args(["-lf", &own]).run().text();
    let fingerprint = fingerprint.split_whitespace().nth(1).unwrap().to_owned();
    let ends = |words: &[&str], back: &[&str]| {
        let tunnel = world.open_tunnel("iot");
        world.ctl(words).exits(0);
        let ended = tunnel.finish(PATIENCE);
        ended.exits(255).says("is not known by this key any more");
        let undo: Vec<String> = match back {
            [] => {
                let locks = world.ctl(&["locks", "ls", "--format", "json"]).json();
                let id = locks[0]["id"].as_str().unwrap().to_owned();
                vec!["locks".to_owned(), "rm".to_owned(), id]
            }
            words => words.iter().map(|word| (*word).to_owned()).collect(),
        };
        let undo: Vec<&str> = undo.iter().map(String::as_str).collect();
        world.ctl(&undo).exits(0);
    };
    let address = world.node("iot").address();
    ends(&["lock", "--node", "iot"], &[]);
    ends(&["lock", "--key", &fingerprint], &[]);
    ends(
        &["nodes", "update", "iot", "--addr", &address],
        &["nodes", "update", "iot", "--addr", "tunnel"],
    );
    let tunnel = world.open_tunnel("iot");
    world.ctl(&["nodes", "rm", "iot"]).exits(0);
    tunnel.finish(PATIENCE).exits(255);
}

#[test]
fn a_node_known_by_certificates_comes_with_a_certified_key() {
    let mut world = World::builder()
        .node(
            NodeConfig::new("iot")
                .by_tunnel()
                .host_proof(HostProof::HostCa),
        )
        .user("carol", "access")
        .start();
    let tunnel = world.open_tunnel("iot");
    let carol = world.person("carol").clone();
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
    drop(tunnel);
    // Also after a restart; and no more when the certificate was revoked for that of another key.
    world.stop_proxy();
    world.start_proxy();
    let tunnel = world.open_tunnel("iot");
    let other = world.path("other_key");
    KeyType::Ed25519.generate(&other, "other");
    world.issue_host_certificate("iot", &other, &[]);
    tunnel
        .finish(PATIENCE)
        .exits(255)
        .says("is not known by this key any more");
    by_hand(&world, &FORWARD)
        .args(["0:localhost:1", "127.0.0.1"])
        .run()
        .exits(255)
        .says("Permission denied");
}

#[test]
fn the_connection_of_a_node_may_do_nothing_but_its_one_forward() {
    let world = world();
    let before = listening(&world);
    let only = "may ask for one remote forward";
    by_hand(&world, &["127.0.0.1", "id"])
        .run()
        .exits(77)
        .prints("")
        .says(only);
    by_hand(&world, &["127.0.0.1"]).run().exits(77).says(only);
    by_hand(&world, &["-s", "127.0.0.1", "sftp"])
        .run()
        .exits(77)
        .says(only);
    by_hand(&world, &["-tt", "127.0.0.1"]).run().exits(255);
    let through = world.node("n2").address();
    by_hand(&world, &["-W", &through, "127.0.0.1"])
        .run()
        .exits(255)
        .says(only);
    let two = by_hand(&world, &FORWARD)
        .args(["0:localhost:1", "-R", "0:localhost:2", "127.0.0.1"])
        .run();
    two.exits(255).says("remote port forwarding failed");
    let socket = format!("{}:localhost:1", world.path("socket").display());
    by_hand(&world, &FORWARD)
        .args([&socket, "127.0.0.1"])
        .run()
        .exits(255)
        .says("remote port forwarding failed");
    assert_eq!(listening(&world), before);
    // What was not asked for in time is ended.
    let idle = by_hand(&world, &["-N", "127.0.0.1"]).start();
    idle.finish(Duration::from_secs(40))
        .exits(255)
        .says("this one did not");
    let refused = world.events("node.tunnel");
    assert!(
        refused.iter().any(|entry| entry["success"] == false),
        "{refused:?}"
    );
}

#[test]
fn a_broken_tunnel_ends_its_sessions_and_no_held_connection() {
    let world = world();
    let (alice, carol) = (world.person("alice"), world.person("carol"));
    let tunnel = world.open_tunnel("iot");
    let held = alice
        .ssh(Way::OneHop, &[], &target(), &["echo through"])
        .start();
    let id = anteroom_tests::request_id(&held.expect_err("Status:"));
    let lived = carol
        .ssh(Way::Jump, &[], &target(), &["echo there; sleep 100"])
        .start();
    lived.expect_out("there");
    tunnel.signal(Signal::SIGKILL);
    lived.finish(PATIENCE).exits(69).says("broke");
    assert!(held.is_running());
    let _tunnel = world.open_tunnel("iot");
    world.approve(&id);
    held.finish(PATIENCE).exits(0).prints("through\n");
}

#[test]
fn a_tunnel_comes_back_after_a_restart_of_the_proxy() {
    let mut world = world();
    let tunnel = world.open_tunnel("iot");
    let ended = world.stop_proxy();
    ended.exits(0);
    tunnel.finish(PATIENCE).exits(255).says("connect again");
    world.start_proxy();
    let seen = world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .json();
    assert!(seen["last_heartbeat"].is_string(), "{seen}");
    assert_eq!(seen["tunnel"]["connected"], false);
    let tunnel = world.open_tunnel("iot");
    let carol = world.person("carol").clone();
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
    world.kill_proxy();
    tunnel.finish(PATIENCE).exits(255);
    world.start_proxy();
    let _tunnel = world.open_tunnel("iot");
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
}

fn sum(path: &std::path::Path) -> String {
    let sum = Cmd::new("sha256sum").arg(path).run();
    sum.text().split_whitespace().next().unwrap().to_owned()
}

/// `head -c 64M` of noise, there and back.
fn noise(world: &World) -> std::path::PathBuf {
    let file = world.path("noise");
    let made = Cmd::new("sh")
        .args(["-c", "head -c 67108864 /dev/urandom > \"$0\""])
        .arg(&file)
        .run();
    made.exits(0);
    file
}

#[test]
fn a_slow_reader_in_both_directions_gets_everything_through_a_tunnel() {
    let world = world();
    let carol = world.person("carol");
    let _tunnel = world.open_tunnel("iot");
    let (file, back) = (noise(&world), world.path("back"));
    let ssh = carol.ssh_command(Way::Jump);
    let line = format!(
        "{ssh} {} cat < {} | (sleep 4; cat > {})",
        target(),
        file.display(),
        back.display()
    );
    Cmd::new("sh")
        .args(["-c", &line])
        .run_within(Duration::from_secs(120))
        .exits(0);
    assert_eq!(sum(&file), sum(&back));
    let peak = world.peak_memory_kib() - world.memory_kib().min(world.peak_memory_kib());
    assert!(peak < 64 << 10, "{peak} KiB more at the peak");
}

#[test]
fn a_stalled_session_does_not_stop_the_others_of_its_tunnel() {
    let world = world();
    let carol = world.person("carol");
    let _tunnel = world.open_tunnel("iot");
    let stalled: Vec<Proc> = (0..3)
        .map(|n| {
            let ssh = carol.ssh_command(Way::OneHop);
            let line = format!(
                "{ssh} {}@access 'echo begun >&2; head -c 200000000 /dev/zero' | (sleep {}; wc -c)",
                target(),
                60 + n
            );
            let stalled = Cmd::new("sh").args(["-c", &line]).start();
            stalled.expect_err("begun");
            stalled
        })
        .collect();
    // Until they are full.
    thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    carol
        .ssh(
            Way::OneHop,
            &[],
            &target(),
            &["head -c 33554432 /dev/zero | tee /dev/null"],
        )
        .run_within(Duration::from_secs(30))
        .exits(0);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(stalled.iter().all(Proc::is_running));
}

/// The control channel of a node agent, spoken by hand beside the forward.
struct Agent(Proc);

impl Agent {
    fn open(world: &World, key: &str) -> Self {
        let port = world.node("iot").port;
        let forward = format!("0:localhost:{port}");
        let ssh = with_key(
            world.port,
            "node+iot",
            key,
            &["-o", "ExitOnForwardFailure=yes"],
        )
        .args(["-R", &forward, "-s", "127.0.0.1", "anteroom-node"])
        .stdin_open()
        .start();
        Self(ssh)
    }

    fn say(&mut self, message: &serde_json::Value) {
        self.0.say(format!("{message}\n"));
    }

    /// Waits for a message of that kind; what comes before is passed over.
    #[track_caller]
    fn hear(&self, kind: &str) -> serde_json::Value {
        let heard = self.0.expect_out(&format!("{{\"say\":\"{kind}\""));
        let start = heard.rfind("{\"say\"").unwrap();
        let rest = self.0.expect_out("}\n");
        let line = format!("{}{rest}", &heard[start..]);
        serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

fn labels_of(world: &World) -> serde_json::Value {
    world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .json()["labels"]
        .clone()
}

#[test]
fn an_agent_is_told_whom_to_trust_and_what_is_revoked_and_of_every_change() {
    let world = world();
    let own = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .display()
        .to_string();
    let mut agent = Agent::open(&world, &own);
    agent.say(&serde_json::json!({"say": "hello", "version": "1", "labels": {}}));
    let welcome = agent.hear("welcome");
    assert_eq!(welcome["node_id"], world.node("iot").uuid);
    assert_eq!(welcome["cluster"], World::CLUSTER);
    let told = agent.hear("authorities");
    let exported = world.ctl(&["auth", "export", "--type", "node"]).text();
    let signing = told["node_ca"][0].as_str().unwrap();
    assert!(exported.starts_with(signing), "{told} {exported}");
    let first = agent.hear("revoked");
    agent.say(&serde_json::json!({"say": "hello", "version": "2"}));
    let refused = agent.hear("refused");
    let why = refused["why"].as_str().unwrap();
    assert!(why.contains("was said already"), "{refused}");
    assert!(
        first["krl"].as_str().unwrap().starts_with("U1NIS1JM"),
        "SSHKRL: {first}"
    );
    // Messages of a kind that it does not know are passed over, and lines that are none are refused.
    agent.say(&serde_json::json!({"say": "sing", "what": "la"}));
    agent.0.say("nonsense\n");
    let refused = agent.hear("refused");
    assert!(
        refused["why"].as_str().unwrap().contains("not understood"),
        "{refused}"
    );
    // It does not begin anew on the same channel, and what it would say of itself so is not taken.
    let again = serde_json::json!({"say": "hello", "version": "2", "labels": {"again": "yes"}});
    agent.say(&again);
    let refused = agent.hear("refused");
    assert!(
        refused["why"].as_str().unwrap().contains("said already"),
        "{refused}"
    );
    world
        .ctl(&["auth", "rotate", "--type", "node", "--stage", "announce"])
        .exits(0);
    assert_eq!(
        agent.hear("authorities")["node_ca"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    world.ctl(&["lock", "--serial", "77"]).exits(0);
    assert_ne!(agent.hear("revoked"), first);
    assert_eq!(labels_of(&world)["again"], serde_json::Value::Null);
    // What it learns so does not count as learnt: a login has to show it.
    let status = world.ctl(&["auth", "status", "--format", "json"]).text();
    assert!(status.contains("iot"), "{status}");
    // Not on a connection that has no forward, and not twice.
    let alone =
        by_hand(&world, &["-s", "127.0.0.1", "anteroom-node"]).run_within(Duration::from_secs(30));
    alone.exits(77).says("this one did not");
}

#[test]
fn what_a_node_says_of_itself_never_wins_and_is_bounded() {
    let world = world();
    let own = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .display()
        .to_string();
    let mut agent = Agent::open(&world, &own);
    let labels = serde_json::json!({"env": "prod", "kernel": "6.1"});
    agent.say(&serde_json::json!({"say": "hello", "version": "1", "labels": labels}));
    agent.hear("welcome");
    until("the label is there", || {
        labels_of(&world)["kernel"] == "6.1"
    });
    assert_eq!(
        labels_of(&world)["env"],
        "staging",
        "an operator has set it"
    );
    let many: std::collections::BTreeMap<_, _> = (0..10_000)
        .map(|n| (format!("k{n}"), "v".to_owned()))
        .collect();
    for (labels, why) in [
        (serde_json::json!(many), "at most 64 labels"),
        (serde_json::json!({"anteroom/x": "y"}), "reserved"),
        (serde_json::json!({"a": "b\u{1b}[2J"}), "control characters"),
        (serde_json::json!({"a": "x".repeat(257)}), "at most"),
    ] {
        agent.say(&serde_json::json!({"say": "heartbeat", "labels": labels}));
        let refused = agent.hear("refused");
        assert!(
            refused["why"].as_str().unwrap().contains(why),
            "{why}: {refused}"
        );
    }
    agent.say(&serde_json::json!({"say": "heartbeat", "labels": {"kernel": "6.2"}}));
    until("the last word counts", || {
        labels_of(&world)["kernel"] == "6.2"
    });
    let count = |event: &str| {
        let all = world.events(event);
        all.iter().filter(|entry| entry["node"] == "iot").count()
    };
    assert_eq!(count("node.update"), 2);
    let refused = world.events("node.tunnel");
    let refused = refused.iter().filter(|entry| entry["success"] == false);
    assert_eq!(refused.count(), 1, "once a minute");
}

#[test]
fn a_node_that_opens_its_channels_and_connections_again_and_again_has_no_more_turns() {
    let world = world();
    let own = world.node("iot").host_key(KeyType::Ed25519);
    let public = fs::read_to_string(own.with_extension("pub")).unwrap();
    let own = own.display().to_string();
    let socket = world.path("mux").display().to_string();
    let began = Instant::now();
    let _tunnel = by_hand(&world, &FORWARD)
        .args(["0:localhost:1", "-M", "-S", &socket, "127.0.0.1"])
        .start();
    until("the connection is shared", || fs::exists(&socket).unwrap());
    for n in 0..12 {
        let channel = by_hand(&world, &["-S", &socket, "-s", "127.0.0.1", "anteroom-node"]);
        let mut agent = Agent(channel.stdin_open().start());
        let labels = serde_json::json!({"round": n.to_string()});
        agent.say(&serde_json::json!({"say": "hello", "version": "1", "labels": labels}));
        agent.hear("welcome");
        agent.say(&serde_json::json!({"say": "renew", "key": public.trim()}));
        let told = |kind: &str| {
            agent
                .0
                .out
                .text()
                .contains(&format!("{{\"say\":\"{kind}\""))
        };
        until("an answer", || told("refused") || told("host_certificate"));
    }
    drop(_tunnel);
    until("it is gone", || !world.is_connected("iot"));
    for _ in 0..8 {
        let mut agent = Agent::open(&world, &own);
        agent.say(&serde_json::json!({"say": "hello", "version": "1", "labels": {}}));
        agent.hear("welcome");
        agent.0.say("nonsense\n");
        agent.hear("refused");
        drop(agent);
        until("it is gone", || !world.is_connected("iot"));
    }
    let tens = usize::try_from(began.elapsed().as_secs() / 10).unwrap();
    let of_node = |event: &str| {
        let all = world.events(event).into_iter();
        all.filter(|entry| entry["node"] == "iot")
            .collect::<Vec<_>>()
    };
    let (updates, certificates) = (of_node("node.update").len(), of_node("cert.create").len());
    assert!(updates <= tens + 1, "{updates} in {tens} times ten seconds");
    assert!(
        certificates <= tens + 1,
        "{certificates} in {tens} times ten seconds"
    );
    let (refused, ways): (Vec<_>, Vec<_>) = of_node("node.tunnel")
        .into_iter()
        .partition(|entry| entry["state"] == "refused");
    assert!(refused.len() <= tens / 6 + 1, "{refused:?}");
    assert!(ways.len() <= 2 * (tens / 6 + 5), "{ways:?}");
}

#[test]
fn a_node_renews_its_certificate_and_replaces_its_own_key_and_no_other() {
    let world = world();
    let carol = world.person("carol");
    let own = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .display()
        .to_string();
    let public = |key: &str| {
        fs::read_to_string(format!("{key}.pub"))
            .unwrap()
            .trim()
            .to_owned()
    };
    let mut agent = Agent::open(&world, &own);
    agent.say(&serde_json::json!({"say": "hello", "version": "1"}));
    agent.hear("revoked");
    let other = world
        .node("n2")
        .host_key(KeyType::Ed25519)
        .display()
        .to_string();
    let renew = |key: &str| serde_json::json!({"say": "renew", "key": public(key)});
    agent.say(&renew(&other));
    let refused = agent.hear("refused");
    assert!(
        refused["why"]
            .as_str()
            .unwrap()
            .contains("belongs to another node"),
        "{refused}"
    );
    agent.say(&renew(&own));
    assert!(
        agent.hear("refused")["why"]
            .as_str()
            .unwrap()
            .contains("a moment ago")
    );
    thread::sleep(Duration::from_secs(10));
    agent.say(&renew(&own));
    let certificate = agent.hear("host_certificate")["certificate"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = world.path("cert.pub");
    fs::write(&file, certificate).unwrap();
    let shown = Cmd::new("ssh-keygen").arg("-Lf").arg(&file).run();
    shown
        .exits(0)
        .prints_part(&world.node("iot").uuid)
        .prints_part("host certificate");
    // Another key takes the place of the one that this connection was made with, which goes on.
    let new = world.path("new_key").display().to_string();
    KeyType::Ed25519.generate(std::path::Path::new(&new), "new");
    thread::sleep(Duration::from_secs(10));
    agent.say(&renew(&new));
    agent.hear("host_certificate");
    thread::sleep(Duration::from_secs(1));
    assert!(agent.0.is_running() && world.is_connected("iot"));
    let shown = world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .text();
    let body = |key: &str| public(key).split_whitespace().nth(1).unwrap().to_owned();
    assert!(
        shown.contains(&body(&new)) && !shown.contains(&body(&own)),
        "{shown}"
    );
    // The node's sshd still shows the old one.
    carol
        .ssh(Way::OneHop, &[], &target(), &["true"])
        .run()
        .exits(69);
    drop(agent);
    until("it is gone", || !world.is_connected("iot"));
    let forward = |key: &str| {
        with_key(world.port, "node+iot", key, &FORWARD).args(["0:localhost:1", "127.0.0.1"])
    };
    forward(&own).run().exits(255).says("Permission denied");
    let _tunnel = forward(&new).start();
    until("the new key opens it", || world.is_connected("iot"));
}

#[test]
fn the_unit_is_one_that_systemd_reads_without_a_complaint() {
    let there = std::process::Command::new("systemd-analyze")
        .arg("--version")
        .output();
    if there.is_err() {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    }
    let world = world();
    let unit = world.ctl(&["nodes", "tunnel-unit", "iot"]);
    unit.exits(0);
    let file = world.path("anteroom-tunnel.service");
    fs::write(&file, &unit.stdout).unwrap();
    let checked = Cmd::new("systemd-analyze").arg("verify").arg(&file).run();
    checked.exits(0).prints("");
    assert_eq!(checked.stderr, "");
    world
        .ctl(&["nodes", "tunnel-unit", "n2"])
        .exits(64)
        .says("nodes update n2 --addr tunnel");
}
