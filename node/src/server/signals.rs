//! Signals that a client sends to the program of its session (RFC 4254 section 6.9), delivered as sshd does: to the
//! program's group, with the user's rights.
//!
//! ```text
//!  feed ──► Signals: each kind waits once ──► deliver ──► one helper at a time, waited for before the next
//! ```

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anteroom_ssh::Signal;
use nix::sys::signal::Signal as Number;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::child::{Outcome, Process};
use super::front::Login;
use super::order::{Order, Program};

/// How long the process that sends one may take: it looks up the user's groups, in a database that may be on
/// the network, and the user may stop it as soon as it is his.
const LONGEST: Duration = Duration::from_secs(10);

/// From one to the next: each costs the machine a process, and nobody's program needs more.
const PAUSE: Duration = Duration::from_millis(20);

/// The signals that wait to be sent to one session's program. Each kind waits once, as in the kernel, so that there
/// are never more than there are kinds, and a flood of one keeps no other out.
#[derive(Default)]
pub(super) struct Signals {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    numbers: Vec<Number>,
    closed: bool,
}

impl Signals {
    /// Takes one that the client sent, to be delivered behind those that wait.
    pub(super) fn take(&self, signal: &Signal) {
        let Some(number) = number(signal) else { return };
        let mut waiting = self.waiting();
        if !waiting.numbers.contains(&number) {
            waiting.numbers.push(number);
            self.changed.notify_one();
        }
    }

    /// Has none delivered any more: [`Signals::deliver`] returns soon.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_one();
    }

    /// Delivers them to `group`, one after the other in the order in which they came, until they are closed. When
    /// this returns nobody is left who would signal the group: only then may its number be given back.
    pub(super) async fn deliver(&self, login: &Login, group: i32) {
        let mut said = false;
        while let Some(number) = self.next().await {
            let failed = match self.send(login, group, number).await {
                Ok(Outcome::Code(0)) => None,
                Ok(outcome) => Some(outcome.to_string()),
                Err(error) => Some(error.to_string()),
            };
            // Once: how often is the client's to choose.
            if let Some(why) = failed
                && !std::mem::replace(&mut said, true)
            {
                info!(connection = login.number, "a signal was not sent: {why}");
            }
            let _ = timeout(PAUSE, self.closed()).await;
        }
    }

    async fn next(&self) -> Option<Number> {
        loop {
            {
                let mut waiting = self.waiting();
                if waiting.closed {
                    return None;
                }
                if !waiting.numbers.is_empty() {
                    return Some(waiting.numbers.remove(0));
                }
            }
            self.changed.notified().await;
        }
    }

    async fn closed(&self) {
        while !self.waiting().closed {
            self.changed.notified().await;
        }
    }

    /// Has one sent. Whatever comes of it, the process that was to send it is gone afterwards.
    async fn send(&self, login: &Login, group: i32, number: Number) -> io::Result<Outcome> {
        let order = order(login, group, number).to_bytes()?;
        let (process, mut pipes) = Process::spawn(login, None)?;
        let sending = async {
            pipes.stdin.write_all(&order).await?;
            process.ended().await
        };
        let sent = tokio::select! {
            sent = sending => sent,
            () = self.closed() => Err(io::Error::other("the session is over")),
            () = sleep(LONGEST) => Err(io::ErrorKind::TimedOut.into()),
        };
        process.kill();
        process.ended().await?;
        sent
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn order(login: &Login, group: i32, number: Number) -> Order {
    Order {
        login: login.account.name.clone(),
        uid: login.account.uid.as_raw(),
        gid: login.account.gid.as_raw(),
        home: login.account.home.clone(),
        shell: login.account.shell.clone(),
        program: Program::Signal {
            group,
            number: number as i32,
        },
        environment: Vec::new(),
        terminal: false,
        greeting: None,
    }
}

/// The signals that sshd delivers.
fn number(signal: &Signal) -> Option<Number> {
    Some(match signal.name() {
        "HUP" => Number::SIGHUP,
        "INT" => Number::SIGINT,
        "KILL" => Number::SIGKILL,
        "QUIT" => Number::SIGQUIT,
        "TERM" => Number::SIGTERM,
        "USR1" => Number::SIGUSR1,
        "USR2" => Number::SIGUSR2,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(signals: &Signals, names: &[&str]) {
        for name in names {
            signals.take(&Signal::parse(name).unwrap());
        }
    }

    #[tokio::test]
    async fn a_flood_of_one_signal_keeps_no_other_out_and_the_order_stays() {
        let signals = Signals::default();
        take(&signals, &["INT"; 1000]);
        take(&signals, &["KILL", "INT", "TERM", "KILL", "SEGV"]);
        for expected in [Number::SIGINT, Number::SIGKILL, Number::SIGTERM] {
            assert_eq!(signals.next().await, Some(expected));
        }
        assert!(timeout(PAUSE, signals.next()).await.is_err());
        // What has been sent may be sent again.
        take(&signals, &["INT"]);
        assert_eq!(signals.next().await, Some(Number::SIGINT));
    }

    #[tokio::test]
    async fn nothing_is_delivered_once_the_session_is_over() {
        let signals = Signals::default();
        take(&signals, &["TERM"]);
        signals.close();
        assert_eq!(signals.next().await, None);
        take(&signals, &["KILL"]);
        assert_eq!(signals.next().await, None);
        signals.closed().await;
        signals.closed().await;
    }
}
