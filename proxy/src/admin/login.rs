//! `login`, and what `request drop` does with a certificate: the certificate alone on standard output, everything else
//! on standard error, so that `c=$(ssh access login)` holds nothing but what goes into the file.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anteroom_core::id::RequestId;
use anteroom_core::policy::{Identity, LoginRefused, LoginWanted, Reason};
use anteroom_core::request::{Filed, State as RequestState, Wanted};

use super::args::{DropRequests, LogIn};
use super::io::{Caller, CommandIo, Leave};
use super::requests::exit_of;
use super::run::{Ended, Run, Stop, store_exit};
use crate::exit::Exit;
use crate::say::{self, Audience, RequestBlock, clean};
use crate::state::{Dropping, FileError, LoggedIn, LoginError};
use crate::store::StoreError;

impl From<LoginError> for Stop {
    fn from(error: LoginError) -> Self {
        let exit = match &error {
            LoginError::Store(error) => return Self::new(store_exit(error), error),
            LoginError::Clock(_) => Exit::Unavailable,
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
        let issued = self
            .ctx
            .state
            .login(&identity, wanted, from, &self.ctx.user_ca)
            .await?;
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
            .drop_from_certificate(&identity, dropping, from, &self.ctx.user_ca)
            .await?;
        self.hand_out(&issued).await
    }

    pub(super) async fn hand_out(&mut self, issued: &LoggedIn) -> Ended {
        self.print(issued.certificate.to_openssh()).await?;
        let status = self.status_of_certificate(issued);
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

    /// Files a request for roles, or finds the one there is, and waits for its end.
    async fn ask_for_roles(&mut self, identity: &Identity, args: &LogIn) -> Result<Asked, Stop> {
        let mut wanted = Wanted::roles(args.request_roles.iter().cloned().collect());
        wanted.reason = args.request_reason.clone().unwrap_or_default();
        if let Caller::Ssh { remote_addr, .. } = self.caller {
            wanted.remote_addr = Some(remote_addr.ip().to_canonical().to_string());
        }
        // Subscribed before anything is filed, so that no answer is missed.
        let mut changes = self.ctx.state.changes();
        let filed = self.ctx.state.file(identity, wanted).await;
        let id = match filed.map_err(|error: FileError| Stop::from(error))? {
            Filed::New(new) => {
                let view = self.ctx.state.view();
                let block = RequestBlock::for_requester(&view, &new.request).render();
                self.note(&format!("{}\n{block}", say::CREATING)).await?;
                new.request.id
            }
            Filed::Joined(id) => {
                self.note(&say::joining(&id.to_string())).await?;
                id
            }
            Filed::Covered(id) => return Ok(Asked::Approved(id)),
        };
        if args.request_nowait {
            self.note(&format!(
                "When it is approved: ssh access login --request-id {id}"
            ))
            .await?;
            return Ok(Asked::Not(Exit::Pending));
        }
        let _waiting = self.ctx.waiting.enter(id);
        let mut said = false;
        loop {
            changes.borrow_and_update();
            let request = self.ctx.state.request(id).await?;
            let request = request.ok_or_else(|| Stop::not_found("the request was removed"))?;
            let now = self.ctx.state.now();
            if let Some(outcome) = say::outcome(&request, now) {
                self.note(&outcome).await?;
                let exit = exit_of(request.state);
                return Ok(if exit == Exit::Done {
                    Asked::Approved(id)
                } else {
                    Asked::Not(exit)
                });
            }
            if !said {
                said = true;
                let line = say::waiting(request.request_expires - now, Audience::Program);
                self.note(&line).await?;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return Err(StoreError::Stopped.into());
                },
                left = self.io.gone() => match left {
                    Leave::Disconnected => return Err(Stop::Gone),
                    Leave::Interrupted => {
                        self.note(&say::left_pending(&id.to_string())).await?;
                        return Ok(Asked::Not(Exit::Pending));
                    }
                },
            }
        }
    }
}

/// What became of a wish for roles.
enum Asked {
    /// The request may go into the certificate.
    Approved(RequestId),
    /// No certificate: the status to leave with.
    Not(Exit),
}
