//! The life of an access request (REQUESTS section 4).
//!
//! Everything here is a function from a request, an act and an instant to a new request or a
//! refusal. Who may act as an administrator is decided by the caller with
//! [`crate::admin::allowed`]; the rule that nobody decides his own request is kept here, on
//! every path.

mod automatic;
mod filing;
mod life;
mod overriding;
mod review;
mod tally;
mod terms;
mod together;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::id::{
    AllowanceId, IdError, KeyFingerprint, RequestId, ResourceId, RoleName, RuleName, UserName,
};
use crate::role::{DurationFrom, Threshold};

pub use automatic::{
    Automatic, AutomaticReview, allowance_reviews, automatic_reviews, rule_review,
};
pub use filing::{Filed, FilingError, NewRequest, Wanted, file, file_for};
pub use life::{Action, Mandate, TransitionError, apply, apply_for};
pub use overriding::{OverrideError, check_override};
pub use review::{
    ReviewError, Reviewed, may_review, may_review_some, review, review_automatically,
    review_by_allowance, reviewers, reviewers_of,
};
pub use terms::TermsError;

/// A request for roles, or for resources through roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRequest {
    /// Its identity.
    pub id: RequestId,
    /// Who asked.
    pub user: UserName,
    /// The key to which what it grants belongs: the one that filed it. Of what an administrator
    /// filed for a user it is her only key; with several of them it is none, until one takes the
    /// request up.
    pub key: Option<KeyFingerprint>,
    /// Who filed it, where that was somebody else than the user: an administrator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filed_by: Option<Actor>,
    /// Further keys of the same user that took it up.
    pub assumed_by: BTreeSet<KeyFingerprint>,
    /// Keys that dropped it, until they take it up again.
    pub set_aside: BTreeSet<KeyFingerprint>,
    /// The roles asked for; for a resource request those through which it asks.
    pub roles: BTreeSet<RoleName>,
    /// What the roles are asked for.
    pub reach: Reach,
    /// What may be done with it.
    #[serde(default)]
    pub scope: Scope,
    /// Why, in the requester's words; empty if none was given.
    pub reason: String,
    /// The command of the connection that filed it, shown to reviewers.
    pub command: Option<String>,
    /// The address it was filed from, shown to reviewers.
    pub remote_addr: Option<String>,
    /// Whom the requester or her roles named.
    pub suggested_reviewers: BTreeSet<UserName>,
    /// What the requester's roles wrote on it (`request.annotations`), and the administrator who
    /// filed it for her; for thresholds and plugins.
    #[serde(default)]
    pub system_annotations: Annotations,
    /// Where it is in its life.
    pub state: State,
    /// When it was filed.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// When it lapses if it is still pending.
    #[serde(with = "time::serde::rfc3339")]
    pub request_expires: OffsetDateTime,
    /// When the access ends; at this instant it is over.
    #[serde(with = "time::serde::rfc3339")]
    pub access_expires: OffsetDateTime,
    /// How long the access lasts from its start.
    #[serde(with = "crate::duration::exact")]
    pub duration: Duration,
    /// The `--max-duration` or role's limit that `duration` comes from, if one is set.
    #[serde(with = "crate::duration::option")]
    pub max_duration: Option<Duration>,
    /// The longest session under it.
    #[serde(with = "crate::duration::exact")]
    pub session_ttl: Duration,
    /// Where `duration` starts.
    pub duration_from: DurationFrom,
    /// Not before then.
    #[serde(with = "time::serde::rfc3339::option")]
    pub assume_start: Option<OffsetDateTime>,
    /// What the requester's roles demanded when it was filed: every set must pass.
    pub thresholds: Vec<ThresholdSet>,
    /// What was said about it, in order.
    pub reviews: Vec<Review>,
    /// What was given, once approved: never more than was asked.
    pub granted: Option<Granted>,
    /// When and why it left PENDING or APPROVED.
    pub resolved: Option<Resolution>,
}

/// What roles write on a request: names with values, none of them without a value.
pub type Annotations = BTreeMap<String, BTreeSet<String>>;

/// What the roles of a request are asked for. Unrestricted is a variant of its own and never an
/// empty list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Everything the roles allow (`--roles`).
    Roles,
    /// These resources only, through the roles (`--resource`, or a denied connection). Never
    /// empty; an empty list would grant nothing.
    Resources(BTreeSet<ResourceId>),
}

/// What may be done with what a request grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Whatever the roles allow.
    #[default]
    Any,
    /// Running exactly this command, byte for byte, and nothing else.
    Command(String),
}

impl Scope {
    /// The longest command that a grant can be bound to, in bytes: a certificate carries it.
    pub const COMMAND_LIMIT: usize = 4096;

    /// The one command; `None` where everything may be done.
    #[must_use]
    pub fn command(&self) -> Option<&str> {
        match self {
            Self::Any => None,
            Self::Command(command) => Some(command),
        }
    }

    /// Whether it extends to a session that runs `command`; `None` is one that runs anything else.
    #[must_use]
    pub fn extends_to(&self, command: Option<&[u8]>) -> bool {
        match self {
            Self::Any => true,
            Self::Command(only) => command == Some(only.as_bytes()),
        }
    }
}

/// Where a request is in its life, in the order of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Waiting for reviews.
    Pending,
    /// Granted, until its access expires.
    Approved,
    /// Refused for good.
    Denied,
    /// Its time ran out, pending or approved.
    Expired,
    /// Withdrawn by the requester while pending.
    Canceled,
    /// Taken back after it was approved.
    Revoked,
}

/// One set of thresholds: inside it one suffices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThresholdSet {
    /// The requester's role that demands it.
    pub role: RoleName,
    /// The alternatives, never empty.
    pub thresholds: Vec<Threshold>,
}

/// The place of a threshold in a request: which set, and which in it, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ThresholdIndex(pub usize, pub usize);

/// What one person said about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Who.
    pub author: Author,
    /// The pre-approval that gave it in the author's name; `None` where he gave it himself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<AllowanceId>,
    /// What.
    pub verdict: Verdict,
    /// Why; empty if nothing was said.
    pub reason: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created: OffsetDateTime,
    /// Whether it counted.
    pub effect: Effect,
    /// Which thresholds with a filter count it, decided when it was given: what its author's
    /// roles become later changes nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub filters: BTreeSet<ThresholdIndex>,
}

/// Who gave a review. Written as one name: a rule's begins with `@`, which no user's does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Author {
    /// A person.
    User(UserName),
    /// An access monitoring rule.
    Rule(RuleName),
}

impl Author {
    /// Whether this is the person of that name.
    #[must_use]
    pub fn is_user(&self, name: &UserName) -> bool {
        match self {
            Self::User(user) => user == name,
            Self::Rule(_) => false,
        }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => name.fmt(f),
            Self::Rule(name) => f.pad(&format!("@{name}")),
        }
    }
}

impl From<Author> for String {
    fn from(author: Author) -> Self {
        author.to_string()
    }
}

impl TryFrom<String> for Author {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        match text.strip_prefix('@') {
            Some(rule) => RuleName::parse(rule).map(Self::Rule),
            None => UserName::parse(&text).map(Self::User),
        }
    }
}

/// A reviewer's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Yes, on these terms.
    Approve(Terms),
    /// No.
    Deny,
}

/// On which terms a reviewer approves: each narrows what was asked, `None` leaves it as asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Only these of the roles.
    pub roles: Option<BTreeSet<RoleName>>,
    /// Only these of the resources or, by `?logins=`, of their logins.
    pub resources: Option<BTreeSet<ResourceId>>,
    /// No longer than this.
    #[serde(with = "crate::duration::option")]
    pub max_duration: Option<Duration>,
    /// Not before then.
    #[serde(with = "time::serde::rfc3339::option")]
    pub assume_start: Option<OffsetDateTime>,
    /// Not after then: at this instant it is over, however late it begins.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub until: Option<OffsetDateTime>,
}

/// Whether a review moved any count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// At least one threshold counts it.
    Counted,
    /// No threshold does: it is kept and changes nothing.
    Ineffectual,
}

/// What an approved request gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Through these roles.
    pub roles: BTreeSet<RoleName>,
    /// For this much.
    pub reach: Reach,
    /// Those of the roles that were not asked for: an administrator who may write roles put them
    /// in. The user need not be able to ask for them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub overridden: BTreeSet<RoleName>,
    /// When it was approved.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Through whom.
    pub by: Actor,
    /// Why; empty if nothing was said.
    pub reason: String,
    /// On whose behalf an administrator decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegator: Option<UserName>,
    /// Attributes of the decision.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// A person, known by key.
    User(UserName),
    /// Whoever owns the proxy's control socket.
    LocalAdministrator,
    /// An access monitoring rule.
    Rule(RuleName),
    /// The passing of time.
    Clock,
}

impl From<Author> for Actor {
    fn from(author: Author) -> Self {
        match author {
            Author::User(name) => Self::User(name),
            Author::Rule(name) => Self::Rule(name),
        }
    }
}

impl State {
    /// Every state, in the order of life.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Approved,
        Self::Denied,
        Self::Expired,
        Self::Canceled,
        Self::Revoked,
    ];

    /// The word, in upper case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Approved => "APPROVED",
            Self::Denied => "DENIED",
            Self::Expired => "EXPIRED",
            Self::Canceled => "CANCELED",
            Self::Revoked => "REVOKED",
        }
    }

    /// Whether something can still happen: pending or approved.
    #[must_use]
    pub const fn is_live(self) -> bool {
        match self {
            Self::Pending | Self::Approved => true,
            Self::Denied | Self::Expired | Self::Canceled | Self::Revoked => false,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for State {
    type Err = UnknownState;

    fn from_str(text: &str) -> Result<Self, UnknownState> {
        let found = Self::ALL
            .into_iter()
            .find(|state| state.as_str().eq_ignore_ascii_case(text));
        found.ok_or_else(|| UnknownState(crate::id::printable(text)))
    }
}

/// A word that is no state of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a state; it is pending, approved, denied, expired, canceled or revoked")]
pub struct UnknownState(String);

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => name.fmt(f),
            Self::LocalAdministrator => f.pad("the local administrator"),
            Self::Rule(name) => f.pad(&format!("@{name}")),
            Self::Clock => f.pad("the clock"),
        }
    }
}

impl Reach {
    /// The resources, none for a role request; for listings only.
    pub fn resources(&self) -> impl Iterator<Item = &ResourceId> {
        match self {
            Self::Roles => None,
            Self::Resources(ids) => Some(ids),
        }
        .into_iter()
        .flatten()
    }
}

impl AccessRequest {
    /// Whether `key` holds what this grants: it filed it or took it up, and did not drop it.
    #[must_use]
    pub fn is_held_by(&self, key: &KeyFingerprint) -> bool {
        (self.key.as_ref() == Some(key) || self.assumed_by.contains(key))
            && !self.set_aside.contains(key)
    }

    /// The instant before which the access is not open: the creation, or later if so scheduled.
    /// An approval comes after both or opens it at once.
    #[must_use]
    pub fn starts(&self) -> OffsetDateTime {
        self.assume_start
            .map_or(self.created, |start| start.max(self.created))
    }

    /// When the access opened, or will: its approval, or its start where that is later. `None`
    /// before the approval.
    #[must_use]
    pub fn opened(&self) -> Option<OffsetDateTime> {
        let granted = self.granted.as_ref()?;
        Some(self.starts().max(granted.at))
    }

    /// Whether access is open at `now`: approved, not before its start, and before its end.
    #[must_use]
    pub fn is_open(&self, now: OffsetDateTime) -> bool {
        self.state == State::Approved && self.starts() <= now && now < self.access_expires
    }

    /// The next instant at which time alone changes it: a pending one lapses; an approved one
    /// opens, then ends. `None` once it is over.
    #[must_use]
    pub fn deadline(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        match self.state {
            State::Pending => Some(self.request_expires),
            State::Approved if now < self.starts() => Some(self.starts()),
            State::Approved => Some(self.access_expires),
            State::Denied | State::Expired | State::Canceled | State::Revoked => None,
        }
    }
}
