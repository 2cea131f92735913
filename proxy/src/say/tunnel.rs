//! What nodes that connect by themselves are told, and people of them.

use std::net::SocketAddr;

use anteroom_core::node::MOST_SAID_LABELS;
use time::OffsetDateTime;

use super::{clean, stamp};

/// Why a node that is never dialled cannot be reached.
const NO_TUNNEL: &str = "it is reached through a tunnel that it opens itself, and none is open";

/// The same, with when it was last there.
#[must_use]
pub fn no_tunnel(last: Option<OffsetDateTime>) -> String {
    match last {
        Some(last) => format!("{NO_TUNNEL}; it was last there at {}", stamp(last)),
        None => format!("{NO_TUNNEL}; it has not been there yet"),
    }
}

/// Why one more connection does not go through a tunnel.
pub const TUNNEL_FULL: &str =
    "as many connections go through its tunnel as may; try again when one has ended";

/// Why a connection through a tunnel was not opened at the node's end.
#[must_use]
pub fn tunnel_refused(why: &str) -> String {
    format!(
        "its tunnel is open, and does not lead to its sshd: {}",
        clean(why)
    )
}

/// To a second connection of a node.
#[must_use]
pub fn tunnel_taken(node: &str, from: SocketAddr, since: OffsetDateTime) -> String {
    format!(
        "node `{}` is connected already, from {} since {}; a second connection takes its place when that one does not answer",
        clean(node),
        from.ip(),
        stamp(since)
    )
}

/// To a node's connection that wants more than it may.
pub const TUNNEL_ONLY_FORWARD: &str = "the connection of a node may ask for one remote forward, as `ssh -N -R 0:localhost:22` does, or give one of the commands `host-cert`, `krl` and `ca`, and do nothing else";

/// To one that wants a forward and has an address.
pub const TUNNEL_IS_DIALLED: &str = "this node is dialled at its address, so that it gets no forward; `nodes update NODE --addr tunnel` has it connect by itself";

/// To one that does not read what it has asked for.
pub const NODE_COMMAND_TOOK_TOO_LONG: &str = "the time for one command is over; connect again";

/// To one that asks for nothing.
pub const TUNNEL_WITHOUT_FORWARD: &str = "the connection of a node asks for one remote forward, as `ssh -N -R 0:localhost:22` does; this one did not";

/// To one that does not answer.
pub const TUNNEL_SILENT: &str = "this connection of the node did not answer";

/// To one whose key or node is not what it was.
pub const TUNNEL_NO_MORE: &str =
    "the node is not known by this key any more, is locked, or does not connect by itself";

/// To one that is to come again.
pub const TUNNEL_UNTIL_LATER: &str = "the proxy ends this connection; connect again";

/// Where there are too many.
pub const TUNNEL_TOO_MANY: &str = "too many connections of nodes; try again later";

/// To a second control channel.
pub const TUNNEL_ONE_CONTROL: &str = "this connection has a control channel already";

/// To an agent whose message is none.
#[must_use]
pub fn agent_not_understood(why: &str) -> String {
    format!("the message is not understood: {why}")
}

/// To an agent whose message is too long.
#[must_use]
pub fn agent_too_long(bytes: usize) -> String {
    format!(
        "a message is at most {bytes} bytes long; a node says at most {MOST_SAID_LABELS} labels of itself"
    )
}

/// To an agent that asks for certificates without end.
pub const AGENT_RENEWS_TOO_OFTEN: &str =
    "a host certificate was asked for a moment ago; wait ten seconds";

/// To an agent that begins anew on the same channel.
pub const AGENT_GREETS_TWICE: &str =
    "the first message was said already; later ones are heartbeats";
