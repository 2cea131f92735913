//! Measures Anteroom against OpenSSH's own sshd as a jump host, in one run on one machine.
//!
//! ```text
//! cargo run --release -p anteroom-tests --bin bench [-- [--quick] [--markdown] [PART …]]
//! ```
//!
//! Everything runs on the loopback address with the real client and server and one cipher, so
//! that only ratios mean something: client, node and proxy share the processors. What is compared
//! is taken in turns, so that whatever else the machine does hits all alike, and the ratio is the
//! median of the rounds' ratios.
//!
//! PART is `throughput`, `login`, `approval`, `memory`, `decisions`, `writer`, `scale`, `tunnels`, `load` or `soak`; all but
//! `soak` without one. `soak` takes 20 minutes, or as many as `--minutes` says. `--quick` makes every part small: it shows that the parts work, and its figures mean nothing.
//! `--markdown` prints the table of `docs/performance.md`. Progress goes to stderr.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot measure has nothing to return"
)]

mod decide;
mod field;
mod load;
mod measure;
mod peers;
mod report;
mod scale;
mod tunnels;
mod writer;

use std::process::ExitCode;
use std::time::Duration;

use field::{Direction, Field, Path};
use load::Load;
use measure::{Spread, float};
use report::{Goal, Row};

/// How much is done. More rounds make medians steadier and take longer.
struct Size {
    /// Of one transfer.
    mib: u64,
    transfers: usize,
    logins: usize,
    approvals: usize,
    sessions: usize,
    decision_runs: usize,
    decisions: usize,
    writes: usize,
    nodes: usize,
    commands: usize,
    tunnels: usize,
    /// Seconds over which they come back; the unit's are 20.
    jitter: u64,
    dials: usize,
    load: Load,
    soak: f64,
}

impl Size {
    const FULL: Self = Self {
        mib: 512,
        transfers: 7,
        logins: 21,
        approvals: 9,
        sessions: 100,
        decision_runs: 9,
        decisions: 20_000,
        writes: 2_000,
        nodes: 100_000,
        commands: 9,
        tunnels: 5_000,
        jitter: 20,
        dials: 201,
        load: Load {
            held: 2_000,
            live: 1_000,
            silent: 2_000,
            logins: 200,
        },
        soak: 20.0,
    };
    const QUICK: Self = Self {
        mib: 8,
        transfers: 1,
        logins: 1,
        approvals: 1,
        sessions: 3,
        decision_runs: 1,
        decisions: 100,
        writes: 64,
        nodes: 2_000,
        commands: 1,
        tunnels: 20,
        jitter: 1,
        dials: 11,
        load: Load {
            held: 10,
            live: 10,
            silent: 60,
            logins: 5,
        },
        soak: 0.2,
    };
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Throughput,
    Login,
    Approval,
    Memory,
    Decisions,
    Writer,
    Scale,
    Tunnels,
    Load,
    Soak,
}

impl Part {
    const ALL: [Self; 10] = [
        Self::Throughput,
        Self::Login,
        Self::Approval,
        Self::Memory,
        Self::Decisions,
        Self::Writer,
        Self::Scale,
        Self::Tunnels,
        Self::Load,
        Self::Soak,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Login => "login",
            Self::Approval => "approval",
            Self::Memory => "memory",
            Self::Decisions => "decisions",
            Self::Writer => "writer",
            Self::Scale => "scale",
            Self::Tunnels => "tunnels",
            Self::Load => "load",
            Self::Soak => "soak",
        }
    }

    fn measure(self, size: &Size) -> Vec<Row> {
        eprintln!("bench: {} …", self.name());
        match self {
            Self::Throughput => throughput(size),
            Self::Login => logins(size),
            Self::Approval => approvals(size),
            Self::Memory => memory(size),
            Self::Decisions => decisions(size),
            Self::Writer => writer(size),
            Self::Scale => scale(size),
            Self::Tunnels => tunnels(size),
            Self::Load => loaded(size),
            Self::Soak => soaked(size),
        }
    }
}

fn main() -> ExitCode {
    let mut size = Size::FULL;
    let mut table: fn(&[Row]) -> String = report::text;
    let mut parts = Vec::new();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let part = Part::ALL.into_iter().find(|part| part.name() == word);
        match (word.as_str(), part) {
            (_, Some(part)) => parts.push(part),
            ("--quick", None) => size = Size::QUICK,
            ("--minutes", None) => {
                let minutes = words.next().and_then(|text| text.parse().ok());
                let Some(minutes) = minutes else {
                    eprintln!("bench: `--minutes` is followed by a number");
                    return ExitCode::from(64);
                };
                size.soak = minutes;
            }
            ("--markdown", None) => table = report::markdown,
            (_, None) => {
                eprintln!(
                    "bench: `{word}` is neither --quick, --minutes, --markdown nor a part: {}",
                    Part::ALL.map(Part::name).join(", ")
                );
                return ExitCode::from(64);
            }
        }
    }
    if parts.is_empty() {
        // A soak is for its own evening.
        parts.extend(Part::ALL.into_iter().filter(|part| *part != Part::Soak));
    }
    let machine = measure::machine();
    let rows: Vec<Row> = parts
        .into_iter()
        .flat_map(|part| part.measure(&size))
        .collect();
    println!("{machine}\n\n{}", table(&rows));
    ExitCode::SUCCESS
}

fn loaded(size: &Size) -> Vec<Row> {
    let wanted = &size.load;
    let seen = load::load(wanted);
    let sessions = format!(
        "{} held and {} live; {:.0} MiB",
        seen.held, seen.live, seen.memory_mib
    );
    let missing = wanted.held + wanted.live - seen.held - seen.live + seen.failed;
    let p99 = |figures: &[f64]| format!("p99 {:.2} s of {}", load::p99(figures), figures.len());
    let beside = |from: &str, seen: &load::Flooded| {
        Row::new(
            format!(
                "a login while {} silent connections come from {from} ({} stayed)",
                wanted.silent, seen.stayed
            ),
            p99(&seen.logins),
            Goal::at_most(2.0, "s"),
            load::p99(&seen.logins),
        )
    };
    vec![
        Row::new(
            format!(
                "{} held and {} live sessions at once",
                wanted.held, wanted.live
            ),
            sessions,
            Goal::at_most(0.0, "lost or refused"),
            float(missing),
        ),
        Row::for_comparison("a login beside them", p99(&seen.quiet)),
        beside("one address", &seen.flooded),
        beside("a hundred addresses", &seen.flooded_from_everywhere),
    ]
}

fn soaked(size: &Size) -> Vec<Row> {
    let seen = load::soak(size.soak);
    let done: Vec<String> = seen
        .done
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let grown = seen.last_mib - seen.first_mib;
    let files = format!("{} at the start, {} at the end", seen.files.0, seen.files.1);
    let threads = format!(
        "{} at the start, {} at the end",
        seen.threads.0, seen.threads.1
    );
    let back = |(before, after): (usize, usize)| float(after) - float(before);
    vec![
        Row::for_comparison(
            format!("a soak of {:.1} minutes", seen.minutes),
            done.join(", "),
        ),
        Row::new(
            "memory, last quarter less first",
            format!("{:.1} − {:.1} MiB", seen.last_mib, seen.first_mib),
            Goal::at_most(16.0, "MiB"),
            grown,
        ),
        Row::new(
            "open files",
            files,
            // A pool opens its connections to the database when they are first needed, and keeps them.
            Goal::at_most(16.0, "more"),
            back(seen.files),
        ),
        Row::new(
            "threads",
            threads,
            Goal::at_most(4.0, "more"),
            back(seen.threads),
        ),
    ]
}

/// One figure of each path in each round.
struct Rounds([Vec<f64>; Path::ALL.len()]);

impl Rounds {
    /// Takes `rounds` figures of every path, in turns; every second round goes backwards, so
    /// that no path always follows the same one.
    fn take(rounds: usize, mut figure: impl FnMut(Path) -> f64) -> Self {
        let mut all: [Vec<f64>; Path::ALL.len()] = Default::default();
        for round in 0..rounds {
            let mut order: Vec<(usize, Path)> = Path::ALL.into_iter().enumerate().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for (index, path) in order {
                all[index].push(figure(path));
            }
            eprintln!("bench:   round {} of {rounds}", round + 1);
        }
        Self(all)
    }

    fn of(&self, path: Path) -> &[f64] {
        let index = Path::ALL.iter().position(|listed| *listed == path);
        &self.0[index.expect("every path is listed")]
    }

    fn spread(&self, path: Path) -> Spread {
        Spread::of(self.of(path).to_vec())
    }

    /// `path` by sshd as a jump host, round by round.
    fn against_sshd(&self, path: Path) -> Spread {
        let pairs = self.of(path).iter().zip(self.of(Path::SshdJump));
        Spread::of(pairs.map(|(ours, theirs)| ours / theirs).collect())
    }
}

fn throughput(size: &Size) -> Vec<Row> {
    let field = Field::new();
    for path in Path::ALL {
        field.check(path);
    }
    let mut rows = Vec::new();
    for direction in Direction::BOTH {
        let mut cpu: [f64; Path::ALL.len()] = [0.0; Path::ALL.len()];
        let rates = Rounds::take(size.transfers, |path| {
            let transfer = field.transfer(path, direction, size.mib);
            let index = Path::ALL.iter().position(|listed| *listed == path);
            cpu[index.expect("every path is listed")] += transfer.cpu;
            transfer.rate
        });
        let gib = size.mib as f64 / 1024.0 * float(size.transfers);
        let [_, sshd_cpu, jump_cpu, hop_cpu] = cpu.map(|seconds| seconds / gib);
        let what = |path: Path| format!("{}, {}", direction.name(), path.name());
        let rate = |path: Path| rates.spread(path).show(1.0, 0, "MiB/s");
        rows.push(Row::for_comparison(what(Path::Direct), rate(Path::Direct)));
        rows.push(Row::for_comparison(
            what(Path::SshdJump),
            format!("{}; its CPU {sshd_cpu:.2} s/GiB", rate(Path::SshdJump)),
        ));
        for (path, cpu) in [(Path::Jump, jump_cpu), (Path::OneHop, hop_cpu)] {
            let ratio = rates.against_sshd(path);
            rows.push(Row::new(
                what(path),
                format!(
                    "{} of sshd's; {:.0} MiB/s; CPU {cpu:.2} s/GiB, {:.2} × sshd's",
                    ratio.show(1.0, 2, "×"),
                    rates.spread(path).median,
                    cpu / sshd_cpu
                ),
                Goal::at_least(1.3, "×"),
                ratio.median,
            ));
        }
    }
    rows
}

fn logins(size: &Size) -> Vec<Row> {
    let field = Field::new();
    for path in Path::ALL {
        field.login(path);
    }
    let times = Rounds::take(size.logins, |path| field.login(path));
    let what = |path: Path| format!("`ssh … true`, {}", path.name());
    let mut rows: Vec<Row> = [Path::Direct, Path::SshdJump]
        .map(|path| Row::for_comparison(what(path), times.spread(path).show(1e3, 0, "ms")))
        .into();
    rows.extend(Path::OURS.map(|path| {
        let ratio = times.against_sshd(path);
        Row::new(
            what(path),
            format!(
                "{} of sshd's; {}",
                ratio.show(1.0, 2, "×"),
                times.spread(path).show(1e3, 0, "ms")
            ),
            Goal::at_most(0.6, "×"),
            ratio.median,
        )
    }));
    rows
}

fn approvals(size: &Size) -> Vec<Row> {
    let field = Field::new();
    let (reviewer, visitor) = (field.reviewer(), field.visitor());
    let (mut direct, mut standing) = (Vec::new(), Vec::new());
    let mut ours: [Vec<f64>; Path::OURS.len()] = Default::default();
    for round in 0..size.approvals {
        direct.push(field.first_byte_direct());
        standing.push(Field::first_byte_of(&visitor));
        for (index, path) in Path::OURS.into_iter().enumerate() {
            ours[index].push(field.approval_to_first_byte(&reviewer, path));
        }
        eprintln!("bench:   round {} of {}", round + 1, size.approvals);
    }
    let mut rows = vec![
        Row::for_comparison(
            "start of a direct `ssh` to its first byte",
            Spread::of(direct.clone()).show(1e3, 0, "ms"),
        ),
        Row::for_comparison(
            "the same on an open connection to Anteroom, nothing to approve",
            Spread::of(standing).show(1e3, 0, "ms"),
        ),
    ];
    for (path, ours) in Path::OURS.into_iter().zip(ours) {
        let pairs = ours.iter().zip(&direct);
        let beyond = Spread::of(pairs.map(|(ours, direct)| ours - direct).collect());
        rows.push(Row::new(
            format!("`request review` to first byte, {}", path.name()),
            format!(
                "{} beyond a direct login; {}",
                beyond.show(1e3, 0, "ms"),
                Spread::of(ours).show(1e3, 0, "ms")
            ),
            Goal::at_most(100.0, "ms"),
            beyond.median * 1e3,
        ));
    }
    rows
}

fn memory(size: &Size) -> Vec<Row> {
    let sessions = size.sessions;
    let mut rows = vec![Row::for_comparison(
        "memory per idle session, sshd as ProxyJump",
        format!(
            "{:.0} KiB in its processes",
            Field::new().idle_kib_of_sshd(sessions.min(20))
        ),
    )];
    // A proxy of its own for each, so that none uses what another one left.
    for path in Path::OURS {
        let idle = Field::new().idle_kib(path, sessions);
        rows.push(Row::new(
            format!("memory per idle session, {}", path.name()),
            format!("{idle:.0} KiB"),
            Goal::at_most(256.0, "KiB"),
            idle,
        ));
        eprintln!("bench:   {} idle", path.name());
    }
    for path in Path::OURS {
        let held = Field::new().held_kib(path, sessions);
        rows.push(Row::new(
            format!("memory per held session, {}", path.name()),
            format!("{held:.0} KiB"),
            Goal::at_most(200.0, "KiB"),
            held,
        ));
        eprintln!("bench:   {} held", path.name());
    }
    rows
}

fn tunnels(size: &Size) -> Vec<Row> {
    let many = tunnels::many(size.tunnels, Duration::from_secs(size.jitter));
    let (direct, through, added) = tunnels::through_a_tunnel(size.dials);
    vec![
        Row::new(
            format!("memory per idle tunnel of {}", many.nodes),
            format!("{:.0} KiB", many.kib),
            Goal::at_most(150.0, "KiB"),
            many.kib,
        ),
        Row::new(
            format!("{} nodes back after a restart of the proxy", many.nodes),
            format!("{:.0} s; {} tries were refused", many.back, many.refused),
            Goal::at_most(60.0, "s"),
            many.back,
        ),
        Row::for_comparison("a session, its node dialled", direct.show(1e3, 1, "ms")),
        Row::for_comparison("a session, through a tunnel", through.show(1e3, 1, "ms")),
        Row::new(
            "what the tunnel adds to a session",
            added.show(1e3, 2, "ms"),
            Goal::at_most(1.0, "ms"),
            added.median * 1e3,
        ),
    ]
}

fn decisions(size: &Size) -> Vec<Row> {
    let cases = decide::cases(size.decision_runs, size.decisions);
    cases
        .into_iter()
        .map(|case| {
            let micros = case.took.median * 1e6;
            Row::new(
                format!("a decision, {}", case.what),
                format!(
                    "{}; {:.0} per second",
                    case.took.show(1e6, 1, "µs"),
                    1.0 / case.took.median
                ),
                Goal::at_most(20.0, "µs"),
                micros,
            )
        })
        .collect()
}

fn writer(size: &Size) -> Vec<Row> {
    let writer = writer::Writer::new();
    let synced = writer.synced_write(size.transfers);
    let mut rows = vec![Row::for_comparison(
        "4 KiB written and synced to the same disk",
        synced.show(1e3, 2, "ms"),
    )];
    let certificates = writer.certificates(size.transfers, size.writes);
    eprintln!("bench:   certificates");
    let signing = certificates[0].per_core.median;
    let requests = writer.requests(size.transfers, size.writes / 10);
    for (rate, of) in certificates
        .iter()
        .map(|rate| (rate, Some(signing)))
        .chain(requests.iter().map(|rate| (rate, None)))
    {
        let ratio = of.map(|of| format!("; {:.3} × raw signing", rate.per_core.median / of));
        rows.push(Row::for_comparison(
            rate.what.clone(),
            format!(
                "{} of a processor{}; {:.0} per second by the clock",
                rate.per_core.show(1.0, 0, "per second"),
                ratio.unwrap_or_default(),
                rate.per_second.median
            ),
        ));
    }
    rows
}

fn scale(size: &Size) -> Vec<Row> {
    let row = |case: scale::Case| {
        let (factor, unit) = if case.micros {
            (1e6, "µs")
        } else {
            (1e3, "ms")
        };
        let shown = case.took.show(factor, 1, unit);
        let what = format!("{} nodes: {}", size.nodes, case.what);
        match case.at_most {
            Some(most) => Row::new(
                what,
                shown,
                Goal::at_most(most, unit),
                case.took.median * factor,
            ),
            None => Row::for_comparison(what, shown),
        }
    };
    let mut rows: Vec<Row> = scale::in_core(size.nodes, size.decision_runs, size.decisions)
        .into_iter()
        .map(row)
        .collect();
    eprintln!("bench:   in the core");
    let (mut live, created) = scale::Live::new(size.nodes);
    rows.push(Row::for_comparison(
        "1000 nodes created from one text",
        created.show(1e3, 0, "ms"),
    ));
    eprintln!("bench:   created");
    rows.extend(live.commands(size.commands).into_iter().map(|command| {
        let what = format!("{} nodes: {}", size.nodes, command.what);
        let on_server = command.cpu * 1e3;
        let shown = format!(
            "{on_server:.0} ms of the server's processor time; {} from start to end of ssh",
            command.took.show(1e3, 0, "ms")
        );
        match command.goal {
            Some(most) => Row::new(what, shown, Goal::at_most(most, "ms"), on_server),
            None => Row::for_comparison(what, shown),
        }
    }));
    eprintln!("bench:   commands");
    rows.push(Row::for_comparison(
        format!("{} nodes: memory of an `ls` that nobody reads", size.nodes),
        format!("{:.1} MiB", live.unread_listing_kib() / 1024.0),
    ));
    let (seconds, memory) = live.restart();
    rows.push(Row::for_comparison(
        format!("`serve` with {} nodes, start to listening", size.nodes),
        format!("{:.0} ms; {} MiB resident", seconds * 1e3, memory / 1024),
    ));
    rows
}
