//! Users in the order of a deadline.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::ids::UserId;

#[derive(Debug, Default)]
pub struct Deadlines {
    ends: BTreeSet<(DateTime<Utc>, UserId)>,
}

impl Deadlines {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn insert(&mut self, end: DateTime<Utc>, user: UserId) {
        self.ends.insert((end, user));
    }

    pub fn remove(&mut self, end: DateTime<Utc>, user: UserId) {
        self.ends.remove(&(end, user));
    }

    /// The first deadline.
    pub fn next(&self) -> Option<DateTime<Utc>> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// The users whose deadline has passed.
    pub fn over(&self, now: DateTime<Utc>) -> impl Iterator<Item = UserId> + '_ {
        self.ends.iter().take_while(move |(end, _)| *end <= now).map(|(_, user)| *user)
    }
}
