//! Signatures from an ssh-agent that holds an authority's key (draft-ietf-sshm-ssh-agent), and with it from
//! hardware tokens that the agent speaks to.
//!
//! An agent may wait for a person (`ssh-add -c`) or a token, may be gone, or may answer nonsense: every wait
//! and every length here is bounded, and no signature is passed on that was not verified. Each one is asked
//! for on a connection of its own, so that an agent that was restarted serves the next one.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anteroom_ca::authority::{Signed, ToSign, WrongSignature};
use ssh_key::{PublicKey, Signature};
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::print;
use crate::agent::{Agent, AgentError};

/// How long one signature may take, waiting for others included: time for a person to touch a token or to
/// confirm, and half of what an access certificate lives.
const PATIENCE: Duration = Duration::from_secs(30);

/// Signatures asked for at a time. A token makes one after the other anyway; more would only make more of
/// its connections wait in the agent.
const AT_A_TIME: usize = 8;

/// RSA with SHA-512 (RFC 8332): without a flag an agent signs with SHA-1.
const RSA_SHA2_512: u32 = 4;

/// An agent that holds authorities' keys, by its socket.
pub struct CaAgent {
    socket: PathBuf,
    patience: Duration,
    places: Semaphore,
}

impl CaAgent {
    /// The agent that listens on `socket`. Nothing is asked yet.
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            patience: PATIENCE,
            places: Semaphore::new(AT_A_TIME),
        }
    }

    /// Has the agent sign.
    ///
    /// # Errors
    /// [`CaAgentError`], within 30 seconds.
    pub async fn sign(&self, wanted: ToSign) -> Result<Signed, CaAgentError> {
        let asking = async {
            // It is never closed: waiting for it can't fail.
            let _place = self.places.acquire().await.ok();
            self.ask_for(wanted).await
        };
        tokio::time::timeout(self.patience, asking)
            .await
            .unwrap_or_else(|_| Err(self.error(Why::TooSlow)))
    }

    async fn ask_for(&self, wanted: ToSign) -> Result<Signed, CaAgentError> {
        let key = wanted.authority().clone();
        let blob = key.to_bytes().map_err(|_| self.error(Why::Nonsense))?;
        let flags = if key.algorithm().is_rsa() {
            RSA_SHA2_512
        } else {
            0
        };
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|error| self.error(Why::Unreachable(error)))?;
        let mut agent = Agent::new(stream);
        let answer = match agent.sign(&blob, wanted.message(), flags).await {
            Ok(answer) => answer,
            Err(AgentError::Refused) => {
                let held = agent
                    .identities()
                    .await
                    .map_err(|error| self.failed(error))?;
                return Err(self.error(match held.iter().any(|held| held.blob == blob) {
                    true => Why::Refused(key),
                    false => Why::NoSuchKey(key),
                }));
            }
            Err(error) => return Err(self.failed(error)),
        };
        let signature = Signature::try_from(answer.as_slice());
        let signature = signature.map_err(|_| self.error(Why::Nonsense))?;
        wanted
            .signed(signature)
            .map_err(|wrong| self.error(Why::Wrong(wrong)))
    }

    fn failed(&self, error: AgentError) -> CaAgentError {
        self.error(match error {
            AgentError::Gone => Why::Gone,
            AgentError::TooSlow => Why::TooSlow,
            // It may not say what it holds, either.
            AgentError::Refused | AgentError::Malformed => Why::Nonsense,
        })
    }

    fn error(&self, why: Why) -> CaAgentError {
        CaAgentError {
            socket: self.socket.clone(),
            why,
        }
    }
}

impl fmt::Debug for CaAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaAgent({})", self.socket.display())
    }
}

/// Why an agent gave no signature.
#[derive(Debug, Error)]
#[error("the ssh-agent at `{}` {why}", socket.display())]
pub struct CaAgentError {
    socket: PathBuf,
    why: Why,
}

#[derive(Debug, Error)]
enum Why {
    #[error("cannot be asked: {0}; start it, and load the key with `ssh-add`")]
    Unreachable(io::Error),
    #[error("went away before it signed; start it, and load the key with `ssh-add`")]
    Gone,
    #[error(
        "did not sign within {} seconds; does it wait for somebody to confirm, or for a token?",
        PATIENCE.as_secs()
    )]
    TooSlow,
    #[error("does not have the key {}; load it with `ssh-add`", print(.0))]
    NoSuchKey(PublicKey),
    #[error(
        "has the key {} and did not sign: it was not confirmed, the agent is locked, or its token is away",
        print(.0)
    )]
    Refused(PublicKey),
    #[error("answered something that is no answer")]
    Nonsense,
    #[error("answered with a signature that does not verify: {0}")]
    Wrong(WrongSignature),
}

#[cfg(test)]
mod tests {
    use anteroom_ca::key::Key;
    use ssh_key::Algorithm;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    fn wanted() -> ToSign {
        let key = Key::from_seed("ca", &[1; 32]);
        ToSign::new(key.public_key().clone(), b"message".to_vec())
    }

    /// What comes of an agent that answers its questions with these bytes and hangs up.
    async fn asked_of(answers: Vec<Vec<u8>>) -> Result<Signed, CaAgentError> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let length = stream.read_u32().await.unwrap();
                let mut question = vec![0; length as usize];
                stream.read_exact(&mut question).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        let outcome = CaAgent::new(socket).sign(wanted()).await;
        serving.abort();
        outcome
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes(), bytes].concat()
    }

    #[tokio::test]
    async fn nonsense_from_an_agent_is_an_error_and_no_more() {
        let other = Signature::new(Algorithm::Ed25519, [7; 64]).unwrap();
        let other: Vec<u8> = {
            use ssh_key::encoding::Encode;
            let mut bytes = Vec::new();
            other.encode(&mut bytes).unwrap();
            bytes
        };
        let signed = |bytes: &[u8]| string(&[&[14], string(bytes).as_slice()].concat());
        let no = string(&[5]);
        for (answers, why) in [
            (vec![], "went away"),
            (vec![vec![0, 0, 0, 0]], "no answer"),
            (vec![vec![0xff; 8]], "no answer"),
            (vec![string(&[99])], "no answer"),
            (vec![string(&[14])], "no answer"),
            (vec![signed(b"rubbish")], "no answer"),
            (vec![signed(&other)], "does not verify"),
            (vec![no.clone(), string(&[12, 0xff, 0, 0, 0])], "no answer"),
            (vec![no, string(&[12, 0, 0, 0, 0])], "does not have the key"),
        ] {
            let error = asked_of(answers).await.unwrap_err().to_string();
            assert!(error.contains(why), "{why}: {error}");
        }
    }

    #[tokio::test]
    async fn an_agent_that_says_nothing_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let _silent = UnixListener::bind(&socket).unwrap();
        let agent = CaAgent {
            patience: Duration::from_millis(10),
            ..CaAgent::new(socket)
        };
        let error = agent.sign(wanted()).await.unwrap_err();
        assert!(error.to_string().contains("within 30 seconds"), "{error}");
    }
}
