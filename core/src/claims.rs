//! `claims_to_roles`: roles that a person may ask for, or review, because of what her traits say.

use regex::Regex;

use crate::id::RoleName;
use crate::pattern::{self, Pattern, PatternError, same};
use crate::user::User;

/// One mapping: whoever has the trait `claim` with a value that matches is spoken of by `roles`.
#[derive(Debug, Clone)]
pub struct ClaimMapping {
    claim: String,
    value: Pattern,
    roles: Vec<Mapped>,
    /// The value with its groups; only where a role refers to one.
    groups: Option<Regex>,
}

/// A role of a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mapped {
    /// A literal, glob or regular expression.
    Pattern(Pattern),
    /// A text with `$1` in it. What it expands to is compared as it is: a trait never widens to a
    /// glob (as in Teleport).
    Expanded(String),
}

impl ClaimMapping {
    /// A mapping as a document has it. `value` is a literal, a glob or `^…$`; in `roles`, `$1` or
    /// `${name}` stands for what the value's group caught, where a star of a glob is a group.
    ///
    /// # Errors
    /// [`PatternError`] if an expression does not compile or a role names a group that the value
    /// has not; with the index of the role, or none if it is the value.
    pub fn new(
        claim: String,
        value: &str,
        roles: &[&str],
    ) -> Result<Self, (Option<usize>, PatternError)> {
        let pattern = Pattern::parse(value).map_err(|problem| (None, problem))?;
        let refers = roles
            .iter()
            .any(|role| !pattern::references(role).is_empty());
        let groups = refers.then(|| pattern::with_groups(value));
        let groups = groups.transpose().map_err(|problem| (None, problem))?;
        let mapped = |(index, role): (usize, &&str)| match &groups {
            Some(groups) if !pattern::references(role).is_empty() => {
                pattern::check_references(role, groups, value)
                    .map(|()| Mapped::Expanded((*role).to_owned()))
                    .map_err(|problem| (Some(index), problem))
            }
            Some(_) | None => Pattern::parse(role)
                .map(Mapped::Pattern)
                .map_err(|problem| (Some(index), problem)),
        };
        let mapped = roles.iter().enumerate().map(mapped);
        Ok(Self {
            claim,
            value: pattern,
            roles: mapped.collect::<Result<_, _>>()?,
            groups,
        })
    }

    /// Whether `role` is among what this gives `user`.
    #[must_use]
    pub fn names(&self, user: &User, role: &RoleName) -> bool {
        user.trait_values(&self.claim)
            .filter(|value| self.value.matches(value))
            .any(|value| self.roles.iter().any(|r| self.gives(r, value, role)))
    }

    fn gives(&self, mapped: &Mapped, value: &str, role: &RoleName) -> bool {
        match (mapped, &self.groups) {
            (Mapped::Pattern(pattern), _) => pattern.matches(role.as_str()),
            (Mapped::Expanded(text), Some(groups)) => {
                let mut expanded = String::new();
                groups.captures(value).is_some_and(|captures| {
                    captures.expand(text, &mut expanded);
                    same(&expanded, role.as_str())
                })
            }
            (Mapped::Expanded(_), None) => false,
        }
    }
}

impl PartialEq for ClaimMapping {
    fn eq(&self, other: &Self) -> bool {
        // The groups follow from the value.
        self.claim == other.claim && self.value == other.value && self.roles == other.roles
    }
}

impl Eq for ClaimMapping {}

/// Whether any of `mappings` gives `user` the role.
#[must_use]
pub fn any_names(mappings: &[ClaimMapping], user: &User, role: &RoleName) -> bool {
    mappings.iter().any(|mapping| mapping.names(user, role))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(value: &str, roles: &[&str], traits: &[&str], role: &str) -> bool {
        let mapping = ClaimMapping::new("groups".to_owned(), value, roles).unwrap();
        let mut user = User::new("alice".parse().unwrap());
        let traits = traits.iter().map(|v| (*v).to_owned()).collect();
        user.traits.insert("groups".to_owned(), traits);
        mapping.names(&user, &role.parse().unwrap())
    }

    #[test]
    fn a_literal_value_gives_its_roles_and_another_gives_none() {
        assert!(names("sre", &["dba", "ops-*"], &["dev", "sre"], "ops-1"));
        assert!(!names("sre", &["dba", "ops-*"], &["dev", "sre-x"], "ops-1"));
        assert!(!names("sre", &[], &["sre"], "dba"));
        assert!(!names("sre", &["dba"], &[], "dba"));
    }

    #[test]
    fn groups_stand_in_roles_for_what_they_caught() {
        assert!(names(
            "^team-(.*)$",
            &["$1-admin"],
            &["team-red"],
            "red-admin"
        ));
        assert!(names(
            "^(?P<t>\\w+)-(x|y)$",
            &["${t}.$2"],
            &["red-y"],
            "red.y"
        ));
        assert!(!names(
            "^team-(.*)$",
            &["$1-admin"],
            &["team-red"],
            "blue-admin"
        ));
        // A star of a glob is a group.
        assert!(names("team-*", &["$1-admin"], &["team-red"], "red-admin"));
    }

    #[test]
    fn what_a_trait_says_never_widens_to_a_pattern() {
        assert!(!names("team-*", &["$1"], &["team-*"], "dba"));
        assert!(!names("^team-(.*)$", &["$1"], &["team-^.*$"], "dba"));
    }

    #[test]
    fn a_group_that_is_not_there_is_refused() {
        let refused = |value: &str, role: &str| {
            ClaimMapping::new("groups".to_owned(), value, &[role]).unwrap_err()
        };
        assert_eq!(refused("sre", "$1").0, Some(0));
        assert_eq!(refused("^a(.*)$", "$2").0, Some(0));
        // `$1x` is the group named 1x, in Teleport as here.
        assert_eq!(refused("^a(.*)$", "$1x").0, Some(0));
        assert_eq!(refused("^a($", "$1").0, None);
    }
}
