//! The certificate authorities: where their keys are, which one signs, and which ones are trusted.

mod passphrase;

pub use passphrase::{PassphraseSource, PassphraseUnavailable};
