//! From a wish to a request: what is asked for, through which roles, until when, and whether
//! something that exists already answers it.

use std::collections::{BTreeMap, BTreeSet};

use time::{Duration, OffsetDateTime};

use crate::admin::{AdminObject, AdminResource, AdminVerb, Rights};
use crate::duration::{format as format_duration, format_instant};
use crate::id::{
    KeyFingerprint, Login, NodeId, RequestId, ResourceId, ResourceKind, RoleName, UserName,
};
use crate::policy::asking::RequestTerms;
use crate::policy::resources::{Thing, Unaskable};
use crate::policy::subject::{Holder, Subject};
use crate::policy::{Ask, Identity, Reason};
use crate::role::{DurationFrom, ReasonMode, Role, Threshold};
use crate::view::{Settings, View};

use super::{AccessRequest, Actor, Annotations, Reach, Scope, State, ThresholdSet, together};

/// What somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// By name for a role request. For a resource request either empty (every role that helps is
    /// chosen) or the roles to ask through.
    pub roles: BTreeSet<RoleName>,
    /// The resources; [`Reach::Roles`] asks for the roles themselves.
    pub reach: Reach,
    /// What it is to extend to; a command makes it a grant for exactly that.
    pub scope: Scope,
    /// Attributes; only an administrator who files for somebody gives any.
    pub annotations: Annotations,
    /// Why; empty if none is given.
    pub reason: String,
    /// Whom to suggest as reviewers; empty leaves it to the user's roles.
    pub reviewers: BTreeSet<UserName>,
    /// The command of the connection, for reviewers.
    pub command: Option<String>,
    /// Where the connection comes from, for reviewers.
    pub remote_addr: Option<String>,
    /// How long it may stay pending, if less than the usual.
    pub request_ttl: Option<Duration>,
    /// How long a session may last, if less than the usual.
    pub session_ttl: Option<Duration>,
    /// How long the access may last, if less than the roles allow.
    pub max_duration: Option<Duration>,
    /// Not before then.
    pub assume_start: Option<OffsetDateTime>,
}

impl Wanted {
    /// These roles, and nothing said about anything else.
    #[must_use]
    pub fn roles(roles: BTreeSet<RoleName>) -> Self {
        Self::new(roles, Reach::Roles)
    }

    /// These resources, through whatever roles help.
    #[must_use]
    pub fn resources(resources: BTreeSet<ResourceId>) -> Self {
        Self::new(BTreeSet::new(), Reach::Resources(resources))
    }

    /// What a denied connection asks for.
    #[must_use]
    pub fn from_ask(ask: &Ask) -> Self {
        let resources = BTreeSet::from([ask.resource.clone()]);
        Self::new(
            ask.roles.iter().cloned().collect(),
            Reach::Resources(resources),
        )
    }

    fn new(roles: BTreeSet<RoleName>, reach: Reach) -> Self {
        Self {
            roles,
            reach,
            scope: Scope::Any,
            annotations: Annotations::new(),
            reason: String::new(),
            reviewers: BTreeSet::new(),
            command: None,
            remote_addr: None,
            request_ttl: None,
            session_ttl: None,
            max_duration: None,
            assume_start: None,
        }
    }
}

/// What became of a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filed {
    /// A new request, to be stored.
    New(Box<NewRequest>),
    /// An equal one of the same user and key is pending.
    Joined(RequestId),
    /// An approved one, held by this key, gives all of it already.
    Covered(RequestId),
}

/// A request that was just filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRequest {
    /// The request.
    pub request: AccessRequest,
    /// What was wanted and works already, and is therefore not in the request.
    pub reachable: Vec<ResourceId>,
    /// What the roles say to prompt for a reason with; asked before a wish is filed, and not stored.
    pub reason_prompt: Option<String>,
}

/// Why a wish became no request. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilingError {
    /// The user may do nothing at all (locked, removed).
    #[error("{}", .0.as_sentence())]
    Refused(Reason),
    /// Only administrators of requests file for others.
    #[error(
        "only an administrator can file a request for somebody; none of your roles allows `create` on such an `access_request`"
    )]
    NotAllowed,
    /// No role and no resource.
    #[error("nothing is asked for; name a resource with --resource or a role with --roles")]
    NothingWanted,
    /// A role that does not exist or may not be asked for; which of them is not said.
    #[error("role `{0}` can't be asked for; `request search --roles` shows the roles that can")]
    RoleNotRequestable(RoleName),
    /// A role that may not be asked for resources through.
    #[error(
        "resources can't be asked for through role `{0}`; leave --roles out to have the roles chosen"
    )]
    RoleNotSearchable(RoleName),
    /// The user has the role.
    #[error("you have role `{0}` already")]
    RoleHeld(RoleName),
    /// Given roles that open none of the resources.
    #[error("role `{0}` grants none of the resources; leave --roles out to have the roles chosen")]
    RoleDoesNotHelp(RoleName),
    /// A resource that does not exist or may not be known; which of them is not said.
    #[error(
        "there is no resource `{0}` that you may ask for; `request search --kind {kind}` shows those you may",
        kind = .0.kind().searched_as()
    )]
    UnknownResource(ResourceId),
    /// Objects in a Kubernetes cluster, or all of it, that no role to ask through grants.
    #[error(
        "no role that you may ask through grants all of `{0}`; `request search --kind kube_resource --kube-cluster {cluster}` shows what they grant",
        cluster = .0.registered().map_or("NAME", |(_, name)| name)
    )]
    NotGranted(ResourceId),
    /// Kinds of objects that the user's roles don't let her ask for.
    #[error("`{resource}` can't be asked for: in a Kubernetes cluster your roles let you ask for {}", kinds(.possible, .never))]
    KubeKinds {
        /// What was asked for.
        resource: Box<ResourceId>,
        /// The kinds that may be, as in `deployments.apps`; empty where all may be.
        possible: BTreeSet<String>,
        /// The kinds that may not be.
        never: BTreeSet<String>,
    },
    /// A login that no role grants there.
    #[error("login `{login}` can't be asked for on `{resource}`; those that can are: {}", list(.possible))]
    LoginNotRequestable {
        /// The resource.
        resource: Box<ResourceId>,
        /// The login.
        login: Login,
        /// The logins that work or can be asked for.
        possible: BTreeSet<Login>,
    },
    /// Roles that are needed together deny what each other grants.
    #[error(
        "`{0}` can't be asked for together with the rest: a role that the rest needs denies it; file two requests"
    )]
    RolesConflict(ResourceId),
    /// One command of a role as a whole.
    #[error(
        "a scope of one command needs the node it runs on; name it with --resource, or leave the scope out"
    )]
    ScopeWithoutResource,
    /// A command that no certificate can carry.
    #[error(
        "a scope of one command takes a command of 1 to {limit} bytes, without a null character; this one has {bytes} bytes"
    )]
    ScopeCommand {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// Everything wanted works already.
    #[error("you can reach {} already{}", list(.0), if .0.iter().any(|id| id.node_id().is_some()) { "; connect with ssh" } else { "" })]
    Reachable(Vec<ResourceId>),
    /// More resources than the limit.
    #[error(
        "{count} resources are asked for; the limit is {limit}, so ask for a role instead or split the request"
    )]
    TooManyResources {
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// Resource IDs too long together.
    #[error("the resource IDs take {bytes} bytes; the limit is {limit}, so split the request")]
    ResourcesTooLong {
        /// Their sum.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The reason is too long.
    #[error("the reason is {bytes} bytes long; the limit is {limit}")]
    ReasonTooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// A role demands a reason.
    #[error("a reason is required{}; give one with --reason or SetEnv ANTEROOM_REASON=…", asked(.prompt.as_deref()))]
    ReasonRequired {
        /// What the role says to prompt with.
        prompt: Option<String>,
    },
    /// An equal request is pending, and has no reason; by now a role demands one.
    #[error(
        "request {0} is pending without a reason, and one is required by now; withdraw it with `request cancel {0}` and ask again with a reason"
    )]
    PendingWithoutReason(RequestId),
    /// Too many reviewers suggested.
    #[error("{count} reviewers are suggested; the limit is {limit}")]
    TooManyReviewers {
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// The user's roles and traits write too much on it.
    #[error(
        "your roles' request.annotations take {bytes} bytes with your traits in them; the limit is {limit}, so an administrator has to shorten them"
    )]
    AnnotationsTooLong {
        /// Their sum.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The user's pending requests reached the cap.
    #[error(
        "{limit} of your requests are pending, which is the limit; cancel one with `request cancel ID`"
    )]
    TooManyPending {
        /// The most.
        limit: usize,
    },
    /// The certificate that was presented has less than a second left.
    #[error("your certificate ends within a second; get another one with `login`")]
    CertificateEnding,
    /// `assume_start` is in the past.
    #[error("the start {} is over; it is now {}", format_instant(*.start), format_instant(*.now))]
    StartInPast {
        /// The start.
        start: OffsetDateTime,
        /// The present.
        now: OffsetDateTime,
    },
    /// `assume_start` is too far ahead.
    #[error("the start {} is more than {} ahead", format_instant(*.start), format_duration(*.limit))]
    StartTooFar {
        /// The start.
        start: OffsetDateTime,
        /// How far ahead it may be.
        limit: Duration,
    },
    /// The access would be over before it starts.
    #[error("the access would end at {}, not after its start at {}", format_instant(*.end), format_instant(*.start))]
    StartsAfterEnd {
        /// The start.
        start: OffsetDateTime,
        /// The end.
        end: OffsetDateTime,
    },
}

/// What a role says to prompt with, inside the sentence about the missing reason.
fn asked(prompt: Option<&str>) -> String {
    prompt.map_or_else(String::new, |prompt| format!(" (\"{prompt}\")"))
}

fn kinds(possible: &BTreeSet<String>, never: &BTreeSet<String>) -> String {
    match (possible.is_empty(), never.is_empty()) {
        (false, true) => format!("objects of these kinds only: {}", list(possible)),
        (false, false) => format!(
            "objects of these kinds only: {}, and never of {}",
            list(possible),
            list(never)
        ),
        (true, _) => format!("single objects that are not of {}", list(never)),
    }
}

/// Things in backticks, for a message.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| format!("`{}`", item.to_string()))
        .collect();
    items.join(", ")
}

/// The most reviewers a request may suggest: each is told, so this bounds what one person sets off.
const REVIEWERS_LIMIT: usize = 20;

/// Turns a wish into a request with the identity `id`, or into the one that answers it already.
/// Nothing is written: a dry run is a call whose result is dropped.
///
/// # Errors
/// [`FilingError`] says what is wrong and what to do.
pub fn file(
    view: &View,
    identity: &Identity,
    wanted: &Wanted,
    id: RequestId,
    now: OffsetDateTime,
) -> Result<Filed, FilingError> {
    let filer = Filer {
        user: identity.user(),
        key: Some(identity.key()),
        holder: identity.holder(),
        by: None,
    };
    file_as(view, &filer, wanted, id, now)
}

/// Files for `user` what she could ask for herself, in the name of the administrator `by`. What it
/// grants belongs to her one key; if she has several, to none until one takes it up
/// ([`super::Action::Assume`]): nobody said which of them is meant.
///
/// # Errors
/// As [`file()`], and [`FilingError::NotAllowed`] if `by` may not file that for her.
pub fn file_for(
    view: &View,
    user: &UserName,
    by: &Actor,
    wanted: &Wanted,
    id: RequestId,
    now: OffsetDateTime,
) -> Result<Filed, FilingError> {
    let rights = match by {
        Actor::User(name) => {
            let resource = AdminResource::AccessRequest;
            Some(Rights::new(view, name, AdminVerb::Create, resource))
        }
        Actor::LocalAdministrator => None,
        Actor::Rule(_) | Actor::Clock => return Err(FilingError::NotAllowed),
    };
    if rights.as_ref().is_some_and(|rights| !rights.exist()) {
        return Err(FilingError::NotAllowed);
    }
    let keys = view.user(user).map(|user| user.keys.as_slice());
    let key = match keys {
        Some([only]) => Some(&only.fingerprint),
        Some(_) | None => None,
    };
    let filer = Filer {
        user,
        key,
        holder: key.map_or(Holder::AnyKey, Holder::Key),
        by: Some(by),
    };
    let about_her = |rights: &Rights<'_>| rights.cover(AdminObject::RequestsOf(user));
    let filed = match file_as(view, &filer, wanted, id, now) {
        Ok(filed) => filed,
        // Why she can't have it tells what she has, which is for those who may know it.
        Err(_) if !rights.as_ref().is_none_or(about_her) => return Err(FilingError::NotAllowed),
        Err(error) => return Err(error),
    };
    // Judged with the request that comes out: before, there is nothing that rules could see.
    let request = match &filed {
        Filed::New(new) => Some(&new.request),
        Filed::Joined(id) | Filed::Covered(id) => view.request(id).map(AsRef::as_ref),
    };
    let covers = |rights: &Rights<'_>| {
        request.is_some_and(|request| rights.cover(AdminObject::AccessRequest(request)))
    };
    if rights.as_ref().is_none_or(covers) {
        Ok(filed)
    } else {
        Err(FilingError::NotAllowed)
    }
}

/// For whom something is filed, to which key it belongs, and who files it if not the user.
struct Filer<'a> {
    user: &'a UserName,
    key: Option<&'a KeyFingerprint>,
    holder: Holder<'a>,
    by: Option<&'a Actor>,
}

fn file_as(
    view: &View,
    filer: &Filer<'_>,
    wanted: &Wanted,
    id: RequestId,
    now: OffsetDateTime,
) -> Result<Filed, FilingError> {
    let settings = view.settings();
    check_limits(wanted, settings)?;
    check_start(wanted, settings, now)?;
    // Who is locked out now asks for nothing, also not for when the lock has ended.
    if let Some(user) = view.user(filer.user)
        && let Some(lock) = view.locks().on_person(user, filer.key, now)
    {
        return Err(FilingError::Refused(Reason::of(lock)));
    }
    check_scope(wanted)?;
    // What works already is judged at the instant for which access is wanted.
    let at = wanted.assume_start.unwrap_or(now);
    let subject = Subject::new(view, filer.user, filer.holder, at)
        .map_err(FilingError::Refused)?
        .running(wanted.scope.command().map(str::as_bytes));
    let choice = match &wanted.reach {
        Reach::Roles => choose_roles(&subject, &wanted.roles)?,
        Reach::Resources(ids) => choose_resources(&subject, &wanted.roles, ids)?,
    };
    let choice = match choice {
        Choice::Ask(choice) => choice,
        Choice::Covered(request) => return Ok(Filed::Covered(request)),
    };
    let terms = subject.request_terms(&choice.reach, choice.roles.iter());
    let times = Times::new(&subject, &choice, &terms, wanted, now)?;
    let required = terms.reason_mode == ReasonMode::Required;
    if let Some(pending) = equal_pending(view, filer, &choice, &times, wanted, now) {
        return if required && pending.reason.trim().is_empty() {
            Err(FilingError::PendingWithoutReason(pending.id))
        } else {
            Ok(Filed::Joined(pending.id))
        };
    }
    if required && wanted.reason.trim().is_empty() {
        return Err(FilingError::ReasonRequired {
            prompt: terms.reason_prompt,
        });
    }
    let pending = view
        .live_requests_of(filer.user)
        .filter(|request| request.state == State::Pending && now < request.request_expires);
    if pending.count() >= settings.pending_per_user {
        return Err(FilingError::TooManyPending {
            limit: settings.pending_per_user,
        });
    }
    let annotations = subject.annotations(&terms, &wanted.annotations);
    check_annotations(&annotations)?;
    let reason_prompt = terms.reason_prompt.clone();
    let mut request = compose(filer, wanted, &choice, terms, &times, settings, id, now);
    request.system_annotations = annotations;
    Ok(Filed::New(Box::new(NewRequest {
        request,
        reachable: choice.reachable,
        reason_prompt,
    })))
}

fn check_limits(wanted: &Wanted, settings: &Settings) -> Result<(), FilingError> {
    if wanted.reason.len() > settings.reason_bytes {
        return Err(FilingError::ReasonTooLong {
            bytes: wanted.reason.len(),
            limit: settings.reason_bytes,
        });
    }
    if wanted.reviewers.len() > REVIEWERS_LIMIT {
        return Err(FilingError::TooManyReviewers {
            count: wanted.reviewers.len(),
            limit: REVIEWERS_LIMIT,
        });
    }
    let count = wanted.reach.resources().count();
    if count > settings.resources_per_request {
        return Err(FilingError::TooManyResources {
            count,
            limit: settings.resources_per_request,
        });
    }
    let bytes = wanted
        .reach
        .resources()
        .map(|id| id.to_string().len())
        .sum();
    if bytes > settings.resource_bytes {
        return Err(FilingError::ResourcesTooLong {
            bytes,
            limit: settings.resource_bytes,
        });
    }
    Ok(())
}

/// The most that roles may write on one request, names and values together, in bytes: traits with
/// very many values would make every listing of requests carry them.
const ANNOTATION_BYTES: usize = 32 * 1024;

fn check_annotations(annotations: &Annotations) -> Result<(), FilingError> {
    let values = |values: &BTreeSet<String>| values.iter().map(String::len).sum::<usize>();
    let entry = |(key, of): (&String, &BTreeSet<String>)| key.len() + values(of);
    let bytes: usize = annotations.iter().map(entry).sum();
    if bytes > ANNOTATION_BYTES {
        return Err(FilingError::AnnotationsTooLong {
            bytes,
            limit: ANNOTATION_BYTES,
        });
    }
    Ok(())
}

fn check_scope(wanted: &Wanted) -> Result<(), FilingError> {
    let Some(command) = wanted.scope.command() else {
        return Ok(());
    };
    let (bytes, limit) = (command.len(), Scope::COMMAND_LIMIT);
    if bytes > limit || command.trim().is_empty() || command.contains('\0') {
        return Err(FilingError::ScopeCommand { bytes, limit });
    }
    match wanted.reach {
        Reach::Roles => Err(FilingError::ScopeWithoutResource),
        Reach::Resources(_) => Ok(()),
    }
}

fn check_start(
    wanted: &Wanted,
    settings: &Settings,
    now: OffsetDateTime,
) -> Result<(), FilingError> {
    let Some(start) = wanted.assume_start else {
        return Ok(());
    };
    if start < now {
        return Err(FilingError::StartInPast { start, now });
    }
    if start - now > settings.assume_start_ahead {
        return Err(FilingError::StartTooFar {
            start,
            limit: settings.assume_start_ahead,
        });
    }
    Ok(())
}

/// What is to be asked for, or what gives it already.
enum Choice {
    Ask(Chosen),
    Covered(RequestId),
}

struct Chosen {
    roles: BTreeSet<RoleName>,
    reach: Reach,
    reachable: Vec<ResourceId>,
}

fn choose_roles(subject: &Subject<'_>, wanted: &BTreeSet<RoleName>) -> Result<Choice, FilingError> {
    if wanted.is_empty() {
        return Err(FilingError::NothingWanted);
    }
    for role in wanted {
        let exists = subject.view.role(role).is_some();
        if !exists || !subject.may_request(&Reach::Roles, role) {
            return Err(FilingError::RoleNotRequestable(role.clone()));
        }
        if subject.user.roles.contains(role) {
            return Err(FilingError::RoleHeld(role.clone()));
        }
    }
    if let Some(request) = subject.open_role_request(wanted) {
        return Ok(Choice::Covered(request));
    }
    Ok(Choice::Ask(Chosen {
        roles: wanted.clone(),
        reach: Reach::Roles,
        reachable: Vec::new(),
    }))
}

/// Chooses the roles that really open something, narrows the resources to what does not work
/// yet, and says what does.
fn choose_resources(
    subject: &Subject<'_>,
    through: &BTreeSet<RoleName>,
    ids: &BTreeSet<ResourceId>,
) -> Result<Choice, FilingError> {
    if let Some(role) = through.iter().find(|role| !subject.may_search(role)) {
        return Err(FilingError::RoleNotSearchable(role.clone()));
    }
    let mut chosen = Chosen {
        roles: BTreeSet::new(),
        reach: Reach::Roles,
        reachable: Vec::new(),
    };
    let mut needed = BTreeSet::new();
    for id in merge(ids) {
        match choose_resource(subject, through, id)? {
            Need::All(id, roles) => {
                needed.insert(id);
                chosen.roles.extend(roles);
            }
            Need::Part {
                missing,
                works,
                roles,
            } => {
                needed.insert(missing);
                chosen.reachable.push(works);
                chosen.roles.extend(roles);
            }
            Need::Nothing(id) => chosen.reachable.push(id),
        }
    }
    if needed.is_empty() {
        if chosen.reachable.is_empty() {
            return Err(FilingError::NothingWanted);
        }
        return match subject.open_resource_request(&chosen.reachable) {
            Some(request) => Ok(Choice::Covered(request)),
            None => Err(FilingError::Reachable(chosen.reachable)),
        };
    }
    together::settle(subject, &mut chosen.roles, &needed)?;
    if let Some(idle) = through.iter().find(|role| !chosen.roles.contains(*role)) {
        return Err(FilingError::RoleDoesNotHelp(idle.clone()));
    }
    chosen.reach = Reach::Resources(needed);
    Ok(Choice::Ask(chosen))
}

/// One ID per resource: all logins, if any of several says so, else the logins of all of them.
fn merge(ids: &BTreeSet<ResourceId>) -> Vec<ResourceId> {
    let mut merged: BTreeMap<ResourceId, Option<BTreeSet<Login>>> = BTreeMap::new();
    for id in ids {
        let logins = id.logins().cloned();
        merged
            .entry(id.clone().without_logins())
            .and_modify(|known| match (&mut *known, &logins) {
                (Some(known), Some(more)) => known.extend(more.iter().cloned()),
                (None, _) | (_, None) => *known = None,
            })
            .or_insert(logins);
    }
    let narrow = |(id, logins): (ResourceId, Option<BTreeSet<Login>>)| match logins {
        Some(logins) => id.with_logins(logins),
        None => Some(id),
    };
    merged.into_iter().filter_map(narrow).collect()
}

/// How much of one resource has to be asked for.
enum Need {
    All(ResourceId, BTreeSet<RoleName>),
    Part {
        missing: ResourceId,
        works: ResourceId,
        roles: BTreeSet<RoleName>,
    },
    Nothing(ResourceId),
}

fn choose_resource(
    subject: &Subject<'_>,
    through: &BTreeSet<RoleName>,
    id: ResourceId,
) -> Result<Need, FilingError> {
    if *id.kind() != ResourceKind::Node {
        return choose_thing(subject, through, id);
    }
    let local = id.cluster() == subject.view.cluster();
    let node = id
        .node_id()
        .filter(|_| local)
        .and_then(|node: NodeId| subject.view.node(&node));
    let Some(node) = node else {
        return Err(FilingError::UnknownResource(id));
    };
    let usable = subject.usable_logins(node);
    let mut askable = subject.askable_logins(node);
    if usable.is_empty() && askable.is_empty() {
        return Err(if subject.may_know(node) {
            // Known, and left out by a restricted certificate.
            FilingError::Refused(subject.outside())
        } else {
            FilingError::UnknownResource(id)
        });
    }
    if !through.is_empty() {
        askable
            .values_mut()
            .for_each(|roles| roles.retain(|role| through.contains(role)));
        askable.retain(|_, roles| !roles.is_empty());
    }
    let Some(logins) = id.logins() else {
        let roles: BTreeSet<RoleName> = askable.into_values().flatten().collect();
        if let (true, Some(idle)) = (roles.is_empty(), through.first()) {
            return Err(FilingError::RoleDoesNotHelp(idle.clone()));
        }
        return Ok(if roles.is_empty() {
            Need::Nothing(id)
        } else {
            Need::All(id, roles)
        });
    };
    let (works, missing): (BTreeSet<Login>, BTreeSet<Login>) = logins
        .iter()
        .cloned()
        .partition(|login| usable.contains(login));
    let mut roles = BTreeSet::new();
    for login in &missing {
        let Some(candidates) = askable.get(login) else {
            let possible = usable.iter().chain(askable.keys()).cloned().collect();
            return Err(FilingError::LoginNotRequestable {
                login: login.clone(),
                resource: Box::new(id.clone()),
                possible,
            });
        };
        roles.extend(subject.fewest_logins(candidates));
    }
    let whole = id.clone();
    Ok(
        match (id.clone().with_logins(works), id.with_logins(missing)) {
            (Some(works), Some(missing)) => Need::Part {
                missing,
                works,
                roles,
            },
            (None, Some(missing)) => Need::All(missing, roles),
            (Some(_) | None, None) => Need::Nothing(whole),
        },
    )
}

/// The same for what is no node: all of it or nothing, through every role that really grants it.
fn choose_thing(
    subject: &Subject<'_>,
    through: &BTreeSet<RoleName>,
    id: ResourceId,
) -> Result<Need, FilingError> {
    let thing = Thing::named(subject.view, &id).filter(|thing| {
        // Unknown and forbidden look alike.
        subject.may_know_resource(thing.resource)
    });
    let Some(thing) = thing else {
        return Err(FilingError::UnknownResource(id));
    };
    if subject.reaches_thing(&thing) {
        return Ok(Need::Nothing(id));
    }
    if !subject.includes_id(&id) {
        return Err(FilingError::Refused(subject.outside()));
    }
    let mut roles = subject.roles_to_ask(&thing);
    if roles.is_empty() {
        return Err(match subject.why_unaskable(&thing) {
            Unaskable::NotGranted => FilingError::NotGranted(id),
            Unaskable::Kinds { possible, never } => FilingError::KubeKinds {
                resource: Box::new(id),
                possible,
                never,
            },
        });
    }
    if let Some(idle) = through.first() {
        roles.retain(|role| through.contains(role));
        if roles.is_empty() {
            return Err(FilingError::RoleDoesNotHelp(idle.clone()));
        }
    }
    Ok(Need::All(id, roles))
}

/// The pending request of the same user and key that asks for exactly this (REQUESTS section 4,
/// joining). Another key does not join: what a grant gives belongs to the key that filed it.
fn equal_pending<'v>(
    view: &'v View,
    filer: &Filer<'_>,
    choice: &Chosen,
    times: &Times,
    wanted: &Wanted,
    now: OffsetDateTime,
) -> Option<&'v AccessRequest> {
    let equal = |request: &&std::sync::Arc<AccessRequest>| {
        request.state == State::Pending
            && now < request.request_expires
            && request.key.as_ref() == filer.key
            && request.scope == wanted.scope
            && request.roles == choice.roles
            && request.reach == choice.reach
            && request.assume_start == wanted.assume_start
            // Whoever names no duration takes the one that was named before.
            && (wanted.max_duration.is_none() || request.duration == times.duration)
            && (wanted.session_ttl.is_none() || request.session_ttl == times.session_ttl)
    };
    view.live_requests_of(filer.user)
        .find(equal)
        .map(AsRef::as_ref)
}

/// The arithmetic of REQUESTS section 4.
struct Times {
    session_ttl: Duration,
    duration: Duration,
    max_duration: Option<Duration>,
    duration_from: DurationFrom,
    request_expires: OffsetDateTime,
    access_expires: OffsetDateTime,
}

impl Times {
    fn new(
        subject: &Subject<'_>,
        choice: &Chosen,
        terms: &RequestTerms<'_>,
        wanted: &Wanted,
        now: OffsetDateTime,
    ) -> Result<Self, FilingError> {
        let settings = subject.view.settings();
        let requested = choice
            .roles
            .iter()
            .filter_map(|name| subject.view.role(name));
        let roles = subject.stored().chain(requested.map(AsRef::as_ref));
        let role_ttl = roles
            .filter_map(|role: &Role| role.options.max_session_ttl)
            .min();
        let rest = subject.certificate_rest();
        let session_ttl = [rest, wanted.session_ttl, role_ttl]
            .into_iter()
            .fold(settings.session_ttl, |ttl, limit| {
                limit.map_or(ttl, |limit| ttl.min(limit))
            });
        // They are stored in whole seconds, and memory is to hold what the disk holds. Nothing else than
        // the rest of a certificate has parts of one.
        let session_ttl = Duration::seconds(session_ttl.whole_seconds());
        if !session_ttl.is_positive() {
            return Err(FilingError::CertificateEnding);
        }
        let limit = terms.max_duration.unwrap_or(session_ttl);
        let duration = wanted
            .max_duration
            .map_or(limit, |wanted| wanted.min(limit));
        let duration_from = terms
            .sources
            .iter()
            .filter_map(|role| role.allow.request.duration_from)
            .min();
        let duration_from = duration_from.unwrap_or_default();
        let access_expires = now + duration;
        let ttl = wanted
            .request_ttl
            .map_or(settings.request_ttl, |w| w.min(settings.request_ttl));
        let request_expires = match duration_from {
            DurationFrom::Creation => (now + ttl).min(access_expires),
            // The access would end so much after whichever instant it is approved at.
            DurationFrom::Approval => now + ttl,
        };
        match (wanted.assume_start, duration_from) {
            (Some(start), DurationFrom::Creation) if start >= access_expires => {
                Err(FilingError::StartsAfterEnd {
                    start,
                    end: access_expires,
                })
            }
            (Some(_) | None, DurationFrom::Creation | DurationFrom::Approval) => Ok(Self {
                session_ttl,
                duration,
                // What is shown is what is given, whatever was wished for.
                max_duration: terms.max_duration.or(wanted.max_duration).map(|_| duration),
                duration_from,
                request_expires,
                access_expires,
            }),
        }
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "each is a different part of the new request"
)]
fn compose(
    filer: &Filer<'_>,
    wanted: &Wanted,
    choice: &Chosen,
    terms: RequestTerms<'_>,
    times: &Times,
    settings: &Settings,
    id: RequestId,
    now: OffsetDateTime,
) -> AccessRequest {
    let mut reviewers: BTreeSet<UserName> = if wanted.reviewers.is_empty() {
        terms.suggested_reviewers
    } else {
        wanted.reviewers.clone()
    };
    reviewers.remove(filer.user);
    let mut thresholds: Vec<ThresholdSet> = Vec::new();
    for role in terms.sources {
        let own = &role.allow.request.thresholds;
        let set = if own.is_empty() {
            vec![Threshold::default()]
        } else {
            own.clone()
        };
        thresholds.push(ThresholdSet {
            role: role.name.clone(),
            thresholds: set,
        });
    }
    AccessRequest {
        id,
        user: filer.user.clone(),
        key: filer.key.cloned(),
        // Who files for herself is the requester, however she does it.
        filed_by: filer
            .by
            .filter(|by| **by != Actor::User(filer.user.clone()))
            .cloned(),
        assumed_by: BTreeSet::new(),
        set_aside: BTreeSet::new(),
        roles: choice.roles.clone(),
        reach: choice.reach.clone(),
        scope: wanted.scope.clone(),
        reason: wanted.reason.clone(),
        command: wanted
            .command
            .as_deref()
            .map(|text| clip(text, settings.reason_bytes)),
        remote_addr: wanted.remote_addr.clone(),
        suggested_reviewers: reviewers,
        system_annotations: Annotations::new(),
        state: State::Pending,
        created: now,
        request_expires: times.request_expires,
        access_expires: times.access_expires,
        duration: times.duration,
        max_duration: times.max_duration,
        session_ttl: times.session_ttl,
        duration_from: times.duration_from,
        assume_start: wanted.assume_start,
        thresholds,
        reviews: Vec::new(),
        granted: None,
        resolved: None,
    }
}

/// The first `limit` bytes of `text`, whole characters only, with a mark where it was cut: a
/// command line of a megabyte is not the requester's fault and no reason to refuse her.
fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mark = "…";
    let end = text
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| end + mark.len() <= limit)
        .last();
    let kept = end.and_then(|end| text.get(..end)).unwrap_or_default();
    format!("{kept}{mark}")
}
