//! Hostile text in the fields that operators and policies fill, in what nodes answer when they refuse, and in the names
//! of files; as in `injection`, byte by byte, in every format, with what programs read unchanged.

use anteroom_tests::raw::wire::{Msg, msg};
use anteroom_tests::raw::{Raw, RawKey, RawNode};
use anteroom_tests::{KeyType, PATIENCE, Way, World, login, request_id};
use serde_json::{Value, json};

use super::injection::{HOSTILE, bob_looks, finished_inert, inert};

/// The same texts, those that documents can hold: JSON is YAML, but for NUL.
fn texts() -> impl Iterator<Item = (&'static str, String)> {
    HOSTILE
        .iter()
        .map(|(what, bytes)| (*what, String::from_utf8_lossy(bytes).into_owned()))
}

/// A document in ASCII, with YAML's escapes: a reader of YAML takes what cannot be printed in no other way.
fn escaped(document: &Value) -> String {
    let escape = |c: char| match c {
        ' '..='~' => c.to_string(),
        '\0'..='\u{ffff}' => format!("\\u{:04x}", u32::from(c)),
        _ => format!("\\U{:08x}", u32::from(c)),
    };
    document.to_string().chars().map(escape).collect()
}

/// Whether a value is somewhere in a document.
fn holds(document: &Value, wanted: &str) -> bool {
    match document {
        Value::String(text) => text == wanted,
        Value::Array(all) => all.iter().any(|one| holds(one, wanted)),
        Value::Object(map) => map
            .iter()
            .any(|(key, one)| key == wanted || holds(one, wanted)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Everything that lists, in every format; what of it is JSON.
fn looks(world: &World, what: &str, commands: &[&str]) -> Vec<Value> {
    let mut read = Vec::new();
    for words in commands {
        for format in ["text", "json", "yaml"] {
            let mut all: Vec<&str> = words.split(' ').collect();
            all.extend(["--format", format]);
            let said = world.ctl(&all);
            let what = format!("{what}: `{words} --format {format}`");
            said.exits(0);
            finished_inert(&what, &said);
            if format == "json" {
                read.push(said.json());
            }
        }
    }
    read
}

/// A document of each kind of resource, with this text wherever text is free.
fn documents(text: &str) -> Vec<(&'static str, Value)> {
    let metadata = |name: &str| json!({"name": name, "description": text, "labels": {"env": text}});
    let of = |kind: &str, version: &str, spec: Value| json!({"kind": kind, "version": version, "metadata": metadata(&format!("h-{}", kind.replace('_', "-"))), "spec": spec});
    let uri = "http://127.0.0.1:3000";
    vec![
        ("app", of("app", "v3", json!({"uri": uri}))),
        (
            "db",
            of(
                "db",
                "v3",
                json!({"protocol": "postgres", "uri": "127.0.0.1:5432"}),
            ),
        ),
        ("kube_cluster", of("kube_cluster", "v3", json!({}))),
        (
            "windows_desktop",
            of(
                "windows_desktop",
                "v3",
                json!({"addr": "127.0.0.1:3389", "domain": "corp"}),
            ),
        ),
        ("role", of("role", "v8", json!({"allow": {}}))),
        (
            "user",
            json!({
                "kind": "user", "version": "v2", "metadata": {"name": "h-user"},
                "spec": {"roles": ["requester"], "traits": {"team": [text]}},
            }),
        ),
        (
            "lock",
            json!({
                "kind": "lock", "version": "v2",
                "metadata": {"name": "dc7cee9d-fe5e-4534-a90d-db770f0234a1"},
                "spec": {"target": {"user": "nobody"}, "message": text},
            }),
        ),
    ]
}

#[test]
fn hostile_text_in_any_kind_of_document_is_inert_everywhere_and_comes_back_whole() {
    let world = World::with_nodes().start();
    let mut taken = std::collections::BTreeMap::<&str, usize>::new();
    for (what, text) in texts() {
        for (kind, document) in documents(&text) {
            let put = world.replace(&escaped(&document));
            finished_inert(&format!("{what}: create {kind}"), &put);
            if put.code() != Some(0) {
                // Refused with a sentence.
                assert!(text.chars().any(char::is_control), "{what}: {put}");
                put.exits(64).says("control character");
                continue;
            }
            *taken.entry(kind).or_default() += 1;
            let got = looks(&world, what, &[&format!("get {kind}")]);
            assert!(
                got.iter().any(|got| holds(got, &text)),
                "{what}: {kind}: {got:?}"
            );
            // What is printed is read again as the same.
            let name = document["metadata"]["name"].as_str().unwrap();
            let printed = world.ctl(&["get", &format!("{kind}/{name}"), "--format", "yaml"]);
            let again = world.replace(&printed.text());
            again.exits(0);
            finished_inert(what, &again);
            let again = looks(&world, what, &[&format!("get {kind}")]);
            assert!(again.iter().any(|got| holds(got, &text)), "{what}: {kind}");
        }
        let node = world.ctl_cmd(&["nodes", "update", "n2", "--labels"]);
        let labelled = node.arg(format!("note={text}")).run();
        finished_inert(what, &labelled);
        looks(
            &world,
            what,
            &[
                "nodes ls -v",
                "nodes show n2",
                "get all",
                "users ls",
                "locks ls",
            ],
        );
        let person = world.person("alice");
        for words in [
            "ls -v",
            "status",
            "request search --kind node -v",
            "request search --kind app -v",
            "request search --kind db -v",
            "request search --roles",
            "explain root@n2",
        ] {
            finished_inert(&format!("{what}: {words}"), &person.access(&[words]).run());
        }
        finished_inert(what, &world.ctl(&["users", "show", "h-user"]));
    }
    println!("taken: {taken:?}");
    for kind in [
        "app",
        "db",
        "kube_cluster",
        "windows_desktop",
        "role",
        "user",
        "lock",
    ] {
        assert!(
            taken.get(kind).is_some_and(|taken| *taken > 3),
            "{kind}: {taken:?}"
        );
    }
    looks(&world, "all of them", &["audit ls"]);
    inert("the proxy's log", world.proxy_log().as_bytes());
}

#[test]
fn what_a_role_writes_on_requests_is_inert_for_reviewers_and_whole_for_programs() {
    let mut world = World::with_nodes()
        .user("ann", "requester,annotated")
        .documents("kind: role\nmetadata: {name: annotated}\nspec: {}\n")
        .start();
    world.stop_proxy().exits(0);
    world.log_as_json();
    world.start_proxy();
    let resource = format!("{}?logins={}", world.node("iot").resource_id, login());
    let mut written = 0;
    for (what, text) in texts() {
        let role = json!({
            "kind": "role", "version": "v8", "metadata": {"name": "annotated"},
            "spec": {"allow": {"request": {
                "roles": ["access"], "search_as_roles": ["access"],
                "annotations": {"note": [text, "second"], text.clone(): ["x"]},
            }}},
        });
        let put = world.replace(&escaped(&role));
        finished_inert(what, &put);
        if put.code() != Some(0) {
            continue;
        }
        let words = [
            "request",
            "create",
            "--nowait",
            "--reason=work",
            "--resource",
        ];
        let ann = world.person("ann");
        let asked = ann.access(&words).arg(&resource).run();
        finished_inert(what, &asked);
        let id = request_id(&(asked.text() + &asked.stderr));
        let lines = ["request ls".to_owned(), format!("request show {id}")];
        bob_looks(&world, what, &lines);
        let shown = world
            .ctl(&["request", "show", &id, "--format", "json"])
            .json();
        let notes = &shown["system_annotations"];
        assert!(holds(&notes["note"], &text), "{what}: {shown}");
        // And those of whoever decides on behalf of another.
        let given = world
            .ctl_cmd(&[
                "requests",
                "deny",
                &id,
                "--delegator",
                "bob",
                "--annotations",
            ])
            .arg(format!("ticket={}", text.replace(',', ";")))
            .run();
        finished_inert(what, &given);
        if given.code() != Some(0) {
            world.deny(&id, "next");
        }
        bob_looks(&world, what, &lines);
        written += 1;
    }
    assert!(written > 4, "{written}");
    looks(
        &world,
        "all of them",
        &["audit ls", "requests ls", "get role/annotated"],
    );
    let log = world.proxy_log();
    inert("the log", log.as_bytes());
    for line in log.lines().filter(|line| !line.starts_with("anteroom: ")) {
        serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
}

#[test]
fn names_of_files_and_commands_are_inert_for_reviewers_and_whole_in_the_audit() {
    let world = World::with_nodes()
        .config("max_requests_per_user_per_hour: 1000")
        .start();
    let target = format!("{}@iot", login());
    let alice = world.person("alice");
    let hostile = HOSTILE
        .iter()
        .filter_map(|(what, bytes)| Some((*what, std::str::from_utf8(bytes).ok()?)));
    for (number, (what, text)) in hostile.enumerate() {
        let text = text.replace('\'', "");
        // One of each in turn: they are told apart by their first word alone.
        let (event, command) = match number % 3 {
            0 => ("exec", format!("true '{text}'")),
            1 => ("scp", format!("scp -t '/tmp/{text}'")),
            _ => ("scp", format!("sftp-server '{text}'")),
        };
        let scoped = ["-o", "SetEnv=ANTEROOM_SCOPE=command"];
        let held = alice
            .ssh(Way::OneHop, &scoped, &target, &[&command])
            .start();
        held.expect_err("Waiting for request approval...");
        let id = request_id(&held.err.text());
        inert(what, held.err.text().replace("\r\n", "\n").as_bytes());
        let lines = ["request ls".to_owned(), format!("request show {id}")];
        bob_looks(&world, what, &lines);
        let shown = world.person("bob").access(&["request", "show", &id]).run();
        let shown_text = shown.text();
        let grants = shown_text
            .lines()
            .filter(|line| line.starts_with("Grants:"));
        assert_eq!(grants.count(), 1, "{what}: {shown}");
        world.approve(&id);
        // From here on what is said is the program's, byte for byte.
        held.finish(PATIENCE).says("Approval received from bob");
        let ran = world.events(event);
        let ran = ran.last().unwrap_or_else(|| panic!("{what}: no {event}"));
        assert_eq!(ran["command"], command.as_str(), "{what}");
        world.ctl(&["requests", "rm", &id]).exits(0);
    }
    looks(&world, "all of them", &["audit ls"]);
    inert("the proxy's log", world.proxy_log().as_bytes());
}

/// How a node can refuse, each time with a text of its own.
type Refusal = (
    &'static str,
    fn(&mut Raw, &RawKey, &[u8]) -> std::io::Result<()>,
);

const REFUSALS: &[Refusal] = &[
    ("a banner and no", |raw, key, text| {
        raw.greet(key)?;
        raw.serve_service()?;
        raw.recv_until(msg::USERAUTH_REQUEST)?;
        raw.send(Msg::new(msg::USERAUTH_BANNER).string(text).string("en"))?;
        loop {
            raw.send(Msg::new(msg::USERAUTH_FAILURE).string("publickey").byte(0))?;
            raw.recv_until(msg::USERAUTH_REQUEST)?;
        }
    }),
    ("methods that nobody has", |raw, key, text| {
        raw.greet(key)?;
        raw.serve_service()?;
        loop {
            raw.recv_until(msg::USERAUTH_REQUEST)?;
            raw.send(Msg::new(msg::USERAUTH_FAILURE).string(text).byte(0))?;
        }
    }),
    ("a goodbye at the login", |raw, key, text| {
        raw.greet(key)?;
        raw.serve_service()?;
        raw.recv_until(msg::USERAUTH_REQUEST)?;
        raw.send(Msg::new(msg::DISCONNECT).u32(2).string(text).string("en"))
    }),
    ("a refused session", |raw, key, text| {
        raw.let_in(key)?;
        let channel = raw.asked_for_session()?;
        let refused = Msg::new(msg::CHANNEL_OPEN_FAILURE).u32(channel).u32(1);
        raw.send(refused.string(text).string("en"))
    }),
    ("a goodbye in the session", |raw, key, text| {
        raw.let_in(key)?;
        raw.session_runs()?;
        raw.send(Msg::new(msg::DISCONNECT).u32(11).string(text).string("en"))
    }),
    ("a debug message, and gone", |raw, key, text| {
        raw.let_in(key)?;
        raw.session_runs()?;
        raw.send(Msg::new(msg::DEBUG).byte(1).string(text).string("en"))?;
        raw.stream().shutdown(std::net::Shutdown::Both)
    }),
];

#[test]
fn what_a_node_says_when_it_refuses_is_inert_for_the_user_in_the_audit_and_in_the_log() {
    let mut world = World::builder()
        .config("max_startups_per_source: 100\nmax_connections_per_user: 256")
        .start();
    world.add_user("carol", "access", KeyType::Ed25519);
    let mut clients = Vec::new();
    for (number, (how, refuse)) in REFUSALS.iter().enumerate() {
        for (what, hostile) in HOSTILE {
            let name = format!("no{number}-{}", clients.len());
            let (refuse, hostile) = (*refuse, *hostile);
            RawNode::start(&world, &name, move |raw: &mut Raw, key: &RawKey| {
                refuse(raw, key, hostile)
            });
            let target = format!("{}@{name}", login());
            let way = Way::BOTH[clients.len() % 2];
            let client = world.person("carol").ssh(way, &[], &target, &["true"]);
            clients.push((format!("{how}: {what}"), client.start()));
        }
        for (what, client) in clients.drain(..) {
            let finished = client.finish(PATIENCE);
            assert_eq!(finished.code(), Some(69), "{what}: {finished}");
            assert!(finished.stdout.is_empty(), "{what}: {finished}");
            finished_inert(&what, &finished);
            assert!(finished.stderr.contains("ERROR: "), "{what}: {finished}");
            let forged = |line: &str| {
                line.starts_with("Request ID: 00000000") || line.starts_with("2026-11-21T00:00:00Z")
            };
            assert!(!finished.stderr.lines().any(forged), "{what}: {finished}");
        }
    }
    looks(&world, "all of them", &["audit ls", "nodes ls -v"]);
    inert("the proxy's log", world.proxy_log().as_bytes());
}
