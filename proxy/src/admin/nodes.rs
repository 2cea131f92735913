//! `ls`, `request search`, and what the commands have in common that name a node.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::id::{Login, NodeId, NodeName, ResourceId};
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::policy::{self, RequestableNode, Resolved};
use anteroom_core::predicate::{Predicate, Resource, ResourceEnv};
use anteroom_core::role::Role;
use anteroom_core::target::NodeRef;
use anteroom_core::view::{Settings, View};
use serde::Serialize;
use time::OffsetDateTime;

use super::Context;
use super::args::Format;
use super::args::search::{Kind, Ls, NodeFilter, Search};
use super::io::{Caller, CommandIo};
use super::line::Channel;
use super::run::{Ended, Run, Stop, has_labels, matches_words};
use crate::exit::Exit;
use crate::say::{self, Cells, Table};

/// A node as listings show it: it borrows what it can, since a listing may have very many.
#[derive(Debug, Serialize)]
pub(crate) struct NodeRow<'a> {
    pub(crate) id: NodeId,
    pub(crate) kind: &'static str,
    pub(crate) name: &'a NodeName,
    pub(crate) hostname: &'a NodeName,
    pub(crate) addr: &'a NodeAddr,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) resource_id: ResourceId,
    /// What can be had there: now for `ls`, after a request for `request search`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) logins: Vec<&'a Login>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host_proof: Option<HostProofRow<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) egress_addresses: &'a [String],
    /// When the last host certificate that was issued for it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host_certificate_expires: Option<String>,
    /// For administrators, of nodes that connect by themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<TunnelRow>,
    /// When its tunnel last answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_heartbeat: Option<String>,
    /// When the proxy last logged in on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_dial: Option<String>,
}

/// Whether a node is connected by itself.
#[derive(Debug, Serialize)]
pub(crate) struct TunnelRow {
    pub(crate) connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<IpAddr>,
}

impl TunnelRow {
    fn of(ctx: &Context, node: &Node) -> Option<Self> {
        if node.addr.dialled().is_some() {
            return None;
        }
        let open = ctx.tunnels.of(&node.id);
        Some(Self {
            connected: open.is_some(),
            since: open.map(|open| say::rfc3339(open.since)),
            from: open.map(|open| open.from.ip().to_canonical()),
        })
    }
}

/// How a node proves itself, for administrators.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HostProofRow<'a> {
    HostCa,
    Pinned(&'a [String]),
}

impl<'a> NodeRow<'a> {
    pub(crate) fn new(
        view: &View,
        node: &'a Node,
        logins: impl IntoIterator<Item = &'a Login>,
    ) -> Self {
        Self {
            id: node.id,
            kind: "node",
            name: &node.name,
            hostname: &node.name,
            addr: &node.addr,
            labels: &node.labels,
            resource_id: resource_id(view, node),
            logins: logins.into_iter().collect(),
            host_proof: None,
            egress_addresses: &[],
            host_certificate_expires: None,
            tunnel: None,
            last_heartbeat: None,
            last_dial: None,
        }
    }

    /// All there is to say of it, for administrators.
    pub(crate) fn in_full(ctx: &Context, view: &View, node: &'a Node) -> Self {
        let proof = match &node.host_proof {
            HostProof::HostCa => HostProofRow::HostCa,
            HostProof::Pinned(keys) => HostProofRow::Pinned(keys),
        };
        let seen = ctx.state.presence().of(&node.id);
        Self {
            host_proof: Some(proof),
            egress_addresses: &node.egress_addresses,
            tunnel: TunnelRow::of(ctx, node),
            last_heartbeat: seen.last_heartbeat.map(say::rfc3339),
            last_dial: seen.last_dial.map(say::rfc3339),
            ..Self::new(view, node, [])
        }
    }
}

pub(crate) fn resource_id(view: &View, node: &Node) -> ResourceId {
    ResourceId::node(view.cluster().clone(), node.id)
}

/// All nodes, by name and ID.
pub(crate) fn all_nodes(view: &View) -> Vec<Arc<Node>> {
    view.nodes().map(Arc::clone).collect()
}

/// Which nodes a listing shows.
pub(crate) struct Shown<'f> {
    filter: &'f NodeFilter,
    labels: &'f [(String, String)],
    /// In lower case.
    words: Vec<String>,
    /// The texts of the node at hand: a listing looks at every node there is, and makes none of
    /// them a text of its own.
    texts: String,
}

impl<'f> Shown<'f> {
    pub(crate) fn new(filter: &'f NodeFilter, labels: &'f [(String, String)]) -> Self {
        let words = filter.search.iter();
        Self {
            filter,
            labels,
            words: words.map(|word| word.trim().to_lowercase()).collect(),
            texts: String::new(),
        }
    }

    /// Whether the listing shows the node.
    pub(crate) fn has(&mut self, node: &Node) -> bool {
        // What costs most comes last.
        has_labels(&node.labels, self.labels)
            && (self.words.is_empty() || self.has_words(node))
            && self
                .filter
                .query
                .as_ref()
                .is_none_or(|query| answers(node, query))
    }

    /// Whether every word occurs in one of the node's texts, whatever the case.
    fn has_words(&mut self, node: &Node) -> bool {
        write_searchable(&mut self.texts, node);
        if self.texts.is_ascii() {
            self.texts.make_ascii_lowercase();
        } else {
            self.texts = self.texts.to_lowercase();
        }
        let mut words = self.words.iter();
        words.all(|word| self.texts.contains(word.as_str()))
    }
}

/// What `--search` looks at, with a character between two texts that no word has.
fn write_searchable(out: &mut String, node: &Node) {
    out.clear();
    // A text takes everything.
    let _ = write!(out, "{}\0{}\0{}", node.name, node.addr, node.id);
    for text in node.labels.iter().flat_map(|(key, value)| [key, value]) {
        out.push('\0');
        out.push_str(text);
    }
}

/// Whether `query` is true for the node. What can't be evaluated shows nothing.
fn answers(node: &Node, query: &Predicate<Resource>) -> bool {
    let (id, addr) = (node.id.to_string(), node.addr.to_string());
    query.allows(&ResourceEnv {
        kind: "node",
        metadata_name: &id,
        name: node.name.as_str(),
        hostname: node.name.as_str(),
        addr: &addr,
        description: "",
        labels: &node.labels,
    })
}

/// Whether the filter of a search shows the role: by its name, its description and its labels.
fn shows_role(role: &Role, args: &Search) -> bool {
    let name = role.name.as_str();
    let description = role.description.as_deref().unwrap_or_default();
    let labels = role.labels.iter();
    let texts: Vec<&str> = [name, description]
        .into_iter()
        .chain(labels.flat_map(|(key, value)| [key.as_str(), value.as_str()]))
        .collect();
    let asked = |query: &Predicate<Resource>| {
        query.allows(&ResourceEnv {
            kind: "role",
            metadata_name: name,
            name,
            hostname: "",
            addr: "",
            description,
            labels: &role.labels,
        })
    };
    has_labels(&role.labels, &args.labels)
        && matches_words(&args.filter.search, &texts)
        && args.filter.query.as_ref().is_none_or(asked)
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn ls(&mut self, args: &Ls) -> Ended {
        let view = self.ctx.state.view();
        let mut usable = self.usable(&view);
        let mut shown = Shown::new(&args.filter, &args.labels);
        usable.retain(|(node, _)| shown.has(node));
        let verbose = args.filter.verbose;
        self.rows(
            args.listing.format,
            &usable,
            |(node, logins)| NodeRow::new(&view, node, logins.as_ref()),
            node_header(verbose),
            |(node, _), cells| node_cells(node, verbose, cells),
        )
        .await?;
        Ok(Exit::Done)
    }

    /// The nodes that work now with their logins; for the local administrator those that exist.
    pub(crate) fn usable(&self, view: &View) -> Vec<(Arc<Node>, Arc<BTreeSet<Login>>)> {
        match self.caller {
            Caller::Local => all_nodes(view)
                .into_iter()
                .map(|node| (node, Arc::default()))
                .collect(),
            Caller::Ssh { identity, .. } => {
                let usable =
                    policy::visible_nodes(view, identity, self.ctx.state.now()).into_iter();
                usable.map(|usable| (usable.node, usable.logins)).collect()
            }
        }
    }

    pub(crate) async fn search(&mut self, args: &Search) -> Ended {
        if args.roles {
            return self.search_roles(args).await;
        }
        if args.kube.is_given() && args.kind != Some(Kind::KubeResource) {
            return Err(Stop::usage(
                "`--kube-…` options narrow a search for objects in Kubernetes clusters; write `--kind kube_resource`",
            ));
        }
        match args.kind {
            Some(Kind::Node) | None => self.search_nodes(args).await,
            Some(Kind::Registered(kind)) => self.search_resources(kind, args).await,
            Some(Kind::KubeResource) => self.search_objects(args).await,
        }
    }

    async fn search_nodes(&mut self, args: &Search) -> Ended {
        let view = self.ctx.state.view();
        let identity = self.identity("request search")?;
        let mut found = policy::requestable_nodes(&view, identity, self.ctx.state.now());
        let mut shown = Shown::new(&args.filter, &args.labels);
        found.retain(|found| shown.has(&found.node));
        let verbose = args.filter.verbose;
        self.rows(
            args.listing.format,
            &found,
            |found| NodeRow::new(&view, &found.node, found.logins.keys()),
            search_header(verbose),
            |found, cells| search_cells(&view, found, verbose, cells),
        )
        .await?;
        if args.listing.format == Format::Text {
            let ids = found.iter().map(|found| resource_id(&view, &found.node));
            self.say_how_to_create(ids, view.settings()).await?;
        }
        Ok(Exit::Done)
    }

    async fn search_roles(&mut self, args: &Search) -> Ended {
        #[derive(Serialize)]
        struct RoleRow {
            name: String,
            description: String,
            labels: BTreeMap<String, String>,
        }
        let view = self.ctx.state.view();
        let identity = self.identity("request search")?;
        let rows: Vec<RoleRow> = policy::requestable_roles(&view, identity, self.ctx.state.now())
            .iter()
            .filter(|role| shows_role(role, args))
            .map(|role| RoleRow {
                name: role.name.to_string(),
                description: role.description.clone().unwrap_or_default(),
                labels: role.labels.clone(),
            })
            .collect();
        let text = || {
            let mut table = Table::new(["Role", "Description"]);
            rows.iter()
                .for_each(|row| table.row([&row.name, &row.description]));
            if rows.is_empty() {
                return table.to_string();
            }
            let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
            format!(
                "{table}\n\nTo request these roles, run\nssh access request create --roles {} --reason \"<request reason>\"",
                names.join(",")
            )
        };
        self.listing(args.listing.format, &rows, text).await?;
        Ok(Exit::Done)
    }

    /// What to paste to ask for what a search found; nothing where that is nothing.
    pub(crate) async fn say_how_to_create(
        &mut self,
        ids: impl ExactSizeIterator<Item = ResourceId>,
        settings: &Settings,
    ) -> Result<(), Stop> {
        match create_lines(ids, settings) {
            Some(lines) => self.print(&format!("\n{lines}")).await,
            None => Ok(()),
        }
    }

    /// The node that an argument of the caller's own commands means; what she may not know of does not exist.
    pub(crate) fn resolve(&self, view: &View, node: &NodeRef) -> Result<Arc<Node>, Stop> {
        let identity = match self.caller {
            Caller::Local => return self.resolve_any(view, node),
            Caller::Ssh { identity, .. } => identity,
        };
        match policy::resolve(view, identity, node, self.ctx.state.now()) {
            Resolved::One(id) => view
                .node(&id)
                .map(Arc::clone)
                .ok_or_else(|| no_such_node(node, self.channel())),
            Resolved::Ambiguous(nodes) => Err(ambiguous(view, node, &nodes)),
            Resolved::Unknown => Err(no_such_node(node, self.channel())),
        }
    }

    /// The node that an administrator's argument means, of all there are.
    pub(crate) fn resolve_any(&self, view: &View, node: &NodeRef) -> Result<Arc<Node>, Stop> {
        self.resolve_among(view, node, |_| true)
    }

    fn resolve_among(
        &self,
        view: &View,
        node: &NodeRef,
        known: impl Fn(&Arc<Node>) -> bool,
    ) -> Result<Arc<Node>, Stop> {
        let mut found: Vec<Arc<Node>> = match node {
            NodeRef::Name(name) => view.nodes_named(name).map(Arc::clone).collect(),
            NodeRef::Id(id) => view.node(id).map(Arc::clone).into_iter().collect(),
            NodeRef::Resource(id) if id.cluster() == view.cluster() => id
                .node_id()
                .and_then(|id| view.node(&id))
                .map(Arc::clone)
                .into_iter()
                .collect(),
            NodeRef::Resource(_) => Vec::new(),
        };
        found.retain(known);
        match found.as_slice() {
            [] => Err(Stop::not_found(format!(
                "no such node `{}`; `nodes ls` shows all",
                say::clean(&node.to_string())
            ))),
            [one] => Ok(Arc::clone(one)),
            several => Err(ambiguous(view, node, several)),
        }
    }

    /// The node that an administrator's argument means, of those that she administers, if she may do `verb` with it.
    pub(crate) fn administered_node(
        &self,
        verb: AdminVerb,
        view: &View,
        text: &str,
    ) -> Result<Arc<Node>, Stop> {
        self.require_some(verb, AdminResource::Node)?;
        let node = Self::node_argument(text)?;
        let known = |node: &Arc<Node>| self.knows(AdminObject::Node(node));
        let node = self.resolve_among(view, &node, known)?;
        self.require(verb, AdminObject::Node(&node))?;
        Ok(node)
    }

    pub(crate) fn node_argument(text: &str) -> Result<NodeRef, Stop> {
        NodeRef::parse(text).map_err(|error| Stop::usage(say::clean(&error.to_string())))
    }
}

fn no_such_node(node: &NodeRef, channel: Channel) -> Stop {
    match channel {
        Channel::Ssh => Stop::not_found(say::no_such_node(&node.to_string())),
        Channel::Ctl => Stop::not_found(format!(
            "no such node `{}`; `nodes ls` shows all",
            say::clean(&node.to_string())
        )),
    }
}

fn ambiguous(view: &View, name: &NodeRef, nodes: &[Arc<Node>]) -> Stop {
    Stop::usage(say::ambiguous_name(
        &name.to_string(),
        view.cluster(),
        nodes,
    ))
}

/// `Node Name  Address  Labels`, with `Node ID` where asked for.
pub(crate) fn node_header(verbose: bool) -> &'static [&'static str] {
    if verbose {
        &["Node Name", "Node ID", "Address", "Labels"]
    } else {
        &["Node Name", "Address", "Labels"]
    }
}

pub(crate) fn node_cells(node: &Node, verbose: bool, cells: &mut Cells) {
    cells.push(node.name.as_str());
    if verbose {
        cells.push_shown(node.id);
    }
    cells.push_shown(say::address(&node.addr));
    cells.push_with(|text| say::write_labels(text, &node.labels));
}

/// The same for administrators, with when the node was last there.
pub(crate) fn kept_node_header(verbose: bool) -> &'static [&'static str] {
    if verbose {
        &[
            "Node Name",
            "Node ID",
            "Address",
            "Last Heartbeat (UTC)",
            "Last Dial (UTC)",
            "Labels",
        ]
    } else {
        node_header(verbose)
    }
}

pub(crate) fn kept_node_cells(ctx: &Context, node: &Node, verbose: bool, cells: &mut Cells) {
    if !verbose {
        return node_cells(node, verbose, cells);
    }
    let seen = ctx.state.presence().of(&node.id);
    let stamp = |at: Option<OffsetDateTime>| at.map(say::stamp).unwrap_or_default();
    cells.push(node.name.as_str());
    cells.push_shown(node.id);
    cells.push_shown(say::address(&node.addr));
    cells.push_shown(stamp(seen.last_heartbeat));
    cells.push_shown(stamp(seen.last_dial));
    cells.push_with(|text| say::write_labels(text, &node.labels));
}

/// How to ask for these resources; `None` where there are none.
fn create_lines(
    ids: impl ExactSizeIterator<Item = ResourceId>,
    settings: &Settings,
) -> Option<String> {
    let found = ids.len();
    // More than this are not even looked at: a search may find very many.
    let first: Vec<ResourceId> = ids.take(settings.resources_per_request).collect();
    if first.is_empty() {
        return None;
    }
    let fit = settings.resources_that_fit(&first);
    let mut text = if fit == found {
        "To request access to these resources, run".to_owned()
    } else {
        format!(
            "These are {found} resources, and one request holds at most {}; narrow the search with --search or --labels. \
             To request access to the first {fit}, run",
            settings.resources_per_request,
        )
    };
    text.push_str("\nssh access request create");
    for id in first.iter().take(fit) {
        text.push_str(&format!(" --resource {} \\\n   ", quoted(&id.to_string())));
    }
    text.push_str(" --reason \"<request reason>\"");
    Some(text)
}

/// An ID as a shell reads it. ssh joins words with blanks, and what it sends is split once more: a backslash has to
/// survive both.
fn quoted(id: &str) -> String {
    let quote = |text: &str| {
        shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
    };
    if id.contains('\\') {
        quote(&quote(id))
    } else {
        quote(id)
    }
}

fn search_header(verbose: bool) -> &'static [&'static str] {
    if verbose {
        &[
            "Name",
            "Hostname",
            "Address",
            "Labels",
            "Logins",
            "Resource ID",
        ]
    } else {
        &["Name", "Hostname", "Labels", "Resource ID"]
    }
}

fn search_cells(view: &View, found: &RequestableNode, verbose: bool, cells: &mut Cells) {
    let node = &found.node;
    cells.push_shown(node.id);
    cells.push(node.name.as_str());
    if verbose {
        cells.push_shown(say::address(&node.addr));
    }
    cells.push_with(|text| say::write_labels(text, &node.labels));
    if verbose {
        cells.push_joined(found.logins.keys());
    }
    cells.push_shown(resource_id(view, node));
}
