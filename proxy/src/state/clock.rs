//! Where the time comes from.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration as StdDuration;

use time::OffsetDateTime;
use tokio::sync::watch;

/// What a wait for an instant is.
pub type Until<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// A clock: the server's in service, one moved by hand in tests.
pub trait Clock: Send + Sync + 'static {
    /// The time, in UTC.
    fn now(&self) -> OffsetDateTime;

    /// Returns once [`now`](Self::now) is `at` or later.
    fn sleep_until(&self, at: OffsetDateTime) -> Until<'_>;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// How long one sleep lasts at most. The machine's clock may be set while we sleep; looking again
/// each half second keeps what time ends within the second that live sessions are given.
const LOOK_AGAIN: StdDuration = StdDuration::from_millis(500);

impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    fn sleep_until(&self, at: OffsetDateTime) -> Until<'_> {
        Box::pin(async move {
            loop {
                let left = at - self.now();
                let Ok(left) = StdDuration::try_from(left) else {
                    return;
                };
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            }
        })
    }
}

/// A clock that stands still until it is moved, forwards or back.
#[derive(Debug)]
pub struct ManualClock {
    time: watch::Sender<OffsetDateTime>,
}

impl ManualClock {
    /// A clock that shows `at`.
    #[must_use]
    pub fn new(at: OffsetDateTime) -> Self {
        Self {
            time: watch::Sender::new(at),
        }
    }

    /// Sets it.
    pub fn set(&self, at: OffsetDateTime) {
        self.time.send_replace(at);
    }

    /// Moves it; a negative duration moves it back.
    pub fn advance(&self, by: time::Duration) {
        self.time.send_modify(|time| *time += by);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        *self.time.borrow()
    }

    fn sleep_until(&self, at: OffsetDateTime) -> Until<'_> {
        Box::pin(async move {
            // Fails only when the sender is gone, which is `self`.
            let _ = self.time.subscribe().wait_for(|time| *time >= at).await;
        })
    }
}
