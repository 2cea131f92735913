//! A node with both servers, a stock sshd and the agent, in a mount namespace of their own: the same
//! accounts, the same certificates, the same clients. Nothing of it touches the machine's own accounts.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "test support: each test file uses a part of it, and fails by panicking"
)]

use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use ssh_key::certificate::{Builder, CertType};
use ssh_key::{Algorithm, LineEnding, PrivateKey};
use tempfile::TempDir;

pub const NODE: &str = "b1168402-9340-421a-a344-af66a6675738";

/// No step of a test takes longer than this, or it has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Accounts of the node: name, uid, password field, day of expiry, home, shell. `~` is the folder of homes.
const ACCOUNTS: [(&str, u32, &str, &str, &str, &str); 9] = [
    ("dev", 4242, "*", "", "~/dev", "/bin/bash"),
    ("plain", 4243, "x", "", "~/plain", ""),
    ("locked", 4244, "!*", "", "~/dev", "/bin/bash"),
    ("expired", 4245, "*", "1", "~/dev", "/bin/bash"),
    ("homeless", 4246, "*", "", "~/nowhere", "/bin/bash"),
    ("shellless", 4247, "*", "", "~/dev", "/no/such/shell"),
    ("textual", 4248, "*", "", "~/dev", "/etc/passwd"),
    ("barred", 4249, "*", "", "~/dev", "/usr/sbin/nologin"),
    ("quiet", 4250, "*", "", "~/quiet", "/bin/bash"),
];

/// A server of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Sshd,
    Agent,
}

pub struct Node {
    dir: TempDir,
    servers: Child,
    pub sshd_port: u16,
    pub agent_port: u16,
    ca: PrivateKey,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both servers: the namespace's first process ends with this, and takes the others along.
        let _ = self.servers.kill();
        let _ = self.servers.wait();
    }
}

/// Whether this can be tested here: accounts and users need root.
pub fn is_possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    root || skipped("switching users and a namespace of one's own need root")
}

/// Whether a client can be a script for asyncssh.
pub fn has_asyncssh() -> bool {
    let there = Command::new("/usr/bin/python3")
        .args(["-W", "ignore", "-c", "import asyncssh"])
        .output();
    there.is_ok_and(|there| there.status.success())
        || skipped("there is no asyncssh: apt-get install python3-asyncssh")
}

/// Whether Ansible is there.
pub fn has_ansible() -> bool {
    let there = Command::new("ansible").arg("--version").output();
    there.is_ok_and(|there| there.status.success())
        || skipped("there is no Ansible: apt-get install ansible-core")
}

/// Says that a test is skipped, and why; `false`. Where `ANTEROOM_MUST` is set, as in `.ci/run`, that fails: what
/// isn't run isn't shown.
#[track_caller]
fn skipped(why: &str) -> bool {
    assert!(
        std::env::var_os("ANTEROOM_MUST").is_none_or(|must| must.is_empty()),
        "this test must not be skipped here: {why}"
    );
    // Not by a macro: what those write is kept back when a test passes.
    let test = std::thread::current();
    let test = test.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "{test} is skipped: {why}");
    false
}

/// Waits for what comes by itself.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LIMIT, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// What a client said that went well.
#[track_caller]
pub fn stdout_of(said: Said) -> String {
    assert_eq!(said.status, Some(0), "{said:?}");
    said.stdout
}

/// A program that stays until this is dropped.
pub struct Background(pub Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that stays.
pub fn background(command: &mut Command) -> Background {
    let child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Background(child.spawn().unwrap())
}

/// The one node of a test program, for tests that leave it as it is.
pub fn shared() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(Node::new)
}

impl Node {
    pub fn new() -> Node {
        Node::with(&[])
    }

    /// With variables in the servers' environment.
    pub fn with(variables: &[(&str, &str)]) -> Node {
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["host_key", "ca", "id", "stranger"] {
            let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
            key.write_openssh_file(at(name).as_path(), LineEnding::LF)
                .unwrap();
            let line = key.public_key().to_openssh().unwrap();
            fs::write(at(&format!("{name}.pub")), format!("{line}\n")).unwrap();
        }
        fs::copy(at("ca.pub"), at("node_ca.pub")).unwrap();
        fs::write(at("node_id"), NODE).unwrap();
        done(
            Command::new("ssh-keygen")
                .args(["-q", "-k", "-f"])
                .arg(at("krl")),
        );
        let host = fs::read_to_string(at("host_key.pub")).unwrap();
        fs::write(at("known_hosts"), format!("* {host}")).unwrap();
        make_etc(dir.path());
        let sshd_port = free_port();
        fs::write(at("sshd_config"), sshd_config(dir.path(), sshd_port)).unwrap();
        fs::write(at("start"), START).unwrap();
        let mut servers = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-eu"])
            .arg(at("start"))
            .arg(dir.path())
            .arg(env!("CARGO_BIN_EXE_agent-on-loopback"))
            .env("LANG", "C.UTF-8")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(servers.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let log = || fs::read_to_string(at("log")).unwrap();
        let agent_port = line.trim().parse().unwrap_or_else(|_| panic!("{}", log()));
        wait_for_port(sshd_port);
        let ca = PrivateKey::read_openssh_file(at("ca")).unwrap();
        Node {
            dir,
            servers,
            sshd_port,
            agent_port,
            ca,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Asks the agent to end; its number is that in its own namespace.
    pub fn stop_agent(&self) {
        let script = "kill -TERM $(cat \"$0\")";
        let mut kill = Command::new("nsenter");
        kill.args([
            "--mount",
            "--pid",
            "--target",
            &self.first(),
            "sh",
            "-c",
            script,
        ]);
        done(kill.arg(self.path("agent.pid")));
    }

    /// The first process of the node: its namespaces are the node's.
    fn first(&self) -> String {
        let pid = self.servers.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        children.trim().to_owned()
    }

    /// The node's processes that were started to become a user, and are no program of his.
    pub fn helpers(&self) -> Vec<PathBuf> {
        let space = |process: &Path| fs::read_link(process.join("ns/pid")).ok();
        let own = space(&Path::new("/proc").join(self.first()));
        assert!(own.is_some());
        let is_helper = |process: &PathBuf| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            line == b"/proc/self/exe\0helper\0" && space(process) == own
        };
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.map(|entry| entry.path()).filter(is_helper).collect()
    }

    pub fn port(&self, which: Which) -> u16 {
        match which {
            Which::Sshd => self.sshd_port,
            Which::Agent => self.agent_port,
        }
    }

    /// A certificate for `login`, written to a file of its own.
    pub fn certificate(&self, login: &str, change: &Change) -> PathBuf {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap().as_secs();
        let subject = PrivateKey::read_openssh_file(self.path("id")).unwrap();
        let (from, until) = match change.expired {
            true => (now - 120, now - 1),
            false => (now - 60, now + 300),
        };
        let subject = subject.public_key().key_data().clone();
        let mut builder =
            Builder::new_with_random_nonce(&mut rand::rng(), subject, from, until).unwrap();
        builder
            .cert_type(CertType::User)
            .unwrap()
            .serial(7)
            .unwrap();
        builder.key_id("alice req=1 sess=2").unwrap();
        let principal = change.principal.clone();
        let principal = principal.unwrap_or_else(|| format!("{login}@{NODE}"));
        builder.valid_principal(principal).unwrap();
        if let Some(command) = &change.force {
            builder.critical_option("force-command", command).unwrap();
        }
        builder
            .critical_option("source-address", change.source)
            .unwrap();
        for name in [
            "X11-forwarding",
            "agent-forwarding",
            "port-forwarding",
            "pty",
        ] {
            if !change.without.contains(&name) {
                builder.extension(format!("permit-{name}"), "").unwrap();
            }
        }
        let ca = match change.stranger {
            true => PrivateKey::read_openssh_file(self.path("stranger")).unwrap(),
            false => self.ca.clone(),
        };
        let line = builder.sign(&ca).unwrap().to_openssh().unwrap();
        let file = tempfile::Builder::new()
            .suffix("-cert.pub")
            .tempfile_in(self.dir.path());
        let (mut file, path) = file.unwrap().keep().unwrap();
        writeln!(file, "{line}").unwrap();
        path
    }

    /// Options of `ssh`, `scp` and `sftp` alike, for one of the servers and a certificate.
    pub fn options(&self, which: Which, certificate: &Path) -> Vec<String> {
        let mut options: Vec<String> = ["-F", "none"].map(str::to_owned).into();
        let mut add = |name: &str, value: String| options.push(format!("-o{name}={value}"));
        add("Port", self.port(which).to_string());
        add("IdentityFile", self.path("id").display().to_string());
        add("CertificateFile", certificate.display().to_string());
        add(
            "UserKnownHostsFile",
            self.path("known_hosts").display().to_string(),
        );
        for (name, value) in [
            ("GlobalKnownHostsFile", "none"),
            ("IdentitiesOnly", "yes"),
            ("IdentityAgent", "SSH_AUTH_SOCK"),
            ("BatchMode", "yes"),
            ("StrictHostKeyChecking", "yes"),
            ("UpdateHostKeys", "no"),
            ("ConnectTimeout", "20"),
        ] {
            add(name, value.to_owned());
        }
        options
    }

    /// `ssh` as `login`, which is killed when it takes too long.
    pub fn ssh(&self, which: Which, login: &str) -> Command {
        self.ssh_with(which, login, &Change::default())
    }

    pub fn ssh_with(&self, which: Which, login: &str, change: &Change) -> Command {
        let certificate = self.certificate(login, change);
        let mut ssh = Command::new("timeout");
        ssh.args(["-k", "5", "60", "ssh"]);
        ssh.args(self.options(which, &certificate));
        ssh.env_remove("SSH_AUTH_SOCK")
            .env("TERM", "xterm-256color")
            .env("DISPLAY", ":99");
        ssh.args(["-l", login, "127.0.0.1"]);
        ssh
    }
}

/// What is different about a certificate.
#[derive(Clone)]
pub struct Change {
    pub principal: Option<String>,
    pub force: Option<String>,
    pub without: &'static [&'static str],
    pub source: &'static str,
    pub expired: bool,
    pub stranger: bool,
}

impl Default for Change {
    fn default() -> Self {
        Change {
            principal: None,
            force: None,
            without: &[],
            source: "127.0.0.1/32,::1/128",
            expired: false,
            stranger: false,
        }
    }
}

/// Own accounts, logs and `/run`; `/etc` in the namespace is the folder `etc`, which tests can change.
const START: &str = r#"
dir=$1 agent=$2
mount --make-rprivate /
mount --bind "$dir/etc" /etc
mount --bind "$dir/run" /run
mount --bind "$dir/log.d" /var/log
# What a careless parent leaves open, for whatever is started from here on.
exec 7<"$dir/ca"
/usr/sbin/sshd -D -E "$dir/sshd.log" -f "$dir/sshd_config" &
"$agent" serve "$dir" &
echo $! >"$dir/agent.pid"
# The first process stays when the agent ends, and ends when it is told to.
wait
"#;

fn sshd_config(dir: &Path, port: u16) -> String {
    format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host_key\nPidFile none\nUsePAM no\n\
         TrustedUserCAKeys {0}/node_ca.pub\nAuthorizedPrincipalsCommand /bin/echo %u@{NODE}\n\
         AuthorizedPrincipalsCommandUser nobody\nAuthorizedKeysFile none\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\n\
         PerSourceMaxStartups none\nAcceptEnv LANG LC_* COLORTERM NO_COLOR\n\
         Subsystem sftp /usr/lib/openssh/sftp-server\n",
        dir.display()
    )
}

/// A copy of `/etc` with accounts of its own.
fn make_etc(dir: &Path) {
    let at = |name: &str| dir.join(name);
    done(Command::new("cp").args(["-a", "/etc"]).arg(at("etc")));
    let _ = fs::remove_file(at("etc/nologin"));
    fs::write(at("etc/motd"), "Welcome to the test.\n").unwrap();
    let (mut passwd, mut shadow) = (String::new(), String::new());
    for (name, uid, password, expires, home, shell) in ACCOUNTS {
        let home = home.replace('~', &at("home").display().to_string());
        passwd += &format!("{name}:x:{uid}:{uid}:,,,:{home}:{shell}\n");
        shadow += &format!("{name}:{password}:19000:0:99999:7::{expires}:\n");
        if home.ends_with(name) {
            fs::create_dir_all(&home).unwrap();
            chown(&home, Some(uid), Some(uid)).unwrap();
        }
    }
    fs::write(at("home/quiet/.hushlogin"), "").unwrap();
    let groups: String = ACCOUNTS
        .iter()
        .map(|(name, uid, ..)| format!("{name}:x:{uid}:\n"))
        .collect();
    // Root's own files say how root's shell behaves; here he has none.
    fs::create_dir_all(at("home/root")).unwrap();
    let known = fs::read_to_string(at("etc/passwd")).unwrap();
    let root = format!(":{}:", at("home/root").display());
    fs::write(at("etc/passwd"), known.replace(":/root:", &root)).unwrap();
    append(&at("etc/passwd"), &passwd);
    append(&at("etc/shadow"), &shadow);
    append(
        &at("etc/group"),
        &(groups + "builders:x:4300:dev,plain\nidle:x:4301:\n"),
    );
    fs::create_dir_all(at("run/sshd")).unwrap();
    fs::create_dir_all(at("log.d")).unwrap();
    for name in ["run/utmp", "log.d/wtmp", "log.d/lastlog"] {
        fs::write(at(name), "").unwrap();
    }
}

fn append(path: &Path, text: &str) {
    let mut file = File::options().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn done(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn wait_for_port(port: u16) {
    let start = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < LIMIT, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The agent's program, where users without privileges may run it.
pub fn copy_of_agent(dir: &Path) -> PathBuf {
    let copy = dir.join("agent");
    fs::copy(env!("CARGO_BIN_EXE_agent-on-loopback"), &copy).unwrap();
    copy
}

/// What a client said, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a client with `input` on its standard input, which ends after it.
pub fn fed(command: &mut Command, input: &[u8]) -> Said {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output.into()
}

/// Runs a client on a terminal of its own: `lines` is a list of what to wait for and what to type then.
pub fn on_terminal(command: &mut Command, setup: &str, lines: &[(&str, &str)]) -> Said {
    let pty = nix::pty::openpty(None, None).unwrap();
    let slave = File::from(pty.slave);
    let stty = Command::new("sh")
        .args(["-c", &format!("stty {setup}")])
        .stdin(slave.try_clone().unwrap())
        .status();
    assert!(stty.unwrap().success());
    let mut child = command
        .stdin(slave)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut typist = File::from(pty.master);
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    let mut lines = lines.iter().peekable();
    loop {
        while let Some((wanted, typed)) = lines.peek() {
            let text = String::from_utf8_lossy(&seen);
            if !text.contains(wanted) {
                break;
            }
            typist.write_all(typed.as_bytes()).unwrap();
            lines.next();
        }
        match stdout.read(&mut piece).unwrap() {
            0 => break,
            length => seen.extend(&piece[..length]),
        }
    }
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    Said {
        status: child.wait().unwrap().code(),
        stdout: String::from_utf8_lossy(&seen).into_owned(),
        stderr,
    }
}
