//! `request drop`, `assume` and `cancel`: what a requester does with requests of her own.

use std::sync::Arc;

use anteroom_core::id::KeyFingerprint;
use anteroom_core::policy::Identity;
use anteroom_core::request::{AccessRequest, Action, State as RequestState};

use super::RequestRow;
use crate::admin::args::requests::{DropRequests, OneRequest};
use crate::admin::io::{Caller, CommandIo};
use crate::admin::run::{Ended, Run, Stop};
use crate::exit::Exit;

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn drop_requests(&mut self, args: &DropRequests) -> Ended {
        if matches!(self.caller, Caller::Ssh { identity, .. } if identity.credential().is_some()) {
            return self.drop_from_certificate(args).await;
        }
        let mut named = Vec::new();
        for id in &args.ids {
            named.push(self.find_request(id).await?);
        }
        let identity = self.identity("request drop")?.clone();
        let requests = if args.ids.is_empty() {
            self.active(&identity)
        } else {
            named
        };
        let what = if args.ids.is_empty() {
            "all active access requests"
        } else {
            "access requests"
        };
        if requests.is_empty() {
            self.note("No access request is active; there is nothing to drop.")
                .await?;
            return Ok(Exit::Done);
        }
        self.note(&format!("Dropping {what}...")).await?;
        for request in requests {
            let action = if args.end {
                Action::End
            } else {
                Action::Drop {
                    key: identity.key().clone(),
                }
            };
            self.ctx.state.apply(&self.by(), request.id, action).await?;
        }
        let status = self.status_text(&identity);
        self.note(&status).await?;
        Ok(Exit::Done)
    }

    /// The approved requests that the caller's key holds and that are open now.
    pub(crate) fn active(&self, identity: &Identity) -> Vec<Arc<AccessRequest>> {
        let now = self.ctx.state.now();
        let mut held = self.held(identity);
        held.retain(|request| request.is_open(now));
        held
    }

    /// Those of them that open later.
    pub(crate) fn scheduled(&self, identity: &Identity) -> Vec<Arc<AccessRequest>> {
        let now = self.ctx.state.now();
        let mut held = self.held(identity);
        held.retain(|request| now < request.starts());
        held
    }

    /// The approved requests that the caller's key holds and whose time has not run out.
    fn held(&self, identity: &Identity) -> Vec<Arc<AccessRequest>> {
        let now = self.ctx.state.now();
        let view = self.ctx.state.view();
        let live = view.live_requests_of(identity.user());
        live.filter(|request| {
            request.is_held_by(identity.key())
                && identity
                    .credential()
                    .is_none_or(|held| held.claims.requests.contains(&request.id))
                && request.state == RequestState::Approved
                && now < request.access_expires
        })
        .cloned()
        .collect()
    }

    pub(crate) async fn assume(&mut self, args: &OneRequest) -> Ended {
        let request = self.find_request(&args.id).await?;
        let key = self.identity("request assume")?.key().clone();
        self.own(&request, "assumed")?;
        if self.in_effect(&request, &key) {
            let id = request.id;
            self.listing(args.listing.format, &RequestRow::new(&request), || {
                format!("Request {id} is already in effect for this key.")
            })
            .await?;
            return Ok(Exit::Done);
        }
        let request = self
            .ctx
            .state
            .apply(&self.by(), request.id, Action::Assume { key })
            .await?;
        let id = request.id;
        self.listing(args.listing.format, &RequestRow::new(&request), || {
            format!("Request {id} is in effect for this key.")
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn cancel(&mut self, args: &OneRequest) -> Ended {
        let request = self.find_request(&args.id).await?;
        self.identity("request cancel")?;
        self.own(&request, "canceled")?;
        let request = self
            .ctx
            .state
            .apply(&self.by(), request.id, Action::Cancel)
            .await?;
        let (id, state) = (request.id, request.state);
        self.listing(args.listing.format, &RequestRow::new(&request), || {
            format!("Request {id} is canceled. Request state: {state}")
        })
        .await?;
        Ok(Exit::Done)
    }

    /// Whether the request gives something to the key, or certificate, that the caller came with.
    fn in_effect(&self, request: &AccessRequest, key: &KeyFingerprint) -> bool {
        let shown = match self.caller {
            Caller::Ssh { identity, .. } => identity.credential(),
            Caller::Local => None,
        };
        let named = shown.is_none_or(|held| held.claims.requests.contains(&request.id));
        named && request.is_open(self.ctx.state.now()) && request.is_held_by(key)
    }

    fn own(&self, request: &AccessRequest, action: &str) -> Result<(), Stop> {
        if self.user().is_some_and(|user| *user == request.user) {
            return Ok(());
        }
        Err(Stop::denied(format!(
            "request {} was filed by {}; only its requester can have it {action}",
            request.id, request.user
        )))
    }
}
