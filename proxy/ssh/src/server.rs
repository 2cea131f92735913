//! The server side: users' connections, and the ones inside their channels.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::server::RunningSession;
use russh::{Disconnect, MethodKind, MethodSet, SshId};
use ssh_key::{Certificate, PrivateKey, PublicKey};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::algorithms;
use super::auth::{Answered, Challenge, Verdict};
use super::channel::{self, Channel, Writer};
use super::flow::{Caps, Farewell, Flow, Kind, Side, WINDOW};
use super::open::{OpenError, claim};
use super::opening::Opening;
use super::server_handler::{EngineError, Handler};
use super::stream::EngineStream;
use super::types::{ChannelRequest, TcpTarget};

/// Refusals take at least this long, so that the time of a look-up does not show
/// whether a user or key is known. Short: a user's agent may offer several keys.
const REJECTION_TIME: Duration = Duration::from_millis(50);

/// How long a goodbye may take before the connection is simply cut. The stream
/// lingers for two seconds of it.
const GOODBYE: Duration = Duration::from_secs(4);

/// How long the engine's loop may take to notice that it was cut; it does so at
/// once, except in the middle of a refusal.
const CUT: Duration = Duration::from_secs(5);

/// What one user connection may do.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time for the whole login, from the first byte, whatever the peer sends.
    pub grace: Duration,
    /// Failed authentication requests.
    pub auth_failures: usize,
    /// Authentication requests of any kind, questions about keys included.
    pub auth_requests: usize,
    /// Channels open or being opened.
    pub channels: usize,
    /// Session channels among them.
    pub sessions: usize,
}

impl Default for Limits {
    /// The numbers of SECURITY sections 2 and 5.
    fn default() -> Self {
        Limits {
            grace: Duration::from_secs(60),
            auth_failures: 6,
            auth_requests: 128,
            channels: 64,
            sessions: 10,
        }
    }
}

/// How a server presents itself and what it allows; one for many connections.
#[derive(Debug)]
pub struct ServerConfig {
    pub(super) limits: Limits,
    engine: Arc<russh::server::Config>,
}

impl ServerConfig {
    /// `host_keys` are presented in the client's order of preference, `certificates`
    /// before them (each needs its key among `host_keys`). `keepalive` is how long
    /// a connection may be silent before we ask whether it is there; an answer is
    /// not insisted on, since a suspended client gives none (the kernel notices a
    /// dead machine, see [`prepare`](super::prepare)).
    pub fn new(
        host_keys: Vec<PrivateKey>,
        certificates: Vec<Certificate>,
        keepalive: Duration,
        limits: Limits,
    ) -> Self {
        let engine = russh::server::Config {
            server_id: SshId::Standard(Cow::Borrowed(super::VERSION)),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: REJECTION_TIME,
            // Else every client's first `none`, which only asks for the methods, waits.
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: host_keys,
            certificates,
            limits: russh::Limits::default(),
            window_size: u32::try_from(WINDOW).unwrap_or(u32::MAX),
            maximum_packet_size: 32 << 10,
            // Nothing stays in it: the read halves of channels are dropped.
            channel_buffer_size: 1,
            event_buffer_size: 10,
            preferred: algorithms::for_users(),
            // Ours counts what reaches us; the engine's counts what it refuses
            // itself, and the client's first `none`.
            max_auth_attempts: limits.auth_failures.saturating_add(1),
            // Held sessions are silent for hours; before the login it is the grace
            // time that ends a silent peer.
            inactivity_timeout: None,
            keepalive_interval: Some(keepalive),
            keepalive_max: 0,
            nodelay: true,
        };
        ServerConfig {
            limits,
            engine: Arc::new(engine),
        }
    }
}

/// Whether a request is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Success, said at once; the request then arrives in the channel's inbox.
    Success,
    /// Failure, said at once.
    Failure,
}

/// The proxy's end of one connection: who may log in, and what is done with what
/// the client then opens.
///
/// The methods are called inside the engine's loop, one at a time: **nothing in
/// them may wait**, or every channel of the connection waits. A panic in one ends
/// this connection and no other.
pub trait Front: Send + 'static {
    /// The client asks whether this key would do. It has proven nothing:
    /// nothing may change on it. Of a certificate this is the embedded key.
    fn key_offered(&mut self, user: &str, key: &PublicKey) -> Verdict;

    /// The client has proven that it holds this key. RSA with SHA-1 and keys of
    /// refused sizes never get here.
    fn key_proven(&mut self, user: &str, key: &PublicKey) -> Verdict;

    /// The client has proven that it holds the key of this certificate, which is
    /// signed by *some* authority and valid in time by the machine's clock; all
    /// else is to be checked. Refused unless overridden.
    fn certificate_proven(&mut self, user: &str, certificate: &Certificate) -> Verdict {
        let _ = (user, certificate);
        Verdict::Reject
    }

    /// The client asks to be let in without proof; only a server inside an
    /// authenticated connection says yes.
    fn none(&mut self, user: &str) -> Verdict {
        let _ = user;
        Verdict::Reject
    }

    /// The client begins a keyboard-interactive step: what to ask, if this login has come to one
    /// ([`Verdict::GoOn`]).
    fn challenge(&mut self, user: &str) -> Option<Challenge> {
        let _ = user;
        None
    }

    /// The client's answer to the challenge; `None` where it gave none. This one may wait for the
    /// database, and for nothing longer: there is no channel yet that would wait with it.
    fn answered(
        &mut self,
        user: &str,
        answer: Option<&str>,
    ) -> impl Future<Output = Answered> + Send {
        let _ = (user, answer);
        async { Answered::Wrong }
    }

    /// The requests that follow are about another user (or the first one): what a
    /// login of several steps has proven so far is void.
    fn user_changed(&mut self, user: &str) {
        let _ = user;
    }

    /// The login succeeded. Called once, before any channel.
    fn authenticated(&mut self, connection: Connection);

    /// The client opens a session. `opening` may be moved to a task and answered
    /// much later; dropped, it is refused.
    fn session(&mut self, opening: Opening);

    /// The client opens a `direct-tcpip` channel; as [`session`](Self::session).
    fn direct_tcpip(&mut self, target: TcpTarget, opening: Opening);

    /// The client makes a request on a session channel.
    fn request(&mut self, request: &ChannelRequest) -> Answer;

    /// The client asks for a remote forward; the port that is listened on, or
    /// `None`. This one may wait (for some seconds, then it is refused): replies
    /// to global requests come in their order (RFC 4254 section 4).
    fn tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
    ) -> impl Future<Output = Option<u32>> + Send {
        let _ = (address, port);
        std::future::ready(None)
    }

    /// The client takes a remote forward back; whether there was one. May wait as
    /// [`tcpip_forward`](Self::tcpip_forward) may.
    fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
    ) -> impl Future<Output = bool> + Send {
        let _ = (address, port);
        std::future::ready(false)
    }
}

/// How a connection ended in an orderly way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer said goodbye or closed its end.
    ByPeer,
    /// [`Connection::disconnect`] was called.
    ByUs,
}

/// Why a connection was ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The peer did not log in within [`Limits::grace`].
    #[error("no login within the grace time of {} s", .0.as_secs())]
    GraceTime(Duration),
    /// The peer failed or asked too often.
    #[error("too many authentication attempts")]
    AuthLimit,
    /// The peer sent far more than its window allows.
    #[error("the peer overran its window")]
    Overrun,
    /// The connection broke.
    #[error("connection lost: {0}")]
    Io(String),
    /// The peer broke the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// A bug of ours: a panic in this connection's task.
    #[error("internal error: the connection's task panicked")]
    Panicked,
}

/// An authenticated connection, to open channels towards the user and to end it.
#[derive(Clone)]
pub struct Connection {
    flow: Arc<Flow>,
    handle: russh::server::Handle,
}

impl Connection {
    pub(super) fn new(flow: Arc<Flow>, handle: russh::server::Handle) -> Self {
        Connection { flow, handle }
    }

    /// Opens a channel to the user's agent (`auth-agent@openssh.com`). Only after a
    /// session asked for agent forwarding: OpenSSH warns of a break-in otherwise.
    pub async fn open_agent(&self) -> Result<Channel, OpenError> {
        let handle = self.handle.clone();
        self.open(async move { handle.channel_open_agent().await })
            .await
    }

    /// Opens a channel for a connection that came in on a remote forward
    /// (RFC 4254 section 7.2): `address` and `port` as the client asked for them.
    pub async fn open_forwarded_tcpip(
        &self,
        address: &str,
        port: u32,
        originator_host: &str,
        originator_port: u32,
    ) -> Result<Channel, OpenError> {
        let (handle, address, from) = (
            self.handle.clone(),
            address.to_owned(),
            originator_host.to_owned(),
        );
        self.open(async move {
            handle
                .channel_open_forwarded_tcpip(address, port, from, originator_port)
                .await
        })
        .await
    }

    /// Opens an X11 channel (RFC 4254 section 6.3.2).
    pub async fn open_x11(
        &self,
        originator_host: &str,
        originator_port: u32,
    ) -> Result<Channel, OpenError> {
        let (handle, from) = (self.handle.clone(), originator_host.to_owned());
        self.open(async move { handle.channel_open_x11(from, originator_port).await })
            .await
    }

    /// Whether the client answers within `patience`: it is offered a session, which clients of SSH refuse
    /// at once (RFC 4254 section 6.1) and OpenSSH without a word to its user. The engine tells nobody of
    /// the answers to its own keepalives. Whatever else arrives meanwhile is as good: on a slow line the
    /// answer may wait behind much that was sent before. Cancel-safe.
    pub async fn is_alive(&self, patience: Duration) -> bool {
        let before = self.flow.heard();
        let answered = tokio::time::timeout(patience, self.handle.channel_open_session());
        tokio::select! {
            biased;
            () = self.flow.ended.wait() => false,
            answer = answered => match answer {
                // A refusal is an answer; a channel is one as well, and nobody's.
                Ok(Ok(_) | Err(russh::Error::ChannelOpenFailure(_))) => true,
                Ok(Err(_)) => false,
                Err(_) => self.flow.heard() != before && !self.flow.ended.is_set(),
            },
        }
    }

    async fn open(
        &self,
        opening: impl Future<Output = Result<russh::Channel<russh::server::Msg>, russh::Error>>
        + Send
        + 'static,
    ) -> Result<Channel, OpenError> {
        let (flow, handle) = (Arc::clone(&self.flow), self.handle.clone());
        claim(async move {
            let half = opening.await?.split().1;
            let gone = flow.adopt(half.id().number(), Kind::Stream);
            Ok(channel::open(
                flow,
                Kind::Stream,
                Writer::User(half, handle),
                gone,
            ))
        })
        .await
    }

    /// Ends the connection with a sentence that OpenSSH shows to its user, and
    /// returns when it is over: within seconds, whatever the peer does. Safe to
    /// call from anywhere but [`Front`]'s methods, and again.
    pub async fn disconnect(&self, text: &str) {
        self.say_goodbye(text);
        self.closed().await;
    }

    /// As [`disconnect`](Self::disconnect), without waiting for the end: to be called from anywhere. Said
    /// inside [`Front::tcpip_forward`], it is heard in the place of the answer.
    pub fn say_goodbye(&self, text: &str) {
        self.flow
            .say_farewell(Farewell::Application(text.to_owned()));
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.flow.ended.is_set()
    }

    /// Whether so many channels were closed by us before the peer did that a new connection is due: the
    /// engine keeps some memory of each of them until the end.
    pub fn is_worn_out(&self) -> bool {
        self.flow.is_worn_out()
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

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// Serves one connection until it is over; then all its queues are closed and
/// everyone who waited on it is released. Dropping the future cuts the connection.
pub async fn serve<S, F>(
    stream: S,
    config: Arc<ServerConfig>,
    front: F,
) -> Result<Ended, ServeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Front,
{
    let limits = config.limits.clone();
    let caps = Caps {
        channels: limits.channels,
        sessions: limits.sessions,
    };
    let flow = Flow::new(Side::User, caps);
    let _cut = CutOnDrop(Arc::clone(&flow));
    let deadline = Instant::now() + limits.grace;
    let stream = EngineStream::new(stream, Arc::clone(&flow));
    let handler = Handler::new(Arc::clone(&flow), &limits, front);
    let engine = Arc::clone(&config.engine);
    // The peer's first line is waited for here: a silent peer gets no further.
    let running = timeout_at(deadline, russh::server::run_stream(engine, stream, handler))
        .await
        .map_err(|_| ServeError::GraceTime(limits.grace))?
        .map_err(ServeError::from)?;
    supervise(running, &flow, deadline, limits.grace).await
}

/// Waits for the engine, or ends it. Its loop runs in a task of its own, so that
/// a panic in it is an error here, and goes on when its handle is dropped, so that
/// it is ended through its stream.
async fn supervise<F: Front>(
    mut running: RunningSession<Handler<F>>,
    flow: &Flow,
    deadline: Instant,
    grace: Duration,
) -> Result<Ended, ServeError> {
    let handle = running.handle();
    tokio::select! {
        result = &mut running => return outcome(result),
        () = too_late(flow, deadline) => {
            flow.kill();
            let _ = timeout(CUT, running).await;
            return Err(ServeError::GraceTime(grace));
        }
        () = flow.farewell_said.wait() => {}
    }
    let (reason, text, verdict) = match flow.farewell() {
        Some(Farewell::Authentication(text)) => (
            Disconnect::NoMoreAuthMethodsAvailable,
            text.to_owned(),
            Err(ServeError::AuthLimit),
        ),
        Some(Farewell::Application(text)) => (Disconnect::ByApplication, text, Ok(Ended::ByUs)),
        None => (Disconnect::ByApplication, String::new(), Ok(Ended::ByUs)),
    };
    let goodbye = async {
        let _ = handle.disconnect(reason, text, String::new()).await;
        let _ = (&mut running).await;
    };
    if timeout(GOODBYE, goodbye).await.is_err() {
        flow.kill();
        let _ = timeout(CUT, running).await;
    }
    verdict
}

/// Returns if the login is not done in time; never, once it is.
async fn too_late(flow: &Flow, deadline: Instant) {
    tokio::select! {
        biased;
        () = flow.authenticated.wait() => std::future::pending().await,
        () = sleep_until(deadline) => {}
    }
}

fn outcome(result: Result<(), EngineError>) -> Result<Ended, ServeError> {
    match result {
        Ok(()) => Ok(Ended::ByPeer),
        // The ordinary end of a client that closes without a goodbye.
        Err(EngineError::Engine(russh::Error::IO(error)))
            if error.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            Ok(Ended::ByPeer)
        }
        Err(error) => Err(error.into()),
    }
}

impl From<EngineError> for ServeError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Overrun => ServeError::Overrun,
            EngineError::Engine(russh::Error::IO(error)) => ServeError::Io(error.to_string()),
            EngineError::Engine(russh::Error::Join(_)) => ServeError::Panicked,
            EngineError::Engine(error) => ServeError::Protocol(error.to_string()),
        }
    }
}

/// Ends the engine when whoever waits for it goes away.
struct CutOnDrop(Arc<Flow>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}
