//! Whether a host is the one that was meant: what it shows is held to what is known of it.

use anteroom_core::id::NodeId;
use ssh_key::certificate::CertType;
use ssh_key::{Certificate as Wire, Fingerprint, HashAlg, PublicKey};
use thiserror::Error;
use time::OffsetDateTime;

use crate::cert::{MAX_BYTES, is_algorithm_of};
use crate::key::fingerprint;

/// What a dialled host has shown and, by the key exchange, proven to hold.
#[derive(Debug, Clone, Copy)]
pub enum PresentedHost<'a> {
    /// A plain host key.
    Key(&'a PublicKey),
    /// A host certificate; the key exchange proved possession of the key in it.
    Certificate(&'a Wire),
}

/// How the node that was meant is known.
#[derive(Debug, Clone, Copy)]
pub enum HostExpectation<'a> {
    /// By one of these keys, of any type.
    Pinned(&'a [PublicKey]),
    /// By a certificate for its UUID from one of these authorities: all that are trusted at the moment.
    Authority {
        /// The trusted host authorities.
        trusted: &'a [PublicKey],
        /// The node that was meant.
        node: &'a NodeId,
        /// The present time.
        now: OffsetDateTime,
    },
    /// By a certificate for a name, from one of these authorities: a proxy, which a node agent knows by the
    /// cluster's name. No node is given a certificate for that ([`admit`](crate::names::HostNames::admit)).
    Named {
        /// The trusted host authorities.
        trusted: &'a [PublicKey],
        /// The name that was meant.
        name: &'a str,
        /// The present time.
        now: OffsetDateTime,
    },
}

/// Whether `proof` shows the host that was expected.
///
/// A pinned key also counts inside a certificate, whoever signed it: possession of the key is what was proven.
///
/// # Errors
/// The first reason against it.
pub fn verify(proof: PresentedHost<'_>, expected: HostExpectation<'_>) -> Result<(), HostRefused> {
    match (expected, proof) {
        (HostExpectation::Pinned(pins), PresentedHost::Key(key)) => verify_pinned(key, pins),
        (HostExpectation::Pinned(pins), PresentedHost::Certificate(cert)) => {
            verify_pinned(&PublicKey::from(cert.public_key().clone()), pins)
        }
        (HostExpectation::Authority { .. }, PresentedHost::Key(key)) => {
            Err(HostRefused::NoCertificate {
                found: fingerprint(key),
            })
        }
        (HostExpectation::Named { name, .. }, PresentedHost::Key(key)) => {
            Err(HostRefused::NoCertificateFor {
                name: shown(std::slice::from_ref(&name.to_owned())),
                found: fingerprint(key),
            })
        }
        (HostExpectation::Authority { trusted, node, now }, PresentedHost::Certificate(cert)) => {
            verify_certificate(cert, trusted, &node.to_string(), now, |expected, found| {
                HostRefused::Principals { expected, found }
            })
        }
        (HostExpectation::Named { trusted, name, now }, PresentedHost::Certificate(cert)) => {
            verify_certificate(cert, trusted, name, now, |expected, found| {
                HostRefused::OtherName { expected, found }
            })
        }
    }
}

/// Reads the bytes of a host certificate as they came over the wire.
///
/// An SSH library that hands over a parsed certificate has skipped bytes it did not understand; here the
/// certificate must be the same bytes again when it is written, so nothing was left over anywhere inside.
///
/// # Errors
/// [`HostRefused::TooLong`], [`HostRefused::Malformed`], [`HostRefused::BytesLeftOver`].
pub fn parse_certificate(blob: &[u8]) -> Result<Wire, HostRefused> {
    if blob.len() > MAX_BYTES {
        return Err(HostRefused::TooLong { found: blob.len() });
    }
    let cert = match Wire::from_bytes(blob) {
        Ok(cert) => cert,
        Err(ssh_key::Error::Encoding(ssh_key::encoding::Error::TrailingData { .. })) => {
            return Err(HostRefused::BytesLeftOver);
        }
        Err(_) => return Err(HostRefused::Malformed),
    };
    match cert.to_bytes() {
        Ok(again) if again == blob => Ok(cert),
        Ok(_) => Err(HostRefused::BytesLeftOver),
        Err(_) => Err(HostRefused::Malformed),
    }
}

fn verify_pinned(key: &PublicKey, pins: &[PublicKey]) -> Result<(), HostRefused> {
    if pins.is_empty() {
        return Err(HostRefused::NothingPinned);
    }
    match pins.iter().any(|pin| pin.key_data() == key.key_data()) {
        true => Ok(()),
        false => Err(HostRefused::NotPinned {
            found: fingerprint(key),
            algorithm: key.algorithm().to_string(),
        }),
    }
}

fn verify_certificate(
    cert: &Wire,
    trusted: &[PublicKey],
    name: &str,
    now: OffsetDateTime,
    another: impl FnOnce(String, String) -> HostRefused,
) -> Result<(), HostRefused> {
    verify_origin(cert, trusted)?;
    verify_window(cert, now)?;
    // PROTOCOL.certkeys lets a host certificate without principals stand for every host; here it stands for none.
    if !cert.valid_principals().iter().any(|found| found == name) {
        return Err(another(name.to_owned(), shown(cert.valid_principals())));
    }
    // No critical option is defined for hosts, so each one is unknown (PROTOCOL.certkeys: must be refused).
    match cert.critical_options().keys().next() {
        None => Ok(()),
        Some(option) => Err(HostRefused::CriticalOption {
            name: shown(std::slice::from_ref(option)),
        }),
    }
}

/// Type, size, authority and signature.
fn verify_origin(cert: &Wire, trusted: &[PublicKey]) -> Result<(), HostRefused> {
    let size = cert.to_bytes().map_err(|_| HostRefused::Malformed)?.len();
    if size > MAX_BYTES {
        return Err(HostRefused::TooLong { found: size });
    }
    if cert.cert_type() != CertType::Host {
        return Err(HostRefused::UserCertificate);
    }
    let ca = cert.signature_key();
    if ca.is_certificate() {
        return Err(HostRefused::AuthorityIsCertificate);
    }
    if !trusted.iter().any(|key| key.key_data() == ca) {
        return Err(HostRefused::UnknownAuthority {
            found: ca.fingerprint(HashAlg::Sha256),
        });
    }
    if !is_algorithm_of(ca, cert.signature()) {
        let found = cert.signature().algorithm().to_string();
        return Err(HostRefused::SignatureAlgorithm { found });
    }
    cert.verify_signature().map_err(|_| HostRefused::Signature)
}

/// Half open: `valid_after ≤ now < valid_before`.
fn verify_window(cert: &Wire, now: OffsetDateTime) -> Result<(), HostRefused> {
    let (from, until) = (cert.valid_after(), cert.valid_before());
    // A clock before 1970 is before every certificate.
    let Ok(seconds) = u64::try_from(now.unix_timestamp()) else {
        return Err(HostRefused::NotYetValid { from, now });
    };
    if seconds < from {
        return Err(HostRefused::NotYetValid { from, now });
    }
    if seconds >= until {
        return Err(HostRefused::Expired { until, now });
    }
    Ok(())
}

/// Why a host is not the one that was meant, or does not prove it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HostRefused {
    /// The node is registered with no key at all.
    #[error("no host key is pinned for the node: add one with `nodes update NODE --host-key FILE`")]
    NothingPinned,
    /// Another key than the pinned ones.
    #[error(
        "the host shows the {algorithm} key {found}, which is not pinned: if its key was changed, `nodes update NODE --host-key FILE`"
    )]
    NotPinned {
        /// Fingerprint of the key shown.
        found: Fingerprint,
        /// Type of the key shown.
        algorithm: String,
    },
    /// A plain key where a certificate is wanted.
    #[error(
        "the host shows the plain key {found}, but the node is known by a certificate of the host CA: set `HostCertificate` in its sshd_config, or pin the key"
    )]
    NoCertificate {
        /// Fingerprint of the key shown.
        found: Fingerprint,
    },
    /// A plain key where a certificate for a name is wanted.
    #[error("the host shows the plain key {found} and no certificate for `{name}`")]
    NoCertificateFor {
        /// The name that was meant.
        name: String,
        /// Fingerprint of the key shown.
        found: Fingerprint,
    },
    /// A user's certificate.
    #[error("the host shows a user certificate")]
    UserCertificate,
    /// An authority that is not trusted.
    #[error("the host's certificate is signed by {found}, which is no trusted host CA")]
    UnknownAuthority {
        /// Fingerprint of the signing key.
        found: Fingerprint,
    },
    /// A chain, which PROTOCOL.certkeys forbids.
    #[error("the host's certificate is signed by another certificate")]
    AuthorityIsCertificate,
    /// A signature of another or an outdated kind.
    #[error("the host's certificate is signed by {found}, which is not accepted")]
    SignatureAlgorithm {
        /// The algorithm.
        found: String,
    },
    /// The signature does not verify.
    #[error("the signature of the host's certificate is wrong")]
    Signature,
    /// It begins later.
    #[error("the host's certificate begins at {} and it is {now}: compare the clocks", date(*from))]
    NotYetValid {
        /// Its beginning, seconds since 1970.
        from: u64,
        /// The time of the check.
        now: OffsetDateTime,
    },
    /// It has ended.
    #[error("the host's certificate ended at {} and it is {now}: issue a new one", date(*until))]
    Expired {
        /// Its end, seconds since 1970.
        until: u64,
        /// The time of the check.
        now: OffsetDateTime,
    },
    /// For another host, or for any.
    #[error("the host's certificate is for `{found}`, not for node {expected}")]
    Principals {
        /// The node's UUID.
        expected: String,
        /// Its principals, escaped and cut.
        found: String,
    },
    /// For other names.
    #[error("the host's certificate is for `{found}`, not for `{expected}`")]
    OtherName {
        /// The name that was meant.
        expected: String,
        /// Its principals, escaped and cut.
        found: String,
    },
    /// An option that we would have to obey.
    #[error(
        "the host's certificate has the critical option `{name}`, which is not known for hosts"
    )]
    CriticalOption {
        /// The option, escaped and cut.
        name: String,
    },
    /// Too many bytes.
    #[error("the host's certificate has {found} bytes, at most {MAX_BYTES} are read")]
    TooLong {
        /// How many there were.
        found: usize,
    },
    /// Not a certificate.
    #[error("the host's certificate cannot be read")]
    Malformed,
    /// Something was hidden behind or inside it.
    #[error("the host's certificate has bytes left over")]
    BytesLeftOver,
}

/// Text from a host that is not trusted yet, fit for a message.
fn shown(texts: &[String]) -> String {
    texts.join(",").escape_default().take(SHOWN).collect()
}

fn date(seconds: u64) -> String {
    let date = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    date.map_or_else(
        || format!("{seconds} seconds since 1970"),
        |date| date.to_string(),
    )
}

/// Characters: two names of the longest kind.
const SHOWN: usize = 128;
