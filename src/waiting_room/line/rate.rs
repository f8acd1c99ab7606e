//! The rate of admissions: a token bucket that refills by the rate per minute, and counters of the last minute.

use std::time::Duration;

use tokio::time::Instant;

/// A token bucket: full at the start, one second's worth deep, but at least 1.
#[derive(Clone, Copy, Debug)]
pub struct RateLimiter {
    tokens: f64,
    per_minute: u32,
    at: Instant,
}

impl RateLimiter {
    /// A full bucket, minus the tokens that another leader used in the last second.
    pub fn new(per_minute: u32, used_just_now: u32, now: Instant) -> Self {
        let tokens = (depth(per_minute) - f64::from(used_just_now)).max(0.0);
        Self { tokens, per_minute, at: now }
    }

    pub fn available(&mut self, per_minute: u32, now: Instant) -> usize {
        self.refill(per_minute, now);
        // The small excess compensates rounding.
        (self.tokens + 1e-9).floor() as usize
    }

    /// Takes tokens that [`Self::available`] has returned.
    pub fn take(&mut self, count: usize) {
        self.tokens = (self.tokens - count as f64).max(0.0);
    }

    /// How long until the next token; `None` at a rate of 0.
    pub fn next_in(&self) -> Option<Duration> {
        if self.per_minute == 0 {
            return None;
        }
        let missing = (1.0 - self.tokens).max(0.0);
        Some(Duration::from_secs_f64(missing * 60.0 / f64::from(self.per_minute)))
    }

    fn refill(&mut self, per_minute: u32, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        // The old rate applies to the time that has passed.
        self.tokens += elapsed * f64::from(self.per_minute) / 60.0;
        self.per_minute = per_minute;
        self.at = now;
        self.tokens = self.tokens.min(depth(per_minute));
    }
}

fn depth(per_minute: u32) -> f64 {
    if per_minute == 0 { 0.0 } else { (f64::from(per_minute) / 60.0).max(1.0) }
}

/// A counter for each of the last 60 seconds.
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
    /// `since_start` is the time since the start of this process.
    pub fn count(&mut self, since_start: Duration) {
        self.advance(since_start.as_secs());
        let index = (self.second % 60) as usize;
        self.seconds[index] = self.seconds[index].saturating_add(1);
    }

    /// The sum of the last 60 seconds, the current one included.
    pub fn total(&self, since_start: Duration) -> u32 {
        self.over(since_start, 60)
    }

    /// The sum of the last `seconds`, the current one included.
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
    fn token_bucket_is_full_at_the_start() {
        let now = Instant::now();
        assert_eq!(RateLimiter::new(6_000, 0, now).available(6_000, now), 100);
        assert_eq!(RateLimiter::new(6, 0, now).available(6, now), 1);
        assert_eq!(RateLimiter::new(0, 0, now).available(0, now), 0);
        assert_eq!(RateLimiter::new(6_000, 70, now).available(6_000, now), 30);
    }

    #[test]
    fn it_refills_by_the_rate_and_says_when() {
        let start = Instant::now();
        let mut tokens = RateLimiter::new(60, 0, start);
        tokens.take(1);
        assert_eq!(tokens.available(60, start), 0);
        assert_eq!(tokens.next_in(), Some(Duration::from_secs(1)));
        assert_eq!(tokens.available(60, start + Duration::from_millis(999)), 0);
        assert_eq!(tokens.available(60, start + Duration::from_millis(1_000)), 1);
        assert_eq!(tokens.available(60, start + Duration::from_secs(100)), 1, "never deeper than its depth");
    }

    #[test]
    fn a_new_rate_is_in_force_at_once() {
        let start = Instant::now();
        let mut tokens = RateLimiter::new(6_000, 0, start);
        assert_eq!(tokens.available(60, start), 1);
        assert_eq!(tokens.available(0, start), 0);
        assert_eq!(tokens.next_in(), None);
        assert_eq!(
            tokens.available(600, start + Duration::from_secs(9)),
            0,
            "nothing came in at a rate of 0"
        );
        assert_eq!(tokens.available(600, start + Duration::from_secs(10)), 10);
    }

    proptest! {
        #[test]
        fn rate_is_exceeded_at_most_by_the_depth(
            rate in 0u32..20_000,
            steps in prop::collection::vec(0u64..700, 1..200),
        ) {
            let start = Instant::now();
            let mut tokens = RateLimiter::new(rate, 0, start);
            let (mut at, mut taken) = (0, 0);
            for step in steps {
                at += step;
                if at > 60_000 { break; }
                let available = tokens.available(rate, start + Duration::from_millis(at));
                tokens.take(available);
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
