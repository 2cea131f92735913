//! The view against plain maps: whatever is added, replaced and removed, it answers as they do,
//! and an older view goes on answering as before.
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

use anteroom_core::id::ResourceId;
use anteroom_core::node::{HostProof, Node};
use anteroom_core::request::{self, AccessRequest, FilingError, State, Wanted};
use anteroom_core::user::User;
use anteroom_core::view::{FindRequestError, Settings, View};
use proptest::collection::vec;
use proptest::prelude::*;
use world::{a_node, a_user, alice, filed, key, node_id, request_id, small, user};

/// One change, over few enough names that most replace or remove something.
#[derive(Debug, Clone)]
enum Change {
    Node { id: u128, name: u8 },
    NoNode(u128),
    User { name: u8, keys: Vec<u8> },
    NoUser(u8),
    Request { id: u128, user: u8, state: State },
    NoRequest(u128),
}

fn change() -> impl Strategy<Value = Change> {
    let states = [
        State::Pending,
        State::Approved,
        State::Denied,
        State::Expired,
        State::Canceled,
        State::Revoked,
    ];
    prop_oneof![
        (1..40u128, 0..6u8).prop_map(|(id, name)| Change::Node { id, name }),
        (1..40u128).prop_map(Change::NoNode),
        (0..6u8, vec(0..8u8, 0..3)).prop_map(|(name, keys)| Change::User { name, keys }),
        (0..6u8).prop_map(Change::NoUser),
        (1..40u128, 0..6u8, prop::sample::select(states.to_vec())).prop_map(|(id, user, state)| {
            Change::Request {
                id: spread(id),
                user,
                state,
            }
        }),
        (1..40u128).prop_map(|id| Change::NoRequest(spread(id))),
    ]
}

/// IDs that share their first digits with some others.
fn spread(id: u128) -> u128 {
    (id % 5) << 124 | (id % 3) << 108 | id << 96 | id
}

/// What the view is compared with.
#[derive(Debug, Clone, Default)]
struct Plain {
    nodes: BTreeMap<u128, Node>,
    users: BTreeMap<String, User>,
    requests: BTreeMap<u128, AccessRequest>,
}

fn name(n: u8) -> String {
    match n {
        // Reads as root on a node of that name.
        5 => "root@node-1.example".to_owned(),
        _ => format!("user-{n}"),
    }
}

fn node_name(n: u8) -> String {
    match n {
        1 => "node-1.example".to_owned(),
        _ => format!("node-{n}"),
    }
}

/// The first two are one address.
const ADDRESSES: [&str; 4] = [
    "192.0.2.1:22",
    "[::ffff:192.0.2.1]:2222",
    "iot.example:22",
    "192.0.2.2:22",
];

const KEYS: [&str; 2] = ["ssh-ed25519 AAAAone", "ssh-ed25519 AAAAtwo"];

fn apply(view: View, plain: &mut Plain, change: &Change, like: &AccessRequest) -> View {
    match change {
        Change::Node { id, name } => {
            let mut node = a_node(*id, &node_name(*name), &[]);
            let turn = (*id % 4) as usize;
            node.addr = ADDRESSES[turn].parse().unwrap();
            if let Some(key) = KEYS.get(turn) {
                node.host_proof = HostProof::Pinned(vec![format!("{key} from {id}")]);
            }
            plain.nodes.insert(*id, node.clone());
            view.with_node(node)
        }
        Change::NoNode(id) => {
            plain.nodes.remove(id);
            view.without_node(&node_id(*id))
        }
        Change::User { name: n, keys } => {
            let user = a_user(&name(*n), keys, &[], &[]);
            plain.users.insert(name(*n), user.clone());
            view.with_user(user)
        }
        Change::NoUser(n) => {
            plain.users.remove(&name(*n));
            view.without_user(&user(&name(*n)))
        }
        Change::Request { id, user: n, state } => {
            let request = AccessRequest {
                id: request_id(*id),
                user: user(&name(*n)),
                state: *state,
                ..like.clone()
            };
            plain.requests.insert(*id, request.clone());
            view.with_request(request)
        }
        Change::NoRequest(id) => {
            plain.requests.remove(id);
            view.without_request(&request_id(*id))
        }
    }
}

fn check(view: &View, plain: &Plain) -> Result<(), TestCaseError> {
    let mut nodes: Vec<&Node> = plain.nodes.values().collect();
    nodes.sort_by_key(|node| (&node.name, node.id));
    prop_assert!(view.nodes().map(AsRef::as_ref).eq(nodes.iter().copied()));
    for n in 0..7 {
        let named = node_name(n).parse().unwrap();
        let expected = nodes.iter().copied().filter(|node| node.name == named);
        prop_assert!(view.nodes_named(&named).map(AsRef::as_ref).eq(expected));
    }
    for id in 0..41 {
        let found = view.node(&node_id(id)).map(AsRef::as_ref);
        prop_assert_eq!(found, plain.nodes.get(&id));
    }
    check_places(view, plain)?;
    check_users(view, plain)?;
    check_requests(view, plain)
}

fn check_places(view: &View, plain: &Plain) -> Result<(), TestCaseError> {
    let ids = |nodes: &mut dyn Iterator<Item = u128>| nodes.collect::<BTreeSet<u128>>();
    let turned = |turns: &[u128]| {
        let turns = turns.to_vec();
        ids(&mut plain
            .nodes
            .keys()
            .copied()
            .filter(|id| turns.contains(&(id % 4))))
    };
    for (host, turns) in [
        ("192.0.2.1", &[0, 1][..]),
        ("::ffff:192.0.2.1", &[0, 1]),
        ("iot.example", &[2]),
        ("192.0.2.2", &[3]),
        ("192.0.2.3", &[]),
    ] {
        let found = ids(&mut view.nodes_at(host).map(|node| node.id.uuid().as_u128()));
        prop_assert_eq!(found, turned(turns), "{}", host);
    }
    for (key, turns) in [
        (KEYS[0], &[0][..]),
        (KEYS[1], &[1]),
        ("ssh-ed25519 AAAA", &[]),
    ] {
        let found = view
            .nodes_with_host_key(key)
            .map(|node| node.id.uuid().as_u128());
        prop_assert_eq!(ids(&mut found.into_iter()), turned(turns), "{}", key);
    }
    let target = view.user_read_as_target(&node_name(1).parse().unwrap());
    prop_assert_eq!(target.is_some(), plain.users.contains_key(&name(5)));
    prop_assert!(
        view.user_read_as_target(&node_name(2).parse().unwrap())
            .is_none()
    );
    Ok(())
}

fn check_users(view: &View, plain: &Plain) -> Result<(), TestCaseError> {
    prop_assert!(view.users().map(AsRef::as_ref).eq(plain.users.values()));
    for n in 0..9 {
        let holders: Vec<&User> = plain
            .users
            .values()
            .filter(|user| user.has_key(&key(n)))
            .collect();
        let only = if let [one] = holders.as_slice() {
            Some(*one)
        } else {
            None
        };
        prop_assert_eq!(view.user_by_key(&key(n)).map(AsRef::as_ref), only);
    }
    Ok(())
}

fn check_requests(view: &View, plain: &Plain) -> Result<(), TestCaseError> {
    let all = || plain.requests.values();
    prop_assert!(view.requests().map(AsRef::as_ref).eq(all()));
    for n in 0..7 {
        let live = all().filter(|r| r.user == user(&name(n)) && r.state.is_live());
        let found = view.live_requests_of(&user(&name(n)));
        prop_assert!(found.map(AsRef::as_ref).eq(live));
    }
    for request in all() {
        for length in [4, 8, 9, 13, 36] {
            let prefix = &request.id.to_string()[..length];
            let visible = |r: &AccessRequest| r.state != State::Canceled;
            let expected: Vec<&AccessRequest> = all()
                .filter(|r| r.id.to_string().starts_with(prefix) && visible(r))
                .collect();
            match (view.find_request(prefix, visible), expected.as_slice()) {
                (Ok(found), [one]) => prop_assert_eq!(found.as_ref(), *one),
                (Err(FindRequestError::Unknown(_)), []) => {}
                (Err(FindRequestError::Ambiguous { count, .. }), many) => {
                    prop_assert_eq!(count, many.len());
                }
                (found, expected) => {
                    return Err(TestCaseError::fail(format!("{found:?}, not {expected:?}")));
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_view_answers_as_plain_maps_do_and_never_changes(changes in vec(change(), 1..60)) {
        let world = small();
        let like = filed(&world, &alice(), &world::wants_root_on_iot(&world), 7, world::at(0));
        let mut view = View::new("example.com".parse().unwrap(), Settings::default());
        let mut plain = Plain::default();
        let mut past = Vec::new();
        for change in &changes {
            past.push((view.clone(), plain.clone()));
            view = apply(view, &mut plain, change, &like);
        }
        past.push((view, plain));
        for (view, plain) in &past {
            check(view, plain)?;
        }
    }
}

#[test]
fn a_prefix_that_no_id_can_start_with_finds_nothing() {
    let view = small();
    let view = view.clone().with_request(filed(
        &view,
        &alice(),
        &world::wants_root_on_iot(&view),
        7,
        world::at(0),
    ));
    for prefix in [
        "0000000-",
        "00000000-00000",
        "----",
        "AAAA",
        &"0".repeat(40),
    ] {
        let found = view.find_request(prefix, |_| true);
        assert!(
            matches!(found, Err(FindRequestError::Unknown(_))),
            "{prefix}: {found:?}"
        );
    }
    assert!(view.find_request("00000000-0000", |_| true).is_ok());
}

#[test]
fn as_many_resources_fit_a_request_as_filing_accepts_and_no_more() {
    let nodes = || (1..=400).map(|n| a_node(n, &format!("node-{n}"), &[]));
    for (count, bytes) in [(300, 32 * 1024), (300, 1000), (10, 32 * 1024)] {
        let settings = Settings {
            resources_per_request: count,
            resource_bytes: bytes,
            ..Settings::default()
        };
        let view = small().with_settings(settings).with_nodes(nodes());
        let ids: Vec<ResourceId> = nodes()
            .map(|node| ResourceId::node(view.cluster().clone(), node.id))
            .collect();
        let fit = view.settings().resources_that_fit(&ids);
        let file = |count: usize| {
            let wanted = Wanted::resources(ids[..count].iter().cloned().collect());
            request::file(&view, &alice(), &wanted, request_id(1), world::at(0))
        };
        assert!(file(fit).is_ok(), "{fit} of {count} and {bytes} bytes");
        let beyond = file(fit + 1);
        assert!(
            matches!(
                beyond,
                Err(FilingError::TooManyResources { .. } | FilingError::ResourcesTooLong { .. })
            ),
            "{beyond:?}"
        );
    }
}
