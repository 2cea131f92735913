//! `sessions ls` and `sessions kill`.

use std::collections::BTreeSet;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb, SessionObject};
use serde::Serialize;

use super::args::Listing;
use super::args::sessions::SessionKill;
use super::io::CommandIo;
use super::run::{Ended, LISTED, Run, Stop};
use crate::audit::{Entry, Event};
use crate::exit::Exit;
use crate::live::Session;
use crate::say::{self, Cells, clean};

/// Fewer characters of an ID mean nothing.
const SHORTEST_PREFIX: usize = 4;

/// The width of what runs in the table.
const WHAT_WIDTH: usize = 60;

const HEADER: [&str; 8] = [
    "ID",
    "User",
    "Node",
    "Login",
    "Request",
    "From",
    "Since (UTC)",
    "What",
];

/// A session as listings show it.
#[derive(Debug, Serialize)]
struct SessionRow<'a> {
    id: String,
    user: &'a str,
    node: &'a str,
    node_id: String,
    login: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    remote_addr: String,
    since: String,
    what: &'a str,
}

impl<'a> SessionRow<'a> {
    fn of(session: &'a Session) -> Self {
        Self {
            id: session.id.to_string(),
            user: session.user.as_str(),
            node: session.node.name.as_str(),
            node_id: session.node.id.to_string(),
            login: session.login.as_str(),
            request_id: session.request.map(|id| id.to_string()),
            remote_addr: session.from.to_string(),
            since: say::rfc3339(session.since),
            what: &session.what,
        }
    }
}

fn session_cells(session: &Arc<Session>, cells: &mut Cells) {
    let request = session.request.map(|id| id.to_string());
    cells.push(&session.id.to_string());
    cells.push(session.user.as_str());
    cells.push(session.node.name.as_str());
    cells.push(session.login.as_str());
    cells.push(request.as_deref().map_or("", |id| say::head(id, 8)));
    cells.push(&session.from.to_string());
    cells.push(&say::stamp(session.since));
    cells.push(&say::cut(&clean(&session.what), WHAT_WIDTH));
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn sessions_ls(&mut self, args: Listing) -> Ended {
        let mut all = self.ctx.sessions.all();
        all.retain(|session| self.owns(session) || self.may_session(session, &[AdminVerb::List]));
        self.rows(
            args.format,
            &all,
            |session| SessionRow::of(session),
            &HEADER,
            session_cells,
        )
        .await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn sessions_kill(&mut self, args: &SessionKill) -> Ended {
        let session = self.live_session(&args.id)?;
        // Ending is the most that can be done with a session; Teleport's rules call such a thing either.
        if !self.owns(&session)
            && !self.may_session(&session, &[AdminVerb::Delete, AdminVerb::Update])
        {
            let participants = BTreeSet::from([session.user.clone()]);
            self.require(
                AdminVerb::Delete,
                object(&session, &session.id.to_string(), &participants),
            )?;
        }
        let by = match self.user() {
            Some(user) => user.to_string(),
            None => "an administrator".to_owned(),
        };
        let actor = self.by();
        let mut entry = Entry::new(Event::SessionKill)
            .user(&actor.actor)
            .session_id(session.id)
            .node(&session.node.name)
            .node_id(session.node.id)
            .login(&session.login)
            .name(&session.user);
        entry.remote_addr = actor.from.map(|from| from.to_string());
        entry.request_id = session.request.map(|id| id.to_string());
        let logged = self.ctx.state.audit(entry).await;
        // It ends also where that can't be written down: what must not go on does not wait for a disk.
        let lived = self.ctx.sessions.kill(session.id, &by);
        logged?;
        if !lived {
            return Err(no_such_session(&args.id));
        }
        self.print(&format!(
            "Session {} of {} on {} is ended.",
            session.id, session.user, session.node.name
        ))
        .await?;
        Ok(Exit::Done)
    }

    /// The one session that begins so, among those that the caller may know of.
    fn live_session(&self, id: &str) -> Result<Arc<Session>, Stop> {
        let id = id.to_ascii_lowercase();
        if id.len() < SHORTEST_PREFIX {
            return Err(Stop::usage(format!(
                "`{}` is too short for a session's ID; give at least {SHORTEST_PREFIX} characters of it",
                clean(&id)
            )));
        }
        let mut found = self.ctx.sessions.all();
        found.retain(|session| {
            session.id.to_string().starts_with(&id)
                && (self.owns(session) || self.may_session(session, &AdminVerb::ALL))
        });
        match found.as_slice() {
            [] => Err(no_such_session(&id)),
            [one] => Ok(Arc::clone(one)),
            several => {
                let ids: Vec<String> = several
                    .iter()
                    .take(LISTED)
                    .map(|session| session.id.to_string())
                    .collect();
                Err(Stop::usage(format!(
                    "`{}` begins the IDs of several sessions: {}; give more of it",
                    clean(&id),
                    ids.join(", ")
                )))
            }
        }
    }

    fn owns(&self, session: &Session) -> bool {
        self.user().is_some_and(|user| *user == session.user)
    }

    /// Whether the caller's rules allow one of `verbs` with it.
    fn may_session(&self, session: &Session, verbs: &[AdminVerb]) -> bool {
        let id = session.id.to_string();
        let participants = BTreeSet::from([session.user.clone()]);
        verbs
            .iter()
            .any(|verb| self.may(*verb, object(session, &id, &participants)))
    }
}

fn object<'a>(
    session: &'a Session,
    id: &'a str,
    participants: &'a BTreeSet<anteroom_core::id::UserName>,
) -> AdminObject<'a> {
    AdminObject::Session(SessionObject {
        id,
        participants,
        server_labels: &session.node.labels,
    })
}

fn no_such_session(id: &str) -> Stop {
    Stop::not_found(format!(
        "no live session `{}`; `sessions ls` lists those that live",
        clean(id)
    ))
}
