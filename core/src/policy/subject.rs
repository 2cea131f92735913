//! The subject of a decision: a user with what she came by, and the roles that speak for and against
//! her at `now`, standing ones and those of open requests.
//!
//! Everything that is asked about her asks here for its roles, so that a certificate's limits, a lock
//! and a request that gives nothing any more count alike everywhere. What comes of it for one login on
//! one node is in [`super::evaluate`], for all logins in `logins`, and what she may ask for in
//! [`super::asking`].

use std::cell::OnceCell;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use time::OffsetDateTime;

use crate::credential::{AllowedResources, Credential};
use crate::id::{Compared, KeyFingerprint, Login, NodeId, ResourceId, RoleName, UserName};
use crate::lock::Locks;
use crate::node::Node;
use crate::request::{AccessRequest, Reach};
use crate::role::{RequestAccess, Role};
use crate::selector::Listed;
use crate::user::User;
use crate::view::View;

use super::Reason;

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
    pub(super) holder: Holder<'a>,
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
    pub(super) command: Option<&'a [u8]>,
    /// Approved requests that are open at `now` and that the holder holds, with their roles.
    pub(super) open: Vec<Open<'a>>,
    /// Worked out when it is first asked for: most decisions permit and need not know.
    pub(super) searchable: OnceCell<Vec<&'a Role>>,
    /// The role that says most strictly that standing roles alone reach no node, if one does.
    pub(super) demands: Option<&'a Role>,
    pub(super) now: OffsetDateTime,
}

/// An approved request in its window.
#[derive(Clone)]
pub(super) struct Open<'a> {
    pub(super) request: &'a AccessRequest,
    granted: &'a crate::request::Granted,
    pub(super) reach: &'a Reach,
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
    pub(super) fn open(&self) -> impl Iterator<Item = &Open<'a>> {
        self.open
            .iter()
            .filter(|open| open.request.scope.extends_to(self.command))
    }

    /// Whether an open request still gives one of its roles: the user could ask for it now, or an
    /// administrator put it in. A deny of the user's roles wins over both.
    pub(super) fn gives(&self, open: &Open<'_>, role: &RoleName) -> bool {
        self.still_gives(open.granted, role)
    }

    pub(super) fn still_gives(&self, granted: &crate::request::Granted, role: &RoleName) -> bool {
        if granted.overridden.contains(role) {
            !self.denies_request(&granted.reach, role)
        } else {
            self.may_request(&granted.reach, role)
        }
    }

    /// The open requests that give something: those that are not locked, and extend to what the
    /// session is going to do.
    pub(super) fn giving(&self) -> impl Iterator<Item = &Open<'a>> {
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

    /// The open role request, the longest of several, through which standing roles reach nodes
    /// although one of them demands a request.
    pub(super) fn unlocking(&self) -> Option<&Open<'a>> {
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
    pub(super) fn denying(&self) -> impl Iterator<Item = &'a Role> {
        self.denying.iter().copied().chain(self.opened_by_name())
    }

    pub(super) fn denies_node(&self, node: &Node) -> bool {
        self.denying()
            .any(|role| role.deny.node_labels.matches(&node.labels, self.user))
    }

    pub(super) fn denies_login(&self, login: &Login) -> bool {
        let stored = self.denying_logins.iter().copied();
        let mut denying = stored.chain(self.opened_by_name());
        denying.any(|role| role.deny.names_login(self.user, login))
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

    /// The standing roles that select the node, in the order of their names.
    pub(super) fn standing_on<'h>(&self, here: &'h Here<'_, 'a>) -> &'h [&'a Role] {
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
    pub(super) fn searchable_on<'h>(&self, here: &'h Here<'_, 'a>) -> &'h [&'a Role] {
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

    pub(super) fn selects(&self, role: &Role, node: &Node) -> bool {
        role.allow.node_labels.matches(&node.labels, self.user)
    }

    /// Whether a restricted certificate does not leave `login` on `node` out. This is the one place
    /// of that rule: whatever opens, lists or files asks here.
    pub(super) fn includes(&self, node: &Node, login: &Login) -> bool {
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

    pub(super) fn holds(self, request: &AccessRequest, user: &User) -> bool {
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
    pub(super) fn lists(&self, wanted: &Compared<'_>) -> bool {
        let listed = self
            .listed
            .get_or_init(|| Compared::all(self.reach.resources()));
        listed.iter().any(|id| id.covers(wanted))
    }

    /// Whether one of its roles speaks against what it would give.
    pub(super) fn refuses(&self, denied: impl Fn(&Role) -> bool) -> bool {
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

/// A node that is decided about. Which roles select it is asked once, however many questions of
/// a decision hang on it: with hundreds of roles that is most of what a decision costs.
pub(super) struct Here<'n, 'a> {
    pub(super) node: &'n Node,
    pub(super) labels: Listed<'n>,
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
pub(super) fn roles<'a>(view: &'a View, names: &BTreeSet<RoleName>) -> Vec<&'a Role> {
    view.roles_named(names.iter()).map(Arc::as_ref).collect()
}
