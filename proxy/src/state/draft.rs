//! The state as it will be when the transaction is committed: each operation changes the view and notes
//! what is to be written, so that memory and disk are told the same.
//!
//! A job that is refused, or panics, leaves nothing here but what it logged as failed.

mod lapse;
pub(super) mod memory;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anteroom_core::allowance::Allowance;
use anteroom_core::credential::IssuedCredential;
use anteroom_core::id::{
    AllowanceId, DeviceName, LockId, NodeId, RequestId, ResourceName, RoleName, RuleName, TokenId,
    UserName,
};
use anteroom_core::lock::Lock;
use anteroom_core::mfa::{Device, Failures, SecondFactors};
use anteroom_core::monitoring::MonitoringRule;
use anteroom_core::node::Node;
use anteroom_core::request::{AccessRequest, State as RequestState};
use anteroom_core::resource::{Kind as ResourceKind, Resource};
use anteroom_core::role::Role;
use anteroom_core::token::Token;
use anteroom_core::user::User;
use anteroom_core::view::{CertifiedHost, Settings, View};
use time::OffsetDateTime;

use super::NodeAddresses;
use super::filings::Filings;
use super::job::{Job, Kept};
use crate::audit::{Entry, Outcome};
use crate::authority::{Authorities, AuthorityKind, Record, Retired};
use crate::store::{
    Change, HostRevocation, Issuance, Kind, Learnt, MOST_REMEMBERED, NodeSource, SeenNode,
    SessionEnd, SessionStart,
};

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
    pub(super) changes: Vec<Change>,
    touched: Vec<RequestId>,
    pub(super) news: News,
}

/// Whether decisions may come out differently after the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
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

    pub(super) fn note_presence(&mut self, seen: Vec<SeenNode>, from: Vec<NodeSource>) {
        self.push(Change::NotePresence(seen, from));
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
    pub(super) fn run(&mut self, job: &mut dyn Job) {
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
            | Change::NotePresence(..)
            | Change::Log(_) => {}
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

/// The certificates of a user that are to be forgotten: those that count no more first, and of
/// them those that end first.
fn too_many(view: &View, user: &UserName, now: OffsetDateTime) -> Vec<u64> {
    let mut known: Vec<_> = view.credentials_of(user).collect();
    known.sort_by_key(|issued| (issued.is_live(now), issued.valid_before, issued.serial));
    let excess = known.len().saturating_sub(MOST_REMEMBERED);
    let forgotten = known.iter().take(excess);
    forgotten.map(|issued| issued.serial).collect()
}
