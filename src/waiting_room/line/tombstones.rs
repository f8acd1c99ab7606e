//! Tombstones: which places have ended. An ended place never comes back, whatever an older write says.
//!
//! A scan reads them in chunks from the last one on, so that it misses none if others are removed meanwhile.

use std::ops::Range;

use chrono::{DateTime, Utc};
use indexmap::IndexMap;

use super::super::place::Place;
use crate::ids::UserId;

#[derive(Debug, Default)]
pub struct Tombstones {
    ends: IndexMap<UserId, Tombstone>,
}

/// The ended places of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Every place up to this one has ended.
    pub up_to: Place,
    /// When the last of them ended.
    pub since: DateTime<Utc>,
    /// The revision of the key's delete marker; 0 if this instance knows of the end but has not seen the deletion.
    marker: u64,
    /// Whether this instance has removed the marker from the bucket.
    is_cleared: bool,
}

impl Tombstone {
    /// The end of a place without a delete marker. `last_seen` is the last revision that was seen.
    pub fn unseen(last_seen: Place, since: DateTime<Utc>) -> Self {
        Self { up_to: last_seen, since, marker: 0, is_cleared: false }
    }

    /// The revision of the delete marker; 0 if it was not seen.
    pub fn written(&self) -> u64 {
        self.marker
    }
}

impl Tombstones {
    pub fn of(&self, user: UserId) -> Option<Tombstone> {
        self.ends.get(&user).copied()
    }

    pub fn covers(&self, user: UserId, place: Place) -> bool {
        self.of(user).is_some_and(|end| end.up_to >= place)
    }

    /// Whether the key was deleted after `revision`.
    pub fn is_deleted_since(&self, user: UserId, revision: u64) -> bool {
        self.of(user).is_some_and(|end| end.marker > revision)
    }

    /// Ends a place before the bucket shows it.
    pub fn end_locally(&mut self, user: UserId, place: Place, at: DateTime<Utc>) {
        self.note(user, Tombstone::unseen(place, at));
    }

    /// The key was deleted: every earlier place has ended.
    pub fn delete(&mut self, user: UserId, marker: u64, at: DateTime<Utc>) {
        self.note(user, Tombstone { marker, ..Tombstone::unseen(marker, at) });
    }

    /// Removes tombstones older than `before`, among `most` in front of `last`. Returns where to continue.
    pub fn forget(&mut self, before: DateTime<Utc>, last: usize, most: usize) -> Option<usize> {
        let slice = self.slice(last, most);
        let first = slice.start;
        for at in slice.rev() {
            if self.ends.get_index(at).is_some_and(|(_, end)| end.since < before) {
                // The one that replaces it has been read already.
                self.ends.swap_remove_index(at);
            }
        }
        (first > 0).then_some(first)
    }

    /// The marker has been removed from the bucket.
    pub fn clear(&mut self, user: UserId, marker: u64) {
        if let Some(end) = self.ends.get_mut(&user).filter(|end| end.marker == marker) {
            end.is_cleared = true;
        }
    }

    /// Delete markers older than `before` that are still in the bucket, among `most` in front of `last`, and where to
    /// continue.
    pub fn markers(
        &self,
        before: DateTime<Utc>,
        last: usize,
        most: usize,
    ) -> (Vec<(UserId, u64)>, Option<usize>) {
        self.look(
            last,
            most,
            |end| end.marker > 0 && !end.is_cleared && end.since < before,
            |user, end| (user, end.marker),
        )
    }

    /// The users whose keys were deleted after `revision`, among `most` in front of `last`, and where to continue.
    pub fn since(&self, revision: u64, last: usize, most: usize) -> (Vec<UserId>, Option<usize>) {
        self.look(last, most, |end| end.marker > revision, |user, _| user)
    }

    fn look<T>(
        &self,
        last: usize,
        most: usize,
        is_wanted: impl Fn(&Tombstone) -> bool,
        describe: impl Fn(UserId, Tombstone) -> T,
    ) -> (Vec<T>, Option<usize>) {
        let slice = self.slice(last, most);
        let first = slice.start;
        let ends = slice.rev().filter_map(|at| self.ends.get_index(at));
        let found = ends.filter(|(_, end)| is_wanted(end)).map(|(user, end)| describe(*user, *end)).collect();
        (found, (first > 0).then_some(first))
    }

    fn slice(&self, last: usize, most: usize) -> Range<usize> {
        let last = last.min(self.ends.len());
        last.saturating_sub(most)..last
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn note(&mut self, user: UserId, new: Tombstone) {
        let end = self.ends.entry(user).or_insert(new);
        end.is_cleared &= end.marker >= new.marker;
        end.up_to = end.up_to.max(new.up_to);
        end.marker = end.marker.max(new.marker);
        end.since = end.since.max(new.since);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn later_end_renews_the_tombstone() {
        let (mut ends, user) = (Tombstones::default(), UserId::from_u128(1));
        ends.delete(user, 5, at(0));
        ends.end_locally(user, 9, at(100));
        assert!(ends.covers(user, 9) && !ends.covers(user, 10));
        assert!(
            ends.is_deleted_since(user, 4) && !ends.is_deleted_since(user, 5),
            "the second is not written yet"
        );
        assert_eq!(ends.forget(at(50), usize::MAX, 9), None);
        assert!(ends.covers(user, 9));
        assert_eq!(ends.markers(at(50), usize::MAX, 9), (vec![], None));
        assert_eq!(ends.markers(at(101), usize::MAX, 9), (vec![(user, 5)], None));
        ends.forget(at(101), usize::MAX, 9);
        assert!(ends.is_empty());
    }

    #[test]
    fn chunks_find_all_tombstones_despite_removals() {
        let mut ends = Tombstones::default();
        // Every third one is old.
        for number in 1..=100u64 {
            let since = if number.is_multiple_of(3) { at(0) } else { at(100) };
            ends.delete(UserId::from_u128(number.into()), number, since);
        }
        let (mut found, mut last, mut forgetting) = (Vec::new(), Some(usize::MAX), Some(usize::MAX));
        while let Some(from) = last {
            let (some, next) = ends.since(0, from, 7);
            assert!(some.len() <= 7, "{} under one lock", some.len());
            found.extend(some);
            last = next;
            forgetting = forgetting.and_then(|from| ends.forget(at(50), from, 11));
        }
        assert_eq!(forgetting, None);
        let found: BTreeSet<u128> = found.into_iter().map(|user| user.as_u128()).collect();
        assert!((1..=100).filter(|number| number % 3 != 0).all(|number| found.contains(&number)));
        let (left, _) = ends.since(0, usize::MAX, 200);
        assert_eq!(left.len(), 67);
    }
}
