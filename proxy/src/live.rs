//! The sessions that live at this moment, and how one of them is ended from outside.
//!
//! In memory only, because it is about channels of this process; what was is in the log. It decides
//! nothing: who may end which session is asked before. There are as many as there are bridged session
//! channels, which the door and the roles bound.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_core::id::{Login, RequestId, SessionId, UserName};
use anteroom_core::node::Node;
use anteroom_core::policy::Permit;
use time::OffsetDateTime;
use tokio::sync::watch;

/// The live sessions. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    live: Arc<Mutex<BTreeMap<SessionId, Live>>>,
}

/// One session that lives.
#[derive(Debug)]
pub struct Session {
    /// Its ID, as in the audit log.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserName,
    /// Where it runs, as it was registered when the session began.
    pub node: Arc<Node>,
    /// As whom it runs there.
    pub login: Login,
    /// The request that it rests on.
    pub request: Option<RequestId>,
    /// Where the user comes from.
    pub from: SocketAddr,
    /// When it began.
    pub since: OffsetDateTime,
    /// `shell`, `exec: uptime`, `subsystem: sftp`; a peer's text.
    pub what: String,
}

#[derive(Debug)]
struct Live {
    session: Arc<Session>,
    killed: watch::Sender<Option<String>>,
}

/// A session among the living, until this is dropped.
#[derive(Debug)]
pub struct Place {
    sessions: Sessions,
    id: SessionId,
    killed: Killed,
}

/// By whom a session was ended, as soon as it was.
#[derive(Debug, Clone)]
pub struct Killed(watch::Receiver<Option<String>>);

impl Session {
    /// A session that begins now under `permit`.
    #[must_use]
    pub fn new(
        id: SessionId,
        permit: &Permit,
        from: SocketAddr,
        since: OffsetDateTime,
        what: String,
    ) -> Self {
        Self {
            id,
            user: permit.user().clone(),
            node: Arc::clone(permit.node()),
            login: permit.login().clone(),
            request: permit.request(),
            from,
            since,
            what,
        }
    }
}

impl Sessions {
    /// One more session lives.
    #[must_use]
    pub fn enter(&self, session: Session) -> Place {
        let (killed, told) = watch::channel(None);
        let id = session.id;
        let session = Arc::new(session);
        self.live().insert(id, Live { session, killed });
        Place {
            sessions: self.clone(),
            id,
            killed: Killed(told),
        }
    }

    /// Those that live now, the oldest first.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Session>> {
        let mut all: Vec<_> = self
            .live()
            .values()
            .map(|live| Arc::clone(&live.session))
            .collect();
        // Those of one moment stay in the order of their IDs.
        all.sort_by_key(|session| session.since);
        all
    }

    /// Has a session end, and says whether there was one. The first who does it is the one it is told of.
    pub fn kill(&self, id: SessionId, by: &str) -> bool {
        let live = self.live();
        let Some(live) = live.get(&id) else {
            return false;
        };
        live.killed.send_if_modified(|killed| {
            let first = killed.is_none();
            killed.get_or_insert_with(|| by.to_owned());
            first
        });
        true
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<SessionId, Live>> {
        // A panic while one is put in or taken out leaves a map that is whole: going on is right.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Tells when the session is ended from outside.
    #[must_use]
    pub fn killed(&self) -> Killed {
        self.killed.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.sessions.live().remove(&self.id);
    }
}

impl Killed {
    /// Who has ended it, if somebody has.
    #[must_use]
    pub fn by(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    /// Returns when somebody ends it, and never otherwise. Cancel-safe.
    pub async fn wait(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            // It is no longer among the living, so nobody can.
            std::future::pending::<()>().await;
        }
    }
}
