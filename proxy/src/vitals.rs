//! How the proxy is, in numbers: what `status --server` prints and `/metrics` serves.
//!
//! Numbers only: no name of a user, node or source is in them, so that whoever watches the proxy learns
//! nothing of people, and nobody outside can make the list longer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_core::id::UserName;
use anteroom_core::request::State as RequestState;
use arc_swap::ArcSwap;
use serde::Serialize;
use time::OffsetDateTime;

use crate::announce::Announcements;
use crate::config::Config;
use crate::limits::{Door, Drops};
use crate::say;
use crate::state::State;
use crate::tunnels::Tunnels;

/// How long the database may take to answer before it counts as not answering.
const DATABASE_WAIT: Duration = Duration::from_secs(2);

/// What users have open, counted per user.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) held: HashMap<UserName, u32>,
    pub(crate) connections: HashMap<UserName, u32>,
    pub(crate) to_nodes: HashMap<UserName, u32>,
}

/// Where the numbers come from. Cheap to clone.
#[derive(Clone)]
pub struct Pulse {
    pub(crate) state: State,
    pub(crate) started: OffsetDateTime,
    pub(crate) door: Arc<Door>,
    pub(crate) counts: Arc<Mutex<Counts>>,
    pub(crate) config: Arc<ArcSwap<Config>>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) announcements: Arc<Announcements>,
}

/// How much of a limit is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// What there is; of several sources or users, of the one with the most.
    pub used: u64,
    /// What there may be.
    pub limit: u64,
}

/// The numbers of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vitals {
    /// Of this program.
    pub version: &'static str,
    /// Since its start.
    pub uptime_seconds: u64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Open files and sockets.
    pub open_files: u64,
    /// Whether the database answers and the last commit was made.
    pub database_ok: bool,
    /// Whether node agents have been told the revocation list as it is.
    pub revocations_told: bool,
    /// Jobs that wait for the writer.
    pub writer_queue: Usage,
    /// Authenticated connections of all users.
    pub connections: u64,
    /// Of the user with the most.
    pub connections_per_user: Usage,
    /// Connections of nodes that connect by themselves.
    pub node_connections: Usage,
    /// Connections that have proven nothing yet.
    pub unauthenticated: Usage,
    /// Of the source with the most.
    pub unauthenticated_per_source: Usage,
    /// Channels that wait for a decision.
    pub held: u64,
    /// Of the user with the most.
    pub held_per_user: Usage,
    /// Connections to nodes.
    pub sessions: u64,
    /// Requests that wait for a review.
    pub pending_requests: u64,
    /// Of the user with the most.
    pub pending_requests_per_user: Usage,
    /// Sources that have a pause now.
    pub penalised_sources: u64,
    /// Connections that were closed because there were too many, since the start.
    pub dropped: Drops,
}

impl std::fmt::Debug for Pulse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pulse").finish_non_exhaustive()
    }
}

impl Pulse {
    /// Takes them. Waits for the database, and for two seconds at most.
    pub async fn take(&self) -> Vitals {
        let now = self.state.now();
        let answers = tokio::time::timeout(DATABASE_WAIT, self.state.reader().schema());
        let database_ok = !self.state.store_fails() && matches!(answers.await, Ok(Ok(_)));
        let config = self.config.load_full();
        let door = self.door.look(now);
        let pending = self.pending();
        let (connections, held, sessions) = {
            let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let of = |counts: &HashMap<UserName, u32>| sum_and_most(counts.values().copied());
            (
                of(&counts.connections),
                of(&counts.held),
                of(&counts.to_nodes),
            )
        };
        let (queued, queue) = self.state.writer_queue();
        Vitals {
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: u64::try_from((now - self.started).whole_seconds()).unwrap_or(0),
            memory_bytes: memory(),
            open_files: open_files(),
            database_ok,
            revocations_told: self.announcements.revocations_told(),
            writer_queue: usage(queued as u64, queue as u64),
            connections: connections.0,
            connections_per_user: usage(connections.1, config.door.connections_per_user.into()),
            node_connections: usage(
                self.tunnels.connections() as u64,
                config.door.tunnels.into(),
            ),
            unauthenticated: usage(door.strangers.into(), config.door.startups_full.into()),
            unauthenticated_per_source: usage(
                door.most_of_one_source.into(),
                config.door.startups_per_source.into(),
            ),
            held: held.0,
            held_per_user: usage(held.1, config.door.held_channels.into()),
            sessions: sessions.0,
            pending_requests: pending.0,
            pending_requests_per_user: usage(pending.1, config.pending_per_user.into()),
            penalised_sources: door.penalised,
            dropped: door.dropped,
        }
    }

    fn pending(&self) -> (u64, u64) {
        let view = self.state.view();
        let mut of_users: HashMap<&UserName, u32> = HashMap::new();
        for request in view.requests() {
            if request.state == RequestState::Pending {
                *of_users.entry(&request.user).or_default() += 1;
            }
        }
        sum_and_most(of_users.values().copied())
    }
}

fn usage(used: u64, limit: u64) -> Usage {
    Usage { used, limit }
}

fn sum_and_most(counts: impl Iterator<Item = u32>) -> (u64, u64) {
    counts.fold((0, 0), |(sum, most), count| {
        (sum + u64::from(count), most.max(count.into()))
    })
}

/// What the kernel says; 0 where it says nothing.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn open_files() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64)
}

impl Vitals {
    /// For people.
    pub fn render(&self) -> String {
        let line = |label: &str, value: String| format!("{:<32}{value}", format!("{label}:"));
        let of = |usage: Usage| format!("{} of {}", usage.used, usage.limit);
        let up = time::Duration::seconds(i64::try_from(self.uptime_seconds).unwrap_or(0));
        let database = match self.database_ok {
            true => "ok".to_owned(),
            false => "FAILS: new access is refused until it is back; the log says why".to_owned(),
        };
        let revocations = match self.revocations_told {
            true => "told".to_owned(),
            false => "NOT TOLD: node agents keep the list before; the log says why".to_owned(),
        };
        let dropped = format!(
            "{} too many at once, {} too many of one source, {} of sources that had failed, \
             {} silent ones for newcomers",
            self.dropped.startups,
            self.dropped.per_source,
            self.dropped.penalty,
            self.dropped.displaced
        );
        [
            line("Version", self.version.to_owned()),
            line("Up for", say::brief(up)),
            line("Database", database),
            line("Revocations to node agents", revocations),
            line("Waiting for the writer", of(self.writer_queue)),
            line("Memory", format!("{} MiB", self.memory_bytes >> 20)),
            line("Open files", self.open_files.to_string()),
            line("Connections", self.connections.to_string()),
            line("  most of one user", of(self.connections_per_user)),
            line("Connections of nodes", of(self.node_connections)),
            line("Unauthenticated", of(self.unauthenticated)),
            line("  most of one source", of(self.unauthenticated_per_source)),
            line("Waiting for a decision", self.held.to_string()),
            line("  most of one user", of(self.held_per_user)),
            line("Connections to nodes", self.sessions.to_string()),
            line("Pending requests", self.pending_requests.to_string()),
            line("  most of one user", of(self.pending_requests_per_user)),
            line("Sources with a pause", self.penalised_sources.to_string()),
            line("Dropped since the start", dropped),
        ]
        .join("\n")
    }
}
