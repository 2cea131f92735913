//! How a connection is ended by Anteroom, and its user told: on a session where there is one, else in the
//! goodbye of the connection itself.

use std::sync::Arc;
use std::time::Duration;

use anteroom_core::policy::{self, Identity, Reason};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::say;
use anteroom_ssh::Connection;

/// How long channels have to say what they have to say to somebody who is shut out. They do so at
/// once, unless their client does not read.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// After its last session a client goes by itself, with that session's status. A goodbye of ours that
/// it reads together with it would take the status's place.
const LEAVING: Duration = Duration::from_millis(500);

/// A client that has just logged in opens its first channel by then, on which it is told why it may do
/// nothing, and with which status.
const OPENING: Duration = Duration::from_secs(2);

/// The channels of a connection that tell its user by themselves when they end: sessions, and inner
/// connections.
#[derive(Debug, Default)]
pub(super) struct Speaking(watch::Sender<u32>);

/// One of them, until this is dropped.
pub(super) struct Speaker(Arc<Speaking>);

impl Speaking {
    /// One more is there.
    pub(super) fn enter(self: &Arc<Self>) -> Speaker {
        self.0.send_modify(|count| *count += 1);
        Speaker(self.clone())
    }

    /// Returns when one is there, or at that instant.
    async fn begun(&self, until: Instant) {
        let mut count = self.0.subscribe();
        let someone = count.wait_for(|count| *count > 0);
        tokio::time::timeout_at(until, someone).await.ok();
    }

    /// Returns when none is there, and the client has had the time to go after the last one.
    pub(super) async fn silent(&self, connection: &Connection) {
        let mut count = self.0.subscribe();
        while *count.borrow_and_update() > 0 {
            // The sender is in `self`: an error cannot happen while `self` is borrowed.
            if count.changed().await.is_err() {
                return;
            }
            if *count.borrow() == 0 {
                let gone = tokio::time::timeout(LEAVING, connection.closed());
                if gone.await.is_ok() {
                    return;
                }
            }
        }
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.0
            .0
            .send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Ends a connection, with the reason, when its user is locked out or no user any more: also one that
/// does nothing at the moment, which would otherwise stay for as long as its client likes.
pub(super) fn end_when_barred(
    proxy: Arc<Proxy>,
    identity: Identity,
    connection: Connection,
    speaking: Arc<Speaking>,
) {
    let opens_until = Instant::now() + OPENING;
    tokio::spawn(async move {
        let why = tokio::select! {
            why = barred(&proxy, &identity) => why,
            () = connection.closed() => return,
        };
        speaking.begun(opens_until).await;
        let last_words = speaking.silent(&connection);
        // Who is not done by then does not read.
        tokio::time::timeout(LAST_WORDS, last_words).await.ok();
        connection.disconnect(&say::barred(&why)).await;
    });
}

async fn barred(proxy: &Proxy, identity: &Identity) -> Reason {
    let mut changes = proxy.state.changes();
    loop {
        changes.borrow_and_update();
        let admitted = policy::admit(&proxy.state.view(), identity, proxy.state.now());
        if let Err(why) = admitted
            && is_for_good(&why)
        {
            return why;
        }
        // The sender lives in the state, which `proxy` keeps alive.
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Of a certificate that counts no more the next session or forward tells; the key beside it may go on.
fn is_for_good(why: &Reason) -> bool {
    matches!(
        why,
        Reason::UnknownUser
            | Reason::UnknownKey
            | Reason::Locked { .. }
            | Reason::TargetLocked { .. }
    )
}
