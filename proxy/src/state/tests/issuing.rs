//! Certificates for nodes: issued while it is permitted, recorded, and not a moment longer.

use super::*;

#[tokio::test]
async fn an_approved_request_issues_a_certificate_that_is_recorded() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let issued = world.issue("root").await.unwrap();
    assert_eq!(issued.permit.request(), Some(id));
    let mut database = world.elsewhere().await;
    let (request, sha256): (String, String) =
        sqlx::query_as("SELECT request_id, cert_sha256 FROM issuances WHERE serial = $1")
            .bind(issued.certificate.serial().get().to_string())
            .fetch_one(&mut database)
            .await
            .unwrap();
    assert_eq!(request, id.to_string());
    assert_eq!(sha256, crate::audit::hex(&issued.certificate.sha256()));
    world.verify().await.unwrap();
}

#[tokio::test]
async fn another_login_than_the_approved_one_issues_nothing() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let error = world.issue("deploy").await.unwrap_err();
    assert!(matches!(error, IssueError::NotPermitted(_)), "{error}");
    assert_eq!(
        world.events().await.last().unwrap(),
        &("cert.create".to_owned(), false)
    );
    world.verify().await.unwrap();
}

#[tokio::test]
async fn nothing_is_issued_after_a_revocation() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world.issue("root").await.unwrap();
    world
        .state
        .apply(
            &admin(),
            id,
            Action::Revoke {
                reason: "over".to_owned(),
            },
        )
        .await
        .unwrap();
    let error = world.issue("root").await.unwrap_err();
    assert!(matches!(error, IssueError::NotPermitted(_)), "{error}");
}

#[tokio::test]
async fn nothing_is_issued_while_the_clock_is_far_behind_the_last_issuance() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world.clock.advance(Duration::hours(1));
    world.issue("root").await.unwrap();
    world.clock.advance(Duration::seconds(-60));
    world.issue("root").await.unwrap();
    world.clock.advance(Duration::seconds(-1));
    let error = world.issue("root").await.unwrap_err();
    assert!(matches!(error, IssueError::Clock(_)), "{error}");
    // Also after a restart: the last issuance is in the database.
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    let again = state
        .issue(&me("alice"), &world.access("root"), world.subject())
        .await;
    assert!(matches!(again, Err(IssueError::Clock(_))));
}
