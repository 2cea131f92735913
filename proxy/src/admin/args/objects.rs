//! `create`, `get` and `rm`: documents, and what they are called.

use anteroom_core::resource;
use clap::Args;

use super::Format;

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(crate) documents: Documents,
    /// Replace what exists
    #[arg(long)]
    pub(crate) force: bool,
}

/// Where documents are, one way or the other.
#[derive(Debug, Args)]
#[group(id = "documents", required = true, multiple = false)]
pub(crate) struct Documents {
    /// The documents: a file, or `-` for standard input
    #[arg(short = 'f', long = "file", value_name = "FILE|-")]
    file: Option<String>,
    /// The same without an option in front
    #[arg(value_name = "FILE")]
    path: Option<String>,
}

impl Documents {
    /// The file; one of the two is given.
    pub(crate) fn path(&self) -> Option<&String> {
        self.file.as_ref().or(self.path.as_ref())
    }
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What: `roles`, `role/access`, `user/alice`, `node/iot`, `db/orders`, `locks`, or `all`
    #[arg(value_parser = object, value_name = "KIND[/NAME]")]
    pub(crate) what: Object,
    /// How to write the answer
    #[arg(short = 'f', long, value_enum, default_value_t = Format::Yaml, hide_possible_values = true, value_name = "yaml|json|text")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// What: `role/access`, `user/alice`, `node/iot`, `db/orders`, `lock/ID`
    #[arg(value_parser = named_object, value_name = "KIND/NAME")]
    pub(crate) what: Object,
}

/// What `get` and `rm` name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: ObjectKind,
    pub(crate) name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ObjectKind {
    Role,
    User,
    Node,
    Lock,
    MonitoringRule,
    Token,
    Resource(resource::Kind),
    All,
}

fn object(text: &str) -> Result<Object, String> {
    let (word, name) = match text.split_once('/') {
        Some((word, name)) => (word, Some(name)),
        None => (text, None),
    };
    let kind = match word {
        "role" | "roles" => ObjectKind::Role,
        "user" | "users" => ObjectKind::User,
        "node" | "nodes" => ObjectKind::Node,
        "lock" | "locks" => ObjectKind::Lock,
        "token" | "tokens" => ObjectKind::Token,
        "access_monitoring_rule" | "access_monitoring_rules" => ObjectKind::MonitoringRule,
        "all" if name.is_none() => ObjectKind::All,
        word => {
            // `dbs` as `roles`.
            let one = word.strip_suffix('s').unwrap_or(word);
            let kind = resource::Kind::of_word(word).or_else(|| resource::Kind::of_word(one));
            kind.map(ObjectKind::Resource).ok_or(
                "write role, user, node, lock, token, access_monitoring_rule, app, db, kube_cluster or windows_desktop, alone or with a name, like role/access",
            )?
        }
    };
    match name {
        Some("") => Err("the name after `/` is missing".to_owned()),
        Some(name) => Ok(Object {
            kind,
            name: Some(name.to_owned()),
        }),
        None => Ok(Object { kind, name: None }),
    }
}

fn named_object(text: &str) -> Result<Object, String> {
    let object = object(text)?;
    match object.name {
        Some(_) => Ok(object),
        None => Err("say which one, like role/access".to_owned()),
    }
}
