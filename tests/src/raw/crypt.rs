//! One key exchange and one cipher: `curve25519-sha256` (RFC 8731) and `aes256-gcm@openssh.com` (RFC 5647, and
//! OpenSSH's PROTOCOL section 1.6).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{EphemeralPrivateKey, UnparsedPublicKey, X25519, agree_ephemeral};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;

use super::wire::Msg;

/// What an exchange agrees upon.
pub(super) struct Agreed {
    /// The exchange hash.
    pub(super) hash: Vec<u8>,
    shared: Vec<u8>,
}

/// What goes into the exchange hash, in its order (RFC 4253 section 8).
pub(super) struct Transcript<'a> {
    pub(super) client_version: &'a str,
    pub(super) server_version: &'a str,
    pub(super) client_offer: &'a [u8],
    pub(super) server_offer: &'a [u8],
    pub(super) host_key: &'a [u8],
    pub(super) client_public: &'a [u8],
    pub(super) server_public: &'a [u8],
}

/// An ephemeral key: its private and its public half.
pub(super) fn ephemeral() -> (EphemeralPrivateKey, Vec<u8>) {
    let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).expect("a key");
    let public = private.compute_public_key().expect("its public half");
    (private, public.as_ref().to_vec())
}

/// The shared secret; none if the peer's half is none.
pub(super) fn agree(private: EphemeralPrivateKey, theirs: &[u8]) -> Option<Vec<u8>> {
    let theirs = UnparsedPublicKey::new(&X25519, theirs);
    agree_ephemeral(private, theirs, (), |secret| Ok(secret.to_vec())).ok()
}

impl Agreed {
    pub(super) fn new(transcript: &Transcript<'_>, secret: &[u8]) -> Self {
        let shared = Msg::default().mpint(secret).0;
        let hashed = Msg::default()
            .string(transcript.client_version)
            .string(transcript.server_version)
            .string(transcript.client_offer)
            .string(transcript.server_offer)
            .string(transcript.host_key)
            .string(transcript.client_public)
            .string(transcript.server_public)
            .raw(&shared);
        let hash = digest(&SHA256, hashed.as_ref()).as_ref().to_vec();
        Self { hash, shared }
    }

    /// The cipher of one direction: `initial` and `key` are the letters of RFC 4253 section 7.2.
    pub(super) fn cipher(&self, session: &[u8], initial: u8, key: u8) -> Cipher {
        let derive = |letter: u8| {
            let hashed = [&self.shared[..], &self.hash, &[letter], session].concat();
            digest(&SHA256, &hashed).as_ref().to_vec()
        };
        let key = UnboundKey::new(&AES_256_GCM, &derive(key)).expect("32 bytes");
        let initial = derive(initial);
        Cipher {
            key: LessSafeKey::new(key),
            fixed: initial[..4].try_into().expect("four bytes"),
            counter: u64::from_be_bytes(initial[4..12].try_into().expect("eight bytes")),
        }
    }
}

/// One direction.
pub(super) struct Cipher {
    key: LessSafeKey,
    fixed: [u8; 4],
    counter: u64,
}

/// Bytes of the tag behind each packet.
pub(super) const TAG: usize = 16;

impl Cipher {
    fn nonce(&mut self) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.fixed);
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        Nonce::assume_unique_for_key(nonce)
    }

    /// Everything behind the length, with its tag.
    pub(super) fn seal(&mut self, length: [u8; 4], mut packet: Vec<u8>) -> Vec<u8> {
        let nonce = self.nonce();
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(length), &mut packet)
            .expect("it can be sealed");
        packet
    }

    pub(super) fn open(&mut self, length: [u8; 4], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let nonce = self.nonce();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(length), &mut sealed);
        opened.ok().map(|packet| packet.to_vec())
    }
}
