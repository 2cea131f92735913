//! Decisions and requests of the domain in words.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use anteroom_core::duration::format as format_duration;
use anteroom_core::id::{ClusterName, Login, ResourceId, UserName};
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::node::{Node, NodeAddr};
use anteroom_core::policy::{Denial, Reason, Visibility};
use anteroom_core::request::{
    AccessRequest, Actor, Annotations, Author, Effect, Reach, Resolution, Review, State, Terms,
    Verdict,
};
use anteroom_core::resource::Resource;
use anteroom_core::role::DurationFrom;
use anteroom_core::view::View;
use time::OffsetDateTime;

use super::block::{RequestBlock, ReviewLine};
use super::table::Table;
use super::text::clean;
use super::{waiting, when};

/// A resource with its labels, for the block of a request.
#[must_use]
pub fn labels_of(preview: &anteroom_core::policy::Preview) -> String {
    let labels = super::labels(&preview.labels);
    let labels = if labels.is_empty() { "[none]" } else { &labels };
    format!("{}: {labels}", clean(&preview.name))
}

impl RequestBlock {
    /// The block of `request`, with the names that `view` knows for its nodes. Once it is approved the block shows what was
    /// granted, which may be less than what was asked for.
    #[must_use]
    pub fn of(view: &View, request: &AccessRequest) -> Self {
        let (roles, reach) = match &request.granted {
            Some(granted) => (&granted.roles, &granted.reach),
            None => (&request.roles, &request.reach),
        };
        let resources: Vec<&ResourceId> = match reach {
            Reach::Roles => Vec::new(),
            Reach::Resources(ids) => ids.iter().collect(),
        };
        let nodes = resources.iter().copied();
        let nodes: Vec<&ResourceId> = nodes.filter(|id| id.node_id().is_some()).collect();
        Self {
            id: request.id.to_string(),
            user: request.user.to_string(),
            roles: strings(roles),
            names: resources
                .iter()
                .filter_map(|id| node_name(view, id))
                .collect(),
            others: resources
                .iter()
                .filter_map(|id| other_than_a_node(id))
                .collect(),
            logins: logins(&nodes),
            labels: Vec::new(),
            resources: resources
                .iter()
                .map(|id| (*id).clone().without_logins().to_string())
                .collect(),
            scope: request.scope.command().map(str::to_owned),
            filed_by: request.filed_by.as_ref().map(ToString::to_string),
            overridden: request
                .granted
                .as_ref()
                .map(|granted| strings(&granted.overridden))
                .unwrap_or_default(),
            command: request.command.clone(),
            remote_addr: request.remote_addr.clone(),
            until: Some(request.access_expires),
            lasts: (request.duration_from == DurationFrom::Approval && request.granted.is_none())
                .then_some(request.duration),
            start: request.assume_start,
            reason: request.reason.clone(),
            reviewers: strings(&request.suggested_reviewers),
            annotations: request
                .system_annotations
                .iter()
                .map(|(key, values)| (key.clone(), strings(values)))
                .collect(),
            status: request.state.to_string(),
            waiting: None,
            reviews: request
                .reviews
                .iter()
                .map(|review| review_line(view, review))
                .collect(),
            resolved: resolution_line(request),
        }
    }

    /// The block for her who asks: what she typed and where she sits she knows.
    #[must_use]
    pub fn for_requester(view: &View, request: &AccessRequest) -> Self {
        Self {
            command: None,
            remote_addr: None,
            ..Self::of(view, request)
        }
    }
}

fn review_line(view: &View, review: &Review) -> ReviewLine {
    let mut how = match (&review.author, review.allowance) {
        (Author::Rule(_), _) => vec!["automatic".to_owned()],
        (Author::User(_), Some(id)) => vec![format!("by pre-approval {id}")],
        (Author::User(_), None) => Vec::new(),
    };
    if let Verdict::Approve(terms) = &review.verdict {
        how.extend(in_words(view, terms));
    }
    match review.effect {
        Effect::Counted => {}
        Effect::Ineffectual => how.push("counted by no threshold".to_owned()),
    }
    let verdict = match review.verdict {
        Verdict::Approve(_) => "approved",
        Verdict::Deny => "denied",
    };
    ReviewLine {
        author: review.author.to_string(),
        verdict: verdict.to_owned(),
        how: (!how.is_empty()).then(|| how.join(", ")),
        reason: review.reason.clone(),
        at: review.created,
    }
}

/// In what an approval is less than was asked.
fn in_words(view: &View, terms: &Terms) -> Vec<String> {
    let roles = terms.roles.as_ref().map(|roles| {
        let noun = if roles.len() == 1 { "role" } else { "roles" };
        format!("only {noun} {}", strings(roles).join(" and "))
    });
    let resources = terms.resources.as_ref().map(|ids| {
        let names: Vec<String> = ids.iter().map(|id| resource_in_words(view, id)).collect();
        format!("only {}", names.join(" and "))
    });
    let parts = [
        roles,
        resources,
        terms
            .max_duration
            .map(|limit| format!("at most {}", format_duration(limit))),
        terms
            .assume_start
            .map(|start| format!("not before {}", when::stamp(start))),
        terms
            .until
            .map(|until| format!("until {}", when::stamp(until))),
    ];
    parts.into_iter().flatten().collect()
}

fn resource_in_words(view: &View, id: &ResourceId) -> String {
    let name = node_name(view, id).or_else(|| other_than_a_node(id));
    let name = name.unwrap_or_else(|| id.clone().without_logins().to_string());
    match id.logins() {
        Some(logins) => format!("{name} as {}", strings(logins).join("+")),
        None => name,
    }
}

/// How the request was decided or ended, unless the last word was a review, which is shown as one.
fn resolution_line(request: &AccessRequest) -> Option<ReviewLine> {
    let resolved = request.resolved.as_ref()?;
    // The same person may have reviewed it, without effect, and decided it later as an administrator.
    let reviewed = request.reviews.iter().any(|review| {
        let state = match review.verdict {
            Verdict::Approve(_) => State::Approved,
            Verdict::Deny => State::Denied,
        };
        resolved.by == Actor::from(review.author.clone())
            && resolved.at == review.created
            && request.state == state
    });
    let author = match (&resolved.by, request.state) {
        (_, State::Approved | State::Denied) if reviewed => return None,
        (Actor::Clock, _) => String::new(),
        (Actor::User(_) | Actor::LocalAdministrator | Actor::Rule(_), _) => resolved.by.to_string(),
    };
    Some(ReviewLine {
        author,
        verdict: request.state.as_str().to_lowercase(),
        how: how_decided(resolved),
        reason: resolved.reason.clone(),
        at: resolved.at,
    })
}

/// On whose behalf, and with which attributes.
fn how_decided(resolved: &Resolution) -> Option<String> {
    let behalf = resolved
        .delegator
        .iter()
        .map(|name| format!("on behalf of {name}"));
    let parts: Vec<String> = behalf.chain(pairs(&resolved.annotations)).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn pairs(annotations: &Annotations) -> Vec<String> {
    let pair = |(key, values): (&String, &BTreeSet<String>)| -> Vec<String> {
        let key = super::label_part(key);
        values
            .iter()
            .map(|value| format!("{key}={}", super::label_part(value)))
            .collect()
    };
    annotations.iter().flat_map(pair).collect()
}

fn strings<T: ToString>(items: &BTreeSet<T>) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn node_name(view: &View, id: &ResourceId) -> Option<String> {
    let node = view.node(&id.node_id()?)?;
    (id.cluster() == view.cluster()).then(|| node.name.to_string())
}

/// The logins that all resources are narrowed to. Where they differ, or one is not narrowed, each resource with its own.
fn logins(resources: &[&ResourceId]) -> Vec<String> {
    let each: Vec<Option<&BTreeSet<Login>>> = resources.iter().map(|id| id.logins()).collect();
    match each.split_first() {
        Some((Some(first), rest)) if rest.iter().all(|other| *other == Some(*first)) => {
            strings(first)
        }
        Some((_, rest)) if rest.is_empty() || each.iter().all(Option::is_none) => Vec::new(),
        Some(_) | None => resources.iter().map(|id| one_narrowing(id)).collect(),
    }
}

fn one_narrowing(id: &ResourceId) -> String {
    match id.logins() {
        Some(logins) => format!("{} on {}", strings(logins).join("+"), id.name()),
        None => format!("any on {}", id.name()),
    }
}

/// Said in place of [`super::CREATING`] where `request` is joined: also what was said with the wish and is not in it.
#[must_use]
pub fn joined(
    request: &AccessRequest,
    reason: Option<&str>,
    reviewers: &BTreeSet<UserName>,
) -> String {
    let id = request.id.to_string();
    let joining = waiting::joining(&id);
    let reason = reason.is_some_and(|reason| !reason.is_empty() && reason != request.reason);
    let reviewers = !reviewers.is_subset(&request.suggested_reviewers);
    match (reason, reviewers) {
        (false, false) => joining,
        (true, false) => format!("{joining}\n{}", waiting::not_added("reason is", &id)),
        (false, true) => format!("{joining}\n{}", waiting::not_added("reviewers are", &id)),
        (true, true) => {
            let what = "reason and reviewers are";
            format!("{joining}\n{}", waiting::not_added(what, &id))
        }
    }
}

/// What is said when a wait is over: the outcome of `request` in one line; `None` while it is pending.
#[must_use]
pub fn outcome(request: &AccessRequest, now: OffsetDateTime) -> Option<String> {
    let id = request.id.to_string();
    let by = request
        .resolved
        .as_ref()
        .map_or_else(|| "a reviewer".to_owned(), |end| end.by.to_string());
    let reason = request
        .resolved
        .as_ref()
        .map_or("", |end| end.reason.as_str());
    match request.state {
        State::Pending => None,
        State::Approved if now < request.starts() => {
            Some(waiting::approved_for_later(&id, request.starts()))
        }
        State::Approved => Some(approval(request, &by, reason)),
        State::Denied => Some(waiting::request_denied(&by, reason)),
        State::Expired if request.granted.is_some() => {
            Some(waiting::access_over(&id, request.access_expires))
        }
        State::Expired => Some(waiting::request_expired(&id, request.request_expires)),
        State::Canceled => Some(waiting::request_canceled(&id, &by)),
        State::Revoked => Some(waiting::request_revoked(&id, &by, reason)),
    }
}

fn approval(request: &AccessRequest, by: &str, reason: &str) -> String {
    let approvers = request
        .reviews
        .iter()
        .filter(|review| match review.verdict {
            Verdict::Approve(_) => true,
            Verdict::Deny => false,
        });
    let mut by_review = false;
    let names: Vec<String> = approvers
        .map(|review| {
            let name = review.author.to_string();
            by_review |= name == by;
            match review.allowance {
                Some(_) => format!("{name} (pre-approved)"),
                None => name,
            }
        })
        .collect();
    // An administrator's approval is no review.
    if by_review {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        waiting::approval_received(&names, reason)
    } else {
        waiting::approval_received(&[by], reason)
    }
}

/// Why `target` (`root@iot`) is out of reach, and what to do about it. One sentence for each reason the user may
/// know; where she may not know whether the node exists, the one sentence for nodes that don't.
#[must_use]
pub fn denial(denial: &Denial, target: &str) -> String {
    match denial.visibility {
        Visibility::Hidden => hidden(denial, target),
        Visibility::Visible => {
            let lines: Vec<String> = denial
                .reasons
                .iter()
                .map(|reason| visible(reason, target))
                .collect();
            lines.join("\n")
        }
    }
}

/// The sentence for a node that does not exist, as far as the asker may know.
#[must_use]
pub fn no_such_node(name: &str) -> String {
    format!(
        "no such node `{}`; `ssh access ls` and `ssh access request search --kind node` show those you can use or ask for",
        clean(name)
    )
}

/// The sentence for a resource that is no node and does not exist, as far as the asker may know.
#[must_use]
pub fn no_such_resource(kind: &str, name: &str) -> String {
    let searched = if kind.starts_with("kube:") {
        "kube_resource"
    } else {
        kind
    };
    format!(
        "no such {} `{}`; `ssh access request search --kind {searched}` shows those you can ask for",
        clean(kind),
        clean(name)
    )
}

/// What is said to whoever makes up names.
pub const TOO_MANY_HOST_NAMES: &str = "you have asked for too many names that are no nodes to you within an hour \
     (max_host_names_per_user_per_hour); `ssh access ls` lists yours";

/// What is said in place of connecting to something that is no node: to those only who may know of it.
#[must_use]
pub fn connecting_not_served(resource: &Resource) -> String {
    format!(
        "ERROR: connecting to {} `{}` ({}) is not served yet: it can be asked for and approved, and nothing more",
        resource.kind().noun(),
        clean(resource.name.as_str()),
        resource.kind()
    )
}

/// What is said beside a request for something that can't be connected to.
#[must_use]
pub fn connecting_comes_later(kinds: &[&str]) -> String {
    format!(
        "Connecting to {} is not served yet; the request can be reviewed all the same.",
        kinds.join(", ")
    )
}

/// Why a search for objects in Kubernetes shows patterns.
pub const KUBE_OBJECTS_NOT_LISTED: &str = "These are patterns, not objects: Anteroom does not look into Kubernetes clusters yet. \
     Ask for less than a pattern by writing names in the place of `*`: /CLUSTER/kube:ns:pods/KUBE_CLUSTER/NAMESPACE/NAME, \
     or /CLUSTER/kube:cw:namespaces/KUBE_CLUSTER/NAME for what is in no namespace.";

/// What an approval of `id`, which is no node, opens; `None` for nodes.
fn other_than_a_node(id: &ResourceId) -> Option<String> {
    let (kind, name) = id.registered()?;
    let (Some(objects), Some(object)) = (id.kube_objects(), id.kube_object()) else {
        return Some(format!("{} {name}", kind.noun()));
    };
    let place = match object.namespace {
        Some(namespace) => format!(" in namespace {namespace}"),
        None => String::new(),
    };
    Some(format!(
        "{} {}{place} of Kubernetes cluster {name}",
        objects.kinds, object.name
    ))
}

/// A node's address as listings show it.
#[must_use]
pub fn address(addr: &NodeAddr) -> Cow<'static, str> {
    match addr.dialled() {
        Some(_) => Cow::Owned(addr.to_string()),
        None => Cow::Borrowed("⟵ Tunnel"),
    }
}

/// The sentence for a name that several nodes have, with those nodes: only such as the asker may see.
#[must_use]
pub fn ambiguous_name(name: &str, cluster: &ClusterName, nodes: &[Arc<Node>]) -> String {
    let mut table = Table::new(["Node Name", "Address", "Labels", "Resource ID"]);
    for node in nodes {
        table.row([
            node.name.to_string(),
            super::address(&node.addr).to_string(),
            super::labels(&node.labels),
            ResourceId::node(cluster.clone(), node.id).to_string(),
        ]);
    }
    format!(
        "`{}` is the name of {} nodes; write the UUID or resource ID of one of them\n{table}",
        clean(name),
        nodes.len()
    )
}

/// What concerns the person herself may always be said; nothing here depends on whether the node exists.
fn hidden(denial: &Denial, target: &str) -> String {
    let own = denial.reasons.iter().find_map(|reason| match reason {
        Reason::Locked { .. } => Some(visible(reason, target)),
        Reason::UnknownUser
        | Reason::UnknownKey
        | Reason::CertificateEnded
        | Reason::CertificateRevoked { .. }
        | Reason::CertificateDemanded { .. }
        | Reason::PinDemanded { .. }
        | Reason::SecondFactorDemanded { .. } => Some(visible(reason, target)),
        Reason::TargetLocked {
            target:
                LockTarget::User(_)
                | LockTarget::Key(_)
                | LockTarget::Role(_)
                | LockTarget::Request(_)
                | LockTarget::Serial(_),
            ..
        } => Some(visible(reason, target)),
        Reason::TargetLocked {
            target: LockTarget::Login(_) | LockTarget::Node(_),
            ..
        } => None,
        // Said of nodes she may know of alone; others are answered as if there were none.
        Reason::NotAllowedByCertificate { .. }
        | Reason::UnknownNode
        | Reason::LoginDenied { .. }
        | Reason::NodeDenied { .. }
        | Reason::RoleUnreadable { .. }
        | Reason::NotGranted
        | Reason::LoginNotGranted { .. }
        | Reason::RequestDemanded { .. }
        | Reason::NoLongerRequestable { .. } => None,
    });
    own.unwrap_or_else(|| no_such_node(target.rsplit_once('@').map_or(target, |(_, node)| node)))
}

fn visible(reason: &Reason, target: &str) -> String {
    let target = clean(target);
    match reason {
        Reason::UnknownUser => {
            "you are not a user of this proxy any more; ask its administrator".to_owned()
        }
        Reason::UnknownKey => {
            "the key you came with is not registered any more; ask the proxy's administrator"
                .to_owned()
        }
        Reason::CertificateEnded
        | Reason::CertificateRevoked { .. }
        | Reason::CertificateDemanded { .. }
        | Reason::PinDemanded { .. }
        | Reason::SecondFactorDemanded { .. }
        | Reason::NotAllowedByCertificate { .. } => clean(&reason.as_sentence()).into_owned(),
        Reason::Locked { message } if message.is_empty() => {
            "you are locked out; ask the proxy's administrator".to_owned()
        }
        Reason::Locked { message } => format!(
            "you are locked out: {}; ask the proxy's administrator",
            clean(message)
        ),
        Reason::TargetLocked {
            target: locked,
            message,
        } => target_locked(locked, message, &target),
        Reason::UnknownNode => {
            no_such_node(target.rsplit_once('@').map_or(&target, |(_, node)| node))
        }
        Reason::LoginDenied { role } => {
            format!(
                "your role `{role}` denies the login of `{target}` on every node; use another login, or ask the proxy's administrator"
            )
        }
        Reason::RoleUnreadable { role } => format!(
            "your role `{role}` can't be read by this version of the proxy, and denies everything until it is replaced; ask the proxy's administrator"
        ),
        Reason::NodeDenied { role } => {
            format!(
                "your role `{role}` denies the node of `{target}` for every login; ask the proxy's administrator"
            )
        }
        Reason::NotGranted => {
            format!(
                "no role that you have or may ask for grants `{target}`; `ssh access explain {target}` says more"
            )
        }
        Reason::LoginNotGranted { logins } => {
            let logins: Vec<String> = logins.iter().map(|login| format!("`{login}`")).collect();
            format!(
                "no role grants this login of `{target}`; the logins you can have there are {}",
                logins.join(", ")
            )
        }
        Reason::RequestDemanded { role } => format!(
            "your role `{role}` demands an approved request before `{target}` can be reached; ask for a role with `ssh access request create --roles ROLE` (`ssh access request search --roles` shows those you may ask for)"
        ),
        Reason::NoLongerRequestable { request, role } => format!(
            "request {request} was approved, but you may no longer ask for its role `{role}`; `ssh access request search --kind node` shows what you may ask for"
        ),
    }
}

/// What a lock on a person, her key or her role says to her.
#[must_use]
pub fn own_lock(lock: &Lock) -> String {
    barred(&Reason::of(lock))
}

/// Why a person may do nothing at all, said to her.
#[must_use]
pub fn barred(reason: &Reason) -> String {
    visible(reason, "")
}

/// What is locked beside the person, in her words; `target` is clean.
fn target_locked(locked: &LockTarget, message: &str, target: &str) -> String {
    let what = match locked {
        LockTarget::User(_) => "your account".to_owned(),
        LockTarget::Key(_) => "the key you came with".to_owned(),
        LockTarget::Serial(_) => "the certificate you came with".to_owned(),
        LockTarget::Role(role) => format!("role `{role}`"),
        LockTarget::Request(id) => format!("request {id}"),
        LockTarget::Login(login) => format!("login `{login}`"),
        LockTarget::Node(_) => format!("the node of `{target}`"),
    };
    if message.is_empty() {
        format!("{what} is locked; ask the proxy's administrator")
    } else {
        format!(
            "{what} is locked: {}; ask the proxy's administrator",
            clean(message)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_forbidden_read_the_same() {
        let hidden = |reason| Denial {
            reasons: vec![reason],
            visibility: Visibility::Hidden,
        };
        let unknown = denial(&hidden(Reason::UnknownNode), "root@iot");
        assert_eq!(denial(&hidden(Reason::NotGranted), "root@iot"), unknown);
        assert!(unknown.starts_with("no such node `iot`; "), "{unknown}");
    }

    #[test]
    fn a_locked_person_is_told_so_and_by_words_only() {
        let locked = Reason::Locked {
            message: "left\x1b[2J\nroot".to_owned(),
        };
        let said = denial(
            &Denial {
                reasons: vec![locked],
                visibility: Visibility::Hidden,
            },
            "root@iot",
        );
        assert_eq!(
            said,
            "you are locked out: left\\x1b[2J\\nroot; ask the proxy's administrator"
        );
    }
}
