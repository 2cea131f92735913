//! Exit statuses, as `sysexits.h` has them; ssh passes them through to the user's shell.

use anteroom_ca::node::CertifyError;
use anteroom_core::request::FilingError;

use crate::authority::Unavailable;
use crate::state::{FileError, IssueError};
use crate::store::StoreError;

/// How a command or a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it was done.
    Done,
    /// 1: it failed for a reason of its own.
    Failed,
    /// 64: the command line is wrong.
    Usage,
    /// 66: what it names does not exist, as far as the caller may know.
    NotFound,
    /// 69: a node or the database cannot be reached.
    Unavailable,
    /// 75: still pending, expired or out of time; trying again makes sense.
    Pending,
    /// 77: denied.
    Denied,
    /// 78: the configuration is wrong.
    Config,
    /// 130: interrupted by Ctrl-C before anything was filed, as a shell reports it (128 + SIGINT).
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::NotFound => 66,
            Exit::Unavailable => 69,
            Exit::Pending => 75,
            Exit::Denied => 77,
            Exit::Config => 78,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}

/// The exit status that an error means; each error is mapped once, here.
pub trait Exits {
    /// How whatever failed with this error ends.
    fn exit(&self) -> Exit;
}

impl Exits for StoreError {
    fn exit(&self) -> Exit {
        match self {
            StoreError::Unavailable(_) | StoreError::Stopped => Exit::Unavailable,
            StoreError::Conflict(_) => Exit::Failed,
            StoreError::Unreadable { .. } | StoreError::Unwritable { .. } => Exit::Failed,
        }
    }
}

impl Exits for Unavailable {
    fn exit(&self) -> Exit {
        Exit::Unavailable
    }
}

impl Exits for FileError {
    fn exit(&self) -> Exit {
        match self {
            FileError::Refused(refused) => refused.exit(),
            FileError::TooOften { .. } => Exit::Failed,
            FileError::NotAdmitted(_) | FileError::FromNode(_) => Exit::Denied,
            FileError::Store(error) => error.exit(),
        }
    }
}

impl Exits for FilingError {
    fn exit(&self) -> Exit {
        match self {
            FilingError::Refused(_)
            | FilingError::NotAllowed
            | FilingError::NotGranted(_)
            | FilingError::KubeKinds { .. }
            | FilingError::CertificateEnding
            | FilingError::RoleNotSearchable(_)
            | FilingError::LoginNotRequestable { .. } => Exit::Denied,
            FilingError::RoleNotRequestable(_) | FilingError::UnknownResource(_) => Exit::NotFound,
            FilingError::NothingWanted
            | FilingError::RoleDoesNotHelp(_)
            | FilingError::RolesConflict(_)
            | FilingError::TooManyResources { .. }
            | FilingError::ResourcesTooLong { .. }
            | FilingError::ReasonTooLong { .. }
            | FilingError::ReasonRequired { .. }
            | FilingError::TooManyReviewers { .. }
            | FilingError::StartInPast { .. }
            | FilingError::StartTooFar { .. }
            | FilingError::ScopeWithoutResource
            | FilingError::ScopeCommand { .. }
            | FilingError::StartsAfterEnd { .. } => Exit::Usage,
            FilingError::TooManyPending { .. }
            | FilingError::PendingWithoutReason(_)
            | FilingError::AnnotationsTooLong { .. }
            | FilingError::Reachable(_)
            | FilingError::RoleHeld(_) => Exit::Failed,
            // The enum is open to what later rules refuse.
            _ => Exit::Failed,
        }
    }
}

impl Exits for IssueError {
    fn exit(&self) -> Exit {
        match self {
            IssueError::NotPermitted(_)
            | IssueError::NotAdmitted(_)
            | IssueError::NotAllowed(_)
            | IssueError::FromNode(_)
            | IssueError::KeyLocked { .. }
            | IssueError::Certify(CertifyError::NotDirect) => Exit::Denied,
            IssueError::Clock(_) | IssueError::Authority(_) => Exit::Unavailable,
            IssueError::Certify(_) | IssueError::Host(_) => Exit::Failed,
            IssueError::Store(error) => error.exit(),
        }
    }
}
