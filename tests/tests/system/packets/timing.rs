//! How long a refusal takes.

use std::time::{Duration, Instant};

use anteroom_tests::World;
use anteroom_tests::raw::wire::msg;
use anteroom_tests::raw::{Raw, RawKey};

/// Refusals of each kind that are compared.
const EACH: usize = 25;

/// No refusal comes earlier (`REJECTION_TIME` of `anteroom-ssh`, 50 ms), less what clocks differ by.
const FLOOR: Duration = Duration::from_millis(45);

/// Medians further apart than this tell who exists, to a peer with as many tries.
const APART: Duration = Duration::from_millis(8);

/// How long a refusal took of one request to log in, on a connection of its own.
fn refused(world: &World, user: &str, key: &RawKey, signed: bool) -> Duration {
    let mut raw = Raw::ready(world.port).unwrap();
    let request = match signed {
        true => key.login(&raw.session.clone(), user),
        false => key.offer(user),
    };
    let began = Instant::now();
    raw.send(request).unwrap();
    let answer = raw.hear().unwrap();
    assert_eq!(answer[0], msg::USERAUTH_FAILURE, "{user}: {answer:?}");
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Who is refused, with which key; whether the request is signed.
type Kind<'a> = (&'static str, &'static str, &'a RawKey, bool);

/// The medians of all, each tried in turn, so that what else the machine does is shared alike.
fn medians(world: &World, kinds: &[Kind<'_>]) -> Vec<(&'static str, Duration)> {
    let mut times = vec![Vec::new(); kinds.len()];
    for _ in 0..EACH {
        for (times, (_, user, key, signed)) in times.iter_mut().zip(kinds) {
            times.push(refused(world, user, key, *signed));
        }
    }
    let names = kinds.iter().map(|(name, ..)| *name);
    names.zip(times.into_iter().map(median)).collect()
}

#[test]
fn known_and_unknown_users_are_refused_in_the_same_time() {
    let world = World::usual();
    // Who comes is who holds the key: a known one is let in whatever the name, and is no case here.
    let strange = RawKey::random();
    let kinds: [Kind<'_>; 4] = [
        ("a user, offer", "carol", &strange, false),
        ("nobody, offer", "nobody", &strange, false),
        ("a user, signature", "carol", &strange, true),
        ("nobody, signature", "nobody", &strange, true),
    ];
    // What a busy machine does to one round it does not do to three.
    for attempt in 0..3 {
        let found = medians(&world, &kinds);
        let (shortest, longest) = found.iter().fold(
            (Duration::MAX, Duration::ZERO),
            |(shortest, longest), (_, time)| (shortest.min(*time), longest.max(*time)),
        );
        println!("{found:?}");
        assert!(shortest >= FLOOR, "{found:?}");
        if longest - shortest < APART {
            return;
        }
        assert!(attempt < 2, "{found:?}");
    }
}
