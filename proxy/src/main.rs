//! The `anteroom` command line: reads arguments, environment and clock, and hands them down.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anteroom_proxy::exit::Exit;
use anteroom_proxy::logging::{self, Format};
use anteroom_proxy::{admin, demo, doctor, serve};
use clap::{Parser, Subcommand, ValueEnum};

use node_command::NodeCommand;

mod node_command;

/// Plain ssh in, stock sshd out: an access proxy where a denied connection waits for its approval.
#[derive(Parser)]
#[command(name = "anteroom", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Serve {
        /// The configuration, YAML; every key has a default
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where CAs, host key and database live; made at the first start
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Where to listen; port 0 takes any free one [default: 0.0.0.0:2222]
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<SocketAddr>,
        /// The cluster's name in resource IDs [default: the host name]
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
        /// How to log to standard error; RUST_LOG chooses what
        #[arg(long, value_enum, default_value_t = LogFormat::Text)]
        log_format: LogFormat,
    },
    /// Run a command as the local administrator, over the running proxy's control socket
    Ctl {
        /// The data directory of the proxy
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// The command, as over ssh; `anteroom ctl help` lists them
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "COMMAND"
        )]
        command: Vec<String>,
    },
    /// Build a sandbox, play the story of one access request in it, and stay up to be tried
    Demo {
        /// End after the story; status 0 only if every step did what it should
        #[arg(long)]
        once: bool,
        /// The sandbox's folder: one that is not there yet, which is removed at the end, or an empty one, which is emptied
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// The proxy's port
        #[arg(long, value_name = "N", default_value_t = 0)]
        port: u16,
    },
    /// Check a data directory: files, keys, schema, audit log and what it says
    Doctor {
        /// The proxy's configuration, which says where the passphrase of encrypted CA keys is
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// The data directory
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
    },
    /// The node agent: an SSH server that comes to the proxy by itself
    Node {
        /// How `run` logs to standard error; RUST_LOG chooses what
        #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
        log_format: LogFormat,
        #[command(subcommand)]
        command: NodeCommand,
    },
    /// Print the version
    Version,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> ExitCode {
    if anteroom_node::server::is_helper(std::env::args_os()) {
        return anteroom_node::server::helper_main();
    }
    // Whatever is asked for may hold a key or a token: a proxy's and a node's at every start, `doctor` the CAs' while it
    // looks at them, `node join` the token in its very arguments. Those that stay say in their log if it fails.
    let _ = nix::sys::prctl::set_dumpable(false);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers, not errors; clap knows which stream each goes to.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            };
            return match error.print() {
                Ok(()) => exit.into(),
                Err(_) => Exit::Failed.into(),
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start: {error}"), Exit::Failed),
    };
    runtime.block_on(run(cli.command)).into()
}

async fn run(command: Command) -> Exit {
    match command {
        Command::Serve {
            config,
            data_dir,
            listen,
            cluster,
            log_format,
        } => {
            start_log(log_format);
            let options = serve::Options {
                config,
                data_dir: data_dir.unwrap_or_else(serve::default_data_dir),
                listen,
                cluster,
            };
            match serve::run(options).await {
                Ok(()) => Exit::Done,
                Err(error) => {
                    eprintln!("anteroom: {error}");
                    error.exit()
                }
            }
        }
        Command::Ctl { data_dir, command } => {
            let dir = data_dir.unwrap_or_else(serve::default_data_dir);
            let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
            match (stream(&stdin), stream(&stdout), stream(&stderr)) {
                (Ok(stdin), Ok(stdout), Ok(stderr)) => {
                    admin::ctl::client(&dir.join("ctl.sock"), command, stdin, stdout, stderr).await
                }
                // A standard stream is closed; there may be nowhere to say so.
                _ => Exit::Failed,
            }
        }
        Command::Demo { once, dir, port } => {
            match demo::run(&demo::Options { once, dir, port }).await {
                Ok(()) => Exit::Done,
                Err(error) => {
                    eprintln!("anteroom: {error}");
                    error.exit()
                }
            }
        }
        Command::Doctor { config, data_dir } => {
            let dir = data_dir.unwrap_or_else(serve::default_data_dir);
            doctor::run(&dir, config.as_deref()).await
        }
        Command::Node {
            log_format,
            command,
        } => node_command::run(command, || start_log(log_format)).await,
        Command::Version => {
            println!("anteroom {}", env!("CARGO_PKG_VERSION"));
            Exit::Done
        }
    }
}

/// A standard stream for asynchronous use; it is read or written as it stands, without a buffer.
fn stream(fd: &impl AsFd) -> std::io::Result<tokio::fs::File> {
    let owned = fd.as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(std::fs::File::from(owned)))
}

fn failed(sentence: &str, exit: Exit) -> ExitCode {
    eprintln!("anteroom: {sentence}");
    exit.into()
}

fn start_log(format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env()
        // The SSH library reports every ordinary disconnect as an error of its own.
        .unwrap_or_else(|_| EnvFilter::new("info,russh=off,sqlx=warn"));
    let format = match format {
        // Colours are for people; a journal or a file gets plain text.
        LogFormat::Text => Format::Text {
            colour: std::io::stderr().is_terminal(),
        },
        LogFormat::Json => Format::Json,
    };
    logging::start(format, filter, std::io::stderr);
}
