//! SSH, behind one seam: the only crate that knows which library speaks it.
//!
//! The proxy and the node agent see connections and channels:
//!
//! ```text
//!   user ── TCP ──► serve(stream, config, front)            one per connection
//!                     │  Front: who may log in, what is opened
//!                     ▼
//!                   Opening ─ accept ─► Channel { inbox, outbox }
//!                     │                      │ into_stream(): serve() again, for an
//!                     │                      ▼ SSH connection inside a channel
//!   node ◄── TCP ── connect(…) ─► NodeConnection ─ open_session ─► Channel
//!   node ◄── TCP ── Offers::greet(…)                        questions, and no login
//! ```
//!
//! **What it promises.** No peer delays another, and none makes memory grow: a
//! channel holds at most 2 MiB (overshoot: less than twice that) from a user and
//! a connection about 1 MiB from a node; the credit a peer has follows from what
//! has been *consumed* from inboxes ([`Inbox`]). The three limits of that, L1 to L3,
//! are described in `flow.rs`. Before a login succeeds nothing but the login is
//! possible, and it is bounded in time, requests and failures ([`Limits`]). What
//! passes through is within its bounds (sizes, alphabets, counts). A status
//! reaches the user before the EOF that would make its client close. When a
//! connection ends all its queues are closed and all who waited are released.
//!
//! **What it leaves to others.** Who may log in, what is permitted, what is dialled,
//! what a host key is worth, every timeout of a dial, and cleaning a peer's text
//! before a person reads it.
//!
//! **What it rests on.** The engine is russh at one exact version: its behaviour
//! that this relies on is not documented by it, so each new version is verified by
//! `tests/flow*.rs` before it is taken. No other crate may name it.
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

mod algorithms;
mod auth;
mod channel;
mod channel_stream;
mod client;
mod client_handler;
mod flow;
#[cfg(test)]
mod flow_tests;
mod latch;
mod offer;
mod open;
mod opening;
mod queue;
mod requests;
mod server;
mod server_handler;
mod socket;
mod stream;
mod types;

pub use algorithms::HostAlgorithms;
pub use auth::{Answered, Challenge, Verdict};
pub use channel::{Channel, Gone, Inbox, Outbox};
pub use channel_stream::ChannelStream;
pub use client::{
    ConnectError, Credential, ForwardError, HostProof, Incoming, IncomingQueue, NodeConnection,
    Purpose, connect, connect_as, scan,
};
pub use offer::{Method, Offered, Offers};
pub use open::OpenError;
pub use opening::{OpenRefusal, Opening};
pub use requests::MAX_COMMAND;
pub use server::{Answer, Connection, Ended, Front, Limits, ServeError, ServerConfig, serve};
pub use socket::prepare;
pub use types::{
    ChannelRequest, Event, ExitSignal, PtyRequest, RequestKind, Signal, TcpTarget, WindowSize,
    X11Request,
};

/// What we call ourselves to peers (RFC 4253 section 4.2).
const VERSION: &str = concat!("SSH-2.0-Anteroom_", env!("CARGO_PKG_VERSION"));
