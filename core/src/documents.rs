//! Documents: roles, users, nodes and other resources as YAML or JSON, read with the line of every mistake.
//!
//! A text is read as a whole or not at all. An unknown field is an error, and so is one that
//! Teleport has and Anteroom does not serve yet: a rule that is ignored would be a hole. What the
//! store does with a document, and whether the roles it names exist, is the caller's business.

mod kube;
mod lock;
mod monitoring;
mod nothing;
mod options;
mod resource;
mod role;
mod token;
mod tree;
mod unmatched;
mod words;
mod write;

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{IdError, Login, NodeId, NodeName, RoleName, UserName};
use crate::monitoring::MonitoringRule;
use crate::node::{HostProof, NodeAddr, NodeAddrError};
use crate::pattern::PatternError;
use crate::predicate::PredicateError;
use crate::resource::{Kind as ResourceKind, Resource};
use crate::role::Role;
use crate::selector::TemplateError;

use tree::{At, Fields, Map, Yaml};

pub use lock::{LockDocument, parse_serial};
pub use resource::resource_to_json;
pub use token::{Life, TokenDocument};
pub use unmatched::{Unmatched, check_role_patterns};
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

/// A user as a document describes her. Fingerprints are computed where keys are parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDocument {
    /// `metadata.name`.
    pub name: UserName,
    /// `spec.roles`.
    pub roles: BTreeSet<RoleName>,
    /// `spec.traits.logins`.
    pub logins: Vec<Login>,
    /// The other traits.
    pub traits: BTreeMap<String, Vec<String>>,
    /// `spec.keys`, each one OpenSSH line, not parsed yet.
    pub keys: Vec<String>,
    /// `spec.locked`: why the user is locked out, if she is.
    pub locked: Option<String>,
}

/// A node as a document describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeDocument {
    /// The UUID, if the document names one: `metadata.name` beside `spec.hostname`, as Teleport
    /// writes it.
    pub id: Option<NodeId>,
    /// `spec.hostname`, or `metadata.name` where that is no UUID.
    pub name: NodeName,
    /// `spec.addr`.
    pub addr: NodeAddr,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `spec.host_keys`, each one OpenSSH line, not parsed yet; or `spec.host_ca: true`.
    pub host_proof: HostProof,
    /// `spec.egress_addresses`, not parsed yet.
    pub egress_addresses: Vec<String>,
}

/// Why a text was refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", position(*.document, .name.as_deref(), *.line, *.column))]
pub struct DocumentError {
    /// Which document of the text, from 1; 0 if the text is no YAML.
    pub document: usize,
    /// `KIND/NAME`, as far as it is known.
    pub name: Option<String>,
    /// The line, from 1; 0 if there is none.
    pub line: u64,
    /// The column, from 1; 0 if there is none.
    pub column: u64,
    /// What is wrong.
    pub problem: Box<DocumentProblem>,
}

fn position(document: usize, name: Option<&str>, line: u64, column: u64) -> String {
    let mut out = match (name, document) {
        (Some(name), _) => format!("{name}, "),
        (None, 0) => String::new(),
        (None, number) => format!("document {number}, "),
    };
    if line > 0 {
        out.push_str(&format!("line {line}, column {column}: "));
    }
    out
}

fn did_you_mean(similar: &Option<&str>) -> String {
    similar
        .map(|field| format!(" (did you mean `{field}`?)"))
        .unwrap_or_default()
}

/// What is wrong with a document. `field` is the path, as in `spec.allow.logins`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentProblem {
    /// Not YAML (or JSON) at all.
    #[error("{0}")]
    Syntax(String),
    /// More text than the limit.
    #[error("the text is {bytes} bytes long; the limit is {limit}, so split it")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// No document in the text.
    #[error("there is no document in the text; start one with `kind: role`")]
    Nothing,
    /// A field that nobody knows.
    #[error("`{field}` is not a field{}; the fields here are {known}", did_you_mean(.similar))]
    UnknownField {
        /// The path.
        field: String,
        /// The field that is spelt almost so.
        similar: Option<&'static str>,
        /// The fields that are served there.
        known: String,
    },
    /// A field of Teleport's.
    #[error("`{field}` is a Teleport field that Anteroom does not serve yet")]
    NotServed {
        /// The path.
        field: String,
    },
    /// A value of a Teleport field that asks for something, where others ask for nothing.
    #[error(
        "`{field}` is a Teleport field that Anteroom does not serve yet; write {accepted}, which asks for nothing, or leave it out"
    )]
    AsksFor {
        /// The path.
        field: String,
        /// The values that ask for nothing.
        accepted: String,
    },
    /// An option of our own that nothing serves yet.
    #[error("`{field}` is not served yet; leave it out")]
    NotYet {
        /// The path.
        field: String,
    },
    /// A certificate extension that Anteroom writes itself.
    #[error("`{field}`: `{name}` is an extension that Anteroom writes itself; leave it out")]
    OwnExtension {
        /// The path.
        field: String,
        /// Its name.
        name: String,
    },
    /// A field that only `allow` may have.
    #[error("`{field}` has no meaning under deny; write it under allow")]
    OnlyAllow {
        /// The path.
        field: String,
    },
    /// A field that later versions of a role have.
    #[error("`{field}` needs a role of `version: {version}`")]
    NeedsVersion {
        /// The path.
        field: String,
        /// The first version that has it.
        version: &'static str,
    },
    /// A field that must be there.
    #[error("`{field}` is missing; {hint}")]
    Missing {
        /// The path.
        field: String,
        /// What to write.
        hint: &'static str,
    },
    /// A threshold by which nothing is ever decided.
    #[error(
        "`{field}` decides nothing: it neither approves nor denies; write `approve: 1`, `deny: 1` or more"
    )]
    IdleThreshold {
        /// The path.
        field: String,
    },
    /// A value of another type.
    #[error("`{field}` is {found}; write {wanted}")]
    Type {
        /// The path.
        field: String,
        /// What is there.
        found: &'static str,
        /// What should be.
        wanted: &'static str,
    },
    /// A word that is none of those that are possible.
    #[error("`{value}` is not a value of `{field}`; write {wanted}")]
    Value {
        /// The path.
        field: String,
        /// What is there.
        value: String,
        /// What is possible.
        wanted: String,
    },
    /// A name of the wrong form.
    #[error("`{field}`: {problem}")]
    Id {
        /// The path.
        field: String,
        /// What is wrong.
        problem: IdError,
    },
    /// A broken template.
    #[error("`{field}`: {problem}")]
    Template {
        /// The path.
        field: String,
        /// What is wrong.
        problem: TemplateError,
    },
    /// A broken pattern.
    #[error("`{field}`: {problem}")]
    Pattern {
        /// The path.
        field: String,
        /// What is wrong.
        problem: PatternError,
    },
    /// A broken expression.
    #[error("`{field}`: {problem}")]
    Predicate {
        /// The path.
        field: String,
        /// What is wrong, and where in the expression.
        problem: PredicateError,
    },
    /// A broken duration.
    #[error("`{field}`: {problem}")]
    Duration {
        /// The path.
        field: String,
        /// What is wrong.
        problem: crate::duration::DurationError,
    },
    /// A broken address.
    #[error("`{field}`: {problem}")]
    Address {
        /// The path.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A duration beyond its limit.
    #[error("`{field}` is {value}; the limit is {limit}")]
    TooMuch {
        /// The path.
        field: String,
        /// What is there.
        value: String,
        /// The most.
        limit: String,
    },
    /// The label key `*` with anything but `'*'`.
    #[error("`{field}` must be '*': the key '*' stands for every label")]
    Wildcard {
        /// The path.
        field: String,
    },
    /// A label of Anteroom's own.
    #[error(
        "`{field}` is reserved: labels that start with anteroom/ are set by Anteroom; choose another name"
    )]
    ReservedLabel {
        /// The path.
        field: String,
    },
    /// A map with a key that is no name.
    #[error("`{field}` has an entry without a name; write `name: value`")]
    NoName {
        /// The path of the map.
        field: String,
    },
    /// A text with control characters, in a place where people read it on a terminal.
    #[error("`{field}` has a control character in it; write plain text")]
    Control {
        /// The path.
        field: String,
    },
    /// A node without a way to prove itself.
    #[error(
        "`spec` names no way to know the node; write `host_keys` with its public host keys, or `host_ca: true`"
    )]
    NoHostProof,
    /// A node with two.
    #[error("`spec` has both `host_keys` and `host_ca`; write one of them")]
    TwoHostProofs,
    /// A lock on nothing, or on several things.
    #[error(
        "`spec.target` names one thing; write one of user, key, role, request, login, node and serial"
    )]
    OneTarget,
    /// A token that ends at two times.
    #[error("`spec` has both `ttl` and `expires`; write one of them")]
    TwoLives,
    /// The same document twice.
    #[error("`{0}` is in the text twice; remove one")]
    Twice(String),
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
    if trees.is_empty() {
        return Err(whole(DocumentProblem::Nothing));
    }
    let mut documents: Vec<Document> = Vec::new();
    for (index, tree) in trees.iter().enumerate() {
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
const USER_SPEC: Fields = Fields {
    served: &["roles", "traits", "keys", "locked"],
    teleport: &[
        "created_by",
        "expires",
        "github_identities",
        "local_auth",
        "oidc_identities",
        "saml_identities",
        "status",
        "trusted_device_ids",
    ],
    later: &[],
    only_allow: &[],
};
const NODE_SPEC: Fields = Fields {
    served: &[
        "hostname",
        "addr",
        "host_keys",
        "host_ca",
        "egress_addresses",
    ],
    teleport: &[
        "cloud_metadata",
        "cmd_labels",
        "github",
        "peer_addr",
        "proxy_ids",
        "public_addrs",
        "rotation",
        "use_tunnel",
        "version",
    ],
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

fn read_user(top: &Map<'_>) -> Result<UserDocument, Mistake> {
    let metadata = read_metadata(top)?;
    let mut user = UserDocument {
        name: metadata.name.parsed(UserName::parse)?,
        roles: BTreeSet::new(),
        logins: Vec::new(),
        traits: BTreeMap::new(),
        keys: Vec::new(),
        locked: None,
    };
    let Some(spec) = top.get("spec") else {
        return Ok(user);
    };
    let spec = spec.map(&USER_SPEC)?;
    user.roles = spec.all("roles", RoleName::parse)?;
    user.keys = spec.texts("keys")?;
    user.locked = spec.text("locked")?;
    if let Some(traits) = spec.get("traits") {
        for (name, values) in traits.entries()? {
            if name == "logins" {
                user.logins = values.all(Login::parse)?;
                continue;
            }
            let values = values.one_or_many()?;
            let values = values.iter().map(|item| item.text().map(str::to_owned));
            user.traits
                .insert(name.to_owned(), values.collect::<Result<_, _>>()?);
        }
    }
    Ok(user)
}

fn read_node(top: &Map<'_>) -> Result<NodeDocument, Mistake> {
    const HINT: &str = "write `spec:` and below it `addr: HOST:PORT`";
    let metadata = read_metadata(top)?;
    let spec = top.required("spec", HINT)?.map(&NODE_SPEC)?;
    let (id, name) = match spec.get("hostname") {
        Some(hostname) => (Some(metadata.name.parsed(NodeId::parse)?), hostname),
        None => (None, metadata.name),
    };
    let addr = spec.required("addr", HINT)?;
    let problem = |problem: NodeAddrError| {
        addr.mistake(DocumentProblem::Address {
            field: addr.path(),
            problem: problem.to_string(),
        })
    };
    Ok(NodeDocument {
        id,
        name: name.parsed(NodeName::parse)?,
        addr: NodeAddr::parse(addr.text()?).map_err(problem)?,
        labels: metadata.labels,
        host_proof: read_host_proof(&spec)?,
        egress_addresses: spec.texts("egress_addresses")?,
    })
}

fn read_host_proof(spec: &Map<'_>) -> Result<HostProof, Mistake> {
    let keys = spec.texts("host_keys")?;
    match (keys.is_empty(), spec.bool("host_ca")?.unwrap_or(false)) {
        (false, false) => Ok(HostProof::Pinned(keys)),
        (true, true) => Ok(HostProof::HostCa),
        (true, false) => Err(spec.mistake(DocumentProblem::NoHostProof)),
        (false, true) => Err(spec.mistake(DocumentProblem::TwoHostProofs)),
    }
}
