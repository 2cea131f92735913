//! Bringing the schema up to date, one numbered step after the other.
//!
//! Each step is one transaction that also sets `user_version`, so a process killed half way leaves
//! the schema at the step before or the step after, and the next start goes on from there.

use std::path::{Path, PathBuf};

use sqlx::{Connection, SqliteConnection};
use thiserror::Error;

/// The steps, oldest first; step *n* ends with `PRAGMA user_version = n`. A step that was released
/// is never edited.
const STEPS: &[&str] = &[
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
    include_str!("schema/0004.sql"),
    include_str!("schema/0005.sql"),
    include_str!("schema/0006.sql"),
    include_str!("schema/0007.sql"),
    include_str!("schema/0008.sql"),
    include_str!("schema/0009.sql"),
    include_str!("schema/0010.sql"),
    include_str!("schema/0011.sql"),
    include_str!("schema/0012.sql"),
    include_str!("schema/0013.sql"),
];

/// `application_id` of our databases ("ANCR"), so that another program's file is not written to.
const APPLICATION: i64 = 0x414e_4352;

/// The newest schema that this program knows.
pub const SCHEMA: i64 = STEPS.len() as i64;

/// Why a database cannot be brought up to date.
#[derive(Debug, Error)]
pub enum MigrateError {
    /// A newer program wrote it.
    #[error(
        "database `{path}` has schema {found}, this anteroom knows up to {SCHEMA}; start the newer program, or restore the backup that was made before it"
    )]
    Newer {
        /// The database's file.
        path: PathBuf,
        /// Its schema.
        found: i64,
    },
    /// It is a database, but not ours.
    #[error("`{path}` is a database of another program; name another directory with --data-dir")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A step failed, and was undone.
    #[error("database `{path}`: {source}")]
    Failed {
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
}

/// Brings the schema to [`SCHEMA`].
pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), MigrateError> {
    run(connection, path, STEPS).await
}

async fn run(
    connection: &mut SqliteConnection,
    path: &Path,
    steps: &'static [&'static str],
) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Failed {
        path: path.to_owned(),
        source,
    };
    check(connection, path, steps.len()).await?;
    for (number, step) in (1_i64..).zip(steps) {
        let mut transaction = connection
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed)?;
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed)?;
        if version < number {
            sqlx::raw_sql(*step)
                .execute(&mut *transaction)
                .await
                .map_err(failed)?;
        }
        transaction.commit().await.map_err(failed)?;
    }
    Ok(())
}

async fn check(
    connection: &mut SqliteConnection,
    path: &Path,
    known: usize,
) -> Result<(), MigrateError> {
    let failed = |source| MigrateError::Failed {
        path: path.to_owned(),
        source,
    };
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let application: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    if application != APPLICATION && (tables > 0 || found != 0) {
        return Err(MigrateError::NotOurs {
            path: path.to_owned(),
        });
    }
    if usize::try_from(found).map_or(true, |found| found > known) {
        return Err(MigrateError::Newer {
            path: path.to_owned(),
            found,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn memory() -> SqliteConnection {
        SqliteConnection::connect("sqlite::memory:").await.unwrap()
    }

    #[tokio::test]
    async fn every_step_sets_its_own_version() {
        let mut connection = memory().await;
        migrate(&mut connection, Path::new("db")).await.unwrap();
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(version, SCHEMA);
        migrate(&mut connection, Path::new("db")).await.unwrap();
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_left_alone() {
        let mut connection = memory().await;
        migrate(&mut connection, Path::new("db")).await.unwrap();
        sqlx::raw_sql("PRAGMA user_version = 999")
            .execute(&mut connection)
            .await
            .unwrap();
        let error = migrate(&mut connection, Path::new("db")).await.unwrap_err();
        assert!(
            matches!(error, MigrateError::Newer { found: 999, .. }),
            "{error}"
        );
        assert!(error.to_string().contains("schema 999"), "{error}");
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(version, 999);
    }

    #[tokio::test]
    async fn a_step_that_fails_leaves_nothing_behind() {
        let mut connection = memory().await;
        let steps = &[
            "CREATE TABLE a (x); PRAGMA application_id = 1095648082; PRAGMA user_version = 1;",
            "CREATE TABLE b (x); NONSENSE; PRAGMA user_version = 2;",
        ];
        run(&mut connection, Path::new("db"), steps)
            .await
            .unwrap_err();
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        let version: i64 = sqlx::query_scalar("PRAGMA user_version")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!((tables, version), (1, 1));
    }

    #[tokio::test]
    async fn another_programs_database_is_refused() {
        let mut connection = memory().await;
        sqlx::raw_sql("CREATE TABLE theirs (x)")
            .execute(&mut connection)
            .await
            .unwrap();
        let error = migrate(&mut connection, Path::new("db")).await.unwrap_err();
        assert!(matches!(error, MigrateError::NotOurs { .. }), "{error}");
    }

    #[tokio::test]
    async fn host_certificates_that_were_issued_before_count_as_of_any_type() {
        let mut connection = memory().await;
        run(&mut connection, Path::new("db"), &STEPS[..6])
            .await
            .unwrap();
        let hash = |digit: &str| digit.repeat(64);
        let issued = format!(
            "INSERT INTO audit VALUES (1, 't', 'cert.create', '{}', '{}', 'e'); \
             INSERT INTO issuances VALUES ('5', 'host', NULL, 'node', '[\"n\"]', 'key', NULL, NULL, \
             'n1', NULL, '{}', 1, 9, 1, 1);",
            hash("0"),
            hash("1"),
            hash("2")
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(issued))
            .execute(&mut connection)
            .await
            .unwrap();
        migrate(&mut connection, Path::new("db")).await.unwrap();
        let known: (String, String, String, Option<String>) =
            sqlx::query_as("SELECT serial, node_id, key_type, why FROM host_certificates")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(
            known,
            ("5".to_owned(), "n1".to_owned(), String::new(), None)
        );
    }

    #[tokio::test]
    async fn a_database_of_the_first_schema_keeps_its_rows_and_takes_resources() {
        let mut connection = memory().await;
        run(&mut connection, Path::new("db"), &STEPS[..1])
            .await
            .unwrap();
        sqlx::raw_sql(
            "INSERT INTO roles VALUES ('access', '{}', 1, 1); INSERT INTO meta VALUES ('cluster', 'x');",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        migrate(&mut connection, Path::new("db")).await.unwrap();
        let kept: (String, String) =
            sqlx::query_as("SELECT roles.name, meta.value FROM roles, meta")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(kept, ("access".to_owned(), "x".to_owned()));
        let add = |kind: &str, name: &str, body: &str| {
            sqlx::query("INSERT INTO resources VALUES ($1, $2, $3, 1, 1)")
                .bind(kind.to_owned())
                .bind(name.to_owned())
                .bind(body.to_owned())
        };
        let good =
            r#"{"name":"orders","labels":{},"spec":{"kind":"db","protocol":"mysql","uri":"x:1"}}"#;
        add("db", "orders", good)
            .execute(&mut connection)
            .await
            .unwrap();
        for (kind, name, body) in [
            ("db", "orders", good),
            ("app", "orders", good),
            ("db", "other", good),
            ("node", "orders", good),
            ("db", "orders", "nonsense"),
            ("db", "Orders", r#"{"name":"Orders","spec":{"kind":"db"}}"#),
            ("db", "", r#"{"name":"","spec":{"kind":"db"}}"#),
            ("db", "x", "{}"),
        ] {
            let refused = add(kind, name, body).execute(&mut connection).await;
            assert!(refused.is_err(), "{kind} {name} {body}");
        }
    }
}
