//! How secrets are kept: sealed with a key that is not in the database, so that a copy of the database alone
//! makes no codes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use rand::Rng;
use thiserror::Error;
use zeroize::Zeroizing;

use super::Secret;

/// Bytes of the key of AES-256.
const KEY: usize = 32;

/// Bytes of the nonce, which stands before what is sealed.
const NONCE: usize = 12;

/// Why the key can't be used, or nothing could be sealed.
#[derive(Debug, Error)]
pub enum SealError {
    /// The system.
    #[error("{what} `{path}`: {source}", path = path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "key file `{path}` can be read by others (mode {mode:04o}); run `chmod 600 {path}`, and have second factors set up anew if somebody did",
        path = path.display()
    )]
    Wider {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Not what was written there.
    #[error("key file `{path}` is damaged; restore it from the backup", path = .0.display())]
    Damaged(PathBuf),
    /// The cryptographic library.
    #[error("a secret could not be sealed")]
    Library,
}

/// Seals and opens secrets.
pub struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// Reads the key in `path`, or makes one.
    ///
    /// # Errors
    /// [`SealError`] says what to do.
    pub fn open(path: &Path, rng: &mut impl Rng) -> Result<Self, SealError> {
        let key = match read(path)? {
            Some(key) => key,
            None => create(path, rng)?,
        };
        Self::with_key(&key)
    }

    /// With this key.
    ///
    /// # Errors
    /// [`SealError::Library`] if it has not 32 bytes.
    pub fn with_key(key: &[u8]) -> Result<Self, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, key)
            .map(Self)
            .map_err(|_| SealError::Library)
    }

    /// Seals a secret of `owner`'s, whose name is part of the seal: it opens for nobody else.
    ///
    /// # Errors
    /// [`SealError::Library`].
    pub fn seal(&self, owner: &str, secret: &Secret) -> Result<Vec<u8>, SealError> {
        // Sealed in place, so that no copy of it stays behind.
        let mut sealed = secret.as_bytes().to_vec();
        sealed.reserve_exact(AES_256_GCM.tag_len());
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(owner.as_bytes()), &mut sealed)
            .map_err(|_| SealError::Library)?;
        Ok([nonce.as_ref().as_slice(), &sealed].concat())
    }

    /// Opens what was sealed for `owner`; `None` if it was not, or not with this key.
    pub fn open_secret(&self, owner: &str, sealed: &[u8]) -> Option<Secret> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(owner.as_bytes());
        let opened = self.0.open_in_place(nonce, aad, &mut bytes).ok()?;
        Some(Secret::from_bytes(Zeroizing::new(opened.to_vec())))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SealError {
    let path = path.to_owned();
    move |source| SealError::Io { what, path, source }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SealError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("opening", path)(error)),
    };
    let mode = file.metadata().map_err(failed("looking at", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(SealError::Wider { path, mode });
    }
    let mut key = Zeroizing::new(vec![0; KEY + 1]);
    let mut read = 0;
    while let Some(room) = key.get_mut(read..).filter(|room| !room.is_empty()) {
        match file.read(room).map_err(failed("reading", path))? {
            0 => break,
            bytes => read += bytes,
        }
    }
    if read != KEY {
        return Err(SealError::Damaged(path.to_owned()));
    }
    key.truncate(KEY);
    Ok(Some(key))
}

/// Makes the key beside its place, and moves it there when it is whole and on the disk.
fn create(path: &Path, rng: &mut impl Rng) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut key = Zeroizing::new(vec![0; KEY]);
    rng.fill_bytes(&mut key);
    let beside = path.with_extension("new");
    // Left behind by a start that was killed.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("removing", &beside)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("creating", &beside))?;
    // The umask may have taken bits away from what was asked for.
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(&key))
        .and_then(|()| file.sync_all())
        .map_err(failed("writing", &beside))?;
    fs::rename(&beside, path).map_err(failed("creating", path))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("syncing", directory))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_owner_and_with_its_key_alone() {
        let sealer = Sealer::with_key(&[1; KEY]).unwrap();
        let secret = Secret::random(&mut rand::rng());
        let sealed = sealer.seal("alice/phone", &secret).unwrap();
        let part = &secret.as_bytes()[..8];
        assert!(!sealed.windows(8).any(|window| window == part));
        let opened = sealer.open_secret("alice/phone", &sealed).unwrap();
        assert_eq!(opened.as_bytes(), secret.as_bytes());
        assert!(sealer.open_secret("mallory/phone", &sealed).is_none());
        let other = Sealer::with_key(&[2; KEY]).unwrap();
        assert!(other.open_secret("alice/phone", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(
                sealer.open_secret("alice/phone", &damaged).is_none(),
                "{at}"
            );
        }
        for length in 0..sealed.len() {
            assert!(
                sealer
                    .open_secret("alice/phone", &sealed[..length])
                    .is_none()
            );
        }
        assert_ne!(sealer.seal("alice/phone", &secret).unwrap(), sealed);
    }

    #[test]
    fn the_key_is_made_once_is_private_and_a_wide_or_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mfa_key");
        let first = Sealer::open(&path, &mut rand::rng()).unwrap();
        let secret = Secret::random(&mut rand::rng());
        let sealed = first.seal("alice/phone", &secret).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let again = Sealer::open(&path, &mut rand::rng()).unwrap();
        assert!(again.open_secret("alice/phone", &sealed).is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let wide = Sealer::open(&path, &mut rand::rng()).unwrap_err();
        assert!(
            matches!(wide, SealError::Wider { mode: 0o640, .. }),
            "{wide}"
        );
        for bytes in [&b""[..], &[7; 31], &[7; 33]] {
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let damaged = Sealer::open(&path, &mut rand::rng()).unwrap_err();
            assert!(matches!(damaged, SealError::Damaged(_)), "{damaged}");
        }
    }
}
