//! Everybody at once over one request through the real binary: several `ssh` in the same moment. One state
//! at the end, one grant, and whoever was too late is told so (SECURITY section 3).

use anteroom_tests::{Finished, PATIENCE, Proc, Way, World, login};

fn target() -> String {
    format!("{}@iot", login())
}

/// What somebody does, and how it is seen that it was done.
struct Attempt {
    what: &'static str,
    running: Proc,
}

fn pending(world: &World) -> String {
    let resource = format!("{}?logins={}", world.node("iot").resource_id, login());
    let words = [
        "request",
        "create",
        "--nowait",
        "--reason=work",
        "--resource",
        &resource,
    ];
    let created = world.person("alice").access(&words).run();
    anteroom_tests::request_id(&(created.text() + &created.stderr))
}

fn start(world: &World, what: &'static str, id: &str) -> Attempt {
    let over_ssh = |who: &str, words: &[&str]| world.person(who).access(words).start();
    let running = match what {
        "bob approves" => over_ssh("bob", &["request", "review", id, "--approve"]),
        "ben denies" => over_ssh("ben", &["request", "review", id, "--deny"]),
        "ben approves" => over_ssh("ben", &["request", "review", id, "--approve"]),
        "alice cancels" => over_ssh("alice", &["request", "cancel", id]),
        "alice drops" => over_ssh("alice", &["request", "drop", "--end", id]),
        "the administrator locks" => {
            let request = format!("--request={id}");
            world.ctl_cmd(&["lock", &request, "--message=stop"]).start()
        }
        "alice enters" => {
            let alice = world.person("alice");
            alice.ssh(Way::OneHop, &[], &target(), &["echo in"]).start()
        }
        other => panic!("nobody can {other}"),
    };
    Attempt { what, running }
}

fn contest(world: &World, id: &str, all: &[&'static str]) -> Vec<(&'static str, Finished)> {
    let started: Vec<Attempt> = all.iter().map(|what| start(world, what, id)).collect();
    let finish = |attempt: Attempt| (attempt.what, attempt.running.finish(PATIENCE));
    started.into_iter().map(finish).collect()
}

/// How often the log tells that the request became this.
pub(super) fn became(world: &World, id: &str, state: &str) -> usize {
    let mut last = String::new();
    let mut times = 0;
    for entry in world.audit() {
        let ours = entry["request_id"] == id && entry["success"] == true;
        let named = entry["event"]
            .as_str()
            .unwrap()
            .starts_with("access_request.");
        if ours
            && named
            && let Some(now) = entry["state"].as_str()
        {
            times += usize::from(now == state && last != state);
            last = now.to_owned();
        }
    }
    times
}

/// Whoever did not get it done was told the state, or what else was in the way.
pub(super) fn losers_are_told(told: &[(&'static str, Finished)]) {
    for (what, finished) in told {
        if finished.code() == Some(0) {
            continue;
        }
        let said = finished.text() + &finished.stderr;
        let why = [
            "APPROVED", "DENIED", "CANCELED", "REVOKED", "EXPIRED", "stop", "denied", "revoked",
        ];
        assert!(
            why.iter().any(|word| said.contains(word)),
            "{what} was told: {finished}"
        );
    }
}

#[test]
fn of_reviewers_and_a_requester_at_once_one_decides_and_the_others_are_told() {
    let world = World::with_nodes().user("ben", "reviewer").start();
    let mut reached = std::collections::BTreeSet::new();
    for round in 0..6 {
        let id = pending(&world);
        let mut all = ["bob approves", "ben denies", "alice cancels"];
        all.rotate_left(round % 3);
        let told = contest(&world, &id, &all);
        let won: Vec<_> = told
            .iter()
            .filter(|(_, told)| told.code() == Some(0))
            .collect();
        let state = world.state(&id);
        assert_eq!(won.len(), 1, "{state}: {told:#?}");
        let expected = match won[0].0 {
            "bob approves" => "APPROVED",
            "ben denies" => "DENIED",
            _ => "CANCELED",
        };
        assert_eq!(state, expected, "{told:#?}");
        losers_are_told(&told);
        for state in ["APPROVED", "DENIED", "CANCELED"] {
            assert_eq!(became(&world, &id, state), usize::from(state == expected));
        }
        if state == "APPROVED" {
            let dropped = world
                .person("alice")
                .access(&["request", "drop", "--end", &id]);
            dropped.run().exits(0);
        }
        reached.insert(state);
    }
    println!("reached {reached:?}");
}

#[test]
fn nobody_enters_once_a_contest_has_closed_the_request() {
    let world = World::with_nodes().user("ben", "reviewer").start();
    for (round, closing) in [
        "alice drops",
        "the administrator locks",
        "alice drops",
        "the administrator locks",
    ]
    .into_iter()
    .enumerate()
    {
        let id = pending(&world);
        world.approve(&id);
        let mut all = ["alice enters", closing, "alice enters", "alice enters"];
        all.rotate_left(round % 4);
        // A held one waits for whoever would approve: nobody does.
        let started: Vec<Attempt> = all.iter().map(|what| start(&world, what, &id)).collect();
        let mut entered = 0;
        for attempt in started {
            if attempt.what == closing {
                attempt.running.finish(PATIENCE).exits(0);
                continue;
            }
            // It ran, was ended, or asks again for what was closed.
            let until = std::time::Instant::now() + PATIENCE;
            while attempt.running.is_running()
                && !attempt
                    .running
                    .err
                    .text()
                    .contains("Waiting for request approval")
            {
                assert!(std::time::Instant::now() < until);
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            entered += usize::from(attempt.running.out.text() == "in\n");
        }
        let issued = world.events("cert.create");
        let issued = issued
            .iter()
            .filter(|entry| entry["request_id"] == id.as_str());
        assert!(entered <= issued.count());
        // The log in its order, locks and ends included, is checked by the same code as doctor's.
        world.ctl(&["audit", "verify"]).exits(0);
        for request in world.requests() {
            let id = request["id"].as_str().unwrap();
            if request["state"] == "PENDING" {
                world.deny(id, "next");
            } else if request["state"] == "APPROVED" {
                // What is locked is over for her, and stands in the way of asking anew until it ends.
                let dropped = world
                    .person("alice")
                    .access(&["request", "drop", "--end", id]);
                dropped.run().exits(0);
            }
        }
    }
}
