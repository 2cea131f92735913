//! What a node does by itself, through the connection that it keeps: labels that it says, and its host
//! certificate. Whoever asks has proven a host key of the node on that connection; whether it is still one is
//! asked in the transaction.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_ca::Certificate;
use anteroom_ca::authority::ToSign;
use anteroom_ca::host::certify_node;
use anteroom_ca::key::HostCa;
use anteroom_ca::names::AdmittedName;
use anteroom_core::id::{KeyFingerprint, NodeId};
use anteroom_core::node::{HostProof, Node};
use anteroom_core::view::View;
use rand::rngs::StdRng;
use ssh_key::PublicKey;
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::certificates::issue_host;
use super::draft::Draft;
use super::signing::{Ticket, Wants};
use super::{IssueError, State, rfc3339};
use crate::audit::{Entry, Event, PROXY};
use crate::authority::Unavailable;
use crate::store::{HostRevocation, StoreError};

/// How long a host certificate that a node asks for lives; its class allows no more.
pub(super) const LIFETIME: Duration = Duration::days(29);

/// A host key as the view compares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// Type and key as OpenSSH writes them, without a comment.
    pub openssh: String,
    /// Its fingerprint.
    pub fingerprint: KeyFingerprint,
}

impl HostKey {
    /// `None` for a key that cannot be written down, which no node has.
    #[must_use]
    pub fn of(key: &PublicKey) -> Option<Self> {
        let bare = PublicKey::from(key.key_data().clone());
        let fingerprint = anteroom_ca::key::fingerprint(key).to_string();
        Some(Self {
            openssh: bare.to_openssh().ok()?.trim().to_owned(),
            fingerprint: KeyFingerprint::parse(&fingerprint).ok()?,
        })
    }

    /// Whether the node proves itself by this key now, however it is reached.
    #[must_use]
    pub fn is_of(&self, view: &View, node: &NodeId, now: OffsetDateTime) -> bool {
        view.node(node)
            .is_some_and(|node| view.is_host_key_of(node, &self.openssh, &self.fingerprint, now))
    }

    /// Whether the node comes by a tunnel and proves itself by this key now.
    #[must_use]
    pub fn opens(&self, view: &View, node: &NodeId, now: OffsetDateTime) -> bool {
        let by_tunnel = |node: &Arc<Node>| node.addr.dialled().is_none();
        view.node(node).is_some_and(by_tunnel) && self.is_of(view, node, now)
    }
}

/// A node's own connection.
#[derive(Debug, Clone)]
pub struct OwnConnection {
    /// The node.
    pub node: NodeId,
    /// The host key that it has proven there.
    pub key: HostKey,
    /// From where it comes.
    pub from: SocketAddr,
}

impl OwnConnection {
    /// The node, if this is still a connection of its own.
    fn node_in<'v>(&self, view: &'v View, now: OffsetDateTime) -> Option<&'v Node> {
        let opens = self.key.opens(view, &self.node, now);
        view.node(&self.node).filter(|_| opens).map(AsRef::as_ref)
    }

    /// The node, however it is reached, if the key is still its own.
    pub(super) fn known_in<'v>(&self, view: &'v View, now: OffsetDateTime) -> Option<&'v Node> {
        let known = self.key.is_of(view, &self.node, now);
        view.node(&self.node).filter(|_| known).map(AsRef::as_ref)
    }

    fn entry(&self, event: Event, node: &Node) -> Entry {
        let entry = Entry::new(event).user(PROXY).name(&node.name);
        let entry = entry.node(&node.name).node_id(node.id);
        entry.key(&self.key.fingerprint).remote_addr(self.from)
    }
}

/// Why what a node wants is not done.
#[derive(Debug, Error)]
pub enum OwnError {
    /// It is not a connection of the node any more.
    #[error("the node is not known by this key any more")]
    Gone,
    /// The key is somebody else's.
    #[error(
        "the key {0} belongs to another node or to a user; make a key of its own for this node"
    )]
    Taken(String),
    /// There were as many certificates for the key as there are in a day.
    #[error(
        "there were {count} host certificates for this key within a day, which is the limit; the next one is to be had at {}",
        rfc3339(*.until)
    )]
    TooOften {
        /// How many.
        count: usize,
        /// When there is one again.
        until: OffsetDateTime,
    },
    /// The key cannot be written down.
    #[error("the key cannot be used as a host key")]
    Unusable,
    /// The certificate was not issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl From<StoreError> for OwnError {
    fn from(error: StoreError) -> Self {
        Self::Issue(error.into())
    }
}

impl From<Unavailable> for OwnError {
    fn from(error: Unavailable) -> Self {
        Self::Issue(error.into())
    }
}

impl Wants for OwnError {
    fn wanted(&self) -> Option<&ToSign> {
        match self {
            Self::Issue(error) => error.wanted(),
            Self::Gone | Self::Taken(_) | Self::TooOften { .. } | Self::Unusable => None,
        }
    }
}

impl State {
    /// Takes what the node says of itself, in the place of what it said before; what an operator or a token has
    /// set stays. `labels` are held to [`anteroom_core::node::said_labels`] already. Where nothing changes,
    /// nothing is written.
    ///
    /// # Errors
    /// [`OwnError`].
    pub async fn node_says(
        &self,
        own: OwnConnection,
        labels: BTreeMap<String, String>,
    ) -> Result<(), OwnError> {
        let (view, now) = (self.view(), self.now());
        let node = own.node_in(&view, now).ok_or(OwnError::Gone)?;
        if relabelled(node, &labels).is_none() {
            return Ok(());
        }
        self.write(move |draft| {
            let node = own
                .node_in(draft.view(), draft.now())
                .ok_or(OwnError::Gone)?;
            if let Some(changed) = relabelled(node, &labels) {
                let said: Vec<String> = changed
                    .said_labels
                    .iter()
                    .filter_map(|key| Some(format!("{key}={}", changed.labels.get(key)?)))
                    .collect();
                let entry = own.entry(Event::NodeUpdate, &changed);
                let entry = entry.reason("the node says its labels");
                draft.log(Entry {
                    labels: Some(said.join(",")),
                    ..entry
                });
                draft.put_node(changed);
            }
            Ok(())
        })
        .await
    }

    /// Issues the node's host certificate for `subject`: its own key, or one that takes the own key's place with
    /// the same commit. Earlier certificates for other keys of its type count no more, nor do those of the key
    /// that is replaced.
    ///
    /// # Errors
    /// [`OwnError`]; then everything is as it was.
    pub async fn renew_host_certificate(
        &self,
        own: OwnConnection,
        subject: PublicKey,
        names: Vec<AdmittedName>,
    ) -> Result<Certificate, OwnError> {
        self.write_signed(move |draft, ticket| {
            let (view, now) = (draft.view(), draft.now());
            let node = own.node_in(view, now).ok_or(OwnError::Gone)?.clone();
            let new = HostKey::of(&subject).ok_or(OwnError::Unusable)?;
            if new != own.key && is_of_another(view, &node, &new) {
                return Err(OwnError::Taken(new.fingerprint.to_string()));
            }
            certify_own(draft, ticket, &own, &node, (&subject, &new), &names)
        })
        .await
    }
}

/// Issues the certificate, and shuts out what it takes the place of.
pub(super) fn certify_own(
    draft: &mut Draft,
    ticket: &Ticket,
    own: &OwnConnection,
    node: &Node,
    (subject, new): (&PublicKey, &HostKey),
    names: &[AdmittedName],
) -> Result<Certificate, OwnError> {
    let (id, names, key) = (node.id, names.to_vec(), subject.clone());
    let certify =
        move |terms, ca: &HostCa, rng: &mut StdRng| certify_node(&id, &names, &key, terms, ca, rng);
    // A key in such an entry is one that a person proved.
    let entry = Entry {
        key: None,
        ..own.entry(Event::CertCreate, node)
    };
    let certificate = issue_host(draft, ticket, LIFETIME, Some(node.id), entry, &certify)?;
    replace(draft, own, node, subject, new);
    Ok(certificate)
}

/// The node as it would be, if that is another than it is.
fn relabelled(node: &Node, labels: &BTreeMap<String, String>) -> Option<Node> {
    let mut changed = node.clone();
    changed.say_labels(labels.clone());
    (changed != *node).then_some(changed)
}

fn is_of_another(view: &View, node: &Node, key: &HostKey) -> bool {
    let pinned = view.nodes_with_host_key(&key.openssh);
    let mut others = pinned.map(|node| node.id);
    others.any(|other| other != node.id)
        || view
            .nodes_certified_for(&key.fingerprint)
            .any(|other| other != node.id)
        || view.user_by_key(&key.fingerprint).is_some()
}

/// Puts the new key in the old one's place, and shuts out what the old one could still be used for.
fn replace(
    draft: &mut Draft,
    own: &OwnConnection,
    node: &Node,
    subject: &PublicKey,
    new: &HostKey,
) {
    let update = |why: &str| own.entry(Event::NodeUpdate, node).reason(why);
    let same_type = HostRevocation {
        node: node.id,
        but_for: vec![new.fingerprint.to_string()],
        key_type: Some(subject.algorithm().to_string()),
        why: "the node has a certificate for another key".to_owned(),
    };
    draft.revoke_hosts(same_type, update(""));
    if *new == own.key {
        return;
    }
    let old = own.key.fingerprint.as_str();
    let certified = draft.view().certified_keys_of(&node.id);
    let others = certified.filter(|key| key.as_str() != old);
    let but_for = others.map(ToString::to_string).collect();
    let replaced = HostRevocation {
        node: node.id,
        but_for,
        key_type: None,
        why: "the node has replaced the key".to_owned(),
    };
    draft.revoke_hosts(replaced, update(""));
    let why = format!(
        "the node has replaced its host key {old} by {}",
        new.fingerprint
    );
    draft.log(update(&why));
    if let HostProof::Pinned(lines) = &node.host_proof {
        let is_own = |line: &&String| {
            PublicKey::from_openssh(line)
                .ok()
                .and_then(|key| HostKey::of(&key))
                .is_some_and(|key| key == own.key)
        };
        let mut pinned: Vec<String> = lines.iter().filter(|line| !is_own(line)).cloned().collect();
        pinned.retain(|line| *line != new.openssh);
        pinned.push(new.openssh.clone());
        draft.put_node(Node {
            host_proof: HostProof::Pinned(pinned),
            ..node.clone()
        });
    }
}
