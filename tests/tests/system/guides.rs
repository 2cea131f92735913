//! Teleport's two guides, *Resource Access Requests* and *Role Access Requests*, walked through
//! with plain ssh: for each of their commands its counterpart here, with the same words in what
//! it prints.
//!
//! `docs/requests.md` tells the same steps to people.

use anteroom_tests::{Finished, PATIENCE, Person, Proc, Way, World, login, request_id};

/// `ssh access WORDS`, which must end with 0.
#[track_caller]
fn access(person: &Person, words: &[&str]) -> Finished {
    let finished = person.access(words).run();
    finished.exits(0);
    finished
}

/// The lines of a text with runs of blanks made one, so that a column's width is of no account.
fn squeezed(text: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    text.lines().map(words).collect()
}

/// Whether the text has this line, runs of blanks aside.
#[track_caller]
fn has_line(text: &str, line: &str) {
    assert!(
        squeezed(text).iter().any(|found| found == line),
        "no line `{line}` in:\n{text}"
    );
}

/// Everything that a waiting command has said once it waits.
#[track_caller]
fn said_when_waiting(proc: &Proc) -> String {
    loop {
        let said = proc.out.text() + &proc.err.text();
        if said.contains("Waiting for request approval...") {
            return said;
        }
        assert!(proc.is_running(), "`{}` left:\n{said}", proc.line());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn the_resource_guide_has_its_counterpart_in_every_step() {
    let mut world = World::builder()
        .node(anteroom_tests::NodeConfig::new("iot").labels("test=test"))
        .node(anteroom_tests::NodeConfig::new("node").labels("test=test"))
        .start();

    // Step 1: grant roles to users. `tctl users update --set-roles` is `users update --roles`.
    let alice = world.add_user("alice", "auditor", anteroom_tests::KeyType::Ed25519);
    let bob = world.add_user("bob", "auditor", anteroom_tests::KeyType::Ed25519);
    for (name, roles) in [("alice", "auditor,requester"), ("bob", "auditor,reviewer")] {
        let updated = world.ctl(&["users", "update", name, "--roles", roles]);
        updated.exits(0);
        let shown = world.ctl(&["get", &format!("user/{name}"), "--format", "json"]);
        shown.exits(0);
        let (_, role) = roles.split_once(',').unwrap();
        shown.prints_part(role);
    }

    // Step 2: search for resources. `tsh ls` is empty, `tsh request search` is not.
    let nothing = access(&alice, &["ls"]);
    assert_eq!(
        squeezed(&nothing.text())[0],
        "Node Name Address Labels",
        "{nothing}"
    );
    nothing.is_silent_about("iot");
    let (iot, node) = (world.node("iot"), world.node("node"));
    let found = access(&alice, &["request", "search", "--kind", "node"]);
    let text = found.text() + &found.stderr;
    has_line(&text, "Name Hostname Labels Resource ID");
    has_line(
        &text,
        &format!("{} iot test=test {}", iot.uuid, iot.resource_id),
    );
    has_line(
        &text,
        &format!("{} node test=test {}", node.uuid, node.resource_id),
    );
    has_line(&text, "To request access to these resources, run");
    for part in [
        "request create",
        &format!("--resource {}", iot.resource_id),
        &format!("--resource {}", node.resource_id),
        "--reason \"<request reason>\"",
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let narrowed = access(
        &alice,
        &["request", "search", "--kind", "node", "--search", "iot"],
    );
    narrowed
        .prints_part(&iot.resource_id)
        .is_silent_about(&node.resource_id);

    // Step 3: request access to a resource; the command waits.
    let creating = alice
        .access(&[
            "request",
            "create",
            "--resource",
            &iot.resource_id,
            "--reason",
            "\"responding to incident 123\"",
        ])
        .start();
    let said = said_when_waiting(&creating);
    let id = request_id(&said);
    for line in [
        "Creating request...".to_owned(),
        format!("Request ID: {id}"),
        "Username: alice".to_owned(),
        "Roles: access".to_owned(),
        format!("Resources: [\"{}\"] (iot)", iot.resource_id),
        "Reason: \"responding to incident 123\"".to_owned(),
        "Reviewers: [none] (suggested)".to_owned(),
        "Status: PENDING".to_owned(),
    ] {
        has_line(&said, &line);
    }

    // Step 4: approve the request.
    let listed = access(&bob, &["request", "ls"]);
    let text = listed.text() + &listed.stderr;
    let heads = "ID User Roles Resources Created At (UTC) Expires Status";
    has_line(&text, heads);
    let row = squeezed(&text)
        .into_iter()
        .find(|line| line.starts_with(&id))
        .unwrap_or_else(|| panic!("no row of {id} in:\n{text}"));
    for part in ["alice", "access", "[+]", "PENDING"] {
        assert!(row.contains(part), "no `{part}` in `{row}`");
    }
    assert!(
        text.contains("request show"),
        "the footnote of `[+]`:\n{text}"
    );
    let shown = access(&bob, &["request", "show", &id]);
    has_line(&shown.text(), &format!("Request ID: {id}"));
    has_line(&shown.text(), "Reason: \"responding to incident 123\"");
    access(&bob, &["request", "review", "--approve", &id])
        .prints_part("Successfully submitted review. Request state: APPROVED");

    // Step 5: access the requested resource. The command that waited has ended with 0.
    let created = creating.finish(PATIENCE);
    created.exits(0);
    let said = created.text() + &created.stderr;
    assert!(said.contains("Approval received"), "{said}");
    let status = access(&alice, &["status"]);
    let text = status.text();
    has_line(&text, "Logged in as: alice");
    for part in [
        "Active requests:",
        &id,
        "Allowed Resources:",
        &iot.resource_id,
    ] {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
    let mine = access(&alice, &["ls"]);
    mine.prints_part("iot").is_silent_about("\nnode ");
    let target = format!("{}@iot", login());
    alice
        .ssh(Way::OneHop, &[], &target, &["echo", "in"])
        .run()
        .exits(0)
        .prints("in\n");

    // Step 6: resume regular access.
    let dropped = access(&alice, &["request", "drop"]);
    let said = dropped.text() + &dropped.stderr;
    assert!(
        said.contains("Dropping all active access requests..."),
        "{said}"
    );
    access(&alice, &["ls"]).is_silent_about("iot");

    // "Automatically request access for SSH": denied, asked for a reason, approved, in.
    let mut terminal = alice
        .ssh(Way::OneHop, &[], &format!("{}@node", login()), &[])
        .in_terminal_of(200, 50);
    let asked = terminal.expect("Enter request reason: ");
    for part in [
        format!(
            "ERROR: access denied to alice connecting to {}@node on cluster {}",
            login(),
            World::CLUSTER
        ),
        format!(
            "You do not currently have access to {}@node, attempting to request access.",
            login()
        ),
    ] {
        assert!(asked.contains(&part), "no `{part}` in:\n{asked}");
    }
    terminal.type_in("please\r");
    let second = request_id(&terminal.expect("Waiting for request approval..."));
    access(
        &bob,
        &[
            "request",
            "review",
            "--approve",
            &second,
            "--reason",
            "okay",
        ],
    );
    terminal.expect("Approval received from bob, reason=\"okay\"");
    terminal.type_in("echo answer=$((6 * 7)); exit\r");
    terminal.expect("answer=42");
    assert_eq!(terminal.finish(PATIENCE).0, 0);
}

/// "Restrict the resources a user can request access to": the guide's role for nodes.
#[test]
fn the_guides_staging_role_limits_what_can_be_searched_and_how_long() {
    let world = World::builder()
        .documents(
            "kind: role\nversion: v5\nmetadata: {name: staging-access}\nspec:\n  allow:\n    \
             node_labels: {env: staging}\n    logins: ['{{internal.logins}}']\n  \
             options: {max_session_ttl: 1h}\n---\n\
             kind: role\nversion: v5\nmetadata: {name: staging-requester}\nspec:\n  allow:\n    \
             request: {search_as_roles: [staging-access]}\n",
        )
        .node(anteroom_tests::NodeConfig::new("iot").labels("env=staging"))
        .node(anteroom_tests::NodeConfig::new("n2").labels("env=prod"))
        .user("alice", "staging-requester")
        .start();
    let alice = world.person("alice");
    access(alice, &["request", "search", "--kind", "node"])
        .prints_part(&world.node("iot").resource_id)
        .is_silent_about(&world.node("n2").resource_id);
    let created = access(
        alice,
        &["request", "create", "--nowait", "--resource", "iot"],
    );
    let id = request_id(&(created.text() + &created.stderr));
    assert_eq!(world.request(&id)["session_ttl"], "1h");
    alice
        .access(&[
            "request",
            "create",
            "--nowait",
            "--resource",
            &world.node("n2").resource_id,
        ])
        .run()
        .exits(66);
    assert_eq!(world.requests().len(), 1, "nothing more was filed");
}

#[test]
fn the_role_guide_has_its_counterpart_in_every_step() {
    // The guide's roles, with nodes in the place of databases.
    let world = World::builder()
        .documents(
            "kind: role\nversion: v5\nmetadata: {name: contractor}\nspec:\n  allow:\n    \
             request: {roles: ['dba', 'db-support']}\n---\n\
             kind: role\nversion: v5\nmetadata: {name: dba}\nspec:\n  allow:\n    \
             node_labels: {'*': '*'}\n    logins: ['{{internal.logins}}']\n  \
             options:\n    # Only allows the contractor to use this role for 1 hour from time of \
             request.\n    max_session_ttl: 1h\n---\n\
             kind: role\nversion: v5\nmetadata: {name: db-support}\nspec:\n  allow:\n    \
             node_labels: {env: prod}\n    logins: ['{{internal.logins}}']\n",
        )
        .node(anteroom_tests::NodeConfig::new("iot").labels("env=staging"))
        .node(anteroom_tests::NodeConfig::new("n2").labels("env=prod"))
        .user("alice", "contractor")
        .start();
    let alice = world.person("alice");
    let on_iot = format!("{}@iot", login());

    // Nothing can be reached, and nothing is asked for by connecting: the role must be asked for.
    alice
        .ssh(Way::OneHop, &[], &on_iot, &["true"])
        .run()
        .exits(77);
    access(alice, &["request", "search", "--roles"])
        .prints_part("dba")
        .prints_part("db-support");

    // `tsh request create` blocks until the request is approved.
    let creating = alice
        .access(&[
            "request",
            "create",
            "--roles=dba",
            "--reviewers=bob",
            "--reason=\"performing DB migration tonight\"",
        ])
        .start();
    let said = said_when_waiting(&creating);
    let id = request_id(&said);
    has_line(&said, "Roles: dba");
    has_line(&said, "Reviewers: bob (suggested)");

    // `tctl requests ls|get|approve`: the local administrator.
    world
        .ctl(&["requests", "ls"])
        .exits(0)
        .prints_part(&id)
        .prints_part("PENDING");
    world
        .ctl(&["requests", "get", &id])
        .exits(0)
        .prints_part("performing DB migration tonight");
    world.ctl(&["requests", "approve", &id]).exits(0);
    creating.finish(PATIENCE).exits(0);
    alice
        .ssh(Way::OneHop, &[], &on_iot, &["echo", "in"])
        .run()
        .exits(0)
        .prints("in\n");
    access(alice, &["request", "drop", "--end"]);

    // `--nowait` files it and leaves; `tctl requests deny --reason`.
    let filed = access(
        alice,
        &[
            "request",
            "create",
            "--roles=dba",
            "--reason=again",
            "--nowait",
        ],
    );
    let second = request_id(&(filed.text() + &filed.stderr));
    access(alice, &["request", "ls"])
        .prints_part(&second)
        .prints_part("PENDING");
    world
        .ctl(&[
            "requests",
            "deny",
            "--reason=today's migration has been canceled",
            &second,
        ])
        .exits(0);
    assert_eq!(world.state(&second), "DENIED");
    access(alice, &["request", "show", &second]).prints_part("today's migration has been canceled");

    // A reviewer approves less than was asked: both roles were, one is given.
    let both = access(
        alice,
        &[
            "request",
            "create",
            "--roles=dba,db-support",
            "--reason=both",
            "--nowait",
        ],
    );
    let third = request_id(&(both.text() + &both.stderr));
    world
        .ctl(&[
            "requests",
            "approve",
            "--roles=db-support",
            "--reason=approved access to db-support, dba is not necessary",
            &third,
        ])
        .exits(0);
    assert_eq!(world.request(&third)["granted"]["roles"][0], "db-support");
    alice
        .ssh(
            Way::OneHop,
            &[],
            &format!("{}@n2", login()),
            &["echo", "in"],
        )
        .run()
        .exits(0)
        .prints("in\n");
    alice
        .ssh(Way::OneHop, &[], &on_iot, &["true"])
        .run()
        .exits(77);
}
