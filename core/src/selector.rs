//! Label selectors and templates: the two parts of a role that are evaluated for a certain node
//! and a certain user.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::pattern::{Pattern, PatternError, same};
use crate::user::User;

/// Which nodes a role speaks of. Every key must match (AND); a key's values are alternatives (OR).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    // Each key once, those that cost least to compare first: most nodes fail at the first key,
    // and a decision asks every role of the user.
    keys: Vec<(String, Vec<LabelValue>)>,
}

/// One alternative for a label's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelValue {
    /// A literal, glob or regular expression.
    Pattern(Pattern),
    /// A trait of the user, whose values are taken literally: a trait never widens to a glob.
    Template(Template),
}

/// A text that a trait of the user may stand in: `PREFIX{{external.NAME}}SUFFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    prefix: String,
    suffix: String,
    source: TemplateSource,
}

/// Where a template's values come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplateSource {
    /// No braces: the text itself.
    Literal,
    /// `{{internal.NAME}}` or `{{external.NAME}}`: the values of a trait.
    Trait(String),
    /// `{{user.metadata.name}}`: the user's name.
    UserName,
}

/// Why a template or label value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// Teleport's functions inside braces.
    #[error("`{0}` is a Teleport field that Anteroom does not serve yet")]
    NotServed(String),
    /// The braces do not hold what we know.
    #[error(
        "`{0}` is not a template; write {{{{internal.logins}}}}, {{{{external.TRAIT}}}}, {{{{external[\"TRAIT\"]}}}} or {{{{user.metadata.name}}}}, with plain text before and after"
    )]
    Malformed(String),
    /// A regular expression does not compile.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl LabelSelector {
    /// Selects every node, including one without labels: `'*': '*'`.
    #[must_use]
    pub fn everything() -> Self {
        let any = Pattern::parse("*").map(LabelValue::Pattern);
        Self {
            keys: vec![("*".to_owned(), any.into_iter().collect())],
        }
    }

    /// A selector over `keys`, as read from a document.
    #[must_use]
    pub fn new(keys: BTreeMap<String, Vec<LabelValue>>) -> Self {
        let mut keys: Vec<_> = keys.into_iter().collect();
        // Stable, so that equal documents give equal selectors.
        keys.sort_by_key(|(_, values)| values.iter().map(LabelValue::cost).sum::<usize>());
        Self { keys }
    }

    /// Whether nothing is selected: no selector matches nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a node with `labels` is selected for `user`.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>, user: &User) -> bool {
        !self.keys.is_empty()
            && self.keys.iter().all(|(key, values)| {
                if key == "*" {
                    // Says nothing about any single label, so a node without labels passes.
                    return values.iter().any(LabelValue::is_anything);
                }
                // Faster than the map's own search for the handful of labels that nodes have.
                let label = labels.iter().find(|(name, _)| same(name, key));
                label
                    .is_some_and(|(_, label)| values.iter().any(|value| value.matches(label, user)))
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

    fn matches(&self, label: &str, user: &User) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(label),
            Self::Template(template) => template.expands_to(user, label),
        }
    }
}

impl Template {
    /// Reads a text with at most one pair of braces.
    ///
    /// # Errors
    /// [`TemplateError`] if the braces hold something else than a trait or the user's name.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let Some((prefix, rest)) = text.split_once("{{") else {
            if text.contains("}}") {
                return Err(TemplateError::Malformed(crate::id::printable(text)));
            }
            return Ok(Self {
                text: text.to_owned(),
                prefix: text.to_owned(),
                suffix: String::new(),
                source: TemplateSource::Literal,
            });
        };
        let malformed = || TemplateError::Malformed(crate::id::printable(text));
        let (inner, suffix) = rest.split_once("}}").ok_or_else(malformed)?;
        if suffix.contains("{{") || suffix.contains("}}") || prefix.contains("}}") {
            return Err(malformed());
        }
        let inner = inner.trim();
        let source = TemplateSource::parse(inner).ok_or_else(malformed)??;
        Ok(Self {
            text: text.to_owned(),
            prefix: prefix.to_owned(),
            suffix: suffix.to_owned(),
            source,
        })
    }

    /// Whether `wanted` is one of the texts this expands to for `user`. Allocates nothing: this
    /// is on the path of every decision.
    #[must_use]
    pub fn expands_to(&self, user: &User, wanted: &str) -> bool {
        if self.source == TemplateSource::Literal {
            return same(&self.text, wanted);
        }
        let Some(value) = self.inside(wanted) else {
            return false;
        };
        match &self.source {
            TemplateSource::Literal => false,
            TemplateSource::Trait(name) => user.trait_values(name).any(|v| same(v, value)),
            TemplateSource::UserName => same(user.name.as_str(), value),
        }
    }

    /// What of `text` stands between prefix and suffix. Nothing, if nothing is left: what expands
    /// to nothing grants nothing.
    fn inside<'t>(&self, text: &'t str) -> Option<&'t str> {
        let inside = if self.prefix.is_empty() && self.suffix.is_empty() {
            text
        } else {
            text.strip_prefix(self.prefix.as_str())?
                .strip_suffix(self.suffix.as_str())?
        };
        Some(inside).filter(|inside| !inside.is_empty())
    }

    /// The texts this expands to for `user`; empty values expand to nothing.
    #[must_use]
    pub fn expand(&self, user: &User) -> Vec<String> {
        let mut texts = Vec::new();
        self.expand_into(user, &mut texts);
        texts.into_iter().map(Cow::into_owned).collect()
    }

    /// Appends the texts this expands to, borrowed where there is no prefix or suffix.
    pub(crate) fn expand_into<'a>(&'a self, user: &'a User, texts: &mut Vec<Cow<'a, str>>) {
        let expanded = |value: &'a str| {
            if self.prefix.is_empty() && self.suffix.is_empty() {
                Cow::Borrowed(value)
            } else {
                Cow::Owned(format!("{}{value}{}", self.prefix, self.suffix))
            }
        };
        match &self.source {
            TemplateSource::Literal => texts.push(Cow::Borrowed(&self.text)),
            TemplateSource::Trait(name) => {
                let values = user.trait_values(name).filter(|value| !value.is_empty());
                texts.extend(values.map(expanded));
            }
            TemplateSource::UserName => texts.push(expanded(user.name.as_str())),
        }
    }

    /// Whether there are no braces in it.
    #[must_use]
    pub fn is_literal(&self) -> bool {
        self.source == TemplateSource::Literal
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TemplateSource {
    /// Reads what stands inside the braces; `None` if it is nothing we or Teleport know.
    fn parse(inner: &str) -> Option<Result<Self, TemplateError>> {
        if inner == "user.metadata.name" {
            return Some(Ok(Self::UserName));
        }
        if inner.starts_with("email.local(") || inner.starts_with("regexp.replace(") {
            return Some(Err(TemplateError::NotServed(crate::id::printable(inner))));
        }
        let name = if let Some(name) = inner.strip_prefix("internal.") {
            name
        } else if let Some(name) = inner.strip_prefix("external.") {
            name
        } else {
            // A name with dots or spaces is written `external["a.b"]`.
            let quoted = inner
                .strip_prefix("external[\"")
                .or_else(|| inner.strip_prefix("internal[\""))?
                .strip_suffix("\"]")?;
            return (!quoted.is_empty() && !quoted.contains('"'))
                .then(|| Ok(Self::Trait(quoted.to_owned())));
        };
        let plain = !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        plain.then(|| Ok(Self::Trait(name.to_owned())))
    }
}
