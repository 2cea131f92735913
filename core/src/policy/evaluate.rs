//! The verdict on one login on one node: what speaks against it, what grants it, what could be asked for.
//!
//! Nothing here makes a permit; [`super::decide`] alone turns a [`Verdict::Grant`] into one. Who the
//! subject is, and which roles count, is for [`super::subject`] to say.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::id::{Login, ResourceId, RoleName};
use crate::node::Node;
use crate::request::{AccessRequest, Reach, Scope, State};
use crate::role::Role;

use super::rules::{denial_by, denies, grants, reaches};
use super::subject::{Here, Holder, Subject, roles};
use super::{Access, Ask, Capabilities, Capability, Denial, Reason, SessionLimits, Visibility};

/// The answer, before anything is made of it.
pub(crate) enum Verdict<'a> {
    Grant(Granted<'a>),
    Ask(Box<Ask>),
    Deny(Denial),
}

/// What allows.
pub(crate) struct Granted<'a> {
    pub(crate) role: &'a Role,
    pub(crate) request: Option<&'a AccessRequest>,
    pub(crate) capabilities: Capabilities,
    pub(crate) limits: SessionLimits,
}

impl<'a> Subject<'a> {
    /// Decides one login on one node.
    pub(crate) fn evaluate(&self, access: &Access) -> Verdict<'a> {
        let Some(node) = self.view.node(&access.node) else {
            return Verdict::Deny(Denial {
                reasons: vec![Reason::UnknownNode],
                visibility: Visibility::Hidden,
            });
        };
        // The allowed resources come first (REQUESTS section 2).
        if !self.includes(node, &access.login) {
            return Verdict::Deny(Denial {
                reasons: vec![self.outside()],
                visibility: self.visibility(node),
            });
        }
        let here = Here::new(node);
        let denials = self.denials(&here, &access.login);
        if !denials.is_empty() {
            return Verdict::Deny(Denial {
                reasons: denials,
                visibility: self.visibility(node),
            });
        }
        if let Some(denial) = self.shut(node, &access.login) {
            return Verdict::Deny(denial);
        }
        if let Some(granted) = self.grant(&here, &access.login) {
            return Verdict::Grant(granted);
        }
        let ask = self.ask(&here, &access.login);
        if let Some(denial) = self.barred(node, &access.login, ask.as_ref()) {
            return Verdict::Deny(denial);
        }
        match ask {
            Some(ask) => Verdict::Ask(Box::new(ask)),
            None => Verdict::Deny(self.missing(&here, &access.login)),
        }
    }

    /// Every role that speaks against the access by any path. Greedy: a denied login is denied on
    /// every node, a denied node for every login.
    fn denials(&self, here: &Here<'_, 'a>, login: &Login) -> Vec<Reason> {
        let speaks_against = |role: &&Role| {
            let deny = &role.deny;
            role.unreadable.is_some()
                || deny.names_login(self.user, login)
                || deny.node_labels.matches_listed(&here.labels, self.user)
        };
        let mut reasons = Vec::new();
        for role in self.denying().filter(speaks_against) {
            reasons.extend(denial_by(role, self.user, here.node, login));
        }
        reasons.dedup();
        reasons
    }

    /// What grants node and login together: a standing role, else the open request that lasts
    /// longest.
    pub(super) fn grant(&self, here: &Here<'_, 'a>, login: &Login) -> Option<Granted<'a>> {
        let node = here.node;
        let naming = |role: &&Role| role.allow.names_login(self.user, login);
        let standing = self.standing_on(here).iter().copied();
        let standing: Vec<&Role> = standing.filter(naming).collect();
        let mut found: Vec<(&AccessRequest, Vec<&Role>)> = Vec::new();
        if let Some(role) = standing.first().copied() {
            if self.demands.is_none() {
                return Some(Granted {
                    role,
                    request: None,
                    capabilities: capabilities(&standing),
                    limits: self.limits(None),
                });
            }
            // Standing access rests on the request that unlocks it, and ends with it.
            found.extend(self.unlocking().map(|open| (open.request, standing)));
        }
        for open in self.giving() {
            if reaches(open.reach, self.view, node, login) {
                let roles = open.roles.iter().copied();
                let roles = roles.filter(|role| grants(role, self.user, node, login));
                let roles = roles.filter(|role| self.gives(open, &role.name));
                if !open.refuses(|role| denies(role, self.user, node, login)) {
                    found.push((open.request, roles.collect()));
                }
            }
        }
        found.retain(|(_, roles)| !roles.is_empty());
        let (request, roles) = found.into_iter().max_by_key(|(request, _)| {
            // What is not bound to a command may do more.
            let free = request.scope == Scope::Any;
            (free, request.access_expires, Reverse(request.id))
        })?;
        let role = roles.first().copied()?;
        let capabilities = match request.scope {
            Scope::Any => capabilities(&roles),
            Scope::Command(_) => capabilities(&roles).for_one_command(),
        };
        Some(Granted {
            role,
            request: Some(request),
            capabilities,
            limits: self.limits(Some(request)),
        })
    }

    /// What bounds a session under `request`, or under standing access.
    fn limits(&self, request: Option<&AccessRequest>) -> SessionLimits {
        let requested = self.open.iter();
        let requested = requested.filter(|open| request.is_some_and(|r| r.id == open.request.id));
        let requested = requested.flat_map(|open| open.roles.iter().copied());
        let mut limits = SessionLimits {
            session_ttl: request.map(|request| request.session_ttl),
            ..SessionLimits::default()
        };
        for role in self.stored().chain(requested) {
            let options = &role.options;
            limits.session_ttl = least(limits.session_ttl, options.max_session_ttl);
            limits.idle_timeout = least(limits.idle_timeout, options.client_idle_timeout);
            limits.connections = least(limits.connections, options.max_connections);
            limits.sessions = least(limits.sessions, options.max_sessions);
        }
        limits
    }

    /// What can be asked for to get `login` on `node`.
    pub(super) fn ask(&self, here: &Here<'_, 'a>, login: &Login) -> Option<Ask> {
        let node = here.node;
        let role = self.searchable_on(here).iter().filter(|role| {
            role.allow.names_login(self.user, login)
                && denial_by(role, self.user, node, login).is_empty()
        });
        // The fewest logins that still fit; then by name, so that equal requests are equal.
        let role = role.min_by_key(|role| (role.allow.count_logins(self.user), &role.name))?;
        let terms = self.request_terms(
            &Reach::Resources(BTreeSet::new()),
            std::iter::once(&role.name),
        );
        let mut ask = Ask {
            roles: vec![role.name.clone()],
            resource: ResourceId::node_login(self.view.cluster().clone(), node.id, login.clone()),
            reason_mode: terms.reason_mode,
            reason_prompt: terms.reason_prompt,
            suggested_reviewers: terms.suggested_reviewers.into_iter().collect(),
            max_duration: terms.max_duration,
            joins: None,
            joins_scoped: None,
            narrower: None,
            opens: None,
            assumable: Vec::new(),
        };
        self.consider_requests(&mut ask, node, login);
        Some(ask)
    }

    /// Fills in what the user's live requests already promise for `login` on `node`.
    fn consider_requests(&self, ask: &mut Ask, node: &Node, login: &Login) {
        for request in self.view.live_requests_of(&self.user.name) {
            let (granted, reach) = match &request.granted {
                Some(granted) => (&granted.roles, &granted.reach),
                None => (&request.roles, &request.reach),
            };
            let gives = |role: &RoleName| match &request.granted {
                Some(granted) => self.still_gives(granted, role),
                None => self.may_request(reach, role),
            };
            let given = roles(self.view, granted);
            let helps = reaches(reach, self.view, node, login)
                && given
                    .iter()
                    .any(|role| grants(role, self.user, node, login) && gives(&role.name))
                && !given
                    .iter()
                    .any(|role| denies(role, self.user, node, login));
            if !helps {
                continue;
            }
            if !request.scope.extends_to(self.command) {
                if request.is_open(self.now) && self.holder.holds(request, self.user) {
                    ask.narrower = Some(request.id);
                }
                continue;
            }
            match request.state {
                State::Pending => {
                    let mine = match self.holder {
                        Holder::Key(key) | Holder::Certificate(key, _) => {
                            request.key.as_ref() == Some(key)
                        }
                        Holder::AnyKey => true,
                    };
                    let current =
                        self.now < request.request_expires && request.assume_start.is_none();
                    // As filing joins: what is wider is another request, with a reason of its own.
                    let equal = request.roles.iter().eq(&ask.roles)
                        && request.reach.resources().eq([&ask.resource]);
                    let joins = match request.scope {
                        Scope::Any => &mut ask.joins,
                        Scope::Command(_) => &mut ask.joins_scoped,
                    };
                    if mine && current && equal && joins.is_none() {
                        *joins = Some(request.id);
                    }
                }
                State::Approved if self.now >= request.access_expires => {}
                State::Approved if !self.holder.holds(request, self.user) => {
                    ask.assumable.push(request.id);
                }
                State::Approved => {
                    let starts = request.starts();
                    if ask.opens.is_none_or(|(_, earliest)| starts < earliest) {
                        ask.opens = Some((request.id, starts));
                    }
                }
                State::Denied | State::Expired | State::Canceled | State::Revoked => {}
            }
        }
    }

    /// The denial where nothing speaks against, nothing grants and nothing can be asked for.
    fn missing(&self, here: &Here<'_, 'a>, login: &Login) -> Denial {
        let node = here.node;
        // Nothing closes the node, or the denial were another one.
        let logins = if self.locks.is_empty() {
            self.known_where_open(here)
        } else {
            let free = self.as_if_nothing_were_locked();
            free.known_where_open(&Here::new(node))
        };
        let visibility = Visibility::from_rule(!logins.is_empty());
        let mut reasons = Vec::new();
        if let Some(role) = self.demands {
            let mut standing = self.standing_on(here).iter();
            if standing.any(|role| role.allow.names_login(self.user, login)) {
                reasons.push(Reason::RequestDemanded {
                    role: role.name.clone(),
                });
            }
        }
        for open in self
            .open()
            .filter(|open| reaches(open.reach, self.view, node, login))
        {
            let granting = open
                .roles
                .iter()
                .filter(|role| grants(role, self.user, node, login))
                .filter(|role| !self.gives(open, &role.name));
            reasons.extend(granting.map(|role| Reason::NoLongerRequestable {
                request: open.request.id,
                role: role.name.clone(),
            }));
            for role in &open.roles {
                reasons.extend(denial_by(role, self.user, node, login));
            }
        }
        if reasons.is_empty() {
            reasons.push(self.not_granted(here, logins));
        }
        Denial {
            reasons,
            visibility,
        }
    }

    /// Which logins of `known` there are to be had, if there are any.
    fn not_granted(&self, here: &Here<'_, 'a>, mut known: BTreeSet<Login>) -> Reason {
        if known.is_empty() {
            return Reason::NotGranted;
        }
        if let (false, Some(role)) = (self.standing_reaches(), self.demands) {
            let usable = self.logins_with(here, false);
            let askable = self.askable_beside(here, &usable);
            known.retain(|login| usable.contains(login) || askable.contains_key(login));
            if known.is_empty() {
                return Reason::RequestDemanded {
                    role: role.name.clone(),
                };
            }
        }
        Reason::LoginNotGranted { logins: known }
    }
}

/// The lesser of those that are set, whatever their order.
pub(crate) fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}

/// What sessions may do under `roles`, which all grant node and login. A role's word on one
/// direction of forwarding (`ssh_port_forwarding`) decides over any `port_forwarding`, and a
/// refusal there or of file copies over another role's permission; elsewhere one role that
/// permits suffices.
pub(crate) fn capabilities(roles: &[&Role]) -> Capabilities {
    let options = || roles.iter().map(|role| &role.options);
    let any =
        |set: fn(&crate::role::Options) -> Option<bool>| options().any(|o| set(o) == Some(true));
    let direction = |set: fn(&crate::role::Options) -> Option<bool>, unset: bool| {
        !options().any(|o| set(o) == Some(false))
            && options().any(|o| set(o).or(o.port_forwarding).unwrap_or(unset))
    };
    Capabilities {
        pty: Capability::Allowed,
        local_forwarding: Capability::from_rule(direction(|o| o.local_forwarding, true)),
        remote_forwarding: Capability::from_rule(direction(|o| o.remote_forwarding, false)),
        agent_forwarding: Capability::from_rule(any(|o| o.forward_agent)),
        x11_forwarding: Capability::from_rule(any(|o| o.permit_x11_forwarding)),
        file_copy: Capability::from_rule(options().all(|o| o.ssh_file_copy != Some(false))),
        direct: Capability::from_rule(any(|o| o.direct)),
    }
}
