//! One object in a Kubernetes cluster at the moment of use: what roles deny stays denied, however
//! wide the pattern is that was asked for and approved.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use std::collections::BTreeSet;

use anteroom_core::documents::{self, Document};
use anteroom_core::id::ResourceId;
use anteroom_core::kube::{KubeVerb, OneObject};
use anteroom_core::policy::reaches_object;
use anteroom_core::request::Wanted;
use anteroom_core::view::View;
use world::*;

const ROLES: &str = r"
kind: role
version: v8
metadata: {name: kube}
spec:
  allow:
    kubernetes_labels: {'*': '*'}
    kubernetes_resources:
      - {kind: '*', api_group: '*', namespace: '*', name: '*', verbs: ['*']}
---
kind: role
version: v8
metadata: {name: asker}
spec: {allow: {request: {search_as_roles: [kube]}}}
---
kind: role
version: v8
metadata: {name: denies}
spec:
  deny:
    kubernetes_resources:
      - {kind: secrets, namespace: prod, name: '^root-.*$'}
      - {kind: pods, namespace: 'kube-*', name: '*'}
      - {kind: pods, namespace: '*', name: '*', verbs: [exec]}
---
kind: role
version: v8
metadata: {name: reviews}
spec: {allow: {review_requests: {roles: ['*']}}}
";

fn id(short: &str) -> ResourceId {
    format!("/example.com/{short}").parse().unwrap()
}

/// alice with these roles and an approved request for what `asked` names.
fn granted(held: &[&str], asked: &[&str]) -> View {
    let text = "kind: kube_cluster\nversion: v3\nmetadata: {name: local}\nspec: {}\n";
    let documents = documents::parse(text).unwrap();
    let [Document::Resource(cluster)] = documents.as_slice() else {
        panic!("a cluster")
    };
    let view = with_roles(small(), ROLES)
        .with_resources([cluster.clone()])
        .with_users([
            a_user("alice", &[0], held, &[]),
            a_user("bob", &[2], &["reviews"], &[]),
        ]);
    let ids: BTreeSet<ResourceId> = asked.iter().map(|short| id(short)).collect();
    let request = filed(&view, &alice(), &Wanted::resources(ids), 1, T0);
    let open = approved(&view, &request, T0);
    view.with_request(open)
}

fn may(view: &View, verb: KubeVerb, short: &str) -> bool {
    let object = OneObject::of(&id(short)).unwrap_or_else(|| panic!("{short}"));
    reaches_object(view, &alice(), &object, verb, T0)
}

#[test]
fn a_denied_object_stays_denied_under_every_wider_spelling() {
    for asked in [
        "kube:ns:secrets/local/prod/*",
        "kube:ns:secrets/local/*/*",
        "kube:ns:secrets/local/prod/root-*",
        "kube:ns:secrets/local/prod/^[a-z]+-.*$",
        "kube:ns:*.*/local/prod/*",
        "kube:ns:*.*/local/*/*",
        "kube_cluster/local",
    ] {
        let free = granted(&["asker"], &[asked]);
        let view = granted(&["asker", "denies"], &[asked]);
        for name in ["root-token", "root-", "root-a-b"] {
            let object = format!("kube:ns:secrets/local/prod/{name}");
            assert!(may(&free, KubeVerb::Get, &object), "{asked}: {object}");
            assert!(!may(&view, KubeVerb::Get, &object), "{asked}: {object}");
        }
        // What is asked for and not denied works all the same.
        let object = "kube:ns:secrets/local/prod/web-token";
        let wanted = !asked.contains("root-");
        assert_eq!(may(&view, KubeVerb::Get, object), wanted, "{asked}");
    }
}

#[test]
fn a_denied_verb_takes_that_verb_and_no_other() {
    let view = granted(&["asker", "denies"], &["kube:ns:pods/local/*/*"]);
    for (verb, object, works) in [
        (KubeVerb::Get, "kube:ns:pods/local/dev/web", true),
        (KubeVerb::Exec, "kube:ns:pods/local/dev/web", false),
        (KubeVerb::Get, "kube:ns:pods/local/kube-system/dns", false),
        (KubeVerb::Get, "kube:ns:configmaps/local/dev/web", false),
        (KubeVerb::Get, "kube:cw:nodes/local/n1", false),
    ] {
        assert_eq!(may(&view, verb, object), works, "{verb:?} {object}");
    }
    // With the end of the request it is over, and without one nothing is reached.
    let object = OneObject::of(&id("kube:ns:pods/local/dev/web")).unwrap();
    assert!(!reaches_object(
        &view,
        &alice(),
        &object,
        KubeVerb::Get,
        at(60 * 24)
    ));
}

#[test]
fn only_an_exact_object_can_be_decided_on() {
    for short in [
        "kube:ns:pods/local/dev/*",
        "kube:ns:pods/local/*/web",
        "kube:ns:pods/local/dev/^web$",
        "kube:ns:*.*/local/dev/web",
        "kube:ns:deployments.*/local/dev/web",
        "kube:cw:nodes/local/*",
        "kube_cluster/local",
        "db/orders",
    ] {
        assert_eq!(OneObject::of(&id(short)), None, "{short}");
    }
    for short in [
        "kube:ns:pods/local/dev/web",
        "kube:ns:deployments.apps/local/dev/web",
        "kube:cw:namespaces/local/prod",
    ] {
        assert!(OneObject::of(&id(short)).is_some(), "{short}");
    }
}
