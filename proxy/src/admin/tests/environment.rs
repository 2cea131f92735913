//! What comes with a command beside its options: the environment, and the terminal.

use super::waiting::Running;
use super::*;
use crate::environment::Environment;

fn environment(pairs: &[(&str, &str)]) -> Client {
    let mut environment = Environment::default();
    for (name, value) in pairs {
        assert!(environment.take(name, value), "{name}");
    }
    Client {
        environment,
        ..Client::default()
    }
}

fn terminal(lines: &[&str]) -> Client {
    let lines = lines.iter().map(|line| Typed::Line((*line).to_owned()));
    Client {
        typed: Some(lines.collect()),
        ..Client::default()
    }
}

/// alice may ask for `dba` with a reason, which its role prompts for in words of its own; bob reviews.
async fn with_prompts() -> World {
    let world = world().await;
    let roles = "kind: role\nmetadata: {name: dba}\nspec: {allow: {logins: [dba], node_labels: {'*': '*'}}}\n---\n\
        kind: role\nmetadata: {name: asks-dba}\nspec: {allow: {request: {roles: [dba], reason: {mode: required, prompt: 'Ticket number'}}}}\n---\n\
        kind: role\nmetadata: {name: prompts}\nspec: {options: {request_prompt: 'Which incident'}}\n---\n\
        kind: role\nmetadata: {name: reviews-dba}\nspec: {allow: {review_requests: {roles: [dba]}}}\n";
    assert_eq!(world.says_to("ctl", "create -", roles).await.code, 0);
    for change in [
        "users update alice --roles requester,asks-dba,prompts",
        "users update bob --roles reviewer,reviews-dba",
    ] {
        assert_eq!(world.says("ctl", change).await.code, 0);
    }
    world
}

fn only_request(world: &World) -> anteroom_core::request::AccessRequest {
    let view = world.ctx.state.view();
    let all: Vec<_> = view.requests().cloned().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].as_ref().clone()
}

#[tokio::test]
async fn the_environment_gives_what_no_option_does() {
    let world = with_prompts().await;
    let client = environment(&[
        ("ANTEROOM_REASON", " disk is full "),
        ("ANTEROOM_REVIEWERS", "bob, carol"),
        ("ANTEROOM_WAIT", "0"),
        ("ANTEROOM_SCOPE", "command"),
    ]);
    let line = "request create root@iot --command uptime -p";
    let said = world.give("alice", line, client).await.said;
    assert_eq!(said.code, 75, "filed, and not waited for: {said:?}");
    let filed = only_request(&world);
    assert_eq!(filed.reason, "disk is full");
    let reviewers: Vec<_> = filed
        .suggested_reviewers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(reviewers, ["bob", "carol"]);
    assert_eq!(filed.scope.command(), Some("uptime -p"));
}

#[tokio::test]
async fn nowait_is_done_when_it_is_filed_whatever_the_environment_says() {
    let world = with_prompts().await;
    let line = "request create iot --reason x --nowait";
    let client = environment(&[("ANTEROOM_WAIT", "0")]);
    let said = world.give("alice", line, client).await.said;
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(world.requests(), 1);
}

#[tokio::test]
async fn an_option_wins_over_the_environment() {
    let world = with_prompts().await;
    let client = environment(&[
        ("ANTEROOM_REASON", "from the environment"),
        ("ANTEROOM_REVIEWERS", "bob"),
        ("ANTEROOM_WAIT", "1h"),
    ]);
    let line = "request create iot --reason by option --reviewers carol --nowait";
    let said = world.give("alice", line, client).await.said;
    assert_eq!(said.code, 0, "{said:?}");
    let filed = only_request(&world);
    assert_eq!(filed.reason, "by option");
    let reviewers: Vec<_> = filed
        .suggested_reviewers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(reviewers, ["carol"]);
}

#[tokio::test]
async fn an_environment_that_makes_no_sense_files_nothing() {
    let world = with_prompts().await;
    let create = "request create root@iot --reason x";
    let login = "login --request-roles dba --request-reason x";
    for (line, name, value, sentence) in [
        (
            create,
            "ANTEROOM_WAIT",
            "soon",
            "ANTEROOM_WAIT=soon is not a number of seconds",
        ),
        (
            login,
            "ANTEROOM_WAIT",
            "soon",
            "ANTEROOM_WAIT=soon is not a number of seconds",
        ),
        (
            create,
            "ANTEROOM_REVIEWERS",
            "Not A Name",
            "ANTEROOM_REVIEWERS: ",
        ),
        (
            create,
            "ANTEROOM_SCOPE",
            "shell",
            "ANTEROOM_SCOPE=shell is not a scope",
        ),
        (
            create,
            "ANTEROOM_SCOPE",
            "command",
            "this request names none",
        ),
        (
            login,
            "ANTEROOM_SCOPE",
            "command",
            "a request for roles names none",
        ),
    ] {
        let said = world
            .give("alice", line, environment(&[(name, value)]))
            .await
            .said;
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{line}: {said:?}");
        assert!(said.err.contains(sentence), "{line}: {}", said.err);
        assert_eq!(world.requests(), 0, "{line} {name}={value}");
    }
    // A login that asks for nothing is not narrowed, and waits for nothing.
    let client = environment(&[("ANTEROOM_SCOPE", "command"), ("ANTEROOM_WAIT", "soon")]);
    let said = world.give("alice", "login", client).await.said;
    assert_eq!(said.code, 0, "{said:?}");
}

#[tokio::test]
async fn a_wait_from_the_environment_ends_with_the_request_left_pending() {
    let world = with_prompts().await;
    for line in [
        "request create iot --reason x",
        "login --request-roles dba --request-reason x",
    ] {
        let said = world
            .give("alice", line, environment(&[("ANTEROOM_WAIT", "1")]))
            .await
            .said;
        assert_eq!(said.code, 75, "{line}: {said:?}");
        assert!(
            said.err.contains(" stays pending; "),
            "{line}: {}",
            said.err
        );
    }
    assert_eq!(world.requests(), 2);
}

#[tokio::test]
async fn the_prompt_for_a_reason_is_the_one_of_the_roles() {
    let world = with_prompts().await;
    for (line, prompt) in [
        ("request create --roles dba --nowait", "Ticket number: "),
        ("request create iot --nowait", "Which incident: "),
    ] {
        let client = world.give("alice", line, terminal(&["T-1"])).await;
        assert_eq!(client.said.code, 0, "{:?}", client.said);
        assert_eq!(client.prompts, [prompt], "{line}");
    }
    // What joins files nothing, and so asks nothing; neither does a dry run or what is refused anyway.
    for line in [
        "request create --roles dba --nowait",
        "request create n2 --dry-run",
        "request create --roles editor --nowait",
        "request create root@n2 --reason '' --nowait",
    ] {
        let client = world.give("alice", line, terminal(&["T-1"])).await;
        assert_eq!(client.prompts, [] as [&str; 0], "{line}");
    }
    let view = world.ctx.state.view();
    assert!(
        view.requests()
            .all(|request| request.reason == "T-1" || request.reason.is_empty())
    );
    drop(view);

    let world = with_prompts().await;
    let line = "login --request-roles dba --request-nowait";
    let client = world.give("alice", line, terminal(&["T-2"])).await;
    assert_eq!(client.prompts, ["Ticket number: "]);
    assert_eq!(only_request(&world).reason, "T-2");
    let world = with_prompts().await;
    let client = Client {
        typed: Some(VecDeque::from([Typed::Interrupted])),
        ..Client::default()
    };
    assert_eq!(world.give("alice", line, client).await.said.code, 130);
    assert_eq!(world.requests(), 0);
}

#[tokio::test]
async fn without_a_terminal_the_refusal_carries_the_prompt_and_the_option_of_the_command() {
    let world = with_prompts().await;
    let said = world
        .says("alice", "request create --roles dba --nowait")
        .await;
    assert_eq!(said.code, 64);
    assert_eq!(
        said.err,
        "ERROR: a reason is required (\"Ticket number\"); give one with --reason or SetEnv ANTEROOM_REASON=…\n"
    );
    let said = world.says("alice", "login --request-roles dba").await;
    assert_eq!((said.code, said.out.as_str()), (64, ""));
    assert_eq!(
        said.err,
        "ERROR: a reason is required (\"Ticket number\"); give one with --request-reason or SetEnv ANTEROOM_REASON=…\n"
    );
    assert_eq!(world.requests(), 0);
}

#[tokio::test]
async fn login_without_waiting_prints_the_standing_certificate() {
    let world = with_prompts().await;
    let line = "login --request-roles dba --request-reason for later --request-nowait";
    let said = world.says("alice", line).await;
    assert_eq!(said.code, 0, "{said:?}");
    let filed = only_request(&world);
    let certificate: ssh_key::Certificate = said.out.trim_end().parse().unwrap();
    assert_eq!(said.out.lines().count(), 1);
    let roles = format!("{:?}", certificate.extensions());
    assert!(
        roles.contains("role=requester@") && !roles.contains("role=dba@"),
        "{roles}"
    );
    for words in [
        format!("Request ID:  {}\n", filed.id),
        format!("ssh access login --request-id {}\n", filed.id),
        "  Roles:             asks-dba, prompts, requester\n".to_owned(),
    ] {
        assert!(said.err.contains(&words), "{words}: {}", said.err);
    }
    // The same is not filed twice, and an approval goes into the next certificate.
    assert_eq!(world.says("alice", line).await.code, 0);
    let approved = format!("request review {} --approve", filed.id);
    assert_eq!(world.says("bob", &approved).await.code, 0);
    let said = world.says("alice", line).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err
            .contains(&format!("Active requests:   {}", filed.id)),
        "{}",
        said.err
    );
    // Who can't be given a certificate is refused as without the option.
    let said = world
        .says("alice", "login --request-roles editor --request-nowait")
        .await;
    assert_eq!((said.code, said.out.as_str()), (66, ""));
}

#[tokio::test]
async fn login_says_what_it_waits_for_in_the_words_of_the_guide() {
    let world = with_prompts().await;
    let line = "login --request-roles dba --request-reason two words";
    let mut waiting = Running::start(&world, "alice", line, Client::default());
    let id = waiting.until("Waiting for request approval").await;
    let seeking = format!("\nSeeking request approval... (id: {id})\n");
    assert!(waiting.so_far().contains(&seeking), "{}", waiting.so_far());
    world
        .says("bob", &format!("request review {id} --approve"))
        .await;
    let said = waiting.task.await.unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.starts_with("ssh-ed25519-cert-v01@openssh.com "),
        "{said:?}"
    );
    assert!(
        said.err.contains("Roles:             asks-dba, dba, "),
        "{said:?}"
    );
}

#[tokio::test]
async fn one_object_is_printed_and_it_is_the_last_state() {
    let world = world().await;
    let line = "request create iot --reason x --format json";
    for (verdict, state, code) in [("--approve", "APPROVED", 0), ("--deny", "DENIED", 77)] {
        let mut waiting = Running::start(&world, "alice", line, Client::default());
        let id = waiting.until("Waiting for request approval").await;
        assert_eq!(id.len(), 36, "{}", waiting.so_far());
        world
            .says("bob", &format!("request review {id} {verdict}"))
            .await;
        let said = waiting.task.await.unwrap();
        assert_eq!(said.code, code, "{said:?}");
        let object: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(
            (&object["id"], &object["state"]),
            (&id.into(), &state.into())
        );
        world.says("alice", "request drop --end").await;
    }
    let client = environment(&[("ANTEROOM_WAIT", "1")]);
    let said = world.give("alice", line, client).await.said;
    assert_eq!(said.code, 75);
    let object: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(object["state"], "PENDING");
}

#[tokio::test]
async fn what_a_joined_request_does_not_take_over_is_said() {
    let world = world().await;
    world.filed("iot").await;
    let create = |rest: &str| format!("request create iot --nowait {rest}");
    for (rest, said_of) in [
        (
            "--reason other --reviewers bob",
            Some("Your reason and reviewers are not added"),
        ),
        ("--reason other", Some("Your reason is not added")),
        ("--reviewers bob", Some("Your reviewers are not added")),
        ("--reason work", None),
        ("", None),
    ] {
        let said = world.says("alice", &create(rest)).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("Joining request "), "{rest}: {said:?}");
        match said_of {
            Some(words) => assert!(said.out.contains(words), "{rest}: {said:?}"),
            None => assert!(!said.out.contains("not added"), "{rest}: {said:?}"),
        }
    }
    assert_eq!(only_request(&world).reason, "work");
}

#[tokio::test]
async fn a_request_without_a_reason_is_not_joined_once_one_is_required() {
    let world = with_prompts().await;
    let optional =
        "kind: role\nmetadata: {name: asks-dba}\nspec: {allow: {request: {roles: [dba]}}}\n";
    let required = "kind: role\nmetadata: {name: asks-dba}\nspec: {allow: {request: {roles: [dba], reason: {mode: required}}}}\n";
    assert_eq!(
        world
            .says_to("ctl", "create --force -", optional)
            .await
            .code,
        0
    );
    let create = "request create --roles dba --nowait";
    assert_eq!(world.says("alice", create).await.code, 0);
    assert_eq!(
        world
            .says_to("ctl", "create --force -", required)
            .await
            .code,
        0
    );
    let said = world.says("alice", &format!("{create} --reason now")).await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("is pending without a reason"), "{said:?}");
    let id = only_request(&world).id;
    assert_eq!(
        world
            .says("alice", &format!("request cancel {id}"))
            .await
            .code,
        0
    );
    let said = world.says("alice", &format!("{create} --reason now")).await;
    assert_eq!(said.code, 0, "{said:?}");
}
