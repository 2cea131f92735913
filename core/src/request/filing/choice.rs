//! What is asked for in the end: the roles that really open something, and of the resources what does not
//! work yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Login, NodeId, RequestId, ResourceId, ResourceKind, RoleName};
use crate::policy::resources::{Thing, Unaskable};
use crate::policy::subject::Subject;
use crate::request::{Reach, together};

use super::FilingError;

/// What is to be asked for, or what gives it already.
pub(super) enum Choice {
    Ask(Chosen),
    Covered(RequestId),
}

pub(super) struct Chosen {
    pub(super) roles: BTreeSet<RoleName>,
    pub(super) reach: Reach,
    pub(super) reachable: Vec<ResourceId>,
}

pub(super) fn choose_roles(
    subject: &Subject<'_>,
    wanted: &BTreeSet<RoleName>,
) -> Result<Choice, FilingError> {
    if wanted.is_empty() {
        return Err(FilingError::NothingWanted);
    }
    for role in wanted {
        let exists = subject.view.role(role).is_some();
        if !exists || !subject.may_request(&Reach::Roles, role) {
            return Err(FilingError::RoleNotRequestable(role.clone()));
        }
        if subject.user.roles.contains(role) {
            return Err(FilingError::RoleHeld(role.clone()));
        }
    }
    if let Some(request) = subject.open_role_request(wanted) {
        return Ok(Choice::Covered(request));
    }
    Ok(Choice::Ask(Chosen {
        roles: wanted.clone(),
        reach: Reach::Roles,
        reachable: Vec::new(),
    }))
}

/// Chooses the roles that really open something, narrows the resources to what does not work
/// yet, and says what does.
pub(super) fn choose_resources(
    subject: &Subject<'_>,
    through: &BTreeSet<RoleName>,
    ids: &BTreeSet<ResourceId>,
) -> Result<Choice, FilingError> {
    if let Some(role) = through.iter().find(|role| !subject.may_search(role)) {
        return Err(FilingError::RoleNotSearchable(role.clone()));
    }
    let mut chosen = Chosen {
        roles: BTreeSet::new(),
        reach: Reach::Roles,
        reachable: Vec::new(),
    };
    let mut needed = BTreeSet::new();
    for id in merge(ids) {
        match choose_resource(subject, through, id)? {
            Need::All(id, roles) => {
                needed.insert(id);
                chosen.roles.extend(roles);
            }
            Need::Part {
                missing,
                works,
                roles,
            } => {
                needed.insert(missing);
                chosen.reachable.push(works);
                chosen.roles.extend(roles);
            }
            Need::Nothing(id) => chosen.reachable.push(id),
        }
    }
    if needed.is_empty() {
        if chosen.reachable.is_empty() {
            return Err(FilingError::NothingWanted);
        }
        return match subject.open_resource_request(&chosen.reachable) {
            Some(request) => Ok(Choice::Covered(request)),
            None => Err(FilingError::Reachable(chosen.reachable)),
        };
    }
    together::settle(subject, &mut chosen.roles, &needed)?;
    if let Some(idle) = through.iter().find(|role| !chosen.roles.contains(*role)) {
        return Err(FilingError::RoleDoesNotHelp(idle.clone()));
    }
    chosen.reach = Reach::Resources(needed);
    Ok(Choice::Ask(chosen))
}

/// One ID per resource: all logins, if any of several says so, else the logins of all of them.
fn merge(ids: &BTreeSet<ResourceId>) -> Vec<ResourceId> {
    let mut merged: BTreeMap<ResourceId, Option<BTreeSet<Login>>> = BTreeMap::new();
    for id in ids {
        let logins = id.logins().cloned();
        merged
            .entry(id.clone().without_logins())
            .and_modify(|known| match (&mut *known, &logins) {
                (Some(known), Some(more)) => known.extend(more.iter().cloned()),
                (None, _) | (_, None) => *known = None,
            })
            .or_insert(logins);
    }
    let narrow = |(id, logins): (ResourceId, Option<BTreeSet<Login>>)| match logins {
        Some(logins) => id.with_logins(logins),
        None => Some(id),
    };
    merged.into_iter().filter_map(narrow).collect()
}

/// How much of one resource has to be asked for.
enum Need {
    All(ResourceId, BTreeSet<RoleName>),
    Part {
        missing: ResourceId,
        works: ResourceId,
        roles: BTreeSet<RoleName>,
    },
    Nothing(ResourceId),
}

fn choose_resource(
    subject: &Subject<'_>,
    through: &BTreeSet<RoleName>,
    id: ResourceId,
) -> Result<Need, FilingError> {
    if *id.kind() == ResourceKind::Node {
        choose_node(subject, through, id)
    } else {
        choose_thing(subject, through, id)
    }
}

fn choose_node(
    subject: &Subject<'_>,
    through: &BTreeSet<RoleName>,
    id: ResourceId,
) -> Result<Need, FilingError> {
    let local = id.cluster() == subject.view.cluster();
    let node = id
        .node_id()
        .filter(|_| local)
        .and_then(|node: NodeId| subject.view.node(&node));
    let Some(node) = node else {
        return Err(FilingError::UnknownResource(id));
    };
    let usable = subject.usable_logins(node);
    let mut askable = subject.askable_logins(node);
    if usable.is_empty() && askable.is_empty() {
        return Err(if subject.may_know(node) {
            // Known, and left out by a restricted certificate.
            FilingError::Refused(subject.outside())
        } else {
            FilingError::UnknownResource(id)
        });
    }
    if !through.is_empty() {
        askable
            .values_mut()
            .for_each(|roles| roles.retain(|role| through.contains(role)));
        askable.retain(|_, roles| !roles.is_empty());
    }
    if let Some(logins) = id.logins().cloned() {
        return choose_logins(subject, id, &logins, &usable, &askable);
    }
    let roles: BTreeSet<RoleName> = askable.into_values().flatten().collect();
    match (roles.is_empty(), through.first()) {
        (true, Some(idle)) => Err(FilingError::RoleDoesNotHelp(idle.clone())),
        (true, None) => Ok(Need::Nothing(id)),
        (false, _) => Ok(Need::All(id, roles)),
    }
}

/// Of the logins that are wanted on a node those that do not work yet, each through the role that
/// opens least.
fn choose_logins(
    subject: &Subject<'_>,
    id: ResourceId,
    wanted: &BTreeSet<Login>,
    usable: &BTreeSet<Login>,
    askable: &BTreeMap<Login, BTreeSet<RoleName>>,
) -> Result<Need, FilingError> {
    let (works, missing): (BTreeSet<Login>, BTreeSet<Login>) = wanted
        .iter()
        .cloned()
        .partition(|login| usable.contains(login));
    let mut roles = BTreeSet::new();
    for login in &missing {
        let Some(candidates) = askable.get(login) else {
            let possible = usable.iter().chain(askable.keys()).cloned().collect();
            return Err(FilingError::LoginNotRequestable {
                login: login.clone(),
                resource: Box::new(id),
                possible,
            });
        };
        roles.extend(subject.fewest_logins(candidates));
    }
    let whole = id.clone();
    Ok(
        match (id.clone().with_logins(works), id.with_logins(missing)) {
            (Some(works), Some(missing)) => Need::Part {
                missing,
                works,
                roles,
            },
            (None, Some(missing)) => Need::All(missing, roles),
            (Some(_) | None, None) => Need::Nothing(whole),
        },
    )
}

/// The same for what is no node: all of it or nothing, through every role that really grants it.
fn choose_thing(
    subject: &Subject<'_>,
    through: &BTreeSet<RoleName>,
    id: ResourceId,
) -> Result<Need, FilingError> {
    let thing = Thing::named(subject.view, &id).filter(|thing| {
        // Unknown and forbidden look alike.
        subject.may_know_resource(thing.resource)
    });
    let Some(thing) = thing else {
        return Err(FilingError::UnknownResource(id));
    };
    if subject.reaches_thing(&thing) {
        return Ok(Need::Nothing(id));
    }
    if !subject.includes_id(&id) {
        return Err(FilingError::Refused(subject.outside()));
    }
    let mut roles = subject.roles_to_ask(&thing);
    if roles.is_empty() {
        return Err(match subject.why_unaskable(&thing) {
            Unaskable::NotGranted => FilingError::NotGranted(id),
            Unaskable::Kinds { possible, never } => FilingError::KubeKinds {
                resource: Box::new(id),
                possible,
                never,
            },
        });
    }
    if let Some(idle) = through.first() {
        roles.retain(|role| through.contains(role));
        if roles.is_empty() {
            return Err(FilingError::RoleDoesNotHelp(idle.clone()));
        }
    }
    Ok(Need::All(id, roles))
}
