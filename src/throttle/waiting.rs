//! Where attempts wait that are delayed, or whose bodies are slow: without a place in any queue, and not more than so
//! many.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// Attempts that wait at the same time; all usernames together.
pub const WAITING_MAX: usize = 1024;

/// Those who wait, by the order of their coming.
///
/// When all places are taken, the one who has waited longest is let go early: to refuse would let a crowd lock
/// somebody out, and to let everybody wait would let it take any amount of memory.
#[derive(Debug, Default)]
pub struct WaitingRoom {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_number: BTreeMap<u64, oneshot::Sender<()>>,
}

impl WaitingRoom {
    /// Waits for so long, or until somebody else needs the place.
    ///
    /// # Cancel safety
    /// When dropped, the place is free.
    pub async fn wait(&self, delay: Duration) {
        if delay.is_zero() {
            return;
        }
        let (place, called) = self.enter();
        // Whether the time is over or the place is needed: it goes on.
        drop(tokio::time::timeout(delay, called).await);
        drop(place);
    }

    fn enter(&self) -> (Place<'_>, oneshot::Receiver<()>) {
        let (call, called) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let longest = (waiting.by_number.len() >= WAITING_MAX).then(|| waiting.by_number.pop_first());
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        waiting.by_number.insert(number, call);
        drop(waiting);
        // Dropping its call wakes it, and not under the lock.
        drop(longest);
        (Place { room: self, number }, called)
    }
}

/// A place in the room; free again when dropped.
struct Place<'a> {
    room: &'a WaitingRoom,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let left = self.room.waiting.lock().by_number.remove(&self.number);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn length(room: &WaitingRoom) -> usize {
        room.waiting.lock().by_number.len()
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_back_by_who_waited_and_by_who_left() {
        let room = WaitingRoom::default();
        room.wait(Duration::ZERO).await;
        room.wait(Duration::from_secs(30)).await;
        assert_eq!(length(&room), 0);
        assert!(
            room.wait(Duration::from_secs(30)).now_or_never().is_none(),
            "it was polled once and dropped"
        );
        assert_eq!(length(&room), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn past_the_bound_the_longest_waiting_goes_on() {
        let room = WaitingRoom::default();
        let delay = Duration::from_secs(30);
        let mut crowd: Vec<_> = (0..WAITING_MAX + 3).map(|_| Box::pin(room.wait(delay))).collect();
        let mut done = Vec::new();
        for _ in 0..2 {
            done = crowd.iter_mut().map(|one| one.as_mut().now_or_never().is_some()).collect();
            assert!(length(&room) <= WAITING_MAX);
            // Who is done must not be asked again.
            let mut left = done.iter();
            crowd.retain(|_| !left.next().unwrap());
        }
        assert_eq!((done[..3].to_vec(), crowd.len()), (vec![true; 3], WAITING_MAX));
        assert!(done[3..].iter().all(|done| !done));
    }
}
