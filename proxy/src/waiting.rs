//! Who waits for which request at this moment, which reviewers are told, and which answers have
//! reached somebody.
//!
//! In memory only, because it is about connections of this process. It decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_core::id::RequestId;

use crate::store::RECENT;

/// How many answers that have reached their requester are remembered: as many as requests that have
/// ended are kept in memory. What is forgotten is told once more, which harms nobody.
const HEARD: usize = RECENT;

/// The connections that wait, counted by request. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    counts: Arc<Mutex<HashMap<RequestId, u32>>>,
    heard: Arc<Mutex<VecDeque<RequestId>>>,
}

/// Somebody waits, until this is dropped.
#[derive(Debug)]
pub struct WaitingGuard {
    waiting: Waiting,
    request: RequestId,
}

impl Waiting {
    /// One more waits for `request`.
    pub fn enter(&self, request: RequestId) -> WaitingGuard {
        *self.counts().entry(request).or_default() += 1;
        WaitingGuard {
            waiting: self.clone(),
            request,
        }
    }

    /// How many wait for `request` now.
    pub fn count(&self, request: RequestId) -> u32 {
        self.counts().get(&request).copied().unwrap_or(0)
    }

    /// The requester has heard how `request` ended.
    pub fn heard(&self, request: RequestId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.contains(&request) {
            return;
        }
        if heard.len() >= HEARD {
            heard.pop_front();
        }
        heard.push_back(request);
    }

    /// Whether she has, as far as is remembered.
    pub fn was_heard(&self, request: RequestId) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.contains(&request)
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, u32>> {
        // A panic while counting leaves a count off by one, not unsafe: going on is right.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        let mut counts = self.waiting.counts();
        if let Some(here) = counts.get_mut(&self.request) {
            *here = here.saturating_sub(1);
            // Nothing is kept of requests that nobody waits for.
            if *here == 0 {
                counts.remove(&self.request);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_leave_are_counted_no_more_and_leave_nothing_behind() {
        let waiting = Waiting::default();
        let request = RequestId::from_uuid(uuid::Uuid::from_u128(7));
        let first = waiting.enter(request);
        let second = waiting.clone().enter(request);
        assert_eq!(waiting.count(request), 2);
        drop(first);
        assert_eq!(waiting.count(request), 1);
        drop(second);
        assert_eq!(waiting.count(request), 0);
        assert!(waiting.counts().is_empty());
    }

    #[test]
    fn answers_are_remembered_up_to_a_bound() {
        let waiting = Waiting::default();
        let request = |n: usize| RequestId::from_uuid(uuid::Uuid::from_u128(n as u128));
        for n in 0..=HEARD {
            waiting.heard(request(n));
            waiting.clone().heard(request(n));
        }
        assert!(!waiting.was_heard(request(0)));
        assert!(waiting.was_heard(request(1)));
        assert!(waiting.was_heard(request(HEARD)));
    }
}
