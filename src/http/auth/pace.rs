//! How often one user may call: permits that come back every second, one second's worth at most. Off unless set.

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::super::error::Code;
use super::super::problem::Problem;
use crate::ids::UserId;

/// The permits of all users who called lately, on this instance.
pub(super) struct Pace {
    permits: Option<(NonZeroU32, DefaultKeyedRateLimiter<UserId>)>,
}

impl Pace {
    /// So many requests per user and second; 0 for no limit.
    pub(super) fn new(per_second: u32) -> Self {
        let permits = NonZeroU32::new(per_second);
        Self { permits: permits.map(|most| (most, RateLimiter::keyed(Quota::per_second(most)))) }
    }

    /// Takes a permit, or refuses and names the limit.
    pub(super) fn check(&self, user: UserId) -> Result<(), Problem> {
        match &self.permits {
            Some((most, permits)) if permits.check_key(&user).is_err() => {
                let words = format!("A user may send {most} requests a second. Wait a second.");
                Err(Problem::new(Code::RateLimited, words))
            }
            _ => Ok(()),
        }
    }

    /// Forgets users whose permits have all come back.
    pub(super) fn forget_idle(&self) {
        if let Some((_, permits)) = &self.permits {
            permits.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;

    #[test]
    fn each_user_has_a_second_of_permits_and_zero_is_no_limit() {
        let (pace, one, other) = (Pace::new(3), ids::new(), ids::new());
        assert!((0..3).all(|_| pace.check(one).is_ok()));
        assert_eq!(pace.check(one).unwrap_err().code(), Code::RateLimited);
        assert!(pace.check(other).is_ok());
        let free = Pace::new(0);
        assert!((0..1_000).all(|_| free.check(one).is_ok()));
    }
}
