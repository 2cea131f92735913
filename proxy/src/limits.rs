//! Who may knock, and how often: the bounds on connections that have proven nothing yet.
//!
//! The measure is OpenSSH's sshd (`MaxStartups`, `PerSourceMaxStartups`, `PerSourcePenalties`), but
//! that whoever says nothing keeps nobody out (`strangers`).
//! This module only counts; the accept loop asks it, and hands back what it was given.

mod strangers;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_core::id::UserName;
use anteroom_core::node::source_network;
use serde::Serialize;
use time::OffsetDateTime;

pub use self::strangers::Stranger;
use self::strangers::{Among, Strangers};
use crate::config::{DoorLimits, Penalties};

/// Sources with a penalty that are remembered. Bounded, so that a scan from many addresses
/// cannot eat memory; when it is full the penalty that ends first makes room, as in sshd.
const PENALTY_TABLE: usize = 4096;

/// A penalty is enforced from this much on, so that one mistyped key costs nothing (sshd's `min`).
const PENALTY_ENFORCED_FROM: Duration = Duration::from_secs(15);

/// No source is locked out for longer by failures alone (sshd's `max`).
const PENALTY_MAX: Duration = Duration::from_secs(600);

/// Drops are told to the log at most so often, with how many there were: whoever connects without
/// end must not fill the disk.
const TELL_DROPS: Duration = Duration::from_secs(10);

/// An address, or the network that one subscriber usually has: failures are counted per
/// IPv4 address and per IPv6 /64 alike, or a single host could present 2^64 sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    /// The source that an address belongs to; IPv4-mapped addresses count as IPv4.
    pub fn of(address: IpAddr) -> Source {
        Source(source_network(address))
    }
}

/// Why a connection is closed before a word is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// `MaxStartups`: too many strangers at once.
    #[error("too many unauthenticated connections")]
    Startups,
    /// `PerSourceMaxStartups`.
    #[error("too many unauthenticated connections from this source")]
    PerSource,
    /// `PerSourcePenalties`.
    #[error("the source failed too often a moment ago")]
    Penalty,
}

/// What each user did within an hour, of one kind. An hour begins with the first of it, so that twice the limit
/// is the most within any hour.
#[derive(Debug, Default)]
pub struct Hourly(Mutex<HashMap<UserName, (OffsetDateTime, u32)>>);

impl Hourly {
    /// Counts one more, unless there were as many as `limit`. Bounded by the users who did something within
    /// the last hour.
    pub fn count(&self, user: &UserName, limit: u32, now: OffsetDateTime) -> bool {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back makes nothing younger.
        counts.retain(|_, (began, _)| now - *began < HOUR);
        let (_, count) = counts.entry(user.clone()).or_insert((now, 0));
        let fits = *count < limit;
        *count = count.saturating_add(u32::from(fits));
        fits
    }
}

/// What a connection did to deserve a penalty (sshd's defaults).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offence {
    /// It tried to authenticate and did not succeed.
    AuthenticationFailed,
    /// It let the grace time pass.
    GraceExceeded,
    /// It went away without trying.
    NoAttempt,
}

impl Offence {
    fn penalty(self) -> Duration {
        Duration::from_secs(match self {
            Offence::AuthenticationFailed => 5,
            Offence::GraceExceeded => 20,
            Offence::NoAttempt => 1,
        })
    }
}

/// The counters of the front door. Shared by the accept loop and all unauthenticated connections.
#[derive(Debug, Default)]
pub struct Door {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    strangers: Strangers,
    /// When each source's penalty ends.
    penalties: HashMap<Source, OffsetDateTime>,
    dropped: Drops,
    /// When drops were told to the log last, and how many there have been since.
    told: Option<OffsetDateTime>,
    untold: u64,
}

/// Connections that were closed before they had logged in because there were too many, by why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Drops {
    /// [`Dropped::Startups`].
    pub startups: u64,
    /// [`Dropped::PerSource`].
    pub per_source: u64,
    /// [`Dropped::Penalty`].
    pub penalty: u64,
    /// They had not come as far as asking to log in, and gave way to newcomers.
    pub displaced: u64,
}

impl Drops {
    fn count(&mut self, why: Dropped) -> Dropped {
        let counter = match why {
            Dropped::Startups => &mut self.startups,
            Dropped::PerSource => &mut self.per_source,
            Dropped::Penalty => &mut self.penalty,
        };
        *counter = counter.saturating_add(1);
        why
    }
}

/// How the door is at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Unauthenticated connections.
    pub strangers: u32,
    /// Those of the source with the most.
    pub most_of_one_source: u32,
    /// Sources that have a pause.
    pub penalised: u64,
    /// Since the start.
    pub dropped: Drops,
}

/// One place among the unauthenticated; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    door: Arc<Door>,
    number: u64,
    stranger: Arc<Stranger>,
}

impl Place {
    /// Whose place it is: to say how far the connection came, and to hear that it has given way.
    pub fn stranger(&self) -> Arc<Stranger> {
        self.stranger.clone()
    }
}

impl Door {
    /// Lets a connection in as unauthenticated, or says why not. `dice` is uniform in 0…99. Where it
    /// would be dropped because there are too many, one that says nothing gives way instead.
    pub fn enter(
        self: &Arc<Self>,
        address: IpAddr,
        limits: &DoorLimits,
        now: OffsetDateTime,
        dice: u32,
    ) -> Result<Place, Dropped> {
        let source = Source::of(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.penalised(source, now) {
            return Err(counts.dropped.count(Dropped::Penalty));
        }
        if counts.strangers.of(source) >= limits.startups_per_source
            && !counts.make_room(source, Among::ItsOwn, now)
        {
            return Err(counts.dropped.count(Dropped::PerSource));
        }
        if dice < drop_percentage(counts.strangers.count(), limits)
            && !counts.make_room(source, Among::All, now)
        {
            return Err(counts.dropped.count(Dropped::Startups));
        }
        let (number, stranger) = counts.strangers.admit(source, now);
        Ok(Place {
            door: self.clone(),
            number,
            stranger,
        })
    }

    /// How many drops to tell the log of, if it is time to: the first one at once, and those that
    /// follow together. To be asked after each drop.
    pub fn tell_drops(&self, now: OffsetDateTime) -> Option<u64> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.untold += 1;
        if counts.told.is_some_and(|told| now - told < TELL_DROPS) {
            return None;
        }
        counts.told = Some(now);
        Some(std::mem::take(&mut counts.untold))
    }

    /// Remembers an offence of a connection that ended unauthenticated.
    pub fn penalise(
        &self,
        address: IpAddr,
        offence: Offence,
        limits: &DoorLimits,
        now: OffsetDateTime,
    ) {
        let source = Source::of(address);
        // Behind a tunnel or a local relay everybody comes from loopback: one person's wrong key
        // must not lock out all the others.
        let exempt = source.0.is_loopback()
            || limits
                .penalty_exempt
                .iter()
                .any(|ip| Source::of(*ip) == source);
        if limits.penalties == Penalties::Off || exempt {
            return;
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.penalise(source, offence.penalty(), now);
    }

    /// How it is now.
    pub fn look(&self, now: OffsetDateTime) -> Look {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let penalised = counts.penalties.keys();
        let penalised = penalised.filter(|source| counts.penalised(**source, now));
        Look {
            strangers: counts.strangers.count(),
            most_of_one_source: counts.strangers.most_of_one_source(),
            penalised: penalised.count() as u64,
            dropped: counts.dropped,
        }
    }

    /// Unauthenticated connections at this moment.
    #[cfg(test)]
    fn strangers(&self) -> u32 {
        self.counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .strangers
            .count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self
            .door
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.strangers.remove(self.number);
    }
}

impl Counts {
    fn make_room(&mut self, newcomer: Source, among: Among, now: OffsetDateTime) -> bool {
        let made = self.strangers.make_room(newcomer, among, now);
        self.dropped.displaced = self.dropped.displaced.saturating_add(u64::from(made));
        made
    }

    fn penalised(&self, source: Source, now: OffsetDateTime) -> bool {
        self.penalties
            .get(&source)
            .is_some_and(|ends| *ends - now >= PENALTY_ENFORCED_FROM)
    }

    fn penalise(&mut self, source: Source, penalty: Duration, now: OffsetDateTime) {
        self.penalties.retain(|_, ends| *ends > now);
        if self.penalties.len() >= PENALTY_TABLE && !self.penalties.contains_key(&source) {
            let first = self
                .penalties
                .iter()
                .min_by_key(|(_, ends)| **ends)
                .map(|(source, _)| *source);
            if let Some(first) = first {
                self.penalties.remove(&first);
            }
        }
        let ends = self.penalties.entry(source).or_insert(now);
        *ends = (*ends + penalty).min(now + PENALTY_MAX);
    }
}

/// `MaxStartups`: 0 below `begin`, `rate` at `begin`, rising linearly to 100 at `full`.
fn drop_percentage(strangers: u32, limits: &DoorLimits) -> u32 {
    let (begin, rate, full) = (
        limits.startups_begin,
        limits.startups_rate,
        limits.startups_full,
    );
    if strangers >= full {
        return 100;
    }
    if strangers < begin || rate == 0 {
        return 0;
    }
    rate + (100 - rate) * (strangers - begin) / (full - begin).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: OffsetDateTime = time::macros::datetime!(2026-11-20 12:00 UTC);

    fn limits() -> DoorLimits {
        DoorLimits {
            startups_begin: 4,
            startups_full: 8,
            startups_per_source: 3,
            ..DoorLimits::default()
        }
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn places_are_given_back() {
        let door = Arc::new(Door::default());
        for _ in 0..100 {
            let _place = door.enter(ip(1), &limits(), NOW, 0).unwrap();
            assert_eq!(door.strangers(), 1);
        }
        assert_eq!(door.strangers(), 0);
    }

    #[test]
    fn one_source_cannot_take_all_places() {
        let door = Arc::new(Door::default());
        let _held: Vec<_> = (0..3)
            .map(|_| door.enter(ip(1), &limits(), NOW, 99).unwrap())
            .collect();
        assert_eq!(
            door.enter(ip(1), &limits(), NOW, 99).unwrap_err(),
            Dropped::PerSource
        );
        assert!(door.enter(ip(2), &limits(), NOW, 99).is_ok());
    }

    /// Held places whose connections have come as far as asking to log in.
    fn asking(door: &Arc<Door>, address: IpAddr) -> Place {
        let place = door.enter(address, &limits(), NOW, 99).unwrap();
        place.stranger().asks();
        place
    }

    fn is_displaced(place: &Place) -> bool {
        let stranger = place.stranger();
        let mut displaced = std::pin::pin!(stranger.displaced());
        let waker = std::task::Waker::noop();
        displaced
            .as_mut()
            .poll(&mut std::task::Context::from_waker(waker))
            .is_ready()
    }

    #[test]
    fn the_oldest_silent_stranger_gives_way_to_a_newcomer_and_the_number_stays() {
        let door = Arc::new(Door::default());
        let held: Vec<_> = (0..8)
            .map(|n| door.enter(ip(n), &limits(), NOW, 99).unwrap())
            .collect();
        held[0].stranger().speaks();
        let newcomer = door.enter(ip(20), &limits(), NOW, 0).unwrap();
        assert_eq!(door.strangers(), 8);
        let gone: Vec<_> = held.iter().map(is_displaced).collect();
        assert_eq!(
            gone,
            [false, true, false, false, false, false, false, false]
        );
        // A place that was given away is not given back as well.
        drop(held);
        assert_eq!(door.strangers(), 1);
        drop(newcomer);
        assert_eq!(door.strangers(), 0);
        assert_eq!(door.look(NOW).dropped.displaced, 1);
        assert_eq!(door.look(NOW).most_of_one_source, 0);
    }

    #[test]
    fn who_speaks_gives_way_after_a_while_and_who_asks_to_log_in_never() {
        let door = Arc::new(Door::default());
        let speaking = door.enter(ip(0), &limits(), NOW, 99).unwrap();
        speaking.stranger().speaks();
        let _asking: Vec<_> = (1..8).map(|n| asking(&door, ip(n))).collect();
        let enter = |after| door.enter(ip(20), &limits(), NOW + Duration::from_millis(after), 99);
        assert_eq!(enter(1999).unwrap_err(), Dropped::Startups);
        let newcomer = enter(2000).unwrap();
        assert!(is_displaced(&speaking));
        newcomer.stranger().asks();
        assert_eq!(enter(1_000_000).unwrap_err(), Dropped::Startups);
    }

    #[test]
    fn a_burst_of_one_source_is_dropped_and_its_silent_ones_give_way_a_second_later() {
        let door = Arc::new(Door::default());
        let other = door.enter(ip(2), &limits(), NOW, 99).unwrap();
        let held: Vec<_> = (0..3)
            .map(|_| door.enter(ip(1), &limits(), NOW, 99).unwrap())
            .collect();
        let enter = |after| door.enter(ip(1), &limits(), NOW + Duration::from_millis(after), 99);
        assert_eq!(enter(999).unwrap_err(), Dropped::PerSource);
        assert!(enter(1000).is_ok());
        assert!(is_displaced(&held[0]) && !is_displaced(&held[1]));
        assert!(!is_displaced(&other), "another source's is not touched");
    }

    #[test]
    fn the_log_is_told_of_drops_at_once_and_then_together() {
        let door = Door::default();
        assert_eq!(door.tell_drops(NOW), Some(1));
        for _ in 0..5000 {
            assert_eq!(door.tell_drops(NOW + Duration::from_secs(9)), None);
        }
        assert_eq!(door.tell_drops(NOW + Duration::from_secs(10)), Some(5001));
        assert_eq!(door.tell_drops(NOW + Duration::from_secs(10)), None);
    }

    #[test]
    fn strangers_are_dropped_at_random_and_then_surely() {
        let door = Arc::new(Door::default());
        let mut held = Vec::new();
        for n in 0..4 {
            held.push(asking(&door, ip(n)));
        }
        assert_eq!(
            door.enter(ip(9), &limits(), NOW, 29).unwrap_err(),
            Dropped::Startups
        );
        for n in 10..14 {
            held.push(asking(&door, ip(n)));
        }
        assert_eq!(
            door.enter(ip(20), &limits(), NOW, 99).unwrap_err(),
            Dropped::Startups
        );
    }

    #[test]
    fn an_hour_has_its_limit_for_each_user_and_the_next_hour_its_own() {
        let (hourly, user) = (Hourly::default(), |name| UserName::parse(name).unwrap());
        for _ in 0..3 {
            assert!(hourly.count(&user("alice"), 3, NOW));
        }
        assert!(!hourly.count(&user("alice"), 3, NOW + Duration::from_secs(3599)));
        assert!(hourly.count(&user("bob"), 3, NOW));
        let later = NOW + Duration::from_secs(3600);
        assert!(hourly.count(&user("alice"), 3, later));
        assert_eq!(hourly.0.lock().unwrap().len(), 1, "nothing is kept of bob");
    }

    #[test]
    fn failures_add_up_to_a_pause_that_ends() {
        let door = Arc::new(Door::default());
        for _ in 0..4 {
            assert!(door.enter(ip(1), &limits(), NOW, 99).is_ok() || door.strangers() == 0);
            door.penalise(ip(1), Offence::AuthenticationFailed, &limits(), NOW);
        }
        assert_eq!(
            door.enter(ip(1), &limits(), NOW, 99).unwrap_err(),
            Dropped::Penalty
        );
        assert!(
            door.enter(ip(2), &limits(), NOW, 99).is_ok(),
            "another source is not touched"
        );
        assert!(
            door.enter(ip(1), &limits(), NOW + Duration::from_secs(6), 99)
                .is_ok()
        );
    }

    #[test]
    fn loopback_and_named_sources_earn_no_penalties() {
        let door = Arc::new(Door::default());
        let exempt = DoorLimits {
            penalty_exempt: vec![ip(7)],
            ..limits()
        };
        for address in [IpAddr::from([127, 0, 0, 1]), ip(7)] {
            for _ in 0..100 {
                door.penalise(address, Offence::GraceExceeded, &exempt, NOW);
            }
            assert!(door.enter(address, &exempt, NOW, 99).is_ok());
        }
    }

    #[test]
    fn a_scan_from_many_sources_does_not_grow_the_table() {
        let door = Door::default();
        for n in 0..10_000_u32 {
            let address = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n));
            door.penalise(address, Offence::GraceExceeded, &limits(), NOW);
        }
        assert!(door.counts.lock().unwrap().penalties.len() <= PENALTY_TABLE);
    }

    #[test]
    fn an_ipv6_host_is_its_network_and_a_mapped_address_is_ipv4() {
        let a: IpAddr = "2001:db8:1:2::1".parse().unwrap();
        let b: IpAddr = "2001:db8:1:2:ffff::9".parse().unwrap();
        let c: IpAddr = "2001:db8:1:3::1".parse().unwrap();
        assert_eq!(Source::of(a), Source::of(b));
        assert_ne!(Source::of(a), Source::of(c));
        assert_eq!(
            Source::of("::ffff:192.0.2.1".parse().unwrap()),
            Source::of(ip(1))
        );
    }
}
