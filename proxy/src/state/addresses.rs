//! From where registered nodes may come, beside the addresses that they are registered by: reviews and
//! administration from there may be a hostile node's use of an agent that was forwarded to it.
//!
//! A node registered by a host name comes from whatever the name means. What it was seen to mean is kept in
//! memory and compared as addresses; looking names up is for others, here nothing waits.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anteroom_core::id::NodeId;
use anteroom_core::node::Node;
use anteroom_core::view::View;
use time::{Duration, OffsetDateTime};

use super::FromNode;

/// How long an address counts after the name last meant it: a name that means several by turns means
/// all of them, and one that was moved means the old address no more the day after.
const REMEMBERED: Duration = Duration::days(1);

/// The most addresses of one name. Names that mean more by turns (as those of large services do) are no
/// servers' names.
const MOST_OF_A_NAME: usize = 64;

/// Addresses that are remembered after a tunnel from there was closed. A node that roams leaves many; the oldest
/// makes room.
const MOST_LEFT: usize = 16_384;

/// The addresses of nodes that are registered by name, and those that an operator named.
#[derive(Debug, Default)]
pub struct NodeAddresses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When each name was last seen to mean an address.
    of: HashMap<String, HashMap<IpAddr, OffsetDateTime>>,
    names_at: HashMap<IpAddr, BTreeSet<String>>,
    by_the_operator: BTreeSet<IpAddr>,
    /// From where nodes are connected by themselves now. Bounded by the tunnels there are.
    tunnels: HashMap<IpAddr, Vec<NodeId>>,
    /// From where they were connected, and until when: as long as the address that a name meant.
    left: HashMap<IpAddr, (NodeId, OffsetDateTime)>,
    /// Where people and such nodes are, as the operator says.
    shared: BTreeSet<IpAddr>,
}

impl NodeAddresses {
    /// The name was seen to mean these addresses.
    pub fn seen(
        &self,
        name: &str,
        addresses: impl IntoIterator<Item = IpAddr>,
        now: OffsetDateTime,
    ) {
        // An address that a node is registered by is compared as such.
        if name.parse::<IpAddr>().is_ok() {
            return;
        }
        let mut known = self.known();
        let of = known.of.entry(name.to_owned()).or_default();
        let before: BTreeSet<IpAddr> = of.keys().copied().collect();
        of.extend(addresses.into_iter().map(|ip| (ip.to_canonical(), now)));
        of.retain(|_, seen| now - *seen <= REMEMBERED);
        while of.len() > MOST_OF_A_NAME {
            let oldest = of.iter().min_by_key(|(ip, seen)| (**seen, **ip));
            let Some(oldest) = oldest.map(|(ip, _)| *ip) else {
                break;
            };
            of.remove(&oldest);
        }
        // At most dials nothing is new.
        if of.keys().copied().collect::<BTreeSet<_>>() != before {
            known.index();
        }
    }

    /// Forgets names that `is_registered` says no node has any more.
    pub fn retain(&self, is_registered: impl Fn(&str) -> bool) {
        let mut known = self.known();
        known.of.retain(|name, _| is_registered(name));
        known.index();
    }

    /// Whether nothing is known of this name yet.
    #[must_use]
    pub fn is_new(&self, name: &str) -> bool {
        !self.known().of.contains_key(name)
    }

    /// The further addresses that the operator says nodes come from (`node_addresses`).
    pub fn name(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses = addresses.into_iter().map(|ip| ip.to_canonical());
        self.known().by_the_operator = addresses.collect();
    }

    /// The addresses that people share with nodes, as the operator says (`shared_addresses`).
    pub fn share(&self, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses = addresses.into_iter().map(|ip| ip.to_canonical());
        self.known().shared = addresses.collect();
    }

    /// Whether people share that address with nodes.
    #[must_use]
    pub fn is_shared(&self, address: IpAddr) -> bool {
        self.known().shared.contains(&address.to_canonical())
    }

    /// A node is connected from there, until [`tunnel_closed`](Self::tunnel_closed) is said as often.
    pub fn tunnel_opened(&self, from: IpAddr, node: NodeId) {
        let mut known = self.known();
        known
            .tunnels
            .entry(from.to_canonical())
            .or_default()
            .push(node);
    }

    /// It is connected from there no more; the address counts for a day.
    pub fn tunnel_closed(&self, from: IpAddr, node: NodeId, now: OffsetDateTime) {
        let mut known = self.known();
        let from = from.to_canonical();
        known.left.retain(|_, (_, at)| now - *at <= REMEMBERED);
        if known.left.len() >= MOST_LEFT {
            let oldest = known.left.iter().min_by_key(|(ip, (_, at))| (*at, **ip));
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                known.left.remove(&oldest);
            }
        }
        known.left.insert(from, (node, now));
        if let Some(nodes) = known.tunnels.get_mut(&from) {
            if let Some(place) = nodes.iter().position(|other| *other == node) {
                nodes.swap_remove(place);
            }
            if nodes.is_empty() {
                known.tunnels.remove(&from);
            }
        }
    }

    /// Refuses what comes from a registered node, loopback aside.
    pub(super) fn refuse(&self, view: &View, from: Option<SocketAddr>) -> Result<(), FromNode> {
        let from = from.map(|from| from.ip().to_canonical());
        let Some(ip) = from.filter(|ip| !ip.is_loopback()) else {
            return Ok(());
        };
        let known = self.known();
        if known.by_the_operator.contains(&ip) {
            let node = ip.to_string();
            return Err(FromNode::Registered { node });
        }
        // The operator's word about people wins over addresses that machines gave themselves.
        if known.shared.contains(&ip) {
            return Ok(());
        }
        if let Some(node) = view.nodes_at(&ip.to_string()).next() {
            let node = node.name.to_string();
            return Err(FromNode::Registered { node });
        }
        let names = known.names_at.get(&ip).into_iter().flatten();
        for name in names {
            if let Some(node) = view.nodes_at(name).next() {
                let node = node.name.to_string();
                return Err(FromNode::Registered { node });
            }
        }
        let now_there = known.tunnels.get(&ip).and_then(|nodes| nodes.first());
        let there = now_there.or_else(|| {
            let (node, _) = known.left.get(&ip)?;
            // One that was removed, or is dialled by now, comes from there no more.
            let by_tunnel = |node: &&Arc<Node>| node.addr.dialled().is_none();
            view.node(node).filter(by_tunnel).map(|known| &known.id)
        });
        match there {
            Some(node) => {
                let name = view.node(node).map(|node| node.name.to_string());
                Err(FromNode::Tunnel {
                    node: name.unwrap_or_else(|| node.to_string()),
                    address: ip,
                })
            }
            None => Ok(()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is in it is replaced whole: a panic leaves nothing half done that would be unsafe.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Works out the way back. Names are seen seldom, and asked for at every act.
    fn index(&mut self) {
        self.names_at.clear();
        for (name, addresses) in &self.of {
            for ip in addresses.keys() {
                self.names_at.entry(*ip).or_default().insert(name.clone());
            }
        }
    }
}
