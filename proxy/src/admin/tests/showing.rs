//! What is shown is what is so: reviews, terms, times, status, and refusals in the words for whoever reads them.

use anteroom_ca::user::{Conditions, verify};
use time::Duration;

use super::*;

/// bob's review of alice's requests counts; erin's doesn't.
async fn with_thresholds() -> World {
    let world = world().await;
    let roles = "kind: role\nmetadata: {name: asks}\nspec: {allow: {request: {search_as_roles: [access], thresholds: \
        [{name: first, filter: 'contains(reviewer.roles, \"counts\")', approve: 1, deny: 1}]}}}\n---\n\
        kind: role\nmetadata: {name: counts}\n";
    assert_eq!(world.says_to("ctl", "create -", roles).await.code, 0);
    for change in [
        "users update alice --roles asks",
        "users update bob --roles reviewer,counts",
    ] {
        assert_eq!(world.says("ctl", change).await.code, 0);
    }
    world
}

async fn object(world: &World, who: &str, line: &str) -> serde_json::Value {
    let said = world.says(who, &format!("{line} --format json")).await;
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{line}: {error}: {said:?}"))
}

/// The caller with the certificate that `login` printed.
fn presenting(world: &World, certificate: &str) -> Caller {
    let certificate: ssh_key::Certificate = certificate.trim_end().parse().unwrap();
    let view = world.ctx.state.view();
    let (trusted, retired) = world.ctx.state.user_authorities();
    let conditions = Conditions {
        authorities: &trusted,
        retired: &retired,
        now: world.ctx.state.now(),
        from: "203.0.113.5".parse().unwrap(),
    };
    let verified = verify(&certificate.to_bytes().unwrap(), &conditions, |serial| {
        view.credential(serial.get()).cloned()
    });
    Caller::Ssh {
        identity: verified.unwrap().into_identity(),
        remote_addr: "203.0.113.5:50022".parse().unwrap(),
    }
}

async fn says_presenting(world: &World, certificate: &str, line: &str) -> Said {
    let mut client = Client::default();
    let line = CommandLine::from_exec(line.as_bytes()).unwrap();
    let exit = run(
        &world.ctx,
        presenting(world, certificate),
        line,
        &mut client,
    )
    .await;
    client.said.code = exit.code();
    client.said
}

#[tokio::test]
async fn an_administrators_decision_is_shown_beside_her_own_review_without_effect() {
    let world = with_thresholds().await;
    let id = world.filed("iot").await;
    let denied = world
        .says("erin", &format!("request review {id} --deny --reason no"))
        .await;
    assert_eq!(denied.code, 0, "{denied:?}");
    let approved = format!("requests approve {id} --reason overruled");
    assert_eq!(world.says("erin", &approved).await.code, 0);
    let shown = world.says("alice", &format!("request show {id}")).await.out;
    for line in [
        "Status:      APPROVED\n",
        "Review:      denied by erin (counted by no threshold) at 20 Nov 26 20:00 UTC, reason=\"no\"\n",
        "Decision:    approved by erin at 20 Nov 26 20:00 UTC, reason=\"overruled\"",
    ] {
        assert!(shown.contains(line), "{line}:\n{shown}");
    }
    // A review that decides says so by itself.
    let id = world.filed("n2").await;
    world
        .says("bob", &format!("request review {id} --approve"))
        .await;
    let shown = world.says("alice", &format!("request show {id}")).await.out;
    assert!(
        shown.contains("approved by bob at") && !shown.contains("Decision:"),
        "{shown}"
    );
}

#[tokio::test]
async fn a_review_shows_in_what_it_is_less_than_was_asked() {
    let world = with_thresholds().await;
    let line = "request create iot root@n2 --reason work --nowait --format json";
    let said = world.says("alice", line).await;
    let filed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let id = filed["id"].as_str().unwrap();
    let review = format!(
        "request review {id} --approve --resource deploy@iot --max-duration 1h --assume-start-time 2026-11-20T21:00:00Z"
    );
    let said = world.says("bob", &review).await;
    assert_eq!(said.code, 0, "{said:?}");
    let shown = world.says("alice", &format!("request show {id}")).await.out;
    let line = "Review:      approved by bob (only iot as deploy, at most 1h, not before 20 Nov 26 21:00 UTC) at 20 Nov";
    assert!(shown.contains(line), "{shown}");
    let shown = object(&world, "alice", &format!("request show {id}")).await;
    let review = &shown["reviews"][0];
    assert_eq!(
        review["resource_ids"],
        serde_json::json!([format!("/example.com/node/{IOT}?logins=deploy")])
    );
    assert_eq!(review["max_duration"], "1h");
    assert_eq!(review["assume_start_time"], "2026-11-20T21:00:00Z");
    assert_eq!(review["roles"], serde_json::Value::Null);
    assert_eq!(review["counted"], true);
}

#[tokio::test]
async fn a_reviewer_names_a_part_as_the_requester_does() {
    for (part, granted) in [
        ("root@iot", "?logins=root"),
        (&format!("root@{IOT}"), "?logins=root"),
        ("iot?logins=root", "?logins=root"),
        ("node/iot?logins=deploy,root", "?logins=deploy,root"),
        ("root@iot --resource deploy@iot", "?logins=deploy,root"),
        (
            &format!("/example.com/node/{IOT}?logins=root"),
            "?logins=root",
        ),
        ("node/iot", ""),
        (IOT, ""),
    ] {
        let world = world().await;
        let id = world.filed("iot").await;
        let line = format!("request review {id} --approve --resource {part}");
        let said = world.says("bob", &line).await;
        assert_eq!(said.code, 0, "{part}: {said:?}");
        let shown = object(&world, "alice", &format!("request show {id}")).await;
        assert_eq!(
            shown["granted"]["resource_ids"],
            serde_json::json!([format!("/example.com/node/{IOT}{granted}")]),
            "{part}"
        );
    }
    let world = world().await;
    let id = world.filed("root@iot").await;
    for (part, sentence) in [
        ("deploy@iot", "is not in the request"),
        ("iot?logins=root,deploy", "is not in the request"),
        ("root@n2", "`n2` is not among the resources of the request"),
        (
            "n2?logins=root",
            "`n2` is not among the resources of the request",
        ),
        ("iot?logins=", "logins"),
        ("iot?login=root", "is not among the resources"),
        ("root@", "--resource"),
    ] {
        let line = format!("request review {id} --approve --resource {part}");
        let said = world.says("bob", &line).await;
        assert_eq!(said.code, 64, "{part}: {said:?}");
        assert!(said.err.contains(sentence), "{part}: {said:?}");
    }
    let said = world
        .says("alice", "request create iot?logins=root,deploy --nowait")
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("Logins:      deploy, root\n"), "{said:?}");
    let said = world
        .says("alice", "request create root@iot?logins=deploy --nowait")
        .await;
    assert_eq!(said.code, 64, "{said:?}");
}

#[tokio::test]
async fn status_shows_what_works_and_restricts_only_what_is_restricted() {
    let world = world().await;
    let status = object(&world, "alice", "status").await;
    assert_eq!(status["logins"], serde_json::json!([]));
    assert_eq!(status.get("allowed_resources"), None, "{status}");
    let status = object(&world, "carol", "status").await;
    assert_eq!(status["logins"], serde_json::json!(["root"]));
    assert_eq!(status.get("allowed_resources"), None, "{status}");

    world.granted("root@iot").await;
    let status = object(&world, "alice", "status").await;
    let iot = format!("/example.com/node/{IOT}?logins=root");
    assert_eq!(status["logins"], serde_json::json!(["root"]));
    assert_eq!(status.get("allowed_resources"), None, "{status}");
    assert_eq!(status["added_resources"], serde_json::json!([iot]));
    let text = world.says("alice", "status").await.out;
    let line = format!(
        "  Allowed Resources: what the standing roles reach, and by requests [\"{iot}\"]\n"
    );
    assert!(text.contains(&line), "{text}");
}

#[tokio::test]
async fn status_of_a_certificate_is_what_the_certificate_says() {
    let world = world().await;
    let open = "kind: role\nmetadata: {name: open}\nspec: {allow: {logins: [root, deploy], node_labels: {'*': '*'}}, options: {forward_agent: true}}\n";
    assert_eq!(world.says_to("ctl", "create -", open).await.code, 0);
    assert_eq!(
        world
            .says("ctl", "users update carol --roles open")
            .await
            .code,
        0
    );
    let login = world.says("carol", "login").await;
    assert_eq!(login.code, 0, "{login:?}");
    let extensions =
        "  Extensions:        permit-agent-forwarding, permit-port-forwarding, permit-pty\n";
    assert!(login.err.contains(extensions), "{login:?}");
    assert!(
        login.err.contains("  Logins:            deploy, root\n"),
        "{login:?}"
    );
    assert!(!login.err.contains("Allowed Resources"), "{login:?}");
    let shut = open.replace("forward_agent: true", "port_forwarding: false");
    assert_eq!(
        world.says_to("ctl", "create - --force", &shut).await.code,
        0
    );
    let shown = says_presenting(&world, &login.out, "status").await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.out.contains(extensions), "{shown:?}");
    let plain = world.says("carol", "status").await;
    assert!(
        plain.out.contains("  Extensions:        permit-pty\n"),
        "{plain:?}"
    );

    let id = world.granted("root@iot").await;
    let login = world
        .says("alice", &format!("login --request-id {id}"))
        .await;
    let shown = says_presenting(&world, &login.out, "status -f json").await;
    let shown: serde_json::Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(
        shown["allowed_resources"],
        serde_json::json!([format!("/example.com/node/{IOT}?logins=root")])
    );
    assert_eq!(shown["logins"], serde_json::json!(["root"]));
    assert_eq!(shown["active_requests"], serde_json::json!([id]));
}

#[tokio::test]
async fn times_that_are_cut_are_shown_as_they_are_and_said() {
    let world = world().await;
    let line = "request create iot --nowait --max-duration 20d --request-ttl 30d --session-ttl 2d --reason x -f json";
    for line in [line.to_owned(), line.replace("--nowait", "--dry-run")] {
        let said = world.says("alice", &line).await;
        assert_eq!(said.code, 0, "{said:?}");
        let filed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(filed["max_duration"], "12h", "{filed}");
        for cut in [
            "`--max-duration 20d` is cut to 12h",
            "`--request-ttl 30d` is cut to 12h",
            "`--session-ttl 2d` is cut to 12h",
        ] {
            assert!(said.err.contains(cut), "{cut}: {}", said.err);
        }
        let view = world.ctx.state.view();
        let filed = view
            .requests()
            .filter(|request| request.state.to_string() == "PENDING");
        for request in filed {
            let cancel = format!("request cancel {}", request.id);
            assert_eq!(world.says("alice", &cancel).await.code, 0);
        }
    }
    let line = "request create iot --nowait --max-duration 2h --request-ttl 1h --session-ttl 1h --reason x -f json";
    let said = world.says("alice", line).await;
    let filed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(filed["max_duration"], "1h", "{filed}");
    assert!(
        said.err.contains("`--max-duration 2h` is cut to 1h"),
        "{said:?}"
    );
    assert!(!said.err.contains("--request-ttl"), "{said:?}");
}

#[tokio::test]
async fn a_dry_run_shows_what_it_would_join_or_use() {
    let world = world().await;
    let id = world.filed("iot").await;
    let line = "request create iot --dry-run";
    let joined = object(&world, "alice", line).await;
    assert_eq!(
        (&joined["id"], &joined["state"]),
        (&id.clone().into(), &"PENDING".into())
    );
    world
        .says("bob", &format!("request review {id} --approve"))
        .await;
    let covered = object(&world, "alice", line).await;
    assert_eq!(
        (&covered["id"], &covered["state"]),
        (&id.clone().into(), &"APPROVED".into())
    );
    let said = world.says("alice", line).await;
    assert!(
        said.out.contains(&format!("Request ID:  {id}\n")),
        "{said:?}"
    );
    assert!(said.err.contains("gives this already") && said.err.contains("nothing was filed"));
    let said = world
        .says("ctl", "requests create alice iot --dry-run -f json")
        .await;
    let covered: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(covered["id"], id);
    assert_eq!(world.requests(), 1);
}

#[tokio::test]
async fn who_files_for_somebody_reads_of_that_somebody() {
    let world = world().await;
    let db = "kind: db\nmetadata: {name: orders}\nspec: {protocol: postgres, uri: 'orders:5432'}\n";
    assert_eq!(world.says_to("ctl", "create -", db).await.code, 0);
    for (line, code, sentence) in [
        (
            "requests create nina --resource iot",
            77,
            "ERROR: `nina` can't ask for `iot`: no role to search as grants it; `requests capabilities nina` shows what can be \
             asked for, and `explain LOGIN@iot --user nina` says why\n",
        ),
        (
            "requests create nina --resource db/orders",
            77,
            "ERROR: `nina` can't ask for `db/orders`: no role to search as grants it; `requests capabilities nina` shows what can be asked for\n",
        ),
        (
            "requests create carol --resource root@iot",
            1,
            "ERROR: `carol` can reach `iot` already\n",
        ),
        (
            "requests create carol --roles editor",
            66,
            "ERROR: `carol` can't ask for role `editor`; `requests capabilities carol` shows what can be asked for\n",
        ),
        (
            "requests create alice --resource db/nosuch",
            66,
            "ERROR: there is no resource `/example.com/db/nosuch`; `get db` shows all\n",
        ),
        (
            "requests create alice --resource /other.com/db/orders",
            66,
            "ERROR: there is no resource `/other.com/db/orders`; `get db` shows all\n",
        ),
    ] {
        for line in [line.to_owned(), format!("{line} --dry-run")] {
            let said = world.says("ctl", &line).await;
            assert_eq!((said.code, said.err.as_str()), (code, sentence), "{line}");
        }
    }
    // To her who asks, of another cluster the whole ID is shown.
    for line in [
        "request create /EXAMPLE.com/db/orders --nowait",
        "request create /other.com/db/orders --nowait",
    ] {
        let said = world.says("alice", line).await;
        assert_eq!(said.code, 66, "{said:?}");
        let id = line.split(' ').nth(2).unwrap();
        assert!(said.err.contains(&format!("no such db `{id}`")), "{said:?}");
    }
}

#[tokio::test]
async fn what_was_never_granted_shows_when_its_time_for_an_answer_ended() {
    let world = world().await;
    let said = world
        .says(
            "alice",
            "request create iot --nowait --reason x --request-ttl 30m",
        )
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    let ends = "20 Nov 26 20:30 UTC";
    let listed = world.says("alice", "request ls").await.out;
    assert!(listed.contains(&format!("{ends}  PENDING")), "{listed}");
    world.clock.advance(Duration::minutes(30));
    world.ctx.state.expire_due().await.unwrap();
    let listed = world.says("alice", "request ls").await.out;
    assert!(listed.contains(&format!("{ends}  EXPIRED")), "{listed}");
}

#[tokio::test]
async fn half_a_regular_expression_for_roles_is_refused_when_it_is_saved() {
    let world = world().await;
    let role = |field: &str, pattern: &str| {
        format!("kind: role\nmetadata: {{name: half}}\nspec: {{{field}: ['{pattern}']}}}}}}\n")
    };
    for (field, path) in [
        ("allow: {request: {roles", "spec.allow.request.roles"),
        ("deny: {request: {roles", "spec.deny.request.roles"),
        (
            "allow: {review_requests: {roles",
            "spec.allow.review_requests.roles",
        ),
        (
            "deny: {review_requests: {roles",
            "spec.deny.review_requests.roles",
        ),
    ] {
        for half in ["^dba", "dba$", "^db.*"] {
            let said = world.says_to("ctl", "create -", &role(field, half)).await;
            assert_eq!(said.code, 64, "{field} {half}: {said:?}");
            let sentence =
                format!("role `half`: `{path}`: `{half}` looks like a regular expression");
            assert!(said.err.contains(&sentence), "{said:?}");
        }
        for whole in ["^dba$", "dba", "db*", "^(dba|dbs)$"] {
            let said = world
                .says_to("ctl", "create - --force", &role(field, whole))
                .await;
            assert_eq!(said.code, 0, "{field} {whole}: {said:?}");
        }
    }
}

#[tokio::test]
async fn cert_suggests_asking_for_the_login_and_not_for_the_whole_node() {
    let world = world().await;
    let said = world.says("alice", "cert root@iot").await;
    assert_eq!(said.code, 77, "{said:?}");
    assert!(
        said.err
            .contains("`ssh access request create --resource root@iot`"),
        "{said:?}"
    );
}
