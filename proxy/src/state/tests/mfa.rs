//! Second factors: a code is taken once and guessed seldom, over races, restarts and whoever else writes.

use anteroom_core::id::DeviceName;
use zeroize::Zeroizing;

use super::identities::home;
use super::*;
use crate::mfa::{Sealer, Secret};

fn sealer() -> Arc<Sealer> {
    Arc::new(Sealer::with_key(&[9; 32]).unwrap())
}

fn secret() -> Arc<Secret> {
    Arc::new(Secret::from_bytes(Zeroizing::new(vec![7; 20])))
}

fn by(who: &str) -> By {
    By::user(me(who), home())
}

const STEP: Duration = Duration::seconds(30);

impl World {
    /// The code that the device shows so many steps from now.
    fn code(&self, steps: i32) -> String {
        secret().code(self.clock.now() + STEP * steps)
    }

    async fn add(&self, who: &str, called: &str, proof: Proof) -> Result<Confirmed, MfaError> {
        let device = (name::<DeviceName>(called), secret());
        let code = self.code(-1);
        let state = &self.state;
        state
            .add_device(&by(who), device, &code, proof, &sealer())
            .await
    }

    async fn take(&self, who: &str, code: &str) -> Result<Confirmed, CodeRefused> {
        let (who, key) = (me(who), sealer());
        let taken = self.state.take_code(&who, code, home(), &key);
        taken.await.unwrap()
    }
}

#[tokio::test]
async fn a_code_is_taken_once_under_any_race_and_over_a_restart() {
    let world = world().await;
    world.add("alice", "phone", Proof::Key).await.unwrap();
    // The code that set it up is spent by that, and with it what came before.
    for steps in [-1, -1] {
        assert_eq!(
            world.take("alice", &world.code(steps)).await,
            Err(CodeRefused::Spent)
        );
    }
    let (who, code, key) = (me("alice"), world.code(0), sealer());
    let attempts = (0..20).map(|_| world.state.take_code(&who, &code, home(), &key));
    let taken = futures_util::future::join_all(attempts).await;
    let right = taken.iter().filter(|taken| taken.as_ref().unwrap().is_ok());
    assert_eq!(right.count(), 1);
    world.verify().await.unwrap();
    world.state.close().await;
    let world = World {
        state: open(world.dir.path(), &world.clock).await.unwrap(),
        ..world
    };
    assert_eq!(world.take("alice", &code).await, Err(CodeRefused::Spent));
    assert!(world.take("alice", &world.code(1)).await.is_ok());
    // A code of an earlier step is no good after a later one, though it was never used.
    world.clock.advance(STEP * 3);
    assert!(world.take("alice", &world.code(0)).await.is_ok());
    assert_eq!(
        world.take("alice", &world.code(-1)).await,
        Err(CodeRefused::Spent)
    );
    // Nor when the clock is set back.
    world.clock.advance(-STEP * 2);
    assert_eq!(
        world.take("alice", &world.code(0)).await,
        Err(CodeRefused::Spent)
    );
    world.state.close().await;
}

#[tokio::test]
async fn wrong_codes_are_counted_over_restarts_and_pause_what_is_right() {
    let world = world().await;
    world.add("alice", "phone", Proof::Key).await.unwrap();
    for _ in 0..4 {
        assert_eq!(world.take("alice", "000000").await, Err(CodeRefused::Wrong));
    }
    world.state.close().await;
    let world = World {
        state: open(world.dir.path(), &world.clock).await.unwrap(),
        ..world
    };
    assert_eq!(
        world.take("alice", "nonsense").await,
        Err(CodeRefused::Wrong)
    );
    let until = world.clock.now() + STEP;
    let paused = Err(CodeRefused::Paused(until));
    assert_eq!(world.take("alice", &world.code(0)).await, paused);
    // What is not looked at is not counted either.
    for _ in 0..10 {
        assert_eq!(world.take("alice", "000000").await, paused);
    }
    world.clock.advance(STEP);
    assert!(world.take("alice", &world.code(0)).await.is_ok());
    assert_eq!(world.take("alice", "000000").await, Err(CodeRefused::Wrong));
    world.verify().await.unwrap();
    world.state.close().await;
}

#[tokio::test]
async fn a_key_alone_adds_the_first_device_and_no_other() {
    let world = world().await;
    world.add("alice", "phone", Proof::Key).await.unwrap();
    let refused = |error| matches!(error, MfaError::NeedsCode);
    assert!(refused(
        world.add("alice", "other", Proof::Key).await.unwrap_err()
    ));
    let remove = |proof| {
        let state = world.state.clone();
        async move {
            state
                .remove_own_device(&by("alice"), name("phone"), proof)
                .await
        }
    };
    assert!(refused(remove(Proof::Key).await.unwrap_err()));
    world.clock.advance(STEP);
    let twice = world.add("alice", "phone", Proof::Code).await.unwrap_err();
    assert!(matches!(twice, MfaError::Exists(_)), "{twice}");
    for n in 2..=8 {
        world
            .add("alice", &format!("d{n}"), Proof::Code)
            .await
            .unwrap();
    }
    let more = world.add("alice", "d9", Proof::Code).await.unwrap_err();
    assert!(matches!(more, MfaError::TooMany), "{more}");
    remove(Proof::Code).await.unwrap();
    let gone = remove(Proof::Code).await.unwrap_err();
    assert!(matches!(gone, MfaError::NoSuch(_)), "{gone}");
    // Somebody else's are not hers.
    assert_eq!(
        world.take("bob", &world.code(0)).await,
        Err(CodeRefused::NoDevice)
    );
    let wrong = world
        .state
        .add_device(
            &by("bob"),
            (name("x"), secret()),
            "000000",
            Proof::Key,
            &sealer(),
        )
        .await;
    assert!(matches!(wrong, Err(MfaError::Code(CodeRefused::Wrong))));
    world.verify().await.unwrap();
    world.state.close().await;
}

#[tokio::test]
async fn only_administrators_of_users_reset_and_removing_the_user_removes_her_devices() {
    let world = world().await;
    for who in ["alice", "bob"] {
        world.add(who, "phone", Proof::Key).await.unwrap();
    }
    let refused = world
        .state
        .reset_devices(&by("bob"), name("alice"), None)
        .await;
    assert!(matches!(refused, Err(MfaError::NotAllowed(_))));
    let local = By::local_administrator();
    let removed = world
        .state
        .reset_devices(&local, name("alice"), None)
        .await
        .unwrap();
    assert_eq!(removed, [name::<DeviceName>("phone")]);
    assert!(world.state.view().second_factors(&name("alice")).is_none());
    world.add("alice", "phone", Proof::Key).await.unwrap();
    assert_eq!(world.take("alice", "000000").await, Err(CodeRefused::Wrong));
    // One of several is enough for the count of wrong codes to begin anew.
    world.add("alice", "other", Proof::Code).await.unwrap();
    let failures =
        |view: &anteroom_core::view::View| view.second_factors(&name("alice")).unwrap().failures;
    assert!(failures(&world.state.view()).is_some());
    let one = Some(name("other"));
    let reset = world.state.reset_devices(&local, name("alice"), one).await;
    reset.unwrap();
    assert_eq!(failures(&world.state.view()), None);
    let gone = world
        .state
        .remove(&local, vec![ObjectId::User(name("alice"))])
        .await;
    gone.unwrap();
    assert!(world.state.view().second_factors(&name("alice")).is_none());
    world.verify().await.unwrap();
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    assert!(state.view().second_factors(&name("alice")).is_none());
    assert!(state.view().second_factors(&name("bob")).is_some());
    state.close().await;
}

#[tokio::test]
async fn the_database_itself_takes_no_code_twice() {
    let world = world().await;
    world.add("alice", "phone", Proof::Key).await.unwrap();
    world.state.close().await;
    let options = SqliteConnectOptions::new().filename(world.dir.path().join(DATABASE));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    for (change, works) in [
        ("last_step = last_step", false),
        ("last_step = last_step - 1", false),
        ("last_step = last_step + 1, secret = zeroblob(60)", false),
        ("last_step = last_step + 1, user = 'bob'", false),
        ("last_step = last_step + 1", true),
    ] {
        let sql = format!("UPDATE mfa_devices SET {change}");
        let done = sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&mut database)
            .await;
        assert_eq!(done.is_ok(), works, "{change}");
    }
}
