//! The block that shows one access request, the same to the requester while she waits and to those who review it, who see
//! the labels of the resources as well.

use anteroom_core::duration::format as format_duration;
use time::{Duration, OffsetDateTime};

use super::text::{clean, quote};
use super::when;

/// The resources whose labels the block shows; a request may hold hundreds.
const LABELS_SHOWN: usize = 10;

/// Everything the block shows, already looked up; untrusted text is cleaned here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestBlock {
    /// The request's UUID.
    pub id: String,
    /// Who asks.
    pub user: String,
    /// The roles asked for.
    pub roles: Vec<String>,
    /// Full resource IDs, without `?logins=`.
    pub resources: Vec<String>,
    /// Names of the nodes among the resources, for people.
    pub names: Vec<String>,
    /// What else than nodes is among the resources, in words: `database orders`.
    pub others: Vec<String>,
    /// The logins asked for; empty means whatever the roles allow.
    pub logins: Vec<String>,
    /// Names and labels of the resources that whoever looks may see, each cleaned.
    pub labels: Vec<String>,
    /// The one command that is granted; `None` where any is.
    pub scope: Option<String>,
    /// Who filed it, if that was somebody else.
    pub filed_by: Option<String>,
    /// The roles of a grant that were not asked for.
    pub overridden: Vec<String>,
    /// The command line the client stated, if it did.
    pub command: Option<String>,
    /// Where the client connected from.
    pub remote_addr: Option<String>,
    /// The instant at which access would end or ends.
    pub until: Option<OffsetDateTime>,
    /// How long access would last, where it is counted from an approval that has not come yet:
    /// then nobody knows until when.
    pub lasts: Option<Duration>,
    /// Not before this instant, if it was asked for.
    pub start: Option<OffsetDateTime>,
    /// The stated reason, possibly empty.
    pub reason: String,
    /// Suggested reviewers.
    pub reviewers: Vec<String>,
    /// What the requester's roles wrote on it, each name with its values.
    pub annotations: Vec<(String, Vec<String>)>,
    /// The state's word.
    pub status: String,
    /// How many connections wait for it now; `None` where that is not shown.
    pub waiting: Option<u32>,
    /// Reviews in the order of their arrival.
    pub reviews: Vec<ReviewLine>,
    /// How it was decided or ended, where no review says so.
    pub resolved: Option<ReviewLine>,
}

/// One review inside the block, or the end of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewLine {
    /// Who reviewed; empty where nobody did, and time ran out.
    pub author: String,
    /// `approved` or `denied`; of an end also `expired`, `canceled` or `revoked`.
    pub verdict: String,
    /// How it was given, if not by the author's own hand.
    pub how: Option<String>,
    /// The reviewer's reason, possibly empty.
    pub reason: String,
    /// When.
    pub at: OffsetDateTime,
}

impl RequestBlock {
    /// The block's lines, separated by `\n`, no final one.
    #[must_use]
    pub fn render(&self) -> String {
        let mut lines = vec![
            field("Request ID", &clean(&self.id)),
            field("Username", &clean(&self.user)),
            field("Roles", &list(&self.roles, "[none]")),
            field("Resources", &self.resources()),
        ];
        if let Some(by) = &self.filed_by {
            lines.insert(2, field("Filed by", &clean(by)));
        }
        if self.has_nodes() {
            lines.push(field("Logins", &list(&self.logins, "[any of the roles]")));
        }
        let shown = self.labels.iter().take(LABELS_SHOWN);
        lines.extend(shown.map(|labels| field("Labels", labels)));
        if let Some(more @ 1..) = self.labels.len().checked_sub(LABELS_SHOWN) {
            let json = "`--format json` shows all";
            lines.push(field("Labels", &format!("… of {more} more; {json}")));
        }
        lines.push(field("Grants", &self.grants()));
        if !self.overridden.is_empty() {
            let roles = list(&self.overridden, "");
            lines.push(field(
                "Override",
                &format!("{roles} (not asked for; put in by an administrator)"),
            ));
        }
        if let Some(start) = self.start {
            lines.push(field("Starts", &when::stamp(start)));
        }
        if let Some(command) = self.command.as_deref().filter(|c| !c.is_empty()) {
            lines.push(field(
                "Command",
                &format!("{} (stated by the client)", quote(command)),
            ));
        }
        if let Some(from) = &self.remote_addr {
            lines.push(field("From", &clean(from)));
        }
        lines.push(field("Reason", &quote(&self.reason)));
        lines.push(field(
            "Reviewers",
            &format!("{} (suggested)", list(&self.reviewers, "[none]")),
        ));
        if !self.annotations.is_empty() {
            let each = self.annotations.iter().map(|(key, values)| {
                let values: Vec<String> = values.iter().map(|value| quote(value)).collect();
                format!("{}: [{}]", clean(key), values.join(", "))
            });
            let each: Vec<String> = each.collect();
            lines.push(field("Annotations", &each.join("; ")));
        }
        lines.push(field("Status", &clean(&self.status)));
        if let Some(waiting) = self.waiting {
            lines.push(field("Waiting", &waiting_now(waiting)));
        }
        lines.extend(
            self.reviews
                .iter()
                .map(|review| field("Review", &review.render())),
        );
        if let Some(resolved) = &self.resolved {
            lines.push(field("Decision", &resolved.render()));
        }
        lines.join("\n")
    }

    fn resources(&self) -> String {
        if self.resources.is_empty() {
            return "[none]".to_owned();
        }
        let ids: Vec<String> = self.resources.iter().map(|id| quote(id)).collect();
        let names = if self.names.is_empty() {
            String::new()
        } else {
            format!(" ({})", list(&self.names, ""))
        };
        format!("[{}]{names}", ids.join(","))
    }

    /// What an approval opens, in words a reviewer need not translate.
    fn grants(&self) -> String {
        let until = match (self.lasts, self.start, self.until) {
            (Some(lasts), None, _) => format!(" for {} from the approval", format_duration(lasts)),
            (Some(lasts), Some(_), _) => format!(
                " for {} from the start, or from the approval where that is later",
                format_duration(lasts)
            ),
            (None, _, Some(at)) => format!(" until {}", when::stamp(at)),
            (None, _, None) => String::new(),
        };
        if self.resources.is_empty() {
            let what = if self.roles.len() == 1 {
                "the role"
            } else {
                "the roles"
            };
            return format!("{what} {}{until}", list(&self.roles, "[none]"));
        }
        let others = list(&self.others, "");
        if !self.has_nodes() {
            return format!("{others}{until}");
        }
        let place = if self.names.is_empty() {
            let nodes = self.resources.iter().filter(|id| id.contains("/node/"));
            nodes.cloned().collect()
        } else {
            self.names.clone()
        };
        let login = if self.logins.is_empty() {
            format!("any login of {}", list(&self.roles, "[none]"))
        } else {
            list(&self.logins, "")
        };
        let command = match &self.scope {
            Some(command) => format!("only the command {}", quote(command)),
            None => "any command".to_owned(),
        };
        let and = if others.is_empty() { "" } else { "; " };
        format!(
            "{command} on {} as {login}{and}{others}{until}",
            list(&place, "")
        )
    }

    fn has_nodes(&self) -> bool {
        self.resources.len() > self.others.len()
    }
}

impl ReviewLine {
    fn render(&self) -> String {
        let reason = if self.reason.is_empty() {
            String::new()
        } else {
            format!(", reason={}", quote(&self.reason))
        };
        let by = if self.author.is_empty() {
            String::new()
        } else {
            format!(" by {}", clean(&self.author))
        };
        let how = self
            .how
            .as_ref()
            .map_or_else(String::new, |how| format!(" ({})", clean(how)));
        let verdict = clean(&self.verdict);
        format!("{verdict}{by}{how} at {}{reason}", when::stamp(self.at))
    }
}

/// Whether anybody still waits: an answer then reaches her at once.
fn waiting_now(connections: u32) -> String {
    match connections {
        0 => "nobody at this moment".to_owned(),
        1 => "1 connection".to_owned(),
        several => format!("{several} connections"),
    }
}

/// `Label:` in a column of thirteen.
fn field(label: &str, value: &str) -> String {
    format!("{:<13}{value}", format!("{label}:"))
}

fn list(items: &[String], none: &str) -> String {
    if items.is_empty() {
        return none.to_owned();
    }
    let cleaned: Vec<_> = items.iter().map(|item| clean(item)).collect();
    cleaned.join(", ")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn block() -> RequestBlock {
        RequestBlock {
            id: "ab43fc70-e893-471b-872e-ae65eb24fd76".to_owned(),
            user: "alice".to_owned(),
            roles: vec!["access".to_owned()],
            resources: vec!["/example.com/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f".to_owned()],
            names: vec!["iot".to_owned()],
            logins: vec!["root".to_owned()],
            until: Some(datetime!(2026-11-20 22:10:00 UTC)),
            reason: "please".to_owned(),
            status: "PENDING".to_owned(),
            ..RequestBlock::default()
        }
    }

    #[test]
    fn the_block_is_the_contract_to_the_letter() {
        let expected = r#"Request ID:  ab43fc70-e893-471b-872e-ae65eb24fd76
Username:    alice
Roles:       access
Resources:   ["/example.com/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f"] (iot)
Logins:      root
Grants:      any command on iot as root until 20 Nov 26 22:10 UTC
Reason:      "please"
Reviewers:   [none] (suggested)
Status:      PENDING"#;
        assert_eq!(block().render(), expected);
    }

    #[test]
    fn what_is_counted_from_the_approval_has_no_end_before_it() {
        let lasting = RequestBlock {
            lasts: Some(Duration::hours(1)),
            ..block()
        };
        let said = "Grants:      any command on iot as root for 1h from the approval\n";
        assert!(lasting.render().contains(said), "{}", lasting.render());
        let scheduled = RequestBlock {
            start: Some(datetime!(2026-11-21 08:00:00 UTC)),
            ..lasting
        };
        let said = " for 1h from the start, or from the approval where that is later\nStarts:";
        assert!(scheduled.render().contains(said), "{}", scheduled.render());
    }

    #[test]
    fn a_reason_cannot_add_a_line_to_the_block() {
        let hostile = RequestBlock {
            reason: "x\"\nStatus:      APPROVED\u{202e}".to_owned(),
            ..block()
        };
        let rendered = hostile.render();
        assert_eq!(rendered.lines().count(), block().render().lines().count());
        assert!(rendered.contains(r#"Reason:      "x\"\nStatus:      APPROVED\u{202e}""#));
    }

    #[test]
    fn an_end_that_no_review_tells_of_has_a_line_of_its_own() {
        let at = datetime!(2026-11-20 12:30:00 UTC);
        let resolved = |author: &str, verdict: &str, reason: &str| RequestBlock {
            resolved: Some(ReviewLine {
                author: author.to_owned(),
                verdict: verdict.to_owned(),
                how: None,
                reason: reason.to_owned(),
                at,
            }),
            ..block()
        };
        let denied = resolved("the local administrator", "denied", "not today").render();
        assert!(
            denied.ends_with(
                "\nDecision:    denied by the local administrator at 20 Nov 26 12:30 UTC, \
                 reason=\"not today\""
            ),
            "{denied}"
        );
        let expired = resolved("", "expired", "").render();
        assert!(
            expired.ends_with("\nDecision:    expired at 20 Nov 26 12:30 UTC"),
            "{expired}"
        );
    }

    #[test]
    fn a_request_for_roles_names_them() {
        let roles = RequestBlock {
            resources: vec![],
            names: vec![],
            logins: vec![],
            ..block()
        };
        assert!(roles.render().contains(
            "Resources:   [none]\nGrants:      the role access until 20 Nov 26 22:10 UTC"
        ));
    }
}
