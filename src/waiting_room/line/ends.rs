//! Which places are over. A place that has ended never comes back, whatever an older write says.
//!
//! They can be gone through a slice at a time, from the last one on: whatever is forgotten meanwhile, nothing that stays is
//! left out.

use std::ops::Range;

use chrono::{DateTime, Utc};
use indexmap::IndexMap;

use super::super::place::Place;
use crate::ids::UserId;

/// The ends that are known of one line, by user.
#[derive(Debug, Default)]
pub struct Ends {
    ends: IndexMap<UserId, End>,
}

/// What is known of one user's ended places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Every place up to this one is over.
    pub up_to: Place,
    /// Since when the last of them is.
    pub since: DateTime<Utc>,
    /// The revision of the key's deletion; 0 if this instance knows of the end, but has not seen it written.
    marker: u64,
    /// Whether this instance has cleared the trace of that deletion away.
    is_cleared: bool,
}

impl End {
    /// The end of a place whose key was found missing, `told` being the last revision that was told.
    pub fn unseen(told: Place, since: DateTime<Utc>) -> Self {
        Self { up_to: told, since, marker: 0, is_cleared: false }
    }

    /// At which revision it was written; 0 if that was not seen.
    pub fn written(&self) -> u64 {
        self.marker
    }
}

impl Ends {
    /// A user's end.
    pub fn of(&self, user: UserId) -> Option<End> {
        self.ends.get(&user).copied()
    }

    /// Whether this place of a user is over.
    pub fn covers(&self, user: UserId, place: Place) -> bool {
        self.of(user).is_some_and(|end| end.up_to >= place)
    }

    /// Whether the key's deletion has been seen, and came after `revision`.
    pub fn is_deleted_since(&self, user: UserId, revision: u64) -> bool {
        self.of(user).is_some_and(|end| end.marker > revision)
    }

    /// A place is over, and this instance is the first to know.
    pub fn bar(&mut self, user: UserId, place: Place, at: DateTime<Utc>) {
        self.note(user, End::unseen(place, at));
    }

    /// The key was deleted: every place before is over.
    pub fn delete(&mut self, user: UserId, marker: u64, at: DateTime<Utc>) {
        self.note(user, End { marker, ..End::unseen(marker, at) });
    }

    /// Forgets what ended before `before`, among `most` in front of `last`; answers where to go on.
    pub fn forget(&mut self, before: DateTime<Utc>, last: usize, most: usize) -> Option<usize> {
        let slice = self.slice(last, most);
        let first = slice.start;
        for at in slice.rev() {
            if self.ends.get_index(at).is_some_and(|(_, end)| end.since < before) {
                // The one that takes its place was looked at already.
                self.ends.swap_remove_index(at);
            }
        }
        (first > 0).then_some(first)
    }

    /// The trace of that deletion has been cleared away.
    pub fn clear(&mut self, user: UserId, marker: u64) {
        if let Some(end) = self.ends.get_mut(&user).filter(|end| end.marker == marker) {
            end.is_cleared = true;
        }
    }

    /// Deletions from before `before`, whose traces are not cleared away, among `most` in front of `last`, as users and revisions; and where to go on.
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

    /// Whose deletions came after that revision, among `most` in front of `last`; and where to go on.
    pub fn since(&self, revision: u64, last: usize, most: usize) -> (Vec<UserId>, Option<usize>) {
        self.look(last, most, |end| end.marker > revision, |user, _| user)
    }

    fn look<T>(
        &self,
        last: usize,
        most: usize,
        is_wanted: impl Fn(&End) -> bool,
        told: impl Fn(UserId, End) -> T,
    ) -> (Vec<T>, Option<usize>) {
        let slice = self.slice(last, most);
        let first = slice.start;
        let ends = slice.rev().filter_map(|at| self.ends.get_index(at));
        let found = ends.filter(|(_, end)| is_wanted(end)).map(|(user, end)| told(*user, *end)).collect();
        (found, (first > 0).then_some(first))
    }

    fn slice(&self, last: usize, most: usize) -> Range<usize> {
        let last = last.min(self.ends.len());
        last.saturating_sub(most)..last
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn note(&mut self, user: UserId, new: End) {
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
    fn a_later_end_is_remembered_for_as_long_as_if_it_were_the_first() {
        let (mut ends, user) = (Ends::default(), UserId::from_u128(1));
        ends.delete(user, 5, at(0));
        ends.bar(user, 9, at(100));
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
    fn slices_find_all_that_stays_whatever_is_forgotten_between_them() {
        let mut ends = Ends::default();
        // Every third is old.
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
