//! The life of requests: filing, reviewing, acting on them, finding them.

use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb, allowed};
use anteroom_core::id::{RequestId, UserName};
use anteroom_core::policy::Identity;
use anteroom_core::request::{
    self, AccessRequest, Action, Actor, Filed, FilingError, Mandate, NewRequest, OverrideError,
    Reach, ReviewError as Unreviewed, Reviewed, State as RequestState, TransitionError, Verdict,
    Wanted,
};
use anteroom_core::view::{FindRequestError, View};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use super::allowances::{review_by_allowances, review_joined};
use super::draft::Draft;
use super::monitoring::review_by_rule;
use super::objects::proven;
use super::{By, FromNode, NotAdmitted, State, about_request, not_from_a_node};
use crate::audit::{Entry, Event};
use crate::store::StoreError;

/// Why nothing was filed.
#[derive(Debug, Error)]
pub enum FileError {
    /// It cannot be asked for, or not like this.
    #[error(transparent)]
    Refused(#[from] FilingError),
    /// As many were filed within the last hour as may be.
    #[error(
        "{limit} of your requests were filed within the last hour, which is the limit; the next one can be filed at {}",
        super::rfc3339(*again)
    )]
    TooOften {
        /// How many may be.
        limit: usize,
        /// When there is room for one more.
        again: OffsetDateTime,
    },
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a review was not taken.
#[derive(Debug, Error)]
pub enum ReviewError {
    /// There is no such request.
    #[error("there is no request {0}")]
    NoSuch(RequestId),
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// The reviewer may not review it, or not like this.
    #[error(transparent)]
    Refused(#[from] Unreviewed),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was done to a request.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// There is no such request.
    #[error("there is no request {0}")]
    NoSuch(RequestId),
    /// Who asks may do nothing any more.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// It comes from a registered node.
    #[error(transparent)]
    FromNode(#[from] FromNode),
    /// Only administrators of requests may.
    #[error(
        "only an administrator can have a request {action}; your roles don't allow `{}` on `access_request`",
        verb.as_str()
    )]
    NotAllowed {
        /// What was tried, in the participle.
        action: &'static str,
        /// What their rules would have to allow.
        verb: AdminVerb,
    },
    /// Roles that were not asked for may not be put in.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// The request's state, the time or the person forbids it.
    #[error(transparent)]
    Refused(#[from] TransitionError),
    /// It could not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl State {
    /// Files a request, or finds the one that answers the wish already.
    ///
    /// # Errors
    /// [`FileError`]; nothing is written.
    pub async fn file(&self, identity: &Identity, wanted: Wanted) -> Result<Filed, FileError> {
        let identity = identity.clone();
        self.write(move |draft| {
            let id = RequestId::from_uuid(Uuid::new_v4());
            let filed = request::file(draft.view(), &identity, &wanted, id, draft.now());
            let filed = filed
                .map_err(FileError::from)
                .and_then(|filed| within_the_hour(draft, identity.user(), filed))
                .inspect_err(|error| {
                    let mut entry = Entry::failed(Event::AccessRequestCreate, error)
                        .user(identity.user())
                        .key(identity.key());
                    entry.remote_addr.clone_from(&wanted.remote_addr);
                    draft.log(entry);
                })?;
            Ok(match filed {
                Filed::New(new) => {
                    draft.log(created(&new.request));
                    stored(draft, new)
                }
                Filed::Joined(id) => {
                    review_joined(draft, id);
                    Filed::Joined(id)
                }
                filed @ Filed::Covered(_) => filed,
            })
        })
        .await
    }

    /// Files a request for somebody else, as an administrator.
    ///
    /// # Errors
    /// [`FileError`]; nothing is written but that it was refused.
    pub async fn file_for(
        &self,
        by: &By,
        user: &UserName,
        wanted: Wanted,
    ) -> Result<Filed, FileError> {
        let (by, user) = (by.clone(), user.clone());
        self.write(move |draft| {
            let filed = file_for(draft, &by, &user, &wanted).inspect_err(|error| {
                let mut entry = Entry::failed(Event::AccessRequestCreate, error)
                    .user(&by.actor)
                    .name(&user);
                entry.remote_addr = by.from.map(|from| from.to_string());
                draft.log(entry);
            })?;
            Ok(match filed {
                Filed::New(new) => {
                    let entry = created(&new.request).user(&by.actor).name(&user);
                    draft.log(match by.from {
                        Some(from) => entry.remote_addr(from),
                        None => entry,
                    });
                    stored(draft, new)
                }
                Filed::Joined(id) => {
                    review_joined(draft, id);
                    Filed::Joined(id)
                }
                filed @ Filed::Covered(_) => filed,
            })
        })
        .await
    }

    /// Counts a review.
    ///
    /// # Errors
    /// [`ReviewError`]; the request is as it was, and the attempt is in the log.
    pub async fn review(
        &self,
        reviewer: &Identity,
        id: RequestId,
        verdict: Verdict,
        reason: &str,
        from: Option<SocketAddr>,
    ) -> Result<Reviewed, ReviewError> {
        let (by, reason) = (By::user(reviewer.clone(), from), reason.to_owned());
        let reviewer = reviewer.user().clone();
        self.write(move |draft| {
            let proposed = match &verdict {
                Verdict::Approve(_) => RequestState::Approved,
                Verdict::Deny => RequestState::Denied,
            };
            let entry = by
                .entry(Event::AccessRequestReview)
                .request_id(id)
                .proposed_state(proposed);
            let reviewed =
                review(draft, &by, &reviewer, id, verdict, &reason).inspect_err(|error| {
                    draft.log(entry.clone().refused(error));
                })?;
            draft.log(entry.state(reviewed.request.state).reason(&reason));
            Ok(reviewed)
        })
        .await
    }

    /// Does something else to a request. An action that only administrators of requests may take
    /// is refused to others, by their stored roles at this moment.
    ///
    /// # Errors
    /// [`ApplyError`]; the request is as it was, and the attempt is in the log.
    pub async fn apply(
        &self,
        by: &By,
        id: RequestId,
        action: Action,
    ) -> Result<Arc<AccessRequest>, ApplyError> {
        self.apply_for(by, id, action, Mandate::default()).await
    }

    /// Takes back what the request granted, or denies what is pending, for somebody whose roles
    /// allow `delete`. A request that has ended is answered as by [`State::apply`].
    ///
    /// # Errors
    /// [`ApplyError`]; the request is as it was, and the attempt is in the log.
    pub async fn take_away(
        &self,
        by: &By,
        id: RequestId,
        reason: String,
    ) -> Result<Arc<AccessRequest>, ApplyError> {
        let action = match self.request(id).await?.map(|request| request.state) {
            Some(RequestState::Pending) => Action::Deny { reason },
            Some(
                RequestState::Approved
                | RequestState::Denied
                | RequestState::Expired
                | RequestState::Canceled
                | RequestState::Revoked,
            )
            | None => Action::Revoke { reason },
        };
        self.act(by, AdminVerb::Delete, id, action, Mandate::default())
            .await
    }

    /// The same as [`State::apply`], with what the administrator says about the decision.
    ///
    /// # Errors
    /// [`ApplyError`]; the request is as it was, and the attempt is in the log.
    pub async fn apply_for(
        &self,
        by: &By,
        id: RequestId,
        action: Action,
        mandate: Mandate,
    ) -> Result<Arc<AccessRequest>, ApplyError> {
        self.act(by, AdminVerb::Update, id, action, mandate).await
    }

    async fn act(
        &self,
        by: &By,
        verb: AdminVerb,
        id: RequestId,
        action: Action,
        mandate: Mandate,
    ) -> Result<Arc<AccessRequest>, ApplyError> {
        let by = by.clone();
        self.write(move |draft| {
            // What is taken away is so by somebody whose roles allow `delete`.
            let event = match verb {
                AdminVerb::Delete => Event::AccessRequestDelete,
                AdminVerb::List | AdminVerb::Read | AdminVerb::Create | AdminVerb::Update => {
                    Event::AccessRequestUpdate
                }
            };
            let mut entry = by.entry(event).request_id(id);
            entry.delegator = mandate.delegator.as_ref().map(ToString::to_string);
            entry.annotations = annotations(&mandate.annotations);
            if let Action::Override { roles, .. } = &action {
                entry.roles = roles.iter().map(ToString::to_string).collect();
            }
            let request = apply(draft, &by, verb, id, &action, &mandate).inspect_err(|error| {
                draft.log(entry.clone().refused(error));
            })?;
            let reason = match &action {
                Action::Approve { reason, .. }
                | Action::Override { reason, .. }
                | Action::Deny { reason }
                | Action::Revoke { reason }
                    if !reason.is_empty() =>
                {
                    reason
                }
                Action::Approve { .. }
                | Action::Override { .. }
                | Action::Deny { .. }
                | Action::Revoke { .. }
                | Action::Cancel
                | Action::Expire
                | Action::Drop { .. }
                | Action::Assume { .. }
                | Action::End => action.as_participle(),
            };
            let entry = entry
                .state(request.state)
                .name(action.as_participle())
                .reason(reason);
            draft.log(match &action {
                Action::Drop { key } | Action::Assume { key } => entry.key(key),
                Action::Approve { .. }
                | Action::Override { .. }
                | Action::Deny { .. }
                | Action::Revoke { .. }
                | Action::Cancel
                | Action::Expire
                | Action::End => entry,
            });
            Ok(Arc::new(request))
        })
        .await
    }

    /// The request of that ID, however long ago it ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn request(&self, id: RequestId) -> Result<Option<Arc<AccessRequest>>, StoreError> {
        if let Some(request) = self.view().request(&id) {
            return Ok(Some(Arc::clone(request)));
        }
        Ok(self.reader().request(id).await?.map(Arc::new))
    }

    /// The one request whose ID begins with `prefix`, among those that `visible` lets the asker
    /// see: what she may not see makes nothing ambiguous. However long ago it ended.
    ///
    /// # Errors
    /// [`FindRequestError`] in the inner result; [`StoreError`] in the outer.
    pub async fn find_request(
        &self,
        prefix: &str,
        visible: impl Fn(&AccessRequest) -> bool,
    ) -> Result<Result<Arc<AccessRequest>, FindRequestError>, StoreError> {
        // What memory holds decides on malformed and ambiguous ones; the database knows more.
        let view = self.view();
        if let Err(error @ (FindRequestError::Malformed(_) | FindRequestError::Ambiguous { .. })) =
            view.find_request(prefix, &visible)
        {
            return Ok(Err(error));
        }
        let found = self.reader().requests_starting_with(prefix).await?;
        let past = View::new(self.cluster().clone(), view.settings().clone()).with_requests(found);
        Ok(past.find_request(prefix, visible).cloned())
    }
}

/// Holds a new request to how many of one user are filed within an hour. What it joins costs nothing.
fn within_the_hour(draft: &Draft, user: &UserName, filed: Filed) -> Result<Filed, FileError> {
    match (&filed, draft.filed_too_often(user)) {
        (Filed::New(_), Some(again)) => Err(FileError::TooOften {
            limit: draft.view().settings().filed_per_hour,
            again,
        }),
        (Filed::New(_), None) | (Filed::Joined(_) | Filed::Covered(_), _) => Ok(filed),
    }
}

/// Stores a new request, and has it reviewed by access monitoring rules and by pre-approvals in the
/// same transaction: rules first, since one that denies is final.
fn stored(draft: &mut Draft, mut new: Box<NewRequest>) -> Filed {
    draft.file_request(new.request.clone());
    new.request = review_by_rule(draft, new.request);
    new.request = review_by_allowances(draft, new.request);
    Filed::New(new)
}

fn review(
    draft: &mut Draft,
    by: &By,
    reviewer: &UserName,
    id: RequestId,
    verdict: Verdict,
    reason: &str,
) -> Result<Reviewed, ReviewError> {
    let request = draft
        .view()
        .request(&id)
        .cloned()
        .ok_or(ReviewError::NoSuch(id))?;
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    by.admit_as_reviewer(draft.view())?;
    let reviewed = request::review(
        draft.view(),
        reviewer,
        &request,
        verdict,
        reason,
        draft.now(),
    )?;
    draft.update_request(reviewed.request.clone(), request.state);
    Ok(reviewed)
}

fn apply(
    draft: &mut Draft,
    by: &By,
    verb: AdminVerb,
    id: RequestId,
    action: &Action,
    mandate: &Mandate,
) -> Result<AccessRequest, ApplyError> {
    let request = draft
        .view()
        .request(&id)
        .cloned()
        .ok_or(ApplyError::NoSuch(id))?;
    by.admit(draft)?;
    may_act(draft, by, verb, &request, action)?;
    if let Action::Override { roles, .. } = action {
        request::check_override(draft.view(), &by.actor, &request, roles)?;
    }
    let next = request::apply_for(&request, action, &by.actor, mandate, draft.now())?;
    draft.update_request(next.clone(), request.state);
    Ok(next)
}

/// Whether such an action on this request is the actor's to take, and from there; whether it can
/// be taken, `core` says. What a requester does with a request of her own is no administration.
fn may_act(
    draft: &Draft,
    by: &By,
    verb: AdminVerb,
    request: &AccessRequest,
    action: &Action,
) -> Result<(), ApplyError> {
    match action {
        Action::Approve { .. }
        | Action::Override { .. }
        | Action::Deny { .. }
        | Action::Revoke { .. } => {
            by.admit_as_reviewer(draft.view())?;
            not_from_a_node(draft, by.from)?;
        }
        Action::Cancel
        | Action::Expire
        | Action::Drop { .. }
        | Action::Assume { .. }
        | Action::End => return Ok(()),
    }
    let view = draft.view();
    match &by.actor {
        Actor::User(name)
            if allowed(view, name, verb, AdminObject::AccessRequest(request))
                && proven(view, by) =>
        {
            Ok(())
        }
        Actor::LocalAdministrator | Actor::Clock => Ok(()),
        // A rule reviews, and does nothing else.
        Actor::User(_) | Actor::Rule(_) => Err(ApplyError::NotAllowed {
            action: action.as_participle(),
            verb,
        }),
    }
}

fn file_for(
    draft: &mut Draft,
    by: &By,
    user: &UserName,
    wanted: &Wanted,
) -> Result<Filed, FileError> {
    by.admit(draft)?;
    not_from_a_node(draft, by.from)?;
    let id = RequestId::from_uuid(Uuid::new_v4());
    let filed = request::file_for(draft.view(), user, &by.actor, wanted, id, draft.now())?;
    Ok(filed)
}

/// Attributes as one text, for the log.
fn annotations(of: &request::Annotations) -> Option<String> {
    let pairs = of
        .iter()
        .flat_map(|(key, values)| values.iter().map(move |value| format!("{key}={value}")));
    let pairs: Vec<String> = pairs.collect();
    (!pairs.is_empty()).then(|| pairs.join(","))
}

fn created(request: &AccessRequest) -> Entry {
    let mut entry = about_request(Event::AccessRequestCreate, request);
    entry.key = request.key.as_ref().map(ToString::to_string);
    entry.annotations = annotations(&request.system_annotations);
    if let Some(command) = request.scope.command() {
        entry = entry.name(format!("only the command: {command}"));
    }
    entry.command.clone_from(&request.command);
    entry.reason = Some(request.reason.clone()).filter(|reason| !reason.is_empty());
    entry.roles = request.roles.iter().map(ToString::to_string).collect();
    entry.resource_ids = match &request.reach {
        Reach::Roles => Vec::new(),
        Reach::Resources(ids) => ids.iter().map(ToString::to_string).collect(),
    };
    entry
}
