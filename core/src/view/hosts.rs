//! Host certificates that were issued for nodes and count: by them a node that is known by the host CA
//! proves a key of its own when it connects by itself.

use std::sync::Arc;

use imbl::OrdMap;
use time::OffsetDateTime;

use super::View;
use crate::id::{KeyFingerprint, NodeId};
use crate::node::{HostProof, Node};

/// A host certificate of a node, issued and not revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertifiedHost {
    /// Its serial number.
    pub serial: u64,
    /// The key that it certifies.
    pub key: KeyFingerprint,
    /// The key's type, as OpenSSH names it; empty where an earlier version did not write it down.
    pub key_type: String,
    /// Until when it is valid (exclusive).
    pub valid_before: OffsetDateTime,
}

/// Certificates of one node that are remembered, the ones that end last: a node has a key of each of three
/// types, and renews a certificate long before its end.
pub const MOST_CERTIFIED: usize = 32;

#[derive(Debug, Clone, Default)]
pub(super) struct Hosts(OrdMap<NodeId, Arc<[CertifiedHost]>>);

impl Hosts {
    fn of(&self, node: &NodeId) -> &[CertifiedHost] {
        self.0.get(node).map(AsRef::as_ref).unwrap_or_default()
    }

    fn set(&mut self, node: NodeId, mut all: Vec<CertifiedHost>) {
        all.sort_by_key(|one| std::cmp::Reverse(one.valid_before));
        all.truncate(MOST_CERTIFIED);
        if all.is_empty() {
            self.0.remove(&node);
        } else {
            self.0.insert(node, all.into());
        }
    }

    pub(super) fn forget(&mut self, node: &NodeId) {
        self.0.remove(node);
    }
}

impl View {
    /// Remembers host certificates that count.
    #[must_use]
    pub fn with_certified_hosts(
        mut self,
        certified: impl IntoIterator<Item = (NodeId, CertifiedHost)>,
    ) -> Self {
        for (node, one) in certified {
            let mut all = self.hosts.of(&node).to_vec();
            all.retain(|other| other.serial != one.serial);
            all.push(one);
            self.hosts.set(node, all);
        }
        self
    }

    /// Forgets those of a node that `counts` says count no more.
    #[must_use]
    pub fn retaining_certified_hosts(
        mut self,
        node: NodeId,
        counts: impl Fn(&CertifiedHost) -> bool,
    ) -> Self {
        let all = self.hosts.of(&node).iter();
        let left = all.filter(|one| counts(one)).cloned().collect();
        self.hosts.set(node, left);
        self
    }

    /// Those of a node that count, the ones that end last first.
    #[must_use]
    pub fn certified_hosts_of(&self, node: &NodeId) -> &[CertifiedHost] {
        self.hosts.of(node)
    }

    /// The keys that host certificates of the node certify.
    pub fn certified_keys_of(&self, node: &NodeId) -> impl Iterator<Item = &KeyFingerprint> {
        self.hosts.of(node).iter().map(|one| &one.key)
    }

    /// The nodes that the key was certified for. Looks at all of them: for what is done seldom.
    pub fn nodes_certified_for<'v>(
        &'v self,
        key: &'v KeyFingerprint,
    ) -> impl Iterator<Item = NodeId> + 'v {
        let all = self.hosts.0.iter();
        all.filter(move |(_, known)| known.iter().any(|one| one.key == *key))
            .map(|(node, _)| *node)
    }

    /// Whether `key` (type and key as OpenSSH writes them, without a comment) is one that the node proves
    /// itself by now: it is pinned, or of a host certificate that was issued for the node and counts. Locks
    /// on the node, the key and the certificate shut it out.
    #[must_use]
    pub fn is_host_key_of(
        &self,
        node: &Node,
        key: &str,
        fingerprint: &KeyFingerprint,
        now: OffsetDateTime,
    ) -> bool {
        let locks = self.locks();
        if locks.on_node(&node.id, now).is_some() || locks.on_key(fingerprint, now).is_some() {
            return false;
        }
        match &node.host_proof {
            HostProof::Pinned(_) => node.pinned_keys().any(|pinned| pinned == key),
            HostProof::HostCa => self.hosts.of(&node.id).iter().any(|one| {
                one.key == *fingerprint
                    && now < one.valid_before
                    && locks.on_serial(one.serial, now).is_none()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::ClusterName;
    use crate::view::Settings;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-20 12:00 UTC);
    const KEY: &str = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn node(host_proof: HostProof) -> Node {
        Node {
            id: NodeId::parse("b1168402-9340-421a-a344-af66a6675738").unwrap(),
            name: "iot".parse().unwrap(),
            addr: "tunnel".parse().unwrap(),
            labels: Default::default(),
            said_labels: BTreeSet::new(),
            host_proof,
            egress_addresses: Vec::new(),
        }
    }

    fn certified(serial: u64, hours: i64) -> CertifiedHost {
        CertifiedHost {
            serial,
            key: KEY.parse().unwrap(),
            key_type: "ssh-ed25519".to_owned(),
            valid_before: NOW + time::Duration::hours(hours),
        }
    }

    fn view() -> View {
        View::new(ClusterName::parse("ex").unwrap(), Settings::default())
    }

    #[test]
    fn a_certified_key_is_the_nodes_until_its_certificate_ends_or_is_revoked() {
        let node = node(HostProof::HostCa);
        let is = |view: &View, now| view.is_host_key_of(&node, "x y", &KEY.parse().unwrap(), now);
        assert!(!is(&view(), NOW));
        let view = view().with_certified_hosts([(node.id, certified(7, 1))]);
        assert!(is(&view, NOW));
        assert!(!is(&view, NOW + time::Duration::hours(1)));
        let revoked = view
            .clone()
            .retaining_certified_hosts(node.id, |one| one.serial != 7);
        assert!(!is(&revoked, NOW));
        assert!(!is(
            &view.with_node(node.clone()).without_node(&node.id),
            NOW
        ));
    }

    #[test]
    fn a_pinned_node_goes_by_its_pins_alone() {
        let node = node(HostProof::Pinned(vec![
            "ssh-ed25519 AAAA comment".to_owned(),
        ]));
        let view = view().with_certified_hosts([(node.id, certified(7, 1))]);
        let is = |line| view.is_host_key_of(&node, line, &KEY.parse().unwrap(), NOW);
        assert!(is("ssh-ed25519 AAAA") && !is("ssh-ed25519 AAAB"));
    }

    #[test]
    fn renewals_without_end_are_not_remembered_without_end() {
        let id = node(HostProof::HostCa).id;
        let many = (0..1000).map(|n| (id, certified(n, i64::try_from(n).unwrap() + 1)));
        let view = view().with_certified_hosts(many);
        assert_eq!(view.hosts.of(&id).len(), MOST_CERTIFIED);
        assert_eq!(view.hosts.of(&id)[0].serial, 999);
    }
}
