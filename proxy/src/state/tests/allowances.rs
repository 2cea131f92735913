//! Pre-approvals on the real store: what they review and when, what the log says, and what a restart
//! keeps.

use std::collections::BTreeMap;

use anteroom_core::allowance::{AllowError as Unallowed, Covers};
use anteroom_core::request::State as RequestState;

use super::*;

/// Nodes that the label `env` has this value for.
fn covers(env: &str) -> Covers {
    Covers::Nodes {
        labels: BTreeMap::from([("env".to_owned(), env.to_owned())]),
        logins: None,
        roles: None,
    }
}

impl World {
    /// The world, with its node in production.
    async fn with_labels() -> Self {
        let world = world().await;
        world.relabel("prod").await;
        world
    }

    async fn relabel(&self, env: &str) {
        let labels = BTreeMap::from([("env".to_owned(), env.to_owned())]);
        self.state
            .update_node::<std::convert::Infallible, _>(&admin(), self.node, |node| {
                node.labels = labels;
                Ok(())
            })
            .await
            .unwrap();
    }

    async fn allow(&self, author: &str, covers: Covers, hours: i64) -> Result<Allowed, AllowError> {
        let lasts = Duration::hours(hours);
        self.state
            .allow(&me(author), &name("alice"), covers, lasts, "on call", None)
            .await
    }

    async fn logged(&self, event: Event) -> Vec<serde_json::Map<String, serde_json::Value>> {
        let filter = AuditFilter {
            event: Some(event),
            ..AuditFilter::default()
        };
        let found = self.state.reader().audit(&filter, 0, 10).await.unwrap();
        found.iter().map(|record| record.fields()).collect()
    }
}

#[tokio::test]
async fn it_reviews_in_the_transaction_that_files_and_the_log_says_in_whose_name() {
    let world = World::with_labels().await;
    let given = world.allow("bob", covers("prod"), 1).await.unwrap();
    let id = world.file("root").await;
    assert_eq!(world.state_of(id), RequestState::Approved);
    let request = world.state.request(id).await.unwrap().unwrap();
    assert_eq!(request.access_expires, given.allowance.ends);
    let created = &world.logged(Event::PreApprovalCreate).await[0];
    assert_eq!(created["user"], "bob");
    assert_eq!(created["name"], "alice");
    assert_eq!(created["labels"], "env=prod");
    assert_eq!(created["reason"], "on call");
    let review = &world.logged(Event::AccessRequestReview).await[0];
    assert_eq!(review["user"], "bob");
    assert_eq!(
        review["automatic"],
        format!("pre_approval/{}", given.allowance.id)
    );
    assert_eq!(review["state"], "APPROVED");
    world.issue("root").await.unwrap();
    world.state.reader().verify(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn what_it_opened_ends_with_it_while_nobody_asks() {
    let world = World::with_labels().await;
    world.allow("bob", covers("prod"), 1).await.unwrap();
    let id = world.file("root").await;
    world.issue("root").await.unwrap();
    let mut changes = world.state.changes();
    changes.borrow_and_update();
    world.clock.advance(Duration::hours(1));
    changes.changed().await.unwrap();
    assert_eq!(world.state_of(id), RequestState::Expired);
    assert!(world.state.view().allowances().next().is_none());
    let ended = &world.logged(Event::PreApprovalDelete).await[0];
    assert_eq!(ended["user"], crate::audit::PROXY);
    world.issue("root").await.unwrap_err();
    assert_eq!(
        world.state_of(world.file("root").await),
        RequestState::Pending
    );
}

#[tokio::test]
async fn what_is_pending_is_reviewed_when_it_is_given_and_nothing_else() {
    let world = World::with_labels().await;
    let pending = world.file("root").await;
    let none = world.allow("bob", covers("dev"), 1).await.unwrap();
    assert!(none.reviewed.is_empty());
    assert_eq!(world.state_of(pending), RequestState::Pending);
    let given = world.allow("bob", covers("prod"), 1).await.unwrap();
    assert_eq!(given.reviewed.len(), 1);
    assert_eq!(given.reviewed[0].id, pending);
    assert_eq!(world.state_of(pending), RequestState::Approved);
}

#[tokio::test]
async fn who_joins_a_pending_request_is_reviewed_by_what_covers_it_by_now() {
    let world = World::with_labels().await;
    world.relabel("dev").await;
    world.allow("bob", covers("prod"), 1).await.unwrap();
    let pending = world.file("root").await;
    assert_eq!(world.state_of(pending), RequestState::Pending);
    world.relabel("prod").await;
    assert_eq!(world.state_of(pending), RequestState::Pending);
    let joined = world
        .state
        .file(&me("alice"), world.wanted("root"))
        .await
        .unwrap();
    assert_eq!(joined, Filed::Joined(pending));
    assert_eq!(world.state_of(pending), RequestState::Approved);
}

#[tokio::test]
async fn a_node_with_another_label_and_an_author_without_his_role_open_nothing() {
    let world = World::with_labels().await;
    world.allow("bob", covers("prod"), 1).await.unwrap();
    world.relabel("dev").await;
    let first = world.file("root").await;
    assert_eq!(world.state_of(first), RequestState::Pending);
    world.relabel("prod").await;
    let objects = vec![Object::User(user("bob", &[]))];
    world
        .state
        .put(&admin(), objects, Existing::Replace)
        .await
        .unwrap();
    let second = world.file("deploy").await;
    assert_eq!(world.state_of(second), RequestState::Pending);
}

#[tokio::test]
async fn who_may_not_review_gives_nothing_in_advance_and_the_attempt_is_logged() {
    let world = World::with_labels().await;
    for (who, error) in [
        ("alice", Unallowed::Own),
        ("nina", Unallowed::NotNodes(name("alice"), None)),
    ] {
        if who == "nina" {
            let objects = vec![Object::User(user("nina", &[]))];
            let put = world.state.put(&admin(), objects, Existing::Refuse).await;
            put.unwrap();
        }
        let refused = world.allow(who, covers("prod"), 1).await;
        assert!(
            matches!(&refused, Err(AllowError::Refused(found)) if *found == error),
            "{refused:?}"
        );
    }
    // Who is no user any more, and who comes with a key that is no more.
    let gone = world.allow("dora", covers("prod"), 1).await;
    assert!(matches!(gone, Err(AllowError::NotAdmitted(_))), "{gone:?}");
    let logged = world.logged(Event::PreApprovalCreate).await;
    assert_eq!(logged.len(), 3);
    assert!(logged.iter().all(|entry| entry["success"] == false));
    assert!(world.state.view().allowances().next().is_none());
}

#[tokio::test]
async fn a_registered_node_gives_nothing_in_advance() {
    let world = World::with_labels().await;
    let from = Some("192.0.2.7:40000".parse().unwrap());
    let lasts = Duration::hours(1);
    let alice = name("alice");
    let refused = world
        .state
        .allow(&me("bob"), &alice, covers("prod"), lasts, "", from)
        .await;
    assert!(
        matches!(refused, Err(AllowError::FromNode(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn its_author_or_an_administrator_takes_it_back_and_nobody_else() {
    let world = World::with_labels().await;
    let given = world.allow("bob", covers("prod"), 1).await.unwrap();
    let id = given.allowance.id;
    let filed = world.file("root").await;
    let alice = By::user(me("alice"), None);
    let refused = world.state.disallow(&alice, vec![id]).await;
    assert!(
        matches!(refused, Err(DisallowError::NotYours { .. })),
        "{refused:?}"
    );
    let objects = vec![Object::User(user("nina", &["judge"]))];
    world
        .state
        .put(&admin(), objects, Existing::Refuse)
        .await
        .unwrap();
    let nina = By::user(me("nina"), None);
    let unknown = world.state.disallow(&nina, vec![id]).await;
    assert!(
        matches!(unknown, Err(DisallowError::NoSuch(_))),
        "{unknown:?}"
    );
    let bob = By::user(me("bob"), None);
    world.state.disallow(&bob, vec![id]).await.unwrap();
    // What it granted stays, and nothing new comes of it.
    assert_eq!(world.state_of(filed), RequestState::Approved);
    let next = world.file("deploy").await;
    assert_eq!(world.state_of(next), RequestState::Pending);
    let other = world.allow("bob", covers("dev"), 1).await.unwrap();
    let carol = By::user(me("carol"), None);
    let ids = vec![other.allowance.id];
    world.state.disallow(&carol, ids.clone()).await.unwrap();
    let twice = world.state.disallow(&carol, ids).await;
    assert!(matches!(twice, Err(DisallowError::NoSuch(_))), "{twice:?}");
}

#[tokio::test]
async fn who_is_removed_leaves_none_behind() {
    for gone in ["alice", "bob"] {
        let world = World::with_labels().await;
        world.allow("bob", covers("prod"), 1).await.unwrap();
        let ids = vec![ObjectId::User(name(gone))];
        world.state.remove(&admin(), ids).await.unwrap();
        assert!(world.state.view().allowances().next().is_none(), "{gone}");
        let role = if gone == "alice" { "asker" } else { "judge" };
        let objects = vec![Object::User(user(gone, &[role]))];
        world
            .state
            .put(&admin(), objects, Existing::Refuse)
            .await
            .unwrap();
        let id = world.file("root").await;
        assert_eq!(world.state_of(id), RequestState::Pending, "{gone}");
    }
}

#[tokio::test]
async fn a_restart_keeps_those_that_have_not_ended() {
    let world = World::with_labels().await;
    world.allow("bob", covers("prod"), 1).await.unwrap();
    let kept = world.allow("carol", covers("prod"), 3).await.unwrap();
    let World {
        dir,
        clock,
        state,
        node,
    } = world;
    state.close().await;
    drop(state);
    clock.advance(Duration::hours(2));
    let state = open(dir.path(), &clock).await.unwrap();
    let view = state.view();
    let left: Vec<_> = view.allowances().collect();
    assert_eq!(left, [&kept.allowance]);
    let world = World {
        dir,
        clock,
        state,
        node,
    };
    let id = world.file("root").await;
    let request = world.state.request(id).await.unwrap().unwrap();
    assert_eq!(request.access_expires, kept.allowance.ends);
    assert!(request.reviews[0].author.is_user(&name("carol")));
}

#[tokio::test]
async fn the_database_refuses_what_may_not_be() {
    let world = World::with_labels().await;
    let given = world.allow("bob", covers("prod"), 1).await.unwrap();
    let id = given.allowance.id.to_string();
    let path = world.dir.path().join(DATABASE);
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let own = r#"{"id":"x","author":"bob","user":"bob"}"#;
    let good = r#"{"id":"x","author":"bob","user":"alice"}"#;
    for statement in [
        format!("INSERT INTO allowances VALUES ('x', 'bob', 'bob', 1, 2, '{own}')"),
        format!("INSERT INTO allowances VALUES ('x', 'bob', 'alice', 2, 2, '{good}')"),
        format!("INSERT INTO allowances VALUES ('y', 'bob', 'alice', 1, 2, '{good}')"),
        format!("INSERT INTO allowances VALUES ('x', 'carol', 'alice', 1, 2, '{good}')"),
        format!("INSERT INTO allowances VALUES ('x', 'bob', 'nobody', 1, 2, '{good}')"),
        "INSERT INTO allowances VALUES ('x', 'bob', 'alice', 1, 2, 'nonsense')".to_owned(),
        format!("UPDATE allowances SET ends = ends + 1 WHERE id = '{id}'"),
        "DELETE FROM users WHERE name = 'bob'".to_owned(),
    ] {
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
            .execute(&mut connection)
            .await;
        assert!(refused.is_err(), "{statement}");
    }
}
