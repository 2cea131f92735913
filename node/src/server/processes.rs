//! What a session leaves behind: its processes are those of the kernel's session that was made for it, and
//! whoever has left that for a session of its own (`setsid`, every daemon) is on his own.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// From the signal that asks to the one that does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process, by its number and the moment at which it began: numbers are used again.
type Process = (i32, u64);

/// What was left of a session when its number was surely its own: while its first process had not been
/// waited for, or just had been. As long as one of these lives, the kernel gives the number to nobody else.
#[derive(Debug, Clone)]
pub(super) struct Left {
    session: i32,
    seen: BTreeSet<Process>,
}

/// Looks at what there is of a session.
pub(super) async fn look(session: i32) -> Left {
    let seen = blocking(move || of(session)).await.unwrap_or_default();
    Left { session, seen }
}

impl Left {
    /// Tells it that the session is over. Who ignores the signal, as `nohup` has programs do, goes on.
    pub(super) async fn hang_up(&self) {
        self.signal(&[Signal::SIGHUP, Signal::SIGCONT]).await;
    }

    /// Ends it: the signal, and for those who are there some seconds later the one that cannot be ignored.
    pub(super) async fn end(&self) {
        if !self.seen.is_empty() {
            self.hang_up().await;
            tokio::time::sleep(PATIENCE).await;
            self.signal(&[Signal::SIGKILL]).await;
        }
    }

    async fn signal(&self, signals: &'static [Signal]) {
        let Left { session, seen } = self.clone();
        blocking(move || {
            let now = of(session);
            if now.is_disjoint(&seen) {
                return;
            }
            for (pid, _) in now {
                for signal in signals {
                    // It is gone, or is not ours to signal: nothing is to be done about either.
                    let _ = kill(Pid::from_raw(pid), *signal);
                }
            }
        })
        .await;
    }
}

async fn blocking<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(action).await.ok()
}

/// The processes of a session, by /proc (proc_pid_stat(5)).
fn of(session: i32) -> BTreeSet<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let pid: i32 = name.to_str()?.parse().ok()?;
            let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
            let (its, began) = session_and_start(&stat)?;
            (its == session).then_some((pid, began))
        })
        .collect()
}

/// The session is the sixth field and the start the twenty-second. The second is a name in parentheses,
/// which may have any byte in it.
fn session_and_start(stat: &[u8]) -> Option<(i32, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let session = fields.nth(3)?.parse().ok()?;
    // Zombies are in the table, and beyond signals.
    let began = fields.nth(15)?.parse().ok()?;
    Some((session, began))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let stat = b"7 (a) S 1 2) R 1 7 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 99 1 2\n";
        assert_eq!(session_and_start(stat), Some((42, 99)));
        assert_eq!(session_and_start(b"7 (a"), None);
        assert_eq!(session_and_start(b""), None);
    }

    #[test]
    fn this_process_is_in_its_own_session() {
        let mine = nix::unistd::getsid(None).unwrap().as_raw();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(of(mine).iter().any(|(pid, _)| *pid == me));
        assert!(!of(-1).iter().any(|(pid, _)| *pid == me));
    }
}
