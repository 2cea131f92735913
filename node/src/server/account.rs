//! Who may log in by the machine's own account database, by the rules of sshd without PAM
//! (`allowed_user` of auth.c).

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, User};
use thiserror::Error;

/// An account that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) home: PathBuf,
    /// `/bin/sh` where the database has none.
    pub(super) shell: PathBuf,
}

/// Why an account may not log in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum NotAllowed {
    #[error("there is no such user")]
    Unknown,
    #[error("the user database cannot be read: {0}")]
    Database(String),
    #[error("the agent does not run as root, so it serves its own user only")]
    AnotherUser,
    #[error("the account is locked")]
    Locked,
    #[error("the account has expired")]
    Expired,
    #[error("its shell {0} does not exist")]
    NoShell(PathBuf),
    #[error("its shell {0} is not executable")]
    ShellNotExecutable(PathBuf),
}

const SHADOW: &str = "/etc/shadow";

/// Looks the account up, and asks whether it may log in. `today` counts days since 1970.
///
/// A database on the network may take its time: not to be called where others wait.
pub(super) fn find(login: &str, today: i64) -> Result<Account, NotAllowed> {
    let user = User::from_name(login)
        .map_err(|error| NotAllowed::Database(error.to_string()))?
        // A database may find a name in another spelling; what was certified is this one.
        .filter(|user| user.name == login)
        .ok_or(NotAllowed::Unknown)?;
    let me = nix::unistd::geteuid();
    if !me.is_root() && user.uid != me {
        return Err(NotAllowed::AnotherUser);
    }
    let shadow = match fs::read(SHADOW) {
        Ok(shadow) => shadow,
        // Where there is none, the user database says it all; and a user that serves itself is in already.
        Err(error) if error.kind() == ErrorKind::NotFound || !me.is_root() => Vec::new(),
        Err(error) => return Err(NotAllowed::Database(format!("{SHADOW}: {error}"))),
    };
    let password = user.passwd.to_bytes();
    check_shadow(login, password, &shadow, today)?;
    let shell = match user.shell.as_os_str().is_empty() {
        true => PathBuf::from("/bin/sh"),
        false => user.shell,
    };
    let found = fs::metadata(&shell).map_err(|_| NotAllowed::NoShell(shell.clone()))?;
    if !found.is_file() || found.permissions().mode() & 0o111 == 0 {
        return Err(NotAllowed::ShellNotExecutable(shell));
    }
    Ok(Account {
        name: user.name,
        uid: user.uid,
        gid: user.gid,
        home: user.dir,
        shell,
    })
}

/// A password that begins with `!` is locked; one that is `*` only matches nothing (shadow(5), and sshd's
/// `LOCKED_PASSWD_PREFIX` on Linux). The last field but one is the day on which the account expires.
fn check_shadow(login: &str, password: &[u8], shadow: &[u8], today: i64) -> Result<(), NotAllowed> {
    let entry = shadow.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b':');
        (fields.next() == Some(login.as_bytes())).then(|| fields.collect::<Vec<_>>())
    });
    let hash = entry.as_ref().and_then(|entry| entry.first().copied());
    if hash.unwrap_or(password).starts_with(b"!") {
        return Err(NotAllowed::Locked);
    }
    let expires = entry
        .as_ref()
        .and_then(|entry| entry.get(6))
        .and_then(|field| std::str::from_utf8(field).ok())
        .and_then(|field| field.parse::<i64>().ok());
    match expires {
        // -1 is no day, as an empty field is none.
        Some(day) if day != -1 && day < today => Err(NotAllowed::Expired),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHADOW: &[u8] = b"root:*:19000:0:99999:7:::\n\
        locked:!$y$hash:19000:0:99999:7:::\n\
        never:!!:19000:0:99999:7:::\n\
        past:*:19000:0:99999:7::20000:\n\
        minus:*:19000:0:99999:7::-1:\n\
        short:*\n\
        rooted:!:19000:0:99999:7:::\n";

    #[track_caller]
    fn says(login: &str, today: i64) -> Result<(), NotAllowed> {
        check_shadow(login, b"x", SHADOW, today)
    }

    #[test]
    fn a_password_that_begins_with_an_exclamation_mark_is_locked_and_a_star_is_not() {
        assert_eq!(says("root", 20_000), Ok(()));
        assert_eq!(says("short", 20_000), Ok(()));
        for locked in ["locked", "never", "rooted"] {
            assert_eq!(says(locked, 20_000), Err(NotAllowed::Locked), "{locked}");
        }
        // Not in the file: what the user database says counts.
        assert_eq!(says("ldap", 20_000), Ok(()));
        assert_eq!(
            check_shadow("ldap", b"!", SHADOW, 20_000),
            Err(NotAllowed::Locked)
        );
    }

    #[test]
    fn an_account_is_over_the_day_after_it_expires() {
        assert_eq!(says("past", 20_000), Ok(()));
        assert_eq!(says("past", 20_001), Err(NotAllowed::Expired));
        assert_eq!(says("minus", 20_001), Ok(()));
    }

    #[test]
    fn a_user_that_is_not_there_is_not_found() {
        assert_eq!(find("no-such-user-here", 0), Err(NotAllowed::Unknown));
        assert_eq!(find("", 0), Err(NotAllowed::Unknown));
    }
}
