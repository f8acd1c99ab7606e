//! Applies the messages of the bucket to the lines of all concerts.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::place::Entry;
use super::changes::{ChangeLog, Changes, Key};
use super::epoch::Epoch;
use super::queue::Queue;
use crate::bus::incarnation;
use crate::ids::{ConcertId, UserId};

/// A message of the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BucketChange {
    Put {
        concert: ConcertId,
        user: UserId,
        entry: Entry,
    },
    /// The key of a place was deleted or expired.
    Deleted {
        concert: ConcertId,
        user: UserId,
        revision: u64,
        at: DateTime<Utc>,
    },
    /// The lease was taken, renewed or given back.
    Lease {
        revision: u64,
        holder: Option<Uuid>,
    },
    /// The bucket is restored: it has all places that were journalled of earlier ones, up to their revision
    /// `journalled`.
    Restored {
        revision: u64,
        journalled: u64,
    },
    /// Another key, of which only the revision matters.
    Other {
        revision: u64,
    },
}

impl BucketChange {
    pub fn revision(&self) -> u64 {
        match self {
            Self::Put { entry, .. } => entry.revision,
            Self::Deleted { revision, .. }
            | Self::Lease { revision, .. }
            | Self::Restored { revision, .. }
            | Self::Other { revision } => *revision,
        }
    }
}

/// The lease as this instance last saw it change, by its own monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSeen {
    /// 0 if it was never written.
    pub revision: u64,
    /// The process that leads.
    pub holder: Option<Uuid>,
    pub since: Instant,
}

impl LeaseSeen {
    fn never() -> Self {
        Self { revision: 0, holder: None, since: Instant::now() }
    }
}

#[derive(Debug)]
pub struct Lines {
    pub(super) queues: HashMap<ConcertId, Queue>,
    silence: Duration,
    /// The keys to be journalled.
    pub(super) change_log: ChangeLog,
    lease: LeaseSeen,
    replay: u32,
    /// Whether the running replay has shown the whole bucket.
    is_replay_complete: bool,
    epoch: Epoch,
    /// The last revision that was shown, and the last one of earlier buckets.
    last_seen: u64,
    last_of_earlier_bucket: u64,
    /// The last revision that was shown before the replay started.
    last_before_replay: u64,
}

impl Lines {
    /// `silence` is the shortest silence that counts.
    pub fn new(silence: Duration) -> Self {
        Self {
            silence,
            queues: HashMap::new(),
            change_log: ChangeLog::default(),
            lease: LeaseSeen::never(),
            replay: 0,
            is_replay_complete: false,
            epoch: Epoch::new(0),
            last_seen: 0,
            last_of_earlier_bucket: 0,
            last_before_replay: 0,
        }
    }

    /// Every queue that has or had users.
    pub fn queues(&self) -> impl Iterator<Item = (ConcertId, &Queue)> {
        self.queues.iter().map(|(concert, queue)| (*concert, queue))
    }

    pub fn queue(&self, concert: ConcertId) -> Option<&Queue> {
        self.queues.get(&concert)
    }

    pub fn lease(&self) -> LeaseSeen {
        self.lease
    }

    pub fn silence(&self) -> Duration {
        self.silence
    }

    pub fn queue_mut(&mut self, concert: ConcertId) -> &mut Queue {
        let silence = self.silence;
        self.queues.entry(concert).or_insert_with(|| Queue::new(silence))
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The revision up to which memory is complete. A replay shows only the last write of each key and may show an
    /// early place late, so this does not grow until the replay is complete.
    pub fn known(&self) -> u64 {
        if self.is_replay_complete { self.last_seen } else { self.last_before_replay }
    }

    /// The number of complete replays.
    pub fn replays(&self) -> u32 {
        if self.is_replay_complete { self.replay } else { self.replay.saturating_sub(1) }
    }

    /// The watch starts again. A bucket of a new incarnation has its own lease; all places stay known until it is
    /// restored.
    pub fn begin_replay(&mut self, incarnation: u64) {
        self.replay += 1;
        if self.is_replay_complete {
            self.last_before_replay = self.last_seen;
        }
        self.is_replay_complete = false;
        if incarnation != self.epoch.incarnation {
            self.epoch = Epoch::new(incarnation);
            self.lease = LeaseSeen::never();
            self.last_of_earlier_bucket = self.last_seen;
        }
    }

    /// The replay is complete: places that it did not show have ended, unless the bucket is not restored yet.
    pub fn end_replay(&mut self) {
        self.is_replay_complete = true;
        self.remove_unconfirmed();
    }

    /// Takes the changes since the last call. It takes constant time, because each change was logged as it happened.
    pub fn take_changes(&mut self) -> Changes {
        let journalled = if self.epoch.is_restored() { self.last_seen } else { self.last_of_earlier_bucket };
        Changes { changed: self.change_log.take(), last_seen: self.last_seen, journalled }
    }

    /// Applies one message. `since_start` is `None` for messages of a replay or a restoration, which are not counted.
    pub fn apply(&mut self, news: BucketChange, since_start: Option<Duration>) {
        let replay = self.replay;
        self.last_seen = self.last_seen.max(news.revision());
        match news {
            BucketChange::Put { concert, user, entry } => {
                self.queue_mut(concert).put(user, entry, replay, since_start);
                self.log_change((concert, user));
            }
            BucketChange::Deleted { concert, user, revision, at } => {
                let queue = self.queue_mut(concert);
                if let Some(since_start) = since_start {
                    queue.count_end(user, at, since_start);
                }
                queue.delete(user, revision, at);
                self.log_change((concert, user));
            }
            BucketChange::Restored { revision, journalled }
                if incarnation::of(revision) == self.epoch.incarnation =>
            {
                self.epoch.restore(journalled);
                self.remove_unconfirmed();
            }
            BucketChange::Lease { revision, holder } if revision > self.lease.revision => {
                self.lease = LeaseSeen { revision, holder, since: Instant::now() };
            }
            BucketChange::Lease { .. } | BucketChange::Restored { .. } | BucketChange::Other { .. } => (),
        }
    }

    /// Removes the places that the replay did not show, once the bucket is restored.
    fn remove_unconfirmed(&mut self) {
        if !self.is_replay_complete || !self.epoch.is_restored() {
            return;
        }
        for (concert, queue) in &mut self.queues {
            for user in queue.remove_unconfirmed(self.replay) {
                self.change_log.note((*concert, user), queue.place_of(user));
            }
        }
    }

    /// Logs the key's current state, if this instance writes the journal.
    fn log_change(&mut self, key: Key) {
        if self.change_log.is_collected() {
            let now = self.queue(key.0).map(|queue| queue.place_of(key.1)).unwrap_or_default();
            self.change_log.note(key, now);
        }
    }
}
