//! The statements for sessions: their beginning, their end, and what a stop left open.

use time::OffsetDateTime;

use super::{Transaction, body};
use crate::audit::Entry;
use crate::store::change::{SessionEnd, SessionStart};
use crate::store::{StoreError, micros, read};

impl Transaction<'_> {
    pub(super) async fn start_session(
        &mut self,
        session: &SessionStart,
        start_seq: i64,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO sessions (id, user, node_id, login, request_id, started, body, start_seq) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(session.id.to_string())
        .bind(session.user.as_str())
        .bind(session.node.to_string())
        .bind(&session.login)
        .bind(session.request.map(|id| id.to_string()))
        .bind(micros(now))
        .bind(body("a session", &session.about)?)
        .bind(start_seq)
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    pub(super) async fn end_session(
        &mut self,
        end: SessionEnd,
        entry: &Entry,
        cluster: &str,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let live: Option<String> =
            sqlx::query_scalar("SELECT id FROM sessions WHERE id = $1 AND ended IS NULL")
                .bind(end.id.to_string())
                .fetch_optional(&mut self.connection)
                .await?;
        if live.is_none() {
            return Ok(());
        }
        let seq = self.append(entry, cluster, now).await?;
        let ended = end.at.map_or(now, |at| at.min(now));
        sqlx::query("UPDATE sessions SET ended = max($1, started), end_seq = $2 WHERE id = $3 AND ended IS NULL")
            .bind(micros(ended))
            .bind(seq)
            .bind(end.id.to_string())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Sessions that began and never ended: those of a proxy that was killed.
    pub(crate) async fn unended_sessions(&mut self) -> Result<Vec<read::SessionRow>, StoreError> {
        sqlx::query("SELECT * FROM sessions WHERE ended IS NULL ORDER BY start_seq")
            .fetch_all(&mut self.connection)
            .await?
            .iter()
            .map(read::session)
            .collect()
    }
}
