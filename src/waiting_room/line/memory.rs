//! All lines in memory behind a lock, and the revision up to which the bucket has been seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::super::place::{Entry, Place, PlaceStatus};
use super::changes::Changes;
use super::epoch::Epoch;
use super::lines::Lines;
use super::lottery::Lottery;
use super::poll_interval::seconds;
use super::queue::View;
use crate::ids::{ConcertId, UserId};
use crate::store::queue_journal::JournalEnd;

pub use super::lines::{BucketChange, LeaseSeen};

/// The lock is never held across an await.
#[derive(Debug)]
pub struct Memory {
    lines: RwLock<Lines>,
    seen: watch::Sender<u64>,
    /// The tasks that wait for a revision, so that each is woken once, however many users join at the same time.
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
    complete: AtomicBool,
    settled: AtomicBool,
    started: Instant,
}

impl Memory {
    /// `silence` is the shortest silence that counts.
    pub fn new(silence: Duration) -> Self {
        Self {
            lines: RwLock::new(Lines::new(silence)),
            seen: watch::Sender::new(0),
            waiting: Mutex::default(),
            complete: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Reads the lines. Hold the lock briefly, because the watch waits for it.
    pub fn lines(&self) -> RwLockReadGuard<'_, Lines> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lines_mut(&self) -> RwLockWriteGuard<'_, Lines> {
        self.lines.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies messages of the watch, in their order.
    pub fn apply(&self, news: &[BucketChange]) {
        let Some(last) = news.last().map(BucketChange::revision) else {
            return;
        };
        let is_complete = self.is_complete();
        {
            let mut lines = self.lines_mut();
            // Messages of a replay or a restoration are not counted.
            let since_start = (is_complete && lines.epoch().is_restored()).then(|| self.since_start());
            for one in news {
                lines.apply(*one, since_start);
            }
        }
        self.seen.send_if_modified(|seen| {
            let newer = last > *seen;
            *seen = last.max(*seen);
            newer
        });
        self.wake(last);
    }

    /// See [`Lines::begin_replay`].
    pub fn begin_replay(&self, incarnation: u64) {
        self.lines_mut().begin_replay(incarnation);
    }

    /// See [`Lines::end_replay`].
    pub fn end_replay(&self) {
        self.lines_mut().end_replay();
        self.complete.store(true, Ordering::Release);
        self.seen.send_modify(|_| ());
    }

    /// Whether a replay has been complete since the start.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Whether this instance knows every line, so that it can get requests.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// The last revision that was seen.
    pub fn seen(&self) -> u64 {
        *self.seen.borrow()
    }

    /// The revision up to which nothing is missing, see [`Lines::known`].
    pub fn known(&self) -> u64 {
        self.lines().known()
    }

    /// Notifies of every change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    /// Waits until `revision` has been seen. Returns false after `timeout`.
    pub async fn wait_for(&self, revision: u64, patience: Duration) -> bool {
        if self.seen() >= revision {
            return true;
        }
        let (reached, wait) = oneshot::channel();
        self.waiting().entry(revision).or_default().push(reached);
        // It may have been seen while the waiter was added.
        if self.seen() >= revision {
            return true;
        }
        matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(())))
    }

    fn wake(&self, seen: u64) {
        let reached = {
            let mut waiting = self.waiting();
            let later = waiting.split_off(&seen.saturating_add(1));
            std::mem::replace(&mut *waiting, later)
        };
        for one in reached.into_values().flatten() {
            // The waiter may have given up.
            let _ = one.send(());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<oneshot::Sender<()>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn epoch(&self) -> Epoch {
        self.lines().epoch()
    }

    /// Records heartbeats of these users, which are trusted for so many seconds. Returns whether that is longer than
    /// before for any of them, so that the other instances need to know.
    pub fn record_heartbeats(&self, concert: ConcertId, users: &[UserId], patience: u32) -> bool {
        let until = self.now().saturating_add(patience);
        let lines = self.lines();
        let Some(queue) = lines.queue(concert) else {
            return false;
        };
        let mut is_news = false;
        for user in users {
            is_news |= queue.trust(*user, until);
        }
        is_news
    }

    /// The changed places that are marked silent although their users sent a heartbeat here not long ago.
    pub fn wrongly_silent(&self, news: &[BucketChange]) -> Vec<(ConcertId, UserId, Entry)> {
        let silent = news.iter().filter_map(|one| match one {
            BucketChange::Put { concert, user, entry }
                if matches!(entry.status, PlaceStatus::Silent { .. }) =>
            {
                Some((*concert, *user, *entry))
            }
            _ => None,
        });
        let silent: Vec<_> = silent.collect();
        if silent.is_empty() {
            return silent;
        }
        let lines = self.lines();
        let is_wrong = |concert, user| {
            let queue = lines.queue(concert);
            // The leader may know slightly less than other instances, but not this much less.
            queue.is_some_and(|queue| queue.trusted_for(user, self.now()) > seconds(lines.silence() / 2))
        };
        silent.into_iter().filter(|(concert, user, _)| is_wrong(*concert, *user)).collect()
    }

    pub fn view(&self, concert: ConcertId, user: UserId) -> View {
        self.lines().queue(concert).map(|queue| queue.view(user)).unwrap_or_default()
    }

    /// Ends a place on this instance before the bucket shows it, see [`super::queue::Queue::end_locally`].
    pub fn end_locally(&self, concert: ConcertId, user: UserId, place: Place, at: DateTime<Utc>) {
        self.lines_mut().queue_mut(concert).end_locally(user, place, at);
        self.seen.send_modify(|_| ());
    }

    /// Advances the release rates of all lines. `is_open` says whether users can be admitted.
    pub fn pass_time(&self, is_open: impl Fn(ConcertId) -> bool) {
        let since_start = self.since_start();
        for (concert, queue) in &mut self.lines_mut().queues {
            queue.pass_time(since_start, is_open(*concert));
        }
    }

    /// Orders a line by lottery, see [`super::queue::Queue::draw`].
    pub fn draw(&self, concert: ConcertId, lottery: Lottery) {
        if let Some(queue) = self.lines_mut().queues.get_mut(&concert) {
            queue.draw(lottery);
        }
        self.seen.send_modify(|_| ());
    }

    /// Applies ends of places of earlier buckets, read from the journal.
    pub fn apply_journal_ends(&self, ends: &[JournalEnd]) {
        let mut lines = self.lines_mut();
        for end in ends {
            let queue = lines.queue_mut(end.concert_id);
            queue.end_locally(end.user_id, end.place.cast_unsigned(), end.ended_at);
        }
        drop(lines);
        self.seen.send_modify(|_| ());
    }

    /// Starts to log changed keys.
    pub fn collect_changes(&self) {
        self.lines_mut().change_log.begin();
    }

    /// Stops logging changed keys.
    pub fn collect_no_changes(&self) {
        self.lines_mut().change_log.end();
    }

    pub fn take_changes(&self) -> Changes {
        self.lines_mut().take_changes()
    }

    /// How many changed keys have not been taken.
    pub fn changes(&self) -> usize {
        self.lines().change_log.len()
    }

    /// Whether no user waits or is admitted anywhere, as far as this instance knows.
    pub fn is_quiet(&self) -> bool {
        self.lines().queues().all(|(_, queue)| queue.waiting() == 0 && queue.active() == 0)
    }

    /// Every concert with a queue, to go through them without the lock.
    pub fn concerts(&self) -> Vec<ConcertId> {
        self.lines().queues().map(|(concert, _)| concert).collect()
    }

    /// [`Self::since_start`] in whole seconds.
    pub fn now(&self) -> u32 {
        seconds(self.since_start())
    }

    pub fn since_start(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(concert: ConcertId, user: UserId, revision: u64) -> BucketChange {
        let entry = Entry {
            revision,
            place: revision,
            issued_at: DateTime::UNIX_EPOCH,
            status: PlaceStatus::Waiting,
        };
        BucketChange::Put { concert, user, entry }
    }

    #[tokio::test]
    async fn waiter_is_woken_when_a_revision_is_seen() {
        let memory = Memory::new(Duration::ZERO);
        let (concert, user) = (crate::ids::new(), crate::ids::new());
        assert!(!memory.wait_for(3, Duration::from_millis(10)).await);
        memory.apply(&[put(concert, user, 3)]);
        assert!(memory.wait_for(3, Duration::from_millis(10)).await);
        assert_eq!(memory.view(concert, user).rank, Some(1));
    }

    #[test]
    fn second_replay_only_removes_missing_places() {
        let memory = Memory::new(Duration::ZERO);
        let concert = crate::ids::new();
        let (first, second) = (crate::ids::new(), crate::ids::new());
        memory.begin_replay(0);
        let restored = BucketChange::Restored { revision: 3, journalled: 0 };
        memory.apply(&[put(concert, first, 1), put(concert, second, 2), restored]);
        memory.end_replay();
        memory.begin_replay(0);
        memory.apply(&[put(concert, second, 2), restored]);
        assert_eq!(
            memory.view(concert, second).rank,
            Some(2),
            "nothing is dropped before the replay is complete"
        );
        memory.end_replay();
        assert_eq!(memory.view(concert, second).rank, Some(1));
        assert_eq!(memory.seen(), 3);
    }

    #[test]
    fn an_older_lease_is_not_news() {
        let memory = Memory::new(Duration::ZERO);
        let holder = Some(crate::ids::new());
        memory.apply(&[BucketChange::Lease { revision: 5, holder }]);
        memory.apply(&[BucketChange::Lease { revision: 4, holder: None }]);
        let lease = memory.lines().lease();
        assert_eq!((lease.revision, lease.holder), (5, holder));
    }
}
