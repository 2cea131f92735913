//! People, as they are stored.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::id::{KeyFingerprint, Login, RoleName, UserName};

/// A person who may connect, review or administer, according to `roles`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique in the cluster.
    pub name: UserName,
    /// Standing roles, by name. A name without a role grants nothing.
    pub roles: BTreeSet<RoleName>,
    /// The trait `logins`, which `{{internal.logins}}` expands to.
    pub logins: Vec<Login>,
    /// Further traits, which `{{external.NAME}}` expands to. `logins` is not among them.
    pub traits: BTreeMap<String, Vec<String>>,
    /// Public keys that prove to be this person. A key belongs to one user.
    pub keys: Vec<UserKey>,
    /// Set while the user is locked out; the text says why.
    pub locked: Option<String>,
}

/// A registered public key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserKey {
    /// SHA-256 of the key, as OpenSSH prints it.
    pub fingerprint: KeyFingerprint,
    /// The key as one OpenSSH line, `TYPE BASE64 [COMMENT]`.
    pub openssh: String,
    /// When it was registered.
    #[serde(with = "time::serde::rfc3339")]
    pub added: OffsetDateTime,
}

impl User {
    /// A user with nothing but a name.
    #[must_use]
    pub fn new(name: UserName) -> Self {
        Self {
            name,
            roles: BTreeSet::new(),
            logins: Vec::new(),
            traits: BTreeMap::new(),
            keys: Vec::new(),
            locked: None,
        }
    }

    /// Whether `fingerprint` is one of the registered keys.
    #[must_use]
    pub fn has_key(&self, fingerprint: &KeyFingerprint) -> bool {
        self.keys.iter().any(|key| key.fingerprint == *fingerprint)
    }

    /// The values of the trait `name`; `logins` are those of the field.
    pub fn trait_values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let logins: &[Login] = if name == "logins" { &self.logins } else { &[] };
        let others = self.traits.get(name).map(Vec::as_slice).unwrap_or_default();
        logins
            .iter()
            .map(Login::as_str)
            .chain(others.iter().map(String::as_str))
    }
}
