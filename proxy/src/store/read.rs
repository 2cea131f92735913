//! Reading: what a start needs, and what listings show.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use anteroom_core::allowance::Allowance;
use anteroom_core::credential::IssuedCredential;
use anteroom_core::documents;
use anteroom_core::id::{
    DeviceName, KeyFingerprint, NodeId, RequestId, RoleName, RuleName, UserName,
};
use anteroom_core::lock::Lock;
use anteroom_core::mfa::{Device, Failures, SecondFactors};
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::Node;
use anteroom_core::request::{AccessRequest, State};
use anteroom_core::resource::Resource;
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use anteroom_core::view::{CertifiedHost, MOST_CERTIFIED};
use serde::de::DeserializeOwned;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::verify::{Report, VerifyError, verify};
use super::{StoreError, from_micros, micros};
use crate::audit::{Anchor, Event, Head, Record};

/// How many requests that have ended are kept in memory beside the live ones: whoever waited for
/// one still reads how it ended, and lists need the database for older ones only.
pub(crate) const RECENT: usize = 1000;

/// Connections for listings. Reading never blocks the writer under WAL; a few suffice for people,
/// and more would only compete with the proxy for the disk. Who finds them taken waits in order, for as
/// long as it takes: a page of a listing is milliseconds, and a time limit would turn away whoever came
/// last, not whoever asked for too much.
const READERS: u32 = 4;

/// Connections for what is found by its key. They stand apart from listings, since logins and dials
/// depend on them.
const FINDERS: u32 = 2;

/// Rows fetched at once while walking the audit log: 512 lines of at most some 20 KiB.
pub(super) const PAGE: i64 = 512;

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

/// Everything that decisions are made on, as the database holds it.
#[derive(Debug)]
pub struct Snapshot {
    /// All roles.
    pub roles: Vec<Role>,
    /// All users.
    pub users: Vec<User>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All locks.
    pub locks: Vec<Lock>,
    /// All resources that are no nodes.
    pub resources: Vec<Resource>,
    /// All access monitoring rules.
    pub monitoring_rules: Vec<MonitoringRule>,
    /// All pre-approvals.
    pub allowances: Vec<Allowance>,
    /// All tokens.
    pub tokens: Vec<Token>,
    /// All live requests, and the latest of those that have ended, each with its revision.
    pub requests: Vec<(AccessRequest, i64)>,
    /// The identity certificates that may still be valid, by a clock that is right within a week.
    pub credentials: Vec<IssuedCredential>,
    /// The host certificates of nodes that count, the last ones of each.
    pub certified_hosts: Vec<(NodeId, CertifiedHost)>,
    /// The devices of users, and what was guessed wrong.
    pub second_factors: Vec<(UserName, SecondFactors)>,
    /// When the last certificate was issued.
    pub last_issued: Option<OffsetDateTime>,
}

/// A session as listings show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its ID.
    pub id: String,
    /// Whose it is.
    pub user: String,
    /// The node's UUID.
    pub node_id: String,
    /// The login on the node.
    pub login: String,
    /// The request under which it was opened.
    pub request_id: Option<String>,
    /// When it began.
    pub started: OffsetDateTime,
    /// When it ended; `None` while it lives.
    pub ended: Option<OffsetDateTime>,
    /// What else was written at its start.
    pub about: serde_json::Value,
}

/// A host certificate of a node that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostCertificate {
    /// Its serial number.
    pub serial: u64,
    /// Lower-case hexadecimal SHA-256 of its binary form.
    pub sha256: String,
    /// The fingerprint of the key it certifies.
    pub key: String,
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

/// Which audit entries are wanted. Empty fields want everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Only this event.
    pub event: Option<Event>,
    /// Only what this user did.
    pub user: Option<String>,
    /// Only what belongs to this request.
    pub request_id: Option<String>,
    /// Only what belongs to this session.
    pub session_id: Option<String>,
    /// Only what concerns this node (UUID or name).
    pub node: Option<String>,
    /// From this time on (inclusive).
    pub since: Option<OffsetDateTime>,
    /// Until this time (exclusive).
    pub until: Option<OffsetDateTime>,
}

impl AuditFilter {
    fn wants(&self, record: &Record) -> bool {
        let fields = record.fields();
        let is = |name: &str, wanted: &Option<String>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| fields.get(name).is_some_and(|found| found == wanted))
        };
        self.in_time(record)
            && is("user", &self.user)
            && is("request_id", &self.request_id)
            && is("session_id", &self.session_id)
            && (is("node_id", &self.node) || is("node", &self.node))
    }

    fn in_time(&self, record: &Record) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let at =
            OffsetDateTime::parse(&record.time, &time::format_description::well_known::Rfc3339);
        at.is_ok_and(|at| {
            self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
        })
    }
}

/// A connection while it is somebody's turn.
struct Turn<'r> {
    connection: PoolConnection<Sqlite>,
    _place: SemaphorePermit<'r>,
}

fn places(number: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(number).unwrap_or(1)))
}

/// Read-only connections to a data directory's database, also while a proxy runs on it.
#[derive(Debug, Clone)]
pub struct Reader {
    /// For listings, in turn.
    listings: SqlitePool,
    turns: Arc<Semaphore>,
    /// For what is found by its key.
    finder: SqlitePool,
    /// For the check of everything, which is long, one at a time.
    checker: SqlitePool,
    checks: Arc<Semaphore>,
}

impl Reader {
    pub(super) fn new(path: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(super::BUSY)
            .foreign_keys(true);
        let pool = |most: u32| {
            SqlitePoolOptions::new()
                .max_connections(most)
                .acquire_timeout(super::BUSY)
                .connect_lazy_with(options.clone())
        };
        Self {
            listings: pool(READERS),
            turns: places(READERS),
            finder: pool(FINDERS),
            checker: pool(1),
            checks: places(1),
        }
    }

    /// A connection for one page of a listing, when its turn has come.
    async fn turn(&self) -> Result<Turn<'_>, StoreError> {
        let place = self
            .turns
            .acquire()
            .await
            .map_err(|_| StoreError::Stopped)?;
        let connection = self.listings.acquire().await?;
        Ok(Turn {
            connection,
            _place: place,
        })
    }

    /// A reader of a data directory in which a proxy may or may not be running.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self::new(&dir.join(super::DATABASE))
    }

    /// Audit entries that `filter` wants, oldest first, at most `limit` of them, all with a number
    /// greater than `after`. An empty answer is the end.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        after: i64,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let mut found = Vec::new();
        let mut after = after;
        while found.len() < limit {
            let page = self.audit_page(filter.event, after).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            found.extend(
                page.into_iter()
                    .filter(|record| filter.wants(record))
                    .take(limit - found.len()),
            );
        }
        Ok(found)
    }

    async fn audit_page(
        &self,
        event: Option<Event>,
        after: i64,
    ) -> Result<Vec<Record>, StoreError> {
        let mut turn = self.turn().await?;
        let rows = match event {
            Some(event) => {
                sqlx::query(
                    "SELECT * FROM audit WHERE seq > $1 AND event = $2 ORDER BY seq LIMIT $3",
                )
                .bind(after)
                .bind(event.name())
                .bind(PAGE)
                .fetch_all(&mut *turn.connection)
                .await?
            }
            None => {
                sqlx::query("SELECT * FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2")
                    .bind(after)
                    .bind(PAGE)
                    .fetch_all(&mut *turn.connection)
                    .await?
            }
        };
        rows.iter().map(record).collect()
    }

    /// Checks the whole chain, then that the rows beside it are what it tells.
    ///
    /// # Errors
    /// [`VerifyError::Tampered`] names the first bad entry; [`VerifyError::Broken`] lists every
    /// invariant that does not hold.
    pub async fn verify(&self, anchors: Vec<Anchor>) -> Result<Report, VerifyError> {
        // One read transaction: a proxy that writes meanwhile is not seen half way.
        let _place = self
            .checks
            .acquire()
            .await
            .map_err(|_| StoreError::Stopped)?;
        // One that is given up half way is rolled back as well.
        let mut transaction = self.checker.begin().await?;
        let outcome = verify(&mut transaction, anchors).await;
        transaction.rollback().await?;
        outcome
    }

    /// The version of the database's schema; this program's is [`super::SCHEMA`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn schema(&self) -> Result<i64, StoreError> {
        Ok(sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&self.finder)
            .await?)
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.finder
    }

    /// Closes the connections; later queries fail.
    pub(crate) async fn close(&self) {
        self.listings.close().await;
        self.finder.close().await;
        self.checker.close().await;
    }

    /// How many roles there are, and those that this version can't read, each with the reason.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn roles(&self) -> Result<(usize, Vec<(String, String)>), StoreError> {
        let roles = roles(&mut *self.finder.acquire().await?).await?;
        let unreadable = roles.iter().filter_map(|role| {
            let why = role.unreadable.clone()?;
            Some((role.name.to_string(), why))
        });
        Ok((roles.len(), unreadable.collect()))
    }

    /// The end of the audit chain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        head(&mut *self.finder.acquire().await?).await
    }

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
        .bind(super::micros(now))
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
            "SELECT serial, cert_sha256, subject, host_certificates.valid_before AS ends, why \
             FROM host_certificates JOIN issuances USING (serial) \
             WHERE host_certificates.node_id = $1 AND host_certificates.valid_before > $2 \
             ORDER BY audit_seq DESC LIMIT 1000",
        )
        .bind(node.to_string())
        .bind(super::micros(now))
        .fetch_all(&self.finder)
        .await?;
        rows.iter().map(host_certificate).collect()
    }

    /// The principals of the last host certificate that was issued for a node; none where there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn certified_names_of(&self, node: NodeId) -> Result<Vec<String>, StoreError> {
        let last: Option<String> = sqlx::query_scalar(
            "SELECT principals FROM issuances JOIN host_certificates USING (serial) \
             WHERE host_certificates.node_id = $1 ORDER BY audit_seq DESC LIMIT 1",
        )
        .bind(node.to_string())
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

    /// Sessions, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sessions(&self, limit: i64) -> Result<Vec<SessionRow>, StoreError> {
        let mut turn = self.turn().await?;
        let rows = sqlx::query("SELECT * FROM sessions ORDER BY started DESC, id LIMIT $1")
            .bind(limit)
            .fetch_all(&mut *turn.connection)
            .await?;
        rows.iter().map(session).collect()
    }
}

pub(super) async fn head(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let row = sqlx::query("SELECT seq, hash FROM audit_head WHERE one = 1")
        .fetch_one(connection)
        .await?;
    Ok(Head {
        seq: row.try_get("seq")?,
        hash: row.try_get("hash")?,
    })
}

pub(super) async fn load(
    connection: &mut SqliteConnection,
    now: OffsetDateTime,
) -> Result<Snapshot, StoreError> {
    let roles = roles(connection).await?;
    let users = objects(
        connection,
        "user",
        "SELECT name AS id, body FROM users ORDER BY name",
    )
    .await?;
    let nodes = objects(connection, "node", "SELECT id, body FROM nodes ORDER BY id").await?;
    let locks = objects(connection, "lock", "SELECT id, body FROM locks ORDER BY id").await?;
    let resources = objects(
        connection,
        "resource",
        "SELECT kind || '/' || name AS id, body FROM resources ORDER BY kind, name",
    )
    .await?;
    let allowances = objects(
        connection,
        "pre-approval",
        "SELECT id, body FROM allowances ORDER BY id",
    )
    .await?;
    let last: Option<i64> = sqlx::query_scalar("SELECT max(issued) FROM issuances")
        .fetch_one(&mut *connection)
        .await?;
    Ok(Snapshot {
        roles,
        users,
        nodes,
        locks,
        resources,
        monitoring_rules: monitoring_rules(connection).await?,
        allowances,
        tokens: tokens(connection).await?,
        requests: requests(connection).await?,
        credentials: credentials(connection, now).await?,
        certified_hosts: certified_hosts(connection, now).await?,
        second_factors: second_factors(connection).await?,
        last_issued: last.map(from_micros),
    })
}

async fn tokens(connection: &mut SqliteConnection) -> Result<Vec<Token>, StoreError> {
    let rows = sqlx::query("SELECT id, secret_sha256, uses_left, created, body FROM tokens")
        .fetch_all(&mut *connection)
        .await?;
    let mut tokens = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: String = row.try_get("id")?;
        let mut token: Token = parsed("token", row)?;
        token.secret_sha256 = row.try_get("secret_sha256")?;
        token.uses_left = u32::try_from(row.try_get::<i64, _>("uses_left")?).unwrap_or_default();
        // Of those that had the same ID before it there may be older ones.
        let nodes: Vec<String> = sqlx::query_scalar(
            "SELECT node_id FROM enrolments WHERE token = $1 AND at >= $2 ORDER BY at",
        )
        .bind(id)
        .bind(row.try_get::<i64, _>("created")?)
        .fetch_all(&mut *connection)
        .await?;
        let nodes = nodes.iter().filter_map(|node| NodeId::parse(node).ok());
        token.enrolled = nodes.collect();
        tokens.push(token);
    }
    Ok(tokens)
}

async fn objects<T: DeserializeOwned>(
    connection: &mut SqliteConnection,
    what: &str,
    query: &'static str,
) -> Result<Vec<T>, StoreError> {
    let rows = sqlx::query(query).fetch_all(connection).await?;
    rows.iter().map(|row| parsed(what, row)).collect()
}

/// How long an identity certificate is remembered after its end, so that whoever comes with it is
/// told that it is over. What is not remembered is refused all the same, and the database tells it
/// from one that was never issued.
pub(crate) const REMEMBERED: time::Duration = time::Duration::hours(1);

/// How many identity certificates of one user are remembered, those that count no more included:
/// the ones that count, and as many again to say why they don't. More would let anybody fill the
/// memory by logging in.
pub(crate) const MOST_REMEMBERED: usize = 128;

async fn credentials(
    connection: &mut SqliteConnection,
    now: OffsetDateTime,
) -> Result<Vec<IssuedCredential>, StoreError> {
    let rows = sqlx::query(
        "SELECT serial, cert_sha256, user, login_key, subject, ends AS valid_before, why FROM (\
           SELECT serial, cert_sha256, user, login_key, subject, identities.valid_before AS ends, why, \
             ROW_NUMBER() OVER (PARTITION BY user ORDER BY \
               (why IS NULL AND identities.valid_before > $1) DESC, \
               identities.valid_before DESC, serial) AS place \
           FROM identities JOIN issuances USING (serial) WHERE identities.valid_before > $2) \
         WHERE place <= $3",
    )
    .bind(micros(now))
    .bind(micros(now - REMEMBERED))
    .bind(i64::try_from(MOST_REMEMBERED).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(credential).collect()
}

async fn certified_hosts(
    connection: &mut SqliteConnection,
    now: OffsetDateTime,
) -> Result<Vec<(NodeId, CertifiedHost)>, StoreError> {
    let rows = sqlx::query(
        "SELECT node_id, serial, subject, key_type, ends FROM (\
           SELECT host_certificates.node_id AS node_id, serial, subject, key_type, \
             host_certificates.valid_before AS ends, \
             ROW_NUMBER() OVER (PARTITION BY host_certificates.node_id \
               ORDER BY host_certificates.valid_before DESC) AS place \
           FROM host_certificates JOIN issuances USING (serial) \
           WHERE revoked IS NULL AND host_certificates.valid_before > $1) \
         WHERE place <= $2",
    )
    .bind(micros(now))
    .bind(i64::try_from(MOST_CERTIFIED).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let (node, serial): (String, String) = (row.try_get("node_id")?, row.try_get("serial")?);
        let key: String = row.try_get("subject")?;
        // What can't be read opens nothing.
        let (Ok(node), Ok(serial), Ok(key)) = (node.parse(), serial.parse(), key.parse()) else {
            continue;
        };
        let certified = CertifiedHost {
            serial,
            key,
            key_type: row.try_get("key_type")?,
            valid_before: from_micros(row.try_get("ends")?),
        };
        found.push((node, certified));
    }
    Ok(found)
}

fn host_certificate(row: &SqliteRow) -> Result<HostCertificate, StoreError> {
    let serial: String = row.try_get("serial")?;
    Ok(HostCertificate {
        sha256: row.try_get("cert_sha256")?,
        key: row.try_get("subject")?,
        valid_before: from_micros(row.try_get("ends")?),
        revoked: row.try_get("why")?,
        serial: serial.parse().map_err(|error| StoreError::Unreadable {
            what: format!("certificate {serial}"),
            why: format!("{error}"),
        })?,
    })
}

fn credential(row: &SqliteRow) -> Result<IssuedCredential, StoreError> {
    let serial: String = row.try_get("serial")?;
    let unreadable = |why: &dyn std::fmt::Display| StoreError::Unreadable {
        what: format!("certificate {serial}"),
        why: why.to_string(),
    };
    let (user, key): (String, String) = (row.try_get("user")?, row.try_get("login_key")?);
    let (sha256, subject): (String, String) =
        (row.try_get("cert_sha256")?, row.try_get("subject")?);
    Ok(IssuedCredential {
        serial: serial.parse().map_err(|error| unreadable(&error))?,
        sha256: crate::audit::unhex(&sha256).ok_or_else(|| unreadable(&"its hash"))?,
        user: UserName::parse(&user).map_err(|error| unreadable(&error))?,
        login_key: KeyFingerprint::parse(&key).map_err(|error| unreadable(&error))?,
        subject: KeyFingerprint::parse(&subject).map_err(|error| unreadable(&error))?,
        valid_before: from_micros(row.try_get("valid_before")?),
        revoked: row.try_get("why")?,
    })
}

async fn second_factors(
    connection: &mut SqliteConnection,
) -> Result<Vec<(UserName, SecondFactors)>, StoreError> {
    let mut found: BTreeMap<UserName, SecondFactors> = BTreeMap::new();
    let devices = sqlx::query(
        "SELECT user, name, secret, created, last_step, last_used FROM mfa_devices ORDER BY user, name",
    )
    .fetch_all(&mut *connection)
    .await?;
    for row in &devices {
        let (user, device) = device(row)?;
        found.entry(user).or_default().devices.push(device);
    }
    let failures = sqlx::query("SELECT user, count, last FROM mfa_failures")
        .fetch_all(connection)
        .await?;
    for row in &failures {
        let (user, count): (String, i64) = (row.try_get("user")?, row.try_get("count")?);
        let user = UserName::parse(&user).map_err(|error| StoreError::Unreadable {
            what: format!("wrong codes of `{user}`"),
            why: error.to_string(),
        })?;
        found.entry(user).or_default().failures = Some(Failures {
            count: u32::try_from(count).unwrap_or(u32::MAX),
            last: from_micros(row.try_get("last")?),
        });
    }
    Ok(found.into_iter().collect())
}

fn device(row: &SqliteRow) -> Result<(UserName, Device), StoreError> {
    let (user, name): (String, String) = (row.try_get("user")?, row.try_get("name")?);
    let unreadable = |why: &dyn std::fmt::Display| StoreError::Unreadable {
        what: format!("device `{name}` of `{user}`"),
        why: why.to_string(),
    };
    let last_step: i64 = row.try_get("last_step")?;
    let device = Device {
        name: DeviceName::parse(&name).map_err(|error| unreadable(&error))?,
        sealed: row.try_get("secret")?,
        created: from_micros(row.try_get("created")?),
        last_step: u64::try_from(last_step).map_err(|error| unreadable(&error))?,
        last_used: from_micros(row.try_get("last_used")?),
    };
    let owner = UserName::parse(&user).map_err(|error| unreadable(&error))?;
    Ok((owner, device))
}

/// A document that an older version accepted and this one refuses must neither keep the proxy from
/// starting nor be left out, since it may deny something: see [`Role::unreadable`].
async fn roles(connection: &mut SqliteConnection) -> Result<Vec<Role>, StoreError> {
    let rows = sqlx::query("SELECT name, body FROM roles ORDER BY name")
        .fetch_all(connection)
        .await?;
    rows.iter().map(role).collect()
}

fn role(row: &SqliteRow) -> Result<Role, StoreError> {
    let (name, body): (String, String) = (row.try_get("name")?, row.try_get("body")?);
    let why = match documents::parse_role(&body) {
        Ok(role) if role.name.as_str() == name => return Ok(role),
        Ok(role) => format!("the document is that of role `{}`", role.name),
        Err(error) => error.problem.to_string(),
    };
    let id = RoleName::parse(&name).map_err(|error| StoreError::Unreadable {
        what: format!("role `{name}`"),
        why: error.to_string(),
    })?;
    // What is no JSON at all is shown as a text, so that nothing is lost.
    let source = serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body));
    Ok(Role::unreadable(id, source, why))
}

/// As with roles: one that can't be read any more may have denied something, and is kept as such.
async fn monitoring_rules(
    connection: &mut SqliteConnection,
) -> Result<Vec<MonitoringRule>, StoreError> {
    let rows = sqlx::query("SELECT name, body, authors FROM monitoring_rules ORDER BY name")
        .fetch_all(connection)
        .await?;
    rows.iter().map(monitoring_rule).collect()
}

fn monitoring_rule(row: &SqliteRow) -> Result<MonitoringRule, StoreError> {
    let (name, body): (String, String) = (row.try_get("name")?, row.try_get("body")?);
    let unreadable = |why: String| StoreError::Unreadable {
        what: format!("access monitoring rule `{name}`"),
        why,
    };
    let authors: String = row.try_get("authors")?;
    let authors = serde_json::from_str(&authors).map_err(|error| unreadable(error.to_string()))?;
    let why = match documents::parse_monitoring_rule(&body) {
        Ok(rule) if rule.name.as_str() == name => return Ok(MonitoringRule { authors, ..rule }),
        Ok(rule) => format!("the document is that of rule `{}`", rule.name),
        Err(error) => error.problem.to_string(),
    };
    let id = RuleName::parse(&name).map_err(|error| unreadable(error.to_string()))?;
    let source = serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body));
    Ok(MonitoringRule::unreadable(id, source, authors, why))
}

async fn requests(
    connection: &mut SqliteConnection,
) -> Result<Vec<(AccessRequest, i64)>, StoreError> {
    let live = sqlx::query(
        "SELECT id, body, revision FROM requests WHERE state IN ('PENDING', 'APPROVED')",
    )
    .fetch_all(&mut *connection)
    .await?;
    let ended = sqlx::query(
        "SELECT id, body, revision FROM requests WHERE state NOT IN ('PENDING', 'APPROVED') \
         ORDER BY created DESC LIMIT $1",
    )
    .bind(i64::try_from(RECENT).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    live.iter()
        .chain(&ended)
        .map(|row| Ok((parsed("request", row)?, row.try_get("revision")?)))
        .collect()
}

fn parsed<T: DeserializeOwned>(what: &str, row: &SqliteRow) -> Result<T, StoreError> {
    let (id, body): (String, String) = (row.try_get("id")?, row.try_get("body")?);
    serde_json::from_str(&body).map_err(|error| StoreError::Unreadable {
        what: format!("{what} `{id}`"),
        why: error.to_string(),
    })
}

pub(super) fn record(row: &SqliteRow) -> Result<Record, StoreError> {
    Ok(Record {
        seq: row.try_get("seq")?,
        time: row.try_get("time")?,
        event: row.try_get("event")?,
        prev: row.try_get("prev")?,
        hash: row.try_get("hash")?,
        text: row.try_get("entry")?,
    })
}

pub(super) fn session(row: &SqliteRow) -> Result<SessionRow, StoreError> {
    let body: String = row.try_get("body")?;
    Ok(SessionRow {
        id: row.try_get("id")?,
        user: row.try_get("user")?,
        node_id: row.try_get("node_id")?,
        login: row.try_get("login")?,
        request_id: row.try_get("request_id")?,
        started: from_micros(row.try_get("started")?),
        ended: row.try_get::<Option<i64>, _>("ended")?.map(from_micros),
        about: serde_json::from_str(&body).unwrap_or_default(),
    })
}
