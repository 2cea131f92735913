//! Applications, databases, Kubernetes clusters and desktops: who reaches, asks for and knows of
//! what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod golden;
mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anteroom_core::documents::{self, Document};
use anteroom_core::id::{ResourceId, RoleName};
use anteroom_core::pattern::Pattern;
use anteroom_core::policy::{
    Extent, Identity, KubeFilter, known_resources, requestable_objects, requestable_resources,
};
use anteroom_core::request::{
    AccessRequest, Action, Actor, Filed, FilingError, Terms, Verdict, Wanted, apply, file, review,
};
use anteroom_core::resource::Kind;
use anteroom_core::view::View;
use proptest::prelude::*;
use world::*;

const RESOURCES: &str = r"
kind: app
version: v3
metadata: {name: grafana, labels: {env: dev}, description: Dashboards}
spec: {uri: 'http://10.0.0.5:3000', public_addr: grafana.example.com}
---
kind: app
version: v3
metadata: {name: payroll, labels: {env: prod}}
spec: {uri: 'https://10.0.0.5'}
---
kind: db
version: v3
metadata: {name: orders, labels: {env: dev}}
spec: {protocol: postgres, uri: '10.0.0.6:5432'}
---
kind: db
version: v3
metadata: {name: ledger, labels: {env: prod}}
spec: {protocol: mysql, uri: '10.0.0.6:3306'}
---
kind: kube_cluster
version: v3
metadata: {name: local, labels: {env: dev}}
spec: {}
---
kind: kube_cluster
version: v3
metadata: {name: live, labels: {env: prod}}
---
kind: windows_desktop
version: v3
metadata: {name: win1, labels: {env: dev}}
spec: {addr: '10.0.0.7:3389', domain: corp.example.com}
---
kind: windows_desktop
version: v3
metadata: {name: bare}
spec: {addr: '10.0.0.8:3389'}
";

/// One role for each of the ways in which the guides limit a kind, in words of our own.
const ROLES: &str = r"
kind: role
version: v5
metadata: {name: db-dev}
spec: {allow: {db_labels: {env: [dev, staging]}, db_users: [viewer], db_names: ['*']}}
---
kind: role
version: v5
metadata: {name: apps-but-prod}
spec: {allow: {app_labels: {'*': '*'}}, deny: {app_labels: {env: prod}}}
---
kind: role
version: v4
metadata: {name: desktops-dev}
spec: {allow: {windows_desktop_labels: {env: [dev, staging]}, windows_desktop_logins: ['{{internal.windows_logins}}']}}
---
kind: role
version: v8
metadata: {name: kube-dev-all}
spec:
  allow:
    kubernetes_labels: {env: dev}
    kubernetes_resources: [{kind: '*', namespace: '*', name: '*', api_group: '*'}]
---
kind: role
version: v8
metadata: {name: kube-pods}
spec:
  allow:
    kubernetes_labels: {'*': '*'}
    kubernetes_resources:
      - {kind: pods, namespace: '*', name: 'nginx*', api_group: ''}
      - {kind: pods, namespace: dev, name: '*', api_group: ''}
    kubernetes_groups: [viewers]
---
kind: role
version: v8
metadata: {name: kube-namespace-prod}
spec:
  allow:
    kubernetes_labels: {'*': '*'}
    kubernetes_resources: [{kind: namespaces, api_group: '', name: prod, verbs: ['*']}]
---
kind: role
version: v7
metadata: {name: kube-namespace-v7}
spec:
  allow:
    kubernetes_labels: {'*': '*'}
    kubernetes_resources: [{kind: namespace, name: prod}]
---
kind: role
version: v6
metadata: {name: kube-v6}
spec:
  allow:
    kubernetes_labels: {env: dev}
    kubernetes_resources: [{kind: pod, namespace: dev, name: '*'}]
---
kind: role
metadata: {name: no-secrets}
spec: {deny: {kubernetes_resources: [{kind: secrets, namespace: '*', name: '*'}]}}
---
kind: role
metadata: {name: no-kube-prod}
spec: {deny: {kubernetes_labels: {env: prod}, db_labels: {env: prod}}}
---
kind: role
version: v3
metadata: {name: old}
spec: {allow: {logins: [root]}}
---
kind: role
metadata: {name: ask-all}
spec: {allow: {request: {search_as_roles: [db-dev, apps-but-prod, desktops-dev, kube-dev-all, kube-pods, kube-namespace-prod]}}}
---
kind: role
metadata: {name: ask-pods}
spec: {allow: {request: {search_as_roles: [kube-dev-all], kubernetes_resources: [{kind: pods, api_group: ''}]}}}
---
kind: role
metadata: {name: ask-apps-and-pods}
spec: {allow: {request: {search_as_roles: [kube-dev-all], kubernetes_resources: [{kind: deployments, api_group: apps}, {kind: pods}]}}}
---
kind: role
metadata: {name: ask-any-object}
spec: {allow: {request: {search_as_roles: [kube-dev-all], kubernetes_resources: [{kind: '*', api_group: '*'}]}}}
---
kind: role
version: v7
metadata: {name: ask-pods-v7}
spec: {allow: {request: {search_as_roles: [kube-dev-all], kubernetes_resources: [{kind: pod}]}}}
---
kind: role
metadata: {name: never-secrets}
spec: {deny: {request: {kubernetes_resources: [{kind: secrets}]}}}
---
kind: role
metadata: {name: ask-namespace-v7}
spec: {allow: {request: {search_as_roles: [kube-namespace-v7]}}}
---
kind: role
metadata: {name: ask-v6}
spec: {allow: {request: {search_as_roles: [kube-v6]}}}
---
kind: role
metadata: {name: reviews-all}
spec: {allow: {review_requests: {roles: ['*']}}}
";

const HOLDINGS: [&[&str]; 17] = [
    &[],
    &["access"],
    &["requester"],
    &["old"],
    &["db-dev", "apps-but-prod", "desktops-dev"],
    &["kube-dev-all"],
    &["kube-pods"],
    &["ask-all"],
    &["ask-all", "kube-pods"],
    &["ask-all", "no-secrets"],
    &["requester", "no-kube-prod"],
    &["ask-pods"],
    &["ask-apps-and-pods"],
    &["ask-any-object", "never-secrets"],
    &["ask-pods-v7"],
    &["ask-namespace-v7"],
    &["ask-v6"],
];

const WANTED: [&str; 24] = [
    "app/grafana",
    "app/payroll",
    "app/nothing",
    "db/orders",
    "db/ledger",
    "windows_desktop/win1",
    "windows_desktop/bare",
    "kube_cluster/local",
    "kube_cluster/live",
    "kube_cluster/nothing",
    "kube:ns:pods/local/dev/nginx-1",
    "kube:ns:pods/local/dev/*",
    "kube:ns:pods/local/*/*",
    "kube:ns:pods/local/*/nginx-*",
    "kube:ns:pods/local/*/^nginx-[a-z0-9-]+$",
    "kube:ns:pods/live/prod/nginx-1",
    "kube:ns:deployments.apps/local/dev/website",
    "kube:ns:secrets/local/dev/token",
    "kube:ns:*.*/local/prod/*",
    "kube:ns:*.*/local/*/*",
    "kube:cw:namespaces/local/prod",
    "kube:cw:namespaces/local/^dev-[a-z0-9-]+$",
    "kube:cw:*.*/local/*",
    "kube:ns:pods/nothing/dev/nginx-1",
];

fn kinds() -> View {
    let documents = documents::parse(RESOURCES).unwrap();
    let resources = documents.into_iter().map(|document| match document {
        Document::Resource(resource) => resource,
        other @ (Document::Role(_)
        | Document::User(_)
        | Document::Node(_)
        | Document::Lock(_)
        | Document::MonitoringRule(_)
        | Document::Token(_)) => {
            panic!("{other:?}")
        }
    });
    with_roles(small(), ROLES)
        .with_resources(resources)
        .with_users([a_user("bob", &[2], &["reviewer", "reviews-all"], &["bob"])])
}

fn holding(view: &View, held: &[&str]) -> View {
    view.clone()
        .with_user(a_user("alice", &[0, 1], held, &["alice"]))
}

fn id(short: &str) -> ResourceId {
    format!("/example.com/{short}").parse().unwrap()
}

fn ids(short: &[&str]) -> BTreeSet<ResourceId> {
    short.iter().map(|text| id(text)).collect()
}

fn wanted(short: &[&str]) -> Wanted {
    Wanted::resources(ids(short))
}

fn ask(view: &View, short: &[&str]) -> Result<Filed, FilingError> {
    file(view, &alice(), &wanted(short), request_id(1), T0)
}

fn roles_of(request: &AccessRequest) -> Vec<&str> {
    request.roles.iter().map(RoleName::as_str).collect()
}

/// What becomes of asking for it, in a word or two.
fn answer(view: &View, short: &str) -> String {
    match ask(view, &[short]) {
        Ok(Filed::New(new)) => format!("ask {}", roles_of(&new.request).join(",")),
        Ok(other) => panic!("{other:?}"),
        Err(FilingError::Reachable(_)) => "works".to_owned(),
        Err(FilingError::UnknownResource(_)) => "unknown".to_owned(),
        Err(FilingError::NotGranted(_)) => "not granted".to_owned(),
        Err(FilingError::KubeKinds {
            possible, never, ..
        }) => {
            let words = |kinds: BTreeSet<String>| kinds.into_iter().collect::<Vec<_>>().join(",");
            let never = words(never);
            let but = if never.is_empty() {
                never
            } else {
                format!(" but {never}")
            };
            format!("only {}{but}", words(possible))
        }
        Err(other) => panic!("{short}: {other}"),
    }
}

#[test]
fn who_reaches_asks_for_and_knows_of_what() {
    let base = kinds();
    let mut table = String::new();
    for held in HOLDINGS {
        let view = holding(&base, held);
        writeln!(
            table,
            "alice has {}",
            if held.is_empty() {
                "nothing".to_owned()
            } else {
                held.join(", ")
            }
        )
        .unwrap();
        for short in WANTED {
            writeln!(table, "  {short:<44} {}", answer(&view, short)).unwrap();
        }
        table.push('\n');
    }
    golden::compare("decisions_kinds.txt", &table);
}

#[test]
fn what_is_listed_is_what_can_be_asked_for() {
    let base = kinds();
    for held in HOLDINGS {
        let view = holding(&base, held);
        for kind in Kind::ALL {
            let listed = requestable_resources(&view, &alice(), kind, T0);
            for resource in view.resources_of(kind) {
                let short = format!("{kind}/{}", resource.name);
                let found = listed.iter().find(|one| one.resource == *resource);
                let answer = answer(&view, &short);
                match found.map(|found| &found.extent) {
                    Some(Extent::Whole(roles)) => {
                        let roles: Vec<&str> = roles.iter().map(RoleName::as_str).collect();
                        assert_eq!(
                            answer,
                            format!("ask {}", roles.join(",")),
                            "{held:?} {short}"
                        );
                    }
                    Some(Extent::Objects) => assert!(
                        !answer.starts_with("ask") && answer != "unknown",
                        "{held:?} {short}"
                    ),
                    None => assert!(!answer.starts_with("ask"), "{held:?} {short}: {answer}"),
                }
                let known =
                    !known_resources(&view, &alice(), Some(kind), resource.name.as_str(), T0)
                        .is_empty();
                assert_eq!(known, answer != "unknown", "{held:?} {short}");
            }
        }
        for found in requestable_objects(&view, &alice(), None, &KubeFilter::default(), T0) {
            let answer = answer(&view, &found.id.short());
            assert!(
                answer.starts_with("ask "),
                "{held:?} {}: {answer}",
                found.id
            );
        }
    }
}

#[test]
fn the_patterns_that_can_be_asked_for_are_narrowed_by_the_search() {
    let view = holding(&kinds(), &["ask-all"]);
    let found = |filter: KubeFilter, cluster: Option<&str>| -> Vec<String> {
        let found = requestable_objects(&view, &alice(), cluster, &filter, T0);
        found.iter().map(|found| found.id.short()).collect()
    };
    let all = found(KubeFilter::default(), None);
    assert!(all.contains(&"kube:ns:*.*/local/*/*".to_owned()), "{all:?}");
    assert!(
        all.contains(&"kube:ns:pods/live/*/nginx*".to_owned()),
        "{all:?}"
    );
    // What a wider pattern holds needs no line of its own.
    assert!(
        !all.contains(&"kube:ns:pods/local/dev/*".to_owned()),
        "{all:?}"
    );
    let filter = KubeFilter {
        plural: Some("pods".to_owned()),
        group: Some(String::new()),
        namespace: Some("dev".to_owned()),
    };
    assert_eq!(
        found(filter.clone(), Some("local")),
        ["kube:ns:pods/local/dev/*"]
    );
    assert_eq!(found(filter.clone(), Some("nothing")), [""; 0]);
    let other = KubeFilter {
        plural: Some("secrets".to_owned()),
        ..filter
    };
    assert_eq!(found(other, Some("live")), [""; 0]);
}

#[test]
fn a_mixed_request_asks_through_every_role_that_grants_one_of_them() {
    let view = holding(&kinds(), &["ask-all", "requester"]);
    let mut ids = ids(&["db/orders", "app/grafana", "kube:ns:pods/live/prod/nginx-1"]);
    ids.insert(ResourceId::node(view.cluster().clone(), node_id(1)));
    let filed = filed(&view, &alice(), &Wanted::resources(ids), 1, T0);
    assert_eq!(
        roles_of(&filed),
        ["access", "apps-but-prod", "db-dev", "kube-pods"]
    );
    // Through named roles only those, and a role that grants none of it is no help.
    let through = |names: &[&str]| Wanted {
        roles: roles(names),
        ..wanted(&["db/orders"])
    };
    let request = world::filed(&view, &alice(), &through(&["db-dev"]), 2, T0);
    assert_eq!(roles_of(&request), ["db-dev"]);
    let idle = file(&view, &alice(), &through(&["kube-pods"]), request_id(3), T0);
    assert!(
        matches!(idle, Err(FilingError::RoleDoesNotHelp(_))),
        "{idle:?}"
    );
}

#[test]
fn what_an_approval_gives_works_and_only_until_it_ends() {
    let view = holding(&kinds(), &["ask-all"]);
    let request = filed(
        &view,
        &alice(),
        &wanted(&["db/orders", "kube:ns:pods/local/dev/*"]),
        1,
        T0,
    );
    let open = approved(&view, &request, T0);
    let after = view.clone().with_request(open.clone());
    for short in [
        "db/orders",
        "kube:ns:pods/local/dev/*",
        "kube:ns:pods/local/dev/web",
    ] {
        let again = file(&after, &alice(), &wanted(&[short]), request_id(2), T0);
        assert_eq!(again, Ok(Filed::Covered(request.id)), "{short}");
    }
    assert!(answer(&after, "app/grafana").starts_with("ask"));
    assert!(answer(&after, "kube:ns:pods/local/prod/web").starts_with("ask"));
    // Another key has nothing of it, and after its end nobody has.
    let other = Identity::from_proven_key(user("alice"), key(1));
    let filed = file(&after, &other, &wanted(&["db/orders"]), request_id(2), T0).unwrap();
    assert!(matches!(filed, Filed::New(_)), "{filed:?}");
    let late = file(
        &after,
        &alice(),
        &wanted(&["db/orders"]),
        request_id(2),
        open.access_expires,
    );
    assert!(matches!(late, Ok(Filed::New(_))), "{late:?}");
    // The right to ask is taken away, and with it what was approved.
    let stripped = after.with_user(a_user("alice", &[0], &[], &[]));
    assert_eq!(answer(&stripped, "db/orders"), "unknown");
}

/// An administrator gives `support`, which nobody could have asked for, in place of `dba`.
const SUPPORT: &str = "kind: role\nmetadata: {name: support}\nspec: {allow: {db_labels: {'*': '*'}}}\n---\nkind: role\nmetadata: {name: dba}\n---\nkind: role\nmetadata: {name: asks-dba}\nspec: {allow: {request: {roles: [dba]}}}\n---\nkind: role\nmetadata: {name: no-support}\nspec: {deny: {request: {roles: [support]}}}\n";

#[test]
fn what_an_administrator_put_in_gives_databases_as_it_gives_nodes() {
    let erin = a_user("erin", &[4], &["editor"], &[]);
    let view = with_roles(kinds(), SUPPORT).with_user(erin);
    let view = holding(&view, &["asks-dba"]);
    let request = filed(&view, &alice(), &Wanted::roles(roles(&["dba"])), 1, T0);
    let action = Action::Override {
        roles: roles(&["support"]),
        terms: Terms::default(),
        reason: String::new(),
    };
    let given = apply(&request, &action, &Actor::User(user("erin")), T0).unwrap();
    assert_eq!(answer(&view, "db/orders"), "unknown");
    let view = view.with_request(given);
    let again = file(&view, &alice(), &wanted(&["db/orders"]), request_id(2), T0);
    assert!(
        matches!(
            again,
            Ok(Filed::Covered(_)) | Err(FilingError::Reachable(_))
        ),
        "{again:?}"
    );
    // What her roles deny her to ask for is not given like this either.
    let denied = holding(&view, &["asks-dba", "no-support"]);
    assert_eq!(answer(&denied, "db/orders"), "unknown");
}

#[test]
fn a_reviewer_may_narrow_to_resources_and_inside_a_cluster() {
    let view = holding(&kinds(), &["ask-all"]);
    let request = filed(
        &view,
        &alice(),
        &wanted(&["db/orders", "kube_cluster/local"]),
        1,
        T0,
    );
    let only = |short: &[&str]| {
        Verdict::Approve(Terms {
            resources: Some(ids(short)),
            ..Terms::default()
        })
    };
    let narrow = |short: &[&str]| review(&view, &user("bob"), &request, only(short), "", T0);
    let given = narrow(&["kube:ns:pods/local/dev/*"]).unwrap().request;
    let after = view.clone().with_request(given);
    assert_eq!(
        ask(&after, &["kube:ns:pods/local/dev/web"]),
        Ok(Filed::Covered(request.id))
    );
    assert!(answer(&after, "db/orders").starts_with("ask"));
    assert!(answer(&after, "kube:ns:secrets/local/dev/x").starts_with("ask"));
    for more in ["db/ledger", "kube:ns:pods/live/dev/*", "app/grafana"] {
        assert!(narrow(&[more]).is_err(), "{more}");
    }
    let pods = filed(
        &view,
        &alice(),
        &wanted(&["kube:ns:pods/local/dev/*"]),
        2,
        T0,
    );
    let wider = review(
        &view,
        &user("bob"),
        &pods,
        only(&["kube:ns:pods/local/*/*"]),
        "",
        T0,
    );
    assert!(wider.is_err(), "{wider:?}");
}

#[test]
fn unknown_and_forbidden_resources_are_answered_with_the_same_words() {
    let view = holding(&kinds(), &["requester", "no-kube-prod"]);
    for (forbidden, unknown) in [
        ("db/ledger", "db/nobody"),
        ("kube_cluster/live", "kube_cluster/nobo"),
        ("kube:ns:pods/live/a/b", "kube:ns:pods/nobo/a/b"),
    ] {
        let words = |short: &str| {
            let name = short.split('/').nth(1).unwrap();
            ask(&view, &[short])
                .unwrap_err()
                .to_string()
                .replace(name, "NAME")
        };
        assert_eq!(words(forbidden), words(unknown));
    }
}

#[test]
fn resources_of_another_cluster_are_unknown() {
    let view = holding(&kinds(), &["access"]);
    let elsewhere = Wanted::resources(BTreeSet::from(["/other.com/db/orders".parse().unwrap()]));
    let refused = file(&view, &alice(), &elsewhere, request_id(1), T0);
    assert!(
        matches!(refused, Err(FilingError::UnknownResource(_))),
        "{refused:?}"
    );
}

#[test]
fn a_locked_search_role_gives_nothing_and_hides_nothing() {
    use anteroom_core::lock::{Lock, LockTarget};
    let view = holding(&kinds(), &["ask-all"]);
    let lock = Lock {
        id: anteroom_core::id::LockId::from_uuid(uuid::Uuid::from_u128(9)),
        target: LockTarget::Role(role("db-dev")),
        message: "incident".to_owned(),
        created: T0,
        expires: None,
        created_by: "erin".to_owned(),
    };
    let locked = view.with_lock(lock);
    assert_eq!(answer(&locked, "db/orders"), "not granted");
    assert_eq!(answer(&locked, "db/ledger"), "unknown");
    assert!(answer(&locked, "app/grafana").starts_with("ask"));
}

#[test]
fn a_resource_document_goes_there_and_back() {
    for document in documents::parse(RESOURCES).unwrap() {
        let Document::Resource(resource) = &document else {
            panic!("{document:?}")
        };
        let yaml = documents::to_yaml(&documents::resource_to_json(resource)).unwrap();
        assert_eq!(
            documents::parse(&yaml).unwrap(),
            std::slice::from_ref(&document),
            "{yaml}"
        );
        let json = serde_json::to_string(resource).unwrap();
        assert_eq!(
            serde_json::from_str::<anteroom_core::resource::Resource>(&json).unwrap(),
            *resource
        );
        assert_eq!(
            document.title(),
            format!("{}/{}", resource.kind(), resource.name)
        );
    }
}

#[test]
fn a_role_with_kubernetes_fields_is_the_same_read_back() {
    for document in documents::parse(ROLES).unwrap() {
        let Document::Role(role) = document else {
            panic!("roles only")
        };
        let yaml = documents::to_yaml(&role.source).unwrap();
        assert_eq!(documents::parse_role(&yaml).unwrap(), *role, "{yaml}");
    }
}

/// Patterns over a small alphabet: literals, globs, lists of words, other expressions.
fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab]{0,3}",
        "[ab*]{1,4}",
        "\\^[ab]{1,2}\\|[ab]{1,2}\\$",
        "\\^a[ab]?\\.\\*\\$",
        Just("*".to_owned()),
    ]
}

/// Every text over the alphabet of up to four letters.
fn texts() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..4 {
        last = last
            .iter()
            .flat_map(|text| ["a", "b"].map(|letter| format!("{text}{letter}")))
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

proptest! {
    #[test]
    fn a_pattern_that_contains_another_matches_all_that_it_matches(a in pattern(), b in pattern()) {
        let (wide, narrow) = (Pattern::parse(&a).unwrap(), Pattern::parse(&b).unwrap());
        let texts = texts();
        if wide.contains(&narrow) {
            for text in texts.iter().filter(|text| narrow.matches(text)) {
                prop_assert!(wide.matches(text), "{a} contains {b}, and not {text}");
            }
        }
        // For what is listed word by word it is not only sound but complete.
        if narrow.literal().is_some() {
            prop_assert_eq!(wide.contains(&narrow), wide.matches(&b));
        }
        let both = texts.iter().any(|text| wide.matches(text) && narrow.matches(text));
        prop_assert!(!both || wide.might_share(&narrow), "{a} and {b} share a text");
    }

    /// Objects granted by a rule, against an evaluator that looks at single objects only.
    #[test]
    fn a_role_that_holds_a_pattern_of_objects_holds_each_of_them(
        rule in (pattern(), pattern(), "(a|b|\\*)"),
        asked in (pattern(), pattern(), "(a|b|\\*)"),
    ) {
        let id = |(namespace, name, kind): &(String, String, String)| {
            format!("/c/kube:ns:{kind}/k/{namespace}/{name}").parse::<ResourceId>().ok()
        };
        let (Some(rule_id), Some(asked_id)) = (id(&rule), id(&asked)) else {
            return Ok(());
        };
        if !rule_id.covers(&asked_id) {
            return Ok(());
        }
        let matches = |pattern: &str, text: &str| Pattern::parse(pattern).unwrap().matches(text);
        for namespace in texts().iter().filter(|text| matches(&asked.0, text)) {
            prop_assert!(matches(&rule.0, namespace), "{rule_id} covers {asked_id}");
        }
        for name in texts().iter().filter(|text| matches(&asked.1, text)) {
            prop_assert!(matches(&rule.1, name), "{rule_id} covers {asked_id}");
        }
        prop_assert!(rule.2 == "*" || rule.2 == asked.2);
    }
}

#[test]
fn malformed_resource_ids_are_refused_with_the_part_that_is_wrong() {
    let cases = [
        "",
        "db/orders",
        "/example.com",
        "/example.com/db",
        "/example.com/db/",
        "//db/orders",
        "/exa mple/db/orders",
        "/example.com/database/orders",
        "/example.com/node/iot",
        "/example.com/node/BBB56211-7B54-4F9E-BEE9-B68EA156BE5F",
        "/example.com/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?logins=",
        "/example.com/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?logins=a,,b",
        "/example.com/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?login=root",
        "/example.com/kube:ns:pods/local/dev",
        "/example.com/kube:ns:pods/local//x",
        "/example.com/kube:ns:pods//dev/x",
        "/example.com/kube:ns:Pods/local/dev/x",
        "/example.com/kube:ns:pod*/local/dev/x",
        "/example.com/kube:ns:deployments./local/dev/x",
        "/example.com/kube:ns:/local/dev/x",
        "/example.com/kube:ns:pods/local/dev/^(a$",
        "/example.com/kube:cw:namespaces/prod",
        "/example.com/kube:xx:pods/local/dev/x",
        "/example.com/db/a\tb",
    ];
    let mut table = String::new();
    for case in cases {
        let error = ResourceId::parse(case).expect_err(case);
        writeln!(table, "{}\n    {error}", case.escape_default()).unwrap();
    }
    let long = format!("/example.com/db/{}", "a".repeat(2048));
    writeln!(
        table,
        "2064 bytes\n    {}",
        ResourceId::parse(&long).unwrap_err()
    )
    .unwrap();
    golden::compare("bad_resource_ids.txt", &table);
}
