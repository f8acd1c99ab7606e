//! Detects lines that stand still although users could be admitted.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::ids::ConcertId;

const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// At a slow rate a line may stand still for the time of this many admissions.
const MISSED_ADMISSIONS: f64 = 2.0;

#[derive(Debug, Default)]
pub struct StallDetector(Mutex<HashMap<ConcertId, Stall>>);

#[derive(Clone, Copy, Debug)]
struct Stall {
    since: Instant,
    at: DateTime<Utc>,
    is_reported: bool,
}

impl StallDetector {
    /// Since when the line has stood still; `None` unless it is for too long.
    pub fn since(&self, concert: ConcertId) -> Option<DateTime<Utc>> {
        self.stalls().get(&concert).filter(|stall| stall.is_reported).map(|stall| stall.at)
    }

    /// Updates the lines that stand still now, each with its rate. Returns those that have just exceeded the limit.
    pub fn update(&self, lines: &[(ConcertId, u32)], at: DateTime<Utc>) -> Vec<ConcertId> {
        let now = Instant::now();
        let mut stalls = self.stalls();
        stalls.retain(|concert, _| lines.iter().any(|(one, _)| one == concert));
        let mut new = Vec::new();
        for (concert, rate) in lines {
            let one = stalls.entry(*concert).or_insert(Stall { since: now, at, is_reported: false });
            if !one.is_reported && now - one.since > timeout(*rate) {
                one.is_reported = true;
                new.push(*concert);
            }
        }
        new
    }

    fn stalls(&self) -> MutexGuard<'_, HashMap<ConcertId, Stall>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn timeout(rate: u32) -> Duration {
    STALL_TIMEOUT.max(Duration::from_secs_f64(MISSED_ADMISSIONS * 60.0 / f64::from(rate.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn stalled_line_is_reported_once() {
        let (stalls, concert) = (StallDetector::default(), ConcertId::from_u128(1));
        let at = |seconds: i64| DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap();
        let quick = [(concert, 600)];
        assert!(stalls.update(&quick, at(0)).is_empty());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(stalls.update(&quick, at(10)).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((stalls.update(&quick, at(11)), stalls.since(concert)), (vec![concert], Some(at(0))));
        assert_eq!((stalls.update(&quick, at(12)), stalls.since(concert)), (vec![], Some(at(0))));
        assert_eq!((stalls.update(&[], at(13)), stalls.since(concert)), (vec![], None));

        let slow = [(concert, 2)];
        stalls.update(&slow, at(20));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(stalls.update(&slow, at(79)).is_empty(), "one every half minute");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(stalls.update(&slow, at(81)), [concert]);
    }
}
