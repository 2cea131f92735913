//! What a subject may ask for: roles by name and roles to ask for resources through, and on which terms.
//! Judged anew for every decision, so that an approved request dies with the right to file it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::{Compared, RequestId, ResourceId, RoleName, UserName};
use crate::request::{Annotations, Reach};
use crate::role::{ReasonMode, RequestAccess, RequestConditions, Role};
use crate::user::User;

use super::evaluate::least;
use super::subject::{Open, Subject};

/// What several roles together say about a request.
#[derive(Default)]
pub(crate) struct RequestTerms<'a> {
    pub(crate) reason_mode: ReasonMode,
    pub(crate) reason_prompt: Option<String>,
    pub(crate) suggested_reviewers: BTreeSet<UserName>,
    pub(crate) max_duration: Option<time::Duration>,
    /// The roles that have a say.
    pub(crate) sources: Vec<&'a Role>,
}

impl<'a> Subject<'a> {
    /// Whether the user's standing roles let her ask for `role` with that reach. Judged anew for
    /// every decision, so that an approved request dies with the right to file it.
    pub(crate) fn may_request(&self, reach: &Reach, role: &RoleName) -> bool {
        !self.denies_request(reach, role)
            && self
                .standing
                .iter()
                .any(|r| names(&r.allow.request, self.user, reach, role))
    }

    /// Whether one of the user's standing roles denies asking for `role` with that reach.
    pub(crate) fn denies_request(&self, reach: &Reach, role: &RoleName) -> bool {
        match reach {
            Reach::Roles => self
                .stored()
                .any(|r| names(&r.deny.request, self.user, reach, role)),
            Reach::Resources(_) => self.denies_search(role),
        }
    }

    fn denies_search(&self, name: &RoleName) -> bool {
        self.stored().any(|role| {
            role.unreadable.is_some() || role.deny.request.search_as_roles.contains(name)
        })
    }

    /// Whether resources may be asked for through the role, which exists.
    pub(crate) fn may_search(&self, role: &RoleName) -> bool {
        self.searchable().iter().any(|found| found.name == *role)
    }

    /// The roles through which the user may ask for resources, in the order of their names.
    pub(crate) fn searchable(&self) -> &[&'a Role] {
        self.searchable.get_or_init(|| self.find_searchable())
    }

    fn find_searchable(&self) -> Vec<&'a Role> {
        if self.stored().any(|role| role.unreadable.is_some()) {
            // It denies everything, and so asking as well.
            return Vec::new();
        }
        let named = self.standing.iter();
        let mut named: Vec<&RoleName> = named
            .flat_map(|role| &role.allow.request.search_as_roles)
            .collect();
        // Each role usually lists them in order, and a stable sort only merges such runs.
        if !named.is_sorted_by(|a, b| a < b) {
            named.sort();
            named.dedup();
        }
        let denied: Vec<&RoleName> = self
            .stored()
            .flat_map(|role| &role.deny.request.search_as_roles)
            .collect();
        if !denied.is_empty() || !self.locks.is_empty() {
            named.retain(|name| {
                !denied.contains(name) && self.locks.on_role(name, self.now).is_none()
            });
        }
        let found = self.view.roles_named(named.into_iter());
        found.map(Arc::as_ref).collect()
    }

    /// The roles that the user may ask for by name and does not have, in the order of their names.
    pub(crate) fn requestable_roles(&self) -> Vec<&'a Role> {
        let mut found: Vec<&Role> = self
            .view
            .roles()
            .map(Arc::as_ref)
            .filter(|role| !self.user.roles.contains(&role.name))
            .filter(|role| self.locks.on_role(&role.name, self.now).is_none())
            .filter(|role| self.may_request(&Reach::Roles, &role.name))
            .collect();
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The one of `candidates` with the fewest logins for the user, by name among equals.
    pub(crate) fn fewest_logins(&self, candidates: &BTreeSet<RoleName>) -> Option<RoleName> {
        let roles = candidates.iter().filter_map(|name| self.view.role(name));
        roles
            .min_by_key(|role| (role.allow.count_logins(self.user), &role.name))
            .map(|role| role.name.clone())
    }

    /// The open request that gives all of these roles.
    pub(crate) fn open_role_request(&self, wanted: &BTreeSet<RoleName>) -> Option<RequestId> {
        let gives = |open: &&Open<'_>| {
            *open.reach == Reach::Roles
                && wanted
                    .iter()
                    .all(|name| open.roles.iter().any(|role| role.name == *name))
        };
        self.giving().find(gives).map(|open| open.request.id)
    }

    /// The open request that lists all of these resources.
    pub(crate) fn open_resource_request(&self, wanted: &[ResourceId]) -> Option<RequestId> {
        let wanted = Compared::all(wanted);
        let lists = |open: &&Open<'_>| wanted.iter().all(|id| open.lists(id));
        self.giving().find(lists).map(|open| open.request.id)
    }

    /// What the user's roles say about asking for `roles` with that reach. Only a role that
    /// allows one of them has a say.
    pub(crate) fn request_terms<'r>(
        &self,
        reach: &Reach,
        wanted: impl Iterator<Item = &'r RoleName> + Clone,
    ) -> RequestTerms<'a> {
        let mut terms = RequestTerms::default();
        // Also those that a certificate does not name: what they demand is not left behind by
        // showing an old one.
        for role in self.stored() {
            let request = &role.allow.request;
            let user = self.user;
            if !wanted.clone().any(|name| names(request, user, reach, name)) {
                continue;
            }
            terms.reason_mode = terms.reason_mode.max(request.reason.mode);
            terms.reason_prompt = terms
                .reason_prompt
                .or_else(|| request.reason.prompt.clone());
            terms
                .suggested_reviewers
                .extend(request.suggested_reviewers.iter().cloned());
            terms.max_duration = least(terms.max_duration, request.max_duration);
            terms.sources.push(role);
        }
        if self
            .demands
            .is_some_and(|role| role.options.request_access == RequestAccess::Reason)
        {
            terms.reason_mode = ReasonMode::Required;
        }
        terms.reason_prompt = terms.reason_prompt.or_else(|| {
            let mut prompts = self.stored();
            prompts.find_map(|role| role.options.request_prompt.clone())
        });
        terms.suggested_reviewers.remove(&self.user.name);
        terms
    }

    /// What the roles that have a say in a request write on it, with the user's traits in it, and
    /// what whoever files it adds, without what any of her roles denies: a denied value is taken
    /// away whoever wrote it.
    pub(crate) fn annotations(&self, terms: &RequestTerms<'_>, added: &Annotations) -> Annotations {
        let mut out = added.clone();
        for role in &terms.sources {
            for (key, values) in role.allow.request.annotations_for(self.user) {
                out.entry(key).or_default().extend(values);
            }
        }
        for role in self.stored() {
            for (key, denied) in role.deny.request.annotations_for(self.user) {
                if let Some(values) = out.get_mut(&key) {
                    values.retain(|value| !denied.contains(value));
                }
            }
        }
        out.retain(|_, values| !values.is_empty());
        out
    }
}

/// Whether `request` conditions name `role` to `user` for that reach.
pub(crate) fn names(
    request: &RequestConditions,
    user: &User,
    reach: &Reach,
    role: &RoleName,
) -> bool {
    match reach {
        Reach::Roles => request.names_role(user, role),
        Reach::Resources(_) => request.search_as_roles.contains(role),
    }
}
