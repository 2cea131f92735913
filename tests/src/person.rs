//! Somebody with a key and an OpenSSH client.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::{Cmd, need};

/// Types of keys that `ssh-keygen` makes without hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyType {
    /// ssh-ed25519.
    Ed25519,
    /// ecdsa-sha2-nistp256.
    Ecdsa256,
    /// ecdsa-sha2-nistp384.
    Ecdsa384,
    /// ecdsa-sha2-nistp521.
    Ecdsa521,
    /// RSA with 3,072 bits, used with SHA-2.
    Rsa,
    /// RSA with 1,024 bits: too short.
    RsaShort,
}

impl KeyType {
    /// A word for file names and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa256 => "ecdsa256",
            Self::Ecdsa384 => "ecdsa384",
            Self::Ecdsa521 => "ecdsa521",
            Self::Rsa => "rsa",
            Self::RsaShort => "rsa1024",
        }
    }

    fn keygen(self) -> [&'static str; 4] {
        match self {
            Self::Ed25519 => ["-t", "ed25519", "-b", "256"],
            Self::Ecdsa256 => ["-t", "ecdsa", "-b", "256"],
            Self::Ecdsa384 => ["-t", "ecdsa", "-b", "384"],
            Self::Ecdsa521 => ["-t", "ecdsa", "-b", "521"],
            Self::Rsa => ["-t", "rsa", "-b", "3072"],
            Self::RsaShort => ["-t", "rsa", "-b", "1024"],
        }
    }

    /// Makes a key pair in `file` and `file.pub`.
    pub fn generate(self, file: &Path, comment: &str) {
        need("ssh-keygen");
        Cmd::new("ssh-keygen")
            .args(["-q", "-N", "", "-C", comment])
            .args(self.keygen())
            .arg("-f")
            .arg(file)
            .run()
            .exits(0);
    }
}

/// The two ways to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// `ssh -J access root@iot`.
    Jump,
    /// `ssh root@iot@access`.
    OneHop,
}

impl Way {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Jump, Self::OneHop];

    /// The options that a client needs for this way.
    pub fn options(self) -> &'static [&'static str] {
        match self {
            Self::Jump => &["-J", "access"],
            Self::OneHop => &[],
        }
    }

    /// The destination to type for `login` on `node`.
    pub fn destination(self, login: &str, node: &str) -> String {
        match self {
            Self::Jump => format!("{login}@{node}"),
            Self::OneHop => format!("{login}@{node}@access"),
        }
    }
}

/// Somebody who has a key, a `known_hosts` and an `ssh_config` in a folder.
#[derive(Clone, Debug)]
pub struct Person {
    /// The name at the proxy.
    pub name: String,
    /// Where everything of theirs is.
    pub dir: PathBuf,
    /// The private key file.
    pub key: PathBuf,
}

impl Person {
    /// Somebody with a new key in `dir`.
    pub(crate) fn new(name: &str, dir: PathBuf, key_type: KeyType) -> Self {
        fs::create_dir_all(&dir).unwrap();
        let key = dir.join("id");
        key_type.generate(&key, name);
        Self {
            name: name.to_owned(),
            dir,
            key,
        }
    }

    /// The same person with another key and an `ssh_config` that offers it; whether they
    /// register it is up to the test.
    #[must_use]
    pub fn with_new_key(&self, file: &str, key_type: KeyType) -> Self {
        let key = self.dir.join(file);
        key_type.generate(&key, &self.name);
        let mut other = self.clone();
        other.key = key;
        let config = fs::read_to_string(self.config()).unwrap().replace(
            &format!("IdentityFile {}\n", self.key.display()),
            &format!("IdentityFile {}\n", other.key.display()),
        );
        fs::write(other.config(), config).unwrap();
        other
    }

    /// The public key file.
    pub fn public_key(&self) -> PathBuf {
        let mut file = self.key.clone().into_os_string();
        file.push(".pub");
        file.into()
    }

    /// Their `ssh_config`.
    pub fn config(&self) -> PathBuf {
        let mut file = self.key.clone().into_os_string();
        file.push("_config");
        file.into()
    }

    /// Writes the `ssh_config`: the proxy as `access`, everything else strictly checked
    /// against `known_hosts`.
    pub(crate) fn configure(&self, proxy: SocketAddr, cluster: &str, known_hosts: &Path) {
        let text = format!(
            "Host access\n  HostName {host}\n  Port {port}\n  HostKeyAlias {cluster}\n  User {name}\n\
             Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  IdentityAgent none\n  \
             UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  \
             StrictHostKeyChecking yes\n  UpdateHostKeys no\n",
            host = proxy.ip(),
            port = proxy.port(),
            name = self.name,
            key = self.key.display(),
            known = known_hosts.display(),
        );
        fs::write(self.config(), text).unwrap();
    }

    /// `program -F CONFIG`: for `ssh`, `scp` and `sftp`.
    pub fn client(&self, program: &str) -> Cmd {
        need(program);
        Cmd::new(program).arg("-F").arg(self.config())
    }

    /// `ssh access COMMAND`, `words` being what the shell of the person would pass on.
    pub fn access(&self, words: &[&str]) -> Cmd {
        self.client("ssh").arg("access").args(words)
    }

    /// `ssh [-J access] LOGIN@NODE[@access]`, with options in front and a command behind.
    pub fn ssh(&self, way: Way, options: &[&str], target: &str, command: &[&str]) -> Cmd {
        let (login, node) = target.split_once('@').expect("a target is LOGIN@NODE");
        self.client("ssh")
            .args(way.options())
            .args(options)
            .arg(way.destination(login, node))
            .args(command)
    }

    /// The command line of `ssh` for programs that start it themselves.
    pub fn ssh_command(&self, way: Way) -> String {
        let mut line = format!("ssh -F {}", self.config().display());
        for option in way.options() {
            line.push(' ');
            line.push_str(option);
        }
        line
    }
}
