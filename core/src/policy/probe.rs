//! Who may ask a node whether it would take certificates (`nodes check`).

use std::sync::Arc;

use time::OffsetDateTime;

use crate::admin::{AdminObject, AdminResource, AdminVerb, Rights};
use crate::id::{Login, NodeId, UserName};
use crate::node::Node;
use crate::request::Actor;
use crate::view::View;

/// An administrator's right to offer a node certificates that nobody logs in with. Only [`permit_probe`]
/// makes one. It is no [`Permit`](super::Permit): what is certified by it has a forced command that does
/// nothing, and its key is dropped without a signature.
#[derive(Debug, Clone)]
pub struct ProbePermit {
    by: UserName,
    node: Arc<Node>,
    login: Login,
}

/// Why a node is not asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeRefused {
    /// There is no such node any more.
    #[error("the node was removed")]
    NoNode,
    /// Her roles don't let her change the node.
    #[error("that takes a role with `update` on `node`")]
    NotAllowed,
    /// Nothing is certified under a lock.
    #[error("{what} is locked, and nothing is issued under a lock; `locks ls` shows it")]
    Locked {
        /// The node, or the login.
        what: String,
    },
}

/// Whose name stands in the record of what the owner of the control socket does.
const LOCAL: &str = "local-administrator";

/// Whether `actor` may ask `node` about `login` at `now`. That a user is who she is, and has proven what her
/// roles demand, is asked where her command is.
///
/// # Errors
/// [`ProbeRefused`].
pub fn permit_probe(
    view: &View,
    actor: &Actor,
    node: &NodeId,
    login: &Login,
    now: OffsetDateTime,
) -> Result<ProbePermit, ProbeRefused> {
    let node = view.node(node).ok_or(ProbeRefused::NoNode)?;
    let by = match actor {
        Actor::User(name) => {
            let rights = Rights::new(view, name, AdminVerb::Update, AdminResource::Node);
            rights.cover(AdminObject::Node(node)).then(|| name.clone())
        }
        Actor::LocalAdministrator => UserName::parse(LOCAL).ok(),
        Actor::Rule(_) | Actor::Clock => None,
    };
    let by = by.ok_or(ProbeRefused::NotAllowed)?;
    let locked = |what: String| Err(ProbeRefused::Locked { what });
    if view.locks().on_node(&node.id, now).is_some() {
        return locked(format!("node {}", node.name));
    }
    if view.locks().on_login(login, now).is_some() {
        return locked(format!("login {login}"));
    }
    Ok(ProbePermit {
        by,
        node: Arc::clone(node),
        login: login.clone(),
    })
}

impl ProbePermit {
    /// Who asks.
    #[must_use]
    pub fn by(&self) -> &UserName {
        &self.by
    }

    /// Which node.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// About which login.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }
}
