//! The changes between the last versions of a seat map that this instance has read.
//!
//! A version is named by a hash of the statuses, so that all instances use the same name for the same state.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::catalog::SeatStatus;

/// A minute of versions at the shortest read interval.
const MAX_VERSIONS: usize = 600;

/// The versions of one map, the oldest first.
#[derive(Debug, Default)]
pub(super) struct SeatHistory {
    versions: VecDeque<Version>,
    latest: Option<Arc<[SeatStatus]>>,
    last_number: u64,
    /// The number of changes in all versions.
    changes: usize,
}

#[derive(Debug)]
struct Version {
    number: u64,
    name: Arc<str>,
    /// Indices of the seats that changed since the version before.
    changed: Vec<u32>,
}

impl SeatHistory {
    /// Adds a version, unless nothing changed. Returns the version's number and name, and its statuses.
    pub(super) fn add(
        &mut self,
        performance: Uuid,
        read: Vec<SeatStatus>,
    ) -> (u64, Arc<str>, Arc<[SeatStatus]>) {
        let mut changed = Vec::new();
        if let (Some(latest), Some(version)) = (&self.latest, self.versions.back()) {
            let pairs = latest.iter().zip(&read).enumerate().filter(|(_, (before, now))| before != now);
            changed.extend(pairs.filter_map(|(at, _)| u32::try_from(at).ok()));
            if changed.is_empty() {
                return (version.number, Arc::clone(&version.name), Arc::clone(latest));
            }
        }
        let states: Arc<[SeatStatus]> = read.into();
        self.last_number += 1;
        let (number, name) = (self.last_number, name(performance, &states));
        self.changes += changed.len();
        self.versions.push_back(Version { number, name: Arc::clone(&name), changed });
        // With more changes than seats the whole map is shorter.
        while self.versions.len() > MAX_VERSIONS || self.changes > states.len() && self.versions.len() > 1 {
            let dropped = self.versions.pop_front();
            self.changes -= dropped.map_or(0, |version| version.changed.len());
        }
        self.latest = Some(Arc::clone(&states));
        (number, name, states)
    }

    /// Indices of the seats that changed between the version `since` and the version `number`; `None` if either is
    /// unknown.
    pub(super) fn between(&self, since: &str, number: u64) -> Option<BTreeSet<u32>> {
        let mut changed = BTreeSet::new();
        let mut versions =
            self.versions.iter().rev().skip_while(|version| version.number > number).peekable();
        versions.peek().filter(|version| version.number == number)?;
        for version in versions {
            if *version.name == *since {
                return Some(changed);
            }
            changed.extend(&version.changed);
        }
        None
    }
}

fn name(performance: Uuid, states: &[SeatStatus]) -> Arc<str> {
    let bytes: Vec<u8> = states.iter().map(|status| *status as u8).collect();
    let digest = Sha256::new().chain_update(performance).chain_update(bytes).finalize();
    let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    hash.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use SeatStatus::{Free, Held, Sold};

    #[test]
    fn changes_between_versions_are_found() {
        let mut history = SeatHistory::default();
        let mut add = |states: &[SeatStatus]| {
            let (number, name, _) = history.add(Uuid::nil(), states.to_vec());
            (number, name)
        };
        let first = add(&[Free, Free, Free, Free]);
        assert_eq!(add(&[Free, Free, Free, Free]), first, "nothing changed");
        let second = add(&[Held, Free, Free, Free]);
        let third = add(&[Held, Free, Sold, Free]);
        let again = add(&[Held, Free, Free, Free]);
        assert_eq!(again.1, second.1, "the same state has the same name");
        let between = |since: &str, number| history.between(since, number).map(Vec::from_iter);
        assert_eq!(between(&first.1, first.0), Some(vec![]));
        assert_eq!(between(&first.1, third.0), Some(vec![0, 2]));
        assert_eq!(between(&second.1, third.0), Some(vec![2]));
        assert_eq!(between(&second.1, again.0), Some(vec![]), "the later of two of one name counts");
        assert_eq!(between(&third.1, second.0), None, "it is newer than what is shown");
        assert_eq!(between("unknown", again.0), None);
    }

    #[test]
    fn no_more_changes_are_kept_than_seats() {
        let mut history = SeatHistory::default();
        let (_, first, _) = history.add(Uuid::nil(), vec![Free; 10]);
        let mut last = 0;
        for round in 0..20_usize {
            let states = (0..10).map(|seat| if seat <= round % 10 { Held } else { Free }).collect();
            (last, _, _) = history.add(Uuid::nil(), states);
        }
        assert_eq!(history.between(&first, last), None);
        assert!(history.changes <= 10, "{}", history.changes);
    }
}
