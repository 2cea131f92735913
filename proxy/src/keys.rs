//! The keys a proxy needs, found or made in its data directory.
//!
//! The node CA goes to the state, which signs inside its transactions; what stays here answers
//! handshakes: the proxy's own host key, the key of inner servers, and the host CA for both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anteroom_ca::host;
use anteroom_ca::key::{self, HostCa, Key, KeyError, NodeCa, Origin, Protection, UserCa};
use anteroom_ca::names::{AdmittedName, HostNames, HostNamesError};
use anteroom_ca::passphrase::Passphrase;
use ssh_key::{Certificate, PrivateKey, PublicKey};
use time::{Duration, OffsetDateTime};

use crate::admin::Authorities;
use crate::authority::PassphraseUnavailable;
use crate::config::Config;
use crate::state::{IssueError, State};

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
    /// Signs access certificates.
    pub node_ca: Arc<NodeCa>,
    /// Signs identity certificates.
    pub user_ca: Arc<UserCa>,
    /// What answers handshakes.
    pub hosts: HostKeys,
    /// The public halves that others trust.
    pub authorities: Authorities,
    /// Whether this was the first start.
    pub origin: Origin,
}

/// The proxy's face on the wire.
pub struct HostKeys {
    host_ca: Arc<HostCa>,
    outer: PrivateKey,
    outer_certificate: Mutex<(Certificate, OffsetDateTime)>,
    inner: PrivateKey,
    inner_certificates: Mutex<BTreeMap<AdmittedName, (Certificate, OffsetDateTime)>>,
    names: HostNames,
}

/// Why the keys could not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The passphrase of the authorities' keys is not where it should be.
    #[error(transparent)]
    Passphrase(#[from] PassphraseUnavailable),
    /// The names from the configuration.
    #[error("{0}; the cluster's name and `public_names` have to be host names")]
    Names(#[from] HostNamesError),
    /// The proxy's own certificate.
    #[error("the proxy's own host certificate: {0}")]
    Certificate(#[from] IssueError),
}

impl KeysError {
    /// Whether the configuration has to be corrected, and trying again will not help.
    pub fn is_of_the_configuration(&self) -> bool {
        match self {
            Self::Passphrase(_) | Self::Names(_) => true,
            Self::Key(error) => matches!(
                error,
                KeyError::Encrypted { .. } | KeyError::Passphrase { .. }
            ),
            Self::Certificate(_) => false,
        }
    }
}

impl Keys {
    /// Loads every key below `dir`, making those that are missing at the first start.
    ///
    /// # Errors
    /// [`KeysError`], each with what to do.
    pub async fn open(dir: &Path, config: &Config, state: &State) -> Result<Keys, KeysError> {
        let mut rng = rand::rng();
        key::create_directory(&dir.join("ca"))?;
        let cluster = config.cluster.as_str();
        let passphrase = match &config.ca_passphrase {
            Some(source) => Some(source.read(|name| std::env::var_os(name))?),
            None => None,
        };
        let mut load = |file: &str, what: &str, passphrase: Option<&Passphrase>| {
            let path = dir.join(file);
            let comment = format!("anteroom {what} {cluster}");
            let loaded = Key::load_or_create_with(&path, &comment, passphrase, &mut rng)?;
            let (key, origin, protection) = loaded;
            if passphrase.is_some() && protection == Protection::Plain {
                tracing::warn!(
                    "key file `{0}` is not encrypted, though there is a CA passphrase; run `ssh-keygen -p -f {0}`",
                    path.display()
                );
            }
            Ok::<_, KeyError>((key, origin))
        };
        let (user, origin) = load("ca/user", "user CA", passphrase.as_ref())?;
        let (node, _) = load("ca/node", "node CA", passphrase.as_ref())?;
        let (host, _) = load("ca/host", "host CA", passphrase.as_ref())?;
        // What answers handshakes is in memory all the time, and vouches for nothing by itself.
        let (outer, _) = load("host_key", "host key", None)?;
        let (inner, _) = load("inner_host_key", "inner host key", None)?;
        let authorities = Authorities {
            user: vec![user.public_key().clone()],
            node: vec![node.public_key().clone()],
            host: vec![host.public_key().clone()],
        };
        let names = HostNames::new(
            std::iter::once(cluster.to_owned()).chain(config.public_names.iter().cloned()),
            config.host_domains.iter().cloned(),
        )?;
        let host_ca = Arc::new(HostCa::new(host));
        let certificate = certify_outer(&host_ca, &names, outer.public_key(), state).await?;
        let hosts = HostKeys {
            host_ca,
            outer: outer.private_key().clone(),
            outer_certificate: Mutex::new(certificate),
            inner: inner.private_key().clone(),
            inner_certificates: Mutex::default(),
            names,
        };
        Ok(Keys {
            node_ca: Arc::new(NodeCa::new(node)),
            user_ca: Arc::new(UserCa::new(user)),
            hosts,
            authorities,
            origin,
        })
    }
}

impl HostKeys {
    /// The proxy's host key and its certificate.
    pub fn outer(&self) -> (PrivateKey, Certificate) {
        (self.outer.clone(), self.outer_certificate().0.clone())
    }

    /// Makes the proxy another certificate if its own has little time left. Connections that exist
    /// have verified the old one; new ones are shown the new one.
    ///
    /// # Errors
    /// [`IssueError`]: the old one stays, and it is to be tried again.
    pub async fn renew_outer(&self, state: &State) -> Result<(), IssueError> {
        let ends = self.outer_certificate().1;
        if ends - state.now() > OUTER_REST {
            return Ok(());
        }
        let renewed =
            certify_outer(&self.host_ca, &self.names, self.outer.public_key(), state).await?;
        *self.outer_certificate() = renewed;
        Ok(())
    }

    fn outer_certificate(&self) -> MutexGuard<'_, (Certificate, OffsetDateTime)> {
        self.outer_certificate
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of inner servers, with a certificate for the one name asked for; `None` if no such
    /// certificate may exist, or none can be recorded.
    pub async fn inner(&self, asked: &str, state: &State) -> Option<(PrivateKey, Certificate)> {
        let name = self.names.admit(asked).ok()?;
        if let Some(kept) = self.kept(&name, state.now()) {
            return Some((self.inner.clone(), kept));
        }
        let (ca, for_name, subject) = (
            self.host_ca.clone(),
            name.clone(),
            self.inner.public_key().clone(),
        );
        let issued = state.issue_host(INNER_LIFETIME, move |terms| {
            host::certify_inner(&for_name, &subject, terms, &ca, &mut rand::rng())
        });
        match issued.await {
            Ok(certificate) => {
                let ends = certificate.valid_before();
                let certificate = certificate.into_ssh();
                self.keep(name, certificate.clone(), ends);
                Some((self.inner.clone(), certificate))
            }
            Err(error) => {
                tracing::warn!("no host certificate for `{name}`: {error}");
                None
            }
        }
    }

    fn kept(&self, name: &AdmittedName, now: OffsetDateTime) -> Option<Certificate> {
        let kept = self
            .inner_certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (certificate, ends) = kept.get(name)?;
        (*ends - now > INNER_REST).then(|| certificate.clone())
    }

    fn keep(&self, name: AdmittedName, certificate: Certificate, ends: OffsetDateTime) {
        let mut kept = self
            .inner_certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= INNER_KEPT {
            kept.clear();
        }
        kept.insert(name, (certificate, ends));
    }

    /// The names that host certificates may carry.
    pub fn names(&self) -> &HostNames {
        &self.names
    }

    /// The authority that signs host certificates.
    pub fn authority(&self) -> Arc<HostCa> {
        Arc::clone(&self.host_ca)
    }

    /// What nodes registered with `--host-ca` have to be certified by.
    pub fn trusted(&self) -> [PublicKey; 1] {
        [self.host_ca.public_key().clone()]
    }
}

/// The proxy's own certificate, recorded, and when it ends.
async fn certify_outer(
    ca: &Arc<HostCa>,
    names: &HostNames,
    subject: &PublicKey,
    state: &State,
) -> Result<(Certificate, OffsetDateTime), IssueError> {
    let (ca, names, subject) = (ca.clone(), names.clone(), subject.clone());
    let issued = state.issue_host(OUTER_LIFETIME, move |terms| {
        host::certify_proxy(&names, &subject, terms, &ca, &mut rand::rng())
    });
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
