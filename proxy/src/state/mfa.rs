//! Second factors: taking a code once, setting devices up, removing them.
//!
//! Everything that looks at a code is a job of the writer's, one after the other: so a code is taken once and
//! guesses are counted right, over parallel connections and restarts, and the database refuses what would not be.

use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_core::admin::AdminVerb;
use anteroom_core::id::{DeviceName, UserName};
use anteroom_core::mfa::{Device, MOST_DEVICES};
use anteroom_core::policy::{self, Identity};
use anteroom_core::request::Actor;
use thiserror::Error;
use time::OffsetDateTime;

use super::draft::Draft;
use super::objects::may;
use super::{By, FromNode, NotAdmitted, NotAllowed, ObjectId, State, not_from_a_node};
use crate::audit::{Entry, Event};
use crate::mfa::{SealError, Sealer, Secret};
use crate::say;
use crate::store::StoreError;

/// Why a code was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CodeRefused {
    /// There is nothing that could make one.
    #[error("no second factor is set up; do it with `ssh -t access mfa add`")]
    NoDevice,
    /// Too many were wrong.
    #[error("too many wrong codes; the next one is looked at from {} on", say::stamp(*.0))]
    Paused(OffsetDateTime),
    /// No device shows it now.
    #[error("this code is wrong; check the clock of the device that shows it")]
    Wrong,
    /// It was used before, or one that came after it.
    #[error("this code was used already; wait for the next one")]
    Spent,
}

/// A code that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// The device that showed it.
    pub device: Device,
    /// When.
    pub at: OffsetDateTime,
}

/// What stands behind a change of one's own devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The key alone. A second factor that was given as the connection began, or minutes before, is no more here:
    /// others may share the connection, or come from the same address with the same key.
    Key,
    /// A code for this very change.
    Code,
}

/// Why devices are as they were.
#[derive(Debug, Error)]
pub enum MfaError {
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// Only administrators of users may.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// The first code of a new device was not right.
    #[error(transparent)]
    Code(#[from] CodeRefused),
    /// The name is taken.
    #[error("you have a device `{0}` already; give another name with `--name`, or remove it first")]
    Exists(DeviceName),
    /// Enough of them.
    #[error("you have {MOST_DEVICES} devices, which is as many as may be; remove one first")]
    TooMany,
    /// There is no such device.
    #[error("there is no device `{0}`; `mfa ls` shows those there are")]
    NoSuch(DeviceName),
    /// A key alone is not enough to change what is to protect against its loss.
    #[error("this needs a code of a device that is set up; give it with `--code`")]
    NeedsCode,
    /// The secret could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl State {
    /// Takes a code of somebody who has proven her key: once, and not while too many were wrong.
    ///
    /// # Errors
    /// [`CodeRefused`] in the inner result, counted and in the log; [`StoreError`] in the outer, and then
    /// nothing is proven.
    pub async fn take_code(
        &self,
        identity: &Identity,
        code: &str,
        from: SocketAddr,
        sealer: &Arc<Sealer>,
    ) -> Result<Result<Confirmed, CodeRefused>, StoreError> {
        let (identity, code, sealer) = (identity.clone(), code.to_owned(), Arc::clone(sealer));
        // Refused or not, what it changes is written: a guess has to be counted.
        self.write(move |draft| {
            let taken = take(draft, identity.user(), &code, &sealer);
            if let Err(refused) = &taken {
                let why = format!("a second factor was refused: {refused}");
                let entry = Entry::failed(Event::Auth, why)
                    .user(identity.user())
                    .key(identity.key())
                    .remote_addr(from);
                draft.log(entry);
            }
            Ok(taken)
        })
        .await
    }

    /// Sets a device up that shows `code` now. With one there already, `proof` has to be more than the key.
    ///
    /// # Errors
    /// [`MfaError`]; nothing is changed, and the attempt is in the log.
    pub async fn add_device(
        &self,
        by: &By,
        (name, secret): (DeviceName, Arc<Secret>),
        code: &str,
        proof: Proof,
        sealer: &Arc<Sealer>,
    ) -> Result<Confirmed, MfaError> {
        let (by, code, sealer) = (by.clone(), code.to_owned(), Arc::clone(sealer));
        self.write(move |draft| {
            add(draft, &by, &name, &secret, &code, proof, &sealer)
                .inspect_err(|error| refused(draft, &by, Event::MfaAdd, &name, error))
        })
        .await
    }

    /// Removes a device of one's own.
    ///
    /// # Errors
    /// [`MfaError`]; nothing is changed, and the attempt is in the log.
    pub async fn remove_own_device(
        &self,
        by: &By,
        name: DeviceName,
        proof: Proof,
    ) -> Result<(), MfaError> {
        let by = by.clone();
        self.write(move |draft| {
            remove_own(draft, &by, &name, proof)
                .inspect_err(|error| refused(draft, &by, Event::MfaDelete, &name, error))
        })
        .await
    }

    /// Removes a device of somebody's, or all of them, for an administrator. Returns which.
    ///
    /// # Errors
    /// [`MfaError`]; nothing is changed, and the attempt is in the log.
    pub async fn reset_devices(
        &self,
        by: &By,
        user: UserName,
        name: Option<DeviceName>,
    ) -> Result<Vec<DeviceName>, MfaError> {
        let by = by.clone();
        self.write(move |draft| {
            reset(draft, &by, &user, name.as_ref()).inspect_err(|error| {
                let what = name.as_ref().map_or("*", |name| name.as_str());
                let entry = by.entry(Event::MfaDelete).name(format!("{user}/{what}"));
                draft.log(entry.refused(error));
            })
        })
        .await
    }
}

/// What a secret is sealed for: it opens for no other user or device.
fn owner(user: &UserName, device: &DeviceName) -> String {
    format!("{user}/{device}")
}

fn take(
    draft: &mut Draft,
    user: &UserName,
    code: &str,
    sealer: &Sealer,
) -> Result<Confirmed, CodeRefused> {
    let (known, now) = (draft.second_factors(user), draft.now());
    if known.devices.is_empty() {
        return Err(CodeRefused::NoDevice);
    }
    if let Some(until) = known.paused_until(now) {
        return Err(CodeRefused::Paused(until));
    }
    let mut spent = false;
    for device in &known.devices {
        let Some(secret) = sealer.open_secret(&owner(user, &device.name), &device.sealed) else {
            tracing::error!(%user, device = %device.name, "a second factor can't be opened with `mfa_key`: restore the key that it was made with, or remove the device");
            continue;
        };
        match secret.step_of(code, now) {
            Some(step) if step > device.last_step => {
                draft.spend_step(user, device, step);
                let device = device.clone();
                return Ok(Confirmed { device, at: now });
            }
            Some(_) => spent = true,
            None => {}
        }
    }
    if spent {
        return Err(CodeRefused::Spent);
    }
    draft.count_wrong_code(user);
    Err(CodeRefused::Wrong)
}

fn add(
    draft: &mut Draft,
    by: &By,
    name: &DeviceName,
    secret: &Secret,
    code: &str,
    proof: Proof,
    sealer: &Sealer,
) -> Result<Confirmed, MfaError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    let user = own(by)?;
    let (known, now) = (draft.second_factors(&user), draft.now());
    if !known.devices.is_empty() && proof == Proof::Key {
        return Err(MfaError::NeedsCode);
    }
    if known.device(name).is_some() {
        return Err(MfaError::Exists(name.clone()));
    }
    if known.devices.len() >= MOST_DEVICES {
        return Err(MfaError::TooMany);
    }
    let step = secret.step_of(code, now).ok_or(CodeRefused::Wrong)?;
    let device = Device {
        name: name.clone(),
        sealed: sealer.seal(&owner(&user, name), secret)?,
        created: now,
        // The code that confirms it is spent by that.
        last_step: step,
        last_used: now,
    };
    draft.add_device(&user, device.clone());
    draft.log(by.entry(Event::MfaAdd).name(owner(&user, name)));
    Ok(Confirmed { device, at: now })
}

fn remove_own(draft: &mut Draft, by: &By, name: &DeviceName, proof: Proof) -> Result<(), MfaError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    let user = own(by)?;
    if draft.second_factors(&user).device(name).is_none() {
        return Err(MfaError::NoSuch(name.clone()));
    }
    if proof == Proof::Key {
        return Err(MfaError::NeedsCode);
    }
    draft.remove_device(&user, name);
    draft.log(by.entry(Event::MfaDelete).name(owner(&user, name)));
    Ok(())
}

fn reset(
    draft: &mut Draft,
    by: &By,
    user: &UserName,
    name: Option<&DeviceName>,
) -> Result<Vec<DeviceName>, MfaError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    may(
        draft.view(),
        by,
        AdminVerb::Update,
        &ObjectId::User(user.clone()),
    )?;
    let known = draft.second_factors(user);
    let removed: Vec<DeviceName> = match name {
        Some(name) if known.device(name).is_none() => return Err(MfaError::NoSuch(name.clone())),
        Some(name) => vec![name.clone()],
        None => known
            .devices
            .into_iter()
            .map(|device| device.name)
            .collect(),
    };
    draft.forget_wrong_codes(user);
    for name in &removed {
        draft.remove_device(user, name);
        draft.log(by.entry(Event::MfaDelete).name(owner(user, name)));
    }
    Ok(removed)
}

fn own(by: &By) -> Result<UserName, MfaError> {
    match &by.actor {
        Actor::User(user) => Ok(user.clone()),
        Actor::LocalAdministrator | Actor::Rule(_) | Actor::Clock => Err(MfaError::NotAdmitted(
            NotAdmitted(policy::Reason::UnknownUser),
        )),
    }
}

fn refused(draft: &mut Draft, by: &By, event: Event, name: &DeviceName, error: &MfaError) {
    let name = match &by.actor {
        Actor::User(user) => owner(user, name),
        Actor::LocalAdministrator | Actor::Rule(_) | Actor::Clock => name.to_string(),
    };
    draft.log(by.entry(event).name(name).refused(error));
}
