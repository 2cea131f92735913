//! One tunnel: a connection to a proxy, for as long as it stands.

use std::sync::Arc;
use std::time::Duration;

use anteroom_ca::key::{Key, fingerprint};
use anteroom_ssh::{
    ConnectError, Credential, ForwardError, Incoming, IncomingQueue, NodeConnection, OpenRefusal,
    Purpose, connect_as, prepare,
};
use ssh_key::{PrivateKey, PublicKey};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::control::{self, ControlError, Ear, Mouth};
use crate::dir::DirError;
use crate::identity::{Identity, Proxy, authorities};
use crate::known::{Known, Shown};
use crate::krl::Krl;
use crate::labels::Labels;
use crate::protocol::{FromNode, FromProxy};
use crate::renew::{self, Asked};
use crate::run::{Agent, DRAIN, Sessions};
use crate::text::clean;

/// Connecting, logging in, asking for the forward, opening the control channel: this long each.
const STEP: Duration = Duration::from_secs(10);

/// What the forward is asked for as; the proxy listens nowhere (`ssh -N -R 0:localhost:22`).
const FORWARD: &str = "localhost";

/// The proxy says how often it wants a heartbeat; within these bounds.
const BEATS: std::ops::RangeInclusive<u64> = 1..=300;

/// The first heartbeat comes soon: a certificate may have ended while the agent was away.
const FIRST_BEAT: Duration = Duration::from_secs(1);

/// Labels that change are said at once, but not more often than this.
const LABELS: Duration = Duration::from_secs(5);

/// A renewal that was refused or not answered is asked for again after this time. A certificate has days.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// Why a tunnel does not stand, or no longer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Parted {
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it is not the proxy that was joined: {0}")]
    NotTrusted(String),
    #[error(
        "it does not know this node by its key: was it removed, or its key replaced? If so, join again with a new token and --force"
    )]
    Unknown,
    #[error("it refused the tunnel: is another agent with this node's identity connected?")]
    Taken,
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("it said goodbye: {0}")]
    Goodbye(String),
    #[error("the connection was lost")]
    Lost,
    #[error("it does not answer any more")]
    Silent,
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The agent is told to end.
    #[error("the agent ends")]
    Stopped,
}

impl Parted {
    /// Whether the proxy is there and does not want us, so that asking often changes nothing.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Parted::NotTrusted(_)
            | Parted::Unknown
            | Parted::Taken
            | Parted::Control(ControlError::Unknown | ControlError::Unreadable(_)) => true,
            Parted::Unreachable(_)
            | Parted::Control(ControlError::Closed)
            | Parted::Goodbye(_)
            | Parted::Lost
            | Parted::Silent
            | Parted::Dir(_)
            | Parted::Stopped => false,
        }
    }
}

/// Brings a tunnel up and stays with it: why it is over, and how long it stood.
pub(crate) async fn stand<S: Sessions>(
    agent: &Arc<Agent<S>>,
    index: usize,
    proxy: &Proxy,
) -> (Parted, Duration) {
    let connecting = async {
        let (mut connection, shown) = log_in(agent, proxy).await?;
        note(agent, index, &shown)?;
        let asked = timeout(STEP, connection.tcpip_forward(FORWARD, 0)).await;
        match asked.map_err(|_| Parted::Silent)? {
            Ok(_) => {}
            Err(ForwardError::Refused) => return Err(Parted::Taken),
            Err(ForwardError::Gone) => return Err(gone(&connection)),
        }
        let incoming = connection.take_incoming();
        let control = timeout(STEP, control::open(&connection)).await;
        let (ear, mouth) = control.map_err(|_| Parted::Silent)??;
        Ok((connection, incoming, ear, mouth))
    };
    let connected = tokio::select! {
        () = agent.stopped() => return (Parted::Stopped, Duration::ZERO),
        connected = connecting => connected,
    };
    let (connection, incoming, ear, mouth) = match connected {
        Ok(connected) => connected,
        Err(parted) => return (parted, Duration::ZERO),
    };
    let since = Instant::now();
    let tunnel = Tunnel {
        agent,
        proxy,
        connection: &connection,
        mouth,
        asked: None,
        renew_from: since,
    };
    let parted = tunnel.stay(ear, incoming).await;
    connection.disconnect().await;
    (parted, since.elapsed())
}

/// Connects and logs in; with the next key where the proxy knows the node by that already.
async fn log_in<S: Sessions>(
    agent: &Agent<S>,
    proxy: &Proxy,
) -> Result<(NodeConnection, Shown), Parted> {
    let identity = agent.identity();
    let refused = match attempt(&identity, proxy, &identity.host_key).await {
        Err(Parted::Unknown) => Parted::Unknown,
        result => return result,
    };
    let Some(next) = &identity.next_key else {
        return Err(refused);
    };
    let logged_in = attempt(&identity, proxy, next).await?;
    tracing::info!("the proxy knows this node by its new host key");
    agent.change(|identity| {
        // The certificate for it was lost on its way; it is asked for again.
        identity.host_key = next.clone();
        identity.next_key = None;
        Ok::<_, DirError>(())
    })?;
    agent.dir().has_new_key()?;
    Ok(logged_in)
}

async fn attempt(
    identity: &Identity,
    proxy: &Proxy,
    key: &Arc<PrivateKey>,
) -> Result<(NodeConnection, Shown), Parted> {
    let unreachable = |why: &dyn std::fmt::Display| Parted::Unreachable(clean(&why.to_string()));
    let Some((host, port)) = proxy.addr.dialled() else {
        return Err(unreachable(&"it has no address"));
    };
    let tcp = timeout(STEP, TcpStream::connect((host, port))).await;
    let tcp = tcp
        .map_err(|_| unreachable(&"no answer within 10 seconds"))?
        .map_err(|error| unreachable(&error))?;
    prepare(&tcp).map_err(|error| unreachable(&error))?;
    let mut known = Known::Authority {
        trusted: identity.host_ca.clone(),
        name: identity.cluster.clone(),
    };
    if let Some(key) = &proxy.key {
        known = Known::Either(Box::new(known), Box::new(Known::Key(key.clone())));
    }
    let algorithms = known.algorithms();
    let (check, shown) = known.check();
    let user = identity.user();
    let credential = Credential::Key(key.clone());
    let connected = connect_as(tcp, check, &algorithms, &user, credential, Purpose::Tunnel);
    match timeout(STEP, connected).await {
        Ok(Ok(connection)) => Ok((connection, shown)),
        Ok(Err(ConnectError::CertificateRefused)) => Err(Parted::Unknown),
        Ok(Err(ConnectError::HostRefused | ConnectError::NoCommonAlgorithm(_))) => {
            let why = shown.refusal();
            Err(Parted::NotTrusted(why.unwrap_or_else(|| {
                "it has no host key of a kind that is known".into()
            })))
        }
        Ok(Err(ConnectError::Disconnected(words))) => Err(Parted::Goodbye(clean(&words))),
        Ok(Err(error @ (ConnectError::Io(_) | ConnectError::Protocol(_)))) => {
            Err(unreachable(&error))
        }
        Err(_) => Err(unreachable(&"no login within 10 seconds")),
    }
}

/// A proxy that an authority vouches for, and that has another key than the one it was joined by: the old
/// key counts no more.
fn note<S: Sessions>(agent: &Agent<S>, index: usize, shown: &Shown) -> Result<(), Parted> {
    let (true, Some(key)) = (shown.by_authority(), shown.key()) else {
        return Ok(());
    };
    let changed = agent.change(|identity| {
        if let Some(proxy) = identity.proxies.get_mut(index)
            && proxy.key.is_some()
        {
            proxy.key = Some(key);
        }
        Ok::<_, DirError>(())
    })?;
    if changed {
        tracing::info!("the proxy has a new host key, for which the host CA vouches");
    }
    Ok(())
}

fn gone(connection: &NodeConnection) -> Parted {
    match connection.parting() {
        Some(words) if !words.trim().is_empty() => Parted::Goodbye(clean(&words)),
        Some(_) | None => Parted::Lost,
    }
}

struct Tunnel<'a, S> {
    agent: &'a Arc<Agent<S>>,
    proxy: &'a Proxy,
    connection: &'a NodeConnection,
    mouth: Mouth,
    /// The renewal that the proxy has not answered yet; no other tunnel renews meanwhile.
    asked: Option<(Asked, OwnedMutexGuard<()>)>,
    renew_from: Instant,
}

impl<S: Sessions> Tunnel<'_, S> {
    async fn stay(mut self, mut ear: Ear, mut incoming: IncomingQueue) -> Parted {
        let beat = match self.welcome(&mut ear).await {
            Ok(beat) => beat,
            Err(parted) => return parted,
        };
        let _up = self.agent.up();
        tracing::info!(proxy = %self.proxy.addr, "the tunnel is up");
        let mut said = self.agent.said.subscribe();
        said.mark_unchanged();
        let mut sessions = JoinSet::new();
        let (mut last, mut next) = (Instant::now(), Instant::now() + beat.min(FIRST_BEAT));
        let connection = self.connection;
        let silent = async {
            loop {
                sleep(beat).await;
                if !connection.is_alive(beat).await {
                    return;
                }
            }
        };
        tokio::pin!(silent);
        let parted = loop {
            tokio::select! {
                () = self.agent.stopped() => break Parted::Stopped,
                () = connection.closed() => break gone(connection),
                () = &mut silent => break match connection.is_closed() {
                    true => gone(connection),
                    false => Parted::Silent,
                },
                heard = ear.next() => {
                    let taken = match heard {
                        Ok(message) => self.take(message),
                        Err(error) => Err(error.into()),
                    };
                    if let Err(parted) = taken {
                        // A connection that ends closes its channels first.
                        let _ = timeout(STEP, connection.closed()).await;
                        break match (connection.is_closed(), parted) {
                            (true, Parted::Control(ControlError::Closed)) => gone(connection),
                            (_, parted) => parted,
                        };
                    }
                }
                opened = incoming.next() => match opened {
                    Some(opened) => self.admit(opened, &mut sessions),
                    None => break gone(connection),
                },
                _ = sessions.join_next(), if !sessions.is_empty() => {}
                changed = said.changed() => if changed.is_ok() {
                    next = next.min(last + beat.min(LABELS));
                },
                () = sleep_until(next) => {
                    let labels = said.borrow_and_update().clone();
                    if let Err(parted) = self.beat(beat, labels).await {
                        break parted;
                    }
                    last = Instant::now();
                    next = last + beat;
                }
            }
        };
        if matches!(parted, Parted::Stopped) {
            drop(incoming);
            self.drain(&mut sessions).await;
        }
        // What is still served notices that its stream is over, and puts its own things in order.
        sessions.detach_all();
        parted
    }

    async fn welcome(&self, ear: &mut Ear) -> Result<Duration, Parted> {
        let labels = self.agent.said.borrow().clone();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let greeting = async {
            self.mouth.say(&FromNode::Hello { version, labels }).await?;
            loop {
                match ear.next().await? {
                    FromProxy::Welcome {
                        node_id,
                        cluster,
                        heartbeat_seconds,
                    } => return Ok((node_id, cluster, heartbeat_seconds)),
                    FromProxy::Refused { why } => return Err(Parted::Goodbye(clean(&why))),
                    FromProxy::Authorities { .. }
                    | FromProxy::Revoked { .. }
                    | FromProxy::HostCertificate { .. }
                    | FromProxy::Unknown => {}
                }
            }
        };
        let welcomed = tokio::select! {
            () = self.agent.stopped() => return Err(Parted::Stopped),
            welcomed = timeout(STEP, greeting) => welcomed,
        };
        let (node, cluster, beat) = welcomed.map_err(|_| Parted::Silent)??;
        let own = self.agent.identity();
        if node != own.node_id.to_string() || cluster != own.cluster {
            let why = format!(
                "it takes this node for {} of {}",
                clean(&node),
                clean(&cluster)
            );
            return Err(Parted::NotTrusted(why));
        }
        Ok(Duration::from_secs(
            beat.clamp(*BEATS.start(), *BEATS.end()),
        ))
    }

    /// A heartbeat, and a renewal where one is due.
    async fn beat(&mut self, beat: Duration, labels: Labels) -> Result<(), Parted> {
        let saying = async {
            self.mouth.say(&FromNode::Heartbeat { labels }).await?;
            self.renew().await
        };
        // A proxy that takes no messages is as good as gone.
        timeout(beat, saying).await.map_err(|_| Parted::Silent)?
    }

    async fn renew(&mut self) -> Result<(), Parted> {
        let own = self.agent.identity();
        let wanted = renew::is_due(&own, OffsetDateTime::now_utc())
            || own.next_key.is_some()
            || self.agent.dir().wants_new_key();
        if !wanted || Instant::now() < self.renew_from {
            return Ok(());
        }
        // What was asked for and not answered is asked for again.
        let guard = match self.asked.take() {
            Some((_, guard)) => guard,
            None => match Arc::clone(&self.agent.renewing).try_lock_owned() {
                Ok(guard) => guard,
                Err(_) => return Ok(()),
            },
        };
        let fresh = || {
            let key = Key::generate(&own.name, &mut rand::rng());
            key.private_key().clone()
        };
        let mut asked = None;
        self.agent.change(|identity| {
            let (begun, changed) = renew::begin(self.agent.dir(), identity, fresh)?;
            asked = Some(begun);
            *identity = changed.unwrap_or_else(|| identity.clone());
            Ok::<_, DirError>(())
        })?;
        self.renew_from = Instant::now() + RENEW_AGAIN;
        if let Some((asked, key)) = asked.and_then(|asked| {
            let key = asked.line()?;
            Some((asked, key))
        }) {
            self.mouth.say(&FromNode::Renew { key }).await?;
            self.asked = Some((asked, guard));
        }
        Ok(())
    }

    /// Takes what the proxy says. What it says wrongly is not taken, and logged; the tunnel stands.
    fn take(&mut self, message: FromProxy) -> Result<(), Parted> {
        match message {
            FromProxy::Welcome { .. } | FromProxy::Unknown => {}
            FromProxy::Authorities { node_ca, host_ca } => {
                match (authorities(&node_ca), authorities(&host_ca)) {
                    (Ok(node_ca), Ok(host_ca)) => self.trust(node_ca, host_ca)?,
                    (Err(why), _) | (_, Err(why)) => {
                        tracing::error!(
                            "the authorities that the proxy announced are not taken: {why}"
                        );
                    }
                }
            }
            FromProxy::Revoked { krl } => self.revoke(&krl)?,
            FromProxy::HostCertificate { certificate } => self.certified(&certificate)?,
            FromProxy::Refused { why } => {
                // The next attempt comes after a while.
                self.asked = None;
                tracing::warn!("the proxy refused: {}", clean(&why));
            }
        }
        Ok(())
    }

    /// Takes new authorities in the place of the old ones, over a connection whose proxy the old ones (or the
    /// operator's pin) have vouched for.
    fn trust(&self, node_ca: Vec<PublicKey>, host_ca: Vec<PublicKey>) -> Result<(), Parted> {
        let changed = self.agent.change(|identity| {
            (identity.node_ca, identity.host_ca) = (node_ca, host_ca);
            Ok::<_, DirError>(())
        })?;
        if changed {
            let now = self.agent.identity();
            let print = |keys: &[PublicKey]| {
                let prints = keys.iter().map(|key| fingerprint(key).to_string());
                prints.collect::<Vec<_>>().join(", ")
            };
            let (node, host) = (print(&now.node_ca), print(&now.host_ca));
            tracing::info!(node, host, "the proxy announced its authorities");
        }
        Ok(())
    }

    fn revoke(&self, base64: &str) -> Result<(), Parted> {
        let krl = match Krl::parse(base64) {
            Ok(krl) => krl,
            Err(error) => {
                tracing::error!("{error}; the one before stays in force");
                return Ok(());
            }
        };
        let mut older = None;
        self.agent.change(|identity| {
            // Whoever can send an old list could bring back what was revoked.
            if krl.version() < identity.krl.version() {
                older = Some(identity.krl.version());
            } else {
                identity.krl = krl.clone();
            }
            Ok::<_, DirError>(())
        })?;
        if let Some(newer) = older {
            let older = krl.version();
            tracing::error!(
                "a revocation list of version {older} is refused: version {newer} is in force"
            );
        }
        Ok(())
    }

    fn certified(&mut self, line: &str) -> Result<(), Parted> {
        let Some((asked, _guard)) = self.asked.take() else {
            tracing::warn!("the proxy sent a host certificate that was not asked for");
            return Ok(());
        };
        let result = self.agent.change(|identity| {
            let before = identity.host_key.clone();
            asked.answered(identity, line).map_err(NotTaken::Wrong)?;
            match before.public_key() == identity.host_key.public_key() {
                true => tracing::info!("the host certificate was renewed"),
                false => tracing::info!("the host key was replaced, and has its certificate"),
            }
            Ok(())
        });
        match result {
            Ok(_) => {
                if self.agent.identity().next_key.is_none() {
                    self.agent.dir().has_new_key()?;
                }
                self.renew_from = Instant::now();
                Ok(())
            }
            Err(NotTaken::Wrong(why)) => {
                tracing::error!("the host certificate that the proxy sent is not taken: {why}");
                Ok(())
            }
            Err(NotTaken::Dir(error)) => Err(error.into()),
        }
    }

    fn admit(&self, opened: Incoming, sessions: &mut JoinSet<()>) {
        match opened {
            Incoming::ForwardedTcpip { opening, .. } => {
                let serving = Arc::clone(&self.agent.sessions);
                sessions.spawn(async move {
                    let stream = opening.accept().await.into_stream();
                    serving.serve(stream).await;
                });
            }
            // A proxy has no use for these; whoever asks is told why not.
            Incoming::Agent(opening) | Incoming::X11 { opening, .. } => {
                let why = "the tunnel of a node carries its sessions and nothing else";
                let refusal = OpenRefusal::Prohibited(why.to_owned());
                tokio::spawn(async move { opening.reject(refusal).await });
            }
        }
    }

    /// Takes no new sessions, and gives those that are there a moment to end.
    async fn drain(&self, sessions: &mut JoinSet<()>) {
        let ending = async {
            let _ = self.connection.cancel_tcpip_forward(FORWARD, 0).await;
            while sessions.join_next().await.is_some() {}
        };
        if timeout(DRAIN, ending).await.is_err() {
            tracing::info!("{} sessions are ended with the agent", sessions.len());
        }
    }
}

/// Why a certificate is not taken.
enum NotTaken {
    Wrong(String),
    Dir(DirError),
}

impl From<DirError> for NotTaken {
    fn from(error: DirError) -> Self {
        NotTaken::Dir(error)
    }
}
