//! Roles: what their holders reach, what they may ask for, whose requests they may review.
//!
//! A [`Role`] is a checked document with every pattern compiled. How roles combine into a
//! decision is in [`crate::policy`]; how a document is read, in [`crate::documents`].

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use time::Duration;

use crate::admin::{AdminResource, AdminVerb};
use crate::claims::{self, ClaimMapping};
use crate::id::{Login, RoleName, UserName};
use crate::kube::{KubeKinds, KubeRule};
use crate::pattern::Pattern;
use crate::predicate::{Predicate, ReviewEnv, ReviewWhere, RuleWhere, Stored, ThresholdFilter};
use crate::resource::Kind;
use crate::selector::{LabelSelector, Template};
use crate::user::User;

/// A role, parsed and validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Role {
    /// Unique in the cluster.
    pub name: RoleName,
    /// For `request search --roles`.
    pub description: Option<String>,
    /// Metadata labels, shown and not otherwise used.
    pub labels: BTreeMap<String, String>,
    /// What it gives.
    pub allow: Conditions,
    /// What it takes away, from every role of its holder.
    pub deny: Conditions,
    /// How it is used.
    pub options: Options,
    /// The document as it was created, for `get`.
    pub source: serde_json::Value,
    /// Why the stored document can't be read by this version, if it can't: such a role grants
    /// nothing and denies everything.
    pub unreadable: Option<String>,
}

/// One side of a role, `allow` or `deny`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Accounts on nodes.
    pub logins: Vec<Template>,
    /// Nodes.
    pub node_labels: LabelSelector,
    /// Applications, databases, Kubernetes clusters and desktops.
    pub resources: ResourceConditions,
    /// What may be asked for.
    pub request: RequestConditions,
    /// Whose requests may be reviewed.
    pub review_requests: ReviewConditions,
    /// Administration.
    pub rules: Vec<Rule>,
}

/// Which resources that are no nodes one side of a role speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceConditions {
    /// Applications.
    pub app_labels: LabelSelector,
    /// Databases.
    pub db_labels: LabelSelector,
    /// Kubernetes clusters.
    pub kubernetes_labels: LabelSelector,
    /// Desktops.
    pub windows_desktop_labels: LabelSelector,
    /// What inside those Kubernetes clusters.
    pub kubernetes_resources: Vec<KubeRule>,
    /// As whom to connect.
    pub accounts: Accounts,
}

/// As whom a role connects to resources that are no nodes. Checked and kept; nothing reads them
/// before such a connection is served, and until then each one is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Databases inside a database server.
    pub db_names: Vec<Template>,
    /// Accounts there.
    pub db_users: Vec<Template>,
    /// Roles of an account that is made for a session.
    pub db_roles: Vec<Template>,
    /// Accounts on desktops.
    pub windows_desktop_logins: Vec<Template>,
    /// Groups to impersonate in Kubernetes.
    pub kubernetes_groups: Vec<Template>,
    /// Users to impersonate in Kubernetes.
    pub kubernetes_users: Vec<Template>,
}

impl ResourceConditions {
    /// The selector for resources of `kind`.
    #[must_use]
    pub const fn labels(&self, kind: Kind) -> &LabelSelector {
        match kind {
            Kind::App => &self.app_labels,
            Kind::Db => &self.db_labels,
            Kind::KubeCluster => &self.kubernetes_labels,
            Kind::WindowsDesktop => &self.windows_desktop_labels,
        }
    }

    /// The same, to be written.
    pub(crate) const fn labels_mut(&mut self, kind: Kind) -> &mut LabelSelector {
        match kind {
            Kind::App => &mut self.app_labels,
            Kind::Db => &mut self.db_labels,
            Kind::KubeCluster => &mut self.kubernetes_labels,
            Kind::WindowsDesktop => &mut self.windows_desktop_labels,
        }
    }
}

/// What a role lets its holder ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestConditions {
    /// Roles that may be asked for by name.
    pub roles: Vec<Pattern>,
    /// Further such roles, for users whose traits match.
    pub claims_to_roles: Vec<ClaimMapping>,
    /// Roles through which resources may be asked for.
    pub search_as_roles: Vec<RoleName>,
    /// The kinds of objects that may be asked for in a Kubernetes cluster. Empty leaves it to the
    /// roles that are asked through; anything in it also keeps whole clusters from being asked for.
    pub kubernetes_resources: Vec<KubeKinds>,
    /// The longest access, from its start.
    pub max_duration: Option<Duration>,
    /// From where the access is counted.
    pub duration_from: Option<DurationFrom>,
    /// Whom to name as reviewers when the requester names none.
    pub suggested_reviewers: Vec<UserName>,
    /// Whether a reason must be given, and how it is asked for.
    pub reason: ReasonConditions,
    /// How many reviews decide; empty means one approval or one denial.
    pub thresholds: Vec<Threshold>,
    /// What is written on requests, with the requester's traits in it; under `deny`, what is not.
    pub annotations: BTreeMap<String, Vec<Template>>,
}

/// `request.reason` of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReasonConditions {
    /// Whether a reason is required.
    pub mode: ReasonMode,
    /// What the prompt says instead of `Enter request reason`.
    pub prompt: Option<String>,
}

/// Whether a request needs a reason. Of several roles the strictest counts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ReasonMode {
    /// It may be left out.
    #[default]
    Optional,
    /// A request without one is refused.
    Required,
}

/// Where the clock of `max_duration` starts. Of several roles the earlier counts.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DurationFrom {
    /// When the request was filed.
    #[default]
    Creation,
    /// When it was approved.
    Approval,
}

/// How many reviews decide a request. A count of 0 is never reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// For people; may be empty.
    pub name: String,
    /// Which reviews it counts; without one, all. Kept with the request as its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Stored<ThresholdFilter>>,
    /// So many approvals approve.
    pub approve: u32,
    /// So many denials deny.
    pub deny: u32,
}

impl Default for Threshold {
    /// One approval approves, one denial denies.
    fn default() -> Self {
        Self {
            name: String::new(),
            filter: None,
            approve: 1,
            deny: 1,
        }
    }
}

/// Whose requests a role lets its holder review.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReviewConditions {
    /// The requested roles that may be reviewed.
    pub roles: Vec<Pattern>,
    /// Further such roles, for reviewers whose traits match.
    pub claims_to_roles: Vec<ClaimMapping>,
    /// `where`: a condition on reviewer and request beside the roles.
    pub condition: Option<Predicate<ReviewWhere>>,
    /// The roles whose nodes a reviewer may look at while reviewing.
    pub preview_as_roles: Vec<RoleName>,
}

/// Which of Anteroom's own resources may be read and changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The resources.
    pub resources: Set<AdminResource>,
    /// What may be done with them.
    pub verbs: Set<AdminVerb>,
    /// `where`: with which of them.
    pub condition: Option<Predicate<RuleWhere>>,
}

/// A list, or everything there is and will be (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set<T> {
    /// `*`.
    Every,
    /// These.
    Only(Vec<T>),
}

impl<T: PartialEq> Set<T> {
    /// Whether `item` is in it.
    #[must_use]
    pub fn contains(&self, item: &T) -> bool {
        match self {
            Self::Every => true,
            Self::Only(items) => items.contains(item),
        }
    }
}

/// `spec.options`: each is `None` where the role says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The longest a session of a holder lasts; of several roles the least.
    pub max_session_ttl: Option<Duration>,
    /// Both directions of TCP forwarding.
    pub port_forwarding: Option<bool>,
    /// Local forwarding (`-L`, `-D`), which decides over `port_forwarding`.
    pub local_forwarding: Option<bool>,
    /// Remote forwarding (`-R`), which decides over `port_forwarding`.
    pub remote_forwarding: Option<bool>,
    /// `-A`.
    pub forward_agent: Option<bool>,
    /// `-X`.
    pub permit_x11_forwarding: Option<bool>,
    /// scp and sftp.
    pub ssh_file_copy: Option<bool>,
    /// Certificates for direct use (`cert LOGIN@NODE`), past the proxy.
    pub direct: Option<bool>,
    /// A session without data for so long ends; of several roles the least.
    pub client_idle_timeout: Option<Duration>,
    /// So many connections to nodes at a time, over all of the user's; of several roles the least.
    pub max_connections: Option<u32>,
    /// So many sessions in one connection at a time; of several roles the least.
    pub max_sessions: Option<u32>,
    /// Whether standing roles reach nodes without a request.
    pub request_access: RequestAccess,
    /// What to prompt with for a reason where `request.reason` has no words of its own.
    pub request_prompt: Option<String>,
    /// What the holder has to prove besides a key; of several roles all of it.
    pub demands: BTreeSet<Demand>,
}

/// What a role demands of the way its holder comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Demand {
    /// `require_certificate`: an identity certificate. A plain key is good for getting one.
    Certificate,
    /// `pin_source_ip`: certificates that are good from one address alone.
    PinnedCertificate,
    /// `require_session_mfa`: a second factor for nodes.
    SessionMfa,
    /// `require_review_mfa`: a second factor for reviews.
    ReviewMfa,
}

/// `options.request_access`: whether standing roles reach nodes without a request. Of several
/// roles the strictest counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestAccess {
    /// They do.
    #[default]
    Optional,
    /// They do while an approved role request of the user is open, and not otherwise.
    Always,
    /// The same, and every request of the user needs a reason.
    Reason,
}

impl Role {
    /// A role that is stored as `source` and can't be read, because of `why`.
    ///
    /// What it allowed it allows no more, and what it denied is not known: so it denies everything
    /// to its holders, whatever other roles give them. The local administrator replaces it.
    #[must_use]
    pub fn unreadable(name: RoleName, source: serde_json::Value, why: String) -> Self {
        let anything: Vec<Pattern> = Pattern::parse("*").into_iter().collect();
        let deny = Conditions {
            node_labels: LabelSelector::everything(),
            request: RequestConditions {
                roles: anything.clone(),
                ..RequestConditions::default()
            },
            review_requests: ReviewConditions {
                roles: anything,
                ..ReviewConditions::default()
            },
            rules: vec![Rule {
                resources: Set::Every,
                verbs: Set::Every,
                condition: None,
            }],
            ..Conditions::default()
        };
        Self {
            name,
            description: Some(format!("can't be read, and denies everything: {why}")),
            labels: BTreeMap::new(),
            allow: Conditions::default(),
            deny,
            options: Options::default(),
            source,
            unreadable: Some(why),
        }
    }
}

impl RequestConditions {
    /// Whether `role` is one that `user` is spoken of as asking for by name.
    #[must_use]
    pub fn names_role(&self, user: &User, role: &RoleName) -> bool {
        self.roles
            .iter()
            .any(|pattern| pattern.matches(role.as_str()))
            || claims::any_names(&self.claims_to_roles, user, role)
    }

    /// The annotations, expanded for `user`. Two keys never run into each other; a key without a
    /// value is left out.
    pub(crate) fn annotations_for(&self, user: &User) -> BTreeMap<String, BTreeSet<String>> {
        let mut out = BTreeMap::new();
        for (key, templates) in &self.annotations {
            let values: BTreeSet<String> = templates.iter().flat_map(|t| t.expand(user)).collect();
            if !values.is_empty() {
                out.insert(key.clone(), values);
            }
        }
        out
    }
}

impl ReviewConditions {
    /// Whether `role` is one whose requests `user` is spoken of as reviewing.
    #[must_use]
    pub fn names_role(&self, user: &User, role: &RoleName) -> bool {
        self.roles
            .iter()
            .any(|pattern| pattern.matches(role.as_str()))
            || claims::any_names(&self.claims_to_roles, user, role)
    }
}

impl ReviewConditions {
    /// Under `allow`: whether the reviewer of `env` may review a request for `role`.
    #[must_use]
    pub fn allows(&self, role: &RoleName, env: &ReviewEnv<'_>) -> bool {
        let holds = |condition: &Predicate<ReviewWhere>| condition.allows(env);
        self.names_role(env.reviewer, role) && self.condition.as_ref().is_none_or(holds)
    }

    /// Under `deny`: whether the reviewer of `env` must not.
    #[must_use]
    pub fn denies(&self, role: &RoleName, env: &ReviewEnv<'_>) -> bool {
        let holds = |condition: &Predicate<ReviewWhere>| condition.denies(env);
        self.names_role(env.reviewer, role) && self.condition.as_ref().is_none_or(holds)
    }
}

impl Conditions {
    /// Whether there is anything in it about logins on nodes.
    #[must_use]
    pub fn speaks_of_nodes(&self) -> bool {
        !self.logins.is_empty() || !self.node_labels.is_empty()
    }

    /// Whether `login` is among the logins, expanded for `user`.
    #[must_use]
    pub fn names_login(&self, user: &User, login: &Login) -> bool {
        self.logins
            .iter()
            .any(|template| template.expands_to(user, login.as_str()))
    }

    /// The logins, expanded for `user`; what is no login is dropped (REQUESTS section 2).
    #[must_use]
    pub fn logins_for(&self, user: &User) -> BTreeSet<Login> {
        let texts = self
            .logins
            .iter()
            .flat_map(|template| template.expand(user));
        texts.filter_map(|text| Login::parse(&text).ok()).collect()
    }

    /// How many logins that is.
    #[must_use]
    pub fn count_logins(&self, user: &User) -> usize {
        // Borrowed texts in one vector: every role that could be asked through is counted in
        // every decision that ends in asking.
        let mut texts: Vec<Cow<'_, str>> = Vec::new();
        for template in &self.logins {
            template.expand_into(user, &mut texts);
        }
        texts.sort_unstable();
        texts.dedup();
        texts
            .iter()
            .filter(|text| crate::id::is_login(text))
            .count()
    }
}
