//! What is told of the bucket, message by message, and what it makes of all lines.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;
use uuid::Uuid;

use super::super::place::Entry;
use super::changes::{Changed, Changes, Key};
use super::era::Era;
use super::queue::Queue;
use crate::bus::incarnation;
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
    /// The bucket holds all that was journalled of earlier ones, which was everything up to that revision of theirs.
    Restored { revision: u64, journalled: u64 },
    /// Something else, of which only the revision matters.
    Other { revision: u64 },
}

impl News {
    /// At which revision this was written.
    pub fn revision(&self) -> u64 {
        match self {
            Self::Put { entry, .. } => entry.revision,
            Self::Gone { revision, .. }
            | Self::Lease { revision, .. }
            | Self::Restored { revision, .. }
            | Self::Other { revision } => *revision,
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
    pub(super) queues: HashMap<ConcertId, Queue>,
    silence: Duration,
    /// The keys that are to be journalled.
    pub(super) changed: Changed,
    lease: LeaseSeen,
    replay: u32,
    /// Whether the bucket has been told completely since the replay began.
    is_whole: bool,
    era: Era,
    /// The last revision that was told, and the last one of earlier buckets.
    told: u64,
    told_before: u64,
    /// The last revision that was told before the replay began.
    told_at_replay: u64,
}

impl Lines {
    /// Nothing is known yet. A silence of less than `silence` means nothing.
    pub fn new(silence: Duration) -> Self {
        Self {
            silence,
            queues: HashMap::new(),
            changed: Changed::default(),
            lease: LeaseSeen::never(),
            replay: 0,
            is_whole: false,
            era: Era::new(0),
            told: 0,
            told_before: 0,
            told_at_replay: 0,
        }
    }

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

    /// The shortest silence that means anything.
    pub fn silence(&self) -> Duration {
        self.silence
    }

    /// One concert's queue, to be changed.
    pub fn queue_mut(&mut self, concert: ConcertId) -> &mut Queue {
        let silence = self.silence;
        self.queues.entry(concert).or_insert_with(|| Queue::new(silence))
    }

    /// Which bucket this is told by.
    pub fn era(&self) -> Era {
        self.era
    }

    /// Up to which revision everything is known. A replay shows only the last write of each key, so that a place from early on may
    /// be told of late: what is known stands still until it is complete.
    pub fn known(&self) -> u64 {
        if self.is_whole { self.told } else { self.told_at_replay }
    }

    /// How often it has been told completely.
    pub fn replays(&self) -> u32 {
        if self.is_whole { self.replay } else { self.replay.saturating_sub(1) }
    }

    /// The bucket is told anew from here on. Another one than before has a lease of its own; all else that is known stays
    /// until it has been restored.
    pub fn begin_replay(&mut self, incarnation: u64) {
        self.replay += 1;
        if self.is_whole {
            self.told_at_replay = self.told;
        }
        self.is_whole = false;
        if incarnation != self.era.incarnation {
            self.era = Era::new(incarnation);
            self.lease = LeaseSeen::never();
            self.told_before = self.told;
        }
    }

    /// The bucket has been told completely: what was not told of is gone, unless it is yet to be restored.
    pub fn end_replay(&mut self) {
        self.is_whole = true;
        self.forget_untold();
    }

    /// What changed since the last time. However much that is, it takes no time: each was noted as it happened.
    pub fn take_changes(&mut self) -> Changes {
        let journalled = if self.era.is_restored() { self.told } else { self.told_before };
        Changes { changed: self.changed.take(), told: self.told, journalled }
    }

    /// Applies one message. `since_start` is given for news, and not for what a replay or a restoration tells.
    pub fn apply(&mut self, news: News, since_start: Option<Duration>) {
        let replay = self.replay;
        self.told = self.told.max(news.revision());
        match news {
            News::Put { concert, user, entry } => {
                self.queue_mut(concert).put(user, entry, replay, since_start);
                self.note((concert, user));
            }
            News::Gone { concert, user, revision, at } => {
                let queue = self.queue_mut(concert);
                if let Some(since_start) = since_start {
                    queue.count_end(user, at, since_start);
                }
                queue.delete(user, revision, at);
                self.note((concert, user));
            }
            News::Restored { revision, journalled } if incarnation::of(revision) == self.era.incarnation => {
                self.era.restore(journalled);
                self.forget_untold();
            }
            News::Lease { revision, holder } if revision > self.lease.revision => {
                self.lease = LeaseSeen { revision, holder, since: Instant::now() };
            }
            News::Lease { .. } | News::Restored { .. } | News::Other { .. } => (),
        }
    }

    /// What the bucket did not tell of is gone; but not before it is restored.
    fn forget_untold(&mut self) {
        if !self.is_whole || !self.era.is_restored() {
            return;
        }
        for (concert, queue) in &mut self.queues {
            for user in queue.forget_untold(self.replay) {
                self.changed.note((*concert, user), queue.place_of(user));
            }
        }
    }

    /// A key is to be journalled as it is now, if this instance keeps the journal.
    fn note(&mut self, key: Key) {
        if self.changed.is_collected() {
            let now = self.queue(key.0).map(|queue| queue.place_of(key.1)).unwrap_or_default();
            self.changed.note(key, now);
        }
    }
}
