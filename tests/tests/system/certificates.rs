//! Identity certificates in people's hands: `login`, what they open by every path, `request drop`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anteroom_tests::{
    Cmd, Finished, KeyType, PATIENCE, Person, Proc, Way, World, login, request_id,
};

fn target(node: &str) -> String {
    format!("{}@{node}", login())
}

/// Where this person's `ssh_config` looks for the certificate.
fn certificate(person: &Person) -> PathBuf {
    person.dir.join("anteroom-cert.pub")
}

/// Adds the line that `config` prints to the person's `ssh_config`.
fn with_certificate_file(person: &Person) {
    let config = fs::read_to_string(person.config()).unwrap();
    let line = format!("  CertificateFile {}\n", certificate(person).display());
    fs::write(person.config(), config + &line).unwrap();
}

/// Puts what a command printed into the file, as `c=$(…) && printf '%s\n' "$c" > FILE` does.
#[track_caller]
fn keep(person: &Person, printed: &Finished) -> String {
    printed.exits(0);
    let text = printed.text();
    assert_eq!(text.lines().count(), 1, "the certificate alone: {printed}");
    assert!(text.contains("-cert-v01@openssh.com "), "{printed}");
    fs::write(certificate(person), &text).unwrap();
    listed(person)
}

/// What `ssh-keygen -L` says of the certificate.
fn listed(person: &Person) -> String {
    let shown = Cmd::new("ssh-keygen")
        .args(["-L", "-f"])
        .arg(certificate(person))
        .env("TZ", "UTC")
        .run();
    shown.exits(0);
    shown.text()
}

fn line<'a>(listed: &'a str, label: &str) -> &'a str {
    let found = listed.lines().find(|line| line.trim().starts_with(label));
    found
        .unwrap_or_else(|| panic!("no {label} in\n{listed}"))
        .trim()
}

fn until(listed: &str) -> &str {
    line(listed, "Valid:").rsplit_once(" to ").unwrap().1
}

/// Alice has a request for iot approved and holds the certificate for it.
fn elevated(world: &World) -> (Person, String, String) {
    let alice = world.person("alice").clone();
    let id = world.granted("iot");
    let printed = alice.access(&["login", "--request-id", &id]).run();
    let listed = keep(&alice, &printed);
    with_certificate_file(&alice);
    (alice, id, listed)
}

#[test]
fn a_login_prints_the_certificate_alone_and_openssh_presents_it_from_then_on() {
    let world = World::usual();
    let carol = world.person("carol").clone();
    let printed = carol.access(&["login"]).run();
    let text = keep(&carol, &printed);
    assert!(
        printed.stderr.contains("Logged in as:      carol"),
        "{printed}"
    );
    assert!(text.contains("role=access@anteroom"), "{text}");
    with_certificate_file(&carol);
    for way in Way::BOTH {
        let said = carol.ssh(way, &[], &target("iot"), &["echo in"]).run();
        said.exits(0).prints("in\n");
    }
    let status = carol.access(&["status"]).run();
    status.exits(0).prints_part("[valid for 11h");
    let serial = line(&text, "Serial:").split_once(' ').unwrap().1.to_owned();
    let logins = world.events("user.login");
    let by_certificate = logins
        .iter()
        .filter(|entry| entry["serial"].to_string().contains(&serial));
    assert_eq!(by_certificate.count(), 3, "{logins:?}");
    // It was issued before it was seen.
    let issued = world.events("cert.create");
    assert!(
        issued
            .iter()
            .any(|entry| entry["serial"].to_string().contains(&serial)),
        "{issued:?}"
    );
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn restricted_means_restricted_by_every_path_until_it_is_dropped() {
    let world = World::usual();
    let (alice, id, before) = elevated(&world);
    assert!(
        before.contains(&format!("request={id}@anteroom")),
        "{before}"
    );
    let status = alice.access(&["status"]).run();
    status
        .exits(0)
        .prints_part(&id)
        .prints_part("Allowed Resources:");
    for way in Way::BOTH {
        let inside = alice.ssh(way, &[], &target("iot"), &["echo in"]).run();
        inside.exits(0).prints("in\n");
        let outside = alice.ssh(way, &[], &target("n2"), &["echo in"]).run();
        outside.exits(77);
        let sentence = "not in the allowed resources of your certificate; drop the request with";
        assert!(outside.stderr.contains(sentence), "{outside}");
        let shell = alice.ssh(way, &["-tt"], &target("n2"), &[]).run();
        shell.exits(77);
        let forward = alice
            .ssh(way, &["-W", "127.0.0.1:1"], &target("n2"), &[])
            .run();
        assert_ne!(forward.code(), Some(0), "{forward}");
    }
    for (program, options) in [
        ("scp", &["-O"][..]),
        ("scp", &["-s"]),
        ("sftp", &["-b", "/dev/null"]),
    ] {
        for (node, works) in [("iot", true), ("n2", false)] {
            let there = world.path(&format!("copied-{node}"));
            let mut copy = alice.client(program).args(options).args(["-J", "access"]);
            copy = match program {
                "scp" => copy.arg(alice.public_key()).arg(format!(
                    "{}:{}",
                    target(node),
                    there.display()
                )),
                _ => copy.arg(target(node)),
            };
            let copied = copy.run();
            assert_eq!(
                copied.code() == Some(0),
                works,
                "{program} {node}: {copied}"
            );
        }
    }
    let shown = alice.access(&["ls"]).run();
    shown.exits(0).prints_part("iot");
    assert!(!shown.text().contains("n2"), "{shown}");
    let asked = alice
        .access(&[
            "request",
            "create",
            "--nowait",
            "--reason=x",
            "--resource",
            "n2",
        ])
        .run();
    asked.exits(77);

    let dropped = alice.access(&["request", "drop"]).run();
    let after = keep(&alice, &dropped);
    assert!(
        dropped
            .stderr
            .contains("Dropping all active access requests..."),
        "{dropped}"
    );
    assert_eq!(until(&before), until(&after), "the very same end");
    assert_eq!(line(&before, "Public key:"), line(&after, "Public key:"));
    assert_ne!(line(&before, "Serial:"), line(&after, "Serial:"));
    assert!(!after.contains("allowed-resources"), "{after}");
    // Standing roles are back: she may ask again, and nothing of the request works.
    let options = ["-o", "SetEnv ANTEROOM_WAIT=0"];
    for node in ["n2", "iot"] {
        let asks = alice
            .ssh(Way::OneHop, &options, &target(node), &["echo in"])
            .run();
        asks.exits(75);
    }
    // Taken up again, it ends when the presented certificate does, at the latest.
    let again = alice.access(&["login", "--request-id", &id]).run();
    let again = keep(&alice, &again);
    assert!(until(&again) <= until(&after), "{again}");
    alice
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .run()
        .exits(0);
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn a_connection_that_asks_under_a_certificate_continues_and_no_other_is_let_in_by_it() {
    let world = World::usual();
    let alice = world.person("alice").clone();
    keep(&alice, &alice.access(&["login"]).run());
    with_certificate_file(&alice);
    for way in Way::BOTH {
        let held = alice.ssh(way, &[], &target("iot"), &["echo in"]).start();
        let id = request_id(&held.expect_err("Reviewers:"));
        world.approve(&id);
        held.finish(PATIENCE).exits(0).prints("in\n");
        // The certificate itself does not carry it.
        let options = ["-o", "SetEnv ANTEROOM_WAIT=0"];
        let later = alice.ssh(way, &options, &target("iot"), &["echo in"]).run();
        later.exits(75);
        assert!(later.stderr.contains("login --request-id"), "{later}");
        for request in world.requests() {
            if request["state"] == "PENDING" {
                let id = request["id"].as_str().unwrap().to_owned();
                alice.access(&["request", "cancel", &id]).run().exits(0);
            }
        }
    }
}

const DBA: &str = "
kind: role
version: v8
metadata: {name: dba}
spec:
  allow:
    logins: ['{{internal.logins}}']
    node_labels: {env: prod}
---
kind: role
version: v8
metadata: {name: asks-for-dba}
spec:
  allow:
    request: {roles: [dba]}
---
kind: role
version: v8
metadata: {name: judges-dba}
spec:
  allow:
    review_requests: {roles: [dba]}
";

#[test]
fn a_login_asks_for_roles_waits_and_prints_the_certificate_when_they_are_approved() {
    let world = World::with_nodes()
        .documents(DBA)
        .user("dora", "asks-for-dba")
        .user("judy", "judges-dba")
        .start();
    let dora = world.person("dora").clone();
    let judy = world.person("judy").clone();
    let roles = [
        "login",
        "--request-roles",
        "dba",
        "--request-reason",
        "ticket",
    ];
    let left = dora
        .access(&[&roles[..], &["--request-nowait"]].concat())
        .run();
    // The certificate comes at once, without what is only asked for.
    left.exits(0).prints_part("-cert-v01@openssh.com ");
    assert_eq!(world.requests()[0]["state"], "PENDING");
    let waiting = dora.access(&roles).start();
    waiting.expect_err("Waiting for request approval");
    let pending = world.requests();
    let id = pending[0]["id"].as_str().unwrap().to_owned();
    judy.access(&["request", "review", &id, "--approve"])
        .run()
        .exits(0);
    let text = keep(&dora, &waiting.finish(PATIENCE));
    for shown in ["role=dba@anteroom", &format!("request={id}@anteroom")] {
        assert!(text.contains(shown), "{text}");
    }
    assert!(!text.contains("allowed-resources"), "{text}");
    with_certificate_file(&dora);
    dora.ssh(Way::Jump, &[], &target("n2"), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
    // What was approved is taken away: at once, though the certificate still names it.
    world.ctl(&["requests", "rm", &id]).exits(0);
    let options = ["-o", "SetEnv ANTEROOM_WAIT=0"];
    let after = dora
        .ssh(Way::Jump, &options, &target("n2"), &["echo in"])
        .run();
    assert_ne!(after.code(), Some(0), "{after}");
}

#[test]
fn a_dropped_certificate_is_revoked_also_on_a_connection_that_it_opened() {
    let world = World::usual();
    let (alice, _, _) = elevated(&world);
    let old = fs::read(certificate(&alice)).unwrap();
    let socket = world.path("cm");
    let master = format!("ControlPath={}", socket.display());
    let held = alice
        .client("ssh")
        .args(["-M", "-N", "-o", &master])
        .arg(format!("{}@access", target("iot")))
        .start();
    let through = |command: &str| {
        let mut ssh = alice.client("ssh").args(["-o", &master]);
        ssh = ssh.arg(format!("{}@access", target("iot"))).arg(command);
        ssh.run()
    };
    for _ in 0..100 {
        if socket.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    through("echo in").exits(0).prints("in\n");
    keep(&alice, &alice.access(&["request", "drop"]).run());
    let refused = through("echo in");
    refused.exits(77);
    assert!(
        refused.stderr.contains("your certificate is revoked"),
        "{refused}"
    );
    drop(held);
    // Presented anew it is refused, and the plain key beside it has dropped the request as well.
    fs::write(certificate(&alice), old).unwrap();
    let status = alice.access(&["status"]).run();
    status.exits(0);
    assert!(!status.text().contains("Allowed Resources"), "{status}");
    let refusals = world.events("auth");
    let revoked = refusals
        .iter()
        .any(|entry| entry["reason"].to_string().contains("revoked"));
    assert!(revoked, "{refusals:?}");
}

/// Signs a certificate for carol with the user CA's file, as a thief would.
fn by_hand(world: &World, public_key: &std::path::Path) {
    Cmd::new("ssh-keygen")
        .arg("-q")
        .arg("-s")
        .arg(world.data_dir().join("ca/user"))
        .args(["-I", "carol", "-n", "carol", "-z", "7", "-V", "-1m:+1h"])
        .arg(public_key)
        .run()
        .exits(0);
}

#[test]
fn a_certificate_by_the_cas_own_key_that_was_never_issued_is_an_alarm() {
    let world = World::usual();
    let mallory = world
        .person("alice")
        .with_new_key("stolen", KeyType::Ed25519);
    by_hand(&world, &mallory.public_key());
    let refused = mallory.access(&["status"]).run();
    refused.exits(255);
    assert!(refused.stderr.contains("Permission denied"), "{refused}");
    // For a key that is registered the certificate itself is looked at.
    let carol = world.person("carol").clone();
    by_hand(&world, &carol.public_key());
    fs::rename(carol.dir.join("id-cert.pub"), certificate(&carol)).unwrap();
    with_certificate_file(&carol);
    // ssh offers the certificate, and then the key.
    carol
        .access(&["status"])
        .run()
        .exits(0)
        .prints_part("your roles or key change");
    let alarms = world.events("auth");
    let alarm = alarms
        .iter()
        .find(|entry| entry["reason"].to_string().contains("ALARM"));
    let alarm = alarm.unwrap_or_else(|| panic!("no alarm among {alarms:?}"));
    assert!(alarm["serial"].to_string().contains('7'), "{alarm}");
    assert!(world.proxy_log().contains("was never issued here"));
}

#[test]
fn what_the_plain_key_set_aside_is_shown_as_such_and_ended_for_good_by_the_certificate() {
    let world = World::usual();
    let (alice, id, _) = elevated(&world);
    let aside = world.path("aside");
    fs::rename(certificate(&alice), &aside).unwrap();
    alice.access(&["request", "drop", &id]).run().exits(0);
    fs::rename(&aside, certificate(&alice)).unwrap();
    let status = alice.access(&["status"]).run();
    status
        .exits(0)
        .prints_part(&format!(
            "Not in effect:     {id} (set aside; `ssh access login --request-id {id}` takes it up again)"
        ))
        .prints_part("Allowed Resources:");
    assert!(!status.text().contains("Active requests"), "{status}");
    let ended = alice.access(&["request", "drop", "--end", &id]).run();
    keep(&alice, &ended);
    assert_ne!(world.state(&id), "APPROVED");
    let again = alice.access(&["login", "--request-id", &id]).run();
    assert_ne!(again.code(), Some(0), "{again}");
}

#[test]
fn what_cannot_be_had_is_refused_with_its_reason_and_prints_no_certificate() {
    let world = World::usual();
    let alice = world.person("alice").clone();
    let carol = world.person("carol").clone();
    let id = world.granted("iot");
    for (person, words, code) in [
        (&carol, vec!["login", "--request-id", &id], 66),
        (&alice, vec!["login", "--request-id", "00000000"], 66),
        (&alice, vec!["login", "--ttl", "0s"], 64),
    ] {
        let refused = person.access(&words).run();
        assert_ne!(refused.code(), Some(0), "{words:?}: {refused}");
        assert_eq!(refused.text(), "", "{words:?}");
        if code != 64 {
            refused.exits(code);
        }
    }
    world.ctl(&["users", "lock", "alice"]).exits(0);
    let locked = alice.access(&["login"]).run();
    locked.exits(77);
    assert_eq!(locked.text(), "");
}

const TUNNELS: &str = "kind: role\nmetadata: {name: tunnels}\nspec:\n  options: {port_forwarding: true}\n  \
                       allow: {logins: ['{{internal.logins}}'], node_labels: {'*': '*'}}\n\
                       ---\nkind: role\nmetadata: {name: asker}\nspec: {allow: {request: {search_as_roles: [tunnels]}}}\n\
                       ---\nkind: role\nmetadata: {name: judge}\nspec: {allow: {review_requests: {roles: [tunnels]}}}\n";

/// A session on iot, and a listener there that leads back.
fn session_and_listener(world: &World, person: &Person, way: Way) -> (Proc, Proc, u16) {
    let session = person
        .ssh(way, &[], &target("iot"), &["echo in; exec sleep 600"])
        .start();
    session.expect_out("in\n");
    let port = anteroom_tests::free_port();
    let back = format!("{port}:127.0.0.1:{}", world.node("iot").port);
    let tunnel = person
        .ssh(way, &["-N", "-R", &back], &target("iot"), &[])
        .start();
    let mut through = crate::forward::connect(port);
    let banner = crate::forward::read_line(&mut through);
    assert!(banner.starts_with("SSH-2.0-"), "{banner}");
    (session, tunnel, port)
}

fn is_silent_soon(port: u16) {
    let until = std::time::Instant::now() + anteroom_tests::PROMPTLY;
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(
            std::time::Instant::now() < until,
            "port {port} still answers"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn sessions_and_listeners_end_with_the_certificate_that_they_rest_on() {
    let world = World::with_nodes()
        .documents(TUNNELS)
        .user("dora", "tunnels")
        .start();
    let dora = world.person("dora").clone();
    with_certificate_file(&dora);
    for way in Way::BOTH {
        let printed = dora.access(&["login", "--ttl", "8s"]).run();
        keep(&dora, &printed);
        let (session, _tunnel, port) = session_and_listener(&world, &dora, way);
        let ended = session.finish(PATIENCE);
        ended.exits(77).says("certificate has ended");
        is_silent_soon(port);
        fs::remove_file(certificate(&dora)).unwrap();
    }
}

#[test]
fn sessions_and_listeners_end_when_their_request_is_dropped_from_the_certificate() {
    let world = World::with_nodes()
        .documents(TUNNELS)
        .user("erin", "asker")
        .user("frank", "judge")
        .start();
    let erin = world.person("erin").clone();
    let asked = erin
        .access(&["request", "create", "--resource", "iot", "--nowait"])
        .run();
    let id = request_id(&asked.text());
    let approve = ["request", "review", &id, "--approve"];
    world.person("frank").access(&approve).run().exits(0);
    with_certificate_file(&erin);
    for way in Way::BOTH {
        let printed = erin.access(&["login", "--request-id", &id]).run();
        keep(&erin, &printed);
        let (session, _tunnel, port) = session_and_listener(&world, &erin, way);
        let dropped = erin.access(&["request", "drop"]).run();
        keep(&erin, &dropped);
        is_silent_soon(port);
        session.finish(PATIENCE).exits(77).says("revoked");
        fs::remove_file(certificate(&erin)).unwrap();
    }
}
