//! How long one decision takes, through the public interface of `anteroom-core` and without
//! anything around it.
//!
//! The view holds 10,000 nodes and 100 roles. People with few of the roles are the usual case;
//! those with all of them are the worst that the same view can hold, and are shown beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;

use anteroom_core::documents::parse_role;
use anteroom_core::id::{
    ClusterName, KeyFingerprint, Login, NodeId, NodeName, RequestId, ResourceId, RoleName, UserName,
};
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::policy::{Access, Decision, Grant, Identity, decide};
use anteroom_core::request::{self, Filed, Terms, Verdict, Wanted};
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::{Settings, View};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::measure::{Spread, float, own_thread_seconds};

const NODES: usize = 10_000;
/// With `asker`, `seeker` and `reviewer` there are 100 roles.
const TEAMS: usize = 97;
/// How many roles somebody usually has, or may search as.
const USUAL: usize = 5;
/// What one request lists.
const RESOURCES: usize = 5;

/// One kind of decision, in seconds each.
pub(crate) struct Case {
    pub(crate) what: &'static str,
    pub(crate) took: Spread,
}

/// Measures every case, `runs` times `decisions` each.
pub(crate) fn cases(runs: usize, decisions: usize) -> Vec<Case> {
    let now = OffsetDateTime::now_utc();
    let (view, requested) = view(now);
    let of_team = |team: usize| (0..NODES / TEAMS).map(move |n| team + n * TEAMS);
    let case = |what, user: &str, login: &str, nodes: Vec<usize>, kind: Kind| {
        let identity = identity(user);
        let accesses: Vec<Access> = nodes.into_iter().map(|node| access(login, node)).collect();
        for access in &accesses {
            let decision = decide(&view, &identity, access, now);
            assert_eq!(Kind::of(&decision), kind, "{what}: {decision:?}");
        }
        let run = || {
            let started = own_thread_seconds();
            for access in accesses.iter().cycle().take(decisions) {
                black_box(decide(black_box(&view), &identity, black_box(access), now));
            }
            (own_thread_seconds() - started) / float(decisions)
        };
        Case {
            what,
            took: Spread::of((0..runs).map(|_| run()).collect()),
        }
    };
    vec![
        case(
            "standing, 5 roles",
            "member",
            "root",
            of_team(USUAL - 1).collect(),
            Kind::Standing,
        ),
        case(
            "by request, 5 roles to search as",
            "asker",
            "root",
            requested,
            Kind::Request,
        ),
        case(
            "to be asked for, 5 roles to search as",
            "asker",
            "root",
            of_team(USUAL - 1).collect(),
            Kind::Ask,
        ),
        case(
            "denied, 5 roles",
            "member",
            "root",
            of_team(USUAL).collect(),
            Kind::Deny,
        ),
        case(
            "standing, all 100 roles",
            "holder",
            "root",
            (0..NODES).collect(),
            Kind::Standing,
        ),
        case(
            "to be asked for, 97 roles to search as",
            "seeker",
            "root",
            (0..NODES).collect(),
            Kind::Ask,
        ),
        case(
            "denied, all 100 roles",
            "holder",
            "postgres",
            (0..NODES).collect(),
            Kind::Deny,
        ),
    ]
}

/// A decision without its particulars.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Standing,
    Request,
    Ask,
    Deny,
}

impl Kind {
    fn of(decision: &Decision) -> Self {
        match decision {
            Decision::Permit(permit) => match permit.grant() {
                Grant::Standing { .. } => Self::Standing,
                Grant::Request { .. } => Self::Request,
            },
            Decision::Ask(_) => Self::Ask,
            Decision::Deny(_) => Self::Deny,
        }
    }
}

/// The view, and the nodes that `asker` has an approved request for.
fn view(now: OffsetDateTime) -> (View, Vec<usize>) {
    let teams: Vec<String> = (0..TEAMS).map(|team| format!("team-{team:02}")).collect();
    let all: Vec<String> = teams
        .iter()
        .cloned()
        .chain(["asker", "seeker", "reviewer"].map(str::to_owned))
        .collect();
    let roles = teams
        .iter()
        .map(|team| team_role(team))
        .chain([searching_role("asker", &teams[..USUAL])])
        .chain([searching_role("seeker", &teams)])
        .chain([role("reviewer", "allow: {review_requests: {roles: ['*']}}")]);
    let view = View::new(
        ClusterName::parse("example.com").unwrap(),
        Settings::default(),
    )
    .with_roles(roles)
    .with_nodes((0..NODES).map(|n| node(n, &teams[n % TEAMS])))
    .with_users([
        user("member", &teams[..USUAL], now),
        user("asker", &all[TEAMS..=TEAMS], now),
        user("seeker", &all[TEAMS + 1..TEAMS + 2], now),
        user("reviewer", &all[TEAMS + 2..], now),
        user("holder", &all, now),
    ]);
    let requested: Vec<usize> = (0..RESOURCES).map(|n| n * TEAMS).collect();
    (approved(view, &requested, now), requested)
}

pub(crate) fn team_role(team: &str) -> anteroom_core::role::Role {
    role(team, &team_spec(team))
}

/// The `spec` of a team's role.
pub(crate) fn team_spec(team: &str) -> String {
    format!(
        "allow: {{logins: ['{{{{internal.logins}}}}', deploy], node_labels: {{team: {team}, \
             env: [prod, 'dev-*', '^stag(e|ing)$']}}}}\n  deny: {{node_labels: {{secret: 'yes'}}}}"
    )
}

pub(crate) fn searching_role(name: &str, teams: &[String]) -> anteroom_core::role::Role {
    role(
        name,
        &format!(
            "allow: {{request: {{search_as_roles: [{}]}}}}",
            teams.join(", ")
        ),
    )
}

pub(crate) fn role(name: &str, spec: &str) -> anteroom_core::role::Role {
    parse_role(&format!(
        "kind: role\nversion: v8\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"
    ))
    .unwrap()
}

pub(crate) fn node(n: usize, team: &str) -> Node {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    Node {
        id: node_id(n),
        name: NodeName::parse(&format!("node-{n}")).unwrap(),
        addr: NodeAddr::parse("192.0.2.7:22").unwrap(),
        labels: BTreeMap::from([
            label("team", team),
            label("env", ["prod", "dev-eu", "staging"][n % 3]),
            label("os", "linux"),
            label("rack", &format!("r{}", n / 40)),
        ]),
        said_labels: Default::default(),
        host_proof: HostProof::HostCa,
        egress_addresses: Vec::new(),
    }
}

pub(crate) fn user(name: &str, roles: &[String], now: OffsetDateTime) -> User {
    let mut user = User::new(UserName::parse(name).unwrap());
    user.roles = roles
        .iter()
        .map(|role| RoleName::parse(role).unwrap())
        .collect();
    user.logins = vec![Login::parse("root").unwrap()];
    user.keys = vec![UserKey {
        fingerprint: fingerprint(name),
        openssh: String::new(),
        added: now,
    }];
    user
}

/// The view with one approved request of `asker` for root on these nodes.
fn approved(view: View, nodes: &[usize], now: OffsetDateTime) -> View {
    let resources: BTreeSet<ResourceId> = nodes
        .iter()
        .map(|&node| {
            let login = Login::parse("root").unwrap();
            ResourceId::node_login(view.cluster().clone(), node_id(node), login)
        })
        .collect();
    let filed = request::file(
        &view,
        &identity("asker"),
        &Wanted::resources(resources),
        RequestId::from_uuid(Uuid::from_u128(1)),
        now,
    )
    .unwrap();
    let pending = match filed {
        Filed::New(new) => new.request,
        Filed::Joined(_) | Filed::Covered(_) => unreachable!("the first request of its user"),
    };
    let reviewer = UserName::parse("reviewer").unwrap();
    let verdict = Verdict::Approve(Terms::default());
    let reviewed = request::review(&view, &reviewer, &pending, verdict, "", now).unwrap();
    view.with_request(reviewed.request)
}

pub(crate) fn access(login: &str, node: usize) -> Access {
    Access {
        login: Login::parse(login).unwrap(),
        node: node_id(node),
    }
}

fn node_id(n: usize) -> NodeId {
    NodeId::from_uuid(Uuid::from_u128(n as u128 + 1))
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity::from_proven_key(UserName::parse(name).unwrap(), fingerprint(name))
}

/// A fingerprint of the right form: 43 characters of base64, different for each name.
fn fingerprint(name: &str) -> KeyFingerprint {
    KeyFingerprint::parse(&format!("SHA256:{name:A<42}E")).unwrap()
}
