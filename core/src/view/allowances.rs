//! The pre-approvals of a view.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use time::OffsetDateTime;
use uuid::Uuid;

use super::View;
use crate::allowance::Allowance;
use crate::id::{AllowanceId, UserName};

/// All of them, found by whom they are for, by whose they are, and by when they end.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowances {
    by_id: OrdMap<AllowanceId, Arc<Allowance>>,
    of_user: OrdSet<(UserName, AllowanceId)>,
    of_author: OrdSet<(UserName, AllowanceId)>,
    ends: OrdSet<(OffsetDateTime, AllowanceId)>,
}

impl Allowances {
    fn insert(&mut self, allowance: Allowance) {
        self.remove(&allowance.id);
        let id = allowance.id;
        self.of_user.insert((allowance.user.clone(), id));
        self.of_author.insert((allowance.author.clone(), id));
        self.ends.insert((allowance.ends, id));
        self.by_id.insert(id, Arc::new(allowance));
    }

    fn remove(&mut self, id: &AllowanceId) {
        if let Some(old) = self.by_id.remove(id) {
            self.of_user.remove(&(old.user.clone(), *id));
            self.of_author.remove(&(old.author.clone(), *id));
            self.ends.remove(&(old.ends, *id));
        }
    }

    fn named<'a>(
        &'a self,
        index: &'a OrdSet<(UserName, AllowanceId)>,
        name: &UserName,
    ) -> impl Iterator<Item = &'a Arc<Allowance>> + use<'a> {
        let first = (name.clone(), AllowanceId::from_uuid(Uuid::nil()));
        let last = (name.clone(), AllowanceId::from_uuid(Uuid::max()));
        index
            .range(first..=last)
            .filter_map(|(_, id)| self.by_id.get(id))
    }
}

impl View {
    /// The pre-approval of that ID.
    #[must_use]
    pub fn allowance(&self, id: &AllowanceId) -> Option<&Arc<Allowance>> {
        self.allowances.by_id.get(id)
    }

    /// All pre-approvals, in the order of their IDs, also those that have ended and are not removed
    /// yet.
    pub fn allowances(&self) -> impl Iterator<Item = &Arc<Allowance>> {
        self.allowances.by_id.values()
    }

    /// Those for a user, in the order of their IDs.
    pub fn allowances_for(
        &self,
        user: &UserName,
    ) -> impl Iterator<Item = &Arc<Allowance>> + use<'_> {
        self.allowances.named(&self.allowances.of_user, user)
    }

    /// Those that somebody gave, in the order of their IDs.
    pub fn allowances_of(
        &self,
        author: &UserName,
    ) -> impl Iterator<Item = &Arc<Allowance>> + use<'_> {
        self.allowances.named(&self.allowances.of_author, author)
    }

    /// The earliest instant at which a pre-approval ends, or has ended.
    #[must_use]
    pub fn next_end_of_allowance(&self) -> Option<OffsetDateTime> {
        self.allowances.ends.get_min().map(|(at, _)| *at)
    }

    /// The pre-approvals that have ended at `now`.
    #[must_use]
    pub fn ended_allowances(&self, now: OffsetDateTime) -> Vec<AllowanceId> {
        let ended = self.allowances.ends.iter();
        ended
            .take_while(|(at, _)| *at <= now)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Adds pre-approvals, or replaces those of their IDs.
    #[must_use]
    pub fn with_allowances(mut self, allowances: impl IntoIterator<Item = Allowance>) -> Self {
        for allowance in allowances {
            self.allowances.insert(allowance);
        }
        self
    }

    /// Removes a pre-approval, if it is there.
    #[must_use]
    pub fn without_allowance(mut self, id: &AllowanceId) -> Self {
        self.allowances.remove(id);
        self
    }
}
