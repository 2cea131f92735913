//! What a client says to Anteroom itself, in its environment: for connections and for commands alike (INTERFACE section 5).

use std::collections::BTreeSet;
use std::time::Duration;

use anteroom_core::id::UserName;

use crate::say;

/// The variables that are meant for Anteroom, as they were sent. An option of a command wins over each of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `ANTEROOM_REASON`, unless it is blank.
    pub reason: Option<String>,
    /// `ANTEROOM_WAIT`
    pub wait: Option<String>,
    /// `ANTEROOM_REVIEWERS`, the names in it.
    pub reviewers: Vec<String>,
    /// `ANTEROOM_SCOPE`
    pub scope: Option<String>,
}

impl Environment {
    /// Takes a variable that is meant for Anteroom; whether it was one.
    pub fn take(&mut self, name: &str, value: &str) -> bool {
        match name {
            "ANTEROOM_REASON" => {
                self.reason = Some(value.to_owned()).filter(|v| !v.trim().is_empty())
            }
            "ANTEROOM_WAIT" => self.wait = Some(value.to_owned()),
            "ANTEROOM_SCOPE" => self.scope = Some(value.to_owned()),
            "ANTEROOM_REVIEWERS" => {
                let names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty());
                self.reviewers = names.map(str::to_owned).collect();
            }
            _ => return false,
        }
        true
    }

    /// How long to wait: seconds, or a duration as everywhere; zero is not at all, `None` as long as the request lives.
    ///
    /// # Errors
    /// The sentence for her who sent it.
    pub fn patience(&self) -> Result<Option<Duration>, String> {
        let Some(text) = &self.wait else {
            return Ok(None);
        };
        if let Ok(seconds) = text.parse::<u32>() {
            return Ok(Some(Duration::from_secs(seconds.into())));
        }
        say::parse_duration(text)
            .map(|wait| Some(wait.unsigned_abs()))
            .map_err(|_| say::wait_malformed(text))
    }

    /// Whom to suggest as reviewers.
    ///
    /// # Errors
    /// The sentence for her who sent it.
    pub fn reviewers(&self) -> Result<BTreeSet<UserName>, String> {
        let names = self.reviewers.iter().map(|name| UserName::parse(name));
        names
            .collect::<Result<_, _>>()
            .map_err(|error| format!("ANTEROOM_REVIEWERS: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(name: &str, value: &str) -> Environment {
        let mut environment = Environment::default();
        assert!(environment.take(name, value), "{name}");
        environment
    }

    #[test]
    fn what_is_not_for_anteroom_is_left_alone() {
        let mut environment = Environment::default();
        assert!(!environment.take("ANTEROOM_REASONS", "x"));
        assert!(!environment.take("LANG", "C"));
        assert_eq!(environment, Environment::default());
    }

    #[test]
    fn a_blank_reason_is_none() {
        assert_eq!(sent("ANTEROOM_REASON", " \t").reason, None);
        assert_eq!(sent("ANTEROOM_REASON", "x ").reason.as_deref(), Some("x "));
    }

    #[test]
    fn a_wait_is_seconds_or_a_duration_and_nothing_else() {
        let patience = |value| sent("ANTEROOM_WAIT", value).patience();
        assert_eq!(patience("0"), Ok(Some(Duration::ZERO)));
        assert_eq!(patience("90"), Ok(Some(Duration::from_secs(90))));
        assert_eq!(patience("2m"), Ok(Some(Duration::from_secs(120))));
        assert_eq!(Environment::default().patience(), Ok(None));
        for wrong in ["", "-1", "soon", "1.5"] {
            let said = patience(wrong).unwrap_err();
            assert!(
                said.contains("is not a number of seconds"),
                "{wrong}: {said}"
            );
        }
    }

    #[test]
    fn reviewers_are_user_names() {
        let reviewers = |value| sent("ANTEROOM_REVIEWERS", value).reviewers();
        assert_eq!(reviewers(" bob ,,carol").unwrap().len(), 2);
        assert_eq!(reviewers("").unwrap().len(), 0);
        let said = reviewers("Not A Name").unwrap_err();
        assert!(said.starts_with("ANTEROOM_REVIEWERS: "), "{said}");
    }
}
