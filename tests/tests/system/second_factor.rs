//! The second factor: set up, asked for after the key, taken once, guessed seldom, demanded by roles.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anteroom_tests::{Cmd, Finished, KeyType, PATIENCE, Person, Way, World, login, request_id};
use totp_rs::Totp;

use crate::revoke::{ends_when, live, target};

/// Seconds that a code is shown for.
const STEP: u64 = 30;

const DEMANDED: &str = "demands a second factor, and this connection has not given one";

fn role(name: &str, options: &str) -> String {
    format!(
        "kind: role\nmetadata: {{name: {name}}}\nspec:\n  options: {{{options}}}\n  \
         allow: {{logins: ['{{{{internal.logins}}}}'], node_labels: {{'*': '*'}}}}\n"
    )
}

/// Dora, whose role demands a second factor that counts for `lasts`.
pub(crate) fn world(lasts: &str) -> World {
    World::with_nodes()
        .config(&format!("second_factor_lasts: {lasts}"))
        .documents(&role("strict", "require_session_mfa: yes"))
        .user("dora", "strict")
        .start()
}

/// An authenticator app.
pub(crate) struct App {
    totp: Totp,
    secret: String,
    last: u64,
}

impl App {
    /// Reads what `mfa add` prints.
    fn reading(printed: &str) -> Self {
        let uri = printed.lines().find(|line| line.starts_with("otpauth://"));
        let totp = Totp::from_url(uri.unwrap_or_else(|| panic!("no URI: {printed}"))).unwrap();
        let secret = totp.secret().to_base32();
        assert!(printed.contains(&format!("\n{secret}\n")), "{printed}");
        Self {
            totp,
            secret,
            last: 0,
        }
    }

    fn now() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    }

    /// A code that counts now and was not shown before: the clock of this app may be a step off.
    pub(crate) fn code(&mut self) -> String {
        loop {
            let now = Self::now() / STEP;
            // The one before is good for the rest of this step alone.
            let early = if Self::now() % STEP < STEP - 8 {
                now - 1
            } else {
                now
            };
            let next = early.max(self.last + 1);
            if next <= now + 1 {
                self.last = next;
                return self.totp.generate(next * STEP).to_string();
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// One that is wrong for minutes to come.
    fn wrong(&self) -> String {
        let steps = App::now() / STEP - 20..App::now() / STEP + 20;
        let right: Vec<_> = steps
            .map(|n| self.totp.generate(n * STEP).to_string())
            .collect();
        let mut guesses = (0..).map(|n| format!("{n:06}"));
        guesses.find(|guess| !right.contains(guess)).unwrap()
    }
}

/// Has `ssh` answer its prompts with `code`.
fn answering(cmd: Cmd, person: &Person, code: &str) -> Cmd {
    let (script, file) = (person.dir.join("askpass"), person.dir.join("code"));
    fs::write(&file, format!("{code}\n")).unwrap();
    fs::write(&script, format!("#!/bin/sh\ncat {}\n", file.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    cmd.env("SSH_ASKPASS", script)
        .env("SSH_ASKPASS_REQUIRE", "force")
}

/// `mfa add` without a terminal, with a code from standard input.
pub(crate) fn set_up(person: &Person, words: &[&str]) -> App {
    let mut adding = person
        .access(&["mfa", "add"])
        .args(words)
        .stdin_open()
        .start();
    adding.expect_err("Then give the code");
    while adding.out.text().lines().count() < 2 {
        thread::sleep(Duration::from_millis(10));
    }
    let mut app = App::reading(&adding.out.text());
    adding.say(app.code());
    adding.end_input();
    adding.finish(PATIENCE).exits(0).says("is set up");
    app
}

fn enters(person: &Person, way: Way, code: &str) -> Finished {
    let cmd = person.ssh(way, &[], &target(), &["echo in"]);
    answering(cmd, person, code).run()
}

fn in_batch(person: &Person, way: Way) -> Finished {
    let options = ["-o", "BatchMode=yes"];
    person.ssh(way, &options, &target(), &["echo in"]).run()
}

#[test]
fn a_code_is_asked_for_after_the_key_and_taken_once() {
    let world = world("0s");
    let dora = world.person("dora").clone();
    // Without a device: in, as far as it goes, and told what to do.
    for way in Way::BOTH {
        let refused = dora.ssh(way, &[], &target(), &["echo in"]).run();
        refused
            .exits(77)
            .prints("")
            .says(DEMANDED)
            .says("`ssh -t access mfa add`");
    }
    for words in [
        &["ls"][..],
        &["login"],
        &["request", "ls"],
        &["users", "ls"],
    ] {
        dora.access(words).run().exits(77).says(DEMANDED);
    }
    for words in [
        &["whoami"][..],
        &["status"],
        &["help"],
        &["config"],
        &["mfa", "ls"],
    ] {
        dora.access(words).run().exits(0);
    }
    let mut app = set_up(&dora, &["--name", "phone"]);
    // With one: nobody gets in without a code, not even to the commands.
    for way in Way::BOTH {
        let refused = in_batch(&dora, way);
        refused
            .exits(255)
            .prints("")
            .says("Permission denied (keyboard-interactive)");
    }
    let code = app.code();
    enters(&dora, Way::OneHop, &code).exits(0).prints("in\n");
    let again = enters(&dora, Way::OneHop, &code);
    again
        .exits(255)
        .prints("")
        .says("this code was used already");
    let wrong = enters(&dora, Way::Jump, &app.wrong());
    wrong.exits(255).prints("").says("this code is wrong");
    enters(&dora, Way::Jump, &app.code())
        .exits(0)
        .prints("in\n");
    let listed = answering(dora.access(&["mfa", "ls"]), &dora, &app.code()).run();
    listed.exits(0).prints_part("phone");

    let failed: Vec<String> = world
        .events("auth")
        .iter()
        .map(|entry| format!("{} {}", entry["user"], entry["reason"]))
        .collect();
    for reason in ["no second factor", "this code is wrong", "was used already"] {
        let found = failed
            .iter()
            .any(|text| text.contains("dora") && text.contains(reason));
        assert!(found, "{reason}: {failed:#?}");
    }
    let added = world.events("mfa.add");
    assert_eq!(added[0]["name"], "dora/phone");
    let logins = world.events("user.login");
    assert!(
        logins
            .iter()
            .any(|entry| entry["reason"] == "with a second factor")
    );
    // What makes codes is in no log and not in the database, and its key is private.
    let database = fs::read(world.data_dir().join("anteroom.db")).unwrap();
    let raw = app.totp.secret().as_bytes();
    assert!(!database.windows(raw.len()).any(|part| part == raw));
    assert!(!String::from_utf8_lossy(&database).contains(&app.secret));
    assert!(!world.proxy_log().contains(&app.secret));
    assert!(!world.proxy_log().contains(&code));
    let key = fs::metadata(world.data_dir().join("mfa_key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o7777, 0o600);
    world.ctl(&["audit", "verify"]).exits(0);
}

#[test]
fn it_is_not_asked_again_within_its_time_by_the_same_key_from_the_same_address() {
    let mut world = world("5m");
    let dora = world.person("dora").clone();
    let other = dora.with_new_key("id2", KeyType::Ed25519);
    let update = ["users", "update", "dora", "--add-key"];
    let added = world.ctl_cmd(&update).arg(other.public_key()).run();
    added.exits(0);
    let mut app = set_up(&dora, &[]);
    // The code that set it up counts.
    for way in Way::BOTH {
        in_batch(&dora, way).exits(0).prints("in\n");
    }
    in_batch(&other, Way::OneHop).exits(255).prints("");
    let there = format!("{}@iot@access", login());
    let elsewhere = ["-o", "BatchMode=yes", "-b", "127.0.0.2", &there, "true"];
    dora.client("ssh").args(elsewhere).run().exits(255);
    enters(&other, Way::Jump, &app.code()).exits(0);
    in_batch(&other, Way::Jump).exits(0);
    // A restart forgets who gave one, and not which codes were used.
    let code = app.code();
    let again = answering(
        dora.client("ssh").args(["-b", "127.0.0.2", &there, "true"]),
        &dora,
        &code,
    );
    again.run().exits(0);
    world.stop_proxy().exits(0);
    world.start_proxy();
    in_batch(&dora, Way::OneHop).exits(255);
    enters(&dora, Way::OneHop, &code)
        .exits(255)
        .says("was used already");
    enters(&dora, Way::OneHop, &app.code()).exits(0);
    // Without its device it counts no more, at once.
    world
        .ctl(&["mfa", "rm", "--user", "dora"])
        .exits(0)
        .prints("device app of dora removed\n");
    in_batch(&dora, Way::OneHop).exits(77).says(DEMANDED);
    let removed = world.events("mfa.delete");
    assert_eq!(removed[0]["name"], "dora/app");
}

#[test]
fn of_parallel_connections_with_one_code_one_gets_in() {
    let world = world("0s");
    let dora = world.person("dora").clone();
    let mut app = set_up(&dora, &[]);
    let code = app.code();
    let cmd = || {
        let once = dora.client("ssh").args(["-o", "NumberOfPasswordPrompts=1"]);
        let there = format!("{}@iot@access", login());
        answering(once.args([&there, "echo in"]), &dora, &code)
    };
    let running: Vec<_> = (0..6).map(|_| cmd().start()).collect();
    let ended = running.into_iter().map(|one| one.finish(PATIENCE));
    let codes: Vec<_> = ended.map(|one| one.code()).collect();
    let entered = codes.iter().filter(|code| **code == Some(0)).count();
    assert_eq!(entered, 1, "{codes:?}");
}

#[test]
fn guessing_pauses_and_an_administrator_lets_in_again() {
    let mut world = world("0s");
    let dora = world.person("dora").clone();
    let mut app = set_up(&dora, &[]);
    // A client that has nobody to ask answers with nothing, which is no guess.
    for _ in 0..3 {
        enters(&dora, Way::OneHop, "").exits(255);
    }
    enters(&dora, Way::OneHop, &app.code()).exits(0);
    for _ in 0..2 {
        enters(&dora, Way::OneHop, &app.wrong()).exits(255);
    }
    // Neither the right code nor a restart helps.
    world.stop_proxy().exits(0);
    world.start_proxy();
    let paused = enters(&dora, Way::OneHop, &app.code());
    paused
        .exits(255)
        .says("too many wrong codes; the next one is looked at from");
    world.ctl(&["mfa", "rm", "--user", "dora"]).exits(0);
    let mut app = set_up(&dora, &[]);
    enters(&dora, Way::OneHop, &app.code()).exits(0);
}

#[test]
fn at_a_terminal_it_is_prompted_for() {
    let world = world("0s");
    let dora = world.person("dora").clone();
    let mut adding = dora
        .client("ssh")
        .args(["-t", "access", "mfa", "add"])
        .in_terminal();
    let shown = adding.expect("Code: ");
    let printed: String = shown.replace('\r', "");
    let uri: String = printed.split_once("otpauth://").unwrap().1.to_owned();
    let uri = format!("otpauth://{}", uri.lines().next().unwrap());
    let mut app = App {
        totp: Totp::from_url(&uri).unwrap(),
        secret: String::new(),
        last: 0,
    };
    adding.type_in(&format!("{}\r", app.wrong()));
    adding.expect("this code is wrong");
    adding.expect("Code: ");
    adding.type_in(&format!("{}\r", app.code()));
    adding.expect("is set up");
    assert_eq!(adding.finish(PATIENCE).0, 0);

    let there = format!("{}@iot@access", login());
    let mut session = dora.client("ssh").args([&there, "echo in"]).in_terminal();
    session.expect("Second factor code: ");
    session.type_in(&format!("{}\r", app.wrong()));
    session.expect("this code is wrong");
    session.expect("Second factor code: ");
    session.type_in(&format!("{}\r", app.code()));
    session.expect("in");
    assert_eq!(session.finish(PATIENCE).0, 0);
}

#[test]
fn a_key_alone_changes_nothing_about_devices_that_are_there() {
    let world = World::with_nodes()
        .documents(&role("strict", "require_session_mfa: true"))
        .user("erin", "access")
        .user("dora", "strict")
        .start();
    // Nobody demands it of Erin, so that ssh does not ask her; she has one all the same.
    let erin = world.person("erin").clone();
    let mut app = set_up(&erin, &["--name", "one"]);
    in_batch(&erin, Way::OneHop).exits(0);
    let thief = erin
        .access(&["mfa", "add", "--name", "two"])
        .stdin("123456")
        .run();
    thief
        .exits(77)
        .says("this needs a code of a device that is set up");
    let thief = erin.access(&["mfa", "rm", "one"]).run();
    thief.exits(77).says("this needs a code");
    let wrong = erin
        .access(&["mfa", "rm", "one", "--code", &app.wrong()])
        .run();
    wrong.exits(77).says("this code is wrong");
    let mut two = set_up(&erin, &["--name", "two", "--code", &app.code()]);
    let removed = erin
        .access(&["mfa", "rm", "one", "--code", &two.code()])
        .run();
    removed.exits(0).prints("device one removed\n");
    let none = erin
        .access(&["mfa", "rm", "one", "--code", &two.code()])
        .run();
    none.exits(66);
    erin.access(&["mfa", "rm", "--user", "dora"])
        .run()
        .exits(77);
    erin.access(&["mfa", "ls", "--user", "dora"])
        .run()
        .exits(77);

    // The last one, where it is demanded, needs a code of its own: that of the connection is not enough.
    let dora = world.person("dora").clone();
    let mut app = set_up(&dora, &[]);
    in_batch(&dora, Way::OneHop).exits(0);
    let refused = dora.access(&["mfa", "rm", "app"]).run();
    refused.exits(77).says("this needs a code");
    let removed = dora
        .access(&["mfa", "rm", "app", "--code", &app.code()])
        .run();
    removed.exits(0);
    in_batch(&dora, Way::OneHop).exits(77).says(DEMANDED);
}

#[test]
fn a_connection_that_waits_has_given_its_code_before_and_goes_on() {
    let world = World::with_nodes()
        .documents(&role("strict", "require_session_mfa: true"))
        .documents(
            "kind: role\nmetadata: {name: asker}\nspec: {allow: {request: {search_as_roles: [strict]}}}\n\
             ---\nkind: role\nmetadata: {name: judge}\nspec:\n  options: {require_review_mfa: true}\n  \
             allow: {review_requests: {roles: [strict]}}\n",
        )
        .user("erin", "asker")
        .user("frank", "judge")
        .start();
    let (erin, frank) = (world.person("erin").clone(), world.person("frank").clone());
    let refused = in_batch(&erin, Way::Jump);
    refused.exits(77).says(DEMANDED);
    assert_eq!(world.requests().len(), 0);
    set_up(&erin, &[]);
    let waiting = erin.ssh(Way::Jump, &[], &target(), &["echo in"]).start();
    waiting.expect_err("Waiting for request approval");
    let id = request_id(&waiting.err.text());
    // Whose role demands it for reviews reviews with it alone.
    let review = ["request", "review", &id, "--approve"];
    frank.access(&review).run().exits(77).says(DEMANDED);
    assert_eq!(world.state(&id), "PENDING");
    set_up(&frank, &[]);
    frank.access(&review).run().exits(0);
    waiting.finish(PATIENCE).exits(0).prints("in\n");
}

#[test]
fn a_role_that_begins_to_demand_it_ends_what_came_without() {
    let world = World::with_nodes()
        .documents(&role("strict", "require_session_mfa: true"))
        .user("carol", "access")
        .start();
    let session = live(&world, "carol", Way::Jump);
    let update = || {
        let words = ["users", "update", "carol", "--roles", "access,strict"];
        world.ctl(&words).exits(0);
    };
    ends_when(session, update, &["demands a second factor"]);
}
