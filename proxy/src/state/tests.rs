//! The state on real SQLite, in directories of its own, under a clock moved by hand.

mod locks;

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anteroom_ca::SourceAddresses;
use anteroom_ca::key::{HostCa, Key, NodeCa, UserCa, fingerprint};
use anteroom_core::admin::AdminVerb;
use anteroom_core::documents;
use anteroom_core::id::{Login, NodeId, RequestId, ResourceId, SessionId, UserName};
use anteroom_core::node::{HostProof, Node};
use anteroom_core::policy::{Access, Decision, Identity, Permit, decide};
use anteroom_core::request::{
    Action, Filed, State as RequestState, Terms, TransitionError, Verdict, Wanted,
};
use anteroom_core::user::{User, UserKey};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};
use ssh_key::PublicKey;
use tempfile::TempDir;
use time::Duration;
use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::audit::{Event, Tampered};
use crate::store::{AuditFilter, Broken, DATABASE, MigrateError, VerifyError};

mod addresses;
mod admitted;
mod allowances;
mod authorities;
mod filings;
mod hosts;
mod identities;
mod mfa;
mod monitoring;
mod races;
mod unreadable;

const START: OffsetDateTime = datetime!(2026-11-20 20:00 UTC);

const ROLES: &str = "
kind: role
version: v8
metadata: {name: entry}
spec:
  allow:
    logins: [root, deploy]
    node_labels: {'*': '*'}
---
kind: role
version: v8
metadata: {name: asker}
spec:
  allow:
    request:
      search_as_roles: [entry]
---
kind: role
version: v8
metadata: {name: judge}
spec:
  allow:
    review_requests:
      roles: [entry]
---
kind: role
version: v8
metadata: {name: boss}
spec:
  allow:
    rules:
    - resources: ['*']
      verbs: ['*']
";

struct World {
    dir: TempDir,
    clock: Arc<ManualClock>,
    state: State,
    node: NodeId,
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn roles() -> Vec<Object> {
    parsed_roles(ROLES)
}

fn parsed_roles(text: &str) -> Vec<Object> {
    documents::parse(text)
        .unwrap()
        .into_iter()
        .map(|document| match document {
            documents::Document::Role(role) => Object::Role(*role),
            other @ (documents::Document::User(_)
            | documents::Document::Node(_)
            | documents::Document::Lock(_)
            | documents::Document::MonitoringRule(_)
            | documents::Document::Resource(_)) => {
                panic!("{other:?} is no role")
            }
        })
        .collect()
}

/// A key that is the same for the same word.
fn key(word: &str) -> PublicKey {
    let mut seed = [0; 32];
    seed[..word.len()].copy_from_slice(word.as_bytes());
    Key::from_seed(word, &seed).public_key().clone()
}

fn user(of: &str, roles: &[&str]) -> User {
    User {
        roles: roles.iter().map(|role| name(role)).collect(),
        keys: vec![user_key(of)],
        ..User::new(name(of))
    }
}

fn user_key(word: &str) -> UserKey {
    let key = key(word);
    UserKey {
        fingerprint: name(&fingerprint(&key).to_string()),
        openssh: key.to_openssh().unwrap(),
        added: START,
    }
}

fn node(called: &str) -> Node {
    Node {
        id: NodeId::from_uuid(Uuid::new_v4()),
        name: name(called),
        addr: name("192.0.2.7:22"),
        labels: Default::default(),
        host_proof: HostProof::HostCa,
        egress_addresses: Vec::new(),
    }
}

fn me(word: &str) -> Identity {
    Identity::from_proven_key(name(word), name(&fingerprint(&key(word)).to_string()))
}

fn admin() -> By {
    By::local_administrator()
}

async fn open(dir: &Path, clock: &Arc<ManualClock>) -> Result<State, OpenError> {
    let clock: Arc<dyn Clock> = clock.clone();
    let state = State::open(dir, clock, name("example.com"), Settings::default()).await?;
    state.adopt(authorities(), Vec::new()).await.unwrap();
    Ok(state)
}

fn authorities() -> Authorities {
    let key = |word, byte| Key::from_seed(word, &[byte; 32]);
    Authorities::stable(
        UserCa::new(key("user", 8)),
        NodeCa::new(key("node", 7)),
        HostCa::new(key("host", 6)),
        START,
    )
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let state = open(dir.path(), &clock).await.unwrap();
    let iot = node("iot");
    let id = iot.id;
    let mut objects = roles();
    objects.push(Object::Node(iot));
    objects.push(Object::User(user("alice", &["asker"])));
    objects.push(Object::User(user("bob", &["judge"])));
    objects.push(Object::User(user("carol", &["judge", "boss"])));
    state
        .put(&admin(), objects, Existing::Refuse)
        .await
        .unwrap();
    World {
        dir,
        clock,
        state,
        node: id,
    }
}

impl World {
    fn access(&self, login: &str) -> Access {
        Access {
            login: name(login),
            node: self.node,
        }
    }

    fn wanted(&self, login: &str) -> Wanted {
        let cluster = self.state.cluster().clone();
        let resource = ResourceId::node_login(cluster, self.node, name::<Login>(login));
        Wanted {
            reason: "please".to_owned(),
            ..Wanted::resources(BTreeSet::from([resource]))
        }
    }

    async fn file(&self, login: &str) -> RequestId {
        match self
            .state
            .file(&me("alice"), self.wanted(login))
            .await
            .unwrap()
        {
            Filed::New(new) => new.request.id,
            other @ (Filed::Joined(_) | Filed::Covered(_)) => panic!("{other:?} is no new request"),
        }
    }

    async fn approve(&self, id: RequestId) {
        self.state
            .review(&me("bob"), id, approval(), "okay", None)
            .await
            .unwrap();
    }

    fn subject(&self) -> Subject {
        Subject {
            session: SessionId::from_uuid(Uuid::new_v4()),
            key: key("ephemeral"),
            source_addresses: SourceAddresses::tunnel(),
            command: None,
            from: None,
        }
    }

    async fn issue(&self, login: &str) -> Result<Issued, IssueError> {
        self.state
            .issue(&me("alice"), &self.access(login), self.subject())
            .await
    }

    fn decide(&self, login: &str) -> Decision {
        decide(
            &self.state.view(),
            &me("alice"),
            &self.access(login),
            self.state.now(),
        )
    }

    fn permit(&self, login: &str) -> Permit {
        match self.decide(login) {
            Decision::Permit(permit) => permit,
            other @ (Decision::Ask(_) | Decision::Deny(_)) => panic!("{other:?} is no permit"),
        }
    }

    fn state_of(&self, id: RequestId) -> RequestState {
        self.state.view().request(&id).unwrap().state
    }

    async fn events(&self) -> Vec<(String, bool)> {
        let records = self
            .state
            .reader()
            .audit(&AuditFilter::default(), 0, 10_000)
            .await
            .unwrap();
        records
            .iter()
            .map(|record| {
                (
                    record.event.clone(),
                    record.fields()["success"].as_bool().unwrap(),
                )
            })
            .collect()
    }

    /// Another process that writes to the database.
    async fn elsewhere(&self) -> SqliteConnection {
        elsewhere(self.dir.path()).await
    }

    async fn sql(&self, sql: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql)
            .execute(&mut self.elsewhere().await)
            .await
            .map(drop)
    }

    async fn verify(&self) -> Result<(), VerifyError> {
        self.state.reader().verify(Vec::new()).await.map(drop)
    }
}

async fn elsewhere(dir: &Path) -> SqliteConnection {
    SqliteConnection::connect_with(
        &SqliteConnectOptions::new()
            .filename(dir.join(DATABASE))
            .foreign_keys(true),
    )
    .await
    .unwrap()
}

fn approval() -> Verdict {
    Verdict::Approve(Terms::default())
}

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
async fn what_is_stored_is_read_back_as_it_was() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let before = world.state.view();
    world.state.close().await;
    let again = open(world.dir.path(), &world.clock).await.unwrap();
    let after = again.view();
    assert_eq!(before.request(&id), after.request(&id));
    assert_eq!(before.user(&name("alice")), after.user(&name("alice")));
    assert_eq!(before.node(&world.node), after.node(&world.node));
    for role in before.roles() {
        assert_eq!(after.role(&role.name), Some(role));
    }
}

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

#[tokio::test]
async fn any_race_over_one_request_has_one_outcome() {
    for round in 0..8_u64 {
        let world = world().await;
        let reviewers: Vec<String> = (0..12).map(|number| format!("judge{number}")).collect();
        let people = reviewers
            .iter()
            .map(|judge| Object::User(user(judge, &["judge"])))
            .collect();
        world
            .state
            .put(&admin(), people, Existing::Refuse)
            .await
            .unwrap();
        let id = world.file("root").await;
        let expires = world.state.view().request(&id).unwrap().request_expires;
        let mut racing = tokio::task::JoinSet::new();
        for (number, judge) in reviewers.into_iter().enumerate() {
            let state = world.state.clone();
            let verdict = if number % 2 == 0 {
                approval()
            } else {
                Verdict::Deny
            };
            racing.spawn(async move {
                state
                    .review(&me(&judge), id, verdict, "", None)
                    .await
                    .is_ok()
            });
        }
        for _ in 0..4 {
            let state = world.state.clone();
            let alice = By::user(me("alice"), None);
            racing.spawn(async move { state.apply(&alice, id, Action::Cancel).await.is_ok() });
        }
        let clock = Arc::clone(&world.clock);
        racing.spawn(async move {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            clock.set(expires);
            false
        });
        let won = racing
            .join_all()
            .await
            .into_iter()
            .filter(|won| *won)
            .count();
        world.state.expire_due().await.unwrap();
        let request = Arc::clone(world.state.view().request(&id).unwrap());
        let stored = world.state.reader().request(id).await.unwrap().unwrap();
        assert_eq!(*request, stored);
        assert_ne!(request.state, RequestState::Pending);
        let settled: Vec<(String, bool)> = world
            .events()
            .await
            .into_iter()
            .filter(|(event, done)| {
                *done
                    && ["access_request.review", "access_request.update"].contains(&event.as_str())
            })
            .collect();
        assert_eq!(settled.len(), won, "round {round}: {settled:?}");
        assert!(won <= 1, "round {round}: {won} winners");
        world.verify().await.unwrap();
    }
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
async fn nobody_new_is_called_as_the_proxy_or_as_agents_call_themselves() {
    let world = world().await;
    for reserved in ["anteroom", "enroll+x@example.com", "node+x@example.com"] {
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
    for fine in ["anteroom2", "me+node@example.com", "enroll"] {
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
async fn a_second_proxy_on_the_same_directory_is_refused() {
    let world = world().await;
    let error = open(world.dir.path(), &world.clock).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is running on"), "{text}");
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    world.state.close().await;
    open(world.dir.path(), &world.clock).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_the_directory_is_free_again() {
    let world = world().await;
    world.state.close().await;
    world.sql("PRAGMA user_version = 999").await.unwrap();
    let error = open(world.dir.path(), &world.clock).await.unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Migrate(MigrateError::Newer { found: 999, .. })
        ),
        "{error}"
    );
    let back = format!("PRAGMA user_version = {}", crate::store::SCHEMA);
    world.sql(Box::leak(back.into_boxed_str())).await.unwrap();
    open(world.dir.path(), &world.clock).await.unwrap();
}

#[tokio::test]
async fn sessions_of_a_killed_proxy_end_at_the_next_start_and_pending_requests_stay() {
    let world = world().await;
    let approved = world.file("root").await;
    world.approve(approved).await;
    let pending = world.file("deploy").await;
    let (ended, left) = (
        SessionId::from_uuid(Uuid::new_v4()),
        SessionId::from_uuid(Uuid::new_v4()),
    );
    let permit = world.permit("root");
    for session in [ended, left] {
        world
            .state
            .session_started(
                &permit,
                session,
                None,
                Some((Event::Exec, "uptime".to_owned())),
            )
            .await
            .unwrap();
    }
    for _ in 0..2 {
        world
            .state
            .session_ended(&permit, ended, SessionEnded::default())
            .await
            .unwrap();
    }
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    assert_eq!(
        state.view().request(&pending).unwrap().state,
        RequestState::Pending
    );
    let sessions = state.reader().sessions(10).await.unwrap();
    assert!(
        sessions.iter().all(|session| session.ended.is_some()),
        "{sessions:?}"
    );
    let filter = AuditFilter {
        event: Some(Event::SessionEnd),
        ..AuditFilter::default()
    };
    let ends = state.reader().audit(&filter, 0, 100).await.unwrap();
    assert_eq!(ends.len(), 2);
    assert_eq!(ends[1].fields()["reason"], "the proxy stopped");
    assert_eq!(ends[1].fields()["session_id"], left.to_string());
    state.reader().verify(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_grants_nothing_and_comes_back_by_itself() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world
        .sql("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .await
        .unwrap();
    let error = world.issue("root").await.unwrap_err();
    assert!(
        matches!(error, IssueError::Store(StoreError::Unavailable(_))),
        "{error}"
    );
    let error = world
        .state
        .file(&me("alice"), world.wanted("deploy"))
        .await
        .unwrap_err();
    assert!(matches!(error, FileError::Store(_)), "{error}");
    assert_eq!(world.state.view().requests().count(), 1);
    world.sql("DROP TRIGGER full").await.unwrap();
    world.issue("root").await.unwrap();
    world.verify().await.unwrap();
}

#[tokio::test]
async fn what_another_process_commits_counts_in_the_next_decision() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world
        .sql(
            "DELETE FROM user_keys; DELETE FROM user_roles; DELETE FROM users WHERE name = 'alice'",
        )
        .await
        .unwrap();
    let error = world.issue("root").await.unwrap_err();
    assert!(matches!(error, IssueError::NotPermitted(_)), "{error}");
    assert!(world.state.view().user(&name("alice")).is_none());
}

#[tokio::test]
async fn a_panic_in_one_decision_harms_no_other() {
    let world = world().await;
    let by = admin();
    let broken = world
        .state
        .update_user(
            &by,
            &name::<UserName>("alice"),
            |_| -> Result<(), std::convert::Infallible> { panic!("ours") },
        )
        .await;
    assert!(broken.is_err());
    world.file("root").await;
    world.verify().await.unwrap();
}

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
        matches!(broken[..], [Broken::OutlivesGrant { .. }]),
        "{broken:?}"
    );
}

#[tokio::test]
async fn many_waiting_writers_share_commits() {
    let world = world().await;
    let mut auditing = tokio::task::JoinSet::new();
    for number in 0..500 {
        let state = world.state.clone();
        auditing.spawn(async move {
            state
                .audit(Entry::new(Event::Exec).command(number))
                .await
                .unwrap()
        });
    }
    auditing.join_all().await;
    let filter = AuditFilter {
        event: Some(Event::Exec),
        ..AuditFilter::default()
    };
    assert_eq!(
        world
            .state
            .reader()
            .audit(&filter, 0, 1000)
            .await
            .unwrap()
            .len(),
        500
    );
    world.verify().await.unwrap();
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

// What follows runs this test program again as a process of its own, since a process can be killed
// and has a umask.

const CHILD_DIR: &str = "ANTEROOM_TEST_CHILD_DIR";
const FAILING_DIR: &str = "ANTEROOM_TEST_FAILING_DIR";

/// The process that is killed: files, approves, issues, says so, and starts over.
#[tokio::test]
async fn child_that_works_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let clock = Arc::new(ManualClock::new(START));
    let state = open(dir, &clock).await.unwrap();
    if state.view().nodes().next().is_none() {
        let mut objects = roles();
        objects.push(Object::Node(node("iot")));
        objects.push(Object::User(user("alice", &["asker"])));
        objects.push(Object::User(user("bob", &["judge"])));
        state
            .put(&admin(), objects, Existing::Refuse)
            .await
            .unwrap();
    }
    let node = state.view().nodes().next().unwrap().id;
    let world = World {
        dir: tempfile::tempdir().unwrap(),
        clock,
        state,
        node,
    };
    for _ in 0..25 {
        let id = match world
            .state
            .file(&me("alice"), world.wanted("root"))
            .await
            .unwrap()
        {
            Filed::New(new) => new.request.id,
            Filed::Joined(id) | Filed::Covered(id) => id,
        };
        println!("filed {id}");
        if world.state_of(id) == RequestState::Pending {
            world.approve(id).await;
        }
        println!("approved {id}");
        let issued = world.issue("root").await.unwrap();
        println!("issued {}", issued.certificate.serial().get());
        let session = SessionId::from_uuid(Uuid::new_v4());
        world
            .state
            .session_started(&issued.permit, session, None, None)
            .await
            .unwrap();
        println!("started {session}");
        let login = world.login(&me("alice"), &[id]).await.unwrap();
        println!("issued {}", login.certificate.serial().get());
        let who = identities::present(&world.state, &login.certificate).unwrap();
        let dropped = world.drop_all(&who.into_identity()).await.unwrap();
        println!("issued {}", dropped.certificate.serial().get());
        world
            .state
            .apply(
                &admin(),
                id,
                Action::Revoke {
                    reason: String::new(),
                },
            )
            .await
            .unwrap();
        println!("revoked {id}");
    }
    world.state.close().await;
}

fn child(program: &str, arguments: &[String], dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args([
            "--exact",
            "state::tests::child_that_works_until_it_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Whether strace is here and may trace; where not, the tests that need it say so and end.
fn strace_works() -> bool {
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .output();
    let works = traced.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: strace is not installed, or may not trace here");
    }
    works
}

fn this_program() -> String {
    std::env::current_exe()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// What the killed process had said must be true, and everything must hold together.
async fn check_after_kill(dir: &Path, said: &str) {
    let clock = Arc::new(ManualClock::new(START));
    let state = open(dir, &clock).await.unwrap();
    state.reader().verify(Vec::new()).await.unwrap();
    let mut database = elsewhere(dir).await;
    for line in said.lines() {
        let Some((what, id)) = line.split_once(' ') else {
            continue;
        };
        let query = match what {
            "filed" => "SELECT count(*) FROM requests WHERE id = $1",
            "approved" => {
                "SELECT count(*) FROM requests WHERE id = $1 AND state IN ('APPROVED', 'REVOKED')"
            }
            "issued" => "SELECT count(*) FROM issuances WHERE serial = $1",
            "started" => "SELECT count(*) FROM sessions WHERE id = $1 AND ended IS NOT NULL",
            "revoked" => "SELECT count(*) FROM requests WHERE id = $1 AND state = 'REVOKED'",
            _ => continue,
        };
        let found: i64 = sqlx::query_scalar(query)
            .bind(id)
            .fetch_one(&mut database)
            .await
            .unwrap();
        assert_eq!(found, 1, "said `{line}`, and it is not so");
    }
    let unended: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions WHERE ended IS NULL")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(unended, 0);
    state.close().await;
}

#[tokio::test]
async fn whatever_was_said_before_a_kill_is_true_after_it() {
    use std::io::{BufRead, BufReader};

    let dir = tempfile::tempdir().unwrap();
    for lines in [1_usize, 4, 9, 16, 27] {
        let mut running = child(&this_program(), &[], dir.path()).spawn().unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(running.stdout.take().unwrap());
        let mut seen = 0;
        while seen < lines && output.read_line(&mut said).unwrap() > 0 {
            seen = said
                .lines()
                .filter(|line| line.contains(' ') && !line.starts_with("running"))
                .count();
        }
        running.kill().unwrap();
        // What was in the pipe already was said, too.
        std::io::Read::read_to_string(&mut output, &mut said).unwrap();
        running.wait().unwrap();
        // The last line may have been cut by the kill.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        assert!(whole.contains("filed "), "the child did nothing: {said}");
        check_after_kill(dir.path(), whole).await;
    }
}

#[tokio::test]
async fn killed_at_each_sync_of_the_disk_the_state_is_whole() {
    if !strace_works() {
        return;
    }
    let mut killed = 0;
    // Each sync of making the database and of the first requests, then samples of what follows.
    for at in (1..=14).chain((16..40).step_by(6)) {
        let dir = tempfile::tempdir().unwrap();
        let inject = format!("inject=fdatasync,fsync:signal=KILL:when={at}");
        let strace = [
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            &inject,
        ];
        let mut arguments: Vec<String> = strace.iter().map(ToString::to_string).collect();
        arguments.push(this_program());
        let output = child("strace", &arguments, dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !said.contains("test result") {
            killed += 1;
        }
        check_after_kill(
            dir.path(),
            said.rsplit_once('\n').map_or("", |(whole, _)| whole),
        )
        .await;
    }
    assert!(killed > 0, "strace killed nothing");
}

/// The process whose disk fails now and then: it tries again until it is done.
#[tokio::test]
async fn child_that_works_on_a_failing_disk() {
    let Some(dir) = std::env::var_os(FAILING_DIR) else {
        return;
    };
    let clock = Arc::new(ManualClock::new(START));
    let state = open(Path::new(&dir), &clock).await.unwrap();
    let mut failures = 0;
    for number in 0..60 {
        while state
            .audit(Entry::new(Event::Exec).command(number))
            .await
            .is_err()
        {
            failures += 1;
        }
        println!("logged {number}");
    }
    println!("failures {failures}");
    state.close().await;
}

#[tokio::test]
async fn a_failing_disk_loses_nothing_that_was_said_and_needs_no_restart() {
    if !strace_works() {
        return;
    }
    for inject in [
        "fdatasync,fsync:error=EIO:when=20+9",
        "pwrite64:error=ENOSPC:when=90+13",
    ] {
        let dir = tempfile::tempdir().unwrap();
        // A first start in peace: a start on a broken disk may well fail.
        open(dir.path(), &Arc::new(ManualClock::new(START)))
            .await
            .unwrap()
            .close()
            .await;
        let (syscall, _) = inject.split_once(':').unwrap();
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("trace={syscall}"))
            .arg("-e")
            .arg(format!("inject={inject}"))
            .arg(this_program())
            .args([
                "--exact",
                "state::tests::child_that_works_on_a_failing_disk",
                "--nocapture",
            ])
            .env(FAILING_DIR, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{inject}: {said} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let failures = said
            .lines()
            .find_map(|line| line.strip_prefix("failures "))
            .unwrap();
        assert_ne!(failures, "0", "{inject}: nothing failed");
        let reader = Reader::of(dir.path());
        reader.verify(Vec::new()).await.unwrap();
        let filter = AuditFilter {
            event: Some(Event::Exec),
            ..AuditFilter::default()
        };
        let logged = reader.audit(&filter, 0, 1000).await.unwrap();
        for number in 0..60 {
            let number = number.to_string();
            assert!(
                logged
                    .iter()
                    .any(|record| record.fields()["command"] == number),
                "{inject}: {number}"
            );
        }
    }
}

#[tokio::test]
async fn a_directory_without_a_proxy_can_be_read_and_verified() {
    let world = world().await;
    world.state.close().await;
    let report = Reader::of(world.dir.path())
        .verify(Vec::new())
        .await
        .unwrap();
    assert!(report.head.seq > 0);
}

#[tokio::test]
async fn files_are_private_whatever_the_umask() {
    for umask in ["000", "022", "0777"] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        std::fs::create_dir(&dir).unwrap();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let output = child("sh", &["-c".to_owned(), script, this_program()], &dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "umask {umask}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        // While one runs there are three files and the lock; look while one runs.
        let clock = Arc::new(ManualClock::new(START));
        let state = open(&dir, &clock).await.unwrap();
        for file in std::fs::read_dir(&dir).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().mode() & 0o777;
            assert_eq!(
                mode,
                0o600,
                "umask {umask}: {:?} has mode {mode:o}",
                file.file_name()
            );
        }
        state.close().await;
    }
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    std::fs::write(dir.path().join("letter.txt"), "mine").unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let error = open(dir.path(), &clock).await.unwrap_err().to_string();
    assert!(
        error.contains("mode 0755") && error.contains("chmod 700"),
        "{error}"
    );
    assert_eq!(std::fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o755);
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
