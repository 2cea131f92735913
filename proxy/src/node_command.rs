//! `anteroom node …`: the command line of the node agent.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use anteroom_core::id::NodeName;
use anteroom_core::node::MOST_SAID_LABELS;
use anteroom_core::node::NodeAddr;
use anteroom_node::config::{Config, check_key, check_value};
use anteroom_node::dir::DirError;
use anteroom_node::identity::Identity;
use anteroom_node::join::{self, Again, Join, JoinError, Outcome, Pin, Token};
use anteroom_node::known::Known;
use anteroom_node::notify::Notify;
use anteroom_node::run::{self, RunError};
use anteroom_node::server::{self, Server};
use anteroom_node::{dir, unit};
use anteroom_proxy::exit::Exit;
use clap::{ArgGroup, Args, Subcommand};
use ssh_key::{Fingerprint, PublicKey};
use zeroize::Zeroizing;

#[derive(Subcommand)]
pub(crate) enum NodeCommand {
    /// Make this host a node: spend a token at a proxy, and store who this node is
    Join(JoinArgs),
    /// Keep a tunnel to each proxy, and serve the sessions that come through it
    Run {
        /// Where `node join` has put the node's identity
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Labels, YAML [default: node.yaml in the data directory, if it is there]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Print a systemd unit that runs the agent
    Unit {
        /// The data directory, if it is not the default
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Run as this user, without any privilege: all sessions are this user's
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// Have the agent take a new host key, at its next heartbeat
    Rekey {
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
}

#[derive(Args)]
#[command(group(ArgGroup::new("pin").args(["proxy_key", "proxy_fingerprint", "host_ca"])))]
#[command(group(ArgGroup::new("secret").required(true).args(["token", "token_file"])))]
pub(crate) struct JoinArgs {
    /// The proxy's address; several of one cluster, separated by commas
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true, value_parser = parse_addr)]
    proxy: Vec<NodeAddr>,
    /// The token that `tokens add` made, which also says how the proxy is known; other users may see it in the list of
    /// processes
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// A file with the token; `-` is standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The proxy's host key, in the place of what the token says
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    proxy_key: Option<PublicKey>,
    /// The fingerprint of the proxy's host key, SHA256:…
    #[arg(long, value_name = "FINGERPRINT", value_parser = parse_fingerprint)]
    proxy_fingerprint: Option<Fingerprint>,
    /// A file with the cluster's host CA: public keys or known_hosts lines, as `auth export --type host` prints
    #[arg(long, value_name = "FILE")]
    host_ca: Option<PathBuf>,
    /// What people will call the node [default: the host name]
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: Option<NodeName>,
    /// What the node says of itself; what the token says wins
    #[arg(long, value_name = "K=V,…", value_delimiter = ',', value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Where the node's identity is kept [default: /var/lib/anteroom-node as root]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Join anew where a node has joined before: it becomes another node
    #[arg(long)]
    force: bool,
}

fn parse_addr(text: &str) -> Result<NodeAddr, String> {
    let addr = NodeAddr::parse(text).map_err(|error| error.to_string())?;
    match addr.dialled() {
        Some(_) => Ok(addr),
        None => Err("a proxy is HOST:PORT".to_owned()),
    }
}

fn parse_key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_openssh(text.trim())
        .map_err(|_| "it is no public key such as `ssh-ed25519 AAAA…`; quote it".to_owned())
}

fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    match text.parse() {
        Ok(fingerprint @ Fingerprint::Sha256(_)) => Ok(fingerprint),
        Ok(_) | Err(_) => Err("it is no fingerprint such as `SHA256:…`".to_owned()),
    }
}

fn parse_name(text: &str) -> Result<NodeName, String> {
    NodeName::parse(text).map_err(|error| error.to_string())
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    check_key(key)?;
    check_value(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Where the agent's identity is kept unless another place is named.
fn default_dir() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from(SYSTEM_DIR);
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let state =
        state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
    state
        .unwrap_or_else(|| PathBuf::from("."))
        .join("anteroom-node")
}

const SYSTEM_DIR: &str = "/var/lib/anteroom-node";

/// Runs one of them. `log` starts the log, for those that have one.
pub(crate) async fn run(command: NodeCommand, log: impl FnOnce()) -> Exit {
    match command {
        NodeCommand::Join(args) => join(args).await,
        NodeCommand::Run { data_dir, config } => {
            log();
            let options = run::Options {
                dir: data_dir.unwrap_or_else(default_dir),
                config,
            };
            let environment = |name| std::env::var_os(name);
            let notify = Notify::new(environment("NOTIFY_SOCKET"), environment("WATCHDOG_USEC"));
            let serve = |identity: &Identity, config: &Config| {
                let options = server::Options {
                    accept_env: config.accept_env.clone(),
                    ..server::Options::default()
                };
                Server::new(run::trust(identity), options)
            };
            match run::run(&options, serve, notify).await {
                Ok(()) => Exit::Done,
                Err(error) => {
                    eprintln!("anteroom: {error}");
                    match error {
                        RunError::Config(_)
                        | RunError::Dir(
                            DirError::NotJoined(_)
                            | DirError::TooWide { .. }
                            | DirError::FileTooWide { .. }
                            | DirError::Unreadable { .. },
                        ) => Exit::Config,
                        RunError::Dir(DirError::InUse(_) | DirError::Io { .. })
                        | RunError::Signals(_) => Exit::Failed,
                    }
                }
            }
        }
        NodeCommand::Unit { data_dir, user } => print_unit(data_dir, user.as_deref()),
        NodeCommand::Rekey { data_dir } => {
            match dir::ask_for_new_key(&data_dir.unwrap_or_else(default_dir)) {
                Ok(()) => {
                    println!("The agent takes a new host key at its next heartbeat.");
                    Exit::Done
                }
                Err(error) => failed(&error, Exit::Failed),
            }
        }
    }
}

fn print_unit(data_dir: Option<PathBuf>, user: Option<&str>) -> Exit {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if user.is_some_and(|user| user.is_empty() || !user.chars().all(plain)) {
        return failed(&"--user: letters, digits, `.`, `_` and `-`", Exit::Usage);
    }
    // An ordinary user's own default is elsewhere; the unit makes this one for him.
    let data_dir = data_dir.or_else(|| user.map(|_| PathBuf::from(SYSTEM_DIR)));
    match std::env::current_exe() {
        Ok(program) => {
            print!("{}", unit::unit(&program, data_dir.as_deref(), user));
            Exit::Done
        }
        Err(error) => failed(&format!("cannot find this program: {error}"), Exit::Failed),
    }
}

fn failed(error: &dyn std::fmt::Display, exit: Exit) -> Exit {
    eprintln!("anteroom: {error}");
    exit
}

async fn join(mut args: JoinArgs) -> Exit {
    // Wiped when they are dropped, as far as that is in our hands.
    let token = args.token.take().map(Zeroizing::new);
    let join = match prepare(args, token) {
        Ok(join) => join,
        Err((why, exit)) => return failed(&why, exit),
    };
    match join::join(&join).await {
        Ok(Outcome::Joined(identity)) => {
            println!("{}", identity.node_id);
            eprintln!(
                "anteroom: this host is node {} of {}; now run `anteroom node run`, or `anteroom node unit` for systemd",
                identity.name, identity.cluster
            );
            Exit::Done
        }
        Ok(Outcome::Already(identity)) => already(&join, &identity),
        Err(error) => failed(&error, exit(&error)),
    }
}

/// What was asked for is so already, or it is something else and needs a word.
fn already(join: &Join, identity: &Identity) -> Exit {
    let own = format!(
        "this host has joined {} as node {} ({}) already",
        identity.cluster, identity.name, identity.node_id
    );
    let same_proxies = identity
        .proxies
        .iter()
        .map(|proxy| &proxy.addr)
        .eq(&join.proxies);
    let asks_otherwise = !same_proxies || identity.labels != join.labels;
    if identity.name == join.name.as_str() && asks_otherwise {
        let why = format!(
            "{own}, with other proxies or labels, and nothing was changed; labels stand in node.yaml, and with --force it joins anew"
        );
        return failed(&why, Exit::Failed);
    }
    if identity.name == join.name.as_str() {
        println!("{}", identity.node_id);
        eprintln!("anteroom: {own}; nothing was done, and the token was not sent");
        return Exit::Done;
    }
    let why = format!("{own}; to make another node of it, use --force");
    failed(&why, Exit::Failed)
}

fn exit(error: &JoinError) -> Exit {
    match error {
        JoinError::Dir(
            DirError::TooWide { .. } | DirError::FileTooWide { .. } | DirError::Unreadable { .. },
        ) => Exit::Config,
        JoinError::Dir(DirError::InUse(_) | DirError::NotJoined(_) | DirError::Io { .. }) => {
            Exit::Failed
        }
        JoinError::Unreachable(_) | JoinError::NoAnswer(_) => Exit::Unavailable,
        JoinError::NotTrusted { .. } => Exit::Denied,
        JoinError::Answer(_) => Exit::Failed,
        JoinError::Refused { status, .. } => match status {
            64 => Exit::Usage,
            66 => Exit::NotFound,
            69 => Exit::Unavailable,
            75 => Exit::Pending,
            77 => Exit::Denied,
            _ => Exit::Failed,
        },
    }
}

fn prepare(args: JoinArgs, token: Option<Zeroizing<String>>) -> Result<Join, (String, Exit)> {
    let usage = |why: String| (why, Exit::Usage);
    let mut labels = BTreeMap::new();
    for (key, value) in args.labels {
        if labels.contains_key(&key) {
            return Err(usage(format!(
                "the label `{key}` is there twice; give each once"
            )));
        }
        labels.insert(key, value);
    }
    if labels.len() > MOST_SAID_LABELS {
        return Err(usage(format!(
            "a node has at most {MOST_SAID_LABELS} labels"
        )));
    }
    let name = match args.name {
        Some(name) => name,
        None => host_name().map_err(usage)?,
    };
    let text = match (token, args.token_file) {
        (Some(token), _) => token,
        (None, Some(file)) => read_token(&file).map_err(usage)?,
        (None, None) => return Err(usage("there is no token".to_owned())),
    };
    let token = Token::parse(&text).map_err(|error| usage(error.to_string()))?;
    let known = match (args.proxy_key, args.proxy_fingerprint, args.host_ca) {
        (Some(key), _, _) => Pin::Key(Known::Key(key)),
        (None, Some(fingerprint), _) => Pin::Key(Known::Fingerprint(fingerprint)),
        (None, None, Some(file)) => Pin::HostCa(host_cas(&file).map_err(usage)?),
        (None, None, None) => match token.pin() {
            Some(fingerprint) => Pin::Key(Known::Fingerprint(fingerprint)),
            None => {
                return Err(usage(
                    "this token does not say how the proxy is known: give it whole, with what stands behind the dot, or add --proxy-key, --proxy-fingerprint or --host-ca"
                        .to_owned(),
                ));
            }
        },
    };
    Ok(Join {
        proxies: args.proxy,
        known,
        token,
        name,
        labels,
        dir: args.data_dir.unwrap_or_else(default_dir),
        again: if args.force { Again::Anew } else { Again::Keep },
    })
}

/// The host name, as a node's name; `tokens add` writes the same into its lines.
fn host_name() -> Result<NodeName, String> {
    let name = nix::unistd::gethostname().map_err(|error| error.to_string())?;
    let name = name.to_string_lossy().to_ascii_lowercase();
    NodeName::parse(&name)
        .map_err(|error| format!("the host name is no node's name: {error}; use --name"))
}

/// Bytes of a file that names keys, or a token.
const LONGEST_FILE: u64 = 64 << 10;

fn read_token(file: &Path) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::new());
    let read = if file == Path::new("-") {
        std::io::stdin()
            .take(LONGEST_FILE)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LONGEST_FILE).read_to_string(&mut text))
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(format!(
            "the token cannot be read from `{}`: {error}",
            file.display()
        )),
    }
}

/// Reads the host CA's keys: public keys, or the known_hosts lines that `config` prints.
fn host_cas(file: &Path) -> Result<Vec<PublicKey>, String> {
    let at = file.display();
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(LONGEST_FILE).read_to_string(&mut text))
        .map_err(|error| format!("`{at}` cannot be read: {error}"))?;
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let key = |line: &str| {
        let key = match line.strip_prefix("@cert-authority ") {
            Some(rest) => rest.trim_start().split_once(' ').map_or("", |(_, key)| key),
            None => line,
        };
        PublicKey::from_openssh(key.trim())
            .map_err(|_| format!("`{at}` has a line that is no key and no `@cert-authority`"))
    };
    let keys: Vec<_> = lines.map(key).collect::<Result<_, _>>()?;
    match keys.is_empty() {
        true => Err(format!("`{at}` has no key in it")),
        false => Ok(keys),
    }
}
