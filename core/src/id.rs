//! Names and identifiers, parsed once at the edge.
//!
//! Every type here promises that its value has passed its grammar, wherever it came from: a
//! command line, a document, a certificate or the database (deserialising parses as well). What
//! an identifier refers to, and whether it exists, is the business of [`crate::view`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod resource;

pub(crate) use resource::Compared;
pub use resource::{KubeKind, KubeObject, RESOURCE_ID_LIMIT, ResourceId, ResourceKind};

/// Why a text is not the name or identifier it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdError {
    /// There is no text at all.
    #[error("{what} is empty; {rule}")]
    Empty {
        /// What was parsed, as in "user name".
        what: &'static str,
        /// The grammar in words.
        rule: &'static str,
    },
    /// The text is longer than the grammar allows.
    #[error("{what} `{start}…` is {length} bytes long; the limit is {limit}")]
    TooLong {
        /// What was parsed.
        what: &'static str,
        /// The first characters, enough to recognise it.
        start: String,
        /// Its length in bytes.
        length: usize,
        /// The longest that is accepted, in bytes.
        limit: usize,
    },
    /// The text does not follow the grammar.
    #[error("`{value}` is not a {what}; {rule}")]
    Malformed {
        /// What was parsed.
        what: &'static str,
        /// The text, with control characters escaped.
        value: String,
        /// The grammar in words.
        rule: &'static str,
    },
}

impl IdError {
    fn malformed(what: &'static str, value: &str, rule: &'static str) -> Self {
        if value.is_empty() {
            return Self::Empty { what, rule };
        }
        Self::Malformed {
            what,
            value: printable(value),
            rule,
        }
    }
}

/// `value` as an error message may show it: control characters escaped, at most 80 characters.
pub(crate) fn printable(value: &str) -> String {
    let mut out = String::new();
    // Marks at the very start would join what is printed before the text.
    let mut after_mark = true;
    for (count, c) in value.chars().enumerate() {
        if count == 80 {
            out.push('…');
            break;
        }
        let is_mark = crate::text::is_mark(c);
        if is_plain(c) && !(is_mark && after_mark) {
            out.push(c);
            after_mark = is_mark;
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

/// Whether a terminal shows `c` as itself (SECURITY: untrusted text never reaches a terminal raw).
pub(crate) fn is_plain(c: char) -> bool {
    !crate::text::is_hostile(c)
}

/// Checks length first, so that no error ever carries more than 40 characters of a huge input.
fn within(what: &'static str, value: &str, limit: usize) -> Result<(), IdError> {
    if value.len() <= limit {
        return Ok(());
    }
    let start = printable(&value.chars().take(40).collect::<String>());
    Err(IdError::TooLong {
        what,
        start,
        length: value.len(),
        limit,
    })
}

/// Declares a newtype over a checked string. The grammar is a function from text to verdict.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $limit:expr, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Parses `text`; see the type for the grammar.
            ///
            /// # Errors
            /// [`IdError`] names what is wrong and the grammar.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                within($what, text, $limit)?;
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError::malformed($what, text, $rule))
                }
            }

            /// The name as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Sound because the derived `Eq`, `Ord` and `Hash` are those of the one string inside:
        // maps keyed by the name can be asked with a `&str` that was never parsed.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

/// `[a-z0-9][a-z0-9._-]{0,63}`, the grammar of every name that an operator chooses.
fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 64
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
}

/// A dotted host name with at least `labels` labels of `[A-Za-z0-9-]{1,63}`.
fn is_host_name(text: &str, labels: usize) -> bool {
    text.split('.').count() >= labels
        && text.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

/// An e-mail address of the plain form `local@domain.tld`, without quoting or comments.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    (1..=64).contains(&local.len())
        && local.starts_with(|c: char| c.is_ascii_alphanumeric())
        && local
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._%+-".contains(&b))
        && is_host_name(domain, 2)
}

/// `[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}`: what a node's sshd is ever asked for.
pub(crate) fn is_login(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= 32
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b))
        && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

fn is_fingerprint(text: &str) -> bool {
    // 32 bytes in unpadded base64 are 43 characters, the last of which carries four bits.
    text.strip_prefix("SHA256:").is_some_and(|hash| {
        hash.len() == 43
            && hash
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
    })
}

text_id!(
    /// The name of a person: a name of `[a-z0-9][a-z0-9._-]{0,63}` or an e-mail address.
    UserName, "user name", 255,
    "a user name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit, or is an e-mail address",
    |text| is_name(text) || is_email(text)
);
text_id!(
    /// An account on a node: `[A-Za-z0-9_.][A-Za-z0-9_.-]{0,31}`.
    Login, "login", 32,
    "a login is 1 to 32 of A-Z a-z 0-9 _ . - and does not start with -",
    is_login
);
text_id!(
    /// The name of a node: `[a-z0-9][a-z0-9._-]{0,63}`, and never the form of a UUID, so that a
    /// name can't pass for another node's ID.
    NodeName, "node name", 64,
    "a node name is 1 to 64 of a-z 0-9 . _ -, starts with a letter or digit and is not a UUID",
    |text| is_name(text) && Uuid::try_parse(text).is_err()
);
text_id!(
    /// The name of a role: `[a-z0-9][a-z0-9._-]{0,63}`.
    RoleName, "role name", 64,
    "a role name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit",
    is_name
);
text_id!(
    /// The name of an access monitoring rule: `[a-z0-9][a-z0-9._-]{0,63}`.
    RuleName, "rule name", 64,
    "a rule name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit",
    is_name
);
text_id!(
    /// The name of an application, database, Kubernetes cluster or desktop:
    /// `[a-z0-9][a-z0-9._-]{0,63}`.
    ResourceName, "resource name", 64,
    "a resource name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit",
    is_name
);
text_id!(
    /// The name of a device that makes codes: `[a-z0-9][a-z0-9._-]{0,63}`.
    DeviceName, "device name", 64,
    "a device name is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit",
    is_name
);
text_id!(
    /// What a token is called, which opens nothing: `[a-z0-9][a-z0-9._-]{0,63}`.
    TokenId, "token ID", 64,
    "a token ID is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit",
    is_name
);
text_id!(
    /// The name of a cluster: a host name or a name, without `/`.
    ClusterName, "cluster name", 253,
    "a cluster name is a host name, or 1 to 64 of a-z 0-9 . _ - that start with a letter or digit",
    |text| is_name(text) || is_host_name(text, 1)
);
text_id!(
    /// The SHA-256 fingerprint of a public key as OpenSSH prints it, `SHA256:` and 43 characters.
    KeyFingerprint, "key fingerprint", 50,
    "a fingerprint is SHA256: and 43 characters of base64, as `ssh-keygen -l` prints it",
    is_fingerprint
);

impl UserName {
    /// Why nobody new may be called so; `None` for every other name. Asked where users are made,
    /// and not when a name is read: who was called so before is to stay manageable.
    #[must_use]
    pub fn reserved(&self) -> Option<&'static str> {
        if self.as_str() == "anteroom" {
            return Some("the audit log has called the proxy itself so");
        }
        if self.as_str() == crate::target::ENROLL {
            return Some("machines that become nodes come in by it");
        }
        crate::target::Target::is_reserved(self.as_str())
            .then_some("names that start with `enroll+` and `node+` are spoken by node agents")
    }

    /// The node that the name would mean if it were read as `LOGIN@NODE`.
    #[must_use]
    pub fn read_as_target(&self) -> Option<NodeName> {
        let (login, node) = self.as_str().rsplit_once('@')?;
        Login::parse(login).ok()?;
        NodeName::parse(node).ok()
    }
}

/// Declares a newtype over a UUID in its canonical form. Randomness is the caller's.
macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID; the caller made it random.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Parses the canonical form only: 36 characters, lower case, with hyphens.
            /// Identifiers are compared byte for byte, so no other spelling may exist.
            ///
            /// # Errors
            /// [`IdError`] names the text and the form.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                within($what, text, 36)?;
                Uuid::try_parse(text)
                    .ok()
                    .filter(|uuid| uuid.hyphenated().to_string() == text)
                    .map(Self)
                    .ok_or_else(|| {
                        IdError::malformed(
                            $what,
                            text,
                            "it is a UUID in lower case with hyphens, as in bbb56211-7b54-4f9e-bee9-b68ea156be5f",
                        )
                    })
            }

            /// The UUID inside.
            #[must_use]
            pub const fn uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut buffer = Uuid::encode_buffer();
                f.pad(self.0.hyphenated().encode_lower(&mut buffer))
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

uuid_id!(
    /// A node's identity, chosen once; approvals and certificates bind it, never a name.
    NodeId, "node ID"
);
uuid_id!(
    /// An access request's identity.
    RequestId, "request ID"
);
uuid_id!(
    /// A pre-approval's identity, which `request allows rm` takes.
    AllowanceId, "pre-approval ID"
);
uuid_id!(
    /// A session's identity, in the audit log and in the key ID of its certificate.
    SessionId, "session ID"
);
uuid_id!(
    /// A lock's identity, which `locks rm` takes.
    LockId, "lock ID"
);
