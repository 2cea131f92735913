//! Keeps the documentation true: its documents are read by the real parser, and the tests that
//! it names exist.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anteroom_core::documents;
use anteroom_core::predicate::{
    Context, MonitoringRule, NodeLabels, Predicate, Resource, ReviewWhere, RuleWhere,
    ThresholdFilter,
};
use anteroom_core::preset::presets;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// README.md and everything in docs/, with their names.
fn pages() -> Vec<(String, String)> {
    let docs = fs::read_dir(root().join("docs")).unwrap();
    let mut files: Vec<PathBuf> = docs.map(|entry| entry.unwrap().path()).collect();
    files.push(root().join("README.md"));
    files.retain(|file| file.extension().is_some_and(|ending| ending == "md"));
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(file).unwrap())
        })
        .collect()
}

fn page(name: &str) -> String {
    let found = pages().into_iter().find(|(page, _)| page == name);
    found.expect(name).1
}

/// The contents of the fenced blocks with this word behind the fence.
fn blocks<'a>(page: &'a str, word: &str) -> Vec<&'a str> {
    let fence = format!("```{word}\n");
    page.split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

#[test]
fn every_document_that_is_shown_is_read() {
    for (name, page) in pages() {
        for block in blocks(&page, "yaml") {
            documents::parse(block).unwrap_or_else(|error| panic!("{name}: {error}\n{block}"));
        }
    }
}

/// The words of the parser's own lists, so that a field that is served tomorrow is missed here.
fn served_fields() -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    for file in ["role.rs", "options.rs"] {
        let parser = source(&format!("core/src/documents/{file}"));
        for list in parser.split("served: &[").skip(1) {
            let list = list.split(']').next().unwrap();
            fields.extend(list.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    assert!(fields.contains("search_as_roles"), "{fields:?}");
    fields
}

#[test]
fn every_resource_and_id_that_is_shown_is_read() {
    let page = page("resources.md");
    for word in ["resources", "roles"] {
        for block in blocks(&page, word) {
            documents::parse(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
        }
    }
    let ids: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `/")?.split('`').next())
        .collect();
    assert_eq!(ids.len(), 12, "{ids:?}");
    for id in ids {
        let id = format!("/{id}");
        let parsed = anteroom_core::id::ResourceId::parse(&id);
        assert_eq!(parsed.map(|id| id.to_string()), Ok(id));
    }
}

/// What an extension of a certificate is made of: read only to say which one is refused.
const NO_EXAMPLE: [&str; 2] = ["type", "mode"];

#[test]
fn every_served_field_of_a_role_has_an_example_in_the_documentation() {
    let page = page("roles.md");
    let examples = blocks(&page, "yaml").concat();
    for field in served_fields() {
        let shown = examples.contains(&format!("{field}:"));
        assert!(shown || NO_EXAMPLE.contains(&field.as_str()), "{field}");
    }
}

#[test]
fn every_value_that_asks_for_nothing_is_in_the_documentation() {
    let page = page("roles.md");
    let table = source("core/src/documents/nothing.rs");
    let options: Vec<&str> = table
        .split("(\"spec.options.")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    assert!(options.len() > 10, "{options:?}");
    for option in options {
        let row = page
            .lines()
            .find(|line| line.starts_with("| `") && line.contains(&format!("`{option}`")));
        assert!(row.is_some(), "{option}");
    }
}

#[test]
fn every_expression_that_is_shown_is_read() {
    fn read<C: Context>(page: &str, word: &str) {
        let blocks = blocks(page, word);
        assert!(!blocks.is_empty(), "{word}");
        for line in blocks.iter().flat_map(|block| block.lines()) {
            Predicate::<C>::parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
    let page = page("predicates.md");
    read::<NodeLabels>(&page, "label-expression");
    read::<ReviewWhere>(&page, "where");
    read::<ThresholdFilter>(&page, "filter");
    read::<Resource>(&page, "query");
    read::<RuleWhere>(&page, "rule");
    read::<MonitoringRule>(&page, "condition");
}

/// The words of the table of functions and of the tables of names.
#[test]
fn every_function_and_name_of_the_predicate_language_is_in_the_documentation() {
    let page = page("predicates.md");
    let table = source("core/src/predicate/function.rs");
    let (_, list) = table.split_once("FUNCTIONS: &[Signature] = &[").unwrap();
    let (list, _) = list.split_once("];").unwrap();
    let names = ["both(", "plain(", "method("];
    let entries = names.iter().flat_map(|start| list.split(start).skip(1));
    let mut count = 0;
    for name in entries.filter_map(|entry| entry.split('"').nth(1)) {
        count += 1;
        assert!(page.contains(&format!("{name}(")), "{name}");
    }
    assert!(count > 20, "{count}");
    let names = source("core/tests/predicate_contexts.txt");
    let names = names.lines().filter_map(|line| line.strip_prefix("    "));
    for name in names.filter(|name| !name.contains(' ')) {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn every_preset_is_in_the_documentation() {
    let page = page("roles.md");
    for role in presets() {
        assert!(
            page.contains(&format!("| `{}` |", role.name)),
            "{}",
            role.name
        );
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let mut sources = String::new();
    for folder in ["core", "ca", "node", "proxy", "tests", "examples"] {
        read_sources(&root().join(folder), &mut sources);
    }
    for (name, page) in pages() {
        for test in named_tests(&page) {
            assert!(
                sources.contains(&format!("fn {test}(")),
                "{name} names the test `{test}`, which does not exist"
            );
        }
    }
}

fn read_sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_sources(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// Tests are claims: what stands in backticks and has at least four words joined by underscores.
fn named_tests(page: &str) -> BTreeSet<&str> {
    let fields = source("core/src/documents/role.rs")
        + &source("core/src/documents/options.rs")
        + &source("core/src/documents/nothing.rs");
    let is_field = |word: &str| {
        fields.contains(&format!("\"{word}\"")) || fields.contains(&format!(".{word}\""))
    };
    page.split('`')
        .filter(|word| word.matches('_').count() >= 3)
        .filter(|word| {
            word.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
        .filter(|word| !is_field(word))
        // Keys of the configuration.
        .filter(|word| !word.starts_with("max_") && !word.starts_with("per_source_"))
        .collect()
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    for (name, page) in pages() {
        let folder = if name == "README.md" {
            root()
        } else {
            root().join("docs")
        };
        for target in page.split("](").skip(1) {
            let target = target.split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            assert!(folder.join(file).exists(), "{name} links to `{target}`");
        }
    }
}

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn every_key_of_the_configuration_is_in_the_documentation() {
    let config = source("proxy/src/config.rs");
    let (_, rest) = config.split_once("struct File {").unwrap();
    let (fields, _) = rest.split_once('}').unwrap();
    let keys: Vec<&str> = fields
        .lines()
        .filter_map(|line| line.trim().split_once(':'))
        .map(|(key, _)| key)
        .collect();
    assert!(keys.contains(&"listen"), "{keys:?}");
    let page = page("operations.md");
    for key in keys {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
}

#[test]
fn every_exit_status_is_in_the_documentation() {
    let exit = source("proxy/src/exit.rs");
    let numbers: Vec<&str> = exit
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Exit::")?.split_once(" => "))
        .map(|(_, number)| number.trim_end_matches(','))
        .filter(|number| number.chars().all(|c| c.is_ascii_digit()))
        .collect();
    assert!(numbers.contains(&"75"), "{numbers:?}");
    for name in ["requests.md", "README.md"] {
        let page = page(name);
        for number in &numbers {
            assert!(page.contains(&format!("| {number} |")), "{name}: {number}");
        }
    }
}
