//! From a draft to a certificate: drafting, signing, and what of it leaves.
//!
//! [`Certificate`] has private fields and `Draft::sign` is its one maker, so nothing leaves this crate that
//! the linter (`lint`) has not read, in the very bytes that leave.

mod lint;

use rand::CryptoRng;
use sha2::{Digest, Sha256};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, Certificate as Wire, PublicKey, Signature};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::authority::{Pen, Signer, ToSign};
use crate::serial::Serial;
use crate::time_of_issue::IssueTime;
use lint::lint;

pub use lint::LintError;

/// An OpenSSH certificate (PROTOCOL.certkeys) that this crate has signed and read over.
///
/// The caller commits its issuance row before it leaves the process: that is what [`Certificate::sha256`]
/// and [`Certificate::serial`] are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    wire: Wire,
    blob: Vec<u8>,
    line: String,
    serial: Serial,
    valid_before: OffsetDateTime,
}

impl Certificate {
    /// The certificate as SSH libraries take it.
    pub fn as_ssh(&self) -> &Wire {
        &self.wire
    }

    /// As [`Certificate::as_ssh`], by value.
    pub fn into_ssh(self) -> Wire {
        self.wire
    }

    /// The bytes that go over the wire.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// The line of a `-cert.pub` file, without line end.
    pub fn to_openssh(&self) -> &str {
        &self.line
    }

    /// SHA-256 of [`Certificate::blob`], for the issuance row.
    pub fn sha256(&self) -> [u8; 32] {
        Sha256::digest(&self.blob).into()
    }

    /// The serial number.
    pub fn serial(&self) -> Serial {
        self.serial
    }

    /// The key ID, which the node's sshd writes to its log.
    pub fn key_id(&self) -> &str {
        self.wire.key_id()
    }

    /// When it ends; at that second it is over.
    pub fn valid_before(&self) -> OffsetDateTime {
        self.valid_before
    }
}

/// When a probe is valid, in seconds from now; it may be over, or begin later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Window {
    /// The two ends, in seconds since 1970.
    fn at(self, now: u64) -> Option<(u64, u64)> {
        let (from, until) = (
            now.checked_add_signed(self.from)?,
            now.checked_add_signed(self.until)?,
        );
        Some((from, until))
    }
}

/// What a certificate is for; each class has rules of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// One login on one node, signed by the node authority.
    Access,
    /// The same in a person's hand, for direct use.
    Direct,
    /// A question to a node: never used, and of no use.
    Probe(Window),
    /// A person, signed by the user authority.
    Identity,
    /// The proxy's own host certificate.
    Proxy,
    /// The inner server behind one ProxyJump channel.
    Inner,
    /// A node's host certificate.
    Node,
}

impl Class {
    fn cert_type(self) -> CertType {
        match self {
            Self::Access | Self::Direct | Self::Probe(_) | Self::Identity => CertType::User,
            Self::Proxy | Self::Inner | Self::Node => CertType::Host,
        }
    }

    /// The longest time between `valid_after` and `valid_before`.
    pub(crate) fn max_lifetime(self) -> Duration {
        match self {
            // The minute before now is part of it.
            Self::Access => Duration::minutes(2),
            // Long enough for a person to connect; the proxy does not see when it is used.
            Self::Direct => Duration::minutes(5),
            // More than any session: the roles' `max_session_ttl` and the configuration say less.
            Self::Identity => Duration::days(7),
            // A clock that was never set is further off than this, and found by other means.
            Self::Probe(_) => Duration::days(31),
            // Checked once, when the inner connection begins: a rekey compares with the key seen then.
            Self::Inner => Duration::hours(1),
            // Renewed long before; a node without an agent is renewed by hand.
            Self::Proxy | Self::Node => Duration::days(30),
        }
    }

    fn may_carry_extension(self, name: &str) -> bool {
        match self {
            Self::Access | Self::Direct => Extension::ALL
                .iter()
                .any(|extension| extension.name() == name),
            // Read and compared as a whole in `lint_options`.
            Self::Identity => true,
            Self::Probe(_) | Self::Proxy | Self::Inner | Self::Node => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Access => "an access certificate",
            Self::Direct => "a certificate for direct use",
            Self::Probe(_) => "a question to a node",
            Self::Identity => "an identity certificate",
            Self::Proxy => "the proxy's host certificate",
            Self::Inner => "an inner server's host certificate",
            Self::Node => "a node's host certificate",
        }
    }
}

/// Every extension an access certificate can have. `permit-user-rc` is not among them: `~/.ssh/rc` runs a
/// program before the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extension {
    Pty,
    PortForwarding,
    AgentForwarding,
    X11Forwarding,
    /// Ours: a JSON list of resource IDs.
    AllowedResources,
    /// One of those that identity certificates have beside these; see `user::claims`.
    Named(String),
}

impl Extension {
    const ALL: [Self; 5] = [
        Self::Pty,
        Self::PortForwarding,
        Self::AgentForwarding,
        Self::X11Forwarding,
        Self::AllowedResources,
    ];

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Pty => "permit-pty",
            Self::PortForwarding => "permit-port-forwarding",
            Self::AgentForwarding => "permit-agent-forwarding",
            Self::X11Forwarding => "permit-X11-forwarding",
            Self::AllowedResources => "allowed-resources@anteroom",
            Self::Named(name) => name,
        }
    }
}

/// Where the authority's signature is wanted; not yet a certificate.
pub(crate) struct Draft<'a> {
    pub(crate) class: Class,
    pub(crate) subject: &'a PublicKey,
    pub(crate) serial: Serial,
    pub(crate) key_id: String,
    pub(crate) principals: Vec<String>,
    pub(crate) valid_before: OffsetDateTime,
    pub(crate) source_address: Option<String>,
    /// The one command, where the permit is for no more.
    pub(crate) force_command: Option<String>,
    pub(crate) extensions: Vec<(Extension, String)>,
}

impl Draft<'_> {
    /// Signs, reads the result over, and only then hands it out.
    pub(crate) fn sign(
        self,
        at: IssueTime,
        ca: &Signer,
        rng: &mut impl CryptoRng,
    ) -> Result<Certificate, SignError> {
        let (class, serial) = (self.class, self.serial);
        let command = self.force_command.clone();
        let pen = Pen::of(ca);
        let signed = match self.build(at, rng)?.sign(&pen) {
            Ok(signed) => signed,
            Err(error) => {
                return Err(pen.wanted().map_or(error.into(), SignError::Wanted));
            }
        };
        let blob = signed.to_bytes()?;
        let wire = Wire::from_bytes(&blob)?;
        lint(
            class,
            command.as_deref(),
            &wire,
            blob.len(),
            at,
            ca.public_key(),
        )?;
        let line = wire.to_openssh()?;
        let valid_before = from_seconds(wire.valid_before()).ok_or(LintError::Lifetime {
            class: class.name(),
        })?;
        Ok(Certificate {
            wire,
            blob,
            line,
            serial,
            valid_before,
        })
    }

    fn build(self, at: IssueTime, rng: &mut impl CryptoRng) -> Result<Builder, SignError> {
        let mut nonce = vec![0; NONCE];
        rng.fill_bytes(&mut nonce);
        let ended = LintError::Lifetime {
            class: self.class.name(),
        };
        let valid_before = u64::try_from(self.valid_before.unix_timestamp()).map_err(|_| ended)?;
        let valid_after = match self.class {
            Class::Probe(window) => {
                window
                    .at(at.seconds())
                    .ok_or(LintError::Lifetime {
                        class: self.class.name(),
                    })?
                    .0
            }
            Class::Access
            | Class::Direct
            | Class::Identity
            | Class::Proxy
            | Class::Inner
            | Class::Node => at.seconds().saturating_sub(BACKDATE),
        };
        let mut builder = Builder::new(
            nonce,
            self.subject.key_data().clone(),
            valid_after,
            valid_before,
        )?;
        builder
            .serial(self.serial.get())?
            .key_id(self.key_id)?
            .cert_type(self.class.cert_type())?;
        if self.principals.is_empty() {
            // The builder would refuse as well; a certificate without principals opens every door there is.
            return Err(LintError::PrincipalCount { found: 0 }.into());
        }
        for principal in self.principals {
            builder.valid_principal(principal)?;
        }
        // In the order of their names, as sshd wants them.
        if let Some(command) = self.force_command {
            builder.critical_option(FORCE_COMMAND, command)?;
        }
        if let Some(addresses) = self.source_address {
            builder.critical_option(SOURCE_ADDRESS, addresses)?;
        }
        for (extension, value) in self.extensions {
            builder.extension(extension.name(), value)?;
        }
        Ok(builder)
    }
}

/// Why a draft did not become a certificate. Either is a mistake of ours or of the configuration.
#[derive(Debug, Error)]
pub enum SignError {
    /// The linter found a fault.
    #[error("the certificate was not issued: {0}")]
    Lint(#[from] LintError),
    /// The authority's key is elsewhere, and this has to be signed there first.
    #[error("the certificate has to be signed by an authority whose key is elsewhere")]
    Wanted(ToSign),
    /// Encoding or signing failed.
    #[error("the certificate could not be signed: {0}")]
    Signature(#[from] ssh_key::Error),
}

/// Whether a key of this kind and size is certified.
pub(crate) fn is_certifiable(key: &KeyData) -> bool {
    // Kinds are let in by name: the enum is another crate's and may grow.
    match key.rsa() {
        Some(rsa) => (MIN_RSA..=MAX_RSA).contains(&rsa.key_size()),
        None => matches!(
            key,
            KeyData::Ed25519(_)
                | KeyData::Ecdsa(_)
                | KeyData::SkEd25519(_)
                | KeyData::SkEcdsaSha2NistP256(_)
        ),
    }
}

/// Whether a signature is made with the key's own algorithm, as sshd wants it: with RSA that is SHA-2
/// (RFC 8332), and never `ssh-rsa`, which is SHA-1.
pub(crate) fn is_algorithm_of(key: &KeyData, signature: &Signature) -> bool {
    if key.rsa().is_some() {
        return matches!(signature.algorithm(), Algorithm::Rsa { hash: Some(_) });
    }
    signature.algorithm() == key.algorithm()
}

/// Why bytes that were presented are not looked at.
pub(crate) enum Unreadable {
    Size { found: usize },
    Malformed,
}

/// The certificate, if the bytes are one in its one spelling and nothing more.
pub(crate) fn read_canonical(blob: &[u8]) -> Result<Wire, Unreadable> {
    let found = blob.len();
    if found > MAX_BYTES {
        return Err(Unreadable::Size { found });
    }
    let cert = Wire::from_bytes(blob).map_err(|_| Unreadable::Malformed)?;
    match cert.to_bytes() {
        Ok(again) if again == blob => Ok(cert),
        Ok(_) | Err(_) => Err(Unreadable::Malformed),
    }
}

pub(crate) fn from_seconds(seconds: u64) -> Option<OffsetDateTime> {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
}

/// Seconds before now at which every certificate begins, for nodes whose clock is a little slow.
pub(crate) const BACKDATE: u64 = 60;

/// SECURITY section 4.
pub(crate) const MAX_PRINCIPALS: usize = 32;

/// REQUESTS section 5: what `verify` accepts.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

pub(crate) const FORCE_COMMAND: &str = "force-command";

/// The command that does nothing, which the login's shell is given where nothing is to be done.
pub(crate) const NOTHING: &str = "/bin/false";

pub(crate) const SOURCE_ADDRESS: &str = "source-address";

/// Bytes; as many as OpenSSH uses.
const NONCE: usize = 32;

/// Bits.
const MIN_RSA: u32 = 2048;

const MAX_RSA: u32 = 8192;
