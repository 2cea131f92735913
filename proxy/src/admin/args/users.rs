//! `users`: people, their roles, logins and keys.

use anteroom_core::id::{Login, RoleName, UserName};
use clap::{Args, Subcommand};

use super::Listing;
use super::values::{Names, names, pair};

#[derive(Debug, Subcommand)]
pub(crate) enum Users {
    /// Add a user
    Add(UsersAdd),
    /// List users
    Ls(Listing),
    /// Show a user
    Show(OneUser),
    /// Change a user
    Update(UsersUpdate),
    /// Remove a user, ending what she has open
    Rm(UserOnly),
    /// Lock a user out
    Lock(UsersLock),
    /// Let a user in again
    Unlock(UserOnly),
}

#[derive(Debug, Args)]
pub(crate) struct UsersAdd {
    /// The user's name
    #[arg(value_parser = UserName::parse)]
    pub(crate) name: UserName,
    /// Standing roles
    #[arg(long, value_delimiter = ',', value_parser = RoleName::parse, value_name = "ROLE,...")]
    pub(crate) roles: Vec<RoleName>,
    /// Logins that {{internal.logins}} stands for
    #[arg(long, value_delimiter = ',', value_parser = Login::parse, value_name = "LOGIN,...")]
    pub(crate) logins: Vec<Login>,
    /// Further traits
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE,...")]
    pub(crate) traits: Vec<(String, String)>,
    /// A public key: a file, `-` for standard input, or the key itself; may be repeated
    #[arg(long, required = true, value_name = "FILE|-|KEY")]
    pub(crate) key: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct OneUser {
    /// The user's name
    #[arg(value_parser = UserName::parse)]
    pub(crate) name: UserName,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct UserOnly {
    /// The user's name
    #[arg(value_parser = UserName::parse)]
    pub(crate) name: UserName,
}

#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = true, args = ["roles", "logins", "traits", "key", "add_key", "rm_key"])]
pub(crate) struct UsersUpdate {
    /// The user's name
    #[arg(value_parser = UserName::parse)]
    pub(crate) name: UserName,
    /// Replaces the standing roles; `--roles ''` takes all away
    #[arg(long, visible_alias = "set-roles", value_parser = names::<RoleName>, value_name = "ROLE,...")]
    pub(crate) roles: Option<Names<RoleName>>,
    /// Replaces the logins; `--logins ''` takes all away
    #[arg(long, visible_alias = "set-logins", value_parser = names::<Login>, value_name = "LOGIN,...")]
    pub(crate) logins: Option<Names<Login>>,
    /// Replaces the traits that are named; `KEY=` removes one
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE,...")]
    pub(crate) traits: Vec<(String, String)>,
    /// Replaces all public keys; may be repeated
    #[arg(long, value_name = "FILE|-|KEY")]
    pub(crate) key: Vec<String>,
    /// Adds a public key; may be repeated
    #[arg(long, value_name = "FILE|-|KEY")]
    pub(crate) add_key: Vec<String>,
    /// Removes the key with this fingerprint; may be repeated
    #[arg(long, value_name = "FINGERPRINT")]
    pub(crate) rm_key: Vec<anteroom_core::id::KeyFingerprint>,
}

#[derive(Debug, Args)]
pub(crate) struct UsersLock {
    /// The user's name
    #[arg(value_parser = UserName::parse)]
    pub(crate) name: UserName,
    /// Why, shown to the user
    #[arg(long, default_value = "locked by an administrator")]
    pub(crate) message: String,
}
