//! `lock` and `locks`: shutting out at once, and letting in again.

use std::collections::BTreeMap;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::documents::LockDocument;
use anteroom_core::id::{LockId, UserName};
use anteroom_core::lock::{LONGEST_MESSAGE, Lock, LockTarget};
use anteroom_core::user::User;
use anteroom_core::view::View;
use serde::Serialize;
use uuid::Uuid;

use super::args::locks::{LockArgs, LocksRm};
use super::args::users::UserOnly;
use super::io::{Caller, CommandIo};
use super::run::{Ended, Listing, Run, Stop};
use crate::exit::Exit;
use crate::say::{self, Table, clean};
use crate::state::{Existing, Object, ObjectId};

/// How a user that `users lock` has locked is named among the locks.
const USER: &str = "user/";

/// A lock as listings show it.
#[derive(Debug, Serialize)]
struct LockRow {
    id: String,
    target: BTreeMap<&'static str, String>,
    /// The node's name, where a node is locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip)]
    cells: [String; 2],
}

impl LockRow {
    fn of(view: &View, lock: &Lock) -> Self {
        let hostname = match &lock.target {
            LockTarget::Node(id) => view.node(id).map(|node| node.name.to_string()),
            LockTarget::User(_)
            | LockTarget::Key(_)
            | LockTarget::Role(_)
            | LockTarget::Request(_)
            | LockTarget::Login(_)
            | LockTarget::Serial(_) => None,
        };
        Self {
            id: lock.id.to_string(),
            target: BTreeMap::from([(lock.target.kind(), lock.target.value())]),
            hostname,
            message: lock.message.clone(),
            created: Some(say::rfc3339(lock.created)),
            created_by: Some(lock.created_by.clone()),
            expires: lock.expires.map(say::rfc3339),
            cells: [
                say::stamp(lock.created),
                lock.expires.map(say::stamp).unwrap_or_default(),
            ],
        }
    }

    /// What `users lock` has set; it is kept with the user.
    fn of_user(user: &User) -> Option<Self> {
        Some(Self {
            id: format!("{USER}{}", user.name),
            target: BTreeMap::from([("user", user.name.to_string())]),
            hostname: None,
            message: user.locked.clone()?,
            created: None,
            created_by: None,
            expires: None,
            cells: [String::new(), String::new()],
        })
    }

    fn shown_target(&self) -> String {
        let targets = self.target.iter();
        let shown = targets.map(|(kind, value)| match &self.hostname {
            Some(name) => format!("{kind} {name} ({value})"),
            None => format!("{kind} {value}"),
        });
        shown.collect::<Vec<_>>().join(" ")
    }
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn lock(&mut self, args: LockArgs) -> Ended {
        self.require_some(AdminVerb::Create, AdminResource::Lock)?;
        let view = self.ctx.state.view();
        let target = self.target(&view, &args)?;
        let document = LockDocument {
            id: None,
            target,
            message: self.message(args.message.as_deref())?,
            expires: args.ttl.map(|ttl| self.ctx.state.now() + ttl),
        };
        let lock = self.lock_of(&view, document)?;
        let id = lock.id;
        let objects = vec![Object::Lock(lock)];
        let by = self.by();
        let stored = self.ctx.state.put(&by, objects, Existing::Refuse).await?;
        let view = self.ctx.state.view();
        let lock = view
            .locks()
            .get(&id)
            .ok_or_else(|| no_such(&id.to_string()))?;
        let row = LockRow::of(&view, lock);
        self.listing(args.listing.format, &row, || id.to_string())
            .await?;
        let until = match lock.expires {
            Some(end) => format!("until {}", say::stamp(end)),
            None => "until it is taken away".to_owned(),
        };
        self.note(&clean(&format!(
            "{} is locked {until}; `locks rm {id}` takes the lock away",
            row.shown_target()
        )))
        .await?;
        self.say_warnings(&stored).await?;
        Ok(Exit::Done)
    }

    fn target(&self, view: &View, args: &LockArgs) -> Result<LockTarget, Stop> {
        let no_such = |what: &str, name: &str, list: &str| {
            Stop::not_found(format!(
                "there is no {what} `{}`; `{list}` shows all",
                clean(name)
            ))
        };
        if let Some(name) = &args.user {
            let known = view.user(name).is_some();
            let user = known.then(|| LockTarget::User(name.clone()));
            return user.ok_or_else(|| no_such("user", name.as_str(), "users ls"));
        }
        if let Some(name) = &args.role {
            let known = view.role(name).is_some();
            let role = known.then(|| LockTarget::Role(name.clone()));
            return role.ok_or_else(|| no_such("role", name.as_str(), "get roles"));
        }
        if let Some(text) = &args.node {
            let node = self.resolve_any(view, &Self::node_argument(text)?)?;
            return Ok(LockTarget::Node(node.id));
        }
        if let Some(prefix) = &args.request {
            let found = view.find_request(prefix, |_| true);
            let found = found.map_err(|error| Stop::not_found(clean(&error.to_string())))?;
            return Ok(LockTarget::Request(found.id));
        }
        let rest = args.login.clone().map(LockTarget::Login);
        let rest = rest.or_else(|| args.key.clone().map(LockTarget::Key));
        rest.or_else(|| args.serial.map(LockTarget::Serial))
            .ok_or_else(|| Stop::usage("say what to lock, as in `lock --user alice`"))
    }

    fn message(&self, message: Option<&str>) -> Result<String, Stop> {
        let message = message.unwrap_or_default().trim();
        if message.len() > LONGEST_MESSAGE {
            return Err(Stop::usage(format!(
                "the message is {} bytes long, the limit is {LONGEST_MESSAGE}; shorten it",
                message.len()
            )));
        }
        Ok(message.to_owned())
    }

    /// A lock to store, unless it would shut out whoever makes it.
    pub(crate) fn lock_of(&self, view: &View, document: LockDocument) -> Result<Lock, Stop> {
        let LockDocument {
            id,
            target,
            message,
            expires,
        } = document;
        if self.is_oneself(view, &target) {
            return Err(Stop::denied(format!(
                "a lock on {} would shut you out yourself; ask another administrator, or use `anteroom ctl` on the proxy",
                clean(&target.to_string())
            )));
        }
        Ok(Lock {
            id: id.unwrap_or_else(|| LockId::from_uuid(Uuid::new_v4())),
            target,
            message,
            created: self.ctx.state.now(),
            // The state writes down who it was.
            created_by: String::new(),
            expires,
        })
    }

    /// Whether a lock on `target` keeps the caller from taking it away again.
    fn is_oneself(&self, view: &View, target: &LockTarget) -> bool {
        let Caller::Ssh { identity, .. } = self.caller else {
            return false;
        };
        match target {
            LockTarget::User(name) => name == identity.user(),
            LockTarget::Key(key) => key == identity.key(),
            LockTarget::Role(role) => view
                .user(identity.user())
                .is_some_and(|user| user.roles.contains(role)),
            LockTarget::Request(_)
            | LockTarget::Login(_)
            | LockTarget::Node(_)
            | LockTarget::Serial(_) => false,
        }
    }

    pub(crate) async fn locks_ls(&mut self, listing: Listing) -> Ended {
        self.require_some(AdminVerb::List, AdminResource::Lock)?;
        let view = self.ctx.state.view();
        let rows = self.lock_rows(&view);
        self.listing(listing.format, &rows, || lock_table(&rows))
            .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn locks_rm(&mut self, args: &LocksRm) -> Ended {
        self.require_some(AdminVerb::Delete, AdminResource::Lock)?;
        let view = self.ctx.state.view();
        let mut found = Vec::new();
        let mut users = Vec::new();
        for text in &args.ids {
            match text.strip_prefix(USER) {
                Some(name) => users.push(
                    UserName::parse(name)
                        .map_err(|error| Stop::usage(clean(&error.to_string())))?,
                ),
                None => found.push(self.administered_lock(&view, text)?),
            }
        }
        found.sort_unstable();
        found.dedup();
        if !found.is_empty() {
            let ids = found.iter().copied().map(ObjectId::Lock).collect();
            self.ctx.state.remove(&self.by(), ids).await?;
            let lines: Vec<String> = found
                .iter()
                .map(|id| format!("lock {id} removed"))
                .collect();
            self.print(&lines.join("\n")).await?;
        }
        for name in users {
            self.users_unlock(&UserOnly { name }).await?;
        }
        Ok(Exit::Done)
    }
}

impl<I: CommandIo> Run<'_, I> {
    /// The lock that an ID, or the start of one, means, of those that the caller administers, if she may remove it.
    fn administered_lock(&self, view: &View, text: &str) -> Result<LockId, Stop> {
        let mut found = view
            .locks()
            .iter()
            .filter(|lock| text.len() >= 4 && lock.id.to_string().starts_with(text))
            .filter(|lock| self.knows(lock.as_ref().into()));
        match (found.next(), found.next()) {
            (Some(one), None) => {
                self.require(AdminVerb::Delete, one.as_ref().into())?;
                Ok(one.id)
            }
            (Some(_), Some(_)) => Err(Stop::usage(format!(
                "`{}` is the start of several lock IDs; write more of it",
                clean(text)
            ))),
            (None, _) => Err(no_such(text)),
        }
    }

    /// All locks that are in force and that the caller may list, oldest first, after the users that `users lock` has
    /// locked.
    fn lock_rows(&self, view: &View) -> Vec<LockRow> {
        let mandate = self.mandate(view, AdminVerb::List, AdminResource::Lock);
        let mut users: Vec<&User> = view.users().map(AsRef::as_ref).collect();
        users.retain(|user| {
            let target = LockTarget::User(user.name.clone());
            let (id, target) = (None, &target);
            user.locked.is_some() && mandate.covers(AdminObject::Lock { id, target })
        });
        users.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let now = self.ctx.state.now();
        let mut locks: Vec<&Lock> = view
            .locks()
            .iter()
            .map(AsRef::as_ref)
            .filter(|lock: &&Lock| lock.is_in_force(now) && mandate.covers((*lock).into()))
            .collect();
        locks.sort_unstable_by_key(|lock| (lock.created, lock.id));
        let flags = users.into_iter().filter_map(LockRow::of_user);
        flags
            .chain(locks.into_iter().map(|lock| LockRow::of(view, lock)))
            .collect()
    }

    /// Locks as `get locks --format text` shows them.
    pub(crate) fn locks_text(&self, view: &View) -> String {
        lock_table(&self.lock_rows(view))
    }
}

fn no_such(id: &str) -> Stop {
    Stop::not_found(format!(
        "there is no lock `{}`; `locks ls` shows all",
        clean(id)
    ))
}

fn lock_table(rows: &[LockRow]) -> String {
    let mut table = Table::new([
        "ID",
        "Target",
        "Message",
        "Created By",
        "Created At (UTC)",
        "Expires",
    ]);
    for row in rows {
        let [created, expires] = &row.cells;
        table.row([
            row.id.as_str(),
            &row.shown_target(),
            &say::cut(&row.message, 60),
            row.created_by.as_deref().unwrap_or_default(),
            created,
            expires,
        ]);
    }
    table.to_string()
}

/// The locks of an ID (all without one), in the order of their IDs.
pub(crate) fn named<'v>(view: &'v View, id: Option<&str>) -> Vec<&'v Lock> {
    let locks = view.locks().iter().map(AsRef::as_ref);
    locks
        .filter(|lock: &&Lock| id.is_none_or(|id| lock.id.to_string() == id))
        .collect()
}
