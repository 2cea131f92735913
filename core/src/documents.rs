//! Documents: roles, users, nodes and other resources as YAML or JSON, read with the line of every mistake.
//!
//! A text is read as a whole or not at all. An unknown field is an error, and so is one that
//! Teleport has and Anteroom does not serve yet: a rule that is ignored would be a hole. What the
//! store does with a document, and whether the roles it names exist, is the caller's business.

mod at;
mod error;
mod kube;
mod lock;
mod monitoring;
mod node;
mod nothing;
mod options;
mod resource;
mod role;
mod token;
mod tree;
mod unmatched;
mod user;
mod words;
mod write;

use std::collections::BTreeMap;

use crate::monitoring::MonitoringRule;
use crate::resource::{Kind as ResourceKind, Resource};
use crate::role::Role;

use at::{At, Fields, Map};
use node::read_node;
use tree::Yaml;
use user::read_user;

pub use error::{DocumentError, DocumentProblem};
pub use lock::{LockDocument, parse_serial};
pub use node::NodeDocument;
pub use resource::resource_to_json;
pub use token::{Life, TokenDocument};
pub use unmatched::{Unmatched, check_role_patterns};
pub use user::UserDocument;
pub use write::{lock_to_json, node_to_json, to_yaml, token_to_json, user_to_json};

/// One checked document.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// `kind: role`.
    Role(Box<Role>),
    /// `kind: user`.
    User(UserDocument),
    /// `kind: node`.
    Node(NodeDocument),
    /// `kind: lock`.
    Lock(LockDocument),
    /// `kind: app`, `db`, `kube_cluster` or `windows_desktop`.
    Resource(Resource),
    /// `kind: access_monitoring_rule`.
    MonitoringRule(Box<MonitoringRule>),
    /// `kind: token`.
    Token(TokenDocument),
}

/// A problem and where it is; the document's number and name are added at the top.
struct Mistake {
    line: u64,
    column: u64,
    problem: DocumentProblem,
}

/// The most text that is read at once: room for some ten thousand nodes, and a bound on what one
/// command makes the proxy hold.
pub const TEXT_LIMIT: usize = 4 * 1024 * 1024;

/// Reads every document of `text`, or none.
///
/// # Errors
/// [`DocumentError`] names the first mistake with its document, line, column and field.
pub fn parse(text: &str) -> Result<Vec<Document>, DocumentError> {
    let whole = |problem: DocumentProblem| DocumentError {
        document: 0,
        name: None,
        line: 0,
        column: 0,
        problem: Box::new(problem),
    };
    if text.len() > TEXT_LIMIT {
        return Err(whole(DocumentProblem::TooLong {
            bytes: text.len(),
            limit: TEXT_LIMIT,
        }));
    }
    let trees = tree::parse(text).map_err(|mistake| DocumentError {
        document: 0,
        name: None,
        line: mistake.line,
        column: mistake.column,
        problem: Box::new(mistake.problem),
    })?;
    // A list is what `get --format json` prints: its items are the documents.
    let trees: Vec<&Yaml> = trees
        .iter()
        .flat_map(|tree| tree.items().unwrap_or(std::slice::from_ref(tree)))
        .collect();
    if trees.is_empty() {
        return Err(whole(DocumentProblem::Nothing));
    }
    let mut documents: Vec<Document> = Vec::new();
    for (index, tree) in trees.into_iter().enumerate() {
        let located = |mistake: Mistake| DocumentError {
            document: index + 1,
            name: title(tree),
            line: mistake.line,
            column: mistake.column,
            problem: Box::new(mistake.problem),
        };
        let document = read(tree).map_err(located)?;
        if documents
            .iter()
            .any(|other| document.is_named() && other.title() == document.title())
        {
            return Err(located(
                tree.mistake(DocumentProblem::Twice(document.title())),
            ));
        }
        documents.push(document);
    }
    Ok(documents)
}

/// Reads one role, from YAML, JSON or [`Role::source`] as text.
///
/// # Errors
/// [`DocumentError`], also if the text holds something else than one role.
pub fn parse_role(text: &str) -> Result<Role, DocumentError> {
    let mut documents = parse(text)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(Document::Role(role)), true) => Ok(*role),
        (
            Some(
                Document::Role(_)
                | Document::User(_)
                | Document::Node(_)
                | Document::Lock(_)
                | Document::Resource(_)
                | Document::Token(_)
                | Document::MonitoringRule(_),
            )
            | None,
            _,
        ) => Err(not_one_of("role")),
    }
}

/// Reads one access monitoring rule, from YAML, JSON or [`MonitoringRule::source`] as text. It has
/// no authors.
///
/// # Errors
/// [`DocumentError`], also if the text holds something else than one rule.
pub fn parse_monitoring_rule(text: &str) -> Result<MonitoringRule, DocumentError> {
    let mut documents = parse(text)?;
    match (documents.pop(), documents.is_empty()) {
        (Some(Document::MonitoringRule(rule)), true) => Ok(*rule),
        (
            Some(
                Document::Role(_)
                | Document::User(_)
                | Document::Node(_)
                | Document::Lock(_)
                | Document::Resource(_)
                | Document::Token(_)
                | Document::MonitoringRule(_),
            )
            | None,
            _,
        ) => Err(not_one_of("access_monitoring_rule")),
    }
}

fn not_one_of(kind: &str) -> DocumentError {
    DocumentError {
        document: 1,
        name: None,
        line: 0,
        column: 0,
        problem: Box::new(DocumentProblem::Value {
            field: "kind".to_owned(),
            value: "the text".to_owned(),
            wanted: format!("one document of kind {kind}"),
        }),
    }
}

impl Document {
    /// `KIND/NAME`, as `get` and `rm` take it.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            Self::Role(role) => format!("role/{}", role.name),
            Self::User(user) => format!("user/{}", user.name),
            Self::Node(NodeDocument { id: Some(id), .. }) => format!("node/{id}"),
            Self::Node(node) => format!("node/{}", node.name),
            Self::Lock(LockDocument { id: Some(id), .. }) => format!("lock/{id}"),
            Self::Lock(lock) => format!("lock on {}", lock.target),
            Self::Resource(resource) => format!("{}/{}", resource.kind(), resource.name),
            Self::MonitoringRule(rule) => format!("access_monitoring_rule/{}", rule.name),
            Self::Token(token) => format!("token/{}", token.id),
        }
    }

    /// Whether the document names the object; a lock gets its name where it is made.
    fn is_named(&self) -> bool {
        match self {
            Self::Role(_)
            | Self::User(_)
            | Self::Node(_)
            | Self::Resource(_)
            | Self::MonitoringRule(_)
            | Self::Token(_) => true,
            Self::Lock(lock) => lock.id.is_some(),
        }
    }
}

/// `KIND/NAME` of a tree that may be broken anywhere.
fn title(tree: &Yaml) -> Option<String> {
    let kind = tree.get("kind")?.text()?;
    let metadata = tree.get("metadata")?;
    let hostname = tree.get("spec").and_then(|spec| spec.get("hostname"));
    let name = hostname.or_else(|| metadata.get("name"))?.text()?;
    Some(format!(
        "{}/{}",
        crate::id::printable(kind),
        crate::id::printable(name)
    ))
}

const TOP: Fields = Fields {
    served: &["kind", "version", "metadata", "spec"],
    teleport: &["sub_kind", "status", "scope"],
    later: &[],
    only_allow: &[],
};

const METADATA: Fields = Fields {
    // `id` and `revision` number the versions of Teleport's own store; in ours they mean nothing.
    served: &["name", "description", "labels", "id", "revision"],
    teleport: &["namespace", "expires"],
    later: &[],
    only_allow: &[],
};

/// The kinds that are served, as `kind` names them.
#[derive(Clone, Copy)]
enum Kind {
    Role,
    User,
    Node,
    Lock,
    Resource(ResourceKind),
    MonitoringRule,
    Token,
}

fn read(tree: &Yaml) -> Result<Document, Mistake> {
    let top = At::top(tree).map(&TOP)?;
    let kind =
        read_kind(&top.required("kind", "write `kind: role`, `kind: user` or `kind: node`")?)?;
    let versions: &[&str] = match kind {
        Kind::Role => &["v3", "v4", "v5", "v6", "v7", "v8"],
        Kind::User | Kind::Node | Kind::Lock | Kind::Token => &["v1", "v2"],
        Kind::Resource(_) => &["v3"],
        Kind::MonitoringRule => &["v1"],
    };
    // Without a version a document is of the newest, which is also the strictest.
    top.get("version").map(|at| at.word(versions)).transpose()?;
    match kind {
        Kind::Role => role::read(&top, tree).map(|role| Document::Role(Box::new(role))),
        Kind::User => read_user(&top).map(Document::User),
        Kind::Node => read_node(&top).map(Document::Node),
        Kind::Lock => lock::read(&top).map(Document::Lock),
        Kind::Token => token::read(&top).map(Document::Token),
        Kind::Resource(kind) => resource::read(kind, &top).map(Document::Resource),
        Kind::MonitoringRule => {
            monitoring::read(&top, tree).map(|rule| Document::MonitoringRule(Box::new(rule)))
        }
    }
}

fn read_kind(at: &At<'_>) -> Result<Kind, Mistake> {
    let text = at.text()?;
    let served = match text {
        "role" => Some(Kind::Role),
        "user" => Some(Kind::User),
        "node" => Some(Kind::Node),
        "lock" => Some(Kind::Lock),
        "token" => Some(Kind::Token),
        "access_monitoring_rule" => Some(Kind::MonitoringRule),
        text => ResourceKind::of_word(text).map(Kind::Resource),
    };
    served.ok_or_else(|| {
        at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: crate::id::printable(text),
            wanted: resource::kinds(),
        })
    })
}

/// `metadata`, which every kind has.
struct Metadata<'a> {
    name: At<'a>,
    description: Option<String>,
    labels: BTreeMap<String, String>,
}

fn read_metadata<'a>(top: &Map<'a>) -> Result<Metadata<'a>, Mistake> {
    const HINT: &str = "write `metadata:` and below it `name:`";
    let metadata = top.required("metadata", HINT)?.map(&METADATA)?;
    let name = metadata.required("name", HINT)?;
    let labels = metadata.get("labels").map(|at| read_labels(&at));
    Ok(Metadata {
        name,
        description: metadata.text("description")?,
        labels: labels.transpose()?.unwrap_or_default(),
    })
}

fn read_labels(at: &At<'_>) -> Result<BTreeMap<String, String>, Mistake> {
    let mut labels = BTreeMap::new();
    for (label, value) in at.entries()? {
        if label.starts_with("anteroom/") {
            return Err(value.mistake(DocumentProblem::ReservedLabel {
                field: value.path(),
            }));
        }
        if label.is_empty() || label.chars().any(char::is_control) {
            return Err(value.mistake(DocumentProblem::Control {
                field: value.path(),
            }));
        }
        labels.insert(label.to_owned(), value.text()?.to_owned());
    }
    Ok(labels)
}
