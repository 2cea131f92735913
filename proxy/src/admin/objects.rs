//! What the commands have in common that change what administrators keep: users, nodes, roles, locks and the
//! rest. Here is how a refusal of the state becomes a sentence, and how what was written is told.

use anteroom_core::admin::AdminVerb;

use super::io::CommandIo;
use super::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::clean;
use crate::state::{
    LockError, ObjectId, PutError, RemoveError, Stored, TokenError, UpdateError, Written,
};

impl From<PutError> for Stop {
    fn from(error: PutError) -> Self {
        let exit = match error {
            PutError::Store(error) => return error.into(),
            PutError::FromNode(error) => return error.into(),
            PutError::Lock(LockError::Over(_)) => Exit::Usage,
            PutError::Token(TokenError::Over(_) | TokenError::TooLong(_)) => Exit::Usage,
            PutError::Lock(LockError::TooMany)
            | PutError::Token(TokenError::TooMany)
            | PutError::TooManyRules(_) => Exit::Failed,
            PutError::NotAdmitted(_) | PutError::NotAllowed(_) => Exit::Denied,
            PutError::UnknownRole { .. } => Exit::NotFound,
            PutError::Exists(_) | PutError::KeyTaken { .. } => Exit::Failed,
            PutError::KeyTwice { .. }
            | PutError::ReadsAsTarget { .. }
            | PutError::ReservedName { .. }
            | PutError::Labels { .. } => Exit::Usage,
        };
        Self::new(exit, clean(&error.to_string()))
    }
}

/// Why an update was refused by what the caller wanted of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Refused(pub(super) String);

impl From<UpdateError<Refused>> for Stop {
    fn from(error: UpdateError<Refused>) -> Self {
        match error {
            UpdateError::NoSuch(id) => no_such(&id),
            UpdateError::Refused(Refused(why)) => Self::usage(clean(&why)),
            UpdateError::Put(error) => error.into(),
        }
    }
}

impl From<RemoveError> for Stop {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Store(error) => error.into(),
            RemoveError::FromNode(error) => error.into(),
            RemoveError::NoSuch(id) => no_such(&id),
            error @ (RemoveError::NotAdmitted(_) | RemoveError::NotAllowed(_)) => {
                Self::denied(clean(&error.to_string()))
            }
            error @ RemoveError::RoleInUse { .. } => {
                Self::new(Exit::Failed, clean(&error.to_string()))
            }
        }
    }
}

pub(crate) fn no_such(id: &ObjectId) -> Stop {
    let list = match id {
        ObjectId::Role(_) => "get roles",
        ObjectId::User(_) => "users ls",
        ObjectId::Node(_) => "nodes ls",
        ObjectId::Lock(_) => "locks ls",
        ObjectId::Token(_) => "tokens ls",
        ObjectId::MonitoringRule(_) => "get access_monitoring_rules --format text",
        ObjectId::Resource(kind, _) => {
            return Stop::not_found(format!(
                "there is no {}; `get {kind} --format text` shows all",
                clean(&id.to_string())
            ));
        }
    };
    Stop::not_found(format!(
        "there is no {}; `{list}` shows all",
        clean(&id.to_string())
    ))
}

impl<I: CommandIo> Run<'_, I> {
    pub(super) async fn remove(&mut self, id: ObjectId) -> Ended {
        self.require_on(AdminVerb::Delete, &self.ctx.state.view(), &id)?;
        let text = format!("{id} removed");
        self.ctx.state.remove(&self.by(), vec![id]).await?;
        self.print(&text).await?;
        Ok(Exit::Done)
    }

    pub(super) async fn say_stored(&mut self, stored: &[Stored]) -> Ended {
        let lines: Vec<String> = stored
            .iter()
            .map(|stored| {
                let done = match stored.written {
                    Written::Created => "created",
                    Written::Replaced => "replaced",
                    Written::Unchanged => "unchanged",
                };
                format!("{} {done}", self.titled(&stored.id))
            })
            .collect();
        self.print(&lines.join("\n")).await?;
        self.say_warnings(stored).await?;
        Ok(Exit::Done)
    }

    pub(super) async fn say_updated(&mut self, stored: &Stored) -> Ended {
        self.print(&format!("{} updated", self.titled(&stored.id)))
            .await?;
        self.say_warnings(std::slice::from_ref(stored)).await?;
        Ok(Exit::Done)
    }

    /// A node by its name beside its UUID, anything else as it is.
    fn titled(&self, id: &ObjectId) -> String {
        match id {
            ObjectId::Role(_)
            | ObjectId::User(_)
            | ObjectId::Lock(_)
            | ObjectId::Token(_)
            | ObjectId::MonitoringRule(_)
            | ObjectId::Resource(..) => id.to_string(),
            ObjectId::Node(uuid) => match self.ctx.state.view().node(uuid) {
                Some(node) => format!("node `{}` ({uuid})", node.name),
                None => id.to_string(),
            },
        }
    }

    pub(crate) async fn say_warnings(&mut self, stored: &[Stored]) -> Result<(), Stop> {
        for warning in stored.iter().flat_map(|stored| &stored.warnings) {
            self.note(&format!("WARNING: {}", clean(warning))).await?;
        }
        Ok(())
    }
}

pub(super) fn field(label: &str, value: &str) -> String {
    format!("{:<13}{}", format!("{label}:"), clean(value))
        .trim_end()
        .to_owned()
}

pub(super) fn joined<'a, T: ToString + 'a>(items: impl IntoIterator<Item = &'a T>) -> String {
    items
        .into_iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}
