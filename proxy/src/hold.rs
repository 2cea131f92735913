//! The hold: a connection that lacks access becomes an access request and waits here.
//!
//! One front door, [`wait_for_permit`]. It decides, files or joins a request where the decision
//! is *ask*, says on the connection what happens, and decides again on every change of state
//! until there is a permit or a reason to leave. Approval by itself opens nothing: it changes
//! state, and the next decision sees that.
//!
//! While a connection is held nothing is dialled, bound or forwarded for it. How it is spoken to
//! is the caller's: a session channel has a standard error or a terminal, a forward has neither.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use anteroom_core::id::{RequestId, UserName};
use anteroom_core::policy::{self, Access, Ask, Decision, Identity, Permit};
use anteroom_core::request::{Annotations, Filed, FilingError, Reach, Scope, State, Wanted};
use anteroom_core::role::ReasonMode;
use anteroom_core::view::View;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::exit::{Exit, Exits};
use crate::proxy::{HoldSlot, Proxy};
use crate::say::{self, Audience, RequestBlock};
use crate::state::FileError;
use crate::waiting::WaitingGuard;

/// How long a prompt for a reason waits for an answer. Under `ssh -tt` from a program nobody
/// answers; the request is then filed with the stated reason instead of hanging unseen.
pub const PROMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// A command line of any length is stated to reviewers this far; the same bound as for reasons.
const MAX_PURPOSE: usize = 4096;

/// What a connection needs, and what it says about itself.
#[derive(Debug, Clone)]
pub struct Need {
    /// Who, as proven by the key.
    pub identity: Identity,
    /// Which login on which node.
    pub access: Access,
    /// The command that it is going to run, if that is all it does: a grant bound to it counts.
    pub command: Option<Vec<u8>>,
    /// What to ask for (`ANTEROOM_SCOPE`): everything, or that command only.
    pub scope: Scope,
    /// What people call it: `root@iot`.
    pub shown: String,
    /// The reason given with the connection (`ANTEROOM_REASON`), if any.
    pub reason: Option<String>,
    /// What the connection is going to do, stated where no reason is given: `exec: uptime`.
    pub purpose: String,
    /// Reviewers asked for by name (`ANTEROOM_REVIEWERS`).
    pub reviewers: BTreeSet<UserName>,
    /// How long to wait (`ANTEROOM_WAIT`); absent: as long as the request lives.
    pub wait: Option<Duration>,
    /// Where the connection comes from, for reviewers.
    pub remote_addr: String,
}

/// How a held connection is spoken to.
pub trait Voice: Send {
    /// Says a line to the person, if there is one.
    fn say(&mut self, text: &str) -> impl Future<Output = ()> + Send;

    /// Asks for a line; `Unattended` where there is no terminal or nobody answers.
    fn ask(&mut self, prompt: &str, within: Duration) -> impl Future<Output = Answer> + Send;

    /// Who hears it: decides what the line about leaving says.
    fn audience(&self) -> Audience;

    /// Resolves when the person leaves: interrupts, closes the channel, goes away.
    /// Must lose nothing when it is dropped before it resolves.
    fn left(&mut self) -> impl Future<Output = Left> + Send;
}

/// What came of a prompt.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// A line was typed.
    Line(String),
    /// There is nobody to ask: no terminal, end of input, or no answer in time.
    Unattended,
    /// The person left instead.
    Left(Left),
}

/// How a person leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Ctrl-C, or a signal sent through the channel: there is still somebody to talk to.
    Interrupted,
    /// The channel or its connection is gone.
    Gone,
}

/// Why no permit came of it: what to say (nothing if it was said already) and how to exit.
#[derive(Debug)]
pub struct Refusal {
    /// The exit status for the client.
    pub exit: Exit,
    /// The sentence, for standard error or for a refused channel open.
    pub sentence: String,
    /// The request that stays behind or decided it.
    pub request: Option<RequestId>,
}

/// Waits until `need` may be met.
///
/// `asking` is shared by everything of one connection: while one channel asks for a reason and
/// files, others wait, and then join the request instead of filing without a reason.
///
/// # Errors
/// A [`Refusal`] when it may not, or not now: denied, expired, canceled, left, out of time.
pub async fn wait_for_permit(
    proxy: &Proxy,
    need: &Need,
    asking: &Mutex<()>,
    voice: &mut impl Voice,
) -> Result<Permit, Refusal> {
    let mut changes = proxy.state.changes();
    let mut held: Option<Held<'_>> = None;
    loop {
        // Mark first, decide after: a change in between wakes us once more instead of being lost.
        changes.borrow_and_update();
        // One look for the decision and for what became of the request: an approval that is
        // committed between two would read as one that does not cover this access.
        let (view, now) = (proxy.state.view(), proxy.state.now());
        let identity = match &held {
            Some(held) => Cow::Owned(need.identity.having_asked(held.request)),
            None => Cow::Borrowed(&need.identity),
        };
        let command = need.command.as_deref();
        match policy::decide_for(&view, &identity, &need.access, command, now) {
            Decision::Permit(permit) => {
                if let Some(held) = &held {
                    held.tell_approval(proxy, voice).await;
                }
                return Ok(permit);
            }
            Decision::Deny(denial) => {
                let outcome = held
                    .as_ref()
                    .and_then(|held| held.outcome(proxy, &view, now));
                return Err(outcome.unwrap_or_else(|| Refusal {
                    exit: Exit::Denied,
                    sentence: denied(proxy, need, &denial),
                    request: held.as_ref().map(|held| held.request),
                }));
            }
            Decision::Ask(_) => match &held {
                Some(held) => {
                    if let Some(refusal) = held.outcome(proxy, &view, now) {
                        return Err(refusal);
                    }
                }
                None => {
                    held = Held::begin(proxy, need, asking, voice).await?;
                    continue;
                }
            },
        }
        let Some(held) = &mut held else { continue };
        held.tell_start(&view, now, voice).await;
        tokio::select! {
            // The sender lives in the state, which `proxy` keeps alive.
            _ = changes.changed() => {}
            how = voice.left() => return Err(held.left(proxy, how)),
            () = held.wait_is_over() => return Err(still_waiting(proxy, held.request)),
            () = proxy.draining() => return Err(held.shutting_down()),
        }
    }
}

fn decide(proxy: &Proxy, need: &Need) -> Decision {
    policy::decide_for(
        &proxy.state.view(),
        &need.identity,
        &need.access,
        need.command.as_deref(),
        proxy.state.now(),
    )
}

/// The sentence for a connection that may not even ask.
fn denied(proxy: &Proxy, need: &Need, denial: &policy::Denial) -> String {
    let cluster = proxy.config().cluster.to_string();
    let said = say::access_denied(need.identity.user().as_str(), &need.shown, &cluster);
    format!("{said}\n{}", say::denial(denial, &need.shown))
}

/// Resolves when the connection may not even ask any more: a prompt is no place to sit out a lock.
async fn shut_out(proxy: &Proxy, need: &Need) -> Refusal {
    let mut changes = proxy.state.changes();
    loop {
        changes.borrow_and_update();
        if let Decision::Deny(denial) = decide(proxy, need) {
            return Refusal {
                exit: Exit::Denied,
                sentence: denied(proxy, need, &denial),
                request: None,
            };
        }
        // The sender lives in the state, which `proxy` keeps alive.
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A connection with its request, waiting.
struct Held<'p> {
    request: RequestId,
    give_up: Option<tokio::time::Instant>,
    /// When it was said to open, if that was said.
    said_start: Option<OffsetDateTime>,
    /// Shown to reviewers as "waiting" for as long as this lives.
    _waiting: WaitingGuard,
    /// Counted against what one user may have waiting.
    _slot: HoldSlot<'p>,
}

impl<'p> Held<'p> {
    /// Says that access is missing, gets a reason, files or joins, and says what was filed.
    /// `None` if access has come about in the meantime.
    async fn begin(
        proxy: &'p Proxy,
        need: &Need,
        asking: &Mutex<()>,
        voice: &mut impl Voice,
    ) -> Result<Option<Held<'p>>, Refusal> {
        let slot = proxy
            .hold_slot(need.identity.user())
            .ok_or_else(|| Refusal {
                exit: Exit::Pending,
                sentence: say::TOO_MANY_HELD.to_owned(),
                request: None,
            })?;
        let Some(_turn) = turn(asking, voice).await else {
            return Err(gone());
        };
        // While we waited for our turn the connection's other channel may have got its permit.
        let Decision::Ask(ask) = decide(proxy, need) else {
            return Ok(None);
        };
        let cluster = proxy.config().cluster.to_string();
        let denied = say::access_denied(need.identity.user().as_str(), &need.shown, &cluster);
        if let Some(answer) = answer_meanwhile(proxy, need, &ask) {
            return Err(Refusal {
                sentence: format!("{denied}\n{}", answer.sentence),
                ..answer
            });
        }
        voice.say(&denied).await;
        if let (Some((request, starts)), None) = (ask.opens, need.joins(&ask)) {
            // What is approved for later is waited for, and no reviewer asked once more.
            let sooner = say::wanted_sooner(&need.shown);
            let mut held = Self::join(proxy, need, request, slot).map_err(|left| Refusal {
                sentence: format!("{}\n{sooner}", left.sentence),
                ..left
            })?;
            let id = request.to_string();
            voice.say(&say::waiting_for_start(&id, starts)).await;
            voice.say(&sooner).await;
            held.said_start = Some(starts);
            return Ok(Some(held));
        }
        voice.say(&say::attempting(&need.shown)).await;
        if let Some(narrower) = ask
            .narrower
            .and_then(|id| proxy.state.view().request(&id).cloned())
            && let Some(command) = narrower.scope.command()
        {
            voice
                .say(&say::only_one_command(&narrower.id.to_string(), command))
                .await;
        }
        if let Some(known) = ask.assumable.first() {
            let known = known.to_string();
            let hint = match need.identity.credential() {
                None => say::assumable(&known),
                Some(_) => say::assumable_by_login(&known),
            };
            voice.say(&hint).await;
        }
        let reason = tokio::select! {
            reason = reason(need, &ask, voice) => reason?,
            refusal = shut_out(proxy, need) => return Err(refusal),
        };
        let filed = match proxy
            .state
            .file(&need.identity, need.wanted(&ask, reason))
            .await
        {
            Ok(filed) => filed,
            // Access came about while the reason was typed. Asked once more, not again and again:
            // were decision and filing ever of two minds, nobody would be told.
            Err(FileError::Refused(FilingError::Reachable(_)))
                if !matches!(decide(proxy, need), Decision::Ask(_)) =>
            {
                return Ok(None);
            }
            Err(error) => {
                let sentence = format!("ERROR: {error}");
                return Err(Refusal {
                    exit: error.exit(),
                    sentence,
                    request: None,
                });
            }
        };
        let request = tell_filed(proxy, &filed, need, voice).await;
        Self::join(proxy, need, request, slot).map(Some)
    }

    /// Waits for `request`, unless the connection does not wait.
    fn join(
        proxy: &'p Proxy,
        need: &Need,
        request: RequestId,
        slot: HoldSlot<'p>,
    ) -> Result<Held<'p>, Refusal> {
        let give_up = match need.wait {
            // A rule may have answered in the transaction that filed: then there is no wait.
            Some(Duration::ZERO) if is_waited_for(proxy, request) => {
                return Err(still_waiting(proxy, request));
            }
            Some(wait) => Some(tokio::time::Instant::now() + wait),
            None => None,
        };
        Ok(Held {
            request,
            give_up,
            said_start: None,
            _waiting: proxy.commands.waiting.enter(request),
            _slot: slot,
        })
    }

    /// What the request's state means for whoever waits; `None` while it may still come. `view`
    /// and `now` are those of the decision that did not permit.
    fn outcome(&self, proxy: &Proxy, view: &View, now: OffsetDateTime) -> Option<Refusal> {
        let refusal = |exit, sentence| {
            proxy.commands.waiting.heard(self.request);
            Some(Refusal {
                exit,
                sentence,
                request: Some(self.request),
            })
        };
        let id = self.request.to_string();
        let Some(request) = view.request(&self.request) else {
            return refusal(Exit::Denied, say::request_deleted(&id));
        };
        let said = || say::outcome(request, now).unwrap_or_default();
        match request.state {
            State::Pending => None,
            State::Approved if now < request.starts() => None,
            State::Approved => refusal(Exit::Denied, say::approved_without_this(&id)),
            State::Denied | State::Revoked => refusal(Exit::Denied, said()),
            State::Expired | State::Canceled => refusal(Exit::Pending, said()),
        }
    }

    async fn tell_approval(&self, proxy: &Proxy, voice: &mut impl Voice) {
        let view = proxy.state.view();
        let approved = view
            .request(&self.request)
            .filter(|r| r.state == State::Approved);
        if let Some(said) = approved.and_then(|request| say::outcome(request, proxy.state.now())) {
            voice.say(&said).await;
        }
    }

    /// Says when it opens, where it was approved for later: once, and again if that moves.
    async fn tell_start(&mut self, view: &View, now: OffsetDateTime, voice: &mut impl Voice) {
        let Some(starts) = view
            .request(&self.request)
            .filter(|request| request.state == State::Approved)
            .map(|request| request.starts())
            .filter(|starts| now < *starts && self.said_start != Some(*starts))
        else {
            return;
        };
        self.said_start = Some(starts);
        let id = self.request.to_string();
        voice.say(&say::waiting_for_start(&id, starts)).await;
    }

    async fn wait_is_over(&self) {
        match self.give_up {
            Some(instant) => tokio::time::sleep_until(instant).await,
            None => std::future::pending().await,
        }
    }

    fn left(&self, proxy: &Proxy, how: Left) -> Refusal {
        match how {
            // Who leaves has a request that is still there, however she leaves.
            Left::Interrupted => still_waiting(proxy, self.request),
            Left::Gone => Refusal {
                request: Some(self.request),
                ..gone()
            },
        }
    }

    fn shutting_down(&self) -> Refusal {
        Refusal {
            exit: Exit::Pending,
            sentence: say::shutting_down(&self.request.to_string()),
            request: Some(self.request),
        }
    }
}

/// Whether nothing but waiting gets anywhere with `request` now.
fn is_waited_for(proxy: &Proxy, request: RequestId) -> bool {
    let (view, now) = (proxy.state.view(), proxy.state.now());
    view.request(&request)
        .is_some_and(|request| match request.state {
            State::Pending => true,
            State::Approved => now < request.starts(),
            State::Denied | State::Expired | State::Canceled | State::Revoked => false,
        })
}

/// The wait is over, the request is not.
fn still_waiting(proxy: &Proxy, request: RequestId) -> Refusal {
    let (view, now) = (proxy.state.view(), proxy.state.now());
    let id = request.to_string();
    let opens = view
        .request(&request)
        .filter(|request| request.state == State::Approved && now < request.starts())
        .map(|request| request.starts());
    Refusal {
        exit: Exit::Pending,
        sentence: match opens {
            Some(starts) => say::approved_for_later(&id, starts),
            None => say::left_pending(&id),
        },
        request: Some(request),
    }
}

/// The denial of an equal request that came while nobody of hers waited any more, because the
/// connection was cut or did not wait: it ends this connection as it would have ended that one, and
/// the next one asks anew. `None` if there is none, or it has reached somebody.
fn answer_meanwhile(proxy: &Proxy, need: &Need, ask: &Ask) -> Option<Refusal> {
    if need.joins(ask).is_some() {
        return None;
    }
    let (view, now) = (proxy.state.view(), proxy.state.now());
    let equal = view.requests().filter(|request| {
        request.user == *need.identity.user()
            && request.key.as_ref() == Some(need.identity.key())
            && request.scope == need.scope
            && request.reach.resources().eq([&ask.resource])
    });
    let last = equal.max_by_key(|request| request.created)?;
    let unheard = last.state == State::Denied
        && last
            .resolved
            .as_ref()
            .is_some_and(|end| end.at >= proxy.started)
        && !proxy.commands.waiting.was_heard(last.id);
    if !unheard {
        return None;
    }
    proxy.commands.waiting.heard(last.id);
    let outcome = say::outcome(last, now).unwrap_or_default();
    let meanwhile = say::denied_meanwhile(&last.id.to_string());
    Some(Refusal {
        exit: Exit::Denied,
        sentence: format!("{outcome}\n{meanwhile}"),
        request: Some(last.id),
    })
}

/// Says what was filed or joined, and that we wait; the request's ID.
async fn tell_filed(
    proxy: &Proxy,
    filed: &Filed,
    need: &Need,
    voice: &mut impl Voice,
) -> RequestId {
    let view = proxy.state.view();
    let request = match filed {
        Filed::New(new) => {
            voice.say(say::CREATING).await;
            new.request.id
        }
        Filed::Joined(id) => {
            let (reason, reviewers) = (need.reason.as_deref(), &need.reviewers);
            let said = match view.request(id) {
                Some(request) => say::joined(request, reason, reviewers),
                None => say::joining(&id.to_string()),
            };
            voice.say(&said).await;
            *id
        }
        Filed::Covered(id) => *id,
    };
    if let Some(request) = view.request(&request) {
        let block = RequestBlock::for_requester(&view, request);
        voice.say(&block.render()).await;
        let now = proxy.state.now();
        match request.state {
            // `ANTEROOM_WAIT=0` does not wait, and is told so next.
            State::Pending if need.wait == Some(Duration::ZERO) => {}
            // A rule has answered already.
            State::Approved | State::Denied | State::Expired | State::Canceled | State::Revoked => {
            }
            State::Pending => {
                voice.say("").await;
                voice
                    .say(&say::waiting(
                        request.request_expires - now,
                        voice.audience(),
                    ))
                    .await;
            }
        }
    }
    request
}

/// Waits until nothing else of the same connection is asking; `None` if the client leaves instead.
async fn turn<'m>(
    asking: &'m Mutex<()>,
    voice: &mut impl Voice,
) -> Option<tokio::sync::MutexGuard<'m, ()>> {
    tokio::select! {
        // First the turn: listening for who leaves discards what was typed ahead for the prompt.
        biased;
        turn = asking.lock() => Some(turn),
        _ = voice.left() => None,
    }
}

/// The client is not there any more: nothing to say.
fn gone() -> Refusal {
    Refusal {
        exit: Exit::Interrupted,
        sentence: String::new(),
        request: None,
    }
}

impl Need {
    /// The pending request that filing would join.
    fn joins(&self, ask: &Ask) -> Option<RequestId> {
        match self.scope {
            Scope::Any => ask.joins,
            Scope::Command(_) => ask.joins_scoped,
        }
    }

    fn wanted(&self, ask: &Ask, reason: String) -> Wanted {
        Wanted {
            roles: ask.roles.iter().cloned().collect(),
            reach: Reach::Resources(BTreeSet::from([ask.resource.clone()])),
            scope: self.scope.clone(),
            annotations: Annotations::new(),
            reason,
            reviewers: self.reviewers.clone(),
            command: Some(say::head(&self.purpose, MAX_PURPOSE).to_owned()),
            remote_addr: Some(self.remote_addr.clone()),
            request_ttl: None,
            session_ttl: None,
            max_duration: None,
            assume_start: None,
        }
    }

    /// The command line itself is stated where no reason is given, cut to what a reason may be.
    fn stated(&self) -> String {
        say::head(&self.purpose, MAX_PURPOSE).to_owned()
    }
}

/// The reason to file: what came with the connection, else what is typed, else what it does.
async fn reason(need: &Need, ask: &Ask, voice: &mut impl Voice) -> Result<String, Refusal> {
    if let Some(reason) = &need.reason {
        return Ok(reason.clone());
    }
    // Who joins a request needs no reason: one is on file. Where one is required it is left empty,
    // so that filing refuses if that request has ended meanwhile and a new one would be made.
    if need.joins(ask).is_some() {
        return Ok(match ask.reason_mode {
            ReasonMode::Optional => need.stated(),
            ReasonMode::Required => String::new(),
        });
    }
    if ask.opens.is_some() && ask.reason_mode == ReasonMode::Optional {
        return Ok(need.stated());
    }
    let own = ask.reason_prompt.as_deref();
    match voice.ask(&say::reason_prompt(own), PROMPT_TIMEOUT).await {
        Answer::Line(line) if !line.trim().is_empty() => Ok(line.trim().to_owned()),
        Answer::Line(_) | Answer::Unattended => match ask.reason_mode {
            ReasonMode::Optional => Ok(need.stated()),
            ReasonMode::Required => Err(Refusal {
                exit: Exit::Usage,
                sentence: say::reason_required(&need.shown, own),
                request: None,
            }),
        },
        Answer::Left(Left::Interrupted) => Err(Refusal {
            exit: Exit::Interrupted,
            sentence: say::NOTHING_FILED.to_owned(),
            request: None,
        }),
        Answer::Left(Left::Gone) => Err(gone()),
    }
}
