//! `lock` and `locks`: what is shut out, and for how long.

use anteroom_core::duration;
use anteroom_core::id::{Login, RoleName, UserName};
use clap::{Args, Subcommand};
use time::Duration;

use super::Listing;

#[derive(Debug, Args)]
#[group(id = "target", required = true, multiple = false, args = ["user", "node", "role", "request", "login", "key", "serial"])]
pub(crate) struct LockArgs {
    /// Everything that this user does
    #[arg(long, value_parser = UserName::parse)]
    pub(crate) user: Option<UserName>,
    /// This node, by name, UUID or resource ID, for every login
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// Everybody who has this role, and every request that gives it
    #[arg(long, value_parser = RoleName::parse)]
    pub(crate) role: Option<RoleName>,
    /// What this request gives; its ID, or at least its first 4 characters
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// This login, on every node
    #[arg(long, value_parser = Login::parse)]
    pub(crate) login: Option<Login>,
    /// Whatever is done with this key
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) key: Option<anteroom_core::id::KeyFingerprint>,
    /// The certificate of this serial number
    #[arg(long, value_parser = serial, value_name = "N")]
    pub(crate) serial: Option<u64>,
    /// For how long; without it until `locks rm`
    #[arg(long, value_parser = duration::parse, allow_hyphen_values = true, value_name = "DURATION")]
    pub(crate) ttl: Option<Duration>,
    /// Why, shown to those whom it shuts out
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

fn serial(text: &str) -> Result<u64, String> {
    anteroom_core::documents::parse_serial(text)
        .ok_or_else(|| "write the number that `ssh-keygen -L` shows, in decimal digits".to_owned())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Locks {
    /// List locks
    Ls(Listing),
    /// Take locks away
    Rm(LocksRm),
}

#[derive(Debug, Args)]
pub(crate) struct LocksRm {
    /// Which: the lock's ID, or at least its first 4 characters; `user/NAME` for `users lock`
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<String>,
}
