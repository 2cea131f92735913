//! One of the targets of `anteroom_tests::fuzz`, by `ANTEROOM_FUZZ_TARGET`.
#![no_main]

use std::sync::OnceLock;

use anteroom_tests::fuzz::{FuzzTarget, TARGETS};
use libfuzzer_sys::fuzz_target;

fn chosen() -> &'static FuzzTarget {
    static CHOSEN: OnceLock<&'static FuzzTarget> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("ANTEROOM_FUZZ_TARGET").expect("ANTEROOM_FUZZ_TARGET names a target");
        TARGETS.iter().find(|target| target.name == name).expect("a target of that name")
    })
}

fuzz_target!(|input: &[u8]| (chosen().run)(input));
