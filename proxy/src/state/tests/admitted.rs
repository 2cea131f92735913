//! Who began a command with a key that counts no more when it comes to be done: nothing is.

use anteroom_ca::host::{CertifyHostError, HostTerms};
use anteroom_core::admin::{AdminResource, AdminVerb};
use anteroom_core::lock::{Lock, LockTarget};
use anteroom_core::policy::Reason;

use super::identities::{home, present};
use anteroom_ca::key::HostCa;
use rand::rngs::StdRng;

use super::*;

fn no_certificate(
    _: HostTerms,
    _: &HostCa,
    _: &mut StdRng,
) -> Result<anteroom_ca::Certificate, CertifyHostError> {
    panic!("nothing is to be certified")
}

impl World {
    async fn lock(&self, target: LockTarget) {
        let lock = Lock {
            id: name(&Uuid::new_v4().to_string()),
            target,
            message: "stolen laptop".to_owned(),
            created: START,
            created_by: String::new(),
            expires: None,
        };
        self.state
            .put(&admin(), vec![Object::Lock(lock)], Existing::Refuse)
            .await
            .unwrap();
    }

    /// Whatever an administrator can have done is refused, and everything is as it was.
    async fn does_nothing(&self, who: &Identity, what: &str) {
        let id = self.file("root").await;
        let by = By::user(who.clone(), home());
        let before = self.state.view();
        let key = who.key().clone();
        let put = self
            .state
            .put(
                &by,
                vec![Object::User(user("mallory", &["boss"]))],
                Existing::Refuse,
            )
            .await;
        assert!(
            matches!(put, Err(PutError::NotAdmitted(_))),
            "{what}: {put:?}"
        );
        let updated = self
            .state
            .update_user(&by, &name("carol"), |user| {
                user.keys.push(user_key("mallory"));
                Ok::<(), String>(())
            })
            .await;
        assert!(
            matches!(updated, Err(UpdateError::Put(PutError::NotAdmitted(_)))),
            "{what}: {updated:?}"
        );
        let updated = self
            .state
            .update_node(&by, self.node, |_| Ok::<(), String>(()))
            .await;
        assert!(
            matches!(updated, Err(UpdateError::Put(PutError::NotAdmitted(_)))),
            "{what}: {updated:?}"
        );
        let removed = self
            .state
            .remove(&by, vec![ObjectId::User(name("bob"))])
            .await;
        assert!(
            matches!(removed, Err(RemoveError::NotAdmitted(_))),
            "{what}: {removed:?}"
        );
        let filed = self
            .state
            .file_for(&by, &name("alice"), self.wanted("deploy"))
            .await;
        assert!(
            matches!(filed, Err(FileError::NotAdmitted(_))),
            "{what}: {filed:?}"
        );
        let reviewed = self
            .state
            .review(who, id, approval(), "", Some(home()))
            .await;
        assert!(
            matches!(reviewed, Err(ReviewError::NotAdmitted(_))),
            "{what}: {reviewed:?}"
        );
        let approve = Action::Approve {
            terms: Terms::default(),
            reason: String::new(),
        };
        for action in [approve, Action::Assume { key }] {
            let applied = self.state.apply(&by, id, action).await;
            assert!(
                matches!(applied, Err(ApplyError::NotAdmitted(_))),
                "{what}: {applied:?}"
            );
        }
        let certified = self
            .state
            .issue_node_host(&by, self.node, Duration::HOUR, no_certificate)
            .await;
        assert!(
            matches!(certified, Err(IssueError::NotAdmitted(_))),
            "{what}: {certified:?}"
        );
        let after = self.state.view();
        assert!(after.user(&name("mallory")).is_none(), "{what}");
        assert_eq!(
            after.users().collect::<Vec<_>>(),
            before.users().collect::<Vec<_>>(),
            "{what}"
        );
        assert_eq!(after.request(&id), before.request(&id), "{what}");
        self.verify().await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_was_locked_meanwhile_does_nothing_though_its_user_may() {
    let world = world().await;
    let who = me("carol");
    world.lock(LockTarget::Key(who.key().clone())).await;
    world.does_nothing(&who, "locked key").await;
}

#[tokio::test]
async fn a_key_that_was_removed_meanwhile_does_nothing_though_its_user_may() {
    let world = world().await;
    let carol = User {
        keys: vec![user_key("other")],
        ..user("carol", &["judge", "boss"])
    };
    world
        .state
        .put(&admin(), vec![Object::User(carol)], Existing::Replace)
        .await
        .unwrap();
    world.does_nothing(&me("carol"), "removed key").await;
    // Her other key does it.
    let fingerprint = user_key("other").fingerprint;
    let by = By::user(
        Identity::from_proven_key(name("carol"), fingerprint),
        home(),
    );
    world
        .state
        .put(
            &by,
            vec![Object::User(user("dave", &["boss"]))],
            Existing::Refuse,
        )
        .await
        .unwrap();
}

#[tokio::test]
async fn a_certificate_that_was_revoked_or_is_over_does_nothing() {
    for revoked in [true, false] {
        let world = world().await;
        let issued = world.login(&me("carol"), &[]).await.unwrap();
        let who = present(&world.state, &issued.certificate).unwrap();
        let who = who.into_identity();
        if revoked {
            world.drop_all(&who).await.unwrap();
        } else {
            world.clock.set(issued.certificate.valid_before());
        }
        world.does_nothing(&who, "certificate").await;
    }
}

#[tokio::test]
async fn a_host_certificate_takes_the_right_to_change_nodes_when_it_is_issued() {
    let world = world().await;
    let by = By::user(me("bob"), home());
    let certified = world
        .state
        .issue_node_host(&by, world.node, Duration::HOUR, no_certificate)
        .await;
    let Err(IssueError::NotAllowed(refused)) = certified else {
        panic!("{certified:?}");
    };
    assert_eq!(
        (refused.verb, refused.resource),
        (AdminVerb::Update, AdminResource::Node)
    );
}

#[tokio::test]
async fn a_user_without_proof_is_nobody() {
    let world = world().await;
    let by = By {
        identity: None,
        ..By::user(me("carol"), home())
    };
    let put = world
        .state
        .put(&by, vec![Object::Node(node("other"))], Existing::Refuse)
        .await;
    assert!(matches!(
        put,
        Err(PutError::NotAdmitted(NotAdmitted(Reason::UnknownKey)))
    ));
}
