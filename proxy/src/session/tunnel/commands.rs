//! What a node fetches by itself: `host-cert`, `krl` and `ca`, one for each connection, for a stock sshd whose timer
//! asks (`enrol/renew.sh`).
//!
//! Whoever has one of a node's host keys may do so: the list and the authorities are what every node has, and a
//! certificate is for the very key that was proven. What is kept of it is bounded: a certificate is a row and a log
//! entry, of which there are four a day for a key; a refusal is a log entry once a minute, and the others are none.

use bytes::Bytes;

use super::TunnelDoor;
use crate::admin::{self, CommandLine};
use crate::exit::{Exit, Exits};
use crate::say::{self, LineEnd, clean};
use crate::state::{OwnConnection, OwnError};
use crate::store::StoreError;
use anteroom_ssh::{Channel, Outbox};

/// What a node wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// A host certificate for the key of this connection; nothing while the one with this serial number does.
    HostCert(Option<u64>),
    /// The revocation list.
    Krl,
    /// The node authorities that are trusted now.
    Ca,
}

impl Command {
    fn parse(command: &[u8]) -> Option<Self> {
        let line = CommandLine::from_exec(command).ok()?;
        let words: Vec<&str> = line.words().iter().map(String::as_str).collect();
        match words.as_slice() {
            ["host-cert"] => Some(Self::HostCert(None)),
            ["host-cert", serial] => serial.parse().ok().map(|it| Self::HostCert(Some(it))),
            ["krl"] => Some(Self::Krl),
            ["ca"] => Some(Self::Ca),
            _ => None,
        }
    }
}

/// Why it does not get it: how the command ends, and a sentence.
type Refused = (Exit, String);

fn refused(error: &OwnError) -> Refused {
    let exit = match error {
        OwnError::Gone | OwnError::Taken(_) | OwnError::Unusable => Exit::Denied,
        OwnError::TooOften { .. } => Exit::Pending,
        OwnError::Issue(error) => error.exit(),
    };
    (exit, error.to_string())
}

/// Serves the one command of the connection.
pub(super) async fn serve(door: &TunnelDoor, command: &[u8], channel: Channel) {
    let outbox = channel.outbox;
    let answer = match Command::parse(command) {
        Some(command) => answer(door, command).await,
        None => Err((Exit::Denied, say::TUNNEL_ONLY_FORWARD.to_owned())),
    };
    let told = tell(door, &outbox, answer);
    // A peer that does not read is ended with its connection.
    tokio::time::timeout(super::FETCHING, told).await.ok();
}

async fn tell(door: &TunnelDoor, outbox: &Outbox, answer: Result<Bytes, Refused>) {
    let exit = match answer {
        Ok(bytes) if bytes.is_empty() => Exit::Done,
        Ok(bytes) => match outbox.data(bytes).await {
            Ok(()) => Exit::Done,
            Err(_) => Exit::Failed,
        },
        Err((exit, why)) => {
            let why = clean(&why).into_owned();
            door.log_refused(&why);
            let line = say::lines(&format!("ERROR: {why}"), LineEnd::Lf);
            // Who is gone is told nothing, and the status is the same.
            outbox.stderr(line).await.ok();
            exit
        }
    };
    outbox.exit_status(exit.code().into()).await.ok();
    outbox.close().await;
}

async fn answer(door: &TunnelDoor, command: Command) -> Result<Bytes, Refused> {
    let (state, node) = (&door.proxy.state, door.arrival.node);
    // It was the node's when it logged in, and may have been taken from it since.
    if !door.arrival.key.is_of(&state.view(), &node, state.now()) {
        return Err(refused(&OwnError::Gone));
    }
    match command {
        Command::HostCert(has) => host_cert(door, has).await,
        Command::Krl => door.proxy.announcements.list_to_fetch(state).await,
        Command::Ca => {
            let lines = admin::node_authorities(&door.proxy.commands)?;
            state.fetched_node_authorities(node);
            Ok(Bytes::from(lines.join("\n") + "\n"))
        }
    }
}

async fn host_cert(door: &TunnelDoor, has: Option<u64>) -> Result<Bytes, Refused> {
    let state = &door.proxy.state;
    let of_the_store = |error: StoreError| (error.exit(), error.to_string());
    let own = OwnConnection {
        node: door.arrival.node,
        key: door.arrival.key.clone(),
        from: door.from,
    };
    if let Some(serial) = has
        && state
            .does_for_now(&own, serial)
            .await
            .map_err(of_the_store)?
    {
        return Ok(Bytes::new());
    }
    let names = door.certified_names().await.map_err(of_the_store)?;
    let issued = state.renew_for_own_key(own, names).await;
    let certificate = issued.map_err(|error| refused(&error))?;
    Ok(Bytes::from(
        certificate.to_openssh().trim_end().to_owned() + "\n",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_commands_are_read_and_no_other() {
        let read = |text: &str| Command::parse(text.as_bytes());
        assert_eq!(read("ca"), Some(Command::Ca));
        assert_eq!(read("krl"), Some(Command::Krl));
        assert_eq!(read("host-cert"), Some(Command::HostCert(None)));
        let most = u64::MAX;
        assert_eq!(
            read(&format!("host-cert {most}")),
            Some(Command::HostCert(Some(most)))
        );
        for other in [
            "",
            "CA",
            "ca krl",
            "host-cert -1",
            "host-cert 18446744073709551616",
            "host-cert 1 2",
            "host-cert x",
            "krl; id",
            "nodes host-cert iot",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(Command::parse(b"ca\0"), None);
    }
}
