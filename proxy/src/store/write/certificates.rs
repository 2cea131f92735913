//! The statements for certificates that were issued, and for what revokes them.

use anteroom_core::id::{KeyFingerprint, UserName};
use time::OffsetDateTime;

use super::{Transaction, body, one};
use crate::audit::Entry;
use crate::store::change::{HostRevocation, IdentityIssuance, Issuance, Kind};
use crate::store::{StoreError, micros};

impl Transaction<'_> {
    pub(super) async fn issue(
        &mut self,
        issuance: &Issuance,
        audit_seq: i64,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO issuances (serial, kind, user, key_id, principals, subject, request_id, session_id, \
             node_id, login, cert_sha256, valid_after, valid_before, issued, audit_seq, user_key, authority) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        )
        .bind(issuance.serial.to_string())
        .bind(issuance.kind.as_str())
        .bind(issuance.user.as_ref().map(UserName::as_str))
        .bind(&issuance.key_id)
        .bind(body("a certificate's principals", &issuance.principals)?)
        .bind(&issuance.subject)
        .bind(issuance.request.map(|id| id.to_string()))
        .bind(issuance.session.map(|id| id.to_string()))
        .bind(issuance.node.map(|id| id.to_string()))
        .bind(issuance.login.as_deref())
        .bind(&issuance.sha256)
        .bind(micros(issuance.valid_after))
        .bind(micros(issuance.valid_before))
        .bind(micros(now))
        .bind(audit_seq)
        .bind(issuance.login_key.as_ref().map(KeyFingerprint::as_str))
        .bind(&issuance.authority)
        .execute(&mut self.connection)
        .await?;
        if let (Kind::Host, Some(node)) = (issuance.kind, issuance.node) {
            let key_type = issuance.host_key_type.as_deref().unwrap_or_default();
            sqlx::query(
                "INSERT INTO host_certificates (serial, node_id, key_type, valid_before) \
                 VALUES ($1, $2, $3, $4)",
            )
            .bind(issuance.serial.to_string())
            .bind(node.to_string())
            .bind(key_type)
            .bind(micros(issuance.valid_before))
            .execute(&mut self.connection)
            .await?;
        }
        match &issuance.identity {
            Some(identity) => self.issue_identity(issuance, identity, now).await,
            None => Ok(()),
        }
    }

    async fn issue_identity(
        &mut self,
        issuance: &Issuance,
        identity: &IdentityIssuance,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO identities (serial, login_key, presented, valid_before) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(issuance.serial.to_string())
        .bind(identity.login_key.as_str())
        .bind(identity.presented.map(|serial| serial.to_string()))
        .bind(micros(issuance.valid_before))
        .execute(&mut self.connection)
        .await?;
        for (serial, why) in &identity.revokes {
            // Of two drops at once, one comes too late: its certificate must not exist.
            self.revoke_identity(*serial, why, now).await?;
        }
        Ok(())
    }

    pub(super) async fn revoke_identity(
        &mut self,
        serial: u64,
        why: &str,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "UPDATE identities SET revoked = $1, why = $2 WHERE serial = $3 AND revoked IS NULL",
        )
        .bind(micros(now))
        .bind(why.to_owned())
        .bind(serial.to_string())
        .execute(&mut self.connection)
        .await?;
        one(changed.rows_affected(), || format!("certificate {serial}"))
    }

    pub(super) async fn revoke_hosts(
        &mut self,
        which: &HostRevocation,
        entry: &Entry,
        cluster: &str,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let revoked: Vec<String> = sqlx::query_scalar(
            "UPDATE host_certificates SET revoked = $1, why = $2 \
             WHERE node_id = $3 AND revoked IS NULL AND valid_before > $1 \
               AND ($4 IS NULL OR key_type IN ($4, '')) \
               AND serial NOT IN (SELECT serial FROM issuances WHERE node_id = $3 \
                 AND kind = 'host' AND subject IN (SELECT value FROM json_each($5))) \
             RETURNING serial",
        )
        .bind(micros(now))
        .bind(&which.why)
        .bind(which.node.to_string())
        .bind(&which.key_type)
        .bind(body("keys of a node", &which.but_for)?)
        .fetch_all(&mut self.connection)
        .await?;
        if revoked.is_empty() {
            return Ok(());
        }
        let certificates = revoked.join(", ");
        let reason = format!("host certificates revoked: {certificates}: {}", which.why);
        let entry = entry.clone().reason(reason);
        self.append(&entry, cluster, now).await.map(drop)
    }
}
