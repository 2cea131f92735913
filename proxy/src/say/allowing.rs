//! Pre-approvals in words, and what would be reviewed at once.

use anteroom_core::allowance::{Allowance, Covers};
use anteroom_core::request::{AccessRequest, Automatic, AutomaticReview, State};

use super::text::{clean, quote};
use super::when;

/// What a pre-approval covers, in words.
#[must_use]
pub fn covers(covers: &Covers) -> String {
    let list = |names: Vec<String>| clean(&names.join(",")).into_owned();
    match covers {
        Covers::Nodes {
            labels,
            logins,
            roles,
        } => {
            let login = match logins {
                Some(logins) => {
                    format!(
                        "as {}",
                        list(logins.iter().map(ToString::to_string).collect())
                    )
                }
                None => "as any login".to_owned(),
            };
            let through = roles.as_ref().map_or_else(String::new, |roles| {
                let roles = list(roles.iter().map(ToString::to_string).collect());
                format!(" through {roles}")
            });
            format!("nodes with {} {login}{through}", super::labels(labels))
        }
        Covers::Roles(roles) => {
            let roles = list(roles.iter().map(ToString::to_string).collect());
            format!("roles {roles}")
        }
    }
}

/// A pre-approval as a block of lines.
#[must_use]
pub fn allowance(allowance: &Allowance) -> String {
    let fields = [
        ("ID", allowance.id.to_string()),
        ("From", allowance.author.to_string()),
        ("For", allowance.user.to_string()),
        ("Covers", covers(&allowance.covers)),
        ("Until", when::stamp(allowance.ends)),
        ("Reason", quote(&allowance.reason)),
    ];
    let lines = fields.map(|(label, value)| format!("{:<13}{value}", format!("{label}:")));
    lines.join("\n")
}

/// What would happen at once to a request that is not filed, or joined, yet; `None` where a person
/// would have to speak first. `then` is the request after these reviews.
#[must_use]
pub fn foreseen(reviews: &[AutomaticReview], then: &AccessRequest) -> Option<String> {
    let given = reviews.iter().filter(|review| review.outcome.is_ok());
    let by: Vec<String> = given.map(|review| automatic(&review.by)).collect();
    if by.is_empty() {
        return None;
    }
    let by = by.join(" and ");
    Some(match then.state {
        State::Approved => format!("It would be approved at once by {by}."),
        State::Denied => format!("It would be denied at once by {by}."),
        State::Pending => {
            format!("It would be reviewed at once by {by}, and wait for further reviews.")
        }
        State::Expired | State::Canceled | State::Revoked => return None,
    })
}

fn automatic(by: &Automatic) -> String {
    match by {
        Automatic::Rule(rule) => format!("access monitoring rule `{}`", rule.name),
        Automatic::Allowance(allowance) => {
            format!(
                "{} (pre-approval {})",
                clean(allowance.author.as_str()),
                allowance.id
            )
        }
    }
}
