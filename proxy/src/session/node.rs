//! A node's door for one connection: its sessions and forwards, held, dialled and bridged.
//!
//! Made once the connection has said who it is and which login on which node it wants. Sessions
//! get a node connection each, ended with it; forwards share a few, because a node connection
//! costs a key exchange and because one that stalls must not stall the others.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anteroom_core::id::{Login, NodeId, RequestId, SessionId};
use anteroom_core::node::Node;
use anteroom_core::policy::{self, Access, Decision, Identity, Permit, Resolved};
use anteroom_core::request::Scope;
use anteroom_core::resource::Resource;
use anteroom_core::target::NodeRef;
use anteroom_core::view::View;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::forward::{self, Expects, Forwards};
use super::parting::{self, Speaking};
use super::startup::{Program, Startup};
use super::voice::{ChannelVoice, Silent};
use crate::audit::{Entry, Event};
use crate::bridge::{self, Ended, Tally, Uses, Watch};
use crate::dial::{self, Caller};
use crate::environment::Environment;
use crate::exit::{Exit, Exits};
use crate::hold::{self, Need, Refusal, Voice};
use crate::live::Session;
use crate::proxy::{NodePlace, Proxy};
use crate::say;
use crate::state::SessionEnded;
use crate::store::StoreError;
use anteroom_ssh::{Channel, Connection, NodeConnection, Opening};

/// How long until the end of a session is recorded again after the store failed.
const RECORD_AGAIN: Duration = Duration::from_secs(2);

/// One connection's way to one login on one node.
pub(super) struct NodeDoor {
    pub(super) proxy: Arc<Proxy>,
    pub(super) identity: Identity,
    /// Requests through which this connection got in. With a certificate that does not name them
    /// they count here and nowhere else.
    asked: std::sync::Mutex<BTreeSet<RequestId>>,
    pub(super) from: SocketAddr,
    /// What the user called it.
    wanted: Wanted,
    /// The connection itself, to open agent, display and forwarded channels on.
    pub(super) connection: Connection,
    /// What the client's environment said to Anteroom; forwards have none of their own.
    settings: std::sync::Mutex<Environment>,
    /// Held while a reason is asked for and a request is filed, so that what the same connection
    /// opens meanwhile joins that request instead of filing its own without a reason.
    asking: Mutex<()>,
    pub(super) forwards: Forwards,
    /// When the key was proven.
    since: OffsetDateTime,
    /// This connection's place among the user's, from its first permit on.
    place: std::sync::Mutex<Option<NodePlace>>,
    /// Sessions of this connection that have a permit.
    sessions: Arc<AtomicU32>,
    /// Sessions of this connection, whatever they wait for.
    speaking: Arc<Speaking>,
}

/// One session of a connection, counted against the `max_sessions` of the roles.
struct SessionSlot(Arc<AtomicU32>);

impl Drop for SessionSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The target as the user wrote it: the login may still turn out not to be one.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) login: String,
    /// The text where it can be no node's name: it is answered as one that nobody has.
    pub(super) node: Result<NodeRef, String>,
}

impl Wanted {
    fn shown(&self) -> String {
        format!("{}@{}", self.login, self.node_shown())
    }

    fn node_shown(&self) -> String {
        match &self.node {
            Ok(node) => node.to_string(),
            Err(text) => text.clone(),
        }
    }
}

impl NodeDoor {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        identity: Identity,
        from: SocketAddr,
        wanted: Wanted,
        connection: Connection,
        since: OffsetDateTime,
    ) -> Arc<NodeDoor> {
        Arc::new(NodeDoor {
            proxy,
            identity,
            asked: std::sync::Mutex::default(),
            from,
            wanted,
            connection,
            settings: std::sync::Mutex::default(),
            asking: Mutex::new(()),
            forwards: Forwards::default(),
            since,
            place: std::sync::Mutex::default(),
            sessions: Arc::default(),
            speaking: Arc::default(),
        })
    }

    /// Ends the connection when its user is shut out.
    pub(super) fn end_when_barred(&self) {
        parting::end_when_barred(
            self.proxy.clone(),
            self.identity.clone(),
            self.connection.clone(),
            self.speaking.clone(),
        );
    }

    /// What a forward or a listener ended for is said in the goodbye of the connection where no
    /// session is there to be told, and there is nothing that the connection could go on with.
    pub(super) async fn tell(&self, why: &str) {
        self.speaking.silent(&self.connection).await;
        if self.permit_now().is_none() {
            self.connection.disconnect(why).await;
        }
    }

    /// Serves one session channel to its end.
    pub(super) async fn session(self: Arc<Self>, opening: Opening) {
        let _speaker = self.speaking.enter();
        let mut channel = opening.accept().await;
        let config = self.proxy.config();
        let Some((mut startup, program)) = Startup::collect(&mut channel.inbox, &config).await
        else {
            return;
        };
        self.settings().clone_from(startup.settings());
        let outbox = channel.outbox.clone();
        let line_end = if startup.has_terminal() {
            say::LineEnd::CrLf
        } else {
            say::LineEnd::Lf
        };
        let refusal = match self.admitted(&mut channel, &mut startup, &program).await {
            // The slot is given back when the session is over.
            Ok((access, permit, _slot)) => {
                match self
                    .bridged(channel, startup, &program, access, permit, line_end)
                    .await
                {
                    Ok(()) => return,
                    Err(refusal) => refusal,
                }
            }
            Err(refusal) => refusal,
        };
        self.refused(&refusal).await;
        if !refusal.sentence.is_empty() {
            outbox
                .stderr(say::lines(&refusal.sentence, line_end))
                .await
                .ok();
        }
        // The client may be gone; these are for one that is not.
        outbox.exit_status(refusal.exit.code().into()).await.ok();
        outbox.close().await;
    }

    async fn admitted(
        &self,
        channel: &mut Channel,
        startup: &mut Startup,
        program: &Program,
    ) -> Result<(Access, Permit, SessionSlot), Refusal> {
        let access = self.access()?;
        let need = self.need(
            &access,
            startup.settings(),
            Some(program),
            program.purpose(),
        )?;
        let terminal = startup.terminal();
        let mut voice = ChannelVoice::new(&mut channel.inbox, channel.outbox.clone(), terminal);
        let permit = self.wait(&need, &mut voice).await?;
        if program.copies_files() && !permit.capabilities().file_copy.is_allowed() {
            return Err(refusal(Exit::Denied, say::file_copy_refused(&need.shown)));
        }
        let slot = self.session_slot(&permit)?;
        Ok((access, permit, slot))
    }

    /// A place among the sessions of this connection, if the roles leave one.
    fn session_slot(&self, permit: &Permit) -> Result<SessionSlot, Refusal> {
        let limit = permit.limits().sessions.unwrap_or(u32::MAX);
        let one_more = |count: u32| (count < limit).then_some(count + 1);
        self.sessions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .map_err(|_| {
                let shown = self.wanted.shown();
                refusal(Exit::Denied, say::too_many_sessions(&shown, limit))
            })?;
        Ok(SessionSlot(self.sessions.clone()))
    }

    async fn bridged(
        self: &Arc<Self>,
        channel: Channel,
        startup: Startup,
        program: &Program,
        access: Access,
        permit: Permit,
        line_end: say::LineEnd,
    ) -> Result<(), Refusal> {
        let session = SessionId::from_uuid(uuid::Uuid::new_v4());
        let caller = Caller {
            command: program.command().map(<[u8]>::to_vec),
            ..self.caller(&access)
        };
        let mut watch = self
            .watch(access.clone(), permit.clone(), Uses::Session)
            .running(program.command());
        let dialled = tokio::select! {
            biased;
            // A slow node keeps a dial waiting for 30 seconds: not for a client that has left, nor for one whose
            // permit ends meanwhile.
            () = channel.outbox.gone() => return Err(refusal(Exit::Interrupted, String::new())),
            why = watch.ended() => return Err(refusal(Exit::Denied, why)),
            dialled = dial::dial(&self.proxy, &permit, &caller, session) => dialled,
        };
        let (permit, node) = dialled.map_err(|error| refusal(error.exit(), error.sentence()))?;
        let target = match self.opened(&node, &permit, session, program).await {
            Ok(target) => target,
            Err(refusal) => {
                node.disconnect().await;
                return Err(refusal);
            }
        };
        if let Some(refused) = startup.refused_by(permit.scope()) {
            // The session goes on without it; who is gone is not told.
            let words = say::scope_refuses(refused);
            channel
                .outbox
                .stderr(say::lines(&words, line_end))
                .await
                .ok();
        }
        let (sessions, since) = (&self.proxy.commands.sessions, self.proxy.state.now());
        let about = Session::new(session, &permit, self.from, since, program.purpose());
        // Among the living until it is over.
        let place = sessions.enter(about);
        let mut watch = self
            .watch(access, permit, Uses::Session)
            .running(program.command())
            .killed_by(place.killed());
        let tally = Tally::default();
        let ended = self
            .relayed(channel, target, node, startup, line_end, &mut watch, &tally)
            .await;
        self.record_end(session, watch.permit(), &ended, &tally)
            .await;
        Ok(())
    }

    /// The session's channel at the node; its start is in the log before anything flows.
    async fn opened(
        &self,
        node: &NodeConnection,
        permit: &Permit,
        session: SessionId,
        program: &Program,
    ) -> Result<Channel, Refusal> {
        let state = &self.proxy.state;
        let recording = state.session_started(permit, session, Some(self.from), program.event());
        // Side by side: the commit takes about as long as the node's answer.
        let (opened, recorded) = tokio::join!(dial::open_session(node, permit), recording);
        recorded.map_err(|error| refusal(error.exit(), format!("ERROR: {error}")))?;
        match opened {
            Ok(target) => Ok(target),
            Err(error) => {
                self.record_end(session, permit, &Ended::NodeLost, &Tally::default())
                    .await;
                Err(refusal(error.exit(), error.sentence()))
            }
        }
    }

    /// Relays until the session is over, and ends the node connection that it had to itself.
    #[expect(
        clippy::too_many_arguments,
        reason = "the two sides, and what each of them brought"
    )]
    async fn relayed(
        self: &Arc<Self>,
        user: Channel,
        target: Channel,
        mut node: NodeConnection,
        startup: Startup,
        line_end: say::LineEnd,
        watch: &mut Watch,
        tally: &Tally,
    ) -> Ended {
        let capabilities = watch.permit().capabilities();
        let agent = startup.wants_agent && capabilities.agent_forwarding.is_allowed();
        let x11 = startup.wants_x11 && capabilities.x11_forwarding.is_allowed();
        let expects = Expects {
            agent,
            x11,
            forwards: false,
        };
        let answering =
            forward::answer_node(self.clone(), node.take_incoming(), watch.clone(), expects);
        let answering = tokio::spawn(answering);
        let requests = startup.into_requests(agent, x11);
        let ended = bridge::session(user, target, requests, line_end, watch, tally).await;
        answering.abort();
        node.disconnect().await;
        ended
    }

    async fn record_end(&self, session: SessionId, permit: &Permit, ended: &Ended, tally: &Tally) {
        let why = match ended {
            Ended::ByNode => "closed by the node",
            Ended::NodeLost => "the connection to the node broke",
            Ended::ByUser => "closed by the user",
            Ended::ByShutdown => "the proxy stopped",
            Ended::ByPermit(why) => why,
        };
        let how = SessionEnded {
            reason: Some(why.to_owned()),
            exit: tally.exit().map(str::to_owned),
            bytes_sent: tally.to_node(),
            bytes_received: tally.to_user(),
            at: Some(self.proxy.state.now()),
        };
        let recorded = self.proxy.state.session_ended(permit, session, how.clone());
        if let Err(error) = recorded.await {
            tracing::error!(%session, "the end of a session could not be recorded: {error}");
            if matches!(error, StoreError::Unavailable(_)) {
                tokio::spawn(record_end_later(
                    self.proxy.clone(),
                    permit.clone(),
                    session,
                    how,
                ));
            }
        }
    }

    /// A permit for a forward: waits where it must, and says nothing.
    pub(super) async fn permit_for_forward(
        &self,
        purpose: String,
    ) -> Result<(Access, Permit), Refusal> {
        let access = self.access()?;
        let settings = self.settings().clone();
        let need = self.need(&access, &settings, None, purpose)?;
        let permit = self
            .wait(&need, &mut Silent(self.connection.clone()))
            .await?;
        Ok((access, permit))
    }

    /// The permit of this moment, without asking or waiting.
    pub(super) fn permit_now(&self) -> Option<(Access, Permit)> {
        let access = self.access().ok()?;
        let view = self.proxy.state.view();
        match policy::decide(&view, &self.identity(), &access, self.proxy.state.now()) {
            Decision::Permit(permit) => {
                self.enter(&permit).ok()?;
                Some((access, permit))
            }
            Decision::Ask(_) | Decision::Deny(_) => None,
        }
    }

    async fn wait(&self, need: &Need, voice: &mut impl Voice) -> Result<Permit, Refusal> {
        let permit = hold::wait_for_permit(&self.proxy, need, &self.asking, voice).await?;
        self.enter(&permit)?;
        if let Some(request) = permit.request() {
            self.asked().insert(request);
        }
        Ok(permit)
    }

    /// Who is on this connection, with what she asked for on it.
    fn identity(&self) -> Identity {
        let asked = self.asked();
        asked.iter().fold(self.identity.clone(), |who, request| {
            who.having_asked(*request)
        })
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, BTreeSet<RequestId>> {
        self.asked
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// What the roles bound beside the access itself: how old a connection gets, and how many
    /// there are. A connection keeps its place until it ends.
    fn enter(&self, permit: &Permit) -> Result<(), Refusal> {
        let (limits, shown) = (permit.limits(), self.wanted.shown());
        let over = permit.session_ends(self.since);
        let over = over.is_some_and(|at| at <= self.proxy.state.now());
        if let (Some(ttl), true) = (limits.session_ttl, over) {
            return Err(refusal(Exit::Denied, say::connection_too_old(&shown, ttl)));
        }
        let mut place = self
            .place
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if place.is_none() {
            let taken = self
                .proxy
                .node_place(self.identity.user(), limits.connections);
            *place = Some(taken.ok_or_else(|| {
                let limit = limits.connections.unwrap_or(u32::MAX);
                refusal(Exit::Denied, say::too_many_connections(&shown, limit))
            })?);
        }
        Ok(())
    }

    /// Gives this connection's place back: it has ended.
    pub(super) fn leave(&self) {
        self.place
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .take();
    }

    pub(super) fn watch(&self, access: Access, permit: Permit, uses: Uses) -> Watch {
        Watch::new(
            self.proxy.clone(),
            self.identity(),
            access,
            self.wanted.shown(),
            uses,
            permit,
            self.since,
        )
    }

    pub(super) fn caller(&self, access: &Access) -> Caller {
        Caller {
            identity: self.identity(),
            access: access.clone(),
            command: None,
            from: self.from,
        }
    }

    /// Login and node, checked: who may not know that a node exists is answered as if it did not.
    fn access(&self) -> Result<Access, Refusal> {
        let shown = self.wanted.shown();
        let login = Login::parse(&self.wanted.login)
            .map_err(|error| refusal(Exit::Usage, format!("ERROR: {error}")))?;
        let view = self.proxy.state.view();
        let now = self.proxy.state.now();
        let resolved = match &self.wanted.node {
            Ok(node) => policy::resolve(&view, &self.identity, node, now),
            Err(_) => Resolved::Unknown,
        };
        let node: NodeId = match resolved {
            Resolved::One(node) => node,
            Resolved::Ambiguous(candidates) => {
                let shown_as = |node: &Arc<Node>| (node.id.to_string(), say::labels(&node.labels));
                let candidates: Vec<_> = candidates.iter().map(shown_as).collect();
                return Err(refusal(
                    Exit::Usage,
                    say::ambiguous_node(&shown, &candidates),
                ));
            }
            Resolved::Unknown => {
                if let Some(other) = self.other_resource(&view) {
                    return Err(refusal(
                        Exit::Unavailable,
                        say::connecting_not_served(&other),
                    ));
                }
                let cluster = &self.proxy.config().cluster;
                if let Some(reason) = policy::locked_out(&view, &self.identity, now) {
                    let user = self.identity.user().as_str();
                    let said = say::access_denied(user, &shown, cluster.as_str());
                    let why = say::barred(&reason);
                    return Err(refusal(Exit::Denied, format!("{said}\n{why}")));
                }
                return Err(refusal(
                    Exit::Denied,
                    say::no_access(self.identity.user().as_str(), &shown, cluster.as_str()),
                ));
            }
        };
        Ok(Access { login, node })
    }

    /// What the name means where it is no node: only what the user may know of.
    fn other_resource(&self, view: &View) -> Option<Arc<Resource>> {
        let Ok(NodeRef::Name(name)) = &self.wanted.node else {
            return None;
        };
        let now = self.proxy.state.now();
        policy::known_resources(view, &self.identity, None, name.as_str(), now)
            .into_iter()
            .next()
    }

    fn need(
        &self,
        access: &Access,
        settings: &Environment,
        program: Option<&Program>,
        purpose: String,
    ) -> Result<Need, Refusal> {
        let scope = match &settings.scope {
            Some(text) => scope(text, program)?,
            None => Scope::Any,
        };
        let wrong = |sentence| refusal(Exit::Usage, format!("ERROR: {sentence}"));
        Ok(Need {
            identity: self.identity(),
            access: access.clone(),
            command: program.and_then(Program::command).map(<[u8]>::to_vec),
            scope,
            shown: self.wanted.shown(),
            reason: settings.reason.clone(),
            purpose,
            reviewers: settings.reviewers().map_err(wrong)?,
            wait: settings.patience().map_err(wrong)?,
            remote_addr: self.from.ip().to_canonical().to_string(),
        })
    }

    async fn refused(&self, refusal: &Refusal) {
        let why = if refusal.sentence.is_empty() {
            "the client left"
        } else {
            &refusal.sentence
        };
        let mut entry = Entry::failed(Event::SessionRejected, why)
            .user(self.identity.user())
            .key(self.identity.key())
            .remote_addr(self.from)
            .login(&self.wanted.login)
            .node(self.wanted.node_shown());
        entry.request_id = refusal.request.map(|id| id.to_string());
        if let Err(error) = self.proxy.state.audit(entry).await {
            tracing::error!(user = %self.identity.user(), "a refusal could not be recorded: {error}");
        }
    }

    fn settings(&self) -> std::sync::MutexGuard<'_, Environment> {
        self.settings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A store that fails comes back without a restart, and the end is to be in the log then. No more
/// wait here than sessions had begun: none begins while the store fails.
async fn record_end_later(
    proxy: Arc<Proxy>,
    permit: Permit,
    session: SessionId,
    how: SessionEnded,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RECORD_AGAIN) => {}
            // The next start of the proxy records it.
            () = proxy.stopping() => return,
        }
        match proxy
            .state
            .session_ended(&permit, session, how.clone())
            .await
        {
            Err(StoreError::Unavailable(_)) => {}
            Ok(()) | Err(_) => return,
        }
    }
}

fn refusal(exit: Exit, sentence: String) -> Refusal {
    Refusal {
        exit,
        sentence,
        request: None,
    }
}

/// `ANTEROOM_SCOPE`: `command` binds what is asked for to the very command that is to be run.
fn scope(text: &str, program: Option<&Program>) -> Result<Scope, Refusal> {
    if text != "command" {
        return Err(refusal(
            Exit::Usage,
            format!("ERROR: {}", say::scope_unknown(text)),
        ));
    }
    let what = match program {
        Some(Program::Exec(command)) => {
            // A certificate carries it as text.
            let command = String::from_utf8(command.clone());
            return command
                .map(Scope::Command)
                .map_err(|_| refusal(Exit::Usage, say::SCOPE_NOT_TEXT.to_owned()));
        }
        Some(Program::Shell) => "a shell",
        Some(Program::Subsystem(_)) => "a subsystem like sftp",
        None => "a forward",
    };
    Err(refusal(Exit::Usage, say::scope_needs_command(what)))
}
