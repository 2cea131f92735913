//! From where nodes are connected by themselves, and were within a day.
//!
//! Written down now and then, so that a proxy that starts again knows it.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use anteroom_core::id::NodeId;
use anteroom_core::node::source_network;
use anteroom_core::view::View;
use time::{Duration, OffsetDateTime};

use super::REMEMBERED;
use crate::store::NodeSource;

/// Networks of one node that are remembered. One that roams leaves some; one that comes from many makes its own oldest
/// ones forgotten, and no other node's.
const MOST_OF_A_NODE: usize = 64;

/// How often it is written down that a node is still there: a proxy that is killed remembers it for a day less this.
const WRITE_AGAIN: Duration = Duration::hours(1);

/// Bounded by the registered nodes, and for each by [`MOST_OF_A_NODE`] and its connections.
#[derive(Debug, Default)]
pub(super) struct Presences {
    of: HashMap<NodeId, Vec<There>>,
    nodes_at: HashMap<IpAddr, BTreeSet<NodeId>>,
}

#[derive(Debug)]
struct There {
    network: IpAddr,
    /// Tunnels from there now.
    tunnels: u32,
    /// When it was last seen there.
    last: OffsetDateTime,
    written: Option<OffsetDateTime>,
}

impl There {
    fn counts(&self, now: OffsetDateTime) -> bool {
        self.tunnels > 0 || now - self.last <= REMEMBERED
    }

    fn is_news(&self, now: OffsetDateTime) -> bool {
        match self.written {
            None => true,
            Some(written) if self.tunnels > 0 => now - written >= WRITE_AGAIN,
            Some(written) => written < self.last,
        }
    }
}

impl Presences {
    pub(super) fn load(&mut self, known: Vec<NodeSource>) {
        for NodeSource {
            node,
            network,
            last,
        } in known
        {
            self.there(network, node, last).written = Some(last);
        }
    }

    pub(super) fn opened(&mut self, from: IpAddr, node: NodeId, now: OffsetDateTime) {
        let there = self.there(from, node, now);
        there.tunnels = there.tunnels.saturating_add(1);
    }

    pub(super) fn closed(&mut self, from: IpAddr, node: NodeId, now: OffsetDateTime) {
        let there = self.there(from, node, now);
        there.tunnels = there.tunnels.saturating_sub(1);
    }

    /// A node that is or was within a day connected from that network. One that was removed, or is dialled by now,
    /// comes from there no more.
    pub(super) fn at(&self, view: &View, network: IpAddr, now: OffsetDateTime) -> Option<String> {
        let nodes = self.nodes_at.get(&network).into_iter().flatten();
        let mut names = nodes.filter_map(|id| {
            let there = self.of.get(id)?.iter().find(|it| it.network == network)?;
            let node = view.node(id);
            if there.tunnels > 0 {
                return Some(node.map_or_else(|| id.to_string(), |node| node.name.to_string()));
            }
            let by_tunnel = node.filter(|node| node.addr.dialled().is_none())?;
            there.counts(now).then(|| by_tunnel.name.to_string())
        });
        names.next()
    }

    /// What is to be written down by now; what is over, or of a node that is no more, is forgotten.
    pub(super) fn take(
        &mut self,
        is_registered: impl Fn(&NodeId) -> bool,
        now: OffsetDateTime,
    ) -> Vec<NodeSource> {
        let mut news = Vec::new();
        self.of.retain(|node, all| {
            let registered = is_registered(node);
            all.retain(|there| {
                let stays = there.tunnels > 0 || (registered && there.counts(now));
                if !stays {
                    forget(&mut self.nodes_at, there.network, node);
                }
                stays
            });
            for there in all
                .iter_mut()
                .filter(|there| registered && there.is_news(now))
            {
                if there.tunnels > 0 {
                    there.last = now;
                }
                there.written = Some(there.last);
                news.push(NodeSource {
                    node: *node,
                    network: there.network,
                    last: there.last,
                });
            }
            !all.is_empty()
        });
        news
    }

    pub(super) fn give_back(&mut self, news: &[NodeSource]) {
        for one in news {
            let all = self.of.get_mut(&one.node).into_iter().flatten();
            for there in all.filter(|there| there.network == one.network) {
                there.written = None;
            }
        }
    }

    /// The node is there at this moment.
    fn there(&mut self, from: IpAddr, node: NodeId, now: OffsetDateTime) -> &mut There {
        let network = source_network(from);
        let all = self.of.entry(node).or_default();
        let place = match all.iter().position(|there| there.network == network) {
            Some(place) => place,
            None => {
                if all.len() >= MOST_OF_A_NODE {
                    let left = all
                        .iter()
                        .enumerate()
                        .filter(|(_, there)| there.tunnels == 0);
                    let oldest = left.min_by_key(|(_, there)| there.last);
                    if let Some(oldest) = oldest.map(|(place, _)| place) {
                        let gone = all.swap_remove(oldest);
                        forget(&mut self.nodes_at, gone.network, &node);
                    }
                }
                self.nodes_at.entry(network).or_default().insert(node);
                all.push(There {
                    network,
                    tunnels: 0,
                    last: now,
                    written: None,
                });
                all.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "`place` was found or made above")]
        let there = &mut all[place];
        there.last = there.last.max(now);
        there
    }
}

fn forget(nodes_at: &mut HashMap<IpAddr, BTreeSet<NodeId>>, network: IpAddr, node: &NodeId) {
    if let Some(nodes) = nodes_at.get_mut(&network) {
        nodes.remove(node);
        if nodes.is_empty() {
            nodes_at.remove(&network);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-20 12:00 UTC);

    fn node(n: u128) -> NodeId {
        NodeId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_node_that_comes_from_everywhere_fills_no_memory_and_has_no_other_node_forgotten() {
        let mut presences = Presences::default();
        let at = |n: u32| IpAddr::from(n.to_be_bytes());
        presences.opened(at(1), node(1), NOW);
        presences.closed(at(1), node(1), NOW);
        for n in 0..10_000 {
            presences.opened(at(n), node(2), NOW + Duration::seconds(n.into()));
            presences.closed(at(n), node(2), NOW + Duration::seconds(n.into()));
        }
        let kept = presences.take(|_| true, NOW + Duration::hours(4));
        let of = |n| kept.iter().filter(|one| one.node == node(n)).count();
        assert_eq!((of(1), of(2)), (1, MOST_OF_A_NODE));
        assert_eq!(presences.nodes_at.len(), MOST_OF_A_NODE + 1);
        assert!(presences.take(|_| true, NOW + Duration::days(3)).is_empty());
        assert!(presences.nodes_at.is_empty() && presences.of.is_empty());
    }

    #[test]
    fn what_is_seen_is_written_once_in_an_hour_and_when_it_ends() {
        let (mut presences, here) = (Presences::default(), IpAddr::from([192, 0, 2, 1]));
        presences.opened(here, node(1), NOW);
        let count = |presences: &mut Presences, after| {
            presences
                .take(|_| true, NOW + Duration::minutes(after))
                .len()
        };
        assert_eq!(count(&mut presences, 0), 1);
        assert_eq!(count(&mut presences, 59), 0);
        assert_eq!(count(&mut presences, 60), 1);
        presences.closed(here, node(1), NOW + Duration::minutes(70));
        let news = presences.take(|_| true, NOW + Duration::minutes(70));
        assert_eq!(news.len(), 1);
        assert_eq!(count(&mut presences, 600), 0);
        presences.give_back(&news);
        assert_eq!(count(&mut presences, 601), 1);
        assert!(presences.take(|_| false, NOW).is_empty());
        assert!(presences.of.is_empty());
    }
}
