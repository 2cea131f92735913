//! The state on real SQLite, in directories of its own, under a clock moved by hand.

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
mod durability;
mod filings;
mod hosts;
mod identities;
mod invariants;
mod issuing;
mod locks;
mod mfa;
mod monitoring;
mod objects;
mod races;
mod requests;
mod tampering;
mod tokens;
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
            | documents::Document::Token(_)
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
        said_labels: Default::default(),
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
