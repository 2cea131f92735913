//! The golden table of role × node × login × request, and the rules that it can't show.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod golden;
mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anteroom_core::credential::AllowedResources;
use anteroom_core::policy::{
    Capability, Decision, Grant, Identity, Match, Outcome, Permit, Reason, Resolved, Via,
    Visibility, Whom, decide, explain, requestable_nodes, requestable_roles, resolve,
    visible_nodes,
};
use anteroom_core::request::{Action, Actor, FilingError, Wanted, apply, file};
use anteroom_core::view::View;
use world::*;

/// Roles of the table; each is the only standing role of the user named after it.
const ROLES: &str = r#"
kind: role
metadata: {name: staging}
spec: {allow: {logins: ['{{internal.logins}}', deploy], node_labels: {env: staging}}}
---
kind: role
metadata: {name: root-prod}
spec: {allow: {logins: [root], node_labels: {env: '^prod|staging$', team: [red, blue]}}}
---
kind: role
metadata: {name: no-root}
spec: {deny: {logins: [root]}, allow: {logins: [root, alice], node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: no-prod}
spec: {deny: {node_labels: {env: 'pr*'}}, allow: {logins: [alice], node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: labels-only}
spec: {allow: {node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: logins-only}
spec: {allow: {logins: [root, alice]}}
---
kind: role
metadata: {name: team-of-trait}
spec: {allow: {logins: [alice], node_labels: {team: '{{external.team}}'}}}
---
kind: role
metadata: {name: expression}
spec:
  allow:
    logins: [alice]
    node_labels_expression: labels["env"] == "prod" || contains(user.spec.traits["team"], labels["team"])
---
kind: role
metadata: {name: labels-and-expression}
spec:
  allow:
    logins: [alice]
    node_labels: {env: '^prod|staging$'}
    node_labels_expression: labels["team"] != "red"
---
kind: role
metadata: {name: no-labels-or-expression}
spec:
  deny:
    node_labels: {env: 'pr*'}
    node_labels_expression: '!exists(labels["env"])'
---
kind: role
metadata: {name: expression-fault}
spec:
  allow:
    logins: [alice]
    node_labels_expression: email.local("nobody") == "x" || true
---
kind: role
metadata: {name: no-expression-fault}
spec:
  deny:
    node_labels_expression: contains(email.local(user.spec.traits["team"]), "never")
---
kind: role
metadata: {name: search-expression}
spec: {allow: {request: {search_as_roles: [expression]}}}
---
kind: role
metadata: {name: search-wide}
spec: {allow: {request: {search_as_roles: [access, root-prod]}}}
---
kind: role
metadata: {name: search-denied}
spec:
  allow: {request: {search_as_roles: [access, root-prod]}}
  deny: {request: {search_as_roles: [access]}}
---
kind: role
metadata: {name: asks-staging}
spec: {allow: {request: {roles: [staging, 'root-*']}}}
---
kind: role
metadata: {name: demands}
spec:
  allow: {logins: [alice, backup], node_labels: {env: staging}, request: {search_as_roles: [root-prod]}}
  options: {request_access: always}
---
kind: role
metadata: {name: mail-login}
spec: {allow: {logins: ['{{email.local(external.mail)}}'], node_labels: {team: '{{regexp.replace(external.team, "^r(.*)$", "r$1")}}'}}}
---
kind: role
metadata: {name: asks-no-root}
spec: {allow: {logins: [root], node_labels: {env: staging}, request: {roles: [no-root]}}}
"#;

const HOLDINGS: [&[&str]; 24] = [
    &[],
    &["access"],
    &["staging"],
    &["root-prod"],
    &["no-root"],
    &["access", "no-root"],
    &["access", "no-prod"],
    &["labels-only", "logins-only"],
    &["team-of-trait"],
    &["requester"],
    &["search-wide"],
    &["search-denied"],
    &["requester", "no-root"],
    &["auditor", "editor", "reviewer"],
    &["expression"],
    &["labels-and-expression"],
    &["access", "no-labels-or-expression"],
    &["expression-fault"],
    &["access", "no-expression-fault"],
    &["search-expression", "no-labels-or-expression"],
    &["demands"],
    &["demands", "access"],
    &["demands", "no-root"],
    &["mail-login"],
];

fn table_view() -> View {
    let mut alice = a_user("alice", &[0, 1], &[], &["alice"]);
    alice
        .traits
        .insert("team".to_owned(), vec!["red".to_owned(), "*".to_owned()]);
    let mail = vec!["root@example.com".to_owned(), "nobody".to_owned()];
    alice.traits.insert("mail".to_owned(), mail);
    with_roles(small(), ROLES)
        .with_user(alice)
        .without_node(&node_id(1))
        .with_nodes([
            a_node(1, "iot", &[("env", "staging"), ("team", "red")]),
            a_node(2, "db", &[("env", "prod"), ("team", "blue")]),
            a_node(3, "test", &[("env", "xstaging"), ("team", "green")]),
            a_node(4, "bare", &[]),
        ])
}

/// One line of words for a decision.
fn words(decision: &Decision) -> String {
    match decision {
        Decision::Permit(permit) => match permit.grant() {
            Grant::Standing { role } => format!("permit  standing {role}"),
            Grant::Request { role, .. } => format!("permit  request {role}"),
        },
        Decision::Ask(ask) => {
            let roles: Vec<String> = ask.roles.iter().map(ToString::to_string).collect();
            let joins = ask.joins.map(|_| ", joins").unwrap_or_default();
            format!("ask     {}{joins}", roles.join(","))
        }
        Decision::Deny(denial) => {
            let visible = match denial.visibility {
                Visibility::Visible => "visible",
                Visibility::Hidden => "hidden",
            };
            let reasons: Vec<String> = denial.reasons.iter().map(Reason::as_sentence).collect();
            format!("deny    {visible}: {}", reasons.join("; "))
        }
    }
}

fn decide_at(view: &View, login: &str, node: u128, minutes: i64) -> Decision {
    decide(view, &alice(), &access(login, node), at(minutes))
}

#[test]
fn standing_access_is_as_the_reviewed_table_says() {
    let mut out = String::from("# standing roles × node × login\n");
    for held in HOLDINGS {
        let view = table_view();
        let mut alice = view.user(&user("alice")).unwrap().as_ref().clone();
        alice.roles = roles(held);
        let view = view.with_user(alice);
        writeln!(out, "\n[{}]", held.join(", ")).unwrap();
        for node in [1, 2, 3, 4, 9] {
            let name = view
                .node(&node_id(node))
                .map_or("(none)", |n| n.name.as_str())
                .to_owned();
            for login in ["alice", "root", "deploy"] {
                let decision = decide_at(&view, login, node, 0);
                writeln!(out, "{login:<6} on {name:<6}  {}", words(&decision)).unwrap();
            }
        }
    }
    golden::compare("decisions_standing.txt", &out);
}

/// What a request changes: one row per request and stage of its life.
#[test]
fn access_by_request_is_as_the_reviewed_table_says() {
    type Build = fn(&View) -> Wanted;
    let by_resource: Build = |view| {
        let id = format!("/{}/node/{}", view.cluster(), node_id(1));
        Wanted::resources(BTreeSet::from([id.parse().unwrap()]))
    };
    let cases: [(&str, &[&str], Build); 5] = [
        ("root on iot", &["requester"], wants_root_on_iot),
        ("all of iot", &["requester"], by_resource),
        ("role staging", &["asks-staging"], |_| {
            Wanted::roles(roles(&["staging"]))
        }),
        ("role root-prod", &["asks-staging"], |_| {
            Wanted::roles(roles(&["root-prod"]))
        }),
        ("role no-root, which denies", &["asks-no-root"], |_| {
            Wanted::roles(roles(&["no-root"]))
        }),
    ];
    let mut out = String::from("# request × stage × node × login\n");
    for (name, held, build) in cases {
        let view = with_logins(table_view(), held);
        let pending = filed(&view, &alice(), &build(&view), 7, at(0));
        let open = {
            let everyone = "kind: role\nmetadata: {name: reviewer}\nspec: {allow: {review_requests: {roles: ['*']}}}\n";
            approved(&with_roles(view.clone(), everyone), &pending, at(1))
        };
        let dropped = apply(
            &open,
            &Action::Drop { key: key(0) },
            &Actor::User(user("alice")),
            at(2),
        );
        let revoke = Action::Revoke {
            reason: String::new(),
        };
        let revoked = apply(&open, &revoke, &Actor::LocalAdministrator, at(2));
        let stages = [
            ("pending", pending, 0),
            ("approved", open.clone(), 2),
            ("approved, at its end", open, 12 * 60),
            ("dropped", dropped.unwrap(), 2),
            ("revoked", revoked.unwrap(), 2),
        ];
        for (stage, request, minutes) in stages {
            let view = view.clone().with_request(request);
            writeln!(out, "\n[{name}: {stage}]").unwrap();
            for node in [1, 2] {
                let node_name = view.node(&node_id(node)).unwrap().name.clone();
                for login in ["alice", "root", "deploy"] {
                    let decision = decide_at(&view, login, node, minutes);
                    writeln!(out, "{login:<6} on {node_name:<6}  {}", words(&decision)).unwrap();
                }
            }
        }
    }
    golden::compare("decisions_requests.txt", &out);
}

fn with_logins(view: View, held: &[&str]) -> View {
    view.with_user(a_user("alice", &[0, 1], held, &["alice", "root"]))
}

fn permit(decision: Decision) -> Permit {
    match decision {
        Decision::Permit(permit) => permit,
        Decision::Ask(_) | Decision::Deny(_) => panic!("not permitted: {}", words(&decision)),
    }
}

fn denial(decision: Decision) -> anteroom_core::policy::Denial {
    match decision {
        Decision::Deny(denial) => denial,
        Decision::Ask(_) | Decision::Permit(_) => panic!("not denied: {}", words(&decision)),
    }
}

/// A view in which alice's request for root on iot is approved, made at minute 0.
fn approved_view() -> View {
    let view = small();
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 7, at(0));
    let request = approved(&view, &request, at(1));
    view.with_request(request)
}

#[test]
fn a_permit_by_request_ends_when_the_access_ends_and_a_standing_one_does_not() {
    let view = approved_view();
    let by_request = permit(decide_at(&view, "root", 1, 1));
    assert_eq!(by_request.ends(), Some(at(12 * 60)));
    assert_eq!(by_request.request(), Some(request_id(7)));
    let carol = Identity::from_proven_key(user("carol"), key(3));
    let standing = permit(decide(&view, &carol, &access("carol", 1), at(1)));
    assert_eq!(standing.ends(), None);
    assert_eq!(standing.request(), None);
}

#[test]
fn at_its_end_the_access_is_over_and_the_instant_before_it_is_not() {
    let view = approved_view();
    let end = at(12 * 60);
    let root = access("root", 1);
    let before = end - time::Duration::NANOSECOND;
    assert!(matches!(
        decide(&view, &alice(), &root, before),
        Decision::Permit(_)
    ));
    assert!(matches!(
        decide(&view, &alice(), &root, end),
        Decision::Ask(_)
    ));
}

#[test]
fn a_grant_belongs_to_the_key_that_filed_it_until_another_takes_it_up() {
    let view = approved_view();
    let other = Identity::from_proven_key(user("alice"), key(1));
    let Decision::Ask(ask) = decide(&view, &other, &access("root", 1), at(2)) else {
        panic!("another key must not hold the grant")
    };
    assert_eq!(ask.assumable, [request_id(7)]);
    assert_eq!(ask.joins, None);
    let request = view.request(&request_id(7)).unwrap();
    let by = Actor::User(user("alice"));
    let request = apply(request, &Action::Assume { key: key(1) }, &by, at(2)).unwrap();
    let view = view.clone().with_request(request);
    permit(decide(&view, &other, &access("root", 1), at(2)));
    permit(decide_at(&view, "root", 1, 2));
}

#[test]
fn an_approved_request_dies_with_the_right_to_file_it() {
    let view = approved_view();
    let mut alice_ = view.user(&user("alice")).unwrap().as_ref().clone();
    alice_.roles.clear();
    let denial = denial(decide_at(&view.clone().with_user(alice_), "root", 1, 2));
    let role = role("access");
    assert_eq!(
        denial.reasons,
        [Reason::NoLongerRequestable {
            request: request_id(7),
            role
        }]
    );
    assert_eq!(denial.visibility, Visibility::Hidden);
    // And so does it with the role that it asks through.
    let decision = decide_at(&view.without_role(&world::role("access")), "root", 1, 2);
    assert!(matches!(decision, Decision::Deny(_)));
}

#[test]
fn a_locked_user_an_unregistered_key_and_an_unknown_user_get_nothing() {
    let view = approved_view();
    let mut locked = view.user(&user("alice")).unwrap().as_ref().clone();
    locked.locked = Some("left the company".to_owned());
    let reasons = |view: &View, identity: &Identity| {
        let denial = denial(decide(view, identity, &access("root", 1), at(2)));
        assert_eq!(denial.visibility, Visibility::Hidden);
        denial.reasons
    };
    let message = "left the company".to_owned();
    assert_eq!(
        reasons(&view.clone().with_user(locked), &alice()),
        [Reason::Locked { message }]
    );
    let stranger = Identity::from_proven_key(user("alice"), key(9));
    assert_eq!(reasons(&view, &stranger), [Reason::UnknownKey]);
    assert_eq!(
        reasons(&view.without_user(&user("alice")), &alice()),
        [Reason::UnknownUser]
    );
}

#[test]
fn a_request_for_a_node_gives_nothing_on_a_node_created_anew_under_its_name() {
    let view = approved_view()
        .without_node(&node_id(1))
        .with_node(a_node(2, "iot", &[]));
    assert!(matches!(decide_at(&view, "root", 2, 2), Decision::Ask(_)));
    let gone = denial(decide_at(&view, "root", 1, 2));
    assert_eq!(gone.reasons, [Reason::UnknownNode]);
}

/// Standing root everywhere, and two roles to ask through of which one denies the other's login.
const CANCELING: &str = "kind: role\nmetadata: {name: std}\nspec: {allow: {logins: [root], node_labels: {'*': '*'}, request: {search_as_roles: [wa, wb]}}}\n---\nkind: role\nmetadata: {name: wa}\nspec: {allow: {logins: [adm], node_labels: {'*': '*'}}}\n---\nkind: role\nmetadata: {name: wb}\nspec: {allow: {logins: [ops], node_labels: {'*': '*'}}, deny: {logins: [root, adm]}}\n---\nkind: role\nmetadata: {name: looks}\nspec: {allow: {review_requests: {roles: [wa, wb]}}}\n";

fn canceling() -> View {
    let view = with_roles(small(), CANCELING).with_nodes([a_node(2, "web", &[])]);
    let bob = a_user("bob", &[2], &["looks"], &[]);
    with_logins(view.with_users([bob]), &["std"])
}

fn on(node: u128, login: &str) -> anteroom_core::id::ResourceId {
    let login = login.parse().unwrap();
    anteroom_core::id::ResourceId::node_login("example.com".parse().unwrap(), node_id(node), login)
}

#[test]
fn an_approved_request_takes_no_standing_access_away() {
    let view = canceling();
    let wanted = Wanted::resources(BTreeSet::from([on(1, "ops")]));
    let request = filed(&view, &alice(), &wanted, 7, at(0));
    assert_eq!(request.roles, roles(&["wb"]));
    let request = approved(&view, &request, at(1));
    let view = view.with_request(request);
    for node in [1, 2] {
        let permit = permit(decide_at(&view, "root", node, 2));
        assert!(matches!(permit.grant(), Grant::Standing { .. }), "{node}");
    }
    assert_eq!(
        permit(decide_at(&view, "ops", 1, 2)).request(),
        Some(request_id(7))
    );
    // What the role denies can still be asked for through the other one.
    assert!(
        matches!(decide_at(&view, "adm", 1, 2), Decision::Ask(ask) if ask.roles == [role("wa")])
    );
    let logins = |node: u128| {
        let usable = visible_nodes(&view, &alice(), at(2)).into_iter();
        let mut usable = usable.filter(|usable| usable.node.id == node_id(node));
        usable
            .next()
            .unwrap()
            .logins
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(logins(1), ["ops", "root"]);
    assert_eq!(logins(2), ["root"]);
}

#[test]
fn a_role_of_a_request_speaks_against_all_that_the_request_gives() {
    let view = canceling();
    let wanted = Wanted::resources(BTreeSet::from([on(1, "adm")]));
    let mut request = approved(&view, &filed(&view, &alice(), &wanted, 7, at(0)), at(1));
    let granted = request.granted.as_mut().unwrap();
    granted.roles.insert(role("wb"));
    let view = view.with_request(request);
    assert!(!matches!(
        decide_at(&view, "adm", 1, 2),
        Decision::Permit(_)
    ));
}

#[test]
fn roles_that_cancel_each_other_are_not_asked_for_together() {
    let view = canceling();
    let both = Wanted::resources(BTreeSet::from([on(1, "adm"), on(1, "ops")]));
    let refused = file(&view, &alice(), &both, request_id(7), at(0)).unwrap_err();
    assert_eq!(refused, FilingError::RolesConflict(on(1, "adm")));
    // A whole node is what the rest gives of it.
    let id = on(1, "adm").without_logins();
    let whole = Wanted::resources(BTreeSet::from([id]));
    assert_eq!(
        filed(&view, &alice(), &whole, 7, at(0)).roles,
        roles(&["wb"])
    );
}

#[test]
fn a_reviewer_sees_the_labels_that_the_roles_he_previews_as_select() {
    let text = "kind: role\nmetadata: {name: staging-eyes}\nspec: {allow: {review_requests: {roles: ['*'], preview_as_roles: [staging-nodes]}}}\n---\nkind: role\nmetadata: {name: staging-nodes}\nspec: {allow: {node_labels: {env: staging}}}\n---\nkind: role\nmetadata: {name: not-secret}\nspec: {deny: {node_labels: {env: staging}}}\n";
    let nodes = [
        a_node(1, "iot", &[("env", "staging")]),
        a_node(2, "web", &[("env", "prod")]),
    ];
    let view = with_roles(with_logins(small(), &["requester"]), text).with_nodes(nodes);
    let wanted = Wanted::resources(BTreeSet::from([on(1, "root"), on(2, "root")]));
    let request = filed(&view, &alice(), &wanted, 7, at(0));
    let seen = |held: &[&str]| -> Vec<String> {
        let view = view
            .clone()
            .with_users([a_user("bob", &[2], held, &["root"])]);
        let bob = Identity::from_proven_key(user("bob"), key(2));
        let previews = anteroom_core::policy::previews(&view, &bob, &request, at(1));
        let words = previews
            .iter()
            .map(|seen| format!("{} {:?}", seen.name, seen.labels));
        words.collect()
    };
    assert_eq!(seen(&["staging-eyes"]), ["iot {\"env\": \"staging\"}"]);
    // What he may reach or ask for himself he may look at as well.
    assert_eq!(seen(&["requester"]).len(), 2);
    assert_eq!(seen(&["staging-eyes", "not-secret"]), [""; 0]);
    assert_eq!(seen(&[]), [""; 0]);
}

#[test]
fn an_explanation_tells_of_a_request_no_further_than_it_reaches() {
    let view = canceling();
    let wanted = Wanted::resources(BTreeSet::from([on(1, "ops")]));
    let request = approved(&view, &filed(&view, &alice(), &wanted, 7, at(0)), at(1));
    let view = view.with_request(request);
    let of = |login: &str, node: u128| {
        let who = alice();
        let explained = explain(&view, Whom::Identity(&who), &access(login, node), at(2));
        let mut found = explained.roles.into_iter();
        let found = found
            .find(|found| matches!(found.via, Via::Request(_)))
            .unwrap();
        (found.node == Match::Yes, found.login == Match::Yes)
    };
    assert_eq!(of("ops", 1), (true, true));
    assert_eq!(of("root", 1), (true, false));
    assert_eq!(of("ops", 2), (false, true));
}

#[test]
fn a_request_of_another_cluster_gives_nothing_here() {
    let view = approved_view();
    let mut request = view.request(&request_id(7)).unwrap().as_ref().clone();
    let granted = request.granted.as_mut().unwrap();
    let id = format!("/other.com/node/{}?logins=root", node_id(1))
        .parse()
        .unwrap();
    granted.reach = anteroom_core::request::Reach::Resources(BTreeSet::from([id]));
    assert!(matches!(
        decide_at(&view.with_request(request), "root", 1, 2),
        Decision::Ask(_)
    ));
}

#[test]
fn an_empty_list_of_resources_grants_nothing() {
    let view = approved_view();
    let mut request = view.request(&request_id(7)).unwrap().as_ref().clone();
    let granted = request.granted.as_mut().unwrap();
    granted.reach = anteroom_core::request::Reach::Resources(BTreeSet::new());
    assert!(matches!(
        decide_at(&view.with_request(request), "root", 1, 2),
        Decision::Ask(_)
    ));
}

#[test]
fn the_role_with_the_fewest_logins_that_fits_is_asked_for() {
    let few = "kind: role\nmetadata: {name: z-few}\nspec: {allow: {logins: [root], node_labels: {'*': '*'}}}\n---\nkind: role\nmetadata: {name: asks}\nspec: {allow: {request: {search_as_roles: [access, z-few]}}}\n";
    let view = with_logins(with_roles(small(), few), &["asks"]);
    let ask = |login| match decide_at(&view, login, 1, 0) {
        Decision::Ask(ask) => ask,
        other @ (Decision::Permit(_) | Decision::Deny(_)) => panic!("{}", words(&other)),
    };
    assert_eq!(ask("root").roles, [role("z-few")]);
    assert_eq!(ask("alice").roles, [role("access")]);
    assert_eq!(
        ask("root").resource.to_string(),
        format!("/example.com/node/{}?logins=root", node_id(1))
    );
}

#[test]
fn forwarding_is_what_the_granting_roles_say() {
    let capabilities = |options: &str| {
        let text = format!(
            "kind: role\nmetadata: {{name: access}}\nspec: {{options: {{{options}}}, allow: {{logins: [carol], node_labels: {{'*': '*'}}}}}}\n"
        );
        let view = with_roles(small(), &text);
        let carol = Identity::from_proven_key(user("carol"), key(3));
        let c = *permit(decide(&view, &carol, &access("carol", 1), at(0))).capabilities();
        assert_eq!(c.pty, Capability::Allowed);
        let flags = [
            (c.local_forwarding, "L"),
            (c.remote_forwarding, "R"),
            (c.agent_forwarding, "A"),
            (c.x11_forwarding, "X"),
            (c.file_copy, "F"),
        ];
        flags
            .iter()
            .filter(|(c, _)| c.is_allowed())
            .map(|(_, letter)| *letter)
            .collect::<String>()
    };
    assert_eq!(capabilities(""), "LF");
    assert_eq!(capabilities("port_forwarding: true"), "LRF");
    assert_eq!(capabilities("port_forwarding: false"), "F");
    assert_eq!(
        capabilities("ssh_port_forwarding: {remote: {enabled: true}}"),
        "LRF"
    );
    assert_eq!(
        capabilities("ssh_port_forwarding: {local: {enabled: false}}"),
        "F"
    );
    let both = "port_forwarding: true, ssh_port_forwarding: {remote: {enabled: false}}";
    assert_eq!(capabilities(both), "LF");
    let both = "port_forwarding: false, ssh_port_forwarding: {local: {enabled: true}}";
    assert_eq!(capabilities(both), "LF");
    assert_eq!(
        capabilities("forward_agent: true, permit_x11_forwarding: true"),
        "LAXF"
    );
    assert_eq!(capabilities("ssh_file_copy: false"), "L");
}

#[test]
fn capabilities_of_a_role_that_does_not_grant_the_access_do_not_count() {
    let text = "kind: role\nmetadata: {name: agent-on-prod}\nspec: {options: {forward_agent: true}, allow: {logins: [carol], node_labels: {env: prod}}}\n";
    let view = with_roles(small(), text).with_user(a_user(
        "carol",
        &[3],
        &["access", "agent-on-prod"],
        &["carol"],
    ));
    let carol = Identity::from_proven_key(user("carol"), key(3));
    let permit_ = permit(decide(&view, &carol, &access("carol", 1), at(0)));
    assert_eq!(permit_.capabilities().agent_forwarding, Capability::Refused);
}

#[test]
fn names_resolve_to_what_the_user_may_know_and_to_nothing_else() {
    let hidden = "kind: role\nmetadata: {name: access}\nspec: {allow: {logins: ['{{internal.logins}}'], node_labels: {env: staging}}}\n";
    let view = with_roles(small(), hidden)
        .with_node(a_node(2, "iot", &[("env", "prod")]))
        .with_node(a_node(3, "twin", &[("env", "staging")]))
        .with_node(a_node(4, "twin", &[("env", "staging")]));
    let find = |text: &str| resolve(&view, &alice(), &text.parse().unwrap(), at(0));
    assert_eq!(
        find("iot"),
        Resolved::One(node_id(1)),
        "the hidden one makes nothing ambiguous"
    );
    assert_eq!(find(&node_id(2).to_string()), Resolved::Unknown);
    assert_eq!(find(&node_id(3).to_string()), Resolved::One(node_id(3)));
    assert_eq!(
        find(&format!("/example.com/node/{}", node_id(3))),
        Resolved::One(node_id(3))
    );
    assert_eq!(
        find(&format!("/other.com/node/{}", node_id(3))),
        Resolved::Unknown
    );
    assert_eq!(find("nowhere"), Resolved::Unknown);
    let Resolved::Ambiguous(twins) = find("twin") else {
        panic!("two nodes share the name")
    };
    assert_eq!(
        twins.iter().map(|n| n.id).collect::<Vec<_>>(),
        [node_id(3), node_id(4)]
    );
    let stranger = Identity::from_proven_key(user("alice"), key(9));
    assert_eq!(
        resolve(&view, &stranger, &"iot".parse().unwrap(), at(0)),
        Resolved::Unknown
    );
}

#[test]
fn listings_agree_with_decisions_on_every_node_and_login() {
    for held in HOLDINGS {
        let view = table_view();
        let mut user_ = view.user(&user("alice")).unwrap().as_ref().clone();
        user_.roles = roles(held);
        let view = view.with_user(user_);
        let usable = visible_nodes(&view, &alice(), at(0));
        let askable = requestable_nodes(&view, &alice(), at(0));
        // What a role holds back until a request unlocks it may be known.
        let free = with_roles(view.clone(), &ROLES.replace(": always", ": optional"));
        let unlocked = visible_nodes(&free, &alice(), at(0));
        for node in [1, 2, 3, 4] {
            for login in ["alice", "root", "deploy", "nobody"] {
                let login_: anteroom_core::id::Login = login.parse().unwrap();
                let listed = usable
                    .iter()
                    .any(|u| u.node.id == node_id(node) && u.logins.contains(&login_));
                let offered = askable
                    .iter()
                    .any(|a| a.node.id == node_id(node) && a.logins.contains_key(&login_));
                let decision = decide_at(&view, login, node, 0);
                assert_eq!(
                    matches!(decision, Decision::Permit(_)),
                    listed,
                    "{held:?} {login} {node}"
                );
                assert_eq!(
                    matches!(decision, Decision::Ask(_)),
                    offered,
                    "{held:?} {login} {node}"
                );
                // An explanation says the same, and so does the visibility of a denial.
                let explained =
                    explain(&view, Whom::Identity(&alice()), &access(login, node), at(0));
                match (&decision, &explained.outcome) {
                    (Decision::Permit(permit), Outcome::Permitted { grant, .. }) => {
                        assert_eq!(permit.grant(), grant);
                    }
                    (Decision::Ask(a), Outcome::Askable(b)) => assert_eq!(a, b.as_ref()),
                    (Decision::Deny(a), Outcome::Denied(b)) => {
                        assert_eq!(a, b);
                        let known = unlocked.iter().any(|u| u.node.id == node_id(node))
                            || askable.iter().any(|a| a.node.id == node_id(node));
                        assert_eq!(a.visibility == Visibility::Visible, known);
                    }
                    (Decision::Permit(_) | Decision::Ask(_) | Decision::Deny(_), _) => {
                        panic!("{held:?} {login} {node}: {explained:?}")
                    }
                }
            }
        }
    }
}

#[test]
fn an_explanation_is_for_the_certificate_that_was_presented() {
    let root = a_user("alice", &[0], &["access"], &["root"]);
    let view = small().with_user(root).with_node(a_node(2, "db", &[]));
    let iot = format!("/example.com/node/{}", node_id(1)).parse().unwrap();
    let only_iot = AllowedResources::Only(BTreeSet::from([iot]));
    let (view, restricted) = certified(view, &["access"], only_iot);
    let outcome = |whom, node| explain(&view, whom, &access("root", node), at(1)).outcome;
    let permits = |outcome: &Outcome| matches!(outcome, Outcome::Permitted { .. });
    assert!(permits(&outcome(Whom::Identity(&restricted), 1)));
    assert!(!permits(&outcome(Whom::Identity(&restricted), 2)));
    assert!(permits(&outcome(Whom::Identity(&alice()), 2)));
}

#[test]
fn an_explanation_names_each_role_and_who_could_review() {
    let view = small();
    let explained = explain(&view, Whom::User(&user("alice")), &access("root", 1), at(0));
    let said: Vec<String> = explained
        .roles
        .iter()
        .map(|f| {
            format!(
                "{} {:?} node={:?} login={:?}",
                f.role, f.via, f.node, f.login
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "requester Standing node=No login=No",
            "access Requestable node=Yes login=Yes"
        ]
    );
    assert_eq!(explained.reviewers, [user("bob")]);
}

#[test]
fn roles_that_can_be_asked_for_exist_and_are_not_held() {
    let view = with_logins(table_view(), &["asks-staging", "staging"]);
    let names: Vec<String> = requestable_roles(&view, &alice(), at(0))
        .iter()
        .map(|r| r.name.to_string())
        .collect();
    assert_eq!(names, ["root-prod"]);
}
