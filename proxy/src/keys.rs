//! The keys a proxy needs, found or made in its data directory.
//!
//! The authorities go to the state, which signs inside its transactions; what stays here answers
//! handshakes: the proxy's own host key, the key of inner servers, and their certificates.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anteroom_ca::host;
use anteroom_ca::key::{HostCa, Key, KeyError, Origin};
use anteroom_ca::names::{AdmittedName, HostNames, HostNamesError};
use anteroom_core::id::UserName;
use rand::rngs::StdRng;
use ssh_key::{Certificate, PrivateKey, PublicKey};
use time::{Duration, OffsetDateTime};

use crate::authority::{
    Authorities, AuthorityKind, Keyring, KeyringError, Record, Retired, Rotator, print,
};
use crate::config::Config;
use crate::exit::{Exit, Exits};
use crate::state::{Adopted, IssueError, State};
use crate::store::StoreError;

/// The proxy's own certificate is made anew at every start; 30 days is the longest its class allows.
const OUTER_LIFETIME: Duration = Duration::days(29);

/// While it runs, the proxy makes itself another one when its own has this much left: three weeks
/// in which the store may be unavailable before clients are shown an expired one.
const OUTER_REST: Duration = Duration::days(21);

/// An inner server's certificate is read at the key exchanges of its connection only; 59 minutes is
/// the longest its class allows.
const INNER_LIFETIME: Duration = Duration::minutes(59);

/// An inner certificate is presented again while it has this much left, so that a connection costs
/// no write to the disk.
const INNER_REST: Duration = Duration::minutes(20);

/// Names whose certificates are kept. Bounded, because users name what they ask for.
const INNER_KEPT: usize = 1024;

/// All keys of a data directory, loaded and checked.
pub struct Keys {
    /// What answers handshakes.
    pub hosts: Arc<HostKeys>,
    /// Turns the authorities, which are the state's by now.
    pub rotator: Arc<Rotator>,
    /// Whether this was the first start.
    pub origin: Origin,
}

/// What an inner server shows.
pub enum InnerFace {
    /// A key, with a certificate for the name asked for.
    Shown(Box<(PrivateKey, Certificate)>),
    /// Nothing: no such certificate may exist.
    NotOurs,
    /// Nothing: no further certificate is made for this client now.
    NotNow,
}

/// A name for which a certificate was made, and who alone is shown it; `None`: whoever asks.
type Shown = (Option<UserName>, AdmittedName);

/// The proxy's face on the wire.
pub struct HostKeys {
    outer: PrivateKey,
    outer_certificate: Mutex<(Certificate, OffsetDateTime)>,
    inner: PrivateKey,
    inner_certificates: Mutex<BTreeMap<Shown, (Certificate, OffsetDateTime)>>,
    names: HostNames,
}

/// Why the keys could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The authorities' keys.
    #[error(transparent)]
    Authorities(#[from] KeyringError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The names from the configuration.
    #[error("{0}; the cluster's name and `public_names` have to be host names")]
    Names(#[from] HostNamesError),
    /// The proxy's own certificate.
    #[error("the proxy's own host certificate: {0}")]
    Certificate(#[from] IssueError),
}

impl Exits for KeysError {
    fn exit(&self) -> Exit {
        match self {
            Self::Names(_) => Exit::Config,
            Self::Authorities(error) if error.is_of_the_configuration() => Exit::Config,
            // The agent may be there when the start is tried again.
            Self::Certificate(error) => error.exit(),
            Self::Key(error) if error.is_of_the_operators_making() => Exit::Config,
            Self::Key(_) | Self::Authorities(_) | Self::Store(_) => Exit::Failed,
        }
    }
}

impl Keys {
    /// Loads every key below `dir`, making those that are missing at the first start, and has the
    /// state sign with them.
    ///
    /// # Errors
    /// [`KeysError`], each with what to do.
    pub async fn open(dir: &Path, config: &Config, state: &State) -> Result<Keys, KeysError> {
        let mut rng = rand::rng();
        let keyring = Arc::new(Keyring::open(dir, config)?);
        let origin = adopt(&keyring, state).await?;
        let cluster = config.cluster.as_str();
        // Under the authorities' passphrase as well: nodes believe whoever shows `host_key` about which
        // authorities there are.
        let mut load = |file: &str, what: &str| {
            let comment = format!("anteroom {what} {cluster}");
            keyring.load_or_create(&dir.join(file), &comment, &mut rng)
        };
        let outer = load("host_key", "host key")?;
        let inner = load("inner_host_key", "inner host key")?;
        let names = HostNames::new(
            std::iter::once(cluster.to_owned()).chain(config.public_names.iter().cloned()),
            config.host_domains.iter().cloned(),
        )?;
        let certificate = certify_outer(&names, outer.public_key(), state).await?;
        let hosts = Arc::new(HostKeys {
            outer: outer.private_key().clone(),
            outer_certificate: Mutex::new(certificate),
            inner: inner.private_key().clone(),
            inner_certificates: Mutex::default(),
            names,
        });
        let rotator = Arc::new(Rotator::new(keyring, Arc::clone(&hosts)));
        Ok(Keys {
            hosts,
            rotator,
            origin,
        })
    }
}

/// Puts the authorities' files where the database says they belong, loads them, and hands them to the
/// state. Says whether any was made.
async fn adopt(keyring: &Keyring, state: &State) -> Result<Origin, KeysError> {
    let known = state.reader().authorities().await?;
    let mut retired = state.reader().retired_authorities().await?;
    let (mut origin, mut unrecorded) = (Origin::Loaded, Vec::new());
    let mut settle = |kind| -> Result<Record, KeysError> {
        let known = known.iter().find(|record| record.kind == kind).cloned();
        let settled = keyring.settle(kind, known, &retired, state.now())?;
        if settled.origin == Origin::Created {
            origin = Origin::Created;
        }
        if let Some(old) = &settled.replaced {
            let (old, new) = (print(old), print(&settled.record.signing));
            tracing::warn!(
                "the key file of the {kind} CA was replaced: {new} signs from now on, and {old} is retired"
            );
        }
        if settled.unrecorded {
            unrecorded.push(Adopted {
                record: settled.record.clone(),
                replaced: settled.replaced,
            });
        }
        Ok(settled.record)
    };
    let [user, node, host] = [
        settle(AuthorityKind::User)?,
        settle(AuthorityKind::Node)?,
        settle(AuthorityKind::Host)?,
    ];
    let replaced = unrecorded.iter().filter_map(|adopted| {
        Some(Retired {
            kind: adopted.record.kind,
            key: adopted.replaced.clone()?,
            at: adopted.record.since,
        })
    });
    retired.extend(replaced);
    let authorities = Authorities {
        user: keyring.authority(user)?,
        node: keyring.authority(node)?,
        host: keyring.authority(host)?,
        retired,
        agent: keyring.agent().cloned(),
    };
    state.adopt(authorities, unrecorded).await?;
    Ok(origin)
}

impl HostKeys {
    /// The proxy's own host key, by which it is known where no certificate is.
    pub fn public_key(&self) -> &PublicKey {
        self.outer.public_key()
    }

    /// The proxy's host key and its certificate.
    pub fn outer(&self) -> (PrivateKey, Certificate) {
        (self.outer.clone(), self.outer_certificate().0.clone())
    }

    /// Makes the proxy another certificate if its own has little time left, or is of another host CA
    /// than the one that signs. Connections that exist have verified the old one; new ones are shown
    /// the new one.
    ///
    /// # Errors
    /// [`IssueError`]: the old one stays, and it is to be tried again.
    pub async fn renew_outer(&self, state: &State) -> Result<(), IssueError> {
        let (certificate, ends) = self.outer_certificate().clone();
        if ends - state.now() > OUTER_REST && is_by_who_signs(&certificate, state) {
            return Ok(());
        }
        let renewed = certify_outer(&self.names, self.outer.public_key(), state).await?;
        *self.outer_certificate() = renewed;
        Ok(())
    }

    fn outer_certificate(&self) -> MutexGuard<'_, (Certificate, OffsetDateTime)> {
        self.outer_certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of inner servers, with a certificate for the one name asked for. Where there is none yet,
    /// `may_issue` says whether one is made: each is a row that stays. `whose` is who alone is shown it
    /// again: by one that somebody else had made before, a user could tell which names others use.
    ///
    /// # Errors
    /// [`IssueError`]: none can be signed or recorded now.
    pub async fn inner(
        &self,
        asked: &str,
        whose: Option<&UserName>,
        state: &State,
        may_issue: impl FnOnce() -> bool,
    ) -> Result<InnerFace, IssueError> {
        let Ok(name) = self.names.admit(asked) else {
            return Ok(InnerFace::NotOurs);
        };
        let shown = (whose.cloned(), name.clone());
        let kept = self.kept(&shown, state.now());
        if let Some(kept) = kept.filter(|kept| is_by_who_signs(kept, state)) {
            return Ok(InnerFace::Shown(Box::new((self.inner.clone(), kept))));
        }
        if !may_issue() {
            return Ok(InnerFace::NotNow);
        }
        let (for_name, subject) = (name, self.inner.public_key().clone());
        let issued = state.issue_host(
            INNER_LIFETIME,
            move |terms, ca: &HostCa, rng: &mut StdRng| {
                host::certify_inner(&for_name, &subject, terms, ca, rng)
            },
        );
        let certificate = issued.await.inspect_err(|error| {
            tracing::warn!("no host certificate for `{}`: {error}", shown.1)
        })?;
        let ends = certificate.valid_before();
        let certificate = certificate.into_ssh();
        self.keep(shown, certificate.clone(), ends);
        Ok(InnerFace::Shown(Box::new((
            self.inner.clone(),
            certificate,
        ))))
    }

    fn kept(&self, shown: &Shown, now: OffsetDateTime) -> Option<Certificate> {
        let kept = self
            .inner_certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (certificate, ends) = kept.get(shown)?;
        (*ends - now > INNER_REST).then(|| certificate.clone())
    }

    fn keep(&self, shown: Shown, certificate: Certificate, ends: OffsetDateTime) {
        let mut kept = self
            .inner_certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= INNER_KEPT {
            kept.clear();
        }
        kept.insert(shown, (certificate, ends));
    }

    /// The names that host certificates may carry.
    pub fn names(&self) -> &HostNames {
        &self.names
    }
}

impl std::fmt::Debug for HostKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostKeys").finish_non_exhaustive()
    }
}

/// Whether it is of the host CA that signs now.
fn is_by_who_signs(certificate: &Certificate, state: &State) -> bool {
    let authorities = state.authorities();
    authorities.is_some_and(|all| all.host.record.signing.key_data() == certificate.signature_key())
}

/// The proxy's own certificate, recorded, and when it ends.
async fn certify_outer(
    names: &HostNames,
    subject: &PublicKey,
    state: &State,
) -> Result<(Certificate, OffsetDateTime), IssueError> {
    let (names, subject) = (names.clone(), subject.clone());
    let issued = state.issue_host(
        OUTER_LIFETIME,
        move |terms, ca: &HostCa, rng: &mut StdRng| {
            host::certify_proxy(&names, &subject, terms, ca, rng)
        },
    );
    let certificate = issued.await?;
    let ends = certificate.valid_before();
    Ok((certificate.into_ssh(), ends))
}

/// A key for one connection to one node; it never leaves this process.
pub fn ephemeral() -> PrivateKey {
    Key::generate("", &mut rand::rng()).private_key().clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::ManualClock;

    #[tokio::test]
    async fn a_proxy_that_runs_for_months_never_shows_an_expired_certificate() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(
            time::macros::datetime!(2026-11-20 12:00 UTC),
        ));
        let config = crate::config::load(None, &Default::default(), "example.com").unwrap();
        let data = dir.path().join("data");
        let state = State::open(
            &data,
            clock.clone(),
            config.cluster.clone(),
            config.settings(),
        )
        .await
        .unwrap();
        let hosts = Keys::open(&data, &config, &state).await.unwrap().hosts;
        let first = hosts.outer().1;
        hosts.renew_outer(&state).await.unwrap();
        assert_eq!(
            hosts.outer().1.serial(),
            first.serial(),
            "not before it has to"
        );
        for _ in 0..100 {
            clock.advance(Duration::days(1));
            hosts.renew_outer(&state).await.unwrap();
            let ends = i64::try_from(hosts.outer().1.valid_before()).unwrap();
            let left = ends - state.now().unix_timestamp();
            assert!(left > Duration::days(20).whole_seconds(), "{left}");
        }
        assert_ne!(hosts.outer().1.serial(), first.serial());
        state.close().await;
    }
}
