//! `status`, `whoami`, `explain`, and what an empty command line shows.

use std::collections::BTreeSet;

use anteroom_core::credential::{AllowedResources, Claims};
use anteroom_core::id::{RequestId, ResourceId, UserName};
use anteroom_core::policy::{self, Access, Capabilities, Decision, Identity};
use anteroom_core::request::{AccessRequest, Reach, State as RequestState, may_review};
use anteroom_core::view::View;
use serde::Serialize;
use time::OffsetDateTime;

use super::args::Listing;
use super::io::{Caller, CommandIo};
use super::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::{self, clean};
use crate::state::LoggedIn;

/// Nodes looked at to find out what sessions may do; options come from roles, and more nodes rarely show another role.
const NODES_LOOKED_AT: usize = 256;

/// What applies to a person and the key she came with.
#[derive(Debug, Serialize)]
struct Status {
    cluster: String,
    username: String,
    key: String,
    active_requests: Vec<String>,
    /// What is in the certificate and gives nothing any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inactive_requests: Vec<Inactive>,
    roles: Vec<String>,
    logins: Vec<String>,
    /// What the active requests are limited to.
    allowed_resources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    extensions: Vec<&'static str>,
    #[serde(skip)]
    ends: Option<OffsetDateTime>,
}

/// A request in a certificate that is not in effect.
#[derive(Debug, Serialize)]
struct Inactive {
    id: String,
    /// What became of it, and what brings it back.
    why: String,
}

impl<I: CommandIo> Run<'_, I> {
    /// Nobody gets further who isn't a user any more.
    pub(crate) fn admit(&self) -> Result<(), Stop> {
        let Caller::Ssh { identity, .. } = self.caller else {
            return Ok(());
        };
        let view = self.ctx.state.view();
        let gone =
            || Stop::denied("you are not a user of this proxy any more; ask its administrator");
        let user = view.user(identity.user()).ok_or_else(gone)?;
        if !user.has_key(identity.key()) {
            return Err(Stop::denied(
                "this key is not registered for you any more; use another one, or ask the proxy's administrator",
            ));
        }
        let now = self.ctx.state.now();
        if let Some(lock) = view.locks().on_person(user, Some(identity.key()), now) {
            return Err(Stop::denied(say::own_lock(lock)));
        }
        if let Some(_certificate) = identity.credential()
            && let Err(reason) = policy::admit(&view, identity, self.ctx.state.now())
        {
            return Err(Stop::denied(clean(&reason.as_sentence())));
        }
        match user.locked.as_deref() {
            None => Ok(()),
            Some("") => Err(Stop::denied(
                "you are locked out; ask the proxy's administrator",
            )),
            Some(message) => Err(Stop::denied(format!(
                "you are locked out: {}; ask the proxy's administrator",
                clean(message)
            ))),
        }
    }

    pub(crate) async fn status(&mut self, listing: Listing) -> Ended {
        let identity = self.identity("status")?.clone();
        let status = self.status_of(&identity);
        let now = self.ctx.state.now();
        self.listing(listing.format, &status, || status.render(now))
            .await?;
        Ok(Exit::Done)
    }

    pub(crate) fn status_text(&self, identity: &Identity) -> String {
        self.status_of(identity).render(self.ctx.state.now())
    }

    /// The status of a certificate that was just issued, from its own words.
    pub(crate) fn status_of_certificate(&self, issued: &LoggedIn) -> String {
        let permit = &issued.permit;
        let (view, now) = (self.ctx.state.view(), self.ctx.state.now());
        let mut status =
            Status::of_claims(&view, permit.user(), permit.claims(), permit.valid_before());
        status.key = permit.key().to_string();
        status.extensions = extensions_of(permit.capabilities()).collect();
        status.render(now)
    }

    fn status_of(&self, identity: &Identity) -> Status {
        let view = self.ctx.state.view();
        if let Some(held) = identity.credential() {
            let mut status =
                Status::of_claims(&view, identity.user(), &held.claims, held.valid_before);
            status.active_requests.clear();
            let now = self.ctx.state.now();
            for id in &held.claims.requests {
                match not_in_effect(&view, identity, id, now) {
                    None => status.active_requests.push(id.to_string()),
                    Some(why) => status.inactive_requests.push(Inactive {
                        id: id.to_string(),
                        why,
                    }),
                }
            }
            status.key = identity.key().to_string();
            status.extensions = extensions(&view, identity, self.ctx.state.now());
            return status;
        }
        let active = self.active(identity);
        let mut roles: BTreeSet<String> = BTreeSet::new();
        let mut logins = Vec::new();
        if let Some(user) = view.user(identity.user()) {
            roles.extend(user.roles.iter().map(ToString::to_string));
            logins.extend(user.logins.iter().map(ToString::to_string));
        }
        let mut allowed: BTreeSet<&ResourceId> = BTreeSet::new();
        for granted in active.iter().filter_map(|request| request.granted.as_ref()) {
            roles.extend(granted.roles.iter().map(ToString::to_string));
            match &granted.reach {
                Reach::Roles => {}
                Reach::Resources(ids) => allowed.extend(ids),
            }
        }
        let ends = active.iter().map(|request| request.access_expires).min();
        Status {
            cluster: view.cluster().to_string(),
            username: identity.user().to_string(),
            key: identity.key().to_string(),
            active_requests: active
                .iter()
                .map(|request| request.id.to_string())
                .collect(),
            inactive_requests: Vec::new(),
            roles: roles.into_iter().collect(),
            logins,
            allowed_resources: allowed.into_iter().map(ToString::to_string).collect(),
            valid_until: ends.map(say::rfc3339),
            extensions: extensions(&view, identity, self.ctx.state.now()),
            ends,
        }
    }

    pub(crate) async fn whoami(&mut self, listing: Listing) -> Ended {
        #[derive(Serialize)]
        struct Who {
            username: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            key: Option<String>,
            cluster: String,
        }
        let who = Who {
            username: self
                .user()
                .map_or_else(|| "the local administrator".to_owned(), ToString::to_string),
            key: match self.caller {
                Caller::Ssh { identity, .. } => Some(identity.key().to_string()),
                Caller::Local => None,
            },
            cluster: self.ctx.state.cluster().to_string(),
        };
        self.listing(listing.format, &who, || who.username.clone())
            .await?;
        Ok(Exit::Done)
    }

    /// `ssh access` without a command: what is mine to use, to ask for and to review.
    pub(crate) async fn summary(&mut self) -> Ended {
        let identity = match self.caller {
            Caller::Local => return self.help(&[]).await,
            Caller::Ssh { identity, .. } => identity.clone(),
        };
        let view = self.ctx.state.view();
        let now = self.ctx.state.now();
        let usable = policy::visible_nodes(&view, &identity, now).len();
        let askable = policy::requestable_nodes(&view, &identity, now).len();
        let own = |state: RequestState| {
            view.live_requests_of(identity.user())
                .filter(|request| request.state == state)
                .count()
        };
        let reviewable = view
            .requests()
            .filter(|request| waits_for(&view, request, &identity))
            .count();
        let lines = [
            format!("You are {} on {}.", identity.user(), view.cluster()),
            format!(
                "{} you can use now        ssh access ls",
                count(usable, "node")
            ),
            format!(
                "{} you can ask for        ssh access request search --kind node",
                count(askable, "node")
            ),
            format!(
                "{} of yours pending       ssh access request ls --mine",
                count(own(RequestState::Pending), "request")
            ),
            format!(
                "{} of yours approved      ssh access status",
                count(own(RequestState::Approved), "request")
            ),
            format!(
                "{} for you to review      ssh access request ls --reviewable",
                count(reviewable, "request")
            ),
            "`ssh access help` lists the commands.".to_owned(),
        ];
        self.print(&lines.join("\n")).await?;
        Ok(Exit::Done)
    }
}

/// Why a request in the certificate gives nothing at this moment; `None` if it is in effect.
fn not_in_effect(
    view: &View,
    identity: &Identity,
    id: &RequestId,
    now: OffsetDateTime,
) -> Option<String> {
    let Some(request) = view.request(id) else {
        return Some("it is over".to_owned());
    };
    if request.is_open(now) {
        return (!request.is_held_by(identity.key()))
            .then(|| format!("set aside; `ssh access login --request-id {id}` takes it up again"));
    }
    Some(match request.state {
        RequestState::Approved if now < request.starts() => {
            format!("it opens at {}", say::stamp(request.starts()))
        }
        RequestState::Approved | RequestState::Expired => "its access has ended".to_owned(),
        RequestState::Pending
        | RequestState::Denied
        | RequestState::Canceled
        | RequestState::Revoked => format!("it is {}", request.state),
    })
}

fn waits_for(view: &View, request: &AccessRequest, identity: &Identity) -> bool {
    request.state == RequestState::Pending
        && may_review(view, identity.user(), request).is_ok()
        && !request
            .reviews
            .iter()
            .any(|review| review.author.is_user(identity.user()))
}

fn count(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n:>5} {:<8}", format!("{what}{plural}"))
}

impl Status {
    /// What a certificate says of its holder.
    fn of_claims(
        view: &View,
        user: &UserName,
        claims: &Claims,
        valid_before: OffsetDateTime,
    ) -> Self {
        let allowed = match &claims.allowed {
            AllowedResources::Unrestricted => Vec::new(),
            AllowedResources::Only(ids) => ids.iter().map(ToString::to_string).collect(),
        };
        let logins = claims.traits.get("logins").into_iter().flatten();
        Self {
            cluster: view.cluster().to_string(),
            username: user.to_string(),
            key: String::new(),
            active_requests: claims.requests.iter().map(ToString::to_string).collect(),
            inactive_requests: Vec::new(),
            roles: claims.roles.iter().map(ToString::to_string).collect(),
            logins: logins.cloned().collect(),
            allowed_resources: allowed,
            valid_until: Some(say::rfc3339(valid_before)),
            extensions: Vec::new(),
            ends: Some(valid_before),
        }
    }

    /// The layout of `tsh status`.
    fn render(&self, now: OffsetDateTime) -> String {
        let resources: Vec<String> = self
            .allowed_resources
            .iter()
            .map(|id| say::quote(id))
            .collect();
        let mut lines = vec![
            line("> Cluster", &self.cluster),
            line("  Logged in as", &self.username),
        ];
        if !self.active_requests.is_empty() {
            lines.push(line("  Active requests", &self.active_requests.join(", ")));
        }
        let inactive = self.inactive_requests.iter();
        lines.extend(
            inactive.map(|Inactive { id, why }| line("  Not in effect", &format!("{id} ({why})"))),
        );
        lines.push(line("  Roles", &or_none(&self.roles)));
        lines.push(line("  Logins", &or_none(&self.logins)));
        if !resources.is_empty() {
            lines.push(line(
                "  Allowed Resources",
                &format!("[{}]", resources.join(",")),
            ));
        }
        let until = match self.ends {
            Some(ends) => format!(
                "{} [valid for {}]",
                say::long_stamp(ends),
                say::exact(ends - now)
            ),
            None => "your roles or key change".to_owned(),
        };
        lines.push(line("  Valid until", &until));
        let extensions: Vec<String> = self
            .extensions
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        lines.push(line("  Extensions", &or_none(&extensions)));
        lines.join("\n")
    }
}

fn line(label: &str, value: &str) -> String {
    format!("{:<21}{}", format!("{label}:"), clean(value))
}

fn or_none(items: &[String]) -> String {
    if items.is_empty() {
        "[none]".to_owned()
    } else {
        items.join(", ")
    }
}

/// What sessions may do, on any of the nodes that work now, in the words of certificates.
fn extensions(view: &View, identity: &Identity, now: OffsetDateTime) -> Vec<&'static str> {
    let mut found: BTreeSet<&'static str> = BTreeSet::new();
    for usable in policy::visible_nodes(view, identity, now)
        .into_iter()
        .take(NODES_LOOKED_AT)
    {
        for login in usable.logins.iter() {
            let access = Access {
                login: login.clone(),
                node: usable.node.id,
            };
            match policy::decide(view, identity, &access, now) {
                Decision::Permit(permit) => found.extend(extensions_of(permit.capabilities())),
                Decision::Ask(_) | Decision::Deny(_) => {}
            }
        }
    }
    found.into_iter().collect()
}

fn extensions_of(capabilities: &Capabilities) -> impl Iterator<Item = &'static str> {
    let forwarding =
        capabilities.local_forwarding.is_allowed() || capabilities.remote_forwarding.is_allowed();
    [
        (
            "permit-X11-forwarding",
            capabilities.x11_forwarding.is_allowed(),
        ),
        (
            "permit-agent-forwarding",
            capabilities.agent_forwarding.is_allowed(),
        ),
        ("permit-port-forwarding", forwarding),
        ("permit-pty", capabilities.pty.is_allowed()),
    ]
    .into_iter()
    .filter_map(|(name, allowed)| allowed.then_some(name))
}
