//! What happened in a line in the last minute, since this instance started to watch.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::place::PlaceStatus;
use super::rate::LastMinute;
use super::release_rate::ReleaseRate;
use crate::clock::plus;

#[derive(Debug, Default)]
pub struct LineCounts {
    pub joined: LastMinute,
    pub admitted: LastMinute,
    pub silenced: LastMinute,
    /// Admitted users who did not book within the claim window.
    pub no_shows: LastMinute,
    /// How often places are released.
    pub release_rate: ReleaseRate,
}

impl LineCounts {
    /// Counts a new status. `was` is `None` for a new place.
    pub fn note(&mut self, was: Option<PlaceStatus>, now: PlaceStatus, since_start: Duration) {
        match (was, now) {
            (None, PlaceStatus::Waiting) => self.joined.count(since_start),
            (Some(PlaceStatus::Waiting), PlaceStatus::Silent { .. }) => self.silenced.count(since_start),
            (was, PlaceStatus::Active { .. }) if was.is_none_or(|was| was.is_in_line()) => {
                self.admitted.count(since_start);
            }
            _ => (),
        }
    }

    /// Counts the end of a place that had this status.
    pub fn note_end(&mut self, was: PlaceStatus, at: DateTime<Utc>, since_start: Duration) {
        if !was.is_in_line() {
            self.release_rate.count();
        }
        // The bucket has whole seconds.
        let at = plus(at, TimeDelta::seconds(1));
        if matches!(was, PlaceStatus::Active { expires_at, used: false, .. } if expires_at <= at) {
            self.no_shows.count(since_start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn no_shows_are_distinguished_from_other_ends() {
        let mut counts = LineCounts::default();
        let second = Duration::from_secs(1);
        let active = |used| PlaceStatus::Active { activated_at: at(0), expires_at: at(60), used };
        counts.note_end(active(false), at(30), second);
        counts.note_end(active(true), at(60), second);
        counts.note_end(PlaceStatus::Silent { grace_until: at(60) }, at(60), second);
        assert_eq!(counts.no_shows.total(second), 0);
        counts.note_end(active(false), at(60), second);
        assert_eq!(counts.no_shows.total(second), 1);
    }

    #[test]
    fn returning_user_counts_as_no_join() {
        let mut counts = LineCounts::default();
        let second = Duration::from_secs(1);
        let silent = PlaceStatus::Silent { grace_until: at(60) };
        counts.note(None, PlaceStatus::Waiting, second);
        counts.note(Some(PlaceStatus::Waiting), silent, second);
        counts.note(Some(silent), PlaceStatus::Waiting, second);
        let total = |last: &LastMinute| last.total(second);
        assert_eq!((total(&counts.joined), total(&counts.silenced), total(&counts.admitted)), (1, 1, 0));
    }
}
