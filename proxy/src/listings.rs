//! Turns at listings: how many of a user, and in all, may be under way at a time.
//!
//! A listing holds what it lists until its client has taken it, which is the client's to say. So a few of one
//! user's go on side by side, and a bounded number in all; whoever comes later waits, in order.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_core::id::UserName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Listings of one user. A person reads one, and has another open in a second window; a script that starts
/// dozens gets them one after the other, and everybody else theirs meanwhile.
const OF_A_USER: usize = 4;

/// Listings in all. Each may hold some megabytes, and a client that stops reading holds its place; at this many
/// the proxy's memory is safe, and it takes sixteen users to stop the others' listings.
const IN_ALL: usize = 64;

/// The turns that there are. Clones share them.
#[derive(Debug, Clone)]
pub struct Listings {
    in_all: Arc<Semaphore>,
    of: Arc<Mutex<HashMap<UserName, Arc<Semaphore>>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    listings: Listings,
    user: UserName,
    places: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            in_all: Arc::new(Semaphore::new(IN_ALL)),
            of: Arc::default(),
        }
    }
}

impl Listings {
    /// Waits for a turn. Cancel-safe; `None` cannot happen while the proxy lives.
    pub async fn turn(&self, user: &UserName) -> Option<Turn> {
        // Made first: if the wait is given up, nothing of the user is left behind either.
        let mut turn = Turn {
            listings: self.clone(),
            user: user.clone(),
            places: None,
        };
        let mine = self.places_of(user).acquire_owned().await.ok()?;
        // One's own first, so that nobody queues here with more than he may have.
        let place = Arc::clone(&self.in_all).acquire_owned().await.ok()?;
        turn.places = Some((mine, place));
        Some(turn)
    }

    fn places_of(&self, user: &UserName) -> Arc<Semaphore> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let places = of
            .entry(user.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(OF_A_USER)));
        Arc::clone(places)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.places = None;
        let of = &self.listings.of;
        let mut of = of.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is kept of users who list nothing and wait for nothing.
        let unused = |places: &Arc<Semaphore>| Arc::strong_count(places) == 1;
        if of.get(&self.user).is_some_and(unused) {
            of.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn soon<T>(waiting: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(Duration::from_millis(50), waiting)
            .await
            .ok()
    }

    #[tokio::test]
    async fn one_user_who_lists_without_end_keeps_nobody_else_waiting() {
        let listings = Listings::default();
        let user = |name| UserName::parse(name).unwrap();
        let mut held = Vec::new();
        for _ in 0..OF_A_USER {
            held.push(soon(listings.turn(&user("alice"))).await.unwrap());
        }
        assert!(soon(listings.turn(&user("alice"))).await.is_none());
        assert!(soon(listings.turn(&user("bob"))).await.is_some());
        held.pop();
        assert!(soon(listings.turn(&user("alice"))).await.is_some());
        drop(held);
        assert!(listings.of.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_comes_when_all_are_taken_waits_and_gets_a_turn() {
        let listings = Listings::default();
        let mut held = Vec::new();
        for number in 0..IN_ALL {
            let user = UserName::parse(&format!("u{number}")).unwrap();
            held.push(soon(listings.turn(&user)).await.unwrap());
        }
        let late = UserName::parse("late").unwrap();
        let waiting = tokio::spawn({
            let (listings, late) = (listings.clone(), late.clone());
            async move { listings.turn(&late).await.is_some() }
        });
        assert!(soon(listings.turn(&late)).await.is_none());
        held.pop();
        assert!(waiting.await.unwrap());
        drop(held);
        assert!(listings.of.lock().unwrap().is_empty());
    }
}
