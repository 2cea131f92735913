//! A running process with its output captured, killed with everything it started when
//! it is dropped.

use std::fmt;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::{Capture, Cmd, Input, PATIENCE};

/// A process that runs in the background.
pub struct Proc {
    line: String,
    waited: Waited,
    stdin: Option<ChildStdin>,
    /// Its standard output.
    pub out: Capture,
    /// Its standard error.
    pub err: Capture,
    started: Instant,
}

impl Proc {
    pub(crate) fn start(cmd: Cmd) -> Self {
        let line = cmd.line();
        let mut command = cmd.command(&[]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that helpers such as a ProxyJump die with it.
            .process_group(0);
        if !matches!(cmd.input, Input::Nothing) {
            command.stdin(Stdio::piped());
        }
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        let out = Capture::of(child.stdout.take().expect("stdout is piped"));
        let err = Capture::of(child.stderr.take().expect("stderr is piped"));
        let stdin = match cmd.input {
            Input::Nothing => None,
            Input::Open => child.stdin.take(),
            Input::Bytes(bytes) => {
                let mut stdin = child.stdin.take().expect("stdin is piped");
                thread::spawn(move || {
                    // A program that leaves early closes its end: not this thread's concern.
                    let _closed = stdin.write_all(&bytes);
                });
                None
            }
        };
        Self {
            line,
            waited: Waited::on(child),
            stdin,
            out,
            err,
            started: Instant::now(),
        }
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.waited.pid.as_raw().unsigned_abs()
    }

    /// The command as typed.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.waited.status().is_none()
    }

    /// Writes to its standard input, which [`Cmd::stdin_open`] kept open.
    pub fn say(&mut self, text: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin
            .write_all(text.as_ref())
            .and_then(|()| stdin.flush())
            .unwrap_or_else(|error| panic!("`{}` reads no more: {error}", self.line));
    }

    /// Its standard input, for a thread that feeds it.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("standard input is open")
    }

    /// Closes its standard input.
    pub fn end_input(&mut self) {
        self.stdin = None;
    }

    /// Waits until it says `needle` on standard error; returns what came up to it.
    #[track_caller]
    pub fn expect_err(&self, needle: &str) -> String {
        self.err
            .expect(needle, PATIENCE)
            .unwrap_or_else(|all| panic!("`{}` never said `{needle}`, only:\n{all}", self.line))
    }

    /// Waits until it says `needle` on standard output; returns what came up to it.
    #[track_caller]
    pub fn expect_out(&self, needle: &str) -> String {
        self.out.expect(needle, PATIENCE).unwrap_or_else(|all| {
            panic!(
                "`{}` never printed `{needle}`, only:\n{all}\nand on stderr:\n{}",
                self.line,
                self.err.text()
            )
        })
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if self.is_running() {
            kill(self.waited.pid, signal).expect("a running child takes signals");
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it still runs after `patience`; it is killed then.
    #[track_caller]
    pub fn finish(mut self, patience: Duration) -> Finished {
        self.stdin = None;
        let Some(status) = self.waited.within(patience) else {
            panic!(
                "`{}` still runs after {patience:?}\nstdout: {}\nstderr: {}",
                self.line,
                self.out.text(),
                self.err.text()
            )
        };
        let took = self.started.elapsed();
        // What it left in the background (a ControlMaster) may keep the pipes open: its
        // own words are in by then.
        self.out.wait_for_end(Duration::from_secs(2));
        self.err.wait_for_end(Duration::from_secs(2));
        Finished {
            line: self.line.clone(),
            status,
            stdout: self.out.bytes(),
            stderr: self.err.text(),
            took,
        }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.waited.kill_group();
    }
}

/// A child whose end is waited for in a thread, so that others can wait with a limit.
pub(crate) struct Waited {
    pub(crate) pid: Pid,
    ended: Arc<(Mutex<Option<ExitStatus>>, Condvar)>,
}

impl Waited {
    pub(crate) fn on(mut child: std::process::Child) -> Self {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process IDs fit"));
        let ended: Arc<(Mutex<Option<ExitStatus>>, Condvar)> = Arc::default();
        let told = Arc::clone(&ended);
        thread::spawn(move || {
            let status = child.wait().expect("a child can be waited for");
            *told.0.lock().unwrap() = Some(status);
            told.1.notify_all();
        });
        Self { pid, ended }
    }

    pub(crate) fn status(&self) -> Option<ExitStatus> {
        *self.ended.0.lock().unwrap()
    }

    pub(crate) fn within(&self, patience: Duration) -> Option<ExitStatus> {
        let (status, changed) = &*self.ended;
        let (status, _) = changed
            .wait_timeout_while(status.lock().unwrap(), patience, |status| status.is_none())
            .unwrap();
        *status
    }

    /// Kills the group the child leads: by its ID, which stays taken as long as any
    /// process is in the group.
    pub(crate) fn kill_group(&self) {
        // ESRCH: everybody has left already.
        let _gone = killpg(self.pid, Signal::SIGKILL);
        self.within(Duration::from_secs(5));
    }
}

/// A process that has ended, with what it said. Its assertions can be chained.
#[derive(Clone)]
pub struct Finished {
    line: String,
    status: ExitStatus,
    /// Its standard output, byte for byte.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Finished {
    /// The exit status; none if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self}"))
    }

    /// Asserts the exit status.
    #[track_caller]
    pub fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code(), Some(code), "exit status of {self}");
        self
    }

    /// Asserts standard output, byte for byte.
    #[track_caller]
    pub fn prints(&self, stdout: impl AsRef<[u8]>) -> &Self {
        let expected = stdout.as_ref();
        if self.stdout != expected {
            let same = self
                .stdout
                .iter()
                .zip(expected)
                .take_while(|(a, b)| a == b)
                .count();
            panic!(
                "stdout is {} bytes, expected {}, and differs at byte {same}: {self}",
                self.stdout.len(),
                expected.len()
            );
        }
        self
    }

    /// Asserts that standard output contains `part`.
    #[track_caller]
    pub fn prints_part(&self, part: &str) -> &Self {
        assert!(
            self.text().contains(part),
            "no `{part}` in stdout of {self}"
        );
        self
    }

    /// Asserts that standard error contains `part`.
    #[track_caller]
    pub fn says(&self, part: &str) -> &Self {
        assert!(
            self.stderr.contains(part),
            "no `{part}` in stderr of {self}"
        );
        self
    }

    /// Asserts that neither stream contains `part`.
    #[track_caller]
    pub fn is_silent_about(&self, part: &str) -> &Self {
        assert!(
            !self.stderr.contains(part) && !self.text().contains(part),
            "`{part}` is said in {self}"
        );
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.stdout[..self.stdout.len().min(4096)];
        write!(
            f,
            "`{}` ({}, {:?})\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.line,
            self.status,
            self.took,
            String::from_utf8_lossy(shown),
            self.stderr
        )
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
