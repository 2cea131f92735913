//! Who somebody is proven to be: a user, the key she came with, and what limits her certificate, if she
//! came with one.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::credential::Credential;
use crate::id::{KeyFingerprint, RequestId, UserName};

use super::subject::Holder;

/// A person who has proven to hold a registered key, or the key of an identity certificate that
/// she got with one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    user: UserName,
    key: KeyFingerprint,
    credential: Option<Arc<Credential>>,
    second_factor: Option<OffsetDateTime>,
}

impl Identity {
    /// The one who proved to hold `key`. Only the SSH front calls this, after it has verified a
    /// signature by that key; nothing else is proof.
    #[must_use]
    pub fn from_proven_key(user: UserName, key: KeyFingerprint) -> Self {
        Self {
            user,
            key,
            credential: None,
            second_factor: None,
        }
    }

    /// The one who proved to hold the key of an identity certificate, which she got by a login with
    /// `key`. Only `ca::user` calls this, with a certificate that it has verified.
    #[must_use]
    pub fn from_verified_certificate(
        user: UserName,
        key: KeyFingerprint,
        credential: Credential,
    ) -> Self {
        Self {
            user,
            key,
            credential: Some(Arc::new(credential)),
            second_factor: None,
        }
    }

    /// Who.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// By which registered key; with a certificate, the key that the login was made with.
    #[must_use]
    pub fn key(&self) -> &KeyFingerprint {
        &self.key
    }

    /// The identity certificate that limits her, if she came with one.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_deref()
    }

    /// The same person, who has also proven to have a second factor, at `at`. Only the SSH front calls
    /// this, after it has verified a code of hers; nothing else is proof.
    #[must_use]
    pub fn with_second_factor(mut self, at: OffsetDateTime) -> Self {
        self.second_factor = Some(at);
        self
    }

    /// When she proved to have a second factor, if she did.
    #[must_use]
    pub fn second_factor(&self) -> Option<OffsetDateTime> {
        self.second_factor
    }

    /// The same person where she has asked for `request` and waited: what is approved to a
    /// connection counts on that connection, though the certificate that it began with does not
    /// name it. A restriction of the certificate stays, and a plain key needs nothing of this.
    #[must_use]
    pub fn having_asked(&self, request: RequestId) -> Self {
        let mut there = self.clone();
        if let Some(credential) = &mut there.credential {
            Arc::make_mut(credential).claims.requests.insert(request);
        }
        there
    }

    pub(crate) fn holder(&self) -> Holder<'_> {
        match &self.credential {
            None => Holder::Key(&self.key),
            Some(credential) => Holder::Certificate(&self.key, credential),
        }
    }
}
