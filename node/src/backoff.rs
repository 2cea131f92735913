//! How long to wait before the next attempt to reach a proxy: exponential with full jitter, so that the
//! agents of a proxy that was restarted don't come back in step.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The bound of the first pause.
const FIRST: Duration = Duration::from_secs(1);

/// The bound of the longest one.
const LONGEST: Duration = Duration::from_secs(60);

/// A connection that stood this long was good: the next pause is a first one.
const STABLE: Duration = Duration::from_secs(60);

/// Attempts that have failed in a row.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An attempt, or the connection that came of it, ended after `lasted`: how long to pause now, anywhere
    /// between nothing and a bound that doubles from 1 s to 60 s.
    pub fn pause(&mut self, lasted: Duration, rng: &mut impl Rng) -> Duration {
        if lasted >= STABLE {
            self.failures = 0;
        }
        let bound = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        bound.min(LONGEST).mul_f64(rng.random_range(0.0..=1.0))
    }

    /// The peer is there and does not want us: as after many failures, since asking often changes nothing.
    pub fn refused(&mut self) {
        self.failures = self.failures.max(6);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    #[test]
    fn pauses_grow_to_a_minute_are_spread_and_begin_anew_after_a_stable_minute() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut longest = [NO_TIME; 9];
        let mut shortest = [LONGEST; 9];
        for _ in 0..2000 {
            let mut backoff = Backoff::default();
            for (longest, shortest) in longest.iter_mut().zip(&mut shortest) {
                let pause = backoff.pause(NO_TIME, &mut rng);
                *longest = pause.max(*longest);
                *shortest = pause.min(*shortest);
            }
            assert!(backoff.pause(STABLE, &mut rng) <= FIRST);
        }
        let bounds = [1, 2, 4, 8, 16, 32, 60, 60, 60].map(Duration::from_secs);
        for (index, bound) in bounds.into_iter().enumerate() {
            assert!(longest[index] <= bound && longest[index] > bound.mul_f64(0.95));
            assert!(shortest[index] < bound.mul_f64(0.05));
        }
    }

    #[test]
    fn a_connection_that_stood_for_less_than_a_minute_changes_nothing() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.pause(Duration::from_secs(59), &mut rng);
        }
        let most = (0..100).map(|_| backoff.pause(Duration::from_secs(59), &mut rng));
        assert!(most.max().unwrap() > Duration::from_secs(50));
    }

    #[test]
    fn whoever_was_refused_waits_as_after_many_failures() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut waits = Vec::new();
        for _ in 0..100 {
            let mut backoff = Backoff::default();
            backoff.refused();
            waits.push(backoff.pause(NO_TIME, &mut rng));
        }
        assert!(waits.iter().max().unwrap() > &Duration::from_secs(50));
    }
}
