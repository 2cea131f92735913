//! Approving with roles that were not asked for.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::admin::{AdminObject, AdminResource, AdminVerb, Rights};
use crate::id::{RoleName, UserName};
use crate::role::Role;
use crate::view::View;

use super::terms::{TermsError, check_terms, granted};
use super::{AccessRequest, Actor, Terms};

/// Why an approval may not put in roles that were not asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// It takes the right to write roles.
    #[error(
        "role `{0}` is not in the request; approving with it takes `create` and `update` on `role`, which none of your roles allows"
    )]
    NotAllowed(RoleName),
    /// There is no such role.
    #[error("there is no role `{0}` to approve with")]
    NoSuchRole(RoleName),
    /// A role of the requester denies asking for it, and deny wins.
    #[error("role `{role}` can't be given to `{user}` by a request: a role of theirs denies it")]
    Denied {
        /// The role.
        role: RoleName,
        /// The requester.
        user: UserName,
    },
}

/// Whether `by` may approve `request` with roles that are not in it: an administrator who could as
/// well write a role that the requester may ask for.
///
/// # Errors
/// [`OverrideError`] names the role and what is in the way.
pub fn check_override(
    view: &View,
    by: &Actor,
    request: &AccessRequest,
    roles: &BTreeSet<RoleName>,
) -> Result<(), OverrideError> {
    for name in roles.difference(&request.roles) {
        let found = view.role(name);
        if !writes(view, by, found.map(AsRef::as_ref)) {
            return Err(OverrideError::NotAllowed(name.clone()));
        }
        if found.is_none() {
            return Err(OverrideError::NoSuchRole(name.clone()));
        }
        if crate::policy::denies_request(view, &request.user, &request.reach, name) {
            return Err(OverrideError::Denied {
                role: name.clone(),
                user: request.user.clone(),
            });
        }
    }
    Ok(())
}

/// Whether `by` may write `role`; where there is no such role, whether there may be one that she
/// may write.
fn writes(view: &View, by: &Actor, role: Option<&Role>) -> bool {
    match by {
        Actor::User(name) => [AdminVerb::Create, AdminVerb::Update]
            .into_iter()
            .map(|verb| Rights::new(view, name, verb, AdminResource::Role))
            .all(|rights| match role {
                Some(role) => rights.cover(AdminObject::Role(role)),
                None => rights.exist(),
            }),
        Actor::LocalAdministrator => true,
        Actor::Rule(_) | Actor::Clock => false,
    }
}

/// Approves with `roles`, some of which were not asked for. Everything else of the terms stays
/// within what was asked.
pub(super) fn overridden(
    request: AccessRequest,
    roles: &BTreeSet<RoleName>,
    terms: &Terms,
    by: Actor,
    reason: &str,
    now: OffsetDateTime,
) -> Result<AccessRequest, TermsError> {
    if roles.is_empty() {
        return Err(TermsError::NothingLeft);
    }
    let rest = Terms {
        roles: None,
        ..terms.clone()
    };
    check_terms(&request, &rest, now)?;
    let foreign = roles.difference(&request.roles).cloned().collect();
    let terms = Terms {
        roles: Some(roles.clone()),
        ..rest
    };
    granted(request, &terms, foreign, by, reason, now)
}
