//! Offering certificates without ever logging in: what a server says to the question of RFC 4252
//! section 7 whether a certificate would do. Nothing is signed, so nobody gets in.

use russh::MethodKind;
use russh::client::AuthResult;
use russh::keys::agent::AgentIdentity;
use ssh_key::{Certificate, HashAlg};
use tokio::io::{AsyncRead, AsyncWrite};

use super::algorithms::HostAlgorithms;
use super::client::{ConnectError, Greeted, HostProof, Purpose, greet};

/// A connection to a server whose host key was checked, on which certificates are offered.
///
/// OpenSSH's sshd allows one user name per connection, and `MaxAuthTries` refused offers (6 by default).
pub struct Offers {
    greeted: Greeted,
}

/// What a server said to an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It would take the certificate, from whoever holds its key.
    Taken,
    /// It would not.
    Refused,
}

/// A way in, as RFC 4252 and its kin name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// No proof at all.
    None,
    /// Keys and certificates.
    PublicKey,
    /// Passwords.
    Password,
    /// Questions and answers (RFC 4256): passwords by PAM, as a rule.
    KeyboardInteractive,
    /// The word of another host.
    HostBased,
    /// Kerberos (RFC 4462).
    Gssapi,
}

impl Method {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Method::None => "none",
            Method::PublicKey => "publickey",
            Method::Password => "password",
            Method::KeyboardInteractive => "keyboard-interactive",
            Method::HostBased => "hostbased",
            Method::Gssapi => "gssapi-with-mic",
        }
    }
}

impl Offers {
    /// Greets the server over `stream`; everything as in [`connect`](super::connect), without the login.
    pub async fn greet<S>(
        stream: S,
        check: impl FnMut(&HostProof) -> bool + Send + 'static,
        hosts: &HostAlgorithms,
    ) -> Result<Self, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let greeted = greet(stream, check, hosts, Purpose::Session).await?;
        Ok(Offers { greeted })
    }

    /// Which ways in the server has for `login`, by its own words. [`Method::None`] alone: it let us in
    /// without proof, and the connection is good for nothing more.
    pub async fn methods(&mut self, login: &str) -> Result<Vec<Method>, ConnectError> {
        let result = self.greeted.handle.authenticate_none(login).await;
        match self.greeted.outcome(result).await? {
            AuthResult::Success => Ok(vec![Method::None]),
            AuthResult::Failure {
                remaining_methods, ..
            } => Ok(remaining_methods.iter().map(method).collect()),
        }
    }

    /// Whether the server would take `certificate` for `login`.
    pub async fn offer(
        &mut self,
        login: &str,
        certificate: Certificate,
    ) -> Result<Offered, ConnectError> {
        let handle = &mut self.greeted.handle;
        let result = handle
            .authenticate_certificate_with(login, certificate, None, &mut NeverSigns)
            .await;
        let result = match result {
            Err(Unsigned::Asked) => return Ok(Offered::Taken),
            Err(Unsigned::Gone) => Err(russh::Error::SendError),
            Ok(result) => Ok(result),
        };
        match self.greeted.outcome(result).await? {
            // Without a signature no server says so, but one that does takes it.
            AuthResult::Success => Ok(Offered::Taken),
            AuthResult::Failure { .. } => Ok(Offered::Refused),
        }
    }

    /// Leaves, within seconds.
    pub async fn leave(self) {
        self.greeted.goodbye().await;
    }
}

impl std::fmt::Debug for Offers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Offers").finish_non_exhaustive()
    }
}

fn method(kind: &MethodKind) -> Method {
    match kind {
        MethodKind::None => Method::None,
        MethodKind::Password => Method::Password,
        MethodKind::PublicKey => Method::PublicKey,
        MethodKind::HostBased => Method::HostBased,
        MethodKind::KeyboardInteractive => Method::KeyboardInteractive,
        MethodKind::GssapiWithMic => Method::Gssapi,
    }
}

/// It is asked for a signature when the server would take what was offered, and gives none. It has no
/// key to give one with.
struct NeverSigns;

/// Why there is no signature.
enum Unsigned {
    Asked,
    Gone,
}

impl From<russh::SendError> for Unsigned {
    fn from(_: russh::SendError) -> Self {
        Unsigned::Gone
    }
}

impl russh::Signer for NeverSigns {
    type Error = Unsigned;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, Unsigned> {
        Err(Unsigned::Asked)
    }
}
