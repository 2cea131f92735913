//! What locks do to a decision. They only ever take away; where nothing is locked, nothing is looked up.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use time::OffsetDateTime;

use crate::id::{Login, RequestId, RoleName};
use crate::lock::{Lock, LockTarget, Locks};
use crate::node::Node;
use crate::user::User;
use crate::view::View;

use super::subject::{Here, Holder, Subject, still_good};
use super::{Ask, Denial, Identity, Reason};

/// Refuses a person who may do nothing at all: she herself, her key, or a role that she has is
/// locked.
pub(super) fn admit(
    locks: &Locks,
    user: &User,
    holder: Holder<'_>,
    now: OffsetDateTime,
) -> Result<(), Reason> {
    if locks.is_empty() {
        return Ok(());
    }
    let person = locks.on_person(user, holder.key(), now).map(AsRef::as_ref);
    // A certificate has a key of its own, which may be another than the login was made with.
    let lock = person.or_else(|| {
        let credential = holder.credential()?;
        locks
            .on_serial(credential.serial, now)
            .or_else(|| locks.on_key(&credential.key, now))
            .map(AsRef::as_ref)
            // What she assumes by it is locked: the certificate is all that she has here.
            .or_else(|| {
                let claims = &credential.claims;
                first_lock(locks, claims.requests.iter().copied(), &claims.roles, now)
            })
    });
    match lock {
        Some(lock) => Err(Reason::of(lock)),
        None => Ok(()),
    }
}

/// Whether an approved request gives nothing, because it or one of its roles is locked: who assumes
/// a locked role is locked out of everything that it came with.
pub(super) fn gives_nothing(
    locks: &Locks,
    request: RequestId,
    roles: &BTreeSet<RoleName>,
    now: OffsetDateTime,
) -> bool {
    !locks.is_empty() && first_lock(locks, [request], roles, now).is_some()
}

fn first_lock<'l, 'r>(
    locks: &'l Locks,
    requests: impl IntoIterator<Item = RequestId>,
    roles: impl IntoIterator<Item = &'r RoleName>,
    now: OffsetDateTime,
) -> Option<&'l Lock> {
    let mut requests = requests.into_iter();
    let mut roles = roles.into_iter();
    requests
        .find_map(|id| locks.on_request(&id, now))
        .or_else(|| roles.find_map(|role| locks.on_role(role, now)))
        .map(AsRef::as_ref)
}

/// Why `identity` may do nothing at all at `now`, if a lock or her certificate says so.
#[must_use]
pub fn locked_out(view: &View, identity: &Identity, now: OffsetDateTime) -> Option<Reason> {
    let user = view.user(identity.user())?;
    if let Some(message) = &user.locked {
        return Some(Reason::Locked {
            message: message.clone(),
        });
    }
    let lock = admit(view.locks(), user, identity.holder(), now).err();
    lock.or_else(|| still_good(view, &user.name, identity.credential()?, now).err())
}

impl Reason {
    /// The reason that a lock gives.
    #[must_use]
    pub fn of(lock: &Lock) -> Self {
        let message = lock.message.clone();
        match &lock.target {
            LockTarget::User(_) => Self::Locked { message },
            target @ (LockTarget::Key(_)
            | LockTarget::Role(_)
            | LockTarget::Request(_)
            | LockTarget::Login(_)
            | LockTarget::Node(_)
            | LockTarget::Serial(_)) => Self::TargetLocked {
                target: target.clone(),
                message,
            },
        }
    }
}

impl<'a> Subject<'a> {
    /// The same person at the same instant, with every lock open: what she would have.
    pub(super) fn as_if_nothing_were_locked(&self) -> Self {
        let mut free = self.clone();
        free.locks = Locks::none();
        free.searchable = OnceCell::new();
        free.open.iter_mut().for_each(|open| open.locked = false);
        free
    }

    /// The denial where node or login are locked, for everybody.
    pub(super) fn shut(&self, node: &Node, login: &Login) -> Option<Denial> {
        if self.locks.is_empty() {
            return None;
        }
        let lock = self
            .locks
            .on_node(&node.id, self.now)
            .or_else(|| self.locks.on_login(login, self.now))?;
        Some(self.denied_by(lock, node))
    }

    /// The denial where what would grant, or the only thing that could be asked for, is locked. To
    /// be asked when nothing grants; `ask` is what could be asked for all the same.
    pub(super) fn barred(&self, node: &Node, login: &Login, ask: Option<&Ask>) -> Option<Denial> {
        if self.locks.is_empty() {
            return None;
        }
        let free = self.as_if_nothing_were_locked();
        let here = Here::new(node);
        let lock = match (free.grant(&here, login), ask) {
            (Some(granted), _) => granted.request.and_then(|request| {
                let roles = request.granted.as_ref().map(|granted| &granted.roles);
                self.lock_on([request.id], roles.into_iter().flatten())
            }),
            // A pending request that would be joined, an approved one that would be waited for.
            (None, Some(ask)) => {
                let opens = ask.opens.map(|(request, _)| request);
                self.lock_on(ask.joins.into_iter().chain(opens), [])
            }
            (None, None) => {
                let ask = free.ask(&here, login)?;
                self.lock_on([], &ask.roles)
            }
        }?;
        Some(self.denied_by(lock, node))
    }

    fn lock_on<'r>(
        &self,
        requests: impl IntoIterator<Item = RequestId>,
        roles: impl IntoIterator<Item = &'r RoleName>,
    ) -> Option<&'a Lock> {
        first_lock(self.locks, requests, roles, self.now)
    }

    fn denied_by(&self, lock: &Lock, node: &Node) -> Denial {
        Denial {
            reasons: vec![Reason::of(lock)],
            visibility: self.visibility(node),
        }
    }
}
