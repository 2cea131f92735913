//! Schedules of access monitoring rules: shifts on the clock of a time zone.
//!
//! A shift holds from its start until just before its end, by what a clock on the wall of that time
//! zone shows. Where clocks are set forward, the hour that is left out is in no shift; where they
//! are set back, the hour that comes twice is in a shift both times. The time zones are those that
//! are built in, so that every machine decides alike.

use std::str::FromStr;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan, Zoned};
use time::OffsetDateTime;

/// The hours of some days of the week, in one time zone.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    zone: TimeZone,
    shifts: Vec<Shift>,
}

/// Some hours of a day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shift {
    weekday: Weekday,
    start: Clock,
    end: Clock,
}

/// Minutes since midnight, as a clock shows them: 0 to 1440.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clock(u16);

/// There is no such time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such time zone")]
pub struct UnknownTimeZone;

impl Clock {
    /// `HH:MM` with two digits each, or `24:00`, the end of the day.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (hours, minutes) = text.split_once(':')?;
        let number = |digits: &str| {
            let plain = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
            u16::from_str(digits).ok().filter(|_| plain)
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let sum = hours * 60 + minutes;
        (minutes < 60 && sum <= 24 * 60).then_some(Self(sum))
    }
}

impl Shift {
    /// The days of the week as a shift names them.
    pub const WEEKDAYS: [&'static str; 7] = [
        "Monday",
        "Tuesday",
        "Wednesday",
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
    ];

    /// A shift; `None` if the day is none or it would end before it has begun.
    #[must_use]
    pub fn new(weekday: &str, start: Clock, end: Clock) -> Option<Self> {
        let number = Self::WEEKDAYS.iter().position(|day| *day == weekday)?;
        let weekday = Weekday::from_monday_zero_offset(i8::try_from(number).ok()?).ok()?;
        (start < end).then_some(Self {
            weekday,
            start,
            end,
        })
    }

    fn is_in_effect(self, local: &Zoned) -> bool {
        let clock = u16::try_from(i16::from(local.hour()) * 60 + i16::from(local.minute()));
        local.weekday() == self.weekday
            && clock.is_ok_and(|clock| (self.start..self.end).contains(&Clock(clock)))
    }

    /// The instants at which a clock shows its start on `day`: two where clocks are set back, and
    /// two that do not matter where its hour is left out.
    fn starts(self, zone: &TimeZone, day: Date) -> [Option<Timestamp>; 2] {
        // `24:00` starts no shift.
        let (hour, minute) = (self.start.0 / 60, self.start.0 % 60);
        let (hour, minute) = (i8::try_from(hour), i8::try_from(minute));
        let (Ok(hour), Ok(minute)) = (hour, minute) else {
            return [None, None];
        };
        let Ok(time) = Time::new(hour, minute, 0, 0) else {
            return [None, None];
        };
        let there = |zone: &TimeZone| zone.to_ambiguous_zoned(day.to_datetime(time));
        [there(zone).earlier(), there(zone).later()]
            .map(|zoned| zoned.ok().map(|zoned| zoned.timestamp()))
    }
}

impl Schedule {
    /// A schedule of these shifts in the time zone of that IANA name, as in `Europe/Berlin`.
    ///
    /// # Errors
    /// [`UnknownTimeZone`].
    pub fn new(zone: &str, shifts: Vec<Shift>) -> Result<Self, UnknownTimeZone> {
        let zone = TimeZoneDatabase::bundled()
            .get(zone)
            .map_err(|_| UnknownTimeZone)?;
        Ok(Self { zone, shifts })
    }

    /// Whether one of its shifts holds at `now`.
    #[must_use]
    pub fn is_in_effect(&self, now: OffsetDateTime) -> bool {
        let Some(local) = self.local(now) else {
            return false;
        };
        self.shifts.iter().any(|shift| shift.is_in_effect(&local))
    }

    /// The next instant after `now` at which a shift may begin to hold: a start of one, or clocks
    /// being set, which may skip one.
    #[must_use]
    pub fn next_opening(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let local = self.local(now)?;
        let after = local.timestamp();
        // Today and the same day of the next week, whose shift may have begun today.
        let days = (0_i64..=8).filter_map(|ahead| local.date().checked_add(ahead.days()).ok());
        let starts = days.flat_map(|day| {
            let shifts = self.shifts.iter();
            let on_day = shifts.filter(move |shift| shift.weekday == day.weekday());
            on_day.flat_map(move |shift| shift.starts(&self.zone, day))
        });
        let set = self.zone.following(after).next();
        let set = set.map(|transition| transition.timestamp());
        let next = starts.flatten().chain(set).filter(|at| *at > after).min()?;
        OffsetDateTime::from_unix_timestamp_nanos(next.as_nanosecond()).ok()
    }

    fn local(&self, now: OffsetDateTime) -> Option<Zoned> {
        let now = Timestamp::from_nanosecond(now.unix_timestamp_nanos()).ok()?;
        Some(now.to_zoned(self.zone.clone()))
    }
}

#[cfg(test)]
mod tests;
