//! What people read, command by command.

use super::*;

/// Commands and what they said, with everything that differs from run to run replaced.
pub(super) struct Transcript<'a> {
    world: &'a World,
    text: String,
    /// UUIDs in the order in which they were first seen.
    ids: Vec<String>,
}

impl<'a> Transcript<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self {
            world,
            text: String::new(),
            ids: Vec::new(),
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) async fn add(&mut self, who: &str, line: &str) -> Said {
        self.add_to(who, line, "").await
    }

    pub(super) async fn add_to(&mut self, who: &str, line: &str, stdin: &str) -> Said {
        let said = self.world.says_to(who, line, stdin).await;
        let mut text = format!("{who}$ {line}\n");
        stdin
            .lines()
            .for_each(|line| text.push_str(&format!("  < {line}\n")));
        said.out
            .lines()
            .for_each(|line| text.push_str(&format!("  {line}\n")));
        said.err
            .lines()
            .for_each(|line| text.push_str(&format!("  ! {line}\n")));
        if said.code != 0 {
            text.push_str(&format!("  exit {}\n", said.code));
        }
        let text = self.settled(&text);
        self.text.push_str(&text);
        self.text.push('\n');
        said
    }

    /// The same text in every run: UUIDs by order of appearance in a form of the same width, hashes blank.
    fn settled(&mut self, text: &str) -> String {
        let uuid = regex_lite_uuid(text);
        let mut out = text.to_owned();
        for id in uuid.into_iter().filter(|id| id != IOT && id != N2) {
            let index = self
                .ids
                .iter()
                .position(|seen| *seen == id)
                .unwrap_or_else(|| {
                    self.ids.push(id.clone());
                    self.ids.len() - 1
                });
            out = out.replace(
                &id,
                &format!("{:08}-0000-4000-8000-000000000000", index + 1),
            );
            out = out.replace(&format!("={} ", &id[..8]), &format!("={:08} ", index + 1));
        }
        for (index, id) in self.ids.iter().enumerate() {
            out = out.replace(&format!("={}", &id[..8]), &format!("={:08}", index + 1));
            out = out.replace(&id[..8], &format!("{:08}", index + 1));
        }
        // YAML quotes a hash or not, by its first character.
        blank_hashes(&out).replace("\"HASH\"", "HASH")
    }

    /// Blanks what is random and no UUID.
    pub(super) fn hide(&mut self, random: &str, with: &str) {
        self.text = self.text.replace(random, with);
    }

    pub(super) fn compare(&self, file: &str) {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/admin/transcripts")
            .join(file);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &self.text).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if expected != self.text {
            let differs = expected
                .lines()
                .zip(self.text.lines())
                .position(|(a, b)| a != b);
            let at = differs.unwrap_or(expected.lines().count().min(self.text.lines().count()));
            let show = |text: &str| {
                text.lines()
                    .skip(at.saturating_sub(4))
                    .take(12)
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            panic!(
                "{file} differs from line {}:\n--- expected\n{}\n--- said\n{}",
                at + 1,
                show(&expected),
                show(&self.text)
            );
        }
    }
}

/// Every UUID in a text, in order.
fn regex_lite_uuid(text: &str) -> Vec<String> {
    let shape = |candidate: &str| {
        candidate.bytes().enumerate().all(|(i, b)| {
            if [8, 13, 18, 23].contains(&i) {
                b == b'-'
            } else {
                b.is_ascii_hexdigit()
            }
        })
    };
    let mut found = Vec::new();
    for start in 0..text.len() {
        if let Some(candidate) = text
            .get(start..start + 36)
            .filter(|candidate| shape(candidate))
            && !found.contains(&candidate.to_owned())
        {
            found.push(candidate.to_owned());
        }
    }
    found
}

/// 64 hexadecimal digits are a hash of something that differs.
fn blank_hashes(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if bare.len() == 64 && bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            out.push_str("HASH");
            out.push_str(&word[64..]);
        } else {
            out.push_str(word);
        }
    }
    out
}

#[tokio::test]
async fn what_is_mine_and_what_i_could_ask_for_reads_like_the_guides() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    for line in [
        "ls",
        "request search --kind node",
        "request search --kind node --search iot -v",
        "request search --kind=node --labels env=nowhere",
        "request search --kind node --labels env=prod --format json",
        "request search --kind node --search iot --format yaml",
        "request search --roles",
        "",
        "status",
        "status --format json",
        "whoami",
        "whoami --format yaml",
        "explain root@iot",
        "explain nobody@iot",
        "explain root@iot --format json",
        "explain root@nosuch",
        "version",
    ] {
        t.add("alice", line).await;
    }
    for line in [
        "ls",
        "ls -v",
        "ls env=prod",
        "ls --search IOT",
        "ls --query labels[\"env\"] == \"prod\"",
        "ls --query 'labels[\"env\"] != \"prod\" && !search(\"192.0.2.9\")' --format json",
        "ls --query labels.env == \"none\"",
        "ls env=prod --query name == \"n2\" || hasPrefix(name, \"io\") --search n2",
        "ls --format json",
        "ls os=linux --format yaml",
        "ls env=none --format json",
        "status",
        "explain root@n2",
        "explain deploy@n2",
    ] {
        t.add("carol", line).await;
    }
    for line in [
        "ls",
        "status",
        "whoami",
        "explain root@iot --user carol",
        "explain root@iot --user alice",
        "explain root@iot --user nina",
        "explain root@iot",
    ] {
        t.add("ctl", line).await;
    }
    t.compare("access.txt");
}

#[tokio::test]
async fn a_request_reads_the_same_to_those_who_ask_and_those_who_answer() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    t.add(
        "alice",
        "request create --resource iot --reason responding to incident 123 --nowait --dry-run",
    )
    .await;
    t.add(
        "alice",
        "request create --resource iot --reason responding to incident 123 --nowait",
    )
    .await;
    t.add(
        "alice",
        "request create --resource iot --reason again --nowait",
    )
    .await;
    // Listings are ordered by the time of filing.
    world.clock.advance(time::Duration::minutes(1));
    t.add("alice", "request create --resource root@n2 --reviewers bob --max-duration 1h --request-ttl 30m --nowait --format json").await;
    let all: Vec<String> = world
        .ctx
        .state
        .view()
        .live_requests_of(&name("alice"))
        .map(|r| (r.id.to_string(), r.max_duration))
        .filter(|(_, m)| m.is_none())
        .map(|(id, _)| id)
        .collect();
    let id = all[0].clone();
    t.add("alice", "request ls").await;
    t.add("alice", "request ls --mine --state pending --format yaml")
        .await;
    t.add("bob", "").await;
    t.add("bob", "request ls --reviewable").await;
    t.add("bob", "request ls --suggested").await;
    t.add("bob", &format!("request show {id}")).await;
    t.add("carol", "request ls").await;
    t.add("carol", &format!("request show {id}")).await;
    world.clock.advance(time::Duration::minutes(5));
    t.add(
        "bob",
        &format!("request review {id} --approve --reason looks fine"),
    )
    .await;
    t.add("bob", &format!("request review {id} --approve"))
        .await;
    t.add("alice", &format!("request show {id}")).await;
    t.add("alice", &format!("request show {id} --format json"))
        .await;
    t.add("alice", "request create --resource iot --nowait")
        .await;
    t.add("alice", "request ls --state approved").await;
    t.add("alice", "ls").await;
    t.add("alice", "status").await;
    t.add("alice", "status --format yaml").await;
    t.add("alice", "explain root@iot").await;
    t.add("alice", &format!("request drop {}", &id[..8])).await;
    t.add("alice", "request drop").await;
    t.add("alice", "explain root@iot").await;
    t.add("alice", &format!("request assume {id}")).await;
    t.add("alice", "request drop").await;
    t.add("alice", &format!("request drop {id}")).await;
    t.add("alice", &format!("request assume {id}")).await;
    t.add("alice", &format!("request assume {id}")).await;
    t.add("alice", &format!("request drop {id} --end")).await;
    t.add("alice", &format!("request show {id}")).await;
    let other: Vec<String> = world
        .ctx
        .state
        .view()
        .live_requests_of(&name("alice"))
        .map(|r| r.id.to_string())
        .collect();
    t.add("alice", &format!("request cancel {}", other[0]))
        .await;
    t.add("alice", &format!("request cancel {}", other[0]))
        .await;
    t.add("ctl", "requests ls").await;
    t.compare("requests.txt");
}

#[tokio::test]
async fn administrators_decide_requests_of_others() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let first = world.filed("iot").await;
    let second = world.filed("n2").await;
    t.add("erin", &format!("requests get {first}")).await;
    t.add("erin", &format!("requests approve {first} --roles nosuch"))
        .await;
    t.add(
        "erin",
        &format!("requests approve {first} --reason fine by me --max-duration 1h"),
    )
    .await;
    t.add("erin", &format!("requests approve {first}")).await;
    t.add(
        "erin",
        &format!("requests deny {first},{second} --reason=maintenance"),
    )
    .await;
    t.add("erin", &format!("requests deny {first}")).await;
    let third = world.filed("iot").await;
    t.add(
        "ctl",
        &format!("request review {third} --deny --reason not today"),
    )
    .await;
    t.add("ctl", &format!("requests rm {third}")).await;
    let fourth = world.granted("n2").await;
    t.add("ctl", &format!("requests rm {fourth}")).await;
    t.add("ctl", &format!("request show {fourth}")).await;
    t.add("ctl", &format!("audit ls --request {fourth}")).await;
    t.compare("requests_admin.txt");
    assert_eq!(world.says("ctl", "audit verify").await.code, 0);
}

#[tokio::test]
async fn users_nodes_and_documents_are_kept_by_administrators() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let key_line = key("zoe").to_openssh().unwrap();
    t.add_to(
        "erin",
        "users add zoe --roles requester --logins root --traits team=db,team=web --key -",
        &key_line,
    )
    .await;
    t.add_to(
        "erin",
        "users add yuri --roles requester --key -",
        &key_line,
    )
    .await;
    t.add_to(
        "erin",
        "users add yuri --roles nosuch --key -",
        &key("yuri").to_openssh().unwrap(),
    )
    .await;
    t.add(
        "erin",
        &format!(
            "users add yuri --key '{}'",
            key("yuri").to_openssh().unwrap()
        ),
    )
    .await;
    for line in [
        "users add yuri --key ./yuri.pub",
        "users ls",
        "users show zoe",
        "users show zoe --format json",
        "users update zoe --roles access --logins '' --traits team=",
        "users update zoe --rm-key SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "users lock zoe --message 'left the company'",
        "users lock erin",
        "users show zoe --format yaml",
        "users unlock zoe",
        "users rm zoe",
        "users rm zoe",
        "nodes add db --addr 192.0.2.9:22 --labels env=staging --host-ca",
        "nodes add db2 --addr 192.0.2.10:2201 --scan",
        "nodes add db3 --addr 192.0.2.10:2202 --scan",
        "nodes ls",
        "nodes ls -v --search staging",
        "nodes show db",
        "nodes show db2 --format json",
        "nodes update db --labels env=prod,os=linux --egress-addresses 198.51.100.0/24",
        "nodes show db --format yaml",
        "nodes sshd-config iot",
        "nodes sshd-config iot --exclusive",
        "nodes rm db",
        "nodes rm db",
        "nodes tunnel-unit iot",
        "nodes add gate --addr tunnel --host-ca",
        "nodes tunnel-unit gate --sshd-port 2022",
        "auth export --type user",
        "auth export --type node",
        "auth export --type host",
        "config",
        "config --part known_hosts",
        "config --part ssh_config --alias door",
        "config --alias 'x y'",
    ] {
        t.add("erin", line).await;
    }
    let role = "kind: role\nversion: v7\nmetadata: {name: staging, description: Staging machines}\nspec:\n  allow:\n    logins: [deploy]\n    node_labels: {env: staging}\n";
    t.add_to("erin", "create -f -", role).await;
    t.add_to("erin", "create -f -", role).await;
    t.add_to("erin", "create --force -f -", role).await;
    t.add_to(
        "erin",
        "create -f -",
        "kind: role\nversion: v7\nmetadata: {name: bad}\nspec:\n  allow:\n    loginz: [root]\n",
    )
    .await;
    t.add_to("erin", "create -f -", "kind: role\nversion: v7\nmetadata: {name: good}\nspec: {}\n---\nkind: user\nversion: v2\nmetadata: {name: una}\nspec: {roles: [nosuch]}\n").await;
    t.add_to("erin", "create -f -", &format!("kind: user\nversion: v2\nmetadata: {{name: una}}\nspec:\n  roles: [staging]\n  keys: ['{}']\n---\nkind: node\nversion: v2\nmetadata: {{name: web, labels: {{env: staging}}}}\nspec: {{addr: '192.0.2.11:22', host_ca: true}}\n", key("una").to_openssh().unwrap())).await;
    for line in [
        "get role/staging",
        "get role/staging --format json",
        "get roles --format text",
        "get user/una",
        "get node/web",
        "get nodes --format text",
        "get role/nosuch",
        "rm role/staging",
        "rm user/una",
        "rm role/staging",
        "rm role/staging",
        "rm node/web",
    ] {
        t.add("erin", line).await;
    }
    t.compare("objects.txt");
}

#[tokio::test]
async fn help_explains_every_command() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    for line in [
        "help",
        "help request",
        "help request create",
        "request review --help",
        "help users add",
        "help nosuch",
        "help request nosuch",
    ] {
        t.add("alice", line).await;
    }
    t.add("ctl", "").await;
    t.compare("help.txt");
}

#[tokio::test]
async fn bad_input_is_one_sentence_with_the_next_step() {
    let world = world().await;
    let mut t = Transcript::new(&world);
    let before = world.ctx.state.view().nodes().count();
    for line in [
        "nosuch",
        "request",
        "request lst",
        "request show",
        "request show ab",
        "request show deadbeef",
        "request show deadbee*",
        "request create --nowait",
        "request create --nowait --resource nosuch",
        "request create --nowait --resource /",
        "request create --nowait --resource /example.com/node",
        "request create --nowait --resource /example.com/teapot/x",
        "request create --nowait --resource /other.example/node/b1168402-9340-421a-a344-af66a6675738",
        "request create --nowait --resource /example.com/node/00000000-0000-4000-8000-000000000000",
        "request create --nowait --resource postgres@iot",
        "request create --nowait --resource 'bad*login@iot'",
        "request create --nowait --roles nosuch",
        "request create --nowait --resource iot --request-ttl soon",
        "request create --nowait --resource iot --session-ttl -1h",
        "request create --nowait --resource iot --assume-start-time noon",
        "request create --nowait --resource iot --assume-start-time 2020-01-01T00:00:00Z",
        "request create --nowait --resource iot --assume-start-time 2027-01-01T00:00:00Z",
        "request create --nowait --resource db:5432",
        "request search",
        "request search --kind dbs",
        "request search --kind teapot",
        "ls --query 'lables[\"env\"] == \"prod\"'",
        "ls --query labels[\"env\"] == \"prod",
        "ls --query labels.env = 'prod'",
        "request search --kind node --query ifelse(name == 'iot', 'a', 'b') == 'a' -v",
        "request search --kind node --query user.metadata.name == 'x'",
        "request search --roles --query lables.env == 'x'",
        "ls --query",
        "ls env",
        "ls --format xml",
        "explain nonsense",
        "request ls 'unclosed",
        "request review deadbeef",
        "request review deadbeef --approve --deny",
        "request review deadbeef --approve",
        "login --request-nowait",
        "login --request-id deadbeef",
        "tokens ls",
        "cert root@iot",
        "sessions play deadbeef",
        "locks ls",
    ] {
        let said = t.add("alice", line).await;
        assert!(said.code != 0 && said.out.is_empty(), "{line}: {said:?}");
    }
    for line in [
        "nodes add x --addr nowhere --host-ca",
        "nodes add UPPER --addr 192.0.2.1:22 --host-ca",
        "nodes add x --addr 192.0.2.1:22",
        "nodes add x --addr 192.0.2.1:22 --host-ca --labels anteroom/x=y",
        "nodes add x --addr 192.0.2.1:22 --host-ca --scan",
        "nodes add x --addr 192.0.2.1:22 --host-ca --egress-addresses 192.0.2.1/33",
        "users add 'Alice!' --key -",
        "users add x",
        "users add x --key - --key -",
        "users show nosuch",
        "nodes show nosuch",
        "nodes show /example.com/app/x",
        "get teapot/x",
        "get role/",
        "rm role",
        "rm all",
        "auth export --type teapot",
        "audit ls --event nosuch",
        "audit ls --since yesterday",
        "request create --resource iot",
        "request search --kind node",
    ] {
        let said = t.add("ctl", line).await;
        assert!(said.code != 0 && said.out.is_empty(), "{line}: {said:?}");
    }
    assert_eq!(world.requests(), 0, "nothing was filed");
    assert_eq!(
        world.ctx.state.view().nodes().count(),
        before,
        "nothing was written"
    );
    t.compare("bad_input.txt");
}

#[tokio::test]
async fn an_ambiguous_name_lists_what_the_asker_may_see() {
    let world = world().await;
    let twin = node(
        "iot",
        "11111111-1111-4111-8111-111111111111",
        &[("env", "twin")],
    );
    world
        .ctx
        .state
        .put(
            &crate::state::By::local_administrator(),
            vec![twin],
            Existing::Refuse,
        )
        .await
        .unwrap();
    let said = world
        .says("alice", "request create --nowait --resource iot")
        .await;
    assert_eq!(said.code, 64);
    assert!(
        said.err.contains(IOT) && said.err.contains("11111111-1111-4111-8111-111111111111"),
        "{said:?}"
    );
    let said = world
        .says("nina", "request create --nowait --resource iot")
        .await;
    assert_eq!(said.code, 66, "who may see neither is told of neither");
    assert!(!said.err.contains(IOT), "{said:?}");
}

#[tokio::test]
async fn status_for_programs_has_what_tsh_has_where_tsh_has_it() {
    let world = world().await;
    let id = world.granted("iot").await;
    let said = world.says("alice", "status --format json").await;
    let status: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(status["active"]["username"], "alice");
    assert_eq!(status["active"]["active_requests"][0], id.as_str());
    for field in ["username", "cluster", "roles", "logins", "valid_until"] {
        assert!(!status[field].is_null(), "{field}: {said:?}");
        assert_eq!(status["active"][field], status[field], "{said:?}");
    }
}

#[tokio::test]
async fn the_local_administrator_is_shown_the_cluster() {
    let world = world().await;
    let said = world.says("ctl", "status").await;
    assert_eq!(said.code, 0, "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines[0], "Cluster  example.com");
    assert!(lines[1].starts_with("Version  "), "{said:?}");
    for (line, kind) in lines[2..].iter().zip(["user", "node", "host"]) {
        assert!(line.starts_with(&format!("{kind} CA  SHA256:")), "{said:?}");
    }
    assert_eq!(lines.len(), 5, "{said:?}");
    let object = world.says("ctl", "status --format json").await;
    let object: serde_json::Value = serde_json::from_str(&object.out).unwrap();
    assert_eq!(object["authorities"][1]["type"], "node");
}

#[tokio::test]
async fn what_get_prints_as_json_goes_back_into_create_all_or_nothing() {
    let world = world().await;
    for kind in ["roles", "users", "nodes", "role/access"] {
        let got = world
            .says("ctl", &format!("get {kind} --format json"))
            .await;
        let said = world.says_to("ctl", "create --force -f -", &got.out).await;
        assert_eq!(said.code, 0, "{kind}: {said:?}");
        assert!(said.out.contains("unchanged"), "{kind}: {said:?}");
    }
    let role = |name: &str, spec: &str| {
        format!(r#"{{"kind":"role","version":"v7","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
    };
    let text = format!("[{},{}]", role("good", "{}"), role("bad", r#"{"alow":{}}"#));
    let said = world.says_to("ctl", "create -f -", &text).await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("role/bad"), "{said:?}");
    let none = world.says("ctl", "get role/good").await;
    assert_eq!(none.code, 66, "{none:?}");
}

#[tokio::test]
async fn the_audit_log_is_listed_and_verified() {
    let world = world().await;
    let id = world.granted("iot").await;
    let mut t = Transcript::new(&world);
    t.add("ada", &format!("audit ls --request {id}")).await;
    t.add(
        "ada",
        &format!("audit ls --request {id} --event access_request.review --format json"),
    )
    .await;
    t.add("ada", "audit ls --event session.start").await;
    t.add("ada", "audit ls --event session.start --format yaml")
        .await;
    t.add("ada", "audit ls --user bob --format yaml").await;
    t.add("ada", &format!("audit export --request {id} --user bob"))
        .await;
    t.add("ada", "audit export --event session.start").await;
    t.add("ada", "audit export --event nothing").await;
    t.add("ada", "audit export --format yaml").await;
    t.add("alice", "audit export").await;
    t.compare("audit.txt");
    let said = world.says("ada", "audit verify").await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("The audit log is whole: "), "{said:?}");
    let listed = world.says("ctl", "audit ls --format json").await;
    let entries: Vec<serde_json::Value> = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(entries[0]["seq"], 1);
    assert!(
        entries
            .windows(2)
            .all(|pair| pair[0]["hash"] == pair[1]["prev"]),
        "oldest first, and a chain"
    );
}

#[tokio::test]
async fn the_chain_of_an_exported_log_can_be_computed_outside() {
    use sha2::Digest;

    let world = world().await;
    let hostile = "{\"prev\":\"no\"},\"prev\":\"\u{1b}[2J\u{202e}\",\"hash\":\"";
    for number in 0..1050 {
        let entry = Entry::new(Event::Admin).user("somebody");
        let entry = if number == 7 {
            entry.command(hostile)
        } else {
            entry
        };
        world.ctx.state.audit(entry).await.unwrap();
    }
    let said = world.says("ctl", "audit export").await;
    assert_eq!(said.code, 0, "{}", said.err);
    // As docs/operations.md says to do it.
    let mut last = crate::audit::GENESIS.to_owned();
    let mut seq = 0;
    for line in said.out.lines() {
        let (fields, tail) = line.rsplit_once(",\"prev\":\"").unwrap();
        let (prev, hash) = (&tail[..64], &tail[74..138]);
        assert_eq!(prev, last, "{line}");
        let computed = sha2::Sha256::digest(format!("{prev}{fields}}}"));
        assert_eq!(hash, crate::audit::hex(&computed), "{line}");
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        seq += 1;
        assert_eq!(entry["seq"], seq, "oldest first, none left out");
        assert_eq!(entry["hash"], hash);
        last = hash.to_owned();
    }
    assert!(seq > 1050, "{seq}");
    assert!(said.out.contains(r"\u001b[2J"), "as it is stored");
}

#[tokio::test]
async fn a_log_of_several_pages_is_still_one_document() {
    let world = world().await;
    for _ in 0..1050 {
        world
            .ctx
            .state
            .audit(Entry::new(Event::Admin).user("somebody"))
            .await
            .unwrap();
    }
    let listed = world.says("ctl", "audit ls --format json").await;
    let entries: Vec<serde_json::Value> = serde_json::from_str(&listed.out).unwrap();
    assert!(entries.len() > 1050);
    let yaml = world.says("ctl", "audit ls --format yaml").await;
    let same: Vec<serde_json::Value> = serde_saphyr::from_str(&yaml.out).unwrap();
    assert_eq!(entries.len(), same.len());
    let text = world.says("ctl", "audit ls").await;
    assert_eq!(text.out.lines().count(), entries.len() + 2, "one header");
}
