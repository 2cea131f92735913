//! What a reviewer may look at: the resources of a request with their labels.

use std::collections::BTreeMap;

use time::OffsetDateTime;

use crate::id::{ResourceId, RoleName};
use crate::request::AccessRequest;
use crate::role::Role;
use crate::view::View;

use super::Identity;
use super::resources::Thing;
use super::subject::Subject;

/// A resource of a request, for somebody who may look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// Its ID, without logins.
    pub id: ResourceId,
    /// Its name, for people.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// The resources of `request` that `identity` may look at, in their order: those that she may know
/// of by herself, and those that a role of `preview_as_roles` selects. What any of these roles denies
/// by its labels stays hidden. Nothing is opened by it.
#[must_use]
pub fn previews(
    view: &View,
    identity: &Identity,
    request: &AccessRequest,
    now: OffsetDateTime,
) -> Vec<Preview> {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Vec::new();
    };
    let reach = match &request.granted {
        Some(granted) => &granted.reach,
        None => &request.reach,
    };
    let roles = subject.previewing();
    let shown = reach.resources();
    shown
        .filter_map(|id| {
            let id = id.clone().without_logins();
            subject
                .preview_of_node(&roles, &id)
                .or_else(|| subject.preview_of_other(&roles, &id))
        })
        .collect()
}

impl<'a> Subject<'a> {
    /// The roles as which the user previews: those that exist.
    fn previewing(&self) -> Vec<&'a Role> {
        let mut names: Vec<&RoleName> = self
            .stored()
            .flat_map(|role| &role.allow.review_requests.preview_as_roles)
            .collect();
        names.sort_unstable();
        names.dedup();
        let roles = self.view.roles_named(names.into_iter());
        roles.map(AsRef::as_ref).collect()
    }

    fn preview_of_node(&self, roles: &[&Role], id: &ResourceId) -> Option<Preview> {
        let local = id.cluster() == self.view.cluster();
        let node = id.node_id().filter(|_| local)?;
        let node = self.view.node(&node)?;
        let hides = |role: &Role| {
            role.unreadable.is_some() || role.deny.node_labels.matches(&node.labels, self.user)
        };
        let selects = |role: &Role| role.allow.node_labels.matches(&node.labels, self.user);
        let previewed = roles.iter().any(|role| selects(role) && !hides(role));
        let hidden = self.stored().any(hides);
        (self.may_know(node) || (previewed && !hidden)).then(|| Preview {
            id: id.clone(),
            name: node.name.to_string(),
            labels: node.labels.clone(),
        })
    }

    fn preview_of_other(&self, roles: &[&Role], id: &ResourceId) -> Option<Preview> {
        let thing = Thing::named(self.view, id)?;
        let previewed = roles
            .iter()
            .any(|role| thing.selected_by(role, self.user) && !thing.denied_by(role, self.user));
        let hidden = self.stored().any(|role| thing.denied_by(role, self.user));
        (self.may_know_resource(thing.resource) || (previewed && !hidden)).then(|| Preview {
            id: id.clone(),
            name: thing.resource.name.to_string(),
            labels: thing.resource.labels.clone(),
        })
    }
}
