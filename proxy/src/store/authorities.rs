//! The certificate authorities in the database: their stages, what is retired, and what nodes have learnt.

use anteroom_core::id::NodeId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use ssh_key::PublicKey;
use time::OffsetDateTime;

use super::{Reader, StoreError, Transaction, from_micros, micros};
use crate::authority::{AuthorityKind, Record, Retired, Stage, print};

/// A node that is known to go by a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Learnt {
    /// Of which authority.
    pub kind: AuthorityKind,
    /// The node.
    pub node: NodeId,
    /// The key's fingerprint.
    pub fingerprint: String,
}

impl Reader {
    /// The authorities that the database knows; at the first start none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn authorities(&self) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query("SELECT kind, stage, signing, other, since FROM authorities")
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(record).collect()
    }

    /// The keys that were authorities' and are trusted no more, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn retired_authorities(&self) -> Result<Vec<Retired>, StoreError> {
        let rows = sqlx::query(
            "SELECT kind, key, retired FROM retired_authorities ORDER BY retired, fingerprint",
        )
        .fetch_all(self.pool())
        .await?;
        let retired = |row: &SqliteRow| {
            Ok(Retired {
                kind: kind(row)?,
                key: key(&row.try_get::<String, _>("key")?)?,
                at: from_micros(row.try_get("retired")?),
            })
        };
        rows.iter().map(retired).collect()
    }

    /// Which nodes are known to go by which keys, and since when.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn authorities_learnt(&self) -> Result<Vec<(Learnt, OffsetDateTime)>, StoreError> {
        let rows = sqlx::query("SELECT kind, node_id, fingerprint, seen FROM authorities_learnt")
            .fetch_all(self.pool())
            .await?;
        let mut found = Vec::new();
        for row in &rows {
            let node: String = row.try_get("node_id")?;
            let Ok(node) = NodeId::parse(&node) else {
                continue;
            };
            let learnt = Learnt {
                kind: kind(row)?,
                node,
                fingerprint: row.try_get("fingerprint")?,
            };
            found.push((learnt, from_micros(row.try_get("seen")?)));
        }
        Ok(found)
    }

    /// How many identity certificates of the authority with this fingerprint are valid at `now`, and
    /// when the last of them ends.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn identities_by(
        &self,
        fingerprint: &str,
        now: OffsetDateTime,
    ) -> Result<(i64, Option<OffsetDateTime>), StoreError> {
        let row = sqlx::query(
            "SELECT count(*) AS number, max(issuances.valid_before) AS last \
             FROM issuances JOIN identities USING (serial) \
             WHERE authority = $1 AND issuances.valid_before > $2 AND revoked IS NULL",
        )
        .bind(fingerprint)
        .bind(micros(now))
        .fetch_one(self.pool())
        .await?;
        let last: Option<i64> = row.try_get("last")?;
        Ok((row.try_get("number")?, last.map(from_micros)))
    }
}

impl Transaction<'_> {
    pub(super) async fn put_authority(&mut self, record: &Record) -> Result<(), StoreError> {
        let signing = line(&record.signing)?;
        let other = record.stage.other().map(line).transpose()?;
        sqlx::query(
            "INSERT INTO authorities (kind, stage, signing, other, since) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (kind) DO UPDATE SET stage = $2, signing = $3, other = $4, since = $5",
        )
        .bind(record.kind.as_str())
        .bind(record.stage.as_str())
        .bind(signing)
        .bind(other)
        .bind(micros(record.since))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Forgets the record of an authority whose key an operator has replaced: the next one is written
    /// as at a first start.
    pub(super) async fn forget_authority(&mut self, kind: AuthorityKind) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM authorities WHERE kind = $1")
            .bind(kind.as_str())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    pub(super) async fn retire_authority(&mut self, retired: &Retired) -> Result<(), StoreError> {
        let key = line(&retired.key)?;
        sqlx::query(
            "INSERT INTO retired_authorities (fingerprint, kind, key, retired) VALUES ($1, $2, $3, $4)",
        )
        .bind(print(&retired.key))
        .bind(retired.kind.as_str())
        .bind(key)
        .bind(micros(retired.at))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub(super) async fn note_learnt(
        &mut self,
        learnt: &Learnt,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT OR IGNORE INTO authorities_learnt (kind, node_id, fingerprint, seen) VALUES ($1, $2, $3, $4)",
        )
        .bind(learnt.kind.as_str())
        .bind(learnt.node.to_string())
        .bind(&learnt.fingerprint)
        .bind(micros(now))
        .execute(self.connection())
        .await?;
        Ok(())
    }
}

fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    let stage: String = row.try_get("stage")?;
    let other: Option<String> = row.try_get("other")?;
    let other = other.as_deref().map(key).transpose()?;
    let stage = match (stage.as_str(), other) {
        ("stable", None) => Stage::Stable,
        ("announce", Some(next)) => Stage::Announced { next },
        ("sign", Some(previous)) => Stage::Signing { previous },
        _ => return Err(unreadable(format!("its stage is `{stage}`"))),
    };
    Ok(Record {
        kind: kind(row)?,
        signing: key(&row.try_get::<String, _>("signing")?)?,
        stage,
        since: from_micros(row.try_get("since")?),
    })
}

fn kind(row: &SqliteRow) -> Result<AuthorityKind, StoreError> {
    let text: String = row.try_get("kind")?;
    AuthorityKind::parse(&text).ok_or_else(|| unreadable(format!("its kind is `{text}`")))
}

fn key(line: &str) -> Result<PublicKey, StoreError> {
    PublicKey::from_openssh(line).map_err(|error| unreadable(error.to_string()))
}

fn unreadable(why: String) -> StoreError {
    StoreError::Unreadable {
        what: "a certificate authority".to_owned(),
        why,
    }
}

/// Without the comment: two lines are the same key if they are the same text.
fn line(key: &PublicKey) -> Result<String, StoreError> {
    let bare = PublicKey::from(key.key_data().clone());
    bare.to_openssh().map_err(|error| StoreError::Unwritable {
        what: "a certificate authority".to_owned(),
        why: error.to_string(),
    })
}
