//! A node's own connection: `node+NAME`, with its host key.
//!
//! It has one purpose. Either it asks for one remote forward, which becomes the way to the node, and may open one
//! control channel for the node agent beside it; that is for nodes that are registered so. Or it gives one command,
//! by which any node fetches what its sshd has to know (`commands`). Everything else is refused.

mod commands;
mod control;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anteroom_ca::names::AdmittedName;
use anteroom_core::id::NodeId;
use anteroom_core::node::Node;
use anteroom_core::target::NodeRef;
use anteroom_core::view::View;
use anteroom_node::protocol::SUBSYSTEM;
use ssh_key::PublicKey;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::audit::{Entry, Event};
use crate::exit::Exit;
use crate::proxy::Proxy;
use crate::say::{self, LineEnd};
use crate::state::HostKey;
use crate::store::StoreError;
use crate::tunnels::{Act, Taken, Tunnel};
use anteroom_ssh::{
    Answer, Channel, ChannelRequest, Connection, Event as Said, OpenRefusal, Opening,
};

/// What the user name of a node's own connection begins with.
const PREFIX: &str = "node+";

/// A connection that has not got its forward by then, or given its command, is of no use to anybody.
const FIRST_FORWARD: Duration = Duration::from_secs(20);

/// How long one that gave a command lives in all: time for the longest list on a slow line, and no more, since each
/// takes a node's place.
const FETCHING: Duration = Duration::from_secs(60);

/// How often an idle tunnel is asked whether it is there. Firewalls on the way forget a silent connection in
/// minutes, and a node whose cable was pulled shows as gone within this and [`PATIENCE`].
const ASK: Duration = Duration::from_secs(30);

/// How much that varies, so that thousands that came back together are not asked together.
const ASK_SPREAD_MS: u64 = 5000;

/// How long an idle tunnel has to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The port that a node is told where it left the choice to us. It is listened on by nobody; the node knows its
/// forward again by it.
const MADE_UP_PORT: u32 = 22;

/// A forward's address, as long as a host name may be.
const LONGEST_ADDRESS: usize = 255;

/// How long a session on such a connection has to say what it wants.
const FIRST_REQUEST: Duration = Duration::from_secs(10);

/// A node that has proven one of its host keys.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    node: NodeId,
    key: HostKey,
}

impl Arrival {
    pub(super) fn node(&self) -> NodeId {
        self.node
    }
}

/// Whether the user name is of a node's own connection.
pub(super) fn is_of_a_node(user: &str) -> bool {
    user.starts_with(PREFIX)
}

/// The node whose own connection this would be, if the key is one of its host keys. What the connection may do is
/// asked when it is wanted: whoever stole the host key of a node with an address must not attract its sessions.
pub(super) fn recognise(proxy: &Proxy, user: &str, key: &PublicKey) -> Option<Arrival> {
    let node = NodeRef::parse(user.strip_prefix(PREFIX)?).ok()?;
    let key = HostKey::of(key)?;
    let (view, now) = (proxy.state.view(), proxy.state.now());
    let mut found = called(&view, &node).filter(|node| key.is_of(&view, &node.id, now));
    // Two nodes may share name and key: then it is said by UUID which one this is.
    match (found.next(), found.next()) {
        (Some(node), None) => Some(Arrival { node: node.id, key }),
        (Some(_) | None, _) => None,
    }
}

fn called<'v>(view: &'v View, node: &'v NodeRef) -> Box<dyn Iterator<Item = &'v Arc<Node>> + 'v> {
    match node {
        NodeRef::Name(name) => Box::new(view.nodes_named(name)),
        NodeRef::Id(id) => Box::new(view.node(id).into_iter()),
        NodeRef::Resource(_) => Box::new(std::iter::empty()),
    }
}

/// What a connection is for. It is settled once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Forward,
    Command,
}

/// One connection of a node.
pub(super) struct TunnelDoor {
    proxy: Arc<Proxy>,
    arrival: Arrival,
    from: SocketAddr,
    since: OffsetDateTime,
    connection: Connection,
    purpose: OnceLock<Purpose>,
    tunnel: OnceLock<Arc<Tunnel>>,
    routed: watch::Sender<bool>,
    /// Whether the control channel was opened.
    controlled: AtomicBool,
}

impl TunnelDoor {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        arrival: Arrival,
        from: SocketAddr,
        connection: Connection,
        since: OffsetDateTime,
    ) -> Arc<Self> {
        let door = Arc::new(Self {
            proxy,
            arrival,
            from,
            since,
            connection,
            purpose: OnceLock::new(),
            tunnel: OnceLock::new(),
            routed: watch::Sender::new(false),
            controlled: AtomicBool::new(false),
        });
        tokio::spawn(Arc::clone(&door).live());
        door
    }

    /// Waits for the forward, then asks again and again whether the node is there, until the connection ends.
    async fn live(self: Arc<Self>) {
        tokio::select! {
            biased;
            () = self.is_routed() => {}
            // INVARIANT: the connection is over only when `listen` is, so that what it routed is seen below.
            () = self.connection.closed() => {}
            () = tokio::time::sleep(FIRST_FORWARD) => {
                let why = self.overstayed().await;
                return self.connection.disconnect(why).await;
            }
        }
        let Some(tunnel) = self.tunnel.get() else {
            return;
        };
        let addresses = self.proxy.state.addresses();
        let now = self.proxy.state.now();
        addresses.tunnel_opened(tunnel.address(), self.arrival.node, now);
        let (recorded, ()) = tokio::join!(self.record_open(), self.ask_again(tunnel));
        let held = self.proxy.tunnels().close(tunnel);
        let now = self.proxy.state.now();
        addresses.tunnel_closed(tunnel.address(), self.arrival.node, now);
        if !recorded {
            return;
        }
        let taken = "another connection of the node took its place";
        let entry = self.entry().state("closed");
        self.log(if held { entry } else { entry.reason(taken) })
            .await;
    }

    /// Writes down that the tunnel is open as soon as that is the node's turn: what lasts is in the log, and who
    /// comes and goes all the time does not fill it. Whether it was written before the connection ended.
    async fn record_open(&self) -> bool {
        while let Err(due) = self.turn(Act::Opening) {
            tokio::select! {
                () = self.connection.closed() => return false,
                () = sleep_until(due) => {}
            }
        }
        self.log(self.entry().state("open")).await;
        true
    }

    /// Takes the node's turn for `act`, which is the same on all of its connections.
    fn turn(&self, act: Act) -> Result<(), Instant> {
        let tunnels = self.proxy.tunnels();
        tunnels.turn(self.arrival.node, act, Instant::now())
    }

    /// What a connection is told that is no tunnel and goes on; one that fetches something has its time.
    async fn overstayed(&self) -> &'static str {
        if self.purpose.get() != Some(&Purpose::Command) {
            return say::TUNNEL_WITHOUT_FORWARD;
        }
        tokio::select! {
            () = self.connection.closed() => {}
            () = tokio::time::sleep(FETCHING.saturating_sub(FIRST_FORWARD)) => {}
        }
        say::NODE_COMMAND_TOOK_TOO_LONG
    }

    /// Resolves when the node has got its forward.
    async fn is_routed(&self) {
        let mut routed = self.routed.subscribe();
        // The sender is in `self`: an error cannot happen while `self` is borrowed.
        if routed.wait_for(|routed| *routed).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The tunnel, once it is there; `None` if it does not come.
    async fn routed(&self) -> Option<Arc<Tunnel>> {
        tokio::time::timeout(FIRST_REQUEST, self.is_routed())
            .await
            .ok()?;
        self.tunnel.get().cloned()
    }

    async fn ask_again(&self, tunnel: &Tunnel) {
        let node = self.arrival.node;
        loop {
            self.proxy
                .state
                .presence()
                .heard(node, self.proxy.state.now());
            let spread = Duration::from_millis(rand::random_range(0..ASK_SPREAD_MS));
            tokio::select! {
                () = self.connection.closed() => return,
                () = self.proxy.stopping() => {
                    return self.connection.disconnect(say::TUNNEL_UNTIL_LATER).await;
                }
                () = tokio::time::sleep(ASK + spread) => {}
            }
            if !self.connection.is_alive(PATIENCE).await {
                tracing::info!(%node, from = %self.from.ip(), "a node's tunnel does not answer");
                return self.connection.disconnect(say::TUNNEL_SILENT).await;
            }
            if self.connection.is_worn_out() && tunnel.is_idle() {
                return self.connection.disconnect(say::TUNNEL_UNTIL_LATER).await;
            }
        }
    }

    /// Whether the node is registered as one that connects by itself.
    fn keeps_a_tunnel(&self) -> bool {
        let (view, now) = (self.proxy.state.view(), self.proxy.state.now());
        self.arrival.key.opens(&view, &self.arrival.node, now)
    }

    /// Whether this is the node's tunnel, or may still become it.
    fn may_be_a_tunnel(&self) -> bool {
        let may_become = || self.purpose.get() != Some(&Purpose::Command);
        self.tunnel.get().is_some() || self.keeps_a_tunnel() && may_become()
    }

    /// The one forward: the port that the node is told. It waits as long as the holder of the node's place has
    /// to answer.
    pub(super) async fn listen(&self, address: &str, port: u32) -> Option<u32> {
        if !self.keeps_a_tunnel() {
            self.not_permitted("a remote forward, and is dialled");
            self.connection.say_goodbye(say::TUNNEL_IS_DIALLED);
            return None;
        }
        if self.purpose.set(Purpose::Forward).is_err() || address.len() > LONGEST_ADDRESS {
            self.not_permitted("a second remote forward");
            return None;
        }
        let told = if port == 0 { MADE_UP_PORT } else { port };
        let tunnel = Tunnel::new(
            self.arrival.node,
            self.arrival.key.clone(),
            self.connection.clone(),
            self.from,
            self.since,
            (address.to_owned(), told),
        );
        match self.proxy.tunnels().open(&tunnel).await {
            Ok(displaced) => {
                if let Some(old) = displaced {
                    old.say_goodbye(say::TUNNEL_SILENT);
                }
                // Set once: this is the only place, and requests come one after the other.
                let _ = self.tunnel.set(tunnel);
                self.routed.send_replace(true);
                Some(told)
            }
            Err(taken) => {
                self.refuse(taken);
                None
            }
        }
    }

    /// The forward is taken back, and with it all there was to this connection.
    pub(super) fn unlisten(&self) -> bool {
        self.connection.say_goodbye("");
        self.tunnel.get().is_some()
    }

    fn refuse(&self, Taken(holder): Taken) {
        let view = self.proxy.state.view();
        let id = self.arrival.node;
        let name = view
            .node(&id)
            .map_or_else(|| id.to_string(), |node| node.name.to_string());
        let why = say::tunnel_taken(&name, holder.from, holder.since);
        self.connection.say_goodbye(&why);
        if self.turn(Act::SecondConnection).is_ok() {
            let entry = Entry::failed(Event::NodeTunnel, why);
            self.log_later(self.about(entry).state("refused"));
        }
    }

    /// A `direct-tcpip` channel: none.
    pub(super) async fn forward(self: Arc<Self>, opening: Opening) {
        self.not_permitted("a connection through the proxy");
        let why = say::TUNNEL_ONLY_FORWARD.to_owned();
        opening.reject(OpenRefusal::Prohibited(why)).await;
    }

    /// A session channel: the node agent's control channel, a command, or a sentence.
    pub(super) async fn session(self: Arc<Self>, opening: Opening) {
        let mut channel = opening.accept().await;
        let wanted = tokio::time::timeout(FIRST_REQUEST, first_request(&mut channel)).await;
        match wanted {
            Ok(Some(ChannelRequest::Exec(command))) => {
                if self.purpose.set(Purpose::Command).is_err() {
                    self.not_permitted("a command beside something else");
                    return refuse_session(channel, say::TUNNEL_ONLY_FORWARD).await;
                }
                commands::serve(&self, &command, channel).await;
            }
            Ok(Some(ChannelRequest::Subsystem(name)))
                if name == SUBSYSTEM && self.may_be_a_tunnel() =>
            {
                if self.controlled.swap(true, Ordering::Relaxed) {
                    return refuse_session(channel, say::TUNNEL_ONE_CONTROL).await;
                }
                control::serve(&self, channel).await;
                self.controlled.store(false, Ordering::Relaxed);
            }
            Ok(Some(_)) => {
                self.not_permitted("a session");
                refuse_session(channel, say::TUNNEL_ONLY_FORWARD).await;
            }
            Ok(None) | Err(_) => channel.outbox.close().await,
        }
    }

    /// Writes down that it wanted more than it may, once in a while.
    fn not_permitted(&self, what: &str) {
        self.log_refused(&format!("the connection of a node asked for {what}"));
    }

    fn log_refused(&self, why: &str) {
        if self.turn(Act::Refusal).is_err() {
            return;
        }
        let entry = Entry::failed(Event::NodeTunnel, why);
        self.log_later(self.about(entry).state("refused"));
    }

    /// The names that a certificate of the node carries beside its UUID: what an operator or a token had certified,
    /// and nothing more. A node's name may be its own word.
    async fn certified_names(&self) -> Result<Vec<AdmittedName>, StoreError> {
        let (proxy, node) = (&self.proxy, self.arrival.node);
        let known = proxy.state.reader().certified_names_of(node).await?;
        let id = node.to_string();
        let known = known.iter().map(String::as_str).filter(|name| *name != id);
        let names = &proxy.commands.place.names;
        Ok(crate::admin::admitted_names(names, known))
    }

    fn entry(&self) -> Entry {
        self.about(Entry::new(Event::NodeTunnel))
    }

    fn about(&self, entry: Entry) -> Entry {
        let id = self.arrival.node;
        let entry = entry.node_id(id).remote_addr(self.from);
        let entry = entry.key(&self.arrival.key.fingerprint);
        match self.proxy.state.view().node(&id) {
            Some(node) => entry.node(&node.name),
            None => entry,
        }
    }

    async fn log(&self, entry: Entry) {
        match self.proxy.state.audit(entry).await {
            // A proxy that stops ends every tunnel; that it stopped is in the log.
            Ok(()) | Err(StoreError::Stopped) => {}
            Err(error) => {
                tracing::error!("what a node's tunnel did could not be recorded: {error}");
            }
        }
    }

    /// The same beside the connection, whose loop must not wait for the disk.
    fn log_later(&self, entry: Entry) {
        let proxy = Arc::clone(&self.proxy);
        tokio::spawn(async move {
            if let Err(error) = proxy.state.audit(entry).await {
                tracing::error!("what a node's tunnel did could not be recorded: {error}");
            }
        });
    }
}

/// What such a connection is told about a channel request at once. What is wanted of a session is answered with a
/// sentence, so it has to begin; what prepares one is of no use.
pub(super) fn answer(request: &ChannelRequest) -> Answer {
    match request {
        ChannelRequest::Shell | ChannelRequest::Exec(_) | ChannelRequest::Subsystem(_) => {
            Answer::Success
        }
        ChannelRequest::Pty(_)
        | ChannelRequest::Env { .. }
        | ChannelRequest::WindowChange(_)
        | ChannelRequest::Signal(_)
        | ChannelRequest::AgentForward
        | ChannelRequest::X11(_) => Answer::Failure,
    }
}

async fn first_request(channel: &mut Channel) -> Option<ChannelRequest> {
    loop {
        match channel.inbox.next().await? {
            Said::Request(request) => return Some(request),
            Said::Close => return None,
            Said::Data(_)
            | Said::Stderr(_)
            | Said::Eof
            | Said::ExitStatus(_)
            | Said::ExitSignal(_)
            | Said::NodeAccepted(_)
            | Said::NodeRefused(_) => {}
        }
    }
}

/// Says why and ends the session. A peer that does not read is cut with its connection.
async fn refuse_session(channel: Channel, why: &str) {
    let words = async {
        let line = say::lines(&format!("ERROR: {why}"), LineEnd::Lf);
        if channel.outbox.stderr(line).await.is_ok() {
            channel
                .outbox
                .exit_status(Exit::Denied.code().into())
                .await
                .ok();
        }
        channel.outbox.close().await;
    };
    tokio::time::timeout(FIRST_REQUEST, words).await.ok();
}
