//! What a connection names: `LOGIN@NODE`, or `LOGIN+NODE` for tools that mishandle two `@`.
//!
//! Only the reading is here. Whether the text is meant as a target at all (a user's own e-mail
//! address never is) and which node is meant is decided with the view, by
//! [`crate::policy::resolve`].

use std::fmt;
use std::str::FromStr;

use crate::id::{IdError, Login, NodeId, NodeName, ResourceId, ResourceKind};

/// A node as a person names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeRef {
    /// By host name, which several nodes may share.
    Name(NodeName),
    /// By UUID.
    Id(NodeId),
    /// By full resource ID of kind `node`.
    Resource(ResourceId),
}

/// A login on a node, as a person names them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The account on the node.
    pub login: Login,
    /// The node.
    pub node: NodeRef,
}

/// The user name of a machine that wants to become a node.
pub const ENROLL: &str = "enroll";

/// What node agents put before their name.
const RESERVED: [&str; 2] = ["enroll+", "node+"];

/// Why a text does not name a login on a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// Neither `@` nor `+` divides it.
    #[error("`{0}` names no login; write LOGIN@NODE, as in root@iot")]
    NoLogin(String),
    /// `enroll+…` and `node+…` are spoken by node agents. The text may carry a token, so it is
    /// not repeated.
    #[error("names that start with `{0}` are reserved for node agents")]
    Reserved(&'static str),
    /// The part before the separator is no login.
    #[error(transparent)]
    Login(IdError),
    /// The part after the separator is no node.
    #[error(transparent)]
    Node(#[from] NodeRefError),
}

/// Why a text does not name a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeRefError {
    /// It is neither a name, a UUID nor a resource ID.
    #[error(transparent)]
    Malformed(#[from] IdError),
    /// It is a resource ID of something that is no node.
    #[error("`{0}` is not a node; a node's resource ID is /CLUSTER/node/UUID")]
    OtherKind(ResourceId),
    /// It is narrowed to single logins, where the login stands elsewhere.
    #[error("`{0}` already names logins; leave `?logins=` out here")]
    WithLogins(ResourceId),
}

impl NodeRef {
    /// Reads a host name, a UUID or a full resource ID.
    ///
    /// # Errors
    /// [`NodeRefError`] if it is none of them.
    pub fn parse(text: &str) -> Result<Self, NodeRefError> {
        if text.starts_with('/') {
            let resource = ResourceId::parse(text)?;
            if *resource.kind() != ResourceKind::Node {
                return Err(NodeRefError::OtherKind(resource));
            }
            if resource.logins().is_some() {
                return Err(NodeRefError::WithLogins(resource));
            }
            return Ok(Self::Resource(resource));
        }
        if let Ok(id) = NodeId::parse(text) {
            return Ok(Self::Id(id));
        }
        Ok(Self::Name(NodeName::parse(text)?))
    }
}

impl Target {
    /// The two halves of `LOGIN@NODE` or `LOGIN+NODE` as they were written, for callers who tell the
    /// user more about a bad half than that it is bad; `None` if the text has no such form.
    #[must_use]
    pub fn split(text: &str) -> Option<(&str, &str)> {
        text.rsplit_once('@').or_else(|| text.split_once('+'))
    }

    /// Whether the text is of a form that is spoken by node agents only.
    #[must_use]
    pub fn is_reserved(text: &str) -> bool {
        RESERVED.iter().any(|reserved| text.starts_with(reserved))
    }

    /// Splits at the last `@`, or where there is none at the first `+`.
    ///
    /// # Errors
    /// [`TargetError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        for reserved in RESERVED {
            if text.starts_with(reserved) {
                return Err(TargetError::Reserved(reserved));
            }
        }
        let (login, node) =
            Self::split(text).ok_or_else(|| TargetError::NoLogin(crate::id::printable(text)))?;
        let login = Login::parse(login).map_err(TargetError::Login)?;
        Ok(Self {
            login,
            node: NodeRef::parse(node)?,
        })
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Id(id) => id.fmt(f),
            Self::Resource(resource) => resource.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.login, self.node)
    }
}

impl FromStr for NodeRef {
    type Err = NodeRefError;

    fn from_str(text: &str) -> Result<Self, NodeRefError> {
        Self::parse(text)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::parse(text)
    }
}
