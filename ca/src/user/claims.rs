//! Claims in extensions, and back.
//!
//! Each of ours is named `…@anteroom` and its value is written in one way only: JSON without spaces, sorted
//! and without repetitions. `ssh-keygen -L` shows the values of extensions that it does not know in
//! hexadecimal, but their names as they are; so what people look for stands there once more as flags
//! (`role=access@anteroom`), which have to say exactly what the values say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anteroom_core::credential::{AllowedResources, Claims};
use anteroom_core::id::{RequestId, ResourceId, RoleName};
use serde_json::{from_str, to_string};
use ssh_key::Certificate as Wire;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cert::SOURCE_ADDRESS;
use crate::source::SourceAddresses;

const ROLES: &str = "roles@anteroom";
const TRAITS: &str = "traits@anteroom";
const REQUESTS: &str = "active-requests@anteroom";
const RESOURCES: &str = "allowed-resources@anteroom";
const LOGIN_IP: &str = "login-ip@anteroom";
const SESSION_ENDS: &str = "session-ends@anteroom";

/// OpenSSH's own extensions that these certificates may have.
const PERMITS: [&str; 4] = [
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
];

/// Resources that are also listed as flags: the values hold all of them, and a certificate has 16 KiB.
const SHOWN_RESOURCES: usize = 32;

/// The extensions that say `claims`.
pub(crate) fn write(claims: &Claims) -> BTreeMap<String, String> {
    let mut out = BTreeMap::from([
        (ROLES.to_owned(), json(to_string(&claims.roles))),
        (TRAITS.to_owned(), json(to_string(&claims.traits))),
        (REQUESTS.to_owned(), json(to_string(&claims.requests))),
        (SESSION_ENDS.to_owned(), instant(claims.session_ends)),
    ]);
    if let Some(address) = claims.pinned {
        out.insert(LOGIN_IP.to_owned(), address.to_canonical().to_string());
    }
    if let AllowedResources::Only(ids) = &claims.allowed {
        out.insert(RESOURCES.to_owned(), json(to_string(ids)));
    }
    out.extend(flags(claims).map(|name| (name, String::new())));
    out
}

/// What the certificate claims, if all of it is written as [`write`] writes it and nothing else is there.
///
/// # Errors
/// The name of the extension or option that is missing, odd, or not one of ours; escaped.
pub(crate) fn read(cert: &Wire) -> Result<Claims, String> {
    let found = cert.extensions();
    let value = |name: &str| found.get(name).map(String::as_str);
    let needed = |name: &str| value(name).ok_or_else(|| format!("no {name}"));
    let session_ends = OffsetDateTime::parse(needed(SESSION_ENDS)?, &Rfc3339)
        .map_err(|_| SESSION_ENDS.to_owned())?;
    let allowed = match value(RESOURCES) {
        None => AllowedResources::Unrestricted,
        Some(text) => AllowedResources::Only(ids(text)?),
    };
    let pinned = match value(LOGIN_IP) {
        None => None,
        Some(text) => Some(text.parse::<IpAddr>().map_err(|_| LOGIN_IP.to_owned())?),
    };
    let claims = Claims {
        roles: from_str::<BTreeSet<RoleName>>(needed(ROLES)?).map_err(|_| ROLES.to_owned())?,
        traits: from_str(needed(TRAITS)?).map_err(|_| TRAITS.to_owned())?,
        requests: from_str::<BTreeSet<RequestId>>(needed(REQUESTS)?)
            .map_err(|_| REQUESTS.to_owned())?,
        allowed,
        pinned,
        session_ends,
    };
    check(cert, &claims)?;
    Ok(claims)
}

/// OpenSSH's own extensions that the certificate has.
pub(crate) fn permits(cert: &Wire) -> BTreeSet<String> {
    let found = cert.extensions().keys().cloned();
    found
        .filter(|name| PERMITS.contains(&name.as_str()))
        .collect()
}

/// Whether the certificate says what `claims` say, and no more.
fn check(cert: &Wire, claims: &Claims) -> Result<(), String> {
    if matches!(&claims.allowed, AllowedResources::Only(ids) if ids.is_empty()) {
        return Err(format!("an empty {RESOURCES}"));
    }
    let expected = write(claims);
    let found = cert.extensions();
    let own = |name: &&String| !PERMITS.contains(&name.as_str());
    for name in found.keys().filter(own) {
        if expected.get(name) != found.get(name) {
            return Err(name.escape_debug().take(LONGEST_SHOWN).collect());
        }
    }
    if let Some(missing) = expected.keys().find(|name| !found.contains_key(*name)) {
        return Err(format!("no {missing}"));
    }
    if let Some(flag) = PERMITS
        .iter()
        .find(|flag| found.get(**flag).is_some_and(|value| !value.is_empty()))
    {
        return Err(format!("a value of {flag}"));
    }
    let pinned = claims
        .pinned
        .map(|address| SourceAddresses::local(address).to_string());
    let mut options = cert.critical_options().iter();
    match (options.next(), options.next(), pinned) {
        (None, None, None) => Ok(()),
        (Some((name, value)), None, Some(pinned)) if name == SOURCE_ADDRESS && *value == pinned => {
            Ok(())
        }
        (Some((name, _)), _, _) => Err(name.escape_debug().take(LONGEST_SHOWN).collect()),
        (None, _, _) => Err(format!("no {SOURCE_ADDRESS}")),
    }
}

/// Names alone, for people who look at the certificate with `ssh-keygen -L`.
fn flags(claims: &Claims) -> impl Iterator<Item = String> {
    let flag = |key: &str, value: &dyn std::fmt::Display| format!("{key}={value}@anteroom");
    let roles = claims.roles.iter().map(move |role| flag("role", role));
    let requests = claims.requests.iter().map(move |id| flag("request", id));
    let (ids, more) = match &claims.allowed {
        AllowedResources::Unrestricted => (None, 0),
        AllowedResources::Only(ids) => (Some(ids), ids.len().saturating_sub(SHOWN_RESOURCES)),
    };
    let resources = ids
        .into_iter()
        .flatten()
        .take(SHOWN_RESOURCES)
        .map(move |id| flag("resource", id));
    let more = (more > 0).then(|| flag("resource", &format_args!("({more} more)")));
    roles.chain(requests).chain(resources).chain(more)
}

fn ids(text: &str) -> Result<BTreeSet<ResourceId>, String> {
    from_str(text).map_err(|_| RESOURCES.to_owned())
}

/// Sets and maps of strings: there is nothing in them that JSON cannot say.
fn json(text: serde_json::Result<String>) -> String {
    text.unwrap_or_default()
}

fn instant(at: OffsetDateTime) -> String {
    at.checked_to_offset(time::UtcOffset::UTC)
        .unwrap_or(at)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// Characters of a foreign name in a message.
const LONGEST_SHOWN: usize = 64;
