//! Searching for what is no node, and what the commands have in common that name it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anteroom_core::id::ResourceId;
use anteroom_core::policy::{self, Extent, KubeFilter, RequestableObjects};
use anteroom_core::predicate::ResourceEnv;
use anteroom_core::resource::{Kind, Resource};
use anteroom_core::view::View;
use serde::Serialize;

use super::args::Format;
use super::args::search::{KubeSearch, Search};
use super::io::{Caller, CommandIo};
use super::run::{Ended, Run, Stop, has_labels, matches_words};
use crate::exit::Exit;
use crate::say::{self, Cells};

/// A resource as `request search` shows it.
#[derive(Debug, Serialize)]
struct ResourceRow {
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    addr: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    labels: BTreeMap<String, String>,
    resource_id: ResourceId,
    /// `false` for a Kubernetes cluster of which only objects can be asked for.
    requestable: bool,
}

/// Objects in a Kubernetes cluster as `request search` shows them: patterns.
#[derive(Debug, Serialize)]
struct ObjectsRow {
    kind: &'static str,
    kube_cluster: String,
    kube_kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    resource_id: ResourceId,
}

/// All resources of a kind, by name.
pub(crate) fn all_resources(view: &View, kind: Kind) -> Vec<Arc<Resource>> {
    view.resources_of(kind).map(Arc::clone).collect()
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn search_resources(&mut self, kind: Kind, args: &Search) -> Ended {
        let view = self.ctx.state.view();
        let identity = self.identity("request search")?;
        let found = policy::requestable_resources(&view, identity, kind, self.ctx.state.now());
        let rows: Vec<ResourceRow> = found
            .iter()
            .filter(|found| shows(&found.resource, args))
            .map(|found| row(&view, &found.resource, &found.extent))
            .collect();
        let verbose = args.filter.verbose;
        self.rows(
            args.listing.format,
            &rows,
            |row| row,
            resource_header(verbose),
            |row, cells| resource_cells(row, verbose, cells),
        )
        .await?;
        if args.listing.format == Format::Text {
            let ids = rows.iter().filter(|row| row.requestable);
            let ids: Vec<ResourceId> = ids.map(|row| row.resource_id.clone()).collect();
            self.say_how_to_create(ids.into_iter(), view.settings())
                .await?;
        }
        if rows.iter().any(|row| !row.requestable) {
            self.note(
                "Not every cluster can be asked for as a whole; `request search --kind kube_resource` shows what can be asked for in them.",
            )
            .await?;
        }
        Ok(Exit::Done)
    }

    /// The patterns that can be asked for, for nobody can look into a Kubernetes cluster yet.
    pub(crate) async fn search_objects(&mut self, args: &Search) -> Ended {
        let view = self.ctx.state.view();
        let identity = self.identity("request search")?;
        let now = self.ctx.state.now();
        let cluster = args.kube.kube_cluster.as_deref();
        if let Some(name) = cluster {
            let kind = Some(Kind::KubeCluster);
            if policy::known_resources(&view, identity, kind, name, now).is_empty() {
                return Err(no_such_resource(Kind::KubeCluster.as_str(), name));
            }
        }
        let found = policy::requestable_objects(&view, identity, cluster, &args.kube.filter(), now);
        let rows: Vec<ObjectsRow> = found
            .iter()
            .filter(|found| {
                let cluster = &found.cluster;
                let id = found.id.to_string();
                has_labels(&cluster.labels, &args.labels)
                    && answers(cluster, args)
                    && matches_words(&args.filter.search, &[cluster.name.as_str(), &id])
            })
            .filter_map(objects_row)
            .collect();
        self.rows(
            args.listing.format,
            &rows,
            |row| row,
            &["Name", "Namespace", "Labels", "Resource ID"],
            objects_cells,
        )
        .await?;
        if args.listing.format == Format::Text {
            let ids = rows.iter().map(|row| row.resource_id.clone());
            self.say_how_to_create(ids, view.settings()).await?;
        }
        self.note(say::KUBE_OBJECTS_NOT_LISTED).await?;
        Ok(Exit::Done)
    }

    /// The resource that a word of the caller's own commands means where it is no node: `KIND/NAME`, or the name of one
    /// resource that she may know of.
    pub(crate) fn named_resource(
        &self,
        view: &View,
        text: &str,
    ) -> Result<Option<ResourceId>, Stop> {
        let usage = |error: &dyn std::fmt::Display| Stop::usage(say::clean(&error.to_string()));
        if let Some((kind, _)) = text.split_once('/') {
            if kind != "node" {
                let whole = format!("/{}/{text}", view.cluster());
                return ResourceId::parse(&whole).map(Some).map_err(|e| usage(&e));
            }
            return Ok(None);
        }
        let found = match self.caller {
            Caller::Local => Kind::ALL
                .into_iter()
                .filter_map(|kind| view.resource(kind, text).map(Arc::clone))
                .collect(),
            Caller::Ssh { identity, .. } => {
                policy::known_resources(view, identity, None, text, self.ctx.state.now())
            }
        };
        let ids: Vec<ResourceId> = found
            .iter()
            .map(|resource| resource.id(view.cluster().clone()))
            .collect();
        match ids.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => Err(Stop::usage(format!(
                "`{}` is the name of several resources; write {}",
                say::clean(text),
                several
                    .iter()
                    .map(|id| format!("`{}`", id.short()))
                    .collect::<Vec<_>>()
                    .join(" or ")
            ))),
        }
    }
}

impl KubeSearch {
    fn filter(&self) -> KubeFilter {
        KubeFilter {
            plural: self.kube_kind.clone().filter(|kind| kind != "*"),
            group: self.kube_api_group.clone().filter(|group| group != "*"),
            namespace: self.kube_namespace.clone(),
        }
    }
}

/// What is said of a resource that does not exist, or may not be known.
pub(crate) fn no_such_resource(kind: &str, name: &str) -> Stop {
    Stop::not_found(say::no_such_resource(kind, name))
}

fn shows(resource: &Resource, args: &Search) -> bool {
    let address = resource.address();
    let mut texts: Vec<Cow<'_, str>> = vec![
        Cow::Borrowed(resource.name.as_str()),
        Cow::Borrowed(address.as_str()),
        Cow::Borrowed(resource.description.as_deref().unwrap_or_default()),
    ];
    for (key, value) in &resource.labels {
        texts.extend([key, value].map(|text| Cow::Borrowed(text.as_str())));
    }
    has_labels(&resource.labels, &args.labels)
        && matches_words(&args.filter.search, &texts)
        && answers(resource, args)
}

/// Whether `--query`, if it is given, is true for the resource.
fn answers(resource: &Resource, args: &Search) -> bool {
    let address = resource.address();
    args.filter.query.as_ref().is_none_or(|query| {
        query.allows(&ResourceEnv {
            kind: resource.kind().as_str(),
            metadata_name: resource.name.as_str(),
            name: resource.name.as_str(),
            hostname: "",
            addr: &address,
            description: resource.description.as_deref().unwrap_or_default(),
            labels: &resource.labels,
        })
    })
}

fn row(view: &View, resource: &Resource, extent: &Extent) -> ResourceRow {
    ResourceRow {
        kind: resource.kind().as_str(),
        name: resource.name.to_string(),
        addr: resource.address(),
        description: resource.description.clone(),
        labels: resource.labels.clone(),
        resource_id: resource.id(view.cluster().clone()),
        requestable: match extent {
            Extent::Whole(_) => true,
            Extent::Objects => false,
        },
    }
}

fn objects_row(found: &RequestableObjects) -> Option<ObjectsRow> {
    let objects = found.id.kube_objects()?;
    let object = found.id.kube_object()?;
    Some(ObjectsRow {
        kind: "kube_resource",
        kube_cluster: found.cluster.name.to_string(),
        kube_kind: objects.kinds.to_string(),
        namespace: object.namespace.map(str::to_owned),
        name: object.name.to_owned(),
        resource_id: found.id.clone(),
    })
}

fn resource_header(verbose: bool) -> &'static [&'static str] {
    if verbose {
        &[
            "Name",
            "Hostname",
            "Address",
            "Labels",
            "Description",
            "Resource ID",
        ]
    } else {
        &["Name", "Hostname", "Labels", "Resource ID"]
    }
}

fn resource_cells(row: &ResourceRow, verbose: bool, cells: &mut Cells) {
    cells.push(&row.name);
    // Only nodes have a host name of their own, as in `tsh`.
    cells.push("");
    if verbose {
        cells.push(&row.addr);
    }
    cells.push_with(|text| say::write_labels(text, &row.labels));
    if verbose {
        cells.push(row.description.as_deref().unwrap_or_default());
    }
    cells.push_shown(&row.resource_id);
}

fn objects_cells(row: &ObjectsRow, cells: &mut Cells) {
    cells.push(&row.name);
    cells.push(row.namespace.as_deref().unwrap_or_default());
    cells.push("");
    cells.push_shown(&row.resource_id);
}
