//! Who may do what with an object, judged in the transaction that does it, on the roles that are stored then.

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb, Rights};
use anteroom_core::enrol::as_the_token_says;
use anteroom_core::policy;
use anteroom_core::request::Actor;
use anteroom_core::view::View;

use super::{NotAllowed, Object, ObjectId};
use crate::state::By;

/// Whether the administrator may write `object`: one that is there has to be hers to change before
/// and after, so that nobody takes over what is not hers or gives away what is.
pub(super) fn may_put(view: &View, by: &By, object: &Object) -> Result<(), NotAllowed> {
    let id = object.id();
    let verb = if id.is_in(view) {
        may(view, by, AdminVerb::Update, &id)?;
        AdminVerb::Update
    } else {
        AdminVerb::Create
    };
    judge(view, by, verb, id.resource(), Some(object.to_judge()))?;
    // Who makes a token registers what comes in by it. Judged again when it does.
    if let Object::Token(token) = object {
        let node = as_the_token_says(token);
        let node = node.as_ref().map(AdminObject::Node);
        return judge(view, by, AdminVerb::Create, AdminResource::Node, node);
    }
    Ok(())
}

/// Whether the administrator's stored roles allow it, at this moment. Of what is not there, only
/// whether they may allow it at all: then there is nothing to do it with.
pub(in crate::state) fn may(
    view: &View,
    by: &By,
    verb: AdminVerb,
    id: &ObjectId,
) -> Result<(), NotAllowed> {
    judge(view, by, verb, id.resource(), id.find(view))
}

/// The same for `object`, which has not to be in the view.
pub(in crate::state) fn judge(
    view: &View,
    by: &By,
    verb: AdminVerb,
    resource: AdminResource,
    object: Option<AdminObject<'_>>,
) -> Result<(), NotAllowed> {
    let may = match &by.actor {
        Actor::User(name) => {
            let rights = Rights::new(view, name, verb, resource);
            let may = object.map_or_else(|| rights.exist(), |object| rights.cover(object));
            may && proven(view, by)
        }
        Actor::LocalAdministrator | Actor::Clock => true,
        Actor::Rule(_) => false,
    };
    if may {
        Ok(())
    } else {
        Err(NotAllowed { verb, resource })
    }
}

/// Whether a user has proven what her roles demand, while a command of hers waited for its input as well.
pub(in crate::state) fn proven(view: &View, by: &By) -> bool {
    let identity = by.identity.as_ref();
    identity.is_some_and(|identity| policy::unproven_of_stored(view, identity).is_none())
}
