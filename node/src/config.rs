//! `node.yaml`: what the operator of a node says of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anteroom_core::duration;
use serde::Deserialize;

use anteroom_core::node::{LONGEST_SAID_LABEL, MOST_SAID_LABELS};
use anteroom_core::text::is_hostile;

/// The configuration; every key has a default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// Labels that stand as they are.
    pub labels: BTreeMap<String, String>,
    /// Labels whose values are what commands print.
    pub commands: Vec<LabelCommand>,
    /// Names of environment variables that users may set besides `LANG` and `LC_*`; `*` at the end stands
    /// for any rest. Read when the agent starts.
    pub accept_env: Vec<String>,
}

/// A label whose value is what a command prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelCommand {
    /// The label's key.
    pub name: String,
    /// The program and its arguments; no shell reads them. Never empty.
    pub command: Vec<String>,
    /// From one run to the next.
    pub interval: Duration,
}

/// Why the configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file system says no.
    #[error("`{}` cannot be read: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// Others may write it.
    #[error(
        "`{}` has mode {mode:04o} and belongs to user {owner}; whoever writes it has commands run as the agent's user, \
         so it has to be root's or the agent's user's, and nobody else may write it: run `chmod go-w {}`",
        path.display(), path.display()
    )]
    Writable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Its owner's number.
        owner: u32,
    },
    /// Not what is documented.
    #[error("`{}`: {why}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    commands: Vec<WrittenCommand>,
    #[serde(default)]
    accept_env: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenCommand {
    name: String,
    command: Vec<String>,
    #[serde(default = "usual_interval")]
    interval: String,
}

fn usual_interval() -> String {
    "1m".to_owned()
}

/// Bytes of a configuration: far more than its labels and commands may have.
const LONGEST: u64 = 1 << 20;

/// Reads the configuration at `path`, which nobody but root and this process's user may be able to write.
///
/// # Errors
/// [`ConfigError`] names the file and what is wrong with it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |error| ConfigError::Io {
        path: path.to_owned(),
        error,
    };
    let wrong = |why| ConfigError::Wrong {
        path: path.to_owned(),
        why,
    };
    let file = File::open(path).map_err(unreadable)?;
    // Of what was opened, which is what is read.
    let found = file.metadata().map_err(unreadable)?;
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    let is_trusted = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if mode & 0o022 != 0 || !is_trusted {
        let path = path.to_owned();
        return Err(ConfigError::Writable { path, mode, owner });
    }
    let mut text = String::new();
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    if read.map_err(unreadable)? as u64 > LONGEST {
        return Err(wrong(format!("it has more than {LONGEST} bytes")));
    }
    parse(&text).map_err(wrong)
}

fn parse(text: &str) -> Result<Config, String> {
    // An empty file says nothing, and that is allowed.
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Config::default());
    }
    let written: Written = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let commands = written.commands.into_iter().map(command);
    let config = Config {
        labels: written.labels,
        commands: commands.collect::<Result<_, _>>()?,
        accept_env: written.accept_env,
    };
    let names = config.commands.iter().map(|command| &command.name);
    for key in config.labels.keys().chain(names.clone()) {
        check_key(key)?;
    }
    for (key, value) in &config.labels {
        check_value(key, value)?;
    }
    if let Some(twice) = names.clone().find(|name| config.labels.contains_key(*name)) {
        return Err(format!("`{twice}` is both a label and a command"));
    }
    let mut once = std::collections::BTreeSet::new();
    if let Some(twice) = names.clone().find(|name| !once.insert(*name)) {
        return Err(format!("two commands are named `{twice}`"));
    }
    if config.labels.len() + config.commands.len() > MOST_SAID_LABELS {
        return Err(format!("a node has at most {MOST_SAID_LABELS} labels"));
    }
    Ok(config)
}

fn command(written: WrittenCommand) -> Result<LabelCommand, String> {
    let name = written.name;
    if written.command.first().is_none_or(String::is_empty) {
        return Err(format!("command `{name}` has no program"));
    }
    let interval = duration::parse(&written.interval).map_err(|error| error.to_string())?;
    Ok(LabelCommand {
        command: written.command,
        interval: interval.unsigned_abs(),
        name,
    })
}

/// Whether a node may say a label of this key.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn check_key(key: &str) -> Result<(), String> {
    let shown = key.escape_debug();
    if key.is_empty() || key.len() > LONGEST_SAID_LABEL {
        return Err(format!(
            "label `{shown}`: a key has 1 to {LONGEST_SAID_LABEL} bytes"
        ));
    }
    if key
        .chars()
        .any(|c| is_hostile(c) || c.is_whitespace() || "=,".contains(c))
    {
        return Err(format!(
            "label `{shown}`: a key has no white space, control or invisible characters, `=` or `,`"
        ));
    }
    if key.starts_with("anteroom/") {
        return Err(format!(
            "label `{shown}`: keys that begin with `anteroom/` are reserved"
        ));
    }
    Ok(())
}

/// Whether a node may say a label of this value.
///
/// # Errors
/// What is wrong with it, in a sentence.
pub fn check_value(key: &str, value: &str) -> Result<(), String> {
    if value.len() > LONGEST_SAID_LABEL {
        return Err(format!(
            "label `{key}`: a value has at most {LONGEST_SAID_LABEL} bytes"
        ));
    }
    if value.chars().any(is_hostile) {
        return Err(format!(
            "label `{key}`: a value has no control or invisible characters"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_commands_are_read() {
        let config = parse(
            "labels: {env: staging}\ncommands:\n- {name: kernel, command: [uname, -r], interval: 1h}\n- {name: a, command: [a]}\n",
        );
        let config = config.unwrap();
        assert_eq!(config.labels["env"], "staging");
        assert_eq!(config.commands[0].command, ["uname", "-r"]);
        assert_eq!(config.commands[0].interval, Duration::from_secs(3600));
        assert_eq!(config.commands[1].interval, Duration::from_secs(60));
        assert_eq!(parse("# nothing\n\n").unwrap(), Config::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("label: {}", "label"),
            ("labels: {a: \"x\\u202ey\"}", "invisible"),
            ("commands: [{name: a, command: []}]", "`a` has no program"),
            (
                "commands: [{name: a, command: [x], interval: never}]",
                "never",
            ),
            (
                "commands: [{name: a, command: [x], intervall: 1m}]",
                "intervall",
            ),
            (
                "labels: {a: b}\ncommands: [{name: a, command: [x]}]",
                "both",
            ),
            (
                "commands: [{name: a, command: [x]}, {name: a, command: [x]}]",
                "two commands",
            ),
            ("labels: {anteroom/a: b}", "reserved"),
            ("labels: {\"a b\": b}", "white space"),
            ("labels: {a: \"b\\x1b\"}", "control"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let many: String = (0..65).map(|n| format!("k{n}: v, ")).collect();
        assert!(
            parse(&format!("labels: {{{many}}}"))
                .unwrap_err()
                .contains("at most 64")
        );
    }

    #[test]
    fn a_file_that_others_may_write_is_refused() {
        use std::fs::Permissions;
        use std::os::unix::fs::{PermissionsExt, chown};
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "labels: {env: staging}\n").unwrap();
        let set = |mode| {
            std::fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            load(file.path())
        };
        for mode in [0o600, 0o644, 0o755] {
            assert_eq!(set(mode).unwrap().labels["env"], "staging", "{mode:o}");
        }
        for mode in [0o664, 0o646, 0o622, 0o602, 0o1666] {
            let error = set(mode).unwrap_err();
            let refused =
                matches!(error, ConfigError::Writable { mode: found, .. } if found == mode);
            assert!(refused, "{mode:o}: {error}");
            assert!(error.to_string().contains("chmod go-w"), "{error}");
        }
        set(0o644).unwrap();
        // Only root may give a file away.
        if chown(file.path(), Some(65534), None).is_ok() {
            let error = load(file.path()).unwrap_err();
            assert!(
                matches!(error, ConfigError::Writable { owner: 65534, .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_without_an_end_is_not_kept() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let just = "#".repeat(LONGEST as usize);
        std::fs::write(file.path(), &just).unwrap();
        load(file.path()).unwrap();
        std::fs::write(file.path(), just + "#").unwrap();
        assert!(
            load(file.path())
                .unwrap_err()
                .to_string()
                .contains("more than")
        );
    }
}
