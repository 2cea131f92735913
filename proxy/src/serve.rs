//! `anteroom serve`: the data directory, the listeners, the signals.

use std::fmt::Display;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anteroom_ca::key::Origin;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinHandle, JoinSet};

use crate::addresses;
use crate::admin;
use crate::announce;
use crate::balancer;
use crate::config::{self, Config, ConfigError, Overrides};
use crate::exit::{Exit, Exits};
use crate::keys::{Keys, KeysError};
use crate::limits::Place;
use crate::metrics;
use crate::mfa::{SealError, Sealer};
use crate::proxy::Proxy;
use crate::session;
use crate::state::{State, SystemClock};
use crate::store::OpenError;
use crate::tunnels;
use anteroom_ssh as ssh;

/// After an accept error (out of file descriptors, mostly) the loop takes this breath instead of
/// spinning; connections that end meanwhile free what was missing.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Local administrators' commands at a time. Each one may wait for an approval; more than this
/// many at once on one host is a loop gone wrong.
const MAX_CTL: usize = 64;

/// After the drain time every session says why it ends; who does not take the words by then is cut.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How often the proxy looks whether its own host certificate is to be renewed: many times within
/// the weeks that it has for it.
const RENEWAL: Duration = Duration::from_secs(3600);

/// The command line of `serve`.
#[derive(Debug, Clone)]
pub struct Options {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: PathBuf,
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--cluster`
    pub cluster: Option<String>,
}

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The key that seals second factors.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The database, or another `serve` on the same directory.
    #[error(transparent)]
    State(#[from] OpenError),
    /// The directory, a socket, a signal handler.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        error: std::io::Error,
    },
}

impl ServeError {
    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            ServeError::Config(_) => Exit::Config,
            ServeError::Keys(error) => error.exit(),
            ServeError::Seal(_) | ServeError::State(_) | ServeError::Io { .. } => Exit::Failed,
        }
    }

    fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> ServeError {
        let doing = doing.into();
        |error| ServeError::Io { doing, error }
    }
}

/// `/var/lib/anteroom` as root, `$XDG_STATE_HOME/anteroom` otherwise.
pub fn default_data_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/var/lib/anteroom");
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let state =
        state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    state.unwrap_or_else(|| PathBuf::from(".")).join("anteroom")
}

/// Runs the proxy until it is told to end.
///
/// # Errors
/// [`ServeError`] if it cannot start; once it serves, it ends by signal only.
pub async fn run(options: Options) -> Result<(), ServeError> {
    forbid_core_dumps();
    allow_many_files();
    let config = load_config(&options)?;
    prepare_directory(&options.data_dir)?;
    let (proxy, listener, address) = open(&options, config).await?;
    let control = listen_control(&options.data_dir.join("ctl.sock"))?;
    let mut signals = Signals::new()?;

    let metrics = serve_metrics(&proxy).await?;
    println!("anteroom: listening on {address}");
    tracing::info!(%address, cluster = %proxy.config().cluster, "listening");
    let mut sessions = JoinSet::new();
    let introductions = Arc::new(Semaphore::new(balancer::MAX_WAITING));
    let control = tokio::spawn(serve_control(proxy.clone(), control));
    let renewal = tokio::spawn(renew(proxy.clone()));
    addresses::first_look(&proxy).await;
    let following = tokio::spawn(addresses::follow(proxy.clone()));
    let tunnels = tokio::spawn(tunnels::follow(proxy.clone()));
    let announcing = tokio::spawn(announce::follow(proxy.clone()));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    accept(&proxy, &mut sessions, stream, peer, &introductions);
                }
                Err(error) => {
                    tracing::warn!("cannot accept connections: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            // Reaped as they end, so that the set holds living connections only.
            Some(ended) = sessions.join_next(), if !sessions.is_empty() => log_panic(ended),
            signal = signals.next() => match signal {
                Caught::Reload => reload(&proxy, &options).await,
                Caught::Terminate => break,
            },
        }
    }
    drop(listener);
    drain(&proxy, &mut sessions, &mut signals).await;
    if let Some(metrics) = metrics {
        metrics.abort();
    }
    control.abort();
    renewal.abort();
    following.abort();
    tunnels.abort();
    announcing.abort();
    std::fs::remove_file(options.data_dir.join("ctl.sock")).ok();
    proxy.state.close().await;
    Ok(())
}

fn load_config(options: &Options) -> Result<Config, ServeError> {
    let overrides = Overrides {
        listen: options.listen,
        cluster: options.cluster.clone(),
    };
    let host = nix::unistd::gethostname()
        .map_err(|e| ServeError::io("reading the host name")(e.into()))?;
    Ok(config::load(
        options.config.as_deref(),
        &overrides,
        &host.to_string_lossy(),
    )?)
}

/// DIR has to be the proxy's alone. One that is still empty is made so; one that is in use and
/// wider is refused when its keys are loaded, because somebody may have read them.
fn prepare_directory(dir: &Path) -> Result<(), ServeError> {
    let doing = || format!("preparing `{}`", dir.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(ServeError::io(doing()))?;
    let empty = std::fs::read_dir(dir)
        .map_err(ServeError::io(doing()))?
        .next()
        .is_none();
    if empty {
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir, private).map_err(ServeError::io(doing()))?;
    }
    Ok(())
}

/// The state comes first: it takes the directory's lock, so that two proxies cannot make keys
/// side by side. Clients that connect from the moment we listen wait in the kernel's queue.
async fn open(
    options: &Options,
    config: Config,
) -> Result<(Arc<Proxy>, TcpListener, SocketAddr), ServeError> {
    let dir = &options.data_dir;
    let clock = Arc::new(SystemClock);
    let state = State::open(dir, clock, config.cluster.clone(), config.settings()).await?;
    let keys = Keys::open(dir, &config, &state).await?;
    if keys.origin == Origin::Created {
        eprintln!(
            "anteroom: first start: made CAs, host key and database in {}",
            dir.display()
        );
    }
    let sealer = Sealer::open(&dir.join("mfa_key"), &mut rand::rng())?;
    let (listener, address) = listen(&config).await?;
    let reached_at = (public_host(&config, address), address.port());
    Ok((
        Proxy::new(state, keys, sealer, config, reached_at),
        listener,
        address,
    ))
}

/// Where clients connect: the first public name, else the address, else this host's name.
fn public_host(config: &Config, address: SocketAddr) -> String {
    if let Some(name) = config.public_names.first() {
        return name.clone();
    }
    if !address.ip().is_unspecified() {
        return address.ip().to_string();
    }
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    host.unwrap_or_else(|_| config.cluster.to_string())
}

async fn listen(config: &Config) -> Result<(TcpListener, SocketAddr), ServeError> {
    let doing = || format!("listening on {}", config.listen);
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(ServeError::io(doing()))?;
    let address = listener.local_addr().map_err(ServeError::io(doing()))?;
    Ok((listener, address))
}

/// The listener of `/metrics`, where the configuration names one.
async fn serve_metrics(proxy: &Proxy) -> Result<Option<JoinHandle<()>>, ServeError> {
    let Some(address) = proxy.config().metrics_listen else {
        return Ok(None);
    };
    let Some(pulse) = proxy.commands.pulse.clone() else {
        return Ok(None);
    };
    let doing = || format!("listening on {address} (metrics_listen)");
    let bound = metrics::listen(address).await;
    let listener = bound.map_err(ServeError::io(doing()))?;
    let there = listener.local_addr().map_err(ServeError::io(doing()))?;
    println!("anteroom: metrics on http://{there}/metrics");
    Ok(Some(tokio::spawn(metrics::serve(listener, pulse))))
}

/// The control socket, which makes its user an administrator: 0600 from the first moment.
fn listen_control(path: &Path) -> Result<UnixListener, ServeError> {
    let doing = || format!("listening on `{}`", path.display());
    // Left behind by a killed proxy; a living one holds the directory's lock.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ServeError::io(doing())(error));
        }
        Ok(()) | Err(_) => {}
    }
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    nix::sys::stat::umask(old);
    bound.map_err(ServeError::io(doing()))
}

async fn serve_control(proxy: Arc<Proxy>, listener: UnixListener) {
    let places = Arc::new(tokio::sync::Semaphore::new(MAX_CTL));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let proxy = proxy.clone();
                tokio::spawn(async move {
                    if let Err(error) = admin::ctl::serve_connection(&proxy.commands, stream).await
                    {
                        tracing::debug!("a control connection broke: {error}");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!("cannot accept on the control socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn renew(proxy: Arc<Proxy>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        if let Err(error) = proxy.hosts.renew_outer(&proxy.state).await {
            tracing::warn!("the proxy's own host certificate was not renewed: {error}");
        }
    }
}

fn accept(
    proxy: &Arc<Proxy>,
    sessions: &mut JoinSet<()>,
    stream: TcpStream,
    peer: SocketAddr,
    introductions: &Arc<Semaphore>,
) {
    if let Err(error) = ssh::prepare(&stream) {
        tracing::debug!(from = %peer.ip(), "gone at once: {error}");
        return;
    }
    if !balancer::is_one(&proxy.config().proxy_protocol_from, peer.ip()) {
        if let Some(place) = enter(proxy, peer) {
            sessions.spawn(session::serve(proxy.clone(), stream, peer, place));
        }
        return;
    }
    match introductions.clone().try_acquire_owned() {
        Ok(permit) => {
            sessions.spawn(introduced(proxy.clone(), stream, peer, permit));
        }
        Err(_) => {
            tell_drop(
                proxy,
                peer,
                &"too many of the balancer's connections without a header",
            );
        }
    }
}

/// A place for a connection that has proven nothing, or a word to the log.
fn enter(proxy: &Proxy, peer: SocketAddr) -> Option<Place> {
    let (limits, now) = (&proxy.config().door, proxy.state.now());
    let dice = rand::random_range(0..100);
    match proxy.door.enter(peer.ip(), limits, now, dice) {
        Ok(place) => Some(place),
        Err(dropped) => {
            tell_drop(proxy, peer, &dropped);
            None
        }
    }
}

fn tell_drop(proxy: &Proxy, peer: SocketAddr, why: &dyn Display) {
    if let Some(count) = proxy.door.tell_drops(proxy.state.now()) {
        tracing::warn!(from = %peer.ip(), count, "connection dropped: {why}");
    }
}

/// Serves a connection that a load balancer introduces: from here on it is its client's.
async fn introduced(
    proxy: Arc<Proxy>,
    mut stream: TcpStream,
    balancer: SocketAddr,
    introduction: OwnedSemaphorePermit,
) {
    let peer = match balancer::client(&mut stream).await {
        Ok(client) => client.unwrap_or(balancer),
        Err(why) => return tell_drop(&proxy, balancer, &why),
    };
    drop(introduction);
    if let Some(place) = enter(&proxy, peer) {
        session::serve(proxy, stream, peer, place).await;
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("our bug: a session ended by a panic; others go on: {error}");
    }
}

async fn reload(proxy: &Proxy, options: &Options) {
    match load_config(options) {
        Ok(config) => {
            let old = proxy.config();
            for key in old.restart_needed(&config) {
                tracing::warn!("`{key}` changed: it takes effect at the next start");
            }
            if let Err(error) = proxy.state.configure(config.settings()).await {
                tracing::error!("configuration not reloaded, the old one stays: {error}");
                return;
            }
            proxy.reconfigure(Config {
                cluster: old.cluster.clone(),
                listen: old.listen,
                public_names: old.public_names.clone(),
                host_domains: old.host_domains.clone(),
                ..config
            });
            tracing::info!("configuration reloaded");
        }
        Err(error) => tracing::error!("configuration not reloaded, the old one stays: {error}"),
    }
}

/// Lets live sessions finish for as long as the configuration says; a second signal ends the wait.
async fn drain(proxy: &Proxy, sessions: &mut JoinSet<()>, signals: &mut Signals) {
    proxy.drain();
    let limit = proxy.config().drain_timeout;
    tracing::info!(
        "stopping: {} connections have {}s to end",
        sessions.len().saturating_sub(proxy.tunnels().connections()),
        limit.as_secs()
    );
    // Nodes' own connections stay for as long as somebody's sessions may go through them.
    let people = async {
        while sessions.len() > proxy.tunnels().connections() {
            sessions.join_next().await;
        }
    };
    tokio::select! {
        () = people => {}
        () = tokio::time::sleep(limit) => {}
        () = signals.terminate_again() => {}
    }
    proxy.shut_down();
    let said = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, said).await.is_err() {
        sessions.abort_all();
        while sessions.join_next().await.is_some() {}
    }
}

enum Caught {
    Reload,
    Terminate,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals, ServeError> {
        let handle = |kind| signal(kind).map_err(ServeError::io("handling signals"));
        Ok(Signals {
            hangup: handle(SignalKind::hangup())?,
            terminate: handle(SignalKind::terminate())?,
            interrupt: handle(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.hangup.recv() => Caught::Reload,
            _ = self.terminate.recv() => Caught::Terminate,
            _ = self.interrupt.recv() => Caught::Terminate,
        }
    }

    async fn terminate_again(&mut self) {
        while let Caught::Reload = self.next().await {}
    }
}

/// Each connection is an open file, and the usual soft limit (1,024) is for programs that use `select(2)`.
fn allow_many_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("the limit on open files could not be raised: {error}");
    }
}

/// CA keys are in this process: they must not end up in a core file.
fn forbid_core_dumps() {
    use nix::sys::resource::{Resource, setrlimit};
    let limited = setrlimit(Resource::RLIMIT_CORE, 0, 0);
    let hidden = nix::sys::prctl::set_dumpable(false);
    if limited.is_err() || hidden.is_err() {
        tracing::warn!("core dumps could not be forbidden; a crash might write keys to a file");
    }
}
