//! Locks of every kind end what lives and what waits within a second, with their message; refuse what
//! comes next; and let in again when they are taken away or end.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{PATIENCE, PROMPTLY, Person, Proc, Way, World, login, request_id};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::forward::{connect, ends, read_line};
use crate::revoke::{ends_when, live, target};

const TUNNELS: &str = "kind: role\nversion: v7\nmetadata: {name: tunnels}\nspec:\n  \
    options: {port_forwarding: true}\n  \
    allow: {logins: ['{{internal.logins}}'], node_labels: {'*': '*'}}\n";

const MESSAGE: &str = "stolen laptop, call 555";

/// Locks on the proxy; the lock's ID.
fn lock(world: &World, what: &[&str]) -> String {
    let words = [&["lock"], what, &["--message", MESSAGE]].concat();
    let done = world.ctl(&words);
    done.exits(0);
    done.text().trim().to_owned()
}

fn unlock(world: &World, id: &str) {
    let done = world.ctl(&["locks", "rm", id]);
    done.exits(0).prints(format!("lock {id} removed\n"));
}

fn goes_in(who: &Person, way: Way) {
    let entered = who.ssh(way, &[], &target(), &["echo in"]).run();
    entered.exits(0).prints("in\n");
}

fn is_refused(who: &Person, way: Way) {
    let refused = who.ssh(way, &[], &target(), &["echo in"]).run();
    refused.exits(77).prints("").says(MESSAGE);
}

fn fingerprint(who: &Person) -> String {
    let listed = anteroom_tests::Cmd::new("ssh-keygen")
        .arg("-lf")
        .arg(who.public_key())
        .run();
    listed.exits(0);
    listed.text().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn each_kind_of_lock_ends_a_live_session_refuses_the_next_and_lets_in_again() {
    let world = World::usual();
    let carol = world.person("carol");
    let (key, me) = (fingerprint(carol), login());
    let kinds: [&[&str]; 5] = [
        &["--user", "carol"],
        &["--key", &key],
        &["--role", "access"],
        &["--login", &me],
        &["--node", "iot"],
    ];
    for (kind, way) in kinds
        .into_iter()
        .zip([Way::Jump, Way::OneHop].into_iter().cycle())
    {
        let session = live(&world, "carol", way);
        let mut id = String::new();
        ends_when(
            session,
            || id = lock(&world, kind),
            &["stolen laptop, call 555"],
        );
        is_refused(carol, way);
        unlock(&world, &id);
        goes_in(carol, way);
        let took = from_lock_to_end(&world);
        assert!(took <= Duration::from_secs(1), "{kind:?}: {took:?}");
    }
}

/// From the last lock to the end of the session that it ended, by the audit log: what the proxy itself took.
fn from_lock_to_end(world: &World) -> Duration {
    let last = |event: &str| {
        let entries = world.events(event);
        let time = entries.last().unwrap()["time"].as_str().unwrap().to_owned();
        OffsetDateTime::parse(&time, &Rfc3339).unwrap()
    };
    // The session that went in afterwards ended later; the one before it is meant.
    let locked = last("lock.create");
    let ends = world
        .events("session.end")
        .into_iter()
        .map(|entry| OffsetDateTime::parse(entry["time"].as_str().unwrap(), &Rfc3339).unwrap());
    let first = ends.filter(|end| *end >= locked).min().unwrap();
    (first - locked).unsigned_abs()
}

#[test]
fn a_lock_on_a_serial_number_ends_the_session_of_its_certificate_and_no_other() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let plain = live(&world, "carol", Way::Jump);
    let printed = carol.access(&["login"]).run();
    let file = carol.dir.join("anteroom-cert.pub");
    std::fs::write(&file, printed.exits(0).text()).unwrap();
    let line = format!("  CertificateFile {}\n", file.display());
    let config = std::fs::read_to_string(carol.config()).unwrap();
    std::fs::write(carol.config(), config.clone() + &line).unwrap();
    let listed = anteroom_tests::Cmd::new("ssh-keygen")
        .args(["-L", "-f"])
        .arg(&file)
        .run();
    let text = listed.text();
    let serial = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("Serial: "));
    let serial = serial.unwrap_or_else(|| panic!("{text}"));
    for way in Way::BOTH {
        let session = live(&world, "carol", way);
        let mut id = String::new();
        ends_when(
            session,
            || id = lock(&world, &["--serial", serial]),
            &[MESSAGE],
        );
        is_refused(&carol, way);
        let took = from_lock_to_end(&world);
        assert!(took <= Duration::from_secs(1), "{took:?}");
        unlock(&world, &id);
        goes_in(&carol, way);
    }
    assert!(plain.is_running(), "{}", plain.err.text());
    // Her key goes on without it.
    lock(&world, &["--serial", serial]);
    std::fs::write(carol.config(), config).unwrap();
    goes_in(&carol, Way::OneHop);
}

#[test]
fn a_lock_on_a_request_or_a_role_that_it_gives_ends_what_it_opened() {
    let world = World::usual();
    let alice = world.person("alice");
    let request = world.granted("iot");
    let kinds: [&[&str]; 2] = [&["--request", &request], &["--role", "access"]];
    for (kind, way) in kinds.into_iter().zip(Way::BOTH) {
        let session = live(&world, "alice", way);
        let mut id = String::new();
        ends_when(
            session,
            || id = lock(&world, kind),
            &["stolen laptop, call 555"],
        );
        is_refused(alice, way);
        unlock(&world, &id);
        goes_in(alice, way);
    }
    assert_eq!(world.requests().len(), 1, "nothing was filed under a lock");
}

#[test]
fn a_waiting_connection_leaves_promptly_with_the_message_of_the_lock() {
    let world = World::usual();
    let alice = world.person("alice");
    let me = login();
    let key = fingerprint(alice);
    for way in Way::BOTH {
        let kinds: [&[&str]; 7] = [
            &["--user", "alice"],
            &["--key", &key],
            &["--role", "requester"],
            &["--role", "access"],
            &["--login", &me],
            &["--node", "iot"],
            &["--request", ""],
        ];
        for kind in kinds {
            let waiting = alice.ssh(way, &[], &target(), &["echo in"]).start();
            let request = request_id(&waiting.expect_err("Waiting for request approval..."));
            let kind = if kind == ["--request", ""] {
                &["--request", request.as_str()]
            } else {
                kind
            };
            let id = lock(&world, kind);
            let locked = Instant::now();
            let left = waiting.finish(PATIENCE);
            assert!(
                locked.elapsed() < PROMPTLY,
                "{:?}: {left}",
                locked.elapsed()
            );
            left.exits(77).prints("").says(MESSAGE);
            is_refused(alice, way);
            unlock(&world, &id);
        }
    }
}

#[test]
fn a_command_that_waits_for_its_request_leaves_too() {
    let world = World::usual();
    let waits = world
        .person("alice")
        .access(&[
            "request",
            "create",
            "--resource",
            "iot",
            "--reason",
            "please",
        ])
        .start();
    waits.expect_out("Waiting for request approval...");
    let id = lock(&world, &["--user", "alice"]);
    let locked = Instant::now();
    let left = waits.finish(PATIENCE);
    assert!(
        locked.elapsed() < PROMPTLY,
        "{:?}: {left}",
        locked.elapsed()
    );
    left.exits(77).says(MESSAGE);
    let refused = world.person("alice").access(&["ls"]).run();
    refused.exits(77).says(MESSAGE);
    unlock(&world, &id);
    world.person("alice").access(&["ls"]).run().exits(0);
}

#[test]
fn local_forwards_and_remote_listeners_end_with_the_lock() {
    let mut world = World::with_nodes().documents(TUNNELS).start();
    world.add_user("dora", "tunnels", anteroom_tests::KeyType::Ed25519);
    for way in Way::BOTH {
        let (local, remote) = (anteroom_tests::free_port(), anteroom_tests::free_port());
        let to_node = format!("{local}:127.0.0.1:{}", world.node("iot").port);
        let back = format!("{remote}:127.0.0.1:{}", world.node("iot").port);
        let tunnel = world
            .person("dora")
            .ssh(way, &["-N", "-L", &to_node, "-R", &back], &target(), &[])
            .start();
        let mut stream = connect(local);
        assert!(read_line(&mut stream).starts_with("SSH-2.0-"));
        let until = Instant::now() + PATIENCE;
        let mut returned = loop {
            match TcpStream::connect(("127.0.0.1", remote)) {
                Ok(stream) => break stream,
                Err(_) => assert!(Instant::now() < until, "{}", tunnel.err.text()),
            }
            thread::sleep(Duration::from_millis(50));
        };
        returned.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(read_line(&mut returned).starts_with("SSH-2.0-"));
        let id = lock(&world, &["--node", "iot"]);
        let locked = Instant::now();
        assert!(
            ends(&mut stream) && ends(&mut returned),
            "{}",
            tunnel.err.text()
        );
        while TcpStream::connect(("127.0.0.1", remote)).is_ok() {
            assert!(locked.elapsed() < PROMPTLY, "port {remote} still answers");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(locked.elapsed() < PROMPTLY, "{:?}", locked.elapsed());
        unlock(&world, &id);
    }
}

/// dora's connection with these forwards and nothing else.
fn tunnel(world: &World, way: Way, forwards: &[&str]) -> Proc {
    let mut options = vec!["-N", "-o", "ExitOnForwardFailure=yes"];
    options.extend(forwards);
    let dora = world.person("dora");
    dora.ssh(way, &options, &target(), &[]).start()
}

/// What it greets with that answers there, once somebody does.
fn greeting(port: u16) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            return read_line(&mut stream);
        }
        assert!(Instant::now() < until, "nothing listens at {port}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_connection_that_has_forwards_and_no_session_is_told_of_the_lock_and_ends() {
    let mut world = World::with_nodes().documents(TUNNELS).start();
    world.add_user("dora", "tunnels", anteroom_tests::KeyType::Ed25519);
    for way in Way::BOTH {
        for what in [["--node", "iot"], ["--user", "dora"], ["--role", "tunnels"]] {
            let port = world.node("iot").port;
            let (local, remote) = (anteroom_tests::free_port(), anteroom_tests::free_port());
            let (out, back) = (
                format!("{local}:127.0.0.1:{port}"),
                format!("{remote}:127.0.0.1:{port}"),
            );
            let outgoing = tunnel(&world, way, &["-L", &out]);
            assert!(greeting(local).starts_with("SSH-2.0-"));
            let incoming = tunnel(&world, way, &["-R", &back]);
            assert!(greeting(remote).starts_with("SSH-2.0-"));
            let id = lock(&world, &what);
            let locked = Instant::now();
            for tunnel in [outgoing, incoming] {
                let ended = tunnel.finish(PATIENCE);
                assert!(
                    locked.elapsed() < PROMPTLY,
                    "{:?}: {ended}",
                    locked.elapsed()
                );
                ended.exits(255).says(MESSAGE);
            }
            unlock(&world, &id);
        }
    }
}

#[test]
fn a_connection_that_does_nothing_ends_when_its_user_is_locked_out_and_no_other() {
    let world = World::usual();
    let idle = |who: &str, to: &str| {
        let ssh = world.person(who).client("ssh").args(["-v", "-N", to]);
        let ssh = ssh.start();
        ssh.expect_err("Entering interactive session");
        ssh
    };
    let there = format!("{}@access", target());
    let (lobby, node) = (idle("carol", "access"), idle("carol", &there));
    let other = idle("alice", "access");
    let id = lock(&world, &["--user", "carol"]);
    let locked = Instant::now();
    for idle in [lobby, node] {
        let ended = idle.finish(PATIENCE);
        assert!(
            locked.elapsed() < PROMPTLY,
            "{:?}: {ended}",
            locked.elapsed()
        );
        ended.exits(255).says(MESSAGE);
    }
    unlock(&world, &id);
    let gone = idle("carol", "access");
    world.ctl(&["users", "rm", "carol"]).exits(0);
    gone.finish(PATIENCE).exits(255);
    assert!(other.is_running());
}

#[test]
fn a_command_that_waits_for_its_input_leaves_with_the_lock() {
    let world = World::with_nodes().user("erin", "editor").start();
    let erin = world.person("erin");
    let waits = erin.access(&["users", "add", "zoe", "--key", "-"]);
    let waits = waits.stdin_open().start();
    // It has begun soon after its login is in the log.
    let until = Instant::now() + PATIENCE;
    while world.events("user.login").is_empty() {
        assert!(Instant::now() < until);
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(300));
    lock(&world, &["--user", "erin"]);
    let locked = Instant::now();
    let left = waits.finish(PATIENCE);
    assert!(
        locked.elapsed() < PROMPTLY,
        "{:?}: {left}",
        locked.elapsed()
    );
    left.exits(77).says(MESSAGE);
}

#[test]
fn a_lock_with_a_time_ends_by_itself() {
    let world = World::usual();
    let carol = world.person("carol");
    lock(&world, &["--user", "carol", "--ttl", "3s"]);
    is_refused(carol, Way::Jump);
    let until = Instant::now() + PATIENCE;
    while !world
        .ctl(&["locks", "ls", "--format", "json"])
        .json()
        .as_array()
        .unwrap()
        .is_empty()
    {
        assert!(Instant::now() < until, "{}", world.proxy_log());
        thread::sleep(Duration::from_millis(100));
    }
    goes_in(carol, Way::Jump);
    let ended = world.events("lock.delete");
    assert_eq!(
        (&ended[0]["user"], &ended[0]["name"]),
        (&Value::from("the proxy"), &Value::from("user/carol"))
    );
}

#[test]
fn administrators_lock_over_ssh_and_nobody_locks_himself_out() {
    let world = World::with_nodes()
        .user("carol", "access")
        .user("erin", "editor,access")
        .start();
    let (carol, erin) = (world.person("carol"), world.person("erin"));
    let key = fingerprint(erin);
    for own in [["--user", "erin"], ["--role", "editor"], ["--key", &key]] {
        let refused = erin.access(&["lock", own[0], own[1]]).run();
        refused.exits(77).prints("").says("shut you out yourself");
    }
    let document = "kind: lock\nspec: {target: {user: erin}}\n";
    let refused = erin.access(&["create", "-f", "-"]).stdin(document).run();
    refused.exits(77).says("shut you out yourself");
    for user in ["carol", "alice"] {
        let refused = world.person(user).access(&["lock", "--user", "bob"]).run();
        refused
            .exits(77)
            .prints("")
            .says("none of your roles allows");
    }
    // The message as people write it: ssh takes the quotes away.
    let done = erin
        .access(&[
            "lock",
            "--user",
            "carol",
            "--ttl",
            "1h",
            "--message",
            "left the company",
        ])
        .run();
    done.exits(0).says("user carol is locked until");
    let id = done.text().trim().to_owned();
    let refused = carol.ssh(Way::Jump, &[], &target(), &["true"]).run();
    refused
        .exits(77)
        .says("you are locked out: left the company");
    let listed = erin.access(&["locks", "ls"]).run();
    listed
        .exits(0)
        .prints_part("user carol")
        .prints_part("left the company")
        .prints_part("erin");
    erin.access(&["locks", "rm", &id[..8]]).run().exits(0);
    goes_in(carol, Way::Jump);
    let nothing = erin.access(&["locks", "rm", &id]).run();
    nothing.exits(66).says("there is no lock");
}

#[test]
fn locks_are_documents_that_go_out_and_in_again() {
    let world = World::usual();
    let document = "kind: lock\nversion: v2\nmetadata: {name: dc7cee9d-fe5e-4534-a90d-db770f0234a1}\nspec:\n  \
                    target: {user: carol}\n  message: stolen laptop, call 555\n";
    world
        .create(document)
        .exits(0)
        .prints("lock `dc7cee9d-fe5e-4534-a90d-db770f0234a1` created\n");
    is_refused(world.person("carol"), Way::Jump);
    let got = world.ctl(&["get", "locks"]);
    got.exits(0).prints_part("user: carol");
    world
        .ctl(&["rm", "lock/dc7cee9d-fe5e-4534-a90d-db770f0234a1"])
        .exits(0);
    goes_in(world.person("carol"), Way::Jump);
    world.create(&got.text()).exits(0);
    is_refused(world.person("carol"), Way::Jump);
    // `users lock` is a lock of its own kind, and `unlock` lets in whatever it was.
    world
        .ctl(&["users", "lock", "carol", "--message", "too"])
        .exits(0);
    world.ctl(&["locks", "ls"]).prints_part("user/carol");
    world.ctl(&["users", "unlock", "carol"]).exits(0);
    world
        .ctl(&["locks", "ls", "--format", "json"])
        .prints("[]\n");
    goes_in(world.person("carol"), Way::Jump);
    world.ctl(&["users", "lock", "carol"]).exits(0);
    world.ctl(&["locks", "rm", "user/carol"]).exits(0);
    goes_in(world.person("carol"), Way::Jump);
    for (bad, says) in [
        (
            "kind: lock\nspec: {target: {user: a, role: b}}\n",
            "names one thing",
        ),
        ("kind: lock\nspec: {target: {}}\n", "names one thing"),
        (
            "kind: lock\nspec: {target: {device: x}}\n",
            "does not serve yet",
        ),
        (
            "kind: lock\nspec: {target: {serial: '0'}}\n",
            "serial number",
        ),
        (
            "kind: lock\nspec: {target: {user: a}, expires: tomorrow}\n",
            "a time in quotes",
        ),
        (
            "kind: lock\nspec: {target: {user: a}, expires: '2001-01-01T00:00:00Z'}\n",
            "name a time to come",
        ),
        (
            "kind: lock\nmetadata: {name: x}\nspec: {target: {user: a}}\n",
            "write no name",
        ),
    ] {
        world.create(bad).exits(64).says(says);
    }
    world.ctl(&["lock", "--user", "nobody"]).exits(66);
    world.ctl(&["lock", "--role", "nothing"]).exits(66);
    world.ctl(&["lock", "--node", "nowhere"]).exits(66);
    world.ctl(&["lock"]).exits(64);
    world
        .ctl(&["lock", "--user", "carol", "--role", "access"])
        .exits(64);
}
