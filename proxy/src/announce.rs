//! What node agents are told of: whom to trust, and what is revoked. Made once for all of them, when it changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anteroom_node::protocol::{FromProxy, LONGEST_LINE};
use bytes::Bytes;
use ssh_key::PublicKey;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin;
use crate::authority::Authorities;
use crate::proxy::Proxy;
use crate::state::State;

/// How often is looked whether authorities were turned: that is no change that decisions wait for.
const LOOK: Duration = Duration::from_secs(1);

/// How often the revocation list is made, at most: it reads every certificate that is valid.
const LIST_AGAIN: Duration = Duration::from_secs(10);

/// How often it is made at least: certificates end without anybody's doing.
const LIST_ANYHOW: Duration = Duration::from_secs(600);

/// For how long a list that was made for one node does for the next one: no node fetches so often that it would
/// see the difference, and a crowd of them costs one list in that time.
const FETCHED_AGAIN: Duration = Duration::from_secs(2);

/// A message as it is written on a control channel, shared by all of them; `None` until it is known.
pub type Line = Option<Bytes>;

/// The latest of each message that every agent gets.
#[derive(Debug)]
pub struct Announcements {
    authorities: watch::Sender<Line>,
    revoked: watch::Sender<Line>,
    /// Told when the first agent comes, which wants a list.
    wanted: tokio::sync::Notify,
    /// The list that nodes without an agent fetch, and when it was made.
    fetched: tokio::sync::Mutex<Option<(Instant, Bytes)>>,
    /// Whether the list that they were told is not the one of this moment, because that could not be made or said.
    outdated: AtomicBool,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            authorities: watch::Sender::new(None),
            revoked: watch::Sender::new(None),
            wanted: tokio::sync::Notify::new(),
            fetched: tokio::sync::Mutex::new(None),
            outdated: AtomicBool::new(false),
        }
    }
}

impl Announcements {
    /// The authorities, now and whenever they change.
    pub fn authorities(&self) -> watch::Receiver<Line> {
        let mut told = self.authorities.subscribe();
        told.mark_changed();
        told
    }

    /// The revocation list, now and whenever it changes.
    pub fn revoked(&self) -> watch::Receiver<Line> {
        let mut told = self.revoked.subscribe();
        told.mark_changed();
        self.wanted.notify_one();
        told
    }

    /// The revocation list for a node that fetches it. However many do at once, it is made once, and again after
    /// [`FETCHED_AGAIN`].
    pub(crate) async fn list_to_fetch(&self, state: &State) -> Result<Bytes, admin::NotHad> {
        let mut fetched = self.fetched.lock().await;
        if let Some((at, list)) = &*fetched
            && at.elapsed() < FETCHED_AGAIN
        {
            return Ok(list.clone());
        }
        let made = Instant::now();
        let (_, list) = admin::revocations_now(state).await?;
        let list = Bytes::from(list);
        *fetched = Some((made, list.clone()));
        Ok(list)
    }

    /// Whether agents have been told the revocation list as it is. If not, the one before stays in force there.
    pub fn revocations_told(&self) -> bool {
        !self.outdated.load(Ordering::Relaxed)
    }

    /// Tells a list; not one that is longer than a message may be.
    fn tell_revoked(&self, list: &[u8]) -> Told {
        let message = FromProxy::Revoked { krl: encoded(list) };
        let Some(line) = written(&message) else {
            tracing::error!(
                bytes = list.len(),
                "the revocation list is too long for node agents, which keep the one before"
            );
            return Told::Not;
        };
        self.revoked.send_replace(Some(line));
        Told::Yes
    }
}

/// Keeps them up to date for as long as the proxy lives.
pub(crate) async fn follow(proxy: Arc<Proxy>) {
    let told = &proxy.announcements;
    let mut changes = proxy.state.changes();
    let mut known: Option<Arc<Authorities>> = None;
    let mut listed: Option<(Instant, Vec<u8>)> = None;
    let mut stale = true;
    loop {
        let now = proxy.state.authorities();
        let same = match (&now, &known) {
            (Some(now), Some(known)) => Arc::ptr_eq(now, known),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !same {
            told.authorities
                .send_replace(now.as_deref().and_then(line_of));
            known = now;
            stale = true;
        }
        let due = match &listed {
            None => true,
            Some((at, _)) => at.elapsed() > if stale { LIST_AGAIN } else { LIST_ANYHOW },
        };
        if due && told.revoked.receiver_count() > 0 {
            let before = listed.take().map(|(_, content)| content);
            let (content, done) = list(&proxy, before).await;
            // One that could not be made or told is tried again soon.
            stale = done == Told::Not;
            told.outdated.store(stale, Ordering::Relaxed);
            listed = Some((Instant::now(), content));
        }
        tokio::select! {
            _ = changes.changed() => stale = true,
            () = told.wanted.notified() => {}
            () = tokio::time::sleep(LOOK) => continue,
        }
        // Changes come in crowds.
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the agents have the list of this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    Not,
}

/// Makes the list, tells it if it is another than `before`, and returns what the one that was told is compared by.
async fn list(proxy: &Proxy, before: Option<Vec<u8>>) -> (Vec<u8>, Told) {
    match admin::revocations_now(&proxy.state).await {
        Ok((content, _)) if before.as_ref() == Some(&content) => (content, Told::Yes),
        Ok((content, list)) => match proxy.announcements.tell_revoked(&list) {
            Told::Yes => (content, Told::Yes),
            Told::Not => (before.unwrap_or_default(), Told::Not),
        },
        Err((_, why)) => {
            tracing::warn!("the revocation list for node agents was not made: {why}");
            (before.unwrap_or_default(), Told::Not)
        }
    }
}

fn encoded(list: &[u8]) -> String {
    use ssh_key::encoding::base64::{Base64, Encoding as _};
    Base64::encode_string(list)
}

fn line_of(authorities: &Authorities) -> Option<Bytes> {
    let lines = |keys: Vec<PublicKey>| -> Option<Vec<String>> {
        let bare = keys
            .into_iter()
            .map(|key| PublicKey::from(key.key_data().clone()));
        bare.map(|key| key.to_openssh().ok()).collect()
    };
    written(&FromProxy::Authorities {
        node_ca: lines(authorities.node.record.trusted())?,
        host_ca: lines(authorities.host.record.trusted())?,
    })
}

/// A message as a line; `None` if it is too long.
pub(crate) fn written(message: &FromProxy) -> Option<Bytes> {
    let mut line = serde_json::to_vec(message).ok()?;
    line.push(b'\n');
    (line.len() <= LONGEST_LINE).then(|| line.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_long_to_say_leaves_the_one_before_with_the_agents() {
        let told = Announcements::default();
        let mut agent = told.revoked();
        agent.mark_unchanged();
        assert_eq!(told.tell_revoked(b"short"), Told::Yes);
        let before = agent.borrow_and_update().clone();
        assert!(before.is_some());
        // Base64 makes four bytes of three.
        assert_eq!(told.tell_revoked(&vec![0; LONGEST_LINE / 4 * 3]), Told::Not);
        assert!(!agent.has_changed().unwrap());
        assert_eq!(*agent.borrow(), before);
        assert_eq!(
            told.tell_revoked(&vec![0; LONGEST_LINE / 4 * 3 - 99]),
            Told::Yes
        );
        assert!(agent.has_changed().unwrap());
    }
}
