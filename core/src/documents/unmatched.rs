//! Patterns that are half a regular expression: they are literals, and no role has such a name.
//!
//! Refused where a role is saved, not where it is read: a stored role with one keeps its meaning, and a
//! role that can't be read denies everything.

use crate::pattern::Pattern;
use crate::role::Role;

/// A pattern for role names that no name matches.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{field}`: `{pattern}` looks like a regular expression, which goes from `^` to `$`, and matches no role as it is; \
     write `^{inner}$`, or a name, with `*` for anything"
)]
pub struct Unmatched {
    /// Where it stands, as in `spec.allow.request.roles`.
    pub field: &'static str,
    /// As it was written.
    pub pattern: String,
    /// The same without anchors.
    pub inner: String,
}

/// Checks that every pattern for role names can match one.
///
/// # Errors
/// [`Unmatched`], the first that can't.
pub fn check_role_patterns(role: &Role) -> Result<(), Unmatched> {
    let fields: [(&'static str, &[Pattern]); 4] = [
        ("spec.allow.request.roles", &role.allow.request.roles),
        ("spec.deny.request.roles", &role.deny.request.roles),
        (
            "spec.allow.review_requests.roles",
            &role.allow.review_requests.roles,
        ),
        (
            "spec.deny.review_requests.roles",
            &role.deny.review_requests.roles,
        ),
    ];
    let texts = fields
        .into_iter()
        .flat_map(|(field, patterns)| patterns.iter().map(move |one| (field, one.as_str())));
    for (field, text) in texts {
        // With both it is an expression, and was compiled as one.
        if text.starts_with('^') != text.ends_with('$') {
            let inner = text.trim_start_matches('^').trim_end_matches('$');
            return Err(Unmatched {
                field,
                pattern: text.to_owned(),
                inner: inner.to_owned(),
            });
        }
    }
    Ok(())
}
