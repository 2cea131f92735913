//! `audit`: which entries are listed or exported.

use anteroom_core::duration;
use clap::{Args, Subcommand};
use time::{Duration, OffsetDateTime};

use super::Listing;
use super::values::instant;

#[derive(Debug, Subcommand)]
pub(crate) enum Audit {
    /// List audit entries, oldest first
    Ls(AuditLs),
    /// Print entries as they are stored, a JSON object a line, oldest first, so that the chain can be computed again elsewhere
    Export(AuditChoice),
    /// Verify that nothing was changed, removed or added
    Verify(AuditVerify),
}

#[derive(Debug, Args)]
pub(crate) struct AuditLs {
    #[command(flatten)]
    pub(crate) choice: AuditChoice,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// Which entries.
#[derive(Debug, Args)]
pub(crate) struct AuditChoice {
    /// Only this event, like session.start
    #[arg(long, value_name = "NAME")]
    pub(crate) event: Option<String>,
    /// Only what this user did
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only what belongs to this request
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// Only what belongs to this session
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<String>,
    /// Only what concerns this node, by name or UUID
    #[arg(long)]
    pub(crate) node: Option<String>,
    /// From this time on (RFC 3339), or from so long ago (like 2h)
    #[arg(long, value_parser = moment, value_name = "TIME|DURATION")]
    pub(crate) since: Option<Moment>,
    /// Before this time, or until so long ago
    #[arg(long, value_parser = moment, value_name = "TIME|DURATION")]
    pub(crate) until: Option<Moment>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerify {
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// A time, or how long before now it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    At(OffsetDateTime),
    Ago(Duration),
}

impl Moment {
    pub(crate) fn before(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::At(at) => at,
            Self::Ago(ago) => now - ago,
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(ago) = duration::parse(text) {
        return Ok(Moment::Ago(ago));
    }
    instant(text)
        .map(Moment::At)
        .map_err(|_| "write a time like 2026-06-23T18:25:00Z, or how long ago, like 2h".to_owned())
}
