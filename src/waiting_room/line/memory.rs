//! All lines in the memory of this instance, and how far into the bucket's history it has seen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::super::place::{Entry, Place, Standing};
use super::changes::Changes;
use super::era::Era;
use super::lines::Lines;
use super::lot::Lot;
use super::pause::seconds;
use super::queue::View;
use crate::ids::{ConcertId, UserId};
use crate::store::queue_journal::JournalEnd;

pub use super::lines::{LeaseSeen, News};

/// The lines behind a lock that is never held across an await, and a signal for whoever waits for a revision.
#[derive(Debug)]
pub struct Memory {
    lines: RwLock<Lines>,
    seen: watch::Sender<u64>,
    /// Who waits for which revision, so that each is woken once, however many join at the same time.
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
    complete: AtomicBool,
    settled: AtomicBool,
    started: Instant,
}

impl Memory {
    /// Knows nothing yet. A silence of less than `silence` means nothing.
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

    /// Reads the lines. Keep it short: the watch waits.
    pub fn lines(&self) -> RwLockReadGuard<'_, Lines> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn lines_mut(&self) -> RwLockWriteGuard<'_, Lines> {
        self.lines.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies what the watch told, in its order.
    pub fn apply(&self, news: &[News]) {
        let Some(last) = news.last().map(News::revision) else {
            return;
        };
        let is_complete = self.is_complete();
        {
            let mut lines = self.lines_mut();
            // What a replay or a restoration tells is not new.
            let since_start = (is_complete && lines.era().is_restored()).then(|| self.since_start());
            for one in news {
                lines.apply(*one, since_start);
            }
        }
        self.seen.send_if_modified(|seen| {
            let newer = last > *seen;
            *seen = last.max(*seen);
            newer
        });
        self.tell(last);
    }

    /// The bucket is told anew from here on, see [`Lines::begin_replay`].
    pub fn begin_replay(&self, incarnation: u64) {
        self.lines_mut().begin_replay(incarnation);
    }

    /// The bucket has been told completely, see [`Lines::end_replay`].
    pub fn end_replay(&self) {
        self.lines_mut().end_replay();
        self.complete.store(true, Ordering::Release);
        self.seen.send_modify(|_| ());
    }

    /// Whether a replay has been complete, so that ranks are true.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Whether this instance knows the whole line, so that it can be given requests.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// From now on it does.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Release);
    }

    /// Up to which revision everything has been seen.
    pub fn seen(&self) -> u64 {
        *self.seen.borrow()
    }

    /// Up to which revision nothing is missing, see [`Lines::known`].
    pub fn known(&self) -> u64 {
        self.lines().known()
    }

    /// Tells of every further change.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.seen.subscribe()
    }

    /// Waits until everything up to `revision` has been seen; false if that takes longer than `patience`.
    pub async fn wait_for(&self, revision: u64, patience: Duration) -> bool {
        if self.seen() >= revision {
            return true;
        }
        let (told, wait) = oneshot::channel();
        self.waiting().entry(revision).or_default().push(told);
        // It may have been seen just before it was waited for.
        if self.seen() >= revision {
            return true;
        }
        matches!(tokio::time::timeout(patience, wait).await, Ok(Ok(())))
    }

    fn tell(&self, seen: u64) {
        let told = {
            let mut waiting = self.waiting();
            let later = waiting.split_off(&seen.saturating_add(1));
            std::mem::replace(&mut *waiting, later)
        };
        for one in told.into_values().flatten() {
            // Whoever gave up waiting is not there to be told.
            let _ = one.send(());
        }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<oneshot::Sender<()>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which bucket this instance is told by.
    pub fn era(&self) -> Era {
        self.lines().era()
    }

    /// Notes that these users were heard of just now, and need not be for so many seconds. Answers whether any of that was
    /// news: something to be told to the other instances.
    pub fn hear_of(&self, concert: ConcertId, users: &[UserId], patience: u32) -> bool {
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

    /// Those among the news who were taken for silent, although they were heard of here not long ago.
    pub fn wrongly_silent(&self, news: &[News]) -> Vec<(ConcertId, UserId, Entry)> {
        let silent = news.iter().filter_map(|one| match one {
            News::Put { concert, user, entry } if matches!(entry.standing, Standing::Silent { .. }) => {
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
            // Whoever leads may know a little less than others, but not this much.
            queue.is_some_and(|queue| queue.trusted_for(user, self.now()) > seconds(lines.silence() / 2))
        };
        silent.into_iter().filter(|(concert, user, _)| is_wrong(*concert, *user)).collect()
    }

    /// Everything known of one user's place.
    pub fn view(&self, concert: ConcertId, user: UserId) -> View {
        self.lines().queue(concert).map(|queue| queue.view(user)).unwrap_or_default()
    }

    /// Ends a place for this instance, see [`super::queue::Queue::bar`].
    pub fn bar(&self, concert: ConcertId, user: UserId, place: Place, at: DateTime<Utc>) {
        self.lines_mut().queue_mut(concert).bar(user, place, at);
        self.seen.send_modify(|_| ());
    }

    /// Lets time pass for the pace of every line; `is_open` says whether anybody is admitted there.
    pub fn pass_time(&self, is_open: impl Fn(ConcertId) -> bool) {
        let since_start = self.since_start();
        for (concert, queue) in &mut self.lines_mut().queues {
            queue.pass_time(since_start, is_open(*concert));
        }
    }

    /// Orders a line by lot, see [`super::queue::Queue::draw`].
    pub fn draw(&self, concert: ConcertId, lot: Lot) {
        if let Some(queue) = self.lines_mut().queues.get_mut(&concert) {
            queue.draw(lot);
        }
        self.seen.send_modify(|_| ());
    }

    /// Takes over ends of places of earlier buckets from the journal.
    pub fn learn_ends(&self, ends: &[JournalEnd]) {
        let mut lines = self.lines_mut();
        for end in ends {
            let queue = lines.queue_mut(end.concert_id);
            queue.bar(end.user_id, end.place.cast_unsigned(), end.ended_at);
        }
        drop(lines);
        self.seen.send_modify(|_| ());
    }

    /// From now on it is remembered which keys change.
    pub fn collect_changes(&self) {
        self.lines_mut().changed.begin();
    }

    /// It is not any more.
    pub fn collect_no_changes(&self) {
        self.lines_mut().changed.end();
    }

    /// What changed since the last time, as it is now.
    pub fn take_changes(&self) -> Changes {
        self.lines_mut().take_changes()
    }

    /// How many keys changed and have not been taken.
    pub fn changes(&self) -> usize {
        self.lines().changed.len()
    }

    /// Every concert with a queue, to go through them without the lock.
    pub fn concerts(&self) -> Vec<ConcertId> {
        self.lines().queues().map(|(concert, _)| concert).collect()
    }

    /// The same as [`Self::since_start`], in whole seconds.
    pub fn now(&self) -> u32 {
        seconds(self.since_start())
    }

    /// Monotonic time since this process began to watch.
    pub fn since_start(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(concert: ConcertId, user: UserId, revision: u64) -> News {
        let entry =
            Entry { revision, place: revision, issued_at: DateTime::UNIX_EPOCH, standing: Standing::Waiting };
        News::Put { concert, user, entry }
    }

    #[tokio::test]
    async fn whoever_waits_for_a_revision_is_told_when_it_was_seen() {
        let memory = Memory::new(Duration::ZERO);
        let (concert, user) = (crate::ids::new(), crate::ids::new());
        assert!(!memory.wait_for(3, Duration::from_millis(10)).await);
        memory.apply(&[put(concert, user, 3)]);
        assert!(memory.wait_for(3, Duration::from_millis(10)).await);
        assert_eq!(memory.view(concert, user).rank, Some(1));
    }

    #[test]
    fn a_second_replay_changes_nothing_but_what_is_gone() {
        let memory = Memory::new(Duration::ZERO);
        let concert = crate::ids::new();
        let (first, second) = (crate::ids::new(), crate::ids::new());
        memory.begin_replay(0);
        let restored = News::Restored { revision: 3, journalled: 0 };
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
        memory.apply(&[News::Lease { revision: 5, holder }]);
        memory.apply(&[News::Lease { revision: 4, holder: None }]);
        let lease = memory.lines().lease();
        assert_eq!((lease.revision, lease.holder), (5, holder));
    }
}
