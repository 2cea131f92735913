//! The document of a node.

use std::collections::BTreeMap;

use crate::id::{NodeId, NodeName};
use crate::node::{HostProof, NodeAddr, NodeAddrError};

use super::at::{Fields, Map};
use super::{DocumentProblem, Mistake, read_metadata};

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

pub(super) fn read_node(top: &Map<'_>) -> Result<NodeDocument, Mistake> {
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
