//! An expression that makes sense: every name exists, every value has the type that is due, every
//! pattern is compiled. What can't be evaluated can't be written down here.

use regex::Regex;
use time::Time;

use crate::pattern::Pattern;

use super::scope::Lookup;

/// True or false.
#[derive(Debug, Clone)]
pub(super) enum Bool<C: Lookup> {
    Const(bool),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
    Equal(Text<C>, Text<C>),
    Alike(Box<Self>, Box<Self>),
    Contains(List<C>, Text<C>),
    /// One of the second in the first.
    ContainsAny(List<C>, List<C>),
    /// All of the second in the first, and there are any.
    ContainsAll(List<C>, List<C>),
    IsEmpty(List<C>),
    Matches(List<C>, Pattern),
    HasPrefix(Text<C>, Text<C>),
    HasLabel(C::Labels, Text<C>),
    Search(Vec<String>),
    /// After the first and before the second.
    ClockBetween(C::Time, Time, Time),
}

/// A text.
#[derive(Debug, Clone)]
pub(super) enum Text<C: Lookup> {
    Literal(String),
    Name(C::Text),
    /// Empty where there is no such label.
    Label(C::Labels, Box<Self>),
    Change(Change, Box<Self>),
    Day(C::Time),
}

/// Texts, none of them empty.
#[derive(Debug, Clone)]
pub(super) enum List<C: Lookup> {
    One(Text<C>),
    Set(Vec<Text<C>>),
    Union(Vec<Self>),
    Without(Box<Self>, Vec<Text<C>>),
    Name(C::List),
    Entry(C::Lists, Text<C>),
    LabelsMatching(C::Labels, Pattern),
    Change(Change, Box<Self>),
    /// Values that do not match are dropped.
    RegexReplace(Box<Self>, Regex, String),
    Split(Box<Self>, Text<C>),
}

/// From one text to another.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Upper,
    Lower,
    EmailLocal,
    /// Every occurrence of the first by the second.
    Replace(String, String),
}
