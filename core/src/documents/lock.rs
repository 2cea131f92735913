//! `kind: lock`.

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::id::{KeyFingerprint, LockId, Login, NodeId, RequestId, RoleName, UserName};
use crate::lock::{LONGEST_MESSAGE, LockTarget};

use super::at::{At, Fields, Map};
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

fn read_id(at: &At<'_>) -> Result<LockId, Mistake> {
    let text = at.text()?;
    LockId::parse(text).map_err(|_| {
        at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: crate::id::printable(text),
            wanted: "no name: Anteroom gives a new lock its name, a UUID, and `locks ls` shows it; what \
                     it is for goes into `spec.message`"
                .to_owned(),
        })
    })
}

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
        id: name.map(|at| read_id(&at)).transpose()?,
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

pub(super) fn read_time(at: &At<'_>) -> Result<OffsetDateTime, Mistake> {
    let text = at.text()?;
    let at_utc = OffsetDateTime::parse(text, &Rfc3339).ok();
    // In UTC the first hours of the year 0 and the last of 9999 can be beyond the calendar.
    let at_utc = at_utc.and_then(|time| time.checked_to_offset(UtcOffset::UTC));
    let at_utc = at_utc.filter(|time| time.year() >= 0);
    at_utc.ok_or_else(|| {
        at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: crate::id::printable(text),
            wanted: "a time in quotes, like '2026-06-23T18:25:00Z'".to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use crate::documents::{Document, DocumentError, parse};

    fn lock_until(time: &str) -> Result<Vec<Document>, DocumentError> {
        parse(&format!(
            "kind: lock\nversion: v2\nspec:\n  target: {{user: alice}}\n  expires: '{time}'\n"
        ))
    }

    #[test]
    fn the_end_of_a_lock_is_an_instant_of_the_calendar_in_utc() {
        for time in ["9999-12-31T23:59:59-12:00", "0000-01-01T00:00:00+12:00"] {
            let refused = format!("{:?}", lock_until(time).unwrap_err());
            assert!(refused.contains("a time in quotes"), "{refused}");
        }
        let locks = lock_until("2026-06-23T20:25:00+02:00").unwrap();
        let [Document::Lock(lock)] = locks.as_slice() else {
            panic!("{locks:?}");
        };
        let end = lock.expires.unwrap();
        assert_eq!(end, datetime!(2026-06-23 18:25 UTC));
        assert!(end.offset().is_utc());
    }
}
