//! Users, roles, nodes and other resources: creating, changing, removing, each in one transaction with its log.

use anteroom_ca::key::fingerprint;
use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb, Rights};
use std::sync::Arc;

use anteroom_core::id::{
    KeyFingerprint, LockId, NodeId, NodeName, RequestId, ResourceName, RoleName, RuleName, TokenId,
    UserName,
};
use anteroom_core::lock::Lock;
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::{HostProof, Node};
use anteroom_core::policy;
use anteroom_core::preset::presets;
use anteroom_core::request::{self, Action, Actor};
use anteroom_core::resource::{Kind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use anteroom_core::view::View;
use ssh_key::PublicKey;
use thiserror::Error;

use super::allowances::end_allowances_of;
use super::draft::Draft;
use super::identities::revoke_certificates_of;
use super::locks::{LockError, about_lock, put_lock};
use super::monitoring::{TooManyRules, put_rule, review_pending_by_rules};
use super::tokens::{TokenError, about_token, put_token};
use super::{By, FromNode, NotAdmitted, State, about_request, not_from_a_node};
use crate::audit::{Entry, Event, PROXY};
use crate::store::{HostRevocation, StoreError};

/// Something that an administrator keeps.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A role.
    Role(Role),
    /// A user.
    User(User),
    /// A node.
    Node(Node),
    /// A lock; who makes it and when is written where it is stored.
    Lock(Lock),
    /// An application, a database, a Kubernetes cluster or a desktop.
    Resource(Resource),
    /// An access monitoring rule; its authors are written where it is stored.
    MonitoringRule(MonitoringRule),
    /// A token; who makes it and when is written where it is stored.
    Token(Token),
}

/// The name of something that an administrator keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectId {
    /// A role.
    Role(RoleName),
    /// A user.
    User(UserName),
    /// A node, by its UUID: names are not unique.
    Node(NodeId),
    /// A lock.
    Lock(LockId),
    /// Another resource.
    Resource(Kind, ResourceName),
    /// An access monitoring rule.
    MonitoringRule(RuleName),
    /// A token.
    Token(TokenId),
}

/// What to do where the object is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse.
    Refuse,
    /// Replace it (`--force`).
    Replace,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The object.
    pub id: ObjectId,
    /// Whether it was there before.
    pub written: Written,
    /// What the operator should know: two nodes share an address or a host key.
    pub warnings: Vec<String>,
}

/// Whether an object was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It was not.
    Created,
    /// It was, and is replaced.
    Replaced,
    /// It was the very same, so that nothing is written and nothing logged.
    Unchanged,
}

/// Why somebody may not change what administrators keep.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("your roles don't allow `{}` on `{}`; an administrator can do it", verb.as_str(), resource.as_str())]
pub struct NotAllowed {
    /// What was to be done.
    pub verb: AdminVerb,
    /// With what.
    pub resource: AdminResource,
}

/// Why nothing was written.
#[derive(Debug, Error)]
pub enum PutError {
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// The administrator's roles don't allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// It is there already.
    #[error("{0} already exists; replace it with --force, or change it with update")]
    Exists(ObjectId),
    /// A user is to have a role that there is none of.
    #[error(
        "user `{user}` cannot have role `{role}`: there is no such role; create it first, or see `get role`"
    )]
    UnknownRole {
        /// The user.
        user: UserName,
        /// The role.
        role: RoleName,
    },
    /// A key belongs to one user.
    #[error(
        "key {key} belongs to user `{owner}` already, and cannot be `{user}`'s as well; use another key"
    )]
    KeyTaken {
        /// The key.
        key: KeyFingerprint,
        /// Whose it is to be.
        user: UserName,
        /// Whose it is.
        owner: UserName,
    },
    /// A key is listed twice.
    #[error("key {key} is listed twice for user `{user}`")]
    KeyTwice {
        /// The key.
        key: KeyFingerprint,
        /// The user.
        user: UserName,
    },
    /// Nobody may be called so.
    #[error("user name `{user}` is reserved: {why}; choose another name")]
    ReservedName {
        /// The user.
        user: UserName,
        /// What the name is for.
        why: &'static str,
    },
    /// The name would be read as a target.
    #[error(
        "user name `{user}` would read as a login on node `{node}`; choose another name for one of them"
    )]
    ReadsAsTarget {
        /// The user.
        user: UserName,
        /// The node.
        node: NodeName,
    },
    /// The lock cannot be.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The token cannot be.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There are too many access monitoring rules.
    #[error(transparent)]
    TooManyRules(#[from] TooManyRules),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an object was not changed.
#[derive(Debug, Error)]
pub enum UpdateError<E> {
    /// There is none of that name.
    #[error("there is no {0}")]
    NoSuch(ObjectId),
    /// What was to be done with it is not possible.
    #[error("{0}")]
    Refused(E),
    /// What came out cannot be stored.
    #[error(transparent)]
    Put(#[from] PutError),
}

impl<E> From<StoreError> for UpdateError<E> {
    fn from(error: StoreError) -> Self {
        Self::Put(PutError::Store(error))
    }
}

/// Why an object was not removed.
#[derive(Debug, Error)]
pub enum RemoveError {
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// The administrator's roles don't allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// There is none of that name.
    #[error("there is no {0}")]
    NoSuch(ObjectId),
    /// Users have the role.
    #[error("role `{role}` is in use by {}; take it from them with `users update --roles` first", listed(.users))]
    RoleInUse {
        /// The role.
        role: RoleName,
        /// Who has it.
        users: Vec<UserName>,
    },
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Names in an error; a few say enough.
fn listed(users: &[UserName]) -> String {
    const SHOWN: usize = 8;
    let mut text = users
        .iter()
        .take(SHOWN)
        .map(|user| format!("`{user}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if users.len() > SHOWN {
        text.push_str(&format!(" and {} more", users.len() - SHOWN));
    }
    text
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Role(name) => write!(f, "role `{name}`"),
            Self::User(name) => write!(f, "user `{name}`"),
            Self::Node(id) => write!(f, "node `{id}`"),
            Self::Lock(id) => write!(f, "lock `{id}`"),
            Self::Resource(kind, name) => write!(f, "{kind} `{name}`"),
            Self::MonitoringRule(name) => write!(f, "access monitoring rule `{name}`"),
            Self::Token(id) => write!(f, "token `{id}`"),
        }
    }
}

impl Object {
    /// What it is called.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        match self {
            Self::Role(role) => ObjectId::Role(role.name.clone()),
            Self::User(user) => ObjectId::User(user.name.clone()),
            Self::Node(node) => ObjectId::Node(node.id),
            Self::Lock(lock) => ObjectId::Lock(lock.id),
            Self::Resource(resource) => ObjectId::Resource(resource.kind(), resource.name.clone()),
            Self::MonitoringRule(rule) => ObjectId::MonitoringRule(rule.name.clone()),
            Self::Token(token) => ObjectId::Token(token.id.clone()),
        }
    }

    /// The same for whoever asks what rules say of it.
    #[must_use]
    pub fn to_judge(&self) -> AdminObject<'_> {
        match self {
            Self::Role(role) => AdminObject::Role(role),
            Self::User(user) => AdminObject::User(user),
            Self::Node(node) => AdminObject::Node(node),
            Self::Lock(lock) => lock.into(),
            Self::Resource(resource) => AdminObject::Resource(resource),
            Self::MonitoringRule(rule) => AdminObject::MonitoringRule(rule),
            Self::Token(_) => AdminObject::Tokens,
        }
    }
}

impl ObjectId {
    /// What rules call it.
    #[must_use]
    pub fn resource(&self) -> AdminResource {
        match self {
            Self::Role(_) => AdminResource::Role,
            Self::User(_) => AdminResource::User,
            Self::Node(_) => AdminResource::Node,
            Self::Lock(_) => AdminResource::Lock,
            Self::Resource(kind, _) => kind.admin(),
            Self::MonitoringRule(_) => AdminResource::AccessMonitoringRule,
            Self::Token(_) => AdminResource::Token,
        }
    }

    /// What is called so, if there is such a thing.
    #[must_use]
    pub fn find<'v>(&self, view: &'v View) -> Option<AdminObject<'v>> {
        match self {
            Self::Role(name) => view.role(name).map(|role| AdminObject::Role(role)),
            Self::User(name) => view.user(name).map(|user| AdminObject::User(user)),
            Self::Node(id) => view.node(id).map(|node| AdminObject::Node(node)),
            Self::Lock(id) => view.locks().get(id).map(|lock| lock.as_ref().into()),
            Self::Resource(kind, name) => {
                let found = view.resource(*kind, name.as_str());
                found.map(|resource| AdminObject::Resource(resource))
            }
            Self::MonitoringRule(name) => {
                let found = view.monitoring_rule(name);
                found.map(|rule| AdminObject::MonitoringRule(rule))
            }
            Self::Token(id) => view.token(id).map(|_| AdminObject::Tokens),
        }
    }

    fn is_in(&self, view: &View) -> bool {
        self.find(view).is_some()
    }
}

impl State {
    /// Writes all of these objects, or none: a file of documents is one transaction, and what
    /// names what may stand in any order in it.
    ///
    /// # Errors
    /// [`PutError`] names the first object that cannot be written; then nothing is.
    pub async fn put(
        &self,
        by: &By,
        objects: Vec<Object>,
        existing: Existing,
    ) -> Result<Vec<Stored>, PutError> {
        let by = by.clone();
        let nodes = objects
            .iter()
            .any(|object| matches!(object, Object::Node(_)));
        let stored = self
            .write(move |draft| {
                let ids: Vec<ObjectId> = objects.iter().map(Object::id).collect();
                put_all(draft, &by, objects, existing)
                    .inspect_err(|error| refused(draft, &by, AdminVerb::Update, &ids, error))
            })
            .await;
        if nodes {
            self.shared.nodes.notify_one();
        }
        stored
    }

    /// Changes a user as she is at this moment.
    ///
    /// # Errors
    /// [`UpdateError`]; `change` may refuse with an error of its own.
    pub async fn update_user<E, F>(
        &self,
        by: &By,
        name: &UserName,
        change: F,
    ) -> Result<Stored, UpdateError<E>>
    where
        F: FnOnce(&mut User) -> Result<(), E> + Send + 'static,
        E: Send + 'static,
    {
        let (by, name) = (by.clone(), name.clone());
        self.write(move |draft| {
            let id = ObjectId::User(name.clone());
            let found = draft.view().user(&name).map(|user| User::clone(user));
            update(draft, &by, id, found, |mut user| {
                change(&mut user)?;
                // The name is what everything else knows her by.
                user.name = name;
                Ok(Object::User(user))
            })
        })
        .await
    }

    /// Changes a node as it is at this moment.
    ///
    /// # Errors
    /// [`UpdateError`]; `change` may refuse with an error of its own.
    pub async fn update_node<E, F>(
        &self,
        by: &By,
        node: NodeId,
        change: F,
    ) -> Result<Stored, UpdateError<E>>
    where
        F: FnOnce(&mut Node) -> Result<(), E> + Send + 'static,
        E: Send + 'static,
    {
        let by = by.clone();
        let stored = self
            .write(move |draft| {
                let found = draft.view().node(&node).map(|node| Node::clone(node));
                update(draft, &by, ObjectId::Node(node), found, |mut changed| {
                    change(&mut changed)?;
                    // The UUID is what approvals are bound to.
                    changed.id = node;
                    Ok(Object::Node(changed))
                })
            })
            .await;
        self.shared.nodes.notify_one();
        stored
    }

    /// Removes all of these objects, or none. A removed user's requests end with her: who is
    /// created under her name later gets nothing of them.
    ///
    /// # Errors
    /// [`RemoveError`] names the first that cannot be removed; then none is.
    pub async fn remove(&self, by: &By, ids: Vec<ObjectId>) -> Result<(), RemoveError> {
        let by = by.clone();
        self.write(move |draft| {
            remove_all(draft, &by, &ids)
                .inspect_err(|error| refused(draft, &by, AdminVerb::Delete, &ids, error))
        })
        .await
    }
}

fn put_all(
    draft: &mut Draft,
    by: &By,
    objects: Vec<Object>,
    existing: Existing,
) -> Result<Vec<Stored>, PutError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    let ids: Vec<ObjectId> = objects.iter().map(Object::id).collect();
    // Rights are judged before the first change: nobody gives himself what he lacks by the order
    // of documents.
    for object in &objects {
        may_put(draft.view(), by, object)?;
    }
    let mut released = Vec::new();
    for object in &objects {
        if let Object::User(user) = object
            && !is_as_it_was(draft.view(), object, existing)
        {
            draft.release_keys(&user.name);
            released.push(object.id());
        }
    }
    let mut stored = Vec::with_capacity(objects.len());
    for object in objects {
        let id = object.id();
        // Of a user whose keys were released they have to be written again.
        if is_as_it_was(draft.view(), &object, existing) && !released.contains(&id) {
            stored.push(Stored {
                id,
                written: Written::Unchanged,
                warnings: Vec::new(),
            });
        } else {
            stored.push(put(draft, by, object, existing)?);
        }
    }
    // Afterwards, since a later document may be what an earlier one needs.
    for id in &ids {
        check(draft.view(), id)?;
    }
    if ids
        .iter()
        .any(|id| matches!(id, ObjectId::MonitoringRule(_)))
    {
        review_pending_by_rules(draft);
    }
    Ok(stored)
}

fn remove_all(draft: &mut Draft, by: &By, ids: &[ObjectId]) -> Result<(), RemoveError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    for id in ids {
        may(draft.view(), by, AdminVerb::Delete, id)?;
    }
    for id in ids {
        remove(draft, by, id)?;
    }
    Ok(())
}

fn update<T, E>(
    draft: &mut Draft,
    by: &By,
    id: ObjectId,
    found: Option<T>,
    change: impl FnOnce(T) -> Result<Object, E>,
) -> Result<Stored, UpdateError<E>> {
    let try_it = |draft: &mut Draft| {
        by.admit(draft).map_err(PutError::from)?;
        not_from_a_node(draft, by.from).map_err(PutError::from)?;
        may(draft.view(), by, AdminVerb::Update, &id).map_err(PutError::from)?;
        let found = found.ok_or_else(|| UpdateError::NoSuch(id.clone()))?;
        let changed = change(found).map_err(UpdateError::Refused)?;
        may_put(draft.view(), by, &changed).map_err(PutError::from)?;
        let stored = put(draft, by, changed, Existing::Replace)?;
        check(draft.view(), &id)?;
        Ok(stored)
    };
    let outcome = try_it(draft);
    match &outcome {
        Err(UpdateError::Put(error)) => refused(draft, by, AdminVerb::Update, &[id], error),
        // Nothing was tried that anybody would want to know of: a typing error.
        Ok(_) | Err(UpdateError::NoSuch(_) | UpdateError::Refused(_)) => {}
    }
    outcome
}

/// Logs that an administrator's act was refused, and on what.
fn refused(
    draft: &mut Draft,
    by: &By,
    verb: AdminVerb,
    ids: &[ObjectId],
    why: &dyn std::fmt::Display,
) {
    /// A file may hold thousands of documents; a few say which file it was.
    const NAMED: usize = 8;
    let removed = verb == AdminVerb::Delete;
    let event = match ids.first() {
        Some(ObjectId::Role(_)) if removed => Event::RoleDelete,
        Some(ObjectId::Role(_)) => Event::RoleUpdate,
        Some(ObjectId::User(_)) if removed => Event::UserDelete,
        Some(ObjectId::User(_)) => Event::UserUpdate,
        Some(ObjectId::Node(_)) if removed => Event::NodeDelete,
        Some(ObjectId::Node(_)) => Event::NodeUpdate,
        Some(ObjectId::Lock(_)) if removed => Event::LockDelete,
        Some(ObjectId::Lock(_)) => Event::LockCreate,
        Some(ObjectId::Resource(kind, _)) if removed => Event::ResourceDelete(*kind),
        Some(ObjectId::Resource(kind, _)) => Event::ResourceUpdate(*kind),
        Some(ObjectId::MonitoringRule(_)) if removed => Event::MonitoringRuleDelete,
        Some(ObjectId::MonitoringRule(_)) => Event::MonitoringRuleUpdate,
        Some(ObjectId::Token(_)) if removed => Event::TokenDelete,
        Some(ObjectId::Token(_)) => Event::TokenCreate,
        None => Event::Admin,
    };
    let names: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    draft.log(by.entry(event).name(names.join(", ")).refused(why));
}

/// Whether the administrator may write `object`: one that is there has to be hers to change before
/// and after, so that nobody takes over what is not hers or gives away what is.
fn may_put(view: &View, by: &By, object: &Object) -> Result<(), NotAllowed> {
    let id = object.id();
    let verb = if id.is_in(view) {
        may(view, by, AdminVerb::Update, &id)?;
        AdminVerb::Update
    } else {
        AdminVerb::Create
    };
    judge(view, by, verb, id.resource(), Some(object.to_judge()))
}

/// Whether the administrator's stored roles allow it, at this moment. Of what is not there, only
/// whether they may allow it at all: then there is nothing to do it with.
pub(super) fn may(view: &View, by: &By, verb: AdminVerb, id: &ObjectId) -> Result<(), NotAllowed> {
    judge(view, by, verb, id.resource(), id.find(view))
}

/// The same for `object`, which has not to be in the view.
pub(super) fn judge(
    view: &View,
    by: &By,
    verb: AdminVerb,
    resource: AdminResource,
    object: Option<AdminObject<'_>>,
) -> Result<(), NotAllowed> {
    let may = match &by.actor {
        Actor::User(name) => {
            let rights = Rights::new(view, name, verb, resource);
            let may = object.map_or_else(|| rights.exist(), |object| rights.cover(object));
            may && proven(view, by)
        }
        Actor::LocalAdministrator | Actor::Clock => true,
        Actor::Rule(_) => false,
    };
    if may {
        Ok(())
    } else {
        Err(NotAllowed { verb, resource })
    }
}

/// Whether a user has proven what her roles demand, while a command of hers waited for its input as well.
pub(super) fn proven(view: &View, by: &By) -> bool {
    let identity = by.identity.as_ref();
    identity.is_some_and(|identity| policy::unproven_of_stored(view, identity).is_none())
}

/// Whether the object is there, and nothing about it differs, so that it is left alone: a node whether or not it
/// may be replaced, so that its document can be applied again; anything else where it may. A lock and a token
/// are something new each time that they are written.
fn is_as_it_was(view: &View, object: &Object, existing: Existing) -> bool {
    match object {
        Object::Role(_) | Object::User(_) | Object::MonitoringRule(_) | Object::Resource(_)
            if existing == Existing::Refuse =>
        {
            false
        }
        Object::Role(role) => view
            .role(&role.name)
            .is_some_and(|before| **before == *role),
        Object::User(user) => view
            .user(&user.name)
            .is_some_and(|before| **before == *user),
        Object::Node(node) => view.node(&node.id).is_some_and(|before| **before == *node),
        Object::MonitoringRule(rule) => {
            let before = view.monitoring_rule(&rule.name);
            before.is_some_and(|before| **before == *rule)
        }
        Object::Resource(resource) => {
            let before = view.resource(resource.kind(), resource.name.as_str());
            before.is_some_and(|before| **before == *resource)
        }
        Object::Lock(_) | Object::Token(_) => false,
    }
}

fn put(draft: &mut Draft, by: &By, object: Object, existing: Existing) -> Result<Stored, PutError> {
    let id = object.id();
    let written = match (id.is_in(draft.view()), existing) {
        (false, Existing::Refuse | Existing::Replace) => Written::Created,
        (true, Existing::Replace) => Written::Replaced,
        (true, Existing::Refuse) => return Err(PutError::Exists(id)),
    };
    if let (ObjectId::User(name), Written::Created) = (&id, written)
        && let Some(why) = name.reserved()
    {
        let user = name.clone();
        return Err(PutError::ReservedName { user, why });
    }
    let warnings = match &object {
        Object::Node(node) => twins(draft.view(), node),
        Object::Lock(lock) => {
            let stored = put_lock(draft, by, lock)?;
            return Ok(Stored {
                id,
                written,
                warnings: stored,
            });
        }
        Object::Token(token) => {
            put_token(draft, by, token.clone())?;
            Vec::new()
        }
        Object::Role(_) | Object::User(_) | Object::Resource(_) | Object::MonitoringRule(_) => {
            Vec::new()
        }
    };
    let event = match (&object, written) {
        (Object::Role(_), Written::Created) => Event::RoleCreate,
        (Object::Role(_), Written::Replaced) => Event::RoleUpdate,
        (Object::User(_), Written::Created) => Event::UserCreate,
        (Object::User(_), Written::Replaced) => Event::UserUpdate,
        (Object::Node(_), Written::Created) => Event::NodeCreate,
        (Object::Node(_), Written::Replaced) => Event::NodeUpdate,
        (Object::Lock(_), _) => Event::LockCreate,
        (Object::Resource(resource), Written::Created) => Event::ResourceCreate(resource.kind()),
        (Object::Resource(resource), Written::Replaced) => Event::ResourceUpdate(resource.kind()),
        (Object::MonitoringRule(_), Written::Created) => Event::MonitoringRuleCreate,
        (Object::MonitoringRule(_), Written::Replaced) => Event::MonitoringRuleUpdate,
        // It has logged itself; what was the same was left alone above.
        (Object::Token(_), _) | (_, Written::Unchanged) => {
            return Ok(Stored {
                id,
                written,
                warnings,
            });
        }
    };
    let mut entry = named(by.entry(event), &object);
    if let Object::User(user) = &object {
        let key_removed = "its key was removed from the user";
        let has = |key: &KeyFingerprint| user.has_key(key);
        let revoked = revoke_certificates_of(draft, &user.name, has, key_removed);
        entry = and_reason(entry, revoked);
    }
    if let Object::Node(node) = &object {
        entry = and_reason(entry, rekeyed(draft.view(), node));
    }
    draft.log(entry);
    if let Object::Node(node) = &object {
        revoke_what_is_not_pinned(draft, by, node);
    }
    match object {
        Object::Role(role) => draft.put_role(role),
        Object::User(user) => draft.put_user(user),
        Object::Node(node) => draft.put_node(node),
        Object::Lock(lock) => draft.put_lock(lock),
        Object::Resource(resource) => draft.put_resource(resource),
        Object::MonitoringRule(rule) => put_rule(draft, by, rule)?,
        Object::Token(_) => {}
    }
    Ok(Stored {
        id,
        written,
        warnings,
    })
}

/// Where an operator says by which keys a node is known from now on, certificates for other keys of
/// it are of the past. The node is as it was before.
fn revoke_what_is_not_pinned(draft: &mut Draft, by: &By, node: &Node) {
    let HostProof::Pinned(keys) = &node.host_proof else {
        return;
    };
    let before = draft.view().node(&node.id);
    if before.is_none_or(|before| before.host_proof == node.host_proof) {
        return;
    }
    let pinned = keys.iter().filter_map(|key| {
        let key = PublicKey::from_openssh(key).ok()?;
        Some(fingerprint(&key).to_string())
    });
    let which = HostRevocation {
        node: node.id,
        but_for: pinned.collect(),
        key_type: None,
        why: "the node is known by other keys now".to_owned(),
    };
    let entry = by.entry(Event::NodeUpdate).name(&node.name);
    draft.revoke_hosts(which, entry.node(&node.name).node_id(node.id));
}

/// By what the node was known and is known now, where that changes.
fn rekeyed(view: &View, node: &Node) -> Option<String> {
    let before = view.node(&node.id)?;
    let known_by = |proof: &HostProof| match proof {
        HostProof::HostCa => "a host certificate".to_owned(),
        HostProof::Pinned(keys) => {
            let keys = keys
                .iter()
                .filter_map(|key| PublicKey::from_openssh(key).ok());
            let keys: Vec<String> = keys.map(|key| fingerprint(&key).to_string()).collect();
            keys.join(", ")
        }
    };
    (before.host_proof != node.host_proof).then(|| {
        format!(
            "known by {} in the place of {}",
            known_by(&node.host_proof),
            known_by(&before.host_proof)
        )
    })
}

fn and_reason(mut entry: Entry, more: Option<String>) -> Entry {
    let both = entry.reason.take().into_iter().chain(more);
    let both: Vec<String> = both.collect();
    entry.reason = (!both.is_empty()).then(|| both.join("; "));
    entry
}

fn named(entry: Entry, object: &Object) -> Entry {
    match object {
        Object::Role(role) => entry.name(&role.name),
        Object::User(user) => {
            let entry = entry.name(&user.name);
            match &user.locked {
                Some(message) => entry.state("locked").reason(message),
                None => entry,
            }
        }
        Object::Node(node) => entry.name(&node.name).node(&node.name).node_id(node.id),
        Object::Lock(lock) => about_lock(entry, lock),
        Object::Resource(resource) => entry.name(&resource.name),
        Object::MonitoringRule(rule) => entry.name(&rule.name).state(rule.decision.as_str()),
        Object::Token(token) => about_token(entry, token),
    }
}

/// How many nodes a warning names that share an address or a host key: behind one gateway there
/// may be thousands.
const TWINS_NAMED: usize = 3;

/// Other nodes at the same address or with the same host key: allowed, and worth a word.
fn twins(view: &View, node: &Node) -> Vec<String> {
    let mut warnings = Vec::new();
    if let Some(host) = node.addr.host() {
        let there = view.nodes_at(host).filter(|other| other.addr == node.addr);
        warnings = shared(node, there, &format!("same address {}", node.addr));
    }
    for key in node.pinned_keys() {
        warnings.extend(shared(node, view.nodes_with_host_key(key), "same host key"));
    }
    warnings.sort();
    warnings.dedup();
    warnings
}

fn shared<'a>(node: &Node, with: impl Iterator<Item = &'a Arc<Node>>, what: &str) -> Vec<String> {
    let mut others = with.filter(|other| other.id != node.id);
    let named = others.by_ref().take(TWINS_NAMED);
    let mut warnings: Vec<String> = named
        .map(|other| format!("node `{}` ({}) has the {what}", other.name, other.id))
        .collect();
    if others.next().is_some() {
        warnings.push(format!("still more nodes have the {what}"));
    }
    warnings
}

/// Holds an object to the rules that concern others as well.
fn check(view: &View, id: &ObjectId) -> Result<(), PutError> {
    match id {
        ObjectId::Role(_)
        | ObjectId::Lock(_)
        | ObjectId::Resource(..)
        | ObjectId::MonitoringRule(_)
        | ObjectId::Token(_) => Ok(()),
        ObjectId::User(name) => view
            .user(name)
            .map_or(Ok(()), |user| check_user(view, user)),
        ObjectId::Node(id) => view.node(id).map_or(Ok(()), |node| check_node(view, node)),
    }
}

fn check_user(view: &View, user: &User) -> Result<(), PutError> {
    if let Some(role) = user.roles.iter().find(|role| view.role(role).is_none()) {
        return Err(PutError::UnknownRole {
            user: user.name.clone(),
            role: role.clone(),
        });
    }
    for (number, key) in user.keys.iter().enumerate() {
        let key = &key.fingerprint;
        if user
            .keys
            .iter()
            .skip(number + 1)
            .any(|other| other.fingerprint == *key)
        {
            return Err(PutError::KeyTwice {
                key: key.clone(),
                user: user.name.clone(),
            });
        }
        // The index answers with nobody if the key has two owners: then one of them is another.
        if view
            .user_by_key(key)
            .is_none_or(|owner| owner.name != user.name)
        {
            let owner = view
                .users()
                .find(|other| other.name != user.name && other.has_key(key));
            let owner = owner.map_or_else(|| user.name.clone(), |owner| owner.name.clone());
            return Err(PutError::KeyTaken {
                key: key.clone(),
                user: user.name.clone(),
                owner,
            });
        }
    }
    let node = user.name.read_as_target();
    match node.filter(|node| view.nodes_named(node).next().is_some()) {
        Some(node) => Err(PutError::ReadsAsTarget {
            user: user.name.clone(),
            node,
        }),
        None => Ok(()),
    }
}

fn check_node(view: &View, node: &Node) -> Result<(), PutError> {
    match view.user_read_as_target(&node.name) {
        Some(user) => Err(PutError::ReadsAsTarget {
            user: user.name.clone(),
            node: node.name.clone(),
        }),
        None => Ok(()),
    }
}

fn remove(draft: &mut Draft, by: &By, id: &ObjectId) -> Result<(), RemoveError> {
    let no_such = || RemoveError::NoSuch(id.clone());
    match id {
        ObjectId::Role(name) => {
            draft.view().role(name).ok_or_else(no_such)?;
            let mut users: Vec<UserName> = draft
                .view()
                .users()
                .filter(|user| user.roles.contains(name))
                .map(|user| user.name.clone())
                .collect();
            if !users.is_empty() {
                users.sort();
                return Err(RemoveError::RoleInUse {
                    role: name.clone(),
                    users,
                });
            }
            draft.log(by.entry(Event::RoleDelete).name(name));
            draft.remove_role(name);
        }
        ObjectId::User(name) => {
            draft.view().user(name).ok_or_else(no_such)?;
            end_requests_of(draft, by, name);
            end_allowances_of(draft, by, name);
            let revoked = revoke_certificates_of(draft, name, |_| false, "the user was removed");
            draft.log(and_reason(by.entry(Event::UserDelete).name(name), revoked));
            draft.remove_user(name);
        }
        ObjectId::Node(node) => {
            let found = draft.view().node(node).ok_or_else(no_such)?;
            let entry = by
                .entry(Event::NodeDelete)
                .name(&found.name)
                .node(&found.name)
                .node_id(node);
            draft.log(entry.clone());
            let which = HostRevocation {
                node: *node,
                but_for: Vec::new(),
                key_type: None,
                why: "the node was removed".to_owned(),
            };
            draft.revoke_hosts(which, entry);
            draft.remove_node(*node);
        }
        ObjectId::Lock(lock) => {
            let found = draft.view().locks().get(lock).ok_or_else(no_such)?;
            let entry = about_lock(by.entry(Event::LockDelete), found);
            draft.log(entry);
            draft.remove_lock(*lock);
        }
        ObjectId::Resource(kind, name) => {
            draft
                .view()
                .resource(*kind, name.as_str())
                .ok_or_else(no_such)?;
            draft.log(by.entry(Event::ResourceDelete(*kind)).name(name));
            draft.remove_resource(*kind, name);
        }
        ObjectId::MonitoringRule(name) => {
            draft.view().monitoring_rule(name).ok_or_else(no_such)?;
            draft.log(by.entry(Event::MonitoringRuleDelete).name(name));
            draft.remove_monitoring_rule(name);
        }
        ObjectId::Token(id) => {
            let token = draft.view().token(id).ok_or_else(no_such)?;
            let entry = about_token(by.entry(Event::TokenDelete), token);
            draft.log(entry);
            draft.remove_token(id);
        }
    }
    Ok(())
}

fn end_requests_of(draft: &mut Draft, by: &By, user: &UserName) {
    let live: Vec<RequestId> = draft
        .view()
        .live_requests_of(user)
        .map(|request| request.id)
        .collect();
    for id in live {
        let Some(request) = draft.view().request(&id).cloned() else {
            continue;
        };
        let action = Action::Deny {
            reason: "the user was removed".to_owned(),
        };
        // An administrator who removes himself decides nothing of his own by it.
        let actor = match &by.actor {
            Actor::User(name) if name == user => &Actor::LocalAdministrator,
            actor
            @ (Actor::User(_) | Actor::LocalAdministrator | Actor::Rule(_) | Actor::Clock) => actor,
        };
        match request::apply(&request, &action, actor, draft.now()) {
            Ok(ended) => {
                let entry = about_request(Event::AccessRequestUpdate, &ended).user(&by.actor);
                draft.log(entry.reason("the user was removed"));
                draft.update_request(ended, request.state);
            }
            Err(error) => {
                tracing::error!(request = %id, %error, "request of a removed user does not end")
            }
        }
    }
}

/// Creates the preset roles at the first start of a data directory: those that were removed or
/// changed later stay as the operator left them.
pub(super) fn create_presets(draft: &mut Draft) {
    if draft.view().roles().next().is_some() || draft.view().users().next().is_some() {
        return;
    }
    for preset in presets() {
        draft.log(
            Entry::new(Event::RoleCreate)
                .user(PROXY)
                .name(&preset.name)
                .reason("preset"),
        );
        draft.put_role(preset);
    }
}
