//! What roles demand of the way somebody comes: a certificate, one that is pinned to her address, a second factor.
//!
//! Every role counts that she has or that an open request of hers gives, also one that her certificate does not
//! name: the strictest wins. What is demanded is part of each decision, so that a role which begins to demand it
//! ends what came without.

use time::OffsetDateTime;

use crate::id::UserName;
use crate::role::{Demand, Role};
use crate::view::View;

use super::subject::Subject;
use super::{Ask, Identity, Reason};

/// What `role` demands for nodes and `identity` has not proven.
fn unproven_by(role: &Role, identity: &Identity) -> Option<Reason> {
    let demands = |demand| role.options.demands.contains(&demand);
    let role = role.name.clone();
    if demands(Demand::SessionMfa) && identity.second_factor().is_none() {
        return Some(Reason::SecondFactorDemanded { role });
    }
    match identity.credential() {
        None if demands(Demand::Certificate) => Some(Reason::CertificateDemanded { role }),
        Some(held) if demands(Demand::PinnedCertificate) && held.claims.pinned.is_none() => {
            Some(Reason::PinDemanded { role })
        }
        None | Some(_) => None,
    }
}

/// What any of `roles` demands, a second factor first: without it a certificate is of no use.
fn unproven_by_any<'a>(
    roles: impl Iterator<Item = &'a Role>,
    identity: &Identity,
) -> Option<Reason> {
    let mut found = None;
    for reason in roles.filter_map(|role| unproven_by(role, identity)) {
        if matches!(reason, Reason::SecondFactorDemanded { .. }) {
            return Some(reason);
        }
        found.get_or_insert(reason);
    }
    found
}

impl Subject<'_> {
    /// What a role of hers demands and `identity` has not proven.
    pub(super) fn unproven(&self, identity: &Identity) -> Option<Reason> {
        unproven_by_any(self.held(), identity)
    }

    /// The same of the roles that she would ask for: what would be refused as soon as it is approved is not
    /// worth asking for on this connection.
    pub(super) fn unproven_for(&self, ask: &Ask, identity: &Identity) -> Option<Reason> {
        let roles = self.view.roles_named(ask.roles.iter());
        unproven_by_any(roles.map(AsRef::as_ref), identity)
    }
}

/// What a role of hers demands for nodes and `identity` has not proven. Nothing, for somebody who may do
/// nothing at all.
#[must_use]
pub fn unproven(view: &View, identity: &Identity, now: OffsetDateTime) -> Option<Reason> {
    let subject = Subject::new(view, identity.user(), identity.holder(), now).ok()?;
    subject.unproven(identity)
}

/// What a role that is stored for her demands and `identity` has not proven: what rules give rests on these.
#[must_use]
pub fn unproven_of_stored(view: &View, identity: &Identity) -> Option<Reason> {
    unproven_by_any(stored(view, identity.user()), identity)
}

/// What a role of the reviewer's demands for reviews and `identity` has not proven.
#[must_use]
pub fn unproven_for_review(view: &View, identity: &Identity) -> Option<Reason> {
    if identity.second_factor().is_some() {
        return None;
    }
    let role = stored(view, identity.user())
        .find(|role| role.options.demands.contains(&Demand::ReviewMfa))?;
    Some(Reason::SecondFactorDemanded {
        role: role.name.clone(),
    })
}

/// Whether a second factor is to be asked for as she comes: a role that she has, or may ask for nodes through,
/// demands it for nodes, or one that she has for reviews. What she may ask for counts as well, so that a
/// connection which waits for an approval can go on with it.
#[must_use]
pub fn asks_second_factor(view: &View, identity: &Identity, now: OffsetDateTime) -> bool {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return false;
    };
    let demands = |role: &Role, demand| role.options.demands.contains(&demand);
    let mut any = subject.held().chain(subject.searchable().iter().copied());
    any.any(|role| demands(role, Demand::SessionMfa))
        || subject
            .stored()
            .any(|role| demands(role, Demand::ReviewMfa))
}

fn stored<'a>(view: &'a View, user: &UserName) -> impl Iterator<Item = &'a Role> {
    let user = view.user(user);
    let names = user.into_iter().flat_map(|user| &user.roles);
    names.filter_map(|name| view.role(name)).map(AsRef::as_ref)
}
