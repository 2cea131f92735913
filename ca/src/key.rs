//! Keys of certificate authorities and hosts: OpenSSH private key files that nobody else can read.
//!
//! Promises: a key is loaded only from a file no wider than 0600 in a directory no wider than 0700; a new
//! key appears whole or not at all, never over an existing one, with those modes whatever the umask; key
//! material is zeroized when dropped and printed by nothing here. What comes before (making the directory,
//! forbidding core dumps) and after (who may hold a key) is left to the caller.

mod error;
mod file;

use std::fmt;

use rand::CryptoRng;
use ssh_key::private::Ed25519Keypair;
use ssh_key::{Fingerprint, HashAlg, PrivateKey, PublicKey};
use zeroize::Zeroizing;

pub use crate::authority::{HostCa, NodeCa, UserCa};
pub use error::KeyError;
pub use file::{Origin, Protection, create_directory, public_path, read_public, write_public};

/// A private Ed25519 key (RFC 8032) of an authority, a host, or one connection to a node.
///
/// Ed25519 only: an RSA private key would bring in a timing weakness that its implementation cannot close
/// (RUSTSEC-2023-0071), and nothing here needs another kind.
pub struct Key {
    private: PrivateKey,
}

impl Key {
    /// Makes a key from `rng`. Control characters are left out of `comment`, which becomes part of a line.
    pub fn generate(comment: &str, rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0_u8; 32]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(comment, &seed)
    }

    /// The key that belongs to 32 secret bytes; the caller zeroizes his copy.
    pub fn from_seed(comment: &str, seed: &[u8; 32]) -> Self {
        let mut private = PrivateKey::from(Ed25519Keypair::from_seed(seed));
        let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
        private.set_comment(comment);
        Self { private }
    }

    /// The public half, with its comment.
    pub fn public_key(&self) -> &PublicKey {
        self.private.public_key()
    }

    /// `SHA256:…` of the public half.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(self.public_key())
    }

    /// The private half, for an SSH library that proves possession of it. An authority's key has no such
    /// way out: see [`crate::authority`].
    pub fn private_key(&self) -> &PrivateKey {
        &self.private
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Key({} {})",
            self.private.algorithm(),
            self.fingerprint()
        )
    }
}

/// `SHA256:…` of a public key, as `ssh-keygen -l` prints it.
pub fn fingerprint(key: &PublicKey) -> Fingerprint {
    key.fingerprint(HashAlg::Sha256)
}
