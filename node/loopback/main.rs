//! The agent's SSH server on a loopback port, without a proxy or a tunnel: what the tests log in to.
//!
//!     agent-on-loopback serve DIR    node ID, node CA, host key and revocation list from files in DIR
//!     agent-on-loopback helper       the process that becomes the user

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a part of the tests, which fail by panicking"
)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anteroom_ca::krl::Revoked;
use anteroom_core::id::NodeId;
use anteroom_node::server::{Options, Peer, Server, Trust, helper_main, serve_from};
use ssh_key::{PrivateKey, PublicKey};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().collect();
    match arguments[1].as_str() {
        "helper" => helper_main(),
        "serve" => {
            serve(Path::new(&arguments[2]));
            ExitCode::SUCCESS
        }
        other => panic!("unknown command {other}"),
    }
}

fn trust(dir: &Path) -> Trust {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    Trust {
        node_id: NodeId::parse(read("node_id").trim()).unwrap(),
        node_ca: read("node_ca.pub")
            .lines()
            .map(|line| PublicKey::from_openssh(line).unwrap())
            .collect(),
        revoked: Revoked::parse(&std::fs::read(dir.join("krl")).unwrap()).unwrap(),
        host_key: PrivateKey::read_openssh_file(dir.join("host_key")).unwrap(),
        host_certificate: None,
    }
}

fn serve(dir: &Path) {
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
    log.with_ansi(false).init();
    let options = Options {
        helper: vec!["/proc/self/exe".into(), "helper".into()],
        own_sftp: std::env::var_os("OWN_SFTP").is_some(),
        ..Options::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let server = Server::new(trust(dir), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        println!("{}", local.port());
        tokio::spawn(follow(dir.to_owned(), Arc::clone(&server)));
        let mut stop = signal(SignalKind::terminate()).unwrap();
        loop {
            let (stream, remote) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                _ = stop.recv() => return server.end_sessions().await,
            };
            anteroom_ssh::prepare(&stream).unwrap();
            let peer = Peer { remote, local };
            tokio::spawn(serve_from(stream, peer, Arc::clone(&server)));
        }
    });
}

/// Takes up a revocation list that was changed.
async fn follow(dir: std::path::PathBuf, server: Arc<Server>) {
    let read = || std::fs::read(dir.join("krl")).unwrap_or_default();
    let mut known = read();
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        let now = read();
        // A list that is half written is none.
        if let Ok(revoked) = Revoked::parse(&now)
            && now != known
        {
            server.change_trust(|trust| trust.revoked = revoked);
            known = now;
        }
    }
}
