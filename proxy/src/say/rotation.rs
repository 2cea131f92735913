//! What `auth rotate` and `auth status` say: where a rotation is, and what has to be done next.

use anteroom_ca::export::NODE_CA_FILE;

use time::OffsetDateTime;

use super::text::clean;
use super::when::stamp;
use crate::authority::{AuthorityKind, Record, Stage, Step, print};

/// Names that a sentence lists; a few say enough.
const LISTED: usize = 12;

/// A step that does not follow from where the rotation is.
#[must_use]
pub fn wrong_stage(before: &Record, step: Step) -> String {
    let kind = before.kind;
    match &before.stage {
        Stage::Stable => format!(
            "no rotation of the {kind} CA is under way, so there is nothing to {}; {} begins one",
            step.as_str(),
            rotate(kind, Step::Announce)
        ),
        Stage::Announced { next } => format!(
            "a rotation of the {kind} CA is under way: {} is announced, and does not sign yet; {} goes on, {} takes it back",
            print(next),
            rotate(kind, Step::Sign),
            rotate(kind, Step::Rollback)
        ),
        Stage::Signing { previous } => format!(
            "a rotation of the {kind} CA is under way: {} signs, and {} is trusted too; {} ends it, {} takes it back",
            print(&before.signing),
            print(previous),
            rotate(kind, Step::Retire),
            rotate(kind, Step::Rollback)
        ),
    }
}

/// Nodes that would be locked out.
#[must_use]
pub fn unlearnt(kind: AuthorityKind, nodes: &[String]) -> String {
    let names = names(nodes);
    let are = match nodes.len() {
        1 => "1 node is".to_owned(),
        more => format!("{more} nodes are"),
    };
    match kind {
        AuthorityKind::Host => format!(
            "{are} not known to show a certificate of the new host CA: {names}; renew it with `nodes host-cert NODE`, connect once, and look at `auth status`; with `--force` the old CA is retired all the same, and these are refused until they have one"
        ),
        AuthorityKind::User | AuthorityKind::Node => format!(
            "{are} not known to trust the new {kind} CA: {names}; write what `auth export --type node` prints into {NODE_CA_FILE} there, connect once, and look at `auth status`; with `--force` the old CA is retired all the same"
        ),
    }
}

/// Identity certificates that would be void.
#[must_use]
pub fn still_held(valid: i64, last: OffsetDateTime) -> String {
    let are = match valid {
        1 => "1 identity certificate of the old user CA is".to_owned(),
        more => format!("{more} identity certificates of the old user CA are"),
    };
    format!(
        "{are} still valid, the last until {}; retire it then, or have people log in again; with `--force` the old CA is retired all the same, and these are refused",
        stamp(last)
    )
}

/// What a step has come to.
#[must_use]
pub fn step_taken(record: &Record, retired: Option<&str>) -> String {
    let (kind, signing) = (record.kind, print(&record.signing));
    match (&record.stage, retired) {
        (Stage::Announced { next }, _) => format!(
            "{} is announced as the next {kind} CA; {signing} signs, and both are trusted",
            print(next)
        ),
        (Stage::Signing { previous }, _) => format!(
            "{signing} signs for the {kind} CA; {} is still trusted",
            print(previous)
        ),
        (Stage::Stable, Some(gone)) => {
            format!("{signing} is the {kind} CA; {gone} is retired and trusted no more")
        }
        (Stage::Stable, None) => format!("{signing} is the {kind} CA"),
    }
}

/// What to do now, after a step or at any time.
#[must_use]
pub fn what_next(record: &Record, learnt: usize, nodes: usize) -> Vec<String> {
    let kind = record.kind;
    let mut lines = Vec::new();
    match (&record.stage, kind) {
        (Stage::Stable, _) => return lines,
        (_, AuthorityKind::User) => lines.push(
            "This proxy alone trusts it: nothing has to be installed. Identity certificates of the old CA are good until it is retired, and `login` gives new ones once the new one signs.".to_owned(),
        ),
        (_, AuthorityKind::Node) => lines.push(format!(
            "{learnt} of {nodes} nodes are known to trust the new CA. On the others: write what `auth export --type node` prints into {NODE_CA_FILE} (sshd reads it at each login; nodes that renew by themselves do within a day and a half), and connect once."
        )),
        (stage, AuthorityKind::Host) => {
            lines.push("Users: put what `config --part known_hosts` prints into ~/.ssh/known_hosts, in the place of the lines from before.".to_owned());
            if nodes > 0 && matches!(stage, Stage::Signing { .. }) {
                lines.push(format!(
                    "{learnt} of {nodes} nodes with a host certificate are known to show one of the new CA. On the others: `nodes host-cert NODE`, reload sshd, and connect once."
                ));
            }
        }
    }
    lines.push(format!(
        "Then {}; {} goes back to the old key.",
        rotate(kind, Step::after(&record.stage)),
        rotate(kind, Step::Rollback)
    ));
    lines
}

/// What is left to do when a key is retired.
#[must_use]
pub fn after_retiring(kind: AuthorityKind) -> &'static str {
    match kind {
        AuthorityKind::User => {
            "Certificates of the retired CA are refused from now on; their holders log in again."
        }
        AuthorityKind::Node => {
            "Take it off the nodes as well: `auth export --type node` prints what is left, and `auth export --type krl` the revocation list, in which it stands."
        }
        AuthorityKind::Host => {
            "Users take its lines out of their known_hosts: `config --part known_hosts` prints what is left."
        }
    }
}

/// Why a node refuses a certificate while a CA is being rotated.
#[must_use]
pub fn node_has_to_learn(node: &str, login: &str, signing: &str) -> String {
    format!(
        "it may not trust the new node CA {signing} yet, which signs since the rotation, or login `{login}` may be missing there; an administrator sees in `auth status` what `{node}` has to learn"
    )
}

fn rotate(kind: AuthorityKind, step: Step) -> String {
    format!("`auth rotate --type {kind} --stage {}`", step.as_str())
}

/// Names in backticks, a few of them, and how many more there are.
fn names(all: &[String]) -> String {
    let shown: Vec<String> = all
        .iter()
        .take(LISTED)
        .map(|name| format!("`{}`", clean(name)))
        .collect();
    match all.len().checked_sub(LISTED) {
        None | Some(0) => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}
