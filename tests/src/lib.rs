//! The harness of the whole-system tests: a [`World`] is one private `anteroom serve`
//! with stock `sshd` nodes and people who hold ordinary OpenSSH keys.
//!
//! Nothing in here knows the product's code. It starts the `anteroom` binary, speaks to
//! it with the real `ssh`, `scp`, `sftp`, `rsync`, `git` and `ansible`, and reads what a
//! person would read. So what the tests claim is what people get.
//!
//! ```text
//!  World ── Proxy      anteroom serve --data-dir … --listen 127.0.0.1:0
//!    │        └ ctl    anteroom ctl --data-dir …
//!    ├── Node …        /usr/sbin/sshd -D -e -f … with the lines of `nodes sshd-config`
//!    └── Person …      a key, a known_hosts with one @cert-authority line, an ssh_config
//!          └ Cmd ──► Proc (pipes) or Pty (a terminal of its own)
//! ```
//!
//! When a world ends without a failure it checks what must hold after every case: the
//! proxy is alive under the same process ID, its memory came back, and the audit chain
//! verifies. Every process it started is killed with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod binary;
mod capture;
mod cmd;
pub mod fuzz;
mod net;
mod node;
mod person;
mod proc;
mod pty;
pub mod raw;
mod strace;
mod things;
mod world;

pub use binary::{anteroom, need};
pub use capture::Capture;
pub use cmd::{Cmd, Input};
pub use net::Net;
pub use node::{HostProof, Node, NodeConfig, free_port};
pub use person::{KeyType, Person, Way};
pub use proc::{Finished, Proc};
pub use pty::Pty;
pub use strace::{Strace, dies_within};
pub use things::FourThings;
pub use world::{Builder, World, hold_time, login, request_id};

use std::time::Duration;

/// How long an ordinary step may take before the test gives up: generous, because the
/// machine may be busy. It is only ever waited for when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The promise of DESIGN section 2, point 6: what ends a session ends it within a second.
///
/// The client has to notice, write its last words and exit, and the machine that runs
/// the tests is shared: this is the second plus that allowance.
pub const PROMPTLY: Duration = Duration::from_millis(1000 + 1500);
