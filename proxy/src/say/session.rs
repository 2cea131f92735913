//! What a connection to a node says beside the wait: settings that cannot be used, and what the node refused.

use super::text::clean;

/// `ANTEROOM_SCOPE` was sent; ignoring it would file for more than was meant.
#[must_use]
pub fn scope_not_served(scope: &str) -> String {
    format!(
        "ERROR: ANTEROOM_SCOPE={} is not served by this version; connect without it to ask for the whole login",
        clean(scope)
    )
}

/// `ANTEROOM_WAIT` is no time.
#[must_use]
pub fn wait_malformed(text: &str) -> String {
    format!(
        "ERROR: ANTEROOM_WAIT={} is not a number of seconds; 0 files the request and leaves",
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
