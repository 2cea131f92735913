//! Enrolment: a machine shows a token and becomes a node.
//!
//! What comes is from a stranger until its token is known (`ask` reads it, `place` judges where it says it
//! is). The decision is `anteroom_core::enrol::admit`, made in the transaction that takes a use of the token
//! and registers the node. Only then are its host keys certified, and is it told what to do: as a script for
//! its sshd (`script`), or as what the node agent stores.

mod ask;
mod place;
mod script;
mod secret;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anteroom_ca::host;
use anteroom_ca::key::HostCa;
use anteroom_core::enrol::{Asked, HostKey, Place as Where, opened_by};
use anteroom_core::id::{NodeId, NodeName};
use anteroom_core::node::{Node, NodeAddr};
use anteroom_core::token::Token;
use anteroom_core::view::View;
use anteroom_node::protocol::Joined;
use base64ct::{Base64, Encoding};
use rand::rngs::StdRng;
use ssh_key::PublicKey;
use time::Duration;
use uuid::Uuid;

use self::ask::{Ask, Form};
pub(crate) use self::ask::{AskError, LONGEST_INPUT};
use self::script::Script;
pub(crate) use self::script::{RENEWAL_FILE, renewal};
pub use self::secret::Secret;
pub(crate) use self::secret::random_word;
use crate::admin;
use crate::audit::{Entry, Event, PROXY};
use crate::exit::{Exit, Exits};
use crate::proxy::Proxy;
use crate::say;
use crate::state::{EnrolError, Enrolled, IssueError};
use crate::tunnel_unit::{SSHD_PORT, TunnelUnit};

/// How long a host certificate lives: the longest that its class allows, as `nodes host-cert` gives it.
const CERTIFICATE_LIFETIME: Duration = Duration::days(29);

/// What a machine is not let in by: one sentence, and how its command ends.
#[derive(Debug)]
pub(crate) struct Turned {
    /// The sentence, without a secret.
    pub(crate) sentence: String,
    /// The exit status.
    pub(crate) exit: Exit,
    /// Whether it has shown no token that opens anything: that is somebody who tries.
    pub(crate) tries: bool,
}

impl Turned {
    fn new(exit: Exit, sentence: impl ToString) -> Self {
        Self {
            sentence: say::clean(&sentence.to_string()).into_owned(),
            exit,
            tries: false,
        }
    }
}

impl From<AskError> for Turned {
    fn from(error: AskError) -> Self {
        Self {
            tries: true,
            ..Self::new(Exit::Usage, error)
        }
    }
}

impl From<EnrolError> for Turned {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Refused(refused) => Self {
                tries: refused.is_of_the_token(),
                ..Self::new(Exit::Denied, refused)
            },
            EnrolError::Store(error) => Self::new(error.exit(), error),
        }
    }
}

impl From<IssueError> for Turned {
    fn from(error: IssueError) -> Self {
        let text = format!("{error}; this machine is registered, so give the same command again");
        Self::new(error.exit(), text)
    }
}

/// Reads what a machine asks for, lets it in, and gives what it is to be told.
///
/// # Errors
/// [`Turned`]; then it is not told anything else. It is in the log.
pub(crate) async fn enrol(
    proxy: &Proxy,
    from: SocketAddr,
    words: &[String],
    input: &[u8],
    secret: Option<Secret>,
) -> Result<String, Turned> {
    let ask = match Ask::parse(words, input, secret) {
        Ok(ask) => ask,
        Err(error) => {
            record_nonsense(proxy, from, &error).await;
            return Err(error.into());
        }
    };
    let form = ask.form;
    let keys = ask.keys.clone();
    let enrolled = let_in(proxy, from, ask).await?;
    let certificates = certify(proxy, from, &enrolled, &keys).await?;
    let krl = admin::revocation_list(&proxy.commands).await;
    let krl = krl.map_err(|(exit, why)| Turned::new(exit, why))?;
    let node_ca = admin::node_authorities(&proxy.commands);
    let node_ca = node_ca.map_err(|(exit, why)| Turned::new(exit, why))?;
    let Enrolled { node, .. } = enrolled;
    tracing::info!(node = %node.name, id = %node.id, from = %from.ip(), again = enrolled.again, "enrolled");
    match form {
        Form::Agent => {
            let host_ca = admin::host_authorities(&proxy.commands);
            let joined = Joined {
                node_id: node.id.to_string(),
                name: node.name.to_string(),
                cluster: proxy.state.cluster().to_string(),
                node_ca,
                host_ca: host_ca.map_err(|(exit, why)| Turned::new(exit, why))?,
                host_certificate: certificates.into_iter().map(|(_, it)| it).collect(),
                krl: Base64::encode_string(&krl),
            };
            let text = serde_json::to_string(&joined);
            text.map(|text| text + "\n")
                .map_err(|error| Turned::new(Exit::Failed, error))
        }
        Form::Script => Ok(Script {
            cluster: proxy.state.cluster().to_string(),
            node_name: node.name.to_string(),
            node_id: node.id.to_string(),
            node_ca,
            krl,
            proxy_addr: as_seen_from(from, &node).to_string(),
            node_addr: as_dialled(from, &node),
            renewal: renewal(&node.id, &proxy.commands.place),
            log_in: say::log_in_line(&proxy.commands.place, &node),
            certificates,
            tunnel: tunnel(proxy, &node),
        }
        .text()),
    }
}

/// What keeps the node's tunnel up, where it is reached by one: the unit, and its command as a shell has it.
fn tunnel(proxy: &Proxy, node: &Node) -> Option<(String, String)> {
    if node.addr != NodeAddr::Tunnel {
        return None;
    }
    let unit = TunnelUnit::of(node, &proxy.commands.place, SSHD_PORT);
    let command = unit.command();
    let words = command.iter().map(String::as_str);
    let command = shlex::try_join(words).unwrap_or_default();
    Some((unit.text(), command))
}

/// Writes down that somebody who enrols gave what can't be read.
pub(crate) async fn record_nonsense(proxy: &Proxy, from: SocketAddr, why: impl std::fmt::Display) {
    let entry = Entry::failed(Event::InstanceJoin, why).user(PROXY);
    // It is refused either way; the store says by itself when it can't write.
    let _ = proxy.state.audit(entry.remote_addr(from)).await;
}

async fn let_in(proxy: &Proxy, from: SocketAddr, ask: Ask) -> Result<Enrolled, Turned> {
    let secret_sha256 = ask.secret.sha256();
    // Who has no token has no name looked up: what is decided is decided below.
    let now = proxy.state.now();
    let view = proxy.state.view();
    let place = if opened_by(&view, &secret_sha256, now).is_some() {
        let addresses = proxy.state.addresses();
        place::place(&proxy.commands.place, addresses, &ask.wish, from).await
    } else {
        Where::Tunnel
    };
    let asked = Asked {
        secret_sha256,
        id: NodeId::from_uuid(Uuid::new_v4()),
        name: ask.name,
        labels: ask.labels,
        place,
        host_keys: ask.keys,
    };
    Ok(proxy.state.enrol(asked, from).await?)
}

/// A certificate for each host key: the node's UUID, and the names that an operator has approved, which are
/// those that the token has.
async fn certify(
    proxy: &Proxy,
    from: SocketAddr,
    enrolled: &Enrolled,
    keys: &[HostKey],
) -> Result<Vec<(String, String)>, Turned> {
    let Enrolled { node, token, .. } = enrolled;
    let view = proxy.state.view();
    // A node that is set up again keeps the names that it has.
    let before = proxy.state.reader().certified_names_of(node.id).await;
    let before = before.map_err(|error| Turned::new(error.exit(), error))?;
    let id = node.id.to_string();
    let before = before.iter().map(String::as_str).filter(|name| *name != id);
    let names = approved(&view, node, token).chain(before);
    let names = admin::admitted_names(&proxy.commands.place.names, names);
    let mut certificates = Vec::with_capacity(keys.len());
    for key in keys {
        let subject = PublicKey::from_openssh(&key.openssh).map_err(|error| {
            Turned::new(Exit::Failed, format!("a host key can't be read: {error}"))
        })?;
        let (id, carried) = (node.id, names.clone());
        let certify = move |terms, ca: &HostCa, rng: &mut StdRng| {
            host::certify_node(&id, &carried, &subject, terms, ca, rng)
        };
        let issued = proxy
            .state
            .issue_enrolled_host(
                (node.id, &key.fingerprint),
                from,
                &names,
                CERTIFICATE_LIFETIME,
                certify,
            )
            .await?;
        certificates.push((key.openssh.clone(), issued.to_openssh().to_owned()));
    }
    Ok(certificates)
}

/// The names that the token has, but for those that are not the node's any more.
fn approved<'a>(view: &View, node: &Node, token: &'a Token) -> impl Iterator<Item = &'a str> {
    let name = token.node.as_ref().filter(|name| **name == node.name);
    let host = token.addr.as_ref().filter(|addr| **addr == node.addr);
    let host = host.and_then(NodeAddr::host).filter(|host| {
        let name = NodeName::parse(host);
        name.map_or(true, |name| {
            view.nodes_named(&name).all(|other| other.id == node.id)
        })
    });
    name.map(NodeName::as_str).into_iter().chain(host)
}

/// Where the node's sshd gets the proxy's connections: its address as far as it is one, and the port.
fn as_dialled(from: SocketAddr, node: &Node) -> (String, u16) {
    let Some((host, port)) = node.addr.dialled() else {
        return (Ipv4Addr::LOCALHOST.to_string(), SSHD_PORT);
    };
    let ip = host.parse::<IpAddr>().unwrap_or(from.ip());
    (ip.to_canonical().to_string(), port)
}

/// From where the proxy comes to the node: what the kernel would choose. Nothing is sent to find out.
fn as_seen_from(from: SocketAddr, node: &Node) -> IpAddr {
    let any: SocketAddr = if from.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0; 8], 0).into()
    };
    let loopback = IpAddr::from([127, 0, 0, 1]);
    if node.addr == NodeAddr::Tunnel {
        return loopback;
    }
    let socket = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(from)?;
        socket.local_addr()
    });
    socket.map_or(loopback, |address| address.ip().to_canonical())
}
