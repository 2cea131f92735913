//! The engine's callbacks for a user's connection. Each one counts, checks,
//! queues and returns: whatever waits here holds up the whole connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use russh::server::{Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{ChannelId, Disconnect, Pty, Sig};
use ssh_key::Certificate;
use tokio::time::timeout;

use super::algorithms::is_acceptable;
use super::auth::{Answered, Attempt, LONGEST_ANSWER, Meter, Verdict, answer, challenge};
use super::channel::{Writer, signal_from};
use super::flow::{Farewell, Flow, Full, Kind, Lane};
use super::opening::{OpenRefusal, Opening, Reply, refuse};
use super::requests::{self, Asked};
use super::server::{Answer, Connection, Front, Limits};
use super::types::{ChannelRequest, Event, WindowSize};

/// How long a [`Front`] may take over a remote forward before it is refused.
const FORWARD_WAIT: Duration = Duration::from_secs(15);

/// How long a [`Front`] may take over a code: a commit, on a disk that is busy.
const CODE_WAIT: Duration = Duration::from_secs(10);

/// OpenSSH's own words.
const TOO_MANY: &str = "Too many authentication failures";

/// Why the engine's loop ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    #[error(transparent)]
    Engine(#[from] russh::Error),
    #[error("the peer overran its window")]
    Overrun,
}

pub(super) struct Handler<F> {
    flow: Arc<Flow>,
    front: F,
    meter: Meter,
    sessions: HashMap<u32, Asked>,
}

/// The engine drops its handler when its loop ends, also by a panic.
impl<F> Drop for Handler<F> {
    fn drop(&mut self) {
        self.flow.end();
    }
}

impl<F: Front> Handler<F> {
    pub(super) fn new(flow: Arc<Flow>, limits: &Limits, front: F) -> Self {
        Handler {
            flow,
            front,
            meter: Meter::new(limits.auth_requests, limits.auth_failures),
            sessions: HashMap::new(),
        }
    }

    /// Counts an authentication request and lets `look` judge it, if it is to be
    /// judged at all.
    fn look_at(&mut self, user: &str, look: impl FnOnce(&mut F) -> Verdict) -> Verdict {
        match self.meter.begin(user) {
            Attempt::SameUser => look(&mut self.front),
            Attempt::OtherUser => {
                self.front.user_changed(user);
                look(&mut self.front)
            }
            Attempt::BadName | Attempt::TooMany => Verdict::Reject,
        }
    }

    /// Counts a verdict that refuses.
    fn counted(&mut self, verdict: Verdict) -> Auth {
        match verdict {
            Verdict::Accept | Verdict::GoOn => {}
            Verdict::Reject => {
                self.meter.failed();
                self.end_if_over();
            }
        }
        answer(verdict)
    }

    /// Has the front look at the answer to a challenge, for as long as a commit may take.
    async fn look_at_answer(&mut self, user: &str, given: Option<&str>) -> Answered {
        match self.meter.begin(user) {
            Attempt::SameUser => {}
            Attempt::OtherUser => {
                self.front.user_changed(user);
                return Answered::Wrong;
            }
            Attempt::BadName | Attempt::TooMany => return Answered::Wrong,
        }
        let looking = timeout(CODE_WAIT, self.front.answered(user, given));
        tokio::select! {
            biased;
            () = self.flow.killed.wait() => Answered::Wrong,
            answered = looking => answered.unwrap_or(Answered::Wrong),
        }
    }

    /// As [`look_at`](Self::look_at), and counts a failure.
    fn judge(&mut self, user: &str, look: impl FnOnce(&mut F) -> Verdict) -> Auth {
        let verdict = self.look_at(user, look);
        self.counted(verdict)
    }

    fn end_if_over(&self) {
        if self.meter.is_over() {
            self.flow.say_farewell(Farewell::Authentication(TOO_MANY));
        }
    }

    /// Registers a channel that the client opens, or refuses it at once.
    async fn opening(
        &mut self,
        kind: Kind,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        session: russh::server::Handle,
    ) -> Option<Opening> {
        let reply = Reply::User(reply);
        // The read half goes: what it would deliver comes by callback.
        let half = channel.split().1;
        // INVARIANT: no channel (and no global request, below) before authentication.
        // The engine sees to it; if it ever did not, this would.
        if !self.flow.authenticated.is_set() {
            return None;
        }
        match self.flow.register(half.id().number(), kind) {
            Ok(gone) => {
                let flow = Arc::clone(&self.flow);
                let writer = Writer::User(half, session);
                Some(Opening::new(flow, kind, writer, gone, reply))
            }
            Err(full) => {
                let text = match full {
                    Full::Channels => "too many channels on this connection",
                    Full::Sessions => "too many sessions on this connection",
                    Full::WornOut => "too many channels so far on this connection; open a new one",
                    Full::Over => "the connection is closing",
                };
                refuse(reply, OpenRefusal::ResourceShortage(text.to_owned())).await;
                None
            }
        }
    }

    /// Lets a request through to the channel's inbox, or says no. Answered inside
    /// the callback: the engine keeps one "wants a reply" per channel, and OpenSSH
    /// sends the next request before it has read the answer to the last.
    fn ask(&mut self, channel: ChannelId, request: Option<ChannelRequest>) -> Answer {
        let id = channel.number();
        let (Some(request), Some(asked)) = (request, self.sessions.get_mut(&id)) else {
            return Answer::Failure;
        };
        if !asked.admits(&request) || self.front.request(&request) == Answer::Failure {
            return Answer::Failure;
        }
        let kind = request.kind();
        if !self.flow.push_request(id, request) {
            return Answer::Failure;
        }
        asked.note(kind);
        Answer::Success
    }

    fn request(
        &mut self,
        channel: ChannelId,
        request: Option<ChannelRequest>,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        match self.ask(channel, request) {
            Answer::Success => session.channel_success(channel)?,
            Answer::Failure => session.channel_failure(channel)?,
        }
        Ok(())
    }
}

impl<F: Front> russh::server::Handler for Handler<F> {
    type Error = EngineError;

    async fn auth_none(&mut self, user: &str) -> Result<Auth, EngineError> {
        let verdict = self.look_at(user, |front| front.none(user));
        // The first one only asks which methods there are, and is no failure.
        if verdict == Verdict::Reject && !self.meter.is_first() {
            self.meter.failed();
        }
        if verdict == Verdict::Reject {
            self.end_if_over();
        }
        Ok(answer(verdict))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, EngineError> {
        Ok(self.judge(user, |front| {
            if is_acceptable(offer.public_key, offer.algorithm) {
                front.key_offered(user, offer.public_key)
            } else {
                Verdict::Reject
            }
        }))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, EngineError> {
        Ok(self.judge(user, |front| {
            if is_acceptable(key.public_key, key.algorithm) {
                front.key_proven(user, key.public_key)
            } else {
                Verdict::Reject
            }
        }))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, EngineError> {
        Ok(self.judge(user, |front| front.certificate_proven(user, certificate)))
    }

    // Passwords are not advertised; a client that tries one nevertheless fails, and it
    // counts. Keyboard-interactive is a second step alone.

    async fn auth_password(&mut self, user: &str, _: &str) -> Result<Auth, EngineError> {
        Ok(self.judge(user, |_| Verdict::Reject))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        response: Option<russh::server::Response<'a>>,
    ) -> Result<Auth, EngineError> {
        let Some(mut response) = response else {
            let mut asked = None;
            let verdict = self.look_at(user, |front| {
                asked = front.challenge(user);
                Verdict::Reject
            });
            return Ok(match asked {
                Some(asked) => challenge(asked),
                None => self.counted(verdict),
            });
        };
        let given = response.next();
        let given = given
            .as_deref()
            .filter(|answer| answer.len() <= LONGEST_ANSWER)
            .and_then(|answer| std::str::from_utf8(answer).ok());
        Ok(match self.look_at_answer(user, given).await {
            Answered::Right => self.counted(Verdict::Accept),
            Answered::Wrong => self.counted(Verdict::Reject),
            Answered::Over(text) => {
                self.flow.say_farewell(Farewell::Application(text));
                self.counted(Verdict::Reject)
            }
        })
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), EngineError> {
        // A login that raced with a goodbye is no login.
        if self.flow.farewell_said.is_set() {
            return Ok(());
        }
        self.flow.authenticated.set();
        let connection = Connection::new(Arc::clone(&self.flow), session.handle());
        self.front.authenticated(connection);
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        let id = channel.id().number();
        if let Some(opening) = self
            .opening(Kind::Session, channel, reply, session.handle())
            .await
        {
            self.sessions.insert(id, Asked::default());
            self.front.session(opening);
            // Those that were refused or closed meanwhile have no more requests.
            self.sessions.retain(|id, _| self.flow.is_open(*id));
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        host: &str,
        port: u32,
        originator_host: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        let Some(target) = requests::target(host, port, originator_host, originator_port) else {
            // Dropping the reply refuses it.
            return Ok(());
        };
        if let Some(opening) = self
            .opening(Kind::Stream, channel, reply, session.handle())
            .await
        {
            self.front.direct_tcpip(target, opening);
        }
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), EngineError> {
        // Its first bytes may arrive before the opener has run.
        self.flow.adopt(id.number(), Kind::Stream);
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), EngineError> {
        self.flow
            .push_bytes(channel.number(), Lane::Main, data)
            .map_err(|_| EngineError::Overrun)
    }

    // Extended data has no meaning from a client; the engine has given its window
    // back already, and it is dropped (the default).

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), EngineError> {
        self.flow.push(channel.number(), Event::Eof);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), EngineError> {
        self.sessions.remove(&channel.number());
        self.flow.closed_by_peer(channel.number());
        Ok(())
    }

    fn adjust_window(&mut self, channel: ChannelId, _: u32) -> u32 {
        self.flow.target(channel.number())
    }

    async fn pty_request(
        &mut self,
        channel: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        pixel_width: u32,
        pixel_height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), EngineError> {
        let size = WindowSize::clamped(columns, rows, pixel_width, pixel_height);
        // The engine leaves an end marker in the place of opcodes that it does not
        // know; passed on, it would cut off what follows.
        let modes = modes
            .iter()
            .filter(|(opcode, _)| *opcode != Pty::TTY_OP_END)
            .map(|&(opcode, argument)| (opcode as u8, argument))
            .collect();
        self.request(channel, requests::pty(term, size, modes), session)
    }

    async fn x11_request(
        &mut self,
        channel: ChannelId,
        single: bool,
        protocol: &str,
        cookie: &str,
        screen: u32,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        self.request(
            channel,
            requests::x11(single, protocol, cookie, screen),
            session,
        )
    }

    async fn env_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        self.request(channel, requests::env(name, value), session)
    }

    async fn shell_request(
        &mut self,
        channel: ChannelId,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        self.request(channel, Some(ChannelRequest::Shell), session)
    }

    async fn exec_request(
        &mut self,
        channel: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), EngineError> {
        self.request(channel, requests::exec(command), session)
    }

    async fn subsystem_request(
        &mut self,
        channel: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        self.request(channel, requests::subsystem(name), session)
    }

    async fn window_change_request(
        &mut self,
        channel: ChannelId,
        columns: u32,
        rows: u32,
        pixel_width: u32,
        pixel_height: u32,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        let size = WindowSize::clamped(columns, rows, pixel_width, pixel_height);
        self.request(channel, Some(ChannelRequest::WindowChange(size)), session)
    }

    async fn agent_request(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<bool, EngineError> {
        // The engine says this answer itself.
        Ok(self.ask(channel, Some(ChannelRequest::AgentForward)) == Answer::Success)
    }

    async fn signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        session: &mut Session,
    ) -> Result<(), EngineError> {
        self.request(
            channel,
            signal_from(&signal).map(ChannelRequest::Signal),
            session,
        )
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, EngineError> {
        if !self.flow.authenticated.is_set() {
            return Ok(false);
        }
        let answer = timeout(FORWARD_WAIT, self.front.tcpip_forward(address, *port));
        let bound = tokio::select! {
            biased;
            () = self.flow.killed.wait() => None,
            answer = answer => answer.ok().flatten(),
        };
        // A client that wants nothing but this forward leaves at a plain refusal, and would never hear why.
        if let (None, Some(Farewell::Application(text))) = (bound, self.flow.farewell()) {
            session.disconnect(Disconnect::ByApplication, &text, "")?;
        }
        if let Some(bound) = bound {
            *port = bound;
        }
        Ok(bound.is_some())
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, EngineError> {
        if !self.flow.authenticated.is_set() {
            return Ok(false);
        }
        let answer = timeout(FORWARD_WAIT, self.front.cancel_tcpip_forward(address, port));
        tokio::select! {
            biased;
            () = self.flow.killed.wait() => Ok(false),
            answer = answer => Ok(answer.unwrap_or(false)),
        }
    }
}
