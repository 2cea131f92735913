//! Access monitoring rules: what reviews requests by itself, and when.
//!
//! A rule is a condition on a request, a verdict, and the hours in which it speaks. Everything here
//! is a pure function of the rules, a request and an instant; giving the review is for
//! [`crate::request::review_automatically`], which counts it as one person's.
//!
//! All rules together are one reviewer: they approve a request once, however many match, and a
//! denying one is heard even after an approving one.

mod schedule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use time::OffsetDateTime;

use crate::id::{NodeId, RuleName, UserName};
use crate::predicate::{self, MonitoringEnv, Stored};
use crate::request::{AccessRequest, Author, Reach, State, Verdict};
use crate::view::View;

pub use schedule::{Clock, Schedule, Shift, UnknownTimeZone};

/// The most rules in a cluster: each is asked about every request that is filed, by the one writer.
pub const MOST_RULES: usize = 256;

/// The most schedules of a rule, and the most shifts of a schedule.
pub const MOST_SCHEDULES: usize = 32;

/// An access monitoring rule, parsed and validated.
#[derive(Debug, Clone, PartialEq)]
pub struct MonitoringRule {
    /// Unique in the cluster.
    pub name: RuleName,
    /// For people; also the reason of its reviews.
    pub description: Option<String>,
    /// Which requests it reviews.
    pub condition: Stored<predicate::MonitoringRule>,
    /// What it says of them.
    pub decision: Decision,
    /// When it speaks: within any of them, or always if there is none.
    pub schedules: BTreeMap<String, Schedule>,
    /// The document, as it was written.
    pub source: serde_json::Value,
    /// Everybody who wrote it since it was made. It never reviews what was filed for one of them:
    /// nobody reviews a request of their own, by a rule neither.
    pub authors: BTreeSet<UserName>,
    /// Why the stored document can't be read any more, if it can't. It may have denied something,
    /// so while it is there no rule approves.
    pub unreadable: Option<String>,
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes, as asked.
    Approved,
    /// No.
    Denied,
}

impl Decision {
    /// The word in a document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "APPROVED",
            Self::Denied => "DENIED",
        }
    }
}

impl MonitoringRule {
    /// A stored rule whose document a later version no longer reads.
    #[must_use]
    pub fn unreadable(
        name: RuleName,
        source: serde_json::Value,
        authors: BTreeSet<UserName>,
        why: String,
    ) -> Self {
        Self {
            name,
            description: None,
            condition: Stored::unreadable(String::new()),
            decision: Decision::Denied,
            schedules: BTreeMap::new(),
            source,
            authors,
            unreadable: Some(why),
        }
    }

    /// Whether it speaks at `now`.
    #[must_use]
    pub fn is_in_effect(&self, now: OffsetDateTime) -> bool {
        self.schedules.is_empty() || self.schedules.values().any(|one| one.is_in_effect(now))
    }

    /// Whether it has something to say about `request` at `now`.
    fn speaks(&self, env: &MonitoringEnv<'_>, now: OffsetDateTime) -> bool {
        let meant = match self.decision {
            Decision::Approved => self.condition.allows(env),
            // What can't be told may be what it is to keep out.
            Decision::Denied => self.condition.denies(env),
        };
        self.unreadable.is_none()
            && !self.authors.contains(&env.user.name)
            && self.is_in_effect(now)
            && meant
    }
}

/// The rule that reviews `request` at `now`, if one does: the first that denies, by name, or else
/// the first that approves. After a rule has approved only a denying one is heard.
#[must_use]
pub fn reviewing_rule<'v>(
    view: &'v View,
    request: &AccessRequest,
    now: OffsetDateTime,
) -> Option<&'v Arc<MonitoringRule>> {
    let user = view.user(&request.user)?;
    let verdicts = |verdict: fn(&Verdict) -> bool| {
        let by_rule = request.reviews.iter().filter(|review| match review.author {
            Author::Rule(_) => true,
            Author::User(_) => false,
        });
        by_rule.filter(|review| verdict(&review.verdict)).count() > 0
    };
    let denied = verdicts(|verdict| *verdict == Verdict::Deny);
    if request.state != State::Pending || denied {
        return None;
    }
    let approved = verdicts(|verdict| *verdict != Verdict::Deny);
    let labels = labels(view, request);
    let labels: Vec<&BTreeMap<String, String>> = labels.iter().map(AsRef::as_ref).collect();
    let env = MonitoringEnv {
        roles: &request.roles,
        suggested_reviewers: &request.suggested_reviewers,
        annotations: &request.system_annotations,
        user,
        reason: &request.reason,
        created: request.created,
        expires: request.access_expires,
        resources: &labels,
    };
    let first = |decision: Decision| {
        let mut rules = view.monitoring_rules();
        rules.find(|rule| rule.decision == decision && rule.speaks(&env, now))
    };
    let may_approve = !approved
        && !view
            .monitoring_rules()
            .any(|rule| rule.unreadable.is_some());
    first(Decision::Denied).or_else(|| first(Decision::Approved).filter(|_| may_approve))
}

/// The next instant after `now` at which a rule may begin to speak: then what is pending is looked
/// at again. It may come without anything having changed, and never late.
#[must_use]
pub fn next_opening(view: &View, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let rules = view.monitoring_rules();
    let schedules = rules.flat_map(|rule| rule.schedules.values());
    schedules.filter_map(|one| one.next_opening(now)).min()
}

/// The labels of each requested resource. One that is gone has none, and is not left out.
fn labels<'v>(
    view: &'v View,
    request: &AccessRequest,
) -> Vec<std::borrow::Cow<'v, BTreeMap<String, String>>> {
    use std::borrow::Cow;
    let ids = match &request.reach {
        Reach::Roles => return Vec::new(),
        Reach::Resources(ids) => ids,
    };
    ids.iter()
        .map(|id| {
            let node = id.node_id().filter(|_| id.cluster() == view.cluster());
            let node = node.and_then(|node: NodeId| view.node(&node));
            let node = node.map(|node| &node.labels);
            let labels = node.or_else(|| view.resource_of(id).map(|other| &other.labels));
            labels.map_or_else(|| Cow::Owned(BTreeMap::new()), Cow::Borrowed)
        })
        .collect()
}
