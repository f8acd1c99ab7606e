//! Rate limits for requests, per instance: permits that return evenly, for each user, key or address.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::error::Code;
use super::origin::network;
use super::problem::{Problem, Result};
use crate::config;
use crate::ids::UserId;

/// A limit for each key. Keys with all their permits take no memory.
pub struct RateLimit<K: Hash + Eq + Clone> {
    permits: Option<(NonZeroU32, DefaultKeyedRateLimiter<K>)>,
}

/// No permit is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateExceeded {
    /// The limit.
    pub most: u32,
    /// How long until the next permit.
    pub wait: Duration,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// `most` requests per second; 0: no limit.
    pub fn per_second(most: u32) -> Self {
        Self::of(most, Quota::per_second)
    }

    /// `most` requests per minute; 0: no limit.
    pub fn per_minute(most: u32) -> Self {
        Self::of(most, Quota::per_minute)
    }

    fn of(most: u32, quota: fn(NonZeroU32) -> Quota) -> Self {
        let permits = NonZeroU32::new(most);
        Self { permits: permits.map(|most| (most, RateLimiter::keyed(quota(most)))) }
    }

    pub fn check(&self, key: &K) -> std::result::Result<(), RateExceeded> {
        let Some((most, permits)) = &self.permits else {
            return Ok(());
        };
        permits.check_key(key).map_err(|refused| {
            let wait = refused.wait_time_from(permits.clock().now());
            RateExceeded { most: most.get(), wait }
        })
    }

    /// Removes the keys that have all their permits.
    pub fn remove_idle(&self) {
        if let Some((_, permits)) = &self.permits {
            permits.retain_recent();
        }
    }
}

/// The limits for joins: one for each user, and one for each address.
pub struct JoinLimits {
    users: RateLimit<UserId>,
    addresses: RateLimit<IpAddr>,
}

impl JoinLimits {
    pub fn new(settings: &config::Queue) -> Self {
        Self {
            users: RateLimit::per_minute(settings.queue_joins_per_minute),
            addresses: RateLimit::per_minute(settings.queue_joins_per_address_per_minute),
        }
    }

    /// Takes a permit of the user and one of the address. The error names the limit.
    pub fn check(&self, user: UserId, address: Option<IpAddr>) -> Result<()> {
        self.users.check(&user).map_err(|refused| exceeded("A user", refused))?;
        match address {
            Some(address) => {
                self.addresses.check(&network(address)).map_err(|refused| exceeded("An address", refused))
            }
            None => Ok(()),
        }
    }

    pub fn remove_idle(&self) {
        self.users.remove_idle();
        self.addresses.remove_idle();
    }
}

fn exceeded(who: &str, refused: RateExceeded) -> Problem {
    let RateExceeded { most, wait } = refused;
    let detail = format!("{who} may ask for a place in line {most} times a minute. Wait, and ask again.");
    Problem::new(Code::RateLimited, detail).with("limit", most).after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;

    #[test]
    fn each_key_has_permits_of_its_own() {
        let limit = RateLimit::per_second(3);
        assert!((0..3).all(|_| limit.check(&"one").is_ok()));
        let refused = limit.check(&"one").unwrap_err();
        assert_eq!(refused.most, 3);
        assert!(refused.wait <= Duration::from_millis(334), "{refused:?}");
        assert!(limit.check(&"other").is_ok());
        let free = RateLimit::per_minute(0);
        assert!((0..1_000).all(|_| free.check(&"one").is_ok()));
    }

    #[test]
    fn idle_key_is_removed() {
        let limit = RateLimit::per_second(1_000);
        limit.check(&"one").unwrap();
        std::thread::sleep(Duration::from_millis(5));
        limit.remove_idle();
        assert!(limit.permits.is_some_and(|(_, permits)| permits.is_empty()));
    }

    #[test]
    fn users_of_one_network_share_its_permits() {
        let limits = JoinLimits { users: RateLimit::per_minute(60), addresses: RateLimit::per_minute(2) };
        let ask = |address: &str| limits.check(ids::new(), address.parse().ok());
        assert!(ask("2001:db8::1").is_ok() && ask("2001:db8::2").is_ok());
        let refused = ask("2001:db8:0:0:ffff::1").unwrap_err();
        assert_eq!(refused.code(), Code::RateLimited);
        assert!(refused.body()["detail"].as_str().unwrap().contains("An address may ask"), "{refused:?}");
        assert!(ask("2001:db8:0:1::1").is_ok());
        assert!((0..2).all(|_| ask("192.0.2.1").is_ok()) && ask("192.0.2.1").is_err());
        assert!(ask("unknown").is_ok());
    }
}
