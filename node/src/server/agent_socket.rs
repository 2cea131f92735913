//! A forwarded ssh-agent: a socket that belongs to the user, in a folder that nobody else may enter.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anteroom_ssh::Connection;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, chown, unlinkat};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::account::Account;
use super::forward::{MOST_ACCEPTED, Task, splice};

/// Where OpenSSH has them as well.
const PARENT: &str = "/tmp";

/// The socket of one connection. It goes with it.
pub(super) struct AgentSocket {
    folder: PathBuf,
    name: String,
    path: PathBuf,
    _task: Task,
}

impl AgentSocket {
    /// Opens a socket whose connections are brought to the client's agent.
    pub(super) fn open(account: &Account, connection: Connection) -> io::Result<Self> {
        let folder = folder()?;
        let name = format!("agent.{}", std::process::id());
        let path = folder.join(&name);
        let opened = UnixListener::bind(&path).and_then(|listener| {
            give(&path, &folder, account)?;
            Ok(listener)
        });
        let listener = opened.inspect_err(|_| {
            let _ = fs::remove_file(&path);
            let _ = fs::remove_dir(&folder);
        })?;
        Ok(Self {
            folder,
            name,
            path,
            _task: Task(tokio::spawn(serve(listener, connection))),
        })
    }

    /// For `SSH_AUTH_SOCK`.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// The folder is the user's, who may have put anything in its place: so what is removed is the socket in the
/// folder that is there and is no link, and then the folder if it is empty.
impl Drop for AgentSocket {
    fn drop(&mut self) {
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
        if let Ok(folder) = openat(AT_FDCWD, &self.folder, flags, Mode::empty()) {
            let _ = unlinkat(&folder, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A new folder for its owner alone, under a name that nobody can have guessed.
fn folder() -> io::Result<PathBuf> {
    let random = uuid::Uuid::new_v4().simple().to_string();
    let folder = Path::new(PARENT).join(format!("ssh-{}", random.get(..10).unwrap_or(&random)));
    DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// The socket first: as long as the folder is ours nobody else can touch what is in it.
fn give(socket: &Path, folder: &Path, account: &Account) -> io::Result<()> {
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    if nix::unistd::geteuid().is_root() {
        chown(socket, Some(account.uid), Some(account.gid))?;
        chown(folder, Some(account.uid), Some(account.gid))?;
    }
    Ok(())
}

async fn serve(listener: UnixListener, connection: Connection) {
    let places = Arc::new(Semaphore::new(MOST_ACCEPTED));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let connection = connection.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Ok(channel) = connection.open_agent().await {
                splice(channel, stream).await;
            }
        });
    }
}
