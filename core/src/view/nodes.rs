//! The nodes of a view, found by what they are asked for.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use uuid::Uuid;

use crate::id::{NodeId, NodeName};
use crate::node::{Node, same_host, source_network};

#[derive(Debug, Clone, Default)]
pub(super) struct Nodes {
    pub(super) by_id: OrdMap<NodeId, Arc<Node>>,
    // Also the order in which every listing shows them, so that none has to sort.
    pub(super) by_name: OrdMap<(NodeName, NodeId), Arc<Node>>,
    // By the hash of what is looked for, which is compared afterwards: a key is long.
    by_host: OrdSet<(u64, NodeId)>,
    by_host_key: OrdSet<(u64, NodeId)>,
}

impl Nodes {
    pub(super) fn insert(&mut self, node: Node) {
        self.remove(&node.id);
        if let Some(host) = node.addr.host() {
            self.by_host.insert((host_hash(host), node.id));
        }
        for key in node.pinned_keys() {
            self.by_host_key.insert((hash(key), node.id));
        }
        let node = Arc::new(node);
        self.by_name
            .insert((node.name.clone(), node.id), Arc::clone(&node));
        self.by_id.insert(node.id, node);
    }

    pub(super) fn remove(&mut self, id: &NodeId) {
        let Some(old) = self.by_id.remove(id) else {
            return;
        };
        self.by_name.remove(&(old.name.clone(), *id));
        if let Some(host) = old.addr.host() {
            self.by_host.remove(&(host_hash(host), *id));
        }
        for key in old.pinned_keys() {
            self.by_host_key.remove(&(hash(key), *id));
        }
    }

    pub(super) fn at<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Arc<Node>> {
        self.hashed(&self.by_host, host_hash(host))
            .filter(move |node| node.addr.host().is_some_and(|own| same_host(own, host)))
    }

    /// Those at an address of the same [`source_network`].
    pub(super) fn around(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Node>> {
        let network = source_network(address);
        self.hashed(&self.by_host, hash(network))
            .filter(move |node| {
                let own = node.addr.host().and_then(|own| own.parse().ok());
                own.is_some_and(|own: IpAddr| source_network(own) == network)
            })
    }

    pub(super) fn with_host_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Arc<Node>> {
        self.hashed(&self.by_host_key, hash(key))
            .filter(move |node| node.pinned_keys().any(|own| own == key))
    }

    fn hashed<'a>(
        &'a self,
        index: &'a OrdSet<(u64, NodeId)>,
        hash: u64,
    ) -> impl Iterator<Item = &'a Arc<Node>> {
        let first = (hash, NodeId::from_uuid(Uuid::nil()));
        let last = (hash, NodeId::from_uuid(Uuid::max()));
        let found = index.range(first..=last);
        found.filter_map(|(_, id)| self.by_id.get(id))
    }
}

/// The same for every spelling of one address, and for all of one network.
fn host_hash(host: &str) -> u64 {
    match host.parse::<IpAddr>() {
        Ok(address) => hash(source_network(address)),
        Err(_) => hash(host),
    }
}

/// The same in every process, and of no use to a person who would choose what collides: what is
/// found is compared.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
