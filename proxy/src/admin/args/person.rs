//! What somebody asks about herself: `login`, `mfa`, `status`, `explain`, `config`.

use anteroom_core::duration;
use anteroom_core::id::{DeviceName, RoleName, UserName};
use anteroom_core::target::Target;
use clap::{Args, Subcommand, ValueEnum};
use time::Duration;

use super::Listing;

#[derive(Debug, Args)]
pub(crate) struct LogIn {
    /// An approved request to take into the certificate
    #[arg(long, value_delimiter = ',', value_name = "ID,...")]
    pub(crate) request_id: Vec<String>,
    /// Roles to ask for first; the certificate is printed when they are approved
    #[arg(long, value_delimiter = ',', value_name = "ROLE,...")]
    pub(crate) request_roles: Vec<RoleName>,
    /// Why the roles are needed
    #[arg(long, requires = "request_roles", value_name = "TEXT")]
    pub(crate) request_reason: Option<String>,
    /// Ask for the roles, and print a certificate without them at once
    #[arg(long, requires = "request_roles")]
    pub(crate) request_nowait: bool,
    /// How long the certificate lasts, if less than the usual
    #[arg(long, value_parser = duration::parse, value_name = "DURATION")]
    pub(crate) ttl: Option<Duration>,
    /// Make a new key, and load it with its certificate into the agent that `ssh -A` forwards
    #[arg(long)]
    pub(crate) agent: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mfa {
    /// Set up a device that shows codes: prints what it reads, and asks for its first code
    Add(MfaAdd),
    /// List devices
    Ls(MfaLs),
    /// Remove a device
    Rm(MfaRm),
}

#[derive(Debug, Args)]
pub(crate) struct MfaAdd {
    /// What to call the device
    #[arg(long, default_value = "app", value_name = "NAME")]
    pub(crate) name: DeviceName,
    /// A code of a device that is set up already
    #[arg(long, value_name = "CODE")]
    pub(crate) code: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MfaLs {
    /// Whose, for administrators
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<UserName>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct MfaRm {
    /// Which device; with --user, all of them where none is named
    #[arg(required_unless_present = "user")]
    pub(crate) name: Option<DeviceName>,
    /// Whose, for administrators
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<UserName>,
    /// A code of a device that is set up
    #[arg(long, conflicts_with = "user", value_name = "CODE")]
    pub(crate) code: Option<String>,
}

/// Of whom.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Status {
    /// Show how the proxy is instead, in numbers (needs `list` on `event`)
    #[arg(long)]
    pub(crate) server: bool,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The login on the node, like root@iot
    #[arg(value_name = "LOGIN@NODE")]
    pub(crate) target: Target,
    /// For another user (administrators)
    #[arg(long, value_parser = UserName::parse)]
    pub(crate) user: Option<UserName>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct Config {
    /// The name that the proxy gets in the ssh_config block
    #[arg(long, value_parser = alias, value_name = "NAME")]
    pub(crate) alias: Option<String>,
    /// Print one part only
    #[arg(
        long,
        value_enum,
        value_name = "ssh_config|known_hosts",
        hide_possible_values = true
    )]
    pub(crate) part: Option<ConfigPart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum ConfigPart {
    SshConfig,
    KnownHosts,
}

/// The alias becomes a word of an ssh_config block: nothing in it may start a pattern or another line.
fn alias(text: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(good)
    {
        return Ok(text.to_owned());
    }
    Err("write up to 64 letters, digits, `-`, `_` or `.`".to_owned())
}
