//! The smallest proxy that the seam allows: no policy, no recording. It lets in one
//! key, and passes every channel on to one node.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anteroom_ssh::{
    Answer, Channel, ChannelRequest, Connection, Event, Front, HostAlgorithms, Incoming,
    IncomingQueue, Limits, NodeConnection, OpenRefusal, Opening, ServerConfig, TcpTarget, Verdict,
    connect, prepare, serve,
};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::{Algorithm, Certificate, PrivateKey, PublicKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OnceCell, watch};

/// What all connections of a relay share.
struct Lab {
    node: u16,
    ca: PrivateKey,
    host: PrivateKey,
    user: PublicKey,
    /// Forwards of one user connection share a node connection.
    share_forwards: bool,
    limits: Limits,
}

/// Runs until it is killed.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(accept());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn accept() {
    let dir = PathBuf::from(std::env::var("RELAY_DIR").unwrap());
    let key = |name: &str| PrivateKey::read_openssh_file(dir.join(name)).unwrap();
    let mut limits = Limits::default();
    if let Some(grace) = number("RELAY_GRACE_MS") {
        limits.grace = Duration::from_millis(grace);
    }
    let lab = Arc::new(Lab {
        node: u16::try_from(number("RELAY_NODE").unwrap()).unwrap(),
        ca: key("ca"),
        host: key("host"),
        user: PublicKey::read_openssh_file(dir.join("user.pub")).unwrap(),
        share_forwards: number("RELAY_SHARE_FORWARDS").is_some(),
        limits,
    });
    let config = lab.server_config();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    eprintln!("relay listens on {}", listener.local_addr().unwrap().port());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream).unwrap();
        let front = Relay::new(Arc::clone(&lab), Place::Outer);
        let config = Arc::clone(&config);
        tokio::spawn(async move {
            let ended = serve(stream, config, front).await;
            eprintln!("outer ended: {ended:?}");
        });
    }
}

impl Lab {
    fn server_config(&self) -> Arc<ServerConfig> {
        Arc::new(ServerConfig::new(
            vec![self.host.clone()],
            Vec::new(),
            Duration::from_secs(15),
            self.limits.clone(),
        ))
    }

    fn certificate(&self, key: &PublicKey) -> Certificate {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut builder = Builder::new_with_random_nonce(
            &mut rand::rng(),
            key.key_data().clone(),
            now - 60,
            now + 120,
        )
        .unwrap();
        builder.cert_type(CertType::User).unwrap();
        builder.key_id("relay").unwrap();
        builder.valid_principal("root").unwrap();
        for extension in [
            "permit-pty",
            "permit-port-forwarding",
            "permit-agent-forwarding",
        ] {
            builder.extension(extension, "").unwrap();
        }
        builder.sign(&self.ca).unwrap()
    }

    async fn dial(&self) -> NodeConnection {
        let stream = TcpStream::connect(("127.0.0.1", self.node)).await.unwrap();
        prepare(&stream).unwrap();
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let certificate = self.certificate(key.public_key());
        let hosts = HostAlgorithms::Pinned(vec![Algorithm::Ed25519]);
        connect(stream, |_| true, &hosts, "root", Arc::new(key), certificate)
            .await
            .unwrap()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outer,
    Inner,
}

struct Relay {
    lab: Arc<Lab>,
    place: Place,
    connection: watch::Sender<Option<Connection>>,
    forwards: Arc<OnceCell<Arc<NodeConnection>>>,
    offers: usize,
    panics: bool,
}

impl Relay {
    fn new(lab: Arc<Lab>, place: Place) -> Self {
        Relay {
            lab,
            place,
            connection: watch::Sender::new(None),
            forwards: Arc::default(),
            offers: 0,
            panics: false,
        }
    }

    fn user(&self) -> Connection {
        self.connection.borrow().clone().unwrap()
    }

    /// The node connection that forwards share, made when it is first needed.
    async fn shared(&self) -> Arc<NodeConnection> {
        let (lab, user) = (Arc::clone(&self.lab), self.user());
        shared(&self.forwards, &lab, &user).await
    }
}

async fn shared(
    cell: &OnceCell<Arc<NodeConnection>>,
    lab: &Lab,
    user: &Connection,
) -> Arc<NodeConnection> {
    let make = async {
        let mut node = lab.dial().await;
        tokio::spawn(answer(node.take_incoming(), user.clone()));
        let node = Arc::new(node);
        let (held, user) = (Arc::clone(&node), user.clone());
        tokio::spawn(async move {
            user.closed().await;
            held.disconnect().await;
        });
        node
    };
    Arc::clone(cell.get_or_init(|| make).await)
}

impl Front for Relay {
    fn key_offered(&mut self, user: &str, key: &PublicKey) -> Verdict {
        self.offers += 1;
        eprintln!("offered {} {user} {}", self.offers, key.algorithm());
        self.verdict(key)
    }

    fn key_proven(&mut self, user: &str, key: &PublicKey) -> Verdict {
        self.panics = user == "panic";
        self.verdict(key)
    }

    fn none(&mut self, _: &str) -> Verdict {
        match self.place {
            Place::Outer => Verdict::Reject,
            Place::Inner => Verdict::Accept,
        }
    }

    fn user_changed(&mut self, user: &str) {
        eprintln!("user changed to {user}");
    }

    fn authenticated(&mut self, connection: Connection) {
        if self.place == Place::Outer && number("RELAY_KICK").is_some() {
            let dir = PathBuf::from(std::env::var("RELAY_DIR").unwrap());
            tokio::spawn(kick(dir.join("kick"), connection.clone()));
        }
        self.connection.send_replace(Some(connection));
    }

    fn session(&mut self, opening: Opening) {
        assert!(!self.panics, "as it was asked to");
        let (lab, user) = (Arc::clone(&self.lab), self.user());
        tokio::spawn(async move { session(&lab, user, opening.accept().await).await });
    }

    fn direct_tcpip(&mut self, target: TcpTarget, opening: Opening) {
        let lab = Arc::clone(&self.lab);
        if self.place == Place::Outer && target.host == "node" {
            tokio::spawn(async move {
                let stream = opening.accept().await.into_stream();
                let front = Relay::new(Arc::clone(&lab), Place::Inner);
                let ended = serve(stream, lab.server_config(), front).await;
                eprintln!("inner ended: {ended:?}");
            });
            return;
        }
        let (forwards, user) = (Arc::clone(&self.forwards), self.user());
        tokio::spawn(async move {
            let node = if lab.share_forwards {
                shared(&forwards, &lab, &user).await
            } else {
                Arc::new(lab.dial().await)
            };
            forward(&node, target, opening, &user).await;
        });
    }

    fn request(&mut self, _: &ChannelRequest) -> Answer {
        Answer::Success
    }

    async fn tcpip_forward(&mut self, address: &str, port: u32) -> Option<u32> {
        self.shared().await.tcpip_forward(address, port).await.ok()
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32) -> bool {
        self.shared()
            .await
            .cancel_tcpip_forward(address, port)
            .await
            .is_ok()
    }
}

impl Relay {
    fn verdict(&self, key: &PublicKey) -> Verdict {
        if key.key_data() == self.lab.user.key_data() {
            Verdict::Accept
        } else {
            Verdict::Reject
        }
    }
}

/// Ends a connection when a file appears.
async fn kick(file: PathBuf, connection: Connection) {
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let start = std::time::Instant::now();
    connection.disconnect("kicked for a reason").await;
    eprintln!("kicked within {} ms", start.elapsed().as_millis());
}

/// One session: its own node connection, ended with it.
async fn session(lab: &Lab, user: Connection, channel: Channel) {
    let mut node = lab.dial().await;
    tokio::spawn(answer(node.take_incoming(), user.clone()));
    let far = node.open_session().await.unwrap();
    let gone = channel.outbox.clone();
    let near = channel.outbox.clone();
    let up = tokio::spawn(pump(channel.inbox, far.outbox));
    tokio::select! {
        () = pump(far.inbox, channel.outbox) => {}
        () = gone.gone() => {}
    }
    near.close().await;
    up.abort();
    node.disconnect().await;
}

async fn forward(node: &NodeConnection, target: TcpTarget, opening: Opening, user: &Connection) {
    let far = match node.open_direct_tcpip(target).await {
        Ok(far) => far,
        Err(error) => {
            return opening
                .reject(OpenRefusal::ConnectFailed(error.to_string()))
                .await;
        }
    };
    let near = opening.accept().await;
    tokio::select! {
        () = splice(near, far) => {}
        () = user.closed() => {}
    }
}

/// What the node opens goes to the user.
async fn answer(mut incoming: IncomingQueue, user: Connection) {
    while let Some(next) = incoming.next().await {
        let user = user.clone();
        tokio::spawn(async move {
            let (opening, near) = match next {
                Incoming::Agent(opening) => (opening, user.open_agent().await),
                Incoming::ForwardedTcpip {
                    address,
                    port,
                    originator_host,
                    originator_port,
                    opening,
                } => (
                    opening,
                    user.open_forwarded_tcpip(&address, port, &originator_host, originator_port)
                        .await,
                ),
                Incoming::X11 {
                    originator_host,
                    originator_port,
                    opening,
                } => (
                    opening,
                    user.open_x11(&originator_host, originator_port).await,
                ),
            };
            if let Ok(near) = near {
                splice(near, opening.accept().await).await;
            }
        });
    }
}

async fn splice(near: Channel, far: Channel) {
    let (one, other) = (far.outbox.clone(), near.outbox.clone());
    tokio::join!(pump(near.inbox, far.outbox), pump(far.inbox, near.outbox));
    one.close().await;
    other.close().await;
}

/// One direction of a channel, until it is over.
async fn pump(mut from: anteroom_ssh::Inbox, to: anteroom_ssh::Outbox) {
    while let Some(event) = from.next().await {
        let passed = match event {
            Event::Data(data) => to.data(data).await,
            Event::Stderr(data) => to.stderr(data).await,
            Event::Eof => to.eof().await,
            Event::Request(request) => to.request(request).await,
            Event::ExitStatus(status) => to.exit_status(status).await,
            Event::ExitSignal(signal) => to.exit_signal(signal).await,
            Event::NodeAccepted(_) | Event::NodeRefused(_) => Ok(()),
            Event::Close => return to.close().await,
        };
        if passed.is_err() {
            return;
        }
    }
}
