//! Certificates that are offered to a node and never used.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use anteroom_ca::node::{Question, Terms, probe};
use anteroom_ca::{IssueTime, Serial, SourceAddresses};
use anteroom_core::id::{Login, NodeId, SessionId, UserName};
use anteroom_core::policy::{ProbeRefused, permit_probe};
use anteroom_core::request::Actor;
use anteroom_core::role::Options;
use time::macros::datetime;

use common::{IOT, SESSION, access_role, cluster, node_ca, node_id, rng, subject, view};

const NOW: time::OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

#[test]
fn a_probe_is_bound_to_a_command_that_does_nothing_and_carries_nothing() {
    let view = view(access_role(&["root"], Options::default()), NOW);
    let (node, login) = (node_id(IOT), Login::parse("root").unwrap());
    let permit = permit_probe(&view, &Actor::LocalAdministrator, &node, &login, NOW).unwrap();
    let (cluster, addresses) = (cluster(), SourceAddresses::tunnel());
    let terms = Terms {
        cluster: &cluster,
        session: SessionId::parse(SESSION).unwrap(),
        serial: Serial::new(5).unwrap(),
        source_addresses: &addresses,
        at: IssueTime::new(NOW, None).unwrap(),
    };
    let key = subject();
    let day = 86_400;
    for (question, principal, from, until) in [
        (Question::AsUsed, format!("root@{node}"), -60, 60),
        (Question::PlainLogin, "root".to_owned(), -60, 60),
        (Question::AnyAddress, format!("root@{node}"), -60, 60),
        (
            Question::AtClock(-day, -60),
            format!("root@{node}"),
            -day,
            -60,
        ),
        (Question::AtClock(60, day), format!("root@{node}"), 60, day),
    ] {
        let made = probe(
            &permit,
            question,
            key.public_key(),
            &terms,
            &node_ca(),
            &mut rng(),
        );
        let cert = made.unwrap().into_ssh();
        assert_eq!(cert.valid_principals(), [principal]);
        assert_eq!(cert.critical_options()["force-command"], "/bin/false");
        assert!(cert.critical_options().contains_key("source-address"));
        assert!(cert.extensions().is_empty());
        let at = |offset: i64| u64::try_from(NOW.unix_timestamp() + offset).unwrap();
        assert_eq!(
            (cert.valid_after(), cert.valid_before()),
            (at(from), at(until))
        );
    }
    // No window is longer than a month.
    let year = Question::AtClock(60, 365 * day);
    let long = probe(
        &permit,
        year,
        key.public_key(),
        &terms,
        &node_ca(),
        &mut rng(),
    );
    assert!(long.is_err());
}

#[test]
fn only_who_may_change_the_node_may_ask_it() {
    let view = view(access_role(&["root"], Options::default()), NOW);
    let (node, login) = (node_id(IOT), Login::parse("root").unwrap());
    let alice = Actor::User(UserName::parse("alice").unwrap());
    let refused = permit_probe(&view, &alice, &node, &login, NOW).unwrap_err();
    assert_eq!(refused, ProbeRefused::NotAllowed);
    let other = NodeId::parse("00000000-0000-4000-8000-000000000000").unwrap();
    let refused = permit_probe(&view, &Actor::LocalAdministrator, &other, &login, NOW);
    assert_eq!(refused.unwrap_err(), ProbeRefused::NoNode);
}
