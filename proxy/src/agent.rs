//! What is said to an ssh-agent: which keys it holds, one more with its certificate, one less, and a signature
//! by one of them.
//!
//! The messages are those of `draft-ietf-sshm-ssh-agent`, as OpenSSH's `PROTOCOL.agent` has them. An agent
//! belongs to somebody else and may be anything: every answer has a bound in size and time, and an agent that
//! does not take a lifetime is not given the key without one.

use std::time::Duration;

use ssh_key::PrivateKey;
use ssh_key::private::Ed25519Keypair;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

const FAILURE: u8 = 5;
const SUCCESS: u8 = 6;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const REMOVE_IDENTITY: u8 = 18;
const ADD_ID_CONSTRAINED: u8 = 25;
const CONSTRAIN_LIFETIME: u8 = 1;

const ED25519: &str = "ssh-ed25519";
const ED25519_CERT: &str = "ssh-ed25519-cert-v01@openssh.com";

/// The longest answer that is read, as in OpenSSH (`AGENT_MAX_LEN`).
const LONGEST_ANSWER: usize = 256 << 10;

/// How long an answer may take: some agents ask a person, who has to find the window first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Keys of an agent that are looked at. A person has a dozen; the rest would be an agent that plays games.
const MOST_IDENTITIES: usize = 1024;

/// Why an agent did not do what it was asked.
#[derive(Debug, Error)]
pub enum AgentError {
    /// `SSH_AGENT_FAILURE`: the protocol has no reasons.
    #[error("it refused")]
    Refused,
    /// It is gone.
    #[error("it went away")]
    Gone,
    /// No answer within a minute.
    #[error("it did not answer within {} seconds", PATIENCE.as_secs())]
    TooSlow,
    /// An answer that is too long, cut short, or of another kind.
    #[error("what it answered is not the agent protocol")]
    Malformed,
}

/// A key that an agent holds, or a certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The public key or the certificate, binary.
    pub blob: Vec<u8>,
    /// What it was called when it was added; untrusted.
    pub comment: String,
}

/// An agent at the other end of a stream.
#[derive(Debug)]
pub struct Agent<S> {
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Agent<S> {
    /// Speaks to the agent behind `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    /// What it holds. A locked agent of OpenSSH says that it holds nothing.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn identities(&mut self) -> Result<Vec<Held>, AgentError> {
        let answer = self.ask(&[REQUEST_IDENTITIES]).await?;
        let mut rest = match answer.split_first() {
            Some((&IDENTITIES_ANSWER, rest)) => rest,
            Some((&FAILURE, _)) => return Err(AgentError::Refused),
            Some(_) | None => return Err(AgentError::Malformed),
        };
        let count = usize::try_from(number(&mut rest)?).unwrap_or(usize::MAX);
        let mut held = Vec::new();
        for _ in 0..count.min(MOST_IDENTITIES) {
            let (blob, comment) = (string(&mut rest)?.to_vec(), string(&mut rest)?);
            let comment = String::from_utf8_lossy(comment).into_owned();
            held.push(Held { blob, comment });
        }
        Ok(held)
    }

    /// Adds an Ed25519 key for `lifetime` seconds: as a plain key, or together with its certificate.
    ///
    /// # Errors
    /// [`AgentError`]; also for a key of another type, which is refused without asking.
    pub async fn add(
        &mut self,
        key: &PrivateKey,
        certificate: Option<&[u8]>,
        comment: &str,
        lifetime: u32,
    ) -> Result<(), AgentError> {
        let pair = key.key_data().ed25519().ok_or(AgentError::Refused)?;
        let message = add_message(pair, certificate, comment, lifetime);
        self.done(&message).await
    }

    /// Removes a key or certificate.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn remove(&mut self, blob: &[u8]) -> Result<(), AgentError> {
        let mut message = vec![REMOVE_IDENTITY];
        put(&mut message, blob);
        self.done(&message).await
    }

    /// Has the key of this public half sign a message; the answer is the signature as it came. `flags`
    /// say with which hash an RSA key signs.
    ///
    /// # Errors
    /// [`AgentError`]; [`AgentError::Refused`] also if it does not hold the key.
    pub async fn sign(
        &mut self,
        blob: &[u8],
        message: &[u8],
        flags: u32,
    ) -> Result<Vec<u8>, AgentError> {
        let mut request = vec![SIGN_REQUEST];
        put(&mut request, blob);
        put(&mut request, message);
        request.extend_from_slice(&flags.to_be_bytes());
        let answer = self.ask(&request).await?;
        match answer.split_first() {
            Some((&SIGN_RESPONSE, mut rest)) => Ok(string(&mut rest)?.to_vec()),
            Some((&FAILURE, _)) => Err(AgentError::Refused),
            Some(_) | None => Err(AgentError::Malformed),
        }
    }

    async fn done(&mut self, message: &[u8]) -> Result<(), AgentError> {
        match self.ask(message).await?.first() {
            Some(&SUCCESS) => Ok(()),
            // OpenSSH answers an unknown message with 5 as well; some agents with other numbers.
            Some(_) => Err(AgentError::Refused),
            None => Err(AgentError::Malformed),
        }
    }

    async fn ask(&mut self, message: &[u8]) -> Result<Vec<u8>, AgentError> {
        tokio::time::timeout(PATIENCE, self.exchange(message))
            .await
            .unwrap_or(Err(AgentError::TooSlow))
    }

    async fn exchange(&mut self, message: &[u8]) -> Result<Vec<u8>, AgentError> {
        let length = u32::try_from(message.len()).map_err(|_| AgentError::Malformed)?;
        let mut frame = Zeroizing::new(Vec::with_capacity(4 + message.len()));
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(message);
        let gone = |_| AgentError::Gone;
        self.stream.write_all(&frame).await.map_err(gone)?;
        self.stream.flush().await.map_err(gone)?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.map_err(gone)?;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > LONGEST_ANSWER {
            return Err(AgentError::Malformed);
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer).await.map_err(gone)?;
        Ok(answer)
    }
}

/// `SSH_AGENTC_ADD_ID_CONSTRAINED`. Sized before it is written, so that no copy of the key is left behind by
/// a buffer that had to grow.
fn add_message(
    pair: &Ed25519Keypair,
    certificate: Option<&[u8]>,
    comment: &str,
    lifetime: u32,
) -> Zeroizing<Vec<u8>> {
    let secret = Zeroizing::new(pair.to_bytes());
    let blob = certificate.map_or(0, <[u8]>::len);
    let mut message = Zeroizing::new(Vec::with_capacity(256 + blob + comment.len()));
    message.push(ADD_ID_CONSTRAINED);
    match certificate {
        Some(certificate) => {
            put(&mut message, ED25519_CERT.as_bytes());
            put(&mut message, certificate);
        }
        None => put(&mut message, ED25519.as_bytes()),
    }
    put(&mut message, pair.public.as_ref());
    put(&mut message, &*secret);
    put(&mut message, comment.as_bytes());
    message.push(CONSTRAIN_LIFETIME);
    message.extend_from_slice(&lifetime.to_be_bytes());
    message
}

/// Appends a `string` (RFC 4251 section 5). What is appended here is far from 4 GiB.
fn put(message: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(bytes);
}

fn number(rest: &mut &[u8]) -> Result<u32, AgentError> {
    let (bytes, after) = rest.split_first_chunk().ok_or(AgentError::Malformed)?;
    *rest = after;
    Ok(u32::from_be_bytes(*bytes))
}

fn string<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], AgentError> {
    let length = usize::try_from(number(rest)?).unwrap_or(usize::MAX);
    let (bytes, after) = rest.split_at_checked(length).ok_or(AgentError::Malformed)?;
    *rest = after;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;
    use crate::keys;

    /// An agent that gives these answers, whatever it is asked, and hands back what it was asked.
    async fn answering(
        answers: &[&[u8]],
    ) -> (
        Agent<tokio::io::DuplexStream>,
        tokio::task::JoinHandle<Vec<Vec<u8>>>,
    ) {
        let (ours, mut theirs) = duplex(1 << 20);
        let answers: Vec<Vec<u8>> = answers.iter().map(|answer| answer.to_vec()).collect();
        let agent = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let length = theirs.read_u32().await.unwrap();
                let mut message = vec![0; length as usize];
                theirs.read_exact(&mut message).await.unwrap();
                asked.push(message);
                theirs.write_all(&answer).await.unwrap();
            }
            asked
        });
        (Agent::new(ours), agent)
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut frame = (message.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(message);
        frame
    }

    #[tokio::test]
    async fn a_key_is_added_with_its_lifetime_and_never_without() {
        let key = keys::ephemeral();
        let yes = framed(&[SUCCESS]);
        let (mut agent, asked) = answering(&[&yes, &yes]).await;
        agent.add(&key, Some(b"cert"), "c", 90).await.unwrap();
        agent.add(&key, None, "c", 90).await.unwrap();
        for message in asked.await.unwrap() {
            assert_eq!(message[0], ADD_ID_CONSTRAINED);
            assert!(message.ends_with(&[CONSTRAIN_LIFETIME, 0, 0, 0, 90]));
        }
    }

    #[tokio::test]
    async fn what_an_agent_holds_is_read_and_nonsense_is_refused() {
        let mut list = vec![IDENTITIES_ANSWER, 0, 0, 0, 1];
        put(&mut list, b"blob");
        put(&mut list, b"mine");
        let (mut agent, _) = answering(&[&framed(&list)]).await;
        let held = Held {
            blob: b"blob".to_vec(),
            comment: "mine".to_owned(),
        };
        assert_eq!(agent.identities().await.unwrap(), [held]);
        let many = [IDENTITIES_ANSWER, 0xff, 0xff, 0xff, 0xff];
        for nonsense in [
            framed(&list[..list.len() - 1]),
            framed(&many),
            framed(&[IDENTITIES_ANSWER]),
            framed(&[SUCCESS]),
            framed(&[]),
            vec![0xff; 4],
        ] {
            let (mut agent, _) = answering(&[&nonsense]).await;
            let error = agent.identities().await.unwrap_err();
            assert!(
                matches!(error, AgentError::Malformed),
                "{nonsense:?}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn an_agent_that_refuses_or_goes_away_is_said_to() {
        let key = keys::ephemeral();
        for no in [FAILURE, 30, 102] {
            let (mut agent, _) = answering(&[&framed(&[no])]).await;
            let error = agent.add(&key, None, "c", 1).await.unwrap_err();
            assert!(matches!(error, AgentError::Refused), "{no}: {error}");
        }
        let (mut agent, _) = answering(&[]).await;
        let error = agent.add(&key, None, "c", 1).await.unwrap_err();
        assert!(matches!(error, AgentError::Gone), "{error}");
    }
}
