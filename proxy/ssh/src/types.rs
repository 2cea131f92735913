//! What travels over a channel, in our own words: events, requests, and the
//! small values in them. Everything here has been checked at the edge: sizes
//! are clamped, names are in their alphabet, lengths are within their bounds.

use bytes::Bytes;

/// What arrives on a channel, in the order in which the peer sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of the main stream (stdin of a user's session, stdout of a
    /// node's). Never empty: a zero-length packet says nothing.
    Data(Bytes),
    /// Bytes of `SSH_EXTENDED_DATA_STDERR` (RFC 4254 section 5.2); only nodes
    /// send them.
    Stderr(Bytes),
    /// The peer sends no more bytes; requests and the other direction go on.
    Eof,
    /// The peer closed the channel. Nothing but `None` follows.
    Close,
    /// A request of the user's that [`Front::request`](super::Front::request)
    /// answered with success.
    Request(ChannelRequest),
    /// The exit status of the node's command (RFC 4254 section 6.10).
    ExitStatus(u32),
    /// The node's command was killed by a signal (RFC 4254 section 6.10).
    ExitSignal(ExitSignal),
    /// The node accepted a request that we made with [`Outbox::request`](super::Outbox::request).
    NodeAccepted(RequestKind),
    /// The node refused a request that we made with [`Outbox::request`](super::Outbox::request).
    NodeRefused(RequestKind),
}

/// A request on a session channel (RFC 4254 sections 6.2 to 6.9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelRequest {
    /// `pty-req`.
    Pty(PtyRequest),
    /// `env`: at most 4 KiB of name and value together, no NUL in either.
    Env {
        /// The variable's name; not empty, no `=`.
        name: String,
        /// Its value.
        value: String,
    },
    /// `shell`.
    Shell,
    /// `exec`: the command as the user's client sent it, at most
    /// [`MAX_COMMAND`](super::MAX_COMMAND) bytes, in no particular encoding.
    Exec(Vec<u8>),
    /// `subsystem`, `sftp` for one; at most 256 bytes.
    Subsystem(String),
    /// `window-change`. Of several that wait in an inbox only the last is kept.
    WindowChange(WindowSize),
    /// `signal`.
    Signal(Signal),
    /// `auth-agent-req@openssh.com`.
    AgentForward,
    /// `x11-req`.
    X11(X11Request),
}

impl ChannelRequest {
    /// Which request this is, without what it carries.
    pub fn kind(&self) -> RequestKind {
        match self {
            ChannelRequest::Pty(_) => RequestKind::Pty,
            ChannelRequest::Env { .. } => RequestKind::Env,
            ChannelRequest::Shell => RequestKind::Shell,
            ChannelRequest::Exec(_) => RequestKind::Exec,
            ChannelRequest::Subsystem(_) => RequestKind::Subsystem,
            ChannelRequest::WindowChange(_) => RequestKind::WindowChange,
            ChannelRequest::Signal(_) => RequestKind::Signal,
            ChannelRequest::AgentForward => RequestKind::AgentForward,
            ChannelRequest::X11(_) => RequestKind::X11,
        }
    }
}

/// The name of a [`ChannelRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `pty-req`.
    Pty,
    /// `env`.
    Env,
    /// `shell`.
    Shell,
    /// `exec`.
    Exec,
    /// `subsystem`.
    Subsystem,
    /// `window-change`.
    WindowChange,
    /// `signal`.
    Signal,
    /// `auth-agent-req@openssh.com`.
    AgentForward,
    /// `x11-req`.
    X11,
}

impl RequestKind {
    /// Whether this request starts the program of a session. Only one of them
    /// can succeed on a channel (RFC 4254 section 6.5).
    pub fn starts_program(self) -> bool {
        match self {
            RequestKind::Shell | RequestKind::Exec | RequestKind::Subsystem => true,
            RequestKind::Pty
            | RequestKind::Env
            | RequestKind::WindowChange
            | RequestKind::Signal
            | RequestKind::AgentForward
            | RequestKind::X11 => false,
        }
    }
}

/// What `pty-req` asks for (RFC 4254 section 6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PtyRequest {
    /// The value of `TERM`: `[A-Za-z0-9._+-]{1,64}`. A client without one
    /// (an empty string on the wire) is given `dumb`.
    pub term: String,
    /// The size of the user's terminal.
    pub size: WindowSize,
    /// Encoded terminal modes: opcode and argument (RFC 4254 section 8), the
    /// opcodes that RFC defines and `IUTF8`; others are dropped.
    pub modes: Vec<(u8, u32)>,
}

/// The size of a terminal. Columns and rows are within 1…1,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowSize {
    /// Columns, in characters.
    pub columns: u32,
    /// Rows, in characters.
    pub rows: u32,
    /// Width in pixels, 0 if unknown, at most 65,535 (the node's `winsize` has 16 bits).
    pub pixel_width: u32,
    /// Height in pixels, 0 if unknown, at most 65,535.
    pub pixel_height: u32,
}

impl WindowSize {
    /// Clamps what a client said. Zero columns or rows, which some clients send
    /// without a terminal, become 80 and 24 as at sshd's end of a pipe they
    /// would at best be ignored.
    pub fn clamped(columns: u32, rows: u32, pixel_width: u32, pixel_height: u32) -> Self {
        let clamp = |n: u32, unknown: u32| if n == 0 { unknown } else { n.min(1000) };
        WindowSize {
            columns: clamp(columns, 80),
            rows: clamp(rows, 24),
            pixel_width: pixel_width.min(u32::from(u16::MAX)),
            pixel_height: pixel_height.min(u32::from(u16::MAX)),
        }
    }
}

/// The name of a signal, without `SIG` (RFC 4254 section 6.10): 1 to 64
/// characters of `[A-Za-z0-9@._+-]`, so that `name@domain` fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal(String);

impl Signal {
    /// Takes a name in the alphabet above, else `None`.
    pub fn parse(name: &str) -> Option<Self> {
        let good = |c: u8| c.is_ascii_alphanumeric() || b"@._+-".contains(&c);
        let fits = !name.is_empty() && name.len() <= 64 && name.bytes().all(good);
        fits.then(|| Signal(name.to_owned()))
    }

    /// The name, `TERM` for one.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// How a program ended that a signal killed (RFC 4254 section 6.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitSignal {
    /// Which signal.
    pub signal: Signal,
    /// Whether a core was dumped.
    pub core_dumped: bool,
    /// The node's own words; untrusted, at most 1,024 bytes.
    pub message: String,
}

/// What `x11-req` asks for (RFC 4254 section 6.3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X11Request {
    /// Forward one connection, then no more.
    pub single_connection: bool,
    /// `MIT-MAGIC-COOKIE-1` as a rule; at most 64 bytes.
    pub protocol: String,
    /// The cookie, in hexadecimal; at most 1,024 bytes. A secret.
    pub cookie: String,
    /// The screen's number.
    pub screen: u32,
}

/// Where a `direct-tcpip` channel is to lead, as its opener named it
/// (RFC 4254 section 7.2). Names are not resolved or checked here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpTarget {
    /// Host name or address; at most 255 bytes.
    pub host: String,
    /// Port.
    pub port: u32,
    /// Where the opener's own connection came from: what it says, untrusted;
    /// at most 255 bytes.
    pub originator_host: String,
    /// The port it came from.
    pub originator_port: u32,
}
