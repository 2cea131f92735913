//! Keys that sign what a test wants signed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ed25519_dalek::{Signer, SigningKey};
use ssh_key::{PrivateKey, PublicKey};

use super::wire::{Fields, Msg, msg};

/// An ed25519 key, with what is shown of it.
#[derive(Clone)]
pub struct RawKey {
    secret: SigningKey,
    /// Its public half as SSH writes it, or a certificate over it.
    pub shown: Vec<u8>,
    /// The name of the algorithm that goes with what is shown.
    pub algorithm: String,
}

impl RawKey {
    /// From an OpenSSH file.
    pub fn read(file: &Path) -> Self {
        let key = PrivateKey::read_openssh_file(file).expect("a private key");
        let pair = key.key_data().ed25519().expect("an ed25519 key");
        Self::of(SigningKey::from_bytes(&pair.private.to_bytes()))
    }

    /// A new one.
    pub fn random() -> Self {
        Self::of(SigningKey::from_bytes(&rand::random()))
    }

    fn of(secret: SigningKey) -> Self {
        let shown = Msg::default()
            .string("ssh-ed25519")
            .string(secret.verifying_key().as_bytes());
        Self {
            secret,
            shown: shown.0,
            algorithm: "ssh-ed25519".to_owned(),
        }
    }

    /// Its public half as a line of OpenSSH's.
    pub fn openssh(&self) -> String {
        let key = PublicKey::from_bytes(&self.shown).expect("a public key");
        key.to_openssh().expect("it can be written")
    }

    /// Shows this instead.
    #[must_use]
    pub fn showing(mut self, algorithm: &str, shown: Vec<u8>) -> Self {
        self.algorithm = algorithm.to_owned();
        self.shown = shown;
        self
    }

    /// A signature, as SSH writes it.
    pub fn sign(&self, data: &[u8]) -> Vec<u8> {
        let signature = self.secret.sign(data).to_bytes();
        Msg::default().string("ssh-ed25519").string(signature).0
    }

    /// A request to log in with this key, without a signature.
    pub fn offer(&self, user: &str) -> Msg {
        request(user, 0, &self.algorithm, &self.shown)
    }

    /// The same with one, for the connection with this session identifier.
    pub fn login(&self, session: &[u8], user: &str) -> Msg {
        let request = request(user, 1, &self.algorithm, &self.shown);
        let signature = self.sign(Msg::default().string(session).raw(&request).as_ref());
        request.string(signature)
    }
}

/// The beginning of a request to log in with a key (RFC 4252 section 7).
pub(crate) fn request(user: &str, signed: u8, algorithm: &str, shown: &[u8]) -> Msg {
    Msg::new(msg::USERAUTH_REQUEST)
        .string(user)
        .string("ssh-connection")
        .string("publickey")
        .byte(signed)
        .string(algorithm)
        .string(shown)
}

/// A key in an ssh-agent: it signs with algorithms that nothing else would sign with.
pub struct AgentKey {
    socket: UnixStream,
    /// Its public half.
    pub shown: Vec<u8>,
}

impl AgentKey {
    /// The first key of the agent behind this socket.
    pub fn first(socket: &Path) -> Self {
        let mut socket = UnixStream::connect(socket).expect("the agent listens");
        // SSH_AGENTC_REQUEST_IDENTITIES.
        let answer = ask(&mut socket, &Msg::new(11));
        let mut fields = Fields(&answer[5..]);
        let shown = fields.string().expect("the agent has a key").to_vec();
        Self { socket, shown }
    }

    /// A request to log in under this algorithm, signed with these flags (0: RSA with SHA-1; 2 and 4: SHA-2).
    pub fn login(&mut self, session: &[u8], user: &str, algorithm: &str, flags: u32) -> Msg {
        let request = request(user, 1, algorithm, &self.shown);
        let signed = Msg::default().string(session).raw(&request);
        // SSH_AGENTC_SIGN_REQUEST.
        let ask_for = Msg::new(13).string(&self.shown).string(signed).u32(flags);
        let answer = ask(&mut self.socket, &ask_for);
        let signature = Fields(&answer[1..]).string().expect("a signature");
        request.string(signature)
    }
}

fn ask(socket: &mut UnixStream, message: &Msg) -> Vec<u8> {
    socket
        .write_all(Msg::default().string(message).as_ref())
        .expect("the agent reads");
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("the agent answers");
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("it fits")];
    socket.read_exact(&mut answer).expect("the agent answers");
    answer
}
