//! Label selectors: the part of a role that is evaluated for a certain node and a certain user.
//!
//! [`LabelSelector::matches`] is the one answer to "does this side of the role speak of this
//! node": labels and expression are asked there together and nowhere else.

use std::collections::BTreeMap;

use crate::pattern::{Pattern, same};
use crate::predicate::{NodeLabels, NodeLabelsEnv, Predicate};
use crate::user::User;

pub use crate::template::{Template, TemplateError};

/// Which nodes a role speaks of: by `node_labels`, of which every key must match (AND) and a key's
/// values are alternatives (OR), and by `node_labels_expression`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    // Each key once, those that cost least to compare first: most nodes fail at the first key,
    // and a decision asks every role of the user.
    keys: Vec<(String, Vec<LabelValue>)>,
    expression: Option<Box<Expression>>,
}

/// An expression beside the labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expression {
    predicate: Predicate<NodeLabels>,
    effect: Effect,
}

/// What an expression does, by the side of the role it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Under `allow`: labels, where there are any, and expression must both match.
    Narrows,
    /// Under `deny`: one of them suffices.
    Widens,
}

/// One alternative for a label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelValue {
    /// A literal, glob or regular expression.
    Pattern(Pattern),
    /// A trait of the user, whose values are taken literally: a trait never widens to a glob.
    Template(Template),
}

/// A node's labels in a row: with hundreds of roles, walking along a map for each of them takes
/// longer than all the comparing.
#[derive(Debug)]
pub(crate) struct Listed<'l> {
    all: &'l BTreeMap<String, String>,
    row: Vec<(&'l str, &'l str)>,
}

impl<'l> Listed<'l> {
    pub(crate) fn new(all: &'l BTreeMap<String, String>) -> Self {
        let pairs = all.iter();
        let row = pairs.map(|(key, value)| (key.as_str(), value.as_str()));
        Self {
            all,
            row: row.collect(),
        }
    }

    fn find(&self, key: &str) -> Option<&'l str> {
        let label = self.row.iter().find(|(name, _)| same(name, key));
        label.map(|(_, value)| *value)
    }
}

impl LabelSelector {
    /// Selects every node, including one without labels: `'*': '*'`.
    #[must_use]
    pub fn everything() -> Self {
        let any = Pattern::parse("*").map(LabelValue::Pattern);
        Self {
            keys: vec![("*".to_owned(), any.into_iter().collect())],
            expression: None,
        }
    }

    /// A selector over `keys`, as read from a document.
    #[must_use]
    pub fn new(keys: BTreeMap<String, Vec<LabelValue>>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        // Stable, so that equal documents give equal selectors.
        keys.sort_by_key(|(_, values)| values.iter().map(LabelValue::cost).sum::<usize>());
        Self {
            keys,
            expression: None,
        }
    }

    /// The nodes that these labels select *and* for which `predicate` is true; without labels
    /// those for which it is true. For `allow`: what can't be evaluated selects nothing.
    #[must_use]
    pub fn narrowed_by(mut self, predicate: Predicate<NodeLabels>) -> Self {
        let effect = Effect::Narrows;
        self.expression = Some(Box::new(Expression { predicate, effect }));
        self
    }

    /// The nodes that these labels select *or* for which `predicate` is true. For `deny`, which
    /// is greedy: what can't be evaluated selects everything.
    #[must_use]
    pub fn widened_by(mut self, predicate: Predicate<NodeLabels>) -> Self {
        let effect = Effect::Widens;
        self.expression = Some(Box::new(Expression { predicate, effect }));
        self
    }

    /// The expression, if there is one.
    #[must_use]
    pub fn expression(&self) -> Option<&Predicate<NodeLabels>> {
        self.expression.as_ref().map(|found| &found.predicate)
    }

    /// Whether nothing is selected: no selector matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.expression.is_none()
    }

    /// What it wants of single labels: each key with the values that satisfy it.
    pub(crate) fn conditions(&self) -> impl Iterator<Item = (&str, &[LabelValue])> {
        let of_labels = self.keys.iter().filter(|(key, _)| key != "*");
        of_labels.map(|(key, values)| (key.as_str(), values.as_slice()))
    }

    /// Whether a node with `labels` is selected for `user`.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>, user: &User) -> bool {
        // Faster than the map's own search for the handful of labels that nodes have.
        let find = |key: &str| {
            let mut labels = labels.iter();
            let label = labels.find(|(name, _)| same(name, key));
            label.map(|(_, value)| value.as_str())
        };
        self.matches_found(labels, find, user)
    }

    /// The same, where many selectors are asked about one node.
    pub(crate) fn matches_listed(&self, labels: &Listed<'_>, user: &User) -> bool {
        self.matches_found(labels.all, |key| labels.find(key), user)
    }

    fn matches_found<'l>(
        &self,
        labels: &BTreeMap<String, String>,
        find: impl Fn(&str) -> Option<&'l str>,
        user: &User,
    ) -> bool {
        match &self.expression {
            None => self.labels_match(&find, user),
            Some(expression) if expression.effect == Effect::Narrows => {
                (self.keys.is_empty() || self.labels_match(&find, user))
                    && self.expression_matches(labels, user) == Some(true)
            }
            Some(_) => {
                self.labels_match(&find, user)
                    || self.expression_matches(labels, user) == Some(true)
            }
        }
    }

    /// Whether the expression, if there is one, speaks for the selection of a node with `labels`.
    #[must_use]
    pub fn expression_matches(
        &self,
        labels: &BTreeMap<String, String>,
        user: &User,
    ) -> Option<bool> {
        let expression = self.expression.as_ref()?;
        let env = NodeLabelsEnv { labels, user };
        Some(match expression.effect {
            Effect::Narrows => expression.predicate.allows(&env),
            Effect::Widens => expression.predicate.denies(&env),
        })
    }

    fn labels_match<'l>(&self, find: &impl Fn(&str) -> Option<&'l str>, user: &User) -> bool {
        !self.keys.is_empty()
            && self.keys.iter().all(|(key, values)| {
                if key == "*" {
                    // Says nothing about any single label, so a node without labels passes.
                    return values.iter().any(LabelValue::is_anything);
                }
                find(key).is_some_and(|label| values.iter().any(|value| value.matches(label, user)))
            })
    }
}

impl LabelValue {
    /// Reads a value as a document has it.
    ///
    /// # Errors
    /// [`TemplateError`] if it is a broken template or regular expression.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains("{{") {
            return Ok(Self::Template(Template::parse(text)?));
        }
        Ok(Self::Pattern(Pattern::parse(text)?))
    }

    /// Whether this is `*`.
    #[must_use]
    pub fn is_anything(&self) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.is_anything(),
            Self::Template(_) => false,
        }
    }

    /// How much a comparison costs, roughly, in comparisons of two words.
    fn cost(&self) -> usize {
        match self {
            Self::Pattern(pattern) if pattern.literal().is_some() => 1,
            Self::Pattern(_) | Self::Template(_) => 10,
        }
    }

    pub(crate) fn matches(&self, label: &str, user: &User) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(label),
            Self::Template(template) => template.expands_to(user, label),
        }
    }
}
