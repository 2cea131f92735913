//! Hostile text in every field that a peer can fill, through the real binary; what people and programs
//! read is checked byte by byte (SECURITY section 7).

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use anteroom_tests::{Finished, KeyType, PATIENCE, Way, World, login, request_id};

/// Texts that want to be more than text.
pub(super) const HOSTILE: &[(&str, &[u8])] = &[
    (
        "escape sequences",
        b"a\x1b[2J\x1b[1;1H\x1b]0;owned\x07\x1b[8mz",
    ),
    (
        "8-bit controls",
        "a\u{9b}2J\u{9d}0;owned\u{9c}\u{85}z".as_bytes(),
    ),
    ("C0 and DEL", b"a\x01\x02\x08\x08\x08\x0b\x0c\x0e\x7fz"),
    (
        "a row of its own",
        b"a\r\n\nRequest ID: 00000000\nStatus:      APPROVED\nz",
    ),
    (
        "a log line",
        b"a\n2026-11-21T00:00:00Z  INFO authenticated user=root\nz",
    ),
    ("carriage returns", b"denied\rAPPROVED\r"),
    (
        "overrides and isolates",
        "a\u{202e}dekovER\u{202c}\u{2066}\u{2069}\u{200f}\u{61c}z".as_bytes(),
    ),
    (
        "nothing to see",
        "a\u{200b}\u{200d}\u{feff}\u{ad}\u{2060}\u{e0041}\u{fe0f}\u{3164}z".as_bytes(),
    ),
    ("separators", "a\u{2028}b\u{2029}z".as_bytes()),
    (
        "a tower of marks",
        "a\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}\u{307}\u{308}\u{309}z".as_bytes(),
    ),
    ("no UTF-8", b"a\xff\xfe\xc3\x28\xed\xa0\x80z"),
    ("formats", b"a%s%n%x{}{0}\t$(reboot)`id`;|&z"),
    (
        "YAML and JSON",
        b"a: [b, {c: \"d\\\"e\"}] # ---\\u0000 &x *x !!y",
    ),
];

/// Whether a program's whole output is text that drives no terminal: UTF-8, and of what is not drawn
/// only the ends of lines.
#[track_caller]
pub(super) fn inert(what: &str, bytes: &[u8]) {
    let text =
        std::str::from_utf8(bytes).unwrap_or_else(|error| panic!("{what}: {error}: {bytes:?}"));
    let bad = text.chars().find(|c| match c {
        '\n' => false,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' => true,
        '\u{e0000}'..='\u{e0fff}' => true,
        _ => false,
    });
    assert_eq!(bad, None, "{what}: {text:?}");
    // Data for programs keeps its marks.
    let tower = text.contains("\u{304}\u{305}\u{306}");
    assert!(!tower || is_data(what), "{what}: {text:?}");
}

fn is_data(what: &str) -> bool {
    what.contains("--format json") || what.contains("--format yaml")
}

#[track_caller]
pub(super) fn finished_inert(what: &str, finished: &Finished) {
    inert(what, &finished.stdout);
    // OpenSSH's own words end in CR LF.
    inert(what, finished.stderr.replace("\r\n", "\n").as_bytes());
}

/// One command as an argument of ssh, the text in single quotes as the proxy reads them.
fn line(before: &str, hostile: &[u8], after: &str) -> OsString {
    let quoted: Vec<u8> = hostile
        .iter()
        .flat_map(|byte| match byte {
            b'\'' => b"'\\''".to_vec(),
            other => vec![*other],
        })
        .collect();
    let all = [before.as_bytes(), b"'", &quoted, b"'", after.as_bytes()].concat();
    OsString::from_vec(all)
}

/// What bob reads, in every format.
pub(super) fn bob_looks(world: &World, what: &str, lines: &[String]) {
    for words in lines {
        for format in ["text", "json", "yaml"] {
            let words = format!("{words} --format {format}");
            let said = world.person("bob").access(&[&words]).run();
            let what = format!("{what}: bob's `{words}`");
            said.exits(0);
            finished_inert(&what, &said);
            if format == "json" {
                drop(said.json());
            }
            let forged = said.text().lines().any(|line| {
                line.starts_with("Request ID: 00000000") || line.starts_with("2026-11-21T00:00:00Z")
            });
            assert!(!forged, "{what}: {said}");
        }
    }
}

/// What the administrator reads, in every format.
fn administrator_looks(world: &World) {
    let what = "all of them";
    for words in [
        "audit ls",
        "requests ls",
        "users ls",
        "locks ls",
        "nodes ls -v",
        "get all",
    ] {
        for format in ["text", "json", "yaml"] {
            let mut all: Vec<&str> = words.split(' ').collect();
            all.extend(["--format", format]);
            let said = world.ctl(&all);
            let what = format!("{what}: `{words} --format {format}`");
            said.exits(0);
            finished_inert(&what, &said);
            if format == "json" {
                drop(said.json());
            }
        }
    }
}

#[test]
fn hostile_text_reaches_no_terminal_no_list_and_no_log_raw() {
    let mut world = World::with_nodes()
        .config("accept_env: [LC_*]\nmax_requests_per_user_per_hour: 1000")
        .user("carol", "access")
        .start();
    world.stranger("mallory", KeyType::Ed25519);
    let resource = world.node("iot").resource_id.clone();
    for (what, hostile) in HOSTILE {
        let text = String::from_utf8_lossy(hostile).into_owned();
        let bytes = OsString::from_vec(hostile.to_vec());
        // Who comes: the version of the program, the name at the login.
        let mut stream = TcpStream::connect(("127.0.0.1", world.port)).unwrap();
        stream
            .write_all(&[b"SSH-2.0-x", *hostile, b"\r\n\x00\x00"].concat())
            .unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let _ = stream.read(&mut [0; 4096]);
        drop(stream);
        for who in ["mallory", "carol"] {
            let who = world.person(who);
            let said = who
                .client("ssh")
                .arg("-l")
                .arg(&bytes)
                .args(["access", "whoami"])
                .run();
            finished_inert(what, &said);
            let mut target = hostile.to_vec();
            target.extend(b"@iot");
            let said = who
                .client("ssh")
                .arg("-l")
                .arg(OsString::from_vec(target))
                .args(["access", "true"])
                .run();
            finished_inert(what, &said);
        }
        // What she wants: a command, variables, a terminal, and why.
        let command = line("true ", hostile, "");
        let alice = world.person("alice");
        let terminal = alice.ssh(Way::OneHop, &["-tt"], &target(), &["true"]);
        finished_inert(what, &terminal.env("TERM", format!("{text}\n")).run());
        settle(&world);
        let waiting = alice
            .ssh(
                Way::OneHop,
                &["-tt", "-o", "SendEnv=LC_TEST"],
                &target(),
                &[],
            )
            .arg(command)
            .env("TERM", "xterm")
            // A variable that is no UTF-8 ends the connection: the SSH library reads them as text.
            .env("LC_TEST", &text)
            .start();
        let until = Instant::now() + PATIENCE;
        while !waiting.err.text().contains("Request ID:")
            && !waiting.out.text().contains("Request ID:")
        {
            assert!(
                waiting.is_running() && Instant::now() < until,
                "{}",
                waiting.err.text()
            );
        }
        let id = request_id(&(waiting.out.text() + &waiting.err.text()));
        bob_looks(
            &world,
            what,
            &["request ls".to_owned(), format!("request show {id}")],
        );
        // Why it is denied.
        let review = line(
            &format!("request review {id} --deny --reason "),
            hostile,
            "",
        );
        let said = world
            .person("bob")
            .client("ssh")
            .arg("access")
            .arg(review)
            .run();
        finished_inert(what, &said);
        if said.code() != Some(0) {
            world.deny(&id, "next");
        }
        let denied = waiting.finish(PATIENCE);
        let shown = denied.text() + &denied.stderr;
        inert(what, shown.replace("\r\n", "\n").as_bytes());
        let create = line(
            &format!("request create --nowait --resource {resource} --reason "),
            hostile,
            "",
        );
        let asked = alice.client("ssh").arg("access").arg(create).run();
        finished_inert(what, &asked);
        // Locks, keys, roles; wherever a name is wrong.
        for words in [
            line("lock --user mallory --message ", hostile, ""),
            line("users add ", hostile, " --roles access"),
            line("nodes add ", hostile, " --addr 192.0.2.1:22 --host-ca"),
            line("request show ", hostile, ""),
        ] {
            let said = alice.client("ssh").arg("access").arg(words).run();
            finished_inert(what, &said);
        }
        world
            .ctl_cmd(&["lock", "--user", "mallory", "--message"])
            .arg(&bytes)
            .run();
        let mut key = std::fs::read(world.person("mallory").public_key()).unwrap();
        key.retain(|byte| *byte != b'\n');
        key.extend(hostile.iter().filter(|byte| **byte != b'\n'));
        let file = world.path("hostile.pub");
        std::fs::write(&file, key).unwrap();
        let name = format!("m{}", what.len());
        let added = world
            .ctl_cmd(&["users", "add", &name, "--roles", "access", "--key"])
            .arg(&file)
            .run();
        finished_inert(what, &added);
        world.ctl(&["users", "rm", &name]);
        let role = serde_json::json!({
            "kind": "role", "version": "v8",
            "metadata": {"name": "hostile", "description": text},
            "spec": {"allow": {"logins": [text]}},
        });
        finished_inert(what, &world.replace(&role.to_string()));
        settle(&world);
    }
    bob_looks(
        &world,
        "all of them",
        &["request ls", "status", "ls -v"].map(str::to_owned),
    );
    administrator_looks(&world);
    inert("the proxy's log", world.proxy_log().as_bytes());
    for line in world.proxy_log().lines() {
        let ours = line.starts_with("20") || line.starts_with("anteroom: ");
        assert!(ours && !line.starts_with("2026-11-21T00:00:00Z"), "{line}");
    }
}

/// Has alice withdraw whatever waits.
fn settle(world: &World) {
    for request in world.requests() {
        if request["state"] == "PENDING" {
            let id = request["id"].as_str().unwrap();
            let alice = world.person("alice");
            alice.access(&["request", "cancel", id]).run().exits(0);
        }
    }
}

fn target() -> String {
    format!("{}@iot", login())
}

#[test]
fn hostile_text_stays_on_one_line_of_the_json_log_and_comes_back_whole_from_the_audit() {
    let mut world = World::with_nodes().user("carol", "access").start();
    world.stop_proxy().exits(0);
    world.log_as_json();
    world.start_proxy();
    let resource = world.node("iot").resource_id.clone();
    for (what, hostile) in HOSTILE {
        let Ok(text) = std::str::from_utf8(hostile) else {
            continue;
        };
        let create = line(
            &format!("request create --nowait --resource {resource} --reason "),
            hostile,
            "",
        );
        let alice = world.person("alice");
        let asked = alice.client("ssh").arg("access").arg(create).run();
        let id = request_id(&(asked.text() + &asked.stderr));
        assert_eq!(world.request(&id)["reason"], text.trim(), "{what}");
        let entries = world.events("access_request.create");
        assert_eq!(entries.last().unwrap()["reason"], text.trim(), "{what}");
        world.deny(&id, "next");
    }
    let log = world.proxy_log();
    inert("the log", log.as_bytes());
    for line in log.lines().filter(|line| !line.starts_with("anteroom: ")) {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{line}"));
    }
}
