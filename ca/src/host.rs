//! Host certificates, and the check of what a node shows when it is dialled.
//!
//! Three kinds are issued: the proxy's own, the inner server's behind one ProxyJump channel, and a node's.
//! [`verify()`] decides whether a dialled peer is the node that was meant; it runs before anything is sent.

mod verify;

use anteroom_core::id::NodeId;
use rand::CryptoRng;
use ssh_key::PublicKey;
use thiserror::Error;
use time::Duration;

use crate::cert::{Certificate, Class, Draft, SignError};
use crate::key::HostCa;
use crate::names::{AdmittedName, HostName, HostNames};
use crate::serial::Serial;
use crate::time_of_issue::IssueTime;

pub use verify::{HostExpectation, HostRefused, PresentedHost, parse_certificate, verify};

/// What every host certificate needs besides its names.
#[derive(Debug, Clone, Copy)]
pub struct HostTerms {
    /// The number under which the issuance is recorded.
    pub serial: Serial,
    /// How long from now: at most 30 days less a minute for the proxy and nodes, 59 minutes for an inner
    /// server. More is refused, not shortened.
    pub lifetime: Duration,
    /// The time of issuing.
    pub at: IssueTime,
}

/// The proxy's own certificate: exactly its names, the cluster's among them.
///
/// # Errors
/// [`CertifyHostError`].
pub fn certify_proxy(
    names: &HostNames,
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    let principals: Vec<_> = names.proxy().map(HostName::to_string).collect();
    let key_id = format!(
        "proxy {}",
        principals.first().map(String::as_str).unwrap_or_default()
    );
    certify(Class::Proxy, key_id, principals, subject, terms, ca, rng)
}

/// The certificate of the inner server that answers for `name`, the name a client asked to jump to.
///
/// # Errors
/// [`CertifyHostError`].
pub fn certify_inner(
    name: &AdmittedName,
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    certify(
        Class::Inner,
        format!("inner {name}"),
        vec![name.to_string()],
        subject,
        terms,
        ca,
        rng,
    )
}

/// A node's certificate: its UUID first, by which the proxy knows it, then the names an operator approved.
///
/// # Errors
/// [`CertifyHostError`]; in particular [`CertifyHostError::AnotherNode`] for a name that is another UUID.
pub fn certify_node(
    node: &NodeId,
    names: &[AdmittedName],
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    // A name is text that somebody chose; the UUID principal is what the proxy goes by.
    if let Some(name) = names
        .iter()
        .find(|name| NodeId::parse(name.as_str()).is_ok())
    {
        return Err(CertifyHostError::AnotherNode { name: name.clone() });
    }
    let principals =
        std::iter::once(node.to_string()).chain(names.iter().map(AdmittedName::to_string));
    certify(
        Class::Node,
        format!("node {node}"),
        principals.collect(),
        subject,
        terms,
        ca,
        rng,
    )
}

fn certify(
    class: Class,
    key_id: String,
    principals: Vec<String>,
    subject: &PublicKey,
    terms: HostTerms,
    ca: &HostCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyHostError> {
    let longest = class.max_lifetime() - Duration::seconds(crate::cert::BACKDATE.cast_signed());
    if terms.lifetime < Duration::SECOND || terms.lifetime > longest {
        return Err(CertifyHostError::Lifetime {
            asked: terms.lifetime,
            longest,
        });
    }
    let draft = Draft {
        class,
        subject,
        serial: terms.serial,
        key_id,
        principals,
        valid_before: terms.at.now() + terms.lifetime,
        source_address: None,
        force_command: None,
        extensions: Vec::new(),
    };
    Ok(draft.sign(terms.at, ca.signer(), rng)?)
}

/// Why no host certificate was issued.
#[derive(Debug, Error)]
pub enum CertifyHostError {
    /// Not within the bounds of its class.
    #[error(
        "a lifetime of {asked} was asked for: at least a second and at most {longest} are possible"
    )]
    Lifetime {
        /// What was asked for.
        asked: Duration,
        /// The longest from now.
        longest: Duration,
    },
    /// A name that stands for another node.
    #[error("`{name}` is the form of a node's UUID: a node's names cannot be UUIDs")]
    AnotherNode {
        /// The name.
        name: AdmittedName,
    },
    /// The linter or the signer refused.
    #[error(transparent)]
    Sign(#[from] SignError),
}

#[cfg(test)]
mod tests;
