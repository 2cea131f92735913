//! Everybody at once over one request, on real threads and real SQLite: whatever the order, there is
//! one end, one grant, and whoever was too late is told so.
//!
//! What happened is read from the log, which is written in the transaction of what it tells: replayed
//! entry by entry it has to give the state that memory and database have, and nothing may be issued
//! where it says that nothing is open.

use anteroom_core::id::LockId;
use anteroom_core::lock::{Lock, LockTarget};
use serde_json::{Map, Value};

use super::*;
use crate::audit::Record;

const ROUNDS: u64 = 24;

/// Somebody who tries something in a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Racer {
    Approves(usize),
    Denies(usize),
    Cancels,
    AdministratorDenies,
    Revokes,
    Drops,
    Assumes,
    Ends,
    Issues,
    /// An access monitoring rule that denies what is pending is made.
    Rules,
    Locks(Locked),
    Unlocks(Locked),
    RemovesUser,
    TimePasses(Moment),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Locked {
    User,
    Role,
    Request,
    Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    PendingLapses,
    AccessEnds,
}

/// Whether it was done, and what was said if not.
type Told = Result<(), String>;

struct Race {
    world: World,
    request: RequestId,
    rounds: u64,
}

impl Race {
    async fn new(rounds: u64) -> Self {
        let world = world().await;
        let judges = (0..8).map(|number| Object::User(user(&format!("judge{number}"), &["judge"])));
        let judges = judges.collect();
        world
            .state
            .put(&admin(), judges, Existing::Refuse)
            .await
            .unwrap();
        let request = world.file("root").await;
        Self {
            world,
            request,
            rounds,
        }
    }

    fn lock(&self, locked: Locked) -> Lock {
        let (number, target) = match locked {
            Locked::User => (1, LockTarget::User(name("alice"))),
            Locked::Role => (2, LockTarget::Role(name("entry"))),
            Locked::Request => (3, LockTarget::Request(self.request)),
            Locked::Node => (4, LockTarget::Node(self.world.node)),
        };
        Lock {
            id: LockId::from_uuid(Uuid::from_u128(number)),
            target,
            message: "stop".to_owned(),
            created: OffsetDateTime::UNIX_EPOCH,
            created_by: String::new(),
            expires: None,
        }
    }

    /// All of them at once, each starting a little later than the one before.
    async fn run(&self, racers: &[Racer]) -> Vec<(Racer, Told)> {
        let mut racing = tokio::task::JoinSet::new();
        for (place, racer) in racers.iter().copied().enumerate() {
            let (state, id) = (self.world.state.clone(), self.request);
            let clock = Arc::clone(&self.world.clock);
            let lock = if let Racer::Locks(locked) | Racer::Unlocks(locked) = racer {
                Some(self.lock(locked))
            } else {
                None
            };
            let (access, subject) = (self.world.access("root"), self.world.subject());
            // Another order in every round, and none of them by sleeping.
            let yields = (self.rounds * 7 + place as u64 * 5) % 13;
            racing.spawn(async move {
                for _ in 0..yields {
                    tokio::task::yield_now().await;
                }
                let told = attempt(racer, &state, id, &clock, lock, (access, subject)).await;
                (racer, told)
            });
        }
        racing.join_all().await
    }

    async fn log(&self) -> Vec<Record> {
        let all = AuditFilter::default();
        let reader = self.world.state.reader();
        reader.audit(&all, 0, 10_000).await.unwrap()
    }

    /// Memory, database and log agree, and each of those who lost was told why.
    async fn check(&self, told: &[(Racer, Told)]) -> RequestState {
        self.world.state.expire_due().await.unwrap();
        let stored = self
            .world
            .state
            .reader()
            .request(self.request)
            .await
            .unwrap();
        let stored = stored.unwrap();
        if let Some(remembered) = self.world.state.view().request(&self.request) {
            assert_eq!(**remembered, stored);
        }
        let mut replay = Replay::default();
        for entry in self.log().await {
            replay.entry(&entry.event, &entry.fields(), self.request, told);
        }
        assert_eq!(replay.state, Some(stored.state), "{told:?}");
        assert_eq!(
            stored.granted.is_some(),
            replay.approvals == 1,
            "one grant and no other: {told:?}"
        );
        assert!(replay.approvals <= 1 && replay.ends <= 1, "{told:?}");
        let issued = told
            .iter()
            .filter(|(racer, told)| *racer == Racer::Issues && told.is_ok());
        assert_eq!(issued.count(), replay.issued, "{told:?}");
        for (racer, told) in told {
            if let Err(why) = told {
                assert!(says_why(why), "{racer:?} was told `{why}`");
            }
        }
        self.world.verify().await.unwrap();
        stored.state
    }
}

async fn attempt(
    racer: Racer,
    state: &State,
    id: RequestId,
    clock: &ManualClock,
    lock: Option<Lock>,
    (access, subject): (Access, Subject),
) -> Told {
    let alice = || By::user(me("alice"), None);
    let carol = || By::user(me("carol"), None);
    let key = me("alice").key().clone();
    let reason = String::new;
    let judge = |number: usize| me(&format!("judge{number}"));
    let apply = async |by: By, action: Action| {
        let applied = state.apply(&by, id, action).await;
        applied.map(drop).map_err(|error| error.to_string())
    };
    match racer {
        Racer::Approves(number) | Racer::Denies(number) => {
            let verdict = if matches!(racer, Racer::Approves(_)) {
                approval()
            } else {
                Verdict::Deny
            };
            let given = state.review(&judge(number), id, verdict, "", None).await;
            given.map(drop).map_err(|error| error.to_string())
        }
        Racer::Cancels => apply(alice(), Action::Cancel).await,
        Racer::AdministratorDenies => apply(carol(), Action::Deny { reason: reason() }).await,
        Racer::Revokes => apply(carol(), Action::Revoke { reason: reason() }).await,
        Racer::Drops => apply(alice(), Action::Drop { key }).await,
        Racer::Assumes => apply(alice(), Action::Assume { key }).await,
        Racer::Ends => apply(alice(), Action::End).await,
        Racer::Issues => {
            let issued = state.issue(&me("alice"), &access, subject).await;
            issued.map(drop).map_err(|error| {
                let IssueError::NotPermitted(decision) = error else {
                    return error.to_string();
                };
                match *decision {
                    Decision::Deny(denial) => denial.reasons[0].as_sentence(),
                    Decision::Ask(_) => "it can be asked for".to_owned(),
                    Decision::Permit(_) => "permitted".to_owned(),
                }
            })
        }
        Racer::Rules => {
            let text = "kind: access_monitoring_rule\nversion: v1\nmetadata: {name: night}\nspec: {subjects: [access_request], condition: 'true', desired_state: reviewed, automatic_review: {integration: builtin, decision: DENIED}}\n";
            let rule = Object::MonitoringRule(documents::parse_monitoring_rule(text).unwrap());
            let put = state.put(&admin(), vec![rule], Existing::Replace).await;
            put.map(drop).map_err(|error| error.to_string())
        }
        Racer::Locks(_) => {
            let lock = vec![Object::Lock(lock.unwrap())];
            let put = state.put(&admin(), lock, Existing::Replace).await;
            put.map(drop).map_err(|error| error.to_string())
        }
        Racer::Unlocks(_) => {
            let ids = vec![ObjectId::Lock(lock.unwrap().id)];
            let removed = state.remove(&admin(), ids).await;
            removed.map_err(|error| error.to_string())
        }
        Racer::RemovesUser => {
            let ids = vec![ObjectId::User(name("alice"))];
            let removed = state.remove(&admin(), ids).await;
            removed.map_err(|error| error.to_string())
        }
        Racer::TimePasses(moment) => {
            let request = state.request(id).await.unwrap().unwrap();
            clock.set(match moment {
                Moment::PendingLapses => request.request_expires,
                Moment::AccessEnds => request.access_expires,
            });
            state
                .expire_due()
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        }
    }
}

/// Whether a sentence names the state it came too late for, the lock, or what is missing.
fn says_why(sentence: &str) -> bool {
    let states = RequestState::ALL.map(RequestState::as_str);
    states.iter().any(|state| sentence.contains(state))
        || [
            "stop",
            "expired at",
            "in effect",
            "asked for",
            "there is no",
            "already reviewed",
            "unknown",
            "not a user",
            "no longer",
        ]
        .iter()
        .any(|word| sentence.contains(word))
}

/// What the log says, entry by entry.
#[derive(Debug, Default)]
struct Replay {
    state: Option<RequestState>,
    approvals: usize,
    ends: usize,
    issued: usize,
    locks: BTreeSet<String>,
}

impl Replay {
    fn entry(
        &mut self,
        event: &str,
        fields: &Map<String, Value>,
        request: RequestId,
        told: &[(Racer, Told)],
    ) {
        if fields["success"] != true {
            return;
        }
        let text = |field: &str| {
            fields
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        let ours = text("request_id") == request.to_string();
        match event {
            "access_request.create" if ours => self.state = Some(RequestState::Pending),
            "access_request.review"
            | "access_request.update"
            | "access_request.expire"
            | "access_request.delete"
                if ours =>
            {
                self.becomes(text("state"), text("reason"), told);
            }
            "lock.create" => {
                self.locks.insert(text("lock_id").to_owned());
            }
            "lock.delete" => {
                self.locks.remove(text("lock_id"));
            }
            "cert.create" if ours => {
                self.issued += 1;
                assert_eq!(self.state, Some(RequestState::Approved), "{told:?}");
                assert!(self.locks.is_empty(), "issued under a lock: {told:?}");
            }
            _ => {}
        }
    }

    fn becomes(&mut self, state: &str, reason: &str, told: &[(Racer, Told)]) {
        let next = RequestState::ALL
            .into_iter()
            .find(|known| known.as_str() == state)
            .unwrap_or_else(|| panic!("`{state}` ({reason}) is no state"));
        let before = self.state.expect("filed first");
        let possible = match (before, next) {
            (RequestState::Pending, _) => true,
            (RequestState::Approved, next) => matches!(
                next,
                RequestState::Approved | RequestState::Revoked | RequestState::Expired
            ),
            (_, _) => false,
        };
        assert!(possible, "{before} became {next}: {told:?}");
        if before == RequestState::Pending && next == RequestState::Approved {
            self.approvals += 1;
        }
        if before != next && next != RequestState::Approved {
            self.ends += 1;
        }
        self.state = Some(next);
    }
}

async fn rounds(racers: &[Racer]) -> BTreeSet<RequestState> {
    let mut reached = BTreeSet::new();
    for round in 0..ROUNDS {
        let race = Race::new(round).await;
        // Another one starts first in every round.
        let mut order = racers.to_vec();
        order.rotate_left(round as usize % racers.len());
        let told = race.run(&order).await;
        reached.insert(race.check(&told).await);
    }
    reached
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pending_request_has_one_end_whoever_is_first() {
    use Racer::{AdministratorDenies, Approves, Cancels, Denies, Rules, TimePasses};
    let reached = rounds(&[
        Approves(0),
        Cancels,
        Denies(1),
        TimePasses(Moment::PendingLapses),
        Approves(2),
        AdministratorDenies,
        Denies(3),
        Rules,
        Cancels,
        Approves(4),
        Denies(5),
    ])
    .await;
    // Which of them is usually several; a machine with other work to do may always let the same one win.
    println!("reached {reached:?}");
    assert!(!reached.contains(&RequestState::Pending), "{reached:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_issued_once_a_race_has_closed_the_request() {
    use Racer::{Approves, Assumes, Drops, Ends, Issues, Revokes, TimePasses};
    let reached = rounds(&[
        Approves(0),
        Issues,
        Issues,
        Drops,
        Issues,
        Assumes,
        Revokes,
        Issues,
        Ends,
        Issues,
        TimePasses(Moment::AccessEnds),
        Issues,
    ])
    .await;
    assert!(!reached.contains(&RequestState::Denied), "{reached:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_lock_in_a_race_closes_at_once_and_decides_nothing_by_itself() {
    use Racer::{Approves, Denies, Issues, Locks, Unlocks};
    for locked in [Locked::User, Locked::Role, Locked::Request, Locked::Node] {
        let reached = rounds(&[
            Approves(0),
            Issues,
            Locks(locked),
            Issues,
            Denies(1),
            Unlocks(locked),
            Issues,
            Approves(2),
            Locks(locked),
            Issues,
        ])
        .await;
        let known = [
            RequestState::Pending,
            RequestState::Approved,
            RequestState::Denied,
        ];
        assert!(
            reached.iter().all(|state| known.contains(state)),
            "{reached:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_who_is_removed_in_a_race_leaves_nothing_open() {
    use Racer::{Approves, Cancels, Denies, Issues, RemovesUser};
    let reached = rounds(&[
        Approves(0),
        Issues,
        RemovesUser,
        Approves(1),
        Issues,
        Cancels,
        Denies(2),
        Issues,
    ])
    .await;
    for state in [RequestState::Pending, RequestState::Approved] {
        assert!(!reached.contains(&state), "{reached:?}");
    }
}

#[tokio::test]
async fn any_race_over_one_request_has_one_outcome() {
    for round in 0..8_u64 {
        let world = world().await;
        let reviewers: Vec<String> = (0..12).map(|number| format!("judge{number}")).collect();
        let people = reviewers
            .iter()
            .map(|judge| Object::User(user(judge, &["judge"])))
            .collect();
        world
            .state
            .put(&admin(), people, Existing::Refuse)
            .await
            .unwrap();
        let id = world.file("root").await;
        let expires = world.state.view().request(&id).unwrap().request_expires;
        let mut racing = tokio::task::JoinSet::new();
        for (number, judge) in reviewers.into_iter().enumerate() {
            let state = world.state.clone();
            let verdict = if number % 2 == 0 {
                approval()
            } else {
                Verdict::Deny
            };
            racing.spawn(async move {
                state
                    .review(&me(&judge), id, verdict, "", None)
                    .await
                    .is_ok()
            });
        }
        for _ in 0..4 {
            let state = world.state.clone();
            let alice = By::user(me("alice"), None);
            racing.spawn(async move { state.apply(&alice, id, Action::Cancel).await.is_ok() });
        }
        let clock = Arc::clone(&world.clock);
        racing.spawn(async move {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            clock.set(expires);
            false
        });
        let won = racing
            .join_all()
            .await
            .into_iter()
            .filter(|won| *won)
            .count();
        world.state.expire_due().await.unwrap();
        let request = Arc::clone(world.state.view().request(&id).unwrap());
        let stored = world.state.reader().request(id).await.unwrap().unwrap();
        assert_eq!(*request, stored);
        assert_ne!(request.state, RequestState::Pending);
        let settled: Vec<(String, bool)> = world
            .events()
            .await
            .into_iter()
            .filter(|(event, done)| {
                *done
                    && ["access_request.review", "access_request.update"].contains(&event.as_str())
            })
            .collect();
        assert_eq!(settled.len(), won, "round {round}: {settled:?}");
        assert!(won <= 1, "round {round}: {won} winners");
        world.verify().await.unwrap();
    }
}
