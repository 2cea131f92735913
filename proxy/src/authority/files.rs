//! The key files of one authority, and bringing them to where the database says they belong.
//!
//! ```text
//!  ca/user           the key that signs, always: `ssh-keygen -s` in an emergency takes this one
//!  ca/user.next      announced, and not signing yet
//!  ca/user.previous  signed before; still trusted until it is retired
//! ```
//!
//! Each has its public half beside it (`.pub`); a key that an ssh-agent holds has nothing else here.
//!
//! The database is what counts, and it is written first. The files follow one operation at a time, each found
//! from what is on the disk: so a process killed between any two of them goes on at its next start, and ends
//! up in the same place. A key that nobody else has is never removed, unless it is retired.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anteroom_ca::key::{self, Key, KeyError, Protection, fingerprint};
use ssh_key::PublicKey;
use thiserror::Error;

use super::{AuthorityKind, Record, Stage};

/// Operations until all files are in place: three files with their public halves, each written and
/// taken away once.
const MOST_STEPS: usize = 16;

/// Where a key file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Signing,
    Next,
    Previous,
}

impl Slot {
    const ALL: [Self; 3] = [Self::Signing, Self::Next, Self::Previous];

    fn suffix(self) -> &'static str {
        match self {
            Self::Signing => "",
            Self::Next => ".next",
            Self::Previous => ".previous",
        }
    }
}

/// What is in a slot.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// The private half's file, or the public half where there is no private one.
    pub(crate) key: PublicKey,
    /// Whether and how the private half is here.
    pub(crate) private: Option<Protection>,
    /// The public file, as far as it can be read.
    public: Option<PublicKey>,
}

/// One operation on the files; each leaves nothing that the next look would not understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A second name for the private file.
    LinkPrivate(Slot, Slot),
    /// The private file takes the place of what is there.
    RenamePrivate(Slot, Slot),
    /// The same with the public file of a key that is in an agent.
    CopyPublic(Slot, Slot),
    RenamePublic(Slot, Slot),
    RemovePrivate(Slot),
    RemovePublic(Slot),
    /// Writes the public file anew from the private one.
    MendPublic(Slot),
}

/// The key files of one authority.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    kind: AuthorityKind,
    /// `DIR/ca`.
    dir: PathBuf,
}

impl Files {
    pub(crate) fn new(dir: &Path, kind: AuthorityKind) -> Self {
        Self {
            kind,
            dir: dir.to_owned(),
        }
    }

    /// The private file of a slot.
    pub(crate) fn path(&self, slot: Slot) -> PathBuf {
        self.dir
            .join(format!("{}{}", self.kind.as_str(), slot.suffix()))
    }

    fn public_path(&self, slot: Slot) -> PathBuf {
        key::public_path(&self.path(slot))
    }

    /// What is in the slot, if anything is.
    pub(crate) fn held(&self, slot: Slot) -> Result<Option<Held>, FilesError> {
        let path = self.path(slot);
        let public = self.public(slot)?;
        match Key::public_half(&path) {
            Ok((key, protection)) => Ok(Some(Held {
                key,
                private: Some(protection),
                public,
            })),
            Err(KeyError::Missing { .. }) => Ok(public.map(|key| Held {
                key: key.clone(),
                private: None,
                public: Some(key),
            })),
            Err(error) => Err(error.into()),
        }
    }

    /// What the public file says. Rubbish beside a private file is mended, so it is no error here.
    fn public(&self, slot: Slot) -> Result<Option<PublicKey>, FilesError> {
        let path = self.public_path(slot);
        match key::read_public(&path) {
            Ok(key) => Ok(Some(key)),
            Err(KeyError::Missing { .. }) => Ok(None),
            Err(_) if self.path(slot).exists() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Brings the files to where `record` says they belong, and takes away what is retired.
    ///
    /// # Errors
    /// [`FilesError`]; what is done until then is right, and the next call goes on from there.
    pub(crate) fn arrange(
        &self,
        record: &Record,
        retired: impl Fn(&PublicKey) -> bool,
    ) -> Result<(), FilesError> {
        for _ in 0..MOST_STEPS {
            match self.next_step(record, &retired)? {
                Some(step) => self.take(step)?,
                None => return Ok(()),
            }
        }
        Err(FilesError::Unsettled { kind: self.kind })
    }

    /// What to do next, by what is on the disk.
    pub(crate) fn next_step(
        &self,
        record: &Record,
        retired: &impl Fn(&PublicKey) -> bool,
    ) -> Result<Option<Step>, FilesError> {
        let disk = Disk {
            signing: self.held(Slot::Signing)?,
            next: self.held(Slot::Next)?,
            previous: self.held(Slot::Previous)?,
        };
        for (slot, wanted) in wanted(record) {
            if disk.key(slot).is_some_and(|there| same(there, wanted)) {
                continue;
            }
            let Some(from) = disk.holder(wanted, slot) else {
                // Without the key that signs nothing works; the others matter to the next stage only.
                if slot == Slot::Signing {
                    return Err(self.missing(wanted));
                }
                continue;
            };
            if let Some(step) = self.clear_way(&disk, slot, record, retired)? {
                return Ok(Some(step));
            }
            return Ok(Some(place(&disk, from, slot)));
        }
        Ok(left_over(&disk, record, retired).or_else(|| unmended(&disk)))
    }

    /// Takes away what stands where another key belongs, if it may go.
    fn clear_way(
        &self,
        disk: &Disk,
        slot: Slot,
        record: &Record,
        retired: &impl Fn(&PublicKey) -> bool,
    ) -> Result<Option<Step>, FilesError> {
        let Some(there) = disk.held(slot) else {
            return Ok(None);
        };
        let elsewhere = wanted(record).into_iter().any(|(other, key)| {
            let placed = disk.key(other).is_some_and(|placed| same(placed, key));
            other != slot && same(key, &there.key) && placed
        });
        if !elsewhere && !retired(&there.key) {
            return Err(FilesError::InTheWay {
                path: self.path(slot),
                found: fingerprint(&there.key).to_string(),
            });
        }
        // A private file is replaced by one in a single operation; else it has to go first.
        let replaced = slot == Slot::Signing;
        Ok((there.private.is_some() && !replaced).then_some(Step::RemovePrivate(slot)))
    }

    fn missing(&self, wanted: &PublicKey) -> FilesError {
        FilesError::Missing {
            kind: self.kind,
            wanted: fingerprint(wanted).to_string(),
            path: self.path(Slot::Signing),
        }
    }

    /// Carries one operation out, and has it on the disk.
    pub(crate) fn take(&self, step: Step) -> Result<(), FilesError> {
        let (done, path) = match step {
            Step::LinkPrivate(from, to) => {
                (fs::hard_link(self.path(from), self.path(to)), self.path(to))
            }
            Step::RenamePrivate(from, to) => {
                (fs::rename(self.path(from), self.path(to)), self.path(to))
            }
            Step::RenamePublic(from, to) => {
                let to = self.public_path(to);
                (fs::rename(self.public_path(from), &to), to)
            }
            Step::CopyPublic(from, to) => {
                let public = key::read_public(&self.public_path(from))?;
                key::write_public(&self.path(to), &public)?;
                (Ok(()), self.public_path(to))
            }
            Step::RemovePrivate(slot) => (fs::remove_file(self.path(slot)), self.path(slot)),
            Step::RemovePublic(slot) => {
                let path = self.public_path(slot);
                (fs::remove_file(&path), path)
            }
            Step::MendPublic(slot) => {
                let (public, _) = Key::public_half(&self.path(slot))?;
                key::write_public(&self.path(slot), &public)?;
                (Ok(()), self.public_path(slot))
            }
        };
        let synced = done.and_then(|()| File::open(&self.dir)?.sync_all());
        synced.map_err(|source| FilesError::Io { path, source })
    }
}

/// What the three slots hold.
struct Disk {
    signing: Option<Held>,
    next: Option<Held>,
    previous: Option<Held>,
}

impl Disk {
    fn held(&self, slot: Slot) -> Option<&Held> {
        match slot {
            Slot::Signing => self.signing.as_ref(),
            Slot::Next => self.next.as_ref(),
            Slot::Previous => self.previous.as_ref(),
        }
    }

    fn key(&self, slot: Slot) -> Option<&PublicKey> {
        self.held(slot).map(|held| &held.key)
    }

    /// Another slot than `but` that holds the key, one with the private half first.
    fn holder(&self, wanted: &PublicKey, but: Slot) -> Option<Slot> {
        let others = || Slot::ALL.into_iter().filter(|slot| *slot != but);
        let holds = |slot: &Slot| self.key(*slot).is_some_and(|key| same(key, wanted));
        let private = |slot: &Slot| self.held(*slot).is_some_and(|held| held.private.is_some());
        others()
            .find(|slot| holds(slot) && private(slot))
            .or_else(|| others().find(holds))
    }
}

/// Which key belongs where. The one that signs comes last: what it takes the place of has its own by then.
fn wanted(record: &Record) -> Vec<(Slot, &PublicKey)> {
    let other = match &record.stage {
        Stage::Stable => None,
        Stage::Announced { next } => Some((Slot::Next, next)),
        Stage::Signing { previous } => Some((Slot::Previous, previous)),
    };
    other
        .into_iter()
        .chain([(Slot::Signing, &record.signing)])
        .collect()
}

/// The operation that brings the key in `from` to `to`.
fn place(disk: &Disk, from: Slot, to: Slot) -> Step {
    let private = |slot| disk.held(slot).is_some_and(|held| held.private.is_some());
    match (private(from), to) {
        // What signs stays where it is until the next key takes its place.
        (true, Slot::Next | Slot::Previous) => Step::LinkPrivate(from, to),
        (true, Slot::Signing) => Step::RenamePrivate(from, to),
        (false, Slot::Next | Slot::Previous) => Step::CopyPublic(from, to),
        // A private file would hide the public one that comes.
        (false, Slot::Signing) if private(to) => Step::RemovePrivate(to),
        (false, Slot::Signing) => Step::RenamePublic(from, to),
    }
}

/// What stands in a slot where nothing belongs, and is retired or has its place elsewhere. Anything
/// else is left alone: it may be a key that somebody has put there to be announced.
fn left_over(disk: &Disk, record: &Record, retired: &impl Fn(&PublicKey) -> bool) -> Option<Step> {
    let wanted = wanted(record);
    [Slot::Next, Slot::Previous].into_iter().find_map(|slot| {
        let held = disk.held(slot)?;
        if wanted.iter().any(|(of, _)| *of == slot) {
            return None;
        }
        let placed = wanted.iter().any(|(_, key)| same(key, &held.key));
        if !placed && !retired(&held.key) {
            return None;
        }
        Some(match held.private {
            Some(_) => Step::RemovePrivate(slot),
            None => Step::RemovePublic(slot),
        })
    })
}

/// A public file that is not the private one's.
fn unmended(disk: &Disk) -> Option<Step> {
    Slot::ALL.into_iter().find_map(|slot| {
        let held = disk.held(slot)?;
        held.private?;
        let right = held.public.as_ref().is_some_and(|key| same(key, &held.key));
        (!right).then_some(Step::MendPublic(slot))
    })
}

fn same(one: &PublicKey, other: &PublicKey) -> bool {
    one.key_data() == other.key_data()
}

/// Why the key files are not where they belong.
#[derive(Debug, Error)]
pub enum FilesError {
    /// A file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key that signs is in none of them.
    #[error(
        "the {kind} CA signs with {wanted}, which is not in `{0}`, `{0}.next` or `{0}.previous`: restore it from your backup",
        path.display()
    )]
    Missing {
        /// Which authority.
        kind: AuthorityKind,
        /// The key's fingerprint.
        wanted: String,
        /// Where it belongs.
        path: PathBuf,
    },
    /// A key that is nowhere else stands where another one belongs.
    #[error(
        "`{}` holds {found}, which the database does not know: move it away, or restore the data directory as a whole from your backup",
        path.display()
    )]
    InTheWay {
        /// The file.
        path: PathBuf,
        /// The key's fingerprint.
        found: String,
    },
    /// Something else moves the files about.
    #[error("the key files of the {kind} CA change while they are looked at; start again")]
    Unsettled {
        /// Which authority.
        kind: AuthorityKind,
    },
    /// The file system said no.
    #[error("`{}` could not be put in place: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use time::macros::datetime;

    use super::*;

    fn key(byte: u8) -> Key {
        Key::from_seed("ca", &[byte; 32])
    }

    /// As the database has it: without the comment that the files have.
    fn public(byte: u8) -> PublicKey {
        PublicKey::from(key(byte).public_key().key_data().clone())
    }

    fn record(signing: u8, stage: Stage) -> Record {
        Record {
            kind: AuthorityKind::User,
            signing: public(signing),
            stage,
            since: datetime!(2026-11-20 12:00 UTC),
        }
    }

    fn next(byte: u8) -> Stage {
        Stage::Announced { next: public(byte) }
    }

    fn previous(byte: u8) -> Stage {
        Stage::Signing {
            previous: public(byte),
        }
    }

    /// What a slot has: a private key, a public half alone, or nothing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum In {
        File(u8),
        Agent(u8),
        Nothing,
    }
    use In::{Agent, File as Private, Nothing};

    struct Bench {
        _dir: tempfile::TempDir,
        files: Files,
    }

    impl Bench {
        fn new(signing: In, next: In, previous: In) -> Self {
            let dir = tempfile::tempdir().unwrap();
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
            let files = Files::new(dir.path(), AuthorityKind::User);
            for (slot, held) in Slot::ALL.into_iter().zip([signing, next, previous]) {
                match held {
                    Private(byte) => key(byte).create_new(&files.path(slot)).unwrap(),
                    Agent(byte) => key::write_public(&files.path(slot), &public(byte)).unwrap(),
                    Nothing => {}
                }
            }
            Self { _dir: dir, files }
        }

        fn found(&self) -> [In; 3] {
            Slot::ALL.map(|slot| match self.files.held(slot).unwrap() {
                None => Nothing,
                Some(held) => {
                    let byte = (1..=9)
                        .find(|byte| same(&public(*byte), &held.key))
                        .unwrap();
                    if held.private.is_some() {
                        assert!(same(held.public.as_ref().unwrap(), &held.key), "{slot:?}");
                        Private(byte)
                    } else {
                        Agent(byte)
                    }
                }
            })
        }
    }

    /// The files before, the record to follow, what is retired, and the files after.
    type Change = ([In; 3], Record, Vec<u8>, [In; 3]);

    /// From each stage's files to the next one's: 1 is the old key, 2 the new one.
    fn changes() -> Vec<Change> {
        let mut changes = Vec::new();
        for (old, new) in [
            (Private(1), Private(2)),
            (Agent(1), Agent(2)),
            (Private(1), Agent(2)),
            (Agent(1), Private(2)),
        ] {
            let nothing = Nothing;
            changes.extend([
                // Announced, then all the ways on.
                (
                    [old, new, nothing],
                    record(1, next(2)),
                    vec![],
                    [old, new, nothing],
                ),
                (
                    [old, new, nothing],
                    record(2, previous(1)),
                    vec![],
                    [new, nothing, old],
                ),
                (
                    [old, new, nothing],
                    record(1, Stage::Stable),
                    vec![2],
                    [old, nothing, nothing],
                ),
                (
                    [new, nothing, old],
                    record(2, Stage::Stable),
                    vec![1],
                    [new, nothing, nothing],
                ),
                (
                    [new, nothing, old],
                    record(1, Stage::Stable),
                    vec![2],
                    [old, nothing, nothing],
                ),
            ]);
        }
        changes
    }

    #[test]
    fn killed_after_any_operation_the_next_start_ends_up_in_the_same_place() {
        for (before, record, retired, after) in changes() {
            let retired = |key: &PublicKey| retired.iter().any(|byte| same(&public(*byte), key));
            let mut survived = 0;
            loop {
                let [signing, next, previous] = before;
                let bench = Bench::new(signing, next, previous);
                let mut taken = 0;
                while taken < survived
                    && let Some(step) = bench.files.next_step(&record, &retired).unwrap()
                {
                    bench.files.take(step).unwrap();
                    taken += 1;
                    // The key that signs, and the one that may have to sign again, are never lost.
                    let held: Vec<_> = Slot::ALL
                        .into_iter()
                        .filter_map(|slot| bench.files.held(slot).unwrap())
                        .collect();
                    assert!(
                        held.iter().any(|held| same(&held.key, &record.signing)),
                        "{step:?}"
                    );
                }
                bench.files.arrange(&record, retired).unwrap();
                assert_eq!(
                    bench.found(),
                    after,
                    "{before:?} {record:?} after {survived}"
                );
                if taken < survived {
                    break;
                }
                survived += 1;
            }
        }
    }

    #[test]
    fn a_key_that_nobody_else_has_is_never_replaced_or_removed() {
        let none = |_: &PublicKey| false;
        // Not announced, and not known: it is left for an announcement.
        let bench = Bench::new(Private(1), Private(3), Nothing);
        bench
            .files
            .arrange(&record(1, Stage::Stable), none)
            .unwrap();
        assert_eq!(bench.found(), [Private(1), Private(3), Nothing]);
        // The key that should sign waits beside one that nobody knows.
        for slots in [
            [Private(3), Private(2), Nothing],
            [Agent(3), Private(2), Nothing],
            [Private(3), Agent(2), Nothing],
        ] {
            let [signing, next, previous] = slots;
            let bench = Bench::new(signing, next, previous);
            let error = bench.files.arrange(&record(2, Stage::Stable), none);
            assert!(
                matches!(error, Err(FilesError::InTheWay { .. })),
                "{error:?}"
            );
            assert_eq!(bench.found(), slots);
        }
        // The key that signs is nowhere.
        let bench = Bench::new(Private(3), Nothing, Nothing);
        let error = bench
            .files
            .arrange(&record(1, previous(2)), none)
            .unwrap_err();
        assert!(matches!(error, FilesError::Missing { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&fingerprint(&public(1)).to_string()),
            "{text}"
        );
        assert!(text.contains("user.previous"), "{text}");
        assert_eq!(bench.found(), [Private(3), Nothing, Nothing]);
    }

    #[test]
    fn a_start_goes_on_without_keys_that_matter_to_the_next_stage_only() {
        let none = |_: &PublicKey| false;
        let bench = Bench::new(Private(1), Nothing, Nothing);
        bench.files.arrange(&record(1, next(2)), none).unwrap();
        bench.files.arrange(&record(1, previous(2)), none).unwrap();
        assert_eq!(bench.found(), [Private(1), Nothing, Nothing]);
    }
}
