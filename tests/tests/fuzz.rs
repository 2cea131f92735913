//! Runs what reads other people's bytes ([`anteroom_tests::fuzz`]) on inputs that are kept and on changes of them.
//!
//! `ANTEROOM_FUZZ_SECONDS` is how long each target is given, 2 by default and 60 in `.ci/run`; `ANTEROOM_FUZZ_SEED`
//! repeats a run. An input that something is wrong with is written to `tests/fuzz/regressions` and tried first ever
//! after.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anteroom_tests::fuzz::{FuzzTarget, TARGETS};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes of an input; longer ones find nothing that shorter ones do not.
const LONGEST: usize = 4096;

/// One input takes microseconds, or milliseconds where a program is asked. What takes longer than this, on a machine
/// that does other things beside, has no end.
const ENDLESS: Duration = Duration::from_secs(30);

/// Where the inputs of all targets are.
fn kept_inputs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// The inputs of a folder with their files, in the order of their names.
fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(files) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |file: PathBuf| {
        let input = fs::read(&file).unwrap();
        (file, input)
    };
    files.into_iter().map(read).collect()
}

/// An input that has something of others, of the target's words, and of chance.
fn changed(rng: &mut StdRng, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut input = match seeds.len() {
        0 => Vec::new(),
        many => seeds[rng.random_range(0..many)].clone(),
    };
    for _ in 0..rng.random_range(1..6_u8) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..7_u8) {
            0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8_u8),
            1 if at < input.len() => input[at] = rng.random(),
            2 => input.insert(at, rng.random()),
            3 if at < input.len() => {
                let end = rng.random_range(at..=input.len());
                input.drain(at..end);
            }
            4 if !words.is_empty() => {
                let word = words[rng.random_range(0..words.len())];
                input.splice(at..at, word.bytes());
            }
            5 if !seeds.is_empty() => {
                let other = &seeds[rng.random_range(0..seeds.len())];
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => {
                let end = rng.random_range(at..=input.len());
                let piece = input[at..end].to_vec();
                for _ in 0..rng.random_range(1..4_u8) {
                    input.splice(at..at, piece.iter().copied());
                }
            }
        }
    }
    input.truncate(LONGEST);
    input
}

/// The input that is being tried, for who watches that it comes to an end.
struct Watched {
    target: &'static str,
    input: Vec<u8>,
    file: PathBuf,
    since: Instant,
}

/// Ends the process, which nothing else would, when one input is tried for too long.
fn watch(tried: &Arc<Mutex<Option<Watched>>>) {
    let tried = Arc::downgrade(tried);
    thread::spawn(move || {
        while let Some(tried) = tried.upgrade() {
            if let Some(watched) = tried.lock().unwrap().as_ref()
                && watched.since.elapsed() > ENDLESS
            {
                keep(&watched.file, &watched.input);
                eprintln!("{}", failed(watched.target, "does not end", watched));
                std::process::abort();
            }
            drop(tried);
            thread::sleep(Duration::from_secs(1));
        }
    });
}

fn keep(file: &Path, input: &[u8]) {
    if !file.exists() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, input).unwrap();
    }
}

/// What is said of an input that something is wrong with.
fn failed(target: &str, how: &str, watched: &Watched) -> String {
    format!(
        "{target} {how} on {:?}\nkept as {}; it is tried first from now on: \
         cargo test -p anteroom-tests --test fuzz",
        String::from_utf8_lossy(&watched.input),
        watched.file.display()
    )
}

/// Tries a target on what is kept in `folder` and on changes of it, for as long as is said.
fn run(target: &FuzzTarget, folder: &Path, lasts: Duration) {
    let failures = folder.join("regressions").join(target.name);
    let mut kept = inputs(&failures);
    kept.extend(inputs(&folder.join("corpus").join(target.name)));
    assert!(!kept.is_empty(), "{} has no corpus", target.name);
    let tried = Arc::new(Mutex::new(None));
    watch(&tried);
    let attempt = |file: PathBuf, input: Vec<u8>| {
        *tried.lock().unwrap() = Some(Watched {
            target: target.name,
            input: input.clone(),
            file,
            since: Instant::now(),
        });
        let held = catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_ok();
        let watched = tried.lock().unwrap().take().unwrap();
        if !held {
            keep(&watched.file, &input);
            panic!("{}", failed(target.name, "fails", &watched));
        }
    };
    for (file, input) in &kept {
        attempt(file.clone(), input.clone());
    }
    let seeds: Vec<Vec<u8>> = kept.into_iter().map(|(_, input)| input).collect();
    let seed = number("ANTEROOM_FUZZ_SEED").unwrap_or_else(rand::random);
    let mut rng = StdRng::seed_from_u64(seed);
    let (began, mut count) = (Instant::now(), 0_u64);
    while began.elapsed() < lasts {
        count += 1;
        let input = changed(&mut rng, &seeds, target.words);
        attempt(failures.join(format!("{seed:016x}-{count}")), input);
    }
    eprintln!("{}: {count} inputs with seed {seed}", target.name);
    assert!(count > 0);
}

fn run_one(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let lasts = Duration::from_secs(number("ANTEROOM_FUZZ_SECONDS").unwrap_or(2));
    run(target.expect(name), &kept_inputs(), lasts);
}

#[test]
fn no_text_is_a_name_in_two_ways() {
    run_one("ids");
}

#[test]
fn no_text_makes_the_reader_of_predicates_fail() {
    run_one("predicates");
}

#[test]
fn no_text_makes_the_reader_of_documents_fail() {
    run_one("documents");
}

#[test]
fn no_command_line_is_logged_as_another_one() {
    run_one("commands");
}

#[test]
fn no_change_of_a_certificate_is_genuine() {
    run_one("certificates");
}

#[test]
fn no_text_passes_for_an_entry_of_the_audit_log() {
    run_one("audit");
}

#[test]
fn no_bytes_make_the_messages_of_nodes_fail() {
    run_one("node_protocol");
}

#[test]
fn no_bytes_are_a_revocation_list_that_ssh_keygen_reads_otherwise() {
    run_one("krl");
}

#[test]
fn no_text_is_hostile_once_it_is_cleaned() {
    run_one("texts");
}

#[test]
fn every_target_is_run() {
    let source = include_str!("fuzz.rs");
    for target in TARGETS {
        let run = format!("run_one(\"{}\")", target.name);
        assert!(source.contains(&run), "{}", target.name);
    }
}

/// A reader that cannot stand one byte.
const FRAIL: FuzzTarget = FuzzTarget {
    name: "frail",
    run: |input| assert!(!input.contains(&b'!'), "an exclamation mark"),
    words: &["!"],
};

#[test]
fn a_failure_is_kept_as_a_file_and_is_tried_first_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let corpus = dir.path().join("corpus/frail");
    fs::create_dir_all(&corpus).unwrap();
    fs::write(corpus.join("00"), "harmless").unwrap();
    let fails = |lasts| {
        let run = || run(&FRAIL, dir.path(), Duration::from_secs(lasts));
        let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let said = fails(60);
    let kept = inputs(&dir.path().join("regressions/frail"));
    let [(file, input)] = kept.as_slice() else {
        panic!("{kept:?}")
    };
    assert!(input.contains(&b'!'), "{input:?}");
    assert!(said.contains(&file.display().to_string()), "{said}");
    assert!(said.contains("cargo test -p anteroom-tests --test fuzz"));
    // Nothing is tried at random any more before it.
    assert_eq!(fails(0), said);
    fs::remove_file(file).unwrap();
}
