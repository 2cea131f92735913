//! Identity certificates: nothing that is done with one ends later than what was presented.

use anteroom_ca::key::UserCa;
use anteroom_ca::user::{Conditions, Refused, VerifiedIdentity, verify};
use anteroom_ca::{Certificate, ClockError};
use anteroom_core::policy::{LoginRefused, LoginWanted};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

pub(super) fn user_ca() -> Arc<UserCa> {
    Arc::new(UserCa::new(Key::from_seed("user", &[8; 32])))
}

const HOME: &str = "203.0.113.5:50022";

pub(super) fn home() -> SocketAddr {
    HOME.parse().unwrap()
}

fn with(requests: &[RequestId]) -> LoginWanted {
    LoginWanted {
        requests: requests.iter().copied().collect(),
        ..LoginWanted::default()
    }
}

fn all() -> Dropping {
    Dropping {
        requests: BTreeSet::new(),
        end: false,
    }
}

pub(super) fn present(
    state: &State,
    certificate: &Certificate,
) -> Result<VerifiedIdentity, Refused> {
    let authorities = [user_ca().public_key().clone()];
    let conditions = Conditions {
        authorities: &authorities,
        now: state.now(),
        from: home().ip(),
    };
    let view = state.view();
    verify(certificate.blob(), &conditions, |serial| {
        view.credential(serial.get()).cloned()
    })
}

impl World {
    pub(super) async fn login(
        &self,
        who: &Identity,
        requests: &[RequestId],
    ) -> Result<LoggedIn, LoginError> {
        self.state
            .login(who, with(requests), home(), &user_ca())
            .await
    }

    pub(super) async fn drop_all(&self, who: &Identity) -> Result<LoggedIn, LoginError> {
        self.state
            .drop_from_certificate(who, all(), home(), &user_ca())
            .await
    }
}

#[tokio::test]
async fn a_login_is_recorded_before_it_is_handed_out_and_known_after_a_restart() {
    let world = world().await;
    let issued = world.login(&me("alice"), &[]).await.unwrap();
    let serial = issued.certificate.serial().get();
    let known = world.state.view().credential(serial).cloned().unwrap();
    assert_eq!(known.sha256, issued.certificate.sha256());
    world.verify().await.unwrap();
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    assert_eq!(*state.view().credential(serial).cloned().unwrap(), *known);
    assert!(present(&state, &issued.certificate).is_ok());
    state.close().await;
}

#[tokio::test]
async fn a_drop_keeps_the_end_and_the_key_and_revokes_what_was_presented() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let issued = world.login(&me("alice"), &[id]).await.unwrap();
    let who = present(&world.state, &issued.certificate)
        .unwrap()
        .into_identity();
    world.clock.advance(Duration::hours(1));
    let dropped = world.drop_all(&who).await.unwrap();
    let (old, new) = (issued.certificate.as_ssh(), dropped.certificate.as_ssh());
    assert_eq!(old.valid_before(), new.valid_before());
    assert_eq!(old.public_key(), new.public_key());
    assert!(matches!(
        present(&world.state, &issued.certificate),
        Err(Refused::Revoked(_))
    ));
    // Of two drops at once one comes too late.
    let again = world.drop_all(&who).await.unwrap_err();
    assert!(
        matches!(again, LoginError::Refused(LoginRefused::Refused(_))),
        "{again}"
    );
    assert!(present(&world.state, &dropped.certificate).is_ok());
    // The plain key has it no more either, and takes it up again.
    let request = world.state.view().request(&id).cloned().unwrap();
    assert!(!request.is_held_by(me("alice").key()));
    let again = world.login(&me("alice"), &[id]).await.unwrap();
    assert_eq!(
        again.permit.valid_before(),
        request.access_expires.replace_nanosecond(0).unwrap()
    );
    world.verify().await.unwrap();
}

#[tokio::test]
async fn nothing_ends_later_than_what_was_presented_whatever_is_done() {
    for seed in 0..12 {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = world().await;
        let id = world.file("root").await;
        world.approve(id).await;
        let access_ends = world.state.view().request(&id).unwrap().access_expires;
        let first = world.login(&me("alice"), &[id]).await.unwrap();
        let mut held = first.certificate;
        let login_ends = held.valid_before();
        for step in 0..40 {
            let moved = rng.random_range(-120..600);
            world.clock.advance(Duration::seconds(moved));
            let presented = present(&world.state, &held);
            if matches!(presented, Err(Refused::Ended(_))) {
                break;
            }
            // The clock was set back to before it begins.
            if presented == Err(Refused::NotYet) {
                continue;
            }
            let who = presented.unwrap();
            let who = who.into_identity();
            let tried = match rng.random_range(0..4) {
                0 => world.drop_all(&who).await,
                1 => world.login(&who, &[id]).await,
                2 => world.login(&who, &[]).await,
                _ => {
                    let key = me("alice").key().clone();
                    // Given up and taken up by the plain key in between; either may be refused.
                    let by = By::user(me("alice"), home());
                    let action = if rng.random_bool(0.5) {
                        Action::Drop { key }
                    } else {
                        Action::Assume { key }
                    };
                    let _ = world.state.apply(&by, id, action).await;
                    continue;
                }
            };
            match tried {
                Ok(issued) => {
                    let next = issued.certificate;
                    let context = format!("seed {seed}, step {step}");
                    assert!(next.valid_before() <= held.valid_before(), "{context}");
                    assert!(next.valid_before() <= login_ends, "{context}");
                    assert_eq!(
                        next.as_ssh().public_key(),
                        held.as_ssh().public_key(),
                        "{context}"
                    );
                    if issued.permit.claims().requests.contains(&id) {
                        assert!(next.valid_before() <= access_ends, "{context}");
                    }
                    held = next;
                }
                Err(refused) => assert!(
                    matches!(
                        refused,
                        LoginError::Refused(_)
                            | LoginError::Clock(ClockError::Behind { .. })
                            | LoginError::Request(_)
                    ),
                    "seed {seed}, step {step}: {refused}"
                ),
            }
        }
        world.verify().await.unwrap();
        world.state.close().await;
    }
}

#[tokio::test]
async fn the_database_refuses_what_would_end_later_or_revive() {
    let world = world().await;
    let issued = world.login(&me("alice"), &[]).await.unwrap();
    let who = present(&world.state, &issued.certificate)
        .unwrap()
        .into_identity();
    let again = world.login(&who, &[]).await.unwrap();
    assert!(again.certificate.valid_before() <= issued.certificate.valid_before());
    for sql in [
        "UPDATE identities SET valid_before = valid_before + 1",
        "UPDATE identities SET login_key = 'other'",
        "DELETE FROM identities",
        "INSERT INTO identities VALUES ('7', 'key', NULL, 1, NULL, NULL)",
    ] {
        assert!(world.sql(sql).await.is_err(), "{sql}");
    }
}
