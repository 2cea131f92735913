//! The control channel of a node agent: what it says of itself and asks for, and what it is told.
//!
//! Nothing that an agent says can make the proxy keep more than [`LONGEST_HEARD`] bytes, nor write or sign more often
//! than its node has a turn ([`Act`]), on this channel or another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anteroom_core::node::said_labels;
use anteroom_node::protocol::{FromNode, FromProxy};
use bytes::Bytes;
use ssh_key::PublicKey;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::TunnelDoor;
use crate::announce::{Line, written};
use crate::audit::{Entry, Event};
use crate::say::{self, clean};
use crate::state::{HostKey, OwnConnection, OwnError};
use crate::tunnels::{Act, Tunnel};
use anteroom_ssh::{Channel, Event as Said, Gone, Outbox};

/// Bytes of one message of an agent: twice what its labels may be. What is longer is passed over and refused.
const LONGEST_HEARD: usize = 128 << 10;

/// How often an agent is to say that it is there.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// How much of an agent's version gets into the log.
const SHOWN_VERSION: usize = 64;

/// How long an agent may take to read what it is told. One that does not read is no use to its node.
const READING: Duration = Duration::from_secs(30);

/// Serves the channel until it or its connection ends. The way to the node has to be open: only then is it the
/// node's own connection, and no second one.
pub(super) async fn serve(door: &TunnelDoor, channel: Channel) {
    let Some(tunnel) = door.routed().await else {
        return super::refuse_session(channel, say::TUNNEL_WITHOUT_FORWARD).await;
    };
    let Channel { mut inbox, outbox } = channel;
    let mut agent = Agent::new(door, tunnel, outbox);
    let mut heard = Heard::default();
    loop {
        let (authorities, revoked) = (&mut agent.authorities, &mut agent.revoked);
        let done = tokio::select! {
            event = inbox.next() => match event {
                Some(Said::Data(data)) => agent.hear(&mut heard, &data).await,
                Some(Said::Eof | Said::Close) | None => return,
                Some(
                    Said::Stderr(_)
                    | Said::Request(_)
                    | Said::ExitStatus(_)
                    | Said::ExitSignal(_)
                    | Said::NodeAccepted(_)
                    | Said::NodeRefused(_),
                ) => Ok(()),
            },
            line = changed(authorities), if agent.welcomed => agent.tell(line).await,
            line = changed(revoked), if agent.welcomed => agent.tell(line).await,
            () = sleep_until(agent.labels_due), if agent.labels.is_some() => agent.take_labels().await,
        };
        if done.is_err() {
            return;
        }
    }
}

async fn changed(told: &mut watch::Receiver<Line>) -> Line {
    // The sender lives as long as the proxy.
    if told.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    told.borrow_and_update().clone()
}

/// What arrives, in lines.
#[derive(Default)]
struct Heard {
    line: Vec<u8>,
    too_long: bool,
}

/// One line, or what is left of one.
#[derive(Debug, PartialEq, Eq)]
enum OneLine {
    Whole(Vec<u8>),
    TooLong,
}

impl Heard {
    fn lines(&mut self, mut data: &[u8]) -> Vec<OneLine> {
        let mut found = Vec::new();
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = data.split_at(end);
            self.keep(line);
            data = rest.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.line);
            found.push(match std::mem::take(&mut self.too_long) {
                false => OneLine::Whole(line),
                true => OneLine::TooLong,
            });
        }
        self.keep(data);
        found
    }

    fn keep(&mut self, part: &[u8]) {
        self.too_long |= self.line.len() + part.len() > LONGEST_HEARD;
        if self.too_long {
            self.line = Vec::new();
        } else {
            self.line.extend_from_slice(part);
        }
    }
}

/// The agent at the other end.
struct Agent<'d> {
    door: &'d TunnelDoor,
    tunnel: Arc<Tunnel>,
    outbox: Outbox,
    authorities: watch::Receiver<Line>,
    revoked: watch::Receiver<Line>,
    welcomed: bool,
    /// What it said of itself last, while that is not taken yet.
    labels: Option<BTreeMap<String, String>>,
    labels_due: Instant,
}

impl<'d> Agent<'d> {
    fn new(door: &'d TunnelDoor, tunnel: Arc<Tunnel>, outbox: Outbox) -> Self {
        let told = &door.proxy.announcements;
        Self {
            door,
            tunnel,
            outbox,
            authorities: told.authorities(),
            revoked: told.revoked(),
            welcomed: false,
            labels: None,
            labels_due: Instant::now(),
        }
    }

    async fn hear(&mut self, heard: &mut Heard, data: &Bytes) -> Result<(), Gone> {
        for line in heard.lines(data) {
            match line {
                OneLine::Whole(line) if line.is_empty() => {}
                OneLine::Whole(line) => match serde_json::from_slice::<FromNode>(&line) {
                    Ok(message) => self.answer(message).await?,
                    Err(error) => {
                        let why = clean(&error.to_string()).into_owned();
                        self.refuse(say::agent_not_understood(&why)).await?;
                    }
                },
                OneLine::TooLong => self.refuse(say::agent_too_long(LONGEST_HEARD)).await?,
            }
        }
        Ok(())
    }

    async fn answer(&mut self, message: FromNode) -> Result<(), Gone> {
        let (state, node) = (&self.door.proxy.state, self.door.arrival.node);
        state.presence().heard(node, state.now());
        match message {
            FromNode::Hello { .. } if self.welcomed => {
                self.refuse(say::AGENT_GREETS_TWICE.to_owned()).await
            }
            FromNode::Hello { version, labels } => {
                let version = say::cut(&version, SHOWN_VERSION);
                tracing::info!(%node, version, "a node agent is there");
                self.say(&FromProxy::Welcome {
                    node_id: node.to_string(),
                    cluster: state.cluster().to_string(),
                    heartbeat_seconds: HEARTBEAT.as_secs(),
                })
                .await?;
                self.welcomed = true;
                self.note_labels(labels).await
            }
            FromNode::Heartbeat { labels } => self.note_labels(labels).await,
            FromNode::Renew { key } => self.renew(&key).await,
            // So that an agent may be newer than its proxy.
            FromNode::Unknown => Ok(()),
        }
    }

    /// Keeps labels until it is time to take them; the last ones that were said in between count.
    async fn note_labels(&mut self, labels: BTreeMap<String, String>) -> Result<(), Gone> {
        match said_labels(labels) {
            Ok(labels) => {
                self.labels = Some(labels);
                Ok(())
            }
            Err(wrong) => self.refuse(clean(&wrong.to_string()).into_owned()).await,
        }
    }

    async fn take_labels(&mut self) -> Result<(), Gone> {
        if let Err(due) = self.door.turn(Act::Labels) {
            self.labels_due = due;
            return Ok(());
        }
        let Some(labels) = self.labels.take() else {
            return Ok(());
        };
        let said = self.door.proxy.state.node_says(self.own(), labels).await;
        match said {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(clean(&error.to_string()).into_owned()).await,
        }
    }

    async fn renew(&mut self, key: &str) -> Result<(), Gone> {
        if self.door.turn(Act::Renewal).is_err() {
            return self.refuse(say::AGENT_RENEWS_TOO_OFTEN.to_owned()).await;
        }
        match self.renewed_certificate(key).await {
            Ok(certificate) => self.say(&FromProxy::HostCertificate { certificate }).await,
            Err(why) => self.refuse(clean(&why).into_owned()).await,
        }
    }

    async fn renewed_certificate(&self, key: &str) -> Result<String, String> {
        let checked = crate::admin::one_host_key(key)?;
        let subject = PublicKey::from_openssh(&checked).map_err(|error| error.to_string())?;
        let new = HostKey::of(&subject).ok_or_else(|| OwnError::Unusable.to_string())?;
        let proxy = &self.door.proxy;
        let names = self.door.certified_names().await;
        let names = names.map_err(|error| error.to_string())?;
        // From the commit on this connection is made with the new key, whatever is looked at first.
        let own = self.own();
        self.tunnel.expect_key(Some(new));
        let renewed = proxy
            .state
            .renew_host_certificate(own, subject, names)
            .await;
        match renewed {
            Ok(certificate) => {
                self.tunnel.take_expected_key();
                Ok(certificate.to_openssh().trim().to_owned())
            }
            Err(error) => {
                self.tunnel.expect_key(None);
                Err(error.to_string())
            }
        }
    }

    fn own(&self) -> OwnConnection {
        OwnConnection {
            node: self.door.arrival.node,
            key: self.tunnel.key(),
            from: self.door.from,
        }
    }

    async fn refuse(&mut self, why: String) -> Result<(), Gone> {
        if self.door.turn(Act::Refusal).is_ok() {
            let entry = Entry::failed(Event::NodeTunnel, &why).state("refused");
            self.door.log_later(self.door.about(entry));
        }
        self.say(&FromProxy::Refused { why }).await
    }

    async fn say(&self, message: &FromProxy) -> Result<(), Gone> {
        self.tell(written(message)).await
    }

    async fn tell(&self, line: Line) -> Result<(), Gone> {
        let Some(line) = line else { return Ok(()) };
        match timeout(READING, self.outbox.data(line)).await {
            Ok(told) => told,
            Err(_) => Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_too_long_ones_are_passed_over_without_being_kept() {
        let mut heard = Heard::default();
        assert!(heard.lines(b"{\"a\":").is_empty());
        let whole = |text: &str| OneLine::Whole(text.as_bytes().to_vec());
        assert_eq!(heard.lines(b"1}\n\nx"), [whole("{\"a\":1}"), whole("")]);
        assert_eq!(heard.lines(b"\n"), [whole("x")]);
        let part = vec![b'x'; LONGEST_HEARD];
        for _ in 0..100 {
            assert!(heard.lines(&part).is_empty());
            assert!(heard.line.len() <= LONGEST_HEARD);
        }
        assert_eq!(heard.lines(b"\nok\n"), [OneLine::TooLong, whole("ok")]);
    }
}
