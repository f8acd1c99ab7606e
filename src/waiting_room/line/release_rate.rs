//! How often places of a full line are released, measured over minutes, so that estimates do not jump.
//!
//! Releases are measured and not admissions. The first admissions fill the free places at the configured rate, which
//! says nothing about the users behind them.

use std::time::Duration;

/// After this time a measurement counts for about a third (1/e).
const FADE_SECONDS: f64 = 120.0;
/// With fewer releases there is no rate.
const MIN_PLACES: f64 = 3.0;

#[derive(Clone, Copy, Debug, Default)]
pub struct ReleaseRate {
    /// Releases since the last call of [`Self::pass`].
    fresh: u32,
    places: f64,
    seconds: f64,
    at: Option<Duration>,
}

impl ReleaseRate {
    pub fn count(&mut self) {
        self.fresh = self.fresh.saturating_add(1);
    }

    /// Advances the time to `since_start`. The time counts only while users wait and can be admitted.
    pub fn pass(&mut self, since_start: Duration, counts: bool) {
        let before = self.at.replace(since_start).unwrap_or(since_start);
        let fresh = std::mem::take(&mut self.fresh);
        let seconds = since_start.saturating_sub(before).as_secs_f64();
        if counts && seconds > 0.0 {
            let fade = (-seconds / FADE_SECONDS).exp();
            self.places = self.places * fade + f64::from(fresh);
            self.seconds = self.seconds * fade + seconds;
        }
    }

    /// Releases per second; `None` if too few were measured.
    pub fn per_second(&self) -> Option<f64> {
        (self.places >= MIN_PLACES).then(|| self.places / self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Passes seconds with so many releases in each.
    fn pass(pace: &mut ReleaseRate, seconds: std::ops::Range<u64>, each: u32, counts: bool) {
        for second in seconds {
            (0..each).for_each(|_| pace.count());
            pace.pass(Duration::from_secs(second), counts);
        }
    }

    fn is_about(pace: &ReleaseRate, wanted: f64) -> bool {
        pace.per_second().is_some_and(|pace| (pace - wanted).abs() < wanted / 10.0)
    }

    #[test]
    fn rate_is_known_after_a_few_releases() {
        let mut pace = ReleaseRate::default();
        assert_eq!(pace.per_second(), None);
        pass(&mut pace, 0..2, 2, true);
        assert_eq!(pace.per_second(), None);
        pass(&mut pace, 2..20, 2, true);
        assert!(is_about(&pace, 2.0), "{pace:?}");
    }

    #[test]
    fn rate_follows_a_change_within_minutes() {
        let mut pace = ReleaseRate::default();
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
    fn releases_without_waiting_users_do_not_count() {
        let mut pace = ReleaseRate::default();
        pass(&mut pace, 0..600, 10, true);
        pass(&mut pace, 600..4_000, 0, false);
        assert!(is_about(&pace, 10.0), "{pace:?}");
        pass(&mut pace, 4_000..4_030, 10, true);
        assert!(is_about(&pace, 10.0), "{pace:?}");
    }
}
