//! `explain LOGIN@NODE`: which rule decides, and what would make it work.

use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::duration::format as format_duration;
use anteroom_core::id::{RoleName, UserName};
use anteroom_core::node::Node;
use anteroom_core::policy::{
    self, Access, Ask, Capabilities, Explanation, Grant, Identity, Match, Outcome, RoleFinding,
    SessionLimits, Via, Visibility, Whom,
};
use anteroom_core::role::ReasonMode;
use anteroom_core::target::NodeRef;
use anteroom_core::view::View;
use serde::Serialize;

use super::args::person::Explain;
use super::io::{Caller, CommandIo};
use super::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::{self, Table, clean};
use crate::state::ObjectId;

/// Whom an explanation is for: the words differ, and so does what may be told.
enum For<'a> {
    /// The one who asks, as she came: with this key, or with what her certificate says.
    Self_(&'a Identity),
    /// An administrator who asks about somebody.
    Administrator(&'a UserName),
}

/// The explanation for scripts.
#[derive(Debug, Serialize)]
struct Row {
    user: String,
    login: String,
    node: String,
    resource_id: String,
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    request_roles: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reviewers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
    /// What bounds a session, where there can be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionRow>,
    roles: Vec<RoleRow>,
}

/// What a session may do and how long, by the names of the role options that decide it.
#[derive(Debug, Serialize)]
struct SessionRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    max_session_ttl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_idle_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_sessions: Option<u32>,
    permit_pty: bool,
    port_forwarding_local: bool,
    port_forwarding_remote: bool,
    forward_agent: bool,
    permit_x11_forwarding: bool,
    ssh_file_copy: bool,
    direct: bool,
}

impl SessionRow {
    fn new(capabilities: &Capabilities, limits: &SessionLimits) -> Self {
        Self {
            max_session_ttl: limits.session_ttl.map(format_duration),
            client_idle_timeout: limits.idle_timeout.map(format_duration),
            max_connections: limits.connections,
            max_sessions: limits.sessions,
            permit_pty: capabilities.pty.is_allowed(),
            port_forwarding_local: capabilities.local_forwarding.is_allowed(),
            port_forwarding_remote: capabilities.remote_forwarding.is_allowed(),
            forward_agent: capabilities.agent_forwarding.is_allowed(),
            permit_x11_forwarding: capabilities.x11_forwarding.is_allowed(),
            ssh_file_copy: capabilities.file_copy.is_allowed(),
            direct: capabilities.direct.is_allowed(),
        }
    }
}

#[derive(Debug, Serialize)]
struct RoleRow {
    role: String,
    via: String,
    node: bool,
    login: bool,
    denies: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    expressions: Vec<ExpressionRow>,
}

#[derive(Debug, Serialize)]
struct ExpressionRow {
    field: String,
    /// For those who may read roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    expression: Option<String>,
    selects_node: bool,
}

/// Whether the texts of expressions are shown: they are what roles say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Texts {
    Shown,
    Kept,
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn explain(&mut self, args: &Explain) -> Ended {
        let view = self.ctx.state.view();
        let now = self.ctx.state.now();
        let (who, user) = match (self.caller, &args.user) {
            (Caller::Ssh { identity, .. }, None) => (For::Self_(identity), identity.user().clone()),
            (Caller::Ssh { identity, .. }, Some(user)) if user == identity.user() => {
                (For::Self_(identity), user.clone())
            }
            (Caller::Ssh { .. } | Caller::Local, Some(user)) => {
                self.require_on(AdminVerb::Read, &view, &ObjectId::User(user.clone()))?;
                self.require_some(AdminVerb::Read, AdminResource::Role)?;
                (For::Administrator(user), user.clone())
            }
            (Caller::Local, None) => {
                return Err(Stop::usage(
                    "say for whom: `explain LOGIN@NODE --user USER`",
                ));
            }
        };
        let node = match who {
            For::Self_(_) => self.resolve(&view, &args.target.node)?,
            For::Administrator(_) => self.explained_node(&view, &args.target.node)?,
        };
        let access = Access {
            login: args.target.login.clone(),
            node: node.id,
        };
        let whom = match who {
            For::Self_(identity) => Whom::Identity(identity),
            For::Administrator(user) => Whom::User(user),
        };
        let explanation = policy::explain(&view, whom, &access, now);
        if let (For::Self_(_), Outcome::Denied(denial)) = (&who, &explanation.outcome)
            && denial.visibility == Visibility::Hidden
        {
            return Err(Stop::not_found(say::denial(
                denial,
                &args.target.to_string(),
            )));
        }
        let target = format!("{}@{}", access.login, node.name);
        let readable = |name: &RoleName| {
            let role = view.role(name);
            role.is_some_and(|role| self.may(AdminVerb::Read, AdminObject::Role(role)))
        };
        let unreadable = explanation
            .roles
            .iter()
            .find(|found| !readable(&found.role));
        let texts = match (unreadable, &who) {
            (None, _) => Texts::Shown,
            (Some(_), For::Self_(_)) => Texts::Kept,
            // What a role says that she may not read is no less kept from her by asking for somebody.
            (Some(found), For::Administrator(_)) => {
                return Err(Stop::denied(format!(
                    "role `{}` has a say in it, and none of your roles allows `read` on that `role`",
                    found.role
                )));
            }
        };
        let row = Row {
            user: user.to_string(),
            login: access.login.to_string(),
            node: node.name.to_string(),
            resource_id: super::nodes::resource_id(&view, &node).to_string(),
            ..Row::new(&explanation, texts)
        };
        self.listing(args.listing.format, &row, || {
            text(&who, &target, &explanation, texts)
        })
        .await?;
        Ok(Exit::Done)
    }
}

impl<I: CommandIo> Run<'_, I> {
    /// The node of an explanation for somebody else: one that the caller administers, or knows of as anybody does.
    fn explained_node(&self, view: &View, node: &NodeRef) -> Result<Arc<Node>, Stop> {
        let administered = self.administered_node(AdminVerb::Read, view, &node.to_string());
        administered.or_else(|_| self.resolve(view, node))
    }
}

impl Row {
    fn new(explanation: &Explanation, texts: Texts) -> Self {
        let mut row = Self {
            user: String::new(),
            login: String::new(),
            node: String::new(),
            resource_id: String::new(),
            decision: "deny",
            granted_by: None,
            request_id: None,
            ends: None,
            request_roles: Vec::new(),
            reviewers: explanation
                .reviewers
                .iter()
                .map(ToString::to_string)
                .collect(),
            reasons: Vec::new(),
            session: None,
            roles: explanation
                .roles
                .iter()
                .map(|finding| RoleRow::new(finding, texts))
                .collect(),
        };
        match &explanation.outcome {
            Outcome::Permitted {
                grant,
                ends,
                capabilities,
                limits,
            } => {
                row.decision = "permit";
                row.session = Some(SessionRow::new(capabilities, limits));
                row.ends = ends.map(say::rfc3339);
                match grant {
                    Grant::Standing { role } => row.granted_by = Some(role.to_string()),
                    Grant::Request { request, role } => {
                        row.granted_by = Some(role.to_string());
                        row.request_id = Some(request.to_string());
                    }
                }
            }
            Outcome::Askable(ask) => {
                row.decision = "ask";
                row.request_roles = ask.roles.iter().map(ToString::to_string).collect();
                row.request_id = ask.joins.map(|id| id.to_string());
            }
            Outcome::Denied(denial) => {
                row.reasons = denial
                    .reasons
                    .iter()
                    .map(|reason| reason.as_sentence())
                    .collect()
            }
        }
        row
    }
}

impl RoleRow {
    fn new(finding: &RoleFinding, texts: Texts) -> Self {
        Self {
            role: finding.role.to_string(),
            via: via(finding.via),
            node: finding.node == Match::Yes,
            login: finding.login == Match::Yes,
            denies: finding
                .denies
                .iter()
                .map(|reason| reason.as_sentence())
                .collect(),
            expressions: finding
                .expressions
                .iter()
                .map(|found| ExpressionRow {
                    field: format!("spec.{}", found.field),
                    expression: (texts == Texts::Shown).then(|| found.text.clone()),
                    selects_node: found.selects == Match::Yes,
                })
                .collect(),
        }
    }
}

fn via(via: Via) -> String {
    match via {
        Via::Standing => "standing".to_owned(),
        Via::Request(id) => format!("request {id}"),
        Via::Requestable => "can be asked for".to_owned(),
    }
}

fn text(who: &For<'_>, target: &str, explanation: &Explanation, texts: Texts) -> String {
    let subject = match who {
        For::Self_(_) => "you".to_owned(),
        For::Administrator(user) => user.to_string(),
    };
    let mut lines = match &explanation.outcome {
        Outcome::Permitted {
            grant,
            ends,
            capabilities,
            limits,
        } => {
            let by = match grant {
                Grant::Standing { role } => {
                    format!("by role `{role}`, which {subject} {}", has(who))
                }
                Grant::Request { request, role } => {
                    format!("by request {request}, through role `{role}`")
                }
            };
            let until = ends
                .map(|at| format!(", until {}", say::stamp(at)))
                .unwrap_or_default();
            let mut lines = vec![format!("{target}: allowed {by}{until}")];
            lines.extend(session_lines(capabilities, limits));
            lines
        }
        Outcome::Askable(ask) => asked(who, target, &subject, ask, &explanation.reviewers),
        Outcome::Denied(denial) => {
            let mut lines = vec![format!(
                "{target}: not allowed, and {subject} can't ask for it"
            )];
            match who {
                For::Self_(_) => lines.extend(
                    say::denial(denial, target)
                        .lines()
                        .map(|line| format!("  {line}")),
                ),
                For::Administrator(_) => {
                    lines.extend(
                        denial
                            .reasons
                            .iter()
                            .map(|reason| format!("  {}", clean(&reason.as_sentence()))),
                    );
                }
            }
            lines
        }
    };
    if !explanation.roles.is_empty() {
        let mut table = Table::new(["Role", "How", "Grants Node", "Grants Login", "Denies"]);
        for finding in &explanation.roles {
            let denies: Vec<String> = finding
                .denies
                .iter()
                .map(|reason| reason.as_sentence())
                .collect();
            table.row([
                finding.role.to_string(),
                via(finding.via),
                yes_no(finding.node),
                yes_no(finding.login),
                denies.join("; "),
            ]);
        }
        lines.push(format!("\n{table}"));
        let expressions = expression_lines(&explanation.roles, texts);
        if !expressions.is_empty() {
            lines.push(format!("\n{}", expressions.join("\n")));
        }
    }
    lines.join("\n")
}

/// What bounds a session, and what it may do.
fn session_lines(capabilities: &Capabilities, limits: &SessionLimits) -> Vec<String> {
    let count = |n: u32, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let bounds: Vec<String> = [
        limits
            .session_ttl
            .map(|ttl| format!("at most {}", format_duration(ttl))),
        limits
            .idle_timeout
            .map(|idle| format!("at most {} without data", format_duration(idle))),
        limits
            .connections
            .map(|n| format!("at most {} at a time", count(n, "connection"))),
        limits
            .sessions
            .map(|n| format!("at most {} in a connection", count(n, "session"))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let bounds = if bounds.is_empty() {
        "no limits".to_owned()
    } else {
        bounds.join(", ")
    };
    let all = [
        ("terminal", capabilities.pty),
        ("local forwarding", capabilities.local_forwarding),
        ("remote forwarding", capabilities.remote_forwarding),
        ("agent forwarding", capabilities.agent_forwarding),
        ("X11 forwarding", capabilities.x11_forwarding),
        ("file copies", capabilities.file_copy),
        ("certificates for direct use", capabilities.direct),
    ];
    let those = |allowed: bool| {
        let found = all.iter().filter(|(_, one)| one.is_allowed() == allowed);
        let names: Vec<&str> = found.map(|(name, _)| *name).collect();
        if names.is_empty() {
            "nothing".to_owned()
        } else {
            names.join(", ")
        }
    };
    vec![
        format!("  Session:  {bounds}"),
        format!("  Allowed:  {}", those(true)),
        format!("  Refused:  {}", those(false)),
    ]
}

/// What the label expressions of the roles say about the node, one line each.
fn expression_lines(roles: &[RoleFinding], texts: Texts) -> Vec<String> {
    let mut lines = Vec::new();
    for finding in roles {
        for found in &finding.expressions {
            let selects = match found.selects {
                Match::Yes => "selects the node",
                Match::No => "does not select the node",
            };
            let text = match texts {
                // Written over several lines, it is shown on one.
                Texts::Shown => {
                    let blank = |c: char| if c.is_control() { ' ' } else { c };
                    let text: String = found.text.trim().chars().map(blank).collect();
                    format!(": {}", clean(&text))
                }
                Texts::Kept => String::new(),
            };
            lines.push(format!(
                "`{}`: {} {selects}{text}",
                finding.role, found.field
            ));
        }
    }
    lines
}

fn has(who: &For<'_>) -> &'static str {
    match who {
        For::Self_(_) => "have",
        For::Administrator(_) => "has",
    }
}

fn asked(
    who: &For<'_>,
    target: &str,
    subject: &str,
    ask: &Ask,
    reviewers: &[UserName],
) -> Vec<String> {
    let roles: Vec<String> = ask.roles.iter().map(|role| format!("`{role}`")).collect();
    let mut lines = vec![format!(
        "{target}: not allowed now, but {subject} can ask for it through role {}",
        roles.join(", ")
    )];
    if let Some(request) = ask.joins {
        lines.push(format!("  Pending already: request {request}"));
    }
    if let Some((request, at)) = &ask.opens {
        lines.push(format!(
            "  Approved for later: request {request}, from {}",
            say::stamp(*at)
        ));
    }
    for request in &ask.assumable {
        lines.push(format!("  Approved for another key, or dropped: take it up with `ssh access request assume {request}`"));
    }
    lines.push(match ask.reason_mode {
        ReasonMode::Required => "  A reason is required.".to_owned(),
        ReasonMode::Optional => "  A reason may be given.".to_owned(),
    });
    if let Some(length) = ask.max_duration {
        lines.push(format!("  For at most {}.", say::brief(length)));
    }
    let names: Vec<String> = reviewers.iter().map(ToString::to_string).collect();
    lines.push(if names.is_empty() {
        "  Nobody can review such a request; an administrator has to name a reviewer of the role."
            .to_owned()
    } else {
        format!("  It can be reviewed by {}.", names.join(", "))
    });
    match who {
        For::Self_(_) => lines.push(format!("  Ask with `ssh access request create --resource {target} --reason \"<request reason>\"`")),
        For::Administrator(_) => {}
    }
    lines
}

fn yes_no(value: Match) -> String {
    match value {
        Match::Yes => "yes".to_owned(),
        Match::No => "no".to_owned(),
    }
}
