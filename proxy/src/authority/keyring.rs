//! Where the authorities' keys are, and opening them: key files, a passphrase, an ssh-agent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anteroom_ca::authority::{Authority as Kind, UnservedKey, check_served};
use anteroom_ca::key::{self, Key, KeyError, Origin, Protection};
use anteroom_ca::passphrase::Passphrase;
use rand::CryptoRng;
use ssh_key::PublicKey;
use thiserror::Error;
use time::OffsetDateTime;

use super::files::{Files, Slot};
use super::{
    Authorities, Authority, AuthorityKind, CaAgent, FilesError, PassphraseUnavailable, Record,
    Retired, Signer, Stage, is_retired, print,
};
use crate::config::Config;

/// The variable that names an agent's socket.
const SSH_AUTH_SOCK: &str = "SSH_AUTH_SOCK";

/// Where the key of an authority is (`ca_key`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// In a file of the data directory.
    #[default]
    File,
    /// In an ssh-agent; the file in the data directory has the public half.
    Agent,
}

/// The same for each authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places {
    /// Of the user CA.
    pub user: Place,
    /// Of the node CA.
    pub node: Place,
    /// Of the host CA.
    pub host: Place,
}

impl Places {
    /// The place of one.
    #[must_use]
    pub fn of(self, kind: AuthorityKind) -> Place {
        match kind {
            AuthorityKind::User => self.user,
            AuthorityKind::Node => self.node,
            AuthorityKind::Host => self.host,
        }
    }
}

/// The keys of the authorities in a data directory.
#[derive(Debug)]
pub struct Keyring {
    /// `DIR/ca`.
    dir: PathBuf,
    cluster: String,
    passphrase: Option<Passphrase>,
    places: Places,
    agent: Option<Arc<CaAgent>>,
}

/// What the database and the files together say of an authority.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) record: Record,
    /// Whether its key was made just now.
    pub(crate) origin: Origin,
    /// Whether the database does not have it yet.
    pub(crate) unrecorded: bool,
    /// The key that the database has, where somebody has replaced its file.
    pub(crate) replaced: Option<PublicKey>,
}

impl Keyring {
    /// Finds passphrase and agent; makes the directory if it is not there.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn open(data_dir: &Path, config: &Config) -> Result<Self, KeyringError> {
        let dir = data_dir.join("ca");
        key::create_directory(&dir)?;
        let passphrase = match &config.ca_passphrase {
            Some(source) => Some(source.read(|name| std::env::var_os(name))?),
            None => None,
        };
        let places = config.ca_key;
        let in_agent = |kind: &AuthorityKind| places.of(*kind) == Place::Agent;
        let agent = if AuthorityKind::ALL.iter().any(in_agent) {
            let socket = config.ca_agent_socket.clone();
            let socket = socket.or_else(|| std::env::var_os(SSH_AUTH_SOCK).map(PathBuf::from));
            let socket = socket.filter(|path| path.is_absolute());
            Some(Arc::new(CaAgent::new(
                socket.ok_or(KeyringError::NoSocket)?,
            )))
        } else {
            None
        };
        Ok(Self {
            dir,
            cluster: config.cluster.to_string(),
            passphrase,
            places,
            agent,
        })
    }

    pub(crate) fn files(&self, kind: AuthorityKind) -> Files {
        Files::new(&self.dir, kind)
    }

    pub(crate) fn agent(&self) -> Option<&Arc<CaAgent>> {
        self.agent.as_ref()
    }

    /// Puts the files of an authority where the database says they belong; at the first start, makes
    /// its key.
    pub(crate) fn settle(
        &self,
        kind: AuthorityKind,
        known: Option<Record>,
        retired: &[Retired],
        now: OffsetDateTime,
    ) -> Result<Settled, KeyringError> {
        let files = self.files(kind);
        let Some(mut record) = known else {
            return self.begin(kind, retired, now);
        };
        let arranged = files.arrange(&record, |key| is_retired(retired, key));
        let replaced = match arranged {
            Ok(()) => None,
            Err(error @ FilesError::Missing { .. }) if record.stage == Stage::Stable => {
                // No rotation is under way, and another key is there: an operator has put it there.
                let there = files.held(Slot::Signing)?.map(|held| held.key);
                let Some(there) = there else {
                    return Err(error.into());
                };
                if is_retired(retired, &there) {
                    return Err(KeyringError::Retired {
                        path: files.path(Slot::Signing),
                        found: print(&there),
                    });
                }
                Some(there)
            }
            Err(error) => return Err(error.into()),
        };
        let Some(there) = replaced else {
            return Ok(Settled {
                record,
                origin: Origin::Loaded,
                unrecorded: false,
                replaced: None,
            });
        };
        let replaced = std::mem::replace(
            &mut record,
            Record {
                kind,
                signing: there,
                stage: Stage::Stable,
                since: now,
            },
        );
        files.arrange(&record, |key| is_retired(retired, key))?;
        Ok(Settled {
            record,
            origin: Origin::Loaded,
            unrecorded: true,
            replaced: Some(replaced.signing),
        })
    }

    /// An authority that the database does not know: what is in its file, else a new key.
    fn begin(
        &self,
        kind: AuthorityKind,
        retired: &[Retired],
        now: OffsetDateTime,
    ) -> Result<Settled, KeyringError> {
        let files = self.files(kind);
        let path = files.path(Slot::Signing);
        let (signing, origin) = match (files.held(Slot::Signing)?, self.places.of(kind)) {
            (Some(held), _) => (held.key, Origin::Loaded),
            (None, Place::File) => (self.make(kind, &path)?, Origin::Created),
            (None, Place::Agent) => {
                return Err(KeyringError::NoPublicHalf {
                    kind,
                    path: key::public_path(&path),
                });
            }
        };
        if is_retired(retired, &signing) {
            let found = print(&signing);
            return Err(KeyringError::Retired { path, found });
        }
        let record = Record {
            kind,
            signing,
            stage: Stage::Stable,
            since: now,
        };
        // A public file that somebody has removed or changed is written again.
        files.arrange(&record, |key| is_retired(retired, key))?;
        Ok(Settled {
            record,
            origin,
            unrecorded: true,
            replaced: None,
        })
    }

    fn make(&self, kind: AuthorityKind, path: &Path) -> Result<PublicKey, KeyringError> {
        let mut rng = rand::rng();
        let key = Key::generate(&format!("anteroom {kind} CA {}", self.cluster), &mut rng);
        key.create_with(path, self.passphrase.as_ref(), &mut rng)?;
        Ok(key.public_key().clone())
    }

    /// The key that is to be announced: one that somebody has put there, else a new one.
    pub(crate) fn next_key(
        &self,
        kind: AuthorityKind,
        all: &Authorities,
    ) -> Result<PublicKey, KeyringError> {
        let files = self.files(kind);
        let path = files.path(Slot::Next);
        let next = match (files.held(Slot::Next)?, self.places.of(kind)) {
            (Some(held), _) => held.key,
            (None, Place::File) => self.make(kind, &path)?,
            (None, Place::Agent) => {
                return Err(KeyringError::NoPublicHalf {
                    kind,
                    path: key::public_path(&path),
                });
            }
        };
        let found = || print(&next);
        if all.is_retired(&next) {
            let found = found();
            return Err(KeyringError::Retired { path, found });
        }
        let used = AuthorityKind::ALL.into_iter().find(|of| {
            let trusted = all.record(*of).trusted();
            trusted.iter().any(|key| key.key_data() == next.key_data())
        });
        match used {
            Some(by) => Err(KeyringError::InUse {
                path,
                found: found(),
                by,
            }),
            None => Ok(next),
        }
    }

    /// Who signs with the key in a slot, which has to be this one.
    pub(crate) fn signer<C: Kind>(
        &self,
        kind: AuthorityKind,
        slot: Slot,
        wanted: &PublicKey,
    ) -> Result<Signer<C>, KeyringError> {
        let files = self.files(kind);
        let path = files.path(slot);
        let held = files.held(slot)?;
        let is_it = |key: &PublicKey| key.key_data() == wanted.key_data();
        let Some(held) = held.filter(|held| is_it(&held.key)) else {
            let wanted = print(wanted);
            return Err(FilesError::Missing { kind, wanted, path }.into());
        };
        match (held.private, self.places.of(kind)) {
            (Some(_), place) => {
                if place == Place::Agent {
                    tracing::warn!(
                        "`{0}` signs for the {kind} CA though `ca_key` says `agent`: the private key is still in that file",
                        path.display()
                    );
                }
                self.open_file(&path)
                    .map(|key| Signer::Here(Arc::new(C::here(key))))
            }
            (None, Place::Agent) => {
                check_served(&held.key).map_err(|unserved| KeyringError::Unserved {
                    path: key::public_path(&path),
                    unserved,
                })?;
                Ok(Signer::Agent(held.key))
            }
            (None, Place::File) => Err(KeyringError::OnlyPublic { kind, path }),
        }
    }

    fn open_file(&self, path: &Path) -> Result<Key, KeyringError> {
        let (key, protection) = Key::load_with(path, self.passphrase.as_ref())?;
        self.warn_of_plain(path, protection);
        Ok(key)
    }

    /// A key of the proxy's own, which is no authority's, under the same passphrase.
    pub(crate) fn load_or_create(
        &self,
        path: &Path,
        comment: &str,
        rng: &mut impl CryptoRng,
    ) -> Result<Key, KeyError> {
        let loaded = Key::load_or_create_with(path, comment, self.passphrase.as_ref(), rng);
        let (key, _, protection) = loaded?;
        self.warn_of_plain(path, protection);
        Ok(key)
    }

    fn warn_of_plain(&self, path: &Path, protection: Protection) {
        if self.passphrase.is_some() && protection == Protection::Plain {
            tracing::warn!(
                "key file `{0}` is not encrypted, though there is a CA passphrase; run `ssh-keygen -p -f {0}`",
                path.display()
            );
        }
    }

    /// The authority that the record describes, with its files in place.
    pub(crate) fn authority<C: Kind>(&self, record: Record) -> Result<Authority<C>, KeyringError> {
        let kind = record.kind;
        let signer = self.signer(kind, Slot::Signing, &record.signing)?;
        let next = match &record.stage {
            // It matters when it is to sign, and until then a start does without.
            Stage::Announced { next } => self
                .signer(kind, Slot::Next, next)
                .inspect_err(|error| {
                    tracing::error!("the announced key of the {kind} CA can't be used: {error}");
                })
                .ok(),
            Stage::Stable | Stage::Signing { .. } => None,
        };
        Ok(Authority {
            record,
            signer,
            next,
        })
    }
}

/// Why the authorities' keys cannot be used.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// A key file.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The files are not where they belong.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// The passphrase is not where it should be.
    #[error(transparent)]
    Passphrase(#[from] PassphraseUnavailable),
    /// Nobody says which key of the agent it is.
    #[error(
        "`ca_key` says that an ssh-agent has the key of the {kind} CA, but there is no `{}`: write the key's public half there, one line of what `ssh-add -L` prints",
        path.display()
    )]
    NoPublicHalf {
        /// Which authority.
        kind: AuthorityKind,
        /// The file with the public half.
        path: PathBuf,
    },
    /// The private half is gone, or in an agent that nobody speaks of.
    #[error(
        "of the {kind} CA's key there is only the public half, `{0}.pub`: restore `{0}` from your backup, or set `ca_key: {{{kind}: agent}}` if an ssh-agent has it",
        path.display()
    )]
    OnlyPublic {
        /// Which authority.
        kind: AuthorityKind,
        /// The private file.
        path: PathBuf,
    },
    /// There is no agent to ask.
    #[error(
        "`ca_key: agent` needs the absolute path of the agent's socket: set `ca_agent_socket`, or SSH_AUTH_SOCK for the service"
    )]
    NoSocket,
    /// A key of a kind that is not served.
    #[error("`{}`: {unserved}", path.display())]
    Unserved {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        unserved: UnservedKey,
    },
    /// A key that is trusted no more.
    #[error(
        "`{}` holds {found}, which is retired and signs nothing any more: put another key there, or restore the data directory as a whole",
        path.display()
    )]
    Retired {
        /// The file.
        path: PathBuf,
        /// The key's fingerprint.
        found: String,
    },
    /// A key that an authority has already.
    #[error("`{}` holds {found}, which the {by} CA has already: put another key there", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// The key's fingerprint.
        found: String,
        /// Whose it is.
        by: AuthorityKind,
    },
}

impl KeyringError {
    /// Whether somebody has to correct something, and trying again will not help.
    #[must_use]
    pub fn is_of_the_configuration(&self) -> bool {
        match self {
            Self::Passphrase(_)
            | Self::NoPublicHalf { .. }
            | Self::OnlyPublic { .. }
            | Self::NoSocket
            | Self::Unserved { .. }
            | Self::Retired { .. }
            | Self::InUse { .. }
            | Self::Files(FilesError::Missing { .. } | FilesError::InTheWay { .. }) => true,
            Self::Key(error) | Self::Files(FilesError::Key(error)) => {
                error.is_of_the_operators_making()
            }
            Self::Files(FilesError::Unsettled { .. } | FilesError::Io { .. }) => false,
        }
    }
}
