//! What the rules refuse, as exit statuses.

use anteroom_core::request::{
    FilingError, OverrideError, ReviewError as Unreviewed, State as RequestState, TransitionError,
};
use anteroom_core::view::FindRequestError;

use crate::admin::run::Stop;
use crate::exit::{Exit, Exits};
use crate::say::clean;
use crate::state::{ApplyError, FileError, ReviewError};

/// The exit status of a wait for `request` in this state.
#[must_use]
pub fn exit_of(state: RequestState) -> Exit {
    match state {
        RequestState::Approved => Exit::Done,
        RequestState::Pending | RequestState::Expired | RequestState::Canceled => Exit::Pending,
        RequestState::Denied | RequestState::Revoked => Exit::Denied,
    }
}

impl From<FileError> for Stop {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Refused(error) => error.into(),
            FileError::TooOften { .. } => Self::by_state(Exit::Failed, error),
            FileError::NotAdmitted(_) | FileError::FromNode(_) => {
                Self::by_state(Exit::Denied, clean(&error.to_string()))
            }
            FileError::Store(error) => error.into(),
        }
    }
}

impl From<FilingError> for Stop {
    fn from(error: FilingError) -> Self {
        Self::by_state(error.exit(), clean(&error.to_string()))
    }
}

impl From<ReviewError> for Stop {
    fn from(error: ReviewError) -> Self {
        let exit = match &error {
            ReviewError::Store(_) => None,
            ReviewError::NoSuch(_) => Some(Exit::NotFound),
            ReviewError::NotAdmitted(_) | ReviewError::FromNode(_) => Some(Exit::Denied),
            ReviewError::Refused(refused) => Some(match refused {
                Unreviewed::NoReviewer(_)
                | Unreviewed::OwnRequest(_)
                | Unreviewed::NotAllowed(_) => Exit::Denied,
                Unreviewed::Lapsed { .. } => Exit::Pending,
                Unreviewed::NotPending { .. } | Unreviewed::AlreadyReviewed(_) => Exit::Failed,
                Unreviewed::ReasonTooLong { .. } | Unreviewed::Terms(_) => Exit::Usage,
                // The enum is open to what later rules refuse.
                _ => Exit::Failed,
            }),
        };
        match (exit, error) {
            (None, ReviewError::Store(error)) => error.into(),
            (exit, error) => {
                Self::by_state(exit.unwrap_or(Exit::Failed), clean(&error.to_string()))
            }
        }
    }
}

impl From<ApplyError> for Stop {
    fn from(error: ApplyError) -> Self {
        let exit = match error {
            ApplyError::Store(error) => return error.into(),
            ApplyError::NoSuch(_) => Exit::NotFound,
            ApplyError::NotAdmitted(_)
            | ApplyError::FromNode(_)
            | ApplyError::NotAllowed { .. } => Exit::Denied,
            ApplyError::Override(OverrideError::NoSuchRole(_)) => Exit::NotFound,
            ApplyError::Override(_) => Exit::Denied,
            ApplyError::Refused(ref refused) => match refused {
                TransitionError::NotYours { .. }
                | TransitionError::OwnRequest(_)
                | TransitionError::OwnDelegator(..)
                | TransitionError::WrongActor { .. } => Exit::Denied,
                TransitionError::Over { .. } => Exit::Pending,
                TransitionError::Terms(_) => Exit::Usage,
                TransitionError::NotPossible { .. }
                | TransitionError::NotYet { .. }
                | TransitionError::NotHeld(_)
                | TransitionError::AlreadyHeld(_) => Exit::Failed,
                // The enum is open to what later rules refuse.
                _ => Exit::Failed,
            },
        };
        Self::by_state(exit, clean(&error.to_string()))
    }
}

impl From<FindRequestError> for Stop {
    fn from(error: FindRequestError) -> Self {
        let exit = match &error {
            FindRequestError::Malformed(_) | FindRequestError::Ambiguous { .. } => Exit::Usage,
            FindRequestError::Unknown(_) => Exit::NotFound,
            // The enum is open.
            _ => Exit::Failed,
        };
        Self::new(exit, clean(&error.to_string()))
    }
}
