//! `anteroom serve` as a process: start, stop, reload, its files and its audit log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, KeyType, PATIENCE, Way, World, anteroom, login};
use nix::sys::signal::Signal;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn target() -> String {
    format!("{}@iot", login())
}

#[test]
fn the_first_start_makes_cas_host_key_and_database_and_says_so() {
    let world = World::bare("");
    world
        .proxy()
        .expect_err("first start: made CAs, host key and database in ");
    let data = world.data_dir();
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("ctl.sock")), 0o600);
    assert_eq!(mode(&data.join("ca")), 0o700);
    for name in ["ca/user", "ca/node", "ca/host", "host_key", "anteroom.db"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    for name in ["user", "node", "host"] {
        let key = data.join("ca").join(name);
        let public = fs::read_to_string(key.with_extension("pub")).unwrap();
        let derived = Cmd::new("ssh-keygen").arg("-y").arg("-f").arg(&key).run();
        derived.exits(0);
        let words = |line: &str| {
            line.split_whitespace()
                .take(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(&derived.text()), words(&public), "{name}");
    }
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_none_or(|end| end != "pub") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn every_file_is_private_whatever_the_umask() {
    let world = World::bare("");
    let data = world.path("other");
    let line = format!(
        "umask 0; exec {} serve --cluster example.com --listen 127.0.0.1:0 --data-dir {}",
        anteroom().display(),
        data.display()
    );
    let proxy = Cmd::new("sh").args(["-c", &line]).start();
    let until = Instant::now() + PATIENCE;
    while !(proxy.out.text() + &proxy.err.text()).contains("anteroom: listening on") {
        assert!(
            Instant::now() < until && proxy.is_running(),
            "{}",
            proxy.err.text()
        );
    }
    assert_eq!(mode(&data), 0o700);
    for entry in fs::read_dir(&data)
        .unwrap()
        .chain(fs::read_dir(data.join("ca")).unwrap())
    {
        let path = entry.unwrap().path();
        if !path.is_dir() && path.extension().is_none_or(|end| end != "pub") {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
}

#[test]
fn a_second_serve_on_the_same_directory_refuses_to_start() {
    let world = World::bare("");
    let second = world.serve(0).run();
    assert!(second.code().is_some_and(|code| code != 0), "{second}");
    assert!(!second.stderr.is_empty(), "{second}");
    assert!(!second.text().contains("listening on"), "{second}");
    world.ctl(&["users", "ls"]).exits(0);
}

#[test]
fn keys_and_users_survive_a_restart_and_even_a_kill() {
    let mut world = World::usual();
    let before = fs::read_to_string(world.known_hosts()).unwrap();
    world.stop_proxy().exits(0);
    world.start_proxy();
    let exported = world.ctl(&["auth", "export", "--type", "host"]);
    exported.exits(0).prints(before);
    world.kill_proxy();
    world.start_proxy();
    world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(0)
        .prints("in\n");
}

#[test]
fn sigterm_ends_it_with_0_and_live_sessions_with_a_word() {
    let mut world = World::usual();
    let session = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["echo in; exec sleep 600"])
        .start();
    session.expect_out("in\n");
    let asked = Instant::now();
    world.stop_proxy().exits(0);
    assert!(
        asked.elapsed() < Duration::from_secs(45),
        "{:?}",
        asked.elapsed()
    );
    let ended = session.finish(PATIENCE);
    assert_ne!(ended.code(), Some(0));
    assert!(!ended.stderr.is_empty(), "{ended}");
}

#[test]
fn as_many_files_may_be_open_as_the_hard_limit_says() {
    let mut world = World::bare("");
    world.stop_proxy().exits(0);
    let limited = ["prlimit", "--nofile=512:3000"];
    let proxy = world.serve(0).under(limited).start();
    let until = Instant::now() + PATIENCE;
    while !(proxy.out.text() + &proxy.err.text()).contains("anteroom: listening on") {
        assert!(Instant::now() < until && proxy.is_running());
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.id())).unwrap();
    let open = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<&str> = open.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["3000", "3000"], "{limits}");
}

#[test]
fn a_proxy_that_crashes_leaves_no_core_with_keys_in_it() {
    let world = World::bare("");
    let limits = format!("/proc/{}/limits", world.proxy().id());
    let limits = fs::read_to_string(limits).unwrap();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core, ["0", "0", "bytes"]);
}

#[test]
fn a_bad_configuration_is_78_and_names_the_key_and_its_line() {
    for (yaml, parts) in [
        (
            "login_grace_time: 30s\nno_such_key: 1\n",
            &["no_such_key", "2"][..],
        ),
        ("login_grace_time: [1]\n", &["line 1"]),
        ("login_grace_time: soon\n", &["login_grace_time", "soon"]),
        ("a: b: c\n", &["1"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("anteroom.yaml");
        fs::write(&config, yaml).unwrap();
        let refused = Cmd::new(anteroom())
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .arg("--config")
            .arg(&config)
            .run();
        refused.exits(78);
        for part in parts {
            refused.says(part);
        }
    }
}

#[test]
fn a_missing_configuration_file_that_was_named_is_78() {
    let dir = tempfile::tempdir().unwrap();
    Cmd::new(anteroom())
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            "nosuch.yaml",
            "--data-dir",
        ])
        .arg(dir.path())
        .dir(dir.path())
        .run()
        .exits(78)
        .says("nosuch.yaml");
}

#[test]
fn sighup_reloads_the_configuration_and_a_bad_one_changes_nothing() {
    let world = World::builder()
        .config("login_grace_time: 60s")
        .node(anteroom_tests::NodeConfig::new("iot"))
        .user("carol", "access")
        .start();
    let carol = world.person("carol");
    let secret = || {
        carol
            .ssh(
                Way::OneHop,
                &["-o", "SetEnv=SECRET_A=two"],
                &target(),
                &["echo $SECRET_A"],
            )
            .run()
            .text()
    };
    assert_eq!(secret(), "\n");
    let session = carol
        .ssh(Way::Jump, &[], &target(), &["echo in; exec sleep 600"])
        .start();
    session.expect_out("in\n");
    fs::write(world.path("anteroom.yaml"), "accept_env: [SECRET_A]\n").unwrap();
    world.proxy().signal(Signal::SIGHUP);
    let until = Instant::now() + PATIENCE;
    while secret() != "two\n" {
        assert!(Instant::now() < until, "{}", world.proxy_log());
    }
    fs::write(world.path("anteroom.yaml"), "nonsense: true\n").unwrap();
    world.proxy().signal(Signal::SIGHUP);
    while !world.proxy_log().contains("nonsense") {
        assert!(Instant::now() < until, "{}", world.proxy_log());
    }
    assert_eq!(secret(), "two\n");
    assert!(
        session.is_running(),
        "a reload ends no session: {}",
        session.err.text()
    );
}

#[test]
fn a_private_key_that_others_may_read_is_refused_at_the_start() {
    for name in ["ca/node", "ca/user", "ca/host", "host_key"] {
        let mut world = World::bare("");
        world.stop_proxy().exits(0);
        let file = world.data_dir().join(name);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let refused = world.serve(0).run();
        // Starting it again would not help, and a unit does not try (`RestartPreventExitStatus`).
        refused.exits(78);
        refused.says(name.rsplit('/').next().unwrap());
    }
}

#[test]
fn other_processes_of_the_owner_may_read_the_database_while_it_serves() {
    let world = World::usual();
    let id = world.granted("iot");
    let asked = sqlite(
        &world.data_dir().join("anteroom.db"),
        "SELECT state FROM requests WHERE id = ?1",
        &id,
    );
    assert_eq!(asked.to_uppercase(), "APPROVED");
    let chained = sqlite(
        &world.data_dir().join("anteroom.db"),
        "SELECT count(*) > 3 AND count(*) = count(DISTINCT hash) AND ?1 = ?1 FROM audit WHERE seq > 0 AND prev IS NOT NULL",
        "",
    );
    assert_eq!(chained, "1");
}

/// Runs one statement with Python's own SQLite and returns the first column of the first row.
fn sqlite(database: &Path, statement: &str, argument: &str) -> String {
    let script = "import sqlite3, sys\n\
                  db = sqlite3.connect(sys.argv[1], timeout=20)\n\
                  row = db.execute(sys.argv[2], [sys.argv[3]] if '?1' in sys.argv[2] else []).fetchone()\n\
                  db.commit()\n\
                  print('' if row is None else row[0])\n";
    let run = Cmd::new("python3")
        .args(["-c", script])
        .arg(database)
        .args([statement, argument])
        .run();
    run.exits(0);
    run.text().trim_end().to_owned()
}

#[test]
fn the_audit_log_of_a_whole_story_verifies_and_names_who_did_what() {
    let world = World::usual();
    let id = world.granted("iot");
    world
        .person("alice")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(0);
    world.ctl(&["audit", "verify"]).exits(0);
    let entries = world.audit();
    // The proxy's own certificates have entries too, without a request.
    let find = |event: &str| {
        entries
            .iter()
            .find(|entry| entry["event"] == event && entry["request_id"] == id.as_str())
            .unwrap_or_else(|| panic!("no {event} for {id} in {entries:#?}"))
    };
    assert_eq!(find("access_request.create")["user"], "alice");
    assert_eq!(find("access_request.review")["user"], "bob");
    let issued = find("cert.create");
    assert_eq!(issued["login"], login().as_str());
    assert_eq!(issued["node_id"], world.node("iot").uuid.as_str());
    assert_eq!(find("session.start")["user"], "alice");
    let seqs: Vec<i64> = entries
        .iter()
        .map(|entry| entry["seq"].as_i64().unwrap())
        .collect();
    assert!(
        seqs.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{seqs:?}"
    );
    for pair in entries.windows(2) {
        assert_eq!(pair[1]["prev"], pair[0]["hash"], "{pair:#?}");
    }
    // Persist, then sign: the row of the certificate stands before the session it opened.
    assert!(issued["seq"].as_i64() < find("session.start")["seq"].as_i64());
}

#[test]
fn an_edited_deleted_reordered_or_truncated_audit_entry_is_found_and_named() {
    let last = "(SELECT max(seq) FROM audit)";
    for (change, named) in [
        (
            "UPDATE audit SET entry = replace(entry, 'e', 'x') WHERE seq = 4".to_owned(),
            "4",
        ),
        (
            "UPDATE audit SET time = '2020-01-01T00:00:00Z' WHERE seq = 4".to_owned(),
            "4",
        ),
        ("DELETE FROM audit WHERE seq = 4".to_owned(), "4"),
        (format!("DELETE FROM audit WHERE seq = {last}"), ""),
        (
            "UPDATE audit SET entry = (SELECT entry FROM audit WHERE seq = 5) WHERE seq = 4"
                .to_owned(),
            "4",
        ),
    ] {
        let mut world = World::usual();
        world.ctl(&["audit", "verify"]).exits(0);
        // Whoever can do this owns the file: triggers do not stop him, the chain tells.
        let script = "import sqlite3, sys\n\
                      db = sqlite3.connect(sys.argv[1], timeout=20)\n\
                      names = db.execute(\"SELECT name FROM sqlite_master WHERE type='trigger' AND tbl_name='audit'\")\n\
                      [db.execute('DROP TRIGGER ' + name) for (name,) in names.fetchall()]\n\
                      assert db.execute(sys.argv[2]).rowcount == 1\n\
                      db.commit()\n";
        Cmd::new("python3")
            .args(["-c", script])
            .arg(world.data_dir().join("anteroom.db"))
            .arg(&change)
            .run()
            .exits(0);
        let verified = world.ctl(&["audit", "verify"]);
        assert!(
            verified.code().is_some_and(|code| code != 0),
            "{change}: {verified}"
        );
        let said = verified.text() + &verified.stderr;
        assert!(said.contains(named), "{change}: {verified}");
        // The world would verify the chain once more.
        world.kill_proxy();
    }
}

#[test]
fn denied_and_failed_attempts_are_audited_too() {
    let mut world = World::usual();
    let stranger = world.stranger("mallory", KeyType::Ed25519);
    stranger.access(&["whoami"]).run().exits(255);
    world
        .person("alice")
        .ssh(Way::Jump, &[], &format!("{}@nosuch", login()), &["true"])
        .run()
        .exits(77);
    let until = Instant::now() + PATIENCE;
    while world.events("auth").is_empty() || world.events("session.rejected").is_empty() {
        assert!(Instant::now() < until, "{:#?}", world.audit());
    }
}

#[test]
fn the_log_goes_to_stderr_and_as_json_where_asked() {
    let mut world = World::bare("");
    world.stop_proxy().exits(0);
    let proxy = world.serve(0).args(["--log-format", "json"]).start();
    let until = Instant::now() + PATIENCE;
    while !(proxy.out.text() + &proxy.err.text()).contains("anteroom: listening on") {
        assert!(
            Instant::now() < until && proxy.is_running(),
            "{}",
            proxy.err.text()
        );
    }
    proxy.signal(Signal::SIGTERM);
    let ended = proxy.finish(PATIENCE);
    ended.exits(0);
    let json = ended
        .stderr
        .lines()
        .filter(|line| line.starts_with('{'))
        .collect::<Vec<_>>();
    assert!(!json.is_empty(), "{ended}");
    for line in json {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn no_private_key_or_secret_is_in_the_log_or_the_audit() {
    let world = World::usual();
    world.granted("iot");
    world
        .person("alice")
        .ssh(Way::Jump, &[], &target(), &["echo in"])
        .run()
        .exits(0);
    let everything = world.proxy_log() + &serde_json::to_string(&world.audit()).unwrap();
    assert!(!everything.contains("PRIVATE KEY"), "{everything}");
    for name in ["ca/node", "ca/user", "ca/host", "host_key"] {
        let key = fs::read_to_string(world.data_dir().join(name)).unwrap();
        let body = key.lines().nth(2).unwrap();
        assert!(!everything.contains(body), "{name}");
    }
}

#[test]
fn killed_at_any_moment_there_is_a_row_for_every_certificate_a_node_saw() {
    let mut world = World::usual();
    // One undisturbed run says how long the way is on this machine at this time.
    let whole = world
        .person("carol")
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .took;
    for round in 0..10 {
        let clients: Vec<_> = Way::BOTH
            .iter()
            .map(|way| {
                world
                    .person("carol")
                    .ssh(*way, &[], &target(), &["true"])
                    .start()
            })
            .collect();
        // The moment is what varies: from before the logins to after the commands.
        std::thread::sleep(whole * round / 8);
        world.kill_proxy();
        drop(clients);
        world.start_proxy();
        world.ctl(&["audit", "verify"]).exits(0);
    }
    let log = world.node("iot").log();
    // The undisturbed run's at least.
    let seen: Vec<&str> = log
        .split("(serial ")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    let database = world.data_dir().join("anteroom.db");
    let issued = world.events("cert.create");
    for serial in seen {
        let named =
            |entry: &serde_json::Value| entry["serial"].to_string().trim_matches('"') == serial;
        assert!(
            issued.iter().any(named),
            "no audit entry for serial {serial}"
        );
        let rows = sqlite(
            &database,
            "SELECT count(*) FROM issuances WHERE serial = ?1",
            serial,
        );
        assert_eq!(rows, "1", "no row for serial {serial}");
    }
}
