//! Locks: what is shut at once, whoever it was granted to, until the lock is taken away or ends.
//!
//! A lock names one target. Every decision looks the targets of an access up here: the user, the key
//! she came with, her roles, the request that would grant, the login and the node. Locks add nothing
//! to anybody's rights and weigh more than any grant; what is locked gets no certificate, and what
//! lives under it ends.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::id::{KeyFingerprint, LockId, Login, NodeId, RequestId, RoleName, UserName};
use crate::user::User;

/// The most locks there are at a time: room for every user of a large cluster, and a bound on what is
/// held in memory and written into a revocation list.
pub const MOST_LOCKS: usize = 10_000;

/// The longest message, in bytes; it is shown in one line.
pub const LONGEST_MESSAGE: usize = 1024;

/// A lock, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// What `locks rm` takes.
    pub id: LockId,
    /// What it shuts.
    pub target: LockTarget,
    /// Why, as its maker wrote it; shown to whom it shuts out. May be empty.
    pub message: String,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// Who made it.
    pub created_by: String,
    /// When it ends (exclusive); `None`: when it is taken away.
    #[serde(with = "time::serde::rfc3339::option")]
    pub expires: Option<OffsetDateTime>,
}

/// What a lock shuts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockTarget {
    /// Everything that the user does, by whatever key.
    User(UserName),
    /// Everything that is done with a key, as the key of a user or in a certificate.
    Key(KeyFingerprint),
    /// Everything that anybody does who has the role, and every request that gives it.
    Role(RoleName),
    /// What a request gives or would give.
    Request(RequestId),
    /// A login, on every node.
    Login(Login),
    /// A node, for every login.
    Node(NodeId),
    /// The certificate of that serial number.
    Serial(u64),
}

impl LockTarget {
    /// The words for its kind: those of the options of `lock`, of documents and of the database.
    pub const KINDS: [&'static str; 7] =
        ["user", "key", "role", "request", "login", "node", "serial"];

    /// The word for its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Key(_) => "key",
            Self::Role(_) => "role",
            Self::Request(_) => "request",
            Self::Login(_) => "login",
            Self::Node(_) => "node",
            Self::Serial(_) => "serial",
        }
    }

    /// What is named, without its kind.
    #[must_use]
    pub fn value(&self) -> String {
        match self {
            Self::User(name) => name.to_string(),
            Self::Key(key) => key.to_string(),
            Self::Role(name) => name.to_string(),
            Self::Request(id) => id.to_string(),
            Self::Login(login) => login.to_string(),
            Self::Node(id) => id.to_string(),
            Self::Serial(serial) => serial.to_string(),
        }
    }
}

/// As `user `alice``.
impl fmt::Display for LockTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => write!(f, "certificate {serial}"),
            Self::User(_)
            | Self::Key(_)
            | Self::Role(_)
            | Self::Request(_)
            | Self::Login(_)
            | Self::Node(_) => write!(f, "{} `{}`", self.kind(), self.value()),
        }
    }
}

impl Lock {
    /// Whether it shuts at `now`: it may have ended and not been removed yet.
    #[must_use]
    pub fn is_in_force(&self, now: OffsetDateTime) -> bool {
        self.expires.is_none_or(|end| now < end)
    }
}

/// All locks, found by what they shut.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    by_id: BTreeMap<LockId, Arc<Lock>>,
    users: Index<UserName>,
    keys: Index<KeyFingerprint>,
    roles: Index<RoleName>,
    requests: Index<RequestId>,
    logins: Index<Login>,
    nodes: Index<NodeId>,
    serials: Index<u64>,
    ends: BTreeSet<(OffsetDateTime, LockId)>,
}

type Index<K> = HashMap<K, BTreeSet<LockId>>;

static NONE: LazyLock<Locks> = LazyLock::new(Locks::default);

impl Locks {
    /// No locks at all.
    #[must_use]
    pub fn none() -> &'static Self {
        &NONE
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// All of them, in the order of their IDs, also those that have ended and are not removed yet.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Lock>> {
        self.by_id.values()
    }

    /// The lock of that ID.
    #[must_use]
    pub fn get(&self, id: &LockId) -> Option<&Arc<Lock>> {
        self.by_id.get(id)
    }

    /// The earliest instant at which one of them ends, or has ended.
    #[must_use]
    pub fn next_end(&self) -> Option<OffsetDateTime> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// Those that have ended at `now`.
    #[must_use]
    pub fn ended(&self, now: OffsetDateTime) -> Vec<LockId> {
        let ended = self.ends.iter().take_while(|(at, _)| *at <= now);
        ended.map(|(_, id)| *id).collect()
    }

    /// The lock on a user.
    #[must_use]
    pub fn on_user(&self, name: &UserName, now: OffsetDateTime) -> Option<&Arc<Lock>> {
        self.first(&self.users, name, now)
    }

    /// The lock on a key.
    #[must_use]
    pub fn on_key(&self, key: &KeyFingerprint, now: OffsetDateTime) -> Option<&Arc<Lock>> {
        self.first(&self.keys, key, now)
    }

    /// The lock on a role.
    #[must_use]
    pub fn on_role(&self, role: &RoleName, now: OffsetDateTime) -> Option<&Arc<Lock>> {
        self.first(&self.roles, role, now)
    }

    /// The lock on a request.
    #[must_use]
    pub fn on_request(&self, id: &RequestId, now: OffsetDateTime) -> Option<&Arc<Lock>> {
        self.first(&self.requests, id, now)
    }

    /// The lock on a login.
    #[must_use]
    pub fn on_login(&self, login: &Login, now: OffsetDateTime) -> Option<&Arc<Lock>> {
        self.first(&self.logins, login, now)
    }

    /// The lock on a node.
    #[must_use]
    pub fn on_node(&self, node: &NodeId, now: OffsetDateTime) -> Option<&Arc<Lock>> {
        self.first(&self.nodes, node, now)
    }

    /// The lock on a certificate's serial number.
    #[must_use]
    pub fn on_serial(&self, serial: u64, now: OffsetDateTime) -> Option<&Arc<Lock>> {
        self.first(&self.serials, &serial, now)
    }

    /// What keeps a person out altogether: a lock on her, on the key she came with (where it is
    /// known), or on a role that she has.
    #[must_use]
    pub fn on_person(
        &self,
        user: &User,
        key: Option<&KeyFingerprint>,
        now: OffsetDateTime,
    ) -> Option<&Arc<Lock>> {
        if self.is_empty() {
            return None;
        }
        let roles = || user.roles.iter().find_map(|role| self.on_role(role, now));
        self.on_user(&user.name, now)
            .or_else(|| key.and_then(|key| self.on_key(key, now)))
            .or_else(roles)
    }

    /// Adds a lock, or replaces the one of its ID.
    pub(crate) fn insert(&mut self, lock: Lock) {
        self.remove(&lock.id);
        let id = lock.id;
        match &lock.target {
            LockTarget::User(name) => put(&mut self.users, name, id),
            LockTarget::Key(key) => put(&mut self.keys, key, id),
            LockTarget::Role(role) => put(&mut self.roles, role, id),
            LockTarget::Request(request) => put(&mut self.requests, request, id),
            LockTarget::Login(login) => put(&mut self.logins, login, id),
            LockTarget::Node(node) => put(&mut self.nodes, node, id),
            LockTarget::Serial(serial) => put(&mut self.serials, serial, id),
        }
        self.ends.extend(lock.expires.map(|end| (end, id)));
        self.by_id.insert(id, Arc::new(lock));
    }

    /// Removes a lock, if it is there.
    pub(crate) fn remove(&mut self, id: &LockId) {
        let Some(old) = self.by_id.remove(id) else {
            return;
        };
        if let Some(end) = old.expires {
            self.ends.remove(&(end, *id));
        }
        match &old.target {
            LockTarget::User(name) => take(&mut self.users, name, id),
            LockTarget::Key(key) => take(&mut self.keys, key, id),
            LockTarget::Role(role) => take(&mut self.roles, role, id),
            LockTarget::Request(request) => take(&mut self.requests, request, id),
            LockTarget::Login(login) => take(&mut self.logins, login, id),
            LockTarget::Node(node) => take(&mut self.nodes, node, id),
            LockTarget::Serial(serial) => take(&mut self.serials, serial, id),
        }
    }

    fn first<K: Eq + Hash>(
        &self,
        index: &Index<K>,
        target: &K,
        now: OffsetDateTime,
    ) -> Option<&Arc<Lock>> {
        let ids = index.get(target)?;
        let mut locks = ids.iter().filter_map(|id| self.by_id.get(id));
        locks.find(|lock| lock.is_in_force(now))
    }
}

fn put<K: Eq + Hash + Clone>(index: &mut Index<K>, target: &K, id: LockId) {
    index.entry(target.clone()).or_default().insert(id);
}

fn take<K: Eq + Hash>(index: &mut Index<K>, target: &K, id: &LockId) {
    if let Some(ids) = index.get_mut(target) {
        ids.remove(id);
        if ids.is_empty() {
            index.remove(target);
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-20 12:00 UTC);

    fn lock(number: u128, target: LockTarget, expires: Option<OffsetDateTime>) -> Lock {
        Lock {
            id: LockId::from_uuid(uuid::Uuid::from_u128(number)),
            target,
            message: format!("lock {number}"),
            created: NOW,
            created_by: "ed".to_owned(),
            expires,
        }
    }

    fn alice() -> LockTarget {
        LockTarget::User(UserName::parse("alice").unwrap())
    }

    #[test]
    fn a_lock_is_over_at_the_instant_at_which_it_ends() {
        let end = NOW + time::Duration::HOUR;
        let name = UserName::parse("alice").unwrap();
        let mut locks = Locks::default();
        locks.insert(lock(1, alice(), Some(end)));
        let before = end - time::Duration::MICROSECOND;
        assert!(locks.on_user(&name, before).is_some());
        assert!(locks.on_user(&name, end).is_none());
        assert_eq!(locks.next_end(), Some(end));
        assert!(locks.ended(before).is_empty());
        assert_eq!(locks.ended(end).len(), 1);
    }

    #[test]
    fn of_several_locks_on_a_target_the_last_to_go_holds() {
        let name = UserName::parse("alice").unwrap();
        let end = NOW + time::Duration::HOUR;
        let mut locks = Locks::default();
        locks.insert(lock(1, alice(), Some(end)));
        locks.insert(lock(2, alice(), None));
        assert_eq!(locks.on_user(&name, end).unwrap().message, "lock 2");
        let second = LockId::from_uuid(uuid::Uuid::from_u128(2));
        locks.remove(&second);
        assert!(locks.on_user(&name, NOW).is_some());
        assert!(locks.on_user(&name, end).is_none());
        locks.remove(&LockId::from_uuid(uuid::Uuid::from_u128(1)));
        assert!(locks.is_empty() && locks.users.is_empty() && locks.next_end().is_none());
    }

    #[test]
    fn a_replaced_lock_leaves_its_old_target() {
        let name = UserName::parse("alice").unwrap();
        let mut locks = Locks::default();
        locks.insert(lock(1, alice(), Some(NOW)));
        locks.insert(lock(1, LockTarget::Serial(7), None));
        assert!(locks.on_user(&name, NOW - time::Duration::HOUR).is_none());
        assert!(locks.on_serial(7, NOW).is_some());
        assert!(locks.on_serial(8, NOW).is_none());
        assert_eq!((locks.len(), locks.next_end()), (1, None));
    }
}
