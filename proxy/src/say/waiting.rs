//! What a connection (or `request create`) says from its denial to the end of its wait. The words of the
//! guides are kept as they are: people's scripts read them.

use anteroom_core::duration::format as format_duration;
use time::{Duration, OffsetDateTime};

use super::text::{clean, quote};
use super::when;

/// The prompt for a missing reason, in the words of the roles if they have some; the answer is typed behind it.
#[must_use]
pub fn reason_prompt(own: Option<&str>) -> String {
    format!("{}: ", clean(own.unwrap_or("Enter request reason")))
}

/// Said while a new request is being filed.
pub const CREATING: &str = "Creating request...";

/// The first line after a denial: who, to what, on which cluster.
#[must_use]
pub fn access_denied(user: &str, target: &str, cluster: &str) -> String {
    format!(
        "ERROR: access denied to {} connecting to {} on cluster {}",
        clean(user),
        clean(target),
        clean(cluster)
    )
}

/// What happens next where the access can be asked for.
#[must_use]
pub fn attempting(target: &str) -> String {
    format!(
        "You do not currently have access to {}, attempting to request access.",
        clean(target)
    )
}

/// An approved request would grant it, but not to this key: it was dropped, or another key filed it.
#[must_use]
pub fn assumable(request: &str) -> String {
    format!(
        "Request {0} is approved and would grant this; `ssh access request assume {0}` takes it up.",
        clean(request)
    )
}

/// An approved request would do, but the certificate that was presented does not carry it.
#[must_use]
pub fn assumable_by_login(request: &str) -> String {
    format!(
        "Request {0} is approved and would grant this; `ssh access login --request-id {0}` prints a certificate with it.",
        clean(request)
    )
}

/// Said in place of [`CREATING`] where an equal request is pending already.
#[must_use]
pub fn joining(request: &str) -> String {
    format!(
        "Joining request {}, which is already pending.",
        clean(request)
    )
}

/// Who is there while somebody waits: decides what the line says about leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// A terminal, where Ctrl-C ends the wait.
    Terminal,
    /// A script or a file transfer: the wait ends with the connection.
    Program,
}

/// `Waiting for request approval... (expires in 12h; Ctrl-C to leave, the request stays)`
#[must_use]
pub fn waiting(expires_in: Duration, audience: Audience) -> String {
    let left = when::brief(expires_in);
    match audience {
        Audience::Terminal => {
            format!(
                "Waiting for request approval... (expires in {left}; Ctrl-C to leave, the request stays)"
            )
        }
        Audience::Program => {
            format!(
                "Waiting for request approval... (expires in {left}; the request stays when you leave)"
            )
        }
    }
}

/// `Approval received from bob, reason="okay"`; without the reason where none was given.
#[must_use]
pub fn approval_received(from: &[&str], reason: &str) -> String {
    format!(
        "Approval received from {}{}",
        people(from),
        reason_part(reason)
    )
}

/// `Request denied by bob, reason="…"`
#[must_use]
pub fn request_denied(by: &str, reason: &str) -> String {
    format!("Request denied by {}{}", clean(by), reason_part(reason))
}

/// Nobody answered in time.
#[must_use]
pub fn request_expired(request: &str, at: OffsetDateTime) -> String {
    format!(
        "Request {} expired at {} without an answer; ask again to file a new one",
        clean(request),
        when::stamp(at)
    )
}

/// What was approved is over.
#[must_use]
pub fn access_over(request: &str, at: OffsetDateTime) -> String {
    format!(
        "Request {} was approved, and its access ended at {}; ask again to file a new one",
        clean(request),
        when::stamp(at)
    )
}

/// The requester took it back.
#[must_use]
pub fn request_canceled(request: &str, by: &str) -> String {
    format!(
        "Request {} was canceled by {}; ask again to file a new one",
        clean(request),
        clean(by)
    )
}

/// What the request granted was taken back.
#[must_use]
pub fn request_revoked(request: &str, by: &str, reason: &str) -> String {
    format!(
        "Request {} was revoked by {}{}",
        clean(request),
        clean(by),
        reason_part(reason)
    )
}

/// The approval was for later.
#[must_use]
pub fn approved_for_later(request: &str, start: OffsetDateTime) -> String {
    format!(
        "Request {} is approved, but not before {}; connect again then",
        clean(request),
        when::stamp(start)
    )
}

/// Behind the denial of a request that nobody waited for any more (exit code 77).
#[must_use]
pub fn denied_meanwhile(request: &str) -> String {
    format!(
        "That was request {}, while nobody waited for it; connect again to file a new one",
        clean(request)
    )
}

/// What to type after a request was filed and not waited for.
#[must_use]
pub fn filed_and_left(request: &str) -> String {
    format!(
        "`ssh access request show {}` shows what becomes of it; without `--nowait` and `ANTEROOM_WAIT=0` the same command waits for it.",
        clean(request)
    )
}

/// How to have now what was approved for later.
#[must_use]
pub fn wanted_sooner(target: &str) -> String {
    format!(
        "To have it before then, ask for it with `ssh access request create --resource {}`",
        clean(target)
    )
}

/// The wait ended, the request did not (exit code 75).
#[must_use]
pub fn left_pending(request: &str) -> String {
    let request = clean(request);
    format!(
        "Request {request} stays pending; look at it with `ssh access request show {request}`, or connect again to go on waiting"
    )
}

/// A role wants a reason and there is no terminal to ask for one.
#[must_use]
pub fn reason_required(target: &str, own: Option<&str>) -> String {
    format!(
        "ERROR: access to {0} has to be asked for with a reason{1}; add `-o 'SetEnv=ANTEROOM_REASON=\"why\"'` to your ssh command",
        clean(target),
        clean(&asked(own))
    )
}

/// What the roles say to prompt for a reason with, inside the sentence about the missing one.
fn asked(own: Option<&str>) -> String {
    own.map_or_else(String::new, |own| format!(" (\"{own}\")"))
}

/// A role wants a reason for what `login` is to ask for.
#[must_use]
pub fn reason_required_at_login(own: Option<&str>) -> String {
    format!(
        "a reason is required{}; give one with --request-reason or SetEnv ANTEROOM_REASON=…",
        clean(&asked(own))
    )
}

/// A listing does not hold all of the requests that have ended.
#[must_use]
pub fn requests_left_out(limit: usize, prefix: &str) -> String {
    format!(
        "Only the newest {limit} requests that have ended are listed; `{prefix} request ls --state …` and `--mine` narrow it, and `{prefix} request show ID` shows an older one."
    )
}

/// A wish for a time that is granted in part.
#[must_use]
pub fn cut_short(option: &str, wanted: Duration, given: Duration) -> String {
    format!(
        "`{option} {}` is cut to {}: more can't be given here.",
        format_duration(wanted),
        format_duration(given)
    )
}

/// The line of the block that names the request, where the block is not shown.
#[must_use]
pub fn request_id(request: &str) -> String {
    format!("Request ID:  {}", clean(request))
}

/// Said while `login` waits for the roles that it asked for.
#[must_use]
pub fn seeking(request: &str) -> String {
    format!("Seeking request approval... (id: {})", clean(request))
}

/// `login` asked for roles and does not wait for them.
#[must_use]
pub fn certificate_without(request: &str) -> String {
    format!(
        "Request {0} stays pending, and this certificate is without it. When it is approved: ssh access login --request-id {0}",
        clean(request)
    )
}

/// What was said with a wish that joined a request, and is not in that request: `reason is`.
#[must_use]
pub(super) fn not_added(what: &str, request: &str) -> String {
    format!(
        "Your {what} not added: the request stays as it was filed. To file it anew, first `ssh access request cancel {}`.",
        clean(request)
    )
}

/// Too many connections of the user wait for a decision (exit code 75).
pub const TOO_MANY_HELD: &str = "ERROR: too many of your connections are waiting for approval; end some, or have `max_held_channels` raised";

/// A user has too many connections; the connection is ended with these words.
pub const TOO_MANY_CONNECTIONS: &str =
    "too many connections of this user; end some, or have `max_connections_per_user` raised";

/// A second factor can't be looked at, because nothing can be written.
pub const NO_SECOND_FACTOR_NOW: &str =
    "second factors can't be checked at the moment; try again later";

/// Ctrl-C at the prompt for a reason.
pub const NOTHING_FILED: &str = "No request was filed.";

/// `-L` or `-D` where the role does not let ports be forwarded.
pub const LOCAL_FORWARDING_REFUSED: &str = "your role does not allow port forwarding here";

/// scp or sftp where the role does not let files be copied.
#[must_use]
pub fn file_copy_refused(target: &str) -> String {
    format!(
        "ERROR: your role does not allow copying files on {}; commands and shells are allowed",
        clean(target)
    )
}

/// A target that may not be known, or does not exist: both read the same.
#[must_use]
pub fn no_access(user: &str, target: &str, cluster: &str) -> String {
    format!(
        "{}\nThere is no such node that you can reach or ask for; `ssh access ls` and `ssh access request search --kind node` list those you can",
        access_denied(user, target, cluster)
    )
}

/// Several nodes of that name that the user may know of, as `(uuid, labels)`.
#[must_use]
pub fn ambiguous_node(target: &str, candidates: &[(String, String)]) -> String {
    let mut text = format!(
        "ERROR: {} names several nodes; connect by UUID instead of by name:",
        clean(target)
    );
    for (id, labels) in candidates {
        text.push_str(&format!("\n  {}  {}", clean(id), labels));
    }
    text
}

/// The request that a connection waited for is gone.
#[must_use]
pub fn request_deleted(request: &str) -> String {
    format!("Request {} was deleted by an administrator", clean(request))
}

/// An approval that left out what the connection wanted.
#[must_use]
pub fn approved_without_this(request: &str) -> String {
    format!(
        "Request {0} was approved, but not for this; `ssh access request show {0}` shows what it grants",
        clean(request)
    )
}

/// The approval has come, and opens later.
#[must_use]
pub fn waiting_for_start(request: &str, start: OffsetDateTime) -> String {
    format!(
        "Request {} is approved and opens at {}; waiting until then",
        clean(request),
        when::stamp(start)
    )
}

/// The proxy stops while somebody waits (exit code 75).
#[must_use]
pub fn shutting_down(request: &str) -> String {
    format!(
        "The proxy is being stopped; request {} stays, connect again to go on waiting",
        clean(request)
    )
}

/// Stages of reaching a node, as far as a person cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// TCP to the node's address.
    Connecting,
    /// The node's host key or host certificate.
    Verifying,
    /// Logging in with the access certificate.
    LoggingIn,
    /// Opening the channel for the session.
    Opening,
}

/// The node could not be used (exit code 69). `why` may come from the node and is cleaned.
#[must_use]
pub fn node_unavailable(node: &str, stage: Stage, why: &str) -> String {
    let did = match stage {
        Stage::Connecting => "could not be reached",
        Stage::Verifying => "did not prove that it is this node",
        Stage::LoggingIn => "did not accept the access certificate",
        Stage::Opening => "opened no channel",
    };
    format!(
        "ERROR: {} {did}: {}",
        clean(node),
        super::text::cut(why, 300)
    )
}

/// A node shows a host key or certificate that is locked; `what` names it.
#[must_use]
pub fn host_is_locked(what: &str, message: &str) -> String {
    let message = if message.is_empty() {
        String::new()
    } else {
        format!(": {}", clean(message))
    };
    format!("the host's {} is locked{message}", clean(what))
}

/// A node shows a host certificate that was revoked.
#[must_use]
pub fn host_is_revoked(serial: u64, why: &str, node: &str) -> String {
    format!(
        "the host's certificate {serial} is revoked: {}; make it one for its key with `nodes host-cert {}`",
        clean(why),
        clean(node)
    )
}

/// Of a host certificate that nobody asked for.
pub const HOST_NEVER_ISSUED: &str = "a host certificate that the host CA signed was never issued here; the CA's key is in \
     other hands, or somebody signed by hand";

/// A node shows a host certificate that was never issued.
#[must_use]
pub fn host_never_issued(serial: u64, node: &str) -> String {
    format!(
        "the host's certificate {serial} was never issued here; one that counts is made with `nodes host-cert {}`",
        clean(node)
    )
}

/// Why a live session ends although its command has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// Its request or standing access reached its end.
    AccessEnded {
        /// When it ended.
        at: OffsetDateTime,
    },
    /// A rule, a role, the user or the request changed; the sentence says which.
    NoLongerAllowed {
        /// The refusal as [`super::denial`] words it.
        why: String,
    },
    /// It lasted as long as the roles let a session last.
    TooLong {
        /// How long that is.
        ttl: Duration,
    },
    /// Nothing went through it for as long as the roles let it be silent.
    Idle {
        /// How long that is.
        after: Duration,
    },
    /// Somebody ended it.
    Killed {
        /// Who.
        by: String,
    },
    /// The proxy stops.
    Shutdown,
    /// The proxy can't write down what happens any more, so it lets nothing happen.
    StoreUnavailable,
}

/// A session that is asked for on a connection that is older than sessions may be.
#[must_use]
pub fn connection_too_old(target: &str, ttl: Duration) -> String {
    format!(
        "ERROR: no session to {}: this connection has lasted {} (max_session_ttl); connect again",
        clean(target),
        format_duration(ttl)
    )
}

/// A connection beyond what the roles allow.
#[must_use]
pub fn too_many_connections(target: &str, limit: u32) -> String {
    format!(
        "ERROR: no session to {}: your roles allow {limit} {} to nodes at a time (max_connections); end {} first",
        clean(target),
        if limit == 1 {
            "connection"
        } else {
            "connections"
        },
        if limit == 1 { "it" } else { "one of them" }
    )
}

/// A session beyond what the roles allow.
#[must_use]
pub fn too_many_sessions(target: &str, limit: u32) -> String {
    format!(
        "ERROR: no session to {}: your roles allow {limit} {} in a connection at a time (max_sessions); end {} first, or connect anew",
        clean(target),
        if limit == 1 { "session" } else { "sessions" },
        if limit == 1 { "it" } else { "one of them" }
    )
}

/// The line on stderr before the session is closed.
#[must_use]
pub fn session_ended(target: &str, end: &SessionEnd) -> String {
    let why = match end {
        SessionEnd::AccessEnded { at } => format!("access ended at {}", when::long_stamp(*at)),
        SessionEnd::NoLongerAllowed { why } => clean(why).into_owned(),
        SessionEnd::TooLong { ttl } => format!(
            "a session may last {} (max_session_ttl); connect again",
            format_duration(*ttl)
        ),
        SessionEnd::Idle { after } => format!(
            "nothing was sent or received for {} (client_idle_timeout)",
            format_duration(*after)
        ),
        SessionEnd::Killed { by } => format!("killed by {}", clean(by)),
        SessionEnd::Shutdown => "the proxy is being stopped".to_owned(),
        SessionEnd::StoreUnavailable => "the proxy's database is unavailable".to_owned(),
    };
    format!("ERROR: session to {} ended: {why}", clean(target))
}

fn reason_part(reason: &str) -> String {
    if reason.is_empty() {
        String::new()
    } else {
        format!(", reason={}", quote(reason))
    }
}

/// `bob`, `bob and carol`, `bob, carol and dave`
fn people(names: &[&str]) -> String {
    let cleaned: Vec<_> = names.iter().map(|name| clean(name)).collect();
    match cleaned.split_last() {
        None => "a reviewer".to_owned(),
        Some((last, [])) => last.clone().into_owned(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_sentences_are_those_of_the_guides() {
        assert_eq!(
            access_denied("alice", "root@iot", "example.com"),
            "ERROR: access denied to alice connecting to root@iot on cluster example.com"
        );
        assert_eq!(
            attempting("root@iot"),
            "You do not currently have access to root@iot, attempting to request access."
        );
        assert_eq!(
            waiting(Duration::hours(12), Audience::Terminal),
            "Waiting for request approval... (expires in 12h; Ctrl-C to leave, the request stays)"
        );
        assert_eq!(
            approval_received(&["bob"], "okay"),
            "Approval received from bob, reason=\"okay\""
        );
        assert_eq!(
            approval_received(&["bob", "carol"], ""),
            "Approval received from bob and carol"
        );
        assert_eq!(
            request_denied("bob", "no"),
            "Request denied by bob, reason=\"no\""
        );
    }

    #[test]
    fn a_reason_cannot_pretend_to_be_another_line() {
        let said = request_denied("bob", "x\"\r\nApproval received from bob\x1b[A");
        assert_eq!(
            said,
            "Request denied by bob, reason=\"x\\\"\\r\\nApproval received from bob\\x1b[A\""
        );
    }

    #[test]
    fn every_end_of_a_session_says_why() {
        let at = datetime!(2026-11-20 22:10:00 UTC);
        assert_eq!(
            session_ended("root@iot", &SessionEnd::AccessEnded { at }),
            "ERROR: session to root@iot ended: access ended at 2026-11-20 22:10:00 UTC"
        );
    }
}
