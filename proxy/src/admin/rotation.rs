//! `auth rotate` and `auth status`: exchanging the authorities' keys, and where that is.

use std::sync::Arc;

use anteroom_core::admin::{AdminObject, AdminVerb};
use serde::Serialize;

use super::args::Listing;
use super::args::authorities::{AuthRotate, Rotatable, RotateStage};
use super::io::CommandIo;
use super::run::{Ended, Run, Stop, store_exit};
use crate::authority::{
    Authorities, AuthorityKind, Record, RotateError, Stage, Step, Unavailable, Wish, print,
};
use crate::exit::{Exit, Exits};
use crate::say::{self, Table, clean};
use crate::state::Learner;

/// An authority as `auth status` shows it.
#[derive(Debug, Serialize)]
struct AuthorityRow {
    #[serde(rename = "type")]
    kind: &'static str,
    stage: &'static str,
    since: String,
    /// The fingerprint of the key that signs.
    signing: String,
    /// Of the key that is announced.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    /// Of the key that signed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    /// Identity certificates of the old key that are still good.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_certificates: Option<OldCertificates>,
    /// What nodes know of the new key; only while there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeRow>,
    /// Keys that are trusted no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    retired: Vec<RetiredRow>,
    /// What to do now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next_steps: Vec<String>,
}

#[derive(Debug, Serialize)]
struct OldCertificates {
    valid: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_ends: Option<String>,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    id: String,
    name: String,
    /// Whether it is known to go by the new key.
    learnt: bool,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// When it last refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    /// When it fetched it by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetched: Option<String>,
    #[serde(skip)]
    shown: String,
}

#[derive(Debug, Serialize)]
struct RetiredRow {
    fingerprint: String,
    since: String,
}

impl NodeRow {
    fn of(node: &Learner) -> Self {
        let shown = match (node.learnt, node.refused, node.fetched) {
            (Some(at), _, _) => format!("since {}", say::stamp(at)),
            (None, _, Some(at)) => format!("not seen yet; fetched {}", say::stamp(at)),
            (None, Some(at), None) => format!("not yet; asked {}", say::stamp(at)),
            (None, None, None) => "not yet".to_owned(),
        };
        Self {
            id: node.id.to_string(),
            name: node.name.clone(),
            learnt: node.learnt.is_some(),
            since: node.learnt.map(say::rfc3339),
            refused: node
                .refused
                .filter(|_| node.learnt.is_none())
                .map(say::rfc3339),
            fetched: node
                .fetched
                .filter(|_| node.learnt.is_none())
                .map(say::rfc3339),
            shown,
        }
    }
}

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn auth_rotate(&mut self, args: &AuthRotate) -> Ended {
        let kind = match args.authority {
            Rotatable::User => AuthorityKind::User,
            Rotatable::Node => AuthorityKind::Node,
            Rotatable::Host => AuthorityKind::Host,
        };
        let object = AdminObject::CertAuthority(kind.as_str());
        self.require(AdminVerb::Update, object)?;
        let step = args.stage.map(|stage| match stage {
            RotateStage::Announce => Step::Announce,
            RotateStage::Sign => Step::Sign,
            RotateStage::Retire => Step::Retire,
            RotateStage::Rollback => Step::Rollback,
        });
        let wish = Wish {
            kind,
            step,
            force: args.force,
        };
        let Some(rotator) = self.ctx.rotator.clone() else {
            return Err(Unavailable(kind).into());
        };
        let by = self.by();
        let rotated = rotator.rotate(&self.ctx.state, &by, wish).await?;
        let gone = rotated.retired.as_ref().map(print);
        let taken = say::step_taken(&rotated.record, gone.as_deref());
        self.print(&taken).await?;
        for warning in &rotated.warnings {
            self.note(&format!("WARNING: {}", clean(warning))).await?;
        }
        let mut lines = self.what_next(&rotated.record);
        if rotated.step == Step::Retire {
            lines.push(say::after_retiring(kind).to_owned());
        }
        for line in lines {
            self.note(&line).await?;
        }
        Ok(match rotated.warnings.is_empty() {
            true => Exit::Done,
            false => Exit::Failed,
        })
    }

    pub(crate) async fn auth_status(&mut self, args: Listing) -> Ended {
        let authorities = self.authorities(AuthorityKind::Node)?;
        let object = |kind: AuthorityKind| AdminObject::CertAuthority(kind.as_str());
        let may = |kind: &AuthorityKind| self.may(AdminVerb::Read, object(*kind));
        let shown: Vec<_> = AuthorityKind::ALL.into_iter().filter(may).collect();
        if shown.is_empty() {
            self.require(AdminVerb::Read, object(AuthorityKind::Node))?;
        }
        let mut rows = Vec::new();
        for kind in shown {
            rows.push(self.authority_row(&authorities, kind).await?);
        }
        self.listing(args.format, &rows, || text(&rows)).await?;
        Ok(Exit::Done)
    }

    /// The authorities, which are there from the start on.
    pub(crate) fn authorities(&self, kind: AuthorityKind) -> Result<Arc<Authorities>, Stop> {
        let authorities = self.ctx.state.authorities();
        authorities.ok_or_else(|| Unavailable(kind).into())
    }

    fn what_next(&self, record: &Record) -> Vec<String> {
        let nodes = self.ctx.state.learners(record.kind);
        let learnt = nodes.iter().filter(|node| node.learnt.is_some()).count();
        say::what_next(record, learnt, nodes.len())
    }

    async fn authority_row(
        &self,
        authorities: &Authorities,
        kind: AuthorityKind,
    ) -> Result<AuthorityRow, Stop> {
        let record = authorities.record(kind);
        let (next, previous) = match &record.stage {
            Stage::Stable => (None, None),
            Stage::Announced { next } => (Some(print(next)), None),
            Stage::Signing { previous } => (None, Some(print(previous))),
        };
        let (state, now) = (&self.ctx.state, self.ctx.state.now());
        let old_certificates = match &previous {
            Some(old) if kind == AuthorityKind::User => {
                let (valid, last) = state.reader().identities_by(old, now).await?;
                Some(OldCertificates {
                    valid,
                    last_ends: last.map(say::rfc3339),
                })
            }
            Some(_) | None => None,
        };
        let retired = authorities.retired.iter();
        let retired = retired.filter(|retired| retired.kind == kind);
        Ok(AuthorityRow {
            kind: kind.as_str(),
            stage: record.stage.as_str(),
            since: say::rfc3339(record.since),
            signing: print(&record.signing),
            next,
            previous,
            old_certificates,
            nodes: state.learners(kind).iter().map(NodeRow::of).collect(),
            retired: retired
                .map(|retired| RetiredRow {
                    fingerprint: print(&retired.key),
                    since: say::rfc3339(retired.at),
                })
                .collect(),
            next_steps: self.what_next(record),
        })
    }
}

fn text(rows: &[AuthorityRow]) -> String {
    let mut table = Table::new(["CA", "Stage", "Signs", "Trusted Too"]);
    for row in rows {
        let other = row.next.as_deref().or(row.previous.as_deref());
        table.row([row.kind, row.stage, &row.signing, other.unwrap_or_default()]);
    }
    let mut text = table.to_string();
    for row in rows.iter().filter(|row| !row.next_steps.is_empty()) {
        text.push_str(&format!(
            "\n\nRotation of the {} CA, `{}` since {}",
            row.kind, row.stage, row.since
        ));
        if let Some(old) = &row.old_certificates {
            text.push_str(&format!(
                "\nIdentity certificates of the old CA that are still good: {}",
                old.valid
            ));
        }
        if !row.nodes.is_empty() {
            let mut nodes = Table::new(["Node Name", "Goes By The New CA"]);
            for node in &row.nodes {
                nodes.row([node.name.as_str(), &node.shown]);
            }
            text.push_str(&format!("\n{nodes}"));
        }
        for line in &row.next_steps {
            text.push_str(&format!("\n{line}"));
        }
    }
    text
}

impl From<RotateError> for Stop {
    fn from(error: RotateError) -> Self {
        let exit = match &error {
            RotateError::Store(error) => return Self::new(store_exit(error), error),
            RotateError::NotAdmitted(_) | RotateError::FromNode(_) | RotateError::NotAllowed(_) => {
                return Self::by_state(Exit::Denied, clean(&error.to_string()));
            }
            RotateError::Stage { .. }
            | RotateError::Unlearnt { .. }
            | RotateError::StillHeld { .. }
            | RotateError::Changed(_) => Exit::Failed,
            RotateError::Keyring(error) if error.is_of_the_configuration() => Exit::Config,
            RotateError::Keyring(_) => Exit::Failed,
            RotateError::Agent(_) => Exit::Unavailable,
            RotateError::Unavailable(error) => error.exit(),
        };
        Self::new(exit, clean(&error.to_string()))
    }
}
