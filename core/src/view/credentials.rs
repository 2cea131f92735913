//! The identity certificates of a view that may still be valid, and the second factors of its users.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::credential::IssuedCredential;
use crate::id::{KeyFingerprint, UserName};
use crate::mfa::SecondFactors;

use super::View;

#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    pub(super) by_serial: OrdMap<u64, Arc<IssuedCredential>>,
    pub(super) of: OrdSet<(UserName, u64)>,
    pub(super) certified: OrdSet<(KeyFingerprint, u64)>,
}

impl View {
    /// The identity certificate of that serial number, if one was issued that may still be valid.
    #[must_use]
    pub fn credential(&self, serial: u64) -> Option<&Arc<IssuedCredential>> {
        self.credentials.by_serial.get(&serial)
    }

    /// All identity certificates that may still be valid, in no order.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<IssuedCredential>> {
        self.credentials.by_serial.values()
    }

    /// Those of them that are this user's, in no order.
    pub fn credentials_of(
        &self,
        user: &UserName,
    ) -> impl Iterator<Item = &Arc<IssuedCredential>> + use<'_> {
        self.credentials
            .of
            .range((user.clone(), 0)..=(user.clone(), u64::MAX))
            .filter_map(|(_, serial)| self.credential(*serial))
    }

    /// Whose a key is that is registered nowhere, but certified: one that was made for an agent.
    #[must_use]
    pub fn user_by_certified_key(&self, key: &KeyFingerprint) -> Option<&UserName> {
        let range = (key.clone(), 0)..=(key.clone(), u64::MAX);
        let (_, serial) = self.credentials.certified.range(range).next()?;
        self.credential(*serial).map(|issued| &issued.user)
    }

    /// Adds or replaces what is remembered of identity certificates.
    #[must_use]
    pub fn with_credentials(
        mut self,
        credentials: impl IntoIterator<Item = IssuedCredential>,
    ) -> Self {
        for issued in credentials {
            self = self.without_credential(issued.serial);
            let Credentials {
                by_serial,
                of,
                certified,
            } = &mut self.credentials;
            of.insert((issued.user.clone(), issued.serial));
            certified.insert((issued.subject.clone(), issued.serial));
            by_serial.insert(issued.serial, Arc::new(issued));
        }
        self
    }

    /// Forgets an identity certificate, which counts for nothing from then on.
    #[must_use]
    pub fn without_credential(mut self, serial: u64) -> Self {
        let Credentials {
            by_serial,
            of,
            certified,
        } = &mut self.credentials;
        if let Some(known) = by_serial.remove(&serial) {
            of.remove(&(known.user.clone(), serial));
            certified.remove(&(known.subject.clone(), serial));
        }
        self
    }

    /// The devices of the user, and what was guessed wrong; `None` where there is neither.
    #[must_use]
    pub fn second_factors(&self, user: &UserName) -> Option<&Arc<SecondFactors>> {
        self.second_factors.get(user)
    }

    /// Replaces what is remembered of second factors, of these users.
    #[must_use]
    pub fn with_second_factors(
        mut self,
        known: impl IntoIterator<Item = (UserName, SecondFactors)>,
    ) -> Self {
        for (user, factors) in known {
            if factors == SecondFactors::default() {
                self.second_factors.remove(&user);
            } else {
                self.second_factors.insert(user, Arc::new(factors));
            }
        }
        self
    }
}
