//! From a wish to a request: what is asked for, through which roles, until when, and whether
//! something that exists already answers it.
//!
//! `file_as` has the steps in their order; each step is a module beneath.

mod choice;
mod error;
mod limits;
mod times;

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use crate::admin::{AdminObject, AdminResource, AdminVerb, Rights};
use crate::id::{KeyFingerprint, RequestId, ResourceId, RoleName, UserName};
use crate::policy::asking::RequestTerms;
use crate::policy::subject::{Holder, Subject};
use crate::policy::{Ask, Identity, Reason};
use crate::role::{ReasonMode, Threshold};
use crate::view::{Settings, View};

use super::{AccessRequest, Actor, Annotations, Reach, Scope, State, ThresholdSet};
use choice::{Choice, Chosen, choose_resources, choose_roles};
use limits::{check_annotations, check_limits, check_scope, check_start};
use times::Times;

pub use error::FilingError;

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
