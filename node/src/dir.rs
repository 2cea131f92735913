//! The agent's directory: who this node is and whom it trusts, in one file that is replaced as a whole.
//!
//! The host key stands in the same file as the certificate for it, so that no crash leaves one without the
//! other. The directory has mode 0700 and the files in it 0600; wider ones are refused.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anteroom_ca::key::Key;
use ssh_key::{LineEnding, PrivateKey};
use zeroize::Zeroizing;

use crate::identity::{Identity, IdentityError, Stored};

const IDENTITY: &str = "identity.json";
const LOCK: &str = "lock";
const JOINING: &str = "joining_key";
const ROLL: &str = "roll";
/// The configuration, where no other is named.
const CONFIG: &str = "node.yaml";

/// The identity has the longest message in it, the revocation list, and little beside.
const LONGEST: u64 = 2 * crate::protocol::LONGEST_LINE as u64;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The directory, locked by this process.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Others may enter it, or it is somebody else's.
    #[error(
        "directory `{}` has mode {mode:04o} and belongs to user {owner}; it has to be yours with mode 0700, or others could reach the host key: run `chmod 0700 {}`",
        path.display(), path.display()
    )]
    TooWide {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// Others may read the file, or it is somebody else's, or no file at all.
    #[error(
        "`{}` has mode {mode:04o} and belongs to user {owner}; it has to be a file of yours with mode 0600: run `chmod 0600 {}`, and if others could read it, join again with --force",
        path.display(), path.display()
    )]
    FileTooWide {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// Another agent is running on it.
    #[error("another `anteroom node` is using `{}`", .0.display())]
    InUse(PathBuf),
    /// Nothing was joined here.
    #[error("`{}` has no node in it: run `anteroom node join` first", .0.display())]
    NotJoined(PathBuf),
    /// The identity cannot be read.
    #[error("`{}` cannot be used: {why}; join again with --force", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: IdentityError,
    },
    /// The file system says no.
    #[error("`{}` cannot be {doing}: {error}", path.display())]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
}

impl DirError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirError {
        let path = path.to_owned();
        move |error| DirError::Io { doing, path, error }
    }
}

impl StateDir {
    /// Opens the directory, and makes it where there is none.
    ///
    /// # Errors
    /// [`DirError::TooWide`], [`DirError::InUse`] and those of the file system.
    pub fn create(path: &Path) -> Result<StateDir, DirError> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(DirError::io("made", path))?;
        StateDir::open(path)
    }

    /// Opens the directory, for this process alone.
    ///
    /// # Errors
    /// As [`StateDir::create`]; [`DirError::NotJoined`] where there is none.
    pub fn open(path: &Path) -> Result<StateDir, DirError> {
        let found = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(DirError::NotJoined(path.to_owned()));
            }
            found => found.map_err(DirError::io("opened", path))?,
        };
        let (mode, owner) = (found.mode() & 0o7777, found.uid());
        if mode & 0o077 != 0 || owner != nix::unistd::geteuid().as_raw() || !found.is_dir() {
            let path = path.to_owned();
            return Err(DirError::TooWide { path, mode, owner });
        }
        let at = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(FILE_MODE)
            .open(&at)
            .map_err(DirError::io("opened", &at))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DirError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(DirError::io("locked", &at)(error)),
        }
        Ok(StateDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where the configuration is, unless another file is named.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// Who this node is, if it has joined.
    ///
    /// # Errors
    /// [`DirError::FileTooWide`], [`DirError::Unreadable`] and those of the file system.
    pub fn load(&self) -> Result<Option<Identity>, DirError> {
        let path = self.path.join(IDENTITY);
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        let stored = serde_json::from_str::<Stored>(&text).map_err(IdentityError::from);
        let identity = stored.and_then(Identity::try_from);
        let unreadable = |why| DirError::Unreadable { path, why };
        identity.map(Some).map_err(unreadable)
    }

    /// Puts `identity` in the place of what was there, at once and for good: after a crash it is the old one
    /// or the new one.
    ///
    /// # Errors
    /// [`DirError::Io`]; then the old one is still there.
    pub fn store(&self, identity: &Identity) -> Result<(), DirError> {
        let path = self.path.join(IDENTITY);
        let unreadable = |why| DirError::Unreadable {
            path: path.clone(),
            why,
        };
        let stored = Stored::try_from(identity).map_err(unreadable)?;
        let text = serde_json::to_string_pretty(&stored).map_err(IdentityError::from);
        let text = Zeroizing::new(text.map_err(unreadable)?);
        self.replace(&path, text.as_bytes())
    }

    fn replace(&self, path: &Path, content: &[u8]) -> Result<(), DirError> {
        let draft = path.with_extension("new");
        // Left over from a process that was killed; nobody else writes here, since the lock is ours.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DirError::io("removed", &draft)(error));
            }
            Ok(()) | Err(_) => {}
        }
        let write = || {
            let mut file = OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(FILE_MODE)
                .open(&draft)?;
            file.write_all(content)?;
            file.sync_all()
        };
        write().map_err(DirError::io("written", &draft))?;
        fs::rename(&draft, path).map_err(DirError::io("replaced", path))?;
        let synced = File::open(&self.path).and_then(|dir| dir.sync_all());
        synced.map_err(DirError::io("synced", &self.path))
    }

    /// The key of a join that was begun: the same again if it is repeated, so that a token that was used in
    /// an answer which never arrived can be seen to have been used for this very key.
    ///
    /// # Errors
    /// As [`StateDir::load`].
    pub fn joining_key(&self, fresh: impl FnOnce() -> Key) -> Result<PrivateKey, DirError> {
        let path = self.path.join(JOINING);
        if let Some(text) = read(&path)? {
            let key = PrivateKey::from_openssh(text.as_bytes());
            return key.map_err(|_| DirError::Unreadable {
                path,
                why: IdentityError::Key,
            });
        }
        let key = fresh().private_key().clone();
        let text = key.to_openssh(LineEnding::LF);
        let text = text.map_err(|_| DirError::Unreadable {
            path: path.clone(),
            why: IdentityError::Key,
        })?;
        self.replace(&path, text.as_bytes())?;
        Ok(key)
    }

    /// Forgets the key of a join that is done.
    ///
    /// # Errors
    /// [`DirError::Io`].
    pub fn joined(&self) -> Result<(), DirError> {
        remove(&self.path.join(JOINING))
    }

    /// Whether a new host key was asked for with [`ask_for_new_key`].
    #[must_use]
    pub fn wants_new_key(&self) -> bool {
        self.path.join(ROLL).exists()
    }

    /// The new host key is there.
    ///
    /// # Errors
    /// [`DirError::Io`].
    pub fn has_new_key(&self) -> Result<(), DirError> {
        remove(&self.path.join(ROLL))
    }
}

/// Leaves word for the agent that runs on the directory at `path` to take a new host key.
///
/// # Errors
/// [`DirError::NotJoined`] and those of the file system.
pub fn ask_for_new_key(path: &Path) -> Result<(), DirError> {
    if !path.join(IDENTITY).exists() {
        return Err(DirError::NotJoined(path.to_owned()));
    }
    let at = path.join(ROLL);
    let made = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(FILE_MODE)
        .open(&at);
    made.map(|_| ()).map_err(DirError::io("written", &at))
}

fn remove(path: &Path) -> Result<(), DirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(DirError::io("removed", path)),
    }
}

/// A private file's content, if there is one.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, DirError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(DirError::io("opened", path))?,
    };
    let found = file.metadata().map_err(DirError::io("opened", path))?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    if mode & 0o077 != 0 || owner != nix::unistd::geteuid().as_raw() || !found.is_file() {
        let path = path.to_owned();
        return Err(DirError::FileTooWide { path, mode, owner });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(DirError::io("read", path))?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::identity::tests::identity;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_was_stored_is_read_again_and_nobody_else_can_read_it() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("a/node");
        let dir = StateDir::create(&path).unwrap();
        assert!(dir.load().unwrap().is_none());
        let identity = identity();
        dir.store(&identity).unwrap();
        dir.store(&identity).unwrap();
        assert_eq!(dir.load().unwrap().unwrap(), identity);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(IDENTITY)), 0o600);
        // Nothing but the file and the lock is left.
        assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    }

    #[test]
    fn a_wider_directory_or_file_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("node");
        let dir = StateDir::create(&path).unwrap();
        dir.store(&identity()).unwrap();
        chmod(&path.join(IDENTITY), 0o640);
        assert!(matches!(
            dir.load(),
            Err(DirError::FileTooWide { mode: 0o640, .. })
        ));
        drop(dir);
        chmod(&path, 0o750);
        let refused = StateDir::create(&path).unwrap_err();
        assert!(matches!(refused, DirError::TooWide { mode: 0o750, .. }));
        assert!(
            refused.to_string().contains("run `chmod 0700 "),
            "{refused}"
        );
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_old_identity() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::create(&tmp.path().join("node")).unwrap();
        let identity = identity();
        dir.store(&identity).unwrap();
        fs::write(dir.path.join("identity.new"), "{\"half").unwrap();
        assert_eq!(dir.load().unwrap().unwrap(), identity);
        dir.store(&identity).unwrap();
    }

    #[test]
    fn two_agents_do_not_run_on_one_directory() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("node");
        let first = StateDir::create(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(DirError::InUse(_))));
        drop(first);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn a_join_that_is_repeated_uses_the_key_of_the_first_attempt() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = StateDir::create(&tmp.path().join("node")).unwrap();
        let fresh = || Key::generate("", &mut rand::rng());
        let first = dir.joining_key(fresh).unwrap();
        assert_eq!(mode(&dir.path.join(JOINING)), 0o600);
        assert_eq!(
            dir.joining_key(fresh).unwrap().public_key(),
            first.public_key()
        );
        dir.joined().unwrap();
        assert_ne!(
            dir.joining_key(fresh).unwrap().public_key(),
            first.public_key()
        );
    }
}
