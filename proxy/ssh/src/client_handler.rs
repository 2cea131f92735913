//! The engine's callbacks for a connection to a node: each one checks, queues and
//! returns.

use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{DisconnectReason, Msg, Session};
use russh::keys::PublicKeyOrCertificate;
use russh::{ChannelId, Sig};
use tokio::sync::mpsc;

use super::channel::{Writer, signal_from};
use super::client::{HostProof, Incoming};
use super::flow::{Flow, Kind, Lane};
use super::opening::{Opening, Reply};
use super::types::{Event, ExitSignal};

/// Longest text of a node that is kept, in bytes.
const MAX_TEXT: usize = 1024;

/// What explains a failure better than the engine's error does.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) refused: bool,
    pub(super) disconnect: Option<String>,
}

pub(super) fn seen(shared: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Handler {
    pub(super) flow: Arc<Flow>,
    pub(super) check: Box<dyn FnMut(&HostProof) -> bool + Send>,
    pub(super) incoming: mpsc::Sender<Incoming>,
    pub(super) seen: Arc<Mutex<Seen>>,
}

/// The engine drops its handler when its loop ends, also by a panic.
impl Drop for Handler {
    fn drop(&mut self) {
        self.flow.end();
    }
}

impl Handler {
    /// Registers a channel that the node opens and queues it; if there is no room
    /// it is dropped, which refuses it.
    fn opening(
        &self,
        channel: russh::Channel<Msg>,
        reply: russh::client::ChannelOpenHandle,
        incoming: impl FnOnce(Opening) -> Incoming,
    ) {
        let half = channel.split().1;
        // INVARIANT: nothing is opened before our login is done.
        if !self.flow.authenticated.is_set() {
            return;
        }
        let Ok(gone) = self.flow.register(half.id().number(), Kind::Stream) else {
            return;
        };
        let flow = Arc::clone(&self.flow);
        let opening = Opening::new(
            flow,
            Kind::Stream,
            Writer::Node(half),
            gone,
            Reply::Node(reply),
        );
        let _ = self.incoming.try_send(incoming(opening));
    }
}

/// At most [`MAX_TEXT`] bytes of a node's words.
fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or_default()
        .to_owned()
}

impl russh::client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        proof: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let proof = match proof {
            PublicKeyOrCertificate::PublicKey { key, .. } => HostProof::Key(key.clone()),
            PublicKeyOrCertificate::Certificate(certificate) => {
                HostProof::Certificate(Box::new(certificate.clone()))
            }
        };
        let trusted = (self.check)(&proof);
        seen(&self.seen).refused = !trusted;
        Ok(trusted)
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                seen(&self.seen).disconnect = Some(cut(&said.message));
                Ok(())
            }
            DisconnectReason::Error(error) => Err(error),
        }
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        // Its first bytes may arrive before the opener has run.
        // The kind matters to the opener only.
        self.flow.adopt(id.number(), Kind::Stream);
        Ok(())
    }

    async fn data(
        &mut self,
        channel: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        // Never an overrun: the connection is not read while much is queued.
        let _ = self.flow.push_bytes(channel.number(), Lane::Main, data);
        Ok(())
    }

    async fn extended_data(
        &mut self,
        channel: ChannelId,
        code: u32,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        // SSH_EXTENDED_DATA_STDERR is the only code there is (RFC 4254 section 5.2).
        if code == 1 {
            let _ = self.flow.push_bytes(channel.number(), Lane::Stderr, data);
        }
        Ok(())
    }

    async fn channel_eof(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.flow.push(channel.number(), Event::Eof);
        Ok(())
    }

    async fn channel_close(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.flow.closed_by_peer(channel.number());
        Ok(())
    }

    async fn channel_success(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(kind) = self.flow.answered(channel.number()) {
            self.flow.push(channel.number(), Event::NodeAccepted(kind));
        }
        Ok(())
    }

    async fn channel_failure(
        &mut self,
        channel: ChannelId,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(kind) = self.flow.answered(channel.number()) {
            self.flow.push(channel.number(), Event::NodeRefused(kind));
        }
        Ok(())
    }

    async fn exit_status(
        &mut self,
        channel: ChannelId,
        status: u32,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.flow.push(channel.number(), Event::ExitStatus(status));
        Ok(())
    }

    async fn exit_signal(
        &mut self,
        channel: ChannelId,
        signal: Sig,
        core_dumped: bool,
        message: &str,
        _: &str,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        if let Some(signal) = signal_from(&signal) {
            let message = cut(message);
            let event = Event::ExitSignal(ExitSignal {
                signal,
                core_dumped,
                message,
            });
            self.flow.push(channel.number(), event);
        }
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        channel: russh::Channel<Msg>,
        reply: russh::client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.opening(channel, reply, Incoming::Agent);
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        channel: russh::Channel<Msg>,
        address: &str,
        port: u32,
        originator_host: &str,
        originator_port: u32,
        reply: russh::client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let (address, originator_host) = (cut(address), cut(originator_host));
        self.opening(channel, reply, |opening| Incoming::ForwardedTcpip {
            address,
            port,
            originator_host,
            originator_port,
            opening,
        });
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        channel: russh::Channel<Msg>,
        originator_host: &str,
        originator_port: u32,
        reply: russh::client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        let originator_host = cut(originator_host);
        self.opening(channel, reply, |opening| Incoming::X11 {
            originator_host,
            originator_port,
            opening,
        });
        Ok(())
    }

    // A node has no business opening any other kind. The engine's defaults accept
    // them; dropping the reply refuses.

    async fn server_channel_open_session(
        &mut self,
        _: russh::Channel<Msg>,
        _: russh::client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        _: russh::client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        _: russh::client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: russh::Channel<Msg>,
        _: &str,
        _: russh::client::ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        Ok(())
    }
}
