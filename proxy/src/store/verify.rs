//! Whether everything is as it must be: the chain of the audit log, and the rows beside it.
//!
//! `audit verify` and `anteroom doctor` ask here, and so do the tests after each kill.

use std::collections::HashMap;

use serde_json::Value;
use sqlx::{Row, SqliteConnection};
use thiserror::Error;
use time::OffsetDateTime;

use super::read::{PAGE, head, record};
use super::{Kind, StoreError};
use crate::audit::{Anchor, Event, Head, Record, Tampered, Verifier};

/// An invariant that the rows of the database break.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Broken {
    /// A certificate without its entry in the log.
    #[error("certificate {serial} has no `cert.create` entry that matches it")]
    IssuanceUnlogged {
        /// Its serial number.
        serial: String,
    },
    /// An entry in the log without its certificate.
    #[error("audit entry {seq} tells of a certificate that has no issuance row")]
    IssuanceMissing {
        /// The entry.
        seq: i64,
    },
    /// A certificate that outlives what was granted.
    #[error("certificate {serial} ends after the access that request {request} granted")]
    OutlivesGrant {
        /// Its serial number.
        serial: String,
        /// The request.
        request: String,
    },
    /// A certificate under a request that was not approved, or was over, when it was issued.
    #[error("audit entry {seq} tells of a certificate under request {request}, which {why}")]
    IssuedWithoutGrant {
        /// The entry.
        seq: i64,
        /// The request.
        request: String,
        /// What the log says of the request up to there.
        why: &'static str,
    },
    /// A certificate that was issued under a lock.
    #[error("audit entry {seq} tells of a certificate that was issued while `{target}` was locked")]
    IssuedUnderLock {
        /// The entry.
        seq: i64,
        /// What was locked, as `KIND/VALUE`.
        target: String,
    },
    /// A session that does not begin or end in the log.
    #[error("session {id} is not in the log as the database has it")]
    SessionUnlogged {
        /// The session.
        id: String,
    },
    /// A row that differs from what the foreign keys say.
    #[error("table `{table}` refers to something that is not there")]
    Dangling {
        /// The table.
        table: String,
    },
    /// SQLite's own check of the file.
    #[error("the database file is damaged: {0}")]
    File(String),
}

/// What `audit verify` found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The end of the chain, to be kept as an anchor.
    pub head: Head,
    /// How many certificates were compared with the log.
    pub certificates: i64,
    /// How many sessions were compared with the log.
    pub sessions: i64,
}

/// Why the log or the rows beside it do not verify.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// The chain is not whole.
    #[error("{0}")]
    Tampered(#[from] Tampered),
    /// The chain is whole, and the rows beside it are not what it tells.
    #[error("{}", listed(.0))]
    Broken(Vec<Broken>),
    /// The database could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<sqlx::Error> for VerifyError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

fn listed(broken: &[Broken]) -> String {
    broken
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}
pub(super) async fn verify(
    connection: &mut SqliteConnection,
    anchors: Vec<Anchor>,
) -> Result<Report, VerifyError> {
    let mut verifier = Verifier::new(anchors);
    let mut story = Story::default();
    // From the very first number there is: an entry numbered 0 or less is found, too.
    let mut after = i64::MIN;
    loop {
        let rows = sqlx::query("SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            let record = record(row)?;
            verifier.next(&record)?;
            after = record.seq;
            story.goes_on(&record);
        }
        if rows.is_empty() {
            break;
        }
    }
    let head = verifier.finish(&head(connection).await?)?;
    let Story {
        certificates: logged,
        mut broken,
        ..
    } = story;
    let (unlogged, certificates) = issuances(connection, logged).await?;
    broken.extend(unlogged);
    broken.extend(grants(connection).await?);
    let (unlogged, sessions) = sessions(connection).await?;
    broken.extend(unlogged);
    broken.extend(file(connection).await?);
    if broken.is_empty() {
        Ok(Report {
            head,
            certificates,
            sessions,
        })
    } else {
        Err(VerifyError::Broken(broken))
    }
}

/// What the log tells of requests and certificates, in the order in which it was committed.
#[derive(Debug, Default)]
struct Story {
    /// Serial and hash of every certificate, by the number of its entry.
    certificates: Logged,
    requests: HashMap<String, Chapter>,
    /// The locks that are there, by ID: what each shuts, and until when.
    locks: HashMap<String, (String, Option<OffsetDateTime>)>,
    broken: Vec<Broken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chapter {
    Pending,
    Approved,
    Over,
}

impl Story {
    fn goes_on(&mut self, record: &Record) {
        let fields = record.fields();
        let text = |name| {
            fields
                .get(name)
                .and_then(|value| value.as_str())
                .map(str::to_owned)
        };
        // What was refused changed nothing, and tells of no certificate.
        if fields.get("success").and_then(serde_json::Value::as_bool) != Some(true) {
            return;
        }
        let request = text("request_id");
        if record.event == Event::CertCreate.name() {
            let logged = LoggedCertificate {
                serial: text("serial"),
                sha256: text("certificate_sha256"),
                of_a_host: is_of_a_host(&fields),
            };
            self.certificates.insert(record.seq, logged);
            self.look_for_locks(record, &fields);
            let Some(request) = request else { return };
            let why = match self.requests.get(&request) {
                Some(Chapter::Approved) => return,
                Some(Chapter::Pending) => "was not approved yet",
                Some(Chapter::Over) => "was over",
                None => "was never filed",
            };
            self.broken.push(Broken::IssuedWithoutGrant {
                seq: record.seq,
                request,
                why,
            });
        } else if record.event.starts_with("access_request.")
            && let (Some(request), Some(state)) = (request, text("state"))
        {
            let chapter = match state.as_str() {
                "PENDING" => Chapter::Pending,
                "APPROVED" => Chapter::Approved,
                _ => Chapter::Over,
            };
            self.requests.insert(request, chapter);
        } else if record.event == Event::LockCreate.name()
            && let (Some(id), Some(target)) = (text("lock_id"), text("name"))
        {
            let end = text("expires").and_then(|end| moment(&end));
            self.locks.insert(id, (target, end));
        } else if record.event == Event::LockDelete.name()
            && let Some(id) = text("lock_id")
        {
            self.locks.remove(&id);
        }
    }

    /// Whether a certificate was issued to whom, or for what, was locked at that moment. What roles
    /// its user had is not in the log.
    fn look_for_locks(&mut self, record: &Record, fields: &serde_json::Map<String, Value>) {
        // A host certificate opens nothing to anybody, and `user` is who had it made. That one of a
        // person is not passed off as one is compared with its row.
        if is_of_a_host(fields) {
            return;
        }
        let of = |kind: &str, field: &str| {
            let value = fields.get(field)?.as_str()?;
            Some(format!("{kind}/{value}"))
        };
        let named = [
            of("user", "user"),
            of("key", "key"),
            of("request", "request_id"),
            of("login", "login"),
            of("serial", "serial"),
            of("node", "node_id"),
        ];
        let at = moment(&record.time);
        for (target, end) in self.locks.values() {
            let in_force = end.is_none_or(|end| at.is_none_or(|at| at < end));
            if in_force && named.iter().flatten().any(|named| named == target) {
                self.broken.push(Broken::IssuedUnderLock {
                    seq: record.seq,
                    target: target.clone(),
                });
            }
        }
    }
}

fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
}

/// What a `cert.create` entry tells of its certificate.
#[derive(Debug, PartialEq, Eq)]
struct LoggedCertificate {
    serial: Option<String>,
    sha256: Option<String>,
    of_a_host: bool,
}

/// Whether a `cert.create` entry is about a host. Every certificate of a person is issued to a key
/// that she proved, which the entry names.
fn is_of_a_host(fields: &serde_json::Map<String, Value>) -> bool {
    !fields.contains_key("key")
}

type Logged = HashMap<i64, LoggedCertificate>;

async fn issuances(
    connection: &mut SqliteConnection,
    mut logged: Logged,
) -> Result<(Vec<Broken>, i64), StoreError> {
    let mut broken = Vec::new();
    let rows = sqlx::query("SELECT serial, cert_sha256, kind, audit_seq FROM issuances")
        .fetch_all(connection)
        .await?;
    for row in &rows {
        let serial: String = row.try_get("serial")?;
        let kind: String = row.try_get("kind")?;
        let expected = LoggedCertificate {
            serial: Some(serial.clone()),
            sha256: row.try_get("cert_sha256")?,
            of_a_host: kind == Kind::Host.as_str(),
        };
        let entry = logged.remove(&row.try_get::<i64, _>("audit_seq")?);
        if entry != Some(expected) {
            broken.push(Broken::IssuanceUnlogged { serial });
        }
    }
    let mut left: Vec<i64> = logged.into_keys().collect();
    left.sort_unstable();
    broken.extend(left.into_iter().map(|seq| Broken::IssuanceMissing { seq }));
    Ok((broken, i64::try_from(rows.len()).unwrap_or(i64::MAX)))
}

async fn grants(connection: &mut SqliteConnection) -> Result<Vec<Broken>, StoreError> {
    let rows = sqlx::query(
        "SELECT issuances.serial, issuances.request_id FROM issuances \
         LEFT JOIN requests ON requests.id = issuances.request_id \
         WHERE issuances.request_id IS NOT NULL \
         AND (requests.id IS NULL OR requests.user <> issuances.user \
              OR requests.state NOT IN ('APPROVED', 'EXPIRED', 'REVOKED') \
              OR requests.access_expires < issuances.valid_before)",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(Broken::OutlivesGrant {
                serial: row.try_get("serial")?,
                request: row.try_get("request_id")?,
            })
        })
        .collect()
}

async fn sessions(connection: &mut SqliteConnection) -> Result<(Vec<Broken>, i64), StoreError> {
    let rows = sqlx::query(
        "SELECT sessions.id, \
         (started.event = 'session.start' AND (end_seq IS NULL OR ended.event = 'session.end')) AS fine \
         FROM sessions LEFT JOIN audit AS started ON started.seq = start_seq \
         LEFT JOIN audit AS ended ON ended.seq = end_seq",
    )
    .fetch_all(connection)
    .await?;
    let mut broken = Vec::new();
    for row in &rows {
        if row.try_get::<Option<i64>, _>("fine")? != Some(1) {
            broken.push(Broken::SessionUnlogged {
                id: row.try_get("id")?,
            });
        }
    }
    Ok((broken, i64::try_from(rows.len()).unwrap_or(i64::MAX)))
}

async fn file(connection: &mut SqliteConnection) -> Result<Vec<Broken>, StoreError> {
    let dangling = sqlx::query("PRAGMA foreign_key_check")
        .fetch_all(&mut *connection)
        .await?;
    let mut broken = Vec::new();
    for row in &dangling {
        broken.push(Broken::Dangling {
            table: row.try_get(0)?,
        });
    }
    let notes: Vec<String> = sqlx::query_scalar("PRAGMA quick_check(10)")
        .fetch_all(connection)
        .await?;
    broken.extend(
        notes
            .into_iter()
            .filter(|note| note != "ok")
            .map(Broken::File),
    );
    Ok(broken)
}
