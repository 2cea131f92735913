//! What administrators do for others, and what is asked for narrowly.

use super::transcripts::Transcript;
use super::*;

#[tokio::test]
async fn administrators_file_for_others_and_decide_on_behalf() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    for line in [
        "requests capabilities alice",
        "requests capabilities alice --format json",
        "requests capabilities alice --format yaml",
        "requests capabilities nobody",
        "requests create alice --resource iot --reason on call --dry-run",
        "requests create alice --resource iot --reason on call --annotations ticket=42,team=db",
        "requests create alice --resource iot --reason on call",
        "requests create nobody --resource iot",
        "requests create alice --roles editor --reason x",
        "requests create alice",
    ] {
        t.add("ctl", line).await;
    }
    t.add("bob", "requests create alice --resource iot").await;
    t.add("bob", "requests capabilities alice").await;
    t.add(
        "erin",
        "requests create alice --resource root@n2 --reason by erin --format json",
    )
    .await;
    let view = world.ctx.state.view();
    let of = |by: &str| {
        let all: Vec<_> = view.requests().map(|r| r.filed_by.clone()).collect();
        let found = view.requests().find(|request| {
            request
                .filed_by
                .as_ref()
                .map(ToString::to_string)
                .as_deref()
                == Some(by)
        });
        found
            .unwrap_or_else(|| panic!("{by}: {all:?}\n{}", t.text()))
            .id
            .to_string()
    };
    let (first, second) = (of("the local administrator"), of("erin"));
    t.add(
        "ctl",
        &format!("requests approve {first} --delegator alice"),
    )
    .await;
    t.add(
        "erin",
        &format!("requests approve {first} --delegator bob --annotations ticket=42 --reason okay"),
    )
    .await;
    t.add("alice", &format!("request show {first}")).await;
    t.add("alice", &format!("request show {first} --format json"))
        .await;
    t.add("alice", "ls").await;
    t.add("ctl", &format!("requests deny {second} --delegator alice"))
        .await;
    t.add(
        "ctl",
        &format!("requests deny {second} --delegator bob --reason no"),
    )
    .await;
    t.add(
        "ctl",
        "audit ls --event access_request.update --format json",
    )
    .await;
    t.compare("administrator.txt");
}

#[tokio::test]
async fn an_approval_with_other_roles_is_the_administrators_alone() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let roles = "kind: role\nmetadata: {name: dba}\nspec: {allow: {logins: [dba], node_labels: {'*': '*'}}}\n---\n\
        kind: role\nmetadata: {name: db-support}\nspec: {allow: {logins: [dbs], node_labels: {'*': '*'}}}\n---\n\
        kind: role\nmetadata: {name: asks-dba}\nspec: {allow: {request: {roles: [dba]}, review_requests: {roles: ['*']}}}\n---\n\
        kind: role\nmetadata: {name: decider}\nspec: {allow: {rules: [{resources: [access_request], verbs: ['*']}]}}\n";
    assert_eq!(world.says_to("ctl", "create -f -", roles).await.code, 0);
    for change in [
        "users update alice --roles requester,asks-dba",
        "users update bob --roles reviewer,asks-dba,decider",
    ] {
        assert_eq!(world.says("ctl", change).await.code, 0);
    }
    let said = world
        .says(
            "alice",
            "request create --roles dba --reason x --nowait --format json",
        )
        .await;
    let request: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let id = request["id"].as_str().unwrap();
    t.add(
        "bob",
        &format!("request review {id} --approve --roles db-support"),
    )
    .await;
    t.add("bob", &format!("requests approve {id} --roles db-support"))
        .await;
    t.add(
        "erin",
        &format!("request review {id} --approve --roles db-support"),
    )
    .await;
    t.add("erin", &format!("requests approve {id} --roles nosuch"))
        .await;
    t.add(
        "erin",
        &format!("requests approve {id} --roles db-support --reason support is enough"),
    )
    .await;
    t.add("alice", &format!("request show {id}")).await;
    t.add("alice", &format!("request show {id} --format yaml"))
        .await;
    t.add("alice", "ls --format json").await;
    t.add(
        "ctl",
        "audit ls --event access_request.update --format json",
    )
    .await;
    t.compare("override.txt");
}

#[tokio::test]
async fn a_scope_of_one_command_is_shown_for_what_it_is() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    for line in [
        "request create --resource root@iot --scope command --command 'systemctl restart \"my app\"' --reason hung --nowait",
        "request create --resource root@iot --scope command --command 'systemctl restart \"my app\"' --nowait",
        "request create --resource root@iot --scope command --command uptime --nowait --format json",
        "request create --resource root@iot --scope command --nowait",
        "request create --resource root@iot --command uptime --nowait",
        "request create --resource root@iot --scope shell --command uptime --nowait",
        "request create --roles access --scope command --command uptime --nowait",
    ] {
        t.add("alice", line).await;
    }
    t.compare("scope.txt");
}

#[tokio::test]
async fn what_makes_no_request_is_one_sentence_with_its_exit_code_and_writes_no_row() {
    let world = world().await;
    let far = "2026-11-28T20:00:01Z";
    let long = "x".repeat(4097);
    let reviewers: Vec<String> = (0..21).map(|n| format!("u{n}")).collect();
    let reviewers = reviewers.join(",");
    let many: String = (0..301)
        .map(|n| format!(" --resource /example.com/node/00000000-0000-4000-8000-{n:012}"))
        .collect();
    let create = |rest: &str| format!("request create --nowait {rest}");
    let cases: Vec<(&str, String, u8, &str)> = vec![
        ("alice", create("--reason x"), 64, "lacks `--resource"),
        (
            "alice",
            create("--resource nosuch"),
            66,
            "no such node `nosuch`",
        ),
        ("nina", create("--resource iot"), 66, "no such node `iot`"),
        (
            "alice",
            create("--roles nosuch"),
            66,
            "role `nosuch` can't be asked for",
        ),
        (
            "alice",
            create("--roles editor"),
            66,
            "role `editor` can't be asked for",
        ),
        ("carol", create("--resource iot"), 1, "already"),
        (
            "alice",
            create("--resource nobody@iot"),
            77,
            "login `nobody`",
        ),
        (
            "alice",
            create("--resource /example.com/db/orders"),
            66,
            "no such db `orders`",
        ),
        (
            "alice",
            create(&format!("--resource iot --reason {long}")),
            64,
            "4097 bytes long",
        ),
        (
            "alice",
            create(&format!("--resource iot --reviewers {reviewers}")),
            64,
            "21 reviewers",
        ),
        ("alice", create(&many), 64, "301 resources"),
        (
            "alice",
            create("--resource iot --assume-start-time 2026-11-20T19:59:59Z"),
            64,
            "is over",
        ),
        (
            "alice",
            create(&format!("--resource iot --assume-start-time {far}")),
            64,
            "more than 7d ahead",
        ),
    ];
    for (who, line, code, sentence) in cases {
        let shown: String = line.chars().take(90).collect();
        let said = world.says(who, &line).await;
        assert_eq!(said.code, code, "{who}: {shown}: {said:?}");
        assert!(said.err.contains(sentence), "{who}: {shown}: {}", said.err);
        assert_eq!(said.out, "", "{who}: {shown}");
        assert_eq!(world.requests(), 0, "{who}: {shown}");
        let stored = world.ctx.state.reader().requests(10).await.unwrap();
        assert!(stored.is_empty(), "{who}: {shown}");
    }
    // The nearest thing that works writes one.
    world.filed("iot").await;
    assert_eq!(world.requests(), 1);
}
