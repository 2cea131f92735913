//! `users`: people, their roles, logins, traits and keys, and who is locked out.

use std::collections::BTreeMap;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb};
use anteroom_core::id::KeyFingerprint;
use anteroom_core::lock::LockTarget;
use anteroom_core::user::User;
use anteroom_core::view::View;
use time::OffsetDateTime;

use super::args::users::{OneUser, UserOnly, UsersAdd, UsersLock, UsersUpdate};
use super::io::CommandIo;
use super::keys::{CheckedKey, stored_keys};
use super::objects::{Refused, field, joined, no_such};
use super::run::{Ended, Listing, Run, Stop};
use crate::exit::Exit;
use crate::say::{self, Cells, clean};
use crate::state::{Existing, Object, ObjectId};

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn users_add(&mut self, args: UsersAdd) -> Ended {
        self.require_some(AdminVerb::Create, AdminResource::User)?;
        let keys = self.read_keys("--key", &args.key).await?;
        let mut user = User::new(args.name.clone());
        user.roles = args.roles.into_iter().collect();
        user.logins = without_repeats(args.logins);
        user.traits = traits(&args.traits)?;
        user.keys = stored_keys(keys, &[], self.ctx.state.now());
        let stored = self
            .ctx
            .state
            .put(&self.by(), vec![Object::User(user)], Existing::Refuse)
            .await?;
        self.say_stored(&stored).await
    }

    pub(crate) async fn users_ls(&mut self, listing: Listing) -> Ended {
        self.require_some(AdminVerb::List, AdminResource::User)?;
        let (view, now) = (self.ctx.state.view(), self.ctx.state.now());
        let users = self.all_users(&view);
        self.rows(
            listing.format,
            &users,
            |user| user,
            &USER_HEADER,
            |user, cells| user_cells(&view, user, now, cells),
        )
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn users_show(&mut self, args: &OneUser) -> Ended {
        let view = self.ctx.state.view();
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Read, &view, &id)?;
        let user = view.user(&args.name).ok_or_else(|| no_such(&id))?;
        self.listing(args.listing.format, user.as_ref(), || {
            user_text(&view, user, self.ctx.state.now())
        })
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn users_update(&mut self, args: UsersUpdate) -> Ended {
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Update, &self.ctx.state.view(), &id)?;
        let replace = self.read_keys_if_any("--key", &args.key).await?;
        let add = self
            .read_keys_if_any("--add-key", &args.add_key)
            .await?
            .unwrap_or_default();
        let new_traits = traits(&args.traits)?;
        let now = self.ctx.state.now();
        let name = args.name.clone();
        let change = move |user: &mut User| {
            if let Some(roles) = args.roles {
                user.roles = roles.0.into_iter().collect();
            }
            if let Some(logins) = args.logins {
                user.logins = without_repeats(logins.0);
            }
            for (key, values) in new_traits {
                if values.iter().all(String::is_empty) {
                    user.traits.remove(&key);
                } else {
                    user.traits.insert(key, values);
                }
            }
            change_keys(user, replace, add, &args.rm_key, now)
        };
        let stored = self
            .ctx
            .state
            .update_user(&self.by(), &name, change)
            .await?;
        self.say_updated(&stored).await
    }

    pub(crate) async fn users_rm(&mut self, args: &UserOnly) -> Ended {
        self.remove(ObjectId::User(args.name.clone())).await
    }

    pub(crate) async fn users_lock(&mut self, args: UsersLock) -> Ended {
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Update, &self.ctx.state.view(), &id)?;
        let message = self.check_reason(Some(&args.message))?;
        if self.user() == Some(&args.name) {
            return Err(Stop::denied(
                "you would lock yourself out; ask another administrator, or use `anteroom ctl` on the proxy",
            ));
        }
        let change = move |user: &mut User| {
            user.locked = Some(message);
            Ok::<(), Refused>(())
        };
        self.ctx
            .state
            .update_user(&self.by(), &args.name, change)
            .await?;
        self.print(&format!("user `{}` is locked", args.name))
            .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn users_unlock(&mut self, args: &UserOnly) -> Ended {
        let id = ObjectId::User(args.name.clone());
        self.require_on(AdminVerb::Update, &self.ctx.state.view(), &id)?;
        let change = |user: &mut User| {
            user.locked = None;
            Ok::<(), Refused>(())
        };
        // `lock --user` shuts her out as well: after this she is let in, whatever it was.
        let target = LockTarget::User(args.name.clone());
        let view = self.ctx.state.view();
        let locks = view.locks().iter().filter(|lock| lock.target == target);
        let locks: Vec<ObjectId> = locks.map(|lock| ObjectId::Lock(lock.id)).collect();
        if !locks.is_empty() {
            self.ctx.state.remove(&self.by(), locks).await?;
        }
        self.ctx
            .state
            .update_user(&self.by(), &args.name, change)
            .await?;
        self.print(&format!("user `{}` is unlocked", args.name))
            .await?;
        Ok(Exit::Done)
    }

    /// The users that the caller may list.
    fn all_users(&self, view: &View) -> Vec<Arc<User>> {
        let mandate = self.mandate(view, AdminVerb::List, AdminResource::User);
        let users = view.users();
        users
            .filter(|user| mandate.covers(AdminObject::User(user)))
            .map(Arc::clone)
            .collect()
    }
}

fn without_repeats<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut out: Vec<T> = Vec::with_capacity(items.len());
    for item in items {
        if !out.contains(&item) {
            out.push(item);
        }
    }
    out
}

/// A key that comes several times has several values.
fn traits(pairs: &[(String, String)]) -> Result<BTreeMap<String, Vec<String>>, Stop> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in pairs {
        if key == "logins" {
            return Err(Stop::usage("the trait `logins` is set with `--logins`"));
        }
        if [key, value]
            .iter()
            .any(|text| text.chars().any(char::is_control))
        {
            return Err(Stop::usage(format!(
                "trait `{}` has a control character in it; write plain text",
                clean(key)
            )));
        }
        out.entry(key.clone()).or_default().push(value.clone());
    }
    Ok(out)
}

fn change_keys(
    user: &mut User,
    replace: Option<Vec<CheckedKey>>,
    add: Vec<CheckedKey>,
    remove: &[KeyFingerprint],
    now: OffsetDateTime,
) -> Result<(), Refused> {
    if let Some(keys) = replace {
        user.keys = stored_keys(keys, &user.keys, now);
    }
    for key in stored_keys(add, &user.keys, now) {
        if !user.has_key(&key.fingerprint) {
            user.keys.push(key);
        }
    }
    for fingerprint in remove {
        if !user.has_key(fingerprint) {
            return Err(Refused(format!(
                "user `{}` has no key {fingerprint}; `users show {}` lists them",
                user.name, user.name
            )));
        }
        user.keys.retain(|key| key.fingerprint != *fingerprint);
    }
    Ok(())
}

pub(super) const USER_HEADER: [&str; 5] = ["User", "Roles", "Logins", "Keys", "Locked"];

pub(super) fn user_cells(view: &View, user: &User, now: OffsetDateTime, cells: &mut Cells) {
    cells.push(user.name.as_str());
    cells.push_joined(&user.roles);
    cells.push_joined(&user.logins);
    cells.push_shown(user.keys.len());
    cells.push(
        &why_locked(view, user, now)
            .map(|why| say::cut(&why, 40))
            .unwrap_or_default(),
    );
}

/// Why the user is locked out, by `users lock` or by a lock on her or a role that she has.
fn why_locked(view: &View, user: &User, now: OffsetDateTime) -> Option<String> {
    let lock = view.locks().on_person(user, None, now);
    let message = lock.map(|lock| match &lock.target {
        LockTarget::User(_) => lock.message.clone(),
        target @ (LockTarget::Key(_)
        | LockTarget::Role(_)
        | LockTarget::Request(_)
        | LockTarget::Login(_)
        | LockTarget::Node(_)
        | LockTarget::Serial(_)) => format!("{target}: {}", lock.message),
    });
    let why = user.locked.clone().or(message)?;
    Some(if why.is_empty() {
        "yes".to_owned()
    } else {
        why
    })
}

fn user_text(view: &View, user: &User, now: OffsetDateTime) -> String {
    let mut lines = vec![
        field("User", user.name.as_str()),
        field("Roles", &joined(&user.roles)),
        field("Logins", &joined(&user.logins)),
    ];
    for (name, values) in &user.traits {
        lines.push(field("Trait", &format!("{name}: {}", values.join(", "))));
    }
    for key in &user.keys {
        let kind = key.openssh.split(' ').next().unwrap_or_default();
        let comment = key.openssh.splitn(3, ' ').nth(2).unwrap_or_default();
        lines.push(field(
            "Key",
            &format!(
                "{} {kind} {comment} (added {})",
                key.fingerprint,
                say::stamp(key.added)
            ),
        ));
    }
    if let Some(why) = why_locked(view, user, now) {
        lines.push(field("Locked", &why));
    }
    lines.join("\n")
}
