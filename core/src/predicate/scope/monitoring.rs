//! The context of an access monitoring rule's condition: a request that was filed, and its user.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use time::OffsetDateTime;

use crate::id::{RoleName, UserName};
use crate::predicate::eval::Stop;
use crate::request::Annotations;
use crate::user::User;

use super::{Found, Lookup, Name, Visit, visit_all, visit_entry, visit_trait};

/// `spec.condition` of an access monitoring rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitoringRule;

/// The request that the condition of an access monitoring rule is asked about.
#[derive(Debug, Clone, Copy)]
pub struct MonitoringEnv<'e> {
    /// `access_request.spec.roles`.
    pub roles: &'e BTreeSet<RoleName>,
    /// `access_request.spec.suggested_reviewers`.
    pub suggested_reviewers: &'e BTreeSet<UserName>,
    /// `access_request.spec.system_annotations`.
    pub annotations: &'e Annotations,
    /// `access_request.spec.user` and, with the stored traits, `user.traits`.
    pub user: &'e User,
    /// `access_request.spec.request_reason`.
    pub reason: &'e str,
    /// `access_request.spec.creation_time`, in the time zone in which `clock_between` and `day`
    /// are to read it.
    pub created: OffsetDateTime,
    /// `access_request.spec.expiry`, in the same.
    pub expires: OffsetDateTime,
    /// The labels of each requested resource, for `access_request.spec.resource_labels_union` and
    /// `…_intersection`. A resource without labels is an empty map, never left out: what all
    /// resources share depends on it.
    pub resources: &'e [&'e BTreeMap<String, String>],
}

/// The texts of [`MonitoringRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitoringText {
    /// `access_request.spec.user`.
    User,
    /// `access_request.spec.request_reason`.
    Reason,
}

/// The lists of [`MonitoringRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitoringList {
    /// `access_request.spec.roles`.
    Roles,
    /// `access_request.spec.suggested_reviewers`.
    SuggestedReviewers,
}

/// The maps of [`MonitoringRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitoringLists {
    /// `access_request.spec.system_annotations`.
    Annotations,
    /// `access_request.spec.resource_labels_union`.
    Union,
    /// `access_request.spec.resource_labels_intersection`.
    Intersection,
    /// `user.traits`.
    Traits,
}

/// The instants of [`MonitoringRule`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MonitoringTime {
    /// `access_request.spec.creation_time`.
    Created,
    /// `access_request.spec.expiry`.
    Expires,
}

impl Lookup for MonitoringRule {
    const PLACE: &'static str = "the condition of an access monitoring rule";
    const NAMES: &'static [(&'static str, Name<Self>)] = &[
        (
            "access_request.spec.roles",
            Name::List(MonitoringList::Roles),
        ),
        (
            "access_request.spec.suggested_reviewers",
            Name::List(MonitoringList::SuggestedReviewers),
        ),
        (
            "access_request.spec.system_annotations",
            Name::Lists(MonitoringLists::Annotations),
        ),
        ("access_request.spec.user", Name::Text(MonitoringText::User)),
        (
            "access_request.spec.request_reason",
            Name::Text(MonitoringText::Reason),
        ),
        (
            "access_request.spec.creation_time",
            Name::Time(MonitoringTime::Created),
        ),
        (
            "access_request.spec.expiry",
            Name::Time(MonitoringTime::Expires),
        ),
        (
            "access_request.spec.resource_labels_union",
            Name::Lists(MonitoringLists::Union),
        ),
        (
            "access_request.spec.resource_labels_intersection",
            Name::Lists(MonitoringLists::Intersection),
        ),
        ("user.traits", Name::Lists(MonitoringLists::Traits)),
    ];
    const LABELS: Option<Infallible> = None;
    const SEARCH: bool = false;
    type Env<'e> = MonitoringEnv<'e>;
    type Text = MonitoringText;
    type List = MonitoringList;
    type Labels = Infallible;
    type Lists = MonitoringLists;
    type Time = MonitoringTime;

    fn text<'e>(env: &MonitoringEnv<'e>, name: MonitoringText) -> Found<Cow<'e, str>>
    where
        'e: 'e,
    {
        Ok(Cow::Borrowed(match name {
            MonitoringText::User => env.user.name.as_str(),
            MonitoringText::Reason => env.reason,
        }))
    }

    fn list<'e>(
        env: &MonitoringEnv<'e>,
        name: MonitoringList,
        visit: Visit<'_, 'e>,
    ) -> ControlFlow<Stop> {
        match name {
            MonitoringList::Roles => visit_all(env.roles.iter().map(RoleName::as_str), visit),
            MonitoringList::SuggestedReviewers => {
                visit_all(env.suggested_reviewers.iter().map(UserName::as_str), visit)
            }
        }
    }

    fn labels<'e>(_: &MonitoringEnv<'e>, name: Infallible) -> Found<&'e BTreeMap<String, String>>
    where
        'e: 'e,
    {
        match name {}
    }

    fn values<'e>(
        env: &MonitoringEnv<'e>,
        name: MonitoringLists,
        key: &str,
        visit: Visit<'_, 'e>,
    ) -> ControlFlow<Stop> {
        let all = || env.resources.iter().map(|labels| labels.get(key));
        match name {
            MonitoringLists::Annotations => visit_entry(env.annotations, key, visit),
            MonitoringLists::Traits => visit_trait(env.user, key, visit),
            MonitoringLists::Union => visit_all(all().flatten().map(String::as_str), visit),
            MonitoringLists::Intersection => {
                let first = all().next().flatten();
                let shared = first.filter(|first| all().all(|label| label == Some(*first)));
                visit_all(shared.map(String::as_str), visit)
            }
        }
    }

    fn time(env: &MonitoringEnv<'_>, name: MonitoringTime) -> OffsetDateTime {
        match name {
            MonitoringTime::Created => env.created,
            MonitoringTime::Expires => env.expires,
        }
    }

    fn search(_: &MonitoringEnv<'_>, _: &str) -> bool {
        false
    }
}
