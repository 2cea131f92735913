//! `create`, `get` and `rm`: whatever administrators keep, as documents and by name.

use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::documents::{self, Document, NodeDocument, UserDocument};
use anteroom_core::id::{
    LockId, NodeId, NodeName, ResourceName, RoleName, RuleName, TokenId, UserName,
};
use anteroom_core::lock::Lock;
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::{HostProof, Node};
use anteroom_core::resource::{Kind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use anteroom_core::view::View;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::args::nodes::NodeOnly;
use super::args::objects::{Create, Get, ObjectKind, Rm};
use super::args::{self, Format};
use super::io::CommandIo;
use super::keys::{document_keys, stored_keys};
use super::nodes::{all_nodes, node_cells, node_header, resource_id};
use super::resources::all_resources;
use super::run::{Ended, Run, Stop, some};
use super::tokens::{self, TOKEN_HEADER, token_cells};
use super::users::{USER_HEADER, user_cells};
use super::{locks, monitoring};
use crate::enrol::Secret;
use crate::exit::Exit;
use crate::say::{self, Cells, clean};
use crate::state::{Existing, Object, ObjectId};

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn create(&mut self, args: &Create) -> Ended {
        // Before anything is read: who may create nothing learns nothing of what would be wrong with it.
        let kinds = [
            AdminResource::Role,
            AdminResource::User,
            AdminResource::Node,
            AdminResource::Lock,
            AdminResource::Token,
            AdminResource::AccessMonitoringRule,
            AdminResource::App,
            AdminResource::Db,
            AdminResource::KubeCluster,
            AdminResource::WindowsDesktop,
        ];
        if !kinds
            .iter()
            .any(|kind| self.may_some(AdminVerb::Create, *kind))
        {
            self.require_some(AdminVerb::Create, AdminResource::Role)?;
        }
        let file = args.documents.path().map_or("-", String::as_str);
        let text = self.input("-f", file).await?;
        let documents =
            documents::parse(&text).map_err(|error| Stop::usage(clean(&error.to_string())))?;
        let existing = if args.force {
            Existing::Replace
        } else {
            Existing::Refuse
        };
        let view = self.ctx.state.view();
        let mut objects = Vec::with_capacity(documents.len());
        let mut tokens = Vec::new();
        for document in documents {
            objects.push(self.object(&view, document, existing, &mut tokens)?);
        }
        let stored = self.ctx.state.put(&self.by(), objects, existing).await?;
        let exit = self.say_stored(&stored).await?;
        self.say_new_tokens(&tokens).await?;
        Ok(exit)
    }

    /// A document as an object to store, if the caller may store it. A token gets its secret here.
    fn object(
        &self,
        view: &View,
        document: Document,
        existing: Existing,
        tokens: &mut Vec<(Token, Secret)>,
    ) -> Result<Object, Stop> {
        let object = match document {
            Document::Role(role) => {
                documents::check_role_patterns(&role)
                    .map_err(|why| Stop::usage(clean(&format!("role `{}`: {why}", role.name))))?;
                Object::Role(*role)
            }
            Document::User(user) => {
                let before = view.user(&user.name).map(AsRef::as_ref);
                Object::User(user_of(user, before, self.ctx.state.now())?)
            }
            Document::Node(node) => Object::Node(node_of(view, node, existing)?),
            Document::Lock(lock) => Object::Lock(self.lock_of(view, lock)?),
            Document::MonitoringRule(rule) => Object::MonitoringRule(*rule),
            Document::Resource(resource) => Object::Resource(resource),
            Document::Token(token) => {
                let made = self.new_token(token);
                tokens.push(made.clone());
                Object::Token(made.0)
            }
        };
        let before = object.id().find(view);
        let verb = match before.filter(|_| existing == Existing::Replace) {
            Some(before) => {
                self.require(AdminVerb::Update, before)?;
                AdminVerb::Update
            }
            None => AdminVerb::Create,
        };
        self.require(verb, object.to_judge())?;
        Ok(object)
    }

    pub(crate) async fn get(&mut self, args: &Get) -> Ended {
        let view = self.ctx.state.view();
        let found = self.found(&view, args)?;
        let documents = || found.iter().flat_map(Found::documents);
        match args.format {
            Format::Json => self.pieces(say::json_in_pieces(documents())).await?,
            // One document alone needs no marker.
            Format::Yaml => match (documents().next(), documents().nth(1)) {
                (None, _) => {}
                (Some(one), None) => self.print(&say::yaml(&one)).await?,
                (Some(_), Some(_)) => self.pieces(say::documents_in_pieces(documents())).await?,
            },
            Format::Text => {
                for (place, part) in found.iter().enumerate() {
                    if place > 0 {
                        self.print("").await?;
                    }
                    self.say_found(&view, part).await?;
                }
            }
        }
        Ok(Exit::Done)
    }

    /// The objects that are asked for; only of everything there is more than one part.
    fn found<'v>(&self, view: &'v View, args: &Get) -> Result<Vec<Found<'v>>, Stop> {
        let name = args.what.name.as_deref();
        let detail = match args.format {
            Format::Text => Detail::Table,
            Format::Json | Format::Yaml => Detail::Documents,
        };
        let kinds = match args.what.kind {
            ObjectKind::All => {
                let mut kinds = vec![
                    ObjectKind::Role,
                    ObjectKind::User,
                    ObjectKind::Node,
                    ObjectKind::Lock,
                    // No tokens: what is kept to be created again some day should make none.
                    ObjectKind::MonitoringRule,
                ];
                kinds.extend(Kind::ALL.map(ObjectKind::Resource));
                kinds
            }
            one @ (ObjectKind::Role
            | ObjectKind::User
            | ObjectKind::Node
            | ObjectKind::Lock
            | ObjectKind::Token
            | ObjectKind::MonitoringRule
            | ObjectKind::Resource(_)) => return Ok(vec![self.found_of(view, one, name, detail)?]),
        };
        let mut parts = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let part = self.found_of(view, kind, None, detail)?;
            // There are few of these anywhere, and an empty table says little.
            let skipped = match &part {
                Found::Roles(_) | Found::Users(_) | Found::Nodes(_) | Found::Locks(_) => false,
                Found::Rules(rules) => rules.is_empty(),
                Found::Tokens(tokens) => tokens.is_empty(),
                Found::Resources(_, resources) => resources.is_empty(),
            };
            if !skipped {
                parts.push(part);
            }
        }
        Ok(parts)
    }

    /// What there is of one kind that the caller may list, or read where a name is given.
    fn found_of<'v>(
        &self,
        view: &'v View,
        kind: ObjectKind,
        name: Option<&str>,
        detail: Detail,
    ) -> Result<Found<'v>, Stop> {
        Ok(match kind {
            ObjectKind::Role => {
                let all = roles(view, name);
                let of = (AdminResource::Role, name, detail);
                Found::Roles(self.shown(of, all, |role| AdminObject::Role(role))?)
            }
            ObjectKind::User => {
                let mut all: Vec<Arc<User>> = view.users().map(Arc::clone).collect();
                all.retain(|user| name.is_none_or(|name| user.name.as_str() == name));
                let of = (AdminResource::User, name, detail);
                Found::Users(self.shown(of, all, |user| AdminObject::User(user))?)
            }
            ObjectKind::Node | ObjectKind::All => {
                let mut all = all_nodes(view);
                all.retain(|node| name.is_none_or(|name| is_called(view, node, name)));
                let of = (AdminResource::Node, name, detail);
                Found::Nodes(self.shown(of, all, |node| AdminObject::Node(node))?)
            }
            ObjectKind::Lock => {
                let all = locks::named(view, name);
                let of = (AdminResource::Lock, name, detail);
                Found::Locks(self.shown(of, all, |lock| (*lock).into())?)
            }
            ObjectKind::Token => {
                let all = tokens::named(view, name);
                let of = (AdminResource::Token, name, detail);
                Found::Tokens(self.shown(of, all, |_| AdminObject::Tokens)?)
            }
            ObjectKind::MonitoringRule => {
                let all = monitoring::named(view, name);
                let of = (AdminResource::AccessMonitoringRule, name, detail);
                Found::Rules(self.shown(of, all, |rule| AdminObject::MonitoringRule(rule))?)
            }
            ObjectKind::Resource(kind) => {
                let mut all = all_resources(view, kind);
                all.retain(|resource| name.is_none_or(|name| resource.name.as_str() == name));
                let of = (kind.admin(), name, detail);
                let found = self.shown(of, all, |resource| AdminObject::Resource(resource))?;
                Found::Resources(kind, found)
            }
        })
    }

    /// Those of `all` that the caller may list, and read where whole documents are shown; with a name, the one that she may read, which is not there for who may
    /// not know of it.
    fn shown<T>(
        &self,
        (resource, name, detail): (AdminResource, Option<&str>, Detail),
        mut all: Vec<T>,
        object: impl for<'o> Fn(&'o T) -> AdminObject<'o>,
    ) -> Result<Vec<T>, Stop> {
        let view = self.ctx.state.view();
        let Some(name) = name else {
            let verbs: &[AdminVerb] = match detail {
                Detail::Table => &[AdminVerb::List],
                Detail::Documents => &[AdminVerb::List, AdminVerb::Read],
            };
            for verb in verbs {
                self.require_some(*verb, resource)?;
                let mandate = self.mandate(&view, *verb, resource);
                all.retain(|one| mandate.covers(object(one)));
            }
            return Ok(all);
        };
        self.require_some(AdminVerb::Read, resource)?;
        all.retain(|one| self.knows(object(one)));
        for one in &all {
            self.require(AdminVerb::Read, object(one))?;
        }
        if all.is_empty() {
            let kind = resource.as_str();
            return Err(Stop::not_found(format!(
                "there is no `{kind}/{}`; `get {kind} --format text` shows all",
                clean(name)
            )));
        }
        Ok(all)
    }

    /// Objects of one kind as a table.
    async fn say_found(&mut self, view: &View, found: &Found<'_>) -> Result<(), Stop> {
        let now = self.ctx.state.now();
        match found {
            Found::Roles(roles) => {
                self.table(roles, &["Role", "Description"], role_cells)
                    .await
            }
            Found::Users(users) => {
                let cells = |user: &Arc<User>, cells: &mut Cells| {
                    user_cells(view, user, now, cells);
                };
                self.table(users, &USER_HEADER, cells).await
            }
            Found::Nodes(nodes) => {
                let cells = |node: &Arc<Node>, cells: &mut Cells| node_cells(node, true, cells);
                self.table(nodes, node_header(true), cells).await
            }
            Found::Locks(_) => {
                let text = self.locks_text(view);
                self.print(&text).await
            }
            Found::Tokens(tokens) => {
                let cells = |token: &Arc<Token>, cells: &mut Cells| token_cells(token, now, cells);
                self.table(tokens, &TOKEN_HEADER, cells).await
            }
            Found::Rules(rules) => self.print(&monitoring::rules_text(rules, now)).await,
            Found::Resources(kind, resources) => {
                let header = [title(*kind), "Address", "Labels", "Description"];
                self.table(resources, &header, resource_cells).await
            }
        }
    }

    pub(crate) async fn rm(&mut self, args: &Rm) -> Ended {
        let name = args.what.name.as_deref().unwrap_or_default();
        let usage = |error: &dyn std::fmt::Display| Stop::usage(clean(&error.to_string()));
        let resource = match args.what.kind {
            ObjectKind::Role => AdminResource::Role,
            ObjectKind::User => AdminResource::User,
            ObjectKind::Node => AdminResource::Node,
            ObjectKind::Lock => AdminResource::Lock,
            ObjectKind::Token => AdminResource::Token,
            ObjectKind::MonitoringRule => AdminResource::AccessMonitoringRule,
            ObjectKind::Resource(kind) => kind.admin(),
            ObjectKind::All => {
                return Err(Stop::usage("say which one to remove, like role/access"));
            }
        };
        self.require_some(AdminVerb::Delete, resource)?;
        let id = match args.what.kind {
            ObjectKind::Role => ObjectId::Role(RoleName::parse(name).map_err(|e| usage(&e))?),
            ObjectKind::User => ObjectId::User(UserName::parse(name).map_err(|e| usage(&e))?),
            ObjectKind::Token => ObjectId::Token(TokenId::parse(name).map_err(|e| usage(&e))?),
            ObjectKind::Lock => ObjectId::Lock(LockId::parse(name).map_err(|e| usage(&e))?),
            ObjectKind::MonitoringRule => {
                ObjectId::MonitoringRule(RuleName::parse(name).map_err(|e| usage(&e))?)
            }
            ObjectKind::Resource(kind) => {
                ObjectId::Resource(kind, ResourceName::parse(name).map_err(|e| usage(&e))?)
            }
            ObjectKind::Node | ObjectKind::All => {
                let node = name.to_owned();
                return self.nodes_rm(&NodeOnly { node }).await;
            }
        };
        self.remove(id).await
    }
}

/// How much of each object is shown: a line of a table for who may know that it exists, or all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Table,
    Documents,
}

/// Objects of one kind.
enum Found<'v> {
    Roles(Vec<Arc<Role>>),
    Users(Vec<Arc<User>>),
    Nodes(Vec<Arc<Node>>),
    Locks(Vec<&'v Lock>),
    Tokens(Vec<Arc<Token>>),
    Rules(Vec<Arc<MonitoringRule>>),
    Resources(Kind, Vec<Arc<Resource>>),
}

impl Found<'_> {
    /// Each as a document, when its turn has come.
    fn documents(&self) -> Box<dyn Iterator<Item = Value> + Send + '_> {
        match self {
            Self::Roles(roles) => Box::new(roles.iter().map(|role| role.source.clone())),
            Self::Users(users) => Box::new(users.iter().map(|user| documents::user_to_json(user))),
            Self::Nodes(nodes) => Box::new(nodes.iter().map(|node| documents::node_to_json(node))),
            Self::Locks(locks) => Box::new(locks.iter().map(|lock| documents::lock_to_json(lock))),
            Self::Tokens(all) => Box::new(all.iter().map(|one| documents::token_to_json(one))),
            Self::Rules(rules) => Box::new(rules.iter().map(|rule| rule.source.clone())),
            Self::Resources(_, resources) => {
                Box::new(resources.iter().map(|one| documents::resource_to_json(one)))
            }
        }
    }
}

fn roles(view: &View, name: Option<&str>) -> Vec<Arc<Role>> {
    let mut roles: Vec<Arc<Role>> = view.roles().map(Arc::clone).collect();
    roles.retain(|role| name.is_none_or(|name| role.name.as_str() == name));
    roles
}

fn role_cells(role: &Arc<Role>, cells: &mut Cells) {
    cells.push(role.name.as_str());
    cells.push(role.description.as_deref().unwrap_or_default());
}

/// What a table calls resources of a kind.
const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::App => "Application",
        Kind::Db => "Database",
        Kind::KubeCluster => "Kubernetes Cluster",
        Kind::WindowsDesktop => "Desktop",
    }
}

fn resource_cells(resource: &Arc<Resource>, cells: &mut Cells) {
    cells.push(resource.name.as_str());
    cells.push(&resource.address());
    cells.push_with(|text| say::write_labels(text, &resource.labels));
    cells.push(resource.description.as_deref().unwrap_or_default());
}

fn is_called(view: &View, node: &Node, name: &str) -> bool {
    node.name.as_str() == name
        || node.id.to_string() == name
        || resource_id(view, node).to_string() == name
}

fn user_of(
    document: UserDocument,
    before: Option<&User>,
    now: OffsetDateTime,
) -> Result<User, Stop> {
    let mut user = User::new(document.name);
    user.roles = document.roles;
    user.logins = document.logins;
    user.traits = document.traits;
    user.locked = document.locked;
    let keys = document_keys(&format!("user/{}", user.name), "spec.keys", &document.keys)?;
    user.keys = stored_keys(keys, before.map_or(&[], |before| &before.keys), now);
    Ok(user)
}

/// A document without a UUID means the one node of its name where it may replace it, else a new one.
fn node_of(view: &View, document: NodeDocument, existing: Existing) -> Result<Node, Stop> {
    let title = format!("node/{}", document.name);
    let host_proof = match &document.host_proof {
        HostProof::HostCa => HostProof::HostCa,
        HostProof::Pinned(lines) => {
            let keys = document_keys(&title, "spec.host_keys", lines)?;
            HostProof::Pinned(keys.into_iter().map(|key| key.openssh).collect())
        }
    };
    let mut egress_addresses = Vec::new();
    for network in &document.egress_addresses {
        let checked = args::values::cidr(network);
        let refused = |why| {
            Stop::usage(format!(
                "{title}, `spec.egress_addresses`: `{}`: {why}",
                clean(network)
            ))
        };
        egress_addresses.push(checked.map_err(refused)?);
    }
    let found = match document.id {
        // Two nodes may have one name; a UUID says which.
        Some(_) => None,
        None => id_of_name(view, &document.name)?,
    };
    let mut node = Node {
        id: match (document.id, found) {
            (Some(id), _) | (None, Some(id)) => id,
            (None, None) => NodeId::from_uuid(Uuid::new_v4()),
        },
        name: document.name,
        addr: document.addr,
        labels: document.labels,
        said_labels: Default::default(),
        host_proof,
        egress_addresses,
    };
    let before = view.node(&node.id);
    if let Some(before) = before {
        // What a node says of itself is not the document's to take away.
        let set = std::mem::replace(&mut node.labels, before.labels.clone());
        node.said_labels = before.said_labels.clone();
        node.set_labels(set);
    }
    let differs = before.is_some_and(|before| **before != node);
    match (document.id, found, existing) {
        (None, Some(id), Existing::Refuse) if differs => Err(name_is_taken(&node.name, [id])),
        _ => Ok(node),
    }
}

/// The node of this name, for a document that names no UUID; refused where there are several.
fn id_of_name(view: &View, name: &NodeName) -> Result<Option<NodeId>, Stop> {
    let found: Vec<&Arc<Node>> = view.nodes_named(name).collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.id)),
        several => Err(name_is_taken(name, several.iter().map(|node| node.id))),
    }
}

fn name_is_taken(name: &NodeName, ids: impl IntoIterator<Item = NodeId>) -> Stop {
    Stop::new(
        Exit::Failed,
        format!(
            "node `{name}` already exists with UUID {}; name the UUID in `metadata.name` and the name in `spec.hostname`, and replace it with --force",
            some(ids)
        ),
    )
}
