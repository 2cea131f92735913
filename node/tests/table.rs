//! The same inputs to a stock sshd and to the agent: what either says, and how it ends. The table of it is a
//! part of docs/node-agent.md; what differs on purpose has its reason there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use support::{Change, NODE, Node, Said, Which, fed, on_terminal};

const NO_SOCKETS: &str = "Unix sockets are not forwarded, in neither direction.";

const NO_SIZE: &str = "A terminal has at least one row and column: a client that does not know its size \
    gets 24 rows of 80, since zeros break programs that draw.";

/// One input.
struct Case {
    name: &'static str,
    login: &'static str,
    change: Change,
    /// Arguments of `ssh` before the host.
    options: Vec<String>,
    command: Option<String>,
    input: Input,
    prepare: Prepare,
    /// What is said depends on the machine, and is no part of the table.
    varies: bool,
    /// Why the agent does it otherwise, if it does.
    differs: Option<&'static str>,
}

enum Input {
    Bytes(Vec<u8>),
    /// On a terminal: its setup, and what to type when something is seen.
    Typed(&'static str, Vec<(&'static str, &'static str)>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Prepare {
    Nothing,
    /// There is an `/etc/nologin`.
    NoLogin,
    /// `ssh` runs under an agent that has a key.
    Agent,
}

fn case(name: &'static str, command: &str) -> Case {
    Case {
        name,
        login: "dev",
        change: Change::default(),
        options: Vec::new(),
        command: (!command.is_empty()).then(|| command.to_owned()),
        input: Input::Bytes(Vec::new()),
        prepare: Prepare::Nothing,
        varies: false,
        differs: None,
    }
}

impl Case {
    fn of(mut self, login: &'static str) -> Self {
        self.login = login;
        self
    }

    fn with(mut self, options: &[&str]) -> Self {
        self.options
            .extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    fn fed(mut self, input: &[u8]) -> Self {
        self.input = Input::Bytes(input.to_vec());
        self
    }

    fn typed(self, setup: &'static str, lines: &[(&'static str, &'static str)]) -> Self {
        let mut typed = self.with(&["-tt"]);
        typed.input = Input::Typed(setup, lines.to_vec());
        typed
    }

    fn certified(mut self, change: impl FnOnce(&mut Change)) -> Self {
        change(&mut self.change);
        self
    }

    fn after(mut self, prepare: Prepare) -> Self {
        self.prepare = prepare;
        self
    }

    fn varies(mut self) -> Self {
        self.varies = true;
        self
    }

    fn differs(mut self, why: &'static str) -> Self {
        self.differs = Some(why);
        self
    }

    fn run(&self, node: &Node, which: Which) -> Said {
        let mut ssh = node.ssh_with(which, self.login, &self.change);
        if self.prepare == Prepare::Agent {
            ssh = under_agent(node, &ssh);
        }
        // Options of ssh may stand behind the host, in front of the command.
        ssh.args(&self.options).args(&self.command);
        match &self.input {
            Input::Bytes(bytes) => fed(&mut ssh, bytes),
            Input::Typed(setup, lines) => on_terminal(&mut ssh, setup, lines),
        }
    }
}

/// The same command under an ssh-agent that has the key `stranger`.
fn under_agent(node: &Node, ssh: &Command) -> Command {
    let mut agent = Command::new("ssh-agent");
    agent.args(["sh", "-c", "ssh-add -q \"$0\" && exec \"$@\""]);
    agent.arg(node.path("stranger")).arg(ssh.get_program());
    agent.args(ssh.get_args());
    agent
}

fn cases(echo: u16) -> Vec<Case> {
    let sftp_init = b"\0\0\0\x05\x01\0\0\0\x03";
    let mega: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
    let to_echo = format!("-W127.0.0.1:{echo}");
    let socket = format!("/tmp/anteroom-table-{}.sock", std::process::id());
    let here = "tty >/dev/null && echo on a terminal";
    vec![
        // Who runs, and where.
        case("user, groups, folder", "id -un; id -gn; id -Gn; pwd"),
        case("the same as root", "id; pwd").of("root").varies(),
        case("environment", "env | sort"),
        case("environment of root", "env | sort").of("root"),
        case("environment on a terminal", "env | sort").typed("rows 24 cols 80", &[]),
        case(
            "variables that a client sends",
            "env | grep -E '^(LANG|LC_|FOO|LD_|NO_C)' | sort",
        )
        .with(&["-oSetEnv=LANG=de_DE LC_TIME=fr_FR NO_COLOR=1 FOO=bar LD_PRELOAD=/x.so"]),
        case(
            "mask, limits, signals",
            "umask; ulimit -n -u -c; grep -E 'Sig(Ign|Blk)' /proc/self/status",
        )
        .varies(),
        case(
            "privileges left",
            "grep -E 'Cap|NoNewPrivs' /proc/self/status",
        )
        .varies(),
        case("open files", "ls -l /proc/self/fd | grep -c -- '->'"),
        case(
            "a session of its own",
            "test $(ps -o sid= $$) -eq $$ && ! tty -s && echo yes",
        ),
        case("an account without a shell runs sh", "echo $0 $SHELL").of("plain"),
        // Commands.
        case("both streams", "echo out; echo err >&2"),
        case(
            "streams by name",
            "echo out >/dev/stdout; echo err >/dev/stderr",
        ),
        case("exit status 7", "exit 7"),
        case("exit status 255", "exit 255"),
        case("command not found", "no-such-command-here"),
        case("syntax error", "if"),
        case("ended by TERM", "kill -TERM $$"),
        case("ended by KILL", "kill -KILL $$"),
        case("ended by a signal without a name", "kill -34 $$"),
        case(
            "a command of 100 KB",
            &format!("printf %s {} | wc -c", "x".repeat(100_000)),
        ),
        case("bytes and quotes", "printf 'a\\tb  \"c\" \\303\\244 $HOME'"),
        // Streams.
        case("no input", "cat; echo $?").with(&["-n"]),
        case("input to its end", "cat; echo after").fed(b"line\nand a half"),
        case("1 MiB through cat", "cat | sha256sum").fed(&mega),
        case(
            "1 MiB to whom it does not matter",
            "exec <&-; sleep 0.2; echo done",
        )
        .fed(&mega),
        case("1 MiB from it", "head -c 1048576 /dev/zero | tr '\\0' x"),
        case("output closed early", "exec >&- 2>&-; sleep 0.3; exit 5"),
        case(
            "output held by a child",
            "(sleep 0.5; echo late) & echo now",
        ),
        case(
            "a child let go",
            "sleep 30 >/dev/null 2>&1 </dev/null & echo now",
        ),
        case("a script on standard input", "").fed(b"echo $0; set -- a b; echo $#; exit 9\n"),
        // Terminals.
        case("on a terminal", here).typed("rows 24 cols 80", &[]),
        case(
            "owner and mode of the terminal",
            "stat -c '%U %G %a' $(tty)",
        )
        .typed("rows 24 cols 80", &[]),
        case("size and modes", "stty -a").typed(
            "rows 33 cols 99 intr ^B -ixon iutf8 eol2 ^X -echoke 19200",
            &[],
        ),
        case("raw modes", "stty -a").typed("rows 10 cols 20 raw -echo", &[]),
        case(
            "a terminal without one at home",
            "stty size; tty | sed s/[0-9]*$//",
        )
        .with(&["-tt"])
        .differs(NO_SIZE),
        case(
            "Ctrl-C",
            "trap 'echo int; exit 3' INT; echo ready; sleep 20; echo no",
        )
        .typed("rows 24 cols 80", &[("ready", "\u{3}")]),
        case("Ctrl-D", "echo ready; cat; echo end")
            .typed("rows 24 cols 80", &[("ready", "typed\r\u{4}")]),
        case("ended by a signal on a terminal", "kill -HUP $$").typed("rows 24 cols 80", &[]),
        case("a login shell", "").typed("rows 24 cols 80", &[("$ ", "echo $0-$-; exit 4\r")]).varies(),
        case("a login shell that is hushed", "")
            .of("quiet")
            .typed("rows 24 cols 80", &[("$ ", "exit\r")])
            .varies(),
        case("no terminal where none is permitted", "tty -s || echo none")
            .with(&["-tt"])
            .certified(|c| c.without = &["pty"]),
        // Accounts.
        case("without a home", "pwd").of("homeless"),
        case("locked", "true").of("locked"),
        case("expired", "true").of("expired"),
        case("a shell that is not there", "true").of("shellless"),
        case("a shell that is no program", "true").of("textual"),
        case("nologin as shell", "true").of("barred"),
        case("unknown", "true").of("nobody-at-all"),
        case("while there is an /etc/nologin", "true").after(Prepare::NoLogin),
        case("root while there is an /etc/nologin", "echo in")
            .of("root")
            .after(Prepare::NoLogin),
        // Certificates.
        case("for another login", "true").certified(|c| c.principal = Some(format!("root@{NODE}"))),
        case("for another node", "true").certified(|c| {
            c.principal = Some("dev@bbb56211-7b54-4f9e-bee9-b68ea156be5f".to_owned());
        }),
        case("expired certificate", "true").certified(|c| c.expired = true),
        case("of a foreign authority", "true").certified(|c| c.stranger = true),
        case("from elsewhere", "true").certified(|c| c.source = "192.0.2.7/32"),
        case("the bare key", "true")
            .with(&["-oCertificateFile=none"])
            .certified(|c| c.stranger = true),
        case("a forced command", "id")
            .certified(|c| c.force = Some("echo \"$SSH_ORIGINAL_COMMAND\"".into())),
        case("a forced command in place of a shell", "")
            .certified(|c| c.force = Some("echo \"<$SSH_ORIGINAL_COMMAND>\"".into())),
        // Subsystems.
        case("sftp says hello", "sftp").with(&["-s"]).fed(sftp_init),
        case("an unknown subsystem", "nothing").with(&["-s"]),
        case("a forced command in place of sftp", "sftp")
            .with(&["-s"])
            .certified(|c| c.force = Some("echo \"$SSH_ORIGINAL_COMMAND\"".into())),
        // Forwards.
        case("-W", "").with(&[&to_echo]).fed(b"there and back"),
        case("-W to nobody", "").with(&["-W127.0.0.1:1"]),
        case("-W to a name that is none", "").with(&["-Wnosuch.invalid:1"]),
        case("-W where no forwards are permitted", "")
            .with(&[&to_echo])
            .certified(|c| c.without = &["port-forwarding"]),
        case("-R to a port below 1024", "true")
            .with(&["-R80:127.0.0.1:1", "-oExitOnForwardFailure=yes"]),
        case("-R where no forwards are permitted", "true")
            .with(&["-R0:127.0.0.1:1", "-oExitOnForwardFailure=yes"])
            .certified(|c| c.without = &["port-forwarding"]),
        case("-R to any port", "true").with(&["-R0:127.0.0.1:1"]),
        case(
            "-A",
            "stat -c '%U %F' ${SSH_AUTH_SOCK%/*} $SSH_AUTH_SOCK; stat -c %a ${SSH_AUTH_SOCK%/*}; ssh-add -l | wc -l",
        )
        .with(&["-A"])
        .after(Prepare::Agent),
        case("-R from a socket", "true")
            .with(&[&format!("-R{socket}:127.0.0.1:1"), "-oExitOnForwardFailure=yes"])
            .varies()
            .differs(NO_SOCKETS),
        case("-Y", "echo \"<$DISPLAY>\"").with(&["-Y"]),
        case("-A where it is not permitted", "echo \"<$SSH_AUTH_SOCK>\"")
            .with(&["-A"])
            .after(Prepare::Agent)
            .certified(|c| c.without = &["agent-forwarding"]),
    ]
}

#[test]
fn the_agent_does_what_sshd_does_but_for_what_the_table_gives_a_reason_for() {
    if !support::is_possible() {
        return;
    }
    let node = Node::new();
    let echo = echo();
    let mut rows = String::from("| input | sshd | agent |\n|---|---|---|\n");
    let (mut wrong, mut reasons) = (Vec::new(), Vec::new());
    for case in cases(echo) {
        let nologin = node.path("etc/nologin");
        if case.prepare == Prepare::NoLogin {
            fs::write(&nologin, "Down until Monday.\n").unwrap();
        }
        let (sshd, agent) = thread::scope(|scope| {
            let sshd = scope.spawn(|| case.run(&node, Which::Sshd));
            let agent = case.run(&node, Which::Agent);
            (sshd.join().unwrap(), agent)
        });
        let (agent, sshd) = (leveled(agent, &node), leveled(sshd, &node));
        let _ = fs::remove_file(nologin);
        let same = agent == sshd;
        if same == case.differs.is_some() {
            wrong.push(format!(
                "{}:\n  sshd  {sshd:?}\n  agent {agent:?}",
                case.name
            ));
        }
        let note = match case.differs {
            None => "the same".to_owned(),
            Some(why) => {
                reasons.push(why);
                format!("{} [{}]", cell(&agent, case.varies), reasons.len())
            }
        };
        rows += &format!(
            "| {} | {} | {note} |\n",
            case.name,
            cell(&sshd, case.varies)
        );
    }
    println!("{rows}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (number, why) in reasons.iter().enumerate() {
        rows += &format!("\n[{}] {why}\n", number + 1);
    }
    in_the_guide(&rows);
}

/// Takes out what is different in every connection.
fn leveled(mut said: Said, node: &Node) -> Said {
    let dir = node.path("").display().to_string();
    let dir = dir.trim_end_matches('/');
    for text in [&mut said.stdout, &mut said.stderr] {
        *text = text.replace(dir, "DIR");
        for port in [node.sshd_port, node.agent_port] {
            *text = text.replace(&port.to_string(), "PORT");
        }
        *text = text
            .lines()
            .filter(|line| !line.starts_with("ANTEROOM_USER="))
            .map(level)
            .collect::<Vec<_>>()
            .join("\n");
    }
    said
}

/// Ports, process numbers and terminals in one line.
fn level(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    if let Some(rest) = line.strip_prefix("Allocated port ") {
        let (_, rest) = rest.split_once(' ').unwrap_or_default();
        return format!("Allocated port N {rest}");
    }
    if line.starts_with("Last login: ") {
        let from = line
            .rsplit_once(" from ")
            .map_or("nowhere", |(_, from)| from);
        return format!("Last login: … from {from}");
    }
    for (start, replacement) in [
        ("SSH_CONNECTION=", "127.0.0.1 N 127.0.0.1 PORT"),
        ("SSH_CLIENT=", "127.0.0.1 N PORT"),
        ("SSH_TTY=/dev/pts/", "N"),
    ] {
        if let Some(found) = line.strip_prefix(start)
            && found.split(' ').count() == replacement.split(' ').count().max(1)
        {
            return format!("{start}{replacement}");
        }
    }
    line.to_owned()
}

/// What fits into a cell of the table.
fn cell(said: &Said, varies: bool) -> String {
    let shown = |text: &str| {
        let text: String = text.chars().flat_map(char::escape_debug).collect();
        let text = text
            .replace("\\\"", "\"")
            .replace("\\'", "'")
            .replace('|', "\\|")
            .replace('`', "'");
        match text.chars().count() {
            0..=60 => text,
            _ => text.chars().take(59).chain(['…']).collect(),
        }
    };
    if varies {
        return format!("{} …", said.status.unwrap_or(-1));
    }
    let mut cell = said
        .status
        .map_or("killed".to_owned(), |code| code.to_string());
    for (name, text) in [("", &said.stdout), ("stderr: ", &said.stderr)] {
        if !text.is_empty() {
            cell += &format!(" {name}`{}`", shown(text));
        }
    }
    cell
}

/// The table in the guide is this one.
fn in_the_guide(rows: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/node-agent.md");
    let guide = fs::read_to_string(path).unwrap_or_default();
    let (begin, end) = ("<!-- table: begin -->\n", "<!-- table: end -->\n");
    let (head, rest) = guide.split_once(begin).unwrap_or((&guide, end));
    let (table, tail) = rest.split_once(end).unwrap_or((rest, ""));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path, format!("{head}{begin}{rows}{end}{tail}")).unwrap();
    } else {
        assert_eq!(
            table, rows,
            "the table in docs/node-agent.md; UPDATE_GOLDEN=1 writes it"
        );
    }
}

/// A server that sends back what it gets; its port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                stream.write_all(&bytes).unwrap();
            });
        }
    });
    port
}
