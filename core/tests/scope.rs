//! A grant for one command, a request filed by an administrator, an approval with other roles.
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

use anteroom_core::policy::{Decision, Identity, decide, decide_for, request_capabilities};
use anteroom_core::request::{
    AccessRequest, Action, Actor, Filed, FilingError, Mandate, OverrideError, ReviewError, Scope,
    Terms, TransitionError, Verdict, Wanted, apply, apply_for, check_override, file, file_for,
    review,
};
use anteroom_core::view::View;
use proptest::prelude::*;
use world::*;

fn scoped(view: &View, command: &str) -> Wanted {
    Wanted {
        scope: Scope::Command(command.to_owned()),
        ..wants_root_on_iot(view)
    }
}

/// alice holds a grant for `uptime` as root on iot.
fn uptime_only() -> View {
    let view = small();
    let request = filed(&view, &alice(), &scoped(&view, "uptime"), 1, at(0));
    view.clone().with_request(approved(&view, &request, at(1)))
}

fn runs(view: &View, command: Option<&str>) -> Decision {
    let root = access("root", 1);
    decide_for(view, &alice(), &root, command.map(str::as_bytes), at(2))
}

#[test]
fn a_grant_for_one_command_permits_exactly_these_bytes_and_nothing_else() {
    let view = uptime_only();
    let Decision::Permit(permit) = runs(&view, Some("uptime")) else {
        panic!("the command was granted")
    };
    assert_eq!(permit.scope().command(), Some("uptime"));
    let may = permit.capabilities();
    assert!(may.pty.is_allowed());
    for (what, capability) in [
        ("-L", may.local_forwarding),
        ("-R", may.remote_forwarding),
        ("-A", may.agent_forwarding),
        ("-X", may.x11_forwarding),
    ] {
        assert!(!capability.is_allowed(), "{what}");
    }
    for other in [
        None,
        Some(""),
        Some("uptime "),
        Some(" uptime"),
        Some("Uptime"),
        Some("uptime; id"),
        Some("uptime\n"),
        Some("uptime\0"),
        Some("id"),
    ] {
        let Decision::Ask(ask) = runs(&view, other) else {
            panic!("{other:?} was not granted, and can be asked for")
        };
        assert_eq!(ask.narrower, Some(request_id(1)), "{other:?}");
    }
    // Who asks without saying what she runs has no use of it.
    assert!(matches!(
        decide(&view, &alice(), &access("root", 1), at(2)),
        Decision::Ask(_)
    ));
}

#[test]
fn what_grants_everything_is_used_before_what_grants_one_command() {
    let view = uptime_only();
    let whole = filed(&view, &alice(), &wants_root_on_iot(&view), 2, at(2));
    let view = view.clone().with_request(approved(&view, &whole, at(2)));
    let Decision::Permit(permit) = runs(&view, Some("uptime")) else {
        panic!("both grant it")
    };
    assert_eq!(permit.request(), Some(request_id(2)));
    assert_eq!(permit.scope(), &Scope::Any);
    assert!(permit.capabilities().local_forwarding.is_allowed());
}

#[test]
fn only_equal_scopes_join_and_cover() {
    let view = small();
    let first = filed(&view, &alice(), &scoped(&view, "uptime"), 1, at(0));
    let pending = view.clone().with_request(first.clone());
    let file =
        |view: &View, wanted: &Wanted| file(view, &alice(), wanted, request_id(9), at(1)).unwrap();
    assert_eq!(
        file(&pending, &scoped(&view, "uptime")),
        Filed::Joined(request_id(1))
    );
    assert!(matches!(
        file(&pending, &scoped(&view, "id")),
        Filed::New(_)
    ));
    assert!(matches!(
        file(&pending, &wants_root_on_iot(&view)),
        Filed::New(_)
    ));
    let Decision::Ask(ask) = runs(&pending, Some("uptime")) else {
        panic!()
    };
    assert_eq!((ask.joins, ask.joins_scoped), (None, Some(request_id(1))));
    let Decision::Ask(ask) = runs(&pending, Some("id")) else {
        panic!()
    };
    assert_eq!((ask.joins, ask.joins_scoped), (None, None));
    let open = view.clone().with_request(approved(&view, &first, at(1)));
    assert_eq!(
        file(&open, &scoped(&view, "uptime")),
        Filed::Covered(request_id(1))
    );
    assert!(matches!(file(&open, &scoped(&view, "id")), Filed::New(_)));
    assert!(matches!(
        file(&open, &wants_root_on_iot(&view)),
        Filed::New(_)
    ));
}

#[test]
fn a_scope_is_for_resources_and_for_a_command_that_a_certificate_can_carry() {
    let view = small();
    let refuse = |wanted: &Wanted| file(&view, &alice(), wanted, request_id(9), at(0)).unwrap_err();
    for bad in ["", "  ", "a\0b", &"x".repeat(4097)] {
        let error = refuse(&scoped(&view, bad));
        assert!(matches!(error, FilingError::ScopeCommand { .. }), "{error}");
    }
    filed(&view, &alice(), &scoped(&view, &"x".repeat(4096)), 1, at(0));
    let role = Wanted {
        scope: Scope::Command("id".to_owned()),
        ..Wanted::roles(roles(&["access"]))
    };
    assert_eq!(refuse(&role), FilingError::ScopeWithoutResource);
}

proptest! {
    #[test]
    fn no_bytes_but_those_granted_are_ever_permitted(granted in "[ a-c;]{1,4}", run in "[ a-c;]{0,5}") {
        prop_assume!(!granted.trim().is_empty());
        let view = small();
        let request = filed(&view, &alice(), &scoped(&view, &granted), 1, at(0));
        let view = view.clone().with_request(approved(&view, &request, at(1)));
        let permitted = matches!(runs(&view, Some(&run)), Decision::Permit(_));
        prop_assert_eq!(permitted, run == granted);
    }
}

// ---------------------------------------------------------------- filed by an administrator

/// The presets' people, with erin who administers, and whoever else is to.
fn administered(more: &[&str]) -> View {
    let mut view = small().with_user(a_user("erin", &[6], &["editor"], &[]));
    for name in more {
        let mut person = view.user(&user(name)).unwrap().as_ref().clone();
        person.roles.insert(role("editor"));
        view = view.with_user(person);
    }
    view
}

fn for_somebody(view: &View, who: &str) -> AccessRequest {
    let wanted = wants_root_on_iot(view);
    let by = Actor::User(user("erin"));
    match file_for(view, &user(who), &by, &wanted, request_id(1), at(0)) {
        Ok(Filed::New(new)) => new.request,
        other => panic!("expected a new request, got {other:?}"),
    }
}

#[test]
fn what_an_administrator_files_belongs_to_the_one_key_of_the_user() {
    let view = administered(&["bob"]).with_user(a_user("dave", &[5], &["requester"], &["root"]));
    let request = for_somebody(&view, "dave");
    assert_eq!(request.key, Some(key(5)));
    assert_eq!(request.filed_by, Some(Actor::User(user("erin"))));
    let view = view.clone().with_request(approved(&view, &request, at(1)));
    let dave = Identity::from_proven_key(user("dave"), key(5));
    assert!(matches!(
        decide(&view, &dave, &access("root", 1), at(2)),
        Decision::Permit(_)
    ));
}

#[test]
fn who_files_for_somebody_is_no_second_person() {
    let view = administered(&["bob"]).with_user(a_user("dan", &[6], &["reviewer"], &[]));
    let wanted = wants_root_on_iot(&view);
    let by = Actor::User(user("bob"));
    let filed = file_for(&view, &user("alice"), &by, &wanted, request_id(1), at(0)).unwrap();
    let Filed::New(new) = filed else { panic!() };
    let own = Err(ReviewError::OwnRequest(request_id(1)));
    let say = |who: &str, verdict: Verdict| {
        review(&view, &user(who), &new.request, verdict, "", at(1)).map(|_| ())
    };
    assert_eq!(say("bob", Verdict::Approve(Terms::default())), own);
    assert_eq!(say("bob", Verdict::Deny), own);
    assert_eq!(say("dan", Verdict::Approve(Terms::default())), Ok(()));
}

#[test]
fn with_several_keys_it_belongs_to_none_until_one_takes_it_up() {
    let view = administered(&[]);
    let request = for_somebody(&view, "alice");
    assert_eq!(request.key, None);
    let open = approved(&view, &request, at(1));
    let granted = view.clone().with_request(open.clone());
    let Decision::Ask(ask) = decide(&granted, &alice(), &access("root", 1), at(2)) else {
        panic!("no key holds it")
    };
    assert_eq!(ask.assumable, [request_id(1)]);
    let assume = Action::Assume { key: key(1) };
    let taken = apply(&open, &assume, &Actor::User(user("alice")), at(2)).unwrap();
    assert!(taken.is_held_by(&key(1)) && !taken.is_held_by(&key(0)));
    // Nobody else takes it up.
    let refused = apply(&open, &assume, &Actor::User(user("bob")), at(2));
    assert!(matches!(refused, Err(TransitionError::NotYours { .. })));
}

#[test]
fn nobody_gets_more_by_an_administrator_than_could_be_asked_for() {
    let view = administered(&[]);
    let by = Actor::LocalAdministrator;
    let refuse = |who: &str, wanted: &Wanted| {
        file_for(&view, &user(who), &by, wanted, request_id(1), at(0)).unwrap_err()
    };
    let editor = Wanted::roles(roles(&["editor"]));
    assert!(matches!(
        refuse("alice", &editor),
        FilingError::RoleNotRequestable(_)
    ));
    assert!(matches!(
        refuse("bob", &wants_root_on_iot(&view)),
        FilingError::UnknownResource(_)
    ));
    assert!(matches!(refuse("nobody", &editor), FilingError::Refused(_)));
}

#[test]
fn an_administrator_who_files_for_himself_is_the_requester() {
    let view = administered(&["alice"]);
    let by = Actor::User(user("alice"));
    let wanted = wants_root_on_iot(&view);
    let filed = file_for(&view, &user("alice"), &by, &wanted, request_id(1), at(0)).unwrap();
    let Filed::New(new) = filed else { panic!() };
    assert_eq!(new.request.filed_by, None);
    let approve = Action::Approve {
        terms: Terms::default(),
        reason: String::new(),
    };
    assert_eq!(
        apply(&new.request, &approve, &by, at(1)),
        Err(TransitionError::OwnRequest(request_id(1)))
    );
}

#[test]
fn capabilities_are_those_of_the_stored_roles() {
    let view = small();
    let alice = request_capabilities(&view, &user("alice"), at(0));
    assert_eq!(alice.search_as_roles, [role("access")]);
    let bob = request_capabilities(&view, &user("bob"), at(0));
    assert_eq!(bob, Default::default());
    assert_eq!(
        request_capabilities(&view, &user("nobody"), at(0)),
        Default::default()
    );
}

// ---------------------------------------------------------------- on behalf of, and with other roles

#[test]
fn the_requester_is_nobody_on_whose_behalf_it_is_decided() {
    let view = small();
    let request = filed(&view, &alice(), &wants_root_on_iot(&view), 1, at(0));
    let bob = Actor::User(user("bob"));
    let reason = String::new;
    let approve = Action::Approve {
        terms: Terms::default(),
        reason: reason(),
    };
    let mandate = |name: &str| Mandate {
        delegator: Some(user(name)),
        ..Mandate::default()
    };
    for action in [
        approve.clone(),
        Action::Deny { reason: reason() },
        Action::Override {
            roles: roles(&["editor"]),
            terms: Terms::default(),
            reason: reason(),
        },
    ] {
        for by in [bob.clone(), Actor::LocalAdministrator] {
            assert_eq!(
                apply_for(&request, &action, &by, &mandate("alice"), at(1)),
                Err(TransitionError::OwnDelegator(request_id(1), user("alice")))
            );
        }
    }
    // A delegator gives no right: the requester decides nothing, whoever is named.
    let own = Actor::User(user("alice"));
    assert_eq!(
        apply_for(&request, &approve, &own, &mandate("bob"), at(1)),
        Err(TransitionError::OwnRequest(request_id(1)))
    );
    let done = apply_for(&request, &approve, &bob, &mandate("carol"), at(1)).unwrap();
    let resolved = done.resolved.unwrap();
    assert_eq!(resolved.delegator, Some(user("carol")));
    assert_eq!(resolved.by, bob);
}

const DB: &str = "
kind: role
metadata: {name: db-support}
spec: {allow: {logins: [root], node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: dba}
spec: {allow: {logins: [dba], node_labels: {'*': '*'}}}
---
kind: role
metadata: {name: asks-dba}
spec: {allow: {request: {roles: [dba]}}}
---
kind: role
metadata: {name: never-support}
spec: {deny: {request: {roles: [db-support]}}}
---
kind: role
metadata: {name: role-reader}
spec: {allow: {rules: [{resources: [access_request], verbs: [update]}]}}
";

fn dba(held: &[&str]) -> (View, AccessRequest) {
    let view = with_roles(small(), DB)
        .with_user(a_user("alice", &[0], held, &["alice"]))
        .with_user(a_user("erin", &[4], &["editor"], &[]))
        .with_user(a_user("rita", &[5], &["role-reader"], &[]));
    let wanted = Wanted::roles(roles(&["dba"]));
    let request = filed(&view, &alice(), &wanted, 1, at(0));
    (view, request)
}

fn with_support() -> Action {
    Action::Override {
        roles: roles(&["db-support"]),
        terms: Terms::default(),
        reason: String::new(),
    }
}

#[test]
fn an_approval_with_another_role_gives_that_role_although_it_can_not_be_asked_for() {
    let (view, request) = dba(&["asks-dba"]);
    let erin = Actor::User(user("erin"));
    check_override(&view, &erin, &request, &roles(&["db-support"])).unwrap();
    let done = apply(&request, &with_support(), &erin, at(1)).unwrap();
    let granted = done.granted.as_ref().unwrap();
    assert_eq!(granted.roles, roles(&["db-support"]));
    assert_eq!(granted.overridden, roles(&["db-support"]));
    let open = view.with_request(done);
    assert!(matches!(
        decide(&open, &alice(), &access("root", 1), at(2)),
        Decision::Permit(_)
    ));
    // What was asked for is not given with it.
    assert!(matches!(
        decide(&open, &alice(), &access("dba", 1), at(2)),
        Decision::Ask(_) | Decision::Deny(_)
    ));
}

#[test]
fn it_takes_the_right_to_write_roles_and_a_role_that_is_there_and_not_denied() {
    let (view, request) = dba(&["asks-dba"]);
    let check =
        |view: &View, by: &Actor, names: &[&str]| check_override(view, by, &request, &roles(names));
    let erin = Actor::User(user("erin"));
    for by in [
        Actor::User(user("rita")),
        Actor::User(user("bob")),
        Actor::User(user("alice")),
        Actor::Clock,
        Actor::Rule("r".parse().unwrap()),
    ] {
        assert_eq!(
            check(&view, &by, &["db-support"]),
            Err(OverrideError::NotAllowed(role("db-support"))),
            "{by}"
        );
    }
    assert_eq!(
        check(&view, &erin, &["dba", "nosuch"]),
        Err(OverrideError::NoSuchRole(role("nosuch")))
    );
    check(&view, &Actor::LocalAdministrator, &["db-support"]).unwrap();
    // Roles of the request need no such right.
    check(&view, &Actor::User(user("rita")), &["dba"]).unwrap();
    let (denied, request) = dba(&["asks-dba", "never-support"]);
    assert!(matches!(
        check_override(&denied, &erin, &request, &roles(&["db-support"])),
        Err(OverrideError::Denied { .. })
    ));
    // Nor is it used any more once a role denies it.
    let (view, request) = dba(&["asks-dba"]);
    let done = apply(&request, &with_support(), &erin, at(1)).unwrap();
    let later = view.with_request(done).with_user(a_user(
        "alice",
        &[0],
        &["asks-dba", "never-support"],
        &[],
    ));
    assert!(!matches!(
        decide(&later, &alice(), &access("root", 1), at(2)),
        Decision::Permit(_)
    ));
}

#[test]
fn an_override_is_no_way_round_the_other_rules_of_an_approval() {
    let (_, request) = dba(&["asks-dba"]);
    let own = Actor::User(user("alice"));
    assert_eq!(
        apply(&request, &with_support(), &own, at(1)),
        Err(TransitionError::OwnRequest(request_id(1)))
    );
    let nothing = Action::Override {
        roles: BTreeSet::new(),
        terms: Terms::default(),
        reason: String::new(),
    };
    assert!(matches!(
        apply(&request, &nothing, &Actor::LocalAdministrator, at(1)),
        Err(TransitionError::Terms(_))
    ));
    let longer = Action::Override {
        roles: roles(&["db-support"]),
        terms: Terms {
            max_duration: Some(time::Duration::days(3)),
            ..Terms::default()
        },
        reason: String::new(),
    };
    assert!(matches!(
        apply(&request, &longer, &Actor::LocalAdministrator, at(1)),
        Err(TransitionError::Terms(_))
    ));
}
