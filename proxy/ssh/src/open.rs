//! Opening channels at the peer.

use russh::ChannelOpenFailure;

use super::channel::Channel;

/// Why a channel could not be opened at the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// `SSH_OPEN_ADMINISTRATIVELY_PROHIBITED` (RFC 4254 section 5.1).
    #[error("the peer forbids it")]
    Prohibited,
    /// `SSH_OPEN_CONNECT_FAILED`.
    #[error("the peer could not connect")]
    ConnectFailed,
    /// `SSH_OPEN_UNKNOWN_CHANNEL_TYPE`.
    #[error("the peer does not know this type of channel")]
    UnknownType,
    /// `SSH_OPEN_RESOURCE_SHORTAGE`.
    #[error("the peer has no resources left")]
    ResourceShortage,
    /// A code that RFC 4254 does not define.
    #[error("the peer refused with code {0}")]
    Other(u32),
    /// The connection is over.
    #[error("the connection is closed")]
    Gone,
}

impl From<russh::Error> for OpenError {
    fn from(error: russh::Error) -> Self {
        let russh::Error::ChannelOpenFailure(failure) = error else {
            return OpenError::Gone;
        };
        match failure {
            ChannelOpenFailure::AdministrativelyProhibited => OpenError::Prohibited,
            ChannelOpenFailure::ConnectFailed => OpenError::ConnectFailed,
            ChannelOpenFailure::UnknownChannelType => OpenError::UnknownType,
            ChannelOpenFailure::ResourceShortage => OpenError::ResourceShortage,
            ChannelOpenFailure::Other { code, .. } => OpenError::Other(code),
        }
    }
}

/// Runs an opening in a task of its own. If the caller stops waiting, the channel
/// is claimed nevertheless when the peer confirms it, and closed by being dropped;
/// otherwise it would stay open without an owner.
pub(super) async fn claim(
    opening: impl Future<Output = Result<Channel, OpenError>> + Send + 'static,
) -> Result<Channel, OpenError> {
    tokio::spawn(opening).await.unwrap_or(Err(OpenError::Gone))
}
