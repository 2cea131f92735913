//! From a draft to a certificate: drafting, signing, and the linter between the signature and the world.
//!
//! [`Certificate`] has private fields and `Draft::sign` is its one maker, so nothing leaves this crate that
//! the linter has not read, in the very bytes that leave. The linter trusts nothing that the drafting code
//! says: it knows the class, the time and the authority, and reads the rest from the bytes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anteroom_core::id::{NodeId, UserName};
use anteroom_core::request::Scope;
use rand::CryptoRng;
use sha2::{Digest, Sha256};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, Certificate as Wire, PublicKey, Signature};
use thiserror::Error;
use time::{Duration, OffsetDateTime};

use crate::authority::{Pen, Signer, ToSign};
use crate::names::HostName;
use crate::serial::Serial;
use crate::time_of_issue::IssueTime;

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

/// The faults for which a certificate is held back.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LintError {
    /// A host certificate for a user, or the other way about.
    #[error("its type does not fit its use as {class}")]
    Type {
        /// What it was for.
        class: &'static str,
    },
    /// None, which opens every door, or too many.
    #[error("it has {found} principals, allowed are 1 to {MAX_PRINCIPALS}")]
    PrincipalCount {
        /// How many there are.
        found: usize,
    },
    /// A principal of a form that does not belong here.
    #[error("its principal `{principal}` does not fit its use as {class}")]
    Principal {
        /// The principal, escaped.
        principal: String,
        /// What it was for.
        class: &'static str,
    },
    /// The same principal twice.
    #[error("its principal `{principal}` stands there twice")]
    DuplicatePrincipal {
        /// The principal, escaped.
        principal: String,
    },
    /// 0, or more than a database column holds.
    #[error("its serial number {found} is not between 1 and 2^63 − 1")]
    Serial {
        /// The number found.
        found: u64,
    },
    /// Empty, too long, or more than a line.
    #[error("its key id is not one line of 1 to {MAX_KEY_ID} bytes")]
    KeyId,
    /// Begins too early or in the future.
    #[error("it begins at {found}, allowed is the minute before {now} (seconds since 1970)")]
    ValidAfter {
        /// Its beginning.
        found: u64,
        /// The time of issuing.
        now: u64,
    },
    /// Ended already, or ends too late.
    #[error("its lifetime is outside what is allowed for {class}")]
    Lifetime {
        /// What it was for.
        class: &'static str,
    },
    /// An option missing, too many, or with an odd value.
    #[error("its critical options do not fit its use as {class}")]
    CriticalOptions {
        /// What it was for.
        class: &'static str,
    },
    /// An extension that is not known here.
    #[error("its extension `{name}` does not fit its use as {class}")]
    Extension {
        /// Name of the extension, escaped.
        name: String,
        /// What it was for.
        class: &'static str,
    },
    /// The key that is certified is too weak, or of a kind that is not certified.
    #[error("the certified key of type {found} is too weak or of a kind that is not certified")]
    Subject {
        /// Type of the key.
        found: String,
    },
    /// The authority would certify itself.
    #[error("the certified key is the authority's own")]
    SelfSigned,
    /// The signature is not that of the authority.
    #[error("its signature is not that of the authority")]
    Signature,
    /// Too many bytes.
    #[error("it has {found} bytes, at most {MAX_BYTES} are allowed")]
    Size {
        /// How many it has.
        found: usize,
    },
}

impl Class {
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

/// Reads over a signed certificate of `size` bytes before it leaves: SECURITY section 4.
fn lint(
    class: Class,
    command: Option<&str>,
    cert: &Wire,
    size: usize,
    at: IssueTime,
    ca: &PublicKey,
) -> Result<(), LintError> {
    if size > MAX_BYTES {
        return Err(LintError::Size { found: size });
    }
    if cert.cert_type() != class.cert_type() {
        return Err(LintError::Type {
            class: class.name(),
        });
    }
    if Serial::new(cert.serial()).is_none() {
        return Err(LintError::Serial {
            found: cert.serial(),
        });
    }
    lint_key_id(cert.key_id())?;
    if class == Class::Identity && cert.valid_principals() != [cert.key_id().to_owned()] {
        return Err(LintError::KeyId);
    }
    lint_principals(class, cert.valid_principals())?;
    lint_times(class, cert, at)?;
    lint_options(class, command, cert)?;
    lint_keys(cert, ca)
}

fn lint_key_id(key_id: &str) -> Result<(), LintError> {
    let fits = !key_id.is_empty() && key_id.len() <= MAX_KEY_ID;
    match fits
        && !key_id
            .chars()
            .any(|c| c.is_control() || LINE_ENDS.contains(&c))
    {
        true => Ok(()),
        false => Err(LintError::KeyId),
    }
}

fn lint_principals(class: Class, principals: &[String]) -> Result<(), LintError> {
    let found = principals.len();
    if found == 0 || found > MAX_PRINCIPALS {
        return Err(LintError::PrincipalCount { found });
    }
    let mut seen = BTreeSet::new();
    for principal in principals {
        let shown = || principal.escape_debug().collect();
        if !is_safe(principal) || !is_of_class(class, principal) {
            return Err(LintError::Principal {
                principal: shown(),
                class: class.name(),
            });
        }
        if !seen.insert(principal) {
            return Err(LintError::DuplicatePrincipal { principal: shown() });
        }
    }
    match (class, principals) {
        (Class::Access | Class::Direct | Class::Probe(_) | Class::Identity | Class::Inner, [_])
        | (Class::Proxy, _) => Ok(()),
        (Class::Access | Class::Direct | Class::Probe(_) | Class::Identity | Class::Inner, _) => {
            Err(LintError::PrincipalCount { found })
        }
        (Class::Node, [first, ..]) if NodeId::parse(first).is_ok() => Ok(()),
        (Class::Node, _) => {
            let principal = principals
                .first()
                .map(|p| p.escape_debug().collect())
                .unwrap_or_default();
            Err(LintError::Principal {
                principal,
                class: class.name(),
            })
        }
    }
}

/// Printable ASCII that means itself to every reader of principals: files that part them by commas and
/// spaces, options in front of them, and patterns.
fn is_safe(principal: &str) -> bool {
    let odd = |byte: u8| !byte.is_ascii_graphic() || b",*?!\"'\\#`$;|&<>(){}[]".contains(&byte);
    !principal.is_empty() && !principal.starts_with('-') && !principal.bytes().any(odd)
}

fn is_of_class(class: Class, principal: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    match class {
        // The login alone, or as in the certificates that are used.
        Class::Probe(_) if principal.bytes().all(plain) => true,
        Class::Probe(_) => is_of_class(Class::Access, principal),
        Class::Access | Class::Direct => principal.split_once('@').is_some_and(|(login, node)| {
            !login.is_empty()
                && login.bytes().all(plain)
                && NodeId::parse(node).is_ok_and(|id| id.to_string() == node)
        }),
        Class::Identity => UserName::parse(principal).is_ok_and(|name| name.as_str() == principal),
        Class::Proxy | Class::Inner | Class::Node => {
            HostName::parse(principal).is_ok_and(|name| name.as_str() == principal)
        }
    }
}

fn lint_times(class: Class, cert: &Wire, at: IssueTime) -> Result<(), LintError> {
    let (from, until, now) = (cert.valid_after(), cert.valid_before(), at.seconds());
    let longest = class.max_lifetime().whole_seconds().unsigned_abs();
    if let Class::Probe(window) = class {
        let asked = window.at(now) == Some((from, until)) && from < until;
        return match asked && until - from <= longest {
            true => Ok(()),
            false => Err(LintError::Lifetime {
                class: class.name(),
            }),
        };
    }
    if from > now || from < now.saturating_sub(BACKDATE) {
        return Err(LintError::ValidAfter { found: from, now });
    }
    match until > now
        && until
            .checked_sub(from)
            .is_some_and(|lifetime| lifetime <= longest)
    {
        true => Ok(()),
        false => Err(LintError::Lifetime {
            class: class.name(),
        }),
    }
}

fn lint_options(class: Class, command: Option<&str>, cert: &Wire) -> Result<(), LintError> {
    let options: Vec<_> = cert
        .critical_options()
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let fits = match class {
        Class::Access | Class::Direct => match (command, options.as_slice()) {
            (None, [(SOURCE_ADDRESS, value)]) => is_block_list(value),
            (Some(only), [(FORCE_COMMAND, forced), (SOURCE_ADDRESS, value)]) => {
                *forced == only && is_command(only) && is_block_list(value)
            }
            (None | Some(_), _) => false,
        },
        // A command that does nothing, always.
        Class::Probe(_) => match options.as_slice() {
            [(FORCE_COMMAND, forced), (SOURCE_ADDRESS, value)] => {
                command == Some(NOTHING) && *forced == NOTHING && is_block_list(value)
            }
            _ => false,
        },
        // Pinned or not, and nothing else: `claims::read` compares it with what the extension says.
        Class::Identity => command.is_none() && crate::user::claims::read(cert).is_ok(),
        Class::Proxy | Class::Inner | Class::Node => options.is_empty() && command.is_none(),
    };
    if !fits {
        return Err(LintError::CriticalOptions {
            class: class.name(),
        });
    }
    match cert
        .extensions()
        .keys()
        .find(|name| !class.may_carry_extension(name))
    {
        None => Ok(()),
        Some(name) => Err(LintError::Extension {
            name: name.escape_debug().collect(),
            class: class.name(),
        }),
    }
}

/// What sshd hands to the login's shell as it stands; an empty one would force nothing.
fn is_command(value: &str) -> bool {
    !value.trim().is_empty() && value.len() <= Scope::COMMAND_LIMIT && !value.contains('\0')
}

fn is_block_list(value: &str) -> bool {
    value.split(',').all(|block| {
        let parts = block.split_once('/');
        parts.is_some_and(|(address, prefix)| {
            address.parse::<IpAddr>().is_ok() && prefix.parse::<u8>().is_ok_and(|p| p > 0)
        })
    })
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

fn lint_keys(cert: &Wire, ca: &PublicKey) -> Result<(), LintError> {
    if !is_certifiable(cert.public_key()) {
        let found = cert.public_key().algorithm().to_string();
        return Err(LintError::Subject { found });
    }
    if cert.public_key() == ca.key_data() {
        return Err(LintError::SelfSigned);
    }
    let signed = cert.signature_key() == ca.key_data()
        && is_algorithm_of(ca.key_data(), cert.signature())
        && cert.verify_signature().is_ok();
    match signed {
        true => Ok(()),
        false => Err(LintError::Signature),
    }
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

const MAX_KEY_ID: usize = 256;

/// What some viewers of logs take for the end of a line, besides control characters.
const LINE_ENDS: [char; 2] = ['\u{2028}', '\u{2029}'];

/// Bytes; as many as OpenSSH uses.
const NONCE: usize = 32;

/// Bits.
const MIN_RSA: u32 = 2048;
const MAX_RSA: u32 = 8192;

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::key::Key;
    use crate::test_rng;

    const NOW: OffsetDateTime = datetime!(2026-11-20 12:00:00.7 UTC);
    const NODE: &str = "b1168402-9340-421a-a344-af66a6675738";
    const ACCESS: &str = "root@b1168402-9340-421a-a344-af66a6675738";

    fn at() -> IssueTime {
        IssueTime::new(NOW, None).unwrap()
    }

    fn ca() -> Key {
        Key::from_seed("ca", &[1; 32])
    }

    fn subject() -> PublicKey {
        Key::from_seed("subject", &[2; 32]).public_key().clone()
    }

    /// A certificate made by hand: as the linter must find it right, but for one change.
    struct Hand {
        class: Class,
        cert_type: CertType,
        subject: PublicKey,
        serial: u64,
        key_id: String,
        principals: Vec<String>,
        from: i64,
        until: i64,
        command: Option<String>,
        options: Vec<(String, String)>,
        extensions: Vec<(String, String)>,
    }

    impl Hand {
        fn access() -> Self {
            Self {
                class: Class::Access,
                cert_type: CertType::User,
                subject: subject(),
                serial: 7,
                key_id: "alice sess=1".to_owned(),
                principals: vec![ACCESS.to_owned()],
                from: -60,
                until: 60,
                command: None,
                options: vec![("source-address".to_owned(), "192.0.2.1/32".to_owned())],
                extensions: vec![("permit-pty".to_owned(), String::new())],
            }
        }

        fn host(class: Class, principals: &[&str]) -> Self {
            Self {
                class,
                cert_type: CertType::Host,
                principals: principals.iter().map(|&p| p.to_owned()).collect(),
                until: 60,
                options: Vec::new(),
                extensions: Vec::new(),
                ..Self::access()
            }
        }

        fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
            change(&mut self);
            self
        }

        fn sign(&self) -> Wire {
            let second =
                |offset: i64| u64::try_from(NOW.unix_timestamp().saturating_add(offset)).unwrap();
            let mut builder = Builder::new(
                [9; 32],
                self.subject.clone(),
                second(self.from),
                second(self.until),
            )
            .unwrap();
            builder
                .serial(self.serial)
                .unwrap()
                .key_id(&self.key_id)
                .unwrap()
                .cert_type(self.cert_type)
                .unwrap();
            if self.principals.is_empty() {
                builder.all_principals_valid().unwrap();
            }
            for principal in &self.principals {
                builder.valid_principal(principal).unwrap();
            }
            for (name, value) in &self.options {
                builder.critical_option(name, value).unwrap();
            }
            for (name, value) in &self.extensions {
                builder.extension(name, value).unwrap();
            }
            builder.sign(ca().private_key()).unwrap()
        }

        fn lint(&self) -> Result<(), LintError> {
            let cert = self.sign();
            lint(
                self.class,
                self.command.as_deref(),
                &cert,
                cert.to_bytes().unwrap().len(),
                at(),
                ca().public_key(),
            )
        }
    }

    #[test]
    fn the_linter_passes_what_is_right() {
        assert_eq!(Hand::access().lint(), Ok(()));
        assert_eq!(Hand::host(Class::Inner, &["iot"]).lint(), Ok(()));
        assert_eq!(
            Hand::host(Class::Proxy, &["access", "example.com"]).lint(),
            Ok(())
        );
        assert_eq!(Hand::host(Class::Node, &[NODE, "iot"]).lint(), Ok(()));
    }

    #[test]
    fn a_certificate_of_the_other_type_is_held_back() {
        let access = Hand::access().with(|c| c.cert_type = CertType::Host).lint();
        let host = Hand::host(Class::Inner, &["iot"])
            .with(|c| c.cert_type = CertType::User)
            .lint();
        assert!(matches!(access, Err(LintError::Type { .. })));
        assert!(matches!(host, Err(LintError::Type { .. })));
    }

    #[test]
    fn a_certificate_for_all_principals_or_too_many_is_held_back() {
        let none = Hand::access().with(|c| c.principals.clear()).lint();
        assert_eq!(none, Err(LintError::PrincipalCount { found: 0 }));
        let names = |count: usize| (0..count).map(|i| format!("n{i}")).collect::<Vec<_>>();
        let proxy = |count| {
            Hand::host(Class::Proxy, &[])
                .with(|c| c.principals = names(count))
                .lint()
        };
        assert_eq!(proxy(32), Ok(()));
        assert_eq!(proxy(33), Err(LintError::PrincipalCount { found: 33 }));
        let two = Hand::access()
            .with(|c| c.principals.push(format!("deploy@{NODE}")))
            .lint();
        assert_eq!(two, Err(LintError::PrincipalCount { found: 2 }));
        let inner = Hand::host(Class::Inner, &["iot", "web"]).lint();
        assert_eq!(inner, Err(LintError::PrincipalCount { found: 2 }));
    }

    #[test]
    fn principals_that_some_reader_takes_for_more_are_held_back() {
        let upper = format!("root@{}", NODE.to_ascii_uppercase());
        for principal in [
            "",
            "root",
            "root@",
            "@",
            "root@iot",
            &format!("@{NODE}"),
            &upper,
            &format!("-root@{NODE}"),
            &format!("a,b@{NODE}"),
            &format!("a b@{NODE}"),
            &format!("*@{NODE}"),
            &format!("r?@{NODE}"),
            &format!("!root@{NODE}"),
            &format!("root\n@{NODE}"),
            &format!("root\0@{NODE}"),
            &format!("root@{NODE} "),
            &format!("root@{NODE},x"),
            &format!("röot@{NODE}"),
            &format!("a@b@{NODE}"),
        ] {
            let found = Hand::access()
                .with(|c| c.principals = vec![principal.to_owned()])
                .lint();
            assert!(
                matches!(found, Err(LintError::Principal { .. })),
                "{principal:?}: {found:?}"
            );
        }
        for principal in [
            "*",
            "*.lan",
            "localhost",
            "127.0.0.1",
            "::1",
            "IOT",
            "-iot",
            "a,b",
            "iot\n",
            "root@iot",
            "iot.",
        ] {
            let found = Hand::host(Class::Inner, &[principal]).lint();
            assert!(
                matches!(found, Err(LintError::Principal { .. })),
                "{principal:?}: {found:?}"
            );
        }
    }

    #[test]
    fn a_nodes_certificate_without_its_uuid_in_front_is_held_back() {
        for principals in [&["iot"][..], &["iot", NODE]] {
            assert!(matches!(
                Hand::host(Class::Node, principals).lint(),
                Err(LintError::Principal { .. })
            ));
        }
    }

    #[test]
    fn a_principal_that_stands_twice_is_held_back() {
        let found = Hand::host(Class::Proxy, &["access", "access"]).lint();
        assert!(matches!(found, Err(LintError::DuplicatePrincipal { .. })));
    }

    #[test]
    fn serial_numbers_that_mean_none_or_do_not_fit_are_held_back() {
        for serial in [0, 1 << 63, u64::MAX] {
            let found = Hand::access().with(|c| c.serial = serial).lint();
            assert_eq!(found, Err(LintError::Serial { found: serial }));
        }
    }

    #[test]
    fn a_key_id_is_one_line_of_at_most_256_bytes() {
        let lint = |key_id: String| Hand::access().with(|c| c.key_id = key_id).lint();
        assert_eq!(lint("a".repeat(256)), Ok(()));
        for bad in [
            String::new(),
            "a".repeat(257),
            "a\nb".into(),
            "a\rb".into(),
            "a\0".into(),
            "a\u{2028}b".into(),
            "\u{1b}[2J".into(),
        ] {
            assert_eq!(lint(bad.clone()), Err(LintError::KeyId), "{bad:?}");
        }
    }

    #[test]
    fn times_outside_the_class_are_held_back() {
        let lint = |class: fn() -> Hand, from, until| {
            class().with(|c| (c.from, c.until) = (from, until)).lint()
        };
        let inner = || Hand::host(Class::Inner, &["iot"]);
        assert!(matches!(
            lint(Hand::access, -61, 59),
            Err(LintError::ValidAfter { .. })
        ));
        assert!(matches!(
            lint(Hand::access, 1, 60),
            Err(LintError::ValidAfter { .. })
        ));
        assert!(matches!(
            lint(Hand::access, -60, 61),
            Err(LintError::Lifetime { .. })
        ));
        assert!(matches!(
            lint(Hand::access, 0, 121),
            Err(LintError::Lifetime { .. })
        ));
        assert!(matches!(
            lint(Hand::access, -60, 0),
            Err(LintError::Lifetime { .. })
        ));
        assert_eq!(lint(Hand::access, 0, 120), Ok(()));
        assert_eq!(lint(Hand::access, -60, 1), Ok(()));
        assert_eq!(lint(inner, -60, 3540), Ok(()));
        assert!(matches!(
            lint(inner, -60, 3541),
            Err(LintError::Lifetime { .. })
        ));
        let forever = Hand::access().with(|c| c.until = i64::MAX).lint();
        assert!(matches!(forever, Err(LintError::Lifetime { .. })));
    }

    #[test]
    fn a_certificate_for_one_command_forces_exactly_that() {
        let lint = |command: Option<&str>, options: &[(&str, &str)]| {
            let options = options.iter().map(|(n, v)| ((*n).into(), (*v).into()));
            let options = options.collect();
            let command = command.map(str::to_owned);
            Hand::access()
                .with(|c| (c.command, c.options) = (command, options))
                .lint()
        };
        let source = ("source-address", "192.0.2.1/32");
        assert_eq!(
            lint(Some("uptime"), &[("force-command", "uptime"), source]),
            Ok(())
        );
        let long = "x".repeat(Scope::COMMAND_LIMIT + 1);
        for (command, options) in [
            (Some("uptime"), &[source][..]),
            (Some("uptime"), &[("force-command", "uptime")]),
            (Some("uptime"), &[("force-command", "uptime "), source]),
            (Some("uptime"), &[("force-command", "id"), source]),
            (None, &[("force-command", "uptime"), source]),
            (Some(""), &[("force-command", ""), source]),
            (Some(" "), &[("force-command", " "), source]),
            (Some(&long), &[("force-command", &long), source]),
        ] {
            assert!(
                matches!(
                    lint(command, options),
                    Err(LintError::CriticalOptions { .. })
                ),
                "{command:?}"
            );
        }
        let host = Hand::host(Class::Inner, &["iot"]).with(|c| c.command = Some("id".into()));
        assert!(matches!(
            host.lint(),
            Err(LintError::CriticalOptions { .. })
        ));
    }

    #[test]
    fn an_access_certificate_has_a_source_address_and_no_other_critical_option() {
        let lint = |options: &[(&str, &str)]| {
            let options = options
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect();
            Hand::access().with(|c| c.options = options).lint()
        };
        assert_eq!(lint(&[("source-address", "192.0.2.0/24,::1/128")]), Ok(()));
        for options in [
            &[][..],
            &[("source-address", "")],
            &[("source-address", "0.0.0.0/0")],
            &[("source-address", "192.0.2.1")],
            &[("source-address", "192.0.2.1/32,")],
            &[("force-command", "true")],
            &[
                ("force-command", "true"),
                ("source-address", "192.0.2.1/32"),
            ],
            &[("source-address", "192.0.2.1/32"), ("verify-required", "")],
        ] {
            assert!(
                matches!(lint(options), Err(LintError::CriticalOptions { .. })),
                "{options:?}"
            );
        }
        let host = Hand::host(Class::Inner, &["iot"])
            .with(|c| c.options = Hand::access().options)
            .lint();
        assert!(matches!(host, Err(LintError::CriticalOptions { .. })));
    }

    #[test]
    fn unknown_extensions_are_held_back_and_hosts_have_none() {
        for name in [
            "permit-user-rc",
            "no-touch-required",
            "roles@anteroom",
            "permit-pty ",
            "",
        ] {
            let found = Hand::access()
                .with(|c| c.extensions = vec![(name.to_owned(), String::new())])
                .lint();
            assert!(
                matches!(found, Err(LintError::Extension { .. })),
                "{name:?}"
            );
        }
        let host = Hand::host(Class::Inner, &["iot"])
            .with(|c| c.extensions = Hand::access().extensions)
            .lint();
        assert!(matches!(host, Err(LintError::Extension { .. })));
    }

    #[test]
    fn the_authority_does_not_certify_itself_nor_weak_keys() {
        let own = Hand::access()
            .with(|c| c.subject = ca().public_key().clone())
            .lint();
        assert_eq!(own, Err(LintError::SelfSigned));
        let weak = PublicKey::from_openssh(include_str!("../tests/keys/rsa1024.pub")).unwrap();
        let weak = Hand::access().with(|c| c.subject = weak).lint();
        assert!(matches!(weak, Err(LintError::Subject { .. })));
        let strong = PublicKey::from_openssh(include_str!("../tests/keys/rsa2048.pub")).unwrap();
        assert_eq!(Hand::access().with(|c| c.subject = strong).lint(), Ok(()));
    }

    #[test]
    fn a_signature_is_of_the_keys_own_algorithm_and_with_rsa_never_sha_1() {
        use ssh_key::HashAlg::{Sha256, Sha512};
        let rsa = PublicKey::from_openssh(include_str!("../tests/keys/rsa2048.pub")).unwrap();
        let with = |hash| Signature::new(Algorithm::Rsa { hash }, vec![1; 256]).unwrap();
        for (hash, is) in [(None, false), (Some(Sha256), true), (Some(Sha512), true)] {
            assert_eq!(is_algorithm_of(rsa.key_data(), &with(hash)), is, "{hash:?}");
        }
        let ed25519 = Signature::new(Algorithm::Ed25519, vec![1; 64]).unwrap();
        assert!(is_algorithm_of(ca().public_key().key_data(), &ed25519));
        assert!(!is_algorithm_of(rsa.key_data(), &ed25519));
        assert!(!is_algorithm_of(
            ca().public_key().key_data(),
            &with(Some(Sha512))
        ));
    }

    #[test]
    fn a_signature_of_another_key_is_held_back() {
        let cert = Hand::access().sign();
        let other = Key::from_seed("", &[3; 32]);
        let found = lint(Class::Access, None, &cert, 1, at(), other.public_key());
        assert_eq!(found, Err(LintError::Signature));
        let mut blob = cert.to_bytes().unwrap();
        *blob.last_mut().unwrap() ^= 1;
        let broken = Wire::from_bytes(&blob).unwrap();
        assert_eq!(
            lint(Class::Access, None, &broken, 1, at(), ca().public_key()),
            Err(LintError::Signature)
        );
    }

    #[test]
    fn a_certificate_longer_than_16_kib_is_held_back() {
        let long = vec![(
            "allowed-resources@anteroom".to_owned(),
            "x".repeat(MAX_BYTES),
        )];
        let found = Hand::access().with(|c| c.extensions = long).lint();
        assert!(matches!(found, Err(LintError::Size { .. })));
    }

    #[test]
    fn a_draft_without_principals_is_not_even_signed() {
        let draft = Draft {
            class: Class::Proxy,
            subject: &subject(),
            serial: Serial::new(1).unwrap(),
            key_id: "proxy".to_owned(),
            principals: Vec::new(),
            valid_before: NOW + Duration::minutes(1),
            force_command: None,
            source_address: None,
            extensions: Vec::new(),
        };
        let found = draft.sign(at(), &Signer::Here(ca()), &mut test_rng());
        assert!(matches!(
            found,
            Err(SignError::Lint(LintError::PrincipalCount { found: 0 }))
        ));
    }
}
