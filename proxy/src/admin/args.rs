//! The commands and their options: one definition for parsing, for `help` and for the suggestions after a typing error.
//! Values are parsed here, once; what runs a command sees checked types only.

use anteroom_core::duration;
use anteroom_core::id::{DeviceName, Login, NodeName, RoleName, TokenId, UserName};
use anteroom_core::node::NodeAddr;
use anteroom_core::predicate::{Predicate, Resource};
use anteroom_core::request::State;
use anteroom_core::resource;
use anteroom_core::target::Target;
use anteroom_core::token::MOST_USES;
use clap::{Args, Parser, Subcommand, ValueEnum};
use time::{Duration, OffsetDateTime};

use crate::say;

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

/// Of whom.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Status {
    /// Show how the proxy is instead, in numbers (needs `list` on `event`)
    #[arg(long)]
    pub(crate) server: bool,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// Which nodes a listing shows.
#[derive(Debug, Args)]
pub(crate) struct NodeFilter {
    /// Only those for which an expression is true, like labels["env"] == "prod"
    #[arg(long, allow_hyphen_values = true, value_parser = Predicate::<Resource>::parse, value_name = "EXPR")]
    pub(crate) query: Option<Predicate<Resource>>,
    /// Words that all have to occur in a node's name, address or labels
    #[arg(long, value_delimiter = ',', value_name = "WORD,...")]
    pub(crate) search: Vec<String>,
    /// Show node IDs too
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only nodes with these labels
    #[arg(value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) filter: NodeFilter,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Request {
    /// Search for what you can ask for
    Search(Search),
    /// Ask for access to resources or for roles
    #[command(visible_alias = "new")]
    Create(CreateRequest),
    /// List requests: your own, and those you may review
    Ls(RequestLs),
    /// Show one request with its reviews
    Show(OneRequest),
    /// Approve or deny somebody's request
    Review(Review),
    /// Set aside what your approved requests give
    Drop(DropRequests),
    /// Take up an approved request with this key
    Assume(OneRequest),
    /// Take back your own pending request
    Cancel(OneRequest),
    /// Approve requests as an administrator, like `requests approve`
    Approve(Decide),
    /// Deny requests as an administrator, like `requests deny`
    Deny(Deny),
    /// Approve in advance what somebody will ask for
    Allow(Allow),
    /// List pre-approvals, take them back
    #[command(subcommand)]
    Allows(Allows),
}

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

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false, args = ["kind", "roles"])]
pub(crate) struct Search {
    /// The kind: node, db, app, kube_cluster, kube_resource or windows_desktop
    #[arg(long, value_parser = kind)]
    pub(crate) kind: Option<Kind>,
    /// Search for roles in place of resources
    #[arg(long)]
    pub(crate) roles: bool,
    #[command(flatten)]
    pub(crate) filter: NodeFilter,
    /// Only resources with these labels
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE,...")]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) kube: KubeSearch,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// Which objects in Kubernetes clusters a search for `kube_resource` shows.
#[derive(Debug, Args)]
pub(crate) struct KubeSearch {
    /// Only in this Kubernetes cluster
    #[arg(long = "kube-cluster", value_name = "NAME")]
    pub(crate) kube_cluster: Option<String>,
    /// Only objects of this kind, by its plural, like pods
    #[arg(long = "kube-kind", value_name = "PLURAL")]
    pub(crate) kube_kind: Option<String>,
    /// Only of this API group, like apps; '' is the core group
    #[arg(long = "kube-api-group", value_name = "GROUP")]
    pub(crate) kube_api_group: Option<String>,
    /// Only in this namespace
    #[arg(
        long = "kube-namespace",
        value_name = "NAME",
        conflicts_with = "all_kube_namespaces"
    )]
    pub(crate) kube_namespace: Option<String>,
    /// In every namespace, which is what happens without --kube-namespace as well
    #[arg(long = "all-kube-namespaces")]
    pub(crate) all_kube_namespaces: bool,
}

impl KubeSearch {
    /// Whether any of it is.
    pub(crate) fn is_given(&self) -> bool {
        self.all_kube_namespaces
            || [
                &self.kube_cluster,
                &self.kube_kind,
                &self.kube_api_group,
                &self.kube_namespace,
            ]
            .iter()
            .any(|option| option.is_some())
    }
}

/// Kinds of resources that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    /// Another registered resource.
    Registered(resource::Kind),
    /// Objects inside a Kubernetes cluster.
    KubeResource,
}

/// What is asked for, one way or both.
#[derive(Debug, Args)]
#[group(id = "asked", required = true, multiple = true)]
pub(crate) struct Asked {
    /// A node by name, UUID or resource ID, anything else by KIND/NAME or resource ID; may be repeated
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) resource: Vec<String>,
    /// The same without an option in front
    #[arg(value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    /// Roles to ask for
    #[arg(long, value_delimiter = ',', value_parser = RoleName::parse, value_name = "ROLE,...")]
    pub(crate) roles: Vec<RoleName>,
}

impl Asked {
    /// The resources, however they were given.
    pub(crate) fn named(&self) -> impl Iterator<Item = &String> {
        self.resource.iter().chain(&self.resources)
    }
}

/// What is asked for, why, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Wish {
    #[command(flatten)]
    pub(crate) asked: Asked,
    /// Why, for those who review
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Whom you suggest as reviewers
    #[arg(long, value_delimiter = ',', value_parser = UserName::parse, value_name = "USER,...")]
    pub(crate) reviewers: Vec<UserName>,
    /// How long the request may stay pending
    #[arg(long, value_parser = duration::parse, allow_hyphen_values = true, value_name = "DURATION")]
    pub(crate) request_ttl: Option<Duration>,
    /// How long a session under it may last
    #[arg(long, value_parser = duration::parse, allow_hyphen_values = true, value_name = "DURATION")]
    pub(crate) session_ttl: Option<Duration>,
    /// How long the access may last
    #[arg(long, value_parser = duration::parse, allow_hyphen_values = true, value_name = "DURATION")]
    pub(crate) max_duration: Option<Duration>,
    /// When the access starts, at most 7 days ahead
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub(crate) assume_start_time: Option<OffsetDateTime>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateRequest {
    #[command(flatten)]
    pub(crate) wish: Wish,
    /// File the request and leave
    #[arg(long)]
    pub(crate) nowait: bool,
    /// Bind the grant to one command, which --command names
    #[arg(
        long,
        value_enum,
        requires = "command",
        hide_possible_values = true,
        value_name = "command"
    )]
    pub(crate) scope: Option<ScopeName>,
    /// The one command, byte for byte as the session will give it
    #[arg(long, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Option<String>,
    /// Compute everything, write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// The scopes that a request can be narrowed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeName {
    /// One command.
    Command,
}

#[derive(Debug, Args)]
pub(crate) struct RequestLs {
    /// Only your own
    #[arg(long)]
    pub(crate) mine: bool,
    /// Only those you may review
    #[arg(long)]
    pub(crate) reviewable: bool,
    /// Only those that name you as a reviewer
    #[arg(long)]
    pub(crate) suggested: bool,
    /// Only those in these states
    #[arg(long, value_delimiter = ',', value_name = "STATE,...")]
    pub(crate) state: Vec<State>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct OneRequest {
    /// The request's ID, or at least its first 4 characters
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
#[group(id = "verdict", required = true, multiple = false, args = ["approve", "deny"])]
pub(crate) struct Review {
    /// The request's ID, or at least its first 4 characters
    pub(crate) id: String,
    /// Approve it
    #[arg(long)]
    pub(crate) approve: bool,
    /// Deny it
    #[arg(long)]
    pub(crate) deny: bool,
    #[command(flatten)]
    pub(crate) terms: ReviewTerms,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// What a reviewer says beside yes or no.
#[derive(Debug, Args)]
pub(crate) struct ReviewTerms {
    /// Why, for the requester
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Approve only these of the roles
    #[arg(long, value_delimiter = ',', value_parser = RoleName::parse, value_name = "ROLE,...")]
    pub(crate) roles: Vec<RoleName>,
    /// Approve only these of the resources; `root@iot` and `iot?logins=a,b` narrow to logins
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) resource: Vec<String>,
    /// Approve for no longer than this
    #[arg(long, value_parser = duration::parse, allow_hyphen_values = true, value_name = "DURATION")]
    pub(crate) max_duration: Option<Duration>,
    /// Approve not before then
    #[arg(long, value_parser = instant, value_name = "TIME")]
    pub(crate) assume_start_time: Option<OffsetDateTime>,
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

#[derive(Debug, Args)]
pub(crate) struct DropRequests {
    /// Which requests; without one, all that are active
    pub(crate) ids: Vec<String>,
    /// Give them up for good, with every key
    #[arg(long)]
    pub(crate) end: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Requests {
    /// List all requests
    Ls(RequestsLs),
    /// Show one request
    Get(OneRequest),
    /// File a request for somebody
    Create(CreateFor),
    /// Show what somebody can ask for
    Capabilities(Capabilities),
    /// Approve requests
    Approve(Decide),
    /// Deny requests, or take back what they granted
    Deny(Deny),
    /// Remove requests, ending what they granted
    Rm(RmRequests),
}

#[derive(Debug, Args)]
pub(crate) struct RequestsLs {
    /// Only those in these states
    #[arg(long, value_delimiter = ',', value_name = "STATE,...")]
    pub(crate) state: Vec<State>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct Decide {
    /// Which requests
    #[arg(required = true, value_delimiter = ',', value_name = "ID")]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) terms: ReviewTerms,
    #[command(flatten)]
    pub(crate) mandate: MandateArgs,
}

/// What is recorded with an administrator's decision.
#[derive(Debug, Args)]
pub(crate) struct MandateArgs {
    /// Attributes to keep with the decision
    #[arg(long, value_delimiter = ',', value_parser = annotation, value_name = "KEY=VALUE,...")]
    pub(crate) annotations: Vec<(String, String)>,
    /// On whose behalf you decide; never the requester's
    #[arg(long, value_parser = UserName::parse, value_name = "USER")]
    pub(crate) delegator: Option<UserName>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateFor {
    /// For whom
    #[arg(value_parser = UserName::parse)]
    pub(crate) user: UserName,
    #[command(flatten)]
    pub(crate) wish: Wish,
    /// Attributes for those who review
    #[arg(long, value_delimiter = ',', value_parser = annotation, value_name = "KEY=VALUE,...")]
    pub(crate) annotations: Vec<(String, String)>,
    /// Compute everything, write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct Capabilities {
    /// Whose
    #[arg(value_parser = UserName::parse)]
    pub(crate) user: UserName,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct Deny {
    /// Which requests
    #[arg(required = true, value_delimiter = ',', value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Why, for the requester
    #[arg(long)]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) mandate: MandateArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RmRequests {
    /// Which requests
    #[arg(required = true, value_delimiter = ',', value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Why, for the requester
    #[arg(long)]
    pub(crate) reason: Option<String>,
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

#[derive(Debug, Args)]
pub(crate) struct Help {
    /// The command, like `request create`
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List audit entries, oldest first
    Ls(AuditLs),
    /// Verify that nothing was changed, removed or added
    Verify(AuditVerify),
}

#[derive(Debug, Args)]
pub(crate) struct AuditLs {
    /// Only this event, like session.start
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<String>,
    /// Only what this user did
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only what belongs to this request
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// Only what belongs to this session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Only what concerns this node, by name or UUID
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// From this time on (RFC 3339), or from so long ago (like 2h)
    #[arg(long, value_parser = moment, value_name = "TIME|DURATION")]
    pub(crate) since: Option<Moment>,
    /// Before this time, or until so long ago
    #[arg(long, value_parser = moment, value_name = "TIME|DURATION")]
    pub(crate) until: Option<Moment>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerify {
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// A time, or how long before now it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    At(OffsetDateTime),
    Ago(Duration),
}

impl Moment {
    pub(crate) fn before(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now - ago,
        }
    }
}

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

#[derive(Debug, Args)]
pub(crate) struct Cert {
    /// The login on the node, like root@iot
    #[arg(value_name = "LOGIN@NODE")]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) documents: Documents,
    /// Replace what exists
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What: `roles`, `role/access`, `user/alice`, `node/iot`, `db/orders`, `locks`, or `all`
    #[arg(value_parser = object, value_name = "KIND[/NAME]")]
    pub(crate) what: Object,
    /// How to write the answer
    #[arg(short = 'f', long, value_enum, default_value_t = Format::Yaml, hide_possible_values = true, value_name = "yaml|json|text")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// What: `role/access`, `user/alice`, `node/iot`, `db/orders`, `lock/ID`
    #[arg(value_parser = named_object, value_name = "KIND/NAME")]
    pub(crate) what: Object,
}

/// What `get` and `rm` name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    pub(crate) name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Role,
    User,
    Node,
    Lock,
    MonitoringRule,
    Token,
    Resource(resource::Kind),
    All,
}

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

// Newtypes keep clap from reading `Option<Vec<T>>` as "any number of values": one value, a whole list.

/// A list of names given as one value, possibly empty.
#[derive(Debug, Clone)]
pub(crate) struct Names<T>(pub(crate) Vec<T>);
/// A list of `key=value` given as one value, possibly empty.
#[derive(Debug, Clone)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);
/// A list of networks given as one value, possibly empty.
#[derive(Debug, Clone)]
pub(crate) struct Cidrs(pub(crate) Vec<String>);

fn names<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Names<T>, String> {
    let parts = text.split(',').filter(|_| !text.is_empty());
    parts
        .map(|part| part.parse().map_err(|e: T::Err| e.to_string()))
        .collect::<Result<_, _>>()
        .map(Names)
}

fn labels(text: &str) -> Result<Pairs, String> {
    text.split(',')
        .filter(|_| !text.is_empty())
        .map(pair)
        .collect::<Result<_, _>>()
        .map(Pairs)
}

fn cidrs(text: &str) -> Result<Cidrs, String> {
    text.split(',')
        .filter(|_| !text.is_empty())
        .map(cidr)
        .collect::<Result<_, _>>()
        .map(Cidrs)
}

fn serial(text: &str) -> Result<u64, String> {
    anteroom_core::documents::parse_serial(text)
        .ok_or_else(|| "write the number that `ssh-keygen -L` shows, in decimal digits".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    if text.starts_with("anteroom/") {
        return Err(
            "labels that start with `anteroom/` are reserved; choose another key".to_owned(),
        );
    }
    let (key, value) = pair(text)?;
    if [&key, &value]
        .iter()
        .any(|part| part.chars().any(char::is_control))
    {
        return Err("labels are plain text; leave control characters out".to_owned());
    }
    Ok((key, value))
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

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write it as key=value, like env=staging")?;
    if key.is_empty() {
        return Err("the part before `=` is empty; write key=value, like env=staging".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// An attribute: one line each, and short, because it is shown with the request.
fn annotation(text: &str) -> Result<(String, String), String> {
    let (key, value) = pair(text)?;
    let limit = 256;
    if key.len() > limit || value.len() > limit {
        return Err(format!(
            "a key or value is longer than {limit} bytes; shorten it"
        ));
    }
    if key.chars().chain(value.chars()).any(char::is_control) {
        return Err("attributes are plain text; leave control characters out".to_owned());
    }
    Ok((key, value))
}

pub(crate) fn cidr(text: &str) -> Result<String, String> {
    const WRITE: &str = "write a network as 192.0.2.7/32 or 2001:db8::/64";
    let (address, bits) = text.split_once('/').ok_or(WRITE)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| WRITE)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|bits| *bits <= most)
        .ok_or(WRITE)?;
    Ok(format!("{address}/{bits}"))
}

fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "node" => Ok(Kind::Node),
        "kube_resource" => Ok(Kind::KubeResource),
        text => resource::Kind::of_word(text)
            .map(Kind::Registered)
            .ok_or_else(|| {
                "there is no such kind; write node, db, app, kube_cluster, kube_resource or windows_desktop"
                    .to_owned()
            }),
    }
}

fn instant(text: &str) -> Result<OffsetDateTime, String> {
    say::parse_rfc3339(text)
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(Moment::Ago(ago));
    }
    instant(text)
        .map(Moment::At)
        .map_err(|_| "write a time like 2026-06-23T18:25:00Z, or how long ago, like 2h".to_owned())
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

fn object(text: &str) -> Result<Object, String> {
    let (word, name) = match text.split_once('/') {
        Some((word, name)) => (word, Some(name)),
        None => (text, None),
    };
    let kind = match word {
        "role" | "roles" => ObjectKind::Role,
        "user" | "users" => ObjectKind::User,
        "node" | "nodes" => ObjectKind::Node,
        "lock" | "locks" => ObjectKind::Lock,
        "token" | "tokens" => ObjectKind::Token,
        "access_monitoring_rule" | "access_monitoring_rules" => ObjectKind::MonitoringRule,
        "all" if name.is_none() => ObjectKind::All,
        word => {
            // `dbs` as `roles`.
            let one = word.strip_suffix('s').unwrap_or(word);
            let kind = resource::Kind::of_word(word).or_else(|| resource::Kind::of_word(one));
            kind.map(ObjectKind::Resource).ok_or(
                "write role, user, node, lock, token, access_monitoring_rule, app, db, kube_cluster or windows_desktop, alone or with a name, like role/access",
            )?
        }
    };
    match name {
        Some("") => Err("the name after `/` is missing".to_owned()),
        Some(name) => Ok(Object {
            kind,
            name: Some(name.to_owned()),
        }),
        None => Ok(Object { kind, name: None }),
    }
}

fn named_object(text: &str) -> Result<Object, String> {
    let object = object(text)?;
    match object.name {
        Some(_) => Ok(object),
        None => Err("say which one, like role/access".to_owned()),
    }
}

/// Where documents are, one way or the other.
#[derive(Debug, Args)]
#[group(id = "documents", required = true, multiple = false)]
pub(crate) struct Documents {
    /// The documents: a file, or `-` for standard input
    #[arg(short = 'f', long = "file", value_name = "FILE|-")]
    file: Option<String>,
    /// The same without an option in front
    #[arg(value_name = "FILE")]
    path: Option<String>,
}

impl Documents {
    /// The file; one of the two is given.
    pub(crate) fn path(&self) -> Option<&String> {
        self.file.as_ref().or(self.path.as_ref())
    }
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
                | Nodes::TunnelUnit(_),
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
