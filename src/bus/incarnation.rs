//! One order over all buckets of places that ever were.
//!
//! A bucket that was lost and made again would count its revisions from 1 again. So each is made with a first revision
//! that lies behind every revision before it, and the server itself counts on from there:
//!
//! ```text
//! | 29 bits: the incarnation, the second in which the bucket was made, counted from 2025 | 34 bits: counted by the server |
//! ```
//!
//! Revisions, and places in line, can be compared whichever buckets they are of, and fit into 63 bits: into the
//! `bigint` of a database. A bucket from before there were incarnations counts from 1: its incarnation is 0.

use chrono::{DateTime, Utc};

/// Bits that the server counts: seventeen thousand million writes of one bucket.
const COUNTED: u32 = 34;
/// The highest incarnation: a second in the year 2042.
const LAST: u64 = (1 << 29) - 1;
/// 2025-01-01T00:00:00Z.
const EPOCH: i64 = 1_735_689_600;

/// Which bucket a revision is of: later buckets have greater numbers.
pub fn of(revision: u64) -> u64 {
    revision >> COUNTED
}

/// The first revision of that bucket.
pub fn first_revision(incarnation: u64) -> u64 {
    (incarnation << COUNTED) + 1
}

/// The incarnation of a bucket that is made now, and after another whose revisions came up to `known`. Two made within
/// a second, or by clocks that disagree, have different numbers as long as the earlier one is known.
pub fn next(now: DateTime<Utc>, known: u64) -> u64 {
    let second = u64::try_from(now.timestamp().saturating_sub(EPOCH)).unwrap_or(0);
    second.max(of(known).saturating_add(1)).min(LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(EPOCH + seconds, 0).unwrap()
    }

    #[test]
    fn every_revision_of_a_later_bucket_is_greater() {
        let (early, late) = (next(at(1_000), 0), next(at(1_001), 0));
        assert_eq!((early, late), (1_000, 1_001));
        let last_of_early = first_revision(late) - 2;
        assert_eq!(of(first_revision(early)), early);
        assert_eq!(of(last_of_early), early);
        assert!(last_of_early < first_revision(late));
    }

    #[test]
    fn new_bucket_is_always_later() {
        let known = first_revision(next(at(1_000), 0)) + 7;
        assert_eq!(next(at(1_000), known), 1_001);
        assert_eq!(next(at(-5), known), 1_001);
        assert_eq!(next(at(5_000), known), 5_000);
    }

    #[test]
    fn bucket_epochs_are_ordered_and_fit_bigint() {
        assert_eq!(of(12_345), 0);
        assert!(next(at(0), 12_345) > 0);
        let last = first_revision(next(DateTime::<Utc>::MAX_UTC, 0));
        assert!(i64::try_from(last + (1 << COUNTED) - 2).is_ok());
    }
}
