//! The smallest proxy that an agent can come to: one node, no database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anteroom_ca::host::{HostTerms, certify_node, certify_proxy};
use anteroom_ca::key::{HostCa, Key};
use anteroom_ca::krl::{Edition, RevocationList};
use anteroom_ca::names::HostNames;
use anteroom_ca::{IssueTime, Serial};
use anteroom_core::id::NodeId;
use anteroom_node::protocol::{FromNode, FromProxy, Joined, SUBSYSTEM};
use anteroom_ssh::{
    Answer, Channel, ChannelRequest, Connection, Event, Front, Limits, Opening, ServerConfig,
    TcpTarget, Verdict, prepare, serve,
};
use base64ct::{Base64, Encoding};
use ssh_key::{Certificate, PublicKey};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub const NODE: &str = "b1168402-9340-421a-a344-af66a6675738";
pub const CLUSTER: &str = "lab";
pub const TOKEN: &str = "tok-0123456789";

pub fn key(byte: u8) -> Key {
    Key::from_seed("", &[byte; 32])
}

pub fn line(key: &PublicKey) -> String {
    key.to_openssh().unwrap()
}

fn terms(lifetime: time::Duration) -> HostTerms {
    HostTerms {
        serial: Serial::new(5).unwrap(),
        lifetime,
        at: IssueTime::new(OffsetDateTime::now_utc(), None).unwrap(),
    }
}

/// A host certificate for the node, by the host CA of this number.
pub fn certificate(of: &PublicKey, ca: u8, lifetime: time::Duration) -> Certificate {
    let node = NodeId::parse(NODE).unwrap();
    let (ca, mut rng) = (HostCa::new(key(ca)), rand::rng());
    let made = certify_node(&node, &[], of, terms(lifetime), &ca, &mut rng);
    made.unwrap().into_ssh()
}

/// An edition of the revocation list, in base64.
pub fn krl(version: u64) -> String {
    let edition = Edition {
        version,
        generated: OffsetDateTime::UNIX_EPOCH,
        comment: String::new(),
    };
    let list = RevocationList::default();
    Base64::encode_string(&list.to_bytes(&edition).unwrap())
}

/// What the proxy knows, and what tests look at and change.
pub struct State {
    /// Host CA of the proxy's certificate, by number; 0: it shows none.
    pub ca: u8,
    /// The proxy's host key, by number.
    pub host: u8,
    /// The keys that the node may log in with.
    pub node: Vec<PublicKey>,
    /// Certificates of the node live this long.
    pub lifetime: time::Duration,
    /// What `join` is answered instead of the good answer.
    pub answer: Option<(String, u32)>,
    /// What is done to the good answer before it is sent.
    pub spoil: Option<fn(&mut Joined)>,
    /// Answers to `Renew` are held back.
    pub mute: bool,
    pub joins: Vec<(String, String)>,
    pub heard: Vec<FromNode>,
    pub tunnels: Vec<Tunnel>,
}

/// A tunnel as the proxy sees it.
#[derive(Clone)]
pub struct Tunnel {
    pub connection: Connection,
    pub say: mpsc::UnboundedSender<FromProxy>,
}

#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    pub state: Arc<Mutex<State>>,
    changed: watch::Sender<usize>,
    pub logins: Arc<AtomicUsize>,
}

/// Serves until it is dropped.
pub struct Running(pub JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Proxy {
    pub async fn start() -> (Proxy, Running) {
        let state = State {
            ca: 1,
            host: 4,
            node: Vec::new(),
            lifetime: time::Duration::days(7),
            answer: None,
            spoil: None,
            mute: false,
            joins: Vec::new(),
            heard: Vec::new(),
            tunnels: Vec::new(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            state: Arc::new(Mutex::new(state)),
            changed: watch::Sender::new(0),
            logins: Arc::default(),
        };
        let running = proxy.serve(listener);
        (proxy, running)
    }

    /// Serves on a listener; its connections end with it.
    pub fn serve(&self, listener: TcpListener) -> Running {
        let proxy = self.clone();
        Running(tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                prepare(&stream).unwrap();
                let config = proxy.config();
                let front = Door {
                    proxy: proxy.clone(),
                    user: String::new(),
                    connection: watch::Sender::new(None),
                };
                connections.spawn(async move {
                    let _ = serve(stream, config, front).await;
                });
            }
        }))
    }

    pub fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let result = look(&mut self.state.lock().unwrap());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    /// Waits until `look` finds something.
    pub async fn until<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            loop {
                let found = look(&mut self.state.lock().unwrap());
                if let Some(found) = found {
                    return found;
                }
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .expect("in 30 s")
    }

    /// The tunnel of this number, once it stands.
    pub async fn tunnel(&self, number: usize) -> Tunnel {
        self.until(|state| state.tunnels.get(number).cloned()).await
    }

    fn config(&self) -> Arc<ServerConfig> {
        let (ca, host) = self.with(|state| (state.ca, state.host));
        let host = key(host);
        let names = HostNames::new([CLUSTER], Vec::<String>::new()).unwrap();
        let certificates = (ca != 0).then(|| {
            let ca = HostCa::new(key(ca));
            let lifetime = terms(time::Duration::days(7));
            let made = certify_proxy(&names, host.public_key(), lifetime, &ca, &mut rand::rng());
            made.unwrap().into_ssh()
        });
        Arc::new(ServerConfig::new(
            vec![host.private_key().clone()],
            certificates.into_iter().collect(),
            Duration::from_secs(15),
            Limits::default(),
        ))
    }
}

struct Door {
    proxy: Proxy,
    user: String,
    connection: watch::Sender<Option<Connection>>,
}

impl Front for Door {
    fn key_offered(&mut self, user: &str, key: &PublicKey) -> Verdict {
        self.key_proven(user, key)
    }

    fn key_proven(&mut self, user: &str, key: &PublicKey) -> Verdict {
        self.user = user.to_owned();
        self.proxy.logins.fetch_add(1, Ordering::Relaxed);
        let known = self.proxy.with(|state| {
            let known = |known: &PublicKey| known.key_data() == key.key_data();
            state.node.iter().any(known)
        });
        match known && user == format!("node+{NODE}") {
            true => Verdict::Accept,
            false => Verdict::Reject,
        }
    }

    fn none(&mut self, user: &str) -> Verdict {
        self.user = user.to_owned();
        match user {
            "enroll" => Verdict::Accept,
            _ => Verdict::Reject,
        }
    }

    fn authenticated(&mut self, connection: Connection) {
        self.connection.send_replace(Some(connection));
    }

    fn session(&mut self, opening: Opening) {
        let (proxy, user) = (self.proxy.clone(), self.user.clone());
        let connection = self.connection.borrow().clone().unwrap();
        tokio::spawn(async move {
            let mut channel = opening.accept().await;
            match channel.inbox.next().await {
                Some(Event::Request(ChannelRequest::Exec(command))) if user == "enroll" => {
                    join(&proxy, String::from_utf8(command).unwrap(), channel).await;
                }
                Some(Event::Request(ChannelRequest::Subsystem(name))) if name == SUBSYSTEM => {
                    control(&proxy, connection, channel).await;
                }
                other => panic!("{other:?}"),
            }
        });
    }

    fn direct_tcpip(&mut self, _: TcpTarget, _: Opening) {}

    fn request(&mut self, _: &ChannelRequest) -> Answer {
        Answer::Success
    }

    async fn tcpip_forward(&mut self, address: &str, port: u32) -> Option<u32> {
        (address == "localhost" && port == 0).then_some(1)
    }

    async fn cancel_tcpip_forward(&mut self, _: &str, _: u32) -> bool {
        true
    }
}

async fn join(proxy: &Proxy, command: String, mut channel: Channel) {
    let mut input = Vec::new();
    while let Some(event) = channel.inbox.next().await {
        match event {
            Event::Data(data) => input.extend(data),
            Event::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    let input = String::from_utf8(input).unwrap();
    let public = PublicKey::from_openssh(input.lines().nth(1).unwrap()).unwrap();
    let (answer, spoil) = proxy.with(|state| {
        state.joins.push((command, input));
        state.node = vec![public.clone()];
        (state.answer.clone(), state.spoil)
    });
    if let Some((words, status)) = answer {
        channel.outbox.stderr(words.into()).await.unwrap();
        channel.outbox.exit_status(status).await.unwrap();
        return;
    }
    let mut joined = Joined {
        node_id: NODE.to_owned(),
        name: "iot".to_owned(),
        cluster: CLUSTER.to_owned(),
        node_ca: vec![line(key(2).public_key())],
        host_ca: vec![line(key(1).public_key())],
        host_certificate: {
            let lifetime = proxy.with(|state| state.lifetime);
            certificate(&public, 1, lifetime).to_openssh().unwrap()
        },
        krl: krl(3),
    };
    if let Some(spoil) = spoil {
        spoil(&mut joined);
    }
    let answer = serde_json::to_vec(&joined).unwrap();
    channel.outbox.data(answer.into()).await.unwrap();
    channel.outbox.exit_status(0).await.unwrap();
}

async fn control(proxy: &Proxy, connection: Connection, mut channel: Channel) {
    let (say, mut said) = mpsc::unbounded_channel::<FromProxy>();
    let outbox = channel.outbox.clone();
    tokio::spawn(async move {
        while let Some(message) = said.recv().await {
            let mut line = serde_json::to_vec(&message).unwrap();
            line.push(b'\n');
            if outbox.data(line.into()).await.is_err() {
                return;
            }
        }
    });
    let mut heard = Vec::new();
    while let Some(event) = channel.inbox.next().await {
        let Event::Data(data) = event else { continue };
        heard.extend(data);
        while let Some(end) = heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = heard.drain(..=end).collect();
            let message: FromNode = serde_json::from_slice(&line).unwrap();
            answer(proxy, &connection, &say, &message);
            proxy.with(|state| state.heard.push(message));
        }
    }
}

fn answer(
    proxy: &Proxy,
    connection: &Connection,
    say: &mpsc::UnboundedSender<FromProxy>,
    message: &FromNode,
) {
    match message {
        FromNode::Hello { .. } => {
            let _ = say.send(FromProxy::Welcome {
                node_id: NODE.to_owned(),
                cluster: CLUSTER.to_owned(),
                heartbeat_seconds: 1,
            });
            let tunnel = Tunnel {
                connection: connection.clone(),
                say: say.clone(),
            };
            proxy.with(|state| state.tunnels.push(tunnel));
        }
        FromNode::Renew { key } => {
            let public = PublicKey::from_openssh(key).unwrap();
            // As the real one: it knows the node by the new key as soon as it answers.
            let mute = proxy.with(|state| {
                state.node = vec![public.clone()];
                state.mute
            });
            if !mute {
                let certificate = certificate(&public, 1, time::Duration::days(20));
                let certificate = certificate.to_openssh().unwrap();
                let _ = say.send(FromProxy::HostCertificate { certificate });
            }
        }
        FromNode::Heartbeat { .. } | FromNode::Unknown => {}
    }
}

pub fn labels(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    let map: HashMap<_, _> = pairs.iter().map(owned).collect();
    map.into_iter().collect()
}
