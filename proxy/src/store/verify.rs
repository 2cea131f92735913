//! Whether everything is as it must be: the chain of the audit log, and the rows beside it.
//!
//! `audit verify` and `anteroom doctor` ask here, and so do the tests after each kill. The log is read
//! page by page, and the rows that a page's entries made with it, so that the memory it takes does not
//! grow with the log (but for one word on each request).

use std::collections::HashMap;

use anteroom_core::request::AccessRequest;
use anteroom_core::role::DurationFrom;
use serde_json::{Map, Value};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use super::read::PAGE;
use super::read::audit::{head, record};
use super::story::{
    Chapter, LENIENCE, LoggedCertificate, LoggedEnd, Page, Story, is_of_a_host, moment, text,
};
use super::{Kind, StoreError, from_micros, micros};
use crate::audit::{Anchor, Head, Tampered, Verifier};

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
    /// A certificate whose row is not what its entry tells.
    #[error("certificate {serial} has a `cert.create` entry that tells something else: {what}")]
    IssuanceDiffers {
        /// Its serial number.
        serial: String,
        /// In what they differ.
        what: &'static str,
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
    /// An identity certificate that ends later than the one with which it was got.
    #[error("certificate {serial} ends later than certificate {presented}, with which it was got")]
    RenewedLonger {
        /// Its serial number.
        serial: String,
        /// The serial number of the other one.
        presented: String,
    },
    /// A certificate that was issued when what it rests on counted no more.
    #[error("certificate {serial} was issued after {what}")]
    IssuedAfterRevocation {
        /// Its serial number.
        serial: String,
        /// What had happened.
        what: String,
    },
    /// A request that went a way that requests do not go.
    #[error("audit entry {seq} changes request {request}, which {why}")]
    RequestChanged {
        /// The entry.
        seq: i64,
        /// The request.
        request: String,
        /// What the log says of the request up to there.
        why: &'static str,
    },
    /// A request whose row is not what the log tells, or what was asked for.
    #[error("request {request} {why}")]
    RequestDiffers {
        /// The request.
        request: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A request that the log tells of and that is not there.
    #[error("request {request} is in the log, and has no row")]
    RequestMissing {
        /// The request.
        request: String,
    },
    /// A session that does not begin or end in the log.
    #[error("session {id} is not in the log as the database has it")]
    SessionUnlogged {
        /// The session.
        id: String,
    },
    /// A session that the log tells of and that is not there.
    #[error("audit entry {seq} tells of the start of a session that has no row")]
    SessionMissing {
        /// The entry.
        seq: i64,
    },
    /// A session that was not ended though the proxy was started again.
    #[error("session {id} has no end, and audit entry {seq} tells of a later start of the proxy")]
    SessionNeverEnded {
        /// The session.
        id: String,
        /// The entry.
        seq: i64,
    },
    /// A session that was there after the end of what permitted it.
    #[error("session {id} went on after {what}")]
    SessionOutlives {
        /// The session.
        id: String,
        /// What permitted it, or what shut it.
        what: String,
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

/// The first of them: where one thing is wrong there may be thousands.
fn listed(broken: &[Broken]) -> String {
    const SHOWN: usize = 20;
    let mut shown: Vec<String> = broken.iter().take(SHOWN).map(Broken::to_string).collect();
    if let Some(more @ 1..) = broken.len().checked_sub(SHOWN) {
        shown.push(format!("and {more} more"));
    }
    shown.join("; ")
}

/// The entries of the log from one number to another: `after < seq <= last`.
#[derive(Debug, Clone, Copy)]
struct Span {
    after: i64,
    last: i64,
}

pub(super) async fn verify(
    connection: &mut SqliteConnection,
    anchors: Vec<Anchor>,
) -> Result<Report, VerifyError> {
    let mut verifier = Verifier::new(anchors);
    let mut story = Story::default();
    // From the very first number there is: an entry numbered 0 or less is found, too.
    let mut after = i64::MIN;
    let (mut certificates, mut sessions) = (0, 0);
    loop {
        let rows = sqlx::query("SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await?;
        let mut last = after;
        for row in &rows {
            let record = record(row)?;
            verifier.next(&record)?;
            last = record.seq;
            story.goes_on(&record);
        }
        // Behind the last page there may be rows whose entries are not there.
        let span = match rows.is_empty() {
            true => Span {
                after,
                last: i64::MAX,
            },
            false => Span { after, last },
        };
        let page = story.turn_page();
        let Page {
            certificates: issued,
            started,
            ended,
        } = page;
        certificates += issuances(connection, &mut story, span, issued).await?;
        sessions += starts(connection, &mut story, span, started).await?;
        ends(connection, &mut story, span, ended).await?;
        if rows.is_empty() {
            break;
        }
        after = last;
    }
    let head = verifier.finish(&head(connection).await?)?;
    requests(connection, &mut story).await?;
    let mut broken = story.broken;
    broken.extend(outlived_grants(connection).await?);
    broken.extend(succession(connection).await?);
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

/// The certificates that a span of the log tells of, each as its row has it. Returns how many rows
/// there are.
async fn issuances(
    connection: &mut SqliteConnection,
    story: &mut Story,
    span: Span,
    mut logged: HashMap<i64, LoggedCertificate>,
) -> Result<i64, StoreError> {
    let rows = sqlx::query("SELECT * FROM issuances WHERE audit_seq > $1 AND audit_seq <= $2")
        .bind(span.after)
        .bind(span.last)
        .fetch_all(connection)
        .await?;
    for row in &rows {
        let serial: String = row.try_get("serial")?;
        let entry = logged.remove(&row.try_get::<i64, _>("audit_seq")?);
        let Some(entry) = entry.filter(|entry| text(&entry.fields, "serial") == Some(&serial))
        else {
            story.broken.push(Broken::IssuanceUnlogged { serial });
            continue;
        };
        if let Some(what) = differs(row, &entry)? {
            story.broken.push(Broken::IssuanceDiffers { serial, what });
        }
    }
    let left = sorted(logged).map(|seq| Broken::IssuanceMissing { seq });
    story.broken.extend(left);
    Ok(i64::try_from(rows.len()).unwrap_or(i64::MAX))
}

/// The entries that are left, in their order.
fn sorted<T>(left: HashMap<i64, T>) -> impl Iterator<Item = i64> {
    let mut left: Vec<i64> = left.into_keys().collect();
    left.sort_unstable();
    left.into_iter()
}

/// In what a certificate's row is not what its entry tells.
fn differs(row: &SqliteRow, entry: &LoggedCertificate) -> Result<Option<&'static str>, StoreError> {
    let is = |column: &str, field: &str| -> Result<bool, StoreError> {
        let stored: Option<String> = row.try_get(column)?;
        Ok(stored.as_deref() == text(&entry.fields, field))
    };
    let of_a_host = row.try_get::<String, _>("kind")? == Kind::Host.as_str();
    if of_a_host != is_of_a_host(&entry.fields) {
        return Ok(Some("whether it is a host's"));
    }
    if !is("cert_sha256", "certificate_sha256")? {
        return Ok(Some("its hash"));
    }
    let ends: i64 = row.try_get("valid_before")?;
    if text(&entry.fields, "expires").and_then(moment).map(micros) != Some(ends) {
        return Ok(Some("its end"));
    }
    let issued: i64 = row.try_get("issued")?;
    if entry.at.map(micros) != Some(issued) {
        return Ok(Some("when it was issued"));
    }
    // The entry of a host's certificate tells who had it made.
    if of_a_host {
        return Ok(None);
    }
    let fields = [
        ("user", "user", "its user"),
        ("request_id", "request_id", "its request"),
        ("session_id", "session_id", "its session"),
        ("node_id", "node_id", "its node"),
        ("login", "login", "its login"),
    ];
    for (column, field, what) in fields {
        if !is(column, field)? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

async fn outlived_grants(connection: &mut SqliteConnection) -> Result<Vec<Broken>, StoreError> {
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

/// The requests: each as its columns, its body and the log tell alike, granted once at most, and for
/// no longer than was asked.
async fn requests(connection: &mut SqliteConnection, story: &mut Story) -> Result<(), StoreError> {
    let mut logged = std::mem::take(&mut story.requests);
    let mut after = String::new();
    loop {
        let rows = sqlx::query("SELECT * FROM requests WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(&after)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await?;
        for row in &rows {
            let request: String = row.try_get("id")?;
            let chapter = logged.remove(&request);
            if let Some(why) = wrong_request(row, chapter.as_ref())? {
                let request = request.clone();
                story.broken.push(Broken::RequestDiffers { request, why });
            }
            after = request;
        }
        if rows.is_empty() {
            break;
        }
    }
    let mut left: Vec<String> = logged.into_keys().collect();
    left.sort_unstable();
    let left = left.into_iter();
    story
        .broken
        .extend(left.map(|request| Broken::RequestMissing { request }));
    Ok(())
}

fn wrong_request(
    row: &SqliteRow,
    chapter: Option<&Chapter>,
) -> Result<Option<&'static str>, StoreError> {
    let (id, user): (String, String) = (row.try_get("id")?, row.try_get("user")?);
    let (state, body): (String, String) = (row.try_get("state")?, row.try_get("body")?);
    let Some(chapter) = chapter else {
        return Ok(Some("is not in the log"));
    };
    if chapter.state.as_str() != state {
        return Ok(Some("is in another state than the log tells"));
    }
    let Ok(request) = serde_json::from_str::<AccessRequest>(&body) else {
        return Ok(Some("cannot be read"));
    };
    let end: i64 = row.try_get("access_expires")?;
    let said = (
        request.id.to_string(),
        request.user.as_str(),
        request.state.as_str(),
        micros(request.created),
        micros(request.request_expires),
        micros(request.access_expires),
    );
    let columns = (
        id,
        user.as_str(),
        state.as_str(),
        row.try_get("created")?,
        row.try_get("request_expires")?,
        end,
    );
    if said != columns {
        return Ok(Some("has a body that its columns contradict"));
    }
    if request.granted.is_some() != (chapter.grants == 1) {
        return Ok(Some(
            "holds a grant that the log does not tell of, or lacks it",
        ));
    }
    if end > micros(longest(&request)) {
        return Ok(Some("grants access for longer than was asked for"));
    }
    Ok(None)
}

/// The latest end that a request may have.
fn longest(request: &AccessRequest) -> OffsetDateTime {
    let start = match request.duration_from {
        DurationFrom::Creation => request.created,
        DurationFrom::Approval => [
            request.granted.as_ref().map(|granted| granted.at),
            request.assume_start,
        ]
        .into_iter()
        .flatten()
        .fold(request.created, OffsetDateTime::max),
    };
    // Both are stored in whole seconds.
    let limit = request
        .max_duration
        .map_or(request.duration, |most| most.min(request.duration));
    start.saturating_add(limit + Duration::SECOND)
}

/// Identity certificates that end later than the one they were got with, or were got with one that
/// counted no more; and certificates of an authority that was retired.
async fn succession(connection: &mut SqliteConnection) -> Result<Vec<Broken>, StoreError> {
    let rows = sqlx::query(
        "SELECT * FROM (SELECT identities.serial, identities.presented, \
         coalesce(first.valid_before < issuances.valid_before, 1) AS longer, \
         coalesce(before.revoked < issuances.issued, 0) AS revoked \
         FROM identities LEFT JOIN issuances USING (serial) \
         LEFT JOIN identities AS before ON before.serial = identities.presented \
         LEFT JOIN issuances AS first ON first.serial = identities.presented \
         WHERE identities.presented IS NOT NULL) WHERE longer OR revoked",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut broken = Vec::new();
    for row in &rows {
        let (serial, presented): (String, String) =
            (row.try_get("serial")?, row.try_get("presented")?);
        if row.try_get::<i64, _>("longer")? == 1 {
            broken.push(Broken::RenewedLonger {
                serial: serial.clone(),
                presented: presented.clone(),
            });
        }
        if row.try_get::<i64, _>("revoked")? == 1 {
            let what = format!("certificate {presented}, with which it was got, was revoked");
            broken.push(Broken::IssuedAfterRevocation { serial, what });
        }
    }
    let rows = sqlx::query(
        "SELECT serial, fingerprint FROM issuances \
         JOIN retired_authorities ON fingerprint = authority WHERE issued > retired",
    )
    .fetch_all(connection)
    .await?;
    for row in &rows {
        let authority: String = row.try_get("fingerprint")?;
        broken.push(Broken::IssuedAfterRevocation {
            serial: row.try_get("serial")?,
            what: format!("its authority {authority} was retired"),
        });
    }
    Ok(broken)
}

/// The sessions that start within a span of the log, each as its row has it. Returns how many rows
/// there are.
async fn starts(
    connection: &mut SqliteConnection,
    story: &mut Story,
    span: Span,
    mut logged: HashMap<i64, Map<String, Value>>,
) -> Result<i64, StoreError> {
    let rows = sqlx::query("SELECT * FROM sessions WHERE start_seq > $1 AND start_seq <= $2")
        .bind(span.after)
        .bind(span.last)
        .fetch_all(connection)
        .await?;
    for row in &rows {
        let started = logged.remove(&row.try_get::<i64, _>("start_seq")?);
        if !started.map_or(Ok(false), |fields| is_as_logged(row, &fields))? {
            let id = row.try_get("id")?;
            story.broken.push(Broken::SessionUnlogged { id });
        }
    }
    let left = sorted(logged).map(|seq| Broken::SessionMissing { seq });
    story.broken.extend(left);
    Ok(i64::try_from(rows.len()).unwrap_or(i64::MAX))
}

fn is_as_logged(row: &SqliteRow, started: &Map<String, Value>) -> Result<bool, StoreError> {
    let columns = [
        ("id", "session_id"),
        ("user", "user"),
        ("node_id", "node_id"),
        ("login", "login"),
        ("request_id", "request_id"),
    ];
    for (column, field) in columns {
        let stored: Option<String> = row.try_get(column)?;
        if stored.as_deref() != text(started, field) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The sessions that end within a span of the log: each in its row as well, and none outlives what
/// permitted it. One that lives is in neither.
async fn ends(
    connection: &mut SqliteConnection,
    story: &mut Story,
    span: Span,
    mut logged: HashMap<i64, LoggedEnd>,
) -> Result<(), StoreError> {
    let rows = sqlx::query("SELECT * FROM sessions WHERE end_seq > $1 AND end_seq <= $2")
        .bind(span.after)
        .bind(span.last)
        .fetch_all(&mut *connection)
        .await?;
    for row in &rows {
        let (id, start): (String, i64) = (row.try_get("id")?, row.try_get("start_seq")?);
        let end = logged.remove(&row.try_get::<i64, _>("end_seq")?);
        let Some(end) = end.filter(|end| end.id == id && end.start == start) else {
            story.broken.push(Broken::SessionUnlogged { id });
            continue;
        };
        let granted = match &end.request {
            Some(request) => access_end(connection, request).await?,
            None => None,
        };
        let ended = from_micros(row.try_get("ended")?);
        if let Some(what) = outlived(story, ended, end, granted) {
            story.broken.push(Broken::SessionOutlives { id, what });
        }
    }
    let mut left: Vec<String> = logged.into_values().map(|end| end.id).collect();
    left.sort_unstable();
    let left = left.into_iter().map(|id| Broken::SessionUnlogged { id });
    story.broken.extend(left);
    Ok(())
}

/// When the access of a request ended or is to end.
async fn access_end(
    connection: &mut SqliteConnection,
    request: &str,
) -> Result<Option<OffsetDateTime>, StoreError> {
    let end = sqlx::query_scalar("SELECT access_expires FROM requests WHERE id = $1")
        .bind(request)
        .fetch_optional(connection)
        .await?;
    Ok(end.map(from_micros))
}

/// What a session was there after, if it was for longer than it takes to end one.
fn outlived(
    story: &Story,
    ended: OffsetDateTime,
    end: LoggedEnd,
    granted: Option<OffsetDateTime>,
) -> Option<String> {
    if end.with_the_proxy {
        return None;
    }
    let granted = granted.zip(end.request);
    let granted = granted.map(|(at, request)| (at, format!("the end of request {request}")));
    let due = [granted, end.due].into_iter().flatten();
    let (due, what) = due.min_by_key(|(at, _)| *at)?;
    let late = due.saturating_add(LENIENCE);
    (late < ended && story.was_at_work(late, ended)).then_some(what)
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
