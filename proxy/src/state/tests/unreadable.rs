//! Stored roles that this version can't read.

use anteroom_core::policy::Reason;

use super::*;

/// What alice, who stands with `entry` and `asker`, finds when one of the two has become unreadable.
async fn with_broken(sql: &'static str) -> (World, State) {
    let world = world().await;
    let alice = user("alice", &["entry", "asker"]);
    let put = vec![Object::User(alice)];
    world
        .state
        .put(&admin(), put, Existing::Replace)
        .await
        .unwrap();
    assert!(matches!(world.decide("root"), Decision::Permit(_)));
    world.state.close().await;
    sqlx::raw_sql(sql)
        .execute(&mut elsewhere(world.dir.path()).await)
        .await
        .unwrap();
    let again = open(world.dir.path(), &world.clock).await.unwrap();
    (world, again)
}

fn decision(world: &World, state: &State) -> Decision {
    decide(
        &state.view(),
        &me("alice"),
        &world.access("root"),
        state.now(),
    )
}

#[tokio::test]
async fn a_role_that_can_no_longer_be_read_grants_nothing_and_hides_no_denial() {
    // One that this version refuses, one that is no JSON, one that is another role's document, and
    // one that gave nothing on nodes but may have denied something.
    for (broken, sql) in [
        (
            "entry",
            "UPDATE roles SET body = json_set(body, '$.spec.allow.later', 1) WHERE name = 'entry'",
        ),
        (
            "entry",
            "UPDATE roles SET body = '\"nonsense' WHERE name = 'entry'",
        ),
        (
            "entry",
            "UPDATE roles SET body = (SELECT body FROM roles WHERE name = 'boss') WHERE name = 'entry'",
        ),
        (
            "asker",
            "UPDATE roles SET body = json_set(body, '$.spec.deny.later', 1) WHERE name = 'asker'",
        ),
    ] {
        let (world, state) = with_broken(sql).await;
        let Decision::Deny(denial) = decision(&world, &state) else {
            panic!("{sql}");
        };
        let unreadable = Reason::RoleUnreadable { role: name(broken) };
        assert_eq!(denial.reasons, [unreadable], "{sql}");
        let (_, listed) = state.reader().roles().await.unwrap();
        assert_eq!(listed.len(), 1, "{sql}");
        assert_eq!(listed[0].0, broken);
    }
}

#[tokio::test]
async fn replacing_an_unreadable_role_ends_what_it_denied() {
    let sql =
        "UPDATE roles SET body = json_set(body, '$.spec.allow.later', 1) WHERE name = 'entry'";
    let (world, state) = with_broken(sql).await;
    let entry =
        |object: &Object| matches!(object, Object::Role(role) if role.name == name("entry"));
    let role: Vec<Object> = roles().into_iter().filter(entry).collect();
    state.put(&admin(), role, Existing::Replace).await.unwrap();
    assert!(matches!(decision(&world, &state), Decision::Permit(_)));
    let (_, listed) = state.reader().roles().await.unwrap();
    assert_eq!(listed, []);
}

#[tokio::test]
async fn whoever_holds_an_unreadable_role_administers_and_reviews_nothing_by_the_others() {
    use anteroom_core::admin::{AdminResource, AdminVerb, Rights};
    let sql =
        "UPDATE roles SET body = json_set(body, '$.spec.allow.later', 1) WHERE name = 'judge'";
    let (_world, state) = with_broken(sql).await;
    let carol: UserName = name("carol");
    assert!(
        !Rights::new(
            &state.view(),
            &carol,
            AdminVerb::Update,
            AdminResource::Role
        )
        .exist()
    );
}
