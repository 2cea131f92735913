//! The audit log: what is written, how it is chained, how tampering is found.
//!
//! Promises:
//! * An entry is one line of canonical JSON (fixed order of fields, nothing optional written as
//!   `null`), in which no character can drive a terminal: controls, bidirectional overrides and
//!   zero-width characters from peers are there as `\uXXXX`.
//! * Entry *n* carries the hash of entry *n* − 1: `hash = hex(SHA-256(prev ‖ text))`, where `prev`
//!   is the 64 lower-case hexadecimal digits of the previous hash ([`GENESIS`] before the first
//!   entry) and `text` the UTF-8 bytes of the line as stored. `text` holds `seq`, so an entry that
//!   is moved no longer hashes to what is written beside it.
//! * [`Verifier`] names the first entry that is wrong, whether it was edited, deleted, moved, cut
//!   off the end, or written beside the chain.
//!
//! What it leaves to others: writing (the store, in the transaction of the thing that is logged)
//! and an anchor outside the machine. Someone who can rewrite the whole database can compute a
//! whole new chain; only a head kept elsewhere ([`Anchor`]) shows that.

mod entry;
mod event;
mod line;

use std::fmt;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use line::line;

pub use entry::{Entry, PROXY};
pub use event::{Event, Outcome};

/// What stands in the place of the previous hash in the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The end of the chain: the number and hash of the last entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry; 0 before the first.
    pub seq: i64,
    /// The hash of the last entry; [`GENESIS`] before the first.
    pub hash: String,
}

impl Head {
    /// The head of an empty log.
    #[must_use]
    pub fn genesis() -> Self {
        Self {
            seq: 0,
            hash: GENESIS.to_owned(),
        }
    }

    /// The record that follows this head, and with it the new head.
    ///
    /// # Errors
    /// Only if the time cannot be written as RFC 3339 (before year 0 or after year 9999).
    pub fn append(
        &self,
        entry: &Entry,
        cluster: &str,
        now: OffsetDateTime,
    ) -> Result<Record, AppendError> {
        let seq = self.seq + 1;
        let time = now.format(&Rfc3339)?;
        let text = line(entry, seq, &time, cluster)?;
        let hash = link(&self.hash, &text);
        Ok(Record {
            seq,
            time,
            event: entry.event.name().to_owned(),
            prev: self.hash.clone(),
            hash,
            text,
        })
    }
}

/// Why an entry could not be put into words.
#[derive(Debug, Error)]
pub enum AppendError {
    /// The clock shows a year that RFC 3339 has no notation for.
    #[error("the clock shows a time that cannot be written down: {0}")]
    Time(#[from] time::error::Format),
    /// Serialisation failed; the writer is memory, so this is a defect of ours.
    #[error("audit entry cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// One entry as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, from 1, without gaps.
    pub seq: i64,
    /// When it was committed, RFC 3339, by the clock of the transaction.
    pub time: String,
    /// The event's name.
    pub event: String,
    /// The hash of the entry before it.
    pub prev: String,
    /// Its own hash.
    pub hash: String,
    /// The entry as one line of JSON, without the hashes.
    pub text: String,
}

impl Record {
    /// The entry's fields. Empty where the text is no JSON object, which `verify` reports.
    #[must_use]
    pub fn fields(&self) -> serde_json::Map<String, serde_json::Value> {
        match serde_json::from_str(&self.text) {
            Ok(serde_json::Value::Object(map)) => map,
            Ok(
                serde_json::Value::Null
                | serde_json::Value::Bool(_)
                | serde_json::Value::Number(_)
                | serde_json::Value::String(_)
                | serde_json::Value::Array(_),
            )
            | Err(_) => serde_json::Map::new(),
        }
    }

    /// The stored text with `prev` and `hash` as its last two fields: one line of JSON, from which cutting them off again gives the
    /// bytes that were hashed. `None` where what is stored can't have been written so.
    #[must_use]
    pub fn exported(&self) -> Option<String> {
        let whole = |hash: &str| unhex(hash).is_some();
        let one_object =
            !self.fields().is_empty() && !self.text.chars().any(crate::say::is_hostile);
        if !one_object || !whole(&self.prev) || !whole(&self.hash) {
            return None;
        }
        let fields = self.text.strip_suffix(OBJECT_END)?;
        let (prev, hash) = (&self.prev, &self.hash);
        Some(format!(
            r#"{fields},"prev":"{prev}","hash":"{hash}"{OBJECT_END}"#
        ))
    }
}

/// What an exported entry's text ends with before `prev`, `hash` and the end are put there.
const OBJECT_END: char = '}';

/// `hex(SHA-256(prev ‖ text))`.
fn link(prev: &str, text: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(prev.as_bytes());
    hasher.update(text.as_bytes());
    hex(&hasher.finalize())
}

/// The hash that [`hex`] wrote.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
            text
        })
}

/// A chain head that was kept outside the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// The entry's number.
    pub seq: i64,
    /// The hash it had.
    pub hash: String,
}

/// What is wrong with the log, at the first entry where it is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Tampered {
    /// The entry is not there, though later ones or the head say that it was.
    #[error("audit entry {seq} is missing")]
    Missing {
        /// The number of the entry that is gone.
        seq: i64,
    },
    /// The text or a column was changed.
    #[error("audit entry {seq} was changed: its text does not hash to what is recorded")]
    Edited {
        /// The entry.
        seq: i64,
    },
    /// The entry does not follow the one before it.
    #[error("audit entry {seq} does not follow the entry before it")]
    Unlinked {
        /// The entry.
        seq: i64,
    },
    /// There is an entry after the recorded head, or another one in the head's place.
    #[error("audit entry {seq} is not the one the head of the chain names")]
    NotTheHead {
        /// The entry.
        seq: i64,
    },
    /// The entry differs from what was anchored outside.
    #[error("audit entry {seq} is not the one that was anchored")]
    NotAsAnchored {
        /// The entry.
        seq: i64,
    },
}

impl Tampered {
    /// The number of the first bad entry.
    #[must_use]
    pub fn seq(&self) -> i64 {
        match self {
            Self::Missing { seq }
            | Self::Edited { seq }
            | Self::Unlinked { seq }
            | Self::NotTheHead { seq }
            | Self::NotAsAnchored { seq } => *seq,
        }
    }
}

/// Walks a chain, oldest entry first, and stops at the first that is wrong.
#[derive(Debug)]
pub struct Verifier {
    last: Head,
    anchors: Vec<Anchor>,
}

#[derive(Deserialize)]
struct Stated {
    seq: i64,
    time: String,
    event: String,
}

impl Verifier {
    /// A verifier at the beginning of the log, which will also hold it to these anchors.
    #[must_use]
    pub fn new(anchors: Vec<Anchor>) -> Self {
        Self {
            last: Head::genesis(),
            anchors,
        }
    }

    /// Checks the next entry.
    ///
    /// # Errors
    /// Names the first bad entry: this one, or the missing one before it.
    pub fn next(&mut self, record: &Record) -> Result<(), Tampered> {
        let seq = self.last.seq + 1;
        if record.seq > seq {
            return Err(Tampered::Missing { seq });
        }
        if record.seq < seq {
            return Err(Tampered::Unlinked { seq: record.seq });
        }
        if record.prev != self.last.hash {
            return Err(Tampered::Unlinked { seq });
        }
        if record.hash != link(&record.prev, &record.text) {
            return Err(Tampered::Edited { seq });
        }
        // The columns beside the text are what listings filter by: they are held to the text.
        let stated: Stated =
            serde_json::from_str(&record.text).map_err(|_| Tampered::Edited { seq })?;
        if stated.seq != seq || stated.time != record.time || stated.event != record.event {
            return Err(Tampered::Edited { seq });
        }
        if self
            .anchors
            .iter()
            .any(|anchor| anchor.seq == seq && anchor.hash != record.hash)
        {
            return Err(Tampered::NotAsAnchored { seq });
        }
        self.last = Head {
            seq,
            hash: record.hash.clone(),
        };
        Ok(())
    }

    /// Ends the walk at the head that the database records.
    ///
    /// # Errors
    /// Names the first entry that is missing at the end, or that is there beside the head.
    pub fn finish(self, head: &Head) -> Result<Head, Tampered> {
        let reached = self
            .anchors
            .iter()
            .map(|anchor| anchor.seq)
            .chain([head.seq])
            .max()
            .unwrap_or(head.seq);
        if self.last.seq < reached {
            return Err(Tampered::Missing {
                seq: self.last.seq + 1,
            });
        }
        if self.last.seq > head.seq {
            return Err(Tampered::NotTheHead { seq: head.seq + 1 });
        }
        if self.last.hash != head.hash {
            return Err(Tampered::NotTheHead { seq: head.seq });
        }
        Ok(self.last)
    }
}

#[cfg(test)]
mod tests;
