//! The state that a decision reads: users, roles, nodes and requests at one instant.
//!
//! A view is immutable and shared. A change makes a new view from the old one, and the two share
//! all that did not change: the maps are persistent trees, so that one more node among a hundred
//! thousand costs a few small copies, and an old view that somebody still reads costs as little.

mod allowances;
mod hosts;
mod nodes;
mod tokens;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use time::Duration;
use uuid::Uuid;

use crate::credential::IssuedCredential;
use crate::id::{
    ClusterName, KeyFingerprint, LockId, NodeId, NodeName, RequestId, ResourceId, RoleName,
    RuleName, UserName,
};
use crate::lock::{Lock, Locks};
use crate::mfa::SecondFactors;
use crate::monitoring::MonitoringRule;
use crate::node::Node;
use crate::request::AccessRequest;
use crate::resource::{Kind, Resource};
use crate::role::Role;
use crate::user::User;

use allowances::Allowances;
use hosts::Hosts;
use nodes::Nodes;
use tokens::Tokens;

pub use hosts::{CertifiedHost, MOST_CERTIFIED};

/// Limits and defaults of the domain that an operator may change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The longest session of a plain key, and of the access that a request gives where no role
    /// sets `max_duration`.
    pub session_ttl: Duration,
    /// How long a request may stay pending.
    pub request_ttl: Duration,
    /// How far ahead an access may be scheduled.
    pub assume_start_ahead: Duration,
    /// How many requests of one user may be pending at a time, so that one person cannot flood
    /// the reviewers.
    pub pending_per_user: usize,
    /// How many requests of one user may be filed within an hour, whatever becomes of them: each
    /// stays in the database for good.
    pub filed_per_hour: usize,
    /// The longest reason, in bytes.
    pub reason_bytes: usize,
    /// The most resource IDs in a request.
    pub resources_per_request: usize,
    /// The most bytes that a request's resource IDs take together.
    pub resource_bytes: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            session_ttl: Duration::hours(12),
            request_ttl: Duration::days(7),
            assume_start_ahead: Duration::days(7),
            pending_per_user: 50,
            filed_per_hour: 300,
            reason_bytes: 4096,
            resources_per_request: 300,
            resource_bytes: 32 * 1024,
        }
    }
}

impl Settings {
    /// How many of `resources`, from the first on, one request may hold.
    pub fn resources_that_fit<'r>(
        &self,
        resources: impl IntoIterator<Item = &'r ResourceId>,
    ) -> usize {
        let mut left = self.resource_bytes;
        let fits = |id: &&ResourceId| {
            let rest = left.checked_sub(id.to_string().len());
            left = rest.unwrap_or(left);
            rest.is_some()
        };
        let resources = resources.into_iter().take(self.resources_per_request);
        resources.take_while(fits).count()
    }
}

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

// An index whose key leads to many objects has the object's ID in the key and is read by range, so
// that it is as persistent as the maps.

#[derive(Debug, Clone, Default)]
struct Users {
    by_name: OrdMap<UserName, Arc<User>>,
    // A set, because the view must not choose if the store ever let two users share a key.
    by_key: OrdMap<KeyFingerprint, BTreeSet<UserName>>,
    // Of names that read as LOGIN@NODE, by the node.
    by_target: OrdMap<NodeName, BTreeSet<UserName>>,
}

#[derive(Debug, Clone, Default)]
struct Requests {
    by_id: OrdMap<RequestId, Arc<AccessRequest>>,
    // Pending and approved ones only: a decision looks at each of them, and a person's past grows.
    live_of: OrdSet<(UserName, RequestId)>,
}

#[derive(Debug, Clone, Default)]
struct Credentials {
    by_serial: OrdMap<u64, Arc<IssuedCredential>>,
    of: OrdSet<(UserName, u64)>,
    certified: OrdSet<(KeyFingerprint, u64)>,
}

/// Why a short request ID did not find one request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindRequestError {
    /// Shorter than four characters, or not the start of a UUID.
    #[error("`{0}` is not a request ID; write the ID or at least its first 4 characters")]
    Malformed(String),
    /// No request starts like this.
    #[error("there is no request `{0}`; `request ls` shows those you may see")]
    Unknown(String),
    /// Several do.
    #[error("`{prefix}` is the start of {count} request IDs; write more of it")]
    Ambiguous {
        /// As it was written.
        prefix: String,
        /// How many.
        count: usize,
    },
}

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

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &UserName) -> Option<&Arc<User>> {
        self.users.by_name.get(name)
    }

    /// The one user who registered that key; `None` also if two did.
    #[must_use]
    pub fn user_by_key(&self, key: &KeyFingerprint) -> Option<&Arc<User>> {
        let names = self.users.by_key.get(key)?;
        let name = names.first().filter(|_| names.len() == 1)?;
        self.user(name)
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

    /// The nodes that pin that host key, which is written as [`Node::pinned_keys`] has it.
    pub fn nodes_with_host_key<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Arc<Node>> {
        self.nodes.with_host_key(key)
    }

    /// A user whose name reads as `LOGIN@NODE` for that node.
    #[must_use]
    pub fn user_read_as_target(&self, node: &NodeName) -> Option<&Arc<User>> {
        self.users
            .by_target
            .get(node)?
            .first()
            .and_then(|name| self.user(name))
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

    /// The request of that ID.
    #[must_use]
    pub fn request(&self, id: &RequestId) -> Option<&Arc<AccessRequest>> {
        self.requests.by_id.get(id)
    }

    /// The one request whose ID starts with `prefix`, of those that `visible` lets the asker see:
    /// what one may not see makes nothing ambiguous.
    ///
    /// # Errors
    /// [`FindRequestError`] if there is none, or several, or the prefix is too short.
    pub fn find_request(
        &self,
        prefix: &str,
        visible: impl Fn(&AccessRequest) -> bool,
    ) -> Result<&Arc<AccessRequest>, FindRequestError> {
        let shown = || crate::id::printable(prefix);
        let plausible = prefix.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if prefix.len() < 4 || !plausible {
            return Err(FindRequestError::Malformed(shown()));
        }
        let least = least_with_prefix(prefix);
        let mut found = least
            .into_iter()
            .flat_map(|least| self.requests.by_id.range(least..))
            .map(|(_, request)| request)
            .take_while(|request| request.id.to_string().starts_with(prefix))
            .filter(|request| visible(request));
        let first = found
            .next()
            .ok_or_else(|| FindRequestError::Unknown(shown()))?;
        match found.count() {
            0 => Ok(first),
            more => Err(FindRequestError::Ambiguous {
                prefix: shown(),
                count: more + 1,
            }),
        }
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

    /// All users, in the order of their names.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.by_name.values()
    }

    /// All nodes, in the order of their names and, where names are equal, of their IDs.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.by_name.values()
    }

    /// All requests in whatever state, in the order of their IDs.
    pub fn requests(&self) -> impl Iterator<Item = &Arc<AccessRequest>> {
        self.requests.by_id.values()
    }

    /// The pending and approved requests of a user, in the order of their IDs.
    pub fn live_requests_of(
        &self,
        user: &UserName,
    ) -> impl Iterator<Item = &Arc<AccessRequest>> + use<'_> {
        let first = (user.clone(), RequestId::from_uuid(Uuid::nil()));
        let last = (user.clone(), RequestId::from_uuid(Uuid::max()));
        self.requests
            .live_of
            .range(first..=last)
            .filter_map(|(_, id)| self.request(id))
    }

    /// The identity certificate of that serial number, if one was issued that may still be valid.
    #[must_use]
    pub fn credential(&self, serial: u64) -> Option<&Arc<IssuedCredential>> {
        self.credentials.by_serial.get(&serial)
    }

    /// All identity certificates that may still be valid, in no order.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<IssuedCredential>> {
        self.credentials.by_serial.values()
    }

    /// Those of them that are this user's, in no order.
    pub fn credentials_of(
        &self,
        user: &UserName,
    ) -> impl Iterator<Item = &Arc<IssuedCredential>> + use<'_> {
        self.credentials
            .of
            .range((user.clone(), 0)..=(user.clone(), u64::MAX))
            .filter_map(|(_, serial)| self.credential(*serial))
    }

    /// Whose a key is that is registered nowhere, but certified: one that was made for an agent.
    #[must_use]
    pub fn user_by_certified_key(&self, key: &KeyFingerprint) -> Option<&UserName> {
        let range = (key.clone(), 0)..=(key.clone(), u64::MAX);
        let (_, serial) = self.credentials.certified.range(range).next()?;
        self.credential(*serial).map(|issued| &issued.user)
    }

    /// Adds or replaces what is remembered of identity certificates.
    #[must_use]
    pub fn with_credentials(
        mut self,
        credentials: impl IntoIterator<Item = IssuedCredential>,
    ) -> Self {
        for issued in credentials {
            self = self.without_credential(issued.serial);
            let Credentials {
                by_serial,
                of,
                certified,
            } = &mut self.credentials;
            of.insert((issued.user.clone(), issued.serial));
            certified.insert((issued.subject.clone(), issued.serial));
            by_serial.insert(issued.serial, Arc::new(issued));
        }
        self
    }

    /// Forgets an identity certificate, which counts for nothing from then on.
    #[must_use]
    pub fn without_credential(mut self, serial: u64) -> Self {
        let Credentials {
            by_serial,
            of,
            certified,
        } = &mut self.credentials;
        if let Some(known) = by_serial.remove(&serial) {
            of.remove(&(known.user.clone(), serial));
            certified.remove(&(known.subject.clone(), serial));
        }
        self
    }

    /// The devices of the user, and what was guessed wrong; `None` where there is neither.
    #[must_use]
    pub fn second_factors(&self, user: &UserName) -> Option<&Arc<SecondFactors>> {
        self.second_factors.get(user)
    }

    /// Replaces what is remembered of second factors, of these users.
    #[must_use]
    pub fn with_second_factors(
        mut self,
        known: impl IntoIterator<Item = (UserName, SecondFactors)>,
    ) -> Self {
        for (user, factors) in known {
            if factors == SecondFactors::default() {
                self.second_factors.remove(&user);
            } else {
                self.second_factors.insert(user, Arc::new(factors));
            }
        }
        self
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

    /// Adds or replaces a user.
    #[must_use]
    pub fn with_user(self, user: User) -> Self {
        self.with_users([user])
    }

    /// Adds or replaces users.
    #[must_use]
    pub fn with_users(mut self, users: impl IntoIterator<Item = User>) -> Self {
        let map = &mut self.users;
        for user in users {
            map.remove(&user.name);
            for key in &user.keys {
                map.by_key
                    .entry(key.fingerprint.clone())
                    .or_default()
                    .insert(user.name.clone());
            }
            if let Some(node) = user.name.read_as_target() {
                let users = map.by_target.entry(node).or_default();
                users.insert(user.name.clone());
            }
            map.by_name.insert(user.name.clone(), Arc::new(user));
        }
        self
    }

    /// Removes a user, if she is there.
    #[must_use]
    pub fn without_user(mut self, name: &UserName) -> Self {
        self.users.remove(name);
        self.second_factors.remove(name);
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

    /// Adds or replaces a request.
    #[must_use]
    pub fn with_request(self, request: AccessRequest) -> Self {
        self.with_requests([request])
    }

    /// Adds or replaces requests.
    #[must_use]
    pub fn with_requests(mut self, requests: impl IntoIterator<Item = AccessRequest>) -> Self {
        let map = &mut self.requests;
        for request in requests {
            map.remove(&request.id);
            if request.state.is_live() {
                map.live_of.insert((request.user.clone(), request.id));
            }
            map.by_id.insert(request.id, Arc::new(request));
        }
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

    /// Removes a request, if it is there.
    #[must_use]
    pub fn without_request(mut self, id: &RequestId) -> Self {
        self.requests.remove(id);
        self
    }
}

impl Users {
    fn remove(&mut self, name: &UserName) {
        let Some(old) = self.by_name.remove(name) else {
            return;
        };
        for key in &old.keys {
            take(&mut self.by_key, &key.fingerprint, name);
        }
        if let Some(node) = name.read_as_target() {
            take(&mut self.by_target, &node, name);
        }
    }
}

impl Requests {
    fn remove(&mut self, id: &RequestId) {
        if let Some(old) = self.by_id.remove(id) {
            self.live_of.remove(&(old.user.clone(), *id));
        }
    }
}

/// Removes `name` from the set under `key`, and the set with its last name.
fn take<K: Ord + Clone>(index: &mut OrdMap<K, BTreeSet<UserName>>, key: &K, name: &UserName) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}

/// The least request ID that starts with `prefix`; `None` if no ID can.
fn least_with_prefix(prefix: &str) -> Option<RequestId> {
    let rest = NIL_ID.get(prefix.len()..)?;
    RequestId::parse(&format!("{prefix}{rest}")).ok()
}

const NIL_ID: &str = "00000000-0000-0000-0000-000000000000";
