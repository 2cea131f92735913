//! Identity certificates: nothing that is done with one ends later than what was presented.

use anteroom_ca::user::{Conditions, Refused, VerifiedIdentity, verify};
use anteroom_ca::{Certificate, ClockError};
use anteroom_core::id::KeyFingerprint;
use anteroom_core::policy::{LoginRefused, LoginWanted};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

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
    let (trusted, retired) = state.user_authorities();
    let conditions = Conditions {
        authorities: &trusted,
        retired: &retired,
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
        self.state.login(who, with(requests), home()).await
    }

    pub(super) async fn drop_all(&self, who: &Identity) -> Result<LoggedIn, LoginError> {
        self.state.drop_from_certificate(who, all(), home()).await
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
async fn a_certificate_that_is_taken_back_opens_nothing() {
    let world = world().await;
    let issued = world.login(&me("alice"), &[]).await.unwrap();
    let other = world.login(&me("alice"), &[]).await.unwrap();
    for _ in 0..2 {
        let back = world.state.take_back(&issued, "not taken", home());
        back.await.unwrap();
    }
    let refused = |state: &State| present(state, &issued.certificate).unwrap_err();
    assert_eq!(refused(&world.state), Refused::Revoked("not taken".into()));
    assert!(present(&world.state, &other.certificate).is_ok());
    world.verify().await.unwrap();
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    assert_eq!(refused(&state), Refused::Revoked("not taken".into()));
    state.close().await;
}

#[tokio::test]
async fn a_fresh_key_is_known_by_its_certificate_and_by_nothing_else() {
    let world = world().await;
    let key = crate::keys::ephemeral();
    let wanted = LoginWanted {
        fresh_key: Some(key.public_key().to_openssh().unwrap()),
        ..LoginWanted::default()
    };
    let alice = me("alice");
    let login = world.state.login(&alice, wanted, home());
    let issued = login.await.unwrap();
    let fresh = anteroom_ca::key::fingerprint(key.public_key()).to_string();
    let fresh = KeyFingerprint::parse(&fresh).unwrap();
    let view = world.state.view();
    assert!(view.user_by_key(&fresh).is_none());
    assert_eq!(
        view.user_by_certified_key(&fresh).unwrap().as_str(),
        "alice"
    );
    let held = present(&world.state, &issued.certificate).unwrap();
    assert_eq!(held.credential().key, fresh);
    let identity = held.into_identity();
    assert_eq!(identity.key(), me("alice").key());
    // A drop is for the same key, and the plain key proves nobody.
    let dropped = world.drop_all(&identity).await.unwrap();
    assert_eq!(
        dropped.certificate.as_ssh().public_key(),
        issued.certificate.as_ssh().public_key()
    );
    world.verify().await.unwrap();
    world.state.close().await;
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

/// How many certificates of hers count.
fn live(state: &State, who: &str) -> usize {
    let (view, now) = (state.view(), state.now());
    let known = view.credentials_of(&name(who));
    known.filter(|issued| issued.is_live(now)).count()
}

async fn alarms(state: &State) -> usize {
    let filter = AuditFilter {
        event: Some(Event::Auth),
        ..AuditFilter::default()
    };
    let logged = state.reader().audit(&filter, 0, 1000).await.unwrap();
    let reasons = logged.iter().filter_map(|entry| {
        let fields = entry.fields();
        fields.get("reason").map(|reason| reason.to_string())
    });
    reasons.filter(|reason| reason.contains("ALARM")).count()
}

impl World {
    /// Presents it as the SSH front does; whether that was an alarm.
    async fn alarmed_by(&self, certificate: &Certificate) -> bool {
        let before = alarms(&self.state).await;
        let refused = present(&self.state, certificate).unwrap_err();
        if let Refused::NeverIssued(serial) = refused {
            self.state
                .never_issued(serial, certificate.sha256(), home())
                .await
                .unwrap();
        }
        alarms(&self.state).await > before
    }
}

#[tokio::test]
async fn of_too_many_certificates_those_that_end_first_make_room() {
    let world = world().await;
    let bobs = world.login(&me("bob"), &[]).await.unwrap();
    let mut issued = Vec::new();
    for _ in 0..super::super::identities::MOST_LIVE + 2 {
        world.clock.advance(Duration::SECOND);
        let one = world.login(&me("alice"), &[]).await.unwrap();
        issued.push(one.certificate);
    }
    assert_eq!(live(&world.state, "alice"), 64);
    for over in &issued[..2] {
        assert!(matches!(
            present(&world.state, over),
            Err(Refused::Revoked(_))
        ));
    }
    for counts in issued[2..].iter().chain([&bobs.certificate]) {
        assert!(present(&world.state, counts).is_ok());
    }
    // The one that is presented stays, though it ends before all the others.
    let oldest = present(&world.state, &issued[2]).unwrap().into_identity();
    world.login(&oldest, &[]).await.unwrap();
    assert!(present(&world.state, &issued[2]).is_ok());
    assert!(present(&world.state, &issued[3]).is_err());
    // A drop takes one away for the one it gives.
    world.drop_all(&oldest).await.unwrap();
    assert!(present(&world.state, &issued[4]).is_ok());
    assert_eq!(live(&world.state, "alice"), 64);
    world.verify().await.unwrap();
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    assert_eq!(live(&state, "alice"), 64);
    assert!(matches!(
        present(&state, &issued[0]),
        Err(Refused::Revoked(_))
    ));
    state.close().await;
}

#[tokio::test]
async fn logging_in_over_and_over_fills_no_memory_and_alarms_nobody() {
    let world = world().await;
    let first = world.login(&me("alice"), &[]).await.unwrap();
    for _ in 0..140 {
        world.clock.advance(Duration::SECOND);
        world.login(&me("alice"), &[]).await.unwrap();
    }
    assert_eq!(world.state.view().credentials().count(), 128);
    assert!(!world.alarmed_by(&first.certificate).await);
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    assert_eq!(state.view().credentials().count(), 128);
    assert_eq!(live(&state, "alice"), 64);
    state.close().await;
}

#[tokio::test]
async fn a_certificate_that_ended_is_let_go_of_and_is_no_alarm_even_if_the_clock_goes_back() {
    let world = world().await;
    let issued = world.login(&me("alice"), &[]).await.unwrap().certificate;
    world
        .clock
        .set(issued.valid_before() + Duration::minutes(59));
    world.state.expire_due().await.unwrap();
    assert!(matches!(
        present(&world.state, &issued),
        Err(Refused::Ended(_))
    ));
    world.clock.advance(Duration::minutes(2));
    // Something is written, which is when what is long over is let go of.
    world.login(&me("bob"), &[]).await.unwrap();
    world.clock.advance(Duration::hours(2));
    world.login(&me("bob"), &[]).await.unwrap();
    assert!(
        world
            .state
            .view()
            .credential(issued.serial().get())
            .is_none()
    );
    assert!(!world.alarmed_by(&issued).await);
    world.clock.set(START);
    assert!(!world.alarmed_by(&issued).await);
    assert!(world.state.view().locks().is_empty());
}

#[tokio::test]
async fn a_drop_of_one_request_does_nothing_to_another_that_the_certificate_loses_with_it() {
    let climber = "
kind: role
version: v8
metadata: {name: climber}
spec:
  allow:
    request:
      roles: [judge]
";
    let world = world().await;
    let alice = |roles: &[&str]| vec![Object::User(user("alice", roles))];
    let mut objects = parsed_roles(climber);
    objects.extend(alice(&["asker", "climber"]));
    let by = admin();
    world
        .state
        .put(&by, objects, Existing::Replace)
        .await
        .unwrap();
    let named = world.file("root").await;
    let wanted = Wanted {
        reason: "please".to_owned(),
        ..Wanted::roles(BTreeSet::from([name("judge")]))
    };
    let filed = world.state.file(&me("alice"), wanted).await.unwrap();
    let Filed::New(other) = filed else {
        panic!("{filed:?}");
    };
    let other = other.request.id;
    world.approve(named).await;
    let approve = Action::Approve {
        terms: Terms::default(),
        reason: String::new(),
    };
    world.state.apply(&by, other, approve).await.unwrap();
    let issued = world.login(&me("alice"), &[named, other]).await.unwrap();
    let who = present(&world.state, &issued.certificate)
        .unwrap()
        .into_identity();
    // For a while she may not ask for the other one's role.
    world
        .state
        .put(&by, alice(&["asker"]), Existing::Replace)
        .await
        .unwrap();
    let dropping = Dropping {
        requests: BTreeSet::from([named]),
        end: true,
    };
    let dropped = world
        .state
        .drop_from_certificate(&who, dropping, home())
        .await
        .unwrap();
    assert!(dropped.permit.claims().requests.is_empty());
    assert!(!world.state_of(named).is_live());
    assert_eq!(world.state_of(other), RequestState::Approved);
    let view = world.state.view();
    assert!(view.request(&other).unwrap().is_held_by(who.key()));
}

#[tokio::test]
async fn to_end_a_request_by_a_certificate_ends_it_though_the_plain_key_set_it_aside() {
    for end in [true, false] {
        let world = world().await;
        let id = world.file("root").await;
        world.approve(id).await;
        let issued = world.login(&me("alice"), &[id]).await.unwrap();
        let who = present(&world.state, &issued.certificate).unwrap();
        let key = me("alice").key().clone();
        let by = By::user(me("alice"), home());
        let aside = world.state.apply(&by, id, Action::Drop { key });
        aside.await.unwrap();
        let dropping = Dropping {
            requests: BTreeSet::from([id]),
            end,
        };
        let who = who.into_identity();
        let dropped = world
            .state
            .drop_from_certificate(&who, dropping, home())
            .await;
        dropped.unwrap();
        assert_eq!(world.state_of(id).is_live(), !end);
        let taken_up = world.login(&me("alice"), &[id]).await;
        assert_eq!(taken_up.is_ok(), !end, "{taken_up:?}");
    }
}

impl World {
    async fn put_user(&self, user: User) {
        let user = vec![Object::User(user)];
        let put = self.state.put(&admin(), user, Existing::Replace).await;
        put.unwrap();
    }
}

#[tokio::test]
async fn what_was_got_with_a_removed_key_or_by_a_removed_user_stays_void_when_they_are_back() {
    for with_the_user in [true, false] {
        let world = world().await;
        let both = || User {
            keys: vec![user_key("alice"), user_key("second")],
            ..user("alice", &["asker"])
        };
        world.put_user(both()).await;
        let issued = world.login(&me("alice"), &[]).await.unwrap();
        let second = Identity::from_proven_key(name("alice"), user_key("second").fingerprint);
        let others = world.login(&second, &[]).await.unwrap();
        if with_the_user {
            let alice = vec![ObjectId::User(name("alice"))];
            world.state.remove(&admin(), alice).await.unwrap();
        } else {
            let second_only = User {
                keys: vec![user_key("second")],
                ..user("alice", &["asker"])
            };
            world.put_user(second_only).await;
        }
        world.put_user(both()).await;
        world.verify().await.unwrap();
        world.state.close().await;
        let state = open(world.dir.path(), &world.clock).await.unwrap();
        let back = present(&state, &issued.certificate);
        assert!(matches!(back, Err(Refused::Revoked(_))), "{back:?}");
        assert_eq!(
            present(&state, &others.certificate).is_ok(),
            !with_the_user,
            "the key that stayed goes on"
        );
        let filter = AuditFilter {
            event: Some(if with_the_user {
                Event::UserDelete
            } else {
                Event::UserUpdate
            }),
            ..AuditFilter::default()
        };
        let logged = state.reader().audit(&filter, 0, 100).await.unwrap();
        let serial = issued.certificate.serial().get().to_string();
        assert!(logged.iter().any(|entry| {
            let fields = entry.fields();
            let reason = fields.get("reason").and_then(|reason| reason.as_str());
            reason.is_some_and(|reason| reason.contains(&serial))
        }));
        state.close().await;
    }
}

#[tokio::test]
async fn a_change_of_a_user_that_leaves_her_keys_revokes_nothing() {
    let world = world().await;
    let issued = world.login(&me("alice"), &[]).await.unwrap();
    world.put_user(user("alice", &["asker", "judge"])).await;
    assert!(present(&world.state, &issued.certificate).is_ok());
}

/// What is stored has whole seconds: what a certificate has left is cut to them.
#[tokio::test]
async fn a_request_filed_in_the_last_seconds_of_a_certificate_is_read_again_by_the_next_start() {
    for (left, filed) in [(1500, true), (1000, true), (999, false), (1, false)] {
        let world = world().await;
        let login = world.login(&me("alice"), &[]).await.unwrap();
        let end = login.certificate.valid_before();
        world.clock.set(end - Duration::milliseconds(left));
        let who = present(&world.state, &login.certificate).unwrap();
        let wanted = world.wanted("root");
        let outcome = world.state.file(&who.into_identity(), wanted).await;
        assert_eq!(outcome.is_ok(), filed, "{left}: {outcome:?}");
        if let Err(error) = &outcome {
            let text = error.to_string();
            assert!(text.contains("your certificate ends"), "{left}: {text}");
        }
        let before = world.state.view();
        world.verify().await.unwrap();
        world.state.close().await;
        let again = open(world.dir.path(), &world.clock).await.unwrap();
        if let Ok(Filed::New(new)) = outcome {
            let id = new.request.id;
            assert_eq!(before.request(&id), again.view().request(&id), "{left}");
        }
        again.close().await;
    }
}
