//! The forms of values that several options share: `key=value`, lists that may be empty, networks, times.
//! Each parser's error says what to write; which option and value it is about stands in front of it later.

use time::OffsetDateTime;

use crate::say;

// Newtypes keep clap from reading `Option<Vec<T>>` as "any number of values": one value, a whole list.

/// A list of names given as one value, possibly empty.
#[derive(Debug, Clone)]
pub(crate) struct Names<T>(pub(crate) Vec<T>);

/// A list of `key=value` given as one value, possibly empty.
#[derive(Debug, Clone)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

/// A list of networks given as one value, possibly empty.
#[derive(Debug, Clone)]
pub(crate) struct Cidrs(pub(crate) Vec<String>);

pub(super) fn names<T: std::str::FromStr<Err: std::fmt::Display>>(
    text: &str,
) -> Result<Names<T>, String> {
    let parts = text.split(',').filter(|_| !text.is_empty());
    parts
        .map(|part| part.parse().map_err(|e: T::Err| e.to_string()))
        .collect::<Result<_, _>>()
        .map(Names)
}

pub(super) fn labels(text: &str) -> Result<Pairs, String> {
    text.split(',')
        .filter(|_| !text.is_empty())
        .map(pair)
        .collect::<Result<_, _>>()
        .map(Pairs)
}

pub(super) fn cidrs(text: &str) -> Result<Cidrs, String> {
    text.split(',')
        .filter(|_| !text.is_empty())
        .map(cidr)
        .collect::<Result<_, _>>()
        .map(Cidrs)
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    if text.starts_with("anteroom/") {
        return Err(
            "labels that start with `anteroom/` are reserved; choose another key".to_owned(),
        );
    }
    let (key, value) = pair(text)?;
    if [&key, &value]
        .iter()
        .any(|part| part.chars().any(char::is_control))
    {
        return Err("labels are plain text; leave control characters out".to_owned());
    }
    Ok((key, value))
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write it as key=value, like env=staging")?;
    if key.is_empty() {
        return Err("the part before `=` is empty; write key=value, like env=staging".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// An attribute: one line each, and short, because it is shown with the request.
pub(super) fn annotation(text: &str) -> Result<(String, String), String> {
    let (key, value) = pair(text)?;
    let limit = 256;
    if key.len() > limit || value.len() > limit {
        return Err(format!(
            "a key or value is longer than {limit} bytes; shorten it"
        ));
    }
    if key.chars().chain(value.chars()).any(char::is_control) {
        return Err("attributes are plain text; leave control characters out".to_owned());
    }
    Ok((key, value))
}

pub(crate) fn cidr(text: &str) -> Result<String, String> {
    const WRITE: &str = "write a network as 192.0.2.7/32 or 2001:db8::/64";
    let (address, bits) = text.split_once('/').ok_or(WRITE)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| WRITE)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits
        .parse()
        .ok()
        .filter(|bits| *bits <= most)
        .ok_or(WRITE)?;
    Ok(format!("{address}/{bits}"))
}

pub(super) fn instant(text: &str) -> Result<OffsetDateTime, String> {
    say::parse_rfc3339(text)
}
