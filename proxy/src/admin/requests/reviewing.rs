//! `request review`: what a reviewer says, and on which terms.

use std::collections::BTreeSet;
use std::sync::Arc;

use anteroom_core::id::{RequestId, ResourceId};
use anteroom_core::request::{AccessRequest, Action, Effect, Terms, Verdict};
use anteroom_core::view::View;

use super::RequestRow;
use crate::admin::args::{self, ReviewTerms};
use crate::admin::io::{Caller, CommandIo};
use crate::admin::line::invalid;
use crate::admin::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::clean;

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn review(&mut self, args: args::Review) -> Ended {
        let request = self.find_for_review(&args.id).await?;
        let reason = self.check_reason(args.terms.reason.as_deref())?;
        let verdict = if args.approve {
            Verdict::Approve(self.terms(&request, &args.terms)?)
        } else {
            Verdict::Deny
        };
        if args.deny && args.terms.narrows() {
            return Err(Stop::usage(
                "`--roles`, `--resource`, `--max-duration` and `--assume-start-time` narrow an approval; leave them out with `--deny`",
            ));
        }
        let (state, effect) = match self.caller {
            Caller::Ssh {
                identity,
                remote_addr,
            } => {
                let reviewed = self
                    .ctx
                    .state
                    .review(identity, request.id, verdict, &reason, Some(*remote_addr))
                    .await?;
                (reviewed.request, reviewed.effect)
            }
            Caller::Local => {
                let action = match verdict {
                    Verdict::Approve(terms) => Action::Approve { terms, reason },
                    Verdict::Deny => Action::Deny { reason },
                };
                let request = self.ctx.state.apply(&self.by(), request.id, action).await?;
                (AccessRequest::clone(&request), Effect::Counted)
            }
        };
        let row = RequestRow::new(&state);
        self.listing(args.listing.format, &row, || {
            format!(
                "Successfully submitted review. Request state: {}",
                state.state
            )
        })
        .await?;
        match effect {
            Effect::Counted => {}
            Effect::Ineffectual => {
                self.note("The review is kept, but no threshold of the request counts it.")
                    .await?
            }
        }
        Ok(Exit::Done)
    }

    /// Who names a request by its whole ID has been told of it, and learns why she may not review it.
    async fn find_for_review(&self, id: &str) -> Result<Arc<AccessRequest>, Stop> {
        let found = self.find_request(id).await;
        match (found, RequestId::parse(&id.to_ascii_lowercase())) {
            (Err(stop @ Stop::Refused(_)), Ok(whole)) => {
                self.ctx.state.request(whole).await?.ok_or(stop)
            }
            (found, _) => found,
        }
    }

    pub(crate) fn terms(&self, request: &AccessRequest, args: &ReviewTerms) -> Result<Terms, Stop> {
        let view = self.ctx.state.view();
        let resources: Result<BTreeSet<ResourceId>, Stop> = args
            .resource
            .iter()
            .map(|text| asked_resource(&view, request, text))
            .collect();
        let resources = resources?;
        Ok(Terms {
            roles: (!args.roles.is_empty()).then(|| args.roles.iter().cloned().collect()),
            resources: (!resources.is_empty()).then_some(resources),
            max_duration: args.max_duration,
            assume_start: args.assume_start_time,
            until: None,
        })
    }
}

impl ReviewTerms {
    fn narrows(&self) -> bool {
        !self.roles.is_empty()
            || !self.resource.is_empty()
            || self.max_duration.is_some()
            || self.assume_start_time.is_some()
    }
}

/// The resource of `request` that a reviewer's argument means: a full ID as it is, a name or UUID with the logins that were asked for.
fn asked_resource(view: &View, request: &AccessRequest, text: &str) -> Result<ResourceId, Stop> {
    let usage = |error: &dyn std::fmt::Display| {
        Stop::usage(invalid(
            "--resource",
            &clean(text),
            &clean(&error.to_string()),
        ))
    };
    if text.starts_with('/') {
        let id = ResourceId::parse(text).map_err(|error| usage(&error))?;
        // Without logins it means those that were asked for.
        let asked = request
            .reach
            .resources()
            .find(|asked| (*asked).clone().without_logins() == id);
        return Ok(asked.cloned().unwrap_or(id));
    }
    let named = |asked: &&ResourceId| {
        let node = asked.node_id().and_then(|id| view.node(&id));
        asked.name() == text
            || asked.short() == text
            || node.is_some_and(|node| node.name.as_str() == text)
    };
    let mut found = request.reach.resources().filter(named);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.clone()),
        (Some(_), Some(_)) => Err(Stop::usage(format!(
            "`{}` is the name of several resources of the request; write the full resource ID",
            clean(text)
        ))),
        (None, _) => Err(Stop::usage(format!(
            "`{}` is not among the resources of the request; `request show {}` lists them",
            clean(text),
            request.id
        ))),
    }
}
