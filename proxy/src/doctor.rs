//! `anteroom doctor`: is a data directory what it should be?
//!
//! It looks and changes nothing, and may run beside a proxy. The invariants it checks are those
//! of `audit verify`, by the same code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anteroom_ca::key::{Key, KeyError, Protection, fingerprint};
use anteroom_ca::passphrase::Passphrase;

use crate::config::{self, Overrides};
use crate::exit::Exit;
use crate::store::{Reader, SCHEMA};

/// The authorities' keys, which may be under a passphrase.
const AUTHORITIES: [&str; 3] = ["ca/user", "ca/node", "ca/host"];

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
    let passphrase = match passphrase(config) {
        Ok(None) => None,
        Ok(Some(passphrase)) => {
            findings.take("CA passphrase", Ok("can be read".to_owned()));
            Some(passphrase)
        }
        Err(why) => {
            findings.take("CA passphrase", Err(why));
            None
        }
    };
    for file in AUTHORITIES {
        findings.take(file, authority(&dir.join(file), passphrase.as_ref()));
    }
    for file in KEYS {
        let loaded = Key::load(&dir.join(file)).map(|key| key.fingerprint().to_string());
        findings.take(file, loaded.map_err(|error| error.to_string()));
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
    findings.take("roles", roles(&reader).await);
    findings.take("audit log", log(&reader).await);
    findings.conclude()
}

/// The passphrase, if the configuration names a place for one.
fn passphrase(config: Option<&Path>) -> Result<Option<Passphrase>, String> {
    let Some(path) = config else { return Ok(None) };
    // No name is read from it, so any will do where it names none.
    let config = config::load(Some(path), &Overrides::default(), "localhost")
        .map_err(|error| error.to_string())?;
    config
        .ca_passphrase
        .map(|source| source.read(|name| std::env::var_os(name)))
        .transpose()
        .map_err(|error| error.to_string())
}

/// An authority's key: opened if it can be, and looked at from outside if it is encrypted and there
/// is no passphrase.
fn authority(path: &Path, passphrase: Option<&Passphrase>) -> Result<String, String> {
    match Key::load_with(path, passphrase) {
        Ok((key, Protection::Passphrase)) => Ok(format!("{} (encrypted)", key.fingerprint())),
        Ok((key, Protection::Plain)) => Ok(key.fingerprint().to_string()),
        Err(KeyError::Encrypted { .. }) => Key::public_half(path)
            .map(|(public, _)| {
                format!(
                    "{} (encrypted, not opened: name the configuration with --config)",
                    fingerprint(&public)
                )
            })
            .map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
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
    let report = reader
        .verify(Vec::new())
        .await
        .map_err(|error| error.to_string())?;
    Ok(format!(
        "{} entries, {} certificates, {} sessions agree",
        report.head.seq, report.certificates, report.sessions
    ))
}
