//! The rules of users and nodes that concern others as well: keys and names that several would have. They
//! are held to when all of a transaction's objects are in the draft, in whatever order they came.

use std::sync::Arc;

use anteroom_core::node::Node;
use anteroom_core::user::User;
use anteroom_core::view::View;

use super::{ObjectId, PutError};

/// Holds an object to the rules that concern others as well.
pub(super) fn check(view: &View, id: &ObjectId) -> Result<(), PutError> {
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

/// How many nodes a warning names that share an address or a host key: behind one gateway there
/// may be thousands.
const TWINS_NAMED: usize = 3;

/// Other nodes at the same address or with the same host key: allowed, and worth a word.
pub(super) fn twins(view: &View, node: &Node) -> Vec<String> {
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
