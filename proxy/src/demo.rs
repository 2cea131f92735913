//! `anteroom demo`: a complete sandbox, and the main story played in it with the real programs.
//!
//! Everything here goes through the same doors as in production: this very binary as `serve` and
//! `ctl`, the system's `ssh`, `ssh-keygen` and `sshd`. Nothing is simulated; each step is checked.

mod sandbox;
mod story;

use std::path::PathBuf;

use crate::exit::Exit;

/// What `anteroom demo` was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// End after the story.
    pub once: bool,
    /// Where the sandbox lives: a folder that is not there yet, or an empty one, which stays; absent: a new private folder,
    /// removed at the end.
    pub dir: Option<PathBuf>,
    /// The proxy's port; 0: any free one.
    pub port: u16,
}

/// Why the demo could not be shown, or what in it did not go as it should.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A program is missing.
    #[error("the demo needs `{program}`: install it with `{install}` and run the demo again")]
    Missing {
        /// What was looked for.
        program: &'static str,
        /// The line that installs it.
        install: &'static str,
    },
    /// A folder, file or process of the sandbox failed.
    #[error("{doing}: {error}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The folder that `--dir` names is not taken.
    #[error(
        "`--dir {}`: {why}; name a folder that is not there yet, or an empty one of yours (`mktemp -d` makes one)",
        dir.display()
    )]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A step did something else than it should.
    #[error("the step `{step}` did not do what it should: {found}")]
    Step {
        /// The command line.
        step: String,
        /// What happened instead.
        found: String,
    },
}

impl DemoError {
    /// How the process ends.
    pub fn exit(&self) -> Exit {
        match self {
            DemoError::Missing { .. } => Exit::Unavailable,
            DemoError::Folder { .. } => Exit::Usage,
            DemoError::Io { .. } | DemoError::Step { .. } => Exit::Failed,
        }
    }

    fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> DemoError {
        let doing = doing.into();
        |error| DemoError::Io { doing, error }
    }
}

/// Builds the sandbox, plays the story, and stays up until Ctrl-C unless `once`.
///
/// # Errors
/// The first thing that did not go as it should.
pub async fn run(options: &Options) -> Result<(), DemoError> {
    let sandbox = tokio::select! {
        sandbox = sandbox::Sandbox::build(options) => sandbox?,
        () = interrupted() => return Ok(()),
    };
    tokio::select! {
        told = story::tell(&sandbox) => told?,
        () = interrupted() => return Ok(()),
    }
    if options.once {
        return Ok(());
    }
    sandbox.invite();
    interrupted().await;
    Ok(())
}

/// Ctrl-C, or being asked to end; the sandbox is removed by its owner's `Drop`.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut int), Ok(mut term)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
}
