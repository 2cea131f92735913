//! The control channel of a node agent.

use super::TunnelDoor;
use anteroom_ssh::Channel;

pub(super) async fn serve(_door: &TunnelDoor, channel: Channel) {
    channel.outbox.close().await;
}
