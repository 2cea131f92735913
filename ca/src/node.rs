//! Access certificates: one login on one node, from a permit and from nothing else.
//!
//! A stock sshd ignores extensions that it does not know, so what limits the certificate is its principal,
//! `LOGIN@NODE_UUID`, and the critical options `source-address` and, under a grant for one command, `force-command`:
//! sshd then runs that command, whatever is asked for. The extensions say what the session may do.

mod probe;
mod verify;

use anteroom_core::id::{ClusterName, ResourceId, SessionId};
use anteroom_core::policy::{Capabilities, Capability, Permit};
use rand::CryptoRng;
use ssh_key::PublicKey;
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::cert::{BACKDATE, Certificate, Class, Draft, Extension, SignError};
use crate::key::NodeCa;
use crate::serial::Serial;
use crate::source::SourceAddresses;
use crate::time_of_issue::IssueTime;

pub use probe::{Question, probe};
pub use verify::{Conditions, Refused, Rights, VerifiedAccess, verify};

/// What an access certificate needs besides the permit and the key.
#[derive(Debug, Clone)]
pub struct Terms<'a> {
    /// The cluster, which is part of the node's resource ID.
    pub cluster: &'a ClusterName,
    /// The session that will use it; the node's log names it.
    pub session: SessionId,
    /// The number under which the issuance is recorded.
    pub serial: Serial,
    /// Where the node will see us coming from.
    pub source_addresses: &'a SourceAddresses,
    /// The time of issuing.
    pub at: IssueTime,
}

/// Certifies `subject`, an ephemeral key, for the login and node that `permit` names.
///
/// It begins a minute before now, lives two minutes in all, and ends no later than the permit (at the whole
/// second before, as certificates have no smaller unit).
///
/// # Errors
/// [`CertifyError::PermitEnded`] if the permit is over; [`CertifyError::Sign`] if the linter holds it back.
pub fn certify(
    permit: &Permit,
    subject: &PublicKey,
    terms: &Terms<'_>,
    ca: &NodeCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyError> {
    let key_id = key_id(permit, terms.session);
    sign(Class::Access, key_id, permit, subject, terms, ca, rng)
}

/// Certifies `subject`, a key of the user's own, for the login and node that `permit` names: for a
/// connection of hers that does not go through the proxy. Whether her roles let her is in the permit
/// ([`Capabilities::direct`]).
///
/// It lives five minutes in all, and ends no later than the permit. Nothing but what sshd enforces
/// binds the session: forwarding is in it only if both directions are allowed, since sshd does not
/// tell them apart.
///
/// # Errors
/// As [`certify`]; [`CertifyError::NotDirect`] if the permit does not allow it.
pub fn certify_direct(
    permit: &Permit,
    subject: &PublicKey,
    terms: &Terms<'_>,
    ca: &NodeCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyError> {
    let may = permit.capabilities();
    if !may.direct.is_allowed() || !may.file_copy.is_allowed() {
        return Err(CertifyError::NotDirect);
    }
    let key_id = key_id(permit, terms.session);
    sign(Class::Direct, key_id, permit, subject, terms, ca, rng)
}

fn sign(
    class: Class,
    key_id: String,
    permit: &Permit,
    subject: &PublicKey,
    terms: &Terms<'_>,
    ca: &NodeCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyError> {
    let node = permit.node().id;
    let resource = ResourceId::node(terms.cluster.clone(), node);
    let draft = Draft {
        class,
        subject,
        serial: terms.serial,
        key_id,
        principals: vec![format!("{}@{node}", permit.login())],
        valid_before: valid_before(class, permit, terms.at)?,
        source_address: Some(terms.source_addresses.to_string()),
        force_command: permit.scope().command().map(str::to_owned),
        extensions: extensions(class, permit.capabilities(), &resource),
    };
    Ok(draft.sign(terms.at, ca.signer(), rng)?)
}

/// Why no access certificate was issued.
#[derive(Debug, Error)]
pub enum CertifyError {
    /// The permit is over, or ends within this second.
    #[error("the access ended at {ended}, now it is {now}")]
    PermitEnded {
        /// The permit's end.
        ended: OffsetDateTime,
        /// The time of issuing.
        now: OffsetDateTime,
    },
    /// No role that allows the access lets it be used directly, or one forbids what only the proxy can
    /// keep from happening.
    #[error(
        "no role that grants it has `direct: true`, or one has `ssh_file_copy: false`, which is kept on the proxy only"
    )]
    NotDirect,
    /// The linter or the signer refused.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// `alice req=… sess=…`, without `req=` under standing access.
fn key_id(permit: &Permit, session: SessionId) -> String {
    match permit.request() {
        Some(request) => format!("{} req={request} sess={session}", permit.user()),
        None => format!("{} sess={session}", permit.user()),
    }
}

fn valid_before(
    class: Class,
    permit: &Permit,
    at: IssueTime,
) -> Result<OffsetDateTime, CertifyError> {
    let latest = at.now() + class.max_lifetime() - Duration::seconds(BACKDATE.cast_signed());
    let Some(ended) = permit.ends() else {
        return Ok(latest);
    };
    // Whole seconds on both sides: a permit that ends within this second leaves nothing to certify.
    if ended.unix_timestamp() <= at.now().unix_timestamp() {
        return Err(CertifyError::PermitEnded {
            ended,
            now: at.now(),
        });
    }
    Ok(latest.min(ended))
}

/// What sshd is to allow. Forwarding is one extension for `-L` and `-R` alike; the bridge tells them apart.
fn extensions(class: Class, may: &Capabilities, resource: &ResourceId) -> Vec<(Extension, String)> {
    let forwarding = match (may.local_forwarding, may.remote_forwarding) {
        (Capability::Allowed, Capability::Allowed) => Capability::Allowed,
        (Capability::Refused, Capability::Refused) => Capability::Refused,
        // No bridge stands between a direct certificate and its sshd.
        (Capability::Allowed, Capability::Refused) | (Capability::Refused, Capability::Allowed)
            if class == Class::Direct =>
        {
            Capability::Refused
        }
        (Capability::Allowed, Capability::Refused) | (Capability::Refused, Capability::Allowed) => {
            Capability::Allowed
        }
    };
    let flags = [
        (Extension::Pty, may.pty),
        (Extension::PortForwarding, forwarding),
        (Extension::AgentForwarding, may.agent_forwarding),
        (Extension::X11Forwarding, may.x11_forwarding),
    ];
    let allowed = flags
        .into_iter()
        .filter(|(_, capability)| capability.is_allowed());
    let resources = serde_json::Value::from(vec![resource.to_string()]).to_string();
    let own = (Extension::AllowedResources, resources);
    allowed
        .map(|(extension, _)| (extension, String::new()))
        .chain([own])
        .collect()
}
