//! Why a decision is what it is, for people: which rule decides, and what would make it work.

use time::OffsetDateTime;

use crate::id::{RequestId, ResourceId, RoleName, UserName};
use crate::node::Node;
use crate::request::Reach;
use crate::role::Role;
use crate::selector::LabelSelector;
use crate::user::User;
use crate::view::View;

use super::evaluate::Verdict;
use super::rules::{denial_by, reaches};
use super::subject::{Holder, Subject};
use super::{Access, Ask, Capabilities, Denial, Grant, Identity, Reason, SessionLimits};

/// A decision with everything that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What [`super::decide`] answers. It is no permit: an explanation opens nothing.
    pub outcome: Outcome,
    /// What each role says that has a say, standing ones first, then those of open requests, then
    /// those that could be asked for.
    pub roles: Vec<RoleFinding>,
    /// Who may review the request that could be filed; empty unless it could be.
    pub reviewers: Vec<UserName>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It works.
    Permitted {
        /// Through what.
        grant: Grant,
        /// Until when; `None` under standing access.
        ends: Option<OffsetDateTime>,
        /// What a session may do.
        capabilities: Capabilities,
        /// What bounds it besides.
        limits: SessionLimits,
    },
    /// It can be asked for.
    Askable(Box<Ask>),
    /// It can't be had.
    Denied(Denial),
}

/// What one role says about one login on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleFinding {
    /// The role.
    pub role: RoleName,
    /// How the user comes by it.
    pub via: Via,
    /// Whether its labels select the node.
    pub node: Match,
    /// Whether its logins, expanded for the user, hold the login.
    pub login: Match,
    /// What it denies; each denial wins over every role.
    pub denies: Vec<Reason>,
    /// Its label expressions, `allow` before `deny`.
    pub expressions: Vec<ExpressionFinding>,
}

/// What a label expression of a role says about the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpressionFinding {
    /// The field, as in `allow.node_labels_expression`.
    pub field: &'static str,
    /// As it was written.
    pub text: String,
    /// Whether it selects the node. One that can't be evaluated selects it under `deny` only.
    pub selects: Match,
}

/// How a user comes by a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// She has it.
    Standing,
    /// An open request of hers gives it.
    Request(RequestId),
    /// She may ask for resources through it.
    Requestable,
}

/// Whether a part of a role matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Match {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl Match {
    const fn from_rule(matches: bool) -> Self {
        if matches { Self::Yes } else { Self::No }
    }
}

/// For whom something is explained.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'a> {
    /// Who asks, as she came: with this key, or with what this certificate says.
    Identity(&'a Identity),
    /// A user in general, with any of her keys.
    User(&'a UserName),
}

/// Explains what somebody gets. May tell more than she may know: the caller shows it to
/// administrators, or shows the user no more than [`Denial::visibility`] allows.
#[must_use]
pub fn explain(view: &View, whom: Whom<'_>, access: &Access, now: OffsetDateTime) -> Explanation {
    let (user, holder) = match whom {
        Whom::Identity(identity) => (identity.user(), identity.holder()),
        Whom::User(user) => (user, Holder::AnyKey),
    };
    let subject = match Subject::new(view, user, holder, now) {
        Ok(subject) => subject,
        Err(reason) => return Explanation::without_roles(Denial::hidden(reason)),
    };
    let lacking = match whom {
        Whom::Identity(identity) => subject.unproven(identity),
        Whom::User(_) => None,
    };
    if let Some(reason) = lacking {
        return Explanation {
            outcome: Outcome::Denied(Denial::hidden(reason)),
            roles: findings(&subject, access),
            reviewers: Vec::new(),
        };
    }
    let outcome = match subject.evaluate(access) {
        Verdict::Grant(granted) => Outcome::Permitted {
            grant: Grant::new(&granted),
            ends: granted.request.map(|request| request.access_expires),
            capabilities: granted.capabilities,
            limits: granted.limits,
        },
        Verdict::Ask(ask) => Outcome::Askable(ask),
        Verdict::Deny(denial) => Outcome::Denied(denial),
    };
    let reviewers = match &outcome {
        Outcome::Askable(ask) => crate::request::reviewers_of(view, user, ask.roles.iter()),
        Outcome::Permitted { .. } | Outcome::Denied(_) => Vec::new(),
    };
    Explanation {
        outcome,
        roles: findings(&subject, access),
        reviewers,
    }
}

fn findings(subject: &Subject<'_>, access: &Access) -> Vec<RoleFinding> {
    let Some(node) = subject.view.node(&access.node) else {
        return Vec::new();
    };
    let everywhere = &Reach::Roles;
    let standing = subject.standing.iter();
    let standing = standing.map(|role| (*role, Via::Standing, everywhere));
    // What is approved; a request that was approved without a grant is none.
    let requested = subject.requested().filter_map(|(role, request)| {
        let reach = &request.granted.as_ref()?.reach;
        Some((role, Via::Request(request.id), reach))
    });
    let searchable = subject.searchable().iter();
    let searchable = searchable.map(|role| (*role, Via::Requestable, everywhere));
    let finding = |(role, via, reach): (&Role, Via, &Reach)| RoleFinding {
        role: role.name.clone(),
        via,
        node: Match::from_rule(
            role.allow.node_labels.matches(&node.labels, subject.user)
                && reaches_node(reach, subject.view, node),
        ),
        login: Match::from_rule(
            role.allow.names_login(subject.user, &access.login)
                && (reaches(reach, subject.view, node, &access.login)
                    || !reaches_node(reach, subject.view, node)),
        ),
        denies: denial_by(role, subject.user, node, &access.login),
        expressions: expressions(role, subject.user, node),
    };
    standing
        .chain(requested)
        .chain(searchable)
        .map(finding)
        .collect()
}

/// Whether a request with that reach extends to some login on `node`.
fn reaches_node(reach: &Reach, view: &View, node: &Node) -> bool {
    let ours = |id: &ResourceId| id.cluster() == view.cluster() && id.node_id() == Some(node.id);
    match reach {
        Reach::Roles => true,
        Reach::Resources(ids) => ids.iter().any(ours),
    }
}

fn expressions(role: &Role, user: &User, node: &Node) -> Vec<ExpressionFinding> {
    let finding = |field, selector: &LabelSelector| {
        let selects = selector.expression_matches(&node.labels, user)?;
        Some(ExpressionFinding {
            field,
            text: selector.expression()?.as_str().to_owned(),
            selects: Match::from_rule(selects),
        })
    };
    let allow = finding("allow.node_labels_expression", &role.allow.node_labels);
    let deny = finding("deny.node_labels_expression", &role.deny.node_labels);
    allow.into_iter().chain(deny).collect()
}

impl Explanation {
    fn without_roles(denial: Denial) -> Self {
        Self {
            outcome: Outcome::Denied(denial),
            roles: Vec::new(),
            reviewers: Vec::new(),
        }
    }
}
