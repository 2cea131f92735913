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

mod second;
mod wishes;
#[path = "../world/mod.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};

use anteroom_core::id::{Login, NodeId, RoleName};
use anteroom_core::policy::{
    Decision, Grant, Identity, Outcome, Reason, Resolved, Visibility, Whom, decide_for, explain,
    request_capabilities, requestable_nodes, requestable_roles, resolve, visible_nodes,
};
use anteroom_core::target::NodeRef;
use anteroom_core::view::View;
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use second::{Answer, Question};
use wishes::{COMMAND, LOGINS, NOW, World, a_world, comes, role_name, view};
use world::{access, at, node_id, request_id};

/// When a certificate of these tests ends.
const CERTIFICATE_ENDS: i64 = 600;

fn check_decision(
    world: &World,
    (view, who): (&View, &Identity),
    (node, login): (usize, &str),
    asked: Question,
) -> TestCaseResult {
    let wanted = access(login, node as u128 + 1);
    let command = asked.runs_command.then_some(COMMAND.as_bytes());
    let decision = decide_for(view, who, &wanted, command, at(NOW));
    let expected = world.answer(node, login, asked);
    // Nobody explains a single command.
    let explained = explain(view, Whom::Identity(who), &wanted, at(NOW)).outcome;
    let explained = Some(explained).filter(|_| !asked.runs_command);
    match (&decision, &expected) {
        (Decision::Permit(permit), Answer::Standing) => {
            let standing = matches!(permit.grant(), Grant::Standing { .. });
            prop_assert!(standing);
            let ends = world.certificate.as_ref().map(|_| at(CERTIFICATE_ENDS));
            prop_assert_eq!(permit.ends(), ends);
            let permitted = matches!(explained, Some(Outcome::Permitted { .. }) | None);
            prop_assert!(permitted);
        }
        (Decision::Permit(permit), Answer::Request(by)) => {
            let wish = &world.requests[*by];
            prop_assert_eq!(permit.request(), Some(request_id(*by as u128 + 1)));
            prop_assert_eq!(permit.ends(), Some(at(NOW + wish.ends)));
            prop_assert_eq!(permit.scope().command().is_some(), wish.scoped);
            let permitted = matches!(explained, Some(Outcome::Permitted { .. }) | None);
            prop_assert!(permitted);
        }
        (Decision::Ask(ask), Answer::Ask(through)) => {
            let role = through
                .iter()
                .min_by_key(|role| (world.width(**role), **role))
                .unwrap();
            prop_assert_eq!(&ask.roles, &vec![role_name(*role)]);
            prop_assert!(matches!(explained, Some(Outcome::Askable(_)) | None));
        }
        (Decision::Deny(denial), Answer::Deny) => {
            let visible = denial.visibility == Visibility::Visible;
            prop_assert_eq!(visible, world.known(node, asked));
            prop_assert!(!denial.reasons.is_empty());
            prop_assert!(!denial.reasons.contains(&Reason::UnknownNode));
            prop_assert!(matches!(explained, Some(Outcome::Denied(_)) | None));
        }
        (decision, expected) => {
            let text = format!("{login} on node {node}: {decision:?}, not {expected:?}");
            return Err(TestCaseError::fail(text));
        }
    }
    Ok(())
}

fn check_listings(world: &World, view: &View, who: &Identity) -> TestCaseResult {
    let asked = Question::session(false);
    let mut usable: BTreeMap<NodeId, BTreeSet<Login>> = BTreeMap::new();
    let mut askable: BTreeMap<NodeId, BTreeMap<Login, BTreeSet<RoleName>>> = BTreeMap::new();
    for node in 0..world.nodes.len() {
        let id = node_id(node as u128 + 1);
        for text in LOGINS {
            let login: Login = text.parse().unwrap();
            match world.answer(node, text, asked) {
                Answer::Standing | Answer::Request(_) => {
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
    let found = visible_nodes(view, who, at(NOW)).into_iter();
    let found: BTreeMap<_, _> = found
        .map(|f| (f.node.id, f.logins.as_ref().clone()))
        .collect();
    prop_assert_eq!(found, usable);
    let found = requestable_nodes(view, who, at(NOW)).into_iter();
    let found: BTreeMap<_, _> = found
        .map(|f| (f.node.id, f.logins.as_ref().clone()))
        .collect();
    prop_assert_eq!(found, askable);
    Ok(())
}

fn check_names(world: &World, view: &View, who: &Identity) -> TestCaseResult {
    let asked = Question::session(false);
    for (n, name) in ["web", "db"].into_iter().enumerate() {
        let known: Vec<NodeId> = (0..world.nodes.len())
            .filter(|node| node % 2 == n && world.known(*node, asked))
            .map(|node| node_id(node as u128 + 1))
            .collect();
        let wanted = NodeRef::parse(name).unwrap();
        match (resolve(view, who, &wanted, at(NOW)), known.as_slice()) {
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

/// What can be asked for by name, and as what alice searches.
fn check_roles(world: &World, view: &View, who: &Identity) -> TestCaseResult {
    let found = requestable_roles(view, who, at(NOW)).into_iter();
    let found: BTreeSet<RoleName> = found.map(|role| role.name.clone()).collect();
    let expected = world
        .requestable_roles()
        .into_iter()
        .map(role_name)
        .collect();
    prop_assert_eq!(found, expected);
    if world.certificate.is_none() {
        let found = request_capabilities(view, who.user(), at(NOW)).search_as_roles;
        let expected: Vec<RoleName> = world.search_as().into_iter().map(role_name).collect();
        prop_assert_eq!(found, expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn decisions_and_listings_are_those_of_the_second_evaluator(world in a_world()) {
        let (view, who) = comes(&world, view(&world));
        for node in 0..world.nodes.len() {
            for login in LOGINS {
                for runs_command in [false, true] {
                    let asked = Question::session(runs_command);
                    check_decision(&world, (&view, &who), (node, login), asked)?;
                }
            }
        }
        check_listings(&world, &view, &who)?;
        check_names(&world, &view, &who)?;
        check_roles(&world, &view, &who)?;
    }
}
