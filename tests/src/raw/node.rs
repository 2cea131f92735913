//! A node that is not what it should be: a listener that does to each connection what a test says.

use std::io::{Error, ErrorKind, Result};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::wire::{Fields, Msg, msg};
use super::{Raw, RawKey, Tricks};
use crate::World;

/// A node by hand. Its listener goes with the process.
pub struct RawNode {
    /// The key that it is registered with.
    pub key: RawKey,
    /// Its port on the loopback address.
    pub port: u16,
}

/// What becomes of a connection.
type Behaviour = dyn Fn(&mut Raw, &RawKey) -> Result<()> + Send + Sync;

impl RawNode {
    /// Registers a node under `name` that does this to each of its connections, and then holds it until the proxy
    /// lets go.
    pub fn start(
        world: &World,
        name: &str,
        behaviour: impl Fn(&mut Raw, &RawKey) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it has a port").port();
        let key = RawKey::random();
        let file = world.path(&format!("{name}.pub"));
        std::fs::write(&file, key.openssh()).expect("a file can be written");
        let (addr, file) = (format!("127.0.0.1:{port}"), file.display().to_string());
        let words = ["nodes", "add", name, "--addr", &addr, "--host-key", &file];
        world.ctl(&words).exits(0);
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let own = key.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (behaviour, key) = (Arc::clone(&behaviour), own.clone());
                thread::spawn(move || {
                    let mut raw = Raw::accept(stream)?;
                    behaviour(&mut raw, &key)?;
                    // Until the other side goes.
                    raw.end(Duration::from_secs(60)).map(|_| ())
                });
            }
        });
        Self { key, port }
    }
}

impl Raw {
    /// As a server: versions and keys.
    pub fn greet(&mut self, key: &RawKey) -> Result<()> {
        self.say_version()?;
        self.read_version()?;
        self.exchange(&Tricks::default(), Some(key))
    }

    /// As a server: the service that is asked for is there.
    pub fn serve_service(&mut self) -> Result<()> {
        self.recv_until(msg::SERVICE_REQUEST)?;
        self.send(Msg::new(msg::SERVICE_ACCEPT).string("ssh-userauth"))
    }

    /// As a server: lets in whoever signs anything.
    pub fn let_in(&mut self, key: &RawKey) -> Result<()> {
        self.greet(key)?;
        self.logs_in()
    }

    /// The same once keys are exchanged.
    pub fn logs_in(&mut self) -> Result<()> {
        self.serve_service()?;
        loop {
            let request = self.recv_until(msg::USERAUTH_REQUEST)?;
            let mut fields = Fields(&request[1..]);
            let (_user, _service) = (fields.string(), fields.string());
            if fields.string() != Some(b"publickey") {
                self.send(Msg::new(msg::USERAUTH_FAILURE).string("publickey").byte(0))?;
                continue;
            }
            let signed = fields.byte() == Some(1);
            if signed {
                return self.send(Msg::new(msg::USERAUTH_SUCCESS));
            }
            let ok = Msg::new(msg::USERAUTH_PK_OK);
            let (algorithm, blob) = (fields.string(), fields.string());
            self.send(
                ok.string(algorithm.unwrap_or_default())
                    .string(blob.unwrap_or_default()),
            )?;
        }
    }

    /// As a server: waits for a session to be opened; the peer's number of it.
    pub fn asked_for_session(&mut self) -> Result<u32> {
        let open = self.recv_until(msg::CHANNEL_OPEN)?;
        let mut fields = Fields(&open[1..]);
        let _kind = fields.string();
        fields
            .u32()
            .ok_or_else(|| Error::from(ErrorKind::InvalidData))
    }

    /// As a server: opens the session that is asked for, and takes its requests up to the one for a program; the
    /// peer's number of it.
    pub fn session_runs(&mut self) -> Result<u32> {
        let channel = self.asked_for_session()?;
        self.confirm(channel)?;
        loop {
            let request = self.recv_until(msg::CHANNEL_REQUEST)?;
            let mut fields = Fields(&request[5..]);
            let name = fields.string().unwrap_or_default().to_vec();
            if fields.byte() == Some(1) {
                self.send(Msg::new(msg::CHANNEL_SUCCESS).u32(channel))?;
            }
            if [&b"exec"[..], b"shell", b"subsystem"].contains(&name.as_slice()) {
                return Ok(channel);
            }
        }
    }

    /// As a server: confirms a channel with a window of 2 MiB.
    pub fn confirm(&mut self, channel: u32) -> Result<()> {
        let confirmed = Msg::new(msg::CHANNEL_OPEN_CONFIRMATION).u32(channel);
        self.send(confirmed.u32(0).u32(1 << 21).u32(1 << 15))
    }

    /// The next message of this number; others are passed over.
    pub fn recv_until(&mut self, kind: u8) -> Result<Vec<u8>> {
        loop {
            let message = self.hear()?;
            match message.first() {
                Some(first) if *first == kind => return Ok(message),
                Some(&msg::DISCONNECT) => return Err(Error::from(ErrorKind::ConnectionAborted)),
                Some(_) | None => {}
            }
        }
    }
}
