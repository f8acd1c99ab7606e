//! What memory knows of one user's key, and the log of changed keys for the journal.

use indexmap::IndexMap;

use super::super::place::{Entry, Place};
use super::tombstones::Tombstone;
use crate::ids::{ConcertId, UserId};

pub type Key = (ConcertId, UserId);

/// The keys that changed since the journal took them, each with its current state. It collects only on the leader.
#[derive(Debug, Default)]
pub struct ChangeLog {
    keys: Option<IndexMap<Key, Change>>,
}

/// The current state of a key that changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    pub entry: Option<Entry>,
    /// The tombstone of the user's ended places.
    pub end: Option<Tombstone>,
}

#[derive(Debug, Default)]
pub struct Changes {
    pub changed: IndexMap<Key, Change>,
    /// The last revision that the watch had shown.
    pub last_seen: u64,
    /// The revision up to which the journal is complete once it has these changes. Until the bucket is restored this
    /// is a revision of the bucket before.
    pub journalled: u64,
}

impl ChangeLog {
    pub fn begin(&mut self) {
        self.keys.get_or_insert_default();
    }

    pub fn end(&mut self) {
        self.keys = None;
    }

    pub fn is_collected(&self) -> bool {
        self.keys.is_some()
    }

    pub fn note(&mut self, key: Key, now: Change) {
        if let Some(keys) = &mut self.keys {
            keys.insert(key, now);
        }
    }

    /// Takes the changes since the last call.
    pub fn take(&mut self) -> IndexMap<Key, Change> {
        self.keys.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.keys.as_ref().map_or(0, IndexMap::len)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The place as last written; `None` if its key was deleted.
    pub entry: Option<Entry>,
    /// The tombstone of the user's ended places.
    pub end: Option<Tombstone>,
    /// 1 is next; `None` unless the place is in line.
    pub rank: Option<usize>,
}

impl View {
    /// Whether this place is known to have ended.
    pub fn is_over(&self, place: Place) -> bool {
        self.end.is_some_and(|end| end.up_to >= place)
    }
}
