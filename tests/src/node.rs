//! A stock `sshd` on a port of its own, enrolled as an operator would enrol it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::{Cmd, KeyType, PATIENCE, Proc, login, need};

/// How the proxy is told to recognise the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HostProof {
    /// `nodes add --host-key FILE`.
    Pinned(KeyType),
    /// `nodes add --host-ca`: a host certificate for the node's UUID.
    HostCa,
    /// `nodes add --scan`: what the node shows at that moment is pinned.
    Scanned,
}

/// A node to start, with what makes it differ from the usual one.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name at the proxy.
    pub name: String,
    /// `k=v,…`; none if empty.
    pub labels: String,
    /// How it is recognised.
    pub host_proof: HostProof,
    /// More lines for its `sshd_config`, before the usual ones (the first one counts).
    pub config: String,
    /// Whether it is registered as one that connects by itself.
    pub by_tunnel: bool,
    /// The network namespace that it runs in; the test's own if `None`.
    pub namespace: Option<String>,
}

impl NodeConfig {
    /// A node called `name` without labels, its ed25519 key pinned.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: String::new(),
            host_proof: HostProof::Pinned(KeyType::Ed25519),
            config: String::new(),
            by_tunnel: false,
            namespace: None,
        }
    }

    /// One that connects by itself.
    #[must_use]
    pub fn by_tunnel(mut self) -> Self {
        self.by_tunnel = true;
        self
    }

    /// One in that network namespace.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        self.namespace = Some(name.to_owned());
        self
    }

    /// With these labels.
    #[must_use]
    pub fn labels(mut self, labels: &str) -> Self {
        self.labels = labels.to_owned();
        self
    }

    /// Recognised like this.
    #[must_use]
    pub fn host_proof(mut self, proof: HostProof) -> Self {
        self.host_proof = proof;
        self
    }

    /// With these lines first in its `sshd_config`.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }
}

/// A running node.
pub struct Node {
    /// Its name at the proxy.
    pub name: String,
    /// Its UUID, as `nodes add` printed it.
    pub uuid: String,
    /// Its resource ID, as `nodes add` printed it.
    pub resource_id: String,
    /// Where its sshd listens, on the loopback address.
    pub port: u16,
    /// Its own folder.
    pub dir: PathBuf,
    /// The network namespace that it runs in.
    pub namespace: Option<String>,
    sshd: Option<Proc>,
}

impl Node {
    pub(crate) fn new(name: &str, dir: PathBuf, port: u16) -> Self {
        fs::create_dir_all(&dir).unwrap();
        Self {
            name: name.to_owned(),
            uuid: String::new(),
            resource_id: String::new(),
            port,
            dir,
            namespace: None,
            sshd: None,
        }
    }

    /// A program in the node's network namespace.
    pub fn here(&self, program: &str) -> Cmd {
        match &self.namespace {
            Some(name) => Cmd::new("ip").args(["netns", "exec", name, program]),
            None => Cmd::new(program),
        }
    }

    /// Its address as registered.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The private host key file of this type, made if it isn't there.
    pub fn host_key(&self, key_type: KeyType) -> PathBuf {
        let file = self.dir.join(format!("host_{}", key_type.name()));
        if !file.exists() {
            key_type.generate(&file, &self.name);
        }
        file
    }

    /// Makes another host key of this type, for the next start.
    pub fn change_host_key(&self, key_type: KeyType) {
        let file = self.host_key(key_type);
        fs::remove_file(&file).unwrap();
        fs::remove_file(file.with_extension("pub")).unwrap();
        self.host_key(key_type);
    }

    /// Writes `sshd_config` and starts sshd on it; returns when it listens.
    ///
    /// `first` stands before our lines, `ours` are those of `nodes sshd-config`.
    pub fn start(&mut self, first: &str, ours: &str) {
        need("sshd");
        self.stop();
        privilege_separation_dir();
        // Where sshd isn't run by root it can become nobody else, and nobody is root.
        let ours = if nix::unistd::geteuid().is_root() {
            ours.to_owned()
        } else {
            ours.replace(
                "AuthorizedPrincipalsCommandUser nobody",
                &format!("AuthorizedPrincipalsCommandUser {}", login()),
            )
        };
        let host_keys: String = fs::read_dir(&self.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.starts_with("host_") && !name.ends_with(".pub")
            })
            .map(|path| format!("HostKey {}\n", path.display()))
            .collect();
        let certificate = self.dir.join("host_ed25519-cert.pub");
        let host_keys = if certificate.exists() {
            format!("{host_keys}HostCertificate {}\n", certificate.display())
        } else {
            host_keys
        };
        let config = self.dir.join("sshd_config");
        let text = format!(
            "{first}\n{host_keys}ListenAddress 127.0.0.1:{port}\n\
             PidFile none\nUsePAM no\nStrictModes no\nLogLevel VERBOSE\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nAuthorizedKeysFile none\n\
             AcceptEnv LANG LC_* TERM_PROGRAM COLORTERM NO_COLOR SECRET_*\n\
             AllowTcpForwarding yes\nAllowAgentForwarding yes\nX11Forwarding yes\n\
             MaxStartups 200\nMaxSessions 100\nPrintMotd no\nPrintLastLog no\n\
             Subsystem sftp internal-sftp\nSetEnv HOME={home}\n{ours}\n",
            port = self.port,
            // A home of its own: what the start-up files of whoever runs the tests say or
            // do has no place in what a session prints.
            home = self.dir.display(),
        );
        fs::write(&config, text).unwrap();
        let sshd = self
            .here("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .start();
        sshd.expect_err("Server listening on");
        self.sshd = Some(sshd);
    }

    /// Starts again with the configuration of the last start.
    pub fn restart(&mut self) {
        self.stop();
        let sshd = self
            .here("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(self.dir.join("sshd_config"))
            .start();
        sshd.expect_err("Server listening on");
        self.sshd = Some(sshd);
    }

    /// Stops its sshd, with every session.
    pub fn stop(&mut self) {
        self.sshd = None;
    }

    /// The process ID of its sshd.
    pub fn process_id(&self) -> u32 {
        self.sshd.as_ref().expect("the node runs").id()
    }

    /// What its sshd has logged since it was started.
    pub fn log(&self) -> String {
        self.sshd
            .as_ref()
            .map(|sshd| sshd.err.text())
            .unwrap_or_default()
    }

    /// Waits until its sshd logs `needle`; returns what came up to it since the last wait.
    #[track_caller]
    pub fn expect_log(&self, needle: &str) -> String {
        let sshd = self.sshd.as_ref().expect("the node runs");
        sshd.err
            .expect(needle, PATIENCE)
            .unwrap_or_else(|all| panic!("{} never logged `{needle}`, only:\n{all}", self.name))
    }

    /// How many connections its sshd has seen.
    pub fn connections(&self) -> usize {
        self.log().matches("Connection from ").count()
    }
}

/// A port on the loopback address that nobody listens on.
///
/// It lies below the range that the kernel gives to outgoing connections, and each caller
/// gets another one, so that it is still free when a server binds it a moment later.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(process::id() % 200).expect("below 200") * 60;
    for _ in 0..12_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + start.wrapping_add(step) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}

/// sshd started by root wants its empty folder, which a machine without the service lacks.
fn privilege_separation_dir() {
    let dir = Path::new("/run/sshd");
    if nix::unistd::geteuid().is_root() && !dir.exists() {
        fs::create_dir_all(dir).unwrap();
    }
}
