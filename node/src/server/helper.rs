//! The process that becomes the user and then the user's program. Nothing in it waits for anybody, and
//! nothing of the user's has run when it gives its privileges up.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::stat::{Mode, fchmod, umask};
use nix::unistd::{self, Gid, Group, Pid, Uid};

use super::order::{Order, Program};

/// As sshd leaves when it cannot start a session.
const FAILED: u8 = 255;
/// As sshd leaves where there is an `/etc/nologin`.
const NO_LOGIN: u8 = 254;

const NOLOGIN_FILE: &str = "/etc/nologin";
const MOTD_FILE: &str = "/etc/motd";

/// Bytes of `/etc/motd` or `/etc/nologin` that are shown.
const LONGEST_TEXT: u64 = 64 << 10;

/// Reads an order from standard input, becomes the user that it names and then the program. Returns only
/// if that fails, or when the built-in SFTP server is done.
pub fn helper_main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "anteroom: cannot start the session: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn run() -> io::Result<ExitCode> {
    close_rest()?;
    // Nobody of the same user reads or changes this process: it may be one that serves files, for a user who may do
    // nothing else. The user's own program is as usual again.
    nix::sys::prctl::set_dumpable(false)?;
    // By a handle of its own: standard input's buffer would swallow what is for the program.
    let order = Order::read(File::from(io::stdin().as_fd().try_clone_to_owned()?))?;
    if let Program::Signal { group, number } = order.program {
        become_user(&order)?;
        return signal(group, number);
    }
    // A session of its own, whose processes are found by it when it ends; and without a terminal.
    unistd::setsid().map_err(io::Error::from)?;
    std::env::set_current_dir("/")?;
    let before = umask(Mode::from_bits_truncate(0o077));
    umask(before | Mode::from_bits_truncate(0o022));
    match order.terminal {
        true => attach(&order)?,
        false => give_streams(&order)?,
    }
    if let Some(greeting) = &order.greeting
        && fs::symlink_metadata(order.home.join(".hushlogin")).is_err()
    {
        greet(greeting.last_login.as_deref());
    }
    if order.uid != 0 && !logins_are_open() {
        return Ok(ExitCode::from(NO_LOGIN));
    }
    become_user(&order)?;
    if let Err(error) = std::env::set_current_dir(&order.home) {
        let home = order.home.display();
        let _ = writeln!(
            io::stderr(),
            "Could not chdir to home directory {home}: {}",
            words(&error)
        );
    }
    Ok(become_program(&order))
}

/// Closes whatever the agent's own parent left open, from the first descriptor behind the standard ones: it is not for
/// the user. That each would be closed when his program is run is not enough: the SFTP server is no other
/// program, and would show them in `/proc/self/fd`.
///
/// Nothing in this process has opened any yet.
fn close_rest() -> io::Result<()> {
    let folder = fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > 2)
        .collect();
    for descriptor in open {
        // The one that the folder was read by is closed already.
        let _ = unistd::close(descriptor);
    }
    Ok(())
}

/// Sends a signal as the user, who reaches what is his and nothing else: what runs as root in his session, by
/// `sudo`, he could not signal at a terminal either.
fn signal(group: i32, number: i32) -> io::Result<ExitCode> {
    let number = Signal::try_from(number)?;
    killpg(Pid::from_raw(group), number)?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the terminal, which came as standard output, the session's and the user's. By its descriptor: its
/// path may be another's by now.
fn attach(order: &Order) -> io::Result<()> {
    let terminal = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::process::ioctl_tiocsctty(&terminal)?;
    if unistd::geteuid().is_root() {
        let tty = Group::from_name("tty").ok().flatten();
        let mode = if tty.is_some() { 0o620 } else { 0o600 };
        let group = tty.map_or(Gid::from_raw(order.gid), |tty| tty.gid);
        unistd::fchown(&terminal, Some(Uid::from_raw(order.uid)), Some(group))?;
        fchmod(&terminal, Mode::from_bits_truncate(mode))?;
    }
    unistd::dup2_stdin(&terminal)?;
    unistd::dup2_stderr(&terminal)?;
    Ok(())
}

/// The pipes become the user's, so that programs may open `/dev/stdout` and its like.
fn give_streams(order: &Order) -> io::Result<()> {
    if !unistd::geteuid().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let streams: [BorrowedFd<'_>; 3] = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    for stream in streams {
        unistd::fchown(stream, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn greet(last_login: Option<&str>) {
    let mut out = io::stdout();
    if let Some(line) = last_login {
        let _ = writeln!(out, "{line}");
    }
    if let Ok(motd) = text(MOTD_FILE) {
        let _ = out.write_all(&motd);
    }
    let _ = out.flush();
}

/// Whether nobody but root is kept out; if so, says what the file says.
fn logins_are_open() -> bool {
    match text(NOLOGIN_FILE) {
        Ok(text) => {
            let _ = io::stderr().write_all(&text);
            false
        }
        // A file that cannot be read closes as well.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn text(path: &str) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?
        .take(LONGEST_TEXT)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// Groups, then group, then user, for good: real, effective and saved, and looked at afterwards.
fn become_user(order: &Order) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.gid));
    if unistd::geteuid().is_root() {
        let login = CString::new(order.login.as_str())?;
        unistd::initgroups(&login, gid).map_err(|error| failed("initgroups", error))?;
        unistd::setresgid(gid, gid, gid).map_err(|error| failed("setresgid", error))?;
        unistd::setresuid(uid, uid, uid).map_err(|error| failed("setresuid", error))?;
    }
    let users = unistd::getresuid()?;
    let groups = unistd::getresgid()?;
    let is_user = [users.real, users.effective, users.saved] == [uid; 3];
    // Whoever serves only himself may run with another group than the database gives him.
    let is_group = !uid.is_root() && users.real == uid
        || [groups.real, groups.effective, groups.saved] == [gid; 3];
    if !is_user || !is_group {
        return Err(io::Error::other("this process could not become the user"));
    }
    if !uid.is_root() && (unistd::setuid(Uid::from_raw(0)).is_ok() || unistd::geteuid() != uid) {
        return Err(io::Error::other("this process could become root again"));
    }
    Ok(())
}

fn failed(call: &str, error: Errno) -> io::Error {
    io::Error::other(format!("{call}: {}", error.desc()))
}

/// Only returns where the program cannot be run.
fn become_program(order: &Order) -> ExitCode {
    let name = order.shell.file_name().unwrap_or(order.shell.as_os_str());
    let mut shell = Command::new(&order.shell);
    shell.env_clear();
    shell.envs(order.environment.iter().map(|(name, value)| (name, value)));
    match &order.program {
        Program::Shell => {
            let mut dashed = OsString::from("-");
            dashed.push(name);
            shell.arg0(dashed);
        }
        Program::Command(command) => {
            let command = OsStr::from_bytes(command);
            shell.arg0(name).arg("-c").arg(command);
        }
        Program::Signal { .. } => return ExitCode::from(FAILED),
        Program::Sftp => {
            return match super::sftp::serve() {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    let _ = writeln!(io::stderr(), "anteroom: sftp: {}", words(&error));
                    ExitCode::from(FAILED)
                }
            };
        }
    }
    // Signals that this process does not receive, a broken pipe for one, are as usual again from here on.
    let error = shell.exec();
    let path = order.shell.display();
    let _ = writeln!(io::stderr(), "{path}: {}", words(&error));
    ExitCode::FAILURE
}

/// The error as the C library words it, without the number that Rust puts behind it.
pub(super) fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => Errno::from_raw(code).desc().to_owned(),
        None => {
            let text = error.to_string();
            let lookup = "failed to lookup address information: ";
            text.strip_prefix(lookup).unwrap_or(&text).to_owned()
        }
    }
}
