//! `kind: app`, `db`, `kube_cluster` and `windows_desktop`, there and back.

use serde_json::{Value, json};

use crate::id::ResourceName;
use crate::node::{HostPort, HostPortError};
use crate::resource::{Kind, Resource, Spec};

use super::at::{At, Fields, Map, alternatives};
use super::{DocumentProblem, Mistake, read_metadata};

/// The fields of `spec`. What Teleport has beside them concerns connecting.
const fn fields(kind: Kind) -> Fields {
    const NONE: Fields = Fields {
        served: &[],
        teleport: &[],
        later: &[],
        only_allow: &[],
    };
    match kind {
        Kind::App => Fields {
            served: &["uri", "public_addr"],
            teleport: &[
                "aws",
                "cloud",
                "cors",
                "dynamic_labels",
                "identity_center",
                "insecure_skip_verify",
                "integration",
                "mcp",
                "required_app_names",
                "rewrite",
                "tcp_ports",
                "use_any_proxy_server",
                "user_groups",
            ],
            ..NONE
        },
        Kind::Db => Fields {
            served: &["protocol", "uri"],
            teleport: &[
                "ad",
                "admin_user",
                "aws",
                "azure",
                "ca_cert",
                "dynamic_labels",
                "gcp",
                "mongo_atlas",
                "mysql",
                "oracle",
                "tls",
            ],
            ..NONE
        },
        Kind::KubeCluster => Fields {
            served: &[],
            teleport: &["aws", "azure", "dynamic_labels", "gcp", "kubeconfig"],
            ..NONE
        },
        Kind::WindowsDesktop => Fields {
            served: &["addr", "domain"],
            teleport: &["host_id", "non_ad", "screen_size"],
            ..NONE
        },
    }
}

/// What databases speak.
const PROTOCOLS: [&str; 15] = [
    "cassandra",
    "clickhouse",
    "clickhouse-http",
    "cockroachdb",
    "dynamodb",
    "elasticsearch",
    "mongodb",
    "mysql",
    "opensearch",
    "oracle",
    "postgres",
    "redis",
    "snowflake",
    "spanner",
    "sqlserver",
];

/// The longest address that is kept, in bytes.
const URI_LIMIT: usize = 2048;

/// Reads a document of that kind; `top` is its checked top level.
pub(super) fn read(kind: Kind, top: &Map<'_>) -> Result<Resource, Mistake> {
    let metadata = read_metadata(top)?;
    let name = metadata.name.parsed(ResourceName::parse)?;
    let spec = match (top.get("spec"), kind) {
        (Some(at), _) => read_spec(kind, &at.map(&fields(kind))?)?,
        (None, Kind::KubeCluster) => Spec::KubeCluster {},
        (None, Kind::App | Kind::Db | Kind::WindowsDesktop) => {
            return Err(top.mistake(DocumentProblem::Missing {
                field: "spec".to_owned(),
                hint: hint(kind),
            }));
        }
    };
    Ok(Resource {
        name,
        description: metadata.description,
        labels: metadata.labels,
        spec,
    })
}

const fn hint(kind: Kind) -> &'static str {
    match kind {
        Kind::App => "write `spec:` and below it `uri:`, as in http://10.0.0.5:3000",
        Kind::Db => {
            "write `spec:` and below it `protocol:`, as in postgres, and `uri:`, as in 10.0.0.6:5432"
        }
        Kind::KubeCluster => "write `spec: {}`",
        Kind::WindowsDesktop => "write `spec:` and below it `addr: HOST:PORT`",
    }
}

fn read_spec(kind: Kind, spec: &Map<'_>) -> Result<Spec, Mistake> {
    let required = |field: &str| spec.required(field, hint(kind));
    Ok(match kind {
        Kind::App => Spec::App {
            uri: read_uri(&required("uri")?)?,
            public_addr: spec.text("public_addr")?,
        },
        Kind::Db => {
            let protocol = required("protocol")?;
            Spec::Db {
                protocol: protocol.word(&PROTOCOLS)?.to_owned(),
                uri: read_uri(&required("uri")?)?,
            }
        }
        Kind::KubeCluster => Spec::KubeCluster {},
        Kind::WindowsDesktop => {
            let addr = required("addr")?;
            let problem = |problem: HostPortError| {
                addr.mistake(DocumentProblem::Address {
                    field: addr.path(),
                    problem: problem.to_string(),
                })
            };
            Spec::WindowsDesktop {
                addr: HostPort::parse(addr.text()?).map_err(problem)?,
                domain: spec.text("domain")?,
            }
        }
    })
}

/// An address without blanks and without a password in it: whoever may search sees it.
fn read_uri(at: &At<'_>) -> Result<String, Mistake> {
    let text = at.text()?;
    let authority = text.split_once("://").map_or(text, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let problem = if text.is_empty() || text.len() > URI_LIMIT || text.contains(char::is_whitespace)
    {
        format!("an address without blanks, of 1 to {URI_LIMIT} bytes")
    } else if authority.contains('@') {
        "it without user and password, which are not for everybody who may search".to_owned()
    } else {
        return Ok(text.to_owned());
    };
    Err(at.mistake(DocumentProblem::Value {
        field: at.path(),
        // What may be a password is not repeated.
        value: crate::id::printable(text.split('@').next_back().unwrap_or_default()),
        wanted: problem,
    }))
}

/// `resource` as a document.
#[must_use]
pub fn resource_to_json(resource: &Resource) -> Value {
    let mut metadata = json!({"name": resource.name, "labels": resource.labels});
    if let (Some(description), Some(metadata)) = (&resource.description, metadata.as_object_mut()) {
        metadata.insert("description".to_owned(), json!(description));
    }
    let spec = match &resource.spec {
        Spec::App { uri, public_addr } => with(json!({"uri": uri}), "public_addr", public_addr),
        Spec::Db { protocol, uri } => json!({"protocol": protocol, "uri": uri}),
        Spec::KubeCluster {} => json!({}),
        Spec::WindowsDesktop { addr, domain } => with(json!({"addr": addr}), "domain", domain),
    };
    json!({"kind": resource.kind().as_str(), "version": "v3", "metadata": metadata, "spec": spec})
}

fn with(mut spec: Value, field: &str, value: &Option<String>) -> Value {
    if let (Some(value), Some(spec)) = (value, spec.as_object_mut()) {
        spec.insert(field.to_owned(), json!(value));
    }
    spec
}

/// The words of all kinds, for an error.
pub(super) fn kinds() -> String {
    let words: Vec<&str> = [
        "role",
        "user",
        "node",
        "lock",
        "token",
        "access_monitoring_rule",
    ]
    .into_iter()
    .chain(Kind::ALL.map(Kind::as_str))
    .collect();
    alternatives(&words)
}
