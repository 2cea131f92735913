//! The harness itself: a test that can't see or stop what it started shows nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests fail by panicking"
)]

use std::time::Duration;

use anteroom_tests::{Cmd, PATIENCE, request_id};

#[test]
fn a_process_gives_back_streams_and_status_apart() {
    let finished = Cmd::new("sh")
        .args(["-c", "cat; echo err >&2; exit 9"])
        .stdin("in")
        .run();
    finished.exits(9).prints("in").says("err");
}

#[test]
fn a_process_and_its_children_end_with_their_handle() {
    let parent = Cmd::new("sh")
        .args(["-c", "sleep 600 & echo $!; wait"])
        .start();
    let child = parent.expect_out("\n").trim().to_owned();
    drop(parent);
    let left = Cmd::new("kill").args(["-0", &child]).run();
    // A zombie until init reaps it, but nothing that runs.
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(
        left.code() != Some(0) || state.contains(") Z "),
        "{left} {state}"
    );
}

#[test]
#[should_panic(expected = "still runs")]
fn a_process_that_hangs_fails_its_test() {
    Cmd::new("sleep")
        .arg("600")
        .run_within(Duration::from_millis(100));
}

#[test]
fn a_terminal_has_its_size_takes_typing_and_can_change() {
    let mut terminal = Cmd::new("sh").in_terminal_of(100, 40);
    terminal.type_in("stty size; tty; echo typed=$((6 * 7))\r");
    terminal.expect("40 100");
    terminal.expect("/dev/pts/");
    terminal.expect("typed=42");
    terminal.resize(90, 30);
    terminal.type_in("stty size; exit 3\r");
    terminal.expect("30 90");
    assert_eq!(terminal.finish(PATIENCE).0, 3);
}

#[test]
fn ctrl_c_at_a_terminal_interrupts_what_runs_in_it() {
    // No shell: one that is about to start its command can lose the interrupt.
    let mut terminal = Cmd::new("cat").in_terminal();
    terminal.type_in("ready\r");
    terminal.expect("ready");
    terminal.expect("ready");
    terminal.type_in("\x03");
    // By a signal: what `finish` would not take for an exit status.
    assert!(terminal.screen.wait_for_end(PATIENCE));
}

#[test]
fn the_request_id_is_the_word_behind_its_label() {
    assert_eq!(
        request_id("x\nRequest ID:  ab43fc70-e893\nUsername: a"),
        "ab43fc70-e893"
    );
}
