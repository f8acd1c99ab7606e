//! The job of a cancelled date: ends its holds and refunds its paid reservations, each by its own saga.
//!
//! The job goes through the seats that are not free and does what their owners need. It keeps no list: the rows say what is left,
//! so any process goes on with it, and a refund that a buyer began is none of its work. It is complete when no seat has an owner
//! any more but those whose sagas wait for an operator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::job_end::Ended;
use crate::cancellation::{self, Order};
use crate::ids;
use crate::orchestrator::Engine;
use crate::saga::Status;
use crate::store::batch_jobs::{self as rows, BatchJobRow, JobProgress};
use crate::store::date_refunds::{self as owners, SeatOwner};
use crate::store::reservations::ReservationStatus;

/// Seats that are looked at with one statement.
const PAGE: i64 = 500;
/// How often a job saves its progress and looks whether it is to stop.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);
/// How often it counts what is left; a date may have a hundred thousand seats.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);
/// The pause after a pass that found nothing to begin, only what is under way.
const PASS_PAUSE: Duration = Duration::from_millis(300);

/// What the owner of a seat needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Its hold is to end.
    Release,
    /// Its payment is to be refunded.
    Refund,
    /// Its saga is on the way to its end.
    Wait,
    /// No saga ends it by itself.
    Operator(&'static str),
}

fn need(owner: &SeatOwner) -> Need {
    use ReservationStatus as R;
    match (owner.status, owner.booking, owner.cancellation) {
        (Some(_), _, Some(Status::Stuck)) => Need::Operator("the cancellation is stuck"),
        (Some(_), _, Some(Status::Abandoned)) => Need::Operator("the cancellation was abandoned"),
        (Some(_), _, Some(_)) => Need::Wait,
        (_, Some(Status::Stuck), _) => Need::Operator("the booking is stuck"),
        (Some(R::Confirmed), _, None) if owner.cancellation_id.is_none() => Need::Refund,
        (Some(R::Pending | R::Held), Some(Status::Waiting), _) => Need::Release,
        (Some(R::Pending | R::Held), Some(Status::Running | Status::Compensating), _) => Need::Wait,
        (_, Some(Status::Running | Status::Compensating), _) => Need::Wait,
        _ => Need::Operator("no saga is under way that would free the seats"),
    }
}

/// Why the owner of a seat waits for an operator, if it does.
pub fn why_failed(owner: &SeatOwner) -> Option<&'static str> {
    match need(owner) {
        Need::Operator(why) => Some(why),
        Need::Release | Need::Refund | Need::Wait => None,
    }
}

/// Runs the job to its end.
pub(super) async fn run(
    engine: &Engine,
    row: &BatchJobRow,
    holder: Uuid,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let performance = row.filter.get("performance_id").and_then(serde_json::Value::as_str);
    let Some(performance) = performance.and_then(|id| id.parse().ok()) else {
        let error = Some("it names no performance".to_owned());
        return Ok(Ended::Finished { status: "failed", more: true, error });
    };
    let left = owners::count_owners(&engine.pool, performance).await?;
    let total = row.total.unwrap_or(left);
    let run = Run::new(engine, (row.id, holder), performance, (total, left));
    run.go_through(u32::try_from(row.rate_per_second)?.max(1), stop).await
}

struct Run<'a> {
    engine: &'a Engine,
    job: Uuid,
    holder: Uuid,
    performance: Uuid,
    /// Reservations that had seats when the date was cancelled.
    total: i64,
    /// Those that still have some.
    left: i64,
    looked_at: i64,
    refused: BTreeMap<Uuid, &'static str>,
    counted: Instant,
    saved: Instant,
}

impl<'a> Run<'a> {
    fn new(
        engine: &'a Engine,
        (job, holder): (Uuid, Uuid),
        performance: Uuid,
        (total, left): (i64, i64),
    ) -> Self {
        let (looked_at, refused, counted, saved) = (0, BTreeMap::new(), Instant::now(), Instant::now());
        Self { engine, job, holder, performance, total, left, looked_at, refused, counted, saved }
    }

    async fn go_through(mut self, rate: u32, stop: &CancellationToken) -> anyhow::Result<Ended> {
        let chunk = usize::try_from(rate.div_ceil(10))?;
        let mut pace = interval(Duration::from_secs(1) * rate.div_ceil(10) / rate);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (mut after, mut has_begun, mut is_waiting) = (0, false, false);
            let mut refused = BTreeMap::new();
            loop {
                let page = owners::seat_owners(&self.engine.pool, self.performance, after, PAGE).await?;
                let Some(last) = page.last() else { break };
                after = last.last_seat;
                let mut left = BTreeMap::new();
                for owner in &page {
                    match need(owner) {
                        Need::Wait => is_waiting = true,
                        Need::Operator(why) => {
                            refused.insert(owner.reservation_id, why);
                        }
                        wanted => {
                            left.insert(owner.reservation_id, wanted);
                        }
                    }
                }
                let left: Vec<(Uuid, Need)> = left.into_iter().collect();
                for some in left.chunks(chunk) {
                    if stop.run_until_cancelled(pace.tick()).await.is_none() {
                        self.save().await?;
                        return Ok(Ended::ProcessStops);
                    }
                    self.begin(some).await?;
                    has_begun = true;
                    if let Some(ended) = self.save_now_and_then().await? {
                        return Ok(ended);
                    }
                }
            }
            self.refused = refused;
            if !has_begun && !is_waiting {
                self.left = i64::try_from(self.refused.len())?;
                self.save().await?;
                return Ok(Ended::Finished { status: "completed", more: self.left > 0, error: None });
            }
            if stop.run_until_cancelled(sleep(PASS_PAUSE)).await.is_none() {
                self.save().await?;
                return Ok(Ended::ProcessStops);
            }
            if let Some(ended) = self.save_now_and_then().await? {
                return Ok(ended);
            }
        }
    }

    /// Begins the refunds, and ends the holds, of some reservations. Both may have been begun by their buyers meanwhile.
    async fn begin(&mut self, some: &[(Uuid, Need)]) -> anyhow::Result<()> {
        let of = |wanted| some.iter().filter(move |(_, need)| *need == wanted).map(|(id, _)| *id);
        let refunds: Vec<(Uuid, Uuid)> = of(Need::Refund).map(|id| (id, ids::new())).collect();
        if !refunds.is_empty() {
            cancellation::start(&self.engine.pool, self.engine, Order::of(&refunds)).await?;
        }
        let releases: BTreeSet<Uuid> = of(Need::Release).collect();
        let signals = releases.iter().map(|id| self.engine.signal(*id, "cancel"));
        for given in futures::future::join_all(signals).await {
            given?;
        }
        self.looked_at += i64::try_from(some.len())?;
        Ok(())
    }

    /// Saves progress from time to time. Answers how the run ends, if it is to end.
    async fn save_now_and_then(&mut self) -> anyhow::Result<Option<Ended>> {
        if self.saved.elapsed() < SAVE_INTERVAL {
            return Ok(None);
        }
        if self.counted.elapsed() >= COUNT_INTERVAL {
            self.left = owners::count_owners(&self.engine.pool, self.performance).await?;
            self.counted = Instant::now();
        }
        Ok(match self.save().await? {
            None => Some(Ended::Lost),
            Some(true) => Some(Ended::Finished { status: "stopped", more: true, error: None }),
            Some(false) => None,
        })
    }

    /// Whether a stop was asked for; none if another run holds the job.
    async fn save(&mut self) -> Result<Option<bool>, sqlx::Error> {
        self.saved = Instant::now();
        let failed = i64::try_from(self.refused.len()).unwrap_or(i64::MAX);
        let mut refusals: BTreeMap<&str, u64> = BTreeMap::new();
        self.refused.values().for_each(|why| *refusals.entry(why).or_default() += 1);
        let done = self.total - self.left.max(failed);
        let progress = JobProgress {
            looked_at: self.looked_at,
            done: done.max(0),
            failed,
            refusals: &json!(refusals),
            position: None,
        };
        rows::save(&self.engine.pool, self.job, self.holder, &progress).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReservationStatus as R;
    use Status as S;

    fn check(status: R, booking: Option<S>, cancellation: Option<S>, expected: Need) {
        let owner = SeatOwner {
            reservation_id: Uuid::from_u128(1),
            last_seat: 1,
            status: Some(status),
            cancellation_id: cancellation.map(|_| Uuid::from_u128(2)),
            booking,
            cancellation,
        };
        assert_eq!(need(&owner), expected, "{owner:?}");
    }

    #[test]
    fn each_owner_of_a_seat_gets_what_it_needs() {
        check(R::Held, Some(S::Waiting), None, Need::Release);
        check(R::Held, Some(S::Running), None, Need::Wait);
        check(R::Held, Some(S::Compensating), None, Need::Wait);
        check(R::Confirmed, Some(S::Completed), None, Need::Refund);
        check(R::Confirmed, None, None, Need::Refund);
        check(R::Confirmed, Some(S::Completed), Some(S::Running), Need::Wait);
        check(R::Cancelled, Some(S::Completed), Some(S::Running), Need::Wait);
        for stuck in [(R::Cancelled, Some(S::Completed), Some(S::Stuck)), (R::Held, Some(S::Stuck), None)] {
            let (status, booking, cancellation) = stuck;
            let owner = SeatOwner {
                reservation_id: Uuid::from_u128(1),
                last_seat: 1,
                status: Some(status),
                cancellation_id: None,
                booking,
                cancellation,
            };
            assert!(matches!(need(&owner), Need::Operator(_)), "{owner:?}");
        }
    }
}
