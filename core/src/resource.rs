//! What is registered besides nodes: applications, databases, Kubernetes clusters and desktops.
//!
//! They can be searched, asked for and approved. Connecting to them is not served yet, so what is
//! here says where they are and what roles select them by, and nothing about how to log in.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::admin::AdminResource;
use crate::id::{ClusterName, ResourceId, ResourceKind, ResourceName};
use crate::node::HostPort;

/// A kind of registered resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `app`, an application.
    App,
    /// `db`, a database.
    Db,
    /// `kube_cluster`, a Kubernetes cluster.
    KubeCluster,
    /// `windows_desktop`.
    WindowsDesktop,
}

impl Kind {
    /// Every kind, in the order of their words.
    pub const ALL: [Self; 4] = [Self::App, Self::Db, Self::KubeCluster, Self::WindowsDesktop];

    /// The word in documents, resource IDs and `--kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Db => "db",
            Self::KubeCluster => "kube_cluster",
            Self::WindowsDesktop => "windows_desktop",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// What people call one of them.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::App => "application",
            Self::Db => "database",
            Self::KubeCluster => "Kubernetes cluster",
            Self::WindowsDesktop => "desktop",
        }
    }

    /// What `rules` of a role call it.
    #[must_use]
    pub const fn admin(self) -> AdminResource {
        match self {
            Self::App => AdminResource::App,
            Self::Db => AdminResource::Db,
            Self::KubeCluster => AdminResource::KubeCluster,
            Self::WindowsDesktop => AdminResource::WindowsDesktop,
        }
    }

    /// The kind in a resource ID.
    #[must_use]
    pub const fn in_id(self) -> ResourceKind {
        match self {
            Self::App => ResourceKind::App,
            Self::Db => ResourceKind::Db,
            Self::KubeCluster => ResourceKind::KubeCluster,
            Self::WindowsDesktop => ResourceKind::WindowsDesktop,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A registered application, database, Kubernetes cluster or desktop. Its name is unique among
/// those of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What people and resource IDs call it.
    pub name: ResourceName,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What roles select by.
    pub labels: BTreeMap<String, String>,
    /// What it is, and where.
    pub spec: Spec,
}

/// What a resource is, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Spec {
    /// An application.
    App {
        /// Where it is, as in `http://10.0.0.5:3000`.
        uri: String,
        /// The host name under which people know it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        public_addr: Option<String>,
    },
    /// A database.
    Db {
        /// What it speaks, as in `postgres`.
        protocol: String,
        /// Where it is, as in `10.0.0.6:5432`.
        uri: String,
    },
    /// A Kubernetes cluster.
    KubeCluster {},
    /// A desktop.
    WindowsDesktop {
        /// Where it is.
        addr: HostPort,
        /// The Active Directory domain that it is in.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        domain: Option<String>,
    },
}

impl Resource {
    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.spec {
            Spec::App { .. } => Kind::App,
            Spec::Db { .. } => Kind::Db,
            Spec::KubeCluster {} => Kind::KubeCluster,
            Spec::WindowsDesktop { .. } => Kind::WindowsDesktop,
        }
    }

    /// Its resource ID in `cluster`.
    #[must_use]
    pub fn id(&self, cluster: ClusterName) -> ResourceId {
        ResourceId::named(cluster, self.kind(), &self.name)
    }

    /// Where it is, for listings; empty for a Kubernetes cluster, of which that is not kept.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.spec {
            Spec::App { uri, .. } | Spec::Db { uri, .. } => uri.clone(),
            Spec::KubeCluster {} => String::new(),
            Spec::WindowsDesktop { addr, .. } => addr.to_string(),
        }
    }
}
