//! Which algorithms we speak, on either side.

use std::borrow::Cow;

use russh::{Preferred, cipher, compression, kex, mac};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, PublicKey, public::KeyData};

/// RSA keys that are let in, in bits (SECURITY section 2): smaller ones are weak,
/// larger ones make us work.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// No group exchange: the groups would be the peer's choice, and cost us time.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_G16_SHA512,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// AES-GCM first: in hardware it costs less than half of ChaCha20. The client's
/// order decides, so at a node this is our choice; a user's OpenSSH prefers
/// ChaCha20 unless it is told otherwise.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Encrypt-then-MAC first; SHA-1 not at all.
const MACS: &[mac::Name] = &[
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256,
    mac::HMAC_SHA512,
];

/// Key algorithms, for hosts and users. `ssh-rsa`, which is RSA with SHA-1, and
/// DSA are not among them.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha512),
    },
    Algorithm::Rsa {
        hash: Some(HashAlg::Sha256),
    },
];

/// Keys of users besides [`KEYS`]: they are announced as `server-sig-algs`.
const SECURITY_KEYS: &[Algorithm] = &[Algorithm::SkEd25519, Algorithm::SkEcdsaSha2NistP256];

/// Which kinds of host key a node is asked for. A client names one kind and gets
/// one key, so a pinned key of another kind would never be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAlgorithms {
    /// A host certificate if the node has one, else any key.
    CertificatesFirst,
    /// Keys of these algorithms, in this order of preference; nothing else is
    /// accepted. Any RSA algorithm stands for RSA with SHA-2.
    Pinned(Vec<Algorithm>),
}

/// What a server of ours offers.
pub(super) fn for_users() -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: KEYS.iter().chain(SECURITY_KEYS).cloned().collect(),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

/// What we offer a node.
pub(super) fn for_node(host: &HostAlgorithms) -> Preferred {
    let (key, certificates) = match host {
        HostAlgorithms::CertificatesFirst => (Cow::Borrowed(KEYS), Cow::Borrowed(KEYS)),
        HostAlgorithms::Pinned(pinned) => (pinned_order(pinned), Cow::Borrowed(&[][..])),
    };
    Preferred {
        kex: Cow::Borrowed(KEX),
        key,
        host_key_certificates: certificates,
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(&[compression::NONE]),
    }
}

fn pinned_order(pinned: &[Algorithm]) -> Cow<'static, [Algorithm]> {
    let same = |ours: &Algorithm, pin: &Algorithm| ours == pin || is_rsa(ours) && is_rsa(pin);
    pinned
        .iter()
        .flat_map(|pin| KEYS.iter().filter(move |ours| same(ours, pin)))
        .cloned()
        .collect()
}

fn is_rsa(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { .. })
}

/// Whether a user's key may be used at all: with SHA-1 no, RSA of a size out of
/// bounds no, DSA and unknown types no.
pub(super) fn is_acceptable(key: &PublicKey, algorithm: &Algorithm) -> bool {
    let known = KEYS.contains(algorithm) || SECURITY_KEYS.contains(algorithm);
    let sized = |key: &KeyData| {
        key.rsa()
            .is_none_or(|rsa| RSA_BITS.contains(&rsa.key_size()))
    };
    known && sized(key.key_data())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_offers_sha1_group_exchange_or_compression() {
        for offered in [
            for_users(),
            for_node(&HostAlgorithms::CertificatesFirst),
            for_node(&HostAlgorithms::Pinned(vec![Algorithm::Rsa { hash: None }])),
        ] {
            assert!(!offered.key.contains(&Algorithm::Rsa { hash: None }));
            assert!(!offered.key.contains(&Algorithm::Dsa));
            assert!(!offered.kex.contains(&kex::DH_GEX_SHA256));
            assert!(!offered.kex.contains(&kex::DH_G14_SHA1));
            assert_eq!(offered.compression.as_ref(), [compression::NONE]);
            assert_eq!(offered.cipher.first(), Some(&cipher::AES_256_GCM));
            assert!(offered.cipher.contains(&cipher::CHACHA20_POLY1305));
            assert!(!offered.cipher.contains(&cipher::NONE));
        }
    }

    #[test]
    fn a_pinned_key_of_any_type_is_asked_for_and_no_other() {
        for pin in KEYS {
            let offered = for_node(&HostAlgorithms::Pinned(vec![pin.clone()]));
            assert!(offered.key.contains(pin), "{pin}");
            assert!(
                offered
                    .key
                    .iter()
                    .all(|key| key == pin || is_rsa(key) && is_rsa(pin))
            );
            assert!(offered.host_key_certificates.is_empty());
        }
    }
}
