//! One connection: who it is, and what is done with what it opens.

use std::sync::Arc;

use anteroom_ca::node::{self, Conditions, VerifiedAccess};
use anteroom_ssh::{Answer, ChannelRequest, Connection, OpenRefusal, Opening, TcpTarget, Verdict};
use ssh_key::{Certificate, PublicKey};
use time::OffsetDateTime;
use tracing::{info, warn};

use super::account::{self, Account};
use super::{Peer, Server, Trusted};

/// Bytes of somebody's text in a line of the log.
const LONGEST_SHOWN: usize = 256;

/// The agent's side of one connection.
pub(super) struct Front {
    number: u64,
    peer: Peer,
    trusted: Arc<Trusted>,
    #[expect(dead_code, reason = "sessions are the next step")]
    server: Arc<Server>,
    proven: Option<Login>,
}

/// Who logged in.
pub(super) struct Login {
    #[expect(dead_code, reason = "sessions are the next step")]
    pub(super) account: Account,
    pub(super) access: VerifiedAccess,
}

impl Front {
    pub(super) fn new(number: u64, peer: Peer, trusted: Arc<Trusted>, server: Arc<Server>) -> Self {
        Self {
            number,
            peer,
            trusted,
            server,
            proven: None,
        }
    }

    fn verified(&self, user: &str, certificate: &Certificate) -> Result<Login, String> {
        let blob = certificate.to_bytes().map_err(|error| error.to_string())?;
        let now = OffsetDateTime::now_utc();
        let trust = &self.trusted.trust;
        let conditions = Conditions {
            node: trust.node_id,
            login: user,
            authorities: &trust.node_ca,
            revoked: &trust.revoked,
            now,
            from: self.peer.remote.ip(),
        };
        let access = node::verify(&blob, &conditions).map_err(|error| error.to_string())?;
        let account = account::find(user, now.unix_timestamp().div_euclid(86_400))
            .map_err(|error| error.to_string())?;
        Ok(Login { account, access })
    }
}

impl anteroom_ssh::Front for Front {
    fn key_offered(&mut self, _: &str, _: &PublicKey) -> Verdict {
        // Of a certificate this is the embedded key, so any may be the right one; nothing changes on it.
        Verdict::Accept
    }

    fn key_proven(&mut self, _: &str, _: &PublicKey) -> Verdict {
        Verdict::Reject
    }

    fn certificate_proven(&mut self, user: &str, certificate: &Certificate) -> Verdict {
        let key_id = shown(certificate.key_id());
        // A database of users on the network may take its time. There is no channel yet that would wait.
        match self.verified(user, certificate) {
            Ok(login) => {
                info!(
                    connection = self.number,
                    login = user,
                    peer = %self.peer.remote,
                    serial = login.access.serial(),
                    "accepted the certificate of {key_id}"
                );
                self.proven = Some(login);
                Verdict::Accept
            }
            Err(why) => {
                warn!(
                    connection = self.number,
                    login = shown(user),
                    peer = %self.peer.remote,
                    "refused the certificate of {key_id}: {why}"
                );
                Verdict::Reject
            }
        }
    }

    fn user_changed(&mut self, _: &str) {
        self.proven = None;
    }

    fn authenticated(&mut self, _: Connection) {}

    fn session(&mut self, opening: Opening) {
        refuse(opening);
    }

    fn direct_tcpip(&mut self, _: TcpTarget, opening: Opening) {
        refuse(opening);
    }

    fn request(&mut self, _: &ChannelRequest) -> Answer {
        Answer::Failure
    }
}

fn refuse(opening: Opening) {
    tokio::spawn(opening.reject(OpenRefusal::Prohibited("not served yet".to_owned())));
}

/// Somebody's text as it may stand in a line of the log.
pub(super) fn shown(text: &str) -> String {
    let cut = text.chars().take(LONGEST_SHOWN);
    format!("`{}`", cut.flat_map(char::escape_debug).collect::<String>())
}
