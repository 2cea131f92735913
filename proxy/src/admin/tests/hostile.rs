//! Text that wants to be more than text, in every field that a peer can fill.

use anteroom_core::request::Wanted;
use std::collections::BTreeSet;

use super::*;

/// An escape sequence, its 8-bit form, a line that looks like ours, a bidirectional override, an invisible character.
const HOSTILE: &str =
    "x\u{1b}]0;owned\u{7}\u{9b}2J\r\nStatus:      APPROVED\u{202e}\u{200b}\u{e0041}";

fn is_clean(text: &str) -> bool {
    !text.chars().any(|c| c != '\n' && say::is_hostile(c))
}

async fn hostile_world() -> (World, String) {
    let world = world().await;
    let Object::Node(mut evil) = node(
        "evil",
        "33333333-3333-4333-8333-333333333333",
        &[("env", HOSTILE), (HOSTILE, "x")],
    ) else {
        panic!()
    };
    evil.host_proof = HostProof::Pinned(vec![format!("ssh-ed25519 AAAA {HOSTILE}")]);
    evil.egress_addresses = vec![HOSTILE.to_owned()];
    let Object::User(mut mallory) = user("mallory", &["requester"], &["root"]) else {
        panic!()
    };
    mallory
        .traits
        .insert(HOSTILE.to_owned(), vec![HOSTILE.to_owned()]);
    mallory.keys[0].openssh.push_str(HOSTILE);
    let mut locked = User::new(name("lucy"));
    locked.locked = Some(HOSTILE.to_owned());
    let mut role =
        anteroom_core::role::Role::clone(world.ctx.state.view().role(&name("access")).unwrap());
    role.description = Some(HOSTILE.to_owned());
    let by = crate::state::By::local_administrator();
    let objects = vec![
        Object::Node(evil),
        Object::User(mallory),
        Object::User(locked),
        Object::Role(role),
    ];
    world
        .ctx
        .state
        .put(&by, objects, Existing::Replace)
        .await
        .unwrap();
    let Caller::Ssh { identity, .. } = caller("mallory") else {
        panic!()
    };
    let ids = ["33333333-3333-4333-8333-333333333333", IOT].map(|id| {
        anteroom_core::id::ResourceId::node(name("example.com"), NodeId::parse(id).unwrap())
    });
    let wanted = Wanted {
        reason: HOSTILE.to_owned(),
        command: Some(HOSTILE.to_owned()),
        remote_addr: Some(HOSTILE.to_owned()),
        ..Wanted::resources(BTreeSet::from(ids))
    };
    let filed = world.ctx.state.file(&identity, wanted).await.unwrap();
    let anteroom_core::request::Filed::New(new) = filed else {
        panic!()
    };
    let id = new.request.id.to_string();
    let said = world
        .says(
            "bob",
            &format!("request review {id} --approve --reason '{HOSTILE}'"),
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    (world, id)
}

#[tokio::test]
async fn no_field_reaches_a_terminal_raw_in_any_format() {
    let (world, id) = hostile_world().await;
    let listings = [
        ("mallory", "ls -v"),
        ("alice", "request search --kind node -v"),
        ("alice", "request search --roles"),
        ("mallory", "request ls"),
        ("mallory", "request show ID"),
        ("mallory", "status"),
        ("mallory", "explain root@evil"),
        ("erin", "explain root@evil --user mallory"),
        ("bob", "request ls"),
        ("erin", "requests ls"),
        ("erin", "requests get ID"),
        ("erin", "users ls"),
        ("erin", "users show mallory"),
        ("erin", "users show lucy"),
        ("erin", "nodes ls -v"),
        ("erin", "nodes show evil"),
        ("erin", "get all"),
        ("ada", "audit ls"),
        ("ada", "audit verify"),
    ];
    for (who, line) in listings {
        for format in ["text", "json", "yaml"] {
            let line = format!("{} --format {format}", line.replace("ID", &id));
            let said = world.says(who, &line).await;
            assert_eq!(said.code, 0, "{line}: {said:?}");
            assert!(
                is_clean(&said.out) && is_clean(&said.err),
                "{line}: {said:?}"
            );
            match format {
                "json" => drop(serde_json::from_str::<serde_json::Value>(&said.out).expect(&line)),
                // Documents in a row are read one by one elsewhere.
                "yaml" if !line.starts_with("get") => {
                    drop(serde_saphyr::from_str::<serde_json::Value>(&said.out).expect(&line))
                }
                _ => assert!(
                    !said.out.contains("\nStatus:      APPROVED\n")
                        || line.contains("show")
                        || line.contains("get"),
                    "{line}"
                ),
            }
        }
    }
    let shown = world.says("bob", &format!("request show {id}")).await;
    assert_eq!(shown.out.matches("\nStatus:").count(), 1, "{shown:?}");
}

#[tokio::test]
async fn what_was_stored_comes_back_whole_in_json() {
    let (world, id) = hostile_world().await;
    let said = world
        .says("mallory", &format!("request show {id} --format json"))
        .await;
    let request: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(request["reason"], HOSTILE);
    assert_eq!(request["reviews"][0]["reason"], HOSTILE.trim());
}

#[tokio::test]
async fn a_hostile_argument_is_answered_clean_wherever_it_stands() {
    let world = world().await;
    let quoted = format!("'{HOSTILE}'");
    for line in [
        "X",
        "request X",
        "request ls --X",
        "request ls --state X",
        "ls X",
        "ls --format X",
        "request show X",
        "request create --resource X --nowait",
        "request create --resource /example.com/node/X --nowait",
        "request create --roles X --nowait",
        "request create --resource X@iot --nowait",
        "explain X@iot",
        "explain root@X",
        "users add X --key -",
        "users add x --key X",
        "users show X",
        "nodes add X --addr X --host-ca",
        "nodes show X",
        "nodes add n --addr 192.0.2.1:22 --host-ca --labels X=X",
        "get X",
        "get role/X",
        "rm role/X",
        "rm node/X",
        "audit ls --event X",
        "help X",
        "config --alias X",
        "nodes add n --addr 192.0.2.1:1 --scan",
        "request review X --approve",
        "auth export --type X",
        "create -f X",
    ] {
        for who in ["alice", "ctl"] {
            let line = line.replace('X', &quoted);
            let said = world.says(who, &line).await;
            assert_ne!(said.code, 0, "{line:?}");
            assert!(
                is_clean(&said.err) && said.out.is_empty(),
                "{line:?}: {said:?}"
            );
            assert!(said.err.len() < 2000, "{line:?}: {said:?}");
        }
    }
}
