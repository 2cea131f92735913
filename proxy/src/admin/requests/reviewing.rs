//! `request review`: what a reviewer says, and on which terms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anteroom_core::id::{Login, RequestId, ResourceId};
use anteroom_core::request::{AccessRequest, Action, Effect, Terms, Verdict};
use anteroom_core::target::Target;
use anteroom_core::view::View;

use super::RequestRow;
use crate::admin::args;
use crate::admin::args::requests::ReviewTerms;
use crate::admin::io::{Caller, CommandIo};
use crate::admin::line::complaint::invalid;
use crate::admin::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::clean;

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn review(&mut self, args: args::requests::Review) -> Ended {
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
        let resources = merged(resources?);
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

/// The resource of `request` that a reviewer's argument means: a full ID, a name or UUID, each also with `?logins=`, or
/// `LOGIN@NODE`. Without logins it means those that were asked for.
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
        let mut asked = request.reach.resources();
        let asked = asked.find(|asked| (*asked).clone().without_logins() == id);
        return Ok(asked.cloned().unwrap_or(id));
    }
    if let Some((name, logins)) = text.split_once("?logins=") {
        let id = named_resource(view, request, name)?.without_logins();
        return ResourceId::parse(&format!("{id}?logins={logins}")).map_err(|error| usage(&error));
    }
    match (named_resource(view, request, text), text.contains('@')) {
        (Err(_), true) => {
            let target = Target::parse(text).map_err(|error| usage(&error))?;
            let id = named_resource(view, request, &target.node.to_string())?.without_logins();
            let logins = BTreeSet::from([target.login]);
            id.with_logins(logins)
                .ok_or_else(|| usage(&"only a node has logins"))
        }
        (found, _) => found,
    }
}

/// The one resource of `request` of that name or UUID.
fn named_resource(view: &View, request: &AccessRequest, text: &str) -> Result<ResourceId, Stop> {
    let named = |asked: &&ResourceId| {
        let node = asked.node_id().and_then(|id| view.node(&id));
        let name = text.strip_prefix("node/").unwrap_or(text);
        asked.name() == text
            || asked.short() == text
            || (*asked).clone().without_logins().to_string() == text
            || node.is_some_and(|node| node.name.as_str() == name)
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

/// One ID per resource, with the logins of all that name it: `root@iot` and `deploy@iot` are one node.
fn merged(ids: BTreeSet<ResourceId>) -> BTreeSet<ResourceId> {
    let mut merged: BTreeMap<ResourceId, Option<BTreeSet<Login>>> = BTreeMap::new();
    for id in ids {
        let logins = id.logins().cloned();
        merged
            .entry(id.without_logins())
            .and_modify(|known| match (&mut *known, &logins) {
                (Some(known), Some(more)) => known.extend(more.iter().cloned()),
                (None, _) | (_, None) => *known = None,
            })
            .or_insert(logins);
    }
    let narrowed = |(id, logins): (ResourceId, Option<BTreeSet<Login>>)| match logins {
        Some(logins) => id.with_logins(logins),
        None => Some(id),
    };
    merged.into_iter().filter_map(narrowed).collect()
}
