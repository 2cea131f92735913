//! The audit log, page by page.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use time::OffsetDateTime;

use super::{PAGE, Reader};
use crate::audit::{Event, Head, Record};
use crate::store::StoreError;

/// Which audit entries are wanted. Empty fields want everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only this event.
    pub event: Option<Event>,
    /// Only what this user did.
    pub user: Option<String>,
    /// Only what belongs to this request.
    pub request_id: Option<String>,
    /// Only what belongs to this session.
    pub session_id: Option<String>,
    /// Only what concerns this node (UUID or name).
    pub node: Option<String>,
    /// From this time on (inclusive).
    pub since: Option<OffsetDateTime>,
    /// Until this time (exclusive).
    pub until: Option<OffsetDateTime>,
}

impl AuditFilter {
    fn wants(&self, record: &Record) -> bool {
        let fields = record.fields();
        let is = |name: &str, wanted: &Option<String>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| fields.get(name).is_some_and(|found| found == wanted))
        };
        self.in_time(record)
            && is("user", &self.user)
            && is("request_id", &self.request_id)
            && is("session_id", &self.session_id)
            && (is("node_id", &self.node) || is("node", &self.node))
    }

    fn in_time(&self, record: &Record) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let at =
            OffsetDateTime::parse(&record.time, &time::format_description::well_known::Rfc3339);
        at.is_ok_and(|at| {
            self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
        })
    }
}

impl Reader {
    /// Audit entries that `filter` wants, oldest first, at most `limit` of them, all with a number
    /// greater than `after`. An empty answer is the end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        let mut after = after;
        while found.len() < limit {
            let page = self.audit_page(filter.event, after).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            found.extend(
                page.into_iter()
                    .filter(|record| filter.wants(record))
                    .take(limit - found.len()),
            );
        }
        Ok(found)
    }

    async fn audit_page(
        &self,
        event: Option<Event>,
        after: i64,
    ) -> Result<Vec<Record>, StoreError> {
        let mut turn = self.turn().await?;
        let rows = match event {
            Some(event) => {
                sqlx::query(
                    "SELECT * FROM audit WHERE seq > $1 AND event = $2 ORDER BY seq LIMIT $3",
                )
                .bind(after)
                .bind(event.name())
                .bind(PAGE)
                .fetch_all(&mut *turn.connection)
                .await?
            }
            None => {
                sqlx::query("SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
                    .bind(after)
                    .bind(PAGE)
                    .fetch_all(&mut *turn.connection)
                    .await?
            }
        };
        rows.iter().map(record).collect()
    }

    /// The end of the audit chain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        head(&mut *self.finder.acquire().await?).await
    }
}

pub(in crate::store) async fn head(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let row = sqlx::query("SELECT seq, hash FROM audit_head WHERE one = 1")
        .fetch_one(connection)
        .await?;
    Ok(Head {
        seq: row.try_get("seq")?,
        hash: row.try_get("hash")?,
    })
}

pub(in crate::store) fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    Ok(Record {
        seq: row.try_get("seq")?,
        time: row.try_get("time")?,
        event: row.try_get("event")?,
        prev: row.try_get("prev")?,
        hash: row.try_get("hash")?,
        text: row.try_get("entry")?,
    })
}
