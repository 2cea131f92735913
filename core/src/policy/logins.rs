//! Which logins there are for a subject on a node: those that work, those that could be asked for, and
//! those that she may know of.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Login, RoleName};
use crate::node::Node;

use super::Visibility;
use super::rules::{closes, reaches};
use super::subject::{Here, Open, Subject};

impl<'a> Subject<'a> {
    pub(super) fn visibility(&self, node: &Node) -> Visibility {
        Visibility::from_rule(self.may_know(node))
    }

    /// Whether the user may know that `node` exists: she reaches it or could ask for it, with any
    /// login.
    pub(crate) fn may_know(&self, node: &Node) -> bool {
        !self.known_logins(node).is_empty()
    }

    /// The logins that the user has on `node` or could ask for: those of standing roles included
    /// that only a request unlocks, and what a restricted certificate leaves out.
    fn known_logins(&self, node: &Node) -> BTreeSet<Login> {
        if !self.locks.is_empty() {
            // A lock shuts and does not hide: she is told why, and what it was that she had.
            return self.as_if_nothing_were_locked().known_logins(node);
        }
        if self.closes(node) {
            return BTreeSet::new();
        }
        self.known_where_open(&Here::new(node))
    }

    pub(super) fn known_where_open(&self, here: &Here<'_, 'a>) -> BTreeSet<Login> {
        // What works with one command only is known as well.
        let mut known = self.logins_by(here, true, self.open.iter());
        let askable = if self.standing_reaches() {
            self.askable_beside(here, &known)
        } else {
            self.askable_beside(here, &self.logins_with(here, false))
        };
        known.extend(askable.into_keys());
        known
    }

    /// The logins that work on `node` now: those for which [`Self::evaluate`] grants.
    pub(crate) fn usable_logins(&self, node: &Node) -> BTreeSet<Login> {
        let mut logins = self.granted_logins(node);
        logins.retain(|login| self.includes(node, login));
        logins
    }

    pub(super) fn granted_logins(&self, node: &Node) -> BTreeSet<Login> {
        if self.closes(node) {
            return BTreeSet::new();
        }
        self.logins_with(&Here::new(node), self.standing_reaches())
    }

    /// The logins on `node` that do not work now and could be asked for, each with the roles to
    /// ask through: those for which [`Self::evaluate`] asks.
    pub(crate) fn askable_logins(&self, node: &Node) -> BTreeMap<Login, BTreeSet<RoleName>> {
        if self.closes(node) {
            return BTreeMap::new();
        }
        let here = Here::new(node);
        let usable = self.logins_with(&here, self.standing_reaches());
        let mut logins = self.askable_beside(&here, &usable);
        logins.retain(|login, _| self.includes(node, login));
        if !logins.is_empty() && !self.locks.is_empty() {
            // As [`Self::barred`] has it: what only a lock takes from her is not asked for anew.
            let had = self.as_if_nothing_were_locked().granted_logins(node);
            logins.retain(|login, _| !had.contains(login));
        }
        logins
    }

    /// Whether `node` is closed for every login: a role denies it, or it is locked.
    fn closes(&self, node: &Node) -> bool {
        self.denies_node(node) || self.locks.on_node(&node.id, self.now).is_some()
    }

    /// The logins on `node`, which nothing closes, by standing roles if these count and by open
    /// requests.
    pub(super) fn logins_with(&self, here: &Here<'_, 'a>, standing: bool) -> BTreeSet<Login> {
        self.logins_by(here, standing, self.giving())
    }

    fn logins_by<'o>(
        &'o self,
        here: &Here<'_, 'a>,
        standing: bool,
        open: impl Iterator<Item = &'o Open<'a>>,
    ) -> BTreeSet<Login>
    where
        'a: 'o,
    {
        let node = here.node;
        let mut logins = BTreeSet::new();
        if standing {
            for role in self.standing_on(here) {
                logins.extend(role.allow.logins_for(self.user));
            }
        }
        for open in open.filter(|open| !open.refuses(|role| closes(role, self.user, node))) {
            for role in open.roles.iter().filter(|role| self.selects(role, node)) {
                if self.gives(open, &role.name) {
                    let mut granted = role.allow.logins_for(self.user);
                    granted.retain(|login| {
                        reaches(open.reach, self.view, node, login)
                            && !open.refuses(|role| role.deny.names_login(self.user, login))
                    });
                    logins.extend(granted);
                }
            }
        }
        logins.retain(|login| {
            !self.denies_login(login) && self.locks.on_login(login, self.now).is_none()
        });
        logins
    }

    /// The logins on `node`, which nothing closes, that could be asked for beside those that are
    /// `usable`.
    pub(super) fn askable_beside(
        &self,
        here: &Here<'_, 'a>,
        usable: &BTreeSet<Login>,
    ) -> BTreeMap<Login, BTreeSet<RoleName>> {
        let mut out: BTreeMap<Login, BTreeSet<RoleName>> = BTreeMap::new();
        for role in self.searchable_on(here) {
            for login in role.allow.logins_for(self.user) {
                let free = !usable.contains(&login)
                    && !role.deny.names_login(self.user, &login)
                    && !self.denies_login(&login)
                    && self.locks.on_login(&login, self.now).is_none();
                if free {
                    out.entry(login).or_default().insert(role.name.clone());
                }
            }
        }
        out
    }
}
