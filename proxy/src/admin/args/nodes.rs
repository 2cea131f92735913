//! `nodes` and `tokens`: hosts, and how they become nodes by themselves.

use anteroom_core::duration;
use anteroom_core::id::{Login, NodeName, TokenId};
use anteroom_core::node::NodeAddr;
use anteroom_core::token::MOST_USES;
use clap::{Args, Subcommand, ValueEnum};
use time::Duration;

use super::Listing;
use super::search::NodeFilter;
use super::values::{Cidrs, Pairs, cidr, cidrs, label, labels, pair};

#[derive(Debug, Subcommand)]
pub(crate) enum Nodes {
    /// Register a node
    Add(NodesAdd),
    /// List all nodes
    Ls(NodesLs),
    /// Show a node
    Show(OneNode),
    /// Remove a node, ending its sessions
    Rm(NodeOnly),
    /// Change a node
    Update(NodesUpdate),
    /// Replace the host keys that a node is known by, after it got new ones
    Rekey(NodesRekey),
    /// Print the lines for the node's sshd_config
    SshdConfig(SshdConfig),
    /// Sign a node's host key for its names
    HostCert(HostCert),
    /// Print the systemd unit that keeps a node's tunnel up
    TunnelUnit(TunnelUnit),
    /// Print the script by which a node with sshd renews its certificates, revocation list and CA
    Renewal(NodeOnly),
    /// Dial a node and say what is wrong with it, without logging in
    Check(NodesCheck),
}

/// How the node proves that it is the node.
#[derive(Debug, Args)]
pub(crate) struct HostProofArgs {
    /// Its public host key: a file, `-`, or the key itself; may be repeated
    #[arg(long, value_name = "FILE|-|KEY")]
    pub(crate) host_key: Vec<String>,
    /// By a host certificate of this cluster's host CA
    #[arg(long)]
    pub(crate) host_ca: bool,
    /// Ask the address for its keys now and pin them
    #[arg(long)]
    pub(crate) scan: bool,
}

#[derive(Debug, Args)]
#[group(id = "proof", required = true, multiple = false, args = ["host_key", "host_ca", "scan"])]
pub(crate) struct NodesAdd {
    /// The node's name
    #[arg(value_parser = NodeName::parse)]
    pub(crate) name: NodeName,
    /// Where it is dialled, or `tunnel` where the node connects by itself
    #[arg(long, value_name = "HOST:PORT|tunnel")]
    pub(crate) addr: NodeAddr,
    /// Labels that roles select by
    #[arg(long, value_delimiter = ',', value_parser = label, value_name = "KEY=VALUE,...")]
    pub(crate) labels: Vec<(String, String)>,
    /// Addresses (CIDR) as which the node sees the proxy
    #[arg(long, value_delimiter = ',', value_parser = cidr, value_name = "CIDR,...")]
    pub(crate) egress_addresses: Vec<String>,
    #[command(flatten)]
    pub(crate) proof: HostProofArgs,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct NodesLs {
    /// Only nodes with these labels
    #[arg(value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) filter: NodeFilter,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct NodesCheck {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Accounts to ask about; without it those that roles allow there, at most 8
    #[arg(long, value_delimiter = ',', value_parser = Login::parse, value_name = "LOGIN,...")]
    pub(crate) login: Vec<Login>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct OneNode {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct NodeOnly {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
}

#[derive(Debug, Args)]
#[group(id = "proof", multiple = false, args = ["host_key", "host_ca", "scan"])]
#[group(id = "change", required = true, multiple = true, args = ["name", "addr", "labels", "egress_addresses", "host_key", "host_ca", "scan"])]
pub(crate) struct NodesUpdate {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// A new name; approvals stay bound to the UUID
    #[arg(long, value_parser = NodeName::parse)]
    pub(crate) name: Option<NodeName>,
    /// A new address, or `tunnel` where the node connects by itself
    #[arg(long, value_name = "HOST:PORT|tunnel")]
    pub(crate) addr: Option<NodeAddr>,
    /// Replaces all labels; `--labels ''` takes all away
    #[arg(long, value_parser = labels, value_name = "KEY=VALUE,...")]
    pub(crate) labels: Option<Pairs>,
    /// Replaces the addresses as which the node sees the proxy; `''` takes all away
    #[arg(long, value_parser = cidrs, value_name = "CIDR,...")]
    pub(crate) egress_addresses: Option<Cidrs>,
    #[command(flatten)]
    pub(crate) proof: HostProofArgs,
}

#[derive(Debug, Args)]
pub(crate) struct NodesRekey {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) keys: NewKeys,
}

/// The keys that a node is known by from now on.
#[derive(Debug, Args)]
#[group(id = "new_keys", required = true, multiple = false)]
pub(crate) struct NewKeys {
    /// Its public host key: a file, `-`, or the key itself; may be repeated
    #[arg(long, value_name = "FILE|-|KEY")]
    pub(crate) host_key: Vec<String>,
    /// Ask the address for its keys now and pin them
    #[arg(long)]
    pub(crate) scan: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SshdConfig {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Close the node's other doors: no authorized_keys files, no passwords
    #[arg(long)]
    pub(crate) exclusive: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TunnelUnit {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Where sshd listens on the node's loopback address
    #[arg(long, value_name = "PORT", default_value_t = crate::tunnel_unit::SSHD_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) sshd_port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct HostCert {
    /// The node's name, UUID or resource ID
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Its public host key: a file, `-` for standard input, or the key itself
    #[arg(long, value_name = "FILE|-|KEY")]
    pub(crate) key: String,
    /// For how long, at most 29 days
    #[arg(long, value_parser = duration::parse, default_value = "29d", value_name = "DURATION")]
    pub(crate) ttl: Duration,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tokens {
    /// Make a token, and print the line that makes a machine a node with it
    Add(TokensAdd),
    /// List tokens, without their secrets
    Ls(Listing),
    /// Remove tokens; what came in by them stays
    Rm(TokensRm),
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenType {
    Node,
}

#[derive(Debug, Args)]
pub(crate) struct TokensAdd {
    /// What it is for: node
    #[arg(
        long = "type",
        value_enum,
        hide_possible_values = true,
        value_name = "node"
    )]
    pub(crate) kind: TokenType,
    /// The one name that a node may take by it; without it nodes name themselves
    #[arg(long, value_parser = NodeName::parse, value_name = "NODE")]
    pub(crate) name: Option<NodeName>,
    /// How long it is good, at most 7 days
    #[arg(long, value_parser = duration::parse, default_value = "1h", allow_hyphen_values = true, value_name = "DURATION")]
    pub(crate) ttl: Duration,
    /// How many nodes may come in by it
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_USES)))]
    pub(crate) uses: u32,
    /// Labels of what comes in by it; they win over what a node says of itself
    #[arg(long, value_delimiter = ',', value_parser = label, value_name = "KEY=VALUE,...")]
    pub(crate) labels: Vec<(String, String)>,
    /// Where the node is dialled, or that it keeps a tunnel; without it, where it comes from
    #[arg(long, value_name = "HOST:PORT|tunnel")]
    pub(crate) addr: Option<NodeAddr>,
    /// Print the line for the node agent
    #[arg(long)]
    pub(crate) agent: bool,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct TokensRm {
    /// Their IDs, which `tokens ls` shows
    #[arg(required = true, value_delimiter = ',', value_parser = TokenId::parse, value_name = "ID")]
    pub(crate) ids: Vec<TokenId>,
}
