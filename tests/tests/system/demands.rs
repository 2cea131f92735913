//! What roles demand of the way somebody comes: `require_certificate` and `pin_source_ip`.

use std::fs;
use std::path::PathBuf;

use anteroom_tests::{Cmd, Finished, PATIENCE, Person, Way, World, login, request_id};

use crate::revoke::{ends_when, live, target};

fn role(name: &str, options: &str) -> String {
    format!(
        "kind: role\nmetadata: {{name: {name}}}\nspec:\n  options: {{{options}}}\n  \
         allow: {{logins: ['{{{{internal.logins}}}}'], node_labels: {{'*': '*'}}}}\n"
    )
}

fn certificate(person: &Person) -> PathBuf {
    person.dir.join("anteroom-cert.pub")
}

/// Adds the line that `config` prints, and writes down what `login` printed.
fn keep(person: &Person, printed: &Finished) {
    fs::write(certificate(person), printed.exits(0).text()).unwrap();
    let config = fs::read_to_string(person.config()).unwrap();
    let line = format!("  CertificateFile {}\n", certificate(person).display());
    if !config.contains(&line) {
        fs::write(person.config(), config + &line).unwrap();
    }
}

fn listed(person: &Person) -> String {
    let shown = Cmd::new("ssh-keygen")
        .args(["-L", "-f"])
        .arg(certificate(person))
        .run();
    shown.exits(0);
    shown.text()
}

const SENTENCE: &str = "demands a certificate, and you came with a plain key, to which ssh falls back \
                        when a certificate has ended or is refused; log in with `c=$(ssh access login)";

#[test]
fn where_a_role_demands_a_certificate_a_plain_key_is_good_for_getting_one_alone() {
    let world = World::with_nodes()
        .documents(&role("strict", "require_certificate: true"))
        .user("dora", "strict,editor")
        .start();
    let dora = world.person("dora").clone();
    for way in Way::BOTH {
        let refused = dora.ssh(way, &[], &target(), &["echo in"]).run();
        refused.exits(77).prints("").says(SENTENCE);
        let forward = dora.ssh(way, &["-W", "127.0.0.1:1"], &target(), &[]).run();
        assert_ne!(forward.code(), Some(0), "{forward}");
    }
    for words in [
        &["ls"][..],
        &["users", "ls"],
        &["lock", "--user", "alice"],
        &["requests", "ls"],
        &["request", "approve", "00000000", "--reason=no"],
        &["request", "deny", "00000000", "--reason=no"],
        &["audit", "ls"],
        &["get", "role"],
        &["cert", "root@iot"],
    ] {
        let refused = dora.access(words).run();
        refused.exits(77).prints("").says(SENTENCE);
    }
    for words in [
        &["whoami"][..],
        &["status"],
        &["help"],
        &["version"],
        &["request", "ls"],
        &["config"],
    ] {
        dora.access(words).run().exits(0);
    }
    let told = dora.access(&["explain", &target()]).run();
    assert!(
        (told.text() + &told.stderr).contains("demands a certificate"),
        "{told}"
    );
    keep(&dora, &dora.access(&["login"]).run());
    for way in Way::BOTH {
        let entered = dora.ssh(way, &[], &target(), &["echo in"]).run();
        entered.exits(0).prints("in\n");
    }
    dora.access(&["users", "ls"]).run().exits(0);
    dora.access(&["ls"]).run().exits(0).prints_part("iot");
}

#[test]
fn when_the_certificate_has_ended_ssh_falls_back_and_is_told_what_to_type() {
    let world = World::with_nodes()
        .documents(&role("strict", "require_certificate: true"))
        .user("dora", "strict")
        .start();
    let dora = world.person("dora").clone();
    keep(&dora, &dora.access(&["login", "--ttl", "6s"]).run());
    let session = live(&world, "dora", Way::OneHop);
    let ended = session.finish(PATIENCE);
    ended.exits(77).says("certificate has ended");
    let refused = dora.ssh(Way::Jump, &[], &target(), &["echo in"]).run();
    refused.exits(77).prints("").says(SENTENCE);
    // And so it is got again.
    keep(&dora, &dora.access(&["login"]).run());
    let entered = dora.ssh(Way::Jump, &[], &target(), &["echo in"]).run();
    entered.exits(0).prints("in\n");
}

#[test]
fn a_role_that_begins_to_demand_a_certificate_ends_what_came_without() {
    let world = World::with_nodes()
        .documents(&role("strict", "require_certificate: true"))
        .user("carol", "access")
        .start();
    for way in Way::BOTH {
        let session = live(&world, "carol", way);
        let update = |roles: &str| {
            let done = world.ctl(&["users", "update", "carol", "--roles", roles]);
            done.exits(0);
        };
        ends_when(
            session,
            || update("access,strict"),
            &["demands a certificate"],
        );
        update("access");
    }
}

#[test]
fn a_connection_asks_for_nothing_that_it_could_not_use() {
    let world = World::with_nodes()
        .documents(&role("strict", "require_certificate: true"))
        .documents(
            "kind: role\nmetadata: {name: asker}\nspec: {allow: {request: {search_as_roles: [strict]}}}\n\
             ---\nkind: role\nmetadata: {name: judge}\nspec: {allow: {review_requests: {roles: [strict]}}}\n",
        )
        .user("erin", "asker")
        .user("frank", "judge")
        .start();
    let erin = world.person("erin").clone();
    let refused = erin.ssh(Way::OneHop, &[], &target(), &["true"]).run();
    refused.exits(77).says(SENTENCE);
    assert_eq!(world.requests().len(), 0);
    keep(&erin, &erin.access(&["login"]).run());
    let waiting = erin.ssh(Way::Jump, &[], &target(), &["echo in"]).start();
    waiting.expect_err("Waiting for request approval");
    let id = request_id(&waiting.err.text());
    let frank = world.person("frank");
    let approved = frank.access(&["request", "review", &id, "--approve"]).run();
    approved.exits(0);
    waiting.finish(PATIENCE).exits(0).prints("in\n");
    // Asked for beforehand it is not open to the plain key either.
    fs::remove_file(certificate(&erin)).unwrap();
    let refused = erin.ssh(Way::OneHop, &[], &target(), &["true"]).run();
    refused.exits(77).says(SENTENCE);
}

#[test]
fn a_pinned_certificate_opens_nothing_from_another_address_and_stays_pinned() {
    let world = World::with_nodes()
        .documents(&role("pinned", "pin_source_ip: true, require_certificate: true"))
        .documents(&role("dba", ""))
        .documents(
            "kind: role\nmetadata: {name: asker}\nspec: {allow: {request: {roles: [dba]}}}\n\
             ---\nkind: role\nmetadata: {name: judge}\nspec: {allow: {review_requests: {roles: [dba]}}}\n",
        )
        .user("gina", "pinned,asker")
        .user("frank", "judge")
        .start();
    let gina = world.person("gina").clone();
    let from = |address: &str, words: &[&str]| {
        let client = gina.client("ssh").args(["-b", address, "access"]);
        client.args(words).run()
    };
    let enters = |address: &str| {
        let there = format!("{}@iot@access", login());
        let client = gina.client("ssh").args(["-b", address, &there]);
        client.arg("echo in").run()
    };
    let asked = from(
        "127.0.0.2",
        &["request", "create", "--roles", "dba", "--nowait"],
    );
    let id = request_id(&asked.text());
    let frank = world.person("frank");
    let approved = frank.access(&["request", "review", &id, "--approve"]).run();
    approved.exits(0);
    keep(&gina, &from("127.0.0.2", &["login", "--request-id", &id]));
    let is_pinned = |listed: &str| {
        assert!(listed.contains("source-address 127.0.0.2/32"), "{listed}");
        assert!(listed.contains("login-ip@anteroom"), "{listed}");
    };
    is_pinned(&listed(&gina));
    enters("127.0.0.2").exits(0).prints("in\n");
    enters("127.0.0.1").exits(77).prints("").says(SENTENCE);
    let reasons = world.events("auth");
    let why = "it is pinned to another address than 127.0.0.1";
    assert!(
        reasons
            .iter()
            .any(|e| e["reason"].to_string().contains(why)),
        "{reasons:?}"
    );
    assert!(world.proxy_log().contains(why));
    // Renewed and dropped, it stays where it was.
    keep(&gina, &from("127.0.0.2", &["login"]));
    is_pinned(&listed(&gina));
    keep(&gina, &from("127.0.0.2", &["request", "drop"]));
    is_pinned(&listed(&gina));
    enters("127.0.0.3").exits(77);
    enters("127.0.0.2").exits(0);
    // Elsewhere she begins anew, with her key: it is another login.
    keep(&gina, &from("127.0.0.3", &["login"]));
    enters("127.0.0.3").exits(0);
}

#[test]
fn a_certificate_from_before_the_pin_was_demanded_opens_nothing_until_it_is_renewed() {
    let world = World::with_nodes()
        .documents(&role("later", ""))
        .user("gina", "later")
        .start();
    let gina = world.person("gina").clone();
    keep(&gina, &gina.access(&["login"]).run());
    let ends = |listed: &str| {
        let line = listed.lines().find(|line| line.contains("Valid:")).unwrap();
        line.rsplit_once(" to ").unwrap().1.to_owned()
    };
    let before = listed(&gina);
    let session = live(&world, "gina", Way::Jump);
    let change = || {
        let done = world.replace(&role("later", "pin_source_ip: true"));
        done.exits(0);
    };
    ends_when(session, change, &["pinned to your address"]);
    let refused = gina.ssh(Way::OneHop, &[], &target(), &["true"]).run();
    refused
        .exits(77)
        .says("pinned to your address, and yours is not");
    keep(&gina, &gina.access(&["login"]).run());
    assert_eq!(ends(&before), ends(&listed(&gina)));
    let entered = gina.ssh(Way::OneHop, &[], &target(), &["true"]).run();
    entered.exits(0);
}
