//! Flow control: one [`Flow`] per SSH connection.
//!
//! The engine gives the receive window back when it *receives* data, not when
//! somebody has used them, and its own bounded queue would hold up the whole
//! connection. So nothing is left in its queues. Every callback goes without
//! waiting into a queue of ours, counted in bytes, and what is queued decides
//! what the peer may send next:
//!
//! * **User side** ([`Side::User`]): the engine asks for a target window after
//!   each refill and uses the answer at the *next* data packet, whichever
//!   channel that is of, refilling when less than half of it is left. Answering
//!   "window − queued" turns that into a consumption window with an overshoot of
//!   less than two windows. A channel whose queue is full gets a target of
//!   [`TRICKLE`] bytes: each probe of that size that arrives makes the engine ask
//!   again. The stream under the engine paces those probes ([`super::stream`]).
//! * **Node side** ([`Side::Node`]): the socket is not read while more than
//!   [`NODE_QUEUE`] bytes are queued. That stops every channel of the connection,
//!   which is why a session channel has a node connection of its own.
//!
//! What follows from this and cannot be helped without another engine:
//!
//! * **L1**: while one *upload* is stalled, other uploads of the same user
//!   connection stop once what they had left of their window is used up. (Keystrokes
//!   and the like go on: two bytes at a time get through.)
//! * **L2**: a stalled *download* also stops its channel's upload.
//! * **L3**: forwards that share one node connection block each other.
//! * **L4**: forwards that share one node connection inside another connection's channel
//!   (a tunnel) can stall that channel, and so everything that comes through the tunnel.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::latch::Latch;
use super::queue::{ITEM_COST, Input, Item, MAX_REQUESTS, Queue, Reader, weight};
pub(super) use super::queue::{Kind, Lane};
use super::types::{ChannelRequest, Event, RequestKind};

/// Window of a user's channel in bytes; OpenSSH's own default, so that a user
/// far away is not slower than at a stock sshd.
pub(super) const WINDOW: usize = 2 << 20;

/// How many bytes of a node connection may be queued before its socket is no
/// longer read. Half of a window: together with a full user-side queue and the
/// write buffers a stalled session stays below 4 MiB.
pub(super) const NODE_QUEUE: usize = 1 << 20;

/// The smallest target that keeps a channel alive. The engine refills when
/// *less than half* of the target is left, so with 0 or 1 it would never refill
/// again and the channel would be dead for good.
pub(super) const TRICKLE: u32 = 2;

/// A peer that has this much queued in one channel has ignored its window; the
/// engine does not notice, so we end the connection. Honest overshoot is below
/// two windows.
const OVERRUN: usize = 4 * WINDOW;

/// Unsent bytes at which producers wait before they hand over the next chunk:
/// enough to keep a fast link busy, little per connection.
pub(super) const OUT_ROOM: usize = 128 << 10;

/// Which side of the proxy a connection is on; decides how reading is held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    User,
    Node,
}

/// The peer sent far more than its window allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overrun;

/// Channels of one connection that *we* may close before the peer does. The engine
/// keeps about 4 KiB of each until the connection ends (it looks a channel up that it
/// has forgotten itself), so this bounds it to 32 MiB. OpenSSH opens a connection of
/// its own where a master's is refused.
pub(super) const MAX_CLOSED_FIRST: usize = 8192;

/// Why a channel was not registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Channels,
    Sessions,
    WornOut,
    Over,
}

/// How many channels a connection may have at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caps {
    pub(super) channels: usize,
    pub(super) sessions: usize,
}

struct State {
    channels: HashMap<u32, Queue>,
    /// Cost of everything queued on this connection.
    total: usize,
    /// Probes of stalled channels since the stream was last paced.
    probes: usize,
    /// Channels that we closed before the peer did.
    closed_first: usize,
    over: bool,
}

/// The queues and the credit of one SSH connection.
pub(super) struct Flow {
    side: Side,
    caps: Caps,
    state: Mutex<State>,
    /// Some channel is stalled (user side: pace; node side: do not read).
    held: AtomicBool,
    /// Every stalled channel has been probed: pace now.
    pace: AtomicBool,
    reader: AtomicWaker,
    unsent: AtomicUsize,
    /// How often something arrived.
    heard: AtomicUsize,
    room: Notify,
    /// The stream is to fail at its next use.
    pub(super) killed: Latch,
    /// The connection is over and its engine gone.
    pub(super) ended: Latch,
    /// Authentication has succeeded.
    pub(super) authenticated: Latch,
    farewell: Mutex<Option<Farewell>>,
    pub(super) farewell_said: Latch,
}

/// Why we end a connection, to be told to the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Farewell {
    /// `SSH_DISCONNECT_NO_MORE_AUTH_METHODS_AVAILABLE`.
    Authentication(&'static str),
    /// `SSH_DISCONNECT_BY_APPLICATION`.
    Application(String),
}

impl Flow {
    pub(super) fn new(side: Side, caps: Caps) -> Arc<Self> {
        Arc::new(Flow {
            side,
            caps,
            state: Mutex::new(State {
                channels: HashMap::new(),
                total: 0,
                probes: 0,
                closed_first: 0,
                over: false,
            }),
            held: AtomicBool::new(false),
            pace: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            unsent: AtomicUsize::new(0),
            heard: AtomicUsize::new(0),
            room: Notify::new(),
            killed: Latch::default(),
            ended: Latch::default(),
            authenticated: Latch::default(),
            farewell: Mutex::new(None),
            farewell_said: Latch::default(),
        })
    }

    pub(super) fn side(&self) -> Side {
        self.side
    }

    /// The state, also after a panic elsewhere: every change leaves it whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- channels

    /// Makes the queue of a channel that the *peer* opens. The entry counts
    /// towards the caps until the channel is closed *and* its inbox dropped, so
    /// that closing channels with full queues cannot be repeated without end.
    pub(super) fn register(&self, id: u32, kind: Kind) -> Result<Arc<Latch>, Full> {
        let mut state = self.state();
        if state.over {
            return Err(Full::Over);
        }
        if state.channels.len() >= self.caps.channels {
            return Err(Full::Channels);
        }
        if state.closed_first >= MAX_CLOSED_FIRST {
            return Err(Full::WornOut);
        }
        let sessions = state
            .channels
            .values()
            .filter(|q| q.kind == Kind::Session)
            .count();
        if kind == Kind::Session && sessions >= self.caps.sessions {
            return Err(Full::Sessions);
        }
        Ok(Arc::clone(
            &state
                .channels
                .entry(id)
                .or_insert_with(|| Queue::new(kind))
                .gone,
        ))
    }

    /// Makes or finds the queue of a channel that *we* opened. Both the
    /// confirmation callback and the opener come here, in either order.
    pub(super) fn adopt(&self, id: u32, kind: Kind) -> Arc<Latch> {
        let mut state = self.state();
        let over = state.over;
        let queue = state.channels.entry(id).or_insert_with(|| Queue::new(kind));
        if over {
            queue.input = Input::Closed;
            queue.gone.set();
        }
        Arc::clone(&queue.gone)
    }

    /// Whether the peer may still say something on this channel.
    pub(super) fn is_open(&self, id: u32) -> bool {
        let state = self.state();
        state
            .channels
            .get(&id)
            .is_some_and(|queue| queue.input != Input::Closed)
    }

    /// Forgets a channel whose opening was refused.
    pub(super) fn forget(&self, id: u32) {
        self.state().channels.remove(&id);
    }

    // ---- from the engine's callbacks; nothing here waits

    /// Queues bytes that arrived.
    pub(super) fn push_bytes(&self, id: u32, lane: Lane, data: &[u8]) -> Result<(), Overrun> {
        // A zero-length packet says nothing, and would read as end of file.
        if data.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let Some(queue) = state.channels.get_mut(&id) else {
            return Ok(());
        };
        if queue.reader == Reader::Dropped || queue.input != Input::Open {
            return Ok(());
        }
        let cost = queue.add_bytes(lane, data);
        queue.queued += cost;
        queue.wake();
        let overrun = self.side == Side::User && queue.queued > OVERRUN;
        state.total += cost;
        self.hold_node(&state);
        if overrun { Err(Overrun) } else { Ok(()) }
    }

    /// Queues anything else that arrived.
    pub(super) fn push(&self, id: u32, event: Event) {
        let mut state = self.state();
        let Some(queue) = state.channels.get_mut(&id) else {
            return;
        };
        // Said once and heard once: a queue of a thousand ends would have no bound.
        if event == Event::Eof {
            if queue.input != Input::Open {
                return;
            }
            queue.input = Input::Ended;
        }
        if event == Event::Close && queue.input == Input::Closed {
            return;
        }
        if queue.reader == Reader::Dropped {
            return;
        }
        let cost = ITEM_COST + weight(&event);
        queue.items.push_back(Item::Other(event));
        queue.queued += cost;
        queue.wake();
        state.total += cost;
        self.hold_node(&state);
    }

    /// Queues a user's request. `false` if too many wait already: it is to be
    /// refused, or dropped if it has no answer.
    pub(super) fn push_request(&self, id: u32, request: ChannelRequest) -> bool {
        {
            let mut state = self.state();
            let Some(queue) = state.channels.get_mut(&id) else {
                return false;
            };
            // Of several sizes only the last one matters.
            if let ChannelRequest::WindowChange(size) = &request
                && let Some(Item::Other(Event::Request(ChannelRequest::WindowChange(last)))) =
                    queue.items.back_mut()
            {
                *last = *size;
                return true;
            }
            if queue.requests >= MAX_REQUESTS {
                return false;
            }
            queue.requests += 1;
        }
        self.push(id, Event::Request(request));
        true
    }

    /// The peer closed the channel.
    pub(super) fn closed_by_peer(&self, id: u32) {
        self.push(id, Event::Close);
        self.close(&mut self.state(), id);
    }

    /// We closed the channel, if the peer did not before.
    pub(super) fn closed_by_us(&self, id: u32) {
        let mut state = self.state();
        let open = |queue: &Queue| queue.input != Input::Closed;
        if state.channels.get(&id).is_some_and(open) {
            state.closed_first += 1;
        }
        self.close(&mut state, id);
    }

    /// Nothing arrives on this channel any more.
    fn close(&self, state: &mut State, id: u32) {
        let Some(queue) = state.channels.get_mut(&id) else {
            return;
        };
        queue.input = Input::Closed;
        queue.stalled = false;
        queue.gone.set();
        queue.wake();
        if queue.is_done() {
            state.channels.remove(&id);
        }
        self.release(state);
    }

    /// Whether we have closed as many channels first as one connection should remember.
    pub(super) fn is_worn_out(&self) -> bool {
        self.state().closed_first >= MAX_CLOSED_FIRST
    }

    /// Whether the peer has said that it sends no more on this channel.
    pub(super) fn has_ended(&self, id: u32) -> bool {
        let state = self.state();
        let ended = |queue: &Queue| queue.input == Input::Ended;
        state.channels.get(&id).is_some_and(ended)
    }

    /// Notes a request to the node, so that its answer can be told apart.
    pub(super) fn asked(&self, id: u32, kind: RequestKind) {
        if let Some(queue) = self.state().channels.get_mut(&id) {
            queue.asked.push_back(kind);
        }
    }

    /// The request that the node's next answer is about (RFC 4254 section 4:
    /// answers come in the order of the requests).
    pub(super) fn answered(&self, id: u32) -> Option<RequestKind> {
        self.state().channels.get_mut(&id)?.asked.pop_front()
    }

    /// Node side: stop reading while too much is queued.
    fn hold_node(&self, state: &State) {
        if self.side == Side::Node && state.total > NODE_QUEUE {
            self.held.store(true, Ordering::Release);
        }
    }

    /// User side: the target for the next data packet. `id` is the channel that
    /// has just been refilled, so its probe has arrived if it is stalled.
    pub(super) fn target(&self, id: u32) -> u32 {
        let mut state = self.state();
        let mut stalled = 0;
        let mut fullest = 0;
        for queue in state.channels.values_mut() {
            queue.stalled = queue.is_full();
            if queue.stalled {
                stalled += 1;
            } else if queue.input == Input::Open {
                fullest = fullest.max(queue.queued);
            }
        }
        self.held.store(stalled > 0, Ordering::Release);
        if stalled == 0 {
            // INVARIANT: not below `STALL_ROOM`, or the channel were stalled.
            let room = WINDOW.saturating_sub(fullest);
            return u32::try_from(room).unwrap_or(TRICKLE).max(TRICKLE);
        }
        // The target is the connection's, not the channel's: as long as one
        // channel is stalled nobody is refilled (L1).
        if state.channels.get(&id).is_some_and(|q| q.stalled) {
            state.probes += 1;
            if state.probes >= stalled {
                state.probes = 0;
                self.pace.store(true, Ordering::Release);
            }
        }
        TRICKLE
    }

    // ---- from inboxes

    /// The next event of a channel; the previous one counts as consumed from now on.
    pub(super) fn poll_next(&self, id: u32, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.state();
        self.settle(&mut state, id);
        let over = state.over;
        let Some(queue) = state.channels.get_mut(&id) else {
            return Poll::Ready(None);
        };
        match queue.items.pop_front() {
            Some(Item::Bytes(lane, data)) => {
                queue.handed_out = ITEM_COST + data.len();
                let data: Bytes = data.freeze();
                Poll::Ready(Some(match lane {
                    Lane::Main => Event::Data(data),
                    Lane::Stderr => Event::Stderr(data),
                }))
            }
            Some(Item::Other(event)) => {
                queue.handed_out = ITEM_COST + weight(&event);
                if let Event::Request(_) = event {
                    queue.requests = queue.requests.saturating_sub(1);
                }
                Poll::Ready(Some(event))
            }
            None if over || queue.input == Input::Closed => Poll::Ready(None),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The message last handed out has been used.
    fn settle(&self, state: &mut State, id: u32) {
        let Some(queue) = state.channels.get_mut(&id) else {
            return;
        };
        let used = std::mem::take(&mut queue.handed_out);
        if used == 0 {
            return;
        }
        queue.queued = queue.queued.saturating_sub(used);
        if queue.stalled && !queue.is_full() {
            queue.stalled = false;
        }
        state.total = state.total.saturating_sub(used);
        self.release(state);
    }

    /// Lets the stream read again if what held it back is over.
    fn release(&self, state: &State) {
        if !self.held.load(Ordering::Acquire) {
            return;
        }
        let free = match self.side {
            Side::Node => state.total <= NODE_QUEUE / 2,
            Side::User => !state.channels.values().any(|queue| queue.stalled),
        };
        if free {
            self.held.store(false, Ordering::Release);
            self.reader.wake();
        }
    }

    /// Nobody reads this channel's queue any more: what is in it and what still
    /// comes is thrown away, and counts as consumed.
    pub(super) fn drop_reader(&self, id: u32) {
        let mut state = self.state();
        let Some(queue) = state.channels.get_mut(&id) else {
            return;
        };
        queue.reader = Reader::Dropped;
        queue.items = VecDeque::new();
        queue.stalled = false;
        queue.waker = None;
        queue.handed_out = 0;
        let used = std::mem::take(&mut queue.queued);
        if queue.is_done() {
            state.channels.remove(&id);
        }
        state.total = state.total.saturating_sub(used);
        self.release(&state);
    }

    // ---- from the stream under the engine

    /// Whether reading is held back (node side: do not read at all; user side:
    /// pace).
    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Whether every stalled channel has been probed since this was last asked.
    pub(super) fn take_pace(&self) -> bool {
        self.pace.swap(false, Ordering::AcqRel)
    }

    /// Who is to be woken when reading may go on, or is to fail.
    pub(super) fn register_reader(&self, cx: &Context<'_>) {
        self.reader.register(cx.waker());
    }

    /// The stream says that something arrived.
    pub(super) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    /// A number that changes whenever something arrives.
    pub(super) fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// The stream says how many bytes it could not send yet.
    pub(super) fn set_unsent(&self, bytes: usize) {
        let before = self.unsent.swap(bytes, Ordering::AcqRel);
        if before > OUT_ROOM && bytes <= OUT_ROOM {
            self.room.notify_waiters();
        }
    }

    // ---- from outboxes

    /// Waits until a producer may hand over its next chunk. Cancel-safe.
    pub(super) async fn room(&self) {
        loop {
            let notified = self.room.notified();
            if self.unsent.load(Ordering::Acquire) <= OUT_ROOM || self.ended.is_set() {
                return;
            }
            notified.await;
        }
    }

    // ---- ending

    /// Asks whoever runs the connection to say goodbye and end it. The first
    /// reason stays.
    pub(super) fn say_farewell(&self, farewell: Farewell) {
        self.farewell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(farewell);
        self.farewell_said.set();
    }

    pub(super) fn farewell(&self) -> Option<Farewell> {
        self.farewell
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Makes the stream fail at its next use, which ends the engine's loop
    /// whatever the peer does. Dropping the engine's handles does not.
    pub(super) fn kill(&self) {
        self.killed.set();
        self.reader.wake();
    }

    pub(super) fn is_killed(&self) -> bool {
        self.killed.is_set()
    }

    /// The engine is gone: closes all queues and releases everyone who waits.
    /// Called when the engine drops its handler, also after a panic.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.over = true;
        state.channels.retain(|_, queue| {
            queue.input = Input::Closed;
            queue.stalled = false;
            queue.gone.set();
            queue.wake();
            !queue.is_done()
        });
        drop(state);
        self.ended.set();
        self.unsent.store(0, Ordering::Release);
        self.room.notify_waiters();
    }

    /// How many bytes are queued on this connection.
    pub(super) fn queued(&self) -> usize {
        self.state().total
    }
}
