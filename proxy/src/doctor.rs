//! `anteroom doctor`: is a data directory what it should be?
//!
//! It looks and changes nothing, and may run beside a proxy. The invariants it checks are those
//! of `audit verify`, by the same code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anteroom_ca::key::{Key, KeyError, Protection, fingerprint, public_path, read_public};
use anteroom_ca::passphrase::Passphrase;

use crate::authority::{AuthorityKind, Place, print};
use crate::config::{self, Config, Overrides};
use crate::exit::Exit;
use crate::store::{Reader, SCHEMA, VerifyError};

/// The other keys that a data directory has from its first start on.
const KEYS: [&str; 2] = ["host_key", "inner_host_key"];

/// Checks `dir`, printing a line for each thing looked at. `Done` if all is well.
///
/// The passphrase of encrypted keys is looked for where the configuration in `config` says that it
/// is; without it they are not opened.
pub async fn run(dir: &Path, config: Option<&Path>) -> Exit {
    let mut findings = Findings::default();
    if !dir.is_dir() {
        eprintln!("anteroom: there is no data directory `{}`", dir.display());
        return Exit::NotFound;
    }
    findings.take("directory", private(dir, 0o700));
    let settings = match settings(config) {
        Ok(settings) => settings,
        Err(why) => {
            findings.take("configuration", Err(why));
            None
        }
    };
    let passphrase = settings.as_ref().and_then(passphrase);
    if let Some(found) = &passphrase {
        let found = found.as_ref().map(|_| "can be read".to_owned());
        findings.take("CA passphrase", found.map_err(String::clone));
    }
    let passphrase = passphrase.and_then(Result::ok);
    for kind in AuthorityKind::ALL {
        for suffix in ["", ".next", ".previous"] {
            let file = format!("ca/{kind}{suffix}");
            let path = dir.join(&file);
            // The last two are there only during a rotation.
            if suffix.is_empty() || path.exists() || public_path(&path).exists() {
                let place = settings.as_ref().map(|config| config.ca_key.of(kind));
                findings.take(&file, authority(&path, place, passphrase.as_ref()));
            }
        }
    }
    for file in KEYS {
        findings.take(
            file,
            authority(&dir.join(file), Some(Place::File), passphrase.as_ref()),
        );
    }
    // A directory that an older version made has it from the next start on.
    let mfa_key = dir.join("mfa_key");
    if mfa_key.exists() {
        findings.take("mfa_key", private(&mfa_key, 0o600));
    }
    for file in ["anteroom.db", "anteroom.db-wal", "anteroom.db-shm"] {
        let path = dir.join(file);
        // The last two are there only while somebody has the database open.
        if file == "anteroom.db" || path.exists() {
            findings.take(file, private(&path, 0o600));
        }
    }
    let reader = Reader::of(dir);
    findings.take("schema", schema(&reader).await);
    findings.take("authorities", rotation(dir, &reader).await);
    findings.take("roles", roles(&reader).await);
    findings.take("audit log", log(&reader).await);
    findings.conclude()
}

fn settings(config: Option<&Path>) -> Result<Option<Config>, String> {
    let Some(path) = config else { return Ok(None) };
    // No name is read from it, so any will do where it names none.
    let config = config::load(Some(path), &Overrides::default(), "localhost");
    config.map(Some).map_err(|error| error.to_string())
}

/// The passphrase, if the configuration names a place for one.
fn passphrase(config: &Config) -> Option<Result<Passphrase, String>> {
    let source = config.ca_passphrase.as_ref()?;
    let read = source.read(|name| std::env::var_os(name));
    Some(read.map_err(|error| error.to_string()))
}

/// An authority's key: opened if it can be, and looked at from outside if it is encrypted and there
/// is no passphrase, or if an agent has it.
fn authority(
    path: &Path,
    place: Option<Place>,
    passphrase: Option<&Passphrase>,
) -> Result<String, String> {
    let text = |error: KeyError| error.to_string();
    match Key::load_with(path, passphrase) {
        Ok((key, Protection::Passphrase)) => Ok(format!("{} (encrypted)", key.fingerprint())),
        Ok((key, Protection::Plain)) => Ok(key.fingerprint().to_string()),
        Err(KeyError::Encrypted { .. }) => {
            let (public, _) = Key::public_half(path).map_err(text)?;
            Ok(format!(
                "{} (encrypted, not opened: name the configuration with --config)",
                fingerprint(&public)
            ))
        }
        Err(KeyError::Missing { .. }) if public_path(path).exists() => {
            let public = read_public(&public_path(path)).map_err(text)?;
            let public = fingerprint(&public);
            match place {
                Some(Place::Agent) => Ok(format!("{public} (in an ssh-agent, not asked)")),
                Some(Place::File) => Err(format!(
                    "{public}: only the public half is there; restore the private one, or set `ca_key: agent`"
                )),
                None => Err(format!(
                    "{public}: only the public half is there; if an ssh-agent has the key, name the configuration with --config"
                )),
            }
        }
        Err(error) => Err(text(error)),
    }
}

/// Whether the key that signs by the database is the one in the file.
async fn rotation(dir: &Path, reader: &Reader) -> Result<String, String> {
    let records = reader.authorities().await;
    let records = records.map_err(|error| error.to_string())?;
    let mut stages = Vec::new();
    for record in &records {
        let path = dir.join("ca").join(record.kind.as_str());
        let public = Key::public_half(&path).map(|(public, _)| public);
        let there = public.or_else(|_| read_public(&public_path(&path)));
        let is_it = there.is_ok_and(|key| key.key_data() == record.signing.key_data());
        if !is_it {
            return Err(format!(
                "by the database {} signs for the {} CA, and `{}` holds another key; the next start puts the files in place, or says what is missing",
                print(&record.signing),
                record.kind,
                path.display()
            ));
        }
        stages.push(format!("{} {}", record.kind, record.stage.as_str()));
    }
    match stages.is_empty() {
        true => Ok("no authority is recorded yet".to_owned()),
        false => Ok(stages.join(", ")),
    }
}

#[derive(Default)]
struct Findings {
    wrong: usize,
}

impl Findings {
    fn take(&mut self, what: &str, finding: Result<String, String>) {
        match finding {
            Ok(found) => println!("ok    {what:<16} {found}"),
            Err(why) => {
                self.wrong += 1;
                println!("WRONG {what:<16} {why}");
            }
        }
    }

    fn conclude(self) -> Exit {
        match self.wrong {
            0 => {
                println!("all is well");
                Exit::Done
            }
            wrong => {
                eprintln!("anteroom: {wrong} of the checks failed");
                Exit::Failed
            }
        }
    }
}

/// Nobody but the owner may reach it.
fn private(path: &Path, widest: u32) -> Result<String, String> {
    let mode = fs::metadata(path)
        .map_err(|error| error.to_string())?
        .permissions()
        .mode()
        & 0o7777;
    if mode & !widest == 0 {
        return Ok(format!("mode {mode:04o}"));
    }
    Err(format!(
        "mode {mode:04o} is wider than {widest:04o}: run `chmod {widest:04o} {}`",
        path.display()
    ))
}

async fn schema(reader: &Reader) -> Result<String, String> {
    match reader.schema().await {
        Ok(found) if found == SCHEMA => Ok(format!("version {found}")),
        Ok(found) if found < SCHEMA => Err(format!(
            "version {found}; this program's is {SCHEMA}, and its next start migrates"
        )),
        Ok(found) => Err(format!(
            "version {found}; this program knows up to {SCHEMA}: use a newer one"
        )),
        Err(error) => Err(error.to_string()),
    }
}

/// A role that can't be read denies everything to its holders, which they should not have to find
/// out by themselves.
async fn roles(reader: &Reader) -> Result<String, String> {
    let (count, unreadable) = reader.roles().await.map_err(|error| error.to_string())?;
    if unreadable.is_empty() {
        return Ok(format!("{count} can be read"));
    }
    let each: Vec<String> = unreadable
        .iter()
        .map(|(name, why)| format!("role `{name}` can't be read and denies everything: {why}"))
        .collect();
    let each = each.join("; ");
    Err(format!(
        "{each}; look with `anteroom ctl get role/NAME`, replace with `anteroom ctl create --force -f FILE`"
    ))
}

async fn log(reader: &Reader) -> Result<String, String> {
    match reader.verify(Vec::new()).await {
        Ok(report) => Ok(format!(
            "{} entries, {} certificates, {} sessions agree",
            report.head.seq, report.certificates, report.sessions
        )),
        Err(error @ VerifyError::Store(_)) => Err(error.to_string()),
        Err(error @ (VerifyError::Tampered(_) | VerifyError::Broken(_))) => Err(format!(
            "{error}; no proxy writes this: find out who changed the database, keep a copy of the directory as \
             it is, and restore a backup that is in order (docs/operations.md)"
        )),
    }
}
