//! Who may read and change Anteroom's own resources: the `rules` of roles.

use serde::{Deserialize, Serialize};

use crate::id::UserName;
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

/// Whether `user`'s standing roles let her do `verb` with `resource`. A deny rule of any of her
/// roles wins. Unknown and locked users may do nothing; a lock counts until it is removed, so that
/// no clock is needed here.
#[must_use]
pub fn allowed(view: &View, user: &UserName, verb: AdminVerb, resource: AdminResource) -> bool {
    let Some(user) = view.user(user).filter(|user| !view.is_locked_out(user)) else {
        return false;
    };
    let matches = |rules: &[crate::role::Rule]| {
        rules
            .iter()
            .any(|rule| rule.resources.contains(&resource) && rule.verbs.contains(&verb))
    };
    let roles = || user.roles.iter().filter_map(|name| view.role(name));
    roles().any(|role| matches(&role.allow.rules)) && !roles().any(|role| matches(&role.deny.rules))
}
