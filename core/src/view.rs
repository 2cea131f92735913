//! The state that a decision reads: users, roles, nodes and requests at one instant.
//!
//! A view is immutable and shared. A change makes a new view from the old one, and the two share
//! all that did not change: the maps are persistent trees, so that one more node among a hundred
//! thousand costs a few small copies, and an old view that somebody still reads costs as little.
//!
//! An index whose key leads to many objects has the object's ID in the key and is read by range, so
//! that it is as persistent as the maps.

mod allowances;
mod credentials;
mod hosts;
mod nodes;
mod requests;
mod settings;
mod tokens;
mod users;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use uuid::Uuid;

use crate::id::{ClusterName, LockId, NodeId, NodeName, ResourceId, RoleName, RuleName, UserName};
use crate::lock::{Lock, Locks};
use crate::mfa::SecondFactors;
use crate::monitoring::MonitoringRule;
use crate::node::Node;
use crate::resource::{Kind, Resource};
use crate::role::Role;
use crate::user::User;

use allowances::Allowances;
use credentials::Credentials;
use hosts::Hosts;
use nodes::Nodes;
use requests::Requests;
use tokens::Tokens;
use users::Users;

pub use hosts::{CertifiedHost, MOST_CERTIFIED};
pub use requests::FindRequestError;
pub use settings::Settings;

/// Everything that a decision needs, at one instant. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct View {
    cluster: ClusterName,
    settings: Arc<Settings>,
    roles: OrdMap<RoleName, Arc<Role>>,
    users: Users,
    nodes: Nodes,
    hosts: Hosts,
    resources: Resources,
    requests: Requests,
    // Few, and changed seldom: copied on a change, and nothing else is then.
    locks: Arc<Locks>,
    // At most `MOST_RULES`, and copied as locks are.
    monitoring: Arc<BTreeMap<RuleName, Arc<MonitoringRule>>>,
    credentials: Credentials,
    allowances: Allowances,
    tokens: Tokens,
    second_factors: OrdMap<UserName, Arc<SecondFactors>>,
}

/// What is registered besides nodes, by kind and name: one map, because every question names a
/// kind first.
type Resources = OrdMap<(Kind, String), Arc<Resource>>;

impl View {
    /// A view with settings and nothing else.
    #[must_use]
    pub fn new(cluster: ClusterName, settings: Settings) -> Self {
        Self {
            cluster,
            settings: Arc::new(settings),
            roles: OrdMap::default(),
            users: Users::default(),
            nodes: Nodes::default(),
            hosts: Hosts::default(),
            resources: Resources::default(),
            requests: Requests::default(),
            locks: Arc::default(),
            monitoring: Arc::default(),
            credentials: Credentials::default(),
            allowances: Allowances::default(),
            tokens: Tokens::default(),
            second_factors: OrdMap::new(),
        }
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// Limits and defaults.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The role of that name.
    #[must_use]
    pub fn role(&self, name: &RoleName) -> Option<&Arc<Role>> {
        self.roles.get(name)
    }

    /// The roles of these names that exist. The names come in ascending order, each once.
    pub(crate) fn roles_named<'a, 'n>(
        &'a self,
        names: impl ExactSizeIterator<Item = &'n RoleName>,
    ) -> impl Iterator<Item = &'a Arc<Role>> {
        // To pass by a role costs a fraction of looking it up: who has many of them is served
        // faster by walking along all.
        let walk = names.len() > self.roles.len() / 8;
        let mut rest = self.roles.iter().peekable();
        names.filter_map(move |name| {
            if !walk {
                return self.role(name);
            }
            while let Some((here, _)) = rest.peek() {
                match (*here).cmp(name) {
                    Ordering::Less => drop(rest.next()),
                    Ordering::Equal => return rest.next().map(|(_, role)| role),
                    Ordering::Greater => break,
                }
            }
            None
        })
    }

    /// The node of that ID.
    #[must_use]
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.by_id.get(id)
    }

    /// The nodes of that name, in the order of their IDs.
    pub fn nodes_named(&self, name: &NodeName) -> impl Iterator<Item = &Arc<Node>> + use<'_> {
        let first = (name.clone(), NodeId::from_uuid(Uuid::nil()));
        let last = (name.clone(), NodeId::from_uuid(Uuid::max()));
        self.nodes.by_name.range(first..=last).map(|(_, node)| node)
    }

    /// The nodes whose address has that host; IP addresses are compared as addresses.
    pub fn nodes_at<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Arc<Node>> {
        self.nodes.at(host)
    }

    /// The nodes that are registered by an IP address of the same [`source_network`](crate::node::source_network).
    pub fn nodes_around(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.around(address)
    }

    /// The nodes that pin that host key, which is written as [`Node::pinned_keys`] has it.
    pub fn nodes_with_host_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Arc<Node>> {
        self.nodes.with_host_key(key)
    }

    /// The resource of that kind and name.
    #[must_use]
    pub fn resource(&self, kind: Kind, name: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&(kind, name.to_owned()))
    }

    /// The resource of this cluster that `id` names, or whose objects it names; `None` for nodes.
    #[must_use]
    pub fn resource_of(&self, id: &ResourceId) -> Option<&Arc<Resource>> {
        let (kind, name) = id.registered()?;
        self.resource(kind, name)
            .filter(|_| id.cluster() == self.cluster())
    }

    /// All resources that are no nodes, by kind and name.
    pub fn resources(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }

    /// Those of one kind, by name.
    pub fn resources_of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        // The empty name is nobody's and comes first.
        self.resources
            .range((kind, String::new())..)
            .take_while(move |((other, _), _)| *other == kind)
            .map(|(_, resource)| resource)
    }

    /// All locks.
    #[must_use]
    pub fn locks(&self) -> &Locks {
        &self.locks
    }

    /// Whether the user may neither administer nor review: she, or a role that she has, is locked.
    /// A lock that has ended counts until it is removed, which is at most a moment.
    #[must_use]
    pub fn is_locked_out(&self, user: &User) -> bool {
        let locks = self.locks();
        // Before every lock ends, and so as if none ever did.
        let always = time::OffsetDateTime::UNIX_EPOCH;
        user.locked.is_some() || locks.on_person(user, None, always).is_some()
    }

    /// The access monitoring rule of that name.
    #[must_use]
    pub fn monitoring_rule(&self, name: &RuleName) -> Option<&Arc<MonitoringRule>> {
        self.monitoring.get(name)
    }

    /// All access monitoring rules, in the order of their names.
    pub fn monitoring_rules(&self) -> impl Iterator<Item = &Arc<MonitoringRule>> {
        self.monitoring.values()
    }

    /// Whether both have the same access monitoring rules, as far as can be told at a glance.
    #[must_use]
    pub fn has_monitoring_rules_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.monitoring, &other.monitoring)
    }

    /// All roles, in the order of their names.
    pub fn roles(&self) -> impl Iterator<Item = &Arc<Role>> {
        self.roles.values()
    }

    /// All nodes, in the order of their names and, where names are equal, of their IDs.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.by_name.values()
    }

    /// Changes settings.
    #[must_use]
    pub fn with_settings(mut self, settings: Settings) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// Adds or replaces a role.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        self.with_roles([role])
    }

    /// Adds or replaces roles.
    #[must_use]
    pub fn with_roles(mut self, roles: impl IntoIterator<Item = Role>) -> Self {
        for role in roles {
            self.roles.insert(role.name.clone(), Arc::new(role));
        }
        self
    }

    /// Removes a role, if it is there.
    #[must_use]
    pub fn without_role(mut self, name: &RoleName) -> Self {
        self.roles.remove(name);
        self
    }

    /// Adds or replaces a node.
    #[must_use]
    pub fn with_node(self, node: Node) -> Self {
        self.with_nodes([node])
    }

    /// Adds or replaces nodes.
    #[must_use]
    pub fn with_nodes(mut self, nodes: impl IntoIterator<Item = Node>) -> Self {
        nodes.into_iter().for_each(|node| self.nodes.insert(node));
        self
    }

    /// Removes a node, if it is there.
    #[must_use]
    pub fn without_node(mut self, id: &NodeId) -> Self {
        self.nodes.remove(id);
        self.hosts.forget(id);
        self
    }

    /// Adds or replaces a resource that is no node.
    #[must_use]
    pub fn with_resource(self, resource: Resource) -> Self {
        self.with_resources([resource])
    }

    /// Adds or replaces resources that are no nodes.
    #[must_use]
    pub fn with_resources(mut self, resources: impl IntoIterator<Item = Resource>) -> Self {
        for resource in resources {
            let key = (resource.kind(), resource.name.to_string());
            self.resources.insert(key, Arc::new(resource));
        }
        self
    }

    /// Removes a resource that is no node, if it is there.
    #[must_use]
    pub fn without_resource(mut self, kind: Kind, name: &str) -> Self {
        self.resources.remove(&(kind, name.to_owned()));
        self
    }

    /// Adds a lock, or replaces the one of its ID.
    #[must_use]
    pub fn with_lock(self, lock: Lock) -> Self {
        self.with_locks([lock])
    }

    /// Adds or replaces locks.
    #[must_use]
    pub fn with_locks(mut self, locks: impl IntoIterator<Item = Lock>) -> Self {
        let all = Arc::make_mut(&mut self.locks);
        locks.into_iter().for_each(|lock| all.insert(lock));
        self
    }

    /// Removes a lock, if it is there.
    #[must_use]
    pub fn without_lock(mut self, id: &LockId) -> Self {
        Arc::make_mut(&mut self.locks).remove(id);
        self
    }

    /// Adds or replaces access monitoring rules.
    #[must_use]
    pub fn with_monitoring_rules(
        mut self,
        rules: impl IntoIterator<Item = MonitoringRule>,
    ) -> Self {
        let all = Arc::make_mut(&mut self.monitoring);
        all.extend(
            rules
                .into_iter()
                .map(|rule| (rule.name.clone(), Arc::new(rule))),
        );
        self
    }

    /// Removes an access monitoring rule, if it is there.
    #[must_use]
    pub fn without_monitoring_rule(mut self, name: &RuleName) -> Self {
        Arc::make_mut(&mut self.monitoring).remove(name);
        self
    }
}
