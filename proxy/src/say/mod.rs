//! Every sentence and table that people read: one place for the words, held by tests to the letter.
//!
//! Functions here return text whose lines are separated by `\n` without a final one. They know nothing of connections: whether a
//! line ends in `\n` or `\r\n` is decided by whoever writes it ([`lines`]). All text that came from a peer (reasons, names,
//! labels, commands, a node's messages) passes through [`clean`] or [`quote`] on its way out; callers hand it over raw.

mod allowing;
mod block;
pub(crate) mod check;
mod data;
mod enrol;
mod filing;
mod outcome;
mod pieces;
mod rotation;
mod session;
mod table;
mod text;
mod tunnel;
mod waiting;
mod when;

use bytes::Bytes;

pub use self::allowing::{allowance, covers, foreseen};
pub use self::block::{RequestBlock, ReviewLine};
pub use self::data::{json, json_line, yaml};
pub(crate) use self::enrol::{enrol_line, join_line, log_in_line};
pub use self::filing::{filing_for, name_of};
pub use self::outcome::{
    KUBE_OBJECTS_NOT_LISTED, TOO_MANY_HOST_NAMES, address, ambiguous_name, barred,
    connecting_comes_later, connecting_not_served, denial, joined, labels_of, no_such_node,
    no_such_resource, outcome, own_lock,
};
pub use self::pieces::{documents_in_pieces, json_in_pieces, table_in_pieces, yaml_in_pieces};
pub use self::rotation::{
    after_retiring, node_has_to_learn, step_taken, still_held, unlearnt, what_next, wrong_stage,
};
pub use self::session::{
    SCOPE_NOT_TEXT, connection_broke, node_refused, only_one_command, scope_needs_command,
    scope_refuses, scope_unknown, scope_without_command, subsystem_without_node, wait_malformed,
};
pub use self::table::{Cells, Columns, Table};
pub use self::text::{clean, clean_bytes, cut, cut_with, head, is_hostile, quote, width};
pub use self::tunnel::{
    AGENT_GREETS_TWICE, AGENT_RENEWS_TOO_OFTEN, NODE_COMMAND_TOOK_TOO_LONG, TUNNEL_FULL,
    TUNNEL_IS_DIALLED, TUNNEL_NO_MORE, TUNNEL_ONE_CONTROL, TUNNEL_ONLY_FORWARD, TUNNEL_SILENT,
    TUNNEL_TOO_MANY, TUNNEL_UNTIL_LATER, TUNNEL_WITHOUT_FORWARD, agent_not_understood,
    agent_too_long, no_tunnel, tunnel_refused, tunnel_taken,
};
pub use self::waiting::{
    Audience, CREATING, HOST_NEVER_ISSUED, LOCAL_FORWARDING_REFUSED, NO_SECOND_FACTOR_NOW,
    NOTHING_FILED, SessionEnd, Stage, TOO_MANY_CONNECTIONS, TOO_MANY_HELD, access_denied,
    access_over, ambiguous_node, approval_received, approved_for_later, approved_without_this,
    assumable, assumable_by_login, attempting, certificate_without, connection_too_old, cut_short,
    denied_meanwhile, file_copy_refused, filed_and_left, host_is_locked, host_is_revoked,
    host_never_issued, joining, left_pending, no_access, node_unavailable, reason_prompt,
    reason_required, reason_required_at_login, request_canceled, request_deleted, request_denied,
    request_expired, request_id, request_revoked, requests_left_out, seeking, session_ended,
    shutting_down, too_many_connections, too_many_sessions, waiting, waiting_for_start,
    wanted_sooner,
};
pub use anteroom_core::duration::parse as parse_duration;

pub use self::when::{brief, exact, long_stamp, parse_rfc3339, rfc3339, stamp};

/// How a line ends where the text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnd {
    /// A pipe or a file.
    Lf,
    /// A terminal in raw mode, which does not return the carriage by itself.
    CrLf,
}

/// A text as bytes for a pipe or a terminal, every line ended, the last one too.
#[must_use]
pub fn lines(text: &str, end: LineEnd) -> Bytes {
    let mut out = match end {
        LineEnd::Lf => text.to_owned(),
        LineEnd::CrLf => text.replace('\n', "\r\n"),
    };
    out.push_str(match end {
        LineEnd::Lf => "\n",
        LineEnd::CrLf => "\r\n",
    });
    Bytes::from(out)
}

/// Labels as `env=staging,os=linux`, sorted by key; what would blur the list is quoted.
#[must_use]
pub fn labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let mut pairs: Vec<(&String, &String)> = labels.into_iter().collect();
    pairs.sort();
    let mut out = String::new();
    write_labels(&mut out, pairs);
    out
}

/// The same at the end of `out`, which is empty, in the order in which they come.
pub fn write_labels<'a>(
    out: &mut String,
    labels: impl IntoIterator<Item = (&'a String, &'a String)>,
) {
    for (key, value) in labels {
        if !out.is_empty() {
            out.push(',');
        }
        push_label_part(out, key);
        out.push('=');
        push_label_part(out, value);
    }
}

fn push_label_part(out: &mut String, part: &str) {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'=' | b'"');
    if part.bytes().all(plain) {
        out.push_str(part);
    } else {
        out.push_str(&label_part(part));
    }
}

fn label_part(part: &str) -> String {
    let blurs = |c: char| c.is_whitespace() || matches!(c, ',' | '=' | '"') || is_hostile(c);
    if part.chars().any(blurs) {
        quote(part)
    } else {
        clean(part).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_terminal_gets_its_carriage_returned() {
        assert_eq!(
            lines("a\nb", LineEnd::CrLf),
            Bytes::from_static(b"a\r\nb\r\n")
        );
        assert_eq!(lines("a\nb", LineEnd::Lf), Bytes::from_static(b"a\nb\n"));
    }

    #[test]
    fn a_label_cannot_look_like_two() {
        let map = BTreeMap::from([
            ("os".to_owned(), "linux".to_owned()),
            ("env".to_owned(), "dev,env=prod".to_owned()),
        ]);
        assert_eq!(labels(&map), "env=\"dev,env=prod\",os=linux");
    }
}
