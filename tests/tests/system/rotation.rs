//! Exchanging the keys of the certificate authorities, stage by stage, with sessions that live through it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anteroom_tests::{
    Cmd, Finished, HostProof, NodeConfig, PATIENCE, Person, Proc, Way, World, login,
};
use serde_json::Value;

const KINDS: [&str; 3] = ["user", "node", "host"];

fn target() -> String {
    format!("{}@iot", login())
}

/// `auth rotate --type KIND [--stage STAGE] [--force]`.
pub(super) fn rotate(world: &World, kind: &str, options: &[&str]) -> Finished {
    let mut words = vec!["auth", "rotate", "--type", kind];
    words.extend(options);
    world.ctl(&words)
}

fn stage(world: &World, kind: &str, stage: &str) -> Finished {
    let rotated = rotate(world, kind, &["--stage", stage]);
    rotated.exits(0);
    rotated
}

/// What `auth status` says of one authority.
pub(super) fn status(world: &World, kind: &str) -> Value {
    let printed = world.ctl(&["auth", "status", "--format", "json"]);
    printed.exits(0);
    let rows = printed.json();
    let mut rows = rows.as_array().unwrap().iter();
    rows.find(|row| row["type"] == kind).unwrap().clone()
}

fn fingerprint(file: &Path) -> String {
    let printed = Cmd::new("ssh-keygen").arg("-lf").arg(file).run();
    printed.exits(0);
    printed.text().split(' ').nth(1).unwrap().to_owned()
}

/// The file of an authority's key in the data directory.
fn file(world: &World, name: &str) -> PathBuf {
    world.data_dir().join("ca").join(name)
}

/// Gives nodes and people what is trusted now.
fn everybody_learns(world: &World) {
    // All nodes of a world read this file, at each login.
    world.sshd_config("iot");
    world.write_known_hosts();
}

pub(super) fn enters(world: &World, who: &Person) {
    for way in Way::BOTH {
        who.ssh(way, &[], &target(), &["echo in"])
            .run()
            .exits(0)
            .prints("in\n");
    }
    world.ctl(&["audit", "verify"]).exits(0);
}

/// A session that answers each line.
struct Session(Proc);

impl Session {
    fn open(who: &Person, way: Way) -> Self {
        let command = "echo ready; while read line; do echo got $line; done";
        let session = who
            .ssh(way, &[], &target(), &[command])
            .stdin_open()
            .start();
        session.expect_out("ready\n");
        Self(session)
    }

    #[track_caller]
    fn lives(&mut self, word: &str) {
        self.0.say(format!("{word}\n"));
        self.0.expect_out(&format!("got {word}\n"));
    }
}

/// Logs in, with the certificate presented from then on by a person of the same key.
pub(super) fn with_certificate(world: &World, who: &Person, name: &str) -> Person {
    let printed = who.access(&["login"]).run();
    printed.exits(0);
    let file = who.dir.join(format!("{name}-cert.pub"));
    fs::write(&file, &printed.stdout).unwrap();
    let mut other = who.clone();
    // Its configuration stands beside a link to the same key.
    other.key = who.dir.join(name);
    std::os::unix::fs::symlink(&who.key, &other.key).unwrap();
    fs::copy(who.public_key(), other.public_key()).unwrap();
    let config = fs::read_to_string(who.config()).unwrap();
    let line = format!(
        "  CertificateFile {}\n  IdentityFile {}\n",
        file.display(),
        other.key.display()
    );
    let config = config.replace(&format!("  IdentityFile {}\n", who.key.display()), &line);
    fs::write(other.config(), config).unwrap();
    let _ = world;
    other
}

/// Whether `status` was asked with an identity certificate.
pub(super) fn counts(status: &Finished) -> bool {
    status.exits(0);
    status.text().contains("Valid until") && !status.text().contains("your roles or key change")
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn sessions_live_through_every_stage_of_all_three_authorities() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let held = with_certificate(&world, &carol, "held");
    let mut sessions = [
        Session::open(&carol, Way::Jump),
        Session::open(&carol, Way::OneHop),
        Session::open(&held, Way::Jump),
    ];
    for kind in KINDS {
        let old = fingerprint(&file(&world, kind));
        for step in ["announce", "sign", "retire"] {
            // The stage is the next one by itself. Nobody has been on n2.
            rotate(&world, kind, &["--force"]).exits(0);
            everybody_learns(&world);
            for session in &mut sessions {
                session.lives(&format!("{kind}-{step}"));
            }
            enters(&world, &carol);
            let row = status(&world, kind);
            let signs = fingerprint(&file(&world, kind));
            assert_eq!(row["signing"], signs, "{row}");
            assert_eq!(signs == old, step == "announce", "{kind} {step}");
            let exported = world.ctl(&["auth", "export", "--type", kind]).text();
            let keys = exported.lines().count();
            let each = if kind == "host" { 2 } else { 1 };
            let trusted = if step == "retire" { 1 } else { 2 };
            assert_eq!(keys, each * trusted, "{exported}");
        }
        assert_eq!(status(&world, kind)["stage"], "stable");
        for left in ["next", "next.pub", "previous", "previous.pub"] {
            assert!(!file(&world, &format!("{kind}.{left}")).exists(), "{left}");
        }
        for (name, mode) in [(kind.to_owned(), 0o600), (format!("{kind}.pub"), 0o644)] {
            use std::os::unix::fs::PermissionsExt;
            let found = fs::metadata(file(&world, &name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(found & 0o7777, mode, "{name}");
        }
    }
    let steps: Vec<String> = world
        .events("ca.rotate")
        .iter()
        .filter(|entry| entry["user"] != "the proxy")
        .map(|entry| {
            let reason = entry["reason"].as_str().unwrap();
            let step = reason.split(':').next().unwrap();
            format!("{} {step}", entry["name"].as_str().unwrap())
        })
        .collect();
    let expected: Vec<String> = KINDS
        .iter()
        .flat_map(|kind| ["announce", "sign", "retire"].map(|step| format!("{kind} {step}")))
        .collect();
    assert_eq!(steps, expected);
}

#[test]
fn identity_certificates_are_good_until_their_ca_is_retired_and_no_longer() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let held = with_certificate(&world, &carol, "old");
    let has_certificate = |who: &Person| counts(&who.access(&["status"]).run());
    for step in ["announce", "sign"] {
        stage(&world, "user", step);
        assert!(has_certificate(&held), "{step}");
    }
    // From `sign` on a login gives one of the new CA.
    let new = with_certificate(&world, &carol, "new");
    assert!(has_certificate(&new));
    let by = |name: &str| {
        let listed = Cmd::new("ssh-keygen")
            .arg("-Lf")
            .arg(carol.dir.join(format!("{name}-cert.pub")))
            .run();
        let text = listed.text();
        let line = text
            .lines()
            .find(|line| line.contains("Signing CA:"))
            .unwrap();
        line.split_whitespace()
            .find(|word| word.starts_with("SHA256:"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(by("new"), fingerprint(&file(&world, "user")));
    assert_eq!(by("old"), fingerprint(&file(&world, "user.previous")));
    let row = status(&world, "user");
    assert_eq!(row["old_certificates"]["valid"], 1, "{row}");
    let old = by("old");
    rotate(&world, "user", &["--stage", "retire"])
        .exits(1)
        .says("1 identity certificate of the old user CA is still valid");
    rotate(&world, "user", &["--stage", "retire", "--force"])
        .exits(0)
        .prints_part(&format!("{old} is retired"));
    assert!(!has_certificate(&held), "ssh goes on with the plain key");
    assert!(has_certificate(&new));
    let refusal = |entry: &Value| {
        entry["reason"]
            .to_string()
            .contains("user CA that is retired")
    };
    let refusals = world.events("auth");
    assert!(refusals.iter().any(refusal), "{refusals:?}");
    assert!(world.proxy_log().contains("user CA that is retired"));
    // Nor is that an alarm: it was issued.
    assert!(!world.proxy_log().contains("ALARM"));
}

#[test]
fn a_node_that_knows_the_old_ca_alone_is_named_before_and_after_it_matters() {
    let mut world = World::usual();
    let carol = world.person("carol").clone();
    let mut session = Session::open(&carol, Way::Jump);
    stage(&world, "node", "announce").says("0 of 2 nodes are known");
    // Logins go on, and ask the node beside it, once.
    enters(&world, &carol);
    enters(&world, &carol);
    let row = |name: &str| {
        let row = status(&world, "node");
        let nodes = row["nodes"].as_array().unwrap();
        nodes
            .iter()
            .find(|node| node["name"] == name)
            .unwrap()
            .clone()
    };
    until("iot is asked", || row("iot")["refused"].is_string());
    until("the refusal is in its log", || {
        world.node("iot").log().contains("Certificate invalid")
            || world.node("iot").log().contains("Failed publickey")
    });
    assert_eq!(row("iot")["learnt"], false);
    assert_eq!(row("n2").get("refused"), None);
    let trials = |world: &World| {
        let of = |entry: &&Value| entry["name"] == "announced CA";
        world.events("cert.create").iter().filter(of).count()
    };
    assert_eq!(trials(&world), 1, "not at every login");
    stage(&world, "node", "sign");
    let new = fingerprint(&file(&world, "node"));
    let refused = carol.ssh(Way::Jump, &[], &target(), &["echo in"]).run();
    refused
        .exits(69)
        .says(&format!("may not trust the new node CA {new} yet"))
        .says("auth status");
    session.lives("sign");
    // Retiring would lock the proxy out.
    let refused = rotate(&world, "node", &["--stage", "retire"]);
    refused
        .exits(1)
        .says("2 nodes are not known to trust the new node CA: `iot`, `n2`")
        .says("--force");
    // Going back helps at once.
    stage(&world, "node", "rollback").prints_part(&format!("{new} is retired"));
    enters(&world, &carol);
    session.lives("rollback");
    // And with the new key on the nodes it goes on; what nodes have learnt survives a restart.
    stage(&world, "node", "announce");
    everybody_learns(&world);
    enters(&world, &carol);
    until("iot has learnt", || row("iot")["learnt"] == true);
    stage(&world, "node", "sign");
    enters(&world, &carol);
    rotate(&world, "node", &["--stage", "retire"])
        .exits(1)
        .says("1 node is not known to trust the new node CA: `n2`");
    drop(session);
    world.stop_proxy().exits(0);
    world.start_proxy();
    let n2 = format!("{}@n2", login());
    rotate(&world, "node", &[]).exits(1).says("`n2`");
    carol.ssh(Way::Jump, &[], &n2, &["echo in"]).run().exits(0);
    until("n2 has learnt", || {
        status(&world, "node")["nodes"][1]["learnt"] == true
    });
    rotate(&world, "node", &[])
        .exits(0)
        .says("auth export --type krl");
}

#[test]
fn force_retires_a_ca_that_nodes_still_need_and_the_emergency_key_is_the_one_that_signs() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    stage(&world, "node", "announce");
    stage(&world, "node", "sign");
    rotate(&world, "node", &["--stage", "retire", "--force"]).exits(0);
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(69);
    everybody_learns(&world);
    enters(&world, &carol);
    let key = fs::read_to_string(file(&world, "node.pub")).unwrap();
    let line = world.ctl(&["auth", "export", "--type", "node"]).text();
    assert_eq!(
        key.split(' ').nth(1).unwrap().trim(),
        line.split(' ').nth(1).unwrap().trim()
    );
}

#[test]
fn what_a_retired_node_ca_signed_is_in_the_revocation_list_that_sshd_and_ssh_keygen_read() {
    let mut world = World::usual();
    let carol = world.person("carol").clone();
    let uuid = world.node("iot").uuid.clone();
    // By hand, and long-lived: what a thief of the old key would make.
    let thief = world.stranger("thief", anteroom_tests::KeyType::Ed25519);
    Cmd::new("ssh-keygen")
        .args(["-q", "-I", "thief", "-V", "-1m:+1h", "-n"])
        .arg(format!("{}@{uuid}", login()))
        .arg("-s")
        .arg(file(&world, "node"))
        .arg(thief.public_key())
        .run()
        .exits(0);
    let certificate = thief.dir.join("id-cert.pub");
    let krl = world.path("krl");
    let export = |world: &World| {
        let printed = world.ctl(&["auth", "export", "--type", "krl"]);
        printed.exits(0);
        let draft = world.path("krl.new");
        fs::write(&draft, &printed.stdout).unwrap();
        fs::rename(&draft, &krl).unwrap();
    };
    let asked = || {
        Cmd::new("ssh-keygen")
            .args(["-Qf"])
            .arg(&krl)
            .arg(&certificate)
            .run()
    };
    export(&world);
    let lines = world.sshd_config("iot");
    let first = format!("RevokedKeys {}\n", krl.display());
    world.node_mut("iot").start(&first, &lines);
    let straight = |world: &World| {
        Cmd::new("ssh")
            .args(["-F", "none", "-i"])
            .arg(&thief.key)
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-p"])
            .arg(world.node("iot").port.to_string())
            .arg(format!("{}@127.0.0.1", login()))
            .arg("echo in")
            .run()
    };
    straight(&world).exits(0).prints("in\n");
    asked().exits(0);
    for step in ["announce", "sign"] {
        stage(&world, "node", step);
        everybody_learns(&world);
        export(&world);
        asked().exits(0);
        enters(&world, &carol);
    }
    rotate(&world, "node", &["--stage", "retire", "--force"]).exits(0);
    // The node still trusts both: the list alone refuses.
    export(&world);
    assert!(asked().text().contains("REVOKED"));
    straight(&world).exits(255);
    let log = world.node("iot").log();
    assert!(log.contains("revoked"), "{log}");
    enters(&world, &carol);
}

#[test]
fn a_rotation_is_taken_one_stage_after_the_other_by_who_may() {
    let mut world = World::usual();
    world.add_user("erin", "editor", anteroom_tests::KeyType::Ed25519);
    let (carol, erin) = (world.person("carol").clone(), world.person("erin").clone());
    for words in [
        &["auth", "rotate", "--type", "user"][..],
        &["auth", "status"],
    ] {
        carol.access(words).run().exits(77);
    }
    for (wrong, says) in [
        (
            "sign",
            "nothing to sign; `auth rotate --type user --stage announce` begins one",
        ),
        ("retire", "nothing to retire"),
        ("rollback", "nothing to rollback"),
    ] {
        rotate(&world, "user", &["--stage", wrong])
            .exits(1)
            .says(says);
    }
    erin.access(&["auth", "rotate", "--type", "user"])
        .run()
        .exits(0)
        .prints_part("is announced as the next user CA")
        .says("nothing has to be installed");
    // A second one while the first is under way.
    rotate(&world, "user", &["--stage", "announce"])
        .exits(1)
        .says("is under way")
        .says("`auth rotate --type user --stage sign` goes on")
        .says("--stage rollback` takes it back");
    rotate(&world, "user", &["--stage", "retire"]).exits(1);
    let text = world.ctl(&["auth", "status"]);
    text.exits(0)
        .prints_part("CA    Stage     Signs")
        .prints_part("user  announce  SHA256:")
        .prints_part("node  stable    SHA256:")
        .prints_part("Rotation of the user CA, `announce` since ");
    let yaml = world.ctl(&["auth", "status", "--format", "yaml"]);
    yaml.exits(0).prints_part("stage: announce");
    erin.access(&["auth", "status"]).run().exits(0);
    stage(&world, "user", "sign");
    for wrong in ["announce", "sign"] {
        rotate(&world, "user", &["--stage", wrong])
            .exits(1)
            .says("is trusted too")
            .says("--stage retire` ends it");
    }
    // Several at once: one of them is taken, and the others are told.
    let at_once: Vec<Proc> = (0..4)
        .map(|_| {
            world
                .ctl_cmd(&["auth", "rotate", "--type", "host", "--stage", "announce"])
                .start()
        })
        .collect();
    let ended: Vec<Finished> = at_once
        .into_iter()
        .map(|one| one.finish(PATIENCE))
        .collect();
    let taken = ended.iter().filter(|one| one.code() == Some(0)).count();
    assert_eq!(taken, 1, "{ended:?}");
    assert_eq!(status(&world, "host")["stage"], "announce");
}

#[test]
fn rollback_takes_everything_back_from_either_stage() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    for kind in KINDS {
        let before = fs::read(file(&world, kind)).unwrap();
        let exported = world.ctl(&["auth", "export", "--type", kind]).text();
        for steps in [&["announce"][..], &["announce", "sign"]] {
            for step in steps {
                stage(&world, kind, step);
            }
            stage(&world, kind, "rollback");
            assert_eq!(
                fs::read(file(&world, kind)).unwrap(),
                before,
                "{kind} {steps:?}"
            );
            assert_eq!(
                world.ctl(&["auth", "export", "--type", kind]).text(),
                exported
            );
            // Nobody has learnt anything, and everybody enters as before.
            enters(&world, &carol);
            let left = fs::read_dir(world.data_dir().join("ca")).unwrap().count();
            assert_eq!(left, 6, "{kind} {steps:?}");
        }
        assert_eq!(status(&world, kind)["retired"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn a_host_ca_is_retired_when_the_nodes_show_certificates_of_the_new_one() {
    let mut world = World::builder()
        .node(
            NodeConfig::new("iot")
                .labels("env=staging")
                .host_proof(HostProof::HostCa),
        )
        .user("alice", "requester")
        .user("bob", "reviewer")
        .user("carol", "access")
        .start();
    let carol = world.person("carol").clone();
    enters(&world, &carol);
    stage(&world, "host", "announce").says("config --part known_hosts");
    world.write_known_hosts();
    let lines = world.ctl(&["config", "--part", "known_hosts"]).text();
    assert_eq!(lines.lines().count(), 4, "two for each CA: {lines}");
    stage(&world, "host", "sign").says("0 of 1 nodes with a host certificate");
    // The node still shows one of the old CA, which is trusted.
    enters(&world, &carol);
    rotate(&world, "host", &[])
        .exits(1)
        .says("1 node is not known to show a certificate of the new host CA: `iot`");
    let key = world.node("iot").host_key(anteroom_tests::KeyType::Ed25519);
    let signed = world
        .ctl_cmd(&["nodes", "host-cert", "iot", "--key"])
        .arg(key.with_extension("pub"))
        .run();
    signed.exits(0);
    fs::write(key.with_file_name("host_ed25519-cert.pub"), &signed.stdout).unwrap();
    world.node_mut("iot").restart();
    enters(&world, &carol);
    until("iot shows the new one", || {
        status(&world, "host")["nodes"][0]["learnt"] == true
    });
    rotate(&world, "host", &[]).exits(0);
    world.write_known_hosts();
    let lines = fs::read_to_string(world.known_hosts()).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    enters(&world, &carol);
}

#[test]
fn killed_at_any_moment_of_a_rotation_the_next_start_goes_on_from_there() {
    let mut world = World::usual();
    let carol = world.person("carol").clone();
    let whole = Instant::now();
    rotate(&world, "user", &[]).exits(0);
    let whole = whole.elapsed();
    rotate(&world, "user", &["--stage", "rollback"]).exits(0);
    for round in 0..12 {
        let kind = KINDS[round % 3];
        let rotating = world
            .ctl_cmd(&["auth", "rotate", "--type", kind, "--force"])
            .start();
        // The moment is what varies: from before the command is read to after it is done.
        std::thread::sleep(whole * u32::try_from(round).unwrap() / 10);
        world.kill_proxy();
        drop(rotating);
        world.start_proxy();
        let row = status(&world, kind);
        assert_eq!(row["signing"], fingerprint(&file(&world, kind)), "{row}");
        everybody_learns(&world);
        enters(&world, &carol);
        Cmd::new(anteroom_tests::anteroom())
            .args(["doctor", "--data-dir"])
            .arg(world.data_dir())
            .run()
            .exits(0);
    }
}

#[test]
fn a_new_ca_is_under_the_passphrase_of_the_old_one() {
    let mut world = World::usual();
    world.stop_proxy().exits(0);
    let pass = world.path("ca.pass");
    fs::write(&pass, "open sesame\n").unwrap();
    fs::set_permissions(&pass, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for kind in KINDS {
        Cmd::new("ssh-keygen")
            .args(["-q", "-p", "-P", "", "-N", "open sesame", "-f"])
            .arg(file(&world, kind))
            .run()
            .exits(0);
    }
    world.set_config(&format!("ca_passphrase_file: {}\n", pass.display()));
    world.start_proxy();
    let carol = world.person("carol").clone();
    let opens = |name: &str, passphrase: &str| {
        let read = Cmd::new("ssh-keygen")
            .args(["-y", "-P", passphrase, "-f"])
            .arg(file(&world, name))
            .run();
        read.code() == Some(0)
    };
    stage(&world, "node", "announce");
    assert!(opens("node.next", "open sesame") && !opens("node.next", ""));
    stage(&world, "node", "sign");
    assert!(opens("node", "open sesame") && !opens("node", ""));
    everybody_learns(&world);
    enters(&world, &carol);
    world.stop_proxy().exits(0);
    world.start_proxy();
    enters(&world, &carol);
    stage(&world, "node", "rollback");
    world.sshd_config("iot");
    enters(&world, &carol);
}
