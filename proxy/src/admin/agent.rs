//! `login --agent`: a new key and its certificate, put into the agent that the client forwards.
//!
//! The private key is made here, sent through the connection that it is for, and wiped. The agent drops it when
//! the certificate ends. The certificate is printed as well: a client that is given it by `CertificateFile`
//! presents it before any other key, and `request drop` prints the one that takes its place.

use std::net::SocketAddr;

use anteroom_core::policy::{Identity, LoginWanted};
use ssh_key::PrivateKey;

use super::io::{AgentStream, CommandIo, NoAgent};
use super::run::{Ended, Run, Stop};
use crate::agent::{Agent, AgentError, Held};
use crate::exit::Exit;
use crate::keys;
use crate::say::clean;
use crate::state::LoggedIn;

/// Why a certificate counts no more that an agent did not take.
const NOT_TAKEN: &str = "the agent did not take it";

impl From<NoAgent> for Stop {
    fn from(error: NoAgent) -> Self {
        let exit = match &error {
            NoAgent::NotForwarded => Exit::Usage,
            NoAgent::Refused(_) => Exit::Failed,
        };
        Self::new(exit, clean(&error.to_string()))
    }
}

fn not_listed(error: &AgentError) -> Stop {
    Stop::new(Exit::Failed, format!("your agent can't be used: {error}"))
}

fn not_taken(error: &AgentError) -> Stop {
    let why = match error {
        AgentError::Refused => {
            "it refused, because it is locked (`ssh-add -X` unlocks it), or takes no certificates or no keys with a lifetime"
                .to_owned()
        }
        AgentError::Gone | AgentError::TooSlow | AgentError::Malformed => error.to_string(),
    };
    Stop::new(
        Exit::Failed,
        format!("your agent did not take the key: {why}; the certificate is revoked"),
    )
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn login_by_agent(
        &mut self,
        identity: &Identity,
        mut wanted: LoginWanted,
        from: SocketAddr,
    ) -> Ended {
        // The agent is asked before anything is issued: without one there is nothing to take back.
        let mut agent = Agent::new(self.io.agent().await?);
        let held = agent.identities().await.map_err(|e| not_listed(&e))?;
        let key = keys::ephemeral();
        let line = key.public_key().to_openssh();
        wanted.fresh_key = Some(line.map_err(|error| Stop::new(Exit::Failed, error))?);
        let state = &self.ctx.state;
        let issued = state.login(identity, wanted, from).await?;
        let comment = format!("anteroom:{}@{}", identity.user(), state.cluster());
        if let Err(error) =
            hand_over(&mut agent, &key, &issued, &comment, self.lifetime(&issued)).await
        {
            state.take_back(&issued, NOT_TAKEN, from).await?;
            return Err(not_taken(&error));
        }
        drop(key);
        forget_earlier(&mut agent, &held, &comment).await;
        drop(agent);
        self.hand_out(&issued).await?;
        self.note(&format!(
            "The key and its certificate are in your agent until {}, as `{}`",
            crate::say::stamp(issued.permit.valid_before()),
            clean(&comment)
        ))
        .await?;
        Ok(Exit::Done)
    }

    /// Whole seconds until the certificate ends, rounded down: the key may go first, not last.
    fn lifetime(&self, issued: &LoggedIn) -> u32 {
        let left = issued.permit.valid_before() - self.ctx.state.now();
        u32::try_from(left.whole_seconds().max(1)).unwrap_or(u32::MAX)
    }
}

/// Adds the certificate with its key, and the key alone, with which clients use a certificate of a file. Of
/// one that is refused, nothing stays.
async fn hand_over(
    agent: &mut Agent<AgentStream>,
    key: &PrivateKey,
    issued: &LoggedIn,
    comment: &str,
    lifetime: u32,
) -> Result<(), AgentError> {
    let certificate = issued.certificate.blob();
    let added = agent.add(key, Some(certificate), comment, lifetime).await;
    let added = match added {
        Ok(()) => agent.add(key, None, comment, lifetime).await,
        Err(error) => Err(error),
    };
    if added.is_err() {
        // It may have said no to the second and kept the first. What it can't forget is revoked.
        let _ = agent.remove(certificate).await;
    }
    added
}

/// Takes out what earlier logins have put there: servers end a connection after a few keys that they do not
/// know. An agent that does not let go of them drops them when they end.
async fn forget_earlier(agent: &mut Agent<AgentStream>, held: &[Held], comment: &str) {
    for earlier in held.iter().filter(|held| held.comment == comment) {
        if agent.remove(&earlier.blob).await.is_err() {
            return;
        }
    }
}
