//! Who runs out when.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::ids::UserId;

/// Users in the order of the time at which something of theirs is over.
#[derive(Debug, Default)]
pub struct Deadlines {
    ends: BTreeSet<(DateTime<Utc>, UserId)>,
}

impl Deadlines {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Something of this user is over then.
    pub fn insert(&mut self, end: DateTime<Utc>, user: UserId) {
        self.ends.insert((end, user));
    }

    /// It no longer is.
    pub fn remove(&mut self, end: DateTime<Utc>, user: UserId) {
        self.ends.remove(&(end, user));
    }

    /// When the first is over.
    pub fn next(&self) -> Option<DateTime<Utc>> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Who is over by now.
    pub fn over(&self, now: DateTime<Utc>) -> impl Iterator<Item = UserId> + '_ {
        self.ends.iter().take_while(move |(end, _)| *end <= now).map(|(_, user)| *user)
    }
}
