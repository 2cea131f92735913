//! The three authorities, and who signs for them: a key in this process, or somebody else who is asked.
//!
//! Where the key is elsewhere (an ssh-agent, a hardware token), signing waits, and nothing here does. So a
//! certificate is made twice: the first time [`SignError::Wanted`](crate::SignError) says what is to be
//! signed; the second time the signature is there ([`Authority::elsewhere`]), and counts only for the very
//! same bytes. Who asks in between is the caller's business.

use std::cell::RefCell;
use std::fmt;

use signature::Verifier as _;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, PublicKey, Signature};
use thiserror::Error;

use crate::cert::{is_algorithm_of, is_certifiable};
use crate::key::{Key, fingerprint};

/// The authority whose access certificates every node's sshd trusts (`TrustedUserCAKeys`).
///
/// It signs through [`crate::node::certify`] only; the private key cannot be taken out again.
#[derive(Debug)]
pub struct NodeCa(Signer);

/// The authority that signs what people hold, and that proxies alone trust.
///
/// It signs through [`crate::user::certify`] only; the private key cannot be taken out again.
#[derive(Debug)]
pub struct UserCa(Signer);

/// The authority that vouches for the proxy, its inner servers and nodes (`@cert-authority`).
///
/// It signs through [`crate::host`] only; the private key cannot be taken out again.
#[derive(Debug)]
pub struct HostCa(Signer);

/// What the three authorities have in common.
pub trait Authority: fmt::Debug + Send + Sync + Sized + 'static {
    /// Makes `key` the authority.
    fn here(key: Key) -> Self;

    /// The authority whose private key is elsewhere, with a signature that was got there.
    fn elsewhere(public: PublicKey, signed: Option<Signed>) -> Self;

    /// What others are to trust.
    fn public(&self) -> &PublicKey;
}

macro_rules! authority {
    ($name:ident) => {
        impl $name {
            /// Makes `key` the authority.
            pub fn new(key: Key) -> Self {
                Self(Signer::Here(key))
            }

            /// What others are to trust.
            pub fn public_key(&self) -> &PublicKey {
                self.0.public_key()
            }

            pub(crate) fn signer(&self) -> &Signer {
                &self.0
            }
        }

        impl Authority for $name {
            fn here(key: Key) -> Self {
                Self::new(key)
            }

            fn elsewhere(public: PublicKey, signed: Option<Signed>) -> Self {
                Self(Signer::Elsewhere { public, signed })
            }

            fn public(&self) -> &PublicKey {
                self.public_key()
            }
        }
    };
}

authority!(NodeCa);
authority!(UserCa);
authority!(HostCa);

/// Who signs.
#[derive(Debug)]
pub(crate) enum Signer {
    /// The key itself.
    Here(Key),
    /// Whoever holds the key of this public half; one signature of his is here, if any.
    Elsewhere {
        public: PublicKey,
        signed: Option<Signed>,
    },
}

impl Signer {
    pub(crate) fn public_key(&self) -> &PublicKey {
        match self {
            Self::Here(key) => key.public_key(),
            Self::Elsewhere { public, .. } => public,
        }
    }
}

/// A signer for one certificate, which remembers what it could not sign.
pub(crate) struct Pen<'a> {
    signer: &'a Signer,
    wanted: RefCell<Option<Vec<u8>>>,
}

impl<'a> Pen<'a> {
    pub(crate) fn of(signer: &'a Signer) -> Self {
        Self {
            signer,
            wanted: RefCell::default(),
        }
    }

    /// What has to be signed elsewhere first.
    pub(crate) fn wanted(self) -> Option<ToSign> {
        let message = self.wanted.into_inner()?;
        Some(ToSign {
            authority: self.signer.public_key().clone(),
            message,
        })
    }
}

impl From<&Pen<'_>> for KeyData {
    fn from(pen: &Pen<'_>) -> Self {
        pen.signer.public_key().key_data().clone()
    }
}

impl signature::Signer<Signature> for Pen<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, signature::Error> {
        match self.signer {
            Signer::Here(key) => key.private_key().try_sign(message),
            Signer::Elsewhere {
                signed: Some(signed),
                ..
            } if signed.message == message => Ok(signed.signature.clone()),
            Signer::Elsewhere { .. } => {
                *self.wanted.borrow_mut() = Some(message.to_vec());
                Err(signature::Error::new())
            }
        }
    }
}

/// Bytes that an authority has to sign elsewhere before there can be a certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct ToSign {
    authority: PublicKey,
    message: Vec<u8>,
}

impl ToSign {
    /// Some bytes for `authority` to sign: to see whether its key answers at all.
    pub fn new(authority: PublicKey, message: Vec<u8>) -> Self {
        Self { authority, message }
    }

    /// Whose signature it is to be.
    pub fn authority(&self) -> &PublicKey {
        &self.authority
    }

    /// What is to be signed.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Takes the signature, if it is the authority's for these bytes.
    ///
    /// # Errors
    /// [`WrongSignature`].
    pub fn signed(self, signature: Signature) -> Result<Signed, WrongSignature> {
        let key = self.authority.key_data();
        if !is_algorithm_of(key, &signature) || key.verify(&self.message, &signature).is_err() {
            return Err(WrongSignature);
        }
        Ok(Signed {
            message: self.message,
            signature,
        })
    }
}

impl fmt::Debug for ToSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = fingerprint(&self.authority);
        write!(f, "ToSign({} bytes by {by})", self.message.len())
    }
}

/// A signature that was got elsewhere, verified, with what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    message: Vec<u8>,
    signature: Signature,
}

/// The signature is not the authority's, or not for these bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("what came back is not the signature of this key, with SHA-2 where it is an RSA key")]
pub struct WrongSignature;

/// Whether a key elsewhere can be an authority's: a kind that sshd takes signatures of, and whose
/// signatures are verified here.
///
/// # Errors
/// [`UnservedKey`] for others. Keys that want a touch for each signature (`sk-…`) are among them: their
/// signatures cannot be verified here.
pub fn check_served(public: &PublicKey) -> Result<(), UnservedKey> {
    let security_key = matches!(
        public.algorithm(),
        Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256
    );
    if is_certifiable(public.key_data()) && !security_key {
        return Ok(());
    }
    Err(UnservedKey {
        found: public.algorithm(),
    })
}

/// A key that is not used as an authority's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "a key of type {found} is not used as a certificate authority; ssh-ed25519, ecdsa-sha2-nistp256 (384, 521) and rsa of 2,048 to 8,192 bits are"
)]
pub struct UnservedKey {
    /// Its type.
    pub found: Algorithm,
}
