//! What nodes fetch by themselves over a plain ssh, with a host key: `host-cert`, `krl` and `ca`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anteroom_tests::{Cmd, Finished, KeyType, NodeConfig, World};

use super::tunnel::with_key;

/// `iot` keeps a tunnel, `n2` is dialled.
fn world() -> World {
    World::builder()
        .node(NodeConfig::new("iot").by_tunnel())
        .node(NodeConfig::new("n2"))
        .user("carol", "access")
        .start()
}

fn own_key(world: &World, node: &str) -> String {
    let key = world.node(node).host_key(KeyType::Ed25519);
    key.display().to_string()
}

fn gives(world: &World, user: &str, key: &str, words: &[&str]) -> Finished {
    let command = with_key(world.port, user, key, &["127.0.0.1"]);
    command.args(words).run()
}

/// `node` fetches something with its own key.
fn fetches(world: &World, node: &str, words: &[&str]) -> Finished {
    gives(world, &format!("node+{node}"), &own_key(world, node), words)
}

fn kept(world: &World, name: &str, what: &Finished) -> PathBuf {
    let file = world.path(name);
    fs::write(&file, &what.stdout).unwrap();
    file
}

fn keygen(options: &[&str], file: &std::path::Path) -> Finished {
    Cmd::new("ssh-keygen").args(options).arg(file).run()
}

/// What `ssh-keygen -L` says of a field.
fn field(listed: &str, name: &str) -> String {
    let name = format!("{name}: ");
    let line = listed
        .lines()
        .find_map(|line| line.trim().strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name} in {listed}"))
        .to_owned()
}

fn refusals(world: &World) -> Vec<serde_json::Value> {
    let mut all = world.events("node.tunnel");
    all.retain(|entry| entry["state"] == "refused");
    all
}

#[test]
fn a_node_fetches_its_certificate_the_list_and_the_authorities_by_its_own_key() {
    let world = world();
    for node in ["iot", "n2"] {
        let ca = fetches(&world, node, &["ca"]);
        ca.exits(0);
        let exported = world.ctl(&["auth", "export", "--type", "node"]);
        assert_eq!(ca.text(), exported.text(), "{node}");
        let list = fetches(&world, node, &["krl"]);
        list.exits(0);
        keygen(&["-Q", "-l", "-f"], &kept(&world, "list", &list)).exits(0);
        let before = world.events("cert.create").len();
        let certificate = fetches(&world, node, &["host-cert"]);
        certificate.exits(0);
        let listed = keygen(&["-L", "-f"], &kept(&world, "cert.pub", &certificate));
        listed
            .exits(0)
            .prints_part("host certificate")
            .prints_part(&world.node(node).uuid);
        let issued = world.events("cert.create");
        assert_eq!(issued.len(), before + 1);
        let entry = issued.last().unwrap();
        assert_eq!(
            (&entry["node"], &entry["user"]),
            (&node.into(), &"the proxy".into())
        );
        assert_eq!(
            entry["remote_addr"].as_str().unwrap().split(':').next(),
            Some("127.0.0.1")
        );
        // While it does, there is no other.
        let serial = field(&listed.text(), "Serial");
        fetches(&world, node, &["host-cert", &serial])
            .exits(0)
            .prints("");
        assert_eq!(world.events("cert.create").len(), before + 1);
    }
    // What is locked is in the list of the next one who asks.
    let locked = keygen(&["-l", "-f"], &world.person("carol").public_key()).text();
    let locked = locked.split(' ').nth(1).unwrap().to_owned();
    world.ctl(&["lock", "--key", &locked]).exits(0);
    std::thread::sleep(Duration::from_secs(2));
    let list = kept(&world, "list", &fetches(&world, "n2", &["krl"]));
    let asked = Cmd::new("ssh-keygen")
        .args(["-Q", "-f"])
        .arg(&list)
        .arg(world.person("carol").public_key())
        .run();
    asked.exits(1).prints_part("REVOKED");
}

#[test]
fn the_version_of_the_list_is_that_of_the_log_and_grows() {
    let world = world();
    let version = || {
        let list = kept(&world, "list", &fetches(&world, "n2", &["krl"]));
        let listed = keygen(&["-Q", "-l", "-f"], &list).text();
        let first = listed.lines().next().unwrap();
        let number = first.strip_prefix("# KRL version ").unwrap();
        number.parse::<u64>().unwrap()
    };
    let seq = || {
        let last = world.ctl(&["audit", "ls", "--format", "json"]).json();
        last.as_array().unwrap().last().unwrap()["seq"]
            .as_u64()
            .unwrap()
    };
    let first = version();
    assert_eq!(first, seq());
    for n in 1..=3 {
        let message = n.to_string();
        world
            .ctl(&["lock", "--login", "nosuch", "--message", &message])
            .exits(0);
    }
    std::thread::sleep(Duration::from_secs(2));
    let second = version();
    assert!(second >= first + 3, "{first} {second}");
    assert_eq!(second, seq());
}

#[test]
fn a_certificate_of_the_authority_that_signed_before_is_renewed_at_once() {
    let world = world();
    let first = kept(&world, "first.pub", &fetches(&world, "n2", &["host-cert"]));
    let first = keygen(&["-L", "-f"], &first).text();
    let serial = field(&first, "Serial");
    for stage in ["announce", "sign"] {
        fetches(&world, "n2", &["host-cert", &serial])
            .exits(0)
            .prints("");
        let rotate = ["auth", "rotate", "--type", "host", "--stage", stage];
        world.ctl(&rotate).exits(0);
    }
    let next = fetches(&world, "n2", &["host-cert", &serial]);
    let next = keygen(&["-L", "-f"], &kept(&world, "next.pub", &next)).text();
    assert_ne!(field(&first, "Signing CA"), field(&next, "Signing CA"));
    // One of another node, or one that nobody issued, does for nobody.
    let serial = field(&next, "Serial");
    for (node, serial) in [("iot", serial.as_str()), ("n2", "1")] {
        let given = fetches(&world, node, &["host-cert", serial]);
        given.exits(0).prints_part("cert-v01@openssh.com");
    }
}

#[test]
fn names_that_were_certified_stay_and_a_name_that_was_not_is_not_added() {
    let world = world();
    let names = |node: &str| {
        let given = kept(&world, "cert.pub", &fetches(&world, node, &["host-cert"]));
        let listed = keygen(&["-L", "-f"], &given).text();
        let lines = listed.lines().map(str::trim);
        let lines = lines.skip_while(|line| *line != "Principals:").skip(1);
        let lines = lines.take_while(|line| !line.starts_with("Critical Options"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let uuid = world.node("n2").uuid.as_str();
    assert_eq!(names("n2"), [uuid]);
    let public = format!("{}.pub", own_key(&world, "n2"));
    world
        .ctl(&["nodes", "host-cert", "n2", "--key", &public])
        .exits(0);
    assert_eq!(names("n2"), [uuid, "n2"]);
}

#[test]
fn only_the_nodes_own_key_fetches_and_a_refusal_does_not_tell_why() {
    let world = world();
    let (own, other) = (own_key(&world, "n2"), own_key(&world, "iot"));
    let carol = world.person("carol").key.display().to_string();
    let refused = |user: &str, key: &str| {
        let given = gives(&world, user, key, &["ca"]);
        given
            .exits(255)
            .prints("")
            .says("Permission denied (publickey)");
        given.stderr
    };
    let unknown = refused("node+nosuch", &own);
    for (user, key) in [("node+n2", &other), ("node+n2", &carol), ("node+", &own)] {
        let said = refused(user, key);
        assert_eq!(said.replace(user, "node+nosuch"), unknown);
    }
    gives(&world, "n2", &own, &["ca"]).exits(255);
    // A host certificate beside the key does no harm, and lets nobody in by itself.
    let beside = world.path("beside");
    fs::copy(&own, &beside).unwrap();
    let public = format!("{own}.pub");
    let issued = world.ctl(&["nodes", "host-cert", "n2", "--key", &public]);
    fs::write(world.path("beside-cert.pub"), &issued.stdout).unwrap();
    let failures = world.events("auth").len();
    let beside = beside.display().to_string();
    gives(&world, "node+n2", &beside, &["ca"]).exits(0);
    assert_eq!(world.events("auth").len(), failures);
    // A lock on the node or on the key, another key in its place, and its removal.
    let fingerprint = keygen(&["-l", "-f"], std::path::Path::new(&public)).text();
    let fingerprint = fingerprint.split(' ').nth(1).unwrap().to_owned();
    for lock in [["--node", "n2"], ["--key", &fingerprint]] {
        let made = world.ctl(&["lock", lock[0], lock[1], "--format", "json"]);
        made.exits(0);
        refused("node+n2", &own);
        let id = made.json()["id"].as_str().unwrap().to_owned();
        world.ctl(&["locks", "rm", &id]).exits(0);
        gives(&world, "node+n2", &own, &["ca"]).exits(0);
    }
    let theirs = format!("{other}.pub");
    world
        .ctl(&["nodes", "rekey", "n2", "--host-key", &theirs])
        .exits(0);
    refused("node+n2", &own);
    world
        .ctl(&["nodes", "rekey", "n2", "--host-key", &public])
        .exits(0);
    world.ctl(&["nodes", "rm", "n2"]).exits(0);
    refused("node+n2", &own);
    refused(&format!("node+{}", world.node("n2").uuid), &own);
}

#[test]
fn such_a_connection_is_for_one_command_and_nothing_else() {
    let world = world();
    let only = "do nothing else";
    for words in [
        vec!["id"],
        vec!["ca", "krl"],
        vec!["host-cert", "x"],
        vec![],
    ] {
        fetches(&world, "n2", &words)
            .exits(77)
            .prints("")
            .says(only);
    }
    let key = own_key(&world, "n2");
    let with = |options: &[&str]| with_key(world.port, "node+n2", &key, options);
    with(&["-s", "127.0.0.1", "anteroom-node"])
        .run()
        .exits(77)
        .prints("")
        .says(only);
    with(&["-s", "127.0.0.1", "sftp"])
        .run()
        .exits(77)
        .says(only);
    let through = world.node("iot").address();
    with(&["-W", &through, "127.0.0.1"])
        .run()
        .exits(255)
        .says(only);
    // A forward is for nodes that are registered so; a command beside it for none.
    for node in ["n2", "iot"] {
        let (user, key) = (format!("node+{node}"), own_key(&world, node));
        let forward = ["-R", "0:localhost:1", "-o", "ExitOnForwardFailure=yes"];
        let both = with_key(world.port, &user, &key, &forward).args(["127.0.0.1", "ca"]);
        let both = both.run();
        assert!(both.stdout.is_empty() && both.code() != Some(0), "{both}");
        assert!(!world.is_connected(node));
    }
    // A second session of the same connection.
    let socket = world.path("mux").display().to_string();
    let master = [
        "-M",
        "-S",
        &socket,
        "-o",
        "ControlPersist=no",
        "127.0.0.1",
        "ca",
    ];
    with(&master).run().exits(0);
    let logged = refusals(&world);
    assert!(
        (1..=2).contains(&logged.len()),
        "once a minute for each node at most: {logged:?}"
    );
    // One that asks for nothing is ended, and takes no place for long.
    let idle = with(&["-N", "127.0.0.1"]).start();
    idle.finish(Duration::from_secs(40)).exits(255);
}

#[test]
fn a_node_that_asks_without_end_gets_four_certificates_a_day_and_fills_no_log() {
    let mut world = world();
    let key = own_key(&world, "n2");
    for _ in 0..4 {
        fetches(&world, "n2", &["host-cert"]).exits(0);
    }
    let issued = |world: &World| {
        let mut all = world.events("cert.create");
        all.retain(|entry| entry["node"] == "n2");
        all.len()
    };
    let (before, entries) = (issued(&world), refusals(&world).len());
    for _ in 0..5 {
        fetches(&world, "n2", &["host-cert"])
            .exits(75)
            .prints("")
            .says("there were 4 host certificates for this key within a day");
    }
    assert_eq!(refusals(&world).len(), entries + 1);
    // Nor after a restart; and the rest is to be had.
    world.stop_proxy();
    world.start_proxy();
    gives(&world, "node+n2", &key, &["host-cert"]).exits(75);
    gives(&world, "node+n2", &key, &["krl"]).exits(0);
    gives(&world, "node+n2", &key, &["ca"]).exits(0);
    assert_eq!(issued(&world), before);
    // Another node's are its own.
    fetches(&world, "iot", &["host-cert"]).exits(0);
}
