//! The client side: connections to nodes, and of the node agent to its proxy.
//!
//! A node connection is read only while little of it waits in our queues, so that
//! everything on it stops when one of its channels is not consumed. Hence one
//! connection per session channel, owned and ended by its session; forwards may
//! share some. What comes through an agent's tunnel is SSH again, whose server
//! reads on whatever its own channels do: there nothing stands for long.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::client::{AuthResult, Handle, Msg};
use russh::keys::PrivateKeyWithHashAlg;
use russh::{Disconnect, SshId};
use ssh_key::{Algorithm, Certificate, HashAlg, PrivateKey, PublicKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::algorithms::{self, HostAlgorithms};
use super::channel::{self, Channel, Writer};
use super::client_handler::{Handler, Seen, seen};
use super::flow::{Caps, Flow, Kind, Side, WINDOW};
use super::open::{OpenError, claim};
use super::opening::Opening;
use super::stream::EngineStream;
use super::types::TcpTarget;

/// Asks an idle node whether it is there. Answers are not counted: they are not
/// read while the connection is held back. The kernel notices a dead machine
/// (see [`prepare`](super::prepare)).
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Window of a channel of a connection inside another one's channel. When that connection is held back, no
/// more than this still comes, and the outer channel has room for it: it never stalls, so nothing else of the
/// outer connection does (L1). Several channels at once can: see L4.
const THROUGH_WINDOW: usize = WINDOW / 2;

/// Channels that a node may have opened at once (agent, X11, remote forwards).
const CHANNELS: usize = 64;

/// Sessions that a proxy may have opened at once through an agent's tunnel. Each is
/// a connection of somebody whom the proxy let in; the bound is for a proxy gone wrong.
const TUNNELLED: usize = 1024;

/// Openings by the node that may wait to be looked at; more are refused.
const INCOMING: usize = 16;

/// The same in a tunnel: after a restart of the proxy everybody comes back at once.
const TUNNELLED_INCOMING: usize = 128;

/// How long a goodbye may take before the connection is simply cut.
const GOODBYE: Duration = Duration::from_secs(3);

/// How long the engine may take to notice that it was cut.
const CUT: Duration = Duration::from_secs(2);

/// What a node shows for itself. The engine has verified that it holds the key.
#[derive(Debug, Clone)]
pub enum HostProof {
    /// A plain host key.
    Key(PublicKey),
    /// A host certificate; nothing in it has been checked.
    Certificate(Box<Certificate>),
}

/// Why there is no connection, and whose fault it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// `check` refused what the node showed for itself. Nothing was sent but the
    /// key exchange.
    #[error("the host key or certificate of the node was refused")]
    HostRefused,
    /// The node has no host key of a kind that we would accept.
    #[error("the node has no acceptable host key or algorithm: {0}")]
    NoCommonAlgorithm(String),
    /// The node does not take the certificate (or what else was shown) for this login.
    #[error("the node refused the certificate")]
    CertificateRefused,
    /// The node ended the connection; its own words, untrusted.
    #[error("the node disconnected: {0}")]
    Disconnected(String),
    /// The connection broke.
    #[error("connection lost: {0}")]
    Io(String),
    /// The node broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
}

/// A channel that a node opens. Unanswered openings are refused when dropped.
#[derive(Debug)]
pub enum Incoming {
    /// A program on the node wants the user's agent.
    Agent(Opening),
    /// A connection came in on a remote forward.
    ForwardedTcpip {
        /// The address that was asked for in [`NodeConnection::tcpip_forward`].
        address: String,
        /// The port that is listened on.
        port: u32,
        /// Where the connection came from, as the node says.
        originator_host: String,
        /// Its port.
        originator_port: u32,
        /// The channel.
        opening: Opening,
    },
    /// An X11 client on the node wants the user's display.
    X11 {
        /// Where the connection came from, as the node says.
        originator_host: String,
        /// Its port.
        originator_port: u32,
        /// The channel.
        opening: Opening,
    },
}

/// Why a global request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The node refused.
    #[error("the node refused the forward")]
    Refused,
    /// The connection is over.
    #[error("the connection is closed")]
    Gone,
}

/// What is shown at a login.
#[derive(Clone)]
pub enum Credential {
    /// A user certificate, with the key in it.
    Certificate(Arc<PrivateKey>, Box<Certificate>),
    /// A plain key.
    Key(Arc<PrivateKey>),
    /// Nothing (RFC 4252 section 5.2): for a server that asks for what it wants later.
    Nothing,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credential::Certificate(..) => "Certificate",
            Credential::Key(_) => "Key",
            Credential::Nothing => "Nothing",
        })
    }
}

/// What a connection is made for, which says how many channels the peer may open on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A user's session or forwards on a node.
    Session,
    /// The same through a channel of another connection, which others go through as well.
    Through,
    /// The tunnel of a node agent: everybody's sessions come through it.
    Tunnel,
}

/// A login on a node. Dropping it ends the connection.
pub struct NodeConnection {
    flow: Arc<Flow>,
    handle: Arc<Handle<Handler>>,
    incoming: mpsc::Receiver<Incoming>,
    seen: Arc<Mutex<Seen>>,
}

/// Logs in on a node over `stream`, whose timeouts are the caller's: dropping the
/// future ends the attempt.
///
/// `check` is asked once about what the node shows for itself, before anything else
/// is sent; later key exchanges happen inside the encryption of the first one. `hosts`
/// says what kinds of key to ask for: a node shows one, so a pinned key must be asked
/// for by its type.
pub async fn connect<S>(
    stream: S,
    check: impl FnMut(&HostProof) -> bool + Send + 'static,
    hosts: &HostAlgorithms,
    login: &str,
    key: Arc<PrivateKey>,
    certificate: Certificate,
) -> Result<NodeConnection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let credential = Credential::Certificate(key, Box::new(certificate));
    connect_as(stream, check, hosts, login, credential, Purpose::Session).await
}

/// As [`connect`], with any credential and for any purpose.
pub async fn connect_as<S>(
    stream: S,
    check: impl FnMut(&HostProof) -> bool + Send + 'static,
    hosts: &HostAlgorithms,
    login: &str,
    credential: Credential,
    purpose: Purpose,
) -> Result<NodeConnection, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut greeted = greet(stream, check, hosts, purpose).await?;
    let handle = &mut greeted.handle;
    let result = match credential {
        Credential::Certificate(key, certificate) => {
            handle
                .authenticate_openssh_cert(login, key, *certificate)
                .await
        }
        Credential::Key(key) => {
            // The hash matters to RSA only; SHA-1 is not among what we speak.
            let hash = matches!(key.algorithm(), Algorithm::Rsa { .. }).then_some(HashAlg::Sha512);
            let key = PrivateKeyWithHashAlg::new(key, hash);
            handle.authenticate_publickey(login, key).await
        }
        Credential::Nothing => handle.authenticate_none(login).await,
    };
    match greeted.outcome(result).await? {
        AuthResult::Success => {}
        AuthResult::Failure { .. } => {
            greeted.goodbye().await;
            return Err(ConnectError::CertificateRefused);
        }
    }
    let Greeted {
        flow,
        handle,
        incoming,
        seen,
        cut,
    } = greeted;
    cut.disarm();
    flow.authenticated.set();
    Ok(NodeConnection {
        flow,
        handle: Arc::new(handle),
        incoming,
        seen,
    })
}

/// Asks a node for its host key of one kind; `None` if it has none. Nothing is sent but the key
/// exchange, and nothing that it shows is trusted: that is for whoever asked to decide.
pub async fn scan<S>(stream: S, kind: Algorithm) -> Result<Option<PublicKey>, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shown = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&shown);
    let check = move |proof: &HostProof| {
        if let HostProof::Key(key) = proof {
            *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        }
        false
    };
    let kinds = HostAlgorithms::Pinned(vec![kind]);
    match greet(stream, check, &kinds, Purpose::Session).await {
        // The check says no to whatever is shown: it has what it came for.
        Ok(_) | Err(ConnectError::HostRefused) => {
            Ok(shown.lock().unwrap_or_else(PoisonError::into_inner).take())
        }
        Err(ConnectError::NoCommonAlgorithm(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A node whose host key was checked, before any login.
pub(super) struct Greeted {
    flow: Arc<Flow>,
    pub(super) handle: Handle<Handler>,
    incoming: mpsc::Receiver<Incoming>,
    seen: Arc<Mutex<Seen>>,
    cut: Cut,
}

impl Greeted {
    /// What an attempt to log in came to; a connection that was lost reads as a refusal to the engine.
    pub(super) async fn outcome(
        &self,
        result: Result<AuthResult, russh::Error>,
    ) -> Result<AuthResult, ConnectError> {
        match result {
            Ok(AuthResult::Failure { .. }) if self.handle.is_closed() => {
                self.flow.ended.wait().await;
                Err(blame(&self.seen, russh::Error::Disconnect))
            }
            Ok(result) => Ok(result),
            Err(error) => Err(blame(&self.seen, error)),
        }
    }

    /// Leaves without a login.
    pub(super) async fn goodbye(&self) {
        let _ = timeout(GOODBYE, goodbye(&self.flow, &self.handle)).await;
    }
}

pub(super) async fn greet<S>(
    stream: S,
    check: impl FnMut(&HostProof) -> bool + Send + 'static,
    hosts: &HostAlgorithms,
    purpose: Purpose,
) -> Result<Greeted, ConnectError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (channels, waiting) = match purpose {
        Purpose::Session | Purpose::Through => (CHANNELS, INCOMING),
        Purpose::Tunnel => (TUNNELLED, TUNNELLED_INCOMING),
    };
    let caps = Caps {
        channels,
        sessions: 0,
    };
    let flow = Flow::new(Side::Node, caps);
    // Ends the engine if the caller's future is dropped half-way.
    let cut = Cut(Some(Arc::clone(&flow)));
    let (sender, incoming) = mpsc::channel(waiting);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let handler = Handler {
        flow: Arc::clone(&flow),
        check: Box::new(check),
        incoming: sender,
        seen: Arc::clone(&seen),
    };
    let stream = EngineStream::new(stream, Arc::clone(&flow));
    let config = Arc::new(config(hosts, purpose));
    let handle = russh::client::connect_stream(config, stream, handler)
        .await
        .map_err(|error| blame(&seen, error))?;
    Ok(Greeted {
        flow,
        handle,
        incoming,
        seen,
        cut,
    })
}

fn config(hosts: &HostAlgorithms, purpose: Purpose) -> russh::client::Config {
    let window = match purpose {
        Purpose::Session | Purpose::Tunnel => WINDOW,
        Purpose::Through => THROUGH_WINDOW,
    };
    russh::client::Config {
        client_id: SshId::Standard(super::VERSION.into()),
        window_size: u32::try_from(window).unwrap_or(u32::MAX),
        maximum_packet_size: 32 << 10,
        // The opener takes its channel over at once; what arrives comes by callback.
        channel_buffer_size: 4,
        preferred: algorithms::for_node(hosts),
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: 0,
        ..russh::client::Config::default()
    }
}

impl NodeConnection {
    /// Opens a session channel.
    pub async fn open_session(&self) -> Result<Channel, OpenError> {
        let handle = Arc::clone(&self.handle);
        self.open(
            Kind::Session,
            async move { handle.channel_open_session().await },
        )
        .await
    }

    /// Opens a `direct-tcpip` channel (RFC 4254 section 7.2).
    pub async fn open_direct_tcpip(&self, target: TcpTarget) -> Result<Channel, OpenError> {
        let handle = Arc::clone(&self.handle);
        let TcpTarget {
            host,
            port,
            originator_host,
            originator_port,
        } = target;
        self.open(Kind::Stream, async move {
            handle
                .channel_open_direct_tcpip(host, port, originator_host, originator_port)
                .await
        })
        .await
    }

    async fn open(
        &self,
        kind: Kind,
        opening: impl Future<Output = Result<russh::Channel<Msg>, russh::Error>> + Send + 'static,
    ) -> Result<Channel, OpenError> {
        let flow = Arc::clone(&self.flow);
        claim(async move {
            let half = opening.await?.split().1;
            let gone = flow.adopt(half.id().number(), kind);
            Ok(channel::open(flow, kind, Writer::Node(half), gone))
        })
        .await
    }

    /// Asks the node to listen (RFC 4254 section 7.1); the port it listens on, which
    /// differs from `port` only if that is 0. Connections arrive as
    /// [`Incoming::ForwardedTcpip`].
    pub async fn tcpip_forward(&self, address: &str, port: u32) -> Result<u32, ForwardError> {
        match self.handle.tcpip_forward(address, port).await {
            // Without a port in the reply it is the one that was asked for.
            Ok(0) => Ok(port),
            Ok(bound) => Ok(bound),
            Err(russh::Error::RequestDenied) => Err(ForwardError::Refused),
            Err(_) => Err(ForwardError::Gone),
        }
    }

    /// Asks the node to listen no more.
    pub async fn cancel_tcpip_forward(&self, address: &str, port: u32) -> Result<(), ForwardError> {
        match self.handle.cancel_tcpip_forward(address, port).await {
            Ok(()) => Ok(()),
            Err(russh::Error::RequestDenied) => Err(ForwardError::Refused),
            Err(_) => Err(ForwardError::Gone),
        }
    }

    /// The next channel that the node opens; `None` when the connection is over.
    /// At most 16 wait here; more are refused. Cancel-safe.
    pub async fn incoming(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Gives the queue behind [`incoming`](Self::incoming) away, for a task of its
    /// own; here nothing arrives any more.
    pub fn take_incoming(&mut self) -> IncomingQueue {
        let (_, closed) = mpsc::channel(1);
        IncomingQueue(std::mem::replace(&mut self.incoming, closed))
    }

    /// Ends the connection, and returns when it is over: within seconds, whatever
    /// the node does, and though its queues be full.
    pub async fn disconnect(&self) {
        goodbye(&self.flow, &self.handle).await;
    }

    /// Whether the peer answers within `patience`, whatever it thinks of being asked. While we hold
    /// the connection back ourselves its answers cannot be heard, and it counts as alive. Cancel-safe.
    pub async fn is_alive(&self, patience: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.flow.ended.wait() => false,
            answer = timeout(patience, self.handle.send_ping()) => {
                let heard = answer.is_ok_and(|sent| sent.is_ok()) || self.flow.is_held();
                heard && !self.flow.ended.is_set()
            }
        }
    }

    /// What the peer said when it ended the connection; its own words, untrusted.
    pub fn parting(&self) -> Option<String> {
        seen(&self.seen).disconnect.clone()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.flow.ended.is_set()
    }

    /// Returns when the connection is over. Cancel-safe.
    pub async fn closed(&self) {
        self.flow.ended.wait().await;
    }

    /// Bytes that wait in the queues of this connection's channels.
    pub fn queued(&self) -> usize {
        self.flow.queued()
    }
}

/// The channels that a node opens, apart from their connection.
#[derive(Debug)]
pub struct IncomingQueue(mpsc::Receiver<Incoming>);

impl IncomingQueue {
    /// As [`NodeConnection::incoming`].
    pub async fn next(&mut self) -> Option<Incoming> {
        self.0.recv().await
    }
}

impl std::fmt::Debug for NodeConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConnection").finish_non_exhaustive()
    }
}

/// A user that is gone must not leave sessions behind on nodes, and the engine
/// does not end when its handle is dropped.
impl Drop for NodeConnection {
    fn drop(&mut self) {
        if self.flow.ended.is_set() {
            return;
        }
        let (flow, handle) = (Arc::clone(&self.flow), Arc::clone(&self.handle));
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                runtime.spawn(async move { goodbye(&flow, &handle).await });
            }
            Err(_) => flow.kill(),
        }
    }
}

/// Says goodbye, and cuts the connection if that takes too long: the engine does
/// not hear us while it exchanges keys.
async fn goodbye(flow: &Flow, handle: &Handle<Handler>) {
    let polite = async {
        let _ = handle.disconnect(Disconnect::ByApplication, "", "").await;
        flow.ended.wait().await;
    };
    if timeout(GOODBYE, polite).await.is_err() {
        flow.kill();
        let _ = timeout(CUT, flow.ended.wait()).await;
    }
}

/// Cuts a connection whose maker gave up.
pub(super) struct Cut(Option<Arc<Flow>>);

impl Cut {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(flow) = &self.0 {
            flow.kill();
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the engine's other errors are all the node's breach of the protocol"
)]
fn blame(shared: &Mutex<Seen>, error: russh::Error) -> ConnectError {
    let seen = seen(shared);
    if seen.refused {
        return ConnectError::HostRefused;
    }
    if let Some(text) = &seen.disconnect {
        return ConnectError::Disconnected(text.clone());
    }
    match error {
        russh::Error::NoCommonAlgo { kind, theirs, .. } => {
            ConnectError::NoCommonAlgorithm(format!("{kind:?}: {}", theirs.join(",")))
        }
        russh::Error::IO(error) => ConnectError::Io(error.to_string()),
        russh::Error::HUP | russh::Error::Disconnect | russh::Error::SendError => {
            ConnectError::Io("closed by the node".to_owned())
        }
        error => ConnectError::Protocol(error.to_string()),
    }
}
