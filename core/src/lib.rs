//! The domain of Anteroom: names, roles, decisions and the life of an access request.
//!
//! Everything here is pure. There is no clock, socket, file, randomness or runtime: `now` and
//! fresh identifiers are arguments. What is stored is plain data; what has been proven or decided
//! is a type with one maker.
//!
//! ```text
//!  text ──► id, target, documents, predicate   parsed once, at the edge
//!              │
//!  store ──► view: users, roles, nodes, requests at one instant
//!              │
//!  Identity ─► policy::decide ─► Permit | Ask | Deny
//!                                  │       │
//!                       ca::node, dial     request::file ─► review, apply ─► a new view
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests fail by panicking"
    )
)]

pub mod admin;
pub mod allowance;
pub mod claims;
pub mod credential;
pub mod documents;
pub mod duration;
pub mod enrol;
pub mod id;
pub mod kube;
pub mod lock;
pub mod mfa;
pub mod monitoring;
pub mod node;
pub mod pattern;
pub mod policy;
pub mod predicate;
pub mod preset;
pub mod request;
pub mod resource;
pub mod role;
pub mod selector;
pub mod target;
pub mod template;
pub mod text;
pub mod token;
pub mod typing;
pub mod user;
pub mod view;
