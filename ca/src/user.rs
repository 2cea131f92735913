//! Identity certificates: what people hold (REQUESTS section 5).
//!
//! Issued from a [`LoginPermit`] and from nothing else; read back by one verifier, [`verify`], whatever the
//! way in. Nodes trust another authority, so that what limits one of these is enforced by proxies, which read
//! its extensions, and never left to an sshd, which does not.

pub(crate) mod claims;
mod verify;

use anteroom_core::policy::{Capabilities, Capability, LoginPermit};
use rand::CryptoRng;
use ssh_key::PublicKey;
use thiserror::Error;

use crate::cert::{Certificate, Class, Draft, Extension, SignError};
use crate::key::UserCa;
use crate::serial::Serial;
use crate::source::SourceAddresses;
use crate::time_of_issue::IssueTime;

pub use verify::{Conditions, Refused, VerifiedIdentity, verify};

/// Certifies the key that `permit` names, on the permit's terms.
///
/// # Errors
/// [`CertifyIdentityError`].
pub fn certify(
    permit: &LoginPermit,
    serial: Serial,
    at: IssueTime,
    ca: &UserCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyIdentityError> {
    let mut subject =
        PublicKey::from_openssh(permit.subject()).map_err(|_| CertifyIdentityError::Subject)?;
    // A comment is no part of a certificate's content, but it would be part of its line.
    subject.set_comment("");
    let claims = permit.claims();
    let mut extensions = permits(permit.capabilities());
    extensions.extend(
        claims::write(claims)
            .into_iter()
            .map(|(name, value)| (Extension::Named(name), value)),
    );
    let draft = Draft {
        class: Class::Identity,
        subject: &subject,
        serial,
        key_id: permit.user().to_string(),
        principals: vec![permit.user().to_string()],
        valid_before: permit.valid_before(),
        force_command: None,
        source_address: claims
            .pinned
            .map(|address| SourceAddresses::local(address).to_string()),
        extensions,
    };
    Ok(draft.sign(at, ca.signer(), rng)?)
}

/// Why no identity certificate was issued.
#[derive(Debug, Error)]
pub enum CertifyIdentityError {
    /// The registered key cannot be read.
    #[error("the key to certify cannot be read; register it again")]
    Subject,
    /// The linter or the signer refused.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl CertifyIdentityError {
    /// Whether it carries more than fits, which the person who asked can do something about.
    pub fn is_too_large(&self) -> bool {
        matches!(
            self,
            Self::Sign(SignError::Lint(crate::cert::LintError::Size { .. }))
        )
    }
}

/// What is allowed under some role. The node's certificate says what is allowed on the node.
fn permits(may: &Capabilities) -> Vec<(Extension, String)> {
    let forwarding = match (may.local_forwarding, may.remote_forwarding) {
        (Capability::Refused, Capability::Refused) => Capability::Refused,
        (Capability::Allowed, _) | (_, Capability::Allowed) => Capability::Allowed,
    };
    let flags = [
        (Extension::Pty, may.pty),
        (Extension::PortForwarding, forwarding),
        (Extension::AgentForwarding, may.agent_forwarding),
        (Extension::X11Forwarding, may.x11_forwarding),
    ];
    let allowed = flags.into_iter().filter(|(_, may)| may.is_allowed());
    allowed.map(|(flag, _)| (flag, String::new())).collect()
}
