//! What several roles give together. One role's deny counts against all that a request gives, so
//! roles that each help alone may cancel each other.

use std::collections::BTreeSet;

use crate::id::{Login, ResourceId, ResourceKind, RoleName};
use crate::node::Node;
use crate::policy::resources::Thing;
use crate::policy::rules::{denies, grants};
use crate::policy::subject::Subject;
use crate::role::Role;

use super::FilingError;

/// Takes out of `roles` those that, beside the others, give nothing of `needed`.
///
/// # Errors
/// [`FilingError::RolesConflict`] where those that are left don't give all of `needed`.
pub(super) fn settle(
    subject: &Subject<'_>,
    roles: &mut BTreeSet<RoleName>,
    needed: &BTreeSet<ResourceId>,
) -> Result<(), FilingError> {
    let all = |names: &BTreeSet<RoleName>| -> Vec<&Role> {
        let found = names.iter().filter_map(|name| subject.view.role(name));
        found.map(AsRef::as_ref).collect()
    };
    loop {
        let chosen = all(roles);
        let gives = |role: &Role| needed.iter().any(|id| given(subject, &[role], &chosen, id));
        // One at a time: what it denied may be what kept another from helping.
        let idle = chosen.iter().find(|role| !gives(role));
        match idle.map(|role| role.name.clone()) {
            Some(idle) => roles.remove(&idle),
            None => break,
        };
    }
    let chosen = all(roles);
    for id in needed {
        let logins = id.logins().into_iter().flatten();
        let mut singly = logins.filter_map(|login| {
            let only = BTreeSet::from([login.clone()]);
            id.clone().without_logins().with_logins(only)
        });
        let lost = match id.logins() {
            Some(_) => singly.find(|one| !given(subject, &chosen, &chosen, one)),
            None => Some(id.clone()).filter(|id| !given(subject, &chosen, &chosen, id)),
        };
        if let Some(resource) = lost {
            return Err(FilingError::RolesConflict(resource));
        }
    }
    Ok(())
}

/// Whether one of `by` gives something of `id` that none of `against` denies.
fn given(subject: &Subject<'_>, by: &[&Role], against: &[&Role], id: &ResourceId) -> bool {
    if *id.kind() != ResourceKind::Node {
        return Thing::named(subject.view, id).is_some_and(|thing| {
            by.iter().any(|role| thing.granted_by(role, subject.user))
                && !against
                    .iter()
                    .any(|role| thing.denied_by(role, subject.user))
        });
    }
    let node = id.node_id().and_then(|node| subject.view.node(&node));
    let free = |node: &Node, role: &Role, login: &Login| {
        grants(role, subject.user, node, login)
            && !against
                .iter()
                .any(|other| denies(other, subject.user, node, login))
    };
    node.is_some_and(|node| {
        by.iter().any(|role| match id.logins() {
            Some(logins) => logins.iter().any(|login| free(node, role, login)),
            None => role
                .allow
                .logins_for(subject.user)
                .iter()
                .any(|login| free(node, role, login)),
        })
    })
}
