//! The statements for what administrators keep: roles, users, nodes, locks, resources, rules.

use anteroom_core::id::{LockId, NodeId, ResourceName, RoleName, RuleName, UserName};
use anteroom_core::lock::Lock;
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::Node;
use anteroom_core::resource::{Kind as ResourceKind, Resource};
use anteroom_core::role::Role;
use anteroom_core::user::User;
use time::OffsetDateTime;

use super::{Transaction, body, one};
use crate::store::{StoreError, micros};

impl Transaction<'_> {
    pub(super) async fn put_role(
        &mut self,
        role: &Role,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
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

    pub(super) async fn remove_role(&mut self, name: &RoleName) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM roles WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("role `{name}`"))
    }

    pub(super) async fn put_user(
        &mut self,
        user: &User,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
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

    pub(super) async fn release_keys(&mut self, name: &UserName) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM user_keys WHERE user = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    pub(super) async fn remove_user(&mut self, name: &UserName) -> Result<(), StoreError> {
        self.clear_user(name).await?;
        let done = sqlx::query("DELETE FROM users WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("user `{name}`"))
    }

    pub(super) async fn put_node(
        &mut self,
        node: &Node,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
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

    pub(super) async fn remove_node(&mut self, id: NodeId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM nodes WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("node `{id}`"))
    }

    pub(super) async fn put_lock(&mut self, lock: &Lock) -> Result<(), StoreError> {
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

    pub(super) async fn remove_lock(&mut self, id: LockId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM locks WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || format!("lock {id}"))
    }

    pub(super) async fn put_resource(
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

    pub(super) async fn remove_resource(
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

    pub(super) async fn put_monitoring_rule(
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

    pub(super) async fn remove_monitoring_rule(
        &mut self,
        name: &RuleName,
    ) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM monitoring_rules WHERE name = $1")
            .bind(name.as_str())
            .execute(&mut self.connection)
            .await?;
        one(done.rows_affected(), || {
            format!("access monitoring rule `{name}`")
        })
    }
}
