//! Certificates that were issued: those that are valid, and those that count no more.

use std::collections::HashMap;

use anteroom_core::id::NodeId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use super::Reader;
use crate::store::{StoreError, from_micros, micros};

/// A host certificate of a node that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    /// Its serial number.
    pub serial: u64,
    /// Lower-case hexadecimal SHA-256 of its binary form.
    pub sha256: String,
    /// The fingerprint of the key it certifies.
    pub key: String,
    /// The fingerprint of the authority that signed it.
    pub authority: String,
    /// Until when it is valid (exclusive).
    pub valid_before: OffsetDateTime,
    /// Why it counts no more, once it was revoked.
    pub revoked: Option<String>,
}

/// A certificate that may still be in use, of a user; or one of a node that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidCertificate {
    /// Its serial number, in decimal.
    pub serial: String,
    /// `node`, `user` or `host`: which authority signed it.
    pub kind: String,
    /// Whose it is.
    pub user: Option<String>,
    /// The node it opens.
    pub node_id: Option<String>,
    /// The login it opens.
    pub login: Option<String>,
    /// The request it was issued under.
    pub request_id: Option<String>,
    /// The fingerprint of the key that the user came with. Of a certificate of a node that an
    /// earlier version issued it is not known.
    pub login_key: Option<String>,
    /// Why it counts no more, once it was revoked.
    pub revoked: Option<String>,
}

impl Reader {
    /// The SHA-256 of the certificate of that serial number, in hexadecimal.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn issued(&self, serial: u64) -> Result<Option<String>, StoreError> {
        Ok(
            sqlx::query_scalar("SELECT cert_sha256 FROM issuances WHERE serial = $1")
                .bind(serial.to_string())
                .fetch_optional(&self.finder)
                .await?,
        )
    }

    /// The certificates of users that are valid at `now` by their time, and the revoked ones of
    /// nodes, for the revocation list.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn valid_certificates(
        &self,
        now: OffsetDateTime,
    ) -> Result<Vec<ValidCertificate>, StoreError> {
        let mut turn = self.turn().await?;
        let rows = sqlx::query(
            "SELECT serial, kind, user, issuances.node_id, login, request_id, \
             coalesce(identities.login_key, issuances.user_key) AS login_key, \
             coalesce(identities.why, host_certificates.why) AS why \
             FROM issuances LEFT JOIN identities USING (serial) \
             LEFT JOIN host_certificates USING (serial) \
             WHERE issuances.valid_before > $1 \
               AND (kind <> 'host' OR host_certificates.why IS NOT NULL) ORDER BY audit_seq",
        )
        .bind(micros(now))
        .fetch_all(&mut *turn.connection)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(ValidCertificate {
                    serial: row.try_get("serial")?,
                    kind: row.try_get("kind")?,
                    user: row.try_get("user")?,
                    node_id: row.try_get("node_id")?,
                    login: row.try_get("login")?,
                    request_id: row.try_get("request_id")?,
                    login_key: row.try_get("login_key")?,
                    revoked: row.try_get("why")?,
                })
            })
            .collect()
    }

    /// The host certificates of a node that have not ended at `now`, the latest first; at most
    /// 1,000, which is more than an hourly renewal leaves behind.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn host_certificates_of(
        &self,
        node: NodeId,
        now: OffsetDateTime,
    ) -> Result<Vec<HostCertificate>, StoreError> {
        let rows = sqlx::query(
            "SELECT serial, cert_sha256, subject, authority, host_certificates.valid_before AS ends, why \
             FROM host_certificates JOIN issuances USING (serial) \
             WHERE host_certificates.node_id = $1 AND host_certificates.valid_before > $2 \
             ORDER BY audit_seq DESC LIMIT 1000",
        )
        .bind(node.to_string())
        .bind(micros(now))
        .fetch_all(&self.finder)
        .await?;
        rows.iter().map(host_certificate).collect()
    }

    /// The principals of the last host certificate that was issued for a node under the name that it has; none where
    /// there is none. What is another node's name by now is not among them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn certified_names_of(&self, node: NodeId) -> Result<Vec<String>, StoreError> {
        let last: Option<String> = sqlx::query_scalar(
            "SELECT (SELECT json_group_array(value) FROM json_each(principals) \
                WHERE value NOT IN (SELECT name FROM nodes WHERE id <> $1)) \
             FROM issuances JOIN host_certificates USING (serial) \
             WHERE host_certificates.node_id = $1 AND issued >= coalesce((SELECT max(revoked) \
                FROM host_certificates WHERE node_id = $1 AND why = $2), 0) \
               AND coalesce(why, '') <> $2 \
             ORDER BY audit_seq DESC LIMIT 1",
        )
        .bind(node.to_string())
        .bind(crate::store::RENAMED)
        .fetch_optional(&self.finder)
        .await?;
        let unreadable = |error: serde_json::Error| StoreError::Unreadable {
            what: format!("the names of node {node}'s certificate"),
            why: error.to_string(),
        };
        last.map_or_else(
            || Ok(Vec::new()),
            |text| serde_json::from_str(&text).map_err(unreadable),
        )
    }

    /// When the last host certificate of each node ends.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn host_certificates(&self) -> Result<HashMap<NodeId, OffsetDateTime>, StoreError> {
        let mut turn = self.turn().await?;
        let rows = sqlx::query(
            "SELECT node_id, max(valid_before) AS ends FROM host_certificates \
             WHERE revoked IS NULL GROUP BY node_id",
        )
        .fetch_all(&mut *turn.connection)
        .await?;
        let mut found = HashMap::new();
        for row in &rows {
            let id: String = row.try_get("node_id")?;
            if let Ok(id) = NodeId::parse(&id) {
                found.insert(id, from_micros(row.try_get("ends")?));
            }
        }
        Ok(found)
    }
}

fn host_certificate(row: &SqliteRow) -> Result<HostCertificate, StoreError> {
    let serial: String = row.try_get("serial")?;
    Ok(HostCertificate {
        sha256: row.try_get("cert_sha256")?,
        key: row.try_get("subject")?,
        authority: row.try_get("authority")?,
        valid_before: from_micros(row.try_get("ends")?),
        revoked: row.try_get("why")?,
        serial: serial.parse().map_err(|error| StoreError::Unreadable {
            what: format!("certificate {serial}"),
            why: format!("{error}"),
        })?,
    })
}
