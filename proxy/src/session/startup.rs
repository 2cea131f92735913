//! What a session asks for before there is a node: kept in order, and replayed once there is one.

use anteroom_core::request::Scope;

use crate::audit;
use crate::config::Config;
use crate::environment::Environment;
use anteroom_ssh::{ChannelRequest, Event, Inbox, PtyRequest, WindowSize, X11Request};

/// The requests of a session channel up to the one that starts its program (RFC 4254 section 6).
#[derive(Debug, Default)]
pub(super) struct Startup {
    requests: Vec<ChannelRequest>,
    settings: Environment,
    /// `auth-agent-req@openssh.com` was sent.
    pub(super) wants_agent: bool,
    /// `x11-req` was sent.
    pub(super) wants_x11: bool,
}

/// The request that starts a session's program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Program {
    /// A login shell.
    Shell,
    /// A command.
    Exec(Vec<u8>),
    /// `sftp`, as a rule.
    Subsystem(String),
}

impl Startup {
    /// Reads requests until the program is named; `None` if the channel ends before that.
    pub(super) async fn collect(inbox: &mut Inbox, config: &Config) -> Option<(Startup, Program)> {
        let mut startup = Startup::default();
        loop {
            match inbox.next().await? {
                Event::Request(request) => {
                    if let Some(program) = startup.take(request, config) {
                        return Some((startup, program));
                    }
                }
                Event::Close => return None,
                // Nothing else means anything before a program runs (RFC 4254 section 6.5).
                Event::Data(_)
                | Event::Stderr(_)
                | Event::Eof
                | Event::ExitStatus(_)
                | Event::ExitSignal(_)
                | Event::NodeAccepted(_)
                | Event::NodeRefused(_) => {}
            }
        }
    }

    fn take(&mut self, request: ChannelRequest, config: &Config) -> Option<Program> {
        match &request {
            ChannelRequest::Env { name, value } => {
                if !self.settings.take(name, value) && config.passes_env(name) {
                    self.requests.push(request);
                }
                None
            }
            ChannelRequest::WindowChange(size) => {
                if let Some(terminal) = self.terminal() {
                    *terminal = *size;
                }
                None
            }
            ChannelRequest::AgentForward => {
                self.wants_agent = true;
                self.requests.push(request);
                None
            }
            ChannelRequest::X11(_) => {
                self.wants_x11 = true;
                self.requests.push(request);
                None
            }
            ChannelRequest::Pty(_) => {
                self.requests.push(request);
                None
            }
            ChannelRequest::Signal(_) => None,
            ChannelRequest::Shell => self.start(request, Program::Shell),
            ChannelRequest::Exec(command) => {
                let program = Program::Exec(command.clone());
                self.start(request, program)
            }
            ChannelRequest::Subsystem(name) => {
                let program = Program::Subsystem(name.clone());
                self.start(request, program)
            }
        }
    }

    fn start(&mut self, request: ChannelRequest, program: Program) -> Option<Program> {
        self.requests.push(request);
        Some(program)
    }

    /// What was asked for beside the program and is not part of what `scope` extends to.
    pub(super) fn refused_by(&self, scope: &Scope) -> Option<&'static str> {
        match (scope, self.wants_agent, self.wants_x11) {
            (Scope::Any, _, _) | (Scope::Command(_), false, false) => None,
            (Scope::Command(_), true, false) => Some("agent forwarding"),
            (Scope::Command(_), false, true) => Some("X11 forwarding"),
            (Scope::Command(_), true, true) => Some("agent and X11 forwarding"),
        }
    }

    /// The size of the client's terminal, if it asked for one; kept current until the replay.
    pub(super) fn terminal(&mut self) -> Option<&mut WindowSize> {
        self.requests.iter_mut().find_map(|request| match request {
            ChannelRequest::Pty(PtyRequest { size, .. }) => Some(size),
            ChannelRequest::Env { .. }
            | ChannelRequest::Shell
            | ChannelRequest::Exec(_)
            | ChannelRequest::Subsystem(_)
            | ChannelRequest::WindowChange(_)
            | ChannelRequest::Signal(_)
            | ChannelRequest::AgentForward
            | ChannelRequest::X11(X11Request { .. }) => None,
        })
    }

    /// Whether the client has a terminal.
    pub(super) fn has_terminal(&mut self) -> bool {
        self.terminal().is_some()
    }

    /// What the client said to Anteroom.
    pub(super) fn settings(&self) -> &Environment {
        &self.settings
    }

    /// The requests to replay at the node, in the order in which they came; what the permit does
    /// not allow is left out.
    pub(super) fn into_requests(self, agent: bool, x11: bool) -> Vec<ChannelRequest> {
        self.requests
            .into_iter()
            .filter(|request| match request {
                ChannelRequest::AgentForward => agent,
                ChannelRequest::X11(_) => x11,
                ChannelRequest::Pty(_)
                | ChannelRequest::Env { .. }
                | ChannelRequest::Shell
                | ChannelRequest::Exec(_)
                | ChannelRequest::Subsystem(_)
                | ChannelRequest::WindowChange(_)
                | ChannelRequest::Signal(_) => true,
            })
            .collect()
    }
}

impl Program {
    /// The command, byte for byte; a shell and a subsystem are none.
    pub(super) fn command(&self) -> Option<&[u8]> {
        match self {
            Program::Exec(command) => Some(command),
            Program::Shell | Program::Subsystem(_) => None,
        }
    }

    /// What is stated to reviewers where no reason is given: `exec: uptime`.
    pub(super) fn purpose(&self) -> String {
        match self {
            Program::Shell => "shell".into(),
            Program::Exec(command) => format!("exec: {}", String::from_utf8_lossy(command)),
            Program::Subsystem(name) => format!("subsystem: {name}"),
        }
    }

    /// What the audit log says of it: the kind of event and the command; nothing for a shell.
    pub(super) fn event(&self) -> Option<(audit::Event, String)> {
        match self {
            Program::Shell => None,
            Program::Exec(command) => {
                let event = if self.copies_files() {
                    audit::Event::Scp
                } else {
                    audit::Event::Exec
                };
                Some((event, String::from_utf8_lossy(command).into_owned()))
            }
            Program::Subsystem(name) => {
                let event = if self.copies_files() {
                    audit::Event::Sftp
                } else {
                    audit::Event::Exec
                };
                Some((event, format!("subsystem {name}")))
            }
        }
    }

    /// Whether this copies files: scp in its old protocol, or sftp (also what scp speaks today).
    pub(super) fn copies_files(&self) -> bool {
        match self {
            Program::Shell => false,
            Program::Subsystem(name) => name == "sftp",
            Program::Exec(command) => {
                let mut words = command.split(|byte| *byte == b' ');
                let program = words.next().unwrap_or_default();
                let program = program
                    .rsplit(|byte| *byte == b'/')
                    .next()
                    .unwrap_or_default();
                program == b"sftp-server"
                    || (program == b"scp"
                        && words
                            .any(|w| w.starts_with(b"-") && w.iter().any(|b| b"tf".contains(b))))
            }
        }
    }
}
