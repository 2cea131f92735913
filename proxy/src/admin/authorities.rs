//! `auth export` and `nodes sshd-config`: public halves as their readers want them.

use anteroom_ca::export::{self, NODE_CA_FILE, OtherDoors};
use anteroom_core::admin::{AdminObject, AdminVerb};
use anteroom_core::node::{HostProof, Node};
use ssh_key::PublicKey;

use super::Context;
use super::args;
use super::args::authorities::{AuthExport, Authority};
use super::args::nodes::{NodeOnly, SshdConfig};
use super::io::CommandIo;
use super::run::{Ended, Run, Stop};
use crate::authority::{AuthorityKind, Unavailable};
use crate::enrol::{self, RENEWAL_FILE};
use crate::exit::Exit;
use crate::tunnel_unit::{TUNNEL_UNIT_FILE, TunnelUnit};

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn auth_export(&mut self, args: &AuthExport) -> Ended {
        let name = match args.authority {
            Authority::User => "user",
            Authority::Node => "node",
            Authority::Host => "host",
            Authority::Krl => "krl",
        };
        self.require(AdminVerb::Read, AdminObject::CertAuthority(name))?;
        let lines = match args.authority {
            Authority::User => authorized_keys(self.ctx, AuthorityKind::User)?,
            Authority::Node => authorized_keys(self.ctx, AuthorityKind::Node)?,
            Authority::Host => known_hosts(self.ctx)?,
            Authority::Krl => return self.export_krl().await,
        };
        self.print(&lines.join("\n")).await?;
        Ok(Exit::Done)
    }

    pub(crate) async fn sshd_config(&mut self, args: &SshdConfig) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Read, &view, &args.node)?;
        let others = if args.exclusive {
            OtherDoors::Close
        } else {
            OtherDoors::Keep
        };
        self.print(export::sshd_config_lines(&node.id, others).trim_end())
            .await?;
        let hint = ca_file_hint(self.ctx)?;
        self.note(&format!(
            "{hint}\nThen check with `sshd -t` and reload sshd.\n\
             `nodes renewal {}` prints the script that renews this file, the revocation list and host certificates.",
            node.name
        ))
        .await?;
        Ok(Exit::Done)
    }

    /// The script alone on standard output.
    pub(crate) async fn renewal(&mut self, args: &NodeOnly) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Read, &view, &args.node)?;
        let script = enrol::renewal(&node.id, &self.ctx.place);
        self.print(script.trim_end()).await?;
        self.note(&format!(
            "Write it on the node into {RENEWAL_FILE}, for root to run (chmod 755), and have it run once a day, as in\n\
             echo '17 3 * * * root {RENEWAL_FILE}' > /etc/cron.d/anteroom-renew\n\
             at a minute of the day that differs from node to node. It renews the host certificates that sshd shows:\n\
             the first is made with `nodes host-cert {}`. The enrolment script (`tokens add`) does all of this by itself.",
            node.name
        ))
        .await?;
        Ok(Exit::Done)
    }
}

impl<I: CommandIo> Run<'_, I> {
    /// The unit alone on standard output.
    pub(crate) async fn tunnel_unit(&mut self, args: &args::nodes::TunnelUnit) -> Ended {
        let view = self.ctx.state.view();
        let node = self.administered_node(AdminVerb::Read, &view, &args.node)?;
        if node.addr.dialled().is_some() {
            return Err(Stop::usage(format!(
                "node `{0}` is dialled at {1}; `nodes update {0} --addr tunnel` has it connect by itself",
                node.name, node.addr
            )));
        }
        let unit = TunnelUnit::of(&node, &self.ctx.place, args.sshd_port);
        self.print(unit.text().trim_end()).await?;
        self.note(&format!(
            "Write it on the node into {TUNNEL_UNIT_FILE}, then:\n\
             systemctl daemon-reload && systemctl enable --now anteroom-tunnel"
        ))
        .await?;
        Ok(Exit::Done)
    }
}

/// What an operator does on a node that was just registered.
pub(crate) fn node_setup(ctx: &Context, node: &Node) -> Result<String, Stop> {
    let lines = export::sshd_config_lines(&node.id, OtherDoors::Keep);
    let mut text = format!(
        "{}\n\nAppend to /etc/ssh/sshd_config there (`nodes sshd-config {}` prints it again), check with `sshd -t`, reload sshd:\n{}",
        ca_file_hint(ctx)?,
        node.name,
        lines.trim_end(),
    );
    if node.addr.dialled().is_none() {
        text.push_str(&format!(
            "\n\nIt connects by itself. Write there what `nodes tunnel-unit {}` prints into {TUNNEL_UNIT_FILE}, then:\n\
             systemctl daemon-reload && systemctl enable --now anteroom-tunnel",
            node.name
        ));
    }
    match node.host_proof {
        HostProof::Pinned(_) => {}
        HostProof::HostCa => text.push_str(&format!(
            "\n\nAnd give it a host certificate, again before the 29 days are over that it lives. There, in /etc/ssh:\n\
             ssh access nodes host-cert {} --key - < ssh_host_ed25519_key.pub > ssh_host_ed25519_key-cert.pub\n\
             Then `HostCertificate /etc/ssh/ssh_host_ed25519_key-cert.pub` in its sshd_config.",
            node.name
        )),
    }
    Ok(text)
}

fn ca_file_hint(ctx: &Context) -> Result<String, Stop> {
    let keys = authorized_keys(ctx, AuthorityKind::Node)?;
    Ok(format!(
        "Write on the node into {NODE_CA_FILE}:\n{}",
        keys.join("\n")
    ))
}

/// All keys of an authority that are trusted now.
fn trusted(ctx: &Context, kind: AuthorityKind) -> Result<Vec<PublicKey>, Stop> {
    let authorities = ctx.state.authorities();
    let authorities = authorities.ok_or_else(|| Stop::from(Unavailable(kind)))?;
    Ok(authorities.record(kind).trusted())
}

pub(crate) fn authorized_keys(ctx: &Context, kind: AuthorityKind) -> Result<Vec<String>, Stop> {
    let comment = format!("anteroom {kind} CA of {}", ctx.state.cluster());
    trusted(ctx, kind)?
        .iter()
        .map(|key| export::authorized_keys_line(key, &comment))
        .collect::<Result<_, _>>()
        .map_err(unwritable)
}

pub(crate) fn known_hosts(ctx: &Context) -> Result<Vec<String>, Stop> {
    let trusted = trusted(ctx, AuthorityKind::Host)?;
    export::known_hosts_lines(&ctx.place.names, &trusted).map_err(unwritable)
}

impl From<Unavailable> for Stop {
    fn from(error: Unavailable) -> Self {
        Self::new(Exit::Unavailable, error)
    }
}

fn unwritable(error: ssh_key::Error) -> Stop {
    Stop::new(
        Exit::Failed,
        format!("a CA key cannot be written out: {error}; run `anteroom doctor`"),
    )
}
