//! `users`, `nodes`, `create`, `get`, `rm`: what administrators keep.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::documents::{self, Document, NodeDocument, UserDocument};
use anteroom_core::id::{
    KeyFingerprint, LockId, NodeId, NodeName, ResourceName, RoleName, RuleName, TokenId, UserName,
};
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::resource::{Kind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::View;
use serde_json::Value;
use ssh_key::PublicKey;
use time::OffsetDateTime;
use uuid::Uuid;

use super::Context;
use super::args::nodes::{
    HostProofArgs, NodeOnly, NodesAdd, NodesLs, NodesRekey, NodesUpdate, OneNode,
};
use super::args::objects::{Create, Get, ObjectKind, Rm};
use super::args::users::{OneUser, UserOnly, UsersAdd, UsersLock, UsersUpdate};
use super::args::{self, Format};
use super::authorities::node_setup;
use super::io::CommandIo;
use super::keys::{self, CheckedKey, KeyError};
use super::locks;
use super::monitoring;
use super::nodes::{
    NodeRow, Shown, all_nodes, kept_node_cells, kept_node_header, node_cells, node_header,
    resource_id,
};
use super::resources::all_resources;
use super::run::{Ended, Listing, Run, Stop, some};
use super::tokens::{self, TOKEN_HEADER, token_cells};
use crate::authority::print;
use crate::enrol::Secret;
use crate::exit::Exit;
use crate::say::{self, Cells, clean};
use crate::state::{
    Existing, LockError, Object, ObjectId, PutError, RemoveError, Stored, TokenError, UpdateError,
    Written,
};

// ---- errors, as exit statuses

impl From<PutError> for Stop {
    fn from(error: PutError) -> Self {
        let exit = match error {
            PutError::Store(error) => return error.into(),
            PutError::FromNode(error) => return error.into(),
            PutError::Lock(LockError::Over(_)) => Exit::Usage,
            PutError::Token(TokenError::Over(_) | TokenError::TooLong(_)) => Exit::Usage,
            PutError::Lock(LockError::TooMany)
            | PutError::Token(TokenError::TooMany)
            | PutError::TooManyRules(_) => Exit::Failed,
            PutError::NotAdmitted(_) | PutError::NotAllowed(_) => Exit::Denied,
            PutError::UnknownRole { .. } => Exit::NotFound,
            PutError::Exists(_) | PutError::KeyTaken { .. } => Exit::Failed,
            PutError::KeyTwice { .. }
            | PutError::ReadsAsTarget { .. }
            | PutError::ReservedName { .. } => Exit::Usage,
        };
        Self::new(exit, clean(&error.to_string()))
    }
}

/// Why an update was refused by what the caller wanted of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

impl From<UpdateError<Refused>> for Stop {
    fn from(error: UpdateError<Refused>) -> Self {
        match error {
            UpdateError::NoSuch(id) => no_such(&id),
            UpdateError::Refused(Refused(why)) => Self::usage(clean(&why)),
            UpdateError::Put(error) => error.into(),
        }
    }
}

impl From<RemoveError> for Stop {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Store(error) => error.into(),
            RemoveError::FromNode(error) => error.into(),
            RemoveError::NoSuch(id) => no_such(&id),
            error @ (RemoveError::NotAdmitted(_) | RemoveError::NotAllowed(_)) => {
                Self::denied(clean(&error.to_string()))
            }
            error @ RemoveError::RoleInUse { .. } => {
                Self::new(Exit::Failed, clean(&error.to_string()))
            }
        }
    }
}

pub(crate) fn no_such(id: &ObjectId) -> Stop {
    let list = match id {
        ObjectId::Role(_) => "get roles",
        ObjectId::User(_) => "users ls",
        ObjectId::Node(_) => "nodes ls",
        ObjectId::Lock(_) => "locks ls",
        ObjectId::Token(_) => "tokens ls",
        ObjectId::MonitoringRule(_) => "get access_monitoring_rules --format text",
        ObjectId::Resource(kind, _) => {
            return Stop::not_found(format!(
                "there is no {}; `get {kind} --format text` shows all",
                clean(&id.to_string())
            ));
        }
    };
    Stop::not_found(format!(
        "there is no {}; `{list}` shows all",
        clean(&id.to_string())
    ))
}

// ---- users

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn users_add(&mut self, args: UsersAdd) -> Ended {
        self.require_some(AdminVerb::Create, AdminResource::User)?;
        let keys = self.read_keys("--key", &args.key).await?;
        let mut user = User::new(args.name.clone());
        user.roles = args.roles.into_iter().collect();
        user.logins = without_repeats(args.logins);
        user.traits = traits(&args.traits)?;
        user.keys = stored_keys(keys, &[], self.ctx.state.now());
        let stored = self
            .ctx
            .state
            .put(&self.by(), vec![Object::User(user)], Existing::Refuse)
            .await?;
        self.say_stored(&stored).await
    }

    pub(crate) async fn users_ls(&mut self, listing: Listing) -> Ended {
        self.require_some(AdminVerb::List, AdminResource::User)?;
        let (view, now) = (self.ctx.state.view(), self.ctx.state.now());
        let users = self.all_users(&view);
        self.rows(
            listing.format,
            &users,
            |user| user,
            &USER_HEADER,
            |user, cells| user_cells(&view, user, now, cells),
        )
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn users_show(&mut self, args: &OneUser) -> Ended {
        let view = self.ctx.state.view();
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Read, &view, &id)?;
        let user = view.user(&args.name).ok_or_else(|| no_such(&id))?;
        self.listing(args.listing.format, user.as_ref(), || {
            user_text(&view, user, self.ctx.state.now())
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn users_update(&mut self, args: UsersUpdate) -> Ended {
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Update, &self.ctx.state.view(), &id)?;
        let replace = self.read_keys_if_any("--key", &args.key).await?;
        let add = self
            .read_keys_if_any("--add-key", &args.add_key)
            .await?
            .unwrap_or_default();
        let new_traits = traits(&args.traits)?;
        let now = self.ctx.state.now();
        let name = args.name.clone();
        let change = move |user: &mut User| {
            if let Some(roles) = args.roles {
                user.roles = roles.0.into_iter().collect();
            }
            if let Some(logins) = args.logins {
                user.logins = without_repeats(logins.0);
            }
            for (key, values) in new_traits {
                if values.iter().all(String::is_empty) {
                    user.traits.remove(&key);
                } else {
                    user.traits.insert(key, values);
                }
            }
            change_keys(user, replace, add, &args.rm_key, now)
        };
        let stored = self
            .ctx
            .state
            .update_user(&self.by(), &name, change)
            .await?;
        self.say_updated(&stored).await
    }

    pub(crate) async fn users_rm(&mut self, args: &UserOnly) -> Ended {
        self.remove(ObjectId::User(args.name.clone())).await
    }

    pub(crate) async fn users_lock(&mut self, args: UsersLock) -> Ended {
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Update, &self.ctx.state.view(), &id)?;
        let message = self.check_reason(Some(&args.message))?;
        if self.user() == Some(&args.name) {
            return Err(Stop::denied(
                "you would lock yourself out; ask another administrator, or use `anteroom ctl` on the proxy",
            ));
        }
        let change = move |user: &mut User| {
            user.locked = Some(message);
            Ok::<(), Refused>(())
        };
        self.ctx
            .state
            .update_user(&self.by(), &args.name, change)
            .await?;
        self.print(&format!("user `{}` is locked", args.name))
            .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn users_unlock(&mut self, args: &UserOnly) -> Ended {
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Update, &self.ctx.state.view(), &id)?;
        let change = |user: &mut User| {
            user.locked = None;
            Ok::<(), Refused>(())
        };
        // `lock --user` shuts her out as well: after this she is let in, whatever it was.
        let target = LockTarget::User(args.name.clone());
        let view = self.ctx.state.view();
        let locks = view.locks().iter().filter(|lock| lock.target == target);
        let locks: Vec<ObjectId> = locks.map(|lock| ObjectId::Lock(lock.id)).collect();
        if !locks.is_empty() {
            self.ctx.state.remove(&self.by(), locks).await?;
        }
        self.ctx
            .state
            .update_user(&self.by(), &args.name, change)
            .await?;
        self.print(&format!("user `{}` is unlocked", args.name))
            .await?;
        Ok(Exit::Done)
    }

    /// The users that the caller may list.
    fn all_users(&self, view: &View) -> Vec<Arc<User>> {
        let mandate = self.mandate(view, AdminVerb::List, AdminResource::User);
        let users = view.users();
        users
            .filter(|user| mandate.covers(AdminObject::User(user)))
            .map(Arc::clone)
            .collect()
    }

    async fn read_keys_if_any(
        &mut self,
        option: &str,
        values: &[String],
    ) -> Result<Option<Vec<CheckedKey>>, Stop> {
        if values.is_empty() {
            Ok(None)
        } else {
            self.read_keys(option, values).await.map(Some)
        }
    }

    async fn read_keys(
        &mut self,
        option: &str,
        values: &[String],
    ) -> Result<Vec<CheckedKey>, Stop> {
        let mut keys: Vec<CheckedKey> = Vec::new();
        for value in values {
            let inline = args::is_inline_key(value);
            let text = if inline {
                value.clone()
            } else {
                self.input(option, value).await?
            };
            let shown = if inline { "the key" } else { value.as_str() };
            let found = keys::parse_all(&text).map_err(|error| {
                Stop::usage(format!(
                    "`{option}`: `{}` can't be used: {error}",
                    say::cut(shown, 80)
                ))
            })?;
            for key in found {
                if !keys
                    .iter()
                    .any(|other| other.fingerprint == key.fingerprint)
                {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    }
}

fn without_repeats<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut out: Vec<T> = Vec::with_capacity(items.len());
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// A key that comes several times has several values.
fn traits(pairs: &[(String, String)]) -> Result<BTreeMap<String, Vec<String>>, Stop> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in pairs {
        if key == "logins" {
            return Err(Stop::usage("the trait `logins` is set with `--logins`"));
        }
        if [key, value]
            .iter()
            .any(|text| text.chars().any(char::is_control))
        {
            return Err(Stop::usage(format!(
                "trait `{}` has a control character in it; write plain text",
                clean(key)
            )));
        }
        out.entry(key.clone()).or_default().push(value.clone());
    }
    Ok(out)
}

/// Keys with the time at which they were first registered.
fn stored_keys(keys: Vec<CheckedKey>, before: &[UserKey], now: OffsetDateTime) -> Vec<UserKey> {
    let added = |fingerprint: &KeyFingerprint| {
        before
            .iter()
            .find(|key| key.fingerprint == *fingerprint)
            .map_or(now, |key| key.added)
    };
    keys.into_iter()
        .map(|key| UserKey {
            added: added(&key.fingerprint),
            fingerprint: key.fingerprint,
            openssh: key.openssh,
        })
        .collect()
}

fn change_keys(
    user: &mut User,
    replace: Option<Vec<CheckedKey>>,
    add: Vec<CheckedKey>,
    remove: &[KeyFingerprint],
    now: OffsetDateTime,
) -> Result<(), Refused> {
    if let Some(keys) = replace {
        user.keys = stored_keys(keys, &user.keys, now);
    }
    for key in stored_keys(add, &user.keys, now) {
        if !user.has_key(&key.fingerprint) {
            user.keys.push(key);
        }
    }
    for fingerprint in remove {
        if !user.has_key(fingerprint) {
            return Err(Refused(format!(
                "user `{}` has no key {fingerprint}; `users show {}` lists them",
                user.name, user.name
            )));
        }
        user.keys.retain(|key| key.fingerprint != *fingerprint);
    }
    Ok(())
}

const USER_HEADER: [&str; 5] = ["User", "Roles", "Logins", "Keys", "Locked"];

fn user_cells(view: &View, user: &User, now: OffsetDateTime, cells: &mut Cells) {
    cells.push(user.name.as_str());
    cells.push_joined(&user.roles);
    cells.push_joined(&user.logins);
    cells.push_shown(user.keys.len());
    cells.push(
        &why_locked(view, user, now)
            .map(|why| say::cut(&why, 40))
            .unwrap_or_default(),
    );
}

/// Why the user is locked out, by `users lock` or by a lock on her or a role that she has.
fn why_locked(view: &View, user: &User, now: OffsetDateTime) -> Option<String> {
    let lock = view.locks().on_person(user, None, now);
    let message = lock.map(|lock| match &lock.target {
        LockTarget::User(_) => lock.message.clone(),
        target @ (LockTarget::Key(_)
        | LockTarget::Role(_)
        | LockTarget::Request(_)
        | LockTarget::Login(_)
        | LockTarget::Node(_)
        | LockTarget::Serial(_)) => format!("{target}: {}", lock.message),
    });
    let why = user.locked.clone().or(message)?;
    Some(if why.is_empty() {
        "yes".to_owned()
    } else {
        why
    })
}

fn user_text(view: &View, user: &User, now: OffsetDateTime) -> String {
    let mut lines = vec![
        field("User", user.name.as_str()),
        field("Roles", &joined(&user.roles)),
        field("Logins", &joined(&user.logins)),
    ];
    for (name, values) in &user.traits {
        lines.push(field("Trait", &format!("{name}: {}", values.join(", "))));
    }
    for key in &user.keys {
        let kind = key.openssh.split(' ').next().unwrap_or_default();
        let comment = key.openssh.splitn(3, ' ').nth(2).unwrap_or_default();
        lines.push(field(
            "Key",
            &format!(
                "{} {kind} {comment} (added {})",
                key.fingerprint,
                say::stamp(key.added)
            ),
        ));
    }
    if let Some(why) = why_locked(view, user, now) {
        lines.push(field("Locked", &why));
    }
    lines.join("\n")
}

fn field(label: &str, value: &str) -> String {
    format!("{:<13}{}", format!("{label}:"), clean(value))
        .trim_end()
        .to_owned()
}

fn joined<'a, T: ToString + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    items
        .into_iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

// ---- nodes

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

// ---- documents

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
            Found::Tokens(tokens) => self.table(tokens, &TOKEN_HEADER, token_cells).await,
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

    async fn remove(&mut self, id: ObjectId) -> Ended {
        self.require_on(AdminVerb::Delete, &self.ctx.state.view(), &id)?;
        let text = format!("{id} removed");
        self.ctx.state.remove(&self.by(), vec![id]).await?;
        self.print(&text).await?;
        Ok(Exit::Done)
    }

    async fn say_stored(&mut self, stored: &[Stored]) -> Ended {
        let lines: Vec<String> = stored
            .iter()
            .map(|stored| {
                let done = match stored.written {
                    Written::Created => "created",
                    Written::Replaced => "replaced",
                    Written::Unchanged => "unchanged",
                };
                format!("{} {done}", self.titled(&stored.id))
            })
            .collect();
        self.print(&lines.join("\n")).await?;
        self.say_warnings(stored).await?;
        Ok(Exit::Done)
    }

    async fn say_updated(&mut self, stored: &Stored) -> Ended {
        self.print(&format!("{} updated", self.titled(&stored.id)))
            .await?;
        self.say_warnings(std::slice::from_ref(stored)).await?;
        Ok(Exit::Done)
    }

    /// A node by its name beside its UUID, anything else as it is.
    fn titled(&self, id: &ObjectId) -> String {
        match id {
            ObjectId::Role(_)
            | ObjectId::User(_)
            | ObjectId::Lock(_)
            | ObjectId::Token(_)
            | ObjectId::MonitoringRule(_)
            | ObjectId::Resource(..) => id.to_string(),
            ObjectId::Node(uuid) => match self.ctx.state.view().node(uuid) {
                Some(node) => format!("node `{}` ({uuid})", node.name),
                None => id.to_string(),
            },
        }
    }

    pub(crate) async fn say_warnings(&mut self, stored: &[Stored]) -> Result<(), Stop> {
        for warning in stored.iter().flat_map(|stored| &stored.warnings) {
            self.note(&format!("WARNING: {}", clean(warning))).await?;
        }
        Ok(())
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

fn document_keys(title: &str, path: &str, lines: &[String]) -> Result<Vec<CheckedKey>, Stop> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    keys::parse_all(&lines.join("\n"))
        .map_err(|error| Stop::usage(format!("{title}, `{path}`: {error}")))
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
