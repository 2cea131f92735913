//! Access, and requests for it, that end while something is under way: while a node is dialled, and in the moment of
//! the review (SECURITY section 3). Short times rather than a clock that is moved: everybody's clock is the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::raw::wire::{Msg, msg};
use anteroom_tests::raw::{Raw, RawKey, RawNode};
use anteroom_tests::{PATIENCE, PROMPTLY, Way, World, login, request_id};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::contest::{became, losers_are_told};
use super::crash::doctor;

/// How long the access lasts, from when it is asked for.
const ACCESS: Duration = Duration::from_secs(5);

/// How long a node hesitates, with access that is approved within two seconds.
const HESITATES: Duration = Duration::from_secs(7);

/// The steps towards a session at which a node can hesitate.
const STEPS: [&str; 4] = ["version", "login", "channel", "command"];

/// A node that hesitates at a step and is then as it should be; it counts the commands that it is given.
fn slow_node(world: &World, step: &'static str) -> (String, Arc<AtomicU32>) {
    let name = format!("slow-{step}");
    let commands = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&commands);
    RawNode::start(world, &name, move |raw: &mut Raw, key: &RawKey| {
        let hesitate = |at: &str| {
            if at == step {
                thread::sleep(HESITATES);
            }
        };
        hesitate("version");
        raw.greet(key)?;
        hesitate("login");
        raw.logs_in()?;
        let channel = raw.asked_for_session()?;
        hesitate("channel");
        raw.confirm(channel)?;
        loop {
            let request = raw.recv_until(msg::CHANNEL_REQUEST)?;
            if request[9..].starts_with(b"exec") {
                break;
            }
        }
        counted.fetch_add(1, Ordering::SeqCst);
        hesitate("command");
        raw.send(Msg::new(msg::CHANNEL_SUCCESS).u32(channel))?;
        raw.send(Msg::new(msg::CHANNEL_DATA).u32(channel).string("in\n"))
    });
    (name, commands)
}

fn asks(world: &World, node: &str, options: &[&str]) -> String {
    let resource = format!("{node}?logins={}", login());
    let words = [
        "request",
        "create",
        "--nowait",
        "--reason=work",
        "--resource",
    ];
    let mut words = words.to_vec();
    words.push(&resource);
    words.extend(options);
    let created = world.person("alice").access(&words).run();
    request_id(&(created.text() + &created.stderr))
}

fn resource_id(world: &World, node: &str) -> String {
    let shown = world.ctl(&["nodes", "show", node, "--format", "json"]);
    shown.exits(0);
    let id = shown.json()["id"].as_str().expect("a UUID").to_owned();
    format!("/{}/node/{id}", World::CLUSTER)
}

fn moment(request: &serde_json::Value, field: &str) -> OffsetDateTime {
    let text = request[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} in {request}"));
    OffsetDateTime::parse(text, &Rfc3339).expect("RFC 3339")
}

#[test]
fn access_that_ends_while_its_node_is_dialled_opens_nothing_and_says_so() {
    let world = World::with_nodes().start();
    let cases: Vec<_> = STEPS
        .into_iter()
        .map(|step| {
            let (name, commands) = slow_node(&world, step);
            let ttl = format!("--session-ttl={}s", ACCESS.as_secs());
            let id = asks(&world, &resource_id(&world, &name), &[&ttl]);
            let target = format!("{}@{name}", login());
            let alice = world.person("alice");
            // One waits for the approval, the other comes after it.
            let held = alice.ssh(Way::Jump, &[], &target, &["id"]).start();
            held.expect_err("Waiting for request approval...");
            world.approve(&id);
            let later = alice.ssh(Way::OneHop, &[], &target, &["id"]).start();
            (step, id, commands, [held, later])
        })
        .collect();
    for (step, id, commands, clients) in cases {
        for client in clients {
            let finished = client.finish(PATIENCE);
            assert!(finished.stdout.is_empty(), "{step}: {finished}");
            assert!(
                ![Some(0), Some(255), None].contains(&finished.code()),
                "{step}: {finished}"
            );
            let said = finished.stderr.to_lowercase();
            let why = ["expired", "ended", "is over", "has ended"];
            assert!(
                why.iter().any(|why| said.contains(why)),
                "{step}: {finished}"
            );
        }
        let request = world.request(&id);
        assert_eq!(request["state"], "EXPIRED", "{step}: {request}");
        assert_eq!(became(&world, &id, "APPROVED"), 1, "{step}");
        assert_eq!(became(&world, &id, "EXPIRED"), 1, "{step}");
        // Where the command was there before the end, what it gave afterwards is not.
        let given = commands.load(Ordering::SeqCst);
        assert_eq!(given, if step == "command" { 2 } else { 0 }, "{step}");
        let end = moment(&request, "expires");
        for entry in world.events("cert.create") {
            if entry["request_id"] == id.as_str() && entry["success"] == true {
                assert!(moment(&entry, "expires") <= end, "{entry}");
                assert!(moment(&entry, "time") < end, "{entry}");
            }
        }
    }
    doctor(&world).exits(0);
}

#[test]
fn a_lock_while_the_node_is_dialled_is_told_at_once_and_nothing_is_run() {
    for step in ["version", "login", "channel"] {
        let world = World::with_nodes().user("carol", "access").start();
        let (name, commands) = slow_node(&world, step);
        let target = format!("{}@{name}", login());
        let clients = Way::BOTH.map(|way| {
            let carol = world.person("carol");
            carol.ssh(way, &[], &target, &["id"]).start()
        });
        // Until both are on their way to the node.
        thread::sleep(Duration::from_millis(1500));
        let began = Instant::now();
        world
            .ctl(&["lock", "--user", "carol", "--message", "stop"])
            .exits(0);
        for client in clients {
            client.finish(PATIENCE).prints("").says("stop");
        }
        let took = began.elapsed();
        assert!(took < PROMPTLY || step == "channel", "{step}: {took:?}");
        thread::sleep(HESITATES.saturating_sub(began.elapsed()));
        assert_eq!(commands.load(Ordering::SeqCst), 0, "{step}");
    }
}

#[test]
fn a_lock_while_the_node_of_a_forward_is_dialled_leaves_it_unasked() {
    let world = World::with_nodes()
        .documents(
            "kind: role\nmetadata: {name: both}\nspec: {options: {port_forwarding: true}, \
             allow: {logins: ['{{internal.logins}}'], node_labels: {'*': '*'}}}\n",
        )
        .user("dora", "both")
        .start();
    let asked = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&asked);
    RawNode::start(&world, "slow", move |raw: &mut Raw, key: &RawKey| {
        raw.greet(key)?;
        thread::sleep(HESITATES);
        raw.logs_in()?;
        loop {
            let message = raw.hear()?;
            let asks = [msg::CHANNEL_OPEN, msg::GLOBAL_REQUEST].contains(&message[0]);
            // OpenSSH's own greetings after the login are not about ports.
            let about_ports = [&b"direct-tcpip"[..], b"tcpip-forward"]
                .iter()
                .any(|kind| message.windows(kind.len()).any(|part| part == *kind));
            counted.fetch_add(u32::from(asks && about_ports), Ordering::SeqCst);
        }
    });
    let target = format!("{}@slow", login());
    let forwards = [
        &["-W", "127.0.0.1:9"][..],
        &[
            "-N",
            "-o",
            "ExitOnForwardFailure=yes",
            "-R",
            "0:127.0.0.1:9",
        ],
    ];
    let clients = forwards.map(|options| {
        let dora = world.person("dora");
        dora.ssh(Way::OneHop, options, &target, &[]).start()
    });
    // Until both are on their way to the node.
    thread::sleep(Duration::from_millis(1500));
    let began = Instant::now();
    world
        .ctl(&["lock", "--user", "dora", "--message", "stop"])
        .exits(0);
    for client in clients {
        let finished = client.finish(PATIENCE);
        assert!(
            finished.code() != Some(0) && finished.stdout.is_empty(),
            "{finished}"
        );
        // To a refused listener OpenSSH itself says the words.
        let said = ["stop", "remote port forwarding failed"];
        let told = said.iter().any(|said| finished.stderr.contains(said));
        assert!(told, "{finished}");
    }
    assert!(began.elapsed() < PROMPTLY, "{:?}", began.elapsed());
    thread::sleep((HESITATES + Duration::from_secs(1)).saturating_sub(began.elapsed()));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[test]
fn a_review_in_the_last_moment_of_a_request_decides_it_or_is_told_that_it_is_over() {
    let world = World::with_nodes().user("ben", "reviewer").start();
    let target = format!("{}@iot", login());
    let resource = world.node("iot").resource_id.clone();
    let mut reached = std::collections::BTreeSet::new();
    // From well before the end to after it, in milliseconds: a review over ssh takes some time to arrive.
    for early in [500, 200, 120, 90, 60, 30, -150] {
        let id = asks(&world, &resource, &["--request-ttl=4s"]);
        let alice = world.person("alice");
        let held = alice.ssh(Way::OneHop, &[], &target, &["echo in"]).start();
        held.expect_err("Waiting for request approval...");
        // Listings show whole seconds; the request was filed at some moment within one.
        let filed = world.events("access_request.create");
        let end = moment(filed.last().unwrap(), "time") + time::Duration::seconds(4);
        let left = end - OffsetDateTime::now_utc() - time::Duration::milliseconds(early);
        thread::sleep(left.try_into().unwrap_or_default());
        let review = |who: &str, verdict: &str| {
            let words = ["request", "review", &id, verdict];
            world.person(who).access(&words).start()
        };
        let (approves, denies) = (review("bob", "--approve"), review("ben", "--deny"));
        let told = [
            ("bob approves", approves.finish(PATIENCE)),
            ("ben denies", denies.finish(PATIENCE)),
        ];
        let held = held.finish(PATIENCE);
        let state = world.state(&id);
        let won: Vec<&str> = told
            .iter()
            .filter(|(_, told)| told.code() == Some(0))
            .map(|(what, _)| *what)
            .collect();
        let (winners, code): (&[&str], i32) = match state.as_str() {
            "APPROVED" => (&["bob approves"], 0),
            "DENIED" => (&["ben denies"], 77),
            "EXPIRED" => (&[], 75),
            other => panic!("{other}: {told:#?}"),
        };
        assert_eq!(won, winners, "{state}: {told:#?}");
        losers_are_told(&told);
        assert_eq!(held.code(), Some(code), "{state}: {held}");
        assert_eq!(held.text() == "in\n", state == "APPROVED", "{held}");
        for any in ["APPROVED", "DENIED", "EXPIRED"] {
            let times = became(&world, &id, any);
            assert_eq!(times, usize::from(state == any), "{state}: {any}");
        }
        if state == "APPROVED" {
            alice
                .access(&["request", "drop", "--end", &id])
                .run()
                .exits(0);
        }
        reached.insert(state);
    }
    assert!(reached.contains("EXPIRED"), "{reached:?}");
    doctor(&world).exits(0);
}
