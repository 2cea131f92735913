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
use crate::admin::args::Format;
use crate::admin::args::requests::{CreateRequest, ScopeName, Wish};
use crate::admin::io::{Caller, CommandIo, Leave, Typed};
use crate::admin::line::complaint::invalid;
use crate::admin::resources::no_such_resource;
use crate::admin::run::{Ended, Run, Stop, barred, some, unless_barred};
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

/// When a listing shows the object of a request: one that waits shows it once, as it is then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum Shown {
    AtOnce,
    AtTheEnd,
}

/// How a wait ended.
pub(in crate::admin) enum Answer {
    /// The request is decided or over.
    Given {
        request: Arc<AccessRequest>,
        said: String,
    },
    /// It stays pending, and nobody waits any more.
    Open(Arc<AccessRequest>),
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn create_request(&mut self, args: CreateRequest) -> Ended {
        let identity = self.identity("request create")?.clone();
        let patience = self.patience(args.nowait)?;
        let mut wanted = self.wanted(&args.wish, Known::ToTheCaller)?;
        wanted.scope = self.scope(args.scope, args.command.as_deref(), "this request")?;
        if !args.dry_run && args.wish.reason.is_none() {
            match self.ask_reason(&identity, &wanted).await? {
                Some(reason) => wanted.reason = reason,
                None => return Ok(Exit::Interrupted),
            }
        }
        if args.dry_run {
            return self.dry_run(&identity, &wanted, args.listing.format).await;
        }
        // Subscribed before anything is filed, so that no answer is missed.
        let mut changes = self.ctx.state.changes();
        let filed = self.ctx.state.file(&identity, wanted.clone()).await;
        let filed = filed.map_err(|error| self.filing_refused(error))?;
        let waits = match filed {
            Filed::Covered(_) => false,
            Filed::New(_) | Filed::Joined(_) => patience != Some(Duration::ZERO),
        };
        let format = args.listing.format;
        let shown = if waits {
            Shown::AtTheEnd
        } else {
            Shown::AtOnce
        };
        let id = self.say_filed(&filed, &wanted, format, shown).await?;
        if !waits {
            return self.leave(id, args.nowait).await;
        }
        self.say_waiting(id, format).await?;
        let answer = self.answer(id, &mut changes, patience).await?;
        self.say_answer(&answer, format).await
    }

    /// How long the caller waits for an answer; `None` as long as the request lives, zero not at all.
    pub(in crate::admin) fn patience(&self, nowait: bool) -> Result<Option<Duration>, Stop> {
        if nowait {
            return Ok(Some(Duration::ZERO));
        }
        self.io.environment().patience().map_err(Stop::usage)
    }

    /// What the options or `ANTEROOM_SCOPE` narrow `what` to. A scope that can't be served is refused: without it more would be
    /// filed than was meant.
    pub(in crate::admin) fn scope(
        &self,
        scope: Option<ScopeName>,
        command: Option<&str>,
        what: &str,
    ) -> Result<Scope, Stop> {
        let sent = self.io.environment().scope;
        match (scope, sent.as_deref(), command) {
            (None, Some(other), _) if other != "command" => {
                Err(Stop::usage(say::scope_unknown(other)))
            }
            (Some(ScopeName::Command), _, Some(command)) | (None, Some(_), Some(command)) => {
                Ok(Scope::Command(command.to_owned()))
            }
            (Some(ScopeName::Command), _, None) | (None, Some(_), None) => {
                Err(Stop::usage(say::scope_without_command(what)))
            }
            (None, None, None) => Ok(Scope::Any),
            (None, None, Some(_)) => Err(Stop::usage(
                "`--command` names the one command of `--scope command`; give both, or neither",
            )),
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
        let sent = self.io.environment();
        let reason = wish.reason.as_deref().or(sent.reason.as_deref());
        wanted.reason = self.check_reason(reason)?;
        wanted.reviewers = if wish.reviewers.is_empty() {
            sent.reviewers().map_err(Stop::usage)?
        } else {
            wish.reviewers.iter().cloned().collect()
        };
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

    /// A full ID, a UUID, a name, `NAME?logins=a,b` or `LOGIN@NODE`.
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
        if let Some((name, logins)) = text.split_once("?logins=") {
            let id = self.wanted_resource(view, name, whose)?;
            if id.logins().is_some() {
                return Err(usage(&"a login is named on both sides; leave one out"));
            }
            return ResourceId::parse(&format!("{id}?logins={logins}"))
                .map_err(|error| usage(&error));
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

    /// The reason of the wish, asked for at the terminal in the words of the roles where it is missing and something is
    /// going to be filed; `None` when the one at the terminal leaves.
    pub(in crate::admin) async fn ask_reason(
        &mut self,
        identity: &Identity,
        wanted: &Wanted,
    ) -> Result<Option<String>, Stop> {
        if !wanted.reason.is_empty() || self.io.terminal().is_none() {
            return Ok(Some(wanted.reason.clone()));
        }
        let (view, now) = (self.ctx.state.view(), self.ctx.state.now());
        let id = RequestId::from_uuid(Uuid::new_v4());
        let prompt = match request::file(&view, identity, wanted, id, now) {
            Ok(Filed::New(new)) => new.reason_prompt,
            Err(FilingError::ReasonRequired { prompt }) => prompt,
            // Nothing is filed, or filing refuses it and writes that down.
            Ok(Filed::Joined(_) | Filed::Covered(_)) | Err(_) => return Ok(Some(String::new())),
        };
        let prompt = say::reason_prompt(prompt.as_deref());
        let (ctx, caller) = (self.ctx, self.caller);
        let typing = tokio::time::timeout(PROMPT, self.io.read_line(&prompt));
        match unless_barred(ctx, caller, typing).await? {
            Ok(Typed::Line(line)) => self.check_reason(Some(&line)).map(Some),
            Ok(Typed::Interrupted) => Ok(None),
            // Nobody answered: whether a reason is needed is for the roles to say.
            Ok(Typed::End) | Err(_) => Ok(Some(String::new())),
        }
    }

    pub(crate) fn filing_refused(&self, error: FileError) -> Stop {
        match &error {
            FileError::Refused(FilingError::UnknownResource(id)) => {
                // Of another cluster, the name alone would read as one of here.
                let shown = if id.cluster() == self.ctx.state.cluster() {
                    id.name().to_owned()
                } else {
                    id.to_string()
                };
                if id.registered().is_some() && id.kube_object().is_none() {
                    return no_such_resource(id.kind().searched_as(), &shown);
                }
                if id.kube_object().is_some() {
                    return no_such_resource(&id.kind().to_string(), &shown);
                }
                Stop::not_found(say::no_such_node(&shown))
            }
            FileError::Refused(_)
            | FileError::TooOften { .. }
            | FileError::NotAdmitted(_)
            | FileError::FromNode(_)
            | FileError::Store(_) => error.into(),
        }
    }

    async fn dry_run(&mut self, identity: &Identity, wanted: &Wanted, format: Format) -> Ended {
        let view = self.ctx.state.view();
        let id = RequestId::from_uuid(Uuid::new_v4());
        let filed = request::file(&view, identity, wanted, id, self.ctx.state.now());
        let filed = filed.map_err(|error| self.filing_refused(error.into()))?;
        self.say_dry_run(&view, wanted, filed, format).await
    }

    /// What would be filed, and who could review it.
    pub(crate) async fn say_dry_run(
        &mut self,
        view: &View,
        wanted: &Wanted,
        filed: Filed,
        format: Format,
    ) -> Ended {
        match filed {
            Filed::New(new) => {
                let now = self.ctx.state.now();
                let reviews = request::automatic_reviews(view, &new.request, now);
                let then = after(&reviews).unwrap_or(&new.request);
                self.say_request(view, then, format).await?;
                self.say_reachable(view, &new.reachable).await?;
                self.say_cuts(wanted, &new.request).await?;
                let mut said = Vec::from_iter(say::foreseen(&reviews, then));
                if then.state == RequestState::Pending {
                    said.push(who_reviews(&still_able(view, then)));
                }
                said.push(NOTHING_FILED.to_owned());
                self.note(&said.join("\n")).await?;
            }
            Filed::Joined(id) => {
                let request = self.still_there(id).await?;
                let now = self.ctx.state.now();
                let reviews = request::allowance_reviews(view, &request, now);
                let then = after(&reviews).unwrap_or(&request);
                self.say_request(view, then, format).await?;
                let joined = say::joined(&request, Some(&wanted.reason), &wanted.reviewers);
                let mut said = vec![joined];
                said.extend(say::foreseen(&reviews, then));
                said.push(NOTHING_FILED.to_owned());
                self.note(&said.join("\n")).await?;
            }
            Filed::Covered(id) => {
                let request = self.still_there(id).await?;
                self.say_request(view, &request, format).await?;
                self.note(&format!("{}\n{NOTHING_FILED}", covered(id)))
                    .await?;
            }
        }
        Ok(Exit::Done)
    }

    async fn say_request(
        &mut self,
        view: &View,
        request: &AccessRequest,
        format: Format,
    ) -> Result<(), Stop> {
        self.listing(format, &RequestRow::new(request), || {
            RequestBlock::for_requester(view, request).render()
        })
        .await
    }

    /// Which of the wishes the request has less of than was wanted.
    async fn say_cuts(&mut self, wanted: &Wanted, request: &AccessRequest) -> Result<(), Stop> {
        let pending = request.request_expires - request.created;
        let cuts = [
            ("--max-duration", wanted.max_duration, request.duration),
            ("--request-ttl", wanted.request_ttl, pending),
            ("--session-ttl", wanted.session_ttl, request.session_ttl),
        ];
        for (option, wanted, given) in cuts {
            if let Some(wanted) = wanted.filter(|wanted| *wanted > given) {
                self.note(&say::cut_short(option, wanted, given)).await?;
            }
        }
        Ok(())
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

    /// Says what became of a wish, with the block or object; returns the request's ID.
    pub(crate) async fn say_filed(
        &mut self,
        filed: &Filed,
        wanted: &Wanted,
        format: Format,
        shown: Shown,
    ) -> Result<RequestId, Stop> {
        let view = self.ctx.state.view();
        let request = match filed {
            Filed::New(new) => Arc::new(new.request.clone()),
            Filed::Joined(id) | Filed::Covered(id) => self.still_there(*id).await?,
        };
        let id = request.id;
        let first = match filed {
            Filed::New(_) => say::CREATING.to_owned(),
            Filed::Joined(_) => say::joined(&request, Some(&wanted.reason), &wanted.reviewers),
            Filed::Covered(_) => covered(id),
        };
        match (format, shown) {
            (Format::Text, _) => {
                self.print(&format!(
                    "{first}\n{}",
                    RequestBlock::for_requester(&view, &request).render()
                ))
                .await?
            }
            (Format::Json | Format::Yaml, Shown::AtOnce) => {
                self.note(&first).await?;
                self.listing(format, &RequestRow::new(&request), String::new)
                    .await?;
            }
            (Format::Json | Format::Yaml, Shown::AtTheEnd) => {
                self.note(&format!("{first}\n{}", say::request_id(&id.to_string())))
                    .await?
            }
        }
        if let Filed::New(new) = filed {
            self.say_reachable(&view, &new.reachable).await?;
            self.say_cuts(wanted, &new.request).await?;
        }
        let others = request.reach.resources().filter_map(ResourceId::registered);
        let kinds: BTreeSet<&str> = others.map(|(kind, _)| plural(kind)).collect();
        if !kinds.is_empty() {
            let kinds: Vec<&str> = kinds.into_iter().collect();
            self.note(&say::connecting_comes_later(&kinds)).await?;
        }
        Ok(id)
    }

    /// Says what to type next about a request that is not waited for.
    /// Who said `--nowait` has all she asked for. `ANTEROOM_WAIT=0` is a wait of no time, which ends as any that is over.
    async fn leave(&mut self, id: RequestId, nowait: bool) -> Ended {
        if self.still_there(id).await?.state != RequestState::Pending {
            return Ok(Exit::Done);
        }
        self.note(&say::filed_and_left(&id.to_string())).await?;
        Ok(if nowait { Exit::Done } else { Exit::Pending })
    }

    async fn say_waiting(&mut self, id: RequestId, format: Format) -> Result<(), Stop> {
        let request = self.still_there(id).await?;
        if request.state != RequestState::Pending {
            return Ok(());
        }
        let line = self.waiting_line(&request);
        match format {
            Format::Text => self.print(&format!("\n{line}")).await,
            Format::Json | Format::Yaml => self.note(&line).await,
        }
    }

    pub(in crate::admin) fn waiting_line(&self, request: &AccessRequest) -> String {
        let audience = if self.io.terminal().is_some() {
            Audience::Terminal
        } else {
            Audience::Program
        };
        say::waiting(request.request_expires - self.ctx.state.now(), audience)
    }

    /// Waits until the request is decided, the caller leaves or has waited for long enough.
    pub(in crate::admin) async fn answer(
        &mut self,
        id: RequestId,
        changes: &mut tokio::sync::watch::Receiver<u64>,
        patience: Option<Duration>,
    ) -> Result<Answer, Stop> {
        let _waiting = self.ctx.waiting.enter(id);
        let give_up = patience.map(|patience| tokio::time::Instant::now() + patience);
        loop {
            changes.borrow_and_update();
            self.admit()?;
            let locks = self.ctx.state.view();
            if let Some(lock) = locks.locks().on_request(&id, self.ctx.state.now()) {
                return Err(Stop::denied(say::own_lock(lock)));
            }
            let request = self.still_there(id).await?;
            if let Some(said) = say::outcome(&request, self.ctx.state.now()) {
                self.ctx.waiting.heard(id);
                return Ok(Answer::Given { request, said });
            }
            let enough = async {
                match give_up {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (ctx, caller) = (self.ctx, self.caller);
            tokio::select! {
                biased;
                // Who was locked out meanwhile is told so and waits no longer.
                stop = barred(ctx, caller) => return Err(stop),
                changed = changes.changed() => if changed.is_err() {
                    return Err(StoreError::Stopped.into());
                },
                left = self.io.gone() => return match left {
                    Leave::Disconnected => Err(Stop::Gone),
                    Leave::Interrupted => Ok(Answer::Open(request)),
                },
                () = enough => return Ok(Answer::Open(request)),
            }
        }
    }

    /// The object that was not shown at first, and how the wait ended.
    async fn say_answer(&mut self, answer: &Answer, format: Format) -> Ended {
        let (request, said) = match answer {
            Answer::Given { request, said } => (request, said.clone()),
            Answer::Open(request) => (request, say::left_pending(&request.id.to_string())),
        };
        let exit = exit_of(request.state);
        match (exit, format) {
            (Exit::Done, Format::Text) => self.print(&said).await?,
            (_, Format::Text) => self.note(&said).await?,
            (_, Format::Json | Format::Yaml) => {
                self.note(&said).await?;
                self.listing(format, &RequestRow::new(request), String::new)
                    .await?;
            }
        }
        Ok(exit)
    }

    async fn still_there(&self, id: RequestId) -> Result<Arc<AccessRequest>, Stop> {
        let found = self.ctx.state.request(id).await?;
        found.ok_or_else(|| {
            Stop::not_found(format!(
                "request {id} was removed; ask again to file a new one"
            ))
        })
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
