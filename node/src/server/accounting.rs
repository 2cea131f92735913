//! Who is on which terminal (utmp), who was (wtmp), and when somebody was here last (lastlog): utmp(5),
//! lastlog(8). Records are written where a file is, and none is made.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::account::Account;

pub(super) const UTMP: &str = "/run/utmp";
pub(super) const WTMP: &str = "/var/log/wtmp";
pub(super) const LASTLOG: &str = "/var/log/lastlog";

/// The layout of a record is that of glibc on this architecture; on others it has other widths, and nothing
/// is written.
pub(super) const IS_KNOWN: bool = cfg!(all(target_arch = "x86_64", target_env = "gnu"));

const RECORD: usize = 384;
const LAST: usize = 292;

/// `ut_type`.
const USER_PROCESS: i16 = 7;
const DEAD_PROCESS: i16 = 8;

/// Attempts to get a lock that somebody else has; then the record is written nowhere.
const ATTEMPTS: u32 = 50;

/// One login on a terminal; recorded until it is dropped.
pub(super) struct Recorded {
    line: String,
    pid: i32,
}

/// Records a login. What cannot be written is not.
pub(super) fn record(account: &Account, terminal: &Path, pid: i32, from: IpAddr) -> Recorded {
    let line = terminal.strip_prefix("/dev").unwrap_or(terminal);
    let recorded = Recorded {
        line: line.display().to_string(),
        pid,
    };
    if IS_KNOWN {
        let now = Timestamp::now();
        let entry = entry(USER_PROCESS, &recorded, &account.name, Some(from), now);
        let _ = in_utmp(&recorded, &entry);
        let _ = in_wtmp(&entry);
        let _ = in_lastlog(account, &recorded.line, from, now);
    }
    recorded
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if IS_KNOWN {
            let entry = entry(DEAD_PROCESS, self, "", None, Timestamp::now());
            let _ = in_utmp(self, &entry);
            let _ = in_wtmp(&entry);
        }
    }
}

/// `Last login: … from …`, as sshd says it.
pub(super) fn last_login(account: &Account) -> Option<String> {
    if !IS_KNOWN {
        return None;
    }
    let mut file = File::open(LASTLOG).ok()?;
    file.seek(SeekFrom::Start(place(account))).ok()?;
    let mut record = [0; LAST];
    file.read_exact(&mut record).ok()?;
    let (time, rest) = record.split_first_chunk::<4>()?;
    let seconds = i32::from_ne_bytes(*time);
    let at = Timestamp::from_second(seconds.into())
        .ok()
        .filter(|_| seconds != 0)?;
    let at = at
        .to_zoned(TimeZone::system())
        .strftime("%a %b %e %H:%M:%S %Y")
        .to_string();
    let host = rest.get(32..)?.split(|byte| *byte == 0).next()?;
    let host: String = String::from_utf8_lossy(host)
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    Some(match host.is_empty() {
        true => format!("Last login: {at}"),
        false => format!("Last login: {at} from {host}"),
    })
}

fn place(account: &Account) -> u64 {
    u64::from(account.uid.as_raw()) * LAST as u64
}

/// The last four characters of the line, as everybody makes it.
fn id(line: &str) -> &[u8] {
    let bytes = line.as_bytes();
    bytes.get(bytes.len().saturating_sub(4)..).unwrap_or(bytes)
}

fn entry(kind: i16, of: &Recorded, user: &str, from: Option<IpAddr>, at: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(RECORD);
    out.extend(kind.to_ne_bytes());
    out.extend([0; 2]);
    out.extend(of.pid.to_ne_bytes());
    put(&mut out, of.line.as_bytes(), 32);
    put(&mut out, id(&of.line), 4);
    put(&mut out, user.as_bytes(), 32);
    let host = from.map(|from| from.to_string()).unwrap_or_default();
    put(&mut out, host.as_bytes(), 256);
    // Exit status and session.
    out.extend([0; 8]);
    let seconds = i32::try_from(at.as_second()).unwrap_or(i32::MAX);
    out.extend(seconds.to_ne_bytes());
    out.extend((at.subsec_nanosecond() / 1000).to_ne_bytes());
    match from {
        Some(IpAddr::V4(address)) => put(&mut out, &address.octets(), 16),
        Some(IpAddr::V6(address)) => put(&mut out, &address.octets(), 16),
        None => put(&mut out, &[], 16),
    }
    out.resize(RECORD, 0);
    out
}

/// A field of fixed width, cut off or filled up.
fn put(out: &mut Vec<u8>, bytes: &[u8], width: usize) {
    let end = out.len() + width;
    out.extend(bytes.iter().take(width));
    out.resize(end, 0);
}

/// In the place of the entry for this terminal, or behind all.
fn in_utmp(of: &Recorded, entry: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(UTMP)?;
    lock(&file)?;
    let mut found = vec![0; RECORD];
    let mut at = 0_u64;
    while file.read_exact(&mut found).is_ok() {
        if found.get(40..44) == entry.get(40..44) && found.get(8..40) == entry.get(8..40) {
            break;
        }
        at += RECORD as u64;
    }
    let is_ours = found.get(4..8) == Some(&of.pid.to_ne_bytes()[..]);
    let is_end = entry
        .first_chunk::<2>()
        .is_some_and(|k| i16::from_ne_bytes(*k) == DEAD_PROCESS);
    // The terminal may have a new session already: that is not ours to end.
    if is_end && !is_ours {
        return Ok(());
    }
    file.seek(SeekFrom::Start(at))?;
    file.write_all(entry)
}

fn in_wtmp(entry: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(WTMP)?;
    lock(&file)?;
    file.write_all(entry)
}

fn in_lastlog(account: &Account, line: &str, from: IpAddr, at: Timestamp) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(LASTLOG)?;
    let mut record = Vec::with_capacity(LAST);
    let seconds = i32::try_from(at.as_second()).unwrap_or(i32::MAX);
    record.extend(seconds.to_ne_bytes());
    put(&mut record, line.as_bytes(), 32);
    put(&mut record, from.to_string().as_bytes(), 256);
    file.seek(SeekFrom::Start(place(account)))?;
    file.write_all(&record)
}

/// The lock that glibc takes, which goes with the file.
fn lock(file: &File) -> io::Result<()> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    for _ in 0..ATTEMPTS {
        if fcntl(file, FcntlArg::F_SETLK(&whole)).is_ok() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(io::ErrorKind::WouldBlock.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_fields_where_everybody_looks_for_them() {
        let of = Recorded {
            line: "pts/123".to_owned(),
            pid: 0x0102_0304,
        };
        let at = Timestamp::new(0x0a0b_0c0d, 5_000).unwrap();
        let entry = entry(USER_PROCESS, &of, "dev", Some([127, 0, 0, 1].into()), at);
        assert_eq!(entry.len(), RECORD);
        assert_eq!(entry[0..2], 7_i16.to_ne_bytes());
        assert_eq!(entry[4..8], of.pid.to_ne_bytes());
        assert_eq!(entry[8..16], *b"pts/123\0");
        assert_eq!(entry[40..44], *b"/123");
        assert_eq!(entry[44..48], *b"dev\0");
        assert_eq!(entry[76..86], *b"127.0.0.1\0");
        assert_eq!(entry[340..344], 0x0a0b_0c0d_i32.to_ne_bytes());
        assert_eq!(entry[344..348], 5_i32.to_ne_bytes());
        assert_eq!(entry[348..352], [127, 0, 0, 1]);
        // Nothing is recorded of a process that never was.
        std::mem::forget(of);
    }
}
