//! Who may read and change Anteroom's own resources: the `rules` of roles.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{LockId, RoleName, UserName};
use crate::lock::{Lock, LockTarget};
use crate::monitoring::MonitoringRule;
use crate::node::Node;
use crate::predicate::RuleEnv;
use crate::request::AccessRequest;
use crate::resource::Resource;
use crate::role::{Role, Rule};
use crate::user::User;
use crate::view::View;

/// Something of Anteroom's own, as `rules[].resources` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminResource {
    /// `user`.
    User,
    /// `role`.
    Role,
    /// `node`.
    Node,
    /// `access_request`.
    AccessRequest,
    /// `session`: live and recorded sessions.
    Session,
    /// `event`: the audit log.
    Event,
    /// `cert_authority`.
    CertAuthority,
    /// `lock`.
    Lock,
    /// `token`: what node agents join with.
    Token,
    /// `access_monitoring_rule`: what reviews requests by itself.
    AccessMonitoringRule,
    /// `app`.
    App,
    /// `db`.
    Db,
    /// `kube_cluster`.
    KubeCluster,
    /// `windows_desktop`.
    WindowsDesktop,
}

/// What may be done with it, as `rules[].verbs` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminVerb {
    /// See that they exist.
    List,
    /// See one in full.
    Read,
    /// Make a new one.
    Create,
    /// Change one.
    Update,
    /// Remove one.
    Delete,
}

impl AdminResource {
    /// Every resource, in the order of the documentation.
    pub const ALL: [Self; 14] = [
        Self::User,
        Self::Role,
        Self::Node,
        Self::AccessRequest,
        Self::Session,
        Self::Event,
        Self::CertAuthority,
        Self::Lock,
        Self::Token,
        Self::AccessMonitoringRule,
        Self::App,
        Self::Db,
        Self::KubeCluster,
        Self::WindowsDesktop,
    ];

    /// The word in a document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
            Self::Node => "node",
            Self::AccessRequest => "access_request",
            Self::Session => "session",
            Self::Event => "event",
            Self::CertAuthority => "cert_authority",
            Self::Lock => "lock",
            Self::Token => "token",
            Self::AccessMonitoringRule => "access_monitoring_rule",
            Self::App => "app",
            Self::Db => "db",
            Self::KubeCluster => "kube_cluster",
            Self::WindowsDesktop => "windows_desktop",
        }
    }
}

impl AdminVerb {
    /// Every verb, in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::List,
        Self::Read,
        Self::Create,
        Self::Update,
        Self::Delete,
    ];

    /// The word in a document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Read => "read",
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// One of Anteroom's own resources that somebody acts on: what `where` of a rule is asked about.
#[derive(Debug, Clone, Copy)]
pub enum AdminObject<'a> {
    /// A user.
    User(&'a User),
    /// A role.
    Role(&'a Role),
    /// A node.
    Node(&'a Node),
    /// A request, also one that is going to be filed.
    AccessRequest(&'a AccessRequest),
    /// What a user may ask for, which is no request yet.
    RequestsOf(&'a UserName),
    /// A lock; without an ID the one that is kept with a user.
    Lock {
        /// Its ID.
        id: Option<LockId>,
        /// What it locks.
        target: &'a LockTarget,
    },
    /// An access monitoring rule.
    MonitoringRule(&'a MonitoringRule),
    /// An application, a database, a Kubernetes cluster or a desktop.
    Resource(&'a Resource),
    /// A session.
    Session(SessionObject<'a>),
    /// The authority of this name: `user`, `node`, `host`.
    CertAuthority(&'static str),
    /// The audit log.
    Events,
    /// What node agents join with.
    Tokens,
}

/// A session, as rules see it.
#[derive(Debug, Clone, Copy)]
pub struct SessionObject<'a> {
    /// Its ID.
    pub id: &'a str,
    /// Who took part.
    pub participants: &'a BTreeSet<UserName>,
    /// The labels of its node.
    pub server_labels: &'a BTreeMap<String, String>,
}

impl<'a> AdminObject<'a> {
    /// What a rule calls it.
    #[must_use]
    pub fn resource(self) -> AdminResource {
        match self {
            Self::User(_) => AdminResource::User,
            Self::Role(_) => AdminResource::Role,
            Self::Node(_) => AdminResource::Node,
            Self::AccessRequest(_) | Self::RequestsOf(_) => AdminResource::AccessRequest,
            Self::Lock { .. } => AdminResource::Lock,
            Self::MonitoringRule(_) => AdminResource::AccessMonitoringRule,
            Self::Resource(resource) => resource.kind().admin(),
            Self::Session(_) => AdminResource::Session,
            Self::CertAuthority(_) => AdminResource::CertAuthority,
            Self::Events => AdminResource::Event,
            Self::Tokens => AdminResource::Token,
        }
    }

    /// `metadata.name`, as `get` prints it: the UUID of a node.
    pub(crate) fn name(self) -> Option<Cow<'a, str>> {
        match self {
            Self::User(user) => Some(Cow::Borrowed(user.name.as_str())),
            Self::Role(role) => Some(Cow::Borrowed(role.name.as_str())),
            Self::Node(node) => Some(Cow::Owned(node.id.to_string())),
            Self::AccessRequest(request) => Some(Cow::Owned(request.id.to_string())),
            Self::Lock { id: Some(id), .. } => Some(Cow::Owned(id.to_string())),
            Self::Lock { id: None, target } => {
                Some(Cow::Owned(format!("{}/{}", target.kind(), target.value())))
            }
            Self::MonitoringRule(rule) => Some(Cow::Borrowed(rule.name.as_str())),
            Self::Resource(resource) => Some(Cow::Borrowed(resource.name.as_str())),
            Self::Session(session) => Some(Cow::Borrowed(session.id)),
            Self::RequestsOf(_) | Self::CertAuthority(_) | Self::Events | Self::Tokens => None,
        }
    }

    /// `metadata.description`, of what can have one.
    pub(crate) fn description(self) -> Option<&'a str> {
        let description = if let Self::Role(role) = self {
            &role.description
        } else if let Self::MonitoringRule(rule) = self {
            &rule.description
        } else if let Self::Resource(resource) = self {
            &resource.description
        } else {
            return None;
        };
        Some(description.as_deref().unwrap_or_default())
    }

    /// `metadata.labels`, of what can have some.
    pub(crate) fn labels(self) -> Option<&'a BTreeMap<String, String>> {
        if let Self::Node(node) = self {
            Some(&node.labels)
        } else if let Self::Role(role) = self {
            Some(&role.labels)
        } else if let Self::Resource(resource) = self {
            Some(&resource.labels)
        } else {
            None
        }
    }

    /// Where it is.
    pub(crate) fn address(self) -> Option<String> {
        if let Self::Resource(resource) = self {
            return Some(resource.address());
        }
        self.node().map(|node| node.addr.to_string())
    }

    pub(crate) fn node(self) -> Option<&'a Node> {
        if let Self::Node(node) = self {
            Some(node)
        } else {
            None
        }
    }

    pub(crate) fn user(self) -> Option<&'a User> {
        if let Self::User(user) = self {
            Some(user)
        } else {
            None
        }
    }

    pub(crate) fn request(self) -> Option<&'a AccessRequest> {
        if let Self::AccessRequest(request) = self {
            Some(request)
        } else {
            None
        }
    }

    /// Whose request it is.
    pub(crate) fn requester(self) -> Option<&'a UserName> {
        if let Self::RequestsOf(user) = self {
            return Some(user);
        }
        self.request().map(|request| &request.user)
    }

    /// The roles of a user, or those of a request.
    pub(crate) fn roles(self) -> Option<&'a BTreeSet<RoleName>> {
        let asked = self.request().map(|request| &request.roles);
        asked.or_else(|| self.user().map(|user| &user.roles))
    }

    pub(crate) fn lock_target(self) -> Option<&'a LockTarget> {
        if let Self::Lock { target, .. } = self {
            Some(target)
        } else {
            None
        }
    }

    pub(crate) fn session(self) -> Option<SessionObject<'a>> {
        if let Self::Session(session) = self {
            Some(session)
        } else {
            None
        }
    }

    pub(crate) fn authority(self) -> Option<&'static str> {
        if let Self::CertAuthority(name) = self {
            Some(name)
        } else {
            None
        }
    }
}

impl<'a> From<&'a Lock> for AdminObject<'a> {
    fn from(lock: &'a Lock) -> Self {
        Self::Lock {
            id: Some(lock.id),
            target: &lock.target,
        }
    }
}

/// What a user's standing roles say about doing one thing with the objects of one kind.
///
/// This is the one place where rules are asked. Unknown and locked users may do nothing; a lock
/// counts until it is removed, so that no clock is needed here.
#[derive(Debug)]
pub struct Rights<'v> {
    resource: AdminResource,
    /// Who acts; `None` if she may do nothing at all.
    user: Option<&'v User>,
    allow: Vec<&'v Rule>,
    deny: Vec<&'v Rule>,
}

impl<'v> Rights<'v> {
    /// What the roles of `user` say about `verb` on `resource`.
    #[must_use]
    pub fn new(view: &'v View, user: &UserName, verb: AdminVerb, resource: AdminResource) -> Self {
        let user = view.user(user).map(AsRef::as_ref);
        let user = user.filter(|user| !view.is_locked_out(user));
        let mut rights = Self {
            resource,
            user,
            allow: Vec::new(),
            deny: Vec::new(),
        };
        let speaks =
            |rule: &&Rule| rule.resources.contains(&resource) && rule.verbs.contains(&verb);
        let roles = user.into_iter().flat_map(|user| &user.roles);
        for role in roles.filter_map(|name| view.role(name)) {
            rights.allow.extend(role.allow.rules.iter().filter(speaks));
            rights.deny.extend(role.deny.rules.iter().filter(speaks));
        }
        rights
    }

    /// Whether there may be an object with which it may be done. For what is asked before there is
    /// an object, and never in place of [`Self::cover`].
    #[must_use]
    pub fn exist(&self) -> bool {
        self.user.is_some()
            && !self.allow.is_empty()
            && self.deny.iter().all(|rule| rule.condition.is_some())
    }

    /// Whether it may be done with `object`. A deny rule of any role wins. A `where` that can't be
    /// evaluated gives nothing under `allow`, and denies under `deny`.
    #[must_use]
    pub fn cover(&self, object: AdminObject<'_>) -> bool {
        let Some(user) = self.user.filter(|_| object.resource() == self.resource) else {
            return false;
        };
        let env = RuleEnv { user, object };
        let allows = |rule: &&Rule| rule.condition.as_ref().is_none_or(|c| c.allows(&env));
        let denies = |rule: &&Rule| rule.condition.as_ref().is_none_or(|c| c.denies(&env));
        self.allow.iter().any(allows) && !self.deny.iter().any(denies)
    }
}

/// Whether `user`'s standing roles let her do `verb` with `object`; see [`Rights`].
#[must_use]
pub fn allowed(view: &View, user: &UserName, verb: AdminVerb, object: AdminObject<'_>) -> bool {
    Rights::new(view, user, verb, object.resource()).cover(object)
}
