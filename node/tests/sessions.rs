//! The agent under the programs that people use: scp, sftp, rsync, forwards, a shared connection, an editor's
//! form, Ansible; and what becomes of sessions that are cut.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::{
    Change, LIMIT, Node, Said, Which, background, fed, is_possible, on_terminal, shared, stdout_of,
    wait_until,
};

const AGENT: Which = Which::Agent;

fn ssh(login: &str, arguments: &[&str]) -> Said {
    fed(shared().ssh(AGENT, login).args(arguments), b"")
}

/// A folder that `dev` may write to, and three files of awkward sizes in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in(shared().path("home/dev")).unwrap();
    chown(dir.path(), Some(4242), Some(4242)).unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    for (name, size) in [("empty", 0), ("a file", 70_001), ("large", 3_000_007)] {
        let bytes: Vec<u8> = (0..size).map(|n: u32| (n * 31 % 253) as u8).collect();
        fs::write(from.join(name), bytes).unwrap();
    }
    (dir, from)
}

#[track_caller]
fn same(one: &Path, other: &Path) {
    let said = fed(Command::new("diff").arg("-r").args([one, other]), b"");
    assert_eq!(said.status, Some(0), "{said:?}");
}

/// The `sleep` with this number of seconds, if it lives.
fn sleeping(seconds: &str) -> Option<i32> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let is = line == format!("sleep\0{seconds}\0").as_bytes();
        is.then_some(pid)
    })
}

fn lives(seconds: &str) -> bool {
    sleeping(seconds).is_some()
}

fn end(seconds: &str) {
    if let Some(pid) = sleeping(seconds) {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
}

#[test]
fn scp_in_both_forms_copies_there_and_back() {
    if !is_possible() {
        return;
    }
    for form in ["-O", "-s"] {
        let (dir, from) = folder();
        let certificate = shared().certificate("dev", &Change::default());
        let there = dir.path().join("there");
        let back = dir.path().join("back");
        let copy = |source: String, target: String| {
            let mut scp = Command::new("timeout");
            scp.args(["60", "scp", "-r", "-p", "-q", form]);
            scp.args(shared().options(AGENT, &certificate))
                .args([source, target]);
            let said = fed(&mut scp, b"");
            assert_eq!(said.status, Some(0), "{form}: {said:?}");
        };
        copy(
            from.display().to_string(),
            format!("dev@127.0.0.1:{}", there.display()),
        );
        copy(
            format!("dev@127.0.0.1:{}", there.display()),
            back.display().to_string(),
        );
        same(&from, &back);
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(there).unwrap());
        assert_eq!(owner, 4242);
    }
}

#[test]
fn sftp_and_rsync_copy_there_and_back() {
    if !is_possible() {
        return;
    }
    let (dir, from) = folder();
    let certificate = shared().certificate("dev", &Change::default());
    let batch = format!(
        "mkdir {0}/s\nput -r {1} {0}/s\nget -r {0}/s/from {0}/b\n",
        dir.path().display(),
        from.display()
    );
    let mut sftp = Command::new("timeout");
    sftp.args(["60", "sftp", "-b", "-"])
        .args(shared().options(AGENT, &certificate));
    let said = fed(sftp.arg("dev@127.0.0.1"), batch.as_bytes());
    assert_eq!(said.status, Some(0), "{said:?}");
    same(&from, &dir.path().join("b"));
    let shell = format!("ssh {}", shared().options(AGENT, &certificate).join(" "));
    for (source, target) in [
        (
            format!("{}/", from.display()),
            format!("dev@127.0.0.1:{}/r/", dir.path().display()),
        ),
        (
            format!("dev@127.0.0.1:{}/r/", dir.path().display()),
            format!("{}/rb/", dir.path().display()),
        ),
    ] {
        let mut rsync = Command::new("timeout");
        rsync.args(["60", "rsync", "-a", "-z", "-e", &shell, &source, &target]);
        let said = fed(&mut rsync, b"");
        assert_eq!(said.status, Some(0), "{said:?}");
    }
    same(&from, &dir.path().join("rb"));
}

#[test]
fn the_agents_own_sftp_does_what_openssh_s_does() {
    if !is_possible() {
        return;
    }
    let own = Node::with(&[("OWN_SFTP", "1")]);
    let script = "mkdir d\nput -p SRC d/f\n-put -a SRC d/f\nrename d/f d/g\nln -s g d/link\nln d/g d/hard\n\
         chmod 600 d/g\nls -1 d\nls -1 d/nothing\nget d/link TO\n-rm d\n-rmdir d\n-get nothing TO2\n\
         -chown 0 d/g\npwd\ncd d\npwd\nrm link\nrm hard\nrm g\ncd ..\nrmdir d\nls -1\n";
    let mut said = Vec::new();
    for which in [Which::Sshd, Which::Agent] {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::write(&source, vec![7; 300_000]).unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
        let to = dir.path().join("to");
        let script = script.replace("SRC", source.to_str().unwrap());
        let script = script
            .replace("TO2", "/dev/null")
            .replace("TO", to.to_str().unwrap());
        // A missing file ends a batch: asked for with a dash, it does not.
        let script = script.replace("ls -1 d/nothing", "-ls -1 d/nothing");
        let certificate = own.certificate("plain", &Change::default());
        let mut sftp = Command::new("timeout");
        sftp.args(["60", "sftp", "-b", "-"])
            .args(own.options(which, &certificate));
        let found = fed(sftp.arg("plain@127.0.0.1"), script.as_bytes());
        assert_eq!(found.status, Some(0), "{which:?} {found:?}");
        same(&source, &to);
        let level = |text: &str| text.replace(dir.path().to_str().unwrap(), "TEMP");
        said.push((level(&found.stdout), level(&found.stderr)));
    }
    assert_eq!(said[0], said[1]);
    // Larger than a packet, and many.
    let many = tempfile::tempdir_in(own.path("home/plain")).unwrap();
    for n in 0..250 {
        fs::write(many.path().join(format!("file-{n}")), vec![1; n * 3000]).unwrap();
    }
    fs::set_permissions(many.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let certificate = own.certificate("plain", &Change::default());
    let back = tempfile::tempdir().unwrap();
    let mut scp = Command::new("timeout");
    scp.args(["60", "scp", "-q", "-r"])
        .args(own.options(AGENT, &certificate));
    scp.arg(format!("plain@127.0.0.1:{}", many.path().display()))
        .arg(back.path().join("b"));
    let copied = fed(&mut scp, b"");
    assert_eq!(copied.status, Some(0), "{copied:?}");
    same(many.path(), &back.path().join("b"));
}

/// `ssh` itself, without `timeout` around it: a signal reaches it.
fn bare(login: &str, arguments: &[&str]) -> Command {
    let certificate = shared().certificate(login, &Change::default());
    let mut ssh = Command::new("ssh");
    ssh.args(shared().options(AGENT, &certificate));
    ssh.env_remove("SSH_AUTH_SOCK")
        .args(["-l", login, "127.0.0.1"])
        .args(arguments);
    ssh
}

fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut other = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut other);
                let _ = other.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    port
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[track_caller]
fn echoes(mut stream: TcpStream) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let sent: Vec<u8> = (0..400_000_u32).map(|n| (n % 255) as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(
        back == sent,
        "{} of {} bytes came back",
        back.len(),
        sent.len()
    );
}

fn connected(port: u16) -> TcpStream {
    let mut stream = None;
    wait_until("somebody listens", || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    stream.unwrap()
}

#[test]
fn forwards_carry_bytes_and_half_closes_and_listeners_die_with_the_connection() {
    if !is_possible() {
        return;
    }
    let (local, remote, echo) = (free_port(), free_port(), echo());
    let forwards = [
        format!("-L127.0.0.1:{local}:127.0.0.1:{echo}"),
        format!("-R{remote}:127.0.0.1:{echo}"),
    ];
    let forwards = [forwards[0].as_str(), &forwards[1], "-N"];
    let held = background(&mut bare("dev", &forwards));
    echoes(connected(local));
    echoes(connected(remote));
    echoes(connected(remote));
    drop(held);
    wait_until("the listener is gone", || {
        TcpStream::connect(("127.0.0.1", remote)).is_err()
    });
}

#[test]
fn a_remote_forward_is_taken_back_and_a_taken_port_is_refused() {
    if !is_possible() {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let six = TcpListener::bind(("::1", taken.local_addr().unwrap().port()));
    let port = taken.local_addr().unwrap().port();
    let said = ssh(
        "dev",
        &[
            &format!("-R{port}:127.0.0.1:1"),
            "-oExitOnForwardFailure=yes",
            "true",
        ],
    );
    assert_eq!(said.status, Some(255), "{said:?}");
    assert!(
        said.stderr.contains("remote port forwarding failed"),
        "{said:?}"
    );
    drop((taken, six));
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("-oControlPath={}/%C", dir.path().display());
    let held = background(&mut bare("dev", &[&socket, "-M", "-N"]));
    let control = |arguments: &[&str]| fed(bare("dev", &[&socket]).args(arguments), b"");
    wait_until("the master is there", || {
        control(&["-Ocheck"]).status == Some(0)
    });
    let forward = format!("-R{port}:127.0.0.1:1");
    assert_eq!(control(&["-Oforward", &forward]).status, Some(0));
    connected(port);
    assert_eq!(control(&["-Ocancel", &forward]).status, Some(0));
    wait_until("the listener is gone", || {
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });
    drop(held);
}

#[test]
fn an_editors_form_has_a_script_on_standard_input_beside_a_proxy() {
    if !is_possible() {
        return;
    }
    let (socks, echo) = (free_port(), echo());
    let mut held = background(&mut bare(
        "dev",
        &["-T", &format!("-D127.0.0.1:{socks}"), "bash"],
    ));
    let mut stdin = held.0.stdin.take().unwrap();
    let mut stdout = BufReader::new(held.0.stdout.take().unwrap());
    let mut line = String::new();
    writeln!(stdin, "echo \"$(id -un) ready\"").unwrap();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "dev ready\n");
    // RFC 1928: no authentication, then CONNECT to an address of IPv4.
    let mut stream = connected(socks);
    stream.write_all(&[5, 1, 0]).unwrap();
    stream.read_exact(&mut [0; 2]).unwrap();
    let [high, low] = echo.to_be_bytes();
    stream
        .write_all(&[5, 1, 0, 1, 127, 0, 0, 1, high, low])
        .unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [5, 0]);
    echoes(stream);
    writeln!(stdin, "exit 3").unwrap();
    assert_eq!(held.0.wait().unwrap().code(), Some(3));
}

#[test]
fn over_a_shared_connection_no_exit_code_and_no_last_byte_is_lost() {
    if !is_possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("-oControlPath={}/%C", dir.path().display());
    let held = background(&mut bare("dev", &[&socket, "-M", "-N"]));
    let control = |arguments: &[&str]| fed(bare("dev", &[&socket]).args(arguments), b"");
    wait_until("the master is there", || {
        control(&["-Ocheck"]).status == Some(0)
    });
    for n in 0..100 {
        let code = n % 251;
        let said = control(&[&format!(
            "printf '%s' {n}; head -c 9999 /dev/zero | tr '\\0' y; exit {code}"
        )]);
        assert_eq!(said.status, Some(code), "{n}");
        assert_eq!(said.stdout.len(), 9999 + n.to_string().len(), "{n}");
        assert!(said.stdout.starts_with(&n.to_string()));
    }
    // Ten at once, and no eleventh.
    let mut sessions: Vec<_> = (0..10)
        .map(|_| background(bare("dev", &[&socket]).args(["echo in; exec cat"])))
        .collect();
    for session in &mut sessions {
        let mut line = String::new();
        BufReader::new(session.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "in\n");
    }
    let eleventh = control(&["-oControlMaster=no", "-oProxyCommand=false", "true"]);
    assert_eq!(eleventh.status, Some(255), "{eleventh:?}");
    drop(sessions);
    wait_until("there is room again", || {
        control(&["true"]).status == Some(0)
    });
    drop(held);
}

#[test]
fn a_reader_that_is_slow_delays_nobody_else_and_gets_every_byte() {
    if !is_possible() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("-oControlPath={}/%C", dir.path().display());
    let held = background(&mut bare("dev", &[&socket, "-M", "-N"]));
    let control = |arguments: &[&str]| fed(bare("dev", &[&socket]).args(arguments), b"");
    wait_until("the master is there", || {
        control(&["-Ocheck"]).status == Some(0)
    });
    let mut slow = background(
        bare("dev", &[&socket]).args(["head -c 60000000 /dev/zero; echo end >&2; exit 6"]),
    );
    // Nobody reads its output; the others go on.
    thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        let begun = Instant::now();
        assert_eq!(stdout_of(control(&["echo quick"])), "quick\n");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let mut bytes = Vec::new();
    slow.0
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    assert_eq!(bytes.len(), 60_000_000);
    assert_eq!(slow.0.wait().unwrap().code(), Some(6));
    drop(held);
}

#[test]
fn what_a_cut_session_leaves_is_ended_but_for_daemons() {
    if !is_possible() {
        return;
    }
    for (number, options) in [("71234", &[][..]), ("72345", &["-tt"])] {
        let word = |n: u32| format!("{number}{n}");
        let script = format!(
            "sleep {} & (trap '' HUP; sleep {}) & setsid sleep {} </dev/null >/dev/null 2>&1 & echo ready; sleep {}",
            word(1),
            word(2),
            word(3),
            word(4)
        );
        let mut ssh = bare("dev", options);
        let mut held = background(ssh.arg(&script));
        let mut line = String::new();
        BufReader::new(held.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        wait_until("all run", || (1..=4).all(|n| lives(&word(n))));
        drop(held);
        wait_until("those that listen are gone", || {
            !lives(&word(1)) && !lives(&word(4))
        });
        wait_until("who ignores it as well", || !lives(&word(2)));
        assert!(lives(&word(3)), "a session of its own is not ours to end");
        end(&word(3));
    }
}

#[test]
fn what_a_program_leaves_behind_is_told_and_may_stay() {
    if !is_possible() {
        return;
    }
    let script = "sleep 81111 >/dev/null 2>&1 </dev/null & nohup sleep 82222 >/dev/null 2>&1 </dev/null & sleep 0.2";
    assert_eq!(ssh("dev", &[script]).status, Some(0));
    wait_until("it was told", || !lives("81111"));
    assert!(lives("82222"));
    end("82222");
}

#[test]
fn the_socket_of_a_forwarded_agent_is_the_users_and_goes_with_the_connection() {
    if !is_possible() {
        return;
    }
    let mut agent = Command::new("ssh-agent");
    let ssh = shared().ssh(AGENT, "dev");
    agent.args(["sh", "-c", "ssh-add -q \"$0\" && exec \"$@\""]);
    agent
        .arg(shared().path("stranger"))
        .arg(ssh.get_program())
        .args(ssh.get_args());
    agent.args(["-A", "ssh-add -l >&2; echo $SSH_AUTH_SOCK"]);
    let said = fed(&mut agent, b"");
    assert!(said.stderr.contains("ED25519"), "{said:?}");
    let socket = stdout_of(said);
    let path = Path::new(socket.trim());
    assert!(path.starts_with("/tmp"), "{socket}");
    wait_until("it is gone", || {
        !path.exists() && !path.parent().unwrap().exists()
    });
}

#[test]
fn a_terminal_follows_the_size_of_its_window_and_is_recorded() {
    if !is_possible() {
        return;
    }
    let script = "stty size; who | grep -c '^dev '; exit";
    let said = on_terminal(
        shared().ssh(AGENT, "dev").args(["-tt", script]),
        "rows 31 cols 77",
        &[],
    );
    assert_eq!(said.stdout, "31 77\r\n1\r\n", "{said:?}");
    let last = || {
        let mut last = Command::new("last");
        stdout_of(fed(
            last.arg("-f").arg(shared().path("log.d/wtmp")).arg("dev"),
            b"",
        ))
    };
    let line = last();
    let line = line.lines().next().unwrap();
    assert!(line.contains("127.0.0.1"), "{line}");
    wait_until("it is over", || !last().contains("still logged in"));
}

#[test]
fn an_agent_without_privileges_serves_its_own_user_and_nobody_else() {
    if !is_possible() {
        return;
    }
    let node = shared();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["host_key", "node_ca.pub", "node_id", "krl"] {
        let to = dir.path().join(name);
        fs::copy(node.path(name), &to).unwrap();
        chown(&to, Some(65534), None).unwrap();
    }
    let mut agent = Command::new("setpriv");
    agent.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ]);
    agent
        .arg(support::copy_of_agent(dir.path()))
        .arg("serve")
        .arg(dir.path());
    let mut agent = background(&mut agent);
    let mut port = String::new();
    BufReader::new(agent.0.stdout.as_mut().unwrap())
        .read_line(&mut port)
        .unwrap();
    let run = |login: &str| {
        let certificate = node.certificate(login, &Change::default());
        let mut ssh = Command::new("timeout");
        ssh.args(["60", "ssh", &format!("-p{}", port.trim())]);
        ssh.args(node.options(AGENT, &certificate))
            .args(["-l", login, "127.0.0.1", "id -u"]);
        fed(&mut ssh, b"")
    };
    let nobody = run("nobody");
    // The shell of nobody is nologin: what matters is that it ran.
    assert!(nobody.stdout.contains("not available"), "{nobody:?}");
    let root = run("root");
    assert_eq!(root.status, Some(255), "{root:?}");
    assert!(root.stderr.contains("Permission denied"), "{root:?}");
}

#[test]
fn what_is_revoked_while_the_agent_runs_is_refused_from_then_on() {
    if !is_possible() {
        return;
    }
    let node = Node::new();
    let run = || fed(node.ssh(AGENT, "dev").arg("true"), b"").status;
    assert_eq!(run(), Some(0));
    fs::write(node.path("spec"), "serial: 7\n").unwrap();
    let mut keygen = Command::new("ssh-keygen");
    keygen
        .args(["-q", "-k", "-s"])
        .arg(node.path("ca.pub"))
        .arg("-f")
        .arg(node.path("krl"));
    assert_eq!(fed(keygen.arg(node.path("spec")), b"").status, Some(0));
    wait_until("the list has been read", || run() == Some(255));
}

#[test]
fn ansible_reaches_the_node() {
    if !is_possible() || !support::has_ansible() {
        return;
    }
    let certificate = shared().certificate("dev", &Change::default());
    let options = shared().options(AGENT, &certificate).join(" ");
    let dir = tempfile::tempdir().unwrap();
    let mut ansible = Command::new("timeout");
    ansible.args([
        "100",
        "ansible",
        "all",
        "-i",
        "127.0.0.1,",
        "-u",
        "dev",
        "-m",
        "shell",
    ]);
    ansible.args(["-a", "id -un", "--ssh-common-args", &options]);
    let config = dir.path().join("ansible.cfg");
    fs::write(&config, "[defaults]\n").unwrap();
    ansible
        .env("ANSIBLE_CONFIG", config)
        .env("HOME", dir.path());
    ansible.env("ANSIBLE_SSH_CONTROL_PATH_DIR", dir.path());
    ansible.env("ANSIBLE_PYTHON_INTERPRETER", "/usr/bin/python3");
    let said = fed(&mut ansible, b"");
    assert!(
        said.stdout.contains("rc=0") && said.stdout.contains("dev"),
        "{said:?}"
    );
}

#[test]
#[ignore = "a measurement"]
fn what_the_start_of_a_session_costs() {
    let dir = tempfile::tempdir().unwrap();
    for which in [Which::Sshd, Which::Agent, Which::Sshd, Which::Agent] {
        let socket = format!("-oControlPath={}/{which:?}%C", dir.path().display());
        let node = shared();
        let mut master = node.ssh(which, "dev");
        let held = background(master.args([&socket, "-M", "-N"]));
        let run = |command: &str| fed(node.ssh(which, "dev").args([&socket, command]), b"");
        wait_until("the master is there", || run("true").status == Some(0));
        let begun = Instant::now();
        for _ in 0..50 {
            assert_eq!(run("true").status, Some(0));
        }
        println!("{which:?}: {:?} a session", begun.elapsed() / 50);
        drop(held);
    }
}

/// A client of another make, which sends signals and asks how a program ended.
const SIGNALS: &str = r#"
import asyncio, asyncssh, sys
async def main():
    port, key, certificate = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    async with asyncssh.connect("127.0.0.1", port, username="dev", known_hosts=None, config=None,
                                agent_path=None, client_keys=[(key, certificate)]) as connection:
        for signal in ("USR1", "TERM", "USR2"):
            script = "trap 'echo got USR1; exit 5' USR1; echo ready; while :; do sleep 0.1; done"
            process = await connection.create_process(script)
            await process.stdout.readline()
            process.send_signal(signal)
            rest = await process.stdout.read()
            await process.wait_closed()
            print(signal, rest.strip(), process.exit_status, process.exit_signal and process.exit_signal[0])
        process = await connection.create_process("kill -ABRT $$")
        await process.wait()
        print(process.exit_status, process.exit_signal[:2])
        process = await connection.create_process("cat; echo end")
        process.stdin.write("half\n")
        process.stdin.write_eof()
        rest = await process.stdout.read()
        await process.wait_closed()
        print(rest, process.exit_status)
asyncio.run(main())
"#;

#[test]
fn another_client_sends_signals_and_hears_which_one_ended_a_program() {
    if !is_possible() || !support::has_asyncssh() {
        return;
    }
    let node = shared();
    for which in [Which::Sshd, AGENT] {
        let certificate = node.certificate("dev", &Change::default());
        let mut python = Command::new("timeout");
        python.args(["60", "/usr/bin/python3", "-W", "ignore", "-c", SIGNALS]);
        python
            .arg(node.port(which).to_string())
            .arg(node.path("id"))
            .arg(&certificate);
        let said = stdout_of(fed(&mut python, b""));
        let expected = "USR1 got USR1 5 None\nTERM  -1 TERM\nUSR2  -1 USR2\n-1 ('ABRT', False)\nhalf\nend\n 0\n";
        assert_eq!(said, expected, "{which:?}");
    }
}

#[test]
fn an_agent_that_is_stopped_takes_its_sessions_with_it() {
    if !is_possible() {
        return;
    }
    let node = Node::new();
    let certificate = node.certificate("dev", &Change::default());
    let mut ssh = Command::new("ssh");
    ssh.args(node.options(AGENT, &certificate))
        .args(["-l", "dev", "127.0.0.1"]);
    let mut held = background(ssh.arg("echo ready; trap '' HUP; sleep 94444; sleep 94445"));
    let mut line = String::new();
    BufReader::new(held.0.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    wait_until("it runs", || lives("94444"));
    let begun = Instant::now();
    node.stop_agent();
    wait_until("it is over", || !lives("94444") && !lives("94445"));
    assert!(begun.elapsed() < Duration::from_secs(15));
}

/// Sends KILL to a program, then ends its session.
const KILLED: &str = r#"
import asyncio, asyncssh, sys
async def main():
    port, key, certificate, script = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
    async with asyncssh.connect("127.0.0.1", port, username="dev", known_hosts=None, config=None,
                                agent_path=None, client_keys=[(key, certificate)]) as connection:
        process = await connection.create_process(script)
        await process.stdout.readline()
        process.send_signal("KILL")
        try:
            await asyncio.wait_for(process.wait_closed(), 3)
            print("ended")
        except asyncio.TimeoutError:
            print("lives")
asyncio.run(main())
"#;

#[test]
fn a_signal_reaches_what_is_the_users_and_not_what_runs_as_root_in_his_session() {
    if !is_possible() || !support::has_asyncssh() {
        return;
    }
    let node = shared();
    // What sudo does: a program that becomes root for good.
    let sudo = node.path("sudo");
    fs::copy("/usr/bin/setpriv", &sudo).unwrap();
    fs::set_permissions(&sudo, fs::Permissions::from_mode(0o4755)).unwrap();
    let as_root = format!("echo ready; exec {} --reuid=0 sleep 97771", sudo.display());
    for (script, expected) in [
        ("echo ready; exec sleep 97772", "ended\n"),
        (&as_root, "lives\n"),
    ] {
        let certificate = node.certificate("dev", &Change::default());
        let mut python = Command::new("timeout");
        python.args(["60", "/usr/bin/python3", "-W", "ignore", "-c", KILLED]);
        python
            .arg(node.port(AGENT).to_string())
            .arg(node.path("id"))
            .arg(&certificate);
        assert_eq!(
            stdout_of(fed(python.arg(script), b"")),
            expected,
            "{script}"
        );
    }
    // The end of the session is the agent's to see to.
    wait_until("it is over", || !lives("97771") && !lives("97772"));
}
