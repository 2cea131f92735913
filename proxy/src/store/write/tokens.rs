//! The statements for tokens, and for what comes in by them.

use std::net::SocketAddr;

use anteroom_core::id::{NodeId, TokenId};
use anteroom_core::token::Token;
use time::OffsetDateTime;

use super::{Transaction, body, one};
use crate::store::{StoreError, micros};

impl Transaction<'_> {
    pub(super) async fn add_token(&mut self, token: &Token) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO tokens (id, kind, secret_sha256, uses_left, created, expires, body) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.id.as_str())
        .bind(token.kind.as_str())
        .bind(&token.secret_sha256)
        .bind(i64::from(token.uses_left))
        .bind(micros(token.created))
        .bind(micros(token.expires))
        .bind(body(&format!("token `{}`", token.id), token)?)
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    pub(super) async fn remove_token(&mut self, id: &TokenId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM tokens WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("token `{id}`"))
    }

    pub(super) async fn use_token(
        &mut self,
        token: &TokenId,
        node: NodeId,
        from: SocketAddr,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let done = sqlx::query(
            "UPDATE tokens SET uses_left = uses_left - 1 \
             WHERE id = $1 AND uses_left > 0 AND expires > $2",
        )
        .bind(token.as_str())
        .bind(micros(now))
        .execute(&mut self.connection)
        .await?;
        one(done.rows_affected(), || format!("token `{token}`"))?;
        sqlx::query("INSERT INTO enrolments (token, node_id, at, addr) VALUES ($1, $2, $3, $4)")
            .bind(token.as_str())
            .bind(node.to_string())
            .bind(micros(now))
            .bind(from.to_string())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }
}
