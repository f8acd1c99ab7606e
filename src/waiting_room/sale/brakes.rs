//! How fast each line moves now: the rate that is set, or what the brake makes of it.
//!
//! Every instance measures how long its holds take and tells whoever leads; the leader decides and writes the outcome into
//! its lease, so that every instance, and the next leader, knows it within a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::brake::{Brake, Limits, Range, Strain};
use crate::ids::ConcertId;
use crate::store::queue::QueueSettings;

/// Fewer holds than these say nothing.
const ENOUGH: u64 = 3;
/// A longer hold counts as one of this length, in milliseconds.
const LONGEST: u64 = 60_000;
/// What was heard of an instance counts for so many looks.
const HEARD_FOR: u32 = 2;

/// How long holds take on one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldReport {
    /// The running process.
    pub instance: Uuid,
    /// Of a hundred holds the slowest, in milliseconds.
    pub p99_ms: u64,
    /// How many there were.
    pub count: u64,
}

/// The brakes of all lines, and what they are decided by.
#[derive(Debug)]
pub struct Brakes {
    known: RwLock<BTreeMap<ConcertId, Brake>>,
    heard: Mutex<HashMap<Uuid, (Instant, Duration)>>,
    holds: Mutex<Holds>,
}

/// Holds of the running span between two looks, and of the one before.
#[derive(Debug)]
struct Holds {
    now: Histogram<u64>,
    before: Histogram<u64>,
}

impl Brakes {
    /// Nothing is braked yet.
    pub fn new() -> Self {
        let empty = Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are those of a histogram");
        Self {
            known: RwLock::default(),
            heard: Mutex::default(),
            holds: Mutex::new(Holds { now: empty.clone(), before: empty }),
        }
    }

    /// Admissions per minute in force now.
    pub fn rate(&self, settings: &QueueSettings) -> u32 {
        let Some(range) = Range::of(settings) else {
            return u32::try_from(settings.admit_per_minute).unwrap_or(0);
        };
        let braked = self.of(settings).map(|brake| brake.rate);
        range.within(braked).round() as u32
    }

    /// How a line is braked, if its brake is on and the leader has said so.
    pub fn of(&self, settings: &QueueSettings) -> Option<Brake> {
        Range::of(settings)?;
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(&settings.concert_id).cloned()
    }

    /// All of them: what goes into the lease.
    pub fn all(&self) -> BTreeMap<ConcertId, Brake> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what the leader has written.
    pub fn learn(&self, brakes: BTreeMap<ConcertId, Brake>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = brakes;
    }

    /// One look at these lines; whatever is not among them is not braked any more.
    pub fn look(&self, braked: &[(ConcertId, Range)], backlog: Option<u32>, limits: &Limits) {
        let strain = Strain { hold: self.worst(HEARD_FOR * limits.every), backlog };
        let before = self.all();
        let next = braked.iter().map(|(concert, range)| {
            let last = before.get(concert);
            let brake = Brake::next(last.map(|brake| brake.rate), range, strain, limits);
            if last.is_none_or(|last| last.state != brake.state) {
                tracing::info!(%concert, rate = brake.rate, reason = brake.reason, "the brake of a line");
            }
            (*concert, brake)
        });
        self.learn(next.collect());
    }

    /// Notes how long a hold took on this instance.
    pub fn note_hold(&self, took: Duration) {
        let took = u64::try_from(took.as_millis()).unwrap_or(LONGEST);
        self.holds().now.saturating_record(took.clamp(1, LONGEST));
    }

    /// The p99 and the number of holds of the last two spans, if there were any; a new span begins.
    pub fn turn_span(&self) -> Option<(u64, u64)> {
        let mut holds = self.holds();
        let mut both = holds.before.clone();
        // Both have the same bounds, so that nothing can be left out.
        let _ = both.add(&holds.now);
        holds.before = holds.now.clone();
        holds.now.reset();
        let count = both.len();
        (count > 0).then(|| (both.value_at_quantile(0.99), count))
    }

    /// Takes down what an instance says of its holds.
    pub fn hear(&self, report: &HoldReport) {
        if report.count >= ENOUGH {
            let took = Duration::from_millis(report.p99_ms.min(LONGEST));
            self.heard().insert(report.instance, (Instant::now(), took));
        }
    }

    /// The slowest instance of which something was heard lately.
    fn worst(&self, lately: Duration) -> Option<Duration> {
        let mut heard = self.heard();
        heard.retain(|_, (at, _)| at.elapsed() < lately);
        heard.values().map(|(_, took)| *took).max()
    }

    fn heard(&self) -> MutexGuard<'_, HashMap<Uuid, (Instant, Duration)>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
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
    async fn the_slowest_instance_decides_for_as_long_as_it_is_heard_of() {
        let brakes = Brakes::new();
        assert_eq!(brakes.worst(Duration::from_secs(4)), None);
        brakes.hear(&report(1, 900, ENOUGH - 1));
        assert_eq!(brakes.worst(Duration::from_secs(4)), None, "too few to say anything");
        brakes.hear(&report(1, 500, ENOUGH));
        tokio::time::advance(Duration::from_secs(2)).await;
        brakes.hear(&report(2, 100, 80));
        assert_eq!(brakes.worst(Duration::from_secs(4)), Some(Duration::from_millis(500)));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(brakes.worst(Duration::from_secs(4)), Some(Duration::from_millis(100)));
    }

    #[test]
    fn holds_count_for_two_spans() {
        let brakes = Brakes::new();
        assert_eq!(brakes.turn_span(), None);
        (0..100).for_each(|_| brakes.note_hold(Duration::from_millis(20)));
        (0..2).for_each(|_| brakes.note_hold(Duration::from_secs(600)));
        let (p99, count) = brakes.turn_span().unwrap();
        assert!(p99 > 59_000 && count == 102, "{p99}");
        assert_eq!(brakes.turn_span().map(|(_, count)| count), Some(102));
        assert_eq!(brakes.turn_span(), None);
    }
}
