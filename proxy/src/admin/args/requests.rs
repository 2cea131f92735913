//! `request` and `requests`: what is asked for, reviewed, decided and taken up.

use anteroom_core::duration;
use anteroom_core::id::{RoleName, UserName};
use anteroom_core::request::State;
use clap::{Args, Subcommand, ValueEnum};
use time::{Duration, OffsetDateTime};

use super::Listing;
use super::allow::{Allow, Allows};
use super::search::Search;
use super::values::{annotation, instant};

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
