//! The contexts of expressions about a review: who may give it, and which thresholds count it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;

use time::OffsetDateTime;

use crate::id::RoleName;
use crate::predicate::eval::Stop;
use crate::request::Annotations;
use crate::user::User;

use super::{Found, Lookup, Name, Only, Visit, visit_all, visit_entry, visit_trait};

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
