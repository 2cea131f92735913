//! Authorities that are rotated, and signatures that have to be waited for.

use std::fs;
use std::path::PathBuf;

use anteroom_core::lock::{Lock, LockTarget};
use signature::Signer as _;
use ssh_key::Signature;
use ssh_key::encoding::Encode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::authority::{
    AuthorityKind, CaAgent, Record, RotateError, Rotator, Stage, Step, Unavailable, Wish, print,
};
use crate::config::{self, Config};
use crate::keys::Keys;

/// A proxy's state with key files, turned as `auth rotate` does.
struct Bench {
    dir: TempDir,
    clock: Arc<ManualClock>,
    state: State,
    rotator: Arc<Rotator>,
}

fn settings() -> Config {
    config::load(None, &Default::default(), "example.com").unwrap()
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let (state, rotator) = Self::start(dir.path(), &clock).await;
        Self {
            dir,
            clock,
            state,
            rotator,
        }
    }

    async fn start(dir: &Path, clock: &Arc<ManualClock>) -> (State, Arc<Rotator>) {
        let config = settings();
        let shared: Arc<dyn Clock> = clock.clone();
        let data = dir.join("data");
        let state = State::open(&data, shared, config.cluster.clone(), config.settings());
        let state = state.await.unwrap();
        let keys = Keys::open(&data, &config, &state).await.unwrap();
        (state, keys.rotator)
    }

    async fn restart(&mut self) {
        self.state.close().await;
        (self.state, self.rotator) = Self::start(self.dir.path(), &self.clock).await;
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("data/ca")
    }

    async fn turn(&self, kind: AuthorityKind, step: Step) -> Result<Record, RotateError> {
        let wish = Wish {
            kind,
            step: Some(step),
            force: true,
        };
        let rotated = self.rotator.rotate(&self.state, &admin(), wish).await?;
        assert_eq!(rotated.warnings, Vec::<String>::new());
        Ok(rotated.record)
    }

    fn record(&self, kind: AuthorityKind) -> Record {
        self.state.authorities().unwrap().record(kind).clone()
    }

    /// Every file of the authorities, by name.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.ca())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn put_back(&self, files: &[(PathBuf, Vec<u8>)]) {
        for (path, _) in self.files() {
            fs::remove_file(path).unwrap();
        }
        for (path, content) in files {
            fs::write(path, content).unwrap();
            let mode = if path.extension().is_some_and(|end| end == "pub") {
                0o644
            } else {
                0o600
            };
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(path, mode).unwrap();
        }
    }
}

#[tokio::test]
async fn killed_between_the_commit_and_the_files_the_next_start_puts_the_files_in_place() {
    use Step::{Announce, Retire, Rollback, Sign};
    let kind = AuthorityKind::Node;
    for steps in [
        &[Announce, Sign, Retire][..],
        &[Announce, Rollback],
        &[Announce, Sign, Rollback],
    ] {
        let mut bench = Bench::new().await;
        for step in steps {
            let before = bench.files();
            let record = bench.turn(kind, *step).await.unwrap();
            let after = bench.files();
            // As if the process had been killed right after the commit. What is announced is on the
            // disk before it is announced.
            if *step != Announce {
                bench.put_back(&before);
            }
            bench.restart().await;
            assert_eq!(bench.files(), after, "{steps:?} {step:?}");
            let found = bench.record(kind);
            assert_eq!(print(&found.signing), print(&record.signing));
            assert_eq!(found.stage.as_str(), record.stage.as_str());
        }
        bench.state.close().await;
    }
}

#[tokio::test]
async fn killed_before_the_commit_the_next_announcement_takes_the_key_that_was_made() {
    let mut bench = Bench::new().await;
    let kind = AuthorityKind::User;
    let made = Key::from_seed("made", &[9; 32]);
    made.create_new(&bench.ca().join("user.next")).unwrap();
    bench.restart().await;
    assert_eq!(bench.record(kind).stage, Stage::Stable);
    let record = bench.turn(kind, Step::Announce).await.unwrap();
    assert_eq!(print(record.newest()), print(made.public_key()));
    // Once it is rolled back it is gone for good, also from where it came.
    bench.turn(kind, Step::Rollback).await.unwrap();
    assert!(!bench.ca().join("user.next").exists());
    made.create_new(&bench.ca().join("user.next")).unwrap();
    let error = bench.turn(kind, Step::Announce).await.unwrap_err();
    assert!(error.to_string().contains("which is retired"), "{error}");
    bench.restart().await;
    assert!(!bench.ca().join("user.next").exists());
    bench.state.close().await;
}

#[tokio::test]
async fn a_key_file_that_was_replaced_by_hand_retires_what_it_replaced() {
    let mut bench = Bench::new().await;
    let kind = AuthorityKind::Host;
    let old = bench.record(kind).signing;
    for name in ["host", "host.pub"] {
        fs::remove_file(bench.ca().join(name)).unwrap();
    }
    let new = Key::from_seed("by hand", &[9; 32]);
    new.create_new(&bench.ca().join("host")).unwrap();
    bench.restart().await;
    assert_eq!(print(&bench.record(kind).signing), print(new.public_key()));
    let authorities = bench.state.authorities().unwrap();
    assert!(authorities.is_retired(&old));
    // During a rotation nobody knows what was meant, so the start is refused.
    bench.turn(kind, Step::Announce).await.unwrap();
    fs::remove_file(bench.ca().join("host")).unwrap();
    Key::from_seed("again", &[3; 32])
        .create_new(&bench.ca().join("host"))
        .unwrap();
    bench.state.close().await;
    let config = settings();
    let shared: Arc<dyn Clock> = bench.clock.clone();
    let data = bench.dir.path().join("data");
    let state = State::open(&data, shared, config.cluster.clone(), config.settings());
    let state = state.await.unwrap();
    let error = Keys::open(&data, &config, &state).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&print(new.public_key())), "{text}");
    assert!(text.contains("restore it from your backup"), "{text}");
    state.close().await;
}

#[tokio::test]
async fn the_database_refuses_authorities_that_cannot_be() {
    let world = world().await;
    world
        .sql(
            "INSERT INTO authorities VALUES ('user', 'stable', 'a', NULL, 1), ('node', 'sign', 'b', 'c', 1);
             INSERT INTO retired_authorities VALUES ('SHA256:x', 'user', 'gone', 1)",
        )
        .await
        .unwrap();
    for (statement, refusal) in [
        (
            "INSERT INTO authorities VALUES ('host', 'sign', 'a', NULL, 1)",
            "CHECK",
        ),
        (
            "INSERT INTO authorities VALUES ('host', 'stable', 'a', 'b', 1)",
            "CHECK",
        ),
        (
            "INSERT INTO authorities VALUES ('host', 'announce', 'a', 'a', 1)",
            "CHECK",
        ),
        (
            "INSERT INTO authorities VALUES ('tls', 'stable', 'a', NULL, 1)",
            "CHECK",
        ),
        (
            "INSERT INTO authorities VALUES ('host', 'stable', 'gone', NULL, 1)",
            "retired key",
        ),
        (
            "UPDATE authorities SET stage = 'announce', other = 'gone' WHERE kind = 'user'",
            "retired key",
        ),
        (
            "UPDATE authorities SET stage = 'sign', other = 'b' WHERE kind = 'user'",
            "turn that way",
        ),
        (
            "UPDATE authorities SET signing = 'z', stage = 'announce', other = 'a' WHERE kind = 'user'",
            "turn that way",
        ),
        (
            "UPDATE authorities SET stage = 'announce' WHERE kind = 'node'",
            "turn that way",
        ),
        (
            "UPDATE authorities SET stage = 'stable', other = NULL, signing = 'z' WHERE kind = 'node'",
            "turn that way",
        ),
        ("DELETE FROM retired_authorities", "stays retired"),
        (
            "UPDATE retired_authorities SET key = 'other'",
            "stays retired",
        ),
    ] {
        let error = world.sql(statement).await.expect_err(statement).to_string();
        assert!(error.contains(refusal), "{statement}: {error}");
    }
    // What has signed till now signs no more.
    let request = world.file("root").await;
    world.approve(request).await;
    let by = print(&world.state.authorities().unwrap().node.record.signing);
    let mut elsewhere = world.elsewhere().await;
    sqlx::query("INSERT INTO retired_authorities VALUES ($1, 'node', 'k', 1)")
        .bind(by)
        .execute(&mut elsewhere)
        .await
        .unwrap();
    let error = world.issue("root").await.unwrap_err().to_string();
    assert!(
        error.contains("a retired authority issues nothing"),
        "{error}"
    );
}

/// An agent that has the node CA's key, and asks the test before it signs.
struct SlowAgent {
    asked: mpsc::Receiver<oneshot::Sender<bool>>,
    _dir: TempDir,
}

impl SlowAgent {
    /// Has `world` sign access certificates by it.
    async fn of(world: &World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent");
        let listener = UnixListener::bind(&socket).unwrap();
        let (ask, asked) = mpsc::channel(1);
        tokio::spawn(async move {
            let key = Key::from_seed("node", &[17; 32]);
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let length = stream.read_u32().await.unwrap();
                let mut question = vec![0; length as usize];
                stream.read_exact(&mut question).await.unwrap();
                let part = |at: usize| {
                    let length = u32::from_be_bytes(question[at..at + 4].try_into().unwrap());
                    at + 4..at + 4 + length as usize
                };
                let message = part(part(1).end);
                let (say, said) = oneshot::channel();
                ask.send(say).await.unwrap();
                if said.await != Ok(true) {
                    continue;
                }
                let signature: Signature = key.private_key().try_sign(&question[message]).unwrap();
                let mut blob = Vec::new();
                signature.encode(&mut blob).unwrap();
                let mut answer = vec![14];
                answer.extend((blob.len() as u32).to_be_bytes());
                answer.extend(blob);
                stream.write_u32(answer.len() as u32).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        let mut authorities = authorities();
        let key = Key::from_seed("node", &[17; 32]).public_key().clone();
        authorities.node.sign_in_agent(key);
        authorities.agent = Some(Arc::new(CaAgent::new(socket)));
        world.state.adopt(authorities, Vec::new()).await.unwrap();
        Self { asked, _dir: dir }
    }

    /// Waits until it is asked; the answer is the test's.
    async fn is_asked(&mut self) -> oneshot::Sender<bool> {
        self.asked.recv().await.unwrap()
    }
}

impl World {
    fn issuing(&self) -> tokio::task::JoinHandle<Result<Issued, IssueError>> {
        let (state, access, subject) = (self.state.clone(), self.access("root"), self.subject());
        tokio::spawn(async move { state.issue(&me("alice"), &access, subject).await })
    }

    async fn issued(&self) -> usize {
        let created = |(event, done): &(String, bool)| event == "cert.create" && *done;
        self.events()
            .await
            .iter()
            .filter(|entry| created(entry))
            .count()
    }
}

#[tokio::test]
async fn a_signature_from_an_agent_makes_a_certificate_that_is_recorded_once() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    let mut agent = SlowAgent::of(&world).await;
    let issuing = world.issuing();
    let answer = agent.is_asked().await;
    // The writer does not wait for it.
    let other = world.file("deploy").await;
    assert_eq!(world.state_of(other), RequestState::Pending);
    assert_eq!(world.issued().await, 0);
    world.clock.advance(Duration::seconds(3));
    answer.send(true).unwrap();
    let issued = issuing.await.unwrap().unwrap();
    assert_eq!(world.issued().await, 1);
    // Its minute began when the signature was asked for.
    let ends = issued.certificate.valid_before();
    assert_eq!((ends - world.state.now()).whole_seconds(), 57);
    world.verify().await.unwrap();
}

#[tokio::test]
async fn what_is_taken_away_while_the_agent_signs_is_not_issued() {
    for away in ["lock", "revoke"] {
        let world = world().await;
        let request = world.file("root").await;
        world.approve(request).await;
        let mut agent = SlowAgent::of(&world).await;
        let issuing = world.issuing();
        let answer = agent.is_asked().await;
        if away == "lock" {
            let lock = Lock {
                id: name("9a5bd1e3-0000-4000-8000-000000000001"),
                target: LockTarget::User(name("alice")),
                message: String::new(),
                created: world.state.now(),
                created_by: Actor::LocalAdministrator.to_string(),
                expires: None,
            };
            let object = vec![Object::Lock(lock)];
            world
                .state
                .put(&admin(), object, Existing::Refuse)
                .await
                .unwrap();
        } else {
            world.clock.advance(Duration::days(8));
        }
        answer.send(true).unwrap();
        let refused = issuing.await.unwrap();
        let refused = refused.map(|issued| issued.certificate.valid_before());
        assert!(
            matches!(
                refused,
                Err(IssueError::NotPermitted(_) | IssueError::Authority(_))
            ),
            "{away}: {refused:?}"
        );
        assert_eq!(world.issued().await, 0, "{away}");
        world.verify().await.unwrap();
    }
}

#[tokio::test]
async fn an_agent_that_does_not_sign_is_unavailable_to_people_and_explained_in_no_certificate() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    let mut agent = SlowAgent::of(&world).await;
    let issuing = world.issuing();
    agent.is_asked().await.send(false).unwrap();
    let refused = issuing.await.unwrap().unwrap_err();
    assert!(
        matches!(
            refused,
            IssueError::Authority(Unavailable(AuthorityKind::Node))
        ),
        "{refused}"
    );
    assert!(
        refused
            .to_string()
            .starts_with("certificate authority unavailable")
    );
    assert_eq!(world.issued().await, 0);
    let failed = |(event, done): &(String, bool)| event == "cert.create" && !done;
    let failed = world
        .events()
        .await
        .iter()
        .filter(|entry| failed(entry))
        .count();
    assert_eq!(
        failed, 1,
        "the refusal is in the log, and what was only drafted is not"
    );
    // It is asked anew each time, so it recovers by itself.
    let issuing = world.issuing();
    agent.is_asked().await.send(true).unwrap();
    issuing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_signature_that_comes_too_late_is_not_used() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    let mut agent = SlowAgent::of(&world).await;
    let issuing = world.issuing();
    let answer = agent.is_asked().await;
    world.clock.advance(Duration::seconds(46));
    answer.send(true).unwrap();
    let refused = issuing.await.unwrap().unwrap_err();
    assert!(matches!(refused, IssueError::Authority(_)), "{refused}");
    assert_eq!(world.issued().await, 0);
}

#[tokio::test]
async fn a_ca_that_is_exchanged_while_the_agent_signs_signs_anew() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    let mut agent = SlowAgent::of(&world).await;
    let issuing = world.issuing();
    let answer = agent.is_asked().await;
    // Back to a key that is here.
    world.state.adopt(authorities(), Vec::new()).await.unwrap();
    answer.send(true).unwrap();
    let issued = issuing.await.unwrap().unwrap();
    let signed_by = PublicKey::from(issued.certificate.as_ssh().signature_key().clone());
    let signs = &world.state.authorities().unwrap().node.record.signing;
    assert_eq!(print(&signed_by), print(signs));
    assert_eq!(world.issued().await, 1);
}
