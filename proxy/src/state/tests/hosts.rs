//! Host certificates of nodes: which of them count after another one was issued, and after a node was changed.

use anteroom_ca::host::{HostTerms, certify_node};
use anteroom_ca::key::HostCa;
use anteroom_core::lock::{Lock, LockTarget};
use rand::rngs::StdRng;

use super::*;
use crate::store::HostCertificate;

impl World {
    async fn host_certificate(
        &self,
        of: &PublicKey,
    ) -> Result<anteroom_ca::Certificate, IssueError> {
        let (node, key) = (self.node, of.clone());
        let certify = move |terms: HostTerms, ca: &HostCa, rng: &mut StdRng| {
            certify_node(&node, &[], &key, terms, ca, rng)
        };
        self.state
            .issue_node_host(&admin(), node, Duration::DAY, certify)
            .await
    }

    async fn known(&self) -> Vec<HostCertificate> {
        let (reader, now) = (self.state.reader(), self.state.now());
        reader.host_certificates_of(self.node, now).await.unwrap()
    }

    /// How many certificates for this key count, and how many do not.
    async fn counts(&self, key: &PublicKey) -> (usize, usize) {
        let key = fingerprint(key).to_string();
        let known = self.known().await;
        let mine = known.iter().filter(|one| one.key == key);
        let (revoked, good): (Vec<_>, Vec<_>) = mine.partition(|one| one.revoked.is_some());
        (good.len(), revoked.len())
    }

    async fn prove_by(&self, host_proof: HostProof) {
        let change = move |node: &mut Node| {
            node.host_proof = host_proof;
            Ok::<(), String>(())
        };
        self.state
            .update_node(&admin(), self.node, change)
            .await
            .unwrap();
    }
}

fn ecdsa() -> PublicKey {
    let line = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBEmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRgg6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg=";
    PublicKey::from_openssh(line).unwrap()
}

#[tokio::test]
async fn a_renewal_leaves_the_older_certificate_and_another_key_of_the_type_takes_its_place() {
    let world = world().await;
    let (old, new, other) = (key("old"), key("new"), ecdsa());
    world.host_certificate(&old).await.unwrap();
    world.host_certificate(&other).await.unwrap();
    world.host_certificate(&old).await.unwrap();
    assert_eq!(world.counts(&old).await, (2, 0));
    let issued = world.host_certificate(&new).await.unwrap();
    assert_eq!(world.counts(&old).await, (0, 2));
    assert_eq!(world.counts(&new).await, (1, 0));
    assert_eq!(world.counts(&other).await, (1, 0), "of another type");
    let last = world.known().await.remove(0);
    assert_eq!(last.serial, issued.serial().get());
    assert_eq!(last.sha256, crate::audit::hex(&issued.sha256()));
    world.verify().await.unwrap();
    // What is revoked stays so, whatever is issued later, and is known after a restart.
    world.host_certificate(&old).await.unwrap();
    assert_eq!(world.counts(&old).await, (1, 2));
    for sql in [
        "UPDATE host_certificates SET revoked = NULL, why = NULL",
        "UPDATE host_certificates SET valid_before = valid_before + 1",
        "DELETE FROM host_certificates",
    ] {
        assert!(world.sql(sql).await.is_err(), "{sql}");
    }
    world.verify().await.unwrap();
}

#[tokio::test]
async fn certificates_of_a_node_that_is_removed_or_known_by_other_keys_are_revoked() {
    let world = world().await;
    let (mine, other) = (key("mine"), key("other"));
    world.host_certificate(&mine).await.unwrap();
    let pinned = |key: &PublicKey| HostProof::Pinned(vec![key.to_openssh().unwrap()]);
    world.prove_by(pinned(&mine)).await;
    world.prove_by(HostProof::HostCa).await;
    assert_eq!(world.counts(&mine).await, (1, 0), "its own key");
    world.prove_by(pinned(&other)).await;
    assert_eq!(world.counts(&mine).await, (0, 1));
    // A change of something else revokes nothing.
    world.host_certificate(&mine).await.unwrap();
    world.prove_by(pinned(&other)).await;
    assert_eq!(world.counts(&mine).await, (1, 1));
    let id = vec![ObjectId::Node(world.node)];
    world.state.remove(&admin(), id).await.unwrap();
    assert_eq!(world.counts(&mine).await, (0, 2));
    world.verify().await.unwrap();
}

#[tokio::test]
async fn a_locked_host_key_gets_no_certificate_from_the_state_nor_from_the_database() {
    let world = world().await;
    let mine = key("mine");
    let lock = Lock {
        id: name(&Uuid::new_v4().to_string()),
        target: LockTarget::Key(name(&fingerprint(&mine).to_string())),
        message: "stolen disk".to_owned(),
        created: START,
        created_by: String::new(),
        expires: None,
    };
    let put = vec![Object::Lock(lock)];
    world
        .state
        .put(&admin(), put, Existing::Refuse)
        .await
        .unwrap();
    let refused = world.host_certificate(&mine).await.unwrap_err();
    assert!(
        matches!(refused, IssueError::KeyLocked { .. }),
        "{refused:?}"
    );
    assert!(refused.to_string().contains("stolen disk"), "{refused}");
    assert!(world.known().await.is_empty());
    world.host_certificate(&key("other")).await.unwrap();
    let written = world
        .sql(
            "INSERT INTO issuances (serial, kind, key_id, principals, subject, node_id, cert_sha256, \
             valid_after, valid_before, issued, audit_seq) \
             SELECT '7', 'host', 'node', '[\"x\"]', target, 'n', \
             '0000000000000000000000000000000000000000000000000000000000000000', 1, 2, 1, 1 FROM locks",
        )
        .await;
    let refused = written.unwrap_err().to_string();
    assert!(
        refused.contains("nothing is issued under a lock"),
        "{refused}"
    );
}
