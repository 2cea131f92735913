//! What a TCP socket is told before the engine gets it.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// TCP keepalive: idle time before the first probe, time between two, and how many
/// go unanswered. An idle peer's machine is given up after a minute without even an
/// acknowledgement; one that owes us acknowledgements when the kernel gives up sending again.
///
/// There is no `TCP_USER_TIMEOUT`: Linux also counts the time in which a living machine has no
/// room for more, so that it would end every session whose client was suspended in mid-output.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// Prepares a socket to a user or a node: no delay of small packets (the engine
/// sets that only on sockets that it opens itself), and the kernel notices a dead
/// machine. The kernel rather than SSH's own keepalives, because those are
/// answered by a *process*, which may be suspended or, at a node, not be read while
/// its data wait.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_COUNT);
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&keepalive)
}
