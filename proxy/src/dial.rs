//! From a permit to a logged-in connection with a node: connect, certify, log in.
//!
//! Only a [`Permit`] gets here. The address dialled is the one that was registered, never one a
//! client named; the certificate is issued for the address the node sees; nothing is sent to a
//! node before it has proven to be the registered one. Each step has its time limit.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anteroom_ca::SourceAddresses;
use anteroom_ca::host::{self, HostExpectation, PresentedHost};
use anteroom_ca::key::fingerprint;
use anteroom_core::id::{KeyFingerprint, SessionId, UserName};
use anteroom_core::node::{HostProof as Registered, Node};
use anteroom_core::policy::{Access, Identity, Permit};
use sha2::{Digest, Sha256};
use ssh_key::public::KeyData;
use ssh_key::{Certificate, PublicKey};
use tokio::net::TcpStream;

use crate::admin::Duplex;
use crate::audit::{Entry, Event, hex};
use crate::authority::{AuthorityKind, Stage as AuthorityStage, print};
use crate::exit::{Exit, Exits};
use crate::keys;
use crate::learning;
use crate::proxy::Proxy;
use crate::say::{self, Stage};
use crate::state::{IssueError, Subject};
use crate::store::HostCertificate;
use crate::tunnels::NoWay;
use anteroom_ssh::{
    self as ssh, Channel, ConnectError, Credential, HostAlgorithms, HostProof, NodeConnection,
    Purpose, TcpTarget,
};

/// Connecting, logging in and opening a channel: this long each (INTERFACE section 1).
const STEP_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) const NO_ANSWER: &str = "no answer within 10 seconds";

/// Why a node could not be used.
#[derive(Debug)]
pub enum DialError {
    /// The node, or the way to it, failed at a stage.
    Node {
        /// The node's name.
        node: String,
        /// How far it went.
        stage: Stage,
        /// The reason; may come from the node.
        why: String,
    },
    /// The certificate was not issued: the decision had changed, or the store failed.
    Issue(IssueError),
}

impl DialError {
    /// The sentence for the user.
    pub fn sentence(&self) -> String {
        match self {
            DialError::Node { node, stage, why } => say::node_unavailable(node, *stage, why),
            DialError::Issue(error) => format!("ERROR: {error}"),
        }
    }

    /// The exit status for the user.
    pub fn exit(&self) -> Exit {
        match self {
            DialError::Node { .. } => Exit::Unavailable,
            DialError::Issue(error) => error.exit(),
        }
    }
}

/// Who connects, to what, as which session: what ends up in the certificate's key ID.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub identity: Identity,
    /// What.
    pub access: Access,
    /// The command that the session is going to run, if that is all it does.
    pub command: Option<Vec<u8>>,
    /// From where.
    pub from: SocketAddr,
}

/// Connects to the permit's node and logs in with a certificate made for this session.
///
/// The permit that comes back is the one the certificate was issued under: the decision is made
/// once more inside the transaction that records the issuance.
///
/// # Errors
/// A [`DialError`] that names the stage; nothing is left open then.
pub async fn dial(
    proxy: &Arc<Proxy>,
    permit: &Permit,
    caller: &Caller,
    session: SessionId,
) -> Result<(Permit, NodeConnection), DialError> {
    let in_on_it = log_in(proxy, permit, caller, session, By::WhoSigns).await?;
    let login = learning::Login {
        permit: in_on_it.permit.clone(),
        caller: caller.clone(),
        session,
        taken: in_on_it.taken,
        shown: in_on_it.shown,
    };
    learning::after_login(proxy, login);
    Ok((in_on_it.permit, in_on_it.connection))
}

/// Logs in on the permit's node with a certificate of the announced node CA, to see whether it takes
/// one; otherwise as [`dial`].
///
/// # Errors
/// As [`dial`].
pub(crate) async fn try_announced(
    proxy: &Arc<Proxy>,
    permit: &Permit,
    caller: &Caller,
    session: SessionId,
) -> Result<NodeConnection, DialError> {
    let in_on_it = log_in(proxy, permit, caller, session, By::WhoIsAnnounced).await?;
    Ok(in_on_it.connection)
}

/// Which node CA signs the certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    WhoSigns,
    WhoIsAnnounced,
}

/// A login on a node.
struct InOnIt {
    permit: Permit,
    connection: NodeConnection,
    /// Which authority signed the certificate.
    taken: KeyData,
    /// Which one signed what the node showed.
    shown: Option<KeyData>,
}

async fn log_in(
    proxy: &Arc<Proxy>,
    permit: &Permit,
    caller: &Caller,
    session: SessionId,
    by: By,
) -> Result<InOnIt, DialError> {
    let node = permit.node().clone();
    let failed = |stage| {
        let node = node.name.to_string();
        move |why: String| DialError::Node { node, stage, why }
    };
    let reached = match node.addr.dialled() {
        Some(there) => reach(proxy, &node, there).await,
        None => reach_by_tunnel(proxy, &node, Some(permit.user())).await,
    };
    let (stream, source_addresses) = reached.map_err(failed(Stage::Connecting))?;

    let expected = Expected::new(proxy, &node).await?;
    let key = Arc::new(keys::ephemeral());
    let subject = Subject {
        session,
        key: key.public_key().clone(),
        source_addresses,
        command: caller.command.clone(),
        from: Some(caller.from),
    };
    let (state, identity, access) = (&proxy.state, &caller.identity, &caller.access);
    let issued = match by {
        By::WhoSigns => state.issue(identity, access, subject).await,
        By::WhoIsAnnounced => state.issue_trial(identity, access, subject).await,
    };
    let issued = issued.map_err(DialError::Issue)?;

    let (algorithms, refusal) = (expected.algorithms(), expected.refusal.clone());
    let forged = expected.forged.clone();
    let shown = expected.shown.clone();
    let check = move |shown: &HostProof| expected.check(shown);
    let login = caller.access.login.as_str();
    let certificate = issued.certificate.into_ssh();
    let taken = certificate.signature_key().clone();
    let purpose = match node.addr.dialled() {
        Some(_) => Purpose::Session,
        None => Purpose::Through,
    };
    let credential = Credential::Certificate(key, Box::new(certificate));
    let connected = ssh::connect_as(stream, check, &algorithms, login, credential, purpose);
    match tokio::time::timeout(STEP_TIMEOUT, connected).await {
        Ok(Ok(connection)) => {
            let now = proxy.state.now();
            proxy.state.presence().dialled(node.id, now);
            Ok(InOnIt {
                permit: issued.permit,
                connection,
                taken,
                shown: shown.get().cloned(),
            })
        }
        Ok(Err(error)) => {
            if let Some(serial) = forged.get() {
                raise_alarm(proxy, &node, *serial).await;
            }
            let refusal = refusal.get().cloned();
            if let Some(why) = &refusal {
                record_stranger(proxy, &node, caller, why).await;
            }
            let why = refusal.unwrap_or_else(|| why(proxy, &error, &node, login));
            let stage = match error {
                ConnectError::HostRefused | ConnectError::NoCommonAlgorithm(_) => Stage::Verifying,
                ConnectError::CertificateRefused
                | ConnectError::Disconnected(_)
                | ConnectError::Io(_)
                | ConnectError::Protocol(_) => Stage::LoggingIn,
            };
            Err(failed(stage)(why))
        }
        Err(_) => Err(failed(Stage::LoggingIn)(NO_ANSWER.into())),
    }
}

/// A connection to a node's sshd, and what the node sees it come from.
pub(crate) type Reached = (Box<dyn Duplex>, SourceAddresses);

/// Dials the node where it is registered.
async fn reach(proxy: &Proxy, node: &Node, (host, port): (&str, u16)) -> Result<Reached, String> {
    let tcp = step(TcpStream::connect((host, port))).await?;
    if let Ok(there) = tcp.peer_addr() {
        let (addresses, now) = (proxy.state.addresses(), proxy.state.now());
        addresses.seen(host, [there.ip()], now);
    }
    ssh::prepare(&tcp).map_err(|error| error.to_string())?;
    let source_addresses = source_addresses(proxy, &node.egress_addresses, &tcp)?;
    Ok((Box::new(tcp), source_addresses))
}

/// Takes the way that the node keeps open. Its sshd sees a connection from its own loopback address, unless an
/// operator says that the forward leads elsewhere. Without a `user` it is nobody's share: an operator looks.
pub(crate) async fn reach_by_tunnel(
    proxy: &Proxy,
    node: &Node,
    user: Option<&UserName>,
) -> Result<Reached, String> {
    let (view, now) = (proxy.state.view(), proxy.state.now());
    let opening = proxy.tunnels().connect(&node.id, user, &view, now);
    let stream = match tokio::time::timeout(STEP_TIMEOUT, opening).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(NoWay::None)) => {
            let last = proxy.state.presence().of(&node.id).last_heartbeat;
            return Err(say::no_tunnel(last));
        }
        Ok(Err(NoWay::Full)) => return Err(say::TUNNEL_FULL.to_owned()),
        Ok(Err(NoWay::Refused(why))) => return Err(say::tunnel_refused(&why)),
        Err(_) => return Err(NO_ANSWER.to_owned()),
    };
    let source_addresses = match node.egress_addresses.as_slice() {
        [] => SourceAddresses::tunnel(),
        named => SourceAddresses::parse(named).map_err(|error| error.to_string())?,
    };
    Ok((Box::new(stream), source_addresses))
}

/// What answers in the node's place is not the node, or the node has another key without a word from an
/// operator.
async fn record_stranger(proxy: &Proxy, node: &Node, caller: &Caller, why: &str) {
    let entry = Entry::failed(Event::Auth, format!("the node was not recognised: {why}"))
        .user(caller.identity.user())
        .remote_addr(caller.from)
        .login(&caller.access.login)
        .node(&node.name)
        .node_id(node.id);
    if let Err(error) = proxy.state.audit(entry).await {
        tracing::error!(node = %node.name, "a node that was not recognised could not be recorded: {error}");
    }
}

/// Somebody else has the host CA's key, or an operator signed by hand.
async fn raise_alarm(proxy: &Proxy, node: &Node, serial: u64) {
    let why = format!("ALARM: {}", say::HOST_NEVER_ISSUED);
    tracing::error!(node = %node.name, serial, "{why}");
    let entry = Entry::failed(Event::Auth, why).serial(serial);
    let entry = entry.node(&node.name).node_id(node.id);
    if let Err(error) = proxy.state.audit(entry).await {
        tracing::error!("an alarm could not be recorded: {error}");
    }
}

/// Opens a session channel on a node.
///
/// # Errors
/// [`DialError::Node`] at [`Stage::Opening`].
pub async fn open_session(
    connection: &NodeConnection,
    permit: &Permit,
) -> Result<Channel, DialError> {
    step(connection.open_session())
        .await
        .map_err(|why| opening(permit, why))
}

/// Opens a connection through a node, to where the user's client asked.
///
/// # Errors
/// [`DialError::Node`] at [`Stage::Opening`].
pub async fn open_forward(
    connection: &NodeConnection,
    permit: &Permit,
    target: &TcpTarget,
) -> Result<Channel, DialError> {
    step(connection.open_direct_tcpip(target.clone()))
        .await
        .map_err(|why| opening(permit, why))
}

fn opening(permit: &Permit, why: String) -> DialError {
    DialError::Node {
        node: permit.node().name.to_string(),
        stage: Stage::Opening,
        why,
    }
}

/// One step with its time limit; the error as a sentence.
async fn step<T, E: std::fmt::Display>(
    doing: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(STEP_TIMEOUT, doing).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(NO_ANSWER.into()),
    }
}

/// The next step where there is one; else the error's own words.
fn why(proxy: &Proxy, error: &ConnectError, node: &Node, login: &str) -> String {
    match error {
        ConnectError::CertificateRefused => match unlearnt(proxy, node) {
            Some(signing) => say::node_has_to_learn(node.name.as_str(), login, &signing),
            None => format!(
                "login `{login}` may be missing there, or its sshd lacks the lines that `nodes sshd-config {}` prints",
                node.name
            ),
        },
        ConnectError::HostRefused
        | ConnectError::NoCommonAlgorithm(_)
        | ConnectError::Disconnected(_)
        | ConnectError::Io(_)
        | ConnectError::Protocol(_) => error.to_string(),
    }
}

/// The node CA that signs since its rotation, if the node is not known to trust it.
fn unlearnt(proxy: &Proxy, node: &Node) -> Option<String> {
    let authorities = proxy.state.authorities()?;
    let record = &authorities.node.record;
    let signs = matches!(record.stage, AuthorityStage::Signing { .. });
    let learners = proxy.state.yet_to_learn(AuthorityKind::Node);
    let is_one = learners.iter().any(|learner| learner.id == node.id);
    (signs && is_one).then(|| print(&record.signing))
}

/// What goes into `source-address`: what the operator says the node sees, else our own end of
/// the connection just made.
pub(crate) fn source_addresses(
    proxy: &Proxy,
    of_node: &[String],
    tcp: &TcpStream,
) -> Result<SourceAddresses, String> {
    let config = proxy.config();
    let named = if of_node.is_empty() {
        config.egress_addresses.as_slice()
    } else {
        of_node
    };
    if !named.is_empty() {
        return SourceAddresses::parse(named).map_err(|error| error.to_string());
    }
    let seen = tcp.local_addr().map_err(|error| error.to_string())?;
    Ok(SourceAddresses::local(seen.ip().to_canonical()))
}

/// How the registered node is recognised, and why what answered was not it.
pub(crate) struct Expected {
    proxy: Arc<Proxy>,
    node: Arc<Node>,
    pinned: Vec<PublicKey>,
    /// What was issued for the node and has not ended, where it is known by a certificate.
    issued: Vec<HostCertificate>,
    refusal: Arc<OnceLock<String>>,
    /// The serial number of a certificate that is ours and was never issued.
    forged: Arc<OnceLock<u64>>,
    /// Which authority signed what the node showed.
    shown: Arc<OnceLock<KeyData>>,
}

impl Expected {
    pub(crate) async fn new(proxy: &Arc<Proxy>, node: &Arc<Node>) -> Result<Expected, DialError> {
        let (mut pinned, mut issued) = (Vec::new(), Vec::new());
        match &node.host_proof {
            Registered::HostCa => {
                let (reader, now) = (proxy.state.reader(), proxy.state.now());
                let known = reader.host_certificates_of(node.id, now).await;
                issued = known.map_err(|error| DialError::Issue(error.into()))?;
            }
            Registered::Pinned(lines) => {
                let keys = lines.iter().map(|line| PublicKey::from_openssh(line));
                let keys: Result<_, _> = keys.collect();
                pinned = keys.map_err(|error| DialError::Node {
                    node: node.name.to_string(),
                    stage: Stage::Verifying,
                    why: format!("a registered host key cannot be read: {error}"),
                })?;
            }
        }
        Ok(Expected {
            proxy: proxy.clone(),
            node: node.clone(),
            pinned,
            issued,
            refusal: Arc::default(),
            forged: Arc::default(),
            shown: Arc::default(),
        })
    }

    /// Why what answered was refused, once it was.
    pub(crate) fn refusal(&self) -> Arc<OnceLock<String>> {
        self.refusal.clone()
    }

    pub(crate) fn algorithms(&self) -> HostAlgorithms {
        match &self.node.host_proof {
            Registered::HostCa => HostAlgorithms::CertificatesFirst,
            Registered::Pinned(_) => {
                HostAlgorithms::Pinned(self.pinned.iter().map(PublicKey::algorithm).collect())
            }
        }
    }

    pub(crate) fn check(&self, proof: &HostProof) -> bool {
        let shown = match proof {
            HostProof::Key(key) => PresentedHost::Key(key),
            HostProof::Certificate(certificate) => {
                self.shown.set(certificate.signature_key().clone()).ok();
                PresentedHost::Certificate(certificate)
            }
        };
        // Without keys nothing is trusted.
        let authorities = self.proxy.state.authorities();
        let trusted = authorities.map_or_else(Vec::new, |all| all.host.record.trusted());
        let expected = match &self.node.host_proof {
            Registered::Pinned(_) => HostExpectation::Pinned(&self.pinned),
            Registered::HostCa => HostExpectation::Authority {
                trusted: &trusted,
                node: &self.node.id,
                now: self.proxy.state.now(),
            },
        };
        let verified = host::verify(shown, expected)
            .map_err(|refused| refused.to_string())
            .and_then(|()| self.still_counts(proof));
        match verified {
            Ok(()) => true,
            Err(refused) => {
                // The first refusal ends the connection; a later one cannot come.
                self.refusal.set(refused).ok();
                false
            }
        }
    }

    /// A host that is genuine by what it shows may have been shut out since: its key stolen, say.
    fn still_counts(&self, proof: &HostProof) -> Result<(), String> {
        let (view, now) = (self.proxy.state.view(), self.proxy.state.now());
        let key = match proof {
            HostProof::Key(key) => key.clone(),
            HostProof::Certificate(certificate) => {
                PublicKey::from(certificate.public_key().clone())
            }
        };
        let key = fingerprint(&key).to_string();
        let on_key = KeyFingerprint::parse(&key).ok();
        let on_key = on_key.and_then(|key| view.locks().on_key(&key, now));
        if let Some(lock) = on_key {
            return Err(say::host_is_locked(&format!("key {key}"), &lock.message));
        }
        match (proof, &self.node.host_proof) {
            // A pinned key counts by itself, whatever certificate it comes in.
            (HostProof::Key(_) | HostProof::Certificate(_), Registered::Pinned(_))
            | (HostProof::Key(_), Registered::HostCa) => Ok(()),
            (HostProof::Certificate(certificate), Registered::HostCa) => {
                let serial = certificate.serial();
                if let Some(lock) = view.locks().on_serial(serial, now) {
                    let what = format!("certificate {serial}");
                    return Err(say::host_is_locked(&what, &lock.message));
                }
                self.was_issued(certificate)
            }
        }
    }

    fn was_issued(&self, certificate: &Certificate) -> Result<(), String> {
        let (serial, name) = (certificate.serial(), &self.node.name);
        let shown = certificate.to_bytes().map_err(|error| error.to_string())?;
        let sha256: [u8; 32] = Sha256::digest(shown).into();
        let hash = hex(&sha256);
        let issued = self
            .issued
            .iter()
            .find(|issued| issued.serial == serial && issued.sha256 == hash);
        match issued.map(|issued| &issued.revoked) {
            Some(None) => Ok(()),
            Some(Some(why)) => Err(say::host_is_revoked(serial, why, name.as_str())),
            None => {
                self.forged.set(serial).ok();
                Err(say::host_never_issued(serial, name.as_str()))
            }
        }
    }
}
