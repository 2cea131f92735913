//! What every connection shares: the state, the keys, the settings, and the counts that bound them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_core::id::UserName;
use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::admin::{self, Place, SecondFactorContext};
use crate::announce::Announcements;
use crate::check::NetworkChecker;
use crate::config::Config;
use crate::keys::{HostKeys, Keys};
use crate::limits::{Door, Hourly};
use crate::listings::Listings;
use crate::live::Sessions;
use crate::mfa::{Recent, Sealer};
use crate::scan::NetworkScanner;
use crate::state::State;
use crate::tunnels::Tunnels;
use crate::vitals::{Counts, Pulse};
use crate::waiting::Waiting;

/// The proxy: one per process, shared by all connections.
pub struct Proxy {
    /// Users, nodes, roles, requests, audit: decided on, persisted, announced.
    pub state: State,
    /// The counters of the front door.
    pub door: Arc<Door>,
    /// Keys that answer on the wire.
    pub hosts: Arc<HostKeys>,
    /// What commands work with.
    pub commands: admin::Context,
    /// Since when: what was said to whom before is not known.
    pub started: OffsetDateTime,
    /// Names that are no nodes, for which users were shown host certificates.
    pub host_names: Hourly,
    /// Second factors that were given a moment ago.
    pub recent: Arc<Recent>,
    /// What node agents are told of.
    pub announcements: Arc<Announcements>,
    config: Arc<ArcSwap<Config>>,
    counts: Arc<Mutex<Counts>>,
    draining: watch::Sender<Phase>,
}

/// The proxy's own life, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Stopping,
}

/// A place among a user's held channels. Bounded (`max_held_channels`), because each one keeps a
/// connection, a task and up to a window of early data alive for as long as nobody decides; and
/// per user, because one who takes all there are must not keep the others from asking.
pub struct HoldSlot<'p> {
    proxy: &'p Proxy,
    user: UserName,
}

/// One authenticated connection of a user, counted against `max_connections_per_user`.
pub struct UserPlace {
    proxy: Arc<Proxy>,
    user: UserName,
}

/// One connection of a user to a node, counted against the `max_connections` of her roles.
pub struct NodePlace {
    proxy: Arc<Proxy>,
    user: UserName,
}

impl Proxy {
    /// Puts the shared parts together.
    ///
    /// `reached_at` is where clients connect, for the lines that `config` prints.
    pub fn new(
        state: State,
        keys: Keys,
        sealer: Sealer,
        config: Config,
        reached_at: (String, u16),
    ) -> Arc<Proxy> {
        let (host, port) = reached_at;
        let started = state.now();
        let recent = Arc::new(Recent::default());
        state.addresses().name(config.node_addresses.clone());
        state.addresses().share(config.shared_addresses.clone());
        let (door, counts) = (Arc::default(), Arc::default());
        let announcements: Arc<Announcements> = Arc::default();
        let config = Arc::new(ArcSwap::from_pointee(config));
        let tunnels = Arc::<Tunnels>::default();
        let pulse = Pulse {
            state: state.clone(),
            started,
            door: Arc::clone(&door),
            counts: Arc::clone(&counts),
            config: Arc::clone(&config),
            tunnels: Arc::clone(&tunnels),
            announcements: Arc::clone(&announcements),
        };
        Arc::new_cyclic(|itself| {
            let commands = admin::Context {
                pulse: Some(pulse),
                state: state.clone(),
                place: Arc::new(Place {
                    host,
                    port,
                    names: keys.hosts.names().clone(),
                    host_key: keys.hosts.public_key().clone(),
                }),
                scanner: Arc::new(NetworkScanner),
                checker: Some(Arc::new(NetworkChecker::new(itself.clone()))),
                waiting: Waiting::default(),
                listings: Listings::default(),
                sessions: Sessions::default(),
                tunnels,
                rotator: Some(keys.rotator),
                second_factors: SecondFactorContext {
                    sealer: Arc::new(sealer),
                    recent: Arc::clone(&recent),
                },
            };
            Proxy {
                state,
                started,
                commands,
                door,
                hosts: keys.hosts,
                host_names: Hourly::default(),
                recent,
                announcements,
                config,
                counts,
                draining: watch::Sender::new(Phase::Serving),
            }
        })
    }

    /// The settings of this moment.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Replaces the settings (SIGHUP). Connections that exist keep the limits they began with.
    pub fn reconfigure(&self, config: Config) {
        let addresses = self.state.addresses();
        addresses.name(config.node_addresses.clone());
        addresses.share(config.shared_addresses.clone());
        self.config.store(Arc::new(config));
    }

    /// The nodes that are connected by themselves.
    pub fn tunnels(&self) -> &Arc<Tunnels> {
        &self.commands.tunnels
    }

    /// Tells every waiting connection to leave; live sessions go on until the drain time is over.
    pub fn drain(&self) {
        self.draining.send_replace(Phase::Draining);
    }

    /// Ends everything that is still there; each says so before it closes.
    pub fn shut_down(&self) {
        self.draining.send_replace(Phase::Stopping);
    }

    /// Resolves when those who wait should leave.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when the drain time is over.
    pub async fn stopping(&self) {
        self.reached(Phase::Stopping).await;
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.draining.subscribe();
        // The sender is in `self`: an error cannot happen while `self` is borrowed.
        if phases.wait_for(|now| *now >= phase).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// A place among the user's held channels, if one is left.
    pub fn hold_slot(&self, user: &UserName) -> Option<HoldSlot<'_>> {
        let limit = self.config.load().door.held_channels;
        take(&mut self.counts().held, user, limit)?;
        Some(HoldSlot {
            proxy: self,
            user: user.clone(),
        })
    }

    /// Counts an authenticated connection, or refuses it where the user has too many.
    pub fn user_place(self: &Arc<Self>, user: &UserName) -> Option<UserPlace> {
        let limit = self.config.load().door.connections_per_user;
        take(&mut self.counts().connections, user, limit)?;
        Some(UserPlace {
            proxy: self.clone(),
            user: user.clone(),
        })
    }

    /// Counts a connection to a node, or refuses it where the user has as many as `limit`. Without
    /// a limit it counts as well: a limit that comes later finds it there.
    pub fn node_place(self: &Arc<Self>, user: &UserName, limit: Option<u32>) -> Option<NodePlace> {
        let limit = limit.unwrap_or(u32::MAX);
        take(&mut self.counts().to_nodes, user, limit)?;
        Some(NodePlace {
            proxy: self.clone(),
            user: user.clone(),
        })
    }

    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        // A panic while counting leaves counts off by one, not unsafe: going on is right.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HoldSlot<'_> {
    fn drop(&mut self) {
        give_back(&mut self.proxy.counts().held, &self.user);
    }
}

impl Drop for NodePlace {
    fn drop(&mut self) {
        give_back(&mut self.proxy.counts().to_nodes, &self.user);
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        give_back(&mut self.proxy.counts().connections, &self.user);
    }
}

/// Counts one more of the user's, unless there are as many as may be.
fn take(counts: &mut HashMap<UserName, u32>, user: &UserName, limit: u32) -> Option<()> {
    let here = counts.get(user).copied().unwrap_or(0);
    if here >= limit {
        return None;
    }
    counts.insert(user.clone(), here + 1);
    Some(())
}

/// Counts one less; nothing is kept of what is not there any more.
fn give_back<K: Eq + std::hash::Hash>(counts: &mut HashMap<K, u32>, of: &K) {
    if let Some(here) = counts.get_mut(of) {
        *here = here.saturating_sub(1);
        if *here == 0 {
            counts.remove(of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_who_takes_all_leaves_the_others_theirs() {
        let user = |name| UserName::parse(name).unwrap();
        let mut counts = HashMap::new();
        for _ in 0..3 {
            take(&mut counts, &user("alice"), 3).unwrap();
        }
        assert!(take(&mut counts, &user("alice"), 3).is_none());
        assert!(take(&mut counts, &user("bob"), 3).is_some());
        give_back(&mut counts, &user("alice"));
        assert!(take(&mut counts, &user("alice"), 3).is_some());
    }

    #[test]
    fn nothing_is_kept_of_users_who_have_gone() {
        let user = UserName::parse("alice").unwrap();
        let mut counts = HashMap::new();
        take(&mut counts, &user, 3).unwrap();
        give_back(&mut counts, &user);
        assert!(counts.is_empty());
        give_back(&mut counts, &user);
        assert!(counts.is_empty());
    }
}
