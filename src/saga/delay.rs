//! How long to wait before trying again: a pure function, its jitter drawn from a hash of saga and attempt.

use chrono::TimeDelta;
use serde::Deserialize;
use uuid::Uuid;

/// The longest pause between two sends of a command nobody answers, in milliseconds.
const SILENCE_CAP_MS: u64 = 60_000;

/// When failed answers are tried again, and how often.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The first pause, in milliseconds.
    pub first_ms: u64,
    /// What each pause is multiplied by for the next.
    pub factor: f64,
    /// The longest pause, in milliseconds.
    pub cap_ms: u64,
    /// Failed answers before giving up.
    pub attempts: i32,
    /// Errors that are never tried again.
    #[serde(default)]
    pub never: Vec<String>,
}

impl Retry {
    /// The policy of a step that names none: about ten seconds in all.
    pub(super) fn of_do() -> Self {
        Self { first_ms: 100, factor: 2.0, cap_ms: 3_000, attempts: 8, never: Vec::new() }
    }

    /// The policy of an undo that names none: about an hour in all.
    pub(super) fn of_undo() -> Self {
        Self { first_ms: 100, factor: 2.0, cap_ms: 60_000, attempts: 70, never: Vec::new() }
    }

    pub(super) fn check(&self) -> Result<(), String> {
        if self.first_ms == 0 || self.cap_ms < self.first_ms {
            return Err("its retry needs 1 <= first_ms <= cap_ms".into());
        }
        if !(1.0..=10.0).contains(&self.factor) || self.attempts < 1 {
            return Err("its retry needs a factor from 1 to 10 and at least 1 attempt".into());
        }
        Ok(())
    }

    /// Whether the `attempt`th failure, with this code, is the last.
    pub fn exhausted(&self, attempt: i32, code: &str) -> bool {
        attempt >= self.attempts || self.never.iter().any(|never| never == code)
    }

    /// The pause after the `attempt`th failure (from 1), up to a fifth shorter by the saga's own jitter.
    pub fn pause(&self, saga: Uuid, attempt: i32) -> TimeDelta {
        let grown = self.first_ms as f64 * self.factor.powi((attempt - 1).clamp(0, 64));
        let capped = grown.min(self.cap_ms as f64);
        let jitter = 1.0 - 0.2 * f64::from(spread(saga, attempt)) / f64::from(u32::MAX);
        TimeDelta::milliseconds((capped * jitter) as i64)
    }
}

/// How long to wait for an answer after the command was sent again `send` times: doubling, at most a minute.
pub fn silence(timeout_ms: u64, send: i32) -> TimeDelta {
    let grown = timeout_ms.saturating_mul(1 << send.clamp(0, 16));
    TimeDelta::milliseconds(grown.min(SILENCE_CAP_MS.max(timeout_ms)) as i64)
}

/// A number that looks random and is the same for the same saga and attempt (the finaliser of SplitMix64).
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
    fn pauses_grow_to_the_cap_and_differ_between_sagas() {
        let retry =
            Retry { first_ms: 100, factor: 2.0, cap_ms: 1_000, attempts: 5, never: vec!["no".into()] };
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for (attempt, full) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (50, 1_000)] {
            let pause = retry.pause(one, attempt).num_milliseconds();
            assert!(pause <= full && pause >= full * 8 / 10 - 1, "{attempt}: {pause}");
            assert_eq!(retry.pause(one, attempt), retry.pause(one, attempt));
        }
        assert_ne!(retry.pause(one, 5), retry.pause(other, 5));
        assert!(!retry.exhausted(4, "busy") && retry.exhausted(5, "busy") && retry.exhausted(1, "no"));
    }

    #[test]
    fn silence_doubles_to_a_minute() {
        assert_eq!(silence(5_000, 0), TimeDelta::seconds(5));
        assert_eq!(silence(5_000, 2), TimeDelta::seconds(20));
        assert_eq!(silence(5_000, 30), TimeDelta::seconds(60));
    }
}
