//! Forwards of TCP: `-L`, where the agent connects, and `-R`, where it listens, on loopback alone.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anteroom_ssh::{Channel, Connection, OpenRefusal, Opening, TcpTarget};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use super::front::{Login, shown};
use super::helper::words;

/// How long a connection may take to be made. The kernel would try for two minutes.
const CONNECTING: Duration = Duration::from_secs(60);

/// Bytes that are moved at once, in each direction.
const BUFFER: usize = 64 << 10;

/// Ports that one connection has listened on for it.
const MOST_LISTENERS: usize = 32;

/// Connections that came in on a connection's listeners or to its agent, at once; the next is closed.
pub(super) const MOST_ACCEPTED: usize = 64;

/// The first port that anybody may listen on.
const UNPRIVILEGED: u16 = 1024;

/// Connects where a `-L` leads.
pub(super) async fn direct(login: Arc<Login>, target: TcpTarget, opening: Opening) {
    let number = login.number;
    let to = format!("{}:{}", shown(&target.host), target.port);
    if !login.access.rights().port_forwarding {
        warn!(
            connection = number,
            "refused a forward to {to}: the certificate allows none"
        );
        let text = "open failed".to_owned();
        return opening.reject(OpenRefusal::Prohibited(text)).await;
    }
    let connected = tokio::select! {
        () = opening.abandoned() => return,
        connected = connect(&target) => connected,
    };
    match connected {
        Ok(stream) => {
            info!(connection = number, "forward to {to}");
            let channel = opening.accept().await;
            splice(channel, stream).await;
        }
        Err(error) => {
            debug!(connection = number, %error, "forward to {to} failed");
            opening
                .reject(OpenRefusal::ConnectFailed(words(&error)))
                .await;
        }
    }
}

async fn connect(target: &TcpTarget) -> io::Result<TcpStream> {
    let port = u16::try_from(target.port).map_err(|_| io::Error::other("no such port"))?;
    let connecting = TcpStream::connect((target.host.as_str(), port));
    let stream = tokio::time::timeout(CONNECTING, connecting)
        .await
        .map_err(|_| io::Error::from_raw_os_error(nix::libc::ETIMEDOUT))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Moves bytes both ways until both are at their end.
pub(super) async fn splice(channel: Channel, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut channel = channel.into_stream();
    // Whichever side broke, the other is closed by being dropped.
    let _ = copy_bidirectional_with_sizes(&mut channel, &mut stream, BUFFER, BUFFER).await;
}

/// What one connection has listened on for it. They end with it.
pub(super) struct Listeners {
    open: HashMap<(String, u32), Vec<Task>>,
    accepted: Arc<Semaphore>,
}

/// A task that ends when it is forgotten.
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self {
            open: HashMap::new(),
            accepted: Arc::new(Semaphore::new(MOST_ACCEPTED)),
        }
    }

    /// Listens on loopback, whatever address is asked for, as sshd does without `GatewayPorts`. The port.
    pub(super) async fn open(
        &mut self,
        login: &Login,
        connection: &Connection,
        address: &str,
        port: u32,
    ) -> Option<u32> {
        let number = login.number;
        let asked = format!("{}:{port}", shown(address));
        let refused = |why: &str| {
            warn!(connection = number, "refused to listen on {asked}: {why}");
            None
        };
        if !login.access.rights().port_forwarding {
            return refused("the certificate allows no forwards");
        }
        let Ok(wanted) = u16::try_from(port) else {
            return refused("there is no such port");
        };
        if wanted != 0 && wanted < UNPRIVILEGED && !login.account.uid.is_root() {
            return refused("ports below 1024 are root's");
        }
        if self.open.len() >= MOST_LISTENERS {
            return refused("this connection has too many forwards");
        }
        let (listeners, bound) = match bind(wanted).await {
            Ok(bound) => bound,
            Err(error) => return refused(&words(&error)),
        };
        let key = (address.to_owned(), u32::from(bound));
        if self.open.contains_key(&key) {
            return refused("this connection listens there already");
        }
        info!(connection = number, "listening on port {bound} for {asked}");
        let tasks = listeners.into_iter().map(|listener| {
            let accepted = Arc::clone(&self.accepted);
            let serving = listen(listener, connection.clone(), key.clone(), accepted);
            Task(tokio::spawn(serving))
        });
        let tasks = tasks.collect();
        self.open.insert(key, tasks);
        Some(u32::from(bound))
    }

    /// Listens no more. Whether it did. Connections that have been accepted go on.
    pub(super) fn cancel(&mut self, address: &str, port: u32) -> bool {
        self.open.remove(&(address.to_owned(), port)).is_some()
    }
}

/// Both loopback addresses with one port; one of them will do.
async fn bind(port: u16) -> io::Result<(Vec<TcpListener>, u16)> {
    let four = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
    let port = match &four {
        Ok(listener) => listener.local_addr()?.port(),
        Err(_) => port,
    };
    let six = TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await;
    match (four, six) {
        (Ok(four), Ok(six)) => Ok((vec![four, six], port)),
        (Ok(one), Err(_)) => Ok((vec![one], port)),
        (Err(_), Ok(one)) => {
            let port = one.local_addr()?.port();
            Ok((vec![one], port))
        }
        (Err(error), Err(_)) => Err(error),
    }
}

async fn listen(
    listener: TcpListener,
    connection: Connection,
    (address, port): (String, u32),
    accepted: Arc<Semaphore>,
) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of descriptors, for one: that passes.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&accepted).try_acquire_owned() else {
            continue;
        };
        let (connection, address) = (connection.clone(), address.clone());
        tokio::spawn(async move {
            let _place = place;
            let _ = stream.set_nodelay(true);
            let (host, from_port) = (from.ip().to_string(), u32::from(from.port()));
            let opening = connection.open_forwarded_tcpip(&address, port, &host, from_port);
            if let Ok(channel) = opening.await {
                splice(channel, stream).await;
            }
        });
    }
}
