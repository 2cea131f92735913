//! A user's connection from its first byte: who, wanting what, and through which door.
//!
//! The outer connection proves a key. Its user name says what it is for: `root@iot` is a login on
//! a node in one hop; `node+iot` is that node's own connection; anything else leads to the lobby, where commands run and where
//! `direct-tcpip` to a node (`ssh -J`) opens an inner SSH server. Names are parsed once, here.

mod enrol;
mod forward;
mod io;
mod lobby;
mod node;
mod parting;
mod second;
mod startup;
mod tunnel;
mod voice;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anteroom_ca::user::{Conditions, Refused, verify};
use anteroom_core::id::{KeyFingerprint, UserName};
use anteroom_core::policy::Identity;
use anteroom_core::target::{ENROLL, NodeRef, Target};
use anteroom_core::view::View;
use sha2::{Digest, Sha256};
use ssh_key::{Certificate, PrivateKey, PublicKey};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::InspectReader;

use self::enrol::{Gate, Newcomer};
use self::lobby::Lobby;
use self::node::{NodeDoor, Wanted};
use self::second::{Looked, Second, SecondStep};
use self::tunnel::{Arrival, TunnelDoor};
use crate::audit::{Entry, Event};
use crate::config::DoorLimits;
use crate::limits::{Offence, Place};
use crate::proxy::Proxy;
use crate::say;
use crate::tunnels::Seat;
use anteroom_ssh::{
    self as ssh, Answer, Answered, Challenge, ChannelRequest, Connection, Front, Opening,
    ServerConfig, TcpTarget, Verdict,
};

/// `-R` may wait this long for the node; its answer blocks the client's later global requests.
const LISTEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that is silent for so long is asked whether it is there. It also keeps stateful
/// firewalls from forgetting a connection that is held for hours.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Bytes of a name that is nobody's, under which a known key may come as well: as long as a user's
/// own name may be.
const LONGEST_ALIAS: usize = 64;

/// Serves one TCP connection to its end.
pub async fn serve<S>(proxy: Arc<Proxy>, stream: S, peer: SocketAddr, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = proxy.config().door.clone();
    let config = server_config(proxy.hosts.outer(), &limits);
    let tried = Arc::new(Tried::default());
    let stranger = place.stranger();
    let front = Outer {
        proxy: proxy.clone(),
        peer,
        proven: None,
        arrived: None,
        second: SecondStep::default(),
        newcomer: None,
        place: Some(place),
        tried: tried.clone(),
        door: Door::Closed,
    };
    let heard = stranger.clone();
    let stream = InspectReader::new(stream, move |bytes: &[u8]| {
        if !bytes.is_empty() {
            heard.speaks();
        }
    });
    let ended = tokio::select! {
        ended = ssh::serve(stream, Arc::new(config), front) => ended,
        () = stranger.displaced() => Ok(ssh::Ended::ByUs),
    };
    let half_way = tried.half_way.get();
    let offence = match (tried.outcome(), ended) {
        (Outcome::Authenticated | Outcome::Enrolled, _) => return,
        (Outcome::Refused, _) => {
            // The state has written it down, without the secret.
            let now = proxy.state.now();
            let offence = Offence::AuthenticationFailed;
            return proxy.door.penalise(peer.ip(), offence, &limits, now);
        }
        // Too many attempts of any kind are failures, also of methods that are not offered.
        (Outcome::Failed, _) | (Outcome::Nothing, Err(ssh::ServeError::AuthLimit)) => {
            Some(Offence::AuthenticationFailed)
        }
        // Whoever has proven a key and then has nobody to ask for the code is no stranger.
        (Outcome::Nothing, Ok(_) | Err(_)) if half_way.is_some() => None,
        (Outcome::Nothing, Err(ssh::ServeError::GraceTime(_))) => Some(Offence::GraceExceeded),
        (Outcome::Nothing, Ok(_) | Err(_)) => Some(Offence::NoAttempt),
    };
    if let Some(offence) = offence {
        let now = proxy.state.now();
        proxy.door.penalise(peer.ip(), offence, &limits, now);
    }
    let entry = match (half_way, offence) {
        (Some(user), _) => {
            Entry::failed(Event::Auth, "a key was proven, and no second factor").user(user)
        }
        (None, Some(Offence::AuthenticationFailed)) => {
            Entry::failed(Event::Auth, "no key of a known user was proven")
        }
        (None, Some(Offence::GraceExceeded | Offence::NoAttempt) | None) => return,
    };
    if let Err(error) = proxy.state.audit(entry.remote_addr(peer)).await {
        tracing::error!(from = %peer.ip(), "a failed authentication could not be recorded: {error}");
    }
}

/// How a server of ours presents itself, outside or inside another connection.
fn server_config(
    (key, certificate): (PrivateKey, Certificate),
    limits: &DoorLimits,
) -> ServerConfig {
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    let limits = ssh::Limits {
        grace: limits.login_grace_time,
        auth_failures: size(limits.max_auth_failures),
        auth_requests: size(limits.max_auth_requests),
        channels: size(limits.channels),
        sessions: size(limits.sessions),
    };
    ServerConfig::new(vec![key], vec![certificate], KEEPALIVE, limits)
}

/// What a connection did about authentication, seen from outside its task.
#[derive(Default)]
struct Tried {
    outcome: AtomicU8,
    /// Who has proven a key and owes a second factor.
    half_way: OnceLock<UserName>,
    /// A node's place among those that connect by themselves, until the connection's task ends.
    seat: OnceLock<Seat>,
}

enum Outcome {
    Nothing,
    Failed,
    /// It has shown no token that opens anything.
    Refused,
    /// It has become a node.
    Enrolled,
    Authenticated,
}

impl Tried {
    /// A key was proven, and a second factor is wanted.
    fn half_way(&self, user: &UserName) {
        // The first one is named in the log; a connection seldom has two.
        let _ = self.half_way.set(user.clone());
    }

    fn failed(&self) {
        self.outcome.fetch_max(1, Ordering::Relaxed);
    }

    fn refused(&self) {
        self.outcome.fetch_max(2, Ordering::Relaxed);
    }

    fn enrolled(&self) {
        self.outcome.fetch_max(3, Ordering::Relaxed);
    }

    fn authenticated(&self) {
        self.outcome.fetch_max(4, Ordering::Relaxed);
    }

    fn outcome(&self) -> Outcome {
        match self.outcome.load(Ordering::Relaxed) {
            0 => Outcome::Nothing,
            1 => Outcome::Failed,
            2 => Outcome::Refused,
            3 => Outcome::Enrolled,
            _ => Outcome::Authenticated,
        }
    }
}

/// The front of an outer connection.
struct Outer {
    proxy: Arc<Proxy>,
    peer: SocketAddr,
    /// Set by a verified signature, for the user name it was made under.
    proven: Option<(Identity, Purpose)>,
    /// Set by a verified signature of a node's own connection.
    arrived: Option<Arrival>,
    /// Set by a verified signature that is not enough by itself.
    second: SecondStep,
    /// Set by a machine that wants to become a node, and has proven nothing.
    newcomer: Option<Newcomer>,
    /// Given back when the connection is no longer a stranger's.
    place: Option<Place>,
    tried: Arc<Tried>,
    door: Door,
}

/// What a user name asks for.
#[derive(Debug, Clone)]
enum Purpose {
    Lobby,
    Node(Wanted),
}

/// Where an authenticated connection leads.
enum Door {
    /// Nowhere yet.
    Closed,
    /// To commands, and to nodes by `ssh -J`.
    Lobby(Arc<Lobby>),
    /// To one login on one node.
    Node(Arc<NodeDoor>),
    /// To becoming a node, and to nothing else.
    Gate(Arc<Gate>),
    /// To the node that this is the connection of.
    Tunnel(Arc<TunnelDoor>),
}

impl Outer {
    /// Who may log in under `user` with this key, and what for. Says nothing about a key that
    /// another user's name goes with: that is answered like an unknown key.
    fn identify(&self, user: &str, key: &PublicKey) -> Option<(Identity, Purpose)> {
        let view = self.proxy.state.view();
        let fingerprint = fingerprint(key)?;
        let owner = view.user_by_key(&fingerprint)?;
        let purpose = purpose(&view, &owner.name, user)?;
        Some((
            Identity::from_proven_key(owner.name.clone(), fingerprint),
            purpose,
        ))
    }
}

impl Outer {
    /// What a verified signature leads to.
    fn signed(&mut self, user: &str, found: Option<(Identity, Purpose)>) -> Verdict {
        (self.proven, self.second, self.arrived) = (None, SecondStep::default(), None);
        let Some((identity, purpose)) = found else {
            self.tried.failed();
            return Verdict::Reject;
        };
        match second::wanted(&self.proxy, identity, self.peer) {
            Second::No(identity) => {
                self.proven = Some((identity, purpose));
                Verdict::Accept
            }
            Second::Yes(identity) => {
                self.tried.half_way(identity.user());
                self.second = SecondStep::of(user, identity, purpose, self.peer);
                Verdict::GoOn
            }
        }
    }

    /// What a verified signature of a node's own connection leads to.
    fn node_signed(&mut self, user: &str, key: &PublicKey) -> Verdict {
        (self.proven, self.second) = (None, SecondStep::default());
        self.arrived = tunnel::recognise(&self.proxy, user, key);
        if self.arrived.is_some() {
            return Verdict::Accept;
        }
        self.tried.failed();
        Verdict::Reject
    }

    /// What follows the login of a node.
    fn let_node_in(&mut self, arrival: Arrival, connection: Connection) {
        let limit = self.proxy.config().door.tunnels;
        let Some(seat) = self.proxy.tunnels().seat(arrival.node(), limit) else {
            return end(connection, say::TUNNEL_TOO_MANY);
        };
        // A connection logs in once.
        let _ = self.tried.seat.set(seat);
        let (proxy, now) = (self.proxy.clone(), self.proxy.state.now());
        let door = TunnelDoor::new(proxy, arrival, self.peer, connection, now);
        self.door = Door::Tunnel(door);
    }

    /// Whether a signature with this key could prove anything. The SSH library asks so about the key
    /// in a certificate as well, and one that was made for an agent is known by its certificate alone.
    fn is_known(&self, user: &str, key: &PublicKey) -> bool {
        let view = self.proxy.state.view();
        let Some(fingerprint) = fingerprint(key) else {
            return false;
        };
        let registered = view.user_by_key(&fingerprint).map(|owner| &owner.name);
        let owner = registered.or_else(|| view.user_by_certified_key(&fingerprint));
        owner.is_some_and(|owner| purpose(&view, owner, user).is_some())
    }

    /// The holder of an identity certificate. Whatever is wrong with one is said to the log alone.
    ///
    /// The SSH library hands over what it has parsed, not the bytes: what stood behind the
    /// certificate is gone by then, and the rest is what was issued to the byte, by its hash.
    fn identify_by_certificate(
        &self,
        user: &str,
        certificate: &Certificate,
    ) -> Option<(Identity, Purpose)> {
        let blob = certificate.to_bytes().ok()?;
        let view = self.proxy.state.view();
        let (trusted, retired) = self.proxy.state.user_authorities();
        let conditions = Conditions {
            authorities: &trusted,
            retired: &retired,
            now: self.proxy.state.now(),
            from: self.peer.ip(),
        };
        let verified = verify(&blob, &conditions, |serial| {
            view.credential(serial.get()).cloned()
        });
        match verified {
            Ok(verified) => {
                let purpose = purpose(&view, verified.user(), user)?;
                Some((verified.into_identity(), purpose))
            }
            Err(refused) => {
                record_refusal(&self.proxy, refused, certificate, &blob, self.peer);
                None
            }
        }
    }
}

/// Writes down why a certificate was refused, beside the connection; at most as many as it may fail
/// logins.
fn record_refusal(
    proxy: &Arc<Proxy>,
    refused: Refused,
    certificate: &Certificate,
    blob: &[u8],
    peer: SocketAddr,
) {
    let key_id = say::clean(certificate.key_id()).into_owned();
    // Whether one was never issued shows only in the database.
    if !matches!(refused, Refused::NeverIssued(_)) {
        tracing::warn!(serial = certificate.serial(), key_id, from = %peer.ip(), "certificate refused: {refused}");
    }
    let sha256: [u8; 32] = Sha256::digest(blob).into();
    let proxy = proxy.clone();
    tokio::spawn(async move {
        let recorded = if let Refused::NeverIssued(serial) = refused {
            proxy.state.never_issued(serial, sha256, peer).await
        } else {
            let why = format!("a certificate was refused: {refused}");
            let entry = Entry::failed(Event::Auth, why).remote_addr(peer);
            proxy.state.audit(entry).await
        };
        if let Err(error) = recorded {
            tracing::error!("a refused certificate could not be recorded: {error}");
        }
    });
}

fn fingerprint(key: &PublicKey) -> Option<KeyFingerprint> {
    KeyFingerprint::parse(&anteroom_ca::key::fingerprint(key).to_string()).ok()
}

/// Reads the user name of an outer connection (INTERFACE section 3).
fn purpose(view: &View, owner: &UserName, user: &str) -> Option<Purpose> {
    if owner.as_str() == user {
        return Some(Purpose::Lobby);
    }
    let somebody_else = UserName::parse(user).is_ok_and(|name| view.user(&name).is_some());
    if somebody_else || user == ENROLL || Target::is_reserved(user) {
        return None;
    }
    match Target::split(user) {
        Some((login, text)) => {
            // ssh itself writes the name of a host in small letters, and behind `-J` it does.
            let node = NodeRef::parse(&text.to_ascii_lowercase());
            let node = node.map_err(|_| text.to_owned());
            let readable = node.is_ok() || text.len() <= LONGEST_ALIAS;
            readable.then(|| {
                Purpose::Node(Wanted {
                    login: login.to_owned(),
                    node,
                })
            })
        }
        None => (user.len() <= LONGEST_ALIAS).then_some(Purpose::Lobby),
    }
}

impl Front for Outer {
    fn key_offered(&mut self, user: &str, key: &PublicKey) -> Verdict {
        let known = if tunnel::is_of_a_node(user) {
            tunnel::recognise(&self.proxy, user, key).is_some()
        } else {
            self.is_known(user, key)
        };
        if known {
            return Verdict::Accept;
        }
        self.tried.failed();
        Verdict::Reject
    }

    fn key_proven(&mut self, user: &str, key: &PublicKey) -> Verdict {
        // INVARIANT: an identity comes from a verified signature and from nothing else.
        // Some clients sign at once, without an offer (RFC 4252 section 7).
        if tunnel::is_of_a_node(user) {
            return self.node_signed(user, key);
        }
        let found = self.identify(user, key);
        self.signed(user, found)
    }

    fn certificate_proven(&mut self, user: &str, certificate: &Certificate) -> Verdict {
        // A node's own connection is opened by a plain host key. ssh offers a certificate that lies beside it first.
        if tunnel::is_of_a_node(user) {
            (self.proven, self.second, self.arrived) = (None, SecondStep::default(), None);
            self.tried.failed();
            return Verdict::Reject;
        }
        // INVARIANT: as with a key, and the certificate is read by the one verifier.
        let found = self.identify_by_certificate(user, certificate);
        self.signed(user, found)
    }

    fn challenge(&mut self, user: &str) -> Option<Challenge> {
        self.second.challenge(user)
    }

    async fn answered(&mut self, user: &str, answer: Option<&str>) -> Answered {
        match self.second.answered(&self.proxy, user, answer).await {
            // INVARIANT: an identity with a second factor comes from a code that was taken, on top of
            // a signature that was verified under the same user name.
            Looked::Taken(proven) => {
                self.proven = Some(*proven);
                Answered::Right
            }
            Looked::Refused => {
                self.tried.failed();
                Answered::Wrong
            }
            Looked::NothingGiven => Answered::Wrong,
            Looked::Over(text) => Answered::Over(text),
        }
    }

    fn user_changed(&mut self, _: &str) {
        if let Some(place) = &self.place {
            place.stranger().asks();
        }
        (self.proven, self.arrived) = (None, None);
        self.newcomer = None;
        self.second = SecondStep::default();
    }

    fn none(&mut self, user: &str) -> Verdict {
        // INVARIANT: who is let in so stays a stranger: no identity comes of it, and its place is kept.
        self.newcomer = Newcomer::admit(&self.proxy, user);
        match self.newcomer {
            Some(_) => Verdict::Accept,
            None => Verdict::Reject,
        }
    }

    fn authenticated(&mut self, connection: Connection) {
        if let Some(newcomer) = self.newcomer.take() {
            let (proxy, tried) = (self.proxy.clone(), self.tried.clone());
            self.door = Door::Gate(Gate::new(proxy, newcomer, self.peer, tried, connection));
            return;
        }
        self.place = None;
        self.tried.authenticated();
        if let Some(arrival) = self.arrived.take() {
            return self.let_node_in(arrival, connection);
        }
        let Some((identity, purpose)) = self.proven.take() else {
            return end(connection, "not authenticated");
        };
        let Some(place) = self.proxy.user_place(identity.user()) else {
            return end(connection, say::TOO_MANY_CONNECTIONS);
        };
        record_login(&self.proxy, &identity, self.peer);
        let ending = connection.clone();
        let since = self.proxy.state.now();
        self.door = match purpose {
            Purpose::Lobby => {
                let proxy = self.proxy.clone();
                let lobby = Lobby::new(proxy, identity, self.peer, connection, since);
                lobby.end_when_barred();
                Door::Lobby(lobby)
            }
            Purpose::Node(wanted) => {
                let proxy = self.proxy.clone();
                let door = NodeDoor::new(proxy, identity, self.peer, wanted, connection, since);
                door.end_when_barred();
                close_with(&ending, door.clone());
                Door::Node(door)
            }
        };
        tokio::spawn(async move {
            // The user's connection counts for as long as it lives.
            let _place = place;
            ending.closed().await;
        });
    }

    fn session(&mut self, opening: Opening) {
        match &self.door {
            Door::Closed => {}
            Door::Lobby(lobby) => {
                tokio::spawn(lobby.clone().session(opening));
            }
            Door::Node(door) => {
                tokio::spawn(door.clone().session(opening));
            }
            Door::Gate(gate) => {
                tokio::spawn(gate.clone().session(opening));
            }
            Door::Tunnel(door) => {
                tokio::spawn(door.clone().session(opening));
            }
        }
    }

    fn direct_tcpip(&mut self, target: TcpTarget, opening: Opening) {
        match &self.door {
            // An opening that nobody answers is refused.
            Door::Closed | Door::Gate(_) => {}
            Door::Lobby(lobby) => {
                tokio::spawn(lobby.clone().jump(target, opening));
            }
            Door::Node(door) => {
                tokio::spawn(door.clone().forward(target, opening));
            }
            Door::Tunnel(door) => {
                tokio::spawn(door.clone().forward(opening));
            }
        }
    }

    fn request(&mut self, request: &ChannelRequest) -> Answer {
        match &self.door {
            Door::Gate(_) => Gate::request(request),
            Door::Tunnel(_) => tunnel::answer(request),
            Door::Closed | Door::Lobby(_) | Door::Node(_) => answer(request, &self.proxy),
        }
    }

    async fn tcpip_forward(&mut self, address: &str, port: u32) -> Option<u32> {
        match &self.door {
            Door::Node(door) => listen(door, address, port).await,
            Door::Tunnel(door) => door.listen(address, port).await,
            Door::Closed | Door::Lobby(_) | Door::Gate(_) => None,
        }
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32) -> bool {
        match &self.door {
            Door::Node(door) => door.unlisten(address, port).await,
            Door::Tunnel(door) => door.unlisten(),
            Door::Closed | Door::Lobby(_) | Door::Gate(_) => false,
        }
    }
}

/// The front of an inner connection, inside a `direct-tcpip` channel of an outer one. Who it is
/// was proven there; the user name is a login on the node and nothing else.
struct Inner {
    proxy: Arc<Proxy>,
    identity: Identity,
    from: SocketAddr,
    /// When the outer connection proved its key.
    since: OffsetDateTime,
    node: NodeRef,
    login: Option<String>,
    door: Option<Arc<NodeDoor>>,
}

impl Inner {
    fn is_own_key(&self, key: &PublicKey) -> bool {
        let view = self.proxy.state.view();
        let owner =
            fingerprint(key).and_then(|fingerprint| view.user_by_key(&fingerprint).cloned());
        owner.is_some_and(|owner| owner.name == *self.identity.user())
    }
}

impl Front for Inner {
    fn key_offered(&mut self, _: &str, key: &PublicKey) -> Verdict {
        if self.is_own_key(key) {
            Verdict::Accept
        } else {
            Verdict::Reject
        }
    }

    fn key_proven(&mut self, user: &str, key: &PublicKey) -> Verdict {
        if !self.is_own_key(key) {
            return Verdict::Reject;
        }
        self.login = Some(user.to_owned());
        Verdict::Accept
    }

    fn none(&mut self, user: &str) -> Verdict {
        self.login = Some(user.to_owned());
        Verdict::Accept
    }

    fn authenticated(&mut self, connection: Connection) {
        let Some(login) = self.login.take() else {
            return end(connection, "not authenticated");
        };
        let door = NodeDoor::new(
            self.proxy.clone(),
            self.identity.clone(),
            self.from,
            Wanted {
                login,
                node: Ok(self.node.clone()),
            },
            connection.clone(),
            self.since,
        );
        door.end_when_barred();
        close_with(&connection, door.clone());
        self.door = Some(door);
    }

    fn session(&mut self, opening: Opening) {
        if let Some(door) = &self.door {
            tokio::spawn(door.clone().session(opening));
        }
    }

    fn direct_tcpip(&mut self, target: TcpTarget, opening: Opening) {
        if let Some(door) = &self.door {
            tokio::spawn(door.clone().forward(target, opening));
        }
    }

    fn request(&mut self, request: &ChannelRequest) -> Answer {
        answer(request, &self.proxy)
    }

    async fn tcpip_forward(&mut self, address: &str, port: u32) -> Option<u32> {
        listen(self.door.as_ref()?, address, port).await
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32) -> bool {
        match &self.door {
            Some(door) => door.unlisten(address, port).await,
            None => false,
        }
    }
}

/// Writes a login down, beside it: nothing that it opens depends on this entry having been
/// committed, and what follows (requests, certificates, sessions) has entries of its own.
fn record_login(proxy: &Arc<Proxy>, identity: &Identity, peer: SocketAddr) {
    tracing::info!(user = %identity.user(), key = %identity.key(), from = %peer.ip(), "authenticated");
    let mut entry = Entry::new(Event::UserLogin)
        .user(identity.user())
        .key(identity.key())
        .remote_addr(peer);
    if let Some(held) = identity.credential() {
        entry = entry.serial(held.serial);
    }
    if identity.second_factor().is_some() {
        entry = entry.reason("with a second factor");
    }
    let proxy = proxy.clone();
    tokio::spawn(async move {
        if let Err(error) = proxy.state.audit(entry).await {
            tracing::error!("a login could not be recorded: {error}");
        }
    });
}

/// Ends a connection from inside its own loop, which must not wait for its own end.
fn end(connection: Connection, why: &'static str) {
    tokio::spawn(async move { connection.disconnect(why).await });
}

/// What a client is told about a channel request at once, before anything is decided: whether
/// Anteroom takes it. What the permit does not allow is left out at the replay.
fn answer(request: &ChannelRequest, proxy: &Proxy) -> Answer {
    match request {
        ChannelRequest::Env { name, .. } => {
            if name.starts_with("ANTEROOM_") || proxy.config().passes_env(name) {
                Answer::Success
            } else {
                Answer::Failure
            }
        }
        ChannelRequest::Pty(_)
        | ChannelRequest::Shell
        | ChannelRequest::Exec(_)
        | ChannelRequest::Subsystem(_)
        | ChannelRequest::WindowChange(_)
        | ChannelRequest::Signal(_)
        | ChannelRequest::AgentForward
        | ChannelRequest::X11(_) => Answer::Success,
    }
}

async fn listen(door: &Arc<NodeDoor>, address: &str, port: u32) -> Option<u32> {
    tokio::time::timeout(LISTEN_TIMEOUT, door.listen(address, port))
        .await
        .ok()
        .flatten()
}

/// Ends a door's node connections when the user's connection ends: the SSH library keeps a
/// client connection alive for as long as nobody disconnects it.
fn close_with(connection: &Connection, door: Arc<NodeDoor>) {
    let connection = connection.clone();
    tokio::spawn(async move {
        connection.closed().await;
        door.leave();
        door.close_forwards().await;
    });
}

#[cfg(test)]
mod tests {
    use anteroom_core::id::ClusterName;
    use anteroom_core::view::Settings;

    use super::*;

    #[test]
    fn a_name_that_nobody_can_have_leads_nowhere() {
        let view = View::new(ClusterName::parse("ex").unwrap(), Settings::default());
        let alice = UserName::parse("alice").unwrap();
        let lobby = |user: &str| matches!(purpose(&view, &alice, user), Some(Purpose::Lobby));
        assert!(lobby("alice") && lobby("root") && lobby(&"a".repeat(64)));
        let long = format!("root@{}", "a".repeat(65));
        for bad in ["enroll", "enroll+x", "node+x", &long, &"a".repeat(65)] {
            assert!(purpose(&view, &alice, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_node_is_named_in_letters_of_any_size_and_what_is_no_name_is_nobodys() {
        let view = View::new(ClusterName::parse("ex").unwrap(), Settings::default());
        let alice = UserName::parse("alice").unwrap();
        let node = |user: &str| match purpose(&view, &alice, user) {
            Some(Purpose::Node(wanted)) => wanted.node,
            Some(Purpose::Lobby) | None => panic!("{user} is no target"),
        };
        for user in ["root@iot", "root@IOT", "root+Iot"] {
            assert_eq!(node(user), Ok(NodeRef::parse("iot").unwrap()), "{user}");
        }
        for (user, text) in [
            ("root@", ""),
            ("root@../X", "../X"),
            ("root@iot:22", "iot:22"),
        ] {
            assert_eq!(node(user), Err(text.to_owned()));
        }
    }
}
