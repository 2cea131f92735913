//! The story: denied, asked, approved, in; the certificate that opens one door only; dropped.
//!
//! Each scene prints the command as it would be typed, then what it printed, and checks it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::DemoError;
use super::sandbox::{NODES, Sandbox};

/// A scene that takes longer than this hangs; the slowest real one is a key exchange and a login.
const SCENE_TIMEOUT: Duration = Duration::from_secs(30);

/// Plays the whole story.
pub(super) async fn tell(sandbox: &Sandbox) -> Result<(), DemoError> {
    let login = sandbox.login.as_str();
    let target = format!("{login}@iot@access");

    chapter("alice may use nothing, but she may ask");
    let ls = play(sandbox, "alice", &["access", "ls"]).await?;
    ls.expect(0)?.expect_lines(2)?;
    play(
        sandbox,
        "alice",
        &["access", "request", "search", "--kind", "node"],
    )
    .await?
    .expect(0)?
    .expect_out("iot")?;

    chapter("she connects all the same: the connection becomes a request, and waits");
    let script =
        "echo \"in, with $(sshd -V 2>&1 | head -n 1 | cut -d, -f1 || true), as $(id -un)\"";
    let mut held = Held::start(
        sandbox,
        "alice",
        &["-o", "SetEnv=ANTEROOM_REASON=please", &target, script],
    )?;
    let id = held.request_id().await?;

    chapter("bob sees it and approves, over the proxy's own admin channel");
    play(sandbox, "bob", &["access", "request", "ls"])
        .await?
        .expect(0)?
        .expect_out(&id)?;
    play(
        sandbox,
        "bob",
        &[
            "access",
            "request",
            "review",
            "--approve",
            &id,
            "--reason",
            "okay",
        ],
    )
    .await?
    .expect(0)?
    .expect_out("APPROVED")?;

    chapter("alice's connection, the very same one, goes on");
    held.finish().await?.expect(0)?.expect_out("in, with")?;

    chapter("her access is iot alone: the other node asks again");
    let other = format!("{login}@node@access");
    play(
        sandbox,
        "alice",
        &[
            "-o",
            "SetEnv=ANTEROOM_WAIT=0 ANTEROOM_REASON=curious",
            &other,
            "true",
        ],
    )
    .await?
    .expect(75)?
    .expect_err("PENDING")?;

    chapter(
        "and the certificate opens iot alone, at a stock sshd: iot's address is bent to the other node",
    );
    let [iot_port, node_port] = sandbox.node_ports;
    bend(sandbox, node_port, "node_host.pub").await?;
    play(sandbox, "alice", &[&target, "true"])
        .await?
        .expect(69)?;
    let log = std::fs::read_to_string(sandbox.path("node.log")).unwrap_or_default();
    let refusal = log
        .lines()
        .rev()
        .find(|line| line.contains("authorized principal"));
    let refusal = refusal.ok_or_else(|| DemoError::Step {
        step: "the other node refuses iot's certificate".into(),
        found: log.clone(),
    })?;
    println!("node's sshd log │ {refusal}");
    bend(sandbox, iot_port, "iot_host.pub").await?;
    play(sandbox, "alice", &[&target, "echo back in"])
        .await?
        .expect(0)?
        .expect_out("back in")?;

    chapter("done: alice drops her request, and her access is gone");
    play(sandbox, "alice", &["access", "request", "drop"])
        .await?
        .expect(0)?;
    play(sandbox, "alice", &["access", "ls"])
        .await?
        .expect(0)?
        .expect_lines(2)?;
    play(
        sandbox,
        "alice",
        &["-o", "SetEnv=ANTEROOM_WAIT=0", &target, "true"],
    )
    .await?
    .expect(75)?;

    chapter("all of it is in the audit log, each entry chained to the one before");
    let verdict = sandbox.ctl(&["audit", "verify"]).await?;
    print!("{verdict}");
    println!("\nThat was the story: denied, asked, approved, in, dropped.");
    sweep(sandbox).await
}

/// Takes back what the story left pending, so that whoever tries the sandbox begins with a request
/// of his own.
async fn sweep(sandbox: &Sandbox) -> Result<(), DemoError> {
    let listed = [
        "access", "request", "ls", "--mine", "--state", "PENDING", "--format", "json",
    ];
    let output = sandbox
        .ssh("alice", &listed)
        .output()
        .await
        .map_err(DemoError::io("ssh"))?;
    let requests: Vec<serde_json::Value> =
        serde_json::from_slice(&output.stdout).unwrap_or_default();
    for id in requests
        .iter()
        .filter_map(|request| request.get("id")?.as_str())
    {
        let cancel = ["access", "request", "cancel", id];
        sandbox
            .ssh("alice", &cancel)
            .output()
            .await
            .map_err(DemoError::io("ssh"))?;
    }
    Ok(())
}

fn chapter(title: &str) {
    println!("\n── {title}");
}

/// Points iot's registration at another address and host key, as a mistake or an attack would.
async fn bend(sandbox: &Sandbox, port: u16, host_key: &str) -> Result<(), DemoError> {
    let key = sandbox.text_path(host_key);
    let [iot, _] = NODES;
    sandbox
        .ctl(&[
            "nodes",
            "update",
            iot,
            "--addr",
            &format!("127.0.0.1:{port}"),
            "--host-key",
            &key,
        ])
        .await?;
    Ok(())
}

/// What a command did.
struct Scene {
    shown: String,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Scene {
    fn expect(self, code: i32) -> Result<Scene, DemoError> {
        if self.code == Some(code) {
            return Ok(self);
        }
        let found = match self.code {
            Some(found) => format!(
                "exit status {found} instead of {code}; it said: {}",
                self.err.trim()
            ),
            None => format!("it was ended by a signal; it said: {}", self.err.trim()),
        };
        Err(DemoError::Step {
            step: self.shown,
            found,
        })
    }

    fn expect_out(self, text: &str) -> Result<Scene, DemoError> {
        if self.out.contains(text) {
            return Ok(self);
        }
        Err(DemoError::Step {
            step: self.shown,
            found: format!("no `{text}` in its output: {}", self.out.trim()),
        })
    }

    fn expect_err(self, text: &str) -> Result<Scene, DemoError> {
        if self.err.contains(text) {
            return Ok(self);
        }
        Err(DemoError::Step {
            step: self.shown,
            found: format!("no `{text}` in what it said: {}", self.err.trim()),
        })
    }

    /// At most so many lines: a table of two is a header without rows.
    fn expect_lines(self, most: usize) -> Result<Scene, DemoError> {
        if self.out.lines().count() <= most {
            return Ok(self);
        }
        Err(DemoError::Step {
            step: self.shown,
            found: format!("more than nothing is listed: {}", self.out.trim()),
        })
    }
}

/// Runs a command of a person to its end, shown as typed.
async fn play(sandbox: &Sandbox, person: &'static str, args: &[&str]) -> Result<Scene, DemoError> {
    Held::start(sandbox, person, args)?.finish().await
}

/// A command of a person, running; its lines are printed as they come.
struct Held {
    shown: String,
    child: tokio::process::Child,
    lines: mpsc::Receiver<(Stream, String)>,
    out: String,
    err: String,
    person: &'static str,
}

#[derive(Clone, Copy)]
enum Stream {
    Out,
    Err,
}

impl Held {
    fn start(sandbox: &Sandbox, person: &'static str, args: &[&str]) -> Result<Held, DemoError> {
        let shown = format!(
            "ssh {}",
            args.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" ")
        );
        println!("{person}$ {shown}");
        let mut command: Command = sandbox.ssh(person, args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(DemoError::io("starting ssh"))?;
        // Bounded: the printer below is always reading; 64 lines smooth a burst.
        let (sender, lines) = mpsc::channel(64);
        if let Some(out) = child.stdout.take() {
            forward(out, Stream::Out, sender.clone());
        }
        if let Some(err) = child.stderr.take() {
            forward(err, Stream::Err, sender);
        }
        Ok(Held {
            shown,
            child,
            lines,
            out: String::new(),
            err: String::new(),
            person,
        })
    }

    /// Prints until the request is filed and waits; its ID.
    async fn request_id(&mut self) -> Result<String, DemoError> {
        let waiting = async {
            let mut id = None;
            while let Some((stream, line)) = self.lines.recv().await {
                self.take(stream, &line);
                if let Some(rest) = line.strip_prefix("Request ID:") {
                    id = Some(rest.trim().to_owned());
                }
                if line.starts_with("Waiting for request approval") {
                    return id;
                }
            }
            None
        };
        let found = tokio::time::timeout(SCENE_TIMEOUT, waiting)
            .await
            .ok()
            .flatten();
        found.ok_or_else(|| DemoError::Step {
            step: self.shown.clone(),
            found: format!("it does not wait; it said: {}", self.err.trim()),
        })
    }

    async fn finish(mut self) -> Result<Scene, DemoError> {
        let all = async {
            while let Some((stream, line)) = self.lines.recv().await {
                self.take(stream, &line);
            }
            self.child.wait().await
        };
        let status = match tokio::time::timeout(SCENE_TIMEOUT, all).await {
            Ok(status) => status.map_err(DemoError::io("waiting for ssh"))?,
            Err(_) => {
                return Err(DemoError::Step {
                    step: self.shown,
                    found: "it hangs".into(),
                });
            }
        };
        Ok(Scene {
            shown: self.shown,
            code: status.code(),
            out: self.out,
            err: self.err,
        })
    }

    fn take(&mut self, stream: Stream, line: &str) {
        println!("{} │ {line}", self.person);
        let all = match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        };
        all.push_str(line);
        all.push('\n');
    }
}

fn forward(
    from: impl AsyncRead + Unpin + Send + 'static,
    stream: Stream,
    to: mpsc::Sender<(Stream, String)>,
) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if to.send((stream, line)).await.is_err() {
                return;
            }
        }
    });
}

/// An argument as it would be typed.
fn quoted(argument: &str) -> String {
    let plain = argument
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-_./=@:+,".contains(&b));
    if plain {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}
