//! The decision: who may log in where, as whom, until when, and what could be asked for.
//!
//! [`decide`] is asked on connect, after every change while a connection is held, and on every
//! change during a session; all three get their answer from the same evaluation.

pub(crate) mod asking;
pub(crate) mod evaluate;
mod explain;
mod identity;
mod listing;
mod locked;
mod login;
mod logins;
mod preview;
mod probe;
mod proof;
mod reason;
pub(crate) mod resources;
pub(crate) mod rules;
pub(crate) mod subject;
mod survey;

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use crate::id::{KeyFingerprint, Login, NodeId, RequestId, ResourceId, RoleName, UserName};
use crate::node::Node;
use crate::request::{AccessRequest, Reach, Scope};
use crate::role::ReasonMode;
use crate::view::View;

use evaluate::{Granted, Verdict, least};
use subject::Subject;

pub use explain::{
    Explanation, ExpressionFinding, Match, Outcome, RoleFinding, Via, Whom, explain,
};
pub use identity::Identity;
pub use listing::{
    RequestCapabilities, RequestableNode, Resolved, UsableNode, request_capabilities,
    requestable_nodes, requestable_roles, resolve, visible_nodes,
};
pub use locked::locked_out;
pub use login::{LoginPermit, LoginRefused, LoginWanted, drop_requests, login};
pub use preview::{Preview, previews};
pub use probe::{ProbePermit, ProbeRefused, permit_probe};
pub use proof::{asks_second_factor, unproven, unproven_for_review, unproven_of_stored};
pub use reason::{Denial, Reason, Visibility};
pub use resources::{
    Extent, KubeFilter, RequestableObjects, RequestableResource, known_resources, reaches_object,
    requestable_objects, requestable_resources,
};

/// A login on a node: what a connection wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Access {
    /// The account.
    pub login: Login,
    /// The node.
    pub node: NodeId,
}

/// The answer to "may she?".
#[derive(Debug, Clone)]
pub enum Decision {
    /// Yes, on the permit's terms.
    Permit(Permit),
    /// No, but it can be asked for.
    Ask(Ask),
    /// No.
    Deny(Denial),
}

/// The proof that a decision allowed one login on one node. Only [`decide`] makes one; dialling
/// and certifying take it, so that nothing is dialled or certified without a decision.
#[derive(Debug, Clone)]
pub struct Permit {
    user: UserName,
    key: KeyFingerprint,
    login: Login,
    node: Arc<Node>,
    grant: Grant,
    ends: Option<OffsetDateTime>,
    opened: Option<OffsetDateTime>,
    scope: Scope,
    capabilities: Capabilities,
    limits: SessionLimits,
}

/// What bounds the sessions of a user, besides the permit's own end: the least that any of her
/// standing roles, or of those of the request that grants, says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// How long a session lasts (`max_session_ttl`; under a request also what it was filed with).
    pub session_ttl: Option<Duration>,
    /// How long it lasts without data (`client_idle_timeout`).
    pub idle_timeout: Option<Duration>,
    /// Connections to nodes at a time, over all of the user's (`max_connections`).
    pub connections: Option<u32>,
    /// Sessions in one connection at a time (`max_sessions`).
    pub sessions: Option<u32>,
}

/// What a permit rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// A role that the user has.
    Standing {
        /// The role.
        role: RoleName,
    },
    /// An approved request of hers.
    Request {
        /// The request.
        request: RequestId,
        /// The role of it that allows.
        role: RoleName,
    },
}

/// What a session may do besides running commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// A terminal.
    pub pty: Capability,
    /// `-L`, `-D`, `-W`.
    pub local_forwarding: Capability,
    /// `-R`.
    pub remote_forwarding: Capability,
    /// `-A`.
    pub agent_forwarding: Capability,
    /// `-X`.
    pub x11_forwarding: Capability,
    /// scp and sftp.
    pub file_copy: Capability,
    /// Certificates for direct use, past the proxy.
    pub direct: Capability,
}

/// Whether a session may do a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability {
    /// It may.
    Allowed,
    /// It may not.
    Refused,
}

impl Capability {
    /// Whether it may.
    #[must_use]
    pub const fn is_allowed(self) -> bool {
        match self {
            Self::Allowed => true,
            Self::Refused => false,
        }
    }

    const fn from_rule(allowed: bool) -> Self {
        if allowed {
            Self::Allowed
        } else {
            Self::Refused
        }
    }
}

impl Capabilities {
    /// The same for a session that runs one command: it has a terminal if it wants one, and no
    /// way out of the command by a forward, an agent or a display.
    const fn for_one_command(self) -> Self {
        Self {
            local_forwarding: Capability::Refused,
            remote_forwarding: Capability::Refused,
            agent_forwarding: Capability::Refused,
            x11_forwarding: Capability::Refused,
            ..self
        }
    }
}

impl Permit {
    /// For whom.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// By which key.
    #[must_use]
    pub fn key(&self) -> &KeyFingerprint {
        &self.key
    }

    /// As whom.
    #[must_use]
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Where.
    #[must_use]
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Through what.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The instant at which it is over; `None` under standing access with a plain key.
    #[must_use]
    pub fn ends(&self) -> Option<OffsetDateTime> {
        self.ends
    }

    /// The instant at which a session is over that belongs to a connection authenticated at
    /// `since`: the permit's end, or earlier where a role bounds how long sessions last. It never
    /// moves with the time at which this is asked.
    ///
    /// What waited for an approval has its time from the approval on; what rests on standing
    /// access, from the proof of the key.
    #[must_use]
    pub fn session_ends(&self, since: OffsetDateTime) -> Option<OffsetDateTime> {
        let from = self.opened.map_or(since, |opened| opened.max(since));
        let by_ttl = self.limits.session_ttl.map(|ttl| from + ttl);
        evaluate::least(self.ends, by_ttl)
    }

    /// What it extends to: anything, or one command.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What the session may do.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What bounds it.
    #[must_use]
    pub fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// The request it rests on; `None` under standing access.
    #[must_use]
    pub fn request(&self) -> Option<RequestId> {
        match &self.grant {
            Grant::Standing { .. } => None,
            Grant::Request { request, .. } => Some(*request),
        }
    }
}

/// What a denied connection may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The role to ask through: of those that grant node and login the one with the fewest logins.
    pub roles: Vec<RoleName>,
    /// The node, narrowed to the login that is wanted.
    pub resource: ResourceId,
    /// Whether a reason must be given.
    pub reason_mode: ReasonMode,
    /// What to prompt with instead of the usual words.
    pub reason_prompt: Option<String>,
    /// Whom the user's roles suggest as reviewers.
    pub suggested_reviewers: Vec<UserName>,
    /// The longest access, if the user's roles set one.
    pub max_duration: Option<Duration>,
    /// A pending request of the same user and key for exactly this: filing joins it.
    pub joins: Option<RequestId>,
    /// A pending request of the same user and key for exactly this, bound to the command that the
    /// connection is going to run: filing with that scope joins it.
    pub joins_scoped: Option<RequestId>,
    /// An approved request of this key that grants this for one other command only.
    pub narrower: Option<RequestId>,
    /// An approved request of this key that will grant this, and when it opens.
    pub opens: Option<(RequestId, OffsetDateTime)>,
    /// Approved requests of the same user that would grant this if the key took them up with
    /// `request assume`: filed by another key, or dropped by this one.
    pub assumable: Vec<RequestId>,
}

/// Decides whether `identity` may have `access` at `now`, in the order of REQUESTS section 2:
/// a resource request's IDs first, then every role's deny, then allow, where *one* role must
/// grant node and login together.
#[must_use]
pub fn decide(view: &View, identity: &Identity, access: &Access, now: OffsetDateTime) -> Decision {
    decide_for(view, identity, access, None, now)
}

/// Decides as [`decide`] does for a session that runs `command` and nothing else, if one is given:
/// then a grant that is bound to exactly these bytes counts as well.
#[must_use]
pub fn decide_for(
    view: &View,
    identity: &Identity,
    access: &Access,
    command: Option<&[u8]>,
    now: OffsetDateTime,
) -> Decision {
    let subject = match Subject::new(view, identity.user(), identity.holder(), now) {
        Ok(subject) => subject.running(command),
        Err(reason) => return Decision::Deny(Denial::hidden(reason)),
    };
    if let Some(reason) = subject.unproven(identity) {
        return Decision::Deny(Denial::hidden(reason));
    }
    match subject.evaluate(access) {
        Verdict::Grant(granted) => match view.node(&access.node) {
            Some(node) => Decision::Permit(Permit::new(identity, access, node, &granted)),
            None => Decision::Deny(Denial::hidden(Reason::UnknownNode)),
        },
        Verdict::Ask(ask) => match subject.unproven_for(&ask, identity) {
            Some(reason) => Decision::Deny(Denial::hidden(reason)),
            None => Decision::Ask(*ask),
        },
        Verdict::Deny(denial) => Decision::Deny(denial),
    }
}

impl Permit {
    // Private, and called by `decide` alone: this is what makes a permit a proof.
    fn new(identity: &Identity, access: &Access, node: &Arc<Node>, granted: &Granted<'_>) -> Self {
        Self {
            user: identity.user().clone(),
            key: identity.key().clone(),
            login: access.login.clone(),
            node: Arc::clone(node),
            grant: Grant::new(granted),
            ends: least(
                granted.request.map(|request| request.access_expires),
                identity
                    .credential()
                    .map(|credential| credential.valid_before),
            ),
            opened: granted.request.and_then(AccessRequest::opened),
            scope: granted
                .request
                .map_or(Scope::Any, |request| request.scope.clone()),
            capabilities: granted.capabilities,
            limits: granted.limits.clone(),
        }
    }
}

/// Whether one of the stored roles of `user` denies asking for `role` with that reach; nobody that
/// is not there may ask for anything.
pub(crate) fn denies_request(view: &View, user: &UserName, reach: &Reach, role: &RoleName) -> bool {
    let Some(user) = view.user(user) else {
        return true;
    };
    let roles = user.roles.iter().filter_map(|name| view.role(name));
    roles
        .into_iter()
        .any(|held| asking::names(&held.deny.request, user, reach, role))
}

impl Grant {
    fn new(granted: &Granted<'_>) -> Self {
        let role = granted.role.name.clone();
        match granted.request {
            None => Self::Standing { role },
            Some(request) => Self::Request {
                request: request.id,
                role,
            },
        }
    }
}

/// Whether `identity` may do anything at all at `now`: commands ask this, decisions do it themselves.
///
/// # Errors
/// The reason why not.
pub fn admit(view: &View, identity: &Identity, now: OffsetDateTime) -> Result<(), Reason> {
    Subject::new(view, identity.user(), identity.holder(), now).map(drop)
}
