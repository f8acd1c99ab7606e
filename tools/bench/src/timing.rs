//! Durations and their quantiles.

use std::time::Duration;

use chrono::TimeDelta;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer ones count as this long, in microseconds.
const LONGEST_MICROS: u64 = 3_600_000_000;

/// Durations of one kind.
#[derive(Clone, Debug)]
pub(super) struct Timings {
    histogram: Histogram<u64>,
}

/// Quantiles of durations, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub count: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Default for Timings {
    fn default() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds are those of a histogram");
        Self { histogram }
    }
}

impl Timings {
    /// Notes one. What ended before it began counts as nothing: two clocks differ by that much.
    pub(super) fn add(&mut self, took: TimeDelta) {
        let micros = took.num_microseconds().and_then(|micros| u64::try_from(micros).ok()).unwrap_or(0);
        self.histogram.saturating_record(micros);
    }

    /// Notes one that a clock of this process measured.
    pub(super) fn add_duration(&mut self, took: Duration) {
        self.histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Adds all of another.
    pub(super) fn extend(&mut self, other: Self) {
        // Both have the same bounds.
        let _added = self.histogram.add(other.histogram);
    }

    /// How they spread; none if there are none.
    pub(super) fn spread(&self) -> Option<Spread> {
        let ms = |micros: u64| (micros / 10) as f64 / 100.0;
        let at = |quantile| ms(self.histogram.value_at_quantile(quantile));
        (!self.histogram.is_empty()).then(|| Spread {
            count: self.histogram.len(),
            p50_ms: at(0.50),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: ms(self.histogram.max()),
        })
    }
}

impl FromIterator<TimeDelta> for Timings {
    fn from_iter<T: IntoIterator<Item = TimeDelta>>(durations: T) -> Self {
        let mut all = Self::default();
        durations.into_iter().for_each(|took| all.add(took));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_spread_in_milliseconds() {
        let timings: Timings = (-5..=100).map(TimeDelta::milliseconds).collect();
        let spread = timings.spread().unwrap();
        assert_eq!(spread.count, 106);
        assert!((spread.p50_ms - 47.0).abs() < 1.0 && (spread.max_ms - 100.0).abs() < 0.5, "{spread:?}");
        assert_eq!(Timings::default().spread(), None);
    }
}
