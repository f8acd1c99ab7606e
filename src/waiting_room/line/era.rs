//! The present bucket among those that were lost before it, and what may still come back from them.

use super::super::place::Place;
use crate::bus::incarnation;

/// Which bucket the present one is, and whether the places of those before it have been written into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Era {
    /// The present bucket.
    pub incarnation: u64,
    /// Up to which revision of the buckets before it everything had been journalled. Once this is known all that was
    /// in the journal lies in the present bucket.
    restored: Option<u64>,
}

impl Era {
    /// A bucket into which nothing has been restored yet.
    pub fn new(incarnation: u64) -> Self {
        Self { incarnation, restored: None }
    }

    /// All that had been journalled up to that revision has been written into it.
    pub fn restore(&mut self, journalled: u64) {
        self.restored = Some(journalled);
    }

    /// Whether the places of earlier buckets have been written into this one.
    pub fn is_restored(&self) -> bool {
        self.restored.is_some()
    }

    /// Whether a place was taken in an earlier bucket, and this one does not say yet that it is over: it has not been
    /// restored, or the place was taken in the last moment and never journalled.
    pub fn is_undecided(&self, place: Place) -> bool {
        self.is_earlier(place) && self.restored.is_none_or(|journalled| place > journalled)
    }

    /// Whether whoever presents a token of this place may have it back: it was taken in the last moment of an earlier
    /// bucket. All places from before are known, so one of those that lies nowhere is over.
    pub fn may_return(&self, place: Place) -> bool {
        self.is_restored() && self.is_undecided(place)
    }

    /// Whether a token from that bucket says something of this one: what an earlier one has admitted counts only if it
    /// was journalled, and then this instance knows it without the token.
    pub fn believes(&self, bucket: u64) -> bool {
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
        let mut era = Era::new(8);
        assert!(era.is_undecided(first(7)) && !era.may_return(first(7)), "nothing is known yet");
        assert!(!era.is_undecided(first(8)), "it is of this bucket");
        era.restore(first(7) + 10);
        assert!(!era.is_undecided(first(7) + 10), "the journal has it, or it is over");
        assert!(era.may_return(first(7) + 11), "taken in the last moment");
        assert!(!era.may_return(first(6) + 11), "of the bucket before");
        assert!(!era.may_return(first(8)));
        assert!(era.believes(8) && !era.believes(7));
    }
}
