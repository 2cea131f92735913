//! Templates and claims against evaluators that are too simple to be wrong. A failure is printed
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

use std::collections::BTreeSet;

use anteroom_core::claims::ClaimMapping;
use anteroom_core::selector::Template;
use anteroom_core::user::User;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use world::{role, user};

fn kept() -> ProptestConfig {
    let beside = FileFailurePersistence::WithSource("regressions");
    ProptestConfig {
        failure_persistence: Some(Box::new(beside)),
        ..ProptestConfig::default()
    }
}

/// What stands between the braces, as something that can be both written and worked out.
#[derive(Debug, Clone)]
enum Naive {
    Trait(&'static str),
    Name,
    Local(Box<Naive>),
    /// Every occurrence of a word, replaced by another.
    Word(Box<Naive>, String, String),
    /// What follows a prefix.
    After(Box<Naive>, String),
}

impl Naive {
    fn write(&self) -> String {
        match self {
            Self::Trait(name) => format!("external.{name}"),
            Self::Name => "user.metadata.name".to_owned(),
            Self::Local(of) => format!("email.local({})", of.write()),
            Self::Word(of, word, with) => {
                let word = word.replace('.', "\\\\.");
                format!("regexp.replace({}, \"{word}\", \"{with}\")", of.write())
            }
            Self::After(of, prefix) => {
                format!(
                    "regexp.replace({}, `^{prefix}(.*)$`, \"${{1}}\")",
                    of.write()
                )
            }
        }
    }

    fn values(&self, user: &User) -> Vec<String> {
        let mut values: Vec<String> = match self {
            Self::Trait(name) => user.traits[*name].clone(),
            Self::Name => vec![user.name.to_string()],
            Self::Local(of) => of.values(user).iter().filter_map(|v| local(v)).collect(),
            Self::Word(of, word, with) => {
                let values = of.values(user).into_iter();
                let found = values.filter(|value| value.contains(word.as_str()));
                found
                    .map(|value| value.replace(word.as_str(), with))
                    .collect()
            }
            Self::After(of, prefix) => {
                let values = of.values(user).into_iter();
                let after = |v: String| v.strip_prefix(prefix.as_str()).map(str::to_owned);
                values.filter_map(after).collect()
            }
        };
        values.retain(|value| !value.is_empty());
        values
    }
}

/// Of texts over `a-c @ . -` only.
fn local(value: &str) -> Option<String> {
    let parts: Vec<&str> = value.split('@').collect();
    let [local, domain] = parts.as_slice() else {
        return None;
    };
    let dots = local.split('.').any(str::is_empty);
    (!dots && !domain.is_empty()).then(|| (*local).to_owned())
}

fn expression() -> impl Strategy<Value = Naive> {
    let leaf = prop_oneof![
        3 => prop_oneof![Just("x"), Just("y")].prop_map(Naive::Trait),
        1 => Just(Naive::Name),
    ];
    leaf.prop_recursive(4, 8, 1, |inner| {
        let inner = inner.prop_map(Box::new);
        prop_oneof![
            inner.clone().prop_map(Naive::Local),
            (inner.clone(), "[a-c.]{1,2}", "[a-d-]{0,2}")
                .prop_map(|(of, word, with)| Naive::Word(of, word, with)),
            (inner, "[a-c]{0,2}").prop_map(|(of, prefix)| Naive::After(of, prefix)),
        ]
    })
}

fn values() -> impl Strategy<Value = Vec<String>> {
    vec("([a-c.-]{0,4}@[a-c.-]{0,4}|[a-c@.-]{0,6})", 0..5)
}

fn alice(x: Vec<String>, y: Vec<String>) -> User {
    let mut alice = User::new(user("abc@cab.example"));
    alice.traits.insert("x".to_owned(), x);
    alice.traits.insert("y".to_owned(), y);
    alice
}

/// A claim's value: what it begins and ends with, and whether anything may stand between.
#[derive(Debug, Clone)]
enum Value {
    Literal(String),
    Glob(String, String),
    Regex(String, String),
}

impl Value {
    fn write(&self) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Glob(start, end) => format!("{start}*{end}"),
            Self::Regex(start, end) => format!("^{start}(.*){end}$"),
        }
    }

    /// What stands between, if it matches; empty for a literal.
    fn between<'v>(&self, value: &'v str) -> Option<&'v str> {
        match self {
            Self::Literal(text) => (value == text).then_some(""),
            Self::Glob(start, end) | Self::Regex(start, end) => value
                .strip_prefix(start.as_str())?
                .strip_suffix(end.as_str()),
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[a-c]{1,2}".prop_map(Value::Literal),
        ("[a-c]{0,2}", "[a-c]{0,2}").prop_map(|(start, end)| Value::Glob(start, end)),
        ("[a-c]{0,2}", "[a-c]{0,2}").prop_map(|(start, end)| Value::Regex(start, end)),
    ]
}

/// A role of a mapping: written, and whether it names a role, given what stood between.
#[derive(Debug, Clone)]
enum Given {
    Literal(String),
    Starting(String),
    Expanded(String),
}

impl Given {
    fn write(&self) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Starting(text) => format!("{text}*"),
            Self::Expanded(end) => format!("a${{1}}{end}"),
        }
    }

    fn names(&self, between: &str, role: &str) -> bool {
        match self {
            Self::Literal(text) => role == text,
            Self::Starting(text) => role.starts_with(text.as_str()),
            Self::Expanded(end) => role == format!("a{between}{end}"),
        }
    }
}

fn given() -> impl Strategy<Value = Given> {
    prop_oneof![
        "[a-c]{1,3}".prop_map(Given::Literal),
        "[a-c]{0,2}".prop_map(Given::Starting),
        "[a-c]{0,1}".prop_map(Given::Expanded),
    ]
}

proptest! {
    #![proptest_config(kept())]

    #[test]
    fn a_template_expands_to_what_is_worked_out_by_hand(
        expression in expression(), prefix in "[a-z-]{0,2}", suffix in "[a-z-]{0,2}",
        x in values(), y in values(), other in "[a-c]{1,3}",
    ) {
        let user = alice(x, y);
        let text = format!("{prefix}{{{{{}}}}}{suffix}", expression.write());
        let template = Template::parse(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let worked_out: Vec<String> = expression
            .values(&user)
            .iter()
            .map(|value| format!("{prefix}{value}{suffix}"))
            .collect();
        prop_assert_eq!(template.expand(&user), worked_out.clone(), "{}", text);
        let all: BTreeSet<&String> = worked_out.iter().collect();
        for wanted in worked_out.iter().chain([&other, &format!("{prefix}{suffix}")]) {
            prop_assert_eq!(template.expands_to(&user, wanted), all.contains(wanted), "{}", wanted);
        }
    }

    #[test]
    fn a_claim_names_what_is_worked_out_by_hand(
        value in value(), given in vec(given(), 0..3), x in vec("[a-c]{0,4}", 0..4),
        wanted in "[a-c]{1,4}",
    ) {
        let user = alice(x.clone(), Vec::new());
        let given: Vec<Given> = given
            .into_iter()
            .filter(|given| !matches!((&value, given), (Value::Literal(_), Given::Expanded(_))))
            .collect();
        let written: Vec<String> = given.iter().map(Given::write).collect();
        let written: Vec<&str> = written.iter().map(String::as_str).collect();
        let mapping = ClaimMapping::new("x".to_owned(), &value.write(), &written)
            .map_err(|(_, e)| TestCaseError::fail(e.to_string()))?;
        let worked_out = x
            .iter()
            .filter_map(|held| value.between(held))
            .any(|between| given.iter().any(|given| given.names(between, &wanted)));
        prop_assert_eq!(mapping.names(&user, &role(&wanted)), worked_out);
        // Another trait with the same values is not asked.
        let stranger = alice(Vec::new(), x);
        prop_assert!(!mapping.names(&stranger, &role(&wanted)));
    }

    #[test]
    fn no_text_makes_the_readers_of_templates_and_claims_panic(
        text in "([a-z.(){}\\[\\]\"`$^*,\\\\ ]|internal\\.|external\\.|email\\.local\\(|regexp\\.replace\\(|\\{\\{|\\}\\}){0,24}",
    ) {
        if let Ok(template) = Template::parse(&text) {
            let user = alice(vec!["a@b".to_owned(), text.clone()], Vec::new());
            for value in template.expand(&user) {
                prop_assert!(template.expands_to(&user, &value));
            }
        }
        let _ = ClaimMapping::new("x".to_owned(), &text, &[&text, "$1"]);
    }
}
