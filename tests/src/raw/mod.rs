//! SSH-2 by hand: a peer that exchanges keys as it should and then says whatever a test wants.
//!
//! It is a client ([`Raw::connect`]) or a server ([`Raw::accept`]), blocks, and checks as little as it can: what
//! it sends may be wrong in any way. The key exchange can be disturbed with [`Tricks`], packets with [`Packet`].

mod crypt;
mod key;
mod node;
pub mod wire;

use std::collections::VecDeque;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

use self::crypt::{Agreed, Cipher, TAG, Transcript, agree, ephemeral};
pub use self::key::{AgentKey, RawKey};
pub use self::node::RawNode;
use self::wire::{Fields, Msg, msg};

/// No answer takes longer, or the peer hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest packet that is taken from a peer.
const LONGEST: usize = 1 << 20;

/// Which end we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

/// Ways to disturb a key exchange; the default is none.
#[derive(Clone, Debug, Default)]
pub struct Tricks {
    /// Sent before our KEXINIT.
    pub before_offer: Vec<Msg>,
    /// Sent between our KEXINIT and what follows it.
    pub after_offer: Vec<Msg>,
    /// Sent just before our NEWKEYS.
    pub before_newkeys: Vec<Msg>,
    /// Our NEWKEYS is left out; what follows is encrypted all the same.
    pub no_newkeys: bool,
    /// Does not offer strict key exchange.
    pub not_strict: bool,
    /// Other key exchange methods than ours, comma-separated.
    pub methods: Option<String>,
    /// Other host key algorithms than ours.
    pub host_keys: Option<String>,
    /// Other ciphers than ours.
    pub ciphers: Option<String>,
    /// Other compressions than ours.
    pub compressions: Option<String>,
    /// Another ephemeral public key than ours.
    pub public: Option<Vec<u8>>,
}

/// The outside of a packet, for packets that are wrong.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The length field; the true one if none.
    pub length: Option<u32>,
    /// The padding length field; the true one if none.
    pub padding_length: Option<u8>,
    /// How many bytes of padding there are; what is needed if none.
    pub padding: Option<usize>,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A right one.
    pub fn of(payload: impl AsRef<[u8]>) -> Self {
        Self {
            length: None,
            padding_length: None,
            padding: None,
            payload: payload.as_ref().to_vec(),
        }
    }
}

/// One connection.
pub struct Raw {
    stream: TcpStream,
    role: Role,
    ours: String,
    theirs: String,
    sealing: Option<Cipher>,
    opening: Option<Cipher>,
    /// The session identifier: the first exchange hash. Empty before it.
    pub session: Vec<u8>,
    /// The host key that the server showed.
    pub host_key: Vec<u8>,
    /// Messages that came while another one was waited for.
    backlog: VecDeque<Vec<u8>>,
}

fn broken(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidData, why.into())
}

impl Raw {
    /// Connects to a port of this machine and says the version.
    pub fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        let mut raw = Self::over(stream, Role::Client)?;
        raw.say_version()?;
        raw.read_version()?;
        Ok(raw)
    }

    /// The server's end of a connection, with nothing said yet.
    pub fn accept(stream: TcpStream) -> Result<Self> {
        Self::over(stream, Role::Server)
    }

    fn over(stream: TcpStream, role: Role) -> Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            role,
            ours: "SSH-2.0-byhand".to_owned(),
            theirs: String::new(),
            sealing: None,
            opening: None,
            session: Vec::new(),
            host_key: Vec::new(),
            backlog: VecDeque::new(),
        })
    }

    /// Connects, exchanges keys and is let into the authentication service.
    pub fn ready(port: u16) -> Result<Self> {
        let mut raw = Self::connect(port)?;
        raw.exchange(&Tricks::default(), None)?;
        raw.begin_authentication()?;
        Ok(raw)
    }

    /// Asks for the service and waits for it.
    pub fn begin_authentication(&mut self) -> Result<()> {
        self.send(Msg::new(msg::SERVICE_REQUEST).string("ssh-userauth"))?;
        match self.hear()?.first() {
            Some(&msg::SERVICE_ACCEPT) => Ok(()),
            other => Err(broken(format!("{other:?} instead of SERVICE_ACCEPT"))),
        }
    }

    /// The socket, to write bytes on that are no packets.
    pub fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// How long a read waits.
    pub fn patience(&mut self, patience: Duration) -> Result<()> {
        self.stream.set_read_timeout(Some(patience))
    }

    // ---- versions

    /// Says our version.
    pub fn say_version(&mut self) -> Result<()> {
        let line = format!("{}\r\n", self.ours);
        self.stream.write_all(line.as_bytes())
    }

    /// Reads theirs.
    pub fn read_version(&mut self) -> Result<()> {
        loop {
            let line = self.read_line()?;
            if line.starts_with("SSH-") {
                self.theirs = line;
                return Ok(());
            }
        }
    }

    fn read_line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while line.len() < 1024 {
            self.stream.read_exact(&mut byte)?;
            if byte == *b"\n" {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            line.push(byte[0]);
        }
        Err(broken("a line without end"))
    }

    // ---- packets

    /// Sends a message.
    pub fn send(&mut self, payload: impl AsRef<[u8]>) -> Result<()> {
        self.send_packet(&Packet::of(payload))
    }

    /// Sends a packet with what is wrong with it.
    pub fn send_packet(&mut self, packet: &Packet) -> Result<()> {
        let sealed = self.pack(packet);
        self.stream.write_all(&sealed)
    }

    /// Sends many messages in one go.
    pub fn send_all(&mut self, messages: impl IntoIterator<Item = Msg>) -> Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            bytes.extend(self.pack(&Packet::of(message)));
            if bytes.len() > 1 << 16 {
                self.stream.write_all(&bytes)?;
                bytes.clear();
            }
        }
        self.stream.write_all(&bytes)
    }

    fn pack(&mut self, packet: &Packet) -> Vec<u8> {
        // The length is encrypted with the rest only where there is no cipher (RFC 5647 section 7.3).
        let (block, outside) = match self.sealing {
            Some(_) => (16, 0),
            None => (8, 4),
        };
        let needed = {
            let bare = outside + 1 + packet.payload.len();
            let padding = block - bare % block;
            if padding < 4 {
                padding + block
            } else {
                padding
            }
        };
        let padding = packet.padding.unwrap_or(needed);
        let padding_length = packet
            .padding_length
            .unwrap_or_else(|| u8::try_from(padding).unwrap_or(u8::MAX));
        let mut inside = vec![padding_length];
        inside.extend_from_slice(&packet.payload);
        inside.resize(inside.len() + padding, 0);
        let true_length = u32::try_from(inside.len()).expect("a packet of a test fits");
        let length = packet.length.unwrap_or(true_length).to_be_bytes();
        let rest = match &mut self.sealing {
            Some(cipher) => cipher.seal(length, inside),
            None => inside,
        };
        [&length[..], &rest].concat()
    }

    /// The next message, whatever it is.
    pub fn recv(&mut self) -> Result<Vec<u8>> {
        if let Some(kept) = self.backlog.pop_front() {
            return Ok(kept);
        }
        self.recv_now()
    }

    fn recv_now(&mut self) -> Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(2..=LONGEST).contains(&size) {
            return Err(broken(format!("a packet of {size} bytes")));
        }
        let tag = self.opening.as_ref().map_or(0, |_| TAG);
        let mut packet = vec![0; size + tag];
        self.stream.read_exact(&mut packet)?;
        if let Some(cipher) = &mut self.opening {
            packet = cipher
                .open(length, packet)
                .ok_or_else(|| broken("a packet with a wrong tag"))?;
        }
        let padding = usize::from(packet[0]);
        let end = packet.len().checked_sub(padding).filter(|end| *end > 0);
        let end = end.ok_or_else(|| broken("more padding than packet"))?;
        Ok(packet[1..end].to_vec())
    }

    /// The next message that is about what is being done: none that may come at any time.
    pub fn hear(&mut self) -> Result<Vec<u8>> {
        loop {
            let message = self.recv()?;
            match message.first() {
                Some(&(msg::IGNORE | msg::DEBUG | msg::EXT_INFO | msg::USERAUTH_BANNER)) => {}
                // Keepalives and `hostkeys-00@openssh.com`.
                Some(&msg::GLOBAL_REQUEST) => {
                    let mut fields = Fields(&message[1..]);
                    let _name = fields.string();
                    if fields.byte() == Some(1) {
                        self.send(Msg::new(msg::REQUEST_FAILURE))?;
                    }
                }
                Some(_) | None => return Ok(message),
            }
        }
    }

    /// Reads until the peer ends the connection, and for at most this long; the text of its goodbye if it
    /// said one.
    ///
    /// # Errors
    /// `TimedOut` or `WouldBlock` if the peer leaves it open.
    pub fn end(&mut self, within: Duration) -> Result<Option<String>> {
        let until = std::time::Instant::now() + within;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return Err(Error::from(ErrorKind::TimedOut));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.recv() {
                Ok(message) if message.first() == Some(&msg::DISCONNECT) => {
                    return Ok(Some(Fields(&message[5..]).text()));
                }
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) =>
                {
                    return Err(error);
                }
                Err(_) => return Ok(None),
            }
        }
    }

    // ---- keys

    fn offer(&self, tricks: &Tricks) -> Msg {
        let strict = match (tricks.not_strict, self.role) {
            (true, _) => "",
            (false, Role::Client) => ",kex-strict-c-v00@openssh.com",
            (false, Role::Server) => ",kex-strict-s-v00@openssh.com",
        };
        let or =
            |other: &Option<String>, usual: &str| other.clone().unwrap_or_else(|| usual.to_owned());
        let ciphers = or(&tricks.ciphers, "aes256-gcm@openssh.com");
        let compressions = or(&tricks.compressions, "none");
        Msg::new(msg::KEXINIT)
            .raw([7; 16])
            .string(or(&tricks.methods, "curve25519-sha256") + strict)
            .string(or(&tricks.host_keys, "ssh-ed25519"))
            .string(&ciphers)
            .string(&ciphers)
            .string("hmac-sha2-256")
            .string("hmac-sha2-256")
            .string(&compressions)
            .string(&compressions)
            .string("")
            .string("")
            .byte(0)
            .u32(0)
    }

    /// Exchanges keys, the first time or again. A server has a host key.
    pub fn exchange(&mut self, tricks: &Tricks, host: Option<&RawKey>) -> Result<()> {
        self.send_all(tricks.before_offer.clone())?;
        let ours = self.offer(tricks);
        self.send(&ours)?;
        self.send_all(tricks.after_offer.clone())?;
        let theirs = self.recv_kind(msg::KEXINIT)?;
        let (private, public) = ephemeral();
        let public = tricks.public.clone().unwrap_or(public);
        let agreed = match self.role {
            Role::Client => {
                self.send(Msg::new(msg::KEX_ECDH_INIT).string(&public))?;
                let reply = self.recv_kind(msg::KEX_ECDH_REPLY)?;
                let mut fields = Fields(&reply[1..]);
                let host_key = fields.string().unwrap_or_default().to_vec();
                let server_public = fields.string().unwrap_or_default();
                let secret = agree(private, server_public).ok_or_else(|| broken("no key"))?;
                let transcript = Transcript {
                    client_version: &self.ours,
                    server_version: &self.theirs,
                    client_offer: ours.as_ref(),
                    server_offer: &theirs,
                    host_key: &host_key,
                    client_public: &public,
                    server_public,
                };
                let agreed = Agreed::new(&transcript, &secret);
                self.host_key = host_key;
                agreed
            }
            Role::Server => {
                let host = host.expect("a server has a host key");
                let init = self.recv_kind(msg::KEX_ECDH_INIT)?;
                let client_public = Fields(&init[1..]).string().unwrap_or_default();
                let secret = agree(private, client_public).ok_or_else(|| broken("no key"))?;
                let transcript = Transcript {
                    client_version: &self.theirs,
                    server_version: &self.ours,
                    client_offer: &theirs,
                    server_offer: ours.as_ref(),
                    host_key: &host.shown,
                    client_public,
                    server_public: &public,
                };
                let agreed = Agreed::new(&transcript, &secret);
                let reply = Msg::new(msg::KEX_ECDH_REPLY)
                    .string(&host.shown)
                    .string(&public)
                    .string(host.sign(&agreed.hash));
                self.send(&reply)?;
                agreed
            }
        };
        if self.session.is_empty() {
            self.session.clone_from(&agreed.hash);
        }
        self.send_all(tricks.before_newkeys.clone())?;
        if !tricks.no_newkeys {
            self.send(Msg::new(msg::NEWKEYS))?;
        }
        let to_server = agreed.cipher(&self.session, b'A', b'C');
        let to_client = agreed.cipher(&self.session, b'B', b'D');
        let (sealing, opening) = match self.role {
            Role::Client => (to_server, to_client),
            Role::Server => (to_client, to_server),
        };
        self.sealing = Some(sealing);
        self.recv_kind(msg::NEWKEYS)?;
        self.opening = Some(opening);
        Ok(())
    }

    /// The next message of this number, straight from the wire; what comes before it is kept.
    fn recv_kind(&mut self, kind: u8) -> Result<Vec<u8>> {
        loop {
            let message = self.recv_now()?;
            match message.first() {
                Some(first) if *first == kind => return Ok(message),
                Some(&msg::DISCONNECT) => {
                    let text = Fields(message.get(5..).unwrap_or_default()).text();
                    return Err(Error::new(ErrorKind::ConnectionAborted, text));
                }
                Some(_) | None => self.backlog.push_back(message),
            }
        }
    }

    // ---- a client that is let in

    /// Opens a session channel that is ours under `number`; theirs.
    pub fn open_session(&mut self, number: u32) -> Result<u32> {
        let open = Msg::new(msg::CHANNEL_OPEN).string("session");
        self.send(open.u32(number).u32(1 << 21).u32(1 << 15))?;
        let answer = self.hear()?;
        let mut fields = Fields(&answer[1..]);
        match (answer[0], fields.u32(), fields.u32()) {
            (msg::CHANNEL_OPEN_CONFIRMATION, Some(_), Some(theirs)) => Ok(theirs),
            _ => Err(broken(format!("no session: {answer:?}"))),
        }
    }
}
