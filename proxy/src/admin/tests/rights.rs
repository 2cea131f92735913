//! Who may do what, and what those are told who may not.

use super::*;

/// Commands of administrators, each with whether an auditor may give it.
const ADMINISTRATION: &[(&str, bool)] = &[
    ("requests ls", false),
    ("requests get ID", false),
    ("requests approve ID", false),
    ("requests deny ID", false),
    ("requests rm ID", false),
    ("audit ls", true),
    ("audit export", true),
    ("audit verify", true),
    ("users add zoe --key -", false),
    ("users ls", false),
    ("users show bob", false),
    ("users update bob --roles ''", false),
    ("users rm bob", false),
    ("users lock bob", false),
    ("users unlock bob", false),
    ("nodes add x --addr 192.0.2.1:22 --host-ca", false),
    ("nodes ls", false),
    ("nodes show iot", false),
    ("nodes rm iot", false),
    ("nodes update iot --labels env=x", false),
    ("nodes rekey iot --host-key -", false),
    ("nodes sshd-config iot", false),
    ("nodes tunnel-unit iot", false),
    ("nodes renewal iot", false),
    ("tokens add --type node", false),
    ("tokens ls", false),
    ("tokens rm t1", false),
    ("get tokens", false),
    ("rm token/t1", false),
    ("create -f -", false),
    ("get roles", false),
    ("get user/bob", false),
    ("get nodes", false),
    ("get all", false),
    ("rm role/access", false),
    ("rm user/bob", false),
    ("rm node/iot", false),
    ("auth export --type host", false),
    ("lock --user bob", false),
    ("lock --serial 7", false),
    ("locks ls", false),
    ("locks rm abcd", false),
    ("get locks", false),
    ("rm lock/abcd", false),
    ("explain root@iot --user erin", false),
];

#[tokio::test]
async fn administration_is_refused_to_everybody_whose_rules_do_not_allow_it() {
    let world = world().await;
    let id = world.filed("iot").await;
    for who in ["alice", "bob", "carol", "nina", "ada"] {
        for (line, auditors) in ADMINISTRATION {
            let line = line.replace("ID", &id);
            let said = world
                .says_to(
                    who,
                    &line,
                    "kind: role\nversion: v7\nmetadata: {name: x}\nspec: {}\n",
                )
                .await;
            if who == "ada" && *auditors {
                assert_eq!(said.code, 0, "{who} {line}: {said:?}");
                continue;
            }
            assert_eq!(
                (said.code, said.out.as_str()),
                (77, ""),
                "{who} {line}: {said:?}"
            );
            assert!(
                said.err.starts_with("ERROR: none of your roles allows "),
                "{who} {line}: {said:?}"
            );
        }
    }
    let view = world.ctx.state.view();
    assert!(view.user(&name("bob")).is_some() && view.user(&name("zoe")).is_none());
    assert_eq!(view.nodes().count(), 2);
    let refused = world
        .says("ada", "audit ls --event admin --format json")
        .await;
    let entries: Vec<serde_json::Value> = serde_json::from_str(&refused.out).unwrap();
    let allowed = ADMINISTRATION.iter().filter(|(_, auditors)| *auditors);
    let refusals = ADMINISTRATION.len() * 5 - allowed.count();
    assert_eq!(
        entries
            .iter()
            .filter(|entry| entry["success"] == false)
            .count(),
        refusals,
        "each refusal is in the log"
    );
    assert_eq!(entries[0]["user"], "alice");
    assert_eq!(entries[0]["command"], "requests ls");
}

#[tokio::test]
async fn nobody_decides_a_request_of_their_own_by_any_path() {
    let world = world().await;
    let said = world
        .says(
            "erin",
            "request create --nowait --resource iot --reason x --format json",
        )
        .await;
    let request: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let id = request["id"].as_str().unwrap();
    for line in [
        "request review ID --approve",
        "request review ID --deny",
        "requests approve ID",
        "requests deny ID",
    ] {
        let said = world.says("erin", &line.replace("ID", id)).await;
        assert_eq!(said.code, 77, "{line}: {said:?}");
        assert!(said.err.contains("of their own"), "{line}: {said:?}");
    }
    let shown = world.says("erin", &format!("request show {id}")).await;
    assert!(shown.out.contains("Status:      PENDING"), "{shown:?}");
    assert_eq!(
        world
            .says("bob", &format!("request review {id} --approve"))
            .await
            .code,
        0
    );
}

#[tokio::test]
async fn an_approval_gives_no_more_than_was_asked() {
    let world = world().await;
    let id = world.filed("root@iot").await;
    for line in [
        "request review ID --approve --roles editor".to_owned(),
        "request review ID --approve --resource n2".to_owned(),
        format!("request review ID --approve --resource /example.com/node/{N2}"),
        format!("request review ID --approve --resource /example.com/node/{IOT}?logins=deploy"),
        "request review ID --approve --max-duration 13h".to_owned(),
        "request review ID --deny --max-duration 1h".to_owned(),
    ] {
        let said = world.says("bob", &line.replace("ID", &id)).await;
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{line}: {said:?}");
    }
    let said = world
        .says(
            "bob",
            &format!("request review {id} --approve --resource iot --max-duration 1h"),
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    let shown = world.says("alice", &format!("request show {id}")).await;
    assert!(
        shown.out.contains("as root until 20 Nov 26 21:00 UTC"),
        "{shown:?}"
    );
}

#[tokio::test]
async fn what_a_user_may_not_know_of_is_answered_as_if_it_did_not_exist() {
    let world = world().await;
    let id = world.filed("iot").await;
    let missing = "00000000-0000-4000-8000-000000000000";
    for lock in ["lock --node n2", "lock --login deploy"] {
        assert_eq!(world.says("ctl", lock).await.code, 0);
    }
    for (line, there, not_there) in [
        ("request create --nowait --resource X", "iot", "nosuch"),
        ("request create --nowait --resource X", IOT, missing),
        (
            "request create --nowait --resource /example.com/node/X",
            IOT,
            missing,
        ),
        ("request create --nowait --resource root@X", "iot", "nosuch"),
        ("request show X", id.as_str(), missing),
        ("request cancel X", id.as_str(), missing),
        ("request assume X", id.as_str(), missing),
        ("request drop X", id.as_str(), missing),
        ("explain root@X", "iot", "nosuch"),
        ("explain root@X", IOT, missing),
        ("explain root@/example.com/node/X", IOT, missing),
        ("explain nobody@X", "iot", "nosuch"),
        ("explain root@X --user nina", "iot", "nosuch"),
        ("explain root@X --format json", "iot", "nosuch"),
        ("explain root@X --format yaml", IOT, missing),
        // Locks on what she may not know of make no difference.
        ("explain root@X", "n2", "nosuch"),
        ("explain deploy@X", "iot", "nosuch"),
    ] {
        let known = world.says("nina", &line.replace('X', there)).await;
        let unknown = world.says("nina", &line.replace('X', not_there)).await;
        assert_eq!(known.code, 66, "{line}: {known:?}");
        assert_eq!(unknown.code, 66, "{line}: {unknown:?}");
        assert_eq!(
            known.err.replace(there, "X"),
            unknown.err.replace(not_there, "X"),
            "{line}"
        );
        assert_eq!((known.out.as_str(), unknown.out.as_str()), ("", ""));
    }
    for line in [
        "ls",
        "request ls",
        "request search --kind node",
        "request search --roles",
        "",
        "config",
        "status",
    ] {
        let said = world.says("nina", line).await;
        assert!(
            !said.out.contains("iot") && !said.out.contains(&id),
            "{line}: {said:?}"
        );
    }
}

#[tokio::test]
async fn a_request_is_seen_by_its_user_and_its_reviewers_only() {
    let world = world().await;
    let id = world.filed("iot").await;
    for (who, sees) in [
        ("alice", true),
        ("bob", true),
        ("erin", true),
        ("carol", false),
        ("nina", false),
        ("ctl", true),
    ] {
        let listed = world.says(who, "request ls").await;
        assert_eq!(listed.out.contains(&id), sees, "{who}: {listed:?}");
        assert_eq!(
            world.says(who, &format!("request show {id}")).await.code,
            if sees { 0 } else { 66 },
            "{who}"
        );
    }
    // Who was told the whole ID learns that it isn't for her to review; a prefix finds nothing.
    assert_eq!(
        world
            .says("carol", &format!("request review {id} --approve"))
            .await
            .code,
        77
    );
    assert_eq!(
        world
            .says("carol", &format!("request review {} --approve", &id[..8]))
            .await
            .code,
        66
    );
    assert_eq!(
        world
            .says("carol", &format!("request cancel {id}"))
            .await
            .code,
        66
    );
    assert_eq!(
        world
            .says("bob", &format!("request cancel {id}"))
            .await
            .code,
        77
    );
    assert_eq!(
        world
            .says("erin", &format!("request assume {id}"))
            .await
            .code,
        77
    );
}

#[tokio::test]
async fn who_is_no_user_any_more_is_served_nothing() {
    let world = world().await;
    world
        .says("erin", "users lock alice --message 'left'")
        .await;
    let said = world.says("alice", "whoami").await;
    assert_eq!(
        (said.code, said.err.as_str()),
        (
            77,
            "ERROR: you are locked out: left; ask the proxy's administrator\n"
        )
    );
    world.says("erin", "users rm carol").await;
    assert_eq!(world.says("carol", "ls").await.code, 77);
    let bobs = key("other").to_openssh().unwrap();
    world
        .says_to("erin", "users update bob --key -", &bobs)
        .await;
    assert_eq!(
        world.says("bob", "ls").await.code,
        77,
        "the key was replaced"
    );
}

#[tokio::test]
async fn administration_from_a_nodes_own_address_is_refused() {
    let world = world().await;
    let there = node("hostile", "22222222-2222-4222-8222-222222222222", &[]);
    let Object::Node(mut there) = there else {
        panic!()
    };
    there.addr = name("203.0.113.5:22");
    let by = crate::state::By::local_administrator();
    world
        .ctx
        .state
        .put(&by, vec![Object::Node(there)], Existing::Refuse)
        .await
        .unwrap();
    let id = world.filed("iot").await;
    for (who, line) in [
        ("bob", format!("request review {id} --approve")),
        ("erin", format!("requests approve {id}")),
        ("erin", "users rm alice".to_owned()),
        ("erin", "nodes rm iot".to_owned()),
    ] {
        let said = world.says(who, &line).await;
        assert_eq!(said.code, 77, "{line}: {said:?}");
        assert!(said.err.contains("hostile"), "{line}: {said:?}");
    }
}

/// What reads, and needs a rule.
const READING: [&str; 14] = [
    "users ls",
    "users show alice",
    "nodes ls",
    "nodes show iot",
    "nodes sshd-config iot",
    "get roles",
    "get role/access",
    "get users --format text",
    "locks ls",
    "requests ls",
    "requests capabilities alice",
    "audit ls",
    "audit export",
    "audit verify",
];

#[tokio::test]
async fn reading_administration_from_a_nodes_address_is_refused_and_ones_own_is_not() {
    let world = world().await;
    world.filed("iot").await;
    let given = "request allow --user alice --labels env=staging --for 1h";
    assert_eq!(world.says("bob", given).await.code, 0);
    // nina sees them by her rules alone: she may review nothing.
    let editor = "users update nina --roles editor";
    assert_eq!(world.says("ctl", editor).await.code, 0);
    for line in ["request ls -f json", "request allows ls -f json"] {
        let said = world.says("nina", line).await;
        assert!(said.out.contains("alice"), "{line}: {said:?}");
    }
    for line in READING {
        let said = world.says("erin", line).await;
        assert_eq!(said.code, 0, "{line}: {said:?}");
    }
    let there = node("hostile", "22222222-2222-4222-8222-222222222222", &[]);
    let Object::Node(mut there) = there else {
        panic!()
    };
    // By name: what counts is where it is.
    there.addr = name("hostile.example.com:22");
    let by = crate::state::By::local_administrator();
    let state = &world.ctx.state;
    state
        .put(&by, vec![Object::Node(there)], Existing::Refuse)
        .await
        .unwrap();
    let address = "203.0.113.5".parse().unwrap();
    state
        .addresses()
        .seen("hostile.example.com", [address], state.now());
    for line in READING {
        let said = world.says("erin", line).await;
        assert_eq!((said.code, said.out.as_str()), (77, ""), "{line}: {said:?}");
        assert!(said.err.contains("`hostile`"), "{line}: {said:?}");
    }
    // What only her rules would show is not shown in listings for everybody either.
    for line in ["request ls -f json", "request allows ls -f json"] {
        let said = world.says("nina", line).await;
        assert_eq!((said.code, said.out.trim()), (0, "[]"), "{line}: {said:?}");
    }
    for line in ["ls", "status", "request ls", "whoami"] {
        let said = world.says("erin", line).await;
        assert_eq!(said.code, 0, "{line}: {said:?}");
    }
    let said = world.says("ctl", "users ls").await;
    assert_eq!(said.code, 0, "{said:?}");
}

const LISTER: &str = "
kind: role
version: v8
metadata: {name: lister}
spec: {allow: {rules: [{resources: ['*'], verbs: [list]}]}}
---
kind: role
version: v8
metadata: {name: reader}
spec: {allow: {rules: [{resources: [role], verbs: [list, read]}]}}
";

#[tokio::test]
async fn who_may_list_sees_names_and_who_may_read_as_well_documents() {
    let world = world().await;
    let said = world.says_to("ctl", "create -f -", LISTER).await;
    assert_eq!(said.code, 0, "{said:?}");
    for (who, role) in [("nina", "lister"), ("carol", "reader")] {
        let line = format!("users update {who} --roles {role}");
        assert_eq!(world.says("ctl", &line).await.code, 0);
    }
    for kind in ["roles", "users", "nodes", "all"] {
        let table = format!("get {kind} --format text");
        let said = world.says("nina", &table).await;
        assert_eq!(said.code, 0, "{table}: {said:?}");
        for format in ["yaml", "json"] {
            let line = format!("get {kind} --format {format}");
            let said = world.says("nina", &line).await;
            assert_eq!((said.code, said.out.as_str()), (77, ""), "{line}: {said:?}");
            assert!(said.err.contains("`read`"), "{line}: {said:?}");
        }
    }
    let said = world.says("carol", "get roles").await;
    assert!(said.out.contains("name: lister"), "{said:?}");
}
