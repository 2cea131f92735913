//! `anteroom node run`: a tunnel to each proxy, kept up until the agent is told to end.
//!
//! ```text
//!  run ──► keep(proxy) ──► tunnel::stand: connect, verify, log in, forward, control channel
//!    │        ▲    │                        │ sessions ──► Sessions::serve, each a task
//!    │        └────┴── pause (Backoff)      │ messages ──► Agent::change ──► disk, then in effect
//!    └── labels, signals, systemd
//! ```

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_ssh::ChannelStream;
use ssh_key::PrivateKey;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::config::{self, Config, ConfigError};
use crate::dir::{DirError, StateDir};
use crate::identity::Identity;
use crate::labels::{self, Labels};
use crate::notify::Notify;
use crate::server::{self, Server, Trust};
use crate::tunnel::{self, Parted};

/// Who serves the sessions that come through the tunnel.
pub trait Sessions: Send + Sync + 'static {
    /// Serves one SSH connection until it is over. Ends soon after the stream does.
    fn serve(self: Arc<Self>, stream: ChannelStream) -> impl Future<Output = ()> + Send;

    /// Whom to trust, and as which node to serve, from now on.
    fn trust(&self, identity: &Identity);

    /// Ends what is served, with all that it started; within seconds.
    fn end(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

impl Sessions for Server {
    async fn serve(self: Arc<Self>, stream: ChannelStream) {
        server::serve(stream, self).await;
    }

    fn trust(&self, identity: &Identity) {
        self.set_trust(trust(identity));
    }

    async fn end(&self) {
        self.end_sessions().await;
    }
}

/// What the sessions of this machine are served with.
#[must_use]
pub fn trust(identity: &Identity) -> Trust {
    let certificate = &identity.host_certificate;
    // While the certificate for a new key is on its way there is none.
    let is_for_key = certificate.public_key() == identity.host_key.public_key().key_data();
    Trust {
        node_id: identity.node_id,
        node_ca: identity.node_ca.clone(),
        revoked: identity.krl.revoked().clone(),
        host_key: PrivateKey::clone(&identity.host_key),
        host_certificate: is_for_key.then(|| certificate.clone()),
    }
}

/// What `node run` is told.
#[derive(Debug, Default)]
pub struct Options {
    /// Where the identity is kept.
    pub dir: PathBuf,
    /// The configuration, if it is another file than `node.yaml` in that directory.
    pub config: Option<PathBuf>,
}

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The directory.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
}

/// The agent, as its tunnels see it.
pub(crate) struct Agent<S> {
    dir: StateDir,
    identity: Mutex<Identity>,
    pub(crate) sessions: Arc<S>,
    pub(crate) said: watch::Sender<Labels>,
    stopping: watch::Sender<bool>,
    /// One renewal at a time, by whichever tunnel comes first.
    pub(crate) renewing: Arc<tokio::sync::Mutex<()>>,
    up: AtomicUsize,
    notify: Notify,
}

impl<S: Sessions> Agent<S> {
    pub(crate) fn new(dir: StateDir, identity: Identity, sessions: Arc<S>, notify: Notify) -> Self {
        sessions.trust(&identity);
        Agent {
            dir,
            identity: Mutex::new(identity),
            sessions,
            said: watch::Sender::default(),
            stopping: watch::Sender::default(),
            renewing: Arc::default(),
            up: AtomicUsize::new(0),
            notify,
        }
    }

    pub(crate) fn dir(&self) -> &StateDir {
        &self.dir
    }

    pub(crate) fn identity(&self) -> Identity {
        let identity = self.identity.lock();
        identity.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the identity: on disk first, then for the sessions that begin from now on. Whether it was
    /// another before.
    pub(crate) fn change<E: From<DirError>>(
        &self,
        change: impl FnOnce(&mut Identity) -> Result<(), E>,
    ) -> Result<bool, E> {
        // Held while the disk is written: two tunnels' changes must not undo each other.
        let mut present = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = present.clone();
        change(&mut changed)?;
        if changed == *present {
            return Ok(false);
        }
        self.dir.store(&changed)?;
        self.sessions.trust(&changed);
        *present = changed;
        Ok(true)
    }

    /// Returns when the agent is to end.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as the agent.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
    }

    /// A tunnel stands, until the result is dropped.
    pub(crate) fn up(self: &Arc<Self>) -> Up<S> {
        self.up.fetch_add(1, Ordering::AcqRel);
        self.tell();
        Up(Arc::clone(self))
    }

    fn tell(&self) {
        let (up, all) = (
            self.up.load(Ordering::Acquire),
            self.identity().proxies.len(),
        );
        self.notify
            .say(&format!("STATUS=tunnels up: {up} of {all}"));
    }
}

/// See [`Agent::up`].
pub(crate) struct Up<S: Sessions>(Arc<Agent<S>>);

impl<S: Sessions> Drop for Up<S> {
    fn drop(&mut self) {
        self.0.up.fetch_sub(1, Ordering::AcqRel);
        self.0.tell();
    }
}

/// Runs until SIGTERM or SIGINT; SIGHUP reads the configuration again.
///
/// # Errors
/// [`RunError`] if it cannot start. Once it runs, it ends by signal only.
pub async fn run<S: Sessions>(
    options: &Options,
    serve: impl FnOnce(&Identity, &Config) -> Arc<S>,
    notify: Notify,
) -> Result<(), RunError> {
    // No core dump holds the host key, and nobody of the same user reads it from our memory.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!("core dumps cannot be forbidden: {error}");
    }
    let dir = StateDir::open(&options.dir)?;
    let missing = DirError::NotJoined(options.dir.clone());
    let identity = dir.load()?.ok_or(missing)?;
    let mut config = load(options, &dir)?;
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    say_privileges();
    let sessions = serve(&identity, &config);
    let (node, name) = (identity.node_id, identity.name.clone());
    tracing::info!(%node, name, cluster = identity.cluster, "node agent {}", env!("CARGO_PKG_VERSION"));
    let agent = Arc::new(Agent::new(dir, identity, sessions, notify));
    let given = agent.identity().labels;
    let mut runner = labels::start(&given, &config, &agent.said);
    let mut tunnels = JoinSet::new();
    for index in 0..agent.identity().proxies.len() {
        tunnels.spawn(keep(Arc::clone(&agent), index));
    }
    agent.notify.say("READY=1");
    let pulse = pulse(&agent.notify);
    tokio::pin!(pulse);
    loop {
        tokio::select! {
            () = &mut pulse => {}
            told = signals.next() => match told {
                Told::End => break,
                Told::Reload => match load(options, agent.dir()) {
                    Ok(read) if read == config => tracing::info!("the configuration is as it was"),
                    Ok(read) => {
                        // Stopped before the others start, or they might say what was taken out.
                        drop(runner);
                        config = read;
                        runner = labels::start(&given, &config, &agent.said);
                        tracing::info!("the configuration was read again");
                    }
                    Err(error) => tracing::error!("the configuration stays as it was: {error}"),
                },
            }
        }
    }
    agent.notify.say("STOPPING=1");
    tracing::info!("ending");
    agent.stopping.send_replace(true);
    // Each has its own bound for that.
    while tunnels.join_next().await.is_some() {}
    // Their sessions are cut by now; nobody but the agent ends what they ran.
    agent.sessions.end().await;
    drop(runner);
    Ok(())
}

/// The configuration; the usual file may be missing.
fn load(options: &Options, dir: &StateDir) -> Result<Config, ConfigError> {
    let usual = dir.config();
    match &options.config {
        Some(named) => config::load(named),
        None if usual.exists() => config::load(&usual),
        None => Ok(Config::default()),
    }
}

/// Tells systemd that the agent lives, as often as it wants to hear it.
async fn pulse(notify: &Notify) {
    let Some(every) = notify.watchdog() else {
        return std::future::pending().await;
    };
    loop {
        notify.say("WATCHDOG=1");
        sleep(every).await;
    }
}

/// What the agent may do, and what it does with it.
fn say_privileges() {
    if nix::unistd::geteuid().is_root() {
        tracing::info!(
            "running as root, which is used to become the user of a session (setgid, initgroups, setuid), to give \
             him his terminal, and to record logins; label commands run as root as well"
        );
    } else {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten();
        let user = user.map_or_else(|| "this user".to_owned(), |user| user.name);
        tracing::info!("running without privileges: only sessions as {user} are possible");
    }
}

/// Keeps one tunnel up.
async fn keep<S: Sessions>(agent: Arc<Agent<S>>, index: usize) {
    let mut backoff = Backoff::default();
    while !*agent.stopping.borrow() {
        let Some(proxy) = agent.identity().proxies.get(index).cloned() else {
            return;
        };
        let (parted, stood) = tunnel::stand(&agent, index, &proxy).await;
        if matches!(parted, Parted::Stopped) {
            return;
        }
        if parted.is_refusal() {
            backoff.refused();
        }
        let pause = backoff.pause(stood, &mut rand::rng());
        let seconds = pause.as_secs_f32();
        tracing::warn!(proxy = %proxy.addr, "no tunnel: {parted}; trying again in {seconds:.1} s");
        tokio::select! {
            () = agent.stopped() => return,
            () = sleep(pause) => {}
        }
    }
}

enum Told {
    End,
    Reload,
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.interrupt.recv() => Told::End,
            _ = self.terminate.recv() => Told::End,
        }
    }
}

/// How long a tunnel whose agent is told to end waits for the sessions in it.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
