//! Holds the tree of dependencies to `deny.toml`, which `cargo deny` reads as well: licences, banned crates, crates in
//! two versions, sources. Advisories need a database that is fetched, and are for `cargo deny` by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::process::Command;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Something that is built into anything of ours, on any platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
    features: String,
    /// From elsewhere than the registry: the path of what is ours.
    elsewhere: String,
}

/// What `cargo tree` knows: `cargo metadata` lists what is never built as well.
fn packages() -> BTreeSet<Package> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = Command::new(cargo)
        .args([
            "tree",
            "--workspace",
            "--locked",
            "--offline",
            "--target",
            "all",
        ])
        .args(["--prefix", "none", "--format", "{p}|{l}|{f}"])
        .arg("--manifest-path")
        .arg(format!("{ROOT}/Cargo.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&printed.stderr);
    assert!(printed.status.success(), "{said}");
    let lines = String::from_utf8(printed.stdout).unwrap();
    let packages: BTreeSet<Package> = lines.lines().filter_map(package).collect();
    assert!(packages.len() > 100, "{}", packages.len());
    packages
}

/// `russh v0.65.1|Apache-2.0|aws-lc-rs,rsa`, `anteroom-ca v0.1.0 (/where/it/is)|Apache-2.0|`.
fn package(line: &str) -> Option<Package> {
    let line = line.trim_end_matches(" (*)");
    let [what, licence, features] = line.split('|').collect::<Vec<_>>().try_into().ok()?;
    let mut words = what.split(' ');
    let (name, version) = (
        words.next()?.to_owned(),
        words.next()?.strip_prefix('v')?.to_owned(),
    );
    let elsewhere = words.filter(|word| *word != "(proc-macro)").collect();
    let (licence, features) = (licence.to_owned(), features.to_owned());
    Some(Package {
        name,
        version,
        licence,
        features,
        elsewhere,
    })
}

/// The texts in quotes of a list in `deny.toml`.
fn list(name: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("{ROOT}/deny.toml")).unwrap();
    let (_, rest) = text.split_once(&format!("\n{name} = [\n")).unwrap();
    let (list, _) = rest.split_once("\n]").unwrap();
    list.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .filter_map(|line| line.split('"').nth(1))
        .map(str::to_owned)
        .collect()
}

/// Whether an SPDX expression allows us one of these. `/` is what older crates write for `OR`.
fn allows(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let text = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words: Vec<&str> = text.split_whitespace().rev().collect();
    let result = either(&mut words, allowed);
    assert!(words.is_empty(), "{expression} is not understood");
    result
}

fn either(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut result = both(words, allowed);
    while words.last() == Some(&"OR") {
        words.pop();
        result |= both(words, allowed);
    }
    result
}

fn both(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let mut result = one(words, allowed);
    while words.last() == Some(&"AND") {
        words.pop();
        result &= one(words, allowed);
    }
    result
}

fn one(words: &mut Vec<&str>, allowed: &BTreeSet<String>) -> bool {
    let word = words.pop().expect("a licence");
    if word == "(" {
        let result = either(words, allowed);
        assert_eq!(words.pop(), Some(")"));
        return result;
    }
    let mut licence = word.trim_end_matches('+').to_owned();
    if words.last() == Some(&"WITH") {
        words.pop();
        licence = format!("{licence} WITH {}", words.pop().expect("an exception"));
    }
    allowed.contains(&licence)
}

#[test]
fn expressions_of_licences_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from([
        "MIT".to_owned(),
        "Apache-2.0 WITH LLVM-exception".to_owned(),
    ]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND MIT", true),
        ("GPL-3.0 AND MIT OR MIT", true),
        ("GPL-3.0 AND (MIT OR MIT)", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
    ] {
        assert_eq!(allows(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_dependency_is_under_a_licence_that_is_allowed() {
    let allowed = list("allow");
    for package in packages() {
        assert!(allows(&package.licence, &allowed), "{package:?}");
    }
}

#[test]
fn no_dependency_is_banned_or_of_another_source() {
    let banned = list("deny");
    for package in packages() {
        assert!(!banned.contains(&package.name), "{package:?} is banned");
        let ours = package.name.starts_with("anteroom-") && package.elsewhere.starts_with("(/");
        assert!(
            package.elsewhere.is_empty() || ours,
            "{package:?} comes from elsewhere"
        );
    }
}

#[test]
fn no_dependency_is_there_in_two_versions_that_nobody_has_looked_at() {
    let skipped = list("skip");
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Package { name, version, .. } in packages() {
        let both = format!("{name}@{version}");
        versions.entry(name).or_default().insert(both);
    }
    let twice: Vec<_> = versions
        .into_values()
        .filter(|found| found.len() > 1)
        .collect();
    for found in &twice {
        let new = found.iter().filter(|version| !skipped.contains(*version));
        assert_eq!(new.count(), 1, "{found:?} are there beside each other");
    }
    for version in skipped {
        let needed = twice.iter().any(|found| found.contains(&version));
        assert!(needed, "{version} is skipped for nothing");
    }
}

#[test]
fn the_ssh_library_is_pinned_and_has_no_feature_that_is_not_meant() {
    let all = packages();
    let russh: Vec<&Package> = all
        .iter()
        .filter(|package| package.name == "russh")
        .collect();
    assert!(!russh.is_empty());
    for built in russh {
        assert_eq!(
            (built.version.as_str(), built.features.as_str()),
            ("0.65.1", "aws-lc-rs,rsa")
        );
    }
}
