use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;

fn schedule(zone: &str, shifts: &[(&str, &str, &str)]) -> Schedule {
    let shifts = shifts.iter().map(|(weekday, start, end)| {
        let (start, end) = (Clock::parse(start).unwrap(), Clock::parse(end).unwrap());
        Shift::new(weekday, start, end).unwrap()
    });
    Schedule::new(zone, shifts.collect()).unwrap()
}

/// Each row is an instant and whether it is within the shift.
fn check(schedule: &Schedule, rows: &[(OffsetDateTime, bool)]) {
    for (at, wanted) in rows {
        assert_eq!(schedule.is_in_effect(*at), *wanted, "{at}");
    }
}

#[test]
fn a_shift_holds_from_its_start_until_just_before_its_end_and_on_its_day_only() {
    // 2026-11-20 is a Friday.
    let utc = schedule("UTC", &[("Friday", "09:00", "17:00")]);
    check(
        &utc,
        &[
            (datetime!(2026-11-20 08:59:59.999999999 UTC), false),
            (datetime!(2026-11-20 09:00 UTC), true),
            (datetime!(2026-11-20 16:59:59.999999999 UTC), true),
            (datetime!(2026-11-20 17:00 UTC), false),
            (datetime!(2026-11-19 12:00 UTC), false),
            (datetime!(2026-11-21 12:00 UTC), false),
            (datetime!(2026-11-27 12:00 UTC), true),
            // The same instant, however it is written.
            (datetime!(2026-11-20 18:00 +9), true),
        ],
    );
}

#[test]
fn the_day_is_that_of_the_time_zone() {
    let tokyo = schedule("Asia/Tokyo", &[("Saturday", "00:00", "02:00")]);
    check(
        &tokyo,
        &[
            (datetime!(2026-11-20 14:59:59 UTC), false),
            (datetime!(2026-11-20 15:00 UTC), true),
            (datetime!(2026-11-20 17:00 UTC), false),
            (datetime!(2026-11-21 00:30 UTC), false),
        ],
    );
}

#[test]
fn a_night_of_two_shifts_has_no_gap() {
    let night = schedule(
        "Europe/Berlin",
        &[("Friday", "22:00", "24:00"), ("Saturday", "00:00", "06:00")],
    );
    check(
        &night,
        &[
            (datetime!(2026-11-20 20:59:59 UTC), false),
            (datetime!(2026-11-20 21:00 UTC), true),
            (datetime!(2026-11-20 22:59:59.999999999 UTC), true),
            (datetime!(2026-11-20 23:00 UTC), true),
            (datetime!(2026-11-21 04:59:59 UTC), true),
            (datetime!(2026-11-21 05:00 UTC), false),
        ],
    );
}

#[test]
fn where_clocks_are_set_forward_the_missing_hour_is_in_no_shift() {
    // In Berlin 02:00 becomes 03:00 on 2026-03-29, a Sunday, at 01:00 UTC.
    let missing = schedule("Europe/Berlin", &[("Sunday", "02:00", "03:00")]);
    check(
        &missing,
        &[
            (datetime!(2026-03-29 00:59:59 UTC), false),
            (datetime!(2026-03-29 01:00 UTC), false),
            (datetime!(2026-03-22 01:30 UTC), true),
        ],
    );
    let over = schedule("Europe/Berlin", &[("Sunday", "01:30", "03:30")]);
    check(
        &over,
        &[
            (datetime!(2026-03-29 00:29:59 UTC), false),
            (datetime!(2026-03-29 00:30 UTC), true),
            (datetime!(2026-03-29 01:00 UTC), true),
            (datetime!(2026-03-29 01:29:59 UTC), true),
            (datetime!(2026-03-29 01:30 UTC), false),
        ],
    );
    // Office hours stay office hours on either side.
    let office = schedule("Europe/Berlin", &[("Monday", "09:00", "17:00")]);
    check(
        &office,
        &[
            (datetime!(2026-03-23 08:00 UTC), true),
            (datetime!(2026-03-23 07:59:59 UTC), false),
            (datetime!(2026-03-30 07:00 UTC), true),
            (datetime!(2026-03-30 15:00 UTC), false),
        ],
    );
}

#[test]
fn where_clocks_are_set_back_the_hour_that_comes_twice_is_in_the_shift_twice() {
    // In Berlin 03:00 becomes 02:00 on 2026-10-25, a Sunday, at 01:00 UTC.
    let twice = schedule("Europe/Berlin", &[("Sunday", "02:30", "03:00")]);
    check(
        &twice,
        &[
            (datetime!(2026-10-25 00:29:59 UTC), false),
            (datetime!(2026-10-25 00:30 UTC), true),
            (datetime!(2026-10-25 01:00 UTC), false),
            (datetime!(2026-10-25 01:29:59 UTC), false),
            (datetime!(2026-10-25 01:30 UTC), true),
            (datetime!(2026-10-25 02:00 UTC), false),
        ],
    );
}

#[test]
fn what_is_no_time_of_day_is_refused_and_the_end_of_the_day_is_not() {
    for text in [
        "9:00",
        "09:0",
        "24:01",
        "23:60",
        "-1:00",
        "+9:00",
        "09",
        "",
        "09:00:00",
        "０９:00",
    ] {
        assert_eq!(Clock::parse(text), None, "{text}");
    }
    assert!(Clock::parse("24:00").is_some() && Clock::parse("00:00").is_some());
}

#[test]
fn a_shift_that_ends_before_it_begins_is_refused() {
    let clock = |text| Clock::parse(text).unwrap();
    assert_eq!(Shift::new("Monday", clock("22:00"), clock("06:00")), None);
    assert_eq!(Shift::new("Monday", clock("09:00"), clock("09:00")), None);
    assert_eq!(Shift::new("monday", clock("09:00"), clock("10:00")), None);
}

#[test]
fn an_unknown_time_zone_is_refused() {
    for zone in [
        "Europe/Berlino",
        "",
        "+01:00",
        "CEST-nonsense",
        "../etc/passwd",
    ] {
        assert_eq!(
            Schedule::new(zone, Vec::new()),
            Err(UnknownTimeZone),
            "{zone}"
        );
    }
}

/// Walks two years minute by minute at the days when clocks are set, and hour by hour otherwise: a
/// shift never begins to hold at an instant that `next_opening` has not named.
#[test]
fn no_opening_is_missed() {
    let schedules = [
        schedule(
            "Europe/Berlin",
            &[("Sunday", "02:30", "03:30"), ("Monday", "00:00", "24:00")],
        ),
        schedule("America/New_York", &[("Sunday", "01:15", "02:45")]),
        schedule("Australia/Lord_Howe", &[("Sunday", "01:45", "02:10")]),
    ];
    for schedule in schedules {
        let mut at = datetime!(2026-01-01 00:00 UTC);
        let mut next = schedule.next_opening(at).unwrap();
        let mut was = schedule.is_in_effect(at);
        while at < datetime!(2027-01-01 00:00 UTC) {
            at += Duration::minutes(5);
            let is = schedule.is_in_effect(at);
            let named = at >= next;
            assert!(
                was || !is || named,
                "{schedule:?} opens at {at}, not at {next}"
            );
            if named {
                next = schedule.next_opening(at).unwrap();
                assert!(next > at);
            }
            was = is;
        }
    }
}
