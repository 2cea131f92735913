//! The state: the one thing that the rest of the proxy holds.
//!
//! Promises:
//! * [`State::view`] is what was last committed; it costs no wait. Whoever has looked at it and
//!   waits for something else to become true waits on [`State::changes`].
//! * Every change is decided by `anteroom-core` inside the transaction that writes it, on what is
//!   in the database at that moment, with the transaction's own time. Persist, then speak: an
//!   operation returns, and a watcher is woken, after the commit, never before.
//! * What time alone changes (a pending request lapses, an access opens or ends) wakes the
//!   watchers as well.
//! * When the store fails, operations fail with it and nothing is granted; what is in memory goes
//!   on being true within its permits, and the next operation connects anew.
//! * An operation whose caller goes away is done all the same.
//!
//! ```text
//!  State::file, review, issue, …          any task
//!     │ job                    ▲ answer, after the commit
//!     ▼                        │
//!  writer: begin immediate ─► decide (core) ─► rows + audit ─► commit ─► view, changes
//! ```

mod addresses;
mod agents;
mod allowances;
mod authorities;
mod certificates;
mod clock;
mod draft;
mod filings;
mod identities;
mod job;
mod locks;
mod mfa;
mod monitoring;
mod objects;
mod presence;
mod probe;
mod renewals;
mod requests;
mod sessions;
mod signing;
#[cfg(test)]
mod tests;
mod tokens;
mod writer;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anteroom_core::id::ClusterName;
use anteroom_core::policy::{self, Identity, Reason};
use anteroom_core::request::{AccessRequest, Actor};
use anteroom_core::view::{Settings, View};
use arc_swap::{ArcSwap, ArcSwapOption};
use thiserror::Error;
use time::OffsetDateTime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::audit::{Entry, Event};
use crate::authority::Authorities;
use crate::store::{OpenError, Reader, Store, StoreError};
use authorities::Learning;
use draft::Draft;
use job::Work;
use writer::{Message, Writer};

pub use addresses::NodeAddresses;
pub use agents::{HostKey, OwnConnection, OwnError};
pub use allowances::{AllowError, Allowed, DisallowError};
pub use authorities::{Adopted, Learner};
pub use certificates::{IssueError, Issued, Subject};
pub use clock::{Clock, ManualClock, SystemClock, Until};
pub use identities::{Dropping, LoggedIn, LoginError};
pub use locks::LockError;
pub use mfa::{CodeRefused, Confirmed, MfaError, Proof};
pub use monitoring::TooManyRules;
pub use objects::{
    Existing, NotAllowed, Object, ObjectId, PutError, RemoveError, Stored, UpdateError, Written,
};
pub use presence::{Presence, Seen};
pub use probe::{Probe, ProbeError};
pub use requests::{ApplyError, FileError, ReviewError};
pub use sessions::SessionEnded;
pub use tokens::{EnrolError, Enrolled, TokenError};

/// Users, roles, nodes, requests and the log, shared by everything in the proxy. Cloning it is
/// cheap, and gives the same state.
#[derive(Clone)]
pub struct State {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Message>,
    writer: Arc<tokio::sync::Mutex<Option<JoinHandle<()>>>>,
}

struct Shared {
    view: ArcSwap<View>,
    changes: watch::Sender<u64>,
    clock: Arc<dyn Clock>,
    cluster: ClusterName,
    reader: Reader,
    authorities: ArcSwapOption<Authorities>,
    learning: Mutex<Learning>,
    addresses: Arc<NodeAddresses>,
    presence: Presence,
    handed_out: tokens::HandedOut,
    /// Told when nodes were registered or changed.
    nodes: tokio::sync::Notify,
    /// Whether the last commit failed.
    failing: AtomicBool,
}

/// Who does something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// From where; `None` on the proxy's own host.
    pub from: Option<SocketAddr>,
    /// What a user has proven. Without it nothing is done for her: a command may have waited for
    /// its input, and her key, its certificate or she herself be locked or gone meanwhile.
    pub identity: Option<Identity>,
}

impl By {
    /// A user by what she proved, at that address.
    #[must_use]
    pub fn user(identity: Identity, from: impl Into<Option<SocketAddr>>) -> Self {
        Self {
            actor: Actor::User(identity.user().clone()),
            from: from.into(),
            identity: Some(identity),
        }
    }

    /// Whoever owns the proxy's control socket.
    #[must_use]
    pub fn local_administrator() -> Self {
        Self {
            actor: Actor::LocalAdministrator,
            from: None,
            identity: None,
        }
    }

    /// Whether a user may still do anything at all, by what she proved: asked in the transaction
    /// that does it, since what was true when the command began may be over.
    fn admit(&self, draft: &Draft) -> Result<(), NotAdmitted> {
        match (&self.actor, &self.identity) {
            (Actor::User(name), Some(identity)) if identity.user() == name => {
                policy::admit(draft.view(), identity, draft.now()).map_err(NotAdmitted)
            }
            (Actor::User(_), _) => Err(NotAdmitted(Reason::UnknownKey)),
            (Actor::LocalAdministrator | Actor::Rule(_) | Actor::Clock, _) => Ok(()),
        }
    }

    /// Whether a user has proven what her roles demand of who decides on requests.
    fn admit_as_reviewer(&self, view: &View) -> Result<(), NotAdmitted> {
        let identity = self.identity.as_ref();
        let lacking = identity.and_then(|identity| policy::unproven_for_review(view, identity));
        lacking.map_or(Ok(()), |reason| Err(NotAdmitted(reason)))
    }

    fn entry(&self, event: Event) -> Entry {
        let entry = Entry::new(event).user(&self.actor);
        match self.from {
            Some(from) => entry.remote_addr(from),
            None => entry,
        }
    }
}

/// Why the act was refused before it was looked at: whoever is behind it may do nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.as_sentence())]
pub struct NotAdmitted(pub Reason);

/// Why the act was refused before it was looked at: it came from a registered node, where it may
/// be a hostile node's use of an agent that was forwarded to it (SECURITY section 3).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FromNode {
    /// It comes from where a node is dialled.
    #[error(
        "reviews and administration are not accepted from `{node}`, which is a registered node; connect from your own machine"
    )]
    Registered {
        /// The node's name.
        node: String,
    },
    /// It comes from where a node's tunnel comes from.
    #[error(
        "reviews and administration are not accepted from {address}, where node `{node}` is or was connected from; connect from elsewhere, or name the address in `shared_addresses` of the configuration"
    )]
    Tunnel {
        /// The node's name.
        node: String,
        /// The address.
        address: IpAddr,
    },
}

impl State {
    /// Opens a data directory for this process alone, makes what is not there yet (directory,
    /// database, preset roles), ends the sessions of a proxy that was killed, and starts the
    /// writer. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`OpenError`] says what is in the way and what to do.
    pub async fn open(
        dir: &Path,
        clock: Arc<dyn Clock>,
        cluster: ClusterName,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let store = Store::open(dir).await?;
        let reader = store.reader();
        let presence = Presence::default();
        presence.load(reader.presence().await?);
        let addresses = Arc::<NodeAddresses>::default();
        addresses.load(reader.node_sources().await?);
        let first_words = |draft: &mut Draft| {
            objects::create_presets(draft);
            draft.log(
                Entry::new(Event::ProxyStart)
                    .reason(concat!("anteroom ", env!("CARGO_PKG_VERSION"))),
            );
        };
        let (store, started) =
            Writer::start(store, cluster.clone(), settings, clock.now(), first_words).await?;
        let (jobs, queue) = mpsc::channel(writer::QUEUE);
        let shared = Arc::new(Shared {
            view: ArcSwap::from_pointee(started.view()),
            changes: watch::Sender::new(0),
            clock,
            cluster,
            reader,
            authorities: ArcSwapOption::empty(),
            learning: Mutex::default(),
            addresses,
            presence,
            handed_out: tokens::HandedOut::default(),
            nodes: tokio::sync::Notify::new(),
            failing: AtomicBool::new(false),
        });
        let writer = Writer::new(store, started, Arc::clone(&shared), queue);
        let task = tokio::spawn(writer.run());
        Ok(Self {
            shared,
            jobs,
            writer: Arc::new(tokio::sync::Mutex::new(Some(task))),
        })
    }

    /// What is true now, as of the last commit.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// A counter that moves whenever a decision may come out differently than before. To miss
    /// nothing: subscribe first, then look at the view, then wait.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// The time by the clock that decisions are made with.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        self.shared.clock.now()
    }

    /// The clock that decisions are made with.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.shared.clock
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.shared.cluster
    }

    /// Listings straight from the database: the log, sessions, and requests of long ago.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.shared.reader
    }

    /// Whether the last commit failed, and so new access is refused until one is made.
    #[must_use]
    pub fn store_fails(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed)
    }

    /// Jobs that wait for the writer, and how many may.
    #[must_use]
    pub fn writer_queue(&self) -> (usize, usize) {
        let most = self.jobs.max_capacity();
        (most.saturating_sub(self.jobs.capacity()), most)
    }

    /// From where registered nodes may come.
    #[must_use]
    pub fn addresses(&self) -> &NodeAddresses {
        &self.shared.addresses
    }

    /// Returns when nodes were registered or changed since it last returned.
    pub async fn nodes_changed(&self) {
        self.shared.nodes.notified().await;
    }

    /// Refuses administration that comes from a registered node, loopback aside: for what only reads.
    /// Whatever is written asks by itself.
    ///
    /// # Errors
    /// [`FromNode`] names the node.
    pub fn not_from_a_node(&self, from: SocketAddr) -> Result<(), FromNode> {
        self.addresses()
            .refuse(&self.view(), Some(from), self.now())
    }

    /// Changes the limits and defaults that decisions are made with (the configuration was read
    /// again).
    ///
    /// # Errors
    /// [`StoreError::Stopped`].
    pub async fn configure(&self, settings: Settings) -> Result<(), StoreError> {
        self.write(move |draft| {
            draft.configure(settings);
            Ok(())
        })
        .await
    }

    /// Logs something that changes nothing else: an authentication that failed, a command, a
    /// rejected connection.
    ///
    /// # Errors
    /// [`StoreError`]: it is not in the log.
    pub async fn audit(&self, entry: Entry) -> Result<(), StoreError> {
        self.write(move |draft| {
            draft.log(entry);
            Ok(())
        })
        .await
    }

    /// Writes down whatever time has changed up to now. The writer does so by itself; this is for
    /// callers who must know that it is done.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn expire_due(&self) -> Result<(), StoreError> {
        self.write(|_| Ok(())).await
    }

    /// Writes what was asked for before, closes the database and lets another process have the
    /// directory. Later operations fail with [`StoreError::Stopped`].
    pub async fn close(&self) {
        if let Err(error) = self.write_presence().await {
            tracing::warn!("when nodes were last there could not be written down: {error}");
        }
        // Nothing hangs on the last entry: a start without it says "the proxy stopped".
        let _ = self.audit(Entry::new(Event::ProxyStop)).await;
        // The last connection that is closed empties the write-ahead log: the writer's.
        self.shared.reader.close().await;
        let _ = self.jobs.send(Message::Stop).await;
        if let Some(task) = self.writer.lock().await.take() {
            // It ends by itself; a panic in it was logged by the runtime.
            let _ = task.await;
        }
    }

    /// Has the writer run `decide` in its next transaction, and waits for the commit.
    async fn write<T, E, F>(&self, decide: F) -> Result<T, E>
    where
        F: FnOnce(&mut Draft) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (work, answer) = Work::new(decide);
        self.jobs
            .send(Message::Job(Box::new(work)))
            .await
            .map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("cluster", &self.shared.cluster)
            .finish_non_exhaustive()
    }
}

/// An entry about a request, as far as the request itself tells.
fn about_request(event: Event, request: &AccessRequest) -> Entry {
    let entry = Entry::new(event)
        .user(&request.user)
        .request_id(request.id)
        .state(request.state)
        .expires(rfc3339(request.access_expires));
    match &request.remote_addr {
        Some(addr) => entry.remote_addr(addr),
        None => entry,
    }
}

fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_default()
}

/// Refuses what comes from a registered node, loopback aside.
fn not_from_a_node(draft: &Draft, from: Option<SocketAddr>) -> Result<(), FromNode> {
    draft.addresses().refuse(draft.view(), from, draft.now())
}
