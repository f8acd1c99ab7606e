//! The epoch of the bucket: which incarnation it is, and whether the places of earlier ones have been restored into
//! it.

use super::super::place::Place;
use crate::bus::incarnation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The incarnation of the present bucket.
    pub incarnation: u64,
    /// The revision of earlier buckets up to which the journal was complete at the restoration; `None` before it.
    restored: Option<u64>,
}

impl Epoch {
    pub fn new(incarnation: u64) -> Self {
        Self { incarnation, restored: None }
    }

    /// Marks the bucket as restored.
    pub fn restore(&mut self, journalled: u64) {
        self.restored = Some(journalled);
    }

    pub fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    /// Whether a place of an earlier bucket may still be valid: this bucket is not restored yet, or the place was
    /// taken too late to be journalled.
    pub fn is_undecided(&self, place: Place) -> bool {
        self.is_earlier(place) && self.restored.is_none_or(|journalled| place > journalled)
    }

    /// Whether the owner of a token for this place can have it restored: the place was taken too late to be
    /// journalled. Any other place that is not in the restored bucket has ended.
    pub fn can_be_restored(&self, place: Place) -> bool {
        self.is_restored() && self.is_undecided(place)
    }

    /// Whether an admission that a token shows, last seen in `bucket`, can be trusted. Admissions of an earlier bucket
    /// count only if they were journalled, and those are known without the token.
    pub fn trusts_admission_of(&self, bucket: u64) -> bool {
        bucket >= self.incarnation
    }

    fn is_earlier(&self, place: Place) -> bool {
        incarnation::of(place) < self.incarnation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_journalled_comes_back() {
        let first = |bucket| incarnation::first_revision(bucket);
        let mut epoch = Epoch::new(8);
        assert!(epoch.is_undecided(first(7)) && !epoch.can_be_restored(first(7)), "nothing is known yet");
        assert!(!epoch.is_undecided(first(8)), "it is of this bucket");
        epoch.restore(first(7) + 10);
        assert!(!epoch.is_undecided(first(7) + 10), "the journal has it, or it is over");
        assert!(epoch.can_be_restored(first(7) + 11), "taken in the last moment");
        assert!(!epoch.can_be_restored(first(6) + 11), "of the bucket before");
        assert!(!epoch.can_be_restored(first(8)));
        assert!(epoch.trusts_admission_of(8) && !epoch.trusts_admission_of(7));
    }
}
