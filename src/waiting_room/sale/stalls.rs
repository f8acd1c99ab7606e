//! Since when a line has stood still that should move, and for how long that may be.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::ids::ConcertId;

/// How long a line may stand still that should move.
const PATIENCE: Duration = Duration::from_secs(10);
/// At a slow rate so many admissions must have been left out.
const LEFT_OUT: f64 = 2.0;

/// The lines that should move and do not.
#[derive(Debug, Default)]
pub struct Stalls(Mutex<HashMap<ConcertId, Still>>);

/// Since when a line has stood still.
#[derive(Clone, Copy, Debug)]
struct Still {
    since: Instant,
    at: DateTime<Utc>,
    is_told: bool,
}

impl Stalls {
    /// Since when a line has stood still for too long, if it has.
    pub fn since(&self, concert: ConcertId) -> Option<DateTime<Utc>> {
        self.still().get(&concert).filter(|still| still.is_told).map(|still| still.at)
    }

    /// Notes the lines that should move and do not this moment, each with its rate; answers those for which it has been too
    /// long just now.
    pub fn note(&self, lines: &[(ConcertId, u32)], at: DateTime<Utc>) -> Vec<ConcertId> {
        let now = Instant::now();
        let mut still = self.still();
        still.retain(|concert, _| lines.iter().any(|(one, _)| one == concert));
        let mut new = Vec::new();
        for (concert, rate) in lines {
            let one = still.entry(*concert).or_insert(Still { since: now, at, is_told: false });
            if !one.is_told && now - one.since > patience(*rate) {
                one.is_told = true;
                new.push(*concert);
            }
        }
        new
    }

    fn still(&self) -> MutexGuard<'_, HashMap<ConcertId, Still>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn patience(rate: u32) -> Duration {
    PATIENCE.max(Duration::from_secs_f64(LEFT_OUT * 60.0 / f64::from(rate.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_that_stands_still_is_told_of_once_and_until_it_moves() {
        let (stalls, concert) = (Stalls::default(), ConcertId::from_u128(1));
        let at = |seconds: i64| DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap();
        let quick = [(concert, 600)];
        assert!(stalls.note(&quick, at(0)).is_empty());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(stalls.note(&quick, at(10)).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((stalls.note(&quick, at(11)), stalls.since(concert)), (vec![concert], Some(at(0))));
        assert_eq!((stalls.note(&quick, at(12)), stalls.since(concert)), (vec![], Some(at(0))));
        assert_eq!((stalls.note(&[], at(13)), stalls.since(concert)), (vec![], None));

        let slow = [(concert, 2)];
        stalls.note(&slow, at(20));
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(stalls.note(&slow, at(79)).is_empty(), "one every half minute");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(stalls.note(&slow, at(81)), [concert]);
    }
}
