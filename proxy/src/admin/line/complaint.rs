//! What is wrong with a command line, in one sentence, and what to do about it: the parser knows which rule
//! was broken, people are told in words of their own.

use anteroom_core::predicate::PredicateError;
use anteroom_core::typing;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Channel, CommandLine, Quoting, UsageError};
use crate::admin::free_text;
use crate::say::{clean, cut};

impl CommandLine {
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

    /// What is wrong, and what to do.
    pub(super) fn usage(&self, error: &clap::Error, channel: Channel) -> UsageError {
        let named = self.commands_named(channel);
        let command = named.join(" ");
        let hint = if let Some(option) = self.lost_quotes(error.kind()) {
            lost_quotes_hint(&command, option)
        } else if command.is_empty() {
            format!("hint: `{} help` lists the commands", channel.prefix())
        } else {
            format!("hint: `{} help {command}` explains it", channel.prefix())
        };
        UsageError::new(sentence(error, &command), hint)
    }
}

fn sentence(error: &clap::Error, command: &str) -> String {
    let argument = context(error, ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::InvalidSubcommand => unknown_command(error, command),
        ErrorKind::UnknownArgument => unknown_argument(error, command),
        ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand => {
            match error.get(ContextKind::InvalidArg) {
                Some(missing) => format!("`{command}` lacks {}", missing_text(missing)),
                None => format!("`{command}` needs a command behind it"),
            }
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            format!("`{command}` needs a command behind it")
        }
        ErrorKind::InvalidValue => match context(error, ContextKind::InvalidValue).as_str() {
            "" => format!("`{argument}` needs a value"),
            value => {
                let possible = error.get(ContextKind::ValidValue).map(alternatives);
                let possible = possible.unwrap_or_else(|| "something else".to_owned());
                format!("`{argument}` can't be `{value}`: it is {possible}")
            }
        },
        ErrorKind::ValueValidation => match predicate_error(error) {
            Some(why) => bad_expression(&argument, why),
            None => {
                let why = std::error::Error::source(error).map(ToString::to_string);
                let value = context(error, ContextKind::InvalidValue);
                invalid(&argument, &value, &clean(&why.unwrap_or_default()))
            }
        },
        ErrorKind::ArgumentConflict => {
            let prior = context(error, ContextKind::PriorArg);
            if prior.is_empty() || prior == argument {
                format!("`{argument}` is given twice or beside something that it excludes")
            } else {
                format!("`{argument}` can't be used together with `{prior}`")
            }
        }
        ErrorKind::NoEquals | ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => {
            format!("`{argument}` needs a value")
        }
        ErrorKind::TooManyValues => format!("`{argument}` takes one value"),
        ErrorKind::InvalidUtf8 => "the command line is not UTF-8 text".to_owned(),
        // The enum is open: what a later version of the parser adds is still one sentence, and clean.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::Io | ErrorKind::Format => {
            cut(&error.to_string(), 200)
        }
        _ => cut(&error.to_string(), 200),
    }
}

/// What the parser says about its error, as text; empty where it says nothing.
fn context(error: &clap::Error, kind: ContextKind) -> String {
    error.get(kind).map(value_text).unwrap_or_default()
}

fn unknown_command(error: &clap::Error, command: &str) -> String {
    let wrong = context(error, ContextKind::InvalidSubcommand);
    let full = if command.is_empty() {
        wrong.clone()
    } else {
        format!("{command} {wrong}")
    };
    if not_there_yet(&full) {
        return format!("`{full}`: recording and joining sessions are not there yet");
    }
    let suggestion = suggestion(error, ContextKind::SuggestedSubcommand, &wrong);
    format!("unknown command `{full}`{suggestion}")
}

fn unknown_argument(error: &clap::Error, command: &str) -> String {
    let wrong = context(error, ContextKind::InvalidArg);
    let what = if wrong.starts_with('-') {
        "option"
    } else {
        "argument"
    };
    let of = if command.is_empty() {
        String::new()
    } else {
        format!(" of `{command}`")
    };
    let suggestion = suggestion(error, ContextKind::SuggestedArg, &wrong);
    format!("unknown {what} `{wrong}`{of}{suggestion}")
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

fn suggestion(error: &clap::Error, kind: ContextKind, wrong: &str) -> String {
    let all: Vec<&String> = match error.get(kind) {
        Some(ContextValue::String(one)) => vec![one],
        Some(ContextValue::Strings(several)) => several.iter().collect(),
        Some(_) | None => Vec::new(),
    };
    let close =
        |text: &&str| typing::errors(text, wrong) <= (wrong.chars().count() / 3).clamp(1, 2);
    // The likeliest is the last.
    let found = all.into_iter().rev().map(|text| bare(text)).find(close);
    found
        .map(|text| format!(", did you mean `{}`?", clean(text)))
        .unwrap_or_default()
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

/// Commands that people know from elsewhere, and that nothing serves yet.
fn not_there_yet(command: &str) -> bool {
    ["sessions watch", "sessions join", "sessions play"].contains(&command)
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
