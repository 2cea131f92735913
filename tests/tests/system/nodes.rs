//! Nodes: what a stock sshd accepts of our certificates, what we accept of a node.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anteroom_tests::{Cmd, HostProof, KeyType, NodeConfig, PATIENCE, Way, World, login};

fn target() -> String {
    format!("{}@iot", login())
}

/// Lines with which a node's sshd writes down each certificate that is presented to it,
/// and answers with the principals `names`.
///
/// sshd runs the command without a shell, after splitting it like one: `/bin/sh` is a
/// file that passes its ownership checks, the rest are arguments.
fn recording(file: &std::path::Path, names: &str) -> String {
    format!(
        "AuthorizedPrincipalsCommand /bin/sh -c \"echo $0 $1 >> {}; echo {names}\" %t %k\n\
         AuthorizedPrincipalsCommandUser {}",
        file.display(),
        login(),
    )
}

/// The certificate that a recording node saw last, as `ssh-keygen -L` prints it.
fn certificate(file: &std::path::Path) -> String {
    let seen = fs::read_to_string(file).unwrap();
    let last = seen.lines().last().expect("a certificate was presented");
    let copy = file.with_extension("pub");
    fs::write(&copy, format!("{last}\n")).unwrap();
    let printed = Cmd::new("ssh-keygen").arg("-L").arg("-f").arg(&copy).run();
    printed.exits(0);
    printed.text()
}

/// A world whose node iot records certificates and accepts the principals in `names`
/// (where `UUID` becomes the node's).
fn recording_world(names: &str) -> (World, std::path::PathBuf) {
    let mut world = World::usual();
    let file = world.path("presented");
    let names = names.replace("UUID", &world.node("iot").uuid);
    let first = recording(&file, &names);
    // Of several principals commands sshd 9.2 takes the last.
    let ours: String = world
        .sshd_config("iot")
        .lines()
        .filter(|line| !line.starts_with("AuthorizedPrincipals"))
        .map(|line| format!("{line}\n"))
        .collect();
    world.node_mut("iot").start(&first, &ours);
    (world, file)
}

#[test]
fn the_certificate_names_one_login_on_one_node_for_two_minutes_and_who_it_is_for() {
    let (world, file) = recording_world(&format!("{}@UUID", login()));
    let id = world.granted("iot");
    world
        .person("alice")
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
    let text = certificate(&file);
    let principals = section(&text, "Principals:");
    assert_eq!(
        principals,
        [format!("{}@{}", login(), world.node("iot").uuid)],
        "{text}"
    );
    let critical = section(&text, "Critical Options:");
    assert_eq!(critical.len(), 1, "{text}");
    assert!(
        critical[0].starts_with("source-address 127.0.0.1"),
        "{text}"
    );
    assert!(text.contains("user certificate"), "{text}");
    let key_id = text.lines().find(|line| line.contains("Key ID:")).unwrap();
    assert!(
        key_id.contains(&format!("\"alice req={id} sess=")),
        "{text}"
    );
    assert!(!text.contains("Serial: 0\n"), "{text}");
    assert!(lifetime(&text) <= Duration::from_secs(120 + 60), "{text}");
    // The node's own log names person, request and session too.
    let log = world.node("iot").log();
    assert!(log.contains(&format!("ID alice req={id} sess=")), "{log}");

    world
        .person("carol")
        .ssh(Way::OneHop, &[], &target(), &["true"])
        .run()
        .exits(0);
    let text = certificate(&file);
    assert!(
        text.contains("Key ID: \"carol sess="),
        "no request under standing access: {text}"
    );
}

/// The indented lines below a heading of `ssh-keygen -L`.
fn section(text: &str, heading: &str) -> Vec<String> {
    text.lines()
        .skip_while(|line| !line.contains(heading))
        .skip(1)
        .take_while(|line| line.starts_with("                "))
        .map(|line| line.trim().to_owned())
        .collect()
}

/// The length of `Valid: from … to …`.
fn lifetime(text: &str) -> Duration {
    let line = text
        .lines()
        .find(|line| line.contains("Valid: from "))
        .unwrap();
    let (from, to) = line
        .split_once("from ")
        .unwrap()
        .1
        .split_once(" to ")
        .unwrap();
    let seconds = |stamp: &str| -> u64 {
        let asked = Cmd::new("date").args(["-d", stamp, "+%s"]).run();
        asked.exits(0);
        asked.text().trim().parse().unwrap()
    };
    Duration::from_secs(seconds(to) - seconds(from))
}

#[test]
fn a_stock_sshd_of_another_node_refuses_the_certificate() {
    let mut world = World::usual();
    // The proxy takes n2's sshd for iot: same address, same host key, but the lines of
    // sshd_config are those of n2.
    let n2 = world.node("n2");
    let key = n2.host_key(KeyType::Ed25519).with_extension("pub");
    let address = n2.address();
    world
        .ctl_cmd(&["nodes", "update", "iot", "--addr", &address, "--host-key"])
        .arg(key)
        .run()
        .exits(0);
    let carol = world.person("carol").clone();
    for way in Way::BOTH {
        let finished = carol.ssh(way, &[], &target(), &["echo in"]).run();
        finished.exits(69).prints("").says("iot");
    }
    let log = world.node("n2").log();
    assert!(
        log.contains("Certificate does not contain an authorized principal")
            || log.contains("ostname mismatch")
            || log.contains("Failed publickey"),
        "{log}"
    );
    carol
        .ssh(Way::Jump, &[], &format!("{}@n2", login()), &["echo in"])
        .run()
        .exits(0);
    world.node_mut("iot").stop();
}

#[test]
fn a_stock_sshd_refuses_the_certificate_for_another_login() {
    // The node answers for every login with the principal of another one.
    let (world, file) = recording_world("someone@UUID");
    let finished = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run();
    finished.exits(69).prints("");
    let text = certificate(&file);
    assert!(!text.contains("someone@"), "{text}");
}

#[test]
fn a_node_with_another_host_key_than_the_pinned_one_is_refused_before_anything_is_sent() {
    let mut world = World::usual();
    let carol = world.person("carol").clone();
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
    world.node_mut("iot").change_host_key(KeyType::Ed25519);
    world.node_mut("iot").restart();
    for way in Way::BOTH {
        let finished = carol.ssh(way, &[], &target(), &["echo in"]).run();
        finished.exits(69).prints("");
        assert!(finished.stderr.contains("is not pinned"), "{finished}");
    }
    let log = world.node("iot").log();
    assert!(
        !log.contains("Accepted") && !log.contains("Failed publickey"),
        "{log}"
    );
    let audited = world.events("auth");
    let unknown = |entry: &&serde_json::Value| {
        entry["reason"]
            .as_str()
            .is_some_and(|why| why.contains("was not recognised"))
    };
    assert_eq!(audited.iter().filter(unknown).count(), 2, "{audited:?}");
    // The operator says that it is right.
    let key = world
        .node("iot")
        .host_key(KeyType::Ed25519)
        .with_extension("pub");
    world
        .ctl_cmd(&["nodes", "rekey", "iot", "--host-key"])
        .arg(key)
        .run()
        .exits(0)
        .prints_part("is known by other keys now");
    let changed = world.events("node.update").pop().unwrap();
    let why = changed["reason"].as_str().unwrap();
    assert_eq!(why.matches("SHA256:").count(), 2, "{why}");
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
}

#[test]
fn a_pinned_key_of_every_type_is_asked_for_and_found() {
    let mut builder = World::builder().user("carol", "access");
    let types = [
        KeyType::Ed25519,
        KeyType::Ecdsa256,
        KeyType::Ecdsa384,
        KeyType::Ecdsa521,
        KeyType::Rsa,
    ];
    for key_type in types {
        builder =
            builder.node(NodeConfig::new(key_type.name()).host_proof(HostProof::Pinned(key_type)));
    }
    let mut world = builder.start();
    for key_type in types {
        let name = key_type.name();
        // A node that also has keys of other types, as most have: ours must be preferred.
        for other in types {
            world.node(name).host_key(other);
        }
        let ours = world.sshd_config(name);
        world.node_mut(name).start("", &ours);
        let target = format!("{}@{name}", login());
        world
            .person("carol")
            .ssh(Way::OneHop, &[], &target, &["echo in"])
            .run()
            .exits(0)
            .prints("in\n");
    }
}

#[test]
fn what_scan_saw_is_pinned() {
    let mut world = World::builder()
        .node(NodeConfig::new("iot").host_proof(HostProof::Scanned))
        .user("carol", "access")
        .start();
    let carol = world.person("carol").clone();
    carol
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
    world.node_mut("iot").change_host_key(KeyType::Ed25519);
    world.node_mut("iot").restart();
    carol
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(69)
        .prints("");
}

#[test]
fn a_node_with_a_certificate_of_our_host_ca_for_its_uuid_is_accepted_and_for_another_refused() {
    let world = World::builder()
        .node(NodeConfig::new("iot").host_proof(HostProof::HostCa))
        .user("carol", "access")
        .start();
    let carol = world.person("carol").clone();
    carol
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
    let mut world = world;
    let stranger = "b1168402-9340-421a-a344-af66a6675738";
    world.certify_host("iot", stranger);
    world.node_mut("iot").restart();
    carol
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(69)
        .prints("");
}

/// The serial number of a node's certificate.
fn serial_of(world: &World, node: &str) -> String {
    let key = world.node(node).host_key(KeyType::Ed25519);
    let file = key.with_file_name(format!(
        "{}-cert.pub",
        key.file_name().unwrap().to_string_lossy()
    ));
    let listed = Cmd::new("ssh-keygen").arg("-Lf").arg(file).run().text();
    let line = listed.lines().find(|line| line.contains("Serial:"));
    let serial = line.unwrap().split("Serial:").nth(1).unwrap();
    serial.trim().to_owned()
}

fn certified() -> World {
    World::builder()
        .node(NodeConfig::new("iot").host_proof(HostProof::HostCa))
        .user("carol", "access")
        .start()
}

fn goes_in(world: &World) {
    let carol = world.person("carol");
    let there = carol.ssh(Way::Jump, &[], &target(), &["echo in"]).run();
    there.exits(0).prints("in\n");
}

fn is_refused(world: &World, why: &str) {
    let carol = world.person("carol");
    let refused = carol.ssh(Way::Jump, &[], &target(), &["echo in"]).run();
    refused.exits(69).prints("").says(why);
}

#[test]
fn a_host_certificate_or_key_that_is_locked_is_refused_until_the_lock_is_gone() {
    let world = certified();
    let key = world.node("iot").host_key(KeyType::Ed25519);
    let fingerprint = Cmd::new("ssh-keygen").arg("-lf").arg(&key).run().text();
    let fingerprint = fingerprint.split(' ').nth(1).unwrap().to_owned();
    let serial = serial_of(&world, "iot");
    for lock in [["--serial", serial.as_str()], ["--key", &fingerprint]] {
        goes_in(&world);
        let id = world.ctl(&["lock", lock[0], lock[1], "--message", "stolen disk"]);
        id.exits(0);
        is_refused(&world, "is locked: stolen disk");
        if lock[0] == "--key" {
            let again = world
                .ctl_cmd(&["nodes", "host-cert", "iot", "--key"])
                .arg(key.with_extension("pub"))
                .run();
            again.exits(77).prints("").says("is locked: stolen disk");
        }
        world.ctl(&["locks", "rm", id.text().trim()]).exits(0);
    }
    goes_in(&world);
    // By the operator's own hand: genuine, and never issued.
    let forged = world.node("iot").uuid.clone();
    let mut world = world;
    world.certify_host("iot", &forged);
    world.node_mut("iot").restart();
    is_refused(&world, "was never issued here");
    let alarms = world.events("auth");
    assert!(
        alarms
            .iter()
            .any(|entry| entry["reason"].to_string().contains("ALARM")),
        "{alarms:?}"
    );
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn a_pinned_host_key_that_is_locked_is_refused() {
    let world = World::usual();
    goes_in(&world);
    let key = world.node("iot").host_key(KeyType::Ed25519);
    let fingerprint = Cmd::new("ssh-keygen").arg("-lf").arg(&key).run().text();
    let fingerprint = fingerprint.split(' ').nth(1).unwrap().to_owned();
    world.ctl(&["lock", "--key", &fingerprint]).exits(0);
    is_refused(&world, "is locked");
}

#[test]
fn a_certificate_for_another_key_revokes_the_older_ones_and_a_renewal_does_not() {
    let mut world = certified();
    let key = world.node("iot").host_key(KeyType::Ed25519);
    let first = serial_of(&world, "iot");
    // Renewed, and sshd not reloaded yet; then reloaded.
    world.issue_host_certificate("iot", &key, &["--ttl", "2d"]);
    goes_in(&world);
    world.node_mut("iot").restart();
    goes_in(&world);
    let old = world.path("old-cert.pub");
    fs::copy(key.with_file_name("host_ed25519-cert.pub"), &old).unwrap();
    // A key of another type has a certificate beside it, which is said.
    let other = world.path("other");
    KeyType::Ecdsa256.generate(&other, "");
    let second = world
        .ctl_cmd(&["nodes", "host-cert", "iot", "--key"])
        .arg(other.with_extension("pub"))
        .run();
    second.exits(0).says("keys of other types too");
    goes_in(&world);
    // The key was stolen; another one is made and certified.
    let fresh = world.path("fresh");
    KeyType::Ed25519.generate(&fresh, "");
    world.issue_host_certificate("iot", &fresh, &[]);
    is_refused(&world, "the node has a certificate for another key");
    let revoked = world.events("node.update");
    let reason = revoked.last().unwrap()["reason"].to_string();
    assert!(reason.contains(&first), "{reason}");
    let krl = world.path("krl");
    let exported = world.ctl(&["auth", "export", "--type", "krl"]);
    fs::write(&krl, &exported.stdout).unwrap();
    let asked = |file: &Path| Cmd::new("ssh-keygen").arg("-Qf").arg(&krl).arg(file).run();
    assert!(asked(&old).text().contains("REVOKED"));
    asked(&world.path("fresh-cert.pub")).exits(0);
    for name in ["", ".pub", "-cert.pub"] {
        let to = format!("host_ed25519{name}");
        fs::copy(world.path(&format!("fresh{name}")), key.with_file_name(to)).unwrap();
    }
    world.node_mut("iot").restart();
    goes_in(&world);
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn certificates_of_a_node_that_was_removed_or_is_known_by_another_key_count_no_more() {
    let world = certified();
    let document = world.ctl(&["get", "node/iot", "--format", "yaml"]);
    document.exits(0);
    world.ctl(&["nodes", "rm", "iot"]).exits(0);
    world.create(&document.text()).exits(0);
    is_refused(&world, "the node was removed");
    let key = world.node("iot").host_key(KeyType::Ed25519);
    let mut world = world;
    world.issue_host_certificate("iot", &key, &[]);
    world.node_mut("iot").restart();
    goes_in(&world);
    // Known by its own key the certificate for it goes on, and by another one it does not.
    let public = key.with_extension("pub");
    let pin = |world: &World, file: &Path| {
        let pinned = world
            .ctl_cmd(&["nodes", "update", "iot", "--host-key"])
            .arg(file)
            .run();
        pinned.exits(0);
        world.ctl(&["nodes", "update", "iot", "--host-ca"]).exits(0);
    };
    pin(&world, &public);
    goes_in(&world);
    let other = world.path("other");
    KeyType::Ed25519.generate(&other, "");
    pin(&world, &other.with_extension("pub"));
    is_refused(&world, "the node is known by other keys now");
}

#[test]
fn a_node_that_is_down_is_said_to_be_with_69() {
    let mut world = World::usual();
    world.node_mut("iot").stop();
    let carol = world.person("carol");
    for way in Way::BOTH {
        let finished = carol.ssh(way, &[], &target(), &["echo in"]).run();
        finished.exits(69).prints("").says("iot");
    }
}

#[test]
fn a_node_that_accepts_and_never_answers_costs_ten_seconds_and_69() {
    let world = World::usual();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    world
        .ctl(&["nodes", "update", "iot", "--addr", &address])
        .exits(0);
    let finished = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run();
    finished.exits(69).prints("");
    assert!(finished.took < Duration::from_secs(25), "{finished}");
    assert!(finished.took > Duration::from_secs(5), "{finished}");
}

#[test]
fn a_nodes_banner_and_text_cannot_reach_the_terminal_raw() {
    let mut world = World::usual();
    let banner = world.path("banner");
    fs::write(&banner, "evil \x1b[31m\x1b]0;title\x07 banner\n").unwrap();
    let ours = world.sshd_config("iot");
    world
        .node_mut("iot")
        .start(&format!("Banner {}", banner.display()), &ours);
    let finished = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run();
    finished.exits(0).prints("in\n");
    assert!(!finished.stderr.contains('\x1b'), "{finished}");
}

#[test]
fn a_refusal_at_the_node_is_refused_again_the_next_time_and_leaves_no_grant_behind() {
    let mut world = World::usual();
    let id = world.granted("iot");
    world.node_mut("iot").stop();
    let alice = world.person("alice").clone();
    alice
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(69);
    assert_eq!(
        world.state(&id),
        "APPROVED",
        "the node's trouble is not the request's"
    );
    world.node_mut("iot").restart();
    alice
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run_within(PATIENCE)
        .exits(0)
        .prints("in\n");
}
