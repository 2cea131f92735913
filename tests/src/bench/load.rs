//! Many at once, and for long: sessions that are held and that live, strangers who say nothing while
//! others log in, and an hour's mixture of everything in some minutes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anteroom_tests::World;
use rand::RngExt;
use ssh_key::{Algorithm, PrivateKey};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::measure::float;
use crate::peers::{Live, User, node};

/// Logins that are under way at once while a load is built up: well below `max_startups_per_source`.
const AT_ONCE: usize = 8;

/// Where silent strangers come from: sources of their own, as an attacker's are.
fn stranger(number: usize, sources: usize) -> SocketAddr {
    let last = u8::try_from(number % sources).unwrap_or(0);
    SocketAddr::from(([127, 0, 66, last], 0))
}

/// Where they come from when they come from everywhere: enough to fill `max_startups` many times.
const EVERYWHERE: usize = 100;

/// What a load is made of.
pub(crate) struct Load {
    pub(crate) held: usize,
    pub(crate) live: usize,
    pub(crate) silent: usize,
    pub(crate) logins: usize,
}

/// What was seen.
pub(crate) struct Loaded {
    pub(crate) held: usize,
    pub(crate) live: usize,
    /// Seconds from the connection to the first byte of the node, without strangers.
    pub(crate) quiet: Vec<f64>,
    /// The same while strangers come from one address, and from many.
    pub(crate) flooded: Flooded,
    pub(crate) flooded_from_everywhere: Flooded,
    /// Logins that failed.
    pub(crate) failed: usize,
    pub(crate) memory_mib: f64,
}

/// Logins beside silent strangers.
pub(crate) struct Flooded {
    /// Seconds of each login.
    pub(crate) logins: Vec<f64>,
    /// How many of the strangers the proxy had kept at the end.
    pub(crate) stayed: usize,
}

struct Place {
    // Before the world: what is in it ends with it.
    runtime: Runtime,
    world: World,
    alice: User,
    carol: User,
}

impl Place {
    fn new(nodes: &[(&str, u16)]) -> Self {
        let mut world = World::builder()
            .config("max_connections_per_user: 20000\nmax_held_channels: 20000")
            .user("alice", "requester")
            .user("bob", "reviewer")
            .user("carol", "access")
            .start();
        world.start_counting_memory();
        let runtime = Runtime::new().unwrap();
        let key = PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap();
        let public = world.path("node.pub");
        fs::write(&public, key.public_key().to_openssh().unwrap()).unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let port = listener.local_addr().unwrap().port();
        runtime.spawn(node(listener, key));
        for (name, port) in [("iot", port)].iter().chain(nodes) {
            let address = format!("127.0.0.1:{port}");
            let public = public.display().to_string();
            let words = [
                "nodes",
                "add",
                name,
                "--addr",
                &address,
                "--host-key",
                &public,
            ];
            world.ctl(&words).exits(0);
        }
        let alice = User::of(&world, world.person("alice"));
        let carol = User::of(&world, world.person("carol"));
        Self {
            runtime,
            world,
            alice,
            carol,
        }
    }

    /// So many sessions, a few logins at a time.
    fn open(&self, count: usize, user: &User, word: &'static str) -> Vec<Live> {
        self.runtime.block_on(async {
            let (mut opening, mut opened) = (JoinSet::new(), Vec::new());
            for number in 0..count {
                if opening.len() >= AT_ONCE {
                    opened.extend(opening.join_next().await.unwrap().unwrap());
                }
                let user = user.clone();
                opening.spawn(async move { user.run("127.0.0.1", "sleep", word).await });
                if number % 500 == 499 {
                    eprintln!("bench:   {} of {count}", number + 1);
                }
            }
            while let Some(done) = opening.join_next().await {
                opened.extend(done.unwrap());
            }
            opened
        })
    }

    /// Logins one after the other: how long each took, and how many failed.
    fn logins(&self, count: usize) -> (Vec<f64>, usize) {
        let mut took = Vec::new();
        for _ in 0..count {
            let started = Instant::now();
            let entered = self
                .runtime
                .block_on(self.carol.run("127.0.0.1", "true", "ready"));
            took.extend(entered.map(|_| started.elapsed().as_secs_f64()));
        }
        let failed = count - took.len();
        (took, failed)
    }

    fn memory_mib(&self) -> f64 {
        self.world.memory_kib() as f64 / 1024.0
    }

    fn open_files(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.world.proxy().id());
        fs::read_dir(dir).map_or(0, Iterator::count)
    }
}

/// Builds the load up and times logins under it.
pub(crate) fn load(load: &Load) -> Loaded {
    let mut place = Place::new(&[]);
    let mut live = place.open(load.live, &place.carol, "ready");
    let held = place.open(load.held, &place.alice, "Waiting for request approval");
    let (quiet, failed_before) = place.logins(load.logins);
    let mut failed = failed_before;
    let mut flood = |sources| {
        let strangers = silent(place.world.port, load.silent, sources);
        let strangers = place.runtime.spawn(strangers);
        let (logins, refused) = place.logins(load.logins);
        failed += refused;
        let stayed = place.runtime.block_on(strangers).unwrap();
        Flooded { logins, stayed }
    };
    let flooded = flood(1);
    let flooded_from_everywhere = flood(EVERYWHERE);
    let there = live.iter().filter(|session| session.is_there()).count();
    let answer = |session: &mut Live| place.runtime.block_on(session.answers());
    let answered = live
        .iter_mut()
        .filter(|session| session.is_there())
        .filter_map(|session| answer(session).then_some(()));
    let answered = answered.count();
    assert!(answered <= there);
    // What thousands of sessions have touched is given back over time; the soak looks at that.
    place.world.start_counting_memory();
    Loaded {
        held: held.iter().filter(|session| session.is_there()).count(),
        live: answered,
        quiet,
        flooded,
        flooded_from_everywhere,
        failed,
        memory_mib: place.memory_mib(),
    }
}

/// Connects and says nothing, again and again, so many times; how many stayed at the end.
async fn silent(port: u16, count: usize, sources: usize) -> usize {
    let mut kept = Vec::new();
    for number in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(stranger(number, sources)).unwrap();
        let proxy = SocketAddr::from(([127, 0, 0, 1], port));
        kept.extend(socket.connect(proxy).await.ok());
        // Over the time that the logins take.
        if number % 20 == 19 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let mut open = 0;
    for stream in &mut kept {
        let mut text = [0; 64];
        let closed = loop {
            match tokio::time::timeout(Duration::from_millis(1), stream.read(&mut text)).await {
                Ok(Ok(0) | Err(_)) => break true,
                Ok(Ok(_)) => {}
                Err(_) => break false,
            }
        };
        open += usize::from(!closed);
    }
    open
}

/// What a soak has seen.
pub(crate) struct Soaked {
    pub(crate) minutes: f64,
    /// How often each thing was done.
    pub(crate) done: BTreeMap<&'static str, usize>,
    /// The median of the first and of the last quarter, in MiB.
    pub(crate) first_mib: f64,
    pub(crate) last_mib: f64,
    pub(crate) files: (usize, usize),
    pub(crate) threads: (usize, usize),
}

/// Everything at random for so long; then everybody leaves.
pub(crate) fn soak(minutes: f64) -> Soaked {
    let runtime = Runtime::new().unwrap();
    // Never a word; endless words before the protocol.
    let mute = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let loud = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let ports = [&mute, &loud].map(|one| one.local_addr().unwrap().port());
    runtime.spawn(hostile(mute, false));
    runtime.spawn(hostile(loud, true));
    let place = Place::new(&[("mute", ports[0]), ("loud", ports[1])]);
    // What the first of each kind costs stays.
    for _ in 0..10 {
        step(&place, &mut Vec::new(), &mut BTreeMap::new());
    }
    let settled = Duration::from_secs(3);
    std::thread::sleep(settled);
    let (files, threads) = (place.open_files(), threads(&place));
    let (mut done, mut sessions, mut memory) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut told = Instant::now();
    let until = told + Duration::from_secs_f64(minutes * 60.0);
    while Instant::now() < until {
        step(&place, &mut sessions, &mut done);
        memory.push(place.memory_mib());
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            eprintln!(
                "bench:   {} sessions, {:.1} MiB, {} files",
                sessions.len(),
                place.memory_mib(),
                place.open_files()
            );
        }
    }
    drop(sessions);
    let patience = Instant::now() + Duration::from_secs(90);
    while place.open_files() > files && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(200));
    }
    place.world.ctl(&["audit", "verify"]).exits(0);
    let quarter = (memory.len() / 4).max(1);
    Soaked {
        minutes,
        done,
        first_mib: median(&memory[..quarter]),
        last_mib: median(&memory[memory.len() - quarter..]),
        files: (files, place.open_files()),
        threads: (threads, self::threads(&place)),
    }
}

/// Sessions that a soak keeps; of more the oldest leaves.
const KEPT: usize = 100;

fn step(place: &Place, sessions: &mut Vec<Live>, done: &mut BTreeMap<&'static str, usize>) {
    let run = |user: &User, command: &str, word: &str| {
        place.runtime.block_on(user.run("127.0.0.1", command, word))
    };
    let what = match rand::rng().random_range(0..12) {
        0..4 => {
            sessions.extend(run(&place.carol, "sleep", "ready"));
            "sessions opened"
        }
        4 | 5 => {
            // Nobody reads what the node sends without end.
            sessions.extend(run(&place.carol, "flood", "ready"));
            "slow readers"
        }
        6 => {
            sessions.extend(run(&place.alice, "sleep", "Request ID"));
            "sessions held"
        }
        7 | 8 => {
            decide(place);
            "requests decided"
        }
        9 => {
            let mut streams = Vec::new();
            for _ in 0..5 {
                streams.extend(place.runtime.block_on(async {
                    TcpStream::connect(("127.0.0.1", place.world.port))
                        .await
                        .ok()
                }));
            }
            "strangers"
        }
        10 => {
            let node = if rand::rng().random() { "mute" } else { "loud" };
            let carol = place.world.person("carol");
            let target = format!("{}@{node}@access", anteroom_tests::login());
            // It leaves by itself long before the proxy gives the node up.
            drop(carol.client("ssh").arg(target).arg("true").start());
            "hostile nodes"
        }
        _ => {
            let most = sessions.len();
            sessions.drain(..most / 2);
            "mass departures"
        }
    };
    *done.entry(what).or_insert(0) += 1;
    if sessions.len() > KEPT {
        sessions.remove(0);
    }
}

/// Approves, denies or withdraws what waits; drops what was granted.
fn decide(place: &Place) {
    let world = &place.world;
    let alice = world.person("alice");
    for request in world.requests().iter().take(20) {
        let id = request["id"].as_str().unwrap();
        match (request["state"].as_str(), rand::rng().random_range(0..3)) {
            (Some("PENDING"), 0) => world.review(id, &["--deny"]),
            (Some("PENDING"), 1) => alice.access(&["request", "cancel", id]).run(),
            (Some("PENDING"), _) => world.review(id, &["--approve"]),
            (Some("APPROVED"), _) => alice.access(&["request", "drop", "--end", id]).run(),
            _ => continue,
        };
    }
}

async fn hostile(listener: TcpListener, loud: bool) {
    let mut kept = std::collections::VecDeque::new();
    while let Ok((stream, _)) = listener.accept().await {
        if loud {
            tokio::spawn(async move {
                let mut stream = stream;
                let banner = [b'x'; 4096];
                while tokio::io::AsyncWriteExt::write_all(&mut stream, &banner)
                    .await
                    .is_ok()
                {}
            });
        } else {
            kept.push_back(stream);
            if kept.len() > 64 {
                kept.pop_front();
            }
        }
    }
}

fn threads(place: &Place) -> usize {
    let dir = format!("/proc/{}/task", place.world.proxy().id());
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// The figure that one in a hundred exceeds.
pub(crate) fn p99(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (float(sorted.len()) * 0.99).ceil() as usize;
    sorted
        .get(at.saturating_sub(1))
        .copied()
        .unwrap_or(f64::INFINITY)
}
