//! `rules[].where` of a role: who acts, and on what.
//!
//! Not every object has every name. A name that an object has not is a [`Fault`], so that an allow
//! rule gives nothing by it and a deny rule denies; a name that no object of a rule can have is
//! refused when the role is saved.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::ControlFlow;

use time::OffsetDateTime;

use crate::admin::{AdminObject, AdminResource};
use crate::id::{RoleName, UserName};
use crate::predicate::eval::{Fault, Stop};
use crate::user::User;

use super::{Found, Lookup, Name, Visit, visit_all, visit_entry, visit_trait};

/// `rules[].where` of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleWhere;

/// What the `where` of a rule is asked about.
#[derive(Debug, Clone, Copy)]
pub struct RuleEnv<'e> {
    /// `user`: who acts, with the stored roles and traits.
    pub user: &'e User,
    /// `resource` and `session`: what is acted on.
    pub object: AdminObject<'e>,
}

/// The texts of [`RuleWhere`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleText {
    /// `user.metadata.name`.
    UserName,
    /// `resource.kind`.
    Kind,
    /// `resource.metadata.name`.
    Name,
    /// `resource.metadata.description`.
    Description,
    /// `resource.spec.hostname`.
    Hostname,
    /// `resource.spec.addr`.
    Addr,
    /// `resource.spec.user`.
    Requester,
    /// `resource.spec.request_reason`.
    Reason,
    /// `resource.spec.state`.
    State,
    /// `resource.spec.target.…`, by the word for what is locked.
    Target(&'static str),
    /// `resource.spec.type`.
    Type,
}

/// The lists of [`RuleWhere`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleList {
    /// `user.spec.roles`.
    UserRoles,
    /// `resource.spec.roles`.
    Roles,
    /// `resource.spec.resource_ids`.
    ResourceIds,
    /// `session.participants`.
    Participants,
}

/// The maps of [`RuleWhere`] from text to text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleLabels {
    /// `resource.metadata.labels`.
    Resource,
    /// `session.server_labels`.
    Server,
}

/// The maps of [`RuleWhere`] from text to lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleLists {
    /// `user.spec.traits`.
    UserTraits,
    /// `resource.spec.traits`.
    Traits,
    /// `resource.spec.system_annotations`.
    Annotations,
}

/// The labels of what can have none.
static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

impl<'e> RuleEnv<'e> {
    /// The text behind a name; `None` where the object has no such name.
    fn find_text(&self, name: RuleText) -> Option<Cow<'e, str>> {
        let object = self.object;
        let request = object.request();
        Some(match name {
            RuleText::UserName => Cow::Borrowed(self.user.name.as_str()),
            RuleText::Kind => Cow::Borrowed(object.resource().as_str()),
            RuleText::Name => object.name()?,
            RuleText::Description => Cow::Borrowed(object.description()?),
            RuleText::Hostname => Cow::Borrowed(object.node()?.name.as_str()),
            RuleText::Addr => Cow::Owned(object.address()?),
            RuleText::Requester => Cow::Borrowed(object.requester()?.as_str()),
            RuleText::Reason => Cow::Borrowed(request?.reason.as_str()),
            RuleText::State => Cow::Borrowed(request?.state.as_str()),
            RuleText::Target(kind) => {
                let target = object.lock_target()?;
                // Locked is one thing; what is not it, is nothing.
                let named = (target.kind() == kind).then(|| target.value());
                Cow::Owned(named.unwrap_or_default())
            }
            RuleText::Type => Cow::Borrowed(object.authority()?),
        })
    }

    /// Visits the list behind a name; `None` where the object has no such name.
    fn find_list(&self, name: RuleList, visit: Visit<'_, 'e>) -> Option<ControlFlow<Stop>> {
        let object = self.object;
        Some(match name {
            RuleList::UserRoles => visit_all(self.user.roles.iter().map(RoleName::as_str), visit),
            RuleList::Roles => visit_all(object.roles()?.iter().map(RoleName::as_str), visit),
            RuleList::ResourceIds => {
                let mut ids = object.request()?.reach.resources();
                ids.try_for_each(|id| visit(Cow::Owned(id.to_string())))
            }
            RuleList::Participants => {
                let people = object.session()?.participants;
                visit_all(people.iter().map(UserName::as_str), visit)
            }
        })
    }

    fn find_labels(&self, name: RuleLabels) -> Option<&'e BTreeMap<String, String>> {
        match name {
            RuleLabels::Resource => Some(self.object.labels().unwrap_or(&NO_LABELS)),
            RuleLabels::Server => Some(self.object.session()?.server_labels),
        }
    }

    fn find_values(
        &self,
        name: RuleLists,
        key: &str,
        visit: Visit<'_, 'e>,
    ) -> Option<ControlFlow<Stop>> {
        Some(match name {
            RuleLists::UserTraits => visit_trait(self.user, key, visit),
            RuleLists::Traits => visit_trait(self.object.user()?, key, visit),
            RuleLists::Annotations => {
                visit_entry(&self.object.request()?.system_annotations, key, visit)
            }
        })
    }

    /// The fault of an object that has no such name.
    fn missing(&self, name: Name<RuleWhere>) -> Fault {
        let known = RuleWhere::NAMES.iter().find(|(_, known)| *known == name);
        Fault::NoSuchName {
            name: known.map_or("resource", |(name, _)| name),
            of: self.object.resource().as_str(),
        }
    }
}

/// Whether some object of `kind` has `name`: what is asked of a rule before there is an object.
/// Equal to what evaluation finds, by a test.
pub(crate) fn has_name(kind: AdminResource, name: &str) -> bool {
    use AdminResource::{
        AccessRequest, App, CertAuthority, Db, Event, KubeCluster, Lock, Node, Role, Session,
        Token, User, WindowsDesktop,
    };
    match name {
        "resource.metadata.name" => !matches!(kind, Event | Token | CertAuthority),
        "resource.metadata.description" => matches!(
            kind,
            Role | App | Db | KubeCluster | WindowsDesktop | AdminResource::AccessMonitoringRule
        ),
        "resource.spec.hostname" => kind == Node,
        "resource.spec.addr" => matches!(kind, Node | App | Db | KubeCluster | WindowsDesktop),
        "resource.spec.roles" => matches!(kind, User | AccessRequest),
        "resource.spec.traits" => kind == User,
        "resource.spec.user"
        | "resource.spec.request_reason"
        | "resource.spec.state"
        | "resource.spec.resource_ids"
        | "resource.spec.system_annotations" => kind == AccessRequest,
        "resource.spec.type" => kind == CertAuthority,
        "session.participants" | "session_tracker.participants" | "session.server_labels" => {
            kind == Session
        }
        target if target.starts_with("resource.spec.target.") => kind == Lock,
        // Who acts, of what kind it is, and labels, which are none where there can be none.
        _ => true,
    }
}

impl Lookup for RuleWhere {
    const PLACE: &'static str = "the `where` of a rule";
    const NAMES: &'static [(&'static str, Name<Self>)] = &[
        ("user.metadata.name", Name::Text(RuleText::UserName)),
        ("user.spec.roles", Name::List(RuleList::UserRoles)),
        ("user.spec.traits", Name::Lists(RuleLists::UserTraits)),
        ("resource.kind", Name::Text(RuleText::Kind)),
        ("resource.metadata.name", Name::Text(RuleText::Name)),
        (
            "resource.metadata.description",
            Name::Text(RuleText::Description),
        ),
        (
            "resource.metadata.labels",
            Name::Labels(RuleLabels::Resource),
        ),
        ("resource.spec.hostname", Name::Text(RuleText::Hostname)),
        ("resource.spec.addr", Name::Text(RuleText::Addr)),
        ("resource.spec.roles", Name::List(RuleList::Roles)),
        ("resource.spec.traits", Name::Lists(RuleLists::Traits)),
        ("resource.spec.user", Name::Text(RuleText::Requester)),
        ("resource.spec.request_reason", Name::Text(RuleText::Reason)),
        ("resource.spec.state", Name::Text(RuleText::State)),
        (
            "resource.spec.resource_ids",
            Name::List(RuleList::ResourceIds),
        ),
        (
            "resource.spec.system_annotations",
            Name::Lists(RuleLists::Annotations),
        ),
        (
            "resource.spec.target.user",
            Name::Text(RuleText::Target("user")),
        ),
        (
            "resource.spec.target.role",
            Name::Text(RuleText::Target("role")),
        ),
        (
            "resource.spec.target.node",
            Name::Text(RuleText::Target("node")),
        ),
        (
            "resource.spec.target.login",
            Name::Text(RuleText::Target("login")),
        ),
        ("resource.spec.type", Name::Text(RuleText::Type)),
        ("session.participants", Name::List(RuleList::Participants)),
        // Teleport's name where a session is live.
        (
            "session_tracker.participants",
            Name::List(RuleList::Participants),
        ),
        ("session.server_labels", Name::Labels(RuleLabels::Server)),
    ];
    const LABELS: Option<RuleLabels> = Some(RuleLabels::Resource);
    const SEARCH: bool = false;
    type Env<'e> = RuleEnv<'e>;
    type Text = RuleText;
    type List = RuleList;
    type Labels = RuleLabels;
    type Lists = RuleLists;
    type Time = Infallible;

    fn text<'e>(env: &RuleEnv<'e>, name: RuleText) -> Found<Cow<'e, str>>
    where
        'e: 'e,
    {
        env.find_text(name)
            .ok_or_else(|| env.missing(Name::Text(name)))
    }

    fn list<'e>(env: &RuleEnv<'e>, name: RuleList, visit: Visit<'_, 'e>) -> ControlFlow<Stop> {
        let found = env.find_list(name, visit);
        found.unwrap_or_else(|| ControlFlow::Break(env.missing(Name::List(name)).into()))
    }

    fn labels<'e>(env: &RuleEnv<'e>, name: RuleLabels) -> Found<&'e BTreeMap<String, String>>
    where
        'e: 'e,
    {
        env.find_labels(name)
            .ok_or_else(|| env.missing(Name::Labels(name)))
    }

    fn values<'e>(
        env: &RuleEnv<'e>,
        name: RuleLists,
        key: &str,
        visit: Visit<'_, 'e>,
    ) -> ControlFlow<Stop> {
        let found = env.find_values(name, key, visit);
        found.unwrap_or_else(|| ControlFlow::Break(env.missing(Name::Lists(name)).into()))
    }

    fn time(_: &RuleEnv<'_>, name: Infallible) -> OffsetDateTime {
        match name {}
    }

    fn search(_: &RuleEnv<'_>, _: &str) -> bool {
        false
    }
}
