//! `sessions`: live sessions.

use clap::{Args, Subcommand};

use super::Listing;

#[derive(Debug, Subcommand)]
pub(crate) enum Sessions {
    /// List the sessions that live now: your own, and those your roles let you list
    Ls(Listing),
    /// End a session at once
    Kill(SessionKill),
}

#[derive(Debug, Args)]
pub(crate) struct SessionKill {
    /// The session's ID, or how it begins (at least 4 characters)
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}
