//! Limits and defaults of the domain that an operator may change.

use time::Duration;

use crate::id::ResourceId;

/// Limits and defaults of the domain that an operator may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The longest session of a plain key, and of the access that a request gives where no role
    /// sets `max_duration`.
    pub session_ttl: Duration,
    /// How long a request may stay pending.
    pub request_ttl: Duration,
    /// How far ahead an access may be scheduled.
    pub assume_start_ahead: Duration,
    /// How many requests of one user may be pending at a time, so that one person cannot flood
    /// the reviewers.
    pub pending_per_user: usize,
    /// How many requests of one user may be filed within an hour, whatever becomes of them: each
    /// stays in the database for good.
    pub filed_per_hour: usize,
    /// The longest reason, in bytes.
    pub reason_bytes: usize,
    /// The most resource IDs in a request.
    pub resources_per_request: usize,
    /// The most bytes that a request's resource IDs take together.
    pub resource_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session_ttl: Duration::hours(12),
            request_ttl: Duration::days(7),
            assume_start_ahead: Duration::days(7),
            pending_per_user: 50,
            filed_per_hour: 300,
            reason_bytes: 4096,
            resources_per_request: 300,
            resource_bytes: 32 * 1024,
        }
    }
}

impl Settings {
    /// How many of `resources`, from the first on, one request may hold.
    pub fn resources_that_fit<'r>(
        &self,
        resources: impl IntoIterator<Item = &'r ResourceId>,
    ) -> usize {
        let mut left = self.resource_bytes;
        let fits = |id: &&ResourceId| {
            let rest = left.checked_sub(id.to_string().len());
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        let resources = resources.into_iter().take(self.resources_per_request);
        resources.take_while(fits).count()
    }
}
