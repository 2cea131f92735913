//! A session channel: what is asked for, the program that it starts, the bytes between them, and the end.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use anteroom_ssh::{
    Channel, ChannelRequest, Event, ExitSignal, Gone, Inbox, Outbox, PtyRequest, Signal,
};
use bytes::{Buf, Bytes, BytesMut};
use nix::sys::signal::{Signal as Number, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tracing::{info, warn};

use super::accounting::{self, Recorded};
use super::child::{Outcome, Pipes, Process};
use super::environment::{self, Circumstances};
use super::front::{Login, shown};
use super::order::{Greeting, Order, Program};
use super::processes;
use super::signals::Signals;
use super::terminal::Terminal;

/// Bytes that are read from a program at once.
const PIECE: usize = 32 << 10;

/// Bytes that wait for a program that does not read, before its client has to. Requests behind them, a
/// signal for one, are still seen.
const MOST_WAITING: usize = 64 << 10;

/// Bytes of what the helper complains of before there is a terminal.
const LONGEST_COMPLAINT: u64 = 4 << 10;

/// What the client has asked for before it starts its program.
#[derive(Default)]
struct Wishes {
    variables: Vec<(String, String)>,
    terminal: Option<PtyRequest>,
    agent: bool,
}

/// What is to be run.
struct Wanted {
    program: Program,
    /// What was asked for, where the certificate forces a command.
    original: Option<String>,
    /// For the log.
    text: String,
    /// Whether signals may be sent to it: as in sshd, not to a forced command nor to a subsystem.
    signals: bool,
}

/// Serves one session until it is over.
pub(super) async fn run(login: Arc<Login>, number: u64, channel: Channel) {
    let Channel { mut inbox, outbox } = channel;
    let Some((wishes, request)) = gather(&mut inbox).await else {
        return;
    };
    let _counted = login.server.count();
    let wanted = wanted(&login, request);
    let running = match start(&login, wishes, &wanted).await {
        Ok(running) => running,
        Err(error) => {
            warn!(
                connection = login.number,
                session = number,
                "cannot start {}: {error}",
                wanted.text
            );
            let text = format!("anteroom: cannot start the session: {error}\r\n");
            let _ = outbox.stderr(Bytes::from(text)).await;
            let _ = outbox.exit_status(255).await;
            return outbox.close().await;
        }
    };
    let session = running.process.number();
    info!(
        connection = login.number,
        session = number,
        login = login.account.name,
        pid = session,
        terminal = running
            .terminal_path()
            .map(|path| path.display().to_string()),
        "started {} for {}",
        wanted.text,
        shown(login.access.key_id()),
    );
    let mut running = running;
    let ended = running.pump(&login, inbox, &outbox, wanted.signals).await;
    // The terminal is gone by now: that is what hangs it up.
    let Running {
        process, recorded, ..
    } = running;
    // It writes files, for which it may have to wait.
    tokio::task::spawn_blocking(move || drop(recorded));
    match ended {
        Ended::Over(outcome) => {
            info!(
                connection = login.number,
                session = number,
                "ended: {outcome}"
            );
            let _ = say(&outbox, outcome).await;
            let _ = outbox.eof().await;
            outbox.close().await;
            processes::hang_up(session).await;
        }
        Ended::Cut => {
            info!(
                connection = login.number,
                session = number,
                "cut by the other side"
            );
            drop(outbox);
            cut(&process, session).await;
        }
    }
    // Only now is its number given back.
    drop(process);
}

/// Ends what a session leaves whose other side is gone.
async fn cut(process: &Process, session: i32) {
    // The first process by its number: it may not have come to its session yet.
    let _ = kill(Pid::from_raw(session), Number::SIGHUP);
    processes::end(session).await;
    let _ = kill(Pid::from_raw(session), Number::SIGKILL);
    let _ = process.ended().await;
}

/// Requests up to the one that starts a program. `None` if none does.
async fn gather(inbox: &mut Inbox) -> Option<(Wishes, ChannelRequest)> {
    let mut wishes = Wishes::default();
    loop {
        match inbox.next().await? {
            Event::Request(request) => match request {
                ChannelRequest::Env { name, value } => wishes.variables.push((name, value)),
                ChannelRequest::Pty(pty) => wishes.terminal = Some(pty),
                ChannelRequest::WindowChange(size) => {
                    if let Some(pty) = &mut wishes.terminal {
                        pty.size = size;
                    }
                }
                ChannelRequest::AgentForward => wishes.agent = true,
                // Refused by the front, and signals have nobody to go to yet.
                ChannelRequest::X11(_) | ChannelRequest::Signal(_) => {}
                ChannelRequest::Shell | ChannelRequest::Exec(_) | ChannelRequest::Subsystem(_) => {
                    return Some((wishes, request));
                }
            },
            Event::Close => return None,
            // There is nobody yet who could read; no client sends before it has asked.
            Event::Data(_)
            | Event::Stderr(_)
            | Event::Eof
            | Event::ExitStatus(_)
            | Event::ExitSignal(_)
            | Event::NodeAccepted(_)
            | Event::NodeRefused(_) => {}
        }
    }
}

/// SFTP servers of OpenSSH, where distributions have them.
const SFTP_SERVERS: [&str; 4] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
];

/// The one that is installed.
pub(super) fn sftp_server() -> Option<&'static str> {
    SFTP_SERVERS
        .into_iter()
        .find(|path| std::fs::metadata(path).is_ok_and(|found| found.is_file()))
}

fn wanted(login: &Login, request: ChannelRequest) -> Wanted {
    let (asked, text, subsystem) = match request {
        ChannelRequest::Exec(command) => {
            let text = String::from_utf8_lossy(&command).into_owned();
            let text = format!("command {}", shown(&text));
            (Program::Command(command), text, false)
        }
        ChannelRequest::Subsystem(name) => {
            let installed = sftp_server().filter(|_| !login.server.options.own_sftp);
            let program = match installed {
                Some(path) => Program::Command(path.as_bytes().to_vec()),
                None => Program::Sftp,
            };
            (program, format!("subsystem {}", shown(&name)), true)
        }
        ChannelRequest::Shell
        | ChannelRequest::Pty(_)
        | ChannelRequest::Env { .. }
        | ChannelRequest::WindowChange(_)
        | ChannelRequest::Signal(_)
        | ChannelRequest::AgentForward
        | ChannelRequest::X11(_) => (Program::Shell, "a shell".to_owned(), false),
    };
    let Some(forced) = login.access.force_command() else {
        return Wanted {
            program: asked,
            original: None,
            text,
            signals: !subsystem,
        };
    };
    Wanted {
        program: Program::Command(forced.as_bytes().to_vec()),
        original: match asked {
            Program::Command(command) => Some(String::from_utf8_lossy(&command).into_owned()),
            Program::Sftp => Some("internal-sftp".to_owned()),
            Program::Shell | Program::Signal { .. } => None,
        },
        text: format!("the forced command {} in place of {text}", shown(forced)),
        signals: false,
    }
}

/// A program that runs, and its streams.
struct Running {
    process: Process,
    streams: Streams,
    recorded: Option<Recorded>,
}

enum Streams {
    Pipes {
        stdin: ChildStdin,
        stdout: ChildStdout,
        stderr: ChildStderr,
    },
    Terminal(Terminal),
    Taken,
}

async fn start(login: &Arc<Login>, wishes: Wishes, wanted: &Wanted) -> io::Result<Running> {
    let opened = wishes.terminal.as_ref().map(Terminal::open).transpose()?;
    let (terminal, slave) = opened.unzip();
    let agent_socket = login.agent_socket(wishes.agent).await;
    let interactive = terminal.is_some() && wanted.program == Program::Shell;
    let (process, pipes) = Process::spawn(login, slave)?;
    let recorded = match &terminal {
        Some(terminal) => Some(record(login, terminal, process.number()).await),
        None => None,
    };
    let (last_login, recorded) = recorded.unwrap_or_default();
    let greeting = interactive.then_some(Greeting { last_login });
    let order = order(
        login,
        &wishes,
        wanted,
        terminal.as_ref(),
        agent_socket,
        greeting,
    );
    let Pipes {
        mut stdin,
        stdout,
        stderr,
    } = pipes;
    stdin.write_all(&order.to_bytes()?).await?;
    let streams = match (terminal, stdout) {
        (Some(terminal), _) => {
            tokio::spawn(log_complaints(login.number, stderr));
            Streams::Terminal(terminal)
        }
        (None, Some(stdout)) => Streams::Pipes {
            stdin,
            stdout,
            stderr,
        },
        (None, None) => return Err(io::Error::other("a stream of the helper is missing")),
    };
    Ok(Running {
        process,
        streams,
        recorded,
    })
}

/// Records a login on a terminal; what there was of an earlier one, and the record.
async fn record(
    login: &Arc<Login>,
    terminal: &Terminal,
    pid: i32,
) -> (Option<String>, Option<Recorded>) {
    let (login, path) = (Arc::clone(login), terminal.path().to_owned());
    let recording = tokio::task::spawn_blocking(move || {
        let before = accounting::last_login(&login.account);
        let from = login.peer.remote.ip().to_canonical();
        (before, accounting::record(&login.account, &path, pid, from))
    });
    match recording.await {
        Ok((before, recorded)) => (before, Some(recorded)),
        Err(_) => (None, None),
    }
}

fn order(
    login: &Login,
    wishes: &Wishes,
    wanted: &Wanted,
    terminal: Option<&Terminal>,
    agent_socket: Option<PathBuf>,
    greeting: Option<Greeting>,
) -> Order {
    let account = &login.account;
    let term = wishes.terminal.as_ref().map(|pty| pty.term.as_str());
    let circumstances = Circumstances {
        sent: &wishes.variables,
        peer: login.peer,
        terminal: term.zip(terminal.map(Terminal::path)),
        agent_socket: agent_socket.as_deref(),
        original_command: wanted.original.clone(),
        person: login.access.person().map(|name| name.to_string()),
    };
    Order {
        login: account.name.clone(),
        uid: account.uid.as_raw(),
        gid: account.gid.as_raw(),
        home: account.home.clone(),
        shell: account.shell.clone(),
        program: wanted.program.clone(),
        environment: environment::of(account, &circumstances),
        terminal: terminal.is_some(),
        greeting,
    }
}

/// What goes wrong before the helper has its terminal is for the log: nobody else would see it.
async fn log_complaints(connection: u64, stderr: ChildStderr) {
    let mut text = String::new();
    let mut stderr = stderr.take(LONGEST_COMPLAINT);
    if stderr.read_to_string(&mut text).await.is_ok() && !text.is_empty() {
        warn!(connection, "a session could not begin: {}", shown(&text));
    }
}

/// How a session came to its end.
enum Ended {
    /// Its program has ended, and all that it wrote has been sent.
    Over(Outcome),
    /// The channel or its connection is gone, or the agent ends.
    Cut,
}

impl Running {
    fn terminal_path(&self) -> Option<&std::path::Path> {
        match &self.streams {
            Streams::Terminal(terminal) => Some(terminal.path()),
            Streams::Pipes { .. } | Streams::Taken => None,
        }
    }

    /// Moves bytes both ways until the program has ended and its last byte is sent, or the client is gone. By then
    /// nobody signals the program any more.
    async fn pump(
        &mut self,
        login: &Arc<Login>,
        inbox: Inbox,
        outbox: &Outbox,
        signals: bool,
    ) -> Ended {
        let streams = std::mem::replace(&mut self.streams, Streams::Taken);
        let closing = login.server.closing();
        let Running { process, .. } = self;
        if !signals {
            return exchange(process, streams, inbox, outbox, closing, None).await;
        }
        let signals = Signals::default();
        let exchanging = async {
            let ended = exchange(process, streams, inbox, outbox, closing, Some(&signals)).await;
            signals.close();
            ended
        };
        let delivering = signals.deliver(login, process.number());
        tokio::join!(exchanging, delivering).0
    }
}

/// Moves bytes both ways.
async fn exchange(
    process: &Process,
    streams: Streams,
    inbox: Inbox,
    outbox: &Outbox,
    closing: impl Future<Output = ()>,
    signals: Option<&Signals>,
) -> Ended {
    match streams {
        Streams::Pipes {
            stdin,
            stdout,
            stderr,
        } => {
            let output = async {
                let out = copy(stdout, |bytes| outbox.data(bytes));
                let err = copy(stderr, |bytes| outbox.stderr(bytes));
                let (out, err) = tokio::join!(out, err);
                out.and(err)
            };
            let input = feed(inbox, Sink::Pipe(stdin), signals);
            finish(process, outbox, closing, output, input).await
        }
        Streams::Terminal(terminal) => {
            let terminal = Arc::new(terminal);
            let output = copy_terminal(&terminal, outbox);
            let input = feed(inbox, Sink::Terminal(Arc::clone(&terminal)), signals);
            finish(process, outbox, closing, output, input).await
        }
        Streams::Taken => Ended::Cut,
    }
}

async fn finish(
    process: &Process,
    outbox: &Outbox,
    closing: impl Future<Output = ()>,
    output: impl Future<Output = Result<(), Gone>>,
    input: impl Future<Output = ()>,
) -> Ended {
    let (mut output, mut input, mut closing) = (pin!(output), pin!(input), pin!(closing));
    let (mut drained, mut ended) = (false, None);
    loop {
        tokio::select! {
            () = outbox.gone() => return Ended::Cut,
            () = &mut closing => return Ended::Cut,
            () = &mut input => return Ended::Cut,
            sent = &mut output, if !drained => match sent {
                Ok(()) => drained = true,
                Err(Gone) => return Ended::Cut,
            },
            outcome = process.ended(), if ended.is_none() => match outcome {
                Ok(outcome) => ended = Some(outcome),
                Err(_) => return Ended::Cut,
            },
        }
        if let (true, Some(outcome)) = (drained, ended) {
            return Ended::Over(outcome);
        }
    }
}

/// Sends what a program writes. A pipe that breaks has ended.
async fn copy<F>(mut from: impl AsyncRead + Unpin, send: impl Fn(Bytes) -> F) -> Result<(), Gone>
where
    F: Future<Output = Result<(), Gone>>,
{
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match from.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => send(buffer.split().freeze()).await?,
        }
    }
}

async fn copy_terminal(terminal: &Terminal, outbox: &Outbox) -> Result<(), Gone> {
    let mut buffer = vec![0; PIECE];
    loop {
        match terminal.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(length) => {
                let piece = buffer.get(..length).unwrap_or_default();
                outbox.data(Bytes::copy_from_slice(piece)).await?;
            }
        }
    }
}

/// Where input goes.
enum Sink {
    Pipe(ChildStdin),
    Terminal(Arc<Terminal>),
    /// Nobody reads; what still comes is let go.
    Closed,
}

impl Sink {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Pipe(pipe) => pipe.write(bytes).await,
            Sink::Terminal(terminal) => terminal.write(bytes).await,
            Sink::Closed => std::future::pending().await,
        }
    }

    /// The end of input. A terminal has none: whoever types says it with a character.
    fn end(&mut self) {
        match self {
            Sink::Pipe(_) => *self = Sink::Closed,
            Sink::Terminal(_) | Sink::Closed => {}
        }
    }
}

/// Hands on what the client sends, until its channel is closed.
async fn feed(mut inbox: Inbox, mut sink: Sink, signals: Option<&Signals>) {
    let mut waiting: VecDeque<Bytes> = VecDeque::new();
    let mut size = 0;
    let mut ended = false;
    loop {
        if ended && waiting.is_empty() {
            sink.end();
        }
        let next = waiting.front().cloned();
        let event = tokio::select! {
            event = inbox.next(), if size < MOST_WAITING => event,
            written = sink.write(next.as_deref().unwrap_or_default()), if next.is_some() => {
                match (written, waiting.front_mut()) {
                    (Ok(written), Some(front)) => {
                        front.advance(written.min(front.len()));
                        size = size.saturating_sub(written);
                        if front.is_empty() {
                            waiting.pop_front();
                        }
                    }
                    (Ok(_), None) => {}
                    (Err(_), _) => {
                        sink = Sink::Closed;
                        waiting.clear();
                        size = 0;
                    }
                }
                continue;
            }
        };
        match event {
            Some(Event::Data(bytes)) => {
                if !matches!(sink, Sink::Closed) {
                    size += bytes.len();
                    waiting.push_back(bytes);
                }
            }
            Some(Event::Eof) => ended = true,
            Some(Event::Request(request)) => obey(request, &sink, signals),
            None | Some(Event::Close) => return,
            Some(
                Event::Stderr(_)
                | Event::ExitStatus(_)
                | Event::ExitSignal(_)
                | Event::NodeAccepted(_)
                | Event::NodeRefused(_),
            ) => {}
        }
    }
}

/// What may be asked of a program that runs.
fn obey(request: ChannelRequest, sink: &Sink, signals: Option<&Signals>) {
    match request {
        ChannelRequest::WindowChange(size) => {
            if let Sink::Terminal(terminal) = sink {
                terminal.resize(size);
            }
        }
        ChannelRequest::Signal(signal) => {
            if let Some(signals) = signals {
                signals.take(&signal);
            }
        }
        ChannelRequest::Pty(_)
        | ChannelRequest::Env { .. }
        | ChannelRequest::Shell
        | ChannelRequest::Exec(_)
        | ChannelRequest::Subsystem(_)
        | ChannelRequest::AgentForward
        | ChannelRequest::X11(_) => {}
    }
}

/// Tells the client how the program ended.
async fn say(outbox: &Outbox, outcome: Outcome) -> Result<(), Gone> {
    let (number, core_dumped) = match outcome {
        Outcome::Code(code) => {
            return outbox.exit_status(u32::try_from(code).unwrap_or(255)).await;
        }
        Outcome::Signal {
            number,
            core_dumped,
        } => (number, core_dumped),
    };
    let name = Number::try_from(number).map_or("", Number::as_str);
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let known = [
        "ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1",
        "USR2",
    ];
    // sshd's name for those that RFC 4254 section 6.10 has none for.
    let known = known.contains(&name);
    let Some(signal_name) = Signal::parse(if known { name } else { "SIG@openssh.com" }) else {
        return outbox.exit_status(255).await;
    };
    let ended = ExitSignal {
        signal: signal_name,
        core_dumped,
        message: String::new(),
    };
    outbox.exit_signal(ended).await
}
