//! A fact that becomes true once, and can be waited for.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// Starts unset; once set it stays set and all who wait are released.
#[derive(Debug, Default)]
pub(super) struct Latch {
    set: AtomicBool,
    waiting: Notify,
}

impl Latch {
    /// Sets it; returns whether this call was the one that did.
    pub(super) fn set(&self) -> bool {
        let first = !self.set.swap(true, Ordering::AcqRel);
        self.waiting.notify_waiters();
        first
    }

    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Returns when it is set. Cancel-safe.
    pub(super) async fn wait(&self) {
        // `notified` counts from its creation, so a `set` between the look and
        // the wait is not missed.
        let notified = self.waiting.notified();
        if !self.is_set() {
            notified.await;
        }
    }
}
