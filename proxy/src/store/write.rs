//! The one kind of writing transaction: it begins, writes each [`Change`] by the statements beneath, and is
//! committed whole or not at all.

mod certificates;
mod objects;
mod requests;
mod second_factors;
mod sessions;
mod tokens;

use serde::Serialize;
use sqlx::SqliteConnection;
use time::OffsetDateTime;

use super::change::Change;
use super::{Snapshot, Store, StoreError, read};
use crate::audit::{Entry, Head, Record as Logged};

/// A transaction that nobody else can write beside. Dropped without [`commit`](Self::commit), it
/// leaves nothing behind.
#[derive(Debug)]
pub struct Transaction<'a> {
    store: &'a mut Store,
    connection: SqliteConnection,
    head: Head,
    version: i64,
}

impl<'a> Transaction<'a> {
    pub(super) async fn begin(
        store: &'a mut Store,
        mut connection: SqliteConnection,
    ) -> Result<Self, StoreError> {
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut connection)
            .await?;
        let version: i64 = sqlx::query_scalar("PRAGMA data_version")
            .fetch_one(&mut connection)
            .await?;
        let head = read::audit::head(&mut connection).await?;
        Ok(Self {
            store,
            connection,
            head,
            version,
        })
    }

    /// Whether somebody else wrote to the database since this process last knew what is in it.
    #[must_use]
    pub fn changed_elsewhere(&self) -> bool {
        self.store.seen != Some(self.version)
    }

    /// Everything that decisions are made on.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] names the object that cannot be understood.
    pub async fn load(&mut self, now: OffsetDateTime) -> Result<Snapshot, StoreError> {
        read::snapshot::load(&mut self.connection, now).await
    }

    /// The value of a setting that the database carries.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn meta(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(sqlx::query_scalar("SELECT value FROM meta WHERE key = $1")
            .bind(key)
            .fetch_optional(&mut self.connection)
            .await?)
    }

    /// Writes a setting that the database carries.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_meta(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2")
            .bind(key)
            .bind(value)
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    /// Appends an entry to the audit log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn append(
        &mut self,
        entry: &Entry,
        cluster: &str,
        now: OffsetDateTime,
    ) -> Result<i64, StoreError> {
        let Logged {
            seq,
            time,
            event,
            prev,
            hash,
            text,
        } = self.head.append(entry, cluster, now)?;
        sqlx::query("INSERT INTO audit (seq, time, event, prev, hash, entry) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(seq)
            .bind(time)
            .bind(event)
            .bind(prev)
            .bind(&hash)
            .bind(text)
            .execute(&mut self.connection)
            .await?;
        self.head = Head { seq, hash };
        Ok(seq)
    }

    /// Writes one change.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if what is to be changed is not what it was; [`StoreError`]
    /// otherwise. The transaction is of no use after an error.
    pub async fn write(
        &mut self,
        change: &Change,
        cluster: &str,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        match change {
            Change::PutRole(role) => self.put_role(role, now).await,
            Change::RemoveRole(name) => self.remove_role(name).await,
            Change::PutUser(user) => self.put_user(user, now).await,
            Change::ReleaseKeys(name) => self.release_keys(name).await,
            Change::RemoveUser(name) => self.remove_user(name).await,
            Change::PutNode(node) => self.put_node(node, now).await,
            Change::RemoveNode(id) => self.remove_node(*id).await,
            Change::PutLock(lock) => self.put_lock(lock).await,
            Change::RemoveLock(id) => self.remove_lock(*id).await,
            Change::PutResource(resource) => self.put_resource(resource, now).await,
            Change::RemoveResource(kind, name) => self.remove_resource(*kind, name).await,
            Change::PutMonitoringRule(rule) => self.put_monitoring_rule(rule, now).await,
            Change::RemoveMonitoringRule(name) => self.remove_monitoring_rule(name).await,
            Change::AddToken(token) => self.add_token(token).await,
            Change::RemoveToken(id) => self.remove_token(id).await,
            Change::UseToken { token, node, from } => {
                self.use_token(token, *node, *from, now).await
            }
            Change::PutAllowance(allowance) => self.put_allowance(allowance).await,
            Change::RemoveAllowance(id) => self.remove_allowance(*id).await,
            Change::FileRequest(request) => self.file_request(request).await,
            Change::UpdateRequest {
                request,
                from,
                revision,
            } => self.update_request(request, *from, *revision).await,
            Change::Issue(issuance, entry) => {
                let seq = self.append(entry, cluster, now).await?;
                self.issue(issuance, seq, now).await
            }
            Change::RevokeIdentity { serial, why } => self.revoke_identity(*serial, why, now).await,
            Change::RevokeHosts(which, entry) => {
                self.revoke_hosts(which, entry, cluster, now).await
            }
            Change::AddDevice(user, device) => self.add_device(user, device).await,
            Change::SpendStep { user, device, from } => self.spend_step(user, device, *from).await,
            Change::RemoveDevice(user, name) => self.remove_device(user, name).await,
            Change::SetFailures(user, failures) => self.set_failures(user, *failures).await,
            Change::StartSession(session, entry) => {
                let seq = self.append(entry, cluster, now).await?;
                self.start_session(session, seq, now).await
            }
            Change::EndSession(end, entry) => self.end_session(*end, entry, cluster, now).await,
            Change::PutAuthority(record) => self.put_authority(record).await,
            Change::ForgetAuthority(kind) => self.forget_authority(*kind).await,
            Change::RetireAuthority(retired) => self.retire_authority(retired).await,
            Change::NoteLearnt(learnt) => self.note_learnt(learnt, now).await,
            Change::NotePresence(seen, from) => {
                self.note_presence(seen).await?;
                self.note_sources(from).await
            }
            Change::Log(entry) => self.append(entry, cluster, now).await.map(drop),
        }
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    /// Whether the log ends with the entry that its head names: a quick look at each start. That
    /// the whole chain holds is for `audit verify` to say.
    pub(crate) async fn log_ends_at_its_head(&mut self) -> Result<bool, StoreError> {
        let last: Option<(i64, String)> =
            sqlx::query_as("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
                .fetch_optional(&mut self.connection)
                .await?;
        let last = last.map_or_else(Head::genesis, |(seq, hash)| Head { seq, hash });
        Ok(last == self.head)
    }

    /// Makes everything durable. Only then may anybody hear of it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]. Whether the transaction survived is then unknown; the next one
    /// starts by reading what the disk holds.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        sqlx::query("COMMIT").execute(&mut self.connection).await?;
        self.finish();
        Ok(())
    }

    /// Ends a transaction in which nothing was written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        sqlx::query("ROLLBACK")
            .execute(&mut self.connection)
            .await?;
        self.finish();
        Ok(())
    }

    /// Gives the connection back, with the knowledge that memory now is what the disk is. SQLite's
    /// `data_version` does not move for a connection's own commits.
    fn finish(self) {
        let Self {
            store,
            connection,
            version,
            ..
        } = self;
        store.seen = Some(version);
        store.connection = Some(connection);
    }
}

fn body<T: Serialize + ?Sized>(what: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unwritable {
        what: what.to_owned(),
        why: error.to_string(),
    })
}

fn one(rows: u64, what: impl FnOnce() -> String) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Conflict(what()))
    }
}
