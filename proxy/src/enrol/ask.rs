//! What a machine asks for, read from its command and its standard input.
//!
//! Both come from somebody who has proven nothing: everything is bounded, nothing is ignored, and no error
//! repeats the secret.

use anteroom_core::enrol::HostKey;
use anteroom_core::id::NodeName;
use anteroom_core::node::{HostPort, SaidLabelError, said_labels};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

use super::Secret;
use crate::admin::host_keys;
use crate::say;

/// Bytes of standard input: a token and a handful of keys have a few thousand.
pub(crate) const LONGEST_INPUT: usize = 64 * 1024;

/// Host keys of one machine: sshd knows five types.
const MOST_KEYS: usize = 8;

/// What a machine asks for.
#[derive(Debug)]
pub(crate) struct Ask {
    /// What it wants to get.
    pub(crate) form: Form,
    /// What it shows.
    pub(crate) secret: Secret,
    /// What it wants to be called.
    pub(crate) name: Option<NodeName>,
    /// What it says of itself.
    pub(crate) labels: BTreeMap<String, String>,
    /// Where it wants to be reached.
    pub(crate) wish: Wish,
    /// Its public host keys, of each type one; never empty.
    pub(crate) keys: Vec<HostKey>,
}

/// What a machine wants to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A script that sets its sshd up.
    Script,
    /// What the node agent stores.
    Agent,
}

/// Where a machine wants to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Where it comes from, at this port.
    Here(Option<u16>),
    /// There.
    At(HostPort),
    /// By a tunnel that it keeps.
    Tunnel,
}

/// Why it makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AskError {
    #[error("{0}")]
    Words(String),
    #[error(transparent)]
    Labels(#[from] SaidLabelError),
    #[error(
        "the token is missing: write it on the first line of standard input, and the public host keys below it"
    )]
    NoToken,
    #[error(
        "what stands on standard input is no text; give the token and the lines of /etc/ssh/ssh_host_*_key.pub"
    )]
    NotText,
    #[error("the public host keys can't be used: {0}")]
    Keys(String),
    #[error(
        "keys of type `{0}` are no host keys that a node is known by; give ed25519, ecdsa or rsa keys"
    )]
    KeyType(String),
    #[error(
        "there are two keys of type `{0}`, and a machine has one of each; give the ones that its sshd uses"
    )]
    TwoKeys(String),
    #[error(
        "there are {0} keys, and a machine has at most {MOST_KEYS}; give the ones that its sshd uses"
    )]
    TooManyKeys(usize),
    #[error("the node agent has one host key, and there are {0} keys; give the one that it uses")]
    AgentKeys(usize),
}

impl Ask {
    /// Reads a command's words and what stood on standard input; `secret` is the one that the user name
    /// carried, if it did.
    ///
    /// # Errors
    /// [`AskError`], one sentence each.
    pub(crate) fn parse(
        words: &[String],
        input: &[u8],
        secret: Option<Secret>,
    ) -> Result<Self, AskError> {
        let (form, said) = Said::parse(words)?;
        let input = std::str::from_utf8(input).map_err(|_| AskError::NotText)?;
        let (secret, lines) = match secret {
            Some(secret) => (secret, input),
            None => first_line(input).ok_or(AskError::NoToken)?,
        };
        let keys = keys(lines)?;
        if form == Form::Agent && keys.len() != 1 {
            return Err(AskError::AgentKeys(keys.len()));
        }
        Ok(Self {
            form,
            secret,
            name: said.name,
            labels: said_labels(said.labels)?,
            wish: said.wish.unwrap_or(match form {
                Form::Script => Wish::Here(None),
                Form::Agent => Wish::Tunnel,
            }),
            keys,
        })
    }
}

/// What the words of a command say.
#[derive(Debug, Default)]
struct Said {
    name: Option<NodeName>,
    labels: Vec<(String, String)>,
    wish: Option<Wish>,
}

impl Said {
    /// `[join] [NAME] [KEY=VALUE …] [--labels K=V,…] [--addr HOST:PORT | --port N | --tunnel]`
    fn parse(words: &[String]) -> Result<(Form, Self), AskError> {
        let (form, words) = match words.split_first() {
            Some((first, rest)) if first == "join" => (Form::Agent, rest),
            Some(_) | None => (Form::Script, words),
        };
        let mut said = Self::default();
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let (option, value) = match word.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value)),
                Some(_) | None => (word, None),
            };
            if !option.starts_with('-') {
                said.word(word)?;
                continue;
            }
            let mut value = || {
                let next = value.or_else(|| words.next());
                next.ok_or_else(|| wrong(format!("`{option}` lacks its value")))
            };
            match option {
                "--addr" => said.wish(at(value()?)?)?,
                "--port" => said.wish(Wish::Here(Some(port(value()?)?)))?,
                "--labels" => {
                    for pair in value()?.split(',') {
                        said.labels.push(label(pair)?);
                    }
                }
                "--tunnel" if word == option => said.wish(Wish::Tunnel)?,
                _ => return Err(wrong(format!("`{}` is no option here", say::cut(word, 40)))),
            }
        }
        if form == Form::Agent && said.wish.is_some() {
            return Err(wrong("the node agent keeps a tunnel and has no address"));
        }
        Ok((form, said))
    }

    fn word(&mut self, word: &str) -> Result<(), AskError> {
        if word.contains('=') {
            self.labels.push(label(word)?);
            return Ok(());
        }
        if self.name.is_some() {
            return Err(wrong(
                "a node has one name, and labels are written KEY=VALUE",
            ));
        }
        let name = NodeName::parse(word).map_err(|error| wrong(error.to_string()))?;
        self.name = Some(name);
        Ok(())
    }

    fn wish(&mut self, wish: Wish) -> Result<(), AskError> {
        match self.wish.replace(wish) {
            None => Ok(()),
            Some(_) => Err(wrong(
                "`--addr`, `--port` and `--tunnel` exclude each other",
            )),
        }
    }
}

fn wrong(why: impl AsRef<str>) -> AskError {
    let why = say::cut(why.as_ref(), 300);
    AskError::Words(format!(
        "{why}; write NAME [KEY=VALUE …] [--addr HOST:PORT | --port N | --tunnel]"
    ))
}

fn label(text: &str) -> Result<(String, String), AskError> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| wrong("labels are written KEY=VALUE, as in env=staging"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn at(text: &str) -> Result<Wish, AskError> {
    let at = HostPort::parse(text).map_err(|error| wrong(error.to_string()))?;
    Ok(Wish::At(at))
}

fn port(text: &str) -> Result<u16, AskError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or_else(|| wrong("a port is a number from 1 to 65535"))
}

/// The token, which stands on the first line that is not empty, and what stands below it.
fn first_line(input: &str) -> Option<(Secret, &str)> {
    let input = input.trim_start();
    let (line, rest) = input.split_once('\n').unwrap_or((input, ""));
    let token = line.trim_end();
    let is_word = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    is_word.then(|| (Secret::shown(token), rest))
}

/// Without what `/etc/ssh/ssh_host_*_key.pub` of an old machine has beside its keys: DSA keys, which sshd
/// passes over as well, and certificates. Alone they stay, to be refused by name.
fn without_relics(lines: &str) -> Cow<'_, str> {
    let is_relic = |line: &&str| {
        let kind = line.split_whitespace().next().unwrap_or_default();
        kind == "ssh-dss" || kind.contains("-cert-v01@")
    };
    let is_empty = |line: &&str| line.trim().is_empty() || line.trim_start().starts_with('#');
    let rest: Vec<&str> = lines.lines().filter(|line| !is_relic(line)).collect();
    if rest.iter().all(is_empty) {
        return Cow::Borrowed(lines);
    }
    Cow::Owned(rest.join("\n"))
}

fn keys(lines: &str) -> Result<Vec<HostKey>, AskError> {
    let checked = host_keys(&without_relics(lines)).map_err(AskError::Keys)?;
    if checked.len() > MOST_KEYS {
        return Err(AskError::TooManyKeys(checked.len()));
    }
    let mut types = BTreeSet::new();
    let mut keys = Vec::with_capacity(checked.len());
    for key in checked {
        let mut words = key.openssh.split(' ');
        let (Some(kind), Some(body)) = (words.next(), words.next()) else {
            continue;
        };
        // A key on a token wants somebody's touch, and sshd starts without anybody.
        if kind.starts_with("sk-") {
            return Err(AskError::KeyType(kind.to_owned()));
        }
        if !types.insert(kind.to_owned()) {
            return Err(AskError::TwoKeys(kind.to_owned()));
        }
        keys.push(HostKey {
            openssh: format!("{kind} {body}"),
            fingerprint: key.fingerprint.clone(),
        });
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti root@iot";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ root@iot";

    fn ask(words: &str, input: &str) -> Result<Ask, AskError> {
        let words: Vec<String> = words
            .split(' ')
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect();
        Ask::parse(&words, input.as_bytes(), None)
    }

    #[test]
    fn what_old_machines_have_beside_their_keys_is_passed_over_and_alone_refused() {
        let dsa = "ssh-dss AAAAB3NzaC1kc3MAAAAA root@iot";
        let asked = ask("iot", &format!("s3cret\n{dsa}\n{KEY}\n")).unwrap();
        assert_eq!(asked.keys.len(), 1);
        assert!(ask("iot", &format!("s3cret\n{dsa}\n")).is_err());
    }

    #[test]
    fn a_name_labels_an_address_a_token_and_keys_are_read() {
        let input = format!("s3cret\n# comment\n{KEY}\n");
        let asked = ask("iot env=staging --labels os=linux,a=b --port 2222", &input).unwrap();
        assert_eq!(asked.form, Form::Script);
        assert_eq!(asked.name.unwrap().as_str(), "iot");
        assert_eq!(asked.labels.len(), 3);
        assert_eq!(asked.wish, Wish::Here(Some(2222)));
        assert_eq!(asked.secret, Secret::shown("s3cret"));
        assert_eq!(asked.keys[0].openssh, KEY.rsplit_once(' ').unwrap().0);
        let asked = ask("--tunnel", &input).unwrap();
        assert_eq!((asked.name, asked.wish), (None, Wish::Tunnel));
        let asked = ask("join iot os=linux", &input).unwrap();
        assert_eq!((asked.form, asked.wish), (Form::Agent, Wish::Tunnel));
        let named = Ask::parse(
            &["iot".to_owned()],
            KEY.as_bytes(),
            Some(Secret::shown("t")),
        );
        assert_eq!(named.unwrap().secret, Secret::shown("t"));
    }

    #[test]
    fn words_that_make_no_sense_are_refused_with_the_form() {
        let input = format!("s3cret\n{KEY}\n");
        let refused = [
            "iot n2",
            "b1168402-9340-421a-a344-af66a6675738",
            "IOT",
            "../iot",
            "--bogus iot",
            "-x",
            "iot --addr",
            "iot --addr nowhere",
            "iot --addr tunnel",
            "iot --port 0",
            "iot --port 65536",
            "iot --port +22",
            "iot --tunnel=yes",
            "iot --tunnel --port 22",
            "iot --labels nolabel",
            "join iot --tunnel",
            "join iot --addr 192.0.2.7:22",
        ];
        for words in refused {
            let error = ask(words, &input).unwrap_err();
            assert!(matches!(error, AskError::Words(_)), "{words}: {error:?}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
        for words in [
            "iot anteroom/x=y",
            "iot =y",
            "iot a=1 a=2",
            "iot a=\u{1b}[2J",
        ] {
            let error = ask(words, &input).unwrap_err();
            assert!(matches!(error, AskError::Labels(_)), "{words}: {error:?}");
        }
    }

    #[test]
    fn keys_that_no_node_is_known_by_are_refused() {
        let cases = [
            ("", "NoToken"),
            ("s3cret", "Keys"),
            ("s3cret\nssh-dss AAAAB3NzaC1kc3MAAACBAP root@iot", "Keys"),
            ("s3cret\n-----BEGIN OPENSSH PRIVATE KEY-----\n", "Keys"),
            ("s3cret\nnonsense", "Keys"),
        ];
        for (input, wanted) in cases {
            let error = ask("iot", input).unwrap_err();
            assert!(
                format!("{error:?}").starts_with(wanted),
                "{input}: {error:?}"
            );
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        // Without a token the first key would be taken for one.
        assert_eq!(
            ask("iot", &format!("{KEY}\n")).unwrap_err(),
            AskError::NoToken
        );
        let two = ask("iot", &format!("s3cret\n{KEY}\n{OTHER}\n")).unwrap_err();
        assert_eq!(two, AskError::TwoKeys("ssh-ed25519".to_owned()));
        let twice = ask("iot", &format!("s3cret\n{KEY}\n{KEY}\n")).unwrap();
        assert_eq!(twice.keys.len(), 1);
    }
}
