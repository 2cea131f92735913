//! Applications and databases with the real ssh: registered, found, asked for, approved; and
//! connecting to them refused with the sentence that says why, to those only who may know.

use anteroom_tests::{KeyType, Person, World, request_id};

const RESOURCES: &str = "kind: app
version: v3
metadata: {name: grafana, labels: {env: dev}}
spec: {uri: 'http://127.0.0.1:3000'}
---
kind: db
version: v3
metadata: {name: orders, labels: {env: dev}}
spec: {protocol: postgres, uri: '127.0.0.1:5432'}
";

const SENTENCE: &str = "is not served yet: it can be asked for and approved, and nothing more";

/// `ssh OPTIONS TARGET true` through the proxy's host alias.
fn ssh(person: &Person, words: &[&str]) -> anteroom_tests::Finished {
    person.client("ssh").args(words).run()
}

#[test]
fn what_is_no_node_is_asked_for_and_approved_and_connecting_says_what_is_missing() {
    let mut world = World::with_nodes().documents(RESOURCES).start();
    let alice = world.add_user("anna", "requester", KeyType::Ed25519);
    let nina = world.add_user("nina", "auditor", KeyType::Ed25519);

    let found = alice.access(&["request", "search", "--kind", "db"]).run();
    found.exits(0);
    assert!(
        found.text().contains("/example.com/db/orders"),
        "{}",
        found.text()
    );
    let asked = alice
        .access(&[
            "request",
            "create",
            "--nowait",
            "--reason",
            "work",
            "--resource",
            "db/orders",
            "--resource",
            "app/grafana",
        ])
        .run();
    asked.exits(0);
    let id = request_id(&asked.text());
    world.approve(&id);
    assert_eq!(world.state(&id), "APPROVED");

    // `-J`, one hop, and raw TCP.
    for words in [
        &["-J", "access", "viewer@orders", "true"][..],
        &["viewer@orders@access", "true"],
    ] {
        let refused = ssh(&alice, words);
        refused.exits(69);
        assert!(refused.stderr.contains(SENTENCE), "{}", refused.stderr);
        assert!(refused.stdout.is_empty(), "{:?}", refused.stdout);
        // Who may not know of it is answered as for a name that nobody has.
        let hidden = ssh(&nina, words);
        hidden.exits(77);
        let nobody: Vec<String> = words
            .iter()
            .map(|w| w.replace("orders", "nobody"))
            .collect();
        let nobody: Vec<&str> = nobody.iter().map(String::as_str).collect();
        let unknown = ssh(&nina, &nobody);
        unknown.exits(77);
        assert_eq!(hidden.stderr, unknown.stderr.replace("nobody", "orders"));
    }
    let raw = ssh(&alice, &["-W", "grafana:443", "access"]);
    assert!(raw.stderr.contains(SENTENCE), "{}", raw.stderr);
    assert!(raw.stdout.is_empty(), "{:?}", raw.stdout);
    let hidden = ssh(&nina, &["-W", "grafana:443", "access"]);
    assert!(!hidden.stderr.contains("served"), "{}", hidden.stderr);
    // Nothing was filed by any of it.
    assert_eq!(world.requests().len(), 1);
}
