//! The predicate language: conditions that roles, rules and listings are written in, as in
//! `labels["env"] == "prod" && contains(user.spec.traits["team"], labels["team"])`.
//!
//! A [`Predicate`] is parsed and type-checked when the document it stands in is saved: every name
//! exists in its [`Context`], every function gets what it takes, every regular expression
//! compiles. Evaluation then has a few ways to fail only, which [`Fault`] names; [`Predicate::allows`]
//! takes a fault for "no" and [`Predicate::denies`] for "yes", so that a fault never gives anybody
//! anything. The language and its differences from Teleport's are in `docs/predicates.md`.
//!
//! ```text
//!  text ─► token ─► syntax (a tree with positions) ─► check (typed, per context) ─► eval
//! ```

mod check;
mod error;
mod eval;
mod function;
mod scope;
mod syntax;
#[cfg(test)]
mod tests;
mod token;
mod typed;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::admin::AdminResource;

pub use error::{PredicateError, Problem};
pub use eval::Fault;
pub use scope::{
    Context, MonitoringEnv, MonitoringRule, NodeLabels, NodeLabelsEnv, Resource, ResourceEnv,
    ReviewEnv, ReviewWhere, RuleEnv, RuleWhere, ThresholdFilter,
};

/// The longest expression in bytes: some fifty lines, and more than any role needs that a person
/// is to understand.
pub const TEXT_LIMIT: usize = 8 * 1024;

/// How deep parentheses, calls and `!` may nest. Reading and evaluating recurse this deep and no
/// deeper, whatever the text, which keeps them within a task's stack.
pub const DEPTH_LIMIT: usize = 48;

/// An expression that was found to make sense in the context `C`. Equal to another of the same
/// text.
#[derive(Clone)]
pub struct Predicate<C: Context> {
    text: String,
    condition: typed::Bool<C>,
    /// Every name in it, with the byte where it stands.
    names: Vec<(&'static str, usize)>,
}

impl<C: Context> Predicate<C> {
    /// Parses and checks `text`.
    ///
    /// # Errors
    /// [`PredicateError`] with the position and what to write instead.
    pub fn parse(text: &str) -> Result<Self, PredicateError> {
        let tree = syntax::parse(text)?;
        let (condition, names) = check::condition(text, &tree)?;
        Ok(Self {
            condition,
            names,
            text: text.to_owned(),
        })
    }

    /// Evaluates it.
    ///
    /// # Errors
    /// [`Fault`] if the values are not what a function takes, or are too many.
    pub fn evaluate<'e>(&'e self, env: &C::Env<'e>) -> Result<bool, Fault> {
        eval::evaluate(&self.condition, env)
    }

    /// Whether it is true: for whatever gives something. A [`Fault`] gives nothing.
    #[must_use]
    pub fn allows<'e>(&'e self, env: &C::Env<'e>) -> bool {
        self.evaluate(env) == Ok(true)
    }

    /// Whether it is not false: for whatever takes something away. A [`Fault`] takes it away.
    #[must_use]
    pub fn denies<'e>(&'e self, env: &C::Env<'e>) -> bool {
        self.evaluate(env) != Ok(false)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Predicate<RuleWhere> {
    /// Refuses a name that none of `kinds` has: such a rule could never be evaluated.
    ///
    /// # Errors
    /// [`PredicateError`] with the position and the kinds that have it.
    pub(crate) fn check_kinds(&self, kinds: &[AdminResource]) -> Result<(), PredicateError> {
        let unknown = self.names.iter().find(|(name, _)| {
            !kinds.is_empty() && !kinds.iter().any(|kind| scope::has_name(*kind, name))
        });
        let Some((name, at)) = unknown else {
            return Ok(());
        };
        let words = |kinds: &mut dyn Iterator<Item = AdminResource>| {
            let words: Vec<String> = kinds.map(|kind| format!("`{}`", kind.as_str())).collect();
            words.join(", ")
        };
        let mut having = AdminResource::ALL.into_iter();
        let problem = Problem::OtherKind {
            name,
            of: words(&mut kinds.iter().copied()),
            known: words(&mut having.by_ref().filter(|kind| scope::has_name(*kind, name))),
        };
        Err(PredicateError::new(&self.text, *at, problem))
    }
}

impl<C: Context> fmt::Display for Predicate<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl<C: Context> fmt::Debug for Predicate<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Predicate({:?})", self.text)
    }
}

impl<C: Context> PartialEq for Predicate<C> {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl<C: Context> Eq for Predicate<C> {}

/// The text.
impl<C: Context> Serialize for Predicate<C> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

/// Fails if the text no longer parses. What is stored and must stay readable whatever happens to
/// the language keeps the text in [`Stored`].
impl<'de, C: Context> Deserialize<'de> for Predicate<C> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A predicate from the store, which was valid when it was written. If a later version of the
/// language no longer reads it, it is kept as it is and is never true.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<C: Context>(Result<Predicate<C>, String>);

impl<C: Context> Stored<C> {
    /// One that no longer parses: never true.
    pub(crate) const fn unreadable(text: String) -> Self {
        Self(Err(text))
    }

    /// Whether it still parses and is true.
    #[must_use]
    pub fn allows<'e>(&'e self, env: &C::Env<'e>) -> bool {
        self.0.as_ref().is_ok_and(|predicate| predicate.allows(env))
    }

    /// Whether it no longer parses, or can't be evaluated, or is true: for whatever takes
    /// something away.
    #[must_use]
    pub fn denies<'e>(&'e self, env: &C::Env<'e>) -> bool {
        self.0
            .as_ref()
            .map_or(true, |predicate| predicate.denies(env))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Ok(predicate) => predicate.as_str(),
            Err(text) => text,
        }
    }
}

impl<C: Context> From<Predicate<C>> for Stored<C> {
    fn from(predicate: Predicate<C>) -> Self {
        Self(Ok(predicate))
    }
}

impl<C: Context> Serialize for Stored<C> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de, C: Context> Deserialize<'de> for Stored<C> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Ok(Self(Predicate::parse(&text).map_err(|_| text)))
    }
}
