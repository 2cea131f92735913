//! The commands on a real state in a directory of its own, under a clock moved by hand. What people read is compared with
//! transcripts in `transcripts/`; `UPDATE_GOLDEN=1` writes them anew, to be reviewed like code.

mod allowing;
mod asking;
mod channel;
mod environment;
mod hostile;
mod kinds;
mod listing;
mod long;
mod monitoring;
mod rights;
mod rules;
mod sessions;
mod showing;
mod tokens;
mod transcripts;
mod waiting;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use anteroom_ca::key::{HostCa, Key, NodeCa, UserCa, fingerprint};
use anteroom_ca::names::HostNames;
use anteroom_core::id::{NodeId, UserName};
use anteroom_core::node::{HostProof, Node, NodeAddr};
use anteroom_core::policy::Identity;
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::Settings;
use bytes::Bytes;
use ssh_key::PublicKey;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::sync::mpsc;

use super::*;
use crate::authority::Authorities;
use crate::state::{Clock, Existing, ManualClock, Object};

const START: OffsetDateTime = datetime!(2026-11-20 20:00 UTC);
const IOT: &str = "bbb56211-7b54-4f9e-bee9-b68ea156be5f";
const N2: &str = "b1168402-9340-421a-a344-af66a6675738";

struct World {
    ctx: Context,
    clock: Arc<ManualClock>,
    _dir: TempDir,
}

/// What a command said, and how it ended.
#[derive(Debug, Default, Clone)]
struct Said {
    out: String,
    err: String,
    code: u8,
}

/// A client in memory. Text that is said while a command waits is sent on, so that a test waits for words and not for time.
#[derive(Default)]
struct Client {
    said: Said,
    stdin: Vec<u8>,
    files: BTreeMap<String, Vec<u8>>,
    typed: Option<VecDeque<Typed>>,
    environment: crate::environment::Environment,
    prompts: Vec<String>,
    heard: Option<mpsc::UnboundedSender<String>>,
    leave: Option<tokio::sync::oneshot::Receiver<Leave>>,
    /// Whether what it types or sends never comes to an end.
    dawdles: bool,
    agent: Option<tokio::io::DuplexStream>,
}

impl CommandIo for Client {
    async fn stdout(&mut self, text: Bytes) -> Result<(), Gone> {
        let text = String::from_utf8(text.to_vec()).unwrap();
        self.said.out.push_str(&text);
        self.tell(text);
        Ok(())
    }

    async fn stderr(&mut self, text: Bytes) -> Result<(), Gone> {
        let text = String::from_utf8(text.to_vec()).unwrap();
        self.said.err.push_str(&text);
        self.tell(text);
        Ok(())
    }

    async fn read_stdin(&mut self, limit: usize) -> Result<Vec<u8>, StdinError> {
        self.dawdle().await;
        if self.stdin.len() > limit {
            Err(StdinError::TooLong(limit))
        } else {
            Ok(std::mem::take(&mut self.stdin))
        }
    }

    fn file(&mut self, path: &str) -> FileAnswer {
        self.files
            .get(path)
            .map_or(FileAnswer::OutOfReach, |bytes| {
                FileAnswer::Sent(bytes.clone())
            })
    }

    fn environment(&self) -> crate::environment::Environment {
        self.environment.clone()
    }

    fn terminal(&self) -> Option<TerminalSize> {
        self.typed.as_ref().map(|_| TerminalSize {
            columns: 80,
            rows: 24,
        })
    }

    async fn read_line(&mut self, prompt: &str) -> Typed {
        self.prompts.push(prompt.to_owned());
        self.dawdle().await;
        self.typed
            .as_mut()
            .and_then(VecDeque::pop_front)
            .unwrap_or(Typed::End)
    }

    async fn agent(&mut self) -> Result<AgentStream, NoAgent> {
        let agent = self.agent.take().ok_or(NoAgent::NotForwarded)?;
        Ok(Box::new(agent))
    }

    async fn gone(&mut self) -> Leave {
        match &mut self.leave {
            Some(leave) => leave.await.unwrap(),
            None => std::future::pending().await,
        }
    }
}

impl Client {
    async fn dawdle(&self) {
        if self.dawdles {
            self.tell("waiting for input".to_owned());
            std::future::pending::<()>().await;
        }
    }

    fn tell(&self, text: String) {
        if let Some(heard) = &self.heard {
            let _ = heard.send(text);
        }
    }
}

/// Shows the key of a host that is there, and says why it doesn't for one that isn't.
#[derive(Debug)]
struct OneHost;

impl Scanner for OneHost {
    fn scan<'a>(
        &'a self,
        addr: &'a NodeAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<PublicKey>, String>> + Send + 'a>> {
        Box::pin(async move {
            if addr.dialled().is_some_and(|(_, port)| port == 2201) {
                Ok(vec![key("scanned")])
            } else {
                Err("connection refused\x1b[2J".to_owned())
            }
        })
    }
}

/// A key that is the same for the same word.
fn key(word: &str) -> PublicKey {
    signer(word).public_key().clone()
}

fn signer(word: &str) -> Key {
    let mut seed = [0; 32];
    seed[..word.len()].copy_from_slice(word.as_bytes());
    Key::from_seed(word, &seed)
}

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn user_key(word: &str) -> UserKey {
    let key = key(word);
    UserKey {
        fingerprint: name(&fingerprint(&key).to_string()),
        openssh: key.to_openssh().unwrap(),
        added: START,
    }
}

fn user(called: &str, roles: &[&str], logins: &[&str]) -> Object {
    let mut user = User::new(name(called));
    user.roles = roles.iter().map(|role| name(role)).collect();
    user.logins = logins.iter().map(|login| name(login)).collect();
    user.keys = vec![user_key(called)];
    Object::User(user)
}

fn node(called: &str, id: &str, labels: &[(&str, &str)]) -> Object {
    Object::Node(Node {
        id: NodeId::parse(id).unwrap(),
        name: name(called),
        addr: name("192.0.2.7:22"),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        said_labels: Default::default(),
        host_proof: HostProof::HostCa,
        egress_addresses: Vec::new(),
    })
}

/// alice asks, bob reviews, carol has access, erin administers, ada audits, nina may nothing; nodes iot and n2.
async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let shared: Arc<dyn Clock> = clock.clone();
    let state = State::open(dir.path(), shared, name("example.com"), Settings::default())
        .await
        .unwrap();
    let objects = vec![
        user("alice", &["requester"], &["root", "deploy"]),
        user("bob", &["reviewer"], &[]),
        user("carol", &["access"], &["root"]),
        user("erin", &["editor", "requester", "reviewer"], &["root"]),
        user("ada", &["auditor"], &[]),
        user("nina", &[], &["root"]),
        node("iot", IOT, &[("env", "staging"), ("os", "linux")]),
        node("n2", N2, &[("env", "prod")]),
    ];
    state
        .put(
            &crate::state::By::local_administrator(),
            objects,
            Existing::Refuse,
        )
        .await
        .unwrap();
    let authorities = Authorities::stable(
        UserCa::new(Key::from_seed("user ca", &[7; 32])),
        NodeCa::new(signer("node ca")),
        HostCa::new(signer("host ca")),
        START,
    );
    state.adopt(authorities, Vec::new()).await.unwrap();
    let ctx = Context {
        waiting: crate::waiting::Waiting::default(),
        sessions: crate::live::Sessions::default(),
        second_factors: SecondFactorContext {
            sealer: Arc::new(crate::mfa::Sealer::with_key(&[9; 32]).unwrap()),
            recent: Arc::default(),
        },
        listings: crate::listings::Listings::default(),
        tunnels: Arc::default(),
        pulse: None,
        state,
        place: Arc::new(Place {
            host: "proxy.example.com".to_owned(),
            port: 2222,
            names: HostNames::new(["example.com", "access"], ["nodes.example.com"]).unwrap(),
            host_key: signer("host key").public_key().clone(),
        }),
        scanner: Arc::new(OneHost),
        checker: None,
        rotator: None,
    };
    World {
        ctx,
        clock,
        _dir: dir,
    }
}

fn caller(who: &str) -> Caller {
    if who == "ctl" {
        return Caller::Local;
    }
    let user: UserName = name(who);
    Caller::Ssh {
        identity: Identity::from_proven_key(user, name(&fingerprint(&key(who)).to_string())),
        remote_addr: "203.0.113.5:50022".parse::<SocketAddr>().unwrap(),
    }
}

impl World {
    async fn give(&self, who: &str, line: &str, mut client: Client) -> Client {
        let code = match CommandLine::from_exec(line.as_bytes()) {
            Ok(line) => run(&self.ctx, caller(who), line, &mut client).await,
            Err(error) => say_usage_error(&error, &mut client).await,
        };
        client.said.code = code.code();
        client
    }

    async fn says(&self, who: &str, line: &str) -> Said {
        self.give(who, line, Client::default()).await.said
    }

    async fn says_to(&self, who: &str, line: &str, stdin: &str) -> Said {
        self.give(
            who,
            line,
            Client {
                stdin: stdin.into(),
                ..Client::default()
            },
        )
        .await
        .said
    }

    /// Alice's request for a resource, filed and left.
    async fn filed(&self, resource: &str) -> String {
        let said = self
            .says(
                "alice",
                &format!(
                    "request create --nowait --resource {resource} --reason work --format json"
                ),
            )
            .await;
        assert_eq!(said.code, 0, "{said:?}");
        let request: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        request["id"].as_str().unwrap().to_owned()
    }

    async fn granted(&self, resource: &str) -> String {
        let id = self.filed(resource).await;
        let said = self
            .says(
                "bob",
                &format!("request review {id} --approve --reason okay"),
            )
            .await;
        assert_eq!(
            said.out, "Successfully submitted review. Request state: APPROVED\n",
            "{said:?}"
        );
        id
    }

    fn requests(&self) -> usize {
        self.ctx.state.view().requests().count()
    }
}
