//! Durations and instants as people write them: `90s`, `30m`, `1h30m`, `2d`; `20 Nov 26 22:10 UTC`.

use time::macros::format_description;
use time::{Duration, OffsetDateTime, UtcOffset};

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration; write it as 90s, 30m, 1h30m or 2d")]
pub struct DurationError(String);

/// The longest duration that is read, 10 years: past it sums with a date could leave the calendar.
const LONGEST_SECONDS: i64 = 10 * 365 * 86_400;

/// The units, in the order in which they may follow each other.
const UNITS: [(char, i64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Parses numbers with units, each unit once and larger ones first. The result is positive.
///
/// # Errors
/// [`DurationError`] names the text and the form.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    seconds(text)
        .filter(|seconds| (1..=LONGEST_SECONDS).contains(seconds))
        .map(Duration::seconds)
        .ok_or_else(|| DurationError(crate::id::printable(text)))
}

fn seconds(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    for (unit, factor) in UNITS {
        let Some((number, after)) = rest.split_once(unit) else {
            continue;
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let number: i64 = number.parse().ok()?;
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then_some(total)
}

/// Prints `duration` so that [`parse`] reads it back, rounded down to seconds: `1h30m`, `2d`.
/// Nothing or less is `0s`.
#[must_use]
pub fn format(duration: Duration) -> String {
    let mut rest = duration.whole_seconds().max(0);
    let mut out = String::new();
    for (unit, factor) in UNITS {
        let count = rest / factor;
        rest %= factor;
        if count > 0 {
            out.push_str(&count.to_string());
            out.push(unit);
        }
    }
    if out.is_empty() {
        out.push_str("0s");
    }
    out
}

/// Prints an instant for people, in UTC and to the minute: `20 Nov 26 22:10 UTC`.
#[must_use]
pub fn format_instant(instant: OffsetDateTime) -> String {
    let words =
        format_description!("[day] [month repr:short] [year repr:last_two] [hour]:[minute] UTC");
    // Formatting fails only for parts that a date lacks, and a date has all of these.
    instant
        .checked_to_offset(UtcOffset::UTC)
        .unwrap_or(instant)
        .format(&words)
        .unwrap_or_default()
}

/// Serde of a [`Duration`] as the text above, for `#[serde(with = "…")]` on an `Option`.
pub(crate) mod option {
    use serde::{Deserialize, Deserializer, Serializer};
    use time::Duration;

    #[expect(clippy::ref_option, reason = "the signature that serde's `with` calls")]
    pub(crate) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => to.serialize_some(&super::format(*duration)),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| super::parse(&text).map_err(serde::de::Error::custom))
            .transpose()
    }
}

/// The same for a [`Duration`] that is always there, in whole seconds.
pub(crate) mod exact {
    use serde::{Deserialize, Deserializer, Serializer};
    use time::Duration;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::format(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        // What was less than a second was once written as `0s`.
        if text == "0s" {
            return Ok(Duration::ZERO);
        }
        super::parse(&text).map_err(serde::de::Error::custom)
    }
}
