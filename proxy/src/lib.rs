//! The Anteroom SSH access proxy: everything that waits.
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

mod addresses;
pub mod admin;
pub mod agent;
pub mod announce;
pub mod audit;
pub mod authority;
mod balancer;
pub mod bridge;
mod check;
pub mod config;
pub mod demo;
pub mod dial;
pub mod doctor;
pub mod enrol;
pub mod environment;
pub mod exit;
pub mod hold;
pub mod keys;
mod learning;
pub mod limits;
pub mod listings;
pub mod live;
pub mod logging;
pub mod metrics;
pub mod mfa;
pub mod proxy;
pub mod say;
mod scan;
pub mod serve;
pub mod session;
pub mod state;
pub mod store;
pub mod tunnel_unit;
pub mod tunnels;
pub mod vitals;
pub mod waiting;
