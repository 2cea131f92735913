//! Whether a proxy is the one that was meant: asked before anything is sent to it.

use std::sync::{Arc, Mutex, PoisonError};

use anteroom_ca::host::{self, HostExpectation, HostRefused, PresentedHost};
use anteroom_ca::key::fingerprint;
use anteroom_ssh::{HostAlgorithms, HostProof};
use ssh_key::{Fingerprint, PublicKey};
use time::OffsetDateTime;

/// How a proxy is known. Nothing is trusted because it was seen first.
#[derive(Debug, Clone)]
pub enum Known {
    /// By its host key, as a line of OpenSSH's format.
    Key(PublicKey),
    /// By the fingerprint of its host key.
    Fingerprint(Fingerprint),
    /// By a certificate of one of these authorities for this name.
    Authority {
        /// The host CAs.
        trusted: Vec<PublicKey>,
        /// The name.
        name: String,
    },
    /// By either of two.
    Either(Box<Known>, Box<Known>),
}

/// What a proxy has shown, and why it was refused if it was.
#[derive(Debug, Clone, Default)]
pub struct Shown(Arc<Mutex<Seen>>);

#[derive(Debug, Clone, Default)]
struct Seen {
    key: Option<PublicKey>,
    by_authority: bool,
    refusal: Option<String>,
}

impl Shown {
    fn with<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The host key that the proxy holds.
    pub fn key(&self) -> Option<PublicKey> {
        self.with(|seen| seen.key.clone())
    }

    /// Whether an authority vouched for it.
    pub fn by_authority(&self) -> bool {
        self.with(|seen| seen.by_authority)
    }

    /// Why it was refused.
    pub fn refusal(&self) -> Option<String> {
        self.with(|seen| seen.refusal.clone())
    }
}

impl Known {
    /// Which kinds of host key to ask for.
    pub fn algorithms(&self) -> HostAlgorithms {
        match self {
            Known::Key(key) => HostAlgorithms::Pinned(vec![key.algorithm()]),
            Known::Fingerprint(_) | Known::Authority { .. } | Known::Either(..) => {
                HostAlgorithms::CertificatesFirst
            }
        }
    }

    /// The check to connect with, and where it writes down what it saw.
    pub fn check(self) -> (impl FnMut(&HostProof) -> bool + Send + 'static, Shown) {
        let shown = Shown::default();
        let noted = shown.clone();
        let check = move |proof: &HostProof| {
            let verdict = self.verify(proof, OffsetDateTime::now_utc());
            noted.with(|seen| {
                seen.key = Some(key_of(proof));
                seen.by_authority = matches!(verdict, Ok(By::Authority));
                seen.refusal = verdict.as_ref().err().cloned();
            });
            verdict.is_ok()
        };
        (check, shown)
    }

    fn verify(&self, proof: &HostProof, now: OffsetDateTime) -> Result<By, String> {
        let shown = match proof {
            HostProof::Key(key) => PresentedHost::Key(key),
            HostProof::Certificate(certificate) => PresentedHost::Certificate(certificate),
        };
        let found = fingerprint(&key_of(proof));
        match self {
            Known::Key(key) => {
                let pinned = std::slice::from_ref(key);
                host::verify(shown, HostExpectation::Pinned(pinned))
                    .map(|()| By::Key)
                    .map_err(|_| another(&found, &fingerprint(key)))
            }
            Known::Fingerprint(wanted) if *wanted == found => Ok(By::Key),
            Known::Fingerprint(wanted) => Err(another(&found, wanted)),
            Known::Authority { trusted, name } => {
                let expected = HostExpectation::Named { trusted, name, now };
                host::verify(shown, expected)
                    .map(|()| By::Authority)
                    .map_err(|refused: HostRefused| refused.to_string())
            }
            Known::Either(first, second) => {
                let refused = match first.verify(proof, now) {
                    Ok(by) => return Ok(by),
                    Err(refused) => refused,
                };
                second
                    .verify(proof, now)
                    .map_err(|also| format!("{refused}; and {also}"))
            }
        }
    }
}

enum By {
    Key,
    Authority,
}

fn another(found: &Fingerprint, wanted: &Fingerprint) -> String {
    format!("the proxy shows the host key {found}, and {wanted} is expected")
}

fn key_of(proof: &HostProof) -> PublicKey {
    match proof {
        HostProof::Key(key) => key.clone(),
        HostProof::Certificate(certificate) => PublicKey::from(certificate.public_key().clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::{NODE, certificate, key};

    fn passes(known: Known, proof: &HostProof) -> (bool, Shown) {
        let (mut check, shown) = known.check();
        (check(proof), shown)
    }

    #[test]
    fn a_proxy_is_known_by_key_fingerprint_or_certificate_and_another_is_refused() {
        let (own, other) = (key(4).public_key().clone(), key(9).public_key().clone());
        let plain = HostProof::Key(own.clone());
        let signed = certificate(&own, time::Duration::days(7));
        let signed = HostProof::Certificate(Box::new(signed));
        let by_key = Known::Key(own.clone());
        let by_ca = |byte, name: &str| Known::Authority {
            trusted: vec![key(byte).public_key().clone()],
            name: name.to_owned(),
        };
        for proof in [&plain, &signed] {
            assert!(passes(by_key.clone(), proof).0);
            assert!(passes(Known::Fingerprint(fingerprint(&own)), proof).0);
            assert!(!passes(Known::Key(other.clone()), proof).0);
            let (taken, shown) = passes(Known::Fingerprint(fingerprint(&other)), proof);
            assert!(!taken);
            let why = shown.refusal().unwrap();
            assert!(why.contains(&fingerprint(&own).to_string()), "{why}");
        }
        let (taken, shown) = passes(by_ca(1, NODE), &signed);
        assert!(taken && shown.by_authority() && shown.key() == Some(own.clone()));
        assert!(!passes(by_ca(1, NODE), &plain).0);
        assert!(!passes(by_ca(2, NODE), &signed).0);
        assert!(!passes(by_ca(1, "other"), &signed).0);
        let either = Known::Either(Box::new(by_ca(2, NODE)), Box::new(by_key));
        let (taken, shown) = passes(either, &signed);
        assert!(taken && !shown.by_authority());
    }
}
