//! The environment of a session, as sshd makes it (`do_setup_env` of session.c).

use std::collections::BTreeMap;
use std::path::Path;

use super::account::Account;
use super::{Options, Peer};

/// `PATH` as Debian's sshd sets it, which is as a login without PAM has it.
const PATH_OF_ROOT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PATH_OF_OTHERS: &str = "/usr/local/bin:/usr/bin:/bin:/usr/games";

/// What is accepted from clients whatever the options say: the language and whether colours are wanted.
const ALWAYS: [&str; 4] = ["LANG", "LC_*", "COLORTERM", "NO_COLOR"];

/// What is told to a program beside whose it is.
pub(super) struct Circumstances<'a> {
    /// What the client sent and was accepted.
    pub(super) sent: &'a [(String, String)],
    pub(super) peer: Peer,
    /// `TERM` and the terminal's path.
    pub(super) terminal: Option<(&'a str, &'a Path)>,
    pub(super) agent_socket: Option<&'a Path>,
    /// What was asked for, where another command is forced.
    pub(super) original_command: Option<String>,
    /// Who comes.
    pub(super) person: Option<String>,
}

/// Whether a client may set this variable.
pub(super) fn is_accepted(name: &str, options: &Options) -> bool {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    };
    ALWAYS.iter().any(|pattern| fits(pattern))
        || options.accept_env.iter().any(|pattern| fits(pattern))
}

/// The whole of it. What a client sent comes first, and is overruled by the rest.
pub(super) fn of(account: &Account, about: &Circumstances<'_>) -> Vec<(String, String)> {
    let mut out: BTreeMap<String, String> = about.sent.iter().cloned().collect();
    let mut set = |name: &str, value: String| out.insert(name.to_owned(), value);
    set("USER", account.name.clone());
    set("LOGNAME", account.name.clone());
    set("HOME", account.home.display().to_string());
    set("SHELL", account.shell.display().to_string());
    let path = match account.uid.is_root() {
        true => PATH_OF_ROOT,
        false => PATH_OF_OTHERS,
    };
    set("PATH", path.to_owned());
    set("MAIL", format!("/var/mail/{}", account.name));
    let Peer { remote, local } = about.peer;
    let (from, to) = (remote.ip().to_canonical(), local.ip().to_canonical());
    let (from_port, to_port) = (remote.port(), local.port());
    set("SSH_CLIENT", format!("{from} {from_port} {to_port}"));
    set(
        "SSH_CONNECTION",
        format!("{from} {from_port} {to} {to_port}"),
    );
    if let Ok(zone) = std::env::var("TZ") {
        set("TZ", zone);
    }
    if let Some((term, path)) = about.terminal {
        set("TERM", term.to_owned());
        set("SSH_TTY", path.display().to_string());
    }
    if let Some(socket) = about.agent_socket {
        set("SSH_AUTH_SOCK", socket.display().to_string());
    }
    if let Some(command) = &about.original_command {
        set("SSH_ORIGINAL_COMMAND", command.clone());
    }
    if let Some(person) = &about.person {
        set("ANTEROOM_USER", person.clone());
    }
    out.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_language_and_what_is_listed_is_accepted() {
        let options = Options {
            accept_env: vec!["GIT_*".to_owned(), "EDITOR".to_owned()],
            ..Options::default()
        };
        for name in ["LANG", "LC_ALL", "NO_COLOR", "GIT_AUTHOR_NAME", "EDITOR"] {
            assert!(is_accepted(name, &options), "{name}");
        }
        for name in [
            "LANGUAGE",
            "lang",
            "LD_PRELOAD",
            "PATH",
            "EDITORS",
            "GIT",
            "ANTEROOM_USER",
        ] {
            assert!(!is_accepted(name, &options), "{name}");
        }
    }
}
