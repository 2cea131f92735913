//! What administrators do with `nodes`: register them, change them, say by which keys they are known.

use std::collections::BTreeSet;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::id::NodeId;
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::view::View;
use ssh_key::PublicKey;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Context;
use super::args::nodes::{
    HostProofArgs, NodeOnly, NodesAdd, NodesLs, NodesRekey, NodesUpdate, OneNode,
};
use super::authorities::node_setup;
use super::io::CommandIo;
use super::keys::{self, CheckedKey, KeyError};
use super::nodes::{NodeRow, Shown, kept_node_cells, kept_node_header, resource_id};
use super::objects::{Refused, field};
use super::run::{Ended, Run, Stop};
use crate::authority::print;
use crate::exit::Exit;
use crate::say;
use crate::state::{Existing, Object, ObjectId};

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn nodes_add(&mut self, args: NodesAdd) -> Ended {
        self.require_some(AdminVerb::Create, AdminResource::Node)?;
        let proof = self.host_proof(&args.proof, &args.addr).await?;
        let node = Node {
            id: NodeId::from_uuid(Uuid::new_v4()),
            name: args.name,
            addr: args.addr,
            labels: args.labels.into_iter().collect(),
            said_labels: Default::default(),
            host_proof: proof.unwrap_or(HostProof::HostCa),
            egress_addresses: args.egress_addresses,
        };
        let view = self.ctx.state.view();
        let namesakes = view.nodes_named(&node.name);
        let namesakes = namesakes
            .filter(|other| self.knows(AdminObject::Node(other)))
            .count();
        let stored = self
            .ctx
            .state
            .put(
                &self.by(),
                vec![Object::Node(node.clone())],
                Existing::Refuse,
            )
            .await?;
        let view = self.ctx.state.view();
        let row = NodeRow::in_full(self.ctx, &view, &node);
        self.listing(args.listing.format, &row, || {
            format!("{}\n{}", node.id, resource_id(&view, &node))
        })
        .await?;
        if namesakes > 0 {
            self.note(&format!(
                "WARNING: {namesakes} other node(s) are named `{}` too; where both are visible, people have to write the UUID",
                node.name
            ))
            .await?;
        }
        self.say_warnings(&stored).await?;
        let setup = node_setup(self.ctx, &node)?;
        self.note(&setup).await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn nodes_ls(&mut self, args: &NodesLs) -> Ended {
        self.require_some(AdminVerb::List, AdminResource::Node)?;
        let view = self.ctx.state.view();
        let ends = self.ctx.state.reader().host_certificates().await?;
        let mut nodes = self.all_nodes(&view);
        let mut shown = Shown::new(&args.filter, &args.labels);
        nodes.retain(|node| shown.has(node));
        let (verbose, ctx) = (args.filter.verbose, self.ctx);
        self.rows(
            args.listing.format,
            &nodes,
            |node| NodeRow {
                host_certificate_expires: ends.get(&node.id).copied().map(say::rfc3339),
                ..NodeRow::in_full(ctx, &view, node)
            },
            kept_node_header(verbose),
            |node, cells| kept_node_cells(ctx, node, verbose, cells),
        )
        .await?;
        let now = self.ctx.state.now();
        for node in &nodes {
            let Some(end) = ends.get(&node.id).filter(|end| **end - now < RENEW) else {
                continue;
            };
            self.note(&format!(
                "WARNING: the host certificate of `{0}` is good until {1}; renew it with `nodes host-cert {0} --key FILE`",
                node.name,
                say::stamp(*end)
            ))
            .await?;
        }
        Ok(Exit::Done)
    }

    pub(crate) async fn nodes_show(&mut self, args: &OneNode) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Read, &view, &args.node)?;
        let ends = self.ctx.state.reader().host_certificates().await?;
        let end = ends.get(&node.id).copied();
        let row = NodeRow {
            host_certificate_expires: end.map(say::rfc3339),
            ..NodeRow::in_full(self.ctx, &view, &node)
        };
        self.listing(args.listing.format, &row, || {
            node_text(self.ctx, &view, &node, end)
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn nodes_rm(&mut self, args: &NodeOnly) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Delete, &view, &args.node)?;
        self.ctx
            .state
            .remove(&self.by(), vec![ObjectId::Node(node.id)])
            .await?;
        self.print(&format!("node `{}` ({}) removed", node.name, node.id))
            .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn nodes_update(&mut self, args: NodesUpdate) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Update, &view, &args.node)?;
        let proof = self
            .host_proof(&args.proof, args.addr.as_ref().unwrap_or(&node.addr))
            .await?;
        let change = move |node: &mut Node| {
            if let Some(name) = args.name {
                node.name = name;
            }
            if let Some(addr) = args.addr {
                node.addr = addr;
            }
            if let Some(labels) = args.labels {
                node.set_labels(labels.0.into_iter().collect());
            }
            if let Some(networks) = args.egress_addresses {
                node.egress_addresses = networks.0;
            }
            if let Some(proof) = proof {
                node.host_proof = proof;
            }
            Ok::<(), Refused>(())
        };
        let stored = self
            .ctx
            .state
            .update_node(&self.by(), node.id, change)
            .await?;
        self.say_updated(&stored).await
    }

    /// Says deliberately that the node has other keys now. Until somebody does, a node that shows another key is refused.
    pub(crate) async fn nodes_rekey(&mut self, args: NodesRekey) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Update, &view, &args.node)?;
        let HostProof::Pinned(before) = &node.host_proof else {
            return Err(Stop::usage(format!(
                "node `{0}` is known by a host certificate and by no key; certify its new key with `nodes host-cert {0} --key FILE`, or pin keys with `nodes update {0} --host-key FILE`",
                node.name
            )));
        };
        let asked = HostProofArgs {
            host_key: args.keys.host_key,
            host_ca: false,
            scan: args.keys.scan,
        };
        let proof = self.host_proof(&asked, &node.addr).await?;
        let Some(HostProof::Pinned(after)) = proof else {
            return Err(Stop::usage(
                "say by which keys the node is known, with `--host-key FILE` or `--scan`",
            ));
        };
        let (old, new) = (fingerprints(before), fingerprints(&after));
        let change = move |node: &mut Node| {
            node.host_proof = HostProof::Pinned(after);
            Ok::<(), Refused>(())
        };
        let by = self.by();
        let stored = self.ctx.state.update_node(&by, node.id, change).await?;
        let lines: Vec<String> = old
            .difference(&new)
            .map(|key| format!("- {key}"))
            .chain(new.difference(&old).map(|key| format!("+ {key}")))
            .collect();
        let said = if lines.is_empty() {
            format!(
                "node `{}` ({}) is known by these keys already",
                node.name, node.id
            )
        } else {
            format!(
                "node `{}` ({}) is known by other keys now:\n{}",
                node.name,
                node.id,
                lines.join("\n")
            )
        };
        self.print(&said).await?;
        self.say_warnings(std::slice::from_ref(&stored)).await?;
        Ok(Exit::Done)
    }

    /// The nodes that the caller may list, by name and ID.
    fn all_nodes(&self, view: &View) -> Vec<Arc<Node>> {
        let mandate = self.mandate(view, AdminVerb::List, AdminResource::Node);
        let nodes = view.nodes();
        nodes
            .filter(|node| mandate.covers(AdminObject::Node(node)))
            .map(Arc::clone)
            .collect()
    }

    /// What the options say about how the node proves itself; `None` where they say nothing.
    async fn host_proof(
        &mut self,
        args: &HostProofArgs,
        addr: &NodeAddr,
    ) -> Result<Option<HostProof>, Stop> {
        if args.host_ca {
            return Ok(Some(HostProof::HostCa));
        }
        if args.scan {
            return self.scan(addr).await.map(Some);
        }
        let keys = self.read_keys_if_any("--host-key", &args.host_key).await?;
        Ok(keys.map(|keys| HostProof::Pinned(keys.into_iter().map(|key| key.openssh).collect())))
    }

    async fn scan(&mut self, addr: &NodeAddr) -> Result<HostProof, Stop> {
        let scanned = self.ctx.scanner.scan(addr).await;
        let keys = scanned.map_err(|why| {
            Stop::new(
                Exit::Unavailable,
                format!("{addr} showed no host key: {}; start its sshd, or give the key with `--host-key`", say::cut(&why, 200)),
            )
        })?;
        let checked: Vec<CheckedKey> = keys
            .iter()
            .filter_map(|key| keys::check(key).ok())
            .collect();
        if checked.is_empty() {
            return Err(Stop::new(
                Exit::Unavailable,
                format!(
                    "{addr} showed no host key of an accepted type; {}",
                    KeyError::Nothing
                ),
            ));
        }
        let shown: Vec<String> = checked
            .iter()
            .map(|key| format!("  {}", key.fingerprint))
            .collect();
        self.note(&format!(
            "Pinned what {addr} shows now; compare it with `ssh-keygen -lf` on the node:\n{}",
            shown.join("\n")
        ))
        .await?;
        Ok(HostProof::Pinned(
            checked.into_iter().map(|key| key.openssh).collect(),
        ))
    }
}

/// The fingerprints of host keys, each one OpenSSH line.
fn fingerprints(keys: &[String]) -> BTreeSet<String> {
    let keys = keys
        .iter()
        .filter_map(|line| PublicKey::from_openssh(line).ok());
    keys.map(|key| print(&key)).collect()
}

/// A host certificate with less than this left is spoken of.
const RENEW: time::Duration = time::Duration::days(7);

fn node_text(ctx: &Context, view: &View, node: &Node, certified: Option<OffsetDateTime>) -> String {
    let mut lines = vec![
        field("Node", node.name.as_str()),
        field("Node ID", &node.id.to_string()),
        field("Resource ID", &resource_id(view, node).to_string()),
        field("Address", &say::address(&node.addr)),
        field("Labels", &say::labels(&node.labels)),
    ];
    match &node.host_proof {
        HostProof::HostCa => lines.push(field(
            "Host proof",
            "a host certificate of this cluster's host CA",
        )),
        HostProof::Pinned(keys) => lines.extend(keys.iter().map(|key| field("Host key", key))),
    }
    if let Some(end) = certified {
        lines.push(field("Host cert", &format!("until {}", say::stamp(end))));
    }
    if !node.egress_addresses.is_empty() {
        lines.push(field("Egress", &node.egress_addresses.join(",")));
    }
    if node.addr.dialled().is_none() {
        let text = match ctx.tunnels.of(&node.id) {
            Some(open) => format!(
                "connected from {} since {}",
                open.from.ip().to_canonical(),
                say::stamp(open.since)
            ),
            None => "not connected".to_owned(),
        };
        lines.push(field("Tunnel", &text));
    }
    let seen = ctx.state.presence().of(&node.id);
    if let Some(at) = seen.last_heartbeat {
        lines.push(field("Heartbeat", &say::stamp(at)));
    }
    if let Some(at) = seen.last_dial {
        lines.push(field("Last dial", &say::stamp(at)));
    }
    lines.join("\n")
}
