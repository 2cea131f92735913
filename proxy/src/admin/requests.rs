//! `request …` and `requests …`: asking, waiting, looking, reviewing, dropping.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anteroom_core::admin::{AdminResource, AdminVerb, allowed};
use anteroom_core::id::{RequestId, ResourceId, UserName};
use anteroom_core::policy::Identity;
use anteroom_core::request::{
    self, AccessRequest, Action, Annotations, Author, Effect, Filed, FilingError, OverrideError,
    Reach, Review, ReviewError as Unreviewed, Scope, State as RequestState, Terms, TransitionError,
    Verdict, Wanted, may_review,
};
use anteroom_core::resource::Kind;
use anteroom_core::role::DurationFrom;
use anteroom_core::target::{NodeRef, Target};
use anteroom_core::view::{FindRequestError, View};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

use super::args::{
    self, CreateRequest, DropRequests, Format, OneRequest, RequestLs, ReviewTerms, ScopeName,
};
use super::io::{Caller, CommandIo, Leave, Typed};
use super::line::invalid;
use super::resources::no_such_resource;
use super::run::{Ended, Run, Stop, actor, some};
use crate::exit::{Exit, Exits};
use crate::say::{self, Audience, RequestBlock, Table, clean};
use crate::state::{ApplyError, FileError, ReviewError};
use crate::store::StoreError;

/// How long a prompt for a reason waits for its answer; a terminal that nobody sits at (`ssh -tt` in a script) must not hang.
const PROMPT: Duration = Duration::from_secs(60);

/// The columns that a list of resources may take in `request ls`.
const RESOURCES_WIDTH: usize = 27;

/// The width of the nodes' names behind them.
const NAMES_WIDTH: usize = 20;

/// The most requests a listing reads from the database; older ones are found by their ID.
const MOST_LISTED: i64 = 10_000;

/// A request as scripts see it; names as Teleport's where it has one.
#[derive(Debug, Serialize)]
pub(crate) struct RequestRow {
    id: String,
    user: String,
    roles: Vec<String>,
    state: &'static str,
    resource_ids: Vec<String>,
    created: String,
    /// When access ends.
    expires: String,
    /// When it lapses while pending.
    request_expires: String,
    request_reason: String,
    reason: String,
    /// Who filed it, if that was somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    filed_by: Option<String>,
    /// `command` where the grant is bound to the one command beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope_command: Option<String>,
    suggested_reviewers: Vec<String>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    system_annotations: anteroom_core::request::Annotations,
    reviews: Vec<ReviewRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_duration: Option<String>,
    /// `approval`, where the access is counted from there; `expires` is then known after it only,
    /// and shows before when the access would end if it were approved at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_from: Option<&'static str>,
    session_ttl: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    assume_start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<String>,
    /// Connections that wait for it now, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<GrantedRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<ResolvedRow>,
}

#[derive(Debug, Serialize)]
struct ReviewRow {
    author: String,
    proposed_state: &'static str,
    reason: String,
    created: String,
    counted: bool,
    /// Whether a rule gave it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    automatic: bool,
}

#[derive(Debug, Serialize)]
struct GrantedRow {
    roles: Vec<String>,
    resource_ids: Vec<String>,
    created: String,
    /// Those of the roles that were not asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overridden_roles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ResolvedRow {
    by: String,
    created: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delegator: Option<String>,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations,
}

impl RequestRow {
    pub(crate) fn new(request: &AccessRequest) -> Self {
        Self {
            id: request.id.to_string(),
            user: request.user.to_string(),
            roles: strings(&request.roles),
            state: request.state.as_str(),
            resource_ids: resources(&request.reach),
            created: say::rfc3339(request.created),
            expires: say::rfc3339(request.access_expires),
            request_expires: say::rfc3339(request.request_expires),
            request_reason: request.reason.clone(),
            reason: request.reason.clone(),
            filed_by: request.filed_by.as_ref().map(actor),
            scope: request.scope.command().map(|_| "command"),
            scope_command: request.scope.command().map(str::to_owned),
            suggested_reviewers: strings(&request.suggested_reviewers),
            system_annotations: request.system_annotations.clone(),
            reviews: request.reviews.iter().map(ReviewRow::new).collect(),
            max_duration: request.max_duration.map(anteroom_core::duration::format),
            duration_from: match request.duration_from {
                DurationFrom::Creation => None,
                DurationFrom::Approval => Some("approval"),
            },
            session_ttl: anteroom_core::duration::format(request.session_ttl),
            assume_start_time: request.assume_start.map(say::rfc3339),
            command: request.command.clone(),
            remote_addr: request.remote_addr.clone(),
            waiting: None,
            granted: request.granted.as_ref().map(|granted| GrantedRow {
                roles: strings(&granted.roles),
                resource_ids: resources(&granted.reach),
                created: say::rfc3339(granted.at),
                overridden_roles: strings(&granted.overridden),
            }),
            resolved: request.resolved.as_ref().map(|end| ResolvedRow {
                by: actor(&end.by),
                created: say::rfc3339(end.at),
                reason: end.reason.clone(),
                delegator: end.delegator.as_ref().map(ToString::to_string),
                annotations: end.annotations.clone(),
            }),
        }
    }
}

impl ReviewRow {
    fn new(review: &Review) -> Self {
        Self {
            author: review.author.to_string(),
            proposed_state: match review.verdict {
                Verdict::Approve(_) => RequestState::Approved.as_str(),
                Verdict::Deny => RequestState::Denied.as_str(),
            },
            reason: review.reason.clone(),
            created: say::rfc3339(review.created),
            counted: match review.effect {
                Effect::Counted => true,
                Effect::Ineffectual => false,
            },
            automatic: match review.author {
                Author::Rule(_) => true,
                Author::User(_) => false,
            },
        }
    }
}

pub(crate) fn strings<T: ToString>(items: &BTreeSet<T>) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn resources(reach: &Reach) -> Vec<String> {
    reach.resources().map(ToString::to_string).collect()
}

/// Among which nodes a name is looked up.
#[derive(Debug, Clone, Copy)]
enum Known {
    /// Those that the caller may know.
    ToTheCaller,
    /// All.
    ToAdministrators,
}

/// The exit status of a wait for `request` in this state.
#[must_use]
pub fn exit_of(state: RequestState) -> Exit {
    match state {
        RequestState::Approved => Exit::Done,
        RequestState::Pending | RequestState::Expired | RequestState::Canceled => Exit::Pending,
        RequestState::Denied | RequestState::Revoked => Exit::Denied,
    }
}

// ---- errors of the rules, as exit statuses

impl From<FileError> for Stop {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Refused(error) => error.into(),
            FileError::NotAllowed | FileError::NotAdmitted(_) | FileError::FromNode(_) => {
                Self::by_state(Exit::Denied, clean(&error.to_string()))
            }
            FileError::Store(error) => error.into(),
        }
    }
}

impl From<FilingError> for Stop {
    fn from(error: FilingError) -> Self {
        Self::by_state(error.exit(), clean(&error.to_string()))
    }
}

impl From<ReviewError> for Stop {
    fn from(error: ReviewError) -> Self {
        let exit = match &error {
            ReviewError::Store(_) => None,
            ReviewError::NoSuch(_) => Some(Exit::NotFound),
            ReviewError::NotAdmitted(_) | ReviewError::FromNode(_) => Some(Exit::Denied),
            ReviewError::Refused(refused) => Some(match refused {
                Unreviewed::NoReviewer(_)
                | Unreviewed::OwnRequest(_)
                | Unreviewed::NotAllowed(_) => Exit::Denied,
                Unreviewed::Lapsed { .. } => Exit::Pending,
                Unreviewed::NotPending { .. } | Unreviewed::AlreadyReviewed(_) => Exit::Failed,
                Unreviewed::ReasonTooLong { .. } | Unreviewed::Terms(_) => Exit::Usage,
                // The enum is open to what later rules refuse.
                _ => Exit::Failed,
            }),
        };
        match (exit, error) {
            (None, ReviewError::Store(error)) => error.into(),
            (exit, error) => {
                Self::by_state(exit.unwrap_or(Exit::Failed), clean(&error.to_string()))
            }
        }
    }
}

impl From<ApplyError> for Stop {
    fn from(error: ApplyError) -> Self {
        let exit = match error {
            ApplyError::Store(error) => return error.into(),
            ApplyError::NoSuch(_) => Exit::NotFound,
            ApplyError::NotAdmitted(_) | ApplyError::FromNode(_) | ApplyError::NotAllowed(_) => {
                Exit::Denied
            }
            ApplyError::Override(OverrideError::NoSuchRole(_)) => Exit::NotFound,
            ApplyError::Override(_) => Exit::Denied,
            ApplyError::Refused(ref refused) => match refused {
                TransitionError::NotYours { .. }
                | TransitionError::OwnRequest(_)
                | TransitionError::OwnDelegator(..)
                | TransitionError::WrongActor { .. } => Exit::Denied,
                TransitionError::Over { .. } => Exit::Pending,
                TransitionError::Terms(_) => Exit::Usage,
                TransitionError::NotPossible { .. }
                | TransitionError::NotYet { .. }
                | TransitionError::NotHeld(_)
                | TransitionError::AlreadyHeld(_) => Exit::Failed,
                // The enum is open to what later rules refuse.
                _ => Exit::Failed,
            },
        };
        Self::by_state(exit, clean(&error.to_string()))
    }
}

impl From<FindRequestError> for Stop {
    fn from(error: FindRequestError) -> Self {
        let exit = match &error {
            FindRequestError::Malformed(_) | FindRequestError::Ambiguous { .. } => Exit::Usage,
            FindRequestError::Unknown(_) => Exit::NotFound,
            // The enum is open.
            _ => Exit::Failed,
        };
        Self::new(exit, clean(&error.to_string()))
    }
}

// ---- asking

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn create_request(&mut self, args: CreateRequest) -> Ended {
        let identity = self.identity("request create")?.clone();
        let mut wanted = self.wanted(&args)?;
        let prompted = args.reason.is_none() && !args.dry_run && self.io.terminal().is_some();
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

    fn wanted(&self, args: &CreateRequest) -> Result<Wanted, Stop> {
        let view = self.ctx.state.view();
        let roles: BTreeSet<_> = args.roles.iter().cloned().collect();
        let ids: Result<BTreeSet<ResourceId>, Stop> = args
            .resource
            .iter()
            .map(|text| self.wanted_resource(&view, text))
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
        wanted.reason = self.check_reason(args.reason.as_deref())?;
        wanted.reviewers = args.reviewers.iter().cloned().collect();
        wanted.remote_addr = match self.caller {
            // The port says nothing to a reviewer.
            Caller::Ssh { remote_addr, .. } => Some(remote_addr.ip().to_canonical().to_string()),
            Caller::Local => None,
        };
        wanted.request_ttl = args.request_ttl;
        wanted.session_ttl = args.session_ttl;
        wanted.max_duration = args.max_duration;
        wanted.assume_start = args.assume_start_time;
        if let (Some(ScopeName::Command), Some(command)) = (args.scope, &args.command) {
            wanted.scope = Scope::Command(command.clone());
        }
        Ok(wanted)
    }

    /// A full ID, a UUID, a name, or `LOGIN@NODE` for one login. Whether it may be asked for is decided when it is filed.
    fn wanted_resource(&self, view: &View, text: &str) -> Result<ResourceId, Stop> {
        self.resource_of(view, text, Known::ToTheCaller)
    }

    /// The same among all nodes.
    pub(crate) fn any_resource(&self, view: &View, text: &str) -> Result<ResourceId, Stop> {
        self.resource_of(view, text, Known::ToAdministrators)
    }

    fn resource_of(&self, view: &View, text: &str, whose: Known) -> Result<ResourceId, Stop> {
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
                let row = RequestRow::new(&new.request);
                self.listing(format, &row, || {
                    RequestBlock::for_requester(view, &new.request).render()
                })
                .await?;
                self.say_reachable(view, &new.reachable).await?;
                let reviewers = request::reviewers(view, &new.request);
                self.note(&format!(
                    "{}\nDry run: nothing was filed.",
                    who_reviews(&reviewers)
                ))
                .await?;
            }
            Filed::Joined(id) => {
                self.note(&format!(
                    "{}\nDry run: nothing was filed.",
                    say::joining(&id.to_string())
                ))
                .await?
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

// ---- looking

impl<I: CommandIo> Run<'_, I> {
    /// Whether the caller may see the request: her own, those she may review, and all for administrators of requests.
    fn sees(&self, view: &View, request: &AccessRequest) -> bool {
        let Some(user) = self.user() else { return true };
        request.user == *user
            || may_review(view, user, request).is_ok()
            || allowed(view, user, AdminVerb::Read, AdminResource::AccessRequest)
    }

    pub(crate) async fn request_ls(&mut self, args: &RequestLs) -> Ended {
        let view = self.ctx.state.view();
        let all = self.all_requests().await?;
        let user = self.user();
        let shown = all.into_iter().filter(|request| {
            let reviewable = || {
                request.state == RequestState::Pending
                    && user.is_none_or(|user| {
                        may_review(&view, user, request).is_ok() && !reviewed_by(request, user)
                    })
            };
            self.sees(&view, request)
                && (!args.mine || user.is_some_and(|user| request.user == *user))
                && (!args.reviewable || reviewable())
                && (!args.suggested
                    || user.is_some_and(|user| request.suggested_reviewers.contains(user)))
                && (args.state.is_empty() || args.state.contains(&request.state))
        });
        let shown: Vec<_> = shown.collect();
        self.list_requests(&shown, args.listing.format).await
    }

    /// Newest first, then by ID.
    pub(crate) async fn all_requests(&self) -> Result<Vec<Arc<AccessRequest>>, Stop> {
        let view = self.ctx.state.view();
        let mut all: Vec<Arc<AccessRequest>> = Vec::new();
        for stored in self.ctx.state.reader().requests(MOST_LISTED).await? {
            // What memory holds was committed later or at the same time.
            all.push(
                view.request(&stored.id)
                    .map_or_else(|| Arc::new(stored), Arc::clone),
            );
        }
        all.sort_by(|a, b| b.created.cmp(&a.created).then(a.id.cmp(&b.id)));
        Ok(all)
    }

    pub(crate) async fn list_requests(
        &mut self,
        requests: &[Arc<AccessRequest>],
        format: Format,
    ) -> Ended {
        let rows: Vec<RequestRow> = requests
            .iter()
            .map(|request| RequestRow {
                waiting: self.waiting_for(request),
                ..RequestRow::new(request)
            })
            .collect();
        let (channel, view) = (self.channel(), self.ctx.state.view());
        self.listing(format, &rows, || {
            request_table(&view, requests, channel.prefix())
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn request_show(&mut self, args: &OneRequest) -> Ended {
        let request = self.find_request(&args.id).await?;
        self.show_request(&request, args.listing.format).await
    }

    /// How many connections wait for it; said of what may still be answered only.
    fn waiting_for(&self, request: &AccessRequest) -> Option<u32> {
        let pending = request.state == RequestState::Pending;
        pending.then(|| self.ctx.waiting.count(request.id))
    }

    pub(crate) async fn show_request(&mut self, request: &AccessRequest, format: Format) -> Ended {
        let view = self.ctx.state.view();
        let waiting = self.waiting_for(request);
        let row = RequestRow {
            waiting,
            ..RequestRow::new(request)
        };
        let block = RequestBlock {
            waiting,
            ..RequestBlock::of(&view, request)
        };
        self.listing(format, &row, || block.render()).await?;
        Ok(Exit::Done)
    }

    /// The request that an argument means, among those the caller may see.
    pub(crate) async fn find_request(&self, prefix: &str) -> Result<Arc<AccessRequest>, Stop> {
        let view = self.ctx.state.view();
        let prefix = prefix.to_ascii_lowercase();
        Ok(self
            .ctx
            .state
            .find_request(&prefix, |request| self.sees(&view, request))
            .await??)
    }
}

fn reviewed_by(request: &AccessRequest, user: &UserName) -> bool {
    request
        .reviews
        .iter()
        .any(|review| review.author.is_user(user))
}

fn request_table(view: &View, requests: &[Arc<AccessRequest>], prefix: &str) -> String {
    let mut table = Table::new([
        "ID",
        "User",
        "Roles",
        "Resources",
        "Created At (UTC)",
        "Expires",
        "Status",
    ]);
    let mut cut_off = false;
    for request in requests {
        let quoted: Vec<String> = request
            .reach
            .resources()
            .map(|id| say::quote(&id.clone().without_logins().to_string()))
            .collect();
        let whole = if quoted.is_empty() {
            String::new()
        } else {
            format!("[{}]", quoted.join(","))
        };
        let mut shown = say::cut_with(&whole, RESOURCES_WIDTH, "... [+]");
        cut_off |= shown != whole;
        // UUIDs cut short tell a reviewer nothing; names do.
        let others = request
            .reach
            .resources()
            .filter(|id| id.node_id().is_none());
        let names = RequestBlock::of(view, request).names;
        let names: Vec<String> = names
            .into_iter()
            .chain(others.map(ResourceId::short))
            .collect();
        let names = names.join(",");
        if !names.is_empty() {
            shown = format!("{shown} {}", say::cut(&names, NAMES_WIDTH));
        }
        table.row([
            request.id.to_string(),
            request.user.to_string(),
            strings(&request.roles).join(","),
            shown,
            say::stamp(request.created),
            say::stamp(expires(request)),
            request.state.to_string(),
        ]);
    }
    if !cut_off {
        return table.to_string();
    }
    format!("{table}\n\n[+] Resource lists are cut; `{prefix} request show ID` shows one whole")
}

/// What ends next: a pending request lapses, an approved one's access ends.
fn expires(request: &AccessRequest) -> OffsetDateTime {
    match request.state {
        RequestState::Pending => request.request_expires,
        RequestState::Approved
        | RequestState::Denied
        | RequestState::Expired
        | RequestState::Canceled
        | RequestState::Revoked => request.access_expires,
    }
}

// ---- reviewing

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

// ---- dropping, assuming, canceling

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

    /// The approved requests that the caller's key holds and whose time has not run out.
    pub(crate) fn active(&self, identity: &Identity) -> Vec<Arc<AccessRequest>> {
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
