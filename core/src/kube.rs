//! Objects inside a Kubernetes cluster: what a resource ID or a role says of them, and whether
//! one saying includes another.
//!
//! Both sides are patterns, so inclusion is what counts: a role that grants pods `nginx*` grants a
//! request for pods `nginx-1` and for pods `nginx-*`, and not one for every pod. Inclusion is
//! decided soundly, not completely: where two regular expressions are compared, only equal texts
//! include each other, and whoever asks is told what can be asked for.

use std::fmt;

use crate::id::{KubeKind, KubeObject, ResourceId};
use crate::pattern::Pattern;
use crate::role::Set;

/// Objects: of some kinds, in some namespaces or beside them, with some names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeObjects {
    /// Of which kinds.
    pub kinds: KubeKinds,
    /// Where in the cluster.
    pub place: Place,
    /// With which names.
    pub name: Pattern,
}

/// Kinds of objects: a plural and an API group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeKinds {
    /// Which plurals.
    pub plural: Plural,
    /// Which API groups; the core group is the empty text.
    pub group: Pattern,
}

/// The plural of a kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plural {
    /// `*`.
    Every,
    /// As in `pods`.
    Only(String),
}

/// Where in a Kubernetes cluster objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In no namespace, as nodes and the namespaces themselves.
    ClusterWide,
    /// In namespaces of these names.
    Namespaced(Pattern),
    /// Anywhere: what the namespace `*` of a role says.
    Anywhere,
}

/// `kubernetes_resources` of a role: objects, and what may be done with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeRule {
    /// Which objects.
    pub objects: KubeObjects,
    /// What may be done.
    pub verbs: Set<KubeVerb>,
}

/// One object in a Kubernetes cluster, as somebody is about to do something with it.
///
/// Requests and roles speak in patterns, and a request may be wider than what a role denies: it is
/// granted, and the denial kept. That holds because nothing but such an object is decided on when
/// something is done ([`crate::policy::reaches_object`]): there is no pattern in it, so that every
/// denial either matches it or does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneObject {
    id: ResourceId,
    objects: KubeObjects,
}

impl OneObject {
    /// The object that `id` names; `None` where it names several or none in a Kubernetes cluster.
    #[must_use]
    pub fn of(id: &ResourceId) -> Option<Self> {
        let objects = id.kube_objects()?;
        let KubeObjects { kinds, place, name } = &objects;
        let one_kind = match &kinds.plural {
            Plural::Only(_) => kinds.group.literal().is_some(),
            Plural::Every => false,
        };
        let one_place = match place {
            Place::ClusterWide => true,
            Place::Namespaced(namespace) => namespace.literal().is_some(),
            Place::Anywhere => false,
        };
        (one_kind && one_place && name.literal().is_some()).then(|| Self {
            id: id.clone(),
            objects,
        })
    }

    /// Its resource ID.
    #[must_use]
    pub fn id(&self) -> &ResourceId {
        &self.id
    }
}

/// What is done with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KubeVerb {
    /// `get`.
    Get,
    /// `create`.
    Create,
    /// `update`.
    Update,
    /// `patch`.
    Patch,
    /// `delete`.
    Delete,
    /// `list`.
    List,
    /// `watch`.
    Watch,
    /// `deletecollection`.
    DeleteCollection,
    /// `exec`.
    Exec,
    /// `portforward`.
    PortForward,
}

impl KubeVerb {
    /// Every verb, in the order of the documentation.
    pub const ALL: [Self; 10] = [
        Self::Get,
        Self::Create,
        Self::Update,
        Self::Patch,
        Self::Delete,
        Self::List,
        Self::Watch,
        Self::DeleteCollection,
        Self::Exec,
        Self::PortForward,
    ];

    /// The word in a document.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Watch => "watch",
            Self::DeleteCollection => "deletecollection",
            Self::Exec => "exec",
            Self::PortForward => "portforward",
        }
    }
}

impl Plural {
    /// Reads a plural or `*`.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        match word {
            "*" => Self::Every,
            word => Self::Only(word.to_owned()),
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Every => "*",
            Self::Only(word) => word,
        }
    }

    fn contains(&self, narrower: &Self) -> bool {
        match (self, narrower) {
            (Self::Every, Self::Every | Self::Only(_)) => true,
            (Self::Only(_), Self::Every) => false,
            (Self::Only(a), Self::Only(b)) => a == b,
        }
    }
}

impl KubeKinds {
    /// Whether these are at least those.
    #[must_use]
    pub fn contains(&self, narrower: &Self) -> bool {
        self.plural.contains(&narrower.plural) && self.group.contains(&narrower.group)
    }

    /// Whether some kind might be among both. Says yes where it can't be excluded.
    #[must_use]
    pub fn might_share(&self, other: &Self) -> bool {
        (self.plural.contains(&other.plural) || other.plural.contains(&self.plural))
            && self.group.might_share(&other.group)
    }

    /// The kinds that are among both, where one side holds the other's plural and one the other's
    /// group.
    #[must_use]
    pub fn both(&self, other: &Self) -> Option<Self> {
        let narrower = |a: &Pattern, b: &Pattern| {
            if a.contains(b) {
                Some(b.clone())
            } else {
                b.contains(a).then(|| a.clone())
            }
        };
        let plural = if self.plural.contains(&other.plural) {
            &other.plural
        } else if other.plural.contains(&self.plural) {
            &self.plural
        } else {
            return None;
        };
        Some(Self {
            plural: plural.clone(),
            group: narrower(&self.group, &other.group)?,
        })
    }
}

impl Place {
    fn contains(&self, narrower: &Self) -> bool {
        match (self, narrower) {
            (Self::Anywhere, Self::ClusterWide | Self::Namespaced(_) | Self::Anywhere)
            | (Self::ClusterWide, Self::ClusterWide) => true,
            (Self::Namespaced(a), Self::Namespaced(b)) => a.contains(b),
            (Self::ClusterWide, Self::Namespaced(_) | Self::Anywhere)
            | (Self::Namespaced(_), Self::ClusterWide | Self::Anywhere) => false,
        }
    }
}

impl KubeObjects {
    /// Everything in a cluster.
    #[must_use]
    pub fn everything() -> Self {
        Self {
            kinds: KubeKinds {
                plural: Plural::Every,
                group: Pattern::anything(),
            },
            place: Place::Anywhere,
            name: Pattern::anything(),
        }
    }

    /// What a resource ID says. `None` for a broken pattern, which parsing an ID refuses.
    pub(crate) fn of_id(kind: &KubeKind, object: &KubeObject<'_>) -> Option<Self> {
        let pattern = |text: &str| Pattern::parse(text).ok();
        Some(Self {
            kinds: KubeKinds {
                plural: Plural::of_word(kind.plural()),
                group: pattern(kind.group().unwrap_or_default())?,
            },
            place: match object.namespace {
                Some(namespace) => Place::Namespaced(pattern(namespace)?),
                None => Place::ClusterWide,
            },
            name: pattern(object.name)?,
        })
    }

    /// Whether these are at least those.
    #[must_use]
    pub fn contains(&self, narrower: &Self) -> bool {
        self.kinds.contains(&narrower.kinds)
            && self.place.contains(&narrower.place)
            && self.name.contains(&narrower.name)
    }

    /// As the part of a resource ID between `/CLUSTER/` and its end, once for each place.
    #[must_use]
    pub fn in_ids(&self, kube_cluster: &str) -> Vec<String> {
        let (kinds, name) = (&self.kinds, &self.name);
        let wide = || format!("kube:cw:{kinds}/{kube_cluster}/{name}");
        let namespaced =
            |namespace: &str| format!("kube:ns:{kinds}/{kube_cluster}/{namespace}/{name}");
        match &self.place {
            Place::ClusterWide => vec![wide()],
            Place::Namespaced(namespace) => vec![namespaced(namespace.as_str())],
            Place::Anywhere => vec![namespaced("*"), wide()],
        }
    }
}

impl fmt::Display for KubeKinds {
    /// `pods`, `deployments.apps`, `*.*`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.plural.as_str())?;
        match self.group.as_str() {
            "" => Ok(()),
            group => write!(f, ".{group}"),
        }
    }
}
