//! The users of a view, by name, by key and by the target that a name could be read as.

use std::collections::BTreeSet;
use std::sync::Arc;

use imbl::OrdMap;

use crate::id::{KeyFingerprint, NodeName, UserName};
use crate::user::User;

use super::View;

#[derive(Debug, Clone, Default)]
pub(super) struct Users {
    pub(super) by_name: OrdMap<UserName, Arc<User>>,
    // A set, because the view must not choose if the store ever let two users share a key.
    pub(super) by_key: OrdMap<KeyFingerprint, BTreeSet<UserName>>,
    // Of names that read as LOGIN@NODE, by the node.
    pub(super) by_target: OrdMap<NodeName, BTreeSet<UserName>>,
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

impl View {
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

    /// A user whose name reads as `LOGIN@NODE` for that node.
    #[must_use]
    pub fn user_read_as_target(&self, node: &NodeName) -> Option<&Arc<User>> {
        self.users
            .by_target
            .get(node)?
            .first()
            .and_then(|name| self.user(name))
    }

    /// All users, in the order of their names.
    pub fn users(&self) -> impl Iterator<Item = &Arc<User>> {
        self.users.by_name.values()
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
