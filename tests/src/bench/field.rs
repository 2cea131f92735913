//! The field of the race: Anteroom and a stock sshd as middle, the same node behind both.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::{
    Cmd, Node, NodeConfig, PATIENCE, Person, Proc, Way, World, login, request_id,
};

use crate::measure::{cpu_seconds, descendants, float, shared_memory_kib};

/// One cipher on every leg that the client chooses.
const CIPHER: &str = "aes256-gcm@openssh.com";

/// How long a transfer may take: it is only waited for when something is broken.
const TRANSFER: Duration = Duration::from_secs(600);

/// How many sessions are started at a time where many are wanted: below the tenth
/// unauthenticated connection, from which on sshd turns some away (`MaxStartups`).
const AT_ONCE: usize = 4;

/// How many sessions run before memory is first read. What the first ones cost is not theirs
/// alone: caches, the allocator's arenas, pages of the program read for the first time.
const WARM: usize = 10;

/// How the node is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    /// Nothing in between.
    Direct,
    /// `ssh -J` over a stock sshd.
    SshdJump,
    /// `ssh -J` over Anteroom.
    Jump,
    /// `ssh login@node@access`.
    OneHop,
}

impl Path {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 4] = [Self::Direct, Self::SshdJump, Self::Jump, Self::OneHop];

    /// Those through Anteroom.
    pub(crate) const OURS: [Self; 2] = [Self::Jump, Self::OneHop];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::SshdJump => "sshd as ProxyJump",
            Self::Jump => "Anteroom, ProxyJump",
            Self::OneHop => "Anteroom, one hop",
        }
    }
}

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// From the node.
    Down,
    /// To the node.
    Up,
}

impl Direction {
    pub(crate) const BOTH: [Self; 2] = [Self::Down, Self::Up];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Up => "up",
        }
    }
}

/// One transfer.
pub(crate) struct Transfer {
    /// MiB per second, from the moment the remote command runs.
    pub(crate) rate: f64,
    /// Processor seconds of the middle, with its login; 0 without a middle.
    pub(crate) cpu: f64,
}

/// Everything that runs for the measurements.
pub(crate) struct Field {
    jump: Node,
    plain: PathBuf,
    world: World,
}

impl Field {
    pub(crate) fn new() -> Self {
        let mut world = World::builder()
            .node(NodeConfig::new("iot"))
            .user("alice", "requester")
            .user("bob", "reviewer")
            .user("carol", "access")
            .start();
        let carol = world.person("carol").clone();
        // The same node lets carol in by her own key too, for the paths without us.
        let first = format!(
            "AuthorizedKeysFile {}\nLogLevel INFO",
            carol.public_key().display()
        );
        let ours = world.sshd_config("iot");
        world.node_mut("iot").start(&first, &ours);
        let jump = world.plain_sshd("jump", &first);
        let plain = world.path("plain_config");
        let host =
            |name: &str, port: u16| format!("Host {name}\n  HostName 127.0.0.1\n  Port {port}\n");
        let text = host("iot", world.node("iot").port)
            + &host("jump", jump.port)
            + &format!(
                "Host *\n  User {}\n  IdentityFile {}\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
                 StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n  LogLevel ERROR\n  Ciphers {CIPHER}\n",
                login(),
                carol.key.display()
            );
        fs::write(&plain, text).unwrap();
        for name in ["alice", "bob", "carol"] {
            let file = world.person(name).config();
            let text = fs::read_to_string(&file).unwrap() + &format!("  Ciphers {CIPHER}\n");
            fs::write(file, text).unwrap();
        }
        Self { jump, plain, world }
    }

    fn ssh(&self, person: &Person, path: Path, command: &str) -> Cmd {
        let plain = Cmd::new("ssh").arg("-F").arg(&self.plain);
        let target = format!("{}@iot", login());
        match path {
            Path::Direct => plain.args(["iot", command]),
            Path::SshdJump => plain.args(["-J", "jump", "iot", command]),
            Path::Jump => person.ssh(Way::Jump, &[], &target, &[command]),
            Path::OneHop => person.ssh(Way::OneHop, &[], &target, &[command]),
        }
    }

    fn carol(&self, path: Path, command: &str) -> Cmd {
        self.ssh(self.world.person("carol"), path, command)
    }

    // ---- throughput

    /// Processor seconds that the middle of a path has used so far.
    fn middle_cpu(&self, path: Path) -> f64 {
        match path {
            Path::Direct => 0.0,
            Path::SshdJump => {
                // sshd works in children, whose time counts once they are reaped.
                let pid = self.jump.process_id();
                wait_until("a session of sshd goes on", || descendants(pid).is_empty());
                cpu_seconds(pid)
            }
            Path::Jump | Path::OneHop => cpu_seconds(self.world.proxy().id()),
        }
    }

    /// A file of that many MiB to send: sparse, so that reading it costs next to nothing.
    fn zeros(&self, mib: u64) -> PathBuf {
        let file = self.world.path("zeros");
        let made = File::create(&file).unwrap();
        made.set_len(mib * 1024 * 1024).unwrap();
        file
    }

    /// Sends `mib` MiB along `path` in one direction.
    pub(crate) fn transfer(&self, path: Path, direction: Direction, mib: u64) -> Transfer {
        let before = self.middle_cpu(path);
        let line = match direction {
            Direction::Down => {
                let command = format!("echo go >&2; exec head -c {mib}M /dev/zero");
                format!("exec {} > /dev/null", self.carol(path, &command).line())
            }
            Direction::Up => {
                let ssh = self.carol(path, "echo go >&2; exec cat > /dev/null");
                format!("exec {} < {}", ssh.line(), self.zeros(mib).display())
            }
        };
        let client = Cmd::new("sh").args(["-c", &line]).start();
        client.expect_err("go\n");
        let started = Instant::now();
        client.finish(TRANSFER).exits(0);
        let took = started.elapsed().as_secs_f64();
        Transfer {
            rate: mib as f64 / took,
            cpu: self.middle_cpu(path) - before,
        }
    }

    /// Makes sure that what is timed is the whole transfer: every byte arrives on `path`.
    pub(crate) fn check(&self, path: Path) {
        let down = self.carol(path, "head -c 4M /dev/zero").run();
        down.exits(0).prints(vec![0; 4 * 1024 * 1024]);
        let line = format!(
            "exec {} < {}",
            self.carol(path, "wc -c").line(),
            self.zeros(4).display()
        );
        let up = Cmd::new("sh").args(["-c", &line]).run();
        up.exits(0).prints(format!("{}\n", 4 * 1024 * 1024));
    }

    // ---- login and approval

    /// Seconds for `ssh … true`.
    pub(crate) fn login(&self, path: Path) -> f64 {
        let finished = self.carol(path, "true").run();
        finished.exits(0);
        finished.took.as_secs_f64()
    }

    /// Seconds from the start of a direct `ssh` to the first byte that its command prints.
    pub(crate) fn first_byte_direct(&self) -> f64 {
        let started = Instant::now();
        let client = self.carol(Path::Direct, "echo in").start();
        client.expect_out("in\n");
        let took = started.elapsed().as_secs_f64();
        client.finish(PATIENCE).exits(0);
        took
    }

    /// An open connection of bob's to the proxy.
    pub(crate) fn reviewer(&self) -> Master {
        Master::open(self.world.person("bob"), "access")
    }

    /// An open connection of carol's to the proxy, for sessions on the node.
    pub(crate) fn visitor(&self) -> Master {
        let target = Way::OneHop.destination(&login(), "iot");
        Master::open(self.world.person("carol"), &target)
    }

    /// Seconds from the start of a command on an open connection to its first byte: the proxy's
    /// own login on the node, without anything to approve.
    pub(crate) fn first_byte_of(visitor: &Master) -> f64 {
        let started = Instant::now();
        let client = visitor.command(&["echo in"]);
        client.expect_out("in\n");
        let took = started.elapsed().as_secs_f64();
        client.finish(PATIENCE).exits(0);
        took
    }

    /// Seconds from the start of `request review` to the first byte that the waiting command
    /// prints.
    pub(crate) fn approval_to_first_byte(&self, reviewer: &Master, path: Path) -> f64 {
        let alice = self.world.person("alice");
        let held = self.ssh(alice, path, "echo in").start();
        let id = request_id(&held.expect_err("Waiting for request approval..."));
        let started = Instant::now();
        let review = reviewer.command(&["request", "review", &id, "--approve"]);
        held.expect_out("in\n");
        let took = started.elapsed().as_secs_f64();
        review.finish(PATIENCE).exits(0);
        held.finish(PATIENCE).exits(0);
        // The next one must wait again.
        let ended = alice.access(&["request", "drop", "--end", &id]).run();
        ended.exits(0);
        took
    }

    // ---- memory

    /// KiB of the proxy's memory per session that runs a command which does nothing.
    pub(crate) fn idle_kib(&self, path: Path, sessions: usize) -> f64 {
        self.per_session(sessions, || self.idle_session(path))
    }

    /// KiB of the proxy's memory per session that waits for its approval, all for one request.
    pub(crate) fn held_kib(&self, path: Path, sessions: usize) -> f64 {
        let alice = self.world.person("alice");
        self.per_session(sessions, || {
            let command = self.ssh(alice, path, "true");
            (command, Ready::Err("Waiting for request approval..."))
        })
    }

    /// KiB of sshd's processes per session that it jumps for.
    pub(crate) fn idle_kib_of_sshd(&self, sessions: usize) -> f64 {
        let pid = self.jump.process_id();
        let running = start(sessions, || self.idle_session(Path::SshdJump));
        let memory = shared_memory_kib(&descendants(pid));
        drop(running);
        memory / float(sessions)
    }

    /// A session that ends with its client: `cat` reads its end.
    fn idle_session(&self, path: Path) -> (Cmd, Ready) {
        let command = self.carol(path, "echo in; exec cat").stdin_open();
        (command, Ready::Out("in\n"))
    }

    fn per_session(&self, sessions: usize, command: impl Fn() -> (Cmd, Ready)) -> f64 {
        let warm = start(WARM, &command);
        let before = self.settled_kib();
        let running = start(sessions, &command);
        let grown = self.settled_kib() - before;
        drop((warm, running));
        grown / float(sessions)
    }

    /// The proxy's resident memory once it has stopped changing.
    fn settled_kib(&self) -> f64 {
        let mut last = self.world.memory_kib();
        wait_until("the proxy's memory does not settle", || {
            thread::sleep(Duration::from_millis(500));
            let now = self.world.memory_kib();
            let steady = now.abs_diff(last) <= last / 1000;
            last = now;
            steady
        });
        last as f64
    }
}

/// A connection of OpenSSH's ControlMaster, over which commands need no login of their own.
pub(crate) struct Master {
    person: Person,
    target: String,
    socket: PathBuf,
    _connection: Proc,
}

impl Master {
    fn open(person: &Person, target: &str) -> Self {
        let socket = person.dir.join("m");
        let connection = person
            .client("ssh")
            .args(["-o", "ControlMaster=yes", "-N", "-S"])
            .arg(&socket)
            .arg(target)
            .start();
        wait_until("the connection is not made", || socket.exists());
        Self {
            person: person.clone(),
            target: target.to_owned(),
            socket,
            _connection: connection,
        }
    }

    fn command(&self, words: &[&str]) -> Proc {
        let ssh = self.person.client("ssh").arg("-S").arg(&self.socket);
        ssh.arg(&self.target).args(words).start()
    }
}

/// What a session says once it is what is to be measured, and where.
#[derive(Clone, Copy)]
enum Ready {
    Out(&'static str),
    Err(&'static str),
}

/// Starts so many sessions, a few at a time, and returns when all are ready.
fn start(count: usize, command: impl Fn() -> (Cmd, Ready)) -> Vec<Proc> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let few = AT_ONCE.min(count - all.len());
        let started: Vec<(Proc, Ready)> = (0..few)
            .map(|_| command())
            .map(|(command, ready)| (command.start(), ready))
            .collect();
        for (session, ready) in started {
            match ready {
                Ready::Out(text) => session.expect_out(text),
                Ready::Err(text) => session.expect_err(text),
            };
            all.push(session);
        }
    }
    all
}

/// Waits for what no event tells, looking every few milliseconds.
fn wait_until(otherwise: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{otherwise}");
        thread::sleep(Duration::from_millis(5));
    }
}
