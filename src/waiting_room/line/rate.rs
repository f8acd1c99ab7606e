//! The pace of admission: a bucket of permits that refills by the minute's rate, and a count of the last minute.

use std::time::Duration;

use tokio::time::Instant;

/// Permits to admit: full at the start, one second's worth deep but at least one.
#[derive(Clone, Copy, Debug)]
pub struct Permits {
    permits: f64,
    per_minute: u32,
    at: Instant,
}

impl Permits {
    /// A full bucket, less what somebody else has used of the second before.
    pub fn new(per_minute: u32, used_just_now: u32, now: Instant) -> Self {
        let permits = (depth(per_minute) - f64::from(used_just_now)).max(0.0);
        Self { permits, per_minute, at: now }
    }

    /// How many may be admitted now, at this rate.
    pub fn available(&mut self, per_minute: u32, now: Instant) -> usize {
        self.refill(per_minute, now);
        // The tiny excess makes up for what adding fractions loses.
        (self.permits + 1e-9).floor() as usize
    }

    /// Takes permits that [`Self::available`] has just promised.
    pub fn take(&mut self, count: usize) {
        self.permits = (self.permits - count as f64).max(0.0);
    }

    /// How long until the next permit; nothing at a rate of 0.
    pub fn next_in(&self) -> Option<Duration> {
        if self.per_minute == 0 {
            return None;
        }
        let missing = (1.0 - self.permits).max(0.0);
        Some(Duration::from_secs_f64(missing * 60.0 / f64::from(self.per_minute)))
    }

    fn refill(&mut self, per_minute: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        // The time that has passed was passed at the old rate; the new one begins now.
        self.permits += elapsed * f64::from(self.per_minute) / 60.0;
        self.per_minute = per_minute;
        self.at = now;
        self.permits = self.permits.min(depth(per_minute));
    }
}

fn depth(per_minute: u32) -> f64 {
    if per_minute == 0 { 0.0 } else { (f64::from(per_minute) / 60.0).max(1.0) }
}

/// How often something happened in the last minute, counted by the second.
#[derive(Clone, Debug)]
pub struct LastMinute {
    seconds: [u32; 60],
    second: u64,
}

impl Default for LastMinute {
    fn default() -> Self {
        Self { seconds: [0; 60], second: 0 }
    }
}

impl LastMinute {
    /// Counts one, `since_start` after a moment that never changes.
    pub fn count(&mut self, since_start: Duration) {
        self.advance(since_start.as_secs());
        let index = (self.second % 60) as usize;
        self.seconds[index] = self.seconds[index].saturating_add(1);
    }

    /// How many of the last sixty seconds, the running one included.
    pub fn total(&self, since_start: Duration) -> u32 {
        self.over(since_start, 60)
    }

    /// How many of the last `seconds`, the running one included.
    pub fn over(&self, since_start: Duration, seconds: u64) -> u32 {
        let now = since_start.as_secs();
        (0..60u64)
            .filter(|back| self.second >= *back && now.saturating_sub(self.second - back) < seconds)
            .map(|back| self.seconds[((self.second - back) % 60) as usize])
            .fold(0, u32::saturating_add)
    }

    fn advance(&mut self, second: u64) {
        for passed in (self.second + 1..=second).rev().take(60) {
            self.seconds[(passed % 60) as usize] = 0;
        }
        self.second = self.second.max(second);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_full_at_the_start_one_second_deep_but_at_least_one() {
        let now = Instant::now();
        assert_eq!(Permits::new(6_000, 0, now).available(6_000, now), 100);
        assert_eq!(Permits::new(6, 0, now).available(6, now), 1);
        assert_eq!(Permits::new(0, 0, now).available(0, now), 0);
        assert_eq!(Permits::new(6_000, 70, now).available(6_000, now), 30);
    }

    #[test]
    fn it_refills_by_the_rate_and_says_when() {
        let start = Instant::now();
        let mut permits = Permits::new(60, 0, start);
        permits.take(1);
        assert_eq!(permits.available(60, start), 0);
        assert_eq!(permits.next_in(), Some(Duration::from_secs(1)));
        assert_eq!(permits.available(60, start + Duration::from_millis(999)), 0);
        assert_eq!(permits.available(60, start + Duration::from_millis(1_000)), 1);
        assert_eq!(permits.available(60, start + Duration::from_secs(100)), 1, "never deeper than its depth");
    }

    #[test]
    fn a_new_rate_is_in_force_at_once() {
        let start = Instant::now();
        let mut permits = Permits::new(6_000, 0, start);
        assert_eq!(permits.available(60, start), 1);
        assert_eq!(permits.available(0, start), 0);
        assert_eq!(permits.next_in(), None);
        assert_eq!(
            permits.available(600, start + Duration::from_secs(9)),
            0,
            "nothing came in at a rate of 0"
        );
        assert_eq!(permits.available(600, start + Duration::from_secs(10)), 10);
    }

    proptest! {
        #[test]
        fn no_minute_exceeds_the_rate_by_more_than_the_depth(
            rate in 0u32..20_000,
            steps in prop::collection::vec(0u64..700, 1..200),
        ) {
            let start = Instant::now();
            let mut permits = Permits::new(rate, 0, start);
            let (mut at, mut taken) = (0, 0);
            for step in steps {
                at += step;
                if at > 60_000 { break; }
                let available = permits.available(rate, start + Duration::from_millis(at));
                permits.take(available);
                taken += available;
            }
            prop_assert!(taken as f64 <= f64::from(rate) + depth(rate) + 1e-6);
        }
    }

    #[test]
    fn the_last_minute_forgets_what_is_older() {
        let second = Duration::from_secs;
        let mut last = LastMinute::default();
        for at in [0, 0, 1, 30, 59] {
            last.count(second(at));
        }
        assert_eq!(last.total(second(59)), 5);
        assert_eq!(last.total(second(60)), 3);
        assert_eq!(last.over(second(60), 2), 1);
        assert_eq!(last.total(second(89)), 2);
        assert_eq!(last.total(second(500)), 0);
        last.count(second(500));
        assert_eq!(last.total(second(500)), 1);
    }
}
