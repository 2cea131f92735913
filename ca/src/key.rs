//! Keys of certificate authorities and hosts: OpenSSH private key files that nobody else can read.
//!
//! Promises: a key is loaded only from a file no wider than 0600 in a directory no wider than 0700; a new
//! key appears whole or not at all, never over an existing one, with those modes whatever the umask; key
//! material is zeroized when dropped and printed by nothing here. What comes before (making the directory,
//! forbidding core dumps) and after (who may hold a key) is left to the caller.

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::CryptoRng;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{Algorithm, Fingerprint, HashAlg, LineEnding, PrivateKey, PublicKey};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::passphrase::Passphrase;

pub use crate::authority::{HostCa, NodeCa, UserCa};

/// A private Ed25519 key (RFC 8032) of an authority, a host, or one connection to a node.
///
/// Ed25519 only: an RSA private key would bring in a timing weakness that its implementation cannot close
/// (RUSTSEC-2023-0071), and nothing here needs another kind.
pub struct Key {
    private: PrivateKey,
}

impl Key {
    /// Makes a key from `rng`. Control characters are left out of `comment`, which becomes part of a line.
    pub fn generate(comment: &str, rng: &mut impl CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0_u8; 32]);
        rng.fill_bytes(&mut *seed);
        Self::from_seed(comment, &seed)
    }

    /// The key that belongs to 32 secret bytes; the caller zeroizes his copy.
    pub fn from_seed(comment: &str, seed: &[u8; 32]) -> Self {
        let mut private = PrivateKey::from(Ed25519Keypair::from_seed(seed));
        let comment: String = comment.chars().filter(|c| !c.is_control()).collect();
        private.set_comment(comment);
        Self { private }
    }

    /// Reads the key file at `path`, which is not encrypted.
    ///
    /// # Errors
    /// Whatever keeps the key from being used, each with the command that mends it: see [`KeyError`].
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        Self::load_with(path, None).map(|(key, _)| key)
    }

    /// Reads the key file at `path`; one that is encrypted is opened with `passphrase`. Which of the
    /// two it was is said as well, because an operator with a passphrase means his keys to be under it.
    ///
    /// # Errors
    /// As [`Key::load`]; [`KeyError::Passphrase`] if it does not open the file.
    pub fn load_with(
        path: &Path,
        passphrase: Option<&Passphrase>,
    ) -> Result<(Self, Protection), KeyError> {
        let private = read_private(path)?;
        if !private.is_encrypted() {
            return Self::checked(path, private).map(|key| (key, Protection::Plain));
        }
        let path_of = || path.to_owned();
        let passphrase = passphrase.ok_or_else(|| KeyError::Encrypted { path: path_of() })?;
        let opened = private.decrypt(passphrase.as_bytes()).map_err(|error| {
            // Told apart where it can be: no passphrase opens a cipher that is not known here.
            let unknown = matches!(
                error,
                ssh_key::Error::AlgorithmUnsupported { .. } | ssh_key::Error::AlgorithmUnknown
            );
            match unknown {
                true => KeyError::Malformed { path: path_of() },
                false => KeyError::Passphrase { path: path_of() },
            }
        })?;
        Self::checked(path, opened).map(|key| (key, Protection::Passphrase))
    }

    /// The public half of the key file at `path`, which stands there in clear also if the private
    /// half is encrypted, and whether it is.
    ///
    /// # Errors
    /// As [`Key::load`].
    pub fn public_half(path: &Path) -> Result<(PublicKey, Protection), KeyError> {
        let private = read_private(path)?;
        let protection = match private.is_encrypted() {
            true => Protection::Passphrase,
            false => Protection::Plain,
        };
        Ok((private.public_key().clone(), protection))
    }

    /// Writes the key to `path`, mode 0600, and its public half to `path.pub`, mode 0644.
    ///
    /// The private file comes into being by one link of a complete, synced file: after a crash it is there
    /// whole or not at all, and of two processes one wins. [`Key::load_or_create`] replaces a public file
    /// that a crash in between has left out.
    ///
    /// # Errors
    /// [`KeyError::Exists`] if there is a file already; the directory's mode and I/O as in [`KeyError`].
    pub fn create_new(&self, path: &Path) -> Result<(), KeyError> {
        self.write_new(path, &self.private)
    }

    fn write_new(&self, path: &Path, written: &PrivateKey) -> Result<(), KeyError> {
        private_directory(path)?;
        let text = written
            .to_openssh(LineEnding::LF)
            .map_err(|_| KeyError::Malformed {
                path: path.to_owned(),
            })?;
        let draft = write_draft(path, self.public_key(), text.as_bytes(), Mode::Private)?;
        let linked = fs::hard_link(&draft, path);
        // Removed whether or not the link was made: an unused private key should not lie about.
        let removed = fs::remove_file(&draft);
        if let Err(error) = linked {
            return Err(KeyError::creating(path, error));
        }
        removed.map_err(|error| KeyError::io("removed", &draft, error))?;
        sync_directory(path)?;
        self.write_public(path)
    }

    /// The key at `path`; where there is none, a new one made from `rng` and written there.
    ///
    /// A missing or differing `path.pub` is written again.
    ///
    /// # Errors
    /// As [`Key::load`] and [`Key::create_new`].
    pub fn load_or_create(
        path: &Path,
        comment: &str,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Origin), KeyError> {
        Self::load_or_create_with(path, comment, None, rng).map(|(key, origin, _)| (key, origin))
    }

    /// The same under a passphrase: it opens a key that is encrypted, and a new one is encrypted
    /// with it.
    ///
    /// # Errors
    /// As [`Key::load_with`] and [`Key::create_new`].
    pub fn load_or_create_with(
        path: &Path,
        comment: &str,
        passphrase: Option<&Passphrase>,
        rng: &mut impl CryptoRng,
    ) -> Result<(Self, Origin, Protection), KeyError> {
        match Self::load_with(path, passphrase) {
            Ok((key, protection)) => {
                key.mend_public(path)?;
                Ok((key, Origin::Loaded, protection))
            }
            Err(KeyError::Missing { .. }) => {
                let key = Self::generate(comment, rng);
                let protection = key.create_with(path, passphrase, rng)?;
                Ok((key, Origin::Created, protection))
            }
            Err(error) => Err(error),
        }
    }

    /// Writes the key to `path` as [`Key::create_new`] does, encrypted where there is a passphrase.
    ///
    /// # Errors
    /// As [`Key::create_new`].
    pub fn create_with(
        &self,
        path: &Path,
        passphrase: Option<&Passphrase>,
        rng: &mut impl CryptoRng,
    ) -> Result<Protection, KeyError> {
        let Some(passphrase) = passphrase else {
            return self
                .write_new(path, &self.private)
                .map(|()| Protection::Plain);
        };
        let sealed = self.private.encrypt(rng, passphrase.as_bytes());
        let sealed = sealed.map_err(|_| KeyError::Malformed {
            path: path.to_owned(),
        })?;
        self.write_new(path, &sealed)
            .map(|()| Protection::Passphrase)
    }

    /// The public half, with its comment.
    pub fn public_key(&self) -> &PublicKey {
        self.private.public_key()
    }

    /// `SHA256:…` of the public half.
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint(self.public_key())
    }

    /// The private half, for an SSH library that proves possession of it. An authority's key has no such
    /// way out: see [`crate::authority`].
    pub fn private_key(&self) -> &PrivateKey {
        &self.private
    }

    /// The key, if it is of a kind that signs here.
    fn checked(path: &Path, private: PrivateKey) -> Result<Self, KeyError> {
        if !matches!(private.key_data(), KeypairData::Ed25519(_)) {
            let found = private.algorithm();
            return Err(KeyError::Algorithm {
                path: path.to_owned(),
                found,
            });
        }
        Ok(Self { private })
    }

    fn write_public(&self, path: &Path) -> Result<(), KeyError> {
        write_public(path, self.public_key())
    }

    fn mend_public(&self, path: &Path) -> Result<(), KeyError> {
        let present = fs::read_to_string(public_path(path)).ok();
        match present
            .as_deref()
            .and_then(|line| PublicKey::from_openssh(line).ok())
        {
            Some(found) if found.key_data() == self.public_key().key_data() => Ok(()),
            Some(_) | None => self.write_public(path),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Key({} {})",
            self.private.algorithm(),
            self.fingerprint()
        )
    }
}

/// Whether [`Key::load_or_create`] found a key or made one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file was there.
    Loaded,
    /// There was none; this is the first start.
    Created,
}

/// Whether a key file is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Whoever can read the file has the key.
    Plain,
    /// Whoever can read the file needs the passphrase as well.
    Passphrase,
}

/// `SHA256:…` of a public key, as `ssh-keygen -l` prints it.
pub fn fingerprint(key: &PublicKey) -> Fingerprint {
    key.fingerprint(HashAlg::Sha256)
}

/// The public half of the key file at `path`: `path.pub`.
pub fn public_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// Reads a public key file, `TYPE BASE64 COMMENT`.
///
/// # Errors
/// [`KeyError::Missing`], [`KeyError::MalformedPublic`], [`KeyError::TooLong`] and those of the file system.
pub fn read_public(path: &Path) -> Result<PublicKey, KeyError> {
    if !metadata(path)?.is_file() {
        return Err(KeyError::NotAFile {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(|error| KeyError::io("opened", path, error))?;
    let text = read_bounded(path, file)?;
    let text = std::str::from_utf8(&text).ok();
    text.and_then(|text| PublicKey::from_openssh(text.trim_end()).ok())
        .ok_or_else(|| KeyError::MalformedPublic {
            path: path.to_owned(),
        })
}

/// Writes `public` to [`public_path`]`(path)`, mode 0644, in one step over whatever is there.
///
/// # Errors
/// [`KeyError::Io`].
pub fn write_public(path: &Path, public: &PublicKey) -> Result<(), KeyError> {
    let to = public_path(path);
    let line = public_line(public, path)?;
    let draft = write_draft(&to, public, line.as_bytes(), Mode::Public)?;
    fs::rename(&draft, &to).map_err(|error| KeyError::io("created", &to, error))?;
    sync_directory(&to)
}

fn public_line(public: &PublicKey, path: &Path) -> Result<String, KeyError> {
    let line = public.to_openssh();
    line.map(|line| format!("{line}\n"))
        .map_err(|_| KeyError::Malformed {
            path: path.to_owned(),
        })
}

/// A complete and synced file beside `path`. Its name carries the key's fingerprint, so that two
/// processes which create different keys do not write into each other's draft.
fn write_draft(
    path: &Path,
    key: &PublicKey,
    content: &[u8],
    mode: Mode,
) -> Result<PathBuf, KeyError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let own: String = fingerprint(key)
        .as_bytes()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let draft = path.with_file_name(format!(".{name}.{own}.new"));
    // Left behind by a process that was killed: of the same key, and nobody's work.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(KeyError::io("removed", &draft, error));
        }
        Ok(()) | Err(_) => {}
    }
    let written = write_synced(&draft, content, mode);
    written.map_err(|error| KeyError::io("written", &draft, error))?;
    Ok(draft)
}

/// Makes a directory of mode 0700 for keys, with its parents; one that is there already is left as it is.
///
/// # Errors
/// [`KeyError::Io`], or [`KeyError::DirectoryTooWide`] if it exists with a wider mode.
pub fn create_directory(path: &Path) -> Result<(), KeyError> {
    let made = DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path);
    made.map_err(|error| KeyError::io("created", path, error))?;
    private_directory(&path.join("key")).map(|_| ())
}

/// Why a key file was not used or not written.
#[derive(Debug, Error)]
pub enum KeyError {
    /// There is no such file.
    #[error("no key file `{}`: it is made at the first start, or restored from your backup", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is no such directory.
    #[error("no directory `{}` for the key: make it with `mkdir -p -m 0700 {}`", path.display(), path.display())]
    NoDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Others may enter the directory.
    #[error("directory `{}` has mode {mode:04o}, wider than 0700, so others may reach the keys in it: run `chmod 0700 {}`", path.display(), path.display())]
    DirectoryTooWide {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may read or write the file.
    #[error("key file `{}` has mode {mode:04o}, wider than 0600: run `chmod 0600 {}`, and replace the key if others could have read it", path.display(), path.display())]
    FileTooWide {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to somebody who is neither root nor the directory's owner.
    #[error("key file `{}` belongs to user {owner}, its directory to user {expected}: run `chown {expected} {}` if the key is yours", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Numeric owner of the file.
        owner: u32,
        /// Numeric owner of the directory.
        expected: u32,
    },
    /// A directory, device or FIFO.
    #[error("`{}` is not a regular file: a key file is expected there", path.display())]
    NotAFile {
        /// What was looked at.
        path: PathBuf,
    },
    /// More bytes than a key file can have.
    #[error("`{}` is longer than {limit} bytes, so it is no key file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        limit: u64,
    },
    /// Not an OpenSSH private key.
    #[error("`{}` is not an OpenSSH private key file: restore it from your backup", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Not a public key.
    #[error("`{}` is not a public key file: restore it from your backup, or write it anew with `ssh-keygen -y`", path.display())]
    MalformedPublic {
        /// The file.
        path: PathBuf,
    },
    /// The key is under a passphrase, and none is given.
    #[error("key file `{}` is encrypted, and there is no passphrase for it: for an authority's key, name where it is with `ca_passphrase_file`, `ca_passphrase_env` or `ca_passphrase_credential` in the configuration; or take it off with `ssh-keygen -p -f {}`", path.display(), path.display())]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase is another one.
    #[error("the passphrase does not open key file `{}`: correct it where the configuration says that it is, or set the key's with `ssh-keygen -p -f {}`", path.display(), path.display())]
    Passphrase {
        /// The file.
        path: PathBuf,
    },
    /// Another kind of key than Ed25519.
    #[error("key file `{}` holds a key of type {found}, but only ssh-ed25519 is served: make one with `ssh-keygen -t ed25519 -N '' -f FILE`", path.display())]
    Algorithm {
        /// The file.
        path: PathBuf,
        /// Type of the key found.
        found: Algorithm,
    },
    /// There is one already, and it is not replaced.
    #[error("key file `{}` exists already and is not overwritten", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("`{}` could not be {verb}: {source}", path.display())]
    Io {
        /// What was tried, as a participle.
        verb: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

impl KeyError {
    fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            return Self::Missing { path };
        }
        Self::Io { verb, path, source }
    }

    fn creating(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AlreadyExists {
            return Self::Exists {
                path: path.to_owned(),
            };
        }
        Self::io("created", path, source)
    }

    fn entering(directory: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            return Self::NoDirectory {
                path: directory.to_owned(),
            };
        }
        Self::io("examined", directory, source)
    }
}

/// What the two files of a key may be.
#[derive(Clone, Copy)]
enum Mode {
    Private,
    Public,
}

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Private => FILE_MODE,
            Self::Public => 0o644,
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn metadata(path: &Path) -> Result<Metadata, KeyError> {
    fs::metadata(path).map_err(|error| KeyError::io("examined", path, error))
}

/// The directory of `path`, if nobody but its owner may enter it.
fn private_directory(path: &Path) -> Result<Metadata, KeyError> {
    let directory = directory_of(path);
    let found = fs::metadata(directory).map_err(|error| KeyError::entering(directory, error))?;
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::DirectoryTooWide {
            path: directory.to_owned(),
            mode,
        });
    }
    Ok(found)
}

/// The private key file at `path`, if nobody else can read it; its private half may be encrypted.
fn read_private(path: &Path) -> Result<PrivateKey, KeyError> {
    let directory = private_directory(path)?;
    // Looked at before it is opened as well: opening a FIFO would wait for a writer.
    private_file(path, &metadata(path)?, &directory)?;
    let file = File::open(path).map_err(|error| KeyError::io("opened", path, error))?;
    let opened = file
        .metadata()
        .map_err(|error| KeyError::io("examined", path, error))?;
    private_file(path, &opened, &directory)?;
    let text = read_bounded(path, file)?;
    PrivateKey::from_openssh(&*text).map_err(|_| KeyError::Malformed {
        path: path.to_owned(),
    })
}

fn private_file(path: &Path, file: &Metadata, directory: &Metadata) -> Result<(), KeyError> {
    if !file.is_file() {
        return Err(KeyError::NotAFile {
            path: path.to_owned(),
        });
    }
    let mode = file.mode() & 0o7777;
    if mode & !FILE_MODE != 0 {
        return Err(KeyError::FileTooWide {
            path: path.to_owned(),
            mode,
        });
    }
    if file.uid() != directory.uid() && file.uid() != ROOT {
        return Err(KeyError::Owner {
            path: path.to_owned(),
            owner: file.uid(),
            expected: directory.uid(),
        });
    }
    Ok(())
}

fn read_bounded(path: &Path, file: File) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    // Room for all of it from the start: a vector that grows leaves copies of the key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(FILE_LIMIT as usize + 1));
    let read = file.take(FILE_LIMIT + 1).read_to_end(&mut text);
    read.map_err(|error| KeyError::io("read", path, error))?;
    if text.len() as u64 > FILE_LIMIT {
        return Err(KeyError::TooLong {
            path: path.to_owned(),
            limit: FILE_LIMIT,
        });
    }
    Ok(text)
}

fn write_synced(path: &Path, content: &[u8], mode: Mode) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    // The umask can only have taken bits away; this puts back what it took, and nothing more.
    file.set_permissions(Permissions::from_mode(mode.bits()))?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), KeyError> {
    let directory = directory_of(path);
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| KeyError::io("synced", directory, error))
}

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const ROOT: u32 = 0;

/// Bytes. An Ed25519 key file has about 400; the rest is room for a long comment.
const FILE_LIMIT: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rng;

    fn seeded(byte: u8) -> Key {
        Key::from_seed("test key", &[byte; 32])
    }

    fn private_dir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        dir
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_created_key_loads_as_the_same_key() {
        let dir = private_dir();
        let path = dir.path().join("node");
        seeded(1).create_new(&path).unwrap();
        let loaded = Key::load(&path).unwrap();
        assert_eq!(loaded.public_key(), seeded(1).public_key());
        assert_eq!(loaded.public_key().comment().to_string(), "test key");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("node.pub")), 0o644);
        let names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "no draft stays behind: {names:?}");
    }

    #[test]
    fn an_existing_key_is_never_overwritten() {
        let dir = private_dir();
        let path = dir.path().join("node");
        seeded(1).create_new(&path).unwrap();
        let error = seeded(2).create_new(&path).unwrap_err();
        assert!(matches!(error, KeyError::Exists { .. }), "{error}");
        assert_eq!(
            Key::load(&path).unwrap().public_key(),
            seeded(1).public_key()
        );
        let public = fs::read_to_string(dir.path().join("node.pub")).unwrap();
        assert_eq!(
            PublicKey::from_openssh(&public).unwrap(),
            *seeded(1).public_key()
        );
    }

    #[test]
    fn a_key_file_wider_than_0600_is_refused_with_the_chmod_line() {
        let dir = private_dir();
        let path = dir.path().join("node");
        seeded(1).create_new(&path).unwrap();
        for wide in [0o640, 0o604, 0o620, 0o602, 0o601, 0o644, 0o700, 0o4600] {
            fs::set_permissions(&path, Permissions::from_mode(wide)).unwrap();
            let error = Key::load(&path).unwrap_err();
            assert!(
                matches!(error, KeyError::FileTooWide { mode, .. } if mode == wide),
                "{wide:o}: {error}"
            );
            assert!(
                error
                    .to_string()
                    .contains(&format!("`chmod 0600 {}`", path.display()))
            );
        }
        for narrow in [0o600, 0o400] {
            fs::set_permissions(&path, Permissions::from_mode(narrow)).unwrap();
            Key::load(&path).unwrap();
        }
    }

    #[test]
    fn a_directory_wider_than_0700_is_refused_for_loading_and_creating() {
        let dir = private_dir();
        let path = dir.path().join("node");
        seeded(1).create_new(&path).unwrap();
        for wide in [0o701, 0o710, 0o750, 0o755, 0o777] {
            fs::set_permissions(dir.path(), Permissions::from_mode(wide)).unwrap();
            let error = Key::load(&path).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains(&format!("`chmod 0700 {}`", dir.path().display())),
                "{error}"
            );
            let error = seeded(2).create_new(&dir.path().join("host")).unwrap_err();
            assert!(matches!(error, KeyError::DirectoryTooWide { mode, .. } if mode == wide));
        }
        assert!(!dir.path().join("host").exists());
    }

    #[test]
    fn what_is_no_plain_ed25519_key_file_is_refused_by_its_own_name() {
        let dir = private_dir();
        let path = dir.path().join("k");
        assert!(matches!(Key::load(&path), Err(KeyError::Missing { .. })));
        assert!(matches!(
            Key::load(dir.path()),
            Err(KeyError::DirectoryTooWide { .. } | KeyError::NotAFile { .. })
        ));
        write_synced(
            &path,
            b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
            Mode::Private,
        )
        .unwrap();
        assert!(matches!(Key::load(&path), Err(KeyError::Malformed { .. })));
        fs::write(&path, vec![b'a'; FILE_LIMIT as usize + 1]).unwrap();
        assert!(matches!(Key::load(&path), Err(KeyError::TooLong { .. })));
        let locked = seeded(1)
            .private
            .encrypt(&mut test_rng(), "secret")
            .unwrap();
        fs::write(&path, locked.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        assert!(matches!(Key::load(&path), Err(KeyError::Encrypted { .. })));
        let ecdsa = Algorithm::new("ecdsa-sha2-nistp256").unwrap();
        let other = PrivateKey::random(&mut test_rng(), ecdsa).unwrap();
        fs::write(&path, other.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
        assert!(matches!(Key::load(&path), Err(KeyError::Algorithm { .. })));
    }

    #[test]
    fn an_encrypted_key_is_opened_by_its_passphrase_and_by_no_other() {
        let pass = |text: &str| Passphrase::new(text.as_bytes().to_vec().into()).unwrap();
        let dir = private_dir();
        let path = dir.path().join("node");
        let mut rng = test_rng();
        let (right, wrong) = (pass("open sesame"), pass("open Sesame"));
        let key = seeded(1);
        key.create_with(&path, Some(&right), &mut rng).unwrap();
        let (opened, protection) = Key::load_with(&path, Some(&right)).unwrap();
        assert_eq!(
            (opened.public_key(), protection),
            (key.public_key(), Protection::Passphrase)
        );
        let error = Key::load_with(&path, Some(&wrong)).unwrap_err();
        assert!(matches!(error, KeyError::Passphrase { .. }), "{error}");
        assert!(!error.to_string().contains("esame"), "{error}");
        let error = Key::load(&path).unwrap_err();
        assert!(matches!(error, KeyError::Encrypted { .. }), "{error}");
        let (public, protection) = Key::public_half(&path).unwrap();
        assert_eq!(public.key_data(), key.public_key().key_data());
        assert_eq!(protection, Protection::Passphrase);
        assert_eq!(mode(&path), 0o600);
        // One that is in clear is opened with a passphrase as well, and said to be in clear.
        let plain = dir.path().join("host");
        seeded(2).create_new(&plain).unwrap();
        let (_, protection) = Key::load_with(&plain, Some(&right)).unwrap();
        assert_eq!(protection, Protection::Plain);
    }

    #[test]
    fn a_second_start_finds_the_key_of_the_first_and_mends_its_public_file() {
        let dir = private_dir();
        let path = dir.path().join("host_key");
        let (first, origin) = Key::load_or_create(&path, "host", &mut test_rng()).unwrap();
        assert_eq!(origin, Origin::Created);
        for damage in [
            None,
            Some("rubbish"),
            Some(seeded(9).public_key().to_openssh().unwrap().as_str()),
        ] {
            match damage {
                None => fs::remove_file(public_path(&path)).unwrap(),
                Some(text) => fs::write(public_path(&path), text).unwrap(),
            }
            let (again, origin) = Key::load_or_create(&path, "other", &mut test_rng()).unwrap();
            assert_eq!(
                (again.public_key(), origin),
                (first.public_key(), Origin::Loaded)
            );
            let public = fs::read_to_string(public_path(&path)).unwrap();
            assert_eq!(
                PublicKey::from_openssh(&public).unwrap(),
                *first.public_key()
            );
        }
    }

    #[test]
    fn a_broken_key_is_reported_and_not_replaced() {
        let dir = private_dir();
        let path = dir.path().join("node");
        write_synced(&path, b"", Mode::Private).unwrap();
        assert!(matches!(
            Key::load_or_create(&path, "", &mut test_rng()),
            Err(KeyError::Malformed { .. })
        ));
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn debug_shows_the_fingerprint_and_no_key_material() {
        let key = seeded(0x5a);
        let shown = format!("{key:?} {:?}", NodeCa::new(Key::from_seed("", &[0x5a; 32])));
        assert!(shown.contains(&key.fingerprint().to_string()));
        assert!(
            !shown.contains("5a5a") && !shown.contains("90, 90"),
            "{shown}"
        );
    }

    #[test]
    fn a_comment_cannot_add_a_line_to_the_public_file() {
        let key = Key::from_seed("a\nssh-ed25519 AAAA\r\u{1b}[2Jb", &[1; 32]);
        let line = public_line(key.public_key(), Path::new("k")).unwrap();
        assert_eq!(line.lines().count(), 1);
        assert!(!line.contains('\u{1b}'));
    }

    #[test]
    fn a_new_directory_has_mode_0700_and_a_wider_one_is_refused() {
        let dir = private_dir();
        let made = dir.path().join("a/ca");
        create_directory(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
        create_directory(&made).unwrap();
        fs::set_permissions(&made, Permissions::from_mode(0o711)).unwrap();
        assert!(matches!(
            create_directory(&made),
            Err(KeyError::DirectoryTooWide { .. })
        ));
    }
}
