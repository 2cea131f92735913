//! When each user filed requests within the last hour, so that nobody fills the database, or the reviewers'
//! day, by filing and canceling.

use std::collections::{HashMap, VecDeque};

use anteroom_core::id::UserName;
use anteroom_core::request::AccessRequest;
use time::{Duration, OffsetDateTime};

/// Over how long they are counted.
const WINDOW: Duration = Duration::HOUR;

/// The instants, oldest first. Bounded by the limit of each user, and by the window.
#[derive(Debug, Clone, Default)]
pub(super) struct Filings(HashMap<UserName, VecDeque<OffsetDateTime>>);

impl Filings {
    /// Those that are known at a start.
    pub(super) fn of(requests: &[AccessRequest], now: OffsetDateTime) -> Self {
        let mut created: Vec<_> = requests
            .iter()
            .filter(|request| now - request.created < WINDOW)
            .collect();
        created.sort_by_key(|request| request.created);
        let mut filings = Self::default();
        for request in created {
            filings.add(&request.user, request.created);
        }
        filings
    }

    /// One more was filed.
    pub(super) fn add(&mut self, user: &UserName, now: OffsetDateTime) {
        self.0.retain(|_, filed| {
            // A clock that was set back makes none of them younger.
            while filed.front().is_some_and(|at| now - *at >= WINDOW) {
                filed.pop_front();
            }
            !filed.is_empty()
        });
        self.0.entry(user.clone()).or_default().push_back(now);
    }

    /// The last one was not filed after all.
    pub(super) fn take_back(&mut self, user: &UserName) {
        if let Some(filed) = self.0.get_mut(user) {
            filed.pop_back();
        }
    }

    /// When one more may be filed, if `limit` were filed within the last hour.
    pub(super) fn full_until(
        &self,
        user: &UserName,
        limit: usize,
        now: OffsetDateTime,
    ) -> Option<OffsetDateTime> {
        let filed = self.0.get(user)?;
        let recent = filed.iter().filter(|at| now - **at < WINDOW);
        let excess = recent.clone().count().checked_sub(limit)?;
        let frees = recent.copied().nth(excess)?;
        Some(frees + WINDOW)
    }
}
