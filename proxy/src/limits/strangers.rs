//! Those who have proven nothing yet, in the order in which they came, and who of them gives way.
//!
//! Where sshd is full, connections that say nothing keep everybody out until their grace time ends.
//! Here the oldest of them gives way to a newcomer. Nobody who has asked to log in ever does: that
//! may be a person who types a passphrase.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;

use super::Source;

/// Whoever began to speak SSH has this long to come as far as asking to log in; an exchange of keys
/// takes a second over the slowest lines.
const KEY_EXCHANGE: Duration = Duration::from_secs(2);

/// From newcomers of its own source a silent connection is safe for this long, as a burst from one
/// place is dropped under sshd. Newcomers from elsewhere need not wait: they are not part of it.
const AMONG_ITS_OWN: Duration = Duration::from_secs(1);

/// How far a stranger has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Not a byte. Clients send their first line as soon as they are connected.
    Silent = 0,
    /// Something was sent.
    Speaks = 1,
    /// It asks to log in.
    Asks = 2,
}

/// A connection that has proven nothing. Shared with its task, which says how far it came and is
/// told when it has to go.
#[derive(Debug)]
pub struct Stranger {
    source: Source,
    since: OffsetDateTime,
    came: AtomicU8,
    displaced: Notify,
}

impl Stranger {
    /// Its first bytes are there.
    pub fn speaks(&self) {
        self.came_to(Came::Speaks);
    }

    /// Its keys are exchanged, and it asks to log in: from here on its place is its own.
    pub fn asks(&self) {
        self.came_to(Came::Asks);
    }

    /// Returns when it has given way: its connection is to be closed. Cancel-safe.
    pub async fn displaced(&self) {
        self.displaced.notified().await;
    }

    fn came_to(&self, stage: Came) {
        self.came.fetch_max(stage as u8, Ordering::Relaxed);
    }

    /// Whether it gives way to a newcomer of this source now.
    fn gives_way(&self, newcomer: Source, now: OffsetDateTime) -> bool {
        let age = now - self.since;
        match self.came() {
            Came::Silent => self.source != newcomer || age >= AMONG_ITS_OWN,
            Came::Speaks => age >= KEY_EXCHANGE,
            Came::Asks => false,
        }
    }

    fn came(&self) -> Came {
        match self.came.load(Ordering::Relaxed) {
            0 => Came::Silent,
            1 => Came::Speaks,
            _ => Came::Asks,
        }
    }
}

/// Who may have to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Among {
    /// Anybody: there are too many of all.
    All,
    /// Those of the newcomer's source: there are too many of it.
    ItsOwn,
}

/// All of them. Bounded by `max_startups`.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    next: u64,
    in_order: BTreeMap<u64, Arc<Stranger>>,
    per_source: HashMap<Source, u32>,
}

impl Strangers {
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.in_order.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn of(&self, source: Source) -> u32 {
        self.per_source.get(&source).copied().unwrap_or(0)
    }

    pub(super) fn most_of_one_source(&self) -> u32 {
        self.per_source.values().copied().max().unwrap_or(0)
    }

    /// One more, and the number under which it is taken out.
    pub(super) fn admit(&mut self, source: Source, now: OffsetDateTime) -> (u64, Arc<Stranger>) {
        let stranger = Arc::new(Stranger {
            source,
            since: now,
            came: AtomicU8::new(Came::Silent as u8),
            displaced: Notify::new(),
        });
        let number = self.next;
        self.next += 1;
        self.in_order.insert(number, stranger.clone());
        *self.per_source.entry(source).or_insert(0) += 1;
        (number, stranger)
    }

    /// Takes one out; nothing happens if it has given way already.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(stranger) = self.in_order.remove(&number) else {
            return;
        };
        if let Some(here) = self.per_source.get_mut(&stranger.source) {
            *here -= 1;
            if *here == 0 {
                self.per_source.remove(&stranger.source);
            }
        }
    }

    /// Makes room for a newcomer. The oldest silent one goes first, then the oldest that has not come
    /// as far as asking to log in. Whether there was one.
    pub(super) fn make_room(
        &mut self,
        newcomer: Source,
        among: Among,
        now: OffsetDateTime,
    ) -> bool {
        let gives_way = |stranger: &Stranger| {
            let asked = match among {
                Among::All => true,
                Among::ItsOwn => stranger.source == newcomer,
            };
            asked && stranger.gives_way(newcomer, now)
        };
        // They are in the order in which they came.
        let mut candidates = self.in_order.iter().filter(|(_, one)| gives_way(one));
        let found = candidates
            .clone()
            .find(|(_, one)| one.came() == Came::Silent);
        let found = found.or_else(|| candidates.next());
        let Some((&number, stranger)) = found else {
            return false;
        };
        stranger.displaced.notify_one();
        self.remove(number);
        true
    }
}
