//! The files that keys are in: OpenSSH private key files that nobody else can read.
//!
//! A key is loaded only from a file no wider than 0600 in a directory no wider than 0700; a new key appears
//! whole or not at all, never over an existing one, with those modes whatever the umask.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::CryptoRng;
use ssh_key::private::KeypairData;
use ssh_key::{LineEnding, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::{Key, KeyError, fingerprint};
use crate::passphrase::Passphrase;

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

impl Key {
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
mod tests;
