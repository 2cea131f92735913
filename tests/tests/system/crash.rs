//! The real proxy killed at the k-th call to its kernel, for one operation after the other: whatever a
//! client was told is there after the restart, and the invariants hold (SECURITY section 8).
//!
//! strace's fault injection kills at the k-th sync, write or send from the beginning of the operation.
//! By default some of the k are tried; `ANTEROOM_CRASH=all` tries each. Rotations are in `crash_rotation`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{
    Cmd, Finished, KeyType, PATIENCE, Strace, Way, World, anteroom, dies_within, login,
};

use super::enrol;

fn target() -> String {
    format!("{}@iot", login())
}

/// At which calls to the kernel a proxy is killed.
#[derive(Clone, Copy)]
pub(super) struct Calls {
    pub(super) names: &'static str,
    /// By default every how-manieth is tried.
    pub(super) step: usize,
}

/// A commit has one: each of them is tried.
pub(super) const SYNCS: Calls = Calls {
    names: "fdatasync,fsync",
    step: 1,
};
/// Of the database and its log.
pub(super) const WRITES: Calls = Calls {
    names: "pwrite64",
    step: 8,
};
/// What a client is told, and a node.
const SENDS: Calls = Calls {
    names: "sendto,sendmsg,writev",
    step: 6,
};
/// No operation here has more of one kind in one thread.
const MOST: usize = 400;

fn step(calls: Calls) -> usize {
    match std::env::var("ANTEROOM_CRASH") {
        Ok(all) if all == "all" => 1,
        _ => calls.step,
    }
}

/// Kills the proxy at the k-th of these calls since `operation` began, on what `prepare` made in peace, for k = 1, 1 + step, … until the
/// operation has fewer; after each, starts it again, has the invariants checked, and then has `holds`
/// compare what the operation's client was told with what is there. Returns how often it was killed.
pub(super) fn killed_at_each<P, T>(
    world: &mut World,
    calls: Calls,
    mut prepare: impl FnMut(&World) -> P,
    mut operation: impl FnMut(&World, &P) -> T,
    mut holds: impl FnMut(&World, P, T),
) -> usize {
    let mut killed = 0;
    for at in (1..MOST).step_by(step(calls)) {
        let prepared = prepare(world);
        let strace = Strace::attach(world, calls.names, &format!("signal=KILL:when={at}"));
        let told = operation(world, &prepared);
        // What comes after the answer: the end of a session, the last words.
        let died = dies_within(world, Duration::from_millis(200));
        if died {
            killed += 1;
            world.kill_proxy();
            drop(strace);
            world.start_proxy();
        } else {
            strace.detach();
        }
        invariants_hold(world);
        holds(world, prepared, told);
        if !died {
            return killed;
        }
    }
    panic!("{} of one operation were not all of them", MOST);
}

#[track_caller]
pub(super) fn invariants_hold(world: &World) {
    doctor(world).exits(0);
    let live = sqlite(world, "SELECT count(*) FROM sessions WHERE ended IS NULL");
    assert_eq!(live, "0", "a session never ended");
}

pub(super) fn doctor(world: &World) -> Finished {
    let doctor = Cmd::new(anteroom())
        .args(["doctor", "--data-dir"])
        .arg(world.data_dir());
    world.beside_the_proxy(doctor).run()
}

/// The first column of the first row that a statement gives.
pub(super) fn sqlite(world: &World, statement: &str) -> String {
    let script = "import sqlite3, sys\n\
                  db = sqlite3.connect(sys.argv[1], timeout=20)\n\
                  row = db.execute(sys.argv[2]).fetchone()\n\
                  db.commit()\n\
                  print('' if row is None else row[0])\n";
    let query = Cmd::new("python3")
        .args(["-c", script])
        .arg(world.data_dir().join("anteroom.db"))
        .arg(statement);
    let run = world.beside_the_proxy(query).run();
    run.exits(0);
    run.text().trim_end().to_owned()
}

/// The request ID that a client was shown.
fn shown(finished: &Finished) -> Option<String> {
    let said = finished.text() + &finished.stderr;
    let (_, rest) = said.split_once("Request ID:")?;
    rest.split_whitespace().next().map(str::to_owned)
}

fn ask(world: &World) -> Finished {
    let resource = format!("{}?logins={}", world.node("iot").resource_id, login());
    let options = [
        "request",
        "create",
        "--nowait",
        "--reason=work",
        "--resource",
    ];
    let mut words = options.to_vec();
    words.push(&resource);
    world.person("alice").access(&words).run()
}

/// A request of alice's that waits, made in peace.
fn pending(world: &World) -> String {
    let asked = ask(world);
    shown(&asked).unwrap_or_else(|| panic!("{asked}"))
}

fn give_up(world: &World, id: &str) {
    let dropped = world
        .person("alice")
        .access(&["request", "drop", "--end", id]);
    dropped.run();
}

#[test]
fn killed_while_a_request_is_filed_whoever_was_shown_its_id_finds_it() {
    if !Strace::works() {
        return;
    }
    let mut world = World::usual();
    let mut killed = 0;
    for calls in [SYNCS, WRITES, SENDS] {
        let file = |world: &World, (): &()| ask(world);
        killed += killed_at_each(
            &mut world,
            calls,
            |_| (),
            file,
            |world, (), told| {
                let before = world.requests();
                if let Some(id) = shown(&told) {
                    assert_eq!(world.state(&id), "PENDING", "{told}");
                }
                // Nothing stands in the way of asking again: it is the same request, if it is there.
                let id = pending(world);
                if let Some(one) = before.iter().find(|one| one["state"] == "PENDING") {
                    assert_eq!(one["id"], id.as_str());
                }
                world.deny(&id, "next");
            },
        );
    }
    assert!(killed > 5, "it was killed {killed} times");
}

#[test]
fn killed_while_a_request_is_approved_whoever_was_told_so_may_enter() {
    if !Strace::works() {
        return;
    }
    let mut world = World::usual();
    let mut killed = 0;
    for calls in [SYNCS, WRITES, SENDS] {
        let approve = |world: &World, id: &String| world.review(id, &["--approve"]);
        killed += killed_at_each(&mut world, calls, pending, approve, |world, id, told| {
            if told.text().contains("Request state: APPROVED") {
                assert_eq!(world.state(&id), "APPROVED", "{told}");
            } else if world.state(&id) == "PENDING" {
                world.approve(&id);
            }
            enters(world, "alice");
            give_up(world, &id);
        });
    }
    assert!(killed > 5, "it was killed {killed} times");
}

#[test]
fn killed_while_a_session_begins_there_is_a_row_for_every_certificate_a_node_saw() {
    if !Strace::works() {
        return;
    }
    let mut world = World::usual();
    let mut killed = 0;
    let starts = std::cell::Cell::new(0);
    for calls in [SYNCS, WRITES, SENDS] {
        let enter = |world: &World, (): &()| {
            let carol = world.person("carol");
            carol.ssh(Way::OneHop, &[], &target(), &["echo in"]).run()
        };
        killed += killed_at_each(
            &mut world,
            calls,
            |_| (),
            enter,
            |world, (), told| {
                let (text, code) = (told.text(), told.code());
                assert!(text.is_empty() || text == "in\n", "{told}");
                // What ran is in the log: its start was written before anything flowed.
                if text == "in\n" {
                    assert!(world.events("session.start").len() > starts.get(), "{told}");
                }
                starts.set(world.events("session.start").len());
                assert!(code != Some(0) || text == "in\n", "{told}");
            },
        );
    }
    let log = world.node("iot").log();
    let seen = log.split("(serial ").skip(1);
    let seen: Vec<&str> = seen.filter_map(|rest| rest.split(')').next()).collect();
    assert!(!seen.is_empty());
    for serial in seen {
        let row = format!("SELECT count(*) FROM issuances WHERE serial = '{serial}'");
        assert_eq!(sqlite(&world, &row), "1", "no row for serial {serial}");
    }
    assert!(killed > 5, "it was killed {killed} times");
}

#[test]
fn killed_while_a_request_is_given_up_whoever_was_told_so_has_no_access() {
    if !Strace::works() {
        return;
    }
    let mut world = World::usual();
    let mut killed = 0;
    for calls in [SYNCS, WRITES, SENDS] {
        let granted = |world: &World| world.granted("iot");
        let drop = |world: &World, id: &String| {
            let alice = world.person("alice");
            alice.access(&["request", "drop", "--end", id]).run()
        };
        killed += killed_at_each(&mut world, calls, granted, drop, |world, id, told| {
            let state = world.state(&id);
            if told.code() == Some(0) {
                assert_eq!(state, "REVOKED", "{told}");
            }
            if state == "APPROVED" {
                give_up(world, &id);
            }
            assert_eq!(world.state(&id), "REVOKED");
        });
    }
    assert!(killed > 5, "it was killed {killed} times");
}

#[test]
fn killed_while_a_machine_enrols_it_is_one_node_and_no_other_gets_in_by_its_token() {
    if !Strace::works() {
        return;
    }
    let mut world = World::bare("");
    let (mut killed, mut number) = (0, 0);
    for calls in [SYNCS, WRITES, SENDS] {
        let prepare = |world: &World| {
            number += 1;
            let name = format!("node{number}");
            let address = format!("127.0.0.1:{}", 2200 + number);
            let token = enrol::token(world, &["--name", &name, "--addr", &address]);
            let keys = enrol::key(world, &name, KeyType::Ed25519);
            (name, token, keys)
        };
        let enrols = |world: &World, (name, token, keys): &(String, enrol::Token, String)| {
            enrol::enrol(world, &token.secret, keys, &[name])
        };
        killed += killed_at_each(&mut world, calls, prepare, enrols, |world, made, told| {
            let (name, token, keys) = made;
            let before = enrol::node(world, &name);
            if told.code() == Some(0) && told.text().ends_with("\nenrol\n") {
                let uuid = before.as_ref().and_then(|node| node["id"].as_str());
                assert!(
                    told.text().contains(uuid.expect("it was told so")),
                    "{told}"
                );
            }
            // The machine asks again and is the same node, if it is one.
            enrol::enrol(world, &token.secret, &keys, &[&name]).exits(0);
            let after = enrol::node(world, &name).unwrap();
            assert!(before.is_none_or(|before| before["id"] == after["id"]));
            let theirs = enrol::key(world, &format!("{name}-theirs"), KeyType::Ed25519);
            enrol::enrol(world, &token.secret, &theirs, &[&name]).exits(77);
            let row = format!("SELECT count(*) FROM nodes WHERE name = '{name}'");
            assert_eq!(sqlite(world, &row), "1");
        });
    }
    assert!(killed > 3, "it was killed {killed} times");
}

#[test]
fn killed_while_a_certificate_is_got_what_was_printed_is_known() {
    if !Strace::works() {
        return;
    }
    let mut world = World::usual();
    let mut killed = 0;
    for calls in [SYNCS, WRITES] {
        let log_in = |world: &World, (): &()| world.person("carol").access(&["login"]).run();
        killed += killed_at_each(
            &mut world,
            calls,
            |_| (),
            log_in,
            |world, (), told| {
                if told.text().contains("-cert-v01@openssh.com ") {
                    let file = world.path("printed-cert.pub");
                    fs::write(&file, &told.stdout).unwrap();
                    let read = Cmd::new("ssh-keygen").arg("-Lf").arg(&file).run();
                    let read = read.text();
                    let serial = read.split("Serial: ").nth(1).unwrap();
                    let serial = serial.lines().next().unwrap();
                    let row = format!("SELECT count(*) FROM identities WHERE serial = '{serial}'");
                    assert_eq!(sqlite(world, &row), "1", "{told}");
                }
            },
        );
    }
    assert!(killed > 3, "it was killed {killed} times");
}

#[test]
fn killed_at_any_step_of_a_first_start_the_next_one_is_whole() {
    if !Strace::works() {
        return;
    }
    let calls = "fdatasync,fsync,rename,renameat,renameat2,link,linkat,fchmod,mkdir,pwrite64";
    let mut killed = 0;
    for at in (1..MOST).step_by(step(Calls {
        names: calls,
        step: 12,
    })) {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let started = Cmd::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("trace={calls}"))
            .arg("-e")
            .arg(format!("inject={calls}:signal=KILL:when={at}"))
            .arg(anteroom())
            .args([
                "serve",
                "--cluster",
                World::CLUSTER,
                "--listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(&data)
            .start();
        let until = Instant::now() + PATIENCE;
        let up = loop {
            if (started.out.text() + &started.err.text()).contains("anteroom: listening on ") {
                break true;
            }
            if !started.is_running() {
                break false;
            }
            assert!(
                Instant::now() < until,
                "neither up nor dead: {}",
                started.err.text()
            );
            thread::sleep(Duration::from_millis(5));
        };
        drop(started);
        let world = World::on(dir);
        doctor(&world).exits(0);
        let listed = world.ctl(&["auth", "export", "--type", "node"]);
        listed.exits(0);
        if up {
            break;
        }
        killed += 1;
    }
    assert!(killed > 5, "it was killed {killed} times");
}

/// Everything that is to hold while the store fails and when it is back: nobody new gets in and is told
/// why, who is in stays in, and service returns by itself.
fn new_access_fails_closed_and_comes_back(
    world: &World,
    fail: impl FnOnce(&World) -> Box<dyn FnOnce()>,
) {
    let id = pending(world);
    let carol = world.person("carol");
    let command = "echo ready; while read line; do echo got $line; done";
    let mut live = carol
        .ssh(Way::OneHop, &[], &target(), &[command])
        .stdin_open()
        .start();
    live.expect_out("ready\n");
    let before = world.requests().len();

    let repair = fail(world);
    let refused = carol.ssh(Way::OneHop, &[], &target(), &["echo in"]).run();
    assert!(
        refused.text().is_empty() && refused.code() != Some(0),
        "{refused}"
    );
    refused.says("the database is unavailable");
    let refused = world.review(&id, &["--approve"]);
    assert!(refused.code() != Some(0), "{refused}");
    refused.is_silent_about("APPROVED");
    refused.says("the database is unavailable");
    let refused = world
        .person("alice")
        .ssh(Way::OneHop, &[], "deploy@n2", &["echo in"])
        .run();
    assert!(
        refused.code() != Some(0) && shown(&refused).is_none(),
        "{refused}"
    );
    live.say("word\n");
    live.expect_out("got word\n");
    assert!(
        world.proxy_log().contains("the store failed"),
        "{}",
        world.proxy_log()
    );
    repair();

    // The end of a session that ends meanwhile is recorded, too.
    enters(world, "carol");
    live.end_input();
    live.finish(PATIENCE).exits(0);
    assert_eq!(world.requests().len(), before, "nothing was filed");
    world.approve(&id);
    enters(world, "alice");
    give_up(world, &id);
    let until = Instant::now() + PATIENCE;
    while sqlite(world, "SELECT count(*) FROM sessions WHERE ended IS NULL") != "0" {
        assert!(Instant::now() < until, "a session never ended");
        thread::sleep(Duration::from_millis(50));
    }
    invariants_hold(world);
}

#[test]
fn while_the_disk_fails_new_access_fails_closed_and_service_returns_by_itself() {
    if !Strace::works() {
        return;
    }
    let world = World::usual();
    for (calls, fault) in [
        ("fdatasync,fsync", "error=EIO"),
        ("pwrite64", "error=ENOSPC"),
        ("pwrite64,fdatasync", "error=EIO"),
        ("pwrite64,ftruncate,openat", "error=EROFS"),
    ] {
        new_access_fails_closed_and_comes_back(&world, |world| {
            let strace = Strace::attach(world, calls, fault);
            Box::new(|| strace.detach())
        });
    }
}

#[test]
fn a_disk_that_fails_now_and_then_loses_nothing_that_was_said() {
    if !Strace::works() {
        return;
    }
    let world = World::usual();
    let mut failed = 0;
    for (calls, error) in [
        ("fdatasync", "EIO"),
        ("pwrite64", "ENOSPC"),
        ("pwrite64", "EIO"),
    ] {
        for at in [1, 2, 3, 5, 9, 14, 22] {
            let fault = format!("error={error}:when={at}..{}", at + 3);
            let strace = Strace::attach(&world, calls, &fault);
            let told = ask(&world);
            let id = shown(&told);
            let review = id.as_ref().map(|id| world.review(id, &["--approve"]));
            strace.detach();
            failed += usize::from(told.code() != Some(0));
            if let (Some(id), Some(review)) = (id, review) {
                let approved = review.text().contains("Request state: APPROVED");
                failed += usize::from(!approved);
                let state = world.state(&id);
                assert!(!approved || state == "APPROVED", "{state}: {review}");
                give_up(&world, &id);
            }
            doctor(&world).exits(0);
            for request in world.requests() {
                if request["state"] == "PENDING" {
                    world.deny(request["id"].as_str().unwrap(), "next");
                }
            }
        }
    }
    assert!(failed > 5, "{failed} failed");
}

#[test]
fn on_a_full_disk_new_access_fails_closed_and_service_returns_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root may mount a small file system");
        return;
    }
    let world = World::with_nodes()
        .user("carol", "access")
        .data_on_tmpfs("8m")
        .start();
    new_access_fails_closed_and_comes_back(&world, |world| {
        let ballast = world.data_dir().join("ballast");
        let fill = Cmd::new("dd")
            .args(["if=/dev/zero", "bs=4096"])
            .arg(format!("of={}", ballast.display()));
        let filled = world.beside_the_proxy(fill).run();
        filled.says("No space left");
        let free = world.beside_the_proxy(Cmd::new("rm").arg(ballast));
        Box::new(move || {
            free.run().exits(0);
        })
    });
}

fn enters(world: &World, who: &str) {
    let who = world.person(who);
    let entered = who.ssh(Way::OneHop, &[], &target(), &["echo in"]).run();
    entered.exits(0).prints("in\n");
}
