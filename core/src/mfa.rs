//! Second factors: what is remembered of a person's devices, and how often a code may be guessed.
//!
//! Values and arithmetic. What the right code is, is for whoever can open the secrets.

use time::{Duration, OffsetDateTime};

use crate::id::DeviceName;

/// Devices of one user: a phone, another one, a token in a safe. Each makes guessing easier by as much as the
/// first.
pub const MOST_DEVICES: usize = 8;

/// Wrong codes in a row after which there is a pause.
const FREE_FAILURES: u32 = 5;

/// The first pause. Each further wrong code doubles it.
const FIRST_PAUSE: Duration = Duration::seconds(30);

/// The longest pause. Of a million codes three are right at a time, so that who has stolen a key guesses for
/// decades at one attempt an hour; and who mistyped has a code again after lunch.
const LONGEST_PAUSE: Duration = Duration::hours(1);

/// After so long without another wrong code the count begins anew.
const FORGOTTEN_AFTER: Duration = Duration::days(1);

/// Something that a person has, and that makes codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Unique among hers.
    pub name: DeviceName,
    /// Its secret, sealed.
    pub sealed: Vec<u8>,
    /// When it was added.
    pub created: OffsetDateTime,
    /// The time step of the last code that was taken: that code and all before it are spent.
    pub last_step: u64,
    /// When that was.
    pub last_used: OffsetDateTime,
}

/// The devices of a person, and what was guessed wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecondFactors {
    /// In the order of their names.
    pub devices: Vec<Device>,
    /// Wrong codes since the last right one.
    pub failures: Option<Failures>,
}

impl SecondFactors {
    /// The device of that name.
    #[must_use]
    pub fn device(&self, name: &DeviceName) -> Option<&Device> {
        self.devices.iter().find(|device| device.name == *name)
    }

    /// The same with this device added, or in the place of the one of its name.
    #[must_use]
    pub fn with(&self, device: Device) -> Self {
        let mut changed = self.without(&device.name);
        let place = changed
            .devices
            .partition_point(|known| known.name < device.name);
        changed.devices.insert(place, device);
        changed
    }

    /// The same without the device of that name.
    #[must_use]
    pub fn without(&self, name: &DeviceName) -> Self {
        let mut changed = self.clone();
        changed.devices.retain(|device| device.name != *name);
        changed
    }

    /// Until when no code is looked at, if at `now` none is.
    #[must_use]
    pub fn paused_until(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        let until = self.failures?.paused_until()?;
        (now < until).then_some(until)
    }
}

/// Wrong codes in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failures {
    /// How many; at least one.
    pub count: u32,
    /// When the last one was given.
    pub last: OffsetDateTime,
}

impl Failures {
    /// One more after `before`, at `now`.
    #[must_use]
    pub fn after(before: Option<Self>, now: OffsetDateTime) -> Self {
        match before {
            Some(before) if now - before.last < FORGOTTEN_AFTER => Self {
                count: before.count.saturating_add(1),
                // A clock that goes back shortens no pause.
                last: before.last.max(now),
            },
            Some(_) | None => Self {
                count: 1,
                last: now,
            },
        }
    }

    /// Until when the next code has to wait, if it has to.
    #[must_use]
    pub fn paused_until(&self) -> Option<OffsetDateTime> {
        let beyond = self.count.checked_sub(FREE_FAILURES)?;
        // 30 s doubled ten times is beyond the longest.
        let pause = FIRST_PAUSE * 2_i32.pow(beyond.min(10));
        self.last.checked_add(pause.min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-11-21 08:00 UTC);

    #[test]
    fn five_wrong_codes_are_free_and_then_each_waits_twice_as_long_up_to_an_hour() {
        let mut failures = None;
        let mut pauses = Vec::new();
        for _ in 0..14 {
            let next = Failures::after(failures, START);
            pauses.push(
                next.paused_until()
                    .map_or(0, |until| (until - START).whole_seconds()),
            );
            failures = Some(next);
        }
        assert_eq!(
            pauses,
            [
                0, 0, 0, 0, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600
            ]
        );
    }

    #[test]
    fn a_day_of_attempts_is_far_from_a_million() {
        let (mut factors, mut now, mut tried) = (SecondFactors::default(), START, 0);
        while now < START + Duration::days(1) {
            match factors.paused_until(now) {
                Some(until) => now = until,
                None => {
                    factors.failures = Some(Failures::after(factors.failures, now));
                    tried += 1;
                }
            }
        }
        assert_eq!(tried, 34);
    }

    #[test]
    fn a_clock_that_goes_back_shortens_no_pause() {
        let five = Failures {
            count: 4,
            last: START,
        };
        let next = Failures::after(Some(five), START - Duration::hours(3));
        assert_eq!(next.paused_until(), Some(START + FIRST_PAUSE));
    }

    #[test]
    fn what_was_mistyped_yesterday_is_forgotten() {
        let many = Failures {
            count: 40,
            last: START,
        };
        let next = Failures::after(Some(many), START + FORGOTTEN_AFTER);
        assert_eq!(next.count, 1);
    }
}
