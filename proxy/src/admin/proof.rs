//! Which commands somebody may give who has not proven all that her roles demand: with a plain key where they
//! demand a certificate, or without the second factor that they demand.

use anteroom_core::policy::{self, Reason};

use super::args::Command;
use super::args::person::Status;
use super::args::requests::Request;
use super::io::{Caller, CommandIo};
use super::run::{Run, Stop};
use crate::say::clean;

/// What a command needs to have been proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// A key: it tells her who she is and what to do.
    AKey,
    /// All but the certificate: it leads to one.
    NoCertificate,
    /// All that her roles demand.
    Everything,
}

fn needs(command: &Command) -> Needs {
    match command {
        Command::Help(_)
        | Command::Mfa(_)
        | Command::Version
        | Command::Status(Status { server: false, .. })
        | Command::Whoami(_)
        | Command::Config(_) => Needs::AKey,
        // The decisions of an administrator by another name.
        Command::Request(Request::Approve(_) | Request::Deny(_)) => Needs::Everything,
        Command::Login(_) | Command::Request(_) | Command::Explain(_) => Needs::NoCertificate,
        Command::Ls(_)
        | Command::Requests(_)
        | Command::Audit(_)
        | Command::Users(_)
        | Command::Nodes(_)
        | Command::Create(_)
        | Command::Get(_)
        | Command::Rm(_)
        | Command::Auth(_)
        | Command::Cert(_)
        | Command::Tokens(_)
        | Command::Sessions(_)
        | Command::Lock(_)
        | Command::Locks(_)
        | Command::Status(Status { server: true, .. }) => Needs::Everything,
    }
}

impl<I: CommandIo> Run<'_, I> {
    /// Refuses a command for which too little was proven, with what to do.
    pub(crate) fn require_proof(&self, command: &Command) -> Result<(), Stop> {
        let Caller::Ssh { identity, .. } = self.caller else {
            return Ok(());
        };
        let lacking = policy::unproven(&self.ctx.state.view(), identity, self.ctx.state.now());
        let Some(reason) = lacking else {
            return Ok(());
        };
        let only_certificate = matches!(
            reason,
            Reason::CertificateDemanded { .. } | Reason::PinDemanded { .. }
        );
        match needs(command) {
            Needs::AKey => Ok(()),
            Needs::NoCertificate if only_certificate => Ok(()),
            Needs::NoCertificate | Needs::Everything => {
                Err(Stop::denied(clean(&reason.as_sentence())))
            }
        }
    }
}
