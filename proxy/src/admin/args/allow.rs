//! `request allow` and `request allows`: pre-approvals.

use anteroom_core::duration;
use anteroom_core::id::{Login, RoleName, UserName};
use clap::{Args, Subcommand};
use time::Duration;

use super::Listing;
use super::values::label;

#[derive(Debug, Args)]
#[group(id = "covered", required = true, multiple = true, args = ["labels", "roles"])]
pub(crate) struct Allow {
    /// For whom; never yourself
    #[arg(long, value_parser = UserName::parse, value_name = "USER")]
    pub(crate) user: UserName,
    /// Requests for nodes that have all of these labels
    #[arg(long, value_delimiter = ',', value_parser = plain_label, value_name = "KEY=VALUE,...")]
    pub(crate) labels: Vec<(String, String)>,
    /// Only requests for these logins; any without it
    #[arg(long, value_delimiter = ',', value_parser = Login::parse, requires = "labels", value_name = "LOGIN,...")]
    pub(crate) logins: Vec<Login>,
    /// Requests for these roles as a whole; with --labels, requests for nodes through these roles only
    #[arg(long, value_delimiter = ',', value_parser = RoleName::parse, value_name = "ROLE,...")]
    pub(crate) roles: Vec<RoleName>,
    /// How long, at most 14 days; what it opens ends with it
    #[arg(long = "for", value_parser = duration::parse, allow_hyphen_values = true, value_name = "DURATION")]
    pub(crate) lasts: Duration,
    /// Why; the reason of its reviews
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Allows {
    /// List the pre-approvals that you gave or were given
    Ls(AllowsLs),
    /// Take pre-approvals back; what they granted stays
    Rm(AllowsRm),
}

#[derive(Debug, Args)]
pub(crate) struct AllowsLs {
    /// Only those that you gave
    #[arg(long)]
    pub(crate) mine: bool,
    /// Only those for this user
    #[arg(long, value_parser = UserName::parse, value_name = "USER")]
    pub(crate) user: Option<UserName>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct AllowsRm {
    /// Their IDs, or at least the first 4 characters of each
    #[arg(required = true, value_delimiter = ',', value_name = "ID")]
    pub(crate) ids: Vec<String>,
}

/// A label that is compared as it is.
fn plain_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = label(text)?;
    if key.contains('*') || value.contains('*') || value.starts_with('^') {
        return Err(
            "a pre-approval takes labels as nodes have them, no patterns; name the value itself"
                .to_owned(),
        );
    }
    Ok((key, value))
}
