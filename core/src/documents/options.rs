//! `spec.options` of a role.

use std::collections::BTreeSet;

use time::Duration;

use crate::role::{Demand, Options, RequestAccess};

use super::at::{At, Fields, Map};
use super::{DocumentProblem, Mistake};

const OPTIONS: Fields = Fields {
    served: &[
        "client_idle_timeout",
        "direct",
        "disconnect_expired_cert",
        "forward_agent",
        "lock",
        "max_connections",
        "max_session_ttl",
        "max_sessions",
        "permit_x11_forwarding",
        "pin_source_ip",
        "port_forwarding",
        "request_access",
        "request_prompt",
        "require_certificate",
        "require_review_mfa",
        "require_session_mfa",
        "ssh_file_copy",
        "ssh_port_forwarding",
        // Read below, and accepted only where they ask for nothing.
        "cert_extensions",
        "idp",
        "record_session",
    ],
    teleport: &[
        "cert_format",
        "create_db_user",
        "create_db_user_mode",
        "create_desktop_user",
        "create_host_user",
        "create_host_user_default_shell",
        "create_host_user_mode",
        "desktop_clipboard",
        "desktop_directory_sharing",
        "device_trust_mode",
        "enhanced_recording",
        "max_kubernetes_connections",
        "mfa_verification_interval",
    ],
    later: &[],
    only_allow: &[],
};

const FORWARDING: Fields = Fields {
    served: &["local", "remote"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const DIRECTION: Fields = Fields {
    served: &["enabled"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const RECORD_SESSION: Fields = Fields {
    served: &[],
    teleport: &["default", "desktop", "k8s", "ssh"],
    later: &[],
    only_allow: &[],
};

const IDP: Fields = Fields {
    served: &["saml"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const SAML: Fields = Fields {
    served: &[],
    teleport: &["enabled"],
    later: &[],
    only_allow: &[],
};

const EXTENSION: Fields = Fields {
    served: &["name", "value", "type", "mode"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const DEMANDS: &[(&str, Demand)] = &[
    ("require_certificate", Demand::Certificate),
    ("pin_source_ip", Demand::PinnedCertificate),
    ("require_review_mfa", Demand::ReviewMfa),
];

/// The end of the names of Anteroom's own certificate extensions, which no role may write.
const OWN_EXTENSION: &str = "@anteroom";

pub(super) fn read(at: &At<'_>) -> Result<Options, Mistake> {
    let map = at.map(&OPTIONS)?;
    read_nothing(&map)?;
    let forwarding = map
        .get("ssh_port_forwarding")
        .map(|at| at.map(&FORWARDING))
        .transpose()?;
    let direction = |field: &str| -> Result<Option<bool>, Mistake> {
        let Some(at) = forwarding.as_ref().and_then(|map| map.get(field)) else {
            return Ok(None);
        };
        flag(&at.map(&DIRECTION)?, "enabled")
    };
    Ok(Options {
        max_session_ttl: map.duration("max_session_ttl")?,
        port_forwarding: flag(&map, "port_forwarding")?,
        local_forwarding: direction("local")?,
        remote_forwarding: direction("remote")?,
        forward_agent: flag(&map, "forward_agent")?,
        permit_x11_forwarding: flag(&map, "permit_x11_forwarding")?,
        ssh_file_copy: flag(&map, "ssh_file_copy")?,
        direct: flag(&map, "direct")?,
        client_idle_timeout: read_idle(&map)?,
        max_connections: most(&map, "max_connections")?,
        max_sessions: most(&map, "max_sessions")?,
        request_access: read_request_access(&map)?,
        request_prompt: map.text("request_prompt")?.filter(|text| !text.is_empty()),
        demands: read_demands(&map)?,
    })
}

/// `true` or `false`, or as Teleport reads them too: `yes` and `no`, `on` and `off`.
fn flag(map: &Map<'_>, field: &str) -> Result<Option<bool>, Mistake> {
    map.get(field).map(|at| at.flag()).transpose()
}

fn read_demands(map: &Map<'_>) -> Result<BTreeSet<Demand>, Mistake> {
    let mut demands = BTreeSet::new();
    for (field, demand) in DEMANDS {
        if flag(map, field)? == Some(true) {
            demands.insert(*demand);
        }
    }
    if read_session_mfa(map)? {
        demands.insert(Demand::SessionMfa);
    }
    Ok(demands)
}

/// `true` and `false`, as they are spelled. Teleport's other values demand keys in hardware, which prove more
/// than a code: they are refused by name.
fn read_session_mfa(map: &Map<'_>) -> Result<bool, Mistake> {
    let Some(at) = map.get("require_session_mfa") else {
        return Ok(false);
    };
    match at.text() {
        Ok(text) if HARDWARE.contains(&text) => Err(at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: text.to_owned(),
            wanted: "true, which asks for a code of an app, or false: Anteroom knows no keys in hardware"
                .to_owned(),
        })),
        Ok(_) | Err(_) => at.flag(),
    }
}

/// What Teleport calls keys in hardware.
const HARDWARE: [&str; 4] = [
    "hardware_key",
    "hardware_key_touch",
    "hardware_key_pin",
    "hardware_key_touch_and_pin",
];

/// A count of which 0 is none, as in Teleport.
fn most(map: &Map<'_>, field: &str) -> Result<Option<u32>, Mistake> {
    let count = map.get(field).map(|at| at.count()).transpose()?;
    Ok(count.filter(|count| *count > 0))
}

/// `never` and `0s` are none, as in Teleport.
fn read_idle(map: &Map<'_>) -> Result<Option<Duration>, Mistake> {
    let Some(at) = map.get("client_idle_timeout") else {
        return Ok(None);
    };
    match at.text()? {
        "never" | "0s" => Ok(None),
        _ => at.duration().map(Some),
    }
}

fn read_request_access(map: &Map<'_>) -> Result<RequestAccess, Mistake> {
    let Some(at) = map.get("request_access") else {
        return Ok(RequestAccess::Optional);
    };
    Ok(match at.word(&["optional", "always", "reason"])? {
        "always" => RequestAccess::Always,
        "reason" => RequestAccess::Reason,
        _ => RequestAccess::Optional,
    })
}

/// What is read and changes nothing, because nothing here could be different.
fn read_nothing(map: &Map<'_>) -> Result<(), Mistake> {
    // A session always ends with what it rests on, whatever this says.
    flag(map, "disconnect_expired_cert")?;
    // Locks are in the database that every decision is made on: there is no state in which they
    // are not known, and so both words mean the same.
    if let Some(at) = map.get("lock") {
        at.word(&["strict", "best_effort"])?;
    }
    if let Some(at) = map.get("record_session") {
        at.map(&RECORD_SESSION)?;
    }
    if let Some(idp) = map.get("idp")
        && let Some(saml) = idp.map(&IDP)?.get("saml")
    {
        saml.map(&SAML)?;
    }
    match map.get("cert_extensions") {
        Some(at) => read_extensions(&at),
        None => Ok(()),
    }
}

/// An empty list. Any other is refused, with better words where an extension is one of ours.
fn read_extensions(at: &At<'_>) -> Result<(), Mistake> {
    let extensions = at.list()?;
    for extension in &extensions {
        let map = extension.map(&EXTENSION)?;
        let name = map.required("name", "an extension has a `name`")?;
        if name.text()?.ends_with(OWN_EXTENSION) {
            return Err(name.mistake(DocumentProblem::OwnExtension {
                field: name.path(),
                name: crate::id::printable(name.text()?),
            }));
        }
    }
    if extensions.is_empty() {
        return Ok(());
    }
    Err(at.mistake(DocumentProblem::AsksFor {
        field: at.path(),
        accepted: "[]".to_owned(),
    }))
}
