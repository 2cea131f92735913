//! Numbers: medians, processor time and memory of processes, the machine's description.

use std::collections::BTreeMap;
use std::fs;

use anteroom_tests::Cmd;
use nix::sys::resource::{UsageWho, getrusage};

/// How much the kernel counts as a second of processor time in `/proc`: `USER_HZ`, which is 100
/// on every architecture that Debian runs on (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// A figure taken several times.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of figures, of which there is at least one.
    pub(crate) fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        Self {
            median: figures[figures.len() / 2],
            least: figures[0],
            most: figures[figures.len() - 1],
        }
    }

    /// The same for one of `parts` equal parts.
    pub(crate) fn per(&self, parts: f64) -> Self {
        Self {
            median: self.median / parts,
            least: self.least / parts,
            most: self.most / parts,
        }
    }

    /// `MEDIAN UNIT (LEAST to MOST)`, each times `factor` and with so many decimals.
    pub(crate) fn show(&self, factor: f64, decimals: usize, unit: &str) -> String {
        format!(
            "{:.decimals$} {unit} ({:.decimals$} to {:.decimals$})",
            self.median * factor,
            self.least * factor,
            self.most * factor,
        )
    }
}

/// A count as a number to divide by.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub(crate) fn float(count: usize) -> f64 {
    count as f64
}

/// Processor seconds that a process and its ended children have used.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let ticks: f64 = after_name(&stat)
        .skip(11)
        .take(4)
        .map(|field| field.parse::<f64>().expect("a number of ticks"))
        .sum();
    ticks / TICKS_PER_SECOND
}

/// Processor seconds that this thread has used: what a computation costs, whatever else runs.
pub(crate) fn own_thread_seconds() -> f64 {
    own_seconds(UsageWho::RUSAGE_THREAD)
}

/// Processor seconds that this process has used.
pub(crate) fn own_process_seconds() -> f64 {
    own_seconds(UsageWho::RUSAGE_SELF)
}

fn own_seconds(of: UsageWho) -> f64 {
    let usage = getrusage(of).expect("a process may ask this of itself");
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6)
        .sum()
}

/// The processes that `pid` started and their children, and so on, without itself.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").expect("/proc is mounted").flatten() {
        let id = entry.file_name().to_string_lossy().parse();
        // Processes come and go while the list is read.
        let stat = fs::read_to_string(entry.path().join("stat"));
        let (Ok(id), Ok(stat)) = (id, stat) else {
            continue;
        };
        let parent = after_name(&stat).nth(1).and_then(|id| id.parse().ok());
        children.entry(parent.unwrap_or(0)).or_default().push(id);
    }
    let mut found = children.remove(&pid).unwrap_or_default();
    let mut next = 0;
    while let Some(&id) = found.get(next) {
        found.extend(children.remove(&id).unwrap_or_default());
        next += 1;
    }
    found
}

/// The memory of these processes in KiB, with what they share counted once (`Pss`, proc(5)).
pub(crate) fn shared_memory_kib(processes: &[u32]) -> f64 {
    let of = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok())
            .unwrap_or_default()
    };
    processes.iter().map(of).sum()
}

/// The fields of `/proc/PID/stat` behind the name, whose parentheses may hold anything; the
/// first one is the state (proc(5)).
fn after_name(stat: &str) -> impl Iterator<Item = &str> {
    let (_, rest) = stat.rsplit_once(") ").expect("a name in parentheses");
    rest.split_whitespace()
}

/// What was measured on: processor, memory, kernel, versions.
pub(crate) fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let count = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory = read("/proc/meminfo");
    let kib: u64 = memory
        .split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_default();
    let build = if cfg!(debug_assertions) {
        "debug build: the figures mean nothing"
    } else {
        "release build"
    };
    format!(
        "{count} × {model}, {} GiB, Linux {}, {}, {build}",
        kib / 1024 / 1024,
        read("/proc/sys/kernel/osrelease").trim(),
        Cmd::new("ssh").arg("-V").run().stderr.trim(),
    )
}
