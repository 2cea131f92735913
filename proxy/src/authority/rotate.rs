//! The rotation of an authority, one stage after the other.

use std::sync::Arc;

use anteroom_ca::authority::{Authority as Kind, ToSign};
use ssh_key::PublicKey;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::files::Slot;
use super::{
    Authorities, Authority, AuthorityKind, CaAgentError, Keyring, KeyringError, Record, Retired,
    Signer, Stage, Unavailable, print,
};
use crate::keys::HostKeys;
use crate::say;
use crate::state::{By, FromNode, NotAdmitted, NotAllowed, State};
use crate::store::StoreError;

/// What an agent is given to sign to see whether it does: no certificate, and no SSH login, begins
/// like that.
const TRIAL: &[u8] = b"anteroom asks whether this key signs";

/// A step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A new key is made and trusted; the old one signs.
    Announce,
    /// The new key signs; both are trusted.
    Sign,
    /// The old key is trusted no more.
    Retire,
    /// Back to the old key alone.
    Rollback,
}

impl Step {
    /// As `--stage` has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Announce => "announce",
            Self::Sign => "sign",
            Self::Retire => "retire",
            Self::Rollback => "rollback",
        }
    }

    /// What follows a stage if nothing else is asked for.
    #[must_use]
    pub fn after(stage: &Stage) -> Self {
        match stage {
            Stage::Stable => Self::Announce,
            Stage::Announced { .. } => Self::Sign,
            Stage::Signing { .. } => Self::Retire,
        }
    }

    fn fits(self, stage: &Stage) -> bool {
        match stage {
            Stage::Stable => self == Self::Announce,
            Stage::Announced { .. } => matches!(self, Self::Sign | Self::Rollback),
            Stage::Signing { .. } => matches!(self, Self::Retire | Self::Rollback),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Which authority.
    pub kind: AuthorityKind,
    /// Which step; `None` is the next one.
    pub step: Option<Step>,
    /// Retire also while nodes are not known to trust the new key.
    pub force: bool,
}

/// A step that was taken.
#[derive(Debug)]
pub struct Rotated {
    /// Which one.
    pub step: Step,
    /// How the authority is now.
    pub record: Record,
    /// The key that is trusted no more.
    pub retired: Option<PublicKey>,
    /// What did not go as it should, although the step is taken.
    pub warnings: Vec<String>,
}

/// Rotates the authorities.
#[derive(Debug)]
pub struct Rotator {
    keyring: Arc<Keyring>,
    /// What has to show another certificate when the host CA was rotated.
    hosts: Arc<HostKeys>,
    /// One step at a time: each is decided on the files as the last one left them.
    one: Mutex<()>,
}

/// What a step comes to.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) step: Step,
    /// The authority as it was decided on.
    pub(crate) before: Record,
    pub(crate) after: Record,
    pub(crate) retired: Option<PublicKey>,
    pub(crate) authorities: Authorities,
}

impl Rotator {
    /// Rotates the authorities of `keyring`; `hosts` shows what the host CA signs.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, hosts: Arc<HostKeys>) -> Self {
        Self {
            keyring,
            hosts,
            one: Mutex::new(()),
        }
    }

    /// Takes a step.
    ///
    /// # Errors
    /// [`RotateError`]; nothing is changed then.
    pub async fn rotate(&self, state: &State, by: &By, wish: Wish) -> Result<Rotated, RotateError> {
        let _one = self.one.lock().await;
        let kind = wish.kind;
        let all = state.authorities().ok_or(Unavailable(kind))?;
        let before = all.record(kind).clone();
        let step = wish.step.unwrap_or(Step::after(&before.stage));
        if !step.fits(&before.stage) {
            return Err(RotateError::Stage { before, step });
        }
        let unlearnt = state.yet_to_learn(kind);
        if step == Step::Retire && !wish.force && !unlearnt.is_empty() {
            return Err(RotateError::Unlearnt {
                kind,
                nodes: unlearnt.into_iter().map(|node| node.name).collect(),
            });
        }
        if step == Step::Retire && !wish.force && kind == AuthorityKind::User {
            still_held(state, &before).await?;
        }
        let turn = self.prepare(&all, kind, step, state.now()).await?;
        let retired = turn.retired.clone();
        let record = state.rotate(by, turn).await?;
        let warnings = self.settle(state, &record).await;
        Ok(Rotated {
            step,
            record,
            retired,
            warnings,
        })
    }

    /// Everything that can fail, before anything is written down.
    async fn prepare(
        &self,
        all: &Arc<Authorities>,
        kind: AuthorityKind,
        step: Step,
        now: OffsetDateTime,
    ) -> Result<Turn, RotateError> {
        let (keyring, all) = (Arc::clone(&self.keyring), Arc::clone(all));
        // Reading and writing key files takes its time under a passphrase.
        let turned = tokio::task::spawn_blocking(move || turn(&keyring, &all, kind, step, now));
        // A panic in it was logged by the runtime.
        let turn = turned.await.map_err(|_| Unavailable(kind))??;
        let to_try = match step {
            Step::Announce => turn.after.stage.other(),
            Step::Sign | Step::Rollback => Some(&turn.after.signing),
            Step::Retire => None,
        };
        if let (Some(key), Some(agent)) = (to_try, self.keyring.agent())
            && turn.authorities.is_in_agent(key)
        {
            agent.sign(ToSign::new(key.clone(), TRIAL.to_vec())).await?;
        }
        Ok(turn)
    }

    /// What follows the commit. It is done again at the next start, so it fails nothing.
    async fn settle(&self, state: &State, record: &Record) -> Vec<String> {
        let mut warnings = Vec::new();
        let retired = state.authorities();
        let is_retired = |key: &PublicKey| retired.as_ref().is_some_and(|all| all.is_retired(key));
        if let Err(error) = self.keyring.files(record.kind).arrange(record, is_retired) {
            tracing::error!("the key files do not follow the rotation: {error}");
            warnings.push(format!(
                "the key files are put in place at the next start: {error}"
            ));
        }
        if record.kind == AuthorityKind::Host
            && let Err(error) = self.hosts.renew_outer(state).await
        {
            tracing::error!("the proxy's own host certificate was not renewed: {error}");
            warnings.push(format!(
                "the proxy still shows its old host certificate, and tries again within the hour: {error}"
            ));
        }
        warnings
    }
}

fn turn(
    keyring: &Keyring,
    all: &Authorities,
    kind: AuthorityKind,
    step: Step,
    now: OffsetDateTime,
) -> Result<Turn, KeyringError> {
    let mut authorities = all.clone();
    let before = all.record(kind).clone();
    let retired = match kind {
        AuthorityKind::User => turn_one(keyring, all, &mut authorities.user, step, now)?,
        AuthorityKind::Node => turn_one(keyring, all, &mut authorities.node, step, now)?,
        AuthorityKind::Host => turn_one(keyring, all, &mut authorities.host, step, now)?,
    };
    let after = authorities.record(kind).clone();
    authorities
        .retired
        .extend(retired.iter().map(|key| Retired {
            kind,
            key: key.clone(),
            at: after.since,
        }));
    Ok(Turn {
        step,
        before,
        after,
        retired,
        authorities,
    })
}

/// Turns one authority, and says which key is trusted no more.
fn turn_one<C: Kind>(
    keyring: &Keyring,
    all: &Authorities,
    one: &mut Authority<C>,
    step: Step,
    now: OffsetDateTime,
) -> Result<Option<PublicKey>, KeyringError> {
    let kind = one.record.kind;
    one.record.since = now;
    let (stage, next) = (one.record.stage.clone(), one.next.take());
    Ok(match (step, stage) {
        (Step::Announce, _) => {
            let next = keyring.next_key(kind, all)?;
            one.next = Some(keyring.signer(kind, Slot::Next, &next)?);
            one.record.stage = Stage::Announced { next };
            None
        }
        (Step::Sign, Stage::Announced { next: key }) => {
            one.signer = match next {
                Some(signer) => signer,
                None => keyring.signer(kind, Slot::Next, &key)?,
            };
            let previous = std::mem::replace(&mut one.record.signing, key);
            one.record.stage = Stage::Signing { previous };
            None
        }
        (Step::Rollback, Stage::Signing { previous }) => {
            one.signer = keyring.signer(kind, Slot::Previous, &previous)?;
            one.record.stage = Stage::Stable;
            Some(std::mem::replace(&mut one.record.signing, previous))
        }
        (Step::Rollback, Stage::Announced { next: key })
        | (Step::Retire, Stage::Signing { previous: key }) => {
            one.record.stage = Stage::Stable;
            Some(key)
        }
        // Refused before: a step that does not fit leaves everything as it is.
        (Step::Sign, Stage::Stable | Stage::Signing { .. })
        | (Step::Retire, Stage::Stable | Stage::Announced { .. })
        | (Step::Rollback, Stage::Stable) => None,
    })
}

impl Authorities {
    fn is_in_agent(&self, key: &PublicKey) -> bool {
        fn of<C>(one: &Authority<C>, key: &PublicKey) -> bool {
            let is_it = |signer: &Signer<C>| matches!(signer, Signer::Agent(held) if held.key_data() == key.key_data());
            is_it(&one.signer) || one.next.as_ref().is_some_and(is_it)
        }
        of(&self.user, key) || of(&self.node, key) || of(&self.host, key)
    }
}

/// Refuses to retire a user CA whose certificates people still hold.
async fn still_held(state: &State, record: &Record) -> Result<(), RotateError> {
    let Some(old) = record.stage.other() else {
        return Ok(());
    };
    let reader = state.reader();
    let (valid, last) = reader.identities_by(&print(old), state.now()).await?;
    match last {
        Some(last) if valid > 0 => Err(RotateError::StillHeld { valid, last }),
        Some(_) | None => Ok(()),
    }
}

/// Why a step was not taken.
#[derive(Debug, Error)]
pub enum RotateError {
    /// It does not follow from the stage.
    #[error("{}", say::wrong_stage(before, *step))]
    Stage {
        /// The authority as it is.
        before: Record,
        /// What was asked for.
        step: Step,
    },
    /// Some would be locked out.
    #[error("{}", say::unlearnt(*kind, nodes))]
    Unlearnt {
        /// Which authority.
        kind: AuthorityKind,
        /// The names of the nodes.
        nodes: Vec<String>,
    },
    /// Identity certificates of the old user CA are still valid.
    #[error("{}", say::still_held(*valid, *last))]
    StillHeld {
        /// How many.
        valid: i64,
        /// When the last of them ends.
        last: OffsetDateTime,
    },
    /// Keys that can't be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// The agent does not sign with the key.
    #[error(transparent)]
    Agent(#[from] CaAgentError),
    /// The keys are not there.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Somebody else was quicker.
    #[error("the {0} CA was rotated by somebody else at the same moment; look at `auth status`")]
    Changed(AuthorityKind),
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// The administrator's roles don't allow it.
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    /// It could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}
