//! Administration: a command line in, an answer and an exit status out. The same commands arrive over SSH (`ssh access COMMAND`) and
//! over the control socket (`anteroom ctl COMMAND`).
//!
//! ```text
//!  exec string ─► CommandLine ─► args (one definition) ─► Run: may she? ─► State ─► say ─► CommandIo
//!  ctl.sock ────► ctl ─────────┘
//! ```
//!
//! Promises:
//! * What is printed went through `say`: nothing that a peer wrote reaches a terminal raw.
//! * A user sees what concerns her: her own requests, those she may review, nodes she can use or ask for. What she may not know of is
//!   answered as if it did not exist.
//! * Administration is for callers whose stored roles' `rules` allow it, and refusals of it are in the audit log.
//!
//! The rules themselves are in `anteroom-core`, the writing in `state`; where a command's bytes come from and go to is behind
//! [`CommandIo`].

mod agent;
mod allow;
mod args;
mod audit_log;
mod authorities;
mod certificates;
mod check;
mod config;
pub mod ctl;
mod documents;
mod explain;
mod free_text;
mod help;
mod io;
mod keys;
mod line;
mod locks;
mod login;
mod mfa;
mod monitoring;
mod nodes;
mod nodes_admin;
mod objects;
mod proof;
mod query;
mod requests;
mod requests_admin;
mod resources;
mod rotation;
mod run;
mod sessions;
mod status;
#[cfg(test)]
mod tests;
mod tokens;
mod users;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anteroom_ca::names::HostNames;
use anteroom_core::id::Login;
use anteroom_core::node::{Node, NodeAddr};
use ssh_key::PublicKey;

use crate::audit::{Entry, Event};
use crate::authority::{AuthorityKind, Rotator};
use crate::exit::Exit;
use crate::listings::Listings;
use crate::live::Sessions;
use crate::mfa::{Recent, Sealer};
use crate::say::{self, LineEnd};
use crate::state::{By, ProbeError, State};
use crate::tunnels::Tunnels;
use crate::vitals::Pulse;
use crate::waiting::Waiting;

use self::args::Command;
use self::args::allow::Allows;
use self::args::audit::Audit;
use self::args::authorities::Auth;
use self::args::locks::Locks;
use self::args::nodes::{Nodes, Tokens};
use self::args::person::Mfa;
use self::args::requests::{Request, Requests};
use self::args::sessions::Sessions as SessionsCommand;
use self::args::users::Users;
pub(crate) use self::certificates::admitted_names;
pub(crate) use self::check::Checked;
pub use self::io::{
    AgentStream, Caller, CommandIo, Duplex, FileAnswer, Gone, Leave, NoAgent, StdinError,
    TerminalSize, Typed,
};
pub(crate) use self::keys::one_host_key;
use self::line::Parsed;
pub use self::line::{Channel, CommandLine, LONGEST_LINE, MOST_WORDS, UsageError};
pub use self::requests::exit_of;
use self::run::{Ended, Logged, Refusal, Run, Stop};

/// What the commands work with besides the state. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// Users, roles, nodes, requests, the log.
    pub state: State,
    /// How clients reach this proxy, for `config`.
    pub place: Arc<Place>,
    /// Asks a node for its host keys.
    pub scanner: Arc<dyn Scanner>,
    /// Asks a node what it would take; `None` where nothing is dialled.
    pub(crate) checker: Option<Arc<dyn Checker>>,
    /// Who waits for which request now.
    pub waiting: Waiting,
    /// How many listings are under way.
    pub listings: Listings,
    /// The sessions that live.
    pub sessions: Sessions,
    /// The nodes that are connected by themselves.
    pub tunnels: Arc<Tunnels>,
    /// How the proxy is; `None` where there is none.
    pub pulse: Option<Pulse>,
    /// Turns the certificate authorities; `None` where there are no key files.
    pub rotator: Option<Arc<Rotator>>,
    /// Keeps second factors.
    pub second_factors: SecondFactorContext,
}

/// What second factors are kept with.
#[derive(Debug, Clone)]
pub struct SecondFactorContext {
    /// Seals their secrets.
    pub sealer: Arc<Sealer>,
    /// Those that were given a moment ago.
    pub recent: Arc<Recent>,
}

/// How clients reach this proxy.
#[derive(Debug, Clone)]
pub struct Place {
    /// The host name or address that clients connect to.
    pub host: String,
    /// The port that clients connect to.
    pub port: u16,
    /// The names of the proxy, and the domains of its nodes.
    pub names: HostNames,
    /// The proxy's own host key.
    pub host_key: PublicKey,
}

/// Asks an SSH server for its host keys, as `ssh-keyscan` does: a hook, because only the SSH layer speaks the protocol.
pub trait Scanner: std::fmt::Debug + Send + Sync {
    /// The host keys that `addr` shows, of every type it has. The implementation bounds the time. An error is one sentence without a full stop.
    fn scan<'a>(
        &'a self,
        addr: &'a NodeAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<PublicKey>, String>> + Send + 'a>>;
}

/// Why something that is handed out can't be had: the exit status and the sentence.
pub(crate) type NotHad = (Exit, String);

fn not_had(stop: Stop) -> NotHad {
    match stop {
        Stop::Gone => (Exit::Failed, String::new()),
        Stop::Refused(refusal) => (refusal.exit, refusal.text),
    }
}

/// The revocation list, as sshd's `RevokedKeys` reads it.
///
/// # Errors
/// [`NotHad`].
pub(crate) async fn revocation_list(ctx: &Context) -> Result<Vec<u8>, NotHad> {
    certificates::revocation_list(ctx).await.map_err(not_had)
}

/// The same without its edition, to compare it by, and with it.
pub(crate) async fn revocations_now(state: &State) -> Result<(Vec<u8>, Vec<u8>), NotHad> {
    certificates::revocations_now(state).await.map_err(not_had)
}

/// The node CAs that are trusted now, as lines of OpenSSH's public format.
///
/// # Errors
/// [`NotHad`].
pub(crate) fn node_authorities(ctx: &Context) -> Result<Vec<String>, NotHad> {
    authorities::authorized_keys(ctx, AuthorityKind::Node).map_err(not_had)
}

/// The host CAs that are trusted now, likewise.
///
/// # Errors
/// [`NotHad`].
pub(crate) fn host_authorities(ctx: &Context) -> Result<Vec<String>, NotHad> {
    authorities::authorized_keys(ctx, AuthorityKind::Host).map_err(not_had)
}

/// The public host keys of a text, or why they are none.
pub(crate) fn host_keys(text: &str) -> Result<Vec<keys::CheckedKey>, String> {
    keys::parse_all(text).map_err(|error| error.to_string())
}

/// Asks a node whether it would take certificates for these logins, without logging in: a hook as [`Scanner`] is.
pub(crate) trait Checker: std::fmt::Debug + Send + Sync {
    /// What is found, for the administrator `by`. The implementation bounds the time.
    fn check<'a>(
        &'a self,
        by: &'a By,
        node: Arc<Node>,
        logins: Vec<Login>,
    ) -> Pin<Box<dyn Future<Output = Result<Checked, ProbeError>> + Send + 'a>>;
}

/// Runs a command and returns the status it ends with.
///
/// Everything it has to say goes to `io`. Dropping the future gives the command up at its next wait; what was given to the state until then is
/// done all the same.
pub async fn run(
    ctx: &Context,
    caller: Caller,
    line: CommandLine,
    io: &mut impl CommandIo,
) -> Exit {
    let mut run = Run {
        ctx,
        caller: &caller,
        io,
        stdin_taken: false,
    };
    match command(&mut run, &line).await {
        Ok(exit) => exit,
        // The status goes nowhere, but it is the one that a script would expect of a broken pipe.
        Err(Stop::Gone) => Exit::Failed,
        Err(Stop::Refused(refusal)) => refused(&mut run, &line, refusal).await,
    }
}

/// Says a usage error that arose before there was a command line to run.
pub async fn say_usage_error(error: &UsageError, io: &mut impl CommandIo) -> Exit {
    // Who is gone is told nothing, and the status is the same.
    let _ = io
        .stderr(say::lines(&format!("ERROR: {error}"), LineEnd::Lf))
        .await;
    Exit::Usage
}

async fn refused<I: CommandIo>(run: &mut Run<'_, I>, line: &CommandLine, refusal: Refusal) -> Exit {
    if refusal.exit == Exit::Denied && refusal.logged == Logged::NotYet {
        let entry = Entry::failed(Event::Admin, &refusal.text).command(line.to_text());
        let entry = match run.caller {
            Caller::Ssh {
                identity,
                remote_addr,
            } => entry
                .user(identity.user())
                .key(identity.key())
                .remote_addr(remote_addr),
            Caller::Local => entry.user(anteroom_core::request::Actor::LocalAdministrator),
        };
        // It is refused either way; the store says by itself in the log when it can't write.
        let _ = run.ctx.state.audit(entry).await;
    }
    let _ = run.note(&format!("ERROR: {}", refusal.text)).await;
    refusal.exit
}

async fn command<I: CommandIo>(run: &mut Run<'_, I>, line: &CommandLine) -> Ended {
    run.admit()?;
    let parsed = line.parse(run.channel()).map_err(Stop::usage)?;
    match parsed {
        Parsed::Nothing => run.summary().await,
        Parsed::Help(command) => run.help(&command).await,
        Parsed::Command(command) => {
            run.require_proof(&command)?;
            dispatch(run, *command).await
        }
    }
}

/// Whether the answer may be long, so that it is given in turn.
fn lists(command: &Command) -> bool {
    match command {
        Command::Ls(_)
        | Command::Get(_)
        | Command::Audit(_)
        | Command::Auth(_)
        | Command::Request(Request::Search(_) | Request::Ls(_) | Request::Allows(Allows::Ls(_)))
        | Command::Requests(Requests::Ls(_))
        | Command::Users(Users::Ls(_))
        | Command::Nodes(Nodes::Ls(_))
        | Command::Tokens(Tokens::Ls(_))
        | Command::Sessions(SessionsCommand::Ls(_))
        | Command::Locks(Locks::Ls(_)) => true,
        Command::Request(_)
        | Command::Requests(_)
        | Command::Users(_)
        | Command::Nodes(_)
        | Command::Locks(_)
        | Command::Sessions(_)
        | Command::Tokens(_)
        | Command::Login(_)
        | Command::Status(_)
        | Command::Whoami(_)
        | Command::Explain(_)
        | Command::Config(_)
        | Command::Help(_)
        | Command::Version
        | Command::Create(_)
        | Command::Rm(_)
        | Command::Cert(_)
        | Command::Mfa(_)
        | Command::Lock(_) => false,
    }
}

async fn dispatch<I: CommandIo>(run: &mut Run<'_, I>, command: Command) -> Ended {
    let _turn = if lists(&command) {
        run.turn_at_listing().await?
    } else {
        None
    };
    match command {
        Command::Ls(args) => run.ls(&args).await,
        Command::Request(command) => match command {
            Request::Search(args) => run.search(&args).await,
            Request::Create(args) => run.create_request(args).await,
            Request::Ls(args) => run.request_ls(&args).await,
            Request::Show(args) => run.request_show(&args).await,
            Request::Review(args) => run.review(args).await,
            Request::Drop(args) => run.drop_requests(&args).await,
            Request::Assume(args) => run.assume(&args).await,
            Request::Cancel(args) => run.cancel(&args).await,
            Request::Approve(args) => run.requests_approve(args).await,
            Request::Deny(args) => run.requests_deny(&args).await,
            Request::Allow(args) => run.allow(args).await,
            Request::Allows(Allows::Ls(args)) => run.allows_ls(&args).await,
            Request::Allows(Allows::Rm(args)) => run.allows_rm(&args).await,
        },
        Command::Requests(command) => match command {
            Requests::Ls(args) => run.requests_ls(&args).await,
            Requests::Get(args) => run.requests_get(&args).await,
            Requests::Create(args) => run.requests_create(args).await,
            Requests::Capabilities(args) => run.requests_capabilities(&args).await,
            Requests::Approve(args) => run.requests_approve(args).await,
            Requests::Deny(args) => run.requests_deny(&args).await,
            Requests::Rm(args) => run.requests_rm(&args).await,
        },
        Command::Login(args) => run.login(args).await,
        Command::Mfa(command) => match command {
            Mfa::Add(args) => run.mfa_add(args).await,
            Mfa::Ls(args) => run.mfa_ls(&args).await,
            Mfa::Rm(args) => run.mfa_rm(args).await,
        },
        Command::Status(args) => run.status(args).await,
        Command::Whoami(args) => run.whoami(args).await,
        Command::Explain(args) => run.explain(&args).await,
        Command::Config(args) => run.config(&args).await,
        Command::Help(args) => run.help(&args.command).await,
        Command::Version => run.version().await,
        Command::Audit(Audit::Ls(args)) => run.audit_ls(&args).await,
        Command::Audit(Audit::Export(args)) => run.audit_export(&args).await,
        Command::Audit(Audit::Verify(args)) => run.audit_verify(args.listing).await,
        Command::Users(command) => match command {
            Users::Add(args) => run.users_add(args).await,
            Users::Ls(args) => run.users_ls(args).await,
            Users::Show(args) => run.users_show(&args).await,
            Users::Update(args) => run.users_update(args).await,
            Users::Rm(args) => run.users_rm(&args).await,
            Users::Lock(args) => run.users_lock(args).await,
            Users::Unlock(args) => run.users_unlock(&args).await,
        },
        Command::Nodes(command) => match command {
            Nodes::Add(args) => run.nodes_add(args).await,
            Nodes::Ls(args) => run.nodes_ls(&args).await,
            Nodes::Show(args) => run.nodes_show(&args).await,
            Nodes::Rm(args) => run.nodes_rm(&args).await,
            Nodes::Update(args) => run.nodes_update(args).await,
            Nodes::Rekey(args) => run.nodes_rekey(args).await,
            Nodes::SshdConfig(args) => run.sshd_config(&args).await,
            Nodes::HostCert(args) => run.host_cert(&args).await,
            Nodes::Check(args) => run.nodes_check(&args).await,
            Nodes::TunnelUnit(args) => run.tunnel_unit(&args).await,
            Nodes::Renewal(args) => run.renewal(&args).await,
        },
        Command::Tokens(command) => match command {
            Tokens::Add(args) => run.tokens_add(args).await,
            Tokens::Ls(listing) => run.tokens_ls(listing).await,
            Tokens::Rm(args) => run.tokens_rm(&args).await,
        },
        Command::Sessions(SessionsCommand::Ls(args)) => run.sessions_ls(args).await,
        Command::Sessions(SessionsCommand::Kill(args)) => run.sessions_kill(&args).await,
        Command::Create(args) => run.create(&args).await,
        Command::Get(args) => run.get(&args).await,
        Command::Rm(args) => run.rm(&args).await,
        Command::Auth(Auth::Export(args)) => run.auth_export(&args).await,
        Command::Auth(Auth::Rotate(args)) => run.auth_rotate(&args).await,
        Command::Auth(Auth::Status(args)) => run.auth_status(args).await,
        Command::Cert(args) => run.cert(&args).await,
        Command::Lock(args) => run.lock(args).await,
        Command::Locks(Locks::Ls(args)) => run.locks_ls(args).await,
        Command::Locks(Locks::Rm(args)) => run.locks_rm(&args).await,
    }
}
