//! What `nodes check` says.

use std::fmt;

use serde::Serialize;

use super::clean;

/// How a finding is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rating {
    /// As it should be.
    Ok,
    /// Worth knowing, and nothing to mend.
    Note,
    /// To be mended.
    Wrong,
}

/// What a finding is about; a word that programs can rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Topic {
    Reachable,
    HostKey,
    Login,
    Authority,
    Principals,
    Address,
    Clock,
    OtherDoors,
}

/// One finding, one line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    pub(crate) topic: Topic,
    pub(crate) rating: Rating,
    /// Which login it is about, if one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) login: Option<String>,
    /// What was found.
    pub(crate) text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl Finding {
    pub(crate) fn new(topic: Topic, rating: Rating, text: impl Into<String>) -> Self {
        Finding {
            topic,
            rating,
            login: None,
            text: text.into(),
            next: None,
        }
    }

    pub(crate) fn about(mut self, login: impl fmt::Display) -> Self {
        self.login = Some(login.to_string());
        self
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    pub(crate) fn unreachable(stage: super::Stage, why: &str) -> Self {
        let did = match stage {
            super::Stage::Connecting => "it could not be reached",
            super::Stage::Verifying => "no SSH server answered there",
            super::Stage::LoggingIn | super::Stage::Opening => "its SSH server broke off",
        };
        let text = format!("{did}: {}", clean(why));
        Finding::new(Topic::Reachable, Rating::Wrong, text)
    }

    pub(crate) fn host_refused(why: &str, registered: &str) -> Self {
        let text = format!("{}; registered: {registered}", clean(why));
        Finding::new(Topic::HostKey, Rating::Wrong, text)
    }

    pub(crate) fn login_taken(login: &str) -> Self {
        let text = format!("its sshd would take a certificate for {login}");
        Finding::new(Topic::Login, Rating::Ok, text).about(login)
    }

    pub(crate) fn login_refused(login: &str, other: &str) -> Self {
        let text = format!("no certificate for {login} is taken, though {other}'s is");
        Finding::new(Topic::Login, Rating::Wrong, text)
            .about(login)
            .next(format!(
                "make the account {login} there, or look at AllowUsers, DenyUsers and Match blocks in its sshd_config"
            ))
    }

    pub(crate) fn takes_anything() -> Self {
        let text = "its SSH server says yes to every offer (the node agent does), so logins show only when somebody logs in";
        Finding::new(Topic::Login, Rating::Note, text)
    }

    pub(crate) fn principals(node: &str) -> Self {
        let text = "it trusts the node CA, but wants other principals";
        Finding::new(Topic::Principals, Rating::Wrong, text).next(format!(
            "write the AuthorizedPrincipalsCommand lines of `nodes sshd-config {node}` into its sshd_config, and reload sshd"
        ))
    }

    pub(crate) fn address(node: &str, bound_to: &str) -> Self {
        let text = format!(
            "it would take certificates, but sees the proxy come from another address than {bound_to}"
        );
        Finding::new(Topic::Address, Rating::Wrong, text).next(format!(
            "name the address that it sees with `nodes update {node} --egress-addresses ADDRESS`"
        ))
    }

    pub(crate) fn clock(how: &str) -> Self {
        let text = format!("its clock is {how}, so it takes no certificate");
        Finding::new(Topic::Clock, Rating::Wrong, text)
            .next("set it there, and keep it with chrony or systemd-timesyncd (`timedatectl set-ntp true`)")
    }

    pub(crate) fn authority(node: &str, logins: &str) -> Self {
        let text = format!(
            "no certificate is taken, for {logins}: the node CA is not trusted there, or nobody of these has an account"
        );
        Finding::new(Topic::Authority, Rating::Wrong, text).next(format!(
            "compare `sshd -T | grep -iE 'trustedusercakeys|authorizedprincipals|revokedkeys|allowusers'` there with `nodes sshd-config {node}`"
        ))
    }

    pub(crate) fn no_keys() -> Self {
        let text = "its sshd does not let keys or certificates in";
        Finding::new(Topic::Authority, Rating::Wrong, text)
            .next("set `PubkeyAuthentication yes` in its sshd_config, and reload sshd")
    }

    pub(crate) fn doors(node: &str, methods: &str) -> Self {
        let text = format!("other doors are open: {methods}");
        Finding::new(Topic::OtherDoors, Rating::Wrong, text).next(format!(
            "if Anteroom is to be the only way in, use the lines of `nodes sshd-config {node} --exclusive`"
        ))
    }

    pub(crate) fn no_door(login: &str) -> Self {
        let text = format!("it lets {login} in without any proof");
        Finding::new(Topic::OtherDoors, Rating::Wrong, text)
            .about(login)
            .next("give the account a password or lock it there, and set `PermitEmptyPasswords no`")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rating = match self.rating {
            Rating::Ok => "ok   ",
            Rating::Note => "note ",
            Rating::Wrong => "WRONG",
        };
        write!(f, "{rating}  {}", self.text)?;
        match &self.next {
            Some(next) => write!(f, "; {next}"),
            None => Ok(()),
        }
    }
}
