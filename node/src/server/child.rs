//! A session's first process. It is not waited for before the session is done with: until then its number,
//! which is also that of its group and its kernel session, is nobody else's, and signals go where they are meant.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, pidfd_open, waitid,
};
use tokio::io::unix::AsyncFd;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::runtime::Handle;

use super::front::Login;
use super::terminal::watched;

/// How often a kernel is asked that has no descriptors for processes (Linux before 5.3).
const ASKING: Duration = Duration::from_millis(25);

/// The helper, which becomes the user's program.
pub(super) struct Process {
    child: Option<Child>,
    pid: Pid,
    /// Readable once it has ended.
    ended: Option<AsyncFd<OwnedFd>>,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal {
        /// Its number here.
        number: i32,
        /// Whether it left its memory behind.
        core_dumped: bool,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal { number, .. } => write!(f, "signal {number}"),
        }
    }
}

/// Our ends of its streams. Of one on a terminal the middle one is missing.
pub(super) struct Pipes {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: ChildStderr,
}

impl Process {
    /// Starts the helper, which waits for its order. Its standard output is a pipe or the terminal.
    pub(super) fn spawn(login: &Login, terminal: Option<OwnedFd>) -> io::Result<(Self, Pipes)> {
        let helper = &login.server.options.helper;
        let (program, arguments) = helper
            .split_first()
            .ok_or_else(|| io::Error::other("no helper is configured"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(terminal.map_or_else(Stdio::piped, Stdio::from))
            .stderr(Stdio::piped())
            .spawn()?;
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pid = Pid::from_child(&child);
        let process = Self {
            child: Some(child),
            pid,
            ended: pidfd_open(pid, PidfdFlags::empty())
                .ok()
                .and_then(|fd| watched(fd).ok()),
        };
        let (Some(stdin), stdout, Some(stderr)) = streams else {
            return Err(io::Error::other("a stream of the helper is missing"));
        };
        let pipes = Pipes {
            stdin: ChildStdin::from_std(stdin)?,
            stdout: stdout.map(ChildStdout::from_std).transpose()?,
            stderr: ChildStderr::from_std(stderr)?,
        };
        Ok((process, pipes))
    }

    /// The number of the process, its group and its session.
    pub(super) fn number(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Ends it, for whatever it is. To be used before it has been waited for: so its number is its own.
    pub(super) fn kill(&self) {
        let _ = kill_process(self.pid, Signal::KILL);
    }

    /// How it ended, once it has. It stays to be waited for. Cancel-safe.
    pub(super) async fn ended(&self) -> io::Result<Outcome> {
        loop {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            if let Some(status) = waitid(WaitId::Pid(self.pid), options)? {
                return Ok(outcome(&status));
            }
            match &self.ended {
                Some(ended) => ended.readable().await?.retain_ready(),
                None => tokio::time::sleep(ASKING).await,
            }
        }
    }
}

fn outcome(status: &WaitIdStatus) -> Outcome {
    match status.terminating_signal() {
        Some(number) => Outcome::Signal {
            number,
            core_dumped: status.dumped(),
        },
        None => Outcome::Code(status.exit_status().unwrap_or(255)),
    }
}

/// How often it is asked whether a process that was given up has ended.
const REAPING: Duration = Duration::from_millis(250);

/// Waited for at last. It has ended, or was killed or has lost its input, and will: beside everything else, since a
/// process that the kernel does not let go must hold up nobody. In no thread of its own: where a user's processes
/// leave no room for one there must be no panic.
impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let mut lives = move || matches!(child.try_wait(), Ok(None));
        if lives()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                while lives() {
                    tokio::time::sleep(REAPING).await;
                }
            });
        }
    }
}
