//! A command's streams and terminal on a session channel.

use std::time::Duration;

use bytes::Bytes;

use super::startup::Startup;
use super::voice::ChannelVoice;
use crate::admin::{
    AgentStream, CommandIo, FileAnswer, Gone, Leave, NoAgent, StdinError, TerminalSize, Typed,
};
use crate::environment::Environment;
use crate::hold::{Answer, Left, Voice};
use anteroom_ssh::{Channel, Connection, Event, WindowSize};

/// How long a client may take to open its agent: it asks nobody, and is near.
const AGENT_OPENS: Duration = Duration::from_secs(10);

/// The standard streams of a command that runs over a session channel.
pub(super) struct ChannelIo {
    channel: Channel,
    terminal: Option<WindowSize>,
    /// Where the agent is that was forwarded, if one was.
    agent: Option<Connection>,
    environment: Environment,
}

impl ChannelIo {
    pub(super) fn new(channel: Channel, startup: &mut Startup, connection: &Connection) -> Self {
        ChannelIo {
            channel,
            terminal: startup.terminal().copied(),
            agent: startup.wants_agent.then(|| connection.clone()),
            environment: startup.settings().clone(),
        }
    }

    /// A terminal in raw mode does not return the carriage by itself.
    fn shown(&self, text: Bytes) -> Bytes {
        if self.terminal.is_none() {
            return text;
        }
        let mut out = Vec::with_capacity(text.len() + 64);
        for byte in text {
            if byte == b'\n' {
                out.push(b'\r');
            }
            out.push(byte);
        }
        Bytes::from(out)
    }

    fn voice(&mut self) -> ChannelVoice<'_> {
        let outbox = self.channel.outbox.clone();
        ChannelVoice::new(&mut self.channel.inbox, outbox, self.terminal.as_mut())
    }
}

impl CommandIo for ChannelIo {
    async fn stdout(&mut self, text: Bytes) -> Result<(), Gone> {
        self.channel
            .outbox
            .data(self.shown(text))
            .await
            .map_err(|_| Gone)
    }

    async fn stderr(&mut self, text: Bytes) -> Result<(), Gone> {
        self.channel
            .outbox
            .stderr(self.shown(text))
            .await
            .map_err(|_| Gone)
    }

    async fn read_stdin(&mut self, limit: usize) -> Result<Vec<u8>, StdinError> {
        let mut all = Vec::new();
        loop {
            match self.channel.inbox.next().await {
                Some(Event::Data(data)) if all.len() + data.len() > limit => {
                    return Err(StdinError::TooLong(limit));
                }
                Some(Event::Data(data)) => all.extend_from_slice(&data),
                Some(Event::Eof) => return Ok(all),
                Some(Event::Close) | None => return Err(StdinError::Gone(Gone)),
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

    fn file(&mut self, _: &str) -> FileAnswer {
        FileAnswer::OutOfReach
    }

    fn environment(&self) -> Environment {
        self.environment.clone()
    }

    fn terminal(&self) -> Option<TerminalSize> {
        // The seam clamps sizes to 1000.
        let narrow = |size: u32| u16::try_from(size).unwrap_or(u16::MAX);
        self.terminal.map(|size| TerminalSize {
            columns: narrow(size.columns),
            rows: narrow(size.rows),
        })
    }

    async fn read_line(&mut self, prompt: &str) -> Typed {
        match self.voice().ask(prompt, crate::hold::PROMPT_TIMEOUT).await {
            Answer::Line(line) => Typed::Line(line),
            Answer::Unattended | Answer::Left(Left::Gone) => Typed::End,
            Answer::Left(Left::Interrupted) => Typed::Interrupted,
        }
    }

    async fn agent(&mut self) -> Result<AgentStream, NoAgent> {
        let connection = self.agent.as_ref().ok_or(NoAgent::NotForwarded)?;
        match tokio::time::timeout(AGENT_OPENS, connection.open_agent()).await {
            Ok(Ok(channel)) => Ok(Box::new(channel.into_stream())),
            Ok(Err(error)) => Err(NoAgent::Refused(error.to_string())),
            Err(_) => Err(NoAgent::Refused("it does not answer".to_owned())),
        }
    }

    async fn gone(&mut self) -> Leave {
        match self.voice().left().await {
            Left::Interrupted => Leave::Interrupted,
            Left::Gone => Leave::Disconnected,
        }
    }
}
