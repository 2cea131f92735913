//! The one verifier of identity certificates: from the bytes that were presented to an identity, or the
//! reason. Never laxer than sshd.

use std::net::IpAddr;
use std::sync::Arc;

use anteroom_core::credential::{Credential, IssuedCredential};
use anteroom_core::id::{KeyFingerprint, UserName};
use anteroom_core::policy::Identity;
use sha2::{Digest, Sha256};
use ssh_key::certificate::CertType;
use ssh_key::{Certificate as Wire, Fingerprint, HashAlg, PublicKey};
use thiserror::Error;
use time::OffsetDateTime;

use super::claims;
use crate::cert::{
    Class, MAX_BYTES, Unreadable, from_seconds, is_algorithm_of, is_certifiable, read_canonical,
};
use crate::serial::Serial;

/// Under which conditions a certificate is presented.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// The user authorities that are trusted now.
    pub authorities: &'a [PublicKey],
    /// Those that were trusted once: their certificates are refused like a stranger's, with the
    /// reason.
    pub retired: &'a [PublicKey],
    /// The time, from the store's clock.
    pub now: OffsetDateTime,
    /// Where it comes from.
    pub from: IpAddr,
}

/// A person whose certificate holds in every respect. Only [`verify`] makes one; that she also holds the
/// certified key is for the SSH layer to know, which asks only after it has verified her signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedIdentity {
    user: UserName,
    login_key: KeyFingerprint,
    credential: Credential,
}

impl VerifiedIdentity {
    /// Who.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// What the certificate says.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// The identity that decisions take.
    pub fn into_identity(self) -> Identity {
        Identity::from_verified_certificate(self.user, self.login_key, self.credential)
    }
}

/// Why a certificate opens nothing: for the log, and for whoever may know. On the wire it is one answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Longer than a certificate of ours can be.
    #[error("it has {found} bytes, at most {MAX_BYTES} are looked at")]
    Size {
        /// How many it has.
        found: usize,
    },
    /// Not a certificate, or bytes are left over, or it is not written in the one way there is.
    #[error("it is malformed")]
    Malformed,
    /// A host's.
    #[error("it is not a user certificate")]
    NotForUsers,
    /// Not by one of our authorities.
    #[error("it is not signed by the user CA")]
    ForeignAuthority,
    /// By one that was ours.
    #[error("it is signed by a user CA that is retired, {0}; log in again")]
    RetiredAuthority(Fingerprint),
    /// Changed after it was signed.
    #[error("its signature is wrong")]
    Signature,
    /// A key that is not certified here.
    #[error("the key in it is too weak or of a kind that is not certified")]
    Subject,
    /// Not valid yet.
    #[error("it is not valid yet")]
    NotYet,
    /// Over.
    #[error("it ended at {0}")]
    Ended(OffsetDateTime),
    /// Times that are never issued.
    #[error("its lifetime is longer than any that is issued")]
    Lifetime,
    /// Not exactly one user's.
    #[error("its principals are not exactly one user's name, equal to its key ID")]
    Principals,
    /// An option or extension is missing, unknown, or says something odd.
    #[error("an option or extension of it is missing, odd or unknown: {0}")]
    Options(String),
    /// From elsewhere than it is pinned to.
    #[error("it is pinned to another address than {0}")]
    Source(IpAddr),
    /// Genuine by its signature, but not among those that were issued: the CA key is in other hands.
    #[error("its signature is genuine, but it was never issued: serial {0}")]
    NeverIssued(u64),
    /// It was taken back.
    #[error("it is revoked: {0}")]
    Revoked(String),
}

/// Verifies the bytes of a certificate that was presented, by the whole list of REQUESTS section 5.
/// `issued` finds what is remembered of a serial number.
///
/// # Errors
/// The first reason found. [`Refused::NeverIssued`] is an alarm, whatever else may be wrong: what our authority
/// signed and we did not issue, somebody else has signed.
pub fn verify(
    blob: &[u8],
    conditions: &Conditions<'_>,
    issued: impl FnOnce(Serial) -> Option<Arc<IssuedCredential>>,
) -> Result<VerifiedIdentity, Refused> {
    let cert = read_canonical(blob).map_err(|error| match error {
        Unreadable::Size { found } => Refused::Size { found },
        Unreadable::Malformed => Refused::Malformed,
    })?;
    check_signature(&cert, conditions)?;
    let sha256: [u8; 32] = Sha256::digest(blob).into();
    let issued = Serial::new(cert.serial())
        .and_then(issued)
        .filter(|issued| issued.sha256 == sha256)
        .ok_or(Refused::NeverIssued(cert.serial()))?;
    if !is_certifiable(cert.public_key()) {
        return Err(Refused::Subject);
    }
    let (user, credential) = read(&cert)?;
    check_time(&cert, &credential, conditions.now)?;
    let here = conditions.from.to_canonical();
    if credential
        .claims
        .pinned
        .is_some_and(|pinned| pinned != here)
    {
        return Err(Refused::Source(here));
    }
    if issued.user != user {
        return Err(Refused::Principals);
    }
    match &issued.revoked {
        Some(why) => Err(Refused::Revoked(why.clone())),
        None => Ok(VerifiedIdentity {
            user,
            login_key: issued.login_key.clone(),
            credential,
        }),
    }
}

fn check_signature(cert: &Wire, conditions: &Conditions<'_>) -> Result<(), Refused> {
    if cert.cert_type() != CertType::User {
        return Err(Refused::NotForUsers);
    }
    // Equality of keys: an authority that is itself certified is another blob, and equal to none.
    let by = cert.signature_key();
    let is_one_of = |known: &[PublicKey]| known.iter().any(|known| known.key_data() == by);
    if !is_one_of(conditions.authorities) || is_one_of(conditions.retired) {
        return Err(match is_one_of(conditions.retired) {
            true => Refused::RetiredAuthority(by.fingerprint(HashAlg::Sha256)),
            false => Refused::ForeignAuthority,
        });
    }
    if !is_algorithm_of(by, cert.signature()) {
        return Err(Refused::Signature);
    }
    cert.verify_signature().map_err(|_| Refused::Signature)
}

/// Half-open: valid at its beginning, over at its end.
fn check_time(cert: &Wire, credential: &Credential, now: OffsetDateTime) -> Result<(), Refused> {
    let from = from_seconds(cert.valid_after()).ok_or(Refused::NotYet)?;
    let until = credential.valid_before;
    if until - from > Class::Identity.max_lifetime() || credential.claims.session_ends < until {
        return Err(Refused::Lifetime);
    }
    if now < from {
        return Err(Refused::NotYet);
    }
    if now >= until {
        return Err(Refused::Ended(until));
    }
    Ok(())
}

fn read(cert: &Wire) -> Result<(UserName, Credential), Refused> {
    let [principal] = cert.valid_principals() else {
        return Err(Refused::Principals);
    };
    let user = UserName::parse(principal).map_err(|_| Refused::Principals)?;
    if user.as_str() != principal || cert.key_id() != principal {
        return Err(Refused::Principals);
    }
    let claims = claims::read(cert).map_err(Refused::Options)?;
    let key = PublicKey::from(cert.public_key().clone());
    let subject = key.to_openssh().map_err(|_| Refused::Subject)?;
    let key = KeyFingerprint::parse(&crate::key::fingerprint(&key).to_string())
        .map_err(|_| Refused::Subject)?;
    let credential = Credential {
        serial: cert.serial(),
        subject,
        key,
        valid_before: from_seconds(cert.valid_before()).ok_or(Refused::Lifetime)?,
        claims,
        permits: claims::permits(cert),
    };
    Ok((user, credential))
}
