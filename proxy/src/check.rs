//! `nodes check`: dials a node and asks whether it would take certificates, without logging in.
//!
//! sshd answers a question about a certificate as it would decide about a login. So certificates are offered
//! that differ in one thing, and what is taken tells what is wrong. None is signed with: see
//! [`anteroom_ca::node::probe`] for why they open nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anteroom_ca::SourceAddresses;
use anteroom_ca::node::Question;
use anteroom_core::id::{Login, NodeId, SessionId};
use anteroom_core::node::{HostProof as Registered, Node};
use anteroom_ssh::{ConnectError, HostProof, Method, Offered, Offers};
use ssh_key::PublicKey;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::admin::{Checked, Checker};
use crate::authority::print;
use crate::dial::{self, DialError, Expected, Reached};
use crate::exit::Exit;
use crate::keys;
use crate::proxy::Proxy;
use crate::say::check::{Finding, Rating, Topic};
use crate::say::{self, Stage};
use crate::state::{By, Probe, ProbeError};

/// Each step: connecting, greeting, one question.
const STEP: Duration = Duration::from_secs(10);

/// Questions on one connection: sshd ends it at the sixth refusal, or earlier where `MaxAuthTries` says so.
const QUESTIONS: usize = 3;

/// OpenSSH 9.8 and later shut out an address for a while that comes without logging in: 5 s are
/// counted for each connection, and from 15 s on (`PerSourcePenalties`) it is turned away, and the proxy's users with it.
const PENALTY: Duration = Duration::from_millis(5500);

/// So many connections may follow each other at once all the same.
const UNPUNISHED: usize = 2;

/// How long to wait for the server's first line, to see whether it counts penalties.
const FIRST_LINE: Duration = Duration::from_secs(2);

/// Dials from this proxy.
#[derive(Debug)]
pub(crate) struct NetworkChecker(Weak<Proxy>);

impl NetworkChecker {
    pub(crate) fn new(proxy: Weak<Proxy>) -> Self {
        NetworkChecker(proxy)
    }
}

impl Checker for NetworkChecker {
    fn check<'a>(
        &'a self,
        by: &'a By,
        node: Arc<Node>,
        logins: Vec<Login>,
    ) -> Pin<Box<dyn Future<Output = Result<Checked, ProbeError>> + Send + 'a>> {
        Box::pin(async move {
            // The proxy outlives its commands, but for the moment of its end.
            let Some(proxy) = self.0.upgrade() else {
                let stopped = crate::store::StoreError::Stopped;
                return Err(stopped.into());
            };
            let mut check = Check {
                proxy,
                by,
                session: SessionId::from_uuid(Uuid::new_v4()),
                node,
                connections: 0,
                counts_penalties: true,
                findings: Vec::new(),
                reached: false,
                open: None,
            };
            check.run(&logins).await.or_else(Over::ended)?;
            if let Some(open) = check.open.take() {
                open.offers.leave().await;
            }
            Ok(Checked {
                exit: check.exit(),
                findings: check.findings,
            })
        })
    }
}

struct Check<'a> {
    proxy: Arc<Proxy>,
    by: &'a By,
    session: SessionId,
    node: Arc<Node>,
    connections: usize,
    counts_penalties: bool,
    findings: Vec<Finding>,
    reached: bool,
    open: Option<Open>,
}

/// A connection on which questions are asked about one login.
struct Open {
    login: Login,
    offers: Offers,
    asked: usize,
    addresses: SourceAddresses,
    /// What the first question of all, about no key, was answered with.
    methods: Vec<Method>,
}

/// The check is over before its end.
enum Over {
    /// What was found explains it.
    Found(Finding),
    Refused(ProbeError),
}

impl Over {
    fn ended(self) -> Result<(), ProbeError> {
        match self {
            Over::Found(_) => Ok(()),
            Over::Refused(error) => Err(error),
        }
    }
}

impl Check<'_> {
    fn exit(&self) -> Exit {
        let is_wrong = |finding: &Finding| finding.rating == Rating::Wrong;
        match (self.reached, self.findings.iter().any(is_wrong)) {
            (false, _) => Exit::Unavailable,
            (true, true) => Exit::Failed,
            (true, false) => Exit::Done,
        }
    }

    async fn run(&mut self, logins: &[Login]) -> Result<(), Over> {
        let asked = self.ask_all(logins).await;
        if let Err(Over::Found(finding)) = &asked {
            self.findings.push(finding.clone());
        }
        asked
    }

    async fn ask_all(&mut self, logins: &[Login]) -> Result<(), Over> {
        let (mut taken, mut refused) = (Vec::new(), Vec::new());
        for (index, login) in logins.iter().enumerate() {
            if index == 0 && !self.doors(login).await? {
                return Ok(());
            }
            match self.ask(login, Question::AsUsed).await? {
                Offered::Taken => taken.push(login),
                Offered::Refused => refused.push(login),
            }
            if index == 0 && !taken.is_empty() {
                // Whoever takes this as well was not asked about anything.
                let nobody = NodeId::from_uuid(Uuid::new_v4());
                let nonsense = Question::OfAnotherNode(nobody);
                if self.ask(login, nonsense).await? == Offered::Taken {
                    self.findings.push(Finding::takes_anything());
                    return Ok(());
                }
            }
        }
        if let Some(one) = taken.first() {
            let found = taken
                .iter()
                .map(|login| Finding::login_taken(login.as_str()));
            self.findings.extend(found);
            let one = one.as_str();
            let found = refused
                .iter()
                .map(|login| Finding::login_refused(login.as_str(), one));
            self.findings.extend(found);
            return Ok(());
        }
        let names: Vec<&str> = logins.iter().map(Login::as_str).collect();
        // Those who might have an account there; the last one is asked about already.
        for login in logins.iter().rev().take(2) {
            if let Some(finding) = self.diagnose(login).await? {
                self.findings.push(finding);
                return Ok(());
            }
        }
        let finding = Finding::authority(self.node.name.as_str(), &names.join(", "));
        self.findings.push(finding);
        Ok(())
    }

    /// Looks at what the node shows before any question. Whether it is worth going on.
    async fn doors(&mut self, login: &Login) -> Result<bool, Over> {
        let open = self.open(login).await?;
        let methods = open.methods.clone();
        let host = match &self.node.host_proof {
            Registered::HostCa => "by a certificate of the host CA",
            Registered::Pinned(_) => "as registered",
        };
        let addr = say::address(&self.node.addr).to_string();
        self.found(Topic::Reachable, format!("reached at {addr}"));
        self.found(Topic::HostKey, format!("host key {host}"));
        if methods == [Method::None] {
            self.findings.push(Finding::no_door(login.as_str()));
            return Ok(false);
        }
        let others = methods
            .iter()
            .filter(|method| **method != Method::PublicKey);
        let others: Vec<&str> = others.map(|method| method.name()).collect();
        if !others.is_empty() {
            let finding = Finding::doors(self.node.name.as_str(), &others.join(", "));
            self.findings.push(finding);
        }
        let keys = methods.contains(&Method::PublicKey);
        if !keys {
            self.findings.push(Finding::no_keys());
        }
        Ok(keys)
    }

    fn found(&mut self, topic: Topic, text: String) {
        self.findings.push(Finding::new(topic, Rating::Ok, text));
    }

    /// What keeps the node from taking a certificate, if one that differs in that is taken.
    async fn diagnose(&mut self, login: &Login) -> Result<Option<Finding>, Over> {
        let name = self.node.name.to_string();
        if self.takes(login, Question::PlainLogin).await? {
            return Ok(Some(Finding::principals(&name)));
        }
        if self.takes(login, Question::AnyAddress).await? {
            let bound = self.open.as_ref().map(|open| open.addresses.to_string());
            let bound = bound.unwrap_or_default();
            return Ok(Some(Finding::address(&name, &bound)));
        }
        for (side, word) in [(1, "ahead"), (-1, "behind")] {
            if self.takes(login, between(side, MINUTE, MONTH)).await? {
                // Four stretches, told apart with two questions.
                let within_hour = self.takes(login, between(side, MINUTE, HOUR)).await?;
                let (middle, near, far) = match within_hour {
                    true => (TEN_MINUTES, "1 to 10 minutes", "10 minutes to 1 hour"),
                    false => (DAY, "1 hour to 1 day", "1 day to 1 month"),
                };
                let start = if within_hour { MINUTE } else { HOUR };
                let is_near = self.takes(login, between(side, start, middle)).await?;
                let how = if is_near { near } else { far };
                return Ok(Some(Finding::clock(&format!("{how} {word}"))));
            }
        }
        Ok(None)
    }

    async fn takes(&mut self, login: &Login, question: Question) -> Result<bool, Over> {
        Ok(self.ask(login, question).await? == Offered::Taken)
    }

    /// Asks one question, on the connection there is or on another one.
    async fn ask(&mut self, login: &Login, question: Question) -> Result<Offered, Over> {
        let mut again = false;
        loop {
            let open = self.open(login).await?;
            let (asked, addresses) = (open.asked, open.addresses.clone());
            let key = keys::ephemeral().public_key().clone();
            let probe = Probe {
                node: self.node.id,
                login: login.clone(),
                question,
                session: self.session,
                key,
                source_addresses: addresses,
            };
            let certificate = self.proxy.state.issue_probe(self.by, probe).await;
            let certificate = certificate.map_err(Over::Refused)?.into_ssh();
            let open = self.open(login).await?;
            let answer = timeout(STEP, open.offers.offer(login.as_str(), certificate)).await;
            open.asked += 1;
            match answer {
                Ok(Ok(offered)) => return Ok(offered),
                // Where `MaxAuthTries` is 1 the first refusal ends the connection.
                Ok(Err(ConnectError::Disconnected(words)))
                    if words.contains(TOO_MANY) && asked == 0 =>
                {
                    self.open = None;
                    return Ok(Offered::Refused);
                }
                // It has been asked often enough on this connection.
                Ok(Err(_)) if asked > 0 && !again => {
                    self.open = None;
                    again = true;
                }
                Ok(Err(error)) => {
                    let why = error.to_string();
                    return Err(Over::Found(Finding::unreachable(Stage::LoggingIn, &why)));
                }
                Err(_) => {
                    let why = dial::NO_ANSWER;
                    return Err(Over::Found(Finding::unreachable(Stage::LoggingIn, why)));
                }
            }
        }
    }

    /// A connection on which something can be asked about `login`.
    async fn open(&mut self, login: &Login) -> Result<&mut Open, Over> {
        let fits = |open: &Open| open.login == *login && open.asked < QUESTIONS;
        if !self.open.as_ref().is_some_and(fits) {
            if let Some(old) = self.open.take() {
                old.offers.leave().await;
            }
            self.open = Some(self.connect(login).await?);
        }
        // It was put there a line ago.
        self.open
            .as_mut()
            .ok_or_else(|| Over::Found(Finding::unreachable(Stage::Connecting, dial::NO_ANSWER)))
    }

    /// Dials the node where it is registered.
    async fn reach(&mut self, proxy: &Proxy, there: (&str, u16)) -> Result<Reached, String> {
        let tcp = timeout(STEP, TcpStream::connect(there)).await;
        let tcp = tcp
            .map_err(|_| dial::NO_ANSWER.to_owned())?
            .map_err(|error| error.to_string())?;
        anteroom_ssh::prepare(&tcp).map_err(|error| error.to_string())?;
        let addresses = dial::source_addresses(proxy, &self.node.egress_addresses, &tcp)?;
        self.counts_penalties = counts_penalties(&tcp).await;
        Ok((Box::new(tcp), addresses))
    }

    async fn connect(&mut self, login: &Login) -> Result<Open, Over> {
        let over = |stage, why: &str| Over::Found(Finding::unreachable(stage, why));
        if self.counts_penalties && self.connections >= UNPUNISHED {
            sleep(PENALTY).await;
        }
        self.connections += 1;
        let proxy = self.proxy.clone();
        let node = self.node.clone();
        let reached = match node.addr.dialled() {
            Some(there) => self.reach(&proxy, there).await,
            None => dial::reach_by_tunnel(&proxy, &self.node, None).await,
        };
        let (stream, addresses) = reached.map_err(|why| over(Stage::Connecting, &why))?;
        let expected = Expected::new(&proxy, &self.node).await;
        let expected = expected.map_err(|error| match error {
            DialError::Node { stage, why, .. } => over(stage, &why),
            DialError::Issue(error) => over(Stage::Verifying, &error.to_string()),
        })?;
        let (algorithms, refusal) = (expected.algorithms(), expected.refusal());
        let check = move |shown: &HostProof| expected.check(shown);
        let greeting = Offers::greet(stream, check, &algorithms);
        let greeted = timeout(STEP, greeting).await;
        let greeted = greeted.map_err(|_| over(Stage::Verifying, dial::NO_ANSWER))?;
        let mut offers = match greeted {
            Ok(offers) => offers,
            Err(ConnectError::HostRefused | ConnectError::NoCommonAlgorithm(_)) => {
                self.reached = true;
                let why = refusal.get().cloned();
                let why = why.unwrap_or_else(|| {
                    "it has no host key of the registered kind any more".to_owned()
                });
                return Err(Over::Found(Finding::host_refused(
                    &why,
                    &registered(&self.node),
                )));
            }
            Err(error) => return Err(over(Stage::Verifying, &error.to_string())),
        };
        let methods = timeout(STEP, offers.methods(login.as_str())).await;
        let methods = methods
            .map_err(|_| over(Stage::LoggingIn, dial::NO_ANSWER))?
            .map_err(|error| over(Stage::LoggingIn, &error.to_string()))?;
        self.reached = true;
        Ok(Open {
            login: login.clone(),
            offers,
            asked: 0,
            addresses,
            methods,
        })
    }
}

/// What OpenSSH says when it ends a connection after so many refusals.
const TOO_MANY: &str = "Too many authentication failures";

const MINUTE: i64 = 60;
const TEN_MINUTES: i64 = 600;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;
const MONTH: i64 = 30 * DAY;

/// A clock that is off by `from` to `until` seconds, on one side of ours.
fn between(side: i64, from: i64, until: i64) -> Question {
    match side > 0 {
        true => Question::AtClock(from, until),
        false => Question::AtClock(-until, -from),
    }
}

/// What the node is registered with.
fn registered(node: &Node) -> String {
    match &node.host_proof {
        Registered::HostCa => "a certificate of the host CA".to_owned(),
        Registered::Pinned(lines) => {
            let prints = lines.iter().filter_map(|line| {
                let key = PublicKey::from_openssh(line).ok()?;
                Some(print(&key))
            });
            prints.collect::<Vec<_>>().join(", ")
        }
    }
}

/// Whether the server is one that shuts out who comes without logging in. One that does not say is taken for one.
async fn counts_penalties(tcp: &TcpStream) -> bool {
    let mut line = [0; 64];
    let Ok(Ok(length)) = timeout(FIRST_LINE, tcp.peek(&mut line)).await else {
        return true;
    };
    let line = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
    let Some(version) = line.trim_start().strip_prefix("SSH-2.0-OpenSSH_") else {
        return true;
    };
    let mut numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (9, 8),
        _ => true,
    }
}
