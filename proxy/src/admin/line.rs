//! From what the client sent to a command: split into words as a POSIX shell splits, then parsed. Nothing is ever run by
//! a shell. Every refusal here is one sentence and a next step.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use anteroom_core::predicate::PredicateError;

use super::args::{Command, Line};
use super::free_text::{self, Fit};
use crate::say::{clean, cut};

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

    /// The option for free text that may have taken, or lost, what makes the line wrong.
    fn lost_quotes(&self, wrong: ErrorKind) -> Option<&'static str> {
        if self.quoting == Quoting::Kept {
            return None;
        }
        let text_of = |option: &&&'static str| {
            let given = self
                .words
                .iter()
                .find_map(|word| word.strip_prefix(**option));
            // One word alone has taken nothing.
            let several = |text: &str| text.contains(char::is_whitespace);
            given.is_some_and(|text| {
                (wrong == ErrorKind::UnknownArgument && (text.is_empty() || text.starts_with('=')))
                    || (wrong == ErrorKind::MissingRequiredArgument
                        && text.strip_prefix('=').is_some_and(several))
            })
        };
        free_text::OPTIONS.iter().find(text_of).copied()
    }

    fn usage(&self, error: &clap::Error, channel: Channel) -> UsageError {
        let named = self.commands_named(channel);
        let command = named.join(" ");
        let hint = if let Some(option) = self.lost_quotes(error.kind()) {
            lost_quotes_hint(&command, option)
        } else if command.is_empty() {
            format!("hint: `{} help` lists the commands", channel.prefix())
        } else {
            format!("hint: `{} help {command}` explains it", channel.prefix())
        };
        let context = |kind| error.get(kind).map(value_text).unwrap_or_default();
        let of = |name: &str| {
            if name.is_empty() {
                String::new()
            } else {
                format!(" of `{name}`")
            }
        };
        let sentence = match error.kind() {
            ErrorKind::InvalidSubcommand => {
                let wrong = context(ContextKind::InvalidSubcommand);
                let full = if command.is_empty() {
                    wrong.clone()
                } else {
                    format!("{command} {wrong}")
                };
                format!(
                    "unknown command `{full}`{}",
                    suggestion(error, ContextKind::SuggestedSubcommand, &wrong)
                )
            }
            ErrorKind::UnknownArgument => {
                let wrong = context(ContextKind::InvalidArg);
                let what = if wrong.starts_with('-') {
                    "option"
                } else {
                    "argument"
                };
                format!(
                    "unknown {what} `{wrong}`{}{}",
                    of(&command),
                    suggestion(error, ContextKind::SuggestedArg, &wrong)
                )
            }
            ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand => {
                match error.get(ContextKind::InvalidArg) {
                    Some(missing) => format!("`{command}` lacks {}", missing_text(missing)),
                    None => format!("`{command}` needs a command behind it"),
                }
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                format!("`{command}` needs a command behind it")
            }
            ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
                format!("`{}` needs a value", context(ContextKind::InvalidArg))
            }
            ErrorKind::InvalidValue => format!(
                "`{}` can't be `{}`: it is {}",
                context(ContextKind::InvalidArg),
                context(ContextKind::InvalidValue),
                error
                    .get(ContextKind::ValidValue)
                    .map(alternatives)
                    .unwrap_or_else(|| "something else".to_owned()),
            ),
            ErrorKind::ValueValidation if predicate_error(error).is_some() => {
                let argument = context(ContextKind::InvalidArg);
                predicate_error(error)
                    .map(|why| bad_expression(&argument, why))
                    .unwrap_or_default()
            }
            ErrorKind::ValueValidation => {
                let why = std::error::Error::source(error)
                    .map(ToString::to_string)
                    .unwrap_or_default();
                invalid(
                    &context(ContextKind::InvalidArg),
                    &context(ContextKind::InvalidValue),
                    &clean(&why),
                )
            }
            ErrorKind::ArgumentConflict => {
                let prior = context(ContextKind::PriorArg);
                let wrong = context(ContextKind::InvalidArg);
                if prior.is_empty() || prior == wrong {
                    format!("`{wrong}` is given twice or beside something that it excludes")
                } else {
                    format!("`{wrong}` can't be used together with `{prior}`")
                }
            }
            ErrorKind::NoEquals | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
                format!("`{}` needs a value", context(ContextKind::InvalidArg))
            }
            ErrorKind::TooManyValues => {
                format!("`{}` takes one value", context(ContextKind::InvalidArg))
            }
            ErrorKind::InvalidUtf8 => "the command line is not UTF-8 text".to_owned(),
            // The enum is open: what a later version of the parser adds is still one sentence, and clean.
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::Io
            | ErrorKind::Format => cut(&error.to_string(), 200),
            _ => cut(&error.to_string(), 200),
        };
        UsageError::new(sentence, hint)
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

/// Where an argument goes that stood behind a free text, and so became part of it.
fn lost_quotes_hint(command: &str, option: &str) -> String {
    let first = match command {
        "request create" | "request new" => "put what you ask for first, or ",
        "request review" | "request approve" | "request deny" | "requests approve"
        | "requests deny" | "requests rm" => "put the request ID first, or ",
        "requests create" | "users lock" => "put the user first, or ",
        _ => "",
    };
    format!("hint: ssh takes quotes away; {first}quote twice, as in {option} '\"two words\"'")
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

fn value_text(value: &ContextValue) -> String {
    match value {
        ContextValue::None => String::new(),
        ContextValue::Bool(b) => b.to_string(),
        ContextValue::Number(n) => n.to_string(),
        ContextValue::String(text) => cut(bare(text), 80),
        ContextValue::Strings(texts) => texts
            .iter()
            .map(|text| format!("`{}`", cut(bare(text), 80)))
            .collect::<Vec<_>>()
            .join(", "),
        ContextValue::StyledStr(text) => cut(&text.to_string(), 80),
        ContextValue::StyledStrs(texts) => texts
            .first()
            .map(|text| cut(&text.to_string(), 80))
            .unwrap_or_default(),
        // The enum is open.
        _ => String::new(),
    }
}

/// `--ttl <DURATION>` → `--ttl`; an argument without an option keeps its brackets off.
fn bare(text: &str) -> &str {
    match text.split_once(" <") {
        Some((option, _)) if option.starts_with('-') => option,
        _ => text,
    }
}

/// What is wrong with the expression that an argument gave.
fn predicate_error(error: &clap::Error) -> Option<&PredicateError> {
    std::error::Error::source(error)?.downcast_ref()
}

/// What is wrong with an expression, and the place under it.
fn bad_expression(argument: &str, why: &PredicateError) -> String {
    let excerpt: Vec<String> = why
        .excerpt()
        .lines()
        .map(|line| format!("  {line}"))
        .collect();
    let why = why.to_string();
    let why = clean(&why);
    format!("`{argument}`: {why}\n{}", excerpt.join("\n"))
}

/// A value and what is wrong with it. Where the reason names the value itself, it isn't named twice.
pub(crate) fn invalid(argument: &str, value: &str, why: &str) -> String {
    let named = why.starts_with(&format!("`{value}`"));
    match (named, argument.starts_with('-')) {
        (true, true) => format!("`{argument}`: {why}"),
        (true, false) => why.to_owned(),
        (false, true) => format!("`{argument}` can't be `{value}`: {why}"),
        (false, false) => format!("`{value}`: {why}"),
    }
}

/// What is missing; of a group of options each.
fn missing_text(value: &ContextValue) -> String {
    let ContextValue::Strings(texts) = value else {
        return value_text(value);
    };
    let each = texts.iter().map(|text| {
        match text
            .strip_prefix("<--")
            .and_then(|text| text.strip_suffix('>'))
        {
            Some(group) => group
                .split("|--")
                // The same without an option in front needs no mention.
                .map(|option| match option.split_once(">|") {
                    Some((option, _)) => format!("`--{}>`", cut(option, 80)),
                    None => format!("`--{}`", cut(option, 80)),
                })
                .collect::<Vec<_>>()
                .join(" or "),
            None => format!("`{}`", cut(bare(text), 80)),
        }
    });
    each.collect::<Vec<_>>().join(" and ")
}

fn alternatives(value: &ContextValue) -> String {
    let ContextValue::Strings(texts) = value else {
        return value_text(value);
    };
    match texts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn suggestion(error: &clap::Error, kind: ContextKind, wrong: &str) -> String {
    let all: Vec<&String> = match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one],
        Some(ContextValue::Strings(several)) => several.iter().collect(),
        Some(_) | None => Vec::new(),
    };
    let close = |text: &&str| typing_errors(text, wrong) <= (wrong.chars().count() / 3).clamp(1, 2);
    // The likeliest is the last.
    let found = all.into_iter().rev().map(|text| bare(text)).find(close);
    found
        .map(|text| format!(", did you mean `{}`?", clean(text)))
        .unwrap_or_default()
}

/// The least number of letters added, left out, replaced or swapped with their neighbour that make one word of the other.
fn typing_errors(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(32).collect(), b.chars().take(32).collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&row, j) + usize::from(x != y))
                .min(at(&row, j + 1) + 1)
                .min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(line: &str) -> String {
        let parsed = CommandLine::from_exec(line.as_bytes())
            .and_then(|line| line.parse(Channel::Ssh).map(|_| ()));
        parsed.expect_err(line).to_string()
    }

    fn accepted(line: &str) -> Command {
        match CommandLine::from_exec(line.as_bytes())
            .unwrap()
            .parse(Channel::Ssh)
        {
            Ok(Parsed::Command(command)) => *command,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_definition_of_the_commands_is_consistent() {
        Line::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_interface_is_read() {
        for line in [
            "ls",
            "ls env=dev os=linux -v",
            "ls --search a,b --format json",
            "ls --format=yaml",
            "ls --query labels[\"env\"] == \"prod\" -v",
            "ls --query 'labels[\"env\"] == \"prod\"' env=prod,os=linux",
            "nodes ls env=dev --query name == 'x'",
            "request search --kind node",
            "request search --kind node --search iot --labels env=dev -v",
            "request search --roles",
            "request create --resource /c/node/bbb56211-7b54-4f9e-bee9-b68ea156be5f --resource iot --reason 'responding to incident 123'",
            "request new --roles a,b --reason=x --reviewers bob,carol --nowait --request-ttl 2h --session-ttl 1h --max-duration 2d --assume-start-time 2026-11-21T10:00:00Z --dry-run",
            "request ls",
            "request ls --mine --state pending,APPROVED",
            "request ls --reviewable",
            "request ls --suggested",
            "request show ab43",
            "request review --approve ab43",
            "request review ab43 --deny --reason no",
            "request review ab43 --approve --roles a --resource iot --max-duration 1h --assume-start-time 2026-11-21T10:00:00Z",
            "request drop",
            "login",
            "login --request-id ab43 --ttl 1h",
            "login --request-roles dba --request-reason why --request-nowait",
            "request drop ab43 cd43 --end",
            "request assume ab43",
            "request cancel ab43",
            "requests ls",
            "requests get ab43",
            "requests approve ab43,cd43 --reason ok",
            "requests deny ab43 --reason no",
            "lock --user alice --ttl 1h --message left the company",
            "lock --serial 18446744073709551615",
            "locks ls",
            "cert root@iot",
            "nodes host-cert iot --key - --ttl 7d",
            "auth export --type krl",
            "locks rm ab43 user/alice",
            "requests rm ab43",
            "requests create alice --roles a --resource iot --reason x --annotations k=v --dry-run",
            "requests capabilities alice --format yaml",
            "requests approve ab43 --roles a --annotations k=v --delegator bob",
            "requests deny ab43 --annotations k=v --delegator bob",
            "request create --resource iot --scope command --command 'uptime -p'",
            "status",
            "status --format json",
            "whoami",
            "explain root@iot",
            "explain root@iot --user alice",
            "config",
            "help",
            "help request create",
            "version",
            "audit ls",
            "audit ls --event session.start --since 2h --until 2026-11-21T10:00:00Z",
            "audit verify",
            "users add alice --roles requester,access --logins alice,root --traits team=a,team=b --key -",
            "users ls",
            "users show alice",
            "users update alice --roles '' --add-key -",
            "users rm alice",
            "users lock alice --message 'left'",
            "users unlock alice",
            "nodes add iot --addr 127.0.0.1:2201 --labels env=staging,os=linux --host-key -",
            "nodes add iot --addr [::1]:22 --host-ca",
            "nodes add iot --addr iot:22 --scan --egress-addresses 10.0.0.0/8",
            "nodes ls",
            "nodes show iot",
            "nodes rm iot",
            "nodes update iot --labels '' --addr x:1",
            "nodes sshd-config iot --exclusive",
            "create -f -",
            "create --file=- --force",
            "create -",
            "create roles.yaml --force",
            "ls -f json",
            "get roles -f yaml",
            "request create iot node/web -f json",
            "request create /c/kube:ns:pods/mycluster/dev/nginx-1",
            "request approve ab43 --roles=db-support --reason=ok",
            "request deny ab43 --reason=no",
            "requests create alice iot --reason x",
            "get roles",
            "get role/access",
            "get node/iot --format json",
            "get all",
            "rm user/alice",
            "auth export --type user",
            "auth export --type=host",
        ] {
            accepted(line);
        }
    }

    #[test]
    fn later_commands_are_unknown_today() {
        for word in ["sessions", "scp", "sh", "/bin/sh"] {
            let said = refusal(&format!("{word} ls"));
            assert!(
                said.starts_with(&format!("unknown command `{word}`")),
                "{said}"
            );
            assert!(
                said.ends_with("hint: `ssh access help` lists the commands"),
                "{said}"
            );
        }
    }

    #[test]
    fn wrong_usage_is_one_sentence_and_a_hint() {
        for (line, expected) in [
            (
                "requst ls",
                "unknown command `requst`, did you mean `request`?\nhint: `ssh access help` lists the commands",
            ),
            (
                "request lst",
                "unknown command `request lst`, did you mean `ls`?\nhint: `ssh access help request` explains it",
            ),
            (
                "request",
                "`request` needs a command behind it\nhint: `ssh access help request` explains it",
            ),
            (
                "request ls --stat pending",
                "unknown option `--stat` of `request ls`, did you mean `--state`?\nhint: `ssh access help request ls` explains it",
            ),
            (
                "request show",
                "`request show` lacks `<ID>`\nhint: `ssh access help request show` explains it",
            ),
            (
                "request ls --state open",
                "`--state`: `open` is not a state; it is pending, approved, denied, expired, canceled or revoked\nhint: `ssh access help request ls` explains it",
            ),
            (
                "ls --format xml",
                "`--format` can't be `xml`: it is text, json or yaml\nhint: `ssh access help ls` explains it",
            ),
            (
                "ls --format",
                "`--format` needs a value\nhint: `ssh access help ls` explains it",
            ),
            (
                "request search --kind dbs",
                "`--kind` can't be `dbs`: there is no such kind; write node, db, app, kube_cluster, kube_resource or windows_desktop\nhint: `ssh access help request search` explains it",
            ),
            (
                "request review ab43 --approve --deny",
                "`--approve` can't be used together with `--deny`\nhint: `ssh access help request review` explains it",
            ),
            (
                "ls nonsense",
                "`nonsense`: write it as key=value, like env=staging\nhint: `ssh access help ls` explains it",
            ),
            (
                "request create --resource 'iot",
                "the command line ends inside a quoted argument\nhint: quote arguments as for a shell, and send documents on standard input",
            ),
        ] {
            assert_eq!(refusal(line), expected, "{line}");
        }
        assert!(refusal("request review ab43").starts_with("`request review` lacks"));
        assert!(refusal("request create").starts_with("`request create` lacks"));
    }

    #[test]
    fn a_reason_that_lost_its_quotes_on_the_way_is_whole_again() {
        let words = |line: &str| CommandLine::from_exec(line.as_bytes()).unwrap().words;
        assert_eq!(
            words("request create --resource iot --reason responding to incident 123 --nowait"),
            [
                "request",
                "create",
                "--resource",
                "iot",
                "--reason=responding to incident 123",
                "--nowait"
            ]
        );
        assert_eq!(
            words("request new --roles a --reason=one two"),
            ["request", "new", "--roles", "a", "--reason=one two"]
        );
        assert_eq!(
            words("request review ab43fc70 --approve --reason looks fine"),
            [
                "request",
                "review",
                "ab43fc70",
                "--approve",
                "--reason=looks fine"
            ]
        );
        // What a terminal's user typed for the control socket is taken as typed.
        let typed = ["request", "create", "--reason", "a", "b"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(CommandLine::from_words(typed.clone()).unwrap().words, typed);
    }

    #[test]
    fn a_hostile_word_is_shown_escaped_and_short() {
        let said = refusal("'\x1b]0;owned\x07\u{202e}'");
        assert!(
            said.starts_with("unknown command `\\x1b]0;owned\\x07\\u{202e}`"),
            "{said}"
        );
        let said = refusal(&format!("ls --{}", "x".repeat(5000)));
        assert!(said.len() < 400, "{said}");
    }

    #[test]
    fn a_line_beyond_the_limits_is_refused_before_it_is_split() {
        assert!(
            refusal(&"x".repeat(LONGEST_LINE + 1))
                .starts_with("the command line is 65537 bytes long")
        );
        assert!(
            refusal(&"x ".repeat(MOST_WORDS + 1)).starts_with("the command line has 1201 words")
        );
        let error = CommandLine::from_exec(b"ls \xff").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the command line is not UTF-8 text")
        );
    }

    #[test]
    fn the_client_learns_which_arguments_are_files() {
        let files = |line: &str| {
            CommandLine::from_exec(line.as_bytes())
                .unwrap()
                .file_arguments()
        };
        assert_eq!(
            files("users add a --key a.pub --key b.pub --key a.pub"),
            ["a.pub", "b.pub"]
        );
        assert_eq!(
            files("users add a --key 'ssh-ed25519 AAAA x'"),
            [] as [&str; 0]
        );
        assert_eq!(files("nodes add a --addr h:1 --host-key=k.pub"), ["k.pub"]);
        assert_eq!(files("create -f-"), ["-"]);
        assert_eq!(files("ls"), [] as [&str; 0]);
        assert!(
            CommandLine::from_exec(b"create -f -")
                .unwrap()
                .reads_stdin()
        );
        assert!(
            !CommandLine::from_exec(b"create -f x")
                .unwrap()
                .reads_stdin()
        );
    }

    proptest! {
        #[test]
        fn no_command_line_panics_or_answers_with_raw_text(line in any::<Vec<u8>>()) {
            if let Err(error) = CommandLine::from_exec(&line).and_then(|line| line.parse(Channel::Ssh).map(|_| ())) {
                let said = error.to_string();
                prop_assert!(!said.replace('\n', "").chars().any(crate::say::is_hostile), "{:?}", said);
            }
        }

        #[test]
        fn nor_does_one_of_known_words(words in proptest::collection::vec(prop_oneof![
            "[a-z=,@-]{0,6}", Just("request".to_owned()), Just("create".to_owned()), Just("--resource".to_owned()),
            Just("ls".to_owned()), Just("--format".to_owned()), Just("users".to_owned()), Just("add".to_owned()), Just("--".to_owned()), Just("--help".to_owned()),
            any::<String>(),
        ], 0..8)) {
            let line = CommandLine::from_words(words);
            if let Err(error) = line.and_then(|line| line.parse(Channel::Ctl).map(|_| ())) {
                let said = error.to_string();
                prop_assert!(!said.replace('\n', "").chars().any(crate::say::is_hostile), "{:?}", said);
            }
        }
    }
}
