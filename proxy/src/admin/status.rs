//! `status`, `whoami`, `explain`, and what an empty command line shows.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anteroom_ca::user::{Conditions, verify};
use anteroom_core::admin::{AdminObject, AdminVerb};
use anteroom_core::credential::{AllowedResources, Credential};
use anteroom_core::id::{Login, RequestId, ResourceId, UserName};
use anteroom_core::policy::{self, Access, Capabilities, Decision, Identity, UsableNode};
use anteroom_core::request::{AccessRequest, Reach, State as RequestState, may_review};
use anteroom_core::view::View;
use serde::Serialize;
use time::OffsetDateTime;

use super::Context;
use super::args::Listing;
use super::args::person::Status as StatusArgs;
use super::io::{Caller, CommandIo};
use super::run::{Ended, Run, Stop};
use crate::authority::{AuthorityKind, print};
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
    /// Approved, and open later.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    scheduled_requests: Vec<Scheduled>,
    roles: Vec<String>,
    /// The logins that work, on whichever node.
    logins: BTreeSet<String>,
    /// What a certificate is restricted to; `None` where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_resources: Option<Vec<String>>,
    /// What the open requests of a plain key add to what the standing roles reach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added_resources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
    extensions: BTreeSet<String>,
    #[serde(skip)]
    ends: Option<OffsetDateTime>,
}

/// What `status` prints for programs: the same at the top, and once more where `tsh status` has it.
#[derive(Debug, Serialize)]
struct StatusObject<'a> {
    active: Active<'a>,
    #[serde(flatten)]
    status: &'a Status,
}

/// The profile that is in effect, with the names of `tsh status --format json`.
#[derive(Debug, Serialize)]
struct Active<'a> {
    username: &'a str,
    cluster: &'a str,
    active_requests: &'a [String],
    roles: &'a [String],
    logins: &'a BTreeSet<String>,
    extensions: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_resources: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<&'a str>,
}

impl<'a> Active<'a> {
    fn of(status: &'a Status) -> Self {
        Self {
            username: &status.username,
            cluster: &status.cluster,
            active_requests: &status.active_requests,
            roles: &status.roles,
            logins: &status.logins,
            extensions: &status.extensions,
            allowed_resources: status.allowed_resources.as_deref(),
            valid_until: status.valid_until.as_deref(),
        }
    }
}

/// The cluster, as `tctl status` shows it.
#[derive(Debug, Serialize)]
struct ClusterStatus {
    cluster: String,
    version: &'static str,
    authorities: Vec<AuthorityStatus>,
}

/// The key that an authority signs with now.
#[derive(Debug, Serialize)]
struct AuthorityStatus {
    #[serde(rename = "type")]
    kind: &'static str,
    stage: &'static str,
    fingerprint: String,
}

impl ClusterStatus {
    fn render(&self) -> String {
        let row = |label: &str, value: &str| format!("{label:<9}{}", clean(value));
        let mut lines = vec![row("Cluster", &self.cluster), row("Version", self.version)];
        for authority in &self.authorities {
            let label = format!("{} CA", authority.kind);
            let turning = match authority.stage {
                "stable" => String::new(),
                stage => format!(" (rotation: {stage}; `auth status` says more)"),
            };
            lines.push(row(&label, &format!("{}{turning}", authority.fingerprint)));
        }
        lines.join("\n")
    }
}

/// A request in a certificate that is not in effect.
#[derive(Debug, Serialize)]
struct Inactive {
    id: String,
    /// What became of it, and what brings it back.
    why: String,
}

/// A request that was approved for later.
#[derive(Debug, Serialize)]
struct Scheduled {
    id: String,
    assume_start_time: String,
    #[serde(skip)]
    starts: OffsetDateTime,
}

impl Scheduled {
    fn new(request: &AccessRequest) -> Self {
        Self {
            id: request.id.to_string(),
            assume_start_time: say::rfc3339(request.starts()),
            starts: request.starts(),
        }
    }
}

impl<I: CommandIo> Run<'_, I> {
    /// Nobody gets further who isn't a user any more.
    pub(crate) fn admit(&self) -> Result<(), Stop> {
        admitted(self.ctx, self.caller)
    }

    pub(crate) async fn status(&mut self, args: StatusArgs) -> Ended {
        let listing = args.listing;
        if args.server {
            return self.status_of_server(listing).await;
        }
        let identity = match self.caller {
            Caller::Local => return self.status_of_cluster(listing).await,
            Caller::Ssh { identity, .. } => identity.clone(),
        };
        let status = self.status_of(&identity);
        let now = self.ctx.state.now();
        let object = StatusObject {
            active: Active::of(&status),
            status: &status,
        };
        self.listing(listing.format, &object, || status.render(now))
            .await?;
        Ok(Exit::Done)
    }

    /// What `tctl status` prints: the local administrator has no access of her own to show.
    async fn status_of_cluster(&mut self, listing: Listing) -> Ended {
        let authorities = self.ctx.state.authorities();
        let kinds = authorities.iter().flat_map(|all| {
            AuthorityKind::ALL
                .into_iter()
                .map(|kind| (kind, all.record(kind)))
        });
        let cluster = ClusterStatus {
            cluster: self.ctx.state.cluster().to_string(),
            version: env!("CARGO_PKG_VERSION"),
            authorities: kinds
                .map(|(kind, record)| AuthorityStatus {
                    kind: kind.as_str(),
                    stage: record.stage.as_str(),
                    fingerprint: print(&record.signing),
                })
                .collect(),
        };
        self.listing(listing.format, &cluster, || cluster.render())
            .await?;
        Ok(Exit::Done)
    }

    /// How the proxy is, for those who may read its log.
    async fn status_of_server(&mut self, listing: Listing) -> Ended {
        self.require(AdminVerb::List, AdminObject::Events)?;
        let Some(pulse) = self.ctx.pulse.clone() else {
            return Err(Stop::new(Exit::Unavailable, "no proxy runs here"));
        };
        let vitals = pulse.take().await;
        self.listing(listing.format, &vitals, || vitals.render())
            .await?;
        Ok(Exit::Done)
    }

    pub(crate) fn status_text(&self, identity: &Identity) -> String {
        self.status_of(identity).render(self.ctx.state.now())
    }

    /// The status of a certificate that was just issued, read and judged like one that is presented.
    pub(crate) fn status_of_certificate(&self, issued: &LoggedIn, from: IpAddr) -> String {
        let (view, now) = (self.ctx.state.view(), self.ctx.state.now());
        let (trusted, retired) = self.ctx.state.user_authorities();
        let conditions = Conditions {
            authorities: &trusted,
            retired: &retired,
            now,
            from,
        };
        let blob = issued.certificate.as_ssh().to_bytes().unwrap_or_default();
        let read = verify(&blob, &conditions, |serial| {
            view.credential(serial.get()).cloned()
        });
        match read {
            Ok(verified) => self.status_text(&verified.into_identity()),
            Err(why) => format!(
                "The certificate does not open anything any more: {}",
                clean(&why.to_string())
            ),
        }
    }

    fn status_of(&self, identity: &Identity) -> Status {
        let view = self.ctx.state.view();
        let usable = policy::visible_nodes(&view, identity, self.ctx.state.now());
        let logins: BTreeSet<&Login> = usable.iter().flat_map(|node| node.logins.iter()).collect();
        let logins = logins.into_iter().map(ToString::to_string).collect();
        if let Some(held) = identity.credential() {
            let mut status = Status::of_certificate(&view, identity.user(), held);
            status.logins = logins;
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
            return status;
        }
        let active = self.active(identity);
        let scheduled = self.scheduled(identity);
        let mut roles: BTreeSet<String> = BTreeSet::new();
        if let Some(user) = view.user(identity.user()) {
            roles.extend(user.roles.iter().map(ToString::to_string));
        }
        let mut added: BTreeSet<&ResourceId> = BTreeSet::new();
        for granted in active.iter().filter_map(|request| request.granted.as_ref()) {
            roles.extend(granted.roles.iter().map(ToString::to_string));
            match &granted.reach {
                Reach::Roles => {}
                Reach::Resources(ids) => added.extend(ids),
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
            scheduled_requests: scheduled.iter().map(|one| Scheduled::new(one)).collect(),
            roles: roles.into_iter().collect(),
            logins,
            allowed_resources: None,
            added_resources: added.into_iter().map(ToString::to_string).collect(),
            valid_until: ends.map(say::rfc3339),
            extensions: extensions(&view, identity, &usable, self.ctx.state.now()),
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

/// Nobody gets further who isn't a user any more, or is locked out.
pub(crate) fn admitted(ctx: &Context, caller: &Caller) -> Result<(), Stop> {
    let Caller::Ssh { identity, .. } = caller else {
        return Ok(());
    };
    let view = ctx.state.view();
    let gone = || Stop::denied("you are not a user of this proxy any more; ask its administrator");
    let user = view.user(identity.user()).ok_or_else(gone)?;
    if !user.has_key(identity.key()) {
        return Err(Stop::denied(
            "this key is not registered for you any more; use another one, or ask the proxy's administrator",
        ));
    }
    let now = ctx.state.now();
    if let Some(lock) = view.locks().on_person(user, Some(identity.key()), now) {
        return Err(Stop::denied(say::own_lock(lock)));
    }
    if let Some(_certificate) = identity.credential()
        && let Err(reason) = policy::admit(&view, identity, ctx.state.now())
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
    /// What a certificate says of its holder; which of its requests are in effect is judged apart.
    fn of_certificate(view: &View, user: &UserName, held: &Credential) -> Self {
        let claims = &held.claims;
        let allowed = match &claims.allowed {
            AllowedResources::Unrestricted => None,
            AllowedResources::Only(ids) => Some(ids.iter().map(ToString::to_string).collect()),
        };
        Self {
            cluster: view.cluster().to_string(),
            username: user.to_string(),
            key: String::new(),
            active_requests: Vec::new(),
            inactive_requests: Vec::new(),
            scheduled_requests: Vec::new(),
            roles: claims.roles.iter().map(ToString::to_string).collect(),
            logins: BTreeSet::new(),
            allowed_resources: allowed,
            added_resources: Vec::new(),
            valid_until: Some(say::rfc3339(held.valid_before)),
            extensions: held.permits.clone(),
            ends: Some(held.valid_before),
        }
    }

    /// The layout of `tsh status`.
    fn render(&self, now: OffsetDateTime) -> String {
        let quoted = |ids: &[String]| {
            let ids: Vec<String> = ids.iter().map(|id| say::quote(id)).collect();
            format!("[{}]", ids.join(","))
        };
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
        for later in &self.scheduled_requests {
            let opens = format!("{} opens {}", later.id, say::stamp(later.starts));
            lines.push(line("  Scheduled", &opens));
        }
        lines.push(line("  Roles", &or_none(&self.roles)));
        lines.push(line("  Logins", &or_none(&self.logins)));
        match &self.allowed_resources {
            Some(allowed) => lines.push(line("  Allowed Resources", &quoted(allowed))),
            // A plain key is not restricted to what requests gave.
            None if !self.added_resources.is_empty() => lines.push(line(
                "  Allowed Resources",
                &format!(
                    "what the standing roles reach, and by requests {}",
                    quoted(&self.added_resources)
                ),
            )),
            None => {}
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
        lines.push(line("  Extensions", &or_none(&self.extensions)));
        lines.join("\n")
    }
}

fn line(label: &str, value: &str) -> String {
    format!("{:<21}{}", format!("{label}:"), clean(value))
}

fn or_none<'a>(items: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<&str> = items.into_iter().map(String::as_str).collect();
    if items.is_empty() {
        "[none]".to_owned()
    } else {
        items.join(", ")
    }
}

/// What sessions may do, on any of the nodes that work now, in the words of certificates.
fn extensions(
    view: &View,
    identity: &Identity,
    usable: &[UsableNode],
    now: OffsetDateTime,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for usable in usable.iter().take(NODES_LOOKED_AT) {
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
    found
}

fn extensions_of(capabilities: &Capabilities) -> impl Iterator<Item = String> {
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
    .filter(|(_, allowed)| *allowed)
    .map(|(name, _)| name.to_owned())
}
