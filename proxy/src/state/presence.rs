//! When nodes were last there: their tunnels' answers and the logins on them.
//!
//! Kept in memory and written now and then. It decides nothing, so it is not in the view or the log, and what a
//! killed proxy had not written yet is lost.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anteroom_core::id::NodeId;
use time::OffsetDateTime;

use super::State;
use crate::store::{SeenNode, StoreError};

/// When a node was last there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// When its tunnel last answered.
    pub last_heartbeat: Option<OffsetDateTime>,
    /// When the proxy last logged in on it.
    pub last_dial: Option<OffsetDateTime>,
}

/// When each node was last there. As many entries as nodes that have been seen since they were registered.
#[derive(Debug, Default)]
pub struct Presence(Mutex<HashMap<NodeId, (Seen, Written)>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Yes,
    NotYet,
}

impl Presence {
    /// What the database knows.
    pub(super) fn load(&self, known: Vec<SeenNode>) {
        let mut all = self.all();
        for SeenNode {
            node,
            last_heartbeat,
            last_dial,
        } in known
        {
            let seen = Seen {
                last_heartbeat,
                last_dial,
            };
            all.insert(node, (seen, Written::Yes));
        }
    }

    /// The node's tunnel answered.
    pub fn heard(&self, node: NodeId, now: OffsetDateTime) {
        self.note(node, |seen| seen.last_heartbeat = Some(now));
    }

    /// The proxy logged in on the node.
    pub fn dialled(&self, node: NodeId, now: OffsetDateTime) {
        self.note(node, |seen| seen.last_dial = Some(now));
    }

    /// When the node was last there.
    #[must_use]
    pub fn of(&self, node: &NodeId) -> Seen {
        self.all()
            .get(node)
            .map(|(seen, _)| *seen)
            .unwrap_or_default()
    }

    fn note(&self, node: NodeId, change: impl FnOnce(&mut Seen)) {
        let mut all = self.all();
        let (seen, written) = all
            .entry(node)
            .or_insert((Seen::default(), Written::NotYet));
        change(seen);
        *written = Written::NotYet;
    }

    /// What is not in the database yet, of nodes that `is_registered` knows; the others are forgotten.
    fn take(&self, is_registered: impl Fn(&NodeId) -> bool) -> Vec<SeenNode> {
        let mut all = self.all();
        all.retain(|node, _| is_registered(node));
        let news = all
            .iter_mut()
            .filter(|(_, (_, written))| *written == Written::NotYet);
        news.map(|(node, (seen, written))| {
            *written = Written::Yes;
            SeenNode {
                node: *node,
                last_heartbeat: seen.last_heartbeat,
                last_dial: seen.last_dial,
            }
        })
        .collect()
    }

    /// It was not written after all.
    fn give_back(&self, news: &[SeenNode]) {
        let mut all = self.all();
        for one in news {
            if let Some((_, written)) = all.get_mut(&one.node) {
                *written = Written::NotYet;
            }
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<NodeId, (Seen, Written)>> {
        // Each change is one assignment: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When nodes were last there.
    #[must_use]
    pub fn presence(&self) -> &Presence {
        &self.shared.presence
    }

    /// Writes down what was seen of nodes since the last time, in one transaction.
    ///
    /// # Errors
    /// [`StoreError`]: it is tried again the next time.
    pub async fn write_presence(&self) -> Result<(), StoreError> {
        let view = self.view();
        let is_registered = |node: &NodeId| view.node(node).is_some();
        let news = self.presence().take(is_registered);
        let sources = self.addresses().take(is_registered, self.now());
        if news.is_empty() && sources.is_empty() {
            return Ok(());
        }
        let (noted, from) = (news.clone(), sources.clone());
        let written = self
            .write(move |draft| {
                draft.note_presence(noted, from);
                Ok(())
            })
            .await;
        if written.is_err() {
            self.presence().give_back(&news);
            self.addresses().give_back(&sources);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-20 12:00 UTC);

    #[test]
    fn what_was_seen_is_taken_once_and_again_if_it_was_not_written() {
        let (presence, node) = (
            Presence::default(),
            NodeId::from_uuid(uuid::Uuid::from_u128(7)),
        );
        presence.heard(node, NOW);
        presence.dialled(node, NOW);
        let news = presence.take(|_| true);
        assert_eq!(news.len(), 1);
        assert!(presence.take(|_| true).is_empty());
        presence.give_back(&news);
        assert_eq!(presence.take(|_| true), news);
        assert_eq!(presence.of(&node).last_dial, Some(NOW));
        assert!(presence.take(|_| false).is_empty());
        assert_eq!(presence.of(&node), Seen::default());
    }
}
