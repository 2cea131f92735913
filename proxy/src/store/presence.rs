//! When nodes were last there.

use std::net::IpAddr;

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

/// From where a node was connected by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSource {
    /// The node.
    pub node: NodeId,
    /// The address, as [`anteroom_core::node::source_network`] has it.
    pub network: IpAddr,
    /// When it was last there.
    pub last: OffsetDateTime,
}

impl Reader {
    /// From where nodes were connected within a day before the last of it was written down.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn node_sources(&self) -> Result<Vec<NodeSource>, StoreError> {
        let rows = sqlx::query("SELECT node_id, network, last FROM node_sources")
            .fetch_all(self.pool())
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let (id, network): (String, String) =
                (row.try_get("node_id")?, row.try_get("network")?);
            if let (Ok(node), Ok(network)) = (NodeId::parse(&id), network.parse()) {
                found.push(NodeSource {
                    node,
                    network,
                    last: from_micros(row.try_get("last")?),
                });
            }
        }
        Ok(found)
    }

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

    /// The same of where nodes were connected from. What is a day older than the newest goes.
    pub(super) async fn note_sources(&mut self, from: &[NodeSource]) -> Result<(), StoreError> {
        if from.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = from
            .iter()
            .map(|one| {
                let (node, network) = (one.node.to_string(), one.network.to_string());
                serde_json::json!([node, network, micros(one.last)])
            })
            .collect();
        sqlx::query(
            "INSERT INTO node_sources (node_id, network, last) \
             SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1) \
             WHERE value ->> 0 IN (SELECT id FROM nodes) \
             ON CONFLICT (node_id, network) DO UPDATE SET last = excluded.last",
        )
        .bind(serde_json::Value::Array(rows).to_string())
        .execute(self.connection())
        .await?;
        sqlx::query(
            "DELETE FROM node_sources \
             WHERE last < (SELECT max(last) FROM node_sources) - 86400000000",
        )
        .execute(self.connection())
        .await?;
        Ok(())
    }
}
