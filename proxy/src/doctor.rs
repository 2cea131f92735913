//! `anteroom doctor`: is a data directory what it should be?
//!
//! It looks and changes nothing, and may run beside a proxy. The invariants it checks are those
//! of `audit verify`, by the same code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anteroom_ca::key::Key;

use crate::exit::Exit;
use crate::store::{Reader, SCHEMA};

/// The keys that a data directory has from its first start on.
const KEYS: [&str; 5] = [
    "ca/user",
    "ca/node",
    "ca/host",
    "host_key",
    "inner_host_key",
];

/// Checks `dir`, printing a line for each thing looked at. `Done` if all is well.
pub async fn run(dir: &Path) -> Exit {
    let mut findings = Findings::default();
    if !dir.is_dir() {
        eprintln!("anteroom: there is no data directory `{}`", dir.display());
        return Exit::NotFound;
    }
    findings.take("directory", private(dir, 0o700));
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
