//! `spec.options` in decisions, and what a document of Teleport's may carry.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "tests fail by panicking"
)]

mod world;

use anteroom_core::documents;
use anteroom_core::policy::{
    Ask, Decision, Grant, Permit, Reason, Visibility, decide, drop_requests, requestable_nodes,
    visible_nodes,
};
use anteroom_core::request::{Filed, FilingError, Wanted, file};
use anteroom_core::role::{Demand, Options, ReasonMode, RequestAccess};
use anteroom_core::view::View;
use time::Duration;
use world::*;

fn options(text: &str) -> Options {
    let text = format!("kind: role\nmetadata: {{name: x}}\nspec: {{options: {{{text}}}}}\n");
    documents::parse_role(&text)
        .unwrap_or_else(|error| panic!("{error}"))
        .options
}

#[test]
fn values_that_ask_for_nothing_change_nothing() {
    for text in [
        "",
        "cert_extensions: [], cert_format: standard",
        "create_db_user: false, create_db_user_mode: off, create_desktop_user: no",
        "create_host_user: false, create_host_user_mode: off, create_host_user_default_shell: ''",
        "desktop_clipboard: true, desktop_directory_sharing: false, device_trust_mode: off",
        "enhanced_recording: [network, command], idp: {saml: {enabled: true}}",
        "record_session: {default: best_effort, desktop: true}, lock: best_effort",
        "disconnect_expired_cert: yes, max_kubernetes_connections: 0, pin_source_ip: false",
        "mfa_verification_interval: 0s, require_session_mfa: off, request_access: optional",
        "require_certificate: false, require_review_mfa: false",
        "client_idle_timeout: never, max_connections: 0, max_sessions: 0, request_prompt: ''",
    ] {
        assert_eq!(options(text), Options::default(), "{text}");
    }
}

#[test]
fn what_roles_demand_is_read() {
    let demands = |text: &str| options(text).demands;
    assert_eq!(
        demands("require_certificate: true, pin_source_ip: yes"),
        [Demand::Certificate, Demand::PinnedCertificate].into()
    );
    assert_eq!(
        demands("require_session_mfa: 'yes', require_review_mfa: true"),
        [Demand::SessionMfa, Demand::ReviewMfa].into()
    );
    assert_eq!(
        demands("require_certificate: off, require_session_mfa: 'no'"),
        [].into()
    );
}

/// alice may enter as root by `access`, and has `strict`, which says `options`.
fn with_strict(text: &str) -> View {
    let view = with_roles(
        small(),
        &format!("kind: role\nmetadata: {{name: strict}}\nspec: {{options: {{{text}}}}}\n"),
    );
    view.with_user(a_user("alice", &[0], &["access", "strict"], &["root"]))
}

fn enters(view: &View, who: &anteroom_core::policy::Identity) -> Result<(), Vec<Reason>> {
    match decide(view, who, &access("root", 1), at(1)) {
        Decision::Permit(_) => Ok(()),
        Decision::Deny(denial) => Err(denial.reasons),
        Decision::Ask(ask) => panic!("{ask:?}"),
    }
}

#[test]
fn a_demand_counts_whichever_role_says_it_and_is_met_by_nothing_less() {
    use anteroom_core::credential::AllowedResources::Unrestricted;
    let role: anteroom_core::id::RoleName = "strict".parse().unwrap();
    let certificate = [Reason::CertificateDemanded { role: role.clone() }];
    let pin = [Reason::PinDemanded { role: role.clone() }];
    let second_factor = [Reason::SecondFactorDemanded { role }];
    // A certificate that does not name the role is held to it all the same.
    for held in [&["access"][..], &["access", "strict"]] {
        let view = with_strict("require_certificate: true");
        assert_eq!(enters(&view, &alice()).unwrap_err(), certificate);
        let (view, with_certificate) = certified(view, held, Unrestricted);
        assert_eq!(enters(&view, &with_certificate), Ok(()));
        assert_eq!(enters(&view, &alice()).unwrap_err(), certificate);
        let view = with_strict("pin_source_ip: true");
        assert_eq!(enters(&view, &alice()), Ok(()));
        let (view, unpinned) = certified(view, held, Unrestricted);
        assert_eq!(enters(&view, &unpinned).unwrap_err(), pin);
        // What takes its place is pinned, or it would open nothing either.
        let here: std::net::IpAddr = "192.0.2.7".parse().unwrap();
        let none = std::collections::BTreeSet::new();
        let next = drop_requests(&view, &unpinned, &none, Some(here), at(1)).unwrap();
        assert_eq!(next.claims().pinned, Some(here));
        let view = with_strict("require_session_mfa: true, require_certificate: true");
        let (view, with_certificate) = certified(view, held, Unrestricted);
        for who in [alice(), with_certificate.clone()] {
            assert_eq!(enters(&view, &who).unwrap_err(), second_factor);
        }
        let with_both = with_certificate.with_second_factor(at(0));
        assert_eq!(enters(&view, &with_both), Ok(()));
        let with_code = alice().with_second_factor(at(0));
        assert_eq!(enters(&view, &with_code).unwrap_err(), certificate);
    }
}

#[test]
fn teleport_spells_booleans_in_words_too() {
    assert_eq!(options("forward_agent: yes").forward_agent, Some(true));
    assert_eq!(options("ssh_file_copy: off").ssh_file_copy, Some(false));
}

/// What `tctl get role/access` prints, without the fields for other things than nodes.
#[test]
fn an_exported_role_of_teleports_is_read() {
    let text = "\
kind: role
metadata:
  description: Access cluster resources
  id: 1717171717171717171
  labels:
    teleport.internal/resource-type: preset
  name: access
  namespace: default
  revision: 5e5b2e1c-6a8e-4cf0-8a1f-9f8f8f0f3c11
spec:
  allow:
    logins: ['{{internal.logins}}']
    namespaces: [default]
    node_labels: {'*': '*'}
    host_groups: []
    impersonate: {}
    rules:
      - resources: [event]
        verbs: [list, read]
      - resources: [instance, cluster_maintenance_config]
        verbs: [list, read]
      - resources: [user]
        verbs: [list, readnosecrets]
      - resources: [device, integration]
        verbs: [list, use, enroll, create_enroll_token]
  deny: {}
  options:
    cert_format: standard
    create_db_user: false
    create_desktop_user: false
    desktop_clipboard: true
    desktop_directory_sharing: true
    enhanced_recording: [command, network]
    forward_agent: true
    idp: {saml: {enabled: true}}
    max_session_ttl: 30h0m0s
    pin_source_ip: false
    port_forwarding: true
    record_session: {default: best_effort, desktop: true}
    ssh_file_copy: true
version: v7
";
    let role = documents::parse_role(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(role.options.max_session_ttl, Some(Duration::hours(30)));
    let again = documents::parse_role(&role.source.to_string()).unwrap();
    assert_eq!(again, role);
    // The words for which there is nothing here give nothing; the others what they say.
    let view = with_roles(small(), &documents::to_yaml(&role.source).unwrap());
    let view = view.with_user(a_user("ed", &[], &["access"], &[]));
    use anteroom_core::admin::{AdminResource, AdminVerb, Rights};
    for resource in AdminResource::ALL {
        for verb in AdminVerb::ALL {
            let expected = matches!(
                (resource, verb),
                (AdminResource::Event, AdminVerb::List | AdminVerb::Read)
                    | (AdminResource::User, AdminVerb::List | AdminVerb::Read)
            );
            let may = Rights::new(&view, &user("ed"), verb, resource).exist();
            assert_eq!(may, expected, "{verb:?} {resource:?}");
        }
    }
}

/// alice, who stands with `standing` and may ask for `access` by connection and `more` by name.
fn demanding(options: &str, standing: &[&str]) -> View {
    let text = format!(
        "kind: role
metadata: {{name: demanding}}
spec:
  allow:
    logins: [root, backup]
    node_labels: {{env: staging}}
    request: {{search_as_roles: [access], roles: [more]}}
  options: {{{options}}}
---
kind: role
metadata: {{name: relaxed}}
spec:
  allow: {{logins: [ops], node_labels: {{'*': '*'}}}}
---
kind: role
metadata: {{name: more}}
spec:
  allow: {{logins: [dba], node_labels: {{'*': '*'}}}}
"
    );
    with_roles(small(), &text).with_users([
        a_user("alice", &[0, 1], standing, &["alice", "root"]),
        a_user("bob", &[2], &["approves-all"], &["bob"]),
    ])
    .with_roles([documents::parse_role("kind: role\nmetadata: {name: approves-all}\nspec: {allow: {review_requests: {roles: ['*']}}}\n").unwrap()])
}

fn permit(view: &View, login: &str, minutes: i64) -> Permit {
    match decide(view, &alice(), &access(login, 1), at(minutes)) {
        Decision::Permit(permit) => permit,
        other @ (Decision::Ask(_) | Decision::Deny(_)) => panic!("{login}: {other:?}"),
    }
}

fn ask(view: &View, login: &str) -> Ask {
    match decide(view, &alice(), &access(login, 1), at(0)) {
        Decision::Ask(ask) => ask,
        other @ (Decision::Permit(_) | Decision::Deny(_)) => panic!("{login}: {other:?}"),
    }
}

#[test]
fn without_request_access_standing_roles_reach_their_nodes() {
    for options in ["", "request_access: optional"] {
        let view = demanding(options, &["demanding"]);
        let grant = Grant::Standing {
            role: role("demanding"),
        };
        assert_eq!(*permit(&view, "root", 0).grant(), grant);
    }
}

#[test]
fn where_a_role_demands_a_request_no_standing_role_reaches_a_node() {
    for (word, reason) in [
        ("always", ReasonMode::Optional),
        ("reason", ReasonMode::Required),
    ] {
        let options = format!("request_access: {word}, request_prompt: Which ticket?");
        let view = demanding(&options, &["demanding", "relaxed"]);
        // What the role that may be asked for grants is asked for.
        let ask = ask(&view, "root");
        assert_eq!(ask.roles, [role("access")]);
        assert_eq!(ask.reason_mode, reason);
        assert_eq!(ask.reason_prompt.as_deref(), Some("Which ticket?"));
        // What only standing roles grant is refused with its reason, and may be known.
        for login in ["backup", "ops"] {
            let Decision::Deny(denial) = decide(&view, &alice(), &access(login, 1), at(0)) else {
                panic!("{login}");
            };
            let demanded = Reason::RequestDemanded {
                role: role("demanding"),
            };
            assert_eq!(denial.reasons, [demanded]);
            assert_eq!(denial.visibility, Visibility::Visible);
        }
        assert!(visible_nodes(&view, &alice(), at(0)).is_empty());
        let nodes = requestable_nodes(&view, &alice(), at(0));
        let logins: Vec<_> = nodes[0].logins.keys().map(|l| l.as_str()).collect();
        assert_eq!(logins, ["alice", "root"]);
    }
}

#[test]
fn a_reason_is_demanded_of_requests_made_by_command_too() {
    let view = demanding("request_access: reason", &["demanding"]);
    for wanted in [wants_root_on_iot(&view), Wanted::roles(roles(&["more"]))] {
        let refused = file(&view, &alice(), &wanted, request_id(1), at(0)).unwrap_err();
        assert!(
            matches!(refused, FilingError::ReasonRequired { .. }),
            "{refused}"
        );
        let wanted = Wanted {
            reason: "T-1".to_owned(),
            ..wanted
        };
        let filed = file(&view, &alice(), &wanted, request_id(1), at(0));
        assert!(matches!(filed, Ok(Filed::New(_))), "{filed:?}");
    }
}

#[test]
fn an_approved_role_request_unlocks_standing_roles_until_it_ends() {
    let view = demanding("request_access: always", &["demanding", "relaxed"]);
    let request = filed(&view, &alice(), &Wanted::roles(roles(&["more"])), 1, at(0));
    let request = approved(&view, &request, at(5));
    let view = view.with_request(request.clone());
    for (login, by) in [("backup", "demanding"), ("ops", "relaxed"), ("dba", "more")] {
        let permit = permit(&view, login, 6);
        let grant = Grant::Request {
            request: request.id,
            role: role(by),
        };
        assert_eq!(*permit.grant(), grant);
        // It rests on the request, and ends with it.
        assert_eq!(permit.ends(), Some(request.access_expires));
    }
    let end = (request.access_expires - T0).whole_minutes();
    let after = decide(&view, &alice(), &access("backup", 1), at(end));
    assert!(matches!(after, Decision::Deny(_)));
    // It belongs to the key that filed it.
    let other = anteroom_core::policy::Identity::from_proven_key(user("alice"), key(1));
    let other = decide(&view, &other, &access("backup", 1), at(6));
    assert!(matches!(other, Decision::Deny(_)));
}

#[test]
fn a_resource_request_unlocks_nothing_but_its_resource() {
    let view = demanding("request_access: always", &["demanding"]);
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let request = approved(&view, &request, at(5));
    let view = view.with_request(request);
    assert_eq!(*permit(&view, "root", 6).user(), user("alice"));
    let backup = decide(&view, &alice(), &access("backup", 1), at(6));
    assert!(matches!(backup, Decision::Deny(_)));
}

#[test]
fn a_denied_login_stays_denied_whatever_unlocks() {
    let view = demanding("request_access: always", &["demanding", "no-backup"]);
    let view = with_roles(
        view,
        "kind: role\nmetadata: {name: no-backup}\nspec: {deny: {logins: [backup]}}\n",
    );
    let request = filed(&view, &alice(), &Wanted::roles(roles(&["more"])), 1, at(0));
    let view = view.clone().with_request(approved(&view, &request, at(5)));
    let backup = decide(&view, &alice(), &access("backup", 1), at(6));
    assert!(matches!(backup, Decision::Deny(_)));
}

#[test]
fn the_strictest_demand_of_several_roles_counts() {
    assert!(RequestAccess::Optional < RequestAccess::Always);
    assert!(RequestAccess::Always < RequestAccess::Reason);
    let text =
        "kind: role\nmetadata: {name: asks-why}\nspec: {options: {request_access: reason}}\n";
    let view = demanding("request_access: always", &["demanding", "asks-why"]);
    let view = with_roles(view, text);
    assert_eq!(ask(&view, "root").reason_mode, ReasonMode::Required);
    // A role that is asked for does not demand: it is held by a request already.
    let view = demanding("", &["demanding"]);
    assert_eq!(permit(&view, "root", 0).request(), None);
}

const LIMITS: &str = "
kind: role
metadata: {name: tight}
spec:
  options: {max_session_ttl: 1h, client_idle_timeout: 10m, max_connections: 3, max_sessions: 2}
---
kind: role
metadata: {name: wide}
spec:
  options: {max_session_ttl: 8h, client_idle_timeout: 1h, max_connections: 2, max_sessions: 5}
";

#[test]
fn of_several_roles_the_least_bounds_a_session_whether_they_grant_or_not() {
    let view = with_roles(small(), LIMITS);
    let holds = |held: &[&str]| {
        let view = view
            .clone()
            .with_user(a_user("alice", &[0], held, &["root"]));
        permit(&view, "root", 0)
    };
    let free = holds(&["access"]);
    assert_eq!(*free.limits(), Default::default());
    assert_eq!(free.session_ends(at(0)), None);
    let bound = holds(&["access", "tight", "wide"]);
    let limits = bound.limits();
    assert_eq!(limits.session_ttl, Some(Duration::hours(1)));
    assert_eq!(limits.idle_timeout, Some(Duration::minutes(10)));
    assert_eq!((limits.connections, limits.sessions), (Some(2), Some(2)));
}

#[test]
fn the_end_of_a_session_does_not_move_with_the_time_of_the_question() {
    let view = with_roles(small(), LIMITS).with_user(a_user(
        "alice",
        &[0],
        &["access", "wide"],
        &["root"],
    ));
    for minutes in [0, 60, 479, 480, 600] {
        let permit = permit(&view, "root", minutes);
        assert_eq!(permit.session_ends(at(0)), Some(at(8 * 60)));
    }
}

#[test]
fn a_session_under_a_request_has_its_time_from_the_approval_and_never_past_the_access() {
    let text = "
kind: role
metadata: {name: long}
spec:
  allow: {request: {search_as_roles: [access], max_duration: 3d}}
  options: {max_session_ttl: 2h}
";
    let view = with_roles(small(), text).with_user(a_user("alice", &[0, 1], &["long"], &["root"]));
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    assert_eq!(request.session_ttl, Duration::hours(2));
    let request = approved(&view, &request, at(300));
    let view = view.with_request(request.clone());
    let permit = permit(&view, "root", 301);
    // The connection waited for five hours, which are not taken from its two.
    assert_eq!(permit.session_ends(at(0)), Some(at(300 + 120)));
    // A later connection has two hours of its own, as long as the access lasts.
    assert_eq!(permit.session_ends(at(1000)), Some(at(1120)));
    let end = (request.access_expires - T0).whole_minutes();
    assert_eq!(permit.session_ends(at(end - 30)), Some(at(end)));
}
