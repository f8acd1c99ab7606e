//! The places of one line in compact form: most users simply wait, and take 48 bytes here and nine in the index.
//!
//! The places are in one array, each at a fixed index, its [`Handle`]. A hash table of handles finds them by user. A
//! separate map has the status of places that do not simply wait. Each slot also has the time until which its owner is
//! trusted to be there, so that a heartbeat changes one number under a read lock.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, Utc};
use hashbrown::HashTable;

use super::super::place::{Entry, Place, PlaceStatus};
use crate::ids::UserId;

/// The index of a place, valid until the place is removed.
pub type Handle = u32;

#[derive(Debug, Default)]
pub struct Entries {
    slots: Vec<Slot>,
    index: HashTable<Indexed>,
    vacant: Vec<Handle>,
    /// The status of places that do not simply wait.
    statuses: HashMap<Handle, PlaceStatus>,
    hasher: RandomState,
}

/// A handle with half of its user's hash, so that the index can grow without reading the slots.
#[derive(Clone, Copy, Debug)]
struct Indexed {
    half: u32,
    handle: Handle,
}

impl Indexed {
    /// The hash table uses bits of both ends.
    fn hash(&self) -> u64 {
        (u64::from(self.half) << 32) | u64::from(self.half)
    }
}

#[derive(Debug)]
struct Slot {
    user: UserId,
    revision: u64,
    place: Place,
    /// Microseconds since 1970.
    issued_at: i64,
    /// Seconds since the start of this process; 0 if no heartbeat has arrived.
    trusted_until: AtomicU32,
    /// The last replay that showed this place. Its lower sixteen bits are enough to compare it with the current one.
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
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    pub fn find(&self, user: UserId) -> Option<Handle> {
        let wanted = self.indexed(user, 0);
        let found = self.index.find(wanted.hash(), |one| self.is_of(one, wanted.half, user));
        found.map(|one| one.handle)
    }

    pub fn get(&self, user: UserId) -> Option<Entry> {
        self.find(user).map(|handle| self.at(handle).1)
    }

    pub fn at(&self, handle: Handle) -> (UserId, Entry) {
        let slot = &self.slots[handle as usize];
        let status = match slot.kind {
            Kind::Waiting => PlaceStatus::Waiting,
            _ => self.statuses.get(&handle).copied().unwrap_or(PlaceStatus::Waiting),
        };
        let issued_at = DateTime::<Utc>::from_timestamp_micros(slot.issued_at).unwrap_or_default();
        (slot.user, Entry { revision: slot.revision, place: slot.place, issued_at, status })
    }

    /// Stores a user's place, as `replay` has shown it.
    pub fn put(&mut self, user: UserId, entry: Entry, replay: u32) -> Handle {
        let handle = self.find(user).unwrap_or_else(|| self.add_slot(user));
        let slot = &mut self.slots[handle as usize];
        slot.revision = entry.revision;
        if slot.place != entry.place {
            *slot.trusted_until.get_mut() = 0;
        }
        slot.place = entry.place;
        slot.issued_at = entry.issued_at.timestamp_micros();
        slot.replay = replay as u16;
        if entry.status == PlaceStatus::Waiting {
            slot.kind = Kind::Waiting;
            self.statuses.remove(&handle);
        } else {
            slot.kind = Kind::Otherwise;
            self.statuses.insert(handle, entry.status);
        }
        handle
    }

    /// `replay` has shown this place again, unchanged.
    pub fn confirm(&mut self, handle: Handle, replay: u32) {
        self.slots[handle as usize].replay = replay as u16;
    }

    pub fn remove(&mut self, user: UserId) -> Option<Entry> {
        let wanted = self.indexed(user, 0);
        let is_it = |one: &Indexed| one.half == wanted.half && self.slots[one.handle as usize].user == user;
        let (Indexed { handle, .. }, _) = self.index.find_entry(wanted.hash(), is_it).ok()?.remove();
        let (_, entry) = self.at(handle);
        self.slots[handle as usize].kind = Kind::Vacant;
        self.statuses.remove(&handle);
        self.vacant.push(handle);
        if self.is_empty() {
            // Frees the memory of a long line once the last user is gone.
            *self = Self::default();
        }
        Some(entry)
    }

    /// The users whose places `replay` did not show.
    pub fn unconfirmed(&self, replay: u32) -> Vec<UserId> {
        let slots = self.slots.iter().filter(|slots| slots.kind != Kind::Vacant);
        slots.filter(|slot| slot.replay != replay as u16).map(|slot| slot.user).collect()
    }

    /// The users whose places were written after `revision`, among `most` slots from `first` on, and where to
    /// continue.
    pub fn written_since(&self, revision: u64, first: Handle, most: usize) -> (Vec<UserId>, Option<Handle>) {
        let (slice, next) = self.slice(first, most);
        let slots = self.slots[slice].iter().filter(|slots| slots.kind != Kind::Vacant);
        (slots.filter(|slot| slot.revision > revision).map(|slot| slot.user).collect(), next)
    }

    /// Trusts the owner of this place until then. Returns whether that is longer than before.
    pub fn trust(&self, handle: Handle, until: u32) -> bool {
        self.slots[handle as usize].trusted_until.fetch_max(until, Ordering::Relaxed) < until
    }

    pub fn trusted_until(&self, handle: Handle) -> u32 {
        self.slots[handle as usize].trusted_until.load(Ordering::Relaxed)
    }

    /// The waiting places, among `most` slots from `first` on, whose owners are no longer trusted.
    pub fn possibly_silent(&self, first: Handle, most: usize, now: u32) -> impl Iterator<Item = Handle> + '_ {
        let (slice, _) = self.slice(first, most);
        let possibly_silent = slice.filter(move |index| {
            let slot = &self.slots[*index];
            slot.kind == Kind::Waiting && slot.trusted_until.load(Ordering::Relaxed) < now
        });
        possibly_silent.map(|index| index as Handle)
    }

    /// How many users of this line joined, and how many were admitted, since `then`. Reads all slots.
    pub fn since(&self, then: DateTime<Utc>) -> (u64, u64) {
        let came = |slot: &&Slot| slot.kind != Kind::Vacant && slot.issued_at >= then.timestamp_micros();
        let admitted = |status: &&PlaceStatus| match status {
            PlaceStatus::Active { activated_at, .. } => *activated_at >= then,
            PlaceStatus::Waiting | PlaceStatus::Silent { .. } => false,
        };
        let joined = self.slots.iter().filter(came).count();
        (joined as u64, self.statuses.values().filter(admitted).count() as u64)
    }

    /// The number of slots, vacant ones included.
    pub fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The range of `most` slots from `first` on, and the slot behind it.
    fn slice(&self, first: Handle, most: usize) -> (Range<usize>, Option<Handle>) {
        let start = (first as usize).min(self.slots.len());
        let end = (start + most).min(self.slots.len());
        (start..end, (end < self.slots.len()).then_some(end as Handle))
    }

    fn add_slot(&mut self, user: UserId) -> Handle {
        let slot = Slot {
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
                self.slots[handle as usize] = slot;
                handle
            }
            None => {
                self.slots.push(slot);
                // Memory ends long before the handles do.
                (self.slots.len() - 1) as Handle
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
        one.half == half && self.slots[one.handle as usize].user == user
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

    fn entry(place: Place, status: PlaceStatus) -> Entry {
        Entry { revision: place + 1, place, issued_at: at(1), status }
    }

    fn status() -> impl Strategy<Value = PlaceStatus> {
        prop_oneof![
            Just(PlaceStatus::Waiting),
            (0i64..100).prop_map(|end| PlaceStatus::Silent { grace_until: at(end) }),
            (0i64..100, any::<bool>()).prop_map(|(end, used)| PlaceStatus::Active {
                activated_at: at(0),
                expires_at: at(end),
                used
            }),
        ]
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_map(acts in prop::collection::vec((0u8..20, 1u64..1_000, prop::option::of(status())), 0..200)) {
            let mut entries = Entries::default();
            let mut model = HashMap::new();
            for (number, place, status) in acts {
                match status {
                    Some(status) => {
                        let handle = entries.put(user(number), entry(place, status), 1);
                        prop_assert_eq!(entries.find(user(number)), Some(handle));
                        model.insert(number, entry(place, status));
                    }
                    None => prop_assert_eq!(entries.remove(user(number)), model.remove(&number)),
                }
                prop_assert_eq!(entries.index.len(), model.len());
            }
            for number in 0..20 {
                prop_assert_eq!(entries.get(user(number)), model.get(&number).copied());
            }
            prop_assert!(entries.slots.len() <= 20, "what is vacant is used again");
        }
    }

    #[test]
    fn joins_and_admissions_since_a_time_are_counted() {
        let mut entries = Entries::default();
        let active = |since| PlaceStatus::Active { activated_at: at(since), expires_at: at(99), used: false };
        let of = |issued, status| Entry { issued_at: at(issued), ..entry(1, status) };
        let places =
            [of(0, PlaceStatus::Waiting), of(40, PlaceStatus::Waiting), of(1, active(39)), of(2, active(40))];
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
    fn heartbeat_is_trusted_for_that_place_only() {
        let mut entries = Entries::default();
        let handle = entries.put(user(1), entry(5, PlaceStatus::Waiting), 1);
        let possibly_silent =
            |entries: &Entries, first, now| entries.possibly_silent(first, 1, now).collect::<Vec<_>>();
        assert_eq!(possibly_silent(&entries, 0, 1), [handle]);
        assert!(entries.trust(handle, 70) && !entries.trust(handle, 70) && !entries.trust(handle, 60));
        assert_eq!(
            (possibly_silent(&entries, 0, 70), possibly_silent(&entries, 0, 71)),
            (vec![], vec![handle])
        );
        entries.put(user(1), entry(5, PlaceStatus::Silent { grace_until: at(9) }), 1);
        assert_eq!((possibly_silent(&entries, 0, 71), entries.trusted_until(handle)), (vec![], 70));
        entries.put(user(1), entry(9, PlaceStatus::Waiting), 1);
        assert_eq!(entries.trusted_until(handle), 0);
        entries.put(user(2), entry(10, PlaceStatus::Waiting), 1);
        assert_eq!((possibly_silent(&entries, 0, 1), possibly_silent(&entries, 1, 1)), (vec![0], vec![1]));
        assert_eq!((entries.slot_count(), possibly_silent(&entries, 2, 1)), (2, vec![]));
    }

    #[test]
    fn place_fits_its_documented_size() {
        assert_eq!(size_of::<Slot>(), 48);
    }
}
