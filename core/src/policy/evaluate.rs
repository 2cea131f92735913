//! The evaluation behind every question of [`crate::policy`]: one subject, one node, one login.
//!
//! Nothing here makes a permit; [`super::decide`] alone turns a [`Verdict::Grant`] into one.

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use time::OffsetDateTime;

use crate::credential::{AllowedResources, Credential};
use crate::id::{
    Compared, KeyFingerprint, Login, NodeId, RequestId, ResourceId, RoleName, UserName,
};
use crate::lock::Locks;
use crate::node::Node;
use crate::request::{AccessRequest, Annotations, Reach, Scope, State};
use crate::role::{ReasonMode, RequestAccess, RequestConditions, Role};
use crate::selector::Listed;
use crate::user::User;
use crate::view::View;

use super::{Access, Ask, Capabilities, Capability, Denial, Reason, SessionLimits, Visibility};

/// Whose requests count.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Holder<'a> {
    /// Those that this key holds.
    Key(&'a KeyFingerprint),
    /// Those of them that the certificate names, which was got with this key.
    Certificate(&'a KeyFingerprint, &'a Credential),
    /// Those that any of the user's keys holds, for questions about a user in general.
    AnyKey,
}

/// A user who may act at all, with the roles that speak for and against her at `now`.
#[derive(Clone)]
pub(crate) struct Subject<'a> {
    pub(crate) view: &'a View,
    pub(crate) user: &'a User,
    holder: Holder<'a>,
    /// What is locked; see [`super::locked`].
    pub(super) locks: &'a Locks,
    /// Standing roles, in the order of their names; with a certificate, those that it names.
    pub(crate) standing: Vec<&'a Role>,
    /// Standing roles that the certificate does not name: what they deny counts all the same.
    unnamed: Vec<&'a Role>,
    /// Of both the ones that deny something on nodes, in the same order: most deny nothing.
    denying: Vec<&'a Role>,
    /// Of these the ones that deny logins.
    denying_logins: Vec<&'a Role>,
    /// The command that the session is going to run, if that is all it does.
    command: Option<&'a [u8]>,
    /// Approved requests that are open at `now` and that the holder holds, with their roles.
    pub(super) open: Vec<Open<'a>>,
    /// Worked out when it is first asked for: most decisions permit and need not know.
    pub(super) searchable: OnceCell<Vec<&'a Role>>,
    /// The role that says most strictly that standing roles alone reach no node, if one does.
    pub(super) demands: Option<&'a Role>,
    pub(super) now: OffsetDateTime,
}

/// A node that is decided about. Which roles select it is asked once, however many questions of
/// a decision hang on it: with hundreds of roles that is most of what a decision costs.
pub(super) struct Here<'n, 'a> {
    node: &'n Node,
    labels: Listed<'n>,
    standing: OnceCell<Vec<&'a Role>>,
    searchable: OnceCell<Vec<&'a Role>>,
}

impl<'n> Here<'n, '_> {
    pub(super) fn new(node: &'n Node) -> Self {
        Self {
            node,
            labels: Listed::new(&node.labels),
            standing: OnceCell::new(),
            searchable: OnceCell::new(),
        }
    }
}

/// An approved request in its window.
#[derive(Clone)]
pub(super) struct Open<'a> {
    pub(super) request: &'a AccessRequest,
    granted: &'a crate::request::Granted,
    reach: &'a Reach,
    /// The resources of `reach`, made ready for comparing when they are first asked for.
    listed: OnceCell<Vec<Compared<'a>>>,
    pub(super) roles: Vec<&'a Role>,
    /// Locked: it gives nothing, and what its roles deny stays denied.
    pub(super) locked: bool,
}

/// A role that an open request gives.
pub(crate) struct OpenedRole<'a> {
    /// How far the request reaches.
    pub(crate) reach: &'a Reach,
    pub(crate) role: &'a Role,
    /// Whether an administrator put it in; nobody could have asked for it then.
    pub(crate) overridden: bool,
}

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
    /// The subject `user`, unless something forbids her to act at all.
    pub(crate) fn new(
        view: &'a View,
        user: &'a UserName,
        holder: Holder<'a>,
        now: OffsetDateTime,
    ) -> Result<Self, Reason> {
        let user = view.user(user).ok_or(Reason::UnknownUser)?;
        if let Some(key) = holder.key()
            && !user.has_key(key)
        {
            return Err(Reason::UnknownKey);
        }
        if let Some(message) = &user.locked {
            return Err(Reason::Locked {
                message: message.clone(),
            });
        }
        let locks = view.locks();
        super::locked::admit(locks, user, holder, now)?;
        if let Some(credential) = holder.credential() {
            still_good(view, &user.name, credential, now)?;
        }
        let open = view
            .live_requests_of(&user.name)
            .filter(|request| request.is_open(now) && holder.holds(request, user))
            .filter_map(|request| Open::new(view, request, now))
            .collect();
        let mut standing = roles(view, &user.roles);
        // The first of several that say it equally, so that the same role is always named.
        let demands = standing
            .iter()
            .rev()
            .filter(|role| role.options.request_access > RequestAccess::Optional)
            .max_by_key(|role| role.options.request_access)
            .copied();
        let mut unnamed = Vec::new();
        if let Some(credential) = holder.credential() {
            (standing, unnamed) = standing
                .into_iter()
                .partition(|role| credential.claims.roles.contains(&role.name));
        }
        let stored = standing.iter().chain(&unnamed).copied();
        let denying: Vec<&Role> = stored.filter(|role| role.deny.speaks_of_nodes()).collect();
        let denying_logins = denying.iter().copied();
        let denying_logins = denying_logins.filter(|role| !role.deny.logins.is_empty());
        Ok(Self {
            view,
            user,
            holder,
            locks,
            denying_logins: denying_logins.collect(),
            standing,
            unnamed,
            denying,
            command: None,
            open,
            searchable: OnceCell::new(),
            demands,
            now,
        })
    }

    /// The same subject, running `command` and nothing else: grants bound to it count as well.
    pub(crate) fn running(self, command: Option<&'a [u8]>) -> Self {
        Self { command, ..self }
    }

    /// The open requests that extend to what the session is going to do.
    fn open(&self) -> impl Iterator<Item = &Open<'a>> {
        self.open
            .iter()
            .filter(|open| open.request.scope.extends_to(self.command))
    }

    /// Whether an open request still gives one of its roles: the user could ask for it now, or an
    /// administrator put it in. A deny of the user's roles wins over both.
    fn gives(&self, open: &Open<'_>, role: &RoleName) -> bool {
        self.still_gives(open.granted, role)
    }

    pub(super) fn still_gives(&self, granted: &crate::request::Granted, role: &RoleName) -> bool {
        if granted.overridden.contains(role) {
            !self.denies_request(&granted.reach, role)
        } else {
            self.may_request(&granted.reach, role)
        }
    }

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

    /// The open role request, the longest of several, through which standing roles reach nodes
    /// although one of them demands a request.
    fn unlocking(&self) -> Option<&Open<'a>> {
        self.giving()
            .filter(|open| {
                let mut roles = open.roles.iter();
                *open.reach == Reach::Roles && roles.any(|role| self.gives(open, &role.name))
            })
            .max_by_key(|open| (open.request.access_expires, Reverse(open.request.id)))
    }

    /// Whether standing roles reach nodes.
    pub(super) fn standing_reaches(&self) -> bool {
        self.demands.is_none() || self.unlocking().is_some()
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

    fn known_where_open(&self, here: &Here<'_, 'a>) -> BTreeSet<Login> {
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

    /// Whether a restricted certificate does not leave `login` on `node` out. This is the one place
    /// of that rule: whatever opens, lists or files asks here.
    fn includes(&self, node: &Node, login: &Login) -> bool {
        match self.holder.allowed() {
            AllowedResources::Unrestricted => true,
            restricted @ AllowedResources::Only(_) => {
                let mut buffer = uuid::Uuid::encode_buffer();
                let name: &str = node.id.uuid().hyphenated().encode_lower(&mut buffer);
                restricted.includes(self.view.cluster(), name, login)
            }
        }
    }

    /// The same for a resource that is no node.
    pub(crate) fn includes_id(&self, id: &ResourceId) -> bool {
        match self.holder.allowed() {
            AllowedResources::Unrestricted => true,
            AllowedResources::Only(ids) => ids.iter().any(|allowed| allowed.covers(id)),
        }
    }

    /// Why a resource that a restricted certificate leaves out is refused.
    pub(crate) fn outside(&self) -> Reason {
        let mut named = self.open.iter().filter(|open| *open.reach != Reach::Roles);
        Reason::NotAllowedByCertificate {
            request: named.next().map(|open| open.request.id),
        }
    }

    /// How much of the certificate is left; `None` with a plain key.
    pub(crate) fn certificate_rest(&self) -> Option<time::Duration> {
        let credential = self.holder.credential()?;
        Some(credential.valid_before - self.now)
    }

    /// The logins that work on `node` now: those for which [`Self::evaluate`] grants.
    pub(crate) fn usable_logins(&self, node: &Node) -> BTreeSet<Login> {
        let mut logins = self.granted_logins(node);
        logins.retain(|login| self.includes(node, login));
        logins
    }

    fn granted_logins(&self, node: &Node) -> BTreeSet<Login> {
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
    fn logins_with(&self, here: &Here<'_, 'a>, standing: bool) -> BTreeSet<Login> {
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
    fn askable_beside(
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

    /// All roles that have a say on any node; one may come twice.
    pub(crate) fn concerned(&self) -> impl Iterator<Item = &'a Role> {
        self.stored()
            .chain(self.requested().map(|(role, _)| role))
            .chain(self.searchable().iter().copied())
    }

    /// The nodes that open requests name, or a restricted certificate.
    pub(crate) fn named_nodes(&self) -> impl Iterator<Item = NodeId> {
        let reaches = self.open.iter().map(|open| open.reach);
        let allowed = match self.holder.allowed() {
            AllowedResources::Unrestricted => None,
            AllowedResources::Only(ids) => Some(ids),
        };
        reaches
            .flat_map(Reach::resources)
            .chain(allowed.into_iter().flatten())
            .filter_map(ResourceId::node_id)
    }

    /// The roles that speak against everything, by whichever path: standing ones, and those of open
    /// requests for roles. The roles of a request for resources speak against what that request
    /// gives and no further ([`Open::refuses`]): it reaches its own resources only, so that taking
    /// it up takes nothing away.
    pub(crate) fn deniers(&self) -> impl Iterator<Item = &'a Role> {
        self.stored().chain(self.opened_by_name())
    }

    /// The roles of open requests for roles.
    fn opened_by_name(&self) -> impl Iterator<Item = &'a Role> {
        let requested = self.open().filter(|open| *open.reach == Reach::Roles);
        requested.flat_map(|open| open.roles.iter().copied())
    }

    /// Of [`Self::deniers`] those that deny something on nodes, and a few more.
    fn denying(&self) -> impl Iterator<Item = &'a Role> {
        self.denying.iter().copied().chain(self.opened_by_name())
    }

    fn selects(&self, role: &Role, node: &Node) -> bool {
        role.allow.node_labels.matches(&node.labels, self.user)
    }

    /// The standing roles that select the node, in the order of their names.
    fn standing_on<'h>(&self, here: &'h Here<'_, 'a>) -> &'h [&'a Role] {
        here.standing.get_or_init(|| {
            let selects = |role: &&Role| {
                let labels = &role.allow.node_labels;
                labels.matches_listed(&here.labels, self.user)
            };
            let standing = self.standing.iter().copied();
            standing.filter(selects).collect()
        })
    }

    /// Of the roles through which the user may ask those that select the node and do not deny it.
    fn searchable_on<'h>(&self, here: &'h Here<'_, 'a>) -> &'h [&'a Role] {
        here.searchable.get_or_init(|| {
            let selects = |role: &&Role| {
                let [allow, deny] = [&role.allow, &role.deny].map(|side| &side.node_labels);
                allow.matches_listed(&here.labels, self.user)
                    && !deny.matches_listed(&here.labels, self.user)
            };
            let searchable = self.searchable().iter().copied();
            searchable.filter(selects).collect()
        })
    }

    /// Every role that she has or that an open request gives, whatever a session is going to run.
    pub(super) fn held(&self) -> impl Iterator<Item = &'a Role> {
        let requested = self.open.iter().flat_map(|open| open.roles.iter().copied());
        self.stored().chain(requested)
    }

    /// Every role that the user has, also those that her certificate does not name.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &'a Role> {
        self.standing.iter().chain(&self.unnamed).copied()
    }

    fn denies_node(&self, node: &Node) -> bool {
        self.denying()
            .any(|role| role.deny.node_labels.matches(&node.labels, self.user))
    }

    fn denies_login(&self, login: &Login) -> bool {
        let stored = self.denying_logins.iter().copied();
        let mut denying = stored.chain(self.opened_by_name());
        denying.any(|role| role.deny.names_login(self.user, login))
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

    /// The open requests that give something: those that are not locked, and extend to what the
    /// session is going to do.
    fn giving(&self) -> impl Iterator<Item = &Open<'a>> {
        self.open().filter(|open| !open.locked)
    }

    /// The roles of the open requests, each with its request.
    pub(crate) fn requested(&self) -> impl Iterator<Item = (&'a Role, &'a AccessRequest)> {
        self.open()
            .flat_map(|open| open.roles.iter().map(|role| (*role, open.request)))
    }

    /// The roles of those that give something, with how far each reaches; without the requests one
    /// of whose roles speaks against it.
    pub(crate) fn opened(
        &self,
        denied: impl Fn(&Role) -> bool,
    ) -> impl Iterator<Item = OpenedRole<'a>> {
        self.giving()
            .filter(move |open| !open.refuses(&denied))
            .flat_map(|open| self.given_by(open))
    }

    /// The roles that an open request still gives.
    fn given_by(&self, open: &Open<'a>) -> Vec<OpenedRole<'a>> {
        let given = open.roles.iter().copied();
        given
            .filter(|role| self.gives(open, &role.name))
            .map(|role| OpenedRole {
                reach: open.reach,
                role,
                overridden: open.granted.overridden.contains(&role.name),
            })
            .collect()
    }

    /// Of these the ones that extend to `wanted`, which is no node.
    pub(crate) fn opened_for(
        &self,
        wanted: &Compared<'_>,
        denied: impl Fn(&Role) -> bool,
    ) -> impl Iterator<Item = OpenedRole<'a>> {
        self.giving()
            .filter(|open| *open.reach == Reach::Roles || open.lists(wanted))
            .filter(move |open| !open.refuses(&denied))
            .flat_map(|open| self.given_by(open))
    }

    /// Whether resources may be asked for through the role, which exists.
    pub(crate) fn may_search(&self, role: &RoleName) -> bool {
        self.searchable().iter().any(|found| found.name == *role)
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

    fn denies_search(&self, name: &RoleName) -> bool {
        self.stored().any(|role| {
            role.unreadable.is_some() || role.deny.request.search_as_roles.contains(name)
        })
    }

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

/// The lesser of those that are set, whatever their order.
pub(crate) fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
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

impl<'a> Holder<'a> {
    pub(super) fn key(self) -> Option<&'a KeyFingerprint> {
        match self {
            Self::Key(key) | Self::Certificate(key, _) => Some(key),
            Self::AnyKey => None,
        }
    }

    pub(super) fn credential(self) -> Option<&'a Credential> {
        match self {
            Self::Certificate(_, credential) => Some(credential),
            Self::Key(_) | Self::AnyKey => None,
        }
    }

    fn allowed(self) -> &'a AllowedResources {
        match self {
            Self::Certificate(_, credential) => &credential.claims.allowed,
            Self::Key(_) | Self::AnyKey => &AllowedResources::Unrestricted,
        }
    }

    fn holds(self, request: &AccessRequest, user: &User) -> bool {
        match self {
            Self::Key(key) => request.is_held_by(key),
            Self::Certificate(key, credential) => {
                credential.claims.requests.contains(&request.id) && request.is_held_by(key)
            }
            Self::AnyKey => user
                .keys
                .iter()
                .any(|key| request.is_held_by(&key.fingerprint)),
        }
    }
}

impl<'a> Open<'a> {
    /// Whether one of its resources covers `wanted`; a request for roles lists none.
    fn lists(&self, wanted: &Compared<'_>) -> bool {
        let listed = self
            .listed
            .get_or_init(|| Compared::all(self.reach.resources()));
        listed.iter().any(|id| id.covers(wanted))
    }

    /// Whether one of its roles speaks against what it would give.
    fn refuses(&self, denied: impl Fn(&Role) -> bool) -> bool {
        self.roles.iter().any(|role| denied(role))
    }

    /// `None` for a request that was approved without a grant, which no transition makes: it
    /// opens nothing.
    fn new(view: &'a View, request: &'a AccessRequest, now: OffsetDateTime) -> Option<Self> {
        let granted = request.granted.as_ref()?;
        Some(Self {
            request,
            granted,
            reach: &granted.reach,
            listed: OnceCell::new(),
            roles: roles(view, &granted.roles),
            locked: super::locked::gives_nothing(view.locks(), request.id, &granted.roles, now),
        })
    }
}

/// Whether the certificate counts at `now`: issued to this user, not over, not revoked.
pub(super) fn still_good(
    view: &View,
    user: &UserName,
    credential: &Credential,
    now: OffsetDateTime,
) -> Result<(), Reason> {
    if now >= credential.valid_before {
        return Err(Reason::CertificateEnded);
    }
    let never_issued = || Reason::CertificateRevoked {
        // Not issued, or forgotten after a revocation: either way.
        message: "it does not count any more".to_owned(),
    };
    let issued = view
        .credential(credential.serial)
        .ok_or_else(never_issued)?;
    match &issued.revoked {
        Some(message) => Err(Reason::CertificateRevoked {
            message: message.clone(),
        }),
        None if issued.user == *user => Ok(()),
        None => Err(never_issued()),
    }
}

/// The roles of these names that exist, in the order of their names.
fn roles<'a>(view: &'a View, names: &BTreeSet<RoleName>) -> Vec<&'a Role> {
    view.roles_named(names.iter()).map(Arc::as_ref).collect()
}

/// Whether one role grants node and login together.
pub(crate) fn grants(role: &Role, user: &User, node: &Node, login: &Login) -> bool {
    role.allow.names_login(user, login) && role.allow.node_labels.matches(&node.labels, user)
}

/// Whether one role speaks against the access; [`denial_by`] tells how.
pub(crate) fn denies(role: &Role, user: &User, node: &Node, login: &Login) -> bool {
    closes(role, user, node) || role.deny.names_login(user, login)
}

/// Whether one role speaks against every login on `node`.
fn closes(role: &Role, user: &User, node: &Node) -> bool {
    role.unreadable.is_some() || role.deny.node_labels.matches(&node.labels, user)
}

/// What one role says against the access.
pub(crate) fn denial_by(role: &Role, user: &User, node: &Node, login: &Login) -> Vec<Reason> {
    if role.unreadable.is_some() {
        return vec![Reason::RoleUnreadable {
            role: role.name.clone(),
        }];
    }
    let mut reasons = Vec::new();
    if role.deny.names_login(user, login) {
        reasons.push(Reason::LoginDenied {
            role: role.name.clone(),
        });
    }
    if role.deny.node_labels.matches(&node.labels, user) {
        reasons.push(Reason::NodeDenied {
            role: role.name.clone(),
        });
    }
    reasons
}

/// Whether a request with that reach extends to `login` on `node`.
pub(crate) fn reaches(reach: &Reach, view: &View, node: &Node, login: &Login) -> bool {
    match reach {
        Reach::Roles => true,
        Reach::Resources(ids) => {
            let mut buffer = uuid::Uuid::encode_buffer();
            let name: &str = node.id.uuid().hyphenated().encode_lower(&mut buffer);
            ids.iter()
                .any(|id| id.includes(view.cluster(), name, login))
        }
    }
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
