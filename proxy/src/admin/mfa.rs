//! `mfa add|ls|rm`: one's own second factors, and an administrator's way to take somebody's away.

use std::sync::Arc;

use anteroom_core::admin::AdminVerb;
use anteroom_core::id::{DeviceName, UserName};
use anteroom_core::mfa::Device;
use serde::Serialize;

use super::args::person::{MfaAdd, MfaLs, MfaRm};
use super::io::{Caller, CommandIo, StdinError, Typed};
use super::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::mfa::Secret;
use crate::say::{self, Table, clean};
use crate::state::{CodeRefused, Confirmed, MfaError, ObjectId, Proof};

/// How often a code is asked for before the command gives up, each time for as long as a prompt waits: adding a
/// secret to an app by hand takes a while.
const ATTEMPTS: usize = 5;

/// The longest standard input that is a code.
const LONGEST_CODE: usize = 64;

#[derive(Serialize)]
struct Row<'a> {
    name: &'a DeviceName,
    #[serde(with = "time::serde::rfc3339")]
    created: time::OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    last_used: time::OffsetDateTime,
}

impl<'a> Row<'a> {
    fn of(device: &'a Device) -> Self {
        Self {
            name: &device.name,
            created: device.created,
            last_used: device.last_used,
        }
    }
}

impl From<MfaError> for Stop {
    fn from(error: MfaError) -> Self {
        let exit = match &error {
            MfaError::Store(_) => None,
            MfaError::NotAdmitted(_)
            | MfaError::FromNode(_)
            | MfaError::NotAllowed(_)
            | MfaError::NeedsCode => Some(Exit::Denied),
            MfaError::Code(refused) => Some(exit_of(refused)),
            MfaError::Exists(_) | MfaError::TooMany | MfaError::Seal(_) => Some(Exit::Failed),
            MfaError::NoSuch(_) => Some(Exit::NotFound),
        };
        match (exit, error) {
            (None, MfaError::Store(error)) => error.into(),
            (exit, error) => {
                Self::by_state(exit.unwrap_or(Exit::Failed), clean(&error.to_string()))
            }
        }
    }
}

fn exit_of(refused: &CodeRefused) -> Exit {
    match refused {
        CodeRefused::Wrong | CodeRefused::Spent | CodeRefused::NoDevice => Exit::Denied,
        CodeRefused::Paused(_) => Exit::Pending,
    }
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn mfa_add(&mut self, args: MfaAdd) -> Ended {
        let user = self.identity("mfa add")?.user().clone();
        let view = self.ctx.state.view();
        let known = view.second_factors(&user).cloned().unwrap_or_default();
        if known.device(&args.name).is_some() {
            return Err(MfaError::Exists(args.name).into());
        }
        let proof = if known.devices.is_empty() {
            Proof::Key
        } else {
            self.proof(args.code.as_deref()).await?
        };
        let secret = Arc::new(Secret::random(&mut rand::rng()));
        let cluster = self.ctx.state.cluster().to_string();
        let (uri, base32) = secret
            .shown(&cluster, user.as_str())
            .map_err(|error| Stop::new(Exit::Failed, clean(&error.to_string())))?;
        self.print(&format!("{uri}\n{base32}")).await?;
        self.note(
            "Give this to an authenticator app: the first line as a QR code or a link, or the second one by hand \
             (time-based, 6 digits). Show it to nobody. Then give the code that it shows.",
        )
        .await?;
        let confirmed = self.confirm(&args.name, &secret, proof).await?;
        self.remember(&confirmed);
        self.note(&format!(
            "Device {} is set up; ssh asks for its code where a role demands a second factor",
            args.name
        ))
        .await?;
        Ok(Exit::Done)
    }

    /// Asks for the first code of a new device, until it is right.
    async fn confirm(
        &mut self,
        name: &DeviceName,
        secret: &Arc<Secret>,
        proof: Proof,
    ) -> Result<Confirmed, Stop> {
        for attempt in 1..=ATTEMPTS {
            let Some(code) = self.code("Code: ").await? else {
                continue;
            };
            let sealer = &self.ctx.second_factors.sealer;
            let device = (name.clone(), Arc::clone(secret));
            let added = self
                .ctx
                .state
                .add_device(&self.by(), device, &code, proof, sealer)
                .await;
            match added {
                Err(MfaError::Code(refused))
                    if attempt < ATTEMPTS && self.io.terminal().is_some() =>
                {
                    self.note(&clean(&refused.to_string())).await?;
                }
                added => return Ok(added?),
            }
        }
        Err(Stop::new(
            Exit::Failed,
            "no code was given, and nothing was set up; give the command again",
        ))
    }

    /// A code that somebody types, or standard input to its end. `None` where nobody has typed anything yet.
    async fn code(&mut self, prompt: &str) -> Result<Option<String>, Stop> {
        if self.io.terminal().is_some() {
            return match self.io.read_line(prompt).await {
                Typed::Line(line) => Ok(Some(line)),
                Typed::End => Ok(None),
                Typed::Interrupted => Err(Stop::new(
                    Exit::Interrupted,
                    "interrupted; nothing was changed",
                )),
            };
        }
        let read = self.io.read_stdin(LONGEST_CODE).await;
        let bytes = read.map_err(|error| match error {
            StdinError::Gone(_) => Stop::Gone,
            StdinError::TooLong(_) | StdinError::TooSlow(_) => Stop::usage(error),
        })?;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        if text.is_empty() {
            return Err(Stop::usage(
                "no code was given; use a terminal (`ssh -t`), or write the code to standard input",
            ));
        }
        Ok(Some(text))
    }

    /// What stands behind a change of one's devices: a code, where one is given or can be asked for.
    async fn proof(&mut self, code: Option<&str>) -> Result<Proof, Stop> {
        let identity = self.identity("mfa")?.clone();
        let Caller::Ssh { remote_addr, .. } = self.caller else {
            return Ok(Proof::Key);
        };
        let code = match code {
            Some(code) => code.to_owned(),
            None if self.io.terminal().is_some() => {
                match self.code("Code of a device that is set up: ").await? {
                    Some(code) => code,
                    None => return Ok(Proof::Key),
                }
            }
            None => return Ok(Proof::Key),
        };
        let sealer = &self.ctx.second_factors.sealer;
        let taken = self
            .ctx
            .state
            .take_code(&identity, &code, *remote_addr, sealer)
            .await?;
        match taken {
            Ok(confirmed) => {
                self.remember(&confirmed);
                Ok(Proof::Code)
            }
            Err(refused) => Err(Stop::by_state(
                exit_of(&refused),
                clean(&refused.to_string()),
            )),
        }
    }

    /// A code that was given to a command counts as one that was given to ssh.
    fn remember(&self, confirmed: &Confirmed) {
        let Caller::Ssh {
            identity,
            remote_addr,
        } = self.caller
        else {
            return;
        };
        let key = identity
            .credential()
            .map_or(identity.key(), |held| &held.key);
        let recent = &self.ctx.second_factors.recent;
        recent.note(
            key.clone(),
            remote_addr.ip(),
            &confirmed.device,
            confirmed.at,
        );
    }

    pub(crate) async fn mfa_ls(&mut self, args: &MfaLs) -> Ended {
        let view = self.ctx.state.view();
        let user = match (&args.user, self.user()) {
            (Some(other), own) if own != Some(other) => {
                self.require_on(AdminVerb::Read, &view, &ObjectId::User(other.clone()))?;
                other.clone()
            }
            (_, Some(own)) => own.clone(),
            (_, None) => return Err(Stop::usage("say whose: `mfa ls --user NAME`")),
        };
        let known = view.second_factors(&user).cloned().unwrap_or_default();
        let rows: Vec<Row<'_>> = known.devices.iter().map(Row::of).collect();
        self.listing(args.listing.format, &rows, || {
            let mut table = Table::new(["Name", "Added (UTC)", "Last Used (UTC)"]);
            for row in &rows {
                table.row([
                    row.name.to_string(),
                    say::stamp(row.created),
                    say::stamp(row.last_used),
                ]);
            }
            table.to_string()
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn mfa_rm(&mut self, args: MfaRm) -> Ended {
        match (args.user, args.name) {
            (Some(user), name) if self.user() != Some(&user) => self.mfa_reset(user, name).await,
            (_, Some(name)) => self.mfa_rm_own(name, args.code.as_deref()).await,
            (_, None) => Err(Stop::usage("say which of your devices: `mfa rm NAME`")),
        }
    }

    async fn mfa_rm_own(&mut self, name: DeviceName, code: Option<&str>) -> Ended {
        let user = self.identity("mfa rm NAME")?.user().clone();
        let view = self.ctx.state.view();
        let known = view.second_factors(&user).cloned().unwrap_or_default();
        if known.device(&name).is_none() {
            return Err(MfaError::NoSuch(name).into());
        }
        let proof = self.proof(code).await?;
        let by = self.by();
        self.ctx
            .state
            .remove_own_device(&by, name.clone(), proof)
            .await?;
        self.print(&format!("device {name} removed")).await?;
        Ok(Exit::Done)
    }

    async fn mfa_reset(&mut self, user: UserName, name: Option<DeviceName>) -> Ended {
        let (view, by) = (self.ctx.state.view(), self.by());
        self.require_on(AdminVerb::Update, &view, &ObjectId::User(user.clone()))?;
        let removed = self
            .ctx
            .state
            .reset_devices(&by, user.clone(), name)
            .await?;
        if removed.is_empty() {
            self.note(&format!("{user} has no devices")).await?;
        }
        for name in removed {
            self.print(&format!("device {name} of {user} removed"))
                .await?;
        }
        Ok(Exit::Done)
    }
}
