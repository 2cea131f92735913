//! The proxy's own door: who is let in, how a target is named, and the limits before
//! anybody has proved anything.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, KeyType, Way, World, login};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

fn target() -> String {
    format!("{}@iot", login())
}

#[test]
fn every_spelling_of_a_target_leads_to_the_same_node() {
    let world = World::usual();
    let carol = world.person("carol");
    let me = login();
    let uuid = &world.node("iot").uuid;
    let by = |args: &[&str]| carol.client("ssh").args(args).arg("echo in").run();
    for finished in [
        by(&["-J", "access", &format!("{me}@iot")]),
        by(&["-J", "access", "-p", "2222", &format!("{me}@iot")]),
        by(&["-J", "access", &format!("{me}@{uuid}")]),
        by(&["-o", "ProxyJump=access", "-l", &me, "iot"]),
        by(&[
            "-o",
            &format!(
                "ProxyCommand=ssh -F {} -W %h:%p access",
                carol.config().display()
            ),
            &format!("{me}@iot"),
        ]),
        by(&[&format!("{me}@iot@access")]),
        by(&[&format!("{me}+iot@access")]),
        by(&["-l", &format!("{me}@iot"), "access"]),
        by(&[&format!("{me}@{uuid}@access")]),
    ] {
        finished.exits(0).prints("in\n");
        assert_eq!(finished.stderr, "");
    }
}

#[test]
fn a_node_that_nobody_can_have_is_answered_as_one_that_is_not_there() {
    let world = World::usual();
    let carol = world.person("carol");
    let by = |user: &str| {
        carol
            .client("ssh")
            .args(["-l", user, "access", "true"])
            .run()
    };
    let sentence = |user: &str| {
        let refused = by(user);
        refused.exits(77).prints("").says("access denied");
        // `+` is another way to write `@`.
        refused.stderr.replace(&user.replace('+', "@"), "TARGET")
    };
    let unknown = sentence("root@nowhere");
    for user in ["root@iot:22", "root@..", "root+..", "root@"] {
        assert_eq!(sentence(user), unknown, "{user}");
    }
    let shouted = format!("{}@IOT", login());
    by(&shouted).exits(0);
}

#[test]
fn a_known_key_may_come_under_any_name_but_another_users() {
    let world = World::usual();
    let alice = world.person("alice");
    for name in ["alice", "root", "whatever"] {
        alice
            .client("ssh")
            .args(["-l", name, "access", "whoami"])
            .run()
            .exits(0)
            .prints_part("alice");
    }
    let refused = alice
        .client("ssh")
        .args(["-l", "bob", "access", "whoami"])
        .run();
    refused.exits(255).prints("").says("Permission denied");
}

#[test]
fn every_type_of_key_that_openssh_makes_proves_its_user() {
    let mut world = World::bare("");
    world.write_known_hosts();
    for key_type in [
        KeyType::Ed25519,
        KeyType::Ecdsa256,
        KeyType::Ecdsa384,
        KeyType::Ecdsa521,
        KeyType::Rsa,
    ] {
        let name = format!("u-{}", key_type.name());
        let person = world.add_user(&name, "requester", key_type);
        person.access(&["whoami"]).run().exits(0).prints_part(&name);
    }
}

#[test]
fn an_rsa_key_is_used_with_sha_2_only_and_a_short_one_not_at_all() {
    let mut world = World::bare("");
    world.write_known_hosts();
    let person = world.add_user("rita", "requester", KeyType::Rsa);
    for algorithm in ["rsa-sha2-256", "rsa-sha2-512"] {
        person
            .client("ssh")
            .args([
                "-o",
                &format!("PubkeyAcceptedAlgorithms={algorithm}"),
                "access",
                "whoami",
            ])
            .run()
            .exits(0);
    }
    person
        .client("ssh")
        .args(["-o", "PubkeyAcceptedAlgorithms=ssh-rsa", "access", "whoami"])
        .run()
        .exits(255)
        .says("Permission denied");
    let short = world.stranger("shorty", KeyType::RsaShort);
    let refused = world
        .ctl_cmd(&[
            "users",
            "add",
            "shorty",
            "--roles",
            "requester",
            "--logins",
            "root",
            "--key",
        ])
        .arg(short.public_key())
        .run();
    assert_ne!(refused.code(), Some(0), "{refused}");
    refused.says("1024");
}

#[test]
fn a_stranger_is_refused_like_somebody_with_the_wrong_key() {
    let mut world = World::usual();
    let stranger = world.stranger("mallory", KeyType::Ed25519);
    for name in ["mallory", "alice", "bob"] {
        let refused = stranger
            .client("ssh")
            .args(["-l", name, "access", "whoami"])
            .run();
        refused.exits(255).prints("");
        assert!(
            refused.stderr.contains("Permission denied (publickey)"),
            "{refused}"
        );
    }
}

#[test]
fn nothing_but_a_key_is_asked_for() {
    let world = World::usual();
    let refused = world
        .person("alice")
        .client("ssh")
        .args(["-o", "PubkeyAuthentication=no", "access", "whoami"])
        .run();
    refused.exits(255).says("Permission denied (publickey)");
}

#[test]
fn one_cert_authority_line_is_all_a_client_needs_and_without_it_nothing_is_trusted() {
    let world = World::usual();
    let known = fs::read_to_string(world.known_hosts()).unwrap();
    assert!(known.starts_with("@cert-authority "), "{known}");
    let carol = world.person("carol");
    let empty = world.path("empty");
    fs::write(&empty, "").unwrap();
    let option = format!("UserKnownHostsFile={}", empty.display());
    for way in Way::BOTH {
        carol
            .ssh(way, &[], &target(), &["echo in"])
            .run()
            .exits(0)
            .prints("in\n");
        carol
            .ssh(way, &["-o", &option], &target(), &["echo in"])
            .run()
            .exits(255)
            .prints("")
            .says("Host key verification failed");
    }
}

#[test]
fn the_line_vouches_for_no_host_outside_the_cluster() {
    let world = World::usual();
    let known = fs::read_to_string(world.known_hosts()).unwrap();
    for host in ["github.com", "127.0.0.1", "[127.0.0.1]:22", "[iot]:2222"] {
        let found = Cmd::new("ssh-keygen")
            .args(["-F", host, "-f"])
            .arg(world.known_hosts())
            .run();
        assert_ne!(found.code(), Some(0), "{host} is matched by:\n{known}");
    }
    for host in ["iot", "n2"] {
        Cmd::new("ssh-keygen")
            .args(["-F", host, "-f"])
            .arg(world.known_hosts())
            .run()
            .exits(0);
    }
}

#[test]
fn the_proxys_own_names_and_foreign_hosts_get_no_inner_server() {
    let world = World::usual();
    let carol = world.person("carol");
    for host in [
        "localhost",
        "127.0.0.1",
        "::1",
        "example.com",
        "github.com",
        "iot.example.org",
    ] {
        let refused = carol
            .client("ssh")
            .args([
                "-v",
                "-o",
                "StrictHostKeyChecking=no",
                "-J",
                "access",
                &format!("{}@{host}", login()),
                "echo in",
            ])
            .run();
        assert_ne!(refused.code(), Some(0), "{host}: {refused}");
        refused.prints("");
        // The outer connection's, which is verbose too, and no other.
        assert!(
            refused.stderr.matches("Server host certificate").count() == 1,
            "an inner server answered for {host}: {refused}"
        );
    }
}

#[test]
fn a_connection_to_an_unknown_node_ends_like_one_to_a_forbidden_node() {
    let world = World::with_nodes()
        .documents("kind: role\nversion: v7\nmetadata: {name: nothing}\nspec:\n  allow: {}\n")
        .user("nobody", "nothing")
        .start();
    let person = world.person("nobody");
    for way in Way::BOTH {
        let unknown = person
            .ssh(way, &[], &format!("{}@nosuch", login()), &["echo in"])
            .run();
        let forbidden = person.ssh(way, &[], &target(), &["echo in"]).run();
        unknown.exits(77).prints("");
        forbidden.exits(77).prints("");
        assert_eq!(
            unknown.stderr.replace("nosuch", "NODE"),
            forbidden.stderr.replace("iot", "NODE"),
            "the two can be told apart"
        );
        assert!(!unknown.stderr.is_empty());
    }
    assert!(world.requests().is_empty());
}

#[test]
fn the_inner_server_takes_none_or_a_key_of_the_same_user() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let config = |key: &std::path::Path| {
        let text = fs::read_to_string(carol.config()).unwrap();
        let name = world.path(&format!(
            "inner-{}",
            key.file_name().unwrap().to_string_lossy()
        ));
        // The outer connection keeps its own key; the inner one offers this one only.
        let own = format!("Host access\n  IdentityFile {}\n", carol.key.display());
        let general = format!("  IdentityFile {}\n", carol.key.display());
        let text = own + &text.replace(&general, &format!("  IdentityFile {}\n", key.display()));
        fs::write(&name, text).unwrap();
        name
    };
    let own = config(&carol.key);
    let by = |config: &std::path::Path, options: &[&str]| {
        Cmd::new("ssh")
            .arg("-v")
            .arg("-F")
            .arg(config)
            .args(["-J", "access"])
            .args(options)
            .args([&target(), "echo in"])
            .run()
    };
    by(&own, &[]).exits(0).prints("in\n").says("using \"none\"");
    let foreign = world.path("foreign");
    KeyType::Ed25519.generate(&foreign, "foreign");
    let with_foreign = config(&foreign);
    // OpenSSH tries `none` first and takes success, so a wrong key is never offered.
    by(&with_foreign, &[]).exits(0).prints("in\n");
}

#[test]
fn a_silent_connection_is_dropped_after_the_grace_time() {
    let world = World::bare("login_grace_time: 2s");
    for first in [
        &b""[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
        stream.write_all(first).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let connected = Instant::now();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let took = connected.elapsed();
        assert!(took < Duration::from_secs(10), "after {took:?}: {ended:?}");
        assert!(
            rest.is_empty() || rest.starts_with(b"SSH-2.0-"),
            "{}",
            String::from_utf8_lossy(&rest)
        );
    }
}

#[test]
fn the_grace_time_is_over_even_for_a_peer_that_keeps_talking() {
    let world = World::bare("login_grace_time: 2s");
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    let connected = Instant::now();
    stream.write_all(b"SSH-2.0-slow\r\n").unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut buffer = [0; 4096];
    loop {
        // SSH_MSG_IGNORE, over and over: unencrypted packets are legal before the keys.
        let ignore = [0, 0, 0, 12, 5, 2, 0, 0, 0, 1, b'x', 0, 0, 0, 0, 0];
        if stream.write_all(&ignore).is_err() {
            break;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => break,
        }
        assert!(
            connected.elapsed() < Duration::from_secs(15),
            "it is still there"
        );
    }
}

#[test]
fn somebody_logged_in_and_held_outlives_the_grace_time() {
    let world = World::builder()
        .config("login_grace_time: 2s")
        .node(anteroom_tests::NodeConfig::new("iot"))
        .user("alice", "requester")
        .user("bob", "reviewer")
        .start();
    let held = world
        .person("alice")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .start();
    let id = anteroom_tests::request_id(&held.expect_err("Waiting for request approval..."));
    assert!(
        !held.out.wait_for_end(Duration::from_secs(4)),
        "{}",
        held.err.text()
    );
    world.approve(&id);
    held.finish(anteroom_tests::PATIENCE)
        .exits(0)
        .prints("in\n");
}

#[test]
fn more_than_six_wrong_keys_end_the_connection() {
    let world = World::usual();
    let alice = world.person("alice");
    let mut config = String::from("Host *\n");
    for n in 0..7 {
        let key = world.path(&format!("wrong{n}"));
        KeyType::Ed25519.generate(&key, "wrong");
        config.push_str(&format!("  IdentityFile {}\n", key.display()));
    }
    let file = world.path("many");
    // Five wrong ones before the right one are within the limit.
    let few: String = config
        .lines()
        .take(6)
        .map(|line| format!("{line}\n"))
        .collect();
    let rest = fs::read_to_string(alice.config()).unwrap();
    fs::write(&file, few + &rest).unwrap();
    let by = || {
        Cmd::new("ssh")
            .arg("-F")
            .arg(&file)
            .args(["access", "whoami"])
            .run()
    };
    by().exits(0);
    fs::write(&file, config + &rest).unwrap();
    by().exits(255)
        .prints("")
        .says("Too many authentication failures");
    // The next connection is served, from the same address.
    alice.access(&["whoami"]).run().exits(0);
}

#[test]
fn twenty_connections_of_one_source_may_be_unauthenticated_and_no_more() {
    let world = World::usual();
    let mut streams: Vec<TcpStream> = (0..40)
        .map(|_| TcpStream::connect(("127.0.0.1", world.port)).unwrap())
        .collect();
    let mut served = 0;
    for stream in &mut streams {
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut first = [0; 4];
        if stream.read_exact(&mut first).is_ok() && &first == b"SSH-" {
            served += 1;
        }
    }
    assert!((1..=20).contains(&served), "{served} were served");
    drop(streams);
    let until = Instant::now() + Duration::from_secs(20);
    while world.person("alice").access(&["whoami"]).run().code() != Some(0) {
        assert!(
            Instant::now() < until,
            "the door stays shut after they have gone"
        );
    }
}

#[test]
fn silent_connections_from_everywhere_keep_nobody_out() {
    let world = World::usual();
    let proxy = SocketAddr::from(([127, 0, 0, 1], world.port));
    let runtime = Runtime::new().unwrap();
    let from = |address: [u8; 4]| {
        let socket = runtime.block_on(async { TcpSocket::new_v4() }).unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        runtime.block_on(socket.connect(proxy)).unwrap()
    };
    // Twenty from each of ten addresses fill all places twice, and there are twenty from her own.
    let addresses = (0..200).map(|n| [127, 0, 7, n % 10 + 1]);
    let own = [[127, 0, 0, 1]; 20];
    let silent: Vec<_> = addresses.chain(own).map(from).collect();
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..5 {
        let whoami = world.person("alice").access(&["whoami"]).run();
        whoami.exits(0).prints_part("alice");
    }
    let status = world
        .ctl(&["status", "--server", "--format", "json"])
        .json();
    assert!(
        status["unauthenticated"]["used"].as_u64().unwrap() <= 100,
        "{status}"
    );
    assert!(
        status["dropped"]["displaced"].as_u64().unwrap() >= 5,
        "{status}"
    );
    drop(silent);
}

#[test]
fn the_server_says_nothing_of_itself_before_the_keys_are_agreed() {
    let world = World::bare("");
    let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
    let line = crate::forward::read_line(&mut stream);
    assert!(line.starts_with("SSH-2.0-"), "{line}");
}

#[test]
fn hostile_user_names_are_refused_and_the_proxy_goes_on() {
    let world = World::usual();
    let alice = world.person("alice");
    let long = "a".repeat(300);
    let long_part = format!("{}@iot", "b".repeat(65));
    for name in [
        long.as_str(),
        &long_part,
        "a\nb",
        "a\x1b[31m",
        "@",
        "@@",
        "root@",
        "@iot",
        "+",
        "root+",
        "../x@iot",
    ] {
        let finished = alice
            .client("ssh")
            .args(["-o", &format!("User={name}"), "access", "echo in"])
            .run();
        assert_ne!(finished.text(), "in\n", "{finished}");
        assert!(!finished.stderr.contains('\x1b'), "{finished}");
    }
    alice.access(&["whoami"]).run().exits(0);
}

#[test]
fn ssh_access_alone_shows_a_summary_and_leaves() {
    let world = World::usual();
    let terminal = world
        .person("alice")
        .client("ssh")
        .arg("access")
        .in_terminal();
    let (code, shown) = terminal.finish(anteroom_tests::PATIENCE);
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("alice"), "{shown}");
}
