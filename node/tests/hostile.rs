//! Users who turn against the agent that serves them: floods of signals, what its parent left open, terminals that
//! are gone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use support::{
    Change, Node, Which, background, fed, has_asyncssh, is_possible, stdout_of, wait_until,
};

const AGENT: Which = Which::Agent;

/// A script for asyncssh, which logs in as `dev`; itself, without `timeout` around it, so that a signal reaches it.
fn client(node: &Node, script: &str) -> Command {
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-W", "ignore", "-c", script]);
    python
        .arg(node.port(AGENT).to_string())
        .arg(node.path("id"));
    python.arg(node.certificate("dev", &Change::default()));
    python
}

/// Sends two signals and hears of both, many times; then far more of one than anybody needs, and at last KILL.
const FLOOD: &str = r#"
import asyncio, asyncssh, sys
async def main():
    port, key, certificate = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    async with asyncssh.connect("127.0.0.1", port, username="dev", known_hosts=None, config=None,
                                agent_path=None, client_keys=[(key, certificate)]) as connection:
        script = "trap 'echo INT' INT; trap 'echo TERM' TERM; trap '' USR1; echo ready; while :; do sleep 0.1; done"
        process = await connection.create_process(script)
        await process.stdout.readline()
        for _ in range(15):
            process.send_signal("INT")
            process.send_signal("TERM")
            print((await process.stdout.readline()).strip(), (await process.stdout.readline()).strip())
        for _ in range(1500):
            process.send_signal("USR1")
        process.send_signal("KILL")
        for _ in range(1500):
            process.send_signal("USR1")
        await process.wait()
        print(process.exit_signal[0], flush=True)
        sys.stdin.read()
asyncio.run(asyncio.wait_for(main(), 60))
"#;

#[test]
fn a_flood_of_signals_costs_one_process_at_a_time_and_they_arrive_in_their_order() {
    if !is_possible() || !has_asyncssh() {
        return;
    }
    let node = Node::new();
    let mut client = background(&mut client(&node, FLOOD));
    let (over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    let said = thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                most.fetch_max(node.helpers().len(), Ordering::Relaxed);
            }
        });
        let lines = BufReader::new(client.0.stdout.take().unwrap()).lines();
        let said: Vec<_> = lines.take(16).map(Result::unwrap).collect();
        // Nobody is left who would signal a group that is gone.
        assert!(node.helpers().is_empty());
        over.store(true, Ordering::Relaxed);
        said
    });
    let mut expected = vec!["INT TERM"; 15];
    expected.push("KILL");
    assert_eq!(said, expected);
    assert_eq!(most.into_inner(), 1, "at a time");
}

#[test]
fn what_the_agents_parent_left_open_is_not_open_in_a_session_nor_in_its_own_sftp() {
    if !is_possible() {
        return;
    }
    let node = Node::with(&[("OWN_SFTP", "1")]);
    let run = |command: &str| stdout_of(fed(node.ssh(AGENT, "dev").arg(command), b""));
    // The last one is the folder.
    assert_eq!(run("exec ls /proc/self/fd"), "0\n1\n2\n3\n");
    let mut ssh = node.ssh(AGENT, "dev");
    let mut sftp = background(ssh.args(["-s", "sftp"]));
    // The first packet of the protocol, and the length of its answer.
    let stdin = sftp.0.stdin.as_mut().unwrap();
    stdin.write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3]).unwrap();
    let mut answer = [0; 4];
    let stdout = sftp.0.stdout.as_mut().unwrap();
    stdout.read_exact(&mut answer).unwrap();
    let helpers = node.helpers();
    assert_eq!(helpers.len(), 1);
    let status = fs::read_to_string(helpers[0].join("status")).unwrap();
    assert!(status.contains("Uid:\t4242\t4242\t4242\t4242"), "{status}");
    for entry in fs::read_dir(helpers[0].join("fd")).unwrap() {
        let leads = fs::read_link(entry.unwrap().path()).unwrap();
        // Pipes to the agent, and what the runtime waits by: none is a file.
        assert!(!leads.as_os_str().as_bytes().starts_with(b"/"), "{leads:?}");
    }
    // Nor does the user reach its memory.
    assert_eq!(fs::metadata(helpers[0].join("mem")).unwrap().uid(), 0);
}

/// A terminal: its master, and the side that programs have.
fn terminal() -> (OwnedFd, OwnedFd) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    (master, slave)
}

#[test]
fn a_session_whose_terminal_is_gone_before_it_begins_takes_no_other() {
    if !is_possible() {
        return;
    }
    let order = br#"{"login":"root","uid":0,"gid":0,"home":"/","shell":"/bin/sh",
        "program":{"Command":[101,120,105,116,32,55]},"environment":[],"terminal":true,"greeting":null}"#;
    for (stays, expected) in [(true, 7), (false, 255)] {
        let (master, slave) = terminal();
        let mut helper = Command::new(env!("CARGO_BIN_EXE_agent-on-loopback"))
            .arg("helper")
            .stdin(Stdio::piped())
            .stdout(slave)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let master = stays.then_some(master);
        // Whoever comes now would get the terminal of the same number, if that were free again.
        let others: Vec<_> = (0..8).map(|_| terminal()).collect();
        let mut stdin = helper.stdin.take().unwrap();
        let length = u32::try_from(order.len()).unwrap().to_be_bytes();
        stdin.write_all(&length).unwrap();
        stdin.write_all(order).unwrap();
        let ended = helper.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(expected), "{ended:?}");
        for (_, other) in &others {
            assert!(rustix::termios::tcgetsid(other).is_err());
        }
        drop(master);
    }
}

/// Sends signals as long as it lives.
const STREAM: &str = r#"
import asyncio, asyncssh, sys
async def main():
    port, key, certificate = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    async with asyncssh.connect("127.0.0.1", port, username="dev", known_hosts=None, config=None,
                                agent_path=None, client_keys=[(key, certificate)]) as connection:
        process = await connection.create_process("trap '' USR1; echo ready; exec sleep 98881")
        await process.stdout.readline()
        while True:
            process.send_signal("USR1")
            await asyncio.sleep(0.01)
asyncio.run(asyncio.wait_for(main(), 60))
"#;

/// As a user can as soon as the process is his.
fn stop(helper: &Path) -> bool {
    let pid = helper.file_name().unwrap().to_str().unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP);
    thread::sleep(Duration::from_millis(50));
    let status = fs::read_to_string(helper.join("status"));
    status.is_ok_and(|status| status.contains("State:\tT"))
}

#[test]
fn what_was_to_signal_for_a_session_does_not_outlive_it_even_if_the_user_stops_it() {
    if !is_possible() || !has_asyncssh() {
        return;
    }
    let node = Node::new();
    let client = background(&mut client(&node, STREAM));
    wait_until("one is stopped", || {
        node.helpers().iter().any(|helper| stop(helper))
    });
    assert_eq!(node.helpers().len(), 1);
    drop(client);
    wait_until("it is gone with its session", || node.helpers().is_empty());
    // The agent is as before.
    let said = fed(node.ssh(AGENT, "dev").arg("echo served"), b"");
    assert_eq!(said.stdout, "served\n");
}
