//! What the writer knows beside the view, from one transaction to the next: revisions, how often somebody
//! filed, who signs, and when time alone will change something.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use anteroom_core::id::{ClusterName, RequestId};
use anteroom_core::monitoring::{MonitoringRule, next_opening};
use anteroom_core::request::AccessRequest;
use anteroom_core::role::Role;
use anteroom_core::view::{Settings, View};
use time::OffsetDateTime;

use super::{Draft, News};
use crate::authority::Authorities;
use crate::state::NodeAddresses;
use crate::state::filings::Filings;
use crate::state::writer::RETRY;
use crate::store::{RECENT, REMEMBERED, Snapshot};

/// What the writer knows beside the view.
#[derive(Debug)]
pub(in crate::state) struct Memory {
    pub(in crate::state) view: View,
    revisions: HashMap<RequestId, i64>,
    filings: Filings,
    pub(in crate::state) deadlines: BTreeSet<(OffsetDateTime, RequestId)>,
    deadline_of: HashMap<RequestId, OffsetDateTime>,
    /// Requests that have ended, oldest first, at most [`RECENT`] of them: the view is copied on
    /// each change and must not grow with the years.
    ended: VecDeque<RequestId>,
    last_issued: Option<OffsetDateTime>,
    /// Who signs certificates; `None` until the keys are there.
    pub(in crate::state) authorities: Option<Arc<Authorities>>,
    /// When a shift of an access monitoring rule begins next.
    pub(in crate::state) opening: Option<OffsetDateTime>,
    /// When identity certificates that had ended were last let go of.
    forgot: OffsetDateTime,
}

impl Memory {
    pub(in crate::state) fn of(
        snapshot: Snapshot,
        cluster: ClusterName,
        settings: Settings,
        now: OffsetDateTime,
    ) -> Self {
        let Snapshot {
            roles,
            users,
            nodes,
            locks,
            resources,
            monitoring_rules,
            allowances,
            tokens,
            requests,
            credentials,
            certified_hosts,
            second_factors,
            last_issued,
        } = snapshot;
        say_what_is_unreadable(&roles, &monitoring_rules);
        let revisions = requests
            .iter()
            .map(|(request, revision)| (request.id, *revision))
            .collect();
        let mut requests: Vec<AccessRequest> =
            requests.into_iter().map(|(request, _)| request).collect();
        let filings = Filings::of(&requests, now);
        requests.sort_by_key(|request| {
            request
                .resolved
                .as_ref()
                .map_or(request.created, |end| end.at)
        });
        let ids: Vec<RequestId> = requests.iter().map(|request| request.id).collect();
        let view = View::new(cluster, settings)
            .with_roles(roles)
            .with_users(users)
            .with_nodes(nodes)
            .with_locks(locks)
            .with_resources(resources)
            .with_monitoring_rules(monitoring_rules)
            .with_allowances(allowances)
            .with_tokens(tokens)
            .with_requests(requests)
            .with_credentials(credentials)
            .with_certified_hosts(certified_hosts)
            .with_second_factors(second_factors);
        let mut memory = Self {
            view,
            revisions,
            filings,
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            ended: VecDeque::new(),
            last_issued,
            authorities: None,
            // At once: shifts may have begun while nobody looked.
            opening: Some(now),
            forgot: now,
        };
        memory.look_at(ids, now);
        memory
    }

    pub(in crate::state) fn draft(
        &self,
        now: OffsetDateTime,
        addresses: Arc<NodeAddresses>,
    ) -> Draft {
        Draft {
            view: self.view.clone(),
            addresses,
            now,
            last_issued: self.last_issued,
            authorities: self.authorities.clone(),
            revisions: self.revisions.clone(),
            filings: self.filings.clone(),
            changes: Vec::new(),
            touched: Vec::new(),
            news: News::Nothing,
        }
    }

    pub(in crate::state) fn due(&self, now: OffsetDateTime) -> Vec<RequestId> {
        self.deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Whether a shift of an access monitoring rule has begun since the last look.
    pub(in crate::state) fn is_opening(&self, now: OffsetDateTime) -> bool {
        self.opening.is_some_and(|at| at <= now)
    }

    /// Takes over what was committed.
    pub(in crate::state) fn accept(&mut self, draft: Draft) {
        let Draft {
            view,
            addresses: _,
            now,
            last_issued,
            authorities,
            revisions,
            filings,
            changes: _,
            touched,
            news: _,
        } = draft;
        if self.is_opening(now) || !view.has_monitoring_rules_of(&self.view) {
            self.opening = next_opening(&view, now);
        }
        self.view = view;
        self.last_issued = last_issued;
        self.authorities = authorities;
        self.revisions = revisions;
        self.filings = filings;
        self.look_at(touched, now);
        self.forget_credentials(now);
        // What is due after all has just been tried and did not pass: not at once again.
        for id in self.due(now) {
            if let Some(at) = self.deadline_of.insert(id, now + RETRY) {
                self.deadlines.remove(&(at, id));
                self.deadlines.insert((now + RETRY, id));
            }
        }
    }

    /// Lets go of identity certificates that ended long ago, now and then: each look at them all
    /// pays for many logins.
    fn forget_credentials(&mut self, now: OffsetDateTime) {
        if now - self.forgot < REMEMBERED {
            return;
        }
        self.forgot = now;
        let long_over: Vec<u64> = self
            .view
            .credentials()
            .filter(|issued| issued.valid_before <= now - REMEMBERED)
            .map(|issued| issued.serial)
            .collect();
        for serial in long_over {
            self.view = self.view.clone().without_credential(serial);
        }
    }

    /// Works out the deadlines of these requests, and lets go of what ended long ago.
    fn look_at(&mut self, ids: impl IntoIterator<Item = RequestId>, now: OffsetDateTime) {
        for id in ids {
            if let Some(at) = self.deadline_of.remove(&id) {
                self.deadlines.remove(&(at, id));
            }
            let Some(request) = self.view.request(&id) else {
                continue;
            };
            if let Some(at) = request.deadline(now) {
                self.deadline_of.insert(id, at);
                self.deadlines.insert((at, id));
            }
            if !request.state.is_live() && !self.ended.contains(&id) {
                self.ended.push_back(id);
                self.revisions.remove(&id);
            }
        }
        while self.ended.len() > RECENT {
            let Some(oldest) = self.ended.pop_front() else {
                break;
            };
            self.view = self.view.clone().without_request(&oldest);
        }
    }
}

/// Tells the operator what stands in the database and can't be read by this version: it denies.
fn say_what_is_unreadable(roles: &[Role], rules: &[MonitoringRule]) {
    for role in roles {
        if let Some(why) = &role.unreadable {
            tracing::error!(role = %role.name, "a stored role can't be read and denies everything: {why}");
        }
    }
    for rule in rules {
        if let Some(why) = &rule.unreadable {
            tracing::error!(rule = %rule.name, "a stored access monitoring rule can't be read, and no rule approves while it is there: {why}");
        }
    }
}
