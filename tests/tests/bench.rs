//! The benchmark itself, made small, so that it keeps working. Its figures are not judged here:
//! what a shared machine measures is no claim about the product.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::process::{Command, Output};

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(words)
        .output()
        .expect("the benchmark can be started")
}

#[test]
fn a_quick_run_measures_every_part_against_its_goal() {
    let run = bench(&["--quick", "--markdown"]);
    let table = String::from_utf8_lossy(&run.stdout);
    let progress = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{table}\n{progress}");
    for line in [
        "down, Anteroom, ProxyJump",
        "up, Anteroom, one hop",
        "`ssh … true`, Anteroom, ProxyJump",
        "`request review` to first byte, Anteroom, one hop",
        "memory per idle session, Anteroom, ProxyJump",
        "memory per held session, Anteroom, one hop",
        "a decision, standing, 5 roles",
        "raw Ed25519 signing",
        "an access certificate",
        "an identity certificate",
        "a request filed and approved by the last of 256 rules",
        "2000 nodes: nodes to ask for, 20 roles and 20 to search as",
        "2000 nodes: `ls`, 20 roles",
        "2000 nodes: memory of an `ls` that nobody reads",
        "1000 nodes created from one text",
        "10 held and 10 live sessions at once",
        "`serve` with 2000 nodes, start to listening",
    ] {
        assert!(table.contains(&format!("| {line} | ")), "{line}: {table}");
    }
    // How many of them stayed differs from run to run.
    let silent = "| a login while 60 silent connections come from one address (";
    assert!(table.contains(silent), "{table}");
}

#[test]
fn an_unknown_part_is_refused_by_name() {
    let run = bench(&["throughputs"]);
    assert_eq!(run.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&run.stderr).contains("`throughputs`"));
}
