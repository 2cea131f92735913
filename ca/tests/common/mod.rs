//! A small installation: alice with standing access, carol who has to ask, bob who reviews.

#![allow(dead_code, reason = "every test program uses another part")]

use std::collections::{BTreeMap, BTreeSet};

use anteroom_ca::key::{HostCa, Key, NodeCa, UserCa};
use anteroom_ca::names::HostNames;
use anteroom_ca::node::{self, Terms};
use anteroom_ca::{Certificate, IssueTime, Serial, SourceAddresses};
use anteroom_core::id::{
    ClusterName, KeyFingerprint, Login, NodeId, NodeName, RequestId, ResourceId, RoleName,
    SessionId, UserName,
};
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::pattern::Pattern;
use anteroom_core::policy::{Access, Decision, Identity, Permit, decide_for};
use anteroom_core::request::{self, Filed, Scope, Terms as Approval, Verdict, Wanted};
use anteroom_core::role::{Conditions, Options, Role};
use anteroom_core::selector::{LabelSelector, Template};
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::{Settings, View};
use rand::SeedableRng;
use rand::rngs::StdRng;
use time::{Duration, OffsetDateTime};

pub(crate) const IOT: &str = "b1168402-9340-421a-a344-af66a6675738";
pub(crate) const WEB: &str = "bbb56211-7b54-4f9e-bee9-b68ea156be5f";
pub(crate) const REQUEST: &str = "ab43fc70-e893-471b-872e-ae65eb24fd76";
pub(crate) const SESSION: &str = "0f5e2f6e-6f5c-4a3e-9d55-1f2a3b4c5d6e";

pub(crate) fn rng() -> StdRng {
    StdRng::seed_from_u64(20_261_120)
}

pub(crate) fn node_ca() -> NodeCa {
    NodeCa::new(Key::from_seed("anteroom node CA", &[1; 32]))
}

pub(crate) fn host_ca() -> HostCa {
    HostCa::new(Key::from_seed("anteroom host CA", &[2; 32]))
}

pub(crate) fn user_ca() -> UserCa {
    UserCa::new(Key::from_seed("anteroom user CA", &[5; 32]))
}

pub(crate) fn subject() -> Key {
    Key::from_seed("", &[3; 32])
}

pub(crate) fn names() -> HostNames {
    HostNames::new(["access", "example.com"], ["lan"]).unwrap()
}

pub(crate) fn cluster() -> ClusterName {
    ClusterName::parse("example.com").unwrap()
}

pub(crate) fn node_id(text: &str) -> NodeId {
    NodeId::parse(text).unwrap()
}

/// The role `access`: every node, these logins, with these options.
pub(crate) fn access_role(logins: &[&str], options: Options) -> Role {
    let allow = Conditions {
        logins: logins
            .iter()
            .map(|login| Template::parse(login).unwrap())
            .collect(),
        node_labels: LabelSelector::everything(),
        ..Conditions::default()
    };
    role("access", allow, options)
}

fn role(name: &str, allow: Conditions, options: Options) -> Role {
    Role {
        name: RoleName::parse(name).unwrap(),
        description: None,
        labels: BTreeMap::new(),
        allow,
        deny: Conditions::default(),
        options,
        source: serde_json::Value::Null,
        unreadable: None,
    }
}

pub(crate) fn user(name: &str, roles: &[&str], now: OffsetDateTime) -> User {
    let mut user = User::new(UserName::parse(name).unwrap());
    user.roles = roles
        .iter()
        .map(|role| RoleName::parse(role).unwrap())
        .collect();
    user.keys = vec![UserKey {
        fingerprint: key_of(name),
        openssh: person_key(name).public_key().to_openssh().unwrap(),
        added: now,
    }];
    user
}

/// The key that a person registered.
pub(crate) fn person_key(name: &str) -> Key {
    Key::from_seed("", &[name.bytes().next().unwrap(); 32])
}

pub(crate) fn key_of(name: &str) -> KeyFingerprint {
    KeyFingerprint::parse(&person_key(name).fingerprint().to_string()).unwrap()
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity::from_proven_key(UserName::parse(name).unwrap(), key_of(name))
}

fn node(id: &str, name: &str) -> Node {
    Node {
        id: node_id(id),
        name: NodeName::parse(name).unwrap(),
        addr: NodeAddr::parse("127.0.0.1:22").unwrap(),
        labels: BTreeMap::new(),
        said_labels: Default::default(),
        host_proof: HostProof::HostCa,
        egress_addresses: Vec::new(),
    }
}

pub(crate) fn view(access: Role, now: OffsetDateTime) -> View {
    let mut asking = Conditions::default();
    asking.request.search_as_roles = vec![access.name.clone()];
    let mut reviewing = Conditions::default();
    reviewing.review_requests.roles = vec![Pattern::parse("access").unwrap()];
    View::new(cluster(), Settings::default())
        .with_role(access)
        .with_role(role("requester", asking, Options::default()))
        .with_role(role("reviewer", reviewing, Options::default()))
        .with_user(user("alice", &["access"], now))
        .with_user(user("bob", &["reviewer"], now))
        .with_user(user("carol", &["requester"], now))
        .with_node(node(IOT, "iot"))
        .with_node(node(WEB, "web"))
}

fn decided(view: &View, who: &str, login: &str, id: &str, now: OffsetDateTime) -> Permit {
    decided_for(view, who, login, id, None, now)
}

fn decided_for(
    view: &View,
    who: &str,
    login: &str,
    id: &str,
    command: Option<&[u8]>,
    now: OffsetDateTime,
) -> Permit {
    let access = Access {
        login: Login::parse(login).unwrap(),
        node: node_id(id),
    };
    match decide_for(view, &identity(who), &access, command, now) {
        Decision::Permit(permit) => permit,
        Decision::Ask(ask) => panic!("no permit: {ask:?}"),
        Decision::Deny(denial) => panic!("no permit: {denial:?}"),
    }
}

/// What alice's standing role gives her.
pub(crate) fn standing(access: Role, login: &str, id: &str, now: OffsetDateTime) -> Permit {
    decided(&view(access, now), "alice", login, id, now)
}

/// What carol gets by a request that was approved `ends_in` before its end.
pub(crate) fn requested(login: &str, id: &str, now: OffsetDateTime, ends_in: Duration) -> Permit {
    requested_for(None, login, id, now, ends_in)
}

/// The same, bound to one command if one is given.
pub(crate) fn requested_for(
    command: Option<&str>,
    login: &str,
    id: &str,
    now: OffsetDateTime,
    ends_in: Duration,
) -> Permit {
    let view = view_with(command, login, id, now, ends_in);
    decided_for(&view, "carol", login, id, command.map(str::as_bytes), now)
}

/// Carol's request for one login on one node is approved, and ends `ends_in` after `now`.
pub(crate) fn view_with_request(
    login: &str,
    id: &str,
    now: OffsetDateTime,
    ends_in: Duration,
) -> View {
    view_with(None, login, id, now, ends_in)
}

fn view_with(
    command: Option<&str>,
    login: &str,
    id: &str,
    now: OffsetDateTime,
    ends_in: Duration,
) -> View {
    let filed_at = now - Duration::minutes(30);
    let view = view(
        access_role(&["root", "deploy"], Options::default()),
        filed_at,
    );
    let resource = ResourceId::node_login(cluster(), node_id(id), Login::parse(login).unwrap());
    let mut wanted = Wanted::resources(BTreeSet::from([resource]));
    wanted.max_duration = Some(Duration::minutes(30) + ends_in);
    wanted.session_ttl = Some(Duration::minutes(30) + ends_in);
    if let Some(command) = command {
        wanted.scope = Scope::Command(command.to_owned());
    }
    let id_of_request = RequestId::parse(REQUEST).unwrap();
    let filed = request::file(&view, &identity("carol"), &wanted, id_of_request, filed_at).unwrap();
    let Filed::New(new) = filed else {
        panic!("not new: {filed:?}")
    };
    let view = view.with_request(new.request.clone());
    let bob = UserName::parse("bob").unwrap();
    let verdict = Verdict::Approve(Approval::default());
    let reviewed = request::review(&view, &bob, &new.request, verdict, "okay", filed_at).unwrap();
    view.with_request(reviewed.request)
}

pub(crate) struct Issuing {
    pub(crate) source: SourceAddresses,
    pub(crate) at: IssueTime,
}

pub(crate) fn issuing(now: OffsetDateTime) -> Issuing {
    Issuing {
        source: SourceAddresses::tunnel(),
        at: IssueTime::new(now, None).unwrap(),
    }
}

impl Issuing {
    pub(crate) fn certify(
        &self,
        permit: &Permit,
        ca: &NodeCa,
    ) -> Result<Certificate, node::CertifyError> {
        let terms = Terms {
            cluster: &cluster(),
            session: SessionId::parse(SESSION).unwrap(),
            serial: Serial::new(4711).unwrap(),
            source_addresses: &self.source,
            at: self.at,
        };
        node::certify(permit, subject().public_key(), &terms, ca, &mut rng())
    }
}
