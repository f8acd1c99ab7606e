//! The rate in force of each line: the configured one, or the one of its throttle.
//!
//! Every instance reports the duration of its holds. The leader decides, and writes the throttles into its lease, so
//! that every instance and the next leader know them within a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::throttle::{Limits, Load, Range, Throttle};
use crate::ids::ConcertId;
use crate::store::queue::QueueSettings;

/// With fewer holds a p99 means nothing.
const MIN_HOLDS: u64 = 3;
/// Longer holds count as this long.
const MAX_HOLD_MS: u64 = 60_000;
/// How many decisions a report counts for.
const REPORT_TTL_INTERVALS: u32 = 2;

/// A report of the holds on one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// The process that reports.
    pub instance: Uuid,
    /// The p99 in milliseconds.
    pub p99_ms: u64,
    pub count: u64,
}

#[derive(Debug)]
pub struct Throttles {
    current: RwLock<BTreeMap<ConcertId, Throttle>>,
    reports: Mutex<HashMap<Uuid, (Instant, Duration)>>,
    holds: Mutex<Holds>,
}

/// The holds since the last rotation, and those of the window before.
#[derive(Debug)]
struct Holds {
    now: Histogram<u64>,
    before: Histogram<u64>,
}

impl Throttles {
    pub fn new() -> Self {
        let empty =
            Histogram::new_with_bounds(1, MAX_HOLD_MS, 2).expect("the bounds are those of a histogram");
        Self {
            current: RwLock::default(),
            reports: Mutex::default(),
            holds: Mutex::new(Holds { now: empty.clone(), before: empty }),
        }
    }

    /// Admissions per minute in force now.
    pub fn rate(&self, settings: &QueueSettings) -> u32 {
        let Some(range) = Range::of(settings) else {
            return u32::try_from(settings.admit_per_minute).unwrap_or(0);
        };
        let throttled = self.of(settings).map(|throttle| throttle.rate);
        range.within(throttled).round() as u32
    }

    /// `None` if the throttle is off or the leader has not decided yet.
    pub fn of(&self, settings: &QueueSettings) -> Option<Throttle> {
        Range::of(settings)?;
        self.current.read().unwrap_or_else(PoisonError::into_inner).get(&settings.concert_id).cloned()
    }

    /// All throttles, for the lease.
    pub fn all(&self) -> BTreeMap<ConcertId, Throttle> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies the throttles that the leader has written.
    pub fn apply(&self, throttles: BTreeMap<ConcertId, Throttle>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = throttles;
    }

    /// Decides for these lines. The throttles of all others end.
    pub fn decide(&self, throttled: &[(ConcertId, Range)], backlog: Option<u32>, limits: &Limits) {
        let load = Load { hold: self.worst(REPORT_TTL_INTERVALS * limits.every), backlog };
        let before = self.all();
        let next = throttled.iter().map(|(concert, range)| {
            let last = before.get(concert);
            let throttle = Throttle::next(last.map(|throttle| throttle.rate), range, load, limits);
            if last.is_none_or(|last| last.state != throttle.state) {
                tracing::info!(%concert, rate = throttle.rate, reason = throttle.reason, "the throttle of a line changed");
            }
            (*concert, throttle)
        });
        self.apply(next.collect());
    }

    pub fn record_hold(&self, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(MAX_HOLD_MS);
        self.holds().now.saturating_record(took.clamp(1, MAX_HOLD_MS));
    }

    /// The p99 and the number of holds of the last two windows, if there were any. Starts a new window.
    pub fn rotate_window(&self) -> Option<(u64, u64)> {
        let mut holds = self.holds();
        let mut both = holds.before.clone();
        // Both histograms have the same bounds, so this cannot fail.
        let _ = both.add(&holds.now);
        holds.before = holds.now.clone();
        holds.now.reset();
        let count = both.len();
        (count > 0).then(|| (both.value_at_quantile(0.99), count))
    }

    pub fn record_report(&self, report: &HoldReport) {
        if report.count >= MIN_HOLDS {
            let took = Duration::from_millis(report.p99_ms.min(MAX_HOLD_MS));
            self.reports().insert(report.instance, (Instant::now(), took));
        }
    }

    /// The p99 of the slowest instance with a recent report.
    fn worst(&self, lately: Duration) -> Option<Duration> {
        let mut reports = self.reports();
        reports.retain(|_, (at, _)| at.elapsed() < lately);
        reports.values().map(|(_, took)| *took).max()
    }

    fn reports(&self) -> MutexGuard<'_, HashMap<Uuid, (Instant, Duration)>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holds(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(instance: u128, p99_ms: u64, count: u64) -> HoldReport {
        HoldReport { instance: Uuid::from_u128(instance), p99_ms, count }
    }

    #[tokio::test(start_paused = true)]
    async fn slowest_reporting_instance_decides() {
        let throttles = Throttles::new();
        assert_eq!(throttles.worst(Duration::from_secs(4)), None);
        throttles.record_report(&report(1, 900, MIN_HOLDS - 1));
        assert_eq!(throttles.worst(Duration::from_secs(4)), None, "too few to say anything");
        throttles.record_report(&report(1, 500, MIN_HOLDS));
        tokio::time::advance(Duration::from_secs(2)).await;
        throttles.record_report(&report(2, 100, 80));
        assert_eq!(throttles.worst(Duration::from_secs(4)), Some(Duration::from_millis(500)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(throttles.worst(Duration::from_secs(4)), Some(Duration::from_millis(100)));
    }

    #[test]
    fn holds_count_for_two_spans() {
        let throttles = Throttles::new();
        assert_eq!(throttles.rotate_window(), None);
        (0..100).for_each(|_| throttles.record_hold(Duration::from_millis(20)));
        (0..2).for_each(|_| throttles.record_hold(Duration::from_secs(600)));
        let (p99, count) = throttles.rotate_window().unwrap();
        assert!(p99 > 59_000 && count == 102, "{p99}");
        assert_eq!(throttles.rotate_window().map(|(_, count)| count), Some(102));
        assert_eq!(throttles.rotate_window(), None);
    }
}
