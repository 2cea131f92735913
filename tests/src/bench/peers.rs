//! Light peers for loads that OpenSSH's processes would not fit on two cores beside the proxy: clients and
//! a node in this process, on the product's own seam to SSH.

use std::sync::Arc;
use std::time::Duration;

use anteroom_ssh::{
    Answer, Channel, ChannelRequest, Connection, Event, Front, HostAlgorithms, Limits,
    NodeConnection, Opening, ServerConfig, TcpTarget, Verdict, connect, prepare, serve,
};
use anteroom_tests::{Person, World, login};
use ssh_key::{Certificate, PrivateKey, PublicKey};
use tokio::net::{TcpListener, TcpSocket};

/// How long a step may take before the load has failed.
pub(crate) const STEP: Duration = Duration::from_secs(120);

/// A node: whoever shows a certificate is let in, `ready` is said, what comes is sent back; after
/// the command `flood` it sends without end.
pub(crate) async fn node(listener: TcpListener, key: PrivateKey) {
    let limits = Limits::default();
    let config = ServerConfig::new(vec![key], Vec::new(), Duration::from_secs(60), limits);
    let config = Arc::new(config);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = prepare(&stream);
        tokio::spawn(serve(stream, Arc::clone(&config), LightNode));
    }
}

struct LightNode;

impl Front for LightNode {
    fn key_offered(&mut self, _: &str, _: &PublicKey) -> Verdict {
        Verdict::Accept
    }

    fn key_proven(&mut self, _: &str, _: &PublicKey) -> Verdict {
        Verdict::Reject
    }

    fn certificate_proven(&mut self, _: &str, _: &Certificate) -> Verdict {
        Verdict::Accept
    }

    fn authenticated(&mut self, _: Connection) {}

    fn session(&mut self, opening: Opening) {
        tokio::spawn(async move { answer(opening.accept().await).await });
    }

    fn direct_tcpip(&mut self, _: TcpTarget, opening: Opening) {
        drop(opening);
    }

    fn request(&mut self, _: &ChannelRequest) -> Answer {
        Answer::Success
    }
}

async fn answer(mut channel: Channel) {
    let mut flooding = false;
    loop {
        let event = if flooding {
            let block = bytes::Bytes::from_static(&[b'x'; 16 * 1024]);
            tokio::select! {
                event = channel.inbox.next() => event,
                sent = channel.outbox.data(block) => match sent {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
        } else {
            channel.inbox.next().await
        };
        let sent = match event {
            Some(Event::Request(ChannelRequest::Exec(command))) => {
                flooding = command == b"flood";
                channel.outbox.data("ready\n".into()).await
            }
            Some(Event::Data(data)) => channel.outbox.data(data).await,
            Some(Event::Eof) => {
                let _ = channel.outbox.exit_status(0).await;
                let _ = channel.outbox.eof().await;
                channel.outbox.close().await;
                return;
            }
            Some(Event::Close) | None => return,
            Some(_) => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Somebody who logs in with an identity certificate.
#[derive(Clone)]
pub(crate) struct User {
    port: u16,
    key: Arc<PrivateKey>,
    certificate: Certificate,
}

impl User {
    /// Has the proxy print a certificate for this person.
    pub(crate) fn of(world: &World, person: &Person) -> Self {
        let printed = person.access(&["login"]).run();
        printed.exits(0);
        Self {
            port: world.port,
            key: Arc::new(PrivateKey::read_openssh_file(&person.key).unwrap()),
            certificate: Certificate::from_openssh(printed.text().trim()).unwrap(),
        }
    }

    /// Runs a command on the node, from this loopback address; returns when the node, or the proxy that
    /// holds it, has said `word`.
    pub(crate) async fn run(&self, from: &str, command: &str, word: &str) -> Option<Live> {
        let opened = tokio::time::timeout(STEP, self.open(from, command, word)).await;
        opened.ok().flatten()
    }

    async fn open(&self, from: &str, command: &str, word: &str) -> Option<Live> {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind(format!("{from}:0").parse().ok()?).ok()?;
        let proxy = format!("127.0.0.1:{}", self.port).parse().ok()?;
        let stream = socket.connect(proxy).await.ok()?;
        prepare(&stream).ok()?;
        let target = format!("{}@iot", login());
        let hosts = HostAlgorithms::CertificatesFirst;
        let (key, certificate) = (Arc::clone(&self.key), self.certificate.clone());
        let connection = connect(stream, |_| true, &hosts, &target, key, certificate);
        let connection = connection.await.ok()?;
        let mut channel = connection.open_session().await.ok()?;
        let exec = ChannelRequest::Exec(command.as_bytes().to_vec());
        channel.outbox.request(exec).await.ok()?;
        let mut said = Vec::new();
        loop {
            match channel.inbox.next().await? {
                Event::Data(data) | Event::Stderr(data) => said.extend_from_slice(&data),
                Event::Close => return None,
                Event::Eof
                | Event::Request(_)
                | Event::ExitStatus(_)
                | Event::ExitSignal(_)
                | Event::NodeAccepted(_)
                | Event::NodeRefused(_) => {}
            }
            if String::from_utf8_lossy(&said).contains(word) {
                return Some(Live {
                    connection,
                    channel,
                });
            }
        }
    }
}

/// A session that is there; it ends when it is dropped.
pub(crate) struct Live {
    connection: NodeConnection,
    channel: Channel,
}

impl Live {
    /// Whether what is said comes back.
    pub(crate) async fn answers(&mut self) -> bool {
        if self.channel.outbox.data("word\n".into()).await.is_err() {
            return false;
        }
        let word = async {
            loop {
                match self.channel.inbox.next().await {
                    Some(Event::Data(data)) if data.ends_with(b"word\n") => return true,
                    Some(Event::Close) | None => return false,
                    Some(_) => {}
                }
            }
        };
        tokio::time::timeout(STEP, word).await.unwrap_or(false)
    }

    /// Whether it is there still.
    pub(crate) fn is_there(&self) -> bool {
        !self.connection.is_closed()
    }
}
