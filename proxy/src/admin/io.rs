//! The two ends of a command that aren't its business: whoever asked, and the pipe or terminal the answer goes to.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anteroom_core::policy::Identity;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::environment::Environment;

/// Who gave a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A user over SSH, who proved to hold a key.
    Ssh {
        /// The user and the key.
        identity: Identity,
        /// Where the connection comes from.
        remote_addr: SocketAddr,
    },
    /// Whoever owns the proxy's control socket: an administrator without an account.
    Local,
}

/// The client is gone; nothing that is said reaches anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

/// How a client left while a command was waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// Ctrl-C on a terminal: it is still there to be told how to go on.
    Interrupted,
    /// The connection ended.
    Disconnected,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What became of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Typed {
    /// A line, without its end.
    Line(String),
    /// The input ended without one.
    End,
    /// Ctrl-C.
    Interrupted,
}

/// Why standard input could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StdinError {
    /// It is longer than the limit given.
    #[error("standard input is longer than {0} bytes")]
    TooLong(usize),
    /// It does not end.
    #[error("standard input did not end within {} minutes; give the command again", .0.as_secs() / 60)]
    TooSlow(Duration),
    /// The client is gone.
    #[error(transparent)]
    Gone(#[from] Gone),
}

/// A file that an argument names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileAnswer {
    /// Its content, as the client sent it.
    Sent(Vec<u8>),
    /// The file is on the client's machine, and this channel has no way to it.
    OutOfReach,
}

/// A way to the agent that the client has forwarded.
pub type AgentStream = Box<dyn Duplex>;

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// Why there is no way to the client's agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAgent {
    /// It was not forwarded, or there is none.
    #[error("no agent was forwarded; start one, and give the command as `ssh -A …`")]
    NotForwarded,
    /// The client does not let us at it.
    #[error("your ssh does not let the proxy at the agent it forwards: {0}")]
    Refused(String),
}

/// Where a command's answer goes and its input comes from. Text is handed over with lines that end in `\n`; what a terminal
/// needs instead is the implementation's business, and so are the bounds of its buffers: every method that writes waits for room.
pub trait CommandIo: Send {
    /// Writes to standard output.
    fn stdout(&mut self, text: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Writes to standard error.
    fn stderr(&mut self, text: Bytes) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Reads standard input to its end; more than `limit` bytes are an error, not a truncation.
    fn read_stdin(
        &mut self,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<u8>, StdinError>> + Send;

    /// The content of a file that an argument names, where the channel carries files.
    fn file(&mut self, path: &str) -> FileAnswer;

    /// What the client said beside the command line.
    fn environment(&self) -> Environment {
        Environment::default()
    }

    /// The terminal's size; `None` where there is no terminal, and then nothing is ever prompted for.
    fn terminal(&self) -> Option<TerminalSize>;

    /// Shows `prompt` on the terminal and reads a line.
    fn read_line(&mut self, prompt: &str) -> impl Future<Output = Typed> + Send;

    /// Opens the agent that the client has forwarded, if it has; within seconds.
    fn agent(&mut self) -> impl Future<Output = Result<AgentStream, NoAgent>> + Send;

    /// Returns when the client leaves. Has to be safe to drop and to call again.
    fn gone(&mut self) -> impl Future<Output = Leave> + Send;
}
