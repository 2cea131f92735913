//! Names and identifiers, parsed once at the edge.
//!
//! Every type here promises that its value has passed its grammar, wherever it came from: a
//! command line, a document, a certificate or the database (deserialising parses as well). What
//! an identifier refers to, and whether it exists, is the business of [`crate::view`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

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
    for (count, c) in value.chars().enumerate() {
        if count == 80 {
            out.push('…');
            break;
        }
        if is_plain(c) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

/// Whether a terminal shows `c` as itself: no control character, bidirectional override or
/// zero-width character (SECURITY: untrusted text never reaches a terminal raw).
pub(crate) fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
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
    /// A pre-approval's identity.
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

/// What kind of thing a [`ResourceId`] names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// `node`, an SSH server.
    Node,
    /// `kube_cluster`, a whole Kubernetes cluster.
    KubeCluster,
    /// `db`, a database.
    Db,
    /// `app`, an application.
    App,
    /// `windows_desktop`.
    WindowsDesktop,
    /// `kube:ns:PLURAL[.GROUP]`, objects inside a namespace.
    KubeNamespaced(Box<KubeKind>),
    /// `kube:cw:PLURAL[.GROUP]`, objects of the whole Kubernetes cluster. `namespaces` grants the
    /// namespace object, not what is in it.
    KubeClusterWide(Box<KubeKind>),
}

/// A kind of Kubernetes object: the plural and, for non-core kinds, the API group.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubeKind {
    plural: String,
    group: Option<String>,
}

impl KubeKind {
    /// The plural, as in `pods`, or `*`.
    #[must_use]
    pub fn plural(&self) -> &str {
        &self.plural
    }

    /// The API group, a literal, a `*` glob or `^regex$`; `None` for the core group.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }
}

impl fmt::Display for KubeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plural)?;
        match &self.group {
            Some(group) => write!(f, ".{group}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.pad("node"),
            Self::KubeCluster => f.pad("kube_cluster"),
            Self::Db => f.pad("db"),
            Self::App => f.pad("app"),
            Self::WindowsDesktop => f.pad("windows_desktop"),
            Self::KubeNamespaced(kind) => write!(f, "kube:ns:{kind}"),
            Self::KubeClusterWide(kind) => write!(f, "kube:cw:{kind}"),
        }
    }
}

/// The parts of a Kubernetes resource's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KubeObject<'a> {
    /// The Kubernetes cluster, byte for byte.
    pub kube_cluster: &'a str,
    /// The namespace, literal, glob or `^regex$`; `None` for cluster-wide kinds.
    pub namespace: Option<&'a str>,
    /// The object's name, literal, glob or `^regex$`.
    pub name: &'a str,
}

/// A resource, `/CLUSTER/KIND/NAME` (REQUESTS section 1). Two IDs are the same resource only if
/// they are the same bytes, except for `?logins=`, which narrows a node to single logins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceId {
    cluster: ClusterName,
    kind: ResourceKind,
    name: String,
    // `None` is every login the granting role allows; `Some` is never empty.
    logins: Option<BTreeSet<Login>>,
}

const RESOURCE: &str = "resource ID";
const RESOURCE_RULE: &str = "a resource ID is /CLUSTER/KIND/NAME, as in /example.com/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f";
const NODE_RULE: &str = "the last part of a node's resource ID is its UUID, not its name; `request search --kind node` prints it";
const LOGINS_RULE: &str = "after ?logins= come logins, separated by commas, at least one";
const KIND_RULE: &str = "the kind is node, kube_cluster, db, app, windows_desktop, kube:ns:PLURAL[.GROUP] or kube:cw:PLURAL[.GROUP]";
const KUBE_NS_RULE: &str = "after the kind come KUBE_CLUSTER/NAMESPACE/NAME";
const KUBE_CW_RULE: &str = "after the kind come KUBE_CLUSTER/NAME";
const PATTERN_RULE: &str = "the group, namespace and name of a Kubernetes resource are literals, `*` globs or a valid `^regex$`";

/// The longest resource ID in bytes: room for a Kubernetes path with two regular expressions and
/// a list of a dozen logins, far below the limit on the sum of a request's IDs.
pub const RESOURCE_ID_LIMIT: usize = 2048;

impl ResourceId {
    /// A whole node: every login that the granting role allows there.
    #[must_use]
    pub fn node(cluster: ClusterName, node: NodeId) -> Self {
        Self {
            cluster,
            kind: ResourceKind::Node,
            name: node.to_string(),
            logins: None,
        }
    }

    /// One login on one node, what a denied connection asks for.
    #[must_use]
    pub fn node_login(cluster: ClusterName, node: NodeId, login: Login) -> Self {
        Self {
            logins: Some(BTreeSet::from([login])),
            ..Self::node(cluster, node)
        }
    }

    /// The same resource narrowed to `logins`. `None` if that leaves nothing (an empty list is
    /// not "every login") or the resource is not a node.
    #[must_use]
    pub fn with_logins(self, logins: BTreeSet<Login>) -> Option<Self> {
        if self.kind != ResourceKind::Node || logins.is_empty() {
            return None;
        }
        Some(Self {
            logins: Some(logins),
            ..self
        })
    }

    /// The same resource with every login.
    #[must_use]
    pub fn without_logins(self) -> Self {
        Self {
            logins: None,
            ..self
        }
    }

    /// Parses `/CLUSTER/KIND/NAME[?logins=…]`.
    ///
    /// # Errors
    /// [`IdError`] names the part that is wrong and its grammar.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        within(RESOURCE, text, RESOURCE_ID_LIMIT)?;
        let malformed = |rule| IdError::malformed(RESOURCE, text, rule);
        if text.chars().any(|c| !is_plain(c)) {
            return Err(malformed("a resource ID has no control characters"));
        }
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| malformed(RESOURCE_RULE))?;
        let mut parts = rest.splitn(3, '/');
        let (Some(cluster), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed(RESOURCE_RULE));
        };
        let cluster = ClusterName::parse(cluster)?;
        let kind = parse_kind(kind).ok_or_else(|| malformed(KIND_RULE))?;
        if name.is_empty() {
            return Err(malformed(RESOURCE_RULE));
        }
        Self {
            cluster,
            kind,
            name: name.to_owned(),
            logins: None,
        }
        .checked()
        .map_err(malformed)
    }

    /// Checks the name against its kind and splits the logins off a node's.
    fn checked(mut self) -> Result<Self, &'static str> {
        match &self.kind {
            ResourceKind::Node => {
                if let Some((uuid, query)) = self.name.split_once('?') {
                    self.logins = Some(parse_logins(query)?);
                    self.name = uuid.to_owned();
                }
                NodeId::parse(&self.name).map_err(|_| NODE_RULE)?;
            }
            ResourceKind::KubeNamespaced(_) => {
                self.kube_object().ok_or(KUBE_NS_RULE)?;
                self.check_patterns()?;
            }
            ResourceKind::KubeClusterWide(_) => {
                self.kube_object().ok_or(KUBE_CW_RULE)?;
                self.check_patterns()?;
            }
            ResourceKind::KubeCluster
            | ResourceKind::Db
            | ResourceKind::App
            | ResourceKind::WindowsDesktop => {}
        }
        Ok(self)
    }

    fn check_patterns(&self) -> Result<(), &'static str> {
        let group = match &self.kind {
            ResourceKind::KubeNamespaced(kind) | ResourceKind::KubeClusterWide(kind) => {
                kind.group()
            }
            ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::Db
            | ResourceKind::App
            | ResourceKind::WindowsDesktop => None,
        };
        let object = self.kube_object();
        let namespace = object.and_then(|o| o.namespace);
        let name = object.map(|o| o.name);
        for pattern in [group, namespace, name].into_iter().flatten() {
            crate::pattern::Pattern::parse(pattern).map_err(|_| PATTERN_RULE)?;
        }
        Ok(())
    }

    /// The cluster that the resource belongs to.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The kind of thing.
    #[must_use]
    pub fn kind(&self) -> &ResourceKind {
        &self.kind
    }

    /// Everything after the kind, without `?logins=`: a node's UUID, a database's name, or the
    /// path of a Kubernetes object.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The single logins this is narrowed to, never empty; `None` means every login that the
    /// granting role allows.
    #[must_use]
    pub fn logins(&self) -> Option<&BTreeSet<Login>> {
        self.logins.as_ref()
    }

    /// The node, if this is one.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        (self.kind == ResourceKind::Node)
            .then(|| NodeId::parse(&self.name).ok())
            .flatten()
    }

    /// The parts of a Kubernetes object's name, cut off the right; `None` for every other kind.
    #[must_use]
    pub fn kube_object(&self) -> Option<KubeObject<'_>> {
        let (kube_cluster, namespace, name) = match &self.kind {
            ResourceKind::KubeNamespaced(_) => {
                let (rest, name) = self.name.rsplit_once('/')?;
                let (kube_cluster, namespace) = rest.rsplit_once('/')?;
                (kube_cluster, Some(namespace), name)
            }
            ResourceKind::KubeClusterWide(_) => {
                let (kube_cluster, name) = self.name.rsplit_once('/')?;
                (kube_cluster, None, name)
            }
            ResourceKind::Node
            | ResourceKind::KubeCluster
            | ResourceKind::Db
            | ResourceKind::App
            | ResourceKind::WindowsDesktop => return None,
        };
        let whole = !kube_cluster.is_empty() && namespace != Some("") && !name.is_empty();
        whole.then_some(KubeObject {
            kube_cluster,
            namespace,
            name,
        })
    }

    /// Whether holding `self` includes `wanted`: the same resource, and no login beyond.
    #[must_use]
    pub fn covers(&self, wanted: &Self) -> bool {
        self.cluster == wanted.cluster
            && self.kind == wanted.kind
            && self.name == wanted.name
            && match (&self.logins, &wanted.logins) {
                (None, None | Some(_)) => true,
                (Some(_), None) => false,
                (Some(held), Some(wanted)) => wanted.is_subset(held),
            }
    }

    /// Whether this ID lets `login` into the node with the UUID `node`, canonically written, of
    /// `cluster`. Compares bytes and parses nothing: a decision asks it of every listed resource.
    pub(crate) fn includes(&self, cluster: &ClusterName, node: &str, login: &Login) -> bool {
        self.name == node
            && self.kind == ResourceKind::Node
            && self.cluster == *cluster
            && self
                .logins
                .as_ref()
                .is_none_or(|logins| logins.contains(login))
    }
}

fn parse_kind(text: &str) -> Option<ResourceKind> {
    match text {
        "node" => return Some(ResourceKind::Node),
        "kube_cluster" => return Some(ResourceKind::KubeCluster),
        "db" => return Some(ResourceKind::Db),
        "app" => return Some(ResourceKind::App),
        "windows_desktop" => return Some(ResourceKind::WindowsDesktop),
        _ => {}
    }
    let (scope, kind) = text.strip_prefix("kube:")?.split_once(':')?;
    let (plural, group) = match kind.split_once('.') {
        Some((plural, group)) => (plural, Some(group)),
        None => (kind, None),
    };
    let plain = !plural.is_empty()
        && plural
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !(plain || plural == "*") || group == Some("") {
        return None;
    }
    let kind = Box::new(KubeKind {
        plural: plural.to_owned(),
        group: group.map(str::to_owned),
    });
    match scope {
        "ns" => Some(ResourceKind::KubeNamespaced(kind)),
        "cw" => Some(ResourceKind::KubeClusterWide(kind)),
        _ => None,
    }
}

fn parse_logins(query: &str) -> Result<BTreeSet<Login>, &'static str> {
    let list = query.strip_prefix("logins=").ok_or(LOGINS_RULE)?;
    list.split(',')
        .map(Login::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| LOGINS_RULE)
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/{}/{}", self.cluster, self.kind, self.name)?;
        let mut separator = "?logins=";
        for login in self.logins.iter().flatten() {
            write!(f, "{separator}{login}")?;
            separator = ",";
        }
        Ok(())
    }
}

impl FromStr for ResourceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ResourceId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<ResourceId> for String {
    fn from(id: ResourceId) -> Self {
        id.to_string()
    }
}
