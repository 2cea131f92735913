//! What the agent tells the process that becomes the user: an order, on its standard input, before the
//! bytes that are for the user's program.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Bytes of an order: 64 variables of 4 KiB and a command of 128 KiB, each byte of which may take four.
const LONGEST: usize = 2 << 20;

/// Which program to run, as whom and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) login: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: PathBuf,
    pub(super) shell: PathBuf,
    pub(super) program: Program,
    /// The whole environment.
    pub(super) environment: Vec<(String, String)>,
    /// Whether standard output is a terminal to run on; otherwise the standard streams stay what they are.
    pub(super) terminal: bool,
    /// What an interactive login is shown first; nothing where it is not one.
    pub(super) greeting: Option<Greeting>,
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Program {
    /// The login shell, as one.
    Shell,
    /// A command, by the login shell's `-c`.
    Command(Vec<u8>),
    /// The SFTP server that is part of this program.
    Sftp,
    /// Nothing: a signal is sent to the group of a session, with the user's rights.
    Signal {
        /// The group.
        group: i32,
        /// The signal's number.
        number: i32,
    },
}

/// What interactive logins are shown, unless there is a `.hushlogin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// `Last login: … from …`, if there was one.
    pub(super) last_login: Option<String>,
}

impl Order {
    /// As [`Order::read`] reads it: a length, then JSON.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let length = u32::try_from(json.len()).ok();
        let length = length.filter(|_| json.len() <= LONGEST);
        let length = length.ok_or_else(|| io::Error::other("the order is too long"))?;
        Ok([&length.to_be_bytes()[..], &json].concat())
    }

    /// Reads an order, and not a byte more.
    pub(super) fn read(mut from: impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(io::Error::other("the order is too long"));
        }
        let mut json = vec![0; length];
        from.read_exact(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_read_to_its_last_byte_and_no_further() {
        let order = Order {
            login: "root".to_owned(),
            uid: 0,
            gid: 0,
            home: "/root".into(),
            shell: "/bin/sh".into(),
            program: Program::Command(vec![b'x', 0xff]),
            environment: vec![("A".to_owned(), "b\nc".to_owned())],
            terminal: false,
            greeting: Some(Greeting { last_login: None }),
        };
        let mut bytes = order.to_bytes().unwrap();
        bytes.extend(b"for the program");
        let mut rest = &bytes[..];
        assert_eq!(Order::read(&mut rest).unwrap(), order);
        assert_eq!(rest, b"for the program");
        assert!(Order::read(&bytes[..9]).is_err());
        assert!(Order::read(&[0xff; 9][..]).is_err());
    }
}
