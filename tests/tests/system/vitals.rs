//! How the proxy is, for those who may know, and for a collector: and the limits, seen from outside.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use anteroom_tests::raw::wire::{Msg, msg};
use anteroom_tests::raw::{Raw, RawKey};
use anteroom_tests::{Capture, NodeConfig, PATIENCE, Way, World, login, request_id};

fn number(status: &serde_json::Value, name: &str) -> u64 {
    let value = &status[name];
    let value = value.get("used").unwrap_or(value);
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{name} in {status}"))
}

fn vitals(world: &World) -> serde_json::Value {
    let printed = world.ctl(&["status", "--server", "--format", "json"]);
    printed.exits(0);
    printed.json()
}

/// Waits until a number is as expected.
#[track_caller]
fn comes_to(world: &World, name: &str, expected: u64) {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = number(&vitals(world), name);
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "{name} is {found}, not {expected}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn status_of_the_server_counts_what_there_is_and_is_for_those_who_may_read_the_log() {
    let world = World::with_nodes()
        .user("carol", "access")
        .user("ada", "auditor")
        .start();
    for who in ["alice", "bob", "carol"] {
        let refused = world.person(who).access(&["status", "--server"]).run();
        refused.exits(77).prints("");
    }
    let target = format!("{}@iot", login());
    let live = world
        .person("carol")
        .ssh(Way::OneHop, &[], &target, &["echo in; exec sleep 600"])
        .start();
    live.expect_out("in\n");
    let held = world
        .person("alice")
        .ssh(Way::OneHop, &[], &target, &["true"])
        .start();
    request_id(&held.expect_err("Waiting for request approval..."));
    let stranger = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    for (name, expected) in [
        ("connections", 2),
        ("connections_per_user", 1),
        ("node_connections", 0),
        ("unauthenticated", 1),
        ("unauthenticated_per_source", 1),
        ("held", 1),
        ("held_per_user", 1),
        ("sessions", 1),
        ("pending_requests", 1),
        ("pending_requests_per_user", 1),
    ] {
        comes_to(&world, name, expected);
    }
    let status = vitals(&world);
    assert_eq!(status["database_ok"], true);
    assert_eq!(status["revocations_told"], true);
    assert_eq!(status["connections_per_user"]["limit"], 256);
    assert_eq!(status["unauthenticated"]["limit"], 100);
    assert_eq!(status["held_per_user"]["limit"], 1024);
    assert_eq!(status["pending_requests_per_user"]["limit"], 50);
    assert!(number(&status, "memory_bytes") > 1 << 20);
    // Ada, who comes over ssh, is a connection herself.
    let printed = world.person("ada").access(&["status", "--server"]).run();
    printed
        .exits(0)
        .prints_part("Database:                       ok")
        .prints_part("Connections:                    3");
    for name in ["alice", "carol", "iot", "127.0.0.1"] {
        printed.is_silent_about(name);
    }
    drop((live, held, stranger));
    for name in ["connections", "unauthenticated", "held", "sessions"] {
        comes_to(&world, name, 0);
    }
}

/// Where the metrics are.
fn metrics_port(log: &Capture) -> u16 {
    let text = log.text();
    let (_, rest) = text.split_once("metrics on http://127.0.0.1:").unwrap();
    rest.split_once("/metrics").unwrap().0.parse().unwrap()
}

fn http(port: u16, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap_or(0);
    answer
}

#[test]
fn metrics_are_served_to_get_alone_and_name_nobody() {
    let world = World::builder()
        .config("metrics_listen: 127.0.0.1:0")
        .node(NodeConfig::new("iot"))
        .user("carol", "access")
        .start();
    let port = metrics_port(&world.proxy().out);
    let target = format!("{}@iot", login());
    let live = world
        .person("carol")
        .ssh(Way::Jump, &[], &target, &["echo in; exec sleep 600"])
        .start();
    live.expect_out("in\n");
    let answer = http(port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    let length = format!("Content-Length: {}", body.len());
    assert!(head.contains(&length), "{head}");
    for line in [
        "anteroom_database_ok 1",
        "anteroom_revocations_told 1",
        "anteroom_connections 1",
        "anteroom_sessions 1",
        "anteroom_limit{limit=\"max_startups\"} 100",
        "anteroom_limit_used{limit=\"max_connections_per_user\"} 1",
        "anteroom_dropped_startups_total 0",
        "# TYPE anteroom_memory_bytes gauge",
    ] {
        assert!(
            body.lines().any(|found| found == line),
            "no {line} in\n{body}"
        );
    }
    assert!(body.ends_with("# EOF\n"), "{body}");
    for name in ["carol", "iot", &login(), "127.0.0.1"] {
        assert!(!body.contains(name), "{name} in\n{body}");
    }
    // What is else asked for is refused, and nobody stays.
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405"),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "400"),
    ] {
        let answer = http(port, request.as_bytes());
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(9000));
    let answer = http(port, long.as_bytes());
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
        "{answer}"
    );
}

#[test]
fn collectors_that_say_nothing_are_cut_off_and_do_not_keep_others_out_for_long() {
    let world = World::bare("metrics_listen: 127.0.0.1:0");
    let port = metrics_port(&world.proxy().out);
    let mut silent: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    for stream in &mut silent {
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(
            ended.is_ok() || ended.as_ref().is_err_and(reset),
            "{ended:?}"
        );
        assert!(answer.is_empty());
    }
    let answer = http(port, b"GET /metrics HTTP/1.1\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

#[test]
fn without_metrics_listen_there_are_none() {
    let world = World::bare("");
    assert!(!world.proxy_log().contains("metrics on"));
}

// ---- limits, from outside

#[test]
fn of_strangers_as_many_are_served_as_max_startups_says_and_the_drops_are_counted() {
    let world = World::bare("max_startups: 5:100:5");
    let mut streams: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(("127.0.0.1", world.port)).unwrap())
        .collect();
    let mut served = 0;
    for stream in &mut streams {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut first = [0; 4];
        served += usize::from(stream.read_exact(&mut first).is_ok() && &first == b"SSH-");
    }
    assert_eq!(served, 5);
    assert_eq!(number(&vitals(&world)["dropped"], "startups"), 15);
    for stream in streams {
        stream.shutdown(Shutdown::Both).ok();
    }
    comes_to(&world, "unauthenticated", 0);
}

/// Somebody by hand who is let in.
fn inside(world: &World, user: &str) -> Raw {
    let mut raw = Raw::ready(world.port).unwrap();
    let key = RawKey::read(&world.person(user).key);
    let request = key.login(&raw.session, user);
    raw.send(request).unwrap();
    assert_eq!(raw.hear().unwrap()[0], msg::USERAUTH_SUCCESS);
    raw
}

/// How many of these openings are confirmed.
fn confirmed(raw: &mut Raw, openings: Vec<Msg>) -> usize {
    let count = openings.len();
    raw.send_all(openings).unwrap();
    let mut answers = Vec::new();
    while answers.len() < count {
        let kind = raw.hear().unwrap()[0];
        if [msg::CHANNEL_OPEN_CONFIRMATION, msg::CHANNEL_OPEN_FAILURE].contains(&kind) {
            answers.push(kind);
        }
    }
    let yes = |kind: &&u8| **kind == msg::CHANNEL_OPEN_CONFIRMATION;
    answers.iter().filter(yes).count()
}

fn open(kind: &str, number: u32) -> Msg {
    Msg::new(msg::CHANNEL_OPEN)
        .string(kind)
        .u32(number)
        .u32(1 << 21)
        .u32(1 << 15)
}

#[test]
fn a_connection_has_as_many_channels_and_sessions_as_the_configuration_says() {
    let world = World::builder()
        .config("max_channels_per_connection: 7\nmax_sessions_per_connection: 3")
        .node(NodeConfig::new("iot"))
        .user("carol", "access")
        .start();
    let mut raw = inside(&world, "carol");
    let sessions = (0..10).map(|n| open("session", n)).collect();
    assert_eq!(confirmed(&mut raw, sessions), 3);
    let jump = |n: u32| {
        open("direct-tcpip", n)
            .string("iot")
            .u32(22)
            .string("127.0.0.1")
            .u32(1)
    };
    assert_eq!(confirmed(&mut raw, (10..30).map(jump).collect()), 4);
}

#[test]
fn a_user_has_as_many_connections_and_held_channels_as_the_configuration_says() {
    let world = World::with_nodes()
        .config("max_connections_per_user: 3\nmax_held_channels: 2")
        .start();
    let alice = world.person("alice");
    let target = format!("{}@iot", login());
    let ask = || alice.ssh(Way::OneHop, &[], &target, &["true"]).start();
    let held = [ask(), ask()];
    for client in &held {
        client.expect_err("Waiting for request approval...");
    }
    let third = ask().finish(PATIENCE);
    third.prints("").says("ERROR");
    assert_ne!(third.code(), Some(0));
    // The third connection is there again; a fourth beside it is one too many.
    let fourth = {
        let _third = inside(&world, "alice");
        alice.access(&["whoami"]).run()
    };
    assert_ne!(fourth.code(), Some(0), "{fourth}");
    fourth.prints("");
    // Bob has his own.
    world.person("bob").access(&["whoami"]).run().exits(0);
}
