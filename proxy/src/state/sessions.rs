//! Sessions to nodes: their beginning and their end, each with its entry in the log.

use std::net::SocketAddr;

use anteroom_core::id::SessionId;
use anteroom_core::policy::Permit;
use time::OffsetDateTime;

use super::State;
use crate::audit::{Entry, Event};
use crate::store::{SessionEnd, SessionStart, StoreError};

/// How a session ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionEnded {
    /// Why: what was said to the user, or that she left.
    pub reason: Option<String>,
    /// The remote command's exit status or signal.
    pub exit: Option<String>,
    /// Bytes from the user to the node.
    pub bytes_sent: u64,
    /// Bytes from the node to the user.
    pub bytes_received: u64,
    /// When, where that was before it could be written down.
    pub at: Option<OffsetDateTime>,
}

impl State {
    /// Records that a session begins, and the command that it runs as an event of its own kind
    /// (`exec`, `scp`, `sftp`), in one commit. To be called before anything is bridged.
    ///
    /// # Errors
    /// [`StoreError`]: it is not recorded, and must not begin.
    pub async fn session_started(
        &self,
        permit: &Permit,
        session: SessionId,
        from: Option<SocketAddr>,
        command: Option<(Event, String)>,
    ) -> Result<(), StoreError> {
        let about = |event| {
            let mut entry = about_session(event, permit, session);
            entry.remote_addr = from.map(|from| from.to_string());
            entry.command = command.as_ref().map(|(_, text)| text.clone());
            entry
        };
        let entry = about(Event::SessionStart);
        let ran = command.as_ref().map(|(event, _)| about(*event));
        let start = SessionStart {
            id: session,
            user: permit.user().clone(),
            node: permit.node().id,
            login: permit.login().to_string(),
            request: permit.request(),
            about: serde_json::json!({
                "node": permit.node().name.as_str(),
                "remote_addr": entry.remote_addr,
                "key": permit.key().as_str(),
                "command": entry.command,
            }),
        };
        self.write(move |draft| {
            draft.start_session(start, entry);
            if let Some(ran) = ran {
                draft.log(ran);
            }
            Ok(())
        })
        .await
    }

    /// Records that a session ended. A second end of the same session is not recorded.
    ///
    /// # Errors
    /// [`StoreError`]: the next start of the proxy records the end.
    pub async fn session_ended(
        &self,
        permit: &Permit,
        session: SessionId,
        ended: SessionEnded,
    ) -> Result<(), StoreError> {
        let SessionEnded {
            reason,
            exit,
            bytes_sent,
            bytes_received,
            at,
        } = ended;
        let mut entry = about_session(Event::SessionEnd, permit, session);
        entry.reason = reason;
        entry.exit = exit;
        entry.bytes_sent = Some(bytes_sent);
        entry.bytes_received = Some(bytes_received);
        self.write(move |draft| {
            draft.end_session(SessionEnd { id: session, at }, entry);
            Ok(())
        })
        .await
    }
}

/// An entry about a session, as far as its permit tells.
pub(super) fn about_session(event: Event, permit: &Permit, session: SessionId) -> Entry {
    let mut entry = Entry::new(event)
        .user(permit.user())
        .key(permit.key())
        .node_id(permit.node().id)
        .node(&permit.node().name)
        .login(permit.login())
        .session_id(session);
    entry.request_id = permit.request().map(|id| id.to_string());
    entry
}
