//! `request allow` and `request allows`: approving in advance, and taking it back.

use std::collections::BTreeMap;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb};
use anteroom_core::allowance::{AllowError as Unallowed, Allowance, Covers};
use anteroom_core::id::AllowanceId;
use anteroom_core::request::{AccessRequest, State as RequestState};
use anteroom_core::view::View;
use serde::Serialize;

use super::args::allow::{Allow, AllowsLs, AllowsRm};
use super::io::{Caller, CommandIo};
use super::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::{self, RequestBlock, Table, clean};
use crate::state::{AllowError, DisallowError};

/// A pre-approval as scripts see it.
#[derive(Debug, Serialize)]
struct AllowanceRow {
    id: String,
    author: String,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logins: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    reason: String,
    created: String,
    expires: String,
}

impl AllowanceRow {
    fn new(allowance: &Allowance) -> Self {
        let strings = |roles: &std::collections::BTreeSet<_>| super::requests::strings(roles);
        let (labels, logins, roles) = match &allowance.covers {
            Covers::Nodes {
                labels,
                logins,
                roles,
            } => (
                Some(labels.clone()),
                logins.as_ref().map(super::requests::strings),
                roles.as_ref().map(strings),
            ),
            Covers::Roles(roles) => (None, None, Some(strings(roles))),
        };
        Self {
            id: allowance.id.to_string(),
            author: allowance.author.to_string(),
            user: allowance.user.to_string(),
            labels,
            logins,
            roles,
            reason: allowance.reason.clone(),
            created: say::rfc3339(allowance.created),
            expires: say::rfc3339(allowance.ends),
        }
    }
}

// ---- errors of the rules, as exit statuses

impl From<AllowError> for Stop {
    fn from(error: AllowError) -> Self {
        let exit = match &error {
            AllowError::Store(_) => None,
            AllowError::NotAdmitted(_) | AllowError::FromNode(_) => Some(Exit::Denied),
            AllowError::Refused(refused) => Some(match refused {
                Unallowed::Own | Unallowed::NotNodes(..) | Unallowed::NotRole { .. } => {
                    Exit::Denied
                }
                Unallowed::Nothing
                | Unallowed::TooManyNames { .. }
                | Unallowed::TooLong(_)
                | Unallowed::TooShort
                | Unallowed::ReasonTooLong { .. } => Exit::Usage,
                Unallowed::TooManyFor(_) | Unallowed::TooManyOf => Exit::Failed,
                // The enum is open to what later rules refuse.
                _ => Exit::Failed,
            }),
        };
        match (exit, error) {
            (None, AllowError::Store(error)) => error.into(),
            (exit, error) => {
                Self::by_state(exit.unwrap_or(Exit::Failed), clean(&error.to_string()))
            }
        }
    }
}

impl From<DisallowError> for Stop {
    fn from(error: DisallowError) -> Self {
        let exit = match error {
            DisallowError::Store(error) => return error.into(),
            DisallowError::NoSuch(_) => Exit::NotFound,
            DisallowError::NotAdmitted(_)
            | DisallowError::FromNode(_)
            | DisallowError::NotYours { .. } => Exit::Denied,
        };
        Self::by_state(exit, clean(&error.to_string()))
    }
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn allow(&mut self, args: Allow) -> Ended {
        let (author, from) = match self.caller {
            Caller::Ssh {
                identity,
                remote_addr,
            } => (identity.clone(), Some(*remote_addr)),
            Caller::Local => {
                return Err(Stop::usage(
                    "a pre-approval is the review of a user, and the local administrator is no user; give it over ssh, as `ssh access request allow`",
                ));
            }
        };
        let reason = self.check_reason(args.reason.as_deref())?;
        let covers = covers(&args)?;
        let allowed = self
            .ctx
            .state
            .allow(&author, &args.user, covers, args.lasts, &reason, from)
            .await?;
        let allowance = allowed.allowance;
        let row = AllowanceRow::new(&allowance);
        self.listing(args.listing.format, &row, || say::allowance(&allowance))
            .await?;
        for request in &allowed.reviewed {
            let (id, state) = (request.id, request.state);
            self.note(&format!(
                "Request {id} was pending, and is reviewed by it. Request state: {state}"
            ))
            .await?;
        }
        self.note(&format!(
            "Take it back with `{} request allows rm {}`.",
            self.channel().prefix(),
            allowance.id
        ))
        .await?;
        Ok(Exit::Done)
    }

    /// Those that the caller gave or was given, and all for administrators of requests.
    fn allowances(&self, view: &View) -> Vec<Arc<Allowance>> {
        let (user, now) = (self.user(), self.ctx.state.now());
        let theirs = |allowance: &Allowance| {
            user.is_some_and(|user| allowance.author == *user || allowance.user == *user)
        };
        let sees = |allowance: &Allowance| {
            let object = AdminObject::RequestsOf(&allowance.user);
            theirs(allowance) || self.may(AdminVerb::Read, object)
        };
        view.allowances()
            .filter(|allowance| allowance.is_in_force(now) && sees(allowance))
            .cloned()
            .collect()
    }

    pub(crate) async fn allows_ls(&mut self, args: &AllowsLs) -> Ended {
        let view = self.ctx.state.view();
        let mut shown = self.allowances(&view);
        shown.retain(|allowance| {
            let by_me = self.user() == Some(&allowance.author);
            (!args.mine || by_me)
                && args
                    .user
                    .as_ref()
                    .is_none_or(|user| *user == allowance.user)
        });
        shown.sort_by_key(|allowance| (allowance.ends, allowance.id));
        let rows: Vec<AllowanceRow> = shown.iter().map(|one| AllowanceRow::new(one)).collect();
        self.listing(args.listing.format, &rows, || table(&shown))
            .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn allows_rm(&mut self, args: &AllowsRm) -> Ended {
        let view = self.ctx.state.view();
        let visible = self.allowances(&view);
        let mut found: Vec<AllowanceId> = Vec::new();
        for text in &args.ids {
            let id = find(&visible, text)?;
            if !found.contains(&id) {
                found.push(id);
            }
        }
        self.ctx.state.disallow(&self.by(), found.clone()).await?;
        let lines: Vec<String> = found
            .iter()
            .map(|id| format!("Pre-approval {id} is taken back."))
            .collect();
        self.print(&lines.join("\n")).await?;
        let view = self.ctx.state.view();
        let left = found.iter().flat_map(|id| still_there(&view, *id));
        let left: Vec<String> = left.collect();
        if !left.is_empty() {
            self.note(&left.join("\n")).await?;
        }
        Ok(Exit::Done)
    }
}

/// What the options name: labels of nodes, or else roles as a whole.
fn covers(args: &Allow) -> Result<Covers, Stop> {
    let mut labels = BTreeMap::new();
    for (key, value) in &args.labels {
        if labels.insert(key.clone(), value.clone()).is_some() {
            return Err(Stop::usage(format!(
                "label `{}` is given twice, and a node has it once; give two pre-approvals",
                clean(key)
            )));
        }
    }
    let roles = (!args.roles.is_empty()).then(|| args.roles.iter().cloned().collect());
    let logins = (!args.logins.is_empty()).then(|| args.logins.iter().cloned().collect());
    Ok(match (labels.is_empty(), roles) {
        (true, Some(roles)) => Covers::Roles(roles),
        (true | false, roles) => Covers::Nodes {
            labels,
            logins,
            roles,
        },
    })
}

/// The pre-approval that an ID, or the start of one, means.
fn find(visible: &[Arc<Allowance>], text: &str) -> Result<AllowanceId, Stop> {
    let text = text.to_ascii_lowercase();
    let mut found = visible
        .iter()
        .filter(|allowance| text.len() >= 4 && allowance.id.to_string().starts_with(&text));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.id),
        (Some(_), Some(_)) => Err(Stop::usage(format!(
            "`{}` is the start of several IDs of pre-approvals; write more of it",
            clean(&text)
        ))),
        (None, _) => Err(Stop::not_found(format!(
            "there is no pre-approval `{}`; `request allows ls` shows those you may see",
            clean(&text)
        ))),
    }
}

fn table(shown: &[Arc<Allowance>]) -> String {
    let mut table = Table::new(["ID", "From", "For", "Covers", "Expires", "Reason"]);
    for allowance in shown {
        table.row([
            allowance.id.to_string(),
            allowance.author.to_string(),
            allowance.user.to_string(),
            say::covers(&allowance.covers),
            say::stamp(allowance.ends),
            say::cut(&allowance.reason, 60),
        ]);
    }
    table.to_string()
}

/// What a pre-approval that was taken back leaves: what it granted stays until its end.
fn still_there(view: &View, id: AllowanceId) -> Vec<String> {
    let by_it = |request: &AccessRequest| {
        let mut reviews = request.reviews.iter();
        reviews.any(|review| review.allowance == Some(id))
    };
    let left = view.requests().filter(|request| by_it(request));
    left.filter_map(|request| {
        let what = RequestBlock::of(view, request);
        let what = if what.names.is_empty() {
            what.roles.join(",")
        } else {
            what.names.join(",")
        };
        let (id, user, what) = (request.id, &request.user, clean(&what));
        match request.state {
            RequestState::Approved => Some(format!(
                "Request {id} of {user} for {what} stays approved until {}; an administrator takes it back with `requests deny {id}`",
                say::stamp(request.access_expires)
            )),
            RequestState::Pending => Some(format!(
                "Request {id} of {user} for {what} is pending, and keeps its review"
            )),
            RequestState::Denied
            | RequestState::Expired
            | RequestState::Canceled
            | RequestState::Revoked => None,
        }
    })
    .collect()
}
