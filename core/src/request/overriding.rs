//! Approving with roles that were not asked for.

use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::admin::{AdminResource, AdminVerb, allowed};
use crate::id::{RoleName, UserName};
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
    let writes_roles = match by {
        Actor::User(name) => [AdminVerb::Create, AdminVerb::Update]
            .into_iter()
            .all(|verb| allowed(view, name, verb, AdminResource::Role)),
        Actor::LocalAdministrator => true,
        Actor::Rule(_) | Actor::Clock => false,
    };
    for role in roles.difference(&request.roles) {
        if !writes_roles {
            return Err(OverrideError::NotAllowed(role.clone()));
        }
        if view.role(role).is_none() {
            return Err(OverrideError::NoSuchRole(role.clone()));
        }
        if crate::policy::denies_request(view, &request.user, &request.reach, role) {
            return Err(OverrideError::Denied {
                role: role.clone(),
                user: request.user.clone(),
            });
        }
    }
    Ok(())
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
