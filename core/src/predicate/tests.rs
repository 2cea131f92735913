//! What the language says, what it refuses and with which words, and that nothing but budget and
//! types stands between a text and its value.

mod naive;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::user::User;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    pairs.iter().map(owned).collect()
}

fn user() -> User {
    let mut user = User::new("alice".parse().unwrap());
    user.roles = ["dev".parse().unwrap(), "sre".parse().unwrap()].into();
    user.logins = vec!["root".parse().unwrap()];
    let values = |all: &[&str]| all.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    user.traits = [
        ("team".to_owned(), values(&["red", "blue", ""])),
        (
            "allowed-env".to_owned(),
            values(&["env-dev", "env-staging", "other"]),
        ),
        ("email".to_owned(), values(&["alice@example.com"])),
        ("broken".to_owned(), values(&["nobody"])),
    ]
    .into();
    user
}

fn on_node(text: &str, pairs: &[(&str, &str)]) -> Result<bool, Fault> {
    let predicate: Predicate<NodeLabels> =
        Predicate::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let (labels, user) = (labels(pairs), user());
    predicate.evaluate(&NodeLabelsEnv {
        labels: &labels,
        user: &user,
    })
}

fn true_on(text: &str, pairs: &[(&str, &str)]) {
    assert_eq!(on_node(text, pairs), Ok(true), "{text}");
}

fn false_on(text: &str, pairs: &[(&str, &str)]) {
    assert_eq!(on_node(text, pairs), Ok(false), "{text}");
}

fn refused<C: Context>(text: &str) -> String {
    match Predicate::<C>::parse(text) {
        Ok(_) => panic!("`{text}` is accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn labels_are_compared_with_both_spellings_of_a_key_and_all_quotes() {
    let prod = [("env", "prod"), ("my-os", "linux")];
    for text in [
        r#"labels["env"] == "prod""#,
        "labels['env'] == 'prod'",
        "labels[`env`] == `prod`",
        "labels.env == \"prod\"",
        "\"prod\" == labels.env",
        "equals(labels.env, \"prod\")",
        "labels[\"my-os\"] != 'mac'",
        "!(labels.env == 'dev')",
        "labels.env == 'dev' || labels.env == 'prod' && labels['my-os'] == 'linux'",
        "(labels.env == 'dev') == false",
        "\n  labels.env == \"prod\" &&\n\ttrue\n",
        "hasPrefix(labels.env, 'pr')",
        "strings.upper(labels.env) == 'PROD'",
        "contains(split('dev,prod', ','), labels.env)",
        "regexp.match(labels.env, '^(prod|dev)$')",
        "regexp.match(labels.env, 'pr*')",
        "contains_any(set('prod', 'dev'), labels_matching('e*'))",
        "set('prod').contains(labels.env)",
        "union(set('a'), labels.env).contains('prod')",
        "user.metadata.name == 'alice'",
        "strings.replaceall(labels.env, 'od', 'ud') == 'prud'",
        "is_empty(set('prod').remove(labels.env))",
        "set().add('x').isempty() == false",
        "labels['\\x65nv'] == 'pr\\u006fd'",
    ] {
        true_on(text, &prod);
    }
    for text in [
        "labels.env == 'PROD'",
        "labels['my-os'] == 'mac'",
        "labels.env == 'prod' && labels.env == 'dev'",
        "hasPrefix('pr', labels.env)",
        "regexp.match(labels.env, 'pro')",
        "regexp.match(labels.env, '^pro|dev$')",
    ] {
        false_on(text, &prod);
    }
}

#[test]
fn a_missing_label_is_an_empty_text_that_is_in_no_list() {
    true_on("labels.env == ''", &[]);
    true_on("labels.env != 'prod'", &[]);
    false_on("exists(labels.env)", &[]);
    true_on("exists(labels.env)", &[("env", "")]);
    // The trait `team` has an empty value, which must not open every node without the label.
    false_on("contains(user.spec.traits.team, labels.team)", &[]);
    false_on(
        "contains_any(user.spec.traits.team, set('', labels.team))",
        &[],
    );
    false_on("contains_all(user.spec.traits.team, set(''))", &[]);
    false_on("regexp.match(labels.env, '*')", &[]);
    true_on("is_empty(labels.env)", &[]);
}

#[test]
fn traits_are_lists_and_those_that_are_missing_are_empty() {
    let red = [
        ("team", "red"),
        ("project-a", "blue"),
        ("owner", "alice"),
        ("env", "dev"),
    ];
    for text in [
        r#"contains(user.spec.traits["team"], labels["team"])"#,
        r#"contains_any(user.spec.traits["team"], labels_matching("project-*"))"#,
        r#"contains_all(user.spec.traits["team"], labels_matching("^(team|project-.)$"))"#,
        r#"contains(email.local(user.spec.traits["email"]), labels["owner"])"#,
        r#"contains(regexp.replace(user.spec.traits["allowed-env"], "^env-(.*)$", "$1"), labels["env"])"#,
        r#"!contains(regexp.replace(user.spec.traits["allowed-env"], "^env-(.*)$", "$1"), "other")"#,
        "contains(user.spec.traits.logins, 'root')",
        "user.spec.traits['team'].contains('blue')",
        "is_empty(user.spec.traits.none)",
        "exists(user.spec.traits.team) && !exists(user.spec.traits.none)",
    ] {
        true_on(text, &red);
    }
    // Nothing is asked for, so nothing is given: as in Teleport.
    false_on(
        "contains_all(user.spec.traits.team, labels_matching('none-*'))",
        &red,
    );
    false_on("contains(user.spec.traits.none, labels.team)", &red);
}

#[test]
fn a_fault_allows_nothing_and_denies_everything() {
    let (labels, user) = (labels(&[("owner", "nobody")]), user());
    let env = NodeLabelsEnv {
        labels: &labels,
        user: &user,
    };
    for text in [
        "contains(email.local(user.spec.traits.broken), labels.owner)",
        "!contains(email.local(user.spec.traits.broken), labels.owner)",
        "email.local('x@') == 'x' || true",
    ] {
        let predicate: Predicate<NodeLabels> = Predicate::parse(text).unwrap();
        assert!(
            matches!(predicate.evaluate(&env), Err(Fault::NotAnEmail(_))),
            "{text}"
        );
        assert!(!predicate.allows(&env));
        assert!(predicate.denies(&env));
    }
    // What decides before the fault decides.
    true_on("true || email.local('x@') == 'x'", &[]);
}

#[test]
fn replacements_inside_replacements_end_at_the_budget() {
    let mut text = "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'".to_owned();
    for _ in 0..20 {
        text = format!("regexp.replace({text}, '^(.*)$', '$1$1$1$1')");
    }
    assert_eq!(
        on_node(&format!("contains({text}, 'b')"), &[]),
        Err(Fault::TooMuch)
    );
    let mut text = "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'".to_owned();
    for _ in 0..20 {
        text = format!("strings.replaceall({text}, 'a', 'aaaa')");
    }
    assert_eq!(on_node(&format!("{text} == 'b'"), &[]), Err(Fault::TooMuch));
    let many = vec!["'abch'"; 400].join(",");
    let text = format!("contains_any(set({many}), set({}))", many.replace('h', "i"));
    assert_eq!(on_node(&text, &[]), Err(Fault::TooMuch));
}

#[test]
fn what_does_not_make_sense_is_refused_with_its_place_and_a_way_out() {
    let list = [
        "",
        " \n ",
        "lables.env == 'x'",
        "labels",
        "labels == 'x'",
        "labels.env",
        "labels.env = 'x'",
        "labels.env == 'x' & true",
        "labels.env == 'x' and labels.os == 'y'",
        "labels.my-env == 'x'",
        "labels[env] == 'x'",
        "user.spec.traits[teams].contains('x')",
        "user.spec.traits['team'] == 'x'",
        "labels.env == \"x",
        "labels.env == “x”",
        "labels.env == 5",
        "labels.env > 'a'",
        "labels.env == 'x')",
        "(labels.env == 'x'",
        "contains(user.spec.traits.team)",
        "contains(user.spec.traits.team 'x')",
        "containz(user.spec.traits.team, 'x')",
        "frobnicate('x')",
        "ifelse(true, 'a', 'b') == 'a'",
        "dict()",
        "labels.env.contains_all('x', 'y')",
        "labels.env.startswith('x')",
        "search('x')",
        "name == 'x'",
        "contains",
        "contains == 'x'",
        r#"regexp.match(labels["team"], "dev-team-\d+$")"#,
        "regexp.match(labels.team, 'dev-team-\\\\d+$')",
        "regexp.match(labels.team, '^dev')",
        "regexp.match(labels.team, '^(dev$')",
        "regexp.match(labels.team, '^(a{1000}){1000}$')",
        "regexp.match(labels.team, labels.env)",
        "regexp.replace(labels.team, '(', 'x').contains('x')",
        "labels.env == 'a' &&\n  lables.os == 'b'",
        "exists(labels)",
        "!labels.env",
        "true == 'true'",
        "labels['a'].b == 'x'",
        "labels['a']['b'] == 'x'",
        ".",
        "labels.",
        "clock_between('x', '09:00', '17:00')",
    ];
    let mut out = String::new();
    for text in list {
        out.push_str(&format!("{text}\n    {}\n", refused::<NodeLabels>(text)));
    }
    golden("predicate_refusals.txt", &out);
}

#[test]
fn each_context_has_its_names_and_no_other() {
    let mut out = String::new();
    fn names<C: Context>(out: &mut String) {
        out.push_str(&format!("{}\n", C::PLACE));
        for (name, _) in C::NAMES {
            out.push_str(&format!("    {name}\n"));
        }
        out.push_str(&format!("    {}\n", refused::<C>("access_request == 'x'")));
        out.push_str(&format!(
            "    {}\n",
            refused::<C>("review.annotations['x'].contains('y')")
        ));
        out.push_str(&format!(
            "    {}\n",
            refused::<C>("resource.spec.public_addr == 'y'")
        ));
        out.push_str(&format!(
            "    {}\n",
            refused::<C>("labels_matching(labels.x).contains('y')")
        ));
    }
    names::<NodeLabels>(&mut out);
    names::<Resource>(&mut out);
    names::<ReviewWhere>(&mut out);
    names::<ThresholdFilter>(&mut out);
    names::<RuleWhere>(&mut out);
    names::<MonitoringRule>(&mut out);
    golden("predicate_contexts.txt", &out);
}

fn golden(name: &str, now: &str) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, now).unwrap();
    }
    let then = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(now, then, "UPDATE_GOLDEN=1 writes {}", file.display());
}

#[test]
fn an_error_shows_the_place_with_a_caret() {
    let error =
        Predicate::<NodeLabels>::parse("labels.env == 'a' &&\n  lables.os == 'b'").unwrap_err();
    assert_eq!((error.line(), error.column()), (2, 3));
    assert_eq!(error.excerpt(), "  lables.os == 'b'\n  ^");
    let long = format!("{}x == 'b'", "true && ".repeat(20));
    let error = Predicate::<NodeLabels>::parse(&long).unwrap_err();
    let excerpt = error.excerpt();
    let (line, caret) = excerpt.split_once('\n').unwrap();
    assert_eq!(&line[caret.len() - 1..], "x == 'b'");
}

#[test]
fn a_query_knows_a_resource() {
    let labels = labels(&[("env", "Prod")]);
    let env = ResourceEnv {
        kind: "node",
        metadata_name: "bbb56211-7b54-4f9e-bee9-b68ea156be5f",
        name: "iot",
        hostname: "iot",
        addr: "192.0.2.7:22",
        description: "the one in the cellar",
        labels: &labels,
    };
    for text in [
        "name == 'iot' && resource.spec.hostname == name",
        "resource.kind == 'node'",
        "hasPrefix(resource.metadata.name, 'bbb')",
        "has_prefix(resource.metadata.name, 'bbb') && !has_prefix(name, 'bbb')",
        "search('IOT', 'prod', '192.0', 'cellar')",
        "resource.metadata.description != ''",
        "resource.metadata.labels.env == 'Prod'",
        "resource.spec.addr == '192.0.2.7:22'",
    ] {
        assert!(
            Predicate::<Resource>::parse(text).unwrap().allows(&env),
            "{text}"
        );
    }
    assert!(
        !Predicate::<Resource>::parse("search('iot', 'dev')")
            .unwrap()
            .allows(&env)
    );
}

#[test]
fn a_rule_knows_the_request_and_its_requester() {
    let user = user();
    let (a, b) = (
        labels(&[("env", "dev"), ("os", "x")]),
        labels(&[("env", "dev"), ("os", "y")]),
    );
    let none = labels(&[]);
    let annotations = [("team".to_owned(), ["red".to_owned()].into())].into();
    let env = MonitoringEnv {
        roles: &user.roles,
        suggested_reviewers: &["bob".parse().unwrap()].into(),
        annotations: &annotations,
        user: &user,
        reason: "an on-call matter",
        created: time::macros::datetime!(2026-11-20 10:00 UTC),
        expires: time::macros::datetime!(2026-11-20 22:00 UTC),
        resources: &[&a, &b],
    };
    let holds = |text: &str, env: &MonitoringEnv<'_>| {
        let parsed = Predicate::<MonitoringRule>::parse(text);
        let predicate = parsed.unwrap_or_else(|error| panic!("{text}: {error}"));
        // The predicate has to live as long as the environment.
        Box::leak(Box::new(predicate)).allows(env)
    };
    for text in [
        r#"access_request.spec.roles.contains("dev")"#,
        r#"contains_all(set("dev", "sre", "ops"), access_request.spec.roles)"#,
        r#"contains_any(user.traits["team"], set("red", "stage"))"#,
        r#"access_request.spec.roles.contains_all(set("sre"))"#,
        r#"regexp.match(set(access_request.spec.request_reason), "*on-call*")"#,
        r#"regexp.match(user.traits["team"], "^r.d$") && !is_empty(access_request.spec.roles)"#,
        r#"access_request.spec.user == "alice" && access_request.spec.suggested_reviewers.contains("bob")"#,
        r#"access_request.spec.system_annotations["team"].contains("red")"#,
        r#"access_request.spec.resource_labels_intersection["env"].contains("dev")"#,
        r#"access_request.spec.resource_labels_union["os"].contains_all(set("x", "y"))"#,
        r#"is_empty(access_request.spec.resource_labels_intersection["os"])"#,
        r#"access_request.spec.creation_time.day() == "Friday""#,
        r#"access_request.spec.creation_time.clock_between("09:00", "17:00")"#,
    ] {
        assert!(holds(text, &env), "{text}");
    }
    let with_unlabelled = MonitoringEnv {
        resources: &[&a, &none],
        ..env
    };
    let without = MonitoringEnv {
        resources: &[],
        ..env
    };
    let shared = r#"access_request.spec.resource_labels_intersection["env"].contains("dev")"#;
    assert!(!holds(shared, &with_unlabelled));
    assert!(!holds(shared, &without));
    assert!(!holds(
        r#"clock_between(access_request.spec.creation_time, "10:00", "17:00")"#,
        &env
    ));
}

#[test]
fn a_review_knows_reviewer_and_request() {
    let user = user();
    let annotations = BTreeMap::new();
    let env = ReviewEnv {
        reviewer: &user,
        roles: &["dba".parse().unwrap()].into(),
        reason: "incident 7",
        annotations: &annotations,
        review_reason: "ok",
    };
    let text = r#"contains(reviewer.roles, "sre") && contains(request.roles, "dba") && reviewer.traits["team"].contains("red")"#;
    assert!(Predicate::<ReviewWhere>::parse(text).unwrap().allows(&env));
    let text = r#"equals(request.reason, "incident 7") && !equals(review.reason, "")"#;
    assert!(
        Predicate::<ThresholdFilter>::parse(text)
            .unwrap()
            .allows(&env)
    );
    refused::<ReviewWhere>(text);
}

#[test]
fn what_is_stored_and_no_longer_parses_allows_nothing_and_is_kept() {
    let stored: Stored<ThresholdFilter> = serde_json::from_str("\"gone(1)\"").unwrap();
    let (user, annotations) = (user(), BTreeMap::new());
    let env = ReviewEnv {
        reviewer: &user,
        roles: &user.roles,
        reason: "",
        annotations: &annotations,
        review_reason: "",
    };
    assert!(!stored.allows(&env));
    assert!(stored.denies(&env));
    assert_eq!(serde_json::to_string(&stored).unwrap(), "\"gone(1)\"");
    let stored: Stored<ThresholdFilter> = serde_json::from_str("\"true\"").unwrap();
    assert!(stored.allows(&env));
}

#[test]
fn depth_and_length_are_bounded() {
    let deep = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert!(Predicate::<NodeLabels>::parse(&deep(40)).is_ok());
    for text in [
        deep(4000),
        "!".repeat(8000),
        format!("labels{}", ".a".repeat(4000)),
        format!("labels{}", "['a']".repeat(1000)),
        format!("x{}", "(".repeat(8000)),
        vec!["true"; 1000].join("=="),
    ] {
        assert!(
            refused::<NodeLabels>(&text).contains("nested"),
            "{text:.40}"
        );
    }
    let chain = vec!["true"; 1000].join(" && ");
    true_on(&chain, &[]);
    assert!(refused::<NodeLabels>(&"x".repeat(TEXT_LIMIT + 1)).contains("the limit is 8192"));
}

/// Trees of conditions that make sense on a node.
fn conditions() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "", "red", "blue", "dev", "env-dev", "team", "env", "a@b",
    ]);
    let word = word.prop_map(|w| format!("{w:?}"));
    let text = prop_oneof![
        word.clone(),
        word.clone().prop_map(|w| format!("labels[{w}]")),
        Just("labels.env".to_owned()),
        Just("user.metadata.name".to_owned()),
    ];
    let text = text.prop_recursive(2, 4, 1, |inner| {
        prop_oneof![
            inner.clone().prop_map(|t| format!("strings.upper({t})")),
            inner
                .clone()
                .prop_map(|t| format!("labels[strings.lower({t})]")),
            inner.clone().prop_map(|t| format!("email.local({t})")),
            inner.prop_map(|t| format!("strings.replaceall({t}, 'e', 'xy')")),
        ]
    });
    let list = prop_oneof![
        text.clone(),
        prop::collection::vec(text.clone(), 0..4).prop_map(|t| format!("set({})", t.join(", "))),
        text.clone().prop_map(|t| format!("user.spec.traits[{t}]")),
        word.clone().prop_map(|w| format!("labels_matching({w})")),
        Just("labels_matching('*')".to_owned()),
        Just("user.spec.traits.team".to_owned()),
    ];
    let list = list.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|l| format!("regexp.replace({l}, '^env-(.*)$', '$1')")),
            inner
                .clone()
                .prop_map(|l| format!("regexp.replace({l}, 'e', 'f')")),
            inner.clone().prop_map(|l| format!("split({l}, 'e')")),
            inner.clone().prop_map(|l| format!("email.local({l})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("union({a}, {b})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("union({a}, {b}).remove('red')")),
        ]
    });
    let leaf = prop_oneof![
        Just("true".to_owned()),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a} == {b}")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a} != {b}")),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("hasPrefix({a}, {b})")),
        (list.clone(), text).prop_map(|(l, t)| format!("contains({l}, {t})")),
        (list.clone(), list.clone()).prop_map(|(a, b)| format!("contains_any({a}, {b})")),
        (list.clone(), list.clone()).prop_map(|(a, b)| format!("contains_all({a}, {b})")),
        list.clone().prop_map(|l| format!("is_empty({l})")),
        list.prop_map(|l| format!("regexp.match({l}, '^(red|.*v)$')")),
        word.prop_map(|w| format!("exists(labels[{w}])")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) == ({b})")),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|parts| format!("({})", parts.join(" && "))),
            prop::collection::vec(inner, 2..4)
                .prop_map(|parts| format!("({})", parts.join(" || "))),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn evaluation_agrees_with_a_naive_one(
        text in conditions(),
        pairs in prop::collection::btree_map(
            prop::sample::select(vec!["env", "team", "red", "a@b"]),
            prop::sample::select(vec!["", "dev", "red", "env-dev", "a@b"]),
            0..4,
        ),
    ) {
        let predicate: Predicate<NodeLabels> = Predicate::parse(&text).map_err(|error| {
            TestCaseError::fail(format!("{text}: {error}"))
        })?;
        let pairs: Vec<_> = pairs.into_iter().collect();
        let (labels, user) = (labels(&pairs), user());
        let naive = naive::evaluate(&syntax::parse(&text).unwrap(), &labels, &user);
        let env = NodeLabelsEnv { labels: &labels, user: &user };
        prop_assert_eq!(predicate.evaluate(&env).ok(), naive, "{}", text);
    }

    #[test]
    fn what_is_printed_is_read_again_as_the_same(text in conditions()) {
        let tree = syntax::parse(&text).unwrap();
        let printed = tree.to_string();
        let again = syntax::parse(&printed).map_err(|error| {
            TestCaseError::fail(format!("{printed}: {error}"))
        })?;
        prop_assert_eq!(&again, &tree);
        prop_assert_eq!(again.to_string(), printed);
    }

    #[test]
    fn no_text_panics_and_what_parses_ends(text in texts()) {
        if let Ok(tree) = syntax::parse(&text) {
            prop_assert_eq!(syntax::parse(&tree.to_string()).unwrap(), tree);
        }
        match Predicate::<NodeLabels>::parse(&text) {
            Ok(predicate) => {
                let (labels, user) = (labels(&[("env", "dev")]), user());
                let env = NodeLabelsEnv { labels: &labels, user: &user };
                prop_assert!(!predicate.allows(&env) || predicate.denies(&env));
            }
            Err(error) => {
                let shown = format!("{error}\n{}", error.excerpt());
                let raw = shown.contains(['\u{1b}', '\u{202e}']);
                prop_assert!(!raw, "a terminal would obey");
            }
        }
    }
}

/// Anything, and things that look like expressions.
fn texts() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "labels",
        "user.spec.traits",
        ".",
        "[",
        "]",
        "(",
        ")",
        ",",
        "==",
        "!=",
        "&&",
        "||",
        "!",
        "'a'",
        "\"b",
        "`c`",
        "contains",
        "set",
        "regexp.match",
        "true",
        " ",
        "\n",
        "\\",
        "é",
        "\u{202e}",
        "\u{1b}",
        "-",
        "0",
        "x",
        "'^(a|b)$'",
        "labels.env",
        "search",
        "email.local",
    ]);
    prop_oneof![
        any::<String>(),
        prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat()),
    ]
}
