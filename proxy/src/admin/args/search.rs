//! `ls` and `request search`: which nodes and other resources are shown.

use anteroom_core::predicate::{Predicate, Resource};
use anteroom_core::resource;
use clap::Args;

use super::Listing;
use super::values::pair;

/// Which nodes a listing shows.
#[derive(Debug, Args)]
pub(crate) struct NodeFilter {
    /// Only those for which an expression is true, like labels["env"] == "prod"
    #[arg(long, allow_hyphen_values = true, value_parser = Predicate::<Resource>::parse, value_name = "EXPR")]
    pub(crate) query: Option<Predicate<Resource>>,
    /// Words that all have to occur in a node's name, address or labels
    #[arg(long, value_delimiter = ',', value_name = "WORD,...")]
    pub(crate) search: Vec<String>,
    /// Show node IDs too
    #[arg(short, long)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only nodes with these labels
    #[arg(value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) filter: NodeFilter,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = false, args = ["kind", "roles"])]
pub(crate) struct Search {
    /// The kind: node, db, app, kube_cluster, kube_resource or windows_desktop
    #[arg(long, value_parser = kind)]
    pub(crate) kind: Option<Kind>,
    /// Search for roles in place of resources
    #[arg(long)]
    pub(crate) roles: bool,
    #[command(flatten)]
    pub(crate) filter: NodeFilter,
    /// Only resources with these labels
    #[arg(long, value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE,...")]
    pub(crate) labels: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) kube: KubeSearch,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// Which objects in Kubernetes clusters a search for `kube_resource` shows.
#[derive(Debug, Args)]
pub(crate) struct KubeSearch {
    /// Only in this Kubernetes cluster
    #[arg(long = "kube-cluster", value_name = "NAME")]
    pub(crate) kube_cluster: Option<String>,
    /// Only objects of this kind, by its plural, like pods
    #[arg(long = "kube-kind", value_name = "PLURAL")]
    pub(crate) kube_kind: Option<String>,
    /// Only of this API group, like apps; '' is the core group
    #[arg(long = "kube-api-group", value_name = "GROUP")]
    pub(crate) kube_api_group: Option<String>,
    /// Only in this namespace
    #[arg(
        long = "kube-namespace",
        value_name = "NAME",
        conflicts_with = "all_kube_namespaces"
    )]
    pub(crate) kube_namespace: Option<String>,
    /// In every namespace, which is what happens without --kube-namespace as well
    #[arg(long = "all-kube-namespaces")]
    pub(crate) all_kube_namespaces: bool,
}

impl KubeSearch {
    /// Whether any of it is.
    pub(crate) fn is_given(&self) -> bool {
        self.all_kube_namespaces
            || [
                &self.kube_cluster,
                &self.kube_kind,
                &self.kube_api_group,
                &self.kube_namespace,
            ]
            .iter()
            .any(|option| option.is_some())
    }
}

/// Kinds of resources that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Node,
    /// Another registered resource.
    Registered(resource::Kind),
    /// Objects inside a Kubernetes cluster.
    KubeResource,
}

fn kind(text: &str) -> Result<Kind, String> {
    match text {
        "node" => Ok(Kind::Node),
        "kube_resource" => Ok(Kind::KubeResource),
        text => resource::Kind::of_word(text)
            .map(Kind::Registered)
            .ok_or_else(|| {
                "there is no such kind; write node, db, app, kube_cluster, kube_resource or windows_desktop"
                    .to_owned()
            }),
    }
}
