//! An entry as one line of canonical JSON: a fixed order of fields, nothing optional written as `null`,
//! and no character in it that can drive a terminal or hide.

use std::io;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::{AppendError, Entry, Outcome};
use crate::say::is_hostile;

/// The longest text of one field, in bytes; what is longer is cut and marked. Commands are the
/// longest thing that is logged, and an SSH packet carries at most 256 KiB of them: 16 KiB show
/// what was meant without letting one peer fill the disk.
pub(super) const MAX_FIELD: usize = 16 * 1024;

/// An entry in its place.
struct Line<'a> {
    seq: i64,
    time: &'a str,
    cluster: &'a str,
    entry: &'a Entry,
}

/// Writes the texts that there are, each under its field's name.
macro_rules! texts {
    ($map:ident: $($field:ident),* $(,)?) => {
        $(if let Some(text) = $field {
            $map.serialize_entry(stringify!($field), cut(text))?;
        })*
    };
}

impl Serialize for Line<'_> {
    /// Writes the fields in the order in which they are stored.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
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
        } = self.entry;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("time", self.time)?;
        map.serialize_entry("event", event.name())?;
        map.serialize_entry("code", &event.code(*outcome))?;
        map.serialize_entry("success", &(*outcome == Outcome::Succeeded))?;
        map.serialize_entry("cluster", self.cluster)?;
        texts!(map: user, remote_addr, key, node_id, node, login, request_id, session_id);
        texts!(map: state, serial, reason, name, command, exit);
        if let Some(bytes) = bytes_sent {
            map.serialize_entry("bytes_sent", bytes)?;
        }
        if let Some(bytes) = bytes_received {
            map.serialize_entry("bytes_received", bytes)?;
        }
        texts!(map: expires, certificate_sha256, proposed_state, delegator, annotations, automatic);
        if !roles.is_empty() {
            map.serialize_entry("roles", roles)?;
        }
        if !resource_ids.is_empty() {
            map.serialize_entry("resource_ids", resource_ids)?;
        }
        texts!(map: lock_id, pre_approval_id, labels);
        map.end()
    }
}

/// The line of an entry in its place.
pub(super) fn line(
    entry: &Entry,
    seq: i64,
    time: &str,
    cluster: &str,
) -> Result<String, AppendError> {
    let line = Line {
        seq,
        time,
        cluster,
        entry,
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
