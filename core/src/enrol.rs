//! Enrolment: what a machine that shows a token may become.
//!
//! [`admit`] is the one place where it is decided, on a view and a time that are handed in. It looks at the
//! token first: who has none learns nothing about nodes, names and keys. What a token or an operator says
//! wins over what the machine says, and a machine is only ever let in beside what is there, never in its place.
//! A token is good for what its maker may register himself, at the moment of its use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::admin::{AdminObject, AdminVerb, allowed};
use crate::id::{KeyFingerprint, NodeId, NodeName, UserName};
use crate::node::{HostProof, Node, NodeAddr};
use crate::request::Actor;
use crate::token::{Token, TokenKind};
use crate::view::View;

/// What a machine asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Lower-case hexadecimal SHA-256 of the secret that it shows.
    pub secret_sha256: String,
    /// The UUID that it gets if it is new; the caller made it random.
    pub id: NodeId,
    /// What it wants to be called.
    pub name: Option<NodeName>,
    /// What it says of itself; checked by [`said_labels`](crate::node::said_labels).
    pub labels: BTreeMap<String, String>,
    /// Where it wants to be reached.
    pub place: Place,
    /// Its public host keys, each one OpenSSH line. Never empty, of each type one.
    pub host_keys: Vec<HostKey>,
}

/// A public host key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// Type and key, as [`Node::pinned_keys`] has it.
    pub openssh: String,
    /// Its fingerprint.
    pub fingerprint: KeyFingerprint,
}

/// Where a machine wants to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It did not say. What it gets then is where it comes from, at the usual port.
    Unsaid {
        /// Where it comes from.
        source: NodeAddr,
        /// Whether the address is one that a machine may give itself.
        verdict: Result<(), NotYours>,
    },
    /// There, as it said.
    Said {
        /// What it said, an address in place of a name.
        addr: NodeAddr,
        /// Whether the address is one that a machine may give itself.
        verdict: Result<(), NotYours>,
    },
    /// It keeps a tunnel.
    Tunnel,
}

/// Why an address is not one that a machine may give itself. An operator may give it any.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{addr}` is {what}, and a node can't enrol itself there; an operator can, with `tokens add --addr HOST:PORT`, or enrol it with `--tunnel`"
)]
pub struct NotYours {
    /// The address, as it was said.
    pub addr: String,
    /// What it is.
    pub what: &'static str,
}

/// What becomes of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admitted {
    /// It becomes this node, by this token.
    New {
        /// The node.
        node: Node,
        /// The token as it was before.
        token: Arc<Token>,
    },
    /// It is this node already, which came in otherwise: it is set up again, for a use of the token, and nothing
    /// else changes.
    Known {
        /// The node.
        node: Arc<Node>,
        /// The token as it was before.
        token: Arc<Token>,
    },
    /// It is this node already, by this token: nothing changes.
    Again {
        /// The node.
        node: Arc<Node>,
        /// The token.
        token: Arc<Token>,
    },
}

/// Why a machine is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// There is no such token, or it is used up, over, for something else, or of somebody who is locked or gone.
    /// Which, is not said.
    #[error(
        "the token is not valid: it is unknown, used, expired or for something else; ask an operator for a new one (`tokens add --type node`)"
    )]
    Token,
    /// Neither the token nor the machine has a name.
    #[error("the token names no node, so name it yourself, as in `enroll@access iot`")]
    NoName,
    /// The token is for another name.
    #[error("the token is for a node called `{token}`, not `{asked}`; use that name")]
    OtherName {
        /// The token's.
        token: NodeName,
        /// What was asked for.
        asked: NodeName,
    },
    /// There is a node of that name.
    #[error(
        "the name `{0}` is taken by another node; choose another name, or have an operator remove that node first"
    )]
    NameTaken(NodeName),
    /// A user's name would read as a login on the node.
    #[error("the name `{0}` would read as part of a user's name; choose another name")]
    ReadsAsUser(NodeName),
    /// Another node has the host key.
    #[error(
        "another node has the host key {0}; a host key is one machine's: make new ones here with `ssh-keygen -A`, or have an operator remove that node first"
    )]
    KeyTaken(KeyFingerprint),
    /// A user has the host key as her own.
    #[error(
        "the key {0} is a user's, and no host key; give the ones that this machine's sshd uses"
    )]
    KeyOfUser(KeyFingerprint),
    /// Whoever made the token may not register such a node himself.
    #[error(
        "by this token no node `{0}` with these labels comes in: whoever made it may not register one; ask another operator for a token"
    )]
    NotTheMakers(NodeName),
    /// The host key is locked.
    #[error("the host key {0} is locked; make a new one, or have an operator take the lock away")]
    KeyLocked(KeyFingerprint),
    /// The machine is a node that is locked.
    #[error("node `{0}` is locked; have an operator take the lock away")]
    NodeLocked(NodeName),
    /// The token is for another address.
    #[error("the token is for a node at `{token}`, not `{asked}`; leave the address out")]
    OtherPlace {
        /// The token's.
        token: NodeAddr,
        /// What was asked for.
        asked: NodeAddr,
    },
    /// A machine can't give itself that address.
    #[error(transparent)]
    NotYours(#[from] NotYours),
    /// It is enrolled already, and asks for something else now.
    #[error("`{name}` is enrolled already with {what}; an operator changes it with `nodes update`")]
    Different {
        /// The node.
        name: NodeName,
        /// What is different.
        what: &'static str,
    },
}

impl Refused {
    /// Whether the secret opened nothing: that is somebody who tries, and not a mistake.
    #[must_use]
    pub const fn is_of_the_token(&self) -> bool {
        matches!(self, Self::Token)
    }
}

/// What a machine may become.
///
/// # Errors
/// [`Refused`], each with what to do.
pub fn admit(view: &View, asked: &Asked, now: OffsetDateTime) -> Result<Admitted, Refused> {
    let token = opened_by(view, &asked.secret_sha256, now).ok_or(Refused::Token)?;
    if let Some(node) = enrolled(view, token, asked) {
        stays(node, asked)?;
        let (node, token) = (Arc::clone(node), Arc::clone(token));
        return Ok(Admitted::Again { node, token });
    }
    if token.uses_left == 0 {
        return Err(Refused::Token);
    }
    let name = name(token, asked)?;
    if let Some(node) = known(view, &name, asked) {
        return known_again(view, token, node, asked, now);
    }
    if view.nodes_named(&name).next().is_some() {
        return Err(Refused::NameTaken(name));
    }
    if view.user_read_as_target(&name).is_some() {
        return Err(Refused::ReadsAsUser(name));
    }
    for key in &asked.host_keys {
        if view.nodes_with_host_key(&key.openssh).next().is_some() {
            return Err(Refused::KeyTaken(key.fingerprint.clone()));
        }
        if view.user_by_key(&key.fingerprint).is_some() {
            return Err(Refused::KeyOfUser(key.fingerprint.clone()));
        }
        if view.locks().on_key(&key.fingerprint, now).is_some() {
            return Err(Refused::KeyLocked(key.fingerprint.clone()));
        }
    }
    let keys = asked.host_keys.iter().map(|key| key.openssh.clone());
    let mut node = Node {
        id: asked.id,
        name,
        addr: addr(token, asked)?,
        labels: token.labels.clone(),
        said_labels: BTreeSet::new(),
        host_proof: HostProof::Pinned(keys.collect()),
        egress_addresses: Vec::new(),
    };
    let by_the_token_alone = maker_may_register(view, token, &node);
    node.say_labels(asked.labels.clone());
    // A rule that denies looks at what the machine says as well, and one that allows must not rest on it.
    if !by_the_token_alone || !maker_may_register(view, token, &node) {
        return Err(Refused::NotTheMakers(node.name));
    }
    let token = Arc::clone(token);
    Ok(Admitted::New { node, token })
}

/// The token that a secret opens: its time is not over, and whoever made it is neither locked nor gone. What the
/// local administrator made is nobody's who could be.
#[must_use]
pub fn opened_by<'v>(
    view: &'v View,
    secret_sha256: &str,
    now: OffsetDateTime,
) -> Option<&'v Arc<Token>> {
    let token = view.token_by_secret(secret_sha256)?;
    let live = token.is_live(now) && token.kind == TokenKind::Node;
    let counts = match maker(token) {
        Some(Maker::LocalAdministrator) => true,
        Some(Maker::User(name)) => {
            let user = view.user(&name);
            user.is_some_and(|user| !view.is_locked_out(user))
        }
        None => false,
    };
    (live && counts).then_some(token)
}

enum Maker {
    LocalAdministrator,
    User(UserName),
}

fn maker(token: &Token) -> Option<Maker> {
    if token.created_by == Actor::LocalAdministrator.to_string() {
        return Some(Maker::LocalAdministrator);
    }
    UserName::parse(&token.created_by).ok().map(Maker::User)
}

fn maker_may_register(view: &View, token: &Token, node: &Node) -> bool {
    match maker(token) {
        Some(Maker::LocalAdministrator) => true,
        Some(Maker::User(name)) => allowed(view, &name, AdminVerb::Create, AdminObject::Node(node)),
        None => false,
    }
}

/// A node as the token alone has it, for rules to judge when it is made: without the UUID that it will have, and
/// called `node` where it will name itself.
#[must_use]
pub fn as_the_token_says(token: &Token) -> Option<Node> {
    Some(Node {
        id: NodeId::from_uuid(Uuid::nil()),
        name: match &token.node {
            Some(name) => name.clone(),
            None => NodeName::parse("node").ok()?,
        },
        addr: token.addr.clone().unwrap_or(NodeAddr::Tunnel),
        labels: token.labels.clone(),
        said_labels: BTreeSet::new(),
        host_proof: HostProof::Pinned(Vec::new()),
        egress_addresses: Vec::new(),
    })
}

fn name(token: &Token, asked: &Asked) -> Result<NodeName, Refused> {
    match (&token.node, &asked.name) {
        (Some(token), Some(asked)) if token != asked => Err(Refused::OtherName {
            token: token.clone(),
            asked: asked.clone(),
        }),
        (Some(name), _) | (None, Some(name)) => Ok(name.clone()),
        (None, None) => Err(Refused::NoName),
    }
}

fn addr(token: &Token, asked: &Asked) -> Result<NodeAddr, Refused> {
    let said = match &asked.place {
        Place::Unsaid { .. } => None,
        Place::Said { addr, .. } => Some(addr.clone()),
        Place::Tunnel => Some(NodeAddr::Tunnel),
    };
    if let Some(token) = &token.addr {
        // The operator's word counts, loopback included.
        return match said {
            Some(asked) if asked != *token => Err(Refused::OtherPlace {
                token: token.clone(),
                asked,
            }),
            Some(_) | None => Ok(token.clone()),
        };
    }
    match &asked.place {
        Place::Unsaid {
            source: addr,
            verdict,
        }
        | Place::Said { addr, verdict } => {
            verdict.clone()?;
            Ok(addr.clone())
        }
        Place::Tunnel => Ok(NodeAddr::Tunnel),
    }
}

/// The node that this machine is already, by this very token: with the same host keys, all of them and no
/// other.
fn enrolled<'v>(view: &'v View, token: &Token, asked: &Asked) -> Option<&'v Arc<Node>> {
    let nodes = token.enrolled.iter().filter_map(|id| view.node(id));
    let named = |node: &&Arc<Node>| asked.name.as_ref().is_none_or(|name| *name == node.name);
    nodes.filter(named).find(|node| has_just_these(node, asked))
}

/// Whether these are the host keys that the node is known by, all of them and no other.
fn has_just_these(node: &Node, asked: &Asked) -> bool {
    let keys: BTreeSet<&str> = asked
        .host_keys
        .iter()
        .map(|key| key.openssh.as_str())
        .collect();
    node.pinned_keys().collect::<BTreeSet<_>>() == keys
}

/// The node of that name that this machine is already, however it came in. There is only one such: of two that share
/// name and keys none is meant.
fn known<'v>(view: &'v View, name: &'v NodeName, asked: &Asked) -> Option<&'v Arc<Node>> {
    let mut same = view
        .nodes_named(name)
        .filter(|node| has_just_these(node, asked));
    match (same.next(), same.next()) {
        (Some(node), None) => Some(node),
        (Some(_) | None, _) => None,
    }
}

/// Such a machine stays what it is, so a token that says anything else is not for it.
fn known_again(
    view: &View,
    token: &Arc<Token>,
    node: &Arc<Node>,
    asked: &Asked,
    now: OffsetDateTime,
) -> Result<Admitted, Refused> {
    let key = |key: &&HostKey| view.locks().on_key(&key.fingerprint, now).is_some();
    if let Some(locked) = asked.host_keys.iter().find(key) {
        return Err(Refused::KeyLocked(locked.fingerprint.clone()));
    }
    if view.locks().on_node(&node.id, now).is_some() {
        return Err(Refused::NodeLocked(node.name.clone()));
    }
    let what = if token.addr.as_ref().is_some_and(|addr| *addr != node.addr) {
        "another address"
    } else if token
        .labels
        .iter()
        .any(|(key, value)| node.labels.get(key) != Some(value))
    {
        "other labels"
    } else {
        stays(node, asked)?;
        let (node, token) = (Arc::clone(node), Arc::clone(token));
        return Ok(Admitted::Known { node, token });
    };
    let name = node.name.clone();
    Err(Refused::Different { name, what })
}

/// Whether a machine that is the node already asks for what it has.
fn stays(node: &Node, asked: &Asked) -> Result<(), Refused> {
    let different = |what| {
        let name = node.name.clone();
        Err(Refused::Different { name, what })
    };
    let moved = match &asked.place {
        Place::Unsaid { .. } => false,
        Place::Said { addr, .. } => *addr != node.addr,
        Place::Tunnel => node.addr != NodeAddr::Tunnel,
    };
    if moved {
        return different("another address");
    }
    let unheard = |(key, value): (&String, &String)| {
        let set_by_operator = !node.said_labels.contains(key) && node.labels.contains_key(key);
        !set_by_operator && node.labels.get(key) != Some(value)
    };
    if asked.labels.iter().any(unheard) {
        return different("other labels");
    }
    Ok(())
}

/// What kind of address `ip` is, if a machine may not give it itself: one that means another machine wherever it
/// is used, or none at all. IPv4 addresses inside IPv6 ones are looked at as what they are.
#[must_use]
pub fn is_nobodys(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => v4_is_nobodys(ip),
        IpAddr::V6(ip) => v6_is_nobodys(ip),
    }
}

fn v4_is_nobodys(ip: Ipv4Addr) -> Option<&'static str> {
    let [first, ..] = ip.octets();
    if ip.is_loopback() {
        Some(LOOPBACK)
    } else if first == 0 {
        Some("no address of a machine")
    } else if ip.is_link_local() {
        Some(LINK_LOCAL)
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else if first >= 240 {
        // Reserved (RFC 1112 section 4), and the broadcast address.
        Some("a broadcast or reserved address")
    } else {
        None
    }
}

fn v6_is_nobodys(ip: Ipv6Addr) -> Option<&'static str> {
    let segments = ip.segments();
    if ip.is_loopback() {
        return Some(LOOPBACK);
    }
    if ip.is_unspecified() {
        return Some("no address of a machine");
    }
    if ip.is_multicast() {
        return Some("a multicast address");
    }
    match segments {
        // RFC 4291 section 2.5.6, and site-local addresses (RFC 3879), which mean as little elsewhere.
        [first, ..] if first & 0xffc0 == 0xfe80 || first & 0xffc0 == 0xfec0 => Some(LINK_LOCAL),
        // IPv4-compatible (RFC 4291 section 2.5.5.1), translated (RFC 6052) and 6to4 (RFC 3056) forms.
        [0, 0, 0, 0, 0, 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x2002, a, b, ..] => {
            v4_is_nobodys(Ipv4Addr::from_bits(u32::from(a) << 16 | u32::from(b)))
        }
        _ => None,
    }
}

const LOOPBACK: &str = "a loopback address";
const LINK_LOCAL: &str = "a link-local address";
