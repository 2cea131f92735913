//! `requests …`: what administrators of requests do.

use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::id::{RequestId, UserName};
use anteroom_core::policy;
use anteroom_core::request::{
    self, AccessRequest, Action, Annotations, Filed, FilingError, Mandate, State as RequestState,
    Terms,
};
use serde::Serialize;
use uuid::Uuid;

use super::args::requests::{
    Capabilities, CreateFor, Decide, Deny, MandateArgs, OneRequest, RequestsLs, RmRequests,
};
use super::io::CommandIo;
use super::requests::{Known, Shown, strings};
use super::run::{Ended, Run, Stop};
use crate::exit::{Exit, Exits};
use crate::say::{self, clean};
use crate::state::FileError;
use crate::store;

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn requests_ls(&mut self, args: &RequestsLs) -> Ended {
        self.require_some(AdminVerb::List, AdminResource::AccessRequest)?;
        let ended = store::Ended {
            whose: store::Whose::Everybodys,
            how: args.state.clone(),
            suggested: None,
        };
        let mut all = self.requests_and(&[ended]).await?;
        let view = self.ctx.state.view();
        let mandate = self.mandate(&view, AdminVerb::List, AdminResource::AccessRequest);
        all.requests
            .retain(|request| mandate.covers(AdminObject::AccessRequest(request)));
        all.requests
            .retain(|request| args.state.is_empty() || args.state.contains(&request.state));
        self.list_requests(&all, args.listing.format).await
    }

    pub(crate) async fn requests_get(&mut self, args: &OneRequest) -> Ended {
        let request = self.administered(AdminVerb::Read, &args.id).await?;
        self.show_request(&request, args.listing.format).await
    }

    pub(crate) async fn requests_approve(&mut self, args: Decide) -> Ended {
        self.require_some(AdminVerb::Update, AdminResource::AccessRequest)?;
        let reason = self.check_reason(args.terms.reason.as_deref())?;
        let mandate = mandate(&args.mandate);
        for request in self.find_each(AdminVerb::Update, &args.ids).await? {
            let terms = self.terms(&request, &args.terms)?;
            let action = approval(&request, terms, reason.clone());
            let overrides = matches!(action, Action::Override { .. });
            let request = self
                .ctx
                .state
                .apply_for(&self.by(), request.id, action, mandate.clone())
                .await?;
            let with = match &request.granted {
                Some(granted) if overrides => {
                    format!(" with {}", strings(&granted.roles).join(","))
                }
                Some(_) | None => String::new(),
            };
            self.print(&format!(
                "Request {} is approved{with}. Request state: {}",
                request.id, request.state
            ))
            .await?;
        }
        Ok(Exit::Done)
    }

    pub(crate) async fn requests_deny(&mut self, args: &Deny) -> Ended {
        self.require_some(AdminVerb::Update, AdminResource::AccessRequest)?;
        let reason = self.check_reason(args.reason.as_deref())?;
        let mandate = mandate(&args.mandate);
        for request in self.find_each(AdminVerb::Update, &args.ids).await? {
            let action = Action::Deny {
                reason: reason.clone(),
            };
            let request = self
                .ctx
                .state
                .apply_for(&self.by(), request.id, action, mandate.clone())
                .await?;
            self.print(&format!(
                "Request {} is denied. Request state: {}",
                request.id, request.state
            ))
            .await?;
        }
        Ok(Exit::Done)
    }

    /// Takes back or refuses what is alive. The row stays: what was granted to whom belongs to the record.
    pub(crate) async fn requests_rm(&mut self, args: &RmRequests) -> Ended {
        self.require_some(AdminVerb::Delete, AdminResource::AccessRequest)?;
        let reason = self.check_reason(args.reason.as_deref())?;
        for request in self.find_each(AdminVerb::Delete, &args.ids).await? {
            match request.state {
                RequestState::Approved | RequestState::Pending => {}
                RequestState::Denied
                | RequestState::Expired
                | RequestState::Canceled
                | RequestState::Revoked => {
                    let text = format!(
                        "request {} is {} already; nothing is left to remove but its record, which stays",
                        request.id, request.state
                    );
                    return Err(Stop::new(Exit::Failed, text));
                }
            }
            let request = self
                .ctx
                .state
                .take_away(&self.by(), request.id, reason.clone())
                .await?;
            self.print(&format!(
                "Request {} is removed. Request state: {}",
                request.id, request.state
            ))
            .await?;
        }
        Ok(Exit::Done)
    }

    /// Files for somebody what she could ask for herself.
    pub(crate) async fn requests_create(&mut self, args: CreateFor) -> Ended {
        self.require_some(AdminVerb::Create, AdminResource::AccessRequest)?;
        let view = self.ctx.state.view();
        self.known_user(&args.user)?;
        let mut wanted = self.wanted(&args.wish, Known::ToAdministrators)?;
        wanted.scope = self.scope(None, None, "what is filed for somebody")?;
        wanted.annotations = annotations(&args.annotations);
        let format = args.listing.format;
        if args.dry_run {
            let id = RequestId::from_uuid(Uuid::new_v4());
            let (by, now) = (self.by(), self.ctx.state.now());
            let filed = request::file_for(&view, &args.user, &by.actor, &wanted, id, now);
            let filed = filed.map_err(|error| self.filing_for_refused(&args.user, error.into()))?;
            return self.say_dry_run(&view, &wanted, filed, format).await;
        }
        let by = self.by();
        let filing = self.ctx.state.file_for(&by, &args.user, wanted.clone());
        let filed = filing
            .await
            .map_err(|error| self.filing_for_refused(&args.user, error))?;
        self.say_filed(&filed, &wanted, format, Shown::AtOnce)
            .await?;
        if let Filed::New(new) = &filed
            && new.request.key.is_none()
        {
            self.note(&format!(
                "`{user}` has several keys, and what is granted belongs to one: with it, {user} gives `request assume {}` once it is approved.",
                new.request.id,
                user = args.user,
            ))
            .await?;
        }
        Ok(Exit::Done)
    }

    /// Why nothing was filed for `user`, to the administrator who wanted it.
    fn filing_for_refused(&self, user: &UserName, error: FileError) -> Stop {
        let FileError::Refused(refused) = &error else {
            return error.into();
        };
        let view = self.ctx.state.view();
        match say::filing_for(&view, user, refused) {
            Some(said) => {
                let exit = if let FilingError::UnknownResource(id) = refused
                    && say::name_of(&view, id).is_some()
                {
                    Exit::Denied
                } else {
                    refused.exit()
                };
                Stop::by_state(exit, said)
            }
            None => error.into(),
        }
    }

    fn known_user(&self, user: &UserName) -> Result<(), Stop> {
        match self.ctx.state.view().user(user) {
            Some(_) => Ok(()),
            None => Err(Stop::not_found(format!(
                "there is no user `{user}`; `users ls` shows all"
            ))),
        }
    }

    /// What a user could ask for, whom her roles suggest, and through which roles she searches.
    pub(crate) async fn requests_capabilities(&mut self, args: &Capabilities) -> Ended {
        self.require_some(AdminVerb::Read, AdminResource::AccessRequest)?;
        self.known_user(&args.user)?;
        self.require(AdminVerb::Read, AdminObject::RequestsOf(&args.user))?;
        let view = self.ctx.state.view();
        let found = policy::request_capabilities(&view, &args.user, self.ctx.state.now());
        let row = CapabilitiesRow {
            user: args.user.to_string(),
            requestable_roles: found.roles.iter().map(ToString::to_string).collect(),
            suggested_reviewers: strings(&found.suggested_reviewers),
            search_as_roles: found
                .search_as_roles
                .iter()
                .map(ToString::to_string)
                .collect(),
            require_reason: found.reason_required,
        };
        self.listing(args.listing.format, &row, || row.to_text())
            .await?;
        Ok(Exit::Done)
    }

    /// The request that an argument means, of those that the caller administers, if she may do `verb` with it.
    async fn administered(
        &self,
        verb: AdminVerb,
        prefix: &str,
    ) -> Result<Arc<AccessRequest>, Stop> {
        self.require_some(verb, AdminResource::AccessRequest)?;
        let known = |request: &AccessRequest| self.knows(AdminObject::AccessRequest(request));
        let found = self
            .ctx
            .state
            .find_request(&prefix.to_ascii_lowercase(), known)
            .await??;
        self.require(verb, AdminObject::AccessRequest(&found))?;
        Ok(found)
    }

    /// All of them, before anything is done to the first.
    async fn find_each(
        &self,
        verb: AdminVerb,
        ids: &[String],
    ) -> Result<Vec<Arc<AccessRequest>>, Stop> {
        let mut found: Vec<Arc<AccessRequest>> = Vec::new();
        for id in ids {
            let request = self.administered(verb, id).await?;
            if !found.iter().any(|other| other.id == request.id) {
                found.push(request);
            }
        }
        Ok(found)
    }
}

/// What `requests capabilities` shows; names as tctl's where it has one.
#[derive(Debug, Serialize)]
struct CapabilitiesRow {
    user: String,
    requestable_roles: Vec<String>,
    suggested_reviewers: Vec<String>,
    search_as_roles: Vec<String>,
    require_reason: bool,
}

impl CapabilitiesRow {
    fn to_text(&self) -> String {
        let list = |items: &[String]| {
            if items.is_empty() {
                "[none]".to_owned()
            } else {
                clean(&items.join(", ")).into_owned()
            }
        };
        let lines = [
            ("User", self.user.clone()),
            ("Requestable Roles", list(&self.requestable_roles)),
            ("Searches As", list(&self.search_as_roles)),
            ("Suggested Reviewers", list(&self.suggested_reviewers)),
            (
                "Reason",
                if self.require_reason {
                    "required"
                } else {
                    "optional"
                }
                .to_owned(),
            ),
        ];
        let lines = lines.map(|(label, value)| format!("{:<21}{value}", format!("{label}:")));
        lines.join("\n")
    }
}

/// An approval on these terms; with roles that were not asked for it is one of its own kind.
fn approval(request: &AccessRequest, terms: Terms, reason: String) -> Action {
    match &terms.roles {
        Some(roles) if !roles.is_subset(&request.roles) => Action::Override {
            roles: roles.clone(),
            terms: Terms {
                roles: None,
                ..terms.clone()
            },
            reason,
        },
        Some(_) | None => Action::Approve { terms, reason },
    }
}

fn mandate(args: &MandateArgs) -> Mandate {
    Mandate {
        delegator: args.delegator.clone(),
        annotations: annotations(&args.annotations),
    }
}

fn annotations(pairs: &[(String, String)]) -> Annotations {
    let mut out = Annotations::new();
    for (key, value) in pairs {
        out.entry(key.clone()).or_default().insert(value.clone());
    }
    out
}
