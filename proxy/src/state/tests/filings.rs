//! How many requests of one user are filed within an hour.

use std::time::Duration as StdDuration;

use super::*;

impl World {
    async fn files_and_cancels(&self, login: &str) -> Result<(), FileError> {
        match self.state.file(&me("alice"), self.wanted(login)).await? {
            Filed::New(new) => {
                let by = By::user(me("alice"), None);
                let id = new.request.id;
                self.state.apply(&by, id, Action::Cancel).await.unwrap();
                Ok(())
            }
            other @ (Filed::Joined(_) | Filed::Covered(_)) => panic!("{other:?}"),
        }
    }
}

fn three() -> Settings {
    Settings {
        filed_per_hour: 3,
        ..Settings::default()
    }
}

#[tokio::test]
async fn who_files_and_cancels_over_and_over_is_stopped_for_the_rest_of_the_hour() {
    let world = world().await;
    world.state.configure(three()).await.unwrap();
    for minute in [0, 10, 20] {
        world.clock.set(START + Duration::minutes(minute));
        world.files_and_cancels("root").await.unwrap();
    }
    for login in ["root", "deploy"] {
        let refused = world.files_and_cancels(login).await.unwrap_err();
        let FileError::TooOften { limit: 3, again } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(*again, START + Duration::HOUR);
        assert!(refused.to_string().contains("2026-11-20T21:00:00Z"));
    }
    // Refused ones do not count, and are in the log.
    let failed = world.events().await;
    let refusals = failed
        .iter()
        .filter(|(event, done)| event == "access_request.create" && !done);
    assert_eq!(refusals.count(), 2);
    // Nor is anybody else held up by it.
    let dave = Object::User(user("dave", &["asker"]));
    let put = vec![dave];
    world
        .state
        .put(&admin(), put, Existing::Refuse)
        .await
        .unwrap();
    let wanted = world.wanted("root");
    assert!(world.state.file(&me("dave"), wanted).await.is_ok());
    // It is remembered over a restart.
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    state.configure(three()).await.unwrap();
    let world = World { state, ..world };
    assert!(world.files_and_cancels("root").await.is_err());
    // One hour after the first there is room for one.
    world.clock.set(START + Duration::HOUR);
    world.files_and_cancels("root").await.unwrap();
    assert!(world.files_and_cancels("root").await.is_err());
}

#[tokio::test]
async fn to_join_a_request_counts_for_nothing() {
    let world = world().await;
    world.state.configure(three()).await.unwrap();
    world.file("root").await;
    for _ in 0..10 {
        let again = world.state.file(&me("alice"), world.wanted("root")).await;
        assert!(matches!(again, Ok(Filed::Joined(_))), "{again:?}");
    }
    world.files_and_cancels("deploy").await.unwrap();
    world.files_and_cancels("deploy").await.unwrap();
    let refused = world.files_and_cancels("deploy").await;
    assert!(
        matches!(refused, Err(FileError::TooOften { .. })),
        "{refused:?}"
    );
    let joined = world.state.file(&me("alice"), world.wanted("root")).await;
    assert!(matches!(joined, Ok(Filed::Joined(_))), "{joined:?}");
}

#[tokio::test]
async fn listings_that_wait_for_one_another_keep_nobody_from_what_is_found_by_its_key() {
    let world = world().await;
    let id = world.file("root").await;
    let reader = world.state.reader().clone();
    let mut listings = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let reader = reader.clone();
        listings.spawn(async move { reader.requests(10_000).await.map(drop) });
    }
    for _ in 0..20 {
        let found = tokio::time::timeout(StdDuration::from_secs(5), reader.request(id));
        assert!(found.await.unwrap().unwrap().is_some());
    }
    while let Some(listed) = listings.join_next().await {
        listed.unwrap().unwrap();
    }
}
