//! One object out of the draft, with its log, and with what hung on it.

use anteroom_core::id::{RequestId, UserName};
use anteroom_core::request::{self, Action, Actor};

use super::{ObjectId, RemoveError, and_reason};
use crate::audit::Event;
use crate::state::allowances::end_allowances_of;
use crate::state::draft::Draft;
use crate::state::identities::revoke_certificates_of;
use crate::state::locks::about_lock;
use crate::state::tokens::about_token;
use crate::state::{By, about_request};
use crate::store::HostRevocation;

pub(super) fn remove(draft: &mut Draft, by: &By, id: &ObjectId) -> Result<(), RemoveError> {
    let no_such = || RemoveError::NoSuch(id.clone());
    match id {
        ObjectId::Role(name) => {
            draft.view().role(name).ok_or_else(no_such)?;
            let mut users: Vec<UserName> = draft
                .view()
                .users()
                .filter(|user| user.roles.contains(name))
                .map(|user| user.name.clone())
                .collect();
            if !users.is_empty() {
                users.sort();
                return Err(RemoveError::RoleInUse {
                    role: name.clone(),
                    users,
                });
            }
            draft.log(by.entry(Event::RoleDelete).name(name));
            draft.remove_role(name);
        }
        ObjectId::User(name) => {
            draft.view().user(name).ok_or_else(no_such)?;
            end_requests_of(draft, by, name);
            end_allowances_of(draft, by, name);
            let revoked = revoke_certificates_of(draft, name, |_| false, "the user was removed");
            draft.log(and_reason(by.entry(Event::UserDelete).name(name), revoked));
            remove_tokens_of(draft, by, name);
            draft.remove_user(name);
        }
        ObjectId::Node(node) => {
            let found = draft.view().node(node).ok_or_else(no_such)?;
            let entry = by
                .entry(Event::NodeDelete)
                .name(&found.name)
                .node(&found.name)
                .node_id(node);
            draft.log(entry.clone());
            let which = HostRevocation {
                node: *node,
                but_for: Vec::new(),
                key_type: None,
                why: "the node was removed".to_owned(),
            };
            draft.revoke_hosts(which, entry);
            draft.remove_node(*node);
        }
        ObjectId::Lock(lock) => {
            let found = draft.view().locks().get(lock).ok_or_else(no_such)?;
            let entry = about_lock(by.entry(Event::LockDelete), found);
            draft.log(entry);
            draft.remove_lock(*lock);
        }
        ObjectId::Resource(kind, name) => {
            draft
                .view()
                .resource(*kind, name.as_str())
                .ok_or_else(no_such)?;
            draft.log(by.entry(Event::ResourceDelete(*kind)).name(name));
            draft.remove_resource(*kind, name);
        }
        ObjectId::MonitoringRule(name) => {
            draft.view().monitoring_rule(name).ok_or_else(no_such)?;
            draft.log(by.entry(Event::MonitoringRuleDelete).name(name));
            draft.remove_monitoring_rule(name);
        }
        ObjectId::Token(id) => {
            let token = draft.view().token(id).ok_or_else(no_such)?;
            let entry = about_token(by.entry(Event::TokenDelete), token);
            draft.log(entry);
            draft.remove_token(id);
        }
    }
    Ok(())
}

/// Who is created under the same name later has made none of them.
fn remove_tokens_of(draft: &mut Draft, by: &By, user: &UserName) {
    let tokens = draft.view().tokens();
    let made: Vec<_> = tokens
        .filter(|token| token.created_by == user.as_str())
        .cloned()
        .collect();
    for token in made {
        let entry = about_token(by.entry(Event::TokenDelete), &token);
        draft.log(entry.reason("the user who made it was removed"));
        draft.remove_token(&token.id);
    }
}

fn end_requests_of(draft: &mut Draft, by: &By, user: &UserName) {
    let live: Vec<RequestId> = draft
        .view()
        .live_requests_of(user)
        .map(|request| request.id)
        .collect();
    for id in live {
        let Some(request) = draft.view().request(&id).cloned() else {
            continue;
        };
        let action = Action::Deny {
            reason: "the user was removed".to_owned(),
        };
        // An administrator who removes himself decides nothing of his own by it.
        let actor = match &by.actor {
            Actor::User(name) if name == user => &Actor::LocalAdministrator,
            actor
            @ (Actor::User(_) | Actor::LocalAdministrator | Actor::Rule(_) | Actor::Clock) => actor,
        };
        match request::apply(&request, &action, actor, draft.now()) {
            Ok(ended) => {
                let entry = about_request(Event::AccessRequestUpdate, &ended).user(&by.actor);
                draft.log(entry.reason("the user was removed"));
                draft.update_request(ended, request.state);
            }
            Err(error) => {
                tracing::error!(request = %id, %error, "request of a removed user does not end")
            }
        }
    }
}
