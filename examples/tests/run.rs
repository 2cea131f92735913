//! Runs every example and compares what it prints, so that none of them rots.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Cargo builds a package's examples for `cargo test`, beside the folder of the test programs.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(name);
    assert!(
        example.exists(),
        "{name} is not built; run `cargo test -p anteroom-examples`, or build with --examples"
    );
    example
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn decision_prints_each_verdict_with_its_reasons() {
    let printed = output(&mut Command::new(example("decision")));
    assert_eq!(printed, include_str!("../expected/decision.txt"));
}

#[test]
fn request_life_prints_each_state() {
    let printed = output(&mut Command::new(example("request_life")));
    assert_eq!(printed, include_str!("../expected/request_life.txt"));
}

#[test]
fn certificate_names_one_login_on_one_node_for_two_minutes() {
    if Command::new("ssh-keygen").arg("-?").output().is_err() {
        panic!("ssh-keygen is not installed; install openssh-client");
    }
    let printed = output(&mut Command::new(example("certificate")));
    // The keys and the serial are new in every run, and ssh-keygen's wording of what it does not
    // know is its own.
    let stable: String = printed
        .lines()
        .filter(|line| {
            ![
                "Public key:",
                "Signing CA:",
                "Serial:",
                "(stdin)",
                "UNKNOWN",
            ]
            .iter()
            .any(|changing| line.contains(changing))
        })
        .flat_map(|line| [line.trim_end(), "\n"])
        .collect();
    assert_eq!(stable, include_str!("../expected/certificate.txt"));
}

#[test]
fn certificate_says_so_where_ssh_keygen_is_missing() {
    let empty = tempfile::tempdir().unwrap();
    let printed = output(Command::new(example("certificate")).env("PATH", empty.path()));
    let (said, line) = printed.split_once('\n').unwrap();
    assert!(said.starts_with("ssh-keygen is not installed"), "{said}");
    let line = line.strip_prefix("ssh-ed25519-cert-v01@openssh.com ");
    assert!(line.is_some(), "{printed}");
}
