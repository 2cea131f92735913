//! Who this node is, and whom it trusts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use anteroom_core::id::NodeId;
use anteroom_core::node::NodeAddr;
use serde::{Deserialize, Serialize};
use ssh_key::{Certificate, LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use crate::krl::{Krl, KrlError};

/// A node that has joined. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    /// What the proxies know it by.
    pub node_id: NodeId,
    /// What people call it.
    pub name: String,
    /// The cluster, whose name is in its proxies' host certificates.
    pub cluster: String,
    /// Where the proxies are; the agent keeps a tunnel to each.
    pub proxies: Vec<Proxy>,
    /// The node's own key: it proves the node to the proxy, and to whoever has a session on it.
    pub host_key: Arc<PrivateKey>,
    /// A key that is to take its place, and whose certificate has not come yet.
    pub next_key: Option<Arc<PrivateKey>>,
    /// The certificate for the key.
    pub host_certificate: Certificate,
    /// Who signs for sessions. Never empty.
    pub node_ca: Vec<PublicKey>,
    /// Who signs for proxies. Never empty.
    pub host_ca: Vec<PublicKey>,
    /// What is revoked.
    pub krl: Krl,
    /// Labels that were given at the join.
    pub labels: BTreeMap<String, String>,
}

/// A proxy of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Where it is.
    pub addr: NodeAddr,
    /// The host key by which it was known at the join, for as long as it has that one.
    pub key: Option<PublicKey>,
}

/// Why an identity is not one.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not what was written.
    #[error("it is damaged: {0}")]
    Json(#[from] serde_json::Error),
    /// A key that is none.
    #[error("a key in it cannot be read or written")]
    Key,
    /// Nobody would be trusted.
    #[error("it names no authority")]
    NoAuthority,
    /// The address of a proxy.
    #[error("it names no proxy that could be reached")]
    NoProxy,
    /// The UUID.
    #[error("the node's UUID is wrong")]
    NodeId,
    /// The revocation list.
    #[error(transparent)]
    Krl(#[from] KrlError),
}

/// How it stands in the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    node_id: NodeId,
    name: String,
    cluster: String,
    proxies: Vec<StoredProxy>,
    host_key: Zeroizing<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next_key: Option<Zeroizing<String>>,
    host_certificate: String,
    node_ca: Vec<String>,
    host_ca: Vec<String>,
    krl: String,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredProxy {
    addr: NodeAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

impl TryFrom<Stored> for Identity {
    type Error = IdentityError;

    fn try_from(stored: Stored) -> Result<Identity, IdentityError> {
        let key = |text: Zeroizing<String>| {
            let key = PrivateKey::from_openssh(text.as_bytes());
            key.map(Arc::new).map_err(|_| IdentityError::Key)
        };
        let proxy = |proxy: StoredProxy| {
            let key = proxy.key.as_deref().map(PublicKey::from_openssh);
            Ok(Proxy {
                addr: proxy.addr,
                key: key.transpose().map_err(|_| IdentityError::Key)?,
            })
        };
        let proxies = stored.proxies.into_iter().map(proxy);
        let proxies = proxies.collect::<Result<Vec<_>, IdentityError>>()?;
        if proxies.is_empty() || proxies.iter().any(|proxy| proxy.addr.dialled().is_none()) {
            return Err(IdentityError::NoProxy);
        }
        let certificate = Certificate::from_openssh(&stored.host_certificate);
        Ok(Identity {
            node_id: stored.node_id,
            name: stored.name,
            cluster: stored.cluster,
            proxies,
            host_key: key(stored.host_key)?,
            next_key: stored.next_key.map(key).transpose()?,
            host_certificate: certificate.map_err(|_| IdentityError::Key)?,
            node_ca: authorities(&stored.node_ca)?,
            host_ca: authorities(&stored.host_ca)?,
            krl: Krl::parse(&stored.krl)?,
            labels: stored.labels,
        })
    }
}

impl TryFrom<&Identity> for Stored {
    type Error = IdentityError;

    fn try_from(identity: &Identity) -> Result<Stored, IdentityError> {
        let line = |key: &PublicKey| key.to_openssh().map_err(|_| IdentityError::Key);
        let lines = |keys: &[PublicKey]| keys.iter().map(line).collect::<Result<Vec<_>, _>>();
        let private = |key: &Arc<PrivateKey>| {
            let text = key.to_openssh(LineEnding::LF);
            text.map_err(|_| IdentityError::Key)
        };
        let proxy = |proxy: &Proxy| {
            let key = proxy.key.as_ref().map(line).transpose()?;
            let addr = proxy.addr.clone();
            Ok(StoredProxy { addr, key })
        };
        let certificate = identity.host_certificate.to_openssh();
        Ok(Stored {
            node_id: identity.node_id,
            name: identity.name.clone(),
            cluster: identity.cluster.clone(),
            proxies: (identity.proxies.iter().map(proxy))
                .collect::<Result<Vec<_>, IdentityError>>()?,
            host_key: private(&identity.host_key)?,
            next_key: identity.next_key.as_ref().map(private).transpose()?,
            host_certificate: certificate.map_err(|_| IdentityError::Key)?,
            node_ca: lines(&identity.node_ca)?,
            host_ca: lines(&identity.host_ca)?,
            krl: identity.krl.as_base64().to_owned(),
            labels: identity.labels.clone(),
        })
    }
}

/// Reads authorities, each an OpenSSH line. An empty list is nobody, and refused.
///
/// # Errors
/// [`IdentityError::NoAuthority`], [`IdentityError::Key`].
pub fn authorities(lines: &[String]) -> Result<Vec<PublicKey>, IdentityError> {
    if lines.is_empty() {
        return Err(IdentityError::NoAuthority);
    }
    let keys = lines.iter().map(|line| PublicKey::from_openssh(line));
    keys.collect::<Result<_, _>>()
        .map_err(|_| IdentityError::Key)
}

impl Identity {
    /// The user name that the proxy knows the node by.
    #[must_use]
    pub fn user(&self) -> String {
        format!("node+{}", self.node_id)
    }
}

/// Without the keys' private halves.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.node_id)
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        let next = |identity: &Identity| identity.next_key.as_ref().map(|k| k.public_key().clone());
        let own = (self.node_id, &self.name, &self.cluster, &self.proxies);
        own == (other.node_id, &other.name, &other.cluster, &other.proxies)
            && self.host_key.public_key() == other.host_key.public_key()
            && next(self) == next(other)
            && self.host_certificate == other.host_certificate
            && (&self.node_ca, &self.host_ca) == (&other.node_ca, &other.host_ca)
            && (&self.krl, &self.labels) == (&other.krl, &other.labels)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use anteroom_ca::key::{HostCa, Key};
    use anteroom_ca::{IssueTime, Serial};
    use time::OffsetDateTime;

    use super::*;

    pub(crate) fn key(byte: u8) -> Key {
        Key::from_seed("", &[byte; 32])
    }

    pub(crate) const NODE: &str = "b1168402-9340-421a-a344-af66a6675738";

    /// A host certificate for the node, by the authority 1.
    pub(crate) fn certificate(of: &PublicKey, lifetime: time::Duration) -> Certificate {
        let terms = anteroom_ca::host::HostTerms {
            serial: Serial::new(5).unwrap(),
            lifetime,
            at: IssueTime::new(OffsetDateTime::now_utc(), None).unwrap(),
        };
        let node = NodeId::parse(NODE).unwrap();
        let (ca, mut rng) = (HostCa::new(key(1)), rand::rng());
        let made = anteroom_ca::host::certify_node(&node, &[], of, terms, &ca, &mut rng);
        made.unwrap().into_ssh()
    }

    pub(crate) fn identity() -> Identity {
        let host_key = key(3).private_key().clone();
        Identity {
            node_id: NodeId::parse(NODE).unwrap(),
            name: "iot".to_owned(),
            cluster: "lab".to_owned(),
            proxies: vec![Proxy {
                addr: NodeAddr::parse("127.0.0.1:1").unwrap(),
                key: Some(key(4).public_key().clone()),
            }],
            host_certificate: certificate(host_key.public_key(), time::Duration::days(7)),
            host_key: Arc::new(host_key),
            next_key: Some(Arc::new(key(5).private_key().clone())),
            node_ca: vec![key(2).public_key().clone()],
            host_ca: vec![key(1).public_key().clone()],
            krl: Krl::parse(&crate::krl::tests::list(3)).unwrap(),
            labels: [("env".to_owned(), "staging".to_owned())].into(),
        }
    }

    #[test]
    fn private_keys_are_not_shown() {
        let shown = format!("{:?}", identity());
        assert!(
            shown.contains(NODE) && !shown.contains("PRIVATE"),
            "{shown}"
        );
    }

    #[test]
    fn an_empty_set_of_authorities_is_refused() {
        assert!(matches!(authorities(&[]), Err(IdentityError::NoAuthority)));
        let mut identity = identity();
        identity.host_ca.clear();
        let stored = Stored::try_from(&identity).unwrap();
        let refused = Identity::try_from(stored).unwrap_err();
        assert!(matches!(refused, IdentityError::NoAuthority));
    }
}
