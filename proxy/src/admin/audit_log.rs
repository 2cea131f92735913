//! `audit ls`, `audit export` and `audit verify`.

use anteroom_core::admin::{AdminObject, AdminVerb};
use serde::Serialize;
use serde_json::Value;

use super::args::Format;
use super::args::audit::{AuditChoice, AuditLs};
use super::io::CommandIo;
use super::run::{Ended, Listing, Run, Stop};
use crate::audit::{Event, Record};
use crate::exit::Exit;
use crate::say::{self, Table, clean};
use crate::store::{AuditFilter, VerifyError};

/// Entries fetched at a time: the log may be larger than memory.
const PAGE: usize = 1000;

/// The width of a reason or a command in the table.
const DETAIL_WIDTH: usize = 60;

impl<I: CommandIo> Run<'_, I> {
    pub(crate) async fn audit_ls(&mut self, args: &AuditLs) -> Ended {
        self.require(AdminVerb::List, AdminObject::Events)?;
        let filter = self.audit_filter(&args.choice)?;
        match args.listing.format {
            Format::Text => self.audit_table(&filter).await,
            Format::Json => self.audit_objects(&filter, Format::Json).await,
            Format::Yaml => self.audit_objects(&filter, Format::Yaml).await,
        }
    }

    /// Page by page, each entry as it is stored with its place in the chain.
    pub(crate) async fn audit_export(&mut self, args: &AuditChoice) -> Ended {
        self.require(AdminVerb::List, AdminObject::Events)?;
        let filter = self.audit_filter(args)?;
        let mut after = 0;
        loop {
            let page = self.ctx.state.reader().audit(&filter, after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(Exit::Done);
            };
            after = last.seq;
            let mut lines = Vec::with_capacity(page.len());
            for record in &page {
                let line = record.exported().ok_or_else(|| {
                    let why = format!(
                        "audit entry {} is not as it was written; `audit verify` says more",
                        record.seq
                    );
                    Stop::new(Exit::Failed, why)
                })?;
                lines.push(line);
            }
            self.print(&lines.join("\n")).await?;
        }
    }

    fn audit_filter(&self, args: &AuditChoice) -> Result<AuditFilter, Stop> {
        let event = match &args.event {
            Some(name) => Some(Event::named(name).ok_or_else(|| {
                Stop::usage(format!("`{}` is not an event; events are named like session.start or access_request.review", clean(name)))
            })?),
            None => None,
        };
        let now = self.ctx.state.now();
        Ok(AuditFilter {
            event,
            user: args.user.clone(),
            request_id: args.request.clone(),
            session_id: args.session.clone(),
            node: args.node.clone(),
            since: args.since.map(|moment| moment.before(now)),
            until: args.until.map(|moment| moment.before(now)),
        })
    }

    /// Page by page, so that a long log costs no memory. Widths are those of each page.
    async fn audit_table(&mut self, filter: &AuditFilter) -> Ended {
        let mut after = 0;
        let mut first = true;
        loop {
            let page = self.ctx.state.reader().audit(filter, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let text = audit_page(&page);
            // One header for the whole log.
            let text = if first {
                text
            } else {
                text.lines().skip(2).collect::<Vec<_>>().join("\n")
            };
            self.print(&text).await?;
            first = false;
        }
        if first {
            self.print(&audit_page(&[])).await?;
        }
        Ok(Exit::Done)
    }

    async fn audit_objects(&mut self, filter: &AuditFilter, format: Format) -> Ended {
        let mut after = 0;
        let mut opened = false;
        loop {
            let page = self.ctx.state.reader().audit(filter, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            let entries: Vec<Value> = page.iter().map(entry).collect();
            self.print(&audit_chunk(&entries, format, opened)).await?;
            opened = true;
        }
        match (format, opened) {
            (Format::Json, true) => self.print("]").await?,
            (Format::Json | Format::Yaml | Format::Text, false) => self.print("[]").await?,
            (Format::Yaml | Format::Text, true) => {}
        }
        Ok(Exit::Done)
    }

    pub(crate) async fn audit_verify(&mut self, listing: Listing) -> Ended {
        #[derive(Serialize)]
        struct Verified {
            entries: i64,
            hash: String,
            certificates: i64,
            sessions: i64,
        }
        self.require(AdminVerb::Read, AdminObject::Events)?;
        let report = match self.ctx.state.reader().verify(Vec::new()).await {
            Ok(report) => report,
            Err(VerifyError::Store(error)) => return Err(error.into()),
            Err(error @ (VerifyError::Tampered(_) | VerifyError::Broken(_))) => {
                return Err(Stop::new(
                    Exit::Failed,
                    format!(
                        "the audit log does not verify: {}",
                        clean(&error.to_string())
                    ),
                ));
            }
        };
        let verified = Verified {
            entries: report.head.seq,
            hash: report.head.hash,
            certificates: report.certificates,
            sessions: report.sessions,
        };
        let text = || {
            format!(
                "The audit log is whole: {} entries, {} certificates, {} sessions.\nHead: {} {}",
                verified.entries,
                verified.certificates,
                verified.sessions,
                verified.entries,
                verified.hash
            )
        };
        self.listing(listing.format, &verified, text).await?;
        Ok(Exit::Done)
    }
}

/// Entries as part of one array that is written in several pieces.
fn audit_chunk(entries: &[Value], format: Format, opened: bool) -> String {
    let compact: Vec<String> = entries.iter().map(say::json_line).collect();
    match (format, opened) {
        (Format::Yaml, _) => say::yaml(&entries),
        (Format::Json | Format::Text, false) => format!("[\n{}", compact.join(",\n")),
        (Format::Json | Format::Text, true) => format!(",\n{}", compact.join(",\n")),
    }
}

fn entry(record: &Record) -> Value {
    let mut fields = record.fields();
    fields.insert("prev".to_owned(), Value::String(record.prev.clone()));
    fields.insert("hash".to_owned(), Value::String(record.hash.clone()));
    Value::Object(fields)
}

fn audit_page(page: &[Record]) -> String {
    let mut table = Table::new([
        "Seq",
        "Time (UTC)",
        "Event",
        "User",
        "Node",
        "Login",
        "Details",
    ]);
    for record in page {
        let fields = record.fields();
        let text = |name: &str| {
            fields
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let failed = fields.get("success").and_then(Value::as_bool) == Some(false);
        let mut details: Vec<String> = Vec::new();
        if failed {
            details.push("FAILED".to_owned());
        }
        for (name, label) in [
            ("state", ""),
            ("request_id", "req="),
            ("session_id", "sess="),
            ("name", ""),
            ("labels", "labels="),
            ("command", "cmd="),
            ("exit", "exit="),
            ("reason", ""),
        ] {
            let value = text(name);
            if !value.is_empty() {
                details.push(format!("{label}{}", detail(name, &value)));
            }
        }
        table.row([
            record.seq.to_string(),
            record
                .time
                .chars()
                .take(19)
                .collect::<String>()
                .replace('T', " "),
            record.event.clone(),
            text("user"),
            text("node"),
            text("login"),
            details.join(" "),
        ]);
    }
    table.to_string()
}

/// IDs by their start, what people wrote in quotes and short.
fn detail(name: &str, value: &str) -> String {
    match name {
        "request_id" | "session_id" => say::head(value, 8).to_owned(),
        "reason" | "command" => say::cut(&say::quote(value), DETAIL_WIDTH),
        _ => value.to_owned(),
    }
}
