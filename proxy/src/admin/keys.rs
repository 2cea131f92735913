//! Public keys that people hand in, as files, options and documents: of users, and of hosts.

use anteroom_core::id::KeyFingerprint;
use anteroom_core::user::UserKey;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, PublicKey};
use time::OffsetDateTime;

use super::args;
use super::io::CommandIo;
use super::run::{Run, Stop};
use crate::say::{self, clean, cut};

/// The sizes of RSA keys that are accepted, in bits (SECURITY section 2).
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// The most keys in one file or option: more than anybody has devices, and a bound on what one user makes every connection compare.
const MOST_KEYS: usize = 64;

/// Why a text holds no usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("there is no public key in it; give a file like ~/.ssh/id_ed25519.pub")]
    Nothing,
    #[error(
        "it is a private key, which belongs to its owner alone; give the file that ends in .pub"
    )]
    Private,
    #[error(
        "line {line} is no public key ({start}); a public key is one line, `TYPE BASE64 COMMENT`"
    )]
    Malformed { line: usize, start: String },
    #[error(
        "line {line} begins with `{option}`: options of authorized_keys are not kept, and would be \
         missed; leave them out, and write what a user may do into a role"
    )]
    Options { line: usize, option: String },
    #[error("keys of type `{0}` are not accepted; use ed25519, ecdsa, rsa or their sk- forms")]
    Type(String),
    #[error("the RSA key has {0} bits; use one of 2048 to 8192, or better ed25519")]
    RsaBits(u32),
    #[error("it holds {0} keys, the limit is {MOST_KEYS}")]
    TooMany(usize),
}

/// A public key as it is stored: one clean line, and its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckedKey {
    pub(crate) fingerprint: KeyFingerprint,
    pub(crate) openssh: String,
}

/// The one key of a text, as a host key is stored.
pub(crate) fn one_host_key(text: &str) -> Result<String, String> {
    let found = parse_all(text).map_err(|error| error.to_string())?;
    match found.as_slice() {
        [one] => Ok(one.openssh.clone()),
        several => Err(format!(
            "there are {} keys; a certificate is for one",
            several.len()
        )),
    }
}

/// Reads the keys of a text: public key files, `authorized_keys` without options, and what `ssh-keyscan` prints.
pub(crate) fn parse_all(text: &str) -> Result<Vec<CheckedKey>, KeyError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Private);
    }
    let mut keys: Vec<CheckedKey> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = parse_line(line, number + 1)?;
        if !keys
            .iter()
            .any(|other| other.fingerprint == key.fingerprint)
        {
            keys.push(key);
        }
    }
    match keys.len() {
        0 => Err(KeyError::Nothing),
        n if n > MOST_KEYS => Err(KeyError::TooMany(n)),
        _ => Ok(keys),
    }
}

fn parse_line(line: &str, number: usize) -> Result<CheckedKey, KeyError> {
    // known_hosts lines have the host's name in front.
    let words: Vec<&str> = line.split_whitespace().collect();
    let start = words
        .iter()
        .take(2)
        .position(|word| is_type(word))
        .unwrap_or(0);
    // Taken for a host's name they would be dropped, and the key be good for more than was meant.
    if let Some(option) = words.first().filter(|first| is_option(first)) {
        return Err(KeyError::Options {
            line: number,
            option: cut(option, 40),
        });
    }
    let line = words.get(start..).unwrap_or_default().join(" ");
    let key = PublicKey::from_openssh(&line).map_err(|error| match words.get(start) {
        Some(kind @ &("ssh-dss" | "ssh-rsa1")) => KeyError::Type((*kind).to_owned()),
        Some(_) | None => KeyError::Malformed {
            line: number,
            start: cut(&error.to_string(), 80),
        },
    })?;
    check(&key)
}

/// Whether a word begins the options of an `authorized_keys` line, or the marker of a `known_hosts` line
/// (sshd(8)).
fn is_option(word: &str) -> bool {
    const WORDS: [&str; 14] = [
        "cert-authority",
        "restrict",
        "agent-forwarding",
        "no-agent-forwarding",
        "port-forwarding",
        "no-port-forwarding",
        "pty",
        "no-pty",
        "user-rc",
        "no-user-rc",
        "X11-forwarding",
        "no-X11-forwarding",
        "no-touch-required",
        "verify-required",
    ];
    let first = word.split(',').next().unwrap_or(word);
    word.contains("=\"")
        || word.starts_with('@')
        || WORDS
            .iter()
            .any(|option| option.eq_ignore_ascii_case(first))
}

fn is_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"]
        .iter()
        .any(|start| word.starts_with(start))
}

/// Checks a key's type and size, and takes what would harm a listing out of its comment.
pub(crate) fn check(key: &PublicKey) -> Result<CheckedKey, KeyError> {
    let data = key.key_data();
    if let KeyData::Rsa(rsa) = data {
        let bits = rsa.key_size();
        if !RSA_BITS.contains(&bits) {
            return Err(KeyError::RsaBits(bits));
        }
    } else if !matches!(
        data,
        KeyData::Ed25519(_)
            | KeyData::Ecdsa(_)
            | KeyData::SkEd25519(_)
            | KeyData::SkEcdsaSha2NistP256(_)
    ) {
        // DSA, certificates, and whatever the library may learn that the SSH layer does not serve.
        return Err(KeyError::Type(clean(key.algorithm().as_str()).into_owned()));
    }
    let shown = key.fingerprint(HashAlg::Sha256).to_string();
    let malformed = || KeyError::Malformed {
        line: 1,
        start: "it has no fingerprint".to_owned(),
    };
    let fingerprint = KeyFingerprint::parse(&shown).map_err(|_| malformed())?;
    let bare = PublicKey::from(key.key_data().clone())
        .to_openssh()
        .map_err(|_| malformed())?;
    let comment = cut(&String::from_utf8_lossy(key.comment().as_ref()), 100);
    Ok(CheckedKey {
        fingerprint,
        openssh: format!("{bare} {comment}").trim_end().to_owned(),
    })
}

impl<I: CommandIo> Run<'_, I> {
    pub(super) async fn read_keys_if_any(
        &mut self,
        option: &str,
        values: &[String],
    ) -> Result<Option<Vec<CheckedKey>>, Stop> {
        if values.is_empty() {
            Ok(None)
        } else {
            self.read_keys(option, values).await.map(Some)
        }
    }

    pub(super) async fn read_keys(
        &mut self,
        option: &str,
        values: &[String],
    ) -> Result<Vec<CheckedKey>, Stop> {
        let mut keys: Vec<CheckedKey> = Vec::new();
        for value in values {
            let inline = args::is_inline_key(value);
            let text = if inline {
                value.clone()
            } else {
                self.input(option, value).await?
            };
            let shown = if inline { "the key" } else { value.as_str() };
            let found = parse_all(&text).map_err(|error| {
                Stop::usage(format!(
                    "`{option}`: `{}` can't be used: {error}",
                    say::cut(shown, 80)
                ))
            })?;
            for key in found {
                if !keys
                    .iter()
                    .any(|other| other.fingerprint == key.fingerprint)
                {
                    keys.push(key);
                }
            }
        }
        Ok(keys)
    }
}

/// Keys with the time at which they were first registered.
pub(super) fn stored_keys(
    keys: Vec<CheckedKey>,
    before: &[UserKey],
    now: OffsetDateTime,
) -> Vec<UserKey> {
    let added = |fingerprint: &KeyFingerprint| {
        before
            .iter()
            .find(|key| key.fingerprint == *fingerprint)
            .map_or(now, |key| key.added)
    };
    keys.into_iter()
        .map(|key| UserKey {
            added: added(&key.fingerprint),
            fingerprint: key.fingerprint,
            openssh: key.openssh,
        })
        .collect()
}

pub(super) fn document_keys(
    title: &str,
    path: &str,
    lines: &[String],
) -> Result<Vec<CheckedKey>, Stop> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    parse_all(&lines.join("\n")).map_err(|error| Stop::usage(format!("{title}, `{path}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti user@example.com";

    #[test]
    fn public_key_files_and_scanned_lines_are_read() {
        let text = format!("# comment\n\n{ED25519}\r\n[iot]:2201 {ED25519}\n");
        let keys = parse_all(&text).unwrap();
        assert_eq!(keys.len(), 1, "the same key twice is one");
        assert_eq!(keys[0].openssh, ED25519);
        assert!(keys[0].fingerprint.as_str().starts_with("SHA256:"));
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_what_to_give() {
        assert_eq!(parse_all(""), Err(KeyError::Nothing));
        assert_eq!(
            parse_all("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"),
            Err(KeyError::Private)
        );
        assert!(matches!(
            parse_all("ssh-ed25519 AAAA x"),
            Err(KeyError::Malformed { line: 1, .. })
        ));
        assert!(matches!(
            parse_all("hello"),
            Err(KeyError::Malformed { line: 1, .. })
        ));
    }

    #[test]
    fn a_key_with_options_is_refused_and_not_taken_without_them() {
        for options in [
            "restrict",
            "no-pty,no-user-rc",
            "cert-authority",
            "from=\"192.0.2.0/24\"",
            "command=\"/bin/ls -l\",restrict",
            "@cert-authority *.example.com",
        ] {
            let refused = parse_all(&format!("{ED25519}\n{options} {ED25519}\n"));
            let is_option = matches!(refused, Err(KeyError::Options { line: 2, .. }));
            assert!(is_option, "{options}: {refused:?}");
        }
        let hashed = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg=";
        assert!(parse_all(&format!("{hashed} {ED25519}")).is_ok());
    }

    #[test]
    fn a_comment_cannot_carry_an_escape() {
        let keys = parse_all(&format!("{ED25519}\u{1b}[2J\u{202e}")).unwrap();
        assert!(
            !keys[0].openssh.chars().any(crate::say::is_hostile),
            "{:?}",
            keys[0].openssh
        );
    }
}
