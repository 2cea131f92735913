//! The lobby: commands over SSH, and the way on to nodes by `ssh -J`.

use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_core::policy::{self, Identity, Resolved};
use anteroom_core::target::NodeRef;
use time::OffsetDateTime;

use super::Inner;
use super::io::ChannelIo;
use super::parting::{self, Speaking};
use super::startup::{Program, Startup};
use crate::admin::{self, Caller, CommandLine};
use crate::exit::Exit;
use crate::keys::InnerFace;
use crate::proxy::Proxy;
use crate::say::{self, LineEnd};
use crate::state::IssueError;
use anteroom_ssh::{self as ssh, Connection, OpenRefusal, Opening, TcpTarget};

/// What a known user finds behind the front door.
pub(super) struct Lobby {
    proxy: Arc<Proxy>,
    identity: Identity,
    from: SocketAddr,
    /// To open the user's agent on.
    connection: Connection,
    /// When the key was proven.
    since: OffsetDateTime,
    /// Commands, and inner connections.
    speaking: Arc<Speaking>,
}

impl Lobby {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        identity: Identity,
        from: SocketAddr,
        connection: Connection,
        since: OffsetDateTime,
    ) -> Arc<Lobby> {
        Arc::new(Lobby {
            proxy,
            identity,
            from,
            connection,
            since,
            speaking: Arc::default(),
        })
    }

    /// Ends the connection when its user is shut out.
    pub(super) fn end_when_barred(&self) {
        parting::end_when_barred(
            self.proxy.clone(),
            self.identity.clone(),
            self.connection.clone(),
            self.speaking.clone(),
        );
    }

    /// Runs one command, or shows what is the user's where there is none.
    pub(super) async fn session(self: Arc<Self>, opening: Opening) {
        let _speaker = self.speaking.enter();
        let mut channel = opening.accept().await;
        let config = self.proxy.config();
        let Some((mut startup, program)) = Startup::collect(&mut channel.inbox, &config).await
        else {
            return;
        };
        let outbox = channel.outbox.clone();
        let mut io = ChannelIo::new(channel, &mut startup, &self.connection);
        let line = match &program {
            Program::Exec(command) => CommandLine::from_exec(command),
            Program::Shell => CommandLine::from_words(Vec::new()),
            Program::Subsystem(name) => {
                let why = say::subsystem_without_node(name);
                outbox.stderr(say::lines(&why, LineEnd::Lf)).await.ok();
                return finish(&outbox, Exit::Usage).await;
            }
        };
        let exit = match line {
            Ok(line) => {
                let caller = Caller::Ssh {
                    identity: self.identity.clone(),
                    remote_addr: self.from,
                };
                admin::run(&self.proxy.commands, caller, line, &mut io).await
            }
            Err(error) => admin::say_usage_error(&error, &mut io).await,
        };
        finish(&outbox, exit).await;
    }

    /// Answers `direct-tcpip HOST:PORT` with an inner SSH server that speaks for the node.
    ///
    /// The port is the client's habit and means nothing: a node is reached where it was registered.
    pub(super) async fn jump(self: Arc<Self>, target: TcpTarget, opening: Opening) {
        if let Some(why) = self.not_served(&target) {
            return opening.reject(OpenRefusal::ConnectFailed(why)).await;
        }
        let (node, identity) = match self.inner_server(&target.host).await {
            Ok(Some((node, InnerFace::Shown(identity)))) => (node, *identity),
            Ok(Some((_, InnerFace::NotOurs)) | None) => {
                let why = format!("unknown host {}", say::clean(&target.host));
                return opening.reject(OpenRefusal::Prohibited(why)).await;
            }
            Ok(Some((_, InnerFace::NotNow))) => {
                let why = say::TOO_MANY_HOST_NAMES.to_owned();
                return opening.reject(OpenRefusal::ResourceShortage(why)).await;
            }
            Err(error) => {
                let why = say::clean(&error.to_string()).into_owned();
                return opening.reject(OpenRefusal::ConnectFailed(why)).await;
            }
        };
        let _speaker = self.speaking.enter();
        let channel = opening.accept().await;
        let config = super::server_config(identity, &self.proxy.config().door);
        let front = Inner {
            proxy: self.proxy.clone(),
            identity: self.identity.clone(),
            from: self.from,
            since: self.since,
            node,
            login: None,
            door: None,
        };
        // How it ends is the inner connection's own business; the channel closes with it.
        ssh::serve(channel.into_stream(), Arc::new(config), front)
            .await
            .ok();
    }

    /// `ssh -W app:443`: raw TCP to something that is no node, which is not served yet. The usual port is what `ssh -J` opens;
    /// there the inner server says the same, on standard error.
    fn not_served(&self, target: &TcpTarget) -> Option<String> {
        const SSH: u32 = 22;
        let node = NodeRef::parse(&target.host).ok()?;
        let NodeRef::Name(name) = &node else {
            return None;
        };
        let (view, now) = (self.proxy.state.view(), self.proxy.state.now());
        let is_node = policy::resolve(&view, &self.identity, &node, now) != Resolved::Unknown;
        if target.port == SSH || is_node {
            return None;
        }
        let known = policy::known_resources(&view, &self.identity, None, name.as_str(), now);
        known
            .first()
            .map(|resource| say::connecting_not_served(resource))
    }

    /// The node meant, and what is shown for the name asked for: a certificate only for single labels
    /// and names under the operator's domains, or a user could relay somebody's connection to
    /// another host into our server. Whether there is such a node is said inside.
    async fn inner_server(&self, host: &str) -> Result<Option<(NodeRef, InnerFace)>, IssueError> {
        let Ok(node) = NodeRef::parse(host) else {
            return Ok(None);
        };
        let (state, user) = (&self.proxy.state, self.identity.user());
        let resolved = policy::resolve(&state.view(), &self.identity, &node, state.now());
        // Names that are nodes to her are as many as the nodes; others, which she makes up or may not
        // know of, are counted alike, and are hers.
        let whose = (resolved == Resolved::Unknown).then_some(user);
        let may_issue = || {
            let limit = self.proxy.config().door.host_names_per_hour;
            let count = |user| self.proxy.host_names.count(user, limit, state.now());
            whose.is_none_or(count)
        };
        let face = self
            .proxy
            .hosts
            .inner(host, whose, state, may_issue)
            .await?;
        Ok(Some((node, face)))
    }
}

async fn finish(outbox: &ssh::Outbox, exit: Exit) {
    outbox.exit_status(exit.code().into()).await.ok();
    outbox.close().await;
}
