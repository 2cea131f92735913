//! What administrators keep: users, roles, nodes and the rest are created, changed and removed here, all
//! objects of one order in one transaction, each with its log.

mod check;
mod error;
mod removal;
mod rights;
mod writing;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::id::{LockId, NodeId, ResourceName, RoleName, RuleName, TokenId, UserName};
use anteroom_core::lock::Lock;
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::Node;
use anteroom_core::preset::presets;
use anteroom_core::resource::{Kind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use anteroom_core::view::View;

use super::draft::Draft;
use super::monitoring::review_pending_by_rules;
use super::{By, State, not_from_a_node};
use crate::audit::{Entry, Event, PROXY};
use check::check;
use removal::remove;
use rights::may_put;
use writing::{is_as_it_was, put};

pub use error::{NotAllowed, PutError, RemoveError, UpdateError};
pub(super) use rights::{may, proven};

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

fn and_reason(mut entry: Entry, more: Option<String>) -> Entry {
    let both = entry.reason.take().into_iter().chain(more);
    let both: Vec<String> = both.collect();
    entry.reason = (!both.is_empty()).then(|| both.join("; "));
    entry
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
