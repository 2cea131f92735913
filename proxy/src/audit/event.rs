//! What happens that is logged: names and codes, which are Teleport's where it has one (INTERFACE section 7).

use std::fmt;

use anteroom_core::resource::Kind;

/// What happened. Names are Teleport's where it has one (INTERFACE section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// Somebody proved who he is.
    UserLogin,
    /// An authentication failed.
    Auth,
    /// A request was filed.
    AccessRequestCreate,
    /// A review was given.
    AccessRequestReview,
    /// A request changed its state, or what it may be used with.
    AccessRequestUpdate,
    /// A request's time ran out.
    AccessRequestExpire,
    /// A request was deleted by an administrator.
    AccessRequestDelete,
    /// A session to a node began.
    SessionStart,
    /// How much went through a session.
    SessionData,
    /// A session ended.
    SessionEnd,
    /// A connection to a node was refused.
    SessionRejected,
    /// A session was ended by somebody else.
    SessionKill,
    /// A certificate was issued.
    CertCreate,
    /// A command was run.
    Exec,
    /// A file was copied with scp.
    Scp,
    /// The sftp subsystem was used.
    Sftp,
    /// A port was forwarded.
    Port,
    /// A lock was made.
    LockCreate,
    /// A lock was taken away.
    LockDelete,
    /// An access monitoring rule was made.
    MonitoringRuleCreate,
    /// An access monitoring rule was changed.
    MonitoringRuleUpdate,
    /// An access monitoring rule was removed.
    MonitoringRuleDelete,
    /// A pre-approval was given.
    PreApprovalCreate,
    /// A pre-approval was taken back, or ended.
    PreApprovalDelete,
    /// A role was created.
    RoleCreate,
    /// A role was changed.
    RoleUpdate,
    /// A role was removed.
    RoleDelete,
    /// A user was created.
    UserCreate,
    /// A user was changed.
    UserUpdate,
    /// A user was removed.
    UserDelete,
    /// A node was registered.
    NodeCreate,
    /// A node was changed.
    NodeUpdate,
    /// A node was removed.
    NodeDelete,
    /// A node's tunnel was opened, closed or refused.
    NodeTunnel,
    /// An application, a database, a Kubernetes cluster or a desktop was registered.
    ResourceCreate(Kind),
    /// One was changed.
    ResourceUpdate(Kind),
    /// One was removed.
    ResourceDelete(Kind),
    /// A machine became a node by a token, or was not let in.
    InstanceJoin,
    /// A token was made.
    TokenCreate,
    /// A token was removed, or ended.
    TokenDelete,
    /// A second factor was set up.
    MfaAdd,
    /// A second factor was removed.
    MfaDelete,
    /// A certificate authority was made or rotated.
    CaRotate,
    /// The proxy started on this data directory.
    ProxyStart,
    /// The proxy stopped in good order.
    ProxyStop,
    /// An administrator's command that has no event of its own.
    Admin,
}

/// Every event with its name and its code. Codes that Teleport has are Teleport's; `A…` are ours.
const EVENTS: &[(Event, &str, &str)] = &[
    (Event::UserLogin, "user.login", "T1000"),
    (Event::Auth, "auth", "T3007"),
    (Event::AccessRequestCreate, "access_request.create", "T5000"),
    (Event::AccessRequestReview, "access_request.review", "T5002"),
    (Event::AccessRequestUpdate, "access_request.update", "T5001"),
    (Event::AccessRequestExpire, "access_request.expire", "T5005"),
    (Event::AccessRequestDelete, "access_request.delete", "T5003"),
    (Event::SessionStart, "session.start", "T2000"),
    (Event::SessionData, "session.data", "T2006"),
    (Event::SessionEnd, "session.end", "T2004"),
    (Event::SessionRejected, "session.rejected", "T1006"),
    (Event::SessionKill, "session.kill", "A2000"),
    (Event::CertCreate, "cert.create", "TC000"),
    (Event::Exec, "exec", "T3002"),
    (Event::Scp, "scp", "T3004"),
    (Event::Sftp, "sftp", "TS001"),
    (Event::Port, "port", "T3003"),
    (Event::LockCreate, "lock.create", "TLK00"),
    (Event::LockDelete, "lock.delete", "TLK01"),
    (
        Event::MonitoringRuleCreate,
        "access_monitoring_rule.create",
        "TAMR000",
    ),
    (
        Event::MonitoringRuleUpdate,
        "access_monitoring_rule.update",
        "TAMR001",
    ),
    (
        Event::MonitoringRuleDelete,
        "access_monitoring_rule.delete",
        "TAMR002",
    ),
    (Event::PreApprovalCreate, "pre_approval.create", "A1000"),
    (Event::PreApprovalDelete, "pre_approval.delete", "A1001"),
    (Event::InstanceJoin, "instance.join", "TJ001"),
    (Event::TokenCreate, "join_token.create", "TJT00"),
    (Event::TokenDelete, "join_token.delete", "A1100"),
    (Event::MfaAdd, "mfa.add", "T1006"),
    (Event::MfaDelete, "mfa.delete", "T1007"),
    (Event::RoleCreate, "role.create", "T9000"),
    (Event::RoleUpdate, "role.update", "T9002"),
    (Event::RoleDelete, "role.delete", "T9001"),
    (Event::UserCreate, "user.create", "T1002"),
    (Event::UserUpdate, "user.update", "T1003"),
    (Event::UserDelete, "user.delete", "T1004"),
    (Event::NodeCreate, "node.create", "A3000"),
    (Event::NodeUpdate, "node.update", "A3001"),
    (Event::NodeDelete, "node.delete", "A3002"),
    (Event::NodeTunnel, "node.tunnel", "A3003"),
    (Event::ResourceCreate(Kind::App), "app.create", "TAP03"),
    (Event::ResourceUpdate(Kind::App), "app.update", "TAP04"),
    (Event::ResourceDelete(Kind::App), "app.delete", "TAP05"),
    (Event::ResourceCreate(Kind::Db), "db.create", "TDB03"),
    (Event::ResourceUpdate(Kind::Db), "db.update", "TDB04"),
    (Event::ResourceDelete(Kind::Db), "db.delete", "TDB05"),
    (
        Event::ResourceCreate(Kind::KubeCluster),
        "kube.create",
        "T3010",
    ),
    (
        Event::ResourceUpdate(Kind::KubeCluster),
        "kube.update",
        "T3011",
    ),
    (
        Event::ResourceDelete(Kind::KubeCluster),
        "kube.delete",
        "T3012",
    ),
    (
        Event::ResourceCreate(Kind::WindowsDesktop),
        "windows_desktop.create",
        "A3100",
    ),
    (
        Event::ResourceUpdate(Kind::WindowsDesktop),
        "windows_desktop.update",
        "A3101",
    ),
    (
        Event::ResourceDelete(Kind::WindowsDesktop),
        "windows_desktop.delete",
        "A3102",
    ),
    (Event::CaRotate, "ca.rotate", "A4000"),
    (Event::ProxyStart, "proxy.start", "A5000"),
    (Event::ProxyStop, "proxy.stop", "A5001"),
    (Event::Admin, "admin", "A6000"),
];

impl Event {
    /// The name in the log, for example `access_request.create`.
    #[must_use]
    pub fn name(self) -> &'static str {
        EVENTS
            .iter()
            .find(|(event, ..)| *event == self)
            .map_or("admin", |(_, name, _)| name)
    }

    /// The event of that name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        EVENTS
            .iter()
            .find(|(_, known, _)| *known == name)
            .map(|(event, ..)| *event)
    }

    pub(super) fn code(self, outcome: Outcome) -> String {
        let number = EVENTS
            .iter()
            .find(|(event, ..)| *event == self)
            .map_or("A6000", |(.., code)| code);
        let class = match outcome {
            Outcome::Succeeded => 'I',
            Outcome::Failed => 'W',
        };
        format!("{number}{class}")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the thing that was tried was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It was refused, or it failed.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_one_name_of_its_own() {
        for (event, name, _) in EVENTS {
            assert_eq!(Event::named(name), Some(*event));
            assert_eq!(event.name(), *name);
        }
    }
}
