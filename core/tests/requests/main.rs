//! The life of a request: filing, reviewing, every pair of state and action, and time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod filing;
mod finding;
#[path = "../golden/mod.rs"]
mod golden;
mod machine;
mod reviewing;
mod times;
#[path = "../world/mod.rs"]
mod world;

use std::collections::BTreeSet;

use anteroom_core::id::ResourceId;
use anteroom_core::request::{FilingError, Terms, Verdict, Wanted, file};
use anteroom_core::view::View;
use time::OffsetDateTime;
use world::*;

fn approve() -> Verdict {
    Verdict::Approve(Terms::default())
}

fn terms(change: impl FnOnce(&mut Terms)) -> Verdict {
    let mut terms = Terms::default();
    change(&mut terms);
    Verdict::Approve(terms)
}

fn ids(view: &View, texts: &[&str]) -> BTreeSet<ResourceId> {
    let id = |text: &&str| format!("/{}/node/{text}", view.cluster()).parse().unwrap();
    texts.iter().map(id).collect()
}

fn on(view: &View, node: u128, logins: &str) -> Wanted {
    Wanted::resources(ids(view, &[&format!("{}{logins}", node_id(node))]))
}

fn refuse(view: &View, wanted: &Wanted, now: OffsetDateTime) -> FilingError {
    file(view, &alice(), wanted, request_id(9), now).expect_err("it must be refused")
}

/// `small()` with further roles, and alice holding `held`.
fn with(text: &str, held: &[&str]) -> View {
    with_roles(small(), text).with_user(a_user("alice", &[0, 1], held, &["alice", "root"]))
}
