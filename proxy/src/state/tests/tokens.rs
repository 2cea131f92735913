//! Tokens on the real store: one use is one node in any race, nothing of a secret is kept, and what was there is
//! there after a restart.

use anteroom_core::enrol::{Asked, HostKey, Place, Refused};
use anteroom_core::id::TokenId;
use anteroom_core::node::NodeAddr;
use anteroom_core::token::{MOST_TOKENS, Token, TokenKind};

use super::*;
use crate::enrol::{Secret, random_word};

fn token(id: &str, secret: &Secret, uses: u32) -> Token {
    Token {
        id: name(id),
        kind: TokenKind::Node,
        node: None,
        addr: None,
        labels: Default::default(),
        uses,
        created: OffsetDateTime::UNIX_EPOCH,
        created_by: String::new(),
        expires: START + Duration::hours(1),
        secret_sha256: secret.sha256(),
        uses_left: uses,
        enrolled: Vec::new(),
    }
}

fn asked(called: &str, secret: &Secret) -> Asked {
    let key = key(called);
    Asked {
        secret_sha256: secret.sha256(),
        id: NodeId::from_uuid(Uuid::new_v4()),
        name: Some(name(called)),
        labels: Default::default(),
        place: Place::Unsaid {
            source: NodeAddr::parse("192.0.2.8:22").unwrap(),
            verdict: Ok(()),
        },
        host_keys: vec![HostKey {
            openssh: PublicKey::from(key.key_data().clone())
                .to_openssh()
                .unwrap(),
            fingerprint: name(&fingerprint(&key).to_string()),
        }],
    }
}

fn from() -> SocketAddr {
    "192.0.2.8:50022".parse().unwrap()
}

impl World {
    async fn put_token(&self, token: Token) -> Result<Vec<Stored>, PutError> {
        let objects = vec![Object::Token(token)];
        self.state.put(&admin(), objects, Existing::Refuse).await
    }
}

fn is_refused(outcome: &Result<Enrolled, EnrolError>) -> bool {
    matches!(outcome, Err(EnrolError::Refused(Refused::Token)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_use_is_one_node_however_many_show_the_token_at_once() {
    let world = world().await;
    let secret = Secret::shown("a secret");
    world.put_token(token("t1", &secret, 1)).await.unwrap();
    let before = world.state.view().nodes().count();
    let tasks = (0..40).map(|n| {
        let (state, asked) = (world.state.clone(), asked(&format!("m{n}"), &secret));
        tokio::spawn(async move { state.enrol(asked, from()).await })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut came_in = 0;
    for task in tasks {
        let outcome = task.await.unwrap();
        came_in += usize::from(outcome.is_ok());
        assert!(outcome.is_ok() || is_refused(&outcome), "{outcome:?}");
    }
    assert_eq!(came_in, 1);
    assert_eq!(world.state.view().nodes().count(), before + 1);
    world.state.reader().verify(Vec::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_machine_at_once_is_one_node() {
    let world = world().await;
    let secret = Secret::shown("a secret");
    world.put_token(token("t1", &secret, 1)).await.unwrap();
    let before = world.state.view().nodes().count();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (state, asked) = (world.state.clone(), asked("m1", &secret));
            tokio::spawn(async move { state.enrol(asked, from()).await })
        })
        .collect();
    let (mut ids, mut new) = (BTreeSet::new(), 0);
    for task in tasks {
        let enrolled = task.await.unwrap().unwrap();
        ids.insert(enrolled.node.id);
        new += usize::from(!enrolled.again);
    }
    assert_eq!((ids.len(), new), (1, 1));
    assert_eq!(world.state.view().nodes().count(), before + 1);
}

#[tokio::test]
async fn a_restart_forgets_neither_uses_nor_who_came_in() {
    let world = world().await;
    let secret = Secret::shown("a secret");
    world.put_token(token("t1", &secret, 2)).await.unwrap();
    let first = world
        .state
        .enrol(asked("m1", &secret), from())
        .await
        .unwrap();
    let World {
        dir,
        clock,
        state,
        node,
    } = world;
    state.close().await;
    let state = open(dir.path(), &clock).await.unwrap();
    let world = World {
        dir,
        clock,
        state,
        node,
    };
    let view = world.state.view();
    let kept = view.token(&name::<TokenId>("t1")).unwrap();
    assert_eq!(
        (kept.uses_left, kept.enrolled.as_slice()),
        (1, [first.node.id].as_slice())
    );
    assert_eq!(kept.created, START);
    let again = world
        .state
        .enrol(asked("m1", &secret), from())
        .await
        .unwrap();
    assert!(again.again && again.node.id == first.node.id);
    world
        .state
        .enrol(asked("m2", &secret), from())
        .await
        .unwrap();
    let third = world.state.enrol(asked("m3", &secret), from()).await;
    assert!(is_refused(&third), "{third:?}");
}

#[tokio::test]
async fn a_token_ends_by_itself_and_the_next_of_its_name_knows_nobody() {
    let world = world().await;
    let secret = Secret::shown("a secret");
    world.put_token(token("t1", &secret, 1)).await.unwrap();
    let first = world.state.enrol(asked("m1", &secret), from()).await;
    let first = first.unwrap();
    world.clock.advance(Duration::minutes(61));
    let late = world.state.enrol(asked("m1", &secret), from()).await;
    assert!(is_refused(&late), "{late:?}");
    world.state.expire_due().await.unwrap();
    // Whoever comes late is told so for a while.
    assert_eq!(world.state.view().tokens().len(), 1);
    world.clock.advance(Duration::minutes(60));
    world.state.expire_due().await.unwrap();
    assert_eq!(world.state.view().tokens().len(), 0);
    let other = Secret::shown("another secret");
    let next = Token {
        expires: START + Duration::hours(3),
        ..token("t1", &other, 1)
    };
    world.put_token(next).await.unwrap();
    let id = token("t1", &other, 1).id;
    let uses = |world: &World| {
        let view = world.state.view();
        let token = view.token(&id).unwrap();
        (token.uses_left, token.enrolled.len())
    };
    assert_eq!(uses(&world), (1, 0));
    // The machine of before stays its node, and that is a use like any other.
    let again = world.state.enrol(asked("m1", &other), from()).await;
    let again = again.unwrap();
    assert!(again.again && again.node == first.node);
    assert_eq!(uses(&world), (0, 1));
    let refused = world.state.enrol(asked("m2", &other), from()).await;
    assert!(is_refused(&refused), "{refused:?}");
}

#[tokio::test]
async fn a_token_that_is_replaced_has_another_secret_and_its_uses_again() {
    let world = world().await;
    let (old, new) = (Secret::shown("old"), Secret::shown("new"));
    world.put_token(token("t1", &old, 1)).await.unwrap();
    let exists = world.put_token(token("t1", &new, 1)).await;
    assert!(matches!(exists, Err(PutError::Exists(_))), "{exists:?}");
    let objects = vec![Object::Token(token("t1", &new, 1))];
    let put = world.state.put(&admin(), objects, Existing::Replace).await;
    assert_eq!(put.unwrap()[0].written, Written::Replaced);
    assert!(is_refused(
        &world.state.enrol(asked("m1", &old), from()).await
    ));
    world.state.enrol(asked("m1", &new), from()).await.unwrap();
}

#[tokio::test]
async fn tokens_are_bounded_in_number_and_life() {
    let world = world().await;
    for expires in [START, START - Duration::SECOND] {
        let over = Token {
            expires,
            ..token("t", &Secret::shown("x"), 1)
        };
        let refused = world.put_token(over).await;
        assert!(
            matches!(refused, Err(PutError::Token(TokenError::Over(_)))),
            "{refused:?}"
        );
    }
    let long = Token {
        expires: START + Duration::days(8),
        ..token("t", &Secret::shown("x"), 1)
    };
    let refused = world.put_token(long).await;
    assert!(
        matches!(refused, Err(PutError::Token(TokenError::TooLong(_)))),
        "{refused:?}"
    );
    let all = (0..MOST_TOKENS).map(|n| {
        let secret = Secret::shown(&n.to_string());
        Object::Token(token(&format!("t{n}"), &secret, 1))
    });
    world
        .state
        .put(&admin(), all.collect(), Existing::Refuse)
        .await
        .unwrap();
    let refused = world
        .put_token(token("more", &Secret::shown("more"), 1))
        .await;
    assert!(
        matches!(refused, Err(PutError::Token(TokenError::TooMany))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_log_tells_who_came_in_by_what_and_never_the_secret() {
    let world = world().await;
    let shown = random_word(32, &mut rand::rng());
    let secret = Secret::shown(&shown);
    world.put_token(token("t1", &secret, 1)).await.unwrap();
    world
        .state
        .enrol(asked("m1", &secret), from())
        .await
        .unwrap();
    let refused = world.state.enrol(asked("m2", &secret), from()).await;
    assert!(is_refused(&refused));
    let log = world
        .state
        .reader()
        .audit(&AuditFilter::default(), 0, 1000)
        .await
        .unwrap();
    let text: Vec<String> = log.iter().map(|record| record.text.clone()).collect();
    let text = text.join("\n");
    assert!(!text.contains(&shown), "{text}");
    assert!(
        !text.contains("m2"),
        "who has no token writes no names: {text}"
    );
    for wanted in [
        "join_token.create",
        "instance.join",
        "node.create",
        "TJ001W",
        "\"delegator\"",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[tokio::test]
async fn who_is_removed_takes_her_tokens_with_her_and_her_namesake_has_none() {
    let world = world().await;
    let secret = Secret::shown("a secret");
    let made = vec![Object::Token(token("t1", &secret, 9))];
    let by = By::user(me("carol"), None);
    world.state.put(&by, made, Existing::Refuse).await.unwrap();
    let (first, again) = (asked("m1", &secret), asked("m2", &secret));
    world.state.enrol(first, from()).await.unwrap();
    let ids = vec![ObjectId::User(name("carol"))];
    world.state.remove(&admin(), ids).await.unwrap();
    assert_eq!(world.state.view().tokens().count(), 0);
    assert!(is_refused(&world.state.enrol(again, from()).await));
}
