//! What has changed since the journal was written last.

use indexmap::IndexMap;

use super::super::place::Entry;
use super::ends::End;
use crate::ids::{ConcertId, UserId};

/// Which key is meant.
pub type Key = (ConcertId, UserId);

/// The keys that changed while somebody collects them, each as it is now: never more than there are.
#[derive(Debug, Default)]
pub struct Changed {
    keys: Option<IndexMap<Key, Change>>,
}

/// A key that changed, as it is now: a place, the end of the places before, both or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The place, if the key holds one.
    pub entry: Option<Entry>,
    /// Which places of this user are over.
    pub end: Option<End>,
}

/// All that changed.
#[derive(Debug, Default)]
pub struct Changes {
    /// Each key once.
    pub changed: IndexMap<Key, Change>,
    /// The last revision that was told by then.
    pub told: u64,
    /// Up to which revision the journal is complete once these are in it; in a bucket that is not restored yet this is
    /// one of the bucket before.
    pub journalled: u64,
}

impl Changed {
    /// Begins to collect, with nothing.
    pub fn begin(&mut self) {
        self.keys.get_or_insert_default();
    }

    /// Collects no more.
    pub fn end(&mut self) {
        self.keys = None;
    }

    /// Whether anybody wants to know what changes.
    pub fn is_collected(&self) -> bool {
        self.keys.is_some()
    }

    /// A key has changed.
    pub fn note(&mut self, key: Key, now: Change) {
        if let Some(keys) = &mut self.keys {
            keys.insert(key, now);
        }
    }

    /// Those that changed since the last time.
    pub fn take(&mut self) -> IndexMap<Key, Change> {
        self.keys.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.keys.as_ref().map_or(0, IndexMap::len)
    }
}
