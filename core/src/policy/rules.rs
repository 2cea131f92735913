//! What one role says about a login on a node, and how far one request reaches.

use crate::id::Login;
use crate::node::Node;
use crate::request::Reach;
use crate::role::Role;
use crate::user::User;
use crate::view::View;

use super::Reason;

/// Whether one role grants node and login together.
pub(crate) fn grants(role: &Role, user: &User, node: &Node, login: &Login) -> bool {
    role.allow.names_login(user, login) && role.allow.node_labels.matches(&node.labels, user)
}

/// Whether one role speaks against the access; [`denial_by`] tells how.
pub(crate) fn denies(role: &Role, user: &User, node: &Node, login: &Login) -> bool {
    closes(role, user, node) || role.deny.names_login(user, login)
}

/// Whether one role speaks against every login on `node`.
pub(super) fn closes(role: &Role, user: &User, node: &Node) -> bool {
    role.unreadable.is_some() || role.deny.node_labels.matches(&node.labels, user)
}

/// What one role says against the access.
pub(crate) fn denial_by(role: &Role, user: &User, node: &Node, login: &Login) -> Vec<Reason> {
    if role.unreadable.is_some() {
        return vec![Reason::RoleUnreadable {
            role: role.name.clone(),
        }];
    }
    let mut reasons = Vec::new();
    if role.deny.names_login(user, login) {
        reasons.push(Reason::LoginDenied {
            role: role.name.clone(),
        });
    }
    if role.deny.node_labels.matches(&node.labels, user) {
        reasons.push(Reason::NodeDenied {
            role: role.name.clone(),
        });
    }
    reasons
}

/// Whether a request with that reach extends to `login` on `node`.
pub(crate) fn reaches(reach: &Reach, view: &View, node: &Node, login: &Login) -> bool {
    match reach {
        Reach::Roles => true,
        Reach::Resources(ids) => {
            let mut buffer = uuid::Uuid::encode_buffer();
            let name: &str = node.id.uuid().hyphenated().encode_lower(&mut buffer);
            ids.iter()
                .any(|id| id.includes(view.cluster(), name, login))
        }
    }
}
