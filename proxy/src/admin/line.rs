//! From what the client sent to a command: split into words as a POSIX shell splits, then parsed. Nothing is ever run by
//! a shell. Every refusal here is one sentence and a next step.

pub(super) mod complaint;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use super::args::{Command, Line};
use super::free_text::{self, Fit};

/// The longest command line that is read. The largest legitimate one, a request for 300 resources by full ID with a reason of 4 KiB,
/// has about 36 KiB; role documents arrive on standard input.
pub const LONGEST_LINE: usize = 64 * 1024;

/// The most words of a command line: 300 resources with an option each, and as much again.
pub const MOST_WORDS: usize = 1200;

/// A command line, split into words but not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    words: Vec<String>,
    quoting: Quoting,
}

/// Whether words are as they were typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoting {
    /// Each word is an argument that somebody typed.
    Kept,
    /// The client joined its arguments with blanks, as ssh does: quotes around them are lost.
    MaybeLost,
}

/// Why a command line makes no sense. Displays as one or two lines: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}\n{hint}")]
pub struct UsageError {
    sentence: String,
    hint: String,
}

impl UsageError {
    fn new(sentence: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            hint: hint.into(),
        }
    }
}

/// How people call us, for usage lines and hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// `ssh access …`
    Ssh,
    /// `anteroom ctl …`
    Ctl,
}

impl Channel {
    /// What stands before a command.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Ssh => "ssh access",
            Self::Ctl => "anteroom ctl",
        }
    }
}

impl CommandLine {
    /// Splits what an SSH client sent as its command.
    ///
    /// # Errors
    /// [`UsageError`] if it is too long, no text, or has a quote without its end.
    pub fn from_exec(command: &[u8]) -> Result<Self, UsageError> {
        let hint = "hint: quote arguments as for a shell, and send documents on standard input";
        if command.len() > LONGEST_LINE {
            return Err(UsageError::new(
                format!(
                    "the command line is {} bytes long, the limit is {LONGEST_LINE}",
                    command.len()
                ),
                hint,
            ));
        }
        let text = std::str::from_utf8(command)
            .map_err(|_| UsageError::new("the command line is not UTF-8 text", hint))?;
        if text.contains('\0') {
            return Err(UsageError::new(
                "the command line contains a NUL byte",
                hint,
            ));
        }
        let words = split(text).ok_or_else(|| {
            UsageError::new("the command line ends inside a quoted argument", hint)
        })?;
        Ok(Self {
            words: Self::from_words(words)?.words,
            quoting: Quoting::MaybeLost,
        })
    }

    /// Takes words that were split already.
    ///
    /// # Errors
    /// [`UsageError`] if there are too many of them, or they are too long together.
    pub fn from_words(words: Vec<String>) -> Result<Self, UsageError> {
        let hint = "hint: do it in several commands";
        if words.len() > MOST_WORDS {
            let sentence = format!(
                "the command line has {} words, the limit is {MOST_WORDS}",
                words.len()
            );
            return Err(UsageError::new(sentence, hint));
        }
        let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
        if bytes > LONGEST_LINE {
            let sentence =
                format!("the command line is {bytes} bytes long, the limit is {LONGEST_LINE}");
            return Err(UsageError::new(sentence, hint));
        }
        Ok(Self {
            words,
            quoting: Quoting::Kept,
        })
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The line as the audit log keeps it: what people could have typed.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Joining fails on NUL only, which from_exec refuses and a Unix argument can't hold.
        shlex::try_join(self.words.iter().map(String::as_str))
            .unwrap_or_else(|_| self.words.join(" "))
    }

    /// Whether the one who sent it has to pass on standard input for it.
    #[must_use]
    pub fn reads_stdin(&self) -> bool {
        self.file_arguments().iter().any(|path| path == "-")
    }

    /// The values of options that may name files, in order, each once: what the client of the control socket reads for the proxy.
    #[must_use]
    pub fn file_arguments(&self) -> Vec<String> {
        let Ok(Parsed::Command(command)) = self.parse(Channel::Ctl) else {
            return Vec::new();
        };
        let mut found: Vec<String> = Vec::new();
        for path in command.file_arguments() {
            if !found.contains(path) {
                found.push(path.clone());
            }
        }
        found
    }

    pub(crate) fn parse(&self, channel: Channel) -> Result<Parsed, UsageError> {
        let parsed = tree(channel)
            .try_get_matches_from(&self.words)
            .and_then(|matches| Line::from_arg_matches(&matches));
        match parsed {
            Ok(Line {
                command: Some(command),
            }) => Ok(Parsed::Command(Box::new(command))),
            Ok(Line { command: None }) => Ok(Parsed::Nothing),
            Err(error) if error.kind() == ErrorKind::DisplayHelp => {
                Ok(Parsed::Help(self.commands_named(channel)))
            }
            Err(error) => Err(self.usage(&error, channel)),
        }
    }

    /// The leading words that are commands: `request create --resource x` → `request create`.
    fn commands_named(&self, channel: Channel) -> Vec<String> {
        let tree = tree(channel);
        let mut at = &tree;
        let mut found = Vec::new();
        for word in &self.words {
            let Some(next) = at.find_subcommand(word) else {
                break;
            };
            found.push(word.clone());
            at = next;
        }
        found
    }
}

/// The definition of the commands, for reading free text.
struct Definition(clap::Command);

impl free_text::Commands for Definition {
    fn has(&self, words: &[String], option: &str) -> bool {
        let mut at = &self.0;
        for word in words {
            match at.find_subcommand(word) {
                Some(next) => at = next,
                None => break,
            }
        }
        let name = option.trim_start_matches('-');
        at.get_arguments().any(|arg| arg.get_long() == Some(name))
    }

    fn fit(&self, words: &[String]) -> Fit {
        match self.0.clone().try_get_matches_from(words) {
            Ok(_) => Fit::Complete,
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => Fit::Lacking,
            Err(_) => Fit::Wrong,
        }
    }
}

/// Splits what an SSH client sent: its user's shell has read it once already.
fn split(text: &str) -> Option<Vec<String>> {
    let may_have_text = free_text::OPTIONS
        .iter()
        .any(|option| text.contains(option));
    super::query::words(text)
        .or_else(|| {
            may_have_text
                .then(|| free_text::words(text, &Definition(tree(Channel::Ssh))))
                .flatten()
        })
        .or_else(|| shlex::split(text))
}

/// What a command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    Command(Box<Command>),
    /// An empty line.
    Nothing,
    /// `--help` behind these commands.
    Help(Vec<String>),
}

/// The tree of commands, with usage lines that people can type.
pub(crate) fn tree(channel: Channel) -> clap::Command {
    let mut tree = Line::command().bin_name(channel.prefix()).term_width(100);
    tree.build();
    tree
}

#[cfg(test)]
mod tests;
