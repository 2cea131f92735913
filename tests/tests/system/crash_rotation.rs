//! The real proxy killed at the k-th call to its kernel while the key of an authority is exchanged, for each of the
//! three and each stage. Whoever trusted the right keys before gets in afterwards, in whichever stage it is.

use std::cell::Cell;

use anteroom_tests::{Person, Strace, World};

use super::crash::{Calls, SYNCS, WRITES, killed_at_each};
use super::rotation::{counts, enters, rotate, status, with_certificate};

/// Of the files of keys.
const FILES: Calls = Calls {
    names: "rename,renameat,renameat2,unlink,unlinkat,link,linkat,fchmod",
    step: 2,
};
/// Of the database and its log, beside those of the files.
const ALL_WRITES: Calls = Calls { step: 12, ..WRITES };
const ALL_SYNCS: Calls = Calls { step: 2, ..SYNCS };

/// What is exchanged, stage by stage, around to the first.
const STAGES: [&str; 3] = ["stable", "announce", "sign"];

fn stage(world: &World, kind: &str) -> String {
    let row = status(world, kind);
    row["stage"].as_str().unwrap().to_owned()
}

/// Takes the step to a stage.
fn step(to: &str) -> [&str; 3] {
    let name = if to == "stable" { "retire" } else { to };
    ["--force", "--stage", name]
}

/// Has an authority in a stage, whichever it is in.
fn reach(world: &World, kind: &str, wanted: &str) {
    for _ in STAGES {
        let now = stage(world, kind);
        if now == wanted {
            break;
        }
        let at = STAGES.iter().position(|stage| *stage == now).unwrap();
        rotate(world, kind, &step(STAGES[(at + 1) % 3])).exits(0);
    }
    assert_eq!(stage(world, kind), wanted);
}

/// What people and nodes have from before the step; with a certificate for carol that counts.
fn everybody_knows(world: &World, logins: &Cell<u32>) -> Person {
    world.write_known_hosts();
    world.sshd_config("iot");
    let carol = world.person("carol");
    logins.set(logins.get() + 1);
    with_certificate(world, carol, &format!("held{}", logins.get()))
}

fn killed_while_it_is_exchanged(kind: &str) {
    if !Strace::works() {
        return;
    }
    let mut world = World::usual();
    let (mut killed, logins) = (0, Cell::new(0));
    for (number, from) in STAGES.into_iter().enumerate() {
        let to = STAGES[(number + 1) % 3];
        for calls in [ALL_SYNCS, FILES, ALL_WRITES] {
            let before = |world: &World| {
                reach(world, kind, from);
                everybody_knows(world, &logins)
            };
            let operation = |world: &World, _: &Person| rotate(world, kind, &step(to));
            killed += killed_at_each(&mut world, calls, before, operation, |world, held, told| {
                let now = stage(world, kind);
                if told.code() == Some(0) {
                    assert_eq!(now, to, "{told}");
                }
                assert!([from, to].contains(&now.as_str()), "{now}: {told}");
                // What was trusted before is enough: with the certificate of before, from the hosts of before.
                assert!(counts(&held.access(&["status"]).run()), "{now}: {told}");
                enters(world, &held);
                let trusted = world.ctl(&["auth", "export", "--type", kind]).text();
                let keys = trusted.lines().filter_map(|line| {
                    let words: Vec<&str> = line.split(' ').collect();
                    let at = words.iter().position(|word| word.starts_with("AAAA"))?;
                    Some(words[at].to_owned())
                });
                let keys: std::collections::BTreeSet<String> = keys.collect();
                assert_eq!(keys.len(), if now == "stable" { 1 } else { 2 }, "{trusted}");
            });
        }
    }
    assert!(killed > 8, "it was killed {killed} times");
}

#[test]
fn killed_while_the_node_ca_is_exchanged_everybody_gets_in_by_what_was_trusted_before() {
    killed_while_it_is_exchanged("node");
}

#[test]
fn killed_while_the_user_ca_is_exchanged_everybody_gets_in_by_what_was_trusted_before() {
    killed_while_it_is_exchanged("user");
}

#[test]
fn killed_while_the_host_ca_is_exchanged_everybody_gets_in_by_what_was_trusted_before() {
    killed_while_it_is_exchanged("host");
}
