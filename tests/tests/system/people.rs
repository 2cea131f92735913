//! Who may ask, who may review, and what an approval gives: the people's side of requests.

use anteroom_tests::{KeyType, PATIENCE, Way, World, login, request_id};

fn target(node: &str) -> String {
    format!("{}@{node}", login())
}

/// Alice's pending request for the usual login on iot.
fn pending(world: &World, who: &str) -> String {
    let created = world
        .person(who)
        .access(&[
            "request",
            "create",
            "--nowait",
            "--reason=work",
            "--resource",
            "iot",
        ])
        .run();
    request_id(&(created.text() + &created.stderr))
}

#[test]
fn nobody_approves_a_request_of_their_own_by_any_path() {
    let world = World::with_nodes()
        .user("both", "requester,reviewer")
        .user("root-admin", "requester,reviewer,editor")
        .start();
    for name in ["both", "root-admin"] {
        let id = pending(&world, name);
        let person = world.person(name).clone();
        person
            .access(&["request", "review", &id, "--approve"])
            .run()
            .exits(77);
        person.access(&["requests", "approve", &id]).run().exits(77);
        // By a second key, and under another name.
        let other = person.with_new_key("second", KeyType::Rsa);
        world
            .ctl_cmd(&["users", "update", name, "--add-key"])
            .arg(other.public_key())
            .run()
            .exits(0);
        other
            .access(&["request", "review", &id, "--approve"])
            .run()
            .exits(77);
        assert_eq!(world.state(&id), "PENDING");
        assert!(world.request(&id)["reviews"].as_array().unwrap().is_empty());
        world.approve(&id);
        assert_eq!(world.state(&id), "APPROVED");
    }
}

#[test]
fn only_reviewers_of_every_role_in_the_request_may_review() {
    let world = World::usual();
    let id = pending(&world, "alice");
    for name in ["alice", "carol"] {
        world
            .person(name)
            .access(&["request", "review", &id, "--approve"])
            .run()
            .exits(77);
        assert_eq!(world.state(&id), "PENDING", "{name}");
    }
    world.approve(&id);
}

#[test]
fn a_request_that_was_answered_cannot_be_answered_again() {
    let world = World::usual();
    let id = pending(&world, "alice");
    world.deny(&id, "no");
    let again = world.review(&id, &["--approve"]);
    assert_ne!(again.code(), Some(0), "{again}");
    assert_eq!(world.state(&id), "DENIED", "a denial is final");
    world
        .person("alice")
        .ssh(
            Way::Jump,
            &["-o", "SetEnv=ANTEROOM_WAIT=0"],
            &target("iot"),
            &["true"],
        )
        .run()
        .exits(75);
    assert_eq!(world.requests().len(), 2, "the next attempt asks anew");
}

#[test]
fn two_reviewers_at_once_make_one_grant() {
    let world = World::with_nodes().user("ben", "reviewer").start();
    let id = pending(&world, "alice");
    let running: Vec<_> = ["bob", "ben"]
        .iter()
        .map(|name| {
            let verdict = if *name == "bob" {
                "--approve"
            } else {
                "--deny"
            };
            world
                .person(name)
                .access(&["request", "review", &id, verdict])
                .start()
        })
        .collect();
    let done = running
        .into_iter()
        .map(|proc| proc.finish(PATIENCE))
        .collect::<Vec<_>>();
    let wins = done
        .iter()
        .filter(|finished| finished.code() == Some(0))
        .count();
    assert_eq!(wins, 1, "{done:#?}");
    let state = world.state(&id);
    let winner = done
        .iter()
        .find(|finished| finished.code() == Some(0))
        .unwrap();
    assert!(winner.text().contains(&state), "{state}: {winner}");
}

#[test]
fn a_threshold_of_two_needs_two_persons_not_two_reviews() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nversion: v7\nmetadata: {name: two-eyes}\nspec:\n  allow:\n    request:\n      \
             search_as_roles: [access]\n      thresholds: [{approve: 2, deny: 1}]\n",
        )
        .user("dora", "two-eyes")
        .user("ben", "reviewer")
        .start();
    let held = world
        .person("dora")
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .start();
    let id = request_id(&held.expect_err("Waiting for request approval..."));
    world
        .review(&id, &["--approve"])
        .exits(0)
        .prints_part("Request state: PENDING");
    let twice = world.review(&id, &["--approve"]);
    assert!(!twice.text().contains("APPROVED"), "{twice}");
    assert_eq!(world.state(&id), "PENDING");
    world
        .person("ben")
        .access(&["request", "review", &id, "--approve"])
        .run()
        .exits(0)
        .prints_part("Request state: APPROVED");
    held.finish(PATIENCE).exits(0).prints("in\n");
}

#[test]
fn a_request_for_one_node_opens_no_other() {
    let world = World::usual();
    world.granted("iot");
    let alice = world.person("alice");
    for way in Way::BOTH {
        alice
            .ssh(way, &[], &target("iot"), &["echo in"])
            .run()
            .exits(0)
            .prints("in\n");
        alice
            .ssh(
                way,
                &["-o", "SetEnv=ANTEROOM_WAIT=0"],
                &target("n2"),
                &["echo in"],
            )
            .run()
            .exits(75)
            .prints("");
    }
}

#[test]
fn a_grant_belongs_to_the_key_that_asked_until_another_assumes_it() {
    let world = World::usual();
    let alice = world.person("alice");
    let other = alice.with_new_key("second", KeyType::Ed25519);
    world
        .ctl_cmd(&["users", "update", "alice", "--add-key"])
        .arg(other.public_key())
        .run()
        .exits(0);
    let id = world.granted("iot");
    other
        .ssh(
            Way::Jump,
            &["-o", "SetEnv=ANTEROOM_WAIT=0"],
            &target("iot"),
            &["echo in"],
        )
        .run()
        .exits(75)
        .prints("");
    other.access(&["request", "assume", &id]).run().exits(0);
    other
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
    alice
        .ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
}

#[test]
fn nobody_assumes_or_cancels_or_drops_what_is_somebody_elses() {
    let world = World::usual();
    let id = world.granted("iot");
    for words in [
        ["request", "assume", &id],
        ["request", "cancel", &id],
        ["request", "drop", &id],
    ] {
        let refused = world.person("carol").access(&words).run();
        assert_ne!(refused.code(), Some(0), "{refused}");
    }
    assert_eq!(world.state(&id), "APPROVED");
    world
        .person("alice")
        .ssh(Way::Jump, &[], &target("iot"), &["true"])
        .run()
        .exits(0);
}

#[test]
fn standing_access_stays_beside_a_request() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nversion: v7\nmetadata: {name: staging}\nspec:\n  allow:\n    logins: ['{{internal.logins}}']\n    \
             node_labels: {env: staging}\n    request: {search_as_roles: [access]}\n",
        )
        .user("dora", "staging")
        .start();
    let dora = world.person("dora");
    dora.ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
    let held = dora
        .ssh(Way::OneHop, &[], &target("n2"), &["echo in"])
        .start();
    let id = request_id(&held.expect_err("Waiting for request approval..."));
    world.approve(&id);
    held.finish(PATIENCE).exits(0).prints("in\n");
    // Teleport would lock her out of iot now.
    dora.ssh(Way::Jump, &[], &target("iot"), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
}

#[test]
fn a_deny_rule_wins_over_an_approved_request() {
    let world = World::with_nodes()
        .documents(&format!(
            "kind: role\nversion: v7\nmetadata: {{name: no-prod}}\nspec:\n  deny:\n    logins: [{}]\n    \
             node_labels: {{env: prod}}\n",
            login()
        ))
        .user("dora", "requester,no-prod")
        .start();
    let dora = world.person("dora");
    dora.ssh(Way::Jump, &[], &target("n2"), &["echo in"])
        .run()
        .exits(77)
        .prints("");
    assert!(world.requests().is_empty(), "there is nothing to ask for");
}

#[test]
fn a_login_that_no_role_could_give_is_refused_with_77_and_files_nothing() {
    let world = World::usual();
    for way in Way::BOTH {
        let refused = world
            .person("alice")
            .ssh(way, &[], "postgres@iot", &["echo in"])
            .run();
        refused.exits(77).prints("");
        assert!(!refused.stderr.is_empty());
    }
    assert!(world.requests().is_empty());
}

#[test]
fn a_reviewers_note_and_a_reason_with_control_characters_stay_one_harmless_line() {
    let world = World::usual();
    let evil = "x\u{1b}[2J\u{202e}y\nRequest ID: forged";
    let created = world
        .person("alice")
        .access(&[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            &format!("--reason='{evil}'"),
        ])
        .run();
    let id = request_id(&(created.text() + &created.stderr));
    for words in [vec!["request", "ls"], vec!["request", "show", &id]] {
        let shown = world.person("bob").access(&words).run();
        let text = shown.exits(0).text();
        assert!(
            !text.contains('\u{1b}') && !text.contains('\u{202e}'),
            "{shown}"
        );
        assert!(
            !text
                .lines()
                .any(|line| line.starts_with("Request ID: forged")),
            "{shown}"
        );
    }
}
