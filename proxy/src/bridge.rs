//! The bridge: two channels, one permit, and the watch that ends the first with the last.
//!
//! INVARIANT: no bridge outlives its permit. Each one decides again on every change of state and
//! when its permit ends, and closes within the same turn of the loop. What is relayed is relayed
//! in order and without looking at it; flow control is the business of the two sides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anteroom_core::policy::{self, Access, Capabilities, Decision, Identity, Permit};
use anteroom_core::request::State;
use anteroom_core::view::View;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::exit::Exit;
use crate::live::Killed;
use crate::proxy::Proxy;
use crate::say::{self, LineEnd, SessionEnd};
use anteroom_ssh::{Channel, ChannelRequest, Event, ExitSignal, Inbox, Outbox, RequestKind};

/// A peer that does not read gets this long to take the sentence that explains the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a forwarded connection sent before it closed has this long to reach a node that reads
/// slowly. A program that ends a TCP connection relies on its last bytes (RFC 9293 section 3.6);
/// one that ends its session wants to be gone.
const LAST_BYTES: Duration = Duration::from_secs(30);

/// What a bridge uses of its permit, checked again whenever the decision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    /// A shell, command or subsystem.
    Session,
    /// A connection through the node (`-L`, `-D`).
    LocalForward,
    /// A listener on the node (`-R`) and what comes in through it.
    RemoteForward,
    /// The user's agent, asked by the node (`-A`).
    Agent,
    /// The user's display, used by the node (`-X`).
    X11,
}

impl Uses {
    /// Whether the role lets the permit be used so.
    pub fn allowed_by(self, capabilities: &Capabilities) -> bool {
        match self {
            Uses::Session => true,
            Uses::LocalForward => capabilities.local_forwarding.is_allowed(),
            Uses::RemoteForward => capabilities.remote_forwarding.is_allowed(),
            Uses::Agent => capabilities.agent_forwarding.is_allowed(),
            Uses::X11 => capabilities.x11_forwarding.is_allowed(),
        }
    }
}

/// The permit of something that lives, and everything needed to ask for it again.
#[derive(Clone)]
pub struct Watch {
    proxy: Arc<Proxy>,
    identity: Identity,
    access: Access,
    command: Option<Arc<[u8]>>,
    shown: String,
    uses: Uses,
    permit: Permit,
    /// When the connection proved its key.
    since: OffsetDateTime,
    /// What is relayed under it; `None` for what carries no data of its own.
    activity: Option<Arc<Activity>>,
    /// Who ends it from outside; `None` for what is no session.
    killed: Option<Killed>,
}

/// When something last went through a bridge, in either direction.
struct Activity {
    began: Instant,
    /// Milliseconds from there to the last event.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Activity {
        Activity {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }
    }

    fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }
}

impl Watch {
    /// Watches over `permit`, which was decided for `identity` and `access` on a connection that
    /// proved its key at `since`.
    pub fn new(
        proxy: Arc<Proxy>,
        identity: Identity,
        access: Access,
        shown: String,
        uses: Uses,
        permit: Permit,
        since: OffsetDateTime,
    ) -> Watch {
        Watch {
            proxy,
            identity,
            access,
            command: None,
            shown,
            uses,
            permit,
            since,
            activity: None,
            killed: None,
        }
    }

    /// The same for a session that `killed` tells the end of.
    #[must_use]
    pub fn killed_by(self, killed: Killed) -> Watch {
        Watch {
            killed: Some(killed),
            ..self
        }
    }

    /// Watches from now on over how long nothing is relayed, too.
    fn watch_activity(&mut self) -> Arc<Activity> {
        let activity = Arc::new(Activity::new());
        self.activity = Some(activity.clone());
        activity
    }

    /// The same for a session that runs this command and nothing else.
    #[must_use]
    pub fn running(self, command: Option<&[u8]>) -> Watch {
        Watch {
            command: command.map(Arc::from),
            ..self
        }
    }

    /// The same permit watched for another use.
    pub fn for_use(&self, uses: Uses) -> Watch {
        Watch {
            uses,
            ..self.clone()
        }
    }

    /// The permit as it was last decided.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Resolves with the sentence that says why, when there is no permit for this use any more.
    pub async fn ended(&mut self) -> String {
        let mut changes = self.proxy.state.changes();
        loop {
            changes.borrow_and_update();
            if let Some(why) = self.decide_again() {
                return why;
            }
            self.next_turn(&mut changes).await;
        }
    }

    fn decide_again(&mut self) -> Option<String> {
        if let Some(by) = self.killed.as_ref().and_then(Killed::by) {
            return Some(self.said(&SessionEnd::Killed { by }));
        }
        let now = self.proxy.state.now();
        let view = self.proxy.state.view();
        let command = self.command.as_deref();
        match policy::decide_for(&view, &self.identity, &self.access, command, now) {
            Decision::Permit(permit) => {
                self.permit = permit;
                if !self.uses.allowed_by(self.permit.capabilities()) {
                    let why = "this use is no longer allowed by the role".to_owned();
                    return Some(self.said(&SessionEnd::NoLongerAllowed { why }));
                }
                self.out_of_time(now)
            }
            Decision::Ask(_) => Some(self.access_ended(&view, now)),
            Decision::Deny(denial) => Some(self.said(&SessionEnd::NoLongerAllowed {
                why: say::denial(&denial, &self.shown),
            })),
        }
    }

    /// There is a permit, and a role bounds how long a session lasts or may be silent.
    fn out_of_time(&self, now: OffsetDateTime) -> Option<String> {
        let limits = self.permit.limits();
        let over = self.permit.session_ends(self.since);
        if let (Some(ttl), true) = (limits.session_ttl, over.is_some_and(|at| at <= now)) {
            return Some(self.said(&SessionEnd::TooLong { ttl }));
        }
        let silent_until = self.silent_until()?;
        let after = limits.idle_timeout?;
        (silent_until <= Instant::now()).then(|| self.said(&SessionEnd::Idle { after }))
    }

    /// When it is over if nothing is relayed until then.
    fn silent_until(&self) -> Option<Instant> {
        let activity = self.activity.as_ref()?;
        let after = self.permit.limits().idle_timeout?.unsigned_abs();
        Some(activity.last() + after)
    }

    /// The permit rested on a request or a role, and does no more: which, and how it ended.
    fn access_ended(&self, view: &View, now: OffsetDateTime) -> String {
        let Some(request) = self.permit.request() else {
            let why = "your roles no longer allow it".to_owned();
            return self.said(&SessionEnd::NoLongerAllowed { why });
        };
        let end = match view.request(&request) {
            Some(request) if request.access_expires <= now => SessionEnd::AccessEnded {
                at: request.access_expires,
            },
            Some(request) => SessionEnd::NoLongerAllowed {
                why: say::outcome(request, now)
                    .filter(|_| request.state != State::Approved)
                    .unwrap_or_else(|| format!("request {} no longer grants it", request.id)),
            },
            None => SessionEnd::NoLongerAllowed {
                why: say::request_deleted(&request.to_string()),
            },
        };
        self.said(&end)
    }

    fn said(&self, end: &SessionEnd) -> String {
        say::session_ended(&self.shown, end)
    }

    async fn next_turn(&self, changes: &mut watch::Receiver<u64>) {
        let end = async {
            match self.permit.session_ends(self.since) {
                Some(ends) => {
                    let left = (ends - self.proxy.state.now()).max(time::Duration::ZERO);
                    tokio::time::sleep(left.try_into().unwrap_or(Duration::MAX)).await;
                }
                None => std::future::pending().await,
            }
        };
        let mut killed = self.killed.clone();
        let killed = async {
            match &mut killed {
                Some(killed) => killed.wait().await,
                None => std::future::pending().await,
            }
        };
        let silence = async {
            match self.silent_until() {
                // What is relayed meanwhile moves the end; it is looked at anew when this is over.
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender lives in the state, which `self.proxy` keeps alive.
            _ = changes.changed() => {}
            () = end => {}
            () = killed => {}
            () = silence => {}
        }
    }
}

/// How a bridge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The node closed its side: the command is over.
    ByNode,
    /// The connection to the node broke.
    NodeLost,
    /// The user closed his side, or is gone.
    ByUser,
    /// The permit ended; the sentence that was said.
    ByPermit(String),
    /// The proxy is being stopped and the drain time is over.
    ByShutdown,
}

/// What went through a bridge.
#[derive(Debug, Default)]
pub struct Tally {
    to_node: AtomicU64,
    to_user: AtomicU64,
    exit: OnceLock<String>,
}

impl Tally {
    /// Bytes from the user to the node.
    pub fn to_node(&self) -> u64 {
        self.to_node.load(Ordering::Relaxed)
    }

    /// Bytes from the node to the user, standard error included.
    pub fn to_user(&self) -> u64 {
        self.to_user.load(Ordering::Relaxed)
    }

    /// How the command ended, if it did.
    pub fn exit(&self) -> Option<&str> {
        self.exit.get().map(String::as_str)
    }
}

/// Relays a session channel until either side closes it or its permit ends.
///
/// `requests` are what the user asked for before there was a node; they are replayed in order.
pub async fn session(
    user: Channel,
    node: Channel,
    requests: Vec<ChannelRequest>,
    line_end: LineEnd,
    watch: &mut Watch,
    tally: &Tally,
) -> Ended {
    let farewell = user.outbox.clone();
    let ended = match replay(&user, &node, requests, watch).await {
        Ok(()) => relay(user, node, watch, tally, Duration::ZERO, line_end).await,
        Err(ended) => ended,
    };
    let last = match &ended {
        Ended::ByNode | Ended::ByUser => None,
        Ended::NodeLost => {
            let why = say::connection_broke(&watch.shown);
            Some((why, Exit::Unavailable))
        }
        Ended::ByPermit(why) => Some((why.clone(), Exit::Denied)),
        Ended::ByShutdown => Some((watch.said(&SessionEnd::Shutdown), Exit::Unavailable)),
    };
    if let Some((why, exit)) = last {
        let words = async {
            // It begins a line of its own: the program may have left one half-written.
            let line = say::lines(&format!("\n{why}"), line_end);
            if farewell.stderr(line).await.is_ok() {
                // The peer is gone if this fails, which is what it is for.
                farewell.exit_status(exit.code().into()).await.ok();
            }
        };
        // A peer that does not read must not keep the bridge alive: it closes without words.
        tokio::time::timeout(LAST_WORDS, words).await.ok();
    }
    farewell.close().await;
    ended
}

/// Asks the node for what the user asked for; ends as a bridge does, because a node that does
/// not read may keep it waiting.
async fn replay(
    user: &Channel,
    node: &Channel,
    requests: Vec<ChannelRequest>,
    watch: &mut Watch,
) -> Result<(), Ended> {
    let proxy = watch.proxy.clone();
    let asking = async {
        for request in requests {
            if node.outbox.request(request).await.is_err() {
                // What the node still said is in its inbox, and the relay comes to the end of it.
                break;
            }
        }
    };
    tokio::select! {
        // Nothing is asked of the node before it is decided that it may be: opening its channel took time.
        biased;
        why = watch.ended() => Err(Ended::ByPermit(why)),
        () = asking => Ok(()),
        () = user.outbox.gone() => Err(Ended::ByUser),
        () = proxy.stopping() => Err(Ended::ByShutdown),
    }
}

/// Relays a forwarded connection; there is nobody to say anything to.
pub async fn stream(user: Channel, node: Channel, watch: &mut Watch) -> Ended {
    let (user_out, node_out) = (user.outbox.clone(), node.outbox.clone());
    let ended = relay(
        user,
        node,
        watch,
        &Tally::default(),
        LAST_BYTES,
        LineEnd::Lf,
    )
    .await;
    user_out.close().await;
    node_out.close().await;
    ended
}

/// `linger` is how long what the user's side sent before it closed may take to reach the node.
async fn relay(
    user: Channel,
    node: Channel,
    watch: &mut Watch,
    tally: &Tally,
    linger: Duration,
    line_end: LineEnd,
) -> Ended {
    let (user_out, node_out) = (user.outbox.clone(), node.outbox.clone());
    let proxy = watch.proxy.clone();
    let activity = watch.watch_activity();
    let (to_node, to_user) = (
        Counted::new(&tally.to_node, tally, &activity),
        Counted::new(&tally.to_user, tally, &activity),
    );
    let up = async {
        match pump(user.inbox, node.outbox, to_node, line_end).await {
            Stopped::SourceClosed | Stopped::SourceLost => {}
            // The node takes no more input; what it still has to say goes on: `yes | ssh node head -1`.
            Stopped::SinkGone => std::future::pending().await,
        }
    };
    let down = pump(node.inbox, user.outbox, to_user, line_end);
    let ended = tokio::select! {
        // What the node still had to say is worth more than the news that the user's side closed.
        biased;
        stopped = down => match stopped {
            Stopped::SourceClosed => Ended::ByNode,
            Stopped::SourceLost => Ended::NodeLost,
            Stopped::SinkGone => Ended::ByUser,
        },
        why = watch.ended() => Ended::ByPermit(why),
        () = up => Ended::ByUser,
        // `up` may be waiting for room at a node that does not read: leaving is noticed all the same.
        () = async { user_out.gone().await; tokio::time::sleep(linger).await } => Ended::ByUser,
        () = proxy.stopping() => Ended::ByShutdown,
    };
    node_out.close().await;
    ended
}

/// Why one direction is over.
enum Stopped {
    /// The sender closed its channel, having said all it had to say.
    SourceClosed,
    /// The sender's connection ended without a close.
    SourceLost,
    /// The receiver is gone.
    SinkGone,
}

/// Where one direction is counted.
struct Counted<'t> {
    bytes: &'t AtomicU64,
    tally: &'t Tally,
    activity: &'t Activity,
}

impl<'t> Counted<'t> {
    fn new(bytes: &'t AtomicU64, tally: &'t Tally, activity: &'t Activity) -> Self {
        Counted {
            bytes,
            tally,
            activity,
        }
    }

    fn add(&self, data: &[u8]) {
        self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
    }
}

/// Moves everything from one side to the other, in order, until a side is over.
async fn pump(mut from: Inbox, to: Outbox, counted: Counted<'_>, line_end: LineEnd) -> Stopped {
    let tally = counted.tally;
    while let Some(event) = from.next().await {
        counted.activity.touch();
        let sent = match event {
            Event::Data(data) => {
                counted.add(&data);
                to.data(data).await
            }
            Event::Stderr(data) => {
                counted.add(&data);
                to.stderr(data).await
            }
            Event::Request(request) => to.request(request).await,
            // Once in a channel's life (RFC 4254 section 6.10): the first one counts, for the log and for the
            // user alike.
            Event::ExitStatus(status) => match tally.exit.set(status.to_string()) {
                Ok(()) => to.exit_status(status).await,
                Err(_) => Ok(()),
            },
            Event::ExitSignal(signal) => {
                let said = format!("signal {}", signal.signal.name());
                match tally.exit.set(said) {
                    Ok(()) => to.exit_signal(cleaned(signal)).await,
                    Err(_) => Ok(()),
                }
            }
            Event::Eof => to.eof().await,
            Event::NodeAccepted(_) => Ok(()),
            Event::NodeRefused(request) => refused(request, &to, line_end).await,
            Event::Close => return Stopped::SourceClosed,
        };
        if sent.is_err() {
            return Stopped::SinkGone;
        }
    }
    Stopped::SourceLost
}

/// What a node says about the end of its program is shown by clients as it is, and is no output of the program.
fn cleaned(signal: ExitSignal) -> ExitSignal {
    let message = say::clean(&signal.message).into_owned();
    ExitSignal { message, ..signal }
}

/// A request that the node refused was granted to the user at once (the engine answers in its
/// callback), so the refusal is told in words, and as the end of what could not be started.
async fn refused(
    request: RequestKind,
    user: &Outbox,
    line_end: LineEnd,
) -> Result<(), anteroom_ssh::Gone> {
    let what = match request {
        RequestKind::Pty => "a terminal",
        RequestKind::Shell => "a shell",
        RequestKind::Exec => "the command",
        RequestKind::Subsystem => "the subsystem",
        RequestKind::AgentForward => "agent forwarding",
        RequestKind::X11 => "X11 forwarding",
        RequestKind::Env | RequestKind::WindowChange | RequestKind::Signal => return Ok(()),
    };
    user.stderr(say::lines(&say::node_refused(what), line_end))
        .await?;
    if request.starts_program() {
        user.exit_status(Exit::Failed.code().into()).await?;
        user.close().await;
    }
    Ok(())
}
