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

/// Tells what is left of a session whose program has ended that it is over. Who ignores the signal, as
/// `nohup` has programs do, goes on.
pub(super) async fn hang_up(session: i32) {
    blocking(move || signal(&of(session), &[Signal::SIGHUP, Signal::SIGCONT])).await;
}

/// Ends a session that was cut: the signal, and for those who are there some seconds later the one that
/// cannot be ignored.
pub(super) async fn end(session: i32) {
    let first = blocking(move || {
        let first = of(session);
        signal(&first, &[Signal::SIGHUP, Signal::SIGCONT]);
        first
    })
    .await;
    let Some(first) = first.filter(|first| !first.is_empty()) else {
        return;
    };
    tokio::time::sleep(PATIENCE).await;
    blocking(move || {
        let rest = of(session);
        // One of the first still being there, the session's number has not been given to another.
        if rest.iter().any(|process| first.contains(process)) {
            signal(&rest, &[Signal::SIGKILL]);
        }
    })
    .await;
}

async fn blocking<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(action).await.ok()
}

fn signal(processes: &BTreeSet<Process>, signals: &[Signal]) {
    for (pid, _) in processes {
        for signal in signals {
            // It is gone, or is not ours to signal: nothing is to be done about either.
            let _ = kill(Pid::from_raw(*pid), *signal);
        }
    }
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
