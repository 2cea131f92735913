//! The document of a user.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Login, RoleName, UserName};

use super::at::{Fields, Map};
use super::{Mistake, read_metadata};

/// A user as a document describes her. Fingerprints are computed where keys are parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDocument {
    /// `metadata.name`.
    pub name: UserName,
    /// `spec.roles`.
    pub roles: BTreeSet<RoleName>,
    /// `spec.traits.logins`.
    pub logins: Vec<Login>,
    /// The other traits.
    pub traits: BTreeMap<String, Vec<String>>,
    /// `spec.keys`, each one OpenSSH line, not parsed yet.
    pub keys: Vec<String>,
    /// `spec.locked`: why the user is locked out, if she is.
    pub locked: Option<String>,
}

const USER_SPEC: Fields = Fields {
    served: &["roles", "traits", "keys", "locked"],
    teleport: &[
        "created_by",
        "expires",
        "github_identities",
        "local_auth",
        "oidc_identities",
        "saml_identities",
        "status",
        "trusted_device_ids",
    ],
    later: &[],
    only_allow: &[],
};

pub(super) fn read_user(top: &Map<'_>) -> Result<UserDocument, Mistake> {
    let metadata = read_metadata(top)?;
    let mut user = UserDocument {
        name: metadata.name.parsed(UserName::parse)?,
        roles: BTreeSet::new(),
        logins: Vec::new(),
        traits: BTreeMap::new(),
        keys: Vec::new(),
        locked: None,
    };
    let Some(spec) = top.get("spec") else {
        return Ok(user);
    };
    let spec = spec.map(&USER_SPEC)?;
    user.roles = spec.all("roles", RoleName::parse)?;
    user.keys = spec.texts("keys")?;
    user.locked = spec.text("locked")?;
    if let Some(traits) = spec.get("traits") {
        for (name, values) in traits.entries()? {
            if name == "logins" {
                user.logins = values.all(Login::parse)?;
                continue;
            }
            let values = values.one_or_many()?;
            let values = values.iter().map(|item| item.text().map(str::to_owned));
            user.traits
                .insert(name.to_owned(), values.collect::<Result<_, _>>()?);
        }
    }
    Ok(user)
}
