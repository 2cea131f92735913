//! What is read as a document, and the exact words with which everything else is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod golden;

use anteroom_core::documents::{self, Document};
use anteroom_core::node::HostProof;

/// Each case of `bad_documents.txt` is `### NAME`, the text, a separator and the error.
#[test]
fn every_bad_document_is_refused_with_its_line_and_field() {
    const SEPARATOR: &str = "--- is refused with\n";
    let cases = include_str!("bad_documents.txt");
    let mut actual = String::new();
    for case in cases.split("### ").skip(1) {
        let (name, rest) = case.split_once('\n').expect("a case has a name");
        let (text, _) = rest.split_once(SEPARATOR).expect("a case has a separator");
        let error = documents::parse(text).expect_err(name).to_string();
        assert!(
            !error.contains('\n'),
            "{name}: an error is one line: {error}"
        );
        actual.push_str(&format!("### {name}\n{text}{SEPARATOR}{error}\n\n"));
    }
    golden::compare("bad_documents.txt", &actual);
}

fn role(text: &str) -> anteroom_core::role::Role {
    documents::parse_role(text).expect("the role is read")
}

#[test]
fn json_is_read_as_yaml_is() {
    let yaml = role(
        "kind: role\nmetadata: {name: x}\nspec: {allow: {logins: [root], node_labels: {env: [a, b]}}}\n",
    );
    let json = role(
        r#"{"kind":"role","metadata":{"name":"x"},"spec":{"allow":{"logins":["root"],"node_labels":{"env":["a","b"]}}}}"#,
    );
    assert_eq!(yaml, json);
}

#[test]
fn the_items_of_a_list_are_documents_each() {
    let one = "{kind: role, version: v7, metadata: {name: one}, spec: {}}";
    let two = "{kind: role, version: v7, metadata: {name: two}, spec: {}}";
    let three = "{kind: role, version: v7, metadata: {name: three}, spec: {}}";
    let listed = documents::parse(&format!("[{one}, {two}]\n---\n{three}\n")).unwrap();
    let apart = documents::parse(&format!("{one}\n---\n{two}\n---\n{three}\n")).unwrap();
    assert_eq!(listed, apart);
    assert!(documents::parse(&format!("[{one}, {one}]")).is_err());
}

#[test]
fn a_role_read_back_from_its_source_is_the_same_role() {
    for preset in anteroom_core::preset::presets() {
        assert_eq!(role(&preset.source.to_string()), preset);
        let yaml = documents::to_yaml(&preset.source).unwrap();
        assert_eq!(role(&yaml), preset, "{yaml}");
    }
}

#[test]
fn a_v3_role_without_labels_selects_every_node_and_a_v4_role_none() {
    let text = |version| {
        format!(
            "kind: role\nversion: {version}\nmetadata: {{name: x}}\nspec: {{allow: {{logins: [root]}}}}\n"
        )
    };
    let everything = anteroom_core::selector::LabelSelector::everything();
    assert_eq!(role(&text("v3")).allow.node_labels, everything);
    assert!(role(&text("v4")).allow.node_labels.is_empty());
    assert!(
        role("kind: role\nmetadata: {name: x}\n")
            .allow
            .node_labels
            .is_empty()
    );
}

#[test]
fn a_user_document_goes_there_and_back() {
    let text = "kind: user\nversion: v2\nmetadata: {name: alice@example.com}\nspec:\n  roles: [requester]\n  traits: {logins: [alice, root], team: [blue]}\n  keys: ['ssh-ed25519 AAAA alice']\n";
    let documents = documents::parse(text).unwrap();
    let [Document::User(user)] = documents.as_slice() else {
        panic!("one user")
    };
    assert_eq!(
        user.logins.iter().map(|l| l.as_str()).collect::<Vec<_>>(),
        ["alice", "root"]
    );
    assert_eq!(user.traits["team"], ["blue"]);
    assert_eq!(user.keys, ["ssh-ed25519 AAAA alice"]);
    let mut stored = anteroom_core::user::User::new(user.name.clone());
    stored.roles = user.roles.clone();
    stored.logins = user.logins.clone();
    stored.traits = user.traits.clone();
    stored.locked = Some("left".to_owned());
    let yaml = documents::to_yaml(&documents::user_to_json(&stored)).unwrap();
    let again = documents::parse(&yaml).unwrap();
    let mut expected = user.clone();
    expected.keys.clear();
    expected.locked = Some("left".to_owned());
    assert_eq!(again, [Document::User(expected)], "{yaml}");
}

#[test]
fn a_node_document_goes_there_and_back_with_its_uuid() {
    let text = "kind: node\nmetadata: {name: iot, labels: {env: staging}}\nspec: {addr: '[2001:db8::7]:22', host_keys: ['ssh-ed25519 AAAA']}\n";
    let documents = documents::parse(text).unwrap();
    let [Document::Node(document)] = documents.as_slice() else {
        panic!("one node")
    };
    assert_eq!(document.id, None);
    let node = anteroom_core::node::Node {
        id: "bbb56211-7b54-4f9e-bee9-b68ea156be5f".parse().unwrap(),
        name: document.name.clone(),
        addr: document.addr.clone(),
        labels: document.labels.clone(),
        said_labels: Default::default(),
        host_proof: document.host_proof.clone(),
        egress_addresses: vec!["192.0.2.0/24".to_owned()],
    };
    let yaml = documents::to_yaml(&documents::node_to_json(&node)).unwrap();
    let again = documents::parse(&yaml).unwrap();
    let [Document::Node(again)] = again.as_slice() else {
        panic!("one node")
    };
    assert_eq!(again.id, Some(node.id));
    assert_eq!(again.name, node.name);
    assert_eq!(again.addr, node.addr);
    assert_eq!(again.labels, node.labels);
    assert_eq!(
        again.host_proof,
        HostProof::Pinned(vec!["ssh-ed25519 AAAA".to_owned()])
    );
    assert_eq!(again.egress_addresses, node.egress_addresses);
}
