//! What a person reaches, may ask for and may know of besides nodes: one evaluation for every
//! kind, with the objects inside Kubernetes clusters.
//!
//! There is no permit for any of it: connecting is not served yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::id::{Compared, ResourceId, RoleName};
use crate::kube::{KubeKinds, KubeObjects, KubeRule, KubeVerb, OneObject, Place, Plural};
use crate::pattern::Pattern;
use crate::request::Reach;
use crate::resource::{Kind, Resource};
use crate::role::{RequestConditions, Role, Set};
use crate::user::User;
use crate::view::View;

use super::Identity;
use super::subject::{OpenedRole, Subject};

/// A registered resource, or objects inside a Kubernetes cluster, that somebody speaks of.
pub(crate) struct Thing<'a> {
    pub(crate) resource: &'a Arc<Resource>,
    id: ResourceId,
    /// Those inside a Kubernetes cluster; `None` means the resource as a whole.
    objects: Option<KubeObjects>,
    /// What is done with them, where it is known: when something is done.
    verb: Option<KubeVerb>,
}

impl<'a> Thing<'a> {
    /// The whole of `resource`.
    fn whole(view: &View, resource: &'a Arc<Resource>) -> Self {
        Self {
            resource,
            id: resource.id(view.cluster().clone()),
            objects: None,
            verb: None,
        }
    }

    /// What `id` names, if it is registered; `None` for nodes.
    pub(crate) fn named(view: &'a View, id: &ResourceId) -> Option<Self> {
        Some(Self {
            resource: view.resource_of(id)?,
            objects: id.kube_objects(),
            id: id.clone(),
            verb: None,
        })
    }

    pub(crate) fn selected_by(&self, role: &Role, user: &User) -> bool {
        selects(role, self.resource, user)
    }

    /// Whether one role grants it.
    pub(crate) fn granted_by(&self, role: &Role, user: &User) -> bool {
        let rules = &role.allow.resources.kubernetes_resources;
        self.selected_by(role, user)
            && match (&self.objects, self.resource.kind()) {
                (Some(objects), _) => rules
                    .iter()
                    .filter(|rule| self.verb.is_none_or(|verb| rule.verbs.contains(&verb)))
                    .any(|rule| rule.objects.contains(objects)),
                // A cluster without anything in it is nothing.
                (None, Kind::KubeCluster) => !rules.is_empty(),
                (None, Kind::App | Kind::Db | Kind::WindowsDesktop) => true,
            }
    }

    /// Whether one role takes it away, from every role.
    pub(crate) fn denied_by(&self, role: &Role, user: &User) -> bool {
        if role.unreadable.is_some() {
            // What it may have denied is not known.
            return true;
        }
        let deny = &role.deny.resources;
        // A rule for some verbs leaves the others: before it is known what is done, it takes nothing.
        let every = |rule: &&KubeRule| match self.verb {
            Some(verb) => rule.verbs.contains(&verb),
            None => rule.verbs == Set::Every,
        };
        let holds = |objects: &KubeObjects| {
            deny.kubernetes_resources
                .iter()
                .filter(every)
                .any(|rule| rule.objects.contains(objects))
        };
        let kind = self.resource.kind();
        deny.labels(kind).matches(&self.resource.labels, user)
            || match (&self.objects, kind) {
                (Some(objects), _) => holds(objects),
                (None, Kind::KubeCluster) => holds(&KubeObjects::everything()),
                (None, Kind::App | Kind::Db | Kind::WindowsDesktop) => false,
            }
    }

    /// Whether `request` conditions let it be asked for, as far as they limit what is asked for in
    /// a Kubernetes cluster.
    fn may_be_asked_for(&self, request: &RequestConditions) -> bool {
        let kinds = &request.kubernetes_resources;
        kinds.is_empty()
            || match (&self.objects, self.resource.kind()) {
                (Some(objects), _) => kinds.iter().any(|kind| kind.contains(&objects.kinds)),
                (None, Kind::KubeCluster) => false,
                (None, Kind::App | Kind::Db | Kind::WindowsDesktop) => true,
            }
    }

    /// Whether the `request` conditions of a deny forbid it: any kind that it holds is enough.
    fn may_not_be_asked_for(&self, request: &RequestConditions) -> bool {
        let kinds = &request.kubernetes_resources;
        match (&self.objects, self.resource.kind()) {
            (Some(objects), _) => kinds.iter().any(|kind| kind.might_share(&objects.kinds)),
            (None, Kind::KubeCluster) => !kinds.is_empty(),
            (None, Kind::App | Kind::Db | Kind::WindowsDesktop) => false,
        }
    }
}

fn selects(role: &Role, resource: &Resource, user: &User) -> bool {
    let labels = role.allow.resources.labels(resource.kind());
    labels.matches(&resource.labels, user)
}

/// Why something can't be asked for by somebody who may know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unaskable {
    /// Her roles limit what may be asked for in a Kubernetes cluster.
    Kinds {
        /// To these kinds; empty where they don't.
        possible: BTreeSet<String>,
        /// Without these.
        never: BTreeSet<String>,
    },
    /// None of the roles that she may ask through grants all of it.
    NotGranted,
}

impl<'a> Subject<'a> {
    /// Whether it works now.
    pub(crate) fn reaches_thing(&self, thing: &Thing<'_>) -> bool {
        if self.denies_thing(thing) || !self.includes_id(&thing.id) {
            return false;
        }
        let granting: Vec<&Role> = self.granting(thing).collect();
        if thing.objects.is_some() || thing.resource.kind() != Kind::KubeCluster {
            return !granting.is_empty();
        }
        // A part of a cluster is not the cluster, as long as more of it can be asked for.
        !granting.is_empty() && !self.asked_through(thing).any(|role| adds(role, &granting))
    }

    /// The roles that grant it now.
    fn granting<'s>(&'s self, thing: &'s Thing<'_>) -> impl Iterator<Item = &'a Role> + 's {
        let counts = self.standing_reaches();
        let standing = self.standing.iter().copied().filter(move |_| counts);
        let wanted = Compared::new(&thing.id);
        let denied = |role: &Role| thing.denied_by(role, self.user);
        let opened = self
            .opened_for(&wanted, denied)
            .filter(|opened| match opened.reach {
                Reach::Roles => true,
                Reach::Resources(_) => opened.overridden || self.asks_through(thing, opened.role),
            });
        let opened: Vec<&'a Role> = opened.map(|opened| opened.role).collect();
        standing
            .chain(opened)
            .filter(|role| thing.granted_by(role, self.user))
    }

    /// The roles through which it can be asked for: those that really grant it. Empty where it
    /// works already or can't be had.
    pub(crate) fn roles_to_ask(&self, thing: &Thing<'_>) -> BTreeSet<RoleName> {
        let shut = self.denies_thing(thing) || !self.includes_id(&thing.id);
        if shut || self.reaches_thing(thing) {
            return BTreeSet::new();
        }
        let granting: Vec<&Role> = self.granting(thing).collect();
        let whole_cluster = thing.objects.is_none() && thing.resource.kind() == Kind::KubeCluster;
        self.asked_through(thing)
            .filter(|role| !whole_cluster || adds(role, &granting))
            .map(|role| role.name.clone())
            .collect()
    }

    /// The search roles that grant it and that no condition keeps from being asked for.
    fn asked_through<'s>(&'s self, thing: &'s Thing<'_>) -> impl Iterator<Item = &'a Role> + 's {
        self.searchable().iter().copied().filter(|role| {
            thing.granted_by(role, self.user)
                && !thing.denied_by(role, self.user)
                && self.asks_through(thing, role)
        })
    }

    /// Whether the user's standing roles let her ask for it through `role`.
    fn asks_through(&self, thing: &Thing<'_>, role: &Role) -> bool {
        let allows = |holder: &&&Role| {
            let request = &holder.allow.request;
            request.search_as_roles.contains(&role.name) && thing.may_be_asked_for(request)
        };
        self.may_search(&role.name)
            && self.standing.iter().any(|holder| allows(&holder))
            && !self
                .stored()
                .any(|holder| thing.may_not_be_asked_for(&holder.deny.request))
    }

    fn denies_thing(&self, thing: &Thing<'_>) -> bool {
        self.deniers().any(|role| thing.denied_by(role, self.user))
    }

    /// Whether the user may know that `resource` exists: something of it works, or could be asked
    /// for through a role that selects it.
    pub(crate) fn may_know_resource(&self, resource: &Arc<Resource>) -> bool {
        if !self.locks.is_empty() {
            // A lock shuts and does not hide.
            return self.as_if_nothing_were_locked().may_know_resource(resource);
        }
        let whole = Thing::whole(self.view, resource);
        let denied = |role: &Role| {
            let labels = role.deny.resources.labels(resource.kind());
            role.unreadable.is_some() || labels.matches(&resource.labels, self.user)
        };
        if self.deniers().any(denied) {
            return false;
        }
        let inside = |id: &ResourceId| id.registered() == whole.id.registered();
        let opened = |opened: OpenedRole<'_>| {
            let listed = match opened.reach {
                Reach::Roles => true,
                Reach::Resources(ids) => ids
                    .iter()
                    .any(|id| id.cluster() == whole.id.cluster() && inside(id)),
            };
            listed && selects(opened.role, resource, self.user)
        };
        self.standing
            .iter()
            .any(|role| selects(role, resource, self.user))
            || self.opened(denied).any(opened)
            || self
                .searchable()
                .iter()
                .any(|role| selects(role, resource, self.user) && !denied(role))
    }

    /// Why it can't be asked for; the caller has found that it can't, and that she may know of it.
    pub(crate) fn why_unaskable(&self, thing: &Thing<'_>) -> Unaskable {
        let granted: Vec<&Role> = self
            .searchable()
            .iter()
            .copied()
            .filter(|role| thing.granted_by(role, self.user) && !thing.denied_by(role, self.user))
            .collect();
        if granted.is_empty() || self.denies_thing(thing) {
            return Unaskable::NotGranted;
        }
        let holders = self.standing.iter().filter(|holder| {
            let search = &holder.allow.request.search_as_roles;
            granted.iter().any(|role| search.contains(&role.name))
        });
        let words = |request: &RequestConditions| -> Vec<String> {
            let kinds = request.kubernetes_resources.iter();
            kinds.map(ToString::to_string).collect()
        };
        let denied = self.stored();
        Unaskable::Kinds {
            possible: holders
                .flat_map(|holder| words(&holder.allow.request))
                .collect(),
            never: denied
                .flat_map(|holder| words(&holder.deny.request))
                .collect(),
        }
    }
}

/// Whether `role` grants something in a cluster that none of `granting` does.
fn adds(role: &Role, granting: &[&Role]) -> bool {
    let rules = |role: &Role| role.allow.resources.kubernetes_resources.clone();
    rules(role).iter().any(|rule| {
        !granting.iter().any(|other| {
            let theirs = &other.allow.resources.kubernetes_resources;
            theirs.iter().any(|their| {
                their.objects.contains(&rule.objects)
                    && (their.verbs == Set::Every || their.verbs == rule.verbs)
            })
        })
    })
}

/// Whether `identity` may do `verb` with one object in a Kubernetes cluster at `now`. What a role
/// denies is denied here, however wide the pattern was that was asked for and approved.
#[must_use]
pub fn reaches_object(
    view: &View,
    identity: &Identity,
    object: &OneObject,
    verb: KubeVerb,
    now: OffsetDateTime,
) -> bool {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return false;
    };
    let thing = Thing::named(view, object.id());
    thing.is_some_and(|thing| {
        let verb = Some(verb);
        subject.unproven(identity).is_none() && subject.reaches_thing(&Thing { verb, ..thing })
    })
}

/// A resource that could be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestableResource {
    /// The resource.
    pub resource: Arc<Resource>,
    /// How much of it.
    pub extent: Extent,
}

/// How much of a resource could be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// All of it, through these roles.
    Whole(BTreeSet<RoleName>),
    /// Objects in a Kubernetes cluster, and not the cluster.
    Objects,
}

/// The resources of `kind` that `identity` could ask for at `now`, by name: those that do not work
/// yet.
#[must_use]
pub fn requestable_resources(
    view: &View,
    identity: &Identity,
    kind: Kind,
    now: OffsetDateTime,
) -> Vec<RequestableResource> {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Vec::new();
    };
    let found = view.resources_of(kind).filter_map(|resource| {
        let roles = subject.roles_to_ask(&Thing::whole(view, resource));
        let extent = if !roles.is_empty() {
            Extent::Whole(roles)
        } else if !objects_of(&subject, resource, &KubeFilter::default()).is_empty() {
            Extent::Objects
        } else {
            return None;
        };
        Some(RequestableResource {
            resource: Arc::clone(resource),
            extent,
        })
    });
    found.collect()
}

/// Which objects a search is for; `None` leaves it open.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KubeFilter {
    /// The plural.
    pub plural: Option<String>,
    /// The API group; the core group is the empty text.
    pub group: Option<String>,
    /// The namespace, which also leaves out what is in none.
    pub namespace: Option<String>,
}

/// Objects of a Kubernetes cluster that could be asked for, as the roles to ask through name
/// them: patterns, for nobody has looked into the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestableObjects {
    /// The cluster.
    pub cluster: Arc<Resource>,
    /// What to ask for.
    pub id: ResourceId,
    /// Through which roles.
    pub roles: BTreeSet<RoleName>,
}

/// The widest patterns of objects that `identity` could ask for at `now`, in the order of
/// clusters and IDs, and of one cluster if `cluster` names it.
#[must_use]
pub fn requestable_objects(
    view: &View,
    identity: &Identity,
    cluster: Option<&str>,
    filter: &KubeFilter,
    now: OffsetDateTime,
) -> Vec<RequestableObjects> {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Vec::new();
    };
    let clusters = view
        .resources_of(Kind::KubeCluster)
        .filter(|resource| cluster.is_none_or(|name| resource.name.as_str() == name));
    clusters
        .flat_map(|resource| objects_of(&subject, resource, filter))
        .collect()
}

/// What `subject` could ask for in `resource`; nothing where that is no Kubernetes cluster.
fn objects_of(
    subject: &Subject<'_>,
    resource: &Arc<Resource>,
    filter: &KubeFilter,
) -> Vec<RequestableObjects> {
    if resource.kind() != Kind::KubeCluster || !subject.may_know_resource(resource) {
        return Vec::new();
    }
    let mut ids: BTreeSet<ResourceId> = BTreeSet::new();
    for role in subject.searchable() {
        if !selects(role, resource, subject.user) {
            continue;
        }
        for rule in &role.allow.resources.kubernetes_resources {
            for objects in narrowed(&rule.objects, &limits(subject, role), filter) {
                let id = |text: String| {
                    ResourceId::parse(&format!("/{}/{text}", subject.view.cluster())).ok()
                };
                let parsed = objects.in_ids(resource.name.as_str()).into_iter();
                ids.extend(parsed.filter_map(id));
            }
        }
    }
    // What a wider pattern holds needs no line of its own.
    let compared = Compared::all(&ids);
    let widest = compared.iter().filter(|id| {
        let mut others = compared.iter().filter(|other| other.id() != id.id());
        !others.any(|other| other.covers(id))
    });
    let found = widest.map(Compared::id).filter_map(|id| {
        let thing = Thing::named(subject.view, id)?;
        let roles = subject.roles_to_ask(&thing);
        (!roles.is_empty()).then(|| RequestableObjects {
            cluster: Arc::clone(resource),
            id: id.clone(),
            roles,
        })
    });
    found.collect()
}

/// The kinds to which asking through `role` is limited; one that is everything where it is not.
fn limits(subject: &Subject<'_>, role: &Role) -> Vec<KubeKinds> {
    let holders = subject
        .standing
        .iter()
        .map(|holder| &holder.allow.request)
        .filter(|request| request.search_as_roles.contains(&role.name));
    let mut kinds = Vec::new();
    for request in holders {
        if request.kubernetes_resources.is_empty() {
            return vec![KubeObjects::everything().kinds];
        }
        kinds.extend(request.kubernetes_resources.iter().cloned());
    }
    kinds
}

/// What of `objects` is within `limits` and the filter.
fn narrowed(objects: &KubeObjects, limits: &[KubeKinds], filter: &KubeFilter) -> Vec<KubeObjects> {
    let asked = KubeKinds {
        plural: filter
            .plural
            .as_deref()
            .map_or(Plural::Every, Plural::of_word),
        group: filter
            .group
            .as_deref()
            .map_or_else(Pattern::anything, Pattern::literal_of),
    };
    let Some(place) = placed(&objects.place, filter.namespace.as_deref()) else {
        return Vec::new();
    };
    let kinds = limits
        .iter()
        .filter_map(|limit| objects.kinds.both(limit)?.both(&asked));
    kinds
        .map(|kinds| KubeObjects {
            kinds,
            place: place.clone(),
            name: objects.name.clone(),
        })
        .collect()
}

fn placed(place: &Place, namespace: Option<&str>) -> Option<Place> {
    let Some(namespace) = namespace else {
        return Some(place.clone());
    };
    let wanted = Pattern::literal_of(namespace);
    match place {
        Place::ClusterWide => None,
        Place::Anywhere => Some(Place::Namespaced(wanted)),
        Place::Namespaced(own) => own.contains(&wanted).then(|| Place::Namespaced(wanted)),
    }
}

/// The resources of that name that `identity` may know of at `now`, in the order of their kinds,
/// and of one kind if `kind` is given.
#[must_use]
pub fn known_resources(
    view: &View,
    identity: &Identity,
    kind: Option<Kind>,
    name: &str,
    now: OffsetDateTime,
) -> Vec<Arc<Resource>> {
    let Ok(subject) = Subject::new(view, identity.user(), identity.holder(), now) else {
        return Vec::new();
    };
    let kinds = Kind::ALL
        .into_iter()
        .filter(|other| kind.is_none_or(|kind| kind == *other));
    kinds
        .filter_map(|kind| view.resource(kind, name))
        .filter(|resource| subject.may_know_resource(resource))
        .map(Arc::clone)
        .collect()
}
