//! All lines in the memory of this instance, and how far into the bucket's history it has seen.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::era::Era;
use super::lot::Lot;
use super::pause::seconds;
use super::place::{Entry, Standing};
use super::queue::{Queue, View};
use super::token::Place;
use crate::ids::{ConcertId, UserId};

/// One message of the bucket, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// A place was written.
    Put { concert: ConcertId, user: UserId, entry: Entry },
    /// A place's key was deleted, or ran out.
    Gone { concert: ConcertId, user: UserId, revision: u64, at: DateTime<Utc> },
    /// The lease changed hands or was renewed; nobody holds it once it was given back.
    Lease { revision: u64, holder: Option<Uuid> },
    /// Something else, of which only the revision matters.
    Other { revision: u64 },
}

impl News {
    fn revision(&self) -> u64 {
        match self {
            Self::Put { entry, .. } => entry.revision,
            Self::Gone { revision, .. } | Self::Lease { revision, .. } | Self::Other { revision } => {
                *revision
            }
        }
    }
}

/// The lease as this instance last saw it change, by its own monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSeen {
    /// Its revision; 0 if it was never written.
    pub revision: u64,
    /// Who admits, by the id of the running process.
    pub holder: Option<Uuid>,
    /// When this instance saw that.
    pub since: Instant,
}

impl LeaseSeen {
    /// Nobody has taken it yet.
    fn never() -> Self {
        Self { revision: 0, holder: None, since: Instant::now() }
    }
}

/// Every concert's queue.
#[derive(Debug)]
pub struct Lines {
    queues: HashMap<ConcertId, Queue>,
    lease: LeaseSeen,
    replay: u32,
    era: Era,
    /// The shortest silence that means anything.
    silence: Duration,
}

impl Lines {
    /// Every queue that ever had somebody in it.
    pub fn queues(&self) -> impl Iterator<Item = (ConcertId, &Queue)> {
        self.queues.iter().map(|(concert, queue)| (*concert, queue))
    }

    /// One concert's queue.
    pub fn queue(&self, concert: ConcertId) -> Option<&Queue> {
        self.queues.get(&concert)
    }

    /// The lease as last seen.
    pub fn lease(&self) -> LeaseSeen {
        self.lease
    }

    /// Which bucket this is told by.
    pub fn era(&self) -> Era {
        self.era
    }

    fn queue_mut(&mut self, concert: ConcertId) -> &mut Queue {
        let silence = self.silence;
        self.queues.entry(concert).or_insert_with(|| Queue::new(silence))
    }

    fn apply(&mut self, news: News, since_start: Option<Duration>) {
        let replay = self.replay;
        match news {
            News::Put { concert, user, entry } => {
                self.queue_mut(concert).put(user, entry, replay, since_start);
            }
            News::Gone { concert, user, revision, at } => {
                let queue = self.queue_mut(concert);
                if let Some(since_start) = since_start {
                    queue.count_end(user, at, since_start);
                }
                queue.delete(user, revision, at);
            }
            News::Lease { revision, holder } if revision > self.lease.revision => {
                self.lease = LeaseSeen { revision, holder, since: Instant::now() };
            }
            News::Lease { .. } | News::Other { .. } => (),
        }
    }
}

/// The lines behind a lock that is never held across an await, and a signal for whoever waits for a revision.
#[derive(Debug)]
pub struct Memory {
    lines: RwLock<Lines>,
    seen: watch::Sender<u64>,
    /// Who waits for which revision, so that each is woken once, however many join at the same time.
    waiting: Mutex<BTreeMap<u64, Vec<oneshot::Sender<()>>>>,
    complete: AtomicBool,
    started: Instant,
}

impl Memory {
    /// Knows nothing yet. A silence of less than `silence` means nothing.
    pub fn new(silence: Duration) -> Self {
        let (lease, era) = (LeaseSeen::never(), Era::new(0));
        let lines = Lines { queues: HashMap::new(), lease, replay: 0, era, silence };
        Self {
            lines: RwLock::new(lines),
            seen: watch::Sender::new(0),
            waiting: Mutex::default(),
            complete: AtomicBool::new(false),
            started: Instant::now(),
        }
    }

    /// Reads the lines. Keep it short: the watch waits.
    pub fn lines(&self) -> RwLockReadGuard<'_, Lines> {
        self.lines.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines_mut(&self) -> RwLockWriteGuard<'_, Lines> {
        self.lines.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies what the watch told, in its order.
    pub fn apply(&self, news: &[News]) {
        let Some(last) = news.last().map(News::revision) else {
            return;
        };
        let since_start = self.is_complete().then(|| self.since_start());
        {
            let mut lines = self.lines_mut();
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

    /// The bucket is told anew from here on. Another bucket than before has a lease of its own, and nobody is in line.
    pub fn begin_replay(&self, incarnation: u64) {
        let mut lines = self.lines_mut();
        lines.replay += 1;
        if incarnation == lines.era.incarnation {
            return;
        }
        let is_first = lines.replay == 1;
        lines.era = Era::new(incarnation);
        lines.era.restore(u64::MAX);
        lines.lease = LeaseSeen::never();
        lines.queues.clear();
        drop(lines);
        if !is_first {
            self.complete.store(false, Ordering::Release);
        }
    }

    /// The bucket has been told completely: what was not told of is gone.
    pub fn end_replay(&self) {
        {
            let mut lines = self.lines_mut();
            let replay = lines.replay;
            for queue in lines.queues.values_mut() {
                queue.forget_untold(replay);
            }
        }
        self.complete.store(true, Ordering::Release);
        self.seen.send_modify(|_| ());
    }

    /// Whether a replay has been complete, so that ranks are true.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Up to which revision everything has been seen.
    pub fn seen(&self) -> u64 {
        *self.seen.borrow()
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
            let later = waiting.split_off(&(seen + 1));
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
            queue.is_some_and(|queue| queue.trusted_for(user, self.now()) > seconds(lines.silence / 2))
        };
        silent.into_iter().filter(|(concert, user, _)| is_wrong(*concert, *user)).collect()
    }

    /// Everything known of one user's place.
    pub fn view(&self, concert: ConcertId, user: UserId) -> View {
        self.lines().queue(concert).map(|queue| queue.view(user)).unwrap_or_default()
    }

    /// Ends a place for this instance, see [`Queue::bar`].
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

    /// Orders a line by lot, see [`Queue::draw`].
    pub fn draw(&self, concert: ConcertId, lot: Lot) {
        if let Some(queue) = self.lines_mut().queues.get_mut(&concert) {
            queue.draw(lot);
        }
        self.seen.send_modify(|_| ());
    }

    /// Forgets ends from before `before`, and queues of which nothing is left.
    pub fn forget_ends(&self, before: DateTime<Utc>) {
        self.lines_mut().queues.retain(|_, queue| {
            queue.forget_ends(before);
            !queue.is_empty()
        });
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
        memory.apply(&[put(concert, first, 1), put(concert, second, 2)]);
        memory.end_replay();
        memory.begin_replay(0);
        memory.apply(&[put(concert, second, 2)]);
        assert_eq!(
            memory.view(concert, second).rank,
            Some(2),
            "nothing is dropped before the replay is complete"
        );
        memory.end_replay();
        assert_eq!(memory.view(concert, second).rank, Some(1));
        assert_eq!(memory.seen(), 2);
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
