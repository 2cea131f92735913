//! What a session leaves behind: its processes are those of the kernel's session that was made for it, and
//! whoever has left that for a session of its own (`setsid`, every daemon) is on his own.

use std::fs;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// From the signal that asks to the one that does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is looked whether anybody is left.
const LOOKING: Duration = Duration::from_millis(500);

/// Tells what is left of a session that it is over. Who ignores the signal, as `nohup` has programs do, goes
/// on. The session's first process must not have been waited for: so its number is its own.
pub(super) async fn hang_up(session: i32) {
    blocking(move || signal(session, &[Signal::HUP, Signal::CONT])).await;
}

/// Ends a session that was cut: the signal, and for those who are there some seconds later the one that cannot
/// be ignored. As [`hang_up`], before its first process is waited for.
pub(super) async fn end(session: i32) {
    let all = blocking(move || signal(session, &[Signal::HUP, Signal::CONT]));
    if all.await.unwrap_or_default() > 0 {
        let start = tokio::time::Instant::now();
        // Whoever listens is gone at once, and the five seconds are not waited for.
        while start.elapsed() < PATIENCE {
            tokio::time::sleep(LOOKING).await;
            if blocking(move || of(session).len())
                .await
                .unwrap_or_default()
                == 0
            {
                return;
            }
        }
        blocking(move || signal(session, &[Signal::KILL])).await;
    }
}

async fn blocking<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(action).await.ok()
}

/// How many there were.
fn signal(session: i32, signals: &[Signal]) -> usize {
    let all = of(session);
    for pid in &all {
        tell(*pid, session, signals);
    }
    all.len()
}

/// Signals a process if it is one of the session's. It was when all were looked through; meanwhile it may have ended,
/// and its number be another's, which whoever starts processes fast enough can bring about. So it is held by a
/// descriptor, and looked at once more: either what has the number now is what is held, or what is held is gone and
/// nobody is signalled.
fn tell(pid: i32, session: i32, signals: &[Signal]) {
    let Some(number) = Pid::from_raw(pid) else {
        return;
    };
    let held = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(held) => Some(held),
        Err(Errno::SRCH) => return,
        // A kernel that has no such descriptors (Linux before 5.3), for one: then by its number, as soon as it was
        // looked at. That a session's processes stay would be worse.
        Err(_) => None,
    };
    if !is_of(pid, session) {
        return;
    }
    for signal in signals {
        // It is gone, or is not ours to signal: nothing is to be done about either.
        let _ = match &held {
            Some(held) => pidfd_send_signal(held, *signal),
            None => kill_process(number, *signal),
        };
    }
}

/// The processes of a session that live, by /proc (proc_pid_stat(5)).
fn of(session: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            let pid: i32 = name.to_str()?.parse().ok()?;
            is_of(pid, session).then_some(pid)
        })
        .collect()
}

fn is_of(pid: i32, session: i32) -> bool {
    let stat = fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    session_of(&stat) == Some(session)
}

/// The third field is the state and the sixth the session; none of one that has ended. The second is a name in
/// parentheses, which may have any byte in it.
fn session_of(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let session = fields.nth(2)?.parse().ok()?;
    (!["Z", "X"].contains(&state)).then_some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name_and_one_that_has_ended_does_not_count() {
        let stat = b"7 (a) S 1 2) R 1 7 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 99 1 2\n";
        assert_eq!(session_of(stat), Some(42));
        assert_eq!(session_of(b"7 (a) Z 1 7 42 0 -1\n"), None);
        assert_eq!(session_of(b"7 (a"), None);
        assert_eq!(session_of(b""), None);
    }

    #[test]
    fn this_process_is_in_its_own_session() {
        let mine = nix::unistd::getsid(None).unwrap().as_raw();
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(of(mine).contains(&me));
        assert!(!of(-1).contains(&me));
    }

    #[test]
    fn a_process_that_is_in_another_session_by_now_is_not_signalled() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let mine = nix::unistd::getsid(None).unwrap().as_raw();
        tell(pid, mine + 1, &[Signal::KILL]);
        std::thread::sleep(Duration::from_millis(200));
        assert!(child.try_wait().unwrap().is_none());
        tell(pid, mine, &[Signal::KILL]);
        assert!(!child.wait().unwrap().success());
        // Nobody's any more.
        tell(pid, mine, &[Signal::KILL]);
    }
}
