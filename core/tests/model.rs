//! Decisions and listings against an evaluator that is written a second time, naively, from the
//! semantics alone: it knows no index and no parsed role, only the wishes from which both the
//! role documents and its own answers are made.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use anteroom_core::id::{LockId, Login, NodeId, ResourceId, RoleName};
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::policy::{
    Decision, Grant, Outcome, Reason, Resolved, Visibility, Whom, decide, explain,
    requestable_nodes, resolve, visible_nodes,
};
use anteroom_core::request::{AccessRequest, Granted, Reach, State};
use anteroom_core::target::NodeRef;
use anteroom_core::view::View;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use world::{a_node, a_user, access, alice, at, filed, key, node_id, request_id, small};

const LOGINS: [&str; 5] = ["root", "deploy", "alice", "svc-x", "svc-y"];
const ROLES: usize = 6;
const NODES: u128 = 5;

/// A login in a role, as it is written and as alice has it.
#[derive(Debug, Clone, Copy)]
struct LoginWish {
    text: &'static str,
    means: &'static [&'static str],
}

// alice has the logins root and alice, and the trait `team` with the values x and y.
const LOGIN_WISHES: [LoginWish; 6] = [
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
struct ValueWish {
    text: &'static str,
    takes: &'static [&'static str],
}

const VALUES: [&str; 5] = ["x", "y", "prod", "preprod", "test"];

const VALUE_WISHES: [ValueWish; 8] = [
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
enum Selector {
    Absent,
    Everything,
    Keys(BTreeMap<&'static str, Vec<ValueWish>>),
}

#[derive(Debug, Clone)]
struct RoleWish {
    version: &'static str,
    logins: Vec<LoginWish>,
    labels: Selector,
    denied_logins: Vec<LoginWish>,
    denied_labels: Selector,
    search_as: BTreeSet<usize>,
    denied_search_as: BTreeSet<usize>,
    asks_for: BTreeSet<usize>,
    denied_asks_for: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
struct RequestWish {
    state: State,
    roles: BTreeSet<usize>,
    /// By node, with the logins or all of them; none for a role request.
    resources: Option<BTreeMap<u128, Option<BTreeSet<usize>>>>,
    own_key: bool,
    dropped: bool,
    /// Minutes from now.
    starts: i64,
    ends: i64,
}

#[derive(Debug, Clone)]
struct World {
    roles: Vec<RoleWish>,
    held: BTreeSet<usize>,
    nodes: Vec<BTreeMap<&'static str, &'static str>>,
    requests: Vec<RequestWish>,
    locked_nodes: BTreeSet<usize>,
    locked_logins: BTreeSet<usize>,
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
fn seldom<T: std::fmt::Debug + Clone + 'static>(
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
    )
        .prop_map(
            |(version, logins, labels, denied_logins, denied_labels, a, b, c, d)| RoleWish {
                version,
                logins,
                labels,
                denied_logins,
                denied_labels,
                search_as: a,
                denied_search_as: b,
                asks_for: c,
                denied_asks_for: d,
            },
        )
}

fn request_wish() -> impl Strategy<Value = RequestWish> {
    let some_logins = proptest::collection::btree_set(0..LOGINS.len(), 1..3);
    let resources = btree_map(1..=NODES, proptest::option::of(some_logins), 1..3);
    (
        prop::sample::select(vec![
            State::Approved,
            State::Approved,
            State::Approved,
            State::Pending,
            State::Denied,
            State::Expired,
            State::Canceled,
            State::Revoked,
        ]),
        proptest::collection::btree_set(0..ROLES, 1..3),
        proptest::option::of(resources),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        prop::sample::select(vec![-60, 0, 60]),
        prop::sample::select(vec![-30, 0, 30, 45]),
    )
        .prop_map(
            |(state, roles, resources, own_key, dropped, starts, ends)| RequestWish {
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

fn a_world() -> impl Strategy<Value = World> {
    let labels = btree_map(
        prop::sample::select(vec!["env", "team", "rack"]),
        prop::sample::select(VALUES.to_vec()),
        0..4,
    );
    (
        vec(role_wish(), ROLES),
        few(4),
        vec(labels, NODES as usize),
        vec(request_wish(), 0..3),
        seldom(
            BTreeSet::new(),
            proptest::collection::btree_set(0..NODES as usize, 1..3),
        ),
        seldom(
            BTreeSet::new(),
            proptest::collection::btree_set(0..LOGINS.len(), 1..3),
        ),
    )
        .prop_map(
            |(roles, held, nodes, requests, locked_nodes, locked_logins)| World {
                roles,
                held,
                nodes,
                requests,
                locked_nodes,
                locked_logins,
            },
        )
}

// ---------------------------------------------------------------- as documents

const NOW: i64 = 100;

fn role_name(n: usize) -> RoleName {
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

fn document(n: usize, wish: &RoleWish) -> String {
    format!(
        "kind: role\nversion: {}\nmetadata: {{name: {}}}\nspec:\n  allow: {{{}logins: {}, request: {{search_as_roles: {}, roles: {}}}}}\n  deny: {{{}logins: {}, request: {{search_as_roles: {}, roles: {}}}}}\n",
        wish.version,
        role_name(n),
        labels_field(&wish.labels),
        login_list(&wish.logins),
        names(&wish.search_as),
        names(&wish.asks_for),
        labels_field(&wish.denied_labels),
        login_list(&wish.denied_logins),
        names(&wish.denied_search_as),
        names(&wish.denied_asks_for),
    )
}

fn request(like: &AccessRequest, view: &View, n: usize, wish: &RequestWish) -> AccessRequest {
    let roles: BTreeSet<RoleName> = wish.roles.iter().map(|n| role_name(*n)).collect();
    let reach = match &wish.resources {
        None => Reach::Roles,
        Some(nodes) => Reach::Resources(
            nodes
                .iter()
                .map(|(node, logins)| {
                    let id = ResourceId::node(view.cluster().clone(), node_id(*node));
                    match logins {
                        None => id,
                        Some(logins) => {
                            let logins = logins.iter().map(|n| LOGINS[*n].parse().unwrap());
                            id.with_logins(logins.collect()).unwrap()
                        }
                    }
                })
                .collect(),
        ),
    };
    let was_approved = matches!(wish.state, State::Approved | State::Revoked);
    AccessRequest {
        id: request_id(n as u128 + 1),
        key: Some(key(if wish.own_key { 0 } else { 1 })),
        filed_by: None,
        scope: anteroom_core::request::Scope::Any,
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
            overridden: BTreeSet::new(),
            at: at(1),
        }),
        ..like.clone()
    }
}

fn view(world: &World) -> View {
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
    let view = world::with_roles(small, &documents.join("---\n"))
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
    let locks = nodes.chain(logins).enumerate().map(|(n, target)| Lock {
        id: LockId::from_uuid(uuid::Uuid::from_u128(n as u128 + 1)),
        target,
        message: String::new(),
        created: at(0),
        created_by: "bob".to_owned(),
        expires: None,
    });
    view.with_requests(requests).with_locks(locks)
}

// ---------------------------------------------------------------- the second evaluator

#[derive(Debug, PartialEq, Eq, Clone)]
enum Answer {
    Standing,
    /// One of these requests.
    Requests(BTreeSet<usize>),
    /// Through one of these roles.
    Ask(BTreeSet<usize>),
    Deny,
}

impl World {
    fn selects(&self, selector: &Selector, unset: bool, node: usize) -> bool {
        match selector {
            Selector::Absent => unset,
            Selector::Everything => true,
            Selector::Keys(keys) => keys.iter().all(|(key, values)| {
                let label = self.nodes[node].get(key);
                label.is_some_and(|label| values.iter().any(|value| value.takes.contains(label)))
            }),
        }
    }

    fn has(wishes: &[LoginWish], login: &str) -> bool {
        wishes.iter().any(|wish| wish.means.contains(&login))
    }

    fn grants(&self, role: usize, node: usize, login: &str) -> bool {
        let wish = &self.roles[role];
        self.selects(&wish.labels, wish.version == "v3", node) && Self::has(&wish.logins, login)
    }

    fn denies(&self, role: usize, node: usize, login: &str) -> bool {
        let wish = &self.roles[role];
        self.selects(&wish.denied_labels, false, node) || Self::has(&wish.denied_logins, login)
    }

    fn may_ask(&self, role: usize, by_resource: bool) -> bool {
        let held = || self.held.iter().map(|n| &self.roles[*n]);
        if by_resource {
            held().any(|wish| wish.search_as.contains(&role))
                && !held().any(|wish| wish.denied_search_as.contains(&role))
        } else {
            held().any(|wish| wish.asks_for.contains(&role))
                && !held().any(|wish| wish.denied_asks_for.contains(&role))
        }
    }

    /// The requests that are open to the key that asks.
    fn open(&self) -> impl Iterator<Item = (usize, &RequestWish)> {
        self.requests.iter().enumerate().filter(|(_, wish)| {
            wish.state == State::Approved
                && wish.own_key
                && !wish.dropped
                && wish.starts <= 0
                && 0 < wish.ends
        })
    }

    fn listed(wish: &RequestWish, node: usize, login: &str) -> bool {
        wish.resources.as_ref().is_none_or(|resources| {
            let logins = resources.get(&(node as u128 + 1));
            logins.is_some_and(|logins| {
                logins
                    .as_ref()
                    .is_none_or(|logins| logins.iter().any(|n| LOGINS[*n] == login))
            })
        })
    }

    fn answer(&self, node: usize, login: &str) -> Answer {
        let of_login = |n: &usize| LOGINS[*n] == login;
        if self.locked_nodes.contains(&node) || self.locked_logins.iter().any(of_login) {
            return Answer::Deny;
        }
        self.unlocked_answer(node, login)
    }

    fn unlocked_answer(&self, node: usize, login: &str) -> Answer {
        // The roles of a request for resources speak against that request only.
        let everywhere = self.open().filter(|(_, wish)| wish.resources.is_none());
        let requested = everywhere.flat_map(|(_, wish)| &wish.roles);
        let mut against = self.held.iter().chain(requested);
        if against.any(|role| self.denies(*role, node, login)) {
            return Answer::Deny;
        }
        if self.held.iter().any(|role| self.grants(*role, node, login)) {
            return Answer::Standing;
        }
        let by: BTreeSet<usize> = self
            .open()
            .filter(|(_, wish)| Self::listed(wish, node, login))
            .filter(|(_, wish)| {
                let mut roles = wish.roles.iter();
                !roles.any(|role| self.denies(*role, node, login))
            })
            .filter(|(_, wish)| {
                wish.roles.iter().any(|role| {
                    self.may_ask(*role, wish.resources.is_some()) && self.grants(*role, node, login)
                })
            })
            .map(|(n, _)| n)
            .collect();
        if !by.is_empty() {
            return Answer::Requests(by);
        }
        let through: BTreeSet<usize> = (0..ROLES)
            .filter(|role| self.may_ask(*role, true))
            .filter(|role| self.grants(*role, node, login) && !self.denies(*role, node, login))
            .collect();
        if through.is_empty() {
            Answer::Deny
        } else {
            Answer::Ask(through)
        }
    }

    /// A lock shuts and does not hide.
    fn known(&self, node: usize) -> bool {
        LOGINS
            .iter()
            .any(|login| self.unlocked_answer(node, login) != Answer::Deny)
    }

    /// How many logins alice has through the role.
    fn width(&self, role: usize) -> usize {
        let wishes = self.roles[role].logins.iter();
        let logins: BTreeSet<&str> = wishes.flat_map(|wish| wish.means).copied().collect();
        logins.len()
    }
}

// ---------------------------------------------------------------- the comparison

fn check_decision(world: &World, view: &View, node: usize, login: &str) -> TestCaseResult {
    let wanted = access(login, node as u128 + 1);
    let decision = decide(view, &alice(), &wanted, at(NOW));
    let expected = world.answer(node, login);
    let explained = explain(view, Whom::Identity(&alice()), &wanted, at(NOW)).outcome;
    match (&decision, &expected) {
        (Decision::Permit(permit), Answer::Standing) => {
            let standing = matches!(permit.grant(), Grant::Standing { .. });
            prop_assert!(standing);
            prop_assert_eq!(permit.ends(), None);
            let permitted = matches!(explained, Outcome::Permitted { .. });
            prop_assert!(permitted);
        }
        (Decision::Permit(permit), Answer::Requests(by)) => {
            // The one that lasts longest.
            let longest = by.iter().map(|n| world.requests[*n].ends).max().unwrap();
            prop_assert_eq!(permit.ends(), Some(at(NOW + longest)));
            let ids: BTreeSet<_> = by.iter().map(|n| request_id(*n as u128 + 1)).collect();
            prop_assert!(permit.request().is_some_and(|id| ids.contains(&id)));
            let permitted = matches!(explained, Outcome::Permitted { .. });
            prop_assert!(permitted);
        }
        (Decision::Ask(ask), Answer::Ask(through)) => {
            let role = through
                .iter()
                .min_by_key(|role| (world.width(**role), **role))
                .unwrap();
            prop_assert_eq!(&ask.roles, &vec![role_name(*role)]);
            prop_assert!(matches!(explained, Outcome::Askable(_)));
        }
        (Decision::Deny(denial), Answer::Deny) => {
            let visible = denial.visibility == Visibility::Visible;
            prop_assert_eq!(visible, world.known(node));
            prop_assert!(!denial.reasons.is_empty());
            prop_assert!(!denial.reasons.contains(&Reason::UnknownNode));
            prop_assert!(matches!(explained, Outcome::Denied(_)));
        }
        (decision, expected) => {
            let text = format!("{login} on node {node}: {decision:?}, not {expected:?}");
            return Err(TestCaseError::fail(text));
        }
    }
    Ok(())
}

fn check_listings(world: &World, view: &View) -> TestCaseResult {
    let mut usable: BTreeMap<NodeId, BTreeSet<Login>> = BTreeMap::new();
    let mut askable: BTreeMap<NodeId, BTreeMap<Login, BTreeSet<RoleName>>> = BTreeMap::new();
    for node in 0..world.nodes.len() {
        let id = node_id(node as u128 + 1);
        for text in LOGINS {
            let login: Login = text.parse().unwrap();
            match world.answer(node, text) {
                Answer::Standing | Answer::Requests(_) => {
                    usable.entry(id).or_default().insert(login);
                }
                Answer::Ask(through) => {
                    let roles = through.into_iter().map(role_name).collect();
                    askable.entry(id).or_default().insert(login, roles);
                }
                Answer::Deny => {}
            }
        }
    }
    let found = visible_nodes(view, &alice(), at(NOW)).into_iter();
    let found: BTreeMap<_, _> = found
        .map(|f| (f.node.id, f.logins.as_ref().clone()))
        .collect();
    prop_assert_eq!(found, usable);
    let found = requestable_nodes(view, &alice(), at(NOW)).into_iter();
    let found: BTreeMap<_, _> = found
        .map(|f| (f.node.id, f.logins.as_ref().clone()))
        .collect();
    prop_assert_eq!(found, askable);
    Ok(())
}

fn check_names(world: &World, view: &View) -> TestCaseResult {
    for (n, name) in ["web", "db"].into_iter().enumerate() {
        let known: Vec<NodeId> = (0..world.nodes.len())
            .filter(|node| node % 2 == n && world.known(*node))
            .map(|node| node_id(node as u128 + 1))
            .collect();
        let wanted = NodeRef::parse(name).unwrap();
        match (resolve(view, &alice(), &wanted, at(NOW)), known.as_slice()) {
            (Resolved::Unknown, []) => {}
            (Resolved::One(id), [one]) => prop_assert_eq!(id, *one),
            (Resolved::Ambiguous(nodes), several) => {
                prop_assert!(nodes.iter().map(|node| node.id).eq(several.iter().copied()));
            }
            (resolved, known) => {
                return Err(TestCaseError::fail(format!(
                    "{name}: {resolved:?}, not {known:?}"
                )));
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decisions_and_listings_are_those_of_the_second_evaluator(world in a_world()) {
        let view = view(&world);
        for node in 0..world.nodes.len() {
            for login in LOGINS {
                check_decision(&world, &view, node, login)?;
            }
        }
        check_listings(&world, &view)?;
        check_names(&world, &view)?;
    }
}
