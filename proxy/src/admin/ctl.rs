//! The control socket: `anteroom ctl COMMAND` on the proxy's own host.
//!
//! ```text
//!  client ─► one line of JSON: words, and the files that they name (standard input among them, as `-`)
//!  client ◄─ frames: kind (1 byte), length (4 bytes, big endian), that many bytes; the last one is the exit status
//! ```
//! The client reads the files, so they are read with its user's rights, from its working directory. A client that goes away ends what waits for
//! it. Who may connect is decided by the socket's mode 0600 and checked again by the peer's user ID.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::io::{
    AgentStream, Caller, CommandIo, FileAnswer, Gone, Leave, NoAgent, StdinError, TerminalSize,
    Typed,
};
use super::line::CommandLine;
use super::run::LONGEST_INPUT;
use super::{Context, run, say_usage_error};
use crate::exit::Exit;
use crate::say::{clean, clean_bytes};

/// The longest request: JSON may write each byte of the files and the command line as six.
const LONGEST_REQUEST: u64 = 6 * (2 * LONGEST_INPUT as u64 + super::LONGEST_LINE as u64);

/// The longest frame; longer output is several.
const LONGEST_FRAME: usize = 64 * 1024;

/// How long a client may take to send its request. It has read its files before it connects, so this is for clients that hang.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long output may wait for a client that does not read, before the command is given up.
const WRITE_TIME: Duration = Duration::from_secs(60);

const STDOUT: u8 = b'o';
const STDERR: u8 = b'e';
const EXIT: u8 = b'x';

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    words: Vec<String>,
    files: BTreeMap<String, String>,
}

/// Why a connection of the control socket ended without an answer.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Someone else's process.
    #[error("refused user ID {uid}: the control socket is for user ID {own} and root")]
    Peer {
        /// Whose process it is.
        uid: u32,
        /// Who runs the proxy.
        own: u32,
    },
    /// It sent nothing in time.
    #[error("no request came within 10 seconds")]
    Timeout,
    /// It sent something else than a request.
    #[error("the request cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It sent more than a request may have.
    #[error("the request is longer than {LONGEST_REQUEST} bytes")]
    TooLong,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Answers one command on an accepted connection. The caller bounds how many connections there are.
///
/// # Errors
/// [`ServeError`] for the proxy's log; whatever a command refuses is told to the client and no error here.
pub async fn serve_connection(ctx: &Context, stream: UnixStream) -> Result<(), ServeError> {
    check_peer(&stream)?;
    let (read, write) = stream.into_split();
    let mut read = BufReader::new(read);
    let request = tokio::time::timeout(REQUEST_TIME, read_request(&mut read))
        .await
        .map_err(|_| ServeError::Timeout)??;
    let mut io = CtlIo {
        files: request.files,
        read,
        write,
    };
    let exit = match CommandLine::from_words(request.words) {
        Ok(line) => run(ctx, Caller::Local, line, &mut io).await,
        Err(error) => say_usage_error(&error, &mut io).await,
    };
    // A client that left has no use for it.
    let _ = io.frame(EXIT, &[exit.code()]).await;
    let _ = io.write.shutdown().await;
    Ok(())
}

fn check_peer(stream: &UnixStream) -> Result<(), ServeError> {
    let uid = stream.peer_cred()?.uid();
    let own = nix::unistd::geteuid().as_raw();
    if uid == own || uid == 0 {
        Ok(())
    } else {
        Err(ServeError::Peer { uid, own })
    }
}

async fn read_request(read: &mut BufReader<OwnedReadHalf>) -> Result<Request, ServeError> {
    let mut line = Vec::new();
    let mut limited = read.take(LONGEST_REQUEST);
    limited.read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') && limited.limit() == 0 {
        return Err(ServeError::TooLong);
    }
    Ok(serde_json::from_slice(&line)?)
}

struct CtlIo {
    files: BTreeMap<String, String>,
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl CtlIo {
    async fn frames(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Gone> {
        for chunk in bytes.chunks(LONGEST_FRAME) {
            self.frame(kind, chunk).await?;
        }
        Ok(())
    }

    async fn frame(&mut self, kind: u8, bytes: &[u8]) -> Result<(), Gone> {
        let length = u32::try_from(bytes.len()).map_err(|_| Gone)?;
        let mut frame = Vec::with_capacity(5 + bytes.len());
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(bytes);
        match tokio::time::timeout(WRITE_TIME, self.write.write_all(&frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

impl CommandIo for CtlIo {
    async fn stdout(&mut self, text: Bytes) -> Result<(), Gone> {
        self.frames(STDOUT, &text).await
    }

    async fn stderr(&mut self, text: Bytes) -> Result<(), Gone> {
        self.frames(STDERR, &text).await
    }

    async fn read_stdin(&mut self, limit: usize) -> Result<Vec<u8>, StdinError> {
        let bytes = self.files.remove("-").unwrap_or_default().into_bytes();
        if bytes.len() > limit {
            Err(StdinError::TooLong(limit))
        } else {
            Ok(bytes)
        }
    }

    fn file(&mut self, path: &str) -> FileAnswer {
        self.files.get(path).map_or(FileAnswer::OutOfReach, |text| {
            FileAnswer::Sent(text.clone().into_bytes())
        })
    }

    fn terminal(&self) -> Option<TerminalSize> {
        None
    }

    async fn read_line(&mut self, _prompt: &str) -> Typed {
        Typed::End
    }

    async fn agent(&mut self) -> Result<AgentStream, NoAgent> {
        Err(NoAgent::NotForwarded)
    }

    async fn gone(&mut self) -> Leave {
        let mut rest = [0; 256];
        // A client has nothing to say after its request; whatever comes is dropped until it closes.
        while matches!(self.read.read(&mut rest).await, Ok(1..)) {}
        Leave::Disconnected
    }
}

/// Gives a command to the proxy that listens on `socket`, and copies its answer. Returns the command's exit status, or one
/// that says why there is no answer, which is then explained on `stderr`.
pub async fn client(
    socket: &Path,
    words: Vec<String>,
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Unpin,
    mut stderr: impl AsyncWrite + Unpin,
) -> Exit {
    match ask(socket, words, stdin, stdout, &mut stderr).await {
        Ok(exit) => exit,
        Err((exit, text)) => {
            // Nothing can be said about a stderr that can't be written to.
            let _ = stderr
                .write_all(format!("ERROR: {text}\n").as_bytes())
                .await;
            let _ = stderr.flush().await;
            exit
        }
    }
}

type Unanswered = (Exit, String);

async fn ask(
    socket: &Path,
    words: Vec<String>,
    stdin: impl AsyncRead + Unpin,
    mut stdout: impl AsyncWrite + Unpin,
    stderr: &mut (impl AsyncWrite + Unpin),
) -> Result<Exit, Unanswered> {
    let line = CommandLine::from_words(words).map_err(|error| (Exit::Usage, error.to_string()))?;
    let files = read_files(&line, stdin).await?;
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| no_proxy(socket, &error))?;
    let lost = |error: io::Error| {
        (
            Exit::Unavailable,
            format!(
                "the proxy ended the connection before it answered ({error}); look at its log, and whether the command was done"
            ),
        )
    };
    let (read, mut write) = stream.into_split();
    let request = Request {
        words: line.words().to_vec(),
        files,
    };
    let mut bytes =
        serde_json::to_vec(&request).map_err(|error| (Exit::Failed, error.to_string()))?;
    bytes.push(b'\n');
    write.write_all(&bytes).await.map_err(lost)?;
    let mut read = BufReader::new(read);
    loop {
        let (kind, bytes) = read_frame(&mut read).await.map_err(lost)?;
        match kind {
            STDOUT => {
                let written = async {
                    stdout.write_all(&bytes).await?;
                    stdout.flush().await
                };
                // A closed pipe (`… | head`) ends us as it ends other programs.
                if written.await.is_err() {
                    return Ok(Exit::Failed);
                }
            }
            STDERR => {
                let _ = stderr.write_all(&bytes).await;
                let _ = stderr.flush().await;
            }
            EXIT => return Ok(exit_of(bytes.first().copied())),
            other => {
                return Err((
                    Exit::Failed,
                    format!(
                        "the proxy answers in a way that this program does not know ({other}); is it of another version?"
                    ),
                ));
            }
        }
    }
}

async fn read_frame(read: &mut BufReader<OwnedReadHalf>) -> io::Result<(u8, Vec<u8>)> {
    let kind = read.read_u8().await?;
    let length = read.read_u32().await? as usize;
    if length > LONGEST_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    read.read_exact(&mut bytes).await?;
    Ok((kind, bytes))
}

fn exit_of(code: Option<u8>) -> Exit {
    const ALL: [Exit; 9] = [
        Exit::Done,
        Exit::Failed,
        Exit::Usage,
        Exit::NotFound,
        Exit::Unavailable,
        Exit::Pending,
        Exit::Denied,
        Exit::Config,
        Exit::Interrupted,
    ];
    ALL.into_iter()
        .find(|exit| Some(exit.code()) == code)
        .unwrap_or(Exit::Failed)
}

fn no_proxy(socket: &Path, error: &io::Error) -> Unanswered {
    let shown = clean_bytes(socket.as_os_str().as_encoded_bytes());
    if error.kind() == io::ErrorKind::PermissionDenied {
        let text =
            format!("`{shown}` belongs to another user; use sudo, or give the command over ssh");
        return (Exit::Denied, text);
    }
    let text = format!(
        "no proxy listens on `{shown}` ({error}); start it with `anteroom serve`, or name its directory with --data-dir"
    );
    (Exit::Unavailable, text)
}

/// The files that the words name, read here because here is where they mean something.
async fn read_files(
    line: &CommandLine,
    stdin: impl AsyncRead + Unpin,
) -> Result<BTreeMap<String, String>, Unanswered> {
    let mut files = BTreeMap::new();
    let mut stdin = Some(stdin);
    for path in line.file_arguments() {
        let read = match (path.as_str(), stdin.take()) {
            ("-", Some(input)) => read_limited(input).await,
            (_, input) => {
                stdin = input;
                match tokio::fs::File::open(&path).await {
                    Ok(file) => read_limited(file).await,
                    Err(error) => Err(error),
                }
            }
        };
        let shown = clean(&path).into_owned();
        let bytes = read.map_err(|error| unreadable(&shown, &error))?;
        let text = String::from_utf8(bytes)
            .map_err(|_| (Exit::Usage, format!("`{shown}` is not UTF-8 text")))?;
        files.insert(path, text);
    }
    Ok(files)
}

fn unreadable(path: &str, error: &io::Error) -> Unanswered {
    let kind = error.kind();
    let exit = if kind == io::ErrorKind::NotFound {
        Exit::NotFound
    } else if kind == io::ErrorKind::FileTooLarge {
        Exit::Usage
    } else {
        Exit::Failed
    };
    (exit, format!("cannot read `{path}`: {error}"))
}

async fn read_limited(input: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut limited = input.take(LONGEST_INPUT as u64 + 1);
    limited.read_to_end(&mut bytes).await?;
    if bytes.len() > LONGEST_INPUT {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {LONGEST_INPUT} bytes"),
        ));
    }
    Ok(bytes)
}
