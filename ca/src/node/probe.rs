//! Certificates that are offered and never used: a node is asked whether it would take them.
//!
//! sshd answers a question about a certificate (RFC 4252 section 7, without a signature) as it would decide
//! about a login: by authority, principals, validity and addresses. The key of such a certificate is dropped
//! unused. Should one leave the process all the same it opens nothing: its command is forced to `/bin/false`,
//! and it carries no extension, so no terminal and no forwarding.

use anteroom_core::id::NodeId;
use anteroom_core::policy::ProbePermit;
use rand::CryptoRng;
use ssh_key::PublicKey;

use super::{CertifyError, Terms};
use crate::cert::{Certificate, Class, Draft, NOTHING, Window};
use crate::key::NodeCa;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Would it take what the proxy logs in with?
    AsUsed,
    /// The same for the node with another UUID, which every node has to refuse.
    OfAnotherNode(NodeId),
    /// Would it, if the principal were the login, as sshd wants it where nothing else is configured?
    PlainLogin,
    /// Would it from anywhere?
    AnyAddress,
    /// Would it, if its clock were between these, in seconds from ours? The second is the larger one.
    AtClock(i64, i64),
}

/// Certifies `subject`, a key that is going to be dropped, for a question.
///
/// It lives as an access certificate does, or in the window that is asked about.
///
/// # Errors
/// [`CertifyError::Sign`] if the linter holds it back.
pub fn probe(
    permit: &ProbePermit,
    question: Question,
    subject: &PublicKey,
    terms: &Terms<'_>,
    ca: &NodeCa,
    rng: &mut impl CryptoRng,
) -> Result<Certificate, CertifyError> {
    let (login, own) = (permit.login(), permit.node().id);
    let principal = match question {
        Question::PlainLogin => login.to_string(),
        Question::OfAnotherNode(other) => format!("{login}@{other}"),
        Question::AsUsed | Question::AnyAddress | Question::AtClock(..) => format!("{login}@{own}"),
    };
    let addresses = match question {
        Question::AnyAddress => ANYWHERE.to_owned(),
        Question::AsUsed
        | Question::OfAnotherNode(_)
        | Question::PlainLogin
        | Question::AtClock(..) => terms.source_addresses.to_string(),
    };
    let window = match question {
        Question::AtClock(from, until) => Window { from, until },
        Question::AsUsed
        | Question::OfAnotherNode(_)
        | Question::PlainLogin
        | Question::AnyAddress => Window {
            from: -60,
            until: 60,
        },
    };
    let until = terms.at.now() + time::Duration::seconds(window.until);
    let draft = Draft {
        class: Class::Probe(window),
        subject,
        serial: terms.serial,
        key_id: format!("{} check sess={}", permit.by(), terms.session),
        principals: vec![principal],
        valid_before: until,
        source_address: Some(addresses),
        force_command: Some(NOTHING.to_owned()),
        extensions: Vec::new(),
    };
    Ok(draft.sign(terms.at, ca.signer(), rng)?)
}

/// Every address, in halves: a block of all of them is refused by the linter, elsewhere with reason.
const ANYWHERE: &str = "0.0.0.0/1,128.0.0.0/1,::/1,8000::/1";
