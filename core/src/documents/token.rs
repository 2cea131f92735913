//! `kind: token`. The secret is in no document: it is made where the token is, and shown once.

use std::collections::BTreeMap;

use time::{Duration, OffsetDateTime};

use crate::id::{NodeName, TokenId};
use crate::node::NodeAddr;
use crate::token::{LONGEST_LIFE, MOST_USES, TokenKind, USUAL_LIFE};

use super::at::{At, Fields, Map};
use super::lock::read_time;
use super::{DocumentProblem, Mistake, read_labels};

/// A token as a document describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenDocument {
    /// `metadata.name`: what it is called.
    pub id: TokenId,
    /// `spec.type`.
    pub kind: TokenKind,
    /// `spec.node`: the one name that a node may take by it.
    pub node: Option<NodeName>,
    /// `spec.addr`: the one address that a node gets by it.
    pub addr: Option<NodeAddr>,
    /// `spec.labels`: of the nodes that come in by it.
    pub labels: BTreeMap<String, String>,
    /// `spec.uses`.
    pub uses: u32,
    /// `spec.ttl` or `spec.expires`.
    pub life: Life,
}

/// How long a token lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// So long from when it is made.
    For(Duration),
    /// Until then.
    Until(OffsetDateTime),
}

const METADATA: Fields = Fields {
    served: &["name"],
    teleport: &[
        "description",
        "expires",
        "id",
        "labels",
        "namespace",
        "revision",
    ],
    later: &[],
    only_allow: &[],
};

const SPEC: Fields = Fields {
    served: &["type", "node", "addr", "labels", "uses", "ttl", "expires"],
    teleport: &[
        "allow",
        "aws_iid_ttl",
        "bot_name",
        "join_method",
        "roles",
        "suggested_labels",
    ],
    later: &[],
    only_allow: &[],
};

/// Reads a token; `top` is the checked top level.
pub(super) fn read(top: &Map<'_>) -> Result<TokenDocument, Mistake> {
    const HINT: &str = "write `metadata:` and below it `name:`; the secret is no part of it";
    let metadata = top.required("metadata", HINT)?.map(&METADATA)?;
    let id = metadata.required("name", HINT)?.parsed(TokenId::parse)?;
    let hint = "write `spec:` and below it `type: node`";
    let spec = top.required("spec", hint)?.map(&SPEC)?;
    spec.required("type", hint)?.word(&["node"])?;
    let node = spec.get("node").map(|at| at.parsed(NodeName::parse));
    let labels = spec.get("labels").map(|at| read_labels(&at)).transpose()?;
    Ok(TokenDocument {
        id,
        kind: TokenKind::Node,
        node: node.transpose()?,
        addr: spec.get("addr").map(|at| read_addr(&at)).transpose()?,
        labels: labels.unwrap_or_default(),
        uses: spec.get("uses").map_or(Ok(1), |at| read_uses(&at))?,
        life: read_life(&spec)?,
    })
}

fn read_addr(at: &At<'_>) -> Result<NodeAddr, Mistake> {
    NodeAddr::parse(at.text()?).map_err(|problem| {
        at.mistake(DocumentProblem::Address {
            field: at.path(),
            problem: problem.to_string(),
        })
    })
}

fn read_uses(at: &At<'_>) -> Result<u32, Mistake> {
    let uses = at.count()?;
    if (1..=MOST_USES).contains(&uses) {
        return Ok(uses);
    }
    Err(at.mistake(DocumentProblem::TooMuch {
        field: at.path(),
        value: uses.to_string(),
        limit: format!("1 to {MOST_USES}"),
    }))
}

fn read_life(spec: &Map<'_>) -> Result<Life, Mistake> {
    match (spec.get("ttl"), spec.get("expires")) {
        (Some(_), Some(both)) => Err(both.mistake(DocumentProblem::TwoLives)),
        (Some(at), None) => {
            let life = at.duration()?;
            if life > Duration::ZERO && life <= LONGEST_LIFE {
                return Ok(Life::For(life));
            }
            Err(at.mistake(DocumentProblem::TooMuch {
                field: at.path(),
                value: crate::duration::format(life),
                limit: crate::duration::format(LONGEST_LIFE),
            }))
        }
        (None, Some(at)) => read_time(&at).map(Life::Until),
        (None, None) => Ok(Life::For(USUAL_LIFE)),
    }
}
