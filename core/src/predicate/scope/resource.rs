//! The contexts of expressions about nodes and other resources: label expressions of roles, and `--query`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use time::OffsetDateTime;

use crate::predicate::eval::Stop;
use crate::user::User;

use super::{Found, Lookup, Name, Only, Visit, visit_trait};

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
