//! The sandbox: a private folder with keys, a proxy and two nodes, all gone when it is dropped.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{DemoError, Options};

/// The name in every resource ID of the sandbox, as in the guides.
pub(super) const CLUSTER: &str = "example.com";
/// The two nodes, as in the guides.
pub(super) const NODES: [&str; 2] = ["iot", "node"];
/// Local processes answer at once; a sandbox that takes longer to come up is broken.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What is removed at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Removed {
    /// The folder, which was made for the sandbox.
    Folder,
    /// What was put into a folder that was there before.
    Contents,
}

/// The whole sandbox. Dropping it ends its processes and removes its folder, or what it put into one that was there.
pub(super) struct Sandbox {
    dir: PathBuf,
    removed: Removed,
    binary: PathBuf,
    /// The account that the sandbox's sshds can log in to: root as root, else one's own.
    pub(super) login: String,
    port: u16,
    /// Ports of the nodes, in the order of [`NODES`].
    pub(super) node_ports: [u16; 2],
    /// The proxy and the nodes; `kill_on_drop`.
    children: Vec<Child>,
}

impl Sandbox {
    /// Makes keys, starts the proxy and two stock sshds, registers alice and bob.
    pub(super) async fn build(options: &Options) -> Result<Sandbox, DemoError> {
        let sshd = find("sshd", "apt-get install openssh-server")?;
        find("ssh", "apt-get install openssh-client")?;
        find("ssh-keygen", "apt-get install openssh-client")?;
        let (dir, removed) = folder(options.dir.as_deref())?;
        let binary = std::env::current_exe().map_err(DemoError::io("finding this program"))?;
        let login = login_name()?;
        let node_ports = [free_port()?, free_port()?];
        let mut sandbox = Sandbox {
            dir,
            removed,
            binary,
            login,
            port: options.port,
            node_ports,
            children: Vec::new(),
        };
        println!("Setting up a sandbox in {} …", sandbox.dir.display());
        for name in ["alice", "bob"]
            .into_iter()
            .chain(NODES.iter().map(|n| match *n {
                "iot" => "iot_host",
                _ => "node_host",
            }))
        {
            sandbox.keygen(name).await?;
        }
        sandbox.start_proxy().await?;
        for (index, name) in NODES.into_iter().enumerate() {
            sandbox.start_node(&sshd, index, name).await?;
        }
        let login = sandbox.login.clone();
        let (alice, bob) = (sandbox.text_path("alice.pub"), sandbox.text_path("bob.pub"));
        sandbox
            .ctl(&[
                "users",
                "add",
                "alice",
                "--roles",
                "requester",
                "--logins",
                &login,
                "--key",
                &alice,
            ])
            .await?;
        sandbox
            .ctl(&[
                "users", "add", "bob", "--roles", "reviewer", "--logins", &login, "--key", &bob,
            ])
            .await?;
        sandbox.write_ssh_config("alice").await?;
        sandbox.write_ssh_config("bob").await?;
        Ok(sandbox)
    }

    /// The lines to paste.
    pub(super) fn invite(&self) {
        let dir = self.dir.display();
        let login = &self.login;
        println!("\nThe sandbox stays up. Try it, in two terminals:\n");
        println!(
            "  alice$ ssh -F {dir}/alice.conf {login}@node                 # waits for an approval (one jump, ProxyJump)"
        );
        println!(
            "  alice$ ssh -F {dir}/alice.conf {login}@iot@access uptime    # the same in one hop"
        );
        println!("  bob$   ssh -F {dir}/bob.conf access request ls");
        println!("  bob$   ssh -F {dir}/bob.conf access request review --approve ID");
        println!("  alice$ ssh -F {dir}/alice.conf access help");
        println!(
            "  root#  {} ctl --data-dir {dir}/data audit ls",
            self.binary.display()
        );
        println!("\nCtrl-C ends it and removes everything.");
    }

    /// `ssh -F person.conf ARGS`, not started yet; its standard input is empty.
    pub(super) fn ssh(&self, person: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command
            .arg("-F")
            .arg(self.path(&format!("{person}.conf")))
            .args(args);
        // The user's own agent and session variables have no business in the sandbox.
        command
            .env_remove("SSH_AUTH_SOCK")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// `anteroom ctl ARGS`, which has to succeed.
    pub(super) async fn ctl(&self, args: &[&str]) -> Result<String, DemoError> {
        let mut command = Command::new(&self.binary);
        command
            .arg("ctl")
            .arg("--data-dir")
            .arg(self.path("data"))
            .args(args);
        let output = run(command, &format!("anteroom ctl {}", args.join(" "))).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A file of the sandbox.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The same as an argument.
    pub(super) fn text_path(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    async fn keygen(&self, name: &str) -> Result<(), DemoError> {
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"])
            .arg(self.path(name));
        run(command, "ssh-keygen").await.map(|_| ())
    }

    async fn start_proxy(&mut self) -> Result<(), DemoError> {
        let log =
            fs::File::create(self.path("proxy.log")).map_err(DemoError::io("writing proxy.log"))?;
        let mut child = Command::new(&self.binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(self.path("data"))
            .args([
                "--cluster",
                CLUSTER,
                "--listen",
                &format!("127.0.0.1:{}", self.port),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(DemoError::io("starting the proxy"))?;
        let out = child.stdout.take().ok_or_else(|| DemoError::Io {
            doing: "starting the proxy".into(),
            error: std::io::ErrorKind::BrokenPipe.into(),
        })?;
        self.children.push(child);
        let mut lines = BufReader::new(out).lines();
        let port = tokio::time::timeout(START_TIMEOUT, async {
            while let Ok(Some(line)) = lines.next_line().await {
                let address = line.strip_prefix("anteroom: listening on ");
                if let Some(port) = address.and_then(|a| a.rsplit(':').next()?.parse().ok()) {
                    return Some(port);
                }
            }
            None
        });
        match port.await {
            Ok(Some(port)) => {
                self.port = port;
                // Keep reading, so that the proxy never blocks on a full pipe.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok(())
            }
            Ok(None) | Err(_) => Err(DemoError::Step {
                step: "anteroom serve".into(),
                found: fs::read_to_string(self.path("proxy.log")).unwrap_or_else(|e| e.to_string()),
            }),
        }
    }

    /// Registers a node and starts a stock sshd with the lines that Anteroom prints for it.
    async fn start_node(&mut self, sshd: &Path, index: usize, name: &str) -> Result<(), DemoError> {
        let [first, second] = self.node_ports;
        let port = if index == 0 { first } else { second };
        let key = self.text_path(&format!("{name}_host.pub"));
        self.ctl(&[
            "nodes",
            "add",
            name,
            "--addr",
            &format!("127.0.0.1:{port}"),
            "--labels",
            "test=test",
            "--host-key",
            &key,
        ])
        .await?;
        let lines = self.ctl(&["nodes", "sshd-config", name]).await?;
        let mut config = format!(
            "# A stock sshd for the demo; the last lines are what `nodes sshd-config` prints.\n\
             ListenAddress 127.0.0.1:{port}\nHostKey {}\nPidFile none\nUsePAM no\nStrictModes no\nLogLevel VERBOSE\n\
             AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\n",
            self.text_path(&format!("{name}_host"))
        );
        for line in lines.lines() {
            config.push_str(&self.adapted(line)?);
            config.push('\n');
        }
        let file = self.path(&format!("{name}.sshd_config"));
        fs::write(&file, config).map_err(DemoError::io("writing an sshd_config"))?;
        if nix::unistd::geteuid().is_root() {
            // sshd insists on its privilege separation directory, which only its service creates.
            fs::create_dir_all("/run/sshd").map_err(DemoError::io("creating /run/sshd"))?;
        }
        let log = fs::File::create(self.path(&format!("{name}.log")))
            .map_err(DemoError::io("writing a log"))?;
        let child = Command::new(sshd)
            .arg("-D")
            .arg("-e")
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(DemoError::io("starting sshd"))?;
        self.children.push(child);
        self.wait_for_port(port, name).await
    }

    /// The printed lines name files of a real installation; here the CA lies in the sandbox, and
    /// without root nobody but ourselves can run the principals command.
    fn adapted(&self, line: &str) -> Result<String, DemoError> {
        if line.starts_with("TrustedUserCAKeys ") {
            return Ok(format!(
                "TrustedUserCAKeys {}",
                self.text_path("data/ca/node.pub")
            ));
        }
        if line.starts_with("AuthorizedPrincipalsCommandUser ") && !nix::unistd::geteuid().is_root()
        {
            return Ok(format!("AuthorizedPrincipalsCommandUser {}", self.login));
        }
        // A revocation list is installed by enrolment; the sandbox has none, and sshd refuses everybody without the file.
        if line.starts_with("RevokedKeys ") {
            return Ok(format!("# {line}"));
        }
        Ok(line.to_owned())
    }

    async fn wait_for_port(&self, port: u16, name: &str) -> Result<(), DemoError> {
        let up = tokio::time::timeout(START_TIMEOUT, async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port))
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        up.await.map_err(|_| DemoError::Step {
            step: format!("sshd of {name}"),
            found: fs::read_to_string(self.path(&format!("{name}.log")))
                .unwrap_or_else(|e| e.to_string()),
        })
    }

    /// What a person needs: where the proxy is, who vouches for it, which key is theirs.
    async fn write_ssh_config(&self, person: &str) -> Result<(), DemoError> {
        let authority = self.ctl(&["auth", "export", "--type", "host"]).await?;
        fs::write(self.path("known_hosts"), authority)
            .map_err(DemoError::io("writing known_hosts"))?;
        let config = format!(
            "# {person}: one jump host, one key, one @cert-authority line.\n\
             Host access\n  HostName 127.0.0.1\n  Port {port}\n  User {person}\n  HostKeyAlias {CLUSTER}\n\
             Host {nodes}\n  ProxyJump access\n\
             Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {known}\n\
             \x20 GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n  LogLevel ERROR\n",
            port = self.port,
            nodes = NODES.join(" "),
            key = self.text_path(person),
            known = self.text_path("known_hosts"),
        );
        fs::write(self.path(&format!("{person}.conf")), config)
            .map_err(DemoError::io("writing an ssh_config"))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Already gone is as good.
            child.start_kill().ok();
        }
        let removed = match self.removed {
            Removed::Folder => fs::remove_dir_all(&self.dir),
            Removed::Contents => empty(&self.dir),
        };
        if let Err(error) = removed {
            eprintln!(
                "anteroom: `{}` could not be removed: {error}",
                self.dir.display()
            );
        }
    }
}

/// Runs a command of the scenery; its failure is the demo's.
async fn run(mut command: Command, step: &str) -> Result<Output, DemoError> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(DemoError::io(step))?;
    if output.status.success() {
        return Ok(output);
    }
    let found = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DemoError::Step {
        step: step.to_owned(),
        found,
    })
}

/// A program on the path or where Debian puts servers.
fn find(program: &'static str, install: &'static str) -> Result<PathBuf, DemoError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .map(|dir| dir.join(OsStr::new(program)))
        .find(|file| {
            fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .ok_or(DemoError::Missing { program, install })
}

/// The sandbox's folder, private from the start, and what of it is removed at the end.
fn folder(wanted: Option<&Path>) -> Result<(PathBuf, Removed), DemoError> {
    let doing = |dir: &Path| format!("creating `{}`", dir.display());
    let dir = match wanted {
        Some(dir) => dir.to_owned(),
        None => {
            std::env::temp_dir().join(format!("anteroom-demo-{}", uuid::Uuid::new_v4().simple()))
        }
    };
    let removed = match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => Removed::Folder,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            usable(&dir)?;
            Removed::Contents
        }
        Err(error) => return Err(DemoError::io(doing(&dir))(error)),
    };
    let dir = dir.canonicalize().map_err(DemoError::io(doing(&dir)))?;
    Ok((dir, removed))
}

/// Refuses a folder that was there before unless it is empty, since everything in it is removed at the end, and nobody else
/// can put anything into it, since keys and programs are run from it.
fn usable(dir: &Path) -> Result<(), DemoError> {
    let refused = |why: &'static str| DemoError::Folder {
        dir: dir.to_owned(),
        why,
    };
    let looking = || format!("looking into `{}`", dir.display());
    let metadata = fs::metadata(dir).map_err(DemoError::io(looking()))?;
    if !metadata.is_dir() {
        return Err(refused("it is no folder"));
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(refused("it belongs to somebody else"));
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(refused("others may write into it"));
    }
    let mut entries = fs::read_dir(dir).map_err(DemoError::io(looking()))?;
    if entries.next().is_some() {
        return Err(refused(
            "it is not empty, and everything in it would be removed at the end",
        ));
    }
    Ok(())
}

/// Removes what is in a folder, and leaves the folder.
fn empty(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn login_name() -> Result<String, DemoError> {
    let user =
        nix::unistd::User::from_uid(nix::unistd::geteuid()).map_err(|errno| DemoError::Io {
            doing: "looking up this user".into(),
            error: errno.into(),
        })?;
    user.map(|user| user.name).ok_or_else(|| DemoError::Step {
        step: "looking up this user".into(),
        found: "it has no entry in the user database".into(),
    })
}

fn free_port() -> Result<u16, DemoError> {
    let listener =
        TcpListener::bind(("127.0.0.1", 0)).map_err(DemoError::io("finding a free port"))?;
    Ok(listener
        .local_addr()
        .map_err(DemoError::io("finding a free port"))?
        .port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(dir: &Path) -> String {
        let error = folder(Some(dir)).expect_err("the folder is refused");
        assert_eq!(error.exit(), crate::exit::Exit::Usage);
        error.to_string()
    }

    #[test]
    fn an_empty_folder_is_taken_and_stays_without_its_contents() {
        let around = tempfile::tempdir().unwrap();
        let dir = around.path().join("sandbox");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let (taken, removed) = folder(Some(&dir)).unwrap();
        assert_eq!(removed, Removed::Contents);
        fs::create_dir_all(taken.join("data/ca")).unwrap();
        fs::write(taken.join("data/ca/user"), "key").unwrap();
        // What a link leads to is nobody's to remove.
        std::os::unix::fs::symlink(around.path(), taken.join("link")).unwrap();
        empty(&taken).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert!(around.path().is_dir());
    }

    #[test]
    fn a_folder_that_is_not_there_is_made_private_and_removed() {
        let around = tempfile::tempdir().unwrap();
        let (taken, removed) = folder(Some(&around.path().join("new"))).unwrap();
        assert_eq!(removed, Removed::Folder);
        let mode = fs::metadata(taken).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_folder_with_something_in_it_or_open_to_others_and_a_file_are_refused() {
        let around = tempfile::tempdir().unwrap();
        let full = around.path().join("full");
        fs::create_dir(&full).unwrap();
        fs::write(full.join("mine"), "kept").unwrap();
        fs::set_permissions(&full, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(refused(&full).contains("it is not empty"));
        assert!(full.join("mine").exists());

        let open = around.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&open).contains("others may write into it"));

        assert!(refused(&full.join("mine")).contains("it is no folder"));
    }
}
