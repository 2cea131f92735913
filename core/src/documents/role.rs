//! `kind: role`.

use std::collections::BTreeMap;

use time::Duration;

use crate::admin::{AdminResource, AdminVerb};
use crate::claims::ClaimMapping;
use crate::duration::format as format_duration;
use crate::id::{Login, RoleName, UserName};
use crate::pattern::{Pattern, PatternError};
use crate::predicate::{RuleWhere, Stored};
use crate::resource::Kind;
use crate::role::{
    Accounts, Conditions, DurationFrom, Options, ReasonConditions, ReasonMode, RequestConditions,
    ResourceConditions, ReviewConditions, Role, Rule, Set, Threshold,
};
use crate::selector::{LabelSelector, LabelValue, Template};

use super::at::{At, Fields, Map, alternatives};
use super::tree::Yaml;
use super::{DocumentProblem, Mistake, kube, options, read_metadata, words};

/// The longest `request.max_duration` (REQUESTS section 3).
const MAX_DURATION_LIMIT: Duration = Duration::days(14);

const SPEC: Fields = Fields {
    served: &["allow", "deny", "options"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const CONDITIONS: Fields = Fields {
    served: &[
        "logins",
        "node_labels",
        "node_labels_expression",
        "app_labels",
        "app_labels_expression",
        "db_labels",
        "db_labels_expression",
        "db_names",
        "db_users",
        "db_roles",
        "kubernetes_labels",
        "kubernetes_labels_expression",
        "kubernetes_resources",
        "kubernetes_groups",
        "kubernetes_users",
        "windows_desktop_labels",
        "windows_desktop_labels_expression",
        "windows_desktop_logins",
        "request",
        "review_requests",
        "rules",
    ],
    teleport: &[
        "account_assignments",
        "aws_role_arns",
        "azure_identities",
        "cluster_labels",
        "cluster_labels_expression",
        "db_permissions",
        "db_service_labels",
        "db_service_labels_expression",
        "desktop_groups",
        "gcp_service_accounts",
        "github_permissions",
        "group_labels",
        "group_labels_expression",
        "host_groups",
        "host_sudoers",
        "impersonate",
        "join_sessions",
        "mcp",
        "namespaces",
        "require_session_join",
        "spiffe",
        "workload_identity_labels",
        "workload_identity_labels_expression",
    ],
    later: &[],
    only_allow: &[],
};

const REQUEST: Fields = Fields {
    served: &[
        "roles",
        "search_as_roles",
        "kubernetes_resources",
        "max_duration",
        "duration_from",
        "suggested_reviewers",
        "reason",
        "thresholds",
        "claims_to_roles",
        "annotations",
    ],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const DENY_REQUEST: Fields = Fields {
    served: &[
        "roles",
        "search_as_roles",
        "kubernetes_resources",
        "claims_to_roles",
        "annotations",
    ],
    only_allow: &[
        "max_duration",
        "duration_from",
        "suggested_reviewers",
        "reason",
        "thresholds",
    ],
    ..REQUEST
};

const REASON: Fields = Fields {
    served: &["mode", "prompt"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const THRESHOLD: Fields = Fields {
    served: &["name", "filter", "approve", "deny"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const REVIEW: Fields = Fields {
    served: &["roles", "claims_to_roles", "where", "preview_as_roles"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const DENY_REVIEW: Fields = Fields {
    served: &["roles", "claims_to_roles", "where"],
    only_allow: &["preview_as_roles"],
    ..REVIEW
};

const CLAIM: Fields = Fields {
    served: &["claim", "value", "roles"],
    teleport: &[],
    later: &[],
    only_allow: &[],
};

const RULE: Fields = Fields {
    served: &["resources", "verbs", "where"],
    teleport: &["actions"],
    later: &[],
    only_allow: &[],
};

/// Which side of a role is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Allow,
    Deny,
}

/// Reads a role; `top` is the checked top level of `tree`.
pub(super) fn read(top: &Map<'_>, tree: &Yaml) -> Result<Role, Mistake> {
    let metadata = read_metadata(top)?;
    let name = metadata.name.parsed(RoleName::parse)?;
    let mut role = Role {
        name,
        description: metadata.description,
        labels: metadata.labels,
        allow: Conditions::default(),
        deny: Conditions::default(),
        options: Options::default(),
        source: tree.to_json(),
        unreadable: None,
    };
    let version = top.get("version").map(|at| at.text()).transpose()?;
    let kube = kube::Version::of(version);
    if let Some(spec) = top.get("spec") {
        let spec = spec.map(&SPEC)?;
        if let Some(allow) = spec.get("allow") {
            role.allow = read_conditions(&allow, Side::Allow, kube)?;
        }
        if let Some(deny) = spec.get("deny") {
            role.deny = read_conditions(&deny, Side::Deny, kube)?;
        }
        if let Some(options) = spec.get("options") {
            role.options = options::read(&options)?;
        }
    }
    if version == Some("v3") && role.allow.node_labels.is_empty() {
        // v3 defaults to everything, v4 and later to nothing (REQUESTS section 2).
        role.allow.node_labels = LabelSelector::everything();
    }
    let resources = &mut role.allow.resources;
    for kind in Kind::ALL {
        if version == Some("v3") && resources.labels(kind).is_empty() {
            *resources.labels_mut(kind) = LabelSelector::everything();
        }
    }
    if !resources.kubernetes_labels.is_empty() {
        kube::complete(&mut resources.kubernetes_resources, kube, version);
    }
    Ok(role)
}

fn read_conditions(at: &At<'_>, side: Side, version: kube::Version) -> Result<Conditions, Mistake> {
    let map = at.map(&CONDITIONS)?;
    let mut conditions = Conditions::default();
    if let Some(logins) = map.get("logins") {
        conditions.logins = logins
            .list()?
            .iter()
            .map(read_login)
            .collect::<Result<_, _>>()?;
    }
    conditions.node_labels = read_selector(&map, "node_labels", "node_labels_expression", side)?;
    conditions.resources = read_resources(&map, side, version)?;
    if let Some(request) = map.get("request") {
        conditions.request = read_request(&request, side, version)?;
    }
    if let Some(review) = map.get("review_requests") {
        conditions.review_requests = read_review(&review, side)?;
    }
    if let Some(rules) = map.get("rules") {
        conditions.rules = rules
            .list()?
            .iter()
            .map(read_rule)
            .collect::<Result<_, _>>()?;
    }
    Ok(conditions)
}

/// The fields for what is no node.
fn read_resources(
    map: &Map<'_>,
    side: Side,
    version: kube::Version,
) -> Result<ResourceConditions, Mistake> {
    let selector = |labels, expression| read_selector(map, labels, expression, side);
    let names = |field: &str| match map.get(field) {
        Some(at) => at.list()?.iter().map(read_account).collect(),
        None => Ok(Vec::new()),
    };
    Ok(ResourceConditions {
        app_labels: selector("app_labels", "app_labels_expression")?,
        db_labels: selector("db_labels", "db_labels_expression")?,
        kubernetes_labels: selector("kubernetes_labels", "kubernetes_labels_expression")?,
        windows_desktop_labels: selector(
            "windows_desktop_labels",
            "windows_desktop_labels_expression",
        )?,
        kubernetes_resources: kube::read_rules(map, version)?,
        accounts: Accounts {
            db_names: names("db_names")?,
            db_users: names("db_users")?,
            db_roles: names("db_roles")?,
            windows_desktop_logins: names("windows_desktop_logins")?,
            kubernetes_groups: names("kubernetes_groups")?,
            kubernetes_users: names("kubernetes_users")?,
        },
    })
}

/// The name of an account or a database; what else than a name it must be, those who serve it say.
fn read_account(at: &At<'_>) -> Result<Template, Mistake> {
    let template = at.template(Template::parse)?;
    if template.as_str().is_empty() {
        return Err(at.mistake(DocumentProblem::Value {
            field: at.path(),
            value: String::new(),
            wanted: "a name, a template or '*'".to_owned(),
        }));
    }
    Ok(template)
}

/// A login, which has to be one where it is written out. What a template expands to is dropped if it is
/// none, and so is Teleport's own word for "no login at all", which its tools write into roles.
fn read_login(at: &At<'_>) -> Result<Template, Mistake> {
    const NO_LOGIN: &str = "-teleport-nologin-";
    let template = at.template(Template::parse)?;
    if template.is_literal() && !template.as_str().starts_with(NO_LOGIN) {
        at.parsed(Login::parse)?;
    }
    Ok(template)
}

/// Labels and the expression beside them: what selects resources of one kind.
fn read_selector(
    map: &Map<'_>,
    labels: &str,
    expression: &str,
    side: Side,
) -> Result<LabelSelector, Mistake> {
    let selector = match map.get(labels) {
        Some(at) => read_labels(&at)?,
        None => LabelSelector::default(),
    };
    Ok(match (map.condition(expression)?, side) {
        (None, Side::Allow | Side::Deny) => selector,
        (Some(condition), Side::Allow) => selector.narrowed_by(condition),
        (Some(condition), Side::Deny) => selector.widened_by(condition),
    })
}

fn read_labels(at: &At<'_>) -> Result<LabelSelector, Mistake> {
    let mut keys = BTreeMap::new();
    for (key, value) in at.free_entries()? {
        let values: Vec<LabelValue> = value
            .one_or_many()?
            .iter()
            .map(|item| item.template(LabelValue::parse))
            .collect::<Result<_, _>>()?;
        if key == "*" && !values.iter().any(LabelValue::is_anything) {
            return Err(value.mistake(DocumentProblem::Wildcard {
                field: value.path(),
            }));
        }
        keys.insert(key.to_owned(), values);
    }
    Ok(LabelSelector::new(keys))
}

fn read_patterns(map: &Map<'_>, field: &str) -> Result<Vec<Pattern>, Mistake> {
    let Some(at) = map.get(field) else {
        return Ok(Vec::new());
    };
    let pattern =
        |item: &At<'_>| Pattern::parse(item.plain()?).map_err(|problem| bad_pattern(item, problem));
    at.list()?.iter().map(pattern).collect()
}

fn bad_pattern(at: &At<'_>, problem: PatternError) -> Mistake {
    at.mistake(DocumentProblem::Pattern {
        field: at.path(),
        problem,
    })
}

fn read_claims(map: &Map<'_>) -> Result<Vec<ClaimMapping>, Mistake> {
    match map.get("claims_to_roles") {
        Some(at) => at.list()?.iter().map(read_claim).collect(),
        None => Ok(Vec::new()),
    }
}

fn read_claim(at: &At<'_>) -> Result<ClaimMapping, Mistake> {
    const HINT: &str = "a mapping has `claim` (a trait), `value` and `roles`";
    let map = at.map(&CLAIM)?;
    let claim = map.required("claim", HINT)?;
    if claim.plain()?.is_empty() {
        return Err(claim.mistake(DocumentProblem::Missing {
            field: claim.path(),
            hint: HINT,
        }));
    }
    let value = map.required("value", HINT)?;
    let roles = map.required("roles", HINT)?.list()?;
    let texts: Vec<&str> = roles
        .iter()
        .map(|role| role.plain())
        .collect::<Result<_, _>>()?;
    ClaimMapping::new(claim.text()?.to_owned(), value.plain()?, &texts).map_err(
        |(role, problem)| {
            let place = role.and_then(|index| roles.get(index)).unwrap_or(&value);
            bad_pattern(place, problem)
        },
    )
}

fn read_annotations(map: &Map<'_>) -> Result<BTreeMap<String, Vec<Template>>, Mistake> {
    let mut annotations = BTreeMap::new();
    let Some(at) = map.get("annotations") else {
        return Ok(annotations);
    };
    for (key, value) in at.free_entries()? {
        let values = value.one_or_many()?;
        let values = values.iter().map(|item| item.template(Template::parse));
        annotations.insert(key.to_owned(), values.collect::<Result<_, _>>()?);
    }
    Ok(annotations)
}

fn read_request(
    at: &At<'_>,
    side: Side,
    version: kube::Version,
) -> Result<RequestConditions, Mistake> {
    let map = at.map(match side {
        Side::Allow => &REQUEST,
        Side::Deny => &DENY_REQUEST,
    })?;
    let max_duration = map.duration("max_duration")?;
    if let (Some(value), Some(at)) = (max_duration, map.get("max_duration"))
        && value > MAX_DURATION_LIMIT
    {
        return Err(at.mistake(DocumentProblem::TooMuch {
            field: at.path(),
            value: format_duration(value),
            limit: format_duration(MAX_DURATION_LIMIT),
        }));
    }
    let duration_from = match map.get("duration_from") {
        Some(at) if at.word(&["creation", "approval"])? == "approval" => {
            Some(DurationFrom::Approval)
        }
        Some(_) => Some(DurationFrom::Creation),
        None => None,
    };
    Ok(RequestConditions {
        roles: read_patterns(&map, "roles")?,
        claims_to_roles: read_claims(&map)?,
        search_as_roles: map.all("search_as_roles", RoleName::parse)?,
        kubernetes_resources: kube::read_kinds(&map, version)?,
        max_duration,
        duration_from,
        suggested_reviewers: map.all("suggested_reviewers", UserName::parse)?,
        reason: map
            .get("reason")
            .map(|at| read_reason(&at))
            .transpose()?
            .unwrap_or_default(),
        thresholds: match map.get("thresholds") {
            Some(at) => at
                .list()?
                .iter()
                .map(read_threshold)
                .collect::<Result<_, _>>()?,
            None => Vec::new(),
        },
        annotations: read_annotations(&map)?,
    })
}

fn read_reason(at: &At<'_>) -> Result<ReasonConditions, Mistake> {
    let map = at.map(&REASON)?;
    let mode = match map.get("mode") {
        Some(at) if at.word(&["optional", "required"])? == "required" => ReasonMode::Required,
        Some(_) | None => ReasonMode::Optional,
    };
    Ok(ReasonConditions {
        mode,
        prompt: map.text("prompt")?,
    })
}

fn read_threshold(at: &At<'_>) -> Result<Threshold, Mistake> {
    let map = at.map(&THRESHOLD)?;
    let count = |field| map.get(field).map_or(Ok(0), |at| at.count());
    let threshold = Threshold {
        name: map.text("name")?.unwrap_or_default(),
        filter: map.condition("filter")?.map(Stored::from),
        approve: count("approve")?,
        deny: count("deny")?,
    };
    if threshold.approve == 0 && threshold.deny == 0 {
        let field = at.path();
        return Err(at.mistake(DocumentProblem::IdleThreshold { field }));
    }
    Ok(threshold)
}

fn read_review(at: &At<'_>, side: Side) -> Result<ReviewConditions, Mistake> {
    let map = at.map(match side {
        Side::Allow => &REVIEW,
        Side::Deny => &DENY_REVIEW,
    })?;
    Ok(ReviewConditions {
        roles: read_patterns(&map, "roles")?,
        claims_to_roles: read_claims(&map)?,
        condition: map.condition("where")?,
        preview_as_roles: map.all("preview_as_roles", RoleName::parse)?,
    })
}

fn read_rule(at: &At<'_>) -> Result<Rule, Mistake> {
    const HINT: &str = "a rule has `resources` and `verbs`, each a list or ['*']";
    let map = at.map(&RULE)?;
    let resources = map.required("resources", HINT)?;
    let verbs = map.required("verbs", HINT)?;
    let resource = |text: &str| AdminResource::ALL.into_iter().find(|r| r.as_str() == text);
    let verb = |text: &str| match text {
        // Nothing that Anteroom shows has a secret in it.
        "readnosecrets" => Some(AdminVerb::Read),
        _ => AdminVerb::ALL
            .into_iter()
            .find(|verb| verb.as_str() == text),
    };
    let resource_words = AdminResource::ALL.map(AdminResource::as_str);
    let verb_words = AdminVerb::ALL.map(AdminVerb::as_str);
    let resources = read_set(&resources, &resource_words, resource, words::RESOURCES)?;
    let condition = map.condition::<RuleWhere>("where")?;
    if let (Some(condition), Some(at), Set::Only(kinds)) =
        (&condition, map.get("where"), &resources)
    {
        condition.check_kinds(kinds).map_err(|problem| {
            at.mistake(DocumentProblem::Predicate {
                field: at.path(),
                problem,
            })
        })?;
    }
    Ok(Rule {
        resources,
        verbs: read_set(&verbs, &verb_words, verb, words::VERBS)?,
        condition,
    })
}

/// `elsewhere` are words of Teleport's for which there is nothing here to allow or to deny.
pub(super) fn read_set<T>(
    at: &At<'_>,
    served: &[&str],
    known: impl Fn(&str) -> Option<T>,
    elsewhere: &[&str],
) -> Result<Set<T>, Mistake> {
    let mut only = Vec::new();
    let mut every = false;
    for item in at.list()? {
        let text = item.text()?;
        match known(text) {
            _ if text == "*" => every = true,
            Some(known) => only.push(known),
            None if elsewhere.contains(&text) => {}
            None if words::LATER_VERBS.contains(&text) => {
                let field = format!("{}: {text}", item.path());
                return Err(item.mistake(DocumentProblem::NotServed { field }));
            }
            None => {
                let words: Vec<&str> = served.iter().copied().chain(["'*'"]).collect();
                return Err(item.mistake(DocumentProblem::Value {
                    field: item.path(),
                    value: crate::id::printable(text),
                    wanted: alternatives(&words),
                }));
            }
        }
    }
    Ok(if every { Set::Every } else { Set::Only(only) })
}
