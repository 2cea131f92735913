//! A laboratory for the SSH seam: a stock `sshd`, the real `ssh`, and between them
//! a relay of our own that passes everything through (`relay.rs`). Each laboratory
//! has its own folder, ports and processes, so that tests run side by side and the
//! memory of one relay is that of one test.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test support: each test file uses a part of it, and fails by panicking"
)]

pub mod relay;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ssh_key::{Algorithm, LineEnding, PrivateKey};
use tempfile::TempDir;

/// No step of a test takes longer than this, or it has failed.
pub const LIMIT: Duration = Duration::from_secs(120);

/// The two ways through the relay.
pub const WAYS: [&str; 2] = ["hop", "node"];

pub struct Lab {
    dir: TempDir,
    sshd: Child,
    relay: Child,
    pub relay_port: u16,
    pub sshd_port: u16,
    pub relay_log: PathBuf,
}

/// What a laboratory is to be like.
#[derive(Default)]
pub struct Setup {
    /// Lines for the node's `sshd_config`.
    pub sshd: &'static str,
    /// Environment of the relay.
    pub relay: &'static [(&'static str, &'static str)],
}

impl Lab {
    pub fn new() -> Lab {
        Lab::with(Setup::default())
    }

    /// With a relay that disconnects everyone when `$D/kick` appears.
    pub fn kicking() -> Lab {
        Lab::with(Setup {
            relay: &[("RELAY_KICK", "1")],
            ..Setup::default()
        })
    }

    /// How long the slowest disconnect took.
    pub fn kicked_within(&self) -> Duration {
        let log = self.log();
        let times = log.lines().filter_map(|line| {
            line.strip_prefix("kicked within ")?
                .strip_suffix(" ms")?
                .parse()
                .ok()
        });
        Duration::from_millis(times.max().unwrap())
    }

    pub fn with(setup: Setup) -> Lab {
        let dir = TempDir::new().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["host", "ca", "user", "stranger"] {
            write_key(&path(name));
        }
        fs::copy(path("user.pub"), path("authorized")).unwrap();
        if setup.sshd.contains("HostCertificate") {
            more_host_keys(dir.path());
        }
        let (sshd, sshd_port) = start_sshd(dir.path(), setup.sshd);
        let relay_log = path("relay.log");
        let (relay, relay_port) = start_relay(dir.path(), sshd_port, &relay_log, setup.relay);
        let lab = Lab {
            dir,
            sshd,
            relay,
            relay_port,
            sshd_port,
            relay_log,
        };
        fs::write(lab.path("config"), lab.ssh_config()).unwrap();
        lab
    }

    /// The same laboratory with a new relay, which reads its files again.
    pub fn restart_relay(mut self) -> Lab {
        let _ = self.relay.kill();
        let _ = self.relay.wait();
        (self.relay, self.relay_port) =
            start_relay(self.dir.path(), self.sshd_port, &self.relay_log, &[]);
        fs::write(self.path("config"), self.ssh_config()).unwrap();
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `hop` is one hop through the relay, `node` the same as a jump with the inner
    /// connection terminated in it, `direct` the node itself.
    fn ssh_config(&self) -> String {
        let dir = self.dir.path().display();
        let (relay, sshd) = (self.relay_port, self.sshd_port);
        format!(
            "Host hop\n  HostName 127.0.0.1\n  Port {relay}\n\
             Host jump\n  HostName 127.0.0.1\n  Port {relay}\n\
             Host node\n  ProxyCommand ssh -F {dir}/config -W node:22 jump\n\
             Host direct\n  HostName 127.0.0.1\n  Port {sshd}\n\
             Host *\n  User root\n  IdentityFile {dir}/user\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
             StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  GlobalKnownHostsFile /dev/null\n  \
             LogLevel ERROR\n  BatchMode yes\n  ControlPath {dir}/mux-%n\n"
        )
    }

    /// A shell line in which `$SSH` is ssh with our configuration, `$F` its
    /// configuration and `$D` the laboratory's folder.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .arg(LIMIT.as_secs().to_string())
            .args(["bash", "-c", line])
            .env("F", self.path("config"))
            .env("D", self.dir.path())
            .env("SSH", format!("ssh -F {}", self.path("config").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn sh(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a line that must succeed; its output without white space at the ends.
    pub fn ok(&self, line: &str) -> String {
        let output = self.sh(line);
        assert!(
            output.status.success(),
            "{line}\n{}\n{}\nrelay: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.log()
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Starts a line; it is killed with its children when dropped.
    pub fn start(&self, line: &str) -> Running {
        use std::os::unix::process::CommandExt;
        let mut command = self.command(line);
        command.process_group(0).stdin(Stdio::piped());
        Running(command.spawn().unwrap())
    }

    /// Starts a master connection that later lines for `host` share.
    pub fn master(&self, host: &str) -> Running {
        let running = self.start(&format!("exec $SSH -M -N {host}"));
        let socket = self.path(&format!("mux-{host}"));
        until("the master is up", || socket.exists());
        running
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.relay_log).unwrap_or_default()
    }

    pub fn sshd_pid(&self) -> u32 {
        self.sshd.id()
    }

    pub fn relay_pid(&self) -> u32 {
        self.relay.id()
    }

    /// Resident memory of the relay in KiB, now.
    pub fn rss(&self) -> u64 {
        status_field(self.relay.id(), "VmRSS:")
    }

    /// The highest it has been since the start or the last `reset_peak`.
    pub fn peak(&self) -> u64 {
        status_field(self.relay.id(), "VmHWM:")
    }

    /// Returns when whatever is stalled has filled all there is to fill: the relay
    /// works on, and grows, no more.
    pub fn settle(&self) {
        let mut last = (0, 0);
        until("everything stands still", || {
            std::thread::sleep(Duration::from_millis(400));
            let now = (self.rss(), self.cpu());
            // Pacing stalled uploads takes next to no time, moving bytes takes all.
            let still = now.0 < last.0 + 128 && now.1 < last.1 + 10 && last.0 > 0;
            last = now;
            still
        });
    }

    /// What the relay has computed, in hundredths of a second.
    pub fn cpu(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.relay.id())).unwrap();
        let fields: Vec<_> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.relay.id()), "5").unwrap();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in [&mut self.relay, &mut self.sshd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A line that runs beside the test.
pub struct Running(pub Child);

impl Running {
    /// Waits for its end; standard output and whether it succeeded.
    pub fn finish(mut self) -> (bool, String) {
        drop(self.0.stdin.take());
        let mut text = String::new();
        self.0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        let status = self.0.wait().unwrap();
        (status.success(), text.trim().to_owned())
    }

    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::killpg(group, signal).unwrap();
    }

    /// Kills it and all its children at once, as a machine that vanishes.
    pub fn kill(&mut self) {
        let group = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something that another process does.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether `done` stays false for as long as `time`: for what must *not* happen.
pub fn never_within(time: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < time {
        if done() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn status_field(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Host keys of other kinds, and a host certificate for the first one.
fn more_host_keys(dir: &Path) {
    let line = "ssh-keygen -q -t ecdsa -b 256 -N '' -f ecdsa && \
                ssh-keygen -q -t rsa -b 2048 -N '' -f rsa && \
                ssh-keygen -q -s ca -h -I host -n iot host.pub";
    let status = Command::new("sh")
        .args(["-c", line])
        .current_dir(dir)
        .status()
        .unwrap();
    assert!(status.success());
}

fn write_key(path: &Path) {
    let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
    key.write_openssh_file(path, LineEnding::LF).unwrap();
    let public = key.public_key().to_openssh().unwrap();
    fs::write(path.with_extension("pub"), public + "\n").unwrap();
}

/// A port that is free now. Another process may take it before its owner does;
/// its start is tried again then.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn start_sshd(dir: &Path, extra: &str) -> (Child, u16) {
    fs::create_dir_all("/run/sshd").unwrap();
    for _ in 0..10 {
        let port = free_port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {d}/host\nTrustedUserCAKeys {d}/ca.pub\n\
             AuthorizedKeysFile {d}/authorized\nPermitRootLogin yes\nStrictModes no\nUsePAM no\n\
             PidFile none\nMaxStartups 200\nSubsystem sftp internal-sftp\n\
             SetEnv HOME={d}\n{extra}\n",
            d = dir.display(),
            extra = extra.replace("D/", &format!("{}/", dir.display())),
        );
        fs::write(dir.join("sshd_config"), config).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = sshd.stderr.take().unwrap();
        if follow(stderr, "Server listening", &dir.join("sshd.log")).is_some() {
            return (sshd, port);
        }
        let _ = sshd.kill();
        let _ = sshd.wait();
    }
    panic!("sshd does not start");
}

/// The relay is this test program again, in a process of its own.
fn start_relay(dir: &Path, node: u16, log: &Path, env: &[(&str, &str)]) -> (Child, u16) {
    let mut relay = Command::new(std::env::current_exe().unwrap())
        .args(["relay_process", "--exact", "--ignored", "--nocapture"])
        .env("RELAY_DIR", dir)
        .env("RELAY_NODE", node.to_string())
        .envs(env.iter().copied())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = relay.stderr.take().unwrap();
    let line = follow(stderr, "relay listens on ", log).expect("the relay starts");
    let port = line.rsplit(' ').next().unwrap().parse().unwrap();
    (relay, port)
}

/// Copies a program's messages to a file, and returns the first line with `mark`.
fn follow(from: impl Read + Send + 'static, mark: &'static str, log: &Path) -> Option<String> {
    let mut log = fs::File::create(log).unwrap();
    let (found, first) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _ = std::io::Write::write_all(&mut log, format!("{line}\n").as_bytes());
            if line.contains(mark) {
                let _ = found.send(line);
            }
        }
    });
    first.recv_timeout(LIMIT).ok()
}
