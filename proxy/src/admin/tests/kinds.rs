//! Applications, databases, Kubernetes clusters and desktops, from `create` to an approval.

use super::transcripts::Transcript;
use super::*;

const RESOURCES: &str = "kind: app
version: v3
metadata: {name: grafana, labels: {env: dev}, description: Dashboards}
spec: {uri: 'http://10.0.0.5:3000', public_addr: grafana.example.com}
---
kind: db
version: v3
metadata: {name: orders, labels: {env: dev}}
spec: {protocol: postgres, uri: '10.0.0.6:5432'}
---
kind: db
version: v3
metadata: {name: grafana, labels: {env: prod}}
spec: {protocol: mysql, uri: '10.0.0.6:3306'}
---
kind: kube_cluster
version: v3
metadata: {name: local, labels: {env: dev}}
spec: {}
---
kind: windows_desktop
version: v3
metadata: {name: win1}
spec: {addr: '10.0.0.7:3389', domain: corp.example.com}
---
kind: role
version: v8
metadata: {name: kube-pods}
spec:
  allow:
    kubernetes_labels: {'*': '*'}
    kubernetes_resources:
      - {kind: pods, namespace: '*', name: 'nginx*'}
      - {kind: pods, namespace: dev, name: '^web-\\d+$'}
---
kind: role
version: v8
metadata: {name: pods-only}
spec: {allow: {request: {search_as_roles: [kube-pods], kubernetes_resources: [{kind: pods}]}}}
---
kind: user
version: v2
metadata: {name: paula}
spec: {roles: [pods-only], traits: {logins: [paula]}}
";

async fn with_resources() -> World {
    let world = world().await;
    let said = world.says_to("erin", "create -f -", RESOURCES).await;
    assert_eq!(said.code, 0, "{said:?}");
    let paula = user("paula", &["pods-only"], &["paula"]);
    let by = crate::state::By::local_administrator();
    let stored = world
        .ctx
        .state
        .put(&by, vec![paula], Existing::Replace)
        .await;
    stored.unwrap();
    world
}

#[tokio::test]
async fn other_resources_are_registered_searched_asked_for_and_approved() {
    let world = with_resources().await;
    let mut t = Transcript::new(&world);
    for kind in ["app", "db", "kube_cluster", "windows_desktop"] {
        t.add("erin", &format!("get {kind}")).await;
        t.add("alice", &format!("request search --kind {kind}"))
            .await;
    }
    t.add("erin", "get db/orders --format json").await;
    t.add("erin", "get apps --format text").await;
    t.add("erin", "get db/nothing").await;
    t.add("alice", "get app").await;
    t.add("alice", "request search --kind db --search orders -v")
        .await;
    t.add(
        "alice",
        "request search --kind db --labels env=prod --format json",
    )
    .await;
    t.add("alice", "request search --kind app --format yaml")
        .await;
    t.add("nina", "request search --kind db").await;
    t.add("carol", "request search --kind db").await;
    t.add("paula", "request search --kind kube_cluster").await;
    t.add("paula", "request search --kind kube_resource").await;
    t.add(
        "paula",
        "request search --kind kube_resource --kube-cluster local --kube-kind pods --kube-api-group '' --kube-namespace dev --format json",
    )
    .await;
    t.add(
        "paula",
        "request search --kind kube_resource --kube-cluster nothing",
    )
    .await;
    t.add(
        "nina",
        "request search --kind kube_resource --kube-cluster local",
    )
    .await;
    t.add("alice", "request search --kind db --kube-namespace dev")
        .await;
    t.add("alice", "request search --kind nodes").await;
    t.compare("kinds.txt");
}

#[tokio::test]
async fn other_resources_are_asked_for_by_id_and_by_short_form() {
    let world = with_resources().await;
    let mut t = Transcript::new(&world);
    let nowait = "request create --nowait --reason work";
    for resource in [
        "db/orders",
        "orders",
        "grafana",
        "/example.com/app/grafana",
        "windows_desktop/win1",
        "kube_cluster/local",
        "kube:ns:pods/local/dev/nginx-1",
        "node/iot --resource db/grafana",
        "db/nothing",
        "nothing",
        "kube:ns:pods/nothing/dev/x",
        "kube:xx:pods/local/dev/x",
        "db/",
    ] {
        t.add("alice", &format!("{nowait} --resource {resource}"))
            .await;
        // Listings are in the order of time.
        world.clock.advance(time::Duration::minutes(1));
    }
    for resource in [
        "kube_cluster/local",
        "kube:ns:pods/local/dev/nginx-1",
        "kube:ns:pods/local/dev/other",
        "kube:ns:secrets/local/dev/nginx-1",
        "'kube:ns:pods/local/*/^nginx-[a-z]+$'",
        "db/orders",
    ] {
        t.add("paula", &format!("{nowait} --resource {resource}"))
            .await;
    }
    t.add("carol", &format!("{nowait} --resource db/orders"))
        .await;
    t.add("alice", "request ls").await;
    let id = world.filed("db/orders --resource app/grafana").await;
    t.add(
        "bob",
        &format!("request review {id} --approve --resource orders --reason okay"),
    )
    .await;
    t.add("alice", &format!("request show {id}")).await;
    t.add(
        "alice",
        &format!("{nowait} --resource db/orders --resource app/grafana --dry-run"),
    )
    .await;
    t.compare("kinds_requests.txt");
}

#[tokio::test]
async fn what_get_prints_goes_back_into_create() {
    let world = with_resources().await;
    for kind in ["app", "db", "kube_cluster", "windows_desktop"] {
        let printed = world.says("erin", &format!("get {kind}")).await.out;
        let names: Vec<String> = world
            .says("erin", &format!("get {kind} --format json"))
            .await
            .out
            .parse::<serde_json::Value>()
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|document| document["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        for name in &names {
            let said = world.says("erin", &format!("rm {kind}/{name}")).await;
            assert_eq!(said.code, 0, "{said:?}");
        }
        let gone = world.says("erin", &format!("rm {kind}/{}", names[0])).await;
        assert_eq!(gone.code, 66, "{gone:?}");
        let said = world.says_to("erin", "create -f -", &printed).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(
            world.says("erin", &format!("get {kind}")).await.out,
            printed
        );
        let twice = world.says_to("erin", "create -f -", &printed).await;
        assert_eq!(twice.code, 1, "{twice:?}");
        let forced = world.says_to("erin", "create -f - --force", &printed).await;
        assert_eq!(forced.code, 0, "{forced:?}");
        assert!(forced.out.contains("unchanged"), "{forced:?}");
        let json = world
            .says("erin", &format!("get {kind} --format json"))
            .await;
        let mut first = json.out.parse::<serde_json::Value>().unwrap()[0].take();
        first["metadata"]["description"] = "another".into();
        let first = first.to_string();
        let forced = world.says_to("erin", "create -f - --force", &first).await;
        assert_eq!(forced.code, 0, "{forced:?}");
        assert!(forced.out.contains("replaced"), "{forced:?}");
    }
    let log = world.says("ada", "audit ls --format json").await.out;
    for event in [
        "app.create",
        "app.update",
        "app.delete",
        "db.create",
        "kube.create",
        "kube.delete",
        "windows_desktop.create",
    ] {
        assert!(log.contains(&format!("\"{event}\"")), "{event}");
    }
}

#[tokio::test]
async fn only_rules_for_the_kind_let_anybody_keep_it() {
    let world = with_resources().await;
    let role = "kind: role
metadata: {name: dba}
spec: {allow: {rules: [{resources: [db], verbs: ['*']}]}}
---
kind: user
version: v2
metadata: {name: nina}
spec: {roles: [dba]}
";
    let nina = user("nina", &["dba"], &[]);
    let said = world.says_to("ctl", "create -f - --force", role).await;
    assert_eq!(said.code, 0, "{said:?}");
    let by = crate::state::By::local_administrator();
    let put = world.ctx.state.put(&by, vec![nina], Existing::Replace);
    put.await.unwrap();
    assert_eq!(world.says("nina", "get db/orders").await.code, 0);
    assert_eq!(world.says("nina", "rm db/orders").await.code, 0);
    for line in [
        "get app/grafana",
        "rm app/grafana",
        "get kube_cluster",
        "get all",
    ] {
        assert_eq!(world.says("nina", line).await.code, 77, "{line}");
    }
    let app = "kind: app\nmetadata: {name: x}\nspec: {uri: 'http://x'}\n";
    assert_eq!(world.says_to("nina", "create -f -", app).await.code, 77);
}

#[tokio::test]
async fn roles_are_searched_by_name_description_and_labels() {
    const ROLES: &str = "kind: role
version: v8
metadata: {name: dba, description: Root on every database, labels: {team: red}}
---
kind: role
version: v8
metadata: {name: deploy, description: Rolls out, labels: {team: blue, tier: prod}}
---
kind: role
version: v8
metadata: {name: hidden, description: Root on every database, labels: {team: red}}
---
kind: role
version: v8
metadata: {name: seeker}
spec: {allow: {request: {roles: [dba, deploy]}}}
---
kind: user
version: v2
metadata: {name: paula}
spec: {roles: [seeker], traits: {logins: [paula]}}
";
    let world = with_resources().await;
    let said = world.says_to("erin", "create --force -f -", ROLES).await;
    assert_eq!(said.code, 0, "{said:?}");
    let by = crate::state::By::local_administrator();
    let paula = user("paula", &["seeker"], &["paula"]);
    let stored = world
        .ctx
        .state
        .put(&by, vec![paula], Existing::Replace)
        .await;
    stored.unwrap();
    for (filter, found) in [
        ("", vec!["dba", "deploy"]),
        ("--query name == \"dba\"", vec!["dba"]),
        ("--query resource.kind == \"role\"", vec!["dba", "deploy"]),
        ("--query labels[\"team\"] == \"blue\"", vec!["deploy"]),
        (
            "--query resource.metadata.labels.tier == \"prod\" && has_prefix(name, \"de\")",
            vec!["deploy"],
        ),
        ("--query search(\"DATABASE\")", vec!["dba"]),
        (
            "--query resource.metadata.description == \"Rolls out\"",
            vec!["deploy"],
        ),
        ("--query exists(labels.none)", vec![]),
        ("--search red", vec!["dba"]),
        ("--search team", vec!["dba", "deploy"]),
        ("--search root,red", vec!["dba"]),
        ("--search root,blue", vec![]),
        ("--labels team=blue --search rolls", vec!["deploy"]),
    ] {
        let line = format!("request search --roles --format json {filter}");
        let said = world.says("paula", &line).await;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&said.out).unwrap();
        let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
        assert_eq!(names, found, "{line}: {said:?}");
    }
    let wrong = world
        .says(
            "paula",
            "request search --roles --query user.metadata.name == \"x\"",
        )
        .await;
    assert_eq!(wrong.code, 64, "{wrong:?}");
}
