//! The proxy's own log, on standard error: the last place where a peer's text is made harmless.
//!
//! Whoever logs cleans what came from a peer. This makes sure of it: no control character, escape,
//! bidirectional override or zero-width character leaves a field raw, and an event is one line, so
//! that nobody writes lines of his own into the log.

use std::fmt::{self, Write as _};
use std::io;

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::{MakeExt, RecordFields, VisitOutput};
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::say::{clean, is_hostile};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, in colour if asked for.
    Text {
        /// Whether the stream is a terminal.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
}

/// Has everything that is logged from here on written to `writer`. To be called once.
pub fn start<W>(format: Format, filter: EnvFilter, writer: W)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // A second start would be our mistake, and the first one goes on. This listens to libraries, too.
    let _ = SubscriberInitExt::try_init(subscriber(format, filter, writer));
}

fn subscriber<W>(format: Format, filter: EnvFilter, writer: W) -> tracing::Dispatch
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // Whatever is asked for: what the SSH library says for its developers has user names in it, and those
    // may carry a token.
    let told = filter_fn(|event| {
        !event.target().starts_with("russh") || *event.level() <= tracing::Level::INFO
    });
    let filter = filter.and(told.with_max_level_hint(LevelFilter::TRACE));
    let layer = tracing_subscriber::fmt::layer();
    let registry = tracing_subscriber::registry();
    match format {
        Format::Text { colour } => {
            let layer = layer.with_ansi(colour).with_target(false);
            let layer = layer.fmt_fields(Cleaned).with_writer(writer);
            registry.with(layer.with_filter(filter)).into()
        }
        // In JSON controls are escaped already; what else is hostile stands in strings only.
        Format::Json => {
            let layer = layer.json().with_ansi(false).with_writer(Escaping(writer));
            registry.with(layer.with_filter(filter)).into()
        }
    }
}

/// Fields as `name=value`, each value one harmless line.
struct Cleaned;

impl<'w> FormatFields<'w> for Cleaned {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let each = debug_fn(
            |writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
                let value = format!("{value:?}");
                match field.name() {
                    "message" => writer.write_str(&clean(&value)),
                    name => write!(writer, "{name}={}", clean(&value)),
                }
            },
        );
        let each = each.delimited(" ");
        let mut writer = writer;
        let mut visitor =
            tracing_subscriber::field::MakeVisitor::make_visitor(&each, writer.by_ref());
        fields.record(&mut visitor);
        visitor.finish()
    }
}

/// Writes out what is hostile in JSON's own way.
struct Escaping<W>(W);

impl<'w, W: MakeWriter<'w>> MakeWriter<'w> for Escaping<W> {
    type Writer = EscapingWriter<W::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        EscapingWriter(self.0.make_writer())
    }
}

struct EscapingWriter<W>(W);

impl<W: io::Write> io::Write for EscapingWriter<W> {
    /// An event comes in one piece.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let mut out = String::with_capacity(text.len());
        for c in text.chars() {
            if c != '\n' && is_hostile(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(out, "\\u{unit:04x}");
                }
            } else {
                out.push(c);
            }
        }
        self.0.write_all(out.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const HOSTILE: &str = "x\u{1b}[2J\u{9b}1A\r\n2026-11-21 INFO authenticated user=root\u{202e}\u{200b}\u{2066}\u{e0041}\u{7f}é";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let dispatch = subscriber(format, EnvFilter::new("info"), move || writer.clone());
        tracing::dispatcher::with_default(&dispatch, || {
            tracing::warn!(
                from = HOSTILE,
                shown = %HOSTILE,
                debugged = ?HOSTILE,
                "refused: {HOSTILE}"
            );
        });
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_field_reaches_the_log_raw_and_an_event_is_one_line() {
        for format in [Format::Text { colour: false }, Format::Json] {
            let text = logged(format);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_hostile), "{line:?}");
            assert!(line.contains('é'), "{line:?}");
        }
    }

    #[test]
    fn in_json_it_is_read_back_unchanged() {
        let line: serde_json::Value = serde_json::from_str(&logged(Format::Json)).unwrap();
        assert_eq!(line["fields"]["from"], HOSTILE);
        assert_eq!(line["fields"]["shown"], HOSTILE);
        assert_eq!(line["fields"]["message"], format!("refused: {HOSTILE}"));
    }

    #[test]
    fn a_text_event_reads_as_it_always_did() {
        let text = logged(Format::Text { colour: false });
        let (_, rest) = text.split_once("WARN").unwrap();
        assert!(rest.starts_with(" refused: x\\x1b[2J"), "{rest}");
        assert!(rest.contains(" from=\"x"), "{rest}");
        assert!(rest.contains(" shown=x\\x1b[2J"), "{rest}");
    }
}
