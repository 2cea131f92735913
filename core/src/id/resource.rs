//! Resource IDs: `/CLUSTER/KIND/NAME` (REQUESTS section 1).

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kube::KubeObjects;
use crate::resource::Kind;

use super::{ClusterName, IdError, Login, NodeId, ResourceName, is_plain, within};

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

impl ResourceKind {
    /// What `request search --kind` calls it.
    #[must_use]
    pub const fn searched_as(&self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::KubeCluster => "kube_cluster",
            Self::Db => "db",
            Self::App => "app",
            Self::WindowsDesktop => "windows_desktop",
            Self::KubeNamespaced(_) | Self::KubeClusterWide(_) => "kube_resource",
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

    /// A registered resource that is no node.
    #[must_use]
    pub fn named(cluster: ClusterName, kind: Kind, name: &ResourceName) -> Self {
        Self {
            cluster,
            kind: kind.in_id(),
            name: name.to_string(),
            logins: None,
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

    /// The registered resource that is meant: its kind, and its name byte for byte. For objects in
    /// a Kubernetes cluster that is the cluster; `None` for nodes.
    #[must_use]
    pub fn registered(&self) -> Option<(Kind, &str)> {
        match self.kind {
            ResourceKind::Node => None,
            ResourceKind::KubeCluster => Some((Kind::KubeCluster, &self.name)),
            ResourceKind::Db => Some((Kind::Db, &self.name)),
            ResourceKind::App => Some((Kind::App, &self.name)),
            ResourceKind::WindowsDesktop => Some((Kind::WindowsDesktop, &self.name)),
            ResourceKind::KubeNamespaced(_) | ResourceKind::KubeClusterWide(_) => self
                .kube_object()
                .map(|object| (Kind::KubeCluster, object.kube_cluster)),
        }
    }

    /// The objects in a Kubernetes cluster that are meant; `None` for every other kind.
    #[must_use]
    pub fn kube_objects(&self) -> Option<KubeObjects> {
        let (ResourceKind::KubeNamespaced(kind) | ResourceKind::KubeClusterWide(kind)) = &self.kind
        else {
            return None;
        };
        KubeObjects::of_id(kind, &self.kube_object()?)
    }

    /// The ID without `/CLUSTER/` in front, as commands take and show it: `db/orders`.
    #[must_use]
    pub fn short(&self) -> String {
        let whole = self.to_string();
        let rest = whole.splitn(3, '/').nth(2).map(str::to_owned);
        rest.unwrap_or(whole)
    }

    /// Whether holding `self` includes `wanted`: the same resource, and no login beyond; or, inside
    /// one Kubernetes cluster, at least those objects.
    #[must_use]
    pub fn covers(&self, wanted: &Self) -> bool {
        Compared::new(self).covers(&Compared::new(wanted))
    }

    fn covers_itself(&self, wanted: &Self) -> bool {
        self.kind == wanted.kind
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

/// A resource ID whose patterns are compiled once, however many others it is compared with: a
/// request lists hundreds, and reviewers' lists are held against each other inside the one writer.
#[derive(Clone)]
pub(crate) struct Compared<'a> {
    id: &'a ResourceId,
    /// Compiled when it is first asked for: most IDs name one thing and are equal or not.
    objects: OnceCell<Option<KubeObjects>>,
}

impl<'a> Compared<'a> {
    pub(crate) fn new(id: &'a ResourceId) -> Self {
        Self {
            id,
            objects: OnceCell::new(),
        }
    }

    pub(crate) fn all(ids: impl IntoIterator<Item = &'a ResourceId>) -> Vec<Self> {
        ids.into_iter().map(Self::new).collect()
    }

    pub(crate) fn id(&self) -> &'a ResourceId {
        self.id
    }

    /// As [`ResourceId::covers`].
    pub(crate) fn covers(&self, wanted: &Self) -> bool {
        self.id.cluster == wanted.id.cluster
            && (self.id.covers_itself(wanted.id) || self.covers_objects(wanted))
    }

    fn covers_objects(&self, wanted: &Self) -> bool {
        let Some(objects) = wanted.objects() else {
            return false;
        };
        if self.id.registered() != wanted.id.registered() {
            return false;
        }
        match self.objects() {
            Some(held) => held.contains(objects),
            // The whole Kubernetes cluster.
            None => true,
        }
    }

    fn objects(&self) -> Option<&KubeObjects> {
        self.objects.get_or_init(|| self.id.kube_objects()).as_ref()
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
