//! Reading: connections that only read, in turn, and what each listing asks of the database.

pub(super) mod audit;
pub(super) mod certificates;
pub(super) mod requests;
pub(super) mod snapshot;

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{Row, Sqlite};
use time::OffsetDateTime;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::verify::{Report, VerifyError, verify};
use super::{StoreError, from_micros};
use crate::audit::Anchor;
use snapshot::roles;

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

fn parsed<T: DeserializeOwned>(what: &str, row: &SqliteRow) -> Result<T, StoreError> {
    let (id, body): (String, String) = (row.try_get("id")?, row.try_get("body")?);
    serde_json::from_str(&body).map_err(|error| StoreError::Unreadable {
        what: format!("{what} `{id}`"),
        why: error.to_string(),
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
