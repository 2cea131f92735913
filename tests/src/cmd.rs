//! A command to run: what `std::process::Command` is, plus what a test wants to say.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::{Finished, PATIENCE, Proc, Pty};

/// What the command reads from its standard input.
#[derive(Clone, Default)]
pub enum Input {
    /// `/dev/null`.
    #[default]
    Nothing,
    /// These bytes at once, then end of file.
    Bytes(Vec<u8>),
    /// A pipe that stays open, for [`Proc::say`] and [`Proc::end_input`].
    Open,
}

/// A command with its arguments, environment and input, not started yet.
#[derive(Clone)]
pub struct Cmd {
    program: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    dir: Option<PathBuf>,
    pub(crate) input: Input,
}

impl Cmd {
    /// `program`, with no arguments and nothing to read.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            input: Input::Nothing,
        }
    }

    /// The same, started by other words: the last of them runs what follows.
    #[must_use]
    pub fn under(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut words = words.into_iter().map(|word| word.as_ref().to_owned());
        if let Some(program) = words.next() {
            let before: Vec<OsString> = words.collect();
            let own = std::mem::replace(&mut self.program, program);
            let args = std::mem::take(&mut self.args);
            self.args = before.into_iter().chain([own]).chain(args).collect();
        }
        self
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().into()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().into()));
        self
    }

    /// Runs in `dir`.
    #[must_use]
    pub fn dir(mut self, dir: &Path) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Reads `bytes`, then end of file.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    /// Keeps standard input open for [`Proc::say`].
    #[must_use]
    pub fn stdin_open(mut self) -> Self {
        self.input = Input::Open;
        self
    }

    /// Starts it with pipes.
    pub fn start(self) -> Proc {
        Proc::start(self)
    }

    /// Runs it to its end, within [`PATIENCE`].
    pub fn run(self) -> Finished {
        self.start().finish(PATIENCE)
    }

    /// Runs it to its end, within `patience`.
    pub fn run_within(self, patience: Duration) -> Finished {
        self.start().finish(patience)
    }

    /// Starts it in a terminal of its own, 80 columns by 24 rows.
    pub fn in_terminal(self) -> Pty {
        self.in_terminal_of(80, 24)
    }

    /// Starts it in a terminal of its own, of this size.
    pub fn in_terminal_of(self, columns: u16, rows: u16) -> Pty {
        Pty::start(self, columns, rows)
    }

    /// As a person would type it, for messages.
    pub fn line(&self) -> String {
        std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quote(&word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The process to spawn. `wrapper` stands before the program: it must be one that
    /// ends in `exec`, so that the process ID is the program's own.
    pub(crate) fn command(&self, wrapper: &[&str]) -> Command {
        // A test that is killed takes its children with it.
        let mut words = ["setpriv", "--pdeathsig", "KILL"].iter().chain(wrapper);
        let mut command = Command::new(words.next().expect("there is a first word"));
        command.args(words).arg(&self.program).args(&self.args);
        for (name, _) in std::env::vars_os() {
            if leaks(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C.UTF-8")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }
}

/// Whether a variable of the person who runs the tests would change what they show.
fn leaks(name: &str) -> bool {
    [
        "SSH_",
        "ANTEROOM_",
        "ANSIBLE_",
        "GIT_",
        "RSYNC_",
        "LC_",
        "XDG_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        || ["LANG", "LANGUAGE", "RUST_LOG", "DISPLAY", "NO_COLOR"].contains(&name)
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@+,%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{word}'")
    }
}
