//! The control channel: messages of [`crate::protocol`], one a line, on a session channel.

use anteroom_ssh::{Channel, ChannelRequest, Event, Gone, Inbox, NodeConnection, Outbox};
use bytes::{Buf, BytesMut};

use crate::protocol::{FromNode, FromProxy, LONGEST_LINE, SUBSYSTEM};
use crate::text::clean;

/// What is heard on a control channel.
pub(crate) struct Ear {
    inbox: Inbox,
    heard: BytesMut,
    /// How much of `heard` has no end of a line in it.
    searched: usize,
}

/// What is said on it.
#[derive(Clone)]
pub(crate) struct Mouth(Outbox);

/// Why a control channel is not there, or is no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControlError {
    /// The proxy knows no node agents.
    #[error("the proxy does not serve node agents")]
    Unknown,
    /// It is over.
    #[error("the control channel was closed")]
    Closed,
    /// Too long, or not a message.
    #[error("the proxy said what cannot be read: {0}")]
    Unreadable(String),
}

impl From<Gone> for ControlError {
    fn from(_: Gone) -> Self {
        ControlError::Closed
    }
}

/// Opens the control channel.
pub(crate) async fn open(connection: &NodeConnection) -> Result<(Ear, Mouth), ControlError> {
    let Channel { mut inbox, outbox } = connection
        .open_session()
        .await
        .map_err(|_| ControlError::Closed)?;
    let asking = ChannelRequest::Subsystem(SUBSYSTEM.to_owned());
    outbox.request(asking).await?;
    match inbox.next().await {
        Some(Event::NodeAccepted(_)) => {}
        Some(Event::NodeRefused(_)) => return Err(ControlError::Unknown),
        Some(_) | None => return Err(ControlError::Closed),
    }
    let ear = Ear {
        inbox,
        heard: BytesMut::new(),
        searched: 0,
    };
    Ok((ear, Mouth(outbox)))
}

impl Mouth {
    /// Says one message.
    pub(crate) async fn say(&self, message: &FromNode) -> Result<(), ControlError> {
        let unreadable = |error: serde_json::Error| ControlError::Unreadable(error.to_string());
        let mut line = serde_json::to_vec(message).map_err(unreadable)?;
        line.push(b'\n');
        Ok(self.0.data(line.into()).await?)
    }
}

impl Ear {
    /// The next message. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<FromProxy, ControlError> {
        loop {
            if let Some(line) = self.line() {
                let message = serde_json::from_slice(&line);
                return message
                    .map_err(|error| ControlError::Unreadable(clean(&error.to_string())));
            }
            // The bound of what a proxy can make an agent keep.
            if self.heard.len() >= LONGEST_LINE {
                return Err(ControlError::Unreadable("a line without an end".to_owned()));
            }
            match self.inbox.next().await {
                Some(Event::Data(data)) => self.heard.extend_from_slice(&data),
                Some(Event::Eof | Event::Close | Event::ExitStatus(_) | Event::ExitSignal(_))
                | None => return Err(ControlError::Closed),
                Some(
                    Event::Stderr(_)
                    | Event::Request(_)
                    | Event::NodeAccepted(_)
                    | Event::NodeRefused(_),
                ) => {}
            }
        }
    }

    fn line(&mut self) -> Option<BytesMut> {
        let fresh = self.heard.get(self.searched..)?;
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.heard.len();
            return None;
        };
        let line = self.heard.split_to(self.searched + end);
        self.heard.advance(1);
        self.searched = 0;
        Some(line)
    }
}
