//! Bad input: one sentence that names it, the right exit code, nothing written.

use anteroom_tests::{NodeConfig, Way, World, login};

/// Words typed after `ssh access` (and under `ctl`), the exit code, and what is named.
const COMMANDS: &[(&[&str], i32, &str)] = &[
    (&["nosuch"], 64, "nosuch"),
    (&["request"], 64, "request"),
    (&["request", "nosuch"], 64, "nosuch"),
    (&["request", "ls", "--nosuch"], 64, "--nosuch"),
    (&["request", "ls", "--format", "xml"], 64, "xml"),
    (&["request", "ls", "--state", "happy"], 64, "happy"),
    (&["request", "show"], 64, "show"),
    (&["request", "show", "ab"], 64, "ab"),
    (&["request", "show", "deadbeef"], 66, "deadbeef"),
    (
        &["request", "show", "00000000-0000-4000-8000-000000000000"],
        66,
        "00000000-0000-4000-8000-000000000000",
    ),
    (&["request", "review", "deadbeef"], 64, "--approve"),
    (
        &["request", "review", "deadbeef", "--approve", "--deny"],
        64,
        "--deny",
    ),
    (
        &["request", "review", "deadbeef", "--approve"],
        66,
        "deadbeef",
    ),
    (&["request", "cancel", "deadbeef"], 66, "deadbeef"),
    (&["request", "assume", "deadbeef"], 66, "deadbeef"),
    (&["request", "drop", "deadbeef"], 66, "deadbeef"),
    (&["explain", "nonsense"], 64, "nonsense"),
];

/// The same for what only somebody with a key can ask for.
const ASKING: &[(&[&str], i32, &str)] = &[
    (&["request", "create", "--nowait"], 64, "--resource"),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "nosuch",
            "--reason=r",
        ],
        66,
        "nosuch",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "/",
            "--reason=r",
        ],
        64,
        "/",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "/example.com/node",
            "--reason=r",
        ],
        64,
        "/example.com/node",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "/other.example/node/b1168402-9340-421a-a344-af66a6675738",
            "--reason=r",
        ],
        66,
        "other.example",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "/example.com/node/b1168402-9340-421a-a344-af66a6675738",
            "--reason=r",
        ],
        66,
        "b1168402-9340-421a-a344-af66a6675738",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "/example.com/teapot/x",
            "--reason=r",
        ],
        64,
        "teapot",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--roles",
            "nosuch",
            "--reason=r",
        ],
        66,
        "nosuch",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            "--request-ttl",
            "soon",
            "--reason=r",
        ],
        64,
        "soon",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            "--session-ttl",
            "-1h",
            "--reason=r",
        ],
        64,
        "-1h",
    ),
    (
        &[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            "--assume-start-time",
            "noon",
            "--reason=r",
        ],
        64,
        "noon",
    ),
    (&["ls", "--query", "labels[\"env\"] == "], 64, "labels"),
    (&["ls", "env"], 64, "env"),
];

/// Words under `anteroom ctl` only.
const CTL: &[(&[&str], i32, &str)] = &[
    (
        &[
            "users",
            "add",
            "Alice!",
            "--roles",
            "requester",
            "--logins",
            "root",
            "--key",
            "/dev/null",
        ],
        64,
        "Alice!",
    ),
    (
        &[
            "users",
            "add",
            "x",
            "--roles",
            "nosuch",
            "--logins",
            "root",
            "--key",
            "/dev/null",
        ],
        0,
        "",
    ),
    (&["users", "show", "nosuch"], 66, "nosuch"),
    (&["users", "rm", "nosuch"], 66, "nosuch"),
    (&["nodes", "show", "nosuch"], 66, "nosuch"),
    (&["nodes", "rm", "nosuch"], 66, "nosuch"),
    (
        &["nodes", "add", "x", "--addr", "nowhere", "--host-ca"],
        64,
        "nowhere",
    ),
    (
        &[
            "nodes",
            "add",
            "x",
            "--addr",
            "127.0.0.1:99999",
            "--host-ca",
        ],
        64,
        "127.0.0.1:99999",
    ),
    (
        &[
            "nodes",
            "add",
            "UPPER",
            "--addr",
            "127.0.0.1:9",
            "--host-ca",
        ],
        64,
        "UPPER",
    ),
    (
        &[
            "nodes",
            "add",
            "x",
            "--addr",
            "127.0.0.1:9",
            "--host-ca",
            "--labels",
            "noequals",
        ],
        64,
        "noequals",
    ),
    (
        &[
            "nodes",
            "add",
            "x",
            "--addr",
            "127.0.0.1:9",
            "--host-ca",
            "--labels",
            "anteroom/x=y",
        ],
        64,
        "anteroom/",
    ),
    (
        &["nodes", "add", "x", "--addr", "127.0.0.1:9"],
        64,
        "--host-",
    ),
    (&["get", "role/nosuch"], 66, "role/nosuch"),
    (&["get", "teapot/x"], 64, "teapot"),
    (&["rm", "role/nosuch"], 66, "nosuch"),
    (&["auth", "export", "--type", "teapot"], 64, "teapot"),
    (
        &["create", "-f", "/nonexistent.yaml"],
        66,
        "/nonexistent.yaml",
    ),
];

/// How many rows and files an attempt may not change.
fn fingerprint(world: &World) -> String {
    let requests = world.requests().len();
    let users = world.ctl(&["users", "ls", "--format", "json"]).text();
    let nodes = world.ctl(&["nodes", "ls", "--format", "json"]).text();
    format!("{requests} {users} {nodes}")
}

#[test]
fn each_bad_command_is_named_in_one_sentence_with_its_exit_code() {
    let world = World::usual();
    let before = fingerprint(&world);
    let mut wrong = Vec::new();
    let mut judge = |finished: &anteroom_tests::Finished, code: i32, part: &str| {
        let named = finished.stderr.contains(part);
        let quiet = finished.stdout.is_empty();
        if finished.code() != Some(code) || !named || !quiet || finished.stderr.trim().is_empty() {
            wrong.push(format!("wanted {code} and `{part}`: {finished}"));
        }
    };
    for (words, code, part) in COMMANDS {
        let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let refs: Vec<&str> = quoted.iter().map(String::as_str).collect();
        judge(&world.person("alice").access(&refs).run(), *code, part);
        judge(&world.ctl(words), *code, part);
    }
    for (words, code, part) in ASKING {
        let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
        let refs: Vec<&str> = quoted.iter().map(String::as_str).collect();
        judge(&world.person("alice").access(&refs).run(), *code, part);
    }
    for (words, code, part) in CTL.iter().filter(|(_, code, _)| *code != 0) {
        judge(&world.ctl(words), *code, part);
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n\n")
    );
    assert_eq!(fingerprint(&world), before, "nothing is written");
}

/// A word as a careful person quotes it for the proxy's own word splitting.
fn quote(word: &str) -> String {
    format!("'{word}'")
}

#[test]
fn a_command_line_that_cannot_be_split_is_wrong_usage() {
    let world = World::usual();
    for line in ["request ls 'unclosed", "\"", "request show \\"] {
        let finished = world.person("alice").access(&[line]).run();
        finished.exits(64).prints("");
        assert!(!finished.stderr.is_empty(), "{finished}");
    }
}

#[test]
fn shell_syntax_in_a_command_is_only_text() {
    let world = World::usual();
    let file = world.path("made");
    for line in [
        format!("whoami; touch {}", file.display()),
        format!("$(touch {})", file.display()),
        format!("whoami | tee {}", file.display()),
        format!("`touch {}`", file.display()),
    ] {
        let finished = world.person("alice").access(&[&line]).run();
        assert_ne!(finished.code(), Some(0), "{finished}");
    }
    assert!(!file.exists());
}

#[test]
fn a_bad_login_is_named_and_nothing_is_filed() {
    let world = World::usual();
    for (way, name) in [
        (Way::OneHop, "bad*login"),
        (Way::Jump, "bad*login"),
        (
            Way::Jump,
            "a.very.long.login.that.is.longer.than.32.characters",
        ),
    ] {
        let finished = world
            .person("alice")
            .client("ssh")
            .args(way.options())
            .args([
                "-o",
                &format!(
                    "User={}",
                    if way == Way::Jump {
                        name.to_owned()
                    } else {
                        format!("{name}@iot")
                    }
                ),
            ])
            .args([
                "--",
                if way == Way::Jump { "iot" } else { "access" },
                "echo in",
            ])
            .run();
        assert!(matches!(finished.code(), Some(64 | 77)), "{finished}");
        finished.prints("");
        assert!(!finished.stderr.is_empty(), "{finished}");
    }
    assert!(world.requests().is_empty());
}

#[test]
fn an_ambiguous_name_lists_the_candidates_that_the_user_may_see() {
    let mut world = World::usual();
    world.add_node(NodeConfig::new("twin").labels("env=one"));
    let first = world.node("twin").uuid.clone();
    let added = world.ctl(&[
        "nodes",
        "add",
        "twin",
        "--addr",
        "127.0.0.1:9",
        "--labels",
        "env=two",
        "--host-ca",
    ]);
    added.exits(0);
    let resource = added.text();
    let second = resource
        .split_whitespace()
        .find(|w| w.contains("/node/"))
        .unwrap()
        .rsplit('/')
        .next()
        .unwrap()
        .to_owned();
    for way in Way::BOTH {
        let finished = world
            .person("carol")
            .ssh(way, &[], &format!("{}@twin", login()), &["echo in"])
            .run();
        assert!(matches!(finished.code(), Some(64 | 77)), "{finished}");
        finished.prints("").says(&first).says(&second);
        world
            .person("carol")
            .ssh(way, &[], &format!("{}@{first}", login()), &["echo in"])
            .run()
            .exits(0)
            .prints("in\n");
    }
}

#[test]
fn an_oversized_reason_is_refused_or_cut_but_never_kept_whole() {
    let world = World::usual();
    let long = "r".repeat(5000);
    let finished = world
        .person("alice")
        .access(&[
            "request",
            "create",
            "--nowait",
            "--resource",
            "iot",
            &format!("--reason={long}"),
        ])
        .run();
    if finished.code() == Some(64) {
        assert!(world.requests().is_empty());
        finished.says("4096");
    } else {
        let reason = world.requests()[0]["reason"].as_str().unwrap().len();
        assert!(reason <= 4096, "{reason}");
    }
}

#[test]
fn malformed_documents_are_refused_with_their_place() {
    let world = World::bare("");
    for (yaml, part) in [
        ("kind: role\n  version: v7\n", "2"),
        ("kind: teapot\nmetadata: {name: x}\n", "teapot"),
        (
            "kind: role\nversion: v99\nmetadata: {name: x}\nspec: {}\n",
            "v99",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: 'X Y'}\nspec: {}\n",
            "X Y",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: x}\nspec:\n  allow:\n    nonsense: 1\n",
            "nonsense",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: x}\nspec:\n  options: {max_session_ttl: soon}\n",
            "soon",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: x}\nspec:\n  allow:\n    node_labels: {env: '^([$'}\n",
            "^([$",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: x}\nspec:\n  allow: {node_labels_expression: 'labels['}\n",
            "node_labels_expression",
        ),
        (
            "kind: role\nversion: v7\nmetadata: {name: x}\nspec:\n  allow: {host_groups: [wheel]}\n",
            "Teleport",
        ),
        (
            "kind: user\nmetadata: {name: u}\nspec: {roles: [nosuch]}\n",
            "nosuch",
        ),
        ("", "document"),
    ] {
        let refused = world.create(yaml);
        assert!(
            refused.code().is_some_and(|code| code != 0),
            "{yaml}: {refused}"
        );
        refused.says(part);
        assert!(refused.stderr.trim().lines().count() <= 3, "{refused}");
    }
}

#[test]
fn what_a_user_may_not_know_is_answered_as_if_it_did_not_exist() {
    let world = World::with_nodes()
        .documents("kind: role\nversion: v7\nmetadata: {name: nothing}\nspec: {allow: {}}\n")
        .user("nobody", "nothing")
        .start();
    let person = world.person("nobody");
    let missing = "b1168402-9340-421a-a344-af66a6675738";
    let present = world.node("iot").uuid.clone();
    let id = world.granted("iot");
    for (words, there, not_there) in [
        (
            vec!["request", "create", "--nowait", "--reason=r", "--resource"],
            "iot",
            "nosuch",
        ),
        (
            vec!["request", "create", "--nowait", "--reason=r", "--resource"],
            present.as_str(),
            missing,
        ),
        (vec!["request", "show"], id.as_str(), missing),
        (vec!["ls", "--search"], "iot", "nosuch"),
    ] {
        let known = person.access(&[&words[..], &[there]].concat()).run();
        let unknown = person.access(&[&words[..], &[not_there]].concat()).run();
        assert_eq!(known.code(), unknown.code(), "{known} {unknown}");
        assert_eq!(
            (known.text() + &known.stderr).replace(there, "X"),
            (unknown.text() + &unknown.stderr).replace(not_there, "X"),
            "the two can be told apart"
        );
    }
}
