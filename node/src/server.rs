//! Sessions on this machine: an SSH server for what comes through the tunnel, as a stock sshd would serve it.
//!
//! ```text
//!  serve(stream) ──► Front: certificate ─ ca::node::verify ─► Account ─► Login
//!                      │ session channel: env, pty, then exec, shell or sftp
//!                      ▼
//!                    Session ── Order, on its standard input ──► helper: becomes the user, then the program
//!                      │ bytes both ways, window, signals            (a process of its own)
//!                      ▼
//!                    status, and what is left of the session is ended
//! ```
//!
//! The agent itself never becomes another user: each program is started by a small process that this same
//! executable is ([`helper_main`]), which gives up every privilege before anything of the user's runs.

mod account;
mod accounting;
mod agent_socket;
mod child;
mod environment;
mod forward;
mod front;
mod helper;
mod order;
mod processes;
mod session;
mod sftp;
mod signals;
mod statements;
mod terminal;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_ca::krl::Revoked;
use anteroom_core::id::NodeId;
use anteroom_ssh::{Limits, ServerConfig};
use arc_swap::ArcSwap;
use ssh_key::{Certificate, PrivateKey, PublicKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tracing::{info, warn};

use front::Front;

pub use helper::helper_main;

/// Connections at once. Each holds at most a few MiB and ten sessions; whoever comes beyond is turned away,
/// so that a flood cannot take the machine.
const MOST_CONNECTIONS: usize = 256;

/// Connections of one person at once, of those: the proxy makes one for each session and some for forwards.
const MOST_OF_A_PERSON: usize = 96;

/// How long a connection may be silent before it is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How long [`Server::end_sessions`] waits: the five seconds that programs have, and some.
const LONGEST_END: Duration = Duration::from_secs(10);

/// Whom sessions are served to, and as which node. It may change while the agent runs: a rotation of the
/// authority, a new revocation list, a renewed certificate.
#[derive(Debug, Clone)]
pub struct Trust {
    /// This node's UUID, which is in every principal that opens it.
    pub node_id: NodeId,
    /// Node CAs: what they sign opens sessions. An empty list opens nothing.
    pub node_ca: Vec<PublicKey>,
    /// What they signed and is refused nevertheless.
    pub revoked: Revoked,
    /// The node's host key.
    pub host_key: PrivateKey,
    /// Its certificate, shown before the bare key.
    pub host_certificate: Option<Certificate>,
}

/// How sessions are served; does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Options {
    /// The program that starts sessions, with its arguments: one that does nothing but
    /// [`helper_main`]. This very executable, as a rule.
    pub helper: Vec<std::ffi::OsString>,
    /// Names of environment variables that a client may set besides `LANG` and `LC_*`; a `*` at the end
    /// stands for any rest.
    pub accept_env: Vec<String>,
    /// Whether the agent serves SFTP itself also where an `sftp-server` is installed.
    pub own_sftp: bool,
    /// Bounds of one connection.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        // The link leads to the file that runs, also after an update has put another in its place.
        let helper = ["/proc/self/exe", "node", HELPER].map(Into::into).into();
        Self {
            helper,
            accept_env: Vec::new(),
            own_sftp: false,
            limits: Limits::default(),
        }
    }
}

/// The hidden subcommand of `anteroom node` that is [`helper_main`].
const HELPER: &str = "session-helper";

/// Whether this process was started to be [`helper_main`], by [`Options::default`]'s command. To be asked
/// before anything else is done: a session waits.
pub fn is_helper(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> bool {
    arguments.into_iter().skip(1).eq(["node", HELPER])
}

/// Where a connection comes from and arrives, as programs are told in `SSH_CONNECTION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The other end.
    pub remote: SocketAddr,
    /// Ours.
    pub local: SocketAddr,
}

impl Peer {
    /// What comes through the tunnel counts as coming from this machine to its port 22, as it would if
    /// `ssh -R 0:localhost:22` had brought it to an sshd.
    pub fn tunnel() -> Self {
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            remote: SocketAddr::new(loopback, 0),
            local: SocketAddr::new(loopback, 22),
        }
    }
}

/// Serves sessions; one for all connections.
pub struct Server {
    trusted: ArcSwap<Trusted>,
    options: Options,
    places: Semaphore,
    connections: AtomicU64,
    /// How many connections a person has, by her name, or by the key ID of a certificate that has none.
    persons: Mutex<HashMap<String, usize>>,
    /// How many sessions there are, and whether they are to end.
    sessions: watch::Sender<usize>,
    closing: watch::Sender<bool>,
}

/// The trust, and how a connection that begins under it presents this node.
struct Trusted {
    trust: Trust,
    config: Arc<ServerConfig>,
}

impl Server {
    /// Ready to serve. Says in the log where sessions will be less than a stock sshd's.
    pub fn new(trust: Trust, options: Options) -> Arc<Self> {
        for sentence in statements::statements(&options) {
            info!("{sentence}");
        }
        Arc::new(Self {
            trusted: ArcSwap::from_pointee(Trusted::new(trust, &options)),
            options,
            places: Semaphore::new(MOST_CONNECTIONS),
            connections: AtomicU64::new(0),
            persons: Mutex::default(),
            sessions: watch::Sender::new(0),
            closing: watch::Sender::new(false),
        })
    }

    /// Judges whoever logs in from now on by another trust; those who are in have been judged already.
    pub fn set_trust(&self, trust: Trust) {
        self.trusted
            .store(Arc::new(Trusted::new(trust, &self.options)));
    }

    /// Changes a part of the trust.
    pub fn change_trust(&self, change: impl FnOnce(&mut Trust)) {
        let mut trust = self.trusted.load().trust.clone();
        change(&mut trust);
        self.set_trust(trust);
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        *self.sessions.borrow()
    }

    /// Ends all sessions as if their clients had gone: to be waited for before the agent ends, since nobody
    /// else would end their processes. Takes some seconds where programs do not listen, and no longer.
    pub async fn end_sessions(&self) {
        self.closing.send_replace(true);
        let mut sessions = self.sessions.subscribe();
        let all = sessions.wait_for(|sessions| *sessions == 0);
        if tokio::time::timeout(LONGEST_END, all).await.is_err() {
            warn!("{} sessions did not end", self.sessions());
        }
    }

    /// Returns when sessions are to end.
    fn closing(&self) -> impl Future<Output = ()> + use<> {
        let mut closing = self.closing.subscribe();
        async move {
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }

    /// Counts a connection of a person's until it is dropped. `None` if she has too many.
    fn admit(self: &Arc<Self>, person: String) -> Option<Admitted> {
        let mut persons = self.persons.lock().unwrap_or_else(PoisonError::into_inner);
        let count = persons.entry(person.clone()).or_default();
        if *count >= MOST_OF_A_PERSON {
            return None;
        }
        *count += 1;
        Some(Admitted {
            server: Arc::clone(self),
            person,
        })
    }

    /// Counts a session until it is dropped.
    fn count(self: &Arc<Self>) -> Counted {
        self.sessions.send_modify(|sessions| *sessions += 1);
        Counted(Arc::clone(self))
    }

    /// What is trusted now.
    pub fn trust(&self) -> Trust {
        self.trusted.load().trust.clone()
    }
}

/// A person's connection.
struct Admitted {
    server: Arc<Server>,
    person: String,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let persons = self.server.persons.lock();
        let mut persons = persons.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = persons.get_mut(&self.person) {
            *count -= 1;
            if *count == 0 {
                persons.remove(&self.person);
            }
        }
    }
}

struct Counted(Arc<Server>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.send_modify(|sessions| *sessions -= 1);
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").finish_non_exhaustive()
    }
}

impl Trusted {
    fn new(trust: Trust, options: &Options) -> Self {
        let config = ServerConfig::new(
            vec![trust.host_key.clone()],
            trust.host_certificate.iter().cloned().collect(),
            KEEPALIVE,
            options.limits.clone(),
        );
        Self {
            config: Arc::new(config),
            trust,
        }
    }
}

/// Serves one SSH connection that came through the tunnel, until it is over.
pub async fn serve<S>(stream: S, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_from(stream, Peer::tunnel(), server).await;
}

/// Serves one SSH connection from `peer`, until it is over.
pub async fn serve_from<S>(stream: S, peer: Peer, server: Arc<Server>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    take_signals_back();
    let Ok(_place) = server.places.try_acquire() else {
        warn!("a connection is turned away: {MOST_CONNECTIONS} are open already");
        return;
    };
    let number = server.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let config = Arc::clone(&server.trusted.load().config);
    let front = Front::new(number, peer, Arc::clone(&server));
    match anteroom_ssh::serve(stream, config, front).await {
        Ok(_) => info!(connection = number, "connection ended"),
        Err(error) => info!(connection = number, %error, "connection ended"),
    }
}

/// A signal that this process ignores, because whoever started it did, would be ignored by every user's
/// program as well: Ctrl-C would do nothing. One that is received is as usual in programs that are started.
fn take_signals_back() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        for number in 1..32 {
            // The standard library sees to broken pipes.
            let is_ignored = mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1);
            if is_ignored && number != nix::libc::SIGPIPE {
                let kind = tokio::signal::unix::SignalKind::from_raw(number);
                // Nobody waits for it: it is received and that is all.
                let _ = tokio::signal::unix::signal(kind);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_person_does_not_take_all_connections() {
        let key = PrivateKey::random(&mut rand::rng(), ssh_key::Algorithm::Ed25519).unwrap();
        let trust = Trust {
            node_id: NodeId::parse("b1168402-9340-421a-a344-af66a6675738").unwrap(),
            node_ca: Vec::new(),
            revoked: Revoked::nothing(),
            host_key: key,
            host_certificate: None,
        };
        let server = Server::new(trust, Options::default());
        let admit = |name: &str| server.admit(name.to_owned());
        let mut held: Vec<_> = (0..MOST_OF_A_PERSON)
            .filter_map(|_| admit("alice"))
            .collect();
        assert_eq!(held.len(), MOST_OF_A_PERSON);
        assert!(admit("alice").is_none());
        assert!(admit("bob").is_some());
        held.pop();
        assert!(admit("alice").is_some());
        held.clear();
        assert!(server.persons.lock().unwrap().is_empty());
    }
}
