//! How fast a line moves behind a full house: how often a place is given back, measured over minutes, so that an estimate
//! does not jump.
//!
//! Places given back and not admissions, because the first admissions fill an empty house at the rate that is set, and
//! that says nothing about those who wait behind it.

use std::time::Duration;

/// In seconds: what was measured counts for a third after this time.
const MEMORY: f64 = 120.0;
/// Fewer places than these say nothing.
const ENOUGH: f64 = 3.0;

/// The pace of one line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    /// Places given back since time was last let pass.
    fresh: u32,
    places: f64,
    seconds: f64,
    at: Option<Duration>,
}

impl Pace {
    /// A place was given back.
    pub fn count(&mut self) {
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Lets time pass until `since_start`. While nobody waits, or nobody is admitted, it says nothing and does not count.
    pub fn pass(&mut self, since_start: Duration, counts: bool) {
        let before = self.at.replace(since_start).unwrap_or(since_start);
        let fresh = std::mem::take(&mut self.fresh);
        let seconds = since_start.saturating_sub(before).as_secs_f64();
        if counts && seconds > 0.0 {
            let fade = (-seconds / MEMORY).exp();
            self.places = self.places * fade + f64::from(fresh);
            self.seconds = self.seconds * fade + seconds;
        }
    }

    /// How many places are given back in a second; nothing while there is too little to go by.
    pub fn per_second(&self) -> Option<f64> {
        (self.places >= ENOUGH).then(|| self.places / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes seconds with so many places given back in each.
    fn pass(pace: &mut Pace, seconds: std::ops::Range<u64>, each: u32, counts: bool) {
        for second in seconds {
            (0..each).for_each(|_| pace.count());
            pace.pass(Duration::from_secs(second), counts);
        }
    }

    fn is_about(pace: &Pace, wanted: f64) -> bool {
        pace.per_second().is_some_and(|pace| (pace - wanted).abs() < wanted / 10.0)
    }

    #[test]
    fn it_is_known_after_a_few_and_true_from_the_beginning() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_second(), None);
        pass(&mut pace, 0..2, 2, true);
        assert_eq!(pace.per_second(), None);
        pass(&mut pace, 2..20, 2, true);
        assert!(is_about(&pace, 2.0), "{pace:?}");
    }

    #[test]
    fn it_follows_a_change_within_minutes_and_does_not_jump() {
        let mut pace = Pace::default();
        pass(&mut pace, 0..600, 10, true);
        let before = pace.per_second().unwrap();
        pass(&mut pace, 600..601, 0, true);
        assert!(pace.per_second().unwrap() > before * 0.98);
        pass(&mut pace, 601..660, 2, true);
        let after_a_minute = pace.per_second().unwrap();
        assert!(after_a_minute > 4.0 && after_a_minute < 8.0, "{after_a_minute}");
        pass(&mut pace, 660..1_200, 2, true);
        assert!(is_about(&pace, 2.0), "{pace:?}");
    }

    #[test]
    fn what_happens_while_nobody_waits_says_nothing() {
        let mut pace = Pace::default();
        pass(&mut pace, 0..600, 10, true);
        pass(&mut pace, 600..4_000, 0, false);
        assert!(is_about(&pace, 10.0), "{pace:?}");
        pass(&mut pace, 4_000..4_030, 10, true);
        assert!(is_about(&pace, 10.0), "{pace:?}");
    }
}
