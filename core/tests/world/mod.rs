//! A small cluster for tests: the presets, a few roles, people and nodes.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet};

use anteroom_core::credential::{AllowedResources, Claims, Credential, IssuedCredential};
use anteroom_core::documents::{self, Document};
use anteroom_core::id::{KeyFingerprint, NodeId, RequestId, RoleName, UserName};
use anteroom_core::node::{HostProof, Node};
use anteroom_core::policy::{Access, Identity};
use anteroom_core::request::{AccessRequest, Filed, Terms, Verdict, Wanted, file, review};
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::{Settings, View};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// When everything starts.
pub const T0: OffsetDateTime = datetime!(2026-11-20 10:00 UTC);

/// An instant `minutes` after [`T0`].
pub fn at(minutes: i64) -> OffsetDateTime {
    T0 + Duration::minutes(minutes)
}

pub fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

pub fn role(name: &str) -> RoleName {
    name.parse().unwrap()
}

pub fn roles(names: &[&str]) -> BTreeSet<RoleName> {
    names.iter().map(|name| role(name)).collect()
}

/// A key: `n` picks one of the fingerprints.
pub fn key(n: u8) -> KeyFingerprint {
    let letter = char::from(b'A' + n);
    format!("SHA256:{}", letter.to_string().repeat(43))
        .parse()
        .unwrap()
}

pub fn request_id(n: u128) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(n))
}

pub fn node_id(n: u128) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n))
}

pub fn a_user(name: &str, keys: &[u8], roles_: &[&str], logins: &[&str]) -> User {
    let mut out = User::new(user(name));
    out.roles = roles(roles_);
    out.logins = logins.iter().map(|login| login.parse().unwrap()).collect();
    let key = |n: &u8| UserKey {
        fingerprint: key(*n),
        openssh: String::new(),
        added: T0,
    };
    out.keys = keys.iter().map(key).collect();
    out
}

pub fn a_node(n: u128, name: &str, labels: &[(&str, &str)]) -> Node {
    Node {
        id: node_id(n),
        name: name.parse().unwrap(),
        addr: "192.0.2.1:22".parse().unwrap(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        said_labels: Default::default(),
        host_proof: HostProof::HostCa,
        egress_addresses: Vec::new(),
    }
}

/// Adds the roles of a YAML text.
pub fn with_roles(view: View, text: &str) -> View {
    let documents = documents::parse(text).unwrap_or_else(|error| panic!("{error}"));
    view.with_roles(documents.into_iter().map(|document| match document {
        Document::Role(role) => *role,
        Document::User(_)
        | Document::Node(_)
        | Document::Lock(_)
        | Document::Resource(_)
        | Document::MonitoringRule(_)
        | Document::Token(_) => panic!("roles only"),
    }))
}

/// Presets, alice who may ask, bob who may review, carol who has standing access, node iot.
pub fn small() -> View {
    View::new("example.com".parse().unwrap(), Settings::default())
        .with_roles(anteroom_core::preset::presets())
        .with_users([
            a_user("alice", &[0, 1], &["requester"], &["alice", "root"]),
            a_user("bob", &[2], &["reviewer"], &["bob"]),
            a_user("carol", &[3], &["access"], &["carol"]),
        ])
        .with_nodes([a_node(1, "iot", &[("env", "staging")])])
}

pub fn alice() -> Identity {
    Identity::from_proven_key(user("alice"), key(0))
}

/// alice with an identity certificate that says this, and the view that knows it.
pub fn certified(view: View, held: &[&str], allowed: AllowedResources) -> (View, Identity) {
    let (serial, ends) = (7, at(600));
    let issued = IssuedCredential {
        serial,
        sha256: [0; 32],
        user: user("alice"),
        login_key: key(0),
        subject: key(0),
        valid_before: ends,
        revoked: None,
    };
    let credential = Credential {
        serial,
        subject: String::new(),
        key: key(0),
        valid_before: ends,
        claims: Claims {
            roles: roles(held),
            traits: BTreeMap::new(),
            requests: BTreeSet::new(),
            allowed,
            pinned: None,
            session_ends: ends,
        },
        permits: BTreeSet::new(),
    };
    let identity = Identity::from_verified_certificate(user("alice"), key(0), credential);
    (view.with_credentials([issued]), identity)
}

pub fn access(login: &str, node: u128) -> Access {
    Access {
        login: login.parse().unwrap(),
        node: node_id(node),
    }
}

pub fn wants_root_on_iot(view: &View) -> Wanted {
    let id = anteroom_core::id::ResourceId::node_login(
        view.cluster().clone(),
        node_id(1),
        "root".parse().unwrap(),
    );
    Wanted::resources(BTreeSet::from([id]))
}

/// The request that filing makes, which must be a new one.
pub fn filed(
    view: &View,
    identity: &Identity,
    wanted: &Wanted,
    n: u128,
    now: OffsetDateTime,
) -> AccessRequest {
    match file(view, identity, wanted, request_id(n), now) {
        Ok(Filed::New(new)) => new.request,
        other => panic!("expected a new request, got {other:?}"),
    }
}

/// The request, approved by bob as asked.
pub fn approved(view: &View, request: &AccessRequest, now: OffsetDateTime) -> AccessRequest {
    let verdict = Verdict::Approve(Terms::default());
    review(view, &user("bob"), request, verdict, "okay", now)
        .unwrap()
        .request
}
