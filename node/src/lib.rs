//! The node agent: an SSH server for hosts that have none, or that the proxy cannot dial.
//!
//! ```text
//!  join: token ──► user `enroll` of the proxy ──► Joined, verified ──► dir: identity, one file
//!  run:  identity ──► a tunnel to each proxy ──► sessions, served here
//!                          │ control channel: heartbeats and labels out; authorities, revocations and
//!                          ▼                  certificates in, on disk before they count
//!                      verified by the host CA or the pinned key before anything is sent
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

pub mod backoff;
pub mod config;
mod control;
pub mod dir;
pub mod identity;
pub mod join;
pub mod known;
pub mod krl;
pub mod labels;
pub mod notify;
pub mod protocol;
mod renew;
pub mod run;
pub mod server;
mod text;
mod tunnel;
pub mod unit;
