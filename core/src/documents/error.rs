//! Why a text of documents is refused: which document, where in it, and what is wrong.

use crate::id::IdError;
use crate::pattern::PatternError;
use crate::predicate::PredicateError;
use crate::selector::TemplateError;

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

fn did_you_mean(similar: &Option<&str>) -> String {
    similar
        .map(|field| format!(" (did you mean `{field}`?)"))
        .unwrap_or_default()
}
