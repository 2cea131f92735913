//! The secret of a token.

use std::fmt;

use base64ct::{Base64UrlUnpadded, Encoding};
use rand::Rng;
use sha2::{Digest, Sha256};
use ssh_key::{HashAlg, PublicKey};

use crate::audit::hex;

/// Characters of a secret: 165 bits, which nobody guesses while a token lives.
const LENGTH: usize = 32;

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// A token's secret. It is shown once, when it is made; what is kept is its hash. It writes itself nowhere by
/// accident: `Debug` blanks it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new one: what is random, a dot, and the SHA-256 of the proxy's host key, by which a machine knows
    /// the proxy before it shows the token to anybody.
    #[must_use]
    pub fn generate(host_key: &PublicKey, rng: &mut impl Rng) -> Self {
        let pin = host_key.fingerprint(HashAlg::Sha256);
        let pin = Base64UrlUnpadded::encode_string(pin.as_bytes());
        Self(format!("{}.{pin}", random_word(LENGTH, rng)))
    }

    /// What somebody shows. Anything may be shown: what it is good for is asked by its hash.
    #[must_use]
    pub fn shown(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The secret itself, for whoever made the token.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The hash that is kept, in lower-case hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        let hash: [u8; 32] = Sha256::digest(self.0.as_bytes()).into();
        hex(&hash)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// `length` letters and digits, each of them as likely as any other.
pub(crate) fn random_word(length: usize, rng: &mut impl Rng) -> String {
    let mut word = String::with_capacity(length);
    let mut byte = [0];
    while word.len() < length {
        rng.fill_bytes(&mut byte);
        let [random] = byte;
        // 252 is the largest multiple of 36 in a byte: a remainder of all 256 would prefer some.
        if random < 252
            && let Some(letter) = ALPHABET.get(usize::from(random % 36))
        {
            word.push(char::from(*letter));
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_more_than_128_bits_and_the_proxys_key_and_never_shows_itself() {
        let line =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
        let key = PublicKey::from_openssh(line).unwrap();
        let secret = Secret::generate(&key, &mut rand::rng());
        let text = secret.reveal();
        let (random, pin) = text.split_once('.').unwrap();
        assert!(
            random.len() == 32 && random.bytes().all(|b| ALPHABET.contains(&b)),
            "{text}"
        );
        assert_eq!(pin.len(), 43);
        assert!(!format!("{secret:?}").contains(random));
        assert_ne!(secret, Secret::generate(&key, &mut rand::rng()));
        assert_eq!(secret.sha256(), Secret::shown(text).sha256());
        // What stands behind the dot belongs to it.
        assert_ne!(secret.sha256(), Secret::shown(random).sha256());
    }
}
