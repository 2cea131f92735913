//! Requests as scripts see them.

use std::collections::{BTreeMap, BTreeSet};

use anteroom_core::policy::Preview;
use anteroom_core::request::{
    AccessRequest, Annotations, Author, Effect, Reach, Review, State as RequestState, Verdict,
};
use anteroom_core::role::DurationFrom;
use serde::Serialize;

use crate::admin::run::actor;
use crate::say;

/// A request as scripts see it; names as Teleport's where it has one.
#[derive(Debug, Serialize)]
pub(crate) struct RequestRow {
    id: String,
    user: String,
    roles: Vec<String>,
    state: &'static str,
    resource_ids: Vec<String>,
    /// What a reviewer may see of them, when one request is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_details: Vec<ResourceDetailRow>,
    created: String,
    /// When access ends.
    expires: String,
    /// When it lapses while pending.
    request_expires: String,
    request_reason: String,
    reason: String,
    /// Who filed it, if that was somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    filed_by: Option<String>,
    /// `command` where the grant is bound to the one command beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope_command: Option<String>,
    suggested_reviewers: Vec<String>,
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    system_annotations: anteroom_core::request::Annotations,
    reviews: Vec<ReviewRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_duration: Option<String>,
    /// `approval`, where the access is counted from there; `expires` is then known after it only,
    /// and shows before when the access would end if it were approved at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_from: Option<&'static str>,
    session_ttl: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    assume_start_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<String>,
    /// Connections that wait for it now, while it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<GrantedRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolved: Option<ResolvedRow>,
}

#[derive(Debug, Serialize)]
struct ReviewRow {
    author: String,
    proposed_state: &'static str,
    reason: String,
    created: String,
    counted: bool,
    /// Whether a rule or a pre-approval gave it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    automatic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pre_approval: Option<String>,
    /// In what an approval is less than was asked; absent where it is not.
    #[serde(flatten)]
    terms: TermsRow,
}

#[derive(Debug, Default, Serialize)]
struct TermsRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_ids: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    assume_start_time: Option<String>,
    /// When it is over, however late it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

impl TermsRow {
    fn new(verdict: &Verdict) -> Self {
        let Verdict::Approve(terms) = verdict else {
            return Self::default();
        };
        Self {
            roles: terms.roles.as_ref().map(strings),
            resource_ids: terms.resources.as_ref().map(strings),
            max_duration: terms.max_duration.map(anteroom_core::duration::format),
            assume_start_time: terms.assume_start.map(say::rfc3339),
            until: terms.until.map(say::rfc3339),
        }
    }
}

#[derive(Debug, Serialize)]
struct ResourceDetailRow {
    id: String,
    name: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct GrantedRow {
    roles: Vec<String>,
    resource_ids: Vec<String>,
    created: String,
    /// Those of the roles that were not asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    overridden_roles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ResolvedRow {
    by: String,
    created: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    delegator: Option<String>,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: Annotations,
}

impl RequestRow {
    pub(crate) fn new(request: &AccessRequest) -> Self {
        Self {
            id: request.id.to_string(),
            user: request.user.to_string(),
            roles: strings(&request.roles),
            state: request.state.as_str(),
            resource_ids: resources(&request.reach),
            resource_details: Vec::new(),
            created: say::rfc3339(request.created),
            expires: say::rfc3339(request.access_expires),
            request_expires: say::rfc3339(request.request_expires),
            request_reason: request.reason.clone(),
            reason: request.reason.clone(),
            filed_by: request.filed_by.as_ref().map(actor),
            scope: request.scope.command().map(|_| "command"),
            scope_command: request.scope.command().map(str::to_owned),
            suggested_reviewers: strings(&request.suggested_reviewers),
            system_annotations: request.system_annotations.clone(),
            reviews: request.reviews.iter().map(ReviewRow::new).collect(),
            max_duration: request.max_duration.map(anteroom_core::duration::format),
            duration_from: match request.duration_from {
                DurationFrom::Creation => None,
                DurationFrom::Approval => Some("approval"),
            },
            session_ttl: anteroom_core::duration::format(request.session_ttl),
            assume_start_time: request.assume_start.map(say::rfc3339),
            command: request.command.clone(),
            remote_addr: request.remote_addr.clone(),
            waiting: None,
            granted: request.granted.as_ref().map(|granted| GrantedRow {
                roles: strings(&granted.roles),
                resource_ids: resources(&granted.reach),
                created: say::rfc3339(granted.at),
                overridden_roles: strings(&granted.overridden),
            }),
            resolved: request.resolved.as_ref().map(|end| ResolvedRow {
                by: actor(&end.by),
                created: say::rfc3339(end.at),
                reason: end.reason.clone(),
                delegator: end.delegator.as_ref().map(ToString::to_string),
                annotations: end.annotations.clone(),
            }),
        }
    }

    /// The same, with how many connections wait for it.
    pub(super) fn waited_for(self, waiting: Option<u32>) -> Self {
        Self { waiting, ..self }
    }

    /// The same, with what the caller may see of its resources.
    pub(super) fn previewed(self, previews: &[Preview]) -> Self {
        let detail = |preview: &Preview| ResourceDetailRow {
            id: preview.id.to_string(),
            name: preview.name.clone(),
            labels: preview.labels.clone(),
        };
        Self {
            resource_details: previews.iter().map(detail).collect(),
            ..self
        }
    }
}

impl ReviewRow {
    fn new(review: &Review) -> Self {
        Self {
            author: review.author.to_string(),
            proposed_state: match review.verdict {
                Verdict::Approve(_) => RequestState::Approved.as_str(),
                Verdict::Deny => RequestState::Denied.as_str(),
            },
            reason: review.reason.clone(),
            created: say::rfc3339(review.created),
            counted: match review.effect {
                Effect::Counted => true,
                Effect::Ineffectual => false,
            },
            automatic: match (&review.author, review.allowance) {
                (Author::Rule(_), _) | (Author::User(_), Some(_)) => true,
                (Author::User(_), None) => false,
            },
            pre_approval: review.allowance.map(|id| id.to_string()),
            terms: TermsRow::new(&review.verdict),
        }
    }
}

pub(crate) fn strings<T: ToString>(items: &BTreeSet<T>) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn resources(reach: &Reach) -> Vec<String> {
    reach.resources().map(ToString::to_string).collect()
}
