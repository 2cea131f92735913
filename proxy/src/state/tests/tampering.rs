//! What the schema refuses, and what `audit verify` finds when somebody wrote past it.

use super::*;

#[tokio::test]
async fn the_database_refuses_impossible_states() {
    let world = world().await;
    let denied = world.file("root").await;
    world
        .state
        .review(&me("bob"), denied, Verdict::Deny, "", None)
        .await
        .unwrap();
    let approved = world.file("deploy").await;
    world.approve(approved).await;
    world.issue("deploy").await.unwrap();
    for (statement, refusal) in [
        ("UPDATE audit SET entry = '{}' WHERE seq = 1", "append-only"),
        ("DELETE FROM audit WHERE seq = 1", "append-only"),
        ("UPDATE audit_head SET seq = seq - 1", "append-only"),
        ("DELETE FROM audit_head", "append-only"),
        (
            "UPDATE requests SET state = 'APPROVED', revision = revision + 1 WHERE state = 'DENIED'",
            "has ended",
        ),
        (
            "UPDATE requests SET state = 'PENDING', revision = revision + 1 WHERE state = 'APPROVED'",
            "that way",
        ),
        (
            "UPDATE requests SET state = 'NONSENSE', revision = revision + 1 WHERE state = 'APPROVED'",
            "",
        ),
        (
            "UPDATE requests SET access_expires = access_expires + 1, revision = revision + 1 WHERE state = 'APPROVED'",
            "never grows",
        ),
        (
            "UPDATE requests SET user = 'mallory', revision = revision + 1 WHERE state = 'APPROVED'",
            "stays who it is",
        ),
        ("DELETE FROM requests", "history"),
        (
            "INSERT INTO requests SELECT 'x', user, 'APPROVED', created, request_expires, access_expires, 1, body FROM requests",
            "begins PENDING",
        ),
        (
            "INSERT INTO reviews SELECT request_id, author, created, body FROM reviews LIMIT 1",
            "UNIQUE",
        ),
        ("DELETE FROM reviews", "history"),
        (
            "UPDATE issuances SET valid_before = valid_before + 1",
            "history",
        ),
        (
            "INSERT INTO issuances SELECT '7', kind, user, key_id, principals, subject, request_id, session_id, node_id, login, substr(cert_sha256, 2) || 'x', valid_after, valid_before, issued, 999999, NULL, authority FROM issuances",
            "FOREIGN KEY",
        ),
        (
            "INSERT INTO user_keys SELECT fingerprint, 'bob', openssh FROM user_keys WHERE user = 'alice'",
            "UNIQUE",
        ),
        (
            "INSERT INTO user_roles VALUES ('bob', 'nonsense')",
            "FOREIGN KEY",
        ),
    ] {
        let error = world.sql(statement).await.expect_err(statement).to_string();
        assert!(error.contains(refusal), "{statement}: {error}");
    }
    world.verify().await.unwrap();
}

/// Drops the triggers, as somebody who owns the file can.
const UNGUARD: &str =
    "DROP TRIGGER audit_final; DROP TRIGGER audit_stays; DROP TRIGGER audit_follows;
    DROP TRIGGER audit_head_moves; DROP TRIGGER audit_head_forward; DROP TRIGGER issuances_stay;
    DROP TRIGGER issuances_final; DROP TRIGGER requests_final; DROP TRIGGER requests_order_of_life;
    DROP TRIGGER requests_never_longer; DROP TRIGGER requests_identity;";

async fn first_bad(world: &World, tampering: &'static str) -> i64 {
    world.sql(UNGUARD).await.unwrap();
    world.sql(tampering).await.unwrap();
    match world.verify().await {
        Err(VerifyError::Tampered(bad)) => bad.seq(),
        other => panic!("{tampering}: {other:?}"),
    }
}

#[tokio::test]
async fn an_edited_entry_is_named() {
    let edit = "UPDATE audit SET entry = replace(entry, 'the proxy', 'nobody') WHERE seq = 3";
    assert_eq!(first_bad(&world().await, edit).await, 3);
}

#[tokio::test]
async fn a_deleted_entry_is_named() {
    assert_eq!(
        first_bad(&world().await, "DELETE FROM audit WHERE seq = 4").await,
        4
    );
}

#[tokio::test]
async fn reordered_entries_are_named() {
    let swap = "UPDATE audit SET seq = -3 WHERE seq = 3; UPDATE audit SET seq = 3 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = -3";
    assert_eq!(first_bad(&world().await, swap).await, 3);
}

#[tokio::test]
async fn a_truncated_log_is_named() {
    let world = world().await;
    let length = i64::try_from(world.events().await.len()).unwrap();
    let cut = "DELETE FROM audit WHERE seq > (SELECT max(seq) - 2 FROM audit)";
    assert_eq!(first_bad(&world, cut).await, length - 1);
}

#[tokio::test]
async fn a_truncated_log_with_its_head_set_back_is_found_by_an_anchor() {
    let world = world().await;
    let head = world.state.reader().audit_head().await.unwrap();
    world.sql(UNGUARD).await.unwrap();
    world
        .sql(
            "DELETE FROM audit WHERE seq > 5;
             UPDATE audit_head SET seq = 5, hash = (SELECT hash FROM audit WHERE seq = 5)",
        )
        .await
        .unwrap();
    world.verify().await.unwrap();
    let anchor = crate::audit::Anchor {
        seq: head.seq,
        hash: head.hash,
    };
    let found = world.state.reader().verify(vec![anchor]).await;
    assert!(
        matches!(
            found,
            Err(VerifyError::Tampered(Tampered::Missing { seq: 6 }))
        ),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_forked_log_is_named() {
    let world = world().await;
    let length = i64::try_from(world.events().await.len()).unwrap();
    let fork = "UPDATE audit_head SET hash = '1111111111111111111111111111111111111111111111111111111111111111'";
    assert_eq!(first_bad(&world, fork).await, length);
}

#[tokio::test]
async fn an_issuance_without_its_entry_and_an_entry_without_its_issuance_are_named() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world.issue("root").await.unwrap();
    world.sql(UNGUARD).await.unwrap();
    world
        .sql("UPDATE issuances SET serial = '42'")
        .await
        .unwrap();
    let Err(VerifyError::Broken(broken)) = world.verify().await else {
        panic!("not found")
    };
    assert!(
        broken.contains(&Broken::IssuanceUnlogged {
            serial: "42".to_owned()
        }),
        "{broken:?}"
    );
    world.sql("DELETE FROM issuances").await.unwrap();
    let Err(VerifyError::Broken(broken)) = world.verify().await else {
        panic!("not found")
    };
    assert!(
        matches!(broken[..], [Broken::IssuanceMissing { .. }]),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_certificate_that_outlives_its_grant_is_named() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world.issue("root").await.unwrap();
    world.sql(UNGUARD).await.unwrap();
    world
        .sql("UPDATE requests SET access_expires = created + 1")
        .await
        .unwrap();
    let Err(VerifyError::Broken(broken)) = world.verify().await else {
        panic!("not found")
    };
    assert!(
        broken
            .iter()
            .any(|one| matches!(one, Broken::OutlivesGrant { .. })),
        "{broken:?}"
    );
}

#[tokio::test]
async fn a_certificate_logged_after_the_end_of_its_grant_is_named() {
    let world = world().await;
    let id = world.file("root").await;
    let issued = |serial: u64| {
        Entry::new(Event::CertCreate)
            .request_id(id)
            .serial(serial)
            .certificate_sha256("x")
    };
    let claims = [
        ("was not approved yet", None),
        (
            "was over",
            Some(Action::Revoke {
                reason: "over".to_owned(),
            }),
        ),
    ];
    for (claim, action) in claims {
        if let Some(action) = action {
            world.approve(id).await;
            world.state.apply(&admin(), id, action).await.unwrap();
        }
        world.state.audit(issued(7)).await.unwrap();
        let Err(VerifyError::Broken(broken)) = world.verify().await else {
            panic!("not found")
        };
        let text = broken.iter().map(ToString::to_string).collect::<String>();
        assert!(text.contains(claim), "{text}");
    }
}
