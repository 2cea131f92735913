//! The decision: who may log in where, as whom, until when, and what could be asked for.
//!
//! [`decide`] is asked on connect, after every change while a connection is held, and on every
//! change during a session; all three get their answer from the same evaluation.

pub(crate) mod asking;
pub(crate) mod evaluate;
mod explain;
mod locked;
mod login;
mod logins;
mod preview;
mod probe;
mod proof;
pub(crate) mod resources;
pub(crate) mod rules;
pub(crate) mod subject;
mod survey;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use crate::credential::Credential;
use crate::id::{KeyFingerprint, Login, NodeId, RequestId, ResourceId, RoleName, UserName};
use crate::lock::LockTarget;
use crate::node::Node;
use crate::request::{AccessRequest, Reach, Scope};
use crate::role::ReasonMode;
use crate::target::NodeRef;
use crate::view::View;

use evaluate::{Granted, Verdict, least};
use subject::{Holder, Subject};
use survey::Survey;

pub use login::{LoginPermit, LoginRefused, LoginWanted, drop_requests, login};
pub use resources::{
    Extent, KubeFilter, RequestableObjects, RequestableResource, known_resources, reaches_object,
    requestable_objects, requestable_resources,
};

pub use explain::{
    Explanation, ExpressionFinding, Match, Outcome, RoleFinding, Via, Whom, explain,
};
pub use locked::locked_out;
pub use preview::{Preview, previews};
pub use probe::{ProbePermit, ProbeRefused, permit_probe};
pub use proof::{asks_second_factor, unproven, unproven_for_review, unproven_of_stored};

/// A person who has proven to hold a registered key, or the key of an identity certificate that
/// she got with one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    user: UserName,
    key: KeyFingerprint,
    credential: Option<Arc<Credential>>,
    second_factor: Option<OffsetDateTime>,
}

impl Identity {
    /// The one who proved to hold `key`. Only the SSH front calls this, after it has verified a
    /// signature by that key; nothing else is proof.
    #[must_use]
    pub fn from_proven_key(user: UserName, key: KeyFingerprint) -> Self {
        Self {
            user,
            key,
            credential: None,
            second_factor: None,
        }
    }

    /// The one who proved to hold the key of an identity certificate, which she got by a login with
    /// `key`. Only `ca::user` calls this, with a certificate that it has verified.
    #[must_use]
    pub fn from_verified_certificate(
        user: UserName,
        key: KeyFingerprint,
        credential: Credential,
    ) -> Self {
        Self {
            user,
            key,
            credential: Some(Arc::new(credential)),
            second_factor: None,
        }
    }

    /// Who.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// By which registered key; with a certificate, the key that the login was made with.
    #[must_use]
    pub fn key(&self) -> &KeyFingerprint {
        &self.key
    }

    /// The identity certificate that limits her, if she came with one.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_deref()
    }

    /// The same person, who has also proven to have a second factor, at `at`. Only the SSH front calls
    /// this, after it has verified a code of hers; nothing else is proof.
    #[must_use]
    pub fn with_second_factor(mut self, at: OffsetDateTime) -> Self {
        self.second_factor = Some(at);
        self
    }

    /// When she proved to have a second factor, if she did.
    #[must_use]
    pub fn second_factor(&self) -> Option<OffsetDateTime> {
        self.second_factor
    }

    /// The same person where she has asked for `request` and waited: what is approved to a
    /// connection counts on that connection, though the certificate that it began with does not
    /// name it. A restriction of the certificate stays, and a plain key needs nothing of this.
    #[must_use]
    pub fn having_asked(&self, request: RequestId) -> Self {
        let mut there = self.clone();
        if let Some(credential) = &mut there.credential {
            Arc::make_mut(credential).claims.requests.insert(request);
        }
        there
    }

    pub(crate) fn holder(&self) -> Holder<'_> {
        match &self.credential {
            None => Holder::Key(&self.key),
            Some(credential) => Holder::Certificate(&self.key, credential),
        }
    }
}

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

/// Why not, and whether the user may know that the node exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Each on its own is enough. Never empty.
    pub reasons: Vec<Reason>,
    /// Whether the node may be spoken of.
    pub visibility: Visibility,
}

/// Whether the user may know that a node exists: if she can reach it or could ask for it, with
/// any login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Speak of it.
    Visible,
    /// Answer as if it did not exist.
    Hidden,
}

impl Visibility {
    const fn from_rule(visible: bool) -> Self {
        if visible { Self::Visible } else { Self::Hidden }
    }
}

/// Why access was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// There is no such user (any more).
    UnknownUser,
    /// The key is not registered for the user (any more).
    UnknownKey,
    /// The user is locked out.
    Locked {
        /// Why, as the administrator wrote.
        message: String,
    },
    /// Something else that the access needs is locked.
    TargetLocked {
        /// What.
        target: LockTarget,
        /// Why, as the administrator wrote.
        message: String,
    },
    /// The identity certificate has ended.
    CertificateEnded,
    /// The identity certificate was revoked, or is none of those that were issued.
    CertificateRevoked {
        /// Why.
        message: String,
    },
    /// The certificate is restricted to resources, and this is not among them.
    NotAllowedByCertificate {
        /// The request in it that restricts it.
        request: Option<RequestId>,
    },
    /// A role demands a certificate, and she came with a plain key.
    CertificateDemanded {
        /// The role.
        role: RoleName,
    },
    /// A role demands a certificate that is pinned to an address, and hers is not.
    PinDemanded {
        /// The role.
        role: RoleName,
    },
    /// A role demands a second factor, and she has not given one.
    SecondFactorDemanded {
        /// The role.
        role: RoleName,
    },
    /// There is no such node.
    UnknownNode,
    /// A role denies the login, everywhere.
    LoginDenied {
        /// The role.
        role: RoleName,
    },
    /// A role denies the node, for every login.
    NodeDenied {
        /// The role.
        role: RoleName,
    },
    /// A role of hers is stored in a form that this version can't read: it denies everything.
    RoleUnreadable {
        /// The role.
        role: RoleName,
    },
    /// No role of the user, and none that she may ask for, grants the node.
    NotGranted,
    /// She has the node or may ask for it, but not with this login.
    LoginNotGranted {
        /// The logins she has there or may ask for. Never empty.
        logins: BTreeSet<Login>,
    },
    /// A standing role would grant it, but the user's roles demand an approved request
    /// (`request_access`), and no role that she may ask for grants it.
    RequestDemanded {
        /// The role that demands it.
        role: RoleName,
    },
    /// An approved request would grant it, but the user may no longer ask for its role.
    NoLongerRequestable {
        /// The request.
        request: RequestId,
        /// The role that may no longer be asked for.
        role: RoleName,
    },
}

/// What people type for a certificate; a plain `>` would empty the old file before ssh has read it.
const GET_CERTIFICATE: &str =
    "c=$(ssh access login) && printf '%s\\n' \"$c\" > ~/.ssh/anteroom-cert.pub";

impl Reason {
    /// One sentence for whoever may know the whole truth: an auditor, an administrator, the log.
    /// What a person without access is told is chosen by [`Denial::visibility`].
    #[must_use]
    pub fn as_sentence(&self) -> String {
        match self {
            Self::UnknownUser => "there is no such user".to_owned(),
            Self::UnknownKey => "the key is not registered for the user".to_owned(),
            Self::Locked { message } if message.is_empty() => "the user is locked".to_owned(),
            Self::Locked { message } => format!("the user is locked: {message}"),
            Self::TargetLocked { target, message } if message.is_empty() => {
                format!("{target} is locked")
            }
            Self::TargetLocked { target, message } => format!("{target} is locked: {message}"),
            Self::CertificateEnded => {
                "your certificate has ended; get another one with `ssh access login`".to_owned()
            }
            Self::CertificateRevoked { message } => format!(
                "your certificate is revoked: {message}; get another one with `ssh access login`"
            ),
            Self::NotAllowedByCertificate { request } => {
                let id = request.map(|id| format!(" {id}")).unwrap_or_default();
                format!(
                    "not in the allowed resources of your certificate; drop the request with \
                     `ssh access request drop{id}`"
                )
            }
            Self::CertificateDemanded { role } => format!(
                "role `{role}` demands a certificate, and you came with a plain key, to which ssh falls back when a \
                 certificate has ended or is refused; log in with `{GET_CERTIFICATE}`"
            ),
            Self::PinDemanded { role } => format!(
                "role `{role}` demands a certificate that is pinned to your address, and yours is not; \
                 log in again with `{GET_CERTIFICATE}`"
            ),
            Self::SecondFactorDemanded { role } => format!(
                "role `{role}` demands a second factor, and this connection has not given one; set one up with \
                 `ssh -t access mfa add` if you have none, then connect again: ssh asks for the code"
            ),
            Self::UnknownNode => "there is no such node".to_owned(),
            Self::LoginDenied { role } => format!("role `{role}` denies the login on every node"),
            Self::RoleUnreadable { role } => format!(
                "role `{role}` can't be read by this version, and denies everything until it is replaced"
            ),
            Self::NodeDenied { role } => format!("role `{role}` denies the node for every login"),
            Self::NotGranted => {
                "no role that the user has or may ask for grants the node".to_owned()
            }
            Self::LoginNotGranted { logins } => {
                let logins: Vec<String> = logins.iter().map(|login| format!("`{login}`")).collect();
                let logins = logins.join(", ");
                format!("no role grants the login there; the logins that can be had are: {logins}")
            }
            Self::RequestDemanded { role } => {
                format!(
                    "role `{role}` demands an approved request (request_access), and no role that the user may ask for grants the node"
                )
            }
            Self::NoLongerRequestable { request, role } => {
                format!(
                    "request {request} is approved, but the user may no longer ask for role `{role}`"
                )
            }
        }
    }
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
    let subject = match Subject::new(view, &identity.user, identity.holder(), now) {
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
            user: identity.user.clone(),
            key: identity.key.clone(),
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

impl Denial {
    /// A denial that must not tell whether anything exists.
    fn hidden(reason: Reason) -> Self {
        Self {
            reasons: vec![reason],
            visibility: Visibility::Hidden,
        }
    }
}

/// Whether `identity` may do anything at all at `now`: commands ask this, decisions do it themselves.
///
/// # Errors
/// The reason why not.
pub fn admit(view: &View, identity: &Identity, now: OffsetDateTime) -> Result<(), Reason> {
    Subject::new(view, &identity.user, identity.holder(), now).map(drop)
}

/// A node that works now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsableNode {
    /// The node.
    pub node: Arc<Node>,
    /// As whom. Never empty; shared by the nodes on which they are the same.
    pub logins: Arc<BTreeSet<Login>>,
}

/// A node that could be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestableNode {
    /// The node.
    pub node: Arc<Node>,
    /// The logins that do not work now, each with the roles to ask through. Never empty; shared
    /// by the nodes on which they are the same.
    pub logins: Arc<BTreeMap<Login, BTreeSet<RoleName>>>,
}

/// The nodes that `identity` may log in to at `now`, by name and ID.
#[must_use]
pub fn visible_nodes(view: &View, identity: &Identity, now: OffsetDateTime) -> Vec<UsableNode> {
    let Ok(subject) = Subject::new(view, &identity.user, identity.holder(), now) else {
        return Vec::new();
    };
    let mut survey = Survey::new(&subject);
    let usable = view.nodes().filter_map(|node| {
        let logins = survey.answer(node, |node| subject.usable_logins(node));
        // Most nodes may be somebody else's: their counters are not touched.
        (!logins.is_empty()).then(|| UsableNode {
            node: Arc::clone(node),
            logins,
        })
    });
    usable.collect()
}

/// The nodes that `identity` could ask for at `now`, by name and ID: those with a login that
/// does not work yet.
#[must_use]
pub fn requestable_nodes(
    view: &View,
    identity: &Identity,
    now: OffsetDateTime,
) -> Vec<RequestableNode> {
    let Ok(subject) = Subject::new(view, &identity.user, identity.holder(), now) else {
        return Vec::new();
    };
    let mut survey = Survey::new(&subject);
    let found = view.nodes().filter_map(|node| {
        let logins = survey.answer(node, |node| subject.askable_logins(node));
        (!logins.is_empty()).then(|| RequestableNode {
            node: Arc::clone(node),
            logins,
        })
    });
    found.collect()
}

/// The roles that `identity` could ask for by name at `now`, with their descriptions, by name.
#[must_use]
pub fn requestable_roles(
    view: &View,
    identity: &Identity,
    now: OffsetDateTime,
) -> Vec<Arc<crate::role::Role>> {
    let Ok(subject) = Subject::new(view, &identity.user, identity.holder(), now) else {
        return Vec::new();
    };
    let roles = subject.requestable_roles().into_iter();
    roles
        .filter_map(|role| view.role(&role.name))
        .map(Arc::clone)
        .collect()
}

/// What a user can do about requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestCapabilities {
    /// The roles that can be asked for by name, in their order.
    pub roles: Vec<RoleName>,
    /// The roles through which resources can be asked for, in their order.
    pub search_as_roles: Vec<RoleName>,
    /// Whom the user's roles suggest as reviewers.
    pub suggested_reviewers: BTreeSet<UserName>,
    /// Whether one of those roles takes a reason.
    pub reason_required: bool,
}

/// What `user` could ask for at `now`; nothing for one who may do nothing at all. Tells about any
/// user: the caller shows it to administrators.
#[must_use]
pub fn request_capabilities(
    view: &View,
    user: &UserName,
    now: OffsetDateTime,
) -> RequestCapabilities {
    let Ok(subject) = Subject::new(view, user, Holder::AnyKey, now) else {
        return RequestCapabilities::default();
    };
    let names = |roles: Vec<&crate::role::Role>| -> Vec<RoleName> {
        roles.into_iter().map(|role| role.name.clone()).collect()
    };
    let mut out = RequestCapabilities {
        roles: names(subject.requestable_roles()),
        search_as_roles: names(subject.searchable().to_vec()),
        ..RequestCapabilities::default()
    };
    let whole = subject.request_terms(&Reach::Roles, out.roles.iter());
    let some = Reach::Resources(BTreeSet::new());
    let narrow = subject.request_terms(&some, out.search_as_roles.iter());
    for terms in [whole, narrow] {
        out.suggested_reviewers.extend(terms.suggested_reviewers);
        out.reason_required |= terms.reason_mode == ReasonMode::Required;
    }
    out
}

/// What a name means to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// Exactly this node.
    One(NodeId),
    /// Several that the user may know of, at least two, in the order of their IDs.
    Ambiguous(Vec<Arc<Node>>),
    /// None that the user may know of; whether one exists is not said.
    Unknown,
}

/// Finds the node that `identity` means. Nodes that she may not know of do not exist here: they
/// make nothing ambiguous and are not found by ID either.
#[must_use]
pub fn resolve(view: &View, identity: &Identity, node: &NodeRef, now: OffsetDateTime) -> Resolved {
    let Ok(subject) = Subject::new(view, &identity.user, identity.holder(), now) else {
        return Resolved::Unknown;
    };
    let mut found: Vec<&Arc<Node>> = match node {
        NodeRef::Name(name) => view.nodes_named(name).collect(),
        NodeRef::Id(id) => view.node(id).into_iter().collect(),
        NodeRef::Resource(id) if id.cluster() == view.cluster() => id
            .node_id()
            .and_then(|id| view.node(&id))
            .into_iter()
            .collect(),
        NodeRef::Resource(_) => Vec::new(),
    };
    found.retain(|node| subject.may_know(node));
    match found.as_slice() {
        [] => Resolved::Unknown,
        [one] => Resolved::One(one.id),
        several => Resolved::Ambiguous(several.iter().map(|node| Arc::clone(node)).collect()),
    }
}
