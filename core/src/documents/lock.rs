//! `kind: lock`.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::id::{KeyFingerprint, LockId, Login, NodeId, RequestId, RoleName, UserName};
use crate::lock::{LONGEST_MESSAGE, LockTarget};

use super::tree::{At, Fields, Map};
use super::{DocumentProblem, Mistake};

/// A lock as a document describes it. Who made it and when is written where it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockDocument {
    /// `metadata.name`, if the document names one.
    pub id: Option<LockId>,
    /// The one field of `spec.target`.
    pub target: LockTarget,
    /// `spec.message`.
    pub message: String,
    /// `spec.expires`.
    pub expires: Option<OffsetDateTime>,
}

const METADATA: Fields = Fields {
    served: &["name"],
    teleport: &[
        "description",
        "expires",
        "id",
        "labels",
        "namespace",
        "revision",
    ],
    later: &[],
    only_allow: &[],
};

const SPEC: Fields = Fields {
    served: &["target", "message", "expires"],
    teleport: &["created_at", "created_by"],
    later: &[],
    only_allow: &[],
};

const TARGET: Fields = Fields {
    // The last two are Teleport's words for `node` and `request`.
    served: &[
        "user",
        "key",
        "role",
        "request",
        "login",
        "node",
        "serial",
        "server_id",
        "access_request",
    ],
    teleport: &[
        "bot_instance_id",
        "device",
        "join_token",
        "mfa_device",
        "windows_desktop",
    ],
    later: &[],
    only_allow: &[],
};

/// Reads a lock; `top` is the checked top level.
pub(super) fn read(top: &Map<'_>) -> Result<LockDocument, Mistake> {
    const HINT: &str = "write `spec:` and below it `target: {user: NAME}`";
    let metadata = top
        .get("metadata")
        .map(|at| at.map(&METADATA))
        .transpose()?;
    let name = metadata.as_ref().and_then(|metadata| metadata.get("name"));
    let spec = top.required("spec", HINT)?.map(&SPEC)?;
    Ok(LockDocument {
        id: name.map(|at| at.parsed(LockId::parse)).transpose()?,
        target: read_target(&spec.required("target", HINT)?)?,
        message: read_message(&spec)?,
        expires: spec.get("expires").map(|at| read_time(&at)).transpose()?,
    })
}

fn read_target(at: &At<'_>) -> Result<LockTarget, Mistake> {
    at.map(&TARGET)?;
    let fields = at.entries()?;
    let [(kind, value)] = fields.as_slice() else {
        return Err(at.mistake(DocumentProblem::OneTarget));
    };
    match *kind {
        "user" => value.parsed(UserName::parse).map(LockTarget::User),
        "key" => value.parsed(KeyFingerprint::parse).map(LockTarget::Key),
        "role" => value.parsed(RoleName::parse).map(LockTarget::Role),
        "request" | "access_request" => value.parsed(RequestId::parse).map(LockTarget::Request),
        "login" => value.parsed(Login::parse).map(LockTarget::Login),
        "node" | "server_id" => value.parsed(NodeId::parse).map(LockTarget::Node),
        // `map` has let nothing else pass.
        _ => read_serial(value),
    }
}

fn read_serial(at: &At<'_>) -> Result<LockTarget, Mistake> {
    let text = at.text()?;
    parse_serial(text).map(LockTarget::Serial).ok_or_else(|| {
        at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: crate::id::printable(text),
            wanted: "the serial number of a certificate, in decimal digits and quotes".to_owned(),
        })
    })
}

/// The serial number of a certificate as a person writes it: decimal digits, and not 0.
#[must_use]
pub fn parse_serial(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|serial| digits && *serial != 0)
}

fn read_message(spec: &Map<'_>) -> Result<String, Mistake> {
    let message = spec.text("message")?.unwrap_or_default();
    match spec.get("message") {
        Some(at) if message.len() > LONGEST_MESSAGE => Err(at.mistake(DocumentProblem::TooMuch {
            field: at.path(),
            value: format!("{} bytes long", message.len()),
            limit: format!("{LONGEST_MESSAGE} bytes"),
        })),
        Some(_) | None => Ok(message),
    }
}

fn read_time(at: &At<'_>) -> Result<OffsetDateTime, Mistake> {
    let text = at.text()?;
    OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: crate::id::printable(text),
            wanted: "a time in quotes, like '2026-06-23T18:25:00Z'".to_owned(),
        })
    })
}
