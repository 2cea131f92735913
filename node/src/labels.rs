//! What a node says of itself: labels from the join, from the configuration, and from commands.
//!
//! A command runs as the agent's user, with an environment of its own, no input, and a time limit; what it
//! prints is cut and cleaned. A label whose command fails is not said: an old value would be believed.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::config::{Config, LabelCommand};
use anteroom_core::node::LONGEST_SAID_LABEL;
use anteroom_core::text::is_hostile;

/// What a node says of itself.
pub type Labels = BTreeMap<String, String>;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a command's output that are read: a value is shorter, and white space around it is dropped.
const OUTPUT: u64 = 4096;

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The commands that run at intervals, until this is dropped.
#[derive(Debug)]
pub struct Runner {
    _commands: JoinSet<()>,
}

/// Starts the commands of `config`. `said` holds the labels from the join, overridden by those of the
/// configuration, overridden by what commands print.
pub fn start(given: &Labels, config: &Config, said: &watch::Sender<Labels>) -> Runner {
    let mut labels = given.clone();
    labels.extend(config.labels.clone());
    // A label that a command speaks for waits for the command.
    for command in &config.commands {
        labels.remove(&command.name);
    }
    say(said, |said| *said = labels);
    let mut commands = JoinSet::new();
    for command in &config.commands {
        commands.spawn(repeat(command.clone(), said.clone()));
    }
    Runner {
        _commands: commands,
    }
}

/// Changes what is said, and wakes whoever tells the proxies only if it is another.
fn say(said: &watch::Sender<Labels>, change: impl FnOnce(&mut Labels)) {
    said.send_if_modified(|labels| {
        let before = labels.clone();
        change(labels);
        *labels != before
    });
}

async fn repeat(command: LabelCommand, said: watch::Sender<Labels>) {
    let mut ticks = interval(command.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        ticks.tick().await;
        let name = command.name.clone();
        match run(&command.command, LIMIT).await {
            Ok(value) => {
                failed = false;
                say(&said, |labels| {
                    labels.insert(name, value);
                });
            }
            Err(why) => {
                // Once for each time that it begins to fail.
                if !failed {
                    tracing::warn!(label = name, "no label: its command {why}");
                }
                failed = true;
                say(&said, |labels| {
                    labels.remove(&name);
                });
            }
        }
    }
}

/// A process group that is killed when nobody waits for it any more: what a command has started ends with it.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

/// What the command prints, fit for a label.
async fn run(command: &[String], limit: Duration) -> Result<String, String> {
    let (program, arguments) = command.split_first().ok_or("has no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    let _group = Group(pid.map(Pid::from_raw));
    let stdout = child.stdout.take().ok_or("has no output")?;
    let finished = async {
        let mut text = Vec::new();
        let mut stdout = stdout.take(OUTPUT);
        stdout.read_to_end(&mut text).await?;
        // Whoever has more to say is not waited for.
        drop(stdout);
        Ok::<_, std::io::Error>((text, child.wait().await?))
    };
    let (text, status) = match timeout(limit, finished).await {
        Ok(finished) => finished.map_err(|error| format!("failed: {error}"))?,
        Err(_) => return Err(format!("took longer than {} s", limit.as_secs())),
    };
    if !status.success() {
        return Err(format!("failed: {status}"));
    }
    Ok(fit(&String::from_utf8_lossy(&text)))
}

/// Without control and invisible characters and white space around, and no longer than a value may be.
fn fit(text: &str) -> String {
    let lines = text.trim().chars().map(|c| if c == '\n' { ' ' } else { c });
    let clean: String = lines.filter(|c| !is_hostile(*c)).collect();
    let end = clean.floor_char_boundary(LONGEST_SAID_LABEL);
    clean.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, limit: Duration) -> Result<String, String> {
        run(&["sh".into(), "-c".into(), script.into()], limit).await
    }

    #[tokio::test]
    async fn what_a_command_prints_is_cut_and_cleaned() {
        let value = sh("printf ' a\\033[31m\\tb\\nc \\n'", LIMIT).await;
        assert_eq!(value.unwrap(), "a[31mb c");
        // The proxy refuses all labels for one that has such a character.
        let value = sh("printf 'a\\342\\200\\213b'", LIMIT).await;
        assert_eq!(value.unwrap(), "ab");
        let value = sh("head -c 2000 /dev/zero | tr '\\0' x", LIMIT).await;
        assert_eq!(value.unwrap().len(), LONGEST_SAID_LABEL);
        // The pipe is full and closed: the command is not waited for, and was not successful.
        let value = sh("exec yes", LIMIT).await;
        assert!(value.unwrap_err().contains("failed"));
    }

    #[tokio::test]
    async fn a_command_gets_no_environment_of_the_agents_and_no_input() {
        let value = sh("read x; echo \"$x$HOME${CARGO_TARGET_DIR-}|$PATH\"", LIMIT).await;
        assert_eq!(value.unwrap(), format!("|{PATH}"));
    }

    #[tokio::test]
    async fn a_command_that_is_late_is_killed_with_what_it_started() {
        let tmp = tempfile::tempdir().unwrap();
        let pid = tmp.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
        let why = sh(&script, Duration::from_secs(1)).await.unwrap_err();
        assert!(why.contains("took longer"), "{why}");
        let sleeper = std::fs::read_to_string(pid).unwrap();
        let state = format!("/proc/{}/stat", sleeper.trim());
        for _ in 0..100 {
            let state = std::fs::read_to_string(&state);
            if !state.is_ok_and(|state| !state.contains(" Z ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it still runs");
    }

    #[tokio::test]
    async fn a_label_whose_command_fails_is_not_said() {
        let command = |name: &str, script: &str| LabelCommand {
            name: name.to_owned(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            interval: Duration::from_secs(60),
        };
        let config = Config {
            labels: [("env".to_owned(), "config".to_owned())].into(),
            commands: vec![command("good", "echo 1"), command("bad", "echo 1; exit 1")],
            accept_env: Vec::new(),
        };
        let given = [("env", "join"), ("bad", "old"), ("os", "linux")];
        let given = given.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let (said, mut heard) = watch::channel(Labels::new());
        let _runner = start(&given, &config, &said);
        let good = heard.wait_for(|labels| labels.contains_key("good")).await;
        let labels = good.unwrap().clone();
        assert_eq!((&*labels["env"], &*labels["os"]), ("config", "linux"));
        assert!(!labels.contains_key("bad"));
    }
}
