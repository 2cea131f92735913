//! Listings of requests where there are more than one listing reads.

use anteroom_core::request::{Action, Wanted};

use super::*;

fn identity(who: &str) -> Identity {
    match caller(who) {
        Caller::Ssh { identity, .. } => identity,
        Caller::Local => panic!("{who}"),
    }
}

/// erin files and cancels requests until memory has let go of everything that ended before.
async fn many_of_erins(world: &World) {
    let settings = anteroom_core::view::Settings {
        filed_per_hour: usize::MAX,
        ..world.ctx.state.view().settings().clone()
    };
    world.ctx.state.configure(settings).await.unwrap();
    let erin = identity("erin");
    let by = crate::state::By::user(erin.clone(), SocketAddr::from(([203, 0, 113, 5], 1)));
    let node = format!("/example.com/node/{IOT}");
    for _ in 0..1010 {
        let mut wanted = Wanted::resources([name(&node)].into());
        wanted.reason = "again".to_owned();
        let filed = world.ctx.state.file(&erin, wanted).await.unwrap();
        let anteroom_core::request::Filed::New(new) = filed else {
            panic!("{filed:?}");
        };
        let canceled = world
            .ctx
            .state
            .apply(&by, new.request.id, Action::Cancel)
            .await;
        canceled.unwrap();
    }
}

#[tokio::test]
async fn neither_live_requests_nor_ones_own_vanish_behind_those_of_others() {
    let world = world().await;
    let canceled = world.filed("iot").await;
    let cancel = format!("request cancel {canceled}");
    assert_eq!(world.says("alice", &cancel).await.code, 0);
    world.clock.advance(time::Duration::minutes(1));
    let pending = world.filed("n2").await;
    world.clock.advance(time::Duration::minutes(1));
    many_of_erins(&world).await;
    let left_out = "Only the newest 20 requests that have ended are listed; ";
    let listed = async |who: &str, line: &str| {
        let said = world.says(who, &format!("{line} -f json")).await;
        assert_eq!(said.code, 0, "{line}: {said:?}");
        let rows: Vec<serde_json::Value> = serde_json::from_str(&said.out).unwrap();
        let ids: Vec<String> = rows
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, said.err)
    };
    for (who, line, expected, cut) in [
        (
            "alice",
            "request ls --mine",
            vec![&pending, &canceled],
            false,
        ),
        (
            "alice",
            "request ls --mine --state canceled",
            vec![&canceled],
            false,
        ),
        ("alice", "request ls --state pending", vec![&pending], false),
        ("bob", "request ls --reviewable", vec![&pending], false),
        (
            "ctl",
            "requests ls --state pending,approved",
            vec![&pending],
            false,
        ),
        ("ctl", "requests ls --state denied", vec![], false),
        ("bob", "request ls --suggested", vec![], false),
    ] {
        let (ids, said) = listed(who, line).await;
        assert!(ids.iter().eq(expected), "{who}: {line}: {ids:?}");
        assert_eq!(said.contains(left_out), cut, "{who}: {line}: {said}");
    }
    for (who, line) in [
        ("alice", "request ls"),
        ("bob", "request ls"),
        ("ctl", "requests ls"),
        ("ctl", "requests ls --state canceled,pending"),
    ] {
        let (ids, said) = listed(who, line).await;
        assert!(ids.contains(&pending), "{who}: {line}");
        assert_eq!(ids.contains(&canceled), who == "alice", "{who}: {line}");
        assert!(said.contains(left_out), "{who}: {line}: {said}");
    }
    // What is older is there by its ID.
    let shown = world
        .says("alice", &format!("request show {canceled}"))
        .await;
    assert_eq!(shown.code, 0, "{shown:?}");
}
