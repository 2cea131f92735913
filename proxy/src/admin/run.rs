//! What every command has in common: who asks, what may be refused, and how an answer is written.

use std::time::Duration;

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb, Rights};
use anteroom_core::id::UserName;
use anteroom_core::policy::Identity;
use anteroom_core::request::Actor;
use anteroom_core::view::View;
use serde::Serialize;

use super::args::Format;
use super::io::{Caller, CommandIo, FileAnswer, Gone, StdinError};
use super::line::Channel;
use super::objects::no_such;
use super::status::admitted;
use super::{Context, args};
use crate::exit::Exit;
use crate::listings::Turn;
use crate::say::{self, Cells, Columns, LineEnd, clean};
use crate::state::{By, FromNode, ObjectId};
use crate::store::StoreError;

/// The longest standard input or file that is read: what one text of documents may have.
pub(crate) const LONGEST_INPUT: usize = anteroom_core::documents::TEXT_LIMIT;

/// How long standard input may take to end: time enough to type a document, and an end to commands
/// that somebody begins and leaves open.
const LONGEST_READING: Duration = Duration::from_mins(10);

/// How many names an error lists: a few say enough.
pub(crate) const LISTED: usize = 12;

/// How many rows are measured before others have their turn: well below a millisecond's work.
const MEASURED_AT_ONCE: usize = 1024;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is nobody left to answer.
    Gone,
    /// It was refused: the sentence for stderr and the exit status.
    Refused(Refusal),
}

/// Whether a refusal is in the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logged {
    /// The state wrote it down where it refused.
    ByState,
    /// It has to be written where the command ends.
    NotYet,
}

/// A sentence and an exit status.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) logged: Logged,
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl Stop {
    pub(crate) fn new(exit: Exit, text: impl ToString) -> Self {
        Self::Refused(Refusal {
            exit,
            text: text.to_string(),
            logged: Logged::NotYet,
        })
    }

    /// A refusal that the state has logged.
    pub(crate) fn by_state(exit: Exit, text: impl ToString) -> Self {
        Self::Refused(Refusal {
            exit,
            text: text.to_string(),
            logged: Logged::ByState,
        })
    }

    pub(crate) fn usage(text: impl ToString) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn not_found(text: impl ToString) -> Self {
        Self::new(Exit::NotFound, text)
    }

    pub(crate) fn denied(text: impl ToString) -> Self {
        Self::new(Exit::Denied, text)
    }
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::new(store_exit(&error), error)
    }
}

impl From<FromNode> for Stop {
    fn from(error: FromNode) -> Self {
        Self::denied(error)
    }
}

/// The exit status for a failure of the store: only a conflict is worth trying again at once.
pub(crate) fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::Unavailable(_) | StoreError::Stopped => Exit::Unavailable,
        StoreError::Conflict(_) => Exit::Pending,
        StoreError::Unreadable { .. } | StoreError::Unwritable { .. } => Exit::Failed,
    }
}

/// The result of a command.
pub(crate) type Ended = Result<Exit, Stop>;

/// One command while it runs.
pub(crate) struct Run<'a, I> {
    pub(crate) ctx: &'a Context,
    pub(crate) caller: &'a Caller,
    pub(crate) io: &'a mut I,
    /// Standard input can be read once.
    pub(crate) stdin_taken: bool,
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) fn channel(&self) -> Channel {
        match self.caller {
            Caller::Ssh { .. } => Channel::Ssh,
            Caller::Local => Channel::Ctl,
        }
    }

    /// Lines for standard output.
    pub(crate) async fn print(&mut self, text: &str) -> Result<(), Stop> {
        Ok(self.io.stdout(say::lines(text, LineEnd::Lf)).await?)
    }

    /// Lines for standard error.
    pub(crate) async fn note(&mut self, text: &str) -> Result<(), Stop> {
        Ok(self.io.stderr(say::lines(text, LineEnd::Lf)).await?)
    }

    /// A listing in the format asked for.
    pub(crate) async fn listing<T: Serialize + Sync>(
        &mut self,
        format: Format,
        objects: &T,
        text: impl FnOnce() -> String + Send,
    ) -> Result<(), Stop> {
        let out = match format {
            Format::Text => text(),
            Format::Json => say::json(objects),
            Format::Yaml => say::yaml(objects),
        };
        self.print(&out).await
    }

    /// A listing of `items`, of which there may be very many: each is made a row of when its turn has come, `row` in JSON and
    /// YAML, `cells` under `header` in a table.
    ///
    /// It waits for room at the client after every piece, so that a slow one costs `items` and one piece, and holds up nobody.
    /// `items` are expected to borrow or share what they show.
    pub(crate) async fn rows<'r, T: Sync, R: Serialize>(
        &mut self,
        format: Format,
        items: &'r [T],
        row: impl Fn(&'r T) -> R + Send,
        header: &[&str],
        cells: impl Fn(&'r T, &mut Cells) + Send,
    ) -> Result<(), Stop> {
        match format {
            Format::Json => {
                self.pieces(say::json_in_pieces(items.iter().map(row)))
                    .await
            }
            Format::Yaml => {
                self.pieces(say::yaml_in_pieces(items.iter().map(row)))
                    .await
            }
            Format::Text => self.table(items, header, cells).await,
        }
    }

    /// The same in a table only.
    pub(crate) async fn table<'r, T: Sync>(
        &mut self,
        items: &'r [T],
        header: &[&str],
        cells: impl Fn(&'r T, &mut Cells) + Send,
    ) -> Result<(), Stop> {
        let columns = measured(header, items, &cells).await;
        self.pieces(say::table_in_pieces(columns, items.iter(), cells))
            .await
    }

    /// Text in pieces whose lines are ended, for standard output.
    pub(crate) async fn pieces(
        &mut self,
        pieces: impl Iterator<Item = String> + Send,
    ) -> Result<(), Stop> {
        for piece in pieces {
            if !piece.is_empty() {
                self.io.stdout(piece.into()).await?;
            }
        }
        Ok(())
    }

    /// Waits for a turn at a listing, to be kept until the client has taken it. The local administrator needs none.
    pub(crate) async fn turn_at_listing(&mut self) -> Result<Option<Turn>, Stop> {
        let (ctx, caller) = (self.ctx, self.caller);
        let Some(user) = self.user().cloned() else {
            return Ok(None);
        };
        let turn = ctx.listings.turn(&user);
        tokio::select! {
            biased;
            turn = unless_barred(ctx, caller, turn) => turn,
            _ = self.io.gone() => Err(Stop::Gone),
        }
    }

    /// The caller's identity, for commands that are about one's own access.
    pub(crate) fn identity(&self, command: &str) -> Result<&Identity, Stop> {
        match self.caller {
            Caller::Ssh { identity, .. } => Ok(identity),
            Caller::Local => Err(Stop::usage(format!(
                "`{command}` is about a user's own access, and the local administrator is no user; give it over ssh, as `ssh access {command}`"
            ))),
        }
    }

    pub(crate) fn by(&self) -> By {
        match self.caller {
            Caller::Ssh {
                identity,
                remote_addr,
            } => By::user(identity.clone(), *remote_addr),
            Caller::Local => By::local_administrator(),
        }
    }

    pub(crate) fn user(&self) -> Option<&UserName> {
        match self.caller {
            Caller::Ssh { identity, .. } => Some(identity.user()),
            Caller::Local => None,
        }
    }

    /// What the caller's stored roles say of `verb` on objects of one kind; the local administrator may everything.
    pub(crate) fn mandate<'v>(
        &self,
        view: &'v View,
        verb: AdminVerb,
        resource: AdminResource,
    ) -> Mandate<'v> {
        match self.user() {
            None => Mandate::Everything,
            // From a node it may be the node that asks, by an agent that was forwarded to it.
            Some(_) if self.not_from_a_node().is_err() => Mandate::Nothing,
            Some(user) => Mandate::Rights(Rights::new(view, user, verb, resource)),
        }
    }

    /// Refuses what comes from a registered node's address.
    fn not_from_a_node(&self) -> Result<(), Stop> {
        match self.caller {
            Caller::Ssh { remote_addr, .. } => Ok(self.ctx.state.not_from_a_node(*remote_addr)?),
            Caller::Local => Ok(()),
        }
    }

    /// Whether the caller may do `verb` with `object`.
    pub(crate) fn may(&self, verb: AdminVerb, object: AdminObject<'_>) -> bool {
        let view = self.ctx.state.view();
        self.mandate(&view, verb, object.resource()).covers(object)
    }

    /// The same, as a refusal with the next step.
    pub(crate) fn require(&self, verb: AdminVerb, object: AdminObject<'_>) -> Result<(), Stop> {
        if self.may(verb, object) {
            return Ok(());
        }
        self.not_from_a_node()?;
        Err(not_allowed(verb, object.resource()))
    }

    /// Whether the caller may do `verb` with any object of a kind at all: for what is asked before the object is known,
    /// and followed by [`Self::require`] or a filter wherever there is one.
    pub(crate) fn may_some(&self, verb: AdminVerb, resource: AdminResource) -> bool {
        let view = self.ctx.state.view();
        self.mandate(&view, verb, resource).exists()
    }

    /// The same, as a refusal with the next step.
    pub(crate) fn require_some(
        &self,
        verb: AdminVerb,
        resource: AdminResource,
    ) -> Result<(), Stop> {
        if self.may_some(verb, resource) {
            return Ok(());
        }
        self.not_from_a_node()?;
        Err(not_allowed(verb, resource))
    }

    /// Whether the caller administers `object` in any way, and so may know that it is there.
    pub(crate) fn knows(&self, object: AdminObject<'_>) -> bool {
        AdminVerb::ALL
            .into_iter()
            .any(|verb| self.may(verb, object))
    }

    /// Refuses `verb` with what is called `id`: to those who may not know of it as if it were not there.
    pub(crate) fn require_on(
        &self,
        verb: AdminVerb,
        view: &View,
        id: &ObjectId,
    ) -> Result<(), Stop> {
        self.require_some(verb, id.resource())?;
        match id.find(view).filter(|object| self.knows(*object)) {
            Some(object) => self.require(verb, object),
            None => Err(no_such(id)),
        }
    }

    /// Reads what an option names: `-` is standard input, anything else a file that the client has sent.
    pub(crate) async fn input(&mut self, option: &str, path: &str) -> Result<String, Stop> {
        let bytes = if path == "-" {
            self.stdin(option).await?
        } else {
            self.sent_file(option, path)?
        };
        String::from_utf8(bytes).map_err(|_| {
            Stop::usage(format!(
                "what `{option} {}` names is not UTF-8 text",
                clean(path)
            ))
        })
    }

    async fn stdin(&mut self, option: &str) -> Result<Vec<u8>, Stop> {
        if std::mem::replace(&mut self.stdin_taken, true) {
            return Err(Stop::usage(format!(
                "`{option} -` is given a second time, but there is one standard input"
            )));
        }
        let (ctx, caller) = (self.ctx, self.caller);
        let reading = in_time(LONGEST_READING, self.io.read_stdin(LONGEST_INPUT));
        match unless_barred(ctx, caller, reading).await? {
            Ok(bytes) => Ok(bytes),
            Err(error @ StdinError::TooSlow(_)) => Err(Stop::new(Exit::Failed, error)),
            Err(error @ StdinError::TooLong(_)) => Err(Stop::usage(format!("{error}; split it"))),
            Err(StdinError::Gone(_)) => Err(Stop::Gone),
        }
    }

    fn sent_file(&mut self, option: &str, path: &str) -> Result<Vec<u8>, Stop> {
        match self.io.file(path) {
            FileAnswer::Sent(bytes) => Ok(bytes),
            FileAnswer::OutOfReach => Err(Stop::usage(format!(
                "`{option} {0}` names a file of your machine, which ssh does not send; write `{option} -` and append `< {0}` to the command",
                clean(path)
            ))),
        }
    }

    /// Refuses a reason before anything is done with it.
    pub(crate) fn check_reason(&self, reason: Option<&str>) -> Result<String, Stop> {
        let reason = reason.unwrap_or_default().trim();
        let limit = self.ctx.state.view().settings().reason_bytes;
        if reason.len() > limit {
            return Err(Stop::usage(format!(
                "the reason is {} bytes long, the limit is {limit}; shorten it",
                reason.len()
            )));
        }
        Ok(reason.to_owned())
    }
}

/// Columns wide enough for all of `items`.
async fn measured<'r, T>(
    header: &[&str],
    items: &'r [T],
    cells: impl Fn(&'r T, &mut Cells),
) -> Columns {
    let mut columns = Columns::new(header);
    let mut row = Cells::default();
    for batch in items.chunks(MEASURED_AT_ONCE) {
        for item in batch {
            row.clear();
            cells(item, &mut row);
            columns.measure(&row);
        }
        tokio::task::yield_now().await;
    }
    columns
}

fn not_allowed(verb: AdminVerb, resource: AdminResource) -> Stop {
    Stop::denied(format!(
        "none of your roles allows `{}` on `{}`; ask an administrator for a role whose rules do, or do it on the proxy with `anteroom ctl`",
        verb.as_str(),
        resource.as_str()
    ))
}

/// What the caller may do with objects of one kind: for listings, which ask it of very many.
pub(crate) enum Mandate<'v> {
    /// The local administrator's.
    Everything,
    /// What roles say.
    Rights(Rights<'v>),
    /// That of somebody who comes from a node.
    Nothing,
}

impl Mandate<'_> {
    /// Whether it may be done with `object`.
    pub(crate) fn covers(&self, object: AdminObject<'_>) -> bool {
        match self {
            Mandate::Everything => true,
            Mandate::Rights(rights) => rights.cover(object),
            Mandate::Nothing => false,
        }
    }

    /// Whether there may be an object with which it may be done.
    fn exists(&self) -> bool {
        match self {
            Mandate::Everything => true,
            Mandate::Rights(rights) => rights.exist(),
            Mandate::Nothing => false,
        }
    }
}

/// What is waited for, unless its caller may do nothing any more before it is there. Whatever waits for
/// somebody outside waits through this: a lock reaches what lives within a second.
pub(crate) async fn unless_barred<T>(
    ctx: &Context,
    caller: &Caller,
    waited_for: impl Future<Output = T>,
) -> Result<T, Stop> {
    tokio::select! {
        biased;
        stop = barred(ctx, caller) => Err(stop),
        done = waited_for => Ok(done),
    }
}

/// Resolves when the caller may do nothing any more, with what she is told.
pub(crate) async fn barred(ctx: &Context, caller: &Caller) -> Stop {
    let certificate_ends = match caller {
        Caller::Ssh { identity, .. } => identity.credential().map(|held| held.valid_before),
        Caller::Local => None,
    };
    let mut changes = ctx.state.changes();
    loop {
        // Mark first, look after: a change in between wakes us once more instead of being lost.
        changes.borrow_and_update();
        if let Err(stop) = admitted(ctx, caller) {
            return stop;
        }
        let its_end = async {
            match certificate_ends {
                Some(end) => ctx.state.clock().sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return StoreError::Stopped.into();
            },
            () = its_end => {}
        }
    }
}

/// What is read, if it is read to its end within `limit`.
async fn in_time(
    limit: Duration,
    reading: impl Future<Output = Result<Vec<u8>, StdinError>>,
) -> Result<Vec<u8>, StdinError> {
    tokio::time::timeout(limit, reading)
        .await
        .unwrap_or(Err(StdinError::TooSlow(limit)))
}

/// Who did something, for people.
pub(crate) fn actor(actor: &Actor) -> String {
    actor.to_string()
}

/// Names in backticks, a few of them, and how many more there are.
pub(crate) fn some(names: impl IntoIterator<Item = impl ToString>) -> String {
    let all: Vec<String> = names
        .into_iter()
        .map(|name| format!("`{}`", clean(&name.to_string())))
        .collect();
    match all.len().checked_sub(LISTED) {
        None | Some(0) => all.join(", "),
        Some(more) => format!(
            "{} and {more} more",
            all.get(..LISTED).unwrap_or_default().join(", ")
        ),
    }
}

/// Whether every one of `words` occurs in one of `texts`, whatever the case.
pub(crate) fn matches_words(words: &[String], texts: &[impl AsRef<str>]) -> bool {
    words.iter().all(|word| {
        let word = word.trim();
        texts
            .iter()
            .any(|text| contains_ignoring_case(text.as_ref(), word))
    })
}

fn contains_ignoring_case(text: &str, word: &str) -> bool {
    if !text.is_ascii() || !word.is_ascii() {
        return text.to_lowercase().contains(&word.to_lowercase());
    }
    let Some((first, rest)) = word.as_bytes().split_first() else {
        return true;
    };
    let mut left = text.as_bytes();
    while let Some((here, after)) = left.split_first() {
        let found = here.eq_ignore_ascii_case(first)
            && after
                .get(..rest.len())
                .is_some_and(|there| there.eq_ignore_ascii_case(rest));
        if found {
            return true;
        }
        left = after;
    }
    false
}

/// Whether `labels` has every pair of `wanted`.
pub(crate) fn has_labels(
    labels: &std::collections::BTreeMap<String, String>,
    wanted: &[(String, String)],
) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

pub(crate) use args::Listing;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_input_that_does_not_end_is_given_up() {
        let short = Duration::from_millis(10);
        let given_up = in_time(short, std::future::pending()).await;
        assert_eq!(given_up, Err(StdinError::TooSlow(short)));
        assert_eq!(
            StdinError::TooSlow(LONGEST_READING).to_string(),
            "standard input did not end within 10 minutes; give the command again"
        );
        let read = in_time(short, async { Ok(b"kind: role".to_vec()) }).await;
        assert_eq!(read, Ok(b"kind: role".to_vec()));
    }
}
