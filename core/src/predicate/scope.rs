//! The contexts: where expressions are written, which names exist there, and what they stand for.

mod rule;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt;
use std::ops::ControlFlow;

use time::OffsetDateTime;

use crate::id::{RoleName, UserName};
use crate::request::Annotations;
use crate::user::User;

use super::eval::{Fault, Stop};

pub(crate) use rule::has_name;
pub use rule::{RuleEnv, RuleWhere};

/// A place where expressions are written. The contexts are [`NodeLabels`], [`Resource`],
/// [`ReviewWhere`], [`ThresholdFilter`], [`RuleWhere`] and [`MonitoringRule`].
pub trait Context: Lookup {}

impl<C: Lookup> Context for C {}

/// What is behind a name, if what is asked about has such a name.
pub(super) type Found<T> = Result<T, Fault>;

/// What is done with each value of a list; it may end the visit.
pub(super) type Visit<'v, 'e> = &'v mut dyn FnMut(Cow<'e, str>) -> ControlFlow<Stop>;

/// The names of a context and how they are looked up. Each type of name is a Rust type of its
/// own, so that nothing can be looked up as what it is not.
pub trait Lookup: Sized + Copy + 'static {
    /// What is written, for messages: `a label expression`.
    const PLACE: &'static str;
    /// Every name, as it is written, in the order of the documentation.
    const NAMES: &'static [(&'static str, Name<Self>)];
    /// The map that `labels_matching` reads, if there is one.
    const LABELS: Option<Self::Labels>;
    /// Whether `search` has something to search.
    const SEARCH: bool;
    /// The values at one moment.
    type Env<'e>;
    /// Names of texts.
    type Text: Copy + fmt::Debug + PartialEq;
    /// Names of lists of texts.
    type List: Copy + fmt::Debug + PartialEq;
    /// Names of maps from text to text.
    type Labels: Copy + fmt::Debug + PartialEq;
    /// Names of maps from text to lists.
    type Lists: Copy + fmt::Debug + PartialEq;
    /// Names of instants.
    type Time: Copy + fmt::Debug + PartialEq;

    /// The text behind a name.
    ///
    /// # Errors
    /// [`Fault`] where what is asked about has no such name.
    fn text<'e>(env: &Self::Env<'e>, name: Self::Text) -> Found<Cow<'e, str>>
    where
        'e: 'e;
    /// Visits the list behind a name.
    fn list<'e>(env: &Self::Env<'e>, name: Self::List, visit: Visit<'_, 'e>) -> ControlFlow<Stop>;
    /// The map behind a name.
    ///
    /// # Errors
    /// [`Fault`] where what is asked about has no such name.
    fn labels<'e>(env: &Self::Env<'e>, name: Self::Labels) -> Found<&'e BTreeMap<String, String>>
    where
        'e: 'e;
    /// Visits the list under `key` of the map behind a name.
    fn values<'e>(
        env: &Self::Env<'e>,
        name: Self::Lists,
        key: &str,
        visit: Visit<'_, 'e>,
    ) -> ControlFlow<Stop>;
    /// The instant behind a name, in the time zone in which it is to be read.
    fn time(env: &Self::Env<'_>, name: Self::Time) -> OffsetDateTime;
    /// Whether `word` occurs, as `search` searches.
    fn search(env: &Self::Env<'_>, word: &str) -> bool;
}

/// A name and what is behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name<C: Lookup> {
    /// A text.
    Text(C::Text),
    /// A list of texts.
    List(C::List),
    /// A map from text to text.
    Labels(C::Labels),
    /// A map from text to lists.
    Lists(C::Lists),
    /// An instant.
    Time(C::Time),
}

/// Visits texts that live as long as the environment.
fn visit_all<'e>(
    texts: impl IntoIterator<Item = &'e str>,
    visit: Visit<'_, 'e>,
) -> ControlFlow<Stop> {
    texts
        .into_iter()
        .try_for_each(|text| visit(Cow::Borrowed(text)))
}

/// The values of a user's trait.
fn visit_trait<'e>(user: &'e User, key: &str, visit: Visit<'_, 'e>) -> ControlFlow<Stop> {
    visit_all(user.trait_values(key), visit)
}

/// The values under `key`.
fn visit_entry<'e>(map: &'e Annotations, key: &str, visit: Visit<'_, 'e>) -> ControlFlow<Stop> {
    visit_all(
        map.get(key).into_iter().flatten().map(String::as_str),
        visit,
    )
}

/// `node_labels_expression` of a role, and the same of the other kinds of resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeLabels;

/// What a label expression is asked about.
#[derive(Debug, Clone, Copy)]
pub struct NodeLabelsEnv<'e> {
    /// `labels`: of the node or the other resource.
    pub labels: &'e BTreeMap<String, String>,
    /// `user`: who wants to reach it.
    pub user: &'e User,
}

/// The only name of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Only;

impl Lookup for NodeLabels {
    const PLACE: &'static str = "a label expression";
    const NAMES: &'static [(&'static str, Name<Self>)] = &[
        ("labels", Name::Labels(Only)),
        ("user.spec.traits", Name::Lists(Only)),
        ("user.metadata.name", Name::Text(Only)),
    ];
    const LABELS: Option<Only> = Some(Only);
    const SEARCH: bool = false;
    type Env<'e> = NodeLabelsEnv<'e>;
    type Text = Only;
    type List = Infallible;
    type Labels = Only;
    type Lists = Only;
    type Time = Infallible;

    fn text<'e>(env: &NodeLabelsEnv<'e>, Only: Only) -> Found<Cow<'e, str>>
    where
        'e: 'e,
    {
        Ok(Cow::Borrowed(env.user.name.as_str()))
    }

    fn list<'e>(_: &NodeLabelsEnv<'e>, name: Infallible, _: Visit<'_, 'e>) -> ControlFlow<Stop> {
        match name {}
    }

    fn labels<'e>(env: &NodeLabelsEnv<'e>, Only: Only) -> Found<&'e BTreeMap<String, String>>
    where
        'e: 'e,
    {
        Ok(env.labels)
    }

    fn values<'e>(
        env: &NodeLabelsEnv<'e>,
        Only: Only,
        key: &str,
        visit: Visit<'_, 'e>,
    ) -> ControlFlow<Stop> {
        visit_trait(env.user, key, visit)
    }

    fn time(_: &NodeLabelsEnv<'_>, name: Infallible) -> OffsetDateTime {
        match name {}
    }

    fn search(_: &NodeLabelsEnv<'_>, _: &str) -> bool {
        false
    }
}

/// `--query` of `ls` and `request search`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource;

/// The resource that a query is asked about.
#[derive(Debug, Clone, Copy)]
pub struct ResourceEnv<'e> {
    /// `resource.kind`, as documents have it.
    pub kind: &'e str,
    /// `resource.metadata.name`; the UUID of a node.
    pub metadata_name: &'e str,
    /// `name`: the host name of a node, the name of anything else.
    pub name: &'e str,
    /// `resource.spec.hostname`; empty for what has none.
    pub hostname: &'e str,
    /// `resource.spec.addr`; empty for what has none.
    pub addr: &'e str,
    /// `resource.metadata.description`; empty for what has none.
    pub description: &'e str,
    /// `labels`.
    pub labels: &'e BTreeMap<String, String>,
}

impl ResourceEnv<'_> {
    /// Whether every one of `words` occurs in a name, the address, the description, or a label's
    /// key or value, in upper or lower case: `--search a,b`.
    #[must_use]
    pub fn has_words<W: AsRef<str>>(&self, words: &[W]) -> bool {
        words.iter().all(|word| self.has_word(word.as_ref()))
    }

    fn has_word(&self, word: &str) -> bool {
        let word = word.to_lowercase();
        let plain = [
            self.name,
            self.metadata_name,
            self.hostname,
            self.addr,
            self.description,
        ];
        let labels = self.labels.iter();
        plain
            .into_iter()
            .chain(labels.flat_map(|(key, value)| [key.as_str(), value.as_str()]))
            .any(|text| text.to_lowercase().contains(&word))
    }
}

/// The texts of [`Resource`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceText {
    /// `name`.
    Name,
    /// `resource.kind`.
    Kind,
    /// `resource.metadata.name`.
    MetadataName,
    /// `resource.metadata.description`.
    Description,
    /// `resource.spec.hostname`.
    Hostname,
    /// `resource.spec.addr`.
    Addr,
}

impl Lookup for Resource {
    const PLACE: &'static str = "a query";
    const NAMES: &'static [(&'static str, Name<Self>)] = &[
        ("labels", Name::Labels(Only)),
        ("name", Name::Text(ResourceText::Name)),
        ("resource.kind", Name::Text(ResourceText::Kind)),
        ("resource.metadata.labels", Name::Labels(Only)),
        (
            "resource.metadata.name",
            Name::Text(ResourceText::MetadataName),
        ),
        (
            "resource.metadata.description",
            Name::Text(ResourceText::Description),
        ),
        ("resource.spec.hostname", Name::Text(ResourceText::Hostname)),
        ("resource.spec.addr", Name::Text(ResourceText::Addr)),
    ];
    const LABELS: Option<Only> = Some(Only);
    const SEARCH: bool = true;
    type Env<'e> = ResourceEnv<'e>;
    type Text = ResourceText;
    type List = Infallible;
    type Labels = Only;
    type Lists = Infallible;
    type Time = Infallible;

    fn text<'e>(env: &ResourceEnv<'e>, name: ResourceText) -> Found<Cow<'e, str>>
    where
        'e: 'e,
    {
        Ok(Cow::Borrowed(match name {
            ResourceText::Name => env.name,
            ResourceText::Kind => env.kind,
            ResourceText::MetadataName => env.metadata_name,
            ResourceText::Description => env.description,
            ResourceText::Hostname => env.hostname,
            ResourceText::Addr => env.addr,
        }))
    }

    fn list<'e>(_: &ResourceEnv<'e>, name: Infallible, _: Visit<'_, 'e>) -> ControlFlow<Stop> {
        match name {}
    }

    fn labels<'e>(env: &ResourceEnv<'e>, Only: Only) -> Found<&'e BTreeMap<String, String>>
    where
        'e: 'e,
    {
        Ok(env.labels)
    }

    fn values<'e>(
        _: &ResourceEnv<'e>,
        name: Infallible,
        _: &str,
        _: Visit<'_, 'e>,
    ) -> ControlFlow<Stop> {
        match name {}
    }

    fn time(_: &ResourceEnv<'_>, name: Infallible) -> OffsetDateTime {
        match name {}
    }

    fn search(env: &ResourceEnv<'_>, word: &str) -> bool {
        env.has_word(word)
    }
}

/// `review_requests.where` of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReviewWhere;

/// `thresholds[].filter` of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThresholdFilter;

/// Who reviews what, for [`ReviewWhere`] and [`ThresholdFilter`].
#[derive(Debug, Clone, Copy)]
pub struct ReviewEnv<'e> {
    /// `reviewer`, with the stored roles and traits.
    pub reviewer: &'e User,
    /// `request.roles`.
    pub roles: &'e BTreeSet<RoleName>,
    /// `request.reason`.
    pub reason: &'e str,
    /// `request.system_annotations`.
    pub annotations: &'e Annotations,
    /// `review.reason`; nothing reads it in [`ReviewWhere`], where there is no review yet.
    pub review_reason: &'e str,
}

/// The lists of the review contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewList {
    /// `reviewer.roles`.
    ReviewerRoles,
    /// `request.roles`.
    RequestRoles,
}

/// The maps of the review contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReviewLists {
    /// `reviewer.traits`.
    Traits,
    /// `request.system_annotations`.
    Annotations,
}

/// The texts of [`ThresholdFilter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterText {
    /// `request.reason`.
    RequestReason,
    /// `review.reason`.
    ReviewReason,
}

impl<'e> ReviewEnv<'e> {
    fn list(&self, name: ReviewList, visit: Visit<'_, 'e>) -> ControlFlow<Stop> {
        let roles = match name {
            ReviewList::ReviewerRoles => &self.reviewer.roles,
            ReviewList::RequestRoles => self.roles,
        };
        visit_all(roles.iter().map(RoleName::as_str), visit)
    }

    fn values(&self, name: ReviewLists, key: &str, visit: Visit<'_, 'e>) -> ControlFlow<Stop> {
        match name {
            ReviewLists::Traits => visit_trait(self.reviewer, key, visit),
            ReviewLists::Annotations => visit_entry(self.annotations, key, visit),
        }
    }
}

/// The two review contexts differ in their texts only.
macro_rules! review_context {
    ($context:ty, $place:literal, $text:ty, [$($texts:expr),*], |$env:ident, $name:ident| $read:expr) => {
        impl Lookup for $context {
            const PLACE: &'static str = $place;
            const NAMES: &'static [(&'static str, Name<Self>)] = &[
                ("reviewer.roles", Name::List(ReviewList::ReviewerRoles)),
                ("reviewer.traits", Name::Lists(ReviewLists::Traits)),
                $($texts,)*
                ("request.roles", Name::List(ReviewList::RequestRoles)),
                ("request.system_annotations", Name::Lists(ReviewLists::Annotations)),
            ];
            const LABELS: Option<Infallible> = None;
            const SEARCH: bool = false;
            type Env<'e> = ReviewEnv<'e>;
            type Text = $text;
            type List = ReviewList;
            type Labels = Infallible;
            type Lists = ReviewLists;
            type Time = Infallible;

            fn text<'e>($env: &ReviewEnv<'e>, $name: $text) -> Found<Cow<'e, str>>
            where
                'e: 'e,
            {
                Ok(Cow::Borrowed($read))
            }

            fn list<'e>(
                env: &ReviewEnv<'e>,
                name: ReviewList,
                visit: Visit<'_, 'e>,
            ) -> ControlFlow<Stop> {
                env.list(name, visit)
            }

            fn labels<'e>(
                _: &ReviewEnv<'e>,
                name: Infallible,
            ) -> Found<&'e BTreeMap<String, String>>
            where
                'e: 'e,
            {
                match name {}
            }

            fn values<'e>(
                env: &ReviewEnv<'e>,
                name: ReviewLists,
                key: &str,
                visit: Visit<'_, 'e>,
            ) -> ControlFlow<Stop> {
                env.values(name, key, visit)
            }

            fn time(_: &ReviewEnv<'_>, name: Infallible) -> OffsetDateTime {
                match name {}
            }

            fn search(_: &ReviewEnv<'_>, _: &str) -> bool {
                false
            }
        }
    };
}

review_context!(
    ReviewWhere,
    "`review_requests.where`",
    Only,
    [("request.reason", Name::Text(Only))],
    |env, _name| env.reason
);

review_context!(
    ThresholdFilter,
    "a threshold's `filter`",
    FilterText,
    [
        ("review.reason", Name::Text(FilterText::ReviewReason)),
        ("request.reason", Name::Text(FilterText::RequestReason))
    ],
    |env, name| match name {
        FilterText::RequestReason => env.reason,
        FilterText::ReviewReason => env.review_reason,
    }
);

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
