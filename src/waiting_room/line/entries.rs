//! What is kept of each place of a line, packed: most of a long line simply waits, and a waiter takes 48 bytes here and
//! nine in the index.
//!
//! The places stand in one array and keep their index in it, a [`Handle`], for as long as they live; a hash table of
//! handles finds them by user. How those stand who do not simply wait lies beside it. Beside each place is noted
//! until when nobody needs to worry about its owner, so that hearing of somebody changes one number under a read lock.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use hashbrown::HashTable;

use super::super::place::{Entry, Place, Standing};
use crate::ids::UserId;

/// Where a place is kept: good until the place is removed.
pub type Handle = u32;

/// The places of one line, by user.
#[derive(Debug, Default)]
pub struct Entries {
    kept: Vec<Kept>,
    index: HashTable<Indexed>,
    vacant: Vec<Handle>,
    /// How those stand who do not simply wait.
    standings: HashMap<Handle, Standing>,
    hasher: RandomState,
}

/// A handle beside half of its user's hash, so that the index grows without a look at every place there is.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    half: u32,
    handle: Handle,
}

impl Indexed {
    /// The table takes its bits from both ends.
    fn hash(&self) -> u64 {
        (u64::from(self.half) << 32) | u64::from(self.half)
    }
}

#[derive(Debug)]
struct Kept {
    user: UserId,
    revision: u64,
    place: Place,
    /// In microseconds since 1970.
    issued_at: i64,
    /// In seconds since this process began to watch; 0 if nothing was heard of its owner.
    trusted_until: AtomicU32,
    /// The replay that last told of this place; the last sixteen bits of its number are enough to tell it from the one before.
    replay: u16,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Vacant,
    Waiting,
    Otherwise,
}

impl Entries {
    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Where a user's place is kept.
    pub fn find(&self, user: UserId) -> Option<Handle> {
        let wanted = self.indexed(user, 0);
        let found = self.index.find(wanted.hash(), |one| self.is_of(one, wanted.half, user));
        found.map(|one| one.handle)
    }

    /// A user's place.
    pub fn get(&self, user: UserId) -> Option<Entry> {
        self.find(user).map(|handle| self.at(handle).1)
    }

    /// Whose place a handle is, and the place.
    pub fn at(&self, handle: Handle) -> (UserId, Entry) {
        let kept = &self.kept[handle as usize];
        let standing = match kept.kind {
            Kind::Waiting => Standing::Waiting,
            _ => self.standings.get(&handle).copied().unwrap_or(Standing::Waiting),
        };
        let issued_at = DateTime::<Utc>::from_timestamp_micros(kept.issued_at).unwrap_or_default();
        (kept.user, Entry { revision: kept.revision, place: kept.place, issued_at, standing })
    }

    /// Keeps a user's place as it stands now, as `replay` told it.
    pub fn put(&mut self, user: UserId, entry: Entry, replay: u32) -> Handle {
        let handle = self.find(user).unwrap_or_else(|| self.make_room(user));
        let kept = &mut self.kept[handle as usize];
        kept.revision = entry.revision;
        if kept.place != entry.place {
            *kept.trusted_until.get_mut() = 0;
        }
        kept.place = entry.place;
        kept.issued_at = entry.issued_at.timestamp_micros();
        kept.replay = replay as u16;
        if entry.standing == Standing::Waiting {
            kept.kind = Kind::Waiting;
            self.standings.remove(&handle);
        } else {
            kept.kind = Kind::Otherwise;
            self.standings.insert(handle, entry.standing);
        }
        handle
    }

    /// `replay` told of this place, and nothing new.
    pub fn retell(&mut self, handle: Handle, replay: u32) {
        self.kept[handle as usize].replay = replay as u16;
    }

    /// Removes a user's place.
    pub fn remove(&mut self, user: UserId) -> Option<Entry> {
        let wanted = self.indexed(user, 0);
        let is_it = |one: &Indexed| one.half == wanted.half && self.kept[one.handle as usize].user == user;
        let (Indexed { handle, .. }, _) = self.index.find_entry(wanted.hash(), is_it).ok()?.remove();
        let (_, entry) = self.at(handle);
        self.kept[handle as usize].kind = Kind::Vacant;
        self.standings.remove(&handle);
        self.vacant.push(handle);
        if self.is_empty() {
            // Nobody is left: the memory of a long line is given back.
            *self = Self::default();
        }
        Some(entry)
    }

    /// Whose places `replay` did not tell of.
    pub fn untold(&self, replay: u32) -> Vec<UserId> {
        let kept = self.kept.iter().filter(|kept| kept.kind != Kind::Vacant);
        kept.filter(|kept| kept.replay != replay as u16).map(|kept| kept.user).collect()
    }

    /// Whose places were written after that revision, among `most` from `first` on; and where to go on.
    pub fn written_since(&self, revision: u64, first: Handle, most: usize) -> (Vec<UserId>, Option<Handle>) {
        let (slice, next) = self.slice(first, most);
        let kept = self.kept[slice].iter().filter(|kept| kept.kind != Kind::Vacant);
        (kept.filter(|kept| kept.revision > revision).map(|kept| kept.user).collect(), next)
    }

    /// Nobody needs to worry about the owner of this place before that second; answers whether that was not known yet.
    pub fn trust(&self, handle: Handle, until: u32) -> bool {
        self.kept[handle as usize].trusted_until.fetch_max(until, Ordering::Relaxed) < until
    }

    /// Until when nobody needs to worry about the owner of this place.
    pub fn trusted_until(&self, handle: Handle) -> u32 {
        self.kept[handle as usize].trusted_until.load(Ordering::Relaxed)
    }

    /// Those among `most` places from `first` on who wait and of whom too long nothing was heard.
    pub fn doubtful(&self, first: Handle, most: usize, now: u32) -> impl Iterator<Item = Handle> + '_ {
        let (slice, _) = self.slice(first, most);
        let doubtful = slice.filter(move |index| {
            let kept = &self.kept[*index];
            kept.kind == Kind::Waiting && kept.trusted_until.load(Ordering::Relaxed) < now
        });
        doubtful.map(|index| index as Handle)
    }

    /// How many of those who are here joined since then, and how many were admitted since then. It looks at all of them.
    pub fn since(&self, then: DateTime<Utc>) -> (u64, u64) {
        let came = |kept: &&Kept| kept.kind != Kind::Vacant && kept.issued_at >= then.timestamp_micros();
        let admitted = |standing: &&Standing| match standing {
            Standing::Active { activated_at, .. } => *activated_at >= then,
            Standing::Waiting | Standing::Silent { .. } => false,
        };
        let joined = self.kept.iter().filter(came).count();
        (joined as u64, self.standings.values().filter(admitted).count() as u64)
    }

    /// How many places have room here, taken or vacant.
    pub fn rooms(&self) -> usize {
        self.kept.len()
    }

    /// Where `most` places from `first` on lie, and the first behind them.
    fn slice(&self, first: Handle, most: usize) -> (Range<usize>, Option<Handle>) {
        let start = (first as usize).min(self.kept.len());
        let end = (start + most).min(self.kept.len());
        (start..end, (end < self.kept.len()).then_some(end as Handle))
    }

    fn make_room(&mut self, user: UserId) -> Handle {
        let kept = Kept {
            user,
            revision: 0,
            place: Place::default(),
            issued_at: 0,
            trusted_until: AtomicU32::new(0),
            replay: 0,
            kind: Kind::Vacant,
        };
        let handle = match self.vacant.pop() {
            Some(handle) => {
                self.kept[handle as usize] = kept;
                handle
            }
            None => {
                self.kept.push(kept);
                // More than four thousand million places need more memory than there is.
                (self.kept.len() - 1) as Handle
            }
        };
        let indexed = self.indexed(user, handle);
        self.index.insert_unique(indexed.hash(), indexed, Indexed::hash);
        handle
    }

    fn indexed(&self, user: UserId, handle: Handle) -> Indexed {
        Indexed { half: (self.hasher.hash_one(user) >> 32) as u32, handle }
    }

    fn is_of(&self, one: &Indexed, half: u32, user: UserId) -> bool {
        one.half == half && self.kept[one.handle as usize].user == user
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 123_456_000).unwrap()
    }

    fn user(number: u8) -> UserId {
        UserId::from_u128(number.into())
    }

    fn entry(place: Place, standing: Standing) -> Entry {
        Entry { revision: place + 1, place, issued_at: at(1), standing }
    }

    fn standing() -> impl Strategy<Value = Standing> {
        prop_oneof![
            Just(Standing::Waiting),
            (0i64..100).prop_map(|end| Standing::Silent { grace_until: at(end) }),
            (0i64..100, any::<bool>()).prop_map(|(end, used)| Standing::Active {
                activated_at: at(0),
                expires_at: at(end),
                used
            }),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map(acts in prop::collection::vec((0u8..20, 1u64..1_000, prop::option::of(standing())), 0..200)) {
            let mut entries = Entries::default();
            let mut model = HashMap::new();
            for (number, place, standing) in acts {
                match standing {
                    Some(standing) => {
                        let handle = entries.put(user(number), entry(place, standing), 1);
                        prop_assert_eq!(entries.find(user(number)), Some(handle));
                        model.insert(number, entry(place, standing));
                    }
                    None => prop_assert_eq!(entries.remove(user(number)), model.remove(&number)),
                }
                prop_assert_eq!(entries.index.len(), model.len());
            }
            for number in 0..20 {
                prop_assert_eq!(entries.get(user(number)), model.get(&number).copied());
            }
            prop_assert!(entries.kept.len() <= 20, "what is vacant is used again");
        }
    }

    #[test]
    fn those_who_are_here_tell_when_they_joined_and_were_admitted() {
        let mut entries = Entries::default();
        let active = |since| Standing::Active { activated_at: at(since), expires_at: at(99), used: false };
        let of = |issued, standing| Entry { issued_at: at(issued), ..entry(1, standing) };
        let places =
            [of(0, Standing::Waiting), of(40, Standing::Waiting), of(1, active(39)), of(2, active(40))];
        for (number, place) in (1..).zip(places) {
            entries.put(user(number), place, 1);
        }
        assert_eq!(entries.since(at(40)), (1, 1));
        entries.remove(user(2));
        entries.remove(user(4));
        assert_eq!(entries.since(at(40)), (0, 0));
        assert_eq!(entries.since(at(0)), (2, 1));
    }

    #[test]
    fn whoever_was_heard_of_is_trusted_for_a_while_and_only_in_that_place() {
        let mut entries = Entries::default();
        let handle = entries.put(user(1), entry(5, Standing::Waiting), 1);
        let doubtful = |entries: &Entries, first, now| entries.doubtful(first, 1, now).collect::<Vec<_>>();
        assert_eq!(doubtful(&entries, 0, 1), [handle]);
        assert!(entries.trust(handle, 70) && !entries.trust(handle, 70) && !entries.trust(handle, 60));
        assert_eq!((doubtful(&entries, 0, 70), doubtful(&entries, 0, 71)), (vec![], vec![handle]));
        entries.put(user(1), entry(5, Standing::Silent { grace_until: at(9) }), 1);
        assert_eq!((doubtful(&entries, 0, 71), entries.trusted_until(handle)), (vec![], 70));
        entries.put(user(1), entry(9, Standing::Waiting), 1);
        assert_eq!(entries.trusted_until(handle), 0);
        entries.put(user(2), entry(10, Standing::Waiting), 1);
        assert_eq!((doubtful(&entries, 0, 1), doubtful(&entries, 1, 1)), (vec![0], vec![1]));
        assert_eq!((entries.rooms(), doubtful(&entries, 2, 1)), (2, vec![]));
    }

    #[test]
    fn a_place_takes_as_little_as_is_said_above() {
        assert_eq!(size_of::<Kept>(), 48);
    }
}
