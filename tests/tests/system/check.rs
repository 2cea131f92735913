//! `nodes check` against real sshds, each wrong in one way: what it says, and that nobody gets in by it.

use std::fs;

use anteroom_tests::{Cmd, Finished, HostProof, KeyType, NodeConfig, World, login, need};
use serde_json::Value;

fn check(world: &World, words: &[&str]) -> Finished {
    let mut all = vec!["nodes", "check", "iot", "--login"];
    let login = login();
    all.push(&login);
    all.extend(words);
    world.ctl(&all)
}

/// The node's principals line alone, its CA line alone, or neither.
fn only(world: &World, wanted: &str) -> String {
    let lines = world.sshd_config("iot");
    let lines = lines.lines().filter(|line| line.starts_with(wanted));
    lines.map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_node_in_order_is_found_so_and_nobody_has_logged_in_on_it() {
    let world = World::usual();
    let found = check(&world, &[]);
    found.exits(0);
    let text = found.text();
    assert!(text.contains("ok     reached at 127.0.0.1:"), "{text}");
    assert!(text.contains("ok     host key as registered"), "{text}");
    let takes = format!("ok     its sshd would take a certificate for {}", login());
    assert!(text.contains(&takes), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let log = world.node("iot").log();
    assert!(!log.contains("Accepted publickey"), "{log}");
    assert!(log.contains("Postponed publickey"), "{log}");

    // What was offered is on record, and was good for nothing.
    let issued = world.events("cert.create");
    let asked: Vec<&Value> = issued
        .iter()
        .filter(|entry| entry["name"] == "check")
        .collect();
    assert_eq!(asked.len(), 2, "{issued:?}");
    for entry in asked {
        assert_eq!(entry["node_id"], *world.node("iot").uuid);
        assert_eq!(entry["login"], *login());
    }
    world.ctl(&["audit", "verify"]).exits(0);

    let report = check(&world, &["--format", "json"]).json();
    assert_eq!(report["ok"], true);
    assert_eq!(report["name"], "iot");
    assert_eq!(report["findings"][2]["topic"], "login");
    assert_eq!(report["findings"][2]["rating"], "ok");
}

#[test]
fn only_who_may_change_nodes_may_ask_and_not_under_a_lock() {
    let world = World::usual();
    for who in ["alice", "carol"] {
        let asked = world.person(who).access(&["nodes", "check", "iot"]).run();
        asked.exits(77);
    }
    assert_eq!(world.node("iot").connections(), 0);
    world
        .ctl(&["lock", "--node", &world.node("iot").uuid])
        .exits(0);
    let refused = check(&world, &[]);
    refused.exits(1);
    refused.says("node iot is locked");
    world.ctl(&["nodes", "check", "nosuch"]).exits(66);
}

#[test]
fn a_node_that_is_not_there_or_shows_another_key_is_told_from_one_that_refuses() {
    let mut world = World::usual();
    world.node("iot").change_host_key(KeyType::Ed25519);
    world.node_mut("iot").restart();
    let found = check(&world, &[]);
    found.exits(1);
    let text = found.text();
    assert!(
        text.contains("WRONG  the host shows the ssh-ed25519 key SHA256:"),
        "{text}"
    );
    assert!(text.contains("registered: SHA256:"), "{text}");

    world.node_mut("iot").stop();
    let found = check(&world, &[]);
    found.exits(69);
    let text = found.text();
    assert!(
        text.starts_with("WRONG  it could not be reached: "),
        "{text}"
    );
}

#[test]
fn an_authority_that_is_not_trusted_and_principals_that_are_not_asked_for_are_told_apart() {
    let mut world = World::usual();
    world.node_mut("iot").start("", "");
    let found = check(&world, &[]);
    found.exits(1);
    let text = found.text();
    assert!(text.contains("the node CA is not trusted there"), "{text}");
    assert!(text.contains("`nodes sshd-config iot`"), "{text}");

    let ca = only(&world, "TrustedUserCAKeys");
    world.node_mut("iot").start("", &ca);
    let found = check(&world, &[]);
    found.exits(1);
    let text = found.text();
    assert!(
        text.contains("it trusts the node CA, but wants other principals"),
        "{text}"
    );

    // Another node's lines: neither its own nor sshd's usual principals.
    let other = world.sshd_config("n2");
    world.node_mut("iot").start("", &other);
    check(&world, &[]).exits(1);
}

#[test]
fn a_login_that_is_missing_is_found_beside_one_that_is_there() {
    let world = World::usual();
    let words = ["nodes", "check", "iot", "--login"];
    let both = format!("nosuchuser,{}", login());
    let found = world.ctl(&[&words[..], &[&both]].concat());
    found.exits(1);
    let text = found.text();
    assert!(
        text.contains("WRONG  no certificate for nosuchuser is taken, though"),
        "{text}"
    );
    assert!(
        text.contains(&format!("would take a certificate for {}", login())),
        "{text}"
    );
}

#[test]
fn other_doors_are_named() {
    let mut world = World::usual();
    let ours = world.sshd_config("iot");
    let doors = "PasswordAuthentication yes\nKbdInteractiveAuthentication yes";
    world.node_mut("iot").start(doors, &ours);
    let found = check(&world, &[]);
    found.exits(1);
    let text = found.text();
    assert!(
        text.contains("WRONG  other doors are open: password, keyboard-interactive"),
        "{text}"
    );
    assert!(
        text.contains("`nodes sshd-config iot --exclusive`"),
        "{text}"
    );
    assert!(text.contains("would take a certificate"), "{text}");
    let report = check(&world, &["--format", "json"]).json();
    assert_eq!(report["ok"], false);
    assert_eq!(report["findings"][2]["topic"], "other_doors");
}

#[test]
fn a_node_that_sees_another_address_is_told_from_one_without_the_authority() {
    let world = World::usual();
    let wrong = [
        "nodes",
        "update",
        "iot",
        "--egress-addresses",
        "192.0.2.1/32",
    ];
    world.ctl(&wrong).exits(0);
    let found = check(&world, &[]);
    found.exits(1);
    let text = found.text();
    assert!(
        text.contains("sees the proxy come from another address than 192.0.2.1/32"),
        "{text}"
    );
    assert!(
        text.contains("`nodes update iot --egress-addresses ADDRESS`"),
        "{text}"
    );
}

#[test]
fn a_clock_that_is_off_is_found_with_about_how_much() {
    need("faketime");
    let mut world = World::usual();
    let config = world.node("iot").dir.join("sshd_config");
    for (shift, words) in [
        ("+5m", "1 to 10 minutes ahead"),
        ("+40m", "10 minutes to 1 hour ahead"),
        ("-8h", "1 hour to 1 day behind"),
        ("-9d", "1 day to 1 month behind"),
    ] {
        world.node_mut("iot").stop();
        let sshd = Cmd::new("faketime")
            .args(["-f", shift, "/usr/sbin/sshd", "-D", "-e", "-f"])
            .arg(&config)
            .start();
        sshd.expect_err("Server listening on");
        let found = check(&world, &[]);
        found.exits(1);
        let text = found.text();
        assert!(
            text.contains(&format!("WRONG  its clock is {words}")),
            "{shift}: {text}"
        );
    }
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn a_node_that_ends_the_connection_at_the_first_refusal_is_checked_as_well() {
    let mut world = World::usual();
    let ca = only(&world, "TrustedUserCAKeys");
    world.node_mut("iot").start("MaxAuthTries 1", &ca);
    let found = check(&world, &[]);
    found.exits(1);
    let text = found.text();
    assert!(
        text.contains("it trusts the node CA, but wants other principals"),
        "{text}"
    );
}

#[test]
fn a_node_known_by_its_certificate_is_checked_as_well() {
    let config = NodeConfig::new("iot").host_proof(HostProof::HostCa);
    let world = World::builder().node(config).start();
    let found = check(&world, &[]);
    found.exits(0);
    let by = found.text();
    assert!(
        by.contains("host key by a certificate of the host CA"),
        "{by}"
    );
    // Without `--login` those are asked about that roles allow there; nobody is registered, so root.
    let text = world.ctl(&["nodes", "check", "iot"]).text();
    assert!(text.contains("root"), "{text}");
    let log = fs::read_to_string(world.node("iot").dir.join("sshd_config")).unwrap();
    assert!(log.contains("HostCertificate"));
}
