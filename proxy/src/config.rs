//! The operator's settings: `anteroom.yaml`, checked completely before anything uses them.
//!
//! Every key has a default, so an absent file is a valid configuration. An unknown key, a value
//! of the wrong shape or a number out of range is an error that names its line: a setting that
//! is silently ignored is worse than a proxy that does not start.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde_saphyr::Spanned;

use anteroom_core::id::ClusterName;
use anteroom_core::view::Settings;

use crate::authority::{PassphraseSource, Place, Places};

/// What `anteroom serve` runs with, after defaults, file and command line have been put together.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name in resource IDs and in everything people read.
    pub cluster: ClusterName,
    /// Where the proxy listens.
    pub listen: SocketAddr,
    /// Where `/metrics` is served; nowhere by default.
    pub metrics_listen: Option<SocketAddr>,
    /// Names under which people reach the proxy; its own host certificate carries them and no
    /// inner host certificate ever does.
    pub public_names: Vec<String>,
    /// Domains whose names the proxy may answer for through `ssh -J` (without leading dot).
    pub host_domains: Vec<String>,
    /// `source-address` of access certificates; empty: the local address of each dialled connection.
    pub egress_addresses: Vec<String>,
    /// Load balancers: connections from there begin with a PROXY header, which is believed.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Further addresses that nodes come from: administration from there is refused.
    pub node_addresses: Vec<IpNet>,
    /// Addresses that people share with nodes: administration from there is accepted.
    pub shared_addresses: Vec<IpNet>,
    /// Environment variables that are passed on to nodes, beside `LANG` and `LC_*`; `*` at the end is a wildcard.
    pub accept_env: Vec<String>,
    /// The limits of the front door.
    pub door: DoorLimits,
    /// How long a terminating proxy lets live sessions finish.
    pub drain_timeout: Duration,
    /// Requests of one user that may be pending at a time.
    pub pending_per_user: u32,
    /// How long a second factor that was given counts for the same key and address.
    pub second_factor_lasts: Duration,
    /// Requests of one user that may be filed within an hour.
    pub filed_per_hour: u32,
    /// Where the passphrase of the authorities' key files is; `None` where they have none.
    pub ca_passphrase: Option<PassphraseSource>,
    /// Where the keys of the authorities are.
    pub ca_key: Places,
    /// The socket of the ssh-agent that has some of them; `None` is `SSH_AUTH_SOCK`.
    pub ca_agent_socket: Option<PathBuf>,
}

/// Limits on who may knock, and how often (SECURITY: the measure is OpenSSH's sshd).
#[derive(Debug, Clone)]
pub struct DoorLimits {
    /// Time until a connection must have authenticated, whatever it sends.
    pub login_grace_time: Duration,
    /// From this many unauthenticated connections on, new ones are dropped at random …
    pub startups_begin: u32,
    /// … with this probability in percent, rising linearly to certainty …
    pub startups_rate: u32,
    /// … at this many.
    pub startups_full: u32,
    /// Unauthenticated connections from one source (an IPv4 address or an IPv6 /64).
    pub startups_per_source: u32,
    /// Refused keys on one connection.
    pub max_auth_failures: u32,
    /// Authentication requests of any kind on one connection.
    pub max_auth_requests: u32,
    /// Channels of one connection.
    pub channels: u32,
    /// Sessions among them; roles may allow fewer.
    pub sessions: u32,
    /// Authenticated connections of one user at a time.
    pub connections_per_user: u32,
    /// Channels of one user that may wait for a decision at a time.
    pub held_channels: u32,
    /// Host names that are no node's to her, for which a user is shown a certificate within an hour.
    pub host_names_per_hour: u32,
    /// Connections of nodes by themselves at a time, those that are about to be refused included.
    pub tunnels: u32,
    /// Sources that earn no penalties.
    pub penalty_exempt: Vec<IpAddr>,
    /// Whether failures earn a source penalties at all.
    pub penalties: Penalties,
}

/// Whether failed logins earn their source a pause (OpenSSH's `PerSourcePenalties`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Penalties {
    /// They do.
    On,
    /// They do not.
    Off,
}

impl Default for DoorLimits {
    fn default() -> Self {
        DoorLimits {
            login_grace_time: Duration::from_secs(60),
            startups_begin: 50,
            startups_rate: 30,
            startups_full: 100,
            startups_per_source: 20,
            max_auth_failures: 6,
            max_auth_requests: 128,
            channels: 64,
            sessions: 10,
            connections_per_user: 256,
            held_channels: 1024,
            host_names_per_hour: 300,
            tunnels: 10_000,
            penalty_exempt: Vec::new(),
            penalties: Penalties::On,
        }
    }
}

/// Why a configuration was refused: where, what, and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read `{}`: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is not what a configuration looks like.
    #[error("`{}`: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's sentence, with line and column.
        message: String,
    },
    /// A value is out of its range.
    #[error("`{}` line {line}: `{key}`: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line of the value.
        line: u64,
        /// The key, in full.
        key: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
    /// A value on the command line or of the machine is unusable.
    #[error("{0}")]
    Argument(String),
}

/// What the command line says; it wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--cluster`
    pub cluster: Option<String>,
}

/// The file as written. Spans are kept so that a bad value is reported with its line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    cluster: Option<Spanned<String>>,
    listen: Option<Spanned<String>>,
    metrics_listen: Option<Spanned<String>>,
    public_names: Vec<Spanned<String>>,
    host_domains: Vec<Spanned<String>>,
    egress_addresses: Vec<Spanned<String>>,
    #[serde(default)]
    proxy_protocol_from: Vec<Spanned<String>>,
    node_addresses: Vec<Spanned<String>>,
    shared_addresses: Vec<Spanned<String>>,
    accept_env: Vec<Spanned<String>>,
    login_grace_time: Option<Spanned<String>>,
    max_startups: Option<Spanned<String>>,
    max_startups_per_source: Option<Spanned<u32>>,
    max_auth_failures: Option<Spanned<u32>>,
    max_auth_requests: Option<Spanned<u32>>,
    max_channels_per_connection: Option<Spanned<u32>>,
    max_sessions_per_connection: Option<Spanned<u32>>,
    max_connections_per_user: Option<Spanned<u32>>,
    max_held_channels: Option<Spanned<u32>>,
    max_tunnels: Option<Spanned<u32>>,
    per_source_penalties: Option<bool>,
    per_source_penalty_exempt: Vec<Spanned<String>>,
    drain_timeout: Option<Spanned<String>>,
    second_factor_lasts: Option<Spanned<String>>,
    max_pending_requests_per_user: Option<Spanned<u32>>,
    max_requests_per_user_per_hour: Option<Spanned<u32>>,
    max_host_names_per_user_per_hour: Option<Spanned<u32>>,
    ca_passphrase_file: Option<Spanned<String>>,
    ca_passphrase_env: Option<Spanned<String>>,
    ca_passphrase_credential: Option<Spanned<String>>,
    ca_key: Option<CaKey>,
    ca_agent_socket: Option<Spanned<String>>,
}

/// `agent`, or one word for each authority.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum CaKey {
    All(CaPlace),
    Each(EachCaKey),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EachCaKey {
    user: Option<CaPlace>,
    node: Option<CaPlace>,
    host: Option<CaPlace>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CaPlace {
    File,
    Agent,
}

impl CaPlace {
    fn place(self) -> Place {
        match self {
            Self::File => Place::File,
            Self::Agent => Place::Agent,
        }
    }
}

impl CaKey {
    fn places(&self) -> Places {
        let place = |of: Option<CaPlace>| of.map(CaPlace::place).unwrap_or_default();
        match self {
            Self::All(all) => Places {
                user: all.place(),
                node: all.place(),
                host: all.place(),
            },
            Self::Each(each) => Places {
                user: place(each.user),
                node: place(each.node),
                host: place(each.host),
            },
        }
    }
}

/// Reads `path` (or takes the defaults) and applies what the command line says.
///
/// `host_name` names the cluster where neither the file nor the command line does.
pub fn load(
    path: Option<&Path>,
    overrides: &Overrides,
    host_name: &str,
) -> Result<Config, ConfigError> {
    let Some(path) = path else {
        return Reader {
            path: Path::new("defaults"),
        }
        .build(File::default(), overrides, host_name);
    };
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError::Read {
        path: path.to_owned(),
        error,
    })?;
    Reader { path }.parse(&text, overrides, host_name)
}

struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn parse(
        &self,
        text: &str,
        overrides: &Overrides,
        host_name: &str,
    ) -> Result<Config, ConfigError> {
        let file = if text.trim().is_empty() {
            File::default()
        } else {
            let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
            serde_saphyr::from_str_with_options(text, options).map_err(|error| {
                let at = error.location().map_or(0, |at| at.line());
                let line = usize::try_from(at)
                    .ok()
                    .and_then(|n| text.lines().nth(n.checked_sub(1)?));
                // The parser names the place; the line names the key.
                let shown = line.map(|line| format!(" in `{}`", crate::say::cut(line.trim(), 60)));
                ConfigError::Syntax {
                    path: self.path.to_owned(),
                    message: format!("{error}{}", shown.unwrap_or_default()),
                }
            })?
        };
        self.build(file, overrides, host_name)
    }

    fn build(
        &self,
        file: File,
        overrides: &Overrides,
        host_name: &str,
    ) -> Result<Config, ConfigError> {
        let defaults = DoorLimits::default();
        let (begin, rate, full) = match &file.max_startups {
            Some(value) => self.startups(value)?,
            None => (
                defaults.startups_begin,
                defaults.startups_rate,
                defaults.startups_full,
            ),
        };
        let door = DoorLimits {
            login_grace_time: self.duration(
                "login_grace_time",
                &file.login_grace_time,
                defaults.login_grace_time,
                Duration::from_secs(1)..=Duration::from_secs(600),
            )?,
            startups_begin: begin,
            startups_rate: rate,
            startups_full: full,
            startups_per_source: self.number(
                "max_startups_per_source",
                &file.max_startups_per_source,
                defaults.startups_per_source,
            )?,
            max_auth_failures: self.number(
                "max_auth_failures",
                &file.max_auth_failures,
                defaults.max_auth_failures,
            )?,
            max_auth_requests: self.number(
                "max_auth_requests",
                &file.max_auth_requests,
                defaults.max_auth_requests,
            )?,
            channels: self.number(
                "max_channels_per_connection",
                &file.max_channels_per_connection,
                defaults.channels,
            )?,
            sessions: self.number(
                "max_sessions_per_connection",
                &file.max_sessions_per_connection,
                defaults.sessions,
            )?,
            connections_per_user: self.number(
                "max_connections_per_user",
                &file.max_connections_per_user,
                defaults.connections_per_user,
            )?,
            held_channels: self.number(
                "max_held_channels",
                &file.max_held_channels,
                defaults.held_channels,
            )?,
            host_names_per_hour: self.number(
                "max_host_names_per_user_per_hour",
                &file.max_host_names_per_user_per_hour,
                defaults.host_names_per_hour,
            )?,
            tunnels: self.number("max_tunnels", &file.max_tunnels, defaults.tunnels)?,
            penalty_exempt: file
                .per_source_penalty_exempt
                .iter()
                .map(|value| self.address("per_source_penalty_exempt", value))
                .collect::<Result<_, _>>()?,
            penalties: match file.per_source_penalties {
                Some(false) => Penalties::Off,
                Some(true) | None => Penalties::On,
            },
        };
        Ok(Config {
            cluster: self.cluster(file.cluster.as_ref(), overrides, host_name)?,
            listen: self.listen(file.listen.as_ref(), overrides)?,
            metrics_listen: self.metrics_listen(file.metrics_listen.as_ref())?,
            public_names: self.names("public_names", &file.public_names)?,
            host_domains: self.names("host_domains", &file.host_domains)?,
            egress_addresses: file
                .egress_addresses
                .iter()
                .map(|value| self.cidr("egress_addresses", value))
                .collect::<Result<_, _>>()?,
            proxy_protocol_from: file
                .proxy_protocol_from
                .iter()
                .map(|value| self.network("proxy_protocol_from", value))
                .collect::<Result<_, _>>()?,
            node_addresses: file
                .node_addresses
                .iter()
                .map(|value| self.network("node_addresses", value))
                .collect::<Result<_, _>>()?,
            shared_addresses: file
                .shared_addresses
                .iter()
                .map(|value| self.network("shared_addresses", value))
                .collect::<Result<_, _>>()?,
            accept_env: file
                .accept_env
                .iter()
                .map(|value| self.env_pattern(value))
                .collect::<Result<_, _>>()?,
            door,
            drain_timeout: self.duration(
                "drain_timeout",
                &file.drain_timeout,
                Duration::from_secs(10),
                Duration::ZERO..=Duration::from_secs(3600),
            )?,
            second_factor_lasts: self.duration(
                "second_factor_lasts",
                &file.second_factor_lasts,
                Duration::from_secs(300),
                Duration::ZERO..=Duration::from_secs(24 * 3600),
            )?,
            pending_per_user: self.number(
                "max_pending_requests_per_user",
                &file.max_pending_requests_per_user,
                50,
            )?,
            filed_per_hour: self.number(
                "max_requests_per_user_per_hour",
                &file.max_requests_per_user_per_hour,
                300,
            )?,
            ca_passphrase: self.ca_passphrase(&file)?,
            ca_key: file.ca_key.as_ref().map(CaKey::places).unwrap_or_default(),
            ca_agent_socket: self.ca_agent_socket(&file.ca_agent_socket)?,
        })
    }

    fn ca_agent_socket(
        &self,
        text: &Option<Spanned<String>>,
    ) -> Result<Option<PathBuf>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        let path = PathBuf::from(&text.value);
        match path.is_absolute() {
            true => Ok(Some(path)),
            false => Err(self.value(
                "ca_agent_socket",
                text,
                format!(
                    "`{}` is no absolute path, as in /run/anteroom/agent.sock",
                    text.value
                ),
            )),
        }
    }

    /// One place, or none: with two, nobody could say which one a key is encrypted with.
    fn ca_passphrase(&self, file: &File) -> Result<Option<PassphraseSource>, ConfigError> {
        let named = [
            ("ca_passphrase_file", &file.ca_passphrase_file),
            ("ca_passphrase_env", &file.ca_passphrase_env),
            ("ca_passphrase_credential", &file.ca_passphrase_credential),
        ];
        let mut named = named
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?)));
        let Some((key, value)) = named.next() else {
            return Ok(None);
        };
        if let Some((other, at)) = named.next() {
            let message = format!("`{key}` says already where the passphrase is; keep one of them");
            return Err(self.value(other, at, message));
        }
        let source = match key {
            "ca_passphrase_file" => PassphraseSource::file(&value.value),
            "ca_passphrase_env" => PassphraseSource::variable(&value.value),
            _ => PassphraseSource::credential(&value.value),
        };
        source
            .map(Some)
            .map_err(|message| self.value(key, value, message))
    }

    fn value<T>(
        &self,
        key: &'static str,
        at: &Spanned<T>,
        message: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            line: at.referenced.line(),
            key,
            message: message.into(),
        }
    }

    fn cluster(
        &self,
        from_file: Option<&Spanned<String>>,
        overrides: &Overrides,
        host_name: &str,
    ) -> Result<ClusterName, ConfigError> {
        if let Some(name) = &overrides.cluster {
            return ClusterName::parse(name)
                .map_err(|error| ConfigError::Argument(format!("--cluster: {error}")));
        }
        if let Some(name) = from_file {
            return ClusterName::parse(&name.value)
                .map_err(|error| self.value("cluster", name, error.to_string()));
        }
        ClusterName::parse(&host_name.to_ascii_lowercase()).map_err(|error| {
            ConfigError::Argument(format!(
                "the host name does not serve as a cluster name ({error}); name one with --cluster"
            ))
        })
    }

    fn listen(
        &self,
        from_file: Option<&Spanned<String>>,
        overrides: &Overrides,
    ) -> Result<SocketAddr, ConfigError> {
        match (overrides.listen, from_file) {
            (Some(listen), _) => Ok(listen),
            (None, Some(text)) => text.value.parse().map_err(|_| {
                self.value(
                    "listen",
                    text,
                    format!("`{}` is not ADDR:PORT, as in 0.0.0.0:2222", text.value),
                )
            }),
            (None, None) => Ok(SocketAddr::from(([0, 0, 0, 0], 2222))),
        }
    }

    fn metrics_listen(
        &self,
        text: Option<&Spanned<String>>,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        let Some(text) = text else { return Ok(None) };
        let parsed = text.value.parse().map(Some);
        parsed.map_err(|_| {
            let why = format!("`{}` is not ADDR:PORT, as in 127.0.0.1:9222", text.value);
            self.value("metrics_listen", text, why)
        })
    }

    fn number(
        &self,
        key: &'static str,
        value: &Option<Spanned<u32>>,
        default: u32,
    ) -> Result<u32, ConfigError> {
        match value {
            None => Ok(default),
            Some(number) if (1..=100_000).contains(&number.value) => Ok(number.value),
            Some(number) => {
                Err(self.value(key, number, "a whole number from 1 to 100000 is wanted"))
            }
        }
    }

    fn duration(
        &self,
        key: &'static str,
        value: &Option<Spanned<String>>,
        default: Duration,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let Some(text) = value else {
            return Ok(default);
        };
        // No time at all is no duration anywhere else.
        if range.contains(&Duration::ZERO) && matches!(text.value.as_str(), "0" | "0s") {
            return Ok(Duration::ZERO);
        }
        let parsed = crate::say::parse_duration(&text.value);
        match parsed.map(time::Duration::unsigned_abs) {
            Ok(duration) if range.contains(&duration) => Ok(duration),
            Ok(_) => Err(self.value(
                key,
                text,
                format!(
                    "`{}` is outside {}s to {}s",
                    text.value,
                    range.start().as_secs(),
                    range.end().as_secs()
                ),
            )),
            Err(error) => Err(self.value(key, text, error.to_string())),
        }
    }

    /// `begin:rate:full`, as sshd_config's `MaxStartups`.
    fn startups(&self, text: &Spanned<String>) -> Result<(u32, u32, u32), ConfigError> {
        let wrong = || {
            self.value(
                "max_startups",
                text,
                "BEGIN:RATE:FULL is wanted, as in 50:30:100",
            )
        };
        let parts: Vec<u32> = text
            .value
            .split(':')
            .map(|part| part.parse().map_err(|_| wrong()))
            .collect::<Result<_, _>>()?;
        match parts.as_slice() {
            [begin, rate, full]
                if (1..=*full).contains(begin) && *rate <= 100 && *full <= 100_000 =>
            {
                Ok((*begin, *rate, *full))
            }
            _ => Err(wrong()),
        }
    }

    fn address(&self, key: &'static str, text: &Spanned<String>) -> Result<IpAddr, ConfigError> {
        text.value
            .parse()
            .map_err(|_| self.value(key, text, format!("`{}` is not an IP address", text.value)))
    }

    /// A network, or an address alone.
    fn network(&self, key: &'static str, text: &Spanned<String>) -> Result<IpNet, ConfigError> {
        let address = text.value.parse().map(|ip: IpAddr| ip.to_canonical());
        let network = address.map(IpNet::from).or_else(|_| text.value.parse());
        network.map_err(|_| {
            let why = format!("`{}` is no IP address and no network (CIDR)", text.value);
            self.value(key, text, why)
        })
    }

    fn cidr(&self, key: &'static str, text: &Spanned<String>) -> Result<String, ConfigError> {
        let (address, bits) = match text.value.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text.value.as_str(), None),
        };
        let parsed: Option<IpAddr> = address.parse().ok();
        let fits = parsed.is_some_and(|ip| match bits {
            None => true,
            Some(bits) => bits
                .parse::<u8>()
                .is_ok_and(|n| n <= if ip.is_ipv4() { 32 } else { 128 }),
        });
        if fits {
            return Ok(text.value.clone());
        }
        Err(self.value(
            key,
            text,
            format!(
                "`{}` is not an address or a network, as in 192.0.2.7/32",
                text.value
            ),
        ))
    }

    fn names(
        &self,
        key: &'static str,
        names: &[Spanned<String>],
    ) -> Result<Vec<String>, ConfigError> {
        names
            .iter()
            .map(|name| {
                let text = name.value.trim_matches('.').to_ascii_lowercase();
                let fits = !text.is_empty()
                    && text.len() <= 253
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
                if fits {
                    return Ok(text);
                }
                Err(self.value(
                    key,
                    name,
                    format!("`{}` is not a host or domain name", name.value),
                ))
            })
            .collect()
    }

    fn env_pattern(&self, text: &Spanned<String>) -> Result<String, ConfigError> {
        let name = text.value.strip_suffix('*').unwrap_or(&text.value);
        let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        // INVARIANT: what changes how programs are loaded is never taken from a client.
        if fits && !name.starts_with("LD_") && name != "PATH" {
            return Ok(text.value.clone());
        }
        Err(self.value(
            "accept_env",
            text,
            format!(
                "`{}` is not a variable name that may be passed on",
                text.value
            ),
        ))
    }
}

impl Config {
    /// Whether the operator lets this variable of a client through to nodes.
    pub fn passes_env(&self, name: &str) -> bool {
        name == "LANG"
            || name.starts_with("LC_")
            || matches!(name, "COLORTERM" | "NO_COLOR")
            || self
                .accept_env
                .iter()
                .any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == pattern,
                })
    }

    /// The limits that decisions are made with.
    pub fn settings(&self) -> Settings {
        Settings {
            pending_per_user: usize::try_from(self.pending_per_user).unwrap_or(usize::MAX),
            filed_per_hour: usize::try_from(self.filed_per_hour).unwrap_or(usize::MAX),
            ..Settings::default()
        }
    }

    /// What an operator may change while the proxy runs; the names of everything that needs a restart.
    pub fn restart_needed(&self, new: &Config) -> Vec<&'static str> {
        let mut keys = BTreeMap::new();
        keys.insert("cluster", self.cluster != new.cluster);
        keys.insert("listen", self.listen != new.listen);
        let metrics = self.metrics_listen != new.metrics_listen;
        keys.insert("metrics_listen", metrics);
        keys.insert("public_names", self.public_names != new.public_names);
        keys.insert("ca_passphrase_…", self.ca_passphrase != new.ca_passphrase);
        keys.insert("ca_key", self.ca_key != new.ca_key);
        keys.insert(
            "ca_agent_socket",
            self.ca_agent_socket != new.ca_agent_socket,
        );
        keys.into_iter()
            .filter(|(_, changed)| *changed)
            .map(|(key, _)| key)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Reader {
            path: Path::new("anteroom.yaml"),
        }
        .parse(text, &Overrides::default(), "host")
    }

    #[test]
    fn an_empty_file_is_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.listen.port(), 2222);
        assert_eq!(config.door.login_grace_time, Duration::from_secs(60));
        assert!(config.passes_env("LC_ALL") && !config.passes_env("LD_PRELOAD"));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let error = parse("cluster: c\nlogin_grace: 5s\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("login_grace") && error.contains("line 2"),
            "{error}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_shown_with_its_key() {
        let error = parse("cluster: c\nlogin_grace_time: [1]\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("login_grace_time: [1]") && error.contains("line 2"),
            "{error}"
        );
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_line() {
        for (text, key) in [
            ("cluster: c\nmax_startups: 5:10\n", "max_startups"),
            ("\nlogin_grace_time: 2d\n", "login_grace_time"),
            ("\nmax_auth_failures: 0\n", "max_auth_failures"),
            ("\naccept_env: [LD_PRELOAD]\n", "accept_env"),
            ("\negress_addresses: [300.1.1.1]\n", "egress_addresses"),
            (
                "\nproxy_protocol_from: [10.0.0.0/33]\n",
                "proxy_protocol_from",
            ),
            ("\nlisten: everywhere\n", "listen"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("line 2"), "{error}");
        }
    }

    #[test]
    fn the_passphrase_of_the_authorities_is_in_one_place() {
        let source = |text| parse(text).map(|config| config.ca_passphrase);
        assert_eq!(source("").unwrap(), None);
        for (text, source_of) in [
            (
                "ca_passphrase_file: /etc/anteroom/ca.pass",
                PassphraseSource::file("/etc/anteroom/ca.pass"),
            ),
            (
                "ca_passphrase_env: CA_PASS",
                PassphraseSource::variable("CA_PASS"),
            ),
            (
                "ca_passphrase_credential: ca",
                PassphraseSource::credential("ca"),
            ),
        ] {
            assert_eq!(source(text).unwrap(), source_of.ok());
        }
        for (text, key, why) in [
            (
                "\nca_passphrase_file: pass",
                "ca_passphrase_file",
                "absolute",
            ),
            ("\nca_passphrase_file: ''", "ca_passphrase_file", "absolute"),
            ("\nca_passphrase_env: A=B", "ca_passphrase_env", "variable"),
            (
                "\nca_passphrase_credential: ../../etc/passwd",
                "ca_passphrase_credential",
                "file name",
            ),
            (
                "ca_passphrase_file: /a\nca_passphrase_env: B",
                "ca_passphrase_env",
                "keep one",
            ),
        ] {
            let error = source(text).unwrap_err().to_string();
            for part in [key, why, "line 2"] {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let overrides = Overrides {
            cluster: Some("mine".into()),
            listen: None,
        };
        let config = Reader {
            path: Path::new("f"),
        }
        .parse("cluster: theirs", &overrides, "h")
        .unwrap();
        assert_eq!(config.cluster.as_str(), "mine");
    }
}
