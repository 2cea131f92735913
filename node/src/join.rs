//! `anteroom node join`: a token becomes a registered node.
//!
//! The proxy must be known before the token is sent to it. The token goes over standard input of the remote
//! command, never into an argument; no error and no log has it. What comes back is checked as a whole before
//! anything is stored, and stored as a whole.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anteroom_ca::host::{self, HostExpectation, PresentedHost};
use anteroom_ca::key::Key;
use anteroom_core::id::{NodeId, NodeName};
use anteroom_core::node::NodeAddr;
use anteroom_ssh::{
    ChannelRequest, ConnectError, Credential, Event, NodeConnection, Purpose, connect_as, prepare,
};
use base64ct::{Base64UrlUnpadded, Encoding};
use ssh_key::{Certificate, Fingerprint, PrivateKey, PublicKey};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::dir::{DirError, StateDir};
use crate::identity::{Identity, IdentityError, Proxy, authorities};
use crate::known::{Known, Shown};
use crate::krl::Krl;
use crate::labels::Labels;
use crate::protocol::{Joined, LONGEST_LINE};
use crate::text::clean;

/// The user that nodes enrol as.
const ENROL: &str = "enroll";

/// Connecting and logging in.
const STEP: Duration = Duration::from_secs(10);

/// Until the proxy has answered: it may have to wait for its database.
const ANSWER: Duration = Duration::from_secs(30);

/// Bytes of what a proxy may say about a refusal.
const LONGEST_WORDS: usize = 4096;

/// A token is a word of this many bytes at most.
const LONGEST_TOKEN: usize = 1024;

/// What `node join` is told.
#[derive(Debug)]
pub struct Join {
    /// Where the proxies are; the first that answers is asked.
    pub proxies: Vec<NodeAddr>,
    /// How the proxy is known.
    pub known: Pin,
    /// What lets this node in, once.
    pub token: Token,
    /// What people will call it.
    pub name: NodeName,
    /// What it says of itself.
    pub labels: Labels,
    /// Where its identity is kept.
    pub dir: PathBuf,
    /// What to do where there is an identity already.
    pub again: Again,
}

/// How the proxy is known at a join.
#[derive(Debug, Clone)]
pub enum Pin {
    /// By its host key, or by the key's fingerprint.
    Key(Known),
    /// By a certificate of one of these host CAs for the host that it is reached at.
    HostCa(Vec<PublicKey>),
}

/// Whether a node that has joined may join again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It stays what it is.
    Keep,
    /// It becomes a new node; the old one stays registered until it is removed at the proxy.
    Anew,
}

/// A join token. A secret: it is neither shown nor kept.
pub struct Token(Zeroizing<String>);

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Nothing.
    #[error("the token is empty")]
    Empty,
    /// It can't be one.
    #[error("a token is one word of at most 1024 visible characters")]
    Form,
}

impl Token {
    /// Takes a token, with white space around it, as a file has it.
    ///
    /// # Errors
    /// [`TokenError`], without the text.
    pub fn parse(text: &Zeroizing<String>) -> Result<Token, TokenError> {
        let word = text.trim();
        if word.is_empty() {
            return Err(TokenError::Empty);
        }
        if word.len() > LONGEST_TOKEN || !word.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Form);
        }
        Ok(Token(Zeroizing::new(word.to_owned())))
    }

    /// The fingerprint of the proxy's host key, which stands behind the secret and a dot.
    #[must_use]
    pub fn pin(&self) -> Option<Fingerprint> {
        let (_, pin) = self.0.split_once('.')?;
        let hash = Base64UrlUnpadded::decode_vec(pin).ok()?;
        Some(Fingerprint::Sha256(hash.try_into().ok()?))
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What came of a join.
#[derive(Debug)]
pub enum Outcome {
    /// It is a node now.
    Joined(Identity),
    /// It was one before, and nothing was done.
    Already(Identity),
}

/// Why a node did not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The directory.
    #[error(transparent)]
    Dir(#[from] DirError),
    /// No proxy answered.
    #[error("no proxy could be reached: {0}")]
    Unreachable(String),
    /// Something else than the proxy answered, or its host key is another now.
    #[error("{proxy} was not trusted, and the token was not sent: {why}")]
    NotTrusted {
        /// Which.
        proxy: NodeAddr,
        /// Why.
        why: String,
    },
    /// The proxy said no.
    #[error("the proxy refused: {why}")]
    Refused {
        /// In its words, cleaned.
        why: String,
        /// With this exit status.
        status: u32,
    },
    /// The proxy broke off.
    #[error(
        "the proxy gave no answer ({0}); run the same command again: the token is not used up for this key"
    )]
    NoAnswer(String),
    /// The answer makes no sense.
    #[error("the proxy's answer was not taken: {0}")]
    Answer(String),
}

/// Joins, or says that it was done before.
///
/// # Errors
/// [`JoinError`]; what was there before is still there then.
pub async fn join(join: &Join) -> Result<Outcome, JoinError> {
    let dir = StateDir::create(&join.dir)?;
    match (dir.load(), join.again) {
        (Ok(Some(identity)), Again::Keep) => return Ok(Outcome::Already(identity)),
        (Err(error), Again::Keep) => return Err(error.into()),
        // What cannot be read is replaced, as was asked for.
        (Ok(_) | Err(_), Again::Anew) | (Ok(None), Again::Keep) => {}
    }
    let key = dir.joining_key(|| Key::generate(join.name.as_str(), &mut rand::rng()))?;
    let mut why = String::new();
    for proxy in &join.proxies {
        match ask(join, proxy, &key).await {
            // Another one may be better off; to what was said by one of them, the others would agree.
            Err(JoinError::Unreachable(reason)) => why = reason,
            Err(error) => return Err(error),
            Ok((joined, shown)) => {
                let identity = identity(join, proxy, key, &joined, &shown)?;
                dir.store(&identity)?;
                dir.joined()?;
                return Ok(Outcome::Joined(identity));
            }
        }
    }
    Err(JoinError::Unreachable(why))
}

async fn ask(
    join: &Join,
    proxy: &NodeAddr,
    key: &PrivateKey,
) -> Result<(Joined, Shown), JoinError> {
    let unreachable = |why: String| JoinError::Unreachable(format!("{proxy}: {why}"));
    let (host, port) = proxy
        .dialled()
        .ok_or_else(|| unreachable("it is no address".to_owned()))?;
    let tcp = timeout(STEP, TcpStream::connect((host, port))).await;
    let tcp = tcp
        .map_err(|_| unreachable("no answer within 10 seconds".to_owned()))?
        .map_err(|error| unreachable(error.to_string()))?;
    prepare(&tcp).map_err(|error| unreachable(error.to_string()))?;
    let known = match &join.known {
        Pin::Key(known) => known.clone(),
        Pin::HostCa(trusted) => Known::Authority {
            trusted: trusted.clone(),
            name: host.to_owned(),
        },
    };
    let algorithms = known.algorithms();
    let (check, shown) = known.check();
    let connected = connect_as(
        tcp,
        check,
        &algorithms,
        ENROL,
        Credential::Nothing,
        Purpose::Session,
    );
    let connected = timeout(STEP, connected).await;
    let connection = connected
        .map_err(|_| unreachable("no SSH server answers within 10 seconds".to_owned()))?
        .map_err(|error| refused(&error, proxy, &shown))?;
    let answer = timeout(ANSWER, exchange(&connection, join, key.public_key())).await;
    connection.disconnect().await;
    let answer =
        answer.map_err(|_| JoinError::NoAnswer("none within half a minute".to_owned()))??;
    Ok((answer, shown))
}

fn refused(error: &ConnectError, proxy: &NodeAddr, shown: &Shown) -> JoinError {
    match error {
        ConnectError::HostRefused | ConnectError::NoCommonAlgorithm(_) => JoinError::NotTrusted {
            proxy: proxy.clone(),
            why: shown.refusal().unwrap_or_else(|| error.to_string()),
        },
        ConnectError::CertificateRefused => JoinError::Refused {
            why: format!(
                "{proxy} expects no node now: there is no token, or it is no Anteroom proxy; make one with `tokens add`"
            ),
            status: 77,
        },
        ConnectError::Disconnected(_) | ConnectError::Io(_) | ConnectError::Protocol(_) => {
            JoinError::Unreachable(format!("{proxy}: {}", clean(&error.to_string())))
        }
    }
}

/// The command's words, quoted for a shell's way of splitting them.
fn command(name: &NodeName, labels: &Labels) -> Result<String, JoinError> {
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let words = ["join", name.as_str()]
        .into_iter()
        .chain(pairs.iter().map(String::as_str));
    shlex::try_join(words).map_err(|_| JoinError::Answer("a label has a NUL byte".to_owned()))
}

async fn exchange(
    connection: &NodeConnection,
    join: &Join,
    key: &PublicKey,
) -> Result<Joined, JoinError> {
    let lost = |why: &str| JoinError::NoAnswer(why.to_owned());
    let mut channel = connection
        .open_session()
        .await
        .map_err(|error| lost(&error.to_string()))?;
    let out = &channel.outbox;
    let command = command(&join.name, &join.labels)?;
    let line = key
        .to_openssh()
        .map_err(|_| lost("a key cannot be written"))?;
    let input = Zeroizing::new(format!("{}\n{line}\n", *join.token.0));
    let said = async {
        out.request(ChannelRequest::Exec(command.into_bytes()))
            .await?;
        out.data(input.as_bytes().to_vec().into()).await?;
        out.eof().await
    };
    said.await.map_err(|_| lost("the connection was closed"))?;
    let (mut answer, mut words, mut status) = (Vec::new(), Vec::new(), None);
    while let Some(event) = channel.inbox.next().await {
        match event {
            Event::Data(data) if answer.len() + data.len() <= LONGEST_LINE => answer.extend(data),
            Event::Data(_) => return Err(JoinError::Answer("it is too long".to_owned())),
            Event::Stderr(data) => {
                let room = LONGEST_WORDS.saturating_sub(words.len());
                words.extend(data.iter().take(room));
            }
            Event::ExitStatus(said) => status = Some(said),
            Event::NodeRefused(_) => return Err(lost("it takes no commands")),
            Event::Close | Event::ExitSignal(_) => break,
            Event::Eof | Event::Request(_) | Event::NodeAccepted(_) => {}
        }
    }
    match status {
        Some(0) => {
            serde_json::from_slice(&answer).map_err(|error| JoinError::Answer(error.to_string()))
        }
        None => Err(lost("the connection was closed")),
        Some(status) => Err(JoinError::Refused {
            why: sentence(&words),
            status,
        }),
    }
}

/// What the proxy says about a refusal, fit for a terminal.
fn sentence(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let text = text.trim();
    let text = text.strip_prefix("ERROR: ").unwrap_or(text);
    match text.is_empty() {
        true => "it gave no reason".to_owned(),
        false => clean(text),
    }
}

/// Checks the answer as a whole, and makes an identity of it.
fn identity(
    join: &Join,
    asked: &NodeAddr,
    key: PrivateKey,
    joined: &Joined,
    shown: &Shown,
) -> Result<Identity, JoinError> {
    let wrong = |error: IdentityError| JoinError::Answer(error.to_string());
    let node_id =
        NodeId::parse(&joined.node_id).map_err(|error| JoinError::Answer(error.to_string()))?;
    if joined.name != join.name.as_str() || joined.cluster.is_empty() {
        let why = "it is about another node, or names no cluster";
        return Err(JoinError::Answer(why.to_owned()));
    }
    let (node_ca, host_ca) = (
        authorities(&joined.node_ca).map_err(wrong)?,
        authorities(&joined.host_ca).map_err(wrong)?,
    );
    let host_certificate = certified(
        &joined.host_certificate,
        key.public_key(),
        &host_ca,
        &node_id,
    )
    .map_err(JoinError::Answer)?;
    let krl = Krl::parse(&joined.krl).map_err(|error| JoinError::Answer(error.to_string()))?;
    let proxies = join.proxies.iter().map(|addr| Proxy {
        addr: addr.clone(),
        key: shown.key().filter(|_| addr == asked),
    });
    let labels: BTreeMap<_, _> = join.labels.clone();
    Ok(Identity {
        node_id,
        name: joined.name.clone(),
        cluster: clean(&joined.cluster),
        proxies: proxies.collect(),
        host_key: key.into(),
        next_key: None,
        host_certificate,
        node_ca,
        host_ca,
        krl,
        labels,
    })
}

/// A host certificate that the proxy sent: whether it is for this key of this node, by an authority of the
/// cluster, and valid by this machine's clock.
///
/// # Errors
/// Why not, in a sentence.
pub(crate) fn certified(
    line: &str,
    key: &PublicKey,
    host_ca: &[PublicKey],
    node: &NodeId,
) -> Result<Certificate, String> {
    let certificate = Certificate::from_openssh(line)
        .map_err(|_| "its host certificate cannot be read".to_owned())?;
    if certificate.public_key() != key.key_data() {
        return Err("its host certificate is for another key".to_owned());
    }
    let expected = HostExpectation::Authority {
        trusted: host_ca,
        node,
        now: OffsetDateTime::now_utc(),
    };
    host::verify(PresentedHost::Certificate(&certificate), expected)
        .map_err(|refused| refused.to_string())?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_word_and_is_not_shown() {
        let parse = |text: &str| Token::parse(&Zeroizing::new(text.to_owned()));
        let token = parse(" s3cret\n").unwrap();
        assert_eq!(format!("{token:?}"), "Token");
        assert_eq!(*token.0, "s3cret");
        assert_eq!(parse("\n").unwrap_err(), TokenError::Empty);
        for bad in ["a b", "a\nb", "é", &"x".repeat(1025)] {
            assert_eq!(parse(bad).unwrap_err(), TokenError::Form);
        }
    }

    #[test]
    fn words_of_the_command_survive_a_shells_way_of_splitting() {
        let labels = [("team", "a b; 'c'"), ("os", "linux")];
        let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let line = command(&NodeName::parse("iot").unwrap(), &labels).unwrap();
        let words = shlex::split(&line).unwrap();
        assert_eq!(words, ["join", "iot", "os=linux", "team=a b; 'c'"]);
    }

    #[test]
    fn what_a_proxy_says_reaches_no_terminal_raw() {
        assert_eq!(
            sentence(b"ERROR: no\x1b[31m\nmore\n"),
            sentence(b"no\x1b[31m more")
        );
        assert!(!sentence(b"no\x1b[31m").contains('\x1b'));
        assert_eq!(sentence(b" \n"), "it gave no reason");
    }
}
