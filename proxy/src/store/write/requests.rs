//! The statements for access requests, their reviews, and pre-approvals.

use anteroom_core::allowance::Allowance;
use anteroom_core::id::AllowanceId;
use anteroom_core::request::{AccessRequest, State as RequestState};

use super::{Transaction, body, one};
use crate::store::{StoreError, micros};

impl Transaction<'_> {
    pub(super) async fn file_request(&mut self, request: &AccessRequest) -> Result<(), StoreError> {
        let body = body(&format!("request {}", request.id), request)?;
        sqlx::query(
            "INSERT INTO requests (id, user, state, created, request_expires, access_expires, revision, body) \
             VALUES ($1, $2, $3, $4, $5, $6, 1, $7)",
        )
        .bind(request.id.to_string())
        .bind(request.user.as_str())
        .bind(request.state.to_string())
        .bind(micros(request.created))
        .bind(micros(request.request_expires))
        .bind(micros(request.access_expires))
        .bind(body)
        .execute(&mut self.connection)
        .await?;
        self.write_reviews(request).await
    }

    pub(super) async fn update_request(
        &mut self,
        request: &AccessRequest,
        from: RequestState,
        revision: i64,
    ) -> Result<(), StoreError> {
        let body = body(&format!("request {}", request.id), request)?;
        let done = sqlx::query(
            "UPDATE requests SET state = $1, request_expires = $2, access_expires = $3, \
             revision = revision + 1, body = $4 WHERE id = $5 AND state = $6 AND revision = $7",
        )
        .bind(request.state.to_string())
        .bind(micros(request.request_expires))
        .bind(micros(request.access_expires))
        .bind(body)
        .bind(request.id.to_string())
        .bind(from.to_string())
        .bind(revision)
        .execute(&mut self.connection)
        .await?;
        one(done.rows_affected(), || format!("request {}", request.id))?;
        self.write_reviews(request).await
    }

    /// Adds the reviews that are not there yet. They are final, so nothing is ever replaced.
    async fn write_reviews(&mut self, request: &AccessRequest) -> Result<(), StoreError> {
        for review in &request.reviews {
            sqlx::query(
                "INSERT INTO reviews (request_id, author, created, body) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (request_id, author) DO NOTHING",
            )
            .bind(request.id.to_string())
            .bind(review.author.to_string())
            .bind(micros(review.created))
            .bind(body("a review", review)?)
            .execute(&mut self.connection)
            .await?;
        }
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM reviews WHERE request_id = $1")
            .bind(request.id.to_string())
            .fetch_one(&mut self.connection)
            .await?;
        // INVARIANT: one review per person. More in the object than in the table means that two
        // have one author.
        if usize::try_from(count).ok() == Some(request.reviews.len()) {
            Ok(())
        } else {
            Err(StoreError::Conflict(format!("request {}", request.id)))
        }
    }

    pub(super) async fn put_allowance(&mut self, allowance: &Allowance) -> Result<(), StoreError> {
        let body = body(&format!("pre-approval {}", allowance.id), allowance)?;
        sqlx::query(
            "INSERT INTO allowances (id, author, user, created, ends, body) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(allowance.id.to_string())
        .bind(allowance.author.as_str())
        .bind(allowance.user.as_str())
        .bind(micros(allowance.created))
        .bind(micros(allowance.ends))
        .bind(body)
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    pub(super) async fn remove_allowance(&mut self, id: AllowanceId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM allowances WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("pre-approval {id}"))
    }
}
