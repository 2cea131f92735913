//! The store: SQLite in the data directory.
//!
//! Promises:
//! * Committed means survived: WAL with `synchronous=FULL`, so that [`Transaction::commit`] returns
//!   after the log is on the disk.
//! * All writing goes through one connection and one kind of transaction (`BEGIN IMMEDIATE`). What
//!   a transaction decides on is what is in the database: [`Transaction::changed_elsewhere`] tells
//!   whether anybody else wrote since the last one.
//! * An audit entry is written in the transaction of the thing that it records.
//! * The database itself refuses impossible states: see `schema/`.
//! * Files have mode 0600, whatever the umask; one process at a time works in the directory.
//!
//! What it leaves to others: the rules (`anteroom-core`) and when to do what (`state`).

mod authorities;
mod change;
mod dir;
mod migrate;
mod presence;
mod read;
mod story;
mod verify;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, SqliteConnection};
use thiserror::Error;
use time::OffsetDateTime;

pub use authorities::Learnt;
pub use change::{
    Change, HostRevocation, IdentityIssuance, Issuance, Kind, RENAMED, SessionEnd, SessionStart,
};
pub use dir::{DATABASE, DirError, LOCK, prepare};
pub use migrate::{MigrateError, SCHEMA};
pub use presence::{NodeSource, SeenNode};
pub use read::audit::AuditFilter;
pub use read::certificates::{HostCertificate, ValidCertificate};
pub use read::requests::{Ended, Whose};
pub use read::snapshot::Snapshot;
pub(crate) use read::snapshot::{MOST_REMEMBERED, RECENT, REMEMBERED};
pub use read::{Reader, SessionRow};
pub use verify::{Broken, Report, VerifyError};
pub use write::Transaction;

/// How long a statement waits for another process that holds the database (a backup, a shell)
/// before access fails closed.
const BUSY: Duration = Duration::from_secs(5);

/// Why the store could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// The schema is not one this program can work with.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The database cannot be read.
    #[error("database `{path}`: {source}")]
    Database {
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// What is in the database cannot be understood.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a transaction or a query failed. Shared by everybody whose work was in the transaction.
#[derive(Debug, Clone, Error)]
pub enum StoreError {
    /// SQLite failed: the disk is full or broken, or another process holds the database.
    #[error("the database is unavailable: {0}; try again, and look at the proxy's log")]
    Unavailable(Arc<sqlx::Error>),
    /// Something else changed the row between the decision and the writing.
    #[error("{0} was changed by somebody else at the same moment; look again, then try again")]
    Conflict(String),
    /// A row does not hold what its column promises.
    #[error("the database holds {what} that cannot be read: {why}; run `anteroom doctor`")]
    Unreadable {
        /// Which object.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// An object cannot be written down; a defect of ours.
    #[error("{what} cannot be written to the database: {why}")]
    Unwritable {
        /// Which object.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The proxy is stopping.
    #[error("the proxy is stopping; try again when it is back")]
    Stopped,
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Arc::new(error))
    }
}

impl From<crate::audit::AppendError> for StoreError {
    fn from(error: crate::audit::AppendError) -> Self {
        Self::Unwritable {
            what: "an audit entry".to_owned(),
            why: error.to_string(),
        }
    }
}

/// The one writer of a data directory.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None` after a failure, until the next transaction connects again.
    connection: Option<SqliteConnection>,
    /// SQLite's counter of other connections' commits, as of the end of the last transaction.
    /// `None` where what memory holds may not be what the disk holds.
    seen: Option<i64>,
    /// Held, not read: dropping it lets the next proxy in.
    _lock: dir::DirLock,
}

impl Store {
    /// Opens the database of a data directory, makes it if it is not there, and brings its schema
    /// up to date.
    ///
    /// # Errors
    /// [`OpenError`]; a directory that another proxy runs on, and a schema newer than this
    /// program's, are refused.
    pub async fn open(dir: &Path) -> Result<Self, OpenError> {
        dir::prepare(dir)?;
        let lock = dir::lock(dir)?;
        let path = dir::create_database(dir)?;
        let failed = |source| OpenError::Database {
            path: path.clone(),
            source,
        };
        let mut connection = connect(&path).await.map_err(failed)?;
        migrate::migrate(&mut connection, &path).await?;
        Ok(Self {
            connection: Some(connection),
            path,
            seen: None,
            _lock: lock,
        })
    }

    /// Connections for reading, beside the writer's.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::new(&self.path)
    }

    /// Begins a transaction that nobody else can write beside.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the next call connects anew.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, StoreError> {
        // Taken, not borrowed: a transaction that fails, or is dropped, leaves no connection
        // behind that could be in the middle of something.
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.seen = None;
                connect(&self.path).await?
            }
        };
        Transaction::begin(self, connection).await
    }

    /// Closes the database in good order, which also empties its write-ahead log.
    pub async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            // Everything is committed already: a failure here costs nothing but a longer start.
            let _ = connection.close().await;
        }
    }
}

async fn connect(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        // The write-ahead log is cut back to this after a burst.
        .pragma("journal_size_limit", "16777216")
        .pragma("trusted_schema", "OFF");
    SqliteConnection::connect_with(&options).await
}

/// Microseconds since 1970, as the database keeps times.
pub(crate) fn micros(at: OffsetDateTime) -> i64 {
    // Years −9999 to 9999 fit into 64 bits with room to spare.
    i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

/// The time that [`micros`] wrote.
pub(crate) fn from_micros(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
