//! What `audit verify` and `doctor` find when rows, or the log, tell what cannot have been. Each case
//! writes past every trigger, as somebody who owns the file can.

use anteroom_core::id::LockId;
use anteroom_core::lock::{Lock, LockTarget};

use super::*;

/// A world in which everything has happened once: two requests, an access, a session, a login and
/// another one with what it gave.
async fn story() -> World {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let issued = world.issue("root").await.unwrap();
    let session = world.session(&issued.permit).await;
    world
        .end(&issued.permit, session, "closed by the user")
        .await;
    let login = world.login(&me("alice"), &[id]).await.unwrap();
    let who = identities::present(&world.state, &login.certificate).unwrap();
    world.drop_all(&who.into_identity()).await.unwrap();
    let denied = world.file("deploy").await;
    world
        .state
        .review(&me("bob"), denied, Verdict::Deny, "", None)
        .await
        .unwrap();
    world.verify().await.unwrap();
    world
}

impl World {
    async fn session(&self, permit: &Permit) -> SessionId {
        let session = SessionId::from_uuid(Uuid::new_v4());
        let started = self.state.session_started(permit, session, None, None);
        started.await.unwrap();
        session
    }

    async fn end(&self, permit: &Permit, session: SessionId, reason: &str) {
        let how = SessionEnded {
            reason: Some(reason.to_owned()),
            ..SessionEnded::default()
        };
        let ended = self.state.session_ended(permit, session, how);
        ended.await.unwrap();
    }

    /// What does not hold, in words.
    async fn broken(&self) -> String {
        match self.verify().await {
            Ok(()) => String::new(),
            Err(error @ (VerifyError::Broken(_) | VerifyError::Tampered(_))) => error.to_string(),
            Err(error @ VerifyError::Store(_)) => panic!("{error}"),
        }
    }

    async fn unguard(&self) {
        let mut elsewhere = self.elsewhere().await;
        let triggers: Vec<String> =
            sqlx::query_scalar("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                .fetch_all(&mut elsewhere)
                .await
                .unwrap();
        for trigger in triggers {
            let drop: &'static str = format!("DROP TRIGGER {trigger}").leak();
            self.sql(drop).await.unwrap();
        }
    }

    /// Time passes, and the proxy is at work.
    async fn minutes(&self, count: i64) {
        for _ in 0..count {
            self.clock.advance(Duration::minutes(1));
            let entry = Entry::new(Event::Admin).command("ls");
            self.state.audit(entry).await.unwrap();
        }
    }
}

#[tokio::test]
async fn whatever_a_row_tells_that_the_log_does_not_is_named() {
    for (tampering, named) in [
        (
            "UPDATE issuances SET user = 'mallory' WHERE kind = 'node'",
            "its user",
        ),
        (
            "UPDATE issuances SET request_id = NULL WHERE kind = 'node'",
            "its request",
        ),
        (
            "UPDATE issuances SET login = 'deploy' WHERE kind = 'node'",
            "its login",
        ),
        (
            "UPDATE issuances SET node_id = 'x' WHERE kind = 'node'",
            "its node",
        ),
        (
            "UPDATE issuances SET session_id = 'x' WHERE kind = 'node'",
            "its session",
        ),
        (
            "UPDATE issuances SET kind = 'host' WHERE kind = 'node'",
            "a host's",
        ),
        (
            "UPDATE issuances SET issued = issued - 1000000",
            "when it was issued",
        ),
        (
            "UPDATE issuances SET valid_before = valid_before - 1000000",
            "its end",
        ),
        (
            "UPDATE issuances SET cert_sha256 = 'x' || substr(cert_sha256, 2)",
            "its hash",
        ),
        (
            "UPDATE issuances SET serial = '42' WHERE kind = 'node'",
            "certificate 42 has no",
        ),
        (
            "DELETE FROM issuances WHERE kind = 'node'",
            "has no issuance row",
        ),
        (
            "UPDATE issuances SET valid_before = valid_before + 1000000
             WHERE serial IN (SELECT serial FROM identities WHERE presented IS NOT NULL)",
            "ends later than certificate",
        ),
        (
            "UPDATE identities SET revoked = 1, why = 'x'
             WHERE serial IN (SELECT presented FROM identities)",
            "with which it was got, was revoked",
        ),
        (
            "INSERT INTO retired_authorities SELECT authority, 'node', 'key', 1
             FROM issuances WHERE kind = 'node'",
            "was retired",
        ),
        (
            "UPDATE requests SET state = 'PENDING' WHERE state = 'DENIED'",
            "in another state than the log tells",
        ),
        (
            "UPDATE requests SET access_expires = access_expires - 1 WHERE state = 'DENIED'",
            "that its columns contradict",
        ),
        (
            "UPDATE requests SET body = json_set(body, '$.user', 'mallory')",
            "that its columns contradict",
        ),
        (
            "UPDATE requests SET body = 'x' WHERE state = 'DENIED'",
            "cannot be read",
        ),
        (
            "UPDATE requests SET body = json_set(body, '$.granted', json('null'))
             WHERE state = 'APPROVED'",
            "holds a grant that the log does not tell of, or lacks it",
        ),
        (
            "UPDATE requests SET body = json_set(body, '$.granted',
                 (SELECT json(body -> '$.granted') FROM requests WHERE state = 'APPROVED'))
             WHERE state = 'DENIED'",
            "holds a grant that the log does not tell of, or lacks it",
        ),
        (
            "UPDATE requests SET access_expires = 1798761600000000,
                 body = json_set(body, '$.access_expires', '2027-01-01T00:00:00Z')",
            "for longer than was asked for",
        ),
        (
            "DELETE FROM reviews;
             DELETE FROM requests WHERE state = 'DENIED'",
            "is in the log, and has no row",
        ),
        (
            "INSERT INTO requests SELECT 'x', user, state, created, request_expires,
                 access_expires, revision, body FROM requests WHERE state = 'DENIED'",
            "request x is not in the log",
        ),
        (
            "UPDATE sessions SET ended = NULL, end_seq = NULL",
            "is not in the log as",
        ),
        (
            "UPDATE sessions SET user = 'mallory'",
            "is not in the log as",
        ),
        (
            "UPDATE sessions SET request_id = NULL",
            "is not in the log as",
        ),
        (
            "UPDATE sessions SET id = 'x'",
            "session x is not in the log as",
        ),
        (
            "DELETE FROM sessions",
            "the start of a session that has no row",
        ),
    ] {
        let world = story().await;
        world.unguard().await;
        let tampered = world.sql(tampering).await;
        tampered.unwrap_or_else(|error| panic!("{tampering}: {error}"));
        let broken = world.broken().await;
        assert!(broken.contains(named), "{tampering}: `{broken}`");
    }
}

#[tokio::test]
async fn a_request_that_is_granted_again_in_the_log_is_named() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let becomes = |state| {
        Entry::new(Event::AccessRequestUpdate)
            .request_id(id)
            .state(state)
    };
    let entry = becomes(RequestState::Approved);
    world.state.audit(entry).await.unwrap();
    assert_eq!(world.broken().await, "", "it stays as it is");
    world
        .state
        .audit(becomes(RequestState::Pending))
        .await
        .unwrap();
    assert!(world.broken().await.contains("which was approved before"));
    let over = becomes(RequestState::Revoked);
    world.state.audit(over).await.unwrap();
    let again = becomes(RequestState::Approved);
    world.state.audit(again).await.unwrap();
    let broken = world.broken().await;
    assert!(
        broken.contains("was over, and is granted again"),
        "{broken}"
    );
    let unfiled = Entry::new(Event::AccessRequestReview)
        .request_id(Uuid::nil())
        .state(RequestState::Approved);
    world.state.audit(unfiled).await.unwrap();
    let broken = world.broken().await;
    assert!(broken.contains("which was never filed"), "{broken}");
    assert!(broken.contains("is in the log, and has no row"), "{broken}");
}

#[tokio::test]
async fn a_session_that_is_left_without_an_end_by_a_later_start_is_named() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world.session(&world.permit("root")).await;
    assert_eq!(world.broken().await, "", "it lives");
    world
        .state
        .audit(Entry::new(Event::ProxyStart))
        .await
        .unwrap();
    let broken = world.broken().await;
    assert!(broken.contains("a later start of the proxy"), "{broken}");
}

#[tokio::test]
async fn a_session_that_outlives_what_permitted_it_is_named() {
    for (ends, named) in [
        ("by time", "the end of request"),
        ("by an administrator", "the end of request"),
        ("by a lock", "the lock on `user/alice`"),
    ] {
        for (minutes, reason, wrong) in [
            (0, "closed by the user", false),
            (5, "closed by the user", true),
            (5, "the proxy stopped", false),
        ] {
            let world = world().await;
            let id = world.file("root").await;
            world.approve(id).await;
            let permit = world.permit("root");
            let session = world.session(&permit).await;
            match ends {
                "by time" => {
                    let end = world.state.view().request(&id).unwrap().access_expires;
                    world.clock.set(end);
                }
                "by a lock" => {
                    let lock = Object::Lock(Lock {
                        id: LockId::from_uuid(Uuid::from_u128(1)),
                        target: LockTarget::User(name("alice")),
                        message: String::new(),
                        created: OffsetDateTime::UNIX_EPOCH,
                        created_by: String::new(),
                        expires: None,
                    });
                    let by = admin();
                    let put = world.state.put(&by, vec![lock], Existing::Refuse);
                    put.await.unwrap();
                }
                _ => {
                    let reason = "over".to_owned();
                    let action = Action::Revoke { reason };
                    world.state.apply(&admin(), id, action).await.unwrap();
                }
            }
            world.minutes(minutes).await;
            world.end(&permit, session, reason).await;
            let broken = world.broken().await;
            assert_eq!(broken.contains(named), wrong, "{ends}, {minutes}: {broken}");
            assert_eq!(broken.is_empty(), !wrong, "{broken}");
        }
    }
}

#[tokio::test]
async fn an_end_that_is_written_down_late_and_a_proxy_that_stood_still_are_nothing_wrong() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let permit = world.permit("root");
    let (late, frozen) = (world.session(&permit).await, world.session(&permit).await);
    let end = world.state.view().request(&id).unwrap().access_expires;
    // Nothing is logged while the machine is suspended.
    world.clock.set(end + Duration::hours(3));
    world.end(&permit, frozen, "its access ended").await;
    world.minutes(5).await;
    let how = SessionEnded {
        at: Some(end),
        ..SessionEnded::default()
    };
    let ended = world.state.session_ended(&permit, late, how);
    ended.await.unwrap();
    assert_eq!(world.broken().await, "");
}
