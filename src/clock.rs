//! The one place that reads the machine's clock.
//!
//! Whatever decides about money or seats reads the database's clock inside its transaction. All else (the
//! line in memory, what a token says, how many seconds are left) uses this clock, which is kept in step with
//! the database's, so that instances on machines whose clocks disagree still tell the same story.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, TimeDelta, Utc};

/// The machine's clock, corrected by what [`Clock::follow`] last learnt.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    skew_ms: i64,
    correction_ms: Arc<AtomicI64>,
}

impl Clock {
    /// A clock that goes wrong by `skew_ms` milliseconds until it is corrected: a machine with a bad clock.
    pub fn skewed(skew_ms: i64) -> Self {
        Self { skew_ms, correction_ms: Arc::default() }
    }

    /// The time now, as near to the database's as the last correction made it.
    pub fn now(&self) -> DateTime<Utc> {
        self.uncorrected() + TimeDelta::milliseconds(self.correction_ms.load(Ordering::Relaxed))
    }

    /// What the machine itself says.
    pub fn uncorrected(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::milliseconds(self.skew_ms)
    }

    /// Sets the correction: `reference` was the right time when this machine said `uncorrected`.
    pub fn follow(&self, reference: DateTime<Utc>, uncorrected: DateTime<Utc>) {
        let correction = (reference - uncorrected).num_milliseconds();
        self.correction_ms.store(correction, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_clock_is_right_once_it_follows_a_reference() {
        let clock = Clock::skewed(5_000);
        let before = clock.now() - Utc::now();
        assert!(before > TimeDelta::milliseconds(4_900));
        clock.follow(Utc::now(), clock.uncorrected());
        let after = (clock.now() - Utc::now()).abs();
        assert!(after < TimeDelta::milliseconds(100));
    }
}
