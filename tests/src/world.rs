//! One private proxy with its nodes and people.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Cmd, Finished, HostProof, KeyType, Node, NodeConfig, PATIENCE, Person, Proc, anteroom,
    free_port,
};

/// The login that the tests use on the nodes: sshd can open it because the tests run as
/// it (as root it could open any).
pub fn login() -> String {
    nix::unistd::User::from_uid(nix::unistd::geteuid())
        .ok()
        .flatten()
        .expect("whoever runs the tests has a name")
        .name
}

/// Where proxies listen that nobody reaches from elsewhere.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// How long the client matrix is held before it is approved: `ANTEROOM_HOLD_SECONDS`, 30
/// by default.
pub fn hold_time() -> Duration {
    let seconds = env::var("ANTEROOM_HOLD_SECONDS").map_or(30, |text| {
        text.parse()
            .expect("ANTEROOM_HOLD_SECONDS is a number of seconds")
    });
    Duration::from_secs(seconds)
}

/// The request ID that a waiting client shows.
#[track_caller]
pub fn request_id(text: &str) -> String {
    let (_, rest) = text
        .split_once("Request ID:")
        .unwrap_or_else(|| panic!("no request ID in:\n{text}"));
    rest.split_whitespace()
        .next()
        .expect("something follows `Request ID:`")
        .to_owned()
}

/// How much more memory than at its start the proxy may hold when a case is over.
const MEMORY_SLACK_KIB: u64 = 64 * 1024;

/// What a world is to contain.
#[derive(Default)]
pub struct Builder {
    config: String,
    nodes: Vec<NodeConfig>,
    users: Vec<(String, String, KeyType)>,
    documents: String,
    listen: Option<IpAddr>,
    tmpfs: Option<String>,
}

impl Builder {
    /// With this `anteroom.yaml`.
    #[must_use]
    pub fn config(mut self, yaml: &str) -> Self {
        self.config.push_str(yaml);
        self.config.push('\n');
        self
    }

    /// With a proxy that listens there instead of on the loopback address.
    #[must_use]
    pub fn listen(mut self, address: IpAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// With this node.
    #[must_use]
    pub fn node(mut self, node: NodeConfig) -> Self {
        self.nodes.push(node);
        self
    }

    /// With a user of these roles (comma-separated), whose logins are [`login`] and `deploy`.
    #[must_use]
    pub fn user(self, name: &str, roles: &str) -> Self {
        self.user_with_key(name, roles, KeyType::Ed25519)
    }

    /// The same with a key of this type.
    #[must_use]
    pub fn user_with_key(mut self, name: &str, roles: &str, key: KeyType) -> Self {
        self.users.push((name.to_owned(), roles.to_owned(), key));
        self
    }

    /// With these documents (roles), created before the users.
    #[must_use]
    pub fn documents(mut self, yaml: &str) -> Self {
        if !self.documents.is_empty() {
            self.documents.push_str("\n---\n");
        }
        self.documents.push_str(yaml);
        self
    }

    /// With the data directory on a file system of this size (as in `8m`) that the proxy has for
    /// itself. Only root can have one.
    #[must_use]
    pub fn data_on_tmpfs(mut self, size: &str) -> Self {
        self.tmpfs = Some(size.to_owned());
        self
    }

    /// Starts everything.
    pub fn start(self) -> World {
        let dir = tempfile::Builder::new().prefix("ar").tempdir().unwrap();
        let listen = self.listen.unwrap_or(LOOPBACK);
        let mut world = World::in_dir(dir, &self.config, self.tmpfs, listen);
        world.write_known_hosts();
        if !self.documents.is_empty() {
            world.create(&self.documents).exits(0);
        }
        for node in self.nodes {
            world.add_node(node);
        }
        for (name, roles, key) in self.users {
            world.add_user(&name, &roles, key);
        }
        world.memory_at_start = world.memory_kib();
        world
    }
}

/// A proxy, its nodes, its people. What holds after every case is checked when it is
/// dropped.
pub struct World {
    /// The port the proxy listens on, on the loopback address.
    pub port: u16,
    proxy: Option<Proc>,
    nodes: BTreeMap<String, Node>,
    people: BTreeMap<String, Person>,
    config: Option<PathBuf>,
    /// The size of the file system that the proxy mounts for its data.
    tmpfs: Option<String>,
    json_log: bool,
    environment: BTreeMap<String, String>,
    listen: IpAddr,
    memory_at_start: u64,
    /// Everything is in here; the path is short enough for sockets. Last, so that it goes
    /// after those who use it.
    dir: TempDir,
}

impl World {
    /// The cluster's name.
    pub const CLUSTER: &'static str = "example.com";

    /// An empty one to add to.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The usual one: nodes `iot` and `n2`; alice may ask, bob may review, carol may enter.
    pub fn usual() -> Self {
        Self::with_nodes().user("carol", "access").start()
    }

    /// The usual one to add to, without carol.
    pub fn with_nodes() -> Builder {
        Self::builder()
            .node(NodeConfig::new("iot").labels("env=staging"))
            .node(NodeConfig::new("n2").labels("env=prod"))
            .user("alice", "requester")
            .user("bob", "reviewer")
    }

    /// A proxy that knows nobody. `config` is its `anteroom.yaml`, none if empty.
    pub fn bare(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ar").tempdir().unwrap();
        Self::in_dir(dir, config, None, LOOPBACK)
    }

    /// A proxy on the data directory that is `data` in this one, made by somebody else.
    pub fn on(dir: TempDir) -> Self {
        Self::in_dir(dir, "", None, LOOPBACK)
    }

    fn in_dir(dir: TempDir, config: &str, tmpfs: Option<String>, listen: IpAddr) -> Self {
        // The login of a node need not be the owner: what git and rsync serve lies below.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let config = (!config.is_empty()).then(|| {
            let file = dir.path().join("anteroom.yaml");
            fs::write(&file, config).unwrap();
            file
        });
        let mut world = Self {
            dir,
            port: 0,
            proxy: None,
            nodes: BTreeMap::new(),
            people: BTreeMap::new(),
            config,
            tmpfs,
            json_log: false,
            environment: BTreeMap::new(),
            listen,
            memory_at_start: 0,
        };
        world.start_proxy();
        world.memory_at_start = world.memory_kib();
        world
    }

    /// The world's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path in the world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The proxy's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.path("data")
    }

    /// The same command where the data directory is seen as the proxy sees it.
    #[must_use]
    pub fn beside_the_proxy(&self, cmd: Cmd) -> Cmd {
        match (&self.tmpfs, &self.proxy) {
            (Some(_), Some(proxy)) => {
                let id = proxy.id().to_string();
                cmd.under(["nsenter", "--mount", "--target", &id])
            }
            (Some(_) | None, _) => cmd,
        }
    }

    // ---- the proxy

    /// Has this variable in the proxy's environment from its next start on; none if empty.
    pub fn set_env(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.environment.remove(name);
        } else {
            self.environment.insert(name.to_owned(), value.to_owned());
        }
    }

    /// Has the log written as JSON from the next start on.
    pub fn log_as_json(&mut self) {
        self.json_log = true;
    }

    /// Writes this `anteroom.yaml` for the next start; none if empty.
    pub fn set_config(&mut self, yaml: &str) {
        let file = self.path("anteroom.yaml");
        fs::write(&file, yaml).unwrap();
        self.config = (!yaml.is_empty()).then_some(file);
    }

    /// `anteroom serve` for this world's data directory, listening on `port`.
    pub fn serve(&self, port: u16) -> Cmd {
        let mut cmd = Cmd::new(anteroom())
            .args(["serve", "--cluster", Self::CLUSTER, "--listen"])
            .arg(SocketAddr::new(self.listen, port).to_string())
            .arg("--data-dir")
            .arg(self.data_dir());
        if let Some(config) = &self.config {
            cmd = cmd.arg("--config").arg(config);
        }
        for (name, value) in &self.environment {
            cmd = cmd.env(name, value);
        }
        if self.json_log {
            cmd = cmd.args(["--log-format", "json"]);
        }
        let Some(size) = &self.tmpfs else { return cmd };
        let mount = format!(
            "mkdir -p \"$0\" && mount -t tmpfs -o mode=0700,size={size} none \"$0\" && exec \"$@\""
        );
        let data = self.data_dir().display().to_string();
        cmd.under(["unshare", "--mount", "sh", "-c", &mount, &data])
    }

    /// Starts the proxy, on the port it had before if it had one.
    pub fn start_proxy(&mut self) {
        let proxy = self.serve(self.port).start();
        // On which of the two streams the line comes is not promised.
        let until = Instant::now() + PATIENCE;
        let line = loop {
            let text = proxy.out.text() + &proxy.err.text();
            if let Some((_, rest)) = text.split_once("anteroom: listening on ")
                && let Some((address, _)) = rest.split_once('\n')
            {
                break address.to_owned();
            }
            assert!(
                proxy.is_running() && Instant::now() < until,
                "the proxy does not start:\n{text}"
            );
            thread::sleep(Duration::from_millis(10));
        };
        let (_, port) = line.trim().rsplit_once(':').expect("ADDR:PORT");
        self.port = port.parse().expect("a port");
        self.proxy = Some(proxy);
    }

    /// The running proxy.
    pub fn proxy(&self) -> &Proc {
        self.proxy.as_ref().expect("the proxy runs")
    }

    /// Kills the proxy as `kill -9` does.
    pub fn kill_proxy(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            proxy.signal(Signal::SIGKILL);
            drop(proxy);
        }
    }

    /// Asks the proxy to end and returns how it did.
    pub fn stop_proxy(&mut self) -> Finished {
        let proxy = self.proxy.take().expect("the proxy runs");
        proxy.signal(Signal::SIGTERM);
        proxy.finish(PATIENCE)
    }

    /// What the proxy has logged.
    pub fn proxy_log(&self) -> String {
        self.proxy
            .as_ref()
            .map(|proxy| proxy.out.text() + &proxy.err.text())
            .unwrap_or_default()
    }

    /// The proxy's resident memory now, in KiB.
    pub fn memory_kib(&self) -> u64 {
        self.memory_of("VmRSS:")
    }

    /// The most resident memory the proxy ever had, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        self.memory_of("VmHWM:")
    }

    fn memory_of(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.proxy().id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .expect("the kernel says how much memory a process has")
    }

    // ---- administration

    /// `anteroom ctl WORDS`, not started yet.
    pub fn ctl_cmd(&self, words: &[&str]) -> Cmd {
        let ctl = Cmd::new(anteroom())
            .args(["ctl", "--data-dir"])
            .arg(self.data_dir())
            .args(words);
        self.beside_the_proxy(ctl)
    }

    /// `anteroom ctl WORDS`, run to its end.
    pub fn ctl(&self, words: &[&str]) -> Finished {
        self.ctl_cmd(words).run()
    }

    /// `anteroom ctl create -f -` with these documents.
    pub fn create(&self, yaml: &str) -> Finished {
        self.ctl_cmd(&["create", "-f", "-"]).stdin(yaml).run()
    }

    /// `anteroom ctl create --force -f -`: replaces what is there.
    pub fn replace(&self, yaml: &str) -> Finished {
        self.ctl_cmd(&["create", "--force", "-f", "-"])
            .stdin(yaml)
            .run()
    }

    /// Every access request, newest first.
    #[track_caller]
    pub fn requests(&self) -> Vec<Value> {
        let listed = self.ctl(&["request", "ls", "--format", "json"]);
        listed.exits(0);
        listed.json().as_array().expect("an array").clone()
    }

    /// One access request as `request show` prints it.
    #[track_caller]
    pub fn request(&self, id: &str) -> Value {
        self.requests()
            .into_iter()
            .find(|request| request["id"] == id)
            .unwrap_or_else(|| panic!("no request {id}"))
    }

    /// The state of a request, one word.
    #[track_caller]
    pub fn state(&self, id: &str) -> String {
        self.request(id)["state"]
            .as_str()
            .expect("a state is a word")
            .to_owned()
    }

    /// Every audit entry, oldest first.
    #[track_caller]
    pub fn audit(&self) -> Vec<Value> {
        let listed = self.ctl(&["audit", "ls", "--format", "json"]);
        listed.exits(0);
        listed.json().as_array().expect("an array").clone()
    }

    /// The audit entries of this event, oldest first.
    #[track_caller]
    pub fn events(&self, event: &str) -> Vec<Value> {
        self.audit()
            .into_iter()
            .filter(|entry| entry["event"] == event)
            .collect()
    }

    // ---- people

    /// Registers somebody with a new key.
    pub fn add_user(&mut self, name: &str, roles: &str, key: KeyType) -> Person {
        let person = self.stranger(name, key);
        let logins = format!("{},deploy", login());
        self.ctl_cmd(&[
            "users", "add", name, "--roles", roles, "--logins", &logins, "--key",
        ])
        .arg(person.public_key())
        .run()
        .exits(0);
        person
    }

    /// Somebody with a key that the proxy doesn't know.
    pub fn stranger(&mut self, name: &str, key: KeyType) -> Person {
        let person = Person::new(name, self.path(name), key);
        // Who listens on every address is reached on the loopback one.
        let address = match self.listen.is_unspecified() {
            true => LOOPBACK,
            false => self.listen,
        };
        person.configure(
            SocketAddr::new(address, self.port),
            Self::CLUSTER,
            &self.known_hosts(),
        );
        self.people.insert(name.to_owned(), person.clone());
        person
    }

    /// Somebody of this name.
    pub fn person(&self, name: &str) -> &Person {
        self.people
            .get(name)
            .unwrap_or_else(|| panic!("nobody is called {name} here"))
    }

    /// The `known_hosts` that everybody uses: what `auth export --type host` prints.
    pub fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// Writes what `auth export --type host` prints into [`World::known_hosts`].
    pub fn write_known_hosts(&self) {
        let exported = self.ctl(&["auth", "export", "--type", "host"]);
        exported.exits(0);
        fs::write(self.known_hosts(), &exported.stdout).unwrap();
    }

    /// Bob approves over SSH.
    #[track_caller]
    pub fn approve(&self, id: &str) {
        self.review(id, &["--approve"])
            .exits(0)
            .prints_part("Successfully submitted review. Request state: APPROVED");
    }

    /// Bob denies over SSH.
    #[track_caller]
    pub fn deny(&self, id: &str, reason: &str) {
        let reason = format!("--reason='{reason}'");
        self.review(id, &["--deny", &reason])
            .exits(0)
            .prints_part("Successfully submitted review. Request state: DENIED");
    }

    /// Bob reviews over SSH.
    pub fn review(&self, id: &str, options: &[&str]) -> Finished {
        let mut words = vec!["request", "review", id];
        words.extend(options);
        self.person("bob").access(&words).run()
    }

    /// Alice asks for `LOGIN` on `node` and bob approves: returns the request's ID.
    #[track_caller]
    pub fn granted(&self, node: &str) -> String {
        self.granted_for(node, &[])
    }

    /// The same with more options for `request create`.
    #[track_caller]
    pub fn granted_for(&self, node: &str, options: &[&str]) -> String {
        let resource = format!("{}?logins={}", self.node(node).resource_id, login());
        let mut words = vec![
            "request",
            "create",
            "--nowait",
            "--reason=work",
            "--resource",
        ];
        words.push(&resource);
        words.extend(options);
        let created = self.person("alice").access(&words).run();
        let id = request_id(&(created.text() + &created.stderr));
        self.approve(&id);
        id
    }

    // ---- nodes

    /// Registers and starts a node.
    pub fn add_node(&mut self, config: NodeConfig) -> &Node {
        let mut node = Node::new(&config.name, self.path(&config.name), free_port());
        let NodeConfig {
            labels, host_proof, ..
        } = &config;
        let mut words = vec!["nodes".to_owned(), "add".to_owned(), config.name.clone()];
        node.namespace = config.namespace.clone();
        let address = match config.by_tunnel {
            true => "tunnel".to_owned(),
            false => node.address(),
        };
        words.extend(["--addr".to_owned(), address]);
        if !labels.is_empty() {
            words.extend(["--labels".to_owned(), labels.clone()]);
        }
        match *host_proof {
            HostProof::Pinned(key_type) => {
                let public = node.host_key(key_type).with_extension("pub");
                words.extend(["--host-key".to_owned(), public.display().to_string()]);
            }
            HostProof::HostCa => {
                node.host_key(KeyType::Ed25519);
                words.push("--host-ca".to_owned());
            }
            HostProof::Scanned => {
                node.host_key(KeyType::Ed25519);
                // What is scanned must be there before our lines can be.
                node.start(&config.config, "");
                words.push("--scan".to_owned());
            }
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let added = self.ctl(&words);
        added.exits(0);
        let (uuid, resource_id) = node_ids(&added.text());
        node.uuid = uuid;
        node.resource_id = resource_id;
        if host_proof == &HostProof::HostCa {
            self.issue_host_certificate(&config.name, &node.host_key(KeyType::Ed25519), &[]);
        }
        node.start(&config.config, &self.sshd_config(&config.name));
        self.nodes.insert(config.name.clone(), node);
        self.node(&config.name)
    }

    /// Starts a stock sshd that the proxy knows nothing of, with these lines in its
    /// configuration: to compare with.
    pub fn plain_sshd(&self, name: &str, lines: &str) -> Node {
        let mut node = Node::new(name, self.path(name), free_port());
        node.host_key(KeyType::Ed25519);
        node.start(lines, "");
        node
    }

    /// Has Anteroom certify a node's key and puts the certificate beside it, for the node's next start.
    pub fn issue_host_certificate(&self, node: &str, key: &Path, options: &[&str]) -> Finished {
        let public = key.with_extension("pub");
        let issued = self
            .ctl_cmd(&["nodes", "host-cert", node, "--key"])
            .arg(&public)
            .args(options)
            .run();
        issued.exits(0);
        let name = key.file_name().unwrap().to_string_lossy();
        fs::write(
            key.with_file_name(format!("{name}-cert.pub")),
            &issued.stdout,
        )
        .unwrap();
        issued
    }

    /// Gives a node a host certificate for its next start that nobody issued, naming `principal`.
    pub fn certify_host(&self, node: &str, principal: &str) {
        self.sign_host_key(&self.node(node).host_key(KeyType::Ed25519), principal);
    }

    /// Signs a host key as an operator does by hand: the CA key is an OpenSSH file.
    fn sign_host_key(&self, key: &Path, principal: &str) {
        Cmd::new("ssh-keygen")
            .args([
                "-q", "-h", "-I", "node", "-V", "-1m:+1h", "-n", principal, "-s",
            ])
            .arg(self.data_dir().join("ca/host"))
            .arg(key.with_extension("pub"))
            .run()
            .exits(0);
    }

    /// The lines of `nodes sshd-config NAME`, with the CA file where this world keeps it.
    pub fn sshd_config(&self, name: &str) -> String {
        let ca = self.path("node_ca.pub");
        let exported = self.ctl(&["auth", "export", "--type", "node"]);
        exported.exits(0);
        fs::write(&ca, &exported.stdout).unwrap();
        let printed = self.ctl(&["nodes", "sshd-config", name]);
        printed.exits(0);
        let mut lines = String::new();
        for line in printed.text().lines() {
            if line.starts_with("TrustedUserCAKeys ") {
                lines.push_str(&format!("TrustedUserCAKeys {}\n", ca.display()));
            } else {
                lines.push_str(line);
                lines.push('\n');
            }
        }
        assert!(
            lines.contains("TrustedUserCAKeys"),
            "no CA line in {printed}"
        );
        lines
    }

    /// What the unit of `nodes tunnel-unit NAME` starts, with the host key that the node has here.
    pub fn tunnel(&self, name: &str) -> Cmd {
        let node = self.node(name);
        let port = node.port.to_string();
        let unit = self.ctl(&["nodes", "tunnel-unit", name, "--sshd-port", &port]);
        unit.exits(0);
        let unit = unit.text().replace("\\\n", " ");
        let line = unit
            .lines()
            .find_map(|line| line.strip_prefix("ExecStart="))
            .expect("a unit starts something");
        // As systemd reads it: words in double quotes, and `%%`.
        let mut words: Vec<String> = Vec::new();
        for (place, part) in line.split('"').enumerate() {
            match place % 2 {
                0 => words.extend(part.split_whitespace().map(|word| word.replace("%%", "%"))),
                _ => words.push(part.replace("%%", "%")),
            }
        }
        let key = node.host_key(KeyType::Ed25519).display().to_string();
        let named = words.iter().position(|word| word == "-i").expect("a key");
        words[named + 1] = key;
        let (program, words) = words.split_first().expect("a program");
        node.here(program).args(words)
    }

    /// Starts it, and waits until the proxy routes to the node.
    #[track_caller]
    pub fn open_tunnel(&self, name: &str) -> Proc {
        let tunnel = self.tunnel(name).start();
        let until = Instant::now() + PATIENCE;
        while !self.is_connected(name) {
            assert!(
                tunnel.is_running() && Instant::now() < until,
                "no tunnel: {}",
                tunnel.err.text()
            );
            thread::sleep(Duration::from_millis(20));
        }
        tunnel
    }

    /// Whether the node has a tunnel.
    #[track_caller]
    pub fn is_connected(&self, name: &str) -> bool {
        let shown = self.ctl(&["nodes", "show", name, "--format", "json"]);
        shown.exits(0);
        shown.json()["tunnel"]["connected"] == true
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .get(name)
            .unwrap_or_else(|| panic!("no node is called {name} here"))
    }

    /// A node by its name, to stop or start it.
    pub fn node_mut(&mut self, name: &str) -> &mut Node {
        self.nodes
            .get_mut(name)
            .unwrap_or_else(|| panic!("no node is called {name} here"))
    }

    /// Counts what the proxy holds now as its start, for a case that has filled it: what it holds
    /// at the end is compared with that.
    pub fn start_counting_memory(&mut self) {
        self.memory_at_start = self.memory_kib();
    }

    // ---- the end

    /// What must hold after every case (SECURITY section 8).
    fn check(&self) {
        let Some(proxy) = &self.proxy else {
            // A case that ended the proxy itself has said so.
            return;
        };
        assert!(
            proxy.is_running(),
            "the proxy died during the case:\n{}",
            self.proxy_log()
        );
        self.ctl(&["audit", "verify"]).exits(0);
        let log = self.proxy_log();
        assert!(!log.contains("panicked at"), "a session panicked:\n{log}");
        // Sessions that have just ended free their memory a moment later.
        let limit = self.memory_at_start + MEMORY_SLACK_KIB;
        let until = Instant::now() + Duration::from_secs(10);
        while self.memory_kib() > limit && Instant::now() < until {
            thread::sleep(Duration::from_millis(100));
        }
        let now = self.memory_kib();
        assert!(
            now <= limit,
            "the proxy holds {now} KiB, at its start it was {limit} less 64 MiB"
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("---- the proxy's log\n{}", tail(&self.proxy_log()));
            for (name, node) in &self.nodes {
                eprintln!("---- the log of {name}\n{}", tail(&node.log()));
            }
        } else {
            self.check();
        }
    }
}

/// The end of a log: what a failure is about is rarely further up.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// Reads what `nodes add` prints: the UUID and the resource ID.
fn node_ids(printed: &str) -> (String, String) {
    let resource_id = printed
        .split_whitespace()
        .find(|word| word.contains("/node/"))
        .unwrap_or_else(|| panic!("no resource ID in:\n{printed}"))
        .to_owned();
    let (_, uuid) = resource_id.rsplit_once('/').expect("it has slashes");
    (uuid.to_owned(), resource_id)
}
