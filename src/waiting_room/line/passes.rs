//! What has to go through a whole line: a slice under each lock, and others have their turn in between.

use chrono::{DateTime, Utc};
use tokio::task::yield_now;

use super::changes::{Change, Key};
use super::memory::Memory;
use crate::ids::{ConcertId, UserId};

/// The most that is looked at under one lock.
pub const SLICE: usize = 2_048;

impl Memory {
    /// Goes through all that was written or deleted after that revision, a slice under each lock, and shows it to `each`
    /// as it is then. What changes meanwhile may be left out: collect the changes, and take them afterwards.
    pub async fn newer_than(&self, revision: u64, mut each: impl FnMut(Key, Change)) {
        for concert in self.concerts() {
            let (mut first, mut last) = (Some(0), Some(usize::MAX));
            while first.is_some() || last.is_some() {
                {
                    let lines = self.lines();
                    let Some(queue) = lines.queue(concert) else { break };
                    let users;
                    if let Some(from) = first {
                        (users, first) = queue.written_since(revision, from, SLICE);
                    } else {
                        (users, last) = queue.deleted_since(revision, last.unwrap_or(0), SLICE);
                    }
                    users.into_iter().for_each(|user| each((concert, user), queue.place_of(user)));
                }
                yield_now().await;
            }
        }
    }

    /// Deletions from before `before` whose traces in the bucket can be cleared away, a slice under each lock: at least
    /// `enough` of them, if there are so many.
    pub async fn old_markers(&self, before: DateTime<Utc>, enough: usize) -> Vec<(ConcertId, UserId, u64)> {
        let mut found = Vec::new();
        for concert in self.concerts() {
            let mut last = Some(usize::MAX);
            while let Some(from) = last.filter(|_| found.len() < enough) {
                let slice = self.lines().queue(concert).map(|queue| queue.old_markers(before, from, SLICE));
                let Some((some, next)) = slice else { break };
                found.extend(some.into_iter().map(|(user, marker)| (concert, user, marker)));
                last = next;
                yield_now().await;
            }
        }
        found
    }

    /// Notes that these traces of deletions lie in the bucket no more; at most [`SLICE`] of them.
    pub fn note_cleared(&self, cleared: &[(ConcertId, UserId, u64)]) {
        let mut lines = self.lines_mut();
        for (concert, user, marker) in cleared {
            if let Some(queue) = lines.queues.get_mut(concert) {
                queue.clear_marker(*user, *marker);
            }
        }
    }

    /// Forgets ends from before `before`, a slice under each lock, and then queues of which nothing is left.
    pub async fn forget_ends(&self, before: DateTime<Utc>) {
        for concert in self.concerts() {
            let mut last = Some(usize::MAX);
            while let Some(from) = last {
                last = self
                    .lines_mut()
                    .queues
                    .get_mut(&concert)
                    .and_then(|queue| queue.forget_ends(before, from, SLICE));
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

    use super::super::super::place::{Entry, Standing};
    use super::super::memory::News;
    use super::*;

    #[tokio::test]
    async fn others_get_their_turn_between_the_slices_of_a_long_line() {
        let (memory, concert) = (Memory::new(Duration::ZERO), crate::ids::new());
        let people = 1..=5 * SLICE as u64;
        for revision in people.clone() {
            let standing = Standing::Waiting;
            let entry = Entry { revision, place: revision, issued_at: DateTime::UNIX_EPOCH, standing };
            memory.apply(&[News::Put { concert, user: UserId::from_u128(revision.into()), entry }]);
        }
        let turns = Cell::new(0);
        // Takes the lock for writing at each turn.
        let others = || async {
            loop {
                memory.apply(&[News::Other { revision: 1 }]);
                turns.set(turns.get() + 1);
                yield_now().await;
            }
        };
        let mut shown = 0;
        tokio::select! {
            biased;
            () = others() => (),
            () = memory.newer_than(SLICE as u64, |_, _| shown += 1) => (),
        }
        assert_eq!(shown, 4 * SLICE);
        assert!(turns.replace(0) >= 5, "a lock for the whole line");

        for revision in people {
            let gone = 6 * SLICE as u64 + revision;
            let (user, at) = (UserId::from_u128(revision.into()), DateTime::UNIX_EPOCH);
            memory.apply(&[News::Gone { concert, user, revision: gone, at }]);
        }
        let now = DateTime::from_timestamp(1, 0).unwrap();
        tokio::select! {
            biased;
            () = others() => (),
            found = memory.old_markers(now, usize::MAX) => assert_eq!(found.len(), 5 * SLICE),
        }
        assert!(turns.replace(0) >= 5, "a lock for the whole line");
        tokio::select! { biased; () = others() => (), () = memory.forget_ends(now) => () }
        assert!(turns.get() >= 5 && memory.concerts().is_empty());
    }
}
