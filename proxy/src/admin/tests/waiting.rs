//! `request create` without `--nowait`: from the block to the outcome.

use super::*;

/// A command that runs beside the test, heard line by line.
pub(super) struct Running {
    pub(super) task: tokio::task::JoinHandle<Said>,
    heard: mpsc::UnboundedReceiver<String>,
    so_far: String,
    leave: tokio::sync::oneshot::Sender<Leave>,
}

impl Running {
    pub(super) fn start(world: &World, who: &str, line: &str, client: Client) -> Self {
        let (tell, heard) = mpsc::unbounded_channel();
        let (leave, left) = tokio::sync::oneshot::channel();
        let (ctx, caller) = (world.ctx.clone(), caller(who));
        let line = CommandLine::from_exec(line.as_bytes()).unwrap();
        let mut client = Client {
            heard: Some(tell),
            leave: Some(left),
            ..client
        };
        let task = tokio::spawn(async move {
            let exit = run(&ctx, caller, line, &mut client).await;
            client.said.code = exit.code();
            client.said
        });
        Self {
            task,
            heard,
            so_far: String::new(),
            leave,
        }
    }

    pub(super) fn so_far(&self) -> &str {
        &self.so_far
    }

    /// Waits for words; returns the request's ID if it was printed until then.
    pub(super) async fn until(&mut self, words: &str) -> String {
        while !self.so_far.contains(words) {
            let more = self.heard.recv().await;
            self.so_far.push_str(
                &more.unwrap_or_else(|| panic!("it ended without `{words}`:\n{}", self.so_far)),
            );
        }
        let id = self
            .so_far
            .split_once("Request ID:  ")
            .map(|(_, rest)| rest[..36].to_owned());
        id.unwrap_or_default()
    }
}

const CREATE: &str = "request create --resource root@iot --reason please";

#[tokio::test]
async fn an_approval_ends_the_wait_at_once_with_its_reason() {
    let world = world().await;
    let mut waiting = Running::start(&world, "alice", CREATE, Client::default());
    let id = waiting.until("Waiting for request approval...").await;
    let expected = format!(
        "Creating request...\nRequest ID:  {id}\nUsername:    alice\nRoles:       access\nResources:   [\"/example.com/node/{IOT}\"] (iot)\n\
         Logins:      root\nGrants:      any command on iot as root until 21 Nov 26 08:00 UTC\nReason:      \"please\"\n\
         Reviewers:   [none] (suggested)\nStatus:      PENDING\n\nWaiting for request approval... (expires in 12h; the request stays when you leave)\n"
    );
    assert_eq!(waiting.so_far, expected);
    world
        .says(
            "bob",
            &format!("request review {id} --approve --reason okay"),
        )
        .await;
    let said = waiting.task.await.unwrap();
    assert_eq!(said.code, 0);
    assert_eq!(
        said.out,
        format!("{expected}Approval received from bob, reason=\"okay\"\n")
    );
    assert_eq!(said.err, "");
}

#[tokio::test]
async fn a_denial_is_77_and_an_end_without_an_answer_75() {
    let world = world().await;
    let mut waiting = Running::start(&world, "alice", CREATE, Client::default());
    let id = waiting.until("Waiting").await;
    world
        .says(
            "bob",
            &format!("request review {id} --deny --reason 'not today'"),
        )
        .await;
    let said = waiting.task.await.unwrap();
    assert_eq!(
        (said.code, said.err.as_str()),
        (77, "Request denied by bob, reason=\"not today\"\n")
    );

    let mut waiting = Running::start(
        &world,
        "alice",
        &format!("{CREATE} --request-ttl 30m"),
        Client::default(),
    );
    let id = waiting.until("Waiting").await;
    world.clock.advance(time::Duration::minutes(30));
    let said = waiting.task.await.unwrap();
    assert_eq!(said.code, 75);
    assert_eq!(
        said.err,
        format!(
            "Request {id} expired at 20 Nov 26 20:30 UTC without an answer; ask again to file a new one\n"
        )
    );

    let mut waiting = Running::start(&world, "alice", CREATE, Client::default());
    let id = waiting.until("Waiting").await;
    world.says("alice", &format!("request cancel {id}")).await;
    let said = waiting.task.await.unwrap();
    assert_eq!(
        (said.code, said.err),
        (
            75,
            format!("Request {id} was canceled by alice; ask again to file a new one\n")
        )
    );
}

#[tokio::test]
async fn an_equal_request_is_joined_and_both_waits_end() {
    let world = world().await;
    let mut first = Running::start(&world, "alice", CREATE, Client::default());
    let id = first.until("Waiting").await;
    let mut second = Running::start(&world, "alice", CREATE, Client::default());
    assert_eq!(second.until("Waiting").await, id);
    assert!(
        second.so_far.starts_with(&format!(
            "Joining request {id}, which is already pending.\n"
        )),
        "{}",
        second.so_far
    );
    assert_eq!(world.requests(), 1);
    world
        .says("bob", &format!("request review {id} --approve"))
        .await;
    assert_eq!(first.task.await.unwrap().code, 0);
    assert_eq!(second.task.await.unwrap().code, 0);
    let covered = world.says("alice", CREATE).await;
    assert_eq!(covered.code, 0);
    assert!(
        covered.out.starts_with(&format!(
            "Request {id} is approved and gives this already.\n"
        )),
        "{covered:?}"
    );
}

#[tokio::test]
async fn who_leaves_leaves_the_request_pending() {
    let world = world().await;
    let terminal = || Client {
        typed: Some(VecDeque::new()),
        ..Client::default()
    };
    let mut waiting = Running::start(&world, "alice", CREATE, terminal());
    let id = waiting.until("Ctrl-C to leave, the request stays)").await;
    waiting.leave.send(Leave::Interrupted).unwrap();
    let said = waiting.task.await.unwrap();
    assert_eq!(said.code, 75);
    assert!(
        said.err
            .starts_with(&format!("Request {id} stays pending; ")),
        "{said:?}"
    );
    let mut waiting = Running::start(&world, "alice", CREATE, Client::default());
    assert_eq!(waiting.until("Waiting").await, id);
    waiting.leave.send(Leave::Disconnected).unwrap();
    waiting.task.await.unwrap();
    let shown = world.says("alice", &format!("request show {id}")).await;
    assert!(shown.out.contains("Status:      PENDING"), "{shown:?}");
}

#[tokio::test]
async fn a_terminal_is_asked_for_a_missing_reason_and_a_program_never() {
    let world = world().await;
    let typed = |typed: Vec<Typed>| Client {
        typed: Some(typed.into()),
        ..Client::default()
    };
    let line = "request create --resource iot --nowait";
    let asked = world
        .give(
            "alice",
            line,
            typed(vec![Typed::Line("  because\u{1b}[A ".to_owned())]),
        )
        .await;
    assert_eq!(asked.prompts, ["Enter request reason: "]);
    assert!(
        asked.said.out.contains("Reason:      \"because\\x1b[A\"\n"),
        "{:?}",
        asked.said
    );
    let left = world
        .give(
            "alice",
            "request create --resource n2 --nowait",
            typed(vec![Typed::Interrupted]),
        )
        .await;
    assert_eq!(left.said.code, 130);
    assert_eq!(
        world.requests(),
        1,
        "who leaves at the prompt has filed nothing"
    );
    let given = world
        .give(
            "alice",
            "request create --resource n2 --nowait --reason x",
            typed(vec![]),
        )
        .await;
    assert!(given.prompts.is_empty());
    let program = world
        .give(
            "alice",
            "request create --resource deploy@n2 --nowait",
            Client::default(),
        )
        .await;
    assert!(program.prompts.is_empty());
    assert_eq!(program.said.code, 0, "{:?}", program.said);
}

#[tokio::test]
async fn a_reason_of_more_than_4096_bytes_is_refused_everywhere() {
    let world = world().await;
    let id = world.filed("iot").await;
    let long = "r".repeat(4097);
    for (who, line) in [
        (
            "alice",
            format!("request create --nowait --resource n2 --reason {long}"),
        ),
        (
            "bob",
            format!("request review {id} --approve --reason {long}"),
        ),
        ("erin", format!("requests approve {id} --reason {long}")),
        ("erin", format!("requests deny {id} --reason {long}")),
        ("erin", format!("requests rm {id} --reason {long}")),
        ("erin", format!("users lock alice --message {long}")),
    ] {
        let said = world.says(who, &line).await;
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{said:?}");
        assert_eq!(
            said.err,
            "ERROR: the reason is 4097 bytes long, the limit is 4096; shorten it\n"
        );
    }
    assert_eq!(world.requests(), 1);
    let said = world
        .says(
            "alice",
            &format!(
                "request create --nowait --resource n2 --reason {}",
                "r".repeat(4096)
            ),
        )
        .await;
    assert_eq!(said.code, 0);
}

#[tokio::test]
async fn a_dry_run_computes_everything_and_writes_nothing() {
    let world = world().await;
    let before = world.ctx.state.reader().audit_head().await.unwrap();
    let said = world
        .says(
            "alice",
            "request create --resource iot --dry-run --reason x",
        )
        .await;
    assert_eq!(said.code, 0);
    assert!(
        said.out.contains("Roles:       access\n") && said.err.contains("bob"),
        "{said:?}"
    );
    assert_eq!(world.requests(), 0);
    assert_eq!(world.ctx.state.reader().audit_head().await.unwrap(), before);
}

#[tokio::test]
async fn whoever_waits_for_input_or_an_answer_leaves_when_locked_out_and_nothing_is_done() {
    let dawdling = || Client {
        dawdles: true,
        ..Client::default()
    };
    let at_a_terminal = || Client {
        typed: Some(VecDeque::new()),
        ..dawdling()
    };
    let cases = [
        ("erin", "users add zoe --key -", dawdling()),
        ("erin", "create -f -", dawdling()),
        ("erin", "nodes host-cert iot --key -", dawdling()),
        (
            "alice",
            "request create --resource root@iot",
            at_a_terminal(),
        ),
    ];
    for (who, line, client) in cases {
        let world = world().await;
        let mut waiting = Running::start(&world, who, line, client);
        waiting.until("waiting for input").await;
        // Somebody else's lock is no reason to leave.
        world.says("ctl", "lock --user bob").await;
        world
            .says("ctl", &format!("lock --user {who} --message stolen"))
            .await;
        let said = waiting.task.await.unwrap();
        assert_eq!(said.code, 77, "{line}: {said:?}");
        assert!(said.err.contains("stolen"), "{line}: {said:?}");
        assert_eq!(world.requests(), 0);
        assert!(world.ctx.state.view().user(&name("zoe")).is_none());
    }
    let world = world().await;
    let climber = "{kind: role, version: v8, metadata: {name: climber}, spec: {allow: {request: {roles: [access]}}}}";
    world.says_to("ctl", "create -f -", climber).await;
    world
        .says("ctl", "users update alice --roles climber")
        .await;
    let asked = "login --request-roles access --request-reason please";
    let mut waiting = Running::start(&world, "alice", asked, Client::default());
    waiting.until("Waiting for request approval").await;
    let key = fingerprint(&key("alice"));
    world.says("ctl", &format!("lock --key {key}")).await;
    let said = waiting.task.await.unwrap();
    assert_eq!((said.code, said.out.as_str()), (77, ""), "{said:?}");
}

#[tokio::test]
async fn whoever_waits_leaves_when_her_key_is_taken_from_her() {
    let world = world().await;
    let mut waiting = Running::start(&world, "alice", CREATE, Client::default());
    waiting.until("Waiting for request approval").await;
    let another = key("another").to_openssh().unwrap();
    let said = world
        .says_to("ctl", "users update alice --key -", &another)
        .await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = waiting.task.await.unwrap();
    assert_eq!(said.code, 77, "{said:?}");
}
