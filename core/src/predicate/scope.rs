//! The contexts: where expressions are written, which names exist there, and what they stand for.

mod monitoring;
mod resource;
mod review;
mod rule;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;

use time::OffsetDateTime;

use crate::request::Annotations;
use crate::user::User;

use super::eval::{Fault, Stop};

pub use monitoring::{MonitoringEnv, MonitoringRule};
pub use resource::{NodeLabels, NodeLabelsEnv, Resource, ResourceEnv};
pub use review::{ReviewEnv, ReviewWhere, ThresholdFilter};
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

/// The only name of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Only;
