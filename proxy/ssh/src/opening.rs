//! A channel that the peer asks for, before it is answered.

use std::sync::Arc;

use russh::ChannelOpenFailure;

use super::channel::{Channel, Writer, open};
use super::flow::{Flow, Kind};
use super::latch::Latch;

/// A channel that the peer wants to open. It may be moved to a task and answered
/// minutes later; nothing else of the connection waits for it. Dropping it
/// refuses it.
pub struct Opening {
    kind: Kind,
    writer: Writer,
    gone: Arc<Latch>,
    reply: Reply,
    registered: Registered,
}

/// A channel's place in its flow, given back if the channel is not opened.
struct Registered {
    flow: Arc<Flow>,
    id: u32,
    opened: bool,
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.opened {
            self.flow.forget(self.id);
        }
    }
}

/// The engine's handle to answer with, of either side.
pub(super) enum Reply {
    User(russh::server::ChannelOpenHandle),
    Node(russh::client::ChannelOpenHandle),
}

/// Why a channel is refused, with the sentence that the peer is shown
/// (RFC 4254 section 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenRefusal {
    /// `SSH_OPEN_ADMINISTRATIVELY_PROHIBITED`.
    Prohibited(String),
    /// `SSH_OPEN_CONNECT_FAILED`.
    ConnectFailed(String),
    /// `SSH_OPEN_RESOURCE_SHORTAGE`.
    ResourceShortage(String),
}

impl Opening {
    /// `gone` is what registering the channel with the flow gave.
    pub(super) fn new(
        flow: Arc<Flow>,
        kind: Kind,
        writer: Writer,
        gone: Arc<Latch>,
        reply: Reply,
    ) -> Self {
        let registered = Registered {
            flow,
            id: writer.id(),
            opened: false,
        };
        Opening {
            kind,
            writer,
            gone,
            reply,
            registered,
        }
    }

    /// Opens the channel. If the connection is over meanwhile, the channel's inbox
    /// ends at once.
    pub async fn accept(mut self) -> Channel {
        self.registered.opened = true;
        let flow = Arc::clone(&self.registered.flow);
        match self.reply {
            Reply::User(handle) => handle.accept().await,
            Reply::Node(handle) => handle.accept().await,
        }
        open(flow, self.kind, self.writer, self.gone)
    }

    /// Refuses it, and says why: OpenSSH shows the text to its user.
    pub async fn reject(self, refusal: OpenRefusal) {
        refuse(self.reply, refusal).await;
    }

    /// Returns when the connection of the peer that asked is over. Cancel-safe.
    pub async fn abandoned(&self) {
        self.gone.wait().await;
    }
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening").finish_non_exhaustive()
    }
}

/// Says no to an opening, whether or not it was ever registered.
pub(super) async fn refuse(reply: Reply, refusal: OpenRefusal) {
    let (code, reason) = match refusal {
        OpenRefusal::Prohibited(reason) => (1, reason),
        OpenRefusal::ConnectFailed(reason) => (2, reason),
        OpenRefusal::ResourceShortage(reason) => (4, reason),
    };
    // The named variants carry a fixed text; `Other` carries ours.
    let failure = ChannelOpenFailure::Other { code, reason };
    match reply {
        Reply::User(handle) => handle.reject(failure).await,
        Reply::Node(handle) => handle.reject(failure).await,
    }
}
