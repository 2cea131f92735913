//! The node agent: an SSH server for hosts that have none, or that the proxy cannot dial.
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

pub mod protocol;
pub mod server;
