//! The queue of one channel, counted in bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::BytesMut;

use super::flow::WINDOW;
use super::latch::Latch;
use super::types::{ChannelRequest, Event, RequestKind};

/// A channel with less room than this counts as stalled: two packets of the
/// usual 32 KiB.
pub(super) const STALL_ROOM: usize = 64 << 10;

/// What an entry of a queue costs besides its bytes: it keeps a peer from
/// filling memory with tiny messages.
pub(super) const ITEM_COST: usize = 64;

/// Small packets are put together up to this size while they wait.
const COALESCE: usize = 16 << 10;

/// Requests that may wait in one inbox: more than the 64 variables, the terminal
/// and the start of a session that are let through, and a few signals.
pub(super) const MAX_REQUESTS: usize = 96;

/// What a channel carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `session`: requests, exit status, stderr.
    Session,
    /// Any kind of forwarding: bytes only.
    Stream,
}

/// Which of the two byte streams of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Main,
    Stderr,
}

pub(super) enum Item {
    Bytes(Lane, BytesMut),
    Other(Event),
}

/// What may still come from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    Open,
    Ended,
    Closed,
}

/// Whether somebody will read the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    Here,
    Dropped,
}

pub(super) struct Queue {
    pub(super) kind: Kind,
    pub(super) items: VecDeque<Item>,
    /// Cost of all items and of the one last handed out.
    pub(super) queued: usize,
    /// Cost of the item last handed out: it counts until the next is asked for.
    pub(super) handed_out: usize,
    pub(super) requests: usize,
    pub(super) input: Input,
    pub(super) reader: Reader,
    pub(super) stalled: bool,
    pub(super) waker: Option<Waker>,
    pub(super) gone: Arc<Latch>,
    /// Requests we made to the node that it has not answered yet.
    pub(super) asked: VecDeque<RequestKind>,
}

impl Queue {
    pub(super) fn new(kind: Kind) -> Self {
        Queue {
            kind,
            items: VecDeque::new(),
            queued: 0,
            handed_out: 0,
            requests: 0,
            input: Input::Open,
            reader: Reader::Here,
            stalled: false,
            waker: None,
            gone: Arc::default(),
            asked: VecDeque::new(),
        }
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Adds bytes; returns what they cost.
    pub(super) fn add_bytes(&mut self, lane: Lane, data: &[u8]) -> usize {
        if let Some(Item::Bytes(last_lane, last)) = self.items.back_mut()
            && *last_lane == lane
            && data.len() <= COALESCE / 8
            && last.len() + data.len() <= COALESCE
        {
            last.extend_from_slice(data);
            return data.len();
        }
        self.items
            .push_back(Item::Bytes(lane, BytesMut::from(data)));
        data.len() + ITEM_COST
    }

    /// Whether no one needs this entry any more.
    pub(super) fn is_done(&self) -> bool {
        self.input == Input::Closed && self.reader == Reader::Dropped
    }

    /// Whether its peer may still send more than there is room for. Once
    /// stalled, a channel counts as stalled until half its window is free:
    /// otherwise it would go back and forth with every message.
    pub(super) fn is_full(&self) -> bool {
        let room = WINDOW.saturating_sub(self.queued);
        self.input == Input::Open
            && self.reader == Reader::Here
            && (room < STALL_ROOM || self.stalled && room < WINDOW / 2)
    }
}

/// The bytes an event holds besides its place in the queue.
pub(super) fn weight(event: &Event) -> usize {
    match event {
        Event::Data(data) | Event::Stderr(data) => data.len(),
        Event::ExitSignal(signal) => signal.message.len() + signal.signal.name().len(),
        Event::Request(request) => match request {
            ChannelRequest::Exec(command) => command.len(),
            ChannelRequest::Env { name, value } => name.len() + value.len(),
            ChannelRequest::Subsystem(name) => name.len(),
            ChannelRequest::Pty(pty) => pty.term.len() + pty.modes.len() * 8,
            ChannelRequest::X11(x11) => x11.protocol.len() + x11.cookie.len(),
            ChannelRequest::Shell
            | ChannelRequest::WindowChange(_)
            | ChannelRequest::Signal(_)
            | ChannelRequest::AgentForward => 0,
        },
        Event::Eof
        | Event::Close
        | Event::ExitStatus(_)
        | Event::NodeAccepted(_)
        | Event::NodeRefused(_) => 0,
    }
}
