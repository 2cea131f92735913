//! The limits of a login (SECURITY section 2), counted per connection.

use std::borrow::Cow;

use russh::server::Auth;
use russh::{MethodKind, MethodSet};

/// What a [`Front`](super::Front) says to an authentication request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Let in; of an offered key: ask for the signature.
    Accept,
    /// It is right, and a code is wanted besides (RFC 4252 section 5.1, partial success).
    GoOn,
    /// Refuse.
    Reject,
}

/// What a client is asked for in a keyboard-interactive step (RFC 4256 section 3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// What to say first; may be empty.
    pub instructions: String,
    /// What to ask.
    pub prompt: &'static str,
}

/// What became of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// It is right: let in.
    Right,
    /// It is not; the client may be asked again.
    Wrong,
    /// No answer would do: end the connection with this sentence.
    Over(String),
}

/// The longest answer that is looked at: a code, with what people put between its digits.
pub(super) const LONGEST_ANSWER: usize = 64;

/// Longest user name that is looked at.
const MAX_USER: usize = 255;

/// Counts what a connection has tried, whatever user names it tried it with.
#[derive(Debug)]
pub(super) struct Meter {
    max_requests: usize,
    max_failures: usize,
    requests: usize,
    failures: usize,
    user: Option<String>,
}

/// What an authentication request is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Look at it.
    SameUser,
    /// Look at it after forgetting all that was known of the earlier user.
    OtherUser,
    /// A user name that nobody can have: refuse it.
    BadName,
    /// One too many: refuse it without looking; the connection is to end.
    TooMany,
}

impl Meter {
    pub(super) fn new(max_requests: usize, max_failures: usize) -> Self {
        Meter {
            max_requests,
            max_failures,
            requests: 0,
            failures: 0,
            user: None,
        }
    }

    /// Counts a request before anything is looked up.
    pub(super) fn begin(&mut self, user: &str) -> Attempt {
        self.requests = self.requests.saturating_add(1);
        if self.is_over() {
            return Attempt::TooMany;
        }
        if user.is_empty() || user.len() > MAX_USER || user.chars().any(char::is_control) {
            self.user = None;
            return Attempt::BadName;
        }
        match self.user.replace(user.to_owned()) {
            Some(before) if before == user => Attempt::SameUser,
            Some(_) | None => Attempt::OtherUser,
        }
    }

    /// Counts a failure.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// Whether the next request is one too many.
    pub(super) fn is_over(&self) -> bool {
        self.requests > self.max_requests || self.failures >= self.max_failures
    }

    /// Whether this is the first request; a `none` there only asks for the
    /// methods and is no failure (as in sshd).
    pub(super) fn is_first(&self) -> bool {
        self.requests == 1
    }
}

/// The engine's word for a verdict.
pub(super) fn answer(verdict: Verdict) -> Auth {
    match verdict {
        Verdict::Accept => Auth::Accept,
        Verdict::GoOn => Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&[MethodKind::KeyboardInteractive][..])),
            partial_success: true,
        },
        Verdict::Reject => Auth::reject(),
    }
}

/// The engine's word for a challenge.
pub(super) fn challenge(challenge: Challenge) -> Auth {
    // Not echoed, as other servers do it.
    Auth::Partial {
        name: Cow::Borrowed(""),
        instructions: Cow::Owned(challenge.instructions),
        prompts: Cow::Owned(vec![(Cow::Borrowed(challenge.prompt), false)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_failures_end_it_whatever_the_user_name() {
        let mut meter = Meter::new(128, 6);
        for n in 0..6 {
            assert_eq!(meter.begin(&format!("user{n}")), Attempt::OtherUser);
            meter.failed();
        }
        assert_eq!(meter.begin("user6"), Attempt::TooMany);
    }

    #[test]
    fn the_hundred_and_twenty_ninth_request_is_refused_though_none_failed() {
        let mut meter = Meter::new(128, 6);
        for _ in 0..128 {
            assert_ne!(meter.begin("alice"), Attempt::TooMany);
        }
        assert_eq!(meter.begin("alice"), Attempt::TooMany);
    }

    #[test]
    fn a_changed_user_name_is_noticed_also_when_it_changes_back() {
        let mut meter = Meter::new(128, 6);
        assert_eq!(meter.begin("alice"), Attempt::OtherUser);
        assert_eq!(meter.begin("alice"), Attempt::SameUser);
        assert_eq!(meter.begin("bob"), Attempt::OtherUser);
        assert_eq!(meter.begin("alice"), Attempt::OtherUser);
    }

    #[test]
    fn names_nobody_can_have_are_not_looked_at() {
        let mut meter = Meter::new(128, 6);
        for name in ["", "a\0b", "a\nb", "a\u{85}b", &"x".repeat(256)] {
            assert_eq!(meter.begin(name), Attempt::BadName, "{name:?}");
        }
        assert_eq!(meter.begin(&"x".repeat(255)), Attempt::OtherUser);
    }
}
