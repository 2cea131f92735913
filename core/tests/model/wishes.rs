//! Worlds: wishes at random, and the documents, requests and locks that they are stored as.

use std::collections::{BTreeMap, BTreeSet};

use anteroom_core::credential::AllowedResources;
use anteroom_core::id::{LockId, ResourceId, RoleName};
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::policy::Identity;
use anteroom_core::request::{AccessRequest, Granted, Reach, Scope, State};
use anteroom_core::role::Role;
use anteroom_core::view::View;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::world::{self, a_node, a_user, alice, at, filed, key, node_id, request_id, small};

pub const LOGINS: [&str; 5] = ["root", "deploy", "alice", "svc-x", "svc-y"];
pub const ROLES: usize = 6;
pub const NODES: u128 = 5;

/// A login in a role, as it is written and as alice has it.
#[derive(Debug, Clone, Copy)]
pub struct LoginWish {
    pub text: &'static str,
    pub means: &'static [&'static str],
}

// alice has the logins root and alice, and the trait `team` with the values x and y.
pub const LOGIN_WISHES: [LoginWish; 6] = [
    LoginWish {
        text: "root",
        means: &["root"],
    },
    LoginWish {
        text: "deploy",
        means: &["deploy"],
    },
    LoginWish {
        text: "{{internal.logins}}",
        means: &["root", "alice"],
    },
    LoginWish {
        text: "svc-{{external.team}}",
        means: &["svc-x", "svc-y"],
    },
    LoginWish {
        text: "{{external.nothing}}",
        means: &[],
    },
    LoginWish {
        text: "{{user.metadata.name}}",
        means: &["alice"],
    },
];

/// A label value in a role, as it is written and which of [`VALUES`] it takes.
#[derive(Debug, Clone, Copy)]
pub struct ValueWish {
    pub text: &'static str,
    pub takes: &'static [&'static str],
}

pub const VALUES: [&str; 5] = ["x", "y", "prod", "preprod", "test"];

pub const VALUE_WISHES: [ValueWish; 8] = [
    ValueWish {
        text: "prod",
        takes: &["prod"],
    },
    ValueWish {
        text: "p*",
        takes: &["prod", "preprod"],
    },
    ValueWish {
        text: "*prod",
        takes: &["prod", "preprod"],
    },
    // Never "starts with test, or ends with prod".
    ValueWish {
        text: "^test|prod$",
        takes: &["test", "prod"],
    },
    ValueWish {
        text: "^[a-y]$",
        takes: &["x", "y"],
    },
    ValueWish {
        text: "*",
        takes: &VALUES,
    },
    ValueWish {
        text: "{{external.team}}",
        takes: &["x", "y"],
    },
    ValueWish {
        text: "{{external.nothing}}",
        takes: &[],
    },
];

/// A label selector as a role has it.
#[derive(Debug, Clone)]
pub enum Selector {
    Absent,
    Everything,
    Keys(BTreeMap<&'static str, Vec<ValueWish>>),
}

pub type Labels = BTreeMap<&'static str, &'static str>;

/// A label expression, as it is written and what it says of a node; nothing where it can't be
/// evaluated.
#[derive(Clone, Copy)]
pub struct ExpressionWish {
    pub text: &'static str,
    pub means: fn(&Labels) -> Option<bool>,
}

impl std::fmt::Debug for ExpressionWish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text)
    }
}

pub const EXPRESSION_WISHES: [ExpressionWish; 6] = [
    ExpressionWish {
        text: r#"labels["env"] == "prod""#,
        means: |labels| Some(labels.get("env") == Some(&"prod")),
    },
    ExpressionWish {
        text: r#"contains(user.spec.traits["team"], labels["team"])"#,
        means: |labels| Some(matches!(labels.get("team"), Some(&("x" | "y")))),
    },
    ExpressionWish {
        text: r#"!exists(labels["rack"])"#,
        means: |labels| Some(!labels.contains_key("rack")),
    },
    ExpressionWish {
        text: r#"hasPrefix(labels["env"], "p") || labels["team"] == "test""#,
        means: |labels| {
            let p = matches!(labels.get("env"), Some(&("prod" | "preprod")));
            Some(p || labels.get("team") == Some(&"test"))
        },
    },
    // No label here is an e-mail address; without one there is nothing to fail.
    ExpressionWish {
        text: r#"email.local(labels["rack"]) == "" "#,
        means: |labels| match labels.get("rack") {
            Some(_) => None,
            None => Some(true),
        },
    },
    ExpressionWish {
        text: "true",
        means: |_| Some(true),
    },
];

/// What a stored role is, if it is no ordinary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Readable,
    /// This version can't read it.
    Unreadable,
}

#[derive(Debug, Clone)]
pub struct RoleWish {
    pub version: &'static str,
    pub logins: Vec<LoginWish>,
    pub labels: Selector,
    pub expression: Option<ExpressionWish>,
    pub denied_logins: Vec<LoginWish>,
    pub denied_labels: Selector,
    pub denied_expression: Option<ExpressionWish>,
    /// `optional`, `always` or `reason`.
    pub request_access: &'static str,
    pub stored: Stored,
    pub search_as: BTreeSet<usize>,
    pub denied_search_as: BTreeSet<usize>,
    pub asks_for: BTreeSet<usize>,
    pub denied_asks_for: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
pub struct RequestWish {
    pub state: State,
    pub roles: BTreeSet<usize>,
    /// By node, with the logins or all of them; none for a role request.
    pub resources: Option<BTreeMap<u128, Option<BTreeSet<usize>>>>,
    /// Those of the roles that an administrator put in.
    pub overridden: BTreeSet<usize>,
    /// Bound to the command `uptime`.
    pub scoped: bool,
    pub own_key: bool,
    pub dropped: bool,
    /// Minutes from now.
    pub starts: i64,
    pub ends: i64,
}

/// The identity certificate that alice came with.
#[derive(Debug, Clone)]
pub struct CertificateWish {
    pub roles: BTreeSet<usize>,
    pub requests: BTreeSet<usize>,
    /// What it is restricted to, like the resources of a request.
    pub allowed: Option<BTreeMap<u128, Option<BTreeSet<usize>>>>,
}

#[derive(Debug, Clone)]
pub struct World {
    pub roles: Vec<RoleWish>,
    pub held: BTreeSet<usize>,
    pub nodes: Vec<BTreeMap<&'static str, &'static str>>,
    pub requests: Vec<RequestWish>,
    pub locked_nodes: BTreeSet<usize>,
    pub locked_logins: BTreeSet<usize>,
    pub locked_roles: BTreeSet<usize>,
    pub certificate: Option<CertificateWish>,
}

// ---------------------------------------------------------------- worlds

fn few(most: usize) -> impl Strategy<Value = BTreeSet<usize>> {
    proptest::collection::btree_set(0..ROLES, 0..=most)
}

fn selector() -> impl Strategy<Value = Selector> {
    let values = vec(prop::sample::select(VALUE_WISHES.to_vec()), 1..3);
    let keys = btree_map(prop::sample::select(vec!["env", "team"]), values, 1..3);
    prop_oneof![
        2 => Just(Selector::Absent),
        1 => Just(Selector::Everything),
        6 => keys.prop_map(Selector::Keys),
    ]
}

fn logins(most: usize) -> impl Strategy<Value = Vec<LoginWish>> {
    vec(prop::sample::select(LOGIN_WISHES.to_vec()), 0..=most)
}

/// Denials are rarer than grants, or nothing would ever be allowed.
pub fn seldom<T: std::fmt::Debug + Clone + 'static>(
    usual: T,
    other: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![5 => Just(usual), 1 => other]
}

fn role_wish() -> impl Strategy<Value = RoleWish> {
    (
        prop::sample::select(vec!["v3", "v4", "v7", "v8"]),
        logins(3),
        selector(),
        seldom(Vec::new(), logins(1)),
        seldom(Selector::Absent, selector()),
        few(3),
        seldom(BTreeSet::new(), few(2)),
        few(2),
        seldom(BTreeSet::new(), few(2)),
        unusual(),
    )
        .prop_map(
            |(version, logins, labels, denied_logins, denied_labels, a, b, c, d, unusual)| {
                let (expression, denied_expression, request_access, stored) = unusual;
                RoleWish {
                    version,
                    logins,
                    labels,
                    expression,
                    denied_logins,
                    denied_labels,
                    denied_expression,
                    request_access,
                    stored,
                    search_as: a,
                    denied_search_as: b,
                    asks_for: c,
                    denied_asks_for: d,
                }
            },
        )
}

type Unusual = (
    Option<ExpressionWish>,
    Option<ExpressionWish>,
    &'static str,
    Stored,
);

fn unusual() -> impl Strategy<Value = Unusual> {
    let expression = || prop::sample::select(EXPRESSION_WISHES.to_vec());
    (
        seldom(None, expression().prop_map(Some)),
        prop_oneof![12 => Just(None), 1 => expression().prop_map(Some)],
        prop_oneof![10 => Just("optional"), 1 => Just("always"), 1 => Just("reason")],
        prop_oneof![30 => Just(Stored::Readable), 1 => Just(Stored::Unreadable)],
    )
}

/// Some nodes, with some of their logins or all of them.
fn some_nodes(least: usize) -> impl Strategy<Value = BTreeMap<u128, Option<BTreeSet<usize>>>> {
    let some_logins = proptest::collection::btree_set(0..LOGINS.len(), 1..3);
    btree_map(1..=NODES, proptest::option::of(some_logins), least..3)
}

fn certificate_wish() -> impl Strategy<Value = CertificateWish> {
    let allowed = prop_oneof![2 => Just(None), 3 => some_nodes(0).prop_map(Some)];
    (
        few(5),
        proptest::collection::btree_set(0..3_usize, 0..3),
        allowed,
    )
        .prop_map(|(roles, requests, allowed)| CertificateWish {
            roles,
            requests,
            allowed,
        })
}

fn request_wish() -> impl Strategy<Value = RequestWish> {
    let resources = some_nodes(1);
    (
        // Most are approved and open, or nothing would ever rest on them.
        prop_oneof![
            10 => Just(State::Approved),
            1 => Just(State::Pending),
            1 => Just(State::Denied),
            1 => Just(State::Expired),
            1 => Just(State::Canceled),
            1 => Just(State::Revoked),
        ],
        proptest::collection::btree_set(0..ROLES, 1..3),
        proptest::option::of(resources),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        prop::sample::select(vec![-60, -60, 0, 60]),
        prop::sample::select(vec![-30, 0, 30, 30, 45, 45]),
        prop_oneof![2 => Just(BTreeSet::new()), 1 => few(ROLES)],
        prop::bool::weighted(0.3),
    )
        .prop_map(
            |(state, roles, resources, own_key, dropped, starts, ends, over, scoped)| RequestWish {
                overridden: roles.intersection(&over).copied().collect(),
                // Only what names a node can be bound to a command.
                scoped: scoped && resources.is_some(),
                state,
                roles,
                resources,
                own_key,
                dropped,
                starts,
                ends,
            },
        )
}

pub fn a_world() -> impl Strategy<Value = World> {
    let labels = btree_map(
        prop::sample::select(vec!["env", "team", "rack"]),
        prop::sample::select(VALUES.to_vec()),
        0..4,
    );
    (
        vec(role_wish(), ROLES),
        few(4),
        vec(labels, NODES as usize),
        vec(request_wish(), 0..4),
        seldom(
            BTreeSet::new(),
            proptest::collection::btree_set(0..NODES as usize, 1..3),
        ),
        seldom(
            BTreeSet::new(),
            proptest::collection::btree_set(0..LOGINS.len(), 1..3),
        ),
        prop_oneof![2 => Just(BTreeSet::new()), 1 => few(2)],
        proptest::option::weighted(0.35, certificate_wish()),
        proptest::array::uniform3(prop::bool::weighted(0.2)),
    )
        .prop_map(
            |(
                roles,
                held,
                nodes,
                requests,
                locked_nodes,
                locked_logins,
                locked_roles,
                certificate,
                meetings,
            )| {
                let mut world = World {
                    roles,
                    held,
                    nodes,
                    requests,
                    locked_nodes,
                    locked_logins,
                    locked_roles,
                    certificate,
                };
                world.meet(meetings);
                world
            },
        )
}

impl World {
    /// Has things meet that seldom do by chance: a lock on what a request gives, two requests for
    /// the same of which one is bound to a command, and a denial of what an administrator put in.
    fn meet(&mut self, [lock, twins, denial]: [bool; 3]) {
        let Some(first) = self.requests.first().cloned() else {
            return;
        };
        if lock {
            self.locked_roles = first.roles.difference(&self.held).copied().collect();
        }
        if let (true, Some(second)) = (twins, self.requests.get_mut(1)) {
            *second = RequestWish {
                scoped: !first.scoped && first.resources.is_some(),
                ends: second.ends,
                ..first.clone()
            };
        }
        if denial && let Some(held) = self.held.first() {
            let wish = &mut self.roles[*held];
            wish.denied_search_as.extend(first.roles.iter().take(1));
            wish.denied_asks_for.extend(first.roles.iter().take(1));
            self.requests[0].overridden = first.roles;
        }
    }
}

// ---------------------------------------------------------------- as documents

pub const NOW: i64 = 100;

/// The command that grants may be bound to.
pub const COMMAND: &str = "uptime";

pub fn role_name(n: usize) -> RoleName {
    format!("role-{n}").parse().unwrap()
}

fn names(roles: &BTreeSet<usize>) -> String {
    let names: Vec<String> = roles.iter().map(|n| role_name(*n).to_string()).collect();
    format!("[{}]", names.join(", "))
}

fn login_list(wishes: &[LoginWish]) -> String {
    let texts: Vec<String> = wishes
        .iter()
        .map(|wish| format!("'{}'", wish.text))
        .collect();
    format!("[{}]", texts.join(", "))
}

fn labels_field(selector: &Selector) -> String {
    match selector {
        Selector::Absent => String::new(),
        Selector::Everything => "node_labels: {'*': '*'}, ".to_owned(),
        Selector::Keys(keys) => {
            let keys: Vec<String> = keys
                .iter()
                .map(|(key, values)| {
                    let values: Vec<String> =
                        values.iter().map(|v| format!("'{}'", v.text)).collect();
                    format!("{key}: [{}]", values.join(", "))
                })
                .collect();
            format!("node_labels: {{{}}}, ", keys.join(", "))
        }
    }
}

fn expression_field(expression: Option<ExpressionWish>) -> String {
    expression.map_or_else(String::new, |wish| {
        format!("node_labels_expression: '{}', ", wish.text)
    })
}

fn document(n: usize, wish: &RoleWish) -> String {
    format!(
        "kind: role\nversion: {}\nmetadata: {{name: {}}}\nspec:\n  options: {{request_access: {}}}\n  allow: {{{}{}logins: {}, request: {{search_as_roles: {}, roles: {}}}}}\n  deny: {{{}{}logins: {}, request: {{search_as_roles: {}, roles: {}}}}}\n",
        wish.version,
        role_name(n),
        wish.request_access,
        expression_field(wish.expression),
        labels_field(&wish.labels),
        login_list(&wish.logins),
        names(&wish.search_as),
        names(&wish.asks_for),
        expression_field(wish.denied_expression),
        labels_field(&wish.denied_labels),
        login_list(&wish.denied_logins),
        names(&wish.denied_search_as),
        names(&wish.denied_asks_for),
    )
}

fn resources(view: &View, nodes: &BTreeMap<u128, Option<BTreeSet<usize>>>) -> BTreeSet<ResourceId> {
    let id = |(node, logins): (&u128, &Option<BTreeSet<usize>>)| {
        let id = ResourceId::node(view.cluster().clone(), node_id(*node));
        match logins {
            None => id,
            Some(logins) => {
                let logins = logins.iter().map(|n| LOGINS[*n].parse().unwrap());
                id.with_logins(logins.collect()).unwrap()
            }
        }
    };
    nodes.iter().map(id).collect()
}

fn request(like: &AccessRequest, view: &View, n: usize, wish: &RequestWish) -> AccessRequest {
    let roles: BTreeSet<RoleName> = wish.roles.iter().map(|n| role_name(*n)).collect();
    let reach = match &wish.resources {
        None => Reach::Roles,
        Some(nodes) => Reach::Resources(resources(view, nodes)),
    };
    let was_approved = matches!(wish.state, State::Approved | State::Revoked);
    AccessRequest {
        id: request_id(n as u128 + 1),
        key: Some(key(if wish.own_key { 0 } else { 1 })),
        filed_by: None,
        scope: if wish.scoped {
            Scope::Command(COMMAND.to_owned())
        } else {
            Scope::Any
        },
        set_aside: wish.dropped.then(|| key(0)).into_iter().collect(),
        roles: roles.clone(),
        reach: reach.clone(),
        state: wish.state,
        created: at(0),
        request_expires: at(NOW + 50),
        assume_start: Some(at(NOW + wish.starts)),
        access_expires: at(NOW + wish.ends),
        granted: was_approved.then(|| Granted {
            roles,
            reach,
            overridden: wish.overridden.iter().map(|n| role_name(*n)).collect(),
            at: at(1),
        }),
        ..like.clone()
    }
}

/// The world as it is stored.
pub fn view(world: &World) -> View {
    let documents: Vec<String> = world
        .roles
        .iter()
        .enumerate()
        .map(|(n, wish)| document(n, wish))
        .collect();
    let small = small();
    let like = filed(
        &small,
        &alice(),
        &world::wants_root_on_iot(&small),
        7,
        at(0),
    );
    let mut person = a_user("alice", &[0, 1], &[], &["root", "alice"]);
    person.roles = world.held.iter().map(|n| role_name(*n)).collect();
    person.traits = BTreeMap::from([("team".to_owned(), vec!["x".to_owned(), "y".to_owned()])]);
    let broken = world.roles.iter().enumerate();
    let broken = broken.filter(|(_, wish)| wish.stored == Stored::Unreadable);
    let broken = broken.map(|(n, _)| {
        Role::unreadable(
            role_name(n),
            serde_json::Value::Null,
            "of a later version".to_owned(),
        )
    });
    let view = world::with_roles(small, &documents.join("---\n"))
        .with_roles(broken)
        .with_user(person)
        .with_nodes(world.nodes.iter().enumerate().map(|(n, labels)| {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (*k, *v)).collect();
            // Two names for five nodes: names are ambiguous.
            a_node(n as u128 + 1, ["web", "db"][n % 2], &labels)
        }));
    let requests: Vec<AccessRequest> = world
        .requests
        .iter()
        .enumerate()
        .map(|(n, wish)| request(&like, &view, n, wish))
        .collect();
    let nodes = world.locked_nodes.iter();
    let nodes = nodes.map(|node| LockTarget::Node(node_id(*node as u128 + 1)));
    let logins = world.locked_logins.iter();
    let logins = logins.map(|login| LockTarget::Login(LOGINS[*login].parse().unwrap()));
    let roles = world.locked_roles.iter();
    let roles = roles.map(|role| LockTarget::Role(role_name(*role)));
    let locks = nodes
        .chain(logins)
        .chain(roles)
        .enumerate()
        .map(|(n, target)| Lock {
            id: LockId::from_uuid(uuid::Uuid::from_u128(n as u128 + 1)),
            target,
            message: String::new(),
            created: at(0),
            created_by: "bob".to_owned(),
            expires: None,
        });
    view.with_requests(requests).with_locks(locks)
}

/// alice as she comes, and the view that knows of her certificate.
pub fn comes(world: &World, view: View) -> (View, Identity) {
    let Some(wish) = &world.certificate else {
        return (view, alice());
    };
    let allowed = match &wish.allowed {
        None => AllowedResources::Unrestricted,
        Some(nodes) => AllowedResources::Only(resources(&view, nodes)),
    };
    let (view, identity) = world::certified(view, &[], allowed);
    let mut credential = identity.credential().unwrap().clone();
    credential.claims.roles = wish.roles.iter().map(|n| role_name(*n)).collect();
    let requests = wish.requests.iter();
    credential.claims.requests = requests.map(|n| request_id(*n as u128 + 1)).collect();
    let identity = Identity::from_verified_certificate(world::user("alice"), key(0), credential);
    (view, identity)
}
