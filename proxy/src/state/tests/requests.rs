//! Requests: filed, reviewed, ended by people and by the clock, and found again.

use super::*;

#[tokio::test]
async fn a_filed_request_is_in_the_view_and_in_the_log_before_the_answer() {
    let world = world().await;
    let mut changes = world.state.changes();
    changes.mark_unchanged();
    let id = world.file("root").await;
    assert!(changes.has_changed().unwrap());
    assert_eq!(world.state_of(id), RequestState::Pending);
    assert_eq!(
        world.events().await.last().unwrap().0,
        "access_request.create"
    );
    let filed = world.state.reader().request(id).await.unwrap().unwrap();
    assert_eq!(filed.reason, "please");
}

#[tokio::test]
async fn equal_wishes_at_the_same_time_become_one_request() {
    let world = world().await;
    let mut filing = tokio::task::JoinSet::new();
    for _ in 0..30 {
        let (state, wanted) = (world.state.clone(), world.wanted("root"));
        filing.spawn(async move { state.file(&me("alice"), wanted).await.unwrap() });
    }
    let filed = filing.join_all().await;
    let new: Vec<_> = filed
        .iter()
        .filter(|filed| matches!(filed, Filed::New(_)))
        .collect();
    assert_eq!(new.len(), 1);
    assert_eq!(world.state.view().requests().count(), 1);
}

#[tokio::test]
async fn a_wish_that_cannot_be_asked_for_writes_nothing_but_its_refusal() {
    let world = world().await;
    let error = world
        .state
        .file(&me("bob"), world.wanted("root"))
        .await
        .unwrap_err();
    assert!(matches!(error, FileError::Refused(_)), "{error}");
    assert_eq!(world.state.view().requests().count(), 0);
    assert_eq!(
        world.events().await.last().unwrap(),
        &("access_request.create".to_owned(), false)
    );
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_memory_and_disk_the_same() {
    let world = world().await;
    let wanted = world.wanted("root");
    let mut changes = world.state.changes();
    changes.mark_unchanged();
    {
        let identity = me("alice");
        let filing = world.state.file(&identity, wanted);
        tokio::pin!(filing);
        // Polled once, so that the job is sent, then dropped.
        assert!(futures_util::poll!(&mut filing).is_pending());
    }
    changes.changed().await.unwrap();
    assert_eq!(world.state.view().requests().count(), 1);
    assert_eq!(world.state.reader().requests(10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn approving_twice_counts_once() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let again = world
        .state
        .review(&me("carol"), id, approval(), "", None)
        .await;
    assert!(matches!(again, Err(ReviewError::Refused(_))));
    assert_eq!(world.state.view().request(&id).unwrap().reviews.len(), 1);
}

#[tokio::test]
async fn approval_by_the_requester_is_refused_by_every_layer() {
    let world = world().await;
    let both = user("alice", &["asker", "judge", "boss"]);
    world
        .state
        .put(&admin(), vec![Object::User(both)], Existing::Replace)
        .await
        .unwrap();
    let id = world.file("root").await;
    let reviewed = world
        .state
        .review(&me("alice"), id, approval(), "", None)
        .await;
    assert!(matches!(reviewed, Err(ReviewError::Refused(_))));
    let alice = By::user(me("alice"), None);
    let approve = Action::Approve {
        terms: Terms::default(),
        reason: String::new(),
    };
    let applied = world.state.apply(&alice, id, approve).await;
    assert!(matches!(
        applied,
        Err(ApplyError::Refused(TransitionError::OwnRequest(_)))
    ));
    let mut database = world.elsewhere().await;
    let written = sqlx::query("INSERT INTO reviews VALUES ($1, 'alice', 0, '{}')")
        .bind(id.to_string())
        .execute(&mut database)
        .await;
    assert!(
        written
            .unwrap_err()
            .to_string()
            .contains("nobody reviews his own request")
    );
}

#[tokio::test]
async fn only_administrators_of_requests_revoke() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let revoke = || Action::Revoke {
        reason: "over".to_owned(),
    };
    let by = |who: &str| By::user(me(who), None);
    let refused = world.state.apply(&by("bob"), id, revoke()).await;
    assert!(matches!(
        refused,
        Err(ApplyError::NotAllowed {
            action: "revoked",
            verb: AdminVerb::Update
        })
    ));
    assert_eq!(world.state_of(id), RequestState::Approved);
    world.state.apply(&by("carol"), id, revoke()).await.unwrap();
    assert_eq!(world.state_of(id), RequestState::Revoked);
}

const RULES: &str = "
kind: role
version: v8
metadata: {name: remover}
spec:
  allow:
    rules: [{resources: [access_request], verbs: [delete]}]
---
kind: role
version: v8
metadata: {name: updater}
spec:
  allow:
    rules: [{resources: [access_request], verbs: [update]}]
";

#[tokio::test]
async fn who_may_delete_requests_takes_them_away_and_does_nothing_else_to_them() {
    let world = world().await;
    let mut objects = parsed_roles(RULES);
    objects.push(Object::User(user("rita", &["remover"])));
    objects.push(Object::User(user("uma", &["updater"])));
    let put = world.state.put(&admin(), objects, Existing::Refuse).await;
    put.unwrap();
    let by = |who: &str| By::user(me(who), None);
    let (pending, approved) = (world.file("deploy").await, world.file("root").await);
    world.approve(approved).await;
    for id in [pending, approved] {
        let updater = world.state.take_away(&by("uma"), id, String::new()).await;
        assert!(matches!(
            updater,
            Err(ApplyError::NotAllowed {
                verb: AdminVerb::Delete,
                ..
            })
        ));
        for action in [
            Action::Deny {
                reason: String::new(),
            },
            Action::Approve {
                terms: Terms::default(),
                reason: String::new(),
            },
        ] {
            let other = world.state.apply(&by("rita"), id, action).await;
            assert!(matches!(other, Err(ApplyError::NotAllowed { .. })));
        }
        let rita = by("rita");
        let taken = world.state.take_away(&rita, id, "over".to_owned());
        taken.await.unwrap();
        assert!(!world.state_of(id).is_live());
    }
    assert_eq!(world.state_of(approved), RequestState::Revoked);
    let again = world
        .state
        .take_away(&by("rita"), pending, String::new())
        .await;
    assert!(matches!(again, Err(ApplyError::Refused(_))), "{again:?}");
}

#[tokio::test]
async fn a_review_from_a_registered_node_is_refused() {
    let world = world().await;
    let id = world.file("root").await;
    for from in ["192.0.2.7:40000", "[::ffff:192.0.2.7]:40000"] {
        let review = world
            .state
            .review(&me("bob"), id, approval(), "", Some(name(from)))
            .await;
        assert!(matches!(review, Err(ReviewError::FromNode(_))), "{from}");
    }
    let administration = By::user(me("carol"), name::<SocketAddr>("192.0.2.7:40000"));
    let put = world
        .state
        .put(
            &administration,
            vec![Object::Node(node("other"))],
            Existing::Refuse,
        )
        .await;
    assert!(matches!(put, Err(PutError::FromNode(_))));
    let there = Some(name("192.0.2.7:40000"));
    let carol = By::user(me("carol"), there);
    let deny = Action::Deny {
        reason: String::new(),
    };
    let denied = world.state.apply(&carol, id, deny).await;
    assert!(matches!(denied, Err(ApplyError::FromNode(_))));
    // Her own request she may withdraw from anywhere.
    let other = world.file("deploy").await;
    let alice = By::user(me("alice"), there);
    world
        .state
        .apply(&alice, other, Action::Cancel)
        .await
        .unwrap();
    world
        .state
        .review(
            &me("bob"),
            id,
            approval(),
            "",
            Some(name("192.0.2.8:40000")),
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_pending_request_lapses_by_itself() {
    let world = world().await;
    let id = world.file("root").await;
    let mut changes = world.state.changes();
    let expires = world.state.view().request(&id).unwrap().request_expires;
    world.clock.set(expires - Duration::SECOND);
    world.state.expire_due().await.unwrap();
    assert_eq!(world.state_of(id), RequestState::Pending);
    changes.mark_unchanged();
    world.clock.set(expires);
    changes.changed().await.unwrap();
    assert_eq!(world.state_of(id), RequestState::Expired);
    assert_eq!(
        world.events().await.last().unwrap().0,
        "access_request.expire"
    );
}

#[tokio::test]
async fn an_access_opens_and_ends_by_itself() {
    let world = world().await;
    let opens = START + Duration::hours(2);
    let wanted = Wanted {
        assume_start: Some(opens),
        ..world.wanted("root")
    };
    let Filed::New(new) = world.state.file(&me("alice"), wanted).await.unwrap() else {
        panic!("not filed")
    };
    let id = new.request.id;
    world.approve(id).await;
    assert!(!matches!(world.decide("root"), Decision::Permit(_)));
    let mut changes = world.state.changes();
    changes.mark_unchanged();
    world.clock.set(opens);
    changes.changed().await.unwrap();
    assert!(matches!(world.decide("root"), Decision::Permit(_)));
    let ends = world.state.view().request(&id).unwrap().access_expires;
    world.clock.set(ends);
    changes.changed().await.unwrap();
    assert_eq!(world.state_of(id), RequestState::Expired);
    assert!(!matches!(world.decide("root"), Decision::Permit(_)));
}

#[tokio::test]
async fn a_clock_that_goes_back_revives_nothing() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world
        .clock
        .set(world.state.view().request(&id).unwrap().access_expires);
    world.state.expire_due().await.unwrap();
    world.clock.set(START);
    assert!(!matches!(world.decide("root"), Decision::Permit(_)));
    assert_eq!(world.state_of(id), RequestState::Expired);
}

#[tokio::test]
async fn short_ids_find_what_the_asker_may_see() {
    let world = world().await;
    let id = world.file("root").await;
    let text = id.to_string();
    let found = world
        .state
        .find_request(&text[..8], |_| true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, id);
    assert!(
        world
            .state
            .find_request(&text[..3], |_| true)
            .await
            .unwrap()
            .is_err()
    );
    assert!(
        world
            .state
            .find_request(&text[..8], |_| false)
            .await
            .unwrap()
            .is_err()
    );
    assert!(
        world
            .state
            .find_request("%%%%", |_| true)
            .await
            .unwrap()
            .is_err()
    );
}

#[tokio::test]
async fn requests_that_ended_long_ago_leave_memory_and_stay_findable() {
    let world = world().await;
    let settings = Settings {
        filed_per_hour: usize::MAX,
        ..Settings::default()
    };
    world.state.configure(settings).await.unwrap();
    let first = world.file("root").await;
    let alice = By::user(me("alice"), None);
    world
        .state
        .apply(&alice, first, Action::Cancel)
        .await
        .unwrap();
    for _ in 0..crate::store::RECENT {
        let id = world.file("root").await;
        world.state.apply(&alice, id, Action::Cancel).await.unwrap();
    }
    assert!(world.state.view().request(&first).is_none());
    assert_eq!(world.state.view().requests().count(), crate::store::RECENT);
    assert_eq!(
        world.state.request(first).await.unwrap().unwrap().state,
        RequestState::Canceled
    );
    let found = world
        .state
        .find_request(&first.to_string(), |_| true)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, first);
}
