//! Why a key or its file cannot be used, with the command that mends it.

use std::io;
use std::path::{Path, PathBuf};

use ssh_key::Algorithm;
use thiserror::Error;

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
    /// Whether somebody has to put something right, and trying again will not help.
    #[must_use]
    pub fn is_of_the_operators_making(&self) -> bool {
        match self {
            Self::DirectoryTooWide { .. }
            | Self::FileTooWide { .. }
            | Self::Owner { .. }
            | Self::NotAFile { .. }
            | Self::TooLong { .. }
            | Self::Malformed { .. }
            | Self::MalformedPublic { .. }
            | Self::Encrypted { .. }
            | Self::Passphrase { .. }
            | Self::Algorithm { .. } => true,
            Self::Missing { .. }
            | Self::NoDirectory { .. }
            | Self::Exists { .. }
            | Self::Io { .. } => false,
        }
    }

    pub(super) fn io(verb: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::NotFound {
            return Self::Missing { path };
        }
        Self::Io { verb, path, source }
    }

    pub(super) fn creating(path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::AlreadyExists {
            return Self::Exists {
                path: path.to_owned(),
            };
        }
        Self::io("created", path, source)
    }

    pub(super) fn entering(directory: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::NotFound {
            return Self::NoDirectory {
                path: directory.to_owned(),
            };
        }
        Self::io("examined", directory, source)
    }
}
