//! Tells systemd how the agent is doing (sd_notify(3)), where systemd asked for it.

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where to tell it.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// From what systemd puts into the environment. Anything but a socket means that nobody asked.
    #[must_use]
    pub fn new(socket: Option<OsString>, watchdog_usec: Option<OsString>) -> Notify {
        let address = socket.and_then(|name| match name.as_bytes().strip_prefix(b"@") {
            Some(hidden) => SocketAddr::from_abstract_name(hidden).ok(),
            None => SocketAddr::from_pathname(&name).ok(),
        });
        let socket = address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address)));
        let usec = watchdog_usec.and_then(|usec| usec.to_str()?.parse().ok());
        // Twice as often as it has to be, as sd_watchdog_enabled(3) asks.
        let watchdog = usec
            .filter(|usec| *usec > 1)
            .map(|usec: u64| Duration::from_micros(usec / 2));
        Notify { socket, watchdog }
    }

    /// Says `text`, as `READY=1`. That nobody hears it is no reason to end.
    pub fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(text.as_bytes(), address)
        {
            tracing::debug!("systemd was not told `{text}`: {error}");
        }
    }

    /// How often `WATCHDOG=1` is to be said.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_and_without_a_socket_nothing_happens() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("notify");
        let heard = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(Some(path.into()), Some("2000000".into()));
        notify.say("READY=1");
        let mut text = [0; 16];
        let length = heard.recv(&mut text).unwrap();
        assert_eq!(&text[..length], b"READY=1");
        assert_eq!(notify.watchdog(), Some(Duration::from_secs(1)));
        Notify::new(None, None).say("READY=1");
    }
}
