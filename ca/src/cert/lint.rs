//! The linter between a signature and the world (SECURITY section 4).
//!
//! It trusts nothing that the drafting code says: it knows the class, the time, the one command and the
//! authority, and reads the rest from the bytes that leave. What is issued is what passes here, whoever
//! drafted it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anteroom_core::id::{NodeId, UserName};
use anteroom_core::request::Scope;
use ssh_key::{Certificate as Wire, PublicKey};
use thiserror::Error;

use super::{
    BACKDATE, Class, FORCE_COMMAND, MAX_BYTES, MAX_PRINCIPALS, NOTHING, SOURCE_ADDRESS,
    is_algorithm_of, is_certifiable,
};
use crate::names::HostName;
use crate::serial::Serial;
use crate::time_of_issue::IssueTime;

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

/// Reads over a signed certificate of `size` bytes before it leaves: SECURITY section 4.
pub(super) fn lint(
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

const MAX_KEY_ID: usize = 256;

/// What some viewers of logs take for the end of a line, besides control characters.
const LINE_ENDS: [char; 2] = ['\u{2028}', '\u{2029}'];

#[cfg(test)]
mod tests;
