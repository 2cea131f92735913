//! Certificates that are carried away: `cert LOGIN@NODE` for ssh past the proxy, host certificates of nodes,
//! the revocation list at a stock sshd, and the way in when the proxy is down.

use std::fs;
use std::path::{Path, PathBuf};

use anteroom_tests::{Cmd, Finished, KeyType, NodeConfig, Person, World, login};
use serde_json::Value;

const DIRECT: &str = "kind: role\nversion: v7\nmetadata: {name: direct}\nspec:\n  options: {direct: true}\n  \
    allow: {logins: ['{{internal.logins}}'], node_labels: {env: staging}}\n---\n\
    kind: role\nversion: v7\nmetadata: {name: no-copies}\nspec:\n  options: {direct: true, ssh_file_copy: false}\n  \
    allow: {logins: ['{{internal.logins}}'], node_labels: {env: staging}}\n";

/// dora may take certificates for iot away; carol may not; alice has to ask.
fn world() -> World {
    World::builder()
        .documents(DIRECT)
        .node(NodeConfig::new("iot").labels("env=staging"))
        .node(NodeConfig::new("n2").labels("env=prod"))
        .user("alice", "requester")
        .user("bob", "reviewer")
        .user("carol", "access")
        .user("dora", "direct")
        .user("nick", "no-copies")
        .start()
}

/// The certificate that `who` gets for iot, in a file of its own.
fn certificate(world: &World, who: &Person) -> (PathBuf, Finished) {
    let given = who.access(&["cert", &format!("{}@iot", login())]).run();
    given.exits(0);
    let file = world.path(&format!("{}-direct-cert.pub", who.name));
    fs::write(&file, &given.stdout).unwrap();
    (file, given)
}

/// ssh to a node's own sshd, with nothing of ours between.
fn straight(
    world: &World,
    who: &Person,
    certificate: &Path,
    node: &str,
    command: &str,
) -> Finished {
    let option = |name: &str, value: &str| ["-o".to_owned(), format!("{name}={value}")];
    Cmd::new("ssh")
        .args(["-F", "none", "-i"])
        .arg(&who.key)
        .args(option(
            "CertificateFile",
            &certificate.display().to_string(),
        ))
        .args(option("IdentitiesOnly", "yes"))
        .args(option("IdentityAgent", "none"))
        .args(option("StrictHostKeyChecking", "no"))
        .args(option("UserKnownHostsFile", "/dev/null"))
        .args(option("BatchMode", "yes"))
        .args(["-p", &world.node(node).port.to_string()])
        .arg(format!("{}@127.0.0.1", login()))
        .arg(command)
        .run()
}

fn listed(certificate: &Path) -> String {
    let listed = Cmd::new("ssh-keygen").arg("-Lf").arg(certificate).run();
    listed.exits(0);
    listed.text()
}

fn serial(certificate: &Path) -> String {
    let listed = listed(certificate);
    let line = listed
        .lines()
        .find_map(|line| line.trim().strip_prefix("Serial: "));
    line.unwrap().to_owned()
}

#[test]
fn a_certificate_for_direct_use_opens_its_node_past_the_proxy_and_no_other() {
    let world = world();
    let dora = world.person("dora");
    let (file, given) = certificate(&world, dora);
    given.says("does not go through the proxy");
    let text = listed(&file);
    for part in [
        "Key ID: \"dora sess=",
        "source-address 127.0.0.1/32,::1/128",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains("permit-port-forwarding"), "{text}");
    straight(&world, dora, &file, "iot", "echo in")
        .exits(0)
        .prints("in\n");
    straight(&world, dora, &file, "n2", "echo in").exits(255);
    let log = world.node("iot").log();
    assert!(log.contains("ID dora sess="), "{log}");
    // Its row and its entry are there, and it is short.
    let entry: Vec<Value> = world.events("cert.create");
    let entry = entry
        .iter()
        .find(|entry| entry["name"] == "direct")
        .unwrap();
    assert_eq!(
        (&entry["user"], &entry["serial"]),
        (&Value::from("dora"), &Value::from(serial(&file)))
    );
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn a_certificate_for_direct_use_needs_a_role_that_says_so() {
    let world = world();
    let target = format!("{}@iot", login());
    for who in ["carol", "nick"] {
        let refused = world.person(who).access(&["cert", &target]).run();
        refused
            .exits(77)
            .prints("")
            .says("direct: true")
            .says("ssh -J access");
    }
    let refused = world.person("alice").access(&["cert", &target]).run();
    refused.exits(77).prints("").says("request create");
    let hidden = world
        .person("dora")
        .access(&["cert", &format!("{}@n2", login())])
        .run();
    hidden.exits(66).prints("");
    world
        .ctl(&["lock", "--user", "dora", "--message", "stolen laptop"])
        .exits(0);
    let locked = world.person("dora").access(&["cert", &target]).run();
    locked.exits(77).prints("").says("stolen laptop");
    assert!(
        world
            .events("cert.create")
            .iter()
            .all(|entry| entry["name"] != "direct" || entry["success"] == false)
    );
}

#[test]
fn match_exec_fetches_the_certificate_and_ssh_goes_straight_to_the_node() {
    let mut world = world();
    let dora = world.person("dora").clone();
    let port = world.node("iot").port;
    // The node is known by its host certificate: one line of known_hosts for all of them.
    let key = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .with_extension("pub");
    let signed = world
        .ctl_cmd(&["nodes", "host-cert", "iot", "--key"])
        .arg(&key)
        .run();
    signed.exits(0).says("HostCertificate");
    fs::write(key.with_file_name("host_ed25519-cert.pub"), &signed.stdout).unwrap();
    let ours = world.sshd_config("iot");
    world.node_mut("iot").start("", &ours);
    let file = world.path("dora-direct-cert.pub");
    let config = world.path("direct_config");
    let text = format!(
        "Match originalhost iot user root,{login} exec \"ssh -F {access} access cert %r@%n > {file}\"\n  HostName 127.0.0.1\n  Port {port}\n  \
         HostKeyAlias iot\n  CertificateFile {file}\n{rest}",
        login = login(),
        access = dora.config().display(),
        file = file.display(),
        rest = fs::read_to_string(dora.config()).unwrap(),
    );
    fs::write(&config, text).unwrap();
    let there = Cmd::new("ssh")
        .arg("-F")
        .arg(&config)
        .arg(format!("{}@iot", login()))
        .arg("echo in")
        .run();
    there.exits(0).prints("in\n");
    assert_eq!(
        world.events("session.start").len(),
        0,
        "it did not go through the proxy"
    );
    // What stands in the place of a login reaches no shell.
    let touched = world.path("touched");
    let hostile = format!("$(touch${{IFS}}{})@iot", touched.display());
    let nothing = ["-o", "BatchMode=yes", "-o", "ProxyCommand=false"];
    let tried = Cmd::new("ssh")
        .arg("-F")
        .arg(&config)
        .args(nothing)
        .arg(&hostile)
        .arg("true")
        .run();
    assert!(tried.code() != Some(0) && !touched.exists(), "{tried:?}");
    // Its end is shown, and running the command again renews it.
    let shown = world.ctl(&["nodes", "show", "iot"]);
    shown.exits(0).prints_part("Host cert");
    world
        .ctl(&["nodes", "ls"])
        .is_silent_about("host certificate");
    let short = world
        .ctl_cmd(&["nodes", "host-cert", "iot", "--ttl", "2d", "--key"])
        .arg(&key)
        .run();
    short.exits(0);
    let first: Value = world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .json();
    assert!(first["host_certificate_expires"].is_string(), "{first}");
    // Of one that ends within a week it is said where nodes are listed.
    let short = world
        .ctl_cmd(&["nodes", "host-cert", "n2", "--ttl", "2d", "--key"])
        .arg(&key)
        .run();
    short.exits(0);
    let warned = world.ctl(&["nodes", "ls"]);
    warned.says("WARNING: the host certificate of `n2` is good until ");
    assert!(!warned.stderr.contains("of `iot`"), "{warned}");
}

#[test]
fn a_host_certificate_carries_the_uuid_and_the_approved_names_only() {
    let world = world();
    let key = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .with_extension("pub");
    let key = fs::read_to_string(key).unwrap();
    let signed = world
        .ctl_cmd(&["nodes", "host-cert", "iot", "--key", "-"])
        .stdin(key.clone())
        .run();
    signed.exits(0);
    let file = world.path("host-cert.pub");
    fs::write(&file, &signed.stdout).unwrap();
    let text = listed(&file);
    let node: Value = world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .json();
    assert!(text.contains("host certificate"), "{text}");
    let principals = text
        .split("Principals:")
        .nth(1)
        .unwrap()
        .split("Critical")
        .next()
        .unwrap();
    let principals: Vec<&str> = principals.split_whitespace().collect();
    assert_eq!(principals, [node["id"].as_str().unwrap(), "iot"]);
    for (ttl, code) in [("29d", 0), ("31d", 64), ("0s", 64)] {
        let signed = world
            .ctl_cmd(&["nodes", "host-cert", "iot", "--ttl", ttl, "--key", "-"])
            .stdin(key.clone())
            .run();
        signed.exits(code);
    }
    let refused = world
        .person("carol")
        .access(&["nodes", "host-cert", "iot", "--key", "-"])
        .stdin(key)
        .run();
    refused.exits(77).prints("");
    let nonsense = world
        .ctl_cmd(&["nodes", "host-cert", "iot", "--key", "-"])
        .stdin("no key")
        .run();
    nonsense.exits(64).prints("");
}

#[test]
fn a_stock_sshd_refuses_what_the_revocation_list_names() {
    let mut world = world();
    let dora = world.person("dora").clone();
    let krl = world.path("krl");
    let export = |world: &World| {
        let exported = world.ctl(&["auth", "export", "--type", "krl"]);
        exported.exits(0);
        fs::write(world.path("krl"), &exported.stdout).unwrap();
    };
    export(&world);
    let ours = world.sshd_config("iot");
    let first = format!("RevokedKeys {}", krl.display());
    world.node_mut("iot").start(&first, &ours);
    let ask = |file: &Path| Cmd::new("ssh-keygen").arg("-Qf").arg(&krl).arg(file).run();
    // Each lock revokes it, and without the lock it is good again.
    let fingerprint = Cmd::new("ssh-keygen")
        .arg("-lf")
        .arg(dora.public_key())
        .run()
        .text();
    let fingerprint = fingerprint.split(' ').nth(1).unwrap().to_owned();
    let (file, _) = certificate(&world, &dora);
    let (number, me) = (serial(&file), login());
    let locks = [
        ["--serial", number.as_str()],
        ["--key", &fingerprint],
        ["--user", "dora"],
        ["--role", "direct"],
        ["--node", "iot"],
        ["--login", &me],
    ];
    for lock in locks {
        ask(&file).exits(0).prints_part("ok");
        straight(&world, &dora, &file, "iot", "echo in").exits(0);
        let id = world.ctl(&["lock", lock[0], lock[1]]);
        id.exits(0);
        export(&world);
        assert!(ask(&file).text().contains("REVOKED"), "{lock:?}");
        straight(&world, &dora, &file, "iot", "echo in").exits(255);
        world.ctl(&["locks", "rm", id.text().trim()]).exits(0);
        export(&world);
    }
    straight(&world, &dora, &file, "iot", "echo in").exits(0);
    // What was taken away is revoked as well: the role, then the person.
    world
        .ctl(&["users", "update", "dora", "--roles", "requester"])
        .exits(0);
    export(&world);
    assert!(ask(&file).text().contains("REVOKED"));
    world.ctl(&["users", "rm", "dora"]).exits(0);
    export(&world);
    straight(&world, &dora, &file, "iot", "echo in").exits(255);
    let refused = world
        .person("carol")
        .access(&["auth", "export", "--type", "krl"])
        .run();
    refused.exits(77).prints("");
}

#[test]
fn the_revocation_list_names_what_was_got_with_a_removed_key() {
    let world = world();
    let dora = world.person("dora").clone();
    let (file, _) = certificate(&world, &dora);
    let other = dora.with_new_key("other", KeyType::Ecdsa256);
    let both = world
        .ctl_cmd(&["users", "update", "dora", "--add-key"])
        .arg(other.public_key())
        .run();
    both.exits(0);
    let krl = world.path("krl");
    let revoked = |file: &Path| {
        let exported = world.ctl(&["auth", "export", "--type", "krl"]);
        exported.exits(0);
        fs::write(&krl, &exported.stdout).unwrap();
        let asked = Cmd::new("ssh-keygen").arg("-Qf").arg(&krl).arg(file).run();
        asked.text().contains("REVOKED")
    };
    assert!(!revoked(&file) && !revoked(&dora.public_key()));
    // Her other key stays, and gets her the same access.
    let update = |option: &str, who: &Person| {
        let update = world.ctl_cmd(&["users", "update", "dora", option]);
        update.arg(who.public_key()).run().exits(0);
    };
    update("--key", &other);
    assert!(revoked(&file) && revoked(&dora.public_key()));
    assert!(!revoked(&other.public_key()));
    let others = other.access(&["cert", &format!("{}@iot", login())]).run();
    others.exits(0);
    fs::write(world.path("others"), &others.stdout).unwrap();
    assert!(!revoked(&world.path("others")));
    update("--add-key", &dora);
    assert!(!revoked(&dora.public_key()), "it is hers again");
}

#[test]
fn when_the_proxy_is_down_the_node_ca_signs_by_hand() {
    let mut world = world();
    let carol = world.person("carol").clone();
    let node: Value = world
        .ctl(&["nodes", "show", "iot", "--format", "json"])
        .json();
    world.kill_proxy();
    let principal = format!("{}@{}", login(), node["id"].as_str().unwrap());
    Cmd::new("ssh-keygen")
        .args([
            "-q",
            "-I",
            "emergency carol",
            "-V",
            "-1m:+10m",
            "-O",
            "source-address=127.0.0.1/32",
            "-n",
            &principal,
            "-s",
        ])
        .arg(world.data_dir().join("ca/node"))
        .arg(carol.public_key())
        .run()
        .exits(0);
    let file = carol.key.with_file_name("id-cert.pub");
    straight(&world, &carol, &file, "iot", "echo in")
        .exits(0)
        .prints("in\n");
    straight(&world, &carol, &file, "n2", "echo in").exits(255);
    world.start_proxy();
}
