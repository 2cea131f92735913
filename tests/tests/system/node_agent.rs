//! The node agent from its token on: joined with the line that is printed, kept up by its own, against the real
//! proxy and the real ssh. What a session on it is like is compared with sshd in the agent's own tests.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, Proc, Way, World, anteroom, login};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Longer than the pause of an agent that was refused once or twice.
const PATIENCE: Duration = Duration::from_secs(60);

#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

struct Agent {
    dir: PathBuf,
    running: Option<Proc>,
}

impl Agent {
    /// Joins with the line that `tokens add` prints, word for word but for `sudo`, where the program is, and the
    /// address, which is not the machine's name here.
    fn join(world: &World, labels: &str) -> Agent {
        let words = [
            "tokens", "add", "--type", "node", "--agent", "--name", "iot", "--labels", labels,
        ];
        let made = world.ctl(&words);
        made.exits(0);
        let dir = world.path("agent");
        let line = made.text();
        let line = line.trim();
        let (before, after) = line.split_once(" --proxy ").expect("an address");
        let (_, after) = after.split_once(' ').expect("more words");
        let before = before.replace("sudo anteroom", &anteroom().display().to_string());
        let line = format!(
            "{before} --proxy 127.0.0.1:{} {after} --data-dir {}",
            world.port,
            dir.display()
        );
        let joined = Cmd::new("sh").args(["-c", &line]).run();
        joined.exits(0);
        let node = world
            .ctl(&["nodes", "show", "iot", "--format", "json"])
            .json();
        assert_eq!(Value::from(joined.text().trim()), node["id"]);
        assert_eq!(node["addr"], "tunnel");
        // The same line again is harmless, though its token is used up.
        Cmd::new("sh").args(["-c", &line]).run().exits(0);
        Agent { dir, running: None }
    }

    fn start(&mut self) {
        let agent = Cmd::new(anteroom())
            .args(["node", "run", "--data-dir"])
            .arg(&self.dir)
            .start();
        agent.expect_err("the tunnel is up");
        self.running = Some(agent);
    }

    fn log(&self) -> String {
        self.running
            .as_ref()
            .map(|agent| agent.err.text())
            .unwrap_or_default()
    }

    fn identity(&self) -> Value {
        let text = fs::read_to_string(self.dir.join("identity.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

fn world() -> World {
    World::builder().user("carol", "access").start()
}

fn reaches(world: &World, way: Way) -> bool {
    let target = format!("{}@iot", login());
    let said = world
        .person("carol")
        .ssh(way, &[], &target, &["echo", "reached"])
        .run();
    said.code() == Some(0) && said.text() == "reached\n"
}

#[test]
fn an_agent_joins_with_the_printed_line_and_comes_back_whatever_is_killed() {
    let mut world = world();
    let mut agent = Agent::join(&world, "env=prod");
    agent.start();
    for way in [Way::OneHop, Way::Jump] {
        assert!(reaches(&world, way), "{way:?}: {}", agent.log());
    }
    let found = world.ctl(&["nodes", "check", "iot"]);
    found.exits(0);
    assert!(found.text().contains("says yes to every offer"), "{found}");

    world.kill_proxy();
    world.start_proxy();
    until("back after the proxy was killed", || {
        reaches(&world, Way::OneHop)
    });

    agent.running.take().unwrap().signal(Signal::SIGKILL);
    until("the tunnel is missed", || !reaches(&world, Way::OneHop));
    agent.start();
    until("back after the agent was killed", || {
        reaches(&world, Way::OneHop)
    });

    let agent = agent.running.take().unwrap();
    agent.signal(Signal::SIGTERM);
    agent.finish(Duration::from_secs(10)).exits(0);
}

#[test]
fn labels_of_a_token_win_over_what_an_agent_says_and_the_others_appear() {
    let world = world();
    let mut agent = Agent::join(&world, "env=prod");
    let config = "labels: {env: staging, rack: b7}\n\
                  commands: [{name: kernel, command: [echo, v6], interval: 1h}]\n";
    fs::write(agent.dir.join("node.yaml"), config).unwrap();
    agent.start();
    let labels = || {
        world
            .ctl(&["nodes", "show", "iot", "--format", "json"])
            .json()["labels"]
            .clone()
    };
    until("its own labels", || labels()["kernel"] == "v6");
    assert_eq!(labels()["rack"], "b7");
    assert_eq!(labels()["env"], "prod");
    // A changed file is read again at a hang-up.
    fs::write(agent.dir.join("node.yaml"), "labels: {rack: c1}\n").unwrap();
    agent.running.as_ref().unwrap().signal(Signal::SIGHUP);
    until("the new label", || labels()["rack"] == "c1");
    assert_eq!(labels()["kernel"], Value::Null);
}

#[test]
fn an_agent_follows_a_rotation_of_the_node_ca_and_takes_a_new_host_key() {
    let world = world();
    let mut agent = Agent::join(&world, "env=prod");
    agent.start();
    assert!(reaches(&world, Way::OneHop), "{}", agent.log());
    let before = agent.identity();
    let rotate = |stage| world.ctl(&["auth", "rotate", "--type", "node", "--stage", stage]);
    rotate("announce").exits(0);
    let authorities = |agent: &Agent| agent.identity()["node_ca"].as_array().unwrap().len();
    until("both are trusted", || authorities(&agent) == 2);
    rotate("sign").exits(0);
    assert!(reaches(&world, Way::OneHop), "{}", agent.log());
    rotate("retire").exits(0);
    until("one is trusted", || authorities(&agent) == 1);
    assert_ne!(agent.identity()["node_ca"], before["node_ca"]);
    assert!(reaches(&world, Way::OneHop), "{}", agent.log());

    let words = ["node", "rekey", "--data-dir"];
    Cmd::new(anteroom())
        .args(words)
        .arg(&agent.dir)
        .run()
        .exits(0);
    until("a new key", || {
        agent.identity()["host_key"] != before["host_key"]
    });
    until("reached by it", || reaches(&world, Way::OneHop));
    // Also from its beginning on.
    agent.running = None;
    agent.start();
    until("reached again", || reaches(&world, Way::OneHop));
}

/// Nobody in particular.
const NOBODY: u32 = 65534;

#[test]
fn no_command_leaves_a_token_or_a_key_in_a_core_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    // Where a user without privileges may run it.
    let program = dir.path().join("anteroom");
    fs::copy(anteroom(), &program).unwrap();
    let waits = dir.path().join("config");
    nix::unistd::mkfifo(&waits, nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    let data_dir = ["--data-dir", dir.path().to_str().unwrap()];
    let waits = waits.to_str().unwrap();
    let join = [
        "node",
        "join",
        "--proxy",
        "127.0.0.1:1",
        "--token-file",
        "-",
        "--name",
        "iot",
    ];
    // Both stay where they are: the token does not come, nor does the configuration.
    for words in [&join[..], &["doctor", "--config", waits]] {
        let mut cmd = Cmd::new(&program).args(words).args(data_dir);
        if nix::unistd::geteuid().is_root() {
            let [user, group] = ["--reuid", "--regid"].map(|option| format!("{option}={NOBODY}"));
            cmd = cmd.under(["setpriv", &user, &group, "--clear-groups"]);
        }
        let held = cmd.stdin_open().start();
        let process = PathBuf::from(format!("/proc/{}", held.id()));
        until("no core file is to be left", || {
            let line = fs::read(process.join("cmdline")).unwrap();
            // The kernel gives what is in there of a process without core files to root.
            line.starts_with(program.as_os_str().as_bytes())
                && fs::metadata(process.join("environ")).unwrap().uid() == 0
        });
        let status = fs::read_to_string(process.join("status")).unwrap();
        assert!(!status.contains("Uid:\t0\t"), "{status}");
        assert!(held.is_running());
    }
}
