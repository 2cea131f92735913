//! The data directory: who may read it, and that one proxy at a time works in it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The database's file name in the data directory.
pub const DATABASE: &str = "anteroom.db";

/// The file whose lock a running proxy holds.
pub const LOCK: &str = "lock";

/// What may lie in a directory that is ours. A directory with anything else in it is somebody's
/// home, or `/tmp`, and changing its mode would lock its owner out.
const OURS: &[&str] = &[
    DATABASE,
    "anteroom.db-wal",
    "anteroom.db-shm",
    LOCK,
    "ca",
    "host_key",
    "host_key.pub",
    "inner_host_key",
    "inner_host_key.pub",
    "mfa_key",
    "mfa_key.new",
    "ctl.sock",
    "anteroom.yaml",
];

/// Why the data directory cannot be used.
#[derive(Debug, Error)]
pub enum DirError {
    /// The file system said no.
    #[error("data directory: {what} `{path}`: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path names something else.
    #[error("`{0}` is not a directory; name another one with --data-dir")]
    NotADirectory(PathBuf),
    /// Others may look into it, and it holds things that are not ours.
    #[error(
        "`{path}` has mode {mode:04o} and holds other files; use a directory of its own, or `chmod 700 {path}`"
    )]
    Wider {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another proxy runs on it.
    #[error("another anteroom{} is running on `{path}`; stop it, or name another directory with --data-dir", pid.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process that holds it, as far as it said so.
        pid: Option<u32>,
    },
}

impl DirError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Makes the directory if it is not there, and sees to it that nobody else can enter it.
///
/// # Errors
/// [`DirError`], with nothing changed.
pub fn prepare(dir: &Path) -> Result<(), DirError> {
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        return Err(match error.kind() == io::ErrorKind::AlreadyExists {
            true => DirError::NotADirectory(dir.to_owned()),
            false => DirError::io("creating", dir)(error),
        });
    }
    let metadata = fs::metadata(dir).map_err(DirError::io("looking at", dir))?;
    if !metadata.is_dir() {
        return Err(DirError::NotADirectory(dir.to_owned()));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 == 0 && mode & 0o700 == 0o700 {
        return Ok(());
    }
    if !holds_only_ours(dir)? {
        return Err(DirError::Wider {
            path: dir.to_owned(),
            mode,
        });
    }
    fs::set_permissions(dir, Permissions::from_mode(0o700))
        .map_err(DirError::io("changing the mode of", dir))
}

fn holds_only_ours(dir: &Path) -> Result<bool, DirError> {
    for item in fs::read_dir(dir).map_err(DirError::io("reading", dir))? {
        let item = item.map_err(DirError::io("reading", dir))?;
        if !OURS.iter().any(|name| item.file_name() == *name) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A data directory that this process alone works in, until this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct DirLock(File);

impl Drop for DirLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a program that another thread is just starting holds a
        // copy of it between its fork and its exec, and the lock lives as long as any copy.
        // A failure leaves the lock to the end of the process.
        let _ = self.0.unlock();
    }
}

/// Takes the directory for this process.
///
/// # Errors
/// [`DirError::Locked`] if another process has it.
pub(crate) fn lock(dir: &Path) -> Result<DirLock, DirError> {
    let path = dir.join(LOCK);
    let mut file = private(&path).map_err(DirError::io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut text = String::new();
            let pid = file
                .read_to_string(&mut text)
                .ok()
                .and_then(|_| text.trim().parse().ok());
            return Err(DirError::Locked {
                path: dir.to_owned(),
                pid,
            });
        }
        Err(fs::TryLockError::Error(error)) => return Err(DirError::io("locking", &path)(error)),
    }
    let mut lock = DirLock(file);
    lock.0
        .set_len(0)
        .and_then(|()| writeln!(lock.0, "{}", std::process::id()))
        .map_err(DirError::io("writing", &path))?;
    Ok(lock)
}

/// Creates the database file with mode 0600 before SQLite sees it: SQLite gives its `-wal` and
/// `-shm` the mode of the database, whatever the umask.
///
/// # Errors
/// [`DirError::Io`].
pub(crate) fn create_database(dir: &Path) -> Result<PathBuf, DirError> {
    let path = dir.join(DATABASE);
    private(&path).map_err(DirError::io("opening", &path))?;
    // Left behind by a crash under an older umask, or by somebody's copy.
    for suffix in ["-wal", "-shm"] {
        let beside = dir.join(format!("{DATABASE}{suffix}"));
        match fs::set_permissions(&beside, Permissions::from_mode(0o600)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DirError::io("changing the mode of", &beside)(error)),
        }
    }
    // The file's name must survive a power cut as the commits in it do.
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(DirError::io("syncing", dir))?;
    Ok(path)
}

/// Opens or creates a file of mode 0600. The mode is set on the open file, since the umask may
/// take bits away from what `open` is asked for.
fn private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    if file.metadata()?.mode() & 0o7777 != 0o600 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_given_back_though_a_starting_program_holds_a_copy_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(DirError::Locked { .. })));
        let copy = held.0.try_clone().unwrap();
        drop(held);
        lock(dir.path()).unwrap();
        drop(copy);
    }
}
