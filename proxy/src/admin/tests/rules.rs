//! `where` of rules: hana administers what is staging, and nothing else, by every command.

use super::*;

const OBJECTS: &str = r#"kind: role
version: v8
metadata: {name: staging-admin}
spec:
  allow:
    rules:
      - resources: [node, role, db, app, kube_cluster, windows_desktop]
        verbs: ['*']
        where: 'resource.metadata.labels["env"] == "staging"'
      - resources: [user]
        verbs: ['*']
        where: 'contains(resource.spec.traits["team"], "staging")'
      - resources: [access_request]
        verbs: ['*']
        where: 'resource.spec.user == "alice"'
      - resources: [lock]
        verbs: ['*']
        where: 'resource.spec.target.user == "alice" || resource.spec.target.login == "deploy"'
      - resources: [cert_authority]
        verbs: [read]
        where: 'resource.spec.type == "node"'
      - resources: [access_monitoring_rule]
        verbs: ['*']
        where: 'has_prefix(resource.metadata.name, "staging-")'
  deny:
    rules:
      - resources: [user]
        verbs: [update, delete]
        where: 'contains(resource.spec.roles, "editor")'
---
kind: role
version: v8
metadata: {name: ours, labels: {env: staging}}
---
kind: role
version: v8
metadata: {name: theirs, labels: {env: prod}}
---
kind: user
version: v2
metadata: {name: sam}
spec: {traits: {team: [staging]}}
---
kind: user
version: v2
metadata: {name: stella}
spec: {roles: [editor], traits: {team: [staging]}}
---
kind: db
version: v3
metadata: {name: orders, labels: {env: staging}}
spec: {protocol: postgres, uri: '10.0.0.6:5432'}
---
kind: db
version: v3
metadata: {name: ledger, labels: {env: prod}}
spec: {protocol: postgres, uri: '10.0.0.6:5432'}
"#;

async fn with_hana() -> World {
    let world = world().await;
    let said = world.says_to("ctl", "create -f -", OBJECTS).await;
    assert_eq!(said.code, 0, "{said:?}");
    let by = crate::state::By::local_administrator();
    let hana = user("hana", &["staging-admin"], &[]);
    let stored = world.ctx.state.put(&by, vec![hana], Existing::Refuse).await;
    stored.unwrap();
    for line in [
        "lock --user alice",
        "lock --user bob",
        "lock --login deploy",
        "users lock nina --message gone",
    ] {
        assert_eq!(world.says("ctl", line).await.code, 0, "{line}");
    }
    world
}

fn document(line: &str, name: &str, labels: &str) -> String {
    format!("kind: {line}\nversion: v8\nmetadata: {{name: {name}, labels: {labels}}}\nspec: {{}}\n")
}

#[tokio::test]
async fn a_listing_shows_what_passes_and_is_silent_about_the_rest() {
    let world = with_hana().await;
    for (line, shown, hidden) in [
        ("nodes ls", "iot", "n2"),
        ("nodes ls --format json", "\"iot\"", "\"n2\""),
        ("get nodes --format text", "iot", "n2"),
        ("get nodes", "name: iot", "n2"),
        ("get roles", "name: ours", "theirs"),
        ("get roles --format text", "ours", "access"),
        ("get dbs", "orders", "ledger"),
        ("users ls", "sam", "bob"),
        ("get users --format json", "\"sam\"", "\"erin\""),
        ("get all", "name: ours", "ledger"),
        ("get all --format text", "orders", "n2"),
        ("locks ls", "alice", "bob"),
        ("locks ls --format json", "deploy", "nina"),
        ("get locks", "alice", "bob"),
        ("get locks --format text", "login deploy", "nina"),
    ] {
        let said = world.says("hana", line).await;
        assert_eq!(said.code, 0, "{line}: {said:?}");
        assert!(said.out.contains(shown), "{line}: {said:?}");
        assert!(!said.out.contains(hidden), "{line}: {said:?}");
        // Whose rules have no condition sees both.
        let all = world.says("erin", line).await;
        assert!(
            all.out.contains(shown) && all.out.contains(hidden),
            "{line}: {all:?}"
        );
    }
}

#[tokio::test]
async fn what_does_not_pass_is_neither_read_nor_changed_nor_removed() {
    let world = with_hana().await;
    let before = world.says("ctl", "get all --format json").await.out;
    // Where there is no right at all, it is as if it were not there, in the words for what is not.
    for (line, there, not_there) in [
        ("nodes show X", "n2", "nosuch"),
        ("nodes rm X", "n2", "nosuch"),
        ("nodes update X --labels env=staging", "n2", "nosuch"),
        ("nodes sshd-config X", "n2", "nosuch"),
        ("get node/X", "n2", "nosuch"),
        ("rm node/X", "n2", "nosuch"),
        ("get role/X", "theirs", "nosuch"),
        ("rm role/X", "theirs", "nosuch"),
        ("get db/X", "ledger", "nosuch"),
        ("rm db/X", "ledger", "nosuch"),
        ("users show X", "bob", "nosuch"),
        ("users update X --logins root", "bob", "nosuch"),
        ("users rm X", "bob", "nosuch"),
        ("users lock X", "bob", "nosuch"),
        ("users unlock X", "nina", "nosuch"),
        ("get user/X", "bob", "nosuch"),
        ("rm user/X", "bob", "nosuch"),
    ] {
        let known = world.says("hana", &line.replace('X', there)).await;
        let unknown = world.says("hana", &line.replace('X', not_there)).await;
        assert_eq!(
            (known.code, known.out.as_str()),
            (66, ""),
            "{line}: {known:?}"
        );
        assert_eq!(
            known.err.replace(there, "X"),
            unknown.err.replace(not_there, "X"),
            "{line}"
        );
    }
    // Where she may do something with it, she is told what she may not.
    for line in [
        "users update stella --logins root",
        "users rm stella",
        "users lock stella",
        "rm user/stella",
        "auth export --type user",
        "auth export --type krl",
    ] {
        let said = world.says("hana", line).await;
        assert_eq!((said.code, said.out.as_str()), (77, ""), "{line}: {said:?}");
        assert!(
            said.err.contains("none of your roles allows"),
            "{line}: {said:?}"
        );
    }
    let after = world.says("ctl", "get all --format json").await.out;
    assert_eq!(before, after);
    for line in [
        "nodes show iot",
        "nodes sshd-config iot",
        "nodes update iot --labels env=staging,os=bsd",
        "users show sam",
        "users show stella",
        "users update sam --logins root",
        "users lock sam",
        "users unlock sam",
        "auth export --type node",
        "get role/ours",
        "rm role/ours",
        "rm db/orders",
        "users rm sam",
        "nodes rm iot",
    ] {
        let said = world.says("hana", line).await;
        assert_eq!(said.code, 0, "{line}: {said:?}");
    }
}

#[tokio::test]
async fn nothing_is_taken_over_given_away_or_made_that_does_not_pass() {
    let world = with_hana().await;
    let before = world.says("ctl", "get all --format json").await.out;
    let n2 = world.says("ctl", "get node/n2").await.out;
    let taken = n2.replace("env: prod", "env: staging");
    assert_ne!(taken, n2);
    for (line, stdin) in [
        // Another's, said to be one's own.
        ("create --force -f -", taken),
        (
            "create --force -f -",
            document("role", "theirs", "{env: staging}"),
        ),
        ("create -f -", document("role", "theirs", "{env: staging}")),
        // One's own, given away.
        (
            "create --force -f -",
            document("role", "ours", "{env: prod}"),
        ),
        ("nodes update iot --labels env=prod", String::new()),
        ("nodes update iot --labels ''", String::new()),
        ("users update sam --traits team=prod", String::new()),
        ("users update sam --roles editor", String::new()),
        // Made as another's.
        ("create -f -", document("role", "new", "{env: prod}")),
        ("create -f -", document("role", "new", "{}")),
        (
            "nodes add x --addr 192.0.2.1:22 --host-ca --labels env=prod",
            String::new(),
        ),
        ("users add zoe --key -", key("zoe").to_openssh().unwrap()),
        ("lock --user bob", String::new()),
        ("lock --role editor", String::new()),
        // All of a file or nothing of it.
        (
            "create -f -",
            format!(
                "{}---\n{}",
                document("role", "new", "{env: staging}"),
                document("role", "newer", "{env: prod}")
            ),
        ),
    ] {
        let said = world.says_to("hana", line, &stdin).await;
        assert_eq!(
            (said.code, said.out.as_str()),
            (77, ""),
            "{line} {stdin}: {said:?}"
        );
    }
    let after = world.says("ctl", "get all --format json").await.out;
    assert_eq!(before, after);
    let said = world
        .says_to(
            "hana",
            "create -f -",
            &document("role", "new", "{env: staging}"),
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
}

#[tokio::test]
async fn requests_are_administered_where_the_condition_holds() {
    let world = world().await;
    let alices = world.filed("iot").await;
    let said = world.says_to("ctl", "create -f -", OBJECTS).await;
    assert_eq!(said.code, 0, "{said:?}");
    let by = crate::state::By::local_administrator();
    let hana = user("hana", &["staging-admin"], &[]);
    world
        .ctx
        .state
        .put(&by, vec![hana], Existing::Refuse)
        .await
        .unwrap();
    let line = "request create --nowait --resource iot --reason x --format json";
    let said = world.says("erin", line).await;
    let request: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let erins = request["id"].as_str().unwrap();
    for line in ["requests ls", "request ls", "requests ls --format json"] {
        let said = world.says("hana", line).await;
        assert!(
            said.out.contains(&alices) && !said.out.contains(erins),
            "{line}: {said:?}"
        );
    }
    for line in [
        "requests get X",
        "requests approve X",
        "requests deny X",
        "requests rm X",
        "request show X",
    ] {
        let there = world.says("hana", &line.replace('X', erins)).await;
        assert_eq!(
            (there.code, there.out.as_str()),
            (66, ""),
            "{line}: {there:?}"
        );
    }
    // One that does not pass keeps the others of the command from being decided.
    let both = world
        .says("hana", &format!("requests approve {alices} {erins}"))
        .await;
    assert_eq!(both.code, 66, "{both:?}");
    for (line, code) in [
        ("requests create erin --resource iot --reason x", 77),
        (
            "requests create erin --resource iot --reason x --dry-run",
            77,
        ),
        (
            "requests create alice --resource n2 --reason x --dry-run",
            0,
        ),
        ("requests create alice --resource n2 --reason x", 0),
        ("requests capabilities erin", 77),
        ("requests capabilities alice", 0),
    ] {
        let said = world.says("hana", line).await;
        assert_eq!(said.code, code, "{line}: {said:?}");
    }
    let said = world
        .says("hana", &format!("requests approve {alices}"))
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    // The state asks as well: no path around the command.
    let id = name(erins);
    let Caller::Ssh {
        identity,
        remote_addr,
    } = caller("hana")
    else {
        panic!()
    };
    let by = crate::state::By::user(identity, remote_addr);
    let deny = anteroom_core::request::Action::Deny {
        reason: String::new(),
    };
    let refused = world.ctx.state.apply(&by, id, deny).await;
    assert!(
        matches!(refused, Err(crate::state::ApplyError::NotAllowed { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn an_explanation_shows_no_role_that_may_not_be_read() {
    let world = with_hana().await;
    let role = "kind: role
version: v8
metadata: {name: reader}
spec:
  allow:
    rules:
      - {resources: [user, node], verbs: [read]}
      - {resources: [role], verbs: [read], where: 'resource.metadata.name != \"access\"'}
";
    world.says_to("ctl", "create -f -", role).await;
    let by = crate::state::By::local_administrator();
    let rita = user("rita", &["reader"], &[]);
    world
        .ctx
        .state
        .put(&by, vec![rita], Existing::Refuse)
        .await
        .unwrap();
    // Carol's only role is `access`, nina has none.
    let carols = world.says("rita", "explain root@iot --user carol").await;
    assert_eq!((carols.code, carols.out.as_str()), (77, ""), "{carols:?}");
    let none = world.says("rita", "explain root@iot --user sam").await;
    assert_eq!(none.code, 0, "{none:?}");
    // Who may read no such user, or no such node, learns of neither.
    for line in ["explain root@iot --user bob", "explain root@n2 --user sam"] {
        let said = world.says("hana", line).await;
        assert_eq!((said.code, said.out.as_str()), (66, ""), "{line}: {said:?}");
    }
}
