//! What a user can see: the nodes she can use, and what she can ask for. Decisions themselves are
//! [`super::decide`]'s; these agree with it because they ask the same subject.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use time::OffsetDateTime;

use crate::id::{Login, NodeId, RoleName, UserName};
use crate::node::Node;
use crate::request::Reach;
use crate::role::ReasonMode;
use crate::target::NodeRef;
use crate::view::View;

use super::Identity;
use super::subject::{Holder, Subject};
use super::survey::Survey;

/// A node that works now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableNode {
    /// The node.
    pub node: Arc<Node>,
    /// As whom. Never empty; shared by the nodes on which they are the same.
    pub logins: Arc<BTreeSet<Login>>,
}

/// A node that could be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestableNode {
    /// The node.
    pub node: Arc<Node>,
    /// The logins that do not work now, each with the roles to ask through. Never empty; shared
    /// by the nodes on which they are the same.
    pub logins: Arc<BTreeMap<Login, BTreeSet<RoleName>>>,
}

/// The nodes that `identity` may log in to at `now`, by name and ID.
#[must_use]
pub fn visible_nodes(view: &View, identity: &Identity, now: OffsetDateTime) -> Vec<UsableNode> {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Vec::new();
    };
    let mut survey = Survey::new(&subject);
    let usable = view.nodes().filter_map(|node| {
        let logins = survey.answer(node, |node| subject.usable_logins(node));
        // Most nodes may be somebody else's: their counters are not touched.
        (!logins.is_empty()).then(|| UsableNode {
            node: Arc::clone(node),
            logins,
        })
    });
    usable.collect()
}

/// The nodes that `identity` could ask for at `now`, by name and ID: those with a login that
/// does not work yet.
#[must_use]
pub fn requestable_nodes(
    view: &View,
    identity: &Identity,
    now: OffsetDateTime,
) -> Vec<RequestableNode> {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Vec::new();
    };
    let mut survey = Survey::new(&subject);
    let found = view.nodes().filter_map(|node| {
        let logins = survey.answer(node, |node| subject.askable_logins(node));
        (!logins.is_empty()).then(|| RequestableNode {
            node: Arc::clone(node),
            logins,
        })
    });
    found.collect()
}

/// The roles that `identity` could ask for by name at `now`, with their descriptions, by name.
#[must_use]
pub fn requestable_roles(
    view: &View,
    identity: &Identity,
    now: OffsetDateTime,
) -> Vec<Arc<crate::role::Role>> {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Vec::new();
    };
    let roles = subject.requestable_roles().into_iter();
    roles
        .filter_map(|role| view.role(&role.name))
        .map(Arc::clone)
        .collect()
}

/// What a user can do about requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestCapabilities {
    /// The roles that can be asked for by name, in their order.
    pub roles: Vec<RoleName>,
    /// The roles through which resources can be asked for, in their order.
    pub search_as_roles: Vec<RoleName>,
    /// Whom the user's roles suggest as reviewers.
    pub suggested_reviewers: BTreeSet<UserName>,
    /// Whether one of those roles takes a reason.
    pub reason_required: bool,
}

/// What `user` could ask for at `now`; nothing for one who may do nothing at all. Tells about any
/// user: the caller shows it to administrators.
#[must_use]
pub fn request_capabilities(
    view: &View,
    user: &UserName,
    now: OffsetDateTime,
) -> RequestCapabilities {
    let Ok(subject) = Subject::new(view, user, Holder::AnyKey, now) else {
        return RequestCapabilities::default();
    };
    let names = |roles: Vec<&crate::role::Role>| -> Vec<RoleName> {
        roles.into_iter().map(|role| role.name.clone()).collect()
    };
    let mut out = RequestCapabilities {
        roles: names(subject.requestable_roles()),
        search_as_roles: names(subject.searchable().to_vec()),
        ..RequestCapabilities::default()
    };
    let whole = subject.request_terms(&Reach::Roles, out.roles.iter());
    let some = Reach::Resources(BTreeSet::new());
    let narrow = subject.request_terms(&some, out.search_as_roles.iter());
    for terms in [whole, narrow] {
        out.suggested_reviewers.extend(terms.suggested_reviewers);
        out.reason_required |= terms.reason_mode == ReasonMode::Required;
    }
    out
}

/// What a name means to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Exactly this node.
    One(NodeId),
    /// Several that the user may know of, at least two, in the order of their IDs.
    Ambiguous(Vec<Arc<Node>>),
    /// None that the user may know of; whether one exists is not said.
    Unknown,
}

/// Finds the node that `identity` means. Nodes that she may not know of do not exist here: they
/// make nothing ambiguous and are not found by ID either.
#[must_use]
pub fn resolve(view: &View, identity: &Identity, node: &NodeRef, now: OffsetDateTime) -> Resolved {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Resolved::Unknown;
    };
    let mut found: Vec<&Arc<Node>> = match node {
        NodeRef::Name(name) => view.nodes_named(name).collect(),
        NodeRef::Id(id) => view.node(id).into_iter().collect(),
        NodeRef::Resource(id) if id.cluster() == view.cluster() => id
            .node_id()
            .and_then(|id| view.node(&id))
            .into_iter()
            .collect(),
        NodeRef::Resource(_) => Vec::new(),
    };
    found.retain(|node| subject.may_know(node));
    match found.as_slice() {
        [] => Resolved::Unknown,
        [one] => Resolved::One(one.id),
        several => Resolved::Ambiguous(several.iter().map(|node| Arc::clone(node)).collect()),
    }
}
