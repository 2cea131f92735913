//! A channel as the rest of the proxy sees it: an [`Inbox`] of events and an
//! [`Outbox`], the same for both sides.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use russh::{ChannelWriteHalf, Sig};
use tokio::sync::Mutex;

use super::channel_stream::ChannelStream;
use super::flow::{Flow, Kind, Side};
use super::latch::Latch;
use super::types::{ChannelRequest, Event, ExitSignal, PtyRequest, WindowSize};

/// How many bytes are handed to the engine at once: one packet of the usual
/// size, so that producers of one connection take turns.
pub(super) const CHUNK: usize = 32 << 10;

/// How long a forward that has ended in both directions waits for the *peer* to
/// close it: the engine keeps some memory of each channel that we close first
/// ([`super::flow::MAX_CLOSED_FIRST`]), and a browser opens thousands.
const COURTESY: Duration = Duration::from_secs(1);

/// The channel or its connection is over; what was to be sent is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the channel is closed")]
pub struct Gone;

/// An open channel. Dropping both halves closes it.
#[derive(Debug)]
pub struct Channel {
    /// What the peer sends.
    pub inbox: Inbox,
    /// What is sent to the peer.
    pub outbox: Outbox,
}

impl Channel {
    /// The channel's main stream as bytes, for forwards and for an SSH connection
    /// inside a channel. Stderr, requests and the like are passed over; shutting
    /// down says EOF, dropping it closes the channel.
    pub fn into_stream(self) -> ChannelStream {
        ChannelStream::new(self.inbox, self.outbox)
    }
}

/// The events of a channel, in order. What has been handed out counts against
/// the peer's credit until the next event is asked for, so a consumer that
/// writes one event before it asks for the next passes the pressure on.
/// Dropping it discards what is queued and what still comes.
pub struct Inbox {
    flow: Arc<Flow>,
    id: u32,
}

impl Inbox {
    /// The next event. `None` once the channel or its connection is over and
    /// all that had arrived has been handed out; a peer's own close is said as
    /// [`Event::Close`] before. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.flow.poll_next(self.id, cx)
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").field("id", &self.id).finish()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.flow.drop_reader(self.id);
    }
}

/// The sending half of a channel; clones send on the same channel. When the
/// last one is dropped the channel is closed.
///
/// Waiting calls return [`Gone`] as soon as the channel is closed by either side
/// or its connection ends. They may be cancelled: a part of what was to be sent
/// may then have been sent, and at most one packet's worth of the peer's window
/// is lost, so after a cancelled [`data`](Self::data) say goodbye and close.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Owned>,
}

/// What all clones of an outbox hold; its end is the end of the last one.
struct Owned(Arc<Shared>);

struct Shared {
    flow: Arc<Flow>,
    id: u32,
    kind: Kind,
    writer: Writer,
    gone: Arc<Latch>,
    /// Held while a status, EOF or CLOSE is handed over: their order matters.
    ending: Mutex<Ending>,
}

/// What has been said of a channel's end.
#[derive(Debug, Default)]
struct Ending {
    status_said: bool,
    eof_wanted: bool,
    eof_said: bool,
    closed: bool,
}

/// The engine's write half, of either side.
pub(super) enum Writer {
    User(ChannelWriteHalf<russh::server::Msg>, russh::server::Handle),
    Node(ChannelWriteHalf<russh::client::Msg>),
}

impl Writer {
    pub(super) fn id(&self) -> u32 {
        match self {
            Writer::User(half, _) => half.id().number(),
            Writer::Node(half) => half.id().number(),
        }
    }
}

/// Calls the same method on either side's write half.
macro_rules! on_either {
    ($writer:expr, $half:ident => $call:expr) => {
        match $writer {
            Writer::User($half, _) => $call.await.map_err(|_| Gone),
            Writer::Node($half) => $call.await.map_err(|_| Gone),
        }
    };
}

impl Outbox {
    /// Sends bytes on the main stream. Waits for room: in the write buffer of the
    /// connection (128 KiB) and in the peer's window.
    pub async fn data(&self, data: Bytes) -> Result<(), Gone> {
        self.send(data, None).await
    }

    /// Sends bytes as stderr; waits as [`data`](Self::data) does. A node's channel
    /// has no stderr in this direction.
    pub async fn stderr(&self, data: Bytes) -> Result<(), Gone> {
        self.send(data, Some(1)).await
    }

    async fn send(&self, mut data: Bytes, extended: Option<u32>) -> Result<(), Gone> {
        let shared = &*self.shared.0;
        let sending = async {
            while !data.is_empty() {
                let chunk = data.split_to(data.len().min(CHUNK));
                shared.flow.room().await;
                match extended {
                    None => on_either!(&shared.writer, half => half.data_bytes(chunk))?,
                    Some(code) => {
                        on_either!(&shared.writer, half => half.extended_data_bytes(code, chunk))?;
                    }
                }
            }
            Ok(())
        };
        shared.unless_gone(sending).await
    }

    /// Says that no more bytes follow. Towards a *user's session* it is held back
    /// until the exit status has been said: OpenSSH closes after EOF, the engine
    /// answers a close at once and then drops a later status.
    pub async fn eof(&self) -> Result<(), Gone> {
        let shared = &*self.shared.0;
        let saying = async {
            let mut ending = shared.ending.lock().await;
            ending.eof_wanted = true;
            if shared.holds_eof() && !ending.status_said {
                return Ok(());
            }
            shared.say_eof(&mut ending).await
        };
        shared.unless_gone(saying).await
    }

    /// Closes the channel, after an EOF that was held back. Waits for nobody but
    /// the engine; a forward that has ended in both directions, up to a second for
    /// the peer to close it. Closing twice is fine.
    pub async fn close(&self) {
        self.shared.0.close().await;
    }

    /// Tells a user how the command ended (RFC 4254 section 6.10), then the EOF
    /// that waited for it.
    pub async fn exit_status(&self, status: u32) -> Result<(), Gone> {
        let shared = &*self.shared.0;
        let saying = async {
            let mut ending = shared.ending.lock().await;
            on_either!(&shared.writer, half => half.exit_status(status))?;
            shared.status_was_said(&mut ending).await
        };
        shared.unless_gone(saying).await
    }

    /// Tells a user which signal ended the command, then the EOF that waited for it.
    pub async fn exit_signal(&self, signal: ExitSignal) -> Result<(), Gone> {
        let shared = &*self.shared.0;
        let saying = async {
            let mut ending = shared.ending.lock().await;
            shared.say_exit_signal(signal).await?;
            shared.status_was_said(&mut ending).await
        };
        shared.unless_gone(saying).await
    }

    /// Asks the node for something. Those that have an answer are asked for one,
    /// which arrives as [`Event::NodeAccepted`] or [`Event::NodeRefused`]; `env`,
    /// `window-change` and `signal` have none. On a user's channel nothing is sent.
    pub async fn request(&self, request: ChannelRequest) -> Result<(), Gone> {
        let shared = &*self.shared.0;
        let Writer::Node(half) = &shared.writer else {
            return Ok(());
        };
        let asking = async {
            // The lock keeps the order of questions that of the answers.
            let _order = shared.ending.lock().await;
            shared.flow.room().await;
            ask(&shared.flow, shared.id, half, request).await
        };
        shared.unless_gone(asking).await
    }

    /// Returns when the channel is closed by either side, or its connection over.
    /// The inbox may still hold what arrived before. Cancel-safe.
    pub async fn gone(&self) {
        self.shared.0.gone.wait().await;
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox")
            .field("id", &self.shared.0.id)
            .finish()
    }
}

impl Shared {
    /// The engine's waits for window and queue know nothing of a channel's end:
    /// without this a producer would wait for ever.
    async fn unless_gone<T>(
        &self,
        action: impl Future<Output = Result<T, Gone>>,
    ) -> Result<T, Gone> {
        tokio::select! {
            biased;
            () = self.gone.wait() => Err(Gone),
            result = action => result,
        }
    }

    fn holds_eof(&self) -> bool {
        self.kind == Kind::Session && self.flow.side() == Side::User
    }

    async fn say_eof(&self, ending: &mut Ending) -> Result<(), Gone> {
        if ending.eof_said || ending.closed {
            return Ok(());
        }
        on_either!(&self.writer, half => half.eof())?;
        ending.eof_said = true;
        Ok(())
    }

    async fn status_was_said(&self, ending: &mut Ending) -> Result<(), Gone> {
        ending.status_said = true;
        if ending.eof_wanted {
            self.say_eof(ending).await?;
        }
        Ok(())
    }

    /// The write half has no method for it; the connection's handle does.
    async fn say_exit_signal(&self, exit: ExitSignal) -> Result<(), Gone> {
        let Writer::User(half, session) = &self.writer else {
            return Ok(());
        };
        let name = signal_of(exit.signal.name());
        session
            .exit_signal_request(
                half.id(),
                name,
                exit.core_dumped,
                exit.message,
                String::new(),
            )
            .await
            .map_err(|()| Gone)
    }

    async fn close(&self) {
        let closing = async {
            let mut ending = self.ending.lock().await;
            if ending.closed {
                return Ok(());
            }
            if ending.eof_wanted {
                self.say_eof(&mut ending).await?;
            }
            if self.kind == Kind::Stream && ending.eof_said && self.flow.has_ended(self.id) {
                // A peer that has nothing to send or receive closes by itself; if it
                // does, this wait ends at once.
                tokio::time::sleep(COURTESY).await;
            }
            on_either!(&self.writer, half => half.close())?;
            ending.closed = true;
            Ok(())
        };
        // Either it was handed over or the channel is gone anyhow.
        let _ = self.unless_gone(closing).await;
        self.flow.closed_by_us(self.id);
    }
}

/// Closes what its owner dropped, aborted or panicked over: a channel that stays
/// open keeps the peer's program waiting and counts towards its caps.
impl Drop for Owned {
    fn drop(&mut self) {
        if self.0.gone.is_set() {
            return;
        }
        // Without a runtime the process is ending, and all connections with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let shared = Arc::clone(&self.0);
            runtime.spawn(async move { shared.close().await });
        }
    }
}

/// Makes the two halves of a channel that is registered with its flow.
pub(super) fn open(flow: Arc<Flow>, kind: Kind, writer: Writer, gone: Arc<Latch>) -> Channel {
    let id = writer.id();
    Channel {
        inbox: Inbox {
            flow: Arc::clone(&flow),
            id,
        },
        outbox: Outbox {
            shared: Arc::new(Owned(Arc::new(Shared {
                flow,
                id,
                kind,
                writer,
                gone,
                ending: Mutex::default(),
            }))),
        },
    }
}

async fn ask(
    flow: &Flow,
    id: u32,
    half: &ChannelWriteHalf<russh::client::Msg>,
    request: ChannelRequest,
) -> Result<(), Gone> {
    let kind = request.kind();
    let sent = match request {
        ChannelRequest::Env { name, value } => half.set_env(false, name, value).await,
        ChannelRequest::WindowChange(size) => {
            let WindowSize {
                columns,
                rows,
                pixel_width,
                pixel_height,
            } = size;
            half.window_change(columns, rows, pixel_width, pixel_height)
                .await
        }
        ChannelRequest::Signal(signal) => half.signal(signal_of(signal.name())).await,
        ChannelRequest::Pty(pty) => {
            flow.asked(id, kind);
            ask_pty(half, pty).await
        }
        ChannelRequest::Shell => {
            flow.asked(id, kind);
            half.request_shell(true).await
        }
        ChannelRequest::Exec(command) => {
            flow.asked(id, kind);
            half.exec(true, command).await
        }
        ChannelRequest::Subsystem(name) => {
            flow.asked(id, kind);
            half.request_subsystem(true, name).await
        }
        ChannelRequest::AgentForward => {
            flow.asked(id, kind);
            half.agent_forward(true).await
        }
        ChannelRequest::X11(x11) => {
            flow.asked(id, kind);
            half.request_x11(
                true,
                x11.single_connection,
                x11.protocol,
                x11.cookie,
                x11.screen,
            )
            .await
        }
    };
    sent.map_err(|_| Gone)
}

async fn ask_pty(
    half: &ChannelWriteHalf<russh::client::Msg>,
    pty: PtyRequest,
) -> Result<(), russh::Error> {
    let modes: Vec<_> = pty
        .modes
        .iter()
        .filter_map(|&(opcode, argument)| Some((russh::Pty::from_u8(opcode)?, argument)))
        .collect();
    let WindowSize {
        columns,
        rows,
        pixel_width,
        pixel_height,
    } = pty.size;
    half.request_pty(
        true,
        &pty.term,
        columns,
        rows,
        pixel_width,
        pixel_height,
        &modes,
    )
    .await
}

/// The engine's name for a signal.
fn signal_of(name: &str) -> Sig {
    match name {
        "ABRT" => Sig::ABRT,
        "ALRM" => Sig::ALRM,
        "FPE" => Sig::FPE,
        "HUP" => Sig::HUP,
        "ILL" => Sig::ILL,
        "INT" => Sig::INT,
        "KILL" => Sig::KILL,
        "PIPE" => Sig::PIPE,
        "QUIT" => Sig::QUIT,
        "SEGV" => Sig::SEGV,
        "TERM" => Sig::TERM,
        "USR1" => Sig::USR1,
        other => Sig::Custom(other.to_owned()),
    }
}

/// Our name for the engine's signal, if it fits our alphabet.
pub(super) fn signal_from(signal: &Sig) -> Option<super::types::Signal> {
    super::types::Signal::parse(match signal {
        Sig::ABRT => "ABRT",
        Sig::ALRM => "ALRM",
        Sig::FPE => "FPE",
        Sig::HUP => "HUP",
        Sig::ILL => "ILL",
        Sig::INT => "INT",
        Sig::KILL => "KILL",
        Sig::PIPE => "PIPE",
        Sig::QUIT => "QUIT",
        Sig::SEGV => "SEGV",
        Sig::TERM => "TERM",
        Sig::USR1 => "USR1",
        Sig::Custom(name) => name,
    })
}
