//! An entry as one line of canonical JSON: a fixed order of fields, nothing optional written as `null`,
//! and no character in it that can drive a terminal or hide.

use std::io;

use serde::Serialize;

use super::{AppendError, Entry, Outcome};
use crate::say::is_hostile;

/// The longest text of one field, in bytes; what is longer is cut and marked. Commands are the
/// longest thing that is logged, and an SSH packet carries at most 256 KiB of them: 16 KiB show
/// what was meant without letting one peer fill the disk.
pub(super) const MAX_FIELD: usize = 16 * 1024;

/// The stored form, in the order in which fields are written.
#[derive(Serialize)]
struct Line<'a> {
    seq: i64,
    time: &'a str,
    event: &'static str,
    code: String,
    success: bool,
    cluster: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proposed_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delegator: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    automatic: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    roles: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    resource_ids: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_approval_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a str>,
}

pub(super) fn line(
    entry: &Entry,
    seq: i64,
    time: &str,
    cluster: &str,
) -> Result<String, AppendError> {
    // Destructured, so that a new field cannot be forgotten here.
    let Entry {
        event,
        outcome,
        user,
        remote_addr,
        key,
        node_id,
        node,
        login,
        request_id,
        session_id,
        state,
        serial,
        reason,
        name,
        command,
        exit,
        bytes_sent,
        bytes_received,
        expires,
        certificate_sha256,
        proposed_state,
        delegator,
        annotations,
        automatic,
        roles,
        resource_ids,
        lock_id,
        pre_approval_id,
        labels,
    } = entry;
    let line = Line {
        seq,
        time,
        event: event.name(),
        code: event.code(*outcome),
        success: match outcome {
            Outcome::Succeeded => true,
            Outcome::Failed => false,
        },
        cluster,
        user: user.as_deref().map(cut),
        remote_addr: remote_addr.as_deref().map(cut),
        key: key.as_deref().map(cut),
        node_id: node_id.as_deref().map(cut),
        node: node.as_deref().map(cut),
        login: login.as_deref().map(cut),
        request_id: request_id.as_deref().map(cut),
        session_id: session_id.as_deref().map(cut),
        state: state.as_deref().map(cut),
        serial: serial.as_deref().map(cut),
        reason: reason.as_deref().map(cut),
        name: name.as_deref().map(cut),
        command: command.as_deref().map(cut),
        exit: exit.as_deref().map(cut),
        bytes_sent: *bytes_sent,
        bytes_received: *bytes_received,
        expires: expires.as_deref().map(cut),
        certificate_sha256: certificate_sha256.as_deref().map(cut),
        proposed_state: proposed_state.as_deref().map(cut),
        delegator: delegator.as_deref().map(cut),
        annotations: annotations.as_deref().map(cut),
        automatic: automatic.as_deref().map(cut),
        roles,
        resource_ids,
        lock_id: lock_id.as_deref().map(cut),
        pre_approval_id: pre_approval_id.as_deref().map(cut),
        labels: labels.as_deref().map(cut),
    };
    let mut out = Vec::with_capacity(512);
    line.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Inert))?;
    String::from_utf8(out).map_err(|error| AppendError::Json(serde::ser::Error::custom(error)))
}

/// At most [`MAX_FIELD`] bytes, cut between characters.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_FIELD))
        .unwrap_or(text)
}

/// JSON without white space in which every character that could drive a terminal, or hide, is
/// written as `\uXXXX`. Reading it back gives the very string that was logged.
struct Inert;

impl serde_json::ser::Formatter for Inert {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, character) in fragment
            .char_indices()
            .filter(|(_, character)| is_hostile(*character))
        {
            writer.write_all(fragment.get(plain..at).unwrap_or_default().as_bytes())?;
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                write!(writer, "\\u{unit:04x}")?;
            }
            plain = at + character.len_utf8();
        }
        writer.write_all(fragment.get(plain..).unwrap_or_default().as_bytes())
    }
}
