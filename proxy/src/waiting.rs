//! Who waits for which request at this moment: what a reviewer is told beside the request itself.
//!
//! In memory only, because it is about connections of this process. It decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_core::id::RequestId;

/// The connections that wait, counted by request. Clones count together.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<Mutex<HashMap<RequestId, u32>>>);

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

    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, u32>> {
        // A panic while counting leaves a count off by one, not unsafe: going on is right.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
}
