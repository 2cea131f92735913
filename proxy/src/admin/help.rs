//! `help` and `version`, from the same definition that parses.

use super::io::CommandIo;
use super::line::{Channel, tree};
use super::run::{Ended, Run, Stop};
use crate::exit::Exit;
use crate::say::clean;

/// The commands in the order in which people need them.
const GROUPS: [(&str, &[&str]); 3] = [
    (
        "Your access",
        &[
            "ls", "request", "login", "mfa", "status", "sessions", "whoami", "explain", "config",
            "cert",
        ],
    ),
    (
        "Administration, for those whose roles allow it",
        &[
            "requests", "users", "nodes", "tokens", "lock", "locks", "create", "get", "rm", "auth",
            "audit",
        ],
    ),
    ("This program", &["help", "version"]),
];

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn help(&mut self, command: &[String]) -> Ended {
        let text = help_text(self.channel(), command)?;
        self.print(&text).await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn version(&mut self) -> Ended {
        self.print(concat!("anteroom ", env!("CARGO_PKG_VERSION")))
            .await?;
        Ok(Exit::Done)
    }
}

fn help_text(channel: Channel, command: &[String]) -> Result<String, Stop> {
    let tree = tree(channel);
    if command.is_empty() {
        return Ok(overview(&tree, channel));
    }
    let mut at = &tree;
    for word in command {
        at = at.find_subcommand(word).ok_or_else(|| {
            Stop::usage(format!(
                "unknown command `{}`\nhint: `{} help` lists the commands",
                clean(&command.join(" ")),
                channel.prefix()
            ))
        })?;
    }
    let rendered = at.clone().render_help().to_string();
    let lines: Vec<&str> = rendered.trim_end().lines().map(str::trim_end).collect();
    Ok(lines.join("\n"))
}

fn overview(tree: &clap::Command, channel: Channel) -> String {
    let prefix = channel.prefix();
    let mut text = format!("Usage: {prefix} COMMAND\n");
    for (title, names) in GROUPS {
        text.push_str(&format!("\n{title}:\n"));
        for name in names {
            let about = tree
                .find_subcommand(name)
                .and_then(|command| command.get_about())
                .map(ToString::to_string);
            text.push_str(&format!("  {name:<10} {}\n", about.unwrap_or_default()));
        }
    }
    text.push_str(&format!(
        "\n`{prefix} help COMMAND` explains a command, also one of two words like `request create`.\n\
         Every listing takes --format text|json|yaml. Durations are written 90s, 30m, 1h30m or 2d."
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overview_has_every_command_once() {
        let tree = tree(Channel::Ssh);
        let mut defined: Vec<&str> = tree
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        let mut shown: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        defined.sort_unstable();
        shown.sort_unstable();
        assert_eq!(shown, defined);
    }

    #[test]
    fn usage_lines_can_be_typed() {
        let words = ["request", "create"].map(str::to_owned);
        let text = help_text(Channel::Ssh, &words).unwrap();
        assert!(
            text.contains("Usage: ssh access request create [OPTIONS]"),
            "{text}"
        );
        let text = help_text(Channel::Ctl, &words).unwrap();
        assert!(
            text.contains("Usage: anteroom ctl request create [OPTIONS]"),
            "{text}"
        );
        assert!(help_text(Channel::Ssh, &["teapots".to_owned()]).is_err());
    }
}
