//! What a connection to a node says beside the wait: settings that cannot be used, and what the node refused.

use super::text::{clean, quote};

/// `ANTEROOM_SCOPE` is no scope; ignoring it would file for more than was meant.
#[must_use]
pub fn scope_unknown(scope: &str) -> String {
    format!(
        "ANTEROOM_SCOPE={} is not a scope; write `command`, or leave it out to ask for the whole login",
        clean(scope)
    )
}

/// A scope of one command, and `what` is none.
#[must_use]
pub fn scope_needs_command(what: &str) -> String {
    format!(
        "ERROR: ANTEROOM_SCOPE=command is for one command, and {what} is none; connect without it to ask for the whole login"
    )
}

/// A scope of one command for a request that names none: `this request`.
#[must_use]
pub fn scope_without_command(what: &str) -> String {
    format!(
        "ANTEROOM_SCOPE=command is for one command, and {what} names none; leave it out, or give `request create` with --command"
    )
}

/// A command that no certificate can carry.
pub const SCOPE_NOT_TEXT: &str = "ERROR: ANTEROOM_SCOPE=command needs a command that is UTF-8 text";

/// A session under a grant for one command asked for more.
#[must_use]
pub fn scope_refuses(what: &str) -> String {
    format!("The request grants one command only: {what} is refused.")
}

/// There is a grant, and it is for another command than this.
#[must_use]
pub fn only_one_command(request: &str, command: &str) -> String {
    format!(
        "Request {} grants only the command {} there.",
        clean(request),
        quote(command)
    )
}

/// `ANTEROOM_WAIT` is no time.
#[must_use]
pub fn wait_malformed(text: &str) -> String {
    format!(
        "ANTEROOM_WAIT={} is not a number of seconds; 0 files the request and leaves",
        clean(text)
    )
}

/// A subsystem was asked for without a node.
#[must_use]
pub fn subsystem_without_node(name: &str) -> String {
    format!(
        "ERROR: subsystem `{}` is not served here; name a node, as in `sftp root@NODE@access`",
        clean(name)
    )
}

/// The node's connection ended in the middle of a session.
#[must_use]
pub fn connection_broke(target: &str) -> String {
    format!("ERROR: the connection to {} broke", clean(target))
}

/// The node did not grant what the session asked for: `a terminal`, `the command`.
#[must_use]
pub fn node_refused(what: &str) -> String {
    format!("ERROR: the node refused {what}")
}
