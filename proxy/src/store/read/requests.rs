//! Listings of requests, also of those that memory no longer holds.

use anteroom_core::id::{RequestId, UserName};
use anteroom_core::request::{AccessRequest, State};
use sqlx::{QueryBuilder, Sqlite};

use super::{Reader, parsed};
use crate::store::StoreError;

/// Whose requests a listing is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// All.
    Everybodys,
    /// One user's.
    Of(UserName),
    /// All but one user's.
    NotOf(UserName),
}

/// Which of the requests that have ended a listing is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whose.
    pub whose: Whose,
    /// How they ended; empty: however. States that are no end are none here.
    pub how: Vec<State>,
    /// Only those that suggest this reviewer.
    pub suggested: Option<UserName>,
}

impl Ended {
    /// The states that it is about; none where only live requests are wanted.
    pub fn states(&self) -> impl Iterator<Item = State> {
        let ends = [
            State::Denied,
            State::Expired,
            State::Canceled,
            State::Revoked,
        ];
        ends.into_iter()
            .filter(|end| self.how.is_empty() || self.how.contains(end))
    }
}

impl Reader {
    /// All requests, newest first, also those that memory no longer holds.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn requests(&self, limit: i64) -> Result<Vec<AccessRequest>, StoreError> {
        let mut turn = self.turn().await?;
        let rows = sqlx::query("SELECT id, body FROM requests ORDER BY created DESC, id LIMIT $1")
            .bind(limit)
            .fetch_all(&mut *turn.connection)
            .await?;
        rows.iter().map(|row| parsed("request", row)).collect()
    }

    /// Requests that have ended, newest first: those that memory holds, and older ones.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ended_requests(
        &self,
        which: &Ended,
        limit: usize,
    ) -> Result<Vec<AccessRequest>, StoreError> {
        let mut sql = QueryBuilder::<Sqlite>::new("SELECT id, body FROM requests WHERE state IN (");
        let mut states = sql.separated(", ");
        for state in which.states() {
            states.push_bind(state.as_str());
        }
        sql.push(")");
        match &which.whose {
            Whose::Everybodys => {}
            Whose::Of(user) => {
                sql.push(" AND user = ").push_bind(user.as_str());
            }
            Whose::NotOf(user) => {
                sql.push(" AND user <> ").push_bind(user.as_str());
            }
        }
        if let Some(reviewer) = &which.suggested {
            sql.push(" AND EXISTS (SELECT 1 FROM json_each(body, '$.suggested_reviewers') WHERE value = ")
                .push_bind(reviewer.as_str())
                .push(")");
        }
        sql.push(" ORDER BY created DESC, id LIMIT ")
            .push_bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let mut turn = self.turn().await?;
        let rows = sql.build().fetch_all(&mut *turn.connection).await?;
        rows.iter().map(|row| parsed("request", row)).collect()
    }

    /// One request, also if memory no longer holds it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn request(&self, id: RequestId) -> Result<Option<AccessRequest>, StoreError> {
        let row = sqlx::query("SELECT id, body FROM requests WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.finder)
            .await?;
        row.as_ref().map(|row| parsed("request", row)).transpose()
    }

    /// Requests whose ID begins with `prefix` (lower-case hexadecimal digits and hyphens), at most
    /// 100: more are never told apart by a person.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn requests_starting_with(
        &self,
        prefix: &str,
    ) -> Result<Vec<AccessRequest>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, body FROM requests WHERE id >= $1 AND id < $1 || 'g' ORDER BY id LIMIT 100",
        )
        .bind(prefix)
        .fetch_all(&self.finder)
        .await?;
        rows.iter().map(|row| parsed("request", row)).collect()
    }
}
