//! Locks on the real store: nothing is issued under one, in any race, and they end by themselves.

use anteroom_core::id::LockId;
use anteroom_core::lock::{Lock, LockTarget};

use super::*;

fn lock(target: LockTarget) -> Lock {
    Lock {
        id: LockId::from_uuid(Uuid::new_v4()),
        target,
        message: "stolen laptop".to_owned(),
        created: OffsetDateTime::UNIX_EPOCH,
        created_by: String::new(),
        expires: None,
    }
}

impl World {
    async fn put_lock(&self, lock: Lock) -> Result<Vec<Stored>, PutError> {
        let objects = vec![Object::Lock(lock)];
        self.state.put(&admin(), objects, Existing::Refuse).await
    }

    async fn rm_lock(&self, id: LockId) {
        let ids = vec![ObjectId::Lock(id)];
        self.state.remove(&admin(), ids).await.unwrap();
    }

    async fn verifies(&self) {
        self.state.reader().verify(Vec::new()).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_issued_under_a_lock_of_any_kind_and_again_when_it_is_gone() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    let fingerprint = fingerprint(&key("alice")).to_string();
    let targets = [
        LockTarget::User(name("alice")),
        LockTarget::Key(name(&fingerprint)),
        LockTarget::Role(name("asker")),
        LockTarget::Role(name("entry")),
        LockTarget::Request(request),
        LockTarget::Login(name("root")),
        LockTarget::Node(world.node),
    ];
    for target in targets {
        world.issue("root").await.unwrap();
        let lock = lock(target.clone());
        let id = lock.id;
        world.put_lock(lock).await.unwrap();
        match world.issue("root").await {
            Err(IssueError::NotPermitted(decision)) => match *decision {
                Decision::Deny(denial) => {
                    let said = denial.reasons[0].as_sentence();
                    assert!(said.contains("stolen laptop"), "{target}: {said}");
                }
                other @ (Decision::Permit(_) | Decision::Ask(_)) => panic!("{target}: {other:?}"),
            },
            other => panic!("{target}: {other:?}"),
        }
        world.rm_lock(id).await;
    }
    world.issue("root").await.unwrap();
    world.verifies().await;
}

#[tokio::test]
async fn a_lock_is_kept_with_who_made_it_and_when_over_a_restart() {
    let world = world().await;
    let carol = By::user(me("carol"), name::<SocketAddr>("203.0.113.5:1"));
    let made = lock(LockTarget::User(name("alice")));
    let objects = vec![Object::Lock(made.clone())];
    world
        .state
        .put(&carol, objects, Existing::Refuse)
        .await
        .unwrap();
    let World {
        dir, clock, state, ..
    } = world;
    state.close().await;
    drop(state);
    let state = open(dir.path(), &clock).await.unwrap();
    let view = state.view();
    let kept = view.locks().get(&made.id).unwrap();
    assert_eq!((kept.created_by.as_str(), kept.created), ("carol", START));
    assert_eq!(kept.message, made.message);
    let filter = AuditFilter {
        event: Some(Event::LockCreate),
        ..AuditFilter::default()
    };
    let logged = state.reader().audit(&filter, 0, 10).await.unwrap();
    let fields = logged[0].fields();
    assert_eq!(fields["name"], "user/alice");
    assert_eq!(fields["user"], "carol");
    assert_eq!(fields["lock_id"], made.id.to_string().as_str());
    assert_eq!(fields["reason"], "stolen laptop");
}

#[tokio::test]
async fn a_lock_ends_by_itself_and_wakes_the_watchers() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    let ends = Lock {
        expires: Some(START + Duration::minutes(5)),
        ..lock(LockTarget::Login(name("root")))
    };
    world.put_lock(ends).await.unwrap();
    world.clock.advance(Duration::minutes(5) - Duration::SECOND);
    world.state.expire_due().await.unwrap();
    assert!(matches!(world.decide("root"), Decision::Deny(_)));
    let mut changes = world.state.changes();
    changes.borrow_and_update();
    world.clock.advance(Duration::SECOND);
    changes.changed().await.unwrap();
    assert!(matches!(world.decide("root"), Decision::Permit(_)));
    assert!(world.state.view().locks().is_empty());
    world.issue("root").await.unwrap();
    world.verifies().await;
}

#[tokio::test]
async fn a_lock_that_would_be_over_and_one_too_many_for_its_maker_are_refused() {
    let world = world().await;
    let over = Lock {
        expires: Some(START),
        ..lock(LockTarget::User(name("alice")))
    };
    let refused = world.put_lock(over).await;
    assert!(
        matches!(refused, Err(PutError::Lock(LockError::Over(_)))),
        "{refused:?}"
    );
    assert!(world.state.view().locks().is_empty());
    // bob's roles don't let him lock.
    let bob = By::user(me("bob"), name::<SocketAddr>("203.0.113.5:1"));
    let objects = vec![Object::Lock(lock(LockTarget::User(name("alice"))))];
    let refused = world.state.put(&bob, objects, Existing::Refuse).await;
    assert!(
        matches!(refused, Err(PutError::NotAllowed(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn whoever_leaves_nobody_to_unlock_is_told_how_to_get_out_again() {
    let world = world().await;
    let stored = world
        .put_lock(lock(LockTarget::Role(name("boss"))))
        .await
        .unwrap();
    let warning = &stored[0].warnings[0];
    assert!(warning.contains("anteroom ctl locks rm"), "{warning}");
    let stored = world
        .put_lock(lock(LockTarget::User(name("alise"))))
        .await
        .unwrap();
    let warning = &stored[0].warnings[0];
    assert!(warning.contains("no user `alise`"), "{warning}");
}

/// Locks and unlocks race with issuing. Whatever the order: what was issued was issued outside of
/// every lock, by the order of the log, which is the order of the commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_any_race_nothing_is_issued_between_a_lock_and_its_end() {
    let world = Arc::new(world().await);
    let request = world.file("root").await;
    world.approve(request).await;
    let issuing: Vec<_> = (0..4)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let mut issued = 0;
                for _ in 0..40 {
                    match world.issue("root").await {
                        Ok(_) => issued += 1,
                        Err(IssueError::NotPermitted(_)) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                issued
            })
        })
        .collect();
    let targets = [
        LockTarget::User(name("alice")),
        LockTarget::Login(name("root")),
        LockTarget::Node(world.node),
        LockTarget::Request(request),
    ];
    let locking: Vec<_> = targets
        .into_iter()
        .map(|target| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                for _ in 0..10 {
                    let lock = lock(target.clone());
                    let id = lock.id;
                    world.put_lock(lock).await.unwrap();
                    let refused = world.issue("root").await;
                    assert!(
                        refused.is_err(),
                        "issued after the lock on {target} was told of"
                    );
                    world.rm_lock(id).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for task in locking {
        task.await.unwrap();
    }
    let mut issued = 0;
    for task in issuing {
        issued += task.await.unwrap();
    }
    println!("{issued} of 160 were issued");
    world.verifies().await;
}

#[tokio::test]
async fn the_database_itself_refuses_an_issuance_under_a_lock() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    world.issue("root").await.unwrap();
    let mut elsewhere = elsewhere(world.dir.path()).await;
    let copy = "INSERT INTO issuances SELECT '7', kind, user, key_id, principals, subject, request_id, session_id, \
         node_id, login, substr(cert_sha256, 2) || 'x', valid_after, valid_before, issued, 1, user_key, authority FROM issuances \
         WHERE kind = 'node' LIMIT 1";
    let targets = [
        LockTarget::User(name("alice")),
        LockTarget::Key(name(&fingerprint(&key("alice")).to_string())),
        LockTarget::Role(name("asker")),
        LockTarget::Request(request),
        LockTarget::Login(name("root")),
        LockTarget::Node(world.node),
    ];
    for target in targets {
        let lock = lock(target.clone());
        let id = lock.id;
        world.put_lock(lock).await.unwrap();
        let copied = sqlx::query(copy).execute(&mut elsewhere).await;
        let error = copied.unwrap_err().to_string();
        assert!(
            error.contains("nothing is issued under a lock"),
            "{target:?}: {error}"
        );
        world.rm_lock(id).await;
    }
    // Without a lock the same is refused for nothing of that kind.
    let copied = sqlx::query(copy).execute(&mut elsewhere).await;
    let error = copied.err().map(|error| error.to_string());
    assert!(error.is_none_or(|error| !error.contains("under a lock")));
}

#[tokio::test]
async fn a_certificate_logged_under_a_lock_is_named() {
    let world = world().await;
    let request = world.file("root").await;
    world.approve(request).await;
    let entry = Entry::new(Event::LockCreate)
        .lock_id("made up")
        .name("login/root");
    world.state.audit(entry).await.unwrap();
    world.issue("root").await.unwrap();
    match world.state.reader().verify(Vec::new()).await {
        Err(VerifyError::Broken(broken)) => assert!(
            broken.iter().any(|one| matches!(one, Broken::IssuedUnderLock { target, .. } if target == "login/root")),
            "{broken:?}"
        ),
        other => panic!("{other:?}"),
    }
}

fn proxy_certificate(
    terms: anteroom_ca::host::HostTerms,
    ca: &HostCa,
    rng: &mut rand::rngs::StdRng,
) -> Result<anteroom_ca::Certificate, anteroom_ca::host::CertifyHostError> {
    let names = anteroom_ca::names::HostNames::new(["example.com"], [""; 0]).unwrap();
    anteroom_ca::host::certify_proxy(&names, &key("proxy"), terms, ca, rng)
}

#[tokio::test]
async fn a_lock_on_a_user_called_as_the_proxy_once_was_leaves_the_log_whole() {
    let world = world().await;
    world
        .put_lock(lock(LockTarget::User(name("anteroom"))))
        .await
        .unwrap();
    world
        .state
        .issue_host(Duration::DAY, proxy_certificate)
        .await
        .unwrap();
    world.verifies().await;
    // As earlier versions wrote it.
    let as_before = |draft: &mut Draft, ticket: &super::super::signing::Ticket| {
        let entry = Entry::new(Event::CertCreate).user("anteroom");
        let certify = &proxy_certificate;
        super::super::certificates::issue_host(draft, ticket, Duration::DAY, None, entry, certify)
    };
    world
        .state
        .write_signed(as_before)
        .await
        .map_err(|error: IssueError| error.to_string())
        .unwrap();
    world.verifies().await;
}

#[tokio::test]
async fn a_lock_on_who_had_a_host_certificate_made_leaves_the_log_whole() {
    let world = world().await;
    let by = By::user(me("carol"), None);
    let on_carol = lock(LockTarget::User(name("carol")));
    world
        .state
        .issue_node_host(&by, world.node, Duration::DAY, proxy_certificate)
        .await
        .unwrap();
    world.put_lock(on_carol).await.unwrap();
    world.verifies().await;
}

#[tokio::test]
async fn a_certificate_of_a_person_that_is_passed_off_as_a_hosts_is_found() {
    let world = world().await;
    world.login(&me("alice"), &[]).await.unwrap();
    world.verifies().await;
    let forged = world.sql("DROP TRIGGER issuances_final; UPDATE issuances SET kind = 'host'");
    forged.await.unwrap();
    let Err(VerifyError::Broken(broken)) = world.verify().await else {
        panic!("it verifies");
    };
    assert!(
        matches!(broken.as_slice(), [Broken::IssuanceDiffers { .. }]),
        "{broken:?}"
    );
}
