//! `request create`: what is wanted, what becomes of it, and the wait for an answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anteroom_core::id::{RequestId, ResourceId, UserName};
use anteroom_core::policy::Identity;
use anteroom_core::request::{
    self, AccessRequest, AutomaticReview, Filed, FilingError, Scope, State as RequestState, Wanted,
};
use anteroom_core::resource::Kind;
use anteroom_core::target::{NodeRef, Target};
use anteroom_core::view::View;
use uuid::Uuid;

use super::{RequestRow, exit_of};
use crate::admin::args::{CreateRequest, Format, ScopeName, Wish};
use crate::admin::io::{Caller, CommandIo, Leave, Typed};
use crate::admin::line::invalid;
use crate::admin::resources::no_such_resource;
use crate::admin::run::{Ended, Run, Stop, some};
use crate::exit::Exit;
use crate::say::{self, Audience, RequestBlock, clean};
use crate::state::FileError;
use crate::store::StoreError;

/// How long a prompt for a reason waits for its answer; a terminal that nobody sits at (`ssh -tt` in a script) must not hang.
const PROMPT: Duration = Duration::from_secs(60);

/// Among which nodes a name is looked up.
#[derive(Debug, Clone, Copy)]
pub(in crate::admin) enum Known {
    /// Those that the caller may know.
    ToTheCaller,
    /// All.
    ToAdministrators,
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn create_request(&mut self, args: CreateRequest) -> Ended {
        let identity = self.identity("request create")?.clone();
        let mut wanted = self.wanted(&args.wish, Known::ToTheCaller)?;
        if let (Some(ScopeName::Command), Some(command)) = (args.scope, &args.command) {
            wanted.scope = Scope::Command(command.clone());
        }
        let prompted = args.wish.reason.is_none() && !args.dry_run && self.io.terminal().is_some();
        if prompted {
            match self.prompt_reason().await? {
                Some(reason) => wanted.reason = reason,
                None => return Ok(Exit::Interrupted),
            }
        }
        if args.dry_run {
            return self.dry_run(&identity, &wanted, args.listing.format).await;
        }
        // Subscribed before anything is filed, so that no answer is missed.
        let changes = self.ctx.state.changes();
        let filed = match self.ctx.state.file(&identity, wanted).await {
            Ok(filed) => filed,
            Err(error) => return Err(self.filing_refused(error)),
        };
        let request = self.say_filed(&filed, args.listing.format).await?;
        match filed {
            Filed::Covered(_) => Ok(Exit::Done),
            Filed::New(_) | Filed::Joined(_) if args.nowait => Ok(Exit::Done),
            Filed::New(_) | Filed::Joined(_) => {
                self.wait(request, changes, args.listing.format).await
            }
        }
    }

    /// What the options ask for. Names are looked up among the nodes that `whose` says; whether it
    /// may be asked for is decided when it is filed.
    pub(crate) fn wanted(&self, wish: &Wish, whose: Known) -> Result<Wanted, Stop> {
        let view = self.ctx.state.view();
        let roles: BTreeSet<_> = wish.asked.roles.iter().cloned().collect();
        let ids: Result<BTreeSet<ResourceId>, Stop> = wish
            .asked
            .named()
            .map(|text| self.wanted_resource(&view, text, whose))
            .collect();
        let ids = ids?;
        let mut wanted = if ids.is_empty() {
            Wanted::roles(roles)
        } else {
            Wanted {
                roles,
                ..Wanted::resources(ids)
            }
        };
        wanted.reason = self.check_reason(wish.reason.as_deref())?;
        wanted.reviewers = wish.reviewers.iter().cloned().collect();
        wanted.remote_addr = match self.caller {
            // The port says nothing to a reviewer.
            Caller::Ssh { remote_addr, .. } => Some(remote_addr.ip().to_canonical().to_string()),
            Caller::Local => None,
        };
        wanted.request_ttl = wish.request_ttl;
        wanted.session_ttl = wish.session_ttl;
        wanted.max_duration = wish.max_duration;
        wanted.assume_start = wish.assume_start_time;
        Ok(wanted)
    }

    /// A full ID, a UUID, a name, or `LOGIN@NODE` for one login.
    fn wanted_resource(&self, view: &View, text: &str, whose: Known) -> Result<ResourceId, Stop> {
        let usage = |error: &dyn std::fmt::Display| {
            Stop::usage(invalid(
                "--resource",
                &clean(text),
                &clean(&error.to_string()),
            ))
        };
        if text.starts_with('/') {
            return ResourceId::parse(text).map_err(|error| usage(&error));
        }
        let node = text.strip_prefix("node/");
        let may_be_another = node.is_none() && !text.contains('@');
        // A bare name is a node's first.
        let known_node =
            || NodeRef::parse(text).is_ok_and(|node| self.resolve(view, &node).is_ok());
        if may_be_another
            && !known_node()
            && let Some(id) = self.named_resource(view, text)?
        {
            return Ok(id);
        }
        let text = node.unwrap_or(text);
        let (login, node) = if text.contains('@') {
            let target = Target::parse(text).map_err(|error| usage(&error))?;
            (Some(target.login), target.node)
        } else {
            (None, NodeRef::parse(text).map_err(|error| usage(&error))?)
        };
        let id = match whose {
            Known::ToTheCaller => self.resolve(view, &node)?.id,
            Known::ToAdministrators => self.resolve_any(view, &node)?.id,
        };
        Ok(match login {
            Some(login) => ResourceId::node_login(view.cluster().clone(), id, login),
            None => ResourceId::node(view.cluster().clone(), id),
        })
    }

    /// `None` when the one at the terminal leaves.
    async fn prompt_reason(&mut self) -> Result<Option<String>, Stop> {
        match tokio::time::timeout(PROMPT, self.io.read_line(say::REASON_PROMPT)).await {
            Ok(Typed::Line(line)) => self.check_reason(Some(&line)).map(Some),
            Ok(Typed::Interrupted) => Ok(None),
            // Nobody answered: whether a reason is needed is for the roles to say.
            Ok(Typed::End) | Err(_) => Ok(Some(String::new())),
        }
    }

    pub(crate) fn filing_refused(&self, error: FileError) -> Stop {
        match &error {
            FileError::Refused(FilingError::UnknownResource(id)) => {
                if let Some((_, name)) = id.registered().filter(|_| id.kube_object().is_none()) {
                    return no_such_resource(id.kind().searched_as(), name);
                }
                let name = id.name().to_owned();
                let shown = if id.cluster() == self.ctx.state.cluster() {
                    name
                } else {
                    id.to_string()
                };
                if id.kube_object().is_some() {
                    return no_such_resource(&id.kind().to_string(), &shown);
                }
                Stop::not_found(say::no_such_node(&shown))
            }
            FileError::Refused(_)
            | FileError::NotAllowed
            | FileError::NotAdmitted(_)
            | FileError::FromNode(_)
            | FileError::Store(_) => error.into(),
        }
    }

    async fn dry_run(&mut self, identity: &Identity, wanted: &Wanted, format: Format) -> Ended {
        let view = self.ctx.state.view();
        let id = RequestId::from_uuid(Uuid::new_v4());
        let filed = request::file(&view, identity, wanted, id, self.ctx.state.now());
        self.say_dry_run(&view, filed, format).await
    }

    /// What would be filed, and who could review it.
    pub(crate) async fn say_dry_run(
        &mut self,
        view: &View,
        filed: Result<Filed, FilingError>,
        format: Format,
    ) -> Ended {
        let filed = filed.map_err(FileError::from);
        match filed.map_err(|error| self.filing_refused(error))? {
            Filed::New(new) => {
                let now = self.ctx.state.now();
                let reviews = request::automatic_reviews(view, &new.request, now);
                let then = after(&reviews).unwrap_or(&new.request);
                self.listing(format, &RequestRow::new(then), || {
                    RequestBlock::for_requester(view, then).render()
                })
                .await?;
                self.say_reachable(view, &new.reachable).await?;
                let mut said = Vec::from_iter(say::foreseen(&reviews, then));
                if then.state == RequestState::Pending {
                    said.push(who_reviews(&still_able(view, then)));
                }
                said.push(NOTHING_FILED.to_owned());
                self.note(&said.join("\n")).await?;
            }
            Filed::Joined(id) => {
                let mut said = vec![say::joining(&id.to_string())];
                if let Some(request) = view.request(&id) {
                    let now = self.ctx.state.now();
                    let reviews = request::allowance_reviews(view, request, now);
                    let then = after(&reviews).unwrap_or(request);
                    said.extend(say::foreseen(&reviews, then));
                }
                said.push(NOTHING_FILED.to_owned());
                self.note(&said.join("\n")).await?;
            }
            Filed::Covered(id) => self.note(&covered(id)).await?,
        }
        Ok(Exit::Done)
    }

    pub(crate) async fn say_reachable(
        &mut self,
        view: &View,
        reachable: &[ResourceId],
    ) -> Result<(), Stop> {
        if reachable.is_empty() {
            return Ok(());
        }
        let names = reachable.iter().map(|id| {
            let node = id.node_id().and_then(|id| view.node(&id));
            node.map_or_else(|| id.short(), |node| node.name.to_string())
        });
        self.note(&format!(
            "You can use {} already; left out of the request.",
            some(names)
        ))
        .await
    }

    /// Says what became of a wish, with the block; returns the request's ID.
    pub(crate) async fn say_filed(
        &mut self,
        filed: &Filed,
        format: Format,
    ) -> Result<RequestId, Stop> {
        let (id, first) = match filed {
            Filed::New(new) => (new.request.id, say::CREATING.to_owned()),
            Filed::Joined(id) => (*id, say::joining(&id.to_string())),
            Filed::Covered(id) => (*id, covered(*id)),
        };
        let view = self.ctx.state.view();
        let request = match filed {
            Filed::New(new) => Arc::new(new.request.clone()),
            Filed::Joined(id) | Filed::Covered(id) => self
                .ctx
                .state
                .request(*id)
                .await?
                .ok_or_else(|| Stop::not_found(format!("there is no request {id} any more")))?,
        };
        match format {
            Format::Text => {
                self.print(&format!(
                    "{first}\n{}",
                    RequestBlock::for_requester(&view, &request).render()
                ))
                .await?
            }
            Format::Json | Format::Yaml => {
                self.note(&first).await?;
                self.listing(format, &RequestRow::new(&request), String::new)
                    .await?;
            }
        }
        if let Filed::New(new) = filed {
            self.say_reachable(&view, &new.reachable).await?;
        }
        let others = request.reach.resources().filter_map(ResourceId::registered);
        let kinds: BTreeSet<&str> = others.map(|(kind, _)| plural(kind)).collect();
        if !kinds.is_empty() {
            let kinds: Vec<&str> = kinds.into_iter().collect();
            self.note(&say::connecting_comes_later(&kinds)).await?;
        }
        Ok(id)
    }

    /// Waits until the request is decided, or the client leaves.
    async fn wait(
        &mut self,
        id: RequestId,
        mut changes: tokio::sync::watch::Receiver<u64>,
        format: Format,
    ) -> Ended {
        let request = self.still_there(id).await?;
        let audience = if self.io.terminal().is_some() {
            Audience::Terminal
        } else {
            Audience::Program
        };
        let left = request.request_expires - self.ctx.state.now();
        let line = say::waiting(left, audience);
        if request.state == RequestState::Pending {
            match format {
                Format::Text => self.print(&format!("\n{line}")).await?,
                Format::Json | Format::Yaml => self.note(&line).await?,
            }
        }
        let _waiting = self.ctx.waiting.enter(id);
        loop {
            changes.borrow_and_update();
            // Who was locked out meanwhile is told so and waits no longer.
            self.admit()?;
            let locks = self.ctx.state.view();
            if let Some(lock) = locks.locks().on_request(&id, self.ctx.state.now()) {
                return Err(Stop::denied(say::own_lock(lock)));
            }
            let request = self.still_there(id).await?;
            if let Some(outcome) = say::outcome(&request, self.ctx.state.now()) {
                return self.say_outcome(&request, &outcome, format).await;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    return Err(StoreError::Stopped.into());
                },
                left = self.io.gone() => match left {
                    Leave::Disconnected => return Err(Stop::Gone),
                    Leave::Interrupted => {
                        self.note(&say::left_pending(&id.to_string())).await?;
                        return Ok(Exit::Pending);
                    }
                },
            }
        }
    }

    async fn still_there(&self, id: RequestId) -> Result<Arc<AccessRequest>, Stop> {
        let found = self.ctx.state.request(id).await?;
        found.ok_or_else(|| {
            Stop::not_found(format!(
                "request {id} was removed; ask again to file a new one"
            ))
        })
    }

    async fn say_outcome(
        &mut self,
        request: &AccessRequest,
        outcome: &str,
        format: Format,
    ) -> Ended {
        let exit = exit_of(request.state);
        match (exit, format) {
            (Exit::Done, Format::Text) => self.print(outcome).await?,
            (_, Format::Text | Format::Json | Format::Yaml) => self.note(outcome).await?,
        }
        Ok(exit)
    }
}

fn plural(kind: Kind) -> &'static str {
    match kind {
        Kind::App => "applications",
        Kind::Db => "databases",
        Kind::KubeCluster => "Kubernetes clusters",
        Kind::WindowsDesktop => "desktops",
    }
}

/// How a dry run ends.
const NOTHING_FILED: &str = "Dry run: nothing was filed.";

/// The request after the last of these reviews that is taken.
fn after(reviews: &[AutomaticReview]) -> Option<&AccessRequest> {
    let mut taken = reviews
        .iter()
        .filter_map(|review| review.outcome.as_ref().ok());
    taken.next_back()
}

/// Who may review it and has not.
fn still_able(view: &View, request: &AccessRequest) -> Vec<UserName> {
    let mut able = request::reviewers(view, request);
    able.retain(|name| {
        !request
            .reviews
            .iter()
            .any(|review| review.author.is_user(name))
    });
    able
}

fn covered(id: RequestId) -> String {
    format!("Request {id} is approved and gives this already.")
}

fn who_reviews(reviewers: &[UserName]) -> String {
    if reviewers.is_empty() {
        return "Nobody can review this request; ask an administrator for a reviewer of its roles."
            .to_owned();
    }
    format!("It could be reviewed by {}.", some(reviewers))
}
