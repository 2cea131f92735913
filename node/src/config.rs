//! `node.yaml`: what the operator of a node says of it.

use std::collections::BTreeMap;
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

/// Reads the configuration at `path`.
///
/// # Errors
/// [`ConfigError`] names the file and what is wrong in it.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Io {
        path: path.to_owned(),
        error,
    })?;
    parse(&text).map_err(|why| ConfigError::Wrong {
        path: path.to_owned(),
        why,
    })
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
}
