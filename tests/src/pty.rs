//! A program in a terminal of its own, typed to and read like a person would.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::unistd::ttyname;

use crate::proc::Waited;
use crate::{Capture, Cmd, PATIENCE};

/// A running program whose controlling terminal the test holds the other end of.
pub struct Pty {
    line: String,
    master: File,
    terminal: PathBuf,
    /// Everything the terminal shows.
    pub screen: Capture,
    waited: Waited,
}

impl Pty {
    pub(crate) fn start(cmd: Cmd, columns: u16, rows: u16) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).expect("a pseudo-terminal can be opened");
        let terminal = ttyname(&pty.slave).expect("a terminal has a name");
        let line = cmd.line();
        let clone = || pty.slave.try_clone().expect("a descriptor can be copied");
        // setsid makes the terminal the controlling one; it and setpriv end in exec.
        let child = cmd
            .command(&["setsid", "--ctty"])
            .env("TERM", "xterm-256color")
            .stdin(clone())
            .stdout(clone())
            .stderr(clone())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{line}`: {error}"));
        let master = File::from(pty.master);
        let screen = Capture::of(master.try_clone().expect("a descriptor can be copied"));
        Self {
            line,
            master,
            terminal,
            screen,
            waited: Waited::on(child),
        }
    }

    /// Types.
    pub fn type_in(&mut self, text: &str) {
        self.master
            .write_all(text.as_bytes())
            .expect("a terminal can be typed at");
    }

    /// Waits until the screen shows `needle` after what was waited for before, and returns
    /// what came up to it.
    #[track_caller]
    pub fn expect(&self, needle: &str) -> String {
        self.screen
            .expect(needle, PATIENCE)
            .unwrap_or_else(|all| panic!("`{}` never showed `{needle}`, only:\n{all}", self.line))
    }

    /// Changes the size; the program gets SIGWINCH.
    pub fn resize(&self, columns: u16, rows: u16) {
        let changed = Command::new("stty")
            .arg("-F")
            .arg(&self.terminal)
            .args(["cols", &columns.to_string(), "rows", &rows.to_string()])
            .status();
        assert!(
            changed
                .as_ref()
                .is_ok_and(std::process::ExitStatus::success),
            "stty: {changed:?}"
        );
    }

    /// Whether the program still runs.
    pub fn is_running(&self) -> bool {
        self.waited.status().is_none()
    }

    /// Waits for the program's end and returns its exit status and all that was shown.
    ///
    /// # Panics
    /// If it still runs after `patience`, or a signal ended it.
    #[track_caller]
    pub fn finish(self, patience: Duration) -> (i32, String) {
        let Some(status) = self.waited.within(patience) else {
            panic!(
                "`{}` still runs after {patience:?}, having shown:\n{}",
                self.line,
                self.screen.text()
            )
        };
        self.screen.wait_for_end(Duration::from_secs(2));
        let text = self.screen.text();
        let Some(code) = status.code() else {
            panic!("`{}` ended by {status}, having shown:\n{text}", self.line)
        };
        (code, text)
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.waited.kill_group();
    }
}
