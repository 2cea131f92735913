//! What the proxy's one writer costs: certificates issued and requests filed, each on the disk before anybody sees it.
//!
//! The state is the proxy's own, in a directory of its own and in this process, so that its processor time can be told from
//! everybody else's; only the sockets are left out. What signing alone costs is measured beside it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use anteroom_ca::key::{HostCa, Key, NodeCa, UserCa, fingerprint};
use anteroom_ca::{IssueTime, Serial, SourceAddresses};
use anteroom_core::documents::parse_monitoring_rule;
use anteroom_core::id::{ClusterName, Login, ResourceId, RoleName, SessionId, UserName};
use anteroom_core::policy::{self, Access, Decision, Identity, LoginWanted, Permit};
use anteroom_core::request::{Filed, Wanted};
use anteroom_core::user::{User, UserKey};
use anteroom_core::view::Settings;
use anteroom_proxy::authority::Authorities;
use anteroom_proxy::state::{By, Existing, Object, State, Subject, SystemClock};
use ed25519_dalek::{Signer, SigningKey};
use ssh_key::PublicKey;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::decide::{access, node, role, searching_role};
use crate::measure::{Spread, float, own_process_seconds};

/// How many ask at a time, as sessions that start together do: as many as the writer takes into one transaction.
const AT_ONCE: usize = 64;

/// So many users and nodes take turns, so that nobody has more requests than a person may, or so
/// many certificates that one more revokes another.
const USERS: usize = 300;

/// The most rules that a cluster may have.
const RULES: usize = anteroom_core::monitoring::MOST_RULES;

/// The length of what is signed of an access certificate, about.
const SIGNED: usize = 512;

/// How often something can be done.
pub(crate) struct Rate {
    pub(crate) what: String,
    /// Times per second of processor time.
    pub(crate) per_core: Spread,
    /// Times per second by the clock.
    pub(crate) per_second: Spread,
}

/// The state of a proxy, with users, nodes and authorities.
pub(crate) struct Writer {
    runtime: Runtime,
    state: State,
    /// The state has one of its own.
    node_ca: NodeCa,
    people: Vec<Identity>,
    /// What sessions make for themselves; making it is no part of writer.
    ephemeral: PublicKey,
    dir: TempDir,
}

impl Writer {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cluster = ClusterName::parse("example.com").unwrap();
        let state = State::open(
            dir.path(),
            Arc::new(SystemClock),
            cluster,
            Settings::default(),
        );
        let state = runtime.block_on(state).unwrap();
        let key = |comment: &str, seed: u8| Key::from_seed(comment, &[seed; 32]);
        let authorities = Authorities::stable(
            UserCa::new(key("user", 2)),
            NodeCa::new(key("node", 1)),
            HostCa::new(key("host", 4)),
            OffsetDateTime::now_utc(),
        );
        runtime
            .block_on(state.adopt(authorities, Vec::new()))
            .unwrap();
        let people = (0..USERS).map(|n| identity(&name_of(n), n)).collect();
        let writer = Self {
            runtime,
            state,
            node_ca: NodeCa::new(key("node", 1)),
            people,
            ephemeral: key("session", 3).public_key().clone(),
            dir,
        };
        writer.put(objects());
        writer
    }

    fn put(&self, objects: Vec<Object>) {
        let by = By::local_administrator();
        let stored = self.state.put(&by, objects, Existing::Refuse);
        self.runtime.block_on(stored).unwrap();
    }

    /// Signing alone; each certificate without its row; each with it, many at a time and one by one.
    pub(crate) fn certificates(&self, runs: usize, count: usize) -> Vec<Rate> {
        vec![
            signing(runs, count),
            self.alone(
                "an access certificate, signed and checked",
                runs,
                count,
                |permit| {
                    let terms = anteroom_ca::node::Terms {
                        cluster: self.state.cluster(),
                        session: SessionId::from_uuid(Uuid::new_v4()),
                        serial: Serial::random(&mut rand::rng()),
                        source_addresses: &SourceAddresses::tunnel(),
                        at: IssueTime::new(self.state.now(), None).unwrap(),
                    };
                    let rng = &mut rand::rng();
                    let (ca, key) = (&self.node_ca, &self.ephemeral);
                    anteroom_ca::node::certify(permit, key, &terms, ca, rng).unwrap();
                },
            ),
            self.rate("an access certificate", runs, count, AT_ONCE, |n| {
                self.issue_access(n)
            }),
            self.rate(
                "an access certificate, one by one",
                runs,
                count / 8,
                1,
                |n| self.issue_access(n),
            ),
            self.rate("an identity certificate", runs, count, AT_ONCE, |n| {
                self.issue_identity(n)
            }),
        ]
    }

    /// Requests: without rules, and with as many as there may be, of which the last one approves.
    pub(crate) fn requests(&self, runs: usize, count: usize) -> Vec<Rate> {
        let count = count.max(AT_ONCE);
        let total = runs * count;
        let file = |n| self.file(n);
        let without = self.rate("a request filed, no rules", runs, count, AT_ONCE, file);
        self.put(
            (0..RULES)
                .map(|n| Object::MonitoringRule(rule(n)))
                .collect(),
        );
        let what = format!("a request filed and approved by the last of {RULES} rules");
        let with = self.rate(&what, runs, count, AT_ONCE, |n| self.file(total + n));
        let approved = |view: &anteroom_core::view::View| {
            let approved = anteroom_core::request::State::Approved;
            view.requests().filter(|one| one.state == approved).count()
        };
        // Also those that waited when the rules came.
        assert_eq!(approved(&self.state.view()), 2 * total);
        vec![without, with]
    }

    fn issue_access(&self, n: usize) -> impl Future<Output = ()> + Send + use<> {
        let subject = Subject {
            session: SessionId::from_uuid(Uuid::new_v4()),
            key: self.ephemeral.clone(),
            source_addresses: SourceAddresses::tunnel(),
            command: None,
            from: None,
        };
        let state = self.state.clone();
        let who = self.people[n % USERS].clone();
        let to = access("root", n % USERS);
        async move {
            state.issue(&who, &to, subject).await.unwrap();
        }
    }

    fn issue_identity(&self, n: usize) -> impl Future<Output = ()> + Send + use<> {
        let state = self.state.clone();
        let who = self.people[n % USERS].clone();
        async move {
            let from = "192.0.2.9:50022".parse().unwrap();
            let issued = state.login(&who, LoginWanted::default(), from).await;
            issued.unwrap();
        }
    }

    /// A request for a node that this person has not asked for yet.
    fn file(&self, n: usize) -> impl Future<Output = ()> + Send + use<> {
        let state = self.state.clone();
        let who = self.people[n % USERS].clone();
        let to = access("deploy", n / USERS);
        let resource = ResourceId::node_login(state.cluster().clone(), to.node, to.login);
        async move {
            let wanted = Wanted::resources(BTreeSet::from([resource]));
            let filed = state.file(&who, wanted).await.unwrap();
            assert!(matches!(filed, Filed::New(_)), "{filed:?}");
        }
    }

    /// What is done without the state, on one processor.
    fn alone(&self, what: &str, runs: usize, count: usize, make: impl Fn(&Permit)) -> Rate {
        let view = self.state.view();
        let to: Access = access("root", 0);
        let decided = policy::decide(&view, &self.people[0], &to, OffsetDateTime::now_utc());
        let Decision::Permit(permit) = decided else {
            panic!("{decided:?}");
        };
        measured(what, runs, count, || {
            for _ in 0..count {
                make(&permit);
            }
        })
    }

    /// `count` of what `make` makes, so many at a time.
    fn rate<F>(
        &self,
        what: &str,
        runs: usize,
        count: usize,
        at_once: usize,
        make: impl Fn(usize) -> F,
    ) -> Rate
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let count = count.max(1);
        let mut done = 0;
        measured(what, runs, count, || {
            let all: Vec<F> = (done..done + count).map(&make).collect();
            done += count;
            self.runtime.block_on(all_of(all, at_once));
        })
    }

    /// How long a write of a page to the same disk takes, in seconds.
    pub(crate) fn synced_write(&self, runs: usize) -> Spread {
        let mut file = File::create(self.dir.path().join("page")).unwrap();
        let once = || {
            let started = Instant::now();
            file.write_all(&[1; 4096]).unwrap();
            file.sync_data().unwrap();
            started.elapsed().as_secs_f64()
        };
        Spread::of(std::iter::repeat_with(once).take(runs * 20).collect())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.runtime.block_on(self.state.close());
    }
}

/// Does all of these, `at_once` of them at a time.
async fn all_of<F: Future<Output = ()> + Send + 'static>(all: Vec<F>, at_once: usize) {
    let mut running = tokio::task::JoinSet::new();
    for one in all {
        if running.len() >= at_once {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(one);
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
}

/// Raw Ed25519, by the library that signs certificates.
fn signing(runs: usize, count: usize) -> Rate {
    let key = SigningKey::from_bytes(&[7; 32]);
    let mut text = [0; SIGNED];
    measured("raw Ed25519 signing", runs, count, || {
        for n in 0..count {
            text[..8].copy_from_slice(&n.to_be_bytes());
            std::hint::black_box(key.sign(std::hint::black_box(&text)));
        }
    })
}

fn measured(what: &str, runs: usize, count: usize, mut work: impl FnMut()) -> Rate {
    let (mut per_core, mut per_second) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (cpu, started) = (own_process_seconds(), Instant::now());
        work();
        per_second.push(float(count) / started.elapsed().as_secs_f64());
        per_core.push(float(count) / (own_process_seconds() - cpu).max(1e-6));
    }
    Rate {
        what: what.to_owned(),
        per_core: Spread::of(per_core),
        per_second: Spread::of(per_second),
    }
}

fn name_of(n: usize) -> String {
    format!("user-{n:02}")
}

fn key_of(n: usize) -> PublicKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    Key::from_seed("", &seed).public_key().clone()
}

fn identity(name: &str, n: usize) -> Identity {
    let fingerprint = fingerprint(&key_of(n)).to_string();
    Identity::from_proven_key(UserName::parse(name).unwrap(), fingerprint.parse().unwrap())
}

fn objects() -> Vec<Object> {
    let spec = "allow: {logins: [root], node_labels: {'*': '*'}}";
    let mut objects = vec![Object::Role(role("everything", spec))];
    let spec = "allow: {logins: [deploy], node_labels: {'*': '*'}}";
    objects.push(Object::Role(role("deploy", spec)));
    objects.push(Object::Role(searching_role(
        "asker",
        &["deploy".to_owned()],
    )));
    objects.extend((0..USERS).map(|n| Object::Node(node(n, "team"))));
    let roles: BTreeSet<RoleName> = ["everything", "asker"]
        .map(|name| RoleName::parse(name).unwrap())
        .into();
    objects.extend((0..USERS).map(|n| {
        let mut user = User::new(UserName::parse(&name_of(n)).unwrap());
        user.roles.clone_from(&roles);
        user.logins = vec![Login::parse("root").unwrap()];
        user.keys = vec![UserKey {
            fingerprint: fingerprint(&key_of(n)).to_string().parse().unwrap(),
            openssh: key_of(n).to_openssh().unwrap(),
            added: OffsetDateTime::now_utc(),
        }];
        Object::User(user)
    }));
    objects
}

/// All but the last are about other teams, and each asks for several things.
fn rule(n: usize) -> anteroom_core::monitoring::MonitoringRule {
    let team = if n + 1 == RULES {
        "team".to_owned()
    } else {
        format!("team-{n}")
    };
    let condition = format!(
        r#"access_request.spec.resource_labels_intersection["team"].contains("{team}") && !access_request.spec.roles.contains("root-{n}") && access_request.spec.resource_labels_intersection["os"].contains("linux")"#
    );
    parse_monitoring_rule(&format!(
        "kind: access_monitoring_rule\nversion: v1\nmetadata: {{name: rule-{n:03}}}\nspec:\n  \
         subjects: [access_request]\n  condition: '{condition}'\n  desired_state: reviewed\n  \
         automatic_review: {{integration: builtin, decision: APPROVED}}\n"
    ))
    .unwrap()
}
