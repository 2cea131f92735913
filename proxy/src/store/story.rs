//! What the audit log tells of requests, certificates, locks and sessions, in the order in which it
//! was committed.
//!
//! It finds what the log itself gives away (a certificate under a lock, a request that was granted
//! twice), and keeps what the rows are compared with: of certificates and sessions for one page of
//! the log only, since there are as many of them as the log is long.

use std::collections::HashMap;

use anteroom_core::request::State as RequestState;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use super::verify::Broken;
use crate::audit::{Event, Record};

/// How long after the end of what permitted it a session may be there still. A bridge ends within a
/// second; the rest is for a machine with too much to do, and for the last words to a slow client.
pub(super) const LENIENCE: Duration = Duration::minutes(1);

/// The reason of a session's end that the next start of a proxy wrote, or a stop in good order.
const STOPPED: &str = "the proxy stopped";

/// What a `cert.create` entry tells of its certificate.
#[derive(Debug)]
pub(super) struct LoggedCertificate {
    /// When it was written.
    pub(super) at: Option<OffsetDateTime>,
    pub(super) fields: Map<String, Value>,
}

/// How a session ended.
#[derive(Debug)]
pub(super) struct LoggedEnd {
    /// The session, and the number of the entry that it started with.
    pub(super) id: String,
    pub(super) start: i64,
    /// Under which request it was when it ended: what permits a session may change meanwhile.
    pub(super) request: Option<String>,
    /// When what permitted it ended, and what that was, as far as the log alone tells.
    pub(super) due: Option<(OffsetDateTime, String)>,
    /// A proxy that stands or was killed carries nothing: its sessions are not late.
    pub(super) with_the_proxy: bool,
}

/// How far a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chapter {
    pub(super) state: RequestState,
    pub(super) grants: u32,
    pub(super) since: Option<OffsetDateTime>,
}

#[derive(Debug)]
struct LoggedLock {
    target: String,
    made: Option<OffsetDateTime>,
    end: Option<OffsetDateTime>,
}

/// What a page of the log told that has rows of its own, by the numbers of the entries.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) certificates: HashMap<i64, LoggedCertificate>,
    /// Sessions that started.
    pub(super) started: HashMap<i64, Map<String, Value>>,
    /// Sessions that ended.
    pub(super) ended: HashMap<i64, LoggedEnd>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) requests: HashMap<String, Chapter>,
    pub(super) broken: Vec<Broken>,
    page: Page,
    /// The sessions that live, by their IDs.
    live: HashMap<String, i64>,
    /// The locks that are there, by ID.
    locks: HashMap<String, LoggedLock>,
    /// Instants at which something was logged, at least [`LENIENCE`] apart: the proxy was at work.
    at_work: Vec<OffsetDateTime>,
}

impl Story {
    /// Turns the page: what there is to compare with the rows of the one that was read.
    pub(super) fn turn_page(&mut self) -> Page {
        std::mem::take(&mut self.page)
    }

    /// Reads the next entry.
    pub(super) fn goes_on(&mut self, record: &Record) {
        let at = moment(&record.time);
        self.note_work(at);
        let fields = record.fields();
        // What was refused changed nothing, and tells of no certificate.
        if fields.get("success").and_then(Value::as_bool) != Some(true) {
            return;
        }
        let event = record.event.as_str();
        if event == Event::CertCreate.name() {
            self.certificate(record.seq, at, fields);
        } else if event.starts_with("access_request.") {
            self.request(record.seq, at, &fields);
        } else if event == Event::LockCreate.name() {
            self.lock(at, &fields);
        } else if event == Event::LockDelete.name() {
            if let Some(id) = text(&fields, "lock_id") {
                self.locks.remove(id);
            }
        } else if event == Event::SessionStart.name() {
            if let Some(id) = text(&fields, "session_id") {
                self.live.insert(id.to_owned(), record.seq);
            }
            self.page.started.insert(record.seq, fields);
        } else if event == Event::SessionEnd.name() {
            self.session_ends(record.seq, &fields);
        } else if event == Event::ProxyStart.name() {
            // A start ends them first: no bridge has outlived the proxy.
            let mut left: Vec<_> = self.live.drain().collect();
            left.sort_by_key(|(_, seq)| *seq);
            let seq = record.seq;
            let never = left
                .into_iter()
                .map(|(id, _)| Broken::SessionNeverEnded { id, seq });
            self.broken.extend(never);
        }
    }

    /// Whether the log shows a proxy at work for a while between the two. One that was suspended
    /// with its machine was not, and let nothing through.
    pub(super) fn was_at_work(&self, from: OffsetDateTime, to: OffsetDateTime) -> bool {
        let between = self.at_work.iter().filter(|at| from < **at && **at < to);
        between.count() >= 2
    }

    fn note_work(&mut self, at: Option<OffsetDateTime>) {
        let Some(at) = at else { return };
        if self
            .at_work
            .last()
            .is_none_or(|last| *last + LENIENCE <= at)
        {
            self.at_work.push(at);
        }
    }

    fn certificate(&mut self, seq: i64, at: Option<OffsetDateTime>, fields: Map<String, Value>) {
        self.look_for_locks(seq, at, &fields);
        if let Some(request) = text(&fields, "request_id") {
            let why = match self.requests.get(request).map(|chapter| chapter.state) {
                Some(RequestState::Approved) => None,
                Some(RequestState::Pending) => Some("was not approved yet"),
                Some(
                    RequestState::Denied
                    | RequestState::Expired
                    | RequestState::Canceled
                    | RequestState::Revoked,
                ) => Some("was over"),
                None => Some("was never filed"),
            };
            if let Some(why) = why {
                self.broken.push(Broken::IssuedWithoutGrant {
                    seq,
                    request: request.to_owned(),
                    why,
                });
            }
        }
        let logged = LoggedCertificate { at, fields };
        self.page.certificates.insert(seq, logged);
    }

    fn request(&mut self, seq: i64, at: Option<OffsetDateTime>, fields: &Map<String, Value>) {
        let (Some(request), Some(state)) = (text(fields, "request_id"), text(fields, "state"))
        else {
            return;
        };
        let Ok(state) = state.parse::<RequestState>() else {
            return self.changed(seq, request, "is in no state that there is");
        };
        let known = self.requests.get(request);
        let wrong = match (known.map(|known| known.state), state) {
            (None | Some(RequestState::Pending), RequestState::Pending) => None,
            (None, _) => Some("was never filed"),
            (Some(was), state) if was == state => None,
            (Some(RequestState::Pending), _) => None,
            (Some(RequestState::Approved), RequestState::Expired | RequestState::Revoked) => None,
            (Some(RequestState::Approved), _) => Some("was approved before"),
            (Some(_), RequestState::Approved) => Some("was over, and is granted again"),
            (Some(_), _) => Some("was over before"),
        };
        let granted = state == RequestState::Approved
            && known.is_none_or(|known| known.state != RequestState::Approved);
        let chapter = Chapter {
            state,
            grants: known.map_or(0, |known| known.grants) + u32::from(granted),
            since: match known {
                Some(known) if known.state == state => known.since,
                Some(_) | None => at,
            },
        };
        if let Some(why) = wrong {
            self.changed(seq, request, why);
        }
        self.requests.insert(request.to_owned(), chapter);
    }

    fn changed(&mut self, seq: i64, request: &str, why: &'static str) {
        self.broken.push(Broken::RequestChanged {
            seq,
            request: request.to_owned(),
            why,
        });
    }

    fn lock(&mut self, made: Option<OffsetDateTime>, fields: &Map<String, Value>) {
        let (Some(id), Some(target)) = (text(fields, "lock_id"), text(fields, "name")) else {
            return;
        };
        let lock = LoggedLock {
            target: target.to_owned(),
            made,
            end: text(fields, "expires").and_then(moment),
        };
        self.locks.insert(id.to_owned(), lock);
    }

    /// Whether a certificate was issued to whom, or for what, was locked at that moment. What roles
    /// its user had, and with which certificate she came, is not in the log.
    fn look_for_locks(
        &mut self,
        seq: i64,
        at: Option<OffsetDateTime>,
        fields: &Map<String, Value>,
    ) {
        // A host certificate opens nothing to anybody, and `user` is who had it made. That one of a
        // person is not passed off as one is compared with its row.
        if is_of_a_host(fields) {
            return;
        }
        let under = self
            .locks_on(at, fields)
            .map(|lock| Broken::IssuedUnderLock {
                seq,
                target: lock.target.clone(),
            });
        let under: Vec<Broken> = under.collect();
        self.broken.extend(under);
    }

    /// The locks in force that shut what an entry names.
    fn locks_on(
        &self,
        at: Option<OffsetDateTime>,
        fields: &Map<String, Value>,
    ) -> impl Iterator<Item = &LoggedLock> {
        let of = |kind: &str, field: &str| Some(format!("{kind}/{}", text(fields, field)?));
        let named = [
            of("user", "user"),
            of("key", "key"),
            of("request", "request_id"),
            of("login", "login"),
            of("node", "node_id"),
        ];
        self.locks.values().filter(move |lock| {
            let in_force = lock.end.is_none_or(|end| at.is_none_or(|at| at < end));
            in_force && named.iter().flatten().any(|named| *named == lock.target)
        })
    }

    fn session_ends(&mut self, seq: i64, fields: &Map<String, Value>) {
        let Some((id, start)) =
            text(fields, "session_id").and_then(|id| self.live.remove_entry(id))
        else {
            return;
        };
        let request = text(fields, "request_id").map(str::to_owned);
        let over = request.as_ref().and_then(|id| {
            let chapter = self.requests.get(id)?;
            let over = !matches!(
                chapter.state,
                RequestState::Approved | RequestState::Pending
            );
            let what = || format!("the end of request {id}");
            chapter.since.filter(|_| over).map(|at| (at, what()))
        });
        // Locks that were taken away again are forgotten, and those that end by themselves may have.
        let locked = self.locks_on(None, fields).filter_map(|lock| {
            let made = lock.made.filter(|_| lock.end.is_none())?;
            Some((made, format!("the lock on `{}`", lock.target)))
        });
        let due = locked.chain(over).min_by_key(|(at, _)| *at);
        let end = LoggedEnd {
            id,
            start,
            request,
            due,
            with_the_proxy: text(fields, "reason") == Some(STOPPED),
        };
        self.page.ended.insert(seq, end);
    }
}

/// A field's text.
pub(super) fn text<'f>(fields: &'f Map<String, Value>, name: &str) -> Option<&'f str> {
    fields.get(name).and_then(Value::as_str)
}

/// An instant as the log writes it.
pub(super) fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()
}

/// Whether a `cert.create` entry is about a host. Every certificate of a person is issued to a key
/// that she proved, which the entry names.
pub(super) fn is_of_a_host(fields: &Map<String, Value>) -> bool {
    !fields.contains_key("key")
}
