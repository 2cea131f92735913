//! `login`, and what `request drop` does with a certificate: the certificate alone on standard output, everything else
//! on standard error, so that `c=$(ssh access login)` holds nothing but what goes into the file.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anteroom_core::id::RequestId;
use anteroom_core::policy::{Identity, LoginRefused, LoginWanted, Reason};
use anteroom_core::request::{Filed, FilingError, State as RequestState, Wanted};

use super::args::person::LogIn;
use super::args::requests::DropRequests;
use super::io::{Caller, CommandIo};
use super::requests::{Answer, exit_of};
use super::run::{Ended, Run, Stop, store_exit};
use crate::exit::Exit;
use crate::say::{self, RequestBlock, clean};
use crate::state::{Dropping, FileError, LoggedIn, LoginError};

impl From<LoginError> for Stop {
    fn from(error: LoginError) -> Self {
        let exit = match &error {
            LoginError::Store(error) => return Self::new(store_exit(error), error),
            LoginError::Clock(_) | LoginError::Authority(_) => Exit::Unavailable,
            LoginError::Certify(_) => Exit::Failed,
            LoginError::Request(_) => Exit::Denied,
            LoginError::Refused(refused) => exit_of_refusal(refused),
        };
        Self::by_state(exit, clean(&error.to_string()))
    }
}

fn exit_of_refusal(refused: &LoginRefused) -> Exit {
    match refused {
        LoginRefused::NoSuchRequest(_) => Exit::NotFound,
        LoginRefused::NotApproved {
            state: RequestState::Pending,
            ..
        }
        | LoginRefused::NotYet { .. }
        | LoginRefused::Over { .. }
        | LoginRefused::NothingLeft(_)
        | LoginRefused::Refused(Reason::CertificateEnded) => Exit::Pending,
        LoginRefused::SeveralResourceRequests(..)
        | LoginRefused::NoCertificate
        | LoginRefused::NotInCertificate(_) => Exit::Usage,
        LoginRefused::Refused(_)
        | LoginRefused::NotApproved { .. }
        | LoginRefused::NotHeld(_)
        | LoginRefused::NoLongerRequestable { .. } => Exit::Denied,
    }
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn login(&mut self, args: LogIn) -> Ended {
        let (identity, from) = self.person("login")?;
        let mut requests = BTreeSet::new();
        for id in &args.request_id {
            requests.insert(self.find_request(id).await?.id);
        }
        if !args.request_roles.is_empty() {
            match self.ask_for_roles(&identity, &args).await? {
                Asked::Approved(id) => requests.extend([id]),
                Asked::Later => {}
                Asked::Not(exit) => return Ok(exit),
            }
        }
        let wanted = LoginWanted {
            requests,
            ttl: args.ttl,
            from: Some(from.ip().to_canonical()),
            fresh_key: None,
        };
        if args.agent {
            return self.login_by_agent(&identity, wanted, from).await;
        }
        let issued = self.ctx.state.login(&identity, wanted, from).await?;
        self.hand_out(&issued).await
    }

    /// `request drop` by somebody who came with a certificate.
    pub(crate) async fn drop_from_certificate(&mut self, args: &DropRequests) -> Ended {
        let (identity, from) = self.person("request drop")?;
        let mut requests = BTreeSet::new();
        for id in &args.ids {
            requests.insert(self.find_request(id).await?.id);
        }
        let carried = identity.credential().map(|held| held.claims.requests.len());
        if carried == Some(0) {
            self.note("No access request is in your certificate; it is printed anew as it is.")
                .await?;
        }
        let what = if args.ids.is_empty() {
            "all active access requests"
        } else {
            "access requests"
        };
        self.note(&format!("Dropping {what}...")).await?;
        let dropping = Dropping {
            requests,
            end: args.end,
        };
        let issued = self
            .ctx
            .state
            .drop_from_certificate(&identity, dropping, from)
            .await?;
        self.hand_out(&issued).await
    }

    pub(super) async fn hand_out(&mut self, issued: &LoggedIn) -> Ended {
        self.print(issued.certificate.to_openssh()).await?;
        let from = match self.caller {
            Caller::Ssh { remote_addr, .. } => remote_addr.ip(),
            Caller::Local => return Err(Stop::usage("only a user can log in")),
        };
        let status = self.status_of_certificate(issued, from);
        self.note(&status).await?;
        Ok(Exit::Done)
    }

    fn person(&self, command: &str) -> Result<(Identity, SocketAddr), Stop> {
        let identity = self.identity(command)?.clone();
        match self.caller {
            Caller::Ssh { remote_addr, .. } => Ok((identity, *remote_addr)),
            Caller::Local => Err(Stop::usage("only a user can log in")),
        }
    }

    /// Files a request for roles, or finds the one there is, and waits for its end unless that is not wanted.
    async fn ask_for_roles(&mut self, identity: &Identity, args: &LogIn) -> Result<Asked, Stop> {
        let patience = self.patience(args.request_nowait)?;
        let mut wanted = Wanted::roles(args.request_roles.iter().cloned().collect());
        wanted.scope = self.scope(None, None, "a request for roles")?;
        let sent = self.io.environment();
        let reason = args.request_reason.as_deref().or(sent.reason.as_deref());
        wanted.reason = self.check_reason(reason)?;
        wanted.reviewers = sent.reviewers().map_err(Stop::usage)?;
        if let Caller::Ssh { remote_addr, .. } = self.caller {
            wanted.remote_addr = Some(remote_addr.ip().to_canonical().to_string());
        }
        if args.request_reason.is_none() {
            match self.ask_reason(identity, &wanted).await? {
                Some(reason) => wanted.reason = reason,
                None => return Ok(Asked::Not(Exit::Interrupted)),
            }
        }
        // Subscribed before anything is filed, so that no answer is missed.
        let mut changes = self.ctx.state.changes();
        let filed = self.ctx.state.file(identity, wanted.clone()).await;
        let id = match filed.map_err(filing_refused)? {
            Filed::New(new) => {
                let view = self.ctx.state.view();
                let block = RequestBlock::for_requester(&view, &new.request).render();
                self.note(&format!("{}\n{block}", say::CREATING)).await?;
                new.request.id
            }
            Filed::Joined(id) => {
                let request = self.ctx.state.request(id).await?;
                let request = request
                    .ok_or_else(|| Stop::not_found(say::request_deleted(&id.to_string())))?;
                let said = say::joined(&request, Some(&wanted.reason), &wanted.reviewers);
                self.note(&said).await?;
                id
            }
            Filed::Covered(id) => return Ok(Asked::Approved(id)),
        };
        if patience == Some(Duration::ZERO) {
            return self.leave_it(id).await;
        }
        self.note(&say::seeking(&id.to_string())).await?;
        if let Some(request) = self.ctx.state.view().request(&id)
            && request.state == RequestState::Pending
        {
            let line = self.waiting_line(request);
            self.note(&line).await?;
        }
        match self.answer(id, &mut changes, patience).await? {
            Answer::Given { request, said } => {
                self.note(&said).await?;
                let exit = exit_of(request.state);
                Ok(if exit == Exit::Done {
                    Asked::Approved(id)
                } else {
                    Asked::Not(exit)
                })
            }
            Answer::Open(request) => {
                let said = say::left_pending(&request.id.to_string());
                self.note(&said).await?;
                Ok(Asked::Not(Exit::Pending))
            }
        }
    }

    /// Nobody waits for the answer, unless a rule has given it already.
    async fn leave_it(&mut self, id: RequestId) -> Result<Asked, Stop> {
        let request = self.ctx.state.request(id).await?;
        let now = self.ctx.state.now();
        if let Some(request) = &request
            && let Some(said) = say::outcome(request, now)
        {
            self.note(&said).await?;
            let usable = request.state == RequestState::Approved && request.starts() <= now;
            return Ok(if usable {
                Asked::Approved(id)
            } else {
                Asked::Later
            });
        }
        self.note(&say::certificate_without(&id.to_string()))
            .await?;
        Ok(Asked::Later)
    }
}

/// The option for the reason has a name of its own here.
fn filing_refused(error: FileError) -> Stop {
    match error {
        FileError::Refused(FilingError::ReasonRequired { prompt }) => Stop::by_state(
            Exit::Usage,
            say::reason_required_at_login(prompt.as_deref()),
        ),
        FileError::Refused(_)
        | FileError::TooOften { .. }
        | FileError::NotAdmitted(_)
        | FileError::FromNode(_)
        | FileError::Store(_) => error.into(),
    }
}

/// What became of a wish for roles.
enum Asked {
    /// The request may go into the certificate.
    Approved(RequestId),
    /// The certificate goes without it.
    Later,
    /// No certificate: the status to leave with.
    Not(Exit),
}
