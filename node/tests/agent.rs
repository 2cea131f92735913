//! The agent against a proxy of the test's own: joining, keeping the tunnel, taking what is announced.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests fail by panicking"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anteroom_ca::key::fingerprint;
use anteroom_core::id::NodeName;
use anteroom_core::node::NodeAddr;
use anteroom_node::dir::{DirError, StateDir, ask_for_new_key};
use anteroom_node::identity::Identity;
use anteroom_node::join::{self, Again, Join, JoinError, Outcome, Pin, Token};
use anteroom_node::known::Known;
use anteroom_node::notify::Notify;
use anteroom_node::protocol::{FromNode, FromProxy, Joined};
use anteroom_node::run::{self, Options, Sessions};
use anteroom_ssh::{ChannelStream, Event};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "a proxy for tests, used in part by each"
)]
mod proxy_support;

use proxy_support::{NODE, Proxy, Running, TOKEN, certificate, key, krl, labels, line};

/// Sends back what comes, and notes whom it was told to trust.
#[derive(Default)]
struct Echo {
    trusted: Mutex<Vec<Identity>>,
}

impl Sessions for Echo {
    async fn serve(self: Arc<Self>, mut stream: ChannelStream) {
        let mut bytes = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut bytes).await {
            if stream.write_all(&bytes[..n]).await.is_err() {
                return;
            }
            let _ = stream.flush().await;
        }
    }

    fn trust(&self, identity: &Identity) {
        self.trusted.lock().unwrap().push(identity.clone());
    }
}

struct Node {
    tmp: TempDir,
    echo: Arc<Echo>,
}

impl Node {
    fn new() -> Node {
        Node {
            tmp: tempfile::tempdir().unwrap(),
            echo: Arc::default(),
        }
    }

    fn dir(&self) -> PathBuf {
        self.tmp.path().join("node")
    }

    fn joining(&self, proxy: &Proxy) -> Join {
        Join {
            proxies: vec![NodeAddr::parse(&format!("127.0.0.1:{}", proxy.port)).unwrap()],
            known: Pin::Key(Known::Key(key(4).public_key().clone())),
            token: Token::parse(&Zeroizing::new(TOKEN.to_owned())).unwrap(),
            name: NodeName::parse("iot").unwrap(),
            labels: labels(&[("env", "staging")]),
            dir: self.dir(),
            again: Again::Keep,
        }
    }

    async fn joined(proxy: &Proxy) -> Node {
        let node = Node::new();
        join::join(&node.joining(proxy)).await.unwrap();
        node
    }

    fn run(&self) -> Agent {
        let (dir, echo) = (self.dir(), Arc::clone(&self.echo));
        Agent(tokio::spawn(async move {
            let options = Options { dir, config: None };
            let running = run::run(&options, |_, _| echo, Notify::default());
            running.await.unwrap();
        }))
    }

    fn stored(&self) -> Identity {
        let text = std::fs::read(self.dir().join("identity.json")).unwrap();
        assert!(!text.is_empty());
        self.echo.trusted.lock().unwrap().last().unwrap().clone()
    }

    async fn until(&self, look: impl Fn(&Identity) -> bool) -> Identity {
        for _ in 0..600 {
            let last = self.echo.trusted.lock().unwrap().last().cloned();
            if let Some(last) = last.filter(|last| look(last)) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "not in 30 s: {:?}",
            self.echo.trusted.lock().unwrap().last()
        );
    }
}

/// Runs until it is dropped, as one that was killed.
struct Agent(JoinHandle<()>);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Agent {
    /// Ends it, and waits until its directory is free.
    async fn killed(self, dir: &Path) {
        self.0.abort();
        for _ in 0..100 {
            match StateDir::open(dir) {
                Ok(_) => return,
                Err(DirError::InUse(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("it still runs");
    }
}

async fn echoes(proxy: &Proxy, tunnel: usize) -> bool {
    let connection = proxy.tunnel(tunnel).await.connection;
    let opened = connection.open_forwarded_tcpip("localhost", 0, "127.0.0.1", 1);
    let Ok(mut channel) = opened.await else {
        return false;
    };
    channel.outbox.data("hello".into()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), channel.inbox.next()).await;
    answer.unwrap() == Some(Event::Data("hello".into()))
}

#[tokio::test]
async fn a_token_makes_a_node_and_goes_over_standard_input_alone() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::new();
    let Outcome::Joined(identity) = join::join(&node.joining(&proxy)).await.unwrap() else {
        panic!("it joined before");
    };
    assert_eq!(identity.node_id.to_string(), NODE);
    let (command, input) = proxy.with(|state| state.joins[0].clone());
    assert_eq!(
        shlex::split(&command).unwrap(),
        ["join", "iot", "env=staging"]
    );
    let public = line(identity.host_key.public_key());
    assert_eq!(input, format!("{TOKEN}\n{public}\n"));
    // Nothing of the token stays.
    for entry in std::fs::read_dir(node.dir()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(TOKEN));
    }
    // A second time nothing is sent.
    let again = join::join(&node.joining(&proxy)).await.unwrap();
    assert!(matches!(again, Outcome::Already(before) if before == identity));
    assert_eq!(proxy.with(|state| state.joins.len()), 1);
    let mut anew = node.joining(&proxy);
    anew.again = Again::Anew;
    let Outcome::Joined(new) = join::join(&anew).await.unwrap() else {
        panic!("it did not join");
    };
    assert_ne!(new.host_key.public_key(), identity.host_key.public_key());
}

#[tokio::test]
async fn no_token_is_sent_to_a_proxy_that_is_not_known() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::new();
    let mut join = node.joining(&proxy);
    for known in [
        Pin::Key(Known::Key(key(9).public_key().clone())),
        Pin::Key(Known::Fingerprint(fingerprint(key(9).public_key()))),
        // The right authority, but the certificate is not for 127.0.0.1.
        Pin::HostCa(vec![key(1).public_key().clone()]),
        Pin::HostCa(vec![key(9).public_key().clone()]),
    ] {
        join.known = known;
        let refused = join::join(&join).await.unwrap_err();
        assert!(matches!(refused, JoinError::NotTrusted { .. }), "{refused}");
        assert!(!refused.to_string().contains(TOKEN));
    }
    assert_eq!(proxy.with(|state| state.joins.len()), 0);
    join.known = Pin::Key(Known::Fingerprint(fingerprint(key(4).public_key())));
    join::join(&join).await.unwrap();
}

#[tokio::test]
async fn what_the_proxy_says_of_a_refusal_is_shown_clean_and_the_token_not() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::new();
    let words = "ERROR: the token \x1b[31mhas expired\n".to_owned();
    proxy.with(|state| state.answer = Some((words, 77)));
    let refused = join::join(&node.joining(&proxy)).await.unwrap_err();
    let JoinError::Refused { why, status } = refused else {
        panic!("{refused}");
    };
    assert_eq!((&*why, status), ("the token [31mhas expired", 77));
    assert!(
        StateDir::open(&node.dir())
            .unwrap()
            .load()
            .unwrap()
            .is_none()
    );
    // The same key comes with the next attempt.
    proxy.with(|state| state.answer = None);
    join::join(&node.joining(&proxy)).await.unwrap();
    let keys = proxy.with(|state| {
        state
            .joins
            .iter()
            .map(|join| join.1.clone())
            .collect::<Vec<_>>()
    });
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_not_taken() {
    let (proxy, _running) = Proxy::start().await;
    let spoils: [fn(&mut Joined); 6] = [
        |joined| joined.node_ca.clear(),
        |joined| joined.host_ca.clear(),
        |joined| joined.host_ca = vec![line(key(9).public_key())],
        |joined| joined.name = "other".to_owned(),
        |joined| joined.krl = "AAAA".to_owned(),
        |joined| {
            let other = certificate(key(9).public_key(), 1, time::Duration::days(1));
            joined.host_certificate = other.to_openssh().unwrap();
        },
    ];
    for spoil in spoils {
        proxy.with(|state| state.spoil = Some(spoil));
        let node = Node::new();
        let refused = join::join(&node.joining(&proxy)).await.unwrap_err();
        assert!(matches!(refused, JoinError::Answer(_)), "{refused}");
        assert!(
            StateDir::open(&node.dir())
                .unwrap()
                .load()
                .unwrap()
                .is_none()
        );
    }
}

#[tokio::test]
async fn sessions_come_through_the_tunnel_and_labels_go_out() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    let config =
        "labels: {rack: b7}\ncommands: [{name: kernel, command: [echo, v6], interval: 1h}]\n";
    std::fs::write(node.dir().join("node.yaml"), config).unwrap();
    let _agent = node.run();
    assert!(echoes(&proxy, 0).await);
    let said = labels(&[("env", "staging"), ("rack", "b7"), ("kernel", "v6")]);
    let says = |message: &FromNode| match message {
        FromNode::Heartbeat { labels } => *labels == said,
        FromNode::Hello { .. } | FromNode::Renew { .. } | FromNode::Unknown => false,
    };
    proxy
        .until(|state| state.heard.iter().any(says).then_some(()))
        .await;
    assert!(matches!(
        proxy.with(|state| state.heard[0].clone()),
        FromNode::Hello { .. }
    ));
}

#[tokio::test]
async fn a_second_agent_on_the_same_directory_does_not_start() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    let _agent = node.run();
    proxy.tunnel(0).await;
    let options = Options {
        dir: node.dir(),
        config: None,
    };
    let refused = run::run(
        &options,
        |_, _| Arc::new(Echo::default()),
        Notify::default(),
    )
    .await;
    assert!(refused.unwrap_err().to_string().contains("another"));
}

#[tokio::test]
async fn a_tunnel_comes_back_after_the_proxy_was_gone() {
    let (proxy, running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    let _agent = node.run();
    assert!(echoes(&proxy, 0).await);
    drop(running);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let listener = TcpListener::bind(("127.0.0.1", proxy.port)).await.unwrap();
    let _running: Running = proxy.serve(listener);
    assert!(echoes(&proxy, 1).await);
}

#[tokio::test]
async fn a_proxy_that_falls_silent_is_noticed_within_two_heartbeats() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    // Between them a link that can be cut without a word.
    let link = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = link.local_addr().unwrap().port();
    let cut = tokio::sync::watch::Sender::new(0);
    let (far, is_cut) = (proxy.port, cut.subscribe());
    tokio::spawn(async move {
        loop {
            let (mut near, _) = link.accept().await.unwrap();
            let mut is_cut = is_cut.clone();
            let begun = *is_cut.borrow();
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(("127.0.0.1", far))
                    .await
                    .unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                    _ = is_cut.wait_for(|cut| *cut > begun) => {}
                }
                std::future::pending::<()>().await;
                drop((near, far));
            });
        }
    });
    let text = std::fs::read_to_string(node.dir().join("identity.json")).unwrap();
    let text = text.replace(
        &format!("127.0.0.1:{}", proxy.port),
        &format!("127.0.0.1:{port}"),
    );
    std::fs::write(node.dir().join("identity.json"), text).unwrap();
    let _agent = node.run();
    assert!(echoes(&proxy, 0).await);
    let before = proxy.logins.load(Ordering::Relaxed);
    cut.send_replace(1);
    let since = Instant::now();
    // A new connection passes again; the heartbeat is one second, and the first pause up to one.
    while proxy.logins.load(Ordering::Relaxed) == before {
        assert!(since.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(echoes(&proxy, 1).await);
}

#[tokio::test]
async fn announced_authorities_are_trusted_and_an_empty_set_is_not() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    let _agent = node.run();
    let tunnel = proxy.tunnel(0).await;
    let say = |node_ca: &[u8], host_ca: &[u8]| {
        let lines = |keys: &[u8]| keys.iter().map(|n| line(key(*n).public_key())).collect();
        let message = FromProxy::Authorities {
            node_ca: lines(node_ca),
            host_ca: lines(host_ca),
        };
        tunnel.say.send(message).unwrap();
    };
    say(&[], &[1]);
    say(&[2], &[]);
    // A rotation of the host CA: announced, then it signs and the old one is gone.
    say(&[2, 12], &[1, 11]);
    node.until(|own| own.node_ca.len() == 2 && own.host_ca.len() == 2)
        .await;
    for trusted in &*node.echo.trusted.lock().unwrap() {
        assert!(!trusted.node_ca.is_empty() && !trusted.host_ca.is_empty());
    }
    say(&[12], &[11]);
    node.until(|own| own.host_ca == [key(11).public_key().clone()])
        .await;
    // The proxy shows what the new authority signed, for a new key even; the agent comes back to it.
    proxy.with(|state| (state.ca, state.host) = (11, 14));
    tunnel.connection.disconnect("restarting").await;
    assert!(echoes(&proxy, 1).await);
    let own = node
        .until(|own| own.proxies[0].key.as_ref() == Some(key(14).public_key()))
        .await;
    assert_eq!(own.node_ca, [key(12).public_key().clone()]);
    // And never again to the key that it was joined by, without a certificate.
    proxy.with(|state| (state.ca, state.host) = (0, 4));
    let before = proxy.logins.load(Ordering::Relaxed);
    proxy.tunnel(1).await.connection.disconnect("").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(proxy.logins.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn an_older_revocation_list_is_refused() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    let _agent = node.run();
    let tunnel = proxy.tunnel(0).await;
    let say = |krl: String| tunnel.say.send(FromProxy::Revoked { krl }).unwrap();
    say(krl(7));
    say(krl(6));
    say("AAAA".to_owned());
    say(krl(8));
    node.until(|own| own.krl.version() == 8).await;
    let versions: Vec<_> = node
        .echo
        .trusted
        .lock()
        .unwrap()
        .iter()
        .map(|own| own.krl.version())
        .collect();
    assert_eq!(versions, [3, 7, 8]);
}

#[tokio::test]
async fn a_revocation_list_that_could_not_be_stored_is_taken_with_the_next_tunnel() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    let _agent = node.run();
    let tunnel = proxy.tunnel(0).await;
    // Nothing can be written in its place, as on a disk that is broken.
    let obstacle = node.dir().join("identity.new");
    std::fs::create_dir(&obstacle).unwrap();
    let list = || FromProxy::Revoked { krl: krl(7) };
    tunnel.say.send(list()).unwrap();
    // What is not on disk is not in force, and the agent does not go on as if it were: it comes anew, and is told again.
    let tunnel = proxy.tunnel(1).await;
    assert_eq!(node.stored().krl.version(), 3);
    assert!(echoes(&proxy, 1).await);
    std::fs::remove_dir(&obstacle).unwrap();
    tunnel.say.send(list()).unwrap();
    node.until(|own| own.krl.version() == 7).await;
    let stored = std::fs::read_to_string(node.dir().join("identity.json")).unwrap();
    assert!(stored.contains(&krl(7)));
}

#[tokio::test]
async fn an_agent_greets_once_and_neither_a_second_welcome_nor_a_refusal_moves_it() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    let _agent = node.run();
    let tunnel = proxy.tunnel(0).await;
    let before = node.stored();
    // What it was told first counts: another name, or a pace at which it would count as gone.
    let welcome = FromProxy::Welcome {
        node_id: "00000000-0000-4000-8000-000000000000".to_owned(),
        cluster: "other".to_owned(),
        heartbeat_seconds: 300,
    };
    tunnel.say.send(welcome).unwrap();
    let why = "no".to_owned();
    tunnel.say.send(FromProxy::Refused { why }).unwrap();
    tunnel.say.send(FromProxy::Unknown).unwrap();
    let heard = |state: &mut proxy_support::State| state.heard.len();
    let until_now = proxy.with(heard);
    proxy
        .until(|state| (state.heard.len() >= until_now + 3).then_some(()))
        .await;
    let greetings = proxy.with(|state| {
        let is_greeting = |message: &&FromNode| matches!(message, FromNode::Hello { .. });
        state.heard.iter().filter(is_greeting).count()
    });
    assert_eq!(greetings, 1);
    assert!(echoes(&proxy, 0).await);
    assert_eq!(node.stored().node_id, before.node_id);
}

#[tokio::test]
async fn a_host_certificate_is_renewed_in_time() {
    let (proxy, _running) = Proxy::start().await;
    proxy.with(|state| state.lifetime = time::Duration::seconds(10));
    let node = Node::joined(&proxy).await;
    let _agent = node.run();
    let week = 7 * 86_400;
    let own = node
        .until(|own| {
            let certificate = &own.host_certificate;
            certificate.valid_before() - certificate.valid_after() > week
        })
        .await;
    assert_eq!(
        Some(own.host_key.public_key()),
        proxy.with(|state| state.node.first().cloned()).as_ref()
    );
    // Once is enough.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let renewals = |state: &mut proxy_support::State| {
        let renew = |message: &&FromNode| matches!(message, FromNode::Renew { .. });
        state.heard.iter().filter(renew).count()
    };
    assert_eq!(proxy.with(renewals), 1);
}

#[tokio::test]
async fn a_new_host_key_takes_over_also_if_the_agent_dies_before_it_hears_the_answer() {
    let (proxy, _running) = Proxy::start().await;
    let node = Node::joined(&proxy).await;
    proxy.with(|state| state.mute = true);
    let agent = node.run();
    proxy.tunnel(0).await;
    let before = node.stored();
    ask_for_new_key(&node.dir()).unwrap();
    let asked = proxy
        .until(|state| {
            state.heard.iter().find_map(|message| match message {
                FromNode::Renew { key } => Some(key.clone()),
                FromNode::Hello { .. } | FromNode::Heartbeat { .. } | FromNode::Unknown => None,
            })
        })
        .await;
    assert_ne!(asked, line(before.host_key.public_key()));
    agent.killed(&node.dir()).await;
    proxy.with(|state| state.mute = false);
    // The proxy knows the new key only; the agent has it on disk.
    let _agent = node.run();
    assert!(echoes(&proxy, 1).await);
    let own = node
        .until(|own| {
            line(own.host_key.public_key()) == asked
                && own.host_certificate.public_key() == own.host_key.public_key().key_data()
        })
        .await;
    assert!(own.next_key.is_none());
    assert!(!node.dir().join("roll").exists());
}
