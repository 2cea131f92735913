//! The nodes that are connected by themselves, and the way to them.
//!
//! A node behind NAT logs in with its host key and asks for one remote forward. No port is listened on for it:
//! the forward is the way on which [`Tunnels::connect`] opens a channel for every connection to that node.
//!
//! Promises: a node has one tunnel; a second one takes its place only when the first does not answer. A
//! tunnel ends when its key is the node's no more. What goes through it is bounded, and so is what a node can make
//! the proxy write and sign, over all of its connections ([`Tunnels::turn`]).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use anteroom_core::id::{NodeId, UserName};
use anteroom_core::view::View;
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::say;
use crate::state::HostKey;
use anteroom_ssh::{ChannelStream, Connection};

/// How long the holder of a node's place has to answer before a second connection takes it: longer than any
/// line takes, and no longer than a node whose cable was pulled should wait.
const TAKEOVER: Duration = Duration::from_secs(5);

/// Connections of one node at a time: the one that holds the place, one that waits for its answer, and
/// some whose refusal is on its way.
const MOST_OF_A_NODE: u32 = 4;

/// Connections through one tunnel at a time. Each may hand over 32 KiB beyond the room that it waited for:
/// together they stay below the 4 MiB at which a peer counts as one that does not read.
const MOST_THROUGH: usize = 100;

/// Of those, how many are one person's: she must not keep the others out.
const MOST_OF_A_USER: u32 = 30;

/// How often changes are looked at, at most: a look is at every tunnel.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How often what was seen of nodes is written to the database.
const WRITE_PRESENCE: Duration = Duration::from_secs(60);

/// By which keys a tunnel is its node's.
#[derive(Debug)]
struct Keys {
    /// The one that it logged in with, or that has taken its place since.
    own: HostKey,
    /// One that is about to.
    expected: Option<HostKey>,
}

/// The tunnel of one node.
#[derive(Debug)]
pub struct Tunnel {
    node: NodeId,
    from: SocketAddr,
    since: OffsetDateTime,
    key: Mutex<Keys>,
    connection: Connection,
    /// What the node asked to be listened on, by which it knows its forward again.
    address: String,
    port: u32,
    places: Arc<Semaphore>,
    /// How many connections go through it for each person who has any.
    shares: Arc<Shares>,
}

type Shares = Mutex<HashMap<UserName, u32>>;

/// One of a person's connections through a tunnel, until this is dropped.
struct Share {
    shares: Arc<Shares>,
    user: UserName,
}

impl Share {
    fn take(shares: &Arc<Shares>, user: &UserName) -> Option<Self> {
        let mut all = shares.lock().unwrap_or_else(PoisonError::into_inner);
        let here = all.get(user).copied().unwrap_or(0);
        if here >= MOST_OF_A_USER {
            return None;
        }
        all.insert(user.clone(), here + 1);
        Some(Self {
            shares: Arc::clone(shares),
            user: user.clone(),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = all.get_mut(&self.user) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                all.remove(&self.user);
            }
        }
    }
}

impl Tunnel {
    /// The way to `node` through `connection`, which asked for `address` and was told `port`.
    pub fn new(
        node: NodeId,
        key: HostKey,
        connection: Connection,
        from: SocketAddr,
        since: OffsetDateTime,
        (address, port): (String, u32),
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            from,
            since,
            key: Mutex::new(Keys {
                own: key,
                expected: None,
            }),
            connection,
            address,
            port,
            places: Arc::new(Semaphore::new(MOST_THROUGH)),
            shares: Arc::default(),
        })
    }

    /// The key that the node proves itself by on this connection.
    pub fn key(&self) -> HostKey {
        self.keys().own.clone()
    }

    /// A key that is about to take the own one's place counts as well, until that is settled.
    pub fn expect_key(&self, key: Option<HostKey>) {
        self.keys().expected = key;
    }

    /// The expected key has taken the own one's place.
    pub fn take_expected_key(&self) {
        let mut keys = self.keys();
        if let Some(key) = keys.expected.take() {
            keys.own = key;
        }
    }

    /// Whether it is its node's tunnel now.
    fn counts(&self, view: &View, now: OffsetDateTime) -> bool {
        let keys = self.keys();
        let mut keys = std::iter::once(&keys.own).chain(&keys.expected);
        keys.any(|key| key.opens(view, &self.node, now))
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        // Each change is one assignment: a panic leaves nothing half done.
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends its connection with a sentence.
    pub fn say_goodbye(&self, why: &str) {
        self.connection.say_goodbye(why);
    }

    /// Whether nothing goes through it now.
    pub fn is_idle(&self) -> bool {
        self.places.available_permits() == MOST_THROUGH
    }
}

/// A tunnel as listings show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connected {
    /// From where the node is connected.
    pub from: SocketAddr,
    /// Since when.
    pub since: OffsetDateTime,
}

/// Why a second connection does not get the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken(pub Connected);

/// Why a node cannot be reached through its tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoWay {
    /// It has none.
    None,
    /// As many connections go through it as may.
    Full,
    /// The node refused; its own words are not repeated.
    Refused(String),
}

/// All tunnels of this proxy.
#[derive(Debug, Default)]
pub struct Tunnels(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    open: HashMap<NodeId, Arc<Tunnel>>,
    connections: HashMap<NodeId, u32>,
    total: u32,
    /// Until when each node's turns are used up. They outlive its connections, or a node that connects again would
    /// have all of them again; bounded by the registered nodes ([`Tunnels::forget`]).
    turns: HashMap<(NodeId, Act), Instant>,
}

/// What a node may make the proxy do only so often, however many connections and channels it opens for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// Take labels that it says of itself. Each time is a commit, and changes what everybody sees.
    Labels,
    /// Sign a host certificate for its agent.
    Renewal,
    /// Write down that its tunnel was opened, and closed.
    Opening,
    /// Write down that a second connection was refused beside the one that holds the place.
    SecondConnection,
    /// Write down that it wanted more than it may.
    Refusal,
}

impl Act {
    /// How often, and how many more may come at once.
    const fn pace(self) -> (Duration, u32) {
        match self {
            Self::Labels | Self::Renewal => (Duration::from_secs(10), 0),
            // A node that is restarted, or whose line is bad, is to be seen; one that comes and goes all the time
            // says nothing new each time.
            Self::Opening => (Duration::from_secs(60), 4),
            Self::SecondConnection | Self::Refusal => (Duration::from_secs(60), 0),
        }
    }
}

/// One connection of a node, counted until this is dropped.
pub struct Seat {
    tunnels: Arc<Tunnels>,
    node: NodeId,
}

impl Tunnels {
    /// Counts a connection of a node, or refuses it where there are too many: of this node, or of all
    /// (`max_tunnels`).
    pub fn seat(self: &Arc<Self>, node: NodeId, limit: u32) -> Option<Seat> {
        let mut all = self.all();
        let here = all.connections.get(&node).copied().unwrap_or(0);
        if here >= MOST_OF_A_NODE || all.total >= limit {
            return None;
        }
        all.connections.insert(node, here + 1);
        all.total += 1;
        Some(Seat {
            tunnels: Arc::clone(self),
            node,
        })
    }

    /// Connections of nodes at this moment.
    pub fn connections(&self) -> usize {
        usize::try_from(self.all().total).unwrap_or(usize::MAX)
    }

    /// Gives `tunnel` its node's place, and returns whom it took it from: one that did not answer.
    ///
    /// # Errors
    /// [`Taken`] while another one holds the place and answers.
    pub async fn open(&self, tunnel: &Arc<Tunnel>) -> Result<Option<Arc<Tunnel>>, Taken> {
        let Err(holder) = self.hold(tunnel, None) else {
            return Ok(None);
        };
        if holder.connection.is_alive(TAKEOVER).await {
            return Err(Taken(holder.shown()));
        }
        match self.hold(tunnel, Some(&holder)) {
            Ok(()) => Ok(Some(holder)),
            // Somebody else was as fast, and is there since this moment.
            Err(other) => Err(Taken(other.shown())),
        }
    }

    /// Takes the place if it is free, or held by `instead_of`.
    fn hold(
        &self,
        tunnel: &Arc<Tunnel>,
        instead_of: Option<&Arc<Tunnel>>,
    ) -> Result<(), Arc<Tunnel>> {
        let mut all = self.all();
        if let Some(holder) = all.open.get(&tunnel.node)
            && !holder.connection.is_closed()
            && !instead_of.is_some_and(|old| Arc::ptr_eq(old, holder))
        {
            return Err(Arc::clone(holder));
        }
        all.open.insert(tunnel.node, Arc::clone(tunnel));
        Ok(())
    }

    /// The tunnel is over; whether it held its node's place until now.
    pub fn close(&self, tunnel: &Arc<Tunnel>) -> bool {
        let mut all = self.all();
        let held = all
            .open
            .get(&tunnel.node)
            .is_some_and(|holder| Arc::ptr_eq(holder, tunnel));
        if held {
            all.open.remove(&tunnel.node);
        }
        held
    }

    /// The tunnel of a node, if it has one.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Option<Connected> {
        let all = self.all();
        let open = all.open.get(node);
        open.filter(|tunnel| !tunnel.connection.is_closed())
            .map(|tunnel| tunnel.shown())
    }

    /// Takes the node's turn for `act`.
    ///
    /// # Errors
    /// The moment from which there is one again; then none was taken.
    pub fn turn(&self, node: NodeId, act: Act, now: Instant) -> Result<(), Instant> {
        let (every, more) = act.pace();
        let mut all = self.all();
        let used_until = all.turns.entry((node, act)).or_insert(now);
        let used = (*used_until).max(now);
        if used > now + every * more {
            return Err(used - every * more);
        }
        *used_until = used + every;
        Ok(())
    }

    /// Forgets the turns of nodes that are no more.
    fn forget(&self, is_registered: impl Fn(&NodeId) -> bool) {
        self.all().turns.retain(|(node, _), _| is_registered(node));
    }

    /// Opens a connection to the node's sshd for `user`.
    ///
    /// # Errors
    /// [`NoWay`].
    pub async fn connect(
        &self,
        node: &NodeId,
        user: Option<&UserName>,
        view: &View,
        now: OffsetDateTime,
    ) -> Result<TunnelStream, NoWay> {
        let tunnel = self.all().open.get(node).cloned().ok_or(NoWay::None)?;
        if tunnel.connection.is_closed() || !tunnel.counts(view, now) {
            return Err(NoWay::None);
        }
        let share = match user {
            Some(user) => Some(Share::take(&tunnel.shares, user).ok_or(NoWay::Full)?),
            None => None,
        };
        let place = Arc::clone(&tunnel.places).try_acquire_owned();
        let place = place.map_err(|_| NoWay::Full)?;
        // Where a connection comes from is nothing that the node has to know.
        let opened =
            tunnel
                .connection
                .open_forwarded_tcpip(&tunnel.address, tunnel.port, "127.0.0.1", 0);
        let channel = opened
            .await
            .map_err(|error| NoWay::Refused(error.to_string()))?;
        Ok(TunnelStream {
            stream: channel.into_stream(),
            _place: place,
            _share: share,
        })
    }

    fn every(&self) -> Vec<Arc<Tunnel>> {
        self.all().open.values().cloned().collect()
    }

    fn all(&self) -> MutexGuard<'_, All> {
        // A panic while counting leaves a count off by one, not unsafe.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tunnel {
    fn shown(&self) -> Connected {
        Connected {
            from: self.from,
            since: self.since,
        }
    }

    /// The address that it comes from.
    pub fn address(&self) -> IpAddr {
        self.from.ip()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut all = self.tunnels.all();
        all.total = all.total.saturating_sub(1);
        if let Some(here) = all.connections.get_mut(&self.node) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                all.connections.remove(&self.node);
            }
        }
    }
}

/// A connection to a node's sshd through its tunnel.
pub struct TunnelStream {
    stream: ChannelStream,
    _place: OwnedSemaphorePermit,
    _share: Option<Share>,
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Ends tunnels whose key is their node's no more, and writes down when nodes were there, for as long as the
/// proxy lives.
pub(crate) async fn follow(proxy: Arc<Proxy>) {
    let mut changes = proxy.state.changes();
    let mut write = tokio::time::interval(WRITE_PRESENCE);
    loop {
        tokio::select! {
            // The sender lives in the state, which `proxy` keeps alive.
            _ = changes.changed() => {
                look(&proxy);
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            _ = write.tick() => {
                // Certificates end without anybody's doing.
                look(&proxy);
                let view = proxy.state.view();
                proxy.tunnels().forget(|node| view.node(node).is_some());
                if let Err(error) = proxy.state.write_presence().await {
                    tracing::warn!("when nodes were last there could not be written down: {error}");
                }
            }
        }
    }
}

fn look(proxy: &Proxy) {
    let (view, now) = (proxy.state.view(), proxy.state.now());
    for tunnel in proxy.tunnels().every() {
        if !tunnel.counts(&view, now) {
            tunnel.connection.say_goodbye(say::TUNNEL_NO_MORE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(n: u128) -> NodeId {
        NodeId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn one_node_that_comes_often_leaves_the_others_their_places() {
        let tunnels = Arc::new(Tunnels::default());
        let held: Vec<_> = (0..MOST_OF_A_NODE)
            .map(|_| tunnels.seat(node(1), 100).unwrap())
            .collect();
        assert!(tunnels.seat(node(1), 100).is_none());
        assert!(tunnels.seat(node(2), 100).is_some());
        assert!(tunnels.seat(node(2), MOST_OF_A_NODE).is_none());
        drop(held);
        assert_eq!(tunnels.connections(), 0);
        assert!(tunnels.all().connections.is_empty());
    }

    #[test]
    fn a_node_has_its_turns_once_whatever_it_opens_and_others_have_their_own() {
        let (tunnels, now) = (Tunnels::default(), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        tunnels.turn(node(1), Act::Labels, now).unwrap();
        for _ in 0..100 {
            assert_eq!(tunnels.turn(node(1), Act::Labels, now), Err(later(10)));
        }
        tunnels.turn(node(1), Act::Renewal, now).unwrap();
        tunnels.turn(node(2), Act::Labels, now).unwrap();
        assert_eq!(
            tunnels.turn(node(1), Act::Labels, later(9)),
            Err(later(10)),
            "asking uses nothing up"
        );
        tunnels.turn(node(1), Act::Labels, later(10)).unwrap();
        // Some at once, and no more than the pace allows after that.
        let opened = |at| tunnels.turn(node(1), Act::Opening, at);
        let many = (0..100).filter(|_| opened(now).is_ok()).count();
        assert_eq!((many, opened(later(59))), (5, Err(later(60))));
        assert_eq!(
            (opened(later(60)), opened(later(60))),
            (Ok(()), Err(later(120)))
        );
        tunnels.forget(|known| *known == node(2));
        assert_eq!(
            tunnels.all().turns.len(),
            1,
            "bounded by the nodes there are"
        );
    }

    #[test]
    fn one_person_leaves_the_others_places_in_a_tunnel() {
        let shares = Arc::new(Shares::default());
        let user = |name| UserName::parse(name).unwrap();
        let held: Vec<_> = (0..MOST_OF_A_USER)
            .map(|_| Share::take(&shares, &user("alice")).unwrap())
            .collect();
        assert!(Share::take(&shares, &user("alice")).is_none());
        assert!(Share::take(&shares, &user("bob")).is_some());
        drop(held);
        assert!(shares.lock().unwrap().is_empty());
    }
}
