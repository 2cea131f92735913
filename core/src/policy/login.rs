//! Who may hold which identity certificate, and until when: `login` and `request drop` (REQUESTS section 5).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use time::{Duration, OffsetDateTime};

use crate::credential::{AllowedResources, Claims, Credential};
use crate::duration::format_instant;
use crate::id::{KeyFingerprint, RequestId, RoleName, UserName};
use crate::request::{AccessRequest, Reach, State};
use crate::role::{Demand, Role};
use crate::user::User;
use crate::view::View;

use super::evaluate::capabilities;
use super::subject::Subject;
use super::{Capabilities, Identity, Reason};

/// What somebody logs in for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginWanted {
    /// The approved requests to take into the certificate; at most one of them for resources. With a
    /// certificate presented, its own stay.
    pub requests: BTreeSet<RequestId>,
    /// How long it may last, if less than the usual.
    pub ttl: Option<Duration>,
    /// Where she comes from, to pin it to where a role demands that.
    pub from: Option<IpAddr>,
    /// The key to certify, as an OpenSSH line, in place of the one that she came with: one that she has
    /// just been given, for her agent.
    pub fresh_key: Option<String>,
}

/// The proof that an identity certificate may be issued, and its terms. Only [`login`] and
/// [`drop_requests`] make one; `ca::user::certify` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginPermit {
    user: UserName,
    key: KeyFingerprint,
    subject: String,
    presented: Option<u64>,
    valid_before: OffsetDateTime,
    claims: Claims,
    capabilities: Capabilities,
}

impl LoginPermit {
    /// Whose certificate.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// The registered key that the login was made with.
    #[must_use]
    pub fn key(&self) -> &KeyFingerprint {
        &self.key
    }

    /// The key to certify, as an OpenSSH line.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The serial number of the certificate that was presented, if one was.
    #[must_use]
    pub fn presented(&self) -> Option<u64> {
        self.presented
    }

    /// When it ends, in whole seconds; never after the presented one.
    #[must_use]
    pub fn valid_before(&self) -> OffsetDateTime {
        self.valid_before
    }

    /// What it says.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// What sessions may do at most, under any of its roles.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
}

/// Why there is no certificate to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// The user may do nothing at all.
    #[error("{}", .0.as_sentence())]
    Refused(Reason),
    /// Not hers, or not there; which of them is not said.
    #[error("there is no request `{0}` of yours; `request ls --mine` shows those there are")]
    NoSuchRequest(RequestId),
    /// Not approved.
    #[error("request {id} is {state}; only an approved one can be taken into a certificate")]
    NotApproved {
        /// The request.
        id: RequestId,
        /// Its state.
        state: State,
    },
    /// Its window is not open yet.
    #[error("request {id} opens at {}; log in then", format_instant(*.starts))]
    NotYet {
        /// The request.
        id: RequestId,
        /// When it opens.
        starts: OffsetDateTime,
    },
    /// Its time is over.
    #[error("the access of request {id} ended at {}; ask again", format_instant(*.ended))]
    Over {
        /// The request.
        id: RequestId,
        /// When it ended.
        ended: OffsetDateTime,
    },
    /// Another key holds it, or it was dropped.
    #[error("this key does not hold request {0}; take it up with `request assume {0}`")]
    NotHeld(RequestId),
    /// The right to ask for one of its roles is gone.
    #[error("request {id} is approved, but you may no longer ask for its roles")]
    NoLongerRequestable {
        /// The request.
        id: RequestId,
    },
    /// Two restrictions cannot both hold.
    #[error(
        "requests {0} and {1} both ask for resources, and a certificate carries one such request; \
         drop one of them first"
    )]
    SeveralResourceRequests(RequestId, RequestId),
    /// There is no certificate to drop anything from.
    #[error("no certificate was presented; there is none to replace")]
    NoCertificate,
    /// The certificate does not carry the request.
    #[error(
        "request {0} is not in the certificate that was presented; `status` shows those that are"
    )]
    NotInCertificate(RequestId),
    /// It would be over before it could be used.
    #[error("the certificate would end at {}, which is over; log in with your key", format_instant(*.0))]
    NothingLeft(OffsetDateTime),
}

/// Decides on an identity certificate for `identity` at `now`, with the requests that `wanted` names.
///
/// With a plain key it begins a login. With a certificate presented it stays within that one's: the same
/// subject key, its requests and those named, and no later end.
///
/// # Errors
/// [`LoginRefused`] says what is in the way and what to do.
pub fn login(
    view: &View,
    identity: &Identity,
    wanted: &LoginWanted,
    now: OffsetDateTime,
) -> Result<LoginPermit, LoginRefused> {
    let subject = subject(view, identity, now)?;
    let mut named = wanted.requests.clone();
    if let Some(presented) = identity.credential() {
        named.extend(&presented.claims.requests);
    }
    let requests = named
        .iter()
        .map(|id| assumable(view, &subject, identity, id, now))
        .collect::<Result<Vec<_>, _>>()?;
    compose(view, &subject, identity, &requests, wanted, now)
}

/// Decides on the certificate that takes the place of the presented one without the requests in `ids`
/// (all of them, if `ids` is empty): the same key, standing roles back, and the very same end.
///
/// # Errors
/// [`LoginRefused`]; among others if no certificate was presented or it does not carry a request named.
pub fn drop_requests(
    view: &View,
    identity: &Identity,
    ids: &BTreeSet<RequestId>,
    from: Option<IpAddr>,
    now: OffsetDateTime,
) -> Result<LoginPermit, LoginRefused> {
    let presented = identity.credential().ok_or(LoginRefused::NoCertificate)?;
    let subject = subject(view, identity, now)?;
    let carried = &presented.claims.requests;
    if let Some(other) = ids.iter().find(|id| !carried.contains(id)) {
        return Err(LoginRefused::NotInCertificate(*other));
    }
    // What of the rest is over gives nothing any more, and need not be dropped by name.
    let kept = carried
        .iter()
        .filter(|id| !ids.is_empty() && !ids.contains(id))
        .filter_map(|id| assumable(view, &subject, identity, id, now).ok())
        .collect::<Vec<_>>();
    let wanted = LoginWanted {
        from,
        ..LoginWanted::default()
    };
    let mut permit = compose(view, &subject, identity, &kept, &wanted, now)?;
    permit.valid_before = presented.valid_before;
    Ok(permit)
}

fn subject<'a>(
    view: &'a View,
    identity: &'a Identity,
    now: OffsetDateTime,
) -> Result<Subject<'a>, LoginRefused> {
    Subject::new(view, identity.user(), identity.holder(), now).map_err(LoginRefused::Refused)
}

/// The request, if it may go into a certificate of this key now.
fn assumable<'a>(
    view: &'a View,
    subject: &Subject<'_>,
    identity: &Identity,
    id: &RequestId,
    now: OffsetDateTime,
) -> Result<&'a AccessRequest, LoginRefused> {
    let own = view
        .request(id)
        .filter(|request| request.user == *identity.user());
    let request = own.ok_or(LoginRefused::NoSuchRequest(*id))?;
    let id = request.id;
    match request.state {
        State::Approved if now >= request.access_expires => {
            let ended = request.access_expires;
            return Err(LoginRefused::Over { id, ended });
        }
        State::Approved if now < request.starts() => {
            let starts = request.starts();
            return Err(LoginRefused::NotYet { id, starts });
        }
        State::Approved => {}
        state @ (State::Pending
        | State::Denied
        | State::Expired
        | State::Canceled
        | State::Revoked) => return Err(LoginRefused::NotApproved { id, state }),
    }
    if !request.is_held_by(identity.key()) {
        return Err(LoginRefused::NotHeld(id));
    }
    let granted = request
        .granted
        .as_ref()
        .filter(|granted| {
            let mut roles = granted.roles.iter();
            roles.any(|role| subject.still_gives(granted, role))
        })
        .ok_or(LoginRefused::NoLongerRequestable { id })?;
    match &granted.reach {
        Reach::Resources(ids) if ids.is_empty() => Err(LoginRefused::NoLongerRequestable { id }),
        Reach::Resources(_) | Reach::Roles => Ok(request),
    }
}

fn compose(
    view: &View,
    subject: &Subject<'_>,
    identity: &Identity,
    requests: &[&AccessRequest],
    wanted: &LoginWanted,
    now: OffsetDateTime,
) -> Result<LoginPermit, LoginRefused> {
    let presented = identity.credential();
    let own_key = certified_key(subject.user, identity)?;
    // Standing roles as they are stored now: what was taken away meanwhile does not come back.
    let mut names: BTreeSet<RoleName> = subject.user.roles.clone();
    names.extend(granted_roles(subject, requests));
    let roles: Vec<&Role> = names
        .iter()
        .filter_map(|name| view.role(name))
        .map(AsRef::as_ref)
        .collect();
    names.retain(|name| view.role(name).is_some());
    let ttl = shortest(view, &roles, requests, wanted);
    let session_ends = presented.map_or(whole_second(now + ttl), |p| p.claims.session_ends);
    let ends = requests
        .iter()
        .map(|request| request.access_expires)
        .chain(presented.map(|presented| presented.valid_before))
        .chain([now + ttl, session_ends])
        .min();
    let valid_before = whole_second(ends.unwrap_or(session_ends));
    if valid_before <= now {
        return Err(LoginRefused::NothingLeft(valid_before));
    }
    Ok(LoginPermit {
        user: identity.user().clone(),
        key: identity.key().clone(),
        subject: wanted.fresh_key.clone().unwrap_or(own_key),
        presented: presented.map(|presented| presented.serial),
        valid_before,
        claims: Claims {
            roles: names,
            traits: traits(subject.user),
            requests: requests.iter().map(|request| request.id).collect(),
            allowed: allowed(requests)?,
            pinned: pinned(presented, &roles, wanted.from),
            session_ends,
        },
        capabilities: capabilities(&roles),
    })
}

/// A pin stays; a certificate gets one as soon as a role of hers demands it.
fn pinned(presented: Option<&Credential>, roles: &[&Role], from: Option<IpAddr>) -> Option<IpAddr> {
    let demanded = |role: &&Role| role.options.demands.contains(&Demand::PinnedCertificate);
    let kept = presented.and_then(|presented| presented.claims.pinned);
    kept.or_else(|| from.filter(|_| roles.iter().any(demanded)))
}

fn granted_roles<'a>(
    subject: &'a Subject<'_>,
    requests: &'a [&AccessRequest],
) -> impl Iterator<Item = RoleName> + 'a {
    let granted = requests
        .iter()
        .filter_map(|request| request.granted.as_ref());
    granted.flat_map(|granted| {
        let roles = granted.roles.iter();
        roles
            .filter(|role| subject.still_gives(granted, role))
            .cloned()
    })
}

/// The least of what the configuration, the roles, the requests and the user herself say.
fn shortest(
    view: &View,
    roles: &[&Role],
    requests: &[&AccessRequest],
    wanted: &LoginWanted,
) -> Duration {
    roles
        .iter()
        .filter_map(|role| role.options.max_session_ttl)
        .chain(requests.iter().map(|request| request.session_ttl))
        .chain(wanted.ttl)
        .fold(view.settings().session_ttl, Duration::min)
}

/// What the one resource request restricts it to.
fn allowed(requests: &[&AccessRequest]) -> Result<AllowedResources, LoginRefused> {
    let mut restricting = None;
    for request in requests {
        let Some(granted) = &request.granted else {
            continue;
        };
        match (&granted.reach, restricting) {
            (Reach::Roles, _) => {}
            (Reach::Resources(ids), None) => restricting = Some((request.id, ids)),
            (Reach::Resources(_), Some((first, _))) => {
                return Err(LoginRefused::SeveralResourceRequests(first, request.id));
            }
        }
    }
    Ok(match restricting {
        None => AllowedResources::Unrestricted,
        Some((_, ids)) => AllowedResources::Only(ids.clone()),
    })
}

/// The key that the connection has proven: that of the presented certificate, else the registered one.
fn certified_key(user: &User, identity: &Identity) -> Result<String, LoginRefused> {
    if let Some(presented) = identity.credential() {
        return Ok(presented.subject.clone());
    }
    let mut keys = user.keys.iter();
    keys.find(|key| key.fingerprint == *identity.key())
        .map(|key| key.openssh.clone())
        .ok_or(LoginRefused::Refused(Reason::UnknownKey))
}

fn traits(user: &User) -> BTreeMap<String, BTreeSet<String>> {
    let logins = user.logins.iter().map(ToString::to_string).collect();
    let others = user
        .traits
        .iter()
        .map(|(name, values)| (name.clone(), values.iter().cloned().collect()));
    let all = std::iter::once(("logins".to_owned(), logins)).chain(others);
    all.filter(|(_, values): &(_, BTreeSet<String>)| !values.is_empty())
        .collect()
}

/// Certificates have no smaller unit; rounded down, so that nothing grows.
fn whole_second(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}
