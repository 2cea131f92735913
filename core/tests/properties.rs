//! Properties of names, identifiers, patterns, selectors and durations. A failure is printed
//! with its seed and kept beside this file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use std::collections::BTreeMap;

use anteroom_core::duration;
use anteroom_core::id::{
    ClusterName, IdError, KeyFingerprint, Login, NodeId, NodeName, ResourceId, ResourceKind,
    RoleName, UserName,
};
use anteroom_core::node::NodeAddr;
use anteroom_core::pattern::Pattern;
use anteroom_core::selector::{LabelSelector, LabelValue, Template};
use anteroom_core::target::{NodeRef, NodeRefError, Target, TargetError};
use anteroom_core::user::User;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use world::{a_user, user};

const UUID: &str = "bbb56211-7b54-4f9e-bee9-b68ea156be5f";

fn uuid() -> impl Strategy<Value = String> {
    any::<u128>().prop_map(|n| NodeId::from_uuid(uuid::Uuid::from_u128(n)).to_string())
}

/// Texts of the grammar of REQUESTS section 1, in the spelling in which they are printed.
fn resource_id() -> impl Strategy<Value = String> {
    let cluster = prop_oneof![
        "[a-z0-9][a-z0-9._-]{0,10}",
        "[A-Za-z][A-Za-z0-9]{0,5}\\.example\\.com"
    ];
    let node =
        (uuid(), btree_set("[A-Za-z0-9_.][A-Za-z0-9_.-]{0,8}", 0..4)).prop_map(|(id, logins)| {
            let logins: Vec<String> = logins.into_iter().collect();
            let query = if logins.is_empty() {
                String::new()
            } else {
                format!("?logins={}", logins.join(","))
            };
            format!("node/{id}{query}")
        });
    let plain = ("(db|app|kube_cluster|windows_desktop)", "[ -~äß]{1,20}")
        .prop_map(|(kind, name)| format!("{kind}/{name}"));
    let part = "([a-z0-9.*-]{1,8}|\\^[a-z0-9]{1,3}\\.\\*\\$)";
    let kind = "(\\*|[a-z]{1,8})(\\.([a-z*]{1,4}|\\^[a-z]{1,3}\\$))?";
    let namespaced = (kind, "[a-z/]{1,8}", part, part).prop_map(|(kind, kube, namespace, name)| {
        format!("kube:ns:{kind}/{kube}/{namespace}/{name}")
    });
    let wide = (kind, "[a-z/]{1,8}", part)
        .prop_map(|(kind, kube, name)| format!("kube:cw:{kind}/{kube}/{name}"));
    (cluster, prop_oneof![node, plain, namespaced, wide])
        .prop_map(|(cluster, rest)| format!("/{cluster}/{rest}"))
}

/// Failures are kept beside this file, in `properties.regressions`, and tried first.
fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(beside)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn what_an_error_quotes_drives_no_terminal(
        text in "(\\PC|\\pC|[\u{200b}-\u{2069}\u{61c}\u{ad}\u{fe0f}\u{301}\u{e0041}\u{1b}]){1,20}",
    ) {
        let quoted = [
            text.parse::<Login>().err().map(|error| error.to_string()),
            text.parse::<UserName>().err().map(|error| error.to_string()),
            text.parse::<NodeAddr>().err().map(|error| error.to_string()),
            Target::parse(&text).err().map(|error| error.to_string()),
            duration::parse(&text).err().map(|error| error.to_string()),
        ];
        for said in quoted.into_iter().flatten() {
            prop_assert!(!said.chars().any(anteroom_core::text::is_hostile), "{:?}", said);
            prop_assert!(!said.contains("\u{301}\u{301}"), "{:?}", said);
        }
    }

    #[test]
    fn a_resource_id_is_printed_as_it_was_written(text in resource_id()) {
        let id = ResourceId::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(id.to_string(), text.clone());
        prop_assert_eq!(ResourceId::parse(&id.to_string()).unwrap(), id.clone());
        let json = serde_json::to_string(&id).unwrap();
        prop_assert_eq!(serde_json::from_str::<ResourceId>(&json).unwrap(), id.clone());
        prop_assert!(id.covers(&id));
    }

    #[test]
    fn whatever_parses_as_a_resource_id_prints_to_something_equal(text in "/[ -~]{1,6}/(node|db|kube:ns:[a-z.*]{1,4})/[ -~]{1,60}") {
        if let Ok(id) = ResourceId::parse(&text) {
            prop_assert_eq!(ResourceId::parse(&id.to_string()).unwrap(), id);
        }
    }

    #[test]
    fn no_text_makes_any_parser_panic_and_what_parses_prints_back(text in ".{0,80}") {
        macro_rules! check {
            ($($kind:ty),*) => { $(
                if let Ok(value) = <$kind>::parse(&text) {
                    prop_assert_eq!(value.to_string(), text.clone());
                }
            )* };
        }
        check!(UserName, Login, NodeName, RoleName, ClusterName, KeyFingerprint, NodeId, NodeRef);
        let _ = (Target::parse(&text), ResourceId::parse(&text), NodeAddr::parse(&text));
        let _ = (Pattern::parse(&text), Template::parse(&text), duration::parse(&text));
    }

    #[test]
    fn a_narrower_id_is_covered_by_a_wider_one_and_not_the_other_way(
        all in btree_set("[a-z]{1,3}", 2..5),
    ) {
        let node = ResourceId::node("c".parse().unwrap(), UUID.parse().unwrap());
        let logins = |names: Vec<&String>| names.iter().map(|l| l.parse::<Login>().unwrap()).collect();
        let many = node.clone().with_logins(logins(all.iter().collect())).unwrap();
        let few = node.clone().with_logins(logins(all.iter().skip(1).collect())).unwrap();
        prop_assert!(node.covers(&many) && many.covers(&few) && node.covers(&few));
        prop_assert!(!few.covers(&many) && !many.covers(&node) && !few.covers(&node));
    }

    #[test]
    fn a_glob_matches_as_a_naive_matcher_does(glob in "[ab*.]{0,6}", value in "[ab.]{0,8}") {
        prop_assert_eq!(Pattern::parse(&glob).unwrap().matches(&value), naive_glob(&glob, &value));
    }

    #[test]
    fn a_regex_always_applies_to_the_whole_value(
        words in vec("[a-c]{1,2}", 1..4),
        value in "[a-c]{0,5}",
    ) {
        let pattern = Pattern::parse(&format!("^{}$", words.join("|"))).unwrap();
        prop_assert_eq!(pattern.matches(&value), words.contains(&value));
    }

    #[test]
    fn a_list_of_words_matches_as_the_same_regex_written_otherwise_does(
        words in vec("[a-c-]{0,2}", 1..4),
        value in "[a-c-]{0,4}",
    ) {
        let list = words.join("|");
        let expected = words.contains(&value);
        for text in [format!("^{list}$"), format!("^({list})$"), format!("^(?:{list})$"), format!("^(?:(?:{list}))$")] {
            prop_assert_eq!(Pattern::parse(&text).unwrap().matches(&value), expected, "{}", text);
        }
    }

    #[test]
    fn a_selector_matches_as_a_naive_evaluator_does(
        selector in btree_map("[xyz*]", vec("[ab*]{1,2}", 0..3), 0..4),
        labels in btree_map("[xyz]", "[ab]{1,2}", 0..4),
    ) {
        // The key `*` has only the value `*`: documents with anything else are refused.
        let selector: BTreeMap<String, Vec<String>> = selector
            .into_iter()
            .map(|(key, values)| if key == "*" { (key, vec!["*".to_owned()]) } else { (key, values) })
            .collect();
        let parsed = selector.iter().map(|(key, values)| {
            (key.clone(), values.iter().map(|v| LabelValue::parse(v).unwrap()).collect())
        });
        let nobody = User::new(user("nobody"));
        let actual = LabelSelector::new(parsed.collect()).matches(&labels, &nobody);
        prop_assert_eq!(actual, naive_selector(&selector, &labels));
    }

    #[test]
    fn a_template_grants_exactly_the_logins_it_expands_to(
        prefix in "[a-c-]{0,2}",
        suffix in "[a-c-]{0,2}",
        values in vec("[a-c -]{0,3}", 0..4),
        wanted in "[a-c-]{1,6}",
    ) {
        let mut alice = User::new(user("alice"));
        alice.traits.insert("t".to_owned(), values.clone());
        let template = Template::parse(&format!("{prefix}{{{{external.t}}}}{suffix}")).unwrap();
        let naive = values.iter().filter(|v| !v.is_empty()).any(|v| format!("{prefix}{v}{suffix}") == wanted);
        prop_assert_eq!(template.expands_to(&alice, &wanted), naive);
        prop_assert_eq!(template.expand(&alice).contains(&wanted), naive);
    }

    #[test]
    fn a_duration_is_read_back_as_it_was_printed(seconds in 1_i64..400_000_000) {
        let value = time::Duration::seconds(seconds);
        if seconds <= 10 * 365 * 86_400 {
            prop_assert_eq!(duration::parse(&duration::format(value)).unwrap(), value);
        } else {
            prop_assert!(duration::parse(&duration::format(value)).is_err());
        }
    }

    #[test]
    fn a_node_address_is_printed_as_it_was_written(host in "([a-z0-9]{1,8}(\\.[a-z]{1,5}){0,2}|\\[::[1-9]\\])", port in 1_u16..) {
        let text = format!("{host}:{port}");
        prop_assert_eq!(NodeAddr::parse(&text).unwrap().to_string(), text);
    }
}

fn naive_glob(glob: &str, value: &str) -> bool {
    match glob.chars().next() {
        None => value.is_empty(),
        Some('*') => {
            let rest = &glob[1..];
            (0..=value.len()).any(|skip| naive_glob(rest, &value[skip..]))
        }
        Some(c) => {
            value.starts_with(c) && naive_glob(&glob[c.len_utf8()..], &value[c.len_utf8()..])
        }
    }
}

fn naive_selector(
    selector: &BTreeMap<String, Vec<String>>,
    labels: &BTreeMap<String, String>,
) -> bool {
    if selector.is_empty() {
        return false;
    }
    for (key, values) in selector {
        if key == "*" {
            continue;
        }
        let Some(label) = labels.get(key) else {
            return false;
        };
        let mut any = false;
        for value in values {
            any |= naive_glob(value, label);
        }
        if !any {
            return false;
        }
    }
    true
}

#[test]
fn resource_ids_outside_the_grammar_are_refused() {
    let bad = [
        "",
        "/",
        "c/node/x",
        "/c/node",
        "/c//x",
        "//node/x",
        "/c/node/",
        "/c/node/iot",
        "/c/node/BBB56211-7B54-4F9E-BEE9-B68EA156BE5F",
        "/c/node/bbb562117b544f9ebee9b68ea156be5f",
        "/c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?logins=",
        "/c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?logins=a,,b",
        "/c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?logins=-a",
        "/c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?login=a",
        "/c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f?",
        "/c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f ",
        "/c/nodes/bbb56211-7b54-4f9e-bee9-b68ea156be5f",
        "/c/Node/bbb56211-7b54-4f9e-bee9-b68ea156be5f",
        "/c/%6eode/bbb56211-7b54-4f9e-bee9-b68ea156be5f",
        "/c/kube:ns:pods/k/ns",
        "/c/kube:ns:pods/k//pod",
        "/c/kube:ns:pods//ns/pod",
        "/c/kube:ns:Pods/k/ns/pod",
        "/c/kube:ns:pods./k/ns/pod",
        "/c/kube:ns:/k/ns/pod",
        "/c/kube:xx:pods/k/ns/pod",
        "/c/kube:pods/k/ns/pod",
        "/c/kube:cw:nodes/k/",
        "/c/kube:cw:nodes/k",
        "/c/kube:ns:pods/k/ns/^(x$",
        "/c/db/a\u{1b}[2J",
        "/c/db/a\u{202e}b",
        "/c d/db/x",
    ];
    for text in bad {
        let error = ResourceId::parse(text).expect_err(text);
        assert!(!error.to_string().contains('\u{1b}') && !error.to_string().contains('\u{202e}'));
    }
    assert!(matches!(
        ResourceId::parse(&format!("/c/db/{}", "x".repeat(2048))),
        Err(IdError::TooLong { .. })
    ));
}

#[test]
fn resource_ids_are_cut_where_the_grammar_says() {
    let id: ResourceId = "/c/db/a/b?logins=x".parse().unwrap();
    assert_eq!(
        (id.kind(), id.name(), id.logins()),
        (&ResourceKind::Db, "a/b?logins=x", None)
    );
    let pod: ResourceId = "/c/kube:ns:pods/k/eu/ns/pod".parse().unwrap();
    let object = pod.kube_object().unwrap();
    assert_eq!(
        (object.kube_cluster, object.namespace, object.name),
        ("k/eu", Some("ns"), "pod")
    );
    let wide: ResourceId = "/c/kube:cw:namespaces/k/eu/prod".parse().unwrap();
    let object = wide.kube_object().unwrap();
    assert_eq!(
        (object.kube_cluster, object.namespace, object.name),
        ("k/eu", None, "prod")
    );
    let every: ResourceId = "/c/kube:ns:*.*/k/*/^a|b$".parse().unwrap();
    let ResourceKind::KubeNamespaced(kind) = every.kind() else {
        panic!("namespaced")
    };
    assert_eq!((kind.plural(), kind.group()), ("*", Some("*")));
    let logins: ResourceId = format!("/c/node/{UUID}?logins=root,deploy,root")
        .parse()
        .unwrap();
    assert_eq!(
        logins.to_string(),
        format!("/c/node/{UUID}?logins=deploy,root")
    );
    assert_eq!(logins.node_id().unwrap().to_string(), UUID);
}

#[test]
fn names_have_their_grammar_and_no_more() {
    for good in [
        "a",
        "0",
        "alice",
        "a.b_c-d",
        &"x".repeat(64),
        "Alice.Smith+x@example.com",
        "a@b.co",
    ] {
        UserName::parse(good).expect(good);
    }
    for bad in [
        "",
        "-a",
        "Alice",
        "a b",
        &"x".repeat(65),
        "a@b",
        "a@b@c.de",
        "@b.co",
        "a@-b.co",
        "a@b..co",
        "a\n",
    ] {
        UserName::parse(bad).expect_err(bad);
    }
    for good in ["root", "_apt", ".x", "A-b", &"x".repeat(32)] {
        Login::parse(good).expect(good);
    }
    for bad in [
        "",
        "-x",
        "a b",
        "a+b",
        "a@b",
        "ä",
        &"x".repeat(33),
        "root\0",
    ] {
        Login::parse(bad).expect_err(bad);
    }
    NodeName::parse("iot").unwrap();
    NodeName::parse(UUID).expect_err("a name must not pass for an ID");
    for bad in [
        "192.0.2.1",
        "192.0.2.1:",
        "192.0.2.1:0",
        "192.0.2.1:65536",
        "::1:22",
        "[::1:22",
        "[x]:22",
        ":22",
        "a b:22",
        "a:+22",
    ] {
        NodeAddr::parse(bad).expect_err(bad);
    }
    KeyFingerprint::parse(&format!("SHA256:{}", "A".repeat(43))).unwrap();
    KeyFingerprint::parse(&format!("MD5:{}", "A".repeat(43))).unwrap_err();
}

#[test]
fn targets_are_split_at_the_last_at_or_else_the_first_plus() {
    let parts = |text: &str| Target::parse(text).map(|t| (t.login.to_string(), t.node.to_string()));
    assert_eq!(parts("root@iot"), Ok(("root".into(), "iot".into())));
    assert_eq!(parts("root+iot"), Ok(("root".into(), "iot".into())));
    assert_eq!(
        parts(&format!("root@{UUID}")),
        Ok(("root".into(), UUID.into()))
    );
    assert_eq!(
        parts(&format!("root@/c/node/{UUID}")),
        Ok(("root".into(), format!("/c/node/{UUID}")))
    );
    assert_eq!(parts("enroll+token"), Err(TargetError::Reserved("enroll+")));
    assert_eq!(parts("node+token@x"), Err(TargetError::Reserved("node+")));
    assert_eq!(parts("alice"), Err(TargetError::NoLogin("alice".into())));
    assert!(matches!(parts("a@b@iot"), Err(TargetError::Login(_))));
    assert!(matches!(parts("root@"), Err(TargetError::Node(_))));
    assert!(matches!(parts("@iot"), Err(TargetError::Login(_))));
    assert!(matches!(
        NodeRef::parse("/c/db/x"),
        Err(NodeRefError::OtherKind(_))
    ));
    let narrowed = format!("/c/node/{UUID}?logins=root");
    assert!(matches!(
        NodeRef::parse(&narrowed),
        Err(NodeRefError::WithLogins(_))
    ));
}

#[test]
fn a_trait_never_widens_to_a_glob() {
    let mut alice = a_user("alice", &[], &[], &[]);
    alice.traits.insert("team".to_owned(), vec!["*".to_owned()]);
    let value = LabelValue::parse("{{external.team}}").unwrap();
    let selector = LabelSelector::new(BTreeMap::from([("team".to_owned(), vec![value])]));
    let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
    assert!(!selector.matches(&labels("red"), &alice));
    assert!(selector.matches(&labels("*"), &alice));
}

#[test]
fn an_expanded_text_that_is_no_login_is_dropped() {
    let mut alice = a_user("alice", &[], &[], &["alice"]);
    alice.traits.insert(
        "x".to_owned(),
        vec!["a b".to_owned(), "-oX".to_owned(), "ok".to_owned()],
    );
    let logins = |text: &str| Template::parse(text).unwrap().expand(&alice);
    assert_eq!(logins("{{internal.logins}}"), ["alice"]);
    assert_eq!(logins("adm-{{ internal.logins }}"), ["adm-alice"]);
    assert_eq!(logins("{{user.metadata.name}}-x"), ["alice-x"]);
    assert_eq!(logins("{{external[\"no such\"]}}"), [""; 0]);
    let text = "kind: role\nmetadata: {name: r}\nspec: {allow: {logins: ['{{external.x}}']}}\n";
    let role = anteroom_core::documents::parse_role(text).unwrap();
    let logins: Vec<String> = role
        .allow
        .logins_for(&alice)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(logins, ["ok"]);
}
