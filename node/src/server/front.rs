//! One connection: who it is, and what is done with what it opens.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anteroom_ca::node::{self, Conditions, VerifiedAccess};
use anteroom_ssh::{Answer, ChannelRequest, Connection, Opening, TcpTarget, Verdict};
use ssh_key::{Certificate, PublicKey};
use time::OffsetDateTime;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tracing::{info, warn};

use super::account::{self, Account};
use super::agent_socket::AgentSocket;
use super::forward::{self, Listeners};
use super::{Admitted, Peer, Server, environment, session};

/// Bytes of somebody's text in a line of the log.
const LONGEST_SHOWN: usize = 256;

/// How long the user database may take.
const LOOKING_UP: Duration = Duration::from_secs(10);

/// The agent's side of one connection.
pub(super) struct Front {
    number: u64,
    peer: Peer,
    server: Arc<Server>,
    proven: Option<Arc<Login>>,
    listeners: Listeners,
    sessions: u64,
}

/// Who logged in on a connection, and what its sessions share.
pub(super) struct Login {
    pub(super) number: u64,
    pub(super) peer: Peer,
    pub(super) account: Account,
    pub(super) access: VerifiedAccess,
    pub(super) server: Arc<Server>,
    connection: OnceLock<Connection>,
    agent: OnceCell<Option<AgentSocket>>,
    _admitted: Admitted,
}

impl Login {
    /// The socket of the client's agent: opened when a session asks for it first, and from then on there
    /// for every session of the connection, as in sshd.
    pub(super) async fn agent_socket(&self, wanted: bool) -> Option<PathBuf> {
        if wanted {
            let open = async {
                let connection = self.connection.get()?.clone();
                match AgentSocket::open(&self.account, connection) {
                    Ok(socket) => Some(socket),
                    Err(error) => {
                        warn!(connection = self.number, %error, "no socket for the agent");
                        None
                    }
                }
            };
            self.agent.get_or_init(|| open).await;
        }
        let socket = self.agent.get()?.as_ref()?;
        Some(socket.path().to_owned())
    }
}

impl Front {
    pub(super) fn new(number: u64, peer: Peer, server: Arc<Server>) -> Self {
        Self {
            number,
            peer,
            server,
            proven: None,
            listeners: Listeners::new(),
            sessions: 0,
        }
    }

    fn verified(&self, user: &str, certificate: &Certificate) -> Result<Login, String> {
        let blob = certificate.to_bytes().map_err(|error| error.to_string())?;
        let now = OffsetDateTime::now_utc();
        // What is trusted now, not when the connection began.
        let trusted = self.server.trusted.load_full();
        let trust = &trusted.trust;
        let conditions = Conditions {
            node: trust.node_id,
            login: user,
            authorities: &trust.node_ca,
            revoked: &trust.revoked,
            now,
            from: self.peer.remote.ip(),
        };
        let access = node::verify(&blob, &conditions).map_err(|error| error.to_string())?;
        let today = now.unix_timestamp().div_euclid(86_400);
        let account = look_up(user, today)?;
        let person = access.person().map(|name| name.to_string());
        let person = person.unwrap_or_else(|| access.key_id().to_owned());
        let admitted = self.server.admit(person);
        let admitted = admitted.ok_or("this person has too many connections here")?;
        Ok(Login {
            number: self.number,
            peer: self.peer,
            account,
            access,
            server: Arc::clone(&self.server),
            connection: OnceLock::new(),
            agent: OnceCell::new(),
            _admitted: admitted,
        })
    }

    fn may(&self, what: impl Fn(&Login) -> bool) -> Answer {
        match self.proven.as_deref().is_some_and(what) {
            true => Answer::Success,
            false => Answer::Failure,
        }
    }
}

impl anteroom_ssh::Front for Front {
    fn key_offered(&mut self, _: &str, _: &PublicKey) -> Verdict {
        // Of a certificate this is the embedded key, so any may be the right one; nothing changes on it.
        Verdict::Accept
    }

    fn key_proven(&mut self, _: &str, _: &PublicKey) -> Verdict {
        Verdict::Reject
    }

    fn certificate_proven(&mut self, user: &str, certificate: &Certificate) -> Verdict {
        let key_id = shown(certificate.key_id());
        match self.verified(user, certificate) {
            Ok(login) => {
                info!(
                    connection = self.number,
                    login = user,
                    peer = %self.peer.remote,
                    serial = login.access.serial(),
                    "accepted the certificate of {key_id}"
                );
                self.proven = Some(Arc::new(login));
                Verdict::Accept
            }
            Err(why) => {
                warn!(
                    connection = self.number,
                    login = shown(user),
                    peer = %self.peer.remote,
                    "refused the certificate of {key_id}: {why}"
                );
                Verdict::Reject
            }
        }
    }

    fn user_changed(&mut self, _: &str) {
        self.proven = None;
    }

    fn authenticated(&mut self, connection: Connection) {
        if let Some(login) = &self.proven {
            // Called once.
            let _ = login.connection.set(connection);
        }
    }

    fn session(&mut self, opening: Opening) {
        let Some(login) = self.proven.clone() else {
            return;
        };
        self.sessions += 1;
        let number = self.sessions;
        tokio::spawn(async move {
            let channel = opening.accept().await;
            session::run(login, number, channel).await;
        });
    }

    fn direct_tcpip(&mut self, target: TcpTarget, opening: Opening) {
        if let Some(login) = self.proven.clone() {
            tokio::spawn(forward::direct(login, target, opening));
        }
    }

    fn request(&mut self, request: &ChannelRequest) -> Answer {
        match request {
            ChannelRequest::Pty(_) => self.may(|login| login.access.rights().pty),
            ChannelRequest::AgentForward => {
                self.may(|login| login.access.rights().agent_forwarding)
            }
            ChannelRequest::Env { name, .. } => {
                let accepted = environment::is_accepted(name, &self.server.options);
                self.may(|_| accepted)
            }
            ChannelRequest::Subsystem(name) => self.may(|_| name == "sftp"),
            // No display is forwarded, whatever the certificate says.
            ChannelRequest::X11(_) => Answer::Failure,
            ChannelRequest::Shell
            | ChannelRequest::Exec(_)
            | ChannelRequest::WindowChange(_)
            | ChannelRequest::Signal(_) => self.may(|_| true),
        }
    }

    async fn tcpip_forward(&mut self, address: &str, port: u32) -> Option<u32> {
        let login = self.proven.clone()?;
        let connection = login.connection.get()?;
        self.listeners.open(&login, connection, address, port).await
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32) -> bool {
        self.listeners.cancel(address, port)
    }
}

/// Looks an account up in a thread of its own, for as long as [`LOOKING_UP`]: a database on the network may take
/// its time. This connection waits meanwhile, which has no channel yet, and no other.
fn look_up(user: &str, today: i64) -> Result<Account, String> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let runtime = Handle::current();
    let name = user.to_owned();
    let looking = move || account::find(&name, today).map_err(|error| error.to_string());
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
        // There is no other thread that could take over.
        return looking();
    }
    let found = async { timeout(LOOKING_UP, tokio::task::spawn_blocking(looking)).await };
    match tokio::task::block_in_place(|| runtime.block_on(found)) {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the user database did not answer in time".to_owned()),
    }
}

/// Somebody's text as it may stand in a line of the log.
pub(super) fn shown(text: &str) -> String {
    let cut = text.chars().take(LONGEST_SHOWN);
    format!("`{}`", cut.flat_map(char::escape_debug).collect::<String>())
}
