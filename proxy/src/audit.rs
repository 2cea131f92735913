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

use std::fmt;
use std::io;

use anteroom_core::resource::Kind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::say::is_hostile;

/// What stands in the place of the previous hash in the first entry.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The longest text of one field, in bytes; what is longer is cut and marked. Commands are the
/// longest thing that is logged, and an SSH packet carries at most 256 KiB of them: 16 KiB show
/// what was meant without letting one peer fill the disk.
const MAX_FIELD: usize = 16 * 1024;

/// What happened. Names are Teleport's where it has one (INTERFACE section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// Somebody proved who he is.
    UserLogin,
    /// An authentication failed.
    Auth,
    /// A request was filed.
    AccessRequestCreate,
    /// A review was given.
    AccessRequestReview,
    /// A request changed its state, or what it may be used with.
    AccessRequestUpdate,
    /// A request's time ran out.
    AccessRequestExpire,
    /// A request was deleted by an administrator.
    AccessRequestDelete,
    /// A session to a node began.
    SessionStart,
    /// How much went through a session.
    SessionData,
    /// A session ended.
    SessionEnd,
    /// A connection to a node was refused.
    SessionRejected,
    /// A session was ended by somebody else.
    SessionKill,
    /// A certificate was issued.
    CertCreate,
    /// A command was run.
    Exec,
    /// A file was copied with scp.
    Scp,
    /// The sftp subsystem was used.
    Sftp,
    /// A port was forwarded.
    Port,
    /// A lock was made.
    LockCreate,
    /// A lock was taken away.
    LockDelete,
    /// An access monitoring rule was made.
    MonitoringRuleCreate,
    /// An access monitoring rule was changed.
    MonitoringRuleUpdate,
    /// An access monitoring rule was removed.
    MonitoringRuleDelete,
    /// A pre-approval was given.
    PreApprovalCreate,
    /// A pre-approval was taken back, or ended.
    PreApprovalDelete,
    /// A role was created.
    RoleCreate,
    /// A role was changed.
    RoleUpdate,
    /// A role was removed.
    RoleDelete,
    /// A user was created.
    UserCreate,
    /// A user was changed.
    UserUpdate,
    /// A user was removed.
    UserDelete,
    /// A node was registered.
    NodeCreate,
    /// A node was changed.
    NodeUpdate,
    /// A node was removed.
    NodeDelete,
    /// A node's tunnel was opened, closed or refused.
    NodeTunnel,
    /// An application, a database, a Kubernetes cluster or a desktop was registered.
    ResourceCreate(Kind),
    /// One was changed.
    ResourceUpdate(Kind),
    /// One was removed.
    ResourceDelete(Kind),
    /// A machine became a node by a token, or was not let in.
    InstanceJoin,
    /// A token was made.
    TokenCreate,
    /// A token was removed, or ended.
    TokenDelete,
    /// A second factor was set up.
    MfaAdd,
    /// A second factor was removed.
    MfaDelete,
    /// A certificate authority was made or rotated.
    CaRotate,
    /// The proxy started on this data directory.
    ProxyStart,
    /// The proxy stopped in good order.
    ProxyStop,
    /// An administrator's command that has no event of its own.
    Admin,
}

/// Every event with its name and its code. Codes that Teleport has are Teleport's; `A…` are ours.
const EVENTS: &[(Event, &str, &str)] = &[
    (Event::UserLogin, "user.login", "T1000"),
    (Event::Auth, "auth", "T3007"),
    (Event::AccessRequestCreate, "access_request.create", "T5000"),
    (Event::AccessRequestReview, "access_request.review", "T5002"),
    (Event::AccessRequestUpdate, "access_request.update", "T5001"),
    (Event::AccessRequestExpire, "access_request.expire", "T5005"),
    (Event::AccessRequestDelete, "access_request.delete", "T5003"),
    (Event::SessionStart, "session.start", "T2000"),
    (Event::SessionData, "session.data", "T2006"),
    (Event::SessionEnd, "session.end", "T2004"),
    (Event::SessionRejected, "session.rejected", "T1006"),
    (Event::SessionKill, "session.kill", "A2000"),
    (Event::CertCreate, "cert.create", "TC000"),
    (Event::Exec, "exec", "T3002"),
    (Event::Scp, "scp", "T3004"),
    (Event::Sftp, "sftp", "TS001"),
    (Event::Port, "port", "T3003"),
    (Event::LockCreate, "lock.create", "TLK00"),
    (Event::LockDelete, "lock.delete", "TLK01"),
    (
        Event::MonitoringRuleCreate,
        "access_monitoring_rule.create",
        "TAMR000",
    ),
    (
        Event::MonitoringRuleUpdate,
        "access_monitoring_rule.update",
        "TAMR001",
    ),
    (
        Event::MonitoringRuleDelete,
        "access_monitoring_rule.delete",
        "TAMR002",
    ),
    (Event::PreApprovalCreate, "pre_approval.create", "A1000"),
    (Event::PreApprovalDelete, "pre_approval.delete", "A1001"),
    (Event::InstanceJoin, "instance.join", "TJ001"),
    (Event::TokenCreate, "join_token.create", "TJT00"),
    (Event::TokenDelete, "join_token.delete", "A1100"),
    (Event::MfaAdd, "mfa.add", "T1006"),
    (Event::MfaDelete, "mfa.delete", "T1007"),
    (Event::RoleCreate, "role.create", "T9000"),
    (Event::RoleUpdate, "role.update", "T9002"),
    (Event::RoleDelete, "role.delete", "T9001"),
    (Event::UserCreate, "user.create", "T1002"),
    (Event::UserUpdate, "user.update", "T1003"),
    (Event::UserDelete, "user.delete", "T1004"),
    (Event::NodeCreate, "node.create", "A3000"),
    (Event::NodeUpdate, "node.update", "A3001"),
    (Event::NodeDelete, "node.delete", "A3002"),
    (Event::NodeTunnel, "node.tunnel", "A3003"),
    (Event::ResourceCreate(Kind::App), "app.create", "TAP03"),
    (Event::ResourceUpdate(Kind::App), "app.update", "TAP04"),
    (Event::ResourceDelete(Kind::App), "app.delete", "TAP05"),
    (Event::ResourceCreate(Kind::Db), "db.create", "TDB03"),
    (Event::ResourceUpdate(Kind::Db), "db.update", "TDB04"),
    (Event::ResourceDelete(Kind::Db), "db.delete", "TDB05"),
    (
        Event::ResourceCreate(Kind::KubeCluster),
        "kube.create",
        "T3010",
    ),
    (
        Event::ResourceUpdate(Kind::KubeCluster),
        "kube.update",
        "T3011",
    ),
    (
        Event::ResourceDelete(Kind::KubeCluster),
        "kube.delete",
        "T3012",
    ),
    (
        Event::ResourceCreate(Kind::WindowsDesktop),
        "windows_desktop.create",
        "A3100",
    ),
    (
        Event::ResourceUpdate(Kind::WindowsDesktop),
        "windows_desktop.update",
        "A3101",
    ),
    (
        Event::ResourceDelete(Kind::WindowsDesktop),
        "windows_desktop.delete",
        "A3102",
    ),
    (Event::CaRotate, "ca.rotate", "A4000"),
    (Event::ProxyStart, "proxy.start", "A5000"),
    (Event::ProxyStop, "proxy.stop", "A5001"),
    (Event::Admin, "admin", "A6000"),
];

impl Event {
    /// The name in the log, for example `access_request.create`.
    #[must_use]
    pub fn name(self) -> &'static str {
        EVENTS
            .iter()
            .find(|(event, ..)| *event == self)
            .map_or("admin", |(_, name, _)| name)
    }

    /// The event of that name, if there is one.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        EVENTS
            .iter()
            .find(|(_, known, _)| *known == name)
            .map(|(event, ..)| *event)
    }

    fn code(self, outcome: Outcome) -> String {
        let number = EVENTS
            .iter()
            .find(|(event, ..)| *event == self)
            .map_or("A6000", |(.., code)| code);
        let class = match outcome {
            Outcome::Succeeded => 'I',
            Outcome::Failed => 'W',
        };
        format!("{number}{class}")
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the thing that was tried was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Succeeded,
    /// It was refused, or it failed.
    Failed,
}

/// Who did it where nobody else did. It has a space, as no user name can: what the log tells of a
/// user is never told of the proxy.
pub const PROXY: &str = "the proxy";

/// What is to be logged. Time, number, cluster and hashes are added by the store when the
/// entry is committed.
///
/// Every field is optional but the event; a field that is `None` is not written. Strings may come
/// from peers as they are: the log escapes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What happened.
    pub event: Event,
    /// Whether it was done or refused.
    pub outcome: Outcome,
    /// Who did it: an Anteroom user name, `the local administrator`, or [`PROXY`].
    pub user: Option<String>,
    /// Where the user came from, as `address:port`.
    pub remote_addr: Option<String>,
    /// The fingerprint of the key that was used.
    pub key: Option<String>,
    /// The node's UUID.
    pub node_id: Option<String>,
    /// The node's name.
    pub node: Option<String>,
    /// The login on the node.
    pub login: Option<String>,
    /// The access request.
    pub request_id: Option<String>,
    /// The session.
    pub session_id: Option<String>,
    /// The request's state after the event, or the verdict of a review.
    pub state: Option<String>,
    /// A certificate's serial number, in decimal.
    pub serial: Option<String>,
    /// Why: the reason a person gave, or the sentence a refusal said.
    pub reason: Option<String>,
    /// The name of the object that was created, changed or removed, or the target of a forward.
    pub name: Option<String>,
    /// The command that was run or stated.
    pub command: Option<String>,
    /// How it ended: exit status or signal.
    pub exit: Option<String>,
    /// Bytes from the user to the node.
    pub bytes_sent: Option<u64>,
    /// Bytes from the node to the user.
    pub bytes_received: Option<u64>,
    /// When what was granted ends, RFC 3339.
    pub expires: Option<String>,
    /// Lower-case hexadecimal SHA-256 of a certificate.
    pub certificate_sha256: Option<String>,
    /// What a review says the request's state should be.
    pub proposed_state: Option<String>,
    /// On whose behalf it was decided.
    pub delegator: Option<String>,
    /// Attributes that were given with it, as `key=value` with commas.
    pub annotations: Option<String>,
    /// What did it by itself: `access_monitoring_rule/NAME` or `pre_approval/ID`.
    pub automatic: Option<String>,
    /// The roles that were asked for. `core` bounds how many.
    pub roles: Vec<String>,
    /// The resources that were asked for. `core` bounds how many.
    pub resource_ids: Vec<String>,
    /// The lock that was made or taken away; `name` is then what it shuts, as `KIND/NAME`.
    pub lock_id: Option<String>,
    /// The pre-approval that was given or taken back; `name` is then the user it is for.
    pub pre_approval_id: Option<String>,
    /// The labels of nodes that it names, as `key=value` with commas.
    pub labels: Option<String>,
}

impl Entry {
    /// An entry about something that was done.
    #[must_use]
    pub fn new(event: Event) -> Self {
        Self {
            event,
            outcome: Outcome::Succeeded,
            user: None,
            remote_addr: None,
            key: None,
            node_id: None,
            node: None,
            login: None,
            request_id: None,
            session_id: None,
            state: None,
            serial: None,
            reason: None,
            name: None,
            command: None,
            exit: None,
            bytes_sent: None,
            bytes_received: None,
            expires: None,
            certificate_sha256: None,
            proposed_state: None,
            delegator: None,
            annotations: None,
            automatic: None,
            roles: Vec::new(),
            resource_ids: Vec::new(),
            lock_id: None,
            pre_approval_id: None,
            labels: None,
        }
    }

    /// An entry about something that was refused or failed, and why.
    #[must_use]
    pub fn failed(event: Event, why: impl fmt::Display) -> Self {
        Self::new(event).refused(why)
    }

    /// The same, but it was refused or failed, and why.
    #[must_use]
    pub fn refused(self, why: impl fmt::Display) -> Self {
        Self {
            outcome: Outcome::Failed,
            reason: Some(why.to_string()),
            ..self
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $field:ident),* $(,)?) => {
        impl Entry {
            $($(#[$doc])* #[must_use] pub fn $field(mut self, value: impl fmt::Display) -> Self {
                self.$field = Some(value.to_string());
                self
            })*
        }
    };
}

setters! {
    /// Says who did it.
    user,
    /// Says where the user came from.
    remote_addr,
    /// Names the key that was used.
    key,
    /// Names the node by UUID.
    node_id,
    /// Names the node by name.
    node,
    /// Names the login on the node.
    login,
    /// Names the access request.
    request_id,
    /// Names the session.
    session_id,
    /// Says what state the request is in.
    state,
    /// Names the certificate.
    serial,
    /// Says why.
    reason,
    /// Names the object.
    name,
    /// Says which command.
    command,
    /// Says how it ended.
    exit,
    /// Says until when.
    expires,
    /// Says which certificate, byte for byte.
    certificate_sha256,
    /// Says what a review is for.
    proposed_state,
    /// Names the lock.
    lock_id,
    /// Says on whose behalf.
    delegator,
    /// Says with which attributes.
    annotations,
    /// Says which rule or pre-approval did it.
    automatic,
    /// Names the pre-approval.
    pre_approval_id,
}

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
}

/// `hex(SHA-256(prev ‖ text))`.
fn link(prev: &str, text: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(prev.as_bytes());
    hasher.update(text.as_bytes());
    hex(&hasher.finalize())
}

/// Lower-case hexadecimal.
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

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = fmt::Write::write_fmt(&mut text, format_args!("{byte:02x}"));
            text
        })
}

fn line(entry: &Entry, seq: i64, time: &str, cluster: &str) -> Result<String, AppendError> {
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
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn chain(length: usize) -> (Vec<Record>, Head) {
        let mut head = Head::genesis();
        let mut records = Vec::new();
        for number in 0..length {
            let entry = Entry::new(Event::Exec)
                .user("alice")
                .command(format!("command {number}"));
            let record = head
                .append(&entry, "example.com", datetime!(2026-11-20 20:00 UTC))
                .unwrap();
            head = Head {
                seq: record.seq,
                hash: record.hash.clone(),
            };
            records.push(record);
        }
        (records, head)
    }

    fn verify(records: &[Record], head: &Head) -> Result<Head, Tampered> {
        let mut verifier = Verifier::new(Vec::new());
        for record in records {
            verifier.next(record)?;
        }
        verifier.finish(head)
    }

    #[test]
    fn an_untouched_chain_verifies() {
        let (records, head) = chain(20);
        assert_eq!(verify(&records, &head), Ok(head));
    }

    #[test]
    fn an_empty_log_verifies() {
        assert_eq!(verify(&[], &Head::genesis()), Ok(Head::genesis()));
    }

    #[test]
    fn an_edited_text_is_named() {
        let (mut records, head) = chain(9);
        records[4].text = records[4].text.replace("alice", "bob");
        assert_eq!(verify(&records, &head), Err(Tampered::Edited { seq: 5 }));
    }

    #[test]
    fn an_edited_text_with_its_hash_recomputed_is_named_at_the_next_entry() {
        let (mut records, head) = chain(9);
        records[4].text = records[4].text.replace("alice", "bob");
        records[4].hash = link(&records[4].prev, &records[4].text);
        assert_eq!(verify(&records, &head), Err(Tampered::Unlinked { seq: 6 }));
    }

    #[test]
    fn an_edited_column_is_named() {
        let (mut records, head) = chain(9);
        records[4].event = "scp".to_owned();
        assert_eq!(verify(&records, &head), Err(Tampered::Edited { seq: 5 }));
    }

    #[test]
    fn a_deleted_entry_is_named() {
        let (mut records, head) = chain(9);
        records.remove(4);
        assert_eq!(verify(&records, &head), Err(Tampered::Missing { seq: 5 }));
    }

    #[test]
    fn two_entries_that_changed_places_are_named() {
        let (mut records, head) = chain(9);
        records.swap(3, 4);
        let (first, second) = (records[4].seq, records[3].seq);
        records[3].seq = first;
        records[4].seq = second;
        assert_eq!(verify(&records, &head).map_err(|bad| bad.seq()), Err(4));
    }

    #[test]
    fn entries_cut_off_the_end_are_named() {
        let (records, head) = chain(9);
        assert_eq!(
            verify(&records[..6], &head),
            Err(Tampered::Missing { seq: 7 })
        );
    }

    #[test]
    fn an_entry_beside_the_head_is_named() {
        let (records, _) = chain(9);
        let (_, shorter) = chain(8);
        assert_eq!(
            verify(&records, &shorter),
            Err(Tampered::NotTheHead { seq: 9 })
        );
    }

    #[test]
    fn a_rewritten_chain_differs_from_its_anchor() {
        let (records, _) = chain(9);
        let anchor = Anchor {
            seq: 7,
            hash: link(GENESIS, "what it was"),
        };
        let mut verifier = Verifier::new(vec![anchor]);
        let bad = records
            .iter()
            .find_map(|record| verifier.next(record).err());
        assert_eq!(bad, Some(Tampered::NotAsAnchored { seq: 7 }));
    }

    #[test]
    fn a_chain_that_ends_before_its_anchor_is_named() {
        let (records, head) = chain(9);
        let mut verifier = Verifier::new(vec![Anchor {
            seq: 12,
            hash: GENESIS.to_owned(),
        }]);
        records
            .iter()
            .for_each(|record| verifier.next(record).unwrap());
        assert_eq!(verifier.finish(&head), Err(Tampered::Missing { seq: 10 }));
    }

    #[test]
    fn hostile_text_is_escaped_and_read_back_unchanged() {
        let hostile = "\u{1b}[2J\u{202e}txt\u{200b}\u{9b}31m\u{7f}\n\"\\\u{e0041}é世";
        let record = Head::genesis()
            .append(
                &Entry::new(Event::Exec).command(hostile),
                "c",
                datetime!(2026-11-20 20:00 UTC),
            )
            .unwrap();
        assert!(!record.text.chars().any(is_hostile), "{}", record.text);
        assert!(record.text.contains("é世"));
        assert_eq!(record.fields()["command"], hostile);
    }

    #[test]
    fn an_oversized_field_is_cut_between_characters() {
        let record = Head::genesis()
            .append(
                &Entry::new(Event::Exec).command("é".repeat(MAX_FIELD)),
                "c",
                datetime!(2026-11-20 20:00 UTC),
            )
            .unwrap();
        assert_eq!(
            record.fields()["command"].as_str().unwrap().len(),
            MAX_FIELD
        );
    }

    #[test]
    fn the_text_is_canonical() {
        let record = Head::genesis()
            .append(
                &Entry::failed(Event::Auth, "no such key")
                    .user("alice")
                    .remote_addr("192.0.2.1:5000"),
                "example.com",
                datetime!(2026-11-20 20:00 UTC),
            )
            .unwrap();
        assert_eq!(
            record.text,
            r#"{"seq":1,"time":"2026-11-20T20:00:00Z","event":"auth","code":"T3007W","success":false,"cluster":"example.com","user":"alice","remote_addr":"192.0.2.1:5000","reason":"no such key"}"#
        );
    }

    #[test]
    fn every_event_has_one_name_of_its_own() {
        for (event, name, _) in EVENTS {
            assert_eq!(Event::named(name), Some(*event));
            assert_eq!(event.name(), *name);
        }
    }

    proptest! {
        #[test]
        fn any_string_survives_and_none_is_dangerous(text in "\\PC*|.*") {
            let record = Head::genesis()
                .append(&Entry::new(Event::Exec).reason(&text), "c", datetime!(2026-11-20 20:00 UTC))
                .unwrap();
            prop_assert!(!record.text.chars().any(is_hostile));
            let fields = record.fields();
            prop_assert_eq!(fields["reason"].as_str().unwrap(), text);
        }
    }
}
