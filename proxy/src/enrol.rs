//! Enrolment: a machine shows a token and becomes a node.

mod secret;

pub use secret::Secret;
pub(crate) use secret::random_word;
