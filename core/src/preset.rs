//! The roles that exist from the start, with Teleport's names and meanings. They are documents
//! like any other; an operator may change or remove them.

use crate::documents::{self, Document};
use crate::role::Role;

/// The documents, in the order of their names.
pub const PRESETS: &str = include_str!("presets.yaml");

/// The preset roles: `access`, `auditor`, `editor`, `requester` and `reviewer`.
#[must_use]
pub fn presets() -> Vec<Role> {
    let documents = documents::parse(PRESETS);
    #[expect(
        clippy::expect_used,
        reason = "a constant text, parsed by a test of this crate"
    )]
    let documents = documents.expect("the presets are documents");
    let roles = documents.into_iter().filter_map(|document| match document {
        Document::Role(role) => Some(*role),
        Document::User(_)
        | Document::Node(_)
        | Document::Lock(_)
        | Document::MonitoringRule(_)
        | Document::Token(_)
        | Document::Resource(_) => None,
    });
    roles.collect()
}
