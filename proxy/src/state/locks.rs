//! Locks: making them, and what the log says of them. They are kept and removed like everything that
//! administrators keep; see [`super::objects`].

use anteroom_core::admin::{AdminVerb, allowed};
use anteroom_core::lock::{Lock, LockTarget, MOST_LOCKS};
use anteroom_core::view::View;
use thiserror::Error;
use time::OffsetDateTime;

use super::draft::Draft;
use super::{By, rfc3339};
use crate::audit::{Entry, Event};

/// Why a lock was not made.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LockError {
    /// It would be over at once.
    #[error("the lock would have ended at {}; name a time to come", rfc3339(*.0))]
    Over(OffsetDateTime),
    /// There are as many as there may be.
    #[error("there are {MOST_LOCKS} locks already; take some away with `locks rm` first")]
    TooMany,
}

/// Makes the lock or replaces it; what its maker should know.
pub(super) fn put_lock(draft: &mut Draft, by: &By, lock: &Lock) -> Result<Vec<String>, LockError> {
    if let Some(end) = lock.expires.filter(|end| *end <= draft.now()) {
        return Err(LockError::Over(end));
    }
    let locks = draft.view().locks();
    if locks.len() >= MOST_LOCKS && locks.get(&lock.id).is_none() {
        return Err(LockError::TooMany);
    }
    let mut warnings = Vec::from_iter(unknown(draft.view(), &lock.target));
    let lock = Lock {
        created: draft.now(),
        created_by: by.actor.to_string(),
        ..lock.clone()
    };
    let could = someone_can_unlock(draft.view(), &lock);
    draft.log(about_lock(by.entry(Event::LockCreate), &lock));
    let id = lock.id;
    draft.put_lock(lock.clone());
    if could && !someone_can_unlock(draft.view(), &lock) {
        warnings.push(format!(
            "no user is left who may take locks away; `anteroom ctl locks rm {id}` on the proxy does"
        ));
    }
    Ok(warnings)
}

/// A lock on what is not there is kept, since it may be to come; more often it is a typing error.
fn unknown(view: &View, target: &LockTarget) -> Option<String> {
    let known = match target {
        LockTarget::User(name) => view.user(name).is_some(),
        LockTarget::Key(key) => view.user_by_key(key).is_some(),
        LockTarget::Role(name) => view.role(name).is_some(),
        LockTarget::Node(id) => view.node(id).is_some(),
        // Logins are not kept anywhere; requests of long ago and certificates are not in memory.
        LockTarget::Login(_) | LockTarget::Request(_) | LockTarget::Serial(_) => true,
    };
    (!known).then(|| format!("there is no {target} now; the lock is kept for when there is"))
}

fn someone_can_unlock(view: &View, lock: &Lock) -> bool {
    let may = |name| allowed(view, name, AdminVerb::Delete, lock.into());
    view.users().any(|user| may(&user.name))
}

/// What the log says of a lock. `audit verify` reads it again to see that nothing was issued under
/// it, so `name` is `KIND/VALUE`.
pub(super) fn about_lock(entry: Entry, lock: &Lock) -> Entry {
    let entry = entry
        .lock_id(lock.id)
        .name(format!("{}/{}", lock.target.kind(), lock.target.value()))
        .reason(&lock.message);
    match lock.expires {
        Some(end) => entry.expires(rfc3339(end)),
        None => entry,
    }
}
