//! Retry delays. They are pure functions: the jitter comes from a hash of saga and attempt.

use chrono::TimeDelta;
use serde::Deserialize;
use uuid::Uuid;

/// Upper bound of the time between two sends of a command without a reply.
const REPLY_TIMEOUT_CAP_MS: u64 = 60_000;

/// Limit of every delay, timeout and deadline in a definition: ten years.
pub(super) const MAX_SECONDS: u32 = 10 * 366 * 24 * 3_600;
pub(super) const MAX_MS: u64 = MAX_SECONDS as u64 * 1_000;

/// When and how often a failed command is retried.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The first delay.
    pub first_ms: u64,
    /// Each delay is the one before times this factor.
    pub factor: f64,
    /// The longest delay.
    pub cap_ms: u64,
    /// Failures before the saga compensates; `None`: no limit.
    pub attempts: Option<i32>,
    /// No retry later than this after the step was entered; `None`: no limit.
    pub total_seconds: Option<u32>,
    /// The largest part of a delay that the jitter takes away.
    pub jitter: f64,
    /// Codes of failures that are not retried.
    pub never: Vec<String>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first_ms: 100,
            factor: 2.0,
            cap_ms: 3_000,
            attempts: None,
            total_seconds: None,
            jitter: 0.2,
            never: Vec::new(),
        }
    }
}

impl Retry {
    /// The default policy of a command: about ten seconds in all.
    pub(super) fn of_do() -> Self {
        Self { attempts: Some(8), ..Self::default() }
    }

    /// The default policy of an undo: about an hour in all.
    pub(super) fn of_undo() -> Self {
        Self { cap_ms: 60_000, attempts: Some(70), ..Self::default() }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.first_ms == 0 || self.cap_ms < self.first_ms {
            return Err("its retry needs 1 <= first_ms <= cap_ms".into());
        }
        if !(1.0..=10.0).contains(&self.factor) || !(0.0..=1.0).contains(&self.jitter) {
            return Err("its retry needs a factor from 1 to 10 and a jitter from 0 to 1".into());
        }
        if self.cap_ms > MAX_MS || self.total_seconds.is_some_and(|total| total > MAX_SECONDS) {
            return Err("its retry takes a cap_ms and total_seconds of ten years at most".into());
        }
        if self.attempts.is_none() && self.total_seconds.is_none() {
            return Err("its retry needs attempts or total_seconds, or it would never give up".into());
        }
        if self.attempts.is_some_and(|attempts| attempts < 1) || self.total_seconds == Some(0) {
            return Err("its retry needs at least 1 attempt and at least 1 second".into());
        }
        Ok(())
    }

    /// Whether no retry follows the `attempt`th failure, which has this code and came `so_far` after the step was entered.
    pub fn exhausted(&self, saga: Uuid, attempt: i32, code: &str, so_far: TimeDelta) -> bool {
        let next = so_far.checked_add(&self.pause(saga, attempt)).unwrap_or(TimeDelta::MAX);
        self.never.iter().any(|never| never == code)
            || self.attempts.is_some_and(|attempts| attempt >= attempts)
            || self.total_seconds.is_some_and(|total| next > TimeDelta::seconds(total.into()))
    }

    /// The delay after the `attempt`th failure (from 1), with the saga's jitter.
    pub fn pause(&self, saga: Uuid, attempt: i32) -> TimeDelta {
        let grown = self.first_ms as f64 * self.factor.powi(attempt.saturating_sub(1).clamp(0, 64));
        let capped = grown.min(self.cap_ms as f64);
        let jitter = 1.0 - self.jitter * f64::from(spread(saga, attempt)) / f64::from(u32::MAX);
        milliseconds((capped * jitter) as u64)
    }
}

/// How long to wait for a reply to the `send`th resend of a command: doubling, at most a minute.
pub fn reply_timeout(timeout_ms: u64, send: i32) -> TimeDelta {
    let grown = timeout_ms.saturating_mul(1 << send.clamp(0, 16));
    milliseconds(grown.min(REPLY_TIMEOUT_CAP_MS.max(timeout_ms)))
}

fn milliseconds(count: u64) -> TimeDelta {
    i64::try_from(count.min(MAX_MS)).ok().and_then(TimeDelta::try_milliseconds).unwrap_or_default()
}

/// A hash of saga and attempt (the finaliser of SplitMix64).
fn spread(saga: Uuid, attempt: i32) -> u32 {
    let (high, low) = saga.as_u64_pair();
    let mut x = high ^ low.rotate_left(17) ^ (attempt as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_with_jitter() {
        let retry = Retry { cap_ms: 1_000, attempts: Some(5), never: vec!["no".into()], ..Retry::default() };
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for (attempt, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (50, 1_000)] {
            let pause = retry.pause(one, attempt).num_milliseconds();
            assert!(pause <= full && pause >= full * 8 / 10 - 1, "{attempt}: {pause}");
            assert_eq!(retry.pause(one, attempt), retry.pause(one, attempt));
        }
        assert_ne!(retry.pause(one, 5), retry.pause(other, 5));
        let exhausted = |attempt, code| retry.exhausted(one, attempt, code, TimeDelta::zero());
        assert!(!exhausted(4, "busy") && exhausted(5, "busy") && exhausted(1, "no"));
    }

    #[test]
    fn total_time_ends_the_retries() {
        let retry = Retry { total_seconds: Some(60), cap_ms: 10_000, ..Retry::default() };
        let saga = Uuid::from_u128(1);
        assert!(retry.check().is_ok() && Retry::default().check().is_err());
        assert!(!retry.exhausted(saga, 100, "busy", TimeDelta::seconds(49)));
        assert!(
            retry.exhausted(saga, 100, "busy", TimeDelta::seconds(55)),
            "the next try would come too late"
        );
        assert!(retry.exhausted(saga, 1, "busy", TimeDelta::seconds(60)));
    }

    #[test]
    fn reply_timeout_doubles_to_a_minute() {
        assert_eq!(reply_timeout(5_000, 0), TimeDelta::seconds(5));
        assert_eq!(reply_timeout(5_000, 2), TimeDelta::seconds(20));
        assert_eq!(reply_timeout(5_000, 30), TimeDelta::seconds(60));
    }
}
