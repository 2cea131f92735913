//! Why nothing was filed for somebody, in the words for the administrator who wanted it: what concerns a requester says
//! "you", and tells her no more than she may know.

use anteroom_core::id::{ResourceId, UserName};
use anteroom_core::request::FilingError;
use anteroom_core::view::View;

use super::text::clean;

/// The sentence for whoever files for `user`; `None` where the requester's own fits.
#[must_use]
pub fn filing_for(view: &View, user: &UserName, refused: &FilingError) -> Option<String> {
    let capabilities = format!("`requests capabilities {user}` shows what can be asked for");
    let said = match refused {
        FilingError::UnknownResource(id) => match name_of(view, id) {
            Some(name) if id.node_id().is_some() => format!(
                "`{user}` can't ask for `{name}`: no role to search as grants it; {capabilities}, and `explain LOGIN@{name} --user {user}` says why"
            ),
            Some(name) => {
                format!(
                    "`{user}` can't ask for `{name}`: no role to search as grants it; {capabilities}"
                )
            }
            None => format!(
                "there is no resource `{id}`; `get {}` shows all",
                id.kind().searched_as()
            ),
        },
        FilingError::NotGranted(id) => {
            format!("no role that `{user}` may ask through grants all of `{id}`; {capabilities}")
        }
        FilingError::KubeKinds { resource, .. } => format!(
            "`{user}` can't ask for `{resource}`: request.kubernetes_resources of the roles of `{user}` leaves that kind out"
        ),
        FilingError::RoleNotRequestable(role) => {
            format!("`{user}` can't ask for role `{role}`; {capabilities}")
        }
        FilingError::RoleNotSearchable(role) => format!(
            "`{user}` can't ask for resources through role `{role}`; leave --roles out to have the roles chosen"
        ),
        FilingError::RoleHeld(role) => format!("`{user}` has role `{role}` already"),
        FilingError::Reachable(ids) => {
            let names: Vec<String> = ids
                .iter()
                .map(|id| format!("`{}`", name_of(view, id).unwrap_or_else(|| id.to_string())))
                .collect();
            format!("`{user}` can reach {} already", names.join(", "))
        }
        FilingError::TooManyPending { limit } => format!(
            "{limit} requests of `{user}` are pending, which is the limit; `requests ls --state pending` shows them"
        ),
        // These say nothing of her who asks.
        FilingError::Refused(_)
        | FilingError::NotAllowed
        | FilingError::NothingWanted
        | FilingError::RoleDoesNotHelp(_)
        | FilingError::LoginNotRequestable { .. }
        | FilingError::RolesConflict(_)
        | FilingError::ScopeWithoutResource
        | FilingError::ScopeCommand { .. }
        | FilingError::TooManyResources { .. }
        | FilingError::ResourcesTooLong { .. }
        | FilingError::ReasonTooLong { .. }
        | FilingError::ReasonRequired { .. }
        | FilingError::PendingWithoutReason(_)
        | FilingError::TooManyReviewers { .. }
        | FilingError::AnnotationsTooLong { .. }
        | FilingError::CertificateEnding
        | FilingError::StartInPast { .. }
        | FilingError::StartTooFar { .. }
        | FilingError::StartsAfterEnd { .. } => return None,
        // The enum is open.
        _ => return None,
    };
    Some(clean(&said).into_owned())
}

/// What people call it, if there is such a thing.
#[must_use]
pub fn name_of(view: &View, id: &ResourceId) -> Option<String> {
    if id.cluster() != view.cluster() {
        return None;
    }
    if let Some(node) = id.node_id() {
        return view.node(&node).map(|node| node.name.to_string());
    }
    let (kind, name) = id.registered()?;
    view.resource(kind, name).map(|_| id.short())
}
