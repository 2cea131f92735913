//! The four things that hold after every case (SECURITY section 8): the proxy is alive with the same process ID,
//! its memory is back, the audit chain verifies, and no row exists beyond what the case allows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{Cmd, World, need};

/// How much more memory than before the proxy may hold when a case is over.
const MEMORY_SLACK_KIB: u64 = 64 * 1024;

/// How the proxy was before a case.
pub struct FourThings {
    process: u32,
    memory_kib: u64,
    rows: BTreeMap<String, u64>,
}

impl FourThings {
    /// Notes how it is now.
    pub fn before(world: &World) -> Self {
        Self {
            process: world.proxy().id(),
            memory_kib: world.memory_kib(),
            rows: rows(world),
        }
    }

    /// Asserts that all of them hold after a case that may leave no row behind, failures in the audit log aside.
    #[track_caller]
    pub fn hold(&self, world: &World, case: &str) {
        self.hold_but_for(world, case, &[]);
    }

    /// The same, for a case that adds this many rows to these tables.
    #[track_caller]
    pub fn hold_but_for(&self, world: &World, case: &str, added: &[(&str, u64)]) {
        self.hold_with(world, case, |table, more| {
            let right = added.iter().find(|(name, _)| *name == table);
            more == right.map_or(0, |(_, right)| *right)
        });
    }

    /// The same, with what may have been added to each table.
    ///
    /// # Panics
    /// Also if there are fewer rows than before: nothing is deleted by anything that is hostile.
    #[track_caller]
    pub fn hold_with(&self, world: &World, case: &str, may_add: impl Fn(&str, u64) -> bool) {
        assert!(
            world.proxy().is_running() && world.proxy().id() == self.process,
            "{case}: the proxy died\n{}",
            world.proxy_log()
        );
        let log = world.proxy_log();
        assert!(!log.contains("panicked at"), "{case}: a panic\n{log}");
        self.memory_is_back(world, case);
        let verified = world.ctl(&["audit", "verify"]);
        assert_eq!(verified.code(), Some(0), "{case}: {verified}");
        for (table, now) in rows(world) {
            let before = self.rows.get(&table).copied().unwrap_or(0);
            let more = now.checked_sub(before);
            assert!(
                more.is_some_and(|more| may_add(&table, more)),
                "{case}: {table} has {now} rows and had {before}"
            );
        }
    }

    #[track_caller]
    fn memory_is_back(&self, world: &World, case: &str) {
        let limit = self.memory_kib + MEMORY_SLACK_KIB;
        let until = Instant::now() + Duration::from_secs(10);
        while world.memory_kib() > limit && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        let now = world.memory_kib();
        assert!(
            now <= limit,
            "{case}: the proxy holds {now} KiB, and held {} before",
            self.memory_kib
        );
    }
}

/// How many rows each table has; the audit log, which grows by failures, and what counts them aside.
fn rows(world: &World) -> BTreeMap<String, u64> {
    need("python3");
    let program = "import json, sqlite3, sys\n\
        db = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)\n\
        names = [name for (name,) in db.execute(\"SELECT name FROM sqlite_schema WHERE type = 'table'\")]\n\
        db.execute('BEGIN')\n\
        print(json.dumps({name: db.execute(f'SELECT count(*) FROM \"{name}\"').fetchone()[0] for name in names}))\n";
    let counted = Cmd::new("/usr/bin/python3")
        .args(["-c", program])
        .arg(world.data_dir().join("anteroom.db"))
        .run();
    counted.exits(0);
    let mut rows: BTreeMap<String, u64> =
        serde_json::from_slice(&counted.stdout).expect("names and numbers");
    rows.retain(|name, _| !["audit", "audit_head", "mfa_failures"].contains(&name.as_str()));
    rows
}
