//! The one kind of writing transaction, and every statement that it knows.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_core::allowance::Allowance;
use anteroom_core::id::{
    AllowanceId, DeviceName, KeyFingerprint, LockId, NodeId, RequestId, ResourceName, RoleName,
    RuleName, SessionId, TokenId, UserName,
};
use anteroom_core::lock::Lock;
use anteroom_core::mfa::{Device, Failures};
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::Node;
use anteroom_core::request::{AccessRequest, State as RequestState};
use anteroom_core::resource::{Kind as ResourceKind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use serde::Serialize;
use sqlx::SqliteConnection;
use time::OffsetDateTime;

use super::{Learnt, SeenNode, Snapshot, Store, StoreError, micros, read};
use crate::audit::{Entry, Head, Record as Logged};
use crate::authority::{AuthorityKind, Record, Retired};

/// One thing to write. What is decided in `core` arrives here as values.
#[derive(Debug, Clone)]
pub enum Change {
    /// Creates the role or replaces it.
    PutRole(Arc<Role>),
    /// Removes the role; the database refuses while a user has it.
    RemoveRole(RoleName),
    /// Creates the user or replaces it, roles and keys included.
    PutUser(Arc<User>),
    /// Takes the user's keys away, ahead of a `PutUser` of the same transaction: a key that moves
    /// from one user to another may be written to its new owner first.
    ReleaseKeys(UserName),
    /// Removes the user.
    RemoveUser(UserName),
    /// Registers the node or replaces it.
    PutNode(Arc<Node>),
    /// Removes the node.
    RemoveNode(NodeId),
    /// Makes the lock or replaces it.
    PutLock(Arc<Lock>),
    /// Removes the lock.
    RemoveLock(LockId),
    /// Registers the resource or replaces it.
    PutResource(Arc<Resource>),
    /// Removes the resource.
    RemoveResource(ResourceKind, ResourceName),
    /// Makes the access monitoring rule or replaces it.
    PutMonitoringRule(Arc<MonitoringRule>),
    /// Removes the access monitoring rule.
    RemoveMonitoringRule(RuleName),
    /// Writes a token.
    AddToken(Arc<Token>),
    /// Removes the token.
    RemoveToken(TokenId),
    /// Takes one use of a token that has one left and has not ended, for a node.
    UseToken {
        /// The token.
        token: TokenId,
        /// The node that came in by it.
        node: NodeId,
        /// Where it came from.
        from: SocketAddr,
    },
    /// Writes a pre-approval.
    PutAllowance(Arc<Allowance>),
    /// Removes the pre-approval.
    RemoveAllowance(AllowanceId),
    /// Writes a request that was just filed.
    FileRequest(Arc<AccessRequest>),
    /// Replaces a request, if it still is as it was when the decision was made.
    UpdateRequest {
        /// The request as it is to be.
        request: Arc<AccessRequest>,
        /// The state it was in.
        from: RequestState,
        /// The revision that the decision was made on.
        revision: i64,
    },
    /// Records a certificate, together with its `cert.create` entry.
    Issue(Box<Issuance>, Box<Entry>),
    /// Takes back an identity certificate, which counted until now.
    RevokeIdentity {
        /// Its serial number.
        serial: u64,
        /// Why.
        why: String,
    },
    /// Revokes host certificates of a node. Which, is known when it is done: then they are added to
    /// the entry's reason, and it is logged. Where there are none nothing is.
    RevokeHosts(Box<HostRevocation>, Box<Entry>),
    /// Adds a device that makes codes.
    AddDevice(UserName, Box<Device>),
    /// Spends the codes of a device up to a time step, if it is as it was when the decision was made.
    SpendStep {
        /// Whose it is.
        user: UserName,
        /// The device as it is to be.
        device: Box<Device>,
        /// The last step that was spent before.
        from: u64,
    },
    /// Removes a device.
    RemoveDevice(UserName, DeviceName),
    /// Writes down how often a user has guessed wrong; `None` forgets it.
    SetFailures(UserName, Option<Failures>),
    /// Records that a session began, together with its `session.start` entry.
    StartSession(Box<SessionStart>, Box<Entry>),
    /// Records that a session ended, together with its `session.end` entry. A session that has
    /// ended already stays as it is, and nothing is logged twice.
    EndSession(SessionEnd, Box<Entry>),
    /// Writes down how an authority is now.
    PutAuthority(Box<Record>),
    /// Forgets how an authority was, ahead of a `PutAuthority` that does not follow from it.
    ForgetAuthority(AuthorityKind),
    /// A key is no authority any more.
    RetireAuthority(Box<Retired>),
    /// A node is known to go by a key.
    NoteLearnt(Box<Learnt>),
    /// Writes down when nodes were last there.
    NotePresence(Vec<SeenNode>),
    /// Logs something that changes nothing else.
    Log(Box<Entry>),
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One login on one node, by the node CA.
    Node,
    /// A host's name, by the host CA.
    Host,
    /// A person, by the user CA.
    User,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Host => "host",
            Self::User => "user",
        }
    }
}

/// A certificate as it is remembered.
#[derive(Debug, Clone)]
pub struct Issuance {
    /// Its serial number, never 0.
    pub serial: u64,
    /// What it is for.
    pub kind: Kind,
    /// Whose it is; `None` for a host.
    pub user: Option<UserName>,
    /// Its key id.
    pub key_id: String,
    /// Its principals.
    pub principals: Vec<String>,
    /// The fingerprint of the key it certifies.
    pub subject: String,
    /// The fingerprint of the authority that signed it.
    pub authority: String,
    /// The request under which it was issued.
    pub request: Option<RequestId>,
    /// The session it is for.
    pub session: Option<SessionId>,
    /// The node it opens.
    pub node: Option<NodeId>,
    /// The login it opens.
    pub login: Option<String>,
    /// Lower-case hexadecimal SHA-256 of the certificate's binary form.
    pub sha256: String,
    /// From when it is valid.
    pub valid_after: OffsetDateTime,
    /// Until when it is valid (exclusive).
    pub valid_before: OffsetDateTime,
    /// The key that the user came with, where a node's certificate is for another one.
    pub login_key: Option<KeyFingerprint>,
    /// The type of a node's host key, as in `ssh-ed25519`.
    pub host_key_type: Option<String>,
    /// What is remembered besides of an identity certificate.
    pub identity: Option<IdentityIssuance>,
}

/// Which host certificates of a node count no more, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRevocation {
    /// The node.
    pub node: NodeId,
    /// Those for a key that is not among these, as fingerprints.
    pub but_for: Vec<String>,
    /// Of the keys, those of this type; `None` for any. One of unknown type is of every type.
    pub key_type: Option<String>,
    /// Why.
    pub why: String,
}

/// What is remembered of an identity certificate and of no other.
#[derive(Debug, Clone)]
pub struct IdentityIssuance {
    /// The registered key that the login was made with.
    pub login_key: KeyFingerprint,
    /// The serial number of the certificate that was presented.
    pub presented: Option<u64>,
    /// The certificates that count no more because of it, by their serial numbers, and why.
    pub revokes: BTreeMap<u64, String>,
}

/// A session as it is remembered from its start.
#[derive(Debug, Clone)]
pub struct SessionStart {
    /// Its ID.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserName,
    /// Where it goes.
    pub node: NodeId,
    /// As whom.
    pub login: String,
    /// Under which request, if not under standing access.
    pub request: Option<RequestId>,
    /// What else `sessions ls` shows.
    pub about: serde_json::Value,
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionEnd {
    /// Which session.
    pub id: SessionId,
    /// When; `None` for now.
    pub at: Option<OffsetDateTime>,
}

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
        let head = read::head(&mut connection).await?;
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
        read::load(&mut self.connection, now).await
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
            Change::NotePresence(seen) => self.note_presence(seen).await,
            Change::Log(entry) => self.append(entry, cluster, now).await.map(drop),
        }
    }

    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.connection
    }

    async fn put_role(&mut self, role: &Role, now: OffsetDateTime) -> Result<(), StoreError> {
        // The document as it was written: the one form in which a role is read.
        let body = body(&format!("role `{}`", role.name), &role.source)?;
        sqlx::query(
            "INSERT INTO roles (name, body, created, updated) VALUES ($1, $2, $3, $3) \
             ON CONFLICT (name) DO UPDATE SET body = $2, updated = $3",
        )
        .bind(role.name.as_str())
        .bind(body)
        .bind(micros(now))
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn remove_role(&mut self, name: &RoleName) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM roles WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("role `{name}`"))
    }

    async fn put_user(&mut self, user: &User, now: OffsetDateTime) -> Result<(), StoreError> {
        let body = body(&format!("user `{}`", user.name), user)?;
        sqlx::query(
            "INSERT INTO users (name, body, created, updated) VALUES ($1, $2, $3, $3) \
             ON CONFLICT (name) DO UPDATE SET body = $2, updated = $3",
        )
        .bind(user.name.as_str())
        .bind(body)
        .bind(micros(now))
        .execute(&mut self.connection)
        .await?;
        self.clear_user(&user.name).await?;
        for role in &user.roles {
            sqlx::query("INSERT INTO user_roles (user, role) VALUES ($1, $2)")
                .bind(user.name.as_str())
                .bind(role.as_str())
                .execute(&mut self.connection)
                .await?;
        }
        for key in &user.keys {
            sqlx::query("INSERT INTO user_keys (fingerprint, user, openssh) VALUES ($1, $2, $3)")
                .bind(key.fingerprint.as_str())
                .bind(user.name.as_str())
                .bind(&key.openssh)
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    async fn clear_user(&mut self, name: &UserName) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM user_roles WHERE user = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        self.release_keys(name).await
    }

    async fn release_keys(&mut self, name: &UserName) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM user_keys WHERE user = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    async fn remove_user(&mut self, name: &UserName) -> Result<(), StoreError> {
        self.clear_user(name).await?;
        let done = sqlx::query("DELETE FROM users WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("user `{name}`"))
    }

    async fn put_node(&mut self, node: &Node, now: OffsetDateTime) -> Result<(), StoreError> {
        let body = body(&format!("node `{}`", node.name), node)?;
        sqlx::query(
            "INSERT INTO nodes (id, name, addr, body, created, updated) VALUES ($1, $2, $3, $4, $5, $5) \
             ON CONFLICT (id) DO UPDATE SET name = $2, addr = $3, body = $4, updated = $5",
        )
        .bind(node.id.to_string())
        .bind(node.name.as_str())
        .bind(node.addr.to_string())
        .bind(body)
        .bind(micros(now))
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn remove_node(&mut self, id: NodeId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM nodes WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("node `{id}`"))
    }

    async fn put_lock(&mut self, lock: &Lock) -> Result<(), StoreError> {
        let body = body(&format!("lock {}", lock.id), lock)?;
        sqlx::query(
            "INSERT INTO locks (id, kind, target, created, expires, body) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (id) DO UPDATE SET kind = $2, target = $3, created = $4, expires = $5, body = $6",
        )
        .bind(lock.id.to_string())
        .bind(lock.target.kind())
        .bind(lock.target.value())
        .bind(micros(lock.created))
        .bind(lock.expires.map(micros))
        .bind(body)
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn put_resource(
        &mut self,
        resource: &Resource,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let kind = resource.kind();
        let body = body(&format!("{kind} `{}`", resource.name), resource)?;
        sqlx::query(
            "INSERT INTO resources (kind, name, body, created, updated) VALUES ($1, $2, $3, $4, $4) \
             ON CONFLICT (kind, name) DO UPDATE SET body = $3, updated = $4",
        )
        .bind(kind.as_str())
        .bind(resource.name.as_str())
        .bind(body)
        .bind(micros(now))
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn remove_lock(&mut self, id: LockId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM locks WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("lock {id}"))
    }

    async fn remove_resource(
        &mut self,
        kind: ResourceKind,
        name: &ResourceName,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM resources WHERE kind = $1 AND name = $2")
            .bind(kind.as_str())
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("{kind} `{name}`"))
    }

    async fn put_monitoring_rule(
        &mut self,
        rule: &MonitoringRule,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let what = format!("access monitoring rule `{}`", rule.name);
        sqlx::query(
            "INSERT INTO monitoring_rules (name, body, authors, created, updated) \
             VALUES ($1, $2, $3, $4, $4) \
             ON CONFLICT (name) DO UPDATE SET body = $2, authors = $3, updated = $4",
        )
        .bind(rule.name.as_str())
        .bind(body(&what, &rule.source)?)
        .bind(body(&what, &rule.authors)?)
        .bind(micros(now))
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn remove_monitoring_rule(&mut self, name: &RuleName) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM monitoring_rules WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || {
            format!("access monitoring rule `{name}`")
        })
    }

    async fn add_token(&mut self, token: &Token) -> Result<(), StoreError> {
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

    async fn remove_token(&mut self, id: &TokenId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM tokens WHERE id = $1")
            .bind(id.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("token `{id}`"))
    }

    async fn use_token(
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

    async fn put_allowance(&mut self, allowance: &Allowance) -> Result<(), StoreError> {
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

    async fn remove_allowance(&mut self, id: AllowanceId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM allowances WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("pre-approval {id}"))
    }

    async fn file_request(&mut self, request: &AccessRequest) -> Result<(), StoreError> {
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

    async fn update_request(
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

    async fn issue(
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

    async fn revoke_hosts(
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

    async fn revoke_identity(
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

    async fn add_device(&mut self, user: &UserName, device: &Device) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO mfa_devices (user, name, secret, created, last_step, last_used) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(user.as_str())
        .bind(device.name.as_str())
        .bind(&device.sealed)
        .bind(micros(device.created))
        .bind(step(device.last_step))
        .bind(micros(device.last_used))
        .execute(&mut self.connection)
        .await?;
        Ok(())
    }

    async fn spend_step(
        &mut self,
        user: &UserName,
        device: &Device,
        from: u64,
    ) -> Result<(), StoreError> {
        let changed = sqlx::query(
            "UPDATE mfa_devices SET last_step = $1, last_used = $2 \
             WHERE user = $3 AND name = $4 AND last_step = $5",
        )
        .bind(step(device.last_step))
        .bind(micros(device.last_used))
        .bind(user.as_str())
        .bind(device.name.as_str())
        .bind(step(from))
        .execute(&mut self.connection)
        .await?;
        one(changed.rows_affected(), || {
            format!("device `{}` of `{user}`", device.name)
        })
    }

    async fn remove_device(
        &mut self,
        user: &UserName,
        name: &DeviceName,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM mfa_devices WHERE user = $1 AND name = $2")
            .bind(user.as_str())
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || {
            format!("device `{name}` of `{user}`")
        })
    }

    async fn set_failures(
        &mut self,
        user: &UserName,
        failures: Option<Failures>,
    ) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM mfa_failures WHERE user = $1")
            .bind(user.as_str())
            .execute(&mut self.connection)
            .await?;
        if let Some(Failures { count, last }) = failures {
            sqlx::query("INSERT INTO mfa_failures (user, count, last) VALUES ($1, $2, $3)")
                .bind(user.as_str())
                .bind(i64::from(count))
                .bind(micros(last))
                .execute(&mut self.connection)
                .await?;
        }
        Ok(())
    }

    async fn start_session(
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

    async fn end_session(
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

/// A time step as the database has it: there are 64 signed bits, and it is the year 8 trillion.
fn step(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
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
