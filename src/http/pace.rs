//! How often somebody may ask: permits that come back evenly, as many at most as the limit names. Per instance.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// The permits of all who asked lately.
pub struct Pace<K: Hash + Eq + Clone> {
    permits: Option<(NonZeroU32, DefaultKeyedRateLimiter<K>)>,
}

/// There is no permit left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    /// The limit.
    pub most: u32,
    /// How long until there is a permit again.
    pub wait: Duration,
}

impl<K: Hash + Eq + Clone> Pace<K> {
    /// So many per second; 0 for no limit.
    pub fn per_second(most: u32) -> Self {
        Self::of(most, Quota::per_second)
    }

    /// So many per minute; 0 for no limit.
    pub fn per_minute(most: u32) -> Self {
        Self::of(most, Quota::per_minute)
    }

    fn of(most: u32, quota: fn(NonZeroU32) -> Quota) -> Self {
        let permits = NonZeroU32::new(most);
        Self { permits: permits.map(|most| (most, RateLimiter::keyed(quota(most)))) }
    }

    /// Takes a permit, if there is one.
    pub fn check(&self, key: &K) -> Result<(), TooOften> {
        let Some((most, permits)) = &self.permits else {
            return Ok(());
        };
        permits.check_key(key).map_err(|refused| {
            let wait = refused.wait_time_from(permits.clock().now());
            TooOften { most: most.get(), wait }
        })
    }

    /// Forgets those whose permits have all come back.
    pub fn forget_idle(&self) {
        if let Some((_, permits)) = &self.permits {
            permits.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_permits_of_their_own_and_zero_is_no_limit() {
        let pace = Pace::per_second(3);
        assert!((0..3).all(|_| pace.check(&"one").is_ok()));
        let refused = pace.check(&"one").unwrap_err();
        assert_eq!(refused.most, 3);
        assert!(refused.wait <= Duration::from_millis(334), "{refused:?}");
        assert!(pace.check(&"other").is_ok());
        let free = Pace::per_minute(0);
        assert!((0..1_000).all(|_| free.check(&"one").is_ok()));
    }

    #[test]
    fn unused_concurrency_limit_is_removed() {
        let pace = Pace::per_second(1_000);
        pace.check(&"one").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        pace.forget_idle();
        assert!(pace.permits.is_some_and(|(_, permits)| permits.is_empty()));
    }
}
