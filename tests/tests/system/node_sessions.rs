//! A node without sshd: the agent joins, keeps its tunnel, and serves the sessions that come through it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{Cmd, PATIENCE, Proc, Way, World, anteroom, login};
use nix::sys::signal::Signal;

/// A world whose node `box` is an agent.
struct Agent {
    world: World,
    run: Option<Proc>,
}

impl Agent {
    fn new() -> Self {
        let world = World::builder()
            .user("alice", "requester")
            .user("bob", "reviewer")
            .user("carol", "access")
            .start();
        let token = world.ctl(&[
            "tokens",
            "add",
            "--type",
            "node",
            "--name",
            "box",
            "--ttl",
            "1h",
            "--labels",
            "env=staging",
            "--format",
            "json",
        ]);
        token.exits(0);
        let token = token.json();
        let token = token.get(0).unwrap_or(&token)["token_secret"]
            .as_str()
            .unwrap()
            .to_owned();
        let ca = world.ctl(&["auth", "export", "--type", "host"]);
        fs::write(world.path("host_ca"), ca.text()).unwrap();
        let proxy = format!("127.0.0.1:{}", world.port);
        let key = fs::read_to_string(world.data_dir().join("host_key.pub")).unwrap();
        Cmd::new(anteroom())
            .args(["node", "join", "--proxy", &proxy, "--proxy-key", key.trim()])
            .args(["--token-file", "-", "--name", "box", "--data-dir"])
            .arg(world.path("agent"))
            .stdin(format!("{token}\n"))
            .run()
            .exits(0);
        let mut agent = Self { world, run: None };
        agent.start();
        agent
    }

    fn start(&mut self) {
        let run = Cmd::new(anteroom())
            .args(["node", "run", "--data-dir"])
            .arg(self.world.path("agent"))
            .start();
        let until = Instant::now() + PATIENCE;
        while !self.world.is_connected("box") {
            assert!(run.is_running() && Instant::now() < until, "no tunnel");
            thread::sleep(Duration::from_millis(30));
        }
        self.run = Some(run);
    }
}

fn target() -> String {
    format!("{}@box", login())
}

#[test]
fn a_node_without_sshd_is_used_as_any_other() {
    let agent = Agent::new();
    let world = &agent.world;
    let carol = world.person("carol");
    for way in Way::BOTH {
        carol
            .ssh(way, &[], &target(), &["echo out; echo err >&2; exit 7"])
            .run()
            .exits(7)
            .prints("out\n")
            .says("err");
        carol
            .ssh(way, &[], &target(), &["echo $ANTEROOM_USER; cat"])
            .stdin("typed")
            .run()
            .exits(0)
            .prints("carol\ntyped");
    }
    let file = world.path("file");
    fs::write(&file, vec![b'x'; 3 << 20]).unwrap();
    for (name, form) in [("there-sftp", "-s"), ("there-scp", "-O")] {
        let there = world.path(name);
        carol
            .client("scp")
            .args([form, "-J", "access"])
            .arg(&file)
            .arg(format!("{}:{}", target(), there.display()))
            .run()
            .exits(0);
        assert_eq!(fs::read(&there).unwrap().len(), 3 << 20);
    }
    let synced = world.path("synced");
    Cmd::new("rsync")
        .args(["-a", "-e", &carol.ssh_command(Way::Jump)])
        .arg(&file)
        .arg(format!("{}:{}", target(), synced.display()))
        .run()
        .exits(0);
    assert_eq!(fs::read(&synced).unwrap().len(), 3 << 20);
    carol
        .ssh(
            Way::Jump,
            &["-tt"],
            &target(),
            &["tty >/dev/null && echo on a terminal"],
        )
        .run()
        .exits(0)
        .prints_part("on a terminal");
}

#[test]
fn whoever_asks_waits_for_the_agents_node_as_well() {
    let agent = Agent::new();
    let world = &agent.world;
    let alice = world.person("alice");
    let waiting = alice
        .ssh(Way::Jump, &[], &target(), &["echo in; exit 4"])
        .env("ANTEROOM_REASON", "to see")
        .start();
    let id = anteroom_tests::request_id(&waiting.expect_err("Status:"));
    world.approve(&id);
    waiting.finish(PATIENCE).exits(4).prints("in\n");
    // What is cut at the proxy ends at the node.
    let held = alice
        .ssh(Way::Jump, &[], &target(), &["echo ready; exec sleep 95557"])
        .start();
    held.expect_out("ready");
    let lives = || {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
        lines.any(|line| line == b"sleep\095557\0")
    };
    assert!(lives());
    world.ctl(&["lock", "--user", "alice"]).exits(0);
    held.finish(PATIENCE).exits(77);
    let until = Instant::now() + PATIENCE;
    while lives() {
        assert!(Instant::now() < until, "it goes on");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_agent_that_is_stopped_is_back_when_it_is_started() {
    let mut agent = Agent::new();
    let run = agent.run.take().unwrap();
    run.signal(Signal::SIGTERM);
    run.finish(PATIENCE).exits(0);
    let carol = agent.world.person("carol").clone();
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(69);
    agent.start();
    carol
        .ssh(Way::Jump, &[], &target(), &["true"])
        .run()
        .exits(0);
}
