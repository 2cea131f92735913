//! The certificate authorities of Anteroom: keys in, certificates out. No network, no clock, no runtime;
//! time and randomness are arguments, and the only files are those of keys.
//!
//! ```text
//!  key files ──► key ──► NodeCa ──────────────┐        HostCa ◄──── key
//!                                             ▼          ▼
//!  policy::Permit ──► node::certify ──► draft ──► sign ──► lint ──► Certificate
//!  names::AdmittedName ──► host::certify_* ──┤
//!  policy::LoginPermit ──► user::certify ────┘
//!
//!  what a person presents ──► user::verify ──► VerifiedIdentity, or the reason
//!
//!  what a node agent is shown ──► node::verify ──► VerifiedAccess, or the reason
//!
//!  what a dialled node shows ──► host::verify ──► Ok, or the reason
//!  public halves ──► export: authorized_keys, known_hosts, sshd_config
//!  what is locked or revoked ──► krl: the list that sshd reads as RevokedKeys, and its reader
//! ```
//!
//! A [`Certificate`] is made in one place, behind the linter. The caller commits its issuance row before the
//! certificate leaves the process.

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

pub mod authority;
mod cert;
pub mod export;
pub mod host;
pub mod key;
pub mod krl;
pub mod names;
pub mod node;
pub mod passphrase;
mod serial;
mod source;
mod time_of_issue;
pub mod user;

pub use cert::{Certificate, LintError, SignError};
pub use serial::Serial;
pub use source::{SourceAddresses, SourceError};
pub use time_of_issue::{ClockError, IssueTime, MAX_STEP_BACK};

/// The same randomness in every run.
#[cfg(test)]
fn test_rng() -> impl rand::CryptoRng {
    <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(0x616e_7465)
}
