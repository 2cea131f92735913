//! The instant of issuing, and the rule that the clock must not have gone back.

use thiserror::Error;
use time::{Duration, OffsetDateTime};

/// How far the clock may lie behind the newest issuance: what NTP corrects without anybody noticing.
pub const MAX_STEP_BACK: Duration = Duration::seconds(60);

/// An instant at which certificates may be issued.
///
/// INVARIANT: it is at most [`MAX_STEP_BACK`] before the newest issuance known, and after 1970. A clock that
/// was set back would otherwise lengthen what has ended already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IssueTime(OffsetDateTime);

impl IssueTime {
    /// `now`, from the store's clock, if it may be used beside `last_issuance`: the time of the newest
    /// committed issuance, `None` only where there has never been one.
    ///
    /// # Errors
    /// [`ClockError`] names both times.
    pub fn new(
        now: OffsetDateTime,
        last_issuance: Option<OffsetDateTime>,
    ) -> Result<Self, ClockError> {
        if let Some(last) = last_issuance.filter(|last| *last - now > MAX_STEP_BACK) {
            return Err(ClockError::Behind { now, last });
        }
        if now < OffsetDateTime::UNIX_EPOCH + MAX_STEP_BACK {
            return Err(ClockError::BeforeUnixTime { now });
        }
        Ok(Self(now))
    }

    /// The instant itself.
    pub fn now(self) -> OffsetDateTime {
        self.0
    }

    /// Whole seconds since 1970, rounded down, as certificates count them.
    pub(crate) fn seconds(self) -> u64 {
        // INVARIANT: not negative, see `new`.
        self.0.unix_timestamp().unsigned_abs()
    }
}

/// Why nothing can be issued at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClockError {
    /// The clock was set back.
    #[error(
        "the clock says {now}, more than a minute before the last certificate was issued at {last}: correct the clock"
    )]
    Behind {
        /// What the clock says.
        now: OffsetDateTime,
        /// When the last certificate was issued.
        last: OffsetDateTime,
    },
    /// The clock was never set.
    #[error("the clock says {now}, which no certificate can express: correct the clock")]
    BeforeUnixTime {
        /// What the clock says.
        now: OffsetDateTime,
    },
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

    #[test]
    fn a_clock_more_than_a_minute_behind_the_last_issuance_issues_nothing() {
        let behind = |seconds| IssueTime::new(NOON, Some(NOON + Duration::seconds(seconds)));
        assert!(behind(-3600).is_ok());
        assert!(behind(60).is_ok());
        assert_eq!(
            behind(61),
            Err(ClockError::Behind {
                now: NOON,
                last: NOON + Duration::seconds(61)
            })
        );
        assert!(IssueTime::new(NOON, None).is_ok());
    }

    #[test]
    fn a_clock_in_the_year_1970_or_before_issues_nothing() {
        for seconds in [i64::from(i32::MIN), -1, 0, 59] {
            let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap();
            assert_eq!(
                IssueTime::new(now, None),
                Err(ClockError::BeforeUnixTime { now })
            );
        }
        assert!(IssueTime::new(OffsetDateTime::from_unix_timestamp(60).unwrap(), None).is_ok());
    }
}
