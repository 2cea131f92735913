//! The commands of INTERFACE section 3, over SSH and under `anteroom ctl`.

use anteroom_tests::{Cmd, Finished, KeyType, PATIENCE, Way, World, login, request_id};

/// The columns' heads in the first line of a table.
fn heads(finished: &Finished) -> Vec<String> {
    let text = finished.text();
    let first = text.lines().next().unwrap_or_default();
    first
        .split("  ")
        .map(str::trim)
        .filter(|head| !head.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn ls_shows_what_is_mine_now_and_search_what_i_could_ask_for() {
    let world = World::usual();
    let alice = world.person("alice");
    let nothing = alice.access(&["ls"]).run();
    nothing.exits(0);
    assert_eq!(
        heads(&nothing),
        ["Node Name", "Address", "Labels"],
        "{nothing}"
    );
    nothing.is_silent_about("iot");
    let carols = world.person("carol").access(&["ls"]).run();
    carols
        .exits(0)
        .prints_part("iot")
        .prints_part("n2")
        .prints_part("env=staging");
    let verbose = world.person("carol").access(&["ls", "-v"]).run();
    verbose
        .exits(0)
        .prints_part(&world.node("iot").uuid)
        .prints_part("Node ID");
    let filtered = world.person("carol").access(&["ls", "env=prod"]).run();
    filtered.exits(0).prints_part("n2").is_silent_about("iot");
    let searched = world
        .person("carol")
        .access(&["ls", "--search", "iot"])
        .run();
    searched
        .exits(0)
        .prints_part("iot")
        .is_silent_about("env=prod");

    let found = alice.access(&["request", "search", "--kind", "node"]).run();
    found.exits(0);
    assert_eq!(
        heads(&found),
        ["Name", "Hostname", "Labels", "Resource ID"],
        "{found}"
    );
    for name in ["iot", "n2"] {
        found
            .prints_part(&world.node(name).resource_id)
            .prints_part(&world.node(name).uuid);
    }
    let said = found.text() + &found.stderr;
    assert!(
        said.contains("request create"),
        "the line to paste: {found}"
    );
    assert!(
        said.contains(&format!("--resource {}", world.node("iot").resource_id)),
        "{found}"
    );
    let narrowed = alice
        .access(&["request", "search", "--kind=node", "--search", "iot"])
        .run();
    narrowed
        .exits(0)
        .prints_part("iot")
        .is_silent_about(&world.node("n2").uuid);
    let roles = alice.access(&["request", "search", "--roles"]).run();
    roles.exits(0);
    assert_eq!(heads(&roles), ["Role", "Description"], "{roles}");
}

#[test]
fn create_waits_ends_with_the_state_and_covers_the_next_connection() {
    let world = World::usual();
    let alice = world.person("alice");
    let waiting = alice
        .access(&[
            "request",
            "create",
            "--resource",
            &world.node("iot").resource_id,
            "--reason",
            "'incident 123'",
        ])
        .start();
    let until = |proc: &anteroom_tests::Proc| loop {
        let said = proc.out.text() + &proc.err.text();
        if said.contains("Waiting for request approval...") {
            break said;
        }
        assert!(proc.is_running(), "{said}");
    };
    let said = until(&waiting);
    let id = request_id(&said);
    for part in [
        "Creating request...",
        "Username:    alice",
        "Roles:       access",
        "Reason:      \"incident 123\"",
        "Status:      PENDING",
    ] {
        assert!(said.contains(part), "no `{part}` in:\n{said}");
    }
    world.review(&id, &["--approve", "--reason=okay"]).exits(0);
    let finished = waiting.finish(PATIENCE);
    finished.exits(0);
    assert!(
        (finished.text() + &finished.stderr).contains("Approval received"),
        "{finished}"
    );
    let target = format!("{}@iot", login());
    alice
        .ssh(Way::Jump, &[], &target, &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
}

#[test]
fn create_that_is_denied_exits_77_and_an_equal_one_is_joined() {
    let world = World::usual();
    let alice = world.person("alice");
    let words = ["request", "create", "--resource", "iot", "--reason=r"];
    let first = alice.access(&words).start();
    let second = alice.access(&words).start();
    let mut ids = Vec::new();
    for proc in [&first, &second] {
        loop {
            let said = proc.out.text() + &proc.err.text();
            if said.contains("Waiting for request approval...") {
                ids.push(request_id(&said));
                break;
            }
            assert!(proc.is_running(), "{said}");
        }
    }
    assert_eq!(ids[0], ids[1]);
    world.deny(&ids[0], "no");
    for proc in [first, second] {
        let finished = proc.finish(PATIENCE);
        finished.exits(77);
        assert!(
            (finished.text() + &finished.stderr).contains("denied"),
            "{finished}"
        );
    }
}

#[test]
fn a_dry_run_computes_everything_and_writes_nothing() {
    let world = World::usual();
    let dry = world
        .person("alice")
        .access(&[
            "request",
            "create",
            "--dry-run",
            "--resource",
            "iot",
            "--reason=r",
        ])
        .run();
    dry.exits(0);
    assert!((dry.text() + &dry.stderr).contains("access"), "{dry}");
    assert!(world.requests().is_empty());
    assert!(world.events("access_request.create").is_empty());
}

#[test]
fn request_ls_and_show_tell_requester_and_reviewer_the_same() {
    let world = World::usual();
    let alice = world.person("alice");
    let created = alice
        .access(&[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            "--reason=r",
        ])
        .run();
    let id = request_id(&(created.text() + &created.stderr));
    for name in ["alice", "bob"] {
        let listed = world.person(name).access(&["request", "ls"]).run();
        listed.exits(0).prints_part(&id).prints_part("PENDING");
        assert_eq!(
            heads(&listed),
            [
                "ID",
                "User",
                "Roles",
                "Resources",
                "Created At (UTC)",
                "Expires",
                "Status"
            ],
            "{listed}"
        );
        let shown = world.person(name).access(&["request", "show", &id]).run();
        shown
            .exits(0)
            .prints_part("Username:    alice")
            .prints_part("Status:      PENDING");
    }
    // Somebody who neither asked nor may review sees nothing of it.
    let nothing = world.person("carol").access(&["request", "ls"]).run();
    nothing.exits(0).is_silent_about(&id);
    world
        .person("carol")
        .access(&["request", "show", &id])
        .run()
        .exits(66);
    let mine = alice.access(&["request", "ls", "--mine"]).run();
    mine.exits(0).prints_part(&id);
    let reviewable = world
        .person("bob")
        .access(&["request", "ls", "--reviewable"])
        .run();
    reviewable.exits(0).prints_part(&id);
    alice
        .access(&["request", "ls", "--reviewable"])
        .run()
        .exits(0)
        .is_silent_about(&id);
    alice
        .access(&["request", "ls", "--state", "approved"])
        .run()
        .exits(0)
        .is_silent_about(&id);
    // A prefix of at least four characters will do.
    world
        .review(&id[..8], &["--approve"])
        .exits(0)
        .prints("Successfully submitted review. Request state: APPROVED\n");
    let shown = alice.access(&["request", "show", &id[..4]]).run();
    shown.exits(0).prints_part("bob");
    alice.access(&["request", "show", &id[..3]]).run().exits(64);
}

#[test]
fn listings_come_as_json_and_yaml_with_the_names_people_script_against() {
    let world = World::usual();
    let id = world.granted("iot");
    let alice = world.person("alice");
    for run in [
        alice.access(&["request", "ls", "--format", "json"]).run(),
        alice.access(&["request", "ls", "--format=json"]).run(),
        world.ctl(&["request", "ls", "--format", "json"]),
    ] {
        run.exits(0);
        let json = run.json();
        let request = &json.as_array().unwrap()[0];
        assert_eq!(request["id"], id.as_str());
        assert_eq!(request["user"], "alice");
        assert_eq!(request["state"], "APPROVED");
        assert_eq!(request["roles"], serde_json::json!(["access"]));
        assert!(
            request["resource_ids"][0]
                .as_str()
                .unwrap()
                .starts_with(&world.node("iot").resource_id)
        );
        assert_eq!(request["reviews"][0]["author"], "bob");
        for time in ["created", "expires"] {
            let text = request[time].as_str().unwrap();
            assert!(text.contains('T') && text.ends_with('Z'), "{time}: {text}");
        }
    }
    let shown = alice
        .access(&["request", "show", &id, "--format", "json"])
        .run();
    shown.exits(0);
    let yaml = alice.access(&["request", "ls", "--format", "yaml"]).run();
    yaml.exits(0)
        .prints_part(&id)
        .prints_part("state: APPROVED");
    let nodes = world
        .person("carol")
        .access(&["ls", "--format", "json"])
        .run();
    nodes.exits(0);
    assert_eq!(nodes.json().as_array().unwrap().len(), 2);
    for words in [
        vec!["nodes", "ls"],
        vec!["users", "ls"],
        vec!["audit", "ls"],
    ] {
        let listed = world.ctl(&[&words[..], &["--format", "json"]].concat());
        listed.exits(0);
        assert!(!listed.json().as_array().unwrap().is_empty(), "{listed}");
    }
}

#[test]
fn status_whoami_explain_and_config_say_who_i_am_and_what_i_may() {
    let world = World::usual();
    let id = world.granted("iot");
    let alice = world.person("alice");
    let status = alice.access(&["status"]).run();
    status.exits(0);
    for part in ["alice", "example.com", &id, "requester"] {
        status.prints_part(part);
    }
    alice
        .access(&["whoami"])
        .run()
        .exits(0)
        .prints_part("alice");
    alice
        .access(&["version"])
        .run()
        .exits(0)
        .prints_part("0.1.0");
    let me = login();
    let may = alice.access(&["explain", &format!("{me}@iot")]).run();
    may.exits(0).prints_part(&id);
    let may_ask = alice.access(&["explain", &format!("{me}@n2")]).run();
    may_ask.exits(0);
    assert!(may_ask.text().contains("access"), "{may_ask}");
    let of_other = alice
        .access(&["explain", &format!("{me}@iot"), "--user", "carol"])
        .run();
    of_other.exits(77);
    world
        .ctl(&["explain", &format!("{me}@iot"), "--user", "carol"])
        .exits(0)
        .prints_part("access");
}

#[test]
fn what_config_prints_is_all_a_client_needs() {
    let world = World::usual();
    let carol = world.person("carol");
    let whole = carol.access(&["config"]).run();
    whole
        .exits(0)
        .prints_part("HostKeyAlias example.com")
        .prints_part("ProxyJump");
    let part = |name: &str, file: &str| {
        let printed = carol.access(&["config", "--part", name]).run();
        printed.exits(0);
        whole.prints_part(printed.text().trim());
        let file = world.path(file);
        // Where the files are is all that differs from a home directory.
        let own = format!(
            "\nHost *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  \
             GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n",
            carol.key.display(),
            world.path("printed_hosts").display()
        );
        let text = printed.text() + if name == "ssh_config" { &own } else { "" };
        std::fs::write(&file, text).unwrap();
        file
    };
    part("known_hosts", "printed_hosts");
    let config = part("ssh_config", "printed_config");
    let ssh = |args: &[&str]| Cmd::new("ssh").arg("-F").arg(&config).args(args).run();
    ssh(&["access", "whoami"]).exits(0).prints_part("carol");
    let me = login();
    ssh(&["-l", &me, "iot", "echo in"]).exits(0).prints("in\n");
    ssh(&[&format!("{me}@iot@access"), "echo in"])
        .exits(0)
        .prints("in\n");
}

#[test]
fn help_lists_every_command_and_explains_one() {
    let world = World::usual();
    let alice = world.person("alice");
    let help = alice.access(&["help"]).run();
    help.exits(0);
    for word in [
        "ls", "request", "status", "whoami", "explain", "config", "help", "version",
    ] {
        help.prints_part(word);
    }
    alice
        .access(&["help", "request"])
        .run()
        .exits(0)
        .prints_part("review");
    alice
        .access(&["request", "create", "--help"])
        .run()
        .exits(0)
        .prints_part("--resource");
}

#[test]
fn section_2_commands_are_for_administrators_only() {
    let world = World::with_nodes()
        .user("erin", "editor")
        .user("carol", "access")
        .start();
    for words in [
        vec!["users", "ls"],
        vec!["users", "rm", "bob"],
        vec!["nodes", "rm", "iot"],
        vec!["requests", "ls"],
        vec!["audit", "ls"],
        vec!["rm", "role/access"],
        vec!["get", "user/bob"],
    ] {
        for name in ["alice", "bob", "carol"] {
            let refused = world.person(name).access(&words).run();
            refused.exits(77).prints("");
        }
    }
    let erin = world.person("erin");
    erin.access(&["users", "ls"])
        .run()
        .exits(0)
        .prints_part("alice");
    erin.access(&["nodes", "ls"])
        .run()
        .exits(0)
        .prints_part("iot");
    let role =
        "kind: role\nversion: v7\nmetadata: {name: fresh}\nspec: {allow: {logins: [root]}}\n";
    erin.access(&["create", "-f", "-"])
        .stdin(role)
        .run()
        .exits(0);
    erin.access(&["get", "role/fresh"])
        .run()
        .exits(0)
        .prints_part("name: fresh");
    erin.access(&["users", "rm", "carol"]).run().exits(0);
    world.person("carol").access(&["whoami"]).run().exits(255);
}

#[test]
fn requests_of_others_are_handled_by_those_who_administer_them() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nversion: v7\nmetadata: {name: request-admin}\nspec:\n  allow:\n    rules:\n    \
             - resources: [access_request]\n      verbs: [list, read, update, delete]\n",
        )
        .user("rhea", "request-admin")
        .start();
    let created = world
        .person("alice")
        .access(&[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            "--reason=r",
        ])
        .run();
    let id = request_id(&(created.text() + &created.stderr));
    let rhea = world.person("rhea");
    rhea.access(&["requests", "ls"])
        .run()
        .exits(0)
        .prints_part(&id);
    rhea.access(&["requests", "approve", &id]).run().exits(0);
    assert_eq!(world.state(&id), "APPROVED");
    rhea.access(&["requests", "deny", &id]).run().exits(0);
    assert_eq!(
        world.state(&id),
        "REVOKED",
        "a denial after the approval is a revocation"
    );
}

#[test]
fn what_get_prints_can_be_created_again() {
    let world = World::usual();
    for name in ["user/alice", "role/access", "node/iot"] {
        let before = world.ctl(&["get", name, "--format", "yaml"]);
        before.exits(0);
        world.replace(&before.text()).exits(0);
        let after = world.ctl(&["get", name, "--format", "yaml"]);
        after.exits(0).prints(&before.stdout);
    }
    world
        .ctl(&["get", "node/iot"])
        .exits(0)
        .prints_part(&world.node("iot").uuid);
    // And without --force what exists is not touched.
    let role = world
        .ctl(&["get", "role/access", "--format", "yaml"])
        .text();
    let refused = world.create(&role);
    assert_ne!(refused.code(), Some(0), "{refused}");
    refused.says("access");
}

#[test]
fn the_presets_exist_from_the_start() {
    let world = World::bare("");
    for name in ["access", "editor", "auditor", "requester", "reviewer"] {
        world
            .ctl(&["get", &format!("role/{name}")])
            .exits(0)
            .prints_part(name);
    }
}

#[test]
fn users_and_nodes_are_added_shown_changed_and_removed() {
    let mut world = World::bare("");
    world.write_known_hosts();
    let person = world.stranger("zoe@example.com", KeyType::Ed25519);
    world
        .ctl_cmd(&[
            "users",
            "add",
            "zoe@example.com",
            "--roles",
            "requester",
            "--logins",
            "root",
            "--key",
            "-",
        ])
        .stdin(std::fs::read(person.public_key()).unwrap())
        .run()
        .exits(0);
    world
        .ctl(&["users", "show", "zoe@example.com"])
        .exits(0)
        .prints_part("requester");
    person
        .access(&["whoami"])
        .run()
        .exits(0)
        .prints_part("zoe@example.com");
    let twice = world
        .ctl_cmd(&[
            "users",
            "add",
            "other",
            "--roles",
            "requester",
            "--logins",
            "root",
            "--key",
        ])
        .arg(person.public_key())
        .run();
    assert_ne!(twice.code(), Some(0), "a key belongs to one user: {twice}");
    let added = world.ctl(&[
        "nodes",
        "add",
        "db",
        "--addr",
        "127.0.0.1:9",
        "--labels",
        "env=a,os=b",
        "--host-ca",
    ]);
    added.exits(0).prints_part("/example.com/node/");
    assert!(
        !added.stderr.is_empty(),
        "what to put into sshd_config goes to stderr"
    );
    assert!(
        added.stderr.contains("AuthorizedPrincipalsCommand"),
        "{added}"
    );
    world
        .ctl(&["nodes", "show", "db"])
        .exits(0)
        .prints_part("env=a");
    world
        .ctl(&["nodes", "update", "db", "--labels", "env=c"])
        .exits(0);
    world.ctl(&["nodes", "ls"]).exits(0).prints_part("env=c");
    world.ctl(&["nodes", "rm", "db"]).exits(0);
    world.ctl(&["nodes", "show", "db"]).exits(66);
    world.ctl(&["users", "rm", "zoe@example.com"]).exits(0);
    person.access(&["whoami"]).run().exits(255);
}

#[test]
fn sshd_config_lines_are_those_of_a_stock_sshd_and_pass_its_own_test() {
    let world = World::usual();
    let printed = world.ctl(&["nodes", "sshd-config", "iot"]);
    printed.exits(0);
    let uuid = &world.node("iot").uuid;
    printed
        .prints_part("TrustedUserCAKeys ")
        .prints_part(&format!(
            "AuthorizedPrincipalsCommand /bin/echo %u@{uuid}\n"
        ))
        .prints_part("AuthorizedPrincipalsCommandUser nobody");
    Cmd::new("/usr/sbin/sshd")
        .args(["-t", "-f"])
        .arg(world.node("iot").dir.join("sshd_config"))
        .run()
        .exits(0);
}

#[test]
fn keys_are_exported_in_the_format_their_readers_want() {
    let world = World::bare("");
    for (kind, start) in [
        ("user", "ssh-ed25519 "),
        ("node", "ssh-ed25519 "),
        ("host", "@cert-authority "),
    ] {
        let exported = world.ctl(&["auth", "export", "--type", kind]);
        exported.exits(0);
        assert!(exported.text().starts_with(start), "{exported}");
        assert!(!exported.text().contains("PRIVATE"), "{exported}");
    }
    assert_ne!(
        world.ctl(&["auth", "export", "--type", "user"]).text(),
        world.ctl(&["auth", "export", "--type", "node"]).text()
    );
}

#[test]
fn documents_are_created_all_or_nothing() {
    let world = World::bare("");
    let refused = world.create(
        "kind: role\nversion: v7\nmetadata: {name: good}\nspec: {allow: {logins: [root]}}\n---\n\
         kind: role\nversion: v7\nmetadata: {name: bad}\nspec: {allow: {loginz: [root]}}\n",
    );
    assert_ne!(refused.code(), Some(0), "{refused}");
    refused.says("loginz").says("9");
    world.ctl(&["get", "role/good"]).exits(66);
    world
        .ctl(&["audit", "ls"])
        .exits(0)
        .is_silent_about("role.create\",\"good");
}

#[test]
fn nothing_but_the_commands_own_output_is_on_stdout() {
    let world = World::usual();
    let id = world.granted("iot");
    let alice = world.person("alice");
    let dropped = alice.access(&["request", "drop"]).run();
    dropped
        .exits(0)
        .prints("")
        .says("Dropping all active access requests...");
    let refused = alice.access(&["request", "show", "00000000"]).run();
    refused.exits(66).prints("");
    assert!(!refused.stderr.is_empty());
    assert_eq!(
        world.state(&id),
        "APPROVED",
        "set aside by one key, not ended"
    );
}
