//! Instants and durations as people write and read them.

use time::OffsetDateTime;
use time::UtcOffset;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[day] [month repr:short] [year repr:last_two] [hour]:[minute] UTC");
const LONG_STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");

/// `23 Jun 26 18:25 UTC`
#[must_use]
pub fn stamp(at: OffsetDateTime) -> String {
    formatted(at, STAMP)
}

/// `2026-06-23 18:25:09 UTC`
#[must_use]
pub fn long_stamp(at: OffsetDateTime) -> String {
    formatted(at, LONG_STAMP)
}

/// RFC 3339 in UTC, whole seconds: `2026-06-23T18:25:09Z`.
#[must_use]
pub fn rfc3339(at: OffsetDateTime) -> String {
    let at = utc(at).truncate_to_second();
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// Reads an instant in RFC 3339, any offset.
///
/// # Errors
/// A sentence that shows the format.
pub fn parse_rfc3339(text: &str) -> Result<OffsetDateTime, String> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok();
    // In UTC the first hours of the year 0 and the last of 9999 can be beyond the calendar.
    at.and_then(|at| at.checked_to_offset(UtcOffset::UTC))
        .filter(|at| at.year() >= 0)
        .ok_or_else(|| "write it as RFC 3339, like 2026-06-23T18:25:00Z".to_owned())
}

/// Hours, minutes and seconds, none left out after the first: `11h16m0s`, `3m20s`, `9s`.
#[must_use]
pub fn exact(length: time::Duration) -> String {
    let total = length.whole_seconds().max(0);
    let (h, m, s) = (total / 3600, total / 60 % 60, total % 60);
    match (h, m) {
        (0, 0) => format!("{s}s"),
        (0, m) => format!("{m}m{s}s"),
        (h, m) => format!("{h}h{m}m{s}s"),
    }
}

/// A duration in a sentence, to the minute from ten minutes on: `12h`, `1h30m`, `2d`, `45s`. It reads back with
/// [`anteroom_core::duration::parse`].
#[must_use]
pub fn brief(length: time::Duration) -> String {
    let mut total = length.whole_seconds().max(0);
    if length.subsec_nanoseconds() >= 500_000_000 {
        total += 1;
    }
    if total >= 600 {
        total = (total + 30) / 60 * 60;
    }
    anteroom_core::duration::format(time::Duration::seconds(total))
}

/// The instant in UTC; as it is where UTC is beyond the calendar.
fn utc(at: OffsetDateTime) -> OffsetDateTime {
    at.checked_to_offset(UtcOffset::UTC).unwrap_or(at)
}

fn formatted(at: OffsetDateTime, format: &[BorrowedFormatItem<'_>]) -> String {
    let at = utc(at);
    // The components asked for exist in every OffsetDateTime; should that change, its own form is readable too.
    at.format(format).unwrap_or_else(|_| at.to_string())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn times_are_utc_whatever_the_offset() {
        assert_eq!(
            stamp(datetime!(2026-06-23 20:25:09 +2)),
            "23 Jun 26 18:25 UTC"
        );
        assert_eq!(
            long_stamp(datetime!(2026-06-23 20:25:09 +2)),
            "2026-06-23 18:25:09 UTC"
        );
        assert_eq!(
            rfc3339(datetime!(2026-06-23 20:25:09.123 +2)),
            "2026-06-23T18:25:09Z"
        );
        assert_eq!(
            parse_rfc3339("2026-06-23T20:25:09+02:00"),
            Ok(datetime!(2026-06-23 18:25:09 UTC))
        );
        assert!(parse_rfc3339("tomorrow").is_err());
    }

    #[test]
    fn what_is_beyond_the_calendar_in_utc_is_refused_and_shown_as_it_is() {
        for text in ["9999-12-31T23:59:59-12:00", "0000-01-01T00:00:00+12:00"] {
            assert!(parse_rfc3339(text).unwrap_err().contains("RFC 3339"));
        }
        assert!(parse_rfc3339("9999-12-31T23:59:59Z").is_ok());
        let last = datetime!(9999-12-31 23:59:59 -12);
        assert_eq!(rfc3339(last), "9999-12-31T23:59:59-12:00");
        assert!(stamp(last).starts_with("31 Dec 99"));
        assert!(long_stamp(last).starts_with("9999-12-31"));
    }

    #[test]
    fn durations_are_written_as_in_the_guides() {
        assert_eq!(exact(time::Duration::minutes(676)), "11h16m0s");
        assert_eq!(exact(time::Duration::seconds(200)), "3m20s");
        assert_eq!(exact(time::Duration::seconds(-5)), "0s");
        assert_eq!(brief(time::Duration::hours(12)), "12h");
        assert_eq!(brief(time::Duration::milliseconds(43_199_700)), "12h");
        assert_eq!(brief(time::Duration::minutes(90)), "1h30m");
        assert_eq!(brief(time::Duration::days(2)), "2d");
        assert_eq!(brief(time::Duration::seconds(61)), "1m1s");
    }
}
