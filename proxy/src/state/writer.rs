//! The one writer: decides on fresh data, writes, commits, and only then lets anybody know.
//!
//! Everybody who wants something written sends a job. The writer takes the jobs that wait, opens
//! one transaction for all of them, reads the clock once, runs them one after the other on a
//! [`Draft`] of the view, writes what they wrote, and commits. So the `fdatasync` that a commit
//! costs is paid once for everybody who waits, and a job sees what the jobs before it did.
//!
//! A job's caller may go away at any moment; the job is done all the same, and memory never
//! differs from the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration as StdDuration;

use anteroom_core::allowance::Allowance;
use anteroom_core::credential::IssuedCredential;
use anteroom_core::id::{
    AllowanceId, ClusterName, DeviceName, LockId, NodeId, RequestId, ResourceName, RoleName,
    RuleName, TokenId, UserName,
};
use anteroom_core::lock::Lock;
use anteroom_core::mfa::{Device, Failures, SecondFactors};
use anteroom_core::monitoring::{MonitoringRule, next_opening};
use anteroom_core::node::Node;
use anteroom_core::request::{self, AccessRequest, Action, Actor, State as RequestState};
use anteroom_core::resource::{Kind as ResourceKind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use anteroom_core::view::{CertifiedHost, Settings, View};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use super::allowances::let_allowances_end;
use super::filings::Filings;
use super::monitoring::review_pending_by_rules;
use super::tokens::let_tokens_end;
use super::{NodeAddresses, Shared};
use crate::audit::{Entry, Event, Outcome, PROXY};
use crate::authority::{Authorities, AuthorityKind, Record, Retired};
use crate::store::{
    Change, HostRevocation, Issuance, Kind, Learnt, MOST_REMEMBERED, RECENT, REMEMBERED, SeenNode,
    SessionEnd, SessionStart, Snapshot, Store, StoreError, Transaction,
};

/// Jobs in one transaction. Beyond some dozens the disk's share of the cost is nothing any more,
/// and the first in the group should not wait for many signatures.
const GROUP: usize = 64;

/// Jobs that may wait. More wait at their own sender, one per connection, in order.
pub(super) const QUEUE: usize = 256;

/// How long the writer waits before it tries again to write what time alone changed, after the
/// store failed. Nothing depends on it: a decision looks at the time itself.
const RETRY: StdDuration = StdDuration::from_secs(1);

/// Something that wants to be written.
pub(super) trait Job: Send {
    /// Decides, and writes into the draft what is to be written.
    fn run(&mut self, draft: &mut Draft) -> Kept;
    /// Tells the caller, after the commit or its failure.
    fn reply(self: Box<Self>, committed: Result<(), StoreError>);
}

/// What of a job's changes stays in the draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// All of it.
    Everything,
    /// What it logged as failed: it was refused.
    Refusals,
}

/// A job made of a closure, and the way back to whoever waits for it.
pub(super) struct Work<F, T, E> {
    decide: Option<F>,
    outcome: Option<Result<T, E>>,
    caller: oneshot::Sender<Result<T, E>>,
}

impl<F, T, E> Work<F, T, E> {
    pub(super) fn new(decide: F) -> (Self, oneshot::Receiver<Result<T, E>>) {
        let (caller, answer) = oneshot::channel();
        (
            Self {
                decide: Some(decide),
                outcome: None,
                caller,
            },
            answer,
        )
    }
}

impl<F, T, E> Job for Work<F, T, E>
where
    F: FnOnce(&mut Draft) -> Result<T, E> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn run(&mut self, draft: &mut Draft) -> Kept {
        let Some(decide) = self.decide.take() else {
            return Kept::Refusals;
        };
        let outcome = decide(draft);
        let kept = if outcome.is_ok() {
            Kept::Everything
        } else {
            Kept::Refusals
        };
        self.outcome = Some(outcome);
        kept
    }

    fn reply(self: Box<Self>, committed: Result<(), StoreError>) {
        let outcome = match (committed, self.outcome) {
            (Ok(()), Some(outcome)) => outcome,
            // A refusal stays one, whether or not it could be logged.
            (Err(_), Some(Err(refusal))) => Err(refusal),
            (Err(error), Some(Ok(_)) | None) => Err(error.into()),
            // It panicked: the caller sees its channel close.
            (Ok(()), None) => return,
        };
        // A caller who has gone away does not want to know.
        let _ = self.caller.send(outcome);
    }
}

/// The state as it will be when the transaction is committed.
#[derive(Debug)]
pub(super) struct Draft {
    view: View,
    addresses: Arc<NodeAddresses>,
    now: OffsetDateTime,
    last_issued: Option<OffsetDateTime>,
    authorities: Option<Arc<Authorities>>,
    revisions: HashMap<RequestId, i64>,
    filings: Filings,
    changes: Vec<Change>,
    touched: Vec<RequestId>,
    news: News,
}

/// Whether decisions may come out differently after the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    Look,
}

impl Draft {
    /// What is true at this moment of the transaction.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// From where registered nodes may come.
    pub(super) fn addresses(&self) -> &NodeAddresses {
        &self.addresses
    }

    /// The transaction's time, read once.
    pub(super) fn now(&self) -> OffsetDateTime {
        self.now
    }

    /// When the last certificate was issued.
    pub(super) fn last_issued(&self) -> Option<OffsetDateTime> {
        self.last_issued
    }

    pub(super) fn put_role(&mut self, role: Role) {
        self.push(Change::PutRole(Arc::new(role.clone())));
        self.turn(|view| view.with_role(role));
    }

    pub(super) fn remove_role(&mut self, name: &RoleName) {
        self.push(Change::RemoveRole(name.clone()));
        self.turn(|view| view.without_role(name));
    }

    pub(super) fn put_user(&mut self, user: User) {
        self.push(Change::PutUser(Arc::new(user.clone())));
        self.turn(|view| view.with_user(user));
    }

    /// To be followed by `put_user` of the same user.
    pub(super) fn release_keys(&mut self, name: &UserName) {
        self.push(Change::ReleaseKeys(name.clone()));
    }

    pub(super) fn remove_user(&mut self, name: &UserName) {
        self.push(Change::RemoveUser(name.clone()));
        self.turn(|view| view.without_user(name));
    }

    pub(super) fn put_node(&mut self, node: Node) {
        self.push(Change::PutNode(Arc::new(node.clone())));
        self.turn(|view| view.with_node(node));
    }

    pub(super) fn remove_node(&mut self, id: NodeId) {
        self.push(Change::RemoveNode(id));
        self.turn(|view| view.without_node(&id));
    }

    pub(super) fn put_lock(&mut self, lock: Lock) {
        self.push(Change::PutLock(Arc::new(lock.clone())));
        self.turn(|view| view.with_lock(lock));
    }

    pub(super) fn remove_lock(&mut self, id: LockId) {
        self.push(Change::RemoveLock(id));
        self.turn(|view| view.without_lock(&id));
    }

    pub(super) fn put_resource(&mut self, resource: Resource) {
        self.push(Change::PutResource(Arc::new(resource.clone())));
        self.turn(|view| view.with_resource(resource));
    }

    pub(super) fn remove_resource(&mut self, kind: ResourceKind, name: &ResourceName) {
        self.push(Change::RemoveResource(kind, name.clone()));
        self.turn(|view| view.without_resource(kind, name.as_str()));
    }

    pub(super) fn put_monitoring_rule(&mut self, rule: MonitoringRule) {
        self.push(Change::PutMonitoringRule(Arc::new(rule.clone())));
        self.turn(|view| view.with_monitoring_rules([rule]));
    }

    pub(super) fn remove_monitoring_rule(&mut self, name: &RuleName) {
        self.push(Change::RemoveMonitoringRule(name.clone()));
        self.turn(|view| view.without_monitoring_rule(name));
    }

    /// Adds a token; its ID is to be free.
    pub(super) fn add_token(&mut self, token: Token) {
        self.push(Change::AddToken(Arc::new(token.clone())));
        self.turn(|view| view.with_tokens([token]));
    }

    pub(super) fn remove_token(&mut self, id: &TokenId) {
        self.push(Change::RemoveToken(id.clone()));
        self.turn(|view| view.without_token(id));
    }

    /// Takes one of the uses that the token has left, for a node that is registered in this transaction.
    pub(super) fn use_token(&mut self, token: &Token, node: NodeId, from: SocketAddr) {
        self.push(Change::UseToken {
            token: token.id.clone(),
            node,
            from,
        });
        let used = token.used_by(node);
        self.turn(|view| view.with_tokens([used]));
    }

    pub(super) fn put_allowance(&mut self, allowance: Allowance) {
        self.push(Change::PutAllowance(Arc::new(allowance.clone())));
        self.turn(|view| view.with_allowances([allowance]));
    }

    pub(super) fn remove_allowance(&mut self, id: AllowanceId) {
        self.push(Change::RemoveAllowance(id));
        self.turn(|view| view.without_allowance(&id));
    }

    /// When the user may file again, if she has filed as many requests within the last hour as may
    /// be. What was filed for her by somebody else counts, too.
    pub(super) fn filed_too_often(&self, user: &UserName) -> Option<OffsetDateTime> {
        let limit = self.view.settings().filed_per_hour;
        self.filings.full_until(user, limit, self.now)
    }

    pub(super) fn file_request(&mut self, request: AccessRequest) {
        self.filings.add(&request.user, self.now);
        self.push(Change::FileRequest(Arc::new(request.clone())));
        self.revisions.insert(request.id, 1);
        self.touched.push(request.id);
        self.turn(|view| view.with_request(request));
    }

    /// Replaces a request that was in state `from`.
    pub(super) fn update_request(&mut self, request: AccessRequest, from: RequestState) {
        let revision = self.revisions.get(&request.id).copied().unwrap_or_default();
        self.push(Change::UpdateRequest {
            request: Arc::new(request.clone()),
            from,
            revision,
        });
        self.revisions.insert(request.id, revision + 1);
        self.touched.push(request.id);
        self.turn(|view| view.with_request(request));
    }

    pub(super) fn issue(&mut self, issuance: Issuance, entry: Entry) {
        if let Some((node, certified)) = certified_host(&issuance) {
            let now = self.now;
            self.turn(|view| {
                view.retaining_certified_hosts(node, |one| now < one.valid_before)
                    .with_certified_hosts([(node, certified)])
            });
        }
        self.push(Change::Issue(Box::new(issuance), Box::new(entry)));
        self.last_issued = self.last_issued.max(Some(self.now));
    }

    /// What `issue` wrote of an identity certificate, for decisions; those in `revoked` count no
    /// more. Of one user no more than [`MOST_REMEMBERED`] are kept.
    pub(super) fn remember_credential(
        &mut self,
        issued: IssuedCredential,
        revoked: &BTreeMap<u64, String>,
    ) {
        let (user, now) = (issued.user.clone(), self.now);
        let mut changed = vec![issued];
        changed.extend(revoked.iter().filter_map(|(serial, why)| {
            let known = self.view.credential(*serial)?;
            Some(IssuedCredential {
                revoked: Some(why.clone()),
                ..IssuedCredential::clone(known)
            })
        }));
        self.turn(|view| {
            let view = view.with_credentials(changed);
            too_many(&view, &user, now)
                .into_iter()
                .fold(view, View::without_credential)
        });
    }

    /// Takes back an identity certificate that counts; any other stays as it is.
    pub(super) fn revoke_credential(&mut self, serial: u64, why: &str) {
        let Some(known) = self.view.credential(serial) else {
            return;
        };
        if known.revoked.is_some() {
            return;
        }
        let revoked = IssuedCredential {
            revoked: Some(why.to_owned()),
            ..IssuedCredential::clone(known)
        };
        self.push(Change::RevokeIdentity {
            serial,
            why: why.to_owned(),
        });
        self.turn(|view| view.with_credentials([revoked]));
    }

    /// Revokes host certificates of a node; `entry` is logged if there are any.
    pub(super) fn revoke_hosts(&mut self, which: HostRevocation, entry: Entry) {
        self.turn(|view| {
            view.retaining_certified_hosts(which.node, |one| {
                let other_type = |kind: &String| *kind != one.key_type && !one.key_type.is_empty();
                which.but_for.iter().any(|key| key == one.key.as_str())
                    || which.key_type.as_ref().is_some_and(other_type)
            })
        });
        self.push(Change::RevokeHosts(Box::new(which), Box::new(entry)));
    }

    /// Adds a device; its name is to be free.
    pub(super) fn add_device(&mut self, user: &UserName, device: Device) {
        let known = self.second_factors(user).with(device.clone());
        self.push(Change::AddDevice(user.clone(), Box::new(device)));
        self.turn(|view| view.with_second_factors([(user.clone(), known)]));
    }

    /// Begins the count of wrong codes anew.
    pub(super) fn forget_wrong_codes(&mut self, user: &UserName) {
        let mut known = self.second_factors(user);
        if known.failures.take().is_some() {
            self.push(Change::SetFailures(user.clone(), None));
            self.turn(|view| view.with_second_factors([(user.clone(), known)]));
        }
    }

    /// Spends the codes of a device up to `step`, and forgets the wrong ones.
    pub(super) fn spend_step(&mut self, user: &UserName, device: &Device, step: u64) {
        let spent = Device {
            last_step: step,
            last_used: self.now,
            ..device.clone()
        };
        let mut known = self.second_factors(user).with(spent.clone());
        self.push(Change::SpendStep {
            user: user.clone(),
            device: Box::new(spent),
            from: device.last_step,
        });
        if known.failures.take().is_some() {
            self.push(Change::SetFailures(user.clone(), None));
        }
        self.turn(|view| view.with_second_factors([(user.clone(), known)]));
    }

    /// Removes a device, which is to be there; with the last one, what was guessed wrong.
    pub(super) fn remove_device(&mut self, user: &UserName, name: &DeviceName) {
        let mut known = self.second_factors(user).without(name);
        self.push(Change::RemoveDevice(user.clone(), name.clone()));
        if known.devices.is_empty() && known.failures.take().is_some() {
            self.push(Change::SetFailures(user.clone(), None));
        }
        self.turn(|view| view.with_second_factors([(user.clone(), known)]));
    }

    /// Counts a wrong code.
    pub(super) fn count_wrong_code(&mut self, user: &UserName) {
        let mut known = self.second_factors(user);
        let failures = Failures::after(known.failures, self.now);
        known.failures = Some(failures);
        self.push(Change::SetFailures(user.clone(), Some(failures)));
        self.turn(|view| view.with_second_factors([(user.clone(), known)]));
    }

    /// What is remembered of the user's second factors at this moment of the transaction.
    pub(super) fn second_factors(&self, user: &UserName) -> SecondFactors {
        let known = self.view.second_factors(user);
        known
            .map(|known| SecondFactors::clone(known))
            .unwrap_or_default()
    }

    pub(super) fn start_session(&mut self, session: SessionStart, entry: Entry) {
        self.push(Change::StartSession(Box::new(session), Box::new(entry)));
    }

    pub(super) fn end_session(&mut self, end: SessionEnd, entry: Entry) {
        self.push(Change::EndSession(end, Box::new(entry)));
    }

    /// Who signs certificates, as of this moment of the transaction.
    pub(super) fn authorities(&self) -> Option<&Arc<Authorities>> {
        self.authorities.as_ref()
    }

    /// Has other authorities sign from here on. What the database has of them is written beside this.
    pub(super) fn set_authorities(&mut self, authorities: Authorities) {
        self.authorities = Some(Arc::new(authorities));
    }

    pub(super) fn put_authority(&mut self, record: Record) {
        self.push(Change::PutAuthority(Box::new(record)));
    }

    pub(super) fn forget_authority(&mut self, kind: AuthorityKind) {
        self.push(Change::ForgetAuthority(kind));
    }

    pub(super) fn retire_authority(&mut self, retired: Retired) {
        self.push(Change::RetireAuthority(Box::new(retired)));
    }

    pub(super) fn note_learnt(&mut self, learnt: Learnt) {
        self.push(Change::NoteLearnt(Box::new(learnt)));
    }

    pub(super) fn note_presence(&mut self, seen: Vec<SeenNode>) {
        self.push(Change::NotePresence(seen));
    }

    /// Changes the settings that decisions are made with. They are the configuration's, and not
    /// written to the database.
    pub(super) fn configure(&mut self, settings: Settings) {
        self.turn(|view| view.with_settings(settings));
    }

    /// Logs something. If the job is refused, what it logs as failed stays, and nothing else.
    pub(super) fn log(&mut self, entry: Entry) {
        self.push(Change::Log(Box::new(entry)));
    }

    fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    fn turn(&mut self, change: impl FnOnce(View) -> View) {
        // Taken out, so that the view's maps are copied once per transaction and not per change.
        let placeholder = View::new(self.view.cluster().clone(), Settings::default());
        self.view = change(std::mem::replace(&mut self.view, placeholder));
        self.news = News::Look;
    }

    /// Runs a job; if it is refused or panics, nothing but its log stays.
    fn run(&mut self, job: &mut dyn Job) {
        let (view, last_issued, news) = (self.view.clone(), self.last_issued, self.news);
        let authorities = self.authorities.clone();
        let (changes, touched) = (self.changes.len(), self.touched.len());
        let kept = catch_unwind(AssertUnwindSafe(|| job.run(self))).unwrap_or_else(|_| {
            tracing::error!("a decision panicked in the writer; this is a defect of anteroom");
            Kept::Refusals
        });
        match kept {
            Kept::Everything => {}
            Kept::Refusals => {
                (self.view, self.last_issued, self.news) = (view, last_issued, news);
                self.authorities = authorities;
                let undone = self.changes.split_off(changes);
                for change in &undone {
                    self.take_back(change);
                }
                self.changes.extend(
                    undone
                        .into_iter()
                        .filter(|change| matches!(change, Change::Log(entry) if entry.outcome == Outcome::Failed)),
                );
                self.touched.truncate(touched);
            }
        }
    }

    fn take_back(&mut self, change: &Change) {
        match change {
            Change::FileRequest(request) => {
                self.revisions.remove(&request.id);
                self.filings.take_back(&request.user);
            }
            Change::UpdateRequest { request, .. } => {
                self.revisions
                    .entry(request.id)
                    .and_modify(|revision| *revision -= 1);
            }
            Change::PutRole(_)
            | Change::RemoveRole(_)
            | Change::PutUser(_)
            | Change::ReleaseKeys(_)
            | Change::RemoveUser(_)
            | Change::PutNode(_)
            | Change::RemoveNode(_)
            | Change::PutLock(_)
            | Change::RemoveLock(_)
            | Change::PutResource(_)
            | Change::RemoveResource(..)
            | Change::PutMonitoringRule(_)
            | Change::RemoveMonitoringRule(_)
            | Change::AddToken(_)
            | Change::RemoveToken(_)
            | Change::UseToken { .. }
            | Change::PutAllowance(_)
            | Change::RemoveAllowance(_)
            | Change::Issue(..)
            | Change::RevokeIdentity { .. }
            | Change::RevokeHosts(..)
            | Change::AddDevice(..)
            | Change::SpendStep { .. }
            | Change::RemoveDevice(..)
            | Change::SetFailures(..)
            | Change::StartSession(..)
            | Change::EndSession(..)
            | Change::PutAuthority(_)
            | Change::ForgetAuthority(_)
            | Change::RetireAuthority(_)
            | Change::NoteLearnt(_)
            | Change::NotePresence(_)
            | Change::Log(_) => {}
        }
    }

    /// Writes down what time alone has changed.
    fn let_time_pass(&mut self, due: impl IntoIterator<Item = RequestId>) {
        self.let_locks_end();
        let_allowances_end(self);
        let_tokens_end(self);
        for id in due {
            // Touched in any case, so that its next deadline is worked out.
            self.touched.push(id);
            self.news = News::Look;
            let Some(request) = self.view.request(&id).cloned() else {
                continue;
            };
            if is_over(&request, self.now) {
                self.expire(&request);
            }
        }
    }

    /// Removes locks that have ended. Nothing hangs on it: a decision looks at the time itself.
    fn let_locks_end(&mut self) {
        for id in self.view.locks().ended(self.now) {
            let Some(lock) = self.view.locks().get(&id).cloned() else {
                continue;
            };
            let entry = super::locks::about_lock(Entry::new(Event::LockDelete), &lock);
            self.log(entry.user(PROXY).reason("its time is over"));
            self.remove_lock(id);
        }
    }

    fn expire(&mut self, request: &AccessRequest) {
        match request::apply(request, &Action::Expire, &Actor::Clock, self.now) {
            Ok(expired) => {
                let was = match request.state {
                    RequestState::Pending => "nobody decided in time",
                    RequestState::Approved => "the access has ended",
                    RequestState::Denied
                    | RequestState::Expired
                    | RequestState::Canceled
                    | RequestState::Revoked => "it was over",
                };
                self.log(super::about_request(Event::AccessRequestExpire, &expired).reason(was));
                self.update_request(expired, request.state);
            }
            Err(error) => tracing::error!(request = %request.id, %error, "request does not expire"),
        }
    }
}

/// What the view remembers of a node's host certificate.
fn certified_host(issuance: &Issuance) -> Option<(NodeId, CertifiedHost)> {
    let node = issuance.node.filter(|_| issuance.kind == Kind::Host)?;
    let certified = CertifiedHost {
        serial: issuance.serial,
        key: issuance.subject.parse().ok()?,
        key_type: issuance.host_key_type.clone().unwrap_or_default(),
        valid_before: issuance.valid_before,
    };
    Some((node, certified))
}

/// Whether its time has run out: as `deadline` says, but for the beginning of an access.
fn is_over(request: &AccessRequest, now: OffsetDateTime) -> bool {
    match request.state {
        RequestState::Pending => request.request_expires <= now,
        RequestState::Approved => request.access_expires <= now,
        RequestState::Denied
        | RequestState::Expired
        | RequestState::Canceled
        | RequestState::Revoked => false,
    }
}

/// What the writer knows beside the view.
#[derive(Debug)]
struct Memory {
    view: View,
    revisions: HashMap<RequestId, i64>,
    filings: Filings,
    deadlines: BTreeSet<(OffsetDateTime, RequestId)>,
    deadline_of: HashMap<RequestId, OffsetDateTime>,
    /// Requests that have ended, oldest first, at most [`RECENT`] of them: the view is copied on
    /// each change and must not grow with the years.
    ended: VecDeque<RequestId>,
    last_issued: Option<OffsetDateTime>,
    /// Who signs certificates; `None` until the keys are there.
    authorities: Option<Arc<Authorities>>,
    /// When a shift of an access monitoring rule begins next.
    opening: Option<OffsetDateTime>,
    /// When identity certificates that had ended were last let go of.
    forgot: OffsetDateTime,
}

impl Memory {
    fn of(
        snapshot: Snapshot,
        cluster: ClusterName,
        settings: Settings,
        now: OffsetDateTime,
    ) -> Self {
        let Snapshot {
            roles,
            users,
            nodes,
            locks,
            resources,
            monitoring_rules,
            allowances,
            tokens,
            requests,
            credentials,
            certified_hosts,
            second_factors,
            last_issued,
        } = snapshot;
        for role in &roles {
            if let Some(why) = &role.unreadable {
                tracing::error!(role = %role.name, "a stored role can't be read and denies everything: {why}");
            }
        }
        for rule in &monitoring_rules {
            if let Some(why) = &rule.unreadable {
                tracing::error!(rule = %rule.name, "a stored access monitoring rule can't be read, and no rule approves while it is there: {why}");
            }
        }
        let revisions = requests
            .iter()
            .map(|(request, revision)| (request.id, *revision))
            .collect();
        let mut requests: Vec<AccessRequest> =
            requests.into_iter().map(|(request, _)| request).collect();
        let filings = Filings::of(&requests, now);
        requests.sort_by_key(|request| {
            request
                .resolved
                .as_ref()
                .map_or(request.created, |end| end.at)
        });
        let ids: Vec<RequestId> = requests.iter().map(|request| request.id).collect();
        let view = View::new(cluster, settings)
            .with_roles(roles)
            .with_users(users)
            .with_nodes(nodes)
            .with_locks(locks)
            .with_resources(resources)
            .with_monitoring_rules(monitoring_rules)
            .with_allowances(allowances)
            .with_tokens(tokens)
            .with_requests(requests)
            .with_credentials(credentials)
            .with_certified_hosts(certified_hosts)
            .with_second_factors(second_factors);
        let mut memory = Self {
            view,
            revisions,
            filings,
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
            ended: VecDeque::new(),
            last_issued,
            authorities: None,
            // At once: shifts may have begun while nobody looked.
            opening: Some(now),
            forgot: now,
        };
        memory.look_at(ids, now);
        memory
    }

    fn draft(&self, now: OffsetDateTime, addresses: Arc<NodeAddresses>) -> Draft {
        Draft {
            view: self.view.clone(),
            addresses,
            now,
            last_issued: self.last_issued,
            authorities: self.authorities.clone(),
            revisions: self.revisions.clone(),
            filings: self.filings.clone(),
            changes: Vec::new(),
            touched: Vec::new(),
            news: News::Nothing,
        }
    }

    fn due(&self, now: OffsetDateTime) -> Vec<RequestId> {
        self.deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Whether a shift of an access monitoring rule has begun since the last look.
    fn is_opening(&self, now: OffsetDateTime) -> bool {
        self.opening.is_some_and(|at| at <= now)
    }

    /// Takes over what was committed.
    fn accept(&mut self, draft: Draft) {
        let Draft {
            view,
            addresses: _,
            now,
            last_issued,
            authorities,
            revisions,
            filings,
            changes: _,
            touched,
            news: _,
        } = draft;
        if self.is_opening(now) || !view.has_monitoring_rules_of(&self.view) {
            self.opening = next_opening(&view, now);
        }
        self.view = view;
        self.last_issued = last_issued;
        self.authorities = authorities;
        self.revisions = revisions;
        self.filings = filings;
        self.look_at(touched, now);
        self.forget_credentials(now);
        // What is due after all has just been tried and did not pass: not at once again.
        for id in self.due(now) {
            if let Some(at) = self.deadline_of.insert(id, now + RETRY) {
                self.deadlines.remove(&(at, id));
                self.deadlines.insert((now + RETRY, id));
            }
        }
    }

    /// Lets go of identity certificates that ended long ago, now and then: each look at them all
    /// pays for many logins.
    fn forget_credentials(&mut self, now: OffsetDateTime) {
        if now - self.forgot < REMEMBERED {
            return;
        }
        self.forgot = now;
        let long_over: Vec<u64> = self
            .view
            .credentials()
            .filter(|issued| issued.valid_before <= now - REMEMBERED)
            .map(|issued| issued.serial)
            .collect();
        for serial in long_over {
            self.view = self.view.clone().without_credential(serial);
        }
    }

    /// Works out the deadlines of these requests, and lets go of what ended long ago.
    fn look_at(&mut self, ids: impl IntoIterator<Item = RequestId>, now: OffsetDateTime) {
        for id in ids {
            if let Some(at) = self.deadline_of.remove(&id) {
                self.deadlines.remove(&(at, id));
            }
            let Some(request) = self.view.request(&id) else {
                continue;
            };
            if let Some(at) = request.deadline(now) {
                self.deadline_of.insert(id, at);
                self.deadlines.insert((at, id));
            }
            if !request.state.is_live() && !self.ended.contains(&id) {
                self.ended.push_back(id);
                self.revisions.remove(&id);
            }
        }
        while self.ended.len() > RECENT {
            let Some(oldest) = self.ended.pop_front() else {
                break;
            };
            self.view = self.view.clone().without_request(&oldest);
        }
    }
}

/// The certificates of a user that are to be forgotten: those that count no more first, and of
/// them those that end first.
fn too_many(view: &View, user: &UserName, now: OffsetDateTime) -> Vec<u64> {
    let mut known: Vec<_> = view.credentials_of(user).collect();
    known.sort_by_key(|issued| (issued.is_live(now), issued.valid_before, issued.serial));
    let excess = known.len().saturating_sub(MOST_REMEMBERED);
    let forgotten = known.iter().take(excess);
    forgotten.map(|issued| issued.serial).collect()
}

/// The writer.
pub(super) struct Writer {
    store: Store,
    memory: Memory,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Message>,
}

/// What the writer is told.
pub(super) enum Message {
    /// Write this.
    Job(Box<dyn Job>),
    /// Write what was sent before, close the database, and take no more.
    Stop,
}

/// Whether the writer goes on after a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

impl Writer {
    /// Reads everything, and writes what the start of a proxy writes.
    pub(super) async fn start(
        mut store: Store,
        cluster: ClusterName,
        settings: Settings,
        now: OffsetDateTime,
        first_words: impl FnOnce(&mut Draft),
    ) -> Result<(Store, Started), StoreError> {
        let mut transaction = store.begin().await?;
        match transaction.meta("cluster").await? {
            Some(known) if known == cluster.as_str() => {}
            Some(known) => {
                tracing::warn!(%known, %cluster, "the cluster was renamed; what was granted under the old name no longer counts");
                transaction.set_meta("cluster", cluster.as_str()).await?;
            }
            None => transaction.set_meta("cluster", cluster.as_str()).await?,
        }
        if !transaction.log_ends_at_its_head().await? {
            tracing::error!("the audit log does not end as it did; run `audit verify`");
        }
        let memory = Memory::of(transaction.load(now).await?, cluster.clone(), settings, now);
        let mut draft = memory.draft(now, Arc::default());
        for session in transaction.unended_sessions().await? {
            let Ok(id) = session.id.parse() else { continue };
            let entry = Entry::new(Event::SessionEnd)
                .user(&session.user)
                .node_id(&session.node_id)
                .login(&session.login)
                .session_id(&session.id)
                .reason("the proxy stopped");
            draft.end_session(SessionEnd { id, at: None }, entry);
        }
        first_words(&mut draft);
        draft.let_time_pass(memory.due(now));
        if memory.is_opening(now) {
            review_pending_by_rules(&mut draft);
        }
        let mut memory = memory;
        write(transaction, &draft, &cluster).await?;
        memory.accept(draft);
        Ok((store, Started(memory)))
    }

    pub(super) fn new(
        store: Store,
        started: Started,
        shared: Arc<Shared>,
        jobs: mpsc::Receiver<Message>,
    ) -> Self {
        Self {
            store,
            memory: started.0,
            shared,
            jobs,
        }
    }

    /// Works until it is told to stop, or nobody is left who could send a job.
    pub(super) async fn run(mut self) {
        let mut failed = false;
        loop {
            let (mut group, next) = self.gather(failed).await;
            let committed = self.commit(&mut group).await;
            failed = committed.is_err();
            self.shared.failing.store(failed, Ordering::Relaxed);
            if let Err(error) = &committed {
                tracing::error!(%error, "the store failed; new access is refused until it is back");
                // Whoever watches looks at the time, too: what has ended ends without the store.
                if !self.memory.due(self.shared.clock.now()).is_empty() {
                    self.shared.changes.send_modify(|count| *count += 1);
                }
            }
            for job in group {
                job.reply(committed.clone());
            }
            match next {
                Next::GoOn => {}
                Next::Stop => break,
            }
        }
        self.jobs.close();
        while let Some(message) = self.jobs.recv().await {
            match message {
                Message::Job(job) => job.reply(Err(StoreError::Stopped)),
                Message::Stop => {}
            }
        }
        self.store.close().await;
    }

    /// Waits for a job or for the next instant at which time alone changes something, then takes
    /// whatever else is there.
    async fn gather(&mut self, failed: bool) -> (Vec<Box<dyn Job>>, Next) {
        let clock = Arc::clone(&self.shared.clock);
        let request = self.memory.deadlines.first().map(|(at, _)| *at);
        let lock = self.memory.view.locks().next_end();
        let allowance = self.memory.view.next_end_of_allowance();
        let shift = self.memory.opening;
        let token = self.memory.view.next_end_of_token();
        let deadlines = [request, lock, allowance, token, shift];
        let deadline = deadlines.into_iter().flatten().min();
        let time = async {
            match deadline {
                Some(at) => {
                    if failed {
                        tokio::time::sleep(RETRY).await;
                    }
                    clock.sleep_until(at).await;
                }
                None => std::future::pending().await,
            }
        };
        let mut group = Vec::new();
        tokio::select! {
            message = self.jobs.recv() => match message {
                Some(Message::Job(job)) => group.push(job),
                Some(Message::Stop) | None => return (group, Next::Stop),
            },
            () = time => {}
        }
        while group.len() < GROUP
            && let Ok(message) = self.jobs.try_recv()
        {
            match message {
                Message::Job(job) => group.push(job),
                Message::Stop => return (group, Next::Stop),
            }
        }
        (group, Next::GoOn)
    }

    /// One transaction for the whole group: persist, then speak.
    async fn commit(&mut self, group: &mut [Box<dyn Job>]) -> Result<(), StoreError> {
        let mut transaction = self.store.begin().await?;
        let now = self.shared.clock.now();
        let mut news = News::Nothing;
        if transaction.changed_elsewhere() {
            let view = &self.memory.view;
            let (cluster, settings) = (view.cluster().clone(), view.settings().clone());
            let authorities = self.memory.authorities.clone();
            self.memory = Memory::of(transaction.load(now).await?, cluster, settings, now);
            // The keys are this process's: what somebody else writes changes nothing of them.
            self.memory.authorities = authorities;
            news = News::Look;
        }
        let mut draft = self.memory.draft(now, Arc::clone(&self.shared.addresses));
        draft.let_time_pass(self.memory.due(now));
        if self.memory.is_opening(now) {
            review_pending_by_rules(&mut draft);
        }
        for job in group {
            draft.run(job.as_mut());
        }
        write(transaction, &draft, &self.shared.cluster).await?;
        if draft.news == News::Look {
            news = News::Look;
        }
        self.memory.accept(draft);
        self.publish(news);
        Ok(())
    }

    fn publish(&self, news: News) {
        self.shared
            .authorities
            .store(self.memory.authorities.clone());
        match news {
            News::Nothing => {}
            News::Look => {
                // The view first: whoever is woken must find it.
                self.shared.view.store(Arc::new(self.memory.view.clone()));
                self.shared.changes.send_modify(|count| *count += 1);
            }
        }
    }
}

/// What a start has read, before there is anybody to share it with.
#[derive(Debug)]
pub(super) struct Started(Memory);

impl Started {
    pub(super) fn view(&self) -> View {
        self.0.view.clone()
    }
}

async fn write(
    mut transaction: Transaction<'_>,
    draft: &Draft,
    cluster: &ClusterName,
) -> Result<(), StoreError> {
    if draft.changes.is_empty() {
        return transaction.rollback().await;
    }
    for change in &draft.changes {
        transaction
            .write(change, cluster.as_str(), draft.now)
            .await?;
    }
    transaction.commit().await
}
