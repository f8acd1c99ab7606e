//! Which places are over. A place that has ended never comes back, whatever an older write says.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::super::place::Place;
use crate::ids::UserId;

/// The ends that are known of one line, by user.
#[derive(Debug, Default)]
pub struct Ends {
    ends: HashMap<UserId, End>,
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
}

impl End {
    /// The end of a place whose key was found missing, `told` being the last revision that was told.
    pub fn unseen(told: Place, since: DateTime<Utc>) -> Self {
        Self { up_to: told, since, marker: 0 }
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
        self.note(user, End { up_to: place, since: at, marker: 0 });
    }

    /// The key was deleted: every place before is over.
    pub fn delete(&mut self, user: UserId, marker: u64, at: DateTime<Utc>) {
        self.note(user, End { up_to: marker, since: at, marker });
    }

    /// Forgets what ended before `before`.
    pub fn forget(&mut self, before: DateTime<Utc>) {
        self.ends.retain(|_, end| end.since >= before);
    }

    /// Deletions from before `before`: users and revisions.
    pub fn markers(&self, before: DateTime<Utc>) -> impl Iterator<Item = (UserId, u64)> + '_ {
        let old = move |end: &End| end.marker > 0 && end.since < before;
        self.ends.iter().filter(move |(_, end)| old(end)).map(|(user, end)| (*user, end.marker))
    }

    /// Deletions after that revision.
    pub fn since(&self, revision: u64) -> impl Iterator<Item = UserId> + '_ {
        self.ends.iter().filter(move |(_, end)| end.marker > revision).map(|(user, _)| *user)
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn note(&mut self, user: UserId, new: End) {
        let end = self.ends.entry(user).or_insert(new);
        end.up_to = end.up_to.max(new.up_to);
        end.marker = end.marker.max(new.marker);
        end.since = end.since.max(new.since);
    }
}

#[cfg(test)]
mod tests {
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
        ends.forget(at(50));
        assert!(ends.covers(user, 9));
        assert_eq!(ends.markers(at(50)).count(), 0);
        assert_eq!(ends.markers(at(101)).collect::<Vec<_>>(), [(user, 5)]);
        ends.forget(at(101));
        assert!(ends.is_empty());
    }
}
