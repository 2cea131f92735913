//! Pre-approvals: a reviewer's yes to requests that are still to come.
//!
//! An allowance names a user and what she may be given, until an instant. When she files a request
//! that it covers, it gives its author's review there and then, as if he sat at the keyboard: his
//! stored roles are asked at that moment, it counts as his one review, and what it opens ends with
//! the allowance. Everything here is a pure function; giving the review is for
//! [`crate::request::allowance_reviews`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::duration::format as format_duration;
use crate::id::{AllowanceId, KeyFingerprint, Login, ResourceId, RoleName, UserName};
use crate::policy;
use crate::request::{AccessRequest, Author, Reach, State, may_review, may_review_some};
use crate::view::View;

/// The longest that an allowance may last: as long as the longest access that a role may give.
pub const LONGEST: Duration = Duration::days(14);

/// The most allowances for one user: the one writer looks at each of them whenever she files.
pub const MOST_FOR_USER: usize = 64;

/// The most allowances of one author, so that no single reviewer fills the table: a pre-approval is
/// for somebody who is about to work, not for everybody at all times, which roles are for.
pub const MOST_OF_AUTHOR: usize = 256;

/// The most labels, logins or roles of an allowance: each is compared with each resource.
pub const MOST_NAMES: usize = 32;

/// A pre-approval, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// What `request allows rm` takes.
    pub id: AllowanceId,
    /// Whose review it gives.
    pub author: UserName,
    /// The registered key that he gave it with: once it is not his any more, or locked, nothing that
    /// was done with it goes on approving.
    pub key: KeyFingerprint,
    /// The identity certificate that he gave it with, if he did: the same holds for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<GivenBy>,
    /// Whose requests it reviews; never the author.
    pub user: UserName,
    /// Which of them.
    pub covers: Covers,
    /// Why, in the author's words: the reason of its reviews. May be empty.
    pub reason: String,
    /// When it was given.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// When it ends (exclusive), and with it what it opened.
    #[serde(with = "time::serde::rfc3339")]
    pub ends: OffsetDateTime,
}

/// An identity certificate that something was done with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenBy {
    /// Its serial number.
    pub serial: u64,
    /// The key that it certifies.
    pub key: KeyFingerprint,
}

/// Which requests an allowance covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covers {
    /// Requests for nodes, all of which have each of the labels.
    Nodes {
        /// Compared as they are: no patterns. None at all cover nothing.
        labels: BTreeMap<String, String>,
        /// Only requests for some of these logins; `None` for any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        logins: Option<BTreeSet<Login>>,
        /// Only requests through some of these roles; `None` for any that the author may review.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        roles: Option<BTreeSet<RoleName>>,
    },
    /// Requests for some of these roles as a whole.
    Roles(BTreeSet<RoleName>),
}

/// Why an allowance can't be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllowError {
    /// The author is the user.
    #[error("nobody approves requests of their own, not in advance either; ask a colleague")]
    Own,
    /// There is no such user, or nothing of hers that the author may review; which is not said.
    #[error(
        "there is no user `{0}` who could ask for nodes {through} that you may review",
        through = .1.as_ref().map_or_else(|| "through a role".to_owned(), |role| format!("through role `{role}`"))
    )]
    NotNodes(UserName, Option<RoleName>),
    /// The same for roles as a whole.
    #[error(
        "there is no user `{user}` who could ask for role `{role}` in a request that you may review"
    )]
    NotRole {
        /// Who would ask.
        user: UserName,
        /// For what.
        role: RoleName,
    },
    /// It names nothing.
    #[error("it would cover nothing; name labels of nodes with --labels, or roles with --roles")]
    Nothing,
    /// It names too much.
    #[error("{count} {what} are named; the limit is {MOST_NAMES}")]
    TooManyNames {
        /// Labels, logins or roles.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// It lasts too long.
    #[error("{} is longer than the {} that a pre-approval may last", format_duration(*.0), format_duration(LONGEST))]
    TooLong(Duration),
    /// It lasts no time at all.
    #[error("a pre-approval has to last a second at least")]
    TooShort,
    /// The reason is too long.
    #[error("the reason is {bytes} bytes long; the limit is {limit}")]
    ReasonTooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The user has as many as there may be.
    #[error(
        "{MOST_FOR_USER} pre-approvals are given to `{0}`, which is the limit; take one back with `request allows rm ID`"
    )]
    TooManyFor(UserName),
    /// The author has given as many as there may be.
    #[error(
        "{MOST_OF_AUTHOR} pre-approvals are yours, which is the limit; take one back with `request allows rm ID`"
    )]
    TooManyOf,
}

impl Covers {
    /// Whether `request` is one of those, by the labels that its nodes have now.
    fn includes(&self, view: &View, request: &AccessRequest) -> bool {
        match (self, &request.reach) {
            (Self::Roles(roles), Reach::Roles) => {
                !request.roles.is_empty() && request.roles.is_subset(roles)
            }
            (
                Self::Nodes {
                    labels,
                    logins,
                    roles,
                },
                Reach::Resources(ids),
            ) => {
                let node = |id: &ResourceId| has_labels(view, id, labels) && within(id, logins);
                let through = roles
                    .as_ref()
                    .is_none_or(|roles| request.roles.is_subset(roles));
                !ids.is_empty() && !labels.is_empty() && through && ids.iter().all(node)
            }
            // Whole roles are more than nodes through them, and the other way round it is another
            // thing that was meant.
            (Self::Roles(_), Reach::Resources(_)) | (Self::Nodes { .. }, Reach::Roles) => false,
        }
    }

    fn check_names(&self) -> Result<(), AllowError> {
        let counts = match self {
            Self::Nodes {
                labels,
                logins,
                roles,
            } => [
                ("labels", Some(labels.len())),
                ("logins", logins.as_ref().map(BTreeSet::len)),
                ("roles", roles.as_ref().map(BTreeSet::len)),
            ],
            Self::Roles(roles) => [
                ("labels", None),
                ("logins", None),
                ("roles", Some(roles.len())),
            ],
        };
        for (what, count) in counts {
            match count {
                Some(0) => return Err(AllowError::Nothing),
                Some(count) if count > MOST_NAMES => {
                    return Err(AllowError::TooManyNames { what, count });
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

/// Whether `id` is a node of this cluster that has all of `labels` now.
fn has_labels(view: &View, id: &ResourceId, labels: &BTreeMap<String, String>) -> bool {
    let node = id
        .node_id()
        .filter(|_| id.cluster() == view.cluster())
        .and_then(|id| view.node(&id));
    node.is_some_and(|node| {
        labels
            .iter()
            .all(|(key, value)| node.labels.get(key) == Some(value))
    })
}

/// Whether `id` names logins, and no others than these.
fn within(id: &ResourceId, logins: &Option<BTreeSet<Login>>) -> bool {
    match (logins, id.logins()) {
        (None, _) => true,
        (Some(allowed), Some(asked)) => asked.is_subset(allowed),
        // Every login that a role gives, now or later.
        (Some(_), None) => false,
    }
}

impl Allowance {
    /// Whether it has not ended at `now`: it may have, and not be removed yet.
    #[must_use]
    pub fn is_in_force(&self, now: OffsetDateTime) -> bool {
        now < self.ends
    }

    /// Whether it gives its author's review of `request` at `now`: a request of its user that it
    /// covers, is pending, would be open before the allowance ends, and that the author may review
    /// at this moment and has not reviewed.
    #[must_use]
    pub fn speaks(&self, view: &View, request: &AccessRequest, now: OffsetDateTime) -> bool {
        let author = Author::User(self.author.clone());
        request.state == State::Pending
            && request.user == self.user
            && self.is_in_force(now)
            // What would be over as it begins is nobody's use, and the store counts in microseconds.
            && request.starts().max(now).saturating_add(Duration::SECOND) <= self.ends
            && !request.reviews.iter().any(|review| review.author == author)
            && self.covers.includes(view, request)
            && self.is_by_a_good_key(view)
            && may_review(view, &self.author, request).is_ok()
    }

    fn is_by_a_good_key(&self, view: &View) -> bool {
        let author = view.user(&self.author);
        // Before every lock ends: one that has ended counts until it is removed.
        let always = OffsetDateTime::UNIX_EPOCH;
        let locks = view.locks();
        let certificate_is_good = self.certificate.as_ref().is_none_or(|given| {
            // One that has ended, or is forgotten after that, was good; one that was revoked was not.
            let issued = view.credential(given.serial);
            locks.on_serial(given.serial, always).is_none()
                && locks.on_key(&given.key, always).is_none()
                && issued.is_none_or(|issued| issued.revoked.is_none())
        });
        author.is_some_and(|author| author.has_key(&self.key))
            && locks.on_key(&self.key, always).is_none()
            && certificate_is_good
    }

    /// Whether it can be given at `now`, when it begins: its author may review some of what it
    /// covers, and nothing is beyond its limits. A condition (`where`) in the author's roles is asked
    /// of each request, when there is one.
    ///
    /// # Errors
    /// [`AllowError`]; nothing in it tells a user that does not exist from one that the author has
    /// nothing to do with.
    pub fn check(&self, view: &View, now: OffsetDateTime) -> Result<(), AllowError> {
        if self.author == self.user {
            return Err(AllowError::Own);
        }
        self.covers.check_names()?;
        let lasts = self.ends - now;
        if lasts > LONGEST {
            return Err(AllowError::TooLong(lasts));
        }
        if lasts < Duration::SECOND {
            return Err(AllowError::TooShort);
        }
        let limit = view.settings().reason_bytes;
        if self.reason.len() > limit {
            return Err(AllowError::ReasonTooLong {
                bytes: self.reason.len(),
                limit,
            });
        }
        self.check_reviewable(view, now)?;
        if view.allowances_for(&self.user).count() >= MOST_FOR_USER {
            return Err(AllowError::TooManyFor(self.user.clone()));
        }
        if view.allowances_of(&self.author).count() >= MOST_OF_AUTHOR {
            return Err(AllowError::TooManyOf);
        }
        Ok(())
    }

    fn check_reviewable(&self, view: &View, now: OffsetDateTime) -> Result<(), AllowError> {
        let possible = policy::request_capabilities(view, &self.user, now);
        let reviewable = |role: &RoleName| may_review_some(view, &self.author, role);
        let not_nodes = |role| AllowError::NotNodes(self.user.clone(), role);
        match &self.covers {
            Covers::Roles(roles) => {
                let good = |role: &&RoleName| possible.roles.contains(role) && reviewable(role);
                roles
                    .iter()
                    .find(|role| !good(role))
                    .map_or(Ok(()), |role| {
                        Err(AllowError::NotRole {
                            user: self.user.clone(),
                            role: role.clone(),
                        })
                    })
            }
            Covers::Nodes {
                roles: Some(roles), ..
            } => {
                let searched = &possible.search_as_roles;
                let good = |role: &&RoleName| searched.contains(role) && reviewable(role);
                let bad = roles.iter().find(|role| !good(role));
                bad.map_or(Ok(()), |role| Err(not_nodes(Some(role.clone()))))
            }
            Covers::Nodes { roles: None, .. } => {
                if possible.search_as_roles.iter().any(reviewable) {
                    Ok(())
                } else {
                    Err(not_nodes(None))
                }
            }
        }
    }
}

/// The allowances that give a review of `request` at `now`, those that last longest first: what the
/// first opens ends latest.
pub(crate) fn speaking(
    view: &View,
    request: &AccessRequest,
    now: OffsetDateTime,
) -> Vec<Arc<Allowance>> {
    let mut found: Vec<Arc<Allowance>> = view
        .allowances_for(&request.user)
        .filter(|allowance| allowance.speaks(view, request, now))
        .cloned()
        .collect();
    found.sort_by(|a, b| b.ends.cmp(&a.ends).then(a.id.cmp(&b.id)));
    found
}
