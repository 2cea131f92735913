//! Which requests a session channel lets through, and how often (SECURITY
//! section 5). What passes is within its bounds; what does not is refused here
//! and never seen by a [`Front`](super::Front).

use super::types::{ChannelRequest, PtyRequest, RequestKind, TcpTarget, WindowSize, X11Request};

/// Longest command of an `exec` request in bytes: what Linux takes as a single
/// argument, so that a node could not run a longer one.
pub const MAX_COMMAND: usize = 128 << 10;

/// Environment variables per session.
const MAX_VARIABLES: usize = 64;

/// Bytes of a variable's value: a reason may have as many.
const MAX_VALUE: usize = 4 << 10;

/// The one variable that is text for people: it is cut off before it is buffered. Half of any other
/// would mean something else, so that a longer one is refused as a whole.
const TEXT: &str = "ANTEROOM_REASON";

/// Bytes of a variable's name.
const MAX_NAME: usize = 256;

/// Bytes of a subsystem's name.
const MAX_SUBSYSTEM: usize = 256;

/// Bytes of a host name or address in a forward (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 255;

/// What has been asked for on one session channel.
#[derive(Debug, Default)]
pub(super) struct Asked {
    started: bool,
    pty: bool,
    agent: bool,
    x11: bool,
    variables: usize,
}

impl Asked {
    /// Whether this request may be made now: one terminal, agent, display and program, a
    /// bounded number of variables, and nothing that prepares a program once it runs. All of
    /// these are kept until the program starts, so each has to have its bound here.
    pub(super) fn admits(&self, request: &ChannelRequest) -> bool {
        match request {
            ChannelRequest::Pty(_) => !self.started && !self.pty,
            ChannelRequest::Env { .. } => !self.started && self.variables < MAX_VARIABLES,
            ChannelRequest::Shell | ChannelRequest::Exec(_) | ChannelRequest::Subsystem(_) => {
                !self.started
            }
            ChannelRequest::AgentForward => !self.started && !self.agent,
            ChannelRequest::X11(_) => !self.started && !self.x11,
            ChannelRequest::WindowChange(_) => self.pty,
            ChannelRequest::Signal(_) => true,
        }
    }

    /// Notes a request that was answered with success.
    pub(super) fn note(&mut self, kind: RequestKind) {
        match kind {
            RequestKind::Pty => self.pty = true,
            RequestKind::Env => self.variables += 1,
            RequestKind::Shell | RequestKind::Exec | RequestKind::Subsystem => self.started = true,
            RequestKind::AgentForward => self.agent = true,
            RequestKind::X11 => self.x11 = true,
            RequestKind::WindowChange | RequestKind::Signal => {}
        }
    }
}

/// `TERM`: `[A-Za-z0-9._+-]{1,64}`; an empty one becomes `dumb`.
fn term(name: &str) -> Option<String> {
    let good = |c: u8| c.is_ascii_alphanumeric() || b"._+-".contains(&c);
    match name {
        "" => Some("dumb".to_owned()),
        name if name.len() <= 64 && name.bytes().all(good) => Some(name.to_owned()),
        _ => None,
    }
}

pub(super) fn pty(name: &str, size: WindowSize, modes: Vec<(u8, u32)>) -> Option<ChannelRequest> {
    let term = term(name)?;
    Some(ChannelRequest::Pty(PtyRequest { term, size, modes }))
}

pub(super) fn env(name: &str, value: &str) -> Option<ChannelRequest> {
    let value = match value.get(..value.floor_char_boundary(MAX_VALUE)) {
        Some(start) if name == TEXT => start,
        Some(_) | None => value,
    };
    let good = !name.is_empty()
        && name.len() <= MAX_NAME
        && value.len() <= MAX_VALUE
        && !name.contains(['=', '\0'])
        && !value.contains('\0');
    good.then(|| ChannelRequest::Env {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

pub(super) fn exec(command: &[u8]) -> Option<ChannelRequest> {
    let good = command.len() <= MAX_COMMAND && !command.contains(&0);
    good.then(|| ChannelRequest::Exec(command.to_vec()))
}

pub(super) fn subsystem(name: &str) -> Option<ChannelRequest> {
    let good = !name.is_empty() && name.len() <= MAX_SUBSYSTEM && !name.contains('\0');
    good.then(|| ChannelRequest::Subsystem(name.to_owned()))
}

pub(super) fn x11(
    single: bool,
    protocol: &str,
    cookie: &str,
    screen: u32,
) -> Option<ChannelRequest> {
    (protocol.len() <= 64 && cookie.len() <= 1024).then(|| {
        ChannelRequest::X11(X11Request {
            single_connection: single,
            protocol: protocol.to_owned(),
            cookie: cookie.to_owned(),
            screen,
        })
    })
}

pub(super) fn target(host: &str, port: u32, from: &str, from_port: u32) -> Option<TcpTarget> {
    (host.len() <= MAX_HOST && from.len() <= MAX_HOST).then(|| TcpTarget {
        host: host.to_owned(),
        port,
        originator_host: from.to_owned(),
        originator_port: from_port,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_term_outside_its_alphabet_is_refused() {
        for good in ["xterm-256color", "screen.xterm_1", "a+b", &"x".repeat(64)] {
            assert_eq!(term(good).as_deref(), Some(good));
        }
        for bad in ["xterm;id", "a b", "../../x", "a\n", "ä", &"x".repeat(65)] {
            assert_eq!(term(bad), None, "{bad:?}");
        }
        assert_eq!(term("").as_deref(), Some("dumb"));
    }

    #[test]
    fn the_sixty_fifth_variable_is_refused() {
        let mut asked = Asked::default();
        let variable = env("A", "b").unwrap();
        for _ in 0..64 {
            assert!(asked.admits(&variable));
            asked.note(variable.kind());
        }
        assert!(!asked.admits(&variable));
    }

    #[test]
    fn a_variable_has_at_most_four_kibibytes_and_a_plain_name() {
        assert!(env("A", &"x".repeat(4096)).is_some());
        assert!(env("A", &"x".repeat(4097)).is_none());
        assert!(env(&"A".repeat(257), "x").is_none());
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")] {
            assert!(env(name, value).is_none());
        }
    }

    #[test]
    fn a_reason_that_is_too_long_is_cut_off_between_two_letters() {
        let Some(ChannelRequest::Env { value, .. }) = env("ANTEROOM_REASON", &"ü€".repeat(5000))
        else {
            panic!("a reason is taken");
        };
        assert_eq!(value, "ü€".repeat(819));
    }

    #[test]
    fn only_one_program_starts_on_a_channel_and_nothing_is_prepared_after_it() {
        let mut asked = Asked::default();
        let exec = exec(b"true").unwrap();
        assert!(asked.admits(&exec));
        asked.note(exec.kind());
        for late in [
            exec,
            ChannelRequest::Shell,
            ChannelRequest::Subsystem("sftp".into()),
            ChannelRequest::AgentForward,
            env("A", "b").unwrap(),
        ] {
            assert!(!asked.admits(&late), "{late:?}");
        }
    }

    #[test]
    fn agent_and_display_are_asked_for_once() {
        let mut asked = Asked::default();
        for once in [
            ChannelRequest::AgentForward,
            x11(false, "MIT-MAGIC-COOKIE-1", "00", 0).unwrap(),
        ] {
            assert!(asked.admits(&once));
            asked.note(once.kind());
            assert!(!asked.admits(&once), "{once:?}");
        }
    }

    #[test]
    fn a_command_longer_than_a_node_could_run_is_refused() {
        assert!(exec(&vec![b'x'; MAX_COMMAND]).is_some());
        assert!(exec(&vec![b'x'; MAX_COMMAND + 1]).is_none());
        assert!(exec(b"a\0b").is_none());
    }

    proptest! {
        #[test]
        fn a_window_is_always_within_one_and_a_thousand(
            columns: u32, rows: u32, width: u32, height: u32,
        ) {
            let size = WindowSize::clamped(columns, rows, width, height);
            prop_assert!((1..=1000).contains(&size.columns));
            prop_assert!((1..=1000).contains(&size.rows));
            prop_assert!(size.pixel_width <= 65_535 && size.pixel_height <= 65_535);
        }
    }
}
