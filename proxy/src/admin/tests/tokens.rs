//! `tokens`, and tokens as documents.

use serde_json::Value;

use super::transcripts::Transcript;
use super::*;

/// The secret that a line carries.
fn secret(line: &str) -> &str {
    let (_, rest) = line.split_once("printf '%s\\n' ").unwrap();
    rest.split([';', ' ']).next().unwrap()
}

const DOCUMENT: &str = "
kind: token
version: v2
metadata: {name: fleet}
spec:
  type: node
  uses: 20
  ttl: 2h
  labels: {env: staging}
  addr: tunnel
";

#[tokio::test]
async fn tokens_are_made_listed_and_removed_and_the_secret_is_shown_once() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let line = "tokens add --type node --name iot2 --labels env=prod --addr 192.0.2.8:22";
    let made = t.add("erin", line).await;
    let id = world.ctx.state.view().tokens().next().unwrap().id.clone();
    let hidden = secret(&made.out).to_owned();
    // The agent is not dialled, so that its line would not work.
    assert!(!made.err.contains("node join"), "{made:?}");
    let never = t.add("erin", &format!("{line} --agent")).await;
    assert_eq!(never.code, 64, "{never:?}");
    world.clock.advance(time::Duration::SECOND);
    let agent = t.add("erin", "tokens add --type node --agent").await;
    let other = world.ctx.state.view();
    let other = other.tokens().find(|token| token.id != id).unwrap();
    t.hide(secret(&agent.out), "SECRET");
    world.clock.advance(time::Duration::SECOND);
    let created = t.add_to("erin", "create -f -", DOCUMENT).await;
    let fleet = created.out.lines().last().unwrap();
    t.hide(secret(fleet), "SECRET");
    t.hide(&hidden, "SECRET");
    t.add_to("erin", "create -f -", DOCUMENT).await;
    let replaced = t.add_to("erin", "create --force -f -", DOCUMENT).await;
    let next = secret(replaced.out.lines().last().unwrap());
    assert_ne!(next, secret(fleet));
    t.hide(next, "SECRET");
    t.add("erin", "tokens ls").await;
    t.add("erin", "tokens ls --format json").await;
    t.add("erin", "get token/fleet").await;
    t.add("erin", "get tokens --format text").await;
    t.add("erin", "rm token/fleet").await;
    t.add("erin", &format!("tokens rm {id}")).await;
    t.add("erin", &format!("tokens rm {id}")).await;
    t.add("erin", "audit ls --event join_token.create").await;
    t.hide(id.as_str(), "IDIDIDIDID");
    t.hide(other.id.as_str(), "OTHERIDIDI");
    for revealed in [&hidden, next] {
        assert!(!t.text().contains(revealed), "shown once, where it is made");
    }
    t.compare("tokens.txt");
}

#[tokio::test]
async fn what_get_prints_of_a_token_goes_back_into_create() {
    let world = world().await;
    assert_eq!(world.says_to("ctl", "create -f -", DOCUMENT).await.code, 0);
    let got = world.says("ctl", "get token/fleet").await;
    let created = world.says_to("ctl", "create --force -f -", &got.out).await;
    assert_eq!(created.code, 0, "{created:?}");
    assert_eq!(world.says("ctl", "get token/fleet").await.out, got.out);
    assert!(!got.out.contains("sha256"), "{}", got.out);
}

#[tokio::test]
async fn a_new_token_in_json_has_its_secret_and_a_listing_has_not() {
    let world = world().await;
    let said = world
        .says("ctl", "tokens add --type node --format json")
        .await;
    let made: Value = serde_json::from_str(&said.out).unwrap();
    let hidden = made["token_secret"].as_str().unwrap();
    assert!(made["command"].as_str().unwrap().contains(hidden));
    assert_eq!(made["uses_left"], 1);
    for listing in [
        "tokens ls --format json",
        "get tokens --format json",
        "get all",
        "audit ls --format json",
    ] {
        let said = world.says("ctl", listing).await;
        assert!(!said.out.contains(hidden), "{listing}");
    }
}

#[tokio::test]
async fn a_token_whose_time_is_over_is_shown_as_ended_for_as_long_as_it_is_kept() {
    let world = world().await;
    let said = world.says("ctl", "tokens add --type node --ttl 1h").await;
    assert_eq!(said.code, 0, "{said:?}");
    let listed = world.says("ctl", "tokens ls").await;
    assert!(listed.out.contains("1 of 1"), "{listed:?}");
    world.clock.advance(time::Duration::minutes(61));
    for line in ["tokens ls", "get tokens --format text"] {
        let listed = world.says("ctl", line).await;
        assert!(listed.out.contains("none, ended"), "{line}: {listed:?}");
        assert!(!listed.out.contains("1 of 1"), "{line}: {listed:?}");
    }
    let listed = world.says("ctl", "tokens ls --format json").await;
    let listed: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(listed[0]["ended"], true);
}

#[tokio::test]
async fn a_token_that_makes_no_sense_is_refused_with_one_sentence() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let lines = [
        "tokens add",
        "tokens add --type user",
        "tokens add --type node --ttl 8d",
        "tokens add --type node --ttl 0s",
        "tokens add --type node --uses 0",
        "tokens add --type node --uses 10001",
        "tokens add --type node --name b1168402-9340-421a-a344-af66a6675738",
        "tokens add --type node --labels anteroom/x=y",
        "tokens add --type node --addr iot",
        "tokens rm nothing",
        "get token/nothing",
        "rm token",
    ];
    for line in lines {
        assert_ne!(t.add("ctl", line).await.code, 0, "{line}");
    }
    let specs = [
        "{}",
        "{type: user}",
        "{type: node, uses: 0}",
        "{type: node, ttl: 8d}",
        "{type: node, ttl: 1h, expires: '2026-11-20T21:00:00Z'}",
        "{type: node, expires: '2026-11-20T19:00:00Z'}",
        "{type: node, labels: {anteroom/x: y}}",
        "{type: node, roles: [Node]}",
        "{type: node, secret: x}",
    ];
    for spec in specs {
        let document = format!("kind: token\nversion: v2\nmetadata: {{name: t}}\nspec: {spec}\n");
        let said = t.add_to("ctl", "create -f -", &document).await;
        assert_ne!(said.code, 0, "{spec}");
    }
    t.compare("tokens_refused.txt");
    assert_eq!(world.ctx.state.view().tokens().len(), 0);
}

#[tokio::test]
async fn the_keys_of_a_node_are_replaced_deliberately_and_the_log_has_both() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let line = |word: &str| key(word).to_openssh().unwrap();
    let add = format!(
        "nodes add db --addr 192.0.2.9:22 --host-key '{}'",
        line("old")
    );
    assert_eq!(world.says("ctl", &add).await.code, 0);
    t.add_to("erin", "nodes rekey db --host-key -", &line("new"))
        .await;
    t.add_to("erin", "nodes rekey db --host-key -", &line("new"))
        .await;
    t.add_to(
        "erin",
        "nodes rekey db --host-key -",
        &format!("{}\n{}", line("new"), line("more")),
    )
    .await;
    t.add("erin", "nodes rekey db --scan").await;
    t.add("erin", "nodes rekey db").await;
    t.add("erin", "nodes rekey db --host-ca").await;
    t.add("erin", "nodes rekey db --host-key ./key.pub").await;
    t.add("erin", "nodes rekey nothing --scan").await;
    t.add("erin", "nodes rekey iot --scan").await;
    t.add("erin", "audit ls --event node.update --format json")
        .await;
    t.compare("rekey.txt");
}
