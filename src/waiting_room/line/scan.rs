//! Scans over whole lines: one chunk under each lock, so that other tasks run in between.

use chrono::{DateTime, Utc};
use tokio::task::yield_now;

use super::changes::{Change, Key};
use super::memory::Memory;
use crate::ids::{ConcertId, UserId};

/// Entries read under one lock.
pub const SCAN_CHUNK: usize = 2_048;

impl Memory {
    /// Calls `each` for every key that was written or deleted after `revision`, with its current state. Changes during
    /// the scan may be missed; log them and take them afterwards.
    pub async fn newer_than(&self, revision: u64, mut each: impl FnMut(Key, Change)) {
        for concert in self.concerts() {
            let (mut first, mut last) = (Some(0), Some(usize::MAX));
            while first.is_some() || last.is_some() {
                {
                    let lines = self.lines();
                    let Some(queue) = lines.queue(concert) else { break };
                    let users;
                    if let Some(from) = first {
                        (users, first) = queue.written_since(revision, from, SCAN_CHUNK);
                    } else {
                        (users, last) = queue.deleted_since(revision, last.unwrap_or(0), SCAN_CHUNK);
                    }
                    users.into_iter().for_each(|user| each((concert, user), queue.place_of(user)));
                }
                yield_now().await;
            }
        }
    }

    /// Delete markers older than `before` that can be removed from the bucket: at least `enough` of them, if there are
    /// so many.
    pub async fn old_markers(&self, before: DateTime<Utc>, enough: usize) -> Vec<(ConcertId, UserId, u64)> {
        let mut found = Vec::new();
        for concert in self.concerts() {
            let mut last = Some(usize::MAX);
            while let Some(from) = last.filter(|_| found.len() < enough) {
                let slice =
                    self.lines().queue(concert).map(|queue| queue.old_markers(before, from, SCAN_CHUNK));
                let Some((some, next)) = slice else { break };
                found.extend(some.into_iter().map(|(user, marker)| (concert, user, marker)));
                last = next;
                yield_now().await;
            }
        }
        found
    }

    /// These delete markers have been removed from the bucket; at most [`SCAN_CHUNK`] of them.
    pub fn note_cleared(&self, cleared: &[(ConcertId, UserId, u64)]) {
        let mut lines = self.lines_mut();
        for (concert, user, marker) in cleared {
            if let Some(queue) = lines.queues.get_mut(concert) {
                queue.clear_marker(*user, *marker);
            }
        }
    }

    /// Removes tombstones older than `before`, and then empty queues.
    pub async fn purge_tombstones(&self, before: DateTime<Utc>) {
        for concert in self.concerts() {
            let mut last = Some(usize::MAX);
            while let Some(from) = last {
                last = self
                    .lines_mut()
                    .queues
                    .get_mut(&concert)
                    .and_then(|queue| queue.purge_tombstones(before, from, SCAN_CHUNK));
                yield_now().await;
            }
        }
        self.lines_mut().queues.retain(|_, queue| !queue.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::super::super::place::{Entry, PlaceStatus};
    use super::super::memory::BucketChange;
    use super::*;

    #[tokio::test]
    async fn scan_lets_other_tasks_run_between_chunks() {
        let (memory, concert) = (Memory::new(Duration::ZERO), crate::ids::new());
        let people = 1..=5 * SCAN_CHUNK as u64;
        for revision in people.clone() {
            let status = PlaceStatus::Waiting;
            let entry = Entry { revision, place: revision, issued_at: DateTime::UNIX_EPOCH, status };
            memory.apply(&[BucketChange::Put { concert, user: UserId::from_u128(revision.into()), entry }]);
        }
        let turns = Cell::new(0);
        // Takes the write lock each time it is free.
        let others = || async {
            loop {
                memory.apply(&[BucketChange::Other { revision: 1 }]);
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        };
        let mut shown = 0;
        tokio::select! {
            biased;
            () = others() => (),
            () = memory.newer_than(SCAN_CHUNK as u64, |_, _| shown += 1) => (),
        }
        assert_eq!(shown, 4 * SCAN_CHUNK);
        assert!(turns.replace(0) >= 5, "a lock for the whole line");

        for revision in people {
            let gone = 6 * SCAN_CHUNK as u64 + revision;
            let (user, at) = (UserId::from_u128(revision.into()), DateTime::UNIX_EPOCH);
            memory.apply(&[BucketChange::Deleted { concert, user, revision: gone, at }]);
        }
        let now = DateTime::from_timestamp(1, 0).unwrap();
        tokio::select! {
            biased;
            () = others() => (),
            found = memory.old_markers(now, usize::MAX) => assert_eq!(found.len(), 5 * SCAN_CHUNK),
        }
        assert!(turns.replace(0) >= 5, "a lock for the whole line");
        tokio::select! { biased; () = others() => (), () = memory.purge_tombstones(now) => () }
        assert!(turns.get() >= 5 && memory.concerts().is_empty());
    }
}
