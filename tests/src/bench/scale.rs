//! What very many nodes cost: to list, to decide about, to add, to create and to load.
//!
//! The nodes carry four labels each and belong to teams; there are two hundred roles, each of
//! which selects by two labels with a literal, a glob and a regular expression.

use std::fmt::Write;
use std::hint::black_box;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anteroom_core::id::ClusterName;
use anteroom_core::policy::{Decision, decide, requestable_nodes, visible_nodes};
use anteroom_core::view::{Settings, View};
use anteroom_tests::{Cmd, Person, World, login};
use time::OffsetDateTime;

use crate::decide::{access, identity, node, role, searching_role, team_role, team_spec, user};
use crate::measure::{Spread, cpu_seconds, float, own_thread_seconds};

/// With `seeker`, `worst` and `everything` there are 200 roles.
const TEAMS: usize = 197;
/// Of the roles, how many somebody has and as how many more she may search.
const MANY: usize = 20;
/// How many nodes one text of documents creates.
const TEXT: usize = 1000;

/// One figure with its goal, in the unit of the goal.
pub(crate) struct Case {
    pub(crate) what: String,
    pub(crate) took: Spread,
    /// Milliseconds or microseconds; `None` where it stands for comparison.
    pub(crate) at_most: Option<f64>,
    pub(crate) micros: bool,
}

/// A whole command.
pub(crate) struct Command {
    pub(crate) what: String,
    /// From the start of `ssh` to its end, in seconds.
    pub(crate) took: Spread,
    /// Processor seconds of the proxy for each, with the connection.
    pub(crate) cpu: f64,
    /// At most so many milliseconds of them.
    pub(crate) goal: Option<f64>,
}

fn millis(what: impl Into<String>, took: Spread, at_most: Option<f64>) -> Case {
    Case {
        what: what.into(),
        took,
        at_most,
        micros: false,
    }
}

fn timed<T>(runs: usize, mut what: impl FnMut() -> T) -> Spread {
    let run = || {
        let started = own_thread_seconds();
        black_box(what());
        own_thread_seconds() - started
    };
    Spread::of(std::iter::repeat_with(run).take(runs).collect())
}

fn teams() -> Vec<String> {
    (0..TEAMS).map(|team| format!("team-{team:02}")).collect()
}

fn team_of(n: usize) -> String {
    format!("team-{:02}", n % TEAMS)
}

// ---- in the core alone

/// Questions about `nodes` nodes, without anything around them.
pub(crate) fn in_core(nodes: usize, runs: usize, decisions: usize) -> Vec<Case> {
    let now = OffsetDateTime::now_utc();
    let view = view(nodes, now);
    let mut cases = Vec::new();
    for (who, what) in [
        ("member", "20 roles"),
        ("seeker", "20 roles and 20 to search as"),
        ("holder", "all 200 roles"),
    ] {
        let who = identity(who);
        let took = timed(runs, || visible_nodes(&view, &who, now));
        cases.push(millis(
            format!("nodes that work now, {what}"),
            took,
            Some(100.0),
        ));
        let took = timed(runs, || requestable_nodes(&view, &who, now));
        cases.push(millis(
            format!("nodes to ask for, {what}"),
            took,
            Some(100.0),
        ));
    }
    for (who, login, what) in [
        ("holder", "root", "standing, all 200 roles"),
        ("holder", "postgres", "denied, all 200 roles"),
        ("worst", "root", "to be asked for, 197 roles to search as"),
        ("worst", "postgres", "denied, 197 roles to search as"),
    ] {
        let who = identity(who);
        let all: Vec<_> = (0..nodes).step_by(7).map(|n| access(login, n)).collect();
        let took = timed(runs, || {
            for access in all.iter().cycle().take(decisions) {
                let decision = decide(black_box(&view), &who, access, now);
                assert_eq!(
                    matches!(decision, Decision::Deny(_)),
                    what.starts_with("denied"),
                    "{what}"
                );
            }
        });
        cases.push(Case {
            what: format!("a decision, {what}"),
            took: took.per(float(decisions)),
            at_most: Some(20.0),
            micros: true,
        });
    }
    cases.push(added(&view, runs, "node", |view, n| {
        view.with_node(node(nodes + n, &team_of(n)))
    }));
    cases.push(added(&view, runs, "role", |view, n| {
        view.with_role(team_role(&format!("new-{n}")))
    }));
    cases
}

/// One more object in a view that somebody else goes on reading.
fn added(view: &View, runs: usize, what: &str, add: impl Fn(View, usize) -> View) -> Case {
    const EACH: usize = 100;
    let took = timed(runs, || {
        (0..EACH).fold(view.clone(), |view, n| add(black_box(view.clone()), n))
    });
    Case {
        what: format!("a {what} added to the view, with making it"),
        took: took.per(float(EACH)),
        at_most: None,
        micros: true,
    }
}

fn view(nodes: usize, now: OffsetDateTime) -> View {
    let teams = teams();
    let many = || teams[..MANY].to_vec();
    let all: Vec<String> = teams
        .iter()
        .cloned()
        .chain(["seeker", "worst", "everything"].map(str::to_owned))
        .collect();
    let seeks: Vec<String> = many().into_iter().chain(["seeker".to_owned()]).collect();
    let everything = "allow: {logins: [root], node_labels: {'*': '*'}}";
    View::new(
        ClusterName::parse("example.com").unwrap(),
        Settings::default(),
    )
    .with_roles(teams.iter().map(|team| team_role(team)))
    .with_role(searching_role("seeker", &teams[MANY..2 * MANY]))
    .with_role(searching_role("worst", &teams))
    .with_role(role("everything", everything))
    .with_nodes((0..nodes).map(|n| node(n, &team_of(n))))
    .with_users([
        user("member", &many(), now),
        user("seeker", &seeks, now),
        user("holder", &all, now),
        user("worst", &all[TEAMS + 1..TEAMS + 2], now),
    ])
}

// ---- the whole command

/// Nodes in a real proxy, and a person who asks it by `ssh`.
pub(crate) struct Live {
    world: World,
    asker: Person,
    nodes: usize,
}

impl Live {
    /// A proxy with `nodes` nodes, and how long each thousand of them took to create.
    pub(crate) fn new(nodes: usize) -> (Self, Spread) {
        let mut world = World::builder().start();
        let teams = teams();
        let mut roles = String::new();
        for team in &teams {
            write_role(&mut roles, team, &team_spec(team));
        }
        let searches = teams[MANY..2 * MANY].join(", ");
        let spec = format!("allow: {{request: {{search_as_roles: [{searches}]}}}}");
        write_role(&mut roles, "seeker", &spec);
        let spec = format!(
            "allow: {{logins: [{}], node_labels: {{'*': '*'}}}}",
            login()
        );
        write_role(&mut roles, "everything", &spec);
        world.create(&roles).exits(0);
        let held = teams[..MANY].join(",") + ",seeker";
        let asker = world.add_user("alice", &held, anteroom_tests::KeyType::Ed25519);
        world.add_user("carol", "everything", anteroom_tests::KeyType::Ed25519);
        let took = (0..nodes.div_ceil(TEXT))
            .map(|text| {
                let of = text * TEXT..((text + 1) * TEXT).min(nodes);
                let made = world
                    .ctl_cmd(&["create", "-f", "-"])
                    .stdin(documents(of))
                    .run();
                made.exits(0);
                made.took.as_secs_f64()
            })
            .collect();
        world.start_counting_memory();
        let live = Self {
            world,
            asker,
            nodes,
        };
        (live, Spread::of(took))
    }

    /// Whole commands, from the start of `ssh` to its end.
    pub(crate) fn commands(&self, runs: usize) -> Vec<Command> {
        let carol = self.world.person("carol");
        let one = format!("node-{}", self.nodes / 2);
        let search = ["request", "search", "--kind", "node"];
        let of_one = [&search[..], &["--search", &one]].concat();
        let json = ["ls", "--format", "json"];
        let goal = Some(100.0);
        [
            ("`version`", &self.asker, &["version"][..], None),
            ("`ls`, 20 roles", &self.asker, &["ls"], goal),
            (
                "`ls --search` for one",
                &self.asker,
                &["ls", "--search", &one],
                goal,
            ),
            (
                "`request search`, 20 roles to search as",
                &self.asker,
                &search,
                goal,
            ),
            (
                "`request search --search` for one",
                &self.asker,
                &of_one,
                goal,
            ),
            (
                "`ls --search` for one of every node",
                carol,
                &["ls", "--search", &one],
                goal,
            ),
            ("`ls` of every node", carol, &["ls"], None),
            ("`ls --format json` of every node", carol, &json, None),
        ]
        .map(|(what, person, words, goal)| self.command(runs, what, person, words, goal))
        .into()
    }

    fn command(
        &self,
        runs: usize,
        what: &str,
        person: &Person,
        words: &[&str],
        goal: Option<f64>,
    ) -> Command {
        let proxy = self.world.proxy().id();
        let before = cpu_seconds(proxy);
        let times = (0..runs).map(|_| {
            let done = person.access(words).run_within(Duration::from_secs(60));
            done.exits(0);
            done.took.as_secs_f64()
        });
        let took = Spread::of(times.collect());
        Command {
            what: what.to_owned(),
            took,
            cpu: (cpu_seconds(proxy) - before) / float(runs),
            goal,
        }
    }

    /// By how many KiB the proxy grows for a listing whose reader takes nothing of it, once the
    /// windows and pipes on the way are full.
    pub(crate) fn unread_listing_kib(&self) -> f64 {
        let before = self.world.memory_kib();
        let listing = self.world.person("carol").access(&["ls"]);
        let line = format!("{} | sleep 60", listing.line());
        let running = Cmd::new("sh").args(["-c", &line]).start();
        sleep(Duration::from_secs(3));
        let grown = self.world.memory_kib().saturating_sub(before);
        drop(running);
        grown as f64
    }

    /// Seconds that `serve` takes to accept connections, and its memory in KiB.
    pub(crate) fn restart(&mut self) -> (f64, u64) {
        self.world.stop_proxy().exits(0);
        let started = Instant::now();
        self.world.start_proxy();
        let took = started.elapsed().as_secs_f64();
        self.world.start_counting_memory();
        (took, self.world.memory_kib())
    }
}

fn write_role(out: &mut String, name: &str, spec: &str) {
    let _infallible = write!(
        out,
        "---\nkind: role\nversion: v8\nmetadata: {{name: {name}}}\nspec:\n  {spec}\n"
    );
}

fn documents(nodes: std::ops::Range<usize>) -> String {
    let mut out = String::new();
    for n in nodes {
        let node = node(n, &team_of(n));
        let labels: Vec<String> = node
            .labels
            .iter()
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        let _infallible = write!(
            out,
            "---\nkind: node\nversion: v2\nmetadata: {{name: {}, labels: {{{}}}}}\nspec: {{addr: 'n{n}.example.com:22', host_ca: true}}\n",
            node.name,
            labels.join(", ")
        );
    }
    out
}
