//! Nodes that break the protocol. Whoever connects to one is told so in a clean sentence and leaves with 69, and
//! nobody else notices.

mod inside;
mod login;

use std::io::Result;
use std::time::Duration;

use anteroom_tests::raw::{Raw, RawKey, RawNode};
use anteroom_tests::{Finished, FourThings, NodeConfig, PATIENCE, Way, World, login as login_name};

/// What each step towards a node may take, and what a busy machine adds.
const STEP: Duration = Duration::from_secs(10 + 5);

/// What a hostile node would like a terminal to be told.
const HOSTILE: &str = "\x1b]0;owned\x07\x1b[2J\x1b[31mroot@iot:~# \r\nApproval received\u{202e}\u{200b}\u{9b}1m\x08\x7f";

type Case = (&'static str, fn(&mut Raw, &RawKey) -> Result<()>);

fn world() -> World {
    World::builder()
        .config("max_startups_per_source: 100")
        .node(NodeConfig::new("iot"))
        .user("carol", "access")
        .start()
}

/// Starts a node for each case and connects to all of them at once; what each connection came to.
fn visit(world: &World, cases: &[Case]) -> Vec<(&'static str, Finished)> {
    let clients: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(n, (case, behaviour))| {
            let name = format!("evil{n}");
            RawNode::start(world, &name, *behaviour);
            let target = format!("{}@{name}", login_name());
            let way = Way::BOTH[n % 2];
            let client = world.person("carol").ssh(way, &[], &target, &["echo in"]);
            (*case, client.start())
        })
        .collect();
    clients
        .into_iter()
        .map(|(case, client)| (case, client.finish(PATIENCE)))
        .collect()
}

/// Nothing of what people read could do anything to a terminal.
#[track_caller]
fn is_clean(case: &str, text: &str) {
    let clean = |c: char| c == '\n' || c == '\r' || (' '..='~').contains(&c) || c.is_alphanumeric();
    let unclean: Vec<char> = text
        .chars()
        .filter(|c| !clean(*c) && !"…⏎".contains(*c))
        .collect();
    assert!(unclean.is_empty(), "{case}: {unclean:?} in {text:?}");
}

/// The right node is reached as ever.
#[track_caller]
fn others_are_served(world: &World) {
    let target = format!("{}@iot", login_name());
    let entered = world
        .person("carol")
        .ssh(Way::OneHop, &[], &target, &["echo in"])
        .run();
    entered.exits(0).prints("in\n");
}

/// Certificates that left for a node which then failed are recorded; nothing else is.
#[track_caller]
fn only_what_was_issued(things: &FourThings, world: &World, case: &str, nodes: usize) {
    let issued = world
        .events("cert.create")
        .into_iter()
        .filter(|entry| entry["success"] == true)
        .count();
    assert!(issued > 0, "{case}");
    things.hold_with(world, case, |table, more| match table {
        "nodes" => more == nodes as u64,
        "issuances" | "sessions" => true,
        _ => more == 0,
    });
}
