//! What happened in a line in the last minute, as far as this instance has been watching.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::super::place::Standing;
use super::pace::Pace;
use super::rate::LastMinute;
use crate::clock::plus;

/// The counts of one line.
#[derive(Debug, Default)]
pub struct Tally {
    /// Joins.
    pub joined: LastMinute,
    /// Admissions.
    pub admitted: LastMinute,
    /// Those who went silent.
    pub silenced: LastMinute,
    /// Those who were admitted and did not come within the claim window.
    pub no_shows: LastMinute,
    /// How often places are given back.
    pub pace: Pace,
}

impl Tally {
    /// A place that was known or not stands anew.
    pub fn note(&mut self, was: Option<Standing>, now: Standing, since_start: Duration) {
        match (was, now) {
            (None, Standing::Waiting) => self.joined.count(since_start),
            (Some(Standing::Waiting), Standing::Silent { .. }) => self.silenced.count(since_start),
            (was, Standing::Active { .. }) if was.is_none_or(|was| was.is_in_line()) => {
                self.admitted.count(since_start);
            }
            _ => (),
        }
    }

    /// A place that stood like this ended at that time.
    pub fn note_end(&mut self, was: Standing, at: DateTime<Utc>, since_start: Duration) {
        if !was.is_in_line() {
            self.pace.count();
        }
        // The bucket tells whole seconds.
        let at = plus(at, TimeDelta::seconds(1));
        if matches!(was, Standing::Active { expires_at, used: false, .. } if expires_at <= at) {
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
    fn who_did_not_come_is_told_from_who_left_and_who_came() {
        let mut tally = Tally::default();
        let second = Duration::from_secs(1);
        let active = |used| Standing::Active { activated_at: at(0), expires_at: at(60), used };
        tally.note_end(active(false), at(30), second);
        tally.note_end(active(true), at(60), second);
        tally.note_end(Standing::Silent { grace_until: at(60) }, at(60), second);
        assert_eq!(tally.no_shows.total(second), 0);
        tally.note_end(active(false), at(60), second);
        assert_eq!(tally.no_shows.total(second), 1);
    }

    #[test]
    fn who_is_silent_and_comes_back_is_neither_a_join_nor_an_admission() {
        let mut tally = Tally::default();
        let second = Duration::from_secs(1);
        let silent = Standing::Silent { grace_until: at(60) };
        tally.note(None, Standing::Waiting, second);
        tally.note(Some(Standing::Waiting), silent, second);
        tally.note(Some(silent), Standing::Waiting, second);
        let total = |last: &LastMinute| last.total(second);
        assert_eq!((total(&tally.joined), total(&tally.silenced), total(&tally.admitted)), (1, 1, 0));
    }
}
