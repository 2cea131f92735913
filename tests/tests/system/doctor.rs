//! `anteroom doctor` as an operator runs it: on directories in order, and on ones that somebody has changed by hand,
//! past every trigger and with a chain that hashes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anteroom_tests::{Cmd, Finished, PATIENCE, Way, World, anteroom, login, need};

fn doctor(data: &Path) -> Finished {
    Cmd::new(anteroom())
        .args(["doctor", "--data-dir"])
        .arg(data)
        .run()
}

/// A proxy with which everything happened once, and a session that lives; then killed.
fn killed_in_the_middle() -> World {
    let mut world = World::usual();
    let target = format!("{}@iot", login());
    let id = world.granted("iot");
    let alice = world.person("alice");
    alice
        .ssh(Way::OneHop, &[], &target, &["true"])
        .run()
        .exits(0);
    alice
        .access(&["request", "drop", "--end", &id])
        .run()
        .exits(0);
    world.granted("n2");
    let n2 = format!("{}@n2", login());
    alice.ssh(Way::OneHop, &[], &n2, &["true"]).run().exits(0);
    world.person("carol").access(&["login"]).run().exits(0);
    let carol = world.person("carol");
    let live = carol
        .ssh(Way::Jump, &[], &target, &["echo in; exec sleep 600"])
        .start();
    live.expect_out("in\n");
    world.kill_proxy();
    live.finish(PATIENCE);
    world
}

#[test]
fn doctor_finds_nothing_wrong_beside_a_proxy_after_a_kill_and_after_the_next_start() {
    let mut world = killed_in_the_middle();
    let healthy = |world: &World| {
        let found = doctor(&world.data_dir());
        found.exits(0).prints_part("all is well");
        assert!(!found.text().contains("WRONG"), "{found}");
    };
    healthy(&world);
    world.start_proxy();
    healthy(&world);
    world.stop_proxy().exits(0);
    healthy(&world);
    world.start_proxy();
}

/// What opens the database, takes its triggers away, and can write entries that follow the chain.
const BY_HAND: &str = r#"
import datetime, hashlib, json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
    db.execute(f'DROP TRIGGER "{name}"')

def logged(event):
    text, = db.execute("SELECT entry FROM audit WHERE event = ? ORDER BY seq DESC LIMIT 1", [event]).fetchone()
    return json.loads(text)

def append(entry):
    "Writes an entry behind the last one, as the proxy would; returns its number and time."
    seq, prev = db.execute("SELECT seq, hash FROM audit_head").fetchone()
    last, = db.execute("SELECT time FROM audit WHERE seq = ?", [seq]).fetchone()
    entry = {**entry, "seq": seq + 1, "time": last}
    text = json.dumps(entry, separators=(",", ":"), ensure_ascii=False)
    hash = hashlib.sha256((prev + text).encode()).hexdigest()
    row = [seq + 1, last, entry["event"], prev, hash, text]
    db.execute("INSERT INTO audit (seq, time, event, prev, hash, entry) VALUES (?, ?, ?, ?, ?, ?)", row)
    db.execute("UPDATE audit_head SET seq = ?, hash = ?", [seq + 1, hash])
    return seq + 1, last

def micros(time):
    seconds, _, part = time.rstrip("Z").partition(".")
    at = datetime.datetime.fromisoformat(seconds).replace(tzinfo=datetime.timezone.utc)
    return int(at.timestamp()) * 1000000 + int((part + "000000")[:6])

def copy(table, where, **changed):
    "Writes a row once more, with these columns changed."
    db.row_factory = sqlite3.Row
    row = dict(db.execute(f"SELECT * FROM {table} WHERE {where} ORDER BY rowid DESC LIMIT 1").fetchone())
    db.row_factory = None
    row.update(changed)
    marks = ", ".join("?" for _ in row)
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
"#;

struct Tampering {
    what: &'static str,
    script: &'static str,
    /// What the first finding says.
    named: &'static [&'static str],
}

const TAMPERINGS: &[Tampering] = &[
    Tampering {
        what: "nothing but that the triggers are gone",
        script: "",
        named: &[],
    },
    Tampering {
        what: "an entry that follows the chain",
        script: "append({**logged('user.login'), 'user': 'mallory'})",
        named: &[],
    },
    Tampering {
        what: "a certificate without an entry",
        script: "copy('issuances', \"kind = 'node'\", serial='424242', cert_sha256='0' * 64, audit_seq=1)",
        named: &["certificate 424242 has no `cert.create` entry"],
    },
    Tampering {
        what: "an entry that is edited",
        script: "db.execute(\"\"\"UPDATE audit SET entry = replace(entry, 'alice', 'carol')\n\
                 WHERE seq = (SELECT max(seq) FROM audit WHERE entry LIKE '%alice%')\"\"\")",
        named: &["audit entry ", " was changed"],
    },
    Tampering {
        what: "a certificate that ends after its grant",
        script: "end = '(created / 1000000 + 20)'\n\
                 db.execute(f\"\"\"UPDATE requests SET access_expires = {end} * 1000000, body =\n\
                     json_set(body, '$.access_expires', strftime('%Y-%m-%dT%H:%M:%SZ', {end}, 'unixepoch'))\n\
                     WHERE id IN (SELECT request_id FROM issuances WHERE kind = 'node')\"\"\")",
        named: &["certificate ", " ends after the access that request "],
    },
    Tampering {
        what: "a request that is granted twice",
        script: "append({**logged('access_request.update'), 'state': 'APPROVED'})\n\
                 id = logged('access_request.update')['request_id']\n\
                 db.execute(\"UPDATE requests SET state = 'APPROVED' WHERE id = ?\", [id])",
        named: &["which was over, and is granted again"],
    },
    Tampering {
        what: "a certificate that was issued under a lock",
        script: "seq, time = append({**logged('user.login'), 'event': 'lock.create', 'lock_id': 'x', 'name': 'user/alice'})\n\
                 old = next(json.loads(text) for (text,) in db.execute(\"SELECT entry FROM audit WHERE event = 'cert.create'\")\n\
                            if json.loads(text).get('user') == 'alice')\n\
                 seq, time = append({**old, 'serial': '424242', 'certificate_sha256': '0' * 64})\n\
                 copy('issuances', f\"serial = '{old['serial']}'\", serial='424242', cert_sha256='0' * 64, audit_seq=seq, issued=micros(time))",
        named: &["was issued while `user/alice` was locked"],
    },
    Tampering {
        what: "a certificate under a request that was over",
        script: "id, = db.execute(\"SELECT id FROM requests WHERE state = 'REVOKED'\").fetchone()\n\
                 old = next(json.loads(text) for (text,) in db.execute(\"SELECT entry FROM audit WHERE event = 'cert.create'\")\n\
                            if json.loads(text).get('request_id') == id)\n\
                 seq, time = append({**old, 'serial': '424242', 'certificate_sha256': '0' * 64})\n\
                 copy('issuances', f\"serial = '{old['serial']}'\", serial='424242', cert_sha256='0' * 64, audit_seq=seq, issued=micros(time))",
        named: &[
            "audit entry ",
            " tells of a certificate under request ",
            "which was over",
        ],
    },
    Tampering {
        what: "a session without an end",
        script: "seq, time = append({**logged('session.start'), 'session_id': '00000000-0000-4000-8000-000000000000'})\n\
                 copy('sessions', '1', id='00000000-0000-4000-8000-000000000000', start_seq=seq, end_seq=None, ended=None)\n\
                 append(logged('proxy.start'))",
        named: &[
            "session 00000000-0000-4000-8000-000000000000 has no end",
            "a later start of the proxy",
        ],
    },
    Tampering {
        what: "a role that nobody can read",
        script: "db.execute(\"UPDATE roles SET body = '{}' WHERE name = 'access'\")",
        named: &["role `access` can't be read", "ctl create --force -f"],
    },
    Tampering {
        what: "a schema of tomorrow",
        script: "db.execute('PRAGMA user_version = 4000')",
        named: &["version 4000", "use a newer one"],
    },
];

/// The same directory elsewhere.
fn copy(world: &World, number: usize) -> std::path::PathBuf {
    let there = world.path(&format!("copy{number}"));
    let copied = Cmd::new("cp").arg("-a").arg(world.data_dir()).arg(&there);
    copied.run().exits(0);
    there
}

/// Exits with 1, and the first thing it calls wrong says all of this.
#[track_caller]
fn finds(what: &str, data: &Path, named: &[&str]) -> String {
    let found = doctor(data);
    assert_eq!(found.code(), Some(1), "{what}: {found}");
    let text = found.text();
    let first = text.lines().find(|line| line.starts_with("WRONG "));
    let first = first.unwrap_or_else(|| panic!("{what}: {found}"));
    for part in named {
        assert!(first.contains(part), "{what}: no `{part}` in: {first}");
    }
    first.to_owned()
}

#[test]
fn doctor_names_what_cannot_have_been_whatever_was_changed_by_hand() {
    need("python3");
    let mut world = killed_in_the_middle();
    world.start_proxy();
    world.stop_proxy().exits(0);
    for (number, tampering) in TAMPERINGS.iter().enumerate() {
        let data = copy(&world, number);
        let script = format!("{BY_HAND}\n{}\n", tampering.script);
        Cmd::new("python3")
            .args(["-c", &script])
            .arg(data.join("anteroom.db"))
            .run()
            .exits(0);
        if tampering.named.is_empty() {
            doctor(&data).exits(0);
            continue;
        }
        let first = finds(tampering.what, &data, tampering.named);
        if first.starts_with("WRONG audit log") {
            assert!(first.contains("restore a backup"), "what to do: {first}");
        }
    }
    world.start_proxy();
}

#[test]
fn doctor_names_each_file_that_others_may_reach_and_what_to_type() {
    let mut world = World::bare("");
    world.stop_proxy().exits(0);
    let cases = [
        ("", 0o755, "chmod 0700"),
        ("anteroom.db", 0o644, "chmod 0600"),
        ("ca/user", 0o640, "chmod 0600"),
        ("ca/node", 0o604, "chmod 0600"),
        ("ca/host", 0o660, "chmod 0600"),
        ("host_key", 0o644, "chmod 0600"),
        ("inner_host_key", 0o602, "chmod 0600"),
        ("mfa_key", 0o640, "chmod 0600"),
    ];
    let data = world.data_dir();
    doctor(&data).exits(0);
    let restore = |file: &str, right: &fs::Permissions| {
        let path = data.join(file);
        if path.exists() {
            fs::set_permissions(path, right.clone()).unwrap();
        }
    };
    for (file, mode, what_to_do) in cases {
        let path = data.join(file);
        let right = fs::metadata(&path).unwrap().permissions();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        finds(file, &data, &[file, what_to_do]);
        fs::set_permissions(&path, right.clone()).unwrap();
        if file == "anteroom.db" {
            // What SQLite makes beside it while doctor reads has the same mode, and is named as well.
            restore("anteroom.db-wal", &right);
            restore("anteroom.db-shm", &right);
        }
        doctor(&data).exits(0);
    }
    for file in ["ca/node", "host_key", "anteroom.db"] {
        let aside = world.path("aside");
        fs::rename(data.join(file), &aside).unwrap();
        finds(file, &data, &[file]);
        fs::rename(&aside, data.join(file)).unwrap();
    }
    doctor(&data).exits(0);
    world.start_proxy();
}
