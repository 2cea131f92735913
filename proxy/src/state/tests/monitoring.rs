//! Access monitoring rules on the real store: what they review, when, and what the log says.

use anteroom_core::request::State as RequestState;

use super::*;

fn rule(name: &str, decision: &str, rest: &str) -> Object {
    let text = format!(
        "kind: access_monitoring_rule\nversion: v1\nmetadata: {{name: {name}}}\nspec:\n  \
         subjects: [access_request]\n  condition: 'access_request.spec.user == \"alice\"'\n  \
         desired_state: reviewed\n  \
         automatic_review: {{integration: builtin, decision: {decision}}}\n{rest}"
    );
    Object::MonitoringRule(documents::parse_monitoring_rule(&text).unwrap())
}

impl World {
    async fn put_rule(&self, by: &By, rule: Object) {
        let objects = vec![rule];
        self.state
            .put(by, objects, Existing::Replace)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_rule_reviews_in_the_transaction_that_files_and_the_log_says_that_it_was_one() {
    let world = world().await;
    world.put_rule(&admin(), rule("a", "APPROVED", "")).await;
    let id = world.file("root").await;
    assert_eq!(world.state_of(id), RequestState::Approved);
    let filter = AuditFilter {
        event: Some(Event::AccessRequestReview),
        ..AuditFilter::default()
    };
    let logged = world.state.reader().audit(&filter, 0, 10).await.unwrap();
    let fields = logged[0].fields();
    assert_eq!(fields["automatic"], "access_monitoring_rule/a");
    assert_eq!(fields["user"], "@a");
    assert_eq!(fields["state"], "APPROVED");
    world.issue("root").await.unwrap();
    world.state.reader().verify(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_rule_that_is_made_or_changed_looks_at_what_is_pending() {
    let world = world().await;
    let first = world.file("root").await;
    assert_eq!(world.state_of(first), RequestState::Pending);
    world.put_rule(&admin(), rule("a", "DENIED", "")).await;
    assert_eq!(world.state_of(first), RequestState::Denied);
    world.put_rule(&admin(), rule("a", "APPROVED", "")).await;
    assert_eq!(world.state_of(first), RequestState::Denied);
    let ids = vec![ObjectId::MonitoringRule(name("a"))];
    world.state.remove(&admin(), ids).await.unwrap();
    let second = world.file("root").await;
    assert_eq!(world.state_of(second), RequestState::Pending);
}

#[tokio::test]
async fn when_a_shift_begins_what_is_pending_is_reviewed_without_anybody_asking() {
    let world = world().await;
    let hours = "  schedules: {late: {time: {timezone: UTC, shifts: [{weekday: Friday, \
                 start: \"20:30\", end: \"21:00\"}]}}}\n";
    world.put_rule(&admin(), rule("a", "APPROVED", hours)).await;
    let id = world.file("root").await;
    assert_eq!(world.state_of(id), RequestState::Pending);
    let mut changes = world.state.changes();
    changes.borrow_and_update();
    world.clock.advance(Duration::minutes(30));
    changes.changed().await.unwrap();
    assert_eq!(world.state_of(id), RequestState::Approved);
}

#[tokio::test]
async fn who_wrote_a_rule_stays_its_author_over_a_change_and_a_restart() {
    let world = world().await;
    let by = |who: &str| By::user(me(who), None);
    world
        .put_rule(&by("carol"), rule("a", "APPROVED", ""))
        .await;
    world.put_rule(&admin(), rule("a", "DENIED", "")).await;
    world.put_rule(&admin(), rule("a", "APPROVED", "")).await;
    let World {
        dir, clock, state, ..
    } = world;
    state.close().await;
    drop(state);
    let state = open(dir.path(), &clock).await.unwrap();
    let view = state.view();
    let kept = view.monitoring_rule(&name("a")).unwrap();
    assert_eq!(kept.authors, [name("carol")].into());
    assert!(kept.unreadable.is_none());
}

#[tokio::test]
async fn a_rule_of_somebody_without_the_right_is_refused_and_logged() {
    let world = world().await;
    let alice = By::user(me("alice"), None);
    let objects = vec![rule("a", "APPROVED", "")];
    let refused = world.state.put(&alice, objects, Existing::Refuse).await;
    assert!(
        matches!(refused, Err(PutError::NotAllowed(_))),
        "{refused:?}"
    );
    assert!(world.state.view().monitoring_rules().next().is_none());
}
