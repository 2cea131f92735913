//! `where` of administrative rules: what a role lets its holder do with which objects.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use anteroom_core::admin::{AdminObject, AdminResource, AdminVerb, Rights, SessionObject, allowed};
use anteroom_core::documents::{self, Document};
use anteroom_core::lock::LockTarget;
use anteroom_core::predicate::{Fault, Predicate, RuleEnv, RuleWhere};
use anteroom_core::request::{Actor, FilingError, OverrideError, Wanted, check_override, file_for};
use anteroom_core::resource::Resource;
use anteroom_core::view::View;
use world::*;

/// The presets' people, and ada of team red, who has one role with these rules.
fn view(allow: &str, deny: &str) -> View {
    let text = format!(
        "kind: role\nmetadata: {{name: rules}}\nspec:\n  allow: {{rules: [{allow}]}}\n  deny: {{rules: [{deny}]}}\n"
    );
    let mut ada = a_user("ada", &[4], &["rules"], &[]);
    ada.traits.insert("team".to_owned(), vec!["red".to_owned()]);
    with_roles(small(), &text).with_user(ada).with_nodes([
        a_node(2, "red", &[("team", "red")]),
        a_node(3, "blue", &[("team", "blue")]),
    ])
}

fn rule(resources: &str, verbs: &str, condition: &str) -> String {
    format!(r#"{{resources: [{resources}], verbs: [{verbs}], where: {condition:?}}}"#)
}

fn may(view: &View, verb: AdminVerb, object: AdminObject<'_>) -> bool {
    allowed(view, &user("ada"), verb, object)
}

fn node(view: &View, n: u128) -> AdminObject<'_> {
    AdminObject::Node(view.node(&node_id(n)).unwrap())
}

#[test]
fn an_allow_rule_gives_what_its_condition_names_and_no_more() {
    let own = "contains(user.spec.traits[\"team\"], resource.metadata.labels[\"team\"])";
    let view = view(&rule("node", "list, update", own), "");
    assert!(may(&view, AdminVerb::Update, node(&view, 2)));
    // Another team's, one without a team, another verb, another kind, another person.
    assert!(!may(&view, AdminVerb::Update, node(&view, 3)));
    assert!(!may(&view, AdminVerb::Update, node(&view, 1)));
    assert!(!may(&view, AdminVerb::Delete, node(&view, 2)));
    let ada = view.user(&user("ada")).unwrap();
    assert!(!may(&view, AdminVerb::Update, AdminObject::User(ada)));
    assert!(!allowed(
        &view,
        &user("bob"),
        AdminVerb::Update,
        node(&view, 2)
    ));
    // Before there is an object, she may do it with some.
    let some = |verb, resource| Rights::new(&view, &user("ada"), verb, resource).exist();
    assert!(some(AdminVerb::List, AdminResource::Node));
    assert!(!some(AdminVerb::Delete, AdminResource::Node));
    assert!(!some(AdminVerb::List, AdminResource::User));
    // Rights over one kind say nothing of another.
    let rights = Rights::new(&view, &user("ada"), AdminVerb::List, AdminResource::Node);
    assert!(rights.cover(node(&view, 2)) && !rights.cover(AdminObject::User(ada)));
    // With the trait goes the right.
    let without = view.clone().with_user(a_user("ada", &[4], &["rules"], &[]));
    assert!(!may(&without, AdminVerb::Update, node(&without, 2)));
}

#[test]
fn a_deny_rule_wins_where_its_condition_holds() {
    let every = "{resources: ['*'], verbs: ['*']}";
    let blue = rule(
        "node",
        "'*'",
        "resource.metadata.labels[\"team\"] == \"blue\"",
    );
    let view = view(every, &blue);
    assert!(may(&view, AdminVerb::Delete, node(&view, 2)));
    assert!(!may(&view, AdminVerb::Delete, node(&view, 3)));
    assert!(Rights::new(&view, &user("ada"), AdminVerb::Delete, AdminResource::Node).exist());
    // Without a condition there is no object left.
    let view = self::view(every, "{resources: [node], verbs: ['*']}");
    assert!(!Rights::new(&view, &user("ada"), AdminVerb::Delete, AdminResource::Node).exist());
}

#[test]
fn what_cannot_be_evaluated_gives_nothing_and_denies() {
    // A name that this object has not, behind a condition that would be true without it.
    for fault in [
        "resource.spec.hostname != \"x\"",
        "true && !contains(session.participants, \"x\")",
        "email.local(resource.metadata.name) == \"x\" || true",
    ] {
        let allowing = view(&rule("'*'", "'*'", fault), "");
        let role = allowing.role(&role("access")).unwrap();
        let object = AdminObject::Role(role);
        assert!(!may(&allowing, AdminVerb::Read, object), "{fault}");
        let denying = view(
            "{resources: ['*'], verbs: ['*']}",
            &rule("'*'", "'*'", fault),
        );
        assert!(!may(&denying, AdminVerb::Read, object), "{fault}");
    }
    // What stands before it may decide.
    let guarded = "resource.kind == \"node\" && resource.spec.hostname == \"iot\"";
    let view = view(
        "{resources: ['*'], verbs: ['*']}",
        &rule("'*'", "'*'", guarded),
    );
    let ada = view.user(&user("ada")).unwrap();
    assert!(may(&view, AdminVerb::Read, AdminObject::User(ada)));
    assert!(!may(&view, AdminVerb::Read, node(&view, 1)));
}

#[test]
fn every_kind_of_object_has_its_names() {
    let base = view("{resources: ['*'], verbs: ['*']}", "");
    let mut wanted = wants_root_on_iot(&base);
    wanted.reason = "disk is full".to_owned();
    let mut request = filed(&base, &alice(), &wanted, 7, T0);
    request
        .system_annotations
        .insert("team".to_owned(), BTreeSet::from(["red".to_owned()]));
    let text = "kind: db\nversion: v3\nmetadata: {name: orders, labels: {env: dev}, description: Orders}\nspec: {protocol: mysql, uri: '10.0.0.6:3306'}\n";
    let documents = documents::parse(text).unwrap();
    let [Document::Resource(db)] = documents.as_slice() else {
        panic!("a database")
    };
    let alice_ = base.user(&user("alice")).unwrap();
    let access = base.role(&role("access")).unwrap();
    let (people, labels) = (
        BTreeSet::from([user("alice"), user("bob")]),
        BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
    );
    let session = SessionObject {
        id: "s1",
        participants: &people,
        server_labels: &labels,
    };
    let target = LockTarget::User(user("bob"));
    let holds = |object: AdminObject<'_>, text: &str| {
        let env = RuleEnv {
            user: base.user(&user("ada")).unwrap(),
            object,
        };
        let parsed = Predicate::<RuleWhere>::parse(text);
        let parsed = parsed.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(parsed.evaluate(&env), Ok(true), "{text}");
    };
    holds(
        node(&base, 2),
        "resource.metadata.name == '00000000-0000-0000-0000-000000000002' && resource.spec.hostname == 'red' && resource.spec.addr == '192.0.2.1:22' && resource.kind == 'node' && contains(labels_matching('te*'), 'red')",
    );
    holds(
        AdminObject::User(alice_),
        "resource.metadata.name == 'alice' && contains(resource.spec.roles, 'requester') && contains(resource.spec.traits['logins'], 'root') && !exists(resource.metadata.labels['x'])",
    );
    holds(
        AdminObject::Role(access),
        "resource.metadata.name == 'access' && has_prefix(resource.metadata.description, 'Log in') && resource.kind == 'role'",
    );
    holds(
        AdminObject::AccessRequest(&request),
        "resource.spec.user == 'alice' && contains_all(resource.spec.roles, set('access')) && resource.spec.request_reason == 'disk is full' && resource.spec.state == 'PENDING' && contains(resource.spec.resource_ids, '/example.com/node/00000000-0000-0000-0000-000000000001?logins=root') && resource.spec.system_annotations['team'].contains('red')",
    );
    holds(
        AdminObject::RequestsOf(&request.user),
        "resource.spec.user == 'alice' && resource.kind == 'access_request'",
    );
    holds(
        AdminObject::Lock {
            id: None,
            target: &target,
        },
        "resource.metadata.name == 'user/bob' && resource.spec.target.user == 'bob' && resource.spec.target.role == '' && user.metadata.name != resource.spec.target.user",
    );
    holds(
        AdminObject::Resource(db),
        "resource.metadata.name == 'orders' && resource.metadata.labels.env == 'dev' && resource.spec.addr == '10.0.0.6:3306' && resource.kind == 'db' && resource.metadata.description == 'Orders'",
    );
    holds(
        AdminObject::Session(session),
        "contains(session.participants, 'bob') && session_tracker.participants.contains('alice') && session.server_labels['env'] == 'prod' && resource.metadata.name == 's1'",
    );
    holds(
        AdminObject::CertAuthority("host"),
        "resource.spec.type == 'host' && contains(user.spec.roles, 'rules')",
    );
    holds(
        AdminObject::Events,
        "contains(user.spec.traits.team, 'red')",
    );
    holds(AdminObject::Tokens, "user.metadata.name == 'ada'");
}

/// One object of each kind that a rule may name.
fn samples<'a>(
    view: &'a View,
    request: &'a anteroom_core::request::AccessRequest,
    target: &'a LockTarget,
    rule: &'a anteroom_core::monitoring::MonitoringRule,
    others: &'a [Resource],
    people: &'a BTreeSet<anteroom_core::id::UserName>,
    labels: &'a BTreeMap<String, String>,
) -> Vec<AdminObject<'a>> {
    let mut samples = vec![
        AdminObject::User(view.user(&user("ada")).unwrap()),
        AdminObject::Role(view.role(&role("access")).unwrap()),
        node(view, 1),
        AdminObject::AccessRequest(request),
        AdminObject::Lock { id: None, target },
        AdminObject::MonitoringRule(rule),
        AdminObject::Session(SessionObject {
            id: "s1",
            participants: people,
            server_labels: labels,
        }),
        AdminObject::CertAuthority("user"),
        AdminObject::Events,
        AdminObject::Tokens,
    ];
    samples.extend(others.iter().map(AdminObject::Resource));
    samples
}

#[test]
fn a_name_is_refused_when_it_is_saved_where_evaluating_it_would_be_a_fault() {
    let view = view("", "");
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 7, T0);
    let text = "kind: access_monitoring_rule\nversion: v1\nmetadata: {name: r}\nspec: {subjects: [access_request], condition: 'true', desired_state: reviewed, automatic_review: {integration: builtin, decision: DENIED}}\n";
    let parsed = documents::parse(text).unwrap();
    let [Document::MonitoringRule(monitoring)] = parsed.as_slice() else {
        panic!("a rule")
    };
    let text = "kind: app\nversion: v3\nmetadata: {name: a}\nspec: {uri: 'http://10.0.0.5'}\n---\nkind: db\nversion: v3\nmetadata: {name: a}\nspec: {protocol: mysql, uri: '10.0.0.6:3306'}\n---\nkind: kube_cluster\nversion: v3\nmetadata: {name: a}\nspec: {}\n---\nkind: windows_desktop\nversion: v3\nmetadata: {name: a}\nspec: {addr: '10.0.0.7:3389'}\n";
    let others: Vec<Resource> = documents::parse(text)
        .unwrap()
        .into_iter()
        .map(|document| match document {
            Document::Resource(resource) => resource,
            other @ (Document::Role(_)
            | Document::User(_)
            | Document::Node(_)
            | Document::Lock(_)
            | Document::MonitoringRule(_)
            | Document::Token(_)) => panic!("{other:?}"),
        })
        .collect();
    let target = LockTarget::Role(role("access"));
    let (people, labels) = (BTreeSet::new(), BTreeMap::new());
    let samples = samples(
        &view, &request, &target, monitoring, &others, &people, &labels,
    );
    let kinds: BTreeSet<AdminResource> = samples.iter().map(|o| o.resource()).collect();
    assert_eq!(kinds, AdminResource::ALL.into_iter().collect());
    // A text, a list, a map of texts or a map of lists: one of these forms reads each name.
    let forms = [
        "@ == 'x'",
        "is_empty(@)",
        "@['k'] == 'x'",
        "is_empty(@['k'])",
    ];
    let names = include_str!("predicate_contexts.txt");
    let (_, names) = names.split_once("the `where` of a rule\n").unwrap();
    let names = names.lines().map_while(|line| line.strip_prefix("    "));
    let mut seen = 0;
    for name in names.filter(|name| !name.contains(' ')) {
        seen += 1;
        let forms = forms.map(|form| form.replace('@', name));
        let mut read = forms
            .iter()
            .filter_map(|form| Some((form, Predicate::<RuleWhere>::parse(form).ok()?)));
        let (form, predicate) = read.next().unwrap_or_else(|| panic!("{name}"));
        for object in &samples {
            let kind = object.resource();
            let env = RuleEnv {
                user: view.user(&user("ada")).unwrap(),
                object: *object,
            };
            let fault = matches!(predicate.evaluate(&env), Err(Fault::NoSuchName { .. }));
            let role = format!(
                "kind: role\nmetadata: {{name: x}}\nspec: {{allow: {{rules: [{}]}}}}\n",
                rule(kind.as_str(), "'*'", form)
            );
            let refused = documents::parse(&role).is_err();
            assert_eq!(fault, refused, "{name} of {}", kind.as_str());
        }
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_rule_over_several_kinds_may_use_a_name_of_one_of_them() {
    let role = |resources: &str| {
        let condition = "resource.spec.hostname == 'iot'";
        let rule = rule(resources, "'*'", condition);
        documents::parse(&format!(
            "kind: role\nmetadata: {{name: x}}\nspec: {{allow: {{rules: [{rule}]}}}}\n"
        ))
    };
    for resources in ["node", "node, user", "'*'", "trusted_cluster"] {
        role(resources).unwrap_or_else(|error| panic!("{resources}: {error}"));
    }
    for resources in ["user", "session, event"] {
        assert!(role(resources).is_err(), "{resources}");
    }
}

#[test]
fn who_files_for_others_files_what_her_rules_cover() {
    let for_alice = rule(
        "access_request",
        "create",
        "resource.spec.user == \"alice\" && !contains(resource.spec.roles, \"dba\")",
    );
    let text = "kind: role\nmetadata: {name: dba}\n---\nkind: role\nmetadata: {name: asks}\nspec: {allow: {request: {roles: [dba], search_as_roles: [access]}}}\n";
    let view = with_roles(view(&for_alice, ""), text).with_users([
        a_user("alice", &[0], &["asks"], &["root"]),
        a_user("dave", &[5], &["asks"], &["root"]),
    ]);
    let ada = Actor::User(user("ada"));
    let files = |who: &str, by: &Actor, wanted: &Wanted| {
        file_for(&view, &user(who), by, wanted, request_id(1), T0)
    };
    let node = wants_root_on_iot(&view);
    let dba = Wanted::roles(roles(&["dba"]));
    assert!(files("alice", &ada, &node).is_ok());
    assert_eq!(files("alice", &ada, &dba), Err(FilingError::NotAllowed));
    assert_eq!(files("dave", &ada, &node), Err(FilingError::NotAllowed));
    let bob = Actor::User(user("bob"));
    assert_eq!(files("alice", &bob, &node), Err(FilingError::NotAllowed));
    assert!(files("dave", &Actor::LocalAdministrator, &dba).is_ok());
    assert_eq!(
        files("alice", &Actor::Clock, &node),
        Err(FilingError::NotAllowed)
    );
    // What is there already is joined by who may file it, and told to nobody else.
    let pending = filed(&view, &alice(), &dba, 9, T0);
    let view = view.clone().with_request(pending);
    let joined = file_for(&view, &user("alice"), &ada, &dba, request_id(2), T0);
    assert_eq!(joined, Err(FilingError::NotAllowed));
}

#[test]
fn why_somebody_can_not_have_something_is_told_where_the_rules_cover_her() {
    let only_alice = rule(
        "access_request",
        "create",
        "resource.spec.user == \"alice\"",
    );
    let view = view(&only_alice, "");
    let ada = Actor::User(user("ada"));
    // carol has it, and alice may not ask for it.
    let wanted = Wanted::roles(roles(&["access"]));
    let files = |who: &str| file_for(&view, &user(who), &ada, &wanted, request_id(1), T0);
    assert_eq!(files("carol"), Err(FilingError::NotAllowed));
    let why = files("alice");
    assert!(
        matches!(why, Err(FilingError::RoleNotRequestable(_))),
        "{why:?}"
    );
}

#[test]
fn an_override_takes_the_right_to_write_that_very_role() {
    let own = rule(
        "role",
        "create, update",
        "resource.metadata.labels.team == \"red\"",
    );
    let text = "kind: role\nmetadata: {name: ours, labels: {team: red}}\n---\nkind: role\nmetadata: {name: theirs, labels: {team: blue}}\n";
    let view = with_roles(view(&own, ""), text);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 7, T0);
    let check = |by: &str, name: &str| {
        check_override(&view, &Actor::User(user(by)), &request, &roles(&[name]))
    };
    assert_eq!(check("ada", "ours"), Ok(()));
    let refused = OverrideError::NotAllowed(role("theirs"));
    assert_eq!(check("ada", "theirs"), Err(refused));
    let missing = OverrideError::NoSuchRole(role("nosuch"));
    assert_eq!(check("ada", "nosuch"), Err(missing));
    let refused = OverrideError::NotAllowed(role("nosuch"));
    assert_eq!(check("bob", "nosuch"), Err(refused));
}
