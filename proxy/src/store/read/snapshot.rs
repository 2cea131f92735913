//! What a start needs: everything that decisions are made on, as the database holds it.
//!
//! A document that an older version accepted and this one refuses must neither keep the proxy from
//! starting nor be left out, since it may deny something.

use std::collections::BTreeMap;

use anteroom_core::allowance::Allowance;
use anteroom_core::credential::IssuedCredential;
use anteroom_core::documents;
use anteroom_core::id::{DeviceName, KeyFingerprint, NodeId, RoleName, RuleName, UserName};
use anteroom_core::lock::Lock;
use anteroom_core::mfa::{Device, Failures, SecondFactors};
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::Node;
use anteroom_core::request::AccessRequest;
use anteroom_core::resource::Resource;
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use anteroom_core::view::{CertifiedHost, MOST_CERTIFIED};
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use time::OffsetDateTime;

use super::parsed;
use crate::store::{StoreError, from_micros, micros};

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

pub(in crate::store) async fn load(
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

/// How many requests that have ended are kept in memory beside the live ones: whoever waited for
/// one still reads how it ended, and lists need the database for older ones only.
pub(crate) const RECENT: usize = 1000;

/// How long an identity certificate is remembered after its end, so that whoever comes with it is
/// told that it is over. What is not remembered is refused all the same, and the database tells it
/// from one that was never issued.
pub(crate) const REMEMBERED: time::Duration = time::Duration::hours(1);

/// How many identity certificates of one user are remembered, those that count no more included:
/// the ones that count, and as many again to say why they don't. More would let anybody fill the
/// memory by logging in.
pub(crate) const MOST_REMEMBERED: usize = 128;

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
pub(super) async fn roles(connection: &mut SqliteConnection) -> Result<Vec<Role>, StoreError> {
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
