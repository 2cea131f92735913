//! Where the passphrase of the authorities' key files is, and reading it there.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anteroom_ca::passphrase::{Passphrase, PassphraseError};
use thiserror::Error;
use zeroize::Zeroizing;

/// systemd's folder of credentials (systemd.exec, `LoadCredential=`).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// More than a passphrase has, so that a wrong file is noticed and not read whole.
const LIMIT: u64 = 4096;

/// Where the passphrase is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PassphraseSource {
    /// `ca_passphrase_file`: a file that its owner alone can read.
    File(PathBuf),
    /// `ca_passphrase_env`: a variable of this process.
    Variable(String),
    /// `ca_passphrase_credential`: a credential that systemd hands over.
    Credential(String),
}

impl PassphraseSource {
    /// A file.
    ///
    /// # Errors
    /// What is wrong, for the line of the configuration: a path that depends on where the proxy was
    /// started would be another file under systemd than by hand.
    pub fn file(path: &str) -> Result<Self, String> {
        if Path::new(path).is_absolute() {
            return Ok(Self::File(path.into()));
        }
        Err(format!(
            "`{path}` is no absolute path, as in /etc/anteroom/ca.passphrase"
        ))
    }

    /// An environment variable.
    ///
    /// # Errors
    /// What is wrong, for the line of the configuration.
    pub fn variable(name: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !name.is_empty() && name.bytes().all(plain) {
            return Ok(Self::Variable(name.to_owned()));
        }
        Err(format!(
            "`{name}` is not the name of an environment variable"
        ))
    }

    /// A credential.
    ///
    /// # Errors
    /// What is wrong, for the line of the configuration.
    pub fn credential(name: &str) -> Result<Self, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain) {
            return Ok(Self::Credential(name.to_owned()));
        }
        Err(format!(
            "`{name}` is not the name of a credential: a file name, as in LoadCredential=NAME:PATH"
        ))
    }

    /// Reads it. `variable` looks up an environment variable.
    ///
    /// # Errors
    /// [`PassphraseUnavailable`], which says where it was looked for, and never what was there.
    pub fn read(
        &self,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Passphrase, PassphraseUnavailable> {
        let text = match self {
            Self::File(path) => read_file(path, 0o077)?,
            Self::Variable(name) => match variable(name) {
                Some(value) => Zeroizing::new(value.into_vec()),
                None => return Err(PassphraseUnavailable::NoVariable(name.clone())),
            },
            Self::Credential(name) => match variable(CREDENTIALS) {
                // systemd gives the group a right that the mask of an access list hides.
                Some(dir) => read_file(&Path::new(&dir).join(name), 0o007)?,
                None => return Err(PassphraseUnavailable::NoCredentials(name.clone())),
            },
        };
        Passphrase::new(text).map_err(|why| PassphraseUnavailable::Unusable {
            place: self.place(),
            why,
        })
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => format!("file `{}`", path.display()),
            Self::Variable(name) => format!("variable `{name}`"),
            Self::Credential(name) => format!("credential `{name}`"),
        }
    }
}

/// The file's content, if nobody has the rights in `forbidden` on it.
fn read_file(path: &Path, forbidden: u32) -> Result<Zeroizing<Vec<u8>>, PassphraseUnavailable> {
    let failed = |source| PassphraseUnavailable::File {
        path: path.to_owned(),
        source,
    };
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(PassphraseUnavailable::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & forbidden != 0 {
        return Err(PassphraseUnavailable::TooWide {
            path: path.to_owned(),
            mode,
        });
    }
    // Room for all of it from the start: a vector that grows leaves copies behind.
    let mut text = Zeroizing::new(Vec::with_capacity(LIMIT as usize));
    file.take(LIMIT).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}

/// Why there is no passphrase although the configuration says where one is.
#[derive(Debug, Error)]
pub enum PassphraseUnavailable {
    /// The file cannot be read.
    #[error("the CA passphrase file `{}` cannot be read: {source}; make it, or correct where the configuration says that it is", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, device or FIFO.
    #[error("the CA passphrase file `{}` is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Others can read it.
    #[error("the CA passphrase file `{}` has mode {mode:04o}, so others can read it: run `chmod 0600 {}`, and change the passphrase if others could have read it", path.display(), path.display())]
    TooWide {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The variable is not set.
    #[error(
        "`ca_passphrase_env` names the variable `{0}`, which is not set: set it for the service"
    )]
    NoVariable(String),
    /// systemd gave no credentials.
    #[error(
        "`ca_passphrase_credential` names `{0}`, but there is no $CREDENTIALS_DIRECTORY: add `LoadCredential={0}:PATH` to the unit"
    )]
    NoCredentials(String),
    /// It is there, and is none.
    #[error("the CA passphrase in {place} cannot be used: {why}")]
    Unusable {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        why: PassphraseError,
    },
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_chmod_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pass");
        fs::write(&path, "open sesame\n").unwrap();
        let source = PassphraseSource::File(path.clone());
        for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            match source.read(nothing) {
                Ok(_) => assert!(fits, "{mode:o}"),
                Err(error) => {
                    let error = error.to_string();
                    assert!(!fits && error.contains("chmod 0600"), "{mode:o} {error}");
                    assert!(!error.contains("sesame"), "{error}");
                }
            }
        }
        fs::remove_file(&path).unwrap();
        let error = source.read(nothing).unwrap_err().to_string();
        assert!(error.contains("pass` cannot be read"), "{error}");
    }

    #[test]
    fn a_variable_and_a_credential_are_found_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca");
        fs::write(&path, "open sesame").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o440)).unwrap();
        let folder = dir.path().as_os_str().to_owned();
        let set = |name: &str| match name {
            "CA_PASS" => Some(OsString::from("open sesame")),
            "EMPTY" => Some(OsString::new()),
            CREDENTIALS => Some(folder.clone()),
            _ => None,
        };
        PassphraseSource::variable("CA_PASS")
            .unwrap()
            .read(set)
            .unwrap();
        PassphraseSource::credential("ca")
            .unwrap()
            .read(set)
            .unwrap();
        let missing = |source: Result<PassphraseSource, String>,
                       set: &dyn Fn(&str) -> Option<OsString>| {
            source.unwrap().read(set).unwrap_err().to_string()
        };
        let error = missing(PassphraseSource::variable("OTHER"), &set);
        assert!(error.contains("`OTHER`, which is not set"), "{error}");
        let error = missing(PassphraseSource::variable("EMPTY"), &set);
        assert!(error.contains("it is empty"), "{error}");
        let error = missing(PassphraseSource::credential("ca"), &nothing);
        assert!(error.contains("LoadCredential=ca:PATH"), "{error}");
        let error = missing(PassphraseSource::credential("other"), &set);
        assert!(error.contains("other` cannot be read"), "{error}");
    }
}
