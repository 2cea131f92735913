//! `auth` and `cert`: the certificate authorities' keys, and a certificate for a node.

use anteroom_core::target::Target;
use clap::{Args, Subcommand, ValueEnum};

use super::Listing;

#[derive(Debug, Subcommand)]
pub(crate) enum Auth {
    /// Print the public keys of an authority
    Export(AuthExport),
    /// Exchange the key of an authority, one stage after the other
    Rotate(AuthRotate),
    /// Show which key of each authority signs, and what nodes have to learn of a rotation
    Status(Listing),
}

#[derive(Debug, Args)]
pub(crate) struct AuthRotate {
    /// Which authority
    #[arg(
        long = "type",
        value_enum,
        value_name = "user|node|host",
        hide_possible_values = true
    )]
    pub(crate) authority: Rotatable,
    /// announce: a new key, trusted beside the old one; sign: it signs; retire: the old key is trusted no
    /// more; rollback: back to the old key [default: the next one]
    #[arg(
        long,
        value_enum,
        value_name = "announce|sign|retire|rollback",
        hide_possible_values = true
    )]
    pub(crate) stage: Option<RotateStage>,
    /// Retire the old key although nodes are not known to go by the new one, or certificates of it are valid
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rotatable {
    User,
    Node,
    Host,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RotateStage {
    Announce,
    Sign,
    Retire,
    Rollback,
}

#[derive(Debug, Args)]
pub(crate) struct AuthExport {
    /// Which authority: user, node or host; krl: the revocation list, in binary
    #[arg(
        long = "type",
        value_enum,
        value_name = "user|node|host|krl",
        hide_possible_values = true
    )]
    pub(crate) authority: Authority,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Authority {
    User,
    Node,
    Host,
    Krl,
}

#[derive(Debug, Args)]
pub(crate) struct Cert {
    /// The login on the node, like root@iot
    #[arg(value_name = "LOGIN@NODE")]
    pub(crate) target: Target,
}
