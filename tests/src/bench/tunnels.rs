//! Very many nodes that connect by themselves: what each costs the proxy, how long they take to come back after it was
//! restarted, and what the way through a tunnel adds to a login.
//!
//! The agents are simulated in this process by real SSH connections, each with its node's host key. They come back as
//! the unit of `nodes tunnel-unit` does: after three seconds and up to twenty more at random, whatever kept them out.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anteroom_ssh::{
    ChannelRequest, Credential, Event, HostAlgorithms, NodeConnection, Purpose, connect_as, prepare,
};
use anteroom_tests::{NodeConfig, World, login};
use rand::RngExt;
use ssh_key::{Algorithm, PrivateKey};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::measure::{Spread, float};

/// All agents come from one address here, and nobody else does. What all strangers together may do stays as it is by
/// default: they come back through that.
const CONFIG: &str = "max_startups_per_source: 100000\nper_source_penalties: false";

/// What systemd waits before the next try.
const RESTART: Duration = Duration::from_secs(3);

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long everybody may take before the benchmark gives up.
const PATIENCE_FOR_ALL: Duration = Duration::from_secs(600);

pub(crate) struct Figures {
    /// Resident memory of the proxy per idle tunnel.
    pub(crate) kib: f64,
    /// Seconds from the moment the new proxy listens until every node is connected.
    pub(crate) back: f64,
    /// Connections that were dropped or refused meanwhile.
    pub(crate) refused: usize,
    /// Nodes.
    pub(crate) nodes: usize,
}

/// What all agents share.
struct Shared {
    proxy: SocketAddr,
    connected: AtomicUsize,
    refused: AtomicUsize,
    over: AtomicBool,
    /// What the unit waits at random beside it, at most.
    jitter: Duration,
}

/// Connects `nodes` nodes, and restarts the proxy.
pub(crate) fn many(nodes: usize, jitter: Duration) -> Figures {
    raise_open_files();
    let mut world = World::bare(CONFIG);
    let runtime = Runtime::new().unwrap();
    let keys = register(&world, nodes);
    let shared = Arc::new(Shared {
        proxy: SocketAddr::from(([127, 0, 0, 1], world.port)),
        connected: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        jitter,
    });
    let before = world.memory_kib();
    for (user, key) in keys {
        runtime.spawn(agent(Arc::clone(&shared), user, key));
    }
    wait_for_all(&shared, nodes);
    eprintln!(
        "bench:   {nodes} nodes are connected, {} tries were refused",
        shared.refused.load(Ordering::Relaxed)
    );
    // What the logins used is given back.
    sleep(Duration::from_secs(10));
    let kib = (world.memory_kib() as f64 - before as f64) / float(nodes);
    world.stop_proxy().exits(0);
    let until = Instant::now() + PATIENCE;
    while shared.connected.load(Ordering::Relaxed) > 0 {
        assert!(
            Instant::now() < until,
            "nodes did not notice that the proxy ended"
        );
        sleep(Duration::from_millis(20));
    }
    shared.refused.store(0, Ordering::Relaxed);
    world.start_proxy();
    let started = Instant::now();
    wait_for_all(&shared, nodes);
    let back = started.elapsed().as_secs_f64();
    let refused = shared.refused.load(Ordering::Relaxed);
    shared.over.store(true, Ordering::Relaxed);
    // The connections end with the process: saying goodbye to each takes longer than anything here.
    world.kill_proxy();
    runtime.shutdown_background();
    Figures {
        kib,
        back,
        refused,
        nodes,
    }
}

/// Registers nodes by documents, and returns what they log in with.
fn register(world: &World, nodes: usize) -> Vec<(String, Arc<PrivateKey>)> {
    const TEXT: usize = 500;
    let mut rng = rand::rng();
    let mut keys = Vec::with_capacity(nodes);
    let numbers: Vec<usize> = (0..nodes).collect();
    for some in numbers.chunks(TEXT) {
        let mut text = String::new();
        for n in some {
            let key = PrivateKey::random(&mut rng, Algorithm::Ed25519).unwrap();
            let public = key.public_key().to_openssh().unwrap();
            writeln!(
                text,
                "---\nkind: node\nmetadata: {{name: t{n}}}\nspec: {{addr: tunnel, host_keys: ['{public}']}}"
            )
            .unwrap();
            keys.push((format!("node+t{n}"), Arc::new(key)));
        }
        world.create(&text).exits(0);
    }
    keys
}

fn wait_for_all(shared: &Shared, nodes: usize) {
    let until = Instant::now() + PATIENCE_FOR_ALL;
    while shared.connected.load(Ordering::Relaxed) < nodes {
        assert!(
            Instant::now() < until,
            "{} of {nodes} nodes are connected, {} tries were refused",
            shared.connected.load(Ordering::Relaxed),
            shared.refused.load(Ordering::Relaxed)
        );
        sleep(Duration::from_millis(20));
    }
}

async fn agent(shared: Arc<Shared>, user: String, key: Arc<PrivateKey>) {
    loop {
        let jitter = rand::rng().random_range(Duration::ZERO..shared.jitter);
        tokio::time::sleep(RESTART + jitter).await;
        if shared.over.load(Ordering::Relaxed) {
            return;
        }
        let trying = connected(shared.proxy, &user, Arc::clone(&key));
        match tokio::time::timeout(PATIENCE, trying).await {
            Ok(Some(connection)) => {
                shared.connected.fetch_add(1, Ordering::Relaxed);
                connection.closed().await;
                shared.connected.fetch_sub(1, Ordering::Relaxed);
            }
            Ok(None) | Err(_) => {
                shared.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn connected(proxy: SocketAddr, user: &str, key: Arc<PrivateKey>) -> Option<NodeConnection> {
    let stream = TcpStream::connect(proxy).await.ok()?;
    prepare(&stream).ok()?;
    let hosts = HostAlgorithms::CertificatesFirst;
    let credential = Credential::Key(key);
    let connection = connect_as(stream, |_| true, &hosts, user, credential, Purpose::Tunnel);
    let connection = connection.await.ok()?;
    connection.tcpip_forward("localhost", 0).await.ok()?;
    Some(connection)
}

/// Milliseconds that a session takes from its opening to the end of `true`, dialled directly and through a tunnel that
/// the real ssh keeps, in turns over one user connection each.
pub(crate) fn through_a_tunnel(rounds: usize) -> (Spread, Spread, Spread) {
    let world = World::builder()
        .node(NodeConfig::new("direct"))
        .node(NodeConfig::new("behind").by_tunnel())
        .user("carol", "access")
        .start();
    let _tunnel = world.open_tunnel("behind");
    let runtime = Runtime::new().unwrap();
    let key = PrivateKey::read_openssh_file(&world.person("carol").key).unwrap();
    let key = Arc::new(key);
    let proxy = SocketAddr::from(([127, 0, 0, 1], world.port));
    let user = |node: &str| {
        let hosts = HostAlgorithms::CertificatesFirst;
        let (name, key) = (format!("{}@{node}", login()), Arc::clone(&key));
        runtime.block_on(async move {
            let stream = TcpStream::connect(proxy).await.unwrap();
            prepare(&stream).unwrap();
            let credential = Credential::Key(key);
            connect_as(
                stream,
                |_| true,
                &hosts,
                &name,
                credential,
                Purpose::Session,
            )
            .await
            .unwrap()
        })
    };
    let (direct, behind) = (user("direct"), user("behind"));
    let session = |connection: &NodeConnection| {
        let started = Instant::now();
        runtime.block_on(one_session(connection));
        started.elapsed().as_secs_f64()
    };
    session(&direct);
    session(&behind);
    let (mut directly, mut through, mut added) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let (one, other) = if round % 2 == 0 {
            let one = session(&direct);
            (one, session(&behind))
        } else {
            let other = session(&behind);
            (session(&direct), other)
        };
        directly.push(one);
        through.push(other);
        added.push(other - one);
    }
    runtime.block_on(async {
        direct.disconnect().await;
        behind.disconnect().await;
    });
    (Spread::of(directly), Spread::of(through), Spread::of(added))
}

async fn one_session(connection: &NodeConnection) {
    let mut channel = connection.open_session().await.unwrap();
    let command = ChannelRequest::Exec(b"true".to_vec());
    channel.outbox.request(command).await.unwrap();
    while let Some(event) = channel.inbox.next().await {
        match event {
            Event::ExitStatus(status) => {
                assert_eq!(status, 0);
                break;
            }
            Event::Data(_)
            | Event::Stderr(_)
            | Event::Request(_)
            | Event::ExitSignal(_)
            | Event::NodeAccepted(_)
            | Event::NodeRefused(_)
            | Event::Eof
            | Event::Close => {}
        }
    }
    channel.outbox.close().await;
}

/// Each agent is a socket here and one at the proxy, which is started by this process.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}
