//! `config`: what a client needs in its own files, and nothing it would regret.

use std::collections::BTreeSet;

use anteroom_core::id::UserName;
use anteroom_core::policy;

use super::Place;
use super::args::person::{Config, ConfigPart};
use super::authorities::known_hosts;
use super::io::{Caller, CommandIo};
use super::nodes::all_nodes;
use super::run::{Ended, Run};
use crate::exit::Exit;

/// Nodes that are named one by one; a block for more of them would be longer than it is useful, so a pattern takes their place.
const MOST_NAMED: usize = 500;

/// Names in one `Host` line: keeps lines readable.
const NAMES_PER_LINE: usize = 8;

/// What the proxy takes from the client's environment.
const SEND_ENV: &str = "ANTEROOM_REASON ANTEROOM_WAIT ANTEROOM_REVIEWERS ANTEROOM_SCOPE";

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn config(&mut self, args: &Config) -> Ended {
        let alias = args.alias.as_deref().unwrap_or("access");
        let ssh_config = self.ssh_config(alias);
        let known_hosts = known_hosts(self.ctx)?.join("\n");
        let text = match args.part {
            Some(ConfigPart::SshConfig) => ssh_config,
            Some(ConfigPart::KnownHosts) => known_hosts,
            None => format!(
                "# Append to ~/.ssh/config (`--part ssh_config` prints this part alone):\n{ssh_config}\n\n\
                 # Append to ~/.ssh/known_hosts (`--part known_hosts` prints this part alone):\n{known_hosts}"
            ),
        };
        self.print(&text).await?;
        Ok(Exit::Done)
    }

    fn ssh_config(&self, alias: &str) -> String {
        let names = self.node_patterns(alias);
        // Apart from the names: a pattern such as `!*.*` among those would take every domain out again.
        let domains: Vec<String> = self
            .ctx
            .place
            .names
            .domains()
            .map(|domain| format!("*.{}", domain.as_str()))
            .collect();
        let mut text = proxy_block(
            &self.ctx.place,
            self.ctx.state.cluster().as_str(),
            self.user(),
            alias,
        );
        if names.is_empty() && domains.is_empty() {
            text.push_str(
                "\n\n# No node can be used or asked for yet; print this again when there is one.",
            );
            return text;
        }
        for hosts in names
            .chunks(NAMES_PER_LINE)
            .chain(domains.chunks(NAMES_PER_LINE))
        {
            text.push_str(&format!(
                "\n\nHost {}\n    ProxyJump {alias}\n    SendEnv {SEND_ENV}",
                hosts.join(" ")
            ));
        }
        text
    }

    /// The nodes' names one by one: a pattern such as `*` would send every other host of the user through the proxy.
    fn node_patterns(&self, alias: &str) -> Vec<String> {
        let view = self.ctx.state.view();
        let now = self.ctx.state.now();
        let mut names: BTreeSet<String> = match self.caller {
            Caller::Local => all_nodes(&view)
                .iter()
                .map(|node| node.name.to_string())
                .collect(),
            Caller::Ssh { identity, .. } => {
                let usable = policy::visible_nodes(&view, identity, now)
                    .into_iter()
                    .map(|usable| usable.node);
                let askable = policy::requestable_nodes(&view, identity, now)
                    .into_iter()
                    .map(|found| found.node);
                usable
                    .chain(askable)
                    .map(|node| node.name.to_string())
                    .collect()
            }
        };
        // A dotted name is known by its domain or not certified at all.
        names.retain(|name| !name.contains('.') && name != alias && name != "localhost");
        if names.len() > MOST_NAMED {
            return vec![
                "*".to_owned(),
                "!*.*".to_owned(),
                "!*:*".to_owned(),
                "!localhost".to_owned(),
                format!("!{alias}"),
            ];
        }
        names.into_iter().collect()
    }
}

fn proxy_block(place: &Place, cluster: &str, user: Option<&UserName>, alias: &str) -> String {
    let user = user.map_or(String::new(), |user| format!("    User {user}\n"));
    format!(
        "Host {alias}\n    HostName {host}\n    Port {port}\n{user}    HostKeyAlias {cluster}\n    \
         CertificateFile ~/.ssh/anteroom-cert.pub\n    SendEnv {SEND_ENV}",
        host = place.host,
        port = place.port,
    )
}
