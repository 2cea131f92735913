use proptest::prelude::*;

use super::*;

fn refusal(line: &str) -> String {
    let parsed = CommandLine::from_exec(line.as_bytes())
        .and_then(|line| line.parse(Channel::Ssh).map(|_| ()));
    parsed.expect_err(line).to_string()
}

fn accepted(line: &str) -> Command {
    match CommandLine::from_exec(line.as_bytes())
        .unwrap()
        .parse(Channel::Ssh)
    {
        Ok(Parsed::Command(command)) => *command,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definition_of_the_commands_is_consistent() {
    Line::command().debug_assert();
}

#[test]
fn every_command_of_the_interface_is_read() {
    for line in [
        "ls",
        "ls env=dev os=linux -v",
        "ls --search a,b --format json",
        "ls --format=yaml",
        "ls --query labels[\"env\"] == \"prod\" -v",
        "ls --query 'labels[\"env\"] == \"prod\"' env=prod,os=linux",
        "nodes ls env=dev --query name == 'x'",
        "request search --kind node",
        "request search --kind node --search iot --labels env=dev -v",
        "request search --roles",
        "request create --resource /c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f --resource iot --reason 'responding to incident 123'",
        "request new --roles a,b --reason=x --reviewers bob,carol --nowait --request-ttl 2h --session-ttl 1h --max-duration 2d --assume-start-time 2026-11-21T10:00:00Z --dry-run",
        "request ls",
        "request ls --mine --state pending,APPROVED",
        "request ls --reviewable",
        "request ls --suggested",
        "request show ab43",
        "request review --approve ab43",
        "request review ab43 --deny --reason no",
        "request review ab43 --approve --roles a --resource iot --max-duration 1h --assume-start-time 2026-11-21T10:00:00Z",
        "request drop",
        "login",
        "login --request-id ab43 --ttl 1h",
        "login --request-roles dba --request-reason why --request-nowait",
        "request drop ab43 cd43 --end",
        "request assume ab43",
        "request cancel ab43",
        "requests ls",
        "requests get ab43",
        "requests approve ab43,cd43 --reason ok",
        "requests deny ab43 --reason no",
        "lock --user alice --ttl 1h --message left the company",
        "lock --serial 18446744073709551615",
        "locks ls",
        "cert root@iot",
        "nodes host-cert iot --key - --ttl 7d",
        "auth export --type krl",
        "locks rm ab43 user/alice",
        "requests rm ab43",
        "requests create alice --roles a --resource iot --reason x --annotations k=v --dry-run",
        "requests capabilities alice --format yaml",
        "requests approve ab43 --roles a --annotations k=v --delegator bob",
        "requests deny ab43 --annotations k=v --delegator bob",
        "request create --resource iot --scope command --command 'uptime -p'",
        "status",
        "status --format json",
        "whoami",
        "explain root@iot",
        "explain root@iot --user alice",
        "config",
        "help",
        "help request create",
        "version",
        "audit ls",
        "audit ls --event session.start --since 2h --until 2026-11-21T10:00:00Z",
        "audit verify",
        "users add alice --roles requester,access --logins alice,root --traits team=a,team=b --key -",
        "users ls",
        "users show alice",
        "users update alice --roles '' --add-key -",
        "users rm alice",
        "users lock alice --message 'left'",
        "users unlock alice",
        "nodes add iot --addr 127.0.0.1:2201 --labels env=staging,os=linux --host-key -",
        "nodes add iot --addr [::1]:22 --host-ca",
        "nodes add iot --addr iot:22 --scan --egress-addresses 10.0.0.0/8",
        "nodes ls",
        "nodes show iot",
        "nodes rm iot",
        "nodes update iot --labels '' --addr x:1",
        "nodes sshd-config iot --exclusive",
        "create -f -",
        "create --file=- --force",
        "create -",
        "create roles.yaml --force",
        "ls -f json",
        "get roles -f yaml",
        "request create iot node/web -f json",
        "request create /c/kube:ns:pods/mycluster/dev/nginx-1",
        "request approve ab43 --roles=db-support --reason=ok",
        "request deny ab43 --reason=no",
        "requests create alice iot --reason x",
        "get roles",
        "get role/access",
        "get node/iot --format json",
        "get all",
        "rm user/alice",
        "auth export --type user",
        "auth export --type=host",
    ] {
        accepted(line);
    }
}

#[test]
fn later_commands_are_unknown_today() {
    for word in ["recordings", "scp", "sh", "/bin/sh"] {
        let said = refusal(&format!("{word} ls"));
        assert!(
            said.starts_with(&format!("unknown command `{word}`")),
            "{said}"
        );
        assert!(
            said.ends_with("hint: `ssh access help` lists the commands"),
            "{said}"
        );
    }
}

#[test]
fn wrong_usage_is_one_sentence_and_a_hint() {
    for (line, expected) in [
        (
            "requst ls",
            "unknown command `requst`, did you mean `request`?\nhint: `ssh access help` lists the commands",
        ),
        (
            "request lst",
            "unknown command `request lst`, did you mean `ls`?\nhint: `ssh access help request` explains it",
        ),
        (
            "request",
            "`request` needs a command behind it\nhint: `ssh access help request` explains it",
        ),
        (
            "request ls --stat pending",
            "unknown option `--stat` of `request ls`, did you mean `--state`?\nhint: `ssh access help request ls` explains it",
        ),
        (
            "request show",
            "`request show` lacks `<ID>`\nhint: `ssh access help request show` explains it",
        ),
        (
            "request ls --state open",
            "`--state`: `open` is not a state; it is pending, approved, denied, expired, canceled or revoked\nhint: `ssh access help request ls` explains it",
        ),
        (
            "ls --format xml",
            "`--format` can't be `xml`: it is text, json or yaml\nhint: `ssh access help ls` explains it",
        ),
        (
            "ls --format",
            "`--format` needs a value\nhint: `ssh access help ls` explains it",
        ),
        (
            "request search --kind dbs",
            "`--kind` can't be `dbs`: there is no such kind; write node, db, app, kube_cluster, kube_resource or windows_desktop\nhint: `ssh access help request search` explains it",
        ),
        (
            "request review ab43 --approve --deny",
            "`--approve` can't be used together with `--deny`\nhint: `ssh access help request review` explains it",
        ),
        (
            "ls nonsense",
            "`nonsense`: write it as key=value, like env=staging\nhint: `ssh access help ls` explains it",
        ),
        (
            "request create --resource 'iot",
            "the command line ends inside a quoted argument\nhint: quote arguments as for a shell, and send documents on standard input",
        ),
    ] {
        assert_eq!(refusal(line), expected, "{line}");
    }
    assert!(refusal("request review ab43").starts_with("`request review` lacks"));
    assert!(refusal("request create").starts_with("`request create` lacks"));
}

#[test]
fn a_reason_that_lost_its_quotes_on_the_way_is_whole_again() {
    let words = |line: &str| CommandLine::from_exec(line.as_bytes()).unwrap().words;
    assert_eq!(
        words("request create --resource iot --reason responding to incident 123 --nowait"),
        [
            "request",
            "create",
            "--resource",
            "iot",
            "--reason=responding to incident 123",
            "--nowait"
        ]
    );
    assert_eq!(
        words("request new --roles a --reason=one two"),
        ["request", "new", "--roles", "a", "--reason=one two"]
    );
    assert_eq!(
        words("request review ab43fc70 --approve --reason looks fine"),
        [
            "request",
            "review",
            "ab43fc70",
            "--approve",
            "--reason=looks fine"
        ]
    );
    // What a terminal's user typed for the control socket is taken as typed.
    let typed = ["request", "create", "--reason", "a", "b"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(CommandLine::from_words(typed.clone()).unwrap().words, typed);
}

#[test]
fn a_hostile_word_is_shown_escaped_and_short() {
    let said = refusal("'\x1b]0;owned\x07\u{202e}'");
    assert!(
        said.starts_with("unknown command `\\x1b]0;owned\\x07\\u{202e}`"),
        "{said}"
    );
    let said = refusal(&format!("ls --{}", "x".repeat(5000)));
    assert!(said.len() < 400, "{said}");
}

#[test]
fn a_line_beyond_the_limits_is_refused_before_it_is_split() {
    assert!(
        refusal(&"x".repeat(LONGEST_LINE + 1)).starts_with("the command line is 65537 bytes long")
    );
    assert!(refusal(&"x ".repeat(MOST_WORDS + 1)).starts_with("the command line has 1201 words"));
    let error = CommandLine::from_exec(b"ls \xff").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the command line is not UTF-8 text")
    );
}

#[test]
fn the_client_learns_which_arguments_are_files() {
    let files = |line: &str| {
        CommandLine::from_exec(line.as_bytes())
            .unwrap()
            .file_arguments()
    };
    assert_eq!(
        files("users add a --key a.pub --key b.pub --key a.pub"),
        ["a.pub", "b.pub"]
    );
    assert_eq!(
        files("users add a --key 'ssh-ed25519 AAAA x'"),
        [] as [&str; 0]
    );
    assert_eq!(files("nodes add a --addr h:1 --host-key=k.pub"), ["k.pub"]);
    assert_eq!(files("create -f-"), ["-"]);
    assert_eq!(files("ls"), [] as [&str; 0]);
    assert!(
        CommandLine::from_exec(b"create -f -")
            .unwrap()
            .reads_stdin()
    );
    assert!(
        !CommandLine::from_exec(b"create -f x")
            .unwrap()
            .reads_stdin()
    );
}

proptest! {
    #[test]
    fn no_command_line_panics_or_answers_with_raw_text(line in any::<Vec<u8>>()) {
        if let Err(error) = CommandLine::from_exec(&line).and_then(|line| line.parse(Channel::Ssh).map(|_| ())) {
            let said = error.to_string();
            prop_assert!(!said.replace('\n', "").chars().any(crate::say::is_hostile), "{:?}", said);
        }
    }

    #[test]
    fn nor_does_one_of_known_words(words in proptest::collection::vec(prop_oneof![
        "[a-z=,@-]{0,6}", Just("request".to_owned()), Just("create".to_owned()), Just("--resource".to_owned()),
        Just("ls".to_owned()), Just("--format".to_owned()), Just("users".to_owned()), Just("add".to_owned()), Just("--".to_owned()), Just("--help".to_owned()),
        any::<String>(),
    ], 0..8)) {
        let line = CommandLine::from_words(words);
        if let Err(error) = line.and_then(|line| line.parse(Channel::Ctl).map(|_| ())) {
            let said = error.to_string();
            prop_assert!(!said.replace('\n', "").chars().any(crate::say::is_hostile), "{:?}", said);
        }
    }
}
