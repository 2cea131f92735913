//! When nodes were last there.

use anteroom_core::id::NodeId;
use sqlx::Row;
use time::OffsetDateTime;

use super::{Reader, StoreError, Transaction, from_micros, micros};

/// When a node was last there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenNode {
    /// The node.
    pub node: NodeId,
    /// When its tunnel last answered.
    pub last_heartbeat: Option<OffsetDateTime>,
    /// When the proxy last logged in on it.
    pub last_dial: Option<OffsetDateTime>,
}

impl Reader {
    /// When each node was last there, as far as it was written down.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn presence(&self) -> Result<Vec<SeenNode>, StoreError> {
        let rows = sqlx::query("SELECT node_id, last_heartbeat, last_dial FROM presence")
            .fetch_all(self.pool())
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let id: String = row.try_get("node_id")?;
            let at = |column| -> Result<Option<OffsetDateTime>, StoreError> {
                Ok(row.try_get::<Option<i64>, _>(column)?.map(from_micros))
            };
            if let Ok(node) = NodeId::parse(&id) {
                found.push(SeenNode {
                    node,
                    last_heartbeat: at("last_heartbeat")?,
                    last_dial: at("last_dial")?,
                });
            }
        }
        Ok(found)
    }
}

impl Transaction<'_> {
    /// In one statement, whatever their number: a minute's news of thousands of nodes holds the writer for
    /// milliseconds. A node that is gone has none.
    pub(super) async fn note_presence(&mut self, seen: &[SeenNode]) -> Result<(), StoreError> {
        let rows: Vec<_> = seen
            .iter()
            .map(|one| {
                let (heartbeat, dial) = (one.last_heartbeat.map(micros), one.last_dial.map(micros));
                serde_json::json!([one.node.to_string(), heartbeat, dial])
            })
            .collect();
        sqlx::query(
            "INSERT INTO presence (node_id, last_heartbeat, last_dial) \
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1) \
             WHERE value ->> 0 IN (SELECT id FROM nodes) \
             ON CONFLICT (node_id) DO UPDATE SET \
               last_heartbeat = excluded.last_heartbeat, last_dial = excluded.last_dial",
        )
        .bind(serde_json::Value::Array(rows).to_string())
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
