//! Runs what reads other people's bytes ([`anteroom_tests::fuzz`]) on inputs that are kept and on changes of them.
//!
//! `ANTEROOM_FUZZ_SECONDS` is how long each target is given, 2 by default; `ANTEROOM_FUZZ_SEED` repeats a run. An
//! input that something is wrong with is written to `tests/fuzz/regressions` and tried first ever after.
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
use std::time::{Duration, Instant};

use anteroom_tests::fuzz::{FuzzTarget, TARGETS};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Bytes of an input; longer ones find nothing that shorter ones do not.
const LONGEST: usize = 4096;

fn folder(kind: &str, target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(kind)
        .join(target)
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number")),
    )
}

/// The inputs of a folder, in the order of their names.
fn inputs(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(files) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
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

fn run(target: &FuzzTarget) {
    let (kept, failed) = (
        folder("corpus", target.name),
        folder("regressions", target.name),
    );
    let mut seeds = inputs(&failed);
    seeds.extend(inputs(&kept));
    assert!(!seeds.is_empty(), "{} has no corpus", target.name);
    seeds.iter().for_each(|input| (target.run)(input));
    let seed = number("ANTEROOM_FUZZ_SEED").unwrap_or_else(rand::random);
    let lasts = Duration::from_secs(number("ANTEROOM_FUZZ_SECONDS").unwrap_or(2));
    let mut rng = StdRng::seed_from_u64(seed);
    let (began, mut tried) = (Instant::now(), 0_u64);
    while began.elapsed() < lasts {
        let input = changed(&mut rng, &seeds, target.words);
        tried += 1;
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            fs::create_dir_all(&failed).unwrap();
            let file = failed.join(format!("{seed:016x}-{tried}"));
            fs::write(&file, &input).unwrap();
            panic!(
                "{} fails on {:?}, kept as {}",
                target.name,
                String::from_utf8_lossy(&input),
                file.display()
            );
        }
    }
    eprintln!("{}: {tried} inputs with seed {seed}", target.name);
    assert!(tried > 0);
}

fn run_one(name: &str) {
    run(TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect(name));
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
