//! Live sessions: who sees them, who ends them, and what is written down.

use time::macros::datetime;

use super::transcripts::Transcript;
use super::*;
use crate::live::{Place, Session};

/// A session of `user` that lives as long as the place.
fn lives(world: &World, number: u128, user: &str, on: &str, what: &str) -> Place {
    let view = world.ctx.state.view();
    let node = view.nodes_named(&name(on)).next().unwrap();
    world.ctx.sessions.enter(Session {
        id: anteroom_core::id::SessionId::from_uuid(uuid::Uuid::from_u128(number << 96 | 7)),
        user: name(user),
        node: Arc::clone(node),
        login: name("root"),
        request: None,
        from: "192.0.2.7:50000".parse().unwrap(),
        since: datetime!(2026-11-20 19:30 UTC),
        what: what.to_owned(),
    })
}

const KEEPER: &str = "
kind: role
version: v8
metadata: {name: keeper}
spec: {allow: {rules: [{resources: [session], verbs: [list, delete]}]}}
";

#[tokio::test]
async fn people_see_and_end_their_own_sessions_and_those_their_rules_name() {
    let world = world().await;
    let said = world.says_to("ctl", "create -f -", KEEPER).await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = world.says("ctl", "users update nina --roles keeper").await;
    assert_eq!(said.code, 0, "{said:?}");
    let mine = lives(&world, 0xaaaa_0001, "alice", "iot", "shell");
    let hers = lives(&world, 0xaaaa_0002, "carol", "n2", "exec: \u{1b}[2J");
    let mut t = Transcript::new(&world);
    t.add("alice", "sessions ls").await;
    t.add("carol", "sessions ls --format json").await;
    t.add("bob", "sessions ls").await;
    t.add("nina", "sessions ls").await;
    t.add("ctl", "sessions ls --format yaml").await;
    t.add("alice", "sessions kill aaaa0002").await;
    t.add("bob", "sessions kill aaaa0001").await;
    t.add("ada", "sessions kill aaaa0001").await;
    t.add("nina", "sessions kill aaaa").await;
    t.add("nina", "sessions kill aaa").await;
    t.add("alice", "sessions kill").await;
    for word in ["watch", "join", "play"] {
        t.add("alice", &format!("sessions {word} aaaa0001")).await;
    }
    assert_eq!(mine.killed().by(), None);
    t.add("alice", "sessions kill AAAA0001").await;
    t.add("nina", "sessions kill aaaa0002").await;
    t.add("ctl", "sessions kill aaaa0002").await;
    t.add("ctl", "audit ls --event session.kill").await;
    assert_eq!(mine.killed().by().as_deref(), Some("alice"));
    assert_eq!(hers.killed().by().as_deref(), Some("nina"), "the first one");
    hers.killed().wait().await;
    drop((mine, hers));
    t.add("ctl", "sessions ls").await;
    t.add("ctl", "sessions kill aaaa0002").await;
    t.compare("sessions.txt");
}
