//! `nodes check`: what is wrong with a node, in plain words.

use std::collections::BTreeSet;
use std::sync::Arc;

use anteroom_core::admin::AdminVerb;
use anteroom_core::id::{Login, NodeId};
use anteroom_core::node::Node;
use anteroom_core::view::View;
use serde::Serialize;

use super::args::nodes::NodesCheck;
use super::io::CommandIo;
use super::run::{Ended, Run, Stop};
use crate::exit::{Exit, Exits};
use crate::say::check::Finding;
use crate::say::clean;

/// Logins that are asked about: each is a connection, and a node counts connections without a login.
const MOST_LOGINS: usize = 8;

/// Users whose logins are looked through for that.
const MOST_USERS: usize = 1000;

/// What was found.
#[derive(Debug)]
pub(crate) struct Checked {
    /// How the command ends.
    pub(crate) exit: Exit,
    /// One line each.
    pub(crate) findings: Vec<Finding>,
}

#[derive(Serialize)]
struct Report<'a> {
    node: NodeId,
    name: &'a str,
    ok: bool,
    findings: &'a [Finding],
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn nodes_check(&mut self, args: &NodesCheck) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Update, &view, &args.node)?;
        let checker = self.ctx.checker.clone();
        let checker =
            checker.ok_or_else(|| Stop::new(Exit::Failed, "nothing is dialled from here"))?;
        let mut logins: Vec<Login> = args.login.clone();
        logins.truncate(MOST_LOGINS);
        if logins.is_empty() {
            logins = likely_logins(&view, &node);
        }
        let by = self.by();
        let checked = checker.check(&by, Arc::clone(&node), logins).await;
        let checked =
            checked.map_err(|error| Stop::new(error.exit(), clean(&error.to_string())))?;
        let report = Report {
            node: node.id,
            name: node.name.as_str(),
            ok: checked.exit == Exit::Done,
            findings: &checked.findings,
        };
        let text = || {
            let lines = checked
                .findings
                .iter()
                .map(|finding| clean(&finding.to_string()).into_owned());
            lines.collect::<Vec<_>>().join("\n")
        };
        self.listing(args.listing.format, &report, text).await?;
        Ok(checked.exit)
    }
}

/// Accounts that roles let their holders use on the node, root first; root where there is none.
fn likely_logins(view: &View, node: &Node) -> Vec<Login> {
    let mut found = BTreeSet::new();
    for user in view.users().take(MOST_USERS) {
        for role in user.roles.iter().filter_map(|name| view.role(name)) {
            if role.allow.node_labels.matches(&node.labels, user) {
                found.extend(role.allow.logins_for(user));
            }
        }
    }
    let root = Login::parse("root").ok();
    let first = root
        .iter()
        .filter(|root| found.is_empty() || found.contains(*root));
    let others = found.iter().filter(|login| Some(*login) != root.as_ref());
    first.chain(others).take(MOST_LOGINS).cloned().collect()
}
