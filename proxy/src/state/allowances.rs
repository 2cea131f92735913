//! Pre-approvals: giving and taking them back, and giving the reviews that they give.
//!
//! They review in the transaction that files a request or joins one, after the access monitoring
//! rules, and what is pending is looked at in the one that writes a pre-approval.

use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb, allowed};
use anteroom_core::allowance::{AllowError as Unallowed, Allowance, Covers, GivenBy};
use anteroom_core::id::{AllowanceId, RequestId, UserName};
use anteroom_core::policy::Identity;
use anteroom_core::request::{
    self, AccessRequest, Actor, Author, Automatic, AutomaticReview, State as RequestState, Verdict,
};
use anteroom_core::view::View;
use thiserror::Error;
use time::Duration;
use uuid::Uuid;

use super::draft::Draft;
use super::{By, FromNode, NotAdmitted, State, not_from_a_node, rfc3339};
use crate::audit::{Entry, Event, PROXY};
use crate::store::StoreError;

/// Why no pre-approval was given.
#[derive(Debug, Error)]
pub enum AllowError {
    /// Who gives it may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// It may not be given, or not like this.
    #[error(transparent)]
    Refused(#[from] Unallowed),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a pre-approval was not taken back.
#[derive(Debug, Error)]
pub enum DisallowError {
    /// Who takes it back may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// There is none of that ID that the asker may know of.
    #[error("there is no pre-approval `{0}`; `request allows ls` shows those you may see")]
    NoSuch(String),
    /// It is somebody else's.
    #[error(
        "pre-approval {id} is {author}'s; only {author} or an administrator of requests can take it back"
    )]
    NotYours {
        /// Which.
        id: AllowanceId,
        /// Whose.
        author: UserName,
    },
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pre-approval that was just given.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// As it is kept.
    pub allowance: Arc<Allowance>,
    /// The requests that were pending and that it reviewed at once, as they are now.
    pub reviewed: Vec<Arc<AccessRequest>>,
}

impl State {
    /// Gives a pre-approval in the name of who asks, for `lasts` from now.
    ///
    /// # Errors
    /// [`AllowError`]; nothing is written but that it was refused.
    pub async fn allow(
        &self,
        author: &Identity,
        user: &UserName,
        covers: Covers,
        lasts: Duration,
        reason: &str,
        from: Option<SocketAddr>,
    ) -> Result<Allowed, AllowError> {
        let by = By::user(author.clone(), from);
        let key = author.key().clone();
        let certificate = author.credential().map(|held| GivenBy {
            serial: held.serial,
            key: held.key.clone(),
        });
        let (author, user, reason) = (author.user().clone(), user.clone(), reason.to_owned());
        self.write(move |draft| {
            let now = draft.now();
            let allowance = Allowance {
                id: AllowanceId::from_uuid(Uuid::new_v4()),
                author,
                key,
                certificate,
                user,
                covers,
                reason,
                created: now,
                ends: now.saturating_add(lasts),
            };
            let entry = about(by.entry(Event::PreApprovalCreate), &allowance).key(&allowance.key);
            allow(draft, &by, &allowance).inspect_err(|error| {
                draft.log(entry.clone().refused(error));
            })?;
            draft.log(entry);
            let reviewed = review_pending(draft, &allowance);
            Ok(Allowed {
                allowance: Arc::new(allowance),
                reviewed,
            })
        })
        .await
    }

    /// Takes pre-approvals back, all or none. What they granted stays.
    ///
    /// # Errors
    /// [`DisallowError`] names the first that cannot be; nothing is written but that it was refused.
    pub async fn disallow(&self, by: &By, ids: Vec<AllowanceId>) -> Result<(), DisallowError> {
        let by = by.clone();
        self.write(move |draft| {
            disallow(draft, &by, &ids).inspect_err(|error| {
                let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
                let entry = by
                    .entry(Event::PreApprovalDelete)
                    .pre_approval_id(ids.join(","));
                draft.log(entry.refused(error));
            })
        })
        .await
    }
}

fn allow(draft: &mut Draft, by: &By, allowance: &Allowance) -> Result<(), AllowError> {
    by.admit(draft)?;
    by.admit_as_reviewer(draft.view())?;
    not_from_a_node(draft, by.from)?;
    allowance.check(draft.view(), draft.now())?;
    draft.put_allowance(allowance.clone());
    Ok(())
}

/// Reviews what is pending already as it would have been reviewed when it was filed.
fn review_pending(draft: &mut Draft, allowance: &Allowance) -> Vec<Arc<AccessRequest>> {
    let (view, now) = (draft.view(), draft.now());
    let covered: Vec<Arc<AccessRequest>> = view
        .live_requests_of(&allowance.user)
        .filter(|request| allowance.speaks(view, request, now))
        .cloned()
        .collect();
    let by_it = |request: &AccessRequest| {
        let mut reviews = request.reviews.iter();
        reviews.any(|review| review.allowance == Some(allowance.id))
    };
    covered
        .iter()
        .map(|request| review_by_allowances(draft, AccessRequest::clone(request)))
        .filter(by_it)
        .map(Arc::new)
        .collect()
}

fn disallow(draft: &mut Draft, by: &By, ids: &[AllowanceId]) -> Result<(), DisallowError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    for id in ids {
        let view = draft.view();
        let found = view
            .allowance(id)
            .filter(|found| sees_allowance(view, &by.actor, found))
            .cloned()
            .ok_or_else(|| DisallowError::NoSuch(id.to_string()))?;
        if !may_disallow(view, &by.actor, &found) {
            return Err(DisallowError::NotYours {
                id: *id,
                author: found.author.clone(),
            });
        }
        draft.log(about(by.entry(Event::PreApprovalDelete), &found));
        draft.remove_allowance(*id);
    }
    Ok(())
}

/// Whether somebody may know of a pre-approval: its author, its user, and administrators of requests.
fn sees_allowance(view: &View, who: &Actor, allowance: &Allowance) -> bool {
    match who {
        Actor::User(name) => {
            allowance.author == *name
                || allowance.user == *name
                || allowed(
                    view,
                    name,
                    AdminVerb::Read,
                    AdminObject::RequestsOf(&allowance.user),
                )
        }
        Actor::LocalAdministrator => true,
        Actor::Rule(_) | Actor::Clock => false,
    }
}

/// Its author takes it back whatever his roles have become: that gives nobody anything.
fn may_disallow(view: &View, who: &Actor, allowance: &Allowance) -> bool {
    match who {
        Actor::User(name) => {
            allowance.author == *name
                || allowed(
                    view,
                    name,
                    AdminVerb::Update,
                    AdminObject::RequestsOf(&allowance.user),
                )
        }
        Actor::LocalAdministrator | Actor::Clock => true,
        Actor::Rule(_) => false,
    }
}

/// Takes back what a user who is removed has given or been given: who is created under the name
/// later is somebody else.
pub(super) fn end_allowances_of(draft: &mut Draft, by: &By, user: &UserName) {
    let view = draft.view();
    let all = view.allowances_for(user).chain(view.allowances_of(user));
    let all: Vec<Arc<Allowance>> = all.cloned().collect();
    for allowance in all {
        let entry = about(by.entry(Event::PreApprovalDelete), &allowance);
        draft.log(entry.reason("the user was removed"));
        draft.remove_allowance(allowance.id);
    }
}

/// Removes pre-approvals that have ended. Nothing hangs on it: whoever asks them looks at the time.
pub(super) fn let_allowances_end(draft: &mut Draft) {
    for id in draft.view().ended_allowances(draft.now()) {
        let Some(allowance) = draft.view().allowance(&id).cloned() else {
            continue;
        };
        let entry = about(Entry::new(Event::PreApprovalDelete), &allowance);
        draft.log(entry.user(PROXY).reason("its time is over"));
        draft.remove_allowance(id);
    }
}

/// Gives the reviews that pre-approvals give this request now; the request as it is then. The draft
/// has it already.
pub(super) fn review_by_allowances(draft: &mut Draft, request: AccessRequest) -> AccessRequest {
    let reviews = request::allowance_reviews(draft.view(), &request, draft.now());
    reviews
        .into_iter()
        .fold(request, |request, review| keep(draft, request, review))
}

/// Keeps a review that was given by itself, and logs it; the request as it is then.
pub(super) fn keep(
    draft: &mut Draft,
    request: AccessRequest,
    review: AutomaticReview,
) -> AccessRequest {
    let AutomaticReview {
        by,
        verdict,
        reason,
        outcome,
    } = review;
    let proposed = match verdict {
        Verdict::Approve(_) => RequestState::Approved,
        Verdict::Deny => RequestState::Denied,
    };
    let (author, automatic) = match &by {
        Automatic::Rule(rule) => (
            Author::Rule(rule.name.clone()),
            format!("access_monitoring_rule/{}", rule.name),
        ),
        Automatic::Allowance(allowance) => (
            Author::User(allowance.author.clone()),
            format!("pre_approval/{}", allowance.id),
        ),
    };
    let entry = Entry::new(Event::AccessRequestReview)
        .user(author)
        .request_id(request.id)
        .proposed_state(proposed)
        .automatic(automatic);
    match outcome {
        Ok(reviewed) => {
            let entry = entry.state(reviewed.state);
            draft.log(if reason.is_empty() {
                entry
            } else {
                entry.reason(reason)
            });
            draft.update_request(reviewed.clone(), request.state);
            reviewed
        }
        Err(error) => {
            // It waits for a person, as if nothing spoke.
            draft.log(entry.refused(error));
            request
        }
    }
}

/// Reviews a pending request that is joined by pre-approvals that cover it by now: a node may have
/// been given a label, or an author the right, since it was filed.
pub(super) fn review_joined(draft: &mut Draft, id: RequestId) {
    if let Some(request) = draft.view().request(&id).cloned() {
        review_by_allowances(draft, AccessRequest::clone(&request));
    }
}

/// What the log says of a pre-approval.
fn about(entry: Entry, allowance: &Allowance) -> Entry {
    let mut entry = entry
        .pre_approval_id(allowance.id)
        .name(&allowance.user)
        .expires(rfc3339(allowance.ends));
    if !allowance.reason.is_empty() {
        entry = entry.reason(&allowance.reason);
    }
    match &allowance.covers {
        Covers::Nodes {
            labels,
            logins,
            roles,
        } => {
            let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
            entry.labels = Some(pairs.collect::<Vec<_>>().join(","));
            entry.login = logins.as_ref().map(|logins| {
                let logins: Vec<String> = logins.iter().map(ToString::to_string).collect();
                logins.join(",")
            });
            entry.roles = roles.iter().flatten().map(ToString::to_string).collect();
        }
        Covers::Roles(roles) => entry.roles = roles.iter().map(ToString::to_string).collect(),
    }
    entry
}
