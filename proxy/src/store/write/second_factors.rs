//! The statements for devices that make codes, and for codes that were guessed wrong.

use anteroom_core::id::{DeviceName, UserName};
use anteroom_core::mfa::{Device, Failures};

use super::{Transaction, one};
use crate::store::{StoreError, micros};

impl Transaction<'_> {
    pub(super) async fn add_device(
        &mut self,
        user: &UserName,
        device: &Device,
    ) -> Result<(), StoreError> {
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

    pub(super) async fn spend_step(
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

    pub(super) async fn remove_device(
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

    pub(super) async fn set_failures(
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
}

/// A time step as the database has it: there are 64 signed bits, and it is the year 8 trillion.
fn step(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}
