//! From where registered nodes may come, beside the addresses that they are registered by: reviews and
//! administration from there may be a hostile node's use of an agent that was forwarded to it.
//!
//! A node registered by a host name comes from whatever the name means. What it was seen to mean is kept in
//! memory; looking names up is for others, here nothing waits.
//!
//! Addresses are compared by the network that a machine usually has ([`source_network`]): with IPv6 it comes from any
//! address of its /64.

mod presences;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anteroom_core::id::NodeId;
use anteroom_core::node::source_network;
use anteroom_core::view::View;
use ipnet::IpNet;
use time::{Duration, OffsetDateTime};

use self::presences::Presences;
use super::FromNode;
use crate::store::NodeSource;

/// How long an address counts after the name last meant it: a name that means several by turns means
/// all of them, and one that was moved means the old address no more the day after.
const REMEMBERED: Duration = Duration::days(1);

/// The most addresses of one name. Names that mean more by turns (as those of large services do) are no
/// servers' names.
const MOST_OF_A_NAME: usize = 64;

/// The addresses of nodes that are registered by name or connected by themselves, and those that an operator named.
#[derive(Debug, Default)]
pub struct NodeAddresses(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// When each name was last seen to mean an address.
    of: HashMap<String, HashMap<IpAddr, OffsetDateTime>>,
    /// The names behind each network.
    names_at: HashMap<IpAddr, BTreeSet<String>>,
    by_the_operator: Vec<IpNet>,
    /// From where nodes are connected by themselves, or were.
    tunnels: Presences,
    /// Where people and nodes are, as the operator says.
    shared: Vec<IpNet>,
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

    /// The further networks that the operator says nodes come from (`node_addresses`).
    pub fn name(&self, networks: Vec<IpNet>) {
        self.known().by_the_operator = networks;
    }

    /// The networks that people share with nodes, as the operator says (`shared_addresses`).
    pub fn share(&self, networks: Vec<IpNet>) {
        self.known().shared = networks;
    }

    /// Whether people share that address with nodes.
    #[must_use]
    pub fn is_shared(&self, address: IpAddr) -> bool {
        contain(&self.known().shared, address)
    }

    /// What was written down of nodes that were connected.
    pub(super) fn load(&self, known: Vec<NodeSource>) {
        self.known().tunnels.load(known);
    }

    /// A node is connected from there, until [`tunnel_closed`](Self::tunnel_closed) is said as often.
    pub fn tunnel_opened(&self, from: IpAddr, node: NodeId, now: OffsetDateTime) {
        self.known().tunnels.opened(from, node, now);
    }

    /// It is connected from there no more; the address counts for a day.
    pub fn tunnel_closed(&self, from: IpAddr, node: NodeId, now: OffsetDateTime) {
        self.known().tunnels.closed(from, node, now);
    }

    /// What is to be written down by now of nodes that `is_registered` knows; the others are forgotten.
    pub(super) fn take(
        &self,
        is_registered: impl Fn(&NodeId) -> bool,
        now: OffsetDateTime,
    ) -> Vec<NodeSource> {
        self.known().tunnels.take(is_registered, now)
    }

    /// It was not written after all.
    pub(super) fn give_back(&self, news: &[NodeSource]) {
        self.known().tunnels.give_back(news);
    }

    /// Refuses what comes from a registered node, loopback aside.
    pub(super) fn refuse(
        &self,
        view: &View,
        from: Option<SocketAddr>,
        now: OffsetDateTime,
    ) -> Result<(), FromNode> {
        let from = from.map(|from| from.ip().to_canonical());
        let Some(ip) = from.filter(|ip| !ip.is_loopback()) else {
            return Ok(());
        };
        let known = self.known();
        let network = source_network(ip);
        // Who is named by one address comes from all of its network.
        if contain(&known.by_the_operator, ip)
            || known
                .by_the_operator
                .iter()
                .any(|named| is_all_of(named, network))
        {
            let node = ip.to_string();
            return Err(FromNode::Registered { node });
        }
        // The operator's word about people wins over addresses that machines gave themselves. A network that he names
        // is no word about the one node in it.
        if known
            .shared
            .iter()
            .any(|shared| is_single(shared) && shared.contains(&ip))
        {
            return Ok(());
        }
        let shared = contain(&known.shared, ip);
        if let Some(node) = known.registered(view, ip, shared) {
            return Err(FromNode::Registered { node });
        }
        if shared {
            return Ok(());
        }
        match known.tunnels.at(view, network, now) {
            Some(node) => Err(FromNode::Tunnel { node, address: ip }),
            None => Ok(()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // What is in it is replaced whole: a panic leaves nothing half done that would be unsafe.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// The node that is registered there, by its address or its name: at any address of the network, but where people
    /// share that only at its very own.
    fn registered(&self, view: &View, ip: IpAddr, shared: bool) -> Option<String> {
        let network = source_network(ip);
        let is_there = |other: IpAddr| other == ip || !shared;
        let mut by_address = view.nodes_around(ip).filter(|node| {
            let own = node.addr.host().and_then(|host| host.parse().ok());
            own.is_some_and(|own: IpAddr| is_there(own.to_canonical()))
        });
        let names = self.names_at.get(&network).into_iter().flatten();
        let names = names.filter(|name| {
            let mut means = self.of.get(*name).into_iter().flat_map(HashMap::keys);
            means.any(|other| source_network(*other) == network && is_there(*other))
        });
        let mut by_name = names.flat_map(|name| view.nodes_at(name));
        let found = by_address.next().or_else(|| by_name.next());
        found.map(|node| node.name.to_string())
    }

    /// Works out the way back. Names are seen seldom, and asked for at every act.
    fn index(&mut self) {
        self.names_at.clear();
        for (name, addresses) in &self.of {
            for ip in addresses.keys() {
                let names = self.names_at.entry(source_network(*ip)).or_default();
                names.insert(name.clone());
            }
        }
    }
}

fn contain(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// Whether it names one address, and that is of the network.
fn is_all_of(named: &IpNet, network: IpAddr) -> bool {
    is_single(named) && source_network(named.addr()) == network
}

fn is_single(network: &IpNet) -> bool {
    network.prefix_len() == network.max_prefix_len()
}
