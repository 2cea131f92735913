//! Forwards of one connection: `-L` and `-D` out through the node, `-R`, `-A` and `-X` back in.

use std::sync::Arc;

use anteroom_core::id::SessionId;
use anteroom_core::policy::{Access, Permit};
use tokio::sync::Mutex;

use super::node::NodeDoor;
use crate::audit::{Entry, Event};
use crate::bridge::{self, Uses, Watch};
use crate::dial::{self, DialError};
use crate::hold::Refusal;
use crate::say;
use anteroom_ssh::{
    Channel, Incoming, IncomingQueue, NodeConnection, OpenRefusal, Opening, TcpTarget,
};

/// Node connections that one user connection may have for `-L` and `-D`. A stalled one holds up
/// the forwards that share it; each one costs the node a process. Beyond this many they share.
const FORWARD_CONNECTIONS: usize = 8;

/// Listeners (`-R`) that one user connection may have on a node.
const MAX_LISTENERS: usize = 32;

/// The node connections of one user connection that carry forwards.
#[derive(Default)]
pub(super) struct Forwards {
    outgoing: Mutex<Pool>,
    listeners: Mutex<Option<Listeners>>,
}

#[derive(Default)]
struct Pool {
    connections: Vec<Shared>,
}

struct Shared {
    connection: Arc<NodeConnection>,
    in_use: Arc<()>,
}

struct Listeners {
    connection: Arc<NodeConnection>,
    open: Vec<(String, u32)>,
    task: tokio::task::JoinHandle<()>,
}

impl NodeDoor {
    /// Serves one `direct-tcpip` open on the node: waits for a permit, then connects through it.
    pub(super) async fn forward(self: Arc<Self>, target: TcpTarget, opening: Opening) {
        let purpose = format!("forward to {}:{}", target.host, target.port);
        let (access, permit) = match self.permit_for_forward(purpose).await {
            Ok(admitted) => admitted,
            Err(Refusal { sentence, .. }) => {
                return opening.reject(OpenRefusal::Prohibited(sentence)).await;
            }
        };
        if !Uses::LocalForward.allowed_by(permit.capabilities()) {
            return opening
                .reject(OpenRefusal::Prohibited(
                    say::LOCAL_FORWARDING_REFUSED.into(),
                ))
                .await;
        }
        let mut watch = self.watch(access.clone(), permit.clone(), Uses::LocalForward);
        let dialled = tokio::select! {
            biased;
            // Dials wait in line for the pool: without this a client could open many, leave, and
            // have the proxy log in for it long after that it is gone, or has no permit any more.
            () = opening.abandoned() => return,
            why = watch.ended() => return opening.reject(OpenRefusal::Prohibited(why)).await,
            dialled = self.outgoing(&access, &permit) => dialled,
        };
        let (node, _in_use) = match dialled {
            Ok(node) => node,
            Err(error) => {
                return opening
                    .reject(OpenRefusal::ConnectFailed(error.sentence()))
                    .await;
            }
        };
        let far = match dial::open_forward(&node, &permit, &target).await {
            Ok(far) => far,
            Err(error) => {
                return opening
                    .reject(OpenRefusal::ConnectFailed(error.sentence()))
                    .await;
            }
        };
        let what = format!("local forward to {}:{}", target.host, target.port);
        self.record(&permit, &what).await;
        let near = opening.accept().await;
        bridge::stream(near, far, &mut watch).await;
    }

    /// A node connection for one more forward: an idle one, a new one, or the least used.
    async fn outgoing(
        self: &Arc<Self>,
        access: &Access,
        permit: &Permit,
    ) -> Result<(Arc<NodeConnection>, Arc<()>), DialError> {
        let mut pool = self.forwards.outgoing.lock().await;
        pool.connections
            .retain(|shared| !shared.connection.is_closed());
        let least = pool
            .connections
            .iter()
            .min_by_key(|shared| Arc::strong_count(&shared.in_use));
        if let Some(shared) = least {
            let idle = Arc::strong_count(&shared.in_use) == 1;
            if idle || pool.connections.len() >= FORWARD_CONNECTIONS {
                return Ok((shared.connection.clone(), shared.in_use.clone()));
            }
        }
        let dialled = dial::dial(&self.proxy, permit, &self.caller(access), new_session()).await?;
        let (permit, connection) = (dialled.0, Arc::new(dialled.1));
        self.end_with_permit(&connection, access, permit);
        let in_use = Arc::new(());
        pool.connections.push(Shared {
            connection: connection.clone(),
            in_use: in_use.clone(),
        });
        Ok((connection, in_use))
    }

    /// Nothing stays logged in at a node without a permit, an idle connection of the pool neither.
    fn end_with_permit(
        self: &Arc<Self>,
        connection: &Arc<NodeConnection>,
        access: &Access,
        permit: Permit,
    ) {
        let mut watch = self.watch(access.clone(), permit, Uses::LocalForward);
        let (door, connection) = (self.clone(), connection.clone());
        tokio::spawn(async move {
            tokio::select! {
                why = watch.ended() => {
                    connection.disconnect().await;
                    door.tell(&why).await;
                }
                () = connection.closed() => {}
            }
        });
    }

    /// `tcpip-forward`: a listener on the node, and its port. While the connection is held this
    /// is refused at once: a late answer would block every later one (RFC 4254 section 4).
    pub(super) async fn listen(self: &Arc<Self>, address: &str, port: u32) -> Option<u32> {
        let (access, permit) = self.permit_now()?;
        if !Uses::RemoteForward.allowed_by(permit.capabilities()) {
            return None;
        }
        let mut listeners = self.forwards.listeners.lock().await;
        if listeners.as_ref().is_some_and(|l| l.connection.is_closed()) {
            *listeners = None;
        }
        if listeners.is_none() {
            *listeners = Some(self.start_listening(access, permit.clone()).await?);
        }
        let listeners = listeners.as_mut()?;
        if listeners.open.len() >= MAX_LISTENERS {
            return None;
        }
        let bound = listeners
            .connection
            .tcpip_forward(address, port)
            .await
            .ok()?;
        listeners.open.push((address.to_owned(), bound));
        self.record(&permit, &format!("remote forward from {address}:{bound}"))
            .await;
        Some(bound)
    }

    async fn start_listening(
        self: &Arc<Self>,
        access: Access,
        permit: Permit,
    ) -> Option<Listeners> {
        let caller = self.caller(&access);
        let mut watch = self.watch(access.clone(), permit.clone(), Uses::RemoteForward);
        let dialled = tokio::select! {
            biased;
            why = watch.ended() => {
                tracing::info!(user = %self.identity.user(), "no remote forwarding: {why}");
                return None;
            }
            dialled = dial::dial(&self.proxy, &permit, &caller, new_session()) => dialled,
        };
        let (permit, mut connection) = match dialled {
            Ok(dialled) => dialled,
            Err(error) => {
                tracing::info!(user = %self.identity.user(), "no remote forwarding: {}", error.sentence());
                return None;
            }
        };
        let mut watch = self.watch(access, permit, Uses::RemoteForward);
        let incoming = connection.take_incoming();
        let connection = Arc::new(connection);
        let node = connection.clone();
        let door = self.clone();
        let task = tokio::spawn(async move {
            let expects = Expects {
                agent: false,
                x11: false,
                forwards: true,
            };
            let ended = tokio::select! {
                () = answer_node(door.clone(), incoming, watch.clone(), expects) => None,
                why = watch.ended() => Some(why),
                () = door.connection.closed() => None,
            };
            // The listeners on the node end with its connection.
            node.disconnect().await;
            if let Some(why) = ended {
                tracing::info!(user = %door.identity.user(), "{why}");
                door.tell(&why).await;
            }
        });
        Some(Listeners {
            connection,
            open: Vec::new(),
            task,
        })
    }

    /// `cancel-tcpip-forward`: whether there was such a listener.
    pub(super) async fn unlisten(&self, address: &str, port: u32) -> bool {
        let mut listeners = self.forwards.listeners.lock().await;
        let Some(listeners) = listeners.as_mut() else {
            return false;
        };
        let Some(index) = listeners
            .open
            .iter()
            .position(|(a, p)| a == address && *p == port)
        else {
            return false;
        };
        listeners.open.swap_remove(index);
        listeners
            .connection
            .cancel_tcpip_forward(address, port)
            .await
            .is_ok()
    }

    async fn record(&self, permit: &Permit, what: &str) {
        let node = permit.node();
        let mut entry = Entry::new(Event::Port)
            .user(permit.user())
            .key(permit.key())
            .remote_addr(self.from)
            .node_id(node.id)
            .node(&node.name)
            .login(permit.login())
            .name(what);
        entry.request_id = permit.request().map(|id| id.to_string());
        if let Err(error) = self.proxy.state.audit(entry).await {
            tracing::error!(user = %permit.user(), "a forward could not be recorded: {error}");
        }
    }

    /// Ends every node connection that carried forwards; called when the user's connection ends.
    pub(super) async fn close_forwards(&self) {
        for shared in self.forwards.outgoing.lock().await.connections.drain(..) {
            shared.connection.disconnect().await;
        }
        if let Some(listeners) = self.forwards.listeners.lock().await.take() {
            listeners.connection.disconnect().await;
            listeners.task.abort();
        }
    }
}

/// What a node may open towards the user on one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expects {
    pub(super) agent: bool,
    pub(super) x11: bool,
    pub(super) forwards: bool,
}

/// Answers what a node opens: agent, display and forwarded connections that were asked for are
/// bridged, everything else is refused.
pub(super) async fn answer_node(
    door: Arc<NodeDoor>,
    mut incoming: IncomingQueue,
    watch: Watch,
    expects: Expects,
) {
    while let Some(opened) = incoming.next().await {
        let (door, watch) = (door.clone(), watch.clone());
        match opened {
            Incoming::Agent(opening) if expects.agent => {
                tokio::spawn(async move {
                    let near = door.connection.open_agent().await;
                    bridge_back(near, opening, watch.for_use(Uses::Agent)).await;
                });
            }
            Incoming::X11 {
                opening,
                originator_host,
                originator_port,
            } if expects.x11 => {
                tokio::spawn(async move {
                    let near = door
                        .connection
                        .open_x11(&originator_host, originator_port)
                        .await;
                    bridge_back(near, opening, watch.for_use(Uses::X11)).await;
                });
            }
            Incoming::ForwardedTcpip {
                address,
                port,
                originator_host,
                originator_port,
                opening,
            } if expects.forwards => {
                tokio::spawn(async move {
                    let near = door
                        .connection
                        .open_forwarded_tcpip(&address, port, &originator_host, originator_port)
                        .await;
                    bridge_back(near, opening, watch.for_use(Uses::RemoteForward)).await;
                });
            }
            Incoming::Agent(opening)
            | Incoming::X11 { opening, .. }
            | Incoming::ForwardedTcpip { opening, .. } => {
                opening
                    .reject(OpenRefusal::Prohibited("not asked for".into()))
                    .await;
            }
        }
    }
}

async fn bridge_back<E>(near: Result<Channel, E>, opening: Opening, mut watch: Watch) {
    let Ok(near) = near else {
        return opening
            .reject(OpenRefusal::ConnectFailed(
                "the user's side refused it".into(),
            ))
            .await;
    };
    let far = opening.accept().await;
    bridge::stream(near, far, &mut watch).await;
}

fn new_session() -> SessionId {
    SessionId::from_uuid(uuid::Uuid::new_v4())
}
