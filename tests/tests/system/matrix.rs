//! The client matrix: every client that people drive, through both ways in, is held on
//! one request and then finishes as if nothing had been in between.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{
    Cmd, Finished, PATIENCE, Person, Proc, Way, World, free_port, hold_time, login, need,
    request_id,
};

/// What one client does, and what must be true afterwards.
struct Case {
    name: &'static str,
    cmd: Cmd,
    /// Whether it shows its own standard error, so that the notice can be waited for.
    shows_notice: bool,
    check: Box<dyn Fn(&Finished)>,
}

/// Files for one client, made before and compared after.
struct Place {
    dir: PathBuf,
    payload: Vec<u8>,
}

impl Place {
    fn new(world: &World, name: &str) -> Self {
        let dir = world.path(&format!("files-{name}"));
        fs::create_dir_all(dir.join("tree/below")).unwrap();
        // Every byte value, no power of two in length, different for each client.
        let seed = name.bytes().map(u32::from).sum::<u32>();
        let payload = noise(seed, 700_001);
        fs::write(dir.join("payload"), &payload).unwrap();
        fs::write(dir.join("tree/a"), noise(seed + 1, 100_003)).unwrap();
        fs::write(dir.join("tree/below/b c"), noise(seed + 2, 5)).unwrap();
        fs::write(dir.join("tree/empty"), "").unwrap();
        Self { dir, payload }
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    /// Asserts that a file there has become the payload.
    fn arrives(&self, name: &str) -> Box<dyn Fn(&Finished)> {
        let (file, payload) = (self.dir.join(name), self.payload.clone());
        Box::new(move |finished| {
            finished.exits(0).prints("");
            let arrived = fs::read(&file).unwrap_or_default();
            assert!(
                arrived == payload,
                "{} differs after {finished}",
                file.display()
            );
        })
    }

    fn tree_arrives(&self, name: &str) -> Box<dyn Fn(&Finished)> {
        let (from, to) = (self.dir.join("tree"), self.dir.join(name));
        Box::new(move |finished| {
            finished.exits(0);
            let compared = Command::new("diff")
                .arg("-r")
                .args([&from, &to])
                .output()
                .unwrap();
            assert!(
                compared.status.success(),
                "{} differs: {}{finished}",
                to.display(),
                String::from_utf8_lossy(&compared.stdout)
            );
        })
    }
}

/// Bytes without a pattern that a lost or doubled piece could hide in.
pub(crate) fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        // xorshift32 (Marsaglia 2003)
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_be_bytes()[0]
    })
    .take(len)
    .collect()
}

/// Everything that runs without a terminal.
fn cases(world: &World, alice: &Person, way: Way) -> Vec<Case> {
    let me = login();
    let target = format!("{me}@iot");
    let destination = way.destination(&me, "iot");
    let place = |name: &str| Place::new(world, &format!("{name}-{way:?}"));
    let ssh = |options: &[&str], command: &str| alice.ssh(way, options, &target, &[command]);
    let copy = |program: &str| alice.client(program).args(way.options());
    let mut cases = Vec::new();
    let mut add = |name, cmd, check| {
        cases.push(Case {
            name,
            cmd,
            shows_notice: true,
            check,
        });
    };

    let here = place("command");
    let payload = here.payload.clone();
    add(
        "ssh host command",
        ssh(&[], &format!("cat {}", here.path("payload"))),
        Box::new(move |finished| {
            finished.exits(0).prints(&payload);
        }),
    );

    let input = noise(7, 300_007);
    add(
        "ssh with stdin, BatchMode=yes",
        ssh(&["-o", "BatchMode=yes"], "cat").stdin(input.clone()),
        Box::new(move |finished| {
            finished.exits(0).prints(&input);
        }),
    );
    add(
        "ssh -q",
        ssh(&["-q"], "echo out; echo err >&2; exit 7"),
        Box::new(|finished| {
            finished.exits(7).prints("out\n").says("err\n");
        }),
    );
    add(
        "ssh with ConnectTimeout=10",
        ssh(&["-o", "ConnectTimeout=10"], "echo connected"),
        Box::new(|finished| {
            finished.exits(0).prints("connected\n");
        }),
    );
    add(
        "ssh with ServerAliveInterval=5",
        ssh(
            &["-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=2"],
            "printf alive",
        ),
        Box::new(|finished| {
            finished.exits(0).prints("alive");
        }),
    );
    let socks = free_port().to_string();
    add(
        "ssh -T -D … bash",
        ssh(&["-T", "-D", &socks], "bash").stdin("echo $((6 * 7))\nexit 3\n"),
        Box::new(|finished| {
            finished.exits(3).prints("42\n");
        }),
    );

    for (name, protocol) in [("scp up", "-s"), ("scp -O up", "-O")] {
        let here = place(name.replace(' ', "").as_str());
        let cmd = copy("scp").args([
            protocol,
            &here.path("payload"),
            &format!("{destination}:{}", here.path("there")),
        ]);
        add(name, cmd, here.arrives("there"));
    }
    for (name, protocol) in [("scp down", "-s"), ("scp -O down", "-O")] {
        let here = place(name.replace(' ', "").as_str());
        let cmd = copy("scp").args([
            protocol,
            &format!("{destination}:{}", here.path("payload")),
            &here.path("here"),
        ]);
        add(name, cmd, here.arrives("here"));
    }

    let here = place("sftp");
    let batch = format!(
        "put {} {}\nget {} {}\n",
        here.path("payload"),
        here.path("there"),
        here.path("there"),
        here.path("back")
    );
    fs::write(here.dir.join("batch"), batch).unwrap();
    let (there, back) = (here.arrives_only("there"), here.arrives_only("back"));
    add(
        "sftp -b",
        copy("sftp").args(["-b", &here.path("batch"), &destination]),
        Box::new(move |finished| {
            there(finished);
            back(finished);
        }),
    );

    need("rsync");
    let here = place("rsync");
    let cmd = Cmd::new("rsync").args([
        "-a",
        "-e",
        &alice.ssh_command(way),
        &format!("{}/", here.path("tree")),
        &format!("{destination}:{}", here.path("synced")),
    ]);
    add("rsync", cmd, here.tree_arrives("synced"));

    need("git");
    let here = place("git");
    let repository = make_repository(&here);
    let url = format!("ssh://{destination}{}", repository.display());
    let cmd = Cmd::new("git")
        .args(["clone", "--quiet", &url, &here.path("cloned")])
        .env("GIT_SSH_COMMAND", alice.ssh_command(way));
    let cloned = here.dir.join("cloned/a");
    let original = here.dir.join("tree/a");
    add(
        "git clone",
        cmd,
        Box::new(move |finished| {
            finished.exits(0).prints("");
            assert_eq!(
                fs::read(&cloned).unwrap(),
                fs::read(&original).unwrap(),
                "{finished}"
            );
        }),
    );

    cases.push(Case {
        name: "ansible -m ping",
        cmd: ansible_ping(world, alice, way),
        // Ansible keeps what ssh says to itself unless something fails.
        shows_notice: false,
        check: Box::new(|finished| {
            finished.exits(0).prints_part("\"ping\": \"pong\"");
        }),
    });
    cases
}

impl Place {
    /// As [`Place::arrives`], for programs that print their progress.
    fn arrives_only(&self, name: &str) -> Box<dyn Fn(&Finished)> {
        let (file, payload) = (self.dir.join(name), self.payload.clone());
        Box::new(move |finished| {
            finished.exits(0);
            let arrived = fs::read(&file).unwrap_or_default();
            assert!(
                arrived == payload,
                "{} differs after {finished}",
                file.display()
            );
        })
    }
}

/// A repository with one commit of the place's tree.
fn make_repository(here: &Place) -> PathBuf {
    let dir = here.dir.join("tree");
    let git = |args: &[&str]| {
        Cmd::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(args)
            .dir(&dir)
            .run()
            .exits(0);
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "one"]);
    dir
}

/// `ansible -m ping` with Ansible's own defaults: several connections over a ControlMaster.
fn ansible_ping(world: &World, alice: &Person, way: Way) -> Cmd {
    need("ansible");
    let dir = world.path(&format!("ansible-{way:?}"));
    fs::create_dir_all(&dir).unwrap();
    let inventory = dir.join("hosts");
    let host = match way {
        Way::Jump => format!("iot ansible_user={}", login()),
        Way::OneHop => format!("access ansible_user={}@iot", login()),
    };
    let python = python(&dir);
    fs::write(
        &inventory,
        format!("{host} ansible_python_interpreter={python}\n"),
    )
    .unwrap();
    let arguments = format!(
        "-F {} -C -o ControlMaster=auto -o ControlPersist=60s {}",
        alice.config().display(),
        way.options().join(" ")
    );
    Cmd::new("ansible")
        .args(["all", "-m", "ping", "-i"])
        .arg(&inventory)
        .env("HOME", &dir)
        .env("ANSIBLE_SSH_ARGS", arguments)
        .env("ANSIBLE_SSH_CONTROL_PATH_DIR", dir.join("cp"))
        .env("ANSIBLE_REMOTE_TEMP", dir.join("remote"))
        .env("ANSIBLE_LOCAL_TEMP", dir.join("local"))
        .dir(&dir)
}

/// The interpreter for the node, named so that Ansible doesn't go looking.
fn python(dir: &Path) -> String {
    need("python3");
    let asked = Cmd::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .dir(dir)
        .run();
    asked.exits(0);
    asked.text().trim().to_owned()
}

#[test]
fn every_client_is_held_on_one_request_and_finishes_correctly_by_both_ways() {
    let world = World::usual();
    let alice = world.person("alice");
    let target = format!("{}@iot", login());

    // Somebody at a terminal is the first; all others join her request.
    let mut first = alice.ssh(Way::Jump, &[], &target, &[]).in_terminal();
    first.expect("Enter request reason: ");
    first.type_in("please\r");
    let shown = first.expect("Waiting for request approval...");
    let id = request_id(&shown);
    let held_since = Instant::now();
    let mut second = alice.ssh(Way::OneHop, &[], &target, &[]).in_terminal();
    second.expect(&id);

    let mut running: Vec<(Case, Proc, Way)> = Vec::new();
    for way in Way::BOTH {
        for case in cases(&world, alice, way) {
            let proc = case.cmd.clone().start();
            // One after the other up to the hold: at most 20 connections of one source
            // may be unauthenticated at a time.
            if case.shows_notice {
                proc.expect_err(&id);
            }
            running.push((case, proc, way));
        }
    }
    let before = world.memory_kib();
    let held = hold_time().saturating_sub(held_since.elapsed());
    let ended = who_leaves_within(held, &running);
    assert_eq!(ended, Vec::<String>::new(), "nobody leaves while held");
    for (case, proc, way) in &running {
        assert!(
            proc.out.bytes().is_empty(),
            "{} by {way:?} has output before it was let in: {}",
            case.name,
            proc.out.text()
        );
    }
    assert_eq!(
        world.node("iot").connections(),
        0,
        "nothing is dialled for somebody who waits: {}",
        world.node("iot").log()
    );
    let requests = world.requests();
    assert_eq!(requests.len(), 1, "all join one request: {requests:#?}");
    assert_eq!(requests[0]["id"], id.as_str());

    world.approve(&id);
    for (case, proc, way) in running {
        eprintln!("checking {} by {way:?}", case.name);
        (case.check)(&proc.finish(PATIENCE));
    }
    for terminal in [&mut first, &mut second] {
        terminal.expect("Approval received from bob");
        // Only the shell's answer has the product in it: the echo of the line hasn't.
        terminal.type_in("echo answer=$((6 * 7)); exit 5\r");
        terminal.expect("answer=42");
    }
    assert_eq!(first.finish(PATIENCE).0, 5);
    assert_eq!(second.finish(PATIENCE).0, 5);
    assert_eq!(
        world.requests().len(),
        1,
        "still one request for all of them"
    );
    let grown = world.peak_memory_kib().saturating_sub(before);
    assert!(grown < 256 * 1024, "28 clients took {grown} KiB more");
}

/// Waits for all of `held` and returns who ended meanwhile, with their last words.
fn who_leaves_within(held: Duration, running: &[(Case, Proc, Way)]) -> Vec<String> {
    // Time itself is what this case is about: nothing happens that could be waited for.
    thread::sleep(held);
    running
        .iter()
        .filter(|(_, proc, _)| !proc.is_running())
        .map(|(case, proc, way)| {
            format!(
                "{} by {way:?}: {}{}",
                case.name,
                proc.out.text(),
                proc.err.text()
            )
        })
        .collect()
}

#[test]
fn every_client_that_is_denied_ends_with_77_or_its_own_failure_and_says_so() {
    let world = World::usual();
    let alice = world.person("alice");
    let target = format!("{}@iot", login());
    let first = alice.ssh(Way::Jump, &[], &target, &["true"]).start();
    let id = request_id(&first.expect_err("Status:"));
    let mut running = Vec::new();
    for way in Way::BOTH {
        for case in cases(&world, alice, way) {
            let proc = case.cmd.clone().start();
            if case.shows_notice {
                proc.expect_err(&id);
                running.push((case, proc, way));
            }
        }
    }
    world.deny(&id, "not today");
    first.finish(PATIENCE).exits(77);
    for (case, proc, way) in running {
        let finished = proc.finish(PATIENCE);
        eprintln!("checking {} by {way:?}", case.name);
        finished.says("Request denied by bob, reason=\"not today\"");
        let code = finished.code();
        if case.name.starts_with("ssh") {
            finished.exits(77).prints("");
        } else {
            assert!(code.is_some_and(|code| code != 0), "{finished}");
        }
    }
    assert_eq!(world.node("iot").connections(), 0);
}

#[test]
fn clients_without_anybody_at_a_terminal_file_the_request_themselves() {
    for name in ["ansible -m ping", "git clone", "rsync", "scp up", "sftp -b"] {
        let world = World::usual();
        let case = cases(&world, world.person("alice"), Way::OneHop)
            .into_iter()
            .find(|case| case.name == name)
            .expect("a case of the matrix");
        let proc = case.cmd.clone().start();
        let until = Instant::now() + PATIENCE;
        let id = loop {
            if let Some(request) = world.requests().first() {
                break request["id"].as_str().unwrap().to_owned();
            }
            assert!(
                proc.is_running() && Instant::now() < until,
                "{name}: {}",
                proc.err.text()
            );
        };
        let reason = world.request(&id)["reason"].as_str().unwrap().to_owned();
        assert!(!reason.is_empty(), "{name} states what it does");
        world.approve(&id);
        (case.check)(&proc.finish(PATIENCE));
        assert_eq!(world.requests().len(), 1, "{name} asks once");
    }
}
