//! The one place that reads the machine's clock.
//!
//! A decision reads the database's clock inside its transaction. All else (the
//! line in memory, what a token says, how many seconds are left) uses this clock, which is kept in step with
//! the database's, so that instances on machines whose clocks disagree still agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
pub use saga_core::range::{EARLIEST, LATEST, deserialize, is_plausible};
use serde::{Deserialize, Deserializer};

/// `time + delta`, or the last moment that can be written where the sum lies beyond it.
pub fn plus(time: DateTime<Utc>, delta: TimeDelta) -> DateTime<Utc> {
    let bound = if delta < TimeDelta::zero() { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
    time.checked_add_signed(delta).unwrap_or(bound)
}

/// [`deserialize`] for a time that may be missing.
pub mod optional {
    use super::{DateTime, Deserialize, Deserializer, Utc};

    #[derive(Deserialize)]
    struct Plausible(#[serde(deserialize_with = "super::deserialize")] DateTime<Utc>);

    /// Reads a time or nothing.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<DateTime<Utc>>, D::Error> {
        let read = Option::<Plausible>::deserialize(deserializer)?;
        Ok(read.map(|Plausible(time)| time))
    }
}

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
        plus(self.uncorrected(), milliseconds(self.correction_ms.load(Ordering::Relaxed)))
    }

    /// The same in whole microseconds, as the database keeps times.
    pub fn micros(&self) -> DateTime<Utc> {
        self.now().trunc_subsecs(6)
    }

    /// What the machine itself says.
    pub fn uncorrected(&self) -> DateTime<Utc> {
        plus(Utc::now(), milliseconds(self.skew_ms))
    }

    /// Sets the correction: `reference` was the right time when this machine said `uncorrected`.
    pub fn follow(&self, reference: DateTime<Utc>, uncorrected: DateTime<Utc>) {
        let correction = (reference - uncorrected).num_milliseconds();
        self.correction_ms.store(correction, Ordering::Relaxed);
    }
}

fn milliseconds(count: i64) -> TimeDelta {
    TimeDelta::try_milliseconds(count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sums_stay_in_range() {
        let year = TimeDelta::days(366);
        assert_eq!(plus(DateTime::<Utc>::MAX_UTC, year), DateTime::<Utc>::MAX_UTC);
        assert_eq!(plus(DateTime::<Utc>::MIN_UTC, -year), DateTime::<Utc>::MIN_UTC);
        assert_eq!(plus(EARLIEST, year), EARLIEST + year);
        #[derive(Deserialize)]
        struct Times {
            #[serde(deserialize_with = "deserialize")]
            at: DateTime<Utc>,
            #[serde(default, deserialize_with = "optional::deserialize")]
            until: Option<DateTime<Utc>>,
        }
        let read = |text: &str| serde_json::from_str::<Times>(text).map(|times| (times.at, times.until));
        assert_eq!(read(r#"{"at": "2000-01-01T00:00:00Z"}"#).unwrap(), (EARLIEST, None));
        assert_eq!(read(r#"{"at": "2200-01-01T00:00:00Z", "until": null}"#).unwrap(), (LATEST, None));
        for evil in [
            r#"{"at": "+262142-12-31T23:59:59Z"}"#,
            r#"{"at": "-262143-01-01T00:00:00Z"}"#,
            r#"{"at": "2026-01-01T00:00:00Z", "until": "2200-01-01T00:00:01Z"}"#,
        ] {
            assert!(read(evil).is_err(), "{evil}");
        }
    }

    #[test]
    fn skewed_clock_follows_its_reference() {
        let clock = Clock::skewed(5_000);
        let before = clock.now() - Utc::now();
        assert!(before > TimeDelta::milliseconds(4_900));
        clock.follow(Utc::now(), clock.uncorrected());
        let after = (clock.now() - Utc::now()).abs();
        assert!(after < TimeDelta::milliseconds(100));
    }
}
