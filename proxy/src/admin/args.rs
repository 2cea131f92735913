//! The commands and their options: one definition for parsing, for `help` and for the suggestions after a typing error.
//! Values are parsed here, once; what runs a command sees checked types only.
//!
//! Here is the list of commands; the options of each family are in a module of their own.

pub(crate) mod allow;
pub(crate) mod audit;
pub(crate) mod authorities;
pub(crate) mod locks;
pub(crate) mod nodes;
pub(crate) mod objects;
pub(crate) mod person;
pub(crate) mod requests;
pub(crate) mod search;
pub(crate) mod sessions;
pub(crate) mod users;
pub(crate) mod values;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::audit::Audit;
use self::authorities::{Auth, Cert};
use self::locks::{LockArgs, Locks};
use self::nodes::{Nodes, Tokens};
use self::objects::{Create, Get, Rm};
use self::person::{Config, Explain, LogIn, Mfa, Status};
use self::requests::{Request, Requests};
use self::search::Ls;
use self::sessions::Sessions;
use self::users::Users;

/// One command line, without a program name in front.
#[derive(Debug, Parser)]
#[command(
    no_binary_name = true,
    name = "anteroom",
    disable_help_subcommand = true,
    disable_version_flag = true,
    infer_subcommands = false,
    args_override_self = false
)]
pub(crate) struct Line {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the nodes that you can use now
    Ls(Ls),
    /// Ask for access, look at requests, review them
    #[command(subcommand)]
    Request(Request),
    /// Administer requests
    #[command(subcommand)]
    Requests(Requests),
    /// Print an identity certificate for your key, with what requests gave you
    Login(LogIn),
    /// Set up the second factor that some roles demand
    #[command(subcommand)]
    Mfa(Mfa),
    /// Show who you are and what you can use
    Status(Status),
    /// List live sessions, end one
    #[command(subcommand)]
    Sessions(Sessions),
    /// Print your user name
    Whoami(Listing),
    /// Say which rule decides about a login on a node, and what would make it work
    Explain(Explain),
    /// Print an ssh_config block and known_hosts lines for this proxy
    Config(Config),
    /// Explain a command
    Help(Help),
    /// Print the version
    Version,
    /// Read and verify the audit log
    #[command(subcommand)]
    Audit(Audit),
    /// Administer users
    #[command(subcommand)]
    Users(Users),
    /// Administer nodes
    #[command(subcommand)]
    Nodes(Nodes),
    /// Let machines become nodes by themselves
    #[command(subcommand)]
    Tokens(Tokens),
    /// Create roles, users, nodes, locks and other resources from YAML documents, all of them or none
    Create(Create),
    /// Show roles, users, nodes, locks and other resources as documents that `create` reads
    Get(Get),
    /// Remove a role, a user, a node, a lock or another resource
    Rm(Rm),
    /// Export the public keys of the certificate authorities
    #[command(subcommand)]
    Auth(Auth),
    /// Print a short certificate for a node, for ssh past the proxy
    Cert(Cert),
    /// Shut out a user, key, role, request, login, node or certificate at once
    Lock(LockArgs),
    /// List locks, take them away
    #[command(subcommand)]
    Locks(Locks),
}

/// How a listing is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people
    Text,
    /// An array of full objects
    Json,
    /// The same in YAML
    Yaml,
}

/// The option of every listing.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Listing {
    /// How to write the answer
    #[arg(short = 'f', long, value_enum, default_value_t = Format::Text, hide_possible_values = true, value_name = "text|json|yaml")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Help {
    /// The command, like `request create`
    pub(crate) command: Vec<String>,
}

impl Command {
    /// The values that may name files on the client's machine, with `-` for its standard input.
    pub(crate) fn file_arguments(&self) -> Vec<&String> {
        let keys = match self {
            Self::Users(Users::Add(args)) => args.key.iter().collect(),
            Self::Users(Users::Update(args)) => args.key.iter().chain(&args.add_key).collect(),
            Self::Nodes(Nodes::Add(args)) => args.proof.host_key.iter().collect(),
            Self::Nodes(Nodes::Update(args)) => args.proof.host_key.iter().collect(),
            Self::Nodes(Nodes::Rekey(args)) => args.keys.host_key.iter().collect(),
            Self::Nodes(Nodes::HostCert(args)) => vec![&args.key],
            Self::Create(args) => return args.documents.path().into_iter().collect(),
            Self::Ls(_)
            | Self::Request(_)
            | Self::Requests(_)
            | Self::Status(_)
            | Self::Sessions(_)
            | Self::Whoami(_)
            | Self::Explain(_)
            | Self::Config(_)
            | Self::Help(_)
            | Self::Version
            | Self::Audit(_)
            | Self::Tokens(_)
            | Self::Users(
                Users::Ls(_) | Users::Show(_) | Users::Rm(_) | Users::Lock(_) | Users::Unlock(_),
            )
            | Self::Nodes(
                Nodes::Ls(_)
                | Nodes::Show(_)
                | Nodes::Rm(_)
                | Nodes::SshdConfig(_)
                | Nodes::Check(_)
                | Nodes::TunnelUnit(_)
                | Nodes::Renewal(_),
            )
            | Self::Get(_)
            | Self::Rm(_)
            | Self::Login(_)
            | Self::Mfa(_)
            | Self::Auth(_)
            | Self::Cert(_)
            | Self::Lock(_)
            | Self::Locks(_) => Vec::new(),
        };
        let mut keys: Vec<&String> = keys;
        keys.retain(|value| !is_inline_key(value));
        keys
    }
}

/// Whether a `--key` value is a public key and no file: a type, a blank and more. No file of that name is lost, because
/// `./` in front makes it one.
pub(crate) fn is_inline_key(value: &str) -> bool {
    let Some((kind, _)) = value.trim_start().split_once(' ') else {
        return false;
    };
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| kind.starts_with(start))
}
