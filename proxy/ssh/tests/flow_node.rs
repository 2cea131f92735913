//! The seam towards nodes: what a node must show before it is told anything, whose
//! fault a failure is, and that a connection ends when it is to end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support_ssh;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anteroom_ssh::{
    ChannelRequest, ConnectError, Event, HostAlgorithms, HostProof, NodeConnection, OpenError,
    RequestKind, TcpTarget, connect, prepare,
};
use ssh_key::certificate::{Builder, CertType};
use ssh_key::{Algorithm, Certificate, EcdsaCurve, HashAlg, PrivateKey, PublicKey};
use support_ssh::{LIMIT, Lab, Setup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Not a test: a laboratory has a relay, used here or not.
#[test]
#[ignore = "started by the other tests"]
fn relay_process() {
    support_ssh::relay::run();
}

const P256: Algorithm = Algorithm::Ecdsa {
    curve: EcdsaCurve::NistP256,
};
const RSA: Algorithm = Algorithm::Rsa {
    hash: Some(HashAlg::Sha512),
};

fn certify(ca: &PrivateKey, key: &PublicKey, kind: CertType, principal: &str) -> Certificate {
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
    builder.cert_type(kind).unwrap();
    builder.key_id("test").unwrap();
    builder.valid_principal(principal).unwrap();
    if kind == CertType::User {
        builder.extension("permit-port-forwarding", "").unwrap();
    }
    builder.sign(ca).unwrap()
}

fn new_key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

fn read_key(lab: &Lab, name: &str) -> PrivateKey {
    PrivateKey::read_openssh_file(lab.path(name)).unwrap()
}

async fn dial(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    prepare(&stream).unwrap();
    stream
}

async fn log_in(lab: &Lab) -> NodeConnection {
    let key = new_key();
    let certificate = certify(
        &read_key(lab, "ca"),
        key.public_key(),
        CertType::User,
        "root",
    );
    let hosts = HostAlgorithms::CertificatesFirst;
    let stream = dial(lab.sshd_port).await;
    connect(stream, |_| true, &hosts, "root", Arc::new(key), certificate)
        .await
        .unwrap()
}

/// What a node shows when it is asked in this way, or why it shows nothing.
async fn shown(lab: &Lab, hosts: HostAlgorithms) -> Result<HostProof, ConnectError> {
    let (sender, seen) = std::sync::mpsc::channel();
    let check = move |proof: &HostProof| {
        sender.send(proof.clone()).unwrap();
        false
    };
    let key = new_key();
    let certificate = certify(
        &read_key(lab, "ca"),
        key.public_key(),
        CertType::User,
        "root",
    );
    let stream = dial(lab.sshd_port).await;
    let result = connect(stream, check, &hosts, "root", Arc::new(key), certificate).await;
    let error = result.expect_err("nothing is trusted here");
    if error == ConnectError::HostRefused {
        return Ok(seen.recv().unwrap());
    }
    Err(error)
}

/// A node with a host key of each kind, and a certificate for one of them.
fn many_keys() -> Lab {
    Lab::with(Setup {
        sshd: "HostKey D/ecdsa\nHostKey D/rsa\nHostCertificate D/host-cert.pub",
        ..Setup::default()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pinned_key_of_every_kind_is_asked_for() {
    let lab = many_keys();
    for (pin, name) in [
        (Algorithm::Ed25519, "host.pub"),
        (P256, "ecdsa.pub"),
        (RSA, "rsa.pub"),
    ] {
        let HostProof::Key(key) = shown(&lab, HostAlgorithms::Pinned(vec![pin]))
            .await
            .unwrap()
        else {
            panic!("a plain key is pinned");
        };
        let expected = PublicKey::read_openssh_file(lab.path(name)).unwrap();
        assert_eq!(key.key_data(), expected.key_data());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_certificate_is_preferred_where_the_node_has_one() {
    let lab = many_keys();
    let HostProof::Certificate(certificate) = shown(&lab, HostAlgorithms::CertificatesFirst)
        .await
        .unwrap()
    else {
        panic!("the node has a certificate");
    };
    assert_eq!(certificate.valid_principals(), ["iot"]);
    let plain = Lab::new();
    assert!(matches!(
        shown(&plain, HostAlgorithms::CertificatesFirst).await,
        Ok(HostProof::Key(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_the_node_does_not_have_is_told_apart_from_a_wrong_key() {
    let lab = Lab::new();
    let error = shown(&lab, HostAlgorithms::Pinned(vec![P256]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::NoCommonAlgorithm(_)),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_not_trusted_is_not_told_who_wants_in() {
    let lab = Lab::with(Setup {
        sshd: "LogLevel DEBUG2",
        ..Setup::default()
    });
    shown(&lab, HostAlgorithms::CertificatesFirst)
        .await
        .unwrap();
    let log = || std::fs::read_to_string(lab.path("sshd.log")).unwrap();
    support_ssh::until("the node has noticed", || {
        log().contains("Connection closed by")
    });
    assert!(!log().contains("userauth-request"), "{}", log());
    log_in(&lab).await.disconnect().await;
    support_ssh::until("a login is in the log", || {
        log().contains("userauth-request")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_or_for_another_login_is_refused_by_the_node() {
    let lab = Lab::new();
    for (ca, principal) in [(new_key(), "root"), (read_key(&lab, "ca"), "daemon")] {
        let key = new_key();
        let certificate = certify(&ca, key.public_key(), CertType::User, principal);
        let stream = dial(lab.sshd_port).await;
        let hosts = HostAlgorithms::CertificatesFirst;
        let error = connect(stream, |_| true, &hosts, "root", Arc::new(key), certificate)
            .await
            .unwrap_err();
        assert_eq!(error, ConnectError::CertificateRefused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_checked_once_and_rekeying_goes_on_with_it() {
    let lab = Lab::with(Setup {
        sshd: "RekeyLimit 1M",
        ..Setup::default()
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let key = new_key();
    let certificate = certify(
        &read_key(&lab, "ca"),
        key.public_key(),
        CertType::User,
        "root",
    );
    let check = move |_: &HostProof| count.fetch_add(1, Ordering::SeqCst) == 0;
    let hosts = HostAlgorithms::CertificatesFirst;
    let stream = dial(lab.sshd_port).await;
    let node = connect(stream, check, &hosts, "root", Arc::new(key), certificate)
        .await
        .unwrap();
    let mut channel = node.open_session().await.unwrap();
    channel
        .outbox
        .request(ChannelRequest::Exec(b"head -c 64M /dev/zero".to_vec()))
        .await
        .unwrap();
    let mut got = 0;
    while let Some(event) = timeout(LIMIT, channel.inbox.next()).await.unwrap() {
        if let Event::Data(data) = event {
            got += data.len();
        }
    }
    assert_eq!(got, 64 << 20);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    node.disconnect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_silent_or_talks_nonsense_is_at_fault_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let attempt = async |port: u16| {
        let key = new_key();
        let certificate = certify(&new_key(), key.public_key(), CertType::User, "root");
        let hosts = HostAlgorithms::CertificatesFirst;
        connect(
            dial(port).await,
            |_| true,
            &hosts,
            "root",
            Arc::new(key),
            certificate,
        )
        .await
    };

    // Silent: the caller gives up, and the socket is closed.
    let (result, accepted) = tokio::join!(
        timeout(Duration::from_millis(300), attempt(port)),
        listener.accept()
    );
    assert!(result.is_err());
    let mut silent = accepted.unwrap().0;
    let mut heard = Vec::new();
    timeout(LIMIT, silent.read_to_end(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert!(heard.starts_with(b"SSH-2.0-Anteroom_"));

    // Endless lines before its identification.
    let chatter = async {
        let mut node = listener.accept().await.unwrap().0;
        while node.write_all(b"welcome to the machine\r\n").await.is_ok() {}
    };
    let (result, ()) = timeout(LIMIT, async { tokio::join!(attempt(port), chatter) })
        .await
        .unwrap();
    assert!(
        matches!(result, Err(ConnectError::Protocol(_) | ConnectError::Io(_))),
        "{result:?}"
    );

    // Nonsense after it.
    let nonsense = async {
        let mut node = listener.accept().await.unwrap().0;
        node.write_all(b"SSH-2.0-x\r\n").await.unwrap();
        while node.write_all(&[0xff; 1000]).await.is_ok() {}
    };
    let (result, ()) = timeout(LIMIT, async { tokio::join!(attempt(port), nonsense) })
        .await
        .unwrap();
    assert!(
        matches!(result, Err(ConnectError::Protocol(_) | ConnectError::Io(_))),
        "{result:?}"
    );

    // It hangs up.
    let hang_up = async { drop(listener.accept().await.unwrap()) };
    let (result, ()) = timeout(LIMIT, async { tokio::join!(attempt(port), hang_up) })
        .await
        .unwrap();
    assert!(matches!(result, Err(ConnectError::Io(_))), "{result:?}");
}

/// A session whose output nobody takes, so that the connection stands.
async fn standing(lab: &Lab) -> (NodeConnection, anteroom_ssh::Channel) {
    let node = log_in(lab).await;
    let channel = node.open_session().await.unwrap();
    channel
        .outbox
        .request(ChannelRequest::Exec(b"cat /dev/zero".to_vec()))
        .await
        .unwrap();
    while node.queued() < 1 << 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (node, channel)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnect_ends_a_connection_that_stands() {
    let lab = Lab::new();
    let (node, mut channel) = standing(&lab).await;
    let start = Instant::now();
    node.disconnect().await;
    assert!(
        start.elapsed() < Duration::from_secs(12),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(
        channel.outbox.data("late".into()).await,
        Err(anteroom_ssh::Gone)
    );
    while channel.inbox.next().await.is_some() {}
    assert_eq!(node.open_session().await.unwrap_err(), OpenError::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_connection_that_stands_ends_it_at_the_node() {
    let lab = Lab::new();
    let (node, channel) = standing(&lab).await;
    let sessions = || {
        lab.ok(&format!(
            "ss -Htn state established '( dport = :{} )' | wc -l",
            lab.sshd_port
        ))
    };
    assert_eq!(sessions(), "1");
    drop(node);
    timeout(LIMIT, channel.outbox.gone()).await.unwrap();
    support_ssh::until("the node is rid of it", || sessions() == "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_process_does_not_keep_a_disconnect_waiting() {
    let lab = Lab::new();
    let (node, _channel) = standing(&lab).await;
    lab.ok(&format!("pkill -STOP -P {} sshd", lab.sshd_pid()));
    let start = Instant::now();
    node.disconnect().await;
    let took = start.elapsed();
    lab.ok(&format!("pkill -CONT -P {} sshd || true", lab.sshd_pid()));
    assert!(took < Duration::from_secs(12), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_answers_are_told_apart() {
    let lab = Lab::new();
    let node = log_in(&lab).await;
    let mut channel = node.open_session().await.unwrap();
    for request in [
        ChannelRequest::Env {
            name: "X".into(),
            value: "y".into(),
        },
        ChannelRequest::Subsystem("no-such".into()),
        ChannelRequest::Exec(b"exit 3".to_vec()),
    ] {
        channel.outbox.request(request).await.unwrap();
    }
    let mut events = Vec::new();
    while let Some(event) = timeout(LIMIT, channel.inbox.next()).await.unwrap() {
        events.push(event);
    }
    assert_eq!(
        events,
        [
            Event::NodeRefused(RequestKind::Subsystem),
            Event::NodeAccepted(RequestKind::Exec),
            Event::Eof,
            Event::ExitStatus(3),
            Event::Close,
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_to_nowhere_and_a_forbidden_one_are_told_apart() {
    let lab = Lab::new();
    let node = log_in(&lab).await;
    let refused = node.open_direct_tcpip(nowhere()).await;
    assert_eq!(refused.unwrap_err(), OpenError::ConnectFailed);
    let strict = Lab::with(Setup {
        sshd: "AllowTcpForwarding no",
        ..Setup::default()
    });
    let refused = log_in(&strict).await.open_direct_tcpip(nowhere()).await;
    assert_eq!(refused.unwrap_err(), OpenError::Prohibited);
}

fn nowhere() -> TcpTarget {
    TcpTarget {
        host: "127.0.0.1".into(),
        port: 1,
        originator_host: "127.0.0.1".into(),
        originator_port: 1,
    }
}
