//! Why a wish became no request, in sentences that say what to do.

use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};

use crate::duration::{format as format_duration, format_instant};
use crate::id::{Login, RequestId, ResourceId, RoleName};
use crate::policy::Reason;

/// Why a wish became no request. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilingError {
    /// The user may do nothing at all (locked, removed).
    #[error("{}", .0.as_sentence())]
    Refused(Reason),
    /// Only administrators of requests file for others.
    #[error(
        "only an administrator can file a request for somebody; none of your roles allows `create` on such an `access_request`"
    )]
    NotAllowed,
    /// No role and no resource.
    #[error("nothing is asked for; name a resource with --resource or a role with --roles")]
    NothingWanted,
    /// A role that does not exist or may not be asked for; which of them is not said.
    #[error("role `{0}` can't be asked for; `request search --roles` shows the roles that can")]
    RoleNotRequestable(RoleName),
    /// A role that may not be asked for resources through.
    #[error(
        "resources can't be asked for through role `{0}`; leave --roles out to have the roles chosen"
    )]
    RoleNotSearchable(RoleName),
    /// The user has the role.
    #[error("you have role `{0}` already")]
    RoleHeld(RoleName),
    /// Given roles that open none of the resources.
    #[error("role `{0}` grants none of the resources; leave --roles out to have the roles chosen")]
    RoleDoesNotHelp(RoleName),
    /// A resource that does not exist or may not be known; which of them is not said.
    #[error(
        "there is no resource `{0}` that you may ask for; `request search --kind {kind}` shows those you may",
        kind = .0.kind().searched_as()
    )]
    UnknownResource(ResourceId),
    /// Objects in a Kubernetes cluster, or all of it, that no role to ask through grants.
    #[error(
        "no role that you may ask through grants all of `{0}`; `request search --kind kube_resource --kube-cluster {cluster}` shows what they grant",
        cluster = .0.registered().map_or("NAME", |(_, name)| name)
    )]
    NotGranted(ResourceId),
    /// Kinds of objects that the user's roles don't let her ask for.
    #[error("`{resource}` can't be asked for: in a Kubernetes cluster your roles let you ask for {}", kinds(.possible, .never))]
    KubeKinds {
        /// What was asked for.
        resource: Box<ResourceId>,
        /// The kinds that may be, as in `deployments.apps`; empty where all may be.
        possible: BTreeSet<String>,
        /// The kinds that may not be.
        never: BTreeSet<String>,
    },
    /// A login that no role grants there.
    #[error("login `{login}` can't be asked for on `{resource}`; those that can are: {}", list(.possible))]
    LoginNotRequestable {
        /// The resource.
        resource: Box<ResourceId>,
        /// The login.
        login: Login,
        /// The logins that work or can be asked for.
        possible: BTreeSet<Login>,
    },
    /// Roles that are needed together deny what each other grants.
    #[error(
        "`{0}` can't be asked for together with the rest: a role that the rest needs denies it; file two requests"
    )]
    RolesConflict(ResourceId),
    /// One command of a role as a whole.
    #[error(
        "a scope of one command needs the node it runs on; name it with --resource, or leave the scope out"
    )]
    ScopeWithoutResource,
    /// A command that no certificate can carry.
    #[error(
        "a scope of one command takes a command of 1 to {limit} bytes, without a null character; this one has {bytes} bytes"
    )]
    ScopeCommand {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// Everything wanted works already.
    #[error("you can reach {} already{}", list(.0), if .0.iter().any(|id| id.node_id().is_some()) { "; connect with ssh" } else { "" })]
    Reachable(Vec<ResourceId>),
    /// More resources than the limit.
    #[error(
        "{count} resources are asked for; the limit is {limit}, so ask for a role instead or split the request"
    )]
    TooManyResources {
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// Resource IDs too long together.
    #[error("the resource IDs take {bytes} bytes; the limit is {limit}, so split the request")]
    ResourcesTooLong {
        /// Their sum.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The reason is too long.
    #[error("the reason is {bytes} bytes long; the limit is {limit}")]
    ReasonTooLong {
        /// Its length.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// A role demands a reason.
    #[error("a reason is required{}; give one with --reason or SetEnv ANTEROOM_REASON=…", asked(.prompt.as_deref()))]
    ReasonRequired {
        /// What the role says to prompt with.
        prompt: Option<String>,
    },
    /// An equal request is pending, and has no reason; by now a role demands one.
    #[error(
        "request {0} is pending without a reason, and one is required by now; withdraw it with `request cancel {0}` and ask again with a reason"
    )]
    PendingWithoutReason(RequestId),
    /// Too many reviewers suggested.
    #[error("{count} reviewers are suggested; the limit is {limit}")]
    TooManyReviewers {
        /// How many.
        count: usize,
        /// The most.
        limit: usize,
    },
    /// The user's roles and traits write too much on it.
    #[error(
        "your roles' request.annotations take {bytes} bytes with your traits in them; the limit is {limit}, so an administrator has to shorten them"
    )]
    AnnotationsTooLong {
        /// Their sum.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The user's pending requests reached the cap.
    #[error(
        "{limit} of your requests are pending, which is the limit; cancel one with `request cancel ID`"
    )]
    TooManyPending {
        /// The most.
        limit: usize,
    },
    /// The certificate that was presented has less than a second left.
    #[error("your certificate ends within a second; get another one with `login`")]
    CertificateEnding,
    /// `assume_start` is in the past.
    #[error("the start {} is over; it is now {}", format_instant(*.start), format_instant(*.now))]
    StartInPast {
        /// The start.
        start: OffsetDateTime,
        /// The present.
        now: OffsetDateTime,
    },
    /// `assume_start` is too far ahead.
    #[error("the start {} is more than {} ahead", format_instant(*.start), format_duration(*.limit))]
    StartTooFar {
        /// The start.
        start: OffsetDateTime,
        /// How far ahead it may be.
        limit: Duration,
    },
    /// The access would be over before it starts.
    #[error("the access would end at {}, not after its start at {}", format_instant(*.end), format_instant(*.start))]
    StartsAfterEnd {
        /// The start.
        start: OffsetDateTime,
        /// The end.
        end: OffsetDateTime,
    },
}

/// What a role says to prompt with, inside the sentence about the missing reason.
fn asked(prompt: Option<&str>) -> String {
    prompt.map_or_else(String::new, |prompt| format!(" (\"{prompt}\")"))
}

fn kinds(possible: &BTreeSet<String>, never: &BTreeSet<String>) -> String {
    match (possible.is_empty(), never.is_empty()) {
        (false, true) => format!("objects of these kinds only: {}", list(possible)),
        (false, false) => format!(
            "objects of these kinds only: {}, and never of {}",
            list(possible),
            list(never)
        ),
        (true, _) => format!("single objects that are not of {}", list(never)),
    }
}

/// Things in backticks, for a message.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items
        .into_iter()
        .map(|item| format!("`{}`", item.to_string()))
        .collect();
    items.join(", ")
}
