//! Roles, users and nodes: what may be stored, changed and removed, and by whom.

use super::*;

#[tokio::test]
async fn the_presets_exist_from_the_start_and_stay_removed() {
    let world = world().await;
    for preset in ["access", "editor", "auditor", "requester", "reviewer"] {
        assert!(world.state.view().role(&name(preset)).is_some(), "{preset}");
    }
    world
        .state
        .remove(&admin(), vec![ObjectId::Role(name("auditor"))])
        .await
        .unwrap();
    world.state.close().await;
    let again = open(world.dir.path(), &world.clock).await.unwrap();
    assert!(again.view().role(&name("auditor")).is_none());
    assert!(again.view().role(&name("editor")).is_some());
}

#[tokio::test]
async fn nobody_new_is_called_as_the_proxy_or_as_agents_call_themselves() {
    let world = world().await;
    for reserved in [
        "anteroom",
        "enroll",
        "enroll+x@example.com",
        "node+x@example.com",
    ] {
        let put = world
            .state
            .put(
                &admin(),
                vec![Object::User(user(reserved, &[]))],
                Existing::Replace,
            )
            .await;
        assert!(
            matches!(put, Err(PutError::ReservedName { .. })),
            "{reserved}: {put:?}"
        );
    }
    for fine in ["anteroom2", "me+node@example.com", "enroller"] {
        let (by, user) = (admin(), vec![Object::User(user(fine, &[]))]);
        world.state.put(&by, user, Existing::Refuse).await.unwrap();
    }
}

#[tokio::test]
async fn who_was_called_so_before_is_read_and_can_be_changed_and_removed() {
    let world = world().await;
    let body = serde_json::to_string(&user("anteroom", &[])).unwrap();
    sqlx::query("INSERT INTO users VALUES ('anteroom', $1, 1, 1)")
        .bind(body)
        .execute(&mut world.elsewhere().await)
        .await
        .unwrap();
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    let changed = Object::User(user("anteroom", &["asker"]));
    let put = state.put(&admin(), vec![changed], Existing::Replace).await;
    put.unwrap();
    let id = vec![ObjectId::User(name("anteroom"))];
    state.remove(&admin(), id).await.unwrap();
}

#[tokio::test]
async fn a_key_belongs_to_one_user() {
    let world = world().await;
    let thief = User {
        keys: vec![user_key("alice")],
        ..user("mallory", &[])
    };
    let error = world
        .state
        .put(&admin(), vec![Object::User(thief)], Existing::Replace)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, PutError::KeyTaken { owner, .. } if owner.as_str() == "alice"),
        "{error}"
    );
    assert!(world.state.view().user(&name("mallory")).is_none());
    let twice = User {
        keys: vec![user_key("m"), user_key("m")],
        ..user("mallory", &[])
    };
    let error = world
        .state
        .put(&admin(), vec![Object::User(twice)], Existing::Replace)
        .await
        .unwrap_err();
    assert!(matches!(error, PutError::KeyTwice { .. }), "{error}");
}

#[tokio::test]
async fn a_key_moves_between_users_in_one_transaction() {
    let world = world().await;
    let objects = vec![
        Object::User(User {
            keys: vec![user_key("alice")],
            ..user("anna", &[])
        }),
        Object::User(User {
            keys: Vec::new(),
            ..user("alice", &["asker"])
        }),
    ];
    world
        .state
        .put(&admin(), objects, Existing::Replace)
        .await
        .unwrap();
    let owner = world
        .state
        .view()
        .user_by_key(me("alice").key())
        .unwrap()
        .name
        .clone();
    assert_eq!(owner.as_str(), "anna");
}

#[tokio::test]
async fn documents_are_written_all_or_none() {
    let world = world().await;
    let entries = world.events().await.len();
    let objects = vec![
        Object::Node(node("second")),
        Object::User(user("dave", &["nonsense"])),
        Object::User(user("erin", &["asker"])),
    ];
    let error = world
        .state
        .put(&admin(), objects, Existing::Refuse)
        .await
        .unwrap_err();
    assert!(matches!(error, PutError::UnknownRole { .. }), "{error}");
    let view = world.state.view();
    assert!(view.user(&name("erin")).is_none());
    assert_eq!(view.nodes().count(), 1);
    // What was logged for them goes with them; that it was refused stays.
    let events = world.events().await;
    assert_eq!(events.len(), entries + 1);
    assert_eq!(events.last().unwrap(), &("node.update".to_owned(), false));
}

#[tokio::test]
async fn an_existing_object_is_replaced_only_by_force() {
    let world = world().await;
    let by = admin();
    let refused = world
        .state
        .put(
            &by,
            vec![Object::User(user("bob", &["asker"]))],
            Existing::Refuse,
        )
        .await;
    assert!(matches!(refused, Err(PutError::Exists(_))));
    let stored = world
        .state
        .put(
            &by,
            vec![Object::User(user("bob", &["asker"]))],
            Existing::Replace,
        )
        .await
        .unwrap();
    assert_eq!(stored[0].written, Written::Replaced);
    assert_eq!(world.events().await.last().unwrap().0, "user.update");
}

#[tokio::test]
async fn a_user_name_that_reads_as_a_target_is_refused_both_ways() {
    let world = world().await;
    let by = admin();
    let put = async |object| world.state.put(&by, vec![object], Existing::Refuse).await;
    put(Object::Node(node("iot.example"))).await.unwrap();
    let refused = put(Object::User(user("root@iot.example", &[]))).await;
    assert!(matches!(refused, Err(PutError::ReadsAsTarget { .. })));
    put(Object::User(user("root@mail.example", &[])))
        .await
        .unwrap();
    let refused = put(Object::Node(node("mail.example"))).await;
    assert!(matches!(refused, Err(PutError::ReadsAsTarget { .. })));
}

#[tokio::test]
async fn a_role_in_use_is_not_removed() {
    let world = world().await;
    let by = admin();
    let error = world
        .state
        .remove(&by, vec![ObjectId::Role(name("judge"))])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("`bob`, `carol`"), "{error}");
    let mut database = world.elsewhere().await;
    let deleted = sqlx::query("DELETE FROM roles WHERE name = 'judge'")
        .execute(&mut database)
        .await;
    assert!(deleted.is_err());
}

#[tokio::test]
async fn a_removed_user_leaves_no_live_request_to_her_successor() {
    let world = world().await;
    let (pending, approved) = (world.file("deploy").await, world.file("root").await);
    world.approve(approved).await;
    let by = admin();
    world
        .state
        .remove(&by, vec![ObjectId::User(name("alice"))])
        .await
        .unwrap();
    assert_eq!(world.state_of(pending), RequestState::Denied);
    assert_eq!(world.state_of(approved), RequestState::Revoked);
    world
        .state
        .put(
            &by,
            vec![Object::User(user("alice", &["asker"]))],
            Existing::Refuse,
        )
        .await
        .unwrap();
    assert!(!matches!(world.decide("root"), Decision::Permit(_)));
}

#[tokio::test]
async fn administration_needs_the_right_at_that_moment() {
    let world = world().await;
    let bob = By::user(me("bob"), None);
    let refused = world
        .state
        .put(&bob, vec![Object::Node(node("x"))], Existing::Refuse)
        .await;
    assert!(matches!(refused, Err(PutError::NotAllowed(_))));
    let refused = world
        .state
        .remove(&bob, vec![ObjectId::Node(world.node)])
        .await;
    assert!(matches!(refused, Err(RemoveError::NotAllowed(_))));
    let refused = world
        .state
        .update_user(&bob, &name::<UserName>("bob"), |user| {
            user.roles.insert(name("boss"));
            Ok::<(), std::convert::Infallible>(())
        })
        .await;
    assert!(matches!(
        refused,
        Err(UpdateError::Put(PutError::NotAllowed(_)))
    ));
    let carol = By::user(me("carol"), None);
    world
        .state
        .put(&carol, vec![Object::Node(node("x"))], Existing::Refuse)
        .await
        .unwrap();
}

#[tokio::test]
async fn two_nodes_at_one_address_are_told_of() {
    let world = world().await;
    let by = admin();
    let stored = world
        .state
        .put(&by, vec![Object::Node(node("twin"))], Existing::Refuse)
        .await
        .unwrap();
    assert!(
        stored[0].warnings[0].contains("has the same address 192.0.2.7:22"),
        "{stored:?}"
    );
}
