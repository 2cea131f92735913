//! A machine that wants to become a node: the one thing that somebody may do here without having proven who he
//! is.
//!
//! Such a connection stays a stranger to its end. It keeps its place among the unauthenticated, it ends within a
//! grace time whatever it does, and it may open one session and run one command, which is not run but read. It is
//! let so far only while there is a token by which anything could come in. See `docs/security.md`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anteroom_core::id::UserName;
use anteroom_core::target::ENROLL;

use super::Tried;
use super::startup::{Program, Startup};
use crate::admin::{CommandLine, StdinError};
use crate::enrol::{self, LONGEST_INPUT, Secret};
use crate::exit::Exit;
use crate::proxy::Proxy;
use crate::say::{self, LineEnd};
use anteroom_ssh::{Answer, Channel, ChannelRequest, Connection, Event, Opening, Outbox};

/// From the login to the end of the connection, whatever the machine does: time enough to write a certificate
/// for each of its keys on a busy disk.
const GRACE: Duration = Duration::from_secs(30);

/// What a user name of a machine that enrols says: nothing, or the secret of a token.
#[derive(Debug)]
pub(super) struct Newcomer(Option<Secret>);

impl Newcomer {
    /// Reads `enroll` and `enroll+TOKEN`, while there is any token, or was a
    /// moment ago: at any other time these are names like all others, and nobody's.
    pub(super) fn admit(proxy: &Proxy, user: &str) -> Option<Self> {
        let newcomer = Self::read(user)?;
        let view = proxy.state.view();
        // Somebody who has been called so since before nobody new could be comes by her key.
        let is_somebody = UserName::parse(user).is_ok_and(|name| view.user(&name).is_some());
        let expected = view.has_tokens();
        (expected && !is_somebody).then_some(newcomer)
    }

    fn read(user: &str) -> Option<Self> {
        match user.strip_prefix(ENROLL)? {
            "" => Some(Self(None)),
            rest => rest
                .strip_prefix('+')
                .map(|secret| Self(Some(Secret::shown(secret)))),
        }
    }
}

/// Where such a connection leads.
pub(super) struct Gate {
    proxy: Arc<Proxy>,
    secret: Option<Secret>,
    from: SocketAddr,
    tried: Arc<Tried>,
    /// Whether the one session was opened.
    entered: AtomicBool,
}

impl Gate {
    pub(super) fn new(
        proxy: Arc<Proxy>,
        Newcomer(secret): Newcomer,
        from: SocketAddr,
        tried: Arc<Tried>,
        connection: Connection,
    ) -> Arc<Self> {
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(GRACE) => {
                    connection.disconnect("the time for enrolling is over").await;
                }
                () = connection.closed() => {}
            }
        });
        Arc::new(Self {
            proxy,
            secret,
            from,
            tried,
            entered: AtomicBool::new(false),
        })
    }

    /// A command and nothing else: no terminal, no environment, no agent.
    pub(super) fn request(request: &ChannelRequest) -> Answer {
        match request {
            ChannelRequest::Exec(_) => Answer::Success,
            ChannelRequest::Env { .. }
            | ChannelRequest::Pty(_)
            | ChannelRequest::Shell
            | ChannelRequest::Subsystem(_)
            | ChannelRequest::WindowChange(_)
            | ChannelRequest::Signal(_)
            | ChannelRequest::AgentForward
            | ChannelRequest::X11(_) => Answer::Failure,
        }
    }

    /// Serves the one session. A second one is refused, as an opening is that nobody answers.
    pub(super) async fn session(self: Arc<Self>, opening: Opening) {
        if self.entered.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut channel = opening.accept().await;
        let config = self.proxy.config();
        let Some((_, Program::Exec(command))) = Startup::collect(&mut channel.inbox, &config).await
        else {
            return;
        };
        let outbox = channel.outbox.clone();
        let exit = match self.enrol(&command, &mut channel).await {
            Ok(answer) => match outbox.data(answer.into()).await {
                Ok(()) => Exit::Done,
                Err(_) => Exit::Failed,
            },
            Err((exit, sentence)) => refuse(&outbox, exit, &sentence).await,
        };
        outbox.exit_status(exit.code().into()).await.ok();
        outbox.close().await;
    }

    async fn enrol(&self, command: &[u8], channel: &mut Channel) -> Result<String, (Exit, String)> {
        let line = CommandLine::from_exec(command);
        let read = match line {
            Ok(line) => read(channel)
                .await
                .map(|input| (line, input))
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let (line, input) = match read {
            Ok(read) => read,
            Err(why) => {
                enrol::record_nonsense(&self.proxy, self.from, &why).await;
                return Err((Exit::Usage, why));
            }
        };
        let secret = self.secret.clone();
        match enrol::enrol(&self.proxy, self.from, line.words(), &input, secret).await {
            Ok(answer) => {
                self.tried.enrolled();
                Ok(answer)
            }
            Err(turned) => {
                if turned.tries {
                    self.tried.refused();
                }
                Err((turned.exit, turned.sentence))
            }
        }
    }
}

async fn refuse(outbox: &Outbox, exit: Exit, sentence: &str) -> Exit {
    let text = say::lines(&format!("ERROR: {sentence}"), LineEnd::Lf);
    // Who is gone is told nothing, and the status is the same.
    outbox.stderr(text).await.ok();
    exit
}

/// Standard input to its end.
async fn read(channel: &mut Channel) -> Result<Vec<u8>, StdinError> {
    let mut all = Vec::new();
    loop {
        match channel.inbox.next().await {
            Some(Event::Data(data)) if all.len() + data.len() > LONGEST_INPUT => {
                return Err(StdinError::TooLong(LONGEST_INPUT));
            }
            Some(Event::Data(data)) => all.extend_from_slice(&data),
            Some(Event::Eof) => return Ok(all),
            Some(Event::Close) | None => return Err(StdinError::Gone(crate::admin::Gone)),
            Some(
                Event::Request(_)
                | Event::Stderr(_)
                | Event::ExitStatus(_)
                | Event::ExitSignal(_)
                | Event::NodeAccepted(_)
                | Event::NodeRefused(_),
            ) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_forms_of_the_name_are_a_newcomers() {
        assert!(matches!(Newcomer::read("enroll"), Some(Newcomer(None))));
        let with = Newcomer::read("enroll+abc");
        assert!(matches!(&with, Some(Newcomer(Some(secret))) if *secret == Secret::shown("abc")));
        assert!(!format!("{with:?}").contains("abc"));
        for other in [
            "",
            "enrol",
            "Enroll",
            "enrolled",
            "enroll@iot",
            "root@enroll",
            "node+iot",
        ] {
            assert!(Newcomer::read(other).is_none(), "{other}");
        }
    }
}
