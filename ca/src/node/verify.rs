//! The verifier of access certificates, for the node agent: it stands where a stock sshd has
//! `TrustedUserCAKeys`, `AuthorizedPrincipalsCommand` and `RevokedKeys`. Never laxer than that sshd.

use std::net::IpAddr;

use anteroom_core::id::{NodeId, ResourceId, UserName};
use ssh_key::certificate::CertType;
use ssh_key::public::KeyData;
use ssh_key::{Certificate as Wire, PublicKey};
use thiserror::Error;
use time::OffsetDateTime;

use crate::cert::{
    Extension, FORCE_COMMAND, MAX_BYTES, SOURCE_ADDRESS, Unreadable, is_algorithm_of,
    is_certifiable, read_canonical,
};
use crate::krl::Revoked;
use crate::source::SourceAddresses;

/// Under which conditions an access certificate is presented.
#[derive(Debug, Clone, Copy)]
pub struct Conditions<'a> {
    /// The node that is asked.
    pub node: NodeId,
    /// The login that is asked for.
    pub login: &'a str,
    /// The node authorities that are trusted now.
    pub authorities: &'a [PublicKey],
    /// What is not to be let in, whoever signed it.
    pub revoked: &'a Revoked,
    /// The node's own time.
    pub now: OffsetDateTime,
    /// Where it comes from; what comes through the node's tunnel counts as coming from loopback.
    pub from: IpAddr,
}

/// A certificate that opens this login on this node. Only [`verify`] makes one; that its holder also has
/// the certified key is for the SSH layer to know, which asks only after it has verified the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAccess {
    key_id: String,
    serial: u64,
    force_command: Option<String>,
    may: Rights,
}

/// What a session may do, by OpenSSH's own extensions (PROTOCOL.certkeys).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// `permit-pty`.
    pub pty: bool,
    /// `permit-port-forwarding`: `-L` and `-R`.
    pub port_forwarding: bool,
    /// `permit-agent-forwarding`.
    pub agent_forwarding: bool,
    /// `permit-X11-forwarding`.
    pub x11_forwarding: bool,
}

impl VerifiedAccess {
    /// The key ID: who, by which request, in which session. Untrusted text where the certificate was
    /// signed by hand.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The person, where the key ID names one as certificates of a proxy do: `alice req=… sess=…`.
    pub fn person(&self) -> Option<UserName> {
        let (name, rest) = self.key_id.split_once(' ')?;
        let named = rest.starts_with("sess=") || rest.starts_with("req=");
        named.then(|| UserName::parse(name).ok()).flatten()
    }

    /// The serial number; 0 in one that was signed by hand without.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// The one command that it opens, whatever is asked for.
    pub fn force_command(&self) -> Option<&str> {
        self.force_command.as_deref()
    }

    /// What the session may do.
    pub fn rights(&self) -> Rights {
        self.may
    }
}

/// Why a certificate opens nothing here: for the node's log. On the wire it is one answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Longer than a certificate of ours can be.
    #[error("it has {found} bytes, at most {MAX_BYTES} are looked at")]
    Size {
        /// How many it has.
        found: usize,
    },
    /// Not a certificate, or bytes are left over, or it is not written in the one way there is.
    #[error("it is malformed")]
    Malformed,
    /// A host's.
    #[error("it is not a user certificate")]
    NotForUsers,
    /// Not by a node authority of this cluster.
    #[error("it is not signed by a node CA that this node trusts")]
    ForeignAuthority,
    /// Changed after it was signed.
    #[error("its signature is wrong")]
    Signature,
    /// A key that is not taken here.
    #[error("the key in it is too weak, or of a kind whose use cannot be verified here")]
    Subject,
    /// It was taken back.
    #[error("it is on the revocation list")]
    Revoked,
    /// Not valid yet.
    #[error("it is valid from second {from}, now is {now} (since 1970): compare the clocks")]
    NotYet {
        /// Its beginning.
        from: u64,
        /// This machine's time.
        now: i64,
    },
    /// Over.
    #[error("it ended at second {until}, now is {now} (since 1970): compare the clocks")]
    Ended {
        /// Its end.
        until: u64,
        /// This machine's time.
        now: i64,
    },
    /// For another login or node, or for more than one.
    #[error("its principals are not exactly `{wanted}`")]
    Principals {
        /// What opens this login here.
        wanted: String,
    },
    /// An option or extension is unknown or says something odd.
    #[error("an option or extension of it is odd or unknown: {0}")]
    Options(String),
    /// To be used from elsewhere.
    #[error("it may not be used from {0}")]
    Source(IpAddr),
    /// Restricted to other resources.
    #[error("its allowed resources do not include this node and login")]
    Resources,
}

/// Verifies the bytes of a certificate that is presented to a node.
///
/// Like sshd's, this reading of options is closed (an unknown critical option refuses) and its reading of
/// extensions is open, except for ours: one that this version does not know may be a limit.
///
/// # Errors
/// The first reason found.
pub fn verify(blob: &[u8], conditions: &Conditions<'_>) -> Result<VerifiedAccess, Refused> {
    let cert = read_canonical(blob).map_err(|error| match error {
        Unreadable::Size { found } => Refused::Size { found },
        Unreadable::Malformed => Refused::Malformed,
    })?;
    check_signature(&cert, conditions.authorities)?;
    if !is_certifiable(cert.public_key()) || is_security_key(cert.public_key()) {
        return Err(Refused::Subject);
    }
    if conditions.revoked.holds(&cert) {
        return Err(Refused::Revoked);
    }
    check_time(&cert, conditions.now)?;
    let wanted = format!("{}@{}", conditions.login, conditions.node);
    if cert.valid_principals() != [wanted.as_str()] {
        return Err(Refused::Principals { wanted });
    }
    let force_command = options(&cert, conditions.from)?;
    let may = extensions(&cert, conditions)?;
    Ok(VerifiedAccess {
        key_id: cert.key_id().to_owned(),
        serial: cert.serial(),
        force_command,
        may,
    })
}

/// sshd asks a security key to prove that its owner touched it. The SSH library does not show that, so
/// such keys do not count here.
fn is_security_key(key: &KeyData) -> bool {
    matches!(key, KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_))
}

fn check_signature(cert: &Wire, authorities: &[PublicKey]) -> Result<(), Refused> {
    if cert.cert_type() != CertType::User {
        return Err(Refused::NotForUsers);
    }
    // Equality of keys: an authority that is itself certified is another blob, and equal to none.
    let by = cert.signature_key();
    if !authorities.iter().any(|known| known.key_data() == by) {
        return Err(Refused::ForeignAuthority);
    }
    if !is_algorithm_of(by, cert.signature()) {
        return Err(Refused::Signature);
    }
    cert.verify_signature().map_err(|_| Refused::Signature)
}

/// Half-open: valid at its beginning, over at its end.
fn check_time(cert: &Wire, now: OffsetDateTime) -> Result<(), Refused> {
    let now = now.unix_timestamp();
    let (from, until) = (cert.valid_after(), cert.valid_before());
    // Before 1970 nothing is valid.
    let seconds = u64::try_from(now).map_err(|_| Refused::NotYet { from, now })?;
    if seconds < from {
        return Err(Refused::NotYet { from, now });
    }
    if seconds >= until {
        return Err(Refused::Ended { until, now });
    }
    Ok(())
}

/// The critical options: each is obeyed or refuses. The forced command, if there is one.
fn options(cert: &Wire, from: IpAddr) -> Result<Option<String>, Refused> {
    let mut command = None;
    for (name, value) in cert.critical_options().iter() {
        match name.as_str() {
            FORCE_COMMAND if !value.trim().is_empty() && !value.contains('\0') => {
                command = Some(value.clone());
            }
            SOURCE_ADDRESS => {
                let blocks: Vec<_> = value.split(',').collect();
                let blocks = SourceAddresses::parse(&blocks)
                    .map_err(|_| Refused::Options(SOURCE_ADDRESS.to_owned()))?;
                if !blocks.contains(from) {
                    return Err(Refused::Source(from));
                }
            }
            other => return Err(odd(other)),
        }
    }
    Ok(command)
}

fn extensions(cert: &Wire, conditions: &Conditions<'_>) -> Result<Rights, Refused> {
    let mut may = Rights {
        pty: false,
        port_forwarding: false,
        agent_forwarding: false,
        x11_forwarding: false,
    };
    for (name, value) in cert.extensions().iter() {
        let flag = match name.as_str() {
            "permit-pty" => Some(&mut may.pty),
            "permit-port-forwarding" => Some(&mut may.port_forwarding),
            "permit-agent-forwarding" => Some(&mut may.agent_forwarding),
            "permit-X11-forwarding" => Some(&mut may.x11_forwarding),
            // Known to sshd as well, and without effect here: no rc file is ever run, and no security
            // key let in.
            "permit-user-rc" | "no-touch-required" if value.is_empty() => None,
            name if name == Extension::AllowedResources.name() => {
                check_resources(value, conditions)?;
                None
            }
            name if name.ends_with("@anteroom") || is_known(name) => return Err(odd(name)),
            _ => None,
        };
        match flag {
            Some(flag) if value.is_empty() => *flag = true,
            Some(_) => return Err(odd(name)),
            None => {}
        }
    }
    Ok(may)
}

/// Extensions of OpenSSH's that have no value.
fn is_known(name: &str) -> bool {
    matches!(name, "permit-user-rc" | "no-touch-required")
}

/// The list is never empty, and one of its entries is this node, for this login.
fn check_resources(value: &str, conditions: &Conditions<'_>) -> Result<(), Refused> {
    let ids: Vec<ResourceId> = serde_json::from_str(value)
        .map_err(|_| Refused::Options(Extension::AllowedResources.name().to_owned()))?;
    let includes = |id: &ResourceId| {
        id.node_id() == Some(conditions.node)
            && id
                .logins()
                .is_none_or(|logins| logins.iter().any(|l| l.as_str() == conditions.login))
    };
    match ids.iter().any(includes) {
        true => Ok(()),
        false => Err(Refused::Resources),
    }
}

fn odd(name: &str) -> Refused {
    Refused::Options(name.escape_debug().take(LONGEST_SHOWN).collect())
}

/// Characters of a foreign name in a message.
const LONGEST_SHOWN: usize = 64;
