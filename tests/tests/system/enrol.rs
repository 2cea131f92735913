//! Enrolment from outside, with the real ssh and a real sshd: what a machine with a token becomes, what one without
//! learns, and that nothing else can be done by somebody who has proven nothing.

use std::fs;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, Finished, KeyType, NodeConfig, World};
use serde_json::Value;

const SENTENCE: &str = "the token is not valid: it is unknown, used, expired or for something else";

/// What `tokens add` made.
pub(super) struct Token {
    pub(super) secret: String,
}

pub(super) fn token(world: &World, options: &[&str]) -> Token {
    let mut words = vec!["tokens", "add", "--type", "node", "--format", "json"];
    words.extend(options);
    let made = world.ctl(&words);
    made.exits(0);
    let made = made.json();
    let secret = made["token_secret"].as_str().unwrap().to_owned();
    Token { secret }
}

/// ssh as a machine does it: no key, no agent, no configuration.
fn ssh(world: &World, user: &str, options: &[&str], command: &[&str]) -> Cmd {
    Cmd::new("ssh")
        .args(["-F", "none", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"])
        .args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ])
        .args([
            "-o",
            "PubkeyAuthentication=no",
            "-p",
            &world.port.to_string(),
        ])
        .args(options)
        .arg(format!("{user}@127.0.0.1"))
        .args(command)
}

/// The public half of a new key.
pub(super) fn key(world: &World, name: &str, key_type: KeyType) -> String {
    let file = world.path(name);
    key_type.generate(&file, "root@machine");
    fs::read_to_string(file.with_extension("pub")).unwrap()
}

pub(super) fn enrol(world: &World, token: &str, keys: &str, command: &[&str]) -> Finished {
    let input = format!("{token}\n{keys}");
    ssh(world, "enroll", &[], command).stdin(input).run()
}

fn refused(finished: &Finished, code: i32, part: &str) {
    finished.exits(code).prints("");
    assert!(finished.stderr.contains(part), "{part}: {finished}");
    let lines = finished.stderr.lines().filter(|line| !line.is_empty());
    assert_eq!(lines.count(), 1, "one sentence: {finished}");
}

pub(super) fn node(world: &World, name: &str) -> Option<Value> {
    let listed = world.ctl(&["nodes", "ls", "--format", "json"]);
    listed.exits(0);
    let nodes = listed.json();
    let mut nodes = nodes.as_array().unwrap().iter();
    nodes.find(|node| node["name"] == name).cloned()
}

#[test]
fn a_machine_with_a_token_gets_a_script_once_and_again_and_any_other_not_a_byte() {
    let world = World::bare("");
    let ours = key(&world, "ours", KeyType::Ed25519) + &key(&world, "ecdsa", KeyType::Ecdsa256);
    let theirs = key(&world, "theirs", KeyType::Ed25519);
    // Without a live token the name is nobody's.
    let early = enrol(&world, "guess", &ours, &["iot"]);
    early.exits(255).prints("");
    assert!(early.stderr.contains("Permission denied"), "{early}");

    let token = token(
        &world,
        &[
            "--name",
            "iot",
            "--addr",
            "127.0.0.1:2201",
            "--labels",
            "env=staging",
        ],
    );
    refused(&enrol(&world, "guess", &ours, &["iot"]), 77, SENTENCE);
    let said = ["iot", "env=prod", "kernel=6.1"];
    let first = enrol(&world, &token.secret, &ours, &said);
    first.exits(0);
    let script = first.text();
    assert!(
        script.starts_with("#!/bin/sh\n") && script.ends_with("\nenrol\n"),
        "{script}"
    );
    let made = node(&world, "iot").unwrap();
    assert_eq!(made["addr"], "127.0.0.1:2201");
    assert_eq!(made["labels"]["env"], "staging", "the token wins: {made}");
    assert_eq!(made["labels"]["kernel"], "6.1");
    let uuid = made["id"].as_str().unwrap();
    assert!(script.contains(uuid), "{script}");

    let issued = world.events("cert.create").len();
    let certificates = |text: &str| {
        let words = text.split_whitespace();
        let mut found: Vec<_> = words.filter(|word| word.starts_with("AAAA")).collect();
        found.sort_unstable();
        found.join(" ")
    };
    let again = enrol(&world, &token.secret, &ours, &said);
    again.exits(0);
    for _ in 0..5 {
        let again = enrol(&world, &token.secret, &ours, &said);
        assert_eq!(certificates(&again.text()), certificates(&script));
    }
    assert_eq!(world.events("cert.create").len(), issued, "the same ones");
    assert_eq!(node(&world, "iot").unwrap()["id"], uuid);
    refused(
        &enrol(&world, &token.secret, &theirs, &["iot"]),
        77,
        SENTENCE,
    );
    refused(&enrol(&world, &token.secret, &ours, &["n2"]), 77, SENTENCE);
    let joins = world.events("instance.join");
    let outcomes: Vec<bool> = joins.iter().map(|join| join["success"] == true).collect();
    let repeated = vec![true; 7];
    assert_eq!(outcomes, [vec![false], repeated, vec![false; 2]].concat());
}

#[test]
fn the_token_may_stand_in_the_user_name_and_its_secret_is_nowhere() {
    let mut world = World::bare("");
    world.stop_proxy();
    world.set_env("RUST_LOG", "trace");
    world.start_proxy();
    let keys = key(&world, "ours", KeyType::Ed25519);
    let token = token(&world, &["--addr", "127.0.0.1:2201", "--uses", "2"]);
    let user = format!("enroll+{}", token.secret);
    let (random, _) = user.split_once('.').unwrap();
    for wrong in [format!("{user}x"), random.to_owned()] {
        let wrong = ssh(&world, &wrong, &[], &["iot"]).stdin(keys.as_str());
        refused(&wrong.run(), 77, SENTENCE);
    }
    let by_name = ssh(&world, &user, &[], &["iot"]).stdin(keys.as_str()).run();
    by_name.exits(0);
    let other = key(&world, "other", KeyType::Ed25519);
    enrol(&world, &token.secret, &other, &["n2"]).exits(0);
    refused(
        &enrol(&world, &token.secret, &keys, &["n3", "--bogus"]),
        64,
        "no option",
    );

    let command = fs::read(format!("/proc/{}/cmdline", world.proxy().id())).unwrap();
    let mut places = vec![
        ("the log", world.proxy_log()),
        (
            "the audit log",
            world.ctl(&["audit", "ls", "--format", "json"]).text(),
        ),
        (
            "the arguments",
            String::from_utf8_lossy(&command).into_owned(),
        ),
        (
            "listings",
            world.ctl(&["tokens", "ls", "--format", "json"]).text(),
        ),
        ("the answer", by_name.text()),
    ];
    for entry in fs::read_dir(world.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            places.push(("the data directory", text));
        }
    }
    assert!(
        places[0].1.contains("enrolled"),
        "the log is there: {}",
        places[0].1.len()
    );
    for (place, text) in places {
        assert!(!text.contains(&token.secret), "{place} has the secret");
    }
}

#[test]
fn what_makes_no_sense_or_is_not_the_machines_is_refused_with_one_sentence() {
    let mut world = World::builder()
        .node(NodeConfig::new("taken"))
        .user("root@iot.lan", "requester")
        .start();
    let keys = key(&world, "ours", KeyType::Ed25519);
    let token = token(&world, &["--uses", "100"]).secret;
    let names = [
        (
            vec!["taken", "--addr", "192.0.2.7:22"],
            77,
            "is taken by another node",
        ),
        (
            vec!["iot.lan", "--addr", "192.0.2.7:22"],
            77,
            "part of a user's name",
        ),
        (
            vec!["a=b", "--addr", "192.0.2.7:22"],
            77,
            "name it yourself",
        ),
        (
            vec!["b1168402-9340-421a-a344-af66a6675738"],
            64,
            "is not a node name",
        ),
        (vec!["../../x"], 64, "is not a node name"),
        (vec!["iot", "--addr", "nonsense"], 64, "is not an address"),
        (vec!["iot", "anteroom/x=y"], 64, "reserved"),
        (vec!["iot", "a=\u{1b}[2J"], 64, "control characters"),
        (vec!["iot", "--port", "0"], 64, "1 to 65535"),
        (vec!["iot", "'x"], 64, "quoted argument"),
        (vec!["join", "iot", "--port", "22"], 64, "keeps a tunnel"),
    ];
    for (words, code, part) in names {
        let finished = enrol(&world, &token, &keys, &words);
        finished.exits(code).prints("");
        assert!(finished.stderr.contains(part), "{words:?}: {finished}");
    }
    // Where it comes from is loopback, and so are many other spellings.
    let addresses = [
        (vec!["iot"], "a loopback address"),
        (vec!["iot", "--port", "2222"], "a loopback address"),
        (vec!["iot", "--addr", "localhost:22"], "a loopback address"),
        (vec!["iot", "--addr", "127.1:22"], "a loopback address"),
        (vec!["iot", "--addr", "2130706433:22"], "a loopback address"),
        (vec!["iot", "--addr", "0x7f.1:22"], "a loopback address"),
        (vec!["iot", "--addr", "[::1]:22"], "a loopback address"),
        (
            vec!["iot", "--addr", "[::ffff:127.0.0.1]:22"],
            "a loopback address",
        ),
        (
            vec!["iot", "--addr", "0.0.0.0:22"],
            "no address of a machine",
        ),
        (
            vec!["iot", "--addr", "169.254.169.254:80"],
            "a link-local address",
        ),
        (
            vec!["iot", "--addr", "[fe80::1]:22"],
            "a link-local address",
        ),
        (vec!["iot", "--addr", "224.0.0.1:22"], "a multicast address"),
        (
            vec!["iot", "--addr", "255.255.255.255:22"],
            "a broadcast or reserved address",
        ),
        (
            vec!["iot", "--addr", "example.com:22"],
            "a name of the proxy",
        ),
        (
            vec!["iot", "--addr", "EXAMPLE.com:22"],
            "a name of the proxy",
        ),
        (
            vec!["iot", "--addr", "nosuchhost.invalid:22"],
            "can't look up",
        ),
    ];
    for (words, part) in addresses {
        refused(&enrol(&world, &token, &keys, &words), 77, part);
    }
    let many: Vec<String> = (0..10_000).map(|n| format!("l{n}=x")).collect();
    let many: Vec<&str> = std::iter::once("iot")
        .chain(many.iter().map(String::as_str))
        .collect();
    enrol(&world, &token, &keys, &many).exits(64).prints("");
    let most: Vec<String> = (0..65).map(|n| format!("l{n}=x")).collect();
    let most: Vec<&str> = std::iter::once("iot")
        .chain(most.iter().map(String::as_str))
        .collect();
    refused(
        &enrol(&world, &token, &keys, &most),
        64,
        "at most 64 labels",
    );

    let theirs = fs::read_to_string(
        world
            .node("taken")
            .host_key(KeyType::Ed25519)
            .with_extension("pub"),
    );
    let at = ["iot", "--addr", "192.0.2.7:22"];
    let inputs = [
        (theirs.unwrap(), 77, "another node has the host key"),
        (String::new(), 64, "no public key"),
        (
            "ssh-dss AAAAB3NzaC1kc3MAAACBAP root@iot\n".to_owned(),
            64,
            "ssh-dss",
        ),
        (key(&world, "short", KeyType::RsaShort), 64, "1024"),
        (
            keys.clone() + &key(&world, "second", KeyType::Ed25519),
            64,
            "two keys of type",
        ),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\n".to_owned(),
            64,
            "private key",
        ),
        ("x".repeat(70_000), 64, "65536"),
    ];
    for (input, code, part) in inputs {
        refused(&enrol(&world, &token, &input, &at), code, part);
    }
    // Nothing of all that is there, and all of it is in the log.
    for name in ["iot", "iot.lan", "n2"] {
        assert!(node(&world, name).is_none(), "{name}");
    }
    let joins = world.events("instance.join");
    assert!(
        joins.len() > 30 && joins.iter().all(|join| join["success"] == false),
        "{}",
        joins.len()
    );
    let tokens = world.ctl(&["tokens", "ls", "--format", "json"]).json();
    assert_eq!(tokens[0]["uses_left"], 100);
    world.start_counting_memory();
}

#[test]
fn a_stranger_may_give_one_command_and_do_nothing_else() {
    let world = World::builder().user("carol", "access").start();
    token(&world, &["--addr", "127.0.0.1:2201"]);
    let stranger = |options: &[&str], command: &[&str]| ssh(&world, "enroll", options, command);
    // No shell, no terminal, no subsystem; commands are read and never run.
    for (options, command) in [
        (&["-T"][..], &[][..]),
        (&["-tt"], &[]),
        (&["-s"], &["sftp"]),
        (&[], &["id"]),
        (&[], &["ls"]),
        (&[], &["tokens ls"]),
    ] {
        let finished = stranger(options, command)
            .stdin("x\n")
            .run_within(Duration::from_secs(50));
        assert_ne!(
            finished.code(),
            Some(0),
            "{options:?} {command:?}: {finished}"
        );
        finished.prints("");
    }
    // No way on, and none back.
    for forward in ["127.0.0.1:22", "iot:22"] {
        let finished = stranger(&["-W", forward], &[]).run();
        finished.exits(255).prints("");
        assert!(finished.stderr.contains("forwarding failed"), "{finished}");
    }
    let back = stranger(
        &[
            "-o",
            "ExitOnForwardFailure=yes",
            "-N",
            "-R",
            "0:127.0.0.1:22",
        ],
        &[],
    )
    .run();
    back.exits(255);
    // A known key under that name is no way to the commands.
    let carol = world.person("carol");
    let key = carol.key.display().to_string();
    for user in ["enroll", "enroll+x"] {
        let with_key = ["-o", "PubkeyAuthentication=yes", "-i", &key];
        let finished = ssh(&world, user, &with_key, &["whoami"]).stdin("x\n").run();
        assert_ne!(finished.code(), Some(0), "{finished}");
        finished.prints("");
    }
    assert!(world.events("user.login").is_empty());
}

#[test]
fn who_enrols_and_does_nothing_is_gone_within_the_grace_time() {
    let world = World::bare("");
    token(&world, &["--addr", "127.0.0.1:2201"]);
    let began = Instant::now();
    // It says its command and never ends its input.
    let idle = ssh(&world, "enroll", &[], &["iot"]).stdin_open().start();
    while idle.is_running() && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let finished = idle.finish(Duration::from_secs(1));
    finished.exits(255).prints("");
    assert!(
        finished.stderr.contains("the time for enrolling is over"),
        "{finished}"
    );
    let lived = began.elapsed();
    assert!(
        lived > Duration::from_secs(20) && lived < Duration::from_secs(50),
        "{lived:?}"
    );
}

#[test]
fn of_many_machines_at_once_one_comes_in_by_a_token_of_one_use() {
    let world = World::bare("");
    let token = token(&world, &["--addr", "127.0.0.1:2201"]).secret;
    let machines: Vec<_> = (0..12)
        .map(|n| {
            let keys = key(&world, &format!("m{n}"), KeyType::Ed25519);
            let input = format!("{token}\n{keys}");
            ssh(&world, "enroll", &[], &[&format!("m{n}")])
                .stdin(input)
                .start()
        })
        .collect();
    let codes: Vec<_> = machines
        .into_iter()
        .map(|machine| machine.finish(anteroom_tests::PATIENCE).code())
        .collect();
    let came_in = codes.iter().filter(|code| **code == Some(0)).count();
    assert_eq!(came_in, 1, "{codes:?}");
    let nodes = world.ctl(&["nodes", "ls", "--format", "json"]).json();
    assert_eq!(nodes.as_array().unwrap().len(), 1);
}

#[test]
fn a_renamed_node_gets_no_certificate_for_a_name_that_is_not_its_own() {
    let world = World::bare("");
    let made = |called: &str| token(&world, &["--name", called, "--addr", "tunnel"]).secret;
    let certificate = |token: &str, keys: &str| {
        let joined = enrol(&world, token, keys, &["join"]);
        joined.exits(0);
        let certificate = joined.json()["host_certificate"].clone();
        certificate.as_str().unwrap().to_owned()
    };
    let names = |certificate: &str| {
        let file = world.path("shown-cert.pub");
        fs::write(&file, certificate).unwrap();
        let shown = Cmd::new("ssh-keygen").arg("-L").arg("-f").arg(&file).run();
        let shown = shown.text();
        let (_, rest) = shown.split_once("Principals:").unwrap();
        let (names, _) = rest.split_once("Critical").unwrap();
        names
            .split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let keys = [
        key(&world, "first", KeyType::Ed25519),
        key(&world, "second", KeyType::Ed25519),
    ];
    let first = made("iot");
    let before = certificate(&first, &keys[0]);
    assert!(names(&before).contains(&"iot".to_owned()));
    let renamed = world.ctl(&["nodes", "update", "iot", "--name", "old"]);
    renamed.exits(0).says("count no more");
    let revoked = world.events("node.update").into_iter();
    let mut reasons = revoked.filter_map(|entry| entry["reason"].as_str().map(str::to_owned));
    assert!(
        reasons.any(|why| why.contains("host certificates revoked") && why.contains("renamed"))
    );
    let second = certificate(&made("iot"), &keys[1]);
    assert!(names(&second).contains(&"iot".to_owned()));
    let after = certificate(&first, &keys[0]);
    let uuid = node(&world, "old").unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(names(&after), [uuid]);
}

#[test]
fn the_agent_gets_what_it_stores_as_one_object() {
    let world = World::bare("");
    let token = token(&world, &["--name", "gate"]).secret;
    let keys = key(&world, "agent", KeyType::Ed25519);
    let joined = enrol(&world, &token, &keys, &["join", "gate", "os=linux"]);
    joined.exits(0);
    let joined = joined.json();
    let made = node(&world, "gate").unwrap();
    assert_eq!(
        (made["addr"].as_str(), &made["id"]),
        (Some("tunnel"), &joined["node_id"])
    );
    assert_eq!(joined["cluster"], World::CLUSTER);
    for list in ["node_ca", "host_ca"] {
        let keys = joined[list].as_array().unwrap();
        assert!(
            keys[0].as_str().unwrap().starts_with("ssh-ed25519 "),
            "{list}"
        );
    }
    let file = world.path("agent-cert.pub");
    fs::write(&file, joined["host_certificate"].as_str().unwrap()).unwrap();
    let shown = Cmd::new("ssh-keygen").arg("-L").arg("-f").arg(&file).run();
    shown.exits(0);
    let shown = shown.text();
    let uuid = made["id"].as_str().unwrap();
    assert!(
        shown.contains("host certificate") && shown.contains(uuid),
        "{shown}"
    );
    assert!(
        shown.lines().any(|line| line.trim() == "gate"),
        "the token's name: {shown}"
    );
    assert!(!joined["krl"].as_str().unwrap().is_empty());
}
